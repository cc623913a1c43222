// Command benchpeers measures the gateway beside its peer and its limit, in one
// run on one machine, and prints the goals of docs/performance.md with what was
// reached.
//
//	gateway  the program, through each of the ways of -carrier, to `gateway demo server`
//	peer     wgsocks, WireGuard with the same kind of stack and proxy, to wgfar
//	limit    limitproxy, a proxy with no VPN, to `loadgen serve`
//
// It builds all of them, starts them on free ports of 127.0.0.1, and ends what
// it has started. The measurements of the sides take turns; only ratios of one
// run mean something. It needs Linux: CPU and memory come from /proc. PPTP needs
// raw sockets; without the privilege all runs in namespaces of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"gateway/bench/load"
)

// plan is how much is measured.
type plan struct {
	pairs     int
	options   load.Options
	churn     int           // connections of the churn test
	churnWait time.Duration // how long memory may take to come back
	limit     time.Duration // of all that is measured of one way
	stock     bool          // socket buffers as on a machine that nobody has tuned
}

// stockRuns is how many runs must do well, each of them, with such buffers. They take longer than others: fifty retransmission timeouts,
// one or two of which are each connection's share.
const (
	stockRuns   = 20
	stockLength = 10 * time.Second
)

var (
	full = plan{pairs: 5, options: load.Options{Dur: 2 * time.Second, Warm: time.Second, Size: 64},
		churn: 10000, churnWait: 2 * time.Minute, limit: 40 * time.Minute}
	quick = plan{pairs: 2, options: load.Options{Dur: 800 * time.Millisecond, Warm: 300 * time.Millisecond, Size: 64},
		churn: 1000, churnWait: 10 * time.Second, limit: 6 * time.Minute}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchpeers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	short := flag.Bool("quick", false, "about two minutes: fewer pairs, shorter runs")
	pairs := flag.Int("pairs", 0, "pairs of runs for each row (0: the plan's)")
	only := flag.String("only", "", "measure only what this regular expression matches, as \"gso down:1\" or \"memory\"")
	profiles := flag.String("profile", "", "write CPU and allocation profiles of the gateway to this directory, one pair for each of its processes; figures are then worse")
	raw := flag.String("json", "", "append each run's figures to this file")
	carriers := flag.String("carrier", plainWay, "what to measure, with commas between: all, "+strings.Join(wayNames(), ", "))
	stock := flag.Bool("stock", false, "socket buffers as on a machine that nobody has tuned: 20 runs of the gateway alone, each of which must do well")
	flag.Parse()
	p := full
	if *short {
		p = quick
	}
	if *stock {
		p.pairs, p.stock, p.options.Dur = stockRuns, true, stockLength
	}
	if *pairs > 0 {
		p.pairs = *pairs
	}
	chosen, err := chosenWays(*carriers)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(chosen, way.needsGRE) {
		if entered, err := enterNamespace(ctx); entered {
			return err
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "benchpeers:", err)
		}
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	dir, err := os.MkdirTemp("", "benchpeers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		return err
	}
	log, err := newRunLog(*raw)
	if err != nil {
		return err
	}
	defer log.close()
	describeMachine(ctx, os.Stdout, p)
	b := &bench{plan: p, dir: dir, wanted: wanted, log: log}
	if *profiles != "" {
		if b.profiles, err = filepath.Abs(*profiles); err != nil {
			return err
		}
	}
	for _, w := range chosen {
		if err := b.report(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// report measures one way and prints its table.
func (b *bench) report(ctx context.Context, w way) error {
	if b.way = w; b.stock {
		b.way = w.withStockBuffers()
	}
	fmt.Printf("## %s\n\n", b.way.title)
	if w.needsGRE() && !canOpenGRE() {
		fmt.Printf("Not measured: %v\n\n", errNoRawSocket)
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, errors.New("the run took too long"))
	defer cancel()
	outcomes, err := b.measureWay(ctx)
	printTable(os.Stdout, outcomes)
	return err
}

// A runLog keeps the figures of each run.
type runLog struct{ file *os.File }

func newRunLog(name string) (*runLog, error) {
	if name == "" {
		return &runLog{}, nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return &runLog{f}, err
}

func (l *runLog) add(way, what string, round int, side string, f load.Figures, err error) {
	fmt.Fprint(os.Stderr, ".")
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nbenchpeers: %s %s: %s: %v\n", way, what, side, err)
	}
	if l.file == nil || f == nil {
		return
	}
	f["carrier"], f["what"], f["side"], f["round"] = way, what, side, round
	json.NewEncoder(l.file).Encode(f)
}

func (l *runLog) close() {
	if l.file != nil {
		l.file.Close()
	}
}
