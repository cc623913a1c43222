package ppp

import (
	"sync"

	"gateway/ppp/mppe"
)

// compressedProtocol is the length in bytes of the protocol field inside a compressed packet.
const compressedProtocol = 2

// A transmitter is the outbound half of the data path. Any goroutine may use it: mu keeps the order of what is
// compressed, encrypted and numbered. It is never held while anything is delivered inbound.
type transmitter struct {
	link     FrameWriter
	counters *counters

	mu sync.Mutex
	outlet
	ended  bool     // the link is gone
	frames [][]byte // the batch that is being built
}

// An outlet is how packets leave.
type outlet struct {
	gates
	encoder *mppe.Encoder // nil: packets leave as they are
	bare    bool          // the peer takes frames without address and control (ACFC, RFC 1661 section 6.6)
	mtu     int           // largest packet in bytes
}

// writePackets puts a frame header in front of each packet and hands the batch to the carrier.
func (t *transmitter) writePackets(packets [][]byte, offset int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return ErrClosed
	}
	for _, packet := range packets {
		protocol, ok := t.admit(packet[offset:])
		if !ok {
			continue
		}
		packet[offset-2], packet[offset-1] = byte(protocol>>8), byte(protocol)
		t.frames = append(t.frames, packet)
	}
	start := offset - 2 // of the frames
	if t.encoder != nil {
		t.encoder.Seal(t.frames, start)
		start = t.prefix(start-compressedHeader, byte(protocolCompressed>>8), byte(protocolCompressed&0xff))
	}
	if !t.bare {
		start = t.prefix(start, addressAllStations, controlUI)
	}
	return t.flush(start)
}

// prefix writes two octets in front of each frame, and returns where the frames then start.
func (t *transmitter) prefix(start int, first, second byte) int {
	for _, frame := range t.frames {
		frame[start-2], frame[start-1] = first, second
	}
	return start - 2
}

// admit names the protocol of a packet that may be sent now.
func (t *transmitter) admit(packet []byte) (protocol uint16, ok bool) {
	open := false
	if len(packet) > 0 {
		switch packet[0] >> 4 {
		case 4:
			protocol, open = protocolIPv4, t.ipv4
		case 6:
			protocol, open = protocolIPv6, t.ipv6
		}
	}
	switch {
	case !open:
		t.counters.notOpenOut.Add(1)
	case len(packet) > t.mtu:
		t.counters.tooLong.Add(1)
	default:
		return protocol, true
	}
	return 0, false
}

// flush hands the batch to the carrier and forgets it.
func (t *transmitter) flush(start int) error {
	if len(t.frames) == 0 {
		return nil
	}
	var bytes uint64
	for _, frame := range t.frames {
		bytes += uint64(len(frame) - start)
	}
	t.counters.framesOut.Add(uint64(len(t.frames)))
	t.counters.bytesOut.Add(bytes)
	err := t.link.WriteFrames(t.frames, start)
	clear(t.frames)
	t.frames = t.frames[:0]
	return err
}

// writeControl sends one control packet with a full header, since the peer may be in any phase (RFC 1661 sections 6.5
// and 6.6). What becomes of the carrier, the carrier tells by LinkDown.
func (t *transmitter) writeControl(protocol uint16, packet []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sendControl(protocol, packet)
}

// sendControl is writeControl with mu held.
func (t *transmitter) sendControl(protocol uint16, packet []byte) {
	headroom, tailroom := t.link.Headroom(), t.link.Tailroom()
	buf := make([]byte, headroom, headroom+frameHeader+len(packet)+tailroom)
	buf = appendFrame(buf, protocol, packet)
	if t.ended || len(buf)-headroom > t.link.MTU() {
		t.counters.tooLong.Add(1)
		return
	}
	t.frames = append(t.frames, buf)
	if err := t.flush(headroom); err != nil {
		t.counters.linkErrors.Add(1)
	}
}

// open sets what may leave, and how.
func (t *transmitter) open(o outlet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outlet = o
}

// restart sends a Reset-Ack, after which the next packet must be readable without those before it. Some peers (Linux)
// read nothing between, so no packet may come in between either (RFC 1962 section 3).
func (t *transmitter) restart(protocol uint16, ack []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sendControl(protocol, ack)
	if t.encoder != nil {
		t.encoder.Reset()
	}
}

// end lets nothing out any more.
func (t *transmitter) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended, t.outlet = true, outlet{}
}
