package ppp

import (
	"encoding/binary"
	"errors"
)

// PPP protocol numbers (RFC 1661 section 2; www.iana.org/assignments/ppp-numbers).
const (
	protocolIPv4       uint16 = 0x0021
	protocolIPv6       uint16 = 0x0057
	protocolCompressed uint16 = 0x00fd // one compressed or encrypted packet (RFC 1962 section 4)
	protocolIPCP       uint16 = 0x8021
	protocolIPV6CP     uint16 = 0x8057
	protocolCCP        uint16 = 0x80fd
	protocolLCP        uint16 = 0xc021
)

// The address and control octets of RFC 1662 section 3.1, "all stations" and "unnumbered information".
const (
	addressAllStations = 0xff
	controlUI          = 0x03
)

// frameHeader is the length in bytes of an uncompressed frame header: address, control, protocol.
const frameHeader = 4

var (
	errShortFrame  = errors.New("ppp: frame ends before its protocol field")
	errBadProtocol = errors.New("ppp: invalid protocol field")
	errShortPacket = errors.New("ppp: control packet shorter than its header")
	errBadLength   = errors.New("ppp: control packet length out of range")
)

// parseFrame splits a frame into protocol and information. Address and control octets and the first octet of the
// protocol may be missing whether or not their compression was agreed upon: it is not ambiguous (RFC 1661 sections
// 6.5 and 6.6). The information is a slice of frame.
func parseFrame(frame []byte) (protocol uint16, information []byte, err error) {
	if len(frame) >= 2 && frame[0] == addressAllStations && frame[1] == controlUI {
		frame = frame[2:]
	}
	return parseProtocol(frame)
}

// parseProtocol splits a protocol field of one or two octets from what follows it. The last octet of the field is odd,
// the one before it even (RFC 1661 section 2).
func parseProtocol(b []byte) (protocol uint16, information []byte, err error) {
	switch {
	case len(b) == 0:
		return 0, nil, errShortFrame
	case b[0] == 0xff: // never a compressed protocol: it would look like an address (RFC 1661 section 6.6)
		return 0, nil, errBadProtocol
	case b[0]&1 == 1:
		return uint16(b[0]), b[1:], nil
	case len(b) == 1:
		return 0, nil, errShortFrame
	case b[1]&1 == 0:
		return 0, nil, errBadProtocol
	}
	return binary.BigEndian.Uint16(b), b[2:], nil
}

// appendFrame appends an uncompressed frame.
func appendFrame(dst []byte, protocol uint16, information []byte) []byte {
	dst = append(dst, addressAllStations, controlUI, byte(protocol>>8), byte(protocol))
	return append(dst, information...)
}

// Codes of control packets (RFC 1661 section 5; 12 and 13: RFC 1570 section 1; 14 and 15: RFC 1962 section 3).
const (
	codeConfigureRequest uint8 = 1
	codeConfigureAck     uint8 = 2
	codeConfigureNak     uint8 = 3
	codeConfigureReject  uint8 = 4
	codeTerminateRequest uint8 = 5
	codeTerminateAck     uint8 = 6
	codeCodeReject       uint8 = 7
	codeProtocolReject   uint8 = 8
	codeEchoRequest      uint8 = 9
	codeEchoReply        uint8 = 10
	codeDiscardRequest   uint8 = 11
	codeIdentification   uint8 = 12
	codeTimeRemaining    uint8 = 13
	codeResetRequest     uint8 = 14
	codeResetAck         uint8 = 15
)

// packetHeader is the length in bytes of code, identifier and length.
const packetHeader = 4

// A controlPacket is the information of an LCP or NCP frame (RFC 1661 section 5).
type controlPacket struct {
	code uint8
	id   uint8
	data []byte // a slice of the frame
}

// parseControlPacket reads a control packet. Octets beyond its length are padding; a length beyond the octets received
// is an error (RFC 1661 section 5).
func parseControlPacket(b []byte) (controlPacket, error) {
	if len(b) < packetHeader {
		return controlPacket{}, errShortPacket
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < packetHeader || length > len(b) {
		return controlPacket{}, errBadLength
	}
	return controlPacket{code: b[0], id: b[1], data: b[packetHeader:length]}, nil
}

// appendControlPacket appends p. Its data must be shorter than 65532 bytes.
func appendControlPacket(dst []byte, p controlPacket) []byte {
	dst = append(dst, p.code, p.id)
	dst = binary.BigEndian.AppendUint16(dst, uint16(packetHeader+len(p.data)))
	return append(dst, p.data...)
}
