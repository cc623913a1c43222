package stack

import (
	"sync"
	"time"
)

const (
	// sendBudget bytes are shared by the send buffers of those TCP connections that wait for room in theirs: alone, one may fill a long
	// fat path; of many at once, big buffers would only cost memory and let those that came first keep what they have.
	sendBudget = 16 << 20
	// sendWindow is how long a writer that has waited counts.
	sendWindow = time.Second
)

// A sendShare sets how far send buffers may grow by how many writers wait for room at the same time. Connections that are idle, or
// whose client is slower than the path, do not wait and do not count. gVisor asks for the limit whenever a buffer has become half
// empty.
type sendShare struct {
	most, least int            // bytes of one connection
	apply       func(size int) // makes it gVisor's limit

	mu      sync.Mutex
	size    int // as applied
	waiting int
	start   time.Time // of the window
	peak    int       // most writers that waited at once in this window,
	before  int       // and in the one before
}

func newSendShare(most, least int, apply func(size int)) *sendShare {
	return &sendShare{most: most, least: least, apply: apply, size: most}
}

// begin and end enclose a writer's wait.
func (b *sendShare) begin(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	switch age := now.Sub(b.start); {
	case age >= 2*sendWindow:
		b.start, b.before, b.peak = now, 0, 0
	case age >= sendWindow:
		b.start, b.before, b.peak = now, b.peak, 0
	}
	b.peak = max(b.peak, b.waiting)
	b.share(max(b.peak, b.before))
}

func (b *sendShare) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
}

// share halves the size until so many writers keep to the budget.
func (b *sendShare) share(writers int) {
	size := b.most
	for size > b.least && writers*size > sendBudget {
		size /= 2
	}
	if size = max(size, b.least); size != b.size {
		b.size = size
		b.apply(size)
	}
}
