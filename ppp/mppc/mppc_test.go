package mppc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first is FreeRDP's, the second the one of MS-RDPBCGR section 3.1.8.4.1; the others were computed independently.
var vectors = []struct{ name, packet, tokens string }{
	{"bells", "for.whom.the.bell.tolls,.the.bell.tolls.for.thee!",
		"666f722e77686f6d2e7468652e62656c6c2e746f6c6c732cf4372e66fa1f199484"},
	{"bells, other parse", "for.whom.the.bell.tolls,.the.bell.tolls.for.thee!",
		"666f722e77686f6d2e7468652e62656c6c2e746f6c6c732cf4372efa23d3329080"},
	{"copy over itself", strings.Repeat("a", 100), "61f07e8c"},
	{"literal above 7f", "\x00\x21\xff" + strings.Repeat("\xff", 20), "0021bff83c80"},
}

func TestExpandVectors(t *testing.T) {
	for _, v := range vectors {
		var d Decompressor
		got, err := d.Expand(nil, unhex(t, v.tokens), Flushed|Compressed)
		if err != nil || string(got) != v.packet {
			t.Errorf("%s: got %q, %v", v.name, got, err)
		}
	}
}

func TestCompressGivesThePublishedTokens(t *testing.T) {
	for _, i := range []int{2, 3} { // no choice of parse in these
		v := vectors[i]
		var c Compressor
		packet := []byte(v.packet)
		n, flags := c.Compress(packet)
		if flags != Compressed|AtFront || !bytes.Equal(packet[:n], unhex(t, v.tokens)) {
			t.Errorf("%s: got %x with flags %04x, want %s", v.name, packet[:n], flags, v.tokens)
		}
	}
}

// RFC 2118 section 4.2.2: one code for each range of lengths.
func TestEveryLengthOfCopy(t *testing.T) {
	for _, length := range []int{3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 2047, 2048, 4095, 4096, 8189} {
		packet := bytes.Repeat([]byte{'a'}, length+1)
		checkRoundTrip(t, fmt.Sprint(length), [][]byte{packet}, func(n int, flags Header) {
			if !flags.Has(Compressed) {
				t.Errorf("run of %d bytes was not compressed", length+1)
			}
		})
	}
}

// RFC 2118 section 4.2.1: the borders of the three ranges of offsets.
func TestEveryRangeOfOffset(t *testing.T) {
	for _, offset := range []int{3, 63, 64, 319, 320, 321, 4095, 8000} {
		packet := make([]byte, offset, offset+20)
		for i := range packet { // no three bytes occur twice
			packet[i] = byte(i * i >> 3)
		}
		copy(packet, "xyz")
		packet = append(packet, "xyz"...)
		packet = append(packet, make([]byte, offset)...) // something to gain
		packet = packet[:min(len(packet), HistorySize-1)]
		checkRoundTrip(t, fmt.Sprint(offset), [][]byte{packet}, nil)
	}
}

func TestRoundTrip(t *testing.T) {
	for name, data := range corpora(t) {
		for _, size := range []int{1, 2, 3, 4, 40, 576, 1400, 8191, 8192, 9000} {
			var packets [][]byte
			for rest := data; len(rest) > 0; rest = rest[min(size, len(rest)):] {
				packets = append(packets, rest[:min(size, len(rest))])
			}
			saved := 0
			checkRoundTrip(t, fmt.Sprintf("%s/%d", name, size), packets, func(n int, flags Header) {
				saved += size - n
			})
			if name != "random" && name != "binary" && size == 1400 && saved < len(data)/3 {
				t.Errorf("%s: only %d of %d bytes saved", name, saved, len(data))
			}
		}
	}
}

// checkRoundTrip sends packets through a Compressor and a Decompressor and looks at every length and flag on the way.
func checkRoundTrip(t *testing.T, name string, packets [][]byte, look func(n int, flags Header)) {
	t.Helper()
	var c Compressor
	var d Decompressor
	for i, packet := range packets {
		buf := append(bytes.Clone(packet), "guard"...)
		n, flags := c.Compress(buf[:len(packet)])
		switch {
		case string(buf[len(packet):]) != "guard":
			t.Fatalf("%s: packet %d: wrote behind its end", name, i)
		case flags.Has(Compressed) && n >= len(packet):
			t.Fatalf("%s: packet %d grew from %d to %d", name, i, len(packet), n)
		case !flags.Has(Compressed) && (flags != 0 || !bytes.Equal(buf[:n], packet)):
			t.Fatalf("%s: packet %d sent as such, but changed (flags %04x)", name, i, flags)
		}
		if look != nil {
			look(n, flags)
		}
		if !flags.Has(Compressed) {
			d.Note(flags)
			continue
		}
		got, err := d.Expand([]byte("before"), buf[:n], flags)
		if err != nil || string(got) != "before"+string(packet) {
			t.Fatalf("%s: packet %d of %d bytes: %v, got %d bytes", name, i, len(packet), err, len(got)-len("before"))
		}
	}
}

func corpora(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(os.Args[0]) // the machine code of this test
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 1<<16)
	rand.NewChaCha8([32]byte{1}).Read(random)
	var html, runs bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 800 {
		fmt.Fprintf(&html, "<tr class=\"row\"><td>%d</td><td><a href=\"/item/%x\">Größe %d</a></td></tr>\n", i, r.Uint32(), r.IntN(1000))
		runs.Write(bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300)))
	}
	return map[string][]byte{
		"text": text, "html": html.Bytes(), "runs": runs.Bytes(), "random": random, "binary": binary[1<<14 : 1<<18],
	}
}

// RFC 2118 section 4.3: after a packet that went uncompressed the histories begin anew, and the next compressed one says so.
func TestIncompressiblePacketFlushesTheHistory(t *testing.T) {
	var c Compressor
	text := func() []byte { return bytes.Repeat([]byte("some text "), 20) }
	noise := corpora(t)["random"]

	want := []Header{Compressed | AtFront, 0, 0, Compressed | AtFront | Flushed, Compressed}
	for i, packet := range [][]byte{text(), bytes.Clone(noise[:500]), bytes.Clone(noise[500:700]), text(), text()} {
		if _, flags := c.Compress(packet); flags != want[i] {
			t.Errorf("packet %d: flags %04x, want %04x", i, flags, want[i])
		}
	}
}

// RFC 2118 section 3.1, bit B.
func TestHistoryRestartsAtFrontWhenFull(t *testing.T) {
	var c Compressor
	var d Decompressor
	restarts := 0
	for i := range 40 {
		packet := bytes.Repeat([]byte(fmt.Sprintf("packet %d; ", i)), 100)
		buf := bytes.Clone(packet)
		n, flags := c.Compress(buf)
		if flags.Has(AtFront) {
			restarts++
		}
		if got, err := d.Expand(nil, buf[:n], flags); err != nil || !bytes.Equal(got, packet) {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if restarts < 3 {
		t.Errorf("history restarted %d times for 40 packets of 1000 bytes", restarts)
	}
}

func TestResetMakesPacketsIndependent(t *testing.T) {
	var c Compressor
	packet := []byte(strings.Repeat("stateless ", 30))
	var first []byte
	for i := range 600_000 / 100 {
		c.Reset()
		buf := bytes.Clone(packet)
		n, flags := c.Compress(buf)
		if flags != Compressed|AtFront|Flushed {
			t.Fatalf("packet %d: flags %04x", i, flags)
		}
		if first == nil {
			first = bytes.Clone(buf[:n])
		}
		if !bytes.Equal(buf[:n], first) {
			t.Fatalf("packet %d depends on the ones before it", i)
		}
	}
}

// Positions are 32 bits wide and outlive billions of bytes.
func TestPositionsStartAgainBeforeTheyOverflow(t *testing.T) {
	var c Compressor
	c.restart()
	c.base = 1<<32 - 5*HistorySize + 17
	var d Decompressor
	for i := range 100 {
		packet := bytes.Repeat([]byte(fmt.Sprintf("%d packets ", i)), 150)
		buf := bytes.Clone(packet)
		n, flags := c.Compress(buf)
		got, err := d.Expand(nil, buf[:n], flags)
		if err != nil || !bytes.Equal(got, packet) {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if c.base > 1<<31 {
		t.Errorf("base is still %d", c.base)
	}
}

func TestExpandRefusesMalformedTokens(t *testing.T) {
	tests := []struct {
		name   string
		tokens string
		want   error
	}{
		{"offset 0", "61 f0 00", ErrOffset},                     // 'a', 1111 000000, 0
		{"offset beyond the history", "61 df ff 00", ErrOffset}, // 'a', 110 1..., 8511
		{"twelve ones as length", "61 f0 7f ff 00 00 00 00", ErrLength},
		{"end within literal", "ff", ErrTruncated},
		{"end within the length", "61 f0 7e", ErrTruncated},
		{"end within the offset", "61 c0", ErrTruncated},
		{"copy longer than the history", "61 61 f0 7f fb ff fe", ErrOverflow}, // 'a', 'a', offset 1, 8191
		{"literal behind the history", hex.EncodeToString(bytes.Repeat([]byte{'a'}, HistorySize+1)), ErrOverflow},
	}
	for _, test := range tests {
		var d Decompressor
		got, err := d.Expand([]byte("dst"), unhex(t, test.tokens), Flushed|Compressed)
		if !errors.Is(err, test.want) || string(got) != "dst" {
			t.Errorf("%s: got %d bytes, %v, want %v", test.name, len(got), err, test.want)
		}
		if _, err := d.Expand(nil, []byte("text"), Compressed); err != ErrDesync {
			t.Errorf("%s: next packet: %v, want %v", test.name, err, ErrDesync)
		}
		if got, err := d.Expand(nil, []byte("text"), Compressed|Flushed); err != nil || string(got) != "text" {
			t.Errorf("%s: flushed packet: %q, %v", test.name, got, err)
		}
	}
}

// After AtFront the rest of the history stays readable; a source before the front is at its end.
func TestCopyFromBeforeTheFront(t *testing.T) {
	var d Decompressor
	fill := bytes.Repeat([]byte{'.'}, HistorySize-4)
	if _, err := d.Expand(nil, append(fill, "tail"...), Compressed); err != nil {
		t.Fatal(err)
	}
	got, err := d.Expand(nil, unhex(t, "f1 20"), Compressed|AtFront) // offset 4, length 4: 1111 000100 1000
	if err != nil || string(got) != "tail" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNoteKeepsUncompressedPacketsOutOfTheHistory(t *testing.T) {
	var d Decompressor
	if _, err := d.Expand(nil, []byte("abc"), Compressed|Flushed); err != nil {
		t.Fatal(err)
	}
	d.Note(0)
	got, err := d.Expand(nil, unhex(t, "f0 c0"), Compressed) // offset 3, length 3: 1111 000011 0
	if err != nil || string(got) != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
	d.Note(Flushed)
	if got, err := d.Expand(nil, unhex(t, "f0 c0"), Compressed); err != nil || string(got) != "\x00\x00\x00" {
		t.Errorf("after a flush: got %q, %v", got, err)
	}
}

// Every truncation and every flipped bit of compressed packets ends in an error or in bounded output.
func TestDamagedPacketsStayBounded(t *testing.T) {
	var packets [][]byte
	for _, data := range corpora(t) {
		var c Compressor
		buf := bytes.Clone(data[:700])
		if n, flags := c.Compress(buf); flags.Has(Compressed) {
			packets = append(packets, buf[:n])
		}
	}
	check := func(damaged []byte) {
		var d Decompressor
		got, err := d.Expand(nil, damaged, Flushed|Compressed)
		if len(got) > HistorySize || (err != nil && len(got) != 0) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	for _, packet := range packets {
		for n := range packet {
			check(packet[:n])
		}
		for bit := range 8 * len(packet) {
			damaged := bytes.Clone(packet)
			damaged[bit/8] ^= 0x80 >> (bit % 8)
			check(damaged)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var c Compressor
	var d Decompressor
	text := corpora(t)["text"][:1400]
	buf, out := make([]byte, len(text)), make([]byte, 0, HistorySize)
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, text)
		n, flags := c.Compress(buf)
		var err error
		if out, err = d.Expand(out[:0], buf[:n], flags); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func FuzzExpand(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.tokens), unhex(f, v.tokens), uint16(Flushed))
	}
	f.Add([]byte{0xf1, 0x20}, []byte{0xdf, 0x00, 0xff}, uint16(AtFront))
	f.Fuzz(func(t *testing.T, first, second []byte, flags uint16) {
		var d Decompressor
		for i, tokens := range [][]byte{first, second, first} {
			dst := []byte("dst")
			got, err := d.Expand(dst, tokens, Compressed|Header(flags)<<i)
			if len(got) > len(dst)+HistorySize || string(got[:3]) != "dst" || (err != nil && len(got) != 3) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
	})
}

func FuzzCompressThenExpandIsIdentity(f *testing.F) {
	f.Add([]byte("for.whom.the.bell.tolls,.the.bell.tolls.for.thee!"), uint16(7), uint16(3))
	f.Add(bytes.Repeat([]byte{0xff}, 3000), uint16(1400), uint16(2))
	f.Fuzz(func(t *testing.T, data []byte, size, resets uint16) {
		if size == 0 {
			return
		}
		var c Compressor
		var d Decompressor
		for i := 0; len(data) > 0; i++ {
			packet := data[:min(int(size), len(data))]
			data = data[len(packet):]
			if resets > 0 && i%int(resets) == 0 {
				c.Reset()
			}
			buf := bytes.Clone(packet)
			n, flags := c.Compress(buf)
			if n > len(packet) {
				t.Fatal("packet grew")
			}
			got := buf[:n]
			if d.Note(flags &^ AtFront &^ Flushed); flags.Has(Compressed) {
				var err error
				if got, err = d.Expand(nil, buf[:n], flags); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, packet) {
				t.Fatalf("packet %d differs", i)
			}
		}
	})
}

func benchmarkInputs(b *testing.B) map[string][]byte {
	all := corpora(b)
	return map[string][]byte{"text": all["text"][:1400], "html": all["html"][:1400], "random": all["random"][:1400]}
}

func BenchmarkCompress(b *testing.B) {
	for name, packet := range benchmarkInputs(b) {
		for _, stateless := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/stateless=%v", name, stateless), func(b *testing.B) {
				var c Compressor
				buf := make([]byte, len(packet))
				size := 0
				b.SetBytes(int64(len(packet)))
				b.ReportAllocs()
				for b.Loop() {
					if stateless {
						c.Reset()
					}
					copy(buf, packet)
					size, _ = c.Compress(buf)
				}
				b.ReportMetric(float64(size), "bytes/packet")
			})
		}
	}
}

func BenchmarkExpand(b *testing.B) {
	for name, packet := range benchmarkInputs(b) {
		b.Run(name, func(b *testing.B) {
			var c Compressor
			var d Decompressor
			buf := bytes.Clone(packet)
			n, flags := c.Compress(buf)
			if !flags.Has(Compressed) { // literals only: the slowest there is
				buf, n = literals(packet), len(literals(packet))
			}
			out := make([]byte, 0, HistorySize)
			b.SetBytes(int64(len(packet)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if out, err = d.Expand(out[:0], buf[:n], Compressed|AtFront); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// literals codes packet without a single copy.
func literals(packet []byte) []byte {
	w := bitWriter{dst: make([]byte, 2*len(packet))}
	for _, b := range packet {
		w.literal(b)
	}
	n, _ := w.finish()
	return w.dst[:n]
}
