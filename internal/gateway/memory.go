package gateway

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// quietTime is how long the proxies must have been quiet before memory is given back.
	quietTime = 3 * time.Second
	// quietActivity is how much activity in that time still counts as quiet: an ssh session, a page that polls.
	quietActivity = 256 << 10
	// worthwhile is how much more memory than after the last time, in bytes, is worth two collections.
	worthwhile = 2 << 20
)

// A trimmer gives memory back to the system when a burst of work is over. By itself the runtime collects an idle program's heap every
// two minutes only, and keeps the better part of what that frees. It gives back nothing while there is work: the memory would be
// asked for again at once. It has no clock of its own; nothing happens while nothing is collected.
type trimmer struct {
	activity func() int64 // grows with what the proxies do
	held     func() int64 // bytes that the runtime has of the system's memory
	free     func()       // gives back what can be

	looking bool  // after a collection, until there was nothing to do
	seen    int64 // activity at the last look
	least   int64 // held after the last free
}

// collected is told that a garbage collection has ended, which is a sign of work.
func (t *trimmer) collected(now time.Time) (next time.Time) {
	if !t.looking && t.held()-t.least >= worthwhile {
		t.looking = true
		t.seen = t.activity()
		return now.Add(quietTime)
	}
	return time.Time{}
}

// look frees if it was quiet since the last look, and otherwise says when to look again.
func (t *trimmer) look(now time.Time) (next time.Time) {
	if seen := t.activity(); seen-t.seen > quietActivity {
		t.seen = seen
		return now.Add(quietTime)
	}
	t.free()
	t.least = t.held()
	t.looking = false
	return time.Time{}
}

// run drives the trimmer until ctx ends. There is a token in collections after each.
func (t *trimmer) run(ctx context.Context, collections <-chan struct{}) {
	timer := time.NewTimer(0)
	<-timer.C
	for {
		var next time.Time
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-collections:
			next = t.collected(time.Now())
		case <-timer.C:
			next = t.look(time.Now())
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// announceCollections leaves a token in c after each garbage collection until ctx ends.
func announceCollections(ctx context.Context, c chan<- struct{}) {
	type bait struct{ _ *byte } // holds a pointer, so as to be an allocation of its own
	var set func()
	set = func() {
		runtime.AddCleanup(new(bait), func(struct{}) {
			if ctx.Err() != nil {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
			set()
		}, struct{}{})
	}
	set()
}

// trim gives memory back after each burst until ctx ends.
func (g *Gateway) trim(ctx context.Context) {
	t := trimmer{activity: g.activity, held: heldMemory, free: func() {
		g.proxy.Trim()
		freeMemory()
	}}
	collections := make(chan struct{}, 1)
	announceCollections(ctx, collections)
	t.run(ctx, collections)
}

// activity is what the proxies have done, in bytes; a connection counts for the 16 KiB that setting it up allocates.
func (g *Gateway) activity() int64 {
	s := g.proxy.Stats()
	return s.BytesUp + s.BytesDown + s.Accepted<<14
}

// heldMemory returns how much of the system's memory the runtime has.
func heldMemory() int64 {
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	return int64(m[0].Value.Uint64() - m[1].Value.Uint64())
}

// freeMemory collects twice, since pools keep their content for one collection, and gives back what is free then.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}
