package ppp

import (
	"time"

	"gateway/ppp/mppe"
)

// compressedHeader is the length in bytes of what a compressed packet has in front: flags and coherency count
// (RFC 2118 section 4.1, RFC 3078 section 3.1).
const compressedHeader = mppe.Headroom

// A ccp is the Compression Control Protocol (RFC 1962), in which MPPE (RFC 3078) and MPPC (RFC 2118) are one option.
// All other methods are rejected. It may open with no method at all. Loop goroutine only.
//
// By what is required and what is agreed upon it decides which packets may pass: see settled.
type ccp struct {
	automaton
	session *Session

	policy    mppe.Policy // of this negotiation
	keys      mppe.Keys   // of the login
	encrypted bool        // encryption was agreed upon once; from then on it is required

	requested mppe.Bits // of our last Configure-Request, or of the one to come; 0: without the option
	advised   bool      // they follow the peer's Nak or Reject
	asked     bool      // the peer's last Configure-Request has the option
	heard     mppe.Bits // what it asks for, as far as we would take it
	offered   mppe.Bits // what of it we acknowledge; 0: nothing
	denied    bool      // it wants encryption that we do not

	// What was agreed upon; nil: packets go as they are.
	encoder       *mppe.Encoder
	decoder       *mppe.Decoder
	send, receive mppe.Bits

	holdUntil time.Time // packets wait so long for an encryption that is wanted, not required; zero: no longer
	limit     time.Time // the negotiation must be over; zero: it is
	failure   error     // encryption is required and there is none: the link must end

	resets       limiter // Reset-Requests that are answered
	resetsOut    limiter // and sent
	resetID      uint8   // of our last Reset-Request
	resetAt      time.Time
	resetPending bool // it has not been answered
}

// reset begins anew after a login, which gave keys or nil. An error means that the link is of no use.
func (c *ccp) reset(now time.Time, login authResult) (err error) {
	c.policy = c.session.config.CCP
	if c.encrypted {
		c.policy.Encryption = mppe.Require
	}
	c.setKeys(login.mppe)
	if login.mppe == nil {
		if c.policy, err = c.policy.WithoutKeys(); err != nil {
			return encryptionError("login by "+login.method.String(), err)
		}
	}
	c.silent = c.policy.Passive()
	c.asked, c.heard, c.offered, c.denied, c.failure = false, 0, 0, false, nil
	c.renew()
	if c.policy.Encryption == mppe.Allow || c.policy.Encryption == mppe.Prefer {
		c.holdUntil = now.Add(c.timers.Encryption)
	}
	return nil
}

// setKeys derives the start keys. Those of a later login on the same link hold from the next negotiation on.
func (c *ccp) setKeys(k *mppeKeys) {
	switch {
	case k == nil:
		c.keys.Wipe()
	case k.method == AuthMSCHAP:
		c.keys = mppe.KeysFromMSCHAP(k.lmStart, k.ntStart)
	default:
		c.keys = mppe.KeysFromMaster(k.master, k.client)
	}
}

// renew returns to our own wishes.
func (c *ccp) renew() { c.requested, c.advised = c.policy.Request(0), false }

func (c *ccp) appendRequest(dst []byte) []byte {
	if !c.advised {
		c.requested = c.policy.Request(c.heard)
	}
	if c.requested == 0 {
		return dst
	}
	return mppe.AppendOption(dst, c.requested)
}

func (c *ccp) beginRequest() { c.asked, c.heard, c.offered, c.denied = false, 0, 0, false }

func (c *ccp) judge(o option) (verdict, []byte) {
	bits, err := mppe.ParseOption(appendOption(nil, o))
	if err != nil || c.asked { // another method, malformed, or twice
		return reject, nil
	}
	c.asked = true
	final := c.naksOut >= c.timers.MaxFailure
	answer, wanted := c.policy.Answer(bits, final)
	c.denied = bits.Encrypts() && (answer == mppe.Reject || answer == mppe.Nak && !wanted.Encrypts())
	switch answer {
	case mppe.Ack:
		c.heard, c.offered = bits, bits
		return accept, nil
	case mppe.Nak:
		c.heard = wanted
		return refuse, mppe.AppendOption(nil, wanted)[optionHeader:]
	}
	return reject, nil
}

// appendMissing proposes encryption to a peer that does not ask for it, unless it has refused already.
func (c *ccp) appendMissing(dst []byte) []byte {
	if c.asked || c.policy.Encryption < mppe.Prefer || !c.requested.Encrypts() {
		return dst
	}
	_, wanted := c.policy.Answer(0, false)
	return mppe.AppendOption(dst, wanted)
}

func (c *ccp) naked(_ time.Time, o option) {
	if bits, err := mppe.ParseOption(appendOption(nil, o)); err == nil {
		c.follow(bits)
	}
}

func (c *ccp) rejected(_ time.Time, o option) {
	if o.kind == mppe.OptionType {
		c.follow(0)
	}
}

// follow changes our request to what the peer suggests, as far as the policy goes.
func (c *ccp) follow(suggested mppe.Bits) {
	bits, err := c.policy.AfterNak(suggested)
	if err != nil {
		c.fail("the peer takes "+suggested.String()+" instead of "+c.requested.String(), err)
		return
	}
	c.requested, c.advised = bits, true
}

// fail notes why there can be no encryption. The session ends the link.
func (c *ccp) fail(cause string, err error) {
	if c.failure == nil {
		c.failure = encryptionError(cause, err)
	}
}

// encryptionError wraps an error of package mppe.
func encryptionError(cause string, err error) error {
	e := &NegotiationError{Protocol: "ccp", Cause: cause, Err: err}
	if advising, ok := err.(interface{ Advice() string }); ok {
		e.Hint = advising.Advice()
	}
	return e
}

// settled tells whether it is known how IP packets go: encrypted, or in clear. Before that none may pass.
func (c *ccp) settled() bool {
	switch {
	case c.failure != nil:
		return false
	case c.state == stateOpened, c.policy.Encryption == mppe.Deny:
		return true
	case c.policy.Encryption == mppe.Require:
		return false
	case c.holdUntil.IsZero(), !c.running():
		return true
	}
	return !c.requested.Encrypts() && !c.heard.Encrypts() // nobody wants encryption any more
}

// possible tells whether packets may ever be encrypted or compressed in this negotiation.
func (c *ccp) possible() bool {
	return c.policy.Encryption != mppe.Deny || c.policy.Compression != mppe.Deny
}

// disputed tells whether the two ends differ about encryption, so that the end of the link is to be blamed on it.
func (c *ccp) disputed() bool {
	return c.state != stateOpened && (!c.settled() || c.denied && (c.running() || !c.session.rx.open()))
}

// advice is one line for a user whose server ended the link in a dispute.
func (c *ccp) advice() string {
	switch {
	case !c.denied:
		return `the two ends may differ about encryption: compare mppe, mppe_min_key and mppe_stateful with the server's settings`
	case c.session.config.CCP.Encryption == mppe.Deny:
		return `the server wants encryption (MPPE): set mppe = "prefer" or "require"`
	case c.policy.Encryption == mppe.Deny:
		return `the server wants encryption (MPPE), which needs a login by mschapv2 or eap-mschapv2: allow one of them in auth`
	}
	return `the server wants another encryption (MPPE) than is allowed: see mppe_min_key, mppe_max_key and mppe_stateful`
}

// receiveCode handles Reset-Request and Reset-Ack, which mean nothing unless CCP is open (RFC 1962 section 3).
func (c *ccp) receiveCode(now time.Time, p controlPacket) bool {
	switch p.code {
	case codeResetRequest:
		if c.state == stateOpened && c.resets.allow(now, resetBurst, resetInterval) {
			c.session.counters.resetAcks.Add(1)
			c.session.tx.restart(c.protocol, appendControlPacket(nil, controlPacket{code: codeResetAck, id: p.id}))
		}
	case codeResetAck: // the packet that follows says by itself that it begins anew (RFC 2118 section 2.3, RFC 3078 section 4.2)
		if p.id == c.resetID {
			c.resetPending = false
		}
	default:
		return false
	}
	return true
}

const (
	// resetTimeout is the time after which a Reset-Request is repeated, since it or its answer may be lost.
	resetTimeout = time.Second

	// Bounds of Reset-Requests, answered and sent: a burst, then one each interval.
	resetBurst    = 32
	resetInterval = 20 * time.Millisecond
)

// requestReset asks the peer to begin its history anew: at once after a loss, and again if the answer did not help.
func (c *ccp) requestReset(now time.Time) {
	if c.resetPending && now.Sub(c.resetAt) < resetTimeout || !c.resetsOut.allow(now, resetBurst, resetInterval) {
		return
	}
	c.resetPending, c.resetAt = true, now
	c.resetID++
	c.session.counters.resetRequests.Add(1)
	c.sendPacket(controlPacket{code: codeResetRequest, id: c.resetID})
}

// up puts what was agreed upon into the data path.
func (c *ccp) up(now time.Time) {
	c.terminatedByPeer, c.rejectedByPeer = false, false
	if err := c.agree(); err != nil {
		c.fail("the two ends agree on less than encryption", err)
		return
	}
	if c.send.Encrypts() && c.receive.Encrypts() {
		c.encrypted, c.policy.Encryption = true, mppe.Require
		c.session.ipcp.hasten(now) // some peers (pppd) were deaf to it until now
		c.session.ipv6cp.hasten(now)
	}
	c.log.Info("CCP is open", "encryption", c.encryption(), "compression", c.compression())
	c.session.networkChanged(now, false)
}

// agree makes the codecs of both directions.
func (c *ccp) agree() (err error) {
	c.resetPending = false
	if c.send, c.receive, err = c.policy.Agree(c.requested, c.offered); err != nil {
		return err
	}
	if c.send.Encrypts() || c.send.Has(mppe.MPPC) {
		if c.encoder, err = mppe.NewEncoder(c.send, c.keys.Send); err != nil {
			return err
		}
	}
	if c.receive.Encrypts() || c.receive.Has(mppe.MPPC) {
		c.decoder, err = mppe.NewDecoder(c.receive, c.keys.Receive)
	}
	return err
}

// encryption is for users: "MPPE-128 stateless"; empty: none.
func (c *ccp) encryption() string {
	if c.send.Encryption() != c.receive.Encryption() {
		return "out: " + c.send.Encryption() + ", in: " + c.receive.Encryption()
	}
	return c.send.Encryption()
}

func (c *ccp) compression() string {
	if c.send.Has(mppe.MPPC) || c.receive.Has(mppe.MPPC) {
		return "MPPC"
	}
	return ""
}

// down takes it out again: the two ends negotiate anew, or the peer does not want it any more.
func (c *ccp) down(now time.Time) {
	if c.policy.Encryption == mppe.Require && (c.terminatedByPeer || c.rejectedByPeer) {
		c.fail("the peer turned encryption off", &mppe.Error{Reason: mppe.Refused})
	}
	c.renew()
	c.drop(now)
}

// drop takes the codecs out of the data path and wipes them.
func (c *ccp) drop(now time.Time) {
	encoder, decoder := c.encoder, c.decoder
	c.encoder, c.decoder, c.send, c.receive = nil, nil, 0, 0
	c.session.networkChanged(now, false)
	if encoder != nil {
		encoder.Wipe()
	}
	if decoder != nil {
		decoder.Wipe()
	}
}

// finished: the peer does not speak CCP, closed it, or does not agree.
func (c *ccp) finished(time.Time) {
	if c.policy.Encryption == mppe.Require {
		unopened := c.session.unopened("ccp", &c.automaton)
		c.fail(unopened.Cause, &mppe.Error{Reason: mppe.Refused})
	}
	c.renew()
}

// supervise follows each event of CCP while the link is in phase Network. It bounds the negotiation, which by RFC 1661
// alone may go on for ever (two ends that acknowledge and ask in turn), and ends a link that must be encrypted but
// cannot be.
func (c *ccp) supervise(now time.Time) {
	if c.session.phase != phaseNetwork {
		return
	}
	if !c.holdUntil.IsZero() && !now.Before(c.holdUntil) {
		c.holdUntil = time.Time{}
	}
	switch {
	case !c.running(), c.state == stateOpened:
		c.limit = time.Time{}
	case c.limit.IsZero():
		c.limit = now.Add(c.timers.Network)
	case !now.Before(c.limit):
		c.giveUp(now)
	}
	if c.failure != nil {
		c.session.terminate(now, c.failure)
		return
	}
	c.session.networkChanged(now, false)
}

// giveUp ends a negotiation that leads nowhere. Without encryption the link lives on, and CCP speaks only when spoken
// to: a Terminate-Request would be one more packet that some peers hang up over.
func (c *ccp) giveUp(now time.Time) {
	c.limit = time.Time{}
	if c.policy.Encryption == mppe.Require {
		c.fail("not agreed upon in time", &mppe.Error{Reason: mppe.Refused})
		return
	}
	c.log.Info("CCP is given up")
	c.silent = true
	c.renew()
	c.lowerDown(now)
	c.lowerUp(now)
}

// end forgets all secrets.
func (c *ccp) end(now time.Time) {
	c.drop(now)
	c.keys.Wipe()
	c.holdUntil, c.limit = time.Time{}, time.Time{}
}
