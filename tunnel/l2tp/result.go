package l2tp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrClosed is the verdict when we ended a tunnel or session ourselves, and what WriteFrames returns then.
var ErrClosed = errors.New("l2tp: closed")

// A resultCode is the first field of the Result Code AVP; StopCCN and CDN number theirs apart (RFC 2661 section 4.4.2).
type resultCode uint16

const (
	stopGeneral       resultCode = 1
	stopError         resultCode = 2 // the error code says what
	stopNotAuthorized resultCode = 4
	stopVersion       resultCode = 5
	stopShutdown      resultCode = 6
	stopFSM           resultCode = 7

	cdnError          resultCode = 2
	cdnAdministrative resultCode = 3
	cdnNoFacilities   resultCode = 4
	cdnTimeout        resultCode = 10
)

var stopResults = [...]string{
	1: "general request to clear the tunnel",
	2: "general error",
	3: "control connection already exists",
	4: "not authorised to have a tunnel",
	5: "protocol version not supported",
	6: "the peer is shutting down",
	7: "message in the wrong state",
}

var cdnResults = [...]string{
	1:  "loss of carrier",
	2:  "general error",
	3:  "administrative reasons",
	4:  "no facilities for the moment",
	5:  "no facilities",
	6:  "invalid destination",
	7:  "no carrier detected",
	8:  "busy",
	9:  "no dial tone",
	10: "not established in time",
	11: "no framing detected",
}

// An errorCode is a General Error code (RFC 2661 section 4.4.2).
type errorCode uint16

const (
	errorLength     errorCode = 2
	errorValue      errorCode = 3
	errorResources  errorCode = 4
	errorVendor     errorCode = 6
	errorTryAnother errorCode = 7
	errorUnknownAVP errorCode = 8
)

var generalErrors = [...]string{
	1: "no control connection yet",
	2: "wrong length",
	3: "value out of range or reserved field not zero",
	4: "out of resources",
	5: "invalid session ID",
	6: "vendor-specific error",
	7: "try another server",
	8: "unknown mandatory AVP",
}

func word(table []string, code uint16) string {
	if int(code) < len(table) {
		return table[code]
	}
	return ""
}

// A result is the content of a Result Code AVP.
type result struct {
	code  resultCode
	error errorCode
	text  string
}

// appendResult appends the value of a Result Code AVP. It always holds the error code, which some peers cannot do without.
func appendResult(dst []byte, r result) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.code))
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.error))
	return append(dst, r.text[:min(len(r.text), resultTextSize)]...)
}

// parseResult reads the value of a Result Code AVP. All but the result code may be missing: RouterOS leaves the error code out.
func parseResult(v []byte) (r result) {
	if len(v) >= 2 {
		r.code = resultCode(binary.BigEndian.Uint16(v))
	}
	if len(v) >= 4 {
		r.error = errorCode(binary.BigEndian.Uint16(v[2:]))
		// Some Apple peers send the General Error code in their own byte order.
		if swapped := r.error<<8 | r.error>>8; r.code == stopError && int(r.error) >= len(generalErrors) && int(swapped) < len(generalErrors) {
			r.error = swapped
		}
		r.text = readable(v[4:])
	}
	return r
}

// readable makes text from the network fit for people: bounded, valid, without control characters.
func readable(b []byte) string {
	b = b[:min(len(b), resultTextSize)]
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return -1
		}
		return c
	}, string(b)))
}

// Stages of a connection that this package can fail in, as Stage returns them.
const (
	stageTunnel  = "l2tp-tunnel"
	stageSession = "l2tp-session"
)

// A PeerError is the peer's verdict: it refused or ended a tunnel (StopCCN) or a session (CDN).
type PeerError struct {
	Session    bool   // it came as a CDN and concerns one session; otherwise a StopCCN
	WasUp      bool   // the tunnel or session had been up
	ResultCode uint16 // RFC 2661 section 4.4.2; 0 if the peer gave none
	ErrorCode  uint16 // General Error code, 0 if none
	Text       string // the peer's own words, bounded and printable; may be empty
	CauseCode  uint16 // Q.931 cause of a CDN, 0 if none
}

func (e *PeerError) Error() string {
	var b strings.Builder
	what, table := "tunnel", stopResults[:]
	if e.Session {
		what, table = "session", cdnResults[:]
	}
	verb := "refused"
	if e.WasUp {
		verb = "closed"
	}
	fmt.Fprintf(&b, "l2tp: peer %s the %s: ", verb, what)
	if w := word(table, e.ResultCode); w != "" {
		fmt.Fprintf(&b, "%s (result %d", w, e.ResultCode)
	} else {
		fmt.Fprintf(&b, "(result %d", e.ResultCode)
	}
	if e.ErrorCode != 0 {
		fmt.Fprintf(&b, ", error %d", e.ErrorCode)
		if w := word(generalErrors[:], e.ErrorCode); w != "" {
			fmt.Fprintf(&b, ": %s", w)
		}
	}
	if e.CauseCode != 0 {
		fmt.Fprintf(&b, ", Q.931 cause %d", e.CauseCode)
	}
	b.WriteByte(')')
	if e.Text != "" {
		fmt.Fprintf(&b, ": %q", e.Text)
	}
	return b.String()
}

// Stage is "l2tp-tunnel" or "l2tp-session".
func (e *PeerError) Stage() string {
	if e.Session {
		return stageSession
	}
	return stageTunnel
}

// Advice is one line for the user, or empty.
func (e *PeerError) Advice() string {
	switch code := resultCode(e.ResultCode); {
	case code == stopError && errorCode(e.ErrorCode) == errorTryAnother:
		return "the server wants this client to use another server: ask its operator which"
	case code == stopError && errorCode(e.ErrorCode) == errorResources:
		return "the server is full: try again later, or ask its operator about licences and address pools"
	case !e.Session && code == stopNotAuthorized:
		return "the server does not admit this client: check the tunnel secret and the host name it expects"
	case !e.Session && code == stopVersion:
		return "the server does not speak L2TP version 2: L2TPv3 is not supported"
	case !e.Session && code == stopShutdown:
		return "the server is being restarted: try again later"
	case e.Session && (code == cdnNoFacilities || code == 5 || code == 8):
		return "the server has no free line: try again later, or ask its operator about licences and address pools"
	case e.Session && e.WasUp && (code == 1 || code == cdnAdministrative):
		return "the server ended the session: often the login was refused, an idle or session time ran out, or the user connected from elsewhere"
	}
	return ""
}

// A Kind says why we gave up a tunnel or session.
type Kind uint8

const (
	NoAnswer    Kind = iota + 1 // the peer acknowledged nothing for a whole cycle of retransmissions (RFC 2661 section 5.8)
	TimedOut                    // the peer acknowledges, but the tunnel or session was not set up in time
	Unreachable                 // the network or the peer's host refused our datagrams
	WrongSecret                 // the peer could not prove that it knows the tunnel secret, or hides with another one
	NoSecret                    // the peer asks for a tunnel secret and we have none
	Protocol                    // the peer sent what RFC 2661 does not allow
	NoResources                 // a limit of ours was reached
	Refused                     // the handler did not accept the tunnel or session
	TieLost                     // both sides dialed, and the peer's tunnel has precedence (RFC 2661 section 4.4.3)
)

// A LocalError is our own verdict on a tunnel or session.
type LocalError struct {
	Session bool // it concerns one session
	WasUp   bool // the tunnel had been up
	Kind    Kind
	Detail  string // what exactly, in words
	Err     error  // the cause, if another layer had one
}

func (e *LocalError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("l2tp: %s: %v", e.Detail, e.Err)
	}
	return "l2tp: " + e.Detail
}

func (e *LocalError) Unwrap() error { return e.Err }

// Stage is "l2tp-tunnel" or "l2tp-session".
func (e *LocalError) Stage() string {
	if e.Session {
		return stageSession
	}
	return stageTunnel
}

// Advice is one line for the user, or empty.
func (e *LocalError) Advice() string {
	switch e.Kind {
	case NoAnswer:
		return "check the server's address, that UDP port 1701 is open on the way, and whether the server wants IPsec"
	case TimedOut:
		return "the server answers but does not finish: it may be overloaded or wait for something else"
	case Unreachable:
		return "check that the server and its L2TP service run, and that this network can reach them"
	case WrongSecret:
		return "check the tunnel secret (it is neither the IPsec pre-shared key nor the user's password)"
	case NoSecret:
		return "set the tunnel secret"
	case Protocol:
		return "the server does not keep to RFC 2661: the permissive option may help"
	case NoResources:
		return "raise the limit or close tunnels and sessions that are not needed"
	}
	return ""
}
