package udpbatch

import "time"

const (
	pauseLength  = 150 * time.Microsecond // some 230 until the reader runs again: the kernel's timer slack and the waking add to it
	pauseAbove   = 25_000_000             // bytes a second
	pauseWindow  = time.Millisecond       // over which the rate is taken
	fullMessages = 32                     // a receive that brought so many messages,
	fullBytes    = 32 << 10               // or so many bytes, needs no help
)

// moderation decides when a reader should wait a moment before it receives again: when much arrives, but little at a time. Waiting lets
// the next batch grow, which costs a little latency and saves about a fifth of the CPU time of receiving. Slow links, request and answer, and peers
// that send in batches never meet the condition.
type moderation struct {
	start    time.Time // of the window
	bytes    int       // in the window so far
	fast     bool      // what the last whole window said
	meagre   bool      // what the last receive said
	disabled bool
}

// received notes what one receive brought.
func (m *moderation) received(messages, bytes int) {
	m.bytes += bytes
	m.meagre = messages < fullMessages && bytes < fullBytes
}

// pause returns how long to wait before the next receive.
func (m *moderation) pause(now time.Time) time.Duration {
	if m.disabled {
		return 0
	}
	if elapsed := now.Sub(m.start); elapsed >= pauseWindow {
		m.fast = float64(m.bytes) > pauseAbove*elapsed.Seconds()
		m.start, m.bytes = now, 0
	}
	if m.fast && m.meagre {
		return pauseLength
	}
	return 0
}
