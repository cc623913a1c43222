package carrier

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/udpbatch"
)

// A fakeSocket gives what the test puts into it.
type fakeSocket struct {
	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline changes
	incoming chan any      // []udpbatch.Message or error
}

func newFakeSocket() *fakeSocket {
	return &fakeSocket{moved: make(chan struct{}), incoming: make(chan any, 10)}
}

func (s *fakeSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	close(s.moved)
	s.moved = make(chan struct{})
	return nil
}

func (s *fakeSocket) Read() ([]udpbatch.Message, error) {
	for {
		s.mu.Lock()
		deadline, moved := s.deadline, s.moved
		s.mu.Unlock()
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			timeout = time.After(time.Until(deadline))
		}
		select {
		case in := <-s.incoming:
			if err, ok := in.(error); ok {
				return nil, err
			}
			return in.([]udpbatch.Message), nil
		case <-moved:
		case <-timeout:
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// A fakeEngine has a deadline every ten seconds and notes what happens.
type fakeEngine struct {
	start, next time.Time
	ticks       []time.Duration
	received    int
}

func (e *fakeEngine) Receive(_ time.Time, _ netip.AddrPort, datagrams [][]byte) time.Time {
	e.received += len(datagrams)
	return e.next
}

func (e *fakeEngine) Advance(now time.Time) time.Time {
	if !now.Before(e.next) {
		e.ticks = append(e.ticks, now.Sub(e.start))
		e.next = now.Add(10 * time.Second)
	}
	return e.next
}

func startLoop(t *testing.T) (*Loop, *fakeSocket, *fakeEngine, func()) {
	socket := newFakeSocket()
	engine := &fakeEngine{start: time.Now(), next: time.Now().Add(10 * time.Second)}
	loop := NewLoop(socket, engine)
	ended := make(chan error, 1)
	go func() { ended <- loop.Run() }()
	return loop, socket, engine, func() {
		socket.incoming <- net.ErrClosed
		if err := <-ended; err != nil {
			t.Errorf("the loop ended with %v", err)
		}
	}
}

func TestDeadlinesAreMetWhateverElseHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, socket, engine, end := startLoop(t)
		for i := range 25 { // a datagram or a command each second
			time.Sleep(time.Second)
			if i%2 == 0 {
				socket.incoming <- []udpbatch.Message{{Datagrams: [][]byte{{1}, {2}}}}
			} else {
				loop.Do(func(time.Time) {})
			}
			synctest.Wait()
		}
		end()
		if len(engine.ticks) != 2 || engine.ticks[0] != 10*time.Second || engine.ticks[1] != 20*time.Second {
			t.Errorf("deadlines met at %v", engine.ticks)
		}
		if engine.received != 26 {
			t.Errorf("%d datagrams received", engine.received)
		}
	})
}

func TestCommandsRunAtOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, _, _, end := startLoop(t)
		start := time.Now()
		var order []int
		for i := range 5 {
			if !loop.Do(func(now time.Time) {
				if now != start {
					t.Errorf("command %d ran after %v", i, now.Sub(start))
				}
				order = append(order, i)
			}) {
				t.Error("refused")
			}
		}
		synctest.Wait()
		if len(order) != 5 || order[0] != 0 || order[4] != 4 {
			t.Errorf("order %v", order)
		}
		end()
		if loop.Do(func(time.Time) { t.Error("ran after the end") }) {
			t.Error("accepted after the end")
		}
	})
}

func TestErrorsOfTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, socket, engine, end := startLoop(t)
		told := 0
		loop.Do(func(time.Time) {}) // before it, OnPeerError may not be set: Run is running
		synctest.Wait()
		socket.incoming <- &udpbatch.PeerError{Err: syscall.ECONNREFUSED} // nobody listens for it
		synctest.Wait()
		end()

		other := NewLoop(socket, engine)
		other.OnPeerError = func(_ time.Time, err *udpbatch.PeerError) { told++ }
		ended := make(chan error, 1)
		go func() { ended <- other.Run() }()
		socket.incoming <- &udpbatch.PeerError{Err: syscall.ECONNREFUSED}
		broken := errors.New("broken")
		socket.incoming <- broken
		if err := <-ended; !errors.Is(err, broken) || told != 1 {
			t.Errorf("ended with %v, told of %d errors", err, told)
		}
	})
}

func TestEarliest(t *testing.T) {
	var never time.Time
	soon, late := time.Unix(1, 0), time.Unix(2, 0)
	for _, test := range []struct{ a, b, want time.Time }{
		{never, never, never}, {never, soon, soon}, {soon, never, soon}, {soon, late, soon}, {late, soon, soon},
	} {
		if got := Earliest(test.a, test.b); got != test.want {
			t.Errorf("Earliest(%v, %v) = %v", test.a, test.b, got)
		}
	}
}
