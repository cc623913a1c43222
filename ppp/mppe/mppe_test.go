package mppe

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"gateway/ppp/mppc"
)

// link is one direction of a link: an Encoder and the Decoder at its other end.
type link struct {
	t   testing.TB
	enc *Encoder
	dec *Decoder
	n   int // packets sent
}

func newLink(t testing.TB, bits Bits) *link {
	t.Helper()
	enc, err := NewEncoder(bits, sampleKeys(t, true).Send)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := NewDecoder(bits, sampleKeys(t, false).Receive)
	if err != nil {
		t.Fatal(err)
	}
	return &link{t: t, enc: enc, dec: dec}
}

// seal makes the data of a frame after 00FD.
func seal(enc *Encoder, packet []byte) []byte {
	bufs := [][]byte{append(make([]byte, 5, 5+len(packet)), packet...)}
	enc.Seal(bufs, 5)
	return bufs[0][5-Headroom:]
}

// next seals the next packet of the conversation, an IPv4 or IPv6 packet that can be told from all others.
func (l *link) next() (data, packet []byte) {
	packet = ipPacket(l.n)
	l.n++
	return seal(l.enc, packet), packet
}

func ipPacket(n int) []byte {
	size := 20 + n*37%1300
	packet := make([]byte, 0, 60+size)
	if n%3 == 2 {
		packet = append(packet, 0x00, 0x57, 0x60, 0, 0, 0)
		packet = binary.BigEndian.AppendUint16(packet, uint16(size))
		size += 40
	} else {
		packet = append(packet, 0x00, 0x21, 0x45, 0)
		packet = binary.BigEndian.AppendUint16(packet, uint16(size))
	}
	for len(packet) < 2+size {
		packet = append(packet, byte(n), byte(n>>8), 'x', 'y')
	}
	return packet[:2+size]
}

// deliver expects data to be opened to packet.
func (l *link) deliver(data, packet []byte) {
	l.t.Helper()
	got, _, v := l.dec.Open(nil, bytes.Clone(data))
	if v != Opened || !bytes.Equal(got, packet) {
		l.t.Fatalf("data %x…: %v, got %d bytes, want %d", data[:2], v, len(got), len(packet))
	}
}

func (l *link) drop(data []byte, want Verdict) {
	l.t.Helper()
	if got, dst, v := l.dec.Open([]byte("dst"), bytes.Clone(data)); v != want || got != nil || string(dst) != "dst" {
		l.t.Fatalf("data %x…: %v, want %v; returned %d bytes", data[:2], v, want, len(got))
	}
}

var allBits = []Bits{
	Key128 | Stateless, Key56 | Stateless, Key40 | Stateless, Key128, Key56, Key40,
	MPPC, MPPC | Stateless, Key128 | MPPC, Key128 | MPPC | Stateless, Key40 | MPPC,
}

// Computed independently: the chain of keys in stateless mode, from the start key to the second time the count is 0.
func TestStatelessChain(t *testing.T) {
	tests := []struct {
		bits        Bits
		client      bool
		key0, body0 string
		key1, body1 string
		key255      string
		again       string
	}{
		{Key128, false, "726f10500e2b54135b1b74d7682f0471", "7058224e931b78d7b615fa441831",
			"2805bc7869bec825573a7803e95a3acd", "353c954cd545ce3127ae68f6eaf7",
			"7deacf489da29586faeaf17f14fc1773", "53e2a1b16f09722d2189fc82a18bcbc6"},
		{Key128, true, "0e09c108101dfddef6c0e2f2d95d0bad", "3f79a9fd0590d2482f52f50eee55",
			"03273439ac5f94c97f13d9133df4dfc5", "fb2e735875116fce857fb1b079a8",
			"f9365d685c307f4e2c64020daf26085c", "3edb8f1c690523673c8fcc9b0c9b7b5d"},
		{Key56, false, "d16182a2ab481407", "68da873ed60fa7346af19674dde1",
			"d178cc274f63faf1", "b23c8663c3c38ad80cdf2da2e05f", "d1df4d3f9a8e8702", "d158aca1ed485954"},
		{Key40, false, "d1269ece4d98d181", "9edca503e79a60e2522dae2433ed",
			"d1269edeefbd8aff", "f2032a093e8db197de2d4c926850", "d1269eec59c203cd", "d1269ec2f61469cf"},
	}
	message := append([]byte{0x00, 0x21}, "test message"...)
	for _, test := range tests {
		enc, err := NewEncoder(test.bits|Stateless, sampleKeys(t, test.client).Send)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := NewDecoder(test.bits|Stateless, sampleKeys(t, !test.client).Receive)
		if err != nil {
			t.Fatal(err)
		}
		keys := map[int]string{0: test.key0, 1: test.key1, 255: test.key255, 4096: test.again}
		bodies := map[int]string{0: test.body0, 1: test.body1}
		for n := range 4097 {
			data := seal(enc, message)
			if h := binary.BigEndian.Uint16(data); h != 0x9000|uint16(n%4096) {
				t.Fatalf("packet %d has header %04x", n, h)
			}
			if want, ok := keys[n]; ok && hex.EncodeToString(enc.key.key[:enc.key.size]) != want {
				t.Errorf("%v: key of packet %d is %x, want %s", test.bits, n, enc.key.key[:enc.key.size], want)
			}
			if want, ok := bodies[n]; ok && hex.EncodeToString(data[2:]) != want {
				t.Errorf("%v: packet %d is %x, want %s", test.bits, n, data[2:], want)
			}
			if got, _, v := dec.Open(nil, data); v != Opened || !bytes.Equal(got, message) {
				t.Fatalf("%v: packet %d: %v, %x", test.bits, n, v, got)
			}
		}
	}
}

func TestEveryModeCarriesPacketsRoundTheCount(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		for range 4096 + 300 {
			l.deliver(l.next())
		}
		if l.dec.NeedsReset() || l.dec.Err() != nil {
			t.Errorf("%v: needs reset %v, error %v", bits, l.dec.NeedsReset(), l.dec.Err())
		}
	}
}

func TestSealKeepsHeadroomAndBatchApart(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		var bufs [][]byte
		for i := range 8 {
			bufs = append(bufs, append([]byte("headroom"), ipPacket(i)...))
		}
		l.enc.Seal(bufs, 8)
		for i, buf := range bufs {
			if string(buf[:8-Headroom]) != "headroom"[:8-Headroom] || len(buf) > 8+len(ipPacket(i)) {
				t.Errorf("%v: packet %d: front %q, length %d", bits, i, buf[:6], len(buf))
			}
			l.deliver(buf[8-Headroom:], ipPacket(i))
		}
	}
}

// Several packets of a batch are handed up together: those expanded must not share memory.
func TestOpenedPacketsOfABatchStayApart(t *testing.T) {
	l := newLink(t, Key128|MPPC)
	var arena []byte
	var got [][]byte
	for range 30 {
		data, _ := l.next()
		packet, extended, v := l.dec.Open(arena, data)
		if v != Opened {
			t.Fatal(v)
		}
		arena, got = extended, append(got, packet)
	}
	for i, packet := range got {
		if !bytes.Equal(packet, ipPacket(i)) {
			t.Errorf("packet %d was overwritten", i)
		}
	}
}

func TestNewRefusesBitsThatAreNoAgreement(t *testing.T) {
	for _, bits := range []Bits{0, Stateless, Key40 | Key128, Key128 | Obsolete, Key128 | 0x100, Obsolete} {
		_, err1 := NewEncoder(bits, StartKey{})
		_, err2 := NewDecoder(bits, StartKey{})
		for _, err := range []error{err1, err2} {
			if e := (*Error)(nil); !errors.As(err, &e) || e.Reason != BadAgreement {
				t.Errorf("%v: %v", bits, err)
			}
		}
	}
}

func TestOpenDropsEveryPrefixOfTheHeader(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		data, packet := l.next()
		for n := range 3 {
			l.drop(data[:n], Malformed)
		}
		l.deliver(data, packet)
	}
}

func TestOpenOfTruncatedPacketsNeverPanics(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		for range 10 {
			l.deliver(l.next())
		}
		data, packet := l.next()
		for n := range data {
			dec := *l.dec
			if dec.decompressor != nil {
				d := *dec.decompressor
				dec.decompressor = &d
			}
			if got, _, v := dec.Open(nil, bytes.Clone(data[:n])); v == Opened && len(got) > mppc.HistorySize {
				t.Fatalf("%v: %d bytes from %d", bits, len(got), n)
			}
		}
		l.deliver(data, packet)
	}
}

// RFC 3078 section 3.1: bit D always, bit A in stateless mode; bit C only if compression was agreed on.
func TestOpenDropsWhatWasNotAgreedOn(t *testing.T) {
	tests := []struct {
		name  string
		bits  Bits
		clear mppc.Header
		set   mppc.Header
	}{
		{"unencrypted", Key128 | Stateless, mppc.Encrypted, 0},
		{"unencrypted, stateful", Key128, mppc.Encrypted, 0},
		{"not flushed in stateless mode", Key128 | Stateless, mppc.Flushed, 0},
		{"not flushed in stateless compression", MPPC | Stateless, mppc.Flushed, 0},
		{"compressed without MPPC", Key128 | Stateless, 0, mppc.Compressed},
		{"encrypted without MPPE", MPPC, 0, mppc.Encrypted},
	}
	for _, test := range tests {
		l := newLink(t, test.bits)
		data, packet := l.next()
		bad := bytes.Clone(data)
		(mppc.ParseHeader(bad)&^test.clear | test.set).Put(bad)
		for range 15 {
			l.drop(bad, Unexpected)
		}
		if l.dec.Err() != nil {
			t.Errorf("%s: given up after 15 packets", test.name)
		}
		l.deliver(data, packet)
		for range 16 {
			l.drop(bad, Unexpected)
		}
		if e := (*Error)(nil); !errors.As(l.dec.Err(), &e) || e.Reason != Unencrypted {
			t.Errorf("%s: %v", test.name, l.dec.Err())
		}
	}
}

// RFC 3078 section 3: only protocols 0021 to 00FA are encrypted.
func TestOpenDropsProtocolsThatStayInClear(t *testing.T) {
	tests := []struct {
		start string
		want  Verdict
	}{
		{"002145", Opened}, {"005760", Opened}, {"002d00", Opened}, {"00f900", Opened}, {"2145", Opened}, {"5760", Opened}, {"002160", Opened},
		{"c02101", Garbled}, {"80fd01", Garbled}, {"c22301", Garbled}, {"00fd90", Garbled}, {"001f00", Garbled}, {"00fb00", Garbled},
		{"fd9000", Garbled}, {"2160", Garbled}, {"2d00", Garbled}, {"002200", Garbled}, {"00002145", Garbled}, {"012145", Garbled},
	}
	for _, test := range tests {
		for _, bits := range allBits {
			l := newLink(t, bits)
			packet := append(unhex(t, test.start), make([]byte, 60)...)
			if _, _, v := l.dec.Open(nil, seal(l.enc, packet)); v != test.want {
				t.Errorf("%s in %v: %v, want %v", test.start, bits, v, test.want)
			}
		}
	}
	for protocol := range 0x10000 {
		if got, want := Carries(uint16(protocol)), protocol >= 0x21 && protocol <= 0xfa; got != want {
			t.Errorf("Carries(%04x) = %v", protocol, got)
		}
	}
}

// RFC 3078 section 8.1: each packet tells its key by its count, so loss costs only what was lost.
func TestStatelessModeSurvivesLoss(t *testing.T) {
	for _, bits := range []Bits{Key128 | Stateless, Key128 | MPPC | Stateless, MPPC | Stateless} {
		l := newLink(t, bits)
		r := rand.New(rand.NewPCG(1, 1))
		for range 10_000 {
			data, packet := l.next()
			if r.IntN(20) > 0 {
				l.deliver(data, packet)
			}
			if l.dec.NeedsReset() {
				t.Fatal("asks for a reset")
			}
		}
	}
}

func TestStatelessModeDropsDuplicatesAndLatePackets(t *testing.T) {
	l := newLink(t, Key128|Stateless)
	late, _ := l.next()
	data, packet := l.next()
	l.deliver(data, packet)
	l.drop(data, Duplicate)
	l.drop(late, Late)
	l.deliver(l.next())
}

// A packet that is later than maxBehind looks as if it were far ahead. It must not take the key with it, nor cost the link.
func TestStatelessModeOutlivesPacketsThatAreVeryLate(t *testing.T) {
	l := newLink(t, Key128|Stateless)
	var old [][]byte
	for range 4096 - maxAhead + 1000 {
		data, packet := l.next()
		old = append(old, bytes.Clone(data))
		l.deliver(data, packet)
	}
	for _, data := range old[:1000] {
		switch _, _, v := l.dec.Open(nil, data); v {
		case Late, TooFar:
		default:
			t.Fatalf("a very late packet is %v", v)
		}
	}
	if err := l.dec.Err(); err != nil {
		t.Error(err)
	}
	l.deliver(l.next())
}

func TestStatelessModeReachesExactlySoFarAhead(t *testing.T) {
	for _, test := range []struct {
		ahead int
		want  Verdict
	}{{halfway, Opened}, {halfway + 1, Opened}, {maxAhead, Opened}, {maxAhead + 1, Late}, {4095, Late}, {4096, Duplicate}} {
		l := newLink(t, Key128|Stateless)
		l.deliver(l.next())
		for range test.ahead - 1 {
			l.next()
		}
		data, packet := l.next()
		if test.want == Opened {
			l.deliver(data, packet)
			continue
		}
		l.drop(data, test.want)
	}
}

// A count from nowhere must not take the key with it. (What pretends to be the very next packet may take its place.)
func TestForgedPacketsLeaveNoTraceInStatelessMode(t *testing.T) {
	l := newLink(t, Key128|Stateless)
	for n := range 3000 {
		i := n * 7
		forged := append([]byte{0x90 | byte(i>>8&0xf), byte(i)}, bytes.Repeat([]byte{byte(i)}, 40)...)
		if i&0xfff == n&0xfff {
			continue
		}
		l.dec.Open(nil, forged)
		l.deliver(l.next())
	}
}

// However far the forged counts are ahead, the work for each is bounded over time.
func TestForgedCountsDoNotBuyKeyChanges(t *testing.T) {
	l := newLink(t, Key128|Stateless)
	changes, tooFar := 0, 0
	for range 1000 {
		before := l.dec.earned
		_, _, v := l.dec.Open(nil, append([]byte{0x97, 0xfe}, make([]byte, 40)...)) // 2047 ahead
		switch v {
		case TooFar:
			tooFar++
		case Garbled:
			changes += min(before+keysEarned, maxAhead) - l.dec.earned
		}
	}
	if changes > maxAhead+1000*keysEarned || tooFar < 900 {
		t.Errorf("%d key changes, %d packets refused", changes, tooFar)
	}
	l.deliver(l.next())
}

func TestWrongKeysAreNamed(t *testing.T) {
	for _, bits := range []Bits{Key128 | Stateless, Key128} {
		l := newLink(t, bits)
		l.dec, _ = NewDecoder(bits, sampleKeys(t, true).Receive) // the direction mixed up
		for i := 0; l.dec.Err() == nil; i++ {
			if i > 100 {
				t.Fatalf("%v: no error after %d packets", bits, i)
			}
			data, _ := l.next()
			if l.dec.Open(nil, data); l.dec.NeedsReset() {
				l.enc.Reset()
			}
		}
		if e := (*Error)(nil); !errors.As(l.dec.Err(), &e) || e.Reason != WrongKeys || e.Stage() != "ccp" || e.Advice() == "" {
			t.Errorf("%v: %v", bits, l.dec.Err())
		}
	}
}

func TestAGapTooLongEndsTheLink(t *testing.T) {
	l := newLink(t, Key128|Stateless)
	l.deliver(l.next())
	for range maxAhead + 100 {
		l.next()
	}
	for n := 0; l.dec.Err() == nil; n++ {
		if n > 4096 {
			t.Fatal("goes on for ever")
		}
		data, _ := l.next()
		l.dec.Open(nil, data)
	}
	if e := (*Error)(nil); !errors.As(l.dec.Err(), &e) || e.Reason != OutOfStep {
		t.Error(l.dec.Err())
	}
}

// RFC 3078 section 8.2: after a loss everything is dropped until a flushed packet answers the Reset-Request.
func TestStatefulModeRecoversByReset(t *testing.T) {
	for _, bits := range []Bits{Key128, Key40, MPPC, Key128 | MPPC} {
		l := newLink(t, bits)
		for _, before := range []int{3, 250, 5, 0, 256, 1000, 2000} {
			for range before {
				l.deliver(l.next())
			}
			l.next() // lost
			for range 2 {
				data, _ := l.next()
				l.drop(data, Lost)
				if !l.dec.NeedsReset() {
					t.Fatalf("%v: does not ask for a reset", bits)
				}
			}
			l.enc.Reset()
			l.deliver(l.next())
			if l.dec.NeedsReset() {
				t.Fatalf("%v: still asks for a reset", bits)
			}
			l.deliver(l.next())
		}
	}
}

func TestStatefulModeDropsDuplicatesAndLatePacketsUnharmed(t *testing.T) {
	for _, bits := range []Bits{Key128, MPPC, Key128 | MPPC} {
		l := newLink(t, bits)
		first, packet := l.next()
		l.deliver(first, packet)
		for range 600 {
			data, packet := l.next()
			l.deliver(data, packet)
			l.drop(data, Duplicate)
			l.drop(first, Late)
		}
	}
}

// The Reset-Request, its answer, or both may be lost, and some packets get through in between.
func TestStatefulModeConvergesUnderLossAndDuplication(t *testing.T) {
	for _, bits := range []Bits{Key128, Key40, MPPC, Key128 | MPPC} {
		l := newLink(t, bits)
		r := rand.New(rand.NewPCG(2, 2))
		opened := 0
		for range 6_000 {
			data, packet := l.next()
			if r.IntN(50) == 0 {
				continue
			}
			for range 1 + r.IntN(20)/19 {
				got, _, v := l.dec.Open(nil, bytes.Clone(data))
				if v == Opened {
					opened++
					if !bytes.Equal(got, packet) {
						t.Fatalf("%v: packet %d came out changed", bits, l.n)
					}
				}
			}
			if l.dec.NeedsReset() && r.IntN(3) > 0 {
				l.enc.Reset()
			}
		}
		if opened < 4_500 || l.dec.Err() != nil {
			t.Errorf("%v: %d packets opened, %v", bits, opened, l.dec.Err())
		}
	}
}

// A damaged packet costs a reset, nothing else; in stateless mode not even that.
func TestDamagedPacketsDoNotTakeTheKeyAlong(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		r := rand.New(rand.NewPCG(3, 3))
		for i := range 3000 {
			data, packet := l.next()
			if i%7 == 3 {
				damaged := bytes.Clone(data)
				for range 3 {
					damaged[r.IntN(len(damaged))] ^= 1 << r.IntN(8)
				}
				got, _, _ := l.dec.Open(nil, damaged)
				if len(got) > mppc.HistorySize {
					t.Fatalf("%v: %d bytes", bits, len(got))
				}
			}
			if got, _, v := l.dec.Open(nil, data); v == Opened && !bytes.Equal(got, packet) && bits&MPPC == 0 && bits.Has(Stateless) {
				t.Fatalf("%v: packet %d changed", bits, i)
			}
			if l.dec.NeedsReset() {
				l.enc.Reset()
			}
		}
		for range 2 * maxLate { // after that all is well again
			data, _ := l.next()
			if l.dec.Open(nil, data); l.dec.NeedsReset() {
				l.enc.Reset()
			}
		}
		l.deliver(l.next())
		if err := l.dec.Err(); err != nil {
			t.Errorf("%v: %v", bits, err)
		}
	}
}

// No two packets are encrypted with the same keystream, also not after a Reset-Request, where RFC 3078 would have it so.
func TestKeystreamIsNeverUsedTwice(t *testing.T) {
	for _, bits := range []Bits{Key128 | Stateless, Key128, Key128 | MPPC} {
		enc, err := NewEncoder(bits, sampleKeys(t, true).Send)
		if err != nil {
			t.Fatal(err)
		}
		noise := rand.NewChaCha8([32]byte{7})
		seen := make(map[[16]byte]int)
		for i := range 6000 {
			if i%11 == 5 {
				enc.Reset()
			}
			packet := make([]byte, 64)
			noise.Read(packet) // does not compress: what goes in is what is encrypted
			data := seal(enc, packet)
			for j := range 4 {
				var stream [16]byte
				for k := range stream {
					stream[k] = packet[16*j+k] ^ data[Headroom+16*j+k]
				}
				if before, ok := seen[stream]; ok {
					t.Fatalf("%v: packets %d and %d share keystream", bits, before, i)
				}
				seen[stream] = i
			}
		}
	}
}

// After an incompressible packet the history is flushed, which with encryption takes a new key: in stateful mode that
// is a jump of the count, but only when there is something to compress again.
func TestIncompressiblePacketsBetweenCompressibleOnes(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{9})
	for _, bits := range []Bits{MPPC, Key128 | MPPC, Key128 | MPPC | Stateless} {
		l := newLink(t, bits)
		for i := range 3000 {
			packet := ipPacket(i)
			if i/3%3 == 0 {
				noise.Read(packet[8:])
			}
			l.deliver(seal(l.enc, packet), packet)
		}
	}
}

func TestWipeLeavesNoKey(t *testing.T) {
	l := newLink(t, Key128|MPPC)
	l.deliver(l.next())
	l.enc.Wipe()
	l.dec.Wipe()
	if *l.enc != (Encoder{}) || *l.dec != (Decoder{}) {
		t.Error("something is left")
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	for v := range verdicts + 1 {
		if name := v.String(); name == "" || (name == "unknown") != (v == verdicts) {
			t.Errorf("verdict %d is called %q", v, name)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, bits := range allBits {
		l := newLink(t, bits)
		packet := ipPacket(37)
		buf, arena := make([]byte, 8+len(packet)), make([]byte, 0, mppc.HistorySize)
		bufs := make([][]byte, 1)
		if n := testing.AllocsPerRun(300, func() {
			copy(buf[8:], packet)
			bufs[0] = buf
			l.enc.Seal(bufs, 8)
			if _, _, v := l.dec.Open(arena[:0], bufs[0][8-Headroom:]); v != Opened {
				t.Fatal(v)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations for a packet", bits, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for i := range allBits {
		l := newLink(f, allBits[i])
		first, _ := l.next()
		second, _ := l.next()
		f.Add(uint8(i), first, second)
		f.Add(uint8(i), second, first)
	}
	f.Fuzz(func(t *testing.T, mode uint8, first, second []byte) {
		l := newLink(t, allBits[int(mode)%len(allBits)])
		opened := false
		for range 3 {
			for _, data := range [][]byte{first, second} {
				arena := []byte("dst")
				got, extended, v := l.dec.Open(arena, bytes.Clone(data))
				if len(got) > max(mppc.HistorySize, len(data)) || (v == Opened) != (got != nil) || string(extended[:3]) != "dst" {
					t.Fatalf("%v: %d bytes", v, len(got))
				}
				opened = opened || v == Opened
				if l.dec.earned < 0 || l.dec.earned > maxAhead {
					t.Fatalf("earned %d", l.dec.earned)
				}
			}
		}
		if opened {
			return // by luck or by knowledge of the key; the count went on
		}
		l.enc.Reset()
		for range 20 { // whatever came in, an honest peer gets through
			data, packet := l.next()
			if got, _, v := l.dec.Open(nil, data); v == Opened && bytes.Equal(got, packet) {
				return
			}
			l.enc.Reset()
		}
		t.Fatal("an honest peer does not get through")
	})
}

func benchmark(b *testing.B, bits Bits) {
	packet := append([]byte{0, 0x21, 0x45, 0, 0x05, 0x78}, make([]byte, 1394)...)
	rand.NewChaCha8([32]byte{5}).Read(packet[22:]) // as traffic is
	b.Run("Seal", func(b *testing.B) {
		l := newLink(b, bits)
		buf, bufs := make([]byte, Headroom+len(packet)), make([][]byte, 1)
		b.SetBytes(int64(len(packet)))
		b.ReportAllocs()
		for b.Loop() {
			copy(buf[Headroom:], packet)
			bufs[0] = buf
			l.enc.Seal(bufs, Headroom)
		}
	})
	b.Run("Open", func(b *testing.B) {
		l := newLink(b, bits)
		const round = 4096 // packets recorded; the Decoder is put back after them
		var recorded [round][]byte
		for i := range recorded {
			recorded[i] = seal(l.enc, packet)
		}
		start := *l.dec
		buf := make([]byte, Headroom+len(packet))
		arena := make([]byte, 0, mppc.HistorySize)
		i := 0
		b.SetBytes(int64(len(packet)))
		b.ReportAllocs()
		for b.Loop() {
			if i == round {
				i, *l.dec = 0, start
			}
			if _, _, v := l.dec.Open(arena[:0], buf[:copy(buf, recorded[i])]); v != Opened {
				b.Fatal(v)
			}
			i++
		}
	})
}

func BenchmarkMPPE(b *testing.B) {
	for _, bits := range []Bits{Key128 | Stateless, Key40 | Stateless, Key128} {
		b.Run(fmt.Sprint(bits), func(b *testing.B) { benchmark(b, bits) })
	}
}

func BenchmarkMPPEWithMPPC(b *testing.B) { benchmark(b, Key128|Stateless|MPPC) }
