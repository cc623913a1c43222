package l2tp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// A Role is what one side is in a session. The LAC has the user, the LNS the network.
type Role uint8

const (
	LAC Role = iota + 1
	LNS
)

func (r Role) String() string {
	if r == LNS {
		return "LNS"
	}
	return "LAC"
}

type sessionState uint8

// The states of a session (RFC 2661 sections 7.4 and 7.5). Ours as LAC to an OCRQ is established at once.
const (
	sessionWaitReply       sessionState = iota // LAC, ICRQ sent
	sessionWaitConnect                         // LNS, ICRP sent
	sessionWaitCallReply                       // LNS, OCRQ sent
	sessionWaitCallConnect                     // LNS, OCRP received
	sessionEstablished
	sessionClosed
)

var sessionStateNames = [...]string{"wait-reply", "wait-connect", "wait-call-reply", "wait-call-connect", "established", "closed"}

func (s sessionState) String() string { return sessionStateNames[s] }

// maxEarly bounds the frames that are kept for a session that is not up yet: they overtook the message that brings it up.
const maxEarly = 8

var (
	errTunnelNotUp  = errors.New("l2tp: tunnel is not up")
	errHeadroom     = errors.New("l2tp: frames come without room for the header")
	errFrameTooLong = errors.New("l2tp: frame is too long for the length field")
)

// A Session carries the frames of one PPP link. It belongs to its Endpoint's goroutine, but for WriteFrames, Headroom, Tailroom, MTU and
// Stats.
type Session struct {
	tunnel  *Tunnel
	handler SessionHandler
	role    Role
	state   sessionState
	id      uint16 // the one that we assigned
	peerID  uint16 // the one that the peer assigned; 0 until it is known
	setupBy time.Time

	early              []earlyFrame
	order              reorder
	sequencingRequired bool // by the Sequencing Required AVP: it cannot be switched off

	// For the writers: fixed when open becomes true.
	open       atomic.Bool
	w          DatagramWriter
	to         netip.AddrPort
	header     header
	sequencing atomic.Bool // whether data messages are numbered
	ns         uint16      // of the next numbered one; of whoever calls WriteFrames

	counters sessionCounters
}

// An earlyFrame is a copy of a data message that came before the session was up.
type earlyFrame struct {
	header header
	frame  []byte
}

// newSession makes a session of an established tunnel; it counts only when it is registered.
func (t *Tunnel) newSession(now time.Time, role Role, state sessionState) (*Session, error) {
	switch {
	case t.state > tunnelEstablished:
		return nil, ErrClosed
	case t.state < tunnelEstablished:
		return nil, errTunnelNotUp
	case len(t.sessions) >= t.endpoint.config.MaxSessions:
		return nil, &LocalError{Session: true, Kind: NoResources, Detail: "too many sessions in the tunnel"}
	}
	id := t.endpoint.newID(func(id uint16) bool { return t.sessions[id] != nil })
	return &Session{tunnel: t, role: role, state: state, id: id, setupBy: now.Add(t.endpoint.config.SetupTimeout)}, nil
}

func (t *Tunnel) register(s *Session) {
	t.sessions[s.id] = s
	t.endpoint.sessions[sessionKey(t.id, s.id)] = s
}

// ID is the session ID that we assigned.
func (s *Session) ID() uint16 { return s.id }

// Role is what we are in the session.
func (s *Session) Role() Role { return s.role }

// Tunnel is the session's tunnel.
func (s *Session) Tunnel() *Tunnel { return s.tunnel }

// receiveICRQ answers a LAC that asks for a session.
func (t *Tunnel) receiveICRQ(now time.Time, m *message) {
	if s := t.acceptSession(now, m, LNS, sessionWaitConnect); s != nil {
		reply := t.compose(msgICRP)
		reply.uint16(attrAssignedSessionID, s.id)
		t.send(now, s.peerID, reply)
	}
}

// receiveOCRQ answers an LNS that asks for a session. There is no line to dial: it is connected at once.
func (t *Tunnel) receiveOCRQ(now time.Time, m *message) {
	s := t.acceptSession(now, m, LAC, sessionWaitReply)
	if s == nil {
		return
	}
	reply := t.compose(msgOCRP)
	reply.uint16(attrAssignedSessionID, s.id)
	if t.send(now, s.peerID, reply) {
		s.connect(now, msgOCCN)
	}
}

// acceptSession asks the handler. It returns nil if the session was refused.
func (t *Tunnel) acceptSession(now time.Time, m *message, role Role, state sessionState) *Session {
	peerID := m.uint16(attrAssignedSessionID)
	s, err := t.newSession(now, role, state)
	if err != nil {
		t.refuseSession(now, peerID, result{code: cdnNoFacilities})
		return nil
	}
	s.peerID = peerID
	s.handler, err = t.handler.AcceptSession(now, s)
	if t.state != tunnelEstablished || s.state == sessionClosed {
		return nil // the handler closed it
	}
	if err != nil || s.handler == nil {
		t.refuseSession(now, peerID, result{code: cdnAdministrative})
		return nil
	}
	t.register(s)
	return s
}

// refuseSession answers a request for a session with a CDN. The Assigned Session ID in it is one that we would have used.
func (t *Tunnel) refuseSession(now time.Time, peerID uint16, r result) {
	if peerID == 0 {
		return // nobody to tell
	}
	m := t.compose(msgCDN)
	m.bytes(attrResultCode, appendResult(nil, r))
	m.uint16(attrAssignedSessionID, t.endpoint.newID(func(id uint16) bool { return t.sessions[id] != nil }))
	t.send(now, peerID, m)
}

func (s *Session) ignore(time.Time, *message) {}

// receiveICRP: the LNS takes our session.
func (s *Session) receiveICRP(now time.Time, m *message) {
	s.peerID = m.uint16(attrAssignedSessionID)
	s.connect(now, msgICCN)
}

// connect tells the LNS that the session is connected, with ICCN or OCCN. Rx Connect Speed is left out: some firewalls stall on it.
func (s *Session) connect(now time.Time, kind messageType) {
	m := s.tunnel.compose(kind)
	m.uint32(attrTxConnectSpeed, connectSpeed)
	m.uint32(attrFramingType, s.tunnel.framing())
	if s.tunnel.endpoint.config.Sequencing {
		m.bytes(attrSequencingRequired, nil)
		s.sequencingRequired = true
	}
	if s.tunnel.send(now, s.peerID, m) {
		s.up(now)
	}
}

// receiveOCRP: the LAC takes our session and will connect it.
func (s *Session) receiveOCRP(_ time.Time, m *message) {
	s.peerID = m.uint16(attrAssignedSessionID)
	s.state = sessionWaitCallConnect
}

// receiveConnected: the LAC has connected the session (ICCN, OCCN). Proxy LCP and authentication AVPs are not used (RFC 2661 section 9.5).
func (s *Session) receiveConnected(now time.Time, m *message) {
	s.sequencingRequired = m.has(attrSequencingRequired)
	s.up(now)
}

func (s *Session) up(now time.Time) {
	t := s.tunnel
	s.state = sessionEstablished
	s.w, s.to = t.endpoint.w, t.peer
	s.header = header{length: t.endpoint.config.LengthBit, tunnelID: t.peerID, sessionID: s.peerID}
	s.sequencing.Store(s.sequencingRequired || s.role == LNS && t.endpoint.config.Sequencing)
	s.open.Store(true)
	t.endpoint.config.Log.Info("l2tp session up", "peer", t.peer, "role", s.role.String(), "id", s.id, "peer_id", s.peerID)
	s.handler.SessionUp(now)
	for _, early := range s.early {
		s.receive(now, early.header, early.frame)
	}
	s.early = nil
	t.endpoint.handUp(now, s)
}

// receiveCDN: the peer ends the session.
func (s *Session) receiveCDN(now time.Time, m *message) {
	r := parseResult(m.value(attrResultCode))
	err := &PeerError{Session: true, WasUp: s.state == sessionEstablished, ResultCode: uint16(r.code), ErrorCode: uint16(r.error), Text: r.text}
	if cause := m.value(attrCauseCode); len(cause) >= 3 {
		err.CauseCode = binary.BigEndian.Uint16(cause)
		if err.Text == "" {
			err.Text = readable(cause[3:])
		}
	}
	s.end(now, err)
}

// Close ends the session with CDN. The handler has heard of it when it returns.
func (s *Session) Close(now time.Time) { s.shut(now, result{code: cdnAdministrative}, ErrClosed) }

// shut ends the session from our side: r is what the peer is told, err what the handler is told.
func (s *Session) shut(now time.Time, r result, err error) {
	if s.state == sessionClosed {
		return
	}
	if s.handler == nil { // still being asked about in AcceptSession
		s.state = sessionClosed
		s.tunnel.refuseSession(now, s.peerID, r)
		return
	}
	m := s.tunnel.compose(msgCDN)
	m.bytes(attrResultCode, appendResult(nil, r))
	m.uint16(attrAssignedSessionID, s.id)
	if s.tunnel.send(now, s.peerID, m) {
		s.end(now, err)
	}
	s.tunnel.schedule()
}

// end tells the handler, once.
func (s *Session) end(now time.Time, err error) {
	if s.state == sessionClosed {
		return
	}
	s.state = sessionClosed
	s.open.Store(false)
	delete(s.tunnel.sessions, s.id)
	delete(s.tunnel.endpoint.sessions, sessionKey(s.tunnel.id, s.id))
	s.tunnel.endpoint.config.Log.Info("l2tp session down", "peer", s.tunnel.peer, "id", s.id, "cause", err)
	s.handler.SessionDown(now, err)
}

// receive adds the frame of a data message to those that the Endpoint gathers.
func (s *Session) receive(now time.Time, h header, frame []byte) {
	e := s.tunnel.endpoint
	if s.state != sessionEstablished {
		s.receiveEarly(h, frame)
		return
	}
	// The LNS decides on sequencing, message by message, and the LAC follows (RFC 2661 section 5.4).
	if s.role == LAC && !s.sequencingRequired && h.sequenced != s.sequencing.Load() {
		s.sequencing.Store(h.sequenced)
	}
	if !h.sequenced {
		e.frames = append(e.frames, frame)
		return
	}
	if s.order.isNext(h.ns) {
		e.frames = s.order.passed(append(e.frames, frame))
		return
	}
	if len(frame) > maxHeld {
		s.counters.dropped.Add(1)
		return
	}
	e.handUp(now, s) // frames that had been held must be gone before another is
	e.frames = s.order.hold(now, h.ns, frame, e.frames)
	e.schedule(s.order.release)
}

// receiveEarly keeps a frame that overtook the ICRP, ICCN or OCCN.
func (s *Session) receiveEarly(h header, frame []byte) {
	if s.state == sessionClosed || len(s.early) >= maxEarly || len(frame) > maxHeld {
		s.counters.dropped.Add(1)
		return
	}
	s.early = append(s.early, earlyFrame{h, append([]byte(nil), frame...)})
}

// advance does what is due by now.
func (s *Session) advance(now time.Time) {
	if s.state != sessionEstablished {
		if due(s.setupBy, now) {
			s.shut(now, result{code: cdnTimeout},
				&LocalError{Session: true, Kind: TimedOut, Detail: fmt.Sprintf("%v did not finish the session in time", s.tunnel.peer)})
		}
		return
	}
	if due(s.order.release, now) {
		e := s.tunnel.endpoint
		e.frames = s.order.flush(e.frames)
		e.handUp(now, s)
	}
}

func (s *Session) deadline() time.Time {
	if s.state != sessionEstablished {
		return s.setupBy
	}
	return s.order.release
}

// WriteFrames sends the PPP frames frames[i][offset:], each in a data message. What is in front of them, at least Headroom bytes, is
// overwritten; they are borrowed until it returns. It may run beside everything else, but not beside itself. It fails with ErrClosed
// when the session is not up, and with what the DatagramWriter says. It allocates nothing.
func (s *Session) WriteFrames(frames [][]byte, offset int) error {
	if !s.open.Load() {
		return ErrClosed
	}
	h := s.header
	h.sequenced = s.sequencing.Load()
	start := offset - h.size()
	if start < 0 {
		return errHeadroom
	}
	size := 0
	for _, f := range frames {
		size += len(f) - offset
		if h.length && len(f)-start > 0xffff {
			return errFrameTooLong
		}
	}
	for _, f := range frames {
		if h.sequenced {
			h.ns = s.ns
			s.ns++
		}
		appendHeader(f[start:start], h, len(f)-offset)
	}
	s.counters.framesSent.Add(uint64(len(frames)))
	s.counters.bytesSent.Add(uint64(size))
	return s.w.WriteDatagrams(frames, start, s.to)
}

// Headroom is how many bytes WriteFrames needs in front of a frame.
func (s *Session) Headroom() int { return s.tunnel.endpoint.w.Headroom() + maxHeaderSize }

// Tailroom is how many bytes of capacity WriteFrames needs behind a frame.
func (s *Session) Tailroom() int { return s.tunnel.endpoint.w.Tailroom() }

// MTU is the largest PPP frame in bytes, counted from the address field (FF 03), that reaches the peer in one piece. It is 4 less while
// data messages are numbered.
func (s *Session) MTU() int {
	h := s.header
	h.sequenced = s.sequencing.Load()
	return s.tunnel.endpoint.w.MTU(s.to) - h.size()
}

type sessionCounters struct {
	framesReceived, bytesReceived, framesSent, bytesSent, dropped atomic.Uint64
}

func (s *Session) countReceived(frames [][]byte) {
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	s.counters.framesReceived.Add(uint64(len(frames)))
	s.counters.bytesReceived.Add(uint64(size))
}

// SessionStats counts the traffic of a session.
type SessionStats struct {
	FramesReceived, BytesReceived uint64 // PPP frames handed up
	FramesSent, BytesSent         uint64
	Dropped                       uint64 // frames that came before the session was up, or out of order, and were too many or too long to keep
	Late                          uint64 // numbered frames dropped because their number had passed
	Reordered                     uint64 // numbered frames that had to wait for one before them
	Lost                          uint64 // numbers that never came, or came late
}

// Stats may be called by any goroutine.
func (s *Session) Stats() SessionStats {
	c := &s.counters
	return SessionStats{c.framesReceived.Load(), c.bytesReceived.Load(), c.framesSent.Load(), c.bytesSent.Load(), c.dropped.Load(),
		s.order.late.Load(), s.order.reversed.Load(), s.order.lost.Load()}
}
