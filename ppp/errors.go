package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrClosed is what [PacketHandler].Down gets after [Session.Close], and what WritePackets returns after Down.
var ErrClosed = errors.New("ppp: link closed")

// A NegotiationError is our own verdict: the two ends could not agree within the bounds of [Timers].
type NegotiationError struct {
	Protocol string // the stage: lcp, auth, ccp, ipcp, ipv6cp
	Cause    string // in words
	Timeout  bool   // the peer did not answer at all
	Hint     string // advice for the user; may be empty
	Err      error  // what lies behind it; may be nil
}

func (e *NegotiationError) Error() string {
	s := "ppp: " + e.Protocol + ": " + e.Cause
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *NegotiationError) Unwrap() error { return e.Err }

// Stage names the part of the connection that failed.
func (e *NegotiationError) Stage() string { return e.Protocol }

// Advice is one line for the user; may be empty.
func (e *NegotiationError) Advice() string {
	switch {
	case e.Hint != "":
		return e.Hint
	case e.Timeout && e.Protocol == "lcp":
		return "the tunnel is up but no PPP comes through it: a firewall on the way may drop its data, or the server's PPP failed to start; look at its log"
	case e.Timeout:
		return "look at the server's log"
	}
	return ""
}

// A LoopbackError means that our own frames come back to us (RFC 1661 section 6.4).
type LoopbackError struct{}

func (e *LoopbackError) Error() string {
	return "ppp: lcp: the link is looped back: our own Magic-Number came back"
}

// Stage names the part of the connection that failed.
func (e *LoopbackError) Stage() string { return "lcp" }

// Advice is one line for the user.
func (e *LoopbackError) Advice() string {
	return "the server, or something on the way, sends our frames back: check the server address"
}

// An EchoTimeoutError means that a link that was up has gone silent.
type EchoTimeoutError struct {
	Failures int           // Echo-Requests without an answer
	Silence  time.Duration // since the last frame
}

func (e *EchoTimeoutError) Error() string {
	return fmt.Sprintf("ppp: lcp: no answer to %d Echo-Requests, nothing heard for %s", e.Failures, e.Silence.Round(time.Second))
}

// Stage names the part of the connection that failed.
func (e *EchoTimeoutError) Stage() string { return "lcp" }

// Advice is one line for the user.
func (e *EchoTimeoutError) Advice() string {
	return "the server or the way to it is gone; if it just does not answer echoes, set echo_interval to a negative value"
}

// A PeerClosedError is the peer's verdict: it sent an LCP Terminate-Request.
type PeerClosedError struct {
	During  string // the stage in which it came: lcp, auth, ccp or ipcp; lcp too for a link that was up
	Message string // the peer's text: printable, at most 256 bytes; may be empty
	Code    uint32 // error code of Windows RRAS; 0: none
	Hint    string // advice for the user, if the code has none; may be empty
}

// rrasMark stands between Magic-Number and error code in the Terminate-Request of Windows RRAS.
const rrasMark = 0x003ccd74

// newPeerClosedError reads the data of a Terminate-Request, which may hold anything (RFC 1661 section 5.5).
func newPeerClosedError(stage string, data []byte) *PeerClosedError {
	e := &PeerClosedError{During: stage}
	if len(data) >= 12 && binary.BigEndian.Uint32(data[4:]) == rrasMark {
		e.Code = binary.BigEndian.Uint32(data[8:])
		return e
	}
	e.Message = peerText(data)
	return e
}

func (e *PeerClosedError) Error() string {
	s := "ppp: " + e.During + ": peer closed the link"
	if e.Code != 0 {
		s += fmt.Sprintf(": error %d", e.Code)
		if cause := rrasErrors[e.Code].cause; cause != "" {
			s += " (" + cause + ")"
		}
	}
	if e.Message != "" {
		s += fmt.Sprintf(": %q", e.Message)
	}
	return s
}

// Stage names the part of the connection that failed.
func (e *PeerClosedError) Stage() string { return e.During }

// Advice is one line for the user; may be empty.
func (e *PeerClosedError) Advice() string {
	if advice := rrasErrors[e.Code].advice; advice != "" {
		return advice
	}
	if e.Hint != "" {
		return e.Hint
	}
	if e.During == "auth" {
		return "the server ended the login without saying why: check user name, password and the allowed auth methods"
	}
	return ""
}

// rrasErrors explains the error codes of Windows remote access (learn.microsoft.com, "Routing and Remote Access Error
// Codes") that come in Terminate-Requests.
var rrasErrors = map[uint32]struct{ cause, advice string }{
	629: {"closed by the remote computer", ""},
	646: {"logon hours", "the account may not log in at this hour"},
	647: {"account disabled", "ask the server's administrator to enable the account"},
	648: {"password expired", "change the password, then try again"},
	649: {"no dial-in permission", "ask the server's administrator for the right to dial in"},
	691: {"wrong user name or password", "check user name, domain and password"},
	718: {"waiting for PPP timed out", ""},
	719: {"PPP ended by the remote computer", ""},
	720: {"no PPP control protocols agreed", "the server may lack addresses to assign: ask its administrator"},
	732: {"PPP options do not converge", ""},
	733: {"no network protocol agreed", ""},
	734: {"PPP link ended", ""},
	735: {"requested address refused", "remove the configured address and take the server's"},
	736: {"remote computer ended the protocol", ""},
	737: {"loopback detected", ""},
	738: {"no address assigned", "the server's address pool may be used up: ask its administrator"},
	741: {"encryption refused by the local computer", "allow MPPE"},
	742: {"encryption refused by the remote computer", "the server cannot encrypt as asked: use a weaker MPPE policy or L2TP/IPsec"},
	812: {"refused by a policy of the server", "the server's policy wants another auth method or account"},
	919: {"authentication protocol refused", "allow another auth method that the server accepts"},
}
