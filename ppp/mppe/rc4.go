package mppe

import "encoding/binary"

// rc4 is the stream cipher of RFC 3078 section 6. The standard library allocates a state for every key, and stateless
// mode needs two keys per packet; this one is set up in place.
//
// Both loops load the next word of the table before they swap the current two, so that the processor need not wait for
// the stores; when the swap hit that very word (j == i), the loaded value is put right. That alone doubles the speed.
type rc4 struct {
	s    [256]uint32 // a permutation of 0..255; as words it is faster than as bytes
	i, j uint8
}

// identity is where every key schedule begins.
var identity = func() (s [256]uint32) {
	for i := range s {
		s[i] = uint32(i)
	}
	return s
}()

// setKey runs the key schedule. An 8-byte key is passed twice over: the schedule repeats the key anyway.
func (c *rc4) setKey(key *[16]byte) {
	c.s = identity
	s, i, j := &c.s, uint8(0), uint8(0)
	x := s[0]
	for range 256 / len(key) {
		for _, k := range key {
			next := s[i+1]
			j += uint8(x) + k
			y := s[j]
			s[j], s[i] = x, y
			if i++; j == i {
				next = x
			}
			x = next
		}
	}
	c.i, c.j = 0, 0
}

// xor encrypts or decrypts b in place and moves the keystream on by len(b) bytes.
func (c *rc4) xor(b []byte) {
	s, i, j := &c.s, c.i+1, c.j
	x := s[i]
	for len(b) >= 8 {
		var k uint64
		for range 8 {
			next := s[i+1]
			j += uint8(x)
			y := s[j]
			s[j], s[i] = x, y
			if i++; j == i {
				next = x
			}
			k = k>>8 | uint64(s[uint8(x+y)])<<56
			x = next
		}
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for n := range b {
		x = s[i]
		j += uint8(x)
		y := s[j]
		s[j], s[i] = x, y
		b[n] ^= byte(s[uint8(x+y)])
		i++
	}
	c.i, c.j = i-1, j
}
