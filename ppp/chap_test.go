package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

// RFC 1994 section 4.1: MD5 over identifier, secret, challenge. Vector computed independently.
func TestCHAPMD5Golden(t *testing.T) {
	challenge := unhex(t, "000102030405060708090a0b0c0d0e0f")
	c := Config{Username: "alice", Password: "secret"}.withDefaults()
	end := &authEnd{}
	p := newAuthPeer(authProtoCHAPMD5, &c, end)
	p.start(authEpoch)
	p.receive(authEpoch, appendAuthPacket(nil, chapChallenge, 0x11, appendCHAPValue(nil, challenge, "server")))
	const want = "02 11 001a 10 cd1b856dfb6d46be6eb05a300602d339 616c696365"
	if got := end.takeOne(t); !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("response %x, want %s", got, want)
	}
}

func TestCHAPChallengeMalformed(t *testing.T) {
	for _, tc := range []struct {
		data      string
		algorithm chapAlgorithm
		want      error // nil: any
	}{
		{"", chapMD5{}, errAuthField},
		{"00", chapMD5{}, errCHAPNoValue},
		{"0061", chapMD5{}, errCHAPNoValue},
		{"02aa", chapMD5{}, errAuthField},
		{"ff" + strings.Repeat("00", 254), chapMD5{}, errAuthField},
		{"07" + strings.Repeat("00", 7), mschap{}, nil},
		{"10" + strings.Repeat("00", 16), mschap{}, nil},
		{"08" + strings.Repeat("00", 8), mschapv2{}, nil},
		{"0f" + strings.Repeat("00", 15), mschapv2{}, nil},
		{"11" + strings.Repeat("00", 17), mschapv2{}, nil},
	} {
		challenge, err := parseCHAPChallenge(unhex(t, tc.data), tc.algorithm)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%v %s: %x, %v", tc.algorithm.method(), tc.data, challenge, err)
		}
	}
}

// A Value of any wrong length or content must be refused, not crash.
func TestWrongValuesAreRefused(t *testing.T) {
	for _, a := range []chapAlgorithm{chapMD5{}, mschap{}, mschapv2{random: testRandom(5)}} {
		challenge := make([]byte, max(a.challengeSize(), 8))
		right, err := a.prove(9, challenge, "alice", "open sesame")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := a.verify(9, challenge, right.value, "alice", "open sesame"); ok != 1 {
			t.Errorf("%v: the right value is refused", a.method())
		}
		for n := range 256 {
			value := make([]byte, n)
			copy(value, right.value)
			if _, ok := a.verify(9, challenge, value, "alice", "open sesame"); ok != 0 && n != len(right.value) {
				t.Errorf("%v: value of %d octets accepted", a.method(), n)
			}
		}
		// RFC 2433 section 5 and RFC 2759 section 4: LM response and reserved octets prove nothing either way.
		ignored := func(i int) bool {
			return a.method() == AuthMSCHAP && i < 24 || a.method() == AuthMSCHAPv2 && (i >= 16 && i < 24 || i == 48)
		}
		for bit := range 8 * len(right.value) {
			value := bytes.Clone(right.value)
			value[bit/8] ^= 1 << (bit % 8)
			if _, ok := a.verify(9, challenge, value, "alice", "open sesame"); ok == 1 && !ignored(bit/8) {
				t.Errorf("%v: accepted with bit %d flipped", a.method(), bit)
			}
		}
	}
}

// RFC 1994 section 4.1: a peer may be challenged at any time and must answer.
func TestRechallengeIsAnswered(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			first := w.log[0]
			for range 300 { // more than there are identifiers
				w.now = w.now.Add(time.Hour)
				w.server.next = w.server.conversation.start(w.now)
				w.settle(t)
			}
			w.loggedIn(t, m)
			if len(w.peer.results) != 301 || len(w.server.results) != 301 {
				t.Errorf("%d and %d successes, want 301", len(w.peer.results), len(w.server.results))
			}
			if bytes.Equal(first, w.log[len(w.log)/301]) {
				t.Errorf("challenged twice with %x", first)
			}
		})
	}
}

// A password changed meanwhile ends the session at the next challenge, with the server's reason.
func TestRechallengeCanFail(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			server.Secrets = func(string) (string, bool) { return "changed", true }
			w.server.next = w.server.conversation.start(w.now)
			w.settle(t)
			var refused *AuthError
			if !errors.As(w.peer.err(t), &refused) || localReason(w.server.err(t)) != AuthLoginRefused {
				t.Errorf("peer %v, authenticator %v", w.peer.err(t), w.server.err(t))
			}
		})
	}
}

// A later challenge that gets no verdict does not end what works.
func TestRechallengeWithoutVerdictIsLetBe(t *testing.T) {
	peer, server := alice(), doorman()
	w := newAuthWire(AuthMSCHAPv2, &peer, &server, noFault)
	w.run(t)
	w.server.conversation.start(w.now)
	next := w.peer.conversation.receive(w.now, w.server.takeOne(t))
	for !next.IsZero() {
		next = w.peer.conversation.advance(next)
	}
	if n := len(w.peer.take()); n != 10 || w.peer.err(t) != nil {
		t.Errorf("sent %d times, then %v", n, w.peer.err(t))
	}
}

// RFC 1994 section 4.2: the answer to a repeated Challenge is the same, also where the peer adds a random number of its own.
func TestRepeatedChallengeGetsTheSameResponse(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		peer, server := alice(), doorman()
		w := newAuthWire(m, &peer, &server, nil)
		w.server.conversation.start(w.now)
		challenge := w.server.takeOne(t)
		w.peer.conversation.receive(w.now, bytes.Clone(challenge))
		first := w.peer.takeOne(t)
		w.peer.conversation.receive(w.now, append(bytes.Clone(challenge), 0, 0)) // padded
		if again := w.peer.takeOne(t); !bytes.Equal(first, again) {
			t.Errorf("%v: %x, then %x", m, first, again)
		}
		challenge[authHeaderLen+1] ^= 1 // another challenge under the same identifier
		w.peer.conversation.receive(w.now, challenge)
		if other := w.peer.takeOne(t); bytes.Equal(first, other) {
			t.Errorf("%v: the same response to another challenge", m)
		}
	}
}

// RFC 1994 section 4.2: the identifier of the verdict is that of the Response; RFC 2759: nothing but our answer's Success counts.
func TestVerdictsOnNothingAreDropped(t *testing.T) {
	for _, proto := range []authProtocol{authProtoCHAPMD5, authProtoMSCHAP, authProtoMSCHAPv2} {
		c := alice()
		end := &authEnd{}
		p := newAuthPeer(proto, &c, end)
		p.start(authEpoch)
		for id := range 256 {
			p.receive(authEpoch, appendAuthPacket(nil, chapSuccess, byte(id), nil))
			p.receive(authEpoch, appendAuthPacket(nil, chapFailure, byte(id), nil))
		}
		challenge := make([]byte, max(8, (&authBase{c: &c}).algorithm(proto).challengeSize()))
		p.receive(authEpoch, appendAuthPacket(nil, chapChallenge, 5, appendCHAPValue(nil, challenge, "")))
		for id := range 256 {
			if id != 5 {
				p.receive(authEpoch, appendAuthPacket(nil, chapSuccess, byte(id), nil))
				p.receive(authEpoch, appendAuthPacket(nil, chapFailure, byte(id), nil))
			}
		}
		if len(end.results) > 0 || end.err(t) != nil {
			t.Errorf("%v: results %v, errors %v", proto, end.results, end.errs)
		}
	}
}

func TestTooLongNameEndsTheLoginBeforeItBegins(t *testing.T) {
	for _, proto := range []authProtocol{authProtoCHAPMD5, authProtoMSCHAP, authProtoMSCHAPv2, authProtoEAP} {
		c := Config{Username: strings.Repeat("u", maxUsername+1)}.withDefaults()
		end := &authEnd{}
		p := newAuthPeer(proto, &c, end)
		p.start(authEpoch)
		p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 1, eapIdentity, nil}))
		if localReason(end.err(t)) != AuthBadLogin || len(end.sent) > 0 {
			t.Errorf("%v: %v, sent %x", proto, end.err(t), end.sent)
		}
	}
}

// The authenticator's packets as they go over the line: RFC 1994 section 4.1 with RFC 2759 sections 3, 5 and 6.
func TestMSCHAPv2AuthenticatorGolden(t *testing.T) {
	for password, want := range map[string]string{
		"clientPass": "030a0042" + hex.EncodeToString([]byte("S=407A5589115FD0D6209F510FE9C04566932CDA56 M=Access granted")),
		"other":      "040a004b" + hex.EncodeToString([]byte("E=691 R=0 C=41424344454647484142434445464748 V=3 M=Access denied")),
	} {
		c := doorman()
		c.Random = bytes.NewReader(append(append([]byte{9}, unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628")...), "ABCDEFGHABCDEFGH"...))
		c.Secrets = func(user string) (string, bool) { return password, user == "User" }
		end := &authEnd{}
		a := newAuthenticator(AuthMSCHAPv2, &c, end)
		a.start(authEpoch)
		const challenge = "01 0a 0019 10 5B5D7C7D7B3F2F3E3C2C602132262628 646f6f72"
		if got := end.takeOne(t); !bytes.Equal(got, unhex(t, challenge)) {
			t.Errorf("challenge %x, want %s", got, challenge)
		}
		a.receive(authEpoch, unhex(t, "02 0a 003a 31 21402324255E262A28295F2B3A337C7E 0000000000000000 82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF 00 55736572"))
		got := end.takeOne(t)
		if want := unhex(t, want); !bytes.Equal(got[4:], want[4:]) || int(got[3]) != len(got) {
			t.Errorf("verdict %q, want %q", got, want)
		}
	}
}

func FuzzCHAPValue(f *testing.F) {
	f.Add([]byte("\x03abcname"))
	f.Fuzz(func(t *testing.T, data []byte) {
		value, name, err := parseCHAPValue(data)
		if err != nil {
			return
		}
		if got := appendCHAPValue(nil, value, string(name)); !bytes.Equal(got, data) {
			t.Errorf("%x written back as %x", data, got)
		}
	})
}

// RFC 1994 section 4.2: one verdict for one Response; what comes again, or otherwise, is nothing.
func TestVerdictCountsOnce(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		peer, server := alice(), doorman()
		w := newAuthWire(m, &peer, &server, noFault)
		w.run(t)
		success := w.log[len(w.log)-1]
		w.peer.conversation.receive(w.now, bytes.Clone(success))
		w.peer.conversation.receive(w.now, appendAuthPacket(nil, chapFailure, success[1], []byte("E=691")))
		w.peer.conversation.receive(w.now, appendAuthPacket(nil, chapSuccess, success[1], []byte("S=none")))
		if len(w.peer.results) != 1 || w.peer.err(t) != nil {
			t.Errorf("%v: %d successes, %v", m, len(w.peer.results), w.peer.err(t))
		}
	}
}

// RFC 1994 section 4.2: "the authenticator MUST allow repeated Response packets" and answer with the same code.
func TestAuthenticatorRepeatsItsVerdict(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		peer, server := alice(), doorman()
		w := newAuthWire(m, &peer, &server, noFault)
		w.run(t)
		response, success := w.log[len(w.log)-2], w.log[len(w.log)-1]
		for _, octet := range []int{0, 10, len(response) - 1} { // as it was; another value; another name
			again := bytes.Clone(response)
			if octet > 0 {
				again[octet] ^= 1
			}
			w.server.conversation.receive(w.now, again)
			if got := w.server.takeOne(t); !bytes.Equal(got, success) {
				t.Errorf("%v: %q, then %q", m, success, got)
			}
		}
		if len(w.server.results) != 1 || w.server.err(t) != nil {
			t.Errorf("%v: %d successes, %v", m, len(w.server.results), w.server.err(t))
		}
	}
}

// RFC 1994 section 4.1: a Response belongs to the Challenge whose identifier it repeats.
func TestResponseToAnotherChallengeIsDropped(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		server := doorman()
		end := &authEnd{}
		a := newAuthenticator(m, &server, end)
		a.receive(authEpoch, appendAuthPacket(nil, chapResponse, 0, appendCHAPValue(nil, make([]byte, 49), "alice"))) // not started
		a.start(authEpoch)
		current := end.takeOne(t)[1]
		for id := range 256 {
			if byte(id) != current {
				a.receive(authEpoch, appendAuthPacket(nil, chapResponse, byte(id), appendCHAPValue(nil, make([]byte, 49), "alice")))
			}
		}
		if sent := end.take(); len(sent) > 0 || end.err(t) != nil {
			t.Errorf("%v: sent %x, %v", m, sent, end.err(t))
		}
	}
}
