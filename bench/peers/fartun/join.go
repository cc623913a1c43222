package fartun

import (
	"encoding/binary"
	"slices"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	joinedMax    = 64000 // bytes of a joined packet
	ipHeader     = header.IPv4MinimumSize
	headersMin   = ipHeader + header.TCPMinimumSize
	fragmentBits = 0x3fff // of the IPv4 header's bytes 6 and 7: more fragments, offset
	flagsAt      = ipHeader + header.TCPFlagsOffset
)

// A joiner checks arriving packets and joins consecutive segments of one flow.
type joiner struct {
	deliver  func(*stack.PacketBuffer)
	view     *buffer.View // what is being joined, or nil
	headers  int          // bytes of its headers
	segment  int          // bytes of payload of each of its segments
	segments int
	next     uint32 // sequence number
}

// add takes a packet; a wrong one is dropped.
func (j *joiner) add(p []byte) {
	if p = checked(p); p == nil {
		return
	}
	headers, ok := joinable(p)
	if !ok {
		j.flush()
		j.send(buffer.MakeWithData(p))
		return
	}
	payload := len(p) - headers
	if j.view != nil && j.follows(p, headers) {
		j.view.Write(p[headers:])
		j.view.AsSlice()[flagsAt] |= p[flagsAt]
		j.segments++
		j.next += uint32(payload)
	} else {
		j.flush()
		j.view = buffer.NewView(joinedMax)
		j.view.Write(p)
		j.headers, j.segment, j.segments = headers, payload, 1
		j.next = header.TCP(p[ipHeader:]).SequenceNumber() + uint32(payload)
	}
	if payload < j.segment || header.TCPFlags(p[flagsAt])&header.TCPFlagPsh != 0 {
		j.flush()
	}
}

// flush delivers what has been joined.
func (j *joiner) flush() {
	if j.view == nil {
		return
	}
	if j.segments > 1 {
		ip := header.IPv4(j.view.AsSlice())
		ip.SetTotalLength(uint16(len(ip)))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
	}
	view := j.view
	j.view = nil
	j.send(buffer.MakeWithView(view))
}

func (j *joiner) send(b buffer.Buffer) {
	j.deliver(stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b}))
}

// checked returns p without what is behind it, or nil if a length or a checksum is wrong.
func checked(p []byte) []byte {
	if len(p) < ipHeader || p[0]>>4 != 4 {
		return nil
	}
	ip := header.IPv4(p)
	headerLength, length := int(ip.HeaderLength()), int(ip.TotalLength())
	if headerLength < ipHeader || length < headerLength || length > len(p) || !ip.IsChecksumValid() {
		return nil
	}
	p = p[:length]
	t := p[headerLength:]
	hasChecksum := p[9] == byte(header.TCPProtocolNumber) || p[9] == byte(header.UDPProtocolNumber) && len(t) >= header.UDPMinimumSize && t[6]|t[7] != 0
	if hasChecksum && binary.BigEndian.Uint16(p[6:])&fragmentBits == 0 {
		sum := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(p[9]), ip.SourceAddress(), ip.DestinationAddress(), uint16(len(t)))
		if checksum.Checksum(t, sum) != 0xffff {
			return nil
		}
	}
	return p
}

// joinable reports whether p is TCP with payload and nothing special, and the
// bytes of its headers.
func joinable(p []byte) (headers int, ok bool) {
	if p[0] != 0x45 || p[9] != byte(header.TCPProtocolNumber) || len(p) < headersMin || binary.BigEndian.Uint16(p[6:])&fragmentBits != 0 {
		return 0, false
	}
	headers = ipHeader + int(header.TCP(p[ipHeader:]).DataOffset())
	return headers, headers >= headersMin && headers < len(p) && header.TCPFlags(p[flagsAt])&^(header.TCPFlagAck|header.TCPFlagPsh) == 0
}

// follows reports whether p continues what is being joined: the same TOS, TTL,
// addresses, ports, acknowledgment, window and options, and the next sequence number.
func (j *joiner) follows(p []byte, headers int) bool {
	b := j.view.AsSlice()
	payload := len(p) - headers
	return headers == j.headers && header.TCP(p[ipHeader:]).SequenceNumber() == j.next && payload <= j.segment && len(b)+payload < joinedMax &&
		b[1] == p[1] && b[8] == p[8] && slices.Equal(b[12:24], p[12:24]) && slices.Equal(b[28:33], p[28:33]) &&
		slices.Equal(b[34:36], p[34:36]) && slices.Equal(b[headersMin:headers], p[headersMin:headers])
}
