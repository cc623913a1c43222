package l2tp

import (
	"sync/atomic"
	"time"
)

// Bounds of the reorder window (RFC 2661 section 5.4 leaves them open).
const (
	reorderWindow = 8                     // frames, a power of two
	reorderDelay  = 50 * time.Millisecond // how long a frame waits for the ones before it
	maxLateRun    = 64                    // late frames in a row after which we, not they, must have lost count
)

// reorder puts the sequenced data frames of one session in order. The zero value expects Ns 0.
type reorder struct {
	next     uint16 // expected
	held     int
	slots    [reorderWindow][]byte // frame Ns waits in slots[Ns % reorderWindow]; empty: none. Buffers are used again.
	release  time.Time             // when the held frames stop waiting; zero: none is held
	lateRun  int
	lost     atomic.Uint64 // numbers passed over
	late     atomic.Uint64 // frames dropped because their number had passed, duplicates among them
	reversed atomic.Uint64 // frames that had to wait
}

// isNext tells whether the frame with this number can be passed on without waiting.
func (r *reorder) isNext(ns uint16) bool { return ns == r.next }

// passed notes that the next frame was passed on and appends to frames those that waited for it. They are valid until the next hold.
func (r *reorder) passed(frames [][]byte) [][]byte {
	r.next++
	r.lateRun = 0
	for r.held > 0 && len(*r.slot(r.next)) > 0 {
		frames = r.take(r.next, frames)
		r.next++
	}
	return frames
}

// hold takes a frame that is not next: it is kept in a copy, or dropped as too late, or so far ahead that waiting is over. It appends
// the frames that can go up now; they may include the one given and are valid until the next hold.
func (r *reorder) hold(now time.Time, ns uint16, frame []byte, frames [][]byte) [][]byte {
	distance := int(int16(ns - r.next))
	if distance < 0 {
		r.late.Add(1)
		if r.lateRun++; r.lateRun < maxLateRun {
			return frames
		}
	}
	if distance < 0 || distance >= reorderWindow {
		frames = r.flush(frames)
		if distance > 0 {
			r.lost.Add(uint64(ns - r.next))
		}
		r.next = ns
		return r.passed(append(frames, frame))
	}
	slot := r.slot(ns)
	if len(*slot) > 0 {
		r.late.Add(1) // a duplicate
		return frames
	}
	if r.held == 0 {
		r.release = now.Add(reorderDelay)
	}
	*slot = append((*slot)[:0], frame...)
	r.held++
	r.reversed.Add(1)
	return frames
}

// flush appends all held frames in order and gives up those missing between them.
func (r *reorder) flush(frames [][]byte) [][]byte {
	for r.held > 0 {
		if len(*r.slot(r.next)) > 0 {
			frames = r.take(r.next, frames)
		} else {
			r.lost.Add(1)
		}
		r.next++
	}
	return frames
}

func (r *reorder) slot(ns uint16) *[]byte { return &r.slots[ns%reorderWindow] }

func (r *reorder) take(ns uint16, frames [][]byte) [][]byte {
	slot := r.slot(ns)
	frames = append(frames, *slot)
	*slot = (*slot)[:0] // its memory stays as it is until the next hold
	if r.held--; r.held == 0 {
		r.release = time.Time{}
	}
	return frames
}
