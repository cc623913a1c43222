package vpnclient

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/stack"
	"gateway/tunnel/l2tp"
)

// A Conn is a connection to a VPN server: a tunnel, and the network of its
// first session. Further sessions are opened with Open.
type Conn struct {
	*Network // of the first session

	config Config
	server netip.AddrPort
	socket Socket
	engine *carrier.L2TP
	loop   *carrier.Loop

	// Of the loop's goroutine.
	tunnel   *l2tp.Tunnel
	networks []*Network // that have not ended
	refusals int        // ICMP errors while the server has not answered
	reason   error      // why it was hung up; nil while it was not
	leaveAt  time.Time  // when a connection that was hung up ends at the earliest
	leaveBy  time.Time  // and at the latest

	reached atomic.Int32  // how far the first session has come: a stage
	ended   chan struct{} // closed when everything has ended
	endOnce sync.Once
	endErr  error // why it ended; read after ended
}

// How far a connection has come.
const (
	stageTunnel = iota
	stageSession
	stagePPP
)

func newConn(c Config, server netip.AddrPort, socket Socket) *Conn {
	conn := &Conn{config: c, server: server, socket: socket, ended: make(chan struct{})}
	conn.Network = newNetwork(conn, c.Stack)
	conn.engine = carrier.NewL2TP(c.L2TP, socket)
	conn.loop = carrier.NewLoop(socket, (*engine)(conn))
	conn.loop.OnPeerError = conn.peerError
	return conn
}

// run is the goroutine of the connection.
func (c *Conn) run() {
	err := c.loop.Run()
	if err != nil {
		err = &Error{c.stage(), "the machine's network failed", err}
	}
	c.end(err)
	for _, n := range c.networks {
		n.end(c.endErr)
	}
	c.Network.end(c.endErr) // it may never have begun
	for _, n := range append(c.networks, c.Network) {
		<-n.done
	}
	close(c.ended)
}

// end notes why the connection ends, and lets the loop end. The first reason counts.
func (c *Conn) end(err error) {
	c.endOnce.Do(func() {
		if err == nil {
			err = ErrClosed
		}
		c.endErr = err
		c.socket.Close()
	})
}

func (c *Conn) stage() string {
	return [...]string{"l2tp-tunnel", "l2tp-session", "lcp"}[c.reached.Load()]
}

// Server returns the server's address and port.
func (c *Conn) Server() netip.AddrPort { return c.server }

// Done is closed when the connection has ended, with all of its networks.
func (c *Conn) Done() <-chan struct{} { return c.ended }

// Err waits for the end of the connection and returns why it ended.
func (c *Conn) Err() error {
	<-c.ended
	return c.endErr
}

// Open opens a further session in the tunnel, with a login and a network of
// its own, and waits until it is up or ctx ends.
func (c *Conn) Open(ctx context.Context, config ppp.Config, network stack.Config) (*Network, error) {
	n := newNetwork(c, network)
	if !c.loop.Do(func(now time.Time) { c.openSession(now, n, config) }) {
		return nil, ErrClosed
	}
	select {
	case <-n.up:
		return n, nil
	case <-n.done:
		return nil, n.err
	case <-c.ended:
		return nil, c.endErr
	case <-ctx.Done():
		n.Close(closedContext)
		return nil, context.Cause(ctx)
	}
}

// openSession asks the server for a session (ICRQ).
func (c *Conn) openSession(now time.Time, n *Network, config ppp.Config) {
	if c.reason != nil {
		n.end(c.reason)
		return
	}
	link, err := c.engine.OpenLink(now, c.tunnel, config, n)
	if err != nil {
		n.Down(err)
		return
	}
	c.add(n, link)
}

func (c *Conn) add(n *Network, link *carrier.Link) {
	n.link = link
	c.networks = append(c.networks, n)
}

// networkDown hangs up when the last network has ended.
func (c *Conn) networkDown(n *Network, err error) {
	c.networks = slices.DeleteFunc(c.networks, func(other *Network) bool { return other == n })
	if len(c.networks) == 0 {
		c.hangUp(time.Now(), err)
	}
}

// Close ends the connection as the protocols want it: LCP Terminate-Request,
// CDN, StopCCN. It waits for the server's answers until ctx ends, then leaves.
func (c *Conn) Close(ctx context.Context) error {
	c.loop.Do(func(now time.Time) {
		if len(c.networks) == 0 {
			c.hangUp(now, ErrClosed)
		}
		for _, n := range slices.Clone(c.networks) {
			n.link.Close(now) // networkDown goes on with the tunnel
		}
	})
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
	}
	c.loop.Do(func(now time.Time) {
		c.hangUp(now, ErrClosed) // one datagram to say so
		c.end(ErrClosed)
	})
	<-c.ended
	return ctx.Err()
}

// The end of a connection waits until our own last words are acknowledged, and
// at least until the server's are (an acknowledgment may be delayed, RFC 2661
// section 5.8).
const (
	lingerMin = 150 * time.Millisecond
	lingerMax = 2 * time.Second
)

// hangUp closes the tunnel, if it is open, and lets the connection end when
// nothing is left to acknowledge. The first reason counts.
func (c *Conn) hangUp(now time.Time, reason error) {
	if c.reason != nil {
		return
	}
	c.reason = reason
	c.leaveAt, c.leaveBy = now.Add(lingerMin), now.Add(lingerMax)
	c.engine.Endpoint().Close(now)
}

// engine is the Conn as its loop sees it: the carrier's engine, and a look at
// whether a connection that was hung up can end.
type engine Conn

func (e *engine) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	return (*Conn)(e).leave(now, e.engine.Receive(now, from, datagrams))
}

func (e *engine) Advance(now time.Time) (next time.Time) {
	return (*Conn)(e).leave(now, e.engine.Advance(now))
}

func (c *Conn) leave(now, next time.Time) time.Time {
	switch {
	case c.reason == nil:
		return next
	case now.Before(c.leaveAt):
		return carrier.Earliest(next, c.leaveAt)
	case c.engine.Endpoint().Idle(), !now.Before(c.leaveBy):
		c.end(c.reason)
	}
	return carrier.Earliest(next, c.leaveBy)
}

// begin opens the tunnel.
func (c *Conn) begin(now time.Time) {
	c.tunnel = c.engine.Endpoint().Dial(now, c.server, (*tunnelHandler)(c))
}

// refusalsBelieved is how many ICMP errors end an attempt to which the server
// has not answered: one may be forged, or left from a restart.
const refusalsBelieved = 2

func (c *Conn) peerError(now time.Time, err *udpbatch.PeerError) {
	c.config.Log.Debug("unreachable, says the network", "server", c.server.String(), "cause", err.Err)
	if err.Addr != c.server {
		return
	}
	if c.refusals++; c.refusals >= refusalsBelieved {
		c.engine.Endpoint().Unreachable(now, c.server, err.Err)
	}
}

// tunnelHandler is the Conn as the tunnel sees it.
type tunnelHandler Conn

// TunnelUp opens the first session, or waits for the server to do so.
func (h *tunnelHandler) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	c := (*Conn)(h)
	c.reached.Store(stageSession)
	if !c.config.WaitForCall {
		c.openSession(now, c.Network, c.config.PPP)
	}
}

// TunnelDown ends the connection.
func (h *tunnelHandler) TunnelDown(now time.Time, err error) {
	c := (*Conn)(h)
	if errors.Is(err, l2tp.ErrClosed) {
		err = ErrClosed
	}
	c.hangUp(now, err)
}

// AcceptSession takes the call of a server that opens the session itself.
func (h *tunnelHandler) AcceptSession(now time.Time, s *l2tp.Session) (l2tp.SessionHandler, error) {
	c := (*Conn)(h)
	if !c.config.WaitForCall || c.Network.link != nil {
		return nil, errors.New("no call is expected")
	}
	link := c.engine.AcceptLink(s, c.config.PPP, c.Network)
	c.add(c.Network, link)
	return link, nil
}
