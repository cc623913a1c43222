package vpnclient

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
)

// secureLAC is an LAC whose datagrams go through ESP. First it has IKE agree on
// SAs with the server; L2TP begins when they are up.
type secureLAC struct {
	*lac
	ipsec    *carrier.IPsec
	secure   atomic.Bool // the first pair of SAs is up
	insecure bool        // there will never be another one
}

// openSecureLAC opens a UDP socket for IKE and ESP, with a port that the system
// chooses: that of L2TP is inside ESP.
func openSecureLAC(ctx context.Context, conn *Conn) (tunnel, error) {
	local, err := localAddr(ctx, conn.server)
	if err != nil {
		return nil, &Error{stageIKE, "check the machine's network", err}
	}
	datagrams, err := openUDP(ctx, conn)
	if err != nil {
		return nil, &Error{stageIKE, "check the machine's network", err}
	}
	c := conn.config.IPsec
	c.Accept = nil // but the server may renew
	c.IKE.Port, c.IKE.LocalAddr = conn.server.Port(), local
	engine, err := carrier.NewIPsec(c, conn.l2tpConfig(), datagrams)
	if err != nil {
		datagrams.Close()
		return nil, &Error{stageIKE, "check [tunnel.ipsec] in the configuration", err}
	}
	return &secureLAC{lac: newLAC(conn, engine.L2TP(), datagrams), ipsec: engine}, nil
}

const stageIKE = "ike-phase1"

// localAddr finds our address on the way to the server, which IKE tells it. It
// sends nothing.
func localAddr(ctx context.Context, server netip.AddrPort) (netip.Addr, error) {
	var dialer net.Dialer
	probe, err := dialer.DialContext(ctx, "udp", server.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer probe.Close()
	return probe.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// Receive and Advance are of the outer engine.

func (a *secureLAC) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	return a.ipsec.Receive(now, from, datagrams)
}

func (a *secureLAC) Advance(now time.Time) (next time.Time) { return a.ipsec.Advance(now) }

func (a *secureLAC) dial(now time.Time) { a.ipsec.Dial(now, a.conn.server.Addr(), a) }

// SecurityUp begins the L2TP tunnel.
func (a *secureLAC) SecurityUp(now time.Time, lns netip.AddrPort) {
	a.secure.Store(true)
	if a.conn.reason == nil {
		a.dialTunnel(now, lns)
	}
}

// SecurityDown ends the connection: what L2TP may still have to say is sent to
// nobody.
func (a *secureLAC) SecurityDown(now time.Time, err error) {
	a.insecure = true
	for _, n := range a.conn.networks {
		n.end(closedByUs(err)) // the cause, not that L2TP was closed in consequence
	}
	a.conn.hangUp(now, err)
}

func (a *secureLAC) peerError(now time.Time, err *udpbatch.PeerError) {
	a.ipsec.Unreachable(now, err.Addr, err.Err)
}

func (a *secureLAC) idle() bool { return a.insecure || a.lac.idle() }

// leave deletes the SAs, after the tunnel that they carry (RFC 3193 section 3.1).
func (a *secureLAC) leave(now time.Time) { a.ipsec.Close(now) }

func (a *secureLAC) stage(reached int32) string {
	if !a.secure.Load() {
		return stageIKE
	}
	return a.lac.stage(reached)
}
