package ipsec

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// maxPairs bounds the pairs of one peer: the newest, its predecessors, and those expected.
const maxPairs = 8

// A Pair is what one Quick Mode agrees on with a peer: an SA in each direction (RFC 2409 section 5.5). The keys are not kept; they can be
// wiped when Install returns.
type Pair struct {
	Peer      netip.AddrPort // outer: where the peer's ESP comes from and ours goes to
	Transform Transform

	SPIIn, SPIOut   uint32 // chosen by us, chosen by the peer; from 256 on
	KeyIn, KeyOut   []byte // with the salt at the end if it is AES-GCM; see Transform.KeySizes
	AuthIn, AuthOut []byte

	LifeBytes uint64 // of ESP, in either direction, after which nothing passes; 0 is no limit

	// LocalPort is the inner UDP port here; 0 means 1701. Linux servers take a tunnel for an earlier one of the same address and port that
	// died without their knowing; a port for each connection avoids that, where the server's policy lets it pass.
	LocalPort uint16
	PeerPort  uint16 // inner UDP port there; 0 means any: the one last heard from, until then 1701

	Local     netip.Addr // our address as the peer's checksums have it; only needed if Peer is IPv6
	Keepalive bool       // we are behind a NAT, or say so: keep its mapping (RFC 3948 section 4)
	Roams     bool       // follow the peer when its verified packets come from another address, as after its NAT has restarted
}

// Errors of Install.
var (
	ErrSPI       = errors.New("ipsec: SPI reserved or in use")
	ErrResources = errors.New("ipsec: too many peers")
)

var (
	errNull    = errors.New("ipsec: encryption with NULL is not allowed")
	errAddress = errors.New("ipsec: address missing")
)

// A pair is a Pair in use. It belongs to the loop.
type pair struct {
	peer      *peer
	transform Transform
	in        *inbound
	out       *outbound
	innerPort uint16 // the peer's; 0 is any
	keepalive bool
	roams     bool
	sending   bool // it is, or has been, sent on
	lowTold   bool
}

// is reports whether p is a Pair that was given before.
func (p *pair) is(given Pair) bool {
	return p.out.spi == given.SPIOut && p.transform == given.Transform
}

// A peer is one whose pairs follow one another. It belongs to the loop, but for what is atomic.
type peer struct {
	address netip.AddrPort // under which the layer above knows it: the outer address of its first pair
	pairs   []*pair        // oldest first
	current *pair          // the one that is sent on; nil is none
	tick    time.Time      // to look whether to send a keepalive; zero is never

	out   atomic.Pointer[outbound]       // of current; nil: nothing may leave
	outer atomic.Pointer[netip.AddrPort] // where it is now
	port  atomic.Uint32                  // inner UDP port
	sent  atomic.Bool                    // something was, since the last tick
}

// send makes a pair the one that is sent on; nil is none.
func (p *peer) send(on *pair) {
	p.current = on
	if on == nil {
		p.out.Store(nil)
		return
	}
	on.sending = true
	p.out.Store(on.out)
}

// Expect receives on a pair, and sends on it only after Install, or when the first packet on it shows that the peer has it. IKE's responder
// needs that: the initiator may use the pair before its last message is here (RFC 2409 section 5.5). See Install for what is returned.
func (t *Transport) Expect(p Pair) (netip.AddrPort, error) {
	added, err := t.add(p)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return added.peer.address, nil
}

// Install puts a pair to use, expected or not, and returns the address under which the layer above knows its peer: that of the peer's first
// pair. A pair with a peer that has one already succeeds it (rekeying): everything is sent on the new one at once, and the old one is
// received on until it is removed. A pair that is in use stays so.
func (t *Transport) Install(now time.Time, p Pair) (_ netip.AddrPort, err error) {
	added := t.inbound[p.SPIIn]
	if added == nil || !added.is(p) {
		if added, err = t.add(p); err != nil {
			return netip.AddrPort{}, err
		}
	}
	if !added.sending {
		outer := unmapped(p.Peer)
		added.peer.outer.Store(&outer)
		t.use(now, added)
	}
	return added.peer.address, nil
}

// add makes a pair that is received on.
func (t *Transport) add(p Pair) (*pair, error) {
	p = p.withDefaults()
	if err := t.checkPair(p); err != nil {
		return nil, err
	}
	in, out, err := newSAs(p, t.config.Random, &t.low)
	if err != nil {
		return nil, err
	}
	owner := t.findPeer(p.Peer)
	if owner == nil {
		if len(t.peers) >= t.config.MaxPeers {
			return nil, ErrResources
		}
		owner = t.newPeer(p.Peer)
	}
	if len(owner.pairs) >= maxPairs {
		t.remove(owner.oldest(), "too many")
	}
	added := &pair{peer: owner, transform: p.Transform, in: in, out: out, innerPort: p.PeerPort, keepalive: p.Keepalive, roams: p.Roams}
	owner.pairs = append(owner.pairs, added)
	t.inbound[p.SPIIn] = added
	return added, nil
}

func (t *Transport) newPeer(address netip.AddrPort) *peer {
	p := &peer{address: address}
	p.outer.Store(&address)
	p.port.Store(defaultPort)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[address] = p
	return p
}

// use sends on a pair from now on.
func (t *Transport) use(now time.Time, p *pair) {
	owner := p.peer
	if p.innerPort != 0 {
		owner.port.Store(uint32(p.innerPort))
	}
	owner.send(p)
	t.keepAlive(now, owner)
	t.config.Log.Info("SA pair up", "peer", owner.address, "transform", p.transform.String(), "spi_in", spiText(p.in.spi), "spi_out", spiText(p.out.spi))
}

const defaultPort = 1701 // L2TP (RFC 3193 section 4)

func (p Pair) withDefaults() Pair {
	p.Peer = unmapped(p.Peer)
	if p.LocalPort == 0 {
		p.LocalPort = defaultPort
	}
	return p
}

// checkPair checks what newSAs does not.
func (t *Transport) checkPair(p Pair) error {
	const reserved = 256 // RFC 4303 section 2.1; 0 is besides the non-ESP marker
	switch {
	case p.Transform.check() != nil:
		return p.Transform.check()
	case p.SPIIn < reserved || p.SPIOut < reserved || t.inbound[p.SPIIn] != nil:
		return fmt.Errorf("%w: %#x, %#x", ErrSPI, p.SPIIn, p.SPIOut)
	case !p.Peer.IsValid() || p.Peer.Port() == 0:
		return fmt.Errorf("%w: the peer's", errAddress)
	case p.Peer.Addr().Is6() && !p.Local.Is6():
		return fmt.Errorf("%w: our own in IPv6", errAddress)
	case p.Transform.Encryption == Null && !t.config.AllowNull:
		return errNull
	}
	return nil
}

// findPeer finds a peer by the address that it is at now, or else by the one that the layer above knows.
func (t *Transport) findPeer(address netip.AddrPort) *peer {
	for _, p := range t.peers {
		if *p.outer.Load() == address {
			return p
		}
	}
	return t.peers[address]
}

// Remove ends a pair, and reports whether there was one. If it was the one that is sent on, its predecessor is again, if there still is one.
func (t *Transport) Remove(spiIn uint32) bool {
	p := t.inbound[spiIn]
	if p != nil {
		t.remove(p, "removed")
	}
	return p != nil
}

// remove forgets a pair, and its peer with the last one.
func (t *Transport) remove(p *pair, why string) {
	owner := p.peer
	delete(t.inbound, p.in.spi)
	owner.pairs = slices.DeleteFunc(owner.pairs, func(q *pair) bool { return q == p })
	if owner.current == p {
		owner.send(owner.predecessor())
	}
	if len(owner.pairs) == 0 {
		t.mu.Lock()
		delete(t.peers, owner.address)
		t.mu.Unlock()
	}
	t.config.Log.Info("SA pair down", "peer", owner.address, "why", why, "spi_in", spiText(p.in.spi), "spi_out", spiText(p.out.spi))
}

// predecessor is the newest pair that was sent on before; nil is none.
func (p *peer) predecessor() *pair {
	for _, q := range slices.Backward(p.pairs) {
		if q.sending {
			return q
		}
	}
	return nil
}

// oldest is the oldest pair that is not sent on.
func (p *peer) oldest() *pair {
	if p.pairs[0] == p.current {
		return p.pairs[1]
	}
	return p.pairs[0]
}

// Advance does what is due by now: it asks for successors and sends keepalives. next is when to call it again; zero means never.
func (t *Transport) Advance(now time.Time) (next time.Time) {
	t.tellLow(now)
	if !due(t.next, now) {
		return t.next
	}
	t.next = time.Time{}
	for _, p := range t.peers {
		t.keepAlive(now, p)
	}
	return t.next
}

// NextDeadline is when Advance is to be called; zero means never.
func (t *Transport) NextDeadline() time.Time { return t.next }

// tellLow passes on that pairs want a successor, once each.
func (t *Transport) tellLow(now time.Time) {
	if !t.low.Load() || !t.low.Swap(false) {
		return
	}
	for _, spi := range t.spis() {
		if p := t.inbound[spi]; p != nil && !p.lowTold && p == p.peer.current && p.isLow() {
			p.lowTold = true
			t.handler.RekeyWanted(now, spi)
		}
	}
}

func (p *pair) isLow() bool {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.in.budget.low() || p.out.budget.low()
}

// keepAlive sends a keepalive if a NAT may otherwise forget the peer. It looks twice in an interval, so that silence does not exceed one.
func (t *Transport) keepAlive(now time.Time, p *peer) {
	if p.current == nil || !p.current.keepalive || t.config.KeepaliveInterval < 0 {
		p.tick = time.Time{}
		return
	}
	if p.tick.IsZero() {
		p.sent.Store(true)
		p.tick = now
	}
	if due(p.tick, now) {
		p.tick = now.Add(t.config.KeepaliveInterval / 2)
		if !p.sent.Swap(false) {
			t.sendKeepalive(p)
		}
	}
	t.next = earlier(t.next, p.tick)
}

// spis lists the pairs in an order that does not change from run to run, and that holds while handlers change the map.
func (t *Transport) spis() []uint32 { return slices.Sorted(maps.Keys(t.inbound)) }

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// earlier of two deadlines, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func spiText(spi uint32) string { return fmt.Sprintf("%08x", spi) }
