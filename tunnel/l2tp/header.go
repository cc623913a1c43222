package l2tp

import (
	"encoding/binary"
	"errors"
)

// Port is the UDP port on which an LNS listens (RFC 2661 section 8.1).
const Port = 1701

// Bits of the first two header bytes (RFC 2661 section 3.1).
const (
	bitType     = 0x8000
	bitLength   = 0x4000
	bitSequence = 0x0800
	bitOffset   = 0x0200
	maskVersion = 0x000f
	version2    = 0x0002
)

const (
	controlHeaderSize = 12
	maxHeaderSize     = 12 // of a data message as we send it: L and S set, no offset
)

// Why a header was refused.
var (
	errHeaderShort   = errors.New("l2tp: datagram ends within the header")
	errHeaderVersion = errors.New("l2tp: header is not of version 2")
	errHeaderControl = errors.New("l2tp: control header without length and sequence, or with an offset")
	errHeaderLength  = errors.New("l2tp: header length does not fit the datagram")
)

// A header is the L2TP header of a control or data message (RFC 2661 section 3.1). The IDs are always those that the receiver of the
// message assigned.
type header struct {
	control   bool
	length    bool // L: the length field is there; always so in control messages
	sequenced bool // S: Ns and Nr are there; always so in control messages
	tunnelID  uint16
	sessionID uint16
	ns, nr    uint16 // Nr is reserved in data messages
}

// parseHeader splits a datagram into its header and the rest, which aliases it. Bytes past the length field are cut off, the offset
// pad is skipped. It allocates nothing.
func parseHeader(datagram []byte) (h header, payload []byte, err error) {
	if len(datagram) < 6 {
		return h, nil, errHeaderShort
	}
	flags := binary.BigEndian.Uint16(datagram)
	if flags&maskVersion != version2 {
		return h, nil, errHeaderVersion
	}
	h.control = flags&bitType != 0
	h.length = flags&bitLength != 0
	h.sequenced = flags&bitSequence != 0
	if h.control && (!h.length || !h.sequenced || flags&bitOffset != 0) {
		return h, nil, errHeaderControl
	}
	rest := datagram[2:]
	if h.length {
		length := int(binary.BigEndian.Uint16(rest))
		if length > len(datagram) || length < h.size() {
			return h, nil, errHeaderLength
		}
		rest = datagram[4:length]
	}
	if len(rest) < 4 {
		return h, nil, errHeaderShort
	}
	h.tunnelID = binary.BigEndian.Uint16(rest)
	h.sessionID = binary.BigEndian.Uint16(rest[2:])
	rest = rest[4:]
	if h.sequenced {
		if len(rest) < 4 {
			return h, nil, errHeaderShort
		}
		h.ns = binary.BigEndian.Uint16(rest)
		h.nr = binary.BigEndian.Uint16(rest[2:])
		rest = rest[4:]
	}
	if flags&bitOffset != 0 {
		if len(rest) < 2 {
			return h, nil, errHeaderShort
		}
		pad := int(binary.BigEndian.Uint16(rest))
		if len(rest)-2 < pad {
			return h, nil, errHeaderShort
		}
		rest = rest[2+pad:]
	}
	return h, rest, nil
}

// size is the length of the header in bytes as appendHeader writes it.
func (h header) size() int {
	n := 6
	if h.length {
		n += 2
	}
	if h.sequenced {
		n += 4
	}
	return n
}

// appendHeader appends the header of a message with payloadLen bytes behind it. With h.length set, h.size() + payloadLen must not
// exceed 65535.
func appendHeader(dst []byte, h header, payloadLen int) []byte {
	flags := uint16(version2)
	if h.control {
		flags |= bitType
	}
	if h.length {
		flags |= bitLength
	}
	if h.sequenced {
		flags |= bitSequence
	}
	dst = binary.BigEndian.AppendUint16(dst, flags)
	if h.length {
		dst = binary.BigEndian.AppendUint16(dst, uint16(h.size()+payloadLen))
	}
	dst = binary.BigEndian.AppendUint16(dst, h.tunnelID)
	dst = binary.BigEndian.AppendUint16(dst, h.sessionID)
	if h.sequenced {
		dst = binary.BigEndian.AppendUint16(dst, h.ns)
		dst = binary.BigEndian.AppendUint16(dst, h.nr)
	}
	return dst
}
