package stack

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func synTo(to string) []byte {
	s := baseSegment(false)
	s.dst, s.flags = netip.MustParseAddrPort(to), flagSYN
	return s.marshal()
}

// TestOpenersAreRepeatedUntilTheFarEndIsHeard tells when a SYN leaves again.
func TestOpenersAreRepeatedUntilTheFarEndIsHeard(t *testing.T) {
	first, second := synTo("10.1.1.1:80"), synTo("10.1.1.2:80")
	for _, test := range []struct {
		name   string
		heard  time.Duration // 0: never
		closed time.Duration
		want   []time.Duration // of the first; the second follows 50 ms behind
	}{
		{"never", 0, 0, []time.Duration{openerPause, 3 * openerPause}},
		{"heard at once", time.Millisecond, 0, nil},
		{"heard after the first time", openerPause + 1, 0, []time.Duration{openerPause}},
		{"closed before", 0, openerPause - 1, nil},
		{"closed after the first time", 0, openerPause + 1, []time.Duration{openerPause}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var got []time.Duration
				seconds := 0
				o := openers{send: func(packet []byte) {
					if bytes.Equal(packet, first) {
						got = append(got, time.Since(start))
					} else if bytes.Equal(packet, second) {
						seconds++
					} else {
						t.Errorf("sent % x", packet)
					}
				}}
				if test.heard > 0 {
					time.AfterFunc(test.heard, o.heard)
				}
				if test.closed > 0 {
					time.AfterFunc(test.closed, o.close)
				}
				borrowed := slices.Clone(first)
				o.sent(borrowed)
				clear(borrowed)
				o.sent(flow(baseSegment(false), 100)[0].marshal()) // no opener
				time.Sleep(openerPause / 2)
				o.sent(second)
				time.Sleep(time.Minute)
				o.sent(first) // too late: TCP has its own patience
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Equal(got, test.want) {
					t.Errorf("sent again after %v, want %v", got, test.want)
				}
				if want := len(test.want); test.heard != time.Millisecond && seconds != want {
					t.Errorf("the second was sent again %d times, want %d", seconds, want)
				}
			})
		})
	}
}

func TestOpenersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		o := openers{send: func([]byte) { n++ }}
		for range 1000 {
			o.sent(synTo("10.1.1.1:80"))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n != openersKept*openerRepeats {
			t.Errorf("%d packets were sent again", n)
		}
	})
}

func TestIsOpener(t *testing.T) {
	syn6 := baseSegment(true)
	syn6.flags = flagSYN
	synAck := baseSegment(false)
	synAck.flags = flagSYN | flagACK
	question := make([]byte, 40)
	question[0], question[ipv4Protocol], question[ipv4HeaderLen+udpDestination+1] = 0x45, protocolUDP, dnsPort
	other := slices.Clone(question)
	other[ipv4HeaderLen+udpDestination+1]++
	for name, test := range map[string]struct {
		packet []byte
		want   bool
	}{
		"SYN":          {synTo("10.1.1.1:80"), true},
		"SYN, IPv6":    {syn6.marshal(), true},
		"SYN and ACK":  {synAck.marshal(), false},
		"data":         {baseSegment(false).marshal(), false},
		"DNS question": {question, true},
		"other UDP":    {other, false},
		"nothing":      {nil, false},
	} {
		if got := isOpener(test.packet); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
		for n := range test.packet {
			isOpener(test.packet[:n:n]) // must not read on
		}
	}
}

// TestDialReachesAServerThatIsLate loses what comes before the server's end of the link is up.
func TestDialReachesAServerThatIsLate(t *testing.T) {
	lost := 0
	a, b := pair(t, configA(), configB(), func(there, _ *wire) {
		there.fate = func([]byte) (int, bool) {
			if lost < 2 {
				lost++
				return 0, false
			}
			return 1, false
		}
	})
	near, far := connect(t, a, b, addrB)
	if n := a.Stats().Retransmits; n != 0 {
		t.Errorf("TCP itself had to send its SYN again: %d times", n)
	}
	if _, err := fmt.Fprint(near, "hello"); err != nil {
		t.Fatal(err)
	}
	near.CloseWrite()
	if got, err := io.ReadAll(far); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}
