package proxy

import (
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

// A relay moves bytes both ways between two connections.
type relay struct {
	server *Server
	a, b   net.Conn
	moved  atomic.Int64 // bytes, both ways

	mu   sync.Mutex
	idle *time.Timer
}

// relay copies between client and target until both directions have ended, and
// closes both. ahead was read from the client already and goes first. The end
// of one direction is passed on as a half-close, a failure as a reset.
func (s *Server) relay(client net.Conn, ahead []byte, target net.Conn) {
	r := &relay{server: s, a: client, b: target}
	r.watch(s.config.IdleTimeout)
	up := make(chan struct{})
	defer func() {
		r.close()
		<-up
	}()
	go func() {
		defer close(up)
		defer s.rescue()
		r.forward(target, client, ahead, &s.count.bytesUp)
	}()
	r.forward(client, target, nil, &s.count.bytesDown)
	<-up
}

// forward is one direction.
func (r *relay) forward(dst, src net.Conn, ahead []byte, count *atomic.Int64) {
	way := way{relay: r, dst: dst, src: src, count: count}
	if len(ahead) > 0 {
		way.Write(ahead)
	}
	if way.writeErr == nil {
		way.copy()
	}
	switch {
	case way.writeErr != nil:
		// dst takes no more, but what it said before, such as why, may still
		// be on its way to src.
		dst.SetReadDeadline(time.Now().Add(lastWords))
	case way.readErr != nil:
		// Half of something must not look like the whole of it.
		reset(r.a)
		reset(r.b)
	default:
		closeWrite(dst)
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
			r.a.Close()
			r.b.Close()
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
	r.a.Close()
	r.b.Close()
}

// A way is one direction of a relay. It is the Writer and the Reader that
// connections with copy loops of their own are given: it counts, and keeps
// read and write errors apart.
type way struct {
	relay             *relay
	dst, src          net.Conn
	count             *atomic.Int64
	readErr, writeErr error
}

// copy moves bytes from src to dst until either fails or src ends. A
// connection that is no kernel socket may know how to copy without a buffer of
// ours (io.WriterTo, io.ReaderFrom); a socket's own way is no better than ours.
func (w *way) copy() {
	if from, ok := w.src.(io.WriterTo); ok && !isSocket(w.src) {
		_, err := from.WriteTo(writeOnly{w})
		if w.writeErr == nil {
			w.readErr = err
		}
		return
	}
	if to, ok := w.dst.(io.ReaderFrom); ok && !isSocket(w.dst) {
		_, err := to.ReadFrom(readOnly{w})
		if w.readErr == nil {
			w.writeErr = err
		}
		return
	}
	from := newSource(w.src, &w.relay.server.buffers)
	for w.writeErr == nil {
		data, err := from.next()
		if len(data) > 0 {
			w.Write(data)
		}
		from.release()
		if err != nil {
			if err != io.EOF {
				w.readErr = err
			}
			return
		}
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

// Read reads from src.
func (w *way) Read(p []byte) (int, error) {
	n, err := w.src.Read(p)
	w.relay.moved.Add(int64(n))
	w.count.Add(int64(n))
	if err != nil && err != io.EOF {
		w.readErr = err
	}
	return n, err
}

type (
	writeOnly struct{ io.Writer }
	readOnly  struct{ io.Reader }
)

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
	s.buffers.put(s.buf)
	s.buf = nil
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
