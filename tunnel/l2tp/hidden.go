package l2tp

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
)

// maxHiddenValue is the longest value that fits into a hidden AVP without padding, in bytes.
const maxHiddenValue = maxAVPValue - 2

var errHidden = errors.New("l2tp: hidden AVP cannot be read (no secret, no Random Vector, or another secret)")

// appendHidden appends the hidden form of value: its length, the value and padding, all enciphered (RFC 2661 section 4.3). The
// padding is what masks the length of the value; its content should be random.
func appendHidden(dst, secret, randomVector []byte, a attribute, value, padding []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	dst = append(dst, value...)
	dst = append(dst, padding...)
	text := dst[start:]
	block := firstBlock(secret, randomVector, a)
	for {
		n := xor(text, block)
		if n == len(text) {
			return dst
		}
		block = nextBlock(secret, text[:n])
		text = text[n:]
	}
}

// parseHidden deciphers the hidden form of an AVP value into memory of its own.
func parseHidden(hidden, secret, randomVector []byte, a attribute) ([]byte, error) {
	if len(secret) == 0 || len(randomVector) == 0 || len(hidden) < 2 {
		return nil, errHidden
	}
	clear := append([]byte(nil), hidden...)
	block := firstBlock(secret, randomVector, a)
	for done := 0; ; {
		n := xor(clear[done:], block)
		if done += n; done == len(clear) {
			break
		}
		block = nextBlock(secret, hidden[done-n:done])
	}
	// Only the deciphered length can be checked, and it must be: with a wrong secret it is noise.
	length := int(binary.BigEndian.Uint16(clear))
	if length > len(clear)-2 {
		return nil, errHidden
	}
	return clear[2 : 2+length], nil
}

// firstBlock is b1 = MD5(AV + S + RV) of RFC 2661 section 4.3.
func firstBlock(secret, randomVector []byte, a attribute) [md5.Size]byte {
	h := md5.New()
	h.Write([]byte{byte(a >> 8), byte(a)})
	h.Write(secret)
	h.Write(randomVector)
	return [md5.Size]byte(h.Sum(nil))
}

// nextBlock is bi = MD5(S + c(i-1)) of RFC 2661 section 4.3.
func nextBlock(secret, cipher []byte) [md5.Size]byte {
	h := md5.New()
	h.Write(secret)
	h.Write(cipher)
	return [md5.Size]byte(h.Sum(nil))
}

func xor(text []byte, block [md5.Size]byte) int {
	n := min(len(text), len(block))
	for i := range n {
		text[i] ^= block[i]
	}
	return n
}

// challengeResponse proves that its sender knows the secret (RFC 2661 section 4.4.3, Challenge Response). kind is the message that
// carries the response: SCCRP or SCCCN.
func challengeResponse(kind messageType, secret, challenge []byte) [md5.Size]byte {
	h := md5.New()
	h.Write([]byte{byte(kind)})
	h.Write(secret)
	h.Write(challenge)
	return [md5.Size]byte(h.Sum(nil))
}
