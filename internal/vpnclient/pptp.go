package vpnclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/gre"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/tunnel/pptp"
)

// A GRESocket is a socket for GRE packets that carries PPTP's frames: *gre.Conn
// and *gre.Link are such.
type GRESocket interface {
	carrier.Socket
	pptp.GREWriter
	Close() error
	// Expect lets the packets to these Call IDs in, and no others.
	Expect(callIDs []uint16) error
}

// pns is the PPTP network server, which is what RFC 2637 calls the client of a
// PAC: a control connection over TCP, and calls over a GRE socket.
type pns struct {
	*carrier.PPTP
	conn       *Conn
	packets    GRESocket
	tcp        net.Conn // until dial
	connection *pptp.Connection
}

// controlTimeout bounds the TCP handshake. Those who wait longer have no hope:
// it is four times sent again by then.
const controlTimeout = 20 * time.Second

// openPNS opens the GRE socket first, as a call's packets may come before the
// server's answer to it, and connects to the server.
func openPNS(ctx context.Context, conn *Conn) (tunnel, error) {
	c, server := conn.config, conn.server
	open := c.OpenGRE
	if open == nil {
		open = openRawGRE
	}
	packets, err := open(ctx, server.Addr())
	if err != nil {
		return nil, greError(err)
	}
	dialer := net.Dialer{Timeout: controlTimeout}
	tcp, err := dialer.DialContext(ctx, "tcp", server.String())
	if err != nil {
		packets.Close()
		return nil, &Error{"pptp-control", "check the server's address, that its PPTP service runs, and that no firewall closes TCP port 1723", err}
	}
	c.PPTP.Expect = func(callIDs []uint16) {
		if err := packets.Expect(callIDs); err != nil {
			c.Log.Error("the GRE socket's filter cannot be set: nothing will arrive", "cause", err)
		}
	}
	return &pns{PPTP: carrier.NewPPTP(c.PPTP, packets), conn: conn, packets: packets, tcp: tcp}, nil
}

// openRawGRE opens a raw socket, which takes CAP_NET_RAW.
func openRawGRE(ctx context.Context, server netip.Addr) (GRESocket, error) {
	socket, err := gre.Open(ctx, gre.Config{Server: server})
	if err != nil {
		return nil, err // and no interface that holds a nil *gre.Conn
	}
	return socket, nil
}

// greError gives a stage to errors that have none.
func greError(err error) error {
	var staged interface{ Stage() string }
	if errors.As(err, &staged) {
		return err
	}
	return &Error{"gre", "", err}
}

func (p *pns) dial(now time.Time) {
	tcp := p.tcp
	p.tcp = nil
	p.Dial(now, p.conn.loop, p.conn.server.Addr(), tcp, p)
}

// openLink asks for a call (Outgoing-Call-Request).
func (p *pns) openLink(now time.Time, config ppp.Config, up ppp.PacketHandler) (*carrier.Link, error) {
	return p.OpenLink(now, p.connection, config, up)
}

func (p *pns) peerError(_ time.Time, err *udpbatch.PeerError) {
	p.Endpoint().Unreachable(err.Addr.Addr(), err.Err)
}

// close sends Call-Clear-Request for each call, and then
// Stop-Control-Connection-Request.
func (p *pns) close(now time.Time) { p.Endpoint().Close(now) }

func (p *pns) idle() bool      { return p.Endpoint().Idle() }
func (p *pns) leave(time.Time) {}
func (p *pns) socket() socket  { return p.packets }

func (p *pns) release() {
	if p.tcp != nil {
		p.tcp.Close()
	}
	p.Release()
}

func (p *pns) stage(reached int32) string {
	return [...]string{"pptp-control", "pptp-control", "lcp"}[reached]
}

// ConnectionUp lets the first call be opened.
func (p *pns) ConnectionUp(now time.Time, k *pptp.Connection) {
	p.connection = k
	p.conn.tunnelUp(now)
}

// ConnectionDown ends the connection.
func (p *pns) ConnectionDown(now time.Time, err error) { p.conn.hangUp(now, err) }

// AcceptCall refuses: a PAC that calls us has no Outgoing-Call-Request to send.
func (p *pns) AcceptCall(time.Time, *pptp.Call) (pptp.CallHandler, error) {
	return nil, errors.New("no call is expected")
}
