package carrier

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/gre"
	"gateway/tunnel/pptp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

// A speaker is one end of PPTP in this process, with its loop.
type speaker struct {
	engine *PPTP
	loop   *Loop
	link   *gre.Link
	up     chan struct{}
	down   chan error
}

func newSpeaker(t *testing.T, n *gre.Network) *speaker {
	s := &speaker{link: n.Open(loopback), up: make(chan struct{}, 1), down: make(chan error, 1)}
	s.engine = NewPPTP(pptp.Config{}, s.link)
	s.loop = NewLoop(s.link, s.engine)
	go func() {
		s.loop.Run()
		s.engine.Release()
	}()
	t.Cleanup(s.stop)
	return s
}

// stop ends the loop without a word to the peer.
func (s *speaker) stop() {
	s.link.Close()
	<-s.loop.Done()
}

func (s *speaker) ConnectionUp(time.Time, *pptp.Connection) { s.up <- struct{}{} }
func (s *speaker) ConnectionDown(_ time.Time, err error)    { s.down <- err }
func (s *speaker) AcceptCall(time.Time, *pptp.Call) (pptp.CallHandler, error) {
	return nil, errors.New("no call is expected")
}

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (dialed, accepted net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if dialed, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

// A slowConn is read a byte at a time.
type slowConn struct{ net.Conn }

func (c slowConn) Read(b []byte) (int, error) { return c.Conn.Read(b[:1]) }

// RFC 2637 section 2: messages are found in a stream, however TCP cuts it.
func TestControlStreamReachesTheLoopInOrder(t *testing.T) {
	n := gre.NewNetwork()
	pns, pac := newSpeaker(t, n), newSpeaker(t, n)
	dialed, accepted := tcpPair(t)
	pac.loop.Do(func(now time.Time) { pac.engine.Accept(now, pac.loop, loopback, slowConn{accepted}, pac) })
	pns.loop.Do(func(now time.Time) { pns.engine.Dial(now, pns.loop, loopback, slowConn{dialed}, pns) })
	<-pac.up
	<-pns.up
	pns.loop.Do(func(now time.Time) { pns.engine.Endpoint().Close(now) })
	if err := <-pns.down; !errors.Is(err, pptp.ErrClosed) {
		t.Errorf("PNS: %v", err)
	}
	if err := <-pac.down; !errors.As(err, new(*pptp.PeerError)) {
		t.Errorf("PAC: %v", err)
	}
	if _, err := dialed.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the TCP connection is not closed: %v", err)
	}
}

// A peer that goes away ends the connection; a loop that ends closes its TCP connections.
func TestEndOfOneLoopEndsTheOthersConnection(t *testing.T) {
	n := gre.NewNetwork()
	pns, pac := newSpeaker(t, n), newSpeaker(t, n)
	dialed, accepted := tcpPair(t)
	pac.loop.Do(func(now time.Time) { pac.engine.Accept(now, pac.loop, loopback, accepted, pac) })
	pns.loop.Do(func(now time.Time) { pns.engine.Dial(now, pns.loop, loopback, dialed, pns) })
	<-pns.up
	pac.stop()
	var lost *pptp.LocalError
	if err := <-pns.down; !errors.As(err, &lost) || lost.Kind != pptp.ConnectionLost || !lost.WasUp {
		t.Errorf("got %v", err)
	}
}

// A stuckConn takes no byte until its write deadline.
type stuckConn struct {
	bytes.Buffer
	deadline time.Time
	closed   bool
}

func (c *stuckConn) SetWriteDeadline(t time.Time) error { c.deadline = t; return nil }
func (c *stuckConn) Close() error                       { c.closed = true; return nil }
func (c *stuckConn) Write([]byte) (int, error) {
	if c.deadline.IsZero() {
		return 0, io.ErrShortWrite // for ever, that is
	}
	return 0, os.ErrDeadlineExceeded
}

// A peer that does not read cannot hold up the loop, and there is nothing to read then.
func TestControlMessageThatCannotBeWrittenEndsTheConnection(t *testing.T) {
	n := gre.NewNetwork()
	pns := newSpeaker(t, n)
	stuck := new(stuckConn)
	pns.loop.Do(func(now time.Time) { pns.engine.Dial(now, pns.loop, loopback, stuck, pns) })
	if err := <-pns.down; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	pns.stop()
	if !stuck.closed {
		t.Error("the TCP connection is not closed")
	}
}
