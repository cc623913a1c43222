// Package supervisor keeps one tunnel up: it dials, watches, and dials again
// with growing pauses. To the proxies it is the network behind the tunnel,
// whichever connection serves at the moment.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"gateway/internal/vpnclient"
	"gateway/ppp"
	"gateway/stack"
)

// Config says which tunnel to keep up, and how. The zero value of each setting
// is its default.
type Config struct {
	Name string // of the tunnel, for logs and errors
	Dial vpnclient.Config

	// Attempts is how many failures in a row end it; 0: it never gives up.
	Attempts int
	// Initial and Max bound the pause before the next attempt, which doubles
	// from failure to failure, with jitter. 0: 1 s and 60 s.
	Initial, Max time.Duration
	// Wait bounds how long a new connection waits for a tunnel that is down.
	// 0: 15 s; negative: not at all.
	Wait time.Duration
	// Goodbye bounds how long closing waits for the server. 0: 3 s.
	Goodbye time.Duration

	Log *slog.Logger // nil: discard
}

func (c Config) withDefaults() Config {
	preset := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	preset(&c.Initial, time.Second)
	preset(&c.Max, time.Minute)
	preset(&c.Wait, 15*time.Second)
	preset(&c.Goodbye, 3*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("tunnel", c.Name)
	c.Dial.Log = c.Log
	return c
}

// A Tunnel keeps one tunnel up while Run runs. Its network methods may be
// called at any time by any goroutine.
type Tunnel struct {
	config Config
	ready  chan struct{} // closed when the network is up for the first time

	mu      sync.Mutex
	conn    *vpnclient.Conn // nil while down
	changed chan struct{}   // closed, and replaced, when anything below or above changes
	cause   error           // why it is down; nil before the first failure
	retryAt time.Time       // of the next attempt
	ended   bool            // Run has returned
}

// New returns a tunnel that is down.
func New(c Config) *Tunnel {
	return &Tunnel{config: c.withDefaults(), ready: make(chan struct{}), changed: make(chan struct{})}
}

// Name returns the tunnel's name.
func (t *Tunnel) Name() string { return t.config.Name }

// Params returns what PPP has negotiated, and whether the network is up.
func (t *Tunnel) Params() (p ppp.Params, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil || t.conn.Ended() {
		return p, false
	}
	return t.conn.Params(), true
}

// Ready is closed when the network is up for the first time.
func (t *Tunnel) Ready() <-chan struct{} { return t.ready }

// Run dials and keeps the tunnel up until ctx ends, closes it properly and
// returns nil. It returns the last failure if that is one that no repetition
// cures (a refused login, or a socket that the system does not give us, before
// any dial has succeeded), or when the attempts are used up.
func (t *Tunnel) Run(ctx context.Context) error {
	err := t.run(ctx)
	t.set(func() { t.conn, t.ended = nil, true })
	return err
}

// steady is how long a connection must have lasted to count as a success: a
// server that throws us out at once is not dialed in a tight loop.
const steady = 30 * time.Second

func (t *Tunnel) run(ctx context.Context) error {
	pause := t.pauses()
	failures, everUp := 0, false
	for {
		conn, err := vpnclient.Dial(ctx, t.config.Dial)
		if err == nil {
			everUp = true
			up := time.Now()
			err = t.serve(ctx, conn)
			if time.Since(up) >= steady {
				pause.Reset()
				failures = 0
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		failures++
		if final(err) && !everUp || failures == t.config.Attempts {
			return fmt.Errorf("tunnel %q: %w", t.config.Name, err)
		}
		wait := pause.NextBackOff()
		t.config.Log.Error("tunnel is down", append(Describe(err), "retry_in", wait.Round(time.Millisecond).String())...)
		t.set(func() { t.cause, t.retryAt = err, time.Now().Add(wait) })
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// final reports whether to dial again would be of no use, or do harm. Once a
// tunnel has been up it is not believed.
func final(err error) bool {
	verdict := vpnclient.Judge(err)
	return verdict == vpnclient.Refused || verdict == vpnclient.NotPermitted
}

func (t *Tunnel) pauses() *backoff.ExponentialBackOff {
	const spread = 0.25
	return &backoff.ExponentialBackOff{InitialInterval: t.config.Initial, MaxInterval: t.config.Max,
		Multiplier: 2, RandomizationFactor: spread}
}

// serve offers the connection until it ends, or closes it when ctx ends.
func (t *Tunnel) serve(ctx context.Context, conn *vpnclient.Conn) error {
	t.set(func() { t.conn = conn })
	defer t.set(func() { t.conn = nil })
	select {
	case <-t.ready:
	default:
		close(t.ready)
	}
	select {
	case <-conn.Network.Done():
		t.set(func() { t.conn = nil }) // the connection may take a moment longer to say goodbye
	case <-ctx.Done():
		t.config.Log.Info("closing", "server", conn.Server().String())
		goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.config.Goodbye)
		defer cancel()
		conn.Close(goodbye)
	}
	return conn.Err()
}

// set changes the state under the lock and wakes those who wait for a change.
func (t *Tunnel) set(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	close(t.changed)
	t.changed = make(chan struct{})
}

// Describe gives what a log line must say of a failure: its stage, its cause
// in the peer's words, and one line of advice.
func Describe(err error) []any {
	var fields []any
	var staged interface {
		Stage() string
		Advice() string
	}
	if errors.As(err, &staged) {
		fields = append(fields, "stage", staged.Stage())
	}
	fields = append(fields, "cause", err)
	if staged != nil && staged.Advice() != "" {
		fields = append(fields, "advice", staged.Advice())
	}
	return fields
}

// network returns the network that is up, or waits for it: until it is up, ctx
// ends, or the bound for waiting is reached (a *DownError).
func (t *Tunnel) network(ctx context.Context) (*vpnclient.Network, error) {
	var timeout <-chan time.Time
	for {
		t.mu.Lock()
		conn, changed, ended := t.conn, t.changed, t.ended
		if conn != nil && !conn.Ended() {
			t.mu.Unlock()
			return conn.Network, nil
		}
		down := t.downError()
		t.mu.Unlock()
		if ended || t.config.Wait < 0 {
			return nil, down
		}
		if timeout == nil {
			timer := time.NewTimer(t.config.Wait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, down
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (t *Tunnel) downError() *DownError {
	return &DownError{Tunnel: t.config.Name, Cause: t.cause, retryAt: t.retryAt}
}

// through calls use with the network that is up, and again with the next one
// if the network ended meanwhile.
func through[T any](ctx context.Context, t *Tunnel, use func(*stack.Stack) (T, error)) (T, error) {
	for {
		n, err := t.network(ctx)
		if err != nil {
			var none T
			return none, err
		}
		result, err := use(n.Stack())
		if err == nil || !n.Ended() || ctx.Err() != nil {
			return result, err
		}
	}
}

// DialContext connects to an address behind the tunnel; a name in it is
// resolved there.
func (t *Tunnel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return through(ctx, t, func(s *stack.Stack) (net.Conn, error) { return s.DialContext(ctx, network, address) })
}

// LookupNetIP resolves a name by the DNS servers behind the tunnel.
func (t *Tunnel) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return through(ctx, t, func(s *stack.Stack) ([]netip.Addr, error) { return s.LookupNetIP(ctx, network, host) })
}

// ListenPacket opens a UDP socket behind the tunnel.
func (t *Tunnel) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return through(ctx, t, func(s *stack.Stack) (net.PacketConn, error) { return s.ListenPacket(ctx, network, address) })
}

// A DownError says that the tunnel is down, and stayed so while we waited.
type DownError struct {
	Tunnel string
	Cause  error // nil: it is being dialed for the first time

	retryAt time.Time
}

// Error names the tunnel and why it is down.
func (e *DownError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("supervisor: tunnel %q is not up yet", e.Tunnel)
	}
	return fmt.Sprintf("supervisor: tunnel %q is down: %v", e.Tunnel, e.Cause)
}

// Unwrap gives the cause.
func (e *DownError) Unwrap() error { return e.Cause }

// TunnelDown tells the proxies that nothing is wrong with the target.
func (e *DownError) TunnelDown() bool { return true }

// RetryAfter is when a client may try again: after the next attempt.
func (e *DownError) RetryAfter() time.Duration {
	return max(time.Until(e.retryAt), time.Second)
}
