package udpbatch

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// batched is the engine over recvmmsg and sendmmsg. The socket stays in the runtime's poller: a reader that finds nothing parks there.
type batched struct {
	socket   syscall.RawConn
	kernel   kernel
	family   int // of the socket: unix.AF_INET or AF_INET6; the latter takes IPv4 too, mapped
	counters *counters
	log      *slog.Logger

	batch bool // recvmmsg and sendmmsg may be used
	gro   bool

	gsoLimit  atomic.Int32 // bytes of the largest datagram that may go in a message with UDP_SEGMENT; 0: none. It only ever falls.
	gsoLogged atomic.Bool

	// errorsWait tells the reader that a sender was handed an ICMP error, which leaves the error's particulars in the
	// kernel's error queue but no event that would wake the reader to fetch them.
	errorsWait atomic.Bool

	receiver receiver
	senders  sync.Pool // of *sender
}

func newEngine(socket *net.UDPConn, c Config, n *counters) (engine, error) {
	return newBatched(socket, c, n, linux)
}

// OverIP returns a Conn over a raw IPv4 socket, which it owns from then on. What it writes is the payload of IP packets, what it reads are
// whole packets with their header, and all ports are 0. There is no GSO and GRO; Local and Network of the Config mean nothing.
func OverIP(raw *net.IPConn, c Config) (*Conn, error) {
	c = c.withDefaults()
	c.DisableGSO, c.DisableGRO = true, true
	conn := &Conn{socket: raw, outerMTU: c.OuterMTU, asked: max(c.ReadBuffer, c.WriteBuffer)}
	if local, ok := raw.LocalAddr().(*net.IPAddr); ok {
		addr, _ := netip.AddrFromSlice(local.IP)
		conn.local = unmap(netip.AddrPortFrom(addr, 0))
	}
	conn.readBuffer, conn.writeBuffer = setBuffers(raw, c.ReadBuffer, c.WriteBuffer)
	var err error
	if conn.engine, err = newBatched(raw, c, &conn.counters, linux); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func newBatched(socket syscall.Conn, c Config, n *counters, k kernel) (engine, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("udpbatch: %w", err)
	}
	b := &batched{socket: raw, kernel: k, counters: n, log: c.Log}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = b.setUp(int(fd), c) }); err != nil {
		return nil, fmt.Errorf("udpbatch: %w", err)
	}
	if failed != nil {
		return nil, fmt.Errorf("udpbatch: %w", failed)
	}
	b.receiver.init(b)
	b.senders.New = func() any { return newSender(b) }
	return b, nil
}

// setUp finds out what the kernel offers and switches it on.
func (b *batched) setUp(fd int, c Config) error {
	var err error
	if b.family, err = b.kernel.getsockopt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return err
	}
	b.fragment(fd)
	b.reportErrors(fd)
	_ = b.kernel.setsockopt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) // only counts

	if !c.DisableBatch {
		_, receive := b.kernel.recvmmsg(uintptr(fd), nil, unix.MSG_DONTWAIT)
		_, send := b.kernel.sendmmsg(uintptr(fd), nil)
		// Nothing to move is no error; a sandbox that forbids the calls says so (see refused). EAGAIN and ICMP errors are no refusal.
		b.batch = !refused(receive) && !refused(send)
		if !b.batch {
			b.log.Info("kernel refuses recvmmsg or sendmmsg: one message a call", "recvmmsg", receive, "sendmmsg", send)
		}
	}
	if !c.DisableGSO {
		// Linux 4.18 and later know the option; whether the route's interface can do it shows at the first send.
		if _, err := b.kernel.getsockopt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err == nil {
			b.gsoLimit.Store(maxPayload)
		} else {
			b.log.Info("kernel has no UDP_SEGMENT: one datagram a message", "err", err)
		}
	}
	if !c.DisableGRO {
		if err := b.kernel.setsockopt(fd, unix.SOL_UDP, unix.UDP_GRO, 1); err == nil {
			b.gro = true
		} else {
			b.log.Info("kernel has no UDP_GRO: one datagram a message", "err", err)
		}
	}
	return nil
}

// refused tells the answers of a kernel without the call, and of filters, whose authors choose the error.
func refused(e syscall.Errno) bool {
	return e == unix.ENOSYS || e == unix.EPERM || e == unix.EINVAL || e == unix.EACCES
}

// fragment lets every datagram leave: without the Don't Fragment bit (RFC 791 section 2.3), and cut up here when the route is known
// to be narrow. The alternative, path MTU discovery, fails where ICMP is filtered, which is where these tunnels are
// used: the tunnel would come up and then lose each full packet in silence. The inner MTU is what keeps fragments rare.
func (b *batched) fragment(fd int) {
	_ = b.kernel.setsockopt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	if b.family == unix.AF_INET6 {
		_ = b.kernel.setsockopt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
	}
}

// reportErrors asks for the error queue of ip(7). Without it a socket that is not connected never hears of ICMP errors.
func (b *batched) reportErrors(fd int) {
	_ = b.kernel.setsockopt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	if b.family == unix.AF_INET6 {
		_ = b.kernel.setsockopt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
}

func (b *batched) using() (batch, gso, gro bool) { return b.batch, b.gsoLimit.Load() > 0, b.gro }

// refuseGSO remembers for good that the kernel would not split a message into datagrams of size bytes. EIO says that the
// interface cannot at all; EINVAL and EMSGSIZE, that a datagram of this size would not fit the route unfragmented.
func (b *batched) refuseGSO(size int, errno syscall.Errno) {
	limit := int32(size - 1)
	if errno == unix.EIO {
		limit = 0
	}
	for old := b.gsoLimit.Load(); limit < old && !b.gsoLimit.CompareAndSwap(old, limit); old = b.gsoLimit.Load() {
	}
	if b.gsoLogged.CompareAndSwap(false, true) {
		b.log.Info("kernel refuses UDP_SEGMENT: one datagram a message from this size on", "err", errno, "size", limit+1)
	}
}

// setBuffers asks for socket buffers and returns what was granted: at most net.core.rmem_max and wmem_max, which are the
// administrator's word and are left to stand, for root too.
func setBuffers(socket socket, read, write int) (int, int) {
	_ = socket.SetReadBuffer(read)
	_ = socket.SetWriteBuffer(write)
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, 0
	}
	_ = raw.Control(func(fd uintptr) {
		read, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		write, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return read / 2, write / 2 // socket(7): the kernel doubles the value, for its own bookkeeping, and reports the double
}

const discardPort = 9 // any port would do: nothing is sent

// askRouteMTU returns the MTU, in bytes, of the route to an address; 0 if it is not known. Connecting a UDP socket sends nothing.
func askRouteMTU(to netip.Addr) int {
	var family, level, option int
	var peer unix.Sockaddr
	switch {
	case to.Is4():
		family, level, option = unix.AF_INET, unix.SOL_IP, unix.IP_MTU
		peer = &unix.SockaddrInet4{Port: discardPort, Addr: to.As4()}
	case to.Is6():
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU
		peer = &unix.SockaddrInet6{Port: discardPort, Addr: to.As16(), ZoneId: scopeID(to.Zone())}
	default:
		return 0
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.Connect(fd, peer) != nil {
		return 0
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0
	}
	return mtu
}
