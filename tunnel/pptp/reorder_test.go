package pptp

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// arrive gives a packet to the window as Call.receive does and returns the numbers of the frames that go up.
func arrive(r *reorder, now time.Time, sequence uint32) []uint32 {
	frame := fmt.Append(nil, sequence)
	if r.isNext(sequence) {
		return numbers(r.passed([][]byte{frame}))
	}
	return numbers(r.hold(now, 50*time.Millisecond, sequence, frame, nil))
}

func numbers(frames [][]byte) (list []uint32) {
	for _, f := range frames {
		var n uint32
		fmt.Sscan(string(f), &n)
		list = append(list, n)
	}
	return list
}

// RFC 2637 section 4.3: packets may be put in order again, and one that comes after a later one was passed on is dropped.
func TestFramesGoUpInOrder(t *testing.T) {
	type step struct {
		after    time.Duration // the step before
		sequence uint32
		want     []uint32
	}
	const half, whole = 25 * time.Millisecond, 50 * time.Millisecond
	for name, test := range map[string]struct {
		steps                []step
		expired              []uint32 // 50 ms after the last step
		lost, late, reversed uint64
	}{
		"in order":             {steps: []step{{0, 0, []uint32{0}}, {0, 1, []uint32{1}}, {0, 2, []uint32{2}}}},
		"any first number":     {steps: []step{{0, 4000, []uint32{4000}}, {0, 4001, []uint32{4001}}}},
		"two exchanged":        {steps: []step{{0, 1, []uint32{1}}, {0, 3, nil}, {0, 2, []uint32{2, 3}}}, reversed: 1},
		"three reversed":       {steps: []step{{0, 1, []uint32{1}}, {0, 4, nil}, {0, 3, nil}, {0, 2, []uint32{2, 3, 4}}}, reversed: 2},
		"gap":                  {steps: []step{{0, 1, []uint32{1}}, {0, 3, nil}, {0, 4, nil}}, expired: []uint32{3, 4}, lost: 1, reversed: 2},
		"late after the gap":   {steps: []step{{0, 1, []uint32{1}}, {0, 99, []uint32{99}}, {0, 2, nil}}, lost: 97, late: 1},
		"duplicate":            {steps: []step{{0, 1, []uint32{1}}, {0, 1, nil}, {0, 2, []uint32{2}}}, late: 1},
		"duplicate held":       {steps: []step{{0, 1, []uint32{1}}, {0, 3, nil}, {0, 3, nil}, {0, 2, []uint32{2, 3}}}, late: 1, reversed: 1},
		"wrap":                 {steps: []step{{0, 0xfffffffe, []uint32{0xfffffffe}}, {0, 0, nil}, {0, 0xffffffff, []uint32{0xffffffff, 0}}, {0, 1, []uint32{1}}}, reversed: 1},
		"far ahead":            {steps: []step{{0, 1, []uint32{1}}, {0, 3, nil}, {0, 66, []uint32{3, 66}}}, lost: 1 + 62, reversed: 1},
		"edge of the window":   {steps: []step{{0, 1, []uint32{1}}, {0, 65, nil}, {0, 66, []uint32{65, 66}}}, lost: 63, reversed: 1},
		"two gaps of two ages": {steps: []step{{0, 1, []uint32{1}}, {0, 3, nil}, {half, 5, nil}}, expired: []uint32{3, 5}, lost: 2, reversed: 2},
		"first two exchanged":  {steps: []step{{0, 1, []uint32{1}}, {0, 0, []uint32{0}}, {0, 0, nil}, {0, 2, []uint32{2}}}, late: 1, reversed: 1},
		"first two, too late":  {steps: []step{{0, 1, []uint32{1}}, {whole, 0, nil}}, late: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var r reorder
			now := testStart
			for i, s := range test.steps {
				now = now.Add(s.after)
				if got := arrive(&r, now, s.sequence); !cmp.Equal(got, s.want) {
					t.Fatalf("step %d: number %d gave %v, want %v", i, s.sequence, got, s.want)
				}
			}
			now = now.Add(whole)
			if got := numbers(r.expire(now, nil)); !cmp.Equal(got, test.expired) {
				t.Errorf("expired: %v, want %v", got, test.expired)
			}
			if r.held != 0 || !r.release.IsZero() {
				t.Errorf("%d frames still held until %v", r.held, r.release)
			}
			if l, a, v := r.lost.Load(), r.late.Load(), r.reversed.Load(); l != test.lost || a != test.late || v != test.reversed {
				t.Errorf("lost %d, late %d, reversed %d; want %d, %d, %d", l, a, v, test.lost, test.late, test.reversed)
			}
		})
	}
}

func TestEachFrameWaitsItsOwnTime(t *testing.T) {
	var r reorder
	arrive(&r, testStart, 1)
	arrive(&r, testStart, 3)
	arrive(&r, testStart.Add(20*time.Millisecond), 5)
	if want := testStart.Add(50 * time.Millisecond); !r.release.Equal(want) {
		t.Fatalf("release at %v, want %v", r.release, want)
	}
	if got := numbers(r.expire(r.release, nil)); !cmp.Equal(got, []uint32{3}) {
		t.Fatalf("first: %v", got)
	}
	if got := arrive(&r, r.release.Add(-time.Millisecond), 4); !cmp.Equal(got, []uint32{4, 5}) {
		t.Fatalf("second: %v", got)
	}
}

// A peer that starts its numbers anew would otherwise be deaf for up to four thousand million packets.
func TestManyLatePacketsInARowStartTheCountAnew(t *testing.T) {
	var r reorder
	arrive(&r, testStart, 100_000)
	for n := range uint32(maxLateRun - 1) {
		if got := arrive(&r, testStart, n); got != nil {
			t.Fatalf("late packet %d gave %v", n, got)
		}
	}
	if got := arrive(&r, testStart, maxLateRun); !cmp.Equal(got, []uint32{maxLateRun}) {
		t.Fatalf("gave %v", got)
	}
	if got := arrive(&r, testStart, maxLateRun+1); !cmp.Equal(got, []uint32{maxLateRun + 1}) {
		t.Fatalf("next gave %v", got)
	}
}

func TestNoReorderingIfDelayIsNegative(t *testing.T) {
	var r reorder
	r.hold(testStart, -1, 1, []byte("1"), nil)
	if got := numbers(r.hold(testStart, -1, 3, []byte("3"), nil)); !cmp.Equal(got, []uint32{3}) {
		t.Fatalf("gave %v", got)
	}
	if got := numbers(r.hold(testStart, -1, 2, []byte("2"), nil)); got != nil {
		t.Fatalf("late gave %v", got)
	}
}
