package ipsec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDatagramsOfAllLengthsPassBothWays(t *testing.T) {
	for _, name := range allTransforms() {
		t.Run("transform="+name, func(t *testing.T) {
			c, s := connected(t, name)
			var texts []string
			for n := range 70 {
				texts = append(texts, string(octets(n, n)))
			}
			texts = append(texts, string(octets(1, 1400)), string(octets(2, 60000)))
			s.receive(epoch, client, c.seal(t, server, texts...)...)
			c.receive(epoch, server, s.seal(t, client, texts...)...)
			if diff := cmp.Diff(texts, s.upper.takeTexts()); diff != "" {
				t.Error("server:", diff)
			}
			if diff := cmp.Diff(texts, c.upper.takeTexts()); diff != "" {
				t.Error("client:", diff)
			}
			want := Stats{Opened: 72, OpenedBytes: s.Stats().SealedBytes, Sealed: 72, SealedBytes: s.Stats().OpenedBytes}
			if diff := cmp.Diff(want, s.Stats()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// RFC 4303 sections 2 and 3.3, RFC 3948 section 3.1.2.
func TestPacketIsLaidOutAsTheRFCSays(t *testing.T) {
	c, _ := connected(t, "null-sha1")
	first, second := c.seal(t, server, "abc")[0], c.seal(t, server, "abcdef")[0]
	want := []byte{
		0, 0, 0x10, 0x01, 0, 0, 0, 1, // SPI, sequence number
		0x06, 0xa5, 0x06, 0xa5, 0, 11, 0, 0, // inner UDP: 1701, 1701, length, no checksum
		'a', 'b', 'c', 1, 2, 3, 3, 17,
	}
	if len(first) != len(want)+12 || !bytes.Equal(first[:len(want)], want) {
		t.Errorf("% x\nwant % x and an ICV of 12 bytes", first, want)
	}
	if !bytes.Equal(second[4:8], []byte{0, 0, 0, 2}) || !bytes.Equal(second[16:24], []byte("abcdef\x00\x11")) {
		t.Errorf("second packet % x", second)
	}
}

// Section 8.1 of RFC 8200: over IPv6 there is a checksum. This one is computed by hand below.
func TestInnerChecksumOverIPv6(t *testing.T) {
	local, peer := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddrPort("[2001:db8::2]:4500")
	s := newSide(Config{AllowNull: true})
	p, _ := pairs("null-sha1", 0x1000)
	p.Peer = peer
	if _, err := s.Install(epoch, p); !errors.Is(err, errAddress) {
		t.Error("without our address:", err)
	}
	p.Local = local
	s.install(t, epoch, p)
	for _, text := range []string{"", "a", "ab", "abcdefg", "abcdefgh", string(octets(3, 1399))} {
		inner := s.seal(t, peer, text)[0][8:]
		inner = inner[:8+len(text)]
		a, b := local.As16(), peer.Addr().As16()
		covered := slices.Concat(a[:], b[:], binary.BigEndian.AppendUint32(nil, uint32(len(inner))), []byte{0, 0, 0, 17}, inner, make([]byte, len(inner)%2))
		sum := 0
		for i := 0; i < len(covered); i += 2 {
			sum += int(covered[i])<<8 + int(covered[i+1])
		}
		if sum%0xffff != 0 || binary.BigEndian.Uint16(inner[6:]) == 0 {
			t.Errorf("%d bytes: checksum %x is wrong", len(text), inner[6:8])
		}
	}
}

func TestChecksumOfZeroIsWrittenAsAllOnes(t *testing.T) {
	packet := make([]byte, 10)
	putUDPHeader(packet, 1701, 1701)
	newPseudoHeader(netip.IPv6Unspecified(), netip.IPv6Unspecified()).putChecksum(packet)
	binary.BigEndian.PutUint16(packet[8:], binary.BigEndian.Uint16(packet[6:])) // now the checksum of the rest is 0
	newPseudoHeader(netip.IPv6Unspecified(), netip.IPv6Unspecified()).putChecksum(packet)
	if got := binary.BigEndian.Uint16(packet[6:]); got != 0xffff { // RFC 768
		t.Errorf("%#x", got)
	}
}

// RFC 3948 sections 2.2 and 2.3, and the order of what came.
func TestReceiveTellsKeepaliveAndIKEAndESPApart(t *testing.T) {
	c, s := connected(t, "aes128-sha1")
	esp := c.seal(t, server, "one", "two", "three")
	s.receive(epoch, client, []byte{0xff}, esp[0], esp[1], []byte("\x00\x00\x00\x00cookies..."), []byte{0xff}, esp[2])
	want := []string{"2 from 192.0.2.10:50000", fmt.Sprintf("IKE %x from 192.0.2.10:50000", "cookies..."), "1 from 192.0.2.10:50000"}
	if diff := cmp.Diff(want, s.upper.takeEvents()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"one", "two", "three"}, s.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
	if s.Stats().KeepalivesReceived != 2 {
		t.Error(s.Stats())
	}
}

func TestIKEMessageIsSentBehindTheMarker(t *testing.T) {
	s := newSide(Config{})
	s.socket.headroom, s.socket.tailroom = 10, 5
	if err := s.WriteIKE([]byte("message"), server); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]byte("\x00\x00\x00\x00message"), s.socket.written[0].datagram); diff != "" || s.socket.written[0].to != server {
		t.Error(diff, s.socket.written)
	}
}

// Everything that must be dropped, why, and that none of it goes up.
func TestBadPacketsAreDroppedAndCounted(t *testing.T) {
	for _, v := range []struct {
		name   string
		mangle func(s *side, esp []byte) []byte
		want   Stats
	}{
		{"empty", func(*side, []byte) []byte { return nil }, Stats{Malformed: 1}},
		{"one octet", func(*side, []byte) []byte { return []byte{0xfe} }, Stats{Malformed: 1}},
		{"marker cut short", func(*side, []byte) []byte { return make([]byte, 7) }, Stats{Malformed: 1}},
		{"header only", func(_ *side, esp []byte) []byte { return esp[:8] }, Stats{Malformed: 1}},
		{"no block", func(_ *side, esp []byte) []byte { return slices.Delete(esp, 24, len(esp)-12) }, Stats{Malformed: 1}},
		{"part of a block", func(_ *side, esp []byte) []byte { return slices.Delete(esp, 30, 31) }, Stats{Malformed: 1}},
		{"a block too little", func(_ *side, esp []byte) []byte { return slices.Delete(esp, 24, 40) }, Stats{Forged: 1}},
		{"a block too much", func(_ *side, esp []byte) []byte { return slices.Insert(esp, 24, make([]byte, 16)...) }, Stats{Forged: 1}},
		{"wrong SPI", func(_ *side, esp []byte) []byte { esp[3]++; return esp }, Stats{UnknownSPI: 1}},
		{"reserved SPI", func(_ *side, esp []byte) []byte { return append([]byte{0, 0, 0, 1}, esp[4:]...) }, Stats{UnknownSPI: 1}},
		{"our own SPI", func(_ *side, esp []byte) []byte { binary.BigEndian.PutUint32(esp, 0x1000); return esp }, Stats{UnknownSPI: 1}},
		{"number 0", func(_ *side, esp []byte) []byte { binary.BigEndian.PutUint32(esp[4:], 0); return esp }, Stats{Replayed: 1}},
		{"another number", func(_ *side, esp []byte) []byte { esp[4]++; return esp }, Stats{Forged: 1}},
		{"another IV", func(_ *side, esp []byte) []byte { esp[8]++; return esp }, Stats{Forged: 1}},
		{"another ICV", func(_ *side, esp []byte) []byte { esp[len(esp)-1]++; return esp }, Stats{Forged: 1}},
		{"removed pair", func(s *side, esp []byte) []byte { s.Remove(0x1001); return esp }, Stats{UnknownSPI: 1}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c, s := connected(t, "aes128-sha1")
			esp := c.seal(t, server, strings.Repeat("text", 20))[0]
			s.receive(epoch, client, v.mangle(s, bytes.Clone(esp)))
			if diff := cmp.Diff(v.want, s.Stats()); diff != "" {
				t.Error(diff)
			}
			if len(s.upper.events) != 0 {
				t.Error("went up:", s.upper.events)
			}
			if v.name != "removed pair" { // what was dropped must not stop the real one
				if s.receive(epoch, client, esp); len(s.upper.takeTexts()) != 1 {
					t.Error("the real one was dropped:", s.Stats())
				}
			}
		})
	}
}

// What a peer with the right keys may do wrong.
func TestBadContentsAreDroppedAndCounted(t *testing.T) {
	udp := func(from, to, length uint16) []byte {
		b := binary.BigEndian.AppendUint16(nil, from)
		b = binary.BigEndian.AppendUint16(b, to)
		return binary.BigEndian.AppendUint32(b, uint32(length)<<16|0xbad) // with a wrong checksum
	}
	for _, v := range []struct {
		name string
		text []byte
		up   string // "-": nothing
		want Stats
	}{
		{"good", append(udp(1701, 1701, 10), 'o', 'k', 1, 2, 3, 4, 4, 17), "ok", Stats{Opened: 1}},
		{"good, empty", append(udp(1701, 1701, 8), 1, 2, 2, 17), "", Stats{Opened: 1}},
		{"from any port", append(udp(40000, 1701, 10), 'o', 'k', 0, 17), "ok", Stats{Opened: 1}},
		{"more padding than needed", append(udp(1701, 1701, 10), 'o', 'k', 1, 2, 3, 4, 5, 6, 7, 8, 8, 17), "ok", Stats{Opened: 1}},
		{"TFC padding (RFC 4303 section 2.7)", append(udp(1701, 1701, 10), 'o', 'k', 9, 9, 9, 9, 9, 9, 9, 9, 0, 17), "ok", Stats{Opened: 1}},
		{"dummy (section 2.6)", append(udp(1701, 1701, 10), 'o', 'k', 0, 59), "-", Stats{Dummy: 1}},
		{"TCP", append(udp(1701, 1701, 10), 'o', 'k', 0, 6), "-", Stats{Selector: 1}},
		{"tunnel mode", append(udp(1701, 1701, 10), 'o', 'k', 0, 4), "-", Stats{Selector: 1}},
		{"to another port", append(udp(1701, 1702, 10), 'o', 'k', 0, 17), "-", Stats{Selector: 1}},
		{"padding not 1 2 3", append(udp(1701, 1701, 10), 'o', 'k', 1, 2, 3, 5, 4, 17), "-", Stats{Malformed: 1}},
		{"padding longer than the packet", append(udp(1701, 1701, 10), 'o', 'k', 1, 2, 3, 4, 200, 17), "-", Stats{Malformed: 1}},
		{"trailer only", []byte{1, 2, 2, 17}, "-", Stats{Malformed: 1}},
		{"UDP header cut short", append(udp(1701, 1701, 8)[:6], 0, 17), "-", Stats{Malformed: 1}},
		{"UDP length 7", append(udp(1701, 1701, 7), 1, 2, 2, 17), "-", Stats{Malformed: 1}},
		{"UDP length beyond the end", append(udp(1701, 1701, 11), 'o', 'k', 0, 17), "-", Stats{Malformed: 1}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c, s := connected(t, "null-sha256")
			esp := sealText(c, server, 1, v.text)
			s.receive(epoch, client, esp)
			if v.want.Opened > 0 {
				v.want.OpenedBytes = uint64(len(esp))
			}
			if diff := cmp.Diff(v.want, s.Stats()); diff != "" {
				t.Error(diff)
			}
			var want []string
			if v.up != "-" {
				want = []string{v.up}
			}
			if diff := cmp.Diff(want, s.upper.takeTexts()); diff != "" {
				t.Error(diff)
			}
			if s.receive(epoch, client, esp); s.Stats().Replayed != 1 {
				t.Error("its number has not been taken:", s.Stats())
			}
		})
	}
}

func TestEveryProperPrefixAndEveryBitFlipIsDropped(t *testing.T) {
	for _, name := range []string{"aes256-sha256", "aes256-sha256_96", "3des-md5", "aes128gcm8", "aes192gcm12", "aes256gcm16", "null-sha512"} {
		t.Run("transform="+name, func(t *testing.T) {
			c, s := connected(t, name)
			esp := c.seal(t, server, "a text of some length")[0]
			for n := range esp {
				s.receive(epoch, client, esp[:n])
			}
			for bit := range 8 * len(esp) {
				flipped := bytes.Clone(esp)
				flipped[bit/8] ^= 1 << (bit % 8)
				s.receive(epoch, client, flipped)
			}
			if len(s.upper.events) != 0 || s.Stats().Opened != 0 {
				t.Error("went up:", s.upper.events)
			}
			s.receive(epoch, client, esp)
			if diff := cmp.Diff([]string{"a text of some length"}, s.upper.takeTexts()); diff != "" {
				t.Error("the real one was dropped:", diff)
			}
		})
	}
}

func TestReplayedPacketsAreDroppedAndReorderedOnesAreNot(t *testing.T) {
	c, s := connected(t, "aes128gcm16")
	var texts []string
	for i := range replayWindow + 100 {
		texts = append(texts, fmt.Sprint(i))
	}
	esp := c.seal(t, server, texts...)
	late, first := esp[200], esp[:200]
	rest := slices.Delete(slices.Clone(esp), 200, 201)
	slices.Reverse(first)
	s.receive(epoch, client, rest...)
	s.receive(epoch, client, late) // within the window of the last one
	got := s.upper.takeTexts()
	slices.Sort(got)
	slices.Sort(texts)
	if diff := cmp.Diff(texts, got); diff != "" {
		t.Error(diff)
	}
	s.receive(epoch, client, esp...) // all of them again: seen, or too old
	if n := len(s.upper.takeTexts()); n != 0 || s.Stats().Replayed != uint64(len(esp)) {
		t.Error(n, "were taken twice:", s.Stats())
	}
}

func TestPacketTooOldForTheWindowIsDropped(t *testing.T) {
	c, s := connected(t, "aes128gcm16")
	esp := c.seal(t, server, make([]string, replayWindow+1)...)
	s.receive(epoch, client, esp[1:]...)
	s.receive(epoch, client, esp[0])
	if s.Stats().Replayed != 1 || s.Stats().Opened != replayWindow {
		t.Error(s.Stats())
	}
}

// RFC 4303 section 3.4.3: a number is only taken when its packet has verified.
func TestForgedPacketDoesNotMoveTheWindow(t *testing.T) {
	c, s := connected(t, "aes128-sha1")
	esp := c.seal(t, server, "one")[0]
	forged := bytes.Clone(esp)
	binary.BigEndian.PutUint32(forged[4:], math.MaxUint32)
	s.receive(epoch, client, forged, esp)
	if diff := cmp.Diff([]string{"one"}, s.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
}

// No L2TP byte may leave in the clear: before, between and after pairs nothing is written at all.
func TestNothingIsSentWithoutSA(t *testing.T) {
	s := newSide(Config{})
	p, _ := pairs("aes128-sha1", 0x1000)
	refused := func(when string) {
		t.Helper()
		if err := s.write(server, "secret"); !errors.Is(err, ErrNoSA) || len(s.socket.written) != 0 {
			t.Error(when, err, s.socket.written)
		}
	}
	refused("before")
	if _, err := s.Expect(p); err != nil {
		t.Fatal(err)
	}
	refused("expected")
	s.install(t, epoch, p)
	if err := s.write(netip.MustParseAddrPort("198.51.100.1:1701"), "secret"); !errors.Is(err, ErrNoSA) {
		t.Error("to another port:", err)
	}
	s.seal(t, server, "secret")
	s.Remove(p.SPIIn)
	refused("removed")
	if s.Stats().Unsent != 4 || len(s.peers) != 0 || len(s.inbound) != 0 {
		t.Error("something is left:", s.Stats(), s.peers, s.inbound)
	}
}

func TestSealedPacketsDoNotHoldTheText(t *testing.T) {
	for _, name := range allTransforms() {
		if strings.HasPrefix(name, "null") {
			continue
		}
		c, _ := connected(t, name)
		text := "this text must not be seen on the wire"
		for i := range 16 { // at any place in a block
			if esp := c.seal(t, server, text[:i]+text)[0]; bytes.Contains(esp, []byte("text")) {
				t.Errorf("%s: %q", name, esp)
			}
		}
	}
}

// A pair that succeeds another: both directions go on without a loss, whichever side is first.
func TestRekeyLosesNothing(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		c, s := connected(t, "aes128-sha1")
		ofClient, ofServer := pairs("aes256-sha256", 0x2000)
		before := c.seal(t, server, "on its way")
		var reply [][]byte
		if clientFirst {
			c.install(t, epoch, ofClient)
			reply = s.seal(t, client, "reply on the old one")
			s.install(t, epoch, ofServer)
		} else {
			s.install(t, epoch, ofServer)
			reply = s.seal(t, client, "reply on the new one")
			c.install(t, epoch, ofClient)
		}
		s.receive(epoch, client, append(before, c.seal(t, server, "on the new one")...)...)
		c.receive(epoch, server, reply...)
		if diff := cmp.Diff([]string{"on its way", "on the new one"}, s.upper.takeTexts()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"2 from 192.0.2.10:50000"}, s.upper.takeEvents()); diff != "" {
			t.Error("one peer's datagrams must go up together:", diff)
		}
		if len(c.upper.takeTexts()) != 1 {
			t.Error("the reply was lost")
		}
		if spi := binary.BigEndian.Uint32(c.seal(t, server, "now")[0]); spi != 0x2001 {
			t.Errorf("sent on %#x", spi)
		}
	}
}

func TestOldPairIsReceivedOnUntilItIsRemoved(t *testing.T) {
	c, s := connected(t, "aes128-sha1")
	old := c.seal(t, server, "in time", "too late")
	_, ofServer := pairs("aes128-sha1", 0x2000)
	s.install(t, epoch, ofServer)
	s.receive(epoch, client, old[0])
	if diff := cmp.Diff([]string{"in time"}, s.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
	if spi := binary.BigEndian.Uint32(s.seal(t, client, "text")[0]); spi != 0x2000 {
		t.Errorf("the old one made it send on %#x", spi)
	}
	s.Remove(0x1001)
	s.receive(epoch, client, old[1])
	if s.Stats().UnknownSPI != 1 {
		t.Error(s.Stats())
	}
}

// RFC 2409 section 5.5: the initiator may use the pair when it has sent its last message, which may come later than ESP or get lost.
func TestExpectedPairIsReceivedOnAndSentOnOnlyWhenThePeerHasIt(t *testing.T) {
	for _, by := range []string{"Install", "a packet"} {
		c, s := connected(t, "aes128-sha1")
		ofClient, ofServer := pairs("aes256-sha256", 0x2000)
		if address, err := s.Expect(ofServer); err != nil || address != client {
			t.Fatal(address, err)
		}
		if spi := binary.BigEndian.Uint32(s.seal(t, client, "too early for the new one")[0]); spi != 0x1000 {
			t.Errorf("sent on %#x", spi)
		}
		if by == "a packet" {
			c.install(t, epoch, ofClient)
			esp := c.seal(t, server, "text")[0]
			forged := bytes.Clone(esp)
			forged[50]++
			if s.receive(epoch, client, forged); binary.BigEndian.Uint32(s.seal(t, client, "x")[0]) != 0x1000 {
				t.Error("a forged packet moved it")
			}
			s.receive(epoch, client, esp)
			if diff := cmp.Diff([]string{"text"}, s.upper.takeTexts()); diff != "" {
				t.Error(diff)
			}
		} else {
			s.install(t, epoch, ofServer)
		}
		for range 2 {
			if spi := binary.BigEndian.Uint32(s.seal(t, client, "text")[0]); spi != 0x2000 {
				t.Errorf("after %s sent on %#x", by, spi)
			}
			s.install(t, epoch, ofServer) // again, or late: nothing changes
		}
		if len(s.inbound) != 2 {
			t.Error(len(s.inbound), "pairs")
		}
	}
}

func TestExpectedPairThatComesToNothingChangesNothing(t *testing.T) {
	_, s := connected(t, "aes128-sha1")
	_, ofServer := pairs("aes256-sha256", 0x2000)
	if _, err := s.Expect(ofServer); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expect(ofServer); !errors.Is(err, ErrSPI) {
		t.Error("twice:", err)
	}
	s.Remove(0x2001)
	if spi := binary.BigEndian.Uint32(s.seal(t, client, "text")[0]); spi != 0x1000 {
		t.Errorf("sent on %#x", spi)
	}
	if _, err := s.Expect(ofServer); err != nil {
		t.Fatal(err)
	}
	if s.Remove(0x1001); !errors.Is(s.write(client, "text"), ErrNoSA) {
		t.Error("sent on a pair that is only expected")
	}
}

func TestPredecessorTakesOverWhenTheNewestPairIsRemoved(t *testing.T) {
	c, _ := connected(t, "aes128-sha1")
	ofClient, _ := pairs("aes128-sha1", 0x2000)
	c.install(t, epoch, ofClient)
	c.Remove(0x2000)
	if spi := binary.BigEndian.Uint32(c.seal(t, server, "text")[0]); spi != 0x1001 {
		t.Errorf("sent on %#x", spi)
	}
	if c.Remove(0x2000) || !c.Remove(0x1000) || !errors.Is(c.write(server, "text"), ErrNoSA) {
		t.Error("removing")
	}
}

func TestPairsOfOnePeerAreBounded(t *testing.T) {
	c, _ := connected(t, "aes128-sha1")
	for i := range uint32(50) {
		p, _ := pairs("aes128-sha1", 0x2000+2*i)
		c.install(t, epoch, p)
	}
	for i := range uint32(50) {
		p, _ := pairs("aes128-sha1", 0x4000+2*i)
		if _, err := c.Expect(p); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.inbound) != maxPairs || len(c.peers[server].pairs) != maxPairs {
		t.Error(len(c.inbound), "pairs")
	}
	if spi := binary.BigEndian.Uint32(c.seal(t, server, "text")[0]); spi != 0x2000+2*49+1 {
		t.Errorf("sent on %#x", spi)
	}
}

func TestPeersAreBounded(t *testing.T) {
	s := newSide(Config{MaxPeers: 3})
	for i := range uint32(5) {
		_, p := pairs("aes128-sha1", 0x2000+2*i)
		p.Peer = netip.AddrPortFrom(client.Addr(), uint16(1000+i))
		if _, err := s.Install(epoch, p); (err == nil) != (i < 3) || err != nil && !errors.Is(err, ErrResources) {
			t.Error(i, err)
		}
	}
}

// A server tells its peers apart by SPI, and answers each on its own SA, also two behind one NAT.
func TestServerHasManyPeers(t *testing.T) {
	s := newSide(Config{})
	var clients [3]*side
	var addresses [3]netip.AddrPort
	for i := range clients {
		clients[i] = newSide(Config{})
		addresses[i] = netip.AddrPortFrom(client.Addr(), uint16(1000+i))
		ofClient, ofServer := pairs("aes128-sha1", 0x2000+uint32(2*i))
		ofServer.Peer = addresses[i]
		clients[i].install(t, epoch, ofClient)
		s.install(t, epoch, ofServer)
	}
	for i, c := range clients {
		s.receive(epoch, addresses[i], c.seal(t, server, fmt.Sprint("from ", i))...)
		s.write(addresses[i], fmt.Sprint("to ", i))
		if got := s.socket.written[0].to; got != addresses[i] {
			t.Error("sent to", got)
		}
		c.receive(epoch, server, s.socket.take()...)
		if diff := cmp.Diff([]string{fmt.Sprint("to ", i)}, c.upper.takeTexts()); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]string{"from 0", "from 1", "from 2"}, s.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
	// In one batch, which a NAT that has restarted makes possible: each peer's go up on their own.
	s.upper.takeEvents()
	a, b := clients[0].seal(t, server, "a1", "a2"), clients[1].seal(t, server, "b1")
	s.receive(epoch, addresses[0], a[0], b[0], []byte("\x00\x00\x99\x99unknown"), a[1])
	want := []string{"1 from 192.0.2.10:1000", "1 from 192.0.2.10:1001", "1 from 192.0.2.10:1000"}
	if diff := cmp.Diff(want, s.upper.takeEvents()); diff != "" {
		t.Error(diff)
	}
}

func TestHandlerMayRemoveThePairsOfABatchThatIsBeingReceived(t *testing.T) {
	s := newSide(Config{})
	a, b := newSide(Config{}), newSide(Config{})
	other := netip.MustParseAddrPort("192.0.2.11:4500")
	aOfClient, aOfServer := pairs("aes128-sha1", 0x2000)
	bOfClient, bOfServer := pairs("aes128-sha1", 0x3000)
	bOfServer.Peer = other
	a.install(t, epoch, aOfClient)
	b.install(t, epoch, bOfClient)
	s.install(t, epoch, aOfServer)
	s.install(t, epoch, bOfServer)
	s.upper.onBatch = func() { s.Remove(0x2001); s.Remove(0x3001) }
	s.receive(epoch, client, slices.Concat(a.seal(t, server, "a"), b.seal(t, server, "b"))...)
	if diff := cmp.Diff([]string{"a"}, s.upper.takeTexts()); diff != "" || s.Stats().UnknownSPI != 1 {
		t.Error(diff, s.Stats())
	}
}

// A NAT that has restarted gives a client another port. The server follows; the layer above does not notice.
func TestServerFollowsAPeerThatRoams(t *testing.T) {
	for _, roams := range []bool{true, false} {
		c, s := newSide(Config{}), newSide(Config{})
		ofClient, ofServer := pairs("aes128-sha1", 0x1000)
		ofServer.Roams = roams
		c.install(t, epoch, ofClient)
		s.install(t, epoch, ofServer)
		esp := c.seal(t, server, "late", "new")
		moved := netip.MustParseAddrPort("[::ffff:192.0.2.99]:7")
		forged := bytes.Clone(esp[1])
		forged[40]++
		s.receive(epoch, netip.MustParseAddrPort("203.0.113.66:6"), forged)
		s.receive(epoch, moved, esp[1])
		s.receive(epoch, client, esp[0])
		s.write(client, "reply")
		want := client
		if roams {
			want = netip.MustParseAddrPort("192.0.2.99:7")
		}
		if got := s.socket.written[0].to; got != want {
			t.Error("sent to", got, "want", want)
		}
		if diff := cmp.Diff([]string{"1 from 192.0.2.10:50000", "1 from 192.0.2.10:50000"}, s.upper.takeEvents()); diff != "" {
			t.Error(diff)
		}
		// Its next pair comes from where it is now, and is still the same peer's.
		_, successor := pairs("aes128-sha1", 0x2000)
		successor.Peer = want
		if address := s.install(t, epoch, successor); address != client {
			t.Error("known as", address)
		}
	}
}

// RFC 3193 section 4: the peer's port may be another than 1701. Ours may, too.
func TestInnerPorts(t *testing.T) {
	c, s := newSide(Config{AllowNull: true}), newSide(Config{AllowNull: true})
	ofClient, ofServer := pairs("null-sha1", 0x1000)
	ofClient.LocalPort, ofClient.PeerPort = 50001, 1701
	c.install(t, epoch, ofClient)
	s.install(t, epoch, ofServer)
	s.write(client, "before it was heard from")
	if ports := s.socket.take()[0][8:12]; !bytes.Equal(ports, []byte{0x06, 0xa5, 0x06, 0xa5}) {
		t.Errorf("ports % x", ports)
	}
	s.receive(epoch, client, c.seal(t, server, "request")...)
	reply := s.seal(t, client, "reply")
	if ports := reply[0][8:12]; !bytes.Equal(ports, []byte{0x06, 0xa5, 0xc3, 0x51}) {
		t.Errorf("ports % x", ports)
	}
	c.receive(epoch, server, reply...)
	if diff := cmp.Diff([]string{"reply"}, c.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
	// The client has agreed on the server's port.
	c.receive(epoch, server, sealText(s, client, 9, []byte{0x06, 0xa6, 0xc3, 0x51, 0, 8, 0, 0, 1, 2, 2, 17}))
	if c.Stats().Selector != 1 {
		t.Error(c.Stats())
	}
}

// sealText makes a packet to a peer with any text: payload, padding, trailer.
func sealText(s *side, peer netip.AddrPort, number uint32, text []byte) []byte {
	sa := s.peers[peer].out.Load()
	esp := make([]byte, sa.lead()+len(text)+sa.icv)
	binary.BigEndian.PutUint32(esp, sa.spi)
	binary.BigEndian.PutUint32(esp[4:], number)
	copy(esp[sa.lead():], text)
	sa.protection.seal(esp)
	return esp
}

// RFC 3948 section 4.
func TestKeepaliveIsSentAfterAtMost20SecondsOfSilence(t *testing.T) {
	s := newSide(Config{})
	s.socket.headroom, s.socket.tailroom = 3, 4
	p, _ := pairs("aes128-sha1", 0x1000)
	p.Keepalive = true
	s.install(t, epoch, p)
	last := epoch
	silent := func(now time.Time) { // nothing else is sent until now
		t.Helper()
		for {
			next := s.Advance(last)
			for _, d := range s.socket.take() {
				if !bytes.Equal(d, []byte{0xff}) {
					t.Fatalf("sent % x", d)
				}
			}
			if next.IsZero() || next.After(now) {
				return
			}
			last = next
		}
	}
	silent(epoch.Add(time.Minute))
	if n := s.Stats().KeepalivesSent; n < 3 || n > 6 {
		t.Error(n, "keepalives in a minute")
	}
	sent := s.Stats().KeepalivesSent
	for range 100 { // a packet every 9 s
		s.seal(t, server, "text")
		silent(last.Add(9 * time.Second))
	}
	if n := s.Stats().KeepalivesSent; n != sent {
		t.Error(n-sent, "keepalives that were not needed")
	}
	s.seal(t, server, "text")
	from := last
	for next := last; s.Stats().KeepalivesSent == sent; {
		last = next
		next = s.Advance(last)
	}
	if last.Sub(from) > 20*time.Second {
		t.Error("silent for", last.Sub(from))
	}
	s.Remove(p.SPIIn)
	sent = s.Stats().KeepalivesSent
	if next := s.Advance(last.Add(time.Hour)); s.Stats().KeepalivesSent != sent || !next.IsZero() {
		t.Error("keepalives without a pair")
	}
}

func TestKeepalivesOff(t *testing.T) {
	for _, v := range []struct {
		keepalive bool
		interval  time.Duration
	}{{true, -1}, {false, 0}} {
		s := newSide(Config{KeepaliveInterval: v.interval})
		p, _ := pairs("aes128-sha1", 0x1000)
		p.Keepalive = v.keepalive
		s.install(t, epoch, p)
		if next := s.Advance(epoch.Add(time.Hour)); len(s.socket.written) != 0 || !next.IsZero() {
			t.Errorf("%+v: %v, next %v", v, s.socket.written, next)
		}
	}
}

// RFC 4303 section 3.3.3: numbers do not come again; 0 is not used.
func TestNothingIsSentBeyondTheLastSequenceNumber(t *testing.T) {
	c, s := connected(t, "aes128gcm16")
	c.peers[server].out.Load().budget.packets = math.MaxUint32 - 2
	err := c.write(server, "one", "two", "three")
	esp := c.socket.take()
	if !errors.Is(err, ErrNoSA) || len(esp) != 2 || binary.BigEndian.Uint32(esp[1][4:]) != math.MaxUint32 {
		t.Fatal(err, len(esp))
	}
	if err := c.write(server, "four"); !errors.Is(err, ErrNoSA) || len(c.socket.written) != 0 || c.Stats().Unsent != 2 {
		t.Error(err, c.Stats())
	}
	s.receive(epoch, client, esp...)
	if diff := cmp.Diff([]string{"one", "two"}, s.upper.takeTexts()); diff != "" {
		t.Error(diff)
	}
	c.Advance(epoch)
	if diff := cmp.Diff([]string{"rekey 0x1000"}, c.upper.takeEvents()); diff != "" {
		t.Error(diff)
	}
}

func TestRekeyIsWantedOnceBeforeTheBytesAreUsedUp(t *testing.T) {
	text := strings.Repeat("x", 1000)
	for _, v := range []struct {
		name, transform string
		lifeBytes       uint64
		start           uint64 // bytes already carried
	}{
		{"agreed", "aes128-sha1", 100_000, 0},
		{"3DES (64-bit blocks)", "3des-sha1", 0, bytes3D - 50_000},
		{"3DES, agreed less", "3des-sha1", 100_000, 0},
	} {
		for _, inbound := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/inbound=%v", v.name, inbound), func(t *testing.T) {
				c, s := newSide(Config{}), newSide(Config{})
				ofClient, ofServer := pairs(v.transform, 0x1000)
				ofClient.LifeBytes = v.lifeBytes
				c.install(t, epoch, ofClient)
				s.install(t, epoch, ofServer)
				p := c.inbound[0x1000]
				p.in.budget.bytes, p.out.budget.bytes = v.start, v.start
				wantedAt, sent := 0, 0
				for sent = 1; sent <= 120; sent++ {
					if inbound {
						c.receive(epoch, server, s.seal(t, client, text)...)
					} else if err := c.write(server, text); err != nil {
						break
					}
					c.Advance(epoch)
					for _, e := range c.upper.takeEvents() {
						if e == "rekey 0x1000" {
							if wantedAt != 0 {
								t.Fatal("wanted twice")
							}
							wantedAt = sent
						}
					}
				}
				if wantedAt < 40 || wantedAt > 90 {
					t.Error("wanted after", wantedAt)
				}
				if v.lifeBytes == 0 {
					return
				}
				if passed := max(sent-1, len(c.upper.datagrams)); inbound && (c.Stats().UsedUp == 0 || len(c.upper.datagrams) > 100) || !inbound && passed > 100 {
					t.Error("carried", passed, c.Stats())
				}
				// A successor carries on.
				ofClient2, ofServer2 := pairs(v.transform, 0x2000)
				c.install(t, epoch, ofClient2)
				s.install(t, epoch, ofServer2)
				c.upper.takeTexts()
				c.receive(epoch, server, s.seal(t, client, text)...)
				if err := c.write(server, text); err != nil || len(c.upper.takeTexts()) != 1 {
					t.Error("the successor does not work:", err)
				}
			})
		}
	}
}

func TestInstallRefusesWhatCannotBe(t *testing.T) {
	good, _ := pairs("aes128-sha1", 0x1000)
	for _, v := range []struct {
		name   string
		change func(*Pair)
		want   error
	}{
		{"SPI 0", func(p *Pair) { p.SPIIn = 0 }, ErrSPI},
		{"SPI 255", func(p *Pair) { p.SPIIn = 255 }, ErrSPI},
		{"peer's SPI 0", func(p *Pair) { p.SPIOut = 0 }, ErrSPI},
		{"SPI in use", func(p *Pair) { p.SPIIn = 0x9000 }, ErrSPI},
		{"no peer", func(p *Pair) { p.Peer = netip.AddrPort{} }, errAddress},
		{"no port", func(p *Pair) { p.Peer = netip.AddrPortFrom(server.Addr(), 0) }, errAddress},
		{"no transform", func(p *Pair) { p.Transform = Transform{} }, errTransform},
		{"no such transform", func(p *Pair) { p.Transform = Transform{200, 200} }, errTransform},
		{"no integrity", func(p *Pair) { p.Transform.Integrity = NoIntegrity }, errTransform},
		{"NULL", func(p *Pair) { p.Transform.Encryption, p.KeyIn, p.KeyOut = Null, nil, nil }, errNull},
		{"short key in", func(p *Pair) { p.KeyIn = p.KeyIn[1:] }, errKeySize},
		{"short key out", func(p *Pair) { p.KeyOut = p.KeyOut[1:] }, errKeySize},
		{"no integrity key", func(p *Pair) { p.AuthIn = nil }, errKeySize},
		{"key of another transform", func(p *Pair) { p.Transform.Encryption = AES256CBC }, errKeySize},
		{"GCM without salt", func(p *Pair) { p.Transform, p.AuthIn, p.AuthOut = Transform{Encryption: AES128GCM16}, nil, nil }, errKeySize},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSide(Config{})
			used, _ := pairs("aes128-sha1", 0x9000)
			used.Peer = client
			s.install(t, epoch, used)
			p := good
			v.change(&p)
			if _, err := s.Install(epoch, p); !errors.Is(err, v.want) {
				t.Errorf("%v, want %v", err, v.want)
			}
			if len(s.peers) != 1 || len(s.inbound) != 1 || !errors.Is(s.write(server, "x"), ErrNoSA) {
				t.Error("something was installed")
			}
		})
	}
}

// Keys must not be seen anywhere, errors included.
func TestKeysAreInNoLogAndNoError(t *testing.T) {
	var log bytes.Buffer
	s := newSide(Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	p, _ := pairs("aes256-sha256", 0x1000)
	p.Roams = true
	s.install(t, epoch, p)
	p.SPIIn, p.KeyIn = 0x3000, p.KeyIn[:31]
	_, err := s.Install(epoch, p)
	s.Remove(0x1000)
	for _, secret := range [][]byte{p.KeyIn, p.KeyOut, p.AuthIn, p.AuthOut} {
		for _, form := range []string{string(secret[:4]), fmt.Sprintf("%x", secret[:4]), fmt.Sprint(secret[:4])} {
			if form = strings.Trim(form, "[]"); strings.Contains(log.String(), form) || strings.Contains(err.Error(), form) {
				t.Errorf("%q in %q or %q", form, log.String(), err)
			}
		}
	}
	if !strings.Contains(log.String(), "transform=aes256-sha256") || !strings.Contains(log.String(), "why=removed") {
		t.Error(log.String())
	}
}

func TestPeerThatTruncatesSHA256IsExplainedOnce(t *testing.T) {
	for _, encryption := range []string{"aes128", "3des", "null"} {
		var log bytes.Buffer
		c, s := newSide(Config{AllowNull: true}), newSide(Config{AllowNull: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		ofClient, _ := pairs(encryption+"-sha256_96", 0x1000)
		_, ofServer := pairs(encryption+"-sha256", 0x1000)
		c.install(t, epoch, ofClient)
		s.install(t, epoch, ofServer)
		s.receive(epoch, client, c.seal(t, server, "one", "two")...)
		if s.Stats().TruncatedPeers != 1 || s.Stats().Opened != 0 || strings.Count(log.String(), "set sha256_96") != 1 {
			t.Error(encryption, s.Stats(), log.String())
		}
	}
}

// Inner IP MTUs, computed by hand: the datagram less 4 bytes of PPP and 8 of L2TP header.
func TestMTU(t *testing.T) {
	const l2tp, ppp = 8, 4
	for _, v := range []struct {
		transform string
		outer     map[int]int // UDP payload: inner IP MTU
	}{
		{"aes128-sha1", map[int]int{1472: 1402, 1464: 1402, 1392: 1322, 1252: 1194, 1452: 1386}},
		{"aes256-sha256", map[int]int{1472: 1402, 1464: 1402, 1392: 1322, 1252: 1178, 1452: 1386}},
		{"aes256-sha512", map[int]int{1472: 1386, 1464: 1386, 1392: 1306, 1252: 1162, 1452: 1370}},
		{"3des-md5", map[int]int{1472: 1418, 1464: 1410, 1392: 1338, 1252: 1202, 1452: 1402}},
		{"aes128gcm16", map[int]int{1472: 1418, 1464: 1410, 1392: 1338, 1252: 1198, 1452: 1398}},
	} {
		for outer, want := range v.outer {
			c, _ := connected(t, v.transform)
			c.socket.mtu = outer
			mtu := c.MTU(server)
			if got := mtu - l2tp - ppp; got != want {
				t.Errorf("%s over %d: %d, want %d", v.transform, outer, got, want)
			}
			if n := len(c.seal(t, server, strings.Repeat("x", mtu))[0]); n > outer {
				t.Errorf("%s over %d: a packet of %d bytes", v.transform, outer, n)
			}
			if n := len(c.seal(t, server, strings.Repeat("x", mtu+1))[0]); n <= outer {
				t.Errorf("%s over %d: one byte more fits, too", v.transform, outer)
			}
		}
	}
	for _, name := range allTransforms() {
		c, _ := connected(t, name)
		if unknown := c.MTU(client); unknown > c.MTU(server) {
			t.Errorf("%s: %d without SA, %d with", name, unknown, c.MTU(server))
		}
	}
	s := newSide(Config{})
	s.socket.mtu = 20
	if got := s.MTU(server); got != 0 {
		t.Error("MTU", got, "where nothing fits")
	}
}

func TestRoomIsAskedForAndChecked(t *testing.T) {
	for _, name := range allTransforms() {
		c, _ := connected(t, name)
		c.socket.headroom, c.socket.tailroom = 7, 9
		for n := range 20 {
			if err := c.write(server, string(octets(0, n))); err != nil { // around gives exactly what is asked for
				t.Fatal(name, err)
			}
		}
		c.socket.take()
		cramped := [][]byte{make([]byte, 10, 500)}
		if err := c.WriteDatagrams(cramped, 10, server); !errors.Is(err, errRoom) {
			t.Error(name, "headroom:", err)
		}
		cramped = [][]byte{make([]byte, 150, 500), make([]byte, 150, 151)}
		if err := c.WriteDatagrams(cramped, 100, server); !errors.Is(err, errRoom) {
			t.Error(name, "tailroom:", err)
		}
		if err := c.WriteDatagrams([][]byte{make([]byte, 70000, 71000)}, 100, server); !errors.Is(err, errLarge) {
			t.Error(name, "length:", err)
		}
		if len(c.socket.written) != 0 || c.Stats().Unsent != 4 {
			t.Error(name, "some was sent", c.Stats())
		}
	}
}

func TestCallersListOfDatagramsStaysAsItWas(t *testing.T) {
	c, _ := connected(t, "aes128-sha1")
	datagrams := c.around("one", "three")
	if err := c.WriteDatagrams(datagrams, c.Headroom(), server); err != nil {
		t.Fatal(err)
	}
	if len(datagrams[0]) != c.Headroom()+3 || len(datagrams[1]) != c.Headroom()+5 {
		t.Error("lengths", len(datagrams[0]), len(datagrams[1]))
	}
	failure := errors.New("no buffer")
	c.socket.fails = failure
	if err := c.write(server, "x"); !errors.Is(err, failure) {
		t.Error(err)
	}
}

// Any goroutine may write while the loop rekeys; run with -race.
func TestWritersAndRekeyingRunConcurrently(t *testing.T) {
	c := NewTransport(Config{}, nowhere{}, &upper{})
	first, _ := pairs("aes128gcm16", 0x1000)
	if _, err := c.Install(epoch, first); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b := [][]byte{make([]byte, 100, 200), make([]byte, 120, 200)}
			for range 500 {
				if err := c.WriteDatagrams(b, 64, server); err != nil {
					t.Error(err)
				}
				c.MTU(server)
				c.Stats()
			}
		})
	}
	for i := range uint32(200) {
		p, _ := pairs("aes128gcm16", 0x2000+2*i)
		if _, err := c.Install(epoch, p); err != nil {
			t.Error(err)
		}
		c.Advance(epoch)
	}
	wg.Wait()
}

// nowhere is a socket that forgets what is written to it.
type nowhere struct{}

func (nowhere) WriteDatagrams([][]byte, int, netip.AddrPort) error { return nil }
func (nowhere) Headroom() int                                      { return 0 }
func (nowhere) Tailroom() int                                      { return 0 }
func (nowhere) MTU(netip.AddrPort) int                             { return 1472 }
