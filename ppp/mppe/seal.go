package mppe

import "gateway/ppp/mppc"

// Headroom is how many bytes Seal writes in front of a packet.
const Headroom = mppc.HeaderLen

// Carries reports whether packets of the PPP protocol travel under 00FD. All others, above all those of LCP, NCPs and
// authentication, stay in clear (RFC 3078 section 3).
func Carries(protocol uint16) bool { return protocol >= 0x0021 && protocol <= 0x00fa }

// Encoder makes the packets of one direction. It is not for concurrent use, and the order of sealing must be the order of
// sending.
type Encoder struct {
	bits       Bits
	key        sessionKey
	cipher     rc4
	compressor *mppc.Compressor // nil without MPPC
	count      uint16           // coherency count of the next packet
	reset      bool             // the next packet must not depend on earlier ones
}

// NewEncoder makes an Encoder for the bits of the peer's acknowledged Configure-Request: one key length, MPPC or both.
// start is not used without a key length.
func NewEncoder(bits Bits, start StartKey) (*Encoder, error) {
	if err := checkAgreement(bits); err != nil {
		return nil, err
	}
	e := &Encoder{bits: bits}
	if bits.Encrypts() {
		e.key = newSessionKey(start, bits)
		e.cipher.setKey(&e.key.key)
	}
	if bits.Has(MPPC) {
		e.compressor = new(mppc.Compressor)
	}
	return e, nil
}

func checkAgreement(bits Bits) error {
	keys := bits & keyBits
	if keys != keys.strongest() || bits&(keyBits|MPPC) == 0 || bits&^(keyBits|MPPC|Stateless) != 0 {
		return &Error{BadAgreement}
	}
	return nil
}

// Seal compresses and encrypts a batch in place. bufs[i][offset:] is the protocol field (uncompressed) and information of a
// packet whose protocol Carries approves; offset is at least Headroom. Afterwards bufs[i][offset-Headroom:] is what
// follows 00FD; compression makes bufs[i] shorter.
func (e *Encoder) Seal(bufs [][]byte, offset int) {
	for i, buf := range bufs {
		bufs[i] = buf[:offset+e.seal(buf[offset-Headroom:])]
	}
}

// seal makes the packet that begins after Headroom and returns its length without it.
func (e *Encoder) seal(buf []byte) int {
	packet := buf[Headroom:]
	flags := mppc.Header(0)
	if e.fresh() {
		flags = mppc.Flushed
		e.reset = false
	}
	if e.compressor != nil {
		if flags.Has(mppc.Flushed) {
			e.compressor.Reset()
		}
		n, compression := e.compressor.Compress(packet)
		packet = packet[:n]
		flags |= compression
	}
	if e.bits.Encrypts() {
		flags |= mppc.Encrypted
		if flags.Has(mppc.Flushed) {
			e.changeKey()
		}
		e.cipher.xor(packet)
	}
	(flags | mppc.Header(e.count)).Put(buf)
	e.count = (e.count + 1) & uint16(mppc.CountMask)
	return len(packet)
}

// fresh reports whether the next packet must be readable without the ones before it. That it is so for every 256th
// follows from what changeKey says.
func (e *Encoder) fresh() bool {
	return e.reset || e.bits.Has(Stateless) || e.bits.Encrypts() && isFlag(e.count)
}

// isFlag reports whether a packet is a "flag" packet, before which stateful mode changes the key (RFC 3078 section 7.2).
func isFlag(count uint16) bool { return count&0xff == 0xff }

// changeKey sets up the cipher for a packet with Flushed. In stateful mode receivers do not agree on the key of such a
// packet: by RFC 3078 section 8.2 it is the current one again, which uses the same keystream twice (section 9); Linux takes
// the next one. On a flag packet all of them take the next one, if Flushed is set too (Linux wants that). So only flag packets
// are ever flushed: after a Reset-Request the coherency count jumps to the next one. Receivers take that for a loss of
// the packets between, which Flushed mends at once.
func (e *Encoder) changeKey() {
	if !e.bits.Has(Stateless) {
		e.count |= 0xff
	}
	e.key.rekey(&e.cipher)
	e.cipher.setKey(&e.key.key)
}

// Reset is to be called when a Reset-Request arrives: the next packet will be one that the peer can read although it lost
// some. The Reset-Ack is sent by CCP.
func (e *Encoder) Reset() { e.reset = true }

// Wipe overwrites the keys and what was compressed last. The Encoder is not usable any more.
func (e *Encoder) Wipe() {
	if e.compressor != nil {
		*e.compressor = mppc.Compressor{}
	}
	*e = Encoder{}
}
