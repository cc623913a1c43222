package ipsec

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	defaultKeepaliveInterval = 20 * time.Second // RFC 3948 section 4
	defaultMaxPeers          = 1024
)

// Config is how a Transport behaves. Its zero value is the default.
type Config struct {
	KeepaliveInterval time.Duration // the longest silence towards a peer whose Pair wants keepalives; 0 means 20 s, less than 0 none
	MaxPeers          int           // at a time; 0 means 1024
	AllowNull         bool          // allow pairs that do not encrypt

	Random io.Reader    // where unpredictable IVs come from; nil means crypto/rand
	Log    *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	if c.KeepaliveInterval == 0 {
		c.KeepaliveInterval = defaultKeepaliveInterval
	}
	if c.MaxPeers <= 0 {
		c.MaxPeers = defaultMaxPeers
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A DatagramWriter sends datagrams: a UDP socket. A Transport is one itself, for the layer above.
type DatagramWriter interface {
	// WriteDatagrams sends datagrams[i][offset:]. It may overwrite what is in front, at least Headroom bytes, use the capacity behind, at
	// least Tailroom bytes, and change the datagrams in place. They are borrowed until it returns. Any goroutine may call it.
	WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error
	Headroom() int
	Tailroom() int
	// MTU is the largest datagram in bytes that reaches to in one piece, e.g. 1472 for IPv4 over Ethernet.
	MTU(to netip.AddrPort) int
}

// A Handler hears what a Transport has received, on the loop.
type Handler interface {
	// HandleDatagrams takes the datagrams that one peer sent in one batch. peer is what Install returned. They are borrowed until it
	// returns and may be overwritten.
	HandleDatagrams(now time.Time, peer netip.AddrPort, datagrams [][]byte)
	// HandleIKE takes an IKE message, without its non-ESP marker, of anyone. It is borrowed until it returns and may be overwritten.
	HandleIKE(now time.Time, from netip.AddrPort, message []byte)
	// RekeyWanted says, once, that the pair that is sent on nears the end of what it may carry.
	RekeyWanted(now time.Time, spiIn uint32)
}

// ErrNoSA says that nothing was sent, since there is no SA to that peer, or it may carry no more. It may have one again later.
var ErrNoSA = errors.New("ipsec: no SA to the peer")

// A Transport carries datagrams through ESP. See the package's documentation for who may call what.
type Transport struct {
	config  Config
	w       DatagramWriter
	handler Handler

	inbound map[uint32]*pair // by SPIIn
	next    time.Time        // no deadline is earlier; there may be none at that time
	inner   [][]byte         // datagrams of one peer that are being gathered
	octet   [][]byte         // a batch of one: a keepalive

	mu    sync.RWMutex             // guards the map, which the loop alone changes
	peers map[netip.AddrPort]*peer // by the address that the layer above knows

	low      atomic.Bool // some pair has become low
	batches  sync.Pool   // of *batch
	counters counters
}

// A batch is the list of sealed packets of one WriteDatagrams; the caller's list stays as it is.
type batch struct{ datagrams [][]byte }

// NewTransport makes a Transport that sends through w.
func NewTransport(c Config, w DatagramWriter, h Handler) *Transport {
	t := &Transport{config: c.withDefaults(), w: w, handler: h, inbound: make(map[uint32]*pair), peers: make(map[netip.AddrPort]*peer)}
	t.batches.New = func() any { return new(batch) }
	return t
}

const (
	keepalive    = 0xff // RFC 3948 section 2.3
	markerLength = 4    // the non-ESP marker, all zero (RFC 3948 section 2.2)
)

// Receive takes a batch of datagrams from one source, which are borrowed and may be overwritten. It is for what comes from NAT traversal
// ports (4500); IKE on port 500 has no marker and goes to IKE directly. Consecutive datagrams of one peer go up in one call of
// HandleDatagrams. next is when Advance is to be called; zero means never, and it may have passed already.
func (t *Transport) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	from = unmapped(from)
	var p *pair // that the last packet came on
	for _, datagram := range datagrams {
		switch {
		case len(datagram) == 1 && datagram[0] == keepalive:
			t.counters.drops[dropKeepalive].Add(1)
		case len(datagram) < espHeader:
			t.counters.drops[dropMalformed].Add(1)
		case binary.BigEndian.Uint32(datagram) == 0:
			t.handUp(now, p)
			p = nil
			t.handler.HandleIKE(now, from, datagram[markerLength:])
		default:
			p = t.pairOf(now, p, binary.BigEndian.Uint32(datagram))
			if p == nil {
				t.counters.drops[dropUnknownSPI].Add(1)
				continue
			}
			t.receiveESP(now, from, p, datagram)
		}
	}
	t.handUp(now, p)
	t.tellLow(now)
	return t.next
}

// pairOf finds the pair of an SPI. What was gathered goes up first if the peer is another than the last one's.
func (t *Transport) pairOf(now time.Time, last *pair, spi uint32) *pair {
	if last != nil && last.in.spi == spi {
		return last
	}
	p := t.inbound[spi]
	if last == nil || p != nil && p.peer == last.peer {
		return p
	}
	t.handUp(now, last)
	return t.inbound[spi] // the handler may have removed it
}

// receiveESP opens a packet and gathers what is in it.
func (t *Transport) receiveESP(now time.Time, from netip.AddrPort, p *pair, esp []byte) {
	size, highest := len(esp), p.in.replay.highest
	datagram, port, why := p.in.open(esp)
	if why != kept {
		t.counters.drops[why].Add(1)
		t.adviseTruncation(p, why, esp)
		return
	}
	t.counters.opened.Add(1)
	t.counters.openedBytes.Add(uint64(size))
	if !p.sending {
		t.use(now, p)
	}
	if p == p.peer.current && !p.lowTold && p.in.budget.low() {
		t.low.Store(true)
	}
	if p.in.replay.highest > highest { // one that came late does not tell where the peer is now
		t.follow(p, from, port)
	}
	t.inner = append(t.inner, datagram)
}

// follow notes where the peer of a verified packet is.
func (t *Transport) follow(p *pair, from netip.AddrPort, port uint16) {
	if p.peer.port.Load() != uint32(port) {
		p.peer.port.Store(uint32(port))
	}
	if outer := *p.peer.outer.Load(); p.roams && from != outer {
		moved := from
		p.peer.outer.Store(&moved)
		t.config.Log.Info("peer has moved", "peer", p.peer.address, "from", outer, "to", from)
	}
}

// adviseTruncation tells the user about the one fault of peers that looks like a wrong key and is none.
func (t *Transport) adviseTruncation(p *pair, why drop, esp []byte) {
	if (why == dropForged || why == dropMalformed) && p.in.isTruncated(p.transform, esp) {
		t.counters.truncatedPeers.Add(1)
		t.config.Log.Warn("the peer cuts HMAC-SHA-256 to 96 bits, as old Android and Linux do: nothing it sends is accepted",
			"peer", p.peer.address, "advice", "set sha256_96, or use another integrity algorithm")
	}
}

// handUp passes on what was gathered from the peer of p.
func (t *Transport) handUp(now time.Time, p *pair) {
	if len(t.inner) == 0 {
		return
	}
	t.handler.HandleDatagrams(now, p.peer.address, t.inner)
	t.inner = t.inner[:0]
}

// WriteDatagrams seals datagrams[i][offset:] and sends them to a peer, by the address that Install returned for it; the buffers are as in
// DatagramWriter. It fails with ErrNoSA if that has no SA, and sends nothing then.
func (t *Transport) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	p := t.peer(to)
	if p == nil {
		return t.refuse(len(datagrams), ErrNoSA)
	}
	sa := p.out.Load()
	if sa == nil {
		return t.refuse(len(datagrams), ErrNoSA)
	}
	b := t.batches.Get().(*batch)
	defer t.batches.Put(b)
	sealed, err := sa.seal(b.datagrams[:0], datagrams, offset, uint16(p.port.Load()))
	b.datagrams = sealed
	defer clear(sealed) // the buffers are borrowed
	t.counters.unsent.Add(uint64(len(datagrams) - len(sealed)))
	if len(sealed) == 0 {
		return err
	}
	return cmp.Or(t.send(p, sealed, sa.start(offset)), err)
}

// send writes to where the peer is now.
func (t *Transport) send(p *peer, sealed [][]byte, start int) error {
	size := 0
	for _, s := range sealed {
		size += len(s) - start
	}
	t.counters.sealed.Add(uint64(len(sealed)))
	t.counters.sealedBytes.Add(uint64(size))
	if !p.sent.Load() {
		p.sent.Store(true)
	}
	return t.w.WriteDatagrams(sealed, start, *p.outer.Load())
}

func (t *Transport) refuse(datagrams int, err error) error {
	t.counters.unsent.Add(uint64(datagrams))
	return err
}

// peer finds the peer that the layer above knows by an address; nil is none.
func (t *Transport) peer(address netip.AddrPort) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.peers[unmapped(address)]
}

// WriteIKE sends an IKE message to a NAT traversal port, behind the non-ESP marker.
func (t *Transport) WriteIKE(message []byte, to netip.AddrPort) error {
	offset := t.w.Headroom()
	b := make([]byte, offset+markerLength, offset+markerLength+len(message)+t.w.Tailroom())
	return t.w.WriteDatagrams([][]byte{append(b, message...)}, offset, to)
}

// sendKeepalive sends the octet that keeps a NAT's mapping.
func (t *Transport) sendKeepalive(p *peer) {
	offset := t.w.Headroom()
	if t.octet == nil {
		t.octet = [][]byte{make([]byte, offset+1, offset+1+t.w.Tailroom())}
	}
	t.octet[0][offset] = keepalive
	t.counters.keepalivesSent.Add(1)
	if err := t.w.WriteDatagrams(t.octet, offset, *p.outer.Load()); err != nil {
		t.config.Log.Debug("keepalive not sent", "peer", p.address, "error", err)
	}
}

// Headroom is how many bytes WriteDatagrams needs in front of a datagram, whatever the transform.
func (t *Transport) Headroom() int { return t.w.Headroom() + maxLead + udpHeader }

// Tailroom is how many bytes of capacity WriteDatagrams needs behind a datagram, whatever the transform.
func (t *Transport) Tailroom() int { return maxTrail + t.w.Tailroom() }

// MTU is the largest datagram in bytes whose ESP packet reaches a peer in one piece. If that has no SA, the answer fits every transform.
func (t *Transport) MTU(to netip.AddrPort) int {
	l, outer := worst, to
	if p := t.peer(to); p != nil {
		outer = *p.outer.Load()
		if sa := p.out.Load(); sa != nil {
			l = sa.layout
		}
	}
	return max(0, l.fits(t.w.MTU(outer))-udpHeader)
}

// A drop is why a received datagram goes no further.
type drop int

const (
	kept drop = iota
	dropMalformed
	dropUnknownSPI
	dropReplayed
	dropForged
	dropUsedUp
	dropSelector
	dropDummy
	dropKeepalive
	drops
)

type counters struct {
	drops                                            [drops]atomic.Uint64
	opened, openedBytes, sealed, sealedBytes, unsent atomic.Uint64
	keepalivesSent, truncatedPeers                   atomic.Uint64
}

// Stats counts what a Transport did since it was made. Bytes are of ESP packets.
type Stats struct {
	Opened, OpenedBytes uint64 // packets that were accepted
	Sealed, SealedBytes uint64 // packets that were given to the socket
	Unsent              uint64 // datagrams that had no SA, or no room for one

	Malformed  uint64 // no ESP, or not what a sound peer puts in it
	UnknownSPI uint64 // for an SA that does not exist
	Replayed   uint64 // seen before, or too old to tell
	Forged     uint64 // the ICV is wrong
	UsedUp     uint64 // for an SA that may carry no more
	Selector   uint64 // not the protocol and ports that were agreed
	Dummy      uint64 // sent to be dropped

	KeepalivesReceived, KeepalivesSent uint64

	TruncatedPeers uint64 // pairs whose peer cuts HMAC-SHA-256 to 96 bits without having agreed to
}

// Stats may be called by any goroutine.
func (t *Transport) Stats() Stats {
	c := &t.counters
	return Stats{
		Opened: c.opened.Load(), OpenedBytes: c.openedBytes.Load(),
		Sealed: c.sealed.Load(), SealedBytes: c.sealedBytes.Load(), Unsent: c.unsent.Load(),
		Malformed: c.drops[dropMalformed].Load(), UnknownSPI: c.drops[dropUnknownSPI].Load(), Replayed: c.drops[dropReplayed].Load(),
		Forged: c.drops[dropForged].Load(), UsedUp: c.drops[dropUsedUp].Load(), Selector: c.drops[dropSelector].Load(),
		Dummy: c.drops[dropDummy].Load(), KeepalivesReceived: c.drops[dropKeepalive].Load(), KeepalivesSent: c.keepalivesSent.Load(),
		TruncatedPeers: c.truncatedPeers.Load(),
	}
}
