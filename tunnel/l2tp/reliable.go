package l2tp

import "time"

// Timing of reliable delivery (RFC 2661 section 5.8).
const (
	defaultWindow = 4 // of a peer that names none (section 4.4.3, Receive Window Size)

	firstRetransmission = 1 * time.Second
	maxRetransmission   = 8 * time.Second
	acknowledgeDelay    = 50 * time.Millisecond // a message of ours may carry the acknowledgement meanwhile
	fullCycle           = 31 * time.Second      // 1+2+4+8+8+8: after it the peer retransmits no more (section 5.7)

	maxHeld  = 4096 // bytes of a message or frame that is copied to wait for others; longer ones are never met in earnest
	maxQueue = 1024 // messages waiting to be acknowledged; more is a peer that makes us answer and does not listen
)

// delivery is one end of the reliable control channel of a tunnel (RFC 2661 section 5.8 and appendix A): numbers, acknowledges,
// retransmits and puts in order. It does not know what the messages say.
type delivery struct {
	transmit func(sessionID, ns, nr uint16, body []byte) // puts a message, or with no body a ZLB, on the wire
	tries    int                                         // retransmissions before giving up

	// Sending. queue holds all messages that are not acknowledged; queue[:flying] is on its way in this round, queue[:sent] was sent
	// at least once. The oldest has the number ns - len(queue).
	ns           uint16 // of the next new message
	queue        []outgoing
	flying, sent int
	window       int // the peer's
	cwnd         int // congestion window (appendix A)
	ssthresh     int
	credit       int // acknowledgements since cwnd last grew, in congestion avoidance
	retries      int // of the oldest message
	timeout      time.Duration
	retransmitAt time.Time // zero: nothing is flying

	// Receiving.
	nr            uint16    // next expected
	acknowledgeAt time.Time // when a ZLB is due; zero: nothing to acknowledge
	ahead         map[uint16]incoming
	receiveWindow int
}

// An outgoing is a message that is not acknowledged yet. Its number follows from its place in the queue, and Nr is filled in at each
// transmission.
type outgoing struct {
	sessionID uint16
	body      []byte
	firstSent time.Time
	// optional: if the peer was heard since, it is alive though it does not acknowledge. So for HELLO, which some phones leave
	// unanswered.
	optional bool
}

// An incoming is a message from the peer: the session ID of its header and its AVPs.
type incoming struct {
	sessionID uint16
	body      []byte
}

func newDelivery(receiveWindow, tries int, transmit func(sessionID, ns, nr uint16, body []byte)) delivery {
	return delivery{transmit: transmit, tries: tries, window: defaultWindow, cwnd: 1, ssthresh: defaultWindow,
		timeout: firstRetransmission, receiveWindow: receiveWindow, ahead: make(map[uint16]incoming)}
}

// setWindow notes the peer's receive window, in messages.
func (d *delivery) setWindow(window int) {
	d.window = max(window, 1)
	d.ssthresh = d.window
}

// send queues a message, whose body it keeps, and transmits it at once if the windows allow. It reports whether there was room.
func (d *delivery) send(now time.Time, m outgoing) bool {
	if len(d.queue) >= maxQueue {
		return false
	}
	d.queue = append(d.queue, m)
	d.ns++
	d.pump(now, min(d.cwnd, d.window))
	return true
}

// sendLast queues the message that ends the conversation. What was never transmitted is dropped, and congestion does not hold it up.
func (d *delivery) sendLast(now time.Time, m outgoing) {
	d.ns -= uint16(len(d.queue) - d.sent)
	d.queue = append(d.queue[:d.sent], m)
	d.ns++
	d.pump(now, d.window)
}

func (d *delivery) pump(now time.Time, window int) {
	for d.flying < min(window, len(d.queue)) {
		m := &d.queue[d.flying]
		if d.flying >= d.sent {
			m.firstSent = now
			d.sent = d.flying + 1
		}
		d.flying++
		d.put(m.sessionID, d.oldest()+uint16(d.flying-1), m.body)
		if d.retransmitAt.IsZero() {
			d.retransmitAt = now.Add(d.timeout)
		}
	}
}

// put transmits with the current Nr: whatever goes out acknowledges all that came in.
func (d *delivery) put(sessionID, ns uint16, body []byte) {
	d.acknowledgeAt = time.Time{}
	d.transmit(sessionID, ns, d.nr, body)
}

func (d *delivery) oldest() uint16 { return d.ns - uint16(len(d.queue)) }

// receive takes a message's numbers and body (none: a ZLB) and calls deliver for it and for what waited behind it, in order; body is
// borrowed and copied if it must wait. It reports whether the numbers made sense.
func (d *delivery) receive(now time.Time, h header, body []byte, deliver func(incoming)) bool {
	if !d.acknowledged(now, h.nr) {
		return false
	}
	if len(body) == 0 {
		return true // a ZLB takes no number and is never acknowledged
	}
	distance := int16(h.ns - d.nr)
	switch {
	case distance < 0: // a duplicate: the acknowledgement was lost or late
		d.acknowledgeAt = now
	case distance > 0:
		if _, waits := d.ahead[h.ns]; !waits && int(distance) < d.receiveWindow && len(body) <= maxHeld {
			d.ahead[h.ns] = incoming{h.sessionID, append([]byte(nil), body...)}
		}
	default:
		m, more := incoming{h.sessionID, body}, true
		for more {
			d.nr++
			if d.acknowledgeAt.IsZero() {
				d.acknowledgeAt = now.Add(acknowledgeDelay)
			}
			deliver(m)
			m, more = d.ahead[d.nr]
			delete(d.ahead, d.nr)
		}
	}
	return true
}

// acknowledged drops the messages that nr acknowledges. It is false if nr speaks of messages that were never sent.
func (d *delivery) acknowledged(now time.Time, nr uint16) bool {
	count := int(int16(nr - d.oldest()))
	if count > d.sent {
		return false
	}
	if count <= 0 {
		return true // says nothing new
	}
	clear(d.queue[:count])
	d.queue = d.queue[count:]
	d.sent -= count
	d.flying = max(d.flying-count, 0)
	for range count {
		d.growWindow()
	}
	d.retries, d.timeout, d.retransmitAt = 0, firstRetransmission, time.Time{}
	if d.flying > 0 {
		d.retransmitAt = now.Add(d.timeout)
	}
	d.pump(now, min(d.cwnd, d.window))
	return true
}

// growWindow is slow start, then congestion avoidance (RFC 2661 appendix A).
func (d *delivery) growWindow() {
	if d.cwnd < d.ssthresh {
		d.cwnd++
		return
	}
	if d.credit++; d.credit >= d.cwnd {
		d.credit = 0
		d.cwnd = min(d.cwnd+1, d.window)
	}
}

// advance does what is due: it acknowledges and retransmits. It is false when the peer has not answered for a full cycle. heard is when
// anything last came from the peer.
func (d *delivery) advance(now, heard time.Time) bool {
	if due(d.retransmitAt, now) {
		oldest := d.queue[0]
		if d.retries >= d.tries && !(oldest.optional && heard.After(oldest.firstSent)) {
			return false
		}
		d.retries++
		d.timeout = min(2*d.timeout, maxRetransmission)
		d.ssthresh, d.cwnd, d.credit = max(d.cwnd/2, 1), 1, 0
		d.flying, d.retransmitAt = 0, time.Time{}
		d.pump(now, 1)
	}
	if due(d.acknowledgeAt, now) {
		d.acknowledge()
	}
	return true
}

// acknowledge transmits a ZLB. It bears the number of the next message to be sent, and does not take it.
func (d *delivery) acknowledge() { d.put(0, d.oldest()+uint16(d.sent), nil) }

// quiet drops all that was to be sent: the peer has ended the conversation and only wants its messages acknowledged.
func (d *delivery) quiet() {
	d.queue, d.flying, d.sent, d.retransmitAt = nil, 0, 0, time.Time{}
	clear(d.ahead)
}

func (d *delivery) deadline() time.Time {
	return earlier(d.retransmitAt, d.acknowledgeAt)
}

// earlier is the earlier of two deadlines, of which each may be zero: none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// due tells whether a deadline has passed.
func due(deadline, now time.Time) bool {
	return !deadline.IsZero() && !now.Before(deadline)
}
