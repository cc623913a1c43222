package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// RFC 1334 section 2.2.1.
func TestPAPRequestGolden(t *testing.T) {
	c := alice()
	end := &authEnd{}
	p := newAuthPeer(authProtoPAP, &c, end)
	p.start(authEpoch)
	const want = "01 01 0016 05 616c696365 0b 6f70656e20736573616d65"
	if got := end.takeOne(t); !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("request %x, want %s", got, want)
	}
}

// RFC 1334 section 2.2.2: identifier copied; the reply code stays the same for a repeated request, whatever it asks.
func TestPAPAuthenticatorRepeatsItsReply(t *testing.T) {
	c := doorman()
	end := &authEnd{}
	a := newAuthenticator(AuthPAP, &c, end)
	a.start(authEpoch)
	a.receive(authEpoch, appendAuthPacket(nil, papRequest, 7, appendPAPRequest(nil, "alice", "open sesame")))
	if got := end.takeOne(t); got[0] != papAck || got[1] != 7 {
		t.Errorf("reply %x", got)
	}
	a.receive(authEpoch, appendAuthPacket(nil, papRequest, 8, appendPAPRequest(nil, "mallory", "x")))
	if got := end.takeOne(t); got[0] != papAck || got[1] != 8 {
		t.Errorf("second reply %x", got)
	}
	if next := a.start(authEpoch); !next.IsZero() || len(end.take()) > 0 {
		t.Errorf("PAP has no re-challenge: next %v", next)
	}
	if len(end.results) != 1 {
		t.Errorf("%d successes, want 1", len(end.results))
	}
}

func TestPAPPeerTakesItsOwnAnswerOnly(t *testing.T) {
	c := alice()
	end := &authEnd{}
	p := newAuthPeer(authProtoPAP, &c, end)
	p.receive(authEpoch, []byte{papAck, 0, 0, 4}) // before anything was asked
	p.start(authEpoch)
	id := end.takeOne(t)[1]
	for _, packet := range [][]byte{
		appendAuthPacket(nil, papAck, id+1, nil),
		appendAuthPacket(nil, papNak, id-1, nil),
		appendAuthPacket(nil, papRequest, id, appendPAPRequest(nil, "a", "b")),
		appendAuthPacket(nil, 4, id, nil),
	} {
		p.receive(authEpoch, packet)
	}
	if len(end.results) > 0 || end.err(t) != nil {
		t.Fatalf("took a foreign answer: %v %v", end.results, end.errs)
	}
	p.receive(authEpoch, appendAuthPacket(nil, papAck, id, appendPAPMessage(nil, "Login ok")))
	if len(end.results) != 1 || end.results[0].message != "Login ok" {
		t.Errorf("results %+v", end.results)
	}
	p.receive(authEpoch, appendAuthPacket(nil, papNak, id, nil)) // a late word
	if end.err(t) != nil {
		t.Errorf("late Nak: %v", end.err(t))
	}
}

// RFC 1334 section 2.2.2; servers leave the length octet out when there is no text, and some miscount it.
func TestPAPMessageIsReadLeniently(t *testing.T) {
	for data, want := range map[string]string{"": "", "00": "", "024e6f": "No", "014e6f": "N", "ff4e6f": "No", "02": ""} {
		if got := string(parsePAPMessage(unhex(t, data))); got != want {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}

func TestPAPRequestMalformed(t *testing.T) {
	for _, data := range []string{"", "01", "0161", "016101", "0261", "016102aa", "ff"} {
		if _, _, err := parsePAPRequest(unhex(t, data)); !errors.Is(err, errAuthField) {
			t.Errorf("%s: %v, want %v", data, err, errAuthField)
		}
	}
	// RFC 1334 sections 2.2.1: "zero or more octets"; what follows is padding.
	user, password, err := parsePAPRequest(unhex(t, "0000ffff"))
	if len(user)+len(password) != 0 || err != nil {
		t.Errorf("empty fields: %q %q %v", user, password, err)
	}
}

func TestPAPRefusesWhatItCannotSend(t *testing.T) {
	for name, c := range map[string]Config{
		"user":     {Username: strings.Repeat("u", 256)},
		"password": {Password: strings.Repeat("p", 256)},
	} {
		c = c.withDefaults()
		end := &authEnd{}
		next := newAuthPeer(authProtoPAP, &c, end).start(authEpoch)
		if localReason(end.err(t)) != AuthBadLogin || !next.IsZero() || len(end.sent) > 0 {
			t.Errorf("%s: %v, sent %x", name, end.err(t), end.sent)
		}
	}
	c := Config{Username: strings.Repeat("u", 255), Password: strings.Repeat("p", 255)}.withDefaults()
	end := &authEnd{}
	newAuthPeer(authProtoPAP, &c, end).start(authEpoch)
	if p := end.takeOne(t); hex.EncodeToString(p[2:5]) != "0204ff" {
		t.Errorf("longest request begins %x", p[:5])
	}
}

func FuzzPAPRequest(f *testing.F) {
	f.Add([]byte("\x05alice\x01x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parsePAPMessage(data)
		user, password, err := parsePAPRequest(data)
		if err != nil {
			return
		}
		if got := appendPAPRequest(nil, string(user), string(password)); !bytes.HasPrefix(data, got) {
			t.Error(cmp.Diff(data, got))
		}
	})
}
