package ppp

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// mschapValueLen is the length of a Response's Value in both versions (RFC 2433 section 5, RFC 2759 section 4).
const mschapValueLen = 49

// mschap is the algorithm of RFC 2433. The LAN Manager response is neither sent nor believed: it gives the password away.
type mschap struct{}

func (mschap) method() AuthMethod { return AuthMSCHAP }
func (mschap) challengeSize() int { return 8 }

// prove builds LM response (24, zero), NT response (24), flag "use the NT response" (RFC 2433 section 5).
func (mschap) prove(_ byte, challenge []byte, _, password string) (chapProof, error) {
	hash, err := ntPasswordHash(password)
	if err != nil {
		return chapProof{}, &AuthLocalError{Method: AuthMSCHAP, Reason: AuthBadLogin, Detail: err.Error()}
	}
	response := challengeResponse([8]byte(challenge), hash)
	value := make([]byte, 24, mschapValueLen)
	value = append(append(value, response[:]...), 1)

	lm := lmPasswordHash(password)
	keys := &mppeKeys{
		method:  AuthMSCHAP,
		lmStart: [8]byte(lm[:8]),
		ntStart: ntStartKey([8]byte(challenge), hashNTPasswordHash(hash)),
	}
	return chapProof{value: value, keys: keys}, nil
}

func (a mschap) verify(id byte, challenge, value []byte, username, password string) (chapProof, int) {
	proof, err := a.prove(id, challenge, username, password)
	if err != nil || len(value) != mschapValueLen {
		return chapProof{}, 0
	}
	useNT := subtle.ConstantTimeByteEq(value[48], 1)
	return proof, useNT & subtle.ConstantTimeCompare(proof.value[24:48], value[24:48])
}

func (mschap) failure(random io.Reader) (string, error) { return mschapRefusal(random, 8, 2) }

// mschapv2 is the algorithm of RFC 2759.
type mschapv2 struct {
	random   io.Reader
	fullName bool // hash DOMAIN\user whole
	eap      bool // inside EAP-MSCHAPv2
}

func (a mschapv2) method() AuthMethod {
	if a.eap {
		return AuthEAPMSCHAPv2
	}
	return AuthMSCHAPv2
}

func (mschapv2) challengeSize() int { return 16 }

func (a mschapv2) prove(_ byte, challenge []byte, username, password string) (chapProof, error) {
	peerChallenge, err := randomOctets(a.random, 16)
	if err != nil {
		return chapProof{}, err
	}
	return a.proveWith([16]byte(peerChallenge), [16]byte(challenge), username, password)
}

// proveWith builds Peer-Challenge (16), reserved (8, zero), NT-Response (24), flags (1, zero) (RFC 2759 section 4).
func (a mschapv2) proveWith(peerChallenge, challenge [16]byte, username, password string) (chapProof, error) {
	hash, err := ntPasswordHash(password)
	if err != nil {
		return chapProof{}, &AuthLocalError{Method: a.method(), Reason: AuthBadLogin, Detail: err.Error()}
	}
	short := challengeHash(peerChallenge, challenge, hashedName(username, a.fullName))
	response := challengeResponse(short, hash)
	value := make([]byte, mschapValueLen)
	copy(value[0:16], peerChallenge[:])
	copy(value[24:48], response[:])

	hashHash := hashNTPasswordHash(hash)
	return chapProof{
		value:   value,
		success: authenticatorResponse(hashHash, response, short),
		keys:    &mppeKeys{method: AuthMSCHAPv2, master: masterKey(hashHash, response)},
	}, nil
}

func (a mschapv2) verify(_ byte, challenge, value []byte, username, password string) (chapProof, int) {
	if len(value) != mschapValueLen {
		return chapProof{}, 0
	}
	proof, err := a.proveWith([16]byte(value[:16]), [16]byte(challenge), username, password)
	if err != nil {
		return chapProof{}, 0
	}
	return proof, subtle.ConstantTimeCompare(proof.value[24:48], value[24:48])
}

func (mschapv2) failure(random io.Reader) (string, error) { return mschapRefusal(random, 16, 3) }

// parseMSCHAPSuccess splits the text of a Success, "S=<40 hex digits> M=<message>" (RFC 2759 section 5). proof is "S=" and the digits in
// upper case, empty if they are missing or malformed; message is empty if it is missing.
func parseMSCHAPSuccess(text []byte) (proof string, message []byte) {
	const length = 2 + 40
	if len(text) < length || !bytes.HasPrefix(text, []byte("S=")) {
		return "", nil
	}
	digits, message := text[2:length], text[length:]
	if _, err := hex.DecodeString(string(digits)); err != nil {
		return "", nil
	}
	message = bytes.TrimLeft(message, " ")
	return "S=" + strings.ToUpper(string(digits)), bytes.TrimPrefix(message, []byte("M="))
}

// An mschapFailure is the text of a Failure (RFC 2433 section 7, RFC 2759 section 6).
type mschapFailure struct {
	code      int    // E=; 0 if missing
	retry     bool   // R=1: the server would hear another Response
	challenge []byte // C=; nil if missing or malformed
	version   int    // V=: of the change-password protocol; 0 if missing
	message   []byte // M=, or the whole text if it has no field at all; aliases the text
}

// parseMSCHAPFailure reads "E=<code> R=<0|1> C=<hex> V=<n> M=<text>". Servers leave fields out and change their order; M= is always
// last, since it may hold anything.
func parseMSCHAPFailure(text []byte) mschapFailure {
	var f mschapFailure
	rest := text
	known := false
	for len(rest) > 0 {
		if message, ok := bytes.CutPrefix(rest, []byte("M=")); ok {
			f.message = message
			return f
		}
		var word []byte
		word, rest, _ = bytes.Cut(rest, []byte(" "))
		key, value, _ := strings.Cut(string(word), "=")
		switch key {
		case "E":
			f.code = mschapNumber(value)
		case "R":
			f.retry = value == "1"
		case "C":
			if challenge, err := hex.DecodeString(value); err == nil {
				f.challenge = challenge
			}
		case "V":
			f.version = mschapNumber(value)
		default:
			continue
		}
		known = true
	}
	if !known {
		f.message = text
	}
	return f
}

// mschapNumber reads a field of up to 10 decimal digits; 0 if it is none or does not fit into 31 bits.
func mschapNumber(digits string) int {
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// appendMSCHAPFailure writes the fields in the order of RFC 2759 section 6.
func appendMSCHAPFailure(dst []byte, f mschapFailure) []byte {
	retry := 0
	if f.retry {
		retry = 1
	}
	return fmt.Appendf(dst, "E=%d R=%d C=%X V=%d M=%s", f.code, retry, f.challenge, f.version, f.message)
}

// mschapBadLogin is the code for a wrong user name or password.
const mschapBadLogin = 691

// mschapRefusal is our text, as the authenticator, for a wrong login.
func mschapRefusal(random io.Reader, challengeSize, version int) (string, error) {
	challenge, err := randomOctets(random, challengeSize)
	if err != nil {
		return "", err
	}
	f := mschapFailure{code: mschapBadLogin, challenge: challenge, version: version, message: []byte("Access denied")}
	return string(appendMSCHAPFailure(nil, f)), nil
}

// mschapCodes explains E= (RFC 2759 section 6).
var mschapCodes = map[int]struct{ cause, advice string }{
	646: {"not at this time of day", "the server permits this account only at certain hours: try later or ask its administrator"},
	647: {"account disabled", "ask the server's administrator to enable the account"},
	648: {"password expired", "set a new password by the means the server's site offers, then put it into the configuration"},
	649: {"no permission to dial in", "ask the server's administrator to permit remote access (VPN, dial-in) for this account"},
	691: {"wrong user name or password", `check username and password; some servers want the name as DOMAIN\user or user@domain`},
	709: {"password change failed", "set a new password by the means the server's site offers: it may be too short, too simple or used before"},
}

// mschapCause says in words what E= means.
func mschapCause(code int) string {
	if c, ok := mschapCodes[code]; ok {
		return c.cause
	}
	return "not explained by the protocol"
}
