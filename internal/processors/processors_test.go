package processors

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestGovernor goes through a day of a program on a machine of eight processors.
func TestGovernor(t *testing.T) {
	g := governor{most: 8, used: 8}
	for i, step := range []struct {
		busy float64
		want int
		what string
	}{
		{.2, 1, "starts on all, and needs one"},
		{0, 1, "idle"},
		{.85, 1, "busy, but not short of anything"},
		{.97, 2, "all of one: a second"},
		{1.2, 2, "the same work costs more on two"},
		{.7, 2, "no going back at once"},
		{1.9, 3, "two are not enough"},
		{2.95, 4, "nor three"},
		{2, 4, "in between"},
		{1.7, 3, "three would be used by three fifths"},
		{.5, 1, "all at once when little is left"},
		{4, 2, "never more than one at a time"},
		{7.9, 3, "up"}, {7.9, 4, "up"}, {7.9, 5, "up"}, {7.9, 6, "up"}, {7.9, 7, "up"}, {7.9, 8, "up"},
		{7.9, 8, "there are no more"},
	} {
		if got := g.next(step.busy); got != step.want {
			t.Fatalf("step %d, %s: %v busy, uses %d processors, want %d", i, step.what, step.busy, got, step.want)
		}
	}
}

// TestGovernorSettles finds no load under which the number would go up and down for ever, if more processors make the same work
// dearer by up to two fifths.
func TestGovernorSettles(t *testing.T) {
	for work := .0; work < 8; work += .01 {
		for used := 1; used <= 8; used++ {
			g := governor{most: 8, used: used}
			last, changes := 0, 0
			for range 40 {
				cost := work
				if g.used > 1 {
					cost *= 1.4
				}
				g.next(min(cost, float64(g.used)))
				if last != g.used {
					last, changes = g.used, changes+1
				}
			}
			if changes > 9 {
				t.Fatalf("work for %.2f processors, begun with %d: %d changes", work, used, changes)
			}
		}
	}
}

// TestGovernorLeavesAnIdleProgramAlone tells how often it looks.
func TestGovernorLeavesAnIdleProgramAlone(t *testing.T) {
	for _, test := range []struct {
		used int
		busy float64
		want time.Duration
	}{{1, 0, idlePeriod}, {1, .04, idlePeriod}, {1, .06, period}, {2, 0, period}} {
		g := governor{most: 4, used: test.used}
		if got := g.period(test.busy); got != test.want {
			t.Errorf("%v of %d processors busy: the next look is in %v, want %v", test.busy, test.used, got, test.want)
		}
	}
}

// TestRunIsIdle runs the governor for a minute in which nothing happens, and ends it.
func TestRunIsIdle(t *testing.T) {
	if _, known := cpuTime(); !known {
		t.Skip("the system does not tell")
	}
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go Run(ctx, slog.New(slog.DiscardHandler))
		time.Sleep(10*time.Second + time.Millisecond)
		if got := runtime.GOMAXPROCS(0); got != 1 {
			t.Errorf("idle on %d processors", got)
		}
		time.Sleep(time.Minute)
	})
	if got := runtime.GOMAXPROCS(0); got != 4 {
		t.Errorf("%d processors after the end, want the 4 of before", got)
	}
}
