package ppp

import (
	"bytes"
	"crypto/md5"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"
)

// Codes of CHAP (RFC 1994 section 4). EAP-MSCHAPv2 uses the same numbers.
const (
	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4
)

// A chapAlgorithm is what differs between MD5 (RFC 1994), MS-CHAP (RFC 2433) and MS-CHAP-V2 (RFC 2759). EAP uses them too.
type chapAlgorithm interface {
	method() AuthMethod
	// challengeSize is how long a challenge must be, in octets; 0 for any from 1 to 255.
	challengeSize() int
	// prove answers a challenge of that size as the peer. It fails with a *AuthLocalError.
	prove(id byte, challenge []byte, username, password string) (chapProof, error)
	// verify checks, as the authenticator, the Value of a Response of any length. It returns 1 if it proves the
	// password, otherwise 0, in a time that does not depend on which octets are wrong.
	verify(id byte, challenge, value []byte, username, password string) (chapProof, int)
	// failure is the authenticator's text for a wrong login.
	failure(random io.Reader) (string, error)
}

// A chapProof is what both sides know once the peer has proved its password.
type chapProof struct {
	value   []byte    // Value of the Response
	success string    // the proof the authenticator owes in its Success ("S=..."); empty if the algorithm has none
	keys    *mppeKeys // nil if the algorithm gives none
}

// clientKeys are the keys of the side that sent the proof.
func (p chapProof) clientKeys() *mppeKeys {
	if p.keys == nil {
		return nil
	}
	keys := *p.keys
	keys.client = true
	return &keys
}

func (b *authBase) algorithm(p authProtocol) chapAlgorithm {
	switch p {
	case authProtoMSCHAP:
		return mschap{}
	case authProtoMSCHAPv2:
		return mschapv2{random: b.c.Random, fullName: b.c.HashFullName}
	}
	return chapMD5{}
}

// chapMD5 is the algorithm of RFC 1994 section 4.1: MD5 over identifier, secret, challenge.
type chapMD5 struct{}

func (chapMD5) method() AuthMethod { return AuthCHAPMD5 }
func (chapMD5) challengeSize() int { return 0 }

func (chapMD5) prove(id byte, challenge []byte, _, password string) (chapProof, error) {
	sum := md5.Sum(append(append([]byte{id}, password...), challenge...))
	return chapProof{value: sum[:]}, nil
}

func (a chapMD5) verify(id byte, challenge, value []byte, username, password string) (chapProof, int) {
	proof, _ := a.prove(id, challenge, username, password)
	return proof, subtle.ConstantTimeCompare(proof.value, value)
}

func (chapMD5) failure(io.Reader) (string, error) { return "Access denied", nil }

// ownChallengeSize is how long a challenge of ours is; RFC 1994 section 2.3 wants it unique and unpredictable.
const ownChallengeSize = 16

// appendCHAPValue appends the data of a Challenge or Response: Value-Size, Value, Name (RFC 1994 section 4.1).
// The value has at most 255 octets.
func appendCHAPValue(dst, value []byte, name string) []byte {
	dst = append(dst, byte(len(value)))
	return append(append(dst, value...), name...)
}

// parseCHAPValue parses the data of a Challenge or Response. value has at least 1 octet (RFC 1994 section 4.1); both results alias data.
func parseCHAPValue(data []byte) (value, name []byte, err error) {
	value, name, err = cutField(data)
	if err == nil && len(value) == 0 {
		err = errCHAPNoValue
	}
	return value, name, err
}

var errCHAPNoValue = errors.New("ppp: CHAP packet without a value")

// parseCHAPChallenge parses the data of a Challenge and checks that it is one of the algorithm's.
func parseCHAPChallenge(data []byte, a chapAlgorithm) (challenge []byte, err error) {
	challenge, _, err = parseCHAPValue(data)
	if err != nil {
		return nil, err
	}
	if size := a.challengeSize(); size != 0 && size != len(challenge) {
		return nil, fmt.Errorf("ppp: %s challenge of %d octets", a.method(), len(challenge))
	}
	return challenge, nil
}

// checkSuccess judges, as the peer, the text of a Success by what the proof says the authenticator owes. message is the authenticator's
// text for people.
func checkSuccess(a chapAlgorithm, proof chapProof, text []byte) (message string, err error) {
	if proof.success == "" {
		return peerText(text), nil
	}
	s, rest := parseMSCHAPSuccess(text)
	if subtle.ConstantTimeCompare([]byte(s), []byte(proof.success)) != 1 {
		return "", &AuthLocalError{Method: a.method(), Reason: AuthUnproven}
	}
	return peerText(rest), nil
}

// refusal reads, as the peer, the text of a Failure.
func refusal(m AuthMethod, text []byte) *AuthError {
	if m == AuthMSCHAP || m == AuthMSCHAPv2 || m == AuthEAPMSCHAPv2 {
		f := parseMSCHAPFailure(text)
		return &AuthError{Method: m, Code: f.code, Message: peerText(f.message)}
	}
	return &AuthError{Method: m, Message: peerText(text)}
}

// chapPeer logs in by CHAP. It answers whenever it is challenged and repeats its Response until there is a
// verdict: the Success might have been lost, and the authenticator must answer again (RFC 1994 section 4.2).
type chapPeer struct {
	authBase
	algorithm chapAlgorithm

	challenge []byte // last Challenge packet answered, to know a retransmission
	response  []byte // the Response packet to it
	proof     chapProof
	waiting   bool // no verdict on response yet
	loggedIn  bool // there was a Success before
}

func (p *chapPeer) start(now time.Time) time.Time {
	p.checkName(now)
	return p.timer.deadline
}

func (p *chapPeer) advance(now time.Time) time.Time {
	if p.failed || !p.timer.expired(now) {
		return p.timer.deadline
	}
	switch {
	case p.timer.again(now):
		p.events.sendAuth(protocolCHAP, p.response)
	case !p.loggedIn: // a later challenge without a verdict does not end what works
		p.fail(now, &AuthLocalError{Method: p.algorithm.method(), Reason: AuthNoAnswer})
	}
	return p.timer.deadline
}

func (p *chapPeer) receive(now time.Time, packet []byte) time.Time {
	code, id, data, err := parseAuthPacket(packet)
	if p.failed || err != nil {
		return p.timer.deadline
	}
	switch code {
	case chapChallenge:
		p.respond(now, packet[:authHeaderLen+len(data)], id, data)
	case chapSuccess, chapFailure:
		// A verdict belongs to the Response whose identifier it repeats (RFC 1994 section 4.2); one is enough.
		if p.waiting && id == p.response[1] {
			p.verdict(now, code, data)
		}
	}
	return p.timer.deadline
}

func (p *chapPeer) respond(now time.Time, packet []byte, id byte, data []byte) {
	challenge, err := parseCHAPChallenge(data, p.algorithm)
	if err != nil {
		p.c.Log.Debug("dropped a CHAP challenge", "err", err)
		return
	}
	if bytes.Equal(packet, p.challenge) { // our Response was lost, or the Challenge was sent before it came
		p.events.sendAuth(protocolCHAP, p.response)
		return
	}
	proof, err := p.algorithm.prove(id, challenge, p.c.Username, p.c.Password)
	if err != nil {
		p.fail(now, err)
		return
	}
	p.challenge = append(p.challenge[:0], packet...)
	p.proof = proof
	p.response = appendAuthPacket(p.response[:0], chapResponse, id, appendCHAPValue(nil, proof.value, p.c.Username))
	p.waiting = true
	p.timer.begin(now)
	p.events.sendAuth(protocolCHAP, p.response)
}

func (p *chapPeer) verdict(now time.Time, code byte, text []byte) {
	method := p.algorithm.method()
	if code == chapFailure {
		// With R=1 the server would hear another password; we have none (RFC 2759 section 6).
		p.fail(now, refusal(method, text))
		return
	}
	message, err := checkSuccess(p.algorithm, p.proof, text)
	if err != nil {
		p.fail(now, err)
		return
	}
	p.waiting = false
	p.loggedIn = true
	p.timer.stop()
	p.events.authSucceeded(now, authResult{method: method, username: p.c.Username, message: message, mppe: p.proof.clientKeys()})
}

// chapAuthenticator challenges the peer. The Challenge is repeated unchanged until it is answered, so that an answer slower than the
// timer is still one to the current challenge.
type chapAuthenticator struct {
	authBase
	algorithm chapAlgorithm

	id        byte
	challenge []byte
	packet    []byte // the Challenge
	verdict   []byte // Success or Failure on the current challenge; empty while there is none
}

func (a *chapAuthenticator) start(now time.Time) time.Time {
	if a.failed {
		return time.Time{}
	}
	size := a.algorithm.challengeSize()
	if size == 0 {
		size = ownChallengeSize
	}
	random, err := randomOctets(a.c.Random, 1+size)
	if err != nil {
		a.fail(now, err)
		return time.Time{}
	}
	if len(a.packet) == 0 {
		a.id = random[0] // so that an answer to an earlier conversation is not taken for one to this
	}
	a.id++ // RFC 1994 section 4.1: "MUST be changed each time a Challenge is sent"
	a.challenge = random[1:]
	a.verdict = a.verdict[:0]
	a.packet = appendAuthPacket(a.packet[:0], chapChallenge, a.id, appendCHAPValue(nil, a.challenge, a.c.Name))
	a.timer.begin(now)
	a.events.sendAuth(protocolCHAP, a.packet)
	return a.timer.deadline
}

func (a *chapAuthenticator) advance(now time.Time) time.Time {
	if a.failed || !a.timer.expired(now) {
		return a.timer.deadline
	}
	if a.timer.again(now) {
		a.events.sendAuth(protocolCHAP, a.packet)
	} else {
		a.fail(now, &AuthLocalError{Method: a.algorithm.method(), Reason: AuthNoAnswer})
	}
	return a.timer.deadline
}

func (a *chapAuthenticator) receive(now time.Time, packet []byte) time.Time {
	code, id, data, err := parseAuthPacket(packet)
	if a.failed || err != nil || code != chapResponse || len(a.packet) == 0 || id != a.id {
		return a.timer.deadline
	}
	if len(a.verdict) > 0 {
		// RFC 1994 section 4.2: a repeated Response gets the same reply code, whatever it says.
		a.events.sendAuth(protocolCHAP, a.verdict)
		return a.timer.deadline
	}
	value, name, err := parseCHAPValue(data)
	if err != nil {
		return a.timer.deadline
	}
	a.judge(now, value, string(name))
	return a.timer.deadline
}

func (a *chapAuthenticator) judge(now time.Time, value []byte, username string) {
	method := a.algorithm.method()
	password, known := a.secret(username)
	proof, ok := a.algorithm.verify(a.id, a.challenge, value, username, password)
	a.timer.stop()
	if ok&known == 1 {
		a.verdict = appendAuthPacket(a.verdict, chapSuccess, a.id, []byte(successText(proof)))
		a.events.sendAuth(protocolCHAP, a.verdict)
		a.events.authSucceeded(now, authResult{method: method, username: username, mppe: proof.keys})
		return
	}
	text, err := a.algorithm.failure(a.c.Random)
	if err != nil {
		a.fail(now, err)
		return
	}
	a.verdict = appendAuthPacket(a.verdict, chapFailure, a.id, []byte(text))
	a.events.sendAuth(protocolCHAP, a.verdict)
	a.fail(now, &AuthLocalError{Method: method, Reason: AuthLoginRefused, Detail: peerText([]byte(username))})
}

// successText is the authenticator's text for a right login.
func successText(proof chapProof) string {
	if proof.success == "" {
		return "Access granted"
	}
	return proof.success + " M=Access granted"
}
