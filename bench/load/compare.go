package load

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Side is one of the proxies that are compared.
type Side struct {
	Name   string
	Proxy  string
	Target string // the far end as this proxy reaches it
	PID    int    // the proxy's process; 0: unknown
	Text   bool   // uploads are text that compresses well, not noise
}

// A Case is what is measured: a mode with its N and limit.
type Case struct {
	Mode Mode
	N    int
	Mbit float64
}

// ParseCase takes mode[:n][@Mbit/s], for example "down:8", "down:1@100", "rtt:1".
func ParseCase(s string) (Case, error) {
	rest, limit, limited := strings.Cut(s, "@")
	mode, count, counted := strings.Cut(rest, ":")
	c := Case{Mode: Mode(mode), N: Mode(mode).DefaultN()}
	if !slices.Contains(Modes, c.Mode) {
		return c, fmt.Errorf("load: case %q: no such mode; want one of %v", s, Modes)
	}
	var err error
	if counted {
		if c.N, err = strconv.Atoi(count); err != nil || c.N < 1 {
			return c, fmt.Errorf("load: case %q: %q is no count", s, count)
		}
	}
	if limited {
		if c.Mbit, err = strconv.ParseFloat(limit, 64); err != nil || c.Mbit <= 0 {
			return c, fmt.Errorf("load: case %q: %q is no limit in Mbit/s", s, limit)
		}
	}
	return c, nil
}

// String is what ParseCase takes.
func (c Case) String() string {
	s := fmt.Sprintf("%s:%d", c.Mode, c.N)
	if c.Mbit > 0 {
		s += "@" + strconv.FormatFloat(c.Mbit, 'g', -1, 64)
	}
	return s
}

// Headline is the figure that a mode is compared on; higher tells which way is better.
func (m Mode) Headline() (figure string, higher bool) {
	switch m {
	case Down, Up:
		return "gbit_s", true
	case Rate:
		return "conn_s", true
	case UDP:
		return "echo_s", true
	case Idle:
		return "kib_per_conn", false
	}
	return "p50_ms", false
}

// Extras are further figures of a mode that are worth comparing; lower is better.
func (m Mode) Extras() []string {
	switch m {
	case Down, Up:
		return []string{"cpu_s_per_gb"}
	case Idle:
		return []string{"rss_before_kib", "rss_kib"}
	}
	return []string{"p99_ms", "cpu_us_per_op"}
}

// What is left of a run's connections must not be at work in the next one: the
// time of one look at the sides, the CPU seconds in it that are rest, and how long to wait for that.
const (
	betweenRuns  = 200 * time.Millisecond
	restCPU      = .02
	restPatience = 5 * time.Second
)

// rest waits until no side works any more.
func rest(ctx context.Context, sides []Side) error {
	used := func() (seconds float64) {
		for _, s := range sides {
			seconds += ReadProcess(s.PID).CPU
		}
		return seconds
	}
	for start := time.Now(); ; {
		before := used()
		if err := sleep(ctx, betweenRuns); err != nil {
			return err
		}
		if used()-before <= restCPU || time.Since(start) > restPatience {
			return nil
		}
	}
}

// patience is how long a run may take beyond the time that it measures.
const patience = 60 * time.Second

// Compare runs a case through all sides in turn, rounds times, each round in
// another order, so that what else the machine does meets all of them. The
// result has the figures by side and round, nil for a run that failed. report,
// if not nil, is told of each run.
func Compare(ctx context.Context, c Case, o Options, sides []Side, rounds int, report func(round int, s Side, f Figures, err error)) [][]Figures {
	outcome := make([][]Figures, len(sides))
	for i := range outcome {
		outcome[i] = make([]Figures, rounds)
	}
	for round := range rounds {
		for i := range sides {
			i = (i + round) % len(sides)
			f, err := run(ctx, c, o, sides[i])
			if report != nil {
				report(round, sides[i], f, err)
			}
			if err == nil {
				outcome[i][round] = f
			}
			if rest(ctx, sides) != nil {
				return outcome
			}
		}
	}
	return outcome
}

func run(ctx context.Context, c Case, o Options, s Side) (Figures, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Warm+o.Dur+patience)
	defer cancel()
	o.Proxy, o.Target, o.PID, o.Text, o.N, o.Mbit = s.Proxy, s.Target, s.PID, s.Text, c.N, c.Mbit
	return Run(ctx, c.Mode, o)
}

// A Spread is the median of some values, and the least and the greatest of
// them. All are NaN if there is no value.
type Spread struct{ Median, Min, Max float64 }

// Values are one figure of all rounds.
func Values(rounds []Figures, figure string) (v []float64) {
	for _, f := range rounds {
		v = append(v, f.Get(figure))
	}
	return v
}

// SpreadOf leaves out what is no number.
func SpreadOf(values []float64) Spread {
	var v []float64
	for _, x := range values {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	if len(v) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	slices.Sort(v)
	middle := v[len(v)/2]
	if len(v)%2 == 0 {
		middle = (middle + v[len(v)/2-1]) / 2
	}
	return Spread{middle, v[0], v[len(v)-1]}
}

// Ratios divides a figure of one side by that of another, round by round.
func Ratios(a, b []Figures, figure string) (q []float64) {
	for i := range a {
		q = append(q, a[i].Get(figure)/b[i].Get(figure))
	}
	return q
}

// String is "median [least..greatest]", or "-".
func (s Spread) String() string {
	if math.IsNaN(s.Median) {
		return "-"
	}
	return fmt.Sprintf("%s [%s..%s]", short(s.Median), short(s.Min), short(s.Max))
}

// short writes three digits.
func short(x float64) string {
	if math.Abs(x) >= 1000 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
