package pptp

import (
	"sync/atomic"
	"time"
)

// reorderWindow is how many packets further a frame may be than the one waited for, a power of two. RFC 2637 section 4.3 leaves it open.
const reorderWindow = 64

// maxLateRun is how many late packets in a row mean that the peer, or we, have lost count.
const maxLateRun = 64

// reorder puts the frames of one call in order, as RFC 2637 section 4.3 allows, so that MPPE above never sees a late one. The zero value
// takes any first sequence number.
type reorder struct {
	started bool
	first   uint32 // the lowest number passed on at the start of the call
	next    uint32 // expected
	begun   time.Time

	held    int
	slots   [reorderWindow]slotted // frame n waits in slots[n % reorderWindow]
	release time.Time              // when the first held frame stops waiting; zero: none is held
	lateRun int

	lost     atomic.Uint64 // numbers passed over
	late     atomic.Uint64 // frames dropped because their number had passed, duplicates among them
	reversed atomic.Uint64 // frames that had to wait
}

// slotted is a frame that waits. Its buffer is used again.
type slotted struct {
	frame []byte // empty: none
	until time.Time
}

// isNext tells whether the frame with this number can be passed on without waiting.
func (r *reorder) isNext(sequence uint32) bool { return r.started && sequence == r.next }

// passed notes that the next frame was passed on and appends to frames those that waited for it. They are valid until the next hold.
func (r *reorder) passed(frames [][]byte) [][]byte {
	r.next++
	r.lateRun = 0
	if r.held == 0 {
		return frames
	}
	frames = r.run(frames)
	r.rearm()
	return frames
}

// hold takes a frame that is not next: it is kept in a copy for at most delay, or dropped as too late, or so far ahead that waiting is
// over. It appends the frames that can go up now; they may include the one given and are valid until the next hold.
func (r *reorder) hold(now time.Time, delay time.Duration, sequence uint32, frame []byte, frames [][]byte) [][]byte {
	if !r.started {
		r.started, r.first, r.next, r.begun = true, sequence, sequence, now
		return r.passed(append(frames, frame))
	}
	distance := int32(sequence - r.next)
	switch {
	case sequence == r.first-1 && now.Sub(r.begun) < delay:
		// The first packets of a call changed places. They are LCP's, which does not mind; a lost one costs three seconds.
		r.first = sequence
		r.reversed.Add(1)
		return append(frames, frame)
	case distance < 0:
		r.late.Add(1)
		if r.lateRun++; r.lateRun < maxLateRun {
			return frames
		}
		return r.jump(sequence, frame, frames)
	case distance >= reorderWindow || delay < 0:
		return r.jump(sequence, frame, frames)
	}
	s := r.slot(sequence)
	if len(s.frame) > 0 {
		r.late.Add(1) // a duplicate
		return frames
	}
	s.frame = append(s.frame[:0], frame...)
	s.until = now.Add(delay)
	r.held++
	r.reversed.Add(1)
	r.rearm()
	return frames
}

// jump passes on all that is held and goes on with a frame that is far from it.
func (r *reorder) jump(sequence uint32, frame []byte, frames [][]byte) [][]byte {
	for r.held > 0 {
		frames = r.skip(frames)
	}
	if distance := int32(sequence - r.next); distance > 0 {
		r.lost.Add(uint64(distance))
	}
	r.next = sequence
	return r.passed(append(frames, frame))
}

// expire appends the frames that have waited long enough, and those that follow them.
func (r *reorder) expire(now time.Time, frames [][]byte) [][]byte {
	for due(r.release, now) {
		frames = r.skip(frames)
		r.rearm()
	}
	return frames
}

// skip gives up the numbers before the first frame held and passes that on with those that follow it.
func (r *reorder) skip(frames [][]byte) [][]byte {
	for r.held > 0 && len(r.slot(r.next).frame) == 0 {
		r.lost.Add(1)
		r.next++
	}
	return r.run(frames)
}

// run passes on held frames as long as there is no gap.
func (r *reorder) run(frames [][]byte) [][]byte {
	for r.held > 0 && len(r.slot(r.next).frame) > 0 {
		s := r.slot(r.next)
		frames = append(frames, s.frame)
		s.frame = s.frame[:0] // its memory stays as it is until the next hold
		r.held--
		r.next++
	}
	return frames
}

// rearm finds the first held frame's time.
func (r *reorder) rearm() {
	r.release = time.Time{}
	for n := r.next; r.held > 0; n++ {
		if s := r.slot(n); len(s.frame) > 0 {
			r.release = s.until
			return
		}
	}
}

func (r *reorder) slot(sequence uint32) *slotted { return &r.slots[sequence%reorderWindow] }
