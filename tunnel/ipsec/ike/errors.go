package ike

import (
	"errors"
	"fmt"
	"strings"
)

// ErrClosed is what Handler.Down gets when we ended a Peer ourselves.
var ErrClosed = errors.New("ike: closed")

// Stages of a connection that this package can fail in, as Stage returns them.
const (
	stagePhase1 = "ike-phase1"
	stagePhase2 = "ike-phase2"
)

func stageOf(phase int) string {
	if phase == 2 {
		return stagePhase2
	}
	return stagePhase1
}

// A notifyType is the type of a Notification payload (RFC 2408 section 3.14.1, RFC 2407 section 4.6.3, RFC 3706 section 5.2).
type notifyType uint16

const (
	notifyInvalidMajorVersion  notifyType = 5
	notifyNoProposalChosen     notifyType = 14
	notifyPayloadMalformed     notifyType = 16
	notifyInvalidKey           notifyType = 17
	notifyInvalidID            notifyType = 18
	notifyInvalidCertificate   notifyType = 20
	notifyInvalidHash          notifyType = 23
	notifyAuthenticationFailed notifyType = 24
	notifyInvalidSignature     notifyType = 25
	firstStatusNotify          notifyType = 16384 // those below are errors
	notifyConnected            notifyType = 16384
	notifyResponderLifetime    notifyType = 24576
	notifyInitialContact       notifyType = 24578
	notifyRUThere              notifyType = 36136
	notifyRUThereACK           notifyType = 36137
)

var notifyNames = [...]string{
	1:  "INVALID-PAYLOAD-TYPE",
	2:  "DOI-NOT-SUPPORTED",
	3:  "SITUATION-NOT-SUPPORTED",
	4:  "INVALID-COOKIE",
	5:  "INVALID-MAJOR-VERSION",
	6:  "INVALID-MINOR-VERSION",
	7:  "INVALID-EXCHANGE-TYPE",
	8:  "INVALID-FLAGS",
	9:  "INVALID-MESSAGE-ID",
	10: "INVALID-PROTOCOL-ID",
	11: "INVALID-SPI",
	12: "INVALID-TRANSFORM-ID",
	13: "ATTRIBUTES-NOT-SUPPORTED",
	14: "NO-PROPOSAL-CHOSEN",
	15: "BAD-PROPOSAL-SYNTAX",
	16: "PAYLOAD-MALFORMED",
	17: "INVALID-KEY-INFORMATION",
	18: "INVALID-ID-INFORMATION",
	19: "INVALID-CERT-ENCODING",
	20: "INVALID-CERTIFICATE",
	21: "CERT-TYPE-UNSUPPORTED",
	22: "INVALID-CERT-AUTHORITY",
	23: "INVALID-HASH-INFORMATION",
	24: "AUTHENTICATION-FAILED",
	25: "INVALID-SIGNATURE",
	26: "ADDRESS-NOTIFICATION",
	27: "NOTIFY-SA-LIFETIME",
	28: "CERTIFICATE-UNAVAILABLE",
	29: "UNSUPPORTED-EXCHANGE-TYPE",
	30: "UNEQUAL-PAYLOAD-LENGTHS",
}

func (n notifyType) String() string {
	if int(n) < len(notifyNames) && notifyNames[n] != "" {
		return notifyNames[n]
	}
	return fmt.Sprintf("notification %d", uint16(n))
}

// A PeerError is the peer's verdict: it refused, or it ended what was up.
type PeerError struct {
	Phase         int      // 1 or 2
	Notify        uint16   // type of its notification; 0: it sent a Delete
	Authenticated bool     // surely from the peer; if not, anyone on the way can have sent it
	Offered       []string // the proposals that it refused, with NO-PROPOSAL-CHOSEN
	certificates  bool     // authentication is by certificates
	authenticates bool     // it came when we had sent our ID and proof
}

func (e *PeerError) Error() string {
	var b strings.Builder
	b.WriteString("ike: ")
	switch {
	case e.Notify == 0 && e.Phase == 2:
		b.WriteString("phase 2: server closed the connection (deleted its SAs)")
	case e.Notify == 0:
		b.WriteString("phase 1: server closed the connection (deleted the ISAKMP SA)")
	default:
		fmt.Fprintf(&b, "phase %d: server refused: %v", e.Phase, notifyType(e.Notify))
	}
	if len(e.Offered) > 0 {
		fmt.Fprintf(&b, " (offered %s)", strings.Join(e.Offered, ", "))
	}
	return b.String()
}

// Stage names the part of the connection that failed.
func (e *PeerError) Stage() string { return stageOf(e.Phase) }

// Advice is one line for the user; may be empty.
func (e *PeerError) Advice() string {
	const wrongKey = "the pre-shared key is most likely wrong; note that it is not the password of the login"
	switch kind := notifyType(e.Notify); {
	case kind == notifyNoProposalChosen && e.Phase == 1:
		return "ask for the server's phase 1 (IKE) algorithms and set them as proposals; the server may also want a certificate instead of a pre-shared key, aggressive mode, or IKEv2 only"
	case kind == notifyNoProposalChosen:
		return "ask for the server's phase 2 (ESP) algorithms and set them as esp_proposals; if it demands PFS, switch pfs on"
	case kind == notifyInvalidID && e.Phase == 2:
		return "the server does not accept L2TP traffic (UDP 1701) from this client: is L2TP enabled for it? It may also want a certain local_id, or no local_port"
	case kind == notifyInvalidID:
		return "the server does not know our identity: ask for the group name or ID to set as local_id, and check the pre-shared key"
	case e.authenticates && e.Authenticated && !e.certificates && kind == notifyAuthenticationFailed:
		// It is protected by keys made of the pre-shared key.
		return "the pre-shared key is right, but the server refuses us: it may want another local_id, or aggressive mode"
	case e.authenticates && !e.certificates && (kind == notifyPayloadMalformed || kind == notifyInvalidHash || kind == notifyAuthenticationFailed):
		return wrongKey
	case kind == notifyInvalidHash && !e.certificates:
		return wrongKey
	case kind == notifyAuthenticationFailed && e.certificates:
		return "the server does not accept our certificate or identity"
	case kind == notifyAuthenticationFailed:
		return "pre-shared key or identity do not match what the server has for this client"
	case kind == notifyInvalidCertificate, kind == 19, kind == 21, kind == 22, kind == notifyInvalidSignature, kind == 28:
		return "the server does not accept our certificate: is it of a CA that the server trusts, and valid today?"
	case kind == notifyInvalidMajorVersion, kind == 6:
		return "the server speaks IKEv2 only, L2TP/IPsec needs IKEv1"
	case kind == 7, kind == 29:
		return "the server does not do this mode: try with aggressive mode the other way round"
	case kind == notifyInvalidKey:
		return "the server wants another Diffie-Hellman group: set proposals"
	case kind == 4, kind == 9, kind == 11:
		return "the server has forgotten us, most likely it was restarted: try again"
	}
	return ""
}

// A Kind says which of our own verdicts a LocalError is.
type Kind int

// Kinds of LocalError.
const (
	NoAnswer         Kind = iota // nothing came back at all, on the port where IKE begins
	NoAnswerNATPort              // the server answered, but fell silent on the NAT traversal port, where authentication takes place
	NoAnswerPhase2               // phase 1 is up, but phase 2 gets no answer
	NoNATTraversal               // the server cannot do ESP in UDP
	Undecryptable                // the peer's messages decrypt to garbage: keys differ
	WrongHash                    // the peer's proof is wrong
	WrongIdentity                // the peer is not who it should be
	WrongCertificate             // the peer's certificate is not valid, not of the CA or not of its identity
	WrongChoice                  // the peer chose what we did not offer
	DeadPeer                     // the peer was up and stopped answering (RFC 3706)
	Expired                      // the SAs could not be renewed in time
	Replaced                     // the client connected anew (INITIAL-CONTACT)
	Refused                      // Config.Accept refused the peer
	NoResources                  // too many peers, or no randomness
)

// A LocalError is our own verdict.
type LocalError struct {
	Kind         Kind
	Phase        int    // 1 or 2
	Detail       string // in words
	Err          error  // what lies behind it; may be nil
	certificates bool
}

func (e *LocalError) Error() string {
	s := fmt.Sprintf("ike: phase %d: %s", e.Phase, e.Detail)
	if e.Err != nil {
		s += ": " + strings.TrimPrefix(e.Err.Error(), "ike: ")
	}
	return s
}

// Unwrap returns Err.
func (e *LocalError) Unwrap() error { return e.Err }

// Stage names the part of the connection that failed.
func (e *LocalError) Stage() string { return stageOf(e.Phase) }

// Advice is one line for the user; may be empty.
func (e *LocalError) Advice() string {
	switch e.Kind {
	case NoAnswer:
		return "check the server address; UDP port 500 may be blocked on the way, the server may not do IKEv1, or it ignores clients that offer what it does not take: try to set proposals"
	case NoAnswerNATPort:
		if e.certificates {
			return "either UDP port 4500 is blocked on the way, or the server ignores our certificate; with certificates also large datagrams may be dropped"
		}
		return "either UDP port 4500 is blocked on the way, or the pre-shared key is wrong: many servers just fall silent then"
	case NoAnswerPhase2:
		return "the server accepted the login of phase 1 and ignores phase 2: look at its log"
	case NoNATTraversal:
		return "NAT traversal (RFC 3947) must be enabled on the server: without root there is no other way to carry IPsec"
	case Undecryptable:
		return "the pre-shared key is most likely wrong; note that it is not the password of the login"
	case WrongHash:
		if e.certificates {
			return "the server could not prove that it owns its certificate"
		}
		return "the pre-shared key is most likely wrong; note that it is not the password of the login"
	case WrongIdentity:
		return "set remote_id to the identity that the server sends, if you trust it"
	case WrongCertificate:
		return "check that ca holds the CA of the server's certificate, that remote_id is in the certificate, and the clock"
	case DeadPeer:
		return "the server or the way to it is gone"
	}
	return ""
}
