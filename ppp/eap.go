package ppp

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Codes of EAP (RFC 3748 section 4).
const (
	eapRequest  = 1
	eapResponse = 2
	eapSuccess  = 3
	eapFailure  = 4
)

// Types of EAP (RFC 3748 section 5).
const (
	eapIdentity     = 1
	eapNotification = 2
	eapNak          = 3
	eapMD5          = 4
	eapMSCHAPv2     = 26
)

// eapTypeNames names the types a server may ask for, for the user's eyes.
var eapTypeNames = map[byte]string{
	eapMD5: "MD5", 5: "OTP", 6: "GTC", 13: "TLS", 18: "SIM", 21: "TTLS", 23: "AKA", 25: "PEAP", eapMSCHAPv2: "MSCHAPv2", 43: "FAST",
}

// eapTypeName is what we call a type in an error.
func eapTypeName(kind byte) string {
	if name, ok := eapTypeNames[kind]; ok {
		return "EAP-" + name
	}
	return fmt.Sprintf("EAP type %d", kind)
}

// eapType is the type of a method of ours; 0 if it is none of EAP.
func (m AuthMethod) eapType() byte {
	switch m {
	case AuthEAPMD5:
		return eapMD5
	case AuthEAPMSCHAPv2:
		return eapMSCHAPv2
	}
	return 0
}

// eapMethod is the method of ours behind a type; AuthNone if there is none.
func eapMethod(kind byte) AuthMethod {
	switch kind {
	case eapMD5:
		return AuthEAPMD5
	case eapMSCHAPv2:
		return AuthEAPMSCHAPv2
	}
	return AuthNone
}

// eapAlgorithm is the CHAP algorithm inside an EAP method.
func (b *authBase) eapAlgorithm(m AuthMethod) chapAlgorithm {
	if m == AuthEAPMSCHAPv2 {
		return mschapv2{random: b.c.Random, fullName: b.c.HashFullName, eap: true}
	}
	return chapMD5{}
}

// An eapPacket is one EAP packet. Success and Failure have neither kind nor data.
type eapPacket struct {
	code, id, kind byte
	data           []byte // Type-Data
}

// parseEAP parses a packet of EAP (RFC 3748 section 4). data aliases packet.
func parseEAP(packet []byte) (eapPacket, error) {
	code, id, data, err := parseAuthPacket(packet)
	if err != nil {
		return eapPacket{}, err
	}
	p := eapPacket{code: code, id: id}
	if code == eapRequest || code == eapResponse {
		if len(data) == 0 {
			return eapPacket{}, errAuthShort // RFC 3748 section 4.1: a Type is always there
		}
		p.kind, p.data = data[0], data[1:]
	}
	return p, nil
}

// appendEAP is the inverse of parseEAP.
func appendEAP(dst []byte, p eapPacket) []byte {
	if p.code != eapRequest && p.code != eapResponse {
		return appendAuthPacket(dst, p.code, p.id, nil)
	}
	return appendAuthPacket(dst, p.code, p.id, append([]byte{p.kind}, p.data...))
}

// parseEAPMSCHAPv2 parses the Type-Data of EAP-MSCHAPv2: a CHAP packet with the codes of RFC 1994, of which Success and Failure are
// confirmed by the code alone. MS-Length is not believed, since some send 0: the packet ends where EAP says.
func parseEAPMSCHAPv2(data []byte) (code, id byte, body []byte, err error) {
	switch {
	case len(data) == 1:
		return data[0], 0, nil, nil
	case len(data) < authHeaderLen:
		return 0, 0, nil, errAuthShort
	}
	return data[0], data[1], data[authHeaderLen:], nil
}

// eapPeer logs in by EAP. It only answers: retransmission is the authenticator's part (RFC 3748 section 4.3).
type eapPeer struct {
	authBase

	method      AuthMethod // the method begun; AuthNone before
	reopened    bool       // asked for our identity since: another method may begin
	challengeID byte       // identifier and data of the method's challenge
	challenge   []byte
	proof       chapProof // our answer to it; value is nil before
	message     string    // the authenticator's text at the end of the method
	finished    bool      // the method is through as far as we see: a Success may be believed
	loggedIn    bool      // and there was one
	declined    byte      // type of the last Request answered by Nak
	notice      string    // text of the last Notification
}

func (p *eapPeer) start(now time.Time) time.Time {
	p.checkName(now)
	return time.Time{}
}

func (p *eapPeer) advance(time.Time) time.Time { return time.Time{} }

func (p *eapPeer) networkBegun(now time.Time) time.Time {
	p.success(now)
	return time.Time{}
}

func (p *eapPeer) receive(now time.Time, packet []byte) time.Time {
	in, err := parseEAP(packet)
	if p.failed || err != nil {
		return time.Time{}
	}
	switch in.code {
	case eapRequest:
		p.request(now, in)
	case eapSuccess:
		// The identifier is not checked: it is no protection, and some count it up as for a Request.
		p.success(now)
	case eapFailure:
		p.failure(now)
	}
	return time.Time{}
}

// request answers a Request. A repeated one must get the same Response (RFC 3748 section 4.1). It is not known by its identifier, which
// some authenticators use twice: the answer follows from the Request alone, and where a random number is in it, it is kept.
func (p *eapPeer) request(now time.Time, in eapPacket) {
	answer, ok := p.answer(now, in)
	if !ok {
		return
	}
	p.events.sendAuth(protocolEAP, appendEAP(nil, eapPacket{eapResponse, in.id, answer.kind, answer.data}))
	if answer.then != nil {
		p.fail(now, answer.then)
	}
}

// An eapAnswer is our Response to a Request.
type eapAnswer struct {
	kind byte
	data []byte
	then error // ends the login after the Response
}

// answer decides on the Response; ok is false if the Request is to be dropped.
func (p *eapPeer) answer(now time.Time, in eapPacket) (a eapAnswer, ok bool) {
	switch in.kind {
	case eapIdentity:
		p.reopened = true // what is known stays: this may be a late duplicate
		return eapAnswer{kind: eapIdentity, data: []byte(p.c.Username)}, true
	case eapNotification:
		p.notice = peerText(in.data)
		p.c.Log.Debug("server sent a notification", "text", p.notice)
		return eapAnswer{kind: eapNotification}, true
	case eapNak:
		return eapAnswer{}, false // not a Request's type (RFC 3748 section 5.3.1)
	}
	method := eapMethod(in.kind)
	switch {
	case p.method != AuthNone && method != p.method && !p.reopened:
		return eapAnswer{}, false // one method in one conversation (RFC 3748 section 2.1)
	case !slices.Contains(p.c.Auth, method) || method == AuthNone:
		p.declined = in.kind
		return eapAnswer{kind: eapNak, data: p.wanted()}, true
	case method == AuthEAPMD5:
		return p.answerMD5(now, in)
	}
	return p.answerMSCHAPv2(now, in)
}

// wanted lists the types we allow, best first, for a Nak (RFC 3748 section 5.3.1).
func (p *eapPeer) wanted() []byte {
	var types []byte
	for _, m := range p.c.Auth {
		if t := m.eapType(); t != 0 {
			types = append(types, t)
		}
	}
	return types
}

// answerMD5 answers the one Request of RFC 3748 section 5.4. Its data is that of a CHAP Challenge.
func (p *eapPeer) answerMD5(now time.Time, in eapPacket) (eapAnswer, bool) {
	a, ok := p.answerChallenge(now, AuthEAPMD5, in.id, in.data)
	if !ok {
		return eapAnswer{}, false
	}
	p.finished = true // it has no word of the authenticator but the Success
	return eapAnswer{kind: eapMD5, data: a}, true
}

func (p *eapPeer) answerMSCHAPv2(now time.Time, in eapPacket) (eapAnswer, bool) {
	code, id, body, err := parseEAPMSCHAPv2(in.data)
	if err != nil {
		return eapAnswer{}, false
	}
	a := eapAnswer{kind: eapMSCHAPv2, data: []byte{code}}
	switch {
	case code == chapChallenge:
		response, ok := p.answerChallenge(now, AuthEAPMSCHAPv2, id, body)
		a.data = appendAuthPacket(nil, chapResponse, id, response)
		return a, ok
	case p.proof.value == nil:
		return eapAnswer{}, false // a verdict on nothing
	case code == chapSuccess:
		message, err := checkSuccess(p.eapAlgorithm(AuthEAPMSCHAPv2), p.proof, body)
		if err != nil {
			p.fail(now, err)
			return eapAnswer{}, false
		}
		p.message = message
		p.finished = true
		return a, true
	case code == chapFailure && !p.finished:
		a.then = refusal(AuthEAPMSCHAPv2, body)
		return a, true
	}
	return eapAnswer{}, false
}

// answerChallenge answers the challenge of either method: value and name, as in a CHAP Response.
func (p *eapPeer) answerChallenge(now time.Time, method AuthMethod, id byte, data []byte) ([]byte, bool) {
	if method == p.method && id == p.challengeID && bytes.Equal(data, p.challenge) {
		// Sent again, or a late duplicate: what has happened since stays.
		return appendCHAPValue(nil, p.proof.value, p.c.Username), true
	}
	algorithm := p.eapAlgorithm(method)
	challenge, err := parseCHAPChallenge(data, algorithm)
	if err != nil {
		p.c.Log.Debug("dropped an EAP challenge", "err", err)
		return nil, false
	}
	proof, err := algorithm.prove(id, challenge, p.c.Username, p.c.Password)
	if err != nil {
		p.fail(now, err)
		return nil, false
	}
	p.method = method
	p.reopened = false
	p.challengeID = id
	p.challenge = bytes.Clone(data)
	p.proof = proof
	p.message = ""
	p.finished = false
	p.loggedIn = false
	return appendCHAPValue(nil, proof.value, p.c.Username), true
}

// success takes a Success, which proves nothing by itself and counts only when the method is through (RFC 3748 section 4.2).
func (p *eapPeer) success(now time.Time) {
	if p.failed || !p.finished || p.loggedIn {
		return
	}
	p.loggedIn = true
	p.events.authSucceeded(now, authResult{method: p.method, username: p.c.Username, message: p.message, mppe: p.proof.clientKeys()})
}

func (p *eapPeer) failure(now time.Time) {
	switch {
	case p.loggedIn: // late or forged: what the server thinks now it will say by LCP
	case p.method == AuthNone && p.declined != 0:
		p.fail(now, &AuthLocalError{Method: eapMethod(p.declined), Reason: AuthNotAllowed, Detail: eapTypeName(p.declined)})
	default:
		p.fail(now, &AuthError{Method: p.method, Message: p.notice})
	}
}

// eapPhase is where an authenticator stands: what it waits for.
type eapPhase uint8

const (
	eapIdle       eapPhase = iota
	eapAsked               // Identity requested
	eapChallenged          // the method's challenge sent
	eapGranted             // EAP-MSCHAPv2 Success sent, to be confirmed
	eapDenied              // EAP-MSCHAPv2 Failure sent, to be confirmed
	eapOver                // EAP Success sent
)

// eapAuthenticator lets the other side log in: Identity, then the method, or another that the peer asks for by Nak.
type eapAuthenticator struct {
	authBase
	method AuthMethod // proposed or under way

	phase     eapPhase
	id        byte
	packet    []byte // last Request or Success
	tried     []AuthMethod
	identity  string
	challenge []byte
	mschapID  byte
	username  string // as the method names it
	proof     chapProof
}

func (a *eapAuthenticator) start(now time.Time) time.Time {
	if a.failed {
		return time.Time{}
	}
	if a.phase == eapIdle {
		random, err := randomOctets(a.c.Random, 1)
		if err != nil {
			a.fail(now, err)
			return time.Time{}
		}
		a.id = random[0] // so that an answer to an earlier conversation is not taken for one to this
	}
	a.tried = a.tried[:0]
	a.identity, a.username = "", ""
	a.proof = chapProof{}
	a.request(now, eapAsked, eapIdentity, nil)
	return a.timer.deadline
}

// request sends the next Request and waits for its Response.
func (a *eapAuthenticator) request(now time.Time, phase eapPhase, kind byte, data []byte) {
	a.phase = phase
	a.id++
	a.packet = appendEAP(a.packet[:0], eapPacket{eapRequest, a.id, kind, data})
	a.timer.begin(now)
	a.events.sendAuth(protocolEAP, a.packet)
}

func (a *eapAuthenticator) advance(now time.Time) time.Time {
	switch {
	case a.failed || !a.timer.expired(now):
	case a.timer.again(now):
		a.events.sendAuth(protocolEAP, a.packet)
	case a.phase == eapDenied:
		a.refuse(now)
	default:
		a.fail(now, &AuthLocalError{Method: a.method, Reason: AuthNoAnswer})
	}
	return a.timer.deadline
}

func (a *eapAuthenticator) receive(now time.Time, packet []byte) time.Time {
	in, err := parseEAP(packet)
	if a.failed || err != nil || in.code != eapResponse || a.phase == eapIdle || in.id != a.id {
		return a.timer.deadline
	}
	switch a.phase {
	case eapAsked:
		if in.kind == eapIdentity {
			a.identity = string(in.data)
			a.propose(now, a.method)
		}
	case eapChallenged:
		switch in.kind {
		case eapNak:
			a.nak(now, in.data)
		case a.method.eapType():
			a.response(now, in.data)
		}
	case eapGranted, eapDenied:
		if in.kind == eapMSCHAPv2 && len(in.data) > 0 {
			a.confirmed(now, in.data[0])
		}
	case eapOver:
		a.events.sendAuth(protocolEAP, a.packet)
	}
	return a.timer.deadline
}

// propose begins a method with its challenge.
func (a *eapAuthenticator) propose(now time.Time, m AuthMethod) {
	challenge, err := randomOctets(a.c.Random, ownChallengeSize)
	if err != nil {
		a.fail(now, err)
		return
	}
	a.method = m
	a.tried = append(a.tried, m)
	a.challenge = challenge
	a.mschapID = a.id + 1
	data := appendCHAPValue(nil, challenge, a.c.Name)
	if m == AuthEAPMSCHAPv2 {
		data = appendAuthPacket(nil, chapChallenge, a.mschapID, data)
	}
	a.request(now, eapChallenged, m.eapType(), data)
}

// nak proposes the first type the peer wants that we allow and have not proposed yet: so it ends (RFC 3748 section 5.3.1).
func (a *eapAuthenticator) nak(now time.Time, wanted []byte) {
	for _, kind := range wanted {
		m := eapMethod(kind)
		if m != AuthNone && slices.Contains(a.c.Auth, m) && !slices.Contains(a.tried, m) {
			a.propose(now, m)
			return
		}
	}
	a.refuse(now)
}

// response judges the peer's answer to the challenge.
func (a *eapAuthenticator) response(now time.Time, data []byte) {
	id := a.id
	if a.method == AuthEAPMSCHAPv2 {
		code, _, body, err := parseEAPMSCHAPv2(data)
		if err != nil || code != chapResponse {
			return
		}
		id, data = a.mschapID, body
	}
	value, name, err := parseCHAPValue(data)
	if err != nil {
		return
	}
	a.username = string(name)
	if len(name) == 0 {
		a.username = a.identity
	}
	password, known := a.secret(a.username)
	algorithm := a.eapAlgorithm(a.method)
	proof, ok := algorithm.verify(id, a.challenge, value, a.username, password)
	a.proof = proof
	switch granted := ok&known == 1; {
	case a.method == AuthEAPMD5 && granted:
		a.succeed(now)
	case a.method == AuthEAPMD5:
		a.refuse(now)
	case granted:
		a.request(now, eapGranted, eapMSCHAPv2, appendAuthPacket(nil, chapSuccess, a.mschapID, []byte(successText(proof))))
	default:
		text, err := algorithm.failure(a.c.Random)
		if err != nil {
			a.fail(now, err)
			return
		}
		a.request(now, eapDenied, eapMSCHAPv2, appendAuthPacket(nil, chapFailure, a.mschapID, []byte(text)))
	}
}

// confirmed ends EAP-MSCHAPv2: the peer repeats the code of our verdict. A peer that answers our Success otherwise does not believe it.
func (a *eapAuthenticator) confirmed(now time.Time, code byte) {
	if a.phase == eapGranted && code == chapSuccess {
		a.succeed(now)
		return
	}
	a.refuse(now)
}

func (a *eapAuthenticator) succeed(now time.Time) {
	a.end(eapSuccess)
	a.events.authSucceeded(now, authResult{method: a.method, username: a.username, mppe: a.proof.keys})
}

func (a *eapAuthenticator) refuse(now time.Time) {
	a.end(eapFailure)
	name := a.username
	if name == "" {
		name = a.identity
	}
	a.fail(now, &AuthLocalError{Method: a.method, Reason: AuthLoginRefused, Detail: peerText([]byte(name))})
}

// end sends the verdict under the identifier of the last Response (RFC 3748 section 4.2).
func (a *eapAuthenticator) end(code byte) {
	a.phase = eapOver
	a.timer.stop()
	a.packet = appendEAP(a.packet[:0], eapPacket{code: code, id: a.id})
	a.events.sendAuth(protocolEAP, a.packet)
}
