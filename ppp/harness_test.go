package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// epoch is when every test begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// testMTU is the carrier's MTU in most tests, in bytes.
const testMTU = 1404

// A linkEnd is one Session with all that surrounds it: the carrier below, which keeps what is sent, and the network
// above, which keeps what arrives.
type linkEnd struct {
	session   *Session
	mtu       int
	next      time.Time
	sent      [][]byte // frames
	ups       []Params
	downs     []error
	packets   [][]byte
	batches   int
	onPackets func(packets [][]byte)
}

func (e *linkEnd) WriteFrames(frames [][]byte, offset int) error {
	for _, frame := range frames {
		if offset < e.Headroom() || cap(frame)-len(frame) < e.Tailroom() {
			return errors.New("no room")
		}
		e.sent = append(e.sent, slices.Clone(frame[offset:]))
		clear(frame) // a carrier may encrypt in place
	}
	return nil
}

func (e *linkEnd) Headroom() int { return 20 }
func (e *linkEnd) Tailroom() int { return 10 }
func (e *linkEnd) MTU() int      { return e.mtu }
func (e *linkEnd) Up(p Params)   { e.ups = append(e.ups, p) }
func (e *linkEnd) Down(err error) {
	e.downs = append(e.downs, err)
}

func (e *linkEnd) HandlePackets(packets [][]byte) {
	if len(e.downs) > 0 {
		panic("packets after Down")
	}
	e.batches++
	for _, packet := range packets {
		e.packets = append(e.packets, slices.Clone(packet))
	}
	if e.onPackets != nil {
		e.onPackets(packets)
	}
	for _, packet := range packets {
		clear(packet)
	}
}

func (e *linkEnd) take() [][]byte {
	sent := e.sent
	e.sent = nil
	return sent
}

// err returns why the link went down; the test fails unless Down was called exactly once.
func (e *linkEnd) err(t testing.TB) error {
	t.Helper()
	if len(e.downs) != 1 {
		t.Fatalf("Down was called %d times: %v", len(e.downs), e.downs)
	}
	return e.downs[0]
}

// params returns what the last Up told.
func (e *linkEnd) params(t testing.TB) Params {
	t.Helper()
	if len(e.ups) == 0 {
		t.Fatalf("the network never came up; down: %v", e.downs)
	}
	return e.ups[len(e.ups)-1]
}

// write sends one IP packet with the room that the Session asks for.
func (e *linkEnd) write(t testing.TB, packet []byte) {
	t.Helper()
	if err := e.session.WritePackets([][]byte{roomy(e.session, packet)}, e.session.Headroom()); err != nil {
		t.Fatal(err)
	}
}

// roomy copies packet into a buffer with headroom and tailroom.
func roomy(s *Session, packet []byte) []byte {
	buf := make([]byte, s.Headroom()+len(packet), s.Headroom()+len(packet)+s.Tailroom())
	copy(buf[s.Headroom():], packet)
	return buf
}

// seeded is a reproducible source of randomness.
type seeded struct{ *rand.ChaCha8 }

func newSeeded(n byte) seeded { return seeded{rand.NewChaCha8([32]byte{n})} }

func newLinkEnd(c Config) *linkEnd {
	e := &linkEnd{mtu: testMTU}
	e.session = New(c, e, e)
	return e
}

// A fault says what becomes of the n-th frame of a conversation: how many copies arrive, and after what delay.
type fault func(n int) (copies int, delay time.Duration)

// A linkPair is a peer and an authenticator on one line, in fake time.
type linkPair struct {
	t            testing.TB
	now          time.Time
	peer, server *linkEnd
	fault        fault
	carried      int
	inFlight     []flight
	observe      func(from *linkEnd, frame []byte)
}

type flight struct {
	at    time.Time
	to    *linkEnd
	frame []byte
}

func clientConfig() Config {
	return Config{
		Username: "alice", Password: "wonder land", Auth: []AuthMethod{AuthMSCHAPv2},
		Random: newSeeded(1),
	}
}

func serverConfig() Config {
	return Config{
		Role: Authenticator, Auth: []AuthMethod{AuthMSCHAPv2}, Random: newSeeded(2),
		Secrets: func(user string) (string, bool) { return "wonder land", user == "alice" },
		Assign:  func(string) (Assignment, error) { return testAssignment(), nil },
	}
}

func testAssignment() Assignment {
	return Assignment{
		Local: netip.MustParseAddr("10.9.0.1"), Peer: netip.MustParseAddr("10.9.0.2"),
		DNS:  []netip.Addr{netip.MustParseAddr("10.9.0.53"), netip.MustParseAddr("10.9.0.54")},
		NBNS: []netip.Addr{netip.MustParseAddr("10.9.0.137")},
	}
}

func newLinkPair(t testing.TB, peer, server Config) *linkPair {
	return &linkPair{t: t, now: epoch, peer: newLinkEnd(peer), server: newLinkEnd(server)}
}

// start starts both ends.
func (l *linkPair) start() {
	l.peer.next = l.peer.session.Start(l.now)
	l.server.next = l.server.session.Start(l.now)
}

// connect starts both ends and lets them speak until both networks are up.
func (l *linkPair) connect() {
	l.t.Helper()
	l.start()
	l.run(time.Minute, func() bool { return l.bothUp() && len(l.inFlight) == 0 })
	if !l.bothUp() {
		l.t.Fatalf("not connected: peer %+v %v, server %+v %v", l.peer.ups, l.peer.downs, l.server.ups, l.server.downs)
	}
}

// bothUp tells whether IPv4 and, if wanted, IPv6 are open at both ends.
func (l *linkPair) bothUp() bool {
	open := func(e *linkEnd) bool {
		s := e.session
		return s.ipcp.state == stateOpened && (s.ipv6cp.state == stateOpened || s.ipv6cp.state == stateInitial)
	}
	return open(l.peer) && open(l.server)
}

func (l *linkPair) bothDown() bool { return len(l.peer.downs) > 0 && len(l.server.downs) > 0 }

// run carries frames and lets time pass until done says so or limit has passed.
func (l *linkPair) run(limit time.Duration, done func() bool) {
	l.t.Helper()
	end := l.now.Add(limit)
	for frames := 0; ; {
		l.send(l.peer, l.server)
		l.send(l.server, l.peer)
		if done() {
			return
		}
		next := l.nextEvent()
		if next.IsZero() || next.After(end) {
			l.now = end
			return
		}
		l.now = next
		frames += l.arrive()
		if frames > 20000 {
			l.t.Fatal("the two ends never stop talking")
		}
		for _, e := range []*linkEnd{l.peer, l.server} {
			if !e.next.IsZero() && !l.now.Before(e.next) {
				if e.next = e.session.Advance(l.now); !e.next.IsZero() && !l.now.Before(e.next) {
					l.t.Fatalf("Advance(%v) wants to be called again at %v", l.now, e.next)
				}
			}
		}
	}
}

func (l *linkPair) send(from, to *linkEnd) {
	for _, frame := range from.take() {
		if l.observe != nil {
			l.observe(from, frame)
		}
		copies, delay := 1, time.Duration(0)
		if l.fault != nil {
			copies, delay = l.fault(l.carried)
		}
		l.carried++
		for range copies {
			l.inFlight = append(l.inFlight, flight{l.now.Add(20*time.Millisecond + delay), to, slices.Clone(frame)})
		}
	}
	slices.SortStableFunc(l.inFlight, func(a, b flight) int { return a.at.Compare(b.at) })
}

func (l *linkPair) nextEvent() (next time.Time) {
	var times []time.Time
	if len(l.inFlight) > 0 {
		times = append(times, l.inFlight[0].at)
	}
	for _, e := range []*linkEnd{l.peer, l.server} {
		if !e.next.IsZero() {
			times = append(times, e.next)
		}
	}
	if len(times) == 0 {
		return time.Time{}
	}
	next = slices.MinFunc(times, time.Time.Compare)
	if next.Before(l.now) {
		next = l.now
	}
	return next
}

func (l *linkPair) arrive() (n int) {
	for len(l.inFlight) > 0 && !l.inFlight[0].at.After(l.now) {
		f := l.inFlight[0]
		l.inFlight = l.inFlight[1:]
		f.to.next = f.to.session.Receive(l.now, [][]byte{f.frame})
		n++
	}
	return n
}

// A script drives one Session by hand: the test is the other end.
type scripted struct {
	*linkEnd
	t   testing.TB
	now time.Time
}

func newScripted(t testing.TB, c Config) *scripted {
	s := &scripted{linkEnd: newLinkEnd(c), t: t, now: epoch}
	return s
}

func (s *scripted) start() { s.next = s.session.Start(s.now) }

// give delivers one control packet.
func (s *scripted) give(protocol uint16, code, id uint8, data ...byte) {
	s.giveFrame(appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{code, id, data})))
}

func (s *scripted) giveFrame(frame []byte) {
	s.next = s.session.Receive(s.now, [][]byte{frame})
}

// want takes the next frame that was sent, which must be that packet; the rest stays.
func (s *scripted) want(protocol uint16, code uint8) controlPacket {
	s.t.Helper()
	if len(s.sent) == 0 {
		s.t.Fatalf("nothing was sent, want %04x code %d", protocol, code)
	}
	frame := s.sent[0]
	s.sent = s.sent[1:]
	p := parseSent(s.t, frame)
	if got := binary.BigEndian.Uint16(frame[2:]); got != protocol || p.code != code {
		s.t.Fatalf("sent %s, want %04x code %d", showFrame(frame), protocol, code)
	}
	return p
}

// wantFind is want for the first frame of that kind; those before it are skipped.
func (s *scripted) wantFind(protocol uint16, code uint8) controlPacket {
	s.t.Helper()
	for len(s.sent) > 0 {
		frame := s.sent[0]
		if binary.BigEndian.Uint16(frame[2:]) == protocol && frame[4] == code {
			return s.want(protocol, code)
		}
		s.sent = s.sent[1:]
	}
	s.t.Fatalf("no %04x code %d was sent", protocol, code)
	return controlPacket{}
}

func (s *scripted) wantNothing() {
	s.t.Helper()
	for _, frame := range s.take() {
		s.t.Errorf("sent %s, want nothing", showFrame(frame))
	}
}

// parseSent reads a control frame of ours, which always has its full header.
func parseSent(t testing.TB, frame []byte) controlPacket {
	t.Helper()
	if len(frame) < frameHeader || frame[0] != addressAllStations || frame[1] != controlUI {
		t.Fatalf("control frame %x lacks address and control", frame)
	}
	p, err := parseControlPacket(frame[frameHeader:])
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return p
}

func showFrame(frame []byte) string { return fmt.Sprintf("% x", frame) }

// pass lets time pass, with every deadline on the way.
func (s *scripted) pass(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	for calls := 0; !s.next.IsZero() && !s.next.After(end); calls++ {
		if calls > 1000 {
			s.t.Fatal("deadlines never end")
		}
		s.now = s.next
		s.next = s.session.Advance(s.now)
	}
	s.now = end
}

// openLCP lets LCP open with the given options of the other end.
func (s *scripted) openLCP(options ...byte) {
	s.t.Helper()
	s.start()
	r := s.want(protocolLCP, codeConfigureRequest)
	s.give(protocolLCP, codeConfigureAck, r.id, r.data...)
	s.give(protocolLCP, codeConfigureRequest, 1, options...)
	s.want(protocolLCP, codeConfigureAck)
	if s.session.lcp.state != stateOpened {
		s.t.Fatalf("LCP is %s, not open; down: %v", s.session.lcp.state, s.downs)
	}
}

// noLogin is a peer that a server lets in without a login, so that tests of other matters are short.
func noLogin() Config {
	return Config{Auth: []AuthMethod{AuthNone}, Random: newSeeded(3), NoIPv6: true}
}

// openIPCP brings a peer without login up with address 10.9.0.2 and the other end at 10.9.0.1.
func (s *scripted) openIPCP(lcpOptions ...byte) {
	s.t.Helper()
	s.openLCP(lcpOptions...)
	s.negotiateIPCP()
}

func (s *scripted) negotiateIPCP() {
	s.t.Helper()
	r := s.wantFind(protocolIPCP, codeConfigureRequest)
	s.give(protocolIPCP, codeConfigureNak, r.id, 3, 6, 10, 9, 0, 2, 129, 6, 10, 9, 0, 53, 131, 6, 10, 9, 0, 54)
	r = s.wantFind(protocolIPCP, codeConfigureRequest)
	s.give(protocolIPCP, codeConfigureAck, r.id, r.data...)
	s.give(protocolIPCP, codeConfigureRequest, 1, 3, 6, 10, 9, 0, 1)
	s.wantFind(protocolIPCP, codeConfigureAck)
	if s.session.ipcp.state != stateOpened {
		s.t.Fatalf("IPCP is %s, not open; down: %v", s.session.ipcp.state, s.downs)
	}
}

// stageOf returns the stage of an error of ours.
func stageOf(err error) string {
	var staged interface{ Stage() string }
	if errors.As(err, &staged) {
		return staged.Stage()
	}
	return ""
}

func adviceOf(err error) string {
	var advising interface{ Advice() string }
	if errors.As(err, &advising) {
		return advising.Advice()
	}
	return ""
}

// logTo returns a logger for tests that look at the log.
func logTo(w interface{ Write([]byte) (int, error) }) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// ipv4Packet and ipv6Packet are as much of an IP packet as PPP looks at.
func ipv4Packet(size int) []byte { return ipPacket(0x45, size) }
func ipv6Packet(size int) []byte { return ipPacket(0x60, size) }

func ipPacket(first byte, size int) []byte {
	packet := make([]byte, size)
	for i := range packet {
		packet[i] = byte(i)
	}
	packet[0] = first
	return packet
}
