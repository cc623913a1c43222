package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	socksVersion5 = 0x05 // RFC 1928 section 3

	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// An acceptLoop owns one listener and the client connections that came from it.
type acceptLoop struct {
	server   *Server
	listener net.Listener
	handle   func(*acceptLoop, *client) // takes over the client, and closes it
	http     *handoff
	workers  *workers

	ctx    context.Context // of everything done for its connections
	cancel func()          // ends them
	work   sync.WaitGroup  // run, one for each connection, and serving http

	stopping chan struct{} // closed by stop
	stopOnce sync.Once

	mu      sync.Mutex
	clients map[*client]struct{}
}

func newAcceptLoop(ctx context.Context, s *Server, l net.Listener, handle func(*acceptLoop, *client)) *acceptLoop {
	a := &acceptLoop{
		server:   s,
		listener: l,
		handle:   handle,
		stopping: make(chan struct{}),
		clients:  make(map[*client]struct{}),
	}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.http = &handoff{ctx: a.ctx, addr: l.Addr(), clients: make(chan *client), closed: make(chan struct{})}
	a.workers = newWorkers(a.ctx.Done())
	context.AfterFunc(a.ctx, a.cut)
	return a
}

// run accepts until stop is called (nil) or the listener fails for good.
// Running out of descriptors or memory passes: connections end, and then
// accepting goes on.
func (a *acceptLoop) run() error {
	var delay time.Duration
	for {
		conn, err := a.listener.Accept()
		select {
		case <-a.stopping:
			if err == nil {
				conn.Close()
			}
			return nil
		default:
		}
		if err != nil {
			if !passes(err) {
				return fmt.Errorf("proxy: accept on %s: %w", a.listener.Addr(), err)
			}
			if delay == 0 {
				a.server.log.Warn("proxy: cannot accept connections for now", "listener", a.listener.Addr(), "cause", err)
			}
			delay = min(max(2*delay, minAcceptDelay), maxAcceptDelay)
			select {
			case <-a.stopping:
				return nil
			case <-time.After(delay):
			}
			continue
		}
		if delay != 0 {
			a.server.log.Info("proxy: accepting connections again", "listener", a.listener.Addr())
			delay = 0
		}
		if c := a.admit(conn); c != nil {
			a.workers.run(func() {
				defer a.server.rescue()
				a.handle(a, c)
			})
		}
	}
}

// passes reports whether an error of Accept says nothing about the next Accept.
func passes(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// admit makes conn a client, or closes it and returns nil when there are too many.
func (a *acceptLoop) admit(conn net.Conn) *client {
	s := a.server
	s.count.accepted.Add(1)
	if open := s.count.open.Add(1); open > int64(s.config.MaxConnections) {
		s.count.open.Add(-1)
		if s.count.overLimit.Add(1) == 1 {
			s.log.Warn("proxy: too many connections, closing new ones (said once)", "limit", s.config.MaxConnections)
		}
		conn.Close()
		return nil
	}
	c := &client{Conn: conn, loop: a, handshakeBy: time.Now().Add(s.config.HandshakeTimeout)}
	a.work.Add(1)
	a.mu.Lock()
	a.clients[c] = struct{}{}
	a.mu.Unlock()
	if a.ctx.Err() != nil { // cut may have come before c was in the map
		c.Close()
		return nil
	}
	return c
}

// stop ends accepting; the connections go on.
func (a *acceptLoop) stop() {
	a.stopOnce.Do(func() {
		close(a.stopping)
		a.listener.Close()
		a.http.Close()
	})
}

// cut ends accepting and closes the connections.
func (a *acceptLoop) cut() {
	a.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.clients {
		c.Conn.Close() // whoever serves c notices and calls c.Close
	}
}

func (a *acceptLoop) serveHTTP(c *client) {
	a.http.hand(c)
}

func (a *acceptLoop) serveMixed(c *client) {
	c.SetReadDeadline(c.handshakeBy)
	c.readAhead()
	first, err := c.in.Peek(1)
	switch {
	case err != nil:
		c.Close()
	case first[0] == socksVersion5:
		a.serveSOCKS5(c)
	default:
		c.SetReadDeadline(time.Time{})
		a.serveHTTP(c)
	}
}

// A client is one accepted connection. As a net.Conn it is what net/http gets;
// the relay works on the Conn within, which may have faster ways to copy.
type client struct {
	net.Conn
	loop        *acceptLoop
	handshakeBy time.Time
	in          *bufio.Reader // over Conn, nil if nothing was read ahead
	closeOnce   sync.Once

	mu       sync.Mutex
	upstream *http.Transport // see client.transport
}

// Close closes the connection and takes it off the books. The last one to use
// the client calls it.
func (c *client) Close() error {
	err := c.Conn.Close()
	c.closeOnce.Do(func() {
		c.closeTransport()
		a := c.loop
		a.mu.Lock()
		delete(a.clients, c)
		a.mu.Unlock()
		a.server.count.open.Add(-1)
		a.work.Done()
	})
	return err
}

// Read reads what was read ahead, then from the connection.
func (c *client) Read(p []byte) (int, error) {
	if c.in != nil && c.in.Buffered() > 0 {
		return c.in.Read(p[:min(len(p), c.in.Buffered())])
	}
	return c.Conn.Read(p)
}

// Write gives up on a client that takes nothing for Config.IdleTimeout.
func (c *client) Write(p []byte) (int, error) {
	if idle := c.loop.server.config.IdleTimeout; idle > 0 {
		c.Conn.SetWriteDeadline(time.Now().Add(idle))
	}
	return c.Conn.Write(p)
}

// CloseWrite ends the direction to the client.
func (c *client) CloseWrite() error { return closeWrite(c.Conn) }

// readAhead puts a reader in front of the connection, if there is none.
func (c *client) readAhead() {
	if c.in == nil {
		c.in = c.loop.server.readers.Get().(*bufio.Reader)
		c.in.Reset(c.Conn)
	}
}

// takeAhead returns what was read ahead of the request and gives the reader back.
func (c *client) takeAhead() []byte {
	if c.in == nil {
		return nil
	}
	buffered, _ := c.in.Peek(c.in.Buffered())
	ahead := bytes.Clone(buffered)
	c.in.Reset(nil)
	c.loop.server.readers.Put(c.in)
	c.in = nil
	return ahead
}

// A handoff is the listener from which net/http takes its clients.
type handoff struct {
	ctx       context.Context
	addr      net.Addr
	clients   chan *client
	closed    chan struct{}
	closeOnce sync.Once
}

func (h *handoff) hand(c *client) {
	select {
	case h.clients <- c:
	case <-h.closed:
		c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.clients:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.closeOnce.Do(func() { close(h.closed) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }
