package stack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Offsets and flags of IP and TCP headers that both cut.go and join.go touch (RFC 791, 8200, 9293, 768).
const (
	ipv4HeaderLen  = 20
	ipv6HeaderLen  = 40
	tcpHeaderLen   = 20
	udpHeaderLen   = 8
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58

	ipv4Length   = 2
	ipv4ID       = 4
	ipv4Fragment = 6
	ipv4Protocol = 9
	ipv4Checksum = 10
	ipv4Source   = 12

	ipv6Length     = 4
	ipv6NextHeader = 6
	ipv6HopLimit   = 7
	ipv6Source     = 8

	tcpSequence       = 4
	tcpAcknowledgment = 8
	tcpOffset         = 12
	tcpFlags          = 13
	tcpWindow         = 14
	tcpChecksum       = 16

	udpDestination = 2

	flagFIN = 0x01
	flagSYN = 0x02
	flagPSH = 0x08
	flagACK = 0x10
	flagCWR = 0x80

	optionEnd         = 0 // RFC 9293 section 3.2
	optionNoOperation = 1
	optionTimestamp   = 8 // RFC 7323 section 3.2
	timestampLen      = 10
)

// A cutter turns one outbound packet or TCP super-segment, given as a list of parts, into packets for the link: each in a buffer with
// headroom and tailroom, all in one piece of memory at a fixed stride. It is reused and allocates nothing once it has grown.
type cutter struct {
	parts              [][]byte // input, in order
	headroom, tailroom int

	packets [][]byte // output of copyWhole or cut: packets[i][headroom:] is a packet
	bytes   int      // of all packets, without headroom and tailroom
	memory  []byte

	header   [120]byte // IP and TCP header of the super-segment: at most 60 bytes each
	ip, tcp  int       // their lengths
	mss      int
	left     int    // payload bytes not yet cut
	segment  int    // number of the next segment
	sequence uint32 // of the first segment
	id       uint16 // of the first segment's IPv4 header
}

// release forgets the input, which belongs to gVisor.
func (c *cutter) release() {
	clear(c.parts[:cap(c.parts)])
	c.parts = c.parts[:0]
}

func (c *cutter) size() (n int) {
	for _, p := range c.parts {
		n += len(p)
	}
	return n
}

// read moves len(dst) bytes from the parts to dst; there must be so many.
func (c *cutter) read(dst []byte) {
	i := 0
	for len(dst) > 0 {
		n := copy(dst, c.parts[i])
		dst = dst[n:]
		c.parts[i] = c.parts[i][n:]
		if len(c.parts[i]) == 0 {
			i++
		}
	}
	c.parts = c.parts[:copy(c.parts, c.parts[i:])]
}

// lay returns the buffers of n packets of at most size bytes each.
func (c *cutter) lay(n, size int) int {
	stride := c.headroom + size + c.tailroom
	if cap(c.memory) < n*stride {
		c.memory = make([]byte, n*stride)
	}
	c.memory = c.memory[:cap(c.memory)]
	c.packets = c.packets[:0]
	c.bytes = 0
	return stride
}

// next appends a packet of size bytes at the stride and returns it.
func (c *cutter) next(stride, size int) []byte {
	start := len(c.packets) * stride
	end := start + c.headroom + size
	c.packets = append(c.packets, c.memory[start:end:end+c.tailroom])
	c.bytes += size
	return c.memory[start+c.headroom : end]
}

// copyWhole makes the input one packet.
func (c *cutter) copyWhole() {
	size := c.size()
	c.read(c.next(c.lay(1, size), size))
}

// beginCut reads the headers of a super-segment, ip and tcp bytes long, whose data is to be cut into segments of mss bytes. It
// reports false if the lengths are impossible.
func (c *cutter) beginCut(ip, tcp, mss int) bool {
	c.left = c.size() - ip - tcp
	if ip < ipv4HeaderLen || tcp < tcpHeaderLen || ip+tcp > len(c.header) || c.left < 0 || c.left > 0 && mss <= 0 {
		return false
	}
	c.ip, c.tcp, c.mss, c.segment = ip, tcp, mss, 0
	c.read(c.header[:ip+tcp])
	c.sequence = binary.BigEndian.Uint32(c.header[ip+tcpSequence:])
	c.id = binary.BigEndian.Uint16(c.header[ipv4ID:])
	return true
}

// cut makes the next packets, at most maxSegments, and reports whether there were any.
func (c *cutter) cut() bool {
	if c.left == 0 && c.segment > 0 {
		return false
	}
	full := min(c.mss, c.left)
	n := 1
	if full > 0 {
		n = min(maxSegments, (c.left+c.mss-1)/c.mss)
	}
	stride := c.lay(n, c.ip+c.tcp+full)
	for range n {
		size := min(c.mss, c.left)
		packet := c.next(stride, c.ip+c.tcp+size)
		copy(packet, c.header[:c.ip+c.tcp])
		c.read(packet[c.ip+c.tcp:])
		c.left -= size
		c.setHeaders(packet)
		c.segment++
	}
	return true
}

// setHeaders makes the copied headers those of the current segment: sequence number, flags, lengths and checksums.
func (c *cutter) setHeaders(packet []byte) {
	segment := packet[c.ip:]
	binary.BigEndian.PutUint32(segment[tcpSequence:], c.sequence+uint32(c.segment*c.mss))
	if c.left > 0 {
		segment[tcpFlags] &^= flagFIN | flagPSH // they belong to the last byte
	}
	if c.segment > 0 {
		segment[tcpFlags] &^= flagCWR // RFC 3168 section 6.1.2: said once
	}
	if packet[0]>>4 == 4 {
		binary.BigEndian.PutUint16(packet[ipv4Length:], uint16(len(packet)))
		binary.BigEndian.PutUint16(packet[ipv4ID:], c.id+uint16(c.segment))
		binary.BigEndian.PutUint16(packet[ipv4Checksum:], 0)
		binary.BigEndian.PutUint16(packet[ipv4Checksum:], ^checksum.Checksum(packet[:c.ip], 0))
	} else {
		binary.BigEndian.PutUint16(packet[ipv6Length:], uint16(len(packet)-ipv6HeaderLen))
	}
	setTCPChecksum(packet, c.ip)
}

// setTCPChecksum writes the checksum of a TCP packet with an IP header of ip bytes.
func setTCPChecksum(packet []byte, ip int) {
	addresses := packet[ipv4Source : ipv4Source+8]
	if packet[0]>>4 == 6 {
		addresses = packet[ipv6Source : ipv6Source+32]
	}
	segment := packet[ip:]
	binary.BigEndian.PutUint16(segment[tcpChecksum:], 0)
	binary.BigEndian.PutUint16(segment[tcpChecksum:], ^checksum.Checksum(segment, pseudoHeader(addresses, len(segment))))
}

// pseudoHeader is the sum over the TCP pseudo-header: source and destination address, protocol and length (RFC 9293 section 3.1,
// RFC 8200 section 8.1).
func pseudoHeader(addresses []byte, length int) uint16 {
	return checksum.Combine(checksum.Checksum(addresses, 0), checksum.Combine(protocolTCP, uint16(length)))
}

// transport returns the protocol and the payload of an IP packet that has neither options nor extension headers.
func transport(packet []byte) (protocol byte, payload []byte) {
	switch {
	case len(packet) >= ipv4HeaderLen && packet[0] == 0x45:
		return packet[ipv4Protocol], packet[ipv4HeaderLen:]
	case len(packet) >= ipv6HeaderLen && packet[0]>>4 == 6:
		return packet[ipv6NextHeader], packet[ipv6HeaderLen:]
	}
	return 0, nil
}
