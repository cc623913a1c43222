package ipsec

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Next headers (RFC 4303 section 2.6).
const (
	protocolUDP   = 17
	protocolDummy = 59
)

// budget is how much an SA may still carry in one direction (RFC 4301 section 4.4.2.1).
type budget struct {
	packets, bytes         uint64 // so far
	maxPackets, maxBytes   uint64 // 0 is no limit
	softPackets, softBytes uint64 // when a successor is wanted; 0 is never
}

// newBudget takes the limits of the keys' life in bytes, 0 for none, and of what the cipher stands.
func newBudget(lifeBytes uint64, e encryption) budget {
	b := budget{
		maxPackets:  math.MaxUint32, // numbers must not come again (RFC 4303 section 3.3.3)
		softPackets: math.MaxUint32 / 4 * 3,
		maxBytes:    lifeBytes,
		softBytes:   lifeBytes - lifeBytes/8,
	}
	if e.bytes > 0 && (b.softBytes == 0 || e.bytes < b.softBytes) {
		b.softBytes = e.bytes
	}
	return b
}

// spend takes a packet of n bytes from the budget, unless it is used up.
func (b *budget) spend(n int) bool {
	if b.packets >= b.maxPackets || b.maxBytes > 0 && b.bytes >= b.maxBytes {
		return false
	}
	b.packets++
	b.bytes += uint64(n)
	return true
}

// low reports whether it is time for a successor.
func (b *budget) low() bool {
	return b.packets >= b.softPackets || b.softBytes > 0 && b.bytes >= b.softBytes
}

// outbound is the SA that we send on. Any goroutine may use it.
type outbound struct {
	layout
	spi      uint32
	from     uint16       // inner UDP port: ours
	ipv6     bool         // which wants a checksum
	checksum pseudoHeader // if ipv6
	low      *atomic.Bool // set, once, when a successor is wanted

	mu         sync.Mutex
	protection protection // guarded by mu, as all below
	budget     budget     // budget.packets is the sequence number of the last packet
	lowTold    bool
}

var (
	errRoom  = errors.New("ipsec: too little room around a datagram")
	errLarge = errors.New("ipsec: datagram too long")
)

// seal appends to sealed the ESP packets of datagrams, each made around its datagram; they begin at start(offset). It seals none unless all
// have room. If the SA is used up on the way, the last ones are missing, and err is ErrNoSA.
func (sa *outbound) seal(sealed, datagrams [][]byte, offset int, to uint16) (_ [][]byte, err error) {
	if err := sa.checkRoom(datagrams, offset); err != nil {
		return sealed, err
	}
	start := sa.start(offset)
	sa.mu.Lock()
	defer sa.mu.Unlock()
	for _, d := range datagrams {
		if !sa.budget.spend(len(d) - start) {
			err = ErrNoSA
			break
		}
		sealed = append(sealed, sa.sealOne(d, offset, start, to))
	}
	if sa.budget.low() && !sa.lowTold {
		sa.lowTold = true
		sa.low.Store(true)
	}
	return sealed, err
}

// start is where in a buffer the packet begins whose datagram begins at offset.
func (sa *outbound) start(offset int) int { return offset - udpHeader - sa.lead() }

func (sa *outbound) checkRoom(datagrams [][]byte, offset int) error {
	if sa.start(offset) < 0 {
		return errRoom
	}
	for _, d := range datagrams {
		n := len(d) - offset + udpHeader
		if n > maxUDP {
			return errLarge
		}
		if len(d)+sa.padding(n)+trailer+sa.icv > cap(d) {
			return errRoom
		}
	}
	return nil
}

// sealOne makes the next packet (RFC 4303 section 3.3.2). Its number is the budget's count.
func (sa *outbound) sealOne(d []byte, offset, start int, to uint16) []byte {
	inner := d[offset-udpHeader:]
	putUDPHeader(inner, sa.from, to)
	if sa.ipv6 {
		sa.checksum.putChecksum(inner)
	}
	padding := sa.padding(len(inner))
	for i := range padding {
		d = append(d, byte(i+1))
	}
	d = append(d, byte(padding), protocolUDP)
	d = d[:len(d)+sa.icv]
	esp := d[start:]
	binary.BigEndian.PutUint32(esp, sa.spi)
	binary.BigEndian.PutUint32(esp[4:], uint32(sa.budget.packets))
	sa.protection.seal(esp)
	return d
}

// inbound is the SA that the peer sends on. It belongs to the loop.
type inbound struct {
	layout
	spi        uint32
	to         uint16 // inner UDP ports: ours,
	from       uint16 // and the peer's; 0 is any
	protection protection
	replay     replay
	budget     budget
	truncated  bool // the peer cuts HMAC-SHA-256 to 96 bits, and that has been told
}

// open takes an ESP packet apart in place, in the order of RFC 4303 section 3.4, and returns the datagram in it and the port that it came
// from. The datagram has no capacity beyond its end.
func (sa *inbound) open(esp []byte) (datagram []byte, from uint16, why drop) {
	size := len(esp) - sa.lead() - sa.icv
	if size < trailer || size%sa.block != 0 {
		return nil, 0, dropMalformed
	}
	number := binary.BigEndian.Uint32(esp[4:])
	switch {
	case !sa.replay.fresh(number):
		return nil, 0, dropReplayed
	case !sa.protection.open(esp):
		return nil, 0, dropForged
	}
	sa.replay.take(number)
	if !sa.budget.spend(len(esp)) {
		return nil, 0, dropUsedUp
	}
	return sa.payload(esp[sa.lead() : sa.lead()+size])
}

// payload takes trailer and inner UDP header off what has been decrypted.
func (sa *inbound) payload(text []byte) (datagram []byte, from uint16, why drop) {
	padding, next := int(text[len(text)-2]), text[len(text)-1]
	end := len(text) - trailer - padding
	if end < 0 || !isPadding(text[end:end+padding]) {
		return nil, 0, dropMalformed
	}
	switch next {
	case protocolUDP:
	case protocolDummy: // RFC 4303 section 2.6: made to be dropped
		return nil, 0, dropDummy
	default:
		return nil, 0, dropSelector
	}
	from, to, datagram, ok := parseUDP(text[:end])
	switch {
	case !ok:
		return nil, 0, dropMalformed
	case to != sa.to || sa.from != 0 && from != sa.from: // RFC 4301 section 5.2: what it carries must be what was agreed
		return nil, 0, dropSelector
	}
	return datagram, from, kept
}

// isPadding reports whether b is 1, 2, 3 and so on (RFC 4303 section 2.4).
func isPadding(b []byte) bool {
	for i, v := range b {
		if v != byte(i+1) {
			return false
		}
	}
	return true
}

// isTruncated reports whether a packet that was dropped would have been right, had the peer cut HMAC-SHA-256 to 96 bits. It is asked only
// before the first packet has verified, so that it costs little, and says yes once.
func (sa *inbound) isTruncated(t Transform, esp []byte) bool {
	p, ok := sa.protection.(*encryptThenMAC)
	const icv = 12
	if !ok || t.Integrity != HMACSHA256 || sa.budget.packets > 0 || sa.truncated || len(esp) < sa.lead()+icv {
		return false
	}
	sa.truncated = p.verify(esp, icv)
	return sa.truncated
}

// newSAs makes the two SAs of a pair, of which the outbound one sets low.
func newSAs(p Pair, random io.Reader, low *atomic.Bool) (*inbound, *outbound, error) {
	e := encryptions[p.Transform.Encryption]
	opener, err := opening(p.Transform, p.KeyIn, p.AuthIn)
	if err != nil {
		return nil, nil, err
	}
	sealer, err := sealing(p.Transform, p.KeyOut, p.AuthOut, random)
	if err != nil {
		return nil, nil, err
	}
	l := p.Transform.layout()
	in := &inbound{layout: l, spi: p.SPIIn, to: p.LocalPort, from: p.PeerPort, protection: opener, budget: newBudget(p.LifeBytes, e)}
	out := &outbound{layout: l, spi: p.SPIOut, from: p.LocalPort, low: low, protection: sealer, budget: newBudget(p.LifeBytes, e)}
	if out.ipv6 = p.Peer.Addr().Is6(); out.ipv6 {
		out.checksum = newPseudoHeader(p.Local, p.Peer.Addr())
	}
	return in, out, nil
}

// unmapped gives an address the one form in which it can be compared.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
