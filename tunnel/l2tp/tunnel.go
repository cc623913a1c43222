package l2tp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

const (
	protocolVersion1 = "\x01\x00"    // version 1, revision 0 (RFC 2661 section 4.4.3)
	framingBoth      = uint32(3)     // asynchronous and synchronous
	framingSync      = uint32(1)     // synchronous: what PPP over L2TP is
	bearerBoth       = uint32(3)     // analog and digital
	connectSpeed     = uint32(100e6) // bit/s; for the peer's information only
	challengeSize    = 16
)

type tunnelState uint8

// The states of a control connection (RFC 2661 section 7.2.1), and two for its end. Idle is no tunnel.
const (
	tunnelWaitReply   tunnelState = iota // SCCRQ sent
	tunnelWaitConnect                    // SCCRP sent
	tunnelEstablished
	tunnelClosing // StopCCN sent: waits to be acknowledged
	tunnelClosed  // acknowledges retransmissions of the peer, for a full cycle (section 5.7)
)

var tunnelStateNames = [...]string{"wait-ctl-reply", "wait-ctl-conn", "established", "closing", "closed"}

func (s tunnelState) String() string { return tunnelStateNames[s] }

// A Tunnel is one control connection with its sessions. It belongs to its Endpoint's goroutine.
type Tunnel struct {
	endpoint *Endpoint
	handler  TunnelHandler
	state    tunnelState
	id       uint16 // the one that we assigned
	peerID   uint16 // the one that the peer assigned; 0 until it is known
	dialed   netip.AddrPort
	peer     netip.AddrPort // whom we talk to; for a dialed tunnel fixed by the SCCRP
	ended    bool           // the handlers know
	minimal  bool           // the SCCRQ held required AVPs only

	delivery delivery
	heard    time.Time // when anything last came from the peer; zero: never
	setupBy  time.Time
	forgetAt time.Time // in tunnelClosed
	writeErr error     // why the last control message could not be sent

	challenge   []byte // ours; nil: the peer need not prove anything
	tieBreaker  []byte
	hostName    string // the peer's
	vendorName  string
	framingCaps uint32
	bearerCaps  uint32

	sessions map[uint16]*Session
}

func (e *Endpoint) newTunnel(now time.Time, peer netip.AddrPort, h TunnelHandler) *Tunnel {
	t := &Tunnel{endpoint: e, handler: h, id: e.newTunnelID(), peer: peer, setupBy: now.Add(e.config.SetupTimeout),
		sessions: make(map[uint16]*Session)}
	t.delivery = newDelivery(e.config.ReceiveWindow, e.config.MaxRetries, t.transmit)
	if len(e.config.Secret) > 0 {
		t.challenge = make([]byte, challengeSize)
		fill(e.config.Random, t.challenge)
	}
	return t
}

// ID is the tunnel ID that we assigned.
func (t *Tunnel) ID() uint16 { return t.id }

// Peer is the address that the tunnel's datagrams go to.
func (t *Tunnel) Peer() netip.AddrPort { return t.peer }

// HostName is what the peer calls itself, of any content; "" until it has said so.
func (t *Tunnel) HostName() string { return t.hostName }

// VendorName is the peer's Vendor Name AVP, of any content; "" if there is none.
func (t *Tunnel) VendorName() string { return t.vendorName }

// OpenSession asks the LNS for a session in which we are the LAC (ICRQ). The tunnel must be up. h hears of the answer.
func (t *Tunnel) OpenSession(now time.Time, h SessionHandler) (*Session, error) {
	s, err := t.newSession(now, LAC, sessionWaitReply)
	if err != nil {
		return nil, err
	}
	m := t.compose(msgICRQ)
	m.uint16(attrAssignedSessionID, s.id)
	m.uint32(attrCallSerialNumber, t.endpoint.nextSerial())
	return t.begin(now, s, h, m)
}

// CallOut asks the LAC for a session in which we are the LNS (OCRQ). The tunnel must be up and its peer must have said that it takes
// calls. h hears of the answer.
func (t *Tunnel) CallOut(now time.Time, h SessionHandler) (*Session, error) {
	if t.state == tunnelEstablished && t.bearerCaps&bearerBoth == 0 {
		return nil, &LocalError{Session: true, Kind: Refused, Detail: "peer takes no outgoing calls: it has sent no Bearer Capabilities"}
	}
	s, err := t.newSession(now, LNS, sessionWaitCallReply)
	if err != nil {
		return nil, err
	}
	m := t.compose(msgOCRQ)
	m.uint16(attrAssignedSessionID, s.id)
	m.uint32(attrCallSerialNumber, t.endpoint.nextSerial())
	m.uint32(attrMinimumBPS, 0)
	m.uint32(attrMaximumBPS, connectSpeed)
	m.uint32(attrBearerType, t.bearerCaps&bearerBoth)
	m.uint32(attrFramingType, t.framing())
	m.bytes(attrCalledNumber, nil)
	return t.begin(now, s, h, m)
}

func (t *Tunnel) begin(now time.Time, s *Session, h SessionHandler, m *composer) (*Session, error) {
	s.handler = h
	if !t.send(now, 0, m) {
		return nil, &LocalError{Session: true, Kind: NoResources, Detail: "too many messages wait for the peer"}
	}
	t.register(s)
	t.schedule()
	return s, nil
}

func (e *Endpoint) nextSerial() uint32 {
	e.serial++
	return e.serial
}

// framing is a Framing Type that the peer said it can do (RFC 2661 section 4.4.3, Framing Capabilities).
func (t *Tunnel) framing() uint32 {
	if t.framingCaps&framingBoth != 0 && t.framingCaps&framingSync == 0 {
		return t.framingCaps & framingBoth
	}
	return framingSync
}

// Close ends the tunnel and its sessions with StopCCN. Handlers have heard of it when it returns.
func (t *Tunnel) Close(now time.Time) { t.shut(now, result{code: stopGeneral}, ErrClosed) }

// compose begins a message. An SCCRQ hides nothing: the peer learns from it, by the Host Name, which secret is ours, and xl2tpd does
// so too late to read hidden AVPs in it.
func (t *Tunnel) compose(kind messageType) *composer {
	c := &t.endpoint.config
	if c.HideAVPs && kind != msgSCCRQ {
		return compose(kind, c.Secret, c.Random)
	}
	return compose(kind, nil, c.Random)
}

// send hands a message to delivery. It is false if the tunnel is at its end, or if too many messages wait
// already, which ends it.
func (t *Tunnel) send(now time.Time, sessionID uint16, m *composer) bool {
	if t.state >= tunnelClosing {
		return false
	}
	if t.delivery.send(now, outgoing{sessionID: sessionID, body: m.body}) {
		return true
	}
	t.shut(now, result{stopError, errorResources, ""}, &LocalError{Kind: NoResources, Detail: "peer does not acknowledge what it asks for"})
	return false
}

// transmit is how delivery reaches the wire.
func (t *Tunnel) transmit(sessionID, ns, nr uint16, body []byte) {
	h := header{control: true, length: true, sequenced: true, tunnelID: t.peerID, sessionID: sessionID, ns: ns, nr: nr}
	t.writeErr = t.endpoint.write(t.peer, h, body)
}

// isFrom tells whether a message from this address can belong to the tunnel. A dialed peer may answer from another port; from then on
// the pair is fixed (RFC 2661 section 8.1).
func (t *Tunnel) isFrom(from netip.AddrPort) bool {
	if t.state == tunnelWaitReply {
		return t.dialed.Addr() == from.Addr()
	}
	return t.peer == from
}

// receive takes a control message of this tunnel.
func (t *Tunnel) receive(now time.Time, from netip.AddrPort, h header, body []byte) {
	deliver := func(m incoming) {
		if t.state == tunnelWaitReply {
			t.peer = from
		}
		t.dispatch(now, m)
	}
	t.heard = now
	if !t.delivery.receive(now, h, body, deliver) {
		t.endpoint.counters.badNumber.Add(1)
		return
	}
	if due(t.delivery.acknowledgeAt, now) {
		t.delivery.acknowledge()
	}
	if t.state == tunnelClosing && len(t.delivery.queue) == 0 {
		t.retire(now)
	}
	t.schedule()
}

// dispatch checks a message against messageRules and calls its handler.
func (t *Tunnel) dispatch(now time.Time, in incoming) {
	if t.state == tunnelClosed {
		return
	}
	config := &t.endpoint.config
	m, f := parseMessage(in.body, config.Secret, config.Permissive)
	rule, known := messageRules[m.kind]
	switch {
	case t.state == tunnelClosing && m.kind != msgStopCCN:
		// Our StopCCN is on its way: nothing else matters.
	case !known:
		if f != nil || m.mandatory && !config.Permissive { // RFC 2661 section 4.4.1, Message Type
			t.fail(now, &fault{code: errorValue, text: m.kind.String()})
		}
	case rule.onSession != nil:
		t.dispatchSession(now, in.sessionID, &m, f)
	case f != nil && t.state == tunnelEstablished && (m.kind == msgICRQ || m.kind == msgOCRQ):
		t.refuseSession(now, m.uint16(attrAssignedSessionID), result{cdnError, f.code, f.text})
	case f != nil:
		t.fail(now, f)
	case !rule.tunnelStates.has(t.state):
		t.failState(now, m.kind)
	default:
		rule.onTunnel(t, now, &m)
	}
}

func (t *Tunnel) dispatchSession(now time.Time, id uint16, m *message, f *fault) {
	if t.state != tunnelEstablished {
		t.failState(now, m.kind)
		return
	}
	s := t.sessions[id]
	if s == nil && id == 0 && m.kind == msgCDN {
		s = t.sessionOfPeer(m.uint16(attrAssignedSessionID)) // the peer gives up before it knows our ID (RFC 2661 section 5.6)
	}
	rule := messageRules[m.kind]
	switch {
	case s == nil:
		t.endpoint.counters.unknownSession.Add(1) // it was closed while the message was on its way; it is acknowledged, no more
	case f != nil:
		s.shut(now, result{cdnError, f.code, f.text}, &LocalError{Session: true, Kind: f.kind(t), Detail: fmt.Sprintf("faulty %v: %s", m.kind, f.text)})
	case !rule.sessionStates.has(s.state):
		text := fmt.Sprintf("%v in state %v", m.kind, s.state)
		s.shut(now, result{cdnError, errorVendor, text}, &LocalError{Session: true, Kind: Protocol, Detail: "peer sent " + text})
	default:
		rule.onSession(s, now, m)
	}
}

func (t *Tunnel) sessionOfPeer(peerID uint16) *Session {
	for _, s := range t.sessions {
		if s.peerID == peerID && peerID != 0 {
			return s
		}
	}
	return nil
}

// kind tells what a fault means to the user.
func (f *fault) kind(t *Tunnel) Kind {
	switch {
	case !f.secret:
		return Protocol
	case len(t.endpoint.config.Secret) == 0:
		return NoSecret
	}
	return WrongSecret
}

// fail ends the tunnel because of a faulty message (RFC 2661 section 7.1).
func (t *Tunnel) fail(now time.Time, f *fault) {
	t.shut(now, result{stopError, f.code, f.text}, &LocalError{Kind: f.kind(t), Detail: "faulty message from the peer: " + f.text})
}

// failState ends the tunnel because of a message that must not come now (RFC 2661 section 7.2.1).
func (t *Tunnel) failState(now time.Time, kind messageType) {
	text := fmt.Sprintf("%v in state %v", kind, t.state)
	t.shut(now, result{stopFSM, 0, text}, &LocalError{Kind: Protocol, Detail: "peer sent " + text})
}

func (t *Tunnel) ignore(time.Time, *message) {}

func (t *Tunnel) receiveStopCCN(now time.Time, m *message) {
	if t.peerID == 0 {
		t.peerID = m.uint16(attrAssignedTunnelID)
	}
	t.delivery.quiet()
	t.delivery.acknowledgeAt = now
	r := parseResult(m.value(attrResultCode))
	if t.state == tunnelWaitReply && !t.minimal && r.code == stopError && (r.error == errorValue || r.error == errorUnknownAVP) {
		t.retryMinimal(now)
		return
	}
	err := &PeerError{WasUp: t.state == tunnelEstablished, ResultCode: uint16(r.code), ErrorCode: uint16(r.error), Text: r.text}
	t.retire(now)
	t.end(now, err)
}

// shut ends the tunnel from our side: r is what the peer is told, err what the handlers are told.
func (t *Tunnel) shut(now time.Time, r result, err error) {
	if t.state >= tunnelClosing {
		return
	}
	m := t.compose(msgStopCCN)
	m.uint16(attrAssignedTunnelID, t.id)
	m.bytes(attrResultCode, appendResult(nil, r))
	t.delivery.sendLast(now, outgoing{body: m.body})
	t.state = tunnelClosing
	if t.heard.IsZero() {
		t.forget() // nobody is there to acknowledge it
	}
	t.end(now, err)
	t.schedule()
}

// abandon ends the tunnel without telling the peer.
func (t *Tunnel) abandon(now time.Time, err error) {
	t.forget()
	t.end(now, err)
}

// retire leaves a tunnel that only acknowledges what the peer retransmits (RFC 2661 section 5.7).
func (t *Tunnel) retire(now time.Time) {
	t.delivery.quiet()
	t.state = tunnelClosed
	t.forgetAt = now.Add(fullCycle)
	if len(t.endpoint.tunnels)-t.endpoint.live() > t.endpoint.config.MaxTunnels {
		t.forget()
	}
}

func (t *Tunnel) forget() {
	t.state = tunnelClosed
	delete(t.endpoint.tunnels, t.id)
}

// end tells the handlers, once. The tunnel's state no longer lets them use it.
func (t *Tunnel) end(now time.Time, err error) {
	if t.ended {
		return
	}
	t.ended = true
	t.endpoint.config.Log.Info("l2tp tunnel down", "peer", t.peer, "id", t.id, "cause", err)
	for _, id := range slices.Sorted(maps.Keys(t.sessions)) {
		if s := t.sessions[id]; s != nil {
			s.end(now, err)
		}
	}
	t.handler.TunnelDown(now, err)
}

// advance does what is due by now.
func (t *Tunnel) advance(now time.Time) {
	if t.state == tunnelClosed && due(t.forgetAt, now) {
		t.forget()
		return
	}
	if !t.delivery.advance(now, t.heard) {
		t.giveUp(now)
		return
	}
	if t.state < tunnelEstablished && due(t.setupBy, now) {
		t.shut(now, result{stopError, errorVendor, "tunnel not established in time"},
			&LocalError{Kind: TimedOut, Detail: fmt.Sprintf("%v did not finish the tunnel in time", t.peer)})
		return
	}
	if due(t.helloAt(), now) {
		t.delivery.send(now, outgoing{body: t.compose(msgHELLO).body, optional: true})
	}
	for _, id := range slices.Sorted(maps.Keys(t.sessions)) {
		if s := t.sessions[id]; s != nil {
			s.advance(now)
		}
	}
}

// giveUp ends a tunnel whose peer acknowledges nothing.
func (t *Tunnel) giveUp(now time.Time) {
	err := &LocalError{Kind: NoAnswer, Detail: fmt.Sprintf("no answer from %v", t.peer)}
	if t.state == tunnelEstablished {
		err.WasUp, err.Detail = true, fmt.Sprintf("%v answers no more", t.peer)
	}
	if t.writeErr != nil {
		err.Kind, err.Err = Unreachable, t.writeErr
	}
	t.abandon(now, err)
}

// helloAt is when the peer has been silent so long that it is asked for a sign of life (RFC 2661 section 5.5); zero: not now. A message
// that waits for its acknowledgement asks as well.
func (t *Tunnel) helloAt() time.Time {
	if t.state != tunnelEstablished || t.endpoint.config.HelloInterval < 0 || len(t.delivery.queue) > 0 {
		return time.Time{}
	}
	return t.heard.Add(t.endpoint.config.HelloInterval)
}

// schedule tells the Endpoint the tunnel's next deadline.
func (t *Tunnel) schedule() {
	if t.endpoint.tunnels[t.id] != t {
		return
	}
	next := earlier(t.delivery.deadline(), t.helloAt())
	switch t.state {
	case tunnelWaitReply, tunnelWaitConnect:
		next = earlier(next, t.setupBy)
	case tunnelClosed:
		next = earlier(next, t.forgetAt)
	}
	for _, s := range t.sessions {
		next = earlier(next, s.deadline())
	}
	t.endpoint.schedule(next)
}
