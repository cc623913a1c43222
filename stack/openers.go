package stack

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A server may still be bringing its end of the link up when ours is: pppd does so after it has acknowledged our IPCP, and drops what
// comes before. TCP would send its SYN again only after a second (RFC 6298 section 2.1). So, until something comes from the far end,
// the packets that open a conversation are sent again after openerPause, and once more after twice that.
const (
	openerPause   = 100 * time.Millisecond
	openerRepeats = 2
	openersKept   = 8
)

// openers keeps such packets. Once the far end was heard, or what is kept was repeated, it does nothing any more.
type openers struct {
	send func(packet []byte)
	done atomic.Bool

	mu       sync.Mutex
	kept     [][]byte
	timer    *time.Timer
	repeated int
}

// sent is told of each packet that leaves and is not cut from a super-segment. It copies what it keeps.
func (o *openers) sent(packet []byte) {
	if o.done.Load() || !isOpener(packet) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done.Load() || len(o.kept) == openersKept {
		return
	}
	o.kept = append(o.kept, slices.Clone(packet))
	if o.timer == nil {
		o.timer = time.AfterFunc(openerPause, o.repeat)
	}
}

// heard is told of each batch that arrives. It takes no lock: the packet that is being repeated may be what it answers.
func (o *openers) heard() {
	if !o.done.Load() {
		o.done.Store(true)
	}
}

// repeat runs when the timer does.
func (o *openers) repeat() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, packet := range o.kept {
		if o.done.Load() {
			break
		}
		o.send(packet)
	}
	if o.repeated++; o.repeated == openerRepeats {
		o.done.Store(true)
	}
	if o.done.Load() {
		o.kept = nil
		return
	}
	o.timer.Reset(openerPause << o.repeated)
}

// close returns when nothing is being sent any more.
func (o *openers) close() {
	o.done.Store(true)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Stop()
	}
	o.kept = nil
}

// isOpener tells whether a packet of ours opens a TCP connection or asks a name server. Both may arrive twice.
func isOpener(packet []byte) bool {
	protocol, segment := transport(packet)
	switch {
	case protocol == protocolTCP && len(segment) >= tcpHeaderLen:
		return segment[tcpFlags]&(flagSYN|flagACK) == flagSYN
	case protocol == protocolUDP && len(segment) >= udpHeaderLen:
		return binary.BigEndian.Uint16(segment[udpDestination:]) == dnsPort
	}
	return false
}
