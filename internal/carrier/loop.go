package carrier

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gateway/internal/udpbatch"
)

// An Engine is a protocol engine that a [Loop] drives. Both methods return the
// time of the engine's next deadline; the zero time means that there is none.
type Engine interface {
	// Receive handles datagrams, or GRE packets, of one source. They are
	// borrowed until it returns, and may be overwritten.
	Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time)
	// Advance handles the deadlines that have passed.
	Advance(now time.Time) (next time.Time)
}

// A Socket is where a Loop's datagrams come from: *udpbatch.Conn, or for GRE
// packets *gre.Conn and *gre.Link.
type Socket interface {
	// Read blocks until there is a datagram, the deadline passes
	// (os.ErrDeadlineExceeded) or the socket is closed (net.ErrClosed). A
	// *udpbatch.PeerError is news about one peer and leaves the socket usable.
	// The messages are valid until the next Read.
	Read() ([]udpbatch.Message, error)
	// SetReadDeadline may be called while another goroutine reads.
	SetReadDeadline(t time.Time) error
}

// A Loop is the goroutine of one carrier socket: it does all inbound work and
// all timers of the engine and of the sessions above it.
type Loop struct {
	socket Socket
	engine Engine

	// OnPeerError, if set before Run, is told on the loop's goroutine that the
	// network reported a peer unreachable (ICMP). Such reports are not
	// authenticated.
	OnPeerError func(now time.Time, err *udpbatch.PeerError)

	mu      sync.Mutex
	queue   []func(now time.Time) // guarded by mu; from Do
	stopped bool                  // guarded by mu

	done  chan struct{} // closed when Run has returned
	armed time.Time     // the read deadline that is set; only Run uses it
}

// NewLoop returns a loop that waits for Run.
func NewLoop(socket Socket, engine Engine) *Loop {
	return &Loop{socket: socket, engine: engine, done: make(chan struct{})}
}

// Done is closed when Run has returned.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Do has f called on the loop's goroutine, soon, and does not wait for it. It
// reports whether f will be called: not after Run has returned.
func (l *Loop) Do(f func(now time.Time)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.queue = append(l.queue, f)
	// A deadline in the past wakes a Read that blocks. Whether Run arms its own
	// deadline before or after this, it looks at the queue after arming.
	l.socket.SetReadDeadline(time.Unix(1, 0))
	return true
}

// Run drives the engine until the socket is closed, and returns nil then, or
// until the socket fails.
func (l *Loop) Run() error {
	defer l.stop()
	next := l.engine.Advance(time.Now())
	for {
		l.arm(next)
		if commands := l.take(); commands != nil {
			now := time.Now()
			for _, f := range commands {
				f(now)
			}
			next = l.engine.Advance(now)
			continue
		}
		messages, err := l.socket.Read()
		now := time.Now()
		if err != nil {
			if next, err = l.readFailed(now, next, err); errors.Is(err, net.ErrClosed) {
				return nil
			} else if err != nil {
				return err
			}
			continue
		}
		for i := range messages {
			next = l.engine.Receive(now, messages[i].From, messages[i].Datagrams)
		}
		if due(next, now) {
			next = l.engine.Advance(now)
		}
	}
}

// readFailed handles what Read returned instead of messages, and gives an error back if it is the socket's end.
func (l *Loop) readFailed(now, next time.Time, err error) (time.Time, error) {
	var peer *udpbatch.PeerError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.armed = time.Unix(1, 0) // whatever it was, it must be set anew
		if due(next, now) {
			next = l.engine.Advance(now)
		}
	case errors.As(err, &peer):
		if l.OnPeerError != nil {
			l.OnPeerError(now, peer)
		}
		next = l.engine.Advance(now)
	default:
		return next, err
	}
	return next, nil
}

// arm sets the socket's read deadline, if it is not the one that is set.
func (l *Loop) arm(next time.Time) {
	if !next.Equal(l.armed) {
		l.socket.SetReadDeadline(next)
		l.armed = next
	}
}

// take empties the queue of commands.
func (l *Loop) take() []func(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	commands := l.queue
	l.queue = nil
	return commands
}

func (l *Loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.queue = nil
	close(l.done)
}

func due(next, now time.Time) bool {
	return !next.IsZero() && !next.After(now)
}

// Earliest returns the earlier of two deadlines; the zero time is none.
func Earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
