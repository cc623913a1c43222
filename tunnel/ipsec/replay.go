package ipsec

const (
	replayWords  = 32
	replayWindow = (replayWords - 1) * 64 // numbers below the highest one that are still taken
)

// A replay remembers which sequence numbers came (RFC 4303 section 3.4.3). Its bits are a ring of words, of which the one that the
// highest number is in may be partly ahead of it; moving on clears whole words and shifts nothing (RFC 6479).
type replay struct {
	highest uint32
	seen    [replayWords]uint64
}

// fresh reports whether a number has not come yet, as far as it is known. 0 is never sent.
func (r *replay) fresh(n uint32) bool {
	switch {
	case n == 0:
		return false
	case n > r.highest:
		return true
	case r.highest-n >= replayWindow:
		return false
	}
	return r.seen[n/64%replayWords]&(1<<(n%64)) == 0
}

// take notes a fresh number, once its packet has been verified.
func (r *replay) take(n uint32) {
	if n > r.highest {
		for i := range min(n/64-r.highest/64, replayWords) {
			r.seen[(r.highest/64+1+i)%replayWords] = 0
		}
		r.highest = n
	}
	r.seen[n/64%replayWords] |= 1 << (n % 64)
}
