package l2tp

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A messageType is the value of the Message Type AVP (RFC 2661 section 3.2).
type messageType uint16

const (
	msgSCCRQ   messageType = 1
	msgSCCRP   messageType = 2
	msgSCCCN   messageType = 3
	msgStopCCN messageType = 4
	msgHELLO   messageType = 6
	msgOCRQ    messageType = 7
	msgOCRP    messageType = 8
	msgOCCN    messageType = 9
	msgICRQ    messageType = 10
	msgICRP    messageType = 11
	msgICCN    messageType = 12
	msgCDN     messageType = 14
	msgWEN     messageType = 15
	msgSLI     messageType = 16
)

var messageNames = [...]string{
	msgSCCRQ: "SCCRQ", msgSCCRP: "SCCRP", msgSCCCN: "SCCCN", msgStopCCN: "StopCCN", msgHELLO: "HELLO", msgOCRQ: "OCRQ", msgOCRP: "OCRP",
	msgOCCN: "OCCN", msgICRQ: "ICRQ", msgICRP: "ICRP", msgICCN: "ICCN", msgCDN: "CDN", msgWEN: "WEN", msgSLI: "SLI",
}

func (k messageType) String() string {
	if int(k) < len(messageNames) && messageNames[k] != "" {
		return messageNames[k]
	}
	return fmt.Sprintf("message type %d", uint16(k))
}

// A message is a control message whose AVPs have been checked against avpRules and deciphered.
type message struct {
	kind      messageType
	mandatory bool // M of the Message Type AVP: a type that we do not know ends the tunnel
	values    []value
}

type value struct {
	attribute attribute
	bytes     []byte
}

// A fault is what makes a control message unusable: an AVP with its M bit set that is unknown or malformed, or a required AVP that
// is missing (RFC 2661 sections 4.1 and 7.1).
type fault struct {
	code   errorCode // General Error code to tell the peer
	text   string
	secret bool // a hidden AVP could not be read: the secrets differ or there is none
}

// parseMessage reads the AVPs of a control message, that is all that follows its header. The values alias body unless they were
// hidden. On a fault the message holds what could be read up to there and thereafter, so that the caller can tell whom the fault
// concerns. With permissive set, faulty AVPs are ignored whatever their M bit says.
func parseMessage(body, secret []byte, permissive bool) (message, *fault) {
	var m message
	first, rest, err := parseAVP(body)
	if err != nil || first.vendor != vendorIETF || first.attribute != attrMessageType || first.hidden || first.reserved || len(first.value) != 2 {
		// RFC 2661 section 4.4.1: the Message Type must be the first AVP.
		return m, &fault{code: errorValue, text: "no Message Type AVP in front"}
	}
	m.kind = messageType(binary.BigEndian.Uint16(first.value))
	m.mandatory = first.mandatory

	var trouble *fault
	note := func(a avp, f *fault) {
		if a.mandatory && trouble == nil && !permissive {
			trouble = f
		}
	}
	var randomVector []byte
	for len(rest) > 0 {
		var a avp
		if a, rest, err = parseAVP(rest); err != nil {
			note(a, &fault{code: errorLength, text: "AVP longer or shorter than it says"})
			break
		}
		clear, f := readAVP(a, secret, randomVector)
		switch {
		case f != nil:
			note(a, f)
		case a.attribute == attrRandomVector:
			randomVector = clear
		case !m.has(a.attribute): // of two AVPs alike the first counts
			m.values = append(m.values, value{a.attribute, clear})
		}
	}
	rule := messageRules[m.kind]
	if rule.final {
		return m, nil // it ends something, however badly it says so
	}
	if trouble != nil {
		return m, trouble
	}
	for _, a := range rule.required {
		if !m.has(a) {
			return m, &fault{code: errorVendor, text: fmt.Sprintf("%v without AVP %d", m.kind, a)}
		}
	}
	return m, nil
}

// readAVP checks one AVP against its rule and returns its value in the clear.
func readAVP(a avp, secret, randomVector []byte) ([]byte, *fault) {
	rule, known := avpRules[avpKey{a.vendor, a.attribute}]
	if !known || a.reserved {
		return nil, &fault{code: errorUnknownAVP, text: fmt.Sprintf("vendor %d attribute %d", a.vendor, a.attribute)}
	}
	v := a.value
	if a.hidden {
		if !rule.hideable {
			return nil, &fault{code: errorValue, text: fmt.Sprintf("attribute %d must not be hidden", a.attribute)}
		}
		clear, err := parseHidden(v, secret, randomVector, a.attribute)
		if err != nil {
			return nil, &fault{code: errorValue, text: fmt.Sprintf("hidden attribute %d cannot be read", a.attribute), secret: true}
		}
		v = clear
	}
	if len(v) < rule.min || len(v) > rule.max {
		return nil, &fault{code: errorLength, text: fmt.Sprintf("length of attribute %d", a.attribute), secret: a.hidden}
	}
	if rule.nonZero && v[0] == 0 && v[1] == 0 {
		return nil, &fault{code: errorValue, text: fmt.Sprintf("attribute %d is zero", a.attribute), secret: a.hidden}
	}
	return v, nil
}

func (m *message) value(a attribute) []byte {
	for _, v := range m.values {
		if v.attribute == a {
			return v.bytes
		}
	}
	return nil
}

func (m *message) has(a attribute) bool {
	for _, v := range m.values {
		if v.attribute == a {
			return true
		}
	}
	return false
}

// uint16 is the value of an AVP whose rule gives it two bytes, 0 if it is absent.
func (m *message) uint16(a attribute) uint16 {
	if v := m.value(a); len(v) >= 2 {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// uint32 is the value of an AVP whose rule gives it four bytes, 0 if it is absent.
func (m *message) uint32(a attribute) uint32 {
	if v := m.value(a); len(v) >= 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// A composer writes a control message AVP by AVP, with the M bits of avpRules. With a secret it hides every AVP that may be hidden.
type composer struct {
	body         []byte
	secret       []byte
	randomVector []byte // nil: nothing is hidden
	random       io.Reader
}

// hiddenBlock is the size to which hidden values are padded, in bytes, so that their length tells little.
const hiddenBlock = 16

// compose begins a message. A nil secret leaves all AVPs readable.
func compose(kind messageType, secret []byte, random io.Reader) *composer {
	c := &composer{secret: secret, random: random}
	c.uint16(attrMessageType, uint16(kind))
	if len(secret) > 0 {
		vector := make([]byte, hiddenBlock)
		fill(random, vector)
		c.bytes(attrRandomVector, vector)
		c.randomVector = vector
	}
	return c
}

func (c *composer) bytes(a attribute, v []byte) {
	rule := avpRules[avpKey{vendorIETF, a}]
	p := avp{mandatory: rule.mandatory, attribute: a, value: v}
	if c.randomVector != nil && rule.hideable && len(v) <= maxHiddenValue {
		padding := make([]byte, min((hiddenBlock-(2+len(v))%hiddenBlock)%hiddenBlock, maxHiddenValue-len(v)))
		fill(c.random, padding)
		p.hidden = true
		p.value = appendHidden(nil, c.secret, c.randomVector, a, v, padding)
	}
	c.body = appendAVP(c.body, p)
}

func (c *composer) uint16(a attribute, v uint16) {
	c.bytes(a, binary.BigEndian.AppendUint16(nil, v))
}

func (c *composer) uint32(a attribute, v uint32) {
	c.bytes(a, binary.BigEndian.AppendUint32(nil, v))
}
