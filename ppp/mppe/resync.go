package mppe

import (
	"encoding/binary"

	"gateway/ppp/mppc"
)

// maxUnseen is how many key changes are tried that no received packet told of. Linux makes one for each Reset-Request it
// answers, and the answer may be lost.
const maxUnseen = 8

// resynchronise finds the key of a flushed packet in stateful mode, ahead counts after the last good one.
//
// The key has changed with every flag packet since, this one included. What else happened is ambiguous: on a flushed packet
// that is no flag packet RFC 3078 section 8.2 and FreeBSD start the current key again, while Linux and lwIP take the next
// key, and have done so too for flushed packets that were lost. So the candidates are tried in turn on the first bytes,
// and the one that makes the best packet of them is it. A peer can so be of either kind, and lose its answers.
func (d *Decoder) resynchronise(body []byte, h mppc.Header, ahead int) (key sessionKey, v Verdict) {
	key = d.key
	for i := 1; i <= ahead; i++ {
		if isFlag(d.count + uint16(i)) {
			key.rekey(&d.cipher)
		}
	}
	unseen := maxUnseen
	if ahead == 1 && !d.lost { // nothing is missing: a flag packet has one key, another one of the two kinds
		if isFlag(h.Count()) {
			return key, Opened
		}
		unseen = 1
	}
	var best sessionKey
	found := weak // not enough: there will be a better packet
	for n := 0; ; n++ {
		if l := d.tryKey(body, &key); l > found {
			best, found = key, l
		}
		if n == unseen || found == sure {
			break
		}
		key.rekey(&d.cipher)
	}
	if found == weak {
		d.lose()
		return key, Garbled
	}
	return best, Opened
}

// tryKey decrypts a copy of the first bytes of body with key and judges them. Compressed data needs no other treatment:
// after a flush the history is empty, so that the first bytes of a packet can only be literals, and those below 80 stand
// for themselves (RFC 2118 section 4.1).
func (d *Decoder) tryKey(body []byte, key *sessionKey) likeness {
	var start [8]byte
	n := copy(start[:], body)
	d.cipher.setKey(&key.key)
	d.cipher.xor(start[:n])
	return judge(start[:n], len(body))
}

// likeness is how much decrypted bytes look like a packet. There is no integrity check to ask.
type likeness uint8

const (
	nothing likeness = iota
	weak             // the protocol number may be encrypted and has two bytes: so are one in 600 random packets
	strong           // it is 0021 or 0057, and the version of IP fits: one in 10^6, or one in 2000 if it has one byte
	sure             // and so does the length of the IP packet: nobody pads with MPPE (RFC 3078 section 3)
)

// judge looks at the start of a packet of size bytes: at its protocol field, of one byte or two, and what follows.
func judge(start []byte, size int) likeness {
	field := 1
	if len(start) > 0 && start[0] == 0 {
		field = 2
	}
	if len(start) <= field {
		return nothing
	}
	protocol, ip := start[field-1], start[field:]
	size -= field
	switch version := ip[0] >> 4; {
	case protocol == 0x21 && version == 4:
		if len(ip) >= 4 && int(binary.BigEndian.Uint16(ip[2:])) == size {
			return sure
		}
		return strong
	case protocol == 0x57 && version == 6:
		if len(ip) >= 6 && int(binary.BigEndian.Uint16(ip[4:]))+40 == size {
			return sure
		}
		return strong
	case field == 2 && protocol&1 == 1 && Carries(uint16(protocol)): // the last bit is set: RFC 1661 section 2
		return weak
	}
	return nothing
}
