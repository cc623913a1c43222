package pptp

import (
	"sync/atomic"
	"time"
)

// acknowledgmentDelay is how long an acknowledgment waits for a frame of ours that carries it. Peers that keep to the window of RFC
// 2637 section 4.2 wait for it, at a window of one with every packet.
const acknowledgmentDelay = 20 * time.Millisecond

// ackWaits marks in acknowledgment.state that the peer has not been told the number yet.
const ackWaits = 1 << 32

// acknowledgment is what the peer is to be told of its packets. The Endpoint's goroutine notes, and whoever writes frames takes.
type acknowledgment struct {
	state atomic.Uint64 // the highest sequence number received, and ackWaits

	// The Endpoint's goroutine's:
	started bool
	highest uint32
	fresh   int       // packets noted since publish
	waiting int       // packets published since the peer was last told, as far as is known
	by      time.Time // when to tell without a frame; zero: nothing waits
}

// note takes the sequence number of a packet, late ones and duplicates included: the peer may have missed what it was told before.
func (a *acknowledgment) note(sequence uint32) {
	if !a.started || int32(sequence-a.highest) > 0 {
		a.started, a.highest = true, sequence
	}
	a.fresh++
}

// publish lets frames carry what was noted.
func (a *acknowledgment) publish(now time.Time) {
	if a.fresh == 0 {
		return
	}
	if !a.pending() {
		a.waiting = 0
	}
	a.waiting += a.fresh
	a.fresh = 0
	if a.by.IsZero() {
		a.by = now.Add(acknowledgmentDelay)
	}
	a.state.Store(ackWaits | uint64(a.highest))
}

func (a *acknowledgment) pending() bool { return a.state.Load()&ackWaits != 0 }

// take returns the number to tell the peer, and whether there is something to tell. Any goroutine may call it.
func (a *acknowledgment) take() (uint32, bool) {
	for {
		v := a.state.Load()
		if v&ackWaits == 0 {
			return 0, false
		}
		if a.state.CompareAndSwap(v, v&^ackWaits) {
			return uint32(v), true
		}
	}
}

// takeDue is take for a packet without a frame: only if the time is up, or half of the window that we offered is used up.
func (a *acknowledgment) takeDue(now time.Time, window int) (uint32, bool) {
	timeIsUp := due(a.by, now)
	if !timeIsUp && a.waiting < (window+1)/2 {
		return 0, false
	}
	a.by, a.waiting = time.Time{}, 0
	return a.take()
}
