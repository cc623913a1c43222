package stack

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"
)

// gVisor sends a lost SYN again with the timestamp of its first copy, where RFC 7323 section 4.1 wants the time of this one. The answer
// then tells it of a round trip that began with the first copy, and of seconds of "round trip" it makes a retransmission timeout of three
// times as much, which stays for hundreds of packets: a connection whose SYN came before the server's end of the link was up, or was
// lost on the way, stood still for seconds whenever the path lost something.

// synClocks puts the time into the SYNs, and SYN-ACKs, that leave again. Its zero value is ready for use.
type synClocks struct {
	mu   sync.Mutex
	seen [256]synClock // by the last octet of the initial sequence number, which is drawn at random
}

// A synClock is what is known of a SYN that has left. Of two connections that open at the same time and share a place, the one that was
// first is forgotten: it has its retransmission timeout from gVisor then.
type synClock struct {
	ports    uint32 // ours, then theirs
	sequence uint32
	at       time.Time // when it first left
	latest   uint32    // the timestamp it last left with
}

// stamp adds to the timestamp of a SYN that left before what has passed since. packet is one of our own, and whole.
func (c *synClocks) stamp(packet []byte) {
	protocol, segment := transport(packet)
	if protocol != protocolTCP || len(segment) < tcpHeaderLen || segment[tcpFlags]&flagSYN == 0 {
		return
	}
	timestamp := timestampOption(segment)
	if timestamp == nil {
		return
	}
	value := timestamp[:4]
	first := synClock{
		ports:    binary.BigEndian.Uint32(segment),
		sequence: binary.BigEndian.Uint32(segment[tcpSequence:]),
		at:       time.Now(),
		latest:   binary.BigEndian.Uint32(value),
	}
	if now := c.note(first); now != first.latest {
		binary.BigEndian.PutUint32(value, now)
		setTCPChecksum(packet, len(packet)-len(segment))
	}
}

// note takes a SYN as gVisor sends it, and returns the timestamp it is to leave with.
func (c *synClocks) note(first synClock) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.place(first.sequence)
	if seen.ports != first.ports || seen.sequence != first.sequence || seen.at.IsZero() {
		*seen = first
		return first.latest
	}
	seen.latest = first.latest + uint32(first.at.Sub(seen.at).Milliseconds()) // gVisor counts milliseconds
	return seen.latest
}

// answered takes the echo out of a SYN-ACK that does not answer the last copy of a SYN: a server that got a copy before, whose answer
// was lost, goes on to echo that one's time. RFC 6298 section 3: what was sent again gives no sample. segment is intact, and its checksum is
// not looked at any more.
func (c *synClocks) answered(segment []byte) {
	timestamp := timestampOption(segment)
	if timestamp == nil {
		return
	}
	ports := bits.RotateLeft32(binary.BigEndian.Uint32(segment), 16) // as we send them
	sequence := binary.BigEndian.Uint32(segment[tcpAcknowledgment:]) - 1
	c.mu.Lock()
	seen := *c.place(sequence)
	c.mu.Unlock()
	if echo := timestamp[4:]; seen.ports == ports && seen.sequence == sequence && seen.latest != binary.BigEndian.Uint32(echo) {
		clear(echo)
	}
}

func (c *synClocks) place(sequence uint32) *synClock { return &c.seen[sequence%uint32(len(c.seen))] }

// timestampOption is the value and the echo of a TCP segment's timestamp, eight bytes (RFC 7323 section 3.2); nil: it has none.
func timestampOption(segment []byte) []byte {
	end := int(segment[tcpOffset]>>4) * 4
	if end < tcpHeaderLen || end > len(segment) {
		return nil
	}
	for options := segment[tcpHeaderLen:end]; len(options) > 0; {
		switch {
		case options[0] == optionEnd:
			return nil
		case options[0] == optionNoOperation:
			options = options[1:]
		case len(options) < 2 || options[1] < 2 || int(options[1]) > len(options):
			return nil
		case options[0] == optionTimestamp && options[1] == timestampLen:
			return options[2:timestampLen]
		default:
			options = options[options[1]:]
		}
	}
	return nil
}
