package ipsec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A protection is the transform of one SA, with its keys. It is made for one direction, and for one goroutine at a time.
//
// An esp is SPI | Seq | IV | text | ICV, with a text of whole blocks, which the caller checks.
type protection interface {
	// seal fills in the IV, encrypts the text in place and fills in the ICV.
	seal(esp []byte)
	// open reports whether the ICV is right. Only then is the text what the peer wrote.
	open(esp []byte) bool
}

var errKeySize = errors.New("ipsec: wrong size of key material")

// sealing returns the protection of an outbound SA. random is where unpredictable IVs come from.
func sealing(t Transform, key, auth []byte, random io.Reader) (protection, error) {
	if err := checkKeys(t, key, auth); err != nil {
		return nil, err
	}
	if t.Integrity == NoIntegrity {
		return newGCM(t, key)
	}
	p := newEncryptThenMAC(t, auth)
	block, err := newBlock(t, key)
	if err != nil || block == nil {
		return p, err
	}
	if p.ivs, err = newIVSource(random); err != nil {
		return nil, err
	}
	p.mode, err = reusable(cipher.NewCBCEncrypter(block, make([]byte, block.BlockSize())))
	return p, err
}

// opening returns the protection of an inbound SA.
func opening(t Transform, key, auth []byte) (protection, error) {
	if err := checkKeys(t, key, auth); err != nil {
		return nil, err
	}
	if t.Integrity == NoIntegrity {
		return newGCM(t, key)
	}
	p := newEncryptThenMAC(t, auth)
	block, err := newBlock(t, key)
	if err != nil || block == nil {
		return p, err
	}
	p.mode, err = reusable(cipher.NewCBCDecrypter(block, make([]byte, block.BlockSize())))
	return p, err
}

func checkKeys(t Transform, key, auth []byte) error {
	if err := t.check(); err != nil {
		return err
	}
	if e, i := t.KeySizes(); len(key) != e || len(auth) != i {
		return fmt.Errorf("%w: %v needs %d+%d bytes and got %d+%d", errKeySize, t, e, i, len(key), len(auth))
	}
	return nil
}

// newBlock returns the block cipher of a CBC transform; nil is none.
func newBlock(t Transform, key []byte) (cipher.Block, error) {
	switch t.Encryption {
	case Null:
		return nil, nil
	case TripleDES:
		return des.NewTripleDESCipher(key)
	}
	return aes.NewCipher(key)
}

// encryptThenMAC is CBC or nothing with an HMAC over header, IV and ciphertext (RFC 4303 section 3.3.2.1).
type encryptThenMAC struct {
	layout
	mode blockMode // nil: no encryption
	ivs  *ivSource // nil if this side only opens
	mac  hash.Hash
	sum  [64]byte
}

// A blockMode can be used again for the next packet, which makes none anew.
type blockMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// reusable asks for the method that the standard library's CBC modes have, though its interface does not.
func reusable(m cipher.BlockMode) (blockMode, error) {
	if m, ok := m.(blockMode); ok {
		return m, nil
	}
	return nil, fmt.Errorf("ipsec: the IV of a %T cannot be set", m)
}

func newEncryptThenMAC(t Transform, auth []byte) *encryptThenMAC {
	return &encryptThenMAC{layout: t.layout(), mac: hmac.New(integrities[t.Integrity].hash, auth)}
}

func (p *encryptThenMAC) seal(esp []byte) {
	covered := esp[:len(esp)-p.icv]
	if p.mode != nil {
		iv := esp[espHeader:p.lead()]
		p.ivs.next(iv)
		p.mode.SetIV(iv)
		text := covered[p.lead():]
		p.mode.CryptBlocks(text, text)
	}
	copy(esp[len(covered):], p.icvOf(covered)[:p.icv])
}

func (p *encryptThenMAC) open(esp []byte) bool {
	if !p.verify(esp, p.icv) {
		return false
	}
	if p.mode != nil {
		p.mode.SetIV(esp[espHeader:p.lead()])
		text := esp[p.lead() : len(esp)-p.icv]
		p.mode.CryptBlocks(text, text)
	}
	return true
}

// verify reports whether esp ends with an ICV of that size that is right, in a time that does not tell where it is wrong.
func (p *encryptThenMAC) verify(esp []byte, icv int) bool {
	covered := len(esp) - icv
	return subtle.ConstantTimeCompare(p.icvOf(esp[:covered])[:icv], esp[covered:]) == 1
}

// icvOf returns the whole HMAC; it is valid until the next call.
func (p *encryptThenMAC) icvOf(covered []byte) []byte {
	p.mac.Reset()
	p.mac.Write(covered)
	return p.mac.Sum(p.sum[:0])
}

// An ivSource makes IVs for CBC, which nobody must be able to predict (RFC 3602 section 3): the encryption of a counter under a key of
// its own, drawn at random for each SA. This is the first method of NIST SP 800-38A appendix C, but for the key, which there is the
// SA's; a key of its own does not give away encryptions under that one. It costs one block of AES a packet and no lock.
type ivSource struct {
	block   cipher.Block
	counter [aes.BlockSize]byte
	out     [aes.BlockSize]byte
}

func newIVSource(random io.Reader) (*ivSource, error) {
	var key [16]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		rand.Read(key[:]) // a source that fails must not make IVs predictable
	}
	block, err := aes.NewCipher(key[:])
	return &ivSource{block: block}, err
}

// next fills iv, of at most 16 bytes.
func (s *ivSource) next(iv []byte) {
	s.block.Encrypt(s.out[:], s.counter[:])
	binary.BigEndian.PutUint64(s.counter[8:], binary.BigEndian.Uint64(s.counter[8:])+1)
	copy(iv, s.out[:])
}

// gcm is AES-GCM (RFC 4106).
type gcm struct {
	layout
	aead  cipher.AEAD
	nonce [12]byte // salt, IV
}

// newGCM returns the protection for either direction.
func newGCM(t Transform, keyAndSalt []byte) (protection, error) {
	e := encryptions[t.Encryption]
	block, err := aes.NewCipher(keyAndSalt[:e.key])
	if err != nil {
		return nil, err
	}
	g := gcm{layout: t.layout()}
	copy(g.nonce[:], keyAndSalt[e.key:])
	if g.icv < 12 { // which the standard library does not offer
		g.aead, err = cipher.NewGCM(block)
		return &shortGCM{gcm: g}, err
	}
	g.aead, err = cipher.NewGCMWithTagSize(block, g.icv)
	return &g, err
}

// seal takes the sequence number for the IV: no IV may ever come twice under one key (RFC 4106 section 3.1), and no number does.
func (g *gcm) seal(esp []byte) {
	text := g.begin(esp)
	g.aead.Seal(text[:0], g.nonce[:], text, esp[:espHeader])
}

// begin fills in the IV and the nonce and returns the text.
func (g *gcm) begin(esp []byte) (text []byte) {
	clear(esp[espHeader : espHeader+4])
	copy(esp[espHeader+4:g.lead()], esp[4:espHeader])
	copy(g.nonce[salt:], esp[espHeader:])
	return esp[g.lead() : len(esp)-g.icv]
}

func (g *gcm) open(esp []byte) bool {
	copy(g.nonce[salt:], esp[espHeader:g.lead()])
	text := esp[g.lead():]
	_, err := g.aead.Open(text[:0], g.nonce[:], text, esp[:espHeader])
	return err == nil
}

// shortGCM is AES-GCM with an ICV of 8 bytes. It is rare, so it may be slow: it has only the whole tags of the standard library.
type shortGCM struct {
	gcm
	scratch []byte
}

func (g *shortGCM) seal(esp []byte) {
	text := g.begin(esp)
	g.scratch = g.aead.Seal(g.scratch[:0], g.nonce[:], text, esp[:espHeader])
	copy(esp[g.lead():], g.scratch[:len(text)+g.icv])
}

// open decrypts by encrypting, which in counter mode is the same, and then encrypts again for the tag of what came.
func (g *shortGCM) open(esp []byte) bool {
	copy(g.nonce[salt:], esp[espHeader:g.lead()])
	text, icv := esp[g.lead():len(esp)-g.icv], esp[len(esp)-g.icv:]
	g.scratch = g.aead.Seal(g.scratch[:0], g.nonce[:], text, esp[:espHeader])
	copy(text, g.scratch)
	g.scratch = g.aead.Seal(g.scratch[:0], g.nonce[:], text, esp[:espHeader])
	if subtle.ConstantTimeCompare(g.scratch[len(text):len(text)+g.icv], icv) != 1 {
		clear(text)
		return false
	}
	return true
}
