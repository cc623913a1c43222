package ppp

import (
	"sync/atomic"

	"gateway/ppp/mppe"
)

// Stats counts what went over a link since New. Bytes are those of the frames, headers included.
type Stats struct {
	FramesIn, BytesIn   uint64
	FramesOut, BytesOut uint64

	Malformed   uint64 // frames in: no valid protocol field, control packet or compressed packet
	NotOpen     uint64 // IP packets in, whose network protocol was not open
	NotOpenOut  uint64 // IP packets out, whose network protocol was not open, and packets of no IP version
	OutOfPhase  uint64 // control packets in, that came too early or too late
	Unsupported uint64 // frames in, of protocols that we do not speak
	TooLong     uint64 // packets out, longer than the MTU
	LinkErrors  uint64 // control packets out, that the carrier did not take

	Unencrypted   uint64 // IP packets in, that came in clear although encryption was agreed upon
	Late          uint64 // encrypted packets in, too late, twice or too far ahead for their key
	Lost          uint64 // encrypted or compressed packets in, unreadable because one before them was lost
	Garbled       uint64 // encrypted or compressed packets in, that made no sense
	ResetRequests uint64 // sent, to begin anew after a loss
	ResetAcks     uint64 // sent, in answer to those of the peer
}

// counters are the same for concurrent use.
type counters struct {
	framesIn, bytesIn, framesOut, bytesOut              atomic.Uint64
	malformed, notOpen, notOpenOut, outOfPhase, tooLong atomic.Uint64
	unsupported, linkErrors                             atomic.Uint64
	unencrypted, late, lost, garbled                    atomic.Uint64
	resetRequests, resetAcks                            atomic.Uint64
}

// undecoded counts a 00FD frame that gave no packet.
func (c *counters) undecoded(v mppe.Verdict) {
	switch v {
	case mppe.Duplicate, mppe.Late, mppe.TooFar:
		c.late.Add(1)
	case mppe.Lost:
		c.lost.Add(1)
	default:
		c.garbled.Add(1)
	}
}

// Stats returns the counters; any goroutine may ask.
func (s *Session) Stats() Stats {
	c := &s.counters
	return Stats{
		FramesIn: c.framesIn.Load(), BytesIn: c.bytesIn.Load(),
		FramesOut: c.framesOut.Load(), BytesOut: c.bytesOut.Load(),
		Malformed: c.malformed.Load(), NotOpen: c.notOpen.Load(), NotOpenOut: c.notOpenOut.Load(),
		OutOfPhase: c.outOfPhase.Load(), Unsupported: c.unsupported.Load(),
		TooLong: c.tooLong.Load(), LinkErrors: c.linkErrors.Load(),
		Unencrypted: c.unencrypted.Load(), Late: c.late.Load(), Lost: c.lost.Load(), Garbled: c.garbled.Load(),
		ResetRequests: c.resetRequests.Load(), ResetAcks: c.resetAcks.Load(),
	}
}
