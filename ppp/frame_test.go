package ppp

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrameGolden(t *testing.T) {
	tests := []struct {
		name, frame string
		protocol    uint16
		information string
	}{
		{"full header", "ff03c0210101", protocolLCP, "0101"},
		{"no address and control", "c0210101", protocolLCP, "0101"},
		{"compressed protocol", "ff032145", protocolIPv4, "45"},
		{"both compressed", "2145", protocolIPv4, "45"},
		{"compressed CCP datagram", "fd9000", protocolCompressed, "9000"},
		{"IPv6, full", "ff03005760", protocolIPv6, "60"},
		{"empty information", "ff030021", protocolIPv4, ""},
		{"an information that looks like a header", "ff030021ff03", protocolIPv4, "ff03"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			protocol, information, err := parseFrame(unhex(t, test.frame))
			if err != nil || protocol != test.protocol || !bytes.Equal(information, unhex(t, test.information)) {
				t.Errorf("%04x %x %v", protocol, information, err)
			}
		})
	}
}

func TestMalformedFrames(t *testing.T) {
	tests := []struct {
		name, frame string
		want        error
	}{
		{"empty", "", errShortFrame},
		{"address alone", "ff", errBadProtocol},
		{"address and control alone", "ff03", errShortFrame},
		{"half a protocol", "ff03c0", errShortFrame},
		{"half a protocol, bare", "c0", errShortFrame},
		{"even low octet", "ff03c020", errBadProtocol},
		{"address without control", "ff04c021", errBadProtocol},
		{"address twice", "ff03ff03c021", errBadProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := parseFrame(unhex(t, test.frame)); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// TestControlPacketPrefixes: every proper prefix fails, padding is cut off (RFC 1661 section 5).
func TestControlPacketPrefixes(t *testing.T) {
	whole := unhex(t, "0107000a0506aabbccdd")
	for n := range whole {
		if p, err := parseControlPacket(whole[:n]); err == nil {
			t.Errorf("prefix of %d octets: %+v", n, p)
		}
	}
	want := controlPacket{code: 1, id: 7, data: unhex(t, "0506aabbccdd")}
	for _, b := range [][]byte{whole, append(bytes.Clone(whole), 0, 0, 0)} {
		p, err := parseControlPacket(b)
		if err != nil || cmp.Diff(want, p, cmp.AllowUnexported(controlPacket{})) != "" {
			t.Errorf("%x: %+v %v", b, p, err)
		}
	}
}

func TestOptionPrefixes(t *testing.T) {
	whole := unhex(t, "010405dc05060102030407020802")
	boundaries := map[int]int{0: 0, 4: 1, 10: 2, 12: 3, 14: 4}
	for n := range len(whole) + 1 {
		options, err := parseOptions(whole[:n])
		count, boundary := boundaries[n]
		if boundary != (err == nil) || boundary && len(options) != count {
			t.Errorf("prefix of %d octets: %d options, %v", n, len(options), err)
		}
	}
}

func TestMalformedOptions(t *testing.T) {
	for name, text := range map[string]string{
		"length 0": "0300", "length 1": "0301", "beyond the end": "030601", "type alone": "03", "second one bad": "07020301",
	} {
		if options, err := parseOptions(unhex(t, text)); !errors.Is(err, errBadOption) || options != nil {
			t.Errorf("%s: %v %v", name, options, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, seed := range []string{"ff03c0210101", "2145", "fd9000", "ff", "", "ff03005760"} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		protocol, information, err := parseFrame(frame)
		if err != nil {
			return
		}
		if protocol&1 == 0 || protocol>>8&1 == 1 || len(information) >= len(frame) {
			t.Fatalf("%04x, %d of %d octets", protocol, len(information), len(frame))
		}
		again, information2, err := parseFrame(appendFrame(nil, protocol, information))
		if err != nil || again != protocol || !bytes.Equal(information, information2) {
			t.Fatalf("%04x %x became %04x %x, %v", protocol, information, again, information2, err)
		}
	})
}

func FuzzControlPacket(f *testing.F) {
	f.Add(unhex(f, "0107000a0506aabbccdd"))
	f.Add(unhex(f, "05010004"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseControlPacket(b)
		if err != nil {
			return
		}
		out := appendControlPacket(nil, p)
		if !bytes.HasPrefix(b, out) {
			t.Fatalf("%x became %x", b, out)
		}
	})
}

func FuzzOptions(f *testing.F) {
	f.Add(unhex(f, "010405dc05060102030407020802"))
	f.Add(unhex(f, "0306c0a80001"))
	f.Fuzz(func(t *testing.T, b []byte) {
		options, err := parseOptions(b)
		if err != nil {
			return
		}
		var out []byte
		for _, o := range options {
			out = appendOption(out, o)
		}
		if !bytes.Equal(b, out) {
			t.Fatalf("%x became %x", b, out)
		}
	})
}
