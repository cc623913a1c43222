package ppp

import (
	"time"
)

// Codes of PAP (RFC 1334 section 2.2).
const (
	papRequest = 1
	papAck     = 2
	papNak     = 3
)

// maxPAPField is the longest name or password: its length is sent in one octet.
const maxPAPField = 255

// appendPAPRequest appends the data of an Authenticate-Request (RFC 1334 section 2.2.1); both have at most 255 octets.
func appendPAPRequest(dst []byte, username, password string) []byte {
	dst = append(append(dst, byte(len(username))), username...)
	return append(append(dst, byte(len(password))), password...)
}

// parsePAPRequest parses the data of an Authenticate-Request. Both results alias data.
func parsePAPRequest(data []byte) (username, password []byte, err error) {
	username, rest, err := cutField(data)
	if err != nil {
		return nil, nil, err
	}
	password, _, err = cutField(rest)
	if err != nil {
		return nil, nil, err
	}
	return username, password, nil
}

// parsePAPMessage takes the text out of the data of an Ack or Nak. Many servers leave out the length octet when there
// is no text, and some the text behind it: what is there is the text.
func parsePAPMessage(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data[1:min(len(data), 1+int(data[0]))]
}

// appendPAPMessage appends the data of an Ack or Nak (RFC 1334 section 2.2.2); the message has at most 255 octets.
func appendPAPMessage(dst []byte, message string) []byte {
	return append(append(dst, byte(len(message))), message...)
}

// papPeer logs in by PAP: it speaks first and repeats its request until it is answered.
type papPeer struct {
	authBase
	request []byte
	done    bool
}

func (p *papPeer) start(now time.Time) time.Time {
	if len(p.c.Username) > maxPAPField || len(p.c.Password) > maxPAPField {
		p.fail(now, &AuthLocalError{Method: AuthPAP, Reason: AuthBadLogin, Detail: "user name or password is longer than 255 octets, which PAP does not allow"})
		return time.Time{}
	}
	var id byte = 1
	if len(p.request) > 0 {
		id = p.request[1] + 1
	}
	p.request = appendAuthPacket(p.request[:0], papRequest, id, appendPAPRequest(nil, p.c.Username, p.c.Password))
	p.done = false
	p.timer.begin(now)
	p.events.sendAuth(protocolPAP, p.request)
	return p.timer.deadline
}

func (p *papPeer) advance(now time.Time) time.Time {
	if p.failed || !p.timer.expired(now) {
		return p.timer.deadline
	}
	if p.timer.again(now) {
		p.events.sendAuth(protocolPAP, p.request)
	} else {
		p.fail(now, &AuthLocalError{Method: AuthPAP, Reason: AuthNoAnswer})
	}
	return p.timer.deadline
}

func (p *papPeer) receive(now time.Time, packet []byte) time.Time {
	code, id, data, err := parseAuthPacket(packet)
	if p.failed || p.done || err != nil || len(p.request) == 0 || id != p.request[1] {
		return p.timer.deadline
	}
	message := peerText(parsePAPMessage(data))
	switch code {
	case papAck:
		p.done = true
		p.timer.stop()
		p.events.authSucceeded(now, authResult{method: AuthPAP, username: p.c.Username, message: message})
	case papNak:
		p.fail(now, &AuthError{Method: AuthPAP, Message: message})
	}
	return p.timer.deadline
}

// papAuthenticator waits for the peer's request.
type papAuthenticator struct {
	authBase
	verdict byte // papAck or papNak once given
}

// start begins the wait. PAP has no re-challenge: a later call does nothing.
func (a *papAuthenticator) start(now time.Time) time.Time {
	if a.verdict == 0 && !a.failed {
		a.timer.begin(now)
	}
	return a.timer.deadline
}

func (a *papAuthenticator) advance(now time.Time) time.Time {
	if !a.failed && a.timer.expired(now) && !a.timer.again(now) {
		a.fail(now, &AuthLocalError{Method: AuthPAP, Reason: AuthNoAnswer})
	}
	return a.timer.deadline
}

func (a *papAuthenticator) receive(now time.Time, packet []byte) time.Time {
	code, id, data, err := parseAuthPacket(packet)
	if a.failed || err != nil || code != papRequest {
		return a.timer.deadline
	}
	username, password, err := parsePAPRequest(data)
	if err != nil {
		return a.timer.deadline
	}
	if a.verdict != 0 {
		a.answer(id) // RFC 1334 section 2.2.2: a repeated request gets the same reply code
		return a.timer.deadline
	}
	want, known := a.secret(string(username))
	a.timer.stop()
	if equalSecrets(password, []byte(want))&known == 1 {
		a.verdict = papAck
		a.answer(id)
		a.events.authSucceeded(now, authResult{method: AuthPAP, username: string(username)})
		return a.timer.deadline
	}
	a.verdict = papNak
	a.answer(id)
	a.fail(now, &AuthLocalError{Method: AuthPAP, Reason: AuthLoginRefused, Detail: peerText(username)})
	return a.timer.deadline
}

func (a *papAuthenticator) answer(id byte) {
	text := "Access granted"
	if a.verdict == papNak {
		text = "Access denied"
	}
	a.events.sendAuth(protocolPAP, appendAuthPacket(nil, a.verdict, id, appendPAPMessage(nil, text)))
}
