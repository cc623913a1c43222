package proxy

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// A copy reads into a small buffer until the data come faster than that,
	// so that idle and chatty connections cost little memory and a bulk
	// transfer few system calls.
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10

	// lastWords is how long a peer that takes no more bytes may still send
	// some. Its reset is on the way already.
	lastWords = 10 * time.Second

	// idleTicks is how often within an idle limit a relay looks for movement.
	idleTicks = 4
)

type buffers struct {
	small, large sync.Pool // of *[]byte
}

// get returns a buffer for the next read, given the length of the last one.
func (b *buffers) get(last int) *[]byte {
	pool, size := &b.small, smallBuffer
	if last >= smallBuffer {
		pool, size = &b.large, largeBuffer
	}
	if buf, ok := pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, size)
	return &buf
}

func (b *buffers) put(buf *[]byte) {
	if len(*buf) == largeBuffer {
		b.large.Put(buf)
	} else {
		b.small.Put(buf)
	}
}

// A relay moves bytes both ways between a client and a target. The way up
// begins before there is a target, so that the client is watched while it waits.
type relay struct {
	server         *Server
	client, target net.Conn
	up, down       way
	moved          atomic.Int64 // bytes, both ways
	finished       atomic.Int32 // ways whose end was said by their source

	left      func()        // called when the client ends before there is a target
	decided   chan struct{} // closed when target is set, or there will be none
	isDecided bool          // only run and abandon use it
	upEnded   chan struct{} // closed when the way up has ended

	mu   sync.Mutex
	idle *time.Timer
}

// startRelay reads from a client whose target is still being dialled. It holds
// the first piece back until run, and calls left if the client's stream ends
// before it has sent any: one that has sent something waits for the answer.
// ahead was read from the client already. The caller calls run or abandon.
func (a *acceptLoop) startRelay(client net.Conn, ahead []byte, left func()) *relay {
	s := a.server
	r := &relay{server: s, client: client, left: left, decided: make(chan struct{}), upEnded: make(chan struct{})}
	r.up = way{relay: r, src: client, count: &s.count.bytesUp}
	r.down = way{relay: r, dst: client, count: &s.count.bytesDown}
	a.workers.run(func() {
		defer close(r.upEnded)
		defer s.rescue()
		r.goUp(ahead)
	})
	return r
}

// run copies until both directions have ended, and closes client and target.
// The end of one direction is passed on as a half-close, a failure as a reset.
// When ctx is done it closes both at once: a client that has said all is not
// read from any more, and would not be missed.
func (r *relay) run(ctx context.Context, target net.Conn) {
	r.target, r.up.dst, r.down.src = target, target, target
	r.watch(r.server.config.IdleTimeout)
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	r.isDecided = true
	close(r.decided)
	defer func() {
		r.close()
		<-r.upEnded
	}()
	r.down.copy()
	r.pass(&r.down)
	<-r.upEnded
}

// abandon ends the way up, since there will be no target, and leaves the client
// open. After run it does nothing.
func (r *relay) abandon() {
	if r.isDecided {
		return
	}
	r.isDecided = true
	close(r.decided)
	r.client.SetReadDeadline(time.Unix(1, 0))
	<-r.upEnded
	r.client.SetReadDeadline(time.Time{})
}

// goUp is the way up, of which the first piece may have been read already.
func (r *relay) goUp(first []byte) {
	from := newSource(r.client, &r.server.buffers)
	var err error
	if len(first) == 0 {
		if first, err = from.next(); len(first) == 0 {
			r.left()
		}
	}
	<-r.decided
	if r.target == nil {
		from.release()
		return
	}
	r.up.copyPieces(from, first, err)
	r.pass(&r.up)
}

// pass tells the other side how a direction has ended.
func (r *relay) pass(w *way) {
	switch {
	case w.writeErr != nil:
		// dst takes no more, but what it said before, such as why, may still
		// be on its way to src.
		w.dst.SetReadDeadline(time.Now().Add(lastWords))
	case w.readErr != nil:
		// Half of something must not look like the whole of it.
		reset(r.client)
		reset(r.target)
	case r.finished.Add(1) == 1:
		closeWrite(w.dst)
	default: // nothing is left to come, and closing says the same
	}
}

// watch closes both connections when nothing has moved for idle. It looks
// idleTicks times in that time, so that moving bytes costs no look at the clock.
func (r *relay) watch(idle time.Duration) {
	if idle <= 0 {
		return
	}
	seen, quiet := int64(0), 0
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = time.AfterFunc(idle/idleTicks, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		quiet++
		if moved := r.moved.Load(); moved != seen {
			seen, quiet = moved, 0
		}
		if quiet == idleTicks {
			r.client.Close()
			r.target.Close()
			return
		}
		r.idle.Reset(idle / idleTicks)
	})
}

func (r *relay) close() {
	r.mu.Lock()
	if r.idle != nil {
		r.idle.Stop()
	}
	r.mu.Unlock()
	r.client.Close()
	r.target.Close()
}

// A way is one direction of a relay. It is the Writer that connections with
// copy loops of their own are given: it counts, and keeps read and write errors
// apart.
type way struct {
	relay             *relay
	dst, src          net.Conn
	count             *atomic.Int64
	readErr, writeErr error
}

// copy moves bytes from src to dst until either fails or src ends. A source
// that is no kernel socket may know how to copy without a buffer of ours
// (io.WriterTo); a socket's own way is no better than ours.
func (w *way) copy() {
	if from, ok := w.src.(io.WriterTo); ok && !isSocket(w.src) {
		_, err := from.WriteTo(writeOnly{w})
		if w.writeErr == nil {
			w.readErr = err
		}
		return
	}
	from := newSource(w.src, &w.relay.server.buffers)
	data, err := from.next()
	w.copyPieces(from, data, err)
}

// copyPieces copies from a source whose first next has returned data and err.
func (w *way) copyPieces(from source, data []byte, err error) {
	for {
		if len(data) > 0 {
			w.Write(data)
		}
		from.release()
		if w.writeErr != nil {
			return
		}
		if err != nil {
			if err != io.EOF {
				w.readErr = err
			}
			return
		}
		data, err = from.next()
	}
}

// isSocket reports whether conn is the kernel's.
func isSocket(conn net.Conn) bool {
	_, ok := conn.(syscall.Conn)
	return ok
}

// Write writes to dst.
func (w *way) Write(p []byte) (int, error) {
	n, err := w.dst.Write(p)
	w.relay.moved.Add(int64(n))
	w.count.Add(int64(n))
	if err != nil {
		w.writeErr = err
	}
	return n, err
}

type writeOnly struct{ io.Writer }

// A source is the reading end of a copy loop. What next returns is valid until
// release.
type source interface {
	next() ([]byte, error)
	release()
}

// A connSource reads from any connection. It must hold a buffer while it waits.
type connSource struct {
	conn    net.Conn
	buffers *buffers
	buf     *[]byte
	last    int
}

func (s *connSource) next() ([]byte, error) {
	s.buf = s.buffers.get(s.last)
	n, err := s.conn.Read(*s.buf)
	s.last = n
	return (*s.buf)[:n], err
}

func (s *connSource) release() {
	if s.buf != nil {
		s.buffers.put(s.buf)
		s.buf = nil
	}
}

// closeWrite passes on the end of a direction. A connection that cannot be
// half-closed is closed: better than a peer that waits for ever.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}

// reset closes conn such that its peer sees a failure rather than an end.
func reset(conn net.Conn) {
	if lingerer, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		lingerer.SetLinger(0)
	}
	conn.Close()
}

// lingeringClose ends a connection such that the peer gets what was written
// last: closing with unread bytes would send a reset, which overtakes it.
func lingeringClose(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		io.CopyN(io.Discard, conn, largeBuffer)
	}
	conn.Close()
}
