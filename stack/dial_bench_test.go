package stack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkDial tells in round trips what it takes until a connection may be written to, over a link of 20 ms there and back.
func BenchmarkDial(b *testing.B) {
	const roundTrip = 20 * time.Millisecond
	var (
		dead6  = netip.MustParseAddr("fd88::66") // nobody answers
		other4 = netip.MustParseAddr("10.88.0.3")
	)
	for _, test := range []struct {
		to        string
		addresses []netip.Addr // of the name; nil: no name is asked for
		cached    bool
	}{
		{to: "address"},
		{to: "name", addresses: []netip.Addr{addrB}},
		{to: "name-again", addresses: []netip.Addr{addrB}, cached: true},
		{to: "both-families", addresses: []netip.Addr{globalB, addrB}},
		{to: "refusing-first", addresses: []netip.Addr{globalB, other4, addrB}},
		{to: "dead-IPv6", addresses: []netip.Addr{dead6, addrB}},
	} {
		b.Run("to="+test.to, func(b *testing.B) {
			names := &nameServer{answers: make(map[string][]netip.Addr)}
			for i := range b.N {
				names.answers[fmt.Sprintf("n%d.example.", i)] = test.addresses
			}
			near, far := dualA(), dualB()
			near.DNS = []netip.Addr{addrB}
			far.Addresses = append(far.Addresses, other4)
			a, z := pair(b, near, far, func(there, back *wire) { there.delay, back.delay = roundTrip/2, roundTrip/2 })
			names.serve(b, z, addrB)
			listenOn := []netip.Addr{addrB, globalB}
			if test.to == "refusing-first" {
				listenOn = listenOn[:1]
			}
			for _, on := range listenOn {
				l, err := z.ListenTCP(netip.AddrPortFrom(on, 80))
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { l.Close() })
			}
			dial := func(host string) {
				c, err := a.DialContext(testContext(b), "tcp", host+":80")
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
			if test.cached {
				dial("n0.example")
			}
			b.ResetTimer()
			for i := range b.N {
				switch {
				case test.addresses == nil:
					dial(addrB.String())
				case test.cached:
					dial("n0.example")
				default:
					dial(fmt.Sprintf("n%d.example", i))
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(roundTrip), "roundtrips/op")
		})
	}
}
