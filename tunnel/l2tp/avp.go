package l2tp

import (
	"encoding/binary"
	"errors"
)

const (
	avpHeaderSize  = 6
	maxAVPSize     = 1023 // the length field has 10 bits
	maxAVPValue    = maxAVPSize - avpHeaderSize
	avpMandatory   = 0x8000
	avpHidden      = 0x4000
	avpReserved    = 0x3c00
	avpLengthMask  = 0x03ff
	vendorIETF     = 0
	resultTextSize = 256 // bytes of error text we send
)

var (
	errAVPShort  = errors.New("l2tp: message ends within an AVP header")
	errAVPLength = errors.New("l2tp: AVP length does not fit the message")
)

// An avp is one Attribute Value Pair as it stands on the wire (RFC 2661 section 4.1).
type avp struct {
	mandatory bool // M
	hidden    bool // H
	reserved  bool // a reserved bit was set: the AVP counts as unrecognised
	vendor    uint16
	attribute attribute
	value     []byte // aliases the message; still hidden if H is set
}

// parseAVP takes the first AVP off b. On an error, a.mandatory tells what M was, as far as it could be read: it decides whether the
// error can be survived.
func parseAVP(b []byte) (a avp, rest []byte, err error) {
	if len(b) > 0 {
		a.mandatory = b[0]&0x80 != 0
	}
	if len(b) < avpHeaderSize {
		return a, nil, errAVPShort
	}
	flags := binary.BigEndian.Uint16(b)
	a.hidden = flags&avpHidden != 0
	a.reserved = flags&avpReserved != 0
	a.vendor = binary.BigEndian.Uint16(b[2:])
	a.attribute = attribute(binary.BigEndian.Uint16(b[4:]))
	length := int(flags & avpLengthMask)
	if length < avpHeaderSize || length > len(b) {
		return a, nil, errAVPLength
	}
	a.value = b[avpHeaderSize:length]
	return a, b[length:], nil
}

// appendAVP appends a as it stands; a value too long for the length field is cut to maxAVPValue bytes.
func appendAVP(dst []byte, a avp) []byte {
	value := a.value[:min(len(a.value), maxAVPValue)]
	flags := uint16(avpHeaderSize + len(value))
	if a.mandatory {
		flags |= avpMandatory
	}
	if a.hidden {
		flags |= avpHidden
	}
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = binary.BigEndian.AppendUint16(dst, a.vendor)
	dst = binary.BigEndian.AppendUint16(dst, uint16(a.attribute))
	return append(dst, value...)
}
