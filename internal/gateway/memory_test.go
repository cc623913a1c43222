package gateway

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A burst is what a trimmer sees of one.
type burst struct {
	moved, heap int64
	freed       []time.Duration // after the beginning
	start       time.Time
}

func (b *burst) trimmer(now func() time.Time) *trimmer {
	return &trimmer{
		activity: func() int64 { return b.moved },
		held:     func() int64 { return b.heap },
		free: func() {
			b.heap = 5 << 20
			b.freed = append(b.freed, now().Sub(b.start))
		},
	}
}

func TestMemoryIsGivenBackOnceItIsQuietAndNotBefore(t *testing.T) {
	now := time.Unix(1000, 0)
	b := &burst{start: now, heap: 60 << 20}
	trim := b.trimmer(func() time.Time { return now })
	next := trim.collected(now)
	if trim.collected(now); next.Sub(now) != quietTime {
		t.Fatalf("looks after %v", next.Sub(now))
	}
	for range 10 { // work goes on, and collections with it
		b.moved += quietActivity + 1
		now = next
		if next = trim.look(now); len(b.freed) != 0 || next.Sub(now) != quietTime {
			t.Fatalf("freed at %v, looks after %v", b.freed, next.Sub(now))
		}
		if again := trim.collected(now); !again.IsZero() {
			t.Fatal("a collection puts the next look off")
		}
	}
	b.moved += quietActivity // somebody types
	now = next
	if next = trim.look(now); !next.IsZero() {
		t.Errorf("looks again %v after all was given back", next.Sub(now))
	}
	if want := []time.Duration{11 * quietTime}; !cmp.Equal(b.freed, want) {
		t.Errorf("freed at %v, want %v", b.freed, want)
	}
}

func TestNothingIsDoneForALittleMemory(t *testing.T) {
	now := time.Unix(1000, 0)
	b := &burst{start: now, heap: 60 << 20}
	trim := b.trimmer(func() time.Time { return now })
	now = trim.collected(now)
	trim.look(now)
	for _, test := range []struct {
		grown int64
		looks bool
	}{{0, false}, {worthwhile - 1, false}, {worthwhile, true}} {
		b.heap = 5<<20 + test.grown
		if next := trim.collected(now); next.IsZero() == test.looks {
			t.Errorf("grown by %d: next look %v", test.grown, next)
		}
	}
}

// The runtime's own collections set a trimmer going, and it stops with its context.
func TestATrimmerHearsOfCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		collections := make(chan struct{}, 1)
		b := &burst{start: time.Now(), heap: 60 << 20}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.trimmer(time.Now).run(ctx, collections)
		}()
		time.Sleep(time.Hour) // fake
		collections <- struct{}{}
		time.Sleep(time.Hour)
		cancel()
		<-ended
		if want := []time.Duration{time.Hour + quietTime}; !cmp.Equal(b.freed, want) {
			t.Errorf("freed at %v, want %v", b.freed, want)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	collections := make(chan struct{}, 1)
	announceCollections(ctx, collections)
	for range 3 { // each sets the bait for the next
		runtime.GC()
		<-collections
	}
}

func TestFreeMemoryGivesBack(t *testing.T) {
	ballast := make([][]byte, 64)
	for i := range ballast {
		ballast[i] = make([]byte, 1<<20)
	}
	before := heldMemory()
	runtime.KeepAlive(ballast)
	ballast = nil
	freeMemory()
	if after := heldMemory(); before-after < 32<<20 {
		t.Errorf("held %d bytes with 64 MiB in use, %d without", before, after)
	}
}
