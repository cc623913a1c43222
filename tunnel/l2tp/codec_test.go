package l2tp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// RFC 2661 section 3.1: every form a header may have.
func TestHeaderForms(t *testing.T) {
	for _, test := range []struct {
		name, datagram string
		want           header
		payload        string
	}{
		{"control, ZLB", "c802 000c 0001 0002 0003 0004", header{control: true, length: true, sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, ""},
		{"control, more behind the length", "c802 000d 0001 0002 0003 0004 aa bb", header{control: true, length: true, sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, "aa"},
		{"control, P and reserved bits set", "f9f2 000c 0001 0002 0003 0004", header{control: true, length: true, sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, ""},
		{"data, least", "0002 0001 0002 ff03", header{tunnelID: 1, sessionID: 2}, "ff03"},
		{"data, L", "4002 000a 0001 0002 ff03 dead", header{length: true, tunnelID: 1, sessionID: 2}, "ff03"},
		{"data, S", "0802 0001 0002 0003 0004 ff03", header{sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, "ff03"},
		{"data, L and S", "4802 000e 0001 0002 0003 0004 ff03", header{length: true, sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, "ff03"},
		{"data, O with pad", "0202 0001 0002 0003 aaaaaa ff03", header{tunnelID: 1, sessionID: 2}, "ff03"},
		{"data, O without pad", "0202 0001 0002 0000 ff03", header{tunnelID: 1, sessionID: 2}, "ff03"},
		{"data, all, P", "4b02 0011 0001 0002 0003 0004 0001 aa ff03", header{length: true, sequenced: true, tunnelID: 1, sessionID: 2, ns: 3, nr: 4}, "ff03"},
		{"data, empty", "0002 0001 0002", header{tunnelID: 1, sessionID: 2}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, payload, err := parseHeader(unhex(test.datagram))
			if err != nil || h != test.want || !bytes.Equal(payload, unhex(test.payload)) {
				t.Errorf("%+v, %x, %v", h, payload, err)
			}
		})
	}
}

func TestHeaderPrefixesFail(t *testing.T) {
	for _, whole := range []string{"c802 000c 0001 0002 0003 0004", "0002 0001 0002", "4002 0008 0001 0002", "0802 0001 0002 0003 0004", "4b02 0011 0001 0002 0003 0004 0003 aaaaaa"} {
		b := unhex(whole)
		if _, _, err := parseHeader(b); err != nil {
			t.Fatal(whole, err)
		}
		for n := range b {
			if _, _, err := parseHeader(b[:n]); err == nil {
				t.Errorf("%x was accepted", b[:n])
			}
		}
	}
}

func TestMalformedHeaders(t *testing.T) {
	for _, test := range []struct {
		name, datagram string
		want           error
	}{
		{"L2F", "0001 0001 0002 ff03", errHeaderVersion},
		{"L2TPv3", "c803 000c 0001 0002 0003 0004", errHeaderVersion},
		{"version 0", "c800 000c 0001 0002 0003 0004", errHeaderVersion},
		{"control without L", "8802 0001 0002 0003 0004 0000", errHeaderControl},
		{"control without S", "c002 0008 0001 0002 0000 0000", errHeaderControl},
		{"control with O", "ca02 000e 0001 0002 0003 0004 0000", errHeaderControl},
		{"length beyond the datagram", "c802 000d 0001 0002 0003 0004", errHeaderLength},
		{"length within the header", "c802 000b 0001 0002 0003 0004", errHeaderLength},
		{"length 0", "4002 0000 0001 0002", errHeaderLength},
		{"offset beyond the datagram", "0202 0001 0002 0004 aaaaaa", errHeaderShort},
		{"offset beyond the length", "4202 000c 0001 0002 0003 aaaaaa ff03", errHeaderShort},
		{"no room for the offset size", "0202 0001 0002 00", errHeaderShort},
	} {
		if _, _, err := parseHeader(unhex(test.datagram)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// Vectors computed independently, for RFC 2661 sections 4.3 and 4.4.3.
func TestChallengeResponseVectors(t *testing.T) {
	challenge := unhex("000102030405060708090a0b0c0d0e0f")
	for kind, want := range map[messageType]string{msgSCCRP: "dd4186e2196f00124a9d588f02701259", msgSCCCN: "8f3c2fa6fcfea72215ae83ea89ec2b77"} {
		if got := challengeResponse(kind, []byte("secret"), challenge); hex.EncodeToString(got[:]) != want {
			t.Errorf("%v: %x", kind, got)
		}
	}
}

func TestHiddenVectors(t *testing.T) {
	vector := unhex("101112131415161718191a1b1c1d1e1f")
	for _, test := range []struct {
		attribute    attribute
		value        []byte
		want, header string
	}{
		{attrAssignedTunnelID, unhex("1234"), "bb5335ed", "c00a 0000 0009"},
		{attrProxyResponse, []byte("a password longer than sixteen"), "1000625f08e68ac5de84e87d332b215d1da445d165bad25e87092688405ebfae", "4026 0000 0021"},
	} {
		hidden := appendHidden([]byte("front"), []byte("secret"), vector, test.attribute, test.value, nil)
		if got := hex.EncodeToString(hidden[5:]); got != test.want {
			t.Errorf("attribute %d: %s", test.attribute, got)
		}
		clear, err := parseHidden(hidden[5:], []byte("secret"), vector, test.attribute)
		if err != nil || !bytes.Equal(clear, test.value) {
			t.Errorf("attribute %d: %x %v", test.attribute, clear, err)
		}
		whole := appendAVP(nil, avp{mandatory: avpRules[avpKey{vendorIETF, test.attribute}].mandatory, hidden: true, attribute: test.attribute, value: hidden[5:]})
		if !bytes.HasPrefix(whole, unhex(test.header)) {
			t.Errorf("attribute %d: %x", test.attribute, whole)
		}
		padded := appendHidden(nil, []byte("secret"), vector, test.attribute, test.value, make([]byte, 21))
		if clear, err := parseHidden(padded, []byte("secret"), vector, test.attribute); err != nil || !bytes.Equal(clear, test.value) {
			t.Errorf("padded attribute %d: %x %v", test.attribute, clear, err)
		}
	}
}

// The original length is noise under a wrong secret and must be checked after deciphering.
func TestHiddenFailsCleanly(t *testing.T) {
	vector, secret := []byte("vector"), []byte("secret")
	hidden := appendHidden(nil, secret, vector, attrChallenge, []byte("value of a challenge"), nil)
	for n := range hidden {
		if _, err := parseHidden(hidden[:n], secret, vector, attrChallenge); !errors.Is(err, errHidden) {
			t.Errorf("prefix of %d bytes: %v", n, err)
		}
	}
	for name, f := range map[string]func() ([]byte, error){
		"no secret": func() ([]byte, error) { return parseHidden(hidden, nil, vector, attrChallenge) },
		"no vector": func() ([]byte, error) { return parseHidden(hidden, secret, nil, attrChallenge) },
	} {
		if _, err := f(); !errors.Is(err, errHidden) {
			t.Error(name, err)
		}
	}
}

func TestAVPPrefixesFail(t *testing.T) {
	whole := appendAVP(nil, avp{mandatory: true, attribute: attrHostName, value: []byte("name")})
	for n := range whole {
		if a, _, err := parseAVP(whole[:n]); err == nil || n > 0 && !a.mandatory {
			t.Errorf("prefix of %d bytes: %v", n, err)
		}
	}
	for _, length := range []byte{0, 5} {
		if _, _, err := parseAVP([]byte{0x80, length, 0, 0, 0, 7}); !errors.Is(err, errAVPLength) {
			t.Error("length", length, err)
		}
	}
}

func TestAVPValueIsCutToWhatTheLengthFieldHolds(t *testing.T) {
	b := appendAVP(nil, avp{attribute: attrHostName, value: make([]byte, 2000)})
	if a, rest, err := parseAVP(b); err != nil || len(rest) != 0 || len(a.value) != maxAVPValue {
		t.Error(len(a.value), err)
	}
}

// avps strings AVPs together behind a Message Type.
func avps(kind messageType, list ...avp) []byte {
	b := body(kind)
	for _, a := range list {
		b = appendAVP(b, a)
	}
	return b
}

func TestMessageRules(t *testing.T) {
	id := avp{mandatory: true, attribute: attrAssignedSessionID, value: []byte{1, 2}}
	secret, vector := []byte("secret"), []byte("0123456789abcdef")
	rv := avp{mandatory: true, attribute: attrRandomVector, value: vector}
	hidden := func(a attribute, v string, m bool) avp {
		return avp{mandatory: m, hidden: true, attribute: a, value: appendHidden(nil, secret, vector, a, []byte(v), nil)}
	}
	for _, test := range []struct {
		name string
		body []byte
		code errorCode // 0: acceptable
		soft bool      // acceptable if permissive
	}{
		{name: "as it should be", body: avps(msgICRP, id)},
		{name: "unknown AVP, M=0", body: avps(msgICRP, id, avp{attribute: 99, value: []byte("x")})},
		{name: "unknown AVP, M=1", body: avps(msgICRP, id, avp{mandatory: true, attribute: 99}), code: errorUnknownAVP, soft: true},
		{name: "vendor's AVP with a known number, M=0", body: avps(msgICRP, avp{vendor: 3561, attribute: attrAssignedSessionID, value: []byte{9, 9}}, id)},
		{name: "vendor's AVP with a known number, M=1", body: avps(msgICRP, avp{mandatory: true, vendor: 3561, attribute: attrProtocolVersion, value: []byte{9, 9}}, id), code: errorUnknownAVP, soft: true},
		{name: "reserved bit, M=0", body: append(avps(msgICRP, id), 0x20, 6, 0, 0, 0, 39)},
		{name: "reserved bit, M=1", body: append(avps(msgICRP, id), 0xa0, 6, 0, 0, 0, 39), code: errorUnknownAVP, soft: true},
		{name: "wrong length, M=0", body: avps(msgICRP, id, avp{attribute: attrFirmwareRevision, value: []byte{1}})},
		{name: "wrong length, M=1", body: avps(msgICRP, id, avp{mandatory: true, attribute: attrBearerType, value: []byte{1}}), code: errorLength, soft: true},
		{name: "zero ID", body: avps(msgICRP, avp{mandatory: true, attribute: attrAssignedSessionID, value: []byte{0, 0}}), code: errorValue},
		{name: "required AVP missing", body: avps(msgICRP), code: errorVendor},
		{name: "required AVP faulty, M=0", body: avps(msgICRP, avp{attribute: attrAssignedSessionID, value: []byte{1}}), code: errorVendor},
		{name: "AVP beyond the end, M=0", body: append(avps(msgICRP, id), 0x00, 9, 0, 0, 0, 8, 'x')},
		{name: "AVP beyond the end, M=1", body: append(avps(msgICRP, id), 0x80, 9, 0, 0, 0, 8, 'x'), code: errorLength, soft: true},
		{name: "a byte too many", body: append(avps(msgICRP, id), 0)},
		{name: "empty Message Type", body: []byte{0x80, 6, 0, 0, 0, 0}, code: errorValue},
		{name: "Message Type not in front", body: appendAVP(nil, id), code: errorValue},
		{name: "hidden", body: avps(msgICRP, rv, hidden(attrAssignedSessionID, "\x01\x02", true))},
		{name: "hidden zero ID", body: avps(msgICRP, rv, hidden(attrAssignedSessionID, "\x00\x00", true)), code: errorValue},
		{name: "hidden without Random Vector", body: avps(msgICRP, hidden(attrAssignedSessionID, "\x01\x02", true)), code: errorValue},
		{name: "hidden before its Random Vector", body: avps(msgICRP, hidden(attrAssignedSessionID, "\x01\x02", true), rv), code: errorValue},
		{name: "hidden under the closest Random Vector", body: avps(msgICRP, avp{mandatory: true, attribute: attrRandomVector, value: []byte("another")}, rv, hidden(attrAssignedSessionID, "\x01\x02", true))},
		{name: "hidden what must not be, M=1", body: avps(msgICRP, id, rv, hidden(attrHostName, "x", true)), code: errorValue, soft: true},
		{name: "hidden what must not be, M=0", body: avps(msgICRP, id, rv, hidden(attrHostName, "x", false))},
		{name: "of two alike the first counts", body: avps(msgICRP, id, avp{mandatory: true, attribute: attrAssignedSessionID, value: []byte{7, 7}})},
		{name: "StopCCN, however faulty", body: avps(msgStopCCN, avp{mandatory: true, attribute: 99})},
		{name: "CDN with an ID of zero", body: avps(msgCDN, avp{mandatory: true, attribute: attrAssignedSessionID, value: []byte{0, 0}})},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, f := parseMessage(test.body, secret, false)
			if (f != nil) != (test.code != 0) || f != nil && f.code != test.code {
				t.Fatalf("%+v", f)
			}
			if f == nil && m.kind == msgICRP && m.uint16(attrAssignedSessionID) != 0x0102 {
				t.Errorf("%+v", m)
			}
			if _, f := parseMessage(test.body, secret, true); (f == nil) != (test.code == 0 || test.soft) {
				t.Errorf("permissive: %+v", f)
			}
		})
	}
}

// Each AVP's value is checked at both ends of its length, hidden or not.
func TestEveryAVPRule(t *testing.T) {
	secret, vector := []byte("secret"), []byte("0123456789abcdef")
	for key, rule := range avpRules {
		for _, size := range []int{rule.min - 1, rule.min, rule.max, rule.max + 1} {
			if size < 0 || size > maxHiddenValue {
				continue
			}
			v := bytes.Repeat([]byte{1}, size)
			good := size >= rule.min && size <= rule.max
			if _, f := readAVP(avp{attribute: key.attribute, value: v}, nil, nil); (f == nil) != good {
				t.Errorf("attribute %d with %d bytes: %v", key.attribute, size, f)
			}
			h := appendHidden(nil, secret, vector, key.attribute, v, []byte("pad"))
			if _, f := readAVP(avp{hidden: true, attribute: key.attribute, value: h}, secret, vector); (f == nil) != (good && rule.hideable) {
				t.Errorf("hidden attribute %d with %d bytes: %v", key.attribute, size, f)
			}
		}
		if rule.nonZero {
			if _, f := readAVP(avp{attribute: key.attribute, value: []byte{0, 0}}, nil, nil); f == nil {
				t.Errorf("attribute %d may be zero", key.attribute)
			}
		}
	}
}

// RFC 2661 section 6: without any one of its required AVPs a message is faulty.
func TestEveryRequiredAVP(t *testing.T) {
	for kind, rule := range messageRules {
		whole := legalBody(kind, 0)
		if _, f := parseMessage(whole, nil, false); f != nil {
			t.Fatalf("%v: %+v", kind, f)
		}
		for _, missing := range rule.required {
			if _, f := parseMessage(legalBody(kind, missing), nil, false); f == nil {
				t.Errorf("%v without AVP %d was accepted", kind, missing)
			}
		}
		for n := range whole {
			parseMessage(whole[:n], nil, false) // prefixes must not panic; whether one is a message depends on where it is cut
		}
	}
}

// legalBody is a message with all its required AVPs but one.
func legalBody(kind messageType, without attribute) []byte {
	list := []any{}
	for _, a := range messageRules[kind].required {
		if a == without {
			continue
		}
		rule := avpRules[avpKey{vendorIETF, a}]
		v := bytes.Repeat([]byte{1}, max(rule.min, 1))
		if a == attrProtocolVersion {
			v = []byte(protocolVersion1)
		}
		list = append(list, a, v)
	}
	return body(kind, list...)
}

func TestMessageRulesHaveOneHandlerEach(t *testing.T) {
	for kind, rule := range messageRules {
		if kind == msgSCCRQ {
			continue // the Endpoint's
		}
		if (rule.onTunnel == nil) == (rule.onSession == nil) {
			t.Errorf("%v has no handler or two", kind)
		}
		if (rule.onTunnel != nil) != (rule.tunnelStates != 0) || (rule.onSession != nil) != (rule.sessionStates != 0) {
			t.Errorf("%v is legal where its handler is not", kind)
		}
	}
}

func TestResultCodes(t *testing.T) {
	for _, test := range []struct {
		value string
		want  result
	}{
		{"", result{}},
		{"0003", result{code: 3}}, // RouterOS: an AVP of length 8
		{"0003 00", result{code: 3}},
		{"0002 0008", result{code: 2, error: 8}},
		{"0002 0006 6f6f7073", result{code: 2, error: 6, text: "oops"}},
		{"0002 0600", result{code: 2, error: 6}}, // Apple: the other byte order
		{"0002 ffff", result{code: 2, error: 0xffff}},
		{"0001 0000 1b5b33316d68690a00ff", result{code: 1, text: "[31mhi"}}, // nothing that steers a terminal
	} {
		if got := parseResult(unhex(test.value)); got != test.want {
			t.Errorf("%s: %+v", test.value, got)
		}
	}
	long := result{code: 2, error: 6, text: strings.Repeat("x", 5000)}
	if got := parseResult(appendResult(nil, long)); len(got.text) != resultTextSize {
		t.Error("text of", len(got.text), "bytes")
	}
}

func TestErrorsSpeakInWords(t *testing.T) {
	cause := errors.New("connection refused")
	for _, test := range []struct {
		err interface {
			error
			Stage() string
			Advice() string
		}
		text, stage string
		advice      bool
	}{
		{&PeerError{ResultCode: 4}, `l2tp: peer refused the tunnel: not authorised to have a tunnel (result 4)`, "l2tp-tunnel", true},
		{&PeerError{WasUp: true, ResultCode: 6, Text: "bye"}, `l2tp: peer closed the tunnel: the peer is shutting down (result 6): "bye"`, "l2tp-tunnel", true},
		{&PeerError{ResultCode: 5, ErrorCode: 0x0100}, `l2tp: peer refused the tunnel: protocol version not supported (result 5, error 256)`, "l2tp-tunnel", true},
		{&PeerError{ResultCode: 2, ErrorCode: 7}, `l2tp: peer refused the tunnel: general error (result 2, error 7: try another server)`, "l2tp-tunnel", true},
		{&PeerError{ResultCode: 2, ErrorCode: 4}, `l2tp: peer refused the tunnel: general error (result 2, error 4: out of resources)`, "l2tp-tunnel", true},
		{&PeerError{ResultCode: 1}, `l2tp: peer refused the tunnel: general request to clear the tunnel (result 1)`, "l2tp-tunnel", false},
		{&PeerError{ResultCode: 99}, `l2tp: peer refused the tunnel: (result 99)`, "l2tp-tunnel", false},
		{&PeerError{Session: true, ResultCode: 4}, `l2tp: peer refused the session: no facilities for the moment (result 4)`, "l2tp-session", true},
		{&PeerError{Session: true, WasUp: true, ResultCode: 1, CauseCode: 16}, `l2tp: peer closed the session: loss of carrier (result 1, Q.931 cause 16)`, "l2tp-session", true},
		{&LocalError{Kind: NoAnswer, Detail: "no answer from 1.2.3.4:1701"}, "l2tp: no answer from 1.2.3.4:1701", "l2tp-tunnel", true},
		{&LocalError{Kind: Unreachable, Detail: "cannot reach x", Err: cause}, "l2tp: cannot reach x: connection refused", "l2tp-tunnel", true},
		{&LocalError{Session: true, Kind: TimedOut, Detail: "slow"}, "l2tp: slow", "l2tp-session", true},
		{&LocalError{Kind: WrongSecret}, "l2tp: ", "l2tp-tunnel", true},
		{&LocalError{Kind: NoSecret}, "l2tp: ", "l2tp-tunnel", true},
		{&LocalError{Kind: Protocol}, "l2tp: ", "l2tp-tunnel", true},
		{&LocalError{Kind: NoResources}, "l2tp: ", "l2tp-tunnel", true},
		{&LocalError{Kind: TieLost}, "l2tp: ", "l2tp-tunnel", false},
	} {
		if got := test.err.Error(); got != test.text {
			t.Errorf("%s\nwant %s", got, test.text)
		}
		if test.err.Stage() != test.stage || (test.err.Advice() != "") != test.advice {
			t.Errorf("%v: stage %s, advice %q", test.err, test.err.Stage(), test.err.Advice())
		}
	}
}

func TestNamesOfMessages(t *testing.T) {
	if msgStopCCN.String() != "StopCCN" || messageType(5).String() != "message type 5" || messageType(999).String() != "message type 999" {
		t.Error("names")
	}
	if LAC.String() != "LAC" || LNS.String() != "LNS" {
		t.Error("roles")
	}
}

func FuzzHeader(f *testing.F) {
	for _, s := range []string{"c802000c0001000200030004", "4b0200110001000200030004000 1aaff03", "000200010002ff03", "0003"} {
		f.Add(unhex(s))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		h, payload, err := parseHeader(datagram)
		if err != nil {
			return
		}
		if len(payload)+h.size() > len(datagram) {
			t.Fatal("more came out than was in")
		}
		again := append(appendHeader(nil, h, len(payload)), payload...)
		h2, payload2, err := parseHeader(again)
		if err != nil || h2 != h || !bytes.Equal(payload, payload2) {
			t.Fatalf("%+v became %+v: %v", h, h2, err)
		}
	})
}

func FuzzAVP(f *testing.F) {
	f.Add(appendAVP(nil, avp{mandatory: true, attribute: attrHostName, value: []byte("name")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, rest, err := parseAVP(b)
		if err != nil || a.reserved {
			return
		}
		if again := append(appendAVP(nil, a), rest...); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for kind := range messageRules {
		f.Add(legalBody(kind, 0))
	}
	c := compose(msgICRP, []byte("secret"), randomFrom(1))
	c.uint16(attrAssignedSessionID, 7)
	f.Add(c.body)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, fault := parseMessage(b, []byte("secret"), false)
		if fault != nil {
			return
		}
		if _, soft := parseMessage(b, []byte("secret"), true); soft != nil {
			t.Fatal("permissive is stricter")
		}
		// What was understood, written down again, is understood the same.
		c := &composer{}
		c.uint16(attrMessageType, uint16(m.kind))
		for _, v := range m.values {
			c.bytes(v.attribute, v.bytes)
		}
		again, fault := parseMessage(c.body, nil, false)
		if fault != nil {
			t.Fatal(fault.text)
		}
		if diff := cmp.Diff(fmt.Sprint(m.kind, m.values), fmt.Sprint(again.kind, again.values)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzHidden(f *testing.F) {
	f.Add(unhex("bb5335ed"), []byte("secret"), unhex("101112131415161718191a1b1c1d1e1f"), uint16(9))
	f.Fuzz(func(t *testing.T, hidden, secret, vector []byte, a uint16) {
		before := bytes.Clone(hidden)
		clear, err := parseHidden(hidden, secret, vector, attribute(a))
		if !bytes.Equal(before, hidden) {
			t.Fatal("the message was changed")
		}
		if err == nil && len(clear)+2 > len(hidden) {
			t.Fatal("more came out than was in")
		}
		if len(secret) == 0 || len(vector) == 0 || len(hidden) > maxHiddenValue {
			return
		}
		back, err := parseHidden(appendHidden(nil, secret, vector, attribute(a), hidden, secret), secret, vector, attribute(a))
		if err != nil || !bytes.Equal(back, hidden) {
			t.Fatalf("%x became %x: %v", hidden, back, err)
		}
	})
}
