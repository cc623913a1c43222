package ppp

import (
	"log/slog"
	"slices"
	"time"
)

// A verdict is what we think of one option in the peer's Configure-Request.
type verdict uint8

const (
	accept verdict = iota // Configure-Ack, if all are acceptable
	refuse                // Configure-Nak: the option is known, its value is not acceptable
	reject                // Configure-Reject: the option is not known or not negotiable
)

// A layer is what LCP and each network control protocol add to the automaton: their options, and what happens when
// they come up and go down. Its methods are called by the automaton only.
type layer interface {
	// appendRequest appends the options of our next Configure-Request.
	appendRequest(dst []byte) []byte
	// beginRequest is called before the options of a Configure-Request of the peer are judged one by one. What they
	// say holds when up is called, for then all of the last request was acceptable.
	beginRequest()
	// judge looks at one of them; with refuse, value is what to propose instead.
	judge(o option) (v verdict, value []byte)
	// appendMissing appends options that the request lacks and the peer should add (RFC 1661 section 5.3).
	appendMissing(dst []byte) []byte
	// naked: the peer refused our value and proposes another, for an option that we may or may not have asked for.
	naked(now time.Time, o option)
	// rejected: the peer does not know an option of our request, or will not negotiate it.
	rejected(now time.Time, o option)
	// receiveCode handles codes that the automaton does not know; false: neither do we.
	receiveCode(now time.Time, p controlPacket) bool
	// up, down and finished are the actions This-Layer-Up, -Down and -Finished (RFC 1661 section 4.4).
	up(now time.Time)
	down(now time.Time)
	finished(now time.Time)
}

// An automaton is the state machine of RFC 1661 section 4 for one control protocol. It belongs to the loop goroutine.
type automaton struct {
	protocol uint16
	name     string // for logs
	layer    layer
	send     func(protocol uint16, packet []byte) // packet is borrowed
	timers   Timers
	log      *slog.Logger

	// silent makes Up wait for the peer's first request instead of sending our own: the passive option
	// (RFC 1661 section 4.2, Stopped).
	silent bool

	state    state
	deadline time.Time     // of the Restart timer; zero: stopped
	restarts int           // the Restart counter
	interval time.Duration // the Restart timer's next value for Configure-Requests

	request  []byte // our last Configure-Request, from its code octet on
	id       uint8  // its identifier
	answered bool   // it got its Ack, Nak or Reject: later ones are duplicates
	naksIn   int    // Naks and Rejects since the layer was last up
	naksOut  int    // Naks sent since our last Ack (Max-Failure)

	rejectedByPeer   bool // by a Protocol-Reject, since the lower layer came up
	terminatedByPeer bool // by a Terminate-Request

	ended uint8  // identifier of our last Terminate-Request
	reply []byte // answer to the packet that is being handled, from its code octet on

	acked   []byte    // the peer's last Configure-Request that we acknowledged, from its code octet on
	ackedAt time.Time // when it first arrived

	answers limiter
}

// event runs one cell of the table. p is the control packet that caused the event, if any; a.reply holds the packet
// to answer it with.
func (a *automaton) event(now time.Time, e event, p controlPacket) {
	t := transitions[e][a.state]
	if !t.possible {
		a.log.Debug("event is impossible in this state", "protocol", a.name, "event", e, "state", a.state)
		return
	}
	if a.silent && e == eventUp && a.state == stateStarting {
		t = to(stateStopped, 0)
	}
	a.state = t.next
	if !a.state.timed() {
		a.deadline = time.Time{}
	}
	a.act(now, t.actions, e, p)
}

// act does the actions of one cell in the order of the table.
func (a *automaton) act(now time.Time, do actions, e event, p controlPacket) {
	if do&tld != 0 {
		a.layer.down(now)
	}
	if do&irc != 0 {
		a.restarts = a.timers.MaxConfigure
		if do&str != 0 {
			a.restarts = a.timers.MaxTerminate
		}
	}
	if do&zrc != 0 {
		a.restarts = 0
		a.deadline = now.Add(a.timers.Restart)
	}
	if do&scr != 0 {
		a.sendConfigureRequest(now, e == eventTimeout)
	}
	if do&(sca|scn|scj|ser) != 0 && len(a.reply) > 0 {
		a.send(a.protocol, a.reply)
	}
	if do&str != 0 {
		a.sendTerminateRequest(now, e == eventTimeout)
	}
	if do&sta != 0 {
		a.sendPacket(controlPacket{code: codeTerminateAck, id: p.id})
	}
	if do&tlf != 0 {
		a.layer.finished(now)
	}
	if do&tlu != 0 {
		a.naksIn, a.naksOut = 0, 0
		a.layer.up(now)
	}
}

func (a *automaton) open(now time.Time)      { a.event(now, eventOpen, controlPacket{}) }
func (a *automaton) close(now time.Time)     { a.event(now, eventClose, controlPacket{}) }
func (a *automaton) lowerDown(now time.Time) { a.event(now, eventDown, controlPacket{}) }

// lowerUp starts a new negotiation.
func (a *automaton) lowerUp(now time.Time) {
	a.naksIn, a.naksOut = 0, 0
	a.rejectedByPeer, a.terminatedByPeer = false, false
	a.acked = nil
	a.event(now, eventUp, controlPacket{})
}

// running tells whether the automaton may yet open by itself or is open.
func (a *automaton) running() bool {
	return a.state >= stateReqSent && a.state <= stateOpened
}

// hasten repeats an unanswered Configure-Request at once. It does so only while the peer cannot be open: it would take the
// repetition for a new negotiation.
func (a *automaton) hasten(now time.Time) {
	if a.state == stateReqSent && !a.answered {
		a.deadline = now
	}
}

// advance lets the Restart timer expire.
func (a *automaton) advance(now time.Time) {
	if a.deadline.IsZero() || now.Before(a.deadline) {
		return
	}
	e := eventLastTimeout
	if a.restarts > 0 {
		e = eventTimeout
	}
	a.event(now, e, controlPacket{})
}

// receive takes one control packet, from its code octet on. The packet is borrowed.
func (a *automaton) receive(now time.Time, packet []byte) (ok bool) {
	p, err := parseControlPacket(packet)
	if err != nil {
		return false
	}
	if a.state <= stateStarting { // the lower layer is not up: nothing can be meant for us (RFC 1661 section 4.2)
		return false
	}
	switch p.code {
	case codeConfigureRequest:
		return a.receiveRequest(now, p)
	case codeConfigureAck:
		return a.receiveAck(now, p)
	case codeConfigureNak, codeConfigureReject:
		return a.receiveNak(now, p)
	case codeTerminateRequest:
		a.terminatedByPeer = true
		a.event(now, eventTerminateRequest, p)
	case codeTerminateAck:
		a.event(now, eventTerminateAck, p)
	case codeCodeReject:
		a.receiveCodeReject(now, p)
	default:
		if !a.layer.receiveCode(now, p) {
			a.receiveUnknownCode(now, p)
		}
	}
	return true
}

// receiveRequest answers a Configure-Request: RCR+ or RCR- (RFC 1661 sections 5.1 to 5.4).
func (a *automaton) receiveRequest(now time.Time, p controlPacket) bool {
	options, err := parseOptions(p.data)
	if err != nil {
		return false
	}
	if a.state < stateReqSent && a.state != stateStopped { // not answered by its contents
		a.event(now, eventGoodRequest, p)
		return true
	}
	if a.repeated(now, p) {
		a.sendPacket(controlPacket{codeConfigureAck, p.id, p.data})
		return true
	}
	// A peer that never agrees gets only so many answers at once, then one for each Restart time.
	if !a.answers.allow(now, 2*a.timers.MaxConfigure, a.timers.Restart) {
		return true
	}
	code, reply := a.judge(options)
	if code == codeConfigureAck {
		a.naksOut = 0
		a.acked, a.ackedAt = appendControlPacket(a.acked[:0], p), now
		a.reply = appendControlPacket(a.reply[:0], controlPacket{code, p.id, p.data})
		a.event(now, eventGoodRequest, p)
		return true
	}
	if code == codeConfigureNak {
		a.naksOut++
	}
	a.reply = appendControlPacket(a.reply[:0], controlPacket{code, p.id, reply})
	a.event(now, eventBadRequest, p)
	return true
}

// judge makes up the answer to the peer's options. A Reject goes before any Nak (RFC 1661 section 5.3).
func (a *automaton) judge(options []option) (code uint8, reply []byte) {
	a.layer.beginRequest()
	converging := a.naksOut < a.timers.MaxFailure // RFC 1661 section 4.6, Max-Failure
	var naks, rejects []byte
	for _, o := range options {
		v, value := a.layer.judge(o)
		switch {
		case v == reject, v == refuse && !converging:
			rejects = appendOption(rejects, o)
		case v == refuse:
			naks = appendOption(naks, option{o.kind, value})
		}
	}
	if converging {
		naks = a.layer.appendMissing(naks)
	}
	switch {
	case len(rejects) > 0:
		return codeConfigureReject, rejects
	case len(naks) > 0:
		return codeConfigureNak, naks
	}
	return codeConfigureAck, nil
}

// repeated tells whether p is a copy, made by the network or by a short retransmission timer, of the Configure-Request
// that opened the layer. By the table it would tear an open layer down. A peer that really begins anew with the same
// identifier and options repeats itself after its Restart timer and is then heard.
func (a *automaton) repeated(now time.Time, p controlPacket) bool {
	return a.state == stateOpened && len(a.acked) > 0 && now.Sub(a.ackedAt) < a.timers.Restart &&
		a.acked[1] == p.id && string(a.acked[packetHeader:]) == string(p.data)
}

// receiveAck takes a Configure-Ack. It must repeat our last request in full (RFC 1661 section 5.2).
func (a *automaton) receiveAck(now time.Time, p controlPacket) bool {
	if a.running() {
		if !a.outstanding(p) || string(p.data) != string(a.request[packetHeader:]) {
			return false
		}
		a.answered = true
	}
	a.event(now, eventAck, p)
	return true
}

// receiveNak takes a Configure-Nak or Configure-Reject (RFC 1661 sections 5.3 and 5.4).
func (a *automaton) receiveNak(now time.Time, p controlPacket) bool {
	options, err := parseOptions(p.data)
	if err != nil {
		return false
	}
	if a.running() {
		if !a.outstanding(p) || p.code == codeConfigureReject && !a.asked(options) {
			return false
		}
		// A peer that refuses for ever is no longer answered: our request is repeated until Max-Configure ends it.
		if a.naksIn++; a.naksIn > a.timers.MaxConfigure {
			return true
		}
		a.answered = true
		a.heed(now, p.code, options)
	}
	a.event(now, eventNak, p)
	return true
}

// heed lets the layer change its wishes after a Nak or Reject.
func (a *automaton) heed(now time.Time, code uint8, options []option) {
	for _, o := range options {
		if code == codeConfigureNak {
			a.layer.naked(now, o)
		} else {
			a.layer.rejected(now, o)
		}
	}
}

// outstanding tells whether p is the first answer to our last Configure-Request.
func (a *automaton) outstanding(p controlPacket) bool {
	return len(a.request) > 0 && p.id == a.id && !a.answered
}

// asked tells whether our last Configure-Request held all of the options, as a Reject must (RFC 1661 section 5.4).
func (a *automaton) asked(options []option) bool {
	own, _ := parseOptions(a.request[packetHeader:])
	return !slices.ContainsFunc(options, func(o option) bool { return !holdsOption(own, o) })
}

// receiveCodeReject: a peer that does not know codes 1 to 7 speaks no PPP; it may lack any other (RFC 1661 section 5.6).
func (a *automaton) receiveCodeReject(now time.Time, p controlPacket) {
	e := eventMinorReject
	if len(p.data) > 0 && p.data[0] >= codeConfigureRequest && p.data[0] <= codeCodeReject {
		e = eventMajorReject
	}
	a.event(now, e, p)
}

// protocolRejected: the peer does not speak the protocol at all (RFC 1661 section 5.7).
func (a *automaton) protocolRejected(now time.Time, p controlPacket) {
	a.rejectedByPeer = true
	a.event(now, eventMajorReject, p)
}

// receiveUnknownCode answers with a Code-Reject (RFC 1661 section 5.6).
func (a *automaton) receiveUnknownCode(now time.Time, p controlPacket) {
	if !a.answers.allow(now, 2*a.timers.MaxConfigure, a.timers.Restart) {
		return
	}
	a.id++
	rejected := appendControlPacket(nil, p)
	rejected = rejected[:min(len(rejected), minMRU-packetHeader)] // fits whatever MRU the peer has
	a.reply = appendControlPacket(a.reply[:0], controlPacket{codeCodeReject, a.id, rejected})
	a.event(now, eventUnknownCode, p)
}

// firstRestart is the part of the Restart time after which a Configure-Request is first repeated; the time then doubles
// (RFC 1661 section 4.6). The first one is often lost, since servers start their PPP only when the tunnel is up.
const firstRestart = 6

// sendConfigureRequest sends our options. A repetition after a timeout keeps its identifier, so that a slow answer to
// the first still counts (RFC 1661 section 5.1).
func (a *automaton) sendConfigureRequest(now time.Time, again bool) {
	if !again || len(a.request) == 0 {
		a.id++
		a.interval = a.timers.Restart / firstRestart
		options := a.layer.appendRequest(nil)
		a.request = appendControlPacket(a.request[:0], controlPacket{codeConfigureRequest, a.id, options})
	}
	a.answered = false
	a.restarts = max(a.restarts-1, 0)
	a.deadline = now.Add(a.interval)
	a.interval = min(2*a.interval, a.timers.Restart)
	a.send(a.protocol, a.request)
}

func (a *automaton) sendTerminateRequest(now time.Time, again bool) {
	if !again {
		a.id++
		a.ended = a.id
	}
	a.restarts = max(a.restarts-1, 0)
	a.deadline = now.Add(a.timers.Restart)
	a.sendPacket(controlPacket{code: codeTerminateRequest, id: a.ended})
}

func (a *automaton) sendPacket(p controlPacket) {
	a.send(a.protocol, appendControlPacket(nil, p))
}

// A limiter is a bucket of answers: a burst at first, then one for each interval. Its zero value is full.
type limiter struct {
	spent int
	since time.Time // the last refill
}

// allow takes one answer, if there is one.
func (l *limiter) allow(now time.Time, burst int, interval time.Duration) bool {
	if l.spent == 0 {
		l.since = now
	}
	if refill := int(now.Sub(l.since) / interval); refill > 0 {
		l.spent = max(l.spent-refill, 0)
		l.since = l.since.Add(time.Duration(refill) * interval)
	}
	if l.spent >= burst {
		return false
	}
	l.spent++
	return true
}
