package stack

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var (
	addrA   = netip.MustParseAddr("10.88.0.2")
	addrB   = netip.MustParseAddr("10.88.0.1")
	iidA    = [8]byte{0, 0, 0, 0, 0, 0, 0, 0xa}
	iidB    = [8]byte{0, 0, 0, 0, 0, 0, 0, 0xb}
	globalA = netip.MustParseAddr("fd88::a")
	globalB = netip.MustParseAddr("fd88::1")
)

// A wire carries packets one way: written on one stack, handed to another by a goroutine, in batches.
type wire struct {
	mu       sync.Mutex
	more     sync.Cond
	queue    [][]byte
	free     [][]byte
	closed   bool
	fate     func(packet []byte) (copies int, late bool) // nil: one copy, in order
	held     []byte                                      // a late packet, to follow the next one
	to       func(packets [][]byte)
	stopped  chan struct{}
	headroom int
	tailroom int
	tap      func(packet []byte) // sees each packet before its fate
	delay    time.Duration       // how long packets are under way
}

func newWire() *wire {
	w := &wire{stopped: make(chan struct{}), headroom: 29, tailroom: 7}
	w.more.L = &w.mu
	return w
}

func (w *wire) Headroom() int { return w.headroom }
func (w *wire) Tailroom() int { return w.tailroom }

// WritePackets copies, and scribbles over the borrowed buffers as a link that encrypts in place would.
func (w *wire) WritePackets(packets [][]byte, offset int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, buffer := range packets {
		if offset < w.headroom || cap(buffer)-len(buffer) < w.tailroom {
			panic("no room around the packet")
		}
		packet := buffer[offset:]
		if w.tap != nil {
			w.tap(packet)
		}
		copies, late := 1, false
		if w.fate != nil {
			copies, late = w.fate(packet)
		}
		for range copies {
			if late && w.held == nil {
				w.held = append([]byte(nil), packet...)
				time.AfterFunc(time.Millisecond, w.release)
				continue
			}
			w.pushLocked(packet)
			if w.held != nil {
				w.queue = append(w.queue, w.held)
				w.held = nil
			}
		}
		whole := buffer[:cap(buffer)]
		whole[0], whole[len(whole)-1] = 0xaa, 0xaa
	}
	w.more.Signal()
	return nil
}

// release lets a late packet go that no other has followed. Otherwise the answer to it would take as long as the sender's patience lasts,
// and the longer answers take, the more patient TCP gets.
func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		w.queue = append(w.queue, w.held)
		w.held = nil
		w.more.Signal()
	}
}

func (w *wire) pushLocked(packet []byte) {
	var b []byte
	if n := len(w.free); n > 0 {
		b, w.free = w.free[n-1][:0], w.free[:n-1]
	}
	w.queue = append(w.queue, append(b, packet...))
}

func (w *wire) run() {
	defer close(w.stopped)
	var batch [][]byte
	for {
		w.mu.Lock()
		w.free = append(w.free, batch...)
		for len(w.queue) == 0 && !w.closed {
			w.more.Wait()
		}
		if w.closed {
			w.mu.Unlock()
			return
		}
		n := min(len(w.queue), 64)
		batch = append(batch[:0], w.queue[:n]...)
		w.queue = append(w.queue[:0], w.queue[n:]...)
		w.mu.Unlock()
		if w.delay > 0 {
			w.deliverLater(batch)
			batch = nil
			continue
		}
		w.to(batch)
	}
}

func (w *wire) deliverLater(batch [][]byte) {
	time.AfterFunc(w.delay, func() { w.to(batch) })
}

func (w *wire) stop() {
	w.mu.Lock()
	w.closed = true
	w.more.Signal()
	w.mu.Unlock()
	<-w.stopped
}

// lossy drops, doubles and reorders one packet in twenty each, the same ones in every run.
func lossy(seed uint64) func([]byte) (int, bool) {
	r := rand.New(rand.NewPCG(seed, 1))
	return func([]byte) (int, bool) {
		switch n := r.IntN(100); {
		case n < 5:
			return 0, false
		case n < 10:
			return 2, false
		case n < 15:
			return 1, true
		}
		return 1, false
	}
}

// pair makes two stacks joined by two wires and takes them down at the end of the test.
func pair(t testing.TB, a, b Config, prepare func(ab, ba *wire)) (*Stack, *Stack) {
	t.Helper()
	ab, ba := newWire(), newWire()
	if prepare != nil {
		prepare(ab, ba)
	}
	sa, err := New(a, ab)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := New(b, ba)
	if err != nil {
		t.Fatal(err)
	}
	ab.to, ba.to = sb.HandlePackets, sa.HandlePackets
	go ab.run()
	go ba.run()
	t.Cleanup(func() {
		sa.Close(nil)
		sb.Close(nil)
		ab.stop()
		ba.stop()
	})
	return sa, sb
}

func configA() Config { return Config{IPv4: addrA, Peer4: addrB} }
func configB() Config { return Config{IPv4: addrB, Peer4: addrA} }

// dualA and dualB have global IPv6 addresses too.
func dualA() Config { c := configA(); c.Addresses = []netip.Addr{globalA}; return c }
func dualB() Config { c := configB(); c.Addresses = []netip.Addr{globalB}; return c }
