package ppp

import (
	"encoding/binary"
	"io"
	"log/slog"
	"time"

	"gateway/ppp/mppe"
)

// A FrameWriter is the carrier's session below: an L2TP session, a PPTP call.
type FrameWriter interface {
	// WriteFrames sends frames[i][offset:], each one PPP frame. It may overwrite the headroom, use the tailroom and
	// encrypt in place; the buffers are borrowed until it returns. A Session never calls it concurrently.
	WriteFrames(frames [][]byte, offset int) error
	Headroom() int // bytes in front of each frame; constant
	Tailroom() int // bytes of capacity behind each frame; constant
	MTU() int      // largest frame in bytes, counted from its address octet
}

// A PacketHandler is the network above. It is called on the loop goroutine, never with the tx lock held.
type PacketHandler interface {
	// Up is called when the first network protocol opens and again whenever one opens or closes while another is open.
	Up(p Params)
	// HandlePackets takes a batch of IPv4 and IPv6 packets, borrowed until it returns. It may call WritePackets.
	HandlePackets(packets [][]byte)
	// Down is called once and last. ErrClosed: by us; otherwise an error with Stage and Advice.
	Down(err error)
}

// A Session is one PPP link. WritePackets, Headroom, Tailroom and Stats may be called by any goroutine; all else belongs
// to the carrier's loop goroutine. Each method that returns a time returns the next deadline at which Advance must be
// called; the zero time means none.
type Session struct {
	config  Config
	keyless []AuthMethod // logins of Config.Auth that are not allowed, only because they give no keys
	link    FrameWriter
	handler PacketHandler
	log     *slog.Logger

	rx       receiver
	tx       transmitter
	counters counters

	phase    phase
	deadline time.Time // of the phase; zero: none
	heard    time.Time // when the last frame came
	cause    error     // why we are closing the link; nil: we are not
	early    [][]byte  // copies of frames that came before Start

	lcp    lcp
	ccp    ccp
	ipcp   ipcp
	ipv6cp ipv6cp

	auth         authConversation // nil: none in this phase
	authProtocol uint16
	authDeadline time.Time
	login        authResult

	networkFailure  error // why the first network protocol that gave up did so
	protocolRejects limiter
	rejectID        uint8
}

// New returns a Session in phase Dead: it sends nothing before Start.
func New(c Config, link FrameWriter, up PacketHandler) *Session {
	s := &Session{config: c.withDefaults(), link: link, handler: up}
	s.config.Auth, s.keyless = s.config.logins()
	s.log = s.config.Log
	s.tx.link, s.tx.counters = link, &s.counters

	s.lcp.session, s.ccp.session, s.ipcp.session, s.ipv6cp.session = s, s, s, s
	s.lcp.automaton = s.automaton(protocolLCP, "lcp", &s.lcp)
	s.ccp.automaton = s.automaton(protocolCCP, "ccp", &s.ccp)
	s.ipcp.automaton = s.automaton(protocolIPCP, "ipcp", &s.ipcp)
	s.ipv6cp.automaton = s.automaton(protocolIPV6CP, "ipv6cp", &s.ipv6cp)
	return s
}

func (s *Session) automaton(protocol uint16, name string, l layer) automaton {
	return automaton{
		protocol: protocol, name: name, layer: l, send: s.tx.writeControl,
		timers: s.config.Timers, log: s.log,
	}
}

// Start tells that the carrier's session is up: LCP begins.
func (s *Session) Start(now time.Time) (next time.Time) {
	if s.phase != phaseDead {
		return s.next()
	}
	s.begin(now)
	early := s.early
	s.early = nil
	return s.Receive(now, early)
}

// Receive takes a batch of frames in the order of their arrival. They are borrowed until it returns, and overwritten
// in place.
func (s *Session) Receive(now time.Time, frames [][]byte) (next time.Time) {
	if s.phase == phaseDead {
		s.keepEarly(frames)
		return time.Time{}
	}
	if s.phase == phaseEnded {
		return time.Time{}
	}
	if len(frames) > 0 {
		s.heard = now
	}
	var bytes uint64
	for _, frame := range frames {
		bytes += uint64(len(frame))
		s.receiveFrame(now, frame)
	}
	s.deliver()
	s.counters.framesIn.Add(uint64(len(frames)))
	s.counters.bytesIn.Add(bytes)
	return s.next()
}

// A receiver is the inbound half of the data path. Loop goroutine only.
type receiver struct {
	gates
	sealed   bool          // packets in clear may not pass
	decoder  *mppe.Decoder // nil: nothing comes encrypted or compressed
	packets  [][]byte      // the batch that is being gathered
	expanded []byte        // what the decoder made of it
}

// gates say which packets may pass. The loop goroutine sets them; each direction has its own.
type gates struct {
	ipv4, ipv6 bool // the network protocol is open, and it is settled whether packets are encrypted
}

// open tells whether any packets may pass.
func (g gates) open() bool { return g.ipv4 || g.ipv6 }

// receiveFrame takes one frame: IP packets join the batch, control packets are handled at once. The batch is
// delivered before each control packet, so that what is above sees both in their order.
func (s *Session) receiveFrame(now time.Time, frame []byte) {
	protocol, information, err := parseFrame(frame)
	switch {
	case err != nil:
		s.counters.malformed.Add(1)
	case protocol == protocolCompressed:
		s.decode(now, information)
	case protocol != protocolIPv4 && protocol != protocolIPv6:
		s.deliver()
		s.receiveControl(now, protocol, information)
	case s.rx.sealed: // RFC 3078 section 9
		s.counters.unencrypted.Add(1)
	default:
		s.gather(protocol, information)
	}
}

// gather adds an IP packet to the batch, unless its network protocol is not open (RFC 1332 section 2).
func (s *Session) gather(protocol uint16, packet []byte) {
	open := protocol == protocolIPv4 && s.rx.ipv4 || protocol == protocolIPv6 && s.rx.ipv6
	if !open || len(packet) == 0 {
		s.counters.notOpen.Add(1)
		return
	}
	s.rx.packets = append(s.rx.packets, packet)
}

// deliver hands the batch up.
func (s *Session) deliver() {
	if len(s.rx.packets) > 0 {
		s.handler.HandlePackets(s.rx.packets)
		clear(s.rx.packets)
		s.rx.packets = s.rx.packets[:0]
	}
	s.rx.expanded = s.rx.expanded[:0]
}

// decode takes the information of a 00FD frame: decrypted, expanded, or both, it is an IP packet.
func (s *Session) decode(now time.Time, information []byte) {
	decoder := s.rx.decoder
	if decoder == nil {
		s.counters.malformed.Add(1)
		return
	}
	var datagram []byte
	var verdict mppe.Verdict
	datagram, s.rx.expanded, verdict = decoder.Open(s.rx.expanded, information)
	if verdict == mppe.Opened {
		s.gatherDecoded(datagram)
	} else {
		s.counters.undecoded(verdict)
	}
	switch err := decoder.Err(); {
	case err != nil:
		s.deliver()
		s.terminate(now, encryptionError("encryption failed", err))
	case decoder.NeedsReset():
		s.ccp.requestReset(now)
	default:
		s.ccp.resetPending = false
	}
}

// gatherDecoded adds what was under 00FD to the batch: an IP packet, since control protocols are never compressed
// (RFC 3078 section 3, RFC 2118 section 2.3).
func (s *Session) gatherDecoded(datagram []byte) {
	protocol, packet, err := parseProtocol(datagram)
	if err != nil || protocol != protocolIPv4 && protocol != protocolIPv6 {
		s.counters.garbled.Add(1)
		return
	}
	s.gather(protocol, packet)
}

// WritePackets sends packets[i][offset:], each one IPv4 or IPv6 packet of at most Params.MTU bytes. The buffers need
// Headroom and Tailroom, are borrowed until it returns, and are overwritten. What cannot be sent now is dropped and
// counted; an error means that the link is gone.
func (s *Session) WritePackets(packets [][]byte, offset int) error {
	return s.tx.writePackets(packets, offset)
}

// Headroom is the number of bytes that WritePackets needs in front of each packet.
func (s *Session) Headroom() int {
	return s.link.Headroom() + frameHeader + compressedHeader + compressedProtocol
}

// Tailroom is the number of bytes of capacity that WritePackets needs behind each packet.
func (s *Session) Tailroom() int { return s.link.Tailroom() }

// Advance lets deadlines pass.
func (s *Session) Advance(now time.Time) (next time.Time) {
	if s.phase == phaseDead || s.phase == phaseEnded {
		return time.Time{}
	}
	if !s.deadline.IsZero() && !now.Before(s.deadline) {
		s.expire(now)
	}
	s.lcp.advance(now)
	s.lcp.advanceEcho(now)
	s.ccp.advance(now)
	s.ccp.supervise(now)
	s.ipcp.advance(now)
	s.ipv6cp.advance(now)
	if s.auth != nil && !s.authDeadline.IsZero() && !now.Before(s.authDeadline) {
		s.authDeadline = s.auth.advance(now)
	}
	return s.next()
}

// Close ends the link gracefully with a Terminate-Request. Down(ErrClosed) follows when it is answered or given up.
func (s *Session) Close(now time.Time) (next time.Time) {
	s.terminate(now, ErrClosed)
	return s.next()
}

// LinkDown tells that the carrier's session has died. Down follows at once, with err unless we were closing the link
// for a reason of our own.
func (s *Session) LinkDown(now time.Time, err error) {
	if s.phase == phaseEstablish && (s.lcp.refusedAuth != nil || s.lcp.peerClosed != nil) {
		err = s.lcp.failure() // a carrier often hangs up for what PPP knows better
	}
	if s.phase == phaseNetwork && s.ccp.disputed() {
		err = &NegotiationError{Protocol: "ccp", Cause: "the peer hung up while encryption was in dispute", Hint: s.ccp.advice(), Err: err}
	}
	s.finish(now, err)
}

// next returns the earliest of all deadlines.
func (s *Session) next() (next time.Time) {
	if s.phase == phaseDead || s.phase == phaseEnded {
		return next
	}
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	earliest(s.deadline)
	earliest(s.lcp.deadline)
	earliest(s.lcp.echoDeadline)
	earliest(s.ccp.deadline)
	earliest(s.ccp.holdUntil)
	earliest(s.ccp.limit)
	earliest(s.ipcp.deadline)
	earliest(s.ipv6cp.deadline)
	if s.auth != nil {
		earliest(s.authDeadline)
	}
	return next
}

// Bounds of what is kept from before Start: the first Configure-Requests of a peer whose carrier was up first.
const (
	maxEarlyFrames = 8
	maxEarlyFrame  = 1500 // bytes
)

// keepEarly copies frames that overtook the carrier's own setup.
func (s *Session) keepEarly(frames [][]byte) {
	for _, frame := range frames {
		if len(s.early) >= maxEarlyFrames || len(frame) > maxEarlyFrame {
			s.counters.outOfPhase.Add(1)
			continue
		}
		s.early = append(s.early, append([]byte(nil), frame...))
	}
}

// randomMagic draws a Magic-Number other than our last (RFC 1661 section 6.4). Zero, which means none, if there is
// no randomness.
func (s *Session) randomMagic() uint32 {
	for {
		var b [4]byte
		if _, err := io.ReadFull(s.config.Random, b[:]); err != nil {
			return 0
		}
		if magic := binary.BigEndian.Uint32(b[:]); magic != 0 && magic != s.lcp.magic {
			return magic
		}
	}
}

// randomInterfaceID draws an interface identifier that claims no global uniqueness (RFC 5072 section 4.1). It is not
// zero even if there is no randomness.
func (s *Session) randomInterfaceID() interfaceID {
	var id interfaceID
	io.ReadFull(s.config.Random, id[:])
	id[0] &^= 0x02 // the "u" bit
	id[7] |= 0x01
	return id
}
