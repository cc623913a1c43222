package fartun

import (
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A cutter cuts one packet that the stack wrote into packets of the MTU.
type cutter struct {
	packet   *stack.PacketBuffer
	slices   [][]byte // of the packet
	at       int      // bytes of slices[0] that are used up
	headers  []byte   // IP and TCP; empty: the packet is not to be cut
	ipLength int
	mss      int
	left     int // bytes of payload
	sent     int // bytes of payload
}

func (c *cutter) empty() bool { return c.packet == nil }

// start takes a packet over.
func (c *cutter) start(p *stack.PacketBuffer) {
	*c = cutter{packet: p, slices: p.AsSlices(), headers: c.headers[:0]}
	gso := &p.GSOOptions
	if gso.Type != stack.GSOTCPv4 || !gso.NeedsCsum {
		return
	}
	ip, tcp := p.NetworkHeader().Slice(), p.TransportHeader().Slice()
	c.headers = append(append(c.headers, ip...), tcp...)
	c.ipLength, c.mss = len(ip), max(int(gso.MSS), 1)
	c.left = p.Size() - len(c.headers)
	c.take(nil, len(c.headers))
}

// take appends the next n bytes to dst, or skips them if it is nil.
func (c *cutter) take(dst []byte, n int) []byte {
	for n > 0 {
		piece := c.slices[0][c.at:]
		piece = piece[:min(n, len(piece))]
		if dst != nil {
			dst = append(dst, piece...)
		}
		n -= len(piece)
		if c.at += len(piece); c.at == len(c.slices[0]) {
			c.slices, c.at = c.slices[1:], 0
		}
	}
	return dst
}

// next writes the next packet to dst and returns its length.
func (c *cutter) next(dst []byte) int {
	b := dst[:0]
	if len(c.headers) == 0 {
		for _, s := range c.slices {
			b = append(b, s...)
		}
		c.end()
		return len(b)
	}
	n := min(c.mss, c.left)
	b = c.take(append(b, c.headers...), n)
	c.left -= n
	c.complete(b)
	if c.sent += n; c.left == 0 {
		c.end()
	}
	return len(b)
}

// complete sets what differs between the packets that one is cut into.
func (c *cutter) complete(b []byte) {
	ip, tcp := header.IPv4(b), header.TCP(b[c.ipLength:len(c.headers):len(c.headers)])
	ip.SetTotalLength(uint16(len(b)))
	ip.SetID(ip.ID() + uint16(c.sent/c.mss))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp.SetSequenceNumber(tcp.SequenceNumber() + uint32(c.sent))
	if c.left > 0 {
		tcp.SetFlags(uint8(tcp.Flags() &^ (header.TCPFlagPsh | header.TCPFlagFin)))
	}
	tcp.SetChecksum(0)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(b)-c.ipLength))
	tcp.SetChecksum(^tcp.CalculateChecksum(checksum.Checksum(b[len(c.headers):], sum)))
}

func (c *cutter) end() {
	c.packet.DecRef()
	c.packet = nil
}
