package ike

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A phase1State is the message of phase 1 that is awaited, by its number in the exchange (RFC 2409 section 5).
type phase1State uint8

const (
	await2 phase1State = iota + 2 // as initiator
	await3                        // as responder
	await4
	await5
	await6
	established
	dead
)

// An isakmpSA is one run of phase 1 and what came of it.
//
//	Main Mode                              Aggressive Mode
//	1  SA             ->                   SA, KE, Ni, IDii          ->
//	2                 <-  SA               <-  SA, KE, Nr, IDir, HASH_R, NAT-D
//	3  KE, Ni, NAT-D  ->                   HASH_I, NAT-D             ->
//	4                 <-  KE, Nr, NAT-D
//	5* IDii, HASH_I   ->
//	6*                <-  IDir, HASH_R     * encrypted
//
// From message 5 (3) on it goes over the NAT traversal port.
type isakmpSA struct {
	e         *Endpoint
	peer      *Peer // whom it is with; of a responder nil, or whom it seems to be, until established
	initiator bool
	mode      exchangeType
	state     phase1State
	key       saKey
	first     firstKey // of a responder
	fragments fragments
	out       transmission
	remote    netip.AddrPort
	marker    bool
	suspect   error     // the verdict if no genuine answer comes: from a message that anyone could have sent
	giveUp    time.Time // of a responder
	garbled   bool      // the peer's identity could not be decrypted
	asksUser  bool      // the peer began an exchange for XAuth or Mode Config

	psk       []byte
	abilities abilities
	offered   []Proposal
	saBody    []byte // SAi_b
	proposal  Proposal
	auth      authMethod
	secret    secret
	gxi, gxr  []byte
	gxy       []byte
	ni, nr    []byte
	idi, idr  []byte // bodies of the ID payloads
	peerID    Identity
	keys      *keys
	iv        []byte
	lastBlock []byte // of phase 1: the IVs of later exchanges begin with it

	life               time.Duration
	rekeyAt, expiresAt time.Time
	retireAt           time.Time // after it was renewed
	quicks             map[uint32]*quickMode
	used               usedIDs
	lastInformational  transmission
}

// phase1Steps says which function takes which message.
var phase1Steps = map[exchangeType]map[phase1State]func(*isakmpSA, time.Time, *message) error{
	mainMode: {
		await2: (*isakmpSA).receiveMain2,
		await3: (*isakmpSA).receiveMain3,
		await4: (*isakmpSA).receiveMain4,
		await5: (*isakmpSA).receiveMain5,
		await6: (*isakmpSA).receiveMain6,
	},
	aggressiveMode: {
		await2: (*isakmpSA).receiveAggressive2,
		await3: (*isakmpSA).receiveAggressive3,
	},
}

// aggressivePause is how long phase 2 waits after message 3 of Aggressive Mode: nothing tells when the responder is done with that, and
// strongSwan drops what comes before.
const aggressivePause = 100 * time.Millisecond

const (
	nonceSize    = 32
	minNonceSize = 8 // RFC 2409 section 5
	maxNonceSize = 256
)

// begin sends message 1.
func (s *isakmpSA) begin(now time.Time) error {
	s.saBody = offer1(s.offered, s.auth, s.e.config.Lifetime)
	s.state = await2
	c := compose(s.header())
	c.add(payloadSA, s.saBody)
	if s.mode == aggressiveMode {
		if err := s.drawSecret(s.offered[0]); err != nil {
			return err
		}
		s.gxi, s.ni, s.idi = s.secret.public(), s.e.fill(make([]byte, nonceSize)), s.localID()
		c.add(payloadKE, s.gxi)
		c.add(payloadNonce, s.ni)
		c.add(payloadID, s.idi)
		s.addCertRequests(c)
	}
	c.addVendorIDs(initiatorNATs)
	s.send(now, c.finish(), true)
	return nil
}

func (s *isakmpSA) header() header {
	return header{initiator: s.key.initiator, responder: s.key.responder, exchange: s.mode}
}

func (s *isakmpSA) send(now time.Time, message []byte, await bool) {
	s.out.to, s.out.marker, s.out.fragmented = s.remote, s.marker, s.abilities.fragmentation
	s.out.send(s.e, now, message, await)
	s.schedule()
}

// sendEncrypted is send for a message that continues the chain of IVs of phase 1.
func (s *isakmpSA) sendEncrypted(now time.Time, message []byte, await bool) {
	message, s.iv = s.keys.encrypt(s.iv, message)
	s.send(now, message, await)
}

func (s *isakmpSA) drawSecret(p Proposal) (err error) {
	if s.secret, err = p.dhGroup().group.generate(s.e.config.Random); err != nil {
		return &LocalError{Kind: NoResources, Phase: 1, Detail: "no random numbers", Err: err}
	}
	return nil
}

// isFrom tells whether a message can be of this SA's peer by its source. NATs may change its port, and the address of one that dialed us.
func (s *isakmpSA) isFrom(from netip.AddrPort) bool {
	return from.Addr() == s.remote.Addr() || s.state == established && !s.peer.dialed
}

// receiveFirst takes a message 1: someone begins.
func (e *Endpoint) receiveFirst(now time.Time, from netip.AddrPort, marker bool, h header, raw, body []byte) {
	m, err := parseMessage(h, body)
	if err != nil {
		e.counters.malformed.Add(1)
		return
	}
	s := &isakmpSA{e: e, mode: h.exchange, remote: from, marker: marker, giveUp: now.Add(halfOpenLife), quicks: make(map[uint32]*quickMode)}
	s.peer = e.peerAt(from)
	switch {
	case e.closing, e.config.Accept == nil && s.peer == nil,
		h.exchange != mainMode && h.exchange != aggressiveMode,
		h.exchange == aggressiveMode && !e.config.Aggressive:
		e.counters.refused.Add(1)
		return
	}
	s.first = firstKey{h.initiator, from}
	s.key = saKey{h.initiator, e.newCookie()}
	s.auth = e.auth()
	s.abilities = m.abilities()
	s.out.heard(raw)
	s.makeRoom()
	e.firsts[s.first], e.sas[s.key] = s, s
	e.halfOpen = append(e.halfOpen, s)
	if s.mode == mainMode {
		err = s.receiveMain1(now, m)
	} else {
		err = s.receiveAggressive1(now, m)
	}
	if err != nil {
		e.config.Log.Debug("ike: refused a peer", "from", from, "err", err)
		e.counters.refused.Add(1)
		s.remove()
		return
	}
	s.schedule()
}

// makeRoom drops the oldest beginning if there are too many: a flood of them then pushes out itself, and whoever answers in time gets through.
func (s *isakmpSA) makeRoom() {
	e := s.e
	var ofSource []*isakmpSA
	for _, other := range e.halfOpen {
		if other.remote.Addr() == s.remote.Addr() {
			ofSource = append(ofSource, other)
		}
	}
	var victim *isakmpSA
	switch {
	case len(ofSource) >= maxHalfOpenPerSource:
		victim = ofSource[0]
	case len(e.halfOpen) >= maxHalfOpen:
		victim = e.halfOpen[0]
		// Better one that has not shown yet that it receives what we send to its address.
		if i := slices.IndexFunc(e.halfOpen, func(s *isakmpSA) bool { return s.state == await3 }); i >= 0 {
			victim = e.halfOpen[i]
		}
	default:
		return
	}
	e.counters.evicted.Add(1)
	victim.remove()
}

// remove forgets the SA, without a word to the peer.
func (s *isakmpSA) remove() {
	s.state = dead
	delete(s.e.sas, s.key)
	s.forgetFirst()
	if s.peer != nil {
		s.peer.sas = slices.DeleteFunc(s.peer.sas, func(other *isakmpSA) bool { return other == s })
		if s.peer.phase1 == s {
			s.peer.phase1 = nil
		}
		if s.peer.quick != nil && s.peer.quick.sa == s {
			s.peer.quick = nil
		}
	}
}

func (s *isakmpSA) forgetFirst() {
	if s.initiator || s.e.firsts[s.first] != s {
		return
	}
	delete(s.e.firsts, s.first)
	s.e.halfOpen = slices.DeleteFunc(s.e.halfOpen, func(other *isakmpSA) bool { return other == s })
}

// receivePhase1 takes a message of Main or Aggressive Mode.
func (s *isakmpSA) receivePhase1(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) {
	if s.out.repeats(s.e, raw) {
		return
	}
	step := phase1Steps[s.mode][s.state]
	if step == nil || h.exchange != s.mode || h.id != 0 {
		s.drop(now, errUnexpected)
		return
	}
	encrypted := h.flags&flagEncrypted != 0
	body, iv, address, port := raw[headerSize:], s.iv, s.remote, s.marker
	var err error
	switch {
	case encrypted && s.keys == nil:
		err = errUnexpected
	case encrypted:
		body, s.iv, err = s.keys.decrypt(s.iv, body)
	case s.mode == mainMode && s.state >= await5:
		err = errUnencrypted
	default:
		body = bytes.Clone(body) // what is kept of it outlives the datagram
	}
	if err == nil {
		// What follows has to prove that it is the peer's, if this is a message of authentication; it may have moved, then.
		if !s.initiator && (encrypted || s.state == await3 && s.mode == aggressiveMode) {
			s.remote, s.marker = from, marker
		}
		s.out.heard(raw)
		var m *message
		if m, err = parseMessage(h, body); err == nil {
			err = step(s, now, m)
		}
	}
	if err != nil && s.state != dead {
		s.iv, s.remote, s.marker = iv, address, port
		s.out.unheard()
		if encrypted && s.state != established {
			err = s.explainGarbage(now, err)
		}
		s.drop(now, err)
	}
}

// explainGarbage makes of an encrypted message that makes no sense the verdict that the keys differ, since that is how a wrong pre-shared key
// shows (RFC 2409 section 5.4). A responder says so to the peer.
func (s *isakmpSA) explainGarbage(now time.Time, err error) error {
	if isVerdict(err) {
		return err
	}
	if !s.initiator {
		s.sendNotify(notification{protocol: protocolISAKMP, kind: notifyPayloadMalformed})
		if !s.garbled {
			s.garbled = true
			s.e.config.Log.Warn("ike: cannot decrypt the peer's identity: its pre-shared key is most likely another", "from", s.remote)
		}
	}
	return &LocalError{Kind: Undecryptable, Phase: 1, Detail: "cannot decrypt the server's identity: its key is another", certificates: s.e.config.certificates()}
}

func isVerdict(err error) bool {
	var local *LocalError
	var peer *PeerError
	return errors.As(err, &local) || errors.As(err, &peer)
}

// drop counts a message that was not taken. If it holds a verdict, that is kept as a suspicion: anyone could have sent it.
func (s *isakmpSA) drop(now time.Time, err error) {
	s.e.counters.malformed.Add(1)
	s.e.config.Log.Debug("ike: dropped a message", "from", s.remote, "err", err)
	if isVerdict(err) {
		s.suspects(now, err)
	}
}

// suspects notes why phase 1 will most likely fail, and waits for a genuine answer only for a little longer.
func (s *isakmpSA) suspects(now time.Time, err error) {
	if !s.initiator || s.state == established || s.suspect != nil {
		return
	}
	s.suspect = err
	s.out.hurry(now)
}

// receiveMain1 answers with the transform that we choose.
func (s *isakmpSA) receiveMain1(now time.Time, m *message) error {
	s.psk = s.findPSK(Identity{})
	reply, err := s.choose(m)
	if err != nil {
		return err
	}
	s.state = await3
	c := compose(s.header())
	c.add(payloadSA, reply)
	c.addVendorIDs(responderNATs(m))
	s.send(now, c.finish(), false)
	return nil
}

// findPSK is the key for a peer that began.
func (s *isakmpSA) findPSK(id Identity) []byte {
	switch {
	case s.peer != nil:
		return s.peer.psk
	case s.e.config.FindPSK != nil:
		return s.e.config.FindPSK(s.remote, id)
	}
	return s.e.config.PSK
}

// choose takes the first of the initiator's transforms that suits us, and returns the SA payload that says so (RFC 2409 section 5).
func (s *isakmpSA) choose(m *message) (reply []byte, err error) {
	body := m.one(payloadSA)
	proposals, err := parseSA(body)
	if err != nil {
		return nil, err
	}
	if s.auth == authPSK && len(s.psk) == 0 {
		return nil, errors.New("ike: no pre-shared key for this peer")
	}
	if s.abilities.nat == natNone {
		return nil, errors.New("ike: peer does not know NAT traversal")
	}
	s.saBody = bytes.Clone(body)
	for _, p := range proposals {
		if p.protocol != protocolISAKMP {
			continue
		}
		for _, t := range p.transforms {
			c, ok := readTransform1(t)
			if !ok || c.auth != s.auth || !s.e.accepts(c.proposal) {
				continue
			}
			s.proposal, s.life = c.proposal, c.life
			p.transforms = []transform{t}
			return appendSA(nil, []proposalPayload{p}), nil
		}
	}
	s.sendNotify(notification{protocol: protocolISAKMP, kind: notifyNoProposalChosen})
	return nil, errors.New("ike: none of the peer's phase 1 proposals is acceptable")
}

// accepts tells whether we take a proposal as responder.
func (e *Endpoint) accepts(p Proposal) bool {
	if len(e.proposals) > 0 {
		return slices.Contains(e.proposals, p)
	}
	return e.config.Policy != Strict || !p.Weak()
}

// takeChoice reads the one transform that the responder chose.
func (s *isakmpSA) takeChoice(m *message) error {
	proposals, err := parseSA(m.one(payloadSA))
	if err != nil {
		return err
	}
	if len(proposals) != 1 || len(proposals[0].transforms) != 1 {
		return &LocalError{Kind: WrongChoice, Phase: 1, Detail: "server did not choose one transform"}
	}
	c, ok := readTransform1(proposals[0].transforms[0])
	if !ok || c.auth != s.auth || !slices.Contains(s.offered, c.proposal) {
		return &LocalError{Kind: WrongChoice, Phase: 1, Detail: "server chose what was not offered: " + c.proposal.String()}
	}
	a := m.abilities()
	if a.nat == natNone {
		return &LocalError{Kind: NoNATTraversal, Phase: 1, Detail: "server does not support NAT traversal, which IPsec without root needs"}
	}
	s.proposal, s.life, s.abilities = c.proposal, c.life, a
	return nil
}

// takeResponder learns the responder's cookie.
func (s *isakmpSA) takeResponder(m *message) {
	delete(s.e.sas, s.key)
	s.key.responder = m.responder
	s.e.sas[s.key] = s
}

// receiveMain2 takes the responder's choice and answers with our public value.
func (s *isakmpSA) receiveMain2(now time.Time, m *message) error {
	if m.responder == (cookie{}) {
		return errMissing
	}
	if err := s.takeChoice(m); err != nil {
		return err
	}
	if err := s.drawSecret(s.proposal); err != nil {
		s.fail(now, err)
		return err
	}
	s.takeResponder(m)
	s.gxi, s.ni = s.secret.public(), s.e.fill(make([]byte, nonceSize))
	s.state, s.suspect = await4, nil
	c := compose(s.header())
	c.add(payloadKE, s.gxi)
	c.add(payloadNonce, s.ni)
	s.addCertRequests(c)
	s.addNATDetection(c)
	s.send(now, c.finish(), true)
	return nil
}

// addNATDetection adds the NAT-D payloads: the hash of the peer's address, then of ours (RFC 3947 section 3.2). The one of the side that began
// is random, so that both sides find a NAT in front of it and use UDP, the only way open to us; so a responder looks as if in front of none.
func (s *isakmpSA) addNATDetection(c *composer) {
	natD, _ := s.abilities.nat.payloads()
	newHash := s.proposal.hashing().new
	random := s.e.fill(make([]byte, newHash().Size()))
	if s.initiator {
		c.add(natD, natHash(newHash, s.key.initiator, s.key.responder, s.remote))
		c.add(natD, random)
		return
	}
	c.add(natD, random)
	local := s.e.config.LocalAddr
	if !local.IsValid() {
		c.add(natD, s.e.fill(make([]byte, len(random))))
		return
	}
	port := s.e.config.Port
	if s.marker {
		port = s.e.config.NATPort
	}
	c.add(natD, natHash(newHash, s.key.initiator, s.key.responder, netip.AddrPortFrom(local, port)))
}

// takeKE reads public value and nonce of the peer.
func (s *isakmpSA) takeKE(m *message) error {
	ke, nonce := m.one(payloadKE), m.one(payloadNonce)
	if ke == nil || nonce == nil {
		return errMissing
	}
	if len(nonce) < minNonceSize || len(nonce) > maxNonceSize {
		return errPayload
	}
	gxy, err := s.secret.agree(ke)
	if err != nil {
		return err
	}
	s.gxy = gxy
	if s.initiator {
		s.gxr, s.nr = ke, nonce
	} else {
		s.gxi, s.ni = ke, nonce
	}
	return nil
}

// deriveKeys computes the keys of phase 1, when both sides' public values and nonces are known.
func (s *isakmpSA) deriveKeys() (err error) {
	newHash := s.proposal.hashing().new
	skeyid := skeyidSignature(newHash, s.ni, s.nr, s.gxy)
	if s.auth == authPSK {
		skeyid = skeyidPSK(newHash, s.psk, s.ni, s.nr)
	}
	if s.keys, err = newKeys(s.proposal, skeyid, s.gxy, s.key.initiator, s.key.responder); err != nil {
		return err
	}
	s.iv = s.keys.phase1IV(s.gxi, s.gxr)
	s.secret, s.gxy = nil, nil
	return nil
}

// receiveMain3 answers with our public value.
func (s *isakmpSA) receiveMain3(now time.Time, m *message) error {
	if err := s.drawSecret(s.proposal); err != nil {
		return err
	}
	if err := s.takeKE(m); err != nil {
		return err
	}
	s.gxr, s.nr = s.secret.public(), s.e.fill(make([]byte, nonceSize))
	if err := s.deriveKeys(); err != nil {
		return err
	}
	s.state = await5
	c := compose(s.header())
	c.add(payloadKE, s.gxr)
	c.add(payloadNonce, s.nr)
	s.addCertRequests(c)
	s.addNATDetection(c)
	s.send(now, c.finish(), false)
	return nil
}

// receiveMain4 floats to the NAT traversal port and proves who we are.
func (s *isakmpSA) receiveMain4(now time.Time, m *message) error {
	if err := s.takeKE(m); err != nil {
		return err
	}
	if err := s.deriveKeys(); err != nil {
		return err
	}
	s.float()
	s.idi = s.localID()
	c := compose(s.header())
	c.add(payloadID, s.idi)
	if err := s.addProof(c); err != nil {
		s.fail(now, err)
		return err
	}
	s.addInitialContact(c)
	s.state, s.suspect = await6, nil
	s.sendEncrypted(now, c.finish(), true)
	return nil
}

// float moves to the NAT traversal port (RFC 3947 section 4), unless we are there.
func (s *isakmpSA) float() {
	if !s.marker {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), s.e.config.NATPort)
		s.marker = true
	}
}

// receiveMain5 checks who the peer is and proves who we are.
func (s *isakmpSA) receiveMain5(now time.Time, m *message) error {
	s.idi = m.one(payloadID)
	if err := s.checkProof(now, m); err != nil {
		return err
	}
	if err := s.attach(now, m); err != nil {
		return err
	}
	s.idr = s.localID()
	c := compose(s.header())
	c.add(payloadID, s.idr)
	if err := s.addProof(c); err != nil {
		return err
	}
	s.sendEncrypted(now, c.finish(), false)
	s.establish(now)
	return nil
}

// receiveMain6 checks who the peer is.
func (s *isakmpSA) receiveMain6(now time.Time, m *message) error {
	s.idr = m.one(payloadID)
	if err := s.checkProof(now, m); err != nil {
		return err
	}
	s.out.done()
	s.establish(now)
	s.takeNotifications(now, m)
	return nil
}

// receiveAggressive1 answers with our choice, public value and proof.
func (s *isakmpSA) receiveAggressive1(now time.Time, m *message) error {
	id, err := parseID(m.one(payloadID))
	if err != nil {
		return err
	}
	s.idi = bytes.Clone(m.one(payloadID))
	s.psk = s.findPSK(id.Identity)
	reply, err := s.choose(m)
	if err != nil {
		return err
	}
	if err := s.drawSecret(s.proposal); err != nil {
		return err
	}
	if err := s.takeKE(m); err != nil {
		return err
	}
	s.gxi, s.ni = bytes.Clone(s.gxi), bytes.Clone(s.ni)
	s.gxr, s.nr, s.idr = s.secret.public(), s.e.fill(make([]byte, nonceSize)), s.localID()
	if err := s.deriveKeys(); err != nil {
		return err
	}
	s.state = await3
	c := compose(s.header())
	c.add(payloadSA, reply)
	c.add(payloadKE, s.gxr)
	c.add(payloadNonce, s.nr)
	c.add(payloadID, s.idr)
	if err := s.addProof(c); err != nil {
		return err
	}
	c.addVendorIDs(responderNATs(m))
	s.addNATDetection(c)
	s.send(now, c.finish(), true) // it is ours that is awaited here: message 3 has no answer
	return nil
}

// receiveAggressive2 checks who the peer is, floats and proves who we are.
func (s *isakmpSA) receiveAggressive2(now time.Time, m *message) error {
	if m.responder == (cookie{}) {
		return errMissing
	}
	if err := s.takeChoice(m); err != nil {
		return err
	}
	if err := s.takeKE(m); err != nil {
		return err
	}
	secret, gxy, key := s.secret, s.gxy, s.key
	s.key.responder = m.responder
	err := s.deriveKeys()
	if err == nil {
		s.idr = m.one(payloadID)
		err = s.checkProof(now, m)
	}
	if err != nil { // the next may be the genuine one
		s.secret, s.gxy, s.key, s.keys, s.iv = secret, gxy, key, nil, nil
		return err
	}
	s.key = key
	s.takeResponder(m)
	s.float()
	c := compose(s.header())
	if err := s.addProof(c); err != nil {
		s.fail(now, err)
		return err
	}
	s.addNATDetection(c)
	s.addInitialContact(c)
	s.sendEncrypted(now, c.finish(), false)
	s.peer.retryAt = now.Add(aggressivePause)
	s.establish(now)
	return nil
}

// receiveAggressive3 checks who the peer is. The message may be encrypted or not (RFC 2409 section 5.4).
func (s *isakmpSA) receiveAggressive3(now time.Time, m *message) error {
	if err := s.checkProof(now, m); err != nil {
		return err
	}
	if err := s.attach(now, m); err != nil {
		return err
	}
	s.out.done()
	s.establish(now)
	return nil
}

// localID is the body of our ID payload.
func (s *isakmpSA) localID() []byte {
	id := s.e.localID
	if id.Type == 0 {
		id = s.e.localAddress(s.remote.Addr())
	}
	return appendID(nil, idPayload{Identity: id})
}

// localAddress is our address as an identity, of the family of the peer's.
func (e *Endpoint) localAddress(peer netip.Addr) Identity {
	local := e.config.LocalAddr
	switch {
	case local.IsValid():
	case peer.Is4():
		local = netip.IPv4Unspecified()
	default:
		local = netip.IPv6Unspecified()
	}
	return addressIdentity(local)
}

// proof is HASH_I or HASH_R (RFC 2409 section 5).
func (s *isakmpSA) proof(ofInitiator bool) []byte {
	if ofInitiator {
		return prf(s.keys.hash, s.keys.skeyid, s.gxi, s.gxr, s.key.initiator[:], s.key.responder[:], s.saBody, s.idi)
	}
	return prf(s.keys.hash, s.keys.skeyid, s.gxr, s.gxi, s.key.responder[:], s.key.initiator[:], s.saBody, s.idr)
}

// addProof adds what proves that we are who our ID says: HASH, or SIG with our certificates.
func (s *isakmpSA) addProof(c *composer) error {
	hash := s.proof(s.initiator)
	if s.auth == authPSK {
		c.add(payloadHash, hash)
		return nil
	}
	signature, err := sign(s.e.config.Random, s.e.config.Key, hash)
	if err != nil {
		return &LocalError{Kind: WrongCertificate, Phase: 1, Detail: "cannot sign with our key", Err: err, certificates: true}
	}
	for _, certificate := range s.e.config.Certificates {
		c.add(payloadCert, []byte{certificateX509}, certificate)
	}
	c.add(payloadSig, signature)
	return nil
}

// addCertRequests asks for a certificate of the CAs that we trust.
func (s *isakmpSA) addCertRequests(c *composer) {
	if s.auth == authRSASignature {
		for _, root := range s.e.config.Roots {
			c.add(payloadCertReq, []byte{certificateX509}, root.RawSubject)
		}
	}
}

// checkProof checks that the peer is who it says, and who it should be.
func (s *isakmpSA) checkProof(now time.Time, m *message) error {
	body := s.idr
	if !s.initiator {
		body = s.idi
	}
	if body == nil {
		return errMissing
	}
	id, err := parseID(body)
	if err != nil {
		return err
	}
	hash := s.proof(!s.initiator)
	certificates := s.auth == authRSASignature
	switch {
	case certificates:
		if err := s.e.verify(now, id.Identity, m.all(payloadCert), hash, m.one(payloadSig)); err != nil {
			return &LocalError{Kind: WrongCertificate, Phase: 1, Detail: "peer could not prove to be " + id.Identity.String(), Err: err, certificates: true}
		}
	case m.one(payloadHash) == nil:
		return errMissing
	case !hmac.Equal(hash, m.one(payloadHash)):
		return &LocalError{Kind: WrongHash, Phase: 1, Detail: "the peer's proof does not match the pre-shared key", Err: errHash}
	}
	// From here on it is certain that the peer sent this.
	expected := s.e.config.RemoteID
	if expected.Type != 0 && expected != id.Identity && !certificates {
		err := &LocalError{Kind: WrongIdentity, Phase: 1, Detail: fmt.Sprintf("server is %v, and should be %v", id.Identity, expected)}
		s.refuse(now, notifyInvalidID, err)
		return err
	}
	s.peerID = id.Identity
	return nil
}

// refuse ends phase 1 with a peer that has proven who it is, and tells it why.
func (s *isakmpSA) refuse(now time.Time, why notifyType, err error) {
	s.lastBlock = s.iv
	s.sendNotify(notification{protocol: protocolISAKMP, kind: why})
	s.fail(now, err)
}

// addInitialContact tells a peer that we have nothing with it, the first time (RFC 2407 section 4.6.3.3).
func (s *isakmpSA) addInitialContact(c *composer) {
	address := s.remote.Addr()
	if s.e.config.NoInitialContact || s.e.contacts[address] || len(s.e.contacts) >= s.e.config.MaxPeers {
		return
	}
	if s.e.localID.Type == 0 && !s.e.config.LocalAddr.IsValid() {
		return // without an identity of our own we would end what others have
	}
	if s.peer != nil && s.peer.drewPort {
		return // what an earlier one has left there is not in our way, and others with our address may be connected: they would be ended
	}
	s.e.contacts[address] = true
	c.add(payloadNotify, appendNotification(nil, notification{protocolISAKMP, s.spi(), notifyInitialContact, nil}))
}

// spi names the SA in payloads: both cookies.
func (s *isakmpSA) spi() []byte {
	return append(bytes.Clone(s.key.initiator[:]), s.key.responder[:]...)
}

// establish ends phase 1 well.
func (s *isakmpSA) establish(now time.Time) {
	s.state, s.suspect, s.giveUp = established, nil, time.Time{}
	s.lastBlock = s.iv
	life := s.e.config.Lifetime
	if s.life > 0 {
		life = min(life, max(s.life, minLifetime))
	}
	s.expiresAt = now.Add(life)
	s.rekeyAt = now.Add(s.e.jitter(life, s.initiator))
	s.forgetFirst()
	s.saBody, s.gxi, s.gxr, s.ni, s.nr = nil, nil, nil, nil, nil
	s.peer.phase1Up(now, s)
	s.e.scheduleAt(s.peer.nextDeadline())
}

// jitter is when to renew something that lives so long: whoever began it does so first.
func (e *Endpoint) jitter(life time.Duration, began bool) time.Duration {
	b := e.fill(make([]byte, 1))
	part := life / 20 // 5 %
	if began {
		return life - 4*part + part*2*time.Duration(b[0])/256 // 80 to 90 %
	}
	return life - 2*part + part*time.Duration(b[0])/256 // 90 to 95 %
}

// advance does what is due by now.
func (s *isakmpSA) advance(now time.Time) {
	if due(s.giveUp, now) {
		s.remove()
		return
	}
	if s.state != established {
		if s.out.advance(s.e, now) {
			s.fail(now, s.silence())
		}
		return
	}
	for _, q := range s.quicksInOrder() {
		q.advance(now)
	}
}

// silence is the verdict when the wait is over.
func (s *isakmpSA) silence() error {
	if s.suspect != nil {
		return s.suspect
	}
	err := &LocalError{Kind: NoAnswer, Phase: 1, certificates: s.e.config.certificates()}
	switch {
	case s.state == await6:
		err.Kind = NoAnswerNATPort
		err.Detail = fmt.Sprintf("server answered on port %d, but not to our identity on port %d", s.e.config.Port, s.remote.Port())
	case s.state == await4:
		err.Detail = fmt.Sprintf("server %v fell silent after the choice of algorithms", s.remote)
	default:
		err.Detail = fmt.Sprintf("no answer from %v", s.remote)
	}
	return err
}

// fail ends phase 1 badly.
func (s *isakmpSA) fail(now time.Time, err error) {
	if s.state == dead {
		return
	}
	began := s.initiator
	p := s.peer
	s.remove()
	if began {
		p.phase1Failed(now, err)
	}
}

func (s *isakmpSA) schedule() { s.e.scheduleAt(s.nextDeadline()) }

func (s *isakmpSA) nextDeadline() time.Time {
	switch s.state {
	case dead:
		return time.Time{}
	case established:
		return s.lifeDeadline()
	}
	return earlier(s.giveUp, s.out.deadline())
}

// lifeDeadline is the deadline of an established SA, but for its renewal, which is the Peer's.
func (s *isakmpSA) lifeDeadline() time.Time {
	next := earlier(s.expiresAt, s.retireAt)
	for _, q := range s.quicks {
		next = earlier(next, q.nextDeadline())
	}
	return next
}
