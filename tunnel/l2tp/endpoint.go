package l2tp

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	defaultHostName      = "gateway"
	defaultReceiveWindow = 8
	defaultHelloInterval = 60 * time.Second
	defaultMaxRetries    = 5
	defaultSetupTimeout  = 40 * time.Second // longer than a full cycle: a dead peer is better explained than a slow one
	defaultMaxTunnels    = 1024
	defaultMaxSessions   = 256
)

// Bounds on tunnels that others began and did not finish.
const (
	maxHalfOpen          = 128
	maxHalfOpenPerSource = 8
)

// Config is how an Endpoint behaves. Its zero value is a LAC that dials and accepts no tunnel.
type Config struct {
	HostName      string        // our Host Name AVP; "" means "gateway"
	VendorName    string        // our Vendor Name AVP; "" sends none
	Secret        []byte        // tunnel secret; if set, the peer must prove that it knows it (RFC 2661 section 5.1.1)
	HideAVPs      bool          // with a Secret: hide all AVPs that may be hidden, after the SCCRQ (section 4.3)
	ReceiveWindow int           // control messages that the peer may have outstanding, 1 to 32767; 0 means 8
	HelloInterval time.Duration // silence after which a HELLO is sent; 0 means 60 s, less than 0 never
	MaxRetries    int           // retransmissions before a tunnel is given up; 0 means 5: 31 s
	SetupTimeout  time.Duration // for a tunnel or session to come up; 0 means 40 s
	Sequencing    bool          // number data messages: as LAC require it of both sides, as LNS begin it (section 5.4)
	LengthBit     bool          // send data messages with a length field
	Permissive    bool          // ignore faulty and unknown AVPs even if their M bit is set
	OutgoingCalls bool          // as LAC: tell the LNS that it may ask for sessions (Bearer Capabilities, section 6.9)
	MaxTunnels    int           // at a time; 0 means 1024
	MaxSessions   int           // in one tunnel; 0 means 256

	// AcceptTunnel decides on a tunnel that a peer asks for; the secret is checked thereafter, and an error refuses it. hostName is the
	// peer's claim, of any content, up to 1017 bytes. nil refuses all.
	AcceptTunnel func(from netip.AddrPort, hostName string) (TunnelHandler, error)

	Random io.Reader    // of IDs, challenges and padding; nil means crypto/rand
	Log    *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	if c.HostName == "" {
		c.HostName = defaultHostName
	}
	c.ReceiveWindow = orDefault(c.ReceiveWindow, defaultReceiveWindow, 1<<15-1)
	if c.HelloInterval == 0 {
		c.HelloInterval = defaultHelloInterval
	}
	c.MaxRetries = orDefault(c.MaxRetries, defaultMaxRetries, 1000)
	if c.SetupTimeout <= 0 {
		c.SetupTimeout = defaultSetupTimeout
	}
	c.MaxTunnels = orDefault(c.MaxTunnels, defaultMaxTunnels, 1<<14)
	c.MaxSessions = orDefault(c.MaxSessions, defaultMaxSessions, 1<<15)
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

// fill reads random bytes. A source that fails is replaced: IDs and challenges must never be predictable.
func fill(random io.Reader, b []byte) {
	if _, err := io.ReadFull(random, b); err != nil {
		rand.Read(b)
	}
}

// A DatagramWriter sends datagrams: a UDP socket, or one whose datagrams go through ESP. Any goroutine may call it.
type DatagramWriter interface {
	// WriteDatagrams sends datagrams[i][offset:]. It may overwrite what is in front, at least Headroom bytes, use the capacity behind, at
	// least Tailroom bytes, and change the datagrams in place. They are borrowed until it returns.
	WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error
	Headroom() int
	Tailroom() int
	// MTU is the largest datagram in bytes that reaches to in one piece, e.g. 1472 for IPv4 over Ethernet.
	MTU(to netip.AddrPort) int
}

// A TunnelHandler hears of one tunnel. Its methods are called on the Endpoint's goroutine.
type TunnelHandler interface {
	// TunnelUp says that the tunnel is established: sessions can be opened.
	TunnelUp(now time.Time, t *Tunnel)
	// TunnelDown is called once, last, after SessionDown of all its sessions. err is a *PeerError, a *LocalError, or ErrClosed if we
	// closed the tunnel.
	TunnelDown(now time.Time, err error)
	// AcceptSession decides on a session that the peer asks for; s.Role tells what we would be in it. s is not up yet. An error refuses it.
	AcceptSession(now time.Time, s *Session) (SessionHandler, error)
}

// A SessionHandler hears of one session. Its methods are called on the Endpoint's goroutine.
type SessionHandler interface {
	// SessionUp says that frames can be written.
	SessionUp(now time.Time)
	// HandleFrames takes the PPP frames of a batch of data messages. They are borrowed until it returns and may be overwritten.
	HandleFrames(now time.Time, frames [][]byte)
	// SessionDown is called once, last. err is as in TunnelHandler.TunnelDown.
	SessionDown(now time.Time, err error)
}

// An Endpoint is one L2TP speaker behind one datagram socket, LAC and LNS at once. It belongs to one goroutine, but for Stats.
type Endpoint struct {
	config   Config
	w        DatagramWriter
	tunnels  map[uint16]*Tunnel  // by our tunnel ID; those in tunnelClosed are kept to acknowledge retransmissions
	sessions map[uint32]*Session // by our tunnel and session ID
	serial   uint32              // of the last call
	closing  bool
	next     time.Time // no deadline of any tunnel is earlier; there may be none at that time

	frames   [][]byte  // of the session whose data messages are being gathered
	scratch  []byte    // a control message on its way out
	datagram [1][]byte // a batch of one: scratch
	counters counters
}

// NewEndpoint makes an Endpoint that sends through w.
func NewEndpoint(c Config, w DatagramWriter) *Endpoint {
	return &Endpoint{config: c.withDefaults(), w: w, tunnels: make(map[uint16]*Tunnel), sessions: make(map[uint32]*Session)}
}

// Dial begins a tunnel to an LNS, usually on port Port of to. If there is no room for it, or the Endpoint is closed, h.TunnelDown is
// called before Dial returns.
func (e *Endpoint) Dial(now time.Time, to netip.AddrPort, h TunnelHandler) *Tunnel {
	to = unmapped(to)
	t := e.newTunnel(now, to, h)
	t.dialed = to
	switch {
	case e.closing:
		t.state = tunnelClosed
		t.end(now, ErrClosed)
	case e.live() >= e.config.MaxTunnels:
		t.state = tunnelClosed
		t.end(now, &LocalError{Kind: NoResources, Detail: "too many tunnels"})
	default:
		e.tunnels[t.id] = t
		t.sendSCCRQ(now)
		t.schedule()
	}
	return t
}

// Receive takes a batch of datagrams from one source, which are borrowed and may be overwritten. Consecutive data messages of one session
// go up in one call of HandleFrames. next is when Advance is to be called; zero means never, and it may have passed already.
func (e *Endpoint) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	from = unmapped(from)
	var s *Session // whose frames are being gathered
	for _, datagram := range datagrams {
		h, payload, err := parseHeader(datagram)
		switch {
		case err != nil:
			e.counters.malformed.Add(1)
		case h.control:
			e.handUp(now, s)
			s = nil
			e.receiveControl(now, from, h, payload)
		case len(payload) == 0:
			e.counters.malformed.Add(1)
		default:
			if s == nil || s.id != h.sessionID || s.tunnel.id != h.tunnelID {
				e.handUp(now, s)
				if s = e.sessionOf(h, from); s == nil {
					continue
				}
				s.tunnel.heard = now
			}
			s.receive(now, h, payload)
		}
	}
	e.handUp(now, s)
	return e.next
}

// sessionOf finds the session of a data message by peer, tunnel ID and session ID.
func (e *Endpoint) sessionOf(h header, from netip.AddrPort) *Session {
	s := e.sessions[sessionKey(h.tunnelID, h.sessionID)]
	if s == nil {
		e.counters.unknownSession.Add(1)
		return nil
	}
	if s.tunnel.peer != from {
		e.counters.wrongSource.Add(1)
		return nil
	}
	return s
}

// handUp passes the gathered frames on.
func (e *Endpoint) handUp(now time.Time, s *Session) {
	if len(e.frames) == 0 {
		return
	}
	frames := e.frames
	if s != nil && s.state == sessionEstablished {
		s.countReceived(frames)
		s.handler.HandleFrames(now, frames)
	}
	e.frames = frames[:0]
}

// receiveControl finds the tunnel of a control message.
func (e *Endpoint) receiveControl(now time.Time, from netip.AddrPort, h header, body []byte) {
	if h.tunnelID == 0 {
		e.receiveUnassigned(now, from, h, body)
		return
	}
	t := e.tunnels[h.tunnelID]
	switch {
	case t == nil:
		e.counters.unknownTunnel.Add(1)
	case !t.isFrom(from):
		e.counters.wrongSource.Add(1)
	default:
		t.receive(now, from, h, body)
	}
}

// receiveUnassigned takes a message of a peer that does not know our tunnel ID: an SCCRQ, or the StopCCN of a peer that gives up early.
func (e *Endpoint) receiveUnassigned(now time.Time, from netip.AddrPort, h header, body []byte) {
	m, f := parseMessage(body, e.config.Secret, e.config.Permissive)
	peerID := m.uint16(attrAssignedTunnelID)
	if m.kind != msgSCCRQ && m.kind != msgStopCCN || peerID == 0 {
		e.counters.malformed.Add(1)
		return
	}
	for _, t := range e.tunnels {
		// A retransmission is no second tunnel. One that is closed can still be closed again, but not be asked for.
		if t.peerID == peerID && t.peer == from && !t.dialed.IsValid() && (t.state != tunnelClosed || m.kind == msgStopCCN) {
			t.receive(now, from, h, body)
			return
		}
	}
	if m.kind != msgSCCRQ || h.ns != 0 || h.nr != 0 {
		e.counters.unknownTunnel.Add(1)
		return
	}
	if r, ok := e.admit(now, from, &m, f); !ok {
		if r.code != 0 {
			e.refuse(from, peerID, r)
		}
		return
	}
	handler, err := e.config.AcceptTunnel(from, string(m.value(attrHostName)))
	if err != nil || handler == nil {
		e.refuse(from, peerID, result{code: stopNotAuthorized})
		return
	}
	t := e.newTunnel(now, from, handler)
	t.state = tunnelWaitConnect
	t.heard = now
	t.delivery.nr = 1
	e.tunnels[t.id] = t
	t.sendSCCRP(now, &m)
	t.schedule()
}

// admit decides whether an SCCRQ may become a tunnel; if not, with which result it is refused, or with no answer at all if that is zero.
func (e *Endpoint) admit(now time.Time, from netip.AddrPort, m *message, f *fault) (result, bool) {
	if f != nil {
		return result{stopError, f.code, f.text}, false
	}
	if r, ok := checkVersion(m); !ok {
		return r, false
	}
	if e.config.AcceptTunnel == nil {
		return result{code: stopNotAuthorized}, false
	}
	if e.closing {
		return result{code: stopShutdown}, false
	}
	if m.has(attrChallenge) && len(e.config.Secret) == 0 {
		return result{code: stopNotAuthorized, text: "no tunnel secret here"}, false
	}
	var halfOpen, ofSource int
	for _, id := range e.tunnelIDs() {
		t := e.tunnels[id]
		if t.state == tunnelWaitReply && t.dialed.Addr() == from.Addr() && !t.settleTie(now, m) {
			return result{}, false // the peer drops its request as we drop ours if we lost
		}
		if t.state == tunnelWaitConnect {
			halfOpen++
			if t.peer.Addr() == from.Addr() {
				ofSource++
			}
		}
	}
	if halfOpen >= maxHalfOpen || ofSource >= maxHalfOpenPerSource || e.live() >= e.config.MaxTunnels {
		return result{stopError, errorResources, ""}, false
	}
	return result{}, true
}

// refuse answers an SCCRQ with a StopCCN and keeps no state of it.
func (e *Endpoint) refuse(to netip.AddrPort, peerID uint16, r result) {
	e.counters.refusedTunnels.Add(1)
	c := compose(msgStopCCN, nil, e.config.Random)
	c.uint16(attrAssignedTunnelID, e.newTunnelID())
	c.bytes(attrResultCode, appendResult(nil, r))
	e.write(to, header{control: true, length: true, sequenced: true, tunnelID: peerID, nr: 1}, c.body)
}

// write puts one control message on the wire.
func (e *Endpoint) write(to netip.AddrPort, h header, body []byte) error {
	offset := e.w.Headroom()
	e.scratch = slices.Grow(e.scratch[:0], offset+controlHeaderSize+len(body)+e.w.Tailroom())[:offset]
	e.datagram[0] = append(appendHeader(e.scratch, h, len(body)), body...)
	err := e.w.WriteDatagrams(e.datagram[:], offset, to)
	if err != nil {
		e.counters.writeErrors.Add(1)
	}
	return err
}

// Advance does what is due by now. next is as in Receive.
func (e *Endpoint) Advance(now time.Time) (next time.Time) {
	if !due(e.next, now) {
		return e.next
	}
	e.next = time.Time{}
	for _, id := range e.tunnelIDs() {
		if t := e.tunnels[id]; t != nil {
			t.advance(now)
			t.schedule()
		}
	}
	return e.next
}

// NextDeadline is when Advance is to be called; zero means never.
func (e *Endpoint) NextDeadline() time.Time { return e.next }

// Unreachable tells that the network or the host at to refused a datagram, as an ICMP error says. It ends the tunnels being dialed to
// that address; those that are up are left to their retransmissions, since anyone can forge such an error.
func (e *Endpoint) Unreachable(now time.Time, to netip.AddrPort, err error) (next time.Time) {
	to = unmapped(to)
	for _, id := range e.tunnelIDs() {
		if t := e.tunnels[id]; t != nil && t.state == tunnelWaitReply && t.peer == to {
			t.abandon(now, &LocalError{Kind: Unreachable, Detail: "cannot reach " + to.String(), Err: err})
		}
	}
	return e.next
}

// Close ends all tunnels with StopCCN and refuses new ones. Handlers have heard of it when it returns; Idle tells when the peers have, too.
func (e *Endpoint) Close(now time.Time) (next time.Time) {
	e.closing = true
	for _, id := range e.tunnelIDs() {
		if t := e.tunnels[id]; t != nil {
			t.shut(now, result{code: stopShutdown}, ErrClosed)
		}
	}
	return e.next
}

// Idle tells whether no tunnel is up, coming up, or waiting for its peer to acknowledge the end.
func (e *Endpoint) Idle() bool { return e.live() == 0 }

func (e *Endpoint) live() (n int) {
	for _, t := range e.tunnels {
		if t.state != tunnelClosed {
			n++
		}
	}
	return n
}

// tunnelIDs lists the tunnels in an order that does not change from run to run, and that holds while handlers change the map.
func (e *Endpoint) tunnelIDs() []uint16 { return slices.Sorted(maps.Keys(e.tunnels)) }

func (e *Endpoint) newTunnelID() uint16 {
	return e.newID(func(id uint16) bool { return e.tunnels[id] != nil })
}

// newID draws an ID that is neither 0 nor taken; IDs that cannot be guessed are what protects a tunnel from others (RFC 2661 section 9.1).
// The limits of Config leave free ones.
func (e *Endpoint) newID(taken func(uint16) bool) uint16 {
	var b [2]byte
	fill(e.config.Random, b[:])
	id := binary.BigEndian.Uint16(b[:])
	for id == 0 || taken(id) {
		id++
	}
	return id
}

func (e *Endpoint) schedule(deadline time.Time) { e.next = earlier(e.next, deadline) }

func sessionKey(tunnelID, sessionID uint16) uint32 { return uint32(tunnelID)<<16 | uint32(sessionID) }

// unmapped gives an address the one form in which it can be compared.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

type counters struct {
	malformed, unknownTunnel, unknownSession, wrongSource, badNumber, refusedTunnels, writeErrors atomic.Uint64
}

// Stats counts what an Endpoint dropped or refused, since it was made.
type Stats struct {
	Malformed      uint64 // datagrams that are no L2TP
	UnknownTunnel  uint64 // control messages to a tunnel that does not exist
	UnknownSession uint64 // messages to a session that does not exist
	WrongSource    uint64 // messages with valid IDs from another address
	BadNumber      uint64 // control messages that acknowledge what was never sent
	RefusedTunnels uint64 // SCCRQs answered with StopCCN
	WriteErrors    uint64 // control messages that could not be sent
}

// Stats may be called by any goroutine.
func (e *Endpoint) Stats() Stats {
	c := &e.counters
	return Stats{c.malformed.Load(), c.unknownTunnel.Load(), c.unknownSession.Load(), c.wrongSource.Load(), c.badNumber.Load(),
		c.refusedTunnels.Load(), c.writeErrors.Load()}
}
