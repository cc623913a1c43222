package mppe

import "crypto/sha1"

// Keys are the start keys of both directions (RFC 3079): a short one for 40 and 56 bit and a long one for 128 bit, since
// it is CCP that settles the length later. They print as "redacted".
type Keys struct {
	Send, Receive StartKey
}

// StartKey is the start key of one direction, from which its session keys are derived.
type StartKey struct {
	short [8]byte
	long  [16]byte
}

// String keeps keys out of logs.
func (StartKey) String() string { return "redacted" }

// GoString keeps keys out of logs.
func (StartKey) GoString() string { return "redacted" }

// Wipe overwrites the keys.
func (k *Keys) Wipe() { *k = Keys{} }

const (
	magicClientSends   = "On the client side, this is the send key; on the server side, it is the receive key."
	magicClientReceive = "On the client side, this is the receive key; on the server side, it is the send key."
)

// KeysFromMaster derives the start keys after MS-CHAPv2 or EAP-MSCHAPv2 from the master key of RFC 3079 section 3.4.
// client tells whether we are the side that logged in.
func KeysFromMaster(master [16]byte, client bool) Keys {
	send, receive := asymmetricStartKey(master, magicClientSends), asymmetricStartKey(master, magicClientReceive)
	if !client {
		send, receive = receive, send
	}
	return Keys{Send: send, Receive: receive}
}

// asymmetricStartKey is GetAsymmetricStartKey (RFC 3079 section 3.4).
func asymmetricStartKey(master [16]byte, magic string) (k StartKey) {
	var block [16 + 2*padLen + len(magicClientSends)]byte
	b := append(block[:0], master[:]...)
	b = append(b, pad1[:]...)
	b = append(b, magic...)
	b = append(b, pad2[:]...)
	sum := sha1.Sum(b)
	clear(block[:])
	copy(k.short[:], sum[:])
	copy(k.long[:], sum[:])
	return k
}

// KeysFromMSCHAP takes the start keys after MS-CHAPv1, which serve both directions: for 40 and 56 bit the first 8 bytes
// of the LAN Manager hash (RFC 3079 sections 2.1 and 2.2), for 128 bit what Get_Start_Key gives (section 2.3).
func KeysFromMSCHAP(lm [8]byte, nt [16]byte) Keys {
	k := StartKey{short: lm, long: nt}
	return Keys{Send: k, Receive: k}
}

const padLen = 40

var (
	pad1 [padLen]byte
	pad2 = func() (p [padLen]byte) {
		for i := range p {
			p[i] = 0xf2
		}
		return p
	}()
)

// sessionKey is the key that packets are encrypted with, and its way forward. A copy of it can be walked on trial.
type sessionKey struct {
	start [16]byte
	key   [16]byte // the current key; one of 8 bytes is here twice, as rc4.setKey wants it
	size  int      // bytes of key that count: 8 or 16
	salt  int      // leading bytes of key that are known: 3 for 40 bit, 1 for 56 bit, none for 128 bit
}

// knownBytes overwrite the front of the weaker keys (RFC 3079 sections 2.1 and 2.2).
var knownBytes = [3]byte{0xd1, 0x26, 0x9e}

// newSessionKey derives the first session key from the start key for the one key length in bits.
func newSessionKey(start StartKey, bits Bits) (k sessionKey) {
	switch {
	case bits.Has(Key128):
		k.size, k.start = 16, start.long
	case bits.Has(Key56):
		k.size, k.salt = 8, 1
	default:
		k.size, k.salt = 8, 3
	}
	if k.size == 8 {
		copy(k.start[:], start.short[:])
	}
	k.key = k.start
	k.key = k.next()
	k.weaken()
	return k
}

// next is GetNewKeyFromSHA (RFC 3078 section 7.3) of the start key and the current key.
func (k *sessionKey) next() (key [16]byte) {
	var block [2*16 + 2*padLen]byte
	b := append(block[:0], k.start[:k.size]...)
	b = append(b, pad1[:]...)
	b = append(b, k.key[:k.size]...)
	b = append(b, pad2[:]...)
	sum := sha1.Sum(b)
	copy(key[:], sum[:])
	return key
}

// weaken cuts the key to its size.
func (k *sessionKey) weaken() {
	copy(k.key[:k.salt], knownBytes[:])
	if k.size == 8 {
		copy(k.key[8:], k.key[:8])
	}
}

// rekey moves on to the next session key (RFC 3078 section 7.3). It uses c, which is left in no useful state.
func (k *sessionKey) rekey(c *rc4) {
	k.key = k.next()
	if k.size == 8 {
		copy(k.key[8:], k.key[:8])
	}
	c.setKey(&k.key)
	c.xor(k.key[:k.size])
	k.weaken()
}
