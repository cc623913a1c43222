package ike

import (
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"hash"
	"net/netip"
)

// prf is the HMAC of the negotiated hash over the parts in a row (RFC 2409 section 4).
func prf(newHash func() hash.Hash, key []byte, parts ...[]byte) []byte {
	mac := hmac.New(newHash, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

func digest(newHash func() hash.Hash, parts ...[]byte) []byte {
	h := newHash()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// expand makes size bytes of K1 | K2 | ..., Ki = prf(key, Ki-1 | seed), with first in place of K0 (RFC 2409 section 5.5, appendix B).
func expand(newHash func() hash.Hash, key []byte, size int, first []byte, seed ...[]byte) []byte {
	var out []byte
	previous := first
	for len(out) < size {
		previous = prf(newHash, key, append([][]byte{previous}, seed...)...)
		out = append(out, previous...)
	}
	return out[:size]
}

// keys are what phase 1 agreed on (RFC 2409 section 5).
type keys struct {
	hash    func() hash.Hash
	skeyid  []byte
	d, a, e []byte // SKEYID_d, SKEYID_a, SKEYID_e
	cipher  cipher.Block
}

// newKeys derives the keys of phase 1 from SKEYID.
func newKeys(p Proposal, skeyid, gxy []byte, initiator, responder cookie) (*keys, error) {
	k := &keys{hash: p.hashing().new, skeyid: skeyid}
	k.d = prf(k.hash, skeyid, gxy, initiator[:], responder[:], []byte{0})
	k.a = prf(k.hash, skeyid, k.d, gxy, initiator[:], responder[:], []byte{1})
	k.e = prf(k.hash, skeyid, k.a, gxy, initiator[:], responder[:], []byte{2})
	block, err := p.cipher().block(encryptionKey(k.hash, k.e, p.cipher().keySize))
	k.cipher = block
	return k, err
}

// encryptionKey is Ka of RFC 2409 appendix B.
func encryptionKey(newHash func() hash.Hash, skeyidE []byte, size int) []byte {
	if len(skeyidE) >= size {
		return skeyidE[:size]
	}
	return expand(newHash, skeyidE, size, []byte{0})
}

// skeyidPSK and skeyidSignature are SKEYID of the two authentication methods.
func skeyidPSK(newHash func() hash.Hash, psk, ni, nr []byte) []byte {
	return prf(newHash, psk, ni, nr)
}

func skeyidSignature(newHash func() hash.Hash, ni, nr, gxy []byte) []byte {
	return prf(newHash, append(append([]byte(nil), ni...), nr...), gxy)
}

// phase1IV is the IV of the first encrypted message of phase 1.
func (k *keys) phase1IV(gxi, gxr []byte) []byte {
	return digest(k.hash, gxi, gxr)[:k.cipher.BlockSize()]
}

// phase2IV is the IV of the first message of a later exchange.
func (k *keys) phase2IV(lastBlock []byte, id uint32) []byte {
	return digest(k.hash, lastBlock, messageID(id))[:k.cipher.BlockSize()]
}

func messageID(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// encrypt pads a finished message with zeros, encrypts what follows the header and returns it with the IV of the next message.
func (k *keys) encrypt(iv, b []byte) (sealed, next []byte) {
	size := k.cipher.BlockSize()
	for (len(b)-headerSize)%size != 0 {
		b = append(b, 0)
	}
	b[19] |= flagEncrypted
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	cipher.NewCBCEncrypter(k.cipher, iv).CryptBlocks(b[headerSize:], b[headerSize:])
	return b, append([]byte(nil), b[len(b)-size:]...)
}

// decrypt returns the plaintext of a message's body in a buffer of its own, and the IV of the next message.
func (k *keys) decrypt(iv, body []byte) (plain, next []byte, err error) {
	size := k.cipher.BlockSize()
	if len(body) == 0 || len(body)%size != 0 {
		return nil, nil, errCipher
	}
	plain = make([]byte, len(body))
	cipher.NewCBCDecrypter(k.cipher, iv).CryptBlocks(plain, body)
	return plain, append([]byte(nil), body[len(body)-size:]...), nil
}

// keymat is the key material of one ESP SA (RFC 2409 section 5.5); gxy is nil without PFS.
func (k *keys) keymat(size int, gxy []byte, spi uint32, ni, nr []byte) []byte {
	return expand(k.hash, k.d, size, nil, gxy, []byte{protocolESP}, spiBytes(spi), ni, nr)
}

func spiBytes(spi uint32) []byte { return binary.BigEndian.AppendUint32(nil, spi) }

// natHash is the content of a NAT-D payload (RFC 3947 section 3.2).
func natHash(newHash func() hash.Hash, initiator, responder cookie, a netip.AddrPort) []byte {
	return digest(newHash, initiator[:], responder[:], a.Addr().Unmap().AsSlice(), binary.BigEndian.AppendUint16(nil, a.Port()))
}
