package ipsec

import (
	"math"
	"math/rand/v2"
	"testing"
)

// A replayTwin is a replay that remembers everything.
type replayTwin struct {
	highest uint32
	seen    map[uint32]bool
}

func (r *replayTwin) fresh(n uint32) bool {
	return n != 0 && !r.seen[n] && int64(n) > int64(r.highest)-replayWindow
}

func (r *replayTwin) take(n uint32) {
	r.seen[n] = true
	r.highest = max(r.highest, n)
}

// All sequences of five numbers out of those around the edges of words, of the ring and of the window.
func TestReplayWindowIsItsTwinOnAllShortSequences(t *testing.T) {
	edges := []uint32{0, 1, 63, 64, 65, replayWindow - 1, replayWindow, replayWindow + 1, replayWords*64 - 1, replayWords * 64, replayWords*64 + 1,
		2*replayWords*64 + 63, math.MaxUint32 - replayWindow, math.MaxUint32}
	const length = 5
	total := 1
	for range length {
		total *= len(edges)
	}
	for sequence := range total {
		var r replay
		twin := replayTwin{seen: make(map[uint32]bool, length)}
		for rest, i := sequence, 0; i < length; rest, i = rest/len(edges), i+1 {
			n := edges[rest%len(edges)]
			if got, want := r.fresh(n), twin.fresh(n); got != want {
				t.Fatalf("sequence %d, number %d: fresh is %v, want %v", sequence, n, got, want)
			} else if got {
				r.take(n)
				twin.take(n)
			}
		}
	}
}

func TestReplayWindowIsItsTwinOnLongWalks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var r replay
		twin := replayTwin{seen: make(map[uint32]bool)}
		at := uint32(random.IntN(5000))
		for range 20000 {
			n := at + uint32(random.IntN(3000)) - min(at, uint32(random.IntN(3000)))
			if got, want := r.fresh(n), twin.fresh(n); got != want {
				t.Fatalf("number %d with highest %d: fresh is %v, want %v", n, r.highest, got, want)
			} else if got && random.IntN(4) > 0 { // some do not verify
				r.take(n)
				twin.take(n)
				at = max(at, n)
			}
		}
	}
}

// RFC 4303 section 3.4.3 asks for at least 32, and fast links for more.
func TestReplayWindowIsLarge(t *testing.T) {
	if replayWindow < 1024 {
		t.Error(replayWindow)
	}
}

func BenchmarkReplay(b *testing.B) {
	b.ReportAllocs()
	var r replay
	for i := range uint32(b.N) {
		if r.fresh(i + 1) {
			r.take(i + 1)
		}
	}
}
