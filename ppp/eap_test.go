package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// eapRequestMSCHAPv2 builds a Request of EAP-MSCHAPv2 with MS-CHAPv2-ID 5.
func eapRequestMSCHAPv2(id, code byte, data []byte) []byte {
	return appendEAP(nil, eapPacket{eapRequest, id, eapMSCHAPv2, appendAuthPacket(nil, code, 5, data)})
}

func TestEAPMalformed(t *testing.T) {
	for packet, want := range map[string]error{
		"":             errAuthShort,
		"010000":       errAuthShort,
		"01000004":     errAuthShort, // RFC 3748 section 4.1: a Type must be there
		"02000004":     errAuthShort,
		"01000003":     errAuthLength,
		"0100000601":   errAuthLength,
		"03000003":     errAuthLength,
		"03000004":     nil,
		"0300000501":   nil,
		"0100000501":   nil,
		"010000050199": nil,
	} {
		if p, err := parseEAP(unhex(t, packet)); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v, want %v", packet, p, err, want)
		}
	}
}

// RFC 2759 section 9.2 inside draft-kamath: each packet as it goes over the line.
func TestEAPMSCHAPv2PeerGolden(t *testing.T) {
	c := Config{Username: "User", Password: "clientPass", Random: bytes.NewReader(unhex(t, "21402324255E262A28295F2B3A337C7E"))}.withDefaults()
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	p.start(authEpoch)
	for _, step := range []struct{ in, out string }{
		{"01 01 0005 01", "02 01 0009 01 55736572"},
		{"01 02 0009 02 48656c6f", "02 02 0005 02"},                               // Notification
		{"01 03 0016 04 10 00000000000000000000000000000000", "02 03 0006 03 1a"}, // MD5: not allowed
		{
			"01 04 001d 1a 01 07 0018 10 5B5D7C7D7B3F2F3E3C2C602132262628 4e4153",
			"02 04 003f 1a 02 07 003a 31 21402324255E262A28295F2B3A337C7E 0000000000000000 82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF 00 55736572",
		},
		{
			"01 05 0038 1a 03 07 0033" + hex.EncodeToString([]byte("S=407A5589115FD0D6209F510FE9C04566932CDA56 M=OK")),
			"02 05 0006 1a 03",
		},
	} {
		p.receive(authEpoch, unhex(t, step.in))
		if got := end.takeOne(t); !bytes.Equal(got, unhex(t, step.out)) {
			t.Errorf("%s: answered %x, want %s", step.in, got, step.out)
		}
		if len(end.results) > 0 {
			t.Fatalf("success after %s", step.in)
		}
	}
	p.receive(authEpoch, unhex(t, "03 06 0004")) // counted up, as some do
	want := []authResult{{AuthEAPMSCHAPv2, "User", "OK", &mppeKeys{method: AuthMSCHAPv2, client: true, master: [16]byte(unhex(t, "FDECE3717A8C838CB388E527AE3CDD31"))}}}
	if diff := cmp.Diff(want, end.results, cmp.AllowUnexported(authResult{}, mppeKeys{})); diff != "" {
		t.Error(diff)
	}
}

// RFC 3748 section 5.4: as CHAP, over the identifier of EAP.
func TestEAPMD5PeerGolden(t *testing.T) {
	c := Config{Username: "alice", Password: "secret", Auth: []AuthMethod{AuthEAPMD5}}.withDefaults()
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	p.receive(authEpoch, unhex(t, "01 11 001c 04 10 000102030405060708090a0b0c0d0e0f 736572766572"))
	const want = "02 11 001b 04 10 cd1b856dfb6d46be6eb05a300602d339 616c696365"
	if got := end.takeOne(t); !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("response %x, want %s", got, want)
	}
}

// RFC 3748 section 4.1: a repeated Request gets the Response it got before; another under the same identifier is answered anew.
func TestRepeatedRequestGetsTheSameResponse(t *testing.T) {
	c := alice()
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	request := eapRequestMSCHAPv2(4, chapChallenge, appendCHAPValue(nil, make([]byte, 16), "s"))
	p.receive(authEpoch, request)
	first := end.takeOne(t)
	p.receive(authEpoch, append(request, 0, 0)) // padded
	if again := end.takeOne(t); !bytes.Equal(first, again) {
		t.Errorf("%x, then %x", first, again)
	}
	p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 4, eapIdentity, nil}))
	if other := end.takeOne(t); other[4] != eapIdentity {
		t.Errorf("answered %x", other)
	}
	request[1] = 9 // the same challenge under another identifier of EAP: the same proof
	p.receive(authEpoch, request)
	other := end.takeOne(t)
	if other[1] != 9 || !bytes.Equal(other[2:], first[2:]) {
		t.Errorf("%x, then %x", first, other)
	}
}

// RFC 3748 section 5.3.1: Nak names what we allow, best first.
func TestNakNamesWhatIsAllowed(t *testing.T) {
	for _, tc := range []struct {
		allowed []AuthMethod
		asked   byte
		want    []byte // nil: no Nak
	}{
		{DefaultAuth(), eapMD5, []byte{26}},
		{DefaultAuth(), 13, []byte{26}},
		{DefaultAuth(), 254, []byte{26}},
		{DefaultAuth(), 0, []byte{26}},
		{[]AuthMethod{AuthEAPMD5, AuthPAP, AuthEAPMSCHAPv2}, 25, []byte{4, 26}},
		{[]AuthMethod{AuthMSCHAPv2, AuthEAPMSCHAPv2, AuthEAPMD5}, 25, []byte{26, 4}},
		{DefaultAuth(), eapNak, nil},
	} {
		c := alice()
		c.Auth = tc.allowed
		end := &authEnd{}
		p := newAuthPeer(authProtoEAP, &c, end)
		p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 7, tc.asked, []byte("x")}))
		if tc.want == nil {
			if sent := end.take(); len(sent) > 0 {
				t.Errorf("type %d: answered %x", tc.asked, sent)
			}
			continue
		}
		want := appendEAP(nil, eapPacket{eapResponse, 7, eapNak, tc.want})
		if got := end.takeOne(t); !bytes.Equal(got, want) {
			t.Errorf("type %d: %x, want %x", tc.asked, got, want)
		}
	}
}

// RFC 3748 section 2.1: one method in one conversation; a new one may begin after a new Identity.
func TestMethodDoesNotChangeUnderWay(t *testing.T) {
	c := alice()
	c.Auth = authMethods
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	md5Request := func(id byte) []byte {
		return appendEAP(nil, eapPacket{eapRequest, id, eapMD5, appendCHAPValue(nil, []byte("challenge"), "")})
	}
	p.receive(authEpoch, eapRequestMSCHAPv2(1, chapChallenge, appendCHAPValue(nil, make([]byte, 16), "")))
	end.takeOne(t)
	p.receive(authEpoch, md5Request(2))
	p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 3, 13, nil}))
	p.receive(authEpoch, appendEAP(nil, eapPacket{code: eapSuccess, id: 3}))
	if len(end.take()) > 0 || len(end.results) > 0 {
		t.Errorf("changed the method: %+v", end.results)
	}
	p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 4, eapIdentity, nil}))
	end.takeOne(t)
	p.receive(authEpoch, md5Request(5))
	if got := end.takeOne(t); got[4] != eapMD5 {
		t.Errorf("answered %x", got)
	}
	p.receive(authEpoch, appendEAP(nil, eapPacket{code: eapSuccess, id: 5}))
	if len(end.results) != 1 || end.results[0].method != AuthEAPMD5 || end.results[0].mppe != nil {
		t.Errorf("results %+v", end.results)
	}
}

// RFC 3748 section 4.2: a Success before the method is through is dropped.
func TestEarlySuccessIsDropped(t *testing.T) {
	c := alice()
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	try := func() {
		t.Helper()
		for id := range 8 {
			p.receive(authEpoch, appendEAP(nil, eapPacket{code: eapSuccess, id: byte(id)}))
			p.networkBegun(authEpoch)
		}
		end.take()
		if len(end.results) > 0 {
			t.Fatal("believed an early Success")
		}
	}
	try()
	p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, 1, eapIdentity, nil}))
	try()
	p.receive(authEpoch, eapRequestMSCHAPv2(2, chapSuccess, []byte("S=0000000000000000000000000000000000000000")))
	try() // a verdict on nothing
	p.receive(authEpoch, eapRequestMSCHAPv2(3, chapChallenge, appendCHAPValue(nil, make([]byte, 16), "")))
	try()
	if err := end.err(t); err != nil {
		t.Error(err)
	}
}

// What is not a packet of EAP-MSCHAPv2 is dropped.
func TestEAPMSCHAPv2Malformed(t *testing.T) {
	c := alice()
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	for id, data := range []string{
		"", "01", "0105", "010500", "01050004", "0105000500", "010500150f" + "000000000000000000000000000000",
		"010500151000", "0205", "07050004", "ff050004", "03", "04",
	} {
		p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, byte(id), eapMSCHAPv2, unhex(t, data)}))
		if len(end.take()) > 0 || end.err(t) != nil {
			t.Errorf("%s: answered, or ended with %v", data, end.err(t))
		}
	}
	// MS-Length 0 is seen in the wild and not believed.
	request := eapRequestMSCHAPv2(40, chapChallenge, appendCHAPValue(nil, make([]byte, 16), ""))
	request[7], request[8] = 0, 0
	p.receive(authEpoch, request)
	end.takeOne(t)
}

func TestEAPFailureIsExplained(t *testing.T) {
	failure := appendEAP(nil, eapPacket{code: eapFailure, id: 1})
	identity := appendEAP(nil, eapPacket{eapRequest, 1, eapIdentity, nil})
	notice := appendEAP(nil, eapPacket{eapRequest, 2, eapNotification, []byte("Closed\non Sundays")})
	for name, tc := range map[string]struct {
		packets [][]byte
		want    error
	}{
		"at once":        {nil, &AuthError{}},
		"identity":       {[][]byte{identity}, &AuthError{}},
		"notification":   {[][]byte{identity, notice}, &AuthError{Message: "Closed on Sundays"}},
		"MD5":            {[][]byte{appendEAP(nil, eapPacket{eapRequest, 3, eapMD5, nil})}, &AuthLocalError{Method: AuthEAPMD5, Reason: AuthNotAllowed, Detail: "EAP-MD5"}},
		"PEAP":           {[][]byte{appendEAP(nil, eapPacket{eapRequest, 3, 25, nil})}, &AuthLocalError{Reason: AuthNotAllowed, Detail: "EAP-PEAP"}},
		"unknown type":   {[][]byte{appendEAP(nil, eapPacket{eapRequest, 3, 99, nil})}, &AuthLocalError{Reason: AuthNotAllowed, Detail: "EAP type 99"}},
		"after response": {[][]byte{eapRequestMSCHAPv2(3, chapChallenge, appendCHAPValue(nil, make([]byte, 16), ""))}, &AuthError{Method: AuthEAPMSCHAPv2}},
	} {
		c := alice()
		end := &authEnd{}
		p := newAuthPeer(authProtoEAP, &c, end)
		for _, packet := range tc.packets {
			p.receive(authEpoch, packet)
		}
		p.receive(authEpoch, failure)
		if diff := cmp.Diff(tc.want, end.err(t)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Once in, a stray Failure is nothing: the server ends the link by LCP if it means it.
func TestLateFailureIsDropped(t *testing.T) {
	peer, server := alice(), doorman()
	w := newAuthWire(AuthEAPMSCHAPv2, &peer, &server, noFault)
	w.run(t)
	w.peer.conversation.receive(w.now, appendEAP(nil, eapPacket{code: eapFailure, id: 1}))
	w.peer.conversation.receive(w.now, eapRequestMSCHAPv2(1, chapFailure, []byte("E=691 R=0")))
	w.loggedIn(t, AuthEAPMSCHAPv2)
}

// Everything the server said comes once more after the login: it stays one login.
func TestReplayAfterTheLoginChangesNothing(t *testing.T) {
	for _, m := range []AuthMethod{AuthEAPMD5, AuthEAPMSCHAPv2} {
		peer, server := alice(), doorman()
		peer.Auth = []AuthMethod{m}
		w := newAuthWire(m, &peer, &server, noFault)
		w.run(t)
		for _, packet := range w.log {
			w.peer.conversation.receive(w.now, bytes.Clone(packet))
			w.peer.conversation.networkBegun(w.now)
			w.server.conversation.receive(w.now, bytes.Clone(packet))
		}
		w.loggedIn(t, m)
		if len(w.peer.results) != 1 || len(w.server.results) != 1 {
			t.Errorf("%v: %d and %d successes", m, len(w.peer.results), len(w.server.results))
		}
	}
}

// RFC 3748 section 5.3.1: the authenticator proposes what the peer wants, if it allows it, and each method once.
func TestAuthenticatorFollowsNak(t *testing.T) {
	peer, server := alice(), doorman()
	peer.Auth = []AuthMethod{AuthEAPMD5}
	w := newAuthWire(AuthEAPMSCHAPv2, &peer, &server, noFault)
	w.run(t)
	w.loggedIn(t, AuthEAPMD5)

	server = doorman()
	server.Auth = []AuthMethod{AuthEAPMSCHAPv2}
	w = newAuthWire(AuthEAPMSCHAPv2, &peer, &server, noFault)
	w.run(t)
	if localReason(w.peer.err(t)) != AuthNotAllowed || localReason(w.server.err(t)) != AuthLoginRefused {
		t.Errorf("peer %v, authenticator %v", w.peer.err(t), w.server.err(t))
	}

	// A peer that only ever Naks gets each method once.
	server = doorman()
	end := &authEnd{}
	a := newAuthenticator(AuthEAPMSCHAPv2, &server, end)
	a.start(authEpoch)
	a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, end.sent[0][1], eapIdentity, []byte("alice")}))
	for range 9 {
		last := end.sent[len(end.sent)-1]
		a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, last[1], eapNak, []byte{0, 13, 26, 4, 26}}))
	}
	var kinds []byte
	for _, p := range end.sent {
		kinds = append(kinds, append(p, 0)[4])
	}
	if want := []byte{eapIdentity, eapMSCHAPv2, eapMD5, 0}; !slices.Equal(kinds, want) || localReason(end.err(t)) != AuthLoginRefused {
		t.Errorf("requests of types %v, then %v", kinds, end.err(t))
	}
}

// Answers of another type, of another identifier or of no use leave the authenticator where it is.
func TestAuthenticatorDropsForeignResponses(t *testing.T) {
	server := doorman()
	end := &authEnd{}
	a := newAuthenticator(AuthEAPMSCHAPv2, &server, end)
	a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, 0, eapIdentity, nil})) // not started
	a.start(authEpoch)
	id := end.takeOne(t)[1]
	drop := func(packets ...[]byte) {
		t.Helper()
		for _, p := range packets {
			a.receive(authEpoch, p)
			if len(end.sent) > 0 || len(end.results) > 0 || end.err(t) != nil {
				t.Fatalf("%x: sent %x, results %v, %v", p, end.sent, end.results, end.errs)
			}
		}
	}
	drop(
		appendEAP(nil, eapPacket{eapResponse, id + 1, eapIdentity, nil}),
		appendEAP(nil, eapPacket{eapRequest, id, eapIdentity, nil}),
		appendEAP(nil, eapPacket{eapResponse, id, eapNak, []byte{4}}),
		appendEAP(nil, eapPacket{code: eapSuccess, id: id}),
	)
	a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, id, eapIdentity, []byte("alice")}))
	id = end.takeOne(t)[1]
	drop(
		appendEAP(nil, eapPacket{eapResponse, id, eapIdentity, []byte("bob")}),
		appendEAP(nil, eapPacket{eapResponse, id, eapMD5, make([]byte, 17)}),
		appendEAP(nil, eapPacket{eapResponse, id, eapMSCHAPv2, nil}),
		appendEAP(nil, eapPacket{eapResponse, id, eapMSCHAPv2, []byte{chapSuccess}}),
		appendEAP(nil, eapPacket{eapResponse, id, eapMSCHAPv2, []byte{chapResponse, 0}}),
		appendEAP(nil, eapPacket{eapResponse, id, eapMSCHAPv2, []byte{chapResponse, 0, 0, 4}}),
	)
}

// A method's response without a name is that of the identity.
func TestNamelessResponseBelongsToTheIdentity(t *testing.T) {
	server := doorman()
	end := &authEnd{}
	a := newAuthenticator(AuthEAPMD5, &server, end)
	a.start(authEpoch)
	a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, end.takeOne(t)[1], eapIdentity, []byte("alice")}))
	request, err := parseEAP(end.takeOne(t))
	if err != nil {
		t.Fatal(err)
	}
	challenge, _, _ := parseCHAPValue(request.data)
	proof, _ := chapMD5{}.prove(request.id, challenge, "", "open sesame")
	a.receive(authEpoch, appendEAP(nil, eapPacket{eapResponse, request.id, eapMD5, appendCHAPValue(nil, proof.value, "")}))
	if len(end.results) != 1 || end.results[0].username != "alice" {
		t.Errorf("%+v, %v", end.results, end.err(t))
	}
}

// A peer that does not believe our Success is refused; one that does not confirm our Failure is refused all the same.
func TestUnconfirmedVerdicts(t *testing.T) {
	peer, server := alice(), doorman()
	w := newAuthWire(AuthEAPMSCHAPv2, &peer, &server, noFault)
	a := w.server.conversation.(*eapAuthenticator)
	a.start(w.now)
	for a.phase != eapGranted {
		w.peer.conversation.receive(w.now, w.server.takeOne(t))
		a.receive(w.now, w.peer.takeOne(t))
	}
	a.receive(w.now, appendEAP(nil, eapPacket{eapResponse, a.id, eapMSCHAPv2, []byte{chapFailure}}))
	if localReason(w.server.err(t)) != AuthLoginRefused || len(w.server.results) > 0 {
		t.Errorf("%v, %d successes", w.server.err(t), len(w.server.results))
	}

	peer.Password = "wrong"
	w = newAuthWire(AuthEAPMSCHAPv2, &peer, &server, noFault)
	a = w.server.conversation.(*eapAuthenticator)
	next := a.start(w.now)
	for a.phase != eapDenied {
		w.peer.conversation.receive(w.now, w.server.takeOne(t))
		next = a.receive(w.now, w.peer.takeOne(t))
	}
	for !next.IsZero() {
		next = a.advance(next)
	}
	sent := w.server.take()
	if last := sent[len(sent)-1]; localReason(w.server.err(t)) != AuthLoginRefused || last[0] != eapFailure || len(sent) != 11 {
		t.Errorf("%v after %d packets, the last %x", w.server.err(t), len(sent), last)
	}
}

func FuzzEAP(f *testing.F) {
	f.Add([]byte{1, 1, 0, 6, 1, 65})
	f.Add([]byte{3, 1, 0, 4})
	f.Fuzz(func(t *testing.T, packet []byte) {
		p, err := parseEAP(packet)
		if err != nil {
			return
		}
		again, err := parseEAP(appendEAP(nil, p))
		if err != nil {
			t.Fatalf("%x: %v", packet, err)
		}
		if diff := cmp.Diff(p, again, cmp.AllowUnexported(eapPacket{})); diff != "" && len(p.data)+len(again.data) > 0 {
			t.Errorf("%x: %s", packet, diff)
		}
		if code, id, body, err := parseEAPMSCHAPv2(p.data); err == nil && len(p.data) > 1 {
			if got := appendAuthPacket(nil, code, id, body); !bytes.Equal(got[4:], p.data[4:]) || got[0] != p.data[0] || got[1] != p.data[1] {
				t.Errorf("%x written back as %x", p.data, got)
			}
		}
	})
}

// RFC 3748 section 5.4 with RFC 1994 section 4.1: the identifier is part of what is hashed.
func TestMD5ChallengeUnderAnotherIdentifierIsAnsweredAnew(t *testing.T) {
	c := alice()
	c.Auth = []AuthMethod{AuthEAPMD5}
	end := &authEnd{}
	p := newAuthPeer(authProtoEAP, &c, end)
	for id := range byte(3) {
		challenge := []byte("challenge")
		p.receive(authEpoch, appendEAP(nil, eapPacket{eapRequest, id, eapMD5, appendCHAPValue(nil, challenge, "")}))
		want, _ := chapMD5{}.prove(id, challenge, "", c.Password)
		if got := end.takeOne(t); !bytes.Equal(got[6:22], want.value) {
			t.Errorf("identifier %d: %x, want %x", id, got[6:22], want.value)
		}
	}
}
