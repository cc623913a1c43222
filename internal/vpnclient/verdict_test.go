package vpnclient

import (
	"errors"
	"fmt"
	"testing"

	"gateway/ppp"
	"gateway/tunnel/ipsec/ike"
	"gateway/tunnel/l2tp"
)

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Verdict
	}{
		{nil, Failed},
		{errors.New("x"), Failed},
		{&Error{"resolve", "", errors.New("x")}, Unreachable},
		{&l2tp.LocalError{Kind: l2tp.NoAnswer}, Unreachable},
		{&l2tp.LocalError{Kind: l2tp.NoAnswer, WasUp: true}, LinkLost},
		{&l2tp.LocalError{Kind: l2tp.Unreachable}, Unreachable},
		{&l2tp.LocalError{Kind: l2tp.WrongSecret}, Refused},
		{&l2tp.LocalError{Kind: l2tp.NoSecret}, Refused},
		{&l2tp.LocalError{Kind: l2tp.Protocol}, Disagreed},
		{&l2tp.PeerError{ResultCode: notAuthorised}, Refused},
		{&l2tp.PeerError{ResultCode: 2}, Disagreed},
		{&l2tp.PeerError{ResultCode: 6, WasUp: true}, PeerClosed},
		{&l2tp.PeerError{Session: true, ResultCode: notAuthorised}, Disagreed}, // there it means "no facilities"
		{&ike.LocalError{Kind: ike.NoAnswer}, Unreachable},
		{&ike.LocalError{Kind: ike.NoAnswerNATPort}, Unreachable},
		{&ike.LocalError{Kind: ike.NoAnswerPhase2}, Disagreed},
		{&ike.LocalError{Kind: ike.NoNATTraversal}, Disagreed},
		{&ike.LocalError{Kind: ike.Undecryptable}, Refused},
		{&ike.LocalError{Kind: ike.WrongIdentity}, Refused},
		{&ike.LocalError{Kind: ike.WrongCertificate}, Refused},
		{&ike.LocalError{Kind: ike.DeadPeer}, LinkLost},
		{&ike.PeerError{Phase: 1, Notify: 24, Authenticated: true}, Refused},
		{&ike.PeerError{Phase: 1, Notify: 24}, Disagreed}, // anyone on the way can say so
		{&ike.PeerError{Phase: 1, Notify: 14}, Disagreed},
		{&ike.PeerError{Phase: 2, Notify: 18, Authenticated: true}, Disagreed},
		{&ike.PeerError{Phase: 2, Authenticated: true}, PeerClosed},
		{&ppp.AuthError{Code: 691}, Refused},
		{&ppp.AuthLocalError{Reason: ppp.AuthUnproven}, Refused},
		{&ppp.AuthLocalError{Reason: ppp.AuthNotAllowed}, Refused},
		{&ppp.AuthLocalError{Reason: ppp.AuthNoAnswer}, Disagreed},
		{&ppp.PeerClosedError{During: "auth"}, Refused},
		{&ppp.PeerClosedError{During: "lcp"}, PeerClosed},
		{&ppp.EchoTimeoutError{}, LinkLost},
		{&ppp.LoopbackError{}, Disagreed},
		{&ppp.NegotiationError{Protocol: "ipcp"}, Disagreed},
	} {
		err := test.err
		if err != nil {
			err = fmt.Errorf("tunnel: %w", err)
		}
		if got := Judge(err); got != test.want {
			t.Errorf("%v: verdict %d, want %d", test.err, got, test.want)
		}
	}
}

func TestTheClientsOwnErrorsNameStageCauseAndAdvice(t *testing.T) {
	cause := errors.New("no such host")
	err := &Error{"resolve", "check the name", cause}
	if err.Stage() != "resolve" || err.Advice() != "check the name" || !errors.Is(err, cause) ||
		err.Error() != "vpnclient: resolve: no such host" {
		t.Errorf("%v, %q, %q", err, err.Stage(), err.Advice())
	}
}
