package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// times are how long requests took, collected from several goroutines.
type times struct {
	mu       sync.Mutex
	ms       []float64
	failures int
	last     error
}

func (t *times) add(ms []float64, failures int, last error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ms = append(t.ms, ms...)
	t.failures += failures
	if last != nil {
		t.last = last
	}
}

// figures fails if nothing has worked.
func (t *times) figures(w *window, perSecond string) (Figures, error) {
	f := Figures{"errors": float64(t.failures)}
	w.close(f, 0, int64(len(t.ms)))
	f[perSecond] = float64(len(t.ms)) / f.Get("seconds")
	f.addPercentiles(t.ms)
	if t.last != nil {
		f["error"] = t.last.Error()
	}
	switch {
	case len(t.ms) > 0:
		return f, nil
	case t.last != nil:
		return f, fmt.Errorf("nothing worked: %w", t.last)
	}
	return f, errors.New("no answer in the time measured")
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate opens short connections from o.N clients: connect, one small echo, close.
func rate(ctx context.Context, d dialer, o Options) (Figures, error) {
	var all times
	var group sync.WaitGroup
	w := openWindow(o.PID)
	for range o.N {
		group.Go(func() {
			var (
				request  = append([]byte("E\n"), make([]byte, o.Size)...)
				answer   = make([]byte, o.Size)
				ms       []float64
				failures int
				last     error
			)
			for time.Since(w.start) < o.Dur && ctx.Err() == nil {
				start := time.Now()
				if err := d.echoOnce(ctx, o.Target, request, answer); err != nil {
					failures, last = failures+1, err
					continue
				}
				ms = append(ms, milliseconds(time.Since(start)))
			}
			all.add(ms, failures, last)
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return all.figures(w, "conn_s")
}

func (d dialer) echoOnce(ctx context.Context, target string, request, answer []byte) error {
	c, err := d.dial(ctx, target)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.Write(request); err != nil {
		return err
	}
	_, err = io.ReadFull(c, answer)
	return err
}

// roundTrips sends requests on o.N open connections, one in flight on each.
func roundTrips(ctx context.Context, d dialer, o Options) (Figures, error) {
	conns, err := d.dialAll(ctx, o.Target, o.N)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	for _, c := range conns {
		if _, err := io.WriteString(c, "E\n"); err != nil {
			return nil, err
		}
	}
	var all times
	var group sync.WaitGroup
	w := openWindow(o.PID)
	for _, c := range conns {
		group.Go(func() {
			request, answer := make([]byte, o.Size), make([]byte, o.Size)
			var ms []float64
			for time.Since(w.start) < o.Dur && ctx.Err() == nil {
				start := time.Now()
				c.SetDeadline(start.Add(answerTimeout))
				if err := roundTrip(c, request, answer); err != nil {
					all.add(ms, 1, err)
					return
				}
				ms = append(ms, milliseconds(time.Since(start)))
			}
			all.add(ms, 0, nil)
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return all.figures(w, "req_s")
}

// roundTripsDuring sends requests on one connection while o.N streams move bytes: for o.Dur, after o.Warm.
func roundTripsDuring(bulk func(context.Context, dialer, Options) (Figures, error)) func(context.Context, dialer, Options) (Figures, error) {
	return func(ctx context.Context, d dialer, o Options) (Figures, error) {
		var streams Figures
		var group sync.WaitGroup
		defer group.Wait()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		group.Go(func() {
			var err error
			if streams, err = bulk(ctx, d, o); err != nil {
				cancel(err)
			}
		})
		if err := sleep(ctx, o.Warm); err != nil {
			return nil, err
		}
		alone := o
		alone.N = 1
		f, err := roundTrips(ctx, d, alone)
		if err != nil {
			return f, err
		}
		group.Wait()
		for _, name := range []string{"gbit_s", "streams", "error"} {
			if v, ok := streams[name]; ok {
				f[name] = v
			}
		}
		return f, nil
	}
}

func roundTrip(c net.Conn, request, answer []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	_, err := io.ReadFull(c, answer)
	return err
}

// idle opens o.N connections that each have done one echo, and measures the
// proxy's memory after o.Warm and o.Dur.
func idle(ctx context.Context, d dialer, o Options) (Figures, error) {
	before := ReadProcess(o.PID)
	conns, err := d.dialAll(ctx, o.Target, o.N)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	for _, c := range conns {
		c.SetDeadline(time.Now().Add(answerTimeout))
		if err := roundTrip(c, []byte("E\nx"), make([]byte, 1)); err != nil {
			return nil, err
		}
	}
	if err := sleep(ctx, o.Warm+o.Dur); err != nil {
		return nil, err
	}
	after := ReadProcess(o.PID)
	if o.WhenOpen != nil {
		o.WhenOpen()
	}
	return Figures{"conns": float64(o.N), "rss_before_kib": float64(before.RSS), "rss_kib": float64(after.RSS),
		"rss_peak_kib": float64(after.PeakRSS), "kib_per_conn": float64(after.RSS-before.RSS) / float64(o.N)}, nil
}
