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
	at       time.Time // when it first left,
	first    uint32    // the timestamp it had then,
	latest   uint32    // and the one it last left with
}

// stamp gives a SYN that left before the timestamp that it had then and what has passed since. packet is one of our own, and whole.
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
	was := binary.BigEndian.Uint32(value)
	now := c.note(binary.BigEndian.Uint32(segment), binary.BigEndian.Uint32(segment[tcpSequence:]), was)
	if now != was {
		binary.BigEndian.PutUint32(value, now)
		setTCPChecksum(packet, len(packet)-len(segment))
	}
}

// note takes a SYN as gVisor sends it, and returns the timestamp it is to leave with. gVisor's own is the right one when it is the answer to
// another copy of the far end's SYN; so it does not count once there is a first.
func (c *synClocks) note(ports, sequence, timestamp uint32) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.place(sequence)
	now := time.Now()
	if seen.ports != ports || seen.sequence != sequence || seen.at.IsZero() {
		*seen = synClock{ports, sequence, now, timestamp, timestamp}
	}
	seen.latest = seen.first + uint32(now.Sub(seen.at).Milliseconds()) // gVisor counts milliseconds
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
