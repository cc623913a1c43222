package vpnclient

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/tunnel/l2tp"
)

// A Socket is a datagram socket that carries L2TP: *udpbatch.Conn is one.
type Socket interface {
	carrier.Socket
	l2tp.DatagramWriter
	Close() error
}

// lac is the L2TP access concentrator, the client of an LNS: an L2TP tunnel over
// a datagram socket.
type lac struct {
	*carrier.L2TP
	conn      *Conn
	datagrams Socket
	tunnel    *l2tp.Tunnel
	refusals  int // ICMP errors while the server has not answered
}

// openLAC opens a UDP socket and an LAC over it.
func openLAC(ctx context.Context, conn *Conn) (tunnel, error) {
	datagrams, err := openUDP(ctx, conn)
	if err != nil {
		return nil, &Error{"l2tp-tunnel", "check local_port and the machine's network", err}
	}
	return newLAC(conn, carrier.NewL2TP(conn.l2tpConfig(), datagrams), datagrams), nil
}

// openUDP opens a UDP socket for datagrams to the server.
func openUDP(ctx context.Context, conn *Conn) (Socket, error) {
	c := conn.config
	c.Socket.Network = "udp4"
	if conn.server.Addr().Is6() {
		c.Socket.Network = "udp6"
	}
	udp, err := udpbatch.Listen(ctx, c.Socket)
	if err != nil {
		return nil, err
	}
	if c.WrapSocket != nil {
		return c.WrapSocket(udp), nil
	}
	return udp, nil
}

func (c *Conn) l2tpConfig() l2tp.Config {
	config := c.config.L2TP
	config.OutgoingCalls = c.config.WaitForCall
	return config
}

// newLAC returns an LAC whose datagrams come from a socket, which is its own
// from now on.
func newLAC(conn *Conn, engine *carrier.L2TP, datagrams Socket) *lac {
	return &lac{L2TP: engine, conn: conn, datagrams: datagrams}
}

func (a *lac) dial(now time.Time) { a.dialTunnel(now, a.conn.server) }

func (a *lac) dialTunnel(now time.Time, lns netip.AddrPort) {
	a.tunnel = a.Endpoint().Dial(now, lns, a)
}

// openLink asks for a session (ICRQ).
func (a *lac) openLink(now time.Time, config ppp.Config, up ppp.PacketHandler) (*carrier.Link, error) {
	return a.OpenLink(now, a.tunnel, config, up)
}

// refusalsBelieved is how many ICMP errors end an attempt to which the server
// has not answered: one may be forged, or left from a restart.
const refusalsBelieved = 2

func (a *lac) peerError(now time.Time, err *udpbatch.PeerError) {
	if err.Addr != a.conn.server {
		return
	}
	if a.refusals++; a.refusals >= refusalsBelieved {
		a.Endpoint().Unreachable(now, a.conn.server, err.Err)
	}
}

// close sends StopCCN; sessions end with their tunnel (RFC 2661 section 5.7).
func (a *lac) close(now time.Time) { a.Endpoint().Close(now) }

func (a *lac) idle() bool      { return a.Endpoint().Idle() }
func (a *lac) leave(time.Time) {}
func (a *lac) release()        {}
func (a *lac) socket() socket  { return a.datagrams }

func (a *lac) stage(reached int32) string {
	return [...]string{"l2tp-tunnel", "l2tp-session", "lcp"}[reached]
}

// TunnelUp lets the first session be opened, unless the server is to do so.
func (a *lac) TunnelUp(now time.Time, _ *l2tp.Tunnel) { a.conn.tunnelUp(now) }

// TunnelDown ends the connection.
func (a *lac) TunnelDown(now time.Time, err error) { a.conn.hangUp(now, err) }

// AcceptSession takes the call of a server that opens the session itself.
func (a *lac) AcceptSession(_ time.Time, s *l2tp.Session) (l2tp.SessionHandler, error) {
	c := a.conn
	if !c.config.WaitForCall || c.Network.link != nil {
		return nil, errors.New("no call is expected")
	}
	link := a.AcceptLink(s, c.config.PPP, c.Network)
	c.add(c.Network, link)
	return link, nil
}
