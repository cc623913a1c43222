package vpnclient

import (
	"context"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
)

// A Protocol is how PPP is carried to the server.
type Protocol uint8

const (
	L2TP      Protocol = iota // RFC 2661, over UDP
	PPTP                      // RFC 2637, over TCP and GRE
	L2TPIPsec                 // RFC 3193: L2TP over ESP over UDP
)

// defaultPorts are the servers' ports: UDP for L2TP (RFC 2661 section 8.1), TCP
// for PPTP (RFC 2637 section 1.3), UDP for IKE.
var defaultPorts = map[Protocol]uint16{L2TP: 1701, PPTP: 1723, L2TPIPsec: carrier.IKEPort}

// A tunnel is what a Conn needs of its protocol. lac (l2tp.go), pns (pptp.go)
// and secureLAC (ipsec.go) are those that there are. The loop's goroutine alone calls it,
// but for loop, closeSocket and stage.
type tunnel interface {
	carrier.Engine

	// dial begins the tunnel. Conn.tunnelUp follows when sessions can be opened
	// and Conn.hangUp when the tunnel is down.
	dial(now time.Time)
	// openLink asks the server for a session with a PPP link on it.
	openLink(now time.Time, config ppp.Config, up ppp.PacketHandler) (*carrier.Link, error)
	// peerError is told that the network reported the server unreachable (ICMP).
	peerError(now time.Time, err *udpbatch.PeerError)
	// close says goodbye to the server, in all sessions and in the tunnel.
	close(now time.Time)
	// idle reports whether the server has heard all that it must.
	idle() bool
	// leave sends the last words, to which there is no answer.
	leave(now time.Time)
	// release lets go of what the loop's end leaves. It is called after it.
	release()

	// stage names what fails if a connection gets no further than reached.
	stage(reached int32) string
	// socket is where the loop reads. To close it ends the loop.
	socket() socket
}

type socket interface {
	carrier.Socket
	Close() error
}

// open opens the sockets of the connection's protocol.
func (c *Conn) open(ctx context.Context) (tunnel, error) {
	switch c.config.Protocol {
	case PPTP:
		return openPNS(ctx, c)
	case L2TPIPsec:
		return openSecureLAC(ctx, c)
	}
	return openLAC(ctx, c)
}
