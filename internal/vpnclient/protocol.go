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
	L2TP Protocol = iota // RFC 2661, over UDP
	PPTP                 // RFC 2637, over TCP and GRE
)

// defaultPorts are the servers' ports: UDP for L2TP (RFC 2661 section 8.1), TCP
// for PPTP (RFC 2637 section 1.3).
var defaultPorts = map[Protocol]uint16{L2TP: 1701, PPTP: 1723}

// A tunnel is what a Conn needs of its protocol. lac (l2tp.go) and pns
// (pptp.go) are the two that there are. The loop's goroutine alone calls it,
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
	if c.config.Protocol == PPTP {
		return openPNS(ctx, c)
	}
	return openLAC(ctx, c)
}
