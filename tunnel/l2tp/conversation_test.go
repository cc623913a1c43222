package l2tp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// RFC 2661 sections 5.1 and 5.2.1: SCCRQ, SCCRP, SCCCN, then ICRQ, ICRP, ICCN; only the last of each is acknowledged by a ZLB.
func TestTunnelAndSessionTakeThreeMessagesEach(t *testing.T) {
	p := connected(t, Config{HostName: "lac", VendorName: "us"}, Config{HostName: "lns"})
	p.run(time.Second)
	if diff := cmp.Diff([]string{"SCCRQ", "SCCCN", "ICRQ", "ICCN"}, p.kinds(addrLAC)); diff != "" {
		t.Error("LAC:", diff)
	}
	if diff := cmp.Diff([]string{"SCCRP", "ICRP", "ZLB"}, p.kinds(addrLNS)); diff != "" {
		t.Error("LNS:", diff)
	}
	if p.lacTunnel.t.HostName() != "lns" || p.lnsTunnel.t.HostName() != "lac" || p.lnsTunnel.t.VendorName() != "us" {
		t.Error("names were not exchanged")
	}
	if p.lacSession.s.Role() != LAC || p.lnsSession.s.Role() != LNS {
		t.Error("roles")
	}
	if p.lac.Stats() != (Stats{}) || p.lns.Stats() != (Stats{}) {
		t.Error("something was dropped:", p.lac.Stats(), p.lns.Stats())
	}
}

func TestClientSendsNeitherBearerCapabilitiesNorRxConnectSpeedNorTieBreaker(t *testing.T) {
	p := connected(t, Config{}, Config{})
	for _, f := range p.seen {
		h, b, _ := parseHeader(f.datagram)
		if f.from != addrLAC || !h.control || len(b) == 0 {
			continue
		}
		m, _ := parseMessage(b, nil, false)
		if m.has(attrBearerCaps) || m.has(attrRxConnectSpeed) || m.has(attrTieBreaker) {
			t.Errorf("%v holds an AVP that stalls some servers", m.kind)
		}
	}
}

func TestFramesPassBothWaysInAllHeaderForms(t *testing.T) {
	for _, length := range []bool{false, true} {
		for _, sequencing := range []bool{false, true} {
			t.Run(fmt.Sprintf("L=%v S=%v", length, sequencing), func(t *testing.T) {
				p := connected(t, Config{LengthBit: length, Sequencing: sequencing}, Config{LengthBit: length})
				p.lacSession.write(t, "one", "two")
				p.lacSession.write(t, "three")
				p.run(10 * time.Millisecond)
				p.lnsSession.write(t, "four")
				p.run(time.Second)
				if diff := cmp.Diff([]string{"one", "two", "three"}, texts(p.lnsSession.frames)); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff([]string{"four"}, texts(p.lacSession.frames)); diff != "" {
					t.Error(diff)
				}
				size := header{length: length, sequenced: sequencing}.size()
				if got := p.lacSession.s.MTU(); got != 1472-size {
					t.Errorf("MTU %d with a header of %d bytes", got, size)
				}
				want := SessionStats{FramesReceived: 3, BytesReceived: 11, FramesSent: 1, BytesSent: 4}
				if diff := cmp.Diff(want, p.lnsSession.s.Stats()); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestTwoSessionsShareOneTunnel(t *testing.T) {
	p := connected(t, Config{}, Config{})
	lac2, lns2 := p.session()
	p.lacSession.write(t, "first")
	lac2.write(t, "second")
	p.run(time.Second)
	if diff := cmp.Diff([]string{"first"}, texts(p.lnsSession.frames)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"second"}, texts(lns2.frames)); diff != "" {
		t.Error(diff)
	}
	p.lacSession.s.Close(p.now)
	p.run(time.Second)
	if !errors.Is(p.lacSession.down, ErrClosed) || p.lnsSession.downs != 1 || lac2.downs != 0 || lns2.downs != 0 {
		t.Error("a CDN must end one session only")
	}
	lac2.write(t, "third")
	p.run(time.Second)
	if diff := cmp.Diff([]string{"second", "third"}, texts(lns2.frames)); diff != "" {
		t.Error(diff)
	}
	if err := p.lacSession.s.WriteFrames(framesOf("late")); !errors.Is(err, ErrClosed) {
		t.Error("writing to a closed session:", err)
	}
}

// RFC 2661 section 5.2.2: OCRQ, OCRP, OCCN.
func TestLNSCallsOut(t *testing.T) {
	p := newPair(t, Config{OutgoingCalls: true}, Config{})
	p.tunnel()
	lns := &sessionLog{}
	s, err := p.lnsTunnel.t.CallOut(p.now, lns)
	if err != nil {
		t.Fatal(err)
	}
	lns.s = s
	p.until(time.Second, "session up", func() bool { return lns.ups == 1 })
	lac := p.lacTunnel.accepted[0]
	if lac.ups != 1 || lac.s.Role() != LAC || s.Role() != LNS {
		t.Error("the LAC's end is not up")
	}
	lns.write(t, "down")
	lac.write(t, "up")
	p.run(time.Second)
	if len(lns.frames) != 1 || len(lac.frames) != 1 {
		t.Error("no frames")
	}
	if diff := cmp.Diff([]string{"SCCRQ", "SCCCN", "OCRP", "OCCN"}, p.kinds(addrLAC)); diff != "" {
		t.Error(diff)
	}
}

// RFC 2661 section 6.9: only a LAC that sent Bearer Capabilities may be asked.
func TestLNSDoesNotCallOutWithoutBearerCapabilities(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.tunnel()
	if _, err := p.lnsTunnel.t.CallOut(p.now, &sessionLog{}); localKind(err) != Refused {
		t.Error(err)
	}
}

func TestHandlerRefusesSessions(t *testing.T) {
	for _, callOut := range []bool{false, true} {
		p := newPair(t, Config{OutgoingCalls: true}, Config{})
		no := func(time.Time, *Session) (SessionHandler, error) { return nil, errors.New("no") }
		p.lacTunnel.accept, p.lnsTunnel.accept = no, no
		p.tunnel()
		h := &sessionLog{}
		if callOut {
			p.lnsTunnel.t.CallOut(p.now, h)
		} else {
			p.lacTunnel.t.OpenSession(p.now, h)
		}
		p.until(time.Second, "refusal", func() bool { return h.downs == 1 })
		var peer *PeerError
		if !errors.As(h.down, &peer) || peer.ResultCode != 3 || peer.WasUp || peer.Stage() != "l2tp-session" {
			t.Errorf("%#v", h.down)
		}
	}
}

func TestHandlerClosesSessionWhileItIsAsked(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.lnsTunnel.accept = func(now time.Time, s *Session) (SessionHandler, error) {
		s.Close(now)
		return &sessionLog{}, nil
	}
	p.tunnel()
	h := &sessionLog{}
	p.lacTunnel.t.OpenSession(p.now, h)
	p.until(time.Second, "refusal", func() bool { return h.downs == 1 })
}

func TestSessionsAreLimited(t *testing.T) {
	p := newPair(t, Config{MaxSessions: 2}, Config{MaxSessions: 1})
	p.tunnel()
	p.session()
	h := &sessionLog{}
	if _, err := p.lacTunnel.t.OpenSession(p.now, h); err != nil {
		t.Fatal(err)
	}
	if _, err := p.lacTunnel.t.OpenSession(p.now, &sessionLog{}); localKind(err) != NoResources {
		t.Error(err)
	}
	p.until(time.Second, "refusal by the LNS", func() bool { return h.downs == 1 })
	var peer *PeerError
	if !errors.As(h.down, &peer) || peer.ResultCode != 4 || !strings.Contains(peer.Advice(), "licences") {
		t.Error(h.down)
	}
}

// RFC 2661 section 5.1.1 and, with hiding, 4.3.
func TestTunnelAuthentication(t *testing.T) {
	for _, test := range []struct {
		name         string
		lac, lns     string
		hide         bool
		lacErr       Kind // of the LAC; 0: the tunnel comes up
		lnsErr       Kind
		lacPeerError uint16
	}{
		{name: "none"},
		{name: "both know the secret", lac: "s3cret", lns: "s3cret"},
		{name: "both hide", lac: "s3cret", lns: "s3cret", hide: true},
		{name: "another secret", lac: "s3cret", lns: "other", lacErr: WrongSecret},
		{name: "another secret, hidden", lac: "s3cret", lns: "other", hide: true, lacErr: WrongSecret},
		{name: "only the LNS has one", lns: "s3cret", lacErr: NoSecret},
		{name: "only the LNS has one, hidden", lns: "s3cret", hide: true, lacErr: NoSecret},
		{name: "only the LAC has one", lac: "s3cret", lacPeerError: 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, Config{Secret: []byte(test.lac), HideAVPs: test.hide}, Config{Secret: []byte(test.lns), HideAVPs: test.hide})
			if test.lacErr == 0 && test.lacPeerError == 0 {
				p.tunnel()
				lac, lns := p.session()
				lac.write(t, "up")
				p.run(time.Second)
				if len(lns.frames) != 1 {
					t.Error("no frame")
				}
				return
			}
			p.dial()
			p.until(time.Minute, "refusal", func() bool { return p.lacTunnel.downs == 1 && p.lns.Idle() })
			if p.lacTunnel.ups+p.lnsTunnel.ups > 0 {
				t.Error("the tunnel came up")
			}
			var peer *PeerError
			if test.lacPeerError != 0 {
				if !errors.As(p.lacTunnel.down, &peer) || peer.ResultCode != test.lacPeerError {
					t.Error(p.lacTunnel.down)
				}
			} else if localKind(p.lacTunnel.down) != test.lacErr {
				t.Error(p.lacTunnel.down)
			}
			if err := p.lacTunnel.down; strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "other") {
				t.Error("the error tells the secret:", err)
			}
		})
	}
}

// The LNS must not believe a LAC that answers its challenge wrongly.
func TestLNSRefusesWrongResponse(t *testing.T) {
	p := newPair(t, Config{}, Config{Secret: []byte("secret")})
	inject(p.lns, p.now, addrLAC, header{}, body(msgSCCRQ, attrProtocolVersion, protocolVersion1, attrHostName, "x", attrFramingCaps, 3, attrAssignedTunnelID, 7))
	id := onlyTunnel(p.lns).id
	inject(p.lns, p.now, addrLAC, header{tunnelID: id, ns: 1, nr: 1}, body(msgSCCCN, attrChallengeResponse, make([]byte, 16)))
	if p.lnsTunnel.ups != 0 || localKind(p.lnsTunnel.down) != WrongSecret {
		t.Error("tunnel:", p.lnsTunnel.ups, p.lnsTunnel.down)
	}
}

func onlyTunnel(p *port) *Tunnel {
	for _, t := range p.tunnels {
		if t.state != tunnelClosed {
			return t
		}
	}
	return nil
}

func TestHiddenMessagesShowNoClearAVPThatMayBeHidden(t *testing.T) {
	c := Config{Secret: []byte("secret"), HideAVPs: true}
	p := connected(t, c, c)
	p.run(time.Second)
	for _, f := range p.seen {
		h, rest, _ := parseHeader(f.datagram)
		if !h.control || len(rest) == 0 || kindOf(rest) == "SCCRQ" {
			continue
		}
		kind := kindOf(rest)
		for len(rest) > 0 {
			var a avp
			var err error
			if a, rest, err = parseAVP(rest); err != nil {
				t.Fatal(err)
			}
			if rule := avpRules[avpKey{a.vendor, a.attribute}]; rule.hideable != a.hidden {
				t.Errorf("%s: attribute %d: may be hidden %v, is hidden %v", kind, a.attribute, rule.hideable, a.hidden)
			}
		}
	}
}

// RFC 2661 section 8.1: the responder may choose another port; the pair is fixed from then on.
func TestReplyFromAnotherPortIsFollowed(t *testing.T) {
	other := netip.AddrPortFrom(addrLNS.Addr(), 5555)
	p := newPair(t, Config{}, Config{})
	p.ports[other] = p.lns
	p.lns.addr = other // it listens on both and answers from this one
	p.dial()
	p.until(time.Second, "tunnel", func() bool { return p.lnsTunnel.ups == 1 })
	if p.dialed.Peer() != other {
		t.Error("peer is", p.dialed.Peer())
	}
	lac, lns := p.session()
	lac.write(t, "up")
	lns.write(t, "down")
	p.run(time.Second)
	if len(lac.frames) != 1 || len(lns.frames) != 1 {
		t.Error("no frames")
	}
	for _, f := range p.seen[1:] {
		if f.from == addrLAC && f.to != other {
			h, _, _ := parseHeader(f.datagram)
			t.Errorf("%+v still went to %v", h, f.to)
		}
	}
	// Neither control nor data from the first port is accepted any more.
	h := header{tunnelID: p.dialed.id, sessionID: lac.s.id}
	p.lac.Receive(p.now, addrLNS, [][]byte{append(appendHeader(nil, h, 1), 1)})
	inject(p.lac, p.now, addrLNS, header{tunnelID: p.dialed.id}, nil)
	if got := p.lac.Stats().WrongSource; got != 2 || len(lac.frames) != 1 {
		t.Error("messages from a wrong port dropped:", got)
	}
}

func TestReplyFromAnotherHostIsIgnored(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.dial()
	stranger := netip.MustParseAddrPort("203.0.113.9:1701")
	inject(p.lac, p.now, stranger, header{tunnelID: p.dialed.id, nr: 1}, body(msgStopCCN, attrAssignedTunnelID, 9, attrResultCode, 1))
	if p.lacTunnel.downs != 0 || p.lac.Stats().WrongSource != 1 {
		t.Error("a stranger closed the tunnel")
	}
}

func TestSilentServer(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	delete(p.ports, addrLNS)
	p.dial()
	p.until(time.Minute, "giving up", func() bool { return p.lacTunnel.downs == 1 })
	// RFC 2661 section 5.8: 1 s, doubling, here with the least cap allowed, five tries.
	var sent []time.Duration
	for _, f := range p.seen {
		sent = append(sent, f.at.Sub(epoch)/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{0, 1, 3, 7, 15, 23}, sent); diff != "" {
		t.Error("seconds of transmission:", diff)
	}
	if got := p.now.Sub(epoch); got != 31*time.Second {
		t.Error("gave up after", got)
	}
	if diff := cmp.Diff([]string{"SCCRQ", "SCCRQ", "SCCRQ", "SCCRQ", "SCCRQ", "SCCRQ"}, p.kinds(addrLAC)); diff != "" {
		t.Error(diff)
	}
	if localKind(p.lacTunnel.down) != NoAnswer || !p.lac.Idle() || p.lacTunnel.down.Error() != "l2tp: no answer from 198.51.100.1:1701" {
		t.Error(p.lacTunnel.down)
	}
}

func TestServerThatOnlyAcknowledges(t *testing.T) {
	p := newPair(t, Config{SetupTimeout: 5 * time.Second}, Config{})
	delete(p.ports, addrLNS)
	p.dial()
	inject(p.lac, p.now, addrLNS, header{tunnelID: p.dialed.id, nr: 1}, nil)
	p.run(5 * time.Second)
	if localKind(p.lacTunnel.down) != TimedOut {
		t.Error("tunnel:", p.lacTunnel.down)
	}

	p = newPair(t, Config{SetupTimeout: 5 * time.Second}, Config{})
	p.tunnel()
	delete(p.ports, addrLNS)
	h := &sessionLog{}
	p.lacTunnel.t.OpenSession(p.now, h)
	inject(p.lac, p.now, addrLNS, header{tunnelID: p.dialed.id, ns: 1, nr: 3}, nil)
	p.run(5 * time.Second)
	if localKind(h.down) != TimedOut || p.lacTunnel.downs != 0 {
		t.Error("session:", h.down)
	}
}

func TestNetworkRefuses(t *testing.T) {
	cause := errors.New("connection refused")
	p := newPair(t, Config{}, Config{})
	p.dial()
	p.lac.Unreachable(p.now, addrLNS, cause)
	if localKind(p.lacTunnel.down) != Unreachable || !errors.Is(p.lacTunnel.down, cause) || !p.lac.Idle() {
		t.Error(p.lacTunnel.down)
	}

	p = connected(t, Config{}, Config{})
	if p.lac.Unreachable(p.now, addrLNS, cause); p.lacTunnel.downs != 0 {
		t.Error("a forged ICMP error ended a tunnel that was up")
	}

	p = newPair(t, Config{}, Config{})
	p.lac.err = cause
	p.dial()
	p.run(time.Minute)
	if localKind(p.lacTunnel.down) != Unreachable || !errors.Is(p.lacTunnel.down, cause) || p.lac.Stats().WriteErrors != 6 {
		t.Error(p.lacTunnel.down)
	}
}

// RFC 2661 section 5.5: a HELLO after 60 s without anything from the peer; its acknowledgement is life enough.
func TestHELLOAfterSilence(t *testing.T) {
	p := connected(t, Config{}, Config{HelloInterval: -1})
	p.seen = nil
	p.run(50 * time.Second)
	p.lnsSession.write(t, "any datagram counts")
	p.run(59 * time.Second)
	if got := p.kinds(addrLAC); len(got) > 1 || len(got) == 1 && got[0] != "ZLB" {
		t.Error("HELLO came too early:", got)
	}
	p.run(2 * time.Second)
	if got := p.kinds(addrLAC); !slices.Contains(got, "HELLO") {
		t.Error("no HELLO")
	}
	p.run(10 * time.Minute)
	if p.lacTunnel.downs != 0 || p.lnsTunnel.downs != 0 {
		t.Error("the tunnel died though the peer lives")
	}
	if slices.Contains(p.kinds(addrLNS), "HELLO") {
		t.Error("HELLO though switched off")
	}
}

func TestSilentPeerIsFoundDead(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	delete(p.ports, addrLNS)
	start := p.now
	p.until(3*time.Minute, "death", func() bool { return p.lacTunnel.downs == 1 })
	if p.lacSession.downs != 1 || localKind(p.lacSession.down) != NoAnswer || localKind(p.lacTunnel.down) != NoAnswer {
		t.Error(p.lacTunnel.down)
	}
	if d := p.now.Sub(start); d < 90*time.Second || d > 92*time.Second {
		t.Error("found after", d)
	}
}

// Some phones leave a HELLO unacknowledged; as long as their data comes they are not dead.
func TestPeerThatIgnoresHELLOButSendsDataLives(t *testing.T) {
	p := connected(t, Config{HelloInterval: 10 * time.Second}, Config{HelloInterval: -1})
	p.run(time.Second)
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.datagram); h.control && f.from == addrLNS {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	for range 8 {
		p.run(15 * time.Second)
		p.lnsSession.write(t, "data")
	}
	p.run(time.Second)
	if p.lacTunnel.downs != 0 {
		t.Error(p.lacTunnel.down)
	}
}

// RFC 2661 section 5.7: the one that received StopCCN acknowledges its retransmissions for a full cycle.
func TestStopCCNIsAcknowledgedAgain(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	lost := 0
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.datagram); h.control && f.from == addrLNS && lost < 3 {
			lost++
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.seen = nil
	p.lacTunnel.t.Close(p.now)
	if !errors.Is(p.lacTunnel.down, ErrClosed) || !errors.Is(p.lacSession.down, ErrClosed) || p.lac.Idle() {
		t.Error("handlers hear of Close before it returns:", p.lacTunnel.down)
	}
	p.until(20*time.Second, "acknowledgement", p.lac.Idle)
	if diff := cmp.Diff([]string{"ZLB", "ZLB", "ZLB", "ZLB"}, p.kinds(addrLNS)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"StopCCN", "StopCCN", "StopCCN", "StopCCN"}, p.kinds(addrLAC)); diff != "" {
		t.Error(diff)
	}
	if p.lnsTunnel.downs != 1 || p.lnsSession.downs != 1 || !p.lns.Idle() {
		t.Error("LNS:", p.lnsTunnel.down)
	}
	var peer *PeerError
	if !errors.As(p.lnsTunnel.down, &peer) || peer.ResultCode != 1 || !peer.WasUp || peer.Stage() != "l2tp-tunnel" {
		t.Error(p.lnsTunnel.down)
	}
	p.run(40 * time.Second)
	if len(p.lac.tunnels)+len(p.lns.tunnels)+len(p.lac.Endpoint.sessions)+len(p.lns.Endpoint.sessions) > 0 {
		t.Error("state is left after a full cycle")
	}
	if !p.lac.NextDeadline().IsZero() {
		t.Error("a deadline is left")
	}
}

func TestStopCCNsCross(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	p.lac.Close(p.now)
	p.lns.Close(p.now)
	p.until(time.Second, "end", func() bool { return p.lac.Idle() && p.lns.Idle() })
	if p.lacTunnel.downs != 1 || p.lnsTunnel.downs != 1 {
		t.Error("handlers heard more than once")
	}
}

func TestEndpointClose(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.lns.Close(p.now)
	p.until(time.Second, "end", func() bool { return p.lns.Idle() && p.lacTunnel.downs == 1 })
	var peer *PeerError
	if !errors.As(p.lacTunnel.down, &peer) || peer.ResultCode != 6 || peer.Advice() == "" {
		t.Error(p.lacTunnel.down)
	}
	// A closed Endpoint accepts and dials no more.
	p.lacTunnel = &tunnelLog{}
	p.dial()
	p.until(time.Second, "refusal", func() bool { return p.lacTunnel.downs == 1 })
	h := &tunnelLog{}
	if p.lns.Dial(p.now, addrLAC, h); !errors.Is(h.down, ErrClosed) {
		t.Error(h.down)
	}
	if _, err := p.lnsTunnel.t.OpenSession(p.now, &sessionLog{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestClosingWhileNobodyAnswersEndsAtOnce(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	delete(p.ports, addrLNS)
	p.dial()
	if _, err := p.dialed.OpenSession(p.now, &sessionLog{}); err == nil {
		t.Error("a session was opened in a tunnel that is not up")
	}
	p.lac.Close(p.now)
	if !p.lac.Idle() || !errors.Is(p.lacTunnel.down, ErrClosed) {
		t.Error("not idle")
	}
	if diff := cmp.Diff([]string{"SCCRQ", "StopCCN"}, p.kinds(addrLAC)); diff != "" {
		t.Error(diff)
	}
}

func TestPureLACRefusesTunnelsWithoutKeepingState(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	h := &tunnelLog{}
	p.lns.Dial(p.now, addrLAC, h)
	p.until(time.Second, "refusal", func() bool { return h.downs == 1 })
	var peer *PeerError
	if !errors.As(h.down, &peer) || peer.ResultCode != 4 || peer.WasUp {
		t.Error(h.down)
	}
	if len(p.lac.tunnels) != 0 || p.lac.Stats().RefusedTunnels != 1 {
		t.Error("state is left")
	}
}

func TestHalfOpenTunnelsAreLimited(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	delete(p.ports, addrLAC)
	ask := func(from netip.AddrPort, id int) {
		inject(p.lns, p.now, from, header{}, body(msgSCCRQ, attrProtocolVersion, protocolVersion1, attrHostName, "x", attrFramingCaps, 3, attrAssignedTunnelID, id))
	}
	for i := range 3 * maxHalfOpenPerSource {
		ask(addrLAC, i+1)
	}
	if got := p.lns.live(); got != maxHalfOpenPerSource {
		t.Error("from one source:", got)
	}
	for i := range 2 * maxHalfOpen {
		ask(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1701), 1)
	}
	if got := p.lns.live(); got != maxHalfOpen {
		t.Error("from all:", got)
	}
	p.run(2 * time.Minute)
	if !p.lns.Idle() {
		t.Error("they stay for ever")
	}
}

func TestTunnelsAreLimited(t *testing.T) {
	p := newPair(t, Config{MaxTunnels: 1}, Config{MaxTunnels: 1})
	p.tunnel()
	h := &tunnelLog{}
	p.lac.Dial(p.now, addrLNS, h)
	if localKind(h.down) != NoResources {
		t.Error(h.down)
	}
	third := p.endpoint(netip.MustParseAddrPort("192.0.2.3:1"), Config{})
	third.Dial(p.now, addrLNS, h)
	p.until(time.Second, "refusal", func() bool { return h.downs == 2 })
	var peer *PeerError
	if !errors.As(h.down, &peer) || peer.ErrorCode != 4 {
		t.Error(h.down)
	}
}

func TestRetransmittedSCCRQIsNoSecondTunnel(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		return []time.Duration{time.Millisecond, 2 * time.Millisecond, 900 * time.Millisecond}
	}
	p.tunnel()
	p.run(5 * time.Second)
	if p.lnsTunnel.ups != 1 || len(p.lns.tunnels) != 1 {
		t.Error("tunnels:", len(p.lns.tunnels))
	}
}

// RFC 2661 section 5.7: a peer that gives up before our reply came addresses its StopCCN to tunnel 0.
func TestStopCCNToTunnelZero(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	delete(p.ports, addrLAC)
	p.dial()
	p.run(2 * time.Millisecond)
	p.dialed.Close(p.now)
	p.run(2 * time.Millisecond)
	if p.lnsTunnel.downs != 1 || !p.lns.Idle() {
		t.Error("the tunnel is still there")
	}
}

// RFC 2661 section 4.4.3, Tie Breaker.
func TestTie(t *testing.T) {
	for _, test := range []struct {
		name   string
		values [2]byte // of which each Tie Breaker is made
	}{{"lower value of the first", [2]byte{4, 5}}, {"lower value of the second", [2]byte{5, 4}}, {"equal", [2]byte{4, 4}}} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			var accepted [2]*tunnelLog
			var dialed [2]*tunnelLog
			var ports [2]*port
			addrs := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1701"), addrLNS}
			for i := range ports {
				accepted[i], dialed[i] = &tunnelLog{}, &tunnelLog{}
				ports[i] = n.endpoint(addrs[i], Config{
					AcceptTunnel: func(netip.AddrPort, string) (TunnelHandler, error) { return accepted[i], nil },
					Random:       &tieSource{value: test.values[i], rest: randomFrom(uint64(i))},
				})
			}
			for i := range ports {
				ports[i].Dial(n.now, addrs[1-i], dialed[i])
			}
			n.run(5 * time.Second)
			a, b := test.values[0] < test.values[1], test.values[1] < test.values[0]
			if !bytes.Equal(tieOf(n, addrs[0]), bytes.Repeat(test.values[:1], 8)) {
				t.Error("the Tie Breaker is not what the test meant:", tieOf(n, addrs[0]))
			}
			if got, want := dialed[0].ups, btoi(a); got != want {
				t.Error("first tunnel up:", got, "want", want)
			}
			if got, want := dialed[1].ups, btoi(b); got != want {
				t.Error("second tunnel up:", got, "want", want)
			}
			if !a && localKind(dialed[0].down) != TieLost || !b && localKind(dialed[1].down) != TieLost {
				t.Error("losers:", dialed[0].down, dialed[1].down)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tieSource gives each Tie Breaker the same first byte.
type tieSource struct {
	value byte
	rest  *rand.ChaCha8
}

func (s *tieSource) Read(b []byte) (int, error) {
	if len(b) == 8 {
		for i := range b {
			b[i] = s.value
		}
		return len(b), nil
	}
	return s.rest.Read(b)
}

func tieOf(n *network, from netip.AddrPort) []byte {
	for _, f := range n.seen {
		if _, b, _ := parseHeader(f.datagram); f.from == from && kindOf(b) == "SCCRQ" {
			m, _ := parseMessage(b, nil, false)
			return m.value(attrTieBreaker)
		}
	}
	return nil
}

func TestTieWithOneValueOrNone(t *testing.T) {
	for _, test := range []struct {
		ours, theirs string
		answered     bool
		lost         bool
	}{
		{"", "", true, false},
		{"12345678", "", false, false},
		{"", "12345678", true, true},
	} {
		p := newPair(t, Config{}, Config{})
		h := &tunnelLog{}
		tunnel := p.lns.Dial(p.now, addrLAC, h)
		tunnel.tieBreaker = nil
		if test.ours != "" {
			tunnel.tieBreaker = []byte(test.ours)
		}
		avps := []any{attrProtocolVersion, protocolVersion1, attrHostName, "x", attrFramingCaps, 3, attrAssignedTunnelID, 7}
		if test.theirs != "" {
			avps = append(avps, attrTieBreaker, test.theirs)
		}
		before := p.lns.live()
		inject(p.lns, p.now, addrLAC, header{}, body(msgSCCRQ, avps...))
		if lost := localKind(h.down) == TieLost; lost != test.lost {
			t.Errorf("%q against %q: lost %v", test.ours, test.theirs, lost)
		}
		if answered := p.lns.live() > before-btoi(test.lost); answered != test.answered {
			t.Errorf("%q against %q: answered %v", test.ours, test.theirs, answered)
		}
	}
}

// A server that dislikes an SCCRQ (result 2, error 3 or 8) gets one with required AVPs only, once.
func TestMinimalSCCRQIsTriedOnce(t *testing.T) {
	for _, code := range []errorCode{errorValue, errorUnknownAVP} {
		p := newPair(t, Config{VendorName: "us", OutgoingCalls: true}, Config{})
		p.dial()
		first := p.dialed.id
		stop := func(tunnelID uint16, ns uint16) {
			inject(p.lac, p.now, addrLNS, header{tunnelID: tunnelID, ns: ns, nr: 1}, body(msgStopCCN, attrAssignedTunnelID, 99, attrResultCode, appendResult(nil, result{stopError, code, "no"})))
		}
		p.seen = nil
		stop(first, 0)
		if p.lacTunnel.downs != 0 || p.dialed.id == first {
			t.Fatal("no second try")
		}
		if diff := cmp.Diff([]string{"ZLB", "SCCRQ"}, p.kinds(addrLAC)); diff != "" {
			t.Error(diff)
		}
		_, b, _ := parseHeader(p.seen[1].datagram)
		m, f := parseMessage(b, nil, false)
		if f != nil || len(m.values) != 4 {
			t.Error("the second SCCRQ holds", m.values, f)
		}
		p.seen = nil
		stop(first, 0) // the server did not hear the ZLB
		if diff := cmp.Diff([]string{"ZLB"}, p.kinds(addrLAC)); diff != "" {
			t.Error(diff)
		}
		stop(p.dialed.id, 0)
		var peer *PeerError
		if !errors.As(p.lacTunnel.down, &peer) || peer.ErrorCode != uint16(code) || peer.Text != "no" {
			t.Error(p.lacTunnel.down)
		}
		p.run(time.Minute)
		if len(p.lac.tunnels) != 0 {
			t.Error("state is left")
		}
	}

	p := newPair(t, Config{}, Config{})
	p.dial()
	first := p.dialed.id
	inject(p.lac, p.now, addrLNS, header{tunnelID: first, nr: 1}, body(msgStopCCN, attrAssignedTunnelID, 99, attrResultCode, appendResult(nil, result{stopError, errorValue, ""})))
	p.until(time.Second, "second try", func() bool { return p.lacTunnel.ups == 1 })
	p.session()
}

// Whatever the network does to control messages, tunnels and sessions come up, close, and data that arrives is whole.
func TestConversationSurvivesLossDuplicationAndReordering(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := int(seed%3) * 2 // 0: default, 2, 4
		if seed%5 == 0 {
			window = 1
		}
		hide := seed%2 == 0
		c := Config{Secret: []byte("secret"), HideAVPs: hide, ReceiveWindow: window, Sequencing: seed%4 == 0}
		p := newPair(t, c, c)
		p.fate = func(flight) (delays []time.Duration) {
			for r.IntN(100) < 85 && len(delays) < 3 { // 15 % loss, many duplicates
				delays = append(delays, time.Duration(r.IntN(60))*time.Millisecond)
				if r.IntN(100) < 80 {
					break
				}
			}
			return delays
		}
		p.dial()
		p.until(2*time.Minute, fmt.Sprint("seed ", seed, ": tunnel"), func() bool { return p.lacTunnel.ups == 1 })
		var opened []*sessionLog
		for range 12 { // more than any window
			h := &sessionLog{}
			s, err := p.lacTunnel.t.OpenSession(p.now, h)
			if err != nil {
				t.Fatal(err)
			}
			h.s = s
			opened = append(opened, h)
		}
		p.until(5*time.Minute, fmt.Sprint("seed ", seed, ": sessions"), func() bool {
			for _, h := range opened {
				if h.ups != 1 || h.downs != 0 {
					return false
				}
			}
			return len(p.lnsTunnel.accepted) == 12
		})
		for i := range 50 {
			opened[3].write(t, fmt.Sprint("frame ", i))
			p.run(5 * time.Millisecond)
		}
		for _, h := range opened[:6] {
			h.s.Close(p.now)
		}
		p.run(40 * time.Second)
		if p.lnsTunnel.ups != 1 {
			t.Errorf("seed %d: %d tunnels at the LNS", seed, p.lnsTunnel.ups)
		}
		down := 0
		for _, h := range p.lnsTunnel.accepted {
			down += h.downs
		}
		if down != 6 || len(p.lnsTunnel.t.sessions) != 6 {
			t.Errorf("seed %d: %d sessions closed at the LNS", seed, down)
		}
		for _, h := range p.lnsTunnel.accepted {
			last := -1
			for _, f := range h.frames {
				var i int
				if _, err := fmt.Sscanf(string(f), "frame %d", &i); err != nil {
					t.Fatalf("seed %d: %q", seed, f)
				}
				if c.Sequencing && i <= last {
					t.Errorf("seed %d: frame %d after %d in spite of sequencing", seed, i, last)
				}
				last = i
			}
		}
		p.lac.Close(p.now)
		p.run(2 * time.Minute)
		if !p.lac.Idle() || !p.lns.Idle() || p.lnsTunnel.downs != 1 {
			t.Errorf("seed %d: not closed", seed)
		}
	}
}

func TestEarlyFramesAreKeptUntilTheSessionIsUp(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.tunnel()
	p.run(time.Second)
	held := flight{}
	p.fate = func(f flight) []time.Duration {
		if _, b, _ := parseHeader(f.datagram); kindOf(b) == "ICCN" && held.datagram == nil {
			held = f // overtaken by what follows
			return []time.Duration{50 * time.Millisecond}
		}
		return []time.Duration{time.Millisecond}
	}
	lac := &sessionLog{}
	lac.onUp = func(time.Time) {
		for i := range maxEarly + 2 {
			lac.write(t, fmt.Sprint(i))
		}
	}
	lac.s, _ = p.lacTunnel.t.OpenSession(p.now, &hook{lac})
	p.run(time.Second)
	lns := p.lnsTunnel.accepted[0]
	if diff := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6", "7"}, texts(lns.frames)); diff != "" {
		t.Error(diff)
	}
	if lns.s.Stats().Dropped != 2 {
		t.Error("dropped:", lns.s.Stats().Dropped)
	}
}

// hook passes on to a sessionLog; OpenSession returns before SessionUp, so that l.s is known then.
type hook struct{ *sessionLog }

func TestEarlySequencedFramesAreKept(t *testing.T) {
	p := newPair(t, Config{Sequencing: true}, Config{})
	p.tunnel()
	p.run(time.Second)
	p.fate = func(f flight) []time.Duration {
		if _, b, _ := parseHeader(f.datagram); kindOf(b) == "ICCN" {
			return []time.Duration{20 * time.Millisecond}
		}
		return []time.Duration{time.Millisecond}
	}
	lac := &sessionLog{}
	lac.onUp = func(time.Time) { lac.write(t, "0", "1") }
	lac.s, _ = p.lacTunnel.t.OpenSession(p.now, lac)
	p.run(30 * time.Millisecond)
	lac.write(t, "2")
	p.run(2 * time.Millisecond)
	if diff := cmp.Diff([]string{"0", "1", "2"}, texts(p.lnsTunnel.accepted[0].frames)); diff != "" {
		t.Error(diff)
	}
}

func TestHandlersMayActWithinTheirCalls(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	redials := 0
	p.lacTunnel.onUp = func(now time.Time, tunnel *Tunnel) {
		h := &sessionLog{}
		h.onUp = func(now time.Time) { tunnel.Close(now) } // in the midst of an ICRP
		tunnel.OpenSession(now, h)
	}
	p.lacTunnel.onDown = func(now time.Time) {
		if redials++; redials < 3 {
			p.lac.Dial(now, addrLNS, p.lacTunnel)
		}
	}
	p.dial()
	p.run(time.Minute * 2)
	if redials != 3 || !p.lac.Idle() || !p.lns.Idle() || len(p.lac.tunnels) != 0 {
		t.Error("redials:", redials)
	}
}

func TestOneReceiveGroupsFramesOfOneSession(t *testing.T) {
	p := connected(t, Config{}, Config{})
	lac2, lns2 := p.session()
	p.run(time.Second)
	p.seen = nil
	p.lacSession.write(t, "a", "b", "c")
	lac2.write(t, "d", "e")
	p.lacSession.write(t, "f")
	var batch [][]byte
	for _, f := range p.seen {
		batch = append(batch, f.datagram)
	}
	p.lns.Receive(p.now, addrLAC, batch)
	if p.lnsSession.calls != 2 || lns2.calls != 1 || len(p.lnsSession.frames) != 4 || len(lns2.frames) != 2 {
		t.Error("calls:", p.lnsSession.calls, lns2.calls)
	}
}

func TestSessionClosedWithinABatchHearsNoMore(t *testing.T) {
	p := connected(t, Config{Sequencing: true}, Config{})
	p.run(time.Second)
	p.seen = nil
	p.lacSession.write(t, "a", "skipped", "b", "c")
	p.lnsSession.onData = func(now time.Time) { p.lnsSession.s.Close(now) }
	batch := [][]byte{p.seen[0].datagram, p.seen[2].datagram, p.seen[3].datagram}
	p.lns.Receive(p.now, addrLAC, batch)
	p.run(time.Second)
	if diff := cmp.Diff([]string{"a"}, texts(p.lnsSession.frames)); diff != "" {
		t.Error(diff)
	}
}

// RFC 2661 section 5.4: the LNS switches numbering on and off, the LAC follows, and the count goes on where it stopped.
func TestLACFollowsTheSequencingOfTheLNS(t *testing.T) {
	p := connected(t, Config{}, Config{Sequencing: true})
	p.run(time.Second)
	numbered := func() bool {
		p.seen = nil
		p.lacSession.write(t, "x")
		h, _, _ := parseHeader(p.seen[0].datagram)
		p.run(100 * time.Millisecond)
		return h.sequenced
	}
	if numbered() {
		t.Error("numbered before the LNS began")
	}
	p.lnsSession.write(t, "on")
	p.run(time.Second)
	if !numbered() {
		t.Error("did not follow on")
	}
	p.lnsSession.s.sequencing.Store(false)
	p.lnsSession.write(t, "off")
	p.run(time.Second)
	if numbered() {
		t.Error("did not follow off")
	}
	p.lnsSession.s.sequencing.Store(true)
	p.lnsSession.write(t, "on again")
	p.run(time.Second)
	if !numbered() {
		t.Error("did not follow on again")
	}
	if p.lacSession.s.Stats().Lost != 0 || p.lnsSession.s.Stats().Lost != 0 || len(p.lnsSession.frames) != 4 {
		t.Error("the count did not go on:", p.lacSession.s.Stats(), p.lnsSession.s.Stats())
	}
}

func TestSequencingRequiredCannotBeSwitchedOff(t *testing.T) {
	p := connected(t, Config{Sequencing: true}, Config{})
	p.lnsSession.s.sequencing.Store(false)
	p.lnsSession.write(t, "off")
	p.run(time.Second)
	if !p.lacSession.s.sequencing.Load() {
		t.Error("switched off by the LNS though required")
	}
}

func TestReorderDeadlineReleasesFrames(t *testing.T) {
	p := connected(t, Config{Sequencing: true}, Config{})
	p.run(time.Second)
	n := 0
	p.fate = func(flight) []time.Duration {
		if n++; n == 2 {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.lacSession.write(t, "a", "lost", "b", "c")
	p.run(10 * time.Millisecond)
	if diff := cmp.Diff([]string{"a"}, texts(p.lnsSession.frames)); diff != "" {
		t.Error(diff)
	}
	p.run(reorderDelay)
	if diff := cmp.Diff([]string{"a", "b", "c"}, texts(p.lnsSession.frames)); diff != "" {
		t.Error(diff)
	}
	if s := p.lnsSession.s.Stats(); s.Lost != 1 || s.Reordered != 2 {
		t.Errorf("%+v", s)
	}
}

func TestWriteFramesChecksItsRoom(t *testing.T) {
	p := connected(t, Config{LengthBit: true}, Config{})
	if err := p.lacSession.s.WriteFrames([][]byte{make([]byte, 20)}, 7); !errors.Is(err, errHeadroom) {
		t.Error(err)
	}
	if err := p.lacSession.s.WriteFrames([][]byte{make([]byte, 70000)}, 20); !errors.Is(err, errFrameTooLong) {
		t.Error(err)
	}
	if h, tail := p.lacSession.s.Headroom(), p.lacSession.s.Tailroom(); h != testHeadroom+maxHeaderSize || tail != testTailroom {
		t.Error("room:", h, tail)
	}
}

func TestIPv4MappedSourceIsTheSamePeer(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.dial()
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addrLNS.Addr().As16()), addrLNS.Port())
	p.run(time.Millisecond + time.Microsecond)
	f := p.seen[1]
	p.sky = nil
	p.lac.Receive(p.now, mapped, [][]byte{f.datagram})
	if p.lacTunnel.ups != 1 {
		t.Error("an IPv4-mapped source was taken for another host")
	}
}

// What waits for others is copied, so its size has a bound as its number has.
func TestOversizeMessagesAndFramesDoNotWait(t *testing.T) {
	p := connected(t, Config{Sequencing: true}, Config{})
	long := make([]byte, maxHeld+1)
	h := header{tunnelID: p.lacSession.s.tunnel.id, sessionID: p.lacSession.s.id, sequenced: true, ns: 1}
	p.lac.Receive(p.now, addrLNS, [][]byte{append(appendHeader(nil, h, len(long)), long...)})
	if s := p.lacSession.s; s.order.held != 0 || s.Stats().Dropped != 1 {
		t.Error("an oversize frame waits")
	}
	d := &p.dialed.delivery
	inject(p.lac, p.now, addrLNS, header{tunnelID: p.dialed.id, ns: d.nr + 1, nr: d.ns}, long)
	if len(d.ahead) != 0 {
		t.Error("an oversize message waits")
	}
}

// A random source that fails must not make IDs or challenges predictable.
func TestFailingRandomSourceIsReplaced(t *testing.T) {
	p := connected(t, Config{Random: strings.NewReader("")}, Config{})
	lac, _ := p.session()
	if a, b := p.lacSession.s.ID(), lac.s.ID(); a == 0 || b == 0 || a+1 == b {
		t.Error("IDs:", a, b)
	}
	if p.dialed.ID() == 0 || lac.s.Tunnel() != p.dialed {
		t.Error("tunnel")
	}
}

func TestClosedTunnelsThatAreRememberedAreLimited(t *testing.T) {
	p := newPair(t, Config{MaxTunnels: 2}, Config{MaxTunnels: 2})
	for i := range 6 {
		p.dial()
		p.until(time.Second, "tunnel", func() bool { return p.lacTunnel.ups == i+1 && p.lnsTunnel.ups == i+1 })
		p.dialed.Close(p.now)
		p.run(100 * time.Millisecond)
	}
	if len(p.lac.tunnels) > 2 || len(p.lns.tunnels) > 2 {
		t.Error("remembered:", len(p.lac.tunnels), len(p.lns.tunnels))
	}
}
