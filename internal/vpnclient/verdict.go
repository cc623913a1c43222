package vpnclient

import (
	"errors"

	"gateway/internal/gre"
	"gateway/internal/grebroker"
	"gateway/ppp"
	"gateway/tunnel/ipsec/ike"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

// A Verdict is the kind of a failure: what a program does about it.
type Verdict uint8

const (
	Failed       Verdict = iota // none of the kinds below
	Unreachable                 // the server's name, host or port cannot be reached, or nobody answers there
	Disagreed                   // the two ends could not agree on a protocol's settings
	Refused                     // the login, the tunnel secret, the pre-shared key or the certificate is wrong, or no common method is allowed: trying again does harm
	PeerClosed                  // the server ended the connection
	LinkLost                    // a connection that was up has gone silent
	NotPermitted                // the system does not give us the socket that the protocol needs
)

// Judge finds the kind of a failure of Dial or of a Conn.
func Judge(err error) Verdict {
	var (
		own         *Error
		tunnelPeer  *l2tp.PeerError
		tunnelLocal *l2tp.LocalError
		ikePeer     *ike.PeerError
		ikeLocal    *ike.LocalError
		callPeer    *pptp.PeerError
		callLocal   *pptp.LocalError
		authPeer    *ppp.AuthError
		authLocal   *ppp.AuthLocalError
		closed      *ppp.PeerClosedError
		silent      *ppp.EchoTimeoutError
		looped      *ppp.LoopbackError
		negotiation *ppp.NegotiationError
	)
	switch {
	case notPermitted(err):
		return NotPermitted
	case errors.As(err, &authPeer):
		return Refused
	case errors.As(err, &authLocal):
		if authLocal.Reason == ppp.AuthNoAnswer {
			return Disagreed
		}
		return Refused
	case errors.As(err, &closed):
		switch closed.During {
		case "auth":
			return Refused
		case "ccp", "ipcp":
			return Disagreed
		}
		return PeerClosed
	case errors.As(err, &silent):
		return LinkLost
	case errors.As(err, &looped), errors.As(err, &negotiation):
		return Disagreed
	case errors.As(err, &tunnelPeer):
		return judgeTunnelPeer(tunnelPeer)
	case errors.As(err, &tunnelLocal):
		return judgeTunnelLocal(tunnelLocal)
	case errors.As(err, &ikePeer):
		return judgeIKEPeer(ikePeer)
	case errors.As(err, &ikeLocal):
		return judgeIKELocal(ikeLocal)
	case errors.As(err, &callPeer):
		return judgeCallPeer(callPeer)
	case errors.As(err, &callLocal):
		return judgeCallLocal(callLocal)
	case errors.As(err, &own):
		return Unreachable
	}
	return Failed
}

// notAuthorised is the StopCCN result of a peer that does not admit us (RFC
// 2661 section 4.4.2).
const notAuthorised = 4

func judgeTunnelPeer(e *l2tp.PeerError) Verdict {
	switch {
	case !e.Session && e.ResultCode == notAuthorised:
		return Refused
	case e.WasUp:
		return PeerClosed
	}
	return Disagreed
}

func judgeTunnelLocal(e *l2tp.LocalError) Verdict {
	switch e.Kind {
	case l2tp.WrongSecret, l2tp.NoSecret:
		return Refused
	case l2tp.NoAnswer:
		if e.WasUp {
			return LinkLost
		}
		return Unreachable
	case l2tp.TimedOut, l2tp.Unreachable:
		return Unreachable
	}
	return Disagreed
}

// The notifications by which an IKE peer refuses who we are (RFC 2408 section
// 3.14.1).
var refusesIdentity = map[uint16]bool{
	18: true, // INVALID-ID-INFORMATION
	19: true, // INVALID-CERT-ENCODING
	20: true, // INVALID-CERTIFICATE
	22: true, // INVALID-CERT-AUTHORITY
	23: true, // INVALID-HASH-INFORMATION
	24: true, // AUTHENTICATION-FAILED
	25: true, // INVALID-SIGNATURE
}

func judgeIKEPeer(e *ike.PeerError) Verdict {
	switch {
	case e.Notify == 0:
		return PeerClosed
	case e.Phase == 1 && e.Authenticated && refusesIdentity[e.Notify]:
		return Refused
	}
	return Disagreed // or somebody else said so, when it is not authenticated
}

func judgeIKELocal(e *ike.LocalError) Verdict {
	switch e.Kind {
	case ike.NoAnswer, ike.NoAnswerNATPort:
		return Unreachable
	case ike.Undecryptable, ike.WrongHash, ike.WrongIdentity, ike.WrongCertificate:
		return Refused
	case ike.DeadPeer, ike.Expired:
		return LinkLost
	case ike.Replaced:
		return PeerClosed
	case ike.Refused, ike.NoResources:
		return Failed
	}
	return Disagreed
}

func judgeCallPeer(e *pptp.PeerError) Verdict {
	switch {
	case e.Unauthorised():
		return Refused
	case e.WasUp:
		return PeerClosed
	}
	return Disagreed
}

func judgeCallLocal(e *pptp.LocalError) Verdict {
	switch {
	case e.Kind == pptp.ConnectionLost && e.WasUp && e.Err == nil:
		return PeerClosed
	case e.Kind == pptp.ConnectionLost && e.WasUp, e.Kind == pptp.NoAnswer:
		return LinkLost
	case e.Kind == pptp.TimedOut, e.Kind == pptp.GREBlocked, e.Kind == pptp.ConnectionLost:
		return Unreachable
	}
	return Disagreed
}

// notPermitted reports whether there is no GRE socket to be had here.
func notPermitted(err error) bool {
	var (
		privilege   *gre.PrivilegeError
		descriptor  *gre.DescriptorError
		refused     *grebroker.RefusedError
		unavailable *grebroker.UnavailableError
	)
	return errors.As(err, &privilege) || errors.As(err, &descriptor) || errors.As(err, &refused) || errors.As(err, &unavailable) ||
		errors.Is(err, gre.ErrNotSupported) || errors.Is(err, grebroker.ErrNotSupported)
}
