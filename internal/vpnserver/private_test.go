package vpnserver

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"gateway/ppp"
)

func TestPoolHandsOutEachAddressOnce(t *testing.T) {
	p := pool{prefix4: netip.MustParsePrefix("10.99.0.0/28"), prefix6: netip.MustParsePrefix("fd99::/48")}
	if got := p.server(); got != netip.MustParseAddr("10.99.0.1") {
		t.Errorf("server's end is %v", got)
	}
	seen := map[netip.Addr]bool{}
	var last uint16
	for {
		n, err := p.take()
		if err != nil {
			break
		}
		addr := p.addr4(n)
		if seen[addr] || !p.prefix4.Contains(addr) || addr == p.server() {
			t.Fatalf("%v handed out", addr)
		}
		seen[addr], last = true, n
	}
	if len(seen) != 6 { // 10 to 15
		t.Errorf("%d addresses", len(seen))
	}
	p.give(last)
	if n, err := p.take(); err != nil || n != last {
		t.Errorf("after giving %d back: %d, %v", last, n, err)
	}
	if got := p.subnet6(258); got != netip.MustParsePrefix("fd99:0:0:102::/64") {
		t.Errorf("subnet 258 is %v", got)
	}
}

// RFC 4861 section 4.2: byte for byte, and with a checksum that is right.
func TestRouterAdvertisement(t *testing.T) {
	got := appendAdvertisement([]byte("before"), linkLocal, netip.MustParsePrefix("fd99:0:0:a::/64"), 1400)
	if !bytes.HasPrefix(got, []byte("before")) {
		t.Error("what was there is gone")
	}
	packet := got[6:]
	if len(packet) != 40+16+32+8 || int(packet[4])<<8|int(packet[5]) != 16+32+8 {
		t.Fatalf("%d bytes, payload length %d", len(packet), int(packet[4])<<8|int(packet[5]))
	}
	if icmpv6Checksum(packet) != 0 { // the sum over a right checksum is all ones
		t.Errorf("checksum %x", packet[42:44])
	}
	if packet[40] != routerAdvert || packet[56] != 3 || packet[58] != 64 || packet[88] != 5 || packet[95] != 0x78 {
		t.Errorf("advertisement %x", packet[40:])
	}
}

func TestOnlyProperSolicitationsAreAnswered(t *testing.T) {
	good := make([]byte, 48)
	good[0], good[6], good[7], good[40] = 0x60, protocolICMPv6, 255, routerSolicitation
	if !isSolicitation(good) {
		t.Error("a solicitation is not recognised")
	}
	for n := range good {
		if isSolicitation(good[:n]) {
			t.Errorf("its first %d bytes are", n)
		}
	}
	far := bytes.Clone(good)
	far[7] = 254 // it has come through a router
	if isSolicitation(far) {
		t.Error("one with another hop limit is")
	}
}

func TestClientsMaySendFromTheirOwnAddressesOnly(t *testing.T) {
	c := client{addr4: netip.MustParseAddr("10.99.0.10"), subnet6: netip.MustParsePrefix("fd99:0:0:a::/64")}
	v4 := make([]byte, 20)
	v4[0] = 0x45
	copy(v4[12:], []byte{10, 99, 0, 10})
	v6 := make([]byte, 40)
	v6[0] = 0x60
	copy(v6[8:], c.subnet6.Addr().AsSlice())
	if !c.owns(v4) || !c.owns(v6) {
		t.Error("its own addresses are refused")
	}
	v4[15], v6[15] = 11, 11
	if c.owns(v4) || c.owns(v6) || c.owns(v4[:19]) || c.owns(nil) {
		t.Error("other addresses are taken")
	}
}

func TestRouterFindsTheClientOfAPacket(t *testing.T) {
	r := newRouter()
	session := ppp.New(ppp.Config{}, nil, nil)
	addr, subnet := netip.MustParseAddr("10.99.0.10"), netip.MustParsePrefix("fd99:0:0:a::/64")
	r.set(addr, subnet, session)
	v4, v6 := make([]byte, 20), make([]byte, 40)
	v4[0], v6[0] = 0x45, 0x60
	copy(v4[16:], addr.AsSlice())
	copy(v6[24:], subnet.Addr().Next().AsSlice())
	table := r.table.Load()
	if table.find(v4) != session || table.find(v6) != session || table.find(v4[:19]) != nil {
		t.Error("packets are not routed")
	}
	r.set(addr, subnet, nil)
	if table := r.table.Load(); table.find(v4) != nil || table.find(v6) != nil {
		t.Error("a client that has left is still routed to")
	}
	r.WritePackets([][]byte{v4, v6}, 0)
	if got := r.unroutable.Load(); got != 2 {
		t.Errorf("%d packets counted as unroutable", got)
	}
}

func TestZone(t *testing.T) {
	z := zone{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::1")}
	ask := func(name string, kind dnsmessage.Type, limit int) dnsmessage.Message {
		t.Helper()
		query := dnsmessage.Message{Header: dnsmessage.Header{ID: 7},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
		packed, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for n := range packed {
			z.answer(packed[:n], limit) // must not panic
		}
		var reply dnsmessage.Message
		if err := reply.Unpack(z.answer(packed, limit)); err != nil {
			t.Fatal(err)
		}
		return reply
	}
	for _, test := range []struct {
		name    string
		kind    dnsmessage.Type
		answers int
		code    dnsmessage.RCode
	}{
		{"intranet.example.", dnsmessage.TypeA, 1, dnsmessage.RCodeSuccess},
		{"INTRANET.example.", dnsmessage.TypeAAAA, 1, dnsmessage.RCodeSuccess},
		{"www.intranet.example.", dnsmessage.TypeA, 2, dnsmessage.RCodeSuccess},
		{"v4.intranet.example.", dnsmessage.TypeAAAA, 0, dnsmessage.RCodeSuccess},
		{"v6.intranet.example.", dnsmessage.TypeAAAA, 1, dnsmessage.RCodeSuccess},
		{"no.intranet.example.", dnsmessage.TypeA, 0, dnsmessage.RCodeNameError},
		{"example.com.", dnsmessage.TypeA, 0, dnsmessage.RCodeNameError},
	} {
		if reply := ask(test.name, test.kind, maxUDP); len(reply.Answers) != test.answers || reply.RCode != test.code || reply.ID != 7 {
			t.Errorf("%s %v: %v", test.name, test.kind, reply.GoString())
		}
	}
	if reply := ask("big.intranet.example.", dnsmessage.TypeTXT, maxUDP); !reply.Truncated || len(reply.Answers) != 0 {
		t.Error("an answer that is too long for UDP is not cut off")
	}
	if reply := ask("big.intranet.example.", dnsmessage.TypeTXT, 65535); reply.Truncated || len(reply.Answers) != bigRecords {
		t.Errorf("over TCP: %d answers", len(reply.Answers))
	}
}
