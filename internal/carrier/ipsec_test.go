package carrier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"gateway/tunnel/ipsec"
	"gateway/tunnel/ipsec/ike"
	"gateway/tunnel/l2tp"
)

var (
	clientAddr = netip.MustParseAddrPort("192.0.2.1:40000")
	serverIKE  = netip.MustParseAddrPort("198.51.100.1:500")
	serverESP  = netip.MustParseAddrPort("198.51.100.1:4500")
	frameText  = []byte("this must never be seen outside ESP")
)

// A world is a client and a server with IPsec engines, the network between them,
// and the time. The client's L2TP tunnel and session are made as a vpnclient and
// a vpnserver make them.
type world struct {
	t              testing.TB
	now            time.Time
	client, server *IPsec
	sky            []flight // datagrams on their way, by arrival
	seen           int      // datagrams that were sent
	cut            bool     // nothing arrives
	lossy          *rand.Rand

	tunnel             *l2tp.Tunnel
	session            *l2tp.Session // the client's
	answers            *l2tp.Session // the server's
	atClient, atServer int           // frames that have arrived
	securityUp         time.Time
	securityDown       error
	tunnelDown         error
	lns                netip.AddrPort
}

type flight struct {
	at       time.Time
	from, to netip.AddrPort
	datagram []byte
}

// A port is a socket of the world (l2tp.DatagramWriter).
type port struct {
	*world
	addr netip.AddrPort
}

func (p port) Headroom() int          { return 4 } // odd on purpose
func (p port) Tailroom() int          { return 3 }
func (p port) MTU(netip.AddrPort) int { return 1472 }
func (p port) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	for _, d := range datagrams {
		p.launch(p.addr, to, bytes.Clone(d[offset:]))
	}
	return nil
}

func (w *world) launch(from, to netip.AddrPort, datagram []byte) {
	w.inspect(from, to, datagram)
	delay := 10 * time.Millisecond
	copies := 1
	if w.lossy != nil {
		copies = []int{0, 2, 1}[min(w.lossy.IntN(20), 2)] // 5 % lost, 5 % twice
		delay += time.Duration(w.lossy.IntN(30)) * time.Millisecond
	}
	if w.cut {
		copies = 0
	}
	for range copies {
		w.sky = append(w.sky, flight{w.now.Add(delay), from, to, datagram})
	}
	slices.SortStableFunc(w.sky, func(a, b flight) int { return a.at.Compare(b.at) })
}

// inspect is the spy: whatever leaves is IKE, a keepalive, or ESP of an SA that
// there is.
func (w *world) inspect(from, to netip.AddrPort, d []byte) {
	w.seen++
	isIKE := func(m []byte) bool {
		return len(m) >= 28 && m[17] == 0x10 && binary.BigEndian.Uint32(m[24:]) <= uint32(len(m))
	}
	receiver := w.server
	if to == clientAddr {
		receiver = w.client
	}
	switch {
	case to == serverIKE || from == serverIKE:
		if !isIKE(d) {
			w.t.Errorf("%v to %v: no IKE: %x", from, to, d)
		}
	case len(d) == 1 && d[0] == 0xff:
	case len(d) >= 4 && binary.BigEndian.Uint32(d) == 0:
		if !isIKE(d[4:]) {
			w.t.Errorf("%v to %v: a marker and no IKE: %x", from, to, d)
		}
	default:
		spi := binary.BigEndian.Uint32(d)
		known := false
		for _, s := range receiver.peers {
			known = known || s.owns[spi]
		}
		if !known && w.lossy == nil && w.securityDown == nil {
			w.t.Errorf("%v to %v: neither IKE nor ESP of an SA: %x", from, to, d)
		}
	}
	if bytes.Contains(d, frameText) {
		w.t.Errorf("%v to %v: a frame in clear", from, to)
	}
}

func newWorld(t testing.TB, changes ...func(client, server *IPsecConfig)) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	cc := IPsecConfig{IKE: ike.Config{PSK: []byte("key"), LocalAddr: clientAddr.Addr()}}
	sc := IPsecConfig{IKE: ike.Config{PSK: []byte("key"), LocalAddr: serverESP.Addr()}, Plain: port{w, serverIKE},
		Accept: func(netip.AddrPort, ike.Identity) (SecurityHandler, error) { return serverSecurity{}, nil }}
	for _, change := range changes {
		change(&cc, &sc)
	}
	var err error
	if w.client, err = NewIPsec(cc, l2tp.Config{HelloInterval: -1}, port{w, clientAddr}); err != nil {
		t.Fatal(err)
	}
	lns := l2tp.Config{HelloInterval: -1, AcceptTunnel: func(netip.AddrPort, string) (l2tp.TunnelHandler, error) { return serverTunnel{w}, nil }}
	if w.server, err = NewIPsec(sc, lns, port{w, serverESP}); err != nil {
		t.Fatal(err)
	}
	return w
}

// step lets a time pass.
func (w *world) step(d time.Duration) {
	end := w.now.Add(d)
	for {
		next := Earliest(w.client.earliest(), w.server.earliest())
		if len(w.sky) > 0 {
			next = Earliest(next, w.sky[0].at)
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
		if len(w.sky) > 0 && !w.sky[0].at.After(w.now) {
			f := w.sky[0]
			w.sky = w.sky[1:]
			switch datagrams := [][]byte{bytes.Clone(f.datagram)}; f.to {
			case serverIKE:
				w.server.ReceivePlain(w.now, f.from, datagrams)
			case serverESP:
				w.server.Receive(w.now, f.from, datagrams)
			case clientAddr:
				w.client.Receive(w.now, f.from, datagrams)
			}
		}
		w.client.Advance(w.now)
		w.server.Advance(w.now)
	}
}

// dial brings everything up.
func (w *world) dial() {
	w.t.Helper()
	w.client.Dial(w.now, serverIKE.Addr(), w)
	for range 120 {
		if w.step(500 * time.Millisecond); w.session != nil && w.answers != nil && w.atServer+w.atClient == 0 {
			return
		}
	}
	w.t.Fatalf("no session: %v, %v", w.securityDown, w.tunnelDown)
}

// talk sends a frame each way every second, and counts on their arrival.
func (w *world) talk(d time.Duration) {
	for range int(d / time.Second) {
		for _, s := range []*l2tp.Session{w.session, w.answers} {
			if s != nil {
				frame := append(make([]byte, s.Headroom(), s.Headroom()+len(frameText)+s.Tailroom()), frameText...)
				s.WriteFrames([][]byte{frame}, s.Headroom())
			}
		}
		w.step(time.Second)
	}
}

// The world is the client's handler of everything.

func (w *world) SecurityUp(now time.Time, lns netip.AddrPort) {
	w.securityUp, w.lns = now, lns
	w.client.L2TP().Endpoint().Dial(now, lns, w)
}
func (w *world) SecurityDown(_ time.Time, err error) { w.securityDown = err }
func (w *world) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	w.tunnel = t
	w.session, _ = t.OpenSession(now, counter{&w.atClient})
}
func (w *world) TunnelDown(_ time.Time, err error) { w.tunnelDown = err }
func (w *world) AcceptSession(time.Time, *l2tp.Session) (l2tp.SessionHandler, error) {
	return nil, errors.New("no")
}

type serverSecurity struct{}

func (serverSecurity) SecurityUp(time.Time, netip.AddrPort) {}
func (serverSecurity) SecurityDown(time.Time, error)        {}

type serverTunnel struct{ *world }

func (serverTunnel) TunnelUp(time.Time, *l2tp.Tunnel) {}
func (serverTunnel) TunnelDown(time.Time, error)      {}
func (s serverTunnel) AcceptSession(_ time.Time, session *l2tp.Session) (l2tp.SessionHandler, error) {
	s.answers = session
	return counter{&s.atServer}, nil
}

// A counter counts the frames of a session.
type counter struct{ frames *int }

func (c counter) SessionUp(time.Time)          {}
func (c counter) SessionDown(time.Time, error) {}
func (c counter) HandleFrames(_ time.Time, frames [][]byte) {
	for _, f := range frames {
		if bytes.Equal(f, frameText) {
			*c.frames++
		}
	}
}

// The endpoint above has no other way out than the ESP transport.
func TestL2TPHasTheESPTransportAlone(t *testing.T) {
	w := newWorld(t)
	var _ *ipsec.Transport = w.client.transport // by type
	w.client.L2TP().Endpoint().Dial(w.now, serverESP, w)
	w.step(2 * time.Second)
	if w.seen != 0 {
		t.Errorf("%d datagrams left without an SA", w.seen)
	}
	if stats, _ := w.client.Stats(); stats.Unsent == 0 {
		t.Error("nothing was refused")
	}
}

func TestFramesPassThroughESP(t *testing.T) {
	w := newWorld(t)
	w.dial()
	w.talk(10 * time.Second)
	if w.atClient != 10 || w.atServer != 10 {
		t.Errorf("%d and %d frames arrived of 10 each", w.atClient, w.atServer)
	}
}

// RFC 3947 section 4: IKE may begin on the NAT traversal port.
func TestEverythingOnOnePort(t *testing.T) {
	w := newWorld(t, func(client, _ *IPsecConfig) { client.IKE.Port = NATPort })
	w.dial()
	w.talk(10 * time.Second)
	if w.atClient != 10 || w.atServer != 10 {
		t.Errorf("%d and %d frames arrived of 10 each", w.atClient, w.atServer)
	}
}

// A day: phase 1 is renewed three times and phase 2 each hour, by either side
// first, and not one frame is lost.
func TestBothPhasesAreRenewedWithoutLosingAFrame(t *testing.T) {
	for _, shorter := range []string{"client", "server", "both"} {
		t.Run(shorter, func(t *testing.T) {
			w := newWorld(t, func(client, server *IPsecConfig) {
				if shorter == "client" {
					server.IKE.Lifetime, server.IKE.ESPLifetime = 48*time.Hour, 48*time.Hour
				}
				if shorter == "server" {
					client.IKE.Lifetime, client.IKE.ESPLifetime = 48*time.Hour, 48*time.Hour
				}
			})
			w.dial()
			const day = 24 * time.Hour
			spis := map[uint32]bool{}
			for range 24 * 6 {
				w.talk(day / 24 / 6)
				for _, s := range w.client.peers {
					for spi := range s.owns {
						spis[spi] = true
					}
				}
			}
			if want := int(day / time.Second); w.atClient != want || w.atServer != want {
				t.Errorf("%d and %d frames arrived of %d each", w.atClient, w.atServer, want)
			}
			if len(spis) < 20 {
				t.Errorf("only %d SAs in a day", len(spis))
			}
			for _, e := range []*IPsec{w.client, w.server} {
				if n := len(e.peers); n != 1 {
					t.Errorf("%d peers in the end", n)
				}
				for _, s := range e.peers {
					if len(s.owns) > 3 {
						t.Errorf("%d SAs are left over", len(s.owns))
					}
				}
			}
		})
	}
}

// The same with 5 % of the datagrams lost, 5 % doubled, and any order.
func TestRenewalOnABadPath(t *testing.T) {
	for seed := range uint64(5) {
		w := newWorld(t, func(client, server *IPsecConfig) {
			client.IKE.Lifetime, client.IKE.ESPLifetime = 10*time.Minute, 3*time.Minute
		})
		w.lossy = rand.New(rand.NewPCG(seed, 1))
		w.dial()
		w.talk(3 * time.Hour)
		if w.securityDown != nil || w.tunnelDown != nil {
			t.Fatalf("seed %d: down: %v, %v", seed, w.securityDown, w.tunnelDown)
		}
		for _, n := range []int{w.atClient, w.atServer} {
			if n < 3*3600*9/10 {
				t.Errorf("seed %d: only %d frames of %d arrived", seed, n, 3*3600)
			}
		}
	}
}

// RFC 3706: a peer that has gone silent is noticed, also when we keep sending.
func TestDeadPeerIsNoticed(t *testing.T) {
	w := newWorld(t)
	w.dial()
	w.talk(5 * time.Minute)
	if w.securityDown != nil {
		t.Fatalf("down while all is well: %v", w.securityDown)
	}
	w.cut = true
	w.talk(90 * time.Second)
	var local *ike.LocalError
	if !errors.As(w.securityDown, &local) || local.Kind != ike.DeadPeer {
		t.Fatalf("got %v", w.securityDown)
	}
	seen := w.seen
	w.cut = false
	w.talk(time.Minute)
	if w.seen != seen {
		t.Errorf("%d datagrams left after the end", w.seen-seen)
	}
}

// The peer's Delete ends everything; L2TP, which would go on, is heard no more.
func TestNothingLeavesAfterDelete(t *testing.T) {
	w := newWorld(t)
	w.dial()
	w.server.Close(w.now)
	w.step(time.Second)
	var peer *ike.PeerError
	if !errors.As(w.securityDown, &peer) || peer.Notify != 0 {
		t.Fatalf("got %v", w.securityDown)
	}
	seen := w.seen
	w.talk(time.Minute)
	w.client.L2TP().Endpoint().Close(w.now)
	w.step(time.Minute)
	if w.seen != seen {
		t.Errorf("%d datagrams left without an SA", w.seen-seen)
	}
}

// RFC 3193 section 3.1: the tunnel ends first, and then its SAs.
func TestGoodbyeInOrder(t *testing.T) {
	w := newWorld(t)
	w.dial()
	w.client.L2TP().Endpoint().Close(w.now)
	w.step(time.Second)
	if !w.client.L2TP().Endpoint().Idle() {
		t.Error("StopCCN was not acknowledged")
	}
	w.client.Close(w.now)
	w.step(time.Second)
	if !errors.Is(w.securityDown, ike.ErrClosed) {
		t.Errorf("got %v", w.securityDown)
	}
	if len(w.server.peers) != 0 {
		t.Error("the server has not heard of the end")
	}
}

// Whatever comes from whomever: memory does not grow, and the client is served
// all the while.
func TestFloodOfBogusDatagrams(t *testing.T) {
	w := newWorld(t)
	w.dial()
	random := rand.New(rand.NewPCG(1, 2))
	first := bogusMainMode()
	flood := func(n int) {
		for i := range n {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(random.IntN(256)), byte(random.IntN(256))}), uint16(1+random.IntN(65535)))
			message := bytes.Clone(first)
			binary.BigEndian.PutUint64(message, random.Uint64()|1)
			switch i % 4 {
			case 0:
				w.server.ReceivePlain(w.now, from, [][]byte{message})
			case 1:
				w.server.Receive(w.now, from, [][]byte{append(make([]byte, 4), message...)})
			case 2: // "ESP"
				w.server.Receive(w.now, from, [][]byte{message})
			case 3: // with the client's address
				message = message[:random.IntN(len(message))]
				w.server.Receive(w.now, clientAddr, [][]byte{append(make([]byte, 4), message...)})
			}
			w.sky = nil // answers to nobody
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	flood(2000)
	before := heap()
	flood(40000)
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap has grown from %d to %d bytes", before, after)
	}
	w.talk(10 * time.Second)
	if w.atClient != 10 || w.atServer != 10 {
		t.Errorf("%d and %d frames arrived of 10 each", w.atClient, w.atServer)
	}
}

// bogusMainMode is a first message as a client could send it: it costs the
// server most.
func bogusMainMode() (message []byte) {
	catcher := catch{&message}
	e, err := NewIPsec(IPsecConfig{IKE: ike.Config{PSK: []byte("x")}}, l2tp.Config{}, catcher)
	if err != nil {
		panic(err)
	}
	e.Dial(time.Unix(1, 0), serverIKE.Addr(), serverSecurity{})
	return message
}

type catch struct{ message *[]byte }

func (c catch) Headroom() int          { return 0 }
func (c catch) Tailroom() int          { return 0 }
func (c catch) MTU(netip.AddrPort) int { return 1472 }
func (c catch) WriteDatagrams(datagrams [][]byte, offset int, _ netip.AddrPort) error {
	*c.message = bytes.Clone(datagrams[0][offset:])
	return nil
}
