package mppe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Will is how much one side wants something. The zero value is Deny.
type Will uint8

const (
	Deny    Will = iota // never
	Allow               // if the peer asks for it
	Prefer              // ask for it, do without if the peer refuses
	Require             // rather no link than without
)

var willNames = [...]string{Deny: "deny", Allow: "allow", Prefer: "prefer", Require: "require"}

// String returns the name used in the configuration, e.g. "require".
func (w Will) String() string {
	if int(w) < len(willNames) {
		return willNames[w]
	}
	return fmt.Sprintf("Will(%d)", uint8(w))
}

// ParseWill is the inverse of String.
func ParseWill(name string) (Will, error) {
	i := slices.Index(willNames[:], name)
	if i < 0 {
		return Deny, fmt.Errorf("mppe: unknown policy %q (known: %s)", name, strings.Join(willNames[:], ", "))
	}
	return Will(i), nil
}

// Policy says what CCP may agree to. The zero value refuses encryption and compression.
type Policy struct {
	Encryption  Will
	MinKeyBits  int  // 40, 56 or 128: shorter keys are not taken; 0 is 128
	MaxKeyBits  int  // longer keys are not taken; 0 is 128. Less than MinKeyBits leaves no key to agree on
	Stateful    bool // ask for stateful mode and take either; else encryption must be stateless
	Compression Will // MPPC; Require counts as Prefer
}

// WithoutKeys is the policy after a login that gave no keys. If encryption is required that is an *Error.
func (p Policy) WithoutKeys() (Policy, error) {
	if p.Encryption == Require {
		return Policy{}, &Error{NoKeys}
	}
	p.Encryption = Deny
	return p, nil
}

// keys are the key lengths that the policy takes.
func (p Policy) keys() (b Bits) {
	if p.Encryption == Deny {
		return 0
	}
	shortest, longest := cmp.Or(p.MinKeyBits, 128), cmp.Or(p.MaxKeyBits, 128)
	for _, k := range [...]struct {
		length int
		bit    Bits
	}{{40, Key40}, {56, Key56}, {128, Key128}} {
		if shortest <= k.length && k.length <= longest {
			b |= k.bit
		}
	}
	return b
}

// Passive reports whether CCP should wait for the peer's Configure-Request before it sends one: we want nothing
// ourselves, but answer a wish in kind.
func (p Policy) Passive() bool { return p.Encryption <= Allow && p.Compression <= Allow }

// Request gives the bits for our Configure-Request (RFC 3078 section 2.1: all that we can do); 0 means to leave the option
// out. heard is what the peer asked for last, 0 if it has not: what is only allowed follows the peer's wish, so that
// both directions end alike.
func (p Policy) Request(heard Bits) (b Bits) {
	if p.Encryption >= Prefer {
		b = p.keys()
	} else {
		b = (p.keys() & heard).strongest()
	}
	if b.Encrypts() && !p.Stateful {
		b |= Stateless
	}
	if p.Compression >= Prefer || p.Compression == Allow && heard.Has(MPPC) {
		b |= MPPC
	}
	return b
}

// AfterNak gives the bits for the next Configure-Request when the peer answered ours by a Configure-Nak with the bits
// suggested, or by a Configure-Reject (suggested 0). If the policy cannot follow, that is an *Error.
func (p Policy) AfterNak(suggested Bits) (b Bits, err error) {
	b = (p.keys() & suggested).strongest()
	switch {
	case b == 0 && p.Encryption == Require:
		return 0, &Error{Refused}
	case b != 0 && !p.Stateful:
		b |= Stateless
	default:
		b |= suggested & Stateless
	}
	if p.Compression != Deny {
		b |= suggested & MPPC
	}
	if b == Stateless {
		b = 0
	}
	return b, nil
}

// Answer is what to reply to an option.
type Answer uint8

const (
	Ack    Answer = iota // with the option as it is
	Nak                  // with other bits
	Reject               // of the option
)

// Answer judges the bits of the peer's Configure-Request, and gives those for a Configure-Nak. A responder chooses one
// key length, the strongest that both sides do (RFC 3078 section 2.1). final says that there have been enough Naks: the
// answer is then Ack or Reject (RFC 1661 section 4.6, Max-Failure).
func (p Policy) Answer(offered Bits, final bool) (Answer, Bits) {
	wanted := p.nearest(offered)
	switch {
	case offered == wanted, final && p.takes(offered):
		return Ack, offered
	case final, wanted == 0:
		return Reject, 0
	}
	return Nak, wanted
}

// nearest is what we would rather have the peer ask for, given what it offers; 0 is nothing.
func (p Policy) nearest(offered Bits) (b Bits) {
	b = (p.keys() & offered).strongest()
	if b == 0 && (p.Encryption >= Prefer || offered.Encrypts()) {
		b = p.keys().strongest()
	}
	if p.Compression != Deny {
		b |= offered & MPPC
	}
	switch {
	case b.Encrypts():
		if !p.Stateful {
			b |= Stateless
		}
	case b.Has(MPPC), offered == Stateless: // either mode will do, and a request for nothing is no harm
		b |= offered & Stateless
	}
	return b
}

// takes reports whether the policy can live with exactly these bits.
func (p Policy) takes(b Bits) bool {
	keys := b & keyBits
	switch {
	case b&^(keyBits|Stateless|MPPC) != 0, b.Has(MPPC) && p.Compression == Deny:
		return false
	case keys == 0:
		return p.Encryption != Require
	}
	return keys == keys.strongest() && p.keys().Has(keys) && (p.Stateful || b.Has(Stateless))
}

// Agree gives the modes of both directions when CCP has opened: requested is our last Configure-Request, acknowledged by
// the peer, offered the peer's, acknowledged by us; 0 where the option was left out. It is an *Error if the policy
// requires encryption and one direction has none.
func (p Policy) Agree(requested, offered Bits) (send, receive Bits, err error) {
	send = offered
	receive = requested&^keyBits | requested.strongest() // a peer that acknowledges several lengths means the strongest
	if !p.takes(send) || !p.takes(receive) {
		return 0, 0, &Error{Refused}
	}
	return send, receive, nil
}
