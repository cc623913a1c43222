package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
)

const (
	headerSize        = 28
	payloadHeaderSize = 4
	version1          = 0x10 // major 1, minor 0
	maxPayloads       = 64   // in one message; certificates and Vendor IDs need some twenty
	maxMessageSize    = 1 << 16
)

// A cookie is one half of what names an ISAKMP SA (RFC 2408 section 2.5.3).
type cookie [8]byte

// An exchangeType says what a message belongs to (RFC 2408 section 3.1, RFC 2409 appendix A).
type exchangeType uint8

const (
	mainMode       exchangeType = 2 // Identity Protection
	aggressiveMode exchangeType = 4
	informational  exchangeType = 5
	transaction    exchangeType = 6 // XAuth and Mode Config, which L2TP does not use
	quickModeType  exchangeType = 32
)

// Flags of the header (RFC 2408 section 3.1).
const flagEncrypted = 1

// A payloadType names a payload (RFC 2408 section 3.1, RFC 3947 section 3.2).
type payloadType uint8

const (
	payloadNone      payloadType = 0
	payloadSA        payloadType = 1
	payloadProposal  payloadType = 2
	payloadTransform payloadType = 3
	payloadKE        payloadType = 4
	payloadID        payloadType = 5
	payloadCert      payloadType = 6
	payloadCertReq   payloadType = 7
	payloadHash      payloadType = 8
	payloadSig       payloadType = 9
	payloadNonce     payloadType = 10
	payloadNotify    payloadType = 11
	payloadDelete    payloadType = 12
	payloadVendorID  payloadType = 13
	payloadFragment  payloadType = 132 // of Microsoft and Cisco
)

// Why a message was refused.
var (
	errShort       = errors.New("ike: message ends within its header")
	errVersion     = errors.New("ike: message is not of version 1")
	errLength      = errors.New("ike: length does not fit the datagram")
	errCookie      = errors.New("ike: initiator cookie is zero")
	errChain       = errors.New("ike: payloads do not fit the message")
	errReserved    = errors.New("ike: reserved field is not zero")
	errTooMany     = errors.New("ike: too many payloads")
	errPayload     = errors.New("ike: malformed payload")
	errMissing     = errors.New("ike: a payload is missing")
	errUnexpected  = errors.New("ike: message in the wrong state")
	errUnencrypted = errors.New("ike: message must be encrypted")
	errCipher      = errors.New("ike: ciphertext is no multiple of the block size")
	errHash        = errors.New("ike: hash does not match")
)

// A header is the ISAKMP header (RFC 2408 section 3.1).
type header struct {
	initiator, responder cookie
	next                 payloadType
	exchange             exchangeType
	flags                uint8
	id                   uint32 // message ID; 0 in phase 1
}

// parseHeader splits a message into its header and the rest, which aliases it. Bytes past the length field are cut off. With errVersion
// the header is filled in all the same.
func parseHeader(b []byte) (h header, body []byte, err error) {
	if len(b) < headerSize {
		return h, nil, errShort
	}
	copy(h.initiator[:], b)
	copy(h.responder[:], b[8:])
	h.next = payloadType(b[16])
	h.exchange = exchangeType(b[18])
	h.flags = b[19]
	h.id = binary.BigEndian.Uint32(b[20:])
	if b[17]>>4 != version1>>4 {
		return h, nil, errVersion
	}
	length := binary.BigEndian.Uint32(b[24:])
	if length < headerSize || uint64(length) > uint64(len(b)) {
		return h, nil, errLength
	}
	if h.initiator == (cookie{}) {
		return h, nil, errCookie
	}
	return h, b[headerSize:length], nil
}

// A payload is one payload of a message without its generic header.
type payload struct {
	kind payloadType
	body []byte
}

// parsePayloads cuts a chain of payloads that begins with one of type first. The bodies alias b. rest are the bytes after the chain:
// the padding of an encrypted message.
func parsePayloads(first payloadType, b []byte) (payloads []payload, rest []byte, err error) {
	for kind := first; kind != payloadNone; {
		if len(b) < payloadHeaderSize {
			return nil, nil, errChain
		}
		next, length := payloadType(b[0]), int(binary.BigEndian.Uint16(b[2:]))
		if b[1] != 0 {
			return nil, nil, errReserved // RFC 2408 section 5.3
		}
		if length < payloadHeaderSize || length > len(b) {
			return nil, nil, errChain
		}
		if len(payloads) == maxPayloads {
			return nil, nil, errTooMany
		}
		payloads = append(payloads, payload{kind, b[payloadHeaderSize:length:length]})
		kind, b = next, b[length:]
	}
	return payloads, b, nil
}

// A message is one that has been decrypted and cut into payloads.
type message struct {
	header
	payloads []payload
	chain    []byte // all payloads with their headers, without padding
}

func parseMessage(h header, body []byte) (*message, error) {
	payloads, rest, err := parsePayloads(h.next, body)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 && h.flags&flagEncrypted == 0 {
		return nil, errChain
	}
	return &message{header: h, payloads: payloads, chain: body[:len(body)-len(rest)]}, nil
}

// all returns the bodies of the payloads of one type, in order.
func (m *message) all(kind payloadType) (bodies [][]byte) {
	for _, p := range m.payloads {
		if p.kind == kind {
			bodies = append(bodies, p.body)
		}
	}
	return bodies
}

// one returns the body of the only payload of a type; nil if there is none or more than one.
func (m *message) one(kind payloadType) []byte {
	if bodies := m.all(kind); len(bodies) == 1 {
		return bodies[0]
	}
	return nil
}

// A composer puts a message together: the header, payloads, then their sum.
type composer struct {
	b    []byte
	next int // where the type of the payload to come is written
}

func compose(h header) *composer {
	b := make([]byte, 0, 512)
	b = append(b, h.initiator[:]...)
	b = append(b, h.responder[:]...)
	b = append(b, byte(payloadNone), version1, byte(h.exchange), h.flags)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return &composer{b: append(b, 0, 0, 0, 0), next: 16}
}

// add appends a payload whose body is the parts in a row, and returns where the body begins.
func (c *composer) add(kind payloadType, parts ...[]byte) int {
	c.b[c.next] = byte(kind)
	c.next = len(c.b)
	size := payloadHeaderSize
	for _, p := range parts {
		size += len(p)
	}
	c.b = append(c.b, byte(payloadNone), 0)
	c.b = binary.BigEndian.AppendUint16(c.b, uint16(size))
	body := len(c.b)
	for _, p := range parts {
		c.b = append(c.b, p...)
	}
	return body
}

// finish fills in the length and returns the message.
func (c *composer) finish() []byte {
	binary.BigEndian.PutUint32(c.b[24:], uint32(len(c.b)))
	return c.b
}

// A notification is the body of a Notification payload (RFC 2408 section 3.14) of the IPsec DOI.
type notification struct {
	protocol uint8
	spi      []byte
	kind     notifyType
	data     []byte
}

const (
	doiIPsec          = 1
	situationIdentity = 1 // SIT_IDENTITY_ONLY, RFC 2407 section 4.2.1
	protocolISAKMP    = 1
	protocolESP       = 3
	spiSizeESP        = 4
	spiSizeISAKMP     = 16 // both cookies
)

func appendNotification(dst []byte, n notification) []byte {
	dst = binary.BigEndian.AppendUint32(dst, doiIPsec)
	dst = append(dst, n.protocol, byte(len(n.spi)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n.kind))
	dst = append(dst, n.spi...)
	return append(dst, n.data...)
}

// parseNotification reads a Notification payload; its slices alias b. The DOI may be 0, as some peers write in phase 1.
func parseNotification(b []byte) (n notification, err error) {
	if len(b) < 8 || binary.BigEndian.Uint32(b) > doiIPsec || 8+int(b[5]) > len(b) {
		return n, errPayload
	}
	spi := 8 + int(b[5])
	return notification{b[4], b[8:spi], notifyType(binary.BigEndian.Uint16(b[6:])), b[spi:]}, nil
}

// A deletion is the body of a Delete payload (RFC 2408 section 3.15).
type deletion struct {
	protocol uint8
	spis     [][]byte // all of one size
}

func appendDeletion(dst []byte, d deletion) []byte {
	dst = binary.BigEndian.AppendUint32(dst, doiIPsec)
	size := 0
	if len(d.spis) > 0 {
		size = len(d.spis[0])
	}
	dst = append(dst, d.protocol, byte(size))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(d.spis)))
	return append(dst, bytes.Join(d.spis, nil)...)
}

// parseDeletion reads a Delete payload; its slices alias b.
func parseDeletion(b []byte) (d deletion, err error) {
	if len(b) < 8 || binary.BigEndian.Uint32(b) > doiIPsec {
		return d, errPayload
	}
	size, count := int(b[5]), int(binary.BigEndian.Uint16(b[6:]))
	if size == 0 || 8+size*count != len(b) {
		return d, errPayload
	}
	d.protocol = b[4]
	for b = b[8:]; len(b) > 0; b = b[size:] {
		d.spis = append(d.spis, b[:size:size])
	}
	return d, nil
}
