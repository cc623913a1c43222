package pptp

import (
	"bytes"
	"errors"
	"testing"
)

// goldenGRE has the layouts of RFC 2637 section 4.1, with and without payload and acknowledgment.
var goldenGRE = []struct {
	name   string
	header greHeader
	frame  string
	wire   string
}{
	{"frame", greHeader{callID: 0xb3d9, sequenced: true, sequence: 1}, "ff03c021", "3001 880b 0004 b3d9 00000001 ff03c021"},
	{"frame and acknowledgment", greHeader{callID: 0x0080, sequenced: true, acknowledges: true, sequence: 0xffffffff, ack: 0x01020304}, "c0210101",
		"3081 880b 0004 0080 ffffffff 01020304 c0210101"},
	{"acknowledgment", greHeader{callID: 0x0080, acknowledges: true, ack: 7}, "", "2081 880b 0000 0080 00000007"},
	{"nothing", greHeader{callID: 0x0080}, "", "2001 880b 0000 0080"},
}

func TestGREIsLaidOutAsInRFC2637Section4_1(t *testing.T) {
	for _, g := range goldenGRE {
		wire, frame := unhex(t, g.wire), unhex(t, g.frame)
		if got := append(appendGRE(nil, g.header, len(frame)), frame...); !bytes.Equal(got, wire) {
			t.Errorf("%s: composed %x, want %x", g.name, got, wire)
		}
		h, got, err := parseGRE(wire)
		if err != nil || h != g.header || !bytes.Equal(got, frame) {
			t.Errorf("%s: parsed %+v, %x, error %v", g.name, h, got, err)
		}
	}
}

func TestPrefixOfAGREPacketIsRefused(t *testing.T) {
	for _, g := range goldenGRE {
		wire := unhex(t, g.wire)
		for n := range wire {
			if _, frame, err := parseGRE(wire[:n]); err == nil || frame != nil {
				t.Errorf("%s cut to %d bytes: %x, error %v", g.name, n, frame, err)
			}
		}
	}
}

func TestBytesBehindThePayloadAreCutOff(t *testing.T) {
	_, frame, err := parseGRE(unhex(t, "3001 880b 0002 0001 00000001 aabb ccdd"))
	if err != nil || !bytes.Equal(frame, []byte{0xaa, 0xbb}) {
		t.Errorf("%x, error %v", frame, err)
	}
}

func TestMalformedGREIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		wire string
		want error
	}{
		"version 0 (plain GRE)":     {"3000 880b 0002 0001 00000001 aabb", errGREKind},
		"another protocol":          {"3001 0800 0002 0001 00000001 aabb", errGREKind},
		"no key":                    {"1001 880b 0002 0001 00000001 aabb", errGREKind},
		"checksum":                  {"b001 880b 0002 0001 00000001 aabb", errGREKind},
		"routing":                   {"7001 880b 0002 0001 00000001 aabb", errGREKind},
		"strict source route":       {"3801 880b 0002 0001 00000001 aabb", errGREKind},
		"payload longer than it is": {"3001 880b 0003 0001 00000001 aabb", errGREPayload},
		"payload without sequence":  {"2001 880b 0002 0001 aabb", errGREPayload},
		"sequence without payload":  {"3001 880b 0000 0001 00000001", errGREPayload},
	} {
		if _, frame, err := parseGRE(unhex(t, test.wire)); !errors.Is(err, test.want) || frame != nil {
			t.Errorf("%s: %x, error %v", name, frame, err)
		}
	}
	if _, _, err := parseGRE(unhex(t, "3779 880b 0002 0001 00000001 aabb")); err != nil {
		t.Errorf("recursion control and reserved flags: %v", err)
	}
}

func FuzzParseGRE(f *testing.F) {
	for _, g := range goldenGRE {
		f.Add(unhex(f, g.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, frame, err := parseGRE(b)
		if err != nil {
			return
		}
		if h.size()+len(frame) > len(b) || h.sequenced != (len(frame) > 0) {
			t.Fatalf("%+v with %d bytes out of %d", h, len(frame), len(b))
		}
		again, frame2, err := parseGRE(append(appendGRE(nil, h, len(frame)), frame...))
		if err != nil || again != h || !bytes.Equal(frame, frame2) {
			t.Fatalf("parse of append is no identity: %+v and %+v, error %v", h, again, err)
		}
	})
}
