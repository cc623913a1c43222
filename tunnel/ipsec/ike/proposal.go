package ike

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Policy says which algorithms the default proposals hold.
type Policy int

// The policies.
const (
	Compatible Policy = iota // also weak algorithms, last, with a warning in the log when one is chosen
	Strict                   // none that is weak: 3DES, MD5, MODP groups below 2048 bit; explicit proposals neither
)

// A Proposal is a set of algorithms for phase 1, written like aes256-sha256-modp2048. The zero value is none.
type Proposal struct {
	encryption, keyBits, hash, group uint16
}

// ParseProposal reads a phase 1 proposal: aes128, aes192, aes256 or 3des; md5, sha1, sha256, sha384 or sha512; modp1024, modp1536,
// modp2048, modp3072, modp4096, ecp256, ecp384 or ecp521.
func ParseProposal(s string) (Proposal, error) {
	parts := strings.Split(strings.ToLower(s), "-")
	if len(parts) != 3 {
		return Proposal{}, fmt.Errorf("ike: proposal %q is not of the form aes256-sha256-modp2048", s)
	}
	c := find(cipherAlgorithms, func(a *cipherAlgorithm) bool { return a.name == parts[0] && a.ike != 0 })
	if c == nil {
		return Proposal{}, unknownAlgorithm(s, parts[0])
	}
	h := find(hashAlgorithms, func(a *hashAlgorithm) bool { return a.name == parts[1] })
	if h == nil {
		return Proposal{}, unknownAlgorithm(s, parts[1])
	}
	g := find(groupAlgorithms, func(a *groupAlgorithm) bool { return a.name == parts[2] })
	if g == nil {
		return Proposal{}, unknownAlgorithm(s, parts[2])
	}
	return Proposal{c.ike, c.keyBits, h.ike, g.id}, nil
}

func unknownAlgorithm(proposal, part string) error {
	return fmt.Errorf("ike: proposal %q: unknown algorithm %q", proposal, part)
}

// known tells whether all algorithms of p are ours; the accessors below are for such only.
func (p Proposal) known() bool { return p.cipher() != nil && p.hashing() != nil && p.dhGroup() != nil }

func (p Proposal) cipher() *cipherAlgorithm {
	return find(cipherAlgorithms, func(a *cipherAlgorithm) bool { return a.ike == p.encryption && a.ike != 0 && a.keyBits == p.keyBits })
}

func (p Proposal) hashing() *hashAlgorithm {
	return find(hashAlgorithms, func(a *hashAlgorithm) bool { return a.ike == p.hash })
}

func (p Proposal) dhGroup() *groupAlgorithm {
	return find(groupAlgorithms, func(a *groupAlgorithm) bool { return a.id == p.group })
}

// Weak tells whether an algorithm of p is no longer thought safe.
func (p Proposal) Weak() bool {
	return p.known() && (p.cipher().weak || p.hashing().weak || p.dhGroup().weak)
}

func (p Proposal) String() string {
	if !p.known() {
		return fmt.Sprintf("encryption %d/%d, hash %d, group %d", p.encryption, p.keyBits, p.hash, p.group)
	}
	return p.cipher().name + "-" + p.hashing().name + "-" + p.dhGroup().name
}

// An ESPProposal is a set of algorithms for phase 2, written like aes256-sha256, aes128gcm16 or, with PFS, aes256-sha256-modp2048.
type ESPProposal struct {
	transform uint8
	keyBits   uint16
	integrity uint16
	group     uint16 // of PFS; 0: as Config.PFS says
}

// ParseESPProposal reads a phase 2 proposal: aes128, aes192, aes256, 3des or null with md5, sha1, sha256, sha384 or sha512; or aes128gcm16,
// aes192gcm16, aes256gcm16 and the same with gcm12 and gcm8, alone. A group of phase 1 may follow.
func ParseESPProposal(s string) (ESPProposal, error) {
	parts := strings.Split(strings.ToLower(s), "-")
	c := find(cipherAlgorithms, func(a *cipherAlgorithm) bool { return a.name == parts[0] && a.esp != 0 })
	if c == nil {
		return ESPProposal{}, unknownAlgorithm(s, parts[0])
	}
	p := ESPProposal{transform: c.esp, keyBits: c.keyBits}
	parts = parts[1:]
	if !c.aead {
		if len(parts) == 0 {
			return ESPProposal{}, fmt.Errorf("ike: proposal %q lacks an integrity algorithm, as in aes256-sha256", s)
		}
		h := find(hashAlgorithms, func(a *hashAlgorithm) bool { return a.name == parts[0] })
		if h == nil {
			return ESPProposal{}, unknownAlgorithm(s, parts[0])
		}
		p.integrity = h.esp
		parts = parts[1:]
	}
	if len(parts) > 0 {
		g := find(groupAlgorithms, func(a *groupAlgorithm) bool { return a.name == parts[0] })
		if g == nil {
			return ESPProposal{}, unknownAlgorithm(s, parts[0])
		}
		p.group = g.id
		parts = parts[1:]
	}
	if len(parts) > 0 {
		return ESPProposal{}, fmt.Errorf("ike: proposal %q has too many parts", s)
	}
	return p, nil
}

func (p ESPProposal) known() bool {
	c := p.cipher()
	return c != nil && (c.aead && p.integrity == 0 || !c.aead && p.hashing() != nil) && (p.group == 0 || p.dhGroup() != nil)
}

func (p ESPProposal) cipher() *cipherAlgorithm {
	return find(cipherAlgorithms, func(a *cipherAlgorithm) bool { return a.esp == p.transform && a.keyBits == p.keyBits })
}

func (p ESPProposal) hashing() *hashAlgorithm {
	return find(hashAlgorithms, func(a *hashAlgorithm) bool { return a.esp == p.integrity })
}

func (p ESPProposal) dhGroup() *groupAlgorithm {
	return find(groupAlgorithms, func(a *groupAlgorithm) bool { return a.id == p.group })
}

// Weak tells whether an algorithm of p is no longer thought safe.
func (p ESPProposal) Weak() bool {
	return p.known() && (p.cipher().weak || !p.cipher().aead && p.hashing().weak || p.group != 0 && p.dhGroup().weak)
}

// algorithms is p without its group, as in ChildSA.Transform.
func (p ESPProposal) algorithms() string {
	if p.cipher().aead {
		return p.cipher().name
	}
	return p.cipher().name + "-" + p.hashing().name
}

func (p ESPProposal) String() string {
	switch {
	case !p.known():
		return fmt.Sprintf("transform %d/%d, integrity %d, group %d", p.transform, p.keyBits, p.integrity, p.group)
	case p.group != 0:
		return p.algorithms() + "-" + p.dhGroup().name
	}
	return p.algorithms()
}

// What we offer if nothing is configured: what Windows 10 and Apple's clients offer, and a little more, strongest first. Under Strict the
// weak ones are left out.
var (
	defaultProposals = mustParse(ParseProposal,
		"aes256-sha256-ecp384", "aes256-sha256-ecp256", "aes256-sha256-modp2048", "aes128-sha256-modp2048",
		"aes256-sha1-ecp384", "aes128-sha1-ecp256", "aes256-sha1-modp2048", "aes128-sha1-modp2048",
		"aes256-sha256-modp1536", "aes256-sha1-modp1536", "aes256-sha256-modp1024", "aes256-sha1-modp1024", "aes128-sha1-modp1024",
		"3des-sha1-modp2048", "3des-sha1-modp1024", "3des-md5-modp1024")
	defaultESPProposals = mustParse(ParseESPProposal,
		"aes256gcm16", "aes128gcm16", "aes256-sha256", "aes128-sha256", "aes256-sha1", "aes128-sha1", "3des-sha1", "3des-md5")

	// What we offer after a NO-PROPOSAL-CHOSEN: some servers choke on long lists and on algorithms that they do not know.
	shortProposals    = mustParse(ParseProposal, "aes256-sha256-modp2048", "aes256-sha1-modp2048", "aes128-sha1-modp1024", "3des-sha1-modp1024")
	shortESPProposals = mustParse(ParseESPProposal, "aes256-sha1", "aes128-sha1", "3des-sha1")

	// In Aggressive Mode the public value is in the first message, so that all transforms must be of one group (RFC 2409 section 5).
	aggressiveProposals      = mustParse(ParseProposal, "aes256-sha256-modp2048", "aes128-sha256-modp2048", "aes256-sha1-modp2048", "aes128-sha1-modp2048", "3des-sha1-modp2048")
	shortAggressiveProposals = mustParse(ParseProposal, "aes256-sha256-modp1024", "aes256-sha1-modp1024", "aes128-sha1-modp1024", "3des-sha1-modp1024", "3des-md5-modp1024")
)

func mustParse[P any](parse func(string) (P, error), texts ...string) []P {
	list, err := parseAll(parse, texts)
	if err != nil {
		panic(err)
	}
	return list
}

func parseAll[P any](parse func(string) (P, error), texts []string) (list []P, err error) {
	for _, s := range texts {
		p, err := parse(s)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// allowed is list without what the policy forbids.
func allowed[P interface{ Weak() bool }](policy Policy, list []P) []P {
	if policy != Strict {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), P.Weak)
}

// names lists proposals for people.
func names[P fmt.Stringer](list []P) []string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return texts
}

// Attributes of transforms. 1 to 4 and 11 to 14 are of phase 1 (RFC 2409 appendix A), the others of phase 2 (RFC 2407 section 4.5).
const (
	attributeEncryption = 1
	attributeHash       = 2
	attributeAuth       = 3
	attributeGroup      = 4
	attributeLifeType   = 11
	attributeLife       = 12
	attributeKeyBits    = 14

	espAttributeLifeType      = 1
	espAttributeLife          = 2
	espAttributeGroup         = 3
	espAttributeEncapsulation = 4
	espAttributeIntegrity     = 5
	espAttributeKeyBits       = 6

	lifeSeconds   = 1
	lifeKilobytes = 2

	transformKeyIKE = 1
)

// An attribute is a data attribute (RFC 2408 section 3.3), whose value is a number here.
type attribute struct {
	kind  uint16
	value uint64
}

const attributeShort = 0x8000 // AF: the value is in place of the length

func appendAttribute(dst []byte, kind uint16, value uint64) []byte {
	if value <= 0xffff {
		dst = binary.BigEndian.AppendUint16(dst, attributeShort|kind)
		return binary.BigEndian.AppendUint16(dst, uint16(value))
	}
	dst = binary.BigEndian.AppendUint16(dst, kind)
	if value <= 0xffffffff {
		dst = binary.BigEndian.AppendUint16(dst, 4)
		return binary.BigEndian.AppendUint32(dst, uint32(value))
	}
	dst = binary.BigEndian.AppendUint16(dst, 8)
	return binary.BigEndian.AppendUint64(dst, value)
}

// parseAttributes reads the attributes of a transform. A value of more than 8 bytes is an error: no attribute that we know is so long.
func parseAttributes(b []byte) (list []attribute, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errPayload
		}
		kind, value := binary.BigEndian.Uint16(b), uint64(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		if kind&attributeShort == 0 {
			length := int(value)
			if length > len(b) || length > 8 {
				return nil, errPayload
			}
			value = 0
			for _, c := range b[:length] {
				value = value<<8 | uint64(c)
			}
			b = b[length:]
		}
		list = append(list, attribute{kind &^ attributeShort, value})
	}
	return list, nil
}

// A transform is one Transform payload (RFC 2408 section 3.6). attributes alias the message that it came in.
type transform struct {
	number, id uint8
	attributes []byte
}

// A proposalPayload is one Proposal payload (RFC 2408 section 3.5).
type proposalPayload struct {
	number, protocol uint8
	spi              []byte
	transforms       []transform
}

// appendSA appends the body of an SA payload (RFC 2408 section 3.4).
func appendSA(dst []byte, proposals []proposalPayload) []byte {
	dst = binary.BigEndian.AppendUint32(dst, doiIPsec)
	dst = binary.BigEndian.AppendUint32(dst, situationIdentity)
	for i, p := range proposals {
		start := len(dst)
		dst = append(dst, more(payloadProposal, i, len(proposals)), 0, 0, 0, p.number, p.protocol, byte(len(p.spi)), byte(len(p.transforms)))
		dst = append(dst, p.spi...)
		for j, t := range p.transforms {
			dst = append(dst, more(payloadTransform, j, len(p.transforms)), 0)
			dst = binary.BigEndian.AppendUint16(dst, uint16(8+len(t.attributes)))
			dst = append(dst, t.number, t.id, 0, 0)
			dst = append(dst, t.attributes...)
		}
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst
}

func more(kind payloadType, i, n int) byte {
	if i+1 < n {
		return byte(kind)
	}
	return byte(payloadNone)
}

const maxTransforms = 256 // of one SA payload; Windows sends some twenty

// parseSA reads the body of an SA payload. What it returns aliases b.
func parseSA(b []byte) (proposals []proposalPayload, err error) {
	if len(b) < 8 || binary.BigEndian.Uint32(b) != doiIPsec || binary.BigEndian.Uint32(b[4:]) != situationIdentity {
		return nil, errPayload
	}
	payloads, rest, err := parsePayloads(payloadProposal, b[8:])
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errPayload
	}
	total := 0
	for _, p := range payloads {
		if p.kind != payloadProposal || len(p.body) < 4 || 4+int(p.body[2]) > len(p.body) {
			return nil, errPayload
		}
		spi := 4 + int(p.body[2])
		proposal := proposalPayload{number: p.body[0], protocol: p.body[1], spi: p.body[4:spi]}
		first := payloadTransform
		if p.body[3] == 0 {
			first = payloadNone
		}
		transforms, rest, err := parsePayloads(first, p.body[spi:])
		if err != nil {
			return nil, err
		}
		if total += len(transforms); len(rest) > 0 || len(transforms) != int(p.body[3]) || total > maxTransforms {
			return nil, errPayload
		}
		for _, t := range transforms {
			if t.kind != payloadTransform || len(t.body) < 4 {
				return nil, errPayload
			}
			proposal.transforms = append(proposal.transforms, transform{t.body[0], t.body[1], t.body[4:]})
		}
		proposals = append(proposals, proposal)
	}
	return proposals, nil
}

// offer1 is the body of an SA payload that offers proposals for phase 1.
func offer1(proposals []Proposal, auth authMethod, life time.Duration) []byte {
	p := proposalPayload{number: 1, protocol: protocolISAKMP}
	for i, proposal := range proposals {
		a := appendAttribute(nil, attributeEncryption, uint64(proposal.encryption))
		if proposal.keyBits != 0 {
			a = appendAttribute(a, attributeKeyBits, uint64(proposal.keyBits))
		}
		a = appendAttribute(a, attributeHash, uint64(proposal.hash))
		a = appendAttribute(a, attributeGroup, uint64(proposal.group))
		a = appendAttribute(a, attributeAuth, uint64(auth))
		a = appendAttribute(a, attributeLifeType, lifeSeconds)
		a = appendAttribute(a, attributeLife, uint64(life/time.Second))
		p.transforms = append(p.transforms, transform{uint8(i + 1), transformKeyIKE, a})
	}
	return appendSA(nil, []proposalPayload{p})
}

// A choice1 is a transform of phase 1 that was understood.
type choice1 struct {
	proposal Proposal
	auth     authMethod
	life     time.Duration // 0 if the transform sets none
}

// readTransform1 understands a transform of phase 1; ok is false if it has what we do not know.
func readTransform1(t transform) (c choice1, ok bool) {
	list, err := parseAttributes(t.attributes)
	if err != nil || t.id != transformKeyIKE {
		return c, false
	}
	var lifeType uint64
	for _, a := range list {
		switch a.kind {
		case attributeEncryption:
			c.proposal.encryption = uint16(a.value)
		case attributeKeyBits:
			c.proposal.keyBits = uint16(a.value)
		case attributeHash:
			c.proposal.hash = uint16(a.value)
		case attributeGroup:
			c.proposal.group = uint16(a.value)
		case attributeAuth:
			c.auth = authMethod(a.value)
		case attributeLifeType:
			lifeType = a.value
		case attributeLife:
			if lifeType == lifeSeconds {
				c.life = seconds(a.value)
			}
		default:
			return c, false
		}
		if a.kind < attributeLifeType && a.value > 0xffff {
			return c, false
		}
	}
	return c, c.proposal.known()
}

// seconds is a life duration from the network, bounded.
func seconds(n uint64) time.Duration {
	const most = 10 * 365 * 24 * 3600
	return time.Duration(min(n, most)) * time.Second
}

// Encapsulation modes (RFC 2407 section 4.5, RFC 3947 section 5.1). There is no other way for us than UDP.
const (
	encapsulationUDPTransport      = 4
	encapsulationUDPTransportDraft = 61444
)

// offer2 is the body of an SA payload that offers proposals for phase 2, all with the Diffie-Hellman group if it is not 0.
func offer2(proposals []ESPProposal, spi []byte, group uint16, encapsulation uint16, life time.Duration) []byte {
	p := proposalPayload{number: 1, protocol: protocolESP, spi: spi}
	for i, proposal := range proposals {
		a := appendAttribute(nil, espAttributeLifeType, lifeSeconds)
		a = appendAttribute(a, espAttributeLife, uint64(life/time.Second))
		a = appendAttribute(a, espAttributeEncapsulation, uint64(encapsulation))
		if group != 0 {
			a = appendAttribute(a, espAttributeGroup, uint64(group))
		}
		if proposal.integrity != 0 {
			a = appendAttribute(a, espAttributeIntegrity, uint64(proposal.integrity))
		}
		if proposal.keyBits != 0 {
			a = appendAttribute(a, espAttributeKeyBits, uint64(proposal.keyBits))
		}
		p.transforms = append(p.transforms, transform{uint8(i + 1), proposal.transform, a})
	}
	return appendSA(nil, []proposalPayload{p})
}

// A choice2 is a transform of phase 2 that was understood.
type choice2 struct {
	proposal      ESPProposal
	encapsulation uint16
	life          time.Duration // 0 if the transform sets none
	lifeBytes     uint64        // 0: no limit
}

// readTransform2 understands a transform of phase 2; ok is false if it has what we do not know.
func readTransform2(t transform) (c choice2, ok bool) {
	list, err := parseAttributes(t.attributes)
	if err != nil {
		return c, false
	}
	c.proposal.transform = t.id
	var lifeType uint64
	for _, a := range list {
		switch a.kind {
		case espAttributeLifeType:
			lifeType = a.value
		case espAttributeLife:
			switch lifeType {
			case lifeSeconds:
				c.life = seconds(a.value)
			case lifeKilobytes:
				c.lifeBytes = min(a.value, 1<<50) << 10
			}
		case espAttributeGroup:
			c.proposal.group = uint16(a.value)
		case espAttributeEncapsulation:
			c.encapsulation = uint16(a.value)
		case espAttributeIntegrity:
			c.proposal.integrity = uint16(a.value)
		case espAttributeKeyBits:
			c.proposal.keyBits = uint16(a.value)
		default:
			return c, false // a transform must be taken as a whole or not at all (RFC 2408 section 4.2); so is ESN
		}
		if a.kind > espAttributeLife && a.value > 0xffff {
			return c, false
		}
	}
	return c, c.proposal.known()
}
