package pptp

import (
	"bytes"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
)

type callState uint8

// The states of a call (RFC 2637 section 3.2). A PAC's is established as soon as it is accepted.
const (
	callOffered   callState = iota // PAC, the handler is being asked
	callWaitReply                  // PNS, Outgoing-Call-Request sent
	callEstablished
	callClearing // PNS, Call-Clear-Request sent; the handler has heard of the end
	callClosed
)

// What we say of a line that does not exist.
const (
	framingAny   = 3           // asynchronous or synchronous
	bearerAny    = 3           // analog or digital
	minimumBPS   = 300         // bit/s
	maximumBPS   = 100_000_000 // bit/s
	connectSpeed = 100_000_000 // bit/s
)

// maxEarly bounds the frames that are kept for a call that is not up yet: GRE overtook the Outgoing-Call-Reply.
const maxEarly = 8

var (
	errHeadroom     = errors.New("pptp: frames come without room for the header")
	errFrameTooLong = errors.New("pptp: frame is too long for the payload length field")
)

// A Call carries the frames of one PPP link. It belongs to its Endpoint's goroutine, but for WriteFrames, Headroom, Tailroom, MTU and
// Stats.
type Call struct {
	connection *Connection
	handler    CallHandler
	state      callState
	dialed     bool   // we opened it: we are its PNS, otherwise its PAC
	id         uint16 // the one that we assigned
	peerID     uint16 // the one that the peer assigned; 0 until it is known

	until time.Time // for the reply, or for the farewell, of the peer
	greBy time.Time // when GRE must have proven to work; zero: nobody asks (any more)
	heard bool      // GRE has come
	works bool      // GRE has come that shows that ours arrives

	refusal error // the last ICMP error about GRE that came before it worked

	early [][]byte // copies of frames that came before the call was up
	order reorder
	ack   acknowledgment
	nudge nudge

	// For the writers: fixed when open becomes true.
	open atomic.Bool
	w    GREWriter
	to   netip.Addr
	// The number of the next packet, modulo 2^32. It is advanced by whoever calls WriteFrames.
	sequence atomic.Uint32

	acknowledged uint32 // number of the packet after the last that the peer has acknowledged
	counters     callCounters
}

// OpenCall asks the peer for a call (Outgoing-Call-Request). It fails if the connection is not up, or is full.
func (c *Connection) OpenCall(now time.Time, h CallHandler) (*Call, error) {
	switch {
	case c.state > connectionEstablished:
		return nil, ErrClosed
	case c.state < connectionEstablished:
		return nil, errNotUp
	case c.full():
		return nil, &LocalError{Kind: NoResources, Detail: "too many calls"}
	}
	e := c.endpoint
	call := &Call{connection: c, handler: h, state: callWaitReply, dialed: true, id: e.newCallID(), until: now.Add(e.config.SetupTimeout)}
	// GRE may come before the reply does: from here on it is taken.
	c.register(call)
	if !call.sendOCRQ(now) {
		return nil, ErrClosed
	}
	c.schedule()
	return call, nil
}

func (c *Connection) full() bool {
	return len(c.calls) >= c.endpoint.config.MaxCalls || len(c.endpoint.calls) >= maxCallsOfAll
}

func (c *Connection) register(call *Call) {
	c.calls = append(c.calls, call)
	c.made++
	c.endpoint.register(call)
}

// forget ends all trace of a call.
func (k *Call) forget() {
	if c := k.connection; c.endpoint.calls[k.id] == k {
		c.calls = without(c.calls, k)
		c.endpoint.unregister(k)
	}
}

// ID is the Call ID that we assigned.
func (k *Call) ID() uint16 { return k.id }

// Connection is the call's control connection.
func (k *Call) Connection() *Connection { return k.connection }

func (k *Call) sendOCRQ(now time.Time) bool {
	e := k.connection.endpoint
	e.serial++
	phone := e.config.PhoneNumber
	m := newMessage(msgOCRQ)
	m.set(fieldCallID, uint32(k.id))
	m.set(fieldSerial, uint32(e.serial))
	m.set(fieldMinimumBPS, minimumBPS)
	m.set(fieldMaximumBPS, maximumBPS)
	m.set(fieldBearerType, bearerAny)
	m.set(fieldFramingType, framingAny)
	m.set(fieldWindow, uint32(e.config.ReceiveWindow))
	m.set(fieldPhoneLength, uint32(min(len(phone), len(m.at(fieldPhone)))))
	m.setText(fieldPhone, phone)
	return k.connection.send(now, m)
}

// receiveOCRP: the PAC has decided on our call.
func (k *Call) receiveOCRP(now time.Time, m message) {
	k.peerID = m.callID(fieldCallID)
	if m.number(fieldResult) != callOK {
		k.end(now, k.peerError(m))
		k.forget()
		return
	}
	if timeout := k.connection.endpoint.config.GRETimeout; timeout > 0 && !k.works {
		k.greBy = now.Add(timeout)
	}
	k.up(now)
}

// receiveOCRQ answers a PNS that asks for a call. There is no line to dial: it is up at once.
func (c *Connection) receiveOCRQ(now time.Time, m message) {
	call := &Call{connection: c, state: callOffered, id: c.endpoint.newCallID(), peerID: m.callID(fieldCallID)}
	result, code := uint32(callOK), uint32(0)
	if c.full() {
		result, code = callGeneralError, errorNoResource
	} else if handler, err := c.handler.AcceptCall(now, call); err != nil || handler == nil {
		result = callRefused
	} else {
		call.handler = handler
	}
	if c.state != connectionEstablished {
		return // the handler closed it
	}
	if call.state == callClosed {
		result = callRefused // the handler closed that
	}
	reply := newMessage(msgOCRP)
	reply.set(fieldCallID, uint32(call.id))
	reply.set(fieldPeerCallID, uint32(call.peerID))
	reply.set(fieldResult, result)
	reply.set(fieldError, code)
	reply.set(fieldSpeed, connectSpeed)
	reply.set(fieldWindow, uint32(c.endpoint.config.ReceiveWindow))
	if result != callOK {
		c.send(now, reply)
		return
	}
	call.state = callEstablished
	c.register(call)
	if c.send(now, reply) {
		call.up(now)
	}
}

func (k *Call) up(now time.Time) {
	e := k.connection.endpoint
	k.state = callEstablished
	k.until = time.Time{}
	k.w, k.to = e.w, k.connection.peer
	k.open.Store(true)
	e.config.Log.Info("pptp call up", "peer", k.to, "id", k.id, "peer_id", k.peerID)
	k.handler.SessionUp(now)
	if early := k.early; len(early) > 0 {
		k.early = nil
		k.handle(now, early)
	}
}

// receiveCallClear: the PNS ends the call. It is told that it has (RFC 2637 section 3.2.4.1).
func (k *Call) receiveCallClear(now time.Time, m message) { k.shut(now, cdnRequest, k.peerError(m)) }

// receiveCallDisconnect: the PAC ends the call, or agrees to its end.
func (k *Call) receiveCallDisconnect(now time.Time, m message) {
	err := k.peerError(m)
	err.Text = m.text(fieldStatistics)
	k.end(now, err)
	k.forget()
}

func (k *Call) ignore(time.Time, message) {}

func (k *Call) peerError(m message) *PeerError {
	return &PeerError{Message: m.kind, WasUp: k.state == callEstablished, ResultCode: uint8(m.number(fieldResult)),
		ErrorCode: uint8(m.number(fieldError)), CauseCode: uint16(m.number(fieldCause))}
}

// Close ends the call: as PNS with a Call-Clear-Request, as PAC with a Call-Disconnect-Notify. The handler has heard of it when it returns.
func (k *Call) Close(now time.Time) { k.shut(now, cdnAdministrative, ErrClosed) }

// shut ends the call from our side. result is what the peer is told if we are its PAC, err what the handler is told.
func (k *Call) shut(now time.Time, result uint32, err error) {
	c := k.connection
	switch {
	case k.state == callOffered:
		k.state = callClosed
	case k.state >= callClearing:
	case k.dialed:
		m := newMessage(msgCallClear)
		m.set(fieldCallID, uint32(k.id))
		if c.send(now, m) {
			k.end(now, err)
			k.state = callClearing // until the peer agrees its packets may still come
			k.until = now.Add(defaultStopTimeout)
			c.schedule()
		}
	default:
		m := newMessage(msgCallDisconnect)
		m.set(fieldCallID, uint32(k.id))
		m.set(fieldResult, result)
		if c.send(now, m) {
			k.end(now, err)
			k.forget()
		}
	}
}

// end tells the handler, once.
func (k *Call) end(now time.Time, err error) {
	if k.state == callOffered || k.state >= callClearing {
		return
	}
	k.state = callClosed
	k.open.Store(false)
	k.early = nil
	k.connection.endpoint.config.Log.Info("pptp call down", "peer", k.connection.peer, "id", k.id, "cause", err)
	k.handler.SessionDown(now, err)
}

// receive adds the frame of a packet to those that the Endpoint gathers.
func (k *Call) receive(now time.Time, h greHeader, frame []byte) {
	if k.state >= callClearing {
		return
	}
	k.heard = true
	if h.acknowledges {
		k.receiveAcknowledgment(h.ack)
	}
	if !k.works && k.showsArrival(frame) {
		k.works, k.greBy = true, time.Time{}
	}
	if !h.sequenced {
		return
	}
	k.ack.note(h.sequence)
	e := k.connection.endpoint
	if k.order.isNext(h.sequence) {
		e.frames = k.order.passed(append(e.frames, frame))
		return
	}
	e.handUp(now, k) // frames that had been held must be gone before another is
	e.frames = k.order.hold(now, e.config.ReorderDelay, h.sequence, frame, e.frames)
	e.schedule(k.order.release)
}

// showsArrival tells whether the peer gets our packets: it has acknowledged one, or sends a frame that is no first move. All that a peer
// sends that hears nothing is LCP Configure-Requests (RFC 1661 section 5.1).
func (k *Call) showsArrival(frame []byte) bool {
	if k.acknowledged > 0 {
		return true
	}
	frame = bytes.TrimPrefix(frame, []byte{0xff, 0x03})
	return len(frame) > 0 && !bytes.HasPrefix(frame, []byte{0xc0, 0x21, 1})
}

// checkGRE ends the call if GRE does not get through, in one direction or both.
func (k *Call) checkGRE(now time.Time) {
	k.greBy = time.Time{}
	switch {
	case !k.heard:
		k.shut(now, cdnLostCarrier, &LocalError{Kind: GREBlocked, Detail: greBlocked, Err: k.refusal})
	case k.sequence.Load() > 0:
		k.shut(now, cdnLostCarrier, &LocalError{Kind: GREBlocked, Detail: greBlockedOut, Err: k.refusal})
	}
}

// receiveAcknowledgment notes what the peer has got. No frame waits for it: the window of RFC 2637 section 4.2 is meant to spare a PAC's
// modem, and a sender that stops when acknowledgments are lost stalls the link; lost packets are the business of the
// protocols inside.
func (k *Call) receiveAcknowledgment(number uint32) {
	next := number + 1
	if int32(next-k.acknowledged) > 0 && int32(k.sequence.Load()-next) >= 0 {
		k.acknowledged = next
		k.counters.acknowledged.Store(next)
	}
}

// handle hands frames up, or keeps them if the call is not up yet.
func (k *Call) handle(now time.Time, frames [][]byte) {
	switch k.state {
	case callWaitReply:
		for _, f := range frames {
			if len(k.early) >= maxEarly {
				k.counters.dropped.Add(1)
				continue
			}
			k.early = append(k.early, append([]byte(nil), f...))
		}
	case callEstablished:
		size := 0
		for _, f := range frames {
			size += len(f)
		}
		k.counters.framesReceived.Add(uint64(len(frames)))
		k.counters.bytesReceived.Add(uint64(size))
		k.handler.HandleFrames(now, frames)
	}
}

// acknowledge sends an acknowledgment without a frame, if one is due.
func (k *Call) acknowledge(now time.Time) {
	if k.state != callEstablished {
		return
	}
	e := k.connection.endpoint
	if number, ok := k.ack.takeDue(now, e.config.ReceiveWindow); ok {
		k.sendAcknowledgment(number)
	}
	e.schedule(k.ack.by)
}

func (k *Call) sendAcknowledgment(number uint32) {
	k.counters.acksSent.Add(1)
	k.connection.endpoint.write(k.to, greHeader{callID: k.peerID, acknowledges: true, ack: number})
}

// advance does what is due by now.
func (k *Call) advance(now time.Time) {
	e := k.connection.endpoint
	switch k.state {
	case callWaitReply:
		if due(k.until, now) {
			k.shut(now, cdnGeneralError, &LocalError{Kind: TimedOut, Detail: "peer did not answer the call in time"})
		}
	case callClearing:
		if due(k.until, now) {
			k.forget()
		}
	case callEstablished:
		if due(k.greBy, now) {
			k.checkGRE(now)
		}
		if due(k.nudge.at, now) {
			k.look(now)
		}
		e.frames = k.order.expire(now, e.frames)
		e.handUp(now, k)
	}
}

func (k *Call) deadline() time.Time {
	if k.state != callEstablished {
		return k.until
	}
	return earlier(earlier(k.greBy, k.nudge.at), earlier(k.order.release, k.ack.by))
}

// WriteFrames sends the PPP frames frames[i][offset:], each in a GRE packet. What is in front of them, at least Headroom bytes, is
// overwritten; they are borrowed until it returns. It may run beside everything else, but not beside itself. It fails with ErrClosed
// when the call is not up, and with what the GREWriter says. It allocates nothing.
func (k *Call) WriteFrames(frames [][]byte, offset int) error {
	if !k.open.Load() {
		return ErrClosed
	}
	if offset < greMaxSize {
		return errHeadroom
	}
	size := 0
	for _, f := range frames {
		size += len(f) - offset
		if n := len(f) - offset; n > 0xffff || n <= 0 {
			return errFrameTooLong
		}
	}
	h := greHeader{callID: k.peerID, sequenced: true, sequence: k.sequence.Load()}
	h.ack, h.acknowledges = k.ack.take() // all of the batch carry it: they have one offset
	start := offset - h.size()
	for _, f := range frames {
		appendGRE(f[start:start], h, len(f)-offset)
		h.sequence++
	}
	k.sequence.Store(h.sequence)
	k.counters.framesSent.Add(uint64(len(frames)))
	k.counters.bytesSent.Add(uint64(size))
	k.watch()
	return k.w.WritePackets(frames, start, k.to)
}

// Headroom is how many bytes WriteFrames needs in front of a frame.
func (k *Call) Headroom() int { return k.connection.endpoint.w.Headroom() + greMaxSize }

// Tailroom is how many bytes of capacity WriteFrames needs behind a frame.
func (k *Call) Tailroom() int { return k.connection.endpoint.w.Tailroom() }

// MTU is the largest PPP frame in bytes, counted from the address field (FF 03), that reaches the peer in one piece.
func (k *Call) MTU() int { return k.connection.endpoint.w.MTU(k.connection.peer) - greMaxSize }

type callCounters struct {
	framesReceived, bytesReceived, framesSent, bytesSent, dropped, acksSent atomic.Uint64
	acknowledged                                                            atomic.Uint32
}

// CallStats counts the traffic of a call.
type CallStats struct {
	FramesReceived, BytesReceived uint64 // PPP frames handed up
	FramesSent, BytesSent         uint64
	Dropped                       uint64 // frames that came before the call was up, beyond those that are kept
	Late                          uint64 // frames dropped because their number had passed, duplicates among them
	Reordered                     uint64 // frames that had to wait for one before them
	Lost                          uint64 // numbers that never came, or came late
	Acknowledgments               uint64 // GRE packets sent that carried no frame
	Unacknowledged                uint32 // frames sent that the peer has not acknowledged: the window in use
}

// Stats may be called by any goroutine.
func (k *Call) Stats() CallStats {
	c := &k.counters
	unacknowledged := max(int32(k.sequence.Load()-c.acknowledged.Load()), 0)
	return CallStats{c.framesReceived.Load(), c.bytesReceived.Load(), c.framesSent.Load(), c.bytesSent.Load(), c.dropped.Load(),
		k.order.late.Load(), k.order.reversed.Load(), k.order.lost.Load(), c.acksSent.Load(), uint32(unacknowledged)}
}
