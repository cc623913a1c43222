package pptp

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// staged is what the composition asks of an error that ends a link.
type staged interface {
	error
	Stage() string
	Advice() string
}

func TestEveryVerdictIsInWords(t *testing.T) {
	for kind, words := range results {
		for code, text := range words {
			if code == 0 {
				continue
			}
			err := staged(&PeerError{Message: kind, ResultCode: uint8(code), ErrorCode: 6, CauseCode: 34})
			for _, part := range []string{"pptp: peer", text, kind.String(), "vendor-specific", "cause 34"} {
				if text == "" || !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			if err.Stage() != "pptp-control" {
				t.Errorf("%q: stage %s", err, err.Stage())
			}
		}
	}
	for code, text := range generalErrors { // RFC 2637 section 2.16
		if err := (&PeerError{Message: msgOCRP, ResultCode: 2, ErrorCode: uint8(code)}); code > 0 && (text == "" || !strings.Contains(err.Error(), text)) {
			t.Errorf("%q lacks %q", err, text)
		}
	}
}

func TestUnknownCodesStayNumbers(t *testing.T) {
	err := &PeerError{Message: msgOCRP, ResultCode: 200, ErrorCode: 201}
	if want := "pptp: peer refused the call (Outgoing-Call-Reply, result 200, error 201)"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if got := MessageType(77).String(); got != "message of type 77" {
		t.Error(got)
	}
}

func TestAdviceFitsTheVerdict(t *testing.T) {
	for _, test := range []struct {
		err  staged
		want string // part of it; "" is none
	}{
		{&PeerError{Message: msgOCRP, ResultCode: callGeneralError, ErrorCode: errorNoResource}, "full"},
		{&PeerError{Message: msgOCRP, ResultCode: callGeneralError, ErrorCode: errorBadCallID}, "try again"},
		{&PeerError{Message: msgOCRP, ResultCode: callBusy}, "no free line"},
		{&PeerError{Message: msgOCRP, ResultCode: callRefused}, "dial-in"},
		{&PeerError{Message: msgSCCRP, ResultCode: startExists}, "in a minute"},
		{&PeerError{Message: msgSCCRP, ResultCode: startNotAuthorised}, "admit"},
		{&PeerError{Message: msgStopCCRQ, ResultCode: stopShutdown}, "restarted"},
		{&PeerError{Message: msgCallDisconnect, ResultCode: 4, WasUp: true}, "login"},
		{&PeerError{Message: msgCallDisconnect, ResultCode: 4}, ""},
		{&LocalError{Kind: NoAnswer}, "reaches"},
		{&LocalError{Kind: TimedOut}, "overloaded"},
		{&LocalError{Kind: ConnectionLost}, "addresses"},
		{&LocalError{Kind: GREBlocked}, "protocol 47"},
		{&LocalError{Kind: Protocol}, "not PPTP"},
		{&LocalError{Kind: NoResources}, "limit"},
	} {
		if got := test.err.Advice(); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%v: advice %q, want %q", test.err, got, test.want)
		}
	}
}

func TestLocalErrorKeepsItsCause(t *testing.T) {
	if err := (&LocalError{Kind: ConnectionLost, Detail: "control connection lost", Err: io.ErrUnexpectedEOF}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}
