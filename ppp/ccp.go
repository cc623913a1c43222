package ppp

import (
	"errors"
	"time"
)

var (
	errNotCompressing = errors.New("ppp: compressed packet, but CCP agreed upon no compression")
	errUndecodable    = errors.New("ppp: compressed packet cannot be decoded")
)

// compressedHeader is the length in bytes of what a compressed packet has in front: flags and coherency count
// (RFC 2118 section 4.1, RFC 3078 section 3.1).
const compressedHeader = 2

// A compressor turns packets into the information of 00FD frames. It is called with the session's tx lock held, in the
// order in which the frames leave.
type compressor interface {
	// Seal is given protocol fields and packets, bufs[i][offset:]. Afterwards bufs[i], perhaps shorter, has the
	// information of a 00FD frame in [offset-compressedHeader:]. It allocates nothing.
	Seal(bufs [][]byte, offset int)
	// Reset takes a Reset-Request: the next packet must be readable without those before it (RFC 1962 section 3).
	Reset()
}

// A decompressor is the opposite of a compressor. Loop goroutine only.
type decompressor interface {
	// open is given the information of a 00FD frame, which is overwritten, and returns protocol field and packet,
	// which lie in data or were appended to dst. The extended dst is returned always; ok is false for what must be dropped.
	open(dst, data []byte) (datagram, extended []byte, ok bool)
	// needsReset tells whether nothing can be read before a Reset-Request is answered.
	needsReset() bool
}

// resetInterval is the time between Reset-Requests, of which any may be lost.
const resetInterval = time.Second

// A ccp is the Compression Control Protocol (RFC 1962). It waits for the peer to begin, since we have no method of our
// own to propose, and rejects all that it does not know. It may then open with no compression at all.
// Loop goroutine only.
type ccp struct {
	automaton
	session *Session

	// What up hands to the data path; nil: packets go as they are.
	compressor   compressor
	decompressor decompressor
	resetID      uint8     // of our last Reset-Request
	resetAt      time.Time // when it was sent
}

func (c *ccp) appendRequest(dst []byte) []byte { return dst }

func (c *ccp) beginRequest() {}

func (c *ccp) judge(option) (verdict, []byte) { return reject, nil }

func (c *ccp) appendMissing(dst []byte) []byte { return dst }

func (c *ccp) naked(time.Time, option) {}

func (c *ccp) rejected(time.Time, option) {}

// receiveCode handles Reset-Request and Reset-Ack, which mean nothing unless CCP is open (RFC 1962 section 3).
func (c *ccp) receiveCode(_ time.Time, p controlPacket) bool {
	switch p.code {
	case codeResetRequest:
		if c.state == stateOpened {
			c.session.tx.resetCompressor()
			c.sendPacket(controlPacket{code: codeResetAck, id: p.id})
		}
	case codeResetAck: // the packet that follows says by itself that it begins anew (RFC 2118 section 2.3, RFC 3078 section 4.2)
	default:
		return false
	}
	return true
}

// requestReset asks the peer to begin its history anew.
func (c *ccp) requestReset(now time.Time) {
	if now.Sub(c.resetAt) < resetInterval {
		return
	}
	c.resetAt = now
	c.resetID++
	c.sendPacket(controlPacket{code: codeResetRequest, id: c.resetID})
}

func (c *ccp) up(time.Time) {
	c.log.Debug("CCP is open", "compressed", c.compressor != nil)
	c.session.setCompression(c.compressor, c.decompressor)
}

func (c *ccp) down(time.Time) { c.session.setCompression(nil, nil) }

func (c *ccp) finished(time.Time) {}
