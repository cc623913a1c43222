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
	"gateway/tunnel/ipsec/ike"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

// A Conn is a connection to a VPN server: a tunnel, and the network of its
// first session. Further sessions are opened with Open.
type Conn struct {
	*Network // of the first session

	config Config
	server netip.AddrPort
	tunnel tunnel
	loop   *carrier.Loop

	// Of the loop's goroutine.
	networks []*Network // that have not ended
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

// newConn opens the sockets for a connection, which waits for run.
func newConn(ctx context.Context, c Config, server netip.AddrPort) (conn *Conn, err error) {
	conn = &Conn{config: c, server: server, ended: make(chan struct{})}
	conn.Network = newNetwork(conn, c.Stack)
	if conn.tunnel, err = conn.open(ctx); err != nil {
		return nil, err
	}
	conn.loop = carrier.NewLoop(conn.tunnel.socket(), (*engine)(conn))
	conn.loop.OnPeerError = conn.peerError
	return conn, nil
}

// run is the goroutine of the connection.
func (c *Conn) run() {
	err := c.loop.Run()
	if err != nil {
		err = &Error{c.stage(), "the machine's network failed", err}
	}
	c.end(err)
	c.tunnel.release()
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
		c.tunnel.socket().Close()
	})
}

func (c *Conn) stage() string { return c.tunnel.stage(c.reached.Load()) }

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

// openSession asks the server for a session.
func (c *Conn) openSession(now time.Time, n *Network, config ppp.Config) {
	if c.reason != nil {
		n.end(c.reason)
		return
	}
	link, err := c.tunnel.openLink(now, config, n)
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
// then the session (CDN; Call-Clear-Request), then the tunnel (StopCCN;
// Stop-Control-Connection-Request), then the SAs (Delete). It waits for the server's answers until ctx ends, then leaves.
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
		c.depart(now)
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
	c.reason = closedByUs(reason)
	c.leaveAt, c.leaveBy = now.Add(lingerMin), now.Add(lingerMax)
	c.tunnel.close(now)
}

// closedByUs makes one error of those by which the layers say that we closed them.
func closedByUs(err error) error {
	if errors.Is(err, ppp.ErrClosed) || errors.Is(err, l2tp.ErrClosed) || errors.Is(err, pptp.ErrClosed) ||
		errors.Is(err, ike.ErrClosed) {
		return ErrClosed
	}
	return err
}

// engine is the Conn as its loop sees it: the tunnel's engine, and a look at
// whether a connection that was hung up can end.
type engine Conn

func (e *engine) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	return (*Conn)(e).leave(now, e.tunnel.Receive(now, from, datagrams))
}

func (e *engine) Advance(now time.Time) (next time.Time) {
	return (*Conn)(e).leave(now, e.tunnel.Advance(now))
}

func (c *Conn) leave(now, next time.Time) time.Time {
	switch {
	case c.reason == nil:
		return next
	case now.Before(c.leaveAt):
		return carrier.Earliest(next, c.leaveAt)
	case c.tunnel.idle(), !now.Before(c.leaveBy):
		c.depart(now)
	}
	return carrier.Earliest(next, c.leaveBy)
}

// depart ends a connection that was hung up.
func (c *Conn) depart(now time.Time) {
	c.tunnel.leave(now)
	c.end(c.reason)
}

// begin opens the tunnel.
func (c *Conn) begin(now time.Time) { c.tunnel.dial(now) }

// tunnelUp opens the first session, or waits for the server to do so.
func (c *Conn) tunnelUp(now time.Time) {
	c.reached.Store(stageSession)
	if !c.config.WaitForCall {
		c.openSession(now, c.Network, c.config.PPP)
	}
}

func (c *Conn) peerError(now time.Time, err *udpbatch.PeerError) {
	c.config.Log.Debug("unreachable, says the network", "server", c.server.String(), "cause", err.Err)
	c.tunnel.peerError(now, err)
}
