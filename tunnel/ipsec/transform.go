package ipsec

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// An Encryption is an encryption algorithm of ESP with the size of its key and, if it authenticates too, of its ICV.
type Encryption uint8

// Encryption algorithms.
const (
	_ Encryption = iota
	AES128CBC
	AES192CBC
	AES256CBC
	TripleDES
	AES128GCM8
	AES128GCM12
	AES128GCM16
	AES192GCM8
	AES192GCM12
	AES192GCM16
	AES256GCM8
	AES256GCM12
	AES256GCM16
	Null // no encryption (RFC 2410); only with Config.AllowNull
)

// An Integrity is an integrity algorithm of ESP.
type Integrity uint8

// Integrity algorithms. NoIntegrity goes with AES-GCM, which has its own, and with nothing else.
const (
	NoIntegrity   Integrity = iota
	HMACMD5                 // HMAC-MD5-96
	HMACSHA1                // HMAC-SHA1-96
	HMACSHA256              // HMAC-SHA-256-128
	HMACSHA256x96           // HMAC-SHA-256 cut to 96 bits as in an early draft: Android 6 and 7, old Linux
	HMACSHA384              // HMAC-SHA-384-192
	HMACSHA512              // HMAC-SHA-512-256
)

// encryption describes an Encryption; all sizes are in bytes.
type encryption struct {
	name  string
	key   int
	salt  int // of the key material, behind the key
	iv    int
	block int // what payload, padding and trailer are filled up to
	icv   int
	bytes uint64 // what one key should encrypt at most; 0 is no such limit
}

const (
	salt    = 4               // RFC 4106 section 4
	block3D = 8               // RFC 2451 section 2.6
	blockAE = 16              // RFC 3602 section 2.4
	word    = 4               // RFC 4303 section 2.4: what ciphers without blocks are filled up to
	bytes3D = uint64(1) << 30 // 2^27 blocks of 64 bits: two of them are equal with probability 2^-11
)

var encryptions = [...]encryption{
	AES128CBC:   {name: "aes128", key: 16, iv: 16, block: blockAE},
	AES192CBC:   {name: "aes192", key: 24, iv: 16, block: blockAE},
	AES256CBC:   {name: "aes256", key: 32, iv: 16, block: blockAE},
	TripleDES:   {name: "3des", key: 24, iv: 8, block: block3D, bytes: bytes3D},
	AES128GCM8:  {name: "aes128gcm8", key: 16, salt: salt, iv: 8, block: word, icv: 8},
	AES128GCM12: {name: "aes128gcm12", key: 16, salt: salt, iv: 8, block: word, icv: 12},
	AES128GCM16: {name: "aes128gcm16", key: 16, salt: salt, iv: 8, block: word, icv: 16},
	AES192GCM8:  {name: "aes192gcm8", key: 24, salt: salt, iv: 8, block: word, icv: 8},
	AES192GCM12: {name: "aes192gcm12", key: 24, salt: salt, iv: 8, block: word, icv: 12},
	AES192GCM16: {name: "aes192gcm16", key: 24, salt: salt, iv: 8, block: word, icv: 16},
	AES256GCM8:  {name: "aes256gcm8", key: 32, salt: salt, iv: 8, block: word, icv: 8},
	AES256GCM12: {name: "aes256gcm12", key: 32, salt: salt, iv: 8, block: word, icv: 12},
	AES256GCM16: {name: "aes256gcm16", key: 32, salt: salt, iv: 8, block: word, icv: 16},
	Null:        {name: "null", block: word},
}

// integrity describes an Integrity; sizes are in bytes.
type integrity struct {
	name string
	hash func() hash.Hash
	key  int
	icv  int
}

var integrities = [...]integrity{
	HMACMD5:       {"md5", md5.New, 16, 12},          // RFC 2403
	HMACSHA1:      {"sha1", sha1.New, 20, 12},        // RFC 2404
	HMACSHA256:    {"sha256", sha256.New, 32, 16},    // RFC 4868
	HMACSHA256x96: {"sha256_96", sha256.New, 32, 12}, // draft-ietf-ipsec-ciph-sha-256-00
	HMACSHA384:    {"sha384", sha512.New384, 48, 24}, // RFC 4868
	HMACSHA512:    {"sha512", sha512.New, 64, 32},    // RFC 4868
}

// A Transform is what protects the packets of an SA.
type Transform struct {
	Encryption Encryption
	Integrity  Integrity
}

var errTransform = errors.New("ipsec: no such transform")

// ParseTransform reads a transform as strongSwan writes it: an encryption and, unless that is AES-GCM, an integrity algorithm:
// "aes256-sha256", "3des-md5", "aes128gcm16", "null-sha1".
func ParseTransform(name string) (Transform, error) {
	for e := range encryptions {
		for i := range integrities {
			if t := (Transform{Encryption(e), Integrity(i)}); t.check() == nil && t.String() == strings.ToLower(name) {
				return t, nil
			}
		}
	}
	return Transform{}, fmt.Errorf("%w: %q", errTransform, name)
}

// String writes a transform as ParseTransform reads it.
func (t Transform) String() string {
	switch {
	case t.check() != nil:
		return "invalid"
	case t.Integrity == NoIntegrity:
		return encryptions[t.Encryption].name
	}
	return encryptions[t.Encryption].name + "-" + integrities[t.Integrity].name
}

// KeySizes tells how many bytes of key material each SA needs, first for encryption, with the salt of AES-GCM at its end, and then for
// integrity (RFC 4303 section 2, RFC 2409 section 5.5). Both are 0 if there is no such transform.
func (t Transform) KeySizes() (encryption, integrity int) {
	if t.check() != nil {
		return 0, 0
	}
	e := encryptions[t.Encryption]
	return e.key + e.salt, integrities[t.Integrity].key
}

// check refuses what does not exist, and encryption without integrity (RFC 4303 section 3.2: it may be forged).
func (t Transform) check() error {
	if t.Encryption == 0 || int(t.Encryption) >= len(encryptions) || int(t.Integrity) >= len(integrities) {
		return errTransform
	}
	if authenticates := encryptions[t.Encryption].icv > 0; authenticates != (t.Integrity == NoIntegrity) {
		return errTransform
	}
	return nil
}

// A layout is the sizes of the parts of an ESP packet, in bytes.
type layout struct {
	iv, block, icv int
}

const (
	espHeader = 8 // SPI, sequence number
	trailer   = 2 // pad length, next header
)

func (t Transform) layout() layout {
	e := encryptions[t.Encryption]
	return layout{e.iv, e.block, e.icv + integrities[t.Integrity].icv}
}

// lead is what is in front of the inner UDP header.
func (l layout) lead() int { return espHeader + l.iv }

// padding is how many bytes fill up a payload of n bytes with its trailer (RFC 4303 section 2.4).
func (l layout) padding(n int) int { return (l.block - (n+trailer)%l.block) % l.block }

// fits is the largest payload in an ESP packet of at most size bytes; it may be negative.
func (l layout) fits(size int) int {
	return (size-l.lead()-l.icv)/l.block*l.block - trailer
}

// The largest of all transforms.
const (
	maxLead  = espHeader + 16
	maxTrail = blockAE - 1 + trailer + 32
)

// worst is no transform, but no transform leaves less room.
var worst = layout{iv: 16, block: blockAE, icv: 32}
