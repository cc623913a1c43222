package pptp

import (
	"sync/atomic"
	"time"
)

// pptpd keeps what comes behind a lost packet for 300 ms, and then until a further packet comes: it looks at the time only when it
// reads one. If all that was sent is kept there, the connections inside wait for an answer, nobody sends, and only their timeouts, which
// double each time, set it free. So a peer that owes us acknowledgments gets one of ours again: a packet without a frame (RFC 2637 section 4.1),
// which does no harm elsewhere.
const (
	nudgeInterval = 100 * time.Millisecond
	nudgeFrom     = 3  // intervals without progress before the first nudge
	nudgeUntil    = 10 // and after which the peer is let be, until it acknowledges or we send again
)

// A nudge watches over one call. All but armed is the Endpoint's goroutine's.
type nudge struct {
	armed atomic.Bool // someone watches, or will soon; set by whoever writes frames

	at           time.Time // of the next look; zero: nobody watches
	acknowledged uint32    // by the peer at the last look
	quiet        int       // looks since it acknowledged something
}

// watch is called by whoever has written frames.
func (k *Call) watch() {
	if do := k.connection.endpoint.config.Do; do != nil && !k.nudge.armed.Load() && k.nudge.armed.CompareAndSwap(false, true) {
		do(k.beginWatch)
	}
}

func (k *Call) beginWatch(now time.Time) {
	k.nudge.quiet, k.nudge.acknowledged, k.nudge.at = 0, k.acknowledged, now.Add(nudgeInterval)
	k.connection.endpoint.schedule(k.nudge.at)
}

// look nudges the peer if it is time to.
func (k *Call) look(now time.Time) {
	n := &k.nudge
	n.at = now.Add(nudgeInterval)
	switch sequence := k.sequence.Load(); {
	case sequence == k.acknowledged || n.quiet >= nudgeUntil:
		n.at = time.Time{}
		n.armed.Store(false)
		if k.sequence.Load() != sequence {
			k.watch() // the writer may have seen it armed
		}
	case k.acknowledged != n.acknowledged:
		n.acknowledged, n.quiet = k.acknowledged, 0
	default:
		n.quiet++
		if n.quiet >= nudgeFrom && k.ack.started {
			k.sendAcknowledgment(k.ack.highest)
		}
	}
}
