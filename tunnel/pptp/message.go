package pptp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Port is the TCP port on which a PAC listens (RFC 2637 section 3.1).
const Port = 1723

// The header of a control message (RFC 2637 section 2): length, PPTP message type, magic cookie, control message type, reserved.
const (
	headerSize         = 12
	pptpControl        = 1          // PPTP message type of control messages; 2, management, is not used
	magicCookie        = 0x1a2b3c4d // what tells that the stream is still in step
	maxMessage         = 1024       // bytes; the longest that RFC 2637 knows has 220
	protocolVersionOne = 0x0100
)

// A MessageType is the Control Message Type of a message (RFC 2637 section 2).
type MessageType uint16

const (
	msgSCCRQ MessageType = iota + 1
	msgSCCRP
	msgStopCCRQ
	msgStopCCRP
	msgEchoRequest
	msgEchoReply
	msgOCRQ
	msgOCRP
	msgICRQ
	msgICRP
	msgICCN
	msgCallClear
	msgCallDisconnect
	msgWANError
	msgSetLinkInfo
)

// String is the message's name in RFC 2637.
func (t MessageType) String() string {
	if int(t) < len(layouts) && layouts[t].name != "" {
		return layouts[t].name
	}
	return fmt.Sprintf("message of type %d", uint16(t))
}

// A field is a field of a control message, by its meaning: the same one may stand at different offsets in different messages.
type field uint8

const (
	reserved field = iota
	fieldVersion
	fieldResult // or the reason of a Stop-Control-Connection-Request
	fieldError
	fieldFramingCapabilities
	fieldBearerCapabilities
	fieldMaximumChannels
	fieldFirmware
	fieldHostName
	fieldVendor
	fieldIdentifier
	fieldCallID     // assigned by the message's sender
	fieldPeerCallID // assigned by the message's receiver
	fieldSerial
	fieldMinimumBPS
	fieldMaximumBPS
	fieldBearerType
	fieldFramingType
	fieldWindow // of the sender of the message, in packets
	fieldDelay  // in tenths of a second
	fieldPhoneLength
	fieldPhone
	fieldSubaddress
	fieldCause // of Q.931
	fieldSpeed
	fieldChannel
	fieldDialingLength
	fieldDialing
	fieldStatistics
	fieldCRCErrors
	fieldFramingErrors
	fieldHardwareOverruns
	fieldBufferOverruns
	fieldTimeoutErrors
	fieldAlignmentErrors
	fieldSendACCM
	fieldReceiveACCM
)

// A slot is one field of a layout: numbers have 1, 2 or 4 bytes, texts and statistics 64 or 128.
type slot struct {
	field field
	size  int
}

// layouts are the figures of RFC 2637 sections 2.1 to 2.15, from behind the header on.
var layouts = [...]struct {
	name  string
	slots []slot
}{
	msgSCCRQ: {"Start-Control-Connection-Request", []slot{{fieldVersion, 2}, {reserved, 2}, {fieldFramingCapabilities, 4},
		{fieldBearerCapabilities, 4}, {fieldMaximumChannels, 2}, {fieldFirmware, 2}, {fieldHostName, 64}, {fieldVendor, 64}}},
	msgSCCRP: {"Start-Control-Connection-Reply", []slot{{fieldVersion, 2}, {fieldResult, 1}, {fieldError, 1}, {fieldFramingCapabilities, 4},
		{fieldBearerCapabilities, 4}, {fieldMaximumChannels, 2}, {fieldFirmware, 2}, {fieldHostName, 64}, {fieldVendor, 64}}},
	msgStopCCRQ:    {"Stop-Control-Connection-Request", []slot{{fieldResult, 1}, {reserved, 1}, {reserved, 2}}},
	msgStopCCRP:    {"Stop-Control-Connection-Reply", []slot{{fieldResult, 1}, {fieldError, 1}, {reserved, 2}}},
	msgEchoRequest: {"Echo-Request", []slot{{fieldIdentifier, 4}}},
	msgEchoReply:   {"Echo-Reply", []slot{{fieldIdentifier, 4}, {fieldResult, 1}, {fieldError, 1}, {reserved, 2}}},
	msgOCRQ: {"Outgoing-Call-Request", []slot{{fieldCallID, 2}, {fieldSerial, 2}, {fieldMinimumBPS, 4}, {fieldMaximumBPS, 4},
		{fieldBearerType, 4}, {fieldFramingType, 4}, {fieldWindow, 2}, {fieldDelay, 2}, {fieldPhoneLength, 2}, {reserved, 2},
		{fieldPhone, 64}, {fieldSubaddress, 64}}},
	msgOCRP: {"Outgoing-Call-Reply", []slot{{fieldCallID, 2}, {fieldPeerCallID, 2}, {fieldResult, 1}, {fieldError, 1}, {fieldCause, 2},
		{fieldSpeed, 4}, {fieldWindow, 2}, {fieldDelay, 2}, {fieldChannel, 4}}},
	msgICRQ: {"Incoming-Call-Request", []slot{{fieldCallID, 2}, {fieldSerial, 2}, {fieldBearerType, 4}, {fieldChannel, 4},
		{fieldPhoneLength, 2}, {fieldDialingLength, 2}, {fieldPhone, 64}, {fieldDialing, 64}, {fieldSubaddress, 64}}},
	msgICRP: {"Incoming-Call-Reply", []slot{{fieldCallID, 2}, {fieldPeerCallID, 2}, {fieldResult, 1}, {fieldError, 1}, {fieldWindow, 2},
		{fieldDelay, 2}, {reserved, 2}}},
	msgICCN: {"Incoming-Call-Connected", []slot{{fieldPeerCallID, 2}, {reserved, 2}, {fieldSpeed, 4}, {fieldWindow, 2}, {fieldDelay, 2},
		{fieldFramingType, 4}}},
	msgCallClear: {"Call-Clear-Request", []slot{{fieldCallID, 2}, {reserved, 2}}},
	msgCallDisconnect: {"Call-Disconnect-Notify", []slot{{fieldCallID, 2}, {fieldResult, 1}, {fieldError, 1}, {fieldCause, 2}, {reserved, 2},
		{fieldStatistics, 128}}},
	msgWANError: {"WAN-Error-Notify", []slot{{fieldPeerCallID, 2}, {reserved, 2}, {fieldCRCErrors, 4}, {fieldFramingErrors, 4},
		{fieldHardwareOverruns, 4}, {fieldBufferOverruns, 4}, {fieldTimeoutErrors, 4}, {fieldAlignmentErrors, 4}}},
	msgSetLinkInfo: {"Set-Link-Info", []slot{{fieldPeerCallID, 2}, {reserved, 2}, {fieldSendACCM, 4}, {fieldReceiveACCM, 4}}},
}

// Why the control stream cannot be read on. RFC 2637 section 2.1 has the connection closed then: there is no way to find the next message.
var (
	errMagic       = errors.New("bad magic cookie")
	errLengthShort = errors.New("message is shorter than its type needs")
	errLengthLong  = errors.New("message is too long")
)

// A message is a control message. Its body is what follows the header, and as long as its layout at least.
type message struct {
	kind MessageType
	body []byte
}

// newMessage makes a message of zeros.
func newMessage(kind MessageType) message { return message{kind, make([]byte, kind.bodySize())} }

// bodySize is the least length in bytes of the body; 0 for types that RFC 2637 does not know.
func (t MessageType) bodySize() (n int) {
	if int(t) < len(layouts) {
		for _, s := range layouts[t].slots {
			n += s.size
		}
	}
	return n
}

// at is where a field stands in the body. It is empty if the message has no such field.
func (m message) at(f field) []byte {
	offset := 0
	for _, s := range layouts[m.kind].slots {
		if s.field == f {
			return m.body[offset : offset+s.size]
		}
		offset += s.size
	}
	return nil
}

// number reads a field of 1, 2 or 4 bytes.
func (m message) number(f field) (v uint32) {
	for _, b := range m.at(f) {
		v = v<<8 | uint32(b)
	}
	return v
}

// callID reads one of the two Call IDs.
func (m message) callID(f field) uint16 { return uint16(m.number(f)) }

// set writes a field of 1, 2 or 4 bytes.
func (m message) set(f field, v uint32) {
	b := m.at(f)
	for i := range b {
		b[i] = byte(v >> (8 * (len(b) - 1 - i)))
	}
}

// setText writes a text, cut to the field, which is filled up with zeros.
func (m message) setText(f field, text string) { copy(m.at(f), text) }

// text reads a text up to its first zero: bounded, valid UTF-8, without control characters.
func (m message) text(f field) string {
	text, _, _ := strings.Cut(string(m.at(f)), "\x00")
	return readable(text)
}

// appendMessage appends the message with its header.
func appendMessage(dst []byte, m message) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(headerSize+len(m.body)))
	dst = binary.BigEndian.AppendUint16(dst, pptpControl)
	dst = binary.BigEndian.AppendUint32(dst, magicCookie)
	dst = binary.BigEndian.AppendUint16(dst, uint16(m.kind))
	dst = binary.BigEndian.AppendUint16(dst, 0)
	return append(dst, m.body...)
}

// parseMessage reads the first message of a control stream. size is how many bytes of the stream it took; 0 means that more bytes are
// needed. What it returns aliases stream. A message of a type that RFC 2637 does not know has kind 0; an error ends the stream.
func parseMessage(stream []byte) (m message, size int, err error) {
	if len(stream) < 8 {
		return m, 0, nil
	}
	if binary.BigEndian.Uint32(stream[4:]) != magicCookie {
		return m, 0, errMagic
	}
	size = int(binary.BigEndian.Uint16(stream))
	switch {
	case size < headerSize:
		return m, 0, errLengthShort
	case size > maxMessage:
		return m, 0, errLengthLong
	case len(stream) < size:
		return m, 0, nil
	}
	kind := MessageType(binary.BigEndian.Uint16(stream[8:]))
	need := kind.bodySize()
	if need == 0 || binary.BigEndian.Uint16(stream[2:]) != pptpControl {
		return m, size, nil
	}
	// A longer message is one of a later version, whose fields we know stand where they stood.
	if size < headerSize+need {
		return m, 0, fmt.Errorf("%v: %w", kind, errLengthShort)
	}
	return message{kind, stream[headerSize:size]}, size, nil
}
