package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"time"

	"gateway/bench/load"
)

// A bench is one run of everything that is wanted.
type bench struct {
	plan
	dir      string // of the built programs
	way      way
	profiles string // directory for the gateway's; "": none
	wanted   *regexp.Regexp
	log      *runLog
}

// An outcome is what was reached of a goal.
type outcome struct {
	goal
	ours, other load.Spread
	figure      load.Spread // what the goal is about
	busy        load.Spread // of the machine, 0 to 1
	failed      int         // runs
	note        string
}

// measureWay does all measurements of b.way. It returns what it has even if it fails.
func (b *bench) measureWay(ctx context.Context) (outcomes []outcome, err error) {
	defer fmt.Fprintln(os.Stderr)
	for _, send := range []string{"gso", "mmsg", "one"} {
		o, err := b.measureKind(ctx, send)
		outcomes = append(outcomes, o...)
		if err != nil {
			return outcomes, err
		}
	}
	if b.way.name != plainWay || b.stock || !b.wanted.MatchString("memory") {
		return outcomes, nil
	}
	for _, measure := range []func(context.Context) ([]outcome, error){b.memoryOfConnections, b.memoryOfStreams, b.memoryAfterChurn} {
		o, err := measure(ctx)
		outcomes = append(outcomes, o...)
		if err != nil {
			return outcomes, err
		}
	}
	return outcomes, nil
}

// measureKind does the measurements with far ends of one kind.
func (b *bench) measureKind(ctx context.Context, send string) (outcomes []outcome, err error) {
	todo := slices.DeleteFunc(slices.Clone(b.way.measurements), func(m measurement) bool {
		return m.send != send || !b.wanted.MatchString(b.way.name+" "+m.send+" "+m.what)
	})
	if len(todo) == 0 {
		return nil, nil
	}
	s := &setup{sides: map[string]load.Side{}}
	defer s.stop()
	if err := s.startOurs(ctx, b, send); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(todo, func(m measurement) bool { return m.needs(peer) }) {
		if err := s.startPeer(ctx, b.dir, send); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(todo, func(m measurement) bool { return m.needs(limit) }) {
		if err := s.startLimit(ctx, b.dir); err != nil {
			return nil, err
		}
	}
	for _, m := range todo {
		o, err := b.measure(ctx, s, m)
		if err != nil {
			return outcomes, err
		}
		outcomes = append(outcomes, o...)
	}
	return outcomes, nil
}

// measure does one measurement.
func (b *bench) measure(ctx context.Context, s *setup, m measurement) (outcomes []outcome, err error) {
	c, err := load.ParseCase(m.what)
	if err != nil {
		return nil, err
	}
	sides := []load.Side{s.sides[ours]}
	for _, other := range []string{peer, limit} {
		if m.needs(other) {
			sides = append(sides, s.sides[other])
		}
	}
	figures := load.Compare(ctx, c, b.options, sides, b.pairs, func(round int, s load.Side, f load.Figures, err error) {
		b.log.add(b.way.name, m.send+" "+m.what, round, s.Name, f, err)
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	bySide := map[string][]load.Figures{}
	for i, side := range sides {
		bySide[side.Name] = figures[i]
	}
	for _, g := range m.goals {
		outcomes = append(outcomes, reached(g, bySide))
	}
	return outcomes, nil
}

// reached compares the sides' figures.
func reached(g goal, bySide map[string][]load.Figures) outcome {
	mine, theirs := bySide[ours], bySide[g.against]
	o := outcome{goal: g, ours: load.SpreadOf(load.Values(mine, g.figure)), other: load.SpreadOf(load.Values(theirs, g.figure)),
		busy: load.SpreadOf(load.Values(mine, "machine_busy"))}
	o.figure = o.ours
	if g.against != "" {
		o.figure = load.SpreadOf(load.Ratios(mine, theirs, g.figure))
	}
	for _, f := range slices.Concat(mine, theirs) {
		if f == nil || f["error"] != nil {
			o.failed++
		}
	}
	return o
}

// pass reports whether the goal is reached; what was not measured is not.
func (o outcome) pass() bool {
	m := o.figure.Median
	return !math.IsNaN(m) && o.failed == 0 && (o.atLeast == 0 || m >= o.atLeast) && (o.atMost == 0 || m <= o.atMost) &&
		o.figure.Min >= max(o.never, o.even*m) && (o.ceiling == 0 || o.figure.Max <= o.ceiling)
}

// settle is how long a fresh process has before it counts as idle.
const settle = 2 * time.Second

// fresh starts a gateway that has done nothing yet.
func (b *bench) fresh(ctx context.Context) (*setup, load.Side, error) {
	s := &setup{sides: map[string]load.Side{}}
	if err := s.startOurs(ctx, b, "gso"); err != nil {
		s.stop()
		return nil, load.Side{}, err
	}
	time.Sleep(settle)
	return s, s.sides[ours], nil
}

// memoryOfConnections measures the memory of gateways that are fresh each time: idle, and with idle connections.
func (b *bench) memoryOfConnections(ctx context.Context) ([]outcome, error) {
	var idle, each []float64
	for round := range b.pairs {
		s, side, err := b.fresh(ctx)
		if err != nil {
			return nil, err
		}
		idle = append(idle, mib(load.ReadProcess(side.PID).RSS))
		f, err := b.alone(ctx, "idle:200", round, side)
		s.stop()
		if err != nil {
			return nil, err
		}
		each = append(each, f.Get("kib_per_conn"))
	}
	return []outcome{absolute(idleGoal, idle...), absolute(perConnGoal, each...)}, nil
}

// memoryOfStreams measures a fresh gateway's memory at most while 64 streams move.
func (b *bench) memoryOfStreams(ctx context.Context) ([]outcome, error) {
	s, side, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	for _, what := range []string{"down:64", "up:64"} {
		if _, err := b.alone(ctx, what, 0, side); err != nil {
			return nil, err
		}
	}
	return []outcome{absolute(peakGoal, mib(load.ReadProcess(side.PID).PeakRSS))}, nil
}

// alone does one run of one side for its memory's sake.
func (b *bench) alone(ctx context.Context, what string, round int, side load.Side) (load.Figures, error) {
	c, err := load.ParseCase(what)
	if err != nil {
		return nil, err
	}
	f := load.Compare(ctx, c, b.options, []load.Side{side}, 1, func(_ int, s load.Side, f load.Figures, err error) {
		b.log.add(b.way.name, "memory "+what, round, s.Name, f, err)
	})[0][0]
	return f, context.Cause(ctx)
}

// churnPiece is how long connections come and go until they are counted: so short that not many more come than are wanted.
const churnPiece = 200 * time.Millisecond

// memoryAfterChurn measures how a fresh gateway's memory comes back after many
// short connections.
func (b *bench) memoryAfterChurn(ctx context.Context) ([]outcome, error) {
	s, side, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	idle := load.ReadProcess(side.PID)
	connections := 0.0
	for connections < float64(b.churn) && ctx.Err() == nil {
		f, err := load.Run(ctx, load.Rate, load.Options{Proxy: side.Proxy, Target: side.Target, N: 8, Dur: churnPiece, Size: 64, PID: side.PID})
		b.log.add(b.way.name, "memory churn", 0, side.Name, f, err)
		if err != nil {
			return nil, err
		}
		connections += f.Get("samples")
	}
	busy := load.ReadProcess(side.PID)
	began := time.Now()
	back := func() bool { return float64(load.ReadProcess(side.PID).RSS) <= afterwards.atMost*float64(idle.RSS) }
	for !back() && time.Since(began) < b.churnWait && ctx.Err() == nil {
		time.Sleep(time.Second)
	}
	waited := time.Since(began).Seconds()
	after := load.ReadProcess(side.PID)
	o := absolute(afterwards, float64(after.RSS)/float64(idle.RSS))
	o.note = fmt.Sprintf("%.0f connections: %.1f -> %.1f -> %.1f MiB in %.0f s, without the program's file %.1f -> %.1f -> %.1f",
		connections, mib(idle.RSS), mib(busy.RSS), mib(after.RSS), waited, mib(idle.AnonRSS), mib(busy.AnonRSS), mib(after.AnonRSS))
	return []outcome{o}, context.Cause(ctx)
}

func absolute(g goal, values ...float64) outcome {
	s := load.SpreadOf(values)
	nothing := load.SpreadOf(nil)
	return outcome{goal: g, ours: s, other: nothing, figure: s, busy: nothing}
}

func mib(kib int64) float64 { return float64(kib) / 1024 }
