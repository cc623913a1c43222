package l2tp

import (
	"bytes"
	"crypto/subtle"
	"time"
)

// How a tunnel comes up: SCCRQ, SCCRP, SCCCN (RFC 2661 section 5.1), with authentication of either side or both (5.1.1).

func (t *Tunnel) sendSCCRQ(now time.Time) {
	c := &t.endpoint.config
	m := t.composeStart(msgSCCRQ)
	if !t.minimal {
		m.uint16(attrReceiveWindowSize, uint16(c.ReceiveWindow))
		t.appendOptional(m)
	}
	if c.AcceptTunnel != nil && !t.minimal { // the peer may be dialing us at the same time
		t.tieBreaker = make([]byte, 8)
		fill(c.Random, t.tieBreaker)
		m.bytes(attrTieBreaker, t.tieBreaker)
	}
	t.send(now, 0, m)
}

// composeStart begins an SCCRQ or SCCRP with the AVPs that both must hold, and our challenge.
func (t *Tunnel) composeStart(kind messageType) *composer {
	m := t.compose(kind)
	m.bytes(attrProtocolVersion, []byte(protocolVersion1))
	m.bytes(attrHostName, []byte(t.endpoint.config.HostName))
	m.uint32(attrFramingCaps, framingBoth)
	m.uint16(attrAssignedTunnelID, t.id)
	if t.challenge != nil {
		m.bytes(attrChallenge, t.challenge)
	}
	return m
}

func (t *Tunnel) appendOptional(m *composer) {
	if t.endpoint.config.OutgoingCalls {
		m.uint32(attrBearerCaps, bearerBoth)
	}
	if name := t.endpoint.config.VendorName; name != "" {
		m.bytes(attrVendorName, []byte(name))
	}
}

// sendSCCRP answers an SCCRQ that was admitted.
func (t *Tunnel) sendSCCRP(now time.Time, request *message) {
	t.learn(request)
	m := t.composeStart(msgSCCRP)
	m.uint16(attrReceiveWindowSize, uint16(t.endpoint.config.ReceiveWindow))
	t.appendOptional(m)
	t.appendResponse(m, msgSCCRP, request)
	t.send(now, 0, m)
}

// learn notes what an SCCRQ or SCCRP says of the peer.
func (t *Tunnel) learn(m *message) {
	t.peerID = m.uint16(attrAssignedTunnelID)
	t.hostName = string(m.value(attrHostName))
	t.vendorName = string(m.value(attrVendorName))
	t.framingCaps = m.uint32(attrFramingCaps)
	t.bearerCaps = m.uint32(attrBearerCaps)
	if m.has(attrReceiveWindowSize) {
		t.delivery.setWindow(int(m.uint16(attrReceiveWindowSize)))
	}
}

// appendResponse answers the challenge of request, if there is one, in a message of the given kind.
func (t *Tunnel) appendResponse(m *composer, kind messageType, request *message) {
	if challenge := request.value(attrChallenge); challenge != nil {
		response := challengeResponse(kind, t.endpoint.config.Secret, challenge)
		m.bytes(attrChallengeResponse, response[:])
	}
}

// proves tells whether m, a message of its kind, answers our challenge.
func (t *Tunnel) proves(m *message) bool {
	if t.challenge == nil {
		return true
	}
	want := challengeResponse(m.kind, t.endpoint.config.Secret, t.challenge)
	return subtle.ConstantTimeCompare(want[:], m.value(attrChallengeResponse)) == 1
}

// checkVersion reads the Protocol Version AVP of an SCCRQ or SCCRP. Revisions are compatible (RFC 2661 section 4.4.3).
func checkVersion(m *message) (result, bool) {
	if v := m.value(attrProtocolVersion); v[0] != protocolVersion1[0] {
		return result{stopVersion, 0x0100, ""}, false // the error code tells the highest version that we speak
	}
	return result{}, true
}

func (t *Tunnel) receiveSCCRP(now time.Time, m *message) {
	t.learn(m)
	if r, ok := checkVersion(m); !ok {
		t.shut(now, r, &LocalError{Kind: Protocol, Detail: "peer does not speak version 2 of L2TP"})
		return
	}
	if !t.proves(m) {
		t.shut(now, result{code: stopNotAuthorized}, &LocalError{Kind: WrongSecret, Detail: "peer cannot prove that it knows the tunnel secret"})
		return
	}
	if m.has(attrChallenge) && len(t.endpoint.config.Secret) == 0 {
		t.shut(now, result{code: stopNotAuthorized}, &LocalError{Kind: NoSecret, Detail: "peer asks for a tunnel secret"})
		return
	}
	reply := t.compose(msgSCCCN)
	t.appendResponse(reply, msgSCCCN, m)
	if t.send(now, 0, reply) {
		t.up(now)
	}
}

func (t *Tunnel) receiveSCCCN(now time.Time, m *message) {
	if !t.proves(m) {
		t.shut(now, result{code: stopNotAuthorized}, &LocalError{Kind: WrongSecret, Detail: "peer cannot prove that it knows the tunnel secret"})
		return
	}
	t.up(now)
}

func (t *Tunnel) up(now time.Time) {
	t.state = tunnelEstablished
	t.heard = now
	t.endpoint.config.Log.Info("l2tp tunnel up", "peer", t.peer, "host", t.hostName, "vendor", t.vendorName, "id", t.id, "peer_id", t.peerID)
	t.handler.TunnelUp(now, t)
}

// retryMinimal dials once more with only the AVPs that an SCCRQ must hold: some servers do not bear the others.
func (t *Tunnel) retryMinimal(now time.Time) {
	e := t.endpoint
	e.config.Log.Info("l2tp peer dislikes the SCCRQ, dialing again with required AVPs only", "peer", t.dialed)

	// What is left of the first try acknowledges the peer's StopCCN, under its old ID.
	first := *t
	first.delivery.transmit = first.transmit
	first.ended = true
	e.tunnels[first.id] = &first
	first.retire(now)
	first.delivery.acknowledge()

	t.minimal, t.tieBreaker = true, nil
	t.id, t.peerID, t.peer = e.newTunnelID(), 0, t.dialed
	t.heard = time.Time{}
	t.delivery = newDelivery(e.config.ReceiveWindow, e.config.MaxRetries, t.transmit)
	e.tunnels[t.id] = t
	t.sendSCCRQ(now)
}

// settleTie decides between our tunnel, which waits for its reply, and the peer's SCCRQ (RFC 2661 section 4.4.3, Tie Breaker). It is true
// if the peer's SCCRQ is to be answered; a tunnel of ours that loses ends here. With no Tie Breaker there is no tie but two tunnels.
func (t *Tunnel) settleTie(now time.Time, m *message) bool {
	theirs := m.value(attrTieBreaker)
	if t.tieBreaker == nil && theirs == nil {
		return true
	}
	order := bytes.Compare(t.tieBreaker, theirs) // the lower value wins
	if t.tieBreaker == nil {
		order = 1
	} else if theirs == nil {
		order = -1
	}
	if order >= 0 {
		t.abandon(now, &LocalError{Kind: TieLost, Detail: "peer dialed at the same time and its tunnel has precedence"})
	}
	return order > 0
}
