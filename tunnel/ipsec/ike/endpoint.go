package ike

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	defaultPort        = 500
	defaultNATPort     = 4500
	l2tpPort           = 1701 // inside ESP (RFC 3193 section 4)
	defaultLifetime    = 8 * time.Hour
	defaultESPLifetime = time.Hour
	defaultDPDInterval = 30 * time.Second
	defaultMaxPeers    = 1024

	minLifetime = 30 * time.Second
	maxLifetime = 30 * 24 * time.Hour
)

// Bounds on what others began and did not finish.
const (
	maxHalfOpen          = 128
	maxHalfOpenPerSource = 8
	halfOpenLife         = 30 * time.Second
)

// KeepaliveInterval is after how long without a datagram to the peer one with the single byte ff keeps the NAT's mapping
// (RFC 3948 section 4). It is the job of the socket that carries ESP.
const KeepaliveInterval = 20 * time.Second

// PFS says whether phase 2 has a Diffie-Hellman exchange of its own (perfect forward secrecy).
type PFS int

// The ways of PFS.
const (
	PFSAuto PFS = iota // as initiator without, and with it after NO-PROPOSAL-CHOSEN; as responder as the peer likes
	PFSOff             // as initiator without; as responder as the peer likes
	PFSOn              // always, with the group of phase 1 unless the proposal names one
)

// Config is how an Endpoint behaves. With a PSK or a certificate, its zero value is a client for L2TP over IPsec.
type Config struct {
	PSK []byte // pre-shared key

	// FindPSK, if set, gives the pre-shared key for a peer that began; none refuses it. In Main Mode id is zero: the peer does not tell
	// it before it has proven to know the key (RFC 2409 section 5.4). PSK is not used for such peers then.
	FindPSK func(from netip.AddrPort, id Identity) []byte

	// RSA signatures in place of a PSK: our certificate in DER, followed by intermediate ones; its key; and the CAs that vouch for peers.
	Certificates [][]byte
	Key          crypto.Signer
	Roots        []*x509.Certificate

	LocalID   Identity   // whom we claim to be; zero: the subject of the certificate, or else LocalAddr
	RemoteID  Identity   // whom the peer must be; zero: anyone who knows the PSK, or whose certificate is of the Roots
	LocalAddr netip.Addr // our address as we see it, in IDs and NAT-D; not used to send. Invalid: the unspecified address

	Policy       Policy
	Proposals    []string // of phase 1, best first, in place of the default ones; see ParseProposal
	ESPProposals []string // of phase 2; see ParseESPProposal
	Aggressive   bool     // as initiator use Aggressive Mode, as responder allow it. It lets anyone try out PSKs offline
	PFS          PFS

	Lifetime    time.Duration // of phase 1, 30 s to 30 days; 0 means 8 h
	ESPLifetime time.Duration // of phase 2, 30 s to 30 days; 0 means 1 h
	DPDInterval time.Duration // silence after which the peer is asked whether it lives (RFC 3706); 0 means 30 s, less than 0 never

	// NoInitialContact is not to tell peers, in the first phase 1 with each, that they can forget what they had with us. With an ephemeral
	// InnerPort they are not told anyway.
	NoInitialContact bool

	Port    uint16 // of the responder, where phase 1 begins; 0 means 500
	NATPort uint16 // of the responder, where phase 1 goes on and ESP goes (RFC 3947 section 4); 0 means 4500. If equal to Port, all goes there

	// InnerPort is our UDP port inside ESP. 0 means 1701 as responder. As initiator it then is one of the ephemeral ports, drawn for each Dial,
	// since many servers tell the clients behind one address apart by it, and take a client that comes back for its dead predecessor; and
	// 1701 where the responder does not take that.
	InnerPort     uint16
	PeerInnerPort uint16 // the peer's; 0 means 1701 as initiator, and any as responder

	MaxPeers int // at a time; 0 means 1024

	// Accept decides on a peer that began and has proven who it is. An error refuses it. nil: only peers that we dialed may begin, to renew.
	Accept func(p *Peer) (Handler, error)

	Random io.Reader    // of cookies, nonces, private values, SPIs and jitter; nil means crypto/rand
	Log    *slog.Logger // nil discards
}

// A MessageWriter sends IKE messages.
type MessageWriter interface {
	// WriteMessage sends one message, which is borrowed. With marker it goes to the NAT traversal port: four zero bytes must be put in
	// front (RFC 3948 section 2.2), and if there is a socket of its own for that port, it is the one to send from.
	WriteMessage(message []byte, marker bool, to netip.AddrPort) error
}

// A Handler hears of one peer. Its methods are called on the Endpoint's goroutine and may call back into it, except Receive and Advance.
type Handler interface {
	// SAInbound says that the inbound SA of a new pair must be accepted from now on: the peer may use it at once. It is followed by SAUp,
	// or by SADown if the pair comes to nothing.
	SAInbound(now time.Time, sa ChildSA)
	// SAUp says that the pair is up in both directions: outbound traffic moves to it, and older pairs are accepted until their SADown.
	SAUp(now time.Time, sa ChildSA)
	// SADown says that the pair whose inbound SPI this is ends.
	SADown(now time.Time, spiIn uint32)
	// Down is called once, last, after SADown of all pairs. err is a *PeerError, a *LocalError, or ErrClosed if we closed the Peer.
	Down(now time.Time, err error)
}

// A ChildSA is a pair of ESP SAs, in transport mode and encapsulated in UDP. The slices belong to the receiver.
type ChildSA struct {
	SPIIn, SPIOut   uint32 // of the SA that we receive on, and of that we send on
	Transform       string // aes256-sha256, aes128gcm16, 3des-sha1, ...: see ParseESPProposal
	TransformID     uint8  // ESP transform ID (RFC 2407 section 4.4.4, RFC 3602, RFC 4106)
	AuthAlgorithm   uint16 // RFC 2407 section 4.5; 0 with an AEAD
	KeyIn, KeyOut   []byte // encryption keys; for GCM the salt of 4 bytes follows the key
	AuthIn, AuthOut []byte // integrity keys; empty with an AEAD
	Peer            netip.AddrPort
	LocalPort       uint16        // our UDP port inside ESP, the same for all pairs with a peer
	PeerPort        uint16        // the peer's; 0: any
	Lifetime        time.Duration // from now; the Endpoint looks after it
	LifeBytes       uint64        // 0: no limit; call Peer.Rekey before it is used up
	Weak            bool          // an algorithm is no longer thought safe
}

// String is what may be shown of a pair: not its keys.
func (sa ChildSA) String() string {
	return fmt.Sprintf("%s in %08x out %08x with %v", sa.Transform, sa.SPIIn, sa.SPIOut, sa.Peer)
}

// LogValue is String.
func (sa ChildSA) LogValue() slog.Value { return slog.StringValue(sa.String()) }

// An Endpoint is one IKE speaker behind one datagram socket, initiator and responder at once. It belongs to one goroutine, but for Stats.
type Endpoint struct {
	config       Config
	w            MessageWriter
	proposals    []Proposal
	espProposals []ESPProposal
	roots        *x509.CertPool
	localID      Identity

	peers    []*Peer
	sas      map[saKey]*isakmpSA
	firsts   map[firstKey]*isakmpSA // responder's, until established, by what the first message tells
	halfOpen []*isakmpSA            // the same, oldest first
	contacts map[netip.Addr]bool    // those who had our INITIAL-CONTACT
	closing  bool
	next     time.Time // no deadline is earlier; there may be none at that time
	counters counters
}

type saKey struct{ initiator, responder cookie }

type firstKey struct {
	initiator cookie
	from      netip.AddrPort
}

// NewEndpoint makes an Endpoint that sends through w. It fails if a proposal cannot be parsed or is forbidden by the policy, if there is
// neither a PSK nor a certificate, or a certificate that does not fit.
func NewEndpoint(c Config, w MessageWriter) (*Endpoint, error) {
	e := &Endpoint{w: w, sas: make(map[saKey]*isakmpSA), firsts: make(map[firstKey]*isakmpSA), contacts: make(map[netip.Addr]bool)}
	if err := e.chooseProposals(&c); err != nil {
		return nil, err
	}
	switch {
	case c.certificates():
		if c.Key == nil || len(c.Roots) == 0 {
			return nil, errors.New("ike: a certificate needs its key and a CA")
		}
		id, err := subject(c.Certificates[0])
		if err != nil {
			return nil, err
		}
		e.localID = id
		e.roots = x509.NewCertPool()
		for _, root := range c.Roots {
			e.roots.AddCert(root)
		}
	case len(c.PSK) == 0 && c.FindPSK == nil:
		return nil, errors.New("ike: neither a pre-shared key nor a certificate")
	}
	e.config = c.withDefaults()
	if c.LocalID.Type != 0 {
		e.localID = c.LocalID
	}
	return e, nil
}

func (c *Config) certificates() bool { return len(c.Certificates) > 0 }

func (c Config) withDefaults() Config {
	c.Port = orDefault(c.Port, defaultPort)
	c.NATPort = orDefault(c.NATPort, defaultNATPort)
	c.Lifetime = min(max(orDefault(c.Lifetime, defaultLifetime), minLifetime), maxLifetime)
	c.ESPLifetime = min(max(orDefault(c.ESPLifetime, defaultESPLifetime), minLifetime), maxLifetime)
	c.DPDInterval = orDefault(c.DPDInterval, defaultDPDInterval)
	c.MaxPeers = max(orDefault(c.MaxPeers, defaultMaxPeers), 1)
	c.LocalAddr = c.LocalAddr.Unmap().WithZone("")
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

// chooseProposals reads the configured proposals, or takes the default ones.
func (e *Endpoint) chooseProposals(c *Config) (err error) {
	if e.proposals, err = parseAll(ParseProposal, c.Proposals); err != nil {
		return err
	}
	if e.espProposals, err = parseAll(ParseESPProposal, c.ESPProposals); err != nil {
		return err
	}
	if c.Policy == Strict {
		if weak := slices.IndexFunc(e.proposals, Proposal.Weak); weak >= 0 {
			return fmt.Errorf("ike: proposal %v is weak, which the strict policy forbids", e.proposals[weak])
		}
		if weak := slices.IndexFunc(e.espProposals, ESPProposal.Weak); weak >= 0 {
			return fmt.Errorf("ike: proposal %v is weak, which the strict policy forbids", e.espProposals[weak])
		}
	}
	for _, p := range e.proposals {
		if c.Aggressive && p.group != e.proposals[0].group {
			return fmt.Errorf("ike: aggressive mode needs proposals of one group, %v and %v are not", e.proposals[0], p)
		}
	}
	for _, p := range e.espProposals {
		if p.group != e.espProposals[0].group {
			return fmt.Errorf("ike: phase 2 proposals must be of one group, %v and %v are not", e.espProposals[0], p)
		}
	}
	return nil
}

// fill reads random bytes. A source that fails is replaced: what this package draws must never be predictable.
func (e *Endpoint) fill(b []byte) []byte {
	if _, err := io.ReadFull(e.config.Random, b); err != nil {
		rand.Read(b)
	}
	return b
}

func (e *Endpoint) auth() authMethod {
	if e.config.certificates() {
		return authRSASignature
	}
	return authPSK
}

// Dial begins phase 1 and 2 with a peer. If the Endpoint is closed or full, h.Down is called before Dial returns.
func (e *Endpoint) Dial(now time.Time, to netip.Addr, h Handler) *Peer {
	to = to.Unmap()
	p := e.newPeer(now, netip.AddrPortFrom(to, e.config.Port), h)
	p.dialed, p.wantsChild = true, true
	p.choosePort()
	p.psk = e.config.PSK
	p.marker = e.config.Port == e.config.NATPort
	switch {
	case e.closing:
		p.end(now, ErrClosed)
	case len(e.peers) > e.config.MaxPeers:
		p.end(now, &LocalError{Kind: NoResources, Phase: 1, Detail: "too many peers"})
	default:
		p.beginPhase1(now)
	}
	return p
}

// Receive takes one message, without its marker; marker tells whether it had one, or came in on the socket of the NAT traversal port. It is
// borrowed and not changed. next is when Advance is to be called; zero means never, and it may have passed already.
func (e *Endpoint) Receive(now time.Time, from netip.AddrPort, marker bool, message []byte) (next time.Time) {
	e.receive(now, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), marker, message, false)
	return e.next
}

func (e *Endpoint) receive(now time.Time, from netip.AddrPort, marker bool, raw []byte, whole bool) {
	h, body, err := parseHeader(raw)
	s := e.find(h, from)
	switch {
	case err == errVersion && s != nil && s.isFrom(from):
		s.suspects(now, &PeerError{Phase: 1, Notify: uint16(notifyInvalidMajorVersion)})
		fallthrough
	case err != nil:
		e.counters.malformed.Add(1)
	case s == nil && h.responder == (cookie{}) && h.id == 0 && h.next == payloadSA:
		e.receiveFirst(now, from, marker, h, raw, body)
	case s == nil:
		e.counters.unknownSA.Add(1)
	case !s.isFrom(from):
		e.counters.wrongSource.Add(1)
	case h.next == payloadFragment && !whole:
		if complete := s.fragments.add(h, body); complete != nil {
			e.receive(now, from, marker, complete, true)
		}
	case h.exchange == mainMode || h.exchange == aggressiveMode:
		s.receivePhase1(now, from, marker, h, raw[:headerSize+len(body)])
	case h.exchange == quickModeType:
		s.receiveQuick(now, from, marker, h, raw[:headerSize+len(body)])
	case h.exchange == informational:
		s.receiveInformational(now, from, marker, h, raw[:headerSize+len(body)])
	case h.exchange == transaction:
		s.asksUser = true
	default:
		e.counters.malformed.Add(1)
	}
	if s != nil {
		s.schedule()
	}
}

// find returns the SA that a message belongs to.
func (e *Endpoint) find(h header, from netip.AddrPort) *isakmpSA {
	if s := e.sas[saKey{h.initiator, h.responder}]; s != nil {
		return s
	}
	if h.responder == (cookie{}) {
		return e.firsts[firstKey{h.initiator, from}]
	}
	return e.sas[saKey{initiator: h.initiator}] // the responder's cookie is news to us
}

// Advance does what is due by now. next is as in Receive.
func (e *Endpoint) Advance(now time.Time) (next time.Time) {
	if !due(e.next, now) {
		return e.next
	}
	e.next = time.Time{}
	for _, s := range slices.Clone(e.halfOpen) {
		s.advance(now)
		e.scheduleAt(s.nextDeadline())
	}
	for _, p := range slices.Clone(e.peers) {
		p.advance(now)
		e.scheduleAt(p.nextDeadline())
	}
	return e.next
}

// NextDeadline is when Advance is to be called; zero means never.
func (e *Endpoint) NextDeadline() time.Time { return e.next }

func (e *Endpoint) scheduleAt(t time.Time) { e.next = earlier(e.next, t) }

// Unreachable tells that the network or the host at to refused a datagram, as an ICMP error says. Anyone can forge such an error: it only
// shortens the wait for an answer.
func (e *Endpoint) Unreachable(now time.Time, to netip.AddrPort, err error) (next time.Time) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for _, p := range e.peers {
		if s := p.phase1; s != nil && s.remote == to {
			kind := NoAnswer
			if s.state == await6 {
				kind = NoAnswerNATPort
			}
			s.suspects(now, &LocalError{Kind: kind, Phase: 1, Detail: "cannot reach " + to.String(), Err: err, certificates: e.config.certificates()})
			s.schedule()
		}
	}
	return e.next
}

// Close ends all peers with Delete and refuses new ones. There is nothing to wait for: a Delete is not acknowledged.
func (e *Endpoint) Close(now time.Time) {
	e.closing = true
	for _, p := range slices.Clone(e.peers) {
		p.Close(now)
	}
	for _, s := range slices.Clone(e.halfOpen) {
		s.remove()
	}
	e.next = time.Time{}
}

// write puts one message on the wire, in fragments if it is long and the peer can do that.
func (e *Endpoint) write(message []byte, marker bool, to netip.AddrPort, fragmented bool) {
	parts := [][]byte{message}
	if fragmented && len(message) > maxUnfragmented {
		parts = fragment(message)
	}
	for _, part := range parts {
		if err := e.w.WriteMessage(part, marker, to); err != nil {
			e.counters.writeErrors.Add(1)
			return
		}
	}
}

// newCookie draws a cookie that is not zero.
func (e *Endpoint) newCookie() (c cookie) {
	e.fill(c[:])
	c[0] |= 1 // so it cannot be taken for a non-ESP marker either
	return c
}

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// earlier returns the earlier of two deadlines; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

type counters struct {
	malformed, unknownSA, wrongSource, refused, unauthenticated, evicted, writeErrors atomic.Uint64
}

// Stats counts what an Endpoint dropped or refused, since it was made.
type Stats struct {
	Malformed       uint64 // messages that are no IKE or make no sense in their state
	UnknownSA       uint64 // messages with unknown cookies
	WrongSource     uint64 // messages with valid cookies from another address
	Refused         uint64 // peers that began and were refused
	Unauthenticated uint64 // encrypted messages that failed their hash
	Evicted         uint64 // beginnings dropped to make room for newer ones
	WriteErrors     uint64 // messages that could not be sent
}

// Stats may be called by any goroutine.
func (e *Endpoint) Stats() Stats {
	c := &e.counters
	return Stats{c.malformed.Load(), c.unknownSA.Load(), c.wrongSource.Load(), c.refused.Load(), c.unauthenticated.Load(), c.evicted.Load(), c.writeErrors.Load()}
}
