package proxy

import "sync/atomic"

// maxIdleWorkers bounds the goroutines that are kept.
const maxIdleWorkers = 16

// workers run functions on goroutines that are kept for the next function: to
// grow the stack of a fresh goroutine to what dialling and sending need costs a
// short connection more than anything else that is done for it here. The zero
// value keeps none.
type workers struct {
	next chan func()     // nil ends the worker
	done <-chan struct{} // ends those that are idle
	idle atomic.Int32
}

func newWorkers(done <-chan struct{}) *workers {
	return &workers{next: make(chan func()), done: done}
}

// run has f called on a goroutine of its own. f must not panic.
func (w *workers) run(f func()) {
	select {
	case w.next <- f:
	default:
		go w.work(f)
	}
}

// work calls f and then others, for as long as it is not one idle worker too many.
func (w *workers) work(f func()) {
	for {
		f()
		f = nil // what it holds may be much
		if w.next == nil {
			return
		}
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case f = <-w.next:
			w.idle.Add(-1)
			if f == nil {
				return
			}
		case <-w.done:
			return
		}
	}
}

// trim ends the idle workers.
func (w *workers) trim() {
	for {
		select {
		case w.next <- nil:
		default:
			return
		}
	}
}
