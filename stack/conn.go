package stack

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	keepaliveProbes = 4

	// A relay copies in pieces of relayBuffer bytes. While a source has little to say it is read into relayIdle bytes, so that idle
	// connections do not pin big buffers.
	relayBuffer = 256 << 10
	relayIdle   = 4 << 10
)

var relayBuffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// An endpoint is what TCP and UDP connections share: a gVisor endpoint, its wake-ups, its deadlines and its end.
type endpoint struct {
	stack    *Stack
	ep       tcpip.Endpoint
	queue    *waiter.Queue
	readable chan struct{} // one token when there may be something to read
	writable chan struct{} // one token when there may be room to write

	readEntry, writeEntry       waiter.Entry
	readDeadline, writeDeadline deadline

	closeOnce sync.Once
	closed    chan struct{} // closed by Close
}

func (e *endpoint) init(s *Stack, ep tcpip.Endpoint, queue *waiter.Queue) {
	e.stack, e.ep, e.queue = s, ep, queue
	e.closed = make(chan struct{})
	e.readEntry, e.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	e.writeEntry, e.writable = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&e.readEntry)
	queue.EventRegister(&e.writeEntry)
}

// wait blocks until a token, the deadline, Close or the end of the stack, and says which by its error.
func (e *endpoint) wait(token <-chan struct{}, d *deadline) error {
	if err := e.check(d); err != nil {
		return err
	}
	select {
	case <-token:
		return nil
	case <-d.expired():
	case <-e.closed:
	case <-e.stack.done:
	}
	return e.check(d)
}

// check returns why a call may not begin or go on.
func (e *endpoint) check(d *deadline) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	case <-e.stack.done:
		return e.stack.err
	default:
	}
	if d.passed() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (e *endpoint) close() error {
	err := error(net.ErrClosed)
	e.closeOnce.Do(func() {
		err = nil
		close(e.closed)
		e.queue.EventUnregister(&e.readEntry)
		e.queue.EventUnregister(&e.writeEntry)
		e.ep.Close()
		e.readDeadline.set(time.Time{})
		e.writeDeadline.set(time.Time{})
	})
	return err
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are as in net.Conn.
func (e *endpoint) SetDeadline(t time.Time) error {
	e.readDeadline.set(t)
	e.writeDeadline.set(t)
	return nil
}

func (e *endpoint) SetReadDeadline(t time.Time) error {
	e.readDeadline.set(t)
	return nil
}

func (e *endpoint) SetWriteDeadline(t time.Time) error {
	e.writeDeadline.set(t)
	return nil
}

// A deadline is a channel that closes at a time that can be changed. Its zero value never does.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{} // nil until it is first set or waited for
}

// passed reports whether the time has come.
func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.ch:
		return true
	default:
		return false
	}
}

func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ch == nil {
		d.ch = make(chan struct{})
	}
	return d.ch
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop() // if it is too late, the function below finds that it has been replaced
		d.timer = nil
	}
	select {
	case <-d.ch:
		d.ch = nil // expired: waiters have been woken
	default:
	}
	if t.IsZero() {
		return
	}
	if d.ch == nil {
		d.ch = make(chan struct{})
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.ch)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer {
			d.timer = nil
			close(d.ch)
		}
	})
	d.timer = timer
}

// A Conn is a TCP connection of the inner network. Beyond net.Conn it can be closed for writing alone, and copies itself with pooled
// buffers (io.WriterTo, io.ReaderFrom).
type Conn struct {
	endpoint
	local, remote *net.TCPAddr

	readMu sync.Mutex
	reader tcpip.SliceWriter // the caller's buffer of a Read, here so as not to be allocated for each

	writeMu sync.Mutex
	retry   *time.Timer   // of waitWritable; nil until it is needed
	writer  *bytes.Reader // the caller's bytes of a Write, likewise; by itself, since gVisor keeps it for all of TIME-WAIT
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
)

// newConn wraps a connected endpoint.
func (s *Stack) newConn(ep tcpip.Endpoint, queue *waiter.Queue) *Conn {
	c := s.newUnconnected(ep, queue)
	c.learnAddresses()
	return c
}

// newUnconnected wraps an endpoint that is to be connected.
func (s *Stack) newUnconnected(ep tcpip.Endpoint, queue *waiter.Queue) *Conn {
	c := &Conn{writer: new(bytes.Reader)}
	c.init(s, ep, queue)
	return c
}

func (c *Conn) learnAddresses() {
	local, _ := c.ep.GetLocalAddress()
	remote, _ := c.ep.GetRemoteAddress()
	c.local = net.TCPAddrFromAddrPort(addrPortOf(local))
	c.remote = net.TCPAddrFromAddrPort(addrPortOf(remote))
}

// setKeepalive makes TCP probe an idle connection, so that one whose far end is gone does not stay for ever.
func (s *Stack) setKeepalive(ep tcpip.Endpoint) {
	if s.config.Keepalive < 0 {
		return
	}
	idle := tcpip.KeepaliveIdleOption(s.config.Keepalive)
	interval := tcpip.KeepaliveIntervalOption(s.config.Keepalive / 2)
	_ = ep.SetSockOpt(&idle) // these never fail
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveProbes)
	ep.SocketOptions().SetKeepAlive(true)
}

func (c *Conn) opError(op string, err error) error {
	return c.stack.opError(op, "tcp", c.local, c.remote, err)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.check(&c.readDeadline); err != nil {
		return 0, c.opError("read", err)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err := c.tryRead(b)
		if _, empty := err.(*tcpip.ErrWouldBlock); !empty {
			if err != nil {
				return 0, c.opError("read", errnoOf(err))
			}
			return n, nil
		}
		if err := c.wait(c.readable, &c.readDeadline); err != nil {
			return 0, c.opError("read", err)
		}
	}
}

// tryRead reads what is there.
func (c *Conn) tryRead(b []byte) (int, tcpip.Error) {
	c.reader = b
	r, err := c.ep.Read(&c.reader, tcpip.ReadOptions{})
	c.reader = nil
	if err != nil {
		return 0, err
	}
	if e, ok := c.ep.(*tcp.Endpoint); ok {
		e.ModerateRecvBuf(r.Count)
	}
	return r.Count, nil
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.check(&c.writeDeadline); err != nil {
		return 0, c.opError("write", err)
	}
	c.writer.Reset(b)
	defer c.writer.Reset(nil)
	written := 0
	for written < len(b) {
		n, err := c.ep.Write(c.writer, tcpip.WriteOptions{})
		written += int(n)
		if n > 0 && written < len(b) {
			c.writer.Reset(b[written:]) // more may have been read from it than was taken
		}
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			c.writer.Reset(b[written:])
			if err := c.waitWritable(); err != nil {
				return written, c.opError("write", err)
			}
		default:
			return written, c.opError("write", errnoOf(err))
		}
	}
	return written, nil
}

// writeRetry is how long a writer waits to be woken. gVisor wakes it when the buffer's use falls from above to below half of its size,
// and misses that if the size was made much smaller meanwhile (sendbudget.go).
const writeRetry = 200 * time.Millisecond

// waitWritable returns when there may be room in the send buffer. The caller holds writeMu.
func (c *Conn) waitWritable() error {
	if err := c.check(&c.writeDeadline); err != nil {
		return err
	}
	c.stack.sendShare.begin(time.Now())
	defer c.stack.sendShare.end()
	if c.retry == nil {
		c.retry = time.NewTimer(writeRetry)
	} else {
		c.retry.Reset(writeRetry)
	}
	defer c.retry.Stop()
	select {
	case <-c.writable:
		return nil
	case <-c.retry.C:
	case <-c.writeDeadline.expired():
	case <-c.closed:
	case <-c.stack.done:
	}
	return c.check(&c.writeDeadline)
}

// WriteTo implements io.WriterTo: it copies what is received to w until the far end has finished. It holds no buffer while it waits.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := c.waitReadable(); err != nil {
			return total, c.opError("read", err)
		}
		n, err := c.drainTo(w)
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// waitReadable returns when a Read would not block.
func (c *Conn) waitReadable() error {
	for c.ep.Readiness(waiter.ReadableEvents|waiter.EventErr|waiter.EventHUp) == 0 {
		if err := c.wait(c.readable, &c.readDeadline); err != nil {
			return err
		}
	}
	return c.check(&c.readDeadline)
}

// drainTo copies until nothing is left to read at the moment.
func (c *Conn) drainTo(w io.Writer) (total int64, err error) {
	buffer := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buffer)
	for {
		n, err := c.Read(buffer[:])
		if n > 0 {
			m, err := w.Write(buffer[:n])
			total += int64(m)
			if err != nil {
				return total, err
			}
		}
		if err != nil || c.ep.Readiness(waiter.ReadableEvents) == 0 {
			return total, err
		}
	}
}

// ReadFrom implements io.ReaderFrom: it sends what r yields until its end.
func (c *Conn) ReadFrom(r io.Reader) (total int64, err error) {
	var idle [relayIdle]byte
	for {
		n, err := c.copyPiece(r, idle[:])
		total += int64(n)
		if err == nil && n == len(idle) {
			var m int64
			m, err = c.copyBurst(r)
			total += m
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// copyBurst copies with a big buffer for as long as a small one would not do.
func (c *Conn) copyBurst(r io.Reader) (total int64, err error) {
	buffer := relayBuffers.Get().(*[relayBuffer]byte)
	defer relayBuffers.Put(buffer)
	for {
		n, err := c.copyPiece(r, buffer[:])
		total += int64(n)
		if err != nil || n < relayIdle {
			return total, err
		}
	}
}

// copyPiece moves what one Read yields.
func (c *Conn) copyPiece(r io.Reader, buffer []byte) (int, error) {
	n, err := r.Read(buffer)
	if n > 0 {
		n, werr := c.Write(buffer[:n])
		if werr != nil {
			return n, werr
		}
	}
	return n, err
}

// Close implements net.Conn: data that was written is still sent.
func (c *Conn) Close() error {
	if err := c.close(); err != nil {
		return c.opError("close", err)
	}
	return nil
}

// CloseWrite tells the far end that nothing more will be sent.
func (c *Conn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

// CloseRead discards what is received from now on.
func (c *Conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

func (c *Conn) shutdown(how tcpip.ShutdownFlags) error {
	if err := c.check(new(deadline)); err != nil {
		return c.opError("close", err)
	}
	if err := c.ep.Shutdown(how); err != nil {
		return c.opError("close", errnoOf(err))
	}
	return nil
}

// SetLinger is as in net.TCPConn; with 0 Close resets the connection.
func (c *Conn) SetLinger(seconds int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: seconds >= 0, Timeout: time.Duration(seconds) * time.Second})
	return nil
}

// LocalAddr returns a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }
