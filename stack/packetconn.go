package stack

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// udpReceiveBuffer is how many bytes of datagrams wait for their reader; more are lost, as UDP may.
const udpReceiveBuffer = 1 << 20

// A PacketConn is a UDP socket of the inner network; a connected one is a net.Conn too.
type PacketConn struct {
	endpoint
	ipv6          bool // the socket is of the IPv6 family, and takes IPv4 addresses in mapped form
	local, remote *net.UDPAddr

	readMu sync.Mutex
	reader tcpip.SliceWriter

	writeMu sync.Mutex
	writer  bytes.Reader
	to      tcpip.FullAddress // of the Write that is going on, here so as not to be allocated for each
}

var (
	_ net.Conn       = (*PacketConn)(nil)
	_ net.PacketConn = (*PacketConn)(nil)
)

// newPacketConn wraps a bound or connected endpoint.
func (s *Stack) newPacketConn(ep tcpip.Endpoint, queue *waiter.Queue, ipv6 bool) *PacketConn {
	c := &PacketConn{ipv6: ipv6}
	c.init(s, ep, queue)
	local, _ := ep.GetLocalAddress()
	c.local = net.UDPAddrFromAddrPort(addrPortOf(local))
	if remote, err := ep.GetRemoteAddress(); err == nil {
		c.remote = net.UDPAddrFromAddrPort(addrPortOf(remote))
	}
	return c
}

func (s *Stack) newUDPEndpoint(ipv6 bool) (tcpip.Endpoint, *waiter.Queue, error) {
	protocol := header.IPv4ProtocolNumber
	if ipv6 {
		protocol = header.IPv6ProtocolNumber
	}
	queue := new(waiter.Queue)
	ep, err := s.net.NewEndpoint(udp.ProtocolNumber, protocol, queue)
	if err != nil {
		return nil, nil, errnoOf(err)
	}
	return ep, queue, nil
}

// dialUDP connects a socket to an address; nothing is sent.
func (s *Stack) dialUDP(to netip.AddrPort) (*PacketConn, error) {
	ep, queue, err := s.newUDPEndpoint(to.Addr().Is6())
	if err == nil {
		if terr := ep.Connect(fullAddressOf(to)); terr != nil {
			ep.Close()
			err = errnoOf(terr)
		}
	}
	if err == nil && s.isClosed() {
		ep.Close()
	}
	if err != nil || s.isClosed() {
		return nil, s.opError("connect", "udp", nil, net.UDPAddrFromAddrPort(to), err)
	}
	return s.newPacketConn(ep, queue, to.Addr().Is6()), nil
}

// ListenUDP opens a UDP socket on an address of ours. An invalid or unspecified address means all of them, of the one family or of
// both if invalid; port 0 picks one.
func (s *Stack) ListenUDP(on netip.AddrPort) (*PacketConn, error) {
	address := on.Addr().Unmap()
	ipv6 := address.Is6() || !address.IsValid()
	if !s.mayBind(address) {
		return nil, s.opError("listen", "udp", nil, net.UDPAddrFromAddrPort(on), syscall.EADDRNOTAVAIL)
	}
	ep, queue, err := s.newUDPEndpoint(ipv6)
	if err == nil {
		if address.Is6() {
			ep.SocketOptions().SetV6Only(true)
		}
		if terr := ep.Bind(bindAddressOf(netip.AddrPortFrom(address, on.Port()))); terr != nil {
			ep.Close()
			err = errnoOf(terr)
		}
	}
	if err == nil && s.isClosed() {
		ep.Close()
	}
	if err != nil || s.isClosed() {
		return nil, s.opError("listen", "udp", nil, net.UDPAddrFromAddrPort(on), err)
	}
	return s.newPacketConn(ep, queue, ipv6), nil
}

// ListenPacket opens a UDP socket like net.ListenConfig does. network is udp, udp4 or udp6. An empty address means our own addresses
// and any port; its host must be an IP address.
func (s *Stack) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	var on netip.AddrPort
	switch network {
	case "udp":
	case "udp4":
		on = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	case "udp6":
		on = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	default:
		return fail(net.UnknownNetworkError(network))
	}
	if address != "" {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return fail(err)
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return fail(&net.AddrError{Err: "invalid port", Addr: address})
		}
		ip := on.Addr()
		if host != "" {
			if ip, err = netip.ParseAddr(host); err != nil {
				return fail(&net.AddrError{Err: "invalid IP address", Addr: address})
			}
			ip = ip.Unmap()
			if network == "udp4" && !ip.Is4() || network == "udp6" && !ip.Is6() {
				return fail(&net.AddrError{Err: "address of the other family", Addr: address})
			}
		}
		on = netip.AddrPortFrom(ip, uint16(number))
	}
	c, err := s.ListenUDP(on)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *PacketConn) opError(op string, to net.Addr, err error) error {
	if to == nil && c.remote != nil {
		to = c.remote
	}
	return c.stack.opError(op, "udp", c.local, to, err)
}

// Read implements net.Conn: one datagram, its end cut off if b is too small.
func (c *PacketConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromUDPAddrPort(b)
	return n, err
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom without an allocation, by the name that net.UDPConn gives it.
func (c *PacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.check(&c.readDeadline); err != nil {
		return 0, netip.AddrPort{}, c.opError("read", nil, err)
	}
	for {
		c.reader = b
		r, terr := c.ep.Read(&c.reader, tcpip.ReadOptions{NeedRemoteAddr: true})
		c.reader = nil
		switch terr.(type) {
		case nil, *tcpip.ErrBadBuffer: // the latter: b was too small, and has what fits
			return r.Count, addrPortOf(r.RemoteAddr), nil
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return 0, netip.AddrPort{}, c.opError("read", nil, net.ErrClosed)
		default:
			return 0, netip.AddrPort{}, c.opError("read", nil, errnoOf(terr))
		}
		if err := c.wait(c.readable, &c.readDeadline); err != nil {
			return 0, netip.AddrPort{}, c.opError("read", nil, err)
		}
	}
}

// Write implements net.Conn, for a connected socket.
func (c *PacketConn) Write(b []byte) (int, error) {
	return c.write(b, netip.AddrPort{})
}

// WriteTo implements net.PacketConn; to must be a *net.UDPAddr.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok || u == nil {
		return 0, c.opError("write", to, syscall.EINVAL)
	}
	return c.WriteToUDPAddrPort(b, u.AddrPort())
}

// WriteToUDPAddrPort is WriteTo without an allocation of ours, likewise.
func (c *PacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	address := to.Addr().Unmap()
	if !address.IsValid() || !c.ipv6 && address.Is6() {
		return 0, c.opError("write", net.UDPAddrFromAddrPort(to), syscall.EAFNOSUPPORT)
	}
	if address.IsLoopback() || address.IsUnspecified() { // as in DialContext
		return 0, c.opError("write", net.UDPAddrFromAddrPort(to), syscall.ENETUNREACH)
	}
	return c.write(b, netip.AddrPortFrom(address, to.Port()))
}

// write sends to an address, or to where the socket is connected if to is the zero AddrPort.
func (c *PacketConn) write(b []byte, to netip.AddrPort) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	fail := func(err error) (int, error) {
		var addr net.Addr
		if to.IsValid() {
			addr = net.UDPAddrFromAddrPort(to)
		}
		return 0, c.opError("write", addr, err)
	}
	if err := c.check(&c.writeDeadline); err != nil {
		return fail(err)
	}
	var options tcpip.WriteOptions
	if to.IsValid() {
		c.to = fullAddressOf(to)
		if c.ipv6 && to.Addr().Is4() {
			c.to.Addr = tcpip.AddrFrom16(to.Addr().As16())
		}
		options.To = &c.to
	}
	defer c.writer.Reset(nil)
	for {
		c.writer.Reset(b)
		n, terr := c.ep.Write(&c.writer, options)
		if terr == nil {
			return int(n), nil
		}
		if _, full := terr.(*tcpip.ErrWouldBlock); !full {
			return fail(errnoOf(terr))
		}
		if err := c.wait(c.writable, &c.writeDeadline); err != nil {
			return fail(err)
		}
	}
}

// Close implements net.Conn and net.PacketConn.
func (c *PacketConn) Close() error {
	if err := c.close(); err != nil {
		return c.opError("close", nil, err)
	}
	return nil
}

// LocalAddr returns a *net.UDPAddr. Its IP is unspecified for a socket on all addresses.
func (c *PacketConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns a *net.UDPAddr, or nil if the socket is not connected.
func (c *PacketConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return nil
	}
	return c.remote
}
