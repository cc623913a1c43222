package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// RFC 2759 section 9.2 and RFC 3079 section 3.5.
func TestMSCHAPv2Vectors(t *testing.T) {
	authChallenge := [16]byte(unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628"))
	peerChallenge := [16]byte(unhex(t, "21402324255E262A28295F2B3A337C7E"))
	hash, err := ntPasswordHash("clientPass")
	if err != nil {
		t.Fatal(err)
	}
	hashHash := hashNTPasswordHash(hash)
	short := challengeHash(peerChallenge, authChallenge, "User")
	response := challengeResponse(short, hash)
	key := masterKey(hashHash, response)
	for _, tc := range []struct {
		name, want string
		got        []byte
	}{
		{"NtPasswordHash", "44EBBA8D5312B8D611474411F56989AE", hash[:]},
		{"HashNtPasswordHash", "41C00C584BD2D91C4017A2A12FA59F3F", hashHash[:]},
		{"ChallengeHash", "D02E4386BCE91226", short[:]},
		{"NT-Response", "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF", response[:]},
		{"MasterKey", "FDECE3717A8C838CB388E527AE3CDD31", key[:]},
	} {
		if !bytes.Equal(tc.got, unhex(t, tc.want)) {
			t.Errorf("%s = %X, want %s", tc.name, tc.got, tc.want)
		}
	}
	if got := authenticatorResponse(hashHash, response, short); got != "S=407A5589115FD0D6209F510FE9C04566932CDA56" {
		t.Errorf("GenerateAuthenticatorResponse = %s", got)
	}
}

// RFC 2433 section B.2 and RFC 3079 section 2.5.
func TestMSCHAPv1Vectors(t *testing.T) {
	challenge := unhex(t, "102DB5DF085D3041")
	hash, err := ntPasswordHash("MyPw")
	if err != nil || !bytes.Equal(hash[:], unhex(t, "FC156AF7EDCD6C0EDDE3337D427F4EAC")) {
		t.Errorf("NtPasswordHash = %X, %v", hash, err)
	}
	proof, err := mschap{}.prove(0, challenge, "", "MyPw")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("00", 24) + "4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61" + "01"
	if !bytes.Equal(proof.value, unhex(t, want)) {
		t.Errorf("value = %X, want %s", proof.value, want)
	}
	proof, err = mschap{}.prove(0, challenge, "", "clientPass")
	if err != nil {
		t.Fatal(err)
	}
	keys := mppeKeys{
		method:  AuthMSCHAP,
		lmStart: [8]byte(unhex(t, "76A152936096D783")),
		ntStart: [16]byte(unhex(t, "A8947850CFC0ACC1D1789FB62DDCDDB0")),
	}
	if *proof.keys != keys {
		t.Errorf("keys %+v, want %+v", *proof.keys, keys)
	}
	if lm := lmPasswordHash("clientPass"); !bytes.Equal(lm[:], unhex(t, "76A152936096D7830E2390227404AFD2")) {
		t.Errorf("LmPasswordHash = %X", lm)
	}
}

// RFC 2759 section 9.2 on the line, as the peer: Challenge, Response, Success.
func TestMSCHAPv2PeerGolden(t *testing.T) {
	const (
		challenge = "01 2a 001d 10 5B5D7C7D7B3F2F3E3C2C602132262628 7365727665722e31"
		response  = "02 2a 003a 31 21402324255E262A28295F2B3A337C7E 0000000000000000 82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF 00 55736572"
	)
	for _, success := range []string{
		"S=407A5589115FD0D6209F510FE9C04566932CDA56 M=Welcome",
		"S=407a5589115fd0d6209f510fe9c04566932cda56  M=Welcome",
		"S=407A5589115FD0D6209F510FE9C04566932CDA56 Welcome",
		"S=407A5589115FD0D6209F510FE9C04566932CDA56M=Welcome",
	} {
		c := Config{Username: "User", Password: "clientPass", Random: bytes.NewReader(unhex(t, "21402324255E262A28295F2B3A337C7E"))}.withDefaults()
		end := &authEnd{}
		p := newAuthPeer(authProtoMSCHAPv2, &c, end)
		p.start(authEpoch)
		p.receive(authEpoch, unhex(t, challenge))
		if got := end.takeOne(t); !bytes.Equal(got, unhex(t, response)) {
			t.Fatalf("response %x, want %s", got, response)
		}
		p.receive(authEpoch, appendAuthPacket(nil, chapSuccess, 0x2a, []byte(success)))
		want := authResult{AuthMSCHAPv2, "User", "Welcome", &mppeKeys{method: AuthMSCHAPv2, client: true, master: [16]byte(unhex(t, "FDECE3717A8C838CB388E527AE3CDD31"))}}
		if len(end.results) != 1 {
			t.Fatalf("%q: results %+v, %v", success, end.results, end.err(t))
		}
		if diff := cmp.Diff(want, end.results[0], cmp.AllowUnexported(authResult{}, mppeKeys{})); diff != "" {
			t.Errorf("%q: %s", success, diff)
		}
	}
}

// RFC 2759 section 5: "If the authenticator response is missing or incorrect, the peer MUST end the session."
func TestImpostorIsFoundOut(t *testing.T) {
	const right = "S=407A5589115FD0D6209F510FE9C04566932CDA56"
	texts := []string{
		"", "Welcome", "M=Welcome", "S=", "S= M=Welcome", right[:41], right[1:], " " + right, "s" + right[1:],
		"S=407A5589115FD0D6209F510FE9C04566932CDA57 M=Welcome",
		"S=0000000000000000000000000000000000000000 M=Welcome",
		"S=407A5589115FD0D6209F510FE9C04566932CDAZZ M=Welcome",
		"M=Welcome " + right,
	}
	for i := range 40 { // every digit counts
		digits := []byte(right)
		digits[2+i] ^= 1
		texts = append(texts, string(digits))
	}
	challenge := appendCHAPValue(nil, unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628"), "server")
	for _, text := range texts {
		for _, m := range []AuthMethod{AuthMSCHAPv2, AuthEAPMSCHAPv2} {
			c := Config{Username: "User", Password: "clientPass", Random: bytes.NewReader(unhex(t, "21402324255E262A28295F2B3A337C7E"))}.withDefaults()
			end := &authEnd{}
			p := newAuthPeer(m.protocol(), &c, end)
			p.start(authEpoch)
			send := func(id, code byte, data []byte) {
				packet := appendAuthPacket(nil, code, 5, data)
				if m == AuthEAPMSCHAPv2 {
					packet = appendEAP(nil, eapPacket{eapRequest, id, eapMSCHAPv2, packet})
				}
				p.receive(authEpoch, packet)
			}
			send(1, chapChallenge, challenge)
			end.takeOne(t)
			send(2, chapSuccess, []byte(text))
			p.receive(authEpoch, appendEAP(nil, eapPacket{code: eapSuccess, id: 2}))
			p.networkBegun(authEpoch)
			if len(end.sent) > 0 || len(end.results) > 0 || localReason(end.err(t)) != AuthUnproven {
				t.Errorf("%v %q: sent %x, results %v, %v", m, text, end.sent, end.results, end.err(t))
			}
		}
	}
}

// A server that knows no password but lets everyone in, computing its proof from a guess, is found out too.
func TestServerWithoutThePasswordCannotPose(t *testing.T) {
	for _, guess := range []string{"", "open sesamf"} {
		peer, server := alice(), doorman()
		server.Secrets = func(string) (string, bool) { return guess, true }
		w := newAuthWire(AuthMSCHAPv2, &peer, &server, noFault)
		w.server.conversation.(*chapAuthenticator).algorithm = credulous{mschapv2{}}
		w.run(t)
		if localReason(w.peer.err(t)) != AuthUnproven || len(w.peer.results) > 0 || len(w.server.results) != 1 {
			t.Errorf("peer: %v, %d successes", w.peer.err(t), len(w.peer.results))
		}
	}
}

// credulous takes every response for right.
type credulous struct{ mschapv2 }

func (c credulous) verify(id byte, challenge, value []byte, username, password string) (chapProof, int) {
	proof, _ := c.mschapv2.verify(id, challenge, value, username, password)
	return proof, 1
}

// RFC 2759 section 6 and RFC 2433 section 7: every code is explained.
func TestFailureCodesAreExplained(t *testing.T) {
	for code, want := range map[int]string{
		646: "not at this time of day", 647: "account disabled", 648: "password expired", 649: "no permission to dial in",
		691: "wrong user name or password", 709: "password change failed",
	} {
		for _, m := range []AuthMethod{AuthMSCHAP, AuthMSCHAPv2, AuthEAPMSCHAPv2} {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			w := newAuthWire(m, &peer, &server, nil)
			text := fmt.Sprintf("E=%d R=1 C=%032X V=3 M=Go away", code, 1)
			if m == AuthEAPMSCHAPv2 {
				w.peer.conversation.receive(w.now, eapRequestMSCHAPv2(1, chapChallenge, appendCHAPValue(nil, make([]byte, 16), "")))
				w.peer.take()
				w.peer.conversation.receive(w.now, eapRequestMSCHAPv2(2, chapFailure, []byte(text)))
				// draft-kamath section 2.5: the failure is confirmed by its code.
				if got := w.peer.takeOne(t); !bytes.Equal(got, []byte{eapResponse, 2, 0, 6, eapMSCHAPv2, chapFailure}) {
					t.Errorf("confirmation %x", got)
				}
			} else {
				w.server.conversation.start(w.now)
				challenge := w.server.takeOne(t)
				w.peer.conversation.receive(w.now, challenge)
				w.peer.take()
				next := w.peer.conversation.receive(w.now, appendAuthPacket(nil, chapFailure, challenge[1], []byte(text)))
				if sent := w.peer.take(); len(sent) > 0 || !next.IsZero() { // R=1 is no reason to ask with the same password again
					t.Errorf("tried again: %x", sent)
				}
			}
			err := w.peer.err(t)
			var refused *AuthError
			if !errors.As(err, &refused) {
				t.Fatalf("%v: %v", m, err)
			}
			if diff := cmp.Diff(AuthError{Method: m, Code: code, Message: "Go away"}, *refused); diff != "" {
				t.Error(diff)
			}
			text = fmt.Sprintf("ppp: auth: server refused the login: E=%d (%s): %q", code, want, "Go away")
			if err.Error() != text || refused.Advice() == "" {
				t.Errorf("%s (%s), want %s", err, refused.Advice(), text)
			}
		}
	}
}

// The fields of RFC 2759 section 6 as servers send them.
func TestMSCHAPFailureIsReadLeniently(t *testing.T) {
	challenge := []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	for text, want := range map[string]mschapFailure{
		"E=691 R=1 C=00112233445566778899AABBCCDDEEFF V=3 M=Access denied": {691, true, challenge, 3, []byte("Access denied")},
		"E=691 R=0 C=00112233445566778899aabbccddeeff V=0 M=E=647 M=x":     {691, false, challenge, 0, []byte("E=647 M=x")},
		"E=691 R=1":                       {code: 691, retry: true},
		"E=0000000648":                    {code: 648},
		"V=3  R=1  E=649 ":                {code: 649, retry: true, version: 3},
		"E=691 R=1 C=xyz M=":              {code: 691, retry: true, message: []byte{}},
		"E=691 R=2 X=7 V=99999999999 M=m": {code: 691, message: []byte("m")},
		"E=-1 M=negative":                 {message: []byte("negative")},
		"E= R= C= V=":                     {challenge: []byte{}},
		"M=only text":                     {message: []byte("only text")},
		"Authentication failure":          {message: []byte("Authentication failure")},
		"":                                {message: []byte{}},
		"E=691\tR=1":                      {},
		"EE=691":                          {message: []byte("EE=691")},
	} {
		got := parseMSCHAPFailure([]byte(text))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(mschapFailure{})); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// RFC 2759 section 8.2: the domain is no part of what is hashed, the realm is; the name is sent as typed.
func TestDomainIsSentButNotHashed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		full   bool
		hashed string
	}{
		{"User", false, "User"},
		{`DOMAIN\User`, false, "User"},
		{`A\B\User`, false, "User"},
		{`DOMAIN\`, false, ""},
		{"User@example.com", false, "User@example.com"},
		{`DOMAIN\User`, true, `DOMAIN\User`},
	} {
		if got := hashedName(tc.name, tc.full); got != tc.hashed {
			t.Errorf("hashedName(%q, %v) = %q, want %q", tc.name, tc.full, got, tc.hashed)
		}
		for _, m := range []AuthMethod{AuthMSCHAPv2, AuthEAPMSCHAPv2} {
			c := Config{Username: tc.name, Password: "clientPass", HashFullName: tc.full, Auth: []AuthMethod{m}}
			c.Random = bytes.NewReader(unhex(t, "21402324255E262A28295F2B3A337C7E"))
			c = c.withDefaults()
			end := &authEnd{}
			p := newAuthPeer(m.protocol(), &c, end)
			challenge := appendCHAPValue(nil, unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628"), "")
			if m == AuthMSCHAPv2 {
				p.receive(authEpoch, appendAuthPacket(nil, chapChallenge, 1, challenge))
			} else {
				p.receive(authEpoch, eapRequestMSCHAPv2(1, chapChallenge, challenge))
			}
			got := end.takeOne(t)
			if !bytes.HasSuffix(got, append([]byte{0}, tc.name...)) {
				t.Errorf("%v %q: response %x", m, tc.name, got)
			}
			rfc := bytes.Contains(got, unhex(t, "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")) // RFC 2759 section 9.2 for "User"
			if rfc != (tc.hashed == "User") {
				t.Errorf("%v %q: NT-Response of User: %v", m, tc.name, rfc)
			}
		}
	}
}

func TestDomainUserLogsIn(t *testing.T) {
	for _, m := range authMethods {
		for _, full := range []bool{false, true} {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			peer.Username = `DOMAIN\alice`
			peer.HashFullName, server.HashFullName = full, full
			server.Secrets = func(user string) (string, bool) { return "open sesame", user == `DOMAIN\alice` }
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			if len(w.peer.results) != 1 || len(w.server.results) != 1 || w.server.results[0].username != `DOMAIN\alice` {
				t.Errorf("%v: %+v, %v, %v", m, w.server.results, w.peer.err(t), w.server.err(t))
			}
		}
	}
}

// RFC 2759 section 8.1: 0 to 256 UTF-16 units, little endian; other planes as surrogate pairs.
func TestPasswordIsHashedAsUTF16(t *testing.T) {
	for password, utf16 := range map[string]string{
		"":                 "",
		"aé€":              "6100 e900 ac20",
		"\U0001F511":       "3dd8 11dd",
		"\U0010FFFF\u0001": "ffdb ffdf 0100",
	} {
		got, err := ntPasswordHash(password)
		if want := md4Sum(unhex(t, utf16)); err != nil || got != want {
			t.Errorf("%q: %x, %v, want %x", password, got, err, want)
		}
	}
	if got, _ := ntPasswordHash(""); hex.EncodeToString(got[:]) != "31d6cfe0d16ae931b73c59d7e0c089c0" { // MD4 of nothing, RFC 1320 section A.5
		t.Errorf("hash of the empty password: %x", got)
	}
	for password, want := range map[string]error{
		strings.Repeat("x", 256):          nil,
		strings.Repeat("x", 257):          errPasswordTooLong,
		strings.Repeat("€", 256):          nil,
		strings.Repeat("\U0001F511", 128): nil,
		strings.Repeat("\U0001F511", 129): errPasswordTooLong,
		"\xff":                            errPasswordNotUTF8,
	} {
		if _, err := ntPasswordHash(password); !errors.Is(err, want) {
			t.Errorf("%.8q of %d octets: %v, want %v", password, len(password), err, want)
		}
	}
}

func TestUnusablePasswordEndsTheLogin(t *testing.T) {
	for _, m := range []AuthMethod{AuthMSCHAP, AuthMSCHAPv2, AuthEAPMSCHAPv2} {
		peer, server := alice(), doorman()
		peer.Auth = []AuthMethod{m}
		peer.Password = strings.Repeat("p", 257)
		w := newAuthWire(m, &peer, &server, noFault)
		w.run(t)
		var local *AuthLocalError
		if !errors.As(w.peer.err(t), &local) || local.Reason != AuthBadLogin || local.Method != m {
			t.Errorf("peer, %v: %v", m, w.peer.err(t))
		}
		// The same in the authenticator's list of users is a refusal.
		peer.Password = "open sesame"
		server.Secrets = func(string) (string, bool) { return "\xff", true }
		w = newAuthWire(m, &peer, &server, noFault)
		w.run(t)
		if localReason(w.server.err(t)) != AuthLoginRefused {
			t.Errorf("authenticator, %v: %v", m, w.server.err(t))
		}
	}
}

// RFC 2433 section 5: a response without the NT part proves nothing to us.
func TestLANManagerResponseAloneIsRefused(t *testing.T) {
	challenge := make([]byte, 8)
	proof, err := mschap{}.prove(0, challenge, "", "pw")
	if err != nil {
		t.Fatal(err)
	}
	proof.value[48] = 0
	if _, ok := (mschap{}).verify(0, challenge, proof.value, "", "pw"); ok != 0 {
		t.Error("accepted with the use-NT flag clear")
	}
}

func FuzzMSCHAPFailure(f *testing.F) {
	f.Add([]byte("E=691 R=1 C=00112233445566778899AABBCCDDEEFF V=3 M=Access denied"))
	f.Add([]byte("M="))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := parseMSCHAPFailure(text)
		if got.code < 0 || got.version < 0 || len(got.message) > len(text) {
			t.Errorf("%q: %+v", text, got)
		}
		again := parseMSCHAPFailure(appendMSCHAPFailure(nil, got))
		if got.code != again.code || got.retry != again.retry || got.version != again.version ||
			!bytes.Equal(got.challenge, again.challenge) || !bytes.Equal(got.message, again.message) {
			t.Errorf("%q: %+v, then %+v", text, got, again)
		}
	})
}

func FuzzMSCHAPSuccess(f *testing.F) {
	f.Add([]byte("S=407A5589115FD0D6209F510FE9C04566932CDA56 M=Welcome"))
	f.Fuzz(func(t *testing.T, text []byte) {
		proof, message := parseMSCHAPSuccess(text)
		if proof == "" {
			if message != nil {
				t.Errorf("%q: message without proof", text)
			}
			return
		}
		again, text2 := parseMSCHAPSuccess([]byte(proof + " M=" + string(message)))
		if again != proof || !bytes.Equal(text2, message) {
			t.Errorf("%q: %q %q, then %q %q", text, proof, message, again, text2)
		}
	})
}
