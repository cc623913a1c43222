package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	dnsPort        = 53
	dnsIdleTimeout = 10 * time.Second // for an outlet that was used for DNS at most
	maxPeers       = 1024             // targets that may answer, for each outlet
)

// An outlet is an association's socket in the private network for one IP
// version. It is opened by the first datagram and released when idle.
type outlet struct {
	association *association
	network     string // "udp4" or "udp6"

	mu       sync.Mutex
	conn     datagramConn // nil while released
	peers    map[netip.Addr]struct{}
	lastUsed time.Time
	onlyDNS  bool
	closed   bool
}

// open opens the outlet unless it is open. It waits as long as the
// PacketListener does.
func (o *outlet) open(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.openLocked(ctx)
}

func (o *outlet) openLocked(ctx context.Context) error {
	if o.closed {
		return net.ErrClosed
	}
	if o.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.association.server.config.DialTimeout)
	defer cancel()
	conn, err := o.association.server.config.PacketListener.ListenPacket(ctx, o.network, "")
	if err != nil {
		return err
	}
	o.conn = newDatagramConn(conn)
	o.peers = make(map[netip.Addr]struct{})
	o.onlyDNS = true
	o.lastUsed = time.Now()
	// Sooner than needed once anything but DNS was sent; receive looks again.
	o.conn.SetReadDeadline(o.lastUsed.Add(o.idleTimeout()))
	opened := o.conn
	o.association.start(func() { o.receive(opened) })
	return nil
}

// send sends payload to an address and lets that address answer.
func (o *outlet) send(to netip.AddrPort, payload []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.openLocked(o.association.ctx); err != nil {
		return err
	}
	o.lastUsed = time.Now()
	o.onlyDNS = o.onlyDNS && to.Port() == dnsPort
	if _, known := o.peers[to.Addr()]; !known {
		if len(o.peers) == maxPeers {
			for peer := range o.peers { // any one
				delete(o.peers, peer)
				break
			}
		}
		o.peers[to.Addr()] = struct{}{}
	}
	_, err := o.conn.WriteToUDPAddrPort(payload, to)
	return err
}

// receive passes datagrams on to the client until conn is released. Only hosts
// that the client has sent to get through (address-dependent filtering, RFC
// 4787 section 5).
func (o *outlet) receive(conn datagramConn) {
	u := o.association
	buf := u.server.datagramBuffer()
	defer u.server.datagrams.Put(buf)
	for failures := 0; ; {
		n, from, err := conn.ReadFromUDPAddrPort(buf[maxUDPHeader:])
		if err != nil {
			failures++
			if o.releaseAfter(conn, err, failures) {
				return
			}
			continue
		}
		failures = 0
		client := u.client.Load()
		if client == nil || !o.admits(from.Addr()) {
			u.drop()
			continue
		}
		// The header goes right in front of the payload.
		source := udpTarget{addr: from.Addr().Unmap(), port: from.Port()}
		start := maxUDPHeader - headerLength(source.addr)
		appendUDPHeader(buf[:start], source)
		if _, err := u.relay.WriteToUDPAddrPort(buf[start:maxUDPHeader+n], *client); err != nil {
			u.drop()
			continue
		}
		u.server.count.datagramsDown.Add(1)
	}
}

// admits reports whether from may send to the client, and notes the use.
func (o *outlet) admits(from netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.peers[from.Unmap()]
	if known {
		o.lastUsed = time.Now()
	}
	return known
}

// releaseAfter decides after an error of conn whether it has to go: when it
// has been idle for long enough, or is broken for good, as when the tunnel
// went down. The next datagram then opens another.
func (o *outlet) releaseAfter(conn datagramConn, err error, failures int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn != conn {
		return true
	}
	if isTimeout(err) {
		if expires := o.lastUsed.Add(o.idleTimeout()); time.Now().Before(expires) {
			conn.SetReadDeadline(expires)
			return false
		}
	} else if !errors.Is(err, net.ErrClosed) && failures < maxFailuresInARow {
		return false // a port unreachable, say
	}
	o.release()
	return true
}

// idleTimeout is called with mu held.
func (o *outlet) idleTimeout() time.Duration {
	idle := o.association.server.config.UDPIdleTimeout
	if o.onlyDNS {
		return min(idle, dnsIdleTimeout)
	}
	return idle
}

// release is called with mu held.
func (o *outlet) release() {
	if o.conn != nil {
		o.conn.Close()
		o.conn, o.peers = nil, nil
	}
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.release()
}

func (s *Server) datagramBuffer() *[datagramBuffer]byte {
	if buf, ok := s.datagrams.Get().(*[datagramBuffer]byte); ok {
		return buf
	}
	return new([datagramBuffer]byte)
}

// A datagramConn is what *net.UDPConn offers for sending and receiving without
// allocation.
type datagramConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

func newDatagramConn(conn net.PacketConn) datagramConn {
	if conn, ok := conn.(datagramConn); ok {
		return conn
	}
	return packetConn{conn}
}

// A packetConn makes any net.PacketConn a datagramConn.
type packetConn struct{ net.PacketConn }

func (c packetConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.ReadFrom(b)
	return n, addrPort(from), err
}

func (c packetConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteTo(b, net.UDPAddrFromAddrPort(to))
}
