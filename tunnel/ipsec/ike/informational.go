package ike

import (
	"crypto/hmac"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// usedIDs are the message IDs of an SA's last exchanges, so that none is taken twice.
type usedIDs struct {
	ids  map[uint32]bool
	ring []uint32
	next int
}

const maxUsedIDs = 4096

// add notes an ID, and tells whether it was new.
func (u *usedIDs) add(id uint32) bool {
	if u.ids[id] {
		return false
	}
	if u.ids == nil {
		u.ids = make(map[uint32]bool)
	}
	if len(u.ring) < maxUsedIDs {
		u.ring = append(u.ring, id)
	} else {
		delete(u.ids, u.ring[u.next])
		u.ring[u.next] = id
		u.next = (u.next + 1) % maxUsedIDs
	}
	u.ids[id] = true
	return true
}

// newMessageID draws the ID of an exchange that we begin.
func (s *isakmpSA) newMessageID() uint32 {
	id := binary.BigEndian.Uint32(s.e.fill(make([]byte, 4)))
	for id == 0 || !s.used.add(id) {
		id++
	}
	return id
}

// compose2 begins a message of an exchange after phase 1: its header and a HASH to be filled in by seal.
func (s *isakmpSA) compose2(exchange exchangeType, id uint32) *composer {
	c := compose(header{initiator: s.key.initiator, responder: s.key.responder, exchange: exchange, id: id})
	c.add(payloadHash, make([]byte, s.keys.hash().Size()))
	return c
}

// hash2 is the HASH of a message after phase 1: prf(SKEYID_a, M-ID | nonce | what follows the HASH payload). nonce is Ni_b in message 2 of
// Quick Mode, else nothing (RFC 2409 sections 5.5, 5.7).
func (s *isakmpSA) hash2(id uint32, nonce, rest []byte) []byte {
	return prf(s.keys.hash, s.keys.a, messageID(id), nonce, rest)
}

// seal fills the HASH in and encrypts.
func (s *isakmpSA) seal(c *composer, id uint32, nonce, iv []byte) (message, next []byte) {
	message = c.finish()
	hash := message[headerSize+payloadHeaderSize:][:s.keys.hash().Size()]
	copy(hash, s.hash2(id, nonce, message[headerSize+payloadHeaderSize+len(hash):]))
	return s.keys.encrypt(iv, message)
}

// open decrypts a message after phase 1 and checks its HASH.
func (s *isakmpSA) open(h header, raw, nonce, iv []byte) (m *message, next []byte, err error) {
	if h.flags&flagEncrypted == 0 {
		return nil, nil, errUnencrypted
	}
	body, next, err := s.keys.decrypt(iv, raw[headerSize:])
	if err != nil {
		return nil, nil, err
	}
	if m, err = parseMessage(h, body); err != nil {
		return nil, nil, err
	}
	if len(m.payloads) == 0 || m.payloads[0].kind != payloadHash {
		return nil, nil, errMissing // it must come first (RFC 2409 section 5.5)
	}
	hash := m.payloads[0].body
	if !hmac.Equal(hash, s.hash2(h.id, nonce, m.chain[payloadHeaderSize+len(hash):])) {
		return nil, nil, errHash
	}
	return m, next, nil
}

// sendInformational sends one payload, protected if there are keys. Nothing is awaited, nothing repeated (RFC 2409 section 5.7).
func (s *isakmpSA) sendInformational(kind payloadType, body []byte) []byte {
	var message []byte
	if id := s.newMessageID(); s.lastBlock != nil {
		c := s.compose2(informational, id)
		c.add(kind, body)
		message, _ = s.seal(c, id, nil, s.keys.phase2IV(s.lastBlock, id))
	} else {
		c := compose(header{initiator: s.key.initiator, responder: s.key.responder, exchange: informational, id: id})
		c.add(kind, body)
		message = c.finish()
	}
	s.e.write(message, s.marker, s.remote, s.abilities.fragmentation)
	return message
}

func (s *isakmpSA) sendNotify(n notification) []byte {
	return s.sendInformational(payloadNotify, appendNotification(nil, n))
}

// sendDelete tells the peer of s that SAs end.
func (s *isakmpSA) sendDelete(sas []*isakmpSA) {
	for _, sa := range sas {
		s.sendInformational(payloadDelete, appendDeletion(nil, deletion{protocolISAKMP, [][]byte{sa.spi()}}))
	}
}

// receiveInformational takes notifications and Deletes. Those that are not protected, or not verifiably so, are hints at most: anyone on
// the way can send them (RFC 2408 section 5.14).
func (s *isakmpSA) receiveInformational(now time.Time, from netip.AddrPort, marker bool, h header, raw []byte) {
	if s.lastInformational.repeats(s.e, raw) {
		return
	}
	if h.flags&flagEncrypted == 0 {
		s.takeHint(now, h, raw)
		return
	}
	lastBlock := s.lastBlock
	if s.state != established {
		lastBlock = s.iv // of message 5: the peer refuses our proof
	}
	if s.keys == nil {
		s.drop(now, errUnexpected)
		return
	}
	m, _, err := s.open(h, raw, nil, s.keys.phase2IV(lastBlock, h.id))
	if err != nil {
		s.e.counters.unauthenticated.Add(1)
		if s.state != established {
			s.drop(now, &LocalError{Kind: Undecryptable, Phase: 1, Detail: "the server's answer to our identity cannot be decrypted: its key is another", certificates: s.e.config.certificates()})
		}
		return
	}
	if !s.used.add(h.id) {
		s.drop(now, errUnexpected)
		return
	}
	s.heardFrom(now, from, marker)
	s.lastInformational = transmission{to: s.remote, marker: s.marker, fragmented: s.abilities.fragmentation}
	s.takeNotifications(now, m)
	if s.lastInformational.message != nil {
		s.lastInformational.answers(raw, s.lastInformational.message)
	}
	for _, body := range m.all(payloadDelete) {
		if d, err := parseDeletion(body); err == nil && s.state == established {
			s.takeDeletion(now, d)
		}
	}
}

// heardFrom notes that something authentic of the peer came in, and from where: it may have moved (RFC 3947 section 4).
func (s *isakmpSA) heardFrom(now time.Time, from netip.AddrPort, marker bool) {
	if s.peer == nil {
		return
	}
	s.peer.Heard(now)
	if !s.peer.dialed { // a server stays where it is
		s.remote, s.marker = from, marker
		s.peer.remote, s.peer.marker = from, marker
	}
}

// takeHint takes a message that is not protected.
func (s *isakmpSA) takeHint(now time.Time, h header, raw []byte) {
	m, err := parseMessage(h, raw[headerSize:])
	if err != nil {
		s.drop(now, err)
		return
	}
	for _, body := range m.all(payloadNotify) {
		if n, err := parseNotification(body); err == nil && n.kind < firstStatusNotify {
			s.suspects(now, s.refusal(1, n.kind, false))
		}
	}
}

// refusal is the verdict of a notification.
func (s *isakmpSA) refusal(phase int, kind notifyType, authenticated bool) *PeerError {
	err := &PeerError{Phase: phase, Notify: uint16(kind), Authenticated: authenticated, certificates: s.e.config.certificates(), authenticates: phase == 1 && s.state >= await5}
	if kind == notifyNoProposalChosen && phase == 1 {
		err.Offered = names(s.offered)
	}
	return err
}

// takeNotifications takes the notifications of a message that is surely from the peer.
func (s *isakmpSA) takeNotifications(now time.Time, m *message) {
	for _, body := range m.all(payloadNotify) {
		n, err := parseNotification(body)
		if err != nil {
			continue
		}
		switch {
		case n.kind == notifyRUThere && len(n.data) == 4 && s.state == established:
			s.lastInformational.message = s.sendNotify(notification{protocolISAKMP, s.spi(), notifyRUThereACK, n.data})
		case n.kind == notifyResponderLifetime && n.protocol == protocolISAKMP && s.state == established:
			s.shortenLife(now, n.data)
		case n.kind >= firstStatusNotify:
		case s.state != established:
			s.fail(now, s.refusal(1, n.kind, true))
			return
		case s.peer.quick != nil && s.peer.quick.sa == s:
			s.peer.quickRefused(now, n.kind)
		default:
			s.e.config.Log.Warn("ike: peer reports an error", "peer", s.remote, "error", n.kind)
		}
	}
}

// shortenLife takes the data of a RESPONDER-LIFETIME (RFC 2407 section 4.6.3.1). What it says counts from now.
func (s *isakmpSA) shortenLife(now time.Time, data []byte) {
	life, _ := responderLifetime(data, attributeLifeType, attributeLife)
	if life > 0 && now.Add(max(life, minLifetime)).Before(s.expiresAt) {
		life = max(life, minLifetime)
		s.expiresAt = now.Add(life)
		s.rekeyAt = now.Add(s.e.jitter(life, s.initiator))
	}
}

// responderLifetime reads a life in seconds and one in bytes; zero is none. Peers write them with the attributes of either phase.
func responderLifetime(data []byte, typeKind, lifeKind uint16) (life time.Duration, lifeBytes uint64) {
	list, err := parseAttributes(data)
	if err != nil {
		return 0, 0
	}
	var lifeType uint64
	for _, a := range list {
		switch {
		case a.kind == typeKind || a.kind == espAttributeLifeType:
			lifeType = a.value
		case (a.kind == lifeKind || a.kind == espAttributeLife) && lifeType == lifeSeconds:
			life = seconds(a.value)
		case (a.kind == lifeKind || a.kind == espAttributeLife) && lifeType == lifeKilobytes:
			lifeBytes = min(a.value, 1<<50) << 10
		}
	}
	return life, lifeBytes
}

// takeDeletion ends what the peer ended.
func (s *isakmpSA) takeDeletion(now time.Time, d deletion) {
	p := s.peer
	for _, spi := range d.spis {
		switch {
		case d.protocol == protocolESP && len(spi) == spiSizeESP:
			out := binary.BigEndian.Uint32(spi)
			if i := slices.IndexFunc(p.children, func(c *child) bool { return c.sa.SPIOut == out }); i >= 0 {
				p.removeChild(now, p.children[i])
			}
		case d.protocol == protocolISAKMP && len(spi) == spiSizeISAKMP:
			sa := s.e.sas[saKey{cookie(spi[:8]), cookie(spi[8:])}]
			if sa != nil && sa.peer == p && sa.state == established {
				sa.remove()
			}
		}
	}
	p.deletedByPeer(now, d.protocol)
}
