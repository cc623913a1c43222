package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	rekeyRetry  = 10 * time.Second // after a failed try to renew
	retireAfter = 20 * time.Second // how long what was renewed is kept for what is still on its way
	dpdRetry    = 5 * time.Second  // between R-U-THEREs without an answer
	maxDPD      = 5                // R-U-THEREs without an answer
)

// A Peer is what an Endpoint has with one peer: ISAKMP SAs, of which the newest is used, and pairs of ESP SAs, of which likewise. It stays
// while they are renewed.
type Peer struct {
	e       *Endpoint
	handler Handler
	dialed  bool // we began: it is for us to keep it up
	closed  bool
	remote  netip.AddrPort
	marker  bool
	psk     []byte
	id      Identity // proven
	warned  map[string]bool

	sas      []*isakmpSA // established, newest last
	phase1   *isakmpSA   // that we are negotiating
	attempt1 int         // which list of proposals
	refused  []string    // the proposals of earlier lists, of phase 1 and then of phase 2

	wantsChild bool // a Quick Mode is to begin when there is an SA for it
	quick      *quickMode
	attempt2   int
	children   []*child // newest last; with those of the peer's Quick Modes that are not confirmed yet
	port       uint16   // ours, inside ESP
	drewPort   bool     // it is an ephemeral one
	ours       []byte   // selectors: bodies of ID payloads
	theirs     []byte
	wasUp      bool

	retryAt  time.Time // not before that another try
	heard    time.Time
	askAt    time.Time // when to look whether the peer still lives
	asked    int       // R-U-THEREs without an answer
	sequence uint32    // of R-U-THERE
}

// A child is a pair of ESP SAs.
type child struct {
	sa         ChildSA
	up         bool
	superseded bool // there is a newer one: this one is not renewed
	rekeyAt    time.Time
	expiresAt  time.Time
	retireAt   time.Time // after we renewed it
}

func (e *Endpoint) newPeer(now time.Time, remote netip.AddrPort, h Handler) *Peer {
	p := &Peer{e: e, handler: h, remote: remote, heard: now, warned: make(map[string]bool), port: orDefault(e.config.InnerPort, l2tpPort)}
	p.sequence = binary.BigEndian.Uint32(e.fill(make([]byte, 4))) >> 2 // RFC 3706 section 6.2: it must not soon overflow
	e.peers = append(e.peers, p)
	return p
}

// peerAt finds the peer that sends from an address.
func (e *Endpoint) peerAt(from netip.AddrPort) *Peer {
	for _, p := range e.peers {
		if p.remote == from && len(p.sas)+len(p.children) > 0 {
			return p
		}
	}
	return nil
}

// Remote is where the peer was heard of last, or is expected to be. ESP goes there.
func (p *Peer) Remote() netip.AddrPort { return p.remote }

// ID is whom the peer has proven to be; zero before phase 1 is up.
func (p *Peer) ID() Identity { return p.id }

// Heard tells that something authentic of the peer came in, such as ESP: there is no need to ask whether it lives. It costs nothing.
func (p *Peer) Heard(now time.Time) { p.heard = now }

// Close ends all SAs with Deletes. Handler.Down hears ErrClosed before it returns.
func (p *Peer) Close(now time.Time) {
	p.sendDeletes(p.children)
	if s := p.newest(); s != nil {
		s.sendDelete(p.sas)
	}
	p.end(now, ErrClosed)
}

// Rekey renews the newest pair of SAs now, as when its sequence numbers or bytes are almost used up.
func (p *Peer) Rekey(now time.Time) (next time.Time) {
	if c := p.newestChild(); c != nil && !p.closed {
		c.rekeyAt = now
		p.e.scheduleAt(now)
	}
	return p.e.next
}

// sendDeletes tells the peer that pairs end, by the SPIs on which we receive.
func (p *Peer) sendDeletes(children []*child) {
	s := p.newest()
	if s == nil || len(children) == 0 {
		return
	}
	d := deletion{protocol: protocolESP}
	for _, c := range children {
		d.spis = append(d.spis, spiBytes(c.sa.SPIIn))
	}
	s.sendInformational(payloadDelete, appendDeletion(nil, d))
}

// end is the end. It is said to the peer, if at all, before.
func (p *Peer) end(now time.Time, err error) {
	if p.closed {
		return
	}
	p.closed = true
	p.e.peers = slices.DeleteFunc(p.e.peers, func(other *Peer) bool { return other == p })
	if p.phase1 != nil {
		p.phase1.remove()
	}
	for _, s := range slices.Clone(p.sas) {
		s.remove()
	}
	for _, s := range p.e.halfOpen {
		if s.peer == p { // it only seemed to be with this peer
			s.peer = nil
		}
	}
	for _, c := range slices.Clone(p.children) {
		p.removeChild(now, c)
	}
	p.e.config.Log.Info("ike: peer is down", "peer", p.remote, "cause", err)
	if p.handler != nil { // it was accepted
		p.handler.Down(now, err)
	}
}

// newest is the ISAKMP SA to use, nil if there is none.
func (p *Peer) newest() *isakmpSA {
	if len(p.sas) == 0 {
		return nil
	}
	return p.sas[len(p.sas)-1]
}

func (s *isakmpSA) isNewest() bool { return s.peer != nil && s.peer.newest() == s }

// newestChild is the pair to send on, nil if there is none.
func (p *Peer) newestChild() *child {
	for _, c := range slices.Backward(p.children) {
		if c.up {
			return c
		}
	}
	return nil
}

// beginPhase1 begins phase 1, if we are not at it already.
func (p *Peer) beginPhase1(now time.Time) {
	if p.phase1 != nil || now.Before(p.retryAt) {
		return
	}
	e := p.e
	s := &isakmpSA{e: e, peer: p, initiator: true, mode: mainMode, remote: p.remote, marker: p.marker, psk: p.psk, auth: e.auth(), quicks: make(map[uint32]*quickMode)}
	if e.config.Aggressive && p.dialed {
		s.mode = aggressiveMode
	}
	s.key.initiator = e.newCookie()
	s.offered = p.phase1Attempts()[p.attempt1]
	e.sas[s.key] = s
	p.phase1 = s
	if err := s.begin(now); err != nil {
		s.fail(now, err)
	}
}

// phase1Attempts are the lists of proposals to try one after another.
func (p *Peer) phase1Attempts() [][]Proposal {
	e := p.e
	switch {
	case len(e.proposals) > 0:
		return [][]Proposal{e.proposals}
	case e.config.Aggressive && p.dialed:
		lists := [][]Proposal{allowed(e.config.Policy, aggressiveProposals)}
		if short := allowed(e.config.Policy, shortAggressiveProposals); len(short) > 0 {
			lists = append(lists, short)
		}
		return lists
	}
	return [][]Proposal{allowed(e.config.Policy, defaultProposals), allowed(e.config.Policy, shortProposals)}
}

// phase1Failed tries once more with fewer proposals if that can help, and else gives up; what is up is kept up as long as it lives.
func (p *Peer) phase1Failed(now time.Time, err error) {
	if p.closed {
		return
	}
	refused := noProposalChosen(err)
	p.collectRefused(refused)
	if refused != nil && p.attempt1+1 < len(p.phase1Attempts()) {
		p.e.config.Log.Info("ike: server refused our proposals: trying once more with a short list", "peer", p.remote)
		p.attempt1++
		p.beginPhase1(now)
		return
	}
	if !p.wasUp || len(p.children)+len(p.sas) == 0 {
		p.end(now, err)
		return
	}
	p.retryAt = now.Add(rekeyRetry)
	p.e.scheduleAt(p.retryAt)
	p.e.config.Log.Warn("ike: phase 1 could not be renewed", "peer", p.remote, "err", err)
}

// noProposalChosen is err if the peer refused our proposals with it, else nil.
func noProposalChosen(err error) *PeerError {
	if peer, ok := err.(*PeerError); ok && notifyType(peer.Notify) == notifyNoProposalChosen {
		return peer
	}
	return nil
}

// collectRefused makes a refusal tell all that was offered, in whatever list.
func (p *Peer) collectRefused(refused *PeerError) {
	if refused == nil {
		return
	}
	for _, proposal := range refused.Offered {
		if !slices.Contains(p.refused, proposal) {
			p.refused = append(p.refused, proposal)
		}
	}
	refused.Offered = slices.Clone(p.refused)
}

// attach makes a responder's SA, whose peer has proven who it is, one of the Peer that it is with, or of a new one.
func (s *isakmpSA) attach(now time.Time, m *message) error {
	e := s.e
	initialContact := slices.ContainsFunc(m.all(payloadNotify), func(body []byte) bool {
		n, err := parseNotification(body)
		return err == nil && n.kind == notifyInitialContact
	})
	known := e.peerAt(s.remote)
	if known == nil || known.id != s.peerID {
		known = s.peerOf() // where it was when it began
	}
	s.peer = nil
	if initialContact {
		// It has forgotten what it had with us (RFC 2407 section 4.6.3.3). Others behind the same NAT have other identities, or should.
		for _, p := range slices.Clone(e.peers) {
			if p.id == s.peerID && p.remote.Addr() == s.remote.Addr() && !p.dialed {
				p.end(now, &LocalError{Kind: Replaced, Phase: 1, Detail: "peer connected anew"})
			}
		}
		if known != nil && known.closed {
			known = nil
		}
	}
	if known != nil {
		s.peer = known
		known.remote, known.marker = s.remote, s.marker
		return nil
	}
	if e.config.Accept == nil {
		return errUnexpected
	}
	if len(e.peers) >= e.config.MaxPeers {
		err := &LocalError{Kind: NoResources, Phase: 1, Detail: "too many peers"}
		s.refuse(now, notifyAuthenticationFailed, err)
		return err
	}
	p := e.newPeer(now, s.remote, nil)
	p.marker, p.id, p.psk = s.marker, s.peerID, s.psk
	handler, err := e.config.Accept(p)
	if err != nil || handler == nil {
		err = &LocalError{Kind: Refused, Phase: 1, Detail: "peer is not welcome", Err: err}
		p.end(now, err)
		s.refuse(now, notifyAuthenticationFailed, err)
		e.counters.refused.Add(1)
		return err
	}
	p.handler = handler
	s.peer = p
	return nil
}

// peerOf is the Peer that s seemed to be with when it began, if it is with that indeed.
func (s *isakmpSA) peerOf() *Peer {
	if s.peer != nil && !s.peer.closed && s.peer.id == s.peerID {
		return s.peer
	}
	return nil
}

// phase1Up takes an SA that has just been established into use.
func (p *Peer) phase1Up(now time.Time, s *isakmpSA) {
	p.remote, p.marker, p.id = s.remote, s.marker, s.peerID
	p.Heard(now)
	renewed := len(p.sas) > 0
	if s == p.phase1 {
		p.phase1 = nil
		for _, old := range p.sas { // it was ours to renew, so the old ones are ours to delete
			if old.retireAt.IsZero() {
				old.retireAt = now.Add(retireAfter)
			}
		}
	}
	p.sas, p.refused = append(p.sas, s), nil
	p.warnOf(1, s.proposal.String(), s.proposal.Weak())
	p.e.config.Log.Info("ike: phase 1 is up", "peer", p.remote, "id", p.id.String(), "proposal", s.proposal.String(), "renewed", renewed)
	p.askAt = now.Add(p.e.config.DPDInterval)
	p.e.scheduleAt(p.askAt)
	if p.wantsChild {
		p.beginPhase2(now)
	}
}

// warnOf says once that an algorithm is weak.
func (p *Peer) warnOf(phase int, proposal string, weak bool) {
	if weak && !p.warned[proposal] {
		p.warned[proposal] = true
		p.e.config.Log.Warn("ike: the server chose a weak algorithm: ask its administrator for a better one, or set the strict policy", "phase", phase, "proposal", proposal)
	}
}

// beginPhase2 begins a Quick Mode in place of the newest pair, first phase 1 if need be.
func (p *Peer) beginPhase2(now time.Time) {
	if p.quick != nil || now.Before(p.retryAt) {
		return
	}
	p.wantsChild = true
	s := p.newest()
	if s == nil {
		p.beginPhase1(now)
		return
	}
	p.wantsChild = false
	p.beginQuick(now, s, p.newestChild())
}

// A phase2Offer is one of the offers to try one after another.
type phase2Offer struct {
	proposals []ESPProposal
	pfs       bool
}

func (p *Peer) phase2Attempts() []phase2Offer {
	e := p.e
	on := e.config.PFS == PFSOn
	if len(e.espProposals) > 0 {
		if e.config.PFS == PFSAuto && e.espProposals[0].group == 0 {
			return []phase2Offer{{e.espProposals, false}, {e.espProposals, true}}
		}
		return []phase2Offer{{e.espProposals, on}}
	}
	full, short := allowed(e.config.Policy, defaultESPProposals), allowed(e.config.Policy, shortESPProposals)
	if e.config.PFS == PFSAuto {
		return []phase2Offer{{full, false}, {full, true}, {short, false}}
	}
	return []phase2Offer{{full, on}, {short, on}}
}

// phase2Attempt is what to offer now, and the group of PFS or 0.
func (p *Peer) phase2Attempt(s *isakmpSA) ([]ESPProposal, uint16) {
	offer := p.phase2Attempts()[p.attempt2]
	group := offer.proposals[0].group
	if group == 0 && offer.pfs {
		group = s.proposal.group
	}
	return offer.proposals, group
}

// quickRefused takes the peer's refusal of our Quick Mode.
func (p *Peer) quickRefused(now time.Time, kind notifyType) {
	q := p.quick
	err := q.sa.refusal(2, kind, true)
	if kind == notifyNoProposalChosen {
		offered := slices.Clone(q.offered)
		for i := range offered {
			offered[i].group = q.group
		}
		err.Offered = names(offered)
	}
	p.quickFailed(now, q, err)
}

// quickFailed tries once more with another offer if that can help, and else gives up; a pair that is up is kept as long as it lives.
func (p *Peer) quickFailed(now time.Time, q *quickMode, err error) {
	delete(q.sa.quicks, q.id)
	if p.quick == q {
		p.quick = nil
	}
	refused := noProposalChosen(err)
	p.collectRefused(refused)
	if refused != nil && p.attempt2+1 < len(p.phase2Attempts()) {
		p.e.config.Log.Info("ike: server refused our phase 2 proposals: trying once more with others", "peer", p.remote)
		p.attempt2++
		p.beginPhase2(now)
		return
	}
	if p.mayMeanPort(err) && !q.sa.asksUser {
		if noAnswer(err) {
			p.leaveSAs() // it may have lost them
		}
		p.fallBack(now, err)
		return
	}
	if p.newestChild() == nil {
		p.leaveSAs()
		p.end(now, err)
		return
	}
	if noAnswer(err) {
		q.sa.remove() // a peer that has lost it does not say so: the next try begins with phase 1
	}
	p.retryAt = now.Add(rekeyRetry)
	p.e.scheduleAt(p.retryAt)
	p.e.config.Log.Warn("ike: phase 2 could not be renewed", "peer", p.remote, "err", err)
}

// leaveSAs ends all ISAKMP SAs.
func (p *Peer) leaveSAs() {
	if s := p.newest(); s != nil {
		s.sendDelete(p.sas)
	}
	for _, s := range slices.Clone(p.sas) {
		s.remove()
	}
}

func noAnswer(err error) bool {
	local, ok := err.(*LocalError)
	return ok && local.Kind == NoAnswerPhase2
}

// choosePort draws our port inside ESP, unless it is configured.
func (p *Peer) choosePort() {
	if p.e.config.InnerPort == 0 {
		const ephemeral = 49152 // and above (RFC 6335 section 6)
		p.port, p.drewPort = ephemeral|binary.BigEndian.Uint16(p.e.fill(make([]byte, 2))), true
	}
}

// mayMeanPort tells whether a responder that fails phase 2 with err may do so since our port inside ESP is not 1701. RFC 3193 section 4 lets
// an initiator choose its port, but not all do. Most of them say INVALID-ID-INFORMATION; but others NO-PROPOSAL-CHOSEN, or nothing, or they
// answer with another port or delete their SA. So it is any failure that is not our own.
func (p *Peer) mayMeanPort(err error) bool {
	local, ok := err.(*LocalError)
	return p.drewPort && !p.wasUp && (!ok || local.Kind == NoAnswerPhase2 || local.Kind == WrongChoice)
}

// fallBack begins phase 2 again with the port that all responders know, first phase 1 if it has gone.
func (p *Peer) fallBack(now time.Time, err error) {
	p.e.config.Log.Info("ike: server may insist on UDP port 1701 inside ESP: trying once more with it", "peer", p.remote, "port", p.port, "err", err)
	p.port, p.drewPort, p.ours = l2tpPort, false, nil
	if noProposalChosen(err) != nil { // that was the last of the offers
		p.attempt2 = 0
	}
	p.beginPhase2(now)
}

// childUp moves to a pair that both sides have now. old is the one that we renewed by it, or nil.
func (p *Peer) childUp(now time.Time, c, old *child) {
	if p.closed {
		return
	}
	c.up = true
	c.expiresAt = now.Add(c.sa.Lifetime)
	c.rekeyAt = now.Add(p.e.jitter(c.sa.Lifetime, p.dialed))
	for _, other := range p.children {
		if other != c {
			other.superseded = true
		}
	}
	// Only who renewed a pair deletes the old one. If both renew at a time, both new pairs stay until they end by themselves: else each side
	// would delete the other's.
	if old != nil {
		old.retireAt = now.Add(retireAfter)
	}
	// The newest must be last, also if the peer's Quick Mode was overtaken by ours.
	p.children = append(slices.DeleteFunc(p.children, func(other *child) bool { return other == c }), c)
	p.wasUp = true
	p.warnOf(2, c.sa.Transform, c.sa.Weak)
	p.e.config.Log.Info("ike: phase 2 is up", "peer", p.remote, "transform", c.sa.Transform, "lifetime", c.sa.Lifetime.String(),
		"port", c.sa.LocalPort, "spi_in", fmt.Sprintf("%08x", c.sa.SPIIn), "spi_out", fmt.Sprintf("%08x", c.sa.SPIOut), "renewed", len(p.children) > 1)
	p.e.scheduleAt(p.nextDeadline())
	p.handler.SAUp(now, c.sa)
}

// removeChild ends a pair.
func (p *Peer) removeChild(now time.Time, c *child) {
	i := slices.Index(p.children, c)
	if i < 0 {
		return
	}
	p.children = slices.Delete(p.children, i, i+1)
	if p.quick != nil && p.quick.replaces == c {
		p.quick.replaces = nil
	}
	p.handler.SADown(now, c.sa.SPIIn)
}

// deletedByPeer looks at what is left after the peer deleted SAs of a protocol. Without an ISAKMP SA the pairs go on; a new phase 1 is begun
// when one is needed.
func (p *Peer) deletedByPeer(now time.Time, protocol uint8) {
	switch {
	case p.closed:
	case p.newestChild() == nil && p.wasUp && p.dialed:
		p.leaveSAs()
		p.end(now, &PeerError{Phase: 2, Authenticated: true})
	case p.newest() == nil && p.newestChild() == nil && p.phase1 == nil:
		phase := 1
		if protocol == protocolESP {
			phase = 2
		}
		err := &PeerError{Phase: phase, Authenticated: true}
		if p.mayMeanPort(err) {
			p.fallBack(now, err)
			return
		}
		p.end(now, err)
	}
}

// advance does what is due by now.
func (p *Peer) advance(now time.Time) {
	if p.phase1 != nil {
		p.phase1.advance(now)
	}
	for _, s := range slices.Clone(p.sas) {
		s.advance(now)
		if s.state == established {
			p.renew(now, s)
		}
	}
	for _, c := range slices.Clone(p.children) {
		if !p.closed {
			p.renewChild(now, c)
		}
	}
	if p.closed {
		return
	}
	if p.wantsChild {
		p.beginPhase2(now)
	}
	p.checkAlive(now)
	if !p.closed && p.newest() == nil && p.newestChild() == nil && p.phase1 == nil {
		p.end(now, &LocalError{Kind: Expired, Phase: 1, Detail: "the ISAKMP SA expired"})
	}
}

// renew begins a new phase 1 in good time, and ends the old one.
func (p *Peer) renew(now time.Time, s *isakmpSA) {
	switch {
	case due(s.expiresAt, now), due(s.retireAt, now):
		s.sendDelete([]*isakmpSA{s})
		s.remove()
	case due(s.rekeyAt, now) && s.isNewest():
		p.beginPhase1(now)
	}
}

// renewChild begins a new phase 2 in good time, and ends the old one.
func (p *Peer) renewChild(now time.Time, c *child) {
	switch {
	case due(c.expiresAt, now), due(c.retireAt, now):
		p.sendDeletes([]*child{c})
		p.removeChild(now, c)
		if p.newestChild() == nil && !p.closed && p.dialed {
			p.leaveSAs()
			p.end(now, &LocalError{Kind: Expired, Phase: 2, Detail: "the SAs expired and could not be renewed"})
		}
	case due(c.rekeyAt, now) && c == p.newestChild():
		p.beginPhase2(now)
	}
}

// checkAlive asks a peer that is silent whether it lives (RFC 3706 section 5.4).
func (p *Peer) checkAlive(now time.Time) {
	interval := p.e.config.DPDInterval
	if interval < 0 || !due(p.askAt, now) {
		return
	}
	quiet := p.heard.Add(interval)
	if quiet.After(now) { // heard meanwhile
		p.asked, p.askAt = 0, quiet
		return
	}
	s := p.newest()
	switch {
	case s == nil:
		// The pairs have outlived their ISAKMP SA. To learn whether the peer lives, there must be one.
		p.askAt = now.Add(interval)
		if p.dialed {
			p.beginPhase1(now)
		}
	case !s.abilities.dpd:
		p.askAt = now.Add(interval)
	case p.asked == maxDPD:
		p.end(now, &LocalError{Kind: DeadPeer, Phase: 1, Detail: fmt.Sprintf("no answer to %d R-U-THEREs, nothing heard for %v", maxDPD, now.Sub(p.heard).Round(time.Second))})
	default:
		p.asked++
		p.sequence++
		s.sendNotify(notification{protocolISAKMP, s.spi(), notifyRUThere, binary.BigEndian.AppendUint32(nil, p.sequence)})
		p.askAt = now.Add(min(dpdRetry, interval))
	}
}

func (p *Peer) nextDeadline() (next time.Time) {
	if p.closed {
		return next
	}
	if p.phase1 != nil {
		next = p.phase1.nextDeadline()
	}
	// While a try to renew waits or runs, what is past its time to be renewed sets no deadline.
	due := func(t time.Time, running bool) time.Time {
		if t.IsZero() || running {
			return time.Time{}
		}
		if t.Before(p.retryAt) {
			return p.retryAt
		}
		return t
	}
	for _, s := range p.sas {
		next = earlier(next, s.lifeDeadline())
		if s.isNewest() {
			next = earlier(next, due(s.rekeyAt, p.phase1 != nil))
		}
	}
	newest := p.newestChild()
	for _, c := range p.children {
		next = earlier(earlier(next, c.expiresAt), c.retireAt)
		if c == newest {
			next = earlier(next, due(c.rekeyAt, p.quick != nil || p.phase1 != nil))
		}
	}
	if p.wantsChild && p.phase1 == nil && p.quick == nil {
		next = earlier(next, p.retryAt)
	}
	if p.e.config.DPDInterval >= 0 {
		next = earlier(next, p.askAt)
	}
	return next
}
