// Command scale measures how the gateway's cost grows: with tunnels, with
// connections that are open and idle, and with streams. It is the far end and
// the load itself, and runs the gateway's own composition in a process beside it,
// which it asks for what /proc does not tell.
//
// The proxies lead through the first tunnel, so that of further ones the cost of
// the link is measured: memory, goroutines, keep-alives. It needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gateway/bench/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	gateway := flag.String("gateway", "", "be the gateway, with this configuration file (scale starts itself so)")
	tunnels := flag.String("tunnels", "1,10,100", "numbers of tunnels; empty: none")
	connections := flag.String("connections", "1,10,100,1000,10000", "numbers of idle connections; empty: none. Each takes a descriptor here and in the gateway")
	streams := flag.String("streams", "1,8,64,256", "numbers of streams that move bytes; empty: none")
	idle := flag.Duration("idle", time.Minute, "how long CPU is measured while nothing happens: keep-alives come every half minute")
	flag.Parse()
	if *gateway != "" {
		return beGateway(ctx, *gateway)
	}
	var counts [3][]int
	for i, list := range []string{*tunnels, *connections, *streams} {
		var err error
		if counts[i], err = parseCounts(list); err != nil {
			return err
		}
	}
	f, err := startFarEnd(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	return errors.Join(f.tableOfTunnels(ctx, counts[0], *idle), f.tableOfConnections(ctx, counts[1]), f.tableOfStreams(ctx, counts[2]))
}

func parseCounts(list string) (counts []int, err error) {
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of anything", text)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// settle is how long a process has to become quiet.
const settle = 3 * time.Second

func (f *farEnd) tableOfTunnels(ctx context.Context, counts []int, idle time.Duration) error {
	if len(counts) == 0 {
		return nil
	}
	fmt.Printf("| tunnels | up after, ms | memory, MiB | after a collection, MiB | goroutines | threads | idle CPU, us per s | idle CPU per tunnel, us per s |\n|---|---|---|---|---|---|---|---|\n")
	for _, n := range counts {
		if err := f.rowOfTunnels(ctx, n, idle); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func (f *farEnd) rowOfTunnels(ctx context.Context, n int, idle time.Duration) error {
	began := time.Now()
	g, err := f.startGateway(ctx, n)
	if err != nil {
		return err
	}
	defer g.stop()
	up := time.Since(began)
	before, err := g.quiet(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, idle); err != nil {
		return err
	}
	after, err := g.ask(askState)
	if err != nil {
		return err
	}
	collected, err := g.ask(askCollect)
	if err != nil {
		return err
	}
	cpu := float64(after.CPU-before.CPU) / float64(time.Microsecond) / idle.Seconds()
	fmt.Printf("| %d | %d | %.1f | %.1f | %d | %d | %.0f | %.1f |\n", n, up.Milliseconds(), after.mib(), collected.mib(), after.Goroutines, after.Threads, cpu, cpu/float64(n))
	return nil
}

func (f *farEnd) tableOfConnections(ctx context.Context, counts []int) error {
	if len(counts) == 0 {
		return nil
	}
	fmt.Printf("| idle connections | memory, MiB | more for each, KiB | after a collection, MiB | more for each, KiB | goroutines |\n|---|---|---|---|---|---|\n")
	for _, n := range counts {
		if err := f.rowOfConnections(ctx, n); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func (f *farEnd) rowOfConnections(ctx context.Context, n int) error {
	g, err := f.startGateway(ctx, 1)
	if err != nil {
		return err
	}
	defer g.stop()
	if _, err := g.quiet(ctx); err != nil {
		return err
	}
	var empty, open, collected state
	if empty, err = g.ask(askCollect); err != nil {
		return err
	}
	var asked error
	o := load.Options{Proxy: g.proxy, Target: f.target, N: n, Warm: settle, PID: g.pid(), WhenOpen: func() {
		var one, two error
		open, one = g.ask(askState)
		collected, two = g.ask(askCollect)
		asked = errors.Join(one, two)
	}}
	if _, err := load.Run(ctx, load.Idle, o); err != nil || asked != nil {
		return errors.Join(err, asked)
	}
	each := func(s state) float64 { return float64(s.rss-empty.rss) / float64(n) }
	fmt.Printf("| %d | %.1f | %.1f | %.1f | %.1f | %d |\n", n, open.mib(), each(open), collected.mib(), each(collected), open.Goroutines)
	return nil
}

func (f *farEnd) tableOfStreams(ctx context.Context, counts []int) error {
	if len(counts) == 0 {
		return nil
	}
	fmt.Printf("The far end and the load are one process here: speed is lower than in benchpeers, CPU is the gateway's alone.\n\n")
	fmt.Printf("| streams | direction | Gbit/s | CPU s/GB | fairness (Jain) | memory, MiB | goroutines |\n|---|---|---|---|---|---|---|\n")
	for _, n := range counts {
		for _, mode := range []load.Mode{load.Down, load.Up} {
			if err := f.rowOfStreams(ctx, n, mode); err != nil {
				return err
			}
		}
	}
	fmt.Println()
	return nil
}

func (f *farEnd) rowOfStreams(ctx context.Context, n int, mode load.Mode) error {
	g, err := f.startGateway(ctx, 1)
	if err != nil {
		return err
	}
	defer g.stop()
	if _, err := g.quiet(ctx); err != nil {
		return err
	}
	var busy state
	var asked error
	o := load.Options{Proxy: g.proxy, Target: f.target, N: n, Warm: time.Second, Dur: 3 * time.Second, PID: g.pid(),
		WhenOpen: func() { busy, asked = g.ask(askState) }}
	figures, err := load.Run(ctx, mode, o)
	if figures == nil || asked != nil {
		return errors.Join(err, asked)
	}
	if err != nil { // nothing has moved, which is a figure, too
		fmt.Fprintln(os.Stderr, "scale:", err)
	}
	fairness := "-"
	if n > 1 {
		fairness = fmt.Sprintf("%.3f", figures.Get("jain"))
	}
	fmt.Printf("| %d | %s | %.2f | %.2f | %s | %.1f | %d |\n", n, mode, figures.Get("gbit_s"), figures.Get("cpu_s_per_gb"), fairness, busy.mib(), busy.Goroutines)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
