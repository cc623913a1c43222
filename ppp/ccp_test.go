package ppp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gateway/ppp/mppe"
)

// require128 and the like are the policies of most tests.
var (
	require128 = mppe.Policy{Encryption: mppe.Require}
	prefer128  = mppe.Policy{Encryption: mppe.Prefer}
	allow128   = mppe.Policy{Encryption: mppe.Allow}
)

// An encryptedPair is a linkPair that notes which ends sent IP packets in clear, and how many under 00FD.
type encryptedPair struct {
	*linkPair
	clear, sealed map[*linkEnd]int
}

func newEncryptedPair(t testing.TB, peer, server mppe.Policy, change ...func(c *Config)) *encryptedPair {
	p, s := clientConfig(), serverConfig()
	p.CCP, s.CCP = peer, server
	for _, f := range change {
		f(&p)
		f(&s)
	}
	l := &encryptedPair{newLinkPair(t, p, s), map[*linkEnd]int{}, map[*linkEnd]int{}}
	l.observe = func(from *linkEnd, frame []byte) {
		switch protocol, _, _ := parseFrame(frame); protocol {
		case protocolIPv4, protocolIPv6:
			l.clear[from]++
		case protocolCompressed:
			l.sealed[from]++
		}
	}
	return l
}

func withLogin(m AuthMethod) func(c *Config) { return func(c *Config) { c.Auth = []AuthMethod{m} } }

// settle lets both ends speak until both networks are up or both links down.
func (l *encryptedPair) settle() {
	l.t.Helper()
	l.start()
	l.run(2*time.Minute, func() bool {
		up := l.bothUp() && len(l.peer.ups) > 0 && len(l.server.ups) > 0
		return (up || l.bothDown()) && len(l.inFlight) == 0
	})
}

// mustConnect is settle for pairs that agree.
func (l *encryptedPair) mustConnect() {
	l.t.Helper()
	l.settle()
	if len(l.peer.ups) == 0 || len(l.server.ups) == 0 {
		l.t.Fatalf("not connected: peer %v, server %v", l.peer.downs, l.server.downs)
	}
}

// numbered is an IPv4 packet of a true length that carries n and can be compressed.
func numbered(n, size int) []byte {
	packet := make([]byte, size)
	packet[0] = 0x45
	binary.BigEndian.PutUint16(packet[2:], uint16(size))
	binary.BigEndian.PutUint32(packet[16:], uint32(n))
	return packet
}

// exchange moves packets both ways; all must arrive.
func (l *encryptedPair) exchange() {
	l.t.Helper()
	l.peer.packets, l.server.packets = nil, nil
	var packets [][]byte
	for n := range 20 {
		packets = append(packets, numbered(n, 20+n*l.peer.params(l.t).MTU/25))
	}
	for _, packet := range packets {
		l.peer.write(l.t, packet)
		l.server.write(l.t, packet)
	}
	l.run(time.Second, func() bool { return len(l.inFlight) == 0 && len(l.peer.sent)+len(l.server.sent) == 0 })
	for _, e := range []*linkEnd{l.peer, l.server} {
		if !slices.EqualFunc(packets, e.packets, bytes.Equal) {
			l.t.Errorf("packets (-want +got):\n%s", cmp.Diff(packets, e.packets))
		}
	}
}

// TestPolicies: for every pair of policies and every login, the link is encrypted, or in clear, or it ends with a
// clear word; never does an end that requires encryption send or take a packet in clear.
func TestPolicies(t *testing.T) {
	wills := []mppe.Will{mppe.Deny, mppe.Allow, mppe.Prefer, mppe.Require}
	for _, m := range []AuthMethod{AuthNone, AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		for _, peer := range wills {
			for _, server := range wills {
				t.Run(fmt.Sprintf("%v/%v/%v", m, peer, server), func(t *testing.T) {
					testPolicies(t, m, peer, server)
				})
			}
		}
	}
}

func testPolicies(t *testing.T, m AuthMethod, peer, server mppe.Will) {
	l := newEncryptedPair(t, mppe.Policy{Encryption: peer}, mppe.Policy{Encryption: server}, withLogin(m))
	l.settle()
	required := peer == mppe.Require || server == mppe.Require
	possible := m.givesKeys() && peer != mppe.Deny && server != mppe.Deny
	if required && !possible {
		for end, will := range map[*linkEnd]mppe.Will{l.peer: peer, l.server: server} {
			err := end.err(t)
			if stageOf(err) != "ccp" && (will == mppe.Require || m.givesKeys()) {
				t.Errorf("%v: stage %q of %v", will, stageOf(err), err)
			}
			if adviceOf(err) == "" && (will == mppe.Require || m.givesKeys()) {
				t.Errorf("%v: no advice in %v", will, err)
			}
			if len(end.ups) > 0 && will == mppe.Require {
				t.Errorf("%v: the network came up", will)
			}
		}
		if took := l.now.Sub(epoch); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		return
	}
	want := ""
	if possible && max(peer, server) >= mppe.Prefer {
		want = "MPPE-128 stateless"
	}
	for _, e := range []*linkEnd{l.peer, l.server} {
		if got := e.params(t).Encryption; got != want {
			t.Fatalf("encryption %q, want %q", got, want)
		}
		if len(e.ups) > 2 { // once for each network protocol
			t.Errorf("%d times up", len(e.ups))
		}
	}
	l.exchange()
	if encrypted := want != ""; encrypted && len(l.clear) > 0 || !encrypted && len(l.sealed) > 0 {
		t.Errorf("clear %v, sealed %v", l.clear, l.sealed)
	}
	if took := l.now.Sub(epoch); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestRequiredEncryptionNeedsKeys: the link ends before the password is sent, or even takes a better login than the
// server's first choice (RFC 3079).
func TestRequiredEncryptionNeedsKeys(t *testing.T) {
	for name, server := range map[string][]AuthMethod{
		"takes the better login": {AuthCHAPMD5, AuthMSCHAPv2}, "insists on PAP": {AuthPAP}, "insists on EAP-MD5": {AuthEAPMD5}, "wants none": {AuthNone},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := clientConfig(), serverConfig()
			p.CCP, s.CCP = require128, allow128
			p.Auth, s.Auth = []AuthMethod{AuthNone, AuthPAP, AuthEAPMD5, AuthCHAPMD5, AuthMSCHAPv2, AuthEAPMSCHAPv2}, server
			l := newLinkPair(t, p, s)
			l.observe = func(from *linkEnd, frame []byte) {
				if protocol, _, _ := parseFrame(frame); protocol == protocolPAP {
					t.Error("the password was sent")
				}
			}
			l.start()
			l.run(time.Minute, func() bool { return len(l.peer.ups) > 0 || l.bothDown() })
			if len(server) > 1 {
				if got := l.peer.params(t); got.Auth != AuthMSCHAPv2 || got.Encryption == "" {
					t.Errorf("%+v", got)
				}
				return
			}
			var refused *mppe.Error
			if err := l.peer.err(t); stageOf(err) != "ccp" || !errors.As(err, &refused) || refused.Reason != mppe.NoKeys || !strings.Contains(adviceOf(err), "mschapv2") {
				t.Errorf("%v; advice %q", err, adviceOf(err))
			}
		})
	}
}

// TestModes: every key length, stateless and stateful, with and without compression (RFC 3078 section 2.1, RFC 2118).
func TestModes(t *testing.T) {
	tests := []struct {
		peer, server            mppe.Policy
		encryption, compression string
	}{
		{mppe.Policy{Encryption: mppe.Require, MinKeyBits: 40}, require128, "MPPE-128 stateless", ""},
		{mppe.Policy{Encryption: mppe.Require, MinKeyBits: 40}, mppe.Policy{Encryption: mppe.Allow, MinKeyBits: 40}, "MPPE-128 stateless", ""},
		{mppe.Policy{Encryption: mppe.Require, Stateful: true}, mppe.Policy{Encryption: mppe.Allow, Stateful: true}, "MPPE-128 stateful", ""},
		{mppe.Policy{Encryption: mppe.Require, Stateful: true}, require128, "MPPE-128 stateless", ""},
		{mppe.Policy{Encryption: mppe.Require, Compression: mppe.Prefer}, mppe.Policy{Encryption: mppe.Allow, Compression: mppe.Allow}, "MPPE-128 stateless", "MPPC"},
		{mppe.Policy{Encryption: mppe.Require, Compression: mppe.Prefer}, allow128, "MPPE-128 stateless", ""},
		{mppe.Policy{Encryption: mppe.Require, Stateful: true, Compression: mppe.Prefer}, mppe.Policy{Encryption: mppe.Require, Stateful: true, Compression: mppe.Prefer}, "MPPE-128 stateful", "MPPC"},
		{mppe.Policy{Compression: mppe.Prefer}, mppe.Policy{Compression: mppe.Allow}, "", "MPPC"},
		{mppe.Policy{Compression: mppe.Allow}, mppe.Policy{Compression: mppe.Prefer}, "", "MPPC"},
		{mppe.Policy{Compression: mppe.Allow}, mppe.Policy{Compression: mppe.Allow}, "", ""},
		{mppe.Policy{Compression: mppe.Prefer}, mppe.Policy{}, "", ""},
	}
	for _, test := range tests {
		for _, m := range []AuthMethod{AuthMSCHAP, AuthMSCHAPv2} {
			t.Run(fmt.Sprintf("%v/%+v/%+v", m, test.peer, test.server), func(t *testing.T) {
				l := newEncryptedPair(t, test.peer, test.server, withLogin(m))
				l.mustConnect()
				for e, policy := range map[*linkEnd]mppe.Policy{l.peer: test.peer, l.server: test.server} {
					mtu := testMTU - frameHeader - 4
					if policy == (mppe.Policy{}) {
						mtu += 4
					}
					if p := e.params(t); p.Encryption != test.encryption || p.Compression != test.compression || p.MTU != mtu {
						t.Errorf("%q, %q, MTU %d", p.Encryption, p.Compression, p.MTU)
					}
				}
				for range 14 { // past the flag packets of stateful mode
					l.exchange()
				}
				if test.encryption+test.compression != "" && len(l.clear) > 0 {
					t.Errorf("in clear: %v", l.clear)
				}
				if before := l.peer.session.Stats().BytesOut; test.compression != "" && before > 14*20*400 {
					t.Errorf("%d bytes are not compressed", before)
				}
			})
		}
	}
}

// TestWeakKeys: a peer that does 40 or 56 bits only gets what our minimum allows, by its request or its Nak.
func TestWeakKeys(t *testing.T) {
	tests := []struct {
		minimum int
		bits    mppe.Bits // all that the other end does
		want    string    // empty: refused
	}{
		{40, mppe.Key40, "MPPE-40 stateless"},
		{40, mppe.Key56, "MPPE-56 stateless"},
		{40, mppe.Key40 | mppe.Key56, "MPPE-56 stateless"},
		{56, mppe.Key56, "MPPE-56 stateless"},
		{56, mppe.Key40, ""},
		{0, mppe.Key56, ""},
		{128, mppe.Key40, ""},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%d/%v", test.minimum, test.bits), func(t *testing.T) {
			s := loggedIn(t, mppe.Policy{Encryption: mppe.Require, MinKeyBits: test.minimum})
			strongest := test.bits &^ mppe.Key40
			if strongest == 0 {
				strongest = mppe.Key40
			}
			value := mppe.AppendOption(nil, strongest|mppe.Stateless)
			r := s.wantFind(protocolCCP, codeConfigureRequest)
			s.give(protocolCCP, codeConfigureNak, r.id, value...)
			if test.want == "" {
				s.wantRefused("accepted", "")
				return
			}
			r = s.wantFind(protocolCCP, codeConfigureRequest)
			if !bytes.Equal(r.data, value) {
				t.Fatalf("request %x, want %x", r.data, value)
			}
			s.give(protocolCCP, codeConfigureAck, r.id, r.data...)
			s.give(protocolCCP, codeConfigureRequest, 1, value...)
			s.negotiateIPCPAgain()
			if got := s.params(t).Encryption; got != test.want {
				t.Errorf("%q", got)
			}
			s.take()
			s.write(t, numbered(1, 100))
			decoder, err := mppe.NewDecoder(strongest|mppe.Stateless, s.session.ccp.keys.Send)
			if err != nil {
				t.Fatal(err)
			}
			if packet, _, v := decoder.Open(nil, s.take()[0][frameHeader:]); v != mppe.Opened || !bytes.Equal(packet[2:], numbered(1, 100)) {
				t.Errorf("%v: % x", v, packet)
			}
		})
	}
}

// loggedIn is a peer with IPv4 only, logged in by MS-CHAPv2, whose other end is the test. Its first CCP and IPCP requests
// are in sent.
func loggedIn(t testing.TB, policy mppe.Policy, change ...func(c *Config)) *scripted {
	t.Helper()
	change = append(change, func(c *Config) { c.NoIPv6, c.EchoInterval = true, -1 })
	l := newEncryptedPair(t, policy, mppe.Policy{}, change...)
	l.start()
	var sent [][]byte
	l.run(time.Minute, func() bool {
		if l.peer.session.phase != phaseNetwork {
			return false
		}
		sent = l.peer.take()
		return true
	})
	// What the peer sent in its last step went on its way already; it is caught there.
	for _, f := range l.inFlight {
		if f.to == l.server {
			sent = append(sent, f.frame)
		}
	}
	if l.peer.session.phase != phaseNetwork {
		t.Fatalf("not logged in: %v", l.peer.downs)
	}
	l.peer.sent = sent
	return &scripted{linkEnd: l.peer, t: t, now: l.now}
}

// negotiateIPCPAgain is negotiateIPCP after our first request went by.
func (s *scripted) negotiateIPCPAgain() {
	s.t.Helper()
	s.take()
	s.session.ipcp.deadline = s.now
	s.next = s.session.Advance(s.now)
	s.negotiateIPCP()
}

// wantRefused expects the link to end for want of encryption.
func (s *scripted) wantRefused(what, cause string) {
	s.t.Helper()
	if len(s.ups) > 0 {
		s.t.Errorf("%s: the network came up", what)
	}
	if p := s.wantFind(protocolLCP, codeTerminateRequest); s.session.phase == phaseTerminate {
		s.give(protocolLCP, codeTerminateAck, p.id)
	}
	var refused *mppe.Error
	err := s.err(s.t)
	if stageOf(err) != "ccp" || !errors.As(err, &refused) || adviceOf(err) == "" || !strings.Contains(err.Error(), cause) {
		s.t.Errorf("%s: %v", what, err)
	}
}

// TestEncryptionIsRefused: each way of a peer to say no ends a link that requires encryption at once, and lets one
// that prefers it go on in clear (RFC 3078 section 9: no user data before).
func TestEncryptionIsRefused(t *testing.T) {
	tests := []struct {
		name, cause string
		refuse      func(s *scripted, r controlPacket)
	}{
		{"Configure-Reject", "none", func(s *scripted, r controlPacket) { s.give(protocolCCP, codeConfigureReject, r.id, r.data...) }},
		{"Nak of no bits", "none", func(s *scripted, r controlPacket) {
			s.give(protocolCCP, codeConfigureNak, r.id, 18, 6, 0, 0, 0, 0)
		}},
		{"Protocol-Reject", "does not speak it", func(s *scripted, r controlPacket) {
			s.give(protocolLCP, codeProtocolReject, 1, append([]byte{0x80, 0xfd}, r.data...)...)
		}},
		{"agrees to nothing", "less than encryption", func(s *scripted, r controlPacket) {
			for id := range uint8(6) {
				s.give(protocolCCP, codeConfigureRequest, id) // is asked for the option until we give up
			}
			s.give(protocolCCP, codeConfigureAck, r.id, r.data...)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := loggedIn(t, require128)
			test.refuse(s, s.wantFind(protocolCCP, codeConfigureRequest))
			s.wantRefused("required", test.cause)

			s = loggedIn(t, prefer128)
			test.refuse(s, s.wantFind(protocolCCP, codeConfigureRequest))
			s.negotiateIPCPAgain()
			if p := s.params(t); p.Encryption != "" || p.MTU != testMTU-frameHeader-4 {
				if test.name != "agrees to nothing" { // it takes our option, and so encrypts what it sends
					t.Errorf("preferred: %+v", p)
				}
			}
		})
	}
}

// TestNetworkWaitsForEncryption: with IPCP open and CCP not, nothing is told and nothing passes; an encryption that is
// only preferred is waited for 7 s.
func TestNetworkWaitsForEncryption(t *testing.T) {
	tryData := func(s *scripted) {
		t.Helper()
		s.take()
		s.write(t, numbered(1, 40))
		s.giveFrame(appendFrame(nil, protocolIPv4, numbered(2, 40)))
		if len(s.packets)+len(s.sent)+len(s.ups) > 0 {
			t.Fatalf("in: %d packets, out: %d frames, up: %v", len(s.packets), len(s.sent), s.ups)
		}
	}
	s := loggedIn(t, prefer128)
	s.negotiateIPCPAgain()
	tryData(s)
	s.pass(s.session.config.Timers.Encryption - time.Second)
	tryData(s)
	s.pass(time.Second)
	if p := s.params(t); p.Encryption != "" {
		t.Errorf("%+v", p)
	}
	s.take()
	s.write(t, numbered(1, 40))
	if len(s.sent) != 1 || !bytes.Equal(s.sent[0], appendFrame(nil, protocolIPv4, numbered(1, 40))) {
		t.Errorf("sent % x", s.sent)
	}

	// A peer that comes round to it late is still welcome, and then there is no way back.
	s.give(protocolCCP, codeConfigureRequest, 1, 18, 6, 1, 0, 0, 0x40)
	s.wantFind(protocolCCP, codeConfigureAck)
	if s.session.ccp.state == stateAckSent {
		s.give(protocolCCP, codeConfigureAck, s.session.ccp.id, 18, 6, 1, 0, 0, 0x40)
	}
	if p := s.params(t); len(s.ups) != 2 || p.Encryption != "MPPE-128 stateless" || p.MTU != testMTU-frameHeader-4 {
		t.Errorf("%d: %+v", len(s.ups), p)
	}
	s.give(protocolCCP, codeTerminateRequest, 2)
	if _, ended := s.session.cause.(*NegotiationError); !ended {
		t.Errorf("the link lives on without encryption: %v", s.session.cause)
	}

	s = loggedIn(t, require128)
	s.negotiateIPCPAgain()
	tryData(s)
	s.pass(20 * time.Second)
	tryData(s)
	s.pass(20 * time.Second)
	s.wantRefused("silence", "no answer")
}

// TestClearPacketsAreDropped: once encryption is agreed upon, packets in clear are not taken (RFC 3078 section 9).
func TestClearPacketsAreDropped(t *testing.T) {
	l := newEncryptedPair(t, allow128, prefer128)
	l.mustConnect()
	for _, e := range []*linkEnd{l.peer, l.server} {
		e.session.Receive(l.now, [][]byte{
			appendFrame(nil, protocolIPv4, numbered(1, 40)), appendFrame(nil, protocolIPv6, ipv6Packet(60)),
			{0x21, 0x45, 0, 0, 1}, // short protocol field, no address
			appendFrame(nil, protocolCompressed, append([]byte{0x90, 0, 0, 0x21}, numbered(1, 40)...)), // D set, not encrypted
			appendFrame(nil, protocolCompressed, append([]byte{0x80, 0, 0, 0x21}, numbered(1, 40)...)), // D not set
			appendFrame(nil, protocolCompressed, nil),
		})
		if st := e.session.Stats(); len(e.packets) > 0 || st.Unencrypted != 3 || st.Garbled != 3 {
			t.Errorf("%d packets, %+v", len(e.packets), st)
		}
	}
	l.exchange() // and nothing was harmed
}

// TestControlIsNeverEncrypted: a control packet under 00FD is dropped, as are other protocols (RFC 3078 section 3).
func TestControlIsNeverEncrypted(t *testing.T) {
	l := newEncryptedPair(t, require128, require128)
	l.mustConnect()
	encoder, err := mppe.NewEncoder(mppe.Key128|mppe.Stateless, l.server.session.ccp.keys.Send)
	if err != nil {
		t.Fatal(err)
	}
	for _, inner := range [][]byte{{0x00, 0x2d, 1, 2, 3, 4}, {0xc0, 0x21, codeTerminateRequest, 1, 0, 4}, {0x80, 0xfd, codeTerminateRequest, 1, 0, 4}} {
		frame := append(make([]byte, frameHeader+mppe.Headroom), inner...)
		batch := [][]byte{frame}
		encoder.Seal(batch, frameHeader+mppe.Headroom)
		copy(batch[0], []byte{addressAllStations, controlUI, 0x00, 0xfd})
		l.peer.session.Receive(l.now, batch)
	}
	if st := l.peer.session.Stats(); len(l.peer.downs)+len(l.peer.packets) > 0 || l.peer.session.phase != phaseNetwork || st.Garbled != 3 {
		t.Errorf("%v %+v", l.peer.downs, st)
	}
}

// TestEncryptionSurvivesBadLines: loss, duplicates and reordering in every mode. Whatever arrives is what was sent.
func TestEncryptionSurvivesBadLines(t *testing.T) {
	const packets = 2000
	modes := []struct {
		name   string
		policy mppe.Policy
		least  int // packets of those sent that must arrive; duplicates and late ones are lost
	}{
		{"stateless", require128, packets * 90 / 100},
		{"stateless MPPC", mppe.Policy{Encryption: mppe.Require, Compression: mppe.Prefer}, packets * 90 / 100},
		{"stateful", mppe.Policy{Encryption: mppe.Require, Stateful: true}, packets * 40 / 100},
		{"stateful MPPC", mppe.Policy{Encryption: mppe.Require, Stateful: true, Compression: mppe.Prefer}, packets * 40 / 100},
		{"MPPC", mppe.Policy{Compression: mppe.Prefer}, packets * 40 / 100},
	}
	lines := []struct {
		name  string
		fault fault
	}{
		{"loss", func(n int) (int, time.Duration) { return b2i(n%50 != 17), 0 }},
		{"burst", func(n int) (int, time.Duration) { return b2i(n%1500 > 100), 0 }},
		{"duplicates", func(n int) (int, time.Duration) { return 1 + b2i(n%7 == 0), 0 }},
		{"reordering", func(n int) (int, time.Duration) { return 1, time.Duration(b2i(n%200 == 3)) * 3 * time.Millisecond }},
	}
	for _, mode := range modes {
		for _, line := range lines {
			t.Run(mode.name+"/"+line.name, func(t *testing.T) {
				l := newEncryptedPair(t, mode.policy, mode.policy)
				l.mustConnect()
				l.fault = line.fault
				for n := range packets {
					l.peer.write(t, numbered(n, 60+n%1000))
					l.server.write(t, numbered(n, 60+n%900))
					l.run(time.Millisecond, func() bool { return false })
				}
				l.run(time.Second, func() bool { return false })
				if len(l.peer.downs)+len(l.server.downs) > 0 {
					t.Fatal("down:", l.peer.downs, l.server.downs)
				}
				for _, e := range []*linkEnd{l.peer, l.server} {
					if len(e.packets) < mode.least {
						t.Errorf("%d of %d packets arrived: %+v", len(e.packets), packets, e.session.Stats())
					}
					for _, packet := range e.packets {
						n := int(binary.BigEndian.Uint32(packet[16:]))
						size := 60 + n%1000
						if e == l.peer {
							size = 60 + n%900
						}
						if !bytes.Equal(packet, numbered(n, size)) {
							t.Fatalf("garbage was delivered: % x", packet)
						}
					}
				}
			})
		}
	}
}

// TestResetRequestsAreBounded, both answered and sent (RFC 1962 section 3).
func TestResetRequestsAreBounded(t *testing.T) {
	policy := mppe.Policy{Encryption: mppe.Require, Stateful: true}
	l := newEncryptedPair(t, policy, policy)
	l.mustConnect()
	s := &scripted{linkEnd: l.peer, t: t, now: l.now}
	s.take()
	for range 10000 {
		s.give(protocolCCP, codeResetRequest, 9)
	}
	if p := parseSent(t, s.sent[0]); p.code != codeResetAck || p.id != 9 || len(p.data) > 0 {
		t.Errorf("%+v", p)
	}
	if n := len(s.take()); n > 40 {
		t.Errorf("%d Reset-Acks", n)
	}

	// Lost packets: one Reset-Request at once, again after a second, or at once if its answer did not help.
	lose := func(count byte) {
		s.giveFrame(appendFrame(nil, protocolCompressed, append([]byte{0x10, count}, numbered(1, 40)...)))
	}
	lose(40)
	first := s.want(protocolCCP, codeResetRequest)
	for range 100 {
		lose(41)
	}
	s.wantNothing()
	s.give(protocolCCP, codeResetAck, first.id+7)
	lose(42)
	s.wantNothing()
	s.give(protocolCCP, codeResetAck, first.id)
	lose(43)
	if again := s.want(protocolCCP, codeResetRequest); again.id == first.id {
		t.Error("two Reset-Requests of one identifier")
	}
	s.pass(time.Second)
	s.take()
	lose(44)
	s.want(protocolCCP, codeResetRequest)
	if n := s.session.Stats().ResetRequests; n != 3 {
		t.Errorf("%d Reset-Requests counted", n)
	}
	for range 10000 {
		s.give(protocolCCP, codeResetAck, s.session.ccp.resetID)
		lose(45)
	}
	if n := len(s.take()); n > 40 {
		t.Errorf("%d Reset-Requests", n)
	}
}

// TestGarbageEndsTheLink: a server with other keys is found out (Decoder.Err), and the error says what to look at.
func TestGarbageEndsTheLink(t *testing.T) {
	l := newEncryptedPair(t, require128, require128)
	l.mustConnect()
	for n := range 100 {
		frame := appendFrame(nil, protocolCompressed, append([]byte{0x90, byte(n)}, numbered(1, 400)...))
		l.peer.next = l.peer.session.Receive(l.now, [][]byte{frame})
	}
	l.run(time.Minute, l.bothDown)
	var wrong *mppe.Error
	if err := l.peer.err(t); stageOf(err) != "ccp" || !errors.As(err, &wrong) || wrong.Reason != mppe.WrongKeys || adviceOf(err) == "" {
		t.Errorf("%v; %q", err, adviceOf(err))
	}
}

// TestRenegotiationKeepsTheGatesShut: CCP begins anew while packets are sent. None leaves in clear, and the network is
// told when it may go on.
func TestRenegotiationKeepsTheGatesShut(t *testing.T) {
	for _, policy := range []mppe.Policy{require128, prefer128, {Encryption: mppe.Prefer, Stateful: true, Compression: mppe.Prefer}} {
		for _, layer := range []string{"CCP", "LCP"} {
			t.Run(fmt.Sprintf("%+v/%s", policy, layer), func(t *testing.T) {
				l := newEncryptedPair(t, policy, policy)
				l.mustConnect()
				for range 10 {
					a := &l.server.session.ccp.automaton
					if layer == "LCP" {
						a = &l.server.session.lcp.automaton
					}
					a.event(l.now, eventTerminateAck, controlPacket{}) // RTA in Opened begins anew (RFC 1661 section 4.1)
					l.server.next = l.server.session.Receive(l.now, nil)
					for range 500 {
						l.peer.write(t, numbered(1, 40))
						l.server.write(t, numbered(1, 40))
						l.run(time.Millisecond, func() bool { return false })
					}
					l.run(2*time.Second, func() bool { return len(l.inFlight) == 0 && l.bothUp() })
					if !l.bothUp() || l.server.session.ccp.state != stateOpened || l.peer.session.ccp.state != stateOpened {
						t.Fatal("not up again", l.peer.downs, l.server.downs)
					}
					l.exchange()
				}
				if len(l.clear) > 0 {
					t.Errorf("in clear: %v", l.clear)
				}
			})
		}
	}
}

// TestEncryptionIsNotGivenUp: what was encrypted once ends rather than go on in clear, though it was only preferred.
func TestEncryptionIsNotGivenUp(t *testing.T) {
	for name, end := range map[string]func(s *scripted){
		"Terminate-Request": func(s *scripted) { s.give(protocolCCP, codeTerminateRequest, 9) },
		"Protocol-Reject":   func(s *scripted) { s.give(protocolLCP, codeProtocolReject, 9, 0x80, 0xfd) },
		"renegotiated to nothing": func(s *scripted) {
			for id := uint8(50); id < 56; id++ {
				s.give(protocolCCP, codeConfigureRequest, id)
			}
			s.give(protocolCCP, codeConfigureAck, s.session.ccp.id, s.session.ccp.request[packetHeader:]...)
		},
		"never renegotiated": func(s *scripted) {
			s.give(protocolCCP, codeConfigureRequest, 50)
			s.pass(65 * time.Second)
		},
	} {
		for _, policy := range []mppe.Policy{allow128, prefer128, require128} {
			t.Run(fmt.Sprintf("%s/%v", name, policy.Encryption), func(t *testing.T) {
				l := newEncryptedPair(t, policy, require128, func(c *Config) { c.EchoInterval = -1 })
				l.mustConnect()
				s := &scripted{linkEnd: l.peer, t: t, now: l.now}
				end(s)
				s.session.WritePackets([][]byte{roomy(s.session, numbered(1, 40))}, s.session.Headroom())
				s.giveFrame(appendFrame(nil, protocolIPv4, numbered(1, 40)))
				for _, frame := range s.sent {
					if protocol, _, _ := parseFrame(frame); protocol == protocolIPv4 || protocol == protocolCompressed {
						t.Errorf("sent % x", frame)
					}
				}
				s.pass(10 * time.Second)
				if err := s.err(t); stageOf(err) != "ccp" || len(s.packets) > 0 {
					t.Errorf("%v; %d packets", err, len(s.packets))
				}
			})
		}
	}
}

// TestCompressionMayEnd: MPPC alone is no promise; the link goes on without it.
func TestCompressionMayEnd(t *testing.T) {
	policy := mppe.Policy{Compression: mppe.Prefer}
	l := newEncryptedPair(t, policy, policy)
	l.mustConnect()
	s := &scripted{linkEnd: l.peer, t: t, now: l.now}
	s.giveFrame(appendFrame(nil, protocolIPv4, numbered(1, 40))) // in clear, as incompressible packets may come
	s.give(protocolCCP, codeTerminateRequest, 9)
	s.take()
	s.write(t, numbered(1, 40))
	if len(s.packets) != 1 || len(s.sent) != 1 || s.sent[0][3] != 0x21 {
		t.Errorf("% x, %v", s.sent, s.downs)
	}
	if p := s.params(t); p.Compression != "" || p.MTU != testMTU-frameHeader-4 {
		t.Errorf("%+v", p)
	}
}

// TestEndlessCCP: whatever a peer repeats, a link that requires encryption ends in time, and one that prefers it is up
// in time; the talk is bounded.
func TestEndlessCCP(t *testing.T) {
	answer := func(code uint8, p controlPacket, data ...byte) []byte {
		return appendFrame(nil, protocolCCP, appendControlPacket(nil, controlPacket{code, p.id, data}))
	}
	ackIPCP := func(protocol uint16, p controlPacket) []byte {
		switch {
		case protocol == protocolIPCP && p.code == codeConfigureRequest && bytes.Contains(p.data, []byte{3, 6, 0, 0}):
			return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{codeConfigureNak, p.id, []byte{3, 6, 10, 9, 0, 2}}))
		case protocol == protocolIPCP && p.code == codeConfigureRequest:
			return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{codeConfigureAck, p.id, p.data}))
		case protocol == protocolLCP && p.code == codeTerminateRequest:
			return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{codeTerminateAck, p.id, nil}))
		}
		return nil
	}
	tests := []struct {
		name  string
		begin []byte // options of its own request; nil: none
		reply func(p controlPacket) []byte
		never bool // it would even encrypt
	}{
		{"is silent", nil, func(controlPacket) []byte { return nil }, false},
		{"naks to nothing", nil, func(p controlPacket) []byte { return answer(codeConfigureNak, p, 18, 6, 0, 0, 0, 0) }, false},
		{"naks to stateful mode", nil, func(p controlPacket) []byte { return answer(codeConfigureNak, p, 18, 6, 0, 0, 0, 0x40) }, false},
		{"naks to the same", nil, func(p controlPacket) []byte { return answer(codeConfigureNak, p, p.data...) }, false},
		{"naks with another method", nil, func(p controlPacket) []byte { return answer(codeConfigureNak, p, 26, 4, 0x78, 0) }, false},
		{"acknowledges, but never asks", nil, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeConfigureAck, p, p.data...)
			}
			return nil
		}, false},
		{"asks for no bits for ever", []byte{18, 6, 0, 0, 0, 0}, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeConfigureReject, p, p.data...)
			}
			return answer(codeConfigureRequest, p, 18, 6, 0, 0, 0, 0)
		}, false},
		{"asks for Deflate for ever", []byte{26, 4, 0x78, 0}, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeConfigureReject, p, p.data...)
			}
			return answer(codeConfigureRequest, p, 26, 4, 0x78, 0)
		}, false},
		{"asks for 40 bits for ever", []byte{18, 6, 1, 0, 0, 0x20}, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeConfigureAck, p, p.data...)
			}
			return answer(codeConfigureRequest, p, 18, 6, 1, 0, 0, 0x20)
		}, false},
		{"terminates for ever", nil, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeTerminateRequest, p)
			}
			return nil
		}, false},
		{"begins anew for ever", []byte{18, 6, 1, 0, 0, 0x40}, func(p controlPacket) []byte {
			if p.code == codeConfigureRequest {
				return answer(codeConfigureAck, p, p.data...)
			}
			return answer(codeConfigureRequest, controlPacket{id: p.id + 1}, 18, 6, 1, 0, 0, 0x40)
		}, true},
	}
	for _, test := range tests {
		for _, policy := range []mppe.Policy{require128, prefer128, allow128} {
			t.Run(fmt.Sprintf("%s/%v", test.name, policy.Encryption), func(t *testing.T) {
				s := loggedIn(t, policy)
				began, frames := s.now, 0
				var firstUp time.Duration
				reply := func(protocol uint16, p controlPacket) []byte {
					if frames++; protocol == protocolCCP {
						return test.reply(p)
					}
					return ackIPCP(protocol, p)
				}
				s.give(protocolIPCP, codeConfigureRequest, 1, 3, 6, 10, 9, 0, 1)
				if test.begin != nil {
					s.give(protocolCCP, codeConfigureRequest, 1, test.begin...)
				}
				for s.now.Sub(began) < 10*time.Minute && len(s.downs) == 0 {
					for n := 0; len(s.sent) > 0 && n < 500; n++ { // the peer answers 500 frames of one instant at most
						frame := s.sent[0]
						s.sent = s.sent[1:]
						if a := reply(binary.BigEndian.Uint16(frame[2:]), parseSent(t, frame)); a != nil {
							s.giveFrame(a)
						}
					}
					s.take()
					if len(s.ups) > 0 && firstUp == 0 {
						firstUp = s.now.Sub(began) + 1
					}
					if s.next.IsZero() {
						break
					}
					s.now = s.next
					s.next = s.session.Advance(s.now)
				}
				took := s.now.Sub(began)
				if test.never {
					if len(s.downs) == 0 && frames > 600+3*600 {
						t.Errorf("%d frames", frames)
					}
					return
				}
				if frames > 120 && len(s.downs) > 0 || frames > 700 {
					t.Errorf("%d frames in %v", frames, took)
				}
				if policy.Encryption == mppe.Require {
					if err := s.err(t); stageOf(err) != "ccp" || took > 65*time.Second || len(s.ups) > 0 {
						t.Errorf("after %v, up %v: %v", took, s.ups, err)
					}
					return
				}
				if len(s.downs) > 0 || firstUp == 0 || firstUp > 8*time.Second || s.params(t).Encryption != "" {
					t.Errorf("up after %v; after %v: %v", firstUp, took, s.downs)
				}
			})
		}
	}
}

// TestServerThatRequiresEncryption hangs up on a peer that refuses it. Stage and advice name it, whatever the server's
// words are, and whether it says them in PPP or the carrier ends.
func TestServerThatRequiresEncryption(t *testing.T) {
	tests := []struct {
		name   string
		policy mppe.Policy
		login  bool // that gives keys
		advice string
	}{
		{"denied", mppe.Policy{}, true, `mppe = "prefer"`},
		{"no keys", prefer128, false, "mschapv2"},
		{"key too short", prefer128, true, "mppe_min_key"},
		{"key too long", mppe.Policy{Encryption: mppe.Prefer, MinKeyBits: 56, MaxKeyBits: 56}, true, "mppe_max_key"},
	}
	for _, test := range tests {
		for _, how := range []string{"LCP", "carrier", "silence"} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				c := clientConfig()
				c.CCP = test.policy
				var s *scripted
				if test.login {
					s = loggedIn(t, test.policy)
				} else {
					c.Auth, c.NoIPv6 = []AuthMethod{AuthNone}, true
					s = newScripted(t, c)
					s.openLCP()
				}
				for id := range uint8(7) {
					s.give(protocolCCP, codeConfigureRequest, id+1, 18, 6, 1, 0, 0, 0x20)
				}
				s.wantFind(protocolCCP, codeConfigureReject)
				switch how {
				case "LCP":
					s.give(protocolLCP, codeTerminateRequest, 1, []byte("no")...)
				case "carrier":
					s.session.LinkDown(s.now, errNoCarrier)
				case "silence":
					s.pass(2 * time.Minute)
				}
				if err := s.err(t); stageOf(err) != "ccp" && how != "silence" || how != "silence" && !strings.Contains(adviceOf(err), test.advice) {
					t.Errorf("%v; advice %q", err, adviceOf(err))
				}
			})
		}
	}
}

// TestKeysAreForgotten when the link has ended.
func TestKeysAreForgotten(t *testing.T) {
	l := newEncryptedPair(t, require128, require128)
	l.mustConnect()
	codecs := []any{*l.peer.session.ccp.encoder, *l.peer.session.ccp.decoder}
	encoder, decoder := l.peer.session.ccp.encoder, l.peer.session.ccp.decoder
	if l.peer.session.ccp.keys == (mppe.Keys{}) {
		t.Fatal("no keys")
	}
	l.peer.session.Close(l.now)
	l.run(time.Minute, l.bothDown)
	for _, e := range []*linkEnd{l.peer, l.server} {
		if e.session.ccp.keys != (mppe.Keys{}) || *e.session.login.mppe != (mppeKeys{}) || e.session.ccp.encoder != nil || e.session.rx.decoder != nil {
			t.Error("keys are left")
		}
	}
	if codecs[0] == any(*encoder) || *encoder != (mppe.Encoder{}) || *decoder != (mppe.Decoder{}) {
		t.Error("session keys are left in a codec")
	}
}

// TestKeysOfALaterLogin hold from the next negotiation on, and leave the present one alone.
func TestKeysOfALaterLogin(t *testing.T) {
	l := newEncryptedPair(t, require128, require128)
	l.mustConnect()
	old := l.peer.session.ccp.keys
	for _, e := range []*linkEnd{l.peer, l.server} {
		login := e.session.login
		login.mppe = &mppeKeys{method: AuthMSCHAPv2, client: e == l.peer, master: [16]byte{1, 2, 3}}
		e.session.authSucceeded(l.now, login)
		e.session.authSucceeded(l.now, authResult{method: AuthCHAPMD5}) // one without keys changes nothing
	}
	l.exchange()
	l.server.session.ccp.event(l.now, eventTerminateAck, controlPacket{}) // begins anew
	l.run(5*time.Second, func() bool {
		return l.peer.session.ccp.state == stateOpened && l.server.session.ccp.state == stateOpened && len(l.inFlight) == 0
	})
	if l.peer.session.ccp.keys == old {
		t.Error("the old keys are still used")
	}
	l.exchange()
}

// TestIPCPIsHastenedByCCP: a server that takes IPCP only behind encryption is asked again when that is up, not half a
// second later.
func TestIPCPIsHastenedByCCP(t *testing.T) {
	s := loggedIn(t, require128, func(c *Config) { c.Assign = nil }) // the other end asks for no IPCP
	r := s.wantFind(protocolCCP, codeConfigureRequest)
	s.take()
	s.give(protocolCCP, codeConfigureRequest, 1, r.data...)
	s.give(protocolCCP, codeConfigureAck, r.id, r.data...)
	s.take()
	s.pass(0)
	s.want(protocolIPCP, codeConfigureRequest)
	s.wantNothing()
}

// TestWritersBesideCCP: WritePackets from many goroutines while CCP resets and renegotiates (for the race detector).
func TestWritersBesideCCP(t *testing.T) {
	policy := mppe.Policy{Encryption: mppe.Require, Stateful: true, Compression: mppe.Prefer}
	l := newEncryptedPair(t, policy, policy)
	l.mustConnect()
	var mu sync.Mutex
	counts := map[uint16]bool{}
	s := &scripted{linkEnd: l.peer, t: t, now: l.now}
	s.session.tx.link = checkedLink{s.linkEnd, func(frame []byte) {
		if frame[3] == 0x21 {
			t.Error("in clear")
		}
		if frame[3] == 0xfd && frame[2] == 0 {
			mu.Lock()
			counts[binary.BigEndian.Uint16(frame[4:])&0xfff] = true
			mu.Unlock()
		}
	}}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 200 {
				batch := [][]byte{roomy(s.session, numbered(1, 40)), roomy(s.session, numbered(2, 400))}
				if err := s.session.WritePackets(batch, s.session.Headroom()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 200 {
		s.give(protocolCCP, codeResetRequest, byte(n))
		if n == 100 {
			s.give(protocolCCP, codeConfigureRequest, 77, s.session.ccp.acked[packetHeader:]...)
			s.give(protocolCCP, codeConfigureAck, s.session.ccp.id, s.session.ccp.request[packetHeader:]...)
		}
	}
	writers.Wait()
	if s.session.ccp.state != stateOpened || len(counts) == 0 {
		t.Error(s.session.ccp.state, len(counts))
	}
}

// A checkedLink looks at each frame and swallows it.
type checkedLink struct {
	*linkEnd
	look func(frame []byte)
}

func (c checkedLink) WriteFrames(frames [][]byte, offset int) error {
	for _, frame := range frames {
		c.look(frame[offset:])
	}
	return nil
}

// TestResetAckComesFirst: no packet may come between the Reset-Ack and the packet that begins anew.
func TestResetAckComesFirst(t *testing.T) {
	policy := mppe.Policy{Encryption: mppe.Require, Stateful: true}
	l := newEncryptedPair(t, policy, policy)
	l.mustConnect()
	l.exchange()
	s := &scripted{linkEnd: l.peer, t: t, now: l.now}
	s.write(t, numbered(1, 40))
	s.give(protocolCCP, codeResetRequest, 3)
	s.write(t, numbered(2, 40))
	sent := s.take()
	if len(sent) != 3 || sent[0][4]&0x80 != 0 || sent[1][4] != codeResetAck || sent[2][4]&0x80 == 0 {
		t.Errorf("% x", sent)
	}
}

// encryptedForData returns one end with MPPE and the frames that it takes, for measurements. Each use of a frame needs a
// fresh copy with the next coherency count: see sealedBatch.
func encryptedForData(t testing.TB, policy mppe.Policy) (s *scripted, encoder *mppe.Encoder) {
	l := newEncryptedPair(t, policy, policy)
	l.mustConnect()
	s = &scripted{linkEnd: l.peer, t: t, now: l.now}
	encoder, err := mppe.NewEncoder(l.server.session.ccp.send, l.server.session.ccp.keys.Send)
	if err != nil {
		t.Fatal(err)
	}
	s.session.tx.link = sink{s.linkEnd}
	s.session.handler = sink{s.linkEnd}
	return s, encoder
}

// A sealedBatch makes the next frames of the other end again and again, in the same buffers.
type sealedBatch struct {
	encoder *mppe.Encoder
	frames  [][]byte
	packet  []byte
}

func newSealedBatch(encoder *mppe.Encoder, n, size int) *sealedBatch {
	b := &sealedBatch{encoder: encoder, packet: append([]byte{0x00, 0x21}, numbered(1, size)...)}
	for range n {
		b.frames = append(b.frames, make([]byte, 0, 2048))
	}
	return b
}

func (b *sealedBatch) next() [][]byte {
	const start = frameHeader + mppe.Headroom
	for i := range b.frames {
		b.frames[i] = b.frames[i][:start+len(b.packet)]
		copy(b.frames[i][start:], b.packet)
	}
	b.encoder.Seal(b.frames, start)
	for _, frame := range b.frames {
		copy(frame, []byte{addressAllStations, controlUI, 0x00, 0xfd})
	}
	return b.frames
}

var dataModes = []struct {
	name   string
	policy mppe.Policy
}{
	{"stateless", require128},
	{"stateful", mppe.Policy{Encryption: mppe.Require, Stateful: true}},
	{"MPPC", mppe.Policy{Compression: mppe.Prefer}},
	{"MPPC+MPPE", mppe.Policy{Encryption: mppe.Require, Compression: mppe.Prefer}},
}

// TestEncryptedDataPathAllocatesNothing in steady state.
func TestEncryptedDataPathAllocatesNothing(t *testing.T) {
	for _, mode := range dataModes {
		for _, n := range []int{1, 32} {
			s, encoder := encryptedForData(t, mode.policy)
			batch := newSealedBatch(encoder, n, 1396)
			before := s.session.Stats()
			if allocs := testing.AllocsPerRun(100, func() { s.session.Receive(s.now, batch.next()) }); allocs != 0 {
				t.Errorf("%s: inbound batch of %d: %v allocations", mode.name, n, allocs)
			}
			if st := s.session.Stats(); st.Garbled+st.Late+st.Lost+st.NotOpen != 0 || st.FramesIn-before.FramesIn != uint64(101*n) {
				t.Errorf("%s: %+v", mode.name, st)
			}
			out := newOutBatch(s.session, n)
			if allocs := testing.AllocsPerRun(100, func() { s.session.WritePackets(out.next(), s.session.Headroom()) }); allocs != 0 {
				t.Errorf("%s: outbound batch of %d: %v allocations", mode.name, n, allocs)
			}
			if st := s.session.Stats(); st.FramesOut-before.FramesOut < uint64(101*n) {
				t.Errorf("%s: %+v", mode.name, st)
			}
		}
	}
}

// An outBatch is the same packets again and again, in the same buffers, which are encrypted in place.
type outBatch struct {
	packets [][]byte
	plain   []byte
}

func newOutBatch(s *Session, n int) *outBatch {
	b := &outBatch{plain: roomy(s, numbered(1, 1396))}
	for range n {
		b.packets = append(b.packets, slices.Clone(b.plain))
	}
	return b
}

func (b *outBatch) next() [][]byte {
	for _, packet := range b.packets {
		copy(packet, b.plain)
	}
	return b.packets
}

func BenchmarkEncryptedInbound(b *testing.B) {
	for _, mode := range dataModes[:2] {
		b.Run(mode.name, func(b *testing.B) {
			s, encoder := encryptedForData(b, mode.policy)
			batch := newSealedBatch(encoder, 32, 1396)
			b.SetBytes(32 * 1396)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				frames := batch.next()
				b.StartTimer()
				s.session.Receive(s.now, frames)
			}
		})
	}
}

func BenchmarkEncryptedOutbound(b *testing.B) {
	for _, mode := range dataModes {
		b.Run(mode.name, func(b *testing.B) {
			s, _ := encryptedForData(b, mode.policy)
			batch := newOutBatch(s.session, 32)
			b.SetBytes(32 * 1396)
			b.ReportAllocs()
			for b.Loop() {
				s.session.WritePackets(batch.next(), s.session.Headroom())
			}
		})
	}
}

// FuzzEncryptedSession gives a Session that requires encryption any frames, at any time, before and after it is agreed
// upon. Never may a packet leave or be taken in clear. The script is as for FuzzSession; length 1 writes a packet.
func FuzzEncryptedSession(f *testing.F) {
	add := func(phase uint8, frames ...[]byte) {
		var b []byte
		for _, frame := range frames {
			b = append(append(b, byte(len(frame))), frame...)
		}
		f.Add(phase, b)
	}
	control := func(protocol uint16, code, id uint8, data ...byte) []byte {
		return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{code, id, data}))
	}
	mppe128 := []byte{18, 6, 1, 0, 0, 0x40}
	write := []byte{0}
	for phase := range uint8(8) {
		add(phase, control(protocolCCP, codeConfigureRequest, 9, mppe128...), control(protocolCCP, codeConfigureAck, 1, mppe128...), write, nil, write)
		add(phase, control(protocolCCP, codeConfigureReject, 1, mppe128...), write)
		add(phase, control(protocolCCP, codeConfigureNak, 1, 18, 6, 0, 0, 0, 0xe1), write, control(protocolCCP, codeTerminateRequest, 1), write)
		add(phase, control(protocolIPCP, codeConfigureRequest, 1, 3, 6, 10, 9, 0, 1), control(protocolIPCP, codeConfigureNak, 1, 3, 6, 10, 9, 0, 2), control(protocolIPCP, codeConfigureAck, 2, 3, 6, 10, 9, 0, 2), write,
			appendFrame(nil, protocolIPv4, numbered(1, 40)), []byte{0x21, 0x45, 0})
		add(phase, control(protocolLCP, codeProtocolReject, 1, 0x80, 0xfd), write, control(protocolCCP, codeResetRequest, 1), write)
		add(phase, control(protocolLCP, codeConfigureRequest, 1), write, nil, nil, write, appendFrame(nil, protocolCompressed, append([]byte{0x90, 0}, numbered(1, 40)...)))
	}
	f.Fuzz(func(t *testing.T, phase uint8, script []byte) {
		policy := mppe.Policy{Encryption: mppe.Require, MinKeyBits: 40, Stateful: phase&2 != 0, Compression: mppe.Will(phase & 4 / 2)}
		var s *scripted
		if phase&1 == 0 {
			s = loggedIn(t, policy)
		} else {
			l := newEncryptedPair(t, policy, policy)
			l.mustConnect()
			s = &scripted{linkEnd: l.peer, t: t, now: l.now}
			s.next = s.session.Receive(s.now, nil)
		}
		s.packets = nil
		for len(script) > 0 && len(s.downs) == 0 {
			n := min(int(script[0]), len(script)-1)
			frame := script[1 : 1+n]
			script = script[1+n:]
			s.take()
			arrived := len(s.packets)
			protocol, _, _ := parseFrame(frame)
			switch {
			case n == 1:
				s.write(t, numbered(1, 40))
			case n == 0 && !s.next.IsZero():
				s.now = s.next
				s.next = s.session.Advance(s.now)
			default:
				s.giveFrame(bytes.Clone(frame))
			}
			if len(s.packets) > arrived && protocol != protocolCompressed {
				t.Fatal("a packet was taken in clear")
			}
			for _, frame := range s.sent {
				if p, _, err := parseFrame(frame); err != nil || p == protocolIPv4 || p == protocolIPv6 {
					t.Fatalf("sent in clear: % x", frame)
				}
			}
			if len(s.sent) > 12 {
				t.Fatalf("%d frames in answer to one", len(s.sent))
			}
			if len(s.downs) == 0 && s.next.IsZero() {
				t.Fatal("alive without a deadline")
			}
			if len(s.ups) > 0 && len(s.downs) == 0 && s.params(t).Encryption == "" {
				t.Fatalf("up without encryption: %+v", s.params(t))
			}
		}
		s.next = s.session.Close(s.now)
		s.pass(s.session.config.Timers.Restart * 4)
		s.err(t)
	})
}
