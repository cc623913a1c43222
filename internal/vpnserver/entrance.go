package vpnserver

import (
	"context"
	"log/slog"
	"time"

	"gateway/internal/carrier"
)

// An entrance is where the clients of one protocol come in: a socket, the loop
// that reads it, and the protocol's endpoint. An lns, a secureLNS and a pac
// have one each.
type entrance struct {
	loop     *carrier.Loop
	endpoint endpoint
	leave    func(now time.Time) // sends the last words, to which there is no answer; may be nil
	shut     func()              // closes the sockets, which ends the loop; any goroutine
	release  func()              // lets go of what the loop's end leaves; may be nil
	done     chan struct{}
}

// endpoint is what both protocols' endpoints have. It belongs to the loop's goroutine.
type endpoint interface {
	// Close says goodbye to every client.
	Close(now time.Time) (next time.Time)
	// Idle reports whether all have answered.
	Idle() bool
}

// run is the goroutine of the loop.
func (e *entrance) run(log *slog.Logger) {
	defer close(e.done)
	if err := e.loop.Run(); err != nil {
		log.Error("server ended", "cause", err)
	}
	if e.release != nil {
		e.release()
	}
}

// close says goodbye to all clients and waits until ctx ends for their answers.
func (e *entrance) close(ctx context.Context) error {
	idle := make(chan struct{})
	e.loop.Do(func(now time.Time) {
		e.endpoint.Close(now)
		e.closeWhenIdle(now, idle)
	})
	select {
	case <-idle:
	case <-e.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// closeWhenIdle closes idle when every client has acknowledged its end.
func (e *entrance) closeWhenIdle(now time.Time, idle chan struct{}) {
	const pollEvery = 10 * time.Millisecond
	if e.endpoint.Idle() {
		if e.leave != nil {
			e.leave(now)
		}
		close(idle)
		return
	}
	time.AfterFunc(pollEvery, func() { e.loop.Do(func(now time.Time) { e.closeWhenIdle(now, idle) }) })
}

func (e *entrance) kill() {
	e.shut()
	<-e.done
}
