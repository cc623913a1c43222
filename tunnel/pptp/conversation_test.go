package pptp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	pnsAddr = netip.MustParseAddr("192.0.2.1")
	pacAddr = netip.MustParseAddr("192.0.2.2")
)

// A node is one side of a conversation: its engine, what it has sent, and what it was told.
type node struct {
	*Endpoint
	address    netip.Addr
	connection *Connection
	broken     bool // its TCP connection cannot be written to

	stream  []byte   // control bytes on their way to the other side
	packets [][]byte // GRE packets on their way
	sent    int      // of all GRE packets

	events   []string
	frames   []string
	expected []uint16
	accept   error // what AcceptCall says
	onUp     func(now time.Time, c *Connection)
	calls    []*Call

	mu      sync.Mutex
	pending []func(now time.Time) // guarded by mu; from Config.Do
}

func newNode(address netip.Addr, c Config) *node {
	n := &node{address: address}
	c.Random = rand.NewChaCha8([32]byte(bytes.Repeat(address.AsSlice(), 8)))
	c.Expect = func(ids []uint16) { n.expected = slices.Clone(ids) }
	c.Do = func(f func(now time.Time)) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.pending = append(n.pending, f)
	}
	n.Endpoint = NewEndpoint(c, n)
	return n
}

// do runs what was left to the Endpoint's goroutine.
func (n *node) do(now time.Time) {
	n.mu.Lock()
	pending := n.pending
	n.pending = nil
	n.mu.Unlock()
	for _, f := range pending {
		f(now)
	}
}

func (n *node) Write(b []byte) (int, error) {
	if n.broken {
		return 0, io.ErrClosedPipe
	}
	n.stream = append(n.stream, b...)
	return len(b), nil
}

func (n *node) WritePackets(packets [][]byte, offset int, to netip.Addr) error {
	for _, p := range packets {
		n.packets = append(n.packets, bytes.Clone(p[offset:]))
		n.sent++
	}
	return nil
}

func (n *node) Headroom() int      { return 3 }
func (n *node) Tailroom() int      { return 0 }
func (n *node) MTU(netip.Addr) int { return 1480 }

func (n *node) note(format string, v ...any) { n.events = append(n.events, fmt.Sprintf(format, v...)) }

func (n *node) ConnectionUp(now time.Time, c *Connection) {
	n.note("connection up")
	if n.onUp != nil {
		n.onUp(now, c)
	}
}
func (n *node) ConnectionDown(_ time.Time, err error) { n.note("connection down: %v", err) }

func (n *node) AcceptCall(_ time.Time, call *Call) (CallHandler, error) {
	if n.accept != nil {
		return nil, n.accept
	}
	n.calls = append(n.calls, call)
	return n, nil
}

func (n *node) SessionUp(time.Time)                { n.note("call up") }
func (n *node) SessionDown(_ time.Time, err error) { n.note("call down: %v", err) }

// Frames are borrowed, and the handler's to overwrite.
func (n *node) HandleFrames(_ time.Time, frames [][]byte) {
	for _, f := range frames {
		n.frames = append(n.frames, string(f))
		clear(f)
	}
}

// take returns the events since the last take.
func (n *node) take() (events []string) {
	events, n.events = n.events, nil
	return events
}

func (n *node) send(t testing.TB, call *Call, frames ...string) {
	t.Helper()
	buffers := make([][]byte, len(frames))
	for i, f := range frames {
		buffers[i] = append(make([]byte, call.Headroom()), f...)
	}
	if err := call.WriteFrames(buffers, call.Headroom()); err != nil {
		t.Fatal(err)
	}
}

// A conversation is a PNS and a PAC on a wire of the test's making, in time that only the test moves.
type conversation struct {
	t        testing.TB
	now      time.Time
	pns, pac *node
	piece    int                         // bytes of the TCP stream that come at once; 0: all
	path     func([][]byte) [][]byte     // what the network does to the PNS's GRE packets; nil: nothing
	spy      func(from *node, m message) // sees all control messages
}

func converse(t testing.TB, pns, pac Config) *conversation {
	c := &conversation{t: t, now: testStart, pns: newNode(pnsAddr, pns), pac: newNode(pacAddr, pac)}
	c.pns.onUp = func(now time.Time, k *Connection) {
		call, err := k.OpenCall(now, c.pns)
		if err != nil {
			t.Error(err)
			return
		}
		c.pns.calls = append(c.pns.calls, call)
	}
	return c
}

// dial begins the control connection and lets both sides talk.
func (c *conversation) dial() *conversation {
	c.pac.connection = c.pac.Accept(c.now, pnsAddr, c.pac, c.pac)
	c.pns.connection = c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	c.settle()
	return c
}

// up is a conversation with one call up.
func up(t testing.TB, pns, pac Config) *conversation {
	t.Helper()
	c := converse(t, pns, pac).dial()
	want := []string{"connection up", "call up"}
	if a, b := c.pns.take(), c.pac.take(); !cmp.Equal(a, want) || !cmp.Equal(b, want) {
		t.Fatalf("PNS heard %q, PAC %q", a, b)
	}
	return c
}

// settle carries everything to the other side until nobody says more.
func (c *conversation) settle() {
	c.pns.do(c.now)
	c.pac.do(c.now)
	for len(c.pns.stream)+len(c.pac.stream)+len(c.pns.packets)+len(c.pac.packets) > 0 {
		c.carry(c.pns, c.pac)
		c.carry(c.pac, c.pns)
	}
}

func (c *conversation) carry(from, to *node) {
	packets := from.packets
	from.packets = nil
	if c.path != nil && from == c.pns {
		packets = c.path(packets)
	}
	to.Receive(c.now, from.address, packets)
	stream := from.stream
	from.stream = nil
	if c.spy != nil {
		for rest := stream; len(rest) > 0; {
			m, size, err := parseMessage(rest)
			if err != nil || size == 0 {
				break
			}
			c.spy(from, m)
			rest = rest[size:]
		}
	}
	for len(stream) > 0 {
		n := len(stream)
		if c.piece > 0 {
			n = min(n, c.piece)
		}
		to.connection.ReceiveControl(c.now, bytes.Clone(stream[:n]))
		stream = stream[n:]
	}
}

// pass lets time pass, and both sides do what is due at its time.
func (c *conversation) pass(d time.Duration) {
	end := c.now.Add(d)
	for rounds := 0; ; rounds++ {
		next := earlier(c.pns.NextDeadline(), c.pac.NextDeadline())
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(c.now) {
			c.now, rounds = next, 0
		}
		if rounds > 10 {
			c.t.Fatalf("a deadline at %v is never met", next)
		}
		c.pns.Advance(c.now)
		c.pac.Advance(c.now)
		c.settle()
	}
	c.now = end
}

func (c *conversation) expectEvents(n *node, want ...string) {
	c.t.Helper()
	if diff := cmp.Diff(want, n.take()); diff != "" {
		c.t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// inject gives the node a control message as if from its peer.
func (c *conversation) inject(n *node, m message) {
	n.connection.ReceiveControl(c.now, appendMessage(nil, m))
	c.settle()
}

func TestCallCarriesFramesBothWays(t *testing.T) {
	for _, piece := range []int{0, 1, 7, 155, 157} {
		t.Run(fmt.Sprintf("TCP in pieces of %d", piece), func(t *testing.T) {
			c := converse(t, Config{}, Config{})
			c.piece = piece
			c.dial()
			c.expectEvents(c.pns, "connection up", "call up")
			c.expectEvents(c.pac, "connection up", "call up")
			for range 3 {
				c.pns.send(t, c.pns.calls[0], "to", "the", "PAC")
				c.pac.send(t, c.pac.calls[0], "to the PNS")
				c.settle()
			}
			if want := strings.Fields("to the PAC to the PAC to the PAC"); !cmp.Equal(c.pac.frames, want) {
				t.Errorf("PAC got %q", c.pac.frames)
			}
			if len(c.pns.frames) != 3 || c.pns.frames[2] != "to the PNS" {
				t.Errorf("PNS got %q", c.pns.frames)
			}
			s := c.pns.calls[0].Stats()
			if s.FramesSent != 9 || s.BytesSent != 24 || s.FramesReceived != 3 || s.BytesReceived != 30 || s.Unacknowledged != 3 {
				t.Errorf("%+v", s) // the last three are acknowledged after a while
			}
		})
	}
}

func TestControlMessagesSentTogetherAreReadApart(t *testing.T) {
	c := up(t, Config{}, Config{})
	three := appendMessage(appendMessage(appendMessage(nil, newMessage(msgEchoRequest)), newMessage(msgEchoRequest)), newMessage(msgEchoRequest))
	c.pac.connection.ReceiveControl(c.now, three)
	if n := len(c.pac.stream); n != 3*20 {
		t.Errorf("%d bytes of replies", n)
	}
}

// RFC 2637 section 3.2.4: the PNS clears a call, the PAC notifies of the end.
func TestPNSClearsCall(t *testing.T) {
	c := up(t, Config{}, Config{})
	id := c.pns.calls[0].ID()
	if want := []uint16{id}; !cmp.Equal(c.pns.expected, want) {
		t.Errorf("filter %v, want %v", c.pns.expected, want)
	}
	c.pns.calls[0].Close(c.now)
	c.expectEvents(c.pns, "call down: pptp: closed")
	if c.pns.calls[0].WriteFrames([][]byte{make([]byte, 40)}, 30) != ErrClosed {
		t.Error("a closed call takes frames")
	}
	c.settle()
	c.expectEvents(c.pac, "call down: pptp: peer ended the call (Call-Clear-Request)")
	if len(c.pns.expected)+len(c.pac.expected)+len(c.pns.Endpoint.calls)+len(c.pac.Endpoint.calls) != 0 {
		t.Error("the call is not forgotten")
	}
	c.pns.calls[0].Close(c.now)
	c.expectEvents(c.pns)
}

func TestClearedCallIsForgottenEvenIfThePACIsSilent(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.calls[0].Close(c.now)
	c.pns.stream = nil // lost with the PAC's attention
	c.pass(defaultStopTimeout - 1)
	if len(c.pns.expected) != 1 {
		t.Fatal("forgotten too early")
	}
	c.pass(1)
	if len(c.pns.expected) != 0 {
		t.Fatal("not forgotten")
	}
}

func TestPACDisconnectsCall(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pac.calls[0].Close(c.now)
	c.expectEvents(c.pac, "call down: pptp: closed")
	c.settle()
	c.expectEvents(c.pns, "call down: pptp: peer ended the call: administrative reasons (Call-Disconnect-Notify, result 3)")
	if len(c.pns.expected) != 0 {
		t.Error("the call is not forgotten")
	}
}

func TestSeveralCallsShareAConnection(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.onUp(c.now, c.pns.connection)
	c.settle()
	c.expectEvents(c.pns, "call up")
	c.expectEvents(c.pac, "call up")
	c.pns.send(t, c.pns.calls[0], "first")
	c.pns.send(t, c.pns.calls[1], "second")
	c.pns.send(t, c.pns.calls[0], "again")
	c.settle()
	if want := []string{"first", "second", "again"}; !cmp.Equal(c.pac.frames, want) {
		t.Errorf("PAC got %q", c.pac.frames)
	}
	c.pns.calls[0].Close(c.now)
	c.settle()
	c.pac.send(t, c.pac.calls[1], "still here")
	c.settle()
	if want := []string{"still here"}; !cmp.Equal(c.pns.frames, want) {
		t.Errorf("PNS got %q", c.pns.frames)
	}
}

func TestCloseEndsCallsAndConnection(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.Endpoint.Close(c.now)
	c.expectEvents(c.pns, "call down: pptp: closed")
	c.settle()
	c.expectEvents(c.pns, "connection down: pptp: closed")
	c.expectEvents(c.pac, "call down: pptp: peer ended the call (Call-Clear-Request)",
		"connection down: pptp: peer closed the control connection: the peer is shutting down (Stop-Control-Connection-Request, result 3)")
	if !c.pns.Idle() || !c.pac.Idle() {
		t.Error("not idle")
	}
	c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	c.expectEvents(c.pns, "connection down: pptp: closed")
}

func TestCloseDoesNotWaitForASilentPeer(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.connection.Close(c.now)
	c.pns.stream = nil
	c.take()
	c.pass(defaultStopTimeout - 1)
	c.expectEvents(c.pns)
	c.pass(1)
	c.expectEvents(c.pns, "connection down: pptp: closed")
}

func (c *conversation) take() { c.pns.take(); c.pac.take() }

func TestCloseBeforeTheAnswerEndsAtOnce(t *testing.T) {
	c := converse(t, Config{}, Config{})
	k := c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	k.Close(c.now)
	c.expectEvents(c.pns, "connection down: pptp: closed")
	if _, err := k.OpenCall(c.now, c.pns); err != ErrClosed {
		t.Errorf("OpenCall: %v", err)
	}
}

func TestOpenCallNeedsAnEstablishedConnection(t *testing.T) {
	c := converse(t, Config{}, Config{})
	if _, err := c.pns.Dial(c.now, pacAddr, c.pns, c.pns).OpenCall(c.now, c.pns); err != errNotUp {
		t.Errorf("OpenCall: %v", err)
	}
}

// RFC 2637 section 2.2: every result but 1 refuses.
func TestRefusedConnection(t *testing.T) {
	for result, want := range map[uint32]string{
		0: "pptp: peer refused the control connection (Start-Control-Connection-Reply)",
		2: "pptp: peer refused the control connection: general error (Start-Control-Connection-Reply, result 2, error 4: out of resources)",
		3: "pptp: peer refused the control connection: a control connection exists already (Start-Control-Connection-Reply, result 3)",
		4: "pptp: peer refused the control connection: not authorised to have a control connection (Start-Control-Connection-Reply, result 4)",
		5: "pptp: peer refused the control connection: protocol version not supported (Start-Control-Connection-Reply, result 5)",
		9: "pptp: peer refused the control connection (Start-Control-Connection-Reply, result 9)",
	} {
		c := converse(t, Config{}, Config{})
		c.pns.connection = c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
		m := newMessage(msgSCCRP)
		m.set(fieldResult, result)
		if result == 2 {
			m.set(fieldError, 4)
		}
		c.pns.stream = nil
		c.pns.connection.ReceiveControl(c.now, appendMessage(nil, m))
		c.expectEvents(c.pns, "connection down: "+want)
	}
}

// RFC 2637 section 2.8.
func TestRefusedCall(t *testing.T) {
	for result, want := range map[uint32]string{
		2: "general error (Outgoing-Call-Reply, result 2, error 5: invalid Call ID)",
		3: "no carrier detected (Outgoing-Call-Reply, result 3, Q.931 cause 17)",
		4: "busy (Outgoing-Call-Reply, result 4)",
		5: "no dial tone (Outgoing-Call-Reply, result 5)",
		6: "not established in time (Outgoing-Call-Reply, result 6)",
		7: "outgoing calls are not accepted (Outgoing-Call-Reply, result 7)",
	} {
		c := converse(t, Config{}, Config{})
		c.spy = func(from *node, m message) {
			if m.kind == msgOCRP { // the spy sees what is delivered, before it is
				m.set(fieldResult, result)
				m.set(fieldError, map[uint32]uint32{2: 5}[result])
				m.set(fieldCause, map[uint32]uint32{3: 17}[result])
			}
		}
		c.dial()
		c.expectEvents(c.pns, "connection up", "call down: pptp: peer refused the call: "+want)
		if len(c.pns.expected) != 0 {
			t.Error("the call is not forgotten")
		}
	}
}

func TestHandlerRefusesCall(t *testing.T) {
	c := converse(t, Config{}, Config{})
	c.pac.accept = errors.New("no")
	c.dial()
	c.expectEvents(c.pac, "connection up")
	c.expectEvents(c.pns, "connection up", "call down: pptp: peer refused the call: outgoing calls are not accepted (Outgoing-Call-Reply, result 7)")
}

func TestCallsAndConnectionsAreBounded(t *testing.T) {
	c := up(t, Config{}, Config{MaxCalls: 1, MaxConnections: 1})
	c.pns.onUp(c.now, c.pns.connection)
	c.settle()
	c.expectEvents(c.pns, "call down: pptp: peer refused the call: general error (Outgoing-Call-Reply, result 2, error 4: out of resources)")
	c.pac.Accept(c.now, pnsAddr, io.Discard, c.pac)
	c.expectEvents(c.pac, "connection down: pptp: too many control connections")

	c = up(t, Config{MaxCalls: 1}, Config{})
	var local *LocalError
	if _, err := c.pns.connection.OpenCall(c.now, c.pns); !errors.As(err, &local) || local.Kind != NoResources {
		t.Errorf("OpenCall: %v", err)
	}
}

// RFC 2637 section 3.1.2: a PAC answers what it cannot speak with a result, and a second request, too.
func TestStartIsAnsweredAccordingly(t *testing.T) {
	var replies []uint32
	c := converse(t, Config{}, Config{})
	c.spy = func(_ *node, m message) {
		if m.kind == msgSCCRP {
			replies = append(replies, m.number(fieldResult))
		}
	}
	c.dial()
	again := newMessage(msgSCCRQ)
	again.set(fieldVersion, protocolVersionOne)
	c.inject(c.pac, again)
	if want := []uint32{startOK, startExists}; !cmp.Equal(replies, want) {
		t.Errorf("replies %v, want %v", replies, want)
	}

	replies = nil
	c.pac.connection = c.pac.Accept(c.now, pnsAddr, c.pac, c.pac)
	c.take()
	old := newMessage(msgSCCRQ)
	old.set(fieldVersion, 0x0200)
	c.pac.connection.ReceiveControl(c.now, appendMessage(nil, old))
	c.expectEvents(c.pac, "connection down: pptp: peer speaks PPTP version 0x0200")
	if m, _, _ := parseMessage(c.pac.stream); m.number(fieldResult) != startVersion {
		t.Errorf("result %d", m.number(fieldResult))
	}
}

// RFC 2637 section 3: a malformed message closes the control connection.
func TestStreamOutOfStepEndsTheConnection(t *testing.T) {
	for wire, want := range map[string]string{
		"0010 0001 1a2b3c4e 0005 0000 00000000": "pptp: peer does not speak PPTP: bad magic cookie",
		"000c 0001 1a2b3c4d 0005 0000":          "pptp: peer does not speak PPTP: Echo-Request: message is shorter than its type needs",
		"ffff 0001 1a2b3c4d 0005 0000":          "pptp: peer does not speak PPTP: message is too long",
	} {
		c := up(t, Config{}, Config{})
		c.pns.connection.ReceiveControl(c.now, unhex(t, wire))
		c.expectEvents(c.pns, "call down: "+want, "connection down: "+want)
		if len(c.pns.stream) > 0 {
			t.Error("something was said")
		}
		c.pns.connection.ReceiveControl(c.now, appendMessage(nil, newMessage(msgEchoRequest)))
		if len(c.pns.stream) > 0 || len(c.pns.expected) > 0 {
			t.Error("the connection lives on")
		}
	}
}

func TestMessagesOutOfPlaceAreCountedAndIgnored(t *testing.T) {
	c := up(t, Config{}, Config{})
	foreign := func(kind MessageType) message { // about a call that does not exist
		m := newMessage(kind)
		m.set(fieldCallID, uint32(c.pns.calls[0].ID())+1)
		m.set(fieldPeerCallID, uint32(c.pns.calls[0].ID())+1)
		return m
	}
	for i, m := range []message{
		foreign(msgSCCRP), foreign(msgStopCCRP), foreign(msgOCRP), foreign(msgICRP), foreign(msgICCN), foreign(msgCallClear),
		foreign(msgWANError), foreign(msgSetLinkInfo),
	} {
		c.inject(c.pns, m)
		if n := c.pns.Stats().Unexpected; n != uint64(i+1) {
			t.Errorf("after %v %d were counted", m.kind, n)
		}
	}
	c.inject(c.pns, newMessage(msgEchoReply))
	c.expectEvents(c.pns)
	if n := c.pns.Stats().Unexpected; n != 8 {
		t.Errorf("%d counted", n)
	}
}

// Windows sends Set-Link-Info after the call is up and again after authentication; GRE has no use for it.
func TestLinkInfoAndErrorsAreTolerated(t *testing.T) {
	c := up(t, Config{}, Config{})
	m := newMessage(msgSetLinkInfo)
	m.set(fieldPeerCallID, uint32(c.pac.calls[0].ID()))
	c.inject(c.pac, m)
	m = newMessage(msgWANError)
	m.set(fieldPeerCallID, uint32(c.pns.calls[0].ID()))
	c.inject(c.pns, m)
	if a, b := c.pac.Stats().Unexpected, c.pns.Stats().Unexpected; a+b != 0 {
		t.Errorf("unexpected: %d and %d", a, b)
	}
}

func TestIncomingCallIsRefused(t *testing.T) {
	c := up(t, Config{}, Config{})
	var reply message
	c.spy = func(from *node, m message) {
		if m.kind == msgICRP {
			reply = message{m.kind, bytes.Clone(m.body)}
		}
	}
	m := newMessage(msgICRQ)
	m.set(fieldCallID, 99)
	c.inject(c.pns, m)
	if reply.kind != msgICRP || reply.number(fieldPeerCallID) != 99 || reply.number(fieldResult) != 3 || reply.number(fieldCallID) == 0 {
		t.Errorf("reply %x", reply.body)
	}
}

// RFC 2637 section 2.13 wants the PAC's Call ID; accel-ppp sends the PNS's, and a NAT may leave neither.
func TestDisconnectFindsItsCall(t *testing.T) {
	for name, test := range map[string]struct {
		second bool
		id     func(c *conversation) uint16
		ends   bool
	}{
		"PAC's ID":                   {id: func(c *conversation) uint16 { return c.pac.calls[0].ID() }, ends: true},
		"PNS's ID":                   {id: func(c *conversation) uint16 { return c.pns.calls[0].ID() }, ends: true},
		"any ID of the only call":    {id: func(c *conversation) uint16 { return 1 }, ends: true},
		"PAC's ID, one of two":       {id: func(c *conversation) uint16 { return c.pac.calls[0].ID() }, second: true, ends: true},
		"PNS's ID, one of two":       {id: func(c *conversation) uint16 { return c.pns.calls[0].ID() }, second: true, ends: true},
		"another ID, with two calls": {id: func(c *conversation) uint16 { return 1 }, second: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := up(t, Config{}, Config{})
			if test.second {
				c.pns.onUp(c.now, c.pns.connection)
				c.settle()
				c.take()
			}
			m := newMessage(msgCallDisconnect)
			m.set(fieldCallID, uint32(test.id(c)))
			m.set(fieldResult, 4)
			m.setText(fieldStatistics, "rx 1 tx 2")
			c.inject(c.pns, m)
			if !test.ends {
				c.expectEvents(c.pns)
				return
			}
			c.expectEvents(c.pns, `call down: pptp: peer ended the call: on request (Call-Disconnect-Notify, result 4): "rx 1 tx 2"`)
			if c.pns.calls[0].state != callClosed {
				t.Error("the other call was ended")
			}
		})
	}
}

// A NAT rewrites Call IDs, not always all of them.
func TestReplyWithAnotherCallIDAnswersTheOnlyCallThatWaits(t *testing.T) {
	c := converse(t, Config{}, Config{})
	c.spy = func(_ *node, m message) {
		if m.kind == msgOCRP {
			m.set(fieldPeerCallID, 1)
		}
	}
	c.dial()
	c.expectEvents(c.pns, "connection up", "call up")
	m := newMessage(msgCallClear)
	m.set(fieldCallID, 1)
	c.inject(c.pac, m)
	c.expectEvents(c.pac, "connection up", "call up", "call down: pptp: peer ended the call (Call-Clear-Request)")
}

// Both ends clear one of two calls at once: what each says then is about a call that is gone, and not about the other.
func TestCallClearedByBothEndsLeavesTheOther(t *testing.T) {
	c := up(t, Config{}, Config{})
	if _, err := c.pns.connection.OpenCall(c.now, c.pns); err != nil {
		t.Fatal(err)
	}
	c.settle()
	c.pns.take()
	c.pac.take()
	c.pns.calls[0].Close(c.now)
	c.pac.calls[0].Close(c.now)
	c.settle()
	c.expectEvents(c.pns, "call down: pptp: closed")
	c.expectEvents(c.pac, "call down: pptp: closed")
}

// RFC 2637 section 3.1.4: 60 seconds of silence, an Echo-Request, and 60 seconds more.
func TestEchoKeepsTheConnection(t *testing.T) {
	c := up(t, Config{GRETimeout: -1}, Config{EchoInterval: -1})
	var echoes []time.Duration
	c.spy = func(_ *node, m message) {
		if m.kind == msgEchoReply {
			echoes = append(echoes, c.now.Sub(testStart))
			if m.number(fieldIdentifier) != uint32(len(echoes)) || m.number(fieldResult) != 1 {
				t.Errorf("reply %x", m.body)
			}
		}
	}
	c.pass(200 * time.Second)
	if want := []time.Duration{60 * time.Second, 120 * time.Second, 180 * time.Second}; !cmp.Equal(echoes, want) {
		t.Errorf("echoes at %v, want %v", echoes, want)
	}
	c.expectEvents(c.pns)
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	c := up(t, Config{GRETimeout: -1}, Config{EchoInterval: -1})
	c.pass(60 * time.Second)
	c.pac.connection.state = connectionClosed // it hears no more
	c.pass(60*time.Second - 1)
	c.expectEvents(c.pns)
	c.pass(60*time.Second + 1)
	c.expectEvents(c.pns, "call down: pptp: peer did not answer for 2m0s", "connection down: pptp: peer did not answer for 2m0s")
}

// RFC 2637 section 3: a reply that does not come closes the control connection.
func TestSetupIsGivenUpInTime(t *testing.T) {
	c := converse(t, Config{}, Config{})
	c.pns.connection = c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	c.pac.connection = c.pac.Accept(c.now, pnsAddr, c.pac, c.pac)
	c.pns.stream = nil
	c.pass(defaultSetupTimeout - 1)
	c.expectEvents(c.pns)
	c.pass(1)
	const want = "connection down: pptp: peer accepted the connection but did not finish the start of PPTP in time"
	c.expectEvents(c.pns, want)
	c.expectEvents(c.pac, want)

	c = converse(t, Config{}, Config{})
	c.spy = func(_ *node, m message) {
		if m.kind == msgOCRQ {
			c.pac.connection.state = connectionClosed // it hears no more
		}
	}
	c.dial()
	c.pass(defaultSetupTimeout)
	c.expectEvents(c.pns, "connection up", "call down: pptp: peer did not answer the call in time")
}

func TestTCPEndEndsEverything(t *testing.T) {
	for want, err := range map[string]error{
		"pptp: peer closed the control connection":        io.EOF,
		"pptp: control connection lost: connection reset": errors.New("connection reset"),
	} {
		c := up(t, Config{}, Config{})
		c.pns.connection.ControlClosed(c.now, err)
		c.expectEvents(c.pns, "call down: "+want, "connection down: "+want)
		c.pns.connection.ControlClosed(c.now, err)
		c.expectEvents(c.pns)
	}
	c := converse(t, Config{}, Config{})
	c.pns.Dial(c.now, pacAddr, c.pns, c.pns).ControlClosed(c.now, nil)
	c.expectEvents(c.pns, "connection down: pptp: peer closed the control connection without an answer")

	c = up(t, Config{}, Config{})
	c.pns.connection.Close(c.now)
	c.pns.connection.ControlClosed(c.now, io.EOF)
	c.expectEvents(c.pns, "call down: pptp: closed", "connection down: pptp: closed")
}

func TestWriteErrorEndsTheConnection(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.broken = true
	c.inject(c.pns, newMessage(msgEchoRequest))
	const want = "pptp: control connection lost: io: read/write on closed pipe"
	c.expectEvents(c.pns, "call down: "+want, "connection down: "+want)

	c = converse(t, Config{}, Config{})
	c.pns.broken = true
	c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	c.expectEvents(c.pns, "connection down: "+want)
}

const (
	configureRequest = "\xff\x03\xc0\x21\x01\x01\x00\x04"
	configureAck     = "\xff\x03\xc0\x21\x02\x01\x00\x04"
	blockedText      = "pptp: GRE (IP protocol 47) is blocked between here and the server"
)

func TestBlockedGREIsToldWithinFiveSeconds(t *testing.T) {
	silent := Config{}
	for name, test := range map[string]struct {
		pac  []string // frames of the PAC; its packets acknowledge nothing
		pns  []string
		want []string
	}{
		"nothing comes":            {pns: []string{configureRequest}, want: []string{"call down: " + blockedText}},
		"the peer hears nothing":   {pns: []string{configureRequest}, pac: []string{configureRequest}, want: []string{"call down: " + blockedText + ": its packets arrive here, ours do not arrive there"}},
		"compressed address field": {pns: []string{configureRequest}, pac: []string{configureRequest[2:]}, want: []string{"call down: " + blockedText + ": its packets arrive here, ours do not arrive there"}},
		"the peer answers":         {pns: []string{configureRequest}, pac: []string{configureRequest, configureAck}},
		"we have said nothing":     {pac: []string{configureRequest}},
	} {
		t.Run(name, func(t *testing.T) {
			c := up(t, silent, Config{})
			c.pns.send(t, c.pns.calls[0], test.pns...)
			c.pns.packets = nil // lost
			c.pac.send(t, c.pac.calls[0], test.pac...)
			c.carry(c.pac, c.pns)
			c.pns.packets = nil
			c.path = func([][]byte) [][]byte { return nil }
			c.pass(defaultGRETimeout - 1)
			c.expectEvents(c.pns)
			c.pass(1)
			c.expectEvents(c.pns, test.want...)
		})
	}
	t.Run("the peer acknowledges", func(t *testing.T) {
		c := up(t, silent, Config{})
		c.pns.send(t, c.pns.calls[0], configureRequest)
		c.settle()
		c.pass(time.Minute)
		c.expectEvents(c.pns)
	})
}

func TestBlockedGREHasItsStageAndAdvice(t *testing.T) {
	e := &LocalError{Kind: GREBlocked, Detail: greBlocked}
	if e.Stage() != "gre" || !strings.Contains(e.Advice(), "47") {
		t.Errorf("%s: %s", e.Stage(), e.Advice())
	}
}

// Anyone can forge an ICMP error, and a server that has not yet started PPP sends one in good faith.
func TestICMPErrorIsTheCauseIfGREIsBlockedAndNothingElse(t *testing.T) {
	refusal := errors.New("protocol not available")
	for name, test := range map[string]struct {
		from  netip.Addr
		works bool
		want  []string
	}{
		"blocked":            {pacAddr, false, []string{"call down: " + blockedText + ": protocol not available"}},
		"about another host": {netip.MustParseAddr("192.0.2.9"), false, []string{"call down: " + blockedText}},
		"a little early":     {pacAddr, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := up(t, Config{}, Config{})
			c.pns.Unreachable(test.from, refusal)
			c.expectEvents(c.pns)
			if test.works {
				c.pac.send(t, c.pac.calls[0], "data")
				c.settle()
				c.pns.Unreachable(test.from, refusal)
			}
			c.pass(defaultGRETimeout)
			c.expectEvents(c.pns, test.want...)
		})
	}
}

// GRE and TCP go their own ways: the PAC's first frame may come before its reply.
func TestFramesBeforeTheReplyAreKept(t *testing.T) {
	c := converse(t, Config{}, Config{})
	c.pac.connection = c.pac.Accept(c.now, pnsAddr, c.pac, c.pac)
	c.pns.connection = c.pns.Dial(c.now, pacAddr, c.pns, c.pns)
	c.carry(c.pns, c.pac)
	c.carry(c.pac, c.pns)
	c.carry(c.pns, c.pac) // Outgoing-Call-Request
	frames := strings.Split("abcdefghijkl", "")
	c.pac.send(t, c.pac.calls[0], frames...)
	reply := c.pac.stream
	c.pac.stream = nil
	c.carry(c.pac, c.pns)
	c.expectEvents(c.pns, "connection up")
	c.pac.stream = reply
	c.settle()
	c.expectEvents(c.pns, "call up")
	if !cmp.Equal(c.pns.frames, frames[:maxEarly]) {
		t.Errorf("PNS got %q", c.pns.frames)
	}
	if n := c.pns.calls[0].Stats().Dropped; n != uint64(len(frames)-maxEarly) {
		t.Errorf("%d dropped", n)
	}
}

func TestPacketsOfOthersAreDropped(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pac.send(t, c.pac.calls[0], "x")
	packet := c.pac.packets[0]
	c.pac.packets = nil
	other := bytes.Clone(packet)
	binary.BigEndian.PutUint16(other[6:], c.pns.calls[0].ID()+1)
	c.pns.Receive(c.now, netip.MustParseAddr("192.0.2.9"), [][]byte{packet})
	c.pns.Receive(c.now, pacAddr, [][]byte{other, packet[:9]})
	if s := c.pns.Stats(); s.WrongSource != 1 || s.UnknownCall != 1 || s.Malformed != 1 || len(c.pns.frames) != 0 {
		t.Errorf("%+v, frames %q", s, c.pns.frames)
	}
}

func TestIPv4MappedAddressesAreTheSamePeer(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pac.send(t, c.pac.calls[0], "x")
	c.pns.Receive(c.now, netip.AddrFrom16(pacAddr.As16()), c.pac.packets)
	if len(c.pns.frames) != 1 {
		t.Errorf("%+v", c.pns.Stats())
	}
}

// RFC 2637 section 4.3: acknowledgments ride on frames, or follow soon by themselves.
func TestAcknowledgmentsRideOrFollow(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pac.send(t, c.pac.calls[0], "a", "b")
	c.settle()
	c.pns.send(t, c.pns.calls[0], "c")
	h, _, _ := parseGRE(c.pns.packets[0])
	if want := (greHeader{callID: c.pac.calls[0].ID(), sequenced: true, acknowledges: true, sequence: 0, ack: 1}); h != want {
		t.Errorf("%+v, want %+v", h, want)
	}
	c.settle()
	if n := c.pac.calls[0].Stats().Unacknowledged; n != 0 {
		t.Errorf("%d unacknowledged", n)
	}
	sent := c.pns.sent
	c.pass(time.Second)
	if c.pns.sent != sent {
		t.Error("what rode on a frame was told again")
	}

	c.pac.send(t, c.pac.calls[0], "d")
	c.settle()
	c.pass(acknowledgmentDelay - 1)
	if c.pns.sent != sent {
		t.Error("acknowledged too early")
	}
	c.pass(1)
	if c.pns.sent != sent+1 || c.pac.calls[0].Stats().Unacknowledged != 0 || c.pns.calls[0].Stats().Acknowledgments != 1 {
		t.Errorf("%d packets, %+v", c.pns.sent-sent, c.pac.calls[0].Stats())
	}
	c.pass(time.Minute)
	if c.pns.calls[0].Stats().Acknowledgments != 1 {
		t.Error("acknowledged again")
	}
}

// RFC 2637 section 4.2: a peer whose window is used up stops, so it is told before.
func TestAcknowledgmentGoesOutAtHalfTheWindow(t *testing.T) {
	c := up(t, Config{ReceiveWindow: 6}, Config{})
	for i := range 9 {
		c.pac.send(t, c.pac.calls[0], "x")
		c.settle()
		if want := uint64((i + 1) / 3); c.pns.calls[0].Stats().Acknowledgments != want {
			t.Fatalf("after %d packets %d acknowledgments, want %d", i+1, c.pns.calls[0].Stats().Acknowledgments, want)
		}
	}
}

// A lost acknowledgment must not stop anything, and one for what was never sent means nothing.
func TestSendingNeverWaitsForAcknowledgments(t *testing.T) {
	c := up(t, Config{}, Config{})
	call := c.pns.calls[0]
	for range 1000 {
		c.pns.send(t, call, "x")
	}
	if len(c.pns.packets) != 1000 {
		t.Fatalf("%d packets", len(c.pns.packets))
	}
	c.pns.Receive(c.now, pacAddr, [][]byte{appendGRE(nil, greHeader{callID: call.ID(), acknowledges: true, ack: 5000}, 0)})
	if n := call.Stats().Unacknowledged; n != 1000 {
		t.Errorf("%d unacknowledged", n)
	}
	c.pns.Receive(c.now, pacAddr, [][]byte{appendGRE(nil, greHeader{callID: call.ID(), acknowledges: true, ack: 999}, 0)})
	if n := call.Stats().Unacknowledged; n != 0 {
		t.Errorf("%d unacknowledged", n)
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	c := up(t, Config{}, Config{})
	c.pns.calls[0].sequence.Store(0xfffffffe)
	for i := range 4 {
		c.pns.send(t, c.pns.calls[0], fmt.Sprint(i))
		c.settle()
	}
	if want := []string{"0", "1", "2", "3"}; !cmp.Equal(c.pac.frames, want) {
		t.Errorf("PAC got %q", c.pac.frames)
	}
	if s := c.pac.calls[0].Stats(); s.Lost+s.Late+s.Reordered != 0 {
		t.Errorf("%+v", s)
	}
}

// badPath loses, doubles and exchanges packets.
func badPath(random *rand.Rand, loss, double, exchange float64) func([][]byte) [][]byte {
	var kept [][]byte // for the next batch
	return func(packets [][]byte) (out [][]byte) {
		late := kept
		kept = nil
		for _, p := range packets {
			switch x := random.Float64(); {
			case x < loss:
			case x < loss+double:
				out = append(out, p, bytes.Clone(p))
			case x < loss+double+exchange:
				kept = append(kept, p)
			default:
				out = append(out, p)
			}
		}
		return append(out, late...)
	}
}

// What goes up is a sequence without repetitions that only ever rises: MPPE needs no more.
func TestFramesStayInOrderOnABadPath(t *testing.T) {
	const frames = 5000
	for name, test := range map[string]struct{ loss, double, exchange float64 }{
		"loss": {loss: .05}, "duplicates": {double: .1}, "reordering": {exchange: .1}, "all": {.05, .05, .05},
	} {
		t.Run(name, func(t *testing.T) {
			c := up(t, Config{}, Config{})
			random := rand.New(rand.NewPCG(1, 2))
			c.path = badPath(random, test.loss, test.double, test.exchange)
			for i := 0; i < frames; {
				batch := make([]string, min(1+random.IntN(8), frames-i))
				for j := range batch {
					batch[j] = fmt.Sprint(i)
					i++
				}
				c.pns.send(t, c.pns.calls[0], batch...)
				c.settle()
				c.pass(time.Duration(random.IntN(10)) * time.Millisecond)
			}
			c.path = nil
			c.pns.send(t, c.pns.calls[0], fmt.Sprint(frames))
			c.settle()
			c.pass(time.Second)
			last := -1
			for _, f := range c.pac.frames {
				var n int
				fmt.Sscan(f, &n)
				if n <= last {
					t.Fatalf("frame %d after %d", n, last)
				}
				last = n
			}
			lost := frames + 1 - len(c.pac.frames)
			s := c.pac.calls[0].Stats()
			if test.loss == 0 && lost != 0 || lost > frames/12 || s.Lost != uint64(lost) {
				t.Errorf("%d frames lost: %+v", lost, s)
			}
			if test.exchange > 0 && s.Reordered == 0 || test.double > 0 && s.Late == 0 {
				t.Errorf("the path was not bad enough: %+v", s)
			}
		})
	}
}

func TestFrameMustFitThePayloadLength(t *testing.T) {
	c := up(t, Config{}, Config{})
	call := c.pns.calls[0]
	if err := call.WriteFrames([][]byte{make([]byte, greMaxSize+1)}, greMaxSize-1); err != errHeadroom {
		t.Errorf("without headroom: %v", err)
	}
	for _, size := range []int{0, 65536} {
		if err := call.WriteFrames([][]byte{make([]byte, greMaxSize+size)}, greMaxSize); err != errFrameTooLong {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if len(c.pns.packets) != 0 {
		t.Error("something was sent")
	}
	if call.MTU() != 1480-16 || call.Headroom() != 3+16 || call.Tailroom() != 0 {
		t.Errorf("MTU %d, headroom %d, tailroom %d", call.MTU(), call.Headroom(), call.Tailroom())
	}
}

// Only WriteFrames may run beside everything else; the race detector watches.
func TestWritersRunBesideTheLoop(t *testing.T) {
	c := up(t, Config{}, Config{})
	quiet := &quietWriter{}
	call := c.pns.calls[0]
	call.w = quiet
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := [][]byte{make([]byte, 100), make([]byte, 100)}
		for range 2000 {
			call.WriteFrames(b, 20)
			call.Stats()
		}
	}()
	for i := range 2000 {
		c.pns.Receive(c.now, pacAddr, [][]byte{append(appendGRE(nil, greHeader{callID: call.ID(), sequenced: true, acknowledges: true, sequence: uint32(i), ack: uint32(i)}, 1), 'x')})
	}
	call.Close(c.now)
	<-done
	if n := len(c.pns.frames); n != 2000 {
		t.Errorf("%d frames", n)
	}
}

type quietWriter struct{}

func (quietWriter) WritePackets([][]byte, int, netip.Addr) error { return nil }
func (quietWriter) Headroom() int                                { return 0 }
func (quietWriter) Tailroom() int                                { return 0 }
func (quietWriter) MTU(netip.Addr) int                           { return 1480 }
