package proxy

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armon/go-socks5"
)

// ErrServerClosed is what Serve methods return when they are called after Shutdown.
var ErrServerClosed = errors.New("proxy: server closed")

// cutGrace is how long Shutdown waits for connections that it has closed to
// end; they do at once unless a Dialer disregards its context.
const cutGrace = 2 * time.Second

// A Server serves any number of listeners with one Config. All methods may be
// called by any goroutine.
type Server struct {
	config       Config
	log          *slog.Logger
	users        credentials
	http         *http.Server
	login        socks5.Authenticator
	readers      sync.Pool // of *bufio.Reader
	buffers      buffers
	datagrams    sync.Pool // of *[datagramBuffer]byte
	associations atomic.Int64
	count        counters

	mu     sync.Mutex
	closed bool
	loops  map[*acceptLoop]struct{}
}

type counters struct {
	open, accepted, overLimit      atomic.Int64
	loginsRefused, targetsFailed   atomic.Int64
	bytesUp, bytesDown             atomic.Int64
	datagramsUp, datagramsDown     atomic.Int64
	datagramsDropped, panicsCaught atomic.Int64
}

// Stats are counts since New, but for Open and Associations, which are now.
type Stats struct {
	Open             int64 // client connections
	Accepted         int64 // client connections
	OverLimit        int64 // connections closed because of MaxConnections
	LoginsRefused    int64 // wrong or missing user name and password
	TargetsFailed    int64 // requests whose target was not reached
	BytesUp          int64 // client to target, TCP payload
	BytesDown        int64 // target to client, TCP payload
	Associations     int64 // UDP associations
	DatagramsUp      int64 // client to target
	DatagramsDown    int64 // target to client
	DatagramsDropped int64 // malformed, fragmented, from strangers, or not deliverable
	PanicsCaught     int64 // always a bug, in this program or in a Dialer
}

// New makes a Server. It fails only for a Config that cannot work.
func New(c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: c,
		log:    c.Log,
		users:  newCredentials(c.Users),
		loops:  make(map[*acceptLoop]struct{}),
	}
	s.login = s.newLogin()
	s.readers.New = func() any { return bufio.NewReader(nil) }
	s.http = s.newHTTPServer()
	return s, nil
}

// ServeSOCKS5 serves SOCKS5 to the connections of l until ctx is done or
// Shutdown is called, and then returns nil. When ctx is done, l and its
// connections are closed at once. An error of l that does not pass is returned.
func (s *Server) ServeSOCKS5(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, (*acceptLoop).serveSOCKS5)
}

// ServeHTTP is ServeSOCKS5 for the HTTP proxy.
func (s *Server) ServeHTTP(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, (*acceptLoop).serveHTTP)
}

// ServeMixed is ServeSOCKS5 for both: the first byte of a connection tells
// which of them the client speaks.
func (s *Server) ServeMixed(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, (*acceptLoop).serveMixed)
}

func (s *Server) serve(ctx context.Context, l net.Listener, handle func(*acceptLoop, *client)) error {
	a := newAcceptLoop(ctx, s, l, handle)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		a.cancel()
		return ErrServerClosed
	}
	s.loops[a] = struct{}{}
	a.work.Go(func() { s.http.Serve(a.http) })
	runs := make(chan error, 1)
	a.work.Go(func() { runs <- a.run() })
	s.mu.Unlock()

	err := <-runs
	if err == nil && ctx.Err() == nil { // Shutdown, which now cares for the connections
		return nil
	}
	a.cancel()
	a.work.Wait()
	s.mu.Lock()
	delete(s.loops, a)
	s.mu.Unlock()
	return err
}

// Shutdown stops accepting and waits for the connections to end by themselves.
// When ctx is done before that, it closes those that are left and returns
// ctx's error. The Server cannot be used again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	var loops []*acceptLoop
	for a := range s.loops {
		loops = append(loops, a)
	}
	s.mu.Unlock()

	for _, a := range loops {
		a.stop()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.http.Shutdown(ctx) // also closes connections that await their next request
		for _, a := range loops {
			a.work.Wait()
			a.cancel()
		}
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, a := range loops {
		a.cancel()
	}
	select {
	case <-ended:
	case <-time.After(cutGrace):
		s.log.Warn("proxy: connections did not end when they were cut")
	}
	return ctx.Err()
}

// Trim gives up what is kept for the next connections, for when there have been
// none for a while. The garbage collector empties the rest, which is pools.
func (s *Server) Trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.loops {
		a.workers.trim()
	}
}

// Stats returns the counts of this moment.
func (s *Server) Stats() Stats {
	return Stats{
		Open:             s.count.open.Load(),
		Accepted:         s.count.accepted.Load(),
		OverLimit:        s.count.overLimit.Load(),
		LoginsRefused:    s.count.loginsRefused.Load(),
		TargetsFailed:    s.count.targetsFailed.Load(),
		BytesUp:          s.count.bytesUp.Load(),
		BytesDown:        s.count.bytesDown.Load(),
		Associations:     s.associations.Load(),
		DatagramsUp:      s.count.datagramsUp.Load(),
		DatagramsDown:    s.count.datagramsDown.Load(),
		DatagramsDropped: s.count.datagramsDropped.Load(),
		PanicsCaught:     s.count.panicsCaught.Load(),
	}
}

// dial opens a connection to a target, giving up after Config.DialTimeout.
func (s *Server) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.DialTimeout)
	defer cancel()
	return s.dialWithin(ctx, address)
}

// dialWithin opens a connection to a target for as long as ctx allows.
func (s *Server) dialWithin(ctx context.Context, address string) (conn net.Conn, err error) {
	defer func() {
		if err != nil && !errors.Is(err, context.Canceled) { // else the client left
			s.count.targetsFailed.Add(1)
		}
	}()
	err = errDialPanic
	defer s.rescue() // here, since net/http dials in goroutines of its own
	return s.config.Dialer.DialContext(ctx, "tcp", address)
}

var errDialPanic = errors.New("proxy: the dialer failed by a bug")

// rescue keeps a panic (of a Dialer, a listener or ours) from ending the
// program with all its tunnels: it costs one connection. To be deferred.
func (s *Server) rescue() {
	if r := recover(); r != nil {
		s.count.panicsCaught.Add(1)
		s.log.Error("proxy: panic", "cause", r, "stack", string(debug.Stack()))
	}
}
