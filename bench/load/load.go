// Package load measures a TCP or UDP proxy from outside, against a far end
// that speaks internal/farend's protocol. Each measurement returns a flat set
// of figures; Compare runs several proxies in turn.
package load

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// A Mode is a kind of measurement.
type Mode string

// The modes.
const (
	Down Mode = "down" // bytes from the far end over N streams
	Up   Mode = "up"   // bytes to the far end over N streams
	Rate Mode = "rate" // short connections by N clients: connect, one echo, close
	RTT  Mode = "rtt"  // request and response on N connections, one request in flight on each
	UDP  Mode = "udp"  // datagrams that come back, N in flight, through UDP ASSOCIATE
	Idle Mode = "idle" // memory of N connections that are open and silent

	RTTDown Mode = "rtt-down" // RTT on one connection while N streams come from the far end
	RTTUp   Mode = "rtt-up"   // RTT on one connection while N streams go there
)

// Modes are all modes.
var Modes = []Mode{Down, Up, Rate, RTT, UDP, Idle, RTTDown, RTTUp}

// DefaultN is the N of a mode if none is given.
func (m Mode) DefaultN() int {
	switch m {
	case Rate:
		return 8
	case Idle:
		return 200
	}
	return 1
}

// Options are what one measurement needs.
type Options struct {
	Proxy  string        // see ParseDialer
	Target string        // the far end as the proxy reaches it, host:port
	N      int           // streams, clients, connections or datagrams in flight
	Dur    time.Duration // time measured
	Warm   time.Duration // time before it, for all but Rate, RTT and UDP
	Size   int           // bytes of a request
	Text   bool          // Up: what is sent compresses well
	Mbit   float64       // limit of all streams together in Mbit/s; 0: none
	PID    int           // the proxy's process, for its CPU and memory; 0: unknown

	// WhenOpen, if set, is called at the end of a measurement of Down, Up or Idle,
	// while all of its connections are still open.
	WhenOpen func()
}

// Figures are the outcome of one measurement by name: "gbit_s",
// "cpu_s_per_gb", "p99_ms", ... All are float64 but "error", the first error of
// a measurement that went on.
type Figures map[string]any

// Get returns a figure, or NaN if there is none of this name.
func (f Figures) Get(name string) float64 {
	if v, ok := f[name].(float64); ok {
		return v
	}
	return math.NaN()
}

// Run does one measurement. The end of ctx ends it early, with an error.
func Run(ctx context.Context, mode Mode, o Options) (Figures, error) {
	measure := map[Mode]func(context.Context, dialer, Options) (Figures, error){
		Down: down, Up: up, Rate: rate, RTT: roundTrips, UDP: datagrams, Idle: idle,
		RTTDown: roundTripsDuring(down), RTTUp: roundTripsDuring(up),
	}[mode]
	if measure == nil {
		return nil, fmt.Errorf("load: no mode %q", mode)
	}
	d, err := parseDialer(o.Proxy)
	if err != nil {
		return nil, err
	}
	if o.N < 1 {
		return nil, fmt.Errorf("load: %s needs an N of at least 1", mode)
	}
	f, err := measure(ctx, d, o)
	if err != nil {
		return f, fmt.Errorf("load: %s through %s: %w", mode, o.Proxy, err)
	}
	return f, nil
}

// sleep waits, or ends with ctx and says so.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// addPercentiles adds those of some times in milliseconds.
func (f Figures) addPercentiles(ms []float64) {
	if len(ms) == 0 {
		return
	}
	slices.Sort(ms)
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(q*float64(len(ms))))] }
	f["p50_ms"], f["p90_ms"], f["p99_ms"], f["p999_ms"], f["max_ms"] = at(.5), at(.9), at(.99), at(.999), ms[len(ms)-1]
	f["samples"] = float64(len(ms))
}
