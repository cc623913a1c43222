package stack

import (
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxForwardedSYNs = 1024 // connections that Config.Forward has not yet decided on
	maxForwardedUDP  = 4096 // forwarded UDP flows
)

// A Forward is a connection that the link wants to an address that is not ours, for Config.Forward to take or to refuse. Exactly one
// of Accept and Reject must be called.
type Forward struct {
	Network  string // tcp or udp
	Src, Dst netip.AddrPort

	stack *Stack
	tcp   *tcp.ForwarderRequest
	udp   net.Conn
}

// Accept completes the connection. It looks as if Dst had answered: LocalAddr is Dst, RemoteAddr is Src. The caller closes it; a UDP
// flow has no end of its own, so it needs a read deadline.
func (f *Forward) Accept() (net.Conn, error) {
	if f.udp != nil {
		return f.udp, nil
	}
	queue := new(waiter.Queue)
	ep, err := f.tcp.CreateEndpoint(queue)
	f.tcp.Complete(err != nil)
	if err != nil {
		return nil, f.stack.opError("accept", "tcp", nil, net.TCPAddrFromAddrPort(f.Dst), errnoOf(err))
	}
	if f.stack.isClosed() {
		ep.Abort()
		return nil, f.stack.opError("accept", "tcp", nil, net.TCPAddrFromAddrPort(f.Dst), f.stack.err)
	}
	f.stack.setKeepalive(ep)
	c := &forwardedConn{Conn: f.stack.newConn(ep, queue)}
	f.stack.forwards.Add(1)
	return c, nil
}

// Reject refuses the connection: RST for TCP, silence for UDP.
func (f *Forward) Reject() {
	if f.udp != nil {
		_ = f.udp.Close()
		return
	}
	f.tcp.Complete(true)
}

// forwardedConn and forwardedPacketConn count themselves out once.
type forwardedConn struct {
	*Conn
	once sync.Once
}

func (c *forwardedConn) Close() error {
	c.once.Do(func() { c.stack.forwards.Add(-1) })
	return c.Conn.Close()
}

type forwardedPacketConn struct {
	*PacketConn
	once sync.Once
}

func (c *forwardedPacketConn) Close() error {
	c.once.Do(func() {
		c.stack.forwards.Add(-1)
		c.stack.udpForwards.Add(-1)
	})
	return c.PacketConn.Close()
}

// startForwarding makes the NIC take packets for every address and hand new flows to Config.Forward.
func (s *Stack) startForwarding() {
	_ = s.net.SetPromiscuousMode(nicID, true) // the NIC exists
	_ = s.net.SetSpoofing(nicID, true)
	syns := tcp.NewForwarder(s.net, 0, maxForwardedSYNs, s.forwardTCP)
	s.net.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
		return !s.isOurs(addressFrom(id.LocalAddress)) && syns.HandlePacket(id, pkt)
	})
	flows := udp.NewForwarder(s.net, s.forwardUDP)
	s.net.SetTransportProtocolHandler(udp.ProtocolNumber, func(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
		return !s.isOurs(addressFrom(id.LocalAddress)) && flows.HandlePacket(id, pkt)
	})
}

func addressFrom(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// ends are source and destination of what asked for a forward: gVisor's local address is the destination.
func ends(id netstack.TransportEndpointID) (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(addressFrom(id.RemoteAddress), id.RemotePort), netip.AddrPortFrom(addressFrom(id.LocalAddress), id.LocalPort)
}

// forwardTCP is called by gVisor on a goroutine for each SYN.
func (s *Stack) forwardTCP(r *tcp.ForwarderRequest) {
	src, dst := ends(r.ID())
	s.config.Forward(&Forward{Network: "tcp", Src: src, Dst: dst, stack: s, tcp: r})
}

// forwardUDP is called by gVisor on the loop goroutine for a datagram of no known flow. The socket is made at once, so that the
// datagrams behind this one find it.
func (s *Stack) forwardUDP(r *udp.ForwarderRequest) bool {
	if s.udpForwards.Load() >= maxForwardedUDP {
		s.stats.droppedIn.Add(1)
		return true
	}
	src, dst := ends(r.ID())
	queue := new(waiter.Queue)
	ep, err := r.CreateEndpoint(queue)
	if err != nil {
		s.stats.droppedIn.Add(1)
		return true
	}
	c := &forwardedPacketConn{PacketConn: s.newPacketConn(ep, queue, dst.Addr().Is6())}
	s.forwards.Add(1)
	s.udpForwards.Add(1)
	go s.config.Forward(&Forward{Network: "udp", Src: src, Dst: dst, stack: s, udp: c})
	return true
}
