package mppc

import "encoding/binary"

// HeaderLen is the length in bytes of the header that follows the protocol number 00FD.
const HeaderLen = 2

// Header is the two bytes in front of the data of a compressed or encrypted packet: four flags and the coherency count
// (RFC 2118 section 3.1; RFC 3078 section 3.1 uses the same layout for MPPE).
type Header uint16

const (
	Flushed    Header = 0x8000 // bit A: history (and cipher) were set up anew before this packet
	AtFront    Header = 0x4000 // bit B: the packet was put at the front of the history
	Compressed Header = 0x2000 // bit C
	Encrypted  Header = 0x1000 // bit D

	// CountMask covers the coherency count, which goes from 0 to 4095 and round again.
	CountMask Header = 0x0fff
)

// Has reports whether all of the flags are set.
func (h Header) Has(flags Header) bool { return h&flags == flags }

// Count is the coherency count, 0 to 4095.
func (h Header) Count() uint16 { return uint16(h & CountMask) }

// Put writes the header to the first HeaderLen bytes of b.
func (h Header) Put(b []byte) { binary.BigEndian.PutUint16(b, uint16(h)) }

// ParseHeader reads the header at the start of b, which must hold HeaderLen bytes.
func ParseHeader(b []byte) Header { return Header(binary.BigEndian.Uint16(b)) }
