package ike

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sequence is n bytes that count up from first.
func sequence(first, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i)
	}
	return b
}

// RFC 2409 section 5 and appendix B, RFC 3947 section 3.2. The values were computed independently.
func TestKeyDerivationOfPhase1AndPhase2(t *testing.T) {
	initiator, responder := cookie(sequence(1, 8)), cookie(sequence(0x11, 8))
	ni, nr, gxy := sequence(0x20, 16), sequence(0x40, 16), sequence(0x80, 128)
	gxi, gxr := sequence(0, 128), sequence(0x40, 128)
	for _, test := range []struct {
		proposal                                        string
		skeyid, d, a, e, ka, iv, natD, hashI, keymat52B string
	}{
		{"aes256-sha1-modp1024", "dc4abbcbf0f348f8bbbf5e75dbc4d727f35f59d7", "a1146eaf1e41565600ea129e6e5365fd29d22ad2",
			"b3eafaac279623dc423726f8516115561b339d9d", "41ef45ddf98839e4814ba00f9223076f15cf0c36",
			"bddc31d3ef8309c8a99e629b53f9e754ddc14bec9acfffff29270c28620c9bbb", "0c156da5097769fcd17c9dfce7205bc1",
			"d798d986143f878f70765e0e869c80bbc375f701", "cee2b46e54bd584f36fe0cc51ec0af68644ffd97",
			"3ec73f842d571b8d3e8ccf05b027506a14527e4aae33bddf724b41cd483cb7980f1b94e56592d4c4a1c1fcc59b5fdc22186d5ba5"},
		{"aes256-md5-modp1024", "74bed3ecbfeec5b9814c76abc84a0317", "ea432fbc1ab752799deda2003efecfa3",
			"ff307826c072bf60b42bc29f4a9192c3", "9e5e0abf849319031f2b7d1adfdc174d",
			"23e9d327b3a493628b11f28a48dfb85155dae794f751830f113e4b6bf1306cfa", "2cd5d024d0de7a6c0f5e81cd7400efd5",
			"cf5faa9384eb43f6272e122d4934e27f", "8fdabd49cf9ab4ffb81b917938bace91",
			"540517be1d0e4242f30cd25c2d6ccf062e4f2d2dabf8835602d6ae21adefb99e78b7b0ad0ce31af468ac440b3a16bb1333d3c9b8"},
	} {
		p, err := ParseProposal(test.proposal)
		if err != nil {
			t.Fatal(err)
		}
		newHash := p.hashing().new
		k, err := newKeys(p, skeyidPSK(newHash, []byte("psk"), ni, nr), gxy, initiator, responder)
		if err != nil {
			t.Fatal(err)
		}
		s := &isakmpSA{keys: k, key: saKey{initiator, responder}, gxi: gxi, gxr: gxr, saBody: sequence(1, 52), idi: unhex("011101f4c0000201")}
		for name, v := range map[string]struct {
			got  []byte
			want string
		}{
			"SKEYID": {k.skeyid, test.skeyid}, "SKEYID_d": {k.d, test.d}, "SKEYID_a": {k.a, test.a}, "SKEYID_e": {k.e, test.e},
			"Ka": {encryptionKey(k.hash, k.e, 32), test.ka}, "IV": {k.phase1IV(gxi, gxr), test.iv},
			"NAT-D":  {natHash(newHash, initiator, responder, netip.MustParseAddrPort("192.0.2.1:500")), test.natD},
			"HASH_I": {s.proof(true), test.hashI}, "KEYMAT": {k.keymat(52, nil, 0xc0ffee01, ni, nr), test.keymat52B},
		} {
			if hex.EncodeToString(v.got) != v.want {
				t.Errorf("%s: %s is %x, not %s", test.proposal, name, v.got, v.want)
			}
		}
	}
}

// RFC 2409 section 6.2 and RFC 3526 define the primes by a formula over pi.
func TestPrimesAreThoseOfTheirFormula(t *testing.T) {
	for _, test := range []struct {
		bits uint
		c    int64
		hex  string
	}{{1024, 129093, modp1024}, {1536, 741804, modp1536}, {2048, 124476, modp2048}, {3072, 1690314, modp3072}, {4096, 240904, modp4096}} {
		one := big.NewInt(1)
		p := new(big.Int).Lsh(one, test.bits)
		p.Sub(p, new(big.Int).Lsh(one, test.bits-64)).Sub(p, one)
		p.Add(p, new(big.Int).Lsh(new(big.Int).Add(pi(test.bits-130), big.NewInt(test.c)), 64))
		if got := newMODP(test.hex).prime; got.Cmp(p) != 0 || !got.ProbablyPrime(4) {
			t.Errorf("modp%d is wrong", test.bits)
		}
	}
}

// pi is floor(2^bits pi), by Machin's formula.
func pi(bits uint) *big.Int {
	const guard = 64
	arctan := func(n int64) *big.Int { // of 1/n
		term := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), bits+guard), big.NewInt(n))
		sum := new(big.Int).Set(term)
		for k := int64(3); term.Sign() != 0; k += 2 {
			term.Div(term, big.NewInt(n*n))
			part := new(big.Int).Div(term, big.NewInt(k))
			if k%4 == 3 {
				part.Neg(part)
			}
			sum.Add(sum, part)
		}
		return sum
	}
	v := arctan(5)
	v.Mul(v, big.NewInt(4)).Sub(v, arctan(239))
	return v.Mul(v, big.NewInt(4)).Rsh(v, guard)
}

func TestGroupsAgree(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	sizes := map[string]int{"modp1024": 128, "modp1536": 192, "modp2048": 256, "modp3072": 384, "modp4096": 512, "ecp256": 64, "ecp384": 96, "ecp521": 132}
	for _, g := range groupAlgorithms {
		a, errA := g.group.generate(random)
		b, errB := g.group.generate(random)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		ab, errA := a.agree(b.public())
		ba, errB := b.agree(a.public())
		if errA != nil || errB != nil || !bytes.Equal(ab, ba) || len(a.public()) != sizes[g.name] {
			t.Errorf("%s: %v %v, public values of %d bytes", g.name, errA, errB, len(a.public()))
		}
		if want := len(a.public()); strings.HasPrefix(g.name, "ecp") && len(ab) != want/2 || strings.HasPrefix(g.name, "modp") && len(ab) != want {
			t.Errorf("%s: g^xy has %d bytes", g.name, len(ab)) // RFC 5903 section 9: x only
		}
	}
}

// RFC 5903 section 8.1.
func TestECP256IsThatOfRFC5903(t *testing.T) {
	i, err := ecpP256.generate(bytes.NewReader(unhex("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433")))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(i.public()); got != "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3" {
		t.Error("public value", got)
	}
	shared, err := i.agree(unhex("d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"))
	if got := hex.EncodeToString(shared); err != nil || got != "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de" {
		t.Error("shared secret", got, err)
	}
}

func TestBadPublicValuesAreRefused(t *testing.T) {
	for _, g := range groupAlgorithms {
		s, err := g.group.generate(rand.NewChaCha8([32]byte{}))
		if err != nil {
			t.Fatal(err)
		}
		size := len(s.public())
		bad := map[string][]byte{"none": nil, "zero": make([]byte, size), "too long": make([]byte, size+1)}
		if m, ok := g.group.(*modp); ok {
			bad["one"] = []byte{1}
			bad["-1"] = new(big.Int).Sub(m.prime, big.NewInt(1)).Bytes()
			bad["prime"] = m.prime.Bytes()
		} else {
			bad["not on the curve"] = append(bytes.Clone(s.public()[:size-1]), s.public()[size-1]^1)
			bad["too short"] = s.public()[:size-1]
		}
		for name, public := range bad {
			if _, err := s.agree(public); !errors.Is(err, errPublicValue) {
				t.Errorf("%s: %s: %v", g.name, name, err)
			}
		}
	}
}

func TestProposalsAreReadAndWritten(t *testing.T) {
	for _, s := range []string{"aes256-sha256-modp2048", "3des-md5-modp1024", "aes128-sha1-ecp256", "aes192-sha512-modp4096"} {
		if p, err := ParseProposal(s); err != nil || p.String() != s {
			t.Error(s, p, err)
		}
	}
	for _, s := range []string{"aes256-sha256", "3des-sha1", "aes128gcm16", "aes256gcm8-modp2048", "null-md5", "aes128-sha384-ecp521"} {
		if p, err := ParseESPProposal(s); err != nil || p.String() != s {
			t.Error(s, p, err)
		}
	}
	if p, err := ParseProposal("AES-SHA-modp2048"); err != nil || p.String() != "aes128-sha1-modp2048" {
		t.Error(p, err)
	}
	for _, s := range []string{"", "aes256", "aes256-sha256", "aes256gcm16-sha256-modp2048", "aes256-sha256-modp768", "des-md5-modp1024", "null-sha1-modp2048", "aes256-sha256-modp2048-x"} {
		if _, err := ParseProposal(s); err == nil {
			t.Errorf("phase 1 %q was accepted", s)
		}
	}
	for _, s := range []string{"", "aes256", "des-md5", "aes128gcm16-sha256", "aes256-sha256-modp2048-x", "aes256-modp2048"} {
		if _, err := ParseESPProposal(s); err == nil {
			t.Errorf("phase 2 %q was accepted", s)
		}
	}
}

func TestStrictPolicyOffersNothingWeak(t *testing.T) {
	for _, list := range [][]Proposal{defaultProposals, shortProposals, aggressiveProposals, shortAggressiveProposals} {
		for i, p := range list {
			if p.Weak() && i > 0 && i+1 < len(list) && !list[i+1].Weak() {
				t.Errorf("%v is weak and comes before %v", p, list[i+1])
			}
		}
		for _, p := range allowed(Strict, list) {
			if s := p.String(); strings.Contains(s, "3des") || strings.Contains(s, "md5") || strings.Contains(s, "modp1024") {
				t.Errorf("%v under strict", p)
			}
		}
	}
	for _, p := range allowed(Strict, defaultESPProposals) {
		if strings.Contains(p.String(), "3des") || strings.Contains(p.String(), "md5") {
			t.Errorf("%v under strict", p)
		}
	}
	for _, c := range []Config{{Proposals: []string{"3des-sha1-modp2048"}}, {ESPProposals: []string{"aes256-md5"}}} {
		c.PSK, c.Policy = []byte("x"), Strict
		if _, err := NewEndpoint(c, nil); err == nil || !strings.Contains(err.Error(), "weak") {
			t.Error(c.Proposals, c.ESPProposals, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"no credentials":                    {},
		"bad proposal":                      {PSK: []byte("x"), Proposals: []string{"aes"}},
		"bad ESP proposal":                  {PSK: []byte("x"), ESPProposals: []string{"aes256-"}},
		"aggressive mode with two groups":   {PSK: []byte("x"), Aggressive: true, Proposals: []string{"aes256-sha256-modp2048", "aes256-sha256-modp1024"}},
		"phase 2 with two groups":           {PSK: []byte("x"), ESPProposals: []string{"aes256-sha256-modp2048", "aes256-sha256"}},
		"certificate without key":           {Certificates: [][]byte{{1}}},
		"certificate that cannot be parsed": {Certificates: [][]byte{{1}}, Key: testCA.key, Roots: roots()},
	} {
		if _, err := NewEndpoint(c, nil); err == nil {
			t.Error(name, "was accepted")
		}
	}
}

// RFC 2408 section 3: an SA payload with a proposal of two transforms, byte by byte.
func TestSAPayloadHasItsForm(t *testing.T) {
	proposals := mustParse(ParseProposal, "aes256-sha256-modp2048", "3des-sha1-modp1024")
	got := offer1(proposals, authPSK, 8*time.Hour)
	want := unhex("0000000100000001" + // DOI, situation
		"00000058" + "01010002" + // Proposal: length 88, number 1, ISAKMP, no SPI, 2 transforms
		"03000028" + "01010000" + "80010007" + "800e0100" + "80020004" + "8004000e" + "80030001" + "800b0001" + "800c7080" + "00000000")
	want = want[:8+8+8+7*4]
	want = append(want, unhex("00000020"+"02010000"+"80010005"+"80020002"+"80040002"+"80030001"+"800b0001"+"800c7080")...)
	want[8+2], want[8+3] = 0, byte(len(want)-8)
	want[8+8+3] = 8 + 7*4
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	list, err := parseSA(got)
	if err != nil || len(list) != 1 || len(list[0].transforms) != 2 {
		t.Fatal(list, err)
	}
	for i, tr := range list[0].transforms {
		if c, ok := readTransform1(tr); !ok || c.proposal != proposals[i] || c.auth != authPSK || c.life != 8*time.Hour {
			t.Error(c, ok)
		}
	}
}

// RFC 2407 section 4.5: durations come in two bytes, four, or any number.
func TestLifetimesOfAnyForm(t *testing.T) {
	base := "80010007800e0100800200048004000e80030001800b0001"
	for form, want := range map[string]time.Duration{
		"800c0e10": time.Hour, "000c000400000e10": time.Hour, "000c00010a": 10 * time.Second, "000c00080000000000000e10": time.Hour,
		"000c0000": 0, "000c0008ffffffffffffffff": seconds(1 << 62),
	} {
		c, ok := readTransform1(transform{1, 1, unhex(base + form)})
		if !ok || c.life != want {
			t.Errorf("%s: %v %v", form, c.life, ok)
		}
	}
	c, ok := readTransform2(transform{1, 12, unhex("80010002" + "000200040003d090" + "80040004" + "80050005" + "80060100")})
	if !ok || c.lifeBytes != 250000<<10 || c.life != 0 || c.encapsulation != 4 {
		t.Errorf("%+v %v", c, ok)
	}
}

func TestUnknownAttributesAndAlgorithmsMakeATransformUnacceptable(t *testing.T) {
	for _, attributes := range []string{
		"80010001800200048004000e80030001",                 // DES
		"80010007800200048004000e80030001",                 // AES without key length
		"80010007800e0100800200038004000e80030001",         // Tiger
		"80010007800e010080020004800400018003000180ff0001", // group 1
		"80010007800e0100800200048004000e8003000180ff0001", // unknown attribute
		"8001000", "80010007800e", "000c000900000000000000000a",
	} {
		b, _ := hex.DecodeString(attributes)
		if c, ok := readTransform1(transform{1, 1, b}); ok {
			t.Error(attributes, c)
		}
	}
	if _, ok := readTransform1(transform{1, 2, unhex("80010007800e0100800200048004000e80030001")}); ok {
		t.Error("a transform that is not KEY_IKE")
	}
	for _, attributes := range []string{"80040004800600408005000", "800400048005000580060041", "8004000480050005800601008003000" + "1", "800b0001800400048005000580060100"} {
		b, _ := hex.DecodeString(attributes)
		if c, ok := readTransform2(transform{1, 12, b}); ok {
			t.Error(attributes, c)
		}
	}
}

func TestIdentitiesAreReadAndWritten(t *testing.T) {
	for text, want := range map[string]Identity{
		"":                 {},
		"192.0.2.1":        {IDIPv4, "\xc0\x00\x02\x01"},
		"::ffff:192.0.2.1": {IDIPv4, "\xc0\x00\x02\x01"},
		"vpn.example":      {IDFQDN, "vpn.example"},
		"@vpn":             {IDFQDN, "vpn"},
		"user@example":     {IDUserFQDN, "user@example"},
		"keyid:group":      {IDKey, "group"},
		"keyid:0x00ff":     {IDKey, "\x00\xff"},
	} {
		if got, err := ParseIdentity(text); err != nil || got != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	if id, err := ParseIdentity("2001:db8::1"); err != nil || id.Type != IDIPv6 || id.String() != "2001:db8::1" {
		t.Error(id, err)
	}
	for _, bad := range []string{"keyid:", "keyid:0xzz", strings.Repeat("x", 2000)} {
		if id, err := ParseIdentity(bad); err == nil {
			t.Errorf("%.20q: %v", bad, id)
		}
	}
	if s := (Identity{IDFQDN, "a\x1b[31m\n" + strings.Repeat("x", 1000)}).String(); strings.ContainsAny(s, "\x1b\n") || len(s) > 200 {
		t.Errorf("%q is not fit for people", s)
	}
}

// sample is a message with one of each payload.
func sample() []byte {
	c := compose(header{initiator: cookie{1}, responder: cookie{2}, exchange: informational, id: 7})
	c.add(payloadSA, offer1(defaultProposals, authPSK, time.Hour))
	c.add(payloadKE, sequence(0, 128))
	c.add(payloadNonce, sequence(0, 16))
	c.add(payloadID, appendID(nil, idPayload{Identity{IDFQDN, "vpn.example"}, 17, 1701}))
	c.add(payloadNotify, appendNotification(nil, notification{1, sequence(0, 16), notifyRUThere, []byte{0, 0, 0, 1}}))
	c.add(payloadDelete, appendDeletion(nil, deletion{3, [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}}}))
	c.add(payloadVendorID, vendorDPD)
	return c.finish()
}

func TestMessagesAreReadAsWritten(t *testing.T) {
	h, body, err := parseHeader(append(sample(), "trailing bytes"...))
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMessage(h, body)
	if err != nil {
		t.Fatal(err)
	}
	if h.id != 7 || h.exchange != informational || len(m.payloads) != 7 || !m.abilities().dpd {
		t.Errorf("%+v", h)
	}
	n, err := parseNotification(m.one(payloadNotify))
	if diff := cmp.Diff(notification{1, sequence(0, 16), notifyRUThere, []byte{0, 0, 0, 1}}, n, cmp.AllowUnexported(notification{})); err != nil || diff != "" {
		t.Error(diff, err)
	}
	d, err := parseDeletion(m.one(payloadDelete))
	if diff := cmp.Diff(deletion{3, [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}}}, d, cmp.AllowUnexported(deletion{})); err != nil || diff != "" {
		t.Error(diff, err)
	}
	id, err := parseID(m.one(payloadID))
	if err != nil || id != (idPayload{Identity{IDFQDN, "vpn.example"}, 17, 1701}) {
		t.Error(id, err)
	}
}

func TestEveryPrefixFailsCleanly(t *testing.T) {
	whole := sample()
	for n := range whole {
		if _, _, err := parseHeader(whole[:n]); !errors.Is(err, errShort) && !errors.Is(err, errLength) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if n < headerSize {
			continue
		}
		h, _, _ := parseHeader(whole)
		if _, err := parseMessage(h, whole[headerSize:n]); err == nil {
			t.Errorf("%d bytes were taken for a whole chain", n)
		}
	}
	h, body, _ := parseHeader(whole)
	m, _ := parseMessage(h, body)
	parsers := map[payloadType]func([]byte) error{
		payloadSA:     func(b []byte) error { _, err := parseSA(b); return err },
		payloadDelete: func(b []byte) error { _, err := parseDeletion(b); return err },
	}
	for kind, parse := range parsers {
		b := m.one(kind)
		if err := parse(b); err != nil {
			t.Fatal(kind, err)
		}
		for n := range b {
			if n == 8 && kind == payloadSA {
				continue // no proposal: parseSA takes that for a chain that ends at once
			}
			if parse(b[:n]) == nil {
				t.Errorf("payload %d: %d bytes of %d were accepted", kind, n, len(b))
			}
		}
	}
	for n := range 8 {
		if _, err := parseNotification(m.one(payloadNotify)[:n]); err == nil {
			t.Errorf("notification of %d bytes", n)
		}
	}
	for n := range 4 {
		if _, err := parseID(m.one(payloadID)[:n]); err == nil {
			t.Errorf("ID of %d bytes", n)
		}
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	edit := func(at int, b ...byte) []byte {
		m := sample()
		copy(m[at:], b)
		return m
	}
	sa := headerSize + payloadHeaderSize
	for name, test := range map[string]struct {
		message []byte
		err     error
	}{
		"IKEv2":                 {edit(17, 0x20), errVersion},
		"length below header":   {edit(24, 0, 0, 0, 27), errLength},
		"length beyond":         {edit(24, 0xff, 0xff, 0xff, 0xff), errLength},
		"no initiator cookie":   {edit(0, 0), errCookie},
		"reserved byte":         {edit(headerSize+1, 1), errReserved},
		"payload length 3":      {edit(headerSize+2, 0, 3), errChain},
		"payload length 0":      {edit(headerSize+2, 0, 0), errChain},
		"payload length beyond": {edit(headerSize+2, 0xff, 0xff), errChain},
		"bytes after the chain": {edit(16, 0), errChain},
		"another DOI":           {edit(sa, 0, 0, 0, 2), errPayload},
		"another situation":     {edit(sa+4, 0, 0, 0, 2), errPayload},
		"proposal length":       {edit(sa+8+2, 0, 9), errPayload},
		"SPI over transforms":   {edit(sa+8+6, 0xff), errReserved},
		"more transforms":       {edit(sa+8+7, 17), errPayload},
		"no transforms":         {edit(sa+8+7, 0), errPayload},
		"transform type":        {edit(sa+16, 5), errPayload},
		"transform length":      {edit(sa+16+2, 0, 3), errChain},
	} {
		h, body, err := parseHeader(test.message)
		if err == nil {
			var m *message
			if m, err = parseMessage(h, body); err == nil {
				_, err = parseSA(m.one(payloadSA))
			}
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := compose(header{initiator: cookie{1}})
	for range maxPayloads + 1 {
		many.add(payloadVendorID)
	}
	h, body, _ := parseHeader(many.finish())
	if _, err := parseMessage(h, body); !errors.Is(err, errTooMany) {
		t.Error(err)
	}
	for name, b := range map[string]string{"count": "0000000103040002" + "01020304", "size 0": "0000000103000001", "DOI": "0000000203040001" + "01020304"} {
		if d, err := parseDeletion(unhex(b)); err == nil {
			t.Error("delete", name, d)
		}
	}
	for name, b := range map[string]string{"type 0": "00000000", "IPv4 of 3 bytes": "01000000c00002", "IPv6 of 4": "05000000c0000201"} {
		if id, err := parseID(unhex(b)); err == nil {
			t.Error("ID", name, id)
		}
	}
}

func TestFragmentsAreJoined(t *testing.T) {
	c := compose(header{initiator: cookie{1}, responder: cookie{2}, exchange: mainMode, flags: flagEncrypted})
	c.add(payloadCert, sequence(0, 5000))
	whole := c.finish()
	parts := fragment(whole)
	if len(parts) != 5 {
		t.Fatal(len(parts), "fragments")
	}
	var f fragments
	join := func(part []byte) []byte {
		h, body, err := parseHeader(part)
		if err != nil || h.next != payloadFragment || h.flags != 0 {
			t.Fatal(h, err)
		}
		return f.add(h, body)
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 2, 0, 4, 4, 1, 3}} {
		for i, n := range order {
			got := join(parts[n])
			if last := i == len(order)-1; (got != nil) != last || last && !bytes.Equal(got, whole) {
				t.Errorf("%v: after %d: %d bytes", order, i, len(got))
			}
		}
	}
	// Another message begins anew, and what is missing does not come up in it.
	join(parts[0])
	other := bytes.Clone(whole)
	other[100] ^= 1
	for i, part := range fragment(other) {
		if got := join(part); i == 4 && !bytes.Equal(got, other) {
			t.Error("fragments of two messages were mixed")
		}
	}
	for _, bad := range []string{"", "0000000000", "00000009" + "0001000041", "00000009" + "0001410041", "00000008" + "00010101"} {
		h, _, _ := parseHeader(parts[0])
		if f.add(h, unhex(bad[:len(bad)/2*2])) != nil {
			t.Error("bad fragment", bad)
		}
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	var f fragments
	h := header{initiator: cookie{1}}
	for n := range 300 {
		body := append([]byte{0, 0, 0x40, 0}, 0, 1, byte(n), 0)
		f.add(h, append(body, make([]byte, 0x4000-8)...))
	}
	if f.size > maxMessageSize || len(f.parts) > maxFragments {
		t.Error(f.size, len(f.parts))
	}
}

func TestErrorsNameStageCauseAndAdvice(t *testing.T) {
	for _, test := range []struct {
		err interface {
			Stage() string
			Advice() string
			Error() string
		}
		stage, text, advice string
	}{
		{&PeerError{Phase: 1, Notify: 14, Offered: []string{"a", "b"}}, "ike-phase1", "NO-PROPOSAL-CHOSEN (offered a, b)", "proposals"},
		{&PeerError{Phase: 2, Notify: 14}, "ike-phase2", "NO-PROPOSAL-CHOSEN", "PFS"},
		{&PeerError{Phase: 2, Notify: 18}, "ike-phase2", "INVALID-ID-INFORMATION", "1701"},
		{&PeerError{Phase: 1, Notify: 18}, "ike-phase1", "INVALID-ID-INFORMATION", "local_id"},
		{&PeerError{Phase: 1, Notify: 16, authenticates: true}, "ike-phase1", "PAYLOAD-MALFORMED", "pre-shared key is most likely wrong"},
		{&PeerError{Phase: 1, Notify: 24, authenticates: true, Authenticated: true}, "ike-phase1", "AUTHENTICATION-FAILED", "pre-shared key is right"},
		{&PeerError{Phase: 1, Notify: 24, certificates: true}, "ike-phase1", "AUTHENTICATION-FAILED", "certificate"},
		{&PeerError{Phase: 1, Notify: 5}, "ike-phase1", "INVALID-MAJOR-VERSION", "IKEv2"},
		{&PeerError{Phase: 2}, "ike-phase2", "server closed the connection", ""},
		{&PeerError{Phase: 1, Notify: 9999}, "ike-phase1", "notification 9999", ""},
		{&LocalError{Kind: NoAnswer, Phase: 1, Detail: "no answer"}, "ike-phase1", "no answer", "500"},
		{&LocalError{Kind: NoAnswerNATPort, Phase: 1, Detail: "no answer"}, "ike-phase1", "no answer", "4500"},
		{&LocalError{Kind: NoAnswerPhase2, Phase: 2, Detail: "no answer"}, "ike-phase2", "no answer", "log"},
		{&LocalError{Kind: NoNATTraversal, Phase: 1, Detail: "x", Err: errHash}, "ike-phase1", "x: hash does not match", "NAT traversal"},
	} {
		if test.err.Stage() != test.stage || !strings.Contains(test.err.Error(), test.text) || !strings.Contains(test.err.Advice(), test.advice) {
			t.Errorf("%s: %s\n%s", test.err.Stage(), test.err.Error(), test.err.Advice())
		}
		if strings.Count(test.err.Error(), "ike:") != 1 {
			t.Errorf("prefix: %s", test.err.Error())
		}
	}
}

func TestPairsAreShownWithoutKeys(t *testing.T) {
	sa := ChildSA{SPIIn: 0x1234, Transform: "3des-sha1", KeyIn: []byte("secret!!"), AuthOut: []byte("secret!!")}
	for _, format := range []string{"%v", "%+v", "%s"} {
		if s := fmt.Sprintf(format, sa); strings.Contains(s, "secret") || strings.Contains(s, "115") || !strings.Contains(s, "00001234") {
			t.Error(s)
		}
	}
	if strings.Contains(sa.LogValue().String(), "secret") {
		t.Error(sa.LogValue())
	}
}

func TestUsedIDsAreBounded(t *testing.T) {
	var u usedIDs
	for id := range uint32(3 * maxUsedIDs) {
		if !u.add(id+1) || u.add(id+1) {
			t.Fatal("id", id)
		}
	}
	if len(u.ids) != maxUsedIDs || len(u.ring) != maxUsedIDs || u.add(3*maxUsedIDs-1) || !u.add(1) {
		t.Error(len(u.ids), len(u.ring))
	}
}

// FuzzMessage: parse does not panic, and what is composed of its result is the same chain.
func FuzzMessage(f *testing.F) {
	f.Add(sample())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := parseHeader(b)
		if err != nil {
			return
		}
		m, err := parseMessage(h, body)
		if err != nil {
			return
		}
		c := compose(h)
		for _, p := range m.payloads {
			c.add(p.kind, p.body)
		}
		again := c.finish()
		h2, body2, err := parseHeader(again)
		if len(m.payloads) == 0 {
			h2.next = h.next
		}
		if err != nil || h2 != h || !bytes.Equal(body2, m.chain) {
			t.Errorf("%x became %x: %v", b, again, err)
		}
	})
}

func FuzzSA(f *testing.F) {
	f.Add(offer1(defaultProposals, authPSK, time.Hour))
	f.Add(offer2(defaultESPProposals, []byte{1, 2, 3, 4}, 14, 4, time.Hour))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseSA(b)
		if err != nil {
			return
		}
		for _, p := range list {
			for _, tr := range p.transforms {
				readTransform1(tr)
				readTransform2(tr)
			}
		}
		// The two reserved bytes of a transform are all that gets lost.
		again, err := parseSA(appendSA(nil, list))
		if diff := cmp.Diff(list, again, cmp.AllowUnexported(proposalPayload{}, transform{}), equateEmpty); err != nil || diff != "" {
			t.Error(diff, err)
		}
	})
}

var equateEmpty = cmp.FilterValues(func(a, b []byte) bool { return len(a) == 0 && len(b) == 0 }, cmp.Comparer(func(a, b []byte) bool { return true }))

func FuzzPayloads(f *testing.F) {
	f.Add(appendNotification(nil, notification{1, sequence(0, 16), notifyRUThere, []byte{0, 0, 0, 1}}))
	f.Add(appendDeletion(nil, deletion{3, [][]byte{{1, 2, 3, 4}}}))
	f.Add(appendID(nil, idPayload{Identity{IDIPv4, "\x01\x02\x03\x04"}, 17, 1701}))
	f.Add(appendAttribute(appendAttribute(nil, 1, 7), 12, 1<<40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNotification(b); err == nil && b[3] == doiIPsec && !bytes.Equal(appendNotification(nil, n), b) {
			t.Errorf("notification %x: %+v", b, n)
		}
		if d, err := parseDeletion(b); err == nil && b[3] == doiIPsec && len(d.spis) > 0 && !bytes.Equal(appendDeletion(nil, d), b) {
			t.Errorf("delete %x: %+v", b, d)
		}
		if id, err := parseID(b); err == nil {
			if !bytes.Equal(appendID(nil, id), b) {
				t.Errorf("ID %x: %+v", b, id)
			}
			if len(id.String()) > 1024 {
				t.Error("long text")
			}
		}
		if list, err := parseAttributes(b); err == nil {
			var again []byte
			for _, a := range list {
				again = appendAttribute(again, a.kind, a.value)
			}
			twice, err := parseAttributes(again)
			if err != nil || !slices.Equal(list, twice) {
				t.Errorf("attributes %x: %v, %v", b, list, twice)
			}
		}
	})
}

func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 0, 0, 9, 0, 1, 1, 1, 0x41})
	f.Fuzz(func(t *testing.T, b []byte) {
		var joined fragments
		for len(b) > 9 {
			n := min(len(b), 9+int(b[8]))
			if whole := joined.add(header{id: uint32(b[0] & 1)}, b[:n]); len(whole) > maxMessageSize {
				t.Error(len(whole))
			}
			b = b[n:]
		}
	})
}

func FuzzParseProposals(f *testing.F) {
	f.Add("aes256-sha256-modp2048")
	f.Add("aes128gcm16")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseProposal(s); err == nil {
			if again, err := ParseProposal(p.String()); err != nil || again != p {
				t.Error(s, p, again, err)
			}
		}
		if p, err := ParseESPProposal(s); err == nil {
			if again, err := ParseESPProposal(p.String()); err != nil || again != p {
				t.Error(s, p, again, err)
			}
		}
	})
}
