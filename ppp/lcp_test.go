package ppp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLCPRequest: a peer asks for MRU, if it is not the default, and Magic-Number; an authenticator for a login too.
func TestLCPRequest(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		mtu    int
		want   string // without the Magic-Number's value
	}{
		{"peer", Config{}, 1404, "01040578 0506"},
		{"default MRU is not asked for", Config{}, 1504, "0506"},
		{"jumbo carrier", Config{}, 9000, "0506"},
		{"configured", Config{MRU: 1280}, 1404, "01040500 0506"},
		{"authenticator", Config{Role: Authenticator, Auth: []AuthMethod{AuthMSCHAPv2}}, 1504, "0305c22381 0506"},
		{"authenticator by EAP", Config{Role: Authenticator}, 1504, "0304c227 0506"},
		{"authenticator of nobody", Config{Role: Authenticator, Auth: []AuthMethod{AuthNone}}, 1504, "0506"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScripted(t, test.config)
			s.mtu = test.mtu
			s.start()
			p := s.want(protocolLCP, codeConfigureRequest)
			want := unhex(t, strings.ReplaceAll(test.want, " ", ""))
			if len(p.data) != len(want)+4 || !bytes.HasPrefix(p.data, want) || binary.BigEndian.Uint32(p.data[len(want):]) == 0 {
				t.Errorf("options %x, want %x and a number", p.data, want)
			}
		})
	}
}

// TestLCPAnswers: what the peer may ask for (RFC 1661 section 6). A Reject goes before any Nak, in the order of the
// request and unchanged; an Ack repeats the request.
func TestLCPAnswers(t *testing.T) {
	tests := []struct {
		name, request string
		code          uint8
		reply         string // same: the request; "*": anything
	}{
		{"nothing", "", codeConfigureAck, "same"},
		{"all that is fine, order kept", "0506aabbccdd 0802 0702 0206000a0000 010405dc", codeConfigureAck, "same"},
		{"small MRU", "01040080", codeConfigureAck, "same"},
		{"too small an MRU", "0104007f", codeConfigureNak, "01040080"},
		{"MRU of a wrong length", "0103ff", codeConfigureNak, "010405dc"},
		{"large MRU", "0104ffff", codeConfigureAck, "same"},
		{"map of a wrong length", "020400ff", codeConfigureNak, "020600000000"},
		{"PFC with a value", "070300", codeConfigureNak, "0702"},
		{"ACFC with a value", "080300", codeConfigureNak, "0802"},
		{"zero magic", "050600000000", codeConfigureNak, "*"},
		{"magic of a wrong length", "0504aabb", codeConfigureNak, "*"},
		{"quality protocol", "0408c02500000000", codeConfigureReject, "same"},
		{"FCS", "090304", codeConfigureReject, "same"},
		{"self-describing padding", "0a0308", codeConfigureReject, "same"},
		{"callback", "0d0306", codeConfigureReject, "same"},
		{"compound frames", "0f02", codeConfigureReject, "same"},
		{"multilink", "110405dc 1202 130300", codeConfigureReject, "same"},
		{"link discriminator", "17040001", codeConfigureReject, "same"},
		{"reject before nak", "0104007f 110405dc 0506aabbccdd 130300", codeConfigureReject, "110405dc130300"},
		{"login not allowed", "0304c023", codeConfigureNak, "0305c22381"},
		{"login allowed", "0305c22381", codeConfigureAck, "same"},
		{"login unknown", "0304dead", codeConfigureNak, "0305c22381"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScripted(t, clientConfig())
			s.start()
			s.want(protocolLCP, codeConfigureRequest)
			request := unhex(t, strings.ReplaceAll(test.request, " ", ""))
			s.give(protocolLCP, codeConfigureRequest, 42, request...)
			p := s.want(protocolLCP, test.code)
			if p.id != 42 {
				t.Errorf("identifier %d", p.id)
			}
			want := request
			if test.reply != "same" && test.reply != "*" {
				want = unhex(t, test.reply)
			}
			if test.reply != "*" && !bytes.Equal(p.data, want) {
				t.Errorf("reply %x, want %x", p.data, want)
			}
			s.wantNothing()
		})
	}
}

// TestAuthenticatorDoesNotLogIn: it rejects the demand for a login.
func TestAuthenticatorDoesNotLogIn(t *testing.T) {
	s := newScripted(t, serverConfig())
	s.start()
	s.want(protocolLCP, codeConfigureRequest)
	s.give(protocolLCP, codeConfigureRequest, 1, unhex(t, "0304c023")...)
	s.want(protocolLCP, codeConfigureReject)
}

// TestLCPHeedsNakAndReject: rejected options are not sent again (RFC 1661 section 5.4), Nak'ed values are taken.
func TestLCPHeedsNakAndReject(t *testing.T) {
	s := newScripted(t, noLogin())
	s.start()
	r := s.want(protocolLCP, codeConfigureRequest)

	s.give(protocolLCP, codeConfigureNak, r.id, unhex(t, "010405000506010203040d0306")...)
	second := s.want(protocolLCP, codeConfigureRequest)
	if second.id == r.id || !bytes.HasPrefix(second.data, unhex(t, "010405000506")) || bytes.Equal(second.data[6:], r.data[6:]) {
		t.Errorf("after the Nak: %x, before: %x", second.data, r.data)
	}
	s.give(protocolLCP, codeConfigureNak, second.id, unhex(t, "01040040")...) // too small to be of use
	third := s.want(protocolLCP, codeConfigureRequest)
	if !bytes.HasPrefix(third.data, unhex(t, "01040500")) {
		t.Errorf("a useless MRU was taken: %x", third.data)
	}
	s.give(protocolLCP, codeConfigureReject, third.id, third.data...)
	if p := s.want(protocolLCP, codeConfigureRequest); len(p.data) != 0 {
		t.Errorf("sent again after a Reject: %x", p.data)
	}
}

func TestPeerThatRefusesToLogIn(t *testing.T) {
	s := newScripted(t, serverConfig())
	s.start()
	r := s.want(protocolLCP, codeConfigureRequest)
	options, _ := parseOptions(r.data)
	for _, o := range options {
		if o.kind == lcpAuth {
			s.give(protocolLCP, codeConfigureReject, r.id, appendOption(nil, o)...)
		}
	}
	p := s.want(protocolLCP, codeTerminateRequest)
	s.give(protocolLCP, codeTerminateAck, p.id)
	if err := s.err(t); stageOf(err) != "auth" {
		t.Error(err)
	}
}

// TestSilentServer: stage, cause and time of a peer that never answers.
func TestSilentServer(t *testing.T) {
	s := newScripted(t, clientConfig())
	s.start()
	s.pass(time.Minute)
	err := s.err(t)
	var failed *NegotiationError
	if !errors.As(err, &failed) || !failed.Timeout || failed.Stage() != "lcp" || failed.Advice() == "" {
		t.Errorf("%v", err)
	}
	for n := range 10 {
		if p := s.want(protocolLCP, codeConfigureRequest); p.id != 1 {
			t.Errorf("request %d has identifier %d", n, p.id)
		}
	}
	s.wantNothing()
	if !s.next.IsZero() {
		t.Error("a deadline is left")
	}
}

// TestEndlessNaksAndRejects: whatever a peer repeats for ever, its link ends within the bounds of the phase and
// costs a bounded number of frames.
func TestEndlessPeers(t *testing.T) {
	// Each answers one of our frames; it also begins with one request of its own.
	nak := func(protocol uint16, p controlPacket, reply ...byte) []byte {
		if p.code != codeConfigureRequest {
			return nil
		}
		return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{codeConfigureNak, p.id, reply}))
	}
	lcpOpens := func(protocol uint16, p controlPacket) []byte {
		if protocol == protocolLCP && p.code == codeConfigureRequest {
			return appendFrame(nil, protocolLCP, appendControlPacket(nil, controlPacket{codeConfigureAck, p.id, p.data}))
		}
		return nil
	}
	request := func(protocol uint16, id uint8, options ...byte) []byte {
		return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{codeConfigureRequest, id, options}))
	}
	tests := []struct {
		name  string
		begin [][]byte
		reply func(protocol uint16, p controlPacket) []byte
		stage string
		limit time.Duration
	}{
		{"naks our MRU for ever", nil, func(protocol uint16, p controlPacket) []byte {
			return nak(protocol, p, 1, 4, 4, byte(p.id))
		}, "lcp", 47 * time.Second},
		{"naks options that we did not ask for", nil, func(protocol uint16, p controlPacket) []byte {
			return nak(protocol, p, 13, 3, 6)
		}, "lcp", 47 * time.Second},
		{"asks for ever for what we reject", [][]byte{request(protocolLCP, 1, 13, 3, 6)}, func(protocol uint16, p controlPacket) []byte {
			if protocol == protocolLCP && p.code == codeConfigureReject {
				return request(protocolLCP, p.id+1, 13, 3, 6)
			}
			return nil
		}, "lcp", 47 * time.Second},
		{"asks for ever for what we nak", [][]byte{request(protocolLCP, 1, 1, 4, 0, 1)}, func(protocol uint16, p controlPacket) []byte {
			if protocol == protocolLCP && (p.code == codeConfigureReject || p.code == codeConfigureNak) {
				return request(protocolLCP, p.id+1, 1, 4, 0, 1)
			}
			return nil
		}, "lcp", 47 * time.Second},
		{"insists on PAP", [][]byte{request(protocolLCP, 1, 3, 4, 0xc0, 0x23)}, func(protocol uint16, p controlPacket) []byte {
			if protocol == protocolLCP && (p.code == codeConfigureReject || p.code == codeConfigureNak) {
				return request(protocolLCP, p.id+1, 3, 4, 0xc0, 0x23)
			}
			return nil
		}, "auth", 47 * time.Second},
		{"wants MS-CHAPv2 and never challenges", [][]byte{request(protocolLCP, 1, 3, 5, 0xc2, 0x23, 0x81)}, lcpOpens, "auth", 67 * time.Second},
		{"naks the address for ever", [][]byte{request(protocolLCP, 1)}, func(protocol uint16, p controlPacket) []byte {
			if protocol == protocolIPCP {
				return nak(protocol, p, 3, 6, 10, 0, 0, byte(p.id))
			}
			return lcpOpens(protocol, p)
		}, "ipcp", 67 * time.Second},
		{"never answers IPCP", [][]byte{request(protocolLCP, 1)}, lcpOpens, "ipcp", 67 * time.Second},
		{"asks for ever for VJ compression", [][]byte{request(protocolLCP, 1), request(protocolIPCP, 1, 2, 6, 0, 0x2d, 15, 1)},
			func(protocol uint16, p controlPacket) []byte {
				if protocol == protocolIPCP && p.code == codeConfigureReject {
					return request(protocolIPCP, p.id+1, 2, 6, 0, 0x2d, 15, 1)
				}
				return lcpOpens(protocol, p)
			}, "ipcp", 67 * time.Second},
		{"asks for ever for MPPE with no bits", [][]byte{request(protocolLCP, 1), request(protocolCCP, 1, 18, 6, 0, 0, 0, 0)},
			func(protocol uint16, p controlPacket) []byte {
				if protocol == protocolCCP && p.code == codeConfigureReject {
					return request(protocolCCP, p.id+1, 18, 6, 0, 0, 0, 0)
				}
				return lcpOpens(protocol, p)
			}, "ipcp", 67 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := clientConfig()
			c.NoIPv6 = true
			if test.stage == "ipcp" {
				c.Auth = []AuthMethod{AuthNone}
			}
			s := newScripted(t, c)
			s.start()
			for _, frame := range test.begin {
				s.answerAll(test.reply)
				s.giveFrame(frame)
			}
			frames := 0
			for len(s.downs) == 0 {
				frames += s.answerAll(test.reply)
				if len(s.downs) > 0 {
					break
				}
				if s.next.IsZero() || s.now.Sub(epoch) > time.Hour {
					t.Fatalf("no end in sight at %v", s.now)
				}
				s.now = s.next
				s.next = s.session.Advance(s.now)
			}
			if frames > 150 {
				t.Errorf("%d frames", frames)
			}
			if err := s.err(t); stageOf(err) != test.stage {
				t.Errorf("stage %q of %v, want %q", stageOf(err), err, test.stage)
			}
			if took := s.now.Sub(epoch); took > test.limit {
				t.Errorf("ended after %v, want %v", took, test.limit)
			}
		})
	}
}

// answerAll lets the other end answer until it has nothing more to say, and tells how many frames were sent to it.
func (s *scripted) answerAll(reply func(protocol uint16, p controlPacket) []byte) (frames int) {
	s.t.Helper()
	for len(s.sent) > 0 {
		frame := s.sent[0]
		s.sent = s.sent[1:]
		if frames++; frames > 1000 {
			s.t.Fatal("answers without end at one instant")
		}
		p := parseSent(s.t, frame)
		if answer := reply(binary.BigEndian.Uint16(frame[2:]), p); answer != nil {
			s.giveFrame(answer)
		}
	}
	return frames
}

// TestLoopback: our own frames come back (RFC 1661 section 6.4).
func TestLoopback(t *testing.T) {
	t.Run("while negotiating", func(t *testing.T) {
		s := newScripted(t, clientConfig())
		s.start()
		for n := 0; len(s.downs) == 0; n++ {
			if n > 100 {
				t.Fatal("not detected")
			}
			for _, frame := range s.take() {
				s.giveFrame(frame)
			}
		}
		var looped *LoopbackError
		if err := s.err(t); !errors.As(err, &looped) || looped.Stage() != "lcp" || looped.Advice() == "" {
			t.Error(err)
		}
	})
	t.Run("of an open link", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.openIPCP()
		s.pass(31 * time.Second)
		p := s.wantFind(protocolLCP, codeEchoRequest)
		s.give(protocolLCP, codeEchoRequest, p.id, p.data...)
		var looped *LoopbackError
		if err := s.err(t); !errors.As(err, &looped) {
			t.Error(err)
		}
	})
}

// TestEchoReply carries our own Magic-Number and the rest of the request (RFC 1661 section 5.8).
func TestEchoReply(t *testing.T) {
	s := newScripted(t, noLogin())
	s.start()
	s.want(protocolLCP, codeConfigureRequest)
	s.give(protocolLCP, codeEchoRequest, 7, 1, 2, 3, 4)
	s.wantNothing() // LCP is not open

	s = newScripted(t, noLogin())
	s.openIPCP(5, 6, 1, 2, 3, 4)
	magic := binary.BigEndian.AppendUint32(nil, s.session.lcp.magic)
	s.take()
	for _, test := range []struct{ data, want []byte }{
		{[]byte{1, 2, 3, 4}, magic},
		{[]byte{1, 2, 3, 4, 'p', 'i', 'n', 'g'}, append(bytes.Clone(magic), "ping"...)},
		{[]byte{0, 0, 0, 0}, magic},
		{nil, magic},
	} {
		s.give(protocolLCP, codeEchoRequest, 9, test.data...)
		if p := s.want(protocolLCP, codeEchoReply); p.id != 9 || !bytes.Equal(p.data, test.want) {
			t.Errorf("%x: %d %x, want %x", test.data, p.id, p.data, test.want)
		}
	}
}

// TestSilentCodes: codes that get no answer and do no harm (RFC 1661 section 5.8, 5.9; RFC 1570).
func TestSilentCodes(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.give(protocolLCP, codeEchoReply, 1, 0, 0, 0, 0)
	s.give(protocolLCP, codeDiscardRequest, 1, 0, 0, 0, 0)
	s.give(protocolLCP, codeTimeRemaining, 1, 0, 0, 0, 0, 0, 0, 14, 16, 'b', 'y', 'e')
	s.give(protocolLCP, codeTimeRemaining, 1)
	s.give(protocolLCP, codeIdentification, 1)
	s.wantNothing()
	if len(s.downs) > 0 {
		t.Error(s.downs)
	}
}

// TestIdentification: texts as Windows sends them reach Params, control characters do not.
func TestIdentification(t *testing.T) {
	var log bytes.Buffer
	c := noLogin()
	c.Log = logTo(&log)
	s := newScripted(t, c)
	s.openLCP()
	for _, text := range []string{"MSRASV5.20", "MSRAS-0-host\x1b[31m", "MSRASV5.20", strings.Repeat("x", 300)} {
		s.give(protocolLCP, codeIdentification, 1, append(make([]byte, 4), text...)...)
	}
	s.negotiateIPCP()
	if got := s.params(t).PeerIdentification; got != "MSRASV5.20 MSRAS-0-host [31m" {
		t.Errorf("%q", got)
	}
	if strings.Contains(log.String(), "\x1b") {
		t.Error("a control character reached the log")
	}
}

// TestUnknownCode gets a Code-Reject that fits any MRU (RFC 1661 section 5.6), a bounded number of times.
func TestUnknownCode(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.give(protocolLCP, 99, 3, 1, 2, 3)
	if p := s.want(protocolLCP, codeCodeReject); !bytes.Equal(p.data, []byte{99, 3, 0, 7, 1, 2, 3}) {
		t.Errorf("%x", p.data)
	}
	s.give(protocolIPCP, codeEchoRequest, 3, make([]byte, 1300)...)
	if p := s.want(protocolIPCP, codeCodeReject); len(p.data) != minMRU-packetHeader {
		t.Errorf("%d octets", len(p.data))
	}
	for range 1000 {
		s.give(protocolLCP, 99, 3)
	}
	if n := len(s.take()); n > 20 {
		t.Errorf("%d Code-Rejects", n)
	}
}

// TestCodeReject: a peer without Identification or Echo can be lived with, one without Configure-Request cannot
// (RXJ+ and RXJ-).
func TestCodeReject(t *testing.T) {
	for code := uint8(0); code < 16; code++ {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := newScripted(t, noLogin())
			s.openIPCP()
			s.take()
			s.give(protocolLCP, codeCodeReject, 1, code, 1, 0, 4)
			s.pass(20 * time.Second)
			if fatal := code >= 1 && code <= 7; fatal != (len(s.downs) == 1) {
				t.Errorf("down: %v", s.downs)
			}
		})
	}
}

// TestProtocolRejectOfOurs (RFC 1661 section 5.7).
func TestProtocolRejectReceived(t *testing.T) {
	reject := func(protocol uint16) []byte {
		return []byte{byte(protocol >> 8), byte(protocol), 1, 1, 0, 4}
	}
	t.Run("of LCP is fatal", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.openIPCP()
		s.give(protocolLCP, codeProtocolReject, 1, reject(protocolLCP)...)
		s.pass(10 * time.Second)
		if err := s.err(t); stageOf(err) != "lcp" || !strings.Contains(err.Error(), "rejects LCP") {
			t.Error(err)
		}
	})
	t.Run("of IPCP alone ends the link", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.openLCP()
		s.give(protocolLCP, codeProtocolReject, 1, reject(protocolIPCP)...)
		s.pass(10 * time.Second)
		if err := s.err(t); stageOf(err) != "ipcp" || !strings.Contains(err.Error(), "does not speak it") {
			t.Error(err)
		}
	})
	t.Run("of the login ends the link", func(t *testing.T) {
		c := clientConfig()
		c.Auth = []AuthMethod{AuthPAP}
		s := newScripted(t, c)
		s.openLCP(3, 4, 0xc0, 0x23)
		s.give(protocolLCP, codeProtocolReject, 1, reject(protocolPAP)...)
		s.pass(10 * time.Second)
		if err := s.err(t); stageOf(err) != "auth" {
			t.Error(err)
		}
	})
	for _, protocol := range []uint16{protocolCCP, protocolIPV6CP, protocolIPv4, 0x1235} {
		t.Run(fmt.Sprintf("of %04x does no harm", protocol), func(t *testing.T) {
			s := newScripted(t, noLogin())
			s.openIPCP()
			s.give(protocolLCP, codeProtocolReject, 1, reject(protocol)...)
			s.give(protocolLCP, codeProtocolReject, 1, 0x80)
			s.pass(10 * time.Second)
			if len(s.downs) > 0 {
				t.Error(s.downs)
			}
		})
	}
}

// TestProtocolRejectSent: one for each frame of an unknown protocol, rate-limited, cut to the MRU, and only once the
// login is done (RFC 1661 sections 3.5 and 5.7).
func TestProtocolRejectSent(t *testing.T) {
	s := newScripted(t, noLogin())
	s.giveEarly()
	s.openIPCP(1, 4, 0, 200)
	s.take()
	s.giveFrame(appendFrame(nil, 0x8281, bytes.Repeat([]byte{7}, 1000)))
	p := s.want(protocolLCP, codeProtocolReject)
	if len(p.data) != 200-packetHeader || !bytes.HasPrefix(p.data, []byte{0x82, 0x81, 7}) {
		t.Errorf("%d octets: %x", len(p.data), p.data[:8])
	}
	s.giveFrame(appendFrame(nil, protocolIPV6CP, []byte{1, 1, 0, 4})) // off here
	if p := s.want(protocolLCP, codeProtocolReject); !bytes.HasPrefix(p.data, []byte{0x80, 0x57, 1, 1, 0, 4}) {
		t.Errorf("%x", p.data)
	}
	for range 1000 {
		s.giveFrame(appendFrame(nil, 0x8281, nil))
	}
	if n := len(s.take()); n > protocolRejectBurst {
		t.Errorf("%d Protocol-Rejects at once", n)
	}
	s.pass(10 * time.Second)
	s.giveFrame(appendFrame(nil, 0x8281, nil))
	s.want(protocolLCP, codeProtocolReject)
	if n := s.session.Stats().Unsupported; n != 1003 {
		t.Errorf("Unsupported is %d", n)
	}

	c := clientConfig()
	s = newScripted(t, c)
	s.openLCP(3, 5, 0xc2, 0x23, 0x81)
	s.giveFrame(appendFrame(nil, 0x8281, nil))
	s.wantNothing()
}

// giveEarly delivers nothing, before Start.
func (s *scripted) giveEarly() { s.next = s.session.Receive(s.now, nil) }

// TestTerminateRequestOfThePeer: Terminate-Ack, then Down at once, with the peer's words.
func TestTerminateRequestOfThePeer(t *testing.T) {
	tests := []struct {
		name   string
		data   []byte
		cause  string
		advice string
	}{
		{"no reason", nil, "ppp: lcp: peer closed the link", ""},
		{"text", []byte("User request"), `ppp: lcp: peer closed the link: "User request"`, ""},
		{"Windows", unhex(t, "4a5b6c7d003ccd74000002e6"), "error 742 (encryption refused by the remote computer)", "MPPE"},
		{"Windows, another code", unhex(t, "00000000003ccd7400000fff"), "error 4095", ""},
		{"binary", []byte{0, 1, 2, 27}, "peer closed the link", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScripted(t, noLogin())
			s.openIPCP()
			s.take()
			s.give(protocolLCP, codeTerminateRequest, 77, test.data...)
			if p := s.want(protocolLCP, codeTerminateAck); p.id != 77 {
				t.Errorf("identifier %d", p.id)
			}
			err := s.err(t)
			var closed *PeerClosedError
			if !errors.As(err, &closed) || !strings.Contains(err.Error(), test.cause) || !strings.Contains(closed.Advice(), test.advice) {
				t.Errorf("%v; advice %q", err, adviceOf(err))
			}
			if !s.next.IsZero() {
				t.Error("a deadline is left")
			}
		})
	}
	t.Run("during the login", func(t *testing.T) {
		s := newScripted(t, clientConfig())
		s.openLCP(3, 5, 0xc2, 0x23, 0x81)
		s.give(protocolLCP, codeTerminateRequest, 1)
		if err := s.err(t); stageOf(err) != "auth" || adviceOf(err) == "" {
			t.Error(err)
		}
	})
	t.Run("during IPCP", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.openLCP()
		s.give(protocolLCP, codeTerminateRequest, 1)
		if err := s.err(t); stageOf(err) != "ipcp" {
			t.Error(err)
		}
	})
	t.Run("before LCP is open, then silence", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.start()
		s.give(protocolLCP, codeTerminateRequest, 1, []byte("no more ports")...)
		s.wantFind(protocolLCP, codeTerminateAck)
		if len(s.downs) > 0 {
			t.Fatal("by the table, LCP stays in Req-Sent")
		}
		s.pass(time.Minute)
		if err := s.err(t); !strings.Contains(err.Error(), "no more ports") {
			t.Error(err)
		}
	})
	t.Run("before LCP is open, then the carrier hangs up", func(t *testing.T) {
		s := newScripted(t, noLogin())
		s.start()
		s.give(protocolLCP, codeTerminateRequest, 1, []byte("no more ports")...)
		s.session.LinkDown(s.now, errors.New("CDN"))
		if err := s.err(t); !strings.Contains(err.Error(), "no more ports") {
			t.Error(err)
		}
	})
}

// TestCloseOfASilentLink: two Terminate-Requests, then Down.
func TestCloseOfASilentLink(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.next = s.session.Close(s.now)
	s.next = s.session.Close(s.now) // once more does nothing
	if err := s.session.WritePackets([][]byte{roomy(s.session, ipv4Packet(20))}, s.session.Headroom()); err != nil {
		t.Error(err)
	}
	s.pass(10 * time.Second)
	first, second := s.want(protocolLCP, codeTerminateRequest), s.want(protocolLCP, codeTerminateRequest)
	s.wantNothing()
	if first.id != second.id {
		t.Error("a retransmission changed its identifier")
	}
	if err := s.err(t); err != ErrClosed || s.now.Sub(epoch) != 10*time.Second {
		t.Error(err, s.now)
	}
}

func TestCloseBeforeStart(t *testing.T) {
	s := newScripted(t, noLogin())
	s.next = s.session.Close(s.now)
	if err := s.err(t); err != ErrClosed || !s.next.IsZero() {
		t.Error(err, s.next)
	}
	s.start()
	s.wantNothing()
}

// TestLinkDown: Down follows at once with the carrier's error; if we were closing, with our own cause.
func TestLinkDown(t *testing.T) {
	gone := errors.New("carrier is gone")
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.session.LinkDown(s.now, gone)
	s.session.LinkDown(s.now, gone)
	if err := s.err(t); err != gone {
		t.Error(err)
	}
	s.next = s.session.Receive(s.now, [][]byte{appendFrame(nil, protocolIPv4, ipv4Packet(20))})
	if len(s.packets) > 0 || !s.next.IsZero() {
		t.Error("the dead take frames")
	}

	s = newScripted(t, noLogin())
	s.openIPCP()
	s.session.Close(s.now)
	s.session.LinkDown(s.now, gone)
	if err := s.err(t); err != ErrClosed {
		t.Error(err)
	}
}

// TestACFC: frames go without address and control once the peer asked for it; control packets never do
// (RFC 1661 section 6.6).
func TestACFC(t *testing.T) {
	for _, test := range []struct {
		options []byte
		want    string
	}{{nil, "ff03002145"}, {[]byte{8, 2}, "002145"}, {[]byte{7, 2}, "ff03002145"}} {
		s := newScripted(t, noLogin())
		s.openIPCP(test.options...)
		s.take()
		s.write(t, []byte{0x45})
		if diff := cmp.Diff([][]byte{unhex(t, test.want)}, s.take()); diff != "" {
			t.Errorf("options %x:\n%s", test.options, diff)
		}
		s.give(protocolLCP, codeEchoRequest, 1, 1, 2, 3, 4)
		s.want(protocolLCP, codeEchoReply)
	}
}
