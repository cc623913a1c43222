package pptp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// unhex reads hexadecimal digits; "00*64" stands for 64 zeros.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var all []byte
	for _, word := range strings.Fields(text) {
		n := 1
		if digits, times, ok := strings.Cut(word, "*"); ok {
			word = digits
			if _, err := fmt.Sscan(times, &n); err != nil {
				t.Fatal(err)
			}
		}
		b, err := hex.DecodeString(word)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.Repeat(b, n)...)
	}
	return all
}

// goldenMessages are the figures of RFC 2637 sections 2.1 to 2.15, filled in by hand.
var goldenMessages = []struct {
	kind   MessageType
	fields map[field]uint32
	texts  map[field]string
	wire   string
}{
	{msgSCCRQ, map[field]uint32{fieldVersion: 0x0100, fieldFramingCapabilities: 3, fieldBearerCapabilities: 2, fieldMaximumChannels: 5, fieldFirmware: 0x0a28},
		map[field]string{fieldHostName: "host", fieldVendor: "vendor"},
		"009c 0001 1a2b3c4d 0001 0000  0100 0000 00000003 00000002 0005 0a28 686f7374 00*60 76656e646f72 00*58"},
	{msgSCCRP, map[field]uint32{fieldVersion: 0x0100, fieldResult: 2, fieldError: 4, fieldFramingCapabilities: 1, fieldBearerCapabilities: 1, fieldMaximumChannels: 0xffff, fieldFirmware: 1},
		map[field]string{fieldHostName: "local", fieldVendor: "linux"},
		"009c 0001 1a2b3c4d 0002 0000  0100 02 04 00000001 00000001 ffff 0001 6c6f63616c 00*59 6c696e7578 00*59"},
	{msgStopCCRQ, map[field]uint32{fieldResult: 3}, nil, "0010 0001 1a2b3c4d 0003 0000  03 00 0000"},
	{msgStopCCRP, map[field]uint32{fieldResult: 2, fieldError: 1}, nil, "0010 0001 1a2b3c4d 0004 0000  02 01 0000"},
	{msgEchoRequest, map[field]uint32{fieldIdentifier: 0xdeadbeef}, nil, "0010 0001 1a2b3c4d 0005 0000  deadbeef"},
	{msgEchoReply, map[field]uint32{fieldIdentifier: 0xdeadbeef, fieldResult: 1, fieldError: 0}, nil, "0014 0001 1a2b3c4d 0006 0000  deadbeef 01 00 0000"},
	{msgOCRQ, map[field]uint32{fieldCallID: 0x1234, fieldSerial: 7, fieldMinimumBPS: 300, fieldMaximumBPS: 100_000_000, fieldBearerType: 3, fieldFramingType: 3,
		fieldWindow: 64, fieldDelay: 1, fieldPhoneLength: 4}, map[field]string{fieldPhone: "5551", fieldSubaddress: "s"},
		"00a8 0001 1a2b3c4d 0007 0000  1234 0007 0000012c 05f5e100 00000003 00000003 0040 0001 0004 0000 35353531 00*60 73 00*63"},
	{msgOCRP, map[field]uint32{fieldCallID: 0x4321, fieldPeerCallID: 0x1234, fieldResult: 4, fieldError: 0, fieldCause: 17, fieldSpeed: 64000, fieldWindow: 16, fieldDelay: 2, fieldChannel: 9}, nil,
		"0020 0001 1a2b3c4d 0008 0000  4321 1234 04 00 0011 0000fa00 0010 0002 00000009"},
	{msgICRQ, map[field]uint32{fieldCallID: 0x4321, fieldSerial: 8, fieldBearerType: 1, fieldChannel: 2, fieldPhoneLength: 1, fieldDialingLength: 2},
		map[field]string{fieldPhone: "1", fieldDialing: "22", fieldSubaddress: ""},
		"00dc 0001 1a2b3c4d 0009 0000  4321 0008 00000001 00000002 0001 0002 31 00*63 3232 00*62 00*64"},
	{msgICRP, map[field]uint32{fieldCallID: 0x1234, fieldPeerCallID: 0x4321, fieldResult: 3, fieldError: 0, fieldWindow: 4, fieldDelay: 5}, nil,
		"0018 0001 1a2b3c4d 000a 0000  1234 4321 03 00 0004 0005 0000"},
	{msgICCN, map[field]uint32{fieldPeerCallID: 0x1234, fieldSpeed: 28800, fieldWindow: 4, fieldDelay: 5, fieldFramingType: 1}, nil,
		"001c 0001 1a2b3c4d 000b 0000  1234 0000 00007080 0004 0005 00000001"},
	{msgCallClear, map[field]uint32{fieldCallID: 0x1234}, nil, "0010 0001 1a2b3c4d 000c 0000  1234 0000"},
	{msgCallDisconnect, map[field]uint32{fieldCallID: 0x4321, fieldResult: 4, fieldError: 0, fieldCause: 16}, map[field]string{fieldStatistics: "bye"},
		"0094 0001 1a2b3c4d 000d 0000  4321 04 00 0010 0000 627965 00*125"},
	{msgWANError, map[field]uint32{fieldPeerCallID: 0x1234, fieldCRCErrors: 1, fieldFramingErrors: 2, fieldHardwareOverruns: 3, fieldBufferOverruns: 4, fieldTimeoutErrors: 5, fieldAlignmentErrors: 6}, nil,
		"0028 0001 1a2b3c4d 000e 0000  1234 0000 00000001 00000002 00000003 00000004 00000005 00000006"},
	{msgSetLinkInfo, map[field]uint32{fieldPeerCallID: 0x1234, fieldSendACCM: 0xffffffff, fieldReceiveACCM: 0x000a0000}, nil,
		"0018 0001 1a2b3c4d 000f 0000  1234 0000 ffffffff 000a0000"},
}

func TestMessagesAreLaidOutAsInRFC2637Section2(t *testing.T) {
	seen := make(map[MessageType]bool)
	for _, g := range goldenMessages {
		seen[g.kind] = true
		wire := unhex(t, g.wire)
		m := newMessage(g.kind)
		for f, v := range g.fields {
			m.set(f, v)
		}
		for f, text := range g.texts {
			m.setText(f, text)
		}
		if got := appendMessage(nil, m); !bytes.Equal(got, wire) {
			t.Errorf("%v: composed\n%x, want\n%x", g.kind, got, wire)
		}
		parsed, size, err := parseMessage(wire)
		if err != nil || size != len(wire) || parsed.kind != g.kind {
			t.Fatalf("%v: parsed as %v, %d bytes, error %v", g.kind, parsed.kind, size, err)
		}
		for f, want := range g.fields {
			if v := parsed.number(f); v != want {
				t.Errorf("%v: field %d is %#x, want %#x", g.kind, f, v, want)
			}
		}
		for f, want := range g.texts {
			if text := parsed.text(f); text != want {
				t.Errorf("%v: field %d is %q, want %q", g.kind, f, text, want)
			}
		}
	}
	if len(seen) != 15 {
		t.Errorf("%d messages of 15 are tested", len(seen))
	}
}

func TestPrefixOfAMessageAsksForMore(t *testing.T) {
	for _, g := range goldenMessages {
		wire := unhex(t, g.wire)
		for n := range wire {
			if m, size, err := parseMessage(wire[:n]); size != 0 || err != nil || m.kind != 0 {
				t.Fatalf("%v cut to %d bytes: %v, %d bytes, error %v", g.kind, n, m.kind, size, err)
			}
		}
	}
}

// RFC 2637 section 2: the length and the magic cookie tell whether the stream is in step.
func TestStreamOutOfStepIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		wire string
		want error
	}{
		"magic cookie":             {"0010 0001 1a2b3c4e", errMagic},
		"HTTP":                     {"485454502f312e31", errMagic},
		"length below header":      {"000b 0001 1a2b3c4d", errLengthShort},
		"length zero":              {"0000 0001 1a2b3c4d", errLengthShort},
		"length beyond all bounds": {"0401 0001 1a2b3c4d", errLengthLong},
		"header only":              {"000c 0001 1a2b3c4d 0005 0000", errLengthShort},
		"short of the type":        {"001f 0001 1a2b3c4d 0008 0000 00*19", errLengthShort},
	} {
		if _, size, err := parseMessage(unhex(t, test.wire)); !errors.Is(err, test.want) || size != 0 {
			t.Errorf("%s: %d bytes, error %v", name, size, err)
		}
	}
}

func TestLongerMessageOfALaterVersionIsRead(t *testing.T) {
	m, size, err := parseMessage(unhex(t, "0018 0001 1a2b3c4d 0005 0000 00000007 ffffffff ffffffff 99"))
	if err != nil || size != 24 || m.number(fieldIdentifier) != 7 {
		t.Fatalf("%v, %d bytes, error %v", m, size, err)
	}
}

func TestUnknownMessagesAreSkipped(t *testing.T) {
	for _, wire := range []string{
		"000c 0001 1a2b3c4d 0000 0000", "000c 0001 1a2b3c4d 0010 0000", "000c 0001 1a2b3c4d ffff 0000",
		"0010 0002 1a2b3c4d 0005 0000 00000000", // a management message
	} {
		b := unhex(t, wire)
		if m, size, err := parseMessage(b); m.kind != 0 || size != len(b) || err != nil {
			t.Errorf("%s: %v, %d bytes, error %v", wire, m.kind, size, err)
		}
	}
}

func TestTextsAreBoundedAndPrintable(t *testing.T) {
	m := newMessage(msgSCCRQ)
	m.setText(fieldHostName, strings.Repeat("h", 100))
	if got := m.text(fieldHostName); got != strings.Repeat("h", 64) || m.at(fieldVendor)[0] != 0 {
		t.Errorf("%q", got)
	}
	m.setText(fieldVendor, "a\x1b[31m\xff\n b \x00hidden")
	if got := m.text(fieldVendor); got != "a[31m b" {
		t.Errorf("%q", got)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, g := range goldenMessages {
		f.Add(unhex(f, g.wire))
	}
	f.Add(unhex(f, "000c 0001 1a2b3c4d 0010 0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, size, err := parseMessage(b)
		if size < 0 || size > len(b) || err != nil && size != 0 {
			t.Fatalf("%d of %d bytes, error %v", size, len(b), err)
		}
		if m.kind == 0 {
			return
		}
		for _, s := range layouts[m.kind].slots {
			if len(m.at(s.field)) == 0 {
				t.Fatalf("%v has no field %d", m.kind, s.field)
			}
		}
		again, size2, err := parseMessage(appendMessage(nil, m))
		if err != nil || size2 != size || again.kind != m.kind || !bytes.Equal(again.body, m.body) {
			t.Fatalf("%v: parse of append is no identity: %v, %d bytes, error %v", m.kind, again.kind, size2, err)
		}
	})
}
