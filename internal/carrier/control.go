package carrier

import (
	"io"
	"sync"
	"time"

	"gateway/tunnel/pptp"
)

// A TCPConn is the TCP connection of a PPTP control connection. A net.Conn is one.
type TCPConn interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

const (
	// controlWriteTimeout bounds a write, which happens on the loop's goroutine.
	// Control messages are few and small: only a peer that has long stopped
	// reading lets a send buffer fill up.
	controlWriteTimeout = time.Second
	// controlReadSize is how many bytes of the control stream are on their way to
	// the loop at most; a message has 220 at most (RFC 2637 section 2).
	controlReadSize = 1024
)

// controls are the TCP connections of an engine.
type controls struct {
	open    map[*control]bool
	readers sync.WaitGroup
}

func newControls() controls { return controls{open: make(map[*control]bool)} }

// A control is one TCP connection. To the PPTP endpoint it is where control
// messages are written (io.Writer), and who hears of the connection
// (pptp.ConnectionHandler): it closes the TCP connection with it.
type control struct {
	pptp.ConnectionHandler
	controls *controls
	tcp      TCPConn
}

// start has begin make the connection, and its stream read.
func (c *controls) start(loop *Loop, tcp TCPConn, h pptp.ConnectionHandler, begin func(*control) *pptp.Connection) {
	k := &control{ConnectionHandler: h, controls: c, tcp: tcp}
	c.open[k] = true
	connection := begin(k)
	if c.open[k] { // it may have ended already
		c.readers.Go(func() { k.read(loop, connection) })
	}
}

// Write writes control messages.
func (k *control) Write(b []byte) (int, error) {
	if err := k.tcp.SetWriteDeadline(time.Now().Add(controlWriteTimeout)); err != nil {
		return 0, err
	}
	return k.tcp.Write(b)
}

// ConnectionDown closes the TCP connection, which ends its reader.
func (k *control) ConnectionDown(now time.Time, err error) {
	k.tcp.Close()
	delete(k.controls.open, k)
	k.ConnectionHandler.ConnectionDown(now, err)
}

// read hands what comes over the TCP connection to the loop, piece by piece:
// the next is read when the loop has taken the last.
func (k *control) read(loop *Loop, connection *pptp.Connection) {
	b := make([]byte, controlReadSize)
	taken := make(chan struct{}, 1)
	for {
		n, err := k.tcp.Read(b)
		if n > 0 {
			ok := loop.Do(func(now time.Time) {
				connection.ReceiveControl(now, b[:n])
				taken <- struct{}{}
			})
			if !ok {
				return
			}
			select {
			case <-taken:
			case <-loop.Done():
				return
			}
		}
		if err != nil {
			loop.Do(func(now time.Time) { connection.ControlClosed(now, err) })
			return
		}
	}
}

// release closes all and waits for the readers.
func (c *controls) release() {
	for k := range c.open {
		k.tcp.Close()
	}
	clear(c.open)
	c.readers.Wait()
}
