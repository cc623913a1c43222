package processors

import (
	"context"
	"log/slog"
	"runtime"
	"time"
)

const (
	period = time.Second
	// idlePeriod is the period of a program that does next to nothing, so as not to wake it without need.
	idlePeriod = 5 * time.Second
	idle       = .05
	// enough is the share of its processors' time that a program may use before it gets one more.
	enough = .9
	// spare is the share of one processor less that it would have used, below which it does with that. It is far from enough, as
	// the same work costs more time on more processors.
	spare = .6
)

// A governor decides how many processors to use.
type governor struct {
	most int // that there are
	used int // now
}

// next takes how many processors' time was used since the last call and returns how many to use.
func (g *governor) next(busy float64) int {
	switch {
	case busy > enough*float64(g.used):
		g.used = min(g.used+1, g.most)
	case busy < spare*float64(g.used-1):
		g.used = max(1, int(busy/spare)+1)
	}
	return g.used
}

// period is how long to wait until the next call of next.
func (g *governor) period(busy float64) time.Duration {
	if g.used == 1 && busy < idle {
		return idlePeriod
	}
	return period
}

// Run governs the program, whose GOMAXPROCS says how many processors it may use at most, until ctx ends; then it may use all of
// them again; log gets a line for each change. It must not run twice at once. It looks once a second, and every five while there is nothing to do. Where the system does not tell a program's CPU time, and where
// there is one processor only, it returns at once.
func Run(ctx context.Context, log *slog.Logger) {
	g := governor{most: runtime.GOMAXPROCS(0)}
	g.used = g.most
	before, known := cpuTime()
	if !known || g.most == 1 {
		return
	}
	defer runtime.GOMAXPROCS(g.most)
	timer := time.NewTimer(period)
	defer timer.Stop()
	for then := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		spent, _ := cpuTime()
		busy := (spent - before).Seconds() / now.Sub(then).Seconds()
		before, then = spent, now
		if used := g.used; g.next(busy) != used {
			runtime.GOMAXPROCS(g.used)
			log.Debug("processors", "used", g.used, "of", g.most, "busy", busy)
		}
		timer.Reset(g.period(busy))
	}
}
