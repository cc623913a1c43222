package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// syn is a SYN as gVisor makes them, with a timestamp of 1000.
func syn(v6 bool, port uint16, sequence uint32) segment {
	s := baseSegment(v6)
	s.src = netip.AddrPortFrom(s.src.Addr(), port)
	s.flags, s.seq, s.ack = flagSYN, sequence, 0
	s.options = []byte{2, 4, 5, 0x4c, 4, 2, 8, 10, 0, 0, 3, 0xe8, 0, 0, 0, 0, 1, 3, 3, 8}
	return s
}

// after is the SYN with a timestamp that is later by milliseconds.
func (s segment) after(milliseconds uint32) segment {
	s.options = slices.Clone(s.options)
	binary.BigEndian.PutUint32(s.options[8:], 1000+milliseconds)
	return s
}

// TestSYNsThatLeaveAgainCarryTheirTime: RFC 7323 section 4.1.
func TestSYNsThatLeaveAgainCarryTheirTime(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, flags := range []byte{flagSYN, flagSYN | flagACK} {
			t.Run(fmt.Sprintf("v6=%v flags=%#x", v6, flags), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var clocks synClocks
					first := syn(v6, 1000, 0x10000007)
					first.flags = header.TCPFlags(flags)
					other := first
					other.seq++
					send := func(s segment, want segment) {
						t.Helper()
						packet := s.marshal()
						clocks.stamp(packet)
						if want := want.marshal(); !bytes.Equal(packet, want) {
							t.Errorf("after %v: left as % x\nwant % x", time.Now(), packet, want)
						}
					}
					send(first, first)
					time.Sleep(100 * time.Millisecond)
					send(first, first.after(100))
					send(other, other)
					time.Sleep(900 * time.Millisecond)
					send(first, first.after(1000))
					send(first.after(1000), first.after(1000)) // some have the right time already
					time.Sleep(6 * time.Second)
					send(first.after(7000), first.after(7000))
					send(first, first.after(7000))
					send(other, other.after(6900))
				})
			})
		}
	}
}

// TestOnlySYNsAreStamped leaves all else as it is.
func TestOnlySYNsAreStamped(t *testing.T) {
	first := syn(false, 1000, 7)
	otherPort, samePlace, noTimestamp, data := syn(false, 1001, 7), syn(false, 1000, 7+256), first, first
	noTimestamp.options = []byte{2, 4, 5, 0x4c}
	data.flags = flagACK
	udp := first.marshal()
	udp[ipv4Protocol] = protocolUDP
	for name, packet := range map[string][]byte{
		"another connection":    otherPort.marshal(),
		"another in its place":  samePlace.marshal(),
		"without timestamp":     noTimestamp.marshal(),
		"not a SYN":             data.marshal(),
		"not TCP":               udp,
		"first of its own kind": syn(true, 1000, 8).marshal(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clocks synClocks
				clocks.stamp(first.marshal())
				time.Sleep(time.Second)
				was := slices.Clone(packet)
				clocks.stamp(packet)
				if !bytes.Equal(packet, was) {
					t.Errorf("% x became % x", was, packet)
				}
			})
		})
	}
}

func TestTimestampOption(t *testing.T) {
	timestamp := []byte{8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
	for name, test := range map[string]struct {
		options []byte
		found   bool
	}{
		"alone, aligned":       {append([]byte{1, 1}, timestamp...), true},
		"behind others":        {append([]byte{2, 4, 5, 0x4c, 4, 2}, timestamp...), true},
		"none":                 {nil, false},
		"behind the end":       {append([]byte{0, 0}, timestamp...), false},
		"of another length":    {[]byte{8, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, false},
		"cut off":              {[]byte{1, 1, 1, 1, 1, 1, 1, 1, 8, 10, 1, 2}, false},
		"behind a length of 0": {append([]byte{3, 0}, timestamp...), false},
		"behind a length of 1": {append([]byte{3, 1}, timestamp...), false},
		"length missing":       {[]byte{1, 1, 1, 3}, false},
	} {
		s := syn(false, 1000, 7)
		s.options = test.options
		tcp := s.marshal()[ipv4HeaderLen:]
		got := timestampOption(tcp)
		if test.found != (got != nil) || test.found && !bytes.Equal(got, timestamp[2:]) {
			t.Errorf("%s: got % x", name, got)
		}
	}
	whole := syn(false, 1000, 7).marshal()
	for n := range whole {
		new(synClocks).stamp(whole[:n:n]) // must not read on
	}
	short := syn(false, 1000, 7).marshal()
	short[ipv4HeaderLen+tcpOffset] = 4 << 4
	if got := timestampOption(short[ipv4HeaderLen:]); got != nil {
		t.Errorf("a header of 16 bytes has the timestamp % x", got)
	}
}

// TestEchoOfAnEarlierSYNIsNoSample: RFC 6298 section 3.
func TestEchoOfAnEarlierSYNIsNoSample(t *testing.T) {
	first := syn(false, 1000, 7)
	answer := func(echo uint32) segment {
		s := first
		s.src, s.dst = first.dst, first.src
		s.flags, s.seq, s.ack = flagSYN|flagACK, 99, first.seq+1
		s.options = slices.Clone(first.options)
		binary.BigEndian.PutUint32(s.options[12:], echo)
		return s
	}
	otherPort, otherNumber := answer(1000), answer(1000)
	otherPort.dst = netip.AddrPortFrom(first.src.Addr(), 1001)
	otherNumber.ack++
	for name, test := range map[string]struct {
		copies int // a second apart
		answer segment
		want   uint32
	}{
		"the only copy":              {1, answer(1000), 1000},
		"the last copy":              {3, answer(3000), 3000},
		"an earlier copy":            {3, answer(2000), 0},
		"the first copy":             {2, answer(1000), 0},
		"another port's SYN":         {2, otherPort, 1000},
		"another sequence number":    {2, otherNumber, 1000},
		"nothing that was ever sent": {0, answer(1000), 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clocks synClocks
				for range test.copies {
					clocks.stamp(first.marshal())
					time.Sleep(time.Second)
				}
				tcp := test.answer.marshal()[ipv4HeaderLen:]
				clocks.answered(tcp)
				if got := binary.BigEndian.Uint32(timestampOption(tcp)[4:]); got != test.want {
					t.Errorf("the echo is %d, want %d", got, test.want)
				}
			})
		})
	}
}

// TestLostSYNIsNoLongRoundTrip loses SYNs, or SYN-ACKs, until TCP itself has sent one again, after a second.
func TestLostSYNIsNoLongRoundTrip(t *testing.T) {
	loseFor := func(duration time.Duration, flags byte) func([]byte) (int, bool) {
		var first time.Time
		return func(packet []byte) (int, bool) {
			if _, tcp := transport(packet); len(tcp) < tcpHeaderLen || tcp[tcpFlags] != flags {
				return 1, false
			}
			if first.IsZero() {
				first = time.Now()
			}
			if time.Since(first) < duration {
				return 0, false
			}
			return 1, false
		}
	}
	const lost = 900 * time.Millisecond
	for what, prepare := range map[string]func(there, back *wire){
		"SYN":     func(there, _ *wire) { there.fate = loseFor(lost, flagSYN) },
		"SYN-ACK": func(_, back *wire) { back.fate = loseFor(lost, flagSYN|flagACK) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t, configA(), configB(), func(there, back *wire) {
				there.delay = 25 * time.Millisecond // our SYN leaves again before the answer to the first is sent again
				prepare(there, back)
			})
			near, far := connect(t, a, b, addrB)
			if _, err := near.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			near.CloseWrite()
			if got, err := io.ReadAll(far); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v", got, err)
			}
			for name, conn := range map[string]any{"near": near, "far": far} {
				if plain && name == "near" && what == "SYN-ACK" {
					continue // without GRO nobody looks at SYN-ACKs
				}
				var info tcpip.TCPInfoOption
				if err := conn.(*Conn).ep.GetSockOpt(&info); err != nil {
					t.Fatal(err)
				}
				if info.RTT > lost/2 {
					t.Errorf("%s: a round trip of %v, a timeout of %v", name, info.RTT, info.RTO)
				}
			}
		})
	}
}
