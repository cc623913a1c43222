package pptp

import (
	"encoding/binary"
	"errors"
)

// Bits of the first two bytes of the enhanced GRE header (RFC 2637 section 4.1).
const (
	greChecksum       = 0x8000
	greRouting        = 0x4000
	greKey            = 0x2000
	greSequence       = 0x1000
	greStrictSource   = 0x0800
	greAcknowledgment = 0x0080
	greVersionMask    = 0x0007
	greVersion        = 0x0001
	// Recursion control and the reserved flags do not change the layout and are not looked at.

	greProtocol = 0x880b // PPP
)

const (
	greFixedSize = 8  // before sequence and acknowledgment number
	greMaxSize   = 16 // with both
)

// Why a GRE packet was refused.
var (
	errGREShort   = errors.New("pptp: packet ends within the GRE header")
	errGREKind    = errors.New("pptp: not an enhanced GRE packet")
	errGREPayload = errors.New("pptp: payload length does not fit the packet")
)

// A greHeader is the enhanced GRE header (RFC 2637 section 4.1). The Call ID is always the one that the packet's receiver assigned.
type greHeader struct {
	callID       uint16
	sequenced    bool // S: a payload follows
	acknowledges bool // A
	sequence     uint32
	ack          uint32 // the highest sequence number that its sender has received
}

// parseGRE splits a packet into its header and the PPP frame, which aliases it. A packet that only acknowledges has no frame. Bytes past
// the payload length are cut off. It allocates nothing.
func parseGRE(packet []byte) (h greHeader, frame []byte, err error) {
	if len(packet) < greFixedSize {
		return h, nil, errGREShort
	}
	flags := binary.BigEndian.Uint16(packet)
	const shape = greChecksum | greRouting | greKey | greStrictSource | greVersionMask
	if flags&shape != greKey|greVersion || binary.BigEndian.Uint16(packet[2:]) != greProtocol {
		return h, nil, errGREKind
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	h.callID = binary.BigEndian.Uint16(packet[6:])
	h.sequenced = flags&greSequence != 0
	h.acknowledges = flags&greAcknowledgment != 0
	if len(packet) < h.size() {
		return h, nil, errGREShort
	}
	rest := packet[greFixedSize:]
	if h.sequenced {
		h.sequence = binary.BigEndian.Uint32(rest)
		rest = rest[4:]
	}
	if h.acknowledges {
		h.ack = binary.BigEndian.Uint32(rest)
		rest = rest[4:]
	}
	// A sequence number is there if and only if a payload is.
	if length > len(rest) || h.sequenced != (length > 0) {
		return h, nil, errGREPayload
	}
	return h, rest[:length], nil
}

// size is the length of the header in bytes.
func (h greHeader) size() int {
	n := greFixedSize
	if h.sequenced {
		n += 4
	}
	if h.acknowledges {
		n += 4
	}
	return n
}

// appendGRE appends the header of a packet with length bytes of payload, at most 65535.
func appendGRE(dst []byte, h greHeader, length int) []byte {
	flags := uint16(greKey | greVersion)
	if h.sequenced {
		flags |= greSequence
	}
	if h.acknowledges {
		flags |= greAcknowledgment
	}
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = binary.BigEndian.AppendUint16(dst, greProtocol)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = binary.BigEndian.AppendUint16(dst, h.callID)
	if h.sequenced {
		dst = binary.BigEndian.AppendUint32(dst, h.sequence)
	}
	if h.acknowledges {
		dst = binary.BigEndian.AppendUint32(dst, h.ack)
	}
	return dst
}
