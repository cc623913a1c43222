package proxy

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Address types of RFC 1928 section 5.
const (
	addressIPv4 = 0x01
	addressName = 0x03
	addressIPv6 = 0x04
)

// maxUDPHeader is the length of the longest header we send: RSV, FRAG, ATYP,
// IPv6 address, port.
const maxUDPHeader = 2 + 1 + 1 + 16 + 2

// headerLength returns the length of the header of a datagram from addr.
func headerLength(addr netip.Addr) int {
	if addr.Is4() {
		return maxUDPHeader - 16 + 4
	}
	return maxUDPHeader
}

var (
	errUDPShort      = errors.New("proxy: datagram shorter than its header")
	errUDPReserved   = errors.New("proxy: reserved bytes of a datagram header are not zero")
	errUDPFragment   = errors.New("proxy: fragmented datagram")
	errUDPAddrType   = errors.New("proxy: unknown address type in a datagram header")
	errUDPTargetName = errors.New("proxy: bad name in a datagram header")
	errUDPTargetPort = errors.New("proxy: port 0 in a datagram header")
)

// A udpTarget is where a datagram goes: to a name, or else to an address.
type udpTarget struct {
	name []byte // of the parsed datagram; empty if addr says it
	addr netip.Addr
	port uint16
}

// parseUDPHeader splits a client's datagram (RFC 1928 section 7) into target
// and payload, both of which refer to datagram. Fragments are errors: an
// implementation without reassembly must drop them.
func parseUDPHeader(datagram []byte) (target udpTarget, payload []byte, err error) {
	if len(datagram) < 5 {
		return target, nil, errUDPShort
	}
	if datagram[0] != 0 || datagram[1] != 0 {
		return target, nil, errUDPReserved
	}
	if datagram[2] != 0 {
		return target, nil, errUDPFragment
	}
	rest := datagram[4:]
	length := 0
	switch datagram[3] {
	case addressIPv4:
		length = 4
	case addressIPv6:
		length = 16
	case addressName:
		length, rest = int(rest[0]), rest[1:]
	default:
		return target, nil, errUDPAddrType
	}
	if len(rest) < length+2 {
		return target, nil, errUDPShort
	}
	if datagram[3] == addressName {
		target.name = rest[:length]
		if !validName(string(target.name)) {
			return target, nil, errUDPTargetName
		}
	} else {
		target.addr, _ = netip.AddrFromSlice(rest[:length])
		target.addr = target.addr.Unmap()
	}
	target.port = binary.BigEndian.Uint16(rest[length:])
	if target.port == 0 {
		return target, nil, errUDPTargetPort
	}
	return target, rest[length+2:], nil
}

// appendUDPHeader appends the header of a datagram to or from target.
func appendUDPHeader(dst []byte, target udpTarget) []byte {
	dst = append(dst, 0, 0, 0)
	if len(target.name) > 0 {
		dst = append(dst, addressName, byte(len(target.name)))
		dst = append(dst, target.name...)
		return binary.BigEndian.AppendUint16(dst, target.port)
	}
	return appendAddress(dst, netip.AddrPortFrom(target.addr, target.port))
}
