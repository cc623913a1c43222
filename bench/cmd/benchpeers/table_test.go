package main

import (
	"math"
	"strings"
	"testing"

	"gateway/bench/load"
)

func TestMeasurementsAreWellFormed(t *testing.T) {
	for _, m := range measurements {
		c, err := load.ParseCase(m.what)
		if err != nil || c.String() != m.what {
			t.Errorf("%s: %v, %v", m.what, c, err)
		}
		for _, g := range m.goals {
			if g.name == "" || g.figure == "" || g.target() == "" {
				t.Errorf("%s: %+v", m.what, g)
			}
		}
	}
}

func TestReachedAndPassed(t *testing.T) {
	figures := func(values ...float64) (rounds []load.Figures) {
		for _, v := range values {
			if math.IsNaN(v) {
				rounds = append(rounds, nil)
			} else {
				rounds = append(rounds, load.Figures{"x": v, "machine_busy": .5})
			}
		}
		return rounds
	}
	theirs := figures(1, 2, 4)
	for name, test := range map[string]struct {
		goal goal
		ours []load.Figures
		want bool
	}{
		"a ratio that is enough":         {goal{figure: "x", against: peer, atLeast: 2}, figures(2, 4, 8), true},
		"a ratio that is not":            {goal{figure: "x", against: peer, atLeast: 2.1}, figures(2, 4, 8), false},
		"the median counts":              {goal{figure: "x", against: peer, atLeast: 2}, figures(.5, 4, 8), true},
		"but none below a floor":         {goal{figure: "x", against: peer, atLeast: 2, never: 1}, figures(.5, 4, 8), false},
		"a ratio that is small enough":   {goal{figure: "x", against: peer, atMost: 2}, figures(2, 4, 8), true},
		"a ratio that is too great":      {goal{figure: "x", against: peer, atMost: 1.9}, figures(2, 4, 8), false},
		"a figure by itself":             {goal{figure: "x", never: .8}, figures(.9, .8, 1), true},
		"a figure that is not there":     {goal{figure: "y", against: peer, atMost: 5}, figures(1, 2, 3), false},
		"a run that failed fails it all": {goal{figure: "x", against: peer, atLeast: 2}, figures(2, math.NaN(), 8), false},
		"a side that never ran":          {goal{figure: "x", against: limit, atLeast: .1}, figures(1, 1, 1), false},
	} {
		o := reached(test.goal, map[string][]load.Figures{ours: test.ours, peer: theirs, limit: make([]load.Figures, 3)})
		if o.pass() != test.want {
			t.Errorf("%s: %s", name, o.row())
		}
	}
}

func TestARowSaysTargetFiguresAndVerdict(t *testing.T) {
	o := reached(goal{name: "speed", figure: "x", against: peer, atLeast: 2, never: 1},
		map[string][]load.Figures{ours: {{"x": 6.0, "machine_busy": .5}}, peer: {{"x": 2.0}}})
	if got, want := o.row(), "| speed | >= 2x, no run < 1x | 6 [6..6] | peer 2 [2..2] | 3 [3..3] | 50 % | pass |"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	o = absolute(peakGoal, 300)
	if got := o.row(); !strings.Contains(got, "**short**") || !strings.Contains(got, "| <= 200 | 300 [300..300] | - |") {
		t.Errorf("got %s", got)
	}
}
