package mppe

import "gateway/ppp/mppc"

// Verdict tells what became of a received packet. All but Opened mean that it is dropped and counted.
type Verdict uint8

const (
	Opened     Verdict = iota
	Malformed          // too short
	Unexpected         // in clear, or flagged for a mode that was not agreed on
	Duplicate          // its coherency count was the last one already
	Late               // its coherency count is behind; its key is gone
	TooFar             // it would take too many keys to catch up with it, after too many such packets
	Lost               // a packet before it was lost in stateful mode; NeedsReset is true
	Garbled            // what came out is no packet
	verdicts
)

var verdictNames = [verdicts]string{"opened", "malformed", "unexpected", "duplicate", "late", "too-far", "lost", "garbled"}

// String is a short name for counters and logs.
func (v Verdict) String() string {
	if v < verdicts {
		return verdictNames[v]
	}
	return "unknown"
}

const (
	// A count of 12 bits does not tell ahead from behind. Stateful mode halves the circle. Stateless mode, in which a fast sender may
	// lose thousands of packets at once, takes nothing for late that is more than maxBehind behind; between halfway and maxAhead
	// a packet must prove by its content that it is ahead.
	halfway   = 2048
	maxBehind = 512
	maxAhead  = int(mppc.CountMask) - maxBehind

	// Every packet earns keysEarned key changes, up to maxAhead of them, and finding its own key spends some. So a burst
	// of lost packets is caught up with at once, but forged counts cannot make us compute without end.
	keysEarned = 64

	// A packet that should not be there adds to a score, every good packet halves it, and at the limit the link is given up.
	scoreLate    = 1
	scoreBad     = 100
	scoreAtLimit = 1600

	// After so many late packets in a row it is rather our count that went wrong: stateful mode asks for a reset then.
	maxLate = 32
)

// Decoder takes apart the packets of one direction. It is not for concurrent use.
type Decoder struct {
	bits         Bits
	key          sessionKey // that of the last good packet
	cipher       rc4
	decompressor *mppc.Decompressor // nil without MPPC
	count        uint16             // coherency count of the last good packet
	lost         bool               // stateful: nothing can be read until a flushed packet comes
	earned       int                // key changes that may be spent
	score        int
	opened       bool // there has been a packet that was sure to be one
	late         int  // late packets in a row
	last         Verdict
}

// NewDecoder makes a Decoder for the bits of our acknowledged Configure-Request, of which start is as for NewEncoder.
func NewDecoder(bits Bits, start StartKey) (*Decoder, error) {
	if err := checkAgreement(bits); err != nil {
		return nil, err
	}
	d := &Decoder{bits: bits, count: uint16(mppc.CountMask), earned: maxAhead} // so that the first count is 0
	if bits.Encrypts() {
		d.key = newSessionKey(start, bits)
		d.cipher.setKey(&d.key.key)
	}
	if bits.Has(MPPC) {
		d.decompressor = new(mppc.Decompressor)
	}
	return d, nil
}

// Open decrypts and expands what followed 00FD in a frame, which is overwritten. A packet, beginning with its protocol
// field of one or two bytes, is returned if the verdict is Opened; it lies in data, or, if it came compressed, was
// appended to dst (up to 8192 bytes). The extended dst is returned always.
func (d *Decoder) Open(dst, data []byte) (packet, extended []byte, v Verdict) {
	packet, extended, v = d.open(dst, data)
	d.last = v
	switch v {
	case Opened:
		d.late = 0
		if judge(packet, len(packet)) > weak {
			d.score /= 2
			d.opened = true
		}
	case Unexpected, Garbled:
		d.score += scoreBad
	case Late:
		if d.late++; d.late == maxLate && !d.bits.Has(Stateless) {
			d.lose() // it is our count that is wrong
		}
		d.score += scoreLate
	case TooFar:
		d.score += scoreLate
	}
	return packet, extended, v
}

// NeedsReset reports whether nothing can be read before the peer answers a Reset-Request. The caller sends one, and again
// from time to time while this remains true (RFC 1962 section 3: a lost one must not end it).
func (d *Decoder) NeedsReset() bool { return d.lost }

// Err is an *Error when so much went wrong in a row that the link should be given up, else nil.
func (d *Decoder) Err() error {
	switch {
	case d.score < scoreAtLimit:
		return nil
	case d.last == Unexpected:
		return &Error{Unencrypted}
	case !d.opened:
		return &Error{WrongKeys}
	}
	return &Error{OutOfStep}
}

func (d *Decoder) open(dst, data []byte) (packet, extended []byte, v Verdict) {
	if len(data) <= mppc.HeaderLen {
		return nil, dst, Malformed
	}
	h, body := mppc.ParseHeader(data), data[mppc.HeaderLen:]
	switch {
	case h.Has(mppc.Encrypted) != d.bits.Encrypts(),
		h.Has(mppc.Compressed) && d.decompressor == nil,
		d.bits.Has(Stateless) && !h.Has(mppc.Flushed):
		return nil, dst, Unexpected
	}
	if d.bits.Has(Stateless) {
		return d.openStateless(dst, body, h)
	}
	return d.openStateful(dst, body, h)
}

// openStateless: each packet has a key of its own, as many changes away as its count is (RFC 3078 section 8.1). The key is
// kept only if the packet turns out to be one, so that a forged or damaged one leaves no trace. Without encryption the
// count says nothing.
func (d *Decoder) openStateless(dst, body []byte, h mppc.Header) (packet, extended []byte, v Verdict) {
	if !d.bits.Encrypts() {
		packet, extended, found := d.expand(dst, body, h)
		if found == nothing {
			return nil, dst, Garbled
		}
		return packet, extended, Opened
	}
	ahead := int((h.Count() - d.count) & uint16(mppc.CountMask))
	d.earned = min(d.earned+keysEarned, maxAhead)
	switch {
	case ahead == 0:
		return nil, dst, Duplicate
	case ahead > maxAhead:
		return nil, dst, Late
	case ahead > d.earned:
		return nil, dst, TooFar
	}
	d.earned -= ahead
	key := d.key
	for range ahead {
		key.rekey(&d.cipher)
	}
	d.cipher.setKey(&key.key)
	d.cipher.xor(body)
	packet, extended, found := d.expand(dst, body, h)
	switch {
	case found >= needed(ahead):
	case ahead > halfway:
		return nil, dst, Late
	default:
		return nil, dst, Garbled
	}
	d.key, d.count = key, h.Count()
	return packet, extended, Opened
}

// needed is how sure a packet must be for the key to be taken that many changes forward: the further, the more would be
// lost by a mistake.
func needed(ahead int) likeness {
	switch {
	case ahead == 1:
		return weak
	case ahead <= keysEarned:
		return strong
	}
	return sure
}

// openStateful: one keystream goes on from packet to packet, and so does the history. After a loss only a flushed packet
// can be read (RFC 3078 section 8.2).
func (d *Decoder) openStateful(dst, body []byte, h mppc.Header) (packet, extended []byte, v Verdict) {
	ahead := int((h.Count() - d.count) & uint16(mppc.CountMask))
	flushed := h.Has(mppc.Flushed)
	key := d.key
	switch {
	case ahead == 0:
		return nil, dst, Duplicate
	case ahead > halfway && !d.lost:
		return nil, dst, Late
	case flushed && d.bits.Encrypts():
		if key, v = d.resynchronise(body, h, ahead); v != Opened {
			return nil, dst, v
		}
		d.cipher.setKey(&key.key)
	case !flushed && (ahead != 1 || d.lost):
		d.lose()
		return nil, dst, Lost
	case d.bits.Encrypts() && isFlag(h.Count()):
		key.rekey(&d.cipher)
		d.cipher.setKey(&key.key)
	}
	if d.bits.Encrypts() {
		d.cipher.xor(body)
	}
	packet, extended, found := d.expand(dst, body, h)
	if found == nothing {
		d.lose() // the cipher or the history has gone astray
		return nil, dst, Garbled
	}
	d.key, d.count, d.lost = key, h.Count(), false
	return packet, extended, Opened
}

// lose gives up reading until a flushed packet comes.
func (d *Decoder) lose() {
	d.lost = true
	if d.decompressor != nil {
		d.decompressor.Lose()
	}
}

// expand undoes the compression, if any, and judges what came out.
func (d *Decoder) expand(dst, body []byte, h mppc.Header) (packet, extended []byte, found likeness) {
	packet, extended = body, dst
	switch {
	case h.Has(mppc.Compressed):
		var err error
		if extended, err = d.decompressor.Expand(dst, body, h); err != nil {
			return nil, dst, nothing
		}
		packet = extended[len(dst):]
	case d.decompressor != nil:
		d.decompressor.Note(h)
	}
	return packet, extended, judge(packet, len(packet))
}

// Wipe overwrites the keys and what was expanded last. The Decoder is not usable any more.
func (d *Decoder) Wipe() {
	if d.decompressor != nil {
		*d.decompressor = mppc.Decompressor{}
	}
	*d = Decoder{}
}
