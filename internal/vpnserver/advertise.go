package vpnserver

import (
	"encoding/binary"
	"net/netip"
)

// Router discovery (RFC 4861), as much as a point-to-point link needs: a client
// that solicits gets an advertisement with its own prefix.
const (
	ipv6HeaderSize     = 40
	protocolICMPv6     = 58
	routerSolicitation = 133
	routerAdvert       = 134

	advertisedLifetime = 1800 // of the default route, in seconds
	prefixLifetime     = 86400
)

// isSolicitation reports whether an IPv6 packet is a Router Solicitation with
// the hop limit that keeps strangers out (RFC 4861 section 6.1.1).
func isSolicitation(packet []byte) bool {
	return len(packet) >= ipv6HeaderSize+8 && packet[0]>>4 == 6 && packet[6] == protocolICMPv6 &&
		packet[7] == 255 && packet[ipv6HeaderSize] == routerSolicitation
}

// appendAdvertisement appends a Router Advertisement (RFC 4861 section 4.2) for
// a prefix that the client makes its address from (RFC 4862), as an IPv6 packet.
func appendAdvertisement(dst []byte, from netip.Addr, prefix netip.Prefix, mtu int) []byte {
	start := len(dst)
	dst = append(dst, 0x60, 0, 0, 0, 0, 0, protocolICMPv6, 255)
	dst = append(dst, from.AsSlice()...)
	dst = append(dst, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) // all nodes
	body := len(dst)
	dst = append(dst, routerAdvert, 0, 0, 0, 64 /* hop limit */, 0 /* no DHCPv6 */)
	dst = binary.BigEndian.AppendUint16(dst, advertisedLifetime)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0) // reachable time, retransmission timer: unspecified
	// Prefix Information (section 4.6.2): on-link, autonomous
	dst = append(dst, 3, 4, byte(prefix.Bits()), 0xc0)
	dst = binary.BigEndian.AppendUint32(dst, prefixLifetime)
	dst = binary.BigEndian.AppendUint32(dst, prefixLifetime)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, prefix.Addr().AsSlice()...)
	// MTU (section 4.6.4)
	dst = append(dst, 5, 1, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(mtu))

	packet := dst[start:]
	binary.BigEndian.PutUint16(packet[4:], uint16(len(dst)-body))
	binary.BigEndian.PutUint16(dst[body+2:], icmpv6Checksum(packet))
	return dst
}

// icmpv6Checksum is the checksum over the pseudo-header and the message (RFC
// 4443 section 2.3) of a packet whose checksum field is zero.
func icmpv6Checksum(packet []byte) uint16 {
	sum := uint32(len(packet)-ipv6HeaderSize) + protocolICMPv6
	for b := packet[8:]; len(b) > 0; b = b[2:] { // the length is even
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
