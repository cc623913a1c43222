package ppp

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An AuthMethod is one way to log in, as the configuration's allow list names it.
type AuthMethod uint8

// The methods, weakest first. AuthNone stands for a peer that asks for no login at all.
const (
	AuthNone        AuthMethod = iota
	AuthPAP                    // RFC 1334
	AuthCHAPMD5                // RFC 1994
	AuthMSCHAP                 // RFC 2433
	AuthMSCHAPv2               // RFC 2759
	AuthEAPMD5                 // RFC 3748 section 5.4
	AuthEAPMSCHAPv2            // draft-kamath-pppext-eap-mschapv2
)

var authMethodNames = [...]string{
	AuthNone:        "none",
	AuthPAP:         "pap",
	AuthCHAPMD5:     "chap-md5",
	AuthMSCHAP:      "mschap",
	AuthMSCHAPv2:    "mschapv2",
	AuthEAPMD5:      "eap-md5",
	AuthEAPMSCHAPv2: "eap-mschapv2",
}

// String returns the name used in the configuration, e.g. "mschapv2".
func (m AuthMethod) String() string {
	if int(m) < len(authMethodNames) {
		return authMethodNames[m]
	}
	return fmt.Sprintf("AuthMethod(%d)", uint8(m))
}

// ParseAuthMethod is the inverse of String.
func ParseAuthMethod(name string) (AuthMethod, error) {
	i := slices.Index(authMethodNames[:], name)
	if i < 0 {
		return AuthNone, fmt.Errorf("ppp: unknown authentication method %q (known: %s)", name, strings.Join(authMethodNames[:], ", "))
	}
	return AuthMethod(i), nil
}

// givesKeys tells whether MPPE can take its keys from the login (RFC 3079).
func (m AuthMethod) givesKeys() bool {
	return m == AuthMSCHAP || m == AuthMSCHAPv2 || m == AuthEAPMSCHAPv2
}

// DefaultAuth is the allow list used when Config.Auth is empty: the methods that make the server prove
// that it knows the password, best first.
func DefaultAuth() []AuthMethod { return []AuthMethod{AuthEAPMSCHAPv2, AuthMSCHAPv2} }

// protocol tells which authentication protocol carries the method.
func (m AuthMethod) protocol() authProtocol {
	switch m {
	case AuthPAP:
		return authProtoPAP
	case AuthCHAPMD5:
		return authProtoCHAPMD5
	case AuthMSCHAP:
		return authProtoMSCHAP
	case AuthMSCHAPv2:
		return authProtoMSCHAPv2
	case AuthEAPMD5, AuthEAPMSCHAPv2:
		return authProtoEAP
	}
	return authProtoNone
}

// An authProtocol is what LCP negotiates (RFC 1661 section 6.2); EAP leaves its method open.
type authProtocol uint8

const (
	authProtoNone authProtocol = iota
	authProtoPAP
	authProtoCHAPMD5
	authProtoMSCHAP
	authProtoMSCHAPv2
	authProtoEAP
)

// PPP protocol numbers of the authentication protocols.
const (
	protocolPAP  uint16 = 0xc023
	protocolCHAP uint16 = 0xc223
	protocolEAP  uint16 = 0xc227
)

var authProtocolNames = [...]string{
	authProtoNone: "none", authProtoPAP: "PAP", authProtoCHAPMD5: "CHAP-MD5", authProtoMSCHAP: "MS-CHAP",
	authProtoMSCHAPv2: "MS-CHAP-V2", authProtoEAP: "EAP",
}

func (p authProtocol) String() string { return authProtocolNames[p] }

// authOptions are the values of LCP option 3, after its type and length: the protocol number and, for CHAP, the
// algorithm (RFC 1994 section 3, RFC 2433 section 3, RFC 2759 section 3).
var authOptions = [...]string{
	authProtoPAP:      "\xc0\x23",
	authProtoCHAPMD5:  "\xc2\x23\x05",
	authProtoMSCHAP:   "\xc2\x23\x80",
	authProtoMSCHAPv2: "\xc2\x23\x81",
	authProtoEAP:      "\xc2\x27",
}

// number returns the PPP protocol number that carries the protocol's packets; 0 for authProtoNone.
func (p authProtocol) number() uint16 {
	if p == authProtoNone {
		return 0
	}
	return binary.BigEndian.Uint16([]byte(authOptions[p]))
}

// appendAuthOption appends the value of LCP option 3 (what follows type and length) that demands m.
// AuthNone appends nothing: no option is sent for it.
func appendAuthOption(dst []byte, m AuthMethod) []byte {
	return append(dst, authOptions[m.protocol()]...)
}

// parseAuthOption tells which protocol the value of LCP option 3 demands; authProtoNone if it is one we do not speak.
func parseAuthOption(value []byte) authProtocol {
	if len(value) == 0 {
		return authProtoNone
	}
	return authProtocol(max(0, slices.Index(authOptions[:], string(value))))
}

// authMethodFor returns the first of the allowed methods that the value of LCP option 3 permits. The authenticator
// asks it when the peer has answered its demand with a Configure-Nak.
func authMethodFor(value []byte, allowed []AuthMethod) (m AuthMethod, ok bool) {
	proto := parseAuthOption(value)
	i := slices.IndexFunc(allowed, func(m AuthMethod) bool { return proto != authProtoNone && m.protocol() == proto })
	if i < 0 {
		return AuthNone, false
	}
	return allowed[i], true
}

// acceptAuthOption judges the peer's demand (the value of its LCP option 3) by our allow list. ok: acknowledge it, proto
// is what will be spoken. Otherwise nak is the value to answer a Configure-Nak with, or nil when the only
// answer is Configure-Reject.
//
// naks is the number of Configure-Naks already sent on this option: each next one proposes our next protocol, since a peer that lacks our
// first choice often repeats its own (RFC 1661 section 6.2 leaves it one proposal at a time).
func acceptAuthOption(value []byte, allowed []AuthMethod, naks int) (proto authProtocol, nak []byte, ok bool) {
	if m, ok := authMethodFor(value, allowed); ok {
		return m.protocol(), nil, true
	}
	var proposals []AuthMethod
	for _, m := range allowed {
		known := slices.ContainsFunc(proposals, func(p AuthMethod) bool { return p.protocol() == m.protocol() })
		if m != AuthNone && !known {
			proposals = append(proposals, m)
		}
	}
	if len(proposals) == 0 {
		return authProtoNone, nil, false
	}
	// A server that does EAP begins with it. One that begins with another protocol often takes a proposal of EAP for a refusal of
	// everything and goes down to PAP (pppd does), so EAP comes last, whatever our preference.
	slices.SortStableFunc(proposals, func(a, b AuthMethod) int { return cmp.Compare(eapLast(a), eapLast(b)) })
	return authProtoNone, appendAuthOption(nil, proposals[naks%len(proposals)]), false
}

func eapLast(m AuthMethod) int {
	if m.protocol() == authProtoEAP {
		return 1
	}
	return 0
}

// An authConversation is one authentication protocol in one role. It does no I/O and belongs to the loop goroutine.
// The returned deadline is zero when there is none: a peer that waits for the first Challenge or Request has no
// deadline of its own, the phase's deadline belongs to the session.
type authConversation interface {
	// start is called when LCP has opened. For an authenticator a later call is a re-challenge.
	start(now time.Time) (next time.Time)
	// receive takes one packet of the protocol, from its code octet on. The packet is borrowed.
	receive(now time.Time, packet []byte) (next time.Time)
	advance(now time.Time) (next time.Time)
	// networkBegun tells that the peer has sent a packet of a network control protocol. It stands for an EAP Success that was lost,
	// which nobody retransmits (RFC 3748 section 4.2); the other protocols recover by themselves and ignore it.
	networkBegun(now time.Time) (next time.Time)
}

// authEvents is what a conversation tells the session. Each may be called from within any method of the conversation.
type authEvents interface {
	sendAuth(protocol uint16, packet []byte) // packet is borrowed
	// authSucceeded is called again after each re-challenge.
	authSucceeded(now time.Time, r authResult)
	// authFailed ends the link. It is called once and last; err is *AuthError or *AuthLocalError.
	authFailed(now time.Time, err error)
}

// authResult is a successful login.
type authResult struct {
	method   AuthMethod
	username string    // peer: ours, as sent; authenticator: the one that logged in, as received
	message  string    // the authenticator's text, printable and bounded; may be empty
	mppe     *mppeKeys // nil if the method gives none
}

// mppeKeys is the raw material of RFC 3079 from which the MPPE session keys are derived.
type mppeKeys struct {
	method AuthMethod // AuthMSCHAP: lmStart and ntStart are set; AuthMSCHAPv2 (also inside EAP): master is set
	client bool       // we are the peer (RFC 3079 section 3.3: the "client side"), not the authenticator

	master  [16]byte // RFC 3079 section 3.4, GetMasterKey: start keys of both directions come from it
	lmStart [8]byte  // RFC 3079 section 2.1: start key for 40 and 56 bit, both directions
	ntStart [16]byte // RFC 3079 section 2.3, GetStartKey: start key for 128 bit, both directions
}

// newAuthPeer returns the conversation in which we log in by the protocol that LCP agreed on. c has its defaults filled in.
func newAuthPeer(proto authProtocol, c *Config, ev authEvents) authConversation {
	base := newAuthBase(c, ev)
	switch proto {
	case authProtoPAP:
		return &papPeer{authBase: base}
	case authProtoCHAPMD5, authProtoMSCHAP, authProtoMSCHAPv2:
		return &chapPeer{authBase: base, algorithm: base.algorithm(proto)}
	case authProtoEAP:
		return &eapPeer{authBase: base}
	}
	panic("ppp: no authentication protocol to log in with")
}

// newAuthenticator returns the conversation in which the other side logs in with m. With an EAP method the
// other EAP methods in c.Auth are there too for a peer that asks for them by Nak. c has its defaults filled in.
func newAuthenticator(m AuthMethod, c *Config, ev authEvents) authConversation {
	base := newAuthBase(c, ev)
	switch m {
	case AuthPAP:
		return &papAuthenticator{authBase: base}
	case AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2:
		return &chapAuthenticator{authBase: base, algorithm: base.algorithm(m.protocol())}
	case AuthEAPMD5, AuthEAPMSCHAPv2:
		return &eapAuthenticator{authBase: base, method: m}
	}
	panic("ppp: no authentication method to demand")
}

// authBase is what all conversations have in common.
type authBase struct {
	c      *Config // with its defaults filled in
	events authEvents
	timer  authTimer
	failed bool // authFailed was called: nothing more is sent or heard
}

func newAuthBase(c *Config, ev authEvents) authBase {
	return authBase{c: c, events: ev, timer: authTimer{restart: c.Timers.AuthRestart, tries: c.Timers.AuthTries}}
}

func (b *authBase) networkBegun(time.Time) time.Time { return b.timer.deadline }

// fail ends the conversation.
func (b *authBase) fail(now time.Time, err error) {
	b.timer.stop()
	if !b.failed {
		b.failed = true
		b.events.authFailed(now, err)
	}
}

// maxUsername is the longest user name in octets: RFC 2759 section 4 has 256 characters, and every packet must fit the smallest MRU in use.
const maxUsername = 256

// checkName ends the login before it begins if our user name is too long to be sent.
func (b *authBase) checkName(now time.Time) {
	if len(b.c.Username) > maxUsername {
		b.fail(now, &AuthLocalError{Reason: AuthBadLogin, Detail: "user name is longer than 256 octets"})
	}
}

// secret looks up the password of a user. known is 0 or 1 for use with crypto/subtle: the caller computes on with whatever
// password it gets, so that an unknown name takes the same path as a wrong password.
func (b *authBase) secret(username string) (password string, known int) {
	if b.c.Secrets == nil {
		return "", 0
	}
	password, ok := b.c.Secrets(username)
	if !ok {
		return "", 0
	}
	return password, 1
}

// equalSecrets compares two passwords in a time that tells nothing of either; 1 if equal.
func equalSecrets(a, b []byte) int {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// randomOctets fills a new challenge or identifier.
func randomOctets(random io.Reader, size int) ([]byte, error) {
	octets := make([]byte, size)
	if _, err := io.ReadFull(random, octets); err != nil {
		return nil, &AuthLocalError{Reason: AuthNoRandom, Detail: err.Error()}
	}
	return octets, nil
}

// An authTimer spaces and counts the sendings of one packet.
type authTimer struct {
	restart  time.Duration
	tries    int
	left     int
	deadline time.Time // zero: stopped
}

// begin is called with the first sending.
func (t *authTimer) begin(now time.Time) {
	t.left = t.tries - 1
	t.deadline = now.Add(t.restart)
}

func (t *authTimer) stop() { t.deadline = time.Time{} }

func (t *authTimer) expired(now time.Time) bool {
	return !t.deadline.IsZero() && !now.Before(t.deadline)
}

// again reports whether one more sending is left and, if so, waits for its answer; otherwise it stops.
func (t *authTimer) again(now time.Time) bool {
	if t.left <= 0 {
		t.stop()
		return false
	}
	t.left--
	t.deadline = now.Add(t.restart)
	return true
}

// authHeaderLen is the length of code, identifier and length, with which the packets of PAP, CHAP and EAP begin.
const authHeaderLen = 4

var (
	errAuthShort  = errors.New("ppp: authentication packet shorter than its header")
	errAuthLength = errors.New("ppp: length field of authentication packet does not fit")
	errAuthField  = errors.New("ppp: field of authentication packet runs over its end")
)

// parseAuthPacket takes the header off. data aliases packet and ends where the length field says; octets
// behind it are padding (RFC 1334 section 2.2, RFC 1994 section 4, RFC 3748 section 4).
func parseAuthPacket(packet []byte) (code, id byte, data []byte, err error) {
	if len(packet) < authHeaderLen {
		return 0, 0, nil, errAuthShort
	}
	length := int(binary.BigEndian.Uint16(packet[2:]))
	if length < authHeaderLen || length > len(packet) {
		return 0, 0, nil, errAuthLength
	}
	return packet[0], packet[1], packet[authHeaderLen:length], nil
}

// appendAuthPacket appends header and data. What is too long for the length field is cut; no caller comes near.
func appendAuthPacket(dst []byte, code, id byte, data []byte) []byte {
	data = data[:min(len(data), 0xffff-authHeaderLen)]
	dst = append(dst, code, id)
	dst = binary.BigEndian.AppendUint16(dst, uint16(authHeaderLen+len(data)))
	return append(dst, data...)
}

// cutField takes a field off that is preceded by its length in one octet. Both results alias data.
func cutField(data []byte) (field, rest []byte, err error) {
	if len(data) == 0 || int(data[0]) > len(data)-1 {
		return nil, nil, errAuthField
	}
	end := 1 + int(data[0])
	return data[1:end], data[end:], nil
}

// maxPeerText bounds what we keep of the other side's texts, in octets.
const maxPeerText = 256

// peerText makes a text of the other side fit for a log line or a terminal: printable, one line, bounded.
func peerText(text []byte) string {
	var s strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			r = ' '
		}
		if s.Len()+utf8.RuneLen(r) > maxPeerText {
			break
		}
		s.WriteRune(r)
	}
	return strings.TrimSpace(s.String())
}

// AuthError is the peer's verdict: it refused our login.
type AuthError struct {
	Method  AuthMethod
	Code    int    // E= of MS-CHAP (RFC 2433 section 7, RFC 2759 section 6); 0 when the peer gave none
	Message string // the peer's text: printable, at most 256 octets, may be empty
}

func (e *AuthError) Error() string {
	s := "ppp: auth: server refused the login"
	if e.Code != 0 {
		s += fmt.Sprintf(": E=%d (%s)", e.Code, mschapCause(e.Code))
	}
	if e.Message != "" {
		s += fmt.Sprintf(": %q", e.Message)
	}
	return s
}

// Stage names the part of the connection that failed.
func (e *AuthError) Stage() string { return "auth" }

// Advice is one line for the user.
func (e *AuthError) Advice() string {
	if advice := mschapCodes[e.Code].advice; advice != "" {
		return advice
	}
	return mschapCodes[mschapBadLogin].advice
}

// An AuthReason tells why we ended an authentication ourselves.
type AuthReason uint8

// The reasons of an AuthLocalError.
const (
	AuthUnproven     AuthReason = iota + 1 // the server's S= is missing or wrong (RFC 2759 section 5)
	AuthNotAllowed                         // the server insists on a method that Config.Auth does not allow
	AuthNotAsked                           // the server asks for no login, which Config.Auth does not allow
	AuthNoAnswer                           // all sendings went unanswered
	AuthBadLogin                           // our user name or password cannot be used with the method
	AuthLoginRefused                       // authenticator: the client's login is wrong
	AuthNoRandom                           // Config.Random failed
)

// AuthLocalError is our own verdict on an authentication.
type AuthLocalError struct {
	Method AuthMethod // AuthNone where no known method is concerned
	Reason AuthReason
	Detail string // printable; what is wrong, the method demanded, or who was refused; may be empty
}

func (e *AuthLocalError) Error() string {
	switch e.Reason {
	case AuthUnproven:
		return "ppp: auth: server could not prove it knows the password"
	case AuthNotAllowed:
		return "ppp: auth: server insists on a login by " + e.Detail + ", which is not allowed"
	case AuthNotAsked:
		return "ppp: auth: server asks for no login, which is not allowed"
	case AuthNoAnswer:
		return "ppp: auth: no answer in the login by " + e.Method.String()
	case AuthBadLogin:
		return "ppp: auth: " + e.Detail
	case AuthLoginRefused:
		return fmt.Sprintf("ppp: auth: refused the login of %q by %s", e.Detail, e.Method)
	case AuthNoRandom:
		return "ppp: auth: no random numbers: " + e.Detail
	}
	return "ppp: auth: failed"
}

// Stage names the part of the connection that failed.
func (e *AuthLocalError) Stage() string { return "auth" }

// authRisks says what the user gives away by allowing a method.
var authRisks = [...]string{
	AuthPAP:     "it shows the password to anyone on the way, so only inside IPsec",
	AuthCHAPMD5: "the server proves nothing and the password can be guessed by anyone on the way, so better inside IPsec",
	AuthMSCHAP:  "the server proves nothing and the password can be guessed by anyone on the way, so better inside IPsec",
	AuthEAPMD5:  "the server proves nothing and the password can be guessed by anyone on the way, so better inside IPsec",
}

// Advice is one line for the user; empty where there is none.
func (e *AuthLocalError) Advice() string {
	switch e.Reason {
	case AuthUnproven:
		return "someone may be posing as the server, or its RADIUS proxy loses the proof (S=): ask its administrator before going on"
	case AuthNotAllowed:
		if e.Method == AuthNone {
			return "ask the server's administrator to permit a login by mschapv2 or eap-mschapv2"
		}
		advice := fmt.Sprintf("add %q to auth to allow it", e.Method)
		if int(e.Method) < len(authRisks) && authRisks[e.Method] != "" {
			advice += "; " + authRisks[e.Method]
		}
		return advice
	case AuthNotAsked:
		return `add "none" to auth if the server is known to want no login: auth = [..., "none"]`
	case AuthNoAnswer:
		return "the server may be overloaded or wait for its RADIUS server: try again later"
	case AuthBadLogin:
		return "correct username or password in the configuration"
	}
	return ""
}

// authDemandError is the end of a negotiation in which the peer insisted on the value of LCP option 3
// although our allow list does not have it.
func authDemandError(value []byte) error {
	methods := [...]AuthMethod{
		authProtoPAP: AuthPAP, authProtoCHAPMD5: AuthCHAPMD5, authProtoMSCHAP: AuthMSCHAP, authProtoMSCHAPv2: AuthMSCHAPv2,
		authProtoEAP: AuthEAPMSCHAPv2,
	}
	proto := parseAuthOption(value)
	if proto == authProtoNone {
		return &AuthLocalError{Reason: AuthNotAllowed, Detail: fmt.Sprintf("unknown protocol %x", value[:min(len(value), 8)])}
	}
	return &AuthLocalError{Method: methods[proto], Reason: AuthNotAllowed, Detail: proto.String()}
}

// authNotAskedError is the end of a negotiation in which the peer asked for no login. It returns nil when
// the allow list has AuthNone.
func authNotAskedError(allowed []AuthMethod) error {
	if slices.Contains(allowed, AuthNone) {
		return nil
	}
	return &AuthLocalError{Reason: AuthNotAsked}
}
