package gre

import (
	"log/slog"
	"net/netip"
	"time"

	"gateway/internal/udpbatch"
)

// Config says how to open a Conn. The zero value is a socket for any number of peers.
type Config struct {
	Server netip.Addr // the one peer; an invalid address means any number of them
	Local  netip.Addr // address to send from; an invalid one leaves it to the routes

	DisableBatch bool // one packet a system call instead of recvmmsg and sendmmsg

	ReadBuffer, WriteBuffer int // bytes of the socket's buffers, as in udpbatch.Config
	OuterMTU                int // bytes of the largest outer IP packet; 0 asks the route and takes at most 1500

	Log *slog.Logger // nil is silence
}

// A Conn is a raw GRE socket. Read belongs to one goroutine; everything else may be called by any.
type Conn struct {
	packets *udpbatch.Conn
	filter  *filter
}

// Read waits for GRE packets and returns all that are there, up to one batch, without their IP headers: consecutive ones of one source share
// a Message, whose port is 0. It fails as udpbatch.Conn.Read does: with os.ErrDeadlineExceeded, net.ErrClosed, a *udpbatch.PeerError
// (an ICMP error; read on), or an error of the socket. The messages are valid, and the reader's to overwrite, until the next Read.
func (c *Conn) Read() ([]udpbatch.Message, error) {
	for {
		messages, err := c.packets.Read()
		if err != nil {
			return nil, err
		}
		if messages = payloads(messages); len(messages) > 0 {
			return messages, nil
		}
	}
}

// payloads takes the IP headers off, in place.
func payloads(messages []udpbatch.Message) []udpbatch.Message {
	kept := messages[:0]
	for _, m := range messages {
		packets := m.Datagrams[:0]
		for _, p := range m.Datagrams {
			if payload := ipv4Payload(p); payload != nil {
				packets = append(packets, payload)
			}
		}
		if len(packets) > 0 {
			kept = append(kept, udpbatch.Message{From: m.From, Datagrams: packets})
		}
	}
	return kept
}

// ipv4Payload is what follows the IPv4 header (RFC 791 section 3.1); nil if there is nothing or no such header.
func ipv4Payload(packet []byte) []byte {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return nil
	}
	size := int(packet[0]&0x0f) * 4
	if size < 20 || size >= len(packet) {
		return nil
	}
	return packet[size:]
}

// WritePackets sends packets[i][offset:], each of which begins with its GRE header, in order. The buffers are borrowed until it returns and are
// not changed. It waits for a full send buffer, and fails, as udpbatch.Conn.WriteDatagrams does.
func (c *Conn) WritePackets(packets [][]byte, offset int, to netip.Addr) error {
	return c.packets.WriteDatagrams(packets, offset, netip.AddrPortFrom(to, 0))
}

// Headroom is how many bytes WritePackets needs in front of each packet: none.
func (c *Conn) Headroom() int { return 0 }

// Tailroom is how many bytes WritePackets needs behind each packet: none.
func (c *Conn) Tailroom() int { return 0 }

// MTU is the largest GRE packet, in bytes, that reaches the peer unfragmented as far as this host knows: 1480 over Ethernet.
func (c *Conn) MTU(to netip.Addr) int { return c.packets.MTU(netip.AddrPortFrom(to, 0)) }

// SetReadDeadline makes Read fail with os.ErrDeadlineExceeded from t on; the zero time means never. It also ends a Read under way.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.packets.SetReadDeadline(t) }

// Stats returns the totals so far.
func (c *Conn) Stats() udpbatch.Stats { return c.packets.Stats() }

// Expect lets the packets to these Call IDs pass, and no others.
func (c *Conn) Expect(callIDs []uint16) error { return c.filter.set(callIDs) }

// ExpectAll lets the packets to all Call IDs pass.
func (c *Conn) ExpectAll() error { return c.filter.setAll() }

// Close ends a Read under way and makes everything else fail with net.ErrClosed.
func (c *Conn) Close() error {
	c.filter.close()
	return c.packets.Close()
}
