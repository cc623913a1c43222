package mppc

import (
	"encoding/binary"
	"math/bits"
)

// HistorySize is the size in bytes of the history, and the bound of a packet before compression and after expansion
// (RFC 2118 section 4).
const HistorySize = 8192

const (
	minMatch  = 3 // the shortest copy that has a code (RFC 2118 section 4.2.2)
	tableBits = 12

	// A packet that has not shrunk after this many bytes is most likely encrypted or compressed already.
	probation = 384
)

// Compressor compresses the packets of one direction. The zero value is ready and has an empty history.
type Compressor struct {
	// history holds the packets sent compressed since the last reset; the slack lets the search load whole words.
	history [HistorySize + 8]byte
	at      int // where in history the next packet goes

	// table maps the hash of three bytes to where they were last seen, as a position: base + index into history. Positions
	// below base belong to a history that is gone, so that emptying it costs nothing.
	table [1 << tableBits]uint32
	base  uint32

	reset bool // the peer does not know yet that the history was emptied
}

// Reset empties the history. The next compressed packet carries Flushed and refers to nothing sent before.
func (c *Compressor) Reset() {
	c.restart()
	c.reset = true
}

// restart puts the next packet at the front of the history and forgets what is there: the peer may refer to it still,
// but not every peer keeps it readable.
func (c *Compressor) restart() {
	if c.base > 1<<32-1-2*HistorySize {
		clear(c.table[:])
		c.base = 0
	}
	c.base += HistorySize // also keeps 0, an empty slot, below base
	c.at = 0
}

// Compress compresses packet, a PPP protocol field and information, in place. It returns the new length and the flags to
// set: Compressed, AtFront, Flushed. A packet that would not shrink is left as it is, with no flags; the history is
// then empty and the next compressed packet will say so (RFC 2118 section 4.3).
func (c *Compressor) Compress(packet []byte) (n int, flags Header) {
	if c.base == 0 {
		c.restart() // a new Compressor: the peer's history is empty too, nothing to tell
	}
	if len(packet) >= HistorySize {
		c.Reset()
		return len(packet), 0
	}
	flags = Compressed
	if c.at+len(packet) >= HistorySize {
		c.restart()
	}
	if c.at == 0 { // also where it goes without saying: Microsoft's own compressors say it
		flags |= AtFront
	}
	end := c.at + copy(c.history[c.at:], packet)

	n, shrunk := c.encode(packet, end)
	if !shrunk {
		copy(packet, c.history[c.at:end])
		c.Reset()
		return len(packet), 0
	}
	c.at = end
	if c.reset {
		flags |= Flushed
		c.reset = false
	}
	return n, flags
}

// encode writes the tokens for history[at:end] to dst, which has as many bytes, and reports whether that saved any. A
// greedy search: the last place where the next three bytes were seen is the only one looked at.
func (c *Compressor) encode(dst []byte, end int) (n int, shrunk bool) {
	w := bitWriter{dst: dst}
	h := &c.history
	trial := c.at + probation

	i := c.at
	for i+minMatch <= end {
		length := 0
		slot := &c.table[hash(binary.LittleEndian.Uint32(h[i:]))]
		last := *slot
		*slot = c.base + uint32(i)
		if last >= c.base {
			length = matchLen(h, int(last-c.base), i, end)
		}
		if length < minMatch {
			w.literal(h[i])
			i++
		} else {
			w.offset(uint32(i) + c.base - last)
			w.length(uint32(length))
			c.note(i+1, min(i+length, end-minMatch+1))
			i += length
		}
		if w.full {
			return 0, false
		}
		if i >= trial {
			if w.n >= i-c.at {
				return 0, false
			}
			trial = end // once is enough
		}
	}
	for ; i < end; i++ {
		w.literal(h[i])
	}
	return w.finish()
}

// note enters the positions of a match into the table; the inside of a long one is left out, its ends find it again.
func (c *Compressor) note(from, to int) {
	for i := from; i < min(to, from+16); i++ {
		c.table[hash(binary.LittleEndian.Uint32(c.history[i:]))] = c.base + uint32(i)
	}
}

// hash spreads the first three bytes of a little endian word over the table.
func hash(word uint32) uint32 { return (word << 8) * 2654435761 >> (32 - tableBits) }

// matchLen is how many bytes from i on, at most up to end, equal those from back on, which may run into one another.
func matchLen(h *[HistorySize + 8]byte, back, i, end int) int {
	n := 0
	for i+n < end {
		x := binary.LittleEndian.Uint64(h[back+n:]) ^ binary.LittleEndian.Uint64(h[i+n:])
		if x != 0 {
			n += bits.TrailingZeros64(x) / 8
			break
		}
		n += 8
	}
	return min(n, end-i)
}

// bitWriter packs tokens, most significant bit first, into dst. full is set when they no longer take less room than dst.
type bitWriter struct {
	dst     []byte
	n       int    // bytes written
	pending uint64 // the low bits, fewer than 32 between calls
	bits    uint
	full    bool
}

func (w *bitWriter) put(value uint32, bits uint) {
	w.pending = w.pending<<bits | uint64(value)
	w.bits += bits
	if w.bits < 32 {
		return
	}
	if w.n+4 >= len(w.dst) {
		w.full = true
		w.bits = 0
		return
	}
	w.bits -= 32
	binary.BigEndian.PutUint32(w.dst[w.n:], uint32(w.pending>>w.bits))
	w.n += 4
}

// literal: bytes below 80 take 8 bits, the others 9 (RFC 2118 section 4.1).
func (w *bitWriter) literal(b byte) {
	high := uint(b >> 7)
	w.put(uint32(b&0x7f)|uint32(high)<<8, 8+high)
}

// offset counts back from the byte to be written, 1 to 8191 (RFC 2118 section 4.2.1).
func (w *bitWriter) offset(o uint32) {
	switch {
	case o < 64:
		w.put(0xf<<6|o, 10)
	case o < 320:
		w.put(0xe<<8|(o-64), 12)
	default:
		w.put(6<<13|(o-320), 16)
	}
}

// length is that of the copy, 3 to 8191: for 2^k <= l < 2^(k+1), k-1 ones, a zero and the low k bits of l; a single zero
// for 3 (RFC 2118 section 4.2.2).
func (w *bitWriter) length(l uint32) {
	if l == minMatch {
		w.put(0, 1)
		return
	}
	k := uint(bits.Len32(l)) - 1
	ones := uint32(1)<<(k-1) - 1
	w.put(ones<<(k+1)|(l-1<<k), 2*k)
}

// finish pads the last byte with zeros.
func (w *bitWriter) finish() (n int, shrunk bool) {
	for !w.full && w.bits > 0 {
		if w.n+1 >= len(w.dst) {
			w.full = true
			break
		}
		w.dst[w.n] = byte(w.pending << (64 - w.bits) >> 56)
		w.n++
		w.bits -= min(w.bits, 8)
	}
	return w.n, !w.full
}
