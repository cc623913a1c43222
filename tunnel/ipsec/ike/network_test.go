package ike

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	clientAddr = netip.MustParseAddrPort("192.0.2.1:40000")
	serverIP   = netip.MustParseAddr("198.51.100.1")
	server500  = netip.AddrPortFrom(serverIP, 500)
	server4500 = netip.AddrPortFrom(serverIP, 4500)
	epoch      = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A network carries messages between Endpoints in memory and owns the time.
type network struct {
	t     testing.TB
	now   time.Time
	nodes map[netip.AddrPort]*node
	sky   []flight // messages on their way, by arrival
	seen  []flight // all that were ever sent

	// fate decides when copies of a message arrive, relative to now; nil: one, after a millisecond.
	fate func(flight) []time.Duration
}

type flight struct {
	at       time.Time
	from, to netip.AddrPort
	marker   bool
	message  []byte
}

// A node is an Endpoint with its sockets and its random numbers, which are the same in each run.
type node struct {
	*Endpoint
	net     *network
	addr    netip.AddrPort // from which it sends without marker
	natAddr netip.AddrPort // and with
}

func (n *node) WriteMessage(message []byte, marker bool, to netip.AddrPort) error {
	from := n.addr
	if marker {
		from = n.natAddr
	}
	n.net.launch(flight{at: n.net.now, from: from, to: to, marker: marker, message: bytes.Clone(message)})
	return nil
}

func (w *network) launch(f flight) {
	w.seen = append(w.seen, f)
	fates := []time.Duration{time.Millisecond}
	if w.fate != nil {
		fates = w.fate(f)
	}
	for _, delay := range fates {
		copied := f
		copied.at = w.now.Add(delay)
		i, _ := slices.BinarySearchFunc(w.sky, copied, func(a, b flight) int {
			if a.at.After(b.at) {
				return 1
			}
			return -1
		})
		w.sky = slices.Insert(w.sky, i, copied)
	}
}

// run lets time pass.
func (w *network) run(d time.Duration) { w.until(d, func() bool { return false }) }

// until lets time pass until something has happened, and tells whether it has.
func (w *network) until(most time.Duration, done func() bool) bool {
	end := w.now.Add(most)
	for steps := 0; !done(); steps++ {
		if steps > 200000 {
			for _, n := range w.inOrder() {
				for _, p := range n.peers {
					w.t.Logf("%v %v next %v retry %v ask %v wants %v quick %v phase1 %v children %d sas %d", n.addr, w.now, n.NextDeadline(), p.retryAt, p.askAt, p.wantsChild, p.quick != nil, p.phase1 != nil, len(p.children), len(p.sas))
				}
			}
			w.t.Fatal("the world spins")
		}
		next := end
		if len(w.sky) > 0 && w.sky[0].at.Before(next) {
			next = w.sky[0].at
		}
		for _, n := range w.inOrder() {
			if d := n.NextDeadline(); !d.IsZero() && d.Before(next) {
				next = d
			}
		}
		if next.After(w.now) {
			w.now = next
		}
		switch {
		case len(w.sky) > 0 && !w.sky[0].at.After(w.now):
			f := w.sky[0]
			w.sky = w.sky[1:]
			if n := w.nodes[f.to]; n != nil && f.marker == (f.to == n.natAddr && n.natAddr != n.addr || n.natAddr == n.addr && f.marker) {
				n.Receive(w.now, f.from, f.marker, f.message)
			}
		case w.advance():
		default:
			return done()
		}
	}
	return true
}

func (w *network) advance() (any bool) {
	for _, n := range w.inOrder() {
		if d := n.NextDeadline(); !d.IsZero() && !d.After(w.now) {
			n.Advance(w.now)
			any = true
		}
	}
	return any
}

func (w *network) inOrder() (nodes []*node) {
	for _, n := range w.nodes {
		if !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return a.addr.Compare(b.addr) })
	return nodes
}

func (w *network) add(c Config, addr, natAddr netip.AddrPort) *node {
	w.t.Helper()
	n := &node{net: w, addr: addr, natAddr: natAddr}
	if c.Random == nil {
		c.Random = rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", addr))))
	}
	if c.Log == nil && testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", addr)
	}
	e, err := NewEndpoint(c, n)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Endpoint = e
	w.nodes[addr], w.nodes[natAddr] = n, n
	return n
}

// A peerLog is a Handler that notes what it hears.
type peerLog struct {
	peer    *Peer
	inbound []ChildSA
	up      []ChildSA
	downs   []uint32
	down    error
	ended   int
	onUp    func(now time.Time, sa ChildSA)
	onDown  func(now time.Time)
}

func (l *peerLog) SAInbound(_ time.Time, sa ChildSA) { l.inbound = append(l.inbound, sa) }
func (l *peerLog) SAUp(now time.Time, sa ChildSA) {
	l.up = append(l.up, sa)
	if l.onUp != nil {
		l.onUp(now, sa)
	}
}
func (l *peerLog) SADown(_ time.Time, spi uint32) { l.downs = append(l.downs, spi) }
func (l *peerLog) Down(now time.Time, err error) {
	l.ended++
	l.down = err
	if l.onDown != nil {
		l.onDown(now)
	}
}

// live are the pairs that are up, newest last.
func (l *peerLog) live() (pairs []ChildSA) {
	for _, sa := range l.up {
		if !slices.Contains(l.downs, sa.SPIIn) {
			pairs = append(pairs, sa)
		}
	}
	return pairs
}

// A pair is a client that dials and a server that answers.
type pair struct {
	*network
	client, server *node
	c              *peerLog
	s              []*peerLog // the server's, one for each peer
	accept         error
}

func newPair(t testing.TB, client, server Config) *pair {
	t.Helper()
	p := &pair{network: &network{t: t, now: epoch, nodes: make(map[netip.AddrPort]*node)}, c: &peerLog{}}
	p.client = p.add(withPSK(client), clientAddr, clientAddr)
	server = withPSK(server)
	if server.Accept == nil {
		server.Accept = func(peer *Peer) (Handler, error) {
			l := &peerLog{peer: peer}
			p.s = append(p.s, l)
			return l, p.accept
		}
	}
	p.server = p.add(server, server500, server4500)
	return p
}

func withPSK(c Config) Config {
	if c.PSK == nil && len(c.Certificates) == 0 {
		c.PSK = []byte("correct horse")
	}
	return c
}

func (p *pair) dial() { p.c.peer = p.client.Dial(p.now, serverIP, p.c) }

// connected dials and waits until both sides are up.
func connected(t testing.TB, client, server Config) *pair {
	t.Helper()
	p := newPair(t, client, server)
	p.connect()
	return p
}

func (p *pair) connect() {
	p.t.Helper()
	p.dial()
	if !p.until(time.Minute, func() bool { return len(p.c.up) > 0 && len(p.s) > 0 && len(p.s[0].up) > 0 }) {
		p.t.Fatalf("not up: client %v, server %+v", p.c.down, p.server.Stats())
	}
	p.mustMatch()
}

// mustMatch checks that both ends have the same newest pair, seen from its two sides.
func (p *pair) mustMatch() {
	p.t.Helper()
	c, s := p.c.live(), p.s[len(p.s)-1].live()
	if len(c) == 0 || len(s) == 0 {
		p.t.Fatalf("pairs: %d at the client, %d at the server", len(c), len(s))
	}
	for _, sa := range c {
		if !slices.ContainsFunc(s, func(other ChildSA) bool { return mirror(sa, other) }) {
			p.t.Errorf("the server has nothing that matches %08x", sa.SPIIn)
		}
	}
}

func mirror(a, b ChildSA) bool {
	return a.SPIIn == b.SPIOut && a.SPIOut == b.SPIIn && a.Transform == b.Transform && len(a.KeyIn)+len(a.AuthIn) > 0 &&
		bytes.Equal(a.KeyIn, b.KeyOut) && bytes.Equal(a.KeyOut, b.KeyIn) && bytes.Equal(a.AuthIn, b.AuthOut) && bytes.Equal(a.AuthOut, b.AuthIn) &&
		(!bytes.Equal(a.KeyIn, a.KeyOut) || !bytes.Equal(a.AuthIn, a.AuthOut))
}

// kinds lists the messages that were sent from an address, by exchange.
func (w *network) kinds(from ...netip.AddrPort) (list []string) {
	for _, f := range w.seen {
		if slices.Contains(from, f.from) {
			h, _, _ := parseHeader(f.message)
			text := map[exchangeType]string{mainMode: "main", aggressiveMode: "aggressive", quickModeType: "quick", informational: "informational"}[h.exchange]
			if h.flags&flagEncrypted != 0 {
				text += "*"
			}
			list = append(list, fmt.Sprintf("%s %d", text, f.to.Port()))
		}
	}
	return list
}
