package stack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// advert makes a Router Advertisement (RFC 4861 section 4.2) with options appended as they are.
func advert(options ...[]byte) []byte {
	message := append([]byte{routerAdvertisement, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}, bytes.Join(options, nil)...)
	p := []byte{0x60, 0, 0, 0, 0, 0, protocolICMPv6, 255}
	binary.BigEndian.PutUint16(p[ipv6Length:], uint16(len(message)))
	p = append(p, joinAddress(linkLocalPrefix, iidB).AsSlice()...)
	p = append(p, netip.MustParseAddr("ff02::1").AsSlice()...)
	p = append(p, message...)
	return resum(p)
}

func resum(p []byte) []byte {
	binary.BigEndian.PutUint16(p[42:], 0)
	binary.BigEndian.PutUint16(p[42:], ^icmpv6Sum(p))
	return p
}

// prefixOption is RFC 4861 section 4.6.2, with the L and A flags as given.
func prefixOption(prefix string, length, flags byte, valid, preferred uint32) []byte {
	o := []byte{3, 4, length, flags}
	o = binary.BigEndian.AppendUint32(o, valid)
	o = binary.BigEndian.AppendUint32(o, preferred)
	o = append(o, 0, 0, 0, 0)
	return append(o, netip.MustParseAddr(prefix).AsSlice()...)
}

// serverOption is RFC 8106 section 5.1.
func serverOption(lifetime uint32, servers ...string) []byte {
	o := binary.BigEndian.AppendUint32([]byte{25, byte(1 + 2*len(servers)), 0, 0}, lifetime)
	for _, s := range servers {
		o = append(o, netip.MustParseAddr(s).AsSlice()...)
	}
	return o
}

func ipv6Config() Config {
	c := configA()
	c.IPv6, c.IID, c.PeerIID = true, iidA, iidB
	return c
}

func sorted(all []netip.Addr) []string {
	var s []string
	for _, a := range all {
		s = append(s, a.String())
	}
	slices.Sort(s)
	return s
}

func TestAddressesComeFromRouterAdvertisements(t *testing.T) {
	base := []string{"10.88.0.2", "fe80::a"}
	with := func(more ...string) []string {
		all := append(slices.Clone(base), more...)
		slices.Sort(all)
		return all
	}
	change := func(p []byte, f func(p []byte)) []byte { f(p); return p }
	good := prefixOption("2001:db8:1::", 64, 0xc0, 3600, 1800)
	tests := []struct {
		name    string
		packets [][]byte
		want    []string
	}{
		{"link-local alone before", nil, base},
		{"prefix and identifier", [][]byte{advert(good)}, with("2001:db8:1::a")},
		{"autonomous, not on-link", [][]byte{advert(prefixOption("2001:db8:1::", 64, 0x40, 3600, 1800))}, with("2001:db8:1::a")},
		{"two prefixes", [][]byte{advert(good, prefixOption("fd00::", 64, 0x40, 3600, 0))}, with("2001:db8:1::a", "fd00::a")},
		{"infinite lifetime", [][]byte{advert(prefixOption("2001:db8:1::", 64, 0xc0, 1<<32-1, 1<<32-1))}, with("2001:db8:1::a")},
		{"repeated", [][]byte{advert(good), advert(good)}, with("2001:db8:1::a")},
		{"withdrawn", [][]byte{advert(good), advert(prefixOption("2001:db8:1::", 64, 0xc0, 0, 0))}, base},
		{"unknown option between", [][]byte{advert([]byte{200, 1, 0, 0, 0, 0, 0, 0}, good)}, with("2001:db8:1::a")},
		{"not autonomous", [][]byte{advert(prefixOption("2001:db8:1::", 64, 0x80, 3600, 1800))}, base},
		{"not 64 bits", [][]byte{advert(prefixOption("2001:db8:1::", 56, 0xc0, 3600, 1800))}, base},
		{"link-local prefix", [][]byte{advert(prefixOption("fe80::", 64, 0xc0, 3600, 1800))}, base},
		{"preferred longer than valid", [][]byte{advert(prefixOption("2001:db8:1::", 64, 0xc0, 10, 20))}, base},
		{"forwarded: hop limit below 255", [][]byte{resum(change(advert(good), func(p []byte) { p[7] = 254 }))}, base},
		{"source not link-local", [][]byte{resum(change(advert(good), func(p []byte) { p[8] = 0x20 }))}, base},
		{"bad checksum", [][]byte{change(advert(good), func(p []byte) { p[len(p)-1] ^= 1 })}, base},
		{"code not 0", [][]byte{resum(change(advert(good), func(p []byte) { p[41] = 1 }))}, base},
		{"option of length 0", [][]byte{advert([]byte{3, 0, 0, 0, 0, 0, 0, 0}, good)}, base},
		{"option beyond the end", [][]byte{advert(good[:24])}, base},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := lone(t, ipv6Config(), nil)
			a.HandlePackets(tt.packets)
			if got := sorted(a.Addresses()); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if hasGlobal := len(tt.want) > len(base); a.hasIPv6.Load() != hasGlobal {
				t.Errorf("IPv6 usable: %v", a.hasIPv6.Load())
			}
		})
	}
}

func TestEveryPrefixOfAnAdvertisementFails(t *testing.T) {
	p := advert(prefixOption("2001:db8:1::", 64, 0xc0, 3600, 1800), serverOption(60, "2001:db8::53"))
	if ad, ok := parseAdvertisement(p); !ok || len(ad.prefixes) != 1 || len(ad.servers) != 1 {
		t.Fatalf("%+v, %v", ad, ok)
	}
	for n := range p {
		if _, ok := parseAdvertisement(p[:n]); ok {
			t.Errorf("prefix of %d bytes accepted", n)
		}
	}
}

func FuzzParseAdvertisement(f *testing.F) {
	f.Add(prefixOption("2001:db8:1::", 64, 0xc0, 3600, 1800))
	f.Add(serverOption(60, "2001:db8::53", "2001:db8::54"))
	f.Fuzz(func(t *testing.T, options []byte) {
		if len(options) > 60000 {
			t.Skip()
		}
		ad, _ := parseAdvertisement(advert(options))
		if len(ad.prefixes)*32+len(ad.servers)*16 > len(options) {
			t.Errorf("%d prefixes and %d servers from %d bytes", len(ad.prefixes), len(ad.servers), len(options))
		}
	})
}

func TestNameServersComeFromRouterAdvertisements(t *testing.T) {
	c := ipv6Config()
	c.DNS = []netip.Addr{addrB}
	a := lone(t, c, nil)
	a.HandlePackets([][]byte{advert(serverOption(600, "2001:db8::53", "2001:db8::54"))})
	if got := sorted(a.DNS()); !slices.Equal(got, []string{"10.88.0.1", "2001:db8::53", "2001:db8::54"}) || a.DNS()[0] != addrB {
		t.Errorf("got %v", a.DNS())
	}
	a.HandlePackets([][]byte{advert(serverOption(0, "2001:db8::53"))}) // RFC 8106 section 5.1: no longer to be used
	if got := sorted(a.DNS()); !slices.Equal(got, []string{"10.88.0.1", "2001:db8::54"}) {
		t.Errorf("got %v", got)
	}
	for i := range 100 {
		a.HandlePackets([][]byte{advert(serverOption(600, netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}).String()))})
		a.HandlePackets([][]byte{advert(prefixOption(netip.AddrFrom16([16]byte{0x20, 1, 7: byte(i)}).String(), 64, 0x40, 60, 60))})
	}
	if n, m := len(a.DNS()), len(a.Addresses()); n > 1+maxAutoServers || m > 2+maxAutoAddresses {
		t.Errorf("%d servers, %d addresses", n, m)
	}
}

func TestAdvertisedAddressExpires(t *testing.T) {
	a := lone(t, ipv6Config(), nil)
	a.HandlePackets([][]byte{advert(prefixOption("2001:db8:1::", 64, 0xc0, 3600, 1800))})
	addr := netip.MustParseAddr("2001:db8:1::a")
	a.slaac.mu.Lock()
	a.slaac.expireLocked(a, addr)
	a.slaac.mu.Unlock()
	if a.isOurs(addr) || a.hasIPv6.Load() {
		t.Error("still there")
	}
}

func TestRoutersAreSolicitedThreeTimes(t *testing.T) {
	out := make(chan []byte, 10)
	a := lone(t, ipv6Config(), out)
	for range 5 {
		a.slaac.solicitAgain(a) // as the timer does
	}
	if len(out) != maxSolicitations {
		t.Errorf("%d sent, want %d", len(out), maxSolicitations)
	}
	p := <-out
	if src, _ := netip.AddrFromSlice(p[8:24]); len(p) != 48 || p[40] != 133 || p[7] != 255 || src.String() != "fe80::a" || icmpv6Sum(p) != 0xffff {
		t.Errorf("sent %x", p)
	}
}

func TestSolicitingStopsWithAnAdvertisement(t *testing.T) {
	out := make(chan []byte, 10)
	a := lone(t, ipv6Config(), out)
	a.HandlePackets([][]byte{advert()})
	a.slaac.solicitAgain(a)
	if len(out) != 1 {
		t.Errorf("%d sent, want 1", len(out))
	}
}

func TestIPv6IsLeftOutBelow1280Bytes(t *testing.T) {
	c := ipv6Config()
	c.MTU = 1279
	out := make(chan []byte, 10)
	a := lone(t, c, out)
	if err := a.SetIPv6(iidA, iidB); err != nil {
		t.Error(err)
	}
	if got := sorted(a.Addresses()); !slices.Equal(got, []string{"10.88.0.2"}) || len(out) != 0 {
		t.Errorf("addresses %v, %d packets", got, len(out))
	}
}

func TestIPv6ComesAfterIPv4AndChanges(t *testing.T) {
	a := lone(t, configA(), make(chan []byte, 10))
	if err := a.SetIPv6(iidA, iidB); err != nil {
		t.Fatal(err)
	}
	a.HandlePackets([][]byte{advert(prefixOption("2001:db8:1::", 64, 0xc0, 3600, 1800))})
	if err := a.SetIPv6([8]byte{7: 0xc}, iidB); err != nil {
		t.Fatal(err)
	}
	if got := sorted(a.Addresses()); !slices.Equal(got, []string{"10.88.0.2", "fe80::c"}) {
		t.Errorf("addresses %v", got)
	}
}

func TestPeersTalkOverLinkLocalAddresses(t *testing.T) {
	cb := configB()
	cb.IPv6, cb.IID, cb.PeerIID = true, iidB, iidA
	a, b := pair(t, ipv6Config(), cb, nil)
	c, d := connect(t, a, b, netip.MustParseAddr("fe80::b"))
	transfer(t, c, d, randomBytes(100_000))
}

// A dial to an IPv6 address waits for the router's answer while none of our addresses can reach it.
func TestDialsWaitForTheAdvertisedAddress(t *testing.T) {
	var s slaac
	if s.await(t.Context()) {
		t.Error("it waits although nothing was asked")
	}
	s.mu.Lock()
	s.settled = make(chan struct{})
	s.solicitation = time.AfterFunc(time.Hour, func() {})
	s.mu.Unlock()
	waited := make(chan bool)
	go func() { waited <- s.await(t.Context()) }()
	s.mu.Lock()
	s.stopSolicitingLocked()
	s.mu.Unlock()
	if <-waited; s.await(t.Context()) {
		t.Error("it waits although all is settled")
	}
}
