package ppp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func unhexSpaced(t testing.TB, s string) []byte {
	t.Helper()
	return unhex(t, strings.ReplaceAll(s, " ", ""))
}

// TestIPCPRequest: a peer asks for an address and two DNS servers (RFC 1332 section 3.3, RFC 1877 section 1.1).
func TestIPCPRequest(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *Config)
		want   string
	}{
		{"default", func(*Config) {}, "030600000000 810600000000 830600000000"},
		{"static wish", func(c *Config) { c.Address = netip.MustParseAddr("192.0.2.9") }, "0306c0000209 810600000000 830600000000"},
		{"NBNS too", func(c *Config) { c.WantNBNS = true }, "030600000000 810600000000 820600000000 830600000000 840600000000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := noLogin()
			test.change(&c)
			s := newScripted(t, c)
			s.openLCP()
			if p := s.wantFind(protocolIPCP, codeConfigureRequest); !bytes.Equal(p.data, unhexSpaced(t, test.want)) {
				t.Errorf("%x", p.data)
			}
		})
	}
}

// TestIPCPAnswersOfAPeer: any address but 0.0.0.0 is the server's own; compression, mobility and our name servers are
// rejected.
func TestIPCPAnswersOfAPeer(t *testing.T) {
	tests := []struct {
		name, request string
		code          uint8
		reply         string
	}{
		{"address", "03060a090001", codeConfigureAck, "same"},
		{"public address", "030608080808", codeConfigureAck, "same"},
		{"none", "", codeConfigureAck, "same"},
		{"0.0.0.0", "030600000000", codeConfigureNak, "03060a404040"},
		{"wrong length", "03050a0900", codeConfigureNak, "03060a404040"},
		{"VJ", "0206002d0f01 03060a090001", codeConfigureReject, "0206002d0f01"},
		{"old IP-Addresses", "010a0a0900010a090002", codeConfigureReject, "same"},
		{"Mobile-IPv4", "04060a090001", codeConfigureReject, "same"},
		{"DNS of ours", "810600000000", codeConfigureReject, "same"},
		{"unknown", "ff02", codeConfigureReject, "same"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScripted(t, noLogin())
			s.openLCP()
			s.take()
			request := unhexSpaced(t, test.request)
			s.give(protocolIPCP, codeConfigureRequest, 8, request...)
			want := request
			if test.reply != "same" {
				want = unhexSpaced(t, test.reply)
			}
			if p := s.want(protocolIPCP, test.code); p.id != 8 || !bytes.Equal(p.data, want) {
				t.Errorf("%d %x, want %x", p.id, p.data, want)
			}
		})
	}
}

// TestIPCPAnswersOfAnAuthenticator: the peer gets what is assigned and nothing else.
func TestIPCPAnswersOfAnAuthenticator(t *testing.T) {
	tests := []struct {
		name, request string
		code          uint8
		reply         string
	}{
		{"as assigned", "03060a090002 81060a090035 83060a090036 82060a090089", codeConfigureAck, "same"},
		{"to be told", "030600000000 810600000000 830600000000 820600000000", codeConfigureNak, "03060a090002 81060a090035 83060a090036 82060a090089"},
		{"another address", "0306c0000201", codeConfigureNak, "03060a090002"},
		{"no address", "81060a090035", codeConfigureNak, "03060a090002"},
		{"no address, DNS to be told", "810600000000", codeConfigureNak, "81060a090035 03060a090002"},
		{"wrong length", "0304 0000", codeConfigureNak, "03060a090002"},
		{"a server that we lack", "03060a090002 840600000000", codeConfigureReject, "840600000000"},
		{"VJ", "03060a090002 0206002d0f01", codeConfigureReject, "0206002d0f01"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := serverConfig()
			c.Auth, c.NoIPv6 = []AuthMethod{AuthNone}, true
			s := newScripted(t, c)
			s.openLCP()
			if p := s.wantFind(protocolIPCP, codeConfigureRequest); !bytes.Equal(p.data, unhex(t, "03060a090001")) {
				t.Errorf("our own request: %x", p.data)
			}
			request := unhexSpaced(t, test.request)
			s.give(protocolIPCP, codeConfigureRequest, 8, request...)
			want := request
			if test.reply != "same" {
				want = unhexSpaced(t, test.reply)
			}
			if p := s.want(protocolIPCP, test.code); !bytes.Equal(p.data, want) {
				t.Errorf("%x, want %x", p.data, want)
			}
		})
	}
}

// TestIPCPOutcomes: what a server may do to a peer's request, and what comes of it.
func TestIPCPOutcomes(t *testing.T) {
	addr := netip.MustParseAddr
	static := func(c *Config) { c.Address = addr("192.0.2.9") }
	same := func(*Config) {}
	type step struct {
		code  uint8
		reply string // same: our request
	}
	ack := step{codeConfigureAck, "same"}
	tests := []struct {
		name    string
		change  func(c *Config)
		steps   []step
		want    Params
		failure string
	}{
		{"all assigned", same, []step{{codeConfigureNak, "03060a090002 81060a090035 83060a090036"}, ack},
			Params{Local: addr("10.9.0.2"), DNS: []netip.Addr{addr("10.9.0.53"), addr("10.9.0.54")}}, ""},
		{"DNS rejected", same, []step{{codeConfigureReject, "810600000000 830600000000"}, {codeConfigureNak, "03060a090002"}, ack},
			Params{Local: addr("10.9.0.2")}, ""},
		{"DNS acknowledged as 0.0.0.0", same, []step{{codeConfigureNak, "03060a090002"}, ack}, Params{Local: addr("10.9.0.2")}, ""},
		{"second DNS only", same, []step{{codeConfigureNak, "03060a090002 83060a090036"}, ack},
			Params{Local: addr("10.9.0.2"), DNS: []netip.Addr{addr("10.9.0.54")}}, ""},
		{"NBNS that was not asked for", same, []step{{codeConfigureNak, "03060a090002 82060a090089"}, ack}, Params{Local: addr("10.9.0.2")}, ""},
		{"static granted", static, []step{ack}, Params{Local: addr("192.0.2.9")}, ""},
		{"static replaced", static, []step{{codeConfigureNak, "03060a090002"}, ack}, Params{Local: addr("10.9.0.2")}, ""},
		{"static, address not negotiable", static, []step{{codeConfigureReject, "0306c0000209"}, ack}, Params{Local: addr("192.0.2.9")}, ""},
		{"address of a wrong length, then a right one", same, []step{{codeConfigureNak, "03050a0900"}, {codeConfigureNak, "03060a090002"}, ack},
			Params{Local: addr("10.9.0.2")}, ""},
		{"multicast is no address", same, []step{{codeConfigureNak, "0306e0000001"}, {codeConfigureNak, "03060a090002"}, ack},
			Params{Local: addr("10.9.0.2")}, ""},
		{"pool used up", same, []step{{codeConfigureNak, "030600000000"}}, Params{}, "no address to assign"},
		{"address rejected", same, []step{{codeConfigureReject, "030600000000"}}, Params{}, "assigns no address"},
		{"0.0.0.0 acknowledged", same, []step{ack}, Params{}, "acknowledged 0.0.0.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := noLogin()
			test.change(&c)
			s := newScripted(t, c)
			s.openLCP()
			s.give(protocolIPCP, codeConfigureRequest, 1, unhex(t, "03060a090001")...)
			for _, step := range test.steps {
				r := s.wantFind(protocolIPCP, codeConfigureRequest)
				reply := r.data
				if step.reply != "same" {
					reply = unhexSpaced(t, step.reply)
				}
				s.give(protocolIPCP, step.code, r.id, reply...)
			}
			if test.failure != "" {
				s.pass(20 * time.Second)
				if err := s.err(t); stageOf(err) != "ipcp" || !strings.Contains(err.Error(), test.failure) || adviceOf(err) == "" {
					t.Errorf("%v; advice %q", err, adviceOf(err))
				}
				if len(s.ups) > 0 {
					t.Errorf("Up: %+v", s.ups)
				}
				return
			}
			test.want.Remote, test.want.MTU = addr("10.9.0.1"), testMTU-frameHeader
			if diff := cmp.Diff(test.want, s.params(t), compareAddrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestIPCPClosedByThePeer: a link whose last network protocol is closed is of no use.
func TestIPCPClosedByThePeer(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.give(protocolIPCP, codeTerminateRequest, 1)
	s.want(protocolIPCP, codeTerminateAck)
	s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(20)))
	if len(s.packets) > 0 {
		t.Error("a packet passed a closed IPCP")
	}
	s.pass(20 * time.Second)
	if err := s.err(t); stageOf(err) != "ipcp" || !strings.Contains(err.Error(), "closed it") {
		t.Error(err)
	}
}

// TestIPCPRenegotiated: the network comes up again with what is agreed anew, without Down.
func TestIPCPRenegotiated(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.give(protocolIPCP, codeConfigureRequest, 9, unhex(t, "03060a09000a")...)
	r := s.want(protocolIPCP, codeConfigureRequest)
	s.want(protocolIPCP, codeConfigureAck)
	s.give(protocolIPCP, codeConfigureAck, r.id, r.data...)
	if p := s.params(t); len(s.ups) != 2 || p.Remote != netip.MustParseAddr("10.9.0.10") || p.Local != netip.MustParseAddr("10.9.0.2") {
		t.Errorf("%d: %+v", len(s.ups), p)
	}
}

// openIPv6 brings a link with IPv4 up and leaves IPV6CP to the test.
func openIPv6(t *testing.T) *scripted {
	c := noLogin()
	c.NoIPv6 = false
	s := newScripted(t, c)
	s.openLCP()
	requests := s.sent
	s.negotiateIPCP()
	s.sent = requests
	return s
}

// TestIPV6CPAnswers (RFC 5072 section 4.1): zero and our own identifier are answered with another one.
func TestIPV6CPAnswers(t *testing.T) {
	s := openIPv6(t)
	own := s.wantFind(protocolIPV6CP, codeConfigureRequest).data
	if len(own) != 10 || own[0] != 1 || own[2]&2 != 0 || bytes.Equal(own[2:], make([]byte, 8)) {
		t.Errorf("our request: %x", own)
	}
	s.take()
	tests := []struct {
		name    string
		request []byte
		code    uint8
	}{
		{"zero", unhex(t, "010a0000000000000000"), codeConfigureNak},
		{"ours", own, codeConfigureNak},
		{"wrong length", unhex(t, "0109000000000000ff"), codeConfigureNak},
		{"none", nil, codeConfigureNak},
		{"compression", unhex(t, "0204004f"), codeConfigureReject},
		{"good", unhex(t, "010a0200000000000001"), codeConfigureAck},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.give(protocolIPV6CP, codeConfigureRequest, 1, test.request...)
			p := s.want(protocolIPV6CP, test.code)
			if test.code == codeConfigureNak && (len(p.data) != 10 || bytes.Equal(p.data, own) || bytes.Equal(p.data[2:], make([]byte, 8))) {
				t.Errorf("proposal %x", p.data)
			}
		})
	}
}

func TestIPV6CPTakesAProposal(t *testing.T) {
	s := openIPv6(t)
	r := s.wantFind(protocolIPV6CP, codeConfigureRequest)
	s.take()
	s.give(protocolIPV6CP, codeConfigureNak, r.id, unhex(t, "010a0200000000000007")...)
	r = s.want(protocolIPV6CP, codeConfigureRequest)
	if !bytes.Equal(r.data, unhex(t, "010a0200000000000007")) {
		t.Errorf("%x", r.data)
	}
	s.give(protocolIPV6CP, codeConfigureNak, r.id, unhex(t, "010a0000000000000000")...)
	r = s.want(protocolIPV6CP, codeConfigureRequest)
	if bytes.Equal(r.data[2:], make([]byte, 8)) {
		t.Errorf("a zero identifier was taken: %x", r.data)
	}
	s.give(protocolIPV6CP, codeConfigureRequest, 1, unhex(t, "010a0200000000000001")...)
	s.give(protocolIPV6CP, codeConfigureAck, r.id, r.data...)
	p := s.params(t)
	if !p.IPv6 || !bytes.Equal(p.LocalIID[:], r.data[2:]) || p.RemoteIID != [8]byte{2, 0, 0, 0, 0, 0, 0, 1} || !p.Local.IsValid() {
		t.Errorf("%+v", p)
	}
	s.give(protocolIPV6CP, codeTerminateRequest, 2)
	if p := s.params(t); p.IPv6 || !p.Local.IsValid() {
		t.Errorf("after IPV6CP closed: %+v", p)
	}
	s.pass(20 * time.Second)
	if len(s.downs) > 0 {
		t.Error("IPv4 went down with IPv6:", s.downs)
	}
}

func TestIPV6CPWithoutIdentifiersIsGivenUp(t *testing.T) {
	s := openIPv6(t)
	r := s.wantFind(protocolIPV6CP, codeConfigureRequest)
	s.give(protocolIPV6CP, codeConfigureReject, r.id, r.data...)
	s.pass(20 * time.Second)
	if len(s.downs) > 0 || s.session.ipv6cp.state != stateClosed {
		t.Error(s.downs, s.session.ipv6cp.state)
	}
}

// TestCCPRejectsAllMethods and speaks only when spoken to. With nothing left it opens without compression.
func TestCCPRejectsAllMethods(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	for _, frame := range s.take() {
		if bytes.HasPrefix(frame[2:], []byte{0x80, 0xfd}) {
			t.Errorf("CCP began by itself: % x", frame)
		}
	}
	for _, method := range []string{"1206010000e1", "120600000040", "120600000001", "1205010000", "1a04780018047800", "15032f", "0002"} {
		s.give(protocolCCP, codeConfigureRequest, 3, unhex(t, method)...)
		if p := s.wantFind(protocolCCP, codeConfigureReject); !bytes.Equal(p.data, unhex(t, method)) {
			t.Errorf("%s: rejected %x", method, p.data)
		}
	}
	// An MPPE option with no bits asks for nothing. It is acknowledged: peers repeat it for ever if it is rejected.
	s.give(protocolCCP, codeConfigureRequest, 4, unhex(t, "120600000000")...)
	s.wantFind(protocolCCP, codeConfigureAck)
	s.give(protocolCCP, codeConfigureAck, s.session.ccp.id)
	if s.session.ccp.state != stateOpened {
		t.Fatal(s.session.ccp.state)
	}
	s.give(protocolCCP, codeResetRequest, 5)
	if p := s.want(protocolCCP, codeResetAck); p.id != 5 {
		t.Error("identifier", p.id)
	}
	s.give(protocolCCP, codeResetAck, 5)
	s.giveFrame(appendFrame(nil, protocolCompressed, []byte{0x90, 0, 1, 2, 3}))
	if n := s.session.Stats().Malformed; n != 1 {
		t.Error("a compressed packet without compression: Malformed is", n)
	}
	s.give(protocolCCP, codeTerminateRequest, 6)
	s.want(protocolCCP, codeTerminateAck)
	s.wantNothing()
	if len(s.downs) > 0 {
		t.Error(s.downs)
	}
}

// TestCCPLoopIsBounded: a peer that repeats a rejected option at once costs a burst, then an answer every 3 s, and
// IPv4 goes on.
func TestCCPLoopIsBounded(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	for range 10000 {
		s.give(protocolCCP, codeConfigureRequest, 3, unhex(t, "120600000000")...)
	}
	if n := len(s.take()); n > 25 {
		t.Errorf("%d answers at one instant", n)
	}
	for range 100 {
		s.pass(100 * time.Millisecond)
		s.give(protocolCCP, codeConfigureRequest, 3, unhex(t, "120600000000")...)
	}
	if n := len(s.take()); n > 10 {
		t.Errorf("%d answers in 10 s", n)
	}
	s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(20)))
	if len(s.packets) != 1 || len(s.downs) > 0 {
		t.Error("IPv4 suffered:", s.downs)
	}
}
