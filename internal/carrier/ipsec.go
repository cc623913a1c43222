package carrier

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"gateway/tunnel/ipsec"
	"gateway/tunnel/ipsec/ike"
	"gateway/tunnel/l2tp"
)

// The UDP ports of a server: where IKE begins (RFC 2408 section 2.5.1), and where
// it goes on and ESP goes (RFC 3947 section 4).
const (
	IKEPort = 500
	NATPort = 4500
)

// IPsecConfig says how an [IPsec] protects L2TP. Its zero value lacks IKE's key.
type IPsecConfig struct {
	IKE ike.Config // its Accept is set if Accept is
	ESP ipsec.Config

	// TruncatedSHA256 cuts HMAC-SHA-256 to 96 bits, as old Android and Linux do.
	TruncatedSHA256 bool

	// Accept decides on a peer that began and has proven who it is. nil: none may.
	Accept func(from netip.AddrPort, id ike.Identity) (SecurityHandler, error)
	// Plain is where IKE messages without a marker go out: the socket of UDP
	// port 500, if that is not the one that carries ESP. nil: it is.
	Plain ipsec.DatagramWriter

	Log *slog.Logger // nil: discard
}

// A SecurityHandler hears of the SAs with one peer. Its methods are called on
// the loop's goroutine.
type SecurityHandler interface {
	// SecurityUp says that the first pair of SAs is up, so that L2TP with the
	// peer, by this address, can begin.
	SecurityUp(now time.Time, peer netip.AddrPort)
	// SecurityDown says that no datagram to or from the peer passes any more. It
	// is called once, last. err is as in ike.Handler's Down.
	SecurityDown(now time.Time, err error)
}

// IPsec is an L2TP engine inside IPsec (RFC 3193): an [Engine] for a socket that
// carries ESP in UDP, and IKE beside it. It belongs to the loop's goroutine.
//
// Its L2TP endpoint has the ESP transport to send through and nothing else, so
// no L2TP leaves that is not sealed.
type IPsec struct {
	config    IPsecConfig
	transport *ipsec.Transport
	ike       *ike.Endpoint
	l2tp      *L2TP
	plain     ipsec.DatagramWriter
	plainFrom netip.AddrPort               // what comes from there is IKE without a marker; invalid: nothing
	peers     map[netip.AddrPort]*security // by the address that L2TP knows
	settling  []settling                   // pairs that are up and not yet sent on, oldest first
	next      time.Time                    // of the L2TP engine
}

// A settling is a pair of SAs that will be sent on. Until then its predecessor is,
// if there is one.
type settling struct {
	at       time.Time
	security *security
	sa       ike.ChildSA
}

// settle is what a responder needs from Quick Mode's last message, which it does
// not acknowledge, until it receives on its SAs. What comes earlier is lost: the
// first SCCRQ, which is sent again a second later only, or a burst of a transfer.
// If the peer sends on the pair before, that is the sign that it is ready.
const settle = 100 * time.Millisecond

// NewIPsec returns an engine that sends through w. It fails if IKE's
// configuration makes no sense.
func NewIPsec(c IPsecConfig, config l2tp.Config, w ipsec.DatagramWriter) (*IPsec, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &IPsec{plain: c.Plain, peers: make(map[netip.AddrPort]*security)}
	if e.plain == nil {
		e.plain = w
	}
	c.IKE.Port, c.IKE.NATPort = cmp.Or(c.IKE.Port, IKEPort), cmp.Or(c.IKE.NATPort, NATPort)
	e.config = c
	if c.Accept != nil {
		c.IKE.Accept = e.accept
	}
	e.transport = ipsec.NewTransport(c.ESP, w, (*espHandler)(e))
	e.l2tp = NewL2TP(config, e.transport)
	var err error
	e.ike, err = ike.NewEndpoint(c.IKE, (*ikeWriter)(e))
	return e, err
}

// L2TP returns the engine inside. Its Receive and Advance are this engine's to call.
func (e *IPsec) L2TP() *L2TP { return e.l2tp }

// Dial begins IKE with a responder. An engine dials one only.
func (e *IPsec) Dial(now time.Time, to netip.Addr, h SecurityHandler) {
	if e.config.IKE.Port != e.config.IKE.NATPort {
		e.plainFrom = netip.AddrPortFrom(to, e.config.IKE.Port)
	}
	s := &security{engine: e, handler: h}
	s.peer = e.ike.Dial(now, to, s)
}

// accept takes a peer that began.
func (e *IPsec) accept(p *ike.Peer) (ike.Handler, error) {
	h, err := e.config.Accept(p.Remote(), p.ID())
	if err != nil {
		return nil, err
	}
	return &security{engine: e, handler: h, peer: p}, nil
}

// Receive implements [Engine], for the socket that carries ESP.
func (e *IPsec) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	if from == e.plainFrom {
		return e.ReceivePlain(now, from, datagrams)
	}
	e.transport.Receive(now, from, datagrams)
	return e.earliest()
}

// ReceivePlain takes IKE messages without a marker: from UDP port 500.
func (e *IPsec) ReceivePlain(now time.Time, from netip.AddrPort, messages [][]byte) (next time.Time) {
	for _, m := range messages {
		e.receiveIKE(now, from, false, m)
	}
	return e.earliest()
}

func (e *IPsec) receiveIKE(now time.Time, from netip.AddrPort, marker bool, message []byte) {
	e.ike.Receive(now, from, marker, message)
	e.next = now // its handlers may have begun something in L2TP
}

// Advance implements [Engine]. L2TP comes last, since the others may begin
// something there.
func (e *IPsec) Advance(now time.Time) (next time.Time) {
	e.ike.Advance(now)
	for len(e.settling) > 0 && due(e.settling[0].at, now) {
		pair := e.settling[0]
		e.settling = e.settling[1:]
		pair.security.install(now, pair.sa)
	}
	e.transport.Advance(now)
	e.next = e.l2tp.Advance(now)
	return e.earliest()
}

func (e *IPsec) earliest() time.Time {
	next := Earliest(e.next, Earliest(e.ike.NextDeadline(), e.transport.NextDeadline()))
	if len(e.settling) > 0 {
		next = Earliest(next, e.settling[0].at)
	}
	return next
}

// Unreachable tells that the network refused a datagram to addr (ICMP).
func (e *IPsec) Unreachable(now time.Time, addr netip.AddrPort, err error) {
	e.ike.Unreachable(now, addr, err)
}

// Close deletes all SAs and tells the peers. That is the end of L2TP, too, which
// says goodbye before, if it is to be heard. There is nothing to wait for.
func (e *IPsec) Close(now time.Time) { e.ike.Close(now) }

// Stats may be called by any goroutine.
func (e *IPsec) Stats() (ipsec.Stats, ike.Stats) { return e.transport.Stats(), e.ike.Stats() }

// espHandler is the engine as the ESP transport sees it (ipsec.Handler).
type espHandler IPsec

// HandleDatagrams passes on what came through ESP.
func (h *espHandler) HandleDatagrams(now time.Time, peer netip.AddrPort, datagrams [][]byte) {
	if s := h.peers[peer]; s != nil {
		s.peer.Heard(now)
	}
	h.next = h.l2tp.Receive(now, peer, datagrams)
}

// HandleIKE passes on an IKE message that came with a marker.
func (h *espHandler) HandleIKE(now time.Time, from netip.AddrPort, message []byte) {
	(*IPsec)(h).receiveIKE(now, from, true, message)
}

// RekeyWanted has a pair renewed that has carried nearly all that it may.
func (h *espHandler) RekeyWanted(now time.Time, spiIn uint32) {
	for _, s := range h.peers {
		if s.owns[spiIn] {
			s.peer.Rekey(now)
		}
	}
}

// ikeWriter is the engine as IKE sees it (ike.MessageWriter).
type ikeWriter IPsec

// WriteMessage sends an IKE message.
func (w *ikeWriter) WriteMessage(message []byte, marker bool, to netip.AddrPort) error {
	if marker {
		return w.transport.WriteIKE(message, to)
	}
	offset := w.plain.Headroom()
	b := make([]byte, offset, offset+len(message)+w.plain.Tailroom())
	return w.plain.WriteDatagrams([][]byte{append(b, message...)}, offset, to)
}

// A security is what IKE has with one peer (ike.Handler). It brings the pairs of
// SAs to the transport.
type security struct {
	engine  *IPsec
	handler SecurityHandler
	peer    *ike.Peer
	address netip.AddrPort  // by which L2TP knows the peer; invalid before the first pair
	owns    map[uint32]bool // inbound SPIs
	up      bool
	failure error // why we closed peer
}

// SAInbound lets the transport receive on a pair.
func (s *security) SAInbound(now time.Time, sa ike.ChildSA) {
	s.put(now, sa, func(p ipsec.Pair) (netip.AddrPort, error) { return s.engine.transport.Expect(p) })
}

// SAUp lets the transport send on a pair, soon.
func (s *security) SAUp(now time.Time, sa ike.ChildSA) {
	s.engine.settling = append(s.engine.settling, settling{now.Add(settle), s, sa})
}

// install lets the transport send on a pair that is up.
func (s *security) install(now time.Time, sa ike.ChildSA) {
	s.put(now, sa, func(p ipsec.Pair) (netip.AddrPort, error) { return s.engine.transport.Install(now, p) })
	if s.failure == nil && !s.up {
		s.up = true
		s.handler.SecurityUp(now, s.address)
	}
}

// put gives a pair to the transport, by one of its two methods for that.
func (s *security) put(now time.Time, sa ike.ChildSA, method func(ipsec.Pair) (netip.AddrPort, error)) {
	pair, err := s.engine.pair(sa)
	if err == nil {
		s.address, err = method(pair)
	}
	if err != nil {
		s.failure = &ike.LocalError{Kind: ike.NoResources, Phase: 2, Detail: "the SAs cannot be used", Err: err}
		s.peer.Close(now)
		return
	}
	if s.owns == nil {
		s.owns = make(map[uint32]bool)
	}
	s.owns[sa.SPIIn] = true
	s.engine.peers[s.address] = s
}

// pair is a pair of SAs as the transport wants it.
func (e *IPsec) pair(sa ike.ChildSA) (ipsec.Pair, error) {
	transform, err := ipsec.ParseTransform(sa.Transform)
	if e.config.TruncatedSHA256 && transform.Integrity == ipsec.HMACSHA256 {
		transform.Integrity = ipsec.HMACSHA256x96
	}
	responder := e.config.Accept != nil
	return ipsec.Pair{
		Peer: sa.Peer, Transform: transform,
		SPIIn: sa.SPIIn, SPIOut: sa.SPIOut,
		KeyIn: sa.KeyIn, KeyOut: sa.KeyOut, AuthIn: sa.AuthIn, AuthOut: sa.AuthOut,
		LifeBytes: sa.LifeBytes,
		LocalPort: sa.LocalPort, PeerPort: sa.PeerPort,
		Local:     e.config.IKE.LocalAddr,
		Keepalive: !responder, // an initiator says that it is behind a NAT
		Roams:     responder,  // and its NAT may be restarted
	}, err
}

// SADown takes a pair back.
func (s *security) SADown(_ time.Time, spiIn uint32) {
	delete(s.owns, spiIn)
	s.engine.settling = slices.DeleteFunc(s.engine.settling, func(p settling) bool { return p.security == s && p.sa.SPIIn == spiIn })
	s.engine.transport.Remove(spiIn)
}

// Down passes on that the peer is gone.
func (s *security) Down(now time.Time, err error) {
	if s.engine.peers[s.address] == s {
		delete(s.engine.peers, s.address)
	}
	if s.failure != nil {
		err = s.failure
	}
	s.handler.SecurityDown(now, err)
}
