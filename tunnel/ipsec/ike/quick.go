package ike

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// A quickState is where a Quick Mode stands.
type quickState uint8

const (
	quickAwait2 quickState = iota // as initiator: message 1 is sent
	quickAwait3                   // as responder: message 2 is sent
	quickDone                     // kept for repetitions only
)

const (
	quickKeep       = time.Minute      // how long a finished one is kept
	portWait        = 10 * time.Second // how long the answer to an ephemeral inner port is waited for
	maxQuicks       = 64               // of one SA at a time, of which most are finished
	maxChildren     = 16               // of one peer
	minSPI          = 256              // RFC 4303 section 2.1
	protocolUDP     = 17
	natOAHeaderSize = 4
)

// A quickMode is one run of phase 2 (RFC 2409 section 5.5):
//
//	1  HASH(1), SA, Ni, [KE,] IDci, IDcr, NAT-OA  ->
//	2                                             <-  HASH(2), SA, Nr, [KE,] IDci, IDcr, NAT-OA
//	3  HASH(3)                                    ->
type quickMode struct {
	sa       *isakmpSA
	id       uint32
	state    quickState
	out      transmission
	iv       []byte
	ni, nr   []byte
	secret   secret
	gxy      []byte
	spi      uint32 // ours
	offered  []ESPProposal
	group    uint16
	child    *child // of the responder, since message 2
	replaces *child
	forgetAt time.Time
}

func (s *isakmpSA) quicksInOrder() []*quickMode {
	return slices.SortedFunc(maps.Values(s.quicks), func(a, b *quickMode) int { return cmp.Compare(a.id, b.id) })
}

// beginQuick sends message 1.
func (p *Peer) beginQuick(now time.Time, s *isakmpSA, replaces *child) {
	e := p.e
	offered, group := p.phase2Attempt(s)
	q := &quickMode{sa: s, id: s.newMessageID(), spi: p.newSPI(), offered: offered, group: group, replaces: replaces}
	q.ni = e.fill(make([]byte, nonceSize))
	c := s.compose2(quickModeType, q.id)
	c.add(payloadSA, offer2(offered, spiBytes(q.spi), group, s.abilities.nat.encapsulation(), e.config.ESPLifetime))
	c.add(payloadNonce, q.ni)
	if group != 0 {
		if err := q.drawSecret(); err != nil {
			p.end(now, err)
			return
		}
		c.add(payloadKE, q.secret.public())
	}
	ours, theirs := p.selectors()
	c.add(payloadID, ours)
	c.add(payloadID, theirs)
	q.addNATOA(c, true)
	s.quicks[q.id], p.quick = q, q
	q.iv = s.keys.phase2IV(s.lastBlock, q.id)
	q.send(now, c, nil, true)
	if p.drewPort && !p.wasUp {
		q.out.limit = now.Add(portWait) // there is another port to try
		s.schedule()
	}
}

func (q *quickMode) drawSecret() (err error) {
	g := find(groupAlgorithms, func(a *groupAlgorithm) bool { return a.id == q.group })
	if q.secret, err = g.group.generate(q.sa.e.config.Random); err != nil {
		return &LocalError{Kind: NoResources, Phase: 2, Detail: "no random numbers", Err: err}
	}
	return nil
}

// send seals and sends a message. nonce is Ni_b in message 2.
func (q *quickMode) send(now time.Time, c *composer, nonce []byte, await bool) {
	message, next := q.sa.seal(c, q.id, nonce, q.iv)
	q.iv = next
	q.transmit(now, message, await)
}

func (q *quickMode) transmit(now time.Time, message []byte, await bool) {
	q.out.to, q.out.marker, q.out.fragmented = q.sa.remote, q.sa.marker, q.sa.abilities.fragmentation
	q.out.send(q.sa.e, now, message, await)
	q.sa.schedule()
}

// addNATOA tells the addresses as we know them, the initiator's first (RFC 3947 section 5.2). Only checksums inside ESP need them.
func (q *quickMode) addNATOA(c *composer, initiator bool) {
	local, remote := q.sa.e.localAddress(q.sa.remote.Addr()), addressIdentity(q.sa.remote.Addr())
	if local.Type != remote.Type {
		return
	}
	if !initiator {
		local, remote = remote, local
	}
	_, natOA := q.sa.abilities.nat.payloads()
	for _, id := range []Identity{local, remote} {
		c.add(natOA, []byte{byte(id.Type), 0, 0, 0}, []byte(id.Data))
	}
}

// selectors are the bodies of the IDs of phase 2: what traffic is ours and what the peer's. They stay the same for all pairs with a peer.
func (p *Peer) selectors() (ours, theirs []byte) {
	if p.ours == nil {
		address := p.remote.Addr()
		p.ours = appendID(nil, idPayload{p.e.localAddress(address), protocolUDP, p.port})
		p.theirs = appendID(nil, idPayload{addressIdentity(address), protocolUDP, orDefault(p.e.config.PeerInnerPort, l2tpPort)})
	}
	return p.ours, p.theirs
}

// newSPI draws the SPI of an inbound SA.
func (p *Peer) newSPI() uint32 {
	spi := binary.BigEndian.Uint32(p.e.fill(make([]byte, spiSizeESP)))
	for spi < minSPI || p.e.spiTaken(spi) {
		spi += minSPI
	}
	return spi
}

func (e *Endpoint) spiTaken(spi uint32) bool {
	return slices.ContainsFunc(e.peers, func(p *Peer) bool {
		return slices.ContainsFunc(p.children, func(c *child) bool { return c.sa.SPIIn == spi }) || p.quick != nil && p.quick.spi == spi
	})
}

// receiveQuick takes a message of Quick Mode.
func (s *isakmpSA) receiveQuick(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) {
	if s.state != established || h.id == 0 {
		s.drop(now, errUnexpected)
		return
	}
	q := s.quicks[h.id]
	var err error
	switch {
	case q == nil:
		err = s.receiveQuick1(now, from, marker, h, raw)
	case q.out.repeats(s.e, raw):
	case q.state == quickAwait2:
		err = q.receive2(now, from, marker, h, raw)
	case q.state == quickAwait3:
		err = q.receive3(now, from, marker, h, raw)
	default:
		err = errUnexpected
	}
	if errors.Is(err, errHash) {
		s.e.counters.unauthenticated.Add(1)
	}
	if err != nil {
		s.drop(now, err)
	}
}

// receiveQuick1 answers the peer's proposals.
func (s *isakmpSA) receiveQuick1(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) error {
	m, iv, err := s.open(h, raw, nil, s.keys.phase2IV(s.lastBlock, h.id))
	if err != nil {
		return err
	}
	if len(s.quicks) >= maxQuicks || len(s.peer.children) >= maxChildren || !s.used.add(h.id) {
		return errTooMany
	}
	s.heardFrom(now, from, marker)
	q := &quickMode{sa: s, id: h.id, iv: iv, state: quickAwait3}
	reply, why := q.answer(m)
	if reply == nil {
		s.e.counters.refused.Add(1)
		s.e.config.Log.Warn("ike: refused the peer's phase 2", "peer", s.remote, "why", why)
		s.sendNotify(notification{protocol: protocolESP, kind: why})
		return nil
	}
	s.quicks[q.id] = q
	q.out.heard(raw)
	q.send(now, reply, q.ni, true)
	s.peer.children = append(s.peer.children, q.child)
	s.peer.handler.SAInbound(now, q.child.sa)
	return nil
}

// answer composes message 2 and makes the pair, or says why not.
func (q *quickMode) answer(m *message) (reply *composer, why notifyType) {
	s, p := q.sa, q.sa.peer
	nonce, ids := m.one(payloadNonce), m.all(payloadID)
	if len(nonce) < minNonceSize || len(nonce) > maxNonceSize || len(ids) != 0 && len(ids) != 2 {
		return nil, notifyPayloadMalformed
	}
	chosen, choice, spiOut := q.choose(m)
	if chosen == nil {
		return nil, notifyNoProposalChosen
	}
	if !p.acceptsSelectors(ids) {
		return nil, notifyInvalidID
	}
	if len(ids) == 2 {
		p.theirs, p.ours = ids[0], ids[1]
	}
	if q.group = choice.proposal.group; q.group != 0 {
		if q.drawSecret() != nil {
			return nil, notifyNoProposalChosen
		}
		gxy, err := q.secret.agree(m.one(payloadKE))
		if err != nil {
			return nil, notifyInvalidKey
		}
		q.gxy = gxy
	}
	q.spi = p.newSPI()
	chosen.spi = spiBytes(q.spi)
	q.ni, q.nr = nonce, s.e.fill(make([]byte, nonceSize))
	q.child = q.newChild(choice, spiOut)
	c := s.compose2(quickModeType, q.id)
	c.add(payloadSA, appendSA(nil, []proposalPayload{*chosen}))
	c.add(payloadNonce, q.nr)
	if q.group != 0 {
		c.add(payloadKE, q.secret.public())
	}
	for _, id := range ids {
		c.add(payloadID, id)
	}
	if _, natOA := s.abilities.nat.payloads(); len(m.all(natOA)) > 0 {
		q.addNATOA(c, false)
	}
	if own := q.child.sa.Lifetime; own < choice.life || choice.life == 0 {
		// RFC 2407 section 4.6.3.1: the attributes go back unchanged, so this is how to say that it lives shorter.
		data := appendAttribute(appendAttribute(nil, espAttributeLifeType, lifeSeconds), espAttributeLife, uint64(own/time.Second))
		c.add(payloadNotify, appendNotification(nil, notification{protocolESP, spiBytes(q.spi), notifyResponderLifetime, data}))
	}
	return c, 0
}

// choose takes the first of the peer's transforms that suits us.
func (q *quickMode) choose(m *message) (chosen *proposalPayload, choice choice2, spiOut uint32) {
	proposals, err := parseSA(m.one(payloadSA))
	if err != nil {
		return nil, choice, 0
	}
	hasKE := m.one(payloadKE) != nil
	for _, p := range proposals {
		if p.protocol != protocolESP || len(p.spi) != spiSizeESP || q.together(proposals, p.number) {
			continue
		}
		for _, t := range p.transforms {
			c, ok := readTransform2(t)
			spi := binary.BigEndian.Uint32(p.spi)
			if !ok || spi < minSPI || (c.proposal.group != 0) != hasKE || !isUDPTransport(c.encapsulation) || !q.sa.e.acceptsESP(c.proposal) {
				continue
			}
			p.transforms = []transform{t}
			return &p, c, spi
		}
	}
	return nil, choice, 0
}

// together tells whether several proposals have one number, so that they are to be taken together: AH and ESP, say (RFC 2408 section 4.2).
func (q *quickMode) together(proposals []proposalPayload, number uint8) bool {
	n := 0
	for _, p := range proposals {
		if p.number == number {
			n++
		}
	}
	return n > 1
}

func isUDPTransport(encapsulation uint16) bool {
	return encapsulation == encapsulationUDPTransport || encapsulation == encapsulationUDPTransportDraft
}

// acceptsESP tells whether we take a proposal as responder.
func (e *Endpoint) acceptsESP(p ESPProposal) bool {
	if e.config.PFS == PFSOn && p.group == 0 {
		return false
	}
	if len(e.espProposals) > 0 {
		return slices.ContainsFunc(e.espProposals, func(ours ESPProposal) bool {
			return ours.algorithms() == p.algorithms() && (ours.group == 0 || ours.group == p.group)
		})
	}
	return p.cipher().name != "null" && (e.config.Policy != Strict || !p.Weak())
}

// acceptsSelectors tells whether IDci and IDcr are of L2TP. Their addresses do not count, as NATs stand between what each side knows
// (RFC 3947 section 5.2); no IDs stand for all traffic.
func (p *Peer) acceptsSelectors(ids [][]byte) bool {
	if len(ids) == 0 {
		return true
	}
	theirs, err1 := parseID(ids[0])
	ours, err2 := parseID(ids[1])
	wanted := p.e.config.PeerInnerPort
	if p.dialed {
		wanted = orDefault(wanted, l2tpPort)
	}
	return err1 == nil && err2 == nil && isUDP(theirs, wanted) && isUDP(ours, p.port)
}

// isUDP tells whether a selector lets UDP of a port through; port 0 is any.
func isUDP(id idPayload, port uint16) bool {
	return (id.protocol == protocolUDP || id.protocol == 0) && (id.port == port || id.port == 0 || port == 0)
}

// receive2 takes the responder's choice: the pair is up.
func (q *quickMode) receive2(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) error {
	s, p := q.sa, q.sa.peer
	m, iv, err := s.open(h, raw, q.ni, q.iv)
	if err != nil {
		return err
	}
	// From here on it is certain that the peer sent this: what is wrong is final.
	s.heardFrom(now, from, marker)
	choice, spiOut, err := q.readChoice(m)
	if err != nil {
		p.quickFailed(now, q, err)
		return err
	}
	if len(p.children) >= maxChildren {
		p.quickFailed(now, q, &LocalError{Kind: NoResources, Phase: 2, Detail: "too many SAs"})
		return errTooMany
	}
	q.iv, q.nr = iv, bytes.Clone(m.one(payloadNonce))
	c := q.newChild(choice, spiOut)
	hash := prf(s.keys.hash, s.keys.a, []byte{0}, messageID(q.id), q.ni, q.nr) // HASH(3)
	reply := compose(header{initiator: s.key.initiator, responder: s.key.responder, exchange: quickModeType, id: q.id})
	reply.add(payloadHash, hash)
	message, _ := s.keys.encrypt(q.iv, reply.finish())
	q.out.heard(raw)
	q.transmit(now, message, false)
	q.finish(now)
	p.quick = nil
	p.children = append(p.children, c)
	p.handler.SAInbound(now, c.sa)
	p.childUp(now, c, q.replaces)
	return nil
}

// readChoice checks message 2 against message 1.
func (q *quickMode) readChoice(m *message) (choice choice2, spiOut uint32, err error) {
	wrong := func(format string, args ...any) error {
		return &LocalError{Kind: WrongChoice, Phase: 2, Detail: fmt.Sprintf(format, args...)}
	}
	proposals, err := parseSA(m.one(payloadSA))
	if err != nil {
		return choice, 0, wrong("server's answer is malformed")
	}
	if len(proposals) != 1 || proposals[0].protocol != protocolESP || len(proposals[0].spi) != spiSizeESP || len(proposals[0].transforms) != 1 {
		return choice, 0, wrong("server did not choose one transform of ESP")
	}
	choice, ok := readTransform2(proposals[0].transforms[0])
	spiOut = binary.BigEndian.Uint32(proposals[0].spi)
	matches := func(p ESPProposal) bool { p.group = q.group; return p == choice.proposal }
	switch {
	case !ok || !slices.ContainsFunc(q.offered, matches):
		return choice, 0, wrong("server chose what was not offered: %v", choice.proposal)
	case !isUDPTransport(choice.encapsulation):
		return choice, 0, wrong("server chose encapsulation mode %d, not transport mode in UDP", choice.encapsulation)
	case spiOut < minSPI:
		return choice, 0, wrong("server chose the reserved SPI %d", spiOut)
	}
	if nonce := m.one(payloadNonce); len(nonce) < minNonceSize || len(nonce) > maxNonceSize {
		return choice, 0, wrong("server's nonce has %d bytes", len(nonce))
	}
	if ids := m.all(payloadID); len(ids) > 0 {
		ours, theirs := q.sa.peer.selectors()
		if len(ids) != 2 || !sameSelector(ids[0], ours) || !sameSelector(ids[1], theirs) {
			return choice, 0, wrong("server narrowed the traffic to other than L2TP's ports")
		}
	}
	if q.group != 0 {
		if q.gxy, err = q.secret.agree(m.one(payloadKE)); err != nil {
			return choice, 0, wrong("server's public value is not valid")
		}
	}
	for _, body := range m.all(payloadNotify) {
		if n, err := parseNotification(body); err == nil && n.kind == notifyResponderLifetime {
			life, lifeBytes := responderLifetime(n.data, espAttributeLifeType, espAttributeLife)
			if life > 0 && (choice.life == 0 || life < choice.life) {
				choice.life = life
			}
			if lifeBytes > 0 && (choice.lifeBytes == 0 || lifeBytes < choice.lifeBytes) {
				choice.lifeBytes = lifeBytes
			}
		}
	}
	return choice, spiOut, nil
}

// sameSelector tells whether an answered selector lets through what was asked for. Addresses do not count.
func sameSelector(answered, asked []byte) bool {
	a, err1 := parseID(answered)
	b, err2 := parseID(asked)
	return err1 == nil && err2 == nil && isUDP(a, b.port)
}

// receive3 takes the confirmation: outbound traffic may move to the pair.
func (q *quickMode) receive3(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) error {
	s := q.sa
	if h.flags&flagEncrypted == 0 {
		return errUnencrypted
	}
	body, _, err := s.keys.decrypt(q.iv, raw[headerSize:])
	if err != nil {
		return err
	}
	m, err := parseMessage(h, body)
	if err != nil {
		return err
	}
	want := prf(s.keys.hash, s.keys.a, []byte{0}, messageID(q.id), q.ni, q.nr) // HASH(3)
	if hash := m.one(payloadHash); !hmac.Equal(hash, want) {
		return errHash
	}
	s.heardFrom(now, from, marker)
	c := q.child
	q.out.done()
	q.finish(now)
	s.peer.childUp(now, c, nil)
	return nil
}

// finish keeps q for repetitions only.
func (q *quickMode) finish(now time.Time) {
	q.state, q.forgetAt = quickDone, now.Add(quickKeep)
	q.secret, q.gxy, q.ni, q.nr, q.child = nil, nil, nil, nil, nil
}

// newChild makes the pair of SAs (RFC 2409 section 5.5). Both sides derive the keys of each direction with its receiver's SPI.
func (q *quickMode) newChild(choice choice2, spiOut uint32) *child {
	s, p := q.sa, q.sa.peer
	cipher := choice.proposal.cipher()
	keySize, authSize := cipher.keySize+cipher.salt, 0
	if !cipher.aead {
		authSize = choice.proposal.hashing().keySize
	}
	in := s.keys.keymat(keySize+authSize, q.gxy, q.spi, q.ni, q.nr)
	out := s.keys.keymat(keySize+authSize, q.gxy, spiOut, q.ni, q.nr)
	life := s.e.config.ESPLifetime
	if choice.life > 0 {
		life = min(life, max(choice.life, minLifetime))
	}
	_, theirsID := p.selectors()
	theirs, _ := parseID(theirsID)
	return &child{sa: ChildSA{
		SPIIn: q.spi, SPIOut: spiOut,
		Transform: choice.proposal.algorithms(), TransformID: choice.proposal.transform, AuthAlgorithm: choice.proposal.integrity,
		KeyIn: in[:keySize], AuthIn: in[keySize:], KeyOut: out[:keySize], AuthOut: out[keySize:],
		Peer: s.remote, LocalPort: p.port, PeerPort: theirs.port,
		Lifetime: life, LifeBytes: choice.lifeBytes, Weak: choice.proposal.Weak(),
	}}
}

// advance does what is due by now.
func (q *quickMode) advance(now time.Time) {
	p := q.sa.peer
	switch {
	case q.state == quickDone:
		if due(q.forgetAt, now) {
			delete(q.sa.quicks, q.id)
		}
	case !q.out.advance(q.sa.e, now):
	case q.state == quickAwait2:
		detail := fmt.Sprintf("no answer from %v", q.sa.remote)
		if q.sa.asksUser {
			detail = "server asks for a user name (XAuth) instead: it is set up for Cisco IPsec, not for L2TP"
		}
		p.quickFailed(now, q, &LocalError{Kind: NoAnswerPhase2, Phase: 2, Detail: detail})
	default: // the peer never confirmed; it may think all the same that the pair is up
		c := q.child
		delete(q.sa.quicks, q.id)
		p.sendDeletes([]*child{c})
		p.removeChild(now, c)
	}
}

func (q *quickMode) nextDeadline() time.Time { return earlier(q.forgetAt, q.out.deadline()) }
