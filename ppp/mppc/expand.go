package mppc

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Why a compressed packet cannot be expanded. Whatever the reason, the histories of the two sides differ from then on
// until a packet with Flushed arrives.
var (
	ErrTruncated = errors.New("mppc: compressed data ends within a token")
	ErrOffset    = errors.New("mppc: copy from an offset that no history holds")
	ErrLength    = errors.New("mppc: length of a copy has no such code")
	ErrOverflow  = errors.New("mppc: packet does not fit into the rest of the history")
	ErrDesync    = errors.New("mppc: history lost, waiting for a flushed packet")
)

// Decompressor expands the packets of one direction. The zero value is ready and has an empty history.
type Decompressor struct {
	history [HistorySize]byte
	at      int  // where in history the next packet goes
	lost    bool // history is not the peer's any more
}

// Lose declares the history lost, for instance because a packet was: nothing is expanded before the next Flushed.
func (d *Decompressor) Lose() { d.lost = true }

// Note takes in the flags of a packet that came uncompressed. Its bytes do not enter the history.
func (d *Decompressor) Note(flags Header) {
	if flags.Has(Flushed) {
		clear(d.history[:]) // RFC 2118 section 3.1: histories begin as zeros
		d.at, d.lost = 0, false
	}
	if flags.Has(AtFront) {
		d.at = 0 // what is there stays readable until it is overwritten
	}
}

// Expand takes in the flags of a compressed packet, expands src and returns dst with the packet, at most HistorySize
// bytes, appended. On an error dst is returned as it was and the history counts as lost.
func (d *Decompressor) Expand(dst, src []byte, flags Header) ([]byte, error) {
	d.Note(flags)
	if d.lost {
		return dst, ErrDesync
	}
	end, err := d.decode(src)
	if err != nil {
		d.lost = true
		return dst, err
	}
	dst = append(dst, d.history[d.at:end]...)
	d.at = end
	return dst, nil
}

// decode writes what src stands for to history[at:] and returns its end. Bits are read from the top of a word that holds
// at least 56 of them, or all that are left, followed by zeros.
func (d *Decompressor) decode(src []byte) (end int, err error) {
	var (
		r   = bitReader{src: src, left: 8 * len(src)}
		out = d.at
	)
	for r.left >= 8 { // fewer are padding: the shortest token has 8
		r.fill()
		if r.word>>62 != 3 {
			high := int(r.word >> 63) // 0, 7 bits; or 10, 7 bits. No branch: in dense data it would be a coin toss
			b := byte(r.word>>(56-high)) | byte(high<<7)
			n := 8 + high
			if r.left < n {
				return 0, ErrTruncated
			}
			if out == HistorySize {
				return 0, ErrOverflow
			}
			r.skip(n)
			d.history[out] = b
			out++
			continue
		}
		offset := r.offset()
		length := r.length()
		switch {
		case r.left < 0:
			return 0, ErrTruncated
		case length == 0:
			return 0, ErrLength
		case offset == 0 || offset >= HistorySize:
			return 0, ErrOffset
		case length > HistorySize-out:
			return 0, ErrOverflow
		}
		d.repeat(out, offset, length)
		out += length
	}
	return out, nil
}

// repeat copies length bytes from offset bytes back. The run may reach into what it writes itself, and before the front
// of the history, which is then what its end still holds from before the packet with AtFront.
func (d *Decompressor) repeat(out, offset, length int) {
	from := out - offset
	if from < 0 {
		for i := range length {
			d.history[out+i] = d.history[uint(from+i)%HistorySize]
		}
		return
	}
	to := out + length
	for out < to { // each round doubles what there is to repeat
		out += copy(d.history[out:to], d.history[from:out])
	}
}

// bitReader takes bits, most significant first. Taking more than there are gives zeros and makes left negative.
type bitReader struct {
	src  []byte // not loaded yet
	word uint64 // the next bits from the top down
	n    int    // bits of word that are valid
	left int    // bits not taken yet, here and in src
}

func (r *bitReader) fill() {
	if len(r.src) >= 8 {
		r.word |= binary.BigEndian.Uint64(r.src) >> r.n
		loaded := (63 - r.n) / 8
		r.src = r.src[loaded:]
		r.n += 8 * loaded
		return
	}
	for r.n <= 56 && len(r.src) > 0 {
		r.word |= uint64(r.src[0]) << (56 - r.n)
		r.src = r.src[1:]
		r.n += 8
	}
}

func (r *bitReader) skip(n int) {
	r.word <<= n
	r.n -= n
	r.left -= n
}

// offset reads what follows the two ones of a copy (RFC 2118 section 4.2.1).
func (r *bitReader) offset() int {
	switch r.word >> 60 & 3 {
	case 3: // 1111
		o := int(r.word >> 54 & 0x3f)
		r.skip(10)
		return o
	case 2: // 1110
		o := int(r.word>>52&0xff) + 64
		r.skip(12)
		return o
	default: // 110
		o := int(r.word>>48&0x1fff) + 320
		r.skip(16)
		return o
	}
}

// length reads that of a copy (RFC 2118 section 4.2.2); 0 if there is no such code.
func (r *bitReader) length() int {
	ones := bits.LeadingZeros64(^r.word)
	switch {
	case ones == 0:
		r.skip(1)
		return minMatch
	case ones > 11:
		return 0
	}
	k := ones + 1
	l := 1<<k | int(r.word<<k>>(64-k))
	r.skip(2 * k)
	return l
}
