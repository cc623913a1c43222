package ppp

import (
	"crypto/des"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	//lint:ignore SA1019 RFC 2433 and RFC 2759 are built on MD4
	"golang.org/x/crypto/md4"
)

// The functions of this file bear the names of RFC 2433 appendix A, RFC 2759 section 8 and RFC 3079.

// maxPasswordUnits is the longest password in UTF-16 code units (RFC 2759 section 8.1: "0-to-256-unicode-char").
const maxPasswordUnits = 256

var (
	errPasswordTooLong = errors.New("password is longer than 256 characters, which MS-CHAP does not allow")
	errPasswordNotUTF8 = errors.New("password is not valid UTF-8")
)

// ntPasswordHash is NtPasswordHash of RFC 2759 section 8.3: MD4 of the password in UTF-16, little endian, characters outside the
// basic plane as surrogate pairs.
func ntPasswordHash(password string) (hash [16]byte, err error) {
	if !utf8.ValidString(password) {
		return hash, errPasswordNotUTF8
	}
	units := utf16.Encode([]rune(password))
	if len(units) > maxPasswordUnits {
		return hash, errPasswordTooLong
	}
	text := make([]byte, 0, 2*len(units))
	for _, u := range units {
		text = append(text, byte(u), byte(u>>8))
	}
	return md4Sum(text), nil
}

// hashNTPasswordHash is HashNtPasswordHash of RFC 2759 section 8.4.
func hashNTPasswordHash(hash [16]byte) [16]byte { return md4Sum(hash[:]) }

func md4Sum(text []byte) (sum [16]byte) {
	h := md4.New()
	h.Write(text)
	h.Sum(sum[:0])
	return sum
}

// lmPasswordHash is LmPasswordHash of RFC 2433 section A.2. Beyond ASCII it is a guess: the code page in which
// the other side would write the password is not known.
func lmPasswordHash(password string) (hash [16]byte) {
	var oem [14]byte
	copy(oem[:], strings.ToUpper(password))
	desHash(hash[0:8], oem[0:7], []byte("KGS!@#$%"))
	desHash(hash[8:16], oem[7:14], []byte("KGS!@#$%"))
	return hash
}

// challengeResponse is ChallengeResponse of RFC 2759 section 8.5: the challenge under three DES keys cut from the hash.
func challengeResponse(challenge [8]byte, hash [16]byte) (response [24]byte) {
	var keys [21]byte
	copy(keys[:], hash[:])
	for i := range 3 {
		desHash(response[8*i:8*i+8], keys[7*i:7*i+7], challenge[:])
	}
	return response
}

// desHash is DesEncrypt of RFC 2759 section 8.6: it spreads the 7-octet key over the upper 7 bits of 8 octets (DES ignores the parity
// bit) and encrypts one block.
func desHash(dst, key, clear []byte) {
	var bits uint64
	for _, b := range key[:7] {
		bits = bits<<8 | uint64(b)
	}
	var spread [8]byte
	for i := range spread {
		spread[i] = byte(bits>>(49-7*i)) << 1
	}
	block, err := des.NewCipher(spread[:])
	if err != nil {
		panic(err) // the key has 8 octets
	}
	block.Encrypt(dst, clear)
}

// challengeHash is ChallengeHash of RFC 2759 section 8.2. username is what is to be hashed: see hashedName.
func challengeHash(peerChallenge, authenticatorChallenge [16]byte, username string) (hash [8]byte) {
	h := sha1.New()
	h.Write(peerChallenge[:])
	h.Write(authenticatorChallenge[:])
	h.Write([]byte(username))
	copy(hash[:], h.Sum(nil))
	return hash
}

// hashedName is the part of the user name that enters the hash: "only the user name, as opposed to the entire Windows NT domain
// qualified name" (RFC 2759 section 8.2). A realm behind @ stays.
func hashedName(username string, full bool) string {
	if full {
		return username
	}
	return username[strings.LastIndexByte(username, '\\')+1:]
}

// authenticatorResponse is GenerateAuthenticatorResponse of RFC 2759 section 8.7: "S=" and 40 upper-case digits.
func authenticatorResponse(hashHash [16]byte, ntResponse [24]byte, challenge [8]byte) string {
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(ntResponse[:])
	h.Write([]byte("Magic server to client signing constant"))
	digest := h.Sum(nil)

	h.Reset()
	h.Write(digest)
	h.Write(challenge[:])
	h.Write([]byte("Pad to make it do more than one iteration"))
	return "S=" + strings.ToUpper(hex.EncodeToString(h.Sum(nil)))
}

// masterKey is GetMasterKey of RFC 3079 section 3.4.
func masterKey(hashHash [16]byte, ntResponse [24]byte) (key [16]byte) {
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(ntResponse[:])
	h.Write([]byte("This is the MPPE Master Key"))
	copy(key[:], h.Sum(nil))
	return key
}

// ntStartKey is Get_Start_Key of RFC 3079 section 2.3 for MS-CHAPv1 with 128 bit.
func ntStartKey(challenge [8]byte, hashHash [16]byte) (key [16]byte) {
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(hashHash[:])
	h.Write(challenge[:])
	copy(key[:], h.Sum(nil))
	return key
}
