package proxy

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

func TestWorkersKeepSomeGoroutinesAndGiveThemUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorkers(ctx.Done())
		const many = 2 * maxIdleWorkers
		var running sync.WaitGroup
		end := make(chan struct{})
		for range many { // none waits for another
			running.Add(1)
			w.run(func() {
				running.Done()
				<-end
			})
		}
		running.Wait()
		close(end)
		synctest.Wait()
		expect := func(about string, want int32) {
			t.Helper()
			synctest.Wait()
			if got := w.idle.Load(); got != want {
				t.Errorf("%s: %d idle workers, want %d", about, got, want)
			}
		}
		expect("after a burst", maxIdleWorkers)
		again := make(chan struct{})
		w.run(func() { <-again })
		expect("one works", maxIdleWorkers-1)
		w.trim()
		expect("after trim", 0)
		close(again)
		expect("the one has ended its work", 1)
		cancel() // and synctest.Test finds a goroutine that is left
	})
}

func TestZeroWorkersKeepNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		done := make(chan struct{})
		w.run(func() { close(done) })
		<-done
	})
}
