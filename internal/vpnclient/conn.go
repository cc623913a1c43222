package vpnclient

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/stack"
	"gateway/tunnel/l2tp"
)

// A Conn is a connection to a VPN server: one tunnel with one session, and the
// network behind it.
type Conn struct {
	config Config
	server netip.AddrPort
	socket Socket
	engine *carrier.L2TP
	loop   *carrier.Loop

	// Of the loop's goroutine.
	tunnel   *l2tp.Tunnel
	link     *carrier.Link
	refusals int        // ICMP errors while the server has not answered
	params   ppp.Params // of the network that is up
	reason   error      // why it was hung up; nil while it was not
	leaveAt  time.Time  // when a connection that was hung up ends at the earliest
	leaveBy  time.Time  // and at the latest

	reached atomic.Int32 // how far the connection has come: a stage
	network atomic.Pointer[stack.Stack]
	shown   atomic.Pointer[ppp.Params]

	up      chan struct{} // closed when the network is up
	upOnce  sync.Once
	done    chan struct{} // closed when everything has ended
	endOnce sync.Once
	err     error // why it ended; read after done
}

// How far a connection has come.
const (
	stageTunnel = iota
	stageSession
	stagePPP
)

func newConn(c Config, server netip.AddrPort, socket Socket) *Conn {
	conn := &Conn{config: c, server: server, socket: socket, up: make(chan struct{}), done: make(chan struct{})}
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
	if network := c.network.Load(); network != nil {
		network.Close(c.err)
	}
	close(c.done)
}

// end notes why the connection ends, and lets the loop end. The first reason counts.
func (c *Conn) end(err error) {
	c.endOnce.Do(func() {
		if err == nil {
			err = ErrClosed
		}
		c.err = err
		c.socket.Close()
	})
}

func (c *Conn) stage() string {
	return [...]string{"l2tp-tunnel", "l2tp-session", "lcp"}[c.reached.Load()]
}

// Server returns the server's address and port.
func (c *Conn) Server() netip.AddrPort { return c.server }

// Stack returns the private network. It changes when the server renegotiates
// our address; the old one is closed then.
func (c *Conn) Stack() *stack.Stack { return c.network.Load() }

// Params returns what PPP has negotiated.
func (c *Conn) Params() ppp.Params { return *c.shown.Load() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended. Call it after Done.
func (c *Conn) Err() error {
	<-c.done
	return c.err
}

// Close ends the connection as the protocols want it: LCP Terminate-Request,
// CDN, StopCCN. It waits for the server's answers until ctx ends, then leaves.
func (c *Conn) Close(ctx context.Context) error {
	c.loop.Do(func(now time.Time) {
		if c.link != nil {
			c.link.Close(now) // network.Down goes on with the tunnel
		} else {
			c.hangUp(now, ErrClosed)
		}
	})
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	c.loop.Do(func(now time.Time) {
		c.hangUp(now, ErrClosed) // one datagram to say so
		c.end(ErrClosed)
	})
	<-c.done
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
	if c.reason == nil {
		return next
	}
	switch {
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
	c.config.Log.Debug("network error", "server", c.server.String(), "cause", err.Err)
	if err.Addr != c.server {
		return
	}
	if c.refusals++; c.refusals >= refusalsBelieved {
		c.engine.Endpoint().Unreachable(now, c.server, err.Err)
	}
}

// tunnelHandler is the Conn as the tunnel sees it.
type tunnelHandler Conn

// TunnelUp opens the session, or waits for the server to do so.
func (h *tunnelHandler) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	c := (*Conn)(h)
	c.reached.Store(stageSession)
	c.config.Log.Info("tunnel is up", "server", c.server.String())
	if c.config.WaitForCall {
		return
	}
	link, err := c.engine.OpenLink(now, t, c.config.PPP, (*network)(c))
	if err != nil {
		c.hangUp(now, err)
		return
	}
	c.link = link
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
	if !c.config.WaitForCall || c.link != nil {
		return nil, errors.New("no call is expected")
	}
	c.link = c.engine.AcceptLink(s, c.config.PPP, (*network)(c))
	return c.link, nil
}
