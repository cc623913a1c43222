package ppp

import (
	"strings"
	"testing"
	"time"
)

// TestErrorsTellStageCauseAndAdvice as the user sees them.
func TestErrorsTellStageCauseAndAdvice(t *testing.T) {
	tests := []struct {
		err           error
		stage, text   string
		advicePresent bool
	}{
		{&NegotiationError{Protocol: "lcp", Cause: "no answer from the peer's PPP", Timeout: true}, "lcp", "ppp: lcp: no answer from the peer's PPP", true},
		{&NegotiationError{Protocol: "auth", Cause: "late", Timeout: true}, "auth", "ppp: auth: late", true},
		{&NegotiationError{Protocol: "ipcp", Cause: "x", Hint: "do this"}, "ipcp", "ppp: ipcp: x", true},
		{&NegotiationError{Protocol: "ipcp", Cause: "x", Err: ErrClosed}, "ipcp", "ppp: ipcp: x: ppp: link closed", false},
		{&LoopbackError{}, "lcp", "looped back", true},
		{&EchoTimeoutError{Failures: 4, Silence: 150*time.Second + time.Millisecond}, "lcp", "no answer to 4 Echo-Requests, nothing heard for 2m30s", true},
		{&PeerClosedError{During: "auth"}, "auth", "ppp: auth: peer closed the link", true},
		{&PeerClosedError{During: "lcp", Code: 691}, "lcp", "error 691 (wrong user name or password)", true},
		{&PeerClosedError{During: "lcp", Code: 1, Message: "m"}, "lcp", `error 1: "m"`, false},
	}
	for _, test := range tests {
		if !strings.Contains(test.err.Error(), test.text) || stageOf(test.err) != test.stage || (adviceOf(test.err) != "") != test.advicePresent {
			t.Errorf("%q, stage %q, advice %q", test.err, stageOf(test.err), adviceOf(test.err))
		}
	}
	if Peer.String() != "peer" || Authenticator.String() != "authenticator" {
		t.Error(Peer, Authenticator)
	}
}

// FuzzTerminateText: whatever the data of a Terminate-Request hold, the text is printable and bounded.
func FuzzTerminateText(f *testing.F) {
	f.Add([]byte("User request"))
	f.Add(unhex(f, "4a5b6c7d003ccd74000002e6"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := newPeerClosedError("lcp", data)
		if len(e.Message) > maxPeerText || strings.ContainsAny(e.Error(), "\x00\x1b\r\n") {
			t.Fatalf("%q", e.Error())
		}
	})
}
