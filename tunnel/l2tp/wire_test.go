package l2tp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	addrLAC = netip.MustParseAddrPort("192.0.2.1:40000")
	addrLNS = netip.MustParseAddrPort("198.51.100.1:1701")
	epoch   = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A network carries datagrams between Endpoints in memory and owns the time.
type network struct {
	t     testing.TB
	now   time.Time
	ports map[netip.AddrPort]*port
	sky   []flight // datagrams on their way, by arrival
	seen  []flight // all that were ever sent, at which time

	// fate decides when copies of a datagram arrive, relative to now; nil: one, after a millisecond.
	fate func(flight) []time.Duration
}

type flight struct {
	at       time.Time
	from, to netip.AddrPort
	datagram []byte
}

func newNetwork(t testing.TB) *network {
	return &network{t: t, now: epoch, ports: make(map[netip.AddrPort]*port)}
}

// A port is the DatagramWriter of an Endpoint.
type port struct {
	*Endpoint
	net  *network
	addr netip.AddrPort
	err  error // of each write
}

const testHeadroom, testTailroom = 3, 5 // odd on purpose

func (p *port) Headroom() int          { return testHeadroom }
func (p *port) Tailroom() int          { return testTailroom }
func (p *port) MTU(netip.AddrPort) int { return 1472 }

func (p *port) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	if p.err != nil {
		return p.err
	}
	if offset < testHeadroom {
		p.net.t.Errorf("datagrams come with %d bytes of headroom", offset)
	}
	for _, d := range datagrams {
		if cap(d)-len(d) < testTailroom && d[offset]&0x80 != 0 {
			p.net.t.Errorf("control message comes with %d bytes of tailroom", cap(d)-len(d))
		}
		p.net.send(flight{from: p.addr, to: to, datagram: bytes.Clone(d[offset:])})
		clear(d) // they were borrowed and may be overwritten
	}
	return nil
}

func (n *network) send(f flight) {
	f.at = n.now
	n.seen = append(n.seen, f)
	delays := []time.Duration{time.Millisecond}
	if n.fate != nil {
		delays = n.fate(f)
	}
	for _, d := range delays {
		f.at = n.now.Add(d)
		i, _ := slices.BinarySearchFunc(n.sky, f, func(a, b flight) int {
			if a.at.After(b.at) {
				return 1
			}
			return -1 // behind those of the same time
		})
		n.sky = slices.Insert(n.sky, i, f)
	}
}

func (n *network) endpoint(addr netip.AddrPort, c Config) *port {
	if c.Random == nil {
		c.Random = randomFrom(uint64(len(n.ports)) + 1)
	}
	p := &port{net: n, addr: addr}
	p.Endpoint = NewEndpoint(c, p)
	n.ports[addr] = p
	return p
}

// step lets the next thing happen; it is false if nothing is left to happen before the limit.
func (n *network) step(limit time.Time) bool {
	var next time.Time
	if len(n.sky) > 0 {
		next = n.sky[0].at
	}
	for _, p := range n.ports {
		next = earlier(next, p.NextDeadline())
	}
	if next.IsZero() || next.After(limit) {
		n.now = limit
		return false
	}
	if next.After(n.now) {
		n.now = next
	}
	for _, addr := range n.addresses() {
		p := n.ports[addr]
		if due(p.NextDeadline(), n.now) {
			if again := p.Advance(n.now); due(again, n.now) {
				if p.Advance(n.now); due(p.NextDeadline(), n.now) {
					n.t.Fatalf("%v: deadline %v stays in the past", addr, again)
				}
			}
		}
	}
	if len(n.sky) > 0 && due(n.sky[0].at, n.now) {
		f := n.sky[0]
		n.sky = n.sky[1:]
		if p := n.ports[f.to]; p != nil {
			p.Receive(n.now, f.from, [][]byte{bytes.Clone(f.datagram)})
		}
	}
	return true
}

func (n *network) addresses() []netip.AddrPort {
	var all []netip.AddrPort
	for addr := range n.ports {
		all = append(all, addr)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return all
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	limit := n.now.Add(d)
	for range 1_000_000 {
		if !n.step(limit) {
			return
		}
	}
	n.t.Fatal("endless conversation")
}

// until lets time pass until done, at most for d.
func (n *network) until(d time.Duration, what string, done func() bool) {
	n.t.Helper()
	limit := n.now.Add(d)
	for !done() {
		if !n.step(limit) {
			n.t.Fatalf("not in %v: %s", d, what)
		}
	}
}

// kinds lists the control messages that were sent from an address; a ZLB is "ZLB".
func (n *network) kinds(from netip.AddrPort) (kinds []string) {
	for _, f := range n.seen {
		if h, body, err := parseHeader(f.datagram); err == nil && h.control && f.from == from {
			kinds = append(kinds, kindOf(body))
		}
	}
	return kinds
}

func kindOf(body []byte) string {
	if len(body) < 8 {
		return "ZLB"
	}
	return messageType(binary.BigEndian.Uint16(body[6:])).String()
}

// tunnelLog is a TunnelHandler that remembers.
type tunnelLog struct {
	t        *Tunnel
	ups      int
	down     error
	downs    int
	accepted []*sessionLog
	onUp     func(now time.Time, t *Tunnel)
	onDown   func(now time.Time)
	accept   func(now time.Time, s *Session) (SessionHandler, error) // nil: all
}

func (l *tunnelLog) TunnelUp(now time.Time, t *Tunnel) {
	l.t = t
	l.ups++
	if l.onUp != nil {
		l.onUp(now, t)
	}
}

func (l *tunnelLog) TunnelDown(now time.Time, err error) {
	l.down = err
	l.downs++
	if l.onDown != nil {
		l.onDown(now)
	}
}

func (l *tunnelLog) AcceptSession(now time.Time, s *Session) (SessionHandler, error) {
	if l.accept != nil {
		return l.accept(now, s)
	}
	h := &sessionLog{s: s}
	l.accepted = append(l.accepted, h)
	return h, nil
}

// sessionLog is a SessionHandler that remembers.
type sessionLog struct {
	s      *Session
	ups    int
	down   error
	downs  int
	frames [][]byte
	calls  int
	onUp   func(now time.Time)
	onData func(now time.Time)
}

func (l *sessionLog) SessionUp(now time.Time) {
	l.ups++
	if l.onUp != nil {
		l.onUp(now)
	}
}

func (l *sessionLog) HandleFrames(now time.Time, frames [][]byte) {
	l.calls++
	for _, f := range frames {
		l.frames = append(l.frames, bytes.Clone(f))
		clear(f) // they are borrowed and may be overwritten
	}
	if l.onData != nil {
		l.onData(now)
	}
}

func (l *sessionLog) SessionDown(_ time.Time, err error) {
	l.down = err
	l.downs++
}

func (l *sessionLog) write(t testing.TB, payloads ...string) {
	t.Helper()
	if err := l.s.WriteFrames(framesOf(payloads...)); err != nil {
		t.Fatal(err)
	}
}

// framesOf puts payloads behind the room that a session needs.
func framesOf(payloads ...string) (frames [][]byte, offset int) {
	offset = testHeadroom + maxHeaderSize
	for _, p := range payloads {
		frame := make([]byte, offset, offset+len(p)+testTailroom)
		frames = append(frames, append(frame, p...))
	}
	return frames, offset
}

func texts(frames [][]byte) (all []string) {
	for _, f := range frames {
		all = append(all, string(f))
	}
	return all
}

// A pair is a LAC and an LNS that know each other.
type pair struct {
	*network
	lac, lns               *port
	lacTunnel, lnsTunnel   *tunnelLog
	dialed                 *Tunnel
	lacSession, lnsSession *sessionLog
}

// newPair prepares the two; nothing is dialed yet.
func newPair(t testing.TB, lac, lns Config) *pair {
	n := newNetwork(t)
	p := &pair{network: n, lacTunnel: &tunnelLog{}, lnsTunnel: &tunnelLog{}}
	if lns.AcceptTunnel == nil {
		lns.AcceptTunnel = func(netip.AddrPort, string) (TunnelHandler, error) { return p.lnsTunnel, nil }
	}
	p.lac = n.endpoint(addrLAC, lac)
	p.lns = n.endpoint(addrLNS, lns)
	return p
}

func (p *pair) dial() { p.dialed = p.lac.Dial(p.now, addrLNS, p.lacTunnel) }

// tunnel brings a tunnel up.
func (p *pair) tunnel() {
	p.t.Helper()
	p.dial()
	p.until(40*time.Second, "tunnel up at both ends", func() bool { return p.lacTunnel.ups == 1 && p.lnsTunnel.ups == 1 })
}

// session brings a session up in the tunnel.
func (p *pair) session() (lac, lns *sessionLog) {
	p.t.Helper()
	lac = &sessionLog{}
	before := len(p.lnsTunnel.accepted)
	s, err := p.lacTunnel.t.OpenSession(p.now, lac)
	if err != nil {
		p.t.Fatal(err)
	}
	lac.s = s
	p.until(40*time.Second, "session up at both ends", func() bool {
		return lac.ups == 1 && len(p.lnsTunnel.accepted) > before && p.lnsTunnel.accepted[before].ups == 1
	})
	lns = p.lnsTunnel.accepted[before]
	return lac, lns
}

// connected is a pair with one session.
func connected(t testing.TB, lac, lns Config) *pair {
	t.Helper()
	p := newPair(t, lac, lns)
	p.tunnel()
	p.lacSession, p.lnsSession = p.session()
	return p
}

// randomFrom is a source of bytes that is the same in each run.
func randomFrom(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// inject puts a control message of a made-up peer into an Endpoint.
func inject(p *port, now time.Time, from netip.AddrPort, h header, body []byte) {
	h.control, h.length, h.sequenced = true, true, true
	p.Receive(now, from, [][]byte{append(appendHeader(nil, h, len(body)), body...)})
}

// body composes the AVPs of a message from values of their own types.
func body(kind messageType, avps ...any) []byte {
	c := compose(kind, nil, nil)
	for i := 0; i < len(avps); i += 2 {
		a := avps[i].(attribute)
		switch v := avps[i+1].(type) {
		case int:
			if avpRules[avpKey{vendorIETF, a}].max == 4 {
				c.uint32(a, uint32(v))
			} else {
				c.uint16(a, uint16(v))
			}
		case string:
			c.bytes(a, []byte(v))
		case []byte:
			c.bytes(a, v)
		}
	}
	return c.body
}

func localKind(err error) Kind {
	var local *LocalError
	if errors.As(err, &local) {
		return local.Kind
	}
	return 0
}
