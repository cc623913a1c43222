package pptp

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrClosed is the verdict when we ended a connection or call ourselves, and what WriteFrames returns then.
var ErrClosed = errors.New("pptp: closed")

// Result and error codes that we send or ask for by name (RFC 2637 sections 2.2 to 2.16).
const (
	startOK            = 1
	startExists        = 3
	startNotAuthorised = 4
	startVersion       = 5

	stopShutdown = 3 // reason of a Stop-Control-Connection-Request: the local system shuts down
	stopOK       = 1
	echoOK       = 1

	callOK           = 1
	callGeneralError = 2
	callBusy         = 4
	callRefused      = 7
	incomingRefused  = 3

	cdnLostCarrier    = 1
	cdnGeneralError   = 2
	cdnAdministrative = 3
	cdnRequest        = 4

	errorNoResource = 4
	errorBadCallID  = 5
)

// results puts the Result Codes, or the reason, of each message in words.
var results = map[MessageType][]string{
	msgSCCRP: {1: "ok", 2: "general error", 3: "a control connection exists already", 4: "not authorised to have a control connection",
		5: "protocol version not supported"},
	msgStopCCRQ: {1: "general request to clear the control connection", 2: "cannot support the peer's version of the protocol",
		3: "the peer is shutting down"},
	msgStopCCRP:  {1: "ok", 2: "general error"},
	msgEchoReply: {1: "ok", 2: "general error"},
	msgOCRP: {1: "connected", 2: "general error", 3: "no carrier detected", 4: "busy", 5: "no dial tone", 6: "not established in time",
		7: "outgoing calls are not accepted"},
	msgICRP:           {1: "connected", 2: "general error", 3: "incoming calls are not accepted"},
	msgCallDisconnect: {1: "loss of carrier", 2: "general error", 3: "administrative reasons", 4: "on request"},
}

// generalErrors puts the General Error Codes in words (RFC 2637 section 2.16).
var generalErrors = []string{
	1: "no control connection yet",
	2: "wrong length or magic cookie",
	3: "value out of range or reserved field not zero",
	4: "out of resources",
	5: "invalid Call ID",
	6: "vendor-specific error in the PAC",
}

func word(table []string, code uint8) string {
	if int(code) < len(table) {
		return table[code]
	}
	return ""
}

// readable makes text from the network fit for people: bounded by the field it came in, valid, without control characters.
func readable(text string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return -1
		}
		return c
	}, text))
}

// Stages of a connection that this package can fail in, as Stage returns them.
const (
	stageControl = "pptp-control"
	stageGRE     = "gre"
)

// A PeerError is the peer's verdict: it refused or ended a control connection or a call.
type PeerError struct {
	Message    MessageType // the one that said so
	WasUp      bool        // the connection or call had been up
	ResultCode uint8       // of that message (RFC 2637 sections 2.2 to 2.13), or its reason; 0 if it has none
	ErrorCode  uint8       // General Error Code (section 2.16), 0 if none
	CauseCode  uint16      // Q.931 cause, 0 if none
	Text       string      // the call statistics of a Call-Disconnect-Notify, bounded and printable; may be empty
}

func (e *PeerError) Error() string {
	var b strings.Builder
	switch e.Message {
	case msgSCCRP:
		b.WriteString("pptp: peer refused the control connection")
	case msgStopCCRQ:
		b.WriteString("pptp: peer closed the control connection")
	case msgOCRP:
		b.WriteString("pptp: peer refused the call")
	default:
		b.WriteString("pptp: peer ended the call")
	}
	if w := word(results[e.Message], e.ResultCode); w != "" {
		fmt.Fprintf(&b, ": %s", w)
	}
	fmt.Fprintf(&b, " (%v", e.Message)
	if e.ResultCode != 0 {
		fmt.Fprintf(&b, ", result %d", e.ResultCode)
	}
	if e.ErrorCode != 0 {
		fmt.Fprintf(&b, ", error %d", e.ErrorCode)
		if w := word(generalErrors, e.ErrorCode); w != "" {
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

// Stage is "pptp-control".
func (e *PeerError) Stage() string { return stageControl }

// Unauthorised tells whether the peer admits us to no control connection (RFC 2637 section 2.2).
func (e *PeerError) Unauthorised() bool {
	return e.Message == msgSCCRP && e.ResultCode == startNotAuthorised
}

// Advice is one line for the user, or empty.
func (e *PeerError) Advice() string {
	switch {
	case e.ErrorCode == errorNoResource:
		return "the server is full: try again later, or ask its operator about licences and address pools"
	case e.ErrorCode == errorBadCallID:
		return "another client behind the same router may use the same Call ID: try again"
	}
	switch e.Message {
	case msgSCCRP:
		switch e.ResultCode {
		case startExists:
			return "the server believes that this client is connected already: try again in a minute"
		case startNotAuthorised:
			return "the server does not admit this client: ask its operator which addresses may connect"
		}
	case msgStopCCRQ:
		if e.ResultCode == stopShutdown {
			return "the server is being restarted: try again later"
		}
	case msgOCRP:
		switch e.ResultCode {
		case callBusy:
			return "the server has no free line, or allows one call at a time from one address: try again later"
		case callRefused:
			return "the server does not accept calls: ask its operator whether PPTP dial-in is enabled"
		}
	case msgCallDisconnect:
		if e.WasUp {
			return "the server ended the call: often the login was refused, an idle or session time ran out, or the user connected from elsewhere"
		}
	}
	return ""
}

// A Kind says why we gave up a connection or call.
type Kind uint8

const (
	NoAnswer       Kind = iota + 1 // the peer answered no Echo-Request (RFC 2637 section 3.1.4)
	TimedOut                       // the connection or call was not set up in time
	ConnectionLost                 // the TCP connection ended, or could not be written to
	GREBlocked                     // the call came up and GRE did not get through
	Protocol                       // the peer sent what is not PPTP
	NoResources                    // a limit of ours was reached
)

const (
	greBlocked    = "GRE (IP protocol 47) is blocked between here and the server"
	greBlockedOut = greBlocked + ": its packets arrive here, ours do not arrive there"
)

// A LocalError is our own verdict on a control connection or a call.
type LocalError struct {
	Kind   Kind
	WasUp  bool   // of ConnectionLost: the control connection had been up
	Detail string // what happened, in words
	Err    error  // the cause below, or nil
}

func (e *LocalError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("pptp: %s: %v", e.Detail, e.Err)
	}
	return "pptp: " + e.Detail
}

func (e *LocalError) Unwrap() error { return e.Err }

// Stage is "pptp-control" or "gre".
func (e *LocalError) Stage() string {
	if e.Kind == GREBlocked {
		return stageGRE
	}
	return stageControl
}

// Advice is one line for the user, or empty.
func (e *LocalError) Advice() string {
	switch e.Kind {
	case NoAnswer:
		return "check that this network still reaches the server"
	case TimedOut:
		return "the server answers TCP but does not finish: it may be overloaded, or its port may not be PPTP's"
	case ConnectionLost:
		return "the server or a firewall between cut the TCP connection: the server may admit only certain addresses"
	case GREBlocked:
		return "allow IP protocol 47 in the firewalls on the way; a router that does NAT needs its PPTP helper (on Linux nf_conntrack_pptp)"
	case Protocol:
		return "check the server's address and port: what answers there is not PPTP"
	case NoResources:
		return "raise the limit or close connections and calls that are not needed"
	}
	return ""
}
