package stack

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many accepted connections may wait for Accept.
const backlog = 128

// A Listener accepts TCP connections from the inner network.
type Listener struct {
	endpoint
	local *net.TCPAddr
}

var _ net.Listener = (*Listener)(nil)

// ListenTCP accepts TCP connections on an address of ours. An invalid address means all of them of both families, an unspecified one
// all of its family; port 0 picks one.
func (s *Stack) ListenTCP(on netip.AddrPort) (*Listener, error) {
	address := on.Addr().Unmap()
	protocol := header.IPv4ProtocolNumber
	if !address.Is4() {
		protocol = header.IPv6ProtocolNumber
	}
	fail := func(err tcpip.Error) (*Listener, error) {
		return nil, s.opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(on), errnoOf(err))
	}
	if !s.mayBind(address) {
		return fail(&tcpip.ErrBadLocalAddress{})
	}
	queue := new(waiter.Queue)
	ep, err := s.net.NewEndpoint(tcp.ProtocolNumber, protocol, queue)
	if err != nil {
		return fail(err)
	}
	if address.Is6() {
		ep.SocketOptions().SetV6Only(true)
	}
	ep.SocketOptions().SetReuseAddress(true) // connections in TIME-WAIT do not keep the port
	if err := ep.Bind(bindAddressOf(netip.AddrPortFrom(address, on.Port()))); err != nil {
		ep.Close()
		return fail(err)
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return fail(err)
	}
	if s.isClosed() {
		ep.Close()
		return fail(&tcpip.ErrAborted{})
	}
	l := new(Listener)
	l.init(s, ep, queue)
	local, _ := ep.GetLocalAddress()
	l.local = net.TCPAddrFromAddrPort(addrPortOf(local))
	return l, nil
}

// mayBind says whether a listener may have the address. gVisor would take any.
func (s *Stack) mayBind(address netip.Addr) bool {
	return !address.IsValid() || address.IsUnspecified() || s.isOurs(address)
}

// bindAddressOf leaves the address out if it is unspecified.
func bindAddressOf(on netip.AddrPort) tcpip.FullAddress {
	if on.Addr().IsUnspecified() {
		on = netip.AddrPortFrom(netip.Addr{}, on.Port())
	}
	return fullAddressOf(on)
}

// Accept implements net.Listener; the connection is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	if err := l.check(&l.readDeadline); err != nil {
		return nil, l.stack.opError("accept", "tcp", nil, l.local, err)
	}
	for {
		ep, queue, terr := l.ep.Accept(nil)
		switch terr.(type) {
		case nil:
			l.stack.setKeepalive(ep)
			return l.stack.newConn(ep, queue), nil
		case *tcpip.ErrWouldBlock:
		default:
			return nil, l.stack.opError("accept", "tcp", nil, l.local, errnoOf(terr))
		}
		if err := l.wait(l.readable, &l.readDeadline); err != nil {
			return nil, l.stack.opError("accept", "tcp", nil, l.local, err)
		}
	}
}

// Close implements net.Listener. Connections that were accepted stay.
func (l *Listener) Close() error {
	if err := l.close(); err != nil {
		return l.stack.opError("close", "tcp", nil, l.local, err)
	}
	return nil
}

// Addr returns a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.local }
