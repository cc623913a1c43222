package mppe

import (
	"bytes"
	"errors"
	"testing"
)

func TestOptionOnTheWire(t *testing.T) { // RFC 3078 section 2
	tests := []struct {
		wire string
		bits Bits
		text string
	}{
		{"120601000040", Key128 | Stateless, "mppe-128 stateless"},
		{"1206010000e1", Key128 | Key56 | Key40 | Stateless | MPPC, "mppe-128 mppe-56 mppe-40 stateless mppc"},
		{"120600000001", MPPC, "mppc"},
		{"120600000000", 0, "none"},
		{"120680000010", 0x80000010, "obsolete unknown"},
	}
	for _, test := range tests {
		wire := unhex(t, test.wire)
		bits, err := ParseOption(wire)
		if err != nil || bits != test.bits || bits.String() != test.text {
			t.Errorf("%s: %v (%08x), %v", test.wire, bits, uint32(bits), err)
		}
		if got := AppendOption([]byte("dst"), test.bits); string(got) != "dst"+string(wire) {
			t.Errorf("%v: %x", test.bits, got)
		}
		for n := range wire {
			if _, err := ParseOption(wire[:n]); !errors.Is(err, ErrOption) {
				t.Errorf("prefix of %d bytes: %v", n, err)
			}
		}
	}
	for _, wire := range []string{"110601000040", "120501000040", "12060100004000", "120701000040"} {
		if _, err := ParseOption(unhex(t, wire)); !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", wire, err)
		}
	}
}

func FuzzOption(f *testing.F) {
	f.Add([]byte{18, 6, 1, 0, 0, 0x40})
	f.Add([]byte{18, 6})
	f.Fuzz(func(t *testing.T, option []byte) {
		bits, err := ParseOption(option)
		if err != nil {
			return
		}
		if got := AppendOption(nil, bits); !bytes.Equal(got, option) {
			t.Errorf("%x came back as %x", option, got)
		}
	})
}

func TestEncryptionForUsers(t *testing.T) {
	for bits, want := range map[Bits]string{
		0: "", MPPC | Stateless: "", Key128 | Stateless: "MPPE-128 stateless", Key56: "MPPE-56 stateful", Key40 | Stateless | MPPC: "MPPE-40 stateless",
	} {
		if got := bits.Encryption(); got != want {
			t.Errorf("%v: %q, want %q", bits, got, want)
		}
	}
}
