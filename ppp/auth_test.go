package ppp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// authEpoch is when the conversations of the tests begin.
var authEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// authMethods are all methods with packets.
var authMethods = []AuthMethod{AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2}

// unhex decodes a vector; spaces are for the eye.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// counting is a source of octets that differ but come alike in each test.
type counting byte

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(*c)
		*c += 7
	}
	return len(p), nil
}

func testRandom(seed byte) io.Reader {
	c := counting(seed)
	return &c
}

// An authTrace records what a conversation tells its session.
type authTrace struct {
	protocol uint16
	sent     [][]byte
	results  []authResult
	errs     []error
}

func (tr *authTrace) sendAuth(protocol uint16, packet []byte) {
	tr.protocol = protocol
	tr.sent = append(tr.sent, bytes.Clone(packet))
}
func (tr *authTrace) authSucceeded(_ time.Time, r authResult) { tr.results = append(tr.results, r) }
func (tr *authTrace) authFailed(_ time.Time, err error)       { tr.errs = append(tr.errs, err) }

// take returns what was sent since the last call.
func (tr *authTrace) take() [][]byte {
	sent := tr.sent
	tr.sent = nil
	return sent
}

// takeOne returns the only packet sent since the last call.
func (tr *authTrace) takeOne(t testing.TB) []byte {
	t.Helper()
	sent := tr.take()
	if len(sent) != 1 {
		t.Fatalf("sent %d packets, want 1: %x", len(sent), sent)
	}
	return sent[0]
}

// err returns the end of the conversation, nil if it has not ended.
func (tr *authTrace) err(t testing.TB) error {
	t.Helper()
	if len(tr.errs) > 1 {
		t.Fatalf("authFailed called %d times: %v", len(tr.errs), tr.errs)
	}
	if len(tr.errs) == 0 {
		return nil
	}
	return tr.errs[0]
}

func alice() Config {
	return Config{Username: "alice", Password: "open sesame", Random: testRandom(3)}.withDefaults()
}

// doorman is an authenticator that knows alice.
func doorman() Config {
	return Config{Name: "door", Auth: authMethods, Random: testRandom(11), Secrets: func(user string) (string, bool) {
		return "open sesame", user == "alice"
	}}.withDefaults()
}

// localReason returns the reason of our own verdict, 0 if err is not one.
func localReason(err error) AuthReason {
	var local *AuthLocalError
	if errors.As(err, &local) {
		return local.Reason
	}
	return 0
}

func TestAuthMethodNamesAreInverse(t *testing.T) {
	for m := AuthNone; m <= AuthEAPMSCHAPv2; m++ {
		got, err := ParseAuthMethod(m.String())
		if err != nil || got != m {
			t.Errorf("ParseAuthMethod(%q) = %v, %v", m.String(), got, err)
		}
	}
	for _, name := range []string{"", "PAP", "mschap-v2", "AuthMethod(9)"} {
		if m, err := ParseAuthMethod(name); err == nil {
			t.Errorf("ParseAuthMethod(%q) = %v, want an error", name, m)
		}
	}
	if got := AuthMethod(9).String(); got != "AuthMethod(9)" {
		t.Errorf("String of an unknown method = %q", got)
	}
}

// RFC 1661 section 6.2; RFC 1334, RFC 1994, RFC 2433, RFC 2759 and RFC 3748 for the values.
func TestAuthOptionGolden(t *testing.T) {
	for m, want := range map[AuthMethod]string{
		AuthNone: "", AuthPAP: "c023", AuthCHAPMD5: "c22305", AuthMSCHAP: "c22380", AuthMSCHAPv2: "c22381", AuthEAPMD5: "c227", AuthEAPMSCHAPv2: "c227",
	} {
		value := appendAuthOption(nil, m)
		if got := hex.EncodeToString(value); got != want {
			t.Errorf("option of %v = %s, want %s", m, got, want)
		}
		if got := parseAuthOption(value); got != m.protocol() {
			t.Errorf("parse of %s = %v, want %v", want, got, m.protocol())
		}
		if m != AuthNone && m.protocol().number() != binary.BigEndian.Uint16(value) {
			t.Errorf("number of %v = %x", m, m.protocol().number())
		}
	}
	for _, s := range []string{"", "c0", "c02300", "c223", "c22306", "c2230500", "c22700", "c229", "0000"} {
		if got := parseAuthOption(unhex(t, s)); got != authProtoNone {
			t.Errorf("parse of %q = %v, want none", s, got)
		}
	}
	if n := authProtoNone.number(); n != 0 {
		t.Errorf("number of no protocol = %x", n)
	}
}

func TestDemandIsAcceptedOrAnsweredByPreference(t *testing.T) {
	all := []AuthMethod{AuthNone, AuthEAPMSCHAPv2, AuthEAPMD5, AuthMSCHAPv2, AuthPAP}
	for _, tc := range []struct {
		demand  string
		allowed []AuthMethod
		naks    int
		proto   authProtocol
		nak     string
		ok      bool
	}{
		{demand: "c22381", allowed: all, proto: authProtoMSCHAPv2, ok: true},
		{demand: "c023", allowed: all, proto: authProtoPAP, ok: true},
		{demand: "c227", allowed: all, proto: authProtoEAP, ok: true},
		{demand: "c22305", allowed: all, nak: "c22381"},        // CHAP for CHAP, or pppd gives up CHAP
		{demand: "c22305", allowed: all, naks: 1, nak: "c227"}, // both EAP methods are one proposal
		{demand: "c22305", allowed: all, naks: 2, nak: "c023"},
		{demand: "c22305", allowed: all, naks: 3, nak: "c22381"},
		{demand: "c023", allowed: DefaultAuth(), nak: "c227"},
		{demand: "c023", allowed: DefaultAuth(), naks: 1, nak: "c22381"},
		{demand: "dead", allowed: DefaultAuth(), nak: "c227"},
		{demand: "", allowed: DefaultAuth(), nak: "c227"},
		{demand: "", allowed: []AuthMethod{AuthNone}},
		{demand: "c023", allowed: []AuthMethod{AuthNone}}, // Configure-Reject
		{demand: "c023", allowed: nil},
	} {
		proto, nak, ok := acceptAuthOption(unhex(t, tc.demand), tc.allowed, tc.naks)
		if proto != tc.proto || hex.EncodeToString(nak) != tc.nak || ok != tc.ok {
			t.Errorf("demand %q, naks %d: %v %x %v, want %v %s %v", tc.demand, tc.naks, proto, nak, ok, tc.proto, tc.nak, tc.ok)
		}
	}
}

func TestMethodForAPeersNak(t *testing.T) {
	allowed := []AuthMethod{AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2}
	if m, ok := authMethodFor(unhex(t, "c227"), allowed); m != AuthEAPMD5 || !ok {
		t.Errorf("EAP: %v %v, want the first EAP method", m, ok)
	}
	if m, ok := authMethodFor(unhex(t, "c023"), allowed); ok {
		t.Errorf("PAP: %v, want none", m)
	}
}

func TestAuthPacketMalformed(t *testing.T) {
	for _, tc := range []struct {
		packet string
		want   error
	}{
		{"", errAuthShort},
		{"010203", errAuthShort},
		{"01020000", errAuthLength},
		{"01020003", errAuthLength},
		{"01020005", errAuthLength},
		{"0102ffff00", errAuthLength},
	} {
		if _, _, _, err := parseAuthPacket(unhex(t, tc.packet)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.packet, err, tc.want)
		}
	}
	code, id, data, err := parseAuthPacket(unhex(t, "0102000641420000")) // two octets of padding
	if code != 1 || id != 2 || string(data) != "AB" || err != nil {
		t.Errorf("padded packet: %d %d %q %v", code, id, data, err)
	}
}

func TestPeerTextIsPrintableAndBounded(t *testing.T) {
	for in, want := range map[string]string{
		"Access denied":                "Access denied",
		"  two\r\nlines\x00 ":          "two  lines",
		"\x1b[31mred\x07":              "[31mred",
		"bad \xff\xfe utf-8":           "bad    utf-8",
		"\u202egnp.exe":                "gnp.exe",
		"Zugriff verweigert: Müller 密": "Zugriff verweigert: Müller 密",
		strings.Repeat("x", 300):       strings.Repeat("x", 256),
		strings.Repeat("密", 100):       strings.Repeat("密", 85),
	} {
		if got := peerText([]byte(in)); got != want {
			t.Errorf("peerText(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestErrorsNameCauseAndAdvice(t *testing.T) {
	for _, tc := range []struct {
		err          error
		text, advice string // advice: a part of it
	}{
		{&AuthError{Code: 691, Message: "Bad password"}, `ppp: auth: server refused the login: E=691 (wrong user name or password): "Bad password"`, `DOMAIN\user`},
		{&AuthError{Code: 647}, `ppp: auth: server refused the login: E=647 (account disabled)`, "enable"},
		{&AuthError{Code: 12345}, `ppp: auth: server refused the login: E=12345 (not explained by the protocol)`, "check username"},
		{&AuthError{Message: "no"}, `ppp: auth: server refused the login: "no"`, "check username"},
		{&AuthError{}, `ppp: auth: server refused the login`, "check username"},
		{&AuthLocalError{Reason: AuthUnproven}, `ppp: auth: server could not prove it knows the password`, "posing"},
		{authDemandError([]byte("\xc0\x23")), `ppp: auth: server insists on a login by PAP, which is not allowed`, `add "pap" to auth`},
		{authDemandError([]byte("\xc2\x23\x05")), `ppp: auth: server insists on a login by CHAP-MD5, which is not allowed`, `add "chap-md5" to auth`},
		{authDemandError([]byte("\xc2\x23\x80")), `ppp: auth: server insists on a login by MS-CHAP, which is not allowed`, `add "mschap" to auth`},
		{authDemandError([]byte("\xc2\x23\x81")), `ppp: auth: server insists on a login by MS-CHAP-V2, which is not allowed`, `add "mschapv2" to auth`},
		{authDemandError([]byte("\xc2\x27")), `ppp: auth: server insists on a login by EAP, which is not allowed`, `add "eap-mschapv2" to auth`},
		{authDemandError([]byte("\xde\xad")), `ppp: auth: server insists on a login by unknown protocol dead, which is not allowed`, "ask the server's administrator"},
		{authNotAskedError(DefaultAuth()), `ppp: auth: server asks for no login, which is not allowed`, `"none"`},
		{&AuthLocalError{Method: AuthPAP, Reason: AuthNoAnswer}, `ppp: auth: no answer in the login by pap`, "later"},
		{&AuthLocalError{Reason: AuthBadLogin, Detail: "name too long"}, `ppp: auth: name too long`, "correct"},
		{&AuthLocalError{Method: AuthPAP, Reason: AuthLoginRefused, Detail: "bob"}, `ppp: auth: refused the login of "bob" by pap`, ""},
		{&AuthLocalError{Reason: AuthNoRandom, Detail: "EOF"}, `ppp: auth: no random numbers: EOF`, ""},
		{&AuthLocalError{}, `ppp: auth: failed`, ""},
	} {
		if got := tc.err.Error(); got != tc.text {
			t.Errorf("Error() = %s\nwant      %s", got, tc.text)
		}
		staged, ok := tc.err.(interface{ Stage() string })
		if !ok || staged.Stage() != "auth" {
			t.Errorf("%v: stage is not auth", tc.err)
		}
		advised, ok := tc.err.(interface{ Advice() string })
		if !ok || !strings.Contains(advised.Advice(), tc.advice) || (tc.advice == "") != (advised.Advice() == "") {
			t.Errorf("%v: advice %q, want %q in it", tc.err, advised.Advice(), tc.advice)
		}
	}
	if err := authNotAskedError([]AuthMethod{AuthPAP, AuthNone}); err != nil {
		t.Errorf("no login although allowed: %v", err)
	}
}

// Every method that shows the password or leaves the server unproven says so when it is to be added.
func TestAdviceNamesTheRisk(t *testing.T) {
	for _, m := range authMethods {
		e := &AuthLocalError{Method: m, Reason: AuthNotAllowed}
		safe := slices.Contains(DefaultAuth(), m)
		if strings.Contains(e.Advice(), "IPsec") == safe {
			t.Errorf("%v: advice %q", m, e.Advice())
		}
	}
}

// An authEnd is one side of a conversation in a test.
type authEnd struct {
	authTrace
	conversation authConversation
	next         time.Time
}

// An authWire joins a peer and an authenticator on fake time. Its fault decides what becomes of the nth packet (both directions counted together).
type authWire struct {
	now    time.Time
	peer   *authEnd
	server *authEnd
	fault  func(n int) authFault
	count  int
	log    [][]byte // every packet put on the wire
}

type authFault uint8

const (
	deliver authFault = iota
	lose
	twice
	late // once more after the next packet of the same direction
)

func newAuthWire(m AuthMethod, peer, server *Config, fault func(int) authFault) *authWire {
	w := &authWire{now: authEpoch, peer: &authEnd{}, server: &authEnd{}, fault: fault}
	w.peer.conversation = newAuthPeer(m.protocol(), peer, w.peer)
	w.server.conversation = newAuthenticator(m, server, w.server)
	return w
}

// run lets both talk until nothing moves any more. The peer hears of network control packets, as it would, once the server
// has let it in.
func (w *authWire) run(t testing.TB) {
	t.Helper()
	w.peer.next = w.peer.conversation.start(w.now)
	w.server.next = w.server.conversation.start(w.now)
	w.settle(t)
}

// settle delivers and waits until nothing moves any more.
func (w *authWire) settle(t testing.TB) {
	t.Helper()
	delayed := map[*authEnd][]byte{}
	for range 2000 {
		toServer, toPeer := w.peer.take(), w.server.take()
		if len(toServer)+len(toPeer) > 0 {
			w.carry(w.server, toServer, delayed)
			w.carry(w.peer, toPeer, delayed)
			continue
		}
		if len(w.server.results) > 0 {
			w.peer.next = w.peer.conversation.networkBegun(w.now)
		}
		if !w.wait() {
			return
		}
	}
	t.Fatal("the conversation does not end")
}

func (w *authWire) carry(to *authEnd, packets [][]byte, delayed map[*authEnd][]byte) {
	for _, packet := range packets {
		w.log = append(w.log, packet)
		fault := w.fault(w.count)
		w.count++
		again := delayed[to]
		delete(delayed, to)
		if fault != lose {
			to.next = to.conversation.receive(w.now, bytes.Clone(packet))
		}
		if fault == twice {
			to.next = to.conversation.receive(w.now, bytes.Clone(packet))
		}
		if again != nil {
			to.next = to.conversation.receive(w.now, bytes.Clone(again))
		}
		if fault == late {
			delayed[to] = packet
		}
	}
}

// wait advances to the next deadline; false if there is none.
func (w *authWire) wait() bool {
	at := w.peer.next
	if at.IsZero() || !w.server.next.IsZero() && w.server.next.Before(at) {
		at = w.server.next
	}
	if at.IsZero() {
		return false
	}
	w.now = at
	w.peer.next = w.peer.conversation.advance(w.now)
	w.server.next = w.server.conversation.advance(w.now)
	return true
}

// loggedIn checks that both sides agree on the login.
func (w *authWire) loggedIn(t testing.TB, m AuthMethod) {
	t.Helper()
	if err := w.peer.err(t); err != nil {
		t.Fatalf("peer: %v", err)
	}
	if err := w.server.err(t); err != nil {
		t.Fatalf("authenticator: %v", err)
	}
	if len(w.peer.results) == 0 || len(w.server.results) == 0 {
		t.Fatalf("peer logged in %d times, authenticator let in %d times", len(w.peer.results), len(w.server.results))
	}
	p, s := w.peer.results[len(w.peer.results)-1], w.server.results[len(w.server.results)-1]
	if p.method != m || s.method != m || p.username != "alice" || s.username != "alice" {
		t.Errorf("peer %v as %q, authenticator %v as %q, want %v as alice", p.method, p.username, s.method, s.username, m)
	}
	hasKeys := m == AuthMSCHAP || m == AuthMSCHAPv2 || m == AuthEAPMSCHAPv2
	if (p.mppe != nil) != hasKeys || (s.mppe != nil) != hasKeys {
		t.Fatalf("%v: MPPE keys: peer %v, authenticator %v", m, p.mppe != nil, s.mppe != nil)
	}
	if !hasKeys {
		return
	}
	if !p.mppe.client || s.mppe.client {
		t.Errorf("client: peer %v, authenticator %v", p.mppe.client, s.mppe.client)
	}
	mine, theirs := *p.mppe, *s.mppe
	mine.client = false
	if mine != theirs || mine == (mppeKeys{method: mine.method}) {
		t.Errorf("keys differ or are empty: peer %+v, authenticator %+v", mine, theirs)
	}
}

func noFault(int) authFault { return deliver }

func TestEveryMethodLogsIn(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			w.loggedIn(t, m)
			if len(w.peer.results) != 1 || len(w.server.results) != 1 {
				t.Errorf("succeeded %d and %d times, want once", len(w.peer.results), len(w.server.results))
			}
			if want := m.protocol().number(); w.peer.protocol != want || w.server.protocol != want {
				t.Errorf("protocol %x and %x, want %x", w.peer.protocol, w.server.protocol, want)
			}
			if w.now != authEpoch {
				t.Errorf("took %v of waiting", w.now.Sub(authEpoch))
			}
		})
	}
}

func TestEveryMethodRefusesAWrongPassword(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			peer.Password = "sesame"
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			var refused *AuthError
			if !errors.As(w.peer.err(t), &refused) {
				t.Fatalf("peer: %v, want the server's refusal", w.peer.err(t))
			}
			want := AuthError{Method: m, Message: "Access denied"}
			switch m {
			case AuthMSCHAP, AuthMSCHAPv2, AuthEAPMSCHAPv2:
				want.Code = 691
			case AuthEAPMD5:
				want.Message = ""
			}
			if diff := cmp.Diff(want, *refused); diff != "" {
				t.Error(diff)
			}
			if localReason(w.server.err(t)) != AuthLoginRefused {
				t.Errorf("authenticator: %v", w.server.err(t))
			}
			if n := len(w.peer.results) + len(w.server.results); n != 0 {
				t.Errorf("%d successes", n)
			}
		})
	}
}

// An unknown name must not be told from a wrong password: same packets, same random numbers drawn, password looked up once.
func TestUnknownUserLooksLikeAWrongPassword(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			var logs [2][][]byte
			for i, known := range []bool{true, false} {
				peer, server := alice(), doorman()
				peer.Auth = []AuthMethod{m}
				asked := 0
				server.Secrets = func(string) (string, bool) { asked++; return "else", known }
				w := newAuthWire(m, &peer, &server, noFault)
				w.run(t)
				if localReason(w.server.err(t)) != AuthLoginRefused {
					t.Errorf("authenticator: %v", w.server.err(t))
				}
				if asked != 1 {
					t.Errorf("Secrets asked %d times", asked)
				}
				logs[i] = w.log
			}
			if diff := cmp.Diff(logs[0], logs[1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A user that is not known must not get in with the empty password that stands in for his, nor anyone where no Secrets are given.
func TestUnknownUserIsRefusedEvenWithAMatchingPassword(t *testing.T) {
	for _, m := range authMethods {
		for name, secrets := range map[string]func(string) (string, bool){
			"unknown": func(string) (string, bool) { return "", false },
			"none":    nil,
		} {
			t.Run(m.String()+"/"+name, func(t *testing.T) {
				peer, server := alice(), doorman()
				peer.Auth = []AuthMethod{m}
				peer.Password = ""
				server.Secrets = secrets
				w := newAuthWire(m, &peer, &server, noFault)
				w.run(t)
				if localReason(w.server.err(t)) != AuthLoginRefused || len(w.server.results) != 0 {
					t.Errorf("authenticator: %v, %d successes", w.server.err(t), len(w.server.results))
				}
			})
		}
	}
}

func TestLoginSurvivesTheLossOfAnyPacket(t *testing.T) {
	for _, m := range authMethods {
		for n := range 8 {
			t.Run(fmt.Sprintf("%v/%d", m, n), func(t *testing.T) {
				peer, server := alice(), doorman()
				peer.Auth = []AuthMethod{m}
				w := newAuthWire(m, &peer, &server, func(i int) authFault {
					if i == n {
						return lose
					}
					return deliver
				})
				w.run(t)
				w.loggedIn(t, m)
			})
		}
	}
}

func TestLoginSurvivesDuplicatesAndStragglers(t *testing.T) {
	for _, m := range authMethods {
		for name, fault := range map[string]authFault{"twice": twice, "late": late} {
			t.Run(m.String()+"/"+name, func(t *testing.T) {
				peer, server := alice(), doorman()
				peer.Auth = []AuthMethod{m}
				w := newAuthWire(m, &peer, &server, func(i int) authFault {
					if i > 40 { // a duplicated answer to a duplicated question would never end
						return deliver
					}
					return fault
				})
				w.run(t)
				w.loggedIn(t, m)
			})
		}
	}
}

func TestLoginSurvivesABadLine(t *testing.T) {
	for _, m := range authMethods {
		for seed := range uint32(300) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			state := seed*2654435761 + 1
			w := newAuthWire(m, &peer, &server, func(i int) authFault {
				state = state*1664525 + 1013904223
				switch r := state >> 24; {
				case i > 200:
					return deliver
				case r < 64: // a quarter
					return lose
				case r < 96:
					return twice
				case r < 128:
					return late
				}
				return deliver
			})
			w.run(t)
			w.loggedIn(t, m)
			if t.Failed() {
				t.Fatalf("%v, seed %d", m, seed)
			}
		}
	}
}

func TestSilenceEndsAfterAllTries(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			server := doorman()
			end := &authEnd{}
			c := newAuthenticator(m, &server, end)
			next := c.start(authEpoch)
			now := authEpoch
			for !next.IsZero() {
				if want := now.Add(3 * time.Second); next != want {
					t.Fatalf("deadline %v, want %v", next, want)
				}
				if early := c.advance(next.Add(-1)); early != next {
					t.Fatalf("advance before the deadline: next %v, want %v", early, next)
				}
				now = next
				next = c.advance(now)
			}
			if localReason(end.err(t)) != AuthNoAnswer || now.Sub(authEpoch) != 30*time.Second {
				t.Errorf("%v after %v, want no answer after 30 s", end.err(t), now.Sub(authEpoch))
			}
			want := 10
			if m == AuthPAP { // here the peer speaks first
				want = 0
			}
			sent := end.take()
			if len(sent) != want {
				t.Errorf("%d packets sent, want %d", len(sent), want)
			}
			for _, p := range sent {
				if !bytes.Equal(p, sent[0]) {
					t.Errorf("sent again as %x, first as %x", p, sent[0])
				}
			}
		})
	}
}

// RFC 1334 section 2.2.1, RFC 1994 section 4.2: the peer repeats what it sent until there is a verdict.
func TestPeerGivesUpWithoutAVerdict(t *testing.T) {
	for _, m := range []AuthMethod{AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Timers.AuthTries = 4
			peer.Timers.AuthRestart = time.Second
			w := newAuthWire(m, &peer, &server, nil)
			next := w.peer.conversation.start(authEpoch)
			if m != AuthPAP {
				if !next.IsZero() {
					t.Fatalf("deadline %v before any challenge", next)
				}
				w.server.conversation.start(authEpoch)
				next = w.peer.conversation.receive(authEpoch, w.server.takeOne(t))
			}
			for !next.IsZero() {
				next = w.peer.conversation.advance(next)
			}
			if n := len(w.peer.take()); n != 4 || localReason(w.peer.err(t)) != AuthNoAnswer {
				t.Errorf("sent %d times, then %v", n, w.peer.err(t))
			}
		})
	}
}

// A conversation that has failed neither speaks nor listens.
func TestNothingHappensAfterFailure(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			peer.Password = "wrong"
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			for _, packet := range w.log {
				w.peer.conversation.receive(w.now, bytes.Clone(packet))
				w.server.conversation.receive(w.now, bytes.Clone(packet))
			}
			w.peer.conversation.advance(w.now.Add(time.Hour))
			w.server.conversation.advance(w.now.Add(time.Hour))
			w.peer.conversation.networkBegun(w.now)
			w.server.conversation.networkBegun(w.now)
			if m != AuthPAP {
				w.server.conversation.start(w.now)
			}
			if sent := append(w.peer.take(), w.server.take()...); len(sent) > 0 {
				t.Errorf("sent %x", sent)
			}
			w.peer.err(t) // checks that it is one
			w.server.err(t)
		})
	}
}

// Any proper prefix of any packet, and any packet whose length field does not fit, is dropped without a trace; the whole
// packet is then taken as if nothing had been.
func TestTruncatedPacketsAreDropped(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			w := newAuthWire(m, &peer, &server, noFault)
			w.peer.conversation.start(w.now)
			w.server.conversation.start(w.now)
			for range 20 {
				for _, packet := range w.peer.take() {
					truncate(t, w.server, packet)
				}
				for _, packet := range w.server.take() {
					truncate(t, w.peer, packet)
				}
			}
			w.loggedIn(t, m)
		})
	}
}

// truncate delivers all proper prefixes of packet, then packet.
func truncate(t *testing.T, to *authEnd, packet []byte) {
	t.Helper()
	before := len(to.results)
	for n := range packet {
		to.conversation.receive(authEpoch, slices.Clip(bytes.Clone(packet[:n])))
	}
	if len(to.sent) > 0 || len(to.results) != before || to.err(t) != nil {
		t.Fatalf("prefixes of %x: sent %x, results %v, error %v", packet, to.sent, to.results, to.errs)
	}
	to.conversation.receive(authEpoch, bytes.Clone(packet))
}

// What is cut inside the packet, with a length field that says so, must not be taken for a login.
func TestShortenedPacketsDoNotLogIn(t *testing.T) {
	for _, m := range authMethods {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			full := newAuthWire(m, &peer, &server, noFault)
			full.run(t)
			for i := range full.log {
				shortenNth(t, m, i, len(full.log[i]))
			}
		})
	}
}

func shortenNth(t *testing.T, m AuthMethod, nth, size int) {
	for n := range size {
		peer, server := alice(), doorman()
		peer.Auth = []AuthMethod{m}
		peer.Timers.AuthTries, server.Timers.AuthTries = 1, 1
		w := newAuthWire(m, &peer, &server, noFault)
		w.fault = func(i int) authFault {
			if i != nth {
				return deliver
			}
			packet := w.log[i]
			if n >= authHeaderLen {
				binary.BigEndian.PutUint16(packet[2:], uint16(n))
			}
			return deliver
		}
		w.run(t) // must end
		w.peer.err(t)
		if r := w.server.results; len(r) > 0 && r[0].username != "alice" {
			t.Fatalf("packet %d cut to %d octets logs in %q", nth, n, r[0].username)
		}
	}
}

func TestSecretsReachNeitherLogsNorErrors(t *testing.T) {
	const secret = "Tr0ub4dor&3"
	for _, m := range authMethods {
		for _, password := range []string{secret, secret + "x", secret + "\xff", secret + strings.Repeat("y", 300)} {
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			peer.Password = password
			server.Secrets = func(string) (string, bool) { return secret, true }
			peer.Log, server.Log = logger, logger
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			for _, err := range append(w.peer.errs, w.server.errs...) {
				fmt.Fprintf(&log, "%v %+v %#v %s\n", err, err, err, err.(interface{ Advice() string }).Advice())
			}
			for _, text := range []string{secret, hex.EncodeToString([]byte(secret))} {
				if strings.Contains(log.String(), text) {
					t.Errorf("%v: password shown: %s", m, log.String())
				}
			}
		}
	}
}

func TestHostileTextsAreTamed(t *testing.T) {
	for _, m := range []AuthMethod{AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2} {
		text := "E=691 M=" + strings.Repeat("\x1b]0;owned\x07\n\u202e", 100)
		peer, server := alice(), doorman()
		w := newAuthWire(m, &peer, &server, nil)
		w.peer.conversation.start(w.now)
		failure := byte(papNak)
		data := appendPAPMessage(nil, text[:255])
		if m != AuthPAP {
			w.server.conversation.start(w.now)
			w.peer.conversation.receive(w.now, w.server.takeOne(t))
			failure, data = chapFailure, []byte(text)
		}
		w.peer.conversation.receive(w.now, appendAuthPacket(nil, failure, w.peer.takeOne(t)[1], data))
		err := w.peer.err(t)
		var refused *AuthError
		if !errors.As(err, &refused) || len(refused.Message) == 0 || len(refused.Message) > 256 {
			t.Fatalf("%v: %v", m, err)
		}
		if i := strings.IndexFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%v: %q", m, err.Error())
		}
	}
}

func TestNoRandomNumbersEndsTheLogin(t *testing.T) {
	for _, m := range []AuthMethod{AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		for n := range 60 {
			peer, server := alice(), doorman()
			peer.Auth = []AuthMethod{m}
			server.Random = io.LimitReader(testRandom(1), int64(n))
			peer.Random = io.LimitReader(testRandom(1), int64(n))
			peer.Password = "wrong"
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(t)
			// The first number is the server's identifier: with too few there is an error on one side, never a silence.
			if n < 9 && localReason(w.server.err(t)) != AuthNoRandom {
				t.Errorf("%v with %d octets: %v", m, n, w.server.err(t))
			}
			if w.server.err(t) == nil && w.peer.err(t) == nil {
				t.Errorf("%v with %d octets: no error", m, n)
			}
		}
	}
}

func FuzzAuthPacket(f *testing.F) {
	f.Add([]byte{1, 2, 0, 5, 9})
	f.Fuzz(func(t *testing.T, packet []byte) {
		code, id, data, err := parseAuthPacket(packet)
		if err != nil {
			return
		}
		if got := appendAuthPacket(nil, code, id, data); !bytes.HasPrefix(packet, got) {
			t.Errorf("%x written back as %x", packet, got)
		}
	})
}

func FuzzAuthOption(f *testing.F) {
	f.Add([]byte("\xc2\x23\x81"), 1)
	f.Fuzz(func(t *testing.T, value []byte, naks int) {
		if naks < 0 {
			return
		}
		proto, nak, ok := acceptAuthOption(value, DefaultAuth(), naks)
		if ok == (nak != nil) || ok == (proto == authProtoNone) {
			t.Errorf("%x: %v %x %v", value, proto, nak, ok)
		}
		if p := parseAuthOption(value); p != authProtoNone && authOptions[p] != string(value) {
			t.Errorf("%x taken for %v", value, p)
		}
		_ = authDemandError(value).Error()
	})
}

func FuzzPeerText(f *testing.F) {
	f.Add([]byte("E=691\x00\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := peerText(text)
		if len(s) > maxPeerText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q becomes %q", text, s)
		}
	})
}

// fuzzConversation feeds a script to a conversation: packets, each behind its length in one octet; length 0 lets time pass.
func fuzzConversation(t *testing.T, c authConversation, end *authEnd, script []byte) {
	now := authEpoch
	next := c.start(now)
	steps := 1
	for len(script) > 0 {
		n := min(int(script[0]), len(script)-1)
		packet := bytes.Clone(script[1 : 1+n])
		script = script[1+n:]
		steps++
		switch {
		case n > 0:
			next = c.receive(now, packet)
		case !next.IsZero():
			now = next
			next = c.advance(now)
		default:
			next = c.networkBegun(now)
		}
		if !next.IsZero() && !next.After(now) {
			t.Fatalf("deadline %v at %v", next, now)
		}
	}
	if len(end.sent) > 2*steps {
		t.Errorf("%d packets sent in %d steps", len(end.sent), steps)
	}
	for _, p := range end.sent {
		if len(p) > 600 {
			t.Errorf("packet of %d octets sent", len(p))
		}
		if _, _, _, err := parseAuthPacket(p); err != nil {
			t.Errorf("sent %x: %v", p, err)
		}
	}
	end.err(t) // once at most
}

// script writes packets as fuzzConversation reads them.
func script(packets ...[]byte) (s []byte) {
	for _, p := range packets {
		s = append(append(s, byte(len(p))), p...)
	}
	return s
}

// addConversations adds all packets of whole conversations to the corpus: each side drops its own.
func addConversations(f *testing.F) {
	for i, m := range authMethods {
		for _, password := range []string{"open sesame", "wrong"} {
			peer, server := alice(), doorman()
			peer.Auth, peer.Password = []AuthMethod{m}, password
			w := newAuthWire(m, &peer, &server, noFault)
			w.run(f)
			f.Add(byte(i), script(w.log...))
			f.Add(byte(i), append(script(w.log...), 0, 0, 0))
		}
	}
}

func FuzzAuthPeer(f *testing.F) {
	addConversations(f)
	f.Fuzz(func(t *testing.T, which byte, script []byte) {
		m := authMethods[int(which)%len(authMethods)]
		c := alice()
		c.Auth = []AuthMethod{m}
		c.Random = testRandom(200) // no recorded proof fits
		end := &authEnd{}
		fuzzConversation(t, newAuthPeer(m.protocol(), &c, end), end, script)
		if len(end.results) > 0 && (m == AuthMSCHAPv2 || m == AuthEAPMSCHAPv2) {
			t.Errorf("%v: believed an unproven server", m)
		}
	})
}

func FuzzAuthenticator(f *testing.F) {
	addConversations(f)
	f.Fuzz(func(t *testing.T, which byte, script []byte) {
		m := authMethods[int(which)%len(authMethods)]
		c := doorman()
		end := &authEnd{}
		fuzzConversation(t, newAuthenticator(m, &c, end), end, script)
		for _, r := range end.results {
			if r.username != "alice" {
				t.Errorf("%v: let %q in", m, r.username)
			}
		}
	})
}
