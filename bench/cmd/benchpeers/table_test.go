package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"gateway/bench/load"
	"gateway/internal/config"
)

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

func TestWaysAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range ways {
		if seen[w.name] || w.title == "" || len(w.measurements) == 0 {
			t.Errorf("%+v", w)
		}
		seen[w.name] = true
		all := slices.Concat(w.measurements, w.withStockBuffers().measurements)
		for _, m := range all {
			c, err := load.ParseCase(m.what)
			if err != nil || c.String() != m.what {
				t.Errorf("%s: %s: %v, %v", w.name, m.what, c, err)
			}
			for _, g := range m.goals {
				if g.name == "" || g.figure == "" || g.told() && w.name == plainWay {
					t.Errorf("%s: %s: %+v", w.name, m.what, g)
				}
			}
		}
	}
	if got, err := chosenWays("pptp, l2tp"); err != nil || len(got) != 2 || got[0].name != "pptp" || got[1].name != plainWay {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := chosenWays("l2tp,carrier-pigeon"); err == nil {
		t.Error("an unknown carrier was taken")
	}
}

// What a way writes is a configuration, and the one that it says.
func TestConfigurationOfEachWay(t *testing.T) {
	said := map[string]string{"l2tp": "127.0.0.1:1", "pptp": "127.0.0.2:2", "ike": "127.0.0.1:3", "esp": "127.0.0.1:4",
		"psk": "key", "username": "me", "password": "it's a \"secret\""}
	for _, w := range ways {
		for _, w := range []way{w, w.withStockBuffers()} {
			file := t.TempDir() + "/gateway.toml"
			if err := w.writeConfig(file, "127.0.0.1:9", said); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(config.Sources{File: file})
			if err != nil {
				t.Fatalf("%s: %v", w.title, err)
			}
			tunnel := c.Tunnels[0]
			if string(tunnel.Protocol) != w.protocol || tunnel.Password.Reveal() != said["password"] || c.Proxy.SOCKS5 != "127.0.0.1:9" {
				t.Errorf("%s: %+v", w.title, tunnel)
			}
			if stock := tunnel.Carrier.ReadBuffer == stockBuffer && tunnel.Carrier.WriteBuffer == stockBuffer; stock != strings.Contains(w.title, "208 KiB") {
				t.Errorf("%s: buffers %+v", w.title, tunnel.Carrier)
			}
		}
	}
}

func TestEachRunMustDoWell(t *testing.T) {
	runs := func(values ...float64) map[string][]load.Figures {
		var rounds []load.Figures
		for _, v := range values {
			rounds = append(rounds, load.Figures{"x": v})
		}
		return map[string][]load.Figures{ours: rounds}
	}
	for name, test := range map[string]struct {
		goal goal
		runs map[string][]load.Figures
		want bool
	}{
		"none above":              {goal{figure: "x", ceiling: 3}, runs(1, 2, 3), true},
		"one above":               {goal{figure: "x", ceiling: 3}, runs(1, 2, 3.1), false},
		"none far below the rest": {goal{figure: "x", even: .5}, runs(1, 2, 3), true},
		"one far below the rest":  {goal{figure: "x", even: .5}, runs(.9, 2, 3), false},
	} {
		if o := reached(test.goal, test.runs); o.pass() != test.want {
			t.Errorf("%s: %s", name, o.row())
		}
	}
	told := reached(goal{name: "told", figure: "x"}, runs(1))
	if !told.told() || !strings.HasSuffix(told.row(), "| - |  |") {
		t.Errorf("got %s", told.row())
	}
}
