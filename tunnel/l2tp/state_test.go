package l2tp

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// alone is a LAC whose peer is played by the test.
type alone struct {
	*pair
	tunnel *Tunnel
}

func aloneIn(t *testing.T, state tunnelState, c Config) *alone {
	t.Helper()
	p := newPair(t, c, Config{})
	a := &alone{pair: p}
	switch state {
	case tunnelWaitReply:
		p.dial()
		a.tunnel = p.dialed
	case tunnelWaitConnect:
		p.lac.config.AcceptTunnel = func(_ netip.AddrPort, _ string) (TunnelHandler, error) { return p.lacTunnel, nil }
		inject(p.lac, p.now, addrLNS, header{}, legalBody(msgSCCRQ, 0))
		a.tunnel = onlyTunnel(p.lac)
	default:
		p.tunnel()
		p.run(time.Second)
		a.tunnel = p.dialed
	}
	delete(p.ports, addrLNS)
	switch state {
	case tunnelClosing:
		a.tunnel.Close(p.now)
	case tunnelClosed:
		a.say(0, legalBody(msgStopCCN, 0))
	}
	if a.tunnel.state != state {
		t.Fatalf("the test reached %v, not %v", a.tunnel.state, state)
	}
	p.sky, p.seen = nil, nil
	return a
}

// say lets the peer send its next message, acknowledging all of ours but the one that closes.
func (a *alone) say(sessionID uint16, body []byte) {
	d := &a.tunnel.delivery
	h := header{tunnelID: a.tunnel.id, sessionID: sessionID, ns: d.nr, nr: d.oldest()}
	if a.tunnel.state != tunnelClosing {
		h.nr += uint16(d.sent)
	}
	inject(a.lac, a.now, addrLNS, h, body)
}

// lastResult is the result code of the last message of a kind that we sent; 0: none was.
func (a *alone) lastResult(kind messageType) (r result) {
	for _, f := range a.seen {
		if _, b, err := parseHeader(f.datagram); err == nil && f.from == addrLAC && kindOf(b) == kind.String() {
			m, _ := parseMessage(b, nil, false)
			r = parseResult(m.value(attrResultCode))
		}
	}
	return r
}

var allMessages = []messageType{msgSCCRQ, msgSCCRP, msgSCCCN, msgStopCCN, msgHELLO, msgOCRQ, msgOCRP, msgOCCN, msgICRQ, msgICRP, msgICCN, msgCDN, msgWEN, msgSLI}

// RFC 2661 section 7.2.1, every message in every state of the control connection.
func TestEveryMessageInEveryTunnelState(t *testing.T) {
	const (
		same   = "same"   // nothing changes
		up     = "up"     // the tunnel is established
		fsm    = "fsm"    // StopCCN 7
		end    = "end"    // the peer closed it
		accept = "accept" // a session is asked for
	)
	states := []tunnelState{tunnelWaitReply, tunnelWaitConnect, tunnelEstablished, tunnelClosing, tunnelClosed}
	cells := map[messageType][5]string{
		msgSCCRQ:   {fsm, fsm, fsm, same, same},
		msgSCCRP:   {up, fsm, fsm, same, same},
		msgSCCCN:   {fsm, up, fsm, same, same},
		msgStopCCN: {end, end, end, end, same},
		msgHELLO:   {same, same, same, same, same},
		msgOCRQ:    {fsm, fsm, accept, same, same},
		msgOCRP:    {fsm, fsm, same, same, same},
		msgOCCN:    {fsm, fsm, same, same, same},
		msgICRQ:    {fsm, fsm, accept, same, same},
		msgICRP:    {fsm, fsm, same, same, same},
		msgICCN:    {fsm, fsm, same, same, same},
		msgCDN:     {fsm, fsm, same, same, same},
		msgWEN:     {fsm, fsm, same, same, same},
		msgSLI:     {fsm, fsm, same, same, same},
	}
	for _, kind := range allMessages {
		for i, state := range states {
			t.Run(fmt.Sprintf("%v in %v", kind, state), func(t *testing.T) {
				a := aloneIn(t, state, Config{})
				ups, downs, accepted := a.lacTunnel.ups, a.lacTunnel.downs, len(a.lacTunnel.accepted)
				a.say(0, legalBody(kind, 0))
				got := same
				var peer *PeerError
				switch now := a.tunnel.state; {
				case a.lacTunnel.ups > ups:
					got = up
				case len(a.lacTunnel.accepted) > accepted:
					got = accept
				case now == tunnelClosing && state != tunnelClosing && a.lastResult(msgStopCCN).code == stopFSM && localKind(a.lacTunnel.down) == Protocol:
					got = fsm
				case now == tunnelClosed && state == tunnelClosing, now == tunnelClosed && state != tunnelClosed && errors.As(a.lacTunnel.down, &peer):
					got = end
				case now != state || a.lacTunnel.downs != downs:
					got = fmt.Sprint("became ", now, ": ", a.lacTunnel.down)
				}
				if got != cells[kind][i] {
					t.Errorf("%s, want %s", got, cells[kind][i])
				}
				a.run(time.Second)
				if len(a.seen) == 0 {
					t.Error("the message was not acknowledged")
				}
			})
		}
	}
}

// RFC 2661 sections 7.4 and 7.5, every message in every state of a session.
func TestEveryMessageInEverySessionState(t *testing.T) {
	const (
		same = "same"
		up   = "up"
		next = "next" // one state further
		cdn  = "cdn"  // CDN, result 2
		end  = "end"  // the peer closed it
	)
	states := []sessionState{sessionWaitReply, sessionWaitConnect, sessionWaitCallReply, sessionWaitCallConnect, sessionEstablished}
	cells := map[messageType][5]string{
		msgOCRP: {cdn, cdn, next, cdn, cdn},
		msgOCCN: {cdn, cdn, cdn, up, cdn},
		msgICRP: {up, cdn, cdn, cdn, cdn},
		msgICCN: {cdn, up, cdn, cdn, cdn},
		msgCDN:  {end, end, end, end, end},
		msgWEN:  {same, same, same, same, same},
		msgSLI:  {same, same, same, same, same},
		// Requests make sessions of their own and leave others alone, whatever session they are addressed to.
		msgICRQ:  {same, same, same, same, same},
		msgOCRQ:  {same, same, same, same, same},
		msgHELLO: {same, same, same, same, same},
	}
	for kind, want := range cells {
		for i, state := range states {
			t.Run(fmt.Sprintf("%v in %v", kind, state), func(t *testing.T) {
				a := aloneIn(t, tunnelEstablished, Config{})
				h := a.sessionIn(state)
				before := h.s.state
				ups := h.ups
				a.say(h.s.id, legalBody(kind, 0))
				got := same
				var peer *PeerError
				switch {
				case h.ups > ups:
					got = up
				case errors.As(h.down, &peer) && peer.Session && peer.WasUp == (state == sessionEstablished):
					got = end
				case localKind(h.down) == Protocol && a.lastResult(msgCDN).code == cdnError && h.s.state == sessionClosed:
					got = cdn
				case h.s.state == before+1 && h.downs == 0:
					got = next
				case h.s.state != before || h.downs > 0:
					got = fmt.Sprint("became ", h.s.state, ": ", h.down)
				}
				if got != want[i] {
					t.Errorf("%s, want %s", got, want[i])
				}
				if a.lacTunnel.downs != 0 {
					t.Error("the tunnel went down:", a.lacTunnel.down)
				}
			})
		}
	}
}

func (a *alone) sessionIn(state sessionState) *sessionLog {
	a.t.Helper()
	h := &sessionLog{}
	var err error
	switch state {
	case sessionWaitReply:
		h.s, err = a.tunnel.OpenSession(a.now, h)
	case sessionWaitConnect:
		a.say(0, legalBody(msgICRQ, 0))
		h = a.lacTunnel.accepted[0]
	case sessionWaitCallReply, sessionWaitCallConnect:
		a.tunnel.bearerCaps = bearerBoth
		h.s, err = a.tunnel.CallOut(a.now, h)
		if state == sessionWaitCallConnect {
			a.say(h.s.id, legalBody(msgOCRP, 0))
		}
	case sessionEstablished:
		h = a.sessionIn(sessionWaitReply)
		a.say(h.s.id, legalBody(msgICRP, 0))
	}
	if err != nil || h.s.state != state {
		a.t.Fatalf("the test reached %v: %v", h.s.state, err)
	}
	return h
}

// RFC 2661 section 4.1: an unknown AVP with M set ends the session whose message holds it, or else the tunnel.
func TestUnknownMandatoryAVP(t *testing.T) {
	unknown := avp{mandatory: true, vendor: 9, attribute: 77}
	for _, permissive := range []bool{false, true} {
		a := aloneIn(t, tunnelEstablished, Config{Permissive: permissive})
		h := a.sessionIn(sessionWaitReply)
		a.say(h.s.id, appendAVP(legalBody(msgICRP, 0), unknown))
		r := a.lastResult(msgCDN)
		if permissive {
			if h.ups != 1 {
				t.Error("permissive: session:", h.down)
			}
		} else if r.code != 2 || r.error != 8 || r.text != "vendor 9 attribute 77" || localKind(h.down) != Protocol || a.lacTunnel.downs != 0 {
			t.Error("session:", r, h.down)
		}

		a = aloneIn(t, tunnelEstablished, Config{Permissive: permissive})
		a.say(0, appendAVP(legalBody(msgICRQ, 0), unknown))
		if permissive != (len(a.lacTunnel.accepted) == 1) || permissive != (a.lastResult(msgCDN).code == 0) {
			t.Error("request:", a.lastResult(msgCDN))
		}

		a = aloneIn(t, tunnelWaitReply, Config{Permissive: permissive})
		a.say(0, appendAVP(legalBody(msgSCCRP, 0), unknown))
		r = a.lastResult(msgStopCCN)
		if permissive {
			if a.lacTunnel.ups != 1 {
				t.Error("permissive: tunnel:", a.lacTunnel.down)
			}
		} else if r.code != 2 || r.error != 8 || localKind(a.lacTunnel.down) != Protocol {
			t.Error("tunnel:", r, a.lacTunnel.down)
		}
	}
}

// RFC 2661 section 4.4.1: M of the Message Type decides what an unknown message does.
func TestUnknownMessageType(t *testing.T) {
	a := aloneIn(t, tunnelEstablished, Config{})
	soft := body(messageType(200))
	soft[0] &^= 0x80
	a.say(0, soft)
	if a.lacTunnel.downs != 0 {
		t.Error("a message that may be ignored ended the tunnel")
	}
	a.say(0, body(messageType(200)))
	if r := a.lastResult(msgStopCCN); r.code != stopError || localKind(a.lacTunnel.down) != Protocol {
		t.Error(r, a.lacTunnel.down)
	}
	a = aloneIn(t, tunnelEstablished, Config{})
	a.say(0, []byte("noise"))
	if r := a.lastResult(msgStopCCN); r.code != stopError {
		t.Error(r)
	}
	a = aloneIn(t, tunnelEstablished, Config{Permissive: true})
	if a.say(0, body(messageType(200))); a.lacTunnel.downs != 0 {
		t.Error("permissive:", a.lacTunnel.down)
	}
}

func TestOtherProtocolVersionIsRefused(t *testing.T) {
	a := aloneIn(t, tunnelWaitReply, Config{})
	a.say(0, body(msgSCCRP, attrProtocolVersion, "\x02\x00", attrHostName, "x", attrFramingCaps, 3, attrAssignedTunnelID, 5))
	if r := a.lastResult(msgStopCCN); r.code != stopVersion || r.error != 0x0100 {
		t.Error(r)
	}
	p := newPair(t, Config{}, Config{})
	inject(p.lns, p.now, addrLAC, header{}, body(msgSCCRQ, attrProtocolVersion, "\x02\x00", attrHostName, "x", attrFramingCaps, 3, attrAssignedTunnelID, 5))
	if len(p.lns.tunnels) != 0 || p.lns.Stats().RefusedTunnels != 1 {
		t.Error("a tunnel of another version was accepted")
	}
}

func TestFaultySCCRQ(t *testing.T) {
	for name, test := range map[string]struct {
		h       header
		body    []byte
		refused uint64
	}{
		"unknown AVP with M":        {header{}, appendAVP(legalBody(msgSCCRQ, 0), avp{mandatory: true, attribute: 99}), 1},
		"no Host Name":              {header{}, legalBody(msgSCCRQ, attrHostName), 1},
		"no Assigned Tunnel ID":     {header{}, legalBody(msgSCCRQ, attrAssignedTunnelID), 0},
		"not the first message":     {header{ns: 1}, legalBody(msgSCCRQ, 0), 0},
		"acknowledges something":    {header{nr: 1}, legalBody(msgSCCRQ, 0), 0},
		"another message":           {header{}, legalBody(msgICRQ, 0), 0},
		"StopCCN of nobody":         {header{}, body(msgStopCCN, attrAssignedTunnelID, 5, attrResultCode, 1), 0},
		"ZLB":                       {header{}, nil, 0},
		"a challenge and no secret": {header{}, append(legalBody(msgSCCRQ, 0), body(msgSCCRQ, attrChallenge, "x")[8:]...), 1},
	} {
		p := newPair(t, Config{}, Config{})
		inject(p.lns, p.now, addrLAC, test.h, test.body)
		if len(p.lns.tunnels) != 0 || p.lns.Stats().RefusedTunnels != test.refused {
			t.Errorf("%s: %d tunnels, %+v", name, len(p.lns.tunnels), p.lns.Stats())
		}
	}
}

func TestRefusedByAcceptTunnel(t *testing.T) {
	p := newPair(t, Config{}, Config{AcceptTunnel: func(from netip.AddrPort, host string) (TunnelHandler, error) {
		if from != addrLAC || host != "gateway" {
			t.Error(from, host)
		}
		return nil, errors.New("not this one")
	}})
	p.dial()
	p.until(time.Second, "refusal", func() bool { return p.lacTunnel.downs == 1 })
	var peer *PeerError
	if !errors.As(p.lacTunnel.down, &peer) || peer.ResultCode != 4 {
		t.Error(p.lacTunnel.down)
	}
}

func TestRouterOSResultCodeIsUnderstood(t *testing.T) {
	a := aloneIn(t, tunnelEstablished, Config{})
	h := a.sessionIn(sessionEstablished)
	a.say(h.s.id, body(msgCDN, attrResultCode, 3, attrAssignedSessionID, 9, attrCauseCode, "\x00\x10\x00gone"))
	var peer *PeerError
	if !errors.As(h.down, &peer) || *peer != (PeerError{Session: true, WasUp: true, ResultCode: 3, CauseCode: 16, Text: "gone"}) {
		t.Errorf("%#v", h.down)
	}
}

// RFC 2661 section 5.6: a CDN sent before the peer knows our session ID is addressed to session 0.
func TestCDNToSessionZero(t *testing.T) {
	a := aloneIn(t, tunnelEstablished, Config{})
	h := a.sessionIn(sessionWaitConnect)
	a.say(0, body(msgCDN, attrResultCode, 1, attrAssignedSessionID, int(h.s.peerID)+1))
	if h.downs != 0 {
		t.Error("another session's CDN ended it")
	}
	a.say(0, body(msgCDN, attrResultCode, 1, attrAssignedSessionID, int(h.s.peerID)))
	if h.downs != 1 {
		t.Error("still there")
	}
}

// RFC 2661 section 4.4.3: a framing type that the peer did not offer must not be used.
func TestFramingTypeIsOneThatThePeerOffers(t *testing.T) {
	for caps, want := range map[int]uint32{3: 1, 1: 1, 2: 2, 0: 1} {
		a := aloneIn(t, tunnelWaitReply, Config{})
		a.say(0, body(msgSCCRP, attrProtocolVersion, protocolVersion1, attrHostName, "x", attrFramingCaps, caps, attrAssignedTunnelID, 5))
		a.sessionIn(sessionEstablished)
		for _, f := range a.seen {
			if _, b, _ := parseHeader(f.datagram); kindOf(b) == "ICCN" {
				if m, _ := parseMessage(b, nil, false); m.uint32(attrFramingType) != want {
					t.Errorf("capabilities %d: framing type %d", caps, m.uint32(attrFramingType))
				}
			}
		}
	}
}
