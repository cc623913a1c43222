package pptp

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	defaultHostName       = "gateway"
	defaultReceiveWindow  = 64
	defaultEchoInterval   = 60 * time.Second // RFC 2637 section 3.1.4
	defaultEchoTimeout    = 60 * time.Second // the same
	defaultSetupTimeout   = 30 * time.Second
	defaultStopTimeout    = 3 * time.Second
	defaultGRETimeout     = 5 * time.Second
	defaultReorderDelay   = 50 * time.Millisecond
	defaultMaxConnections = 1024
	defaultMaxCalls       = 64
)

// maxCallsOfAll bounds the calls of an Endpoint, so that free Call IDs are always quick to find.
const maxCallsOfAll = 1 << 15

// Config is how an Endpoint behaves. Its zero value is a PNS for VPN servers.
type Config struct {
	HostName      string        // what we call ourselves, up to 64 bytes; "" means "gateway"
	VendorName    string        // up to 64 bytes; may be empty
	PhoneNumber   string        // of the calls we open, up to 64 bytes; VPN servers rarely look at it
	ReceiveWindow int           // packets that the peer may send ahead of our acknowledgments, 1 to 65535; 0 means 64
	EchoInterval  time.Duration // silence of the control connection after which an Echo-Request is sent; 0 means 60 s, less than 0 never
	EchoTimeout   time.Duration // silence after an Echo-Request that ends the connection; 0 means 60 s
	SetupTimeout  time.Duration // for a control connection or call to come up; 0 means 30 s (RFC 2637 section 3.1.4 would wait 60 s)
	GRETimeout    time.Duration // for GRE to get through, both ways, in a call we opened; 0 means 5 s, less than 0 for ever
	ReorderDelay  time.Duration // how long a frame waits for the ones before it; 0 means 50 ms, less than 0 not at all

	MaxConnections int // at a time; 0 means 1024
	MaxCalls       int // in one connection; 0 means 64

	// Expect is told all our Call IDs in use whenever they change, and of a new one before the peer is: GRE packets to others will be
	// dropped. It is for the socket's filter and is called on the Endpoint's goroutine. The slice is borrowed. nil if there is no filter.
	Expect func(callIDs []uint16)

	// Do has f called on the Endpoint's goroutine, soon, and Advance after it. Whoever writes frames calls it, a few times a second at
	// most; a peer that keeps frames back (nudge.go) is not noticed if it is nil.
	Do func(f func(now time.Time))

	Random io.Reader    // of Call IDs; nil means crypto/rand
	Log    *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	if c.HostName == "" {
		c.HostName = defaultHostName
	}
	c.ReceiveWindow = orDefault(c.ReceiveWindow, defaultReceiveWindow, 1<<16-1)
	if c.EchoInterval == 0 {
		c.EchoInterval = defaultEchoInterval
	}
	if c.EchoTimeout <= 0 {
		c.EchoTimeout = defaultEchoTimeout
	}
	if c.SetupTimeout <= 0 {
		c.SetupTimeout = defaultSetupTimeout
	}
	if c.GRETimeout == 0 {
		c.GRETimeout = defaultGRETimeout
	}
	if c.ReorderDelay == 0 {
		c.ReorderDelay = defaultReorderDelay
	}
	c.MaxConnections = orDefault(c.MaxConnections, defaultMaxConnections, 1<<15)
	c.MaxCalls = orDefault(c.MaxCalls, defaultMaxCalls, 1<<12)
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault(v, byDefault, most int) int {
	if v <= 0 {
		return byDefault
	}
	return min(v, most)
}

// A GREWriter sends GRE packets: a raw socket, or an in-process link. Any goroutine may call it.
type GREWriter interface {
	// WritePackets sends packets[i][offset:], each of which begins with the GRE header. It may overwrite what is in front, at least
	// Headroom bytes, and use the capacity behind, at least Tailroom bytes. The packets are borrowed until it returns.
	WritePackets(packets [][]byte, offset int, to netip.Addr) error
	Headroom() int
	Tailroom() int
	// MTU is the largest GRE packet in bytes, with its header, that reaches to in one piece, e.g. 1480 over Ethernet.
	MTU(to netip.Addr) int
}

// A ConnectionHandler hears of one control connection. Its methods are called on the Endpoint's goroutine.
type ConnectionHandler interface {
	// ConnectionUp says that the control connection is established: calls can be opened.
	ConnectionUp(now time.Time, c *Connection)
	// ConnectionDown is called once, last, after SessionDown of all its calls: the TCP connection is to be closed. err is a *PeerError, a
	// *LocalError, or ErrClosed if we closed the connection.
	ConnectionDown(now time.Time, err error)
	// AcceptCall decides on a call that the peer asks for (Outgoing-Call-Request: we are its PAC). The call is not up yet. An error refuses it.
	AcceptCall(now time.Time, call *Call) (CallHandler, error)
}

// A CallHandler hears of one call. Its methods are called on the Endpoint's goroutine.
type CallHandler interface {
	// SessionUp says that frames can be written.
	SessionUp(now time.Time)
	// HandleFrames takes the PPP frames of a batch of GRE packets. They are borrowed until it returns and may be overwritten.
	HandleFrames(now time.Time, frames [][]byte)
	// SessionDown is called once, last. err is as in ConnectionHandler.ConnectionDown.
	SessionDown(now time.Time, err error)
}

// An Endpoint is one PPTP speaker behind one GRE socket, PNS and PAC at once. It belongs to one goroutine, but for Stats.
type Endpoint struct {
	config      Config
	w           GREWriter
	connections []*Connection    // replaced, not changed, when one ends, so that loops over it hold
	calls       map[uint16]*Call // by our Call ID, which no two calls share whoever their peers are
	serial      uint16           // of the last call we opened
	closing     bool
	next        time.Time // no deadline of any connection is earlier; there may be none at that time

	frames   [][]byte // of the call whose packets are being gathered
	scratch  []byte   // an acknowledgment on its way out
	packet   [1][]byte
	expected []uint16
	counters counters
}

// NewEndpoint makes an Endpoint whose calls send through w.
func NewEndpoint(c Config, w GREWriter) *Endpoint {
	return &Endpoint{config: c.withDefaults(), w: w, calls: make(map[uint16]*Call)}
}

// Dial begins a control connection over a TCP connection to a PAC, usually to its port Port. peer is where its GRE comes from: the same
// address. Every Write to control is one or more whole messages, of a few hundred bytes at most; it must not wait for the peer for
// long, and an error ends the connection. h.ConnectionDown may be called before Dial returns.
func (e *Endpoint) Dial(now time.Time, peer netip.Addr, control io.Writer, h ConnectionHandler) *Connection {
	c := e.newConnection(now, peer, control, h, connectionWaitReply)
	if c.admit(now) {
		c.sendSCCRQ(now)
		c.schedule()
	}
	return c
}

// Accept takes a TCP connection that a PNS made to us. The rest is as with Dial.
func (e *Endpoint) Accept(now time.Time, peer netip.Addr, control io.Writer, h ConnectionHandler) *Connection {
	c := e.newConnection(now, peer, control, h, connectionWaitRequest)
	if c.admit(now) {
		c.schedule()
	}
	return c
}

// Receive takes a batch of GRE packets from one source, which are borrowed and may be overwritten. They begin with the GRE header.
// Consecutive packets of one call go up in one call of HandleFrames. next is when Advance is to be called; zero means never, and it
// may have passed already.
func (e *Endpoint) Receive(now time.Time, from netip.Addr, packets [][]byte) (next time.Time) {
	from = from.Unmap()
	var call *Call // whose frames are being gathered
	for _, packet := range packets {
		h, frame, err := parseGRE(packet)
		if err != nil {
			e.counters.malformed.Add(1)
			continue
		}
		if call == nil || call.id != h.callID {
			e.handUp(now, call)
			if call = e.callOf(h.callID, from); call == nil {
				continue
			}
		}
		call.receive(now, h, frame)
	}
	e.handUp(now, call)
	return e.next
}

// callOf finds the call of a GRE packet by peer and Call ID.
func (e *Endpoint) callOf(id uint16, from netip.Addr) *Call {
	call := e.calls[id]
	if call == nil {
		e.counters.unknownCall.Add(1)
		return nil
	}
	if call.connection.peer != from {
		e.counters.wrongSource.Add(1)
		return nil
	}
	return call
}

// handUp passes the gathered frames on and acknowledges their packets, if nothing that was sent meanwhile has done so.
func (e *Endpoint) handUp(now time.Time, call *Call) {
	if call == nil {
		return
	}
	call.ack.publish(now)
	if frames := e.frames; len(frames) > 0 {
		call.handle(now, frames)
		e.frames = frames[:0]
	}
	call.acknowledge(now)
}

// write puts one GRE packet without payload on the wire.
func (e *Endpoint) write(to netip.Addr, h greHeader) {
	offset := e.w.Headroom()
	e.scratch = slices.Grow(e.scratch[:0], offset+greMaxSize+e.w.Tailroom())[:offset]
	e.packet[0] = appendGRE(e.scratch, h, 0)
	if e.w.WritePackets(e.packet[:], offset, to) != nil {
		e.counters.writeErrors.Add(1)
	}
}

// Advance does what is due by now. next is as in Receive.
func (e *Endpoint) Advance(now time.Time) (next time.Time) {
	if !due(e.next, now) {
		return e.next
	}
	e.next = time.Time{}
	for _, c := range e.connections {
		c.advance(now)
		c.schedule()
	}
	return e.next
}

// NextDeadline is when Advance is to be called; zero means never.
func (e *Endpoint) NextDeadline() time.Time { return e.next }

// Unreachable tells that the network or the host at to refused a GRE packet, as an ICMP error says. Anyone can forge such an error, and a server
// sends one when our first packet is faster than its start of PPP; so it ends nothing, but is the cause given if GRE does not get through.
func (e *Endpoint) Unreachable(to netip.Addr, err error) {
	to = to.Unmap()
	for _, c := range e.connections {
		for _, call := range c.calls {
			if c.peer == to && !call.works {
				call.refusal = err
			}
		}
	}
}

// Close ends all calls and connections and refuses new ones. Idle tells when the peers know.
func (e *Endpoint) Close(now time.Time) (next time.Time) {
	e.closing = true
	for _, c := range e.connections {
		c.Close(now)
	}
	return e.next
}

// Idle tells whether no connection is up, coming up, or waiting for its peer to agree to the end.
func (e *Endpoint) Idle() bool { return len(e.connections) == 0 }

// newCallID draws a Call ID that is neither 0 nor taken. It cannot be guessed, which is all that keeps others out of a call, and which
// makes it unlikely that another client behind the same NAT has the same.
func (e *Endpoint) newCallID() uint16 {
	var b [2]byte
	if _, err := io.ReadFull(e.config.Random, b[:]); err != nil {
		rand.Read(b[:]) // never predictable
	}
	id := binary.BigEndian.Uint16(b[:])
	for id == 0 || e.calls[id] != nil {
		id++
	}
	return id
}

func (e *Endpoint) register(call *Call) {
	e.calls[call.id] = call
	e.expect()
}

func (e *Endpoint) unregister(call *Call) {
	delete(e.calls, call.id)
	e.expect()
}

// expect tells the socket's filter which Call IDs are in use.
func (e *Endpoint) expect() {
	if e.config.Expect == nil {
		return
	}
	e.expected = e.expected[:0]
	for id := range e.calls {
		e.expected = append(e.expected, id)
	}
	slices.Sort(e.expected)
	e.config.Expect(e.expected)
}

func (e *Endpoint) schedule(deadline time.Time) { e.next = earlier(e.next, deadline) }

// without returns a copy of list that lacks v.
func without[T comparable](list []T, v T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(other T) bool { return other == v })
}

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// earlier returns the earlier of two deadlines; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

type counters struct {
	malformed, unknownCall, wrongSource, unexpected, writeErrors atomic.Uint64
}

// Stats counts what an Endpoint dropped, since it was made.
type Stats struct {
	Malformed   uint64 // packets that are no enhanced GRE
	UnknownCall uint64 // packets to a call that does not exist
	WrongSource uint64 // packets with a valid Call ID from another address
	Unexpected  uint64 // control messages of an unknown type, in the wrong state, or about a call that does not exist
	WriteErrors uint64 // acknowledgments that could not be sent
}

// Stats may be called by any goroutine.
func (e *Endpoint) Stats() Stats {
	c := &e.counters
	return Stats{c.malformed.Load(), c.unknownCall.Load(), c.wrongSource.Load(), c.unexpected.Load(), c.writeErrors.Load()}
}
