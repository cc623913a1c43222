package ipsec

import (
	"encoding/binary"
	"net/netip"
)

const (
	udpHeader = 8
	maxUDP    = 0xffff
)

// putUDPHeader fills in the header of packet, which begins with room for it, with a checksum of 0: none. Receivers do not look at it,
// since NATs make it wrong and ESP makes it needless (RFC 3948 section 3.1.2).
func putUDPHeader(packet []byte, from, to uint16) {
	binary.BigEndian.PutUint16(packet, from)
	binary.BigEndian.PutUint16(packet[2:], to)
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[6:], 0)
}

// parseUDP takes the header off. The packet may be longer than the header says (RFC 4303 section 2.7: padding for traffic flow
// confidentiality), and the checksum is not looked at.
func parseUDP(packet []byte) (from, to uint16, payload []byte, ok bool) {
	if len(packet) < udpHeader {
		return 0, 0, nil, false
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	if length < udpHeader || length > len(packet) {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(packet), binary.BigEndian.Uint16(packet[2:]), packet[udpHeader:length:length], true
}

// A pseudoHeader is the part of the checksum of UDP over IPv6 that does not change from packet to packet. There, unlike over IPv4, a
// checksum of 0 is not allowed (RFC 8200 section 8.1).
type pseudoHeader uint64

func newPseudoHeader(from, to netip.Addr) pseudoHeader {
	f, t := from.As16(), to.As16()
	return pseudoHeader(sum16(f[:]) + sum16(t[:]) + protocolUDP)
}

// putChecksum fills in the checksum of packet, the rest of whose header is there.
func (p pseudoHeader) putChecksum(packet []byte) {
	binary.BigEndian.PutUint16(packet[6:], 0)
	sum := fold(uint64(p) + uint64(len(packet)) + sum16(packet))
	if sum != 0xffff {
		sum = ^sum
	}
	binary.BigEndian.PutUint16(packet[6:], sum)
}

// sum16 adds the 16-bit words of b (RFC 1071), four at a time; the carries are in the upper half.
func sum16(b []byte) (sum uint64) {
	for ; len(b) >= 8; b = b[8:] {
		w := binary.BigEndian.Uint64(b)
		sum += w>>32 + w&0xffffffff
	}
	var rest [8]byte
	copy(rest[:], b)
	w := binary.BigEndian.Uint64(rest[:])
	return sum + w>>32 + w&0xffffffff
}

func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
