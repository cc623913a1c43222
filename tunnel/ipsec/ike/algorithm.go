package ike

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// The tables below are the algorithms: how a proposal spells them, and their numbers in phase 1 (RFC 2409 appendix A) and in ESP
// (RFC 2407 section 4.4.4 and 4.5). A zero means that an algorithm is not for that phase.

// A cipherAlgorithm is an encryption algorithm with one key length.
type cipherAlgorithm struct {
	name    string
	ike     uint16 // attribute 1 of phase 1
	esp     uint8  // transform ID
	keyBits uint16 // the Key Length attribute; 0 if there must be none
	keySize int    // bytes
	salt    int    // bytes of key material after the key (RFC 4106 section 8.1)
	aead    bool   // needs no integrity algorithm
	weak    bool
	block   func(key []byte) (cipher.Block, error) // of phase 1
}

var cipherAlgorithms = []cipherAlgorithm{
	{name: "aes256", ike: 7, esp: 12, keyBits: 256, keySize: 32, block: aes.NewCipher},
	{name: "aes192", ike: 7, esp: 12, keyBits: 192, keySize: 24, block: aes.NewCipher},
	{name: "aes128", ike: 7, esp: 12, keyBits: 128, keySize: 16, block: aes.NewCipher},
	{name: "aes", ike: 7, esp: 12, keyBits: 128, keySize: 16, block: aes.NewCipher},
	{name: "3des", ike: 5, esp: 3, keySize: 24, weak: true, block: des.NewTripleDESCipher},
	{name: "aes256gcm16", esp: 20, keyBits: 256, keySize: 32, salt: 4, aead: true},
	{name: "aes192gcm16", esp: 20, keyBits: 192, keySize: 24, salt: 4, aead: true},
	{name: "aes128gcm16", esp: 20, keyBits: 128, keySize: 16, salt: 4, aead: true},
	{name: "aes256gcm12", esp: 19, keyBits: 256, keySize: 32, salt: 4, aead: true},
	{name: "aes192gcm12", esp: 19, keyBits: 192, keySize: 24, salt: 4, aead: true},
	{name: "aes128gcm12", esp: 19, keyBits: 128, keySize: 16, salt: 4, aead: true},
	{name: "aes256gcm8", esp: 18, keyBits: 256, keySize: 32, salt: 4, aead: true, weak: true},
	{name: "aes192gcm8", esp: 18, keyBits: 192, keySize: 24, salt: 4, aead: true, weak: true},
	{name: "aes128gcm8", esp: 18, keyBits: 128, keySize: 16, salt: 4, aead: true, weak: true},
	{name: "null", esp: 11, weak: true},
}

// A hashAlgorithm is a hash: of phase 1, whose HMAC is also its prf, and as HMAC the integrity algorithm of ESP.
type hashAlgorithm struct {
	name    string
	ike     uint16 // attribute 2 of phase 1
	esp     uint16 // attribute 5 (Authentication Algorithm)
	keySize int    // bytes of key material in ESP
	weak    bool
	new     func() hash.Hash
}

var hashAlgorithms = []hashAlgorithm{
	{name: "md5", ike: 1, esp: 1, keySize: md5.Size, weak: true, new: md5.New},
	{name: "sha1", ike: 2, esp: 2, keySize: sha1.Size, new: sha1.New},
	{name: "sha", ike: 2, esp: 2, keySize: sha1.Size, new: sha1.New},
	{name: "sha256", ike: 4, esp: 5, keySize: sha256.Size, new: sha256.New},
	{name: "sha384", ike: 5, esp: 6, keySize: sha512.Size384, new: sha512.New384},
	{name: "sha512", ike: 6, esp: 7, keySize: sha512.Size, new: sha512.New},
}

// A groupAlgorithm is a Diffie-Hellman group by number.
type groupAlgorithm struct {
	name  string
	id    uint16
	weak  bool
	group group
}

var groupAlgorithms = []groupAlgorithm{
	{name: "modp1024", id: 2, weak: true, group: newMODP(modp1024)},
	{name: "modp1536", id: 5, weak: true, group: newMODP(modp1536)},
	{name: "modp2048", id: 14, group: newMODP(modp2048)},
	{name: "modp3072", id: 15, group: newMODP(modp3072)},
	{name: "modp4096", id: 16, group: newMODP(modp4096)},
	{name: "ecp256", id: 19, group: ecpP256},
	{name: "ecp384", id: 20, group: ecpP384},
	{name: "ecp521", id: 21, group: ecpP521},
}

// find returns the first entry of a table that fits, or nil.
func find[T any](table []T, fits func(*T) bool) *T {
	for i := range table {
		if fits(&table[i]) {
			return &table[i]
		}
	}
	return nil
}
