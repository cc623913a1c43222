package mppe

import (
	"errors"
	"fmt"
	"testing"
)

var (
	require128  = Policy{Encryption: Require}
	require40   = Policy{Encryption: Require, MinKeyBits: 40}
	prefer128   = Policy{Encryption: Prefer}
	allow56     = Policy{Encryption: Allow, MinKeyBits: 56}
	only56      = Policy{Encryption: Require, MinKeyBits: 56, MaxKeyBits: 56}
	upTo56      = Policy{Encryption: Prefer, MinKeyBits: 40, MaxKeyBits: 56}
	only40      = Policy{Encryption: Allow, MinKeyBits: 40, MaxKeyBits: 40}
	stateful    = Policy{Encryption: Require, Stateful: true}
	compress    = Policy{Compression: Allow}
	everything  = Policy{Encryption: Prefer, MinKeyBits: 40, Compression: Prefer}
	mppcAndMPPE = Policy{Encryption: Require, Compression: Allow}
)

// RFC 3078 section 2.1: the initiator offers all that it can do.
func TestRequest(t *testing.T) {
	tests := []struct {
		name   string
		policy Policy
		heard  Bits
		want   Bits
	}{
		{"deny asks for nothing", Policy{}, Key128 | Stateless, 0},
		{"require", require128, 0, Key128 | Stateless},
		{"require, shorter keys allowed", require40, 0, Key128 | Key56 | Key40 | Stateless},
		{"prefer", prefer128, 0, Key128 | Stateless},
		{"allow keeps quiet", allow56, 0, 0},
		{"allow follows", allow56, Key128 | Key56 | Stateless, Key128 | Stateless},
		{"allow follows to the key it takes", allow56, Key56 | Key40 | Stateless, Key56 | Stateless},
		{"allow does not follow to less", allow56, Key40 | Stateless, 0},
		{"one length", only56, 0, Key56 | Stateless},
		{"longer keys denied", upTo56, 0, Key56 | Key40 | Stateless},
		{"allow follows to the longest key it takes", only40, Key128 | Key40 | Stateless, Key40 | Stateless},
		{"allow does not follow to more", only40, Key128 | Stateless, 0},
		{"no length at all", Policy{Encryption: Require, MaxKeyBits: 56}, 0, 0},
		{"stateful", stateful, 0, Key128},
		{"allow MPPC", compress, 0, 0},
		{"allow MPPC follows", compress, MPPC | Stateless, MPPC},
		{"MPPC with MPPE", mppcAndMPPE, Key128 | Stateless | MPPC, Key128 | Stateless | MPPC},
		{"everything", everything, 0, Key128 | Key56 | Key40 | Stateless | MPPC},
	}
	for _, test := range tests {
		if got := test.policy.Request(test.heard); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	for policy, want := range map[Policy]bool{{}: true, allow56: true, compress: true, prefer128: false, require40: false, everything: false} {
		if got := policy.Passive(); got != want {
			t.Errorf("%+v: passive %v", policy, got)
		}
	}
}

func TestAnswer(t *testing.T) {
	const all = Key128 | Key56 | Key40 | Stateless | MPPC
	tests := []struct {
		name    string
		policy  Policy
		offered Bits
		final   bool
		want    Answer
		bits    Bits
	}{
		{"what we want", require128, Key128 | Stateless, false, Ack, Key128 | Stateless},
		{"one of several lengths: the strongest", require40, Key128 | Key40 | Stateless, false, Nak, Key128 | Stateless},
		{"all of Windows", require128, all, false, Nak, Key128 | Stateless},
		{"all of Windows with MPPC", mppcAndMPPE, all, false, Nak, Key128 | Stateless | MPPC},
		{"a length that we take", require40, Key56 | Stateless, false, Ack, Key56 | Stateless},
		{"too weak", require128, Key40 | Stateless, false, Nak, Key128 | Stateless},
		{"too weak, last word", require128, Key40 | Stateless, true, Reject, 0},
		{"several lengths, last word", require128, Key128 | Key40 | Stateless, true, Reject, 0},
		{"too long", only56, Key128 | Stateless, false, Nak, Key56 | Stateless},
		{"too long, last word", only56, Key128 | Stateless, true, Reject, 0},
		{"all lengths, of which one is taken", only40, Key128 | Key56 | Key40 | Stateless, false, Nak, Key40 | Stateless},
		{"stateful", require128, Key128, false, Nak, Key128 | Stateless},
		{"stateful, last word", require128, Key128, true, Reject, 0},
		{"stateful wanted", stateful, Key128, false, Ack, Key128},
		{"stateless where stateful is wanted", stateful, Key128 | Stateless, false, Nak, Key128},
		{"stateless where stateful is wanted, last word", stateful, Key128 | Stateless, true, Ack, Key128 | Stateless},
		{"obsolete and unknown bits", require128, Key128 | Stateless | Obsolete | 0x40000000, false, Nak, Key128 | Stateless},
		{"obsolete bit, last word", require128, Key128 | Stateless | Obsolete, true, Reject, 0},
		{"MPPC not wanted", require128, Key128 | Stateless | MPPC, false, Nak, Key128 | Stateless},
		{"MPPC alone where encryption is required", mppcAndMPPE, MPPC, false, Nak, Key128 | Stateless | MPPC},
		{"MPPC alone, last word", mppcAndMPPE, MPPC, true, Reject, 0},
		{"MPPC alone allowed", compress, MPPC, false, Ack, MPPC},
		{"MPPC alone, stateless", compress, MPPC | Stateless, false, Ack, MPPC | Stateless},
		{"MPPC with encryption that is denied", compress, Key128 | Stateless | MPPC, false, Nak, Stateless | MPPC},
		{"encryption denied", Policy{}, Key128 | Stateless, false, Reject, 0},
		{"MPPC denied", Policy{}, MPPC, false, Reject, 0},
		{"nothing, of a peer that goes on asking for it", Policy{}, 0, false, Ack, 0},
		{"nothing but stateless", Policy{}, Stateless, false, Ack, Stateless},
		{"nothing, encryption preferred", prefer128, 0, false, Nak, Key128 | Stateless},
		{"nothing, encryption preferred, last word", prefer128, 0, true, Ack, 0},
		{"nothing, encryption required", require128, 0, false, Nak, Key128 | Stateless},
		{"nothing, encryption required, last word", require128, 0, true, Reject, 0},
		{"nothing, encryption allowed", allow56, 0, false, Ack, 0},
		{"too weak, encryption allowed", allow56, Key40 | Stateless, false, Nak, Key128 | Stateless},
	}
	for _, test := range tests {
		if got, bits := test.policy.Answer(test.offered, test.final); got != test.want || bits != test.bits {
			t.Errorf("%s: %d with %v, want %d with %v", test.name, got, bits, test.want, test.bits)
		}
	}
}

func TestAfterNak(t *testing.T) {
	tests := []struct {
		name      string
		policy    Policy
		suggested Bits
		want      Bits
		fails     bool
	}{
		{"one length", require40, Key56 | Stateless, Key56 | Stateless, false},
		{"several lengths", require40, Key56 | Key40 | Stateless, Key56 | Stateless, false},
		{"too weak, required", require128, Key40 | Stateless, 0, true},
		{"too weak, preferred", prefer128, Key40 | Stateless, 0, false},
		{"too long, required", only56, Key128 | Stateless, 0, true},
		{"too long, preferred", upTo56, Key128 | Stateless, 0, false},
		{"stateful", require128, Key128, Key128 | Stateless, false},
		{"stateful wanted", stateful, Key128, Key128, false},
		{"stateless where stateful is wanted", stateful, Key128 | Stateless, Key128 | Stateless, false},
		{"rejected, required", require128, 0, 0, true},
		{"rejected, preferred", prefer128, 0, 0, false},
		{"MPPC left", everything, MPPC | Stateless, MPPC | Stateless, false},
		{"MPPC suggested, denied", prefer128, Key128 | Stateless | MPPC, Key128 | Stateless, false},
		{"unknown bits", require128, Key128 | Stateless | Obsolete | 0x2, Key128 | Stateless, false},
	}
	for _, test := range tests {
		got, err := test.policy.AfterNak(test.suggested)
		if e := (*Error)(nil); got != test.want || (err != nil) != test.fails || err != nil && (!errors.As(err, &e) || e.Reason != Refused) {
			t.Errorf("%s: %v, %v; want %v", test.name, got, err, test.want)
		}
	}
}

func TestAgree(t *testing.T) {
	tests := []struct {
		name               string
		policy             Policy
		requested, offered Bits
		send, receive      Bits
		fails              bool
	}{
		{"both the same", require128, Key128 | Stateless, Key128 | Stateless, Key128 | Stateless, Key128 | Stateless, false},
		{"acknowledged with several lengths", require40, Key128 | Key40 | Stateless, Key128 | Stateless, Key128 | Stateless, Key128 | Stateless, false},
		{"different modes", stateful, Key128, Key128 | Stateless, Key128 | Stateless, Key128, false},
		{"required, one way only", require128, Key128 | Stateless, 0, 0, 0, true},
		{"required, the other way only", require128, 0, Key128 | Stateless, 0, 0, true},
		{"required, none", require128, 0, 0, 0, 0, true},
		{"required, and no length will do", Policy{Encryption: Require, MaxKeyBits: 56, Compression: Allow}, MPPC, MPPC, 0, 0, true},
		{"preferred, none", prefer128, 0, 0, 0, 0, false},
		{"MPPC one way", compress, 0, MPPC, MPPC, 0, false},
		{"more than we may take", upTo56, Key128 | Stateless, Key128 | Stateless, 0, 0, true},
		{"less than we may take", prefer128, Key40 | Stateless, Key40 | Stateless, 0, 0, true},
	}
	for _, test := range tests {
		send, receive, err := test.policy.Agree(test.requested, test.offered)
		if send != test.send || receive != test.receive || (err != nil) != test.fails {
			t.Errorf("%s: send %v, receive %v, %v", test.name, send, receive, err)
		}
	}
}

func TestNoKeysNoEncryption(t *testing.T) {
	var e *Error
	if _, err := require128.WithoutKeys(); !errors.As(err, &e) || e.Reason != NoKeys || e.Stage() != "ccp" || e.Advice() == "" {
		t.Error(err)
	}
	p, err := everything.WithoutKeys()
	if err != nil || p.Request(Key128|Stateless) != MPPC {
		t.Errorf("%v, %v", p, err)
	}
}

// Whatever two policies meet, Configure-Requests go back and forth a few times only, and what comes out pleases both, or
// one of them says that it required more.
func TestAnyTwoPoliciesComeToAnEnd(t *testing.T) {
	var policies []Policy
	for _, encryption := range []Will{Deny, Allow, Prefer, Require} {
		for _, compression := range []Will{Deny, Allow, Prefer} {
			for _, minimum := range []int{0, 40, 56} {
				for _, maximum := range []int{0, 40, 56} {
					for _, stateful := range []bool{false, true} {
						p := Policy{encryption, minimum, maximum, stateful, compression}
						// Who asks for MPPC and does not take 128 bits is told to ask for 128, not for a length that both can do.
						deaf := encryption == Allow && compression == Prefer && maximum != 0
						if !deaf && (encryption == Deny || p.keys() != 0) {
							policies = append(policies, p)
						}
					}
				}
			}
		}
	}
	for _, a := range policies {
		for _, b := range policies {
			toB, errA := negotiate(t, a, b, 0)
			toA, errB := negotiate(t, b, a, toB)
			if errA == nil && errB == nil && a.Passive() {
				toB, errA = negotiate(t, a, b, toA) // now it has heard
			}
			name := meeting{a, b}
			if errA != nil || errB != nil {
				if a.Encryption != Require && b.Encryption != Require {
					t.Fatalf("%s: %v, %v", name, errA, errB)
				}
				continue
			}
			send, receive, err := a.Agree(toB, toA)
			if err != nil {
				if a.Encryption != Require {
					t.Fatalf("%s: %v and %v: %v", name, toB, toA, err)
				}
				continue
			}
			wanted := a.Encryption >= Prefer && b.Encryption >= Allow || b.Encryption >= Prefer && a.Encryption >= Allow
			if wanted && a.keys()&b.keys() != 0 && !send.Encrypts() {
				t.Errorf("%s: could encrypt, but sends %v", name, send)
			}
			if send.Encrypts() != receive.Encrypts() {
				t.Errorf("%s: sends %v, receives %v", name, send, receive)
			}
			for _, bits := range []Bits{send, receive} {
				if !a.takes(bits) || !b.takes(bits) || bits.Encrypts() && checkAgreement(bits) != nil {
					t.Errorf("%s: %v", name, bits)
				}
			}
		}
	}
}

// A meeting is shown when it goes wrong; there are many.
type meeting struct{ a, b Policy }

func (m meeting) String() string { return fmt.Sprintf("%+v meets %+v", m.a, m.b) }

// negotiate plays the Configure-Requests of one side until one is acknowledged, and returns its bits.
func negotiate(t *testing.T, asks, answers Policy, heard Bits) (Bits, error) {
	const maxFailure = 5
	bits := asks.Request(heard)
	for round := range 2 * maxFailure {
		if bits == 0 {
			return 0, nil // the option is left out
		}
		answer, suggested := answers.Answer(bits, round >= maxFailure)
		if answer == Ack {
			return bits, nil
		}
		var err error
		if bits, err = asks.AfterNak(suggested); err != nil {
			return 0, err
		}
	}
	t.Fatalf("%+v asks %+v without end", asks, answers)
	return 0, nil
}

func TestErrorsNameThePackageOnceAndTheStage(t *testing.T) {
	for r := NoKeys; r <= BadAgreement; r++ {
		e := &Error{r}
		if text := e.Error(); len(text) < 20 || text[:6] != "mppe: " || e.Stage() != "ccp" {
			t.Errorf("reason %d: %q", r, text)
		}
	}
}

func TestWillNamesAreInverse(t *testing.T) {
	for w := Deny; w <= Require; w++ {
		if got, err := ParseWill(w.String()); err != nil || got != w {
			t.Errorf("%v: %v, %v", w, got, err)
		}
	}
	if _, err := ParseWill("maybe"); err == nil {
		t.Error("no error")
	}
	if got := Will(9).String(); got != "Will(9)" {
		t.Error(got)
	}
}
