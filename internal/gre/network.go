package gre

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"gateway/internal/udpbatch"
)

const (
	linkMTU      = 1480    // bytes of a GRE packet, as over Ethernet
	linkBuffer   = 4 << 20 // bytes that wait for a reader; more are dropped, as a socket does
	linkOverhead = 64      // bytes that each packet counts for beside its own
	linkMessage  = 64      // packets of one Message at most
	callIDOffset = 6       // in the GRE header
)

// A Network carries GRE packets between the links of one process. Like a host's raw sockets, all links of an address get what is sent to
// it, but for the sender.
type Network struct {
	mu    sync.RWMutex
	links map[netip.Addr][]*Link
}

// NewNetwork returns a network without links.
func NewNetwork() *Network { return &Network{links: make(map[netip.Addr][]*Link)} }

// A Link is an end of a Network and does what a Conn does. Read belongs to one goroutine; everything else may be called by any.
type Link struct {
	network *Network
	address netip.Addr

	mu       sync.Mutex
	inbox    inbox
	expected []uint16 // Call IDs that pass
	all      bool     // all pass
	deadline time.Time
	closed   bool
	drops    uint64

	wake  chan struct{} // there is news for Read; never more than one
	timer *time.Timer   // of Read

	reading  inbox // what the last Read returned
	packets  [][]byte
	messages []udpbatch.Message
}

// inbox holds packets one after another.
type inbox struct {
	bytes   []byte
	arrived []arrival
}

type arrival struct {
	from netip.Addr
	end  int // in bytes
}

// Open makes a link with an address.
func (n *Network) Open(address netip.Addr) *Link {
	l := &Link{network: n, address: address.Unmap(), wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	l.timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[l.address] = append(n.links[l.address], l)
	return l
}

// WritePackets delivers packets[i][offset:] to the links of an address. What they have no room for is lost.
func (l *Link) WritePackets(packets [][]byte, offset int, to netip.Addr) error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	l.network.mu.RLock()
	defer l.network.mu.RUnlock()
	for _, other := range l.network.links[to.Unmap()] {
		if other != l {
			other.deliver(l.address, packets, offset)
		}
	}
	return nil
}

func (l *Link) deliver(from netip.Addr, packets [][]byte, offset int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range packets {
		p = p[offset:]
		if !l.passes(p) {
			continue
		}
		if len(l.inbox.bytes)+len(l.inbox.arrived)*linkOverhead+len(p) > linkBuffer {
			l.drops++
			continue
		}
		l.inbox.bytes = append(l.inbox.bytes, p...)
		l.inbox.arrived = append(l.inbox.arrived, arrival{from, len(l.inbox.bytes)})
	}
	if len(l.inbox.arrived) > 0 {
		l.signal()
	}
}

// passes is the filter: by Call ID, as the one of a Conn.
func (l *Link) passes(packet []byte) bool {
	if len(packet) < callIDOffset+2 {
		return false
	}
	return l.all || slices.Contains(l.expected, binary.BigEndian.Uint16(packet[callIDOffset:]))
}

func (l *Link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Read does what Conn.Read does.
func (l *Link) Read() ([]udpbatch.Message, error) {
	for {
		deadline, err := l.take()
		if err != nil {
			return nil, err
		}
		if len(l.reading.arrived) > 0 {
			return l.cut(), nil
		}
		if !deadline.IsZero() {
			l.timer.Reset(time.Until(deadline))
		}
		select {
		case <-l.wake:
		case <-l.timer.C:
		}
		l.timer.Stop()
	}
}

// take moves what has come to where Read may look at it, or tells the deadline for waiting.
func (l *Link) take() (deadline time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading.bytes, l.reading.arrived = l.reading.bytes[:0], l.reading.arrived[:0]
	switch {
	case l.closed:
		return deadline, net.ErrClosed
	case !l.deadline.IsZero() && !time.Now().Before(l.deadline):
		return deadline, os.ErrDeadlineExceeded
	}
	l.inbox, l.reading = l.reading, l.inbox
	return l.deadline, nil
}

// cut makes messages of what was taken.
func (l *Link) cut() []udpbatch.Message {
	l.packets, l.messages = l.packets[:0], l.messages[:0]
	start := 0
	for _, a := range l.reading.arrived {
		l.packets = append(l.packets, l.reading.bytes[start:a.end:a.end])
		start = a.end
	}
	for first := 0; first < len(l.packets); {
		from, last := l.reading.arrived[first].from, first+1
		for last < len(l.packets) && last-first < linkMessage && l.reading.arrived[last].from == from {
			last++
		}
		l.messages = append(l.messages, udpbatch.Message{From: netip.AddrPortFrom(from, 0), Datagrams: l.packets[first:last:last]})
		first = last
	}
	return l.messages
}

// Headroom is 0.
func (l *Link) Headroom() int { return 0 }

// Tailroom is 0.
func (l *Link) Tailroom() int { return 0 }

// MTU is 1480, as over Ethernet.
func (l *Link) MTU(netip.Addr) int { return linkMTU }

// Expect does what Conn.Expect does.
func (l *Link) Expect(callIDs []uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected, l.all = append(l.expected[:0], callIDs...), false
	return nil
}

// ExpectAll does what Conn.ExpectAll does.
func (l *Link) ExpectAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = true
	return nil
}

// SetReadDeadline does what Conn.SetReadDeadline does.
func (l *Link) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.deadline = t
	l.signal()
	return nil
}

// Stats counts what was lost for want of room.
func (l *Link) Stats() udpbatch.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return udpbatch.Stats{ReceiveDrops: l.drops}
}

// Close does what Conn.Close does.
func (l *Link) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.signal()
	l.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	n := l.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[l.address] = slices.DeleteFunc(n.links[l.address], func(other *Link) bool { return other == l })
	if len(n.links[l.address]) == 0 {
		delete(n.links, l.address)
	}
	return nil
}
