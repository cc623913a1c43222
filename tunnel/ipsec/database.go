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

// maxPairs bounds the pairs of one peer: the newest, and predecessors that have not ended.
const maxPairs = 8

// A Pair is what one Quick Mode agrees on with a peer: an SA in each direction (RFC 2409 section 5.5). The keys are not kept; they can be
// wiped when Install returns.
type Pair struct {
	Peer      netip.AddrPort // outer: where the peer's ESP comes from and ours goes to
	Transform Transform

	SPIIn, SPIOut   uint32 // chosen by us, chosen by the peer; from 256 on
	KeyIn, KeyOut   []byte // with the salt at the end if it is AES-GCM; see Transform.KeySizes
	AuthIn, AuthOut []byte

	Lifetime  time.Duration // after which the pair is dropped; 0 is never
	LifeBytes uint64        // of ESP, in either direction, after which nothing passes; 0 is no limit

	LocalPort uint16 // inner UDP port here; 0 means 1701
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
	keepalive bool
	roams     bool

	expires time.Time // its lifetime is over
	retires time.Time // it has had a successor for long enough; zero if it is the newest
	lowTold bool
}

func (p *pair) ends() time.Time { return earlier(p.expires, p.retires) }

// A peer is one whose pairs follow one another. It belongs to the loop, but for what is atomic.
type peer struct {
	address netip.AddrPort // under which the layer above knows it: the outer address of its first pair
	pairs   []*pair        // oldest first
	heard   time.Time      // a packet last verified
	tick    time.Time      // to look whether to send a keepalive; zero is never

	out   atomic.Pointer[outbound]       // of the newest pair; nil: nothing may leave
	outer atomic.Pointer[netip.AddrPort] // where it is now
	port  atomic.Uint32                  // inner UDP port
	sent  atomic.Bool                    // something was, since the last tick
}

func (p *peer) newest() *pair { return p.pairs[len(p.pairs)-1] }

// useNewest sends on the newest pair from now on.
func (p *peer) useNewest() {
	p.newest().retires = time.Time{}
	p.out.Store(p.newest().out)
}

// Install puts a pair to use and returns the address under which the layer above knows its peer: that of the peer's first pair. A pair with
// a peer that has one already succeeds it (rekeying): everything is sent on the new one at once, and the old one is received on for
// Config.RekeyGrace.
func (t *Transport) Install(now time.Time, p Pair) (netip.AddrPort, error) {
	p = p.withDefaults()
	if err := t.checkPair(p); err != nil {
		return netip.AddrPort{}, err
	}
	in, out, err := newSAs(p, t.config.Random, &t.low)
	if err != nil {
		return netip.AddrPort{}, err
	}
	owner := t.findPeer(p.Peer)
	if owner == nil {
		if len(t.peers) >= t.config.MaxPeers {
			return netip.AddrPort{}, ErrResources
		}
		owner = &peer{address: p.Peer}
		owner.port.Store(defaultPort)
		t.mu.Lock()
		t.peers[p.Peer] = owner
		t.mu.Unlock()
	}
	if len(owner.pairs) >= maxPairs {
		t.remove(owner.pairs[0], "too many")
	}
	added := &pair{peer: owner, transform: p.Transform, in: in, out: out, keepalive: p.Keepalive, roams: p.Roams}
	if p.Lifetime > 0 {
		added.expires = now.Add(p.Lifetime)
	}
	for _, old := range owner.pairs {
		old.lowTold = true // it has the successor that it may have wanted
		old.retires = earlier(old.retires, now.Add(t.config.RekeyGrace))
		t.schedule(old.ends())
	}
	owner.pairs = append(owner.pairs, added)
	owner.outer.Store(&p.Peer)
	if p.PeerPort != 0 {
		owner.port.Store(uint32(p.PeerPort))
	}
	owner.useNewest()
	t.inbound[p.SPIIn] = added
	t.schedule(added.ends())
	t.keepAlive(now, owner)
	t.config.Log.Info("SA pair up", "peer", owner.address, "transform", p.Transform, "spi_in", spiText(p.SPIIn), "spi_out", spiText(p.SPIOut))
	return owner.address, nil
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

// Remove ends a pair, and reports whether there was one. If it was the newest, its predecessor is used again, if there still is one.
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
	if len(owner.pairs) > 0 {
		owner.useNewest()
	} else {
		owner.out.Store(nil)
		t.mu.Lock()
		delete(t.peers, owner.address)
		t.mu.Unlock()
	}
	t.config.Log.Info("SA pair down", "peer", owner.address, "why", why, "spi_in", spiText(p.in.spi), "spi_out", spiText(p.out.spi))
}

// LastHeard is when a packet from the peer of a pair last verified, on whichever pair of that peer; zero is never.
func (t *Transport) LastHeard(spiIn uint32) time.Time {
	if p := t.inbound[spiIn]; p != nil {
		return p.peer.heard
	}
	return time.Time{}
}

// Advance does what is due by now: it ends pairs, asks for successors and sends keepalives. next is when to call it again; zero means never.
func (t *Transport) Advance(now time.Time) (next time.Time) {
	t.tellLow(now)
	if !due(t.next, now) {
		return t.next
	}
	t.next = time.Time{}
	for _, spi := range t.spis() {
		p := t.inbound[spi]
		switch {
		case p == nil: // a handler removed it
		case due(p.ends(), now):
			why := "lifetime is over"
			if due(p.retires, now) {
				why = "has had a successor"
			}
			t.remove(p, why)
			t.handler.PairDown(now, spi)
		default:
			t.schedule(p.ends())
		}
	}
	for _, owner := range t.peers {
		t.keepAlive(now, owner)
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
		if p := t.inbound[spi]; p != nil && !p.lowTold && p == p.peer.newest() && p.isLow() {
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
	if !p.newest().keepalive || t.config.KeepaliveInterval < 0 {
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
	t.schedule(p.tick)
}

// spis lists the pairs in an order that does not change from run to run, and that holds while handlers change the map.
func (t *Transport) spis() []uint32 { return slices.Sorted(maps.Keys(t.inbound)) }

func (t *Transport) schedule(deadline time.Time) { t.next = earlier(t.next, deadline) }

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// earlier of two deadlines, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func spiText(spi uint32) string { return fmt.Sprintf("%08x", spi) }
