package ike

import (
	"crypto/sha256"
	"encoding/binary"
)

// Fragments of IKE messages, as Microsoft and Cisco send them: each is a message of its own with the header of the whole and one payload,
// which is not encrypted.
const (
	fragmentHeaderSize = 4
	lastFragment       = 1
	maxFragments       = 64
	fragmentSize       = 1024 // bytes of the whole message in one fragment that we send
	maxUnfragmented    = 1280
)

// fragments puts one message together; one at a time.
type fragments struct {
	header header // of all its parts
	id     uint16
	parts  map[uint8][]byte
	last   uint8 // number of the last part; 0: not known
	size   int
}

// add takes the payload of a fragment, and returns the whole message when it is complete.
func (f *fragments) add(h header, body []byte) []byte {
	payloads, rest, err := parsePayloads(payloadFragment, body)
	if err != nil || len(rest) > 0 || len(payloads) != 1 || len(payloads[0].body) <= fragmentHeaderSize {
		return nil
	}
	b := payloads[0].body
	id, number, flags, data := binary.BigEndian.Uint16(b), b[2], b[3], b[fragmentHeaderSize:]
	if number == 0 || number > maxFragments {
		return nil
	}
	if f.parts == nil || id != f.id || h != f.header {
		*f = fragments{header: h, id: id, parts: make(map[uint8][]byte)}
	}
	if f.parts[number] != nil || f.last != 0 && number > f.last || f.size+len(data) > maxMessageSize {
		return nil
	}
	f.parts[number] = append([]byte(nil), data...)
	f.size += len(data)
	if flags&lastFragment != 0 {
		f.last = number
	}
	if f.last == 0 || len(f.parts) != int(f.last) {
		return nil
	}
	var whole []byte
	for n := uint8(1); n <= f.last; n++ {
		whole = append(whole, f.parts[n]...) // a missing one is found by the length in the header
	}
	*f = fragments{}
	return whole
}

// fragment cuts a message.
func fragment(message []byte) (parts [][]byte) {
	h, _, err := parseHeader(message)
	if err != nil {
		return [][]byte{message}
	}
	h.flags &^= flagEncrypted
	id := sha256.Sum256(message) // the same for repetitions, another for other messages
	for number := byte(1); len(message) > 0; number++ {
		data := message[:min(len(message), fragmentSize)]
		message = message[len(data):]
		flags := byte(0)
		if len(message) == 0 {
			flags = lastFragment
		}
		c := compose(h)
		c.add(payloadFragment, []byte{id[0], id[1], number, flags}, data)
		parts = append(parts, c.finish())
	}
	return parts
}
