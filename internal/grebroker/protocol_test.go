package grebroker

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestRequestIsLaidOutAsDocumented(t *testing.T) {
	want := []byte{1, 192, 0, 2, 7}
	if got := appendRequest(nil, netip.MustParseAddr("::ffff:192.0.2.7")); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	if a, err := parseRequest(want); err != nil || a != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%v, error %v", a, err)
	}
	for n := range want {
		if _, err := parseRequest(want[:n]); err != errRequest {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte{1, 192, 0, 2, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parseRequest(b); err == nil && !bytes.Equal(appendRequest(nil, a), b) {
			t.Errorf("%x is %v, which is %x", b, a, appendRequest(nil, a))
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte{0})
	f.Add(appendRefusal(nil, "no"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := parseReply(b)
		if err == nil && !bytes.Equal(b, []byte{0}) {
			t.Errorf("%x is a grant", b)
		}
		if refused, ok := err.(*RefusedError); ok && len(refused.Reason) > maxReply {
			t.Errorf("%d bytes of reason", len(refused.Reason))
		}
	})
}
