package ike

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// RFC 2409 sections 5.4 and 5.5, RFC 3947 section 4: Main Mode in six messages, the last two on port 4500, and Quick Mode in three.
func TestMainModeAndQuickModeTakeNineMessages(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	if diff := cmp.Diff([]string{"main 500", "main 500", "main* 4500", "quick* 4500", "quick* 4500"}, p.kinds(clientAddr)); diff != "" {
		t.Error("client:", diff)
	}
	if diff := cmp.Diff([]string{"main 40000", "main 40000", "main* 40000", "quick* 40000"}, p.kinds(server500, server4500)); diff != "" {
		t.Error("server:", diff)
	}
	sa := p.c.up[0]
	if sa.Transform != "aes256gcm16" || sa.Peer != server4500 || sa.PeerPort != 1701 || sa.Lifetime != time.Hour || sa.Weak {
		t.Errorf("%+v", sa)
	}
	if p.s[0].up[0].Peer != clientAddr {
		t.Error("the server sends ESP to", p.s[0].up[0].Peer)
	}
	if p.client.Stats() != (Stats{}) || p.server.Stats() != (Stats{}) {
		t.Error("something was dropped:", p.client.Stats(), p.server.Stats())
	}
}

// RFC 2409 section 5.4: three messages, the last one on port 4500.
func TestAggressiveModeTakesThreeMessages(t *testing.T) {
	p := connected(t, Config{Aggressive: true}, Config{Aggressive: true})
	p.run(time.Second)
	if diff := cmp.Diff([]string{"aggressive 500", "aggressive* 4500", "quick* 4500", "quick* 4500"}, p.kinds(clientAddr)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"aggressive 40000", "quick* 40000"}, p.kinds(server500, server4500)); diff != "" {
		t.Error(diff)
	}
}

// RFC 3947 section 4 allows to begin on the NAT traversal port; a server without root has no other.
func TestOnePortServesAll(t *testing.T) {
	p := newPair(t, Config{Port: 14500, NATPort: 14500}, Config{})
	delete(p.nodes, server500)
	delete(p.nodes, server4500)
	p.server.addr = netip.AddrPortFrom(serverIP, 14500)
	p.server.natAddr = p.server.addr
	p.nodes[p.server.addr] = p.server
	p.connect()
	for _, f := range p.seen {
		if !f.marker {
			t.Error("a message without marker")
		}
	}
}

func TestAllAlgorithmsWork(t *testing.T) {
	for _, c := range []string{"aes256", "aes192", "aes128", "3des"} {
		for _, h := range []string{"md5", "sha1", "sha256", "sha384", "sha512"} {
			explicit := Config{Proposals: []string{c + "-" + h + "-ecp256"}, ESPProposals: []string{c + "-" + h}}
			p := connected(t, explicit, explicit)
			if p.c.up[0].Transform != c+"-"+h {
				t.Error(p.c.up[0].Transform)
			}
		}
	}
	for _, g := range groupAlgorithms {
		explicit := Config{Proposals: []string{"aes128-sha1-" + g.name}, ESPProposals: []string{"aes128-sha1"}, PFS: PFSOn}
		connected(t, explicit, explicit)
	}
	for _, c := range cipherAlgorithms {
		if c.aead {
			connected(t, Config{ESPProposals: []string{c.name}}, Config{})
		}
	}
	connected(t, Config{ESPProposals: []string{"null-sha1"}}, Config{ESPProposals: []string{"null-sha1"}})
}

// Without being asked for, a server does not go without encryption.
func TestNullEncryptionIsNotAcceptedByDefault(t *testing.T) {
	p := newPair(t, Config{ESPProposals: []string{"null-sha1"}}, Config{})
	p.dial()
	p.run(40 * time.Second)
	if len(p.c.up) > 0 || len(p.s[0].up) > 0 {
		t.Error("up without encryption")
	}
}

func TestKeySizesFitTheTransform(t *testing.T) {
	for name, sizes := range map[string][2]int{"aes256-sha256": {32, 32}, "3des-md5": {24, 16}, "aes128gcm16": {20, 0}, "aes192-sha512": {24, 64}, "aes128-sha1": {16, 20}, "aes256-sha384": {32, 48}} {
		p := connected(t, Config{ESPProposals: []string{name}}, Config{})
		if sa := p.c.up[0]; len(sa.KeyIn) != sizes[0] || len(sa.AuthOut) != sizes[1] {
			t.Errorf("%s: %d and %d bytes", name, len(sa.KeyIn), len(sa.AuthOut))
		}
	}
}

func TestDraftNATTraversalHasItsOwnNumbers(t *testing.T) {
	saved := initiatorNATs
	defer func() { initiatorNATs = saved }()
	initiatorNATs = [][]byte{vendorNATDraft02n}
	connected(t, Config{}, Config{})
	if natD, natOA := natDraft.payloads(); natD != 130 || natOA != 131 || natDraft.encapsulation() != 61444 {
		t.Error(natD, natOA, natDraft.encapsulation())
	}
}

func TestServerWithoutNATTraversalIsExplained(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		// Spoil the server's Vendor ID, as if it were of something else.
		if i := bytes.Index(f.message, vendorRFC3947); i >= 0 && f.from == server500 {
			f.message[i] ^= 1
		}
		return []time.Duration{time.Millisecond}
	}
	p.dial()
	p.run(10 * time.Second)
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != NoNATTraversal {
		t.Error(p.c.down)
	}
}

// An eavesdropper's view: nothing but phase 1's first messages is readable, and the NAT-D of our own address cannot match it.
func TestNATIsForced(t *testing.T) {
	p := connected(t, Config{}, Config{LocalAddr: serverIP})
	newHash := must(ParseProposal("aes256-sha256-ecp384")).hashing().new
	for _, f := range p.seen {
		h, body, _ := parseHeader(f.message)
		if h.flags&flagEncrypted != 0 || h.next != payloadKE {
			continue
		}
		m := must(parseMessage(h, body))
		natD := m.all(20)
		if len(natD) != 2 {
			t.Fatal(len(natD), "NAT-D payloads")
		}
		client, server := natHash(newHash, h.initiator, h.responder, clientAddr), natHash(newHash, h.initiator, h.responder, server500)
		if f.from == clientAddr && (!bytes.Equal(natD[0], server) || bytes.Equal(natD[1], client)) {
			t.Error("the client does not look as if behind a NAT")
		}
		if f.from != clientAddr && (bytes.Equal(natD[0], client) || !bytes.Equal(natD[1], server)) {
			t.Error("the server says that the client is behind no NAT, or that itself is behind one")
		}
	}
}

func TestWeakAlgorithmsAreMarked(t *testing.T) {
	p := connected(t, Config{}, Config{Proposals: []string{"3des-sha1-modp1024"}, ESPProposals: []string{"3des-sha1"}})
	if !p.c.up[0].Weak {
		t.Error("3DES is not marked as weak")
	}
}

func TestStrictClientDoesNotMeetWeakServer(t *testing.T) {
	p := newPair(t, Config{Policy: Strict}, Config{Proposals: []string{"3des-sha1-modp1024"}})
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || notifyType(peer.Notify) != notifyNoProposalChosen || peer.Authenticated {
		t.Fatal(p.c.down)
	}
	for _, s := range peer.Offered {
		if must(ParseProposal(s)).Weak() {
			t.Error("offered", s)
		}
	}
	if len(peer.Offered) < 5 {
		t.Error("offered", peer.Offered)
	}
}

// After NO-PROPOSAL-CHOSEN a short list is tried.
func TestShortListIsTriedAfterNoProposalChosen(t *testing.T) {
	for _, aggressive := range []bool{false, true} {
		short := "aes128-sha1-modp1024"
		p := newPair(t, Config{Aggressive: aggressive}, Config{Aggressive: aggressive, Proposals: []string{short}})
		if !aggressive {
			refuseLong(p, 8)
		}
		p.connect()
		if p.c.peer.attempt1 != 1 {
			t.Error("attempt", p.c.peer.attempt1)
		}
	}
}

// refuseLong makes the server refuse more proposals than so many.
func refuseLong(p *pair, most int) {
	p.fate = func(f flight) []time.Duration {
		h, body, _ := parseHeader(f.message)
		if f.to == server500 && h.next == payloadSA {
			m := must(parseMessage(h, body))
			if list := must(parseSA(m.one(payloadSA))); len(list[0].transforms) > most {
				h.exchange, h.responder = informational, cookie{9}
				c := compose(h)
				c.add(payloadNotify, appendNotification(nil, notification{protocol: 1, kind: notifyNoProposalChosen}))
				p.launch(flight{from: server500, to: f.from, message: c.finish()})
				return nil
			}
		}
		return []time.Duration{time.Millisecond}
	}
}

func TestPFS(t *testing.T) {
	for _, test := range []struct {
		client, server PFS
		with           bool
	}{
		{PFSAuto, PFSAuto, false}, {PFSOff, PFSAuto, false}, {PFSOn, PFSAuto, true}, {PFSOn, PFSOff, true}, {PFSOn, PFSOn, true},
		{PFSAuto, PFSOn, true}, // the second try
	} {
		p := connected(t, Config{PFS: test.client}, Config{PFS: test.server})
		sizes := 0
		for _, f := range p.seen {
			if h, _, _ := parseHeader(f.message); h.exchange == quickModeType {
				sizes = max(sizes, len(f.message))
			}
		}
		offer, group := p.c.peer.phase2Attempt(p.c.peer.newest())
		if (group != 0) != test.with {
			t.Errorf("%v: group %d of %v", test, group, offer)
		}
	}
	p := newPair(t, Config{PFS: PFSOff}, Config{PFS: PFSOn})
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || peer.Phase != 2 || !peer.Authenticated || !strings.Contains(peer.Advice(), "pfs") {
		t.Error(p.c.down)
	}
	connected(t, Config{ESPProposals: []string{"aes256-sha256-modp1536"}}, Config{PFS: PFSOn})
}

func TestPhase2RefusalListsWhatWasOffered(t *testing.T) {
	p := newPair(t, Config{ESPProposals: []string{"aes256-sha256"}, PFS: PFSOff}, Config{ESPProposals: []string{"aes128gcm16"}})
	p.dial()
	p.run(time.Minute)
	if p.c.down == nil || p.c.down.Error() != "ike: phase 2: server refused: NO-PROPOSAL-CHOSEN (offered aes256-sha256)" {
		t.Error(p.c.down)
	}
	if p.s[0].ended != 1 {
		t.Error("the server was not told of the end")
	}
}

func TestWrongPSKIsRecognised(t *testing.T) {
	for _, aggressive := range []bool{false, true} {
		p := newPair(t, Config{PSK: []byte("wrong"), Aggressive: aggressive}, Config{Aggressive: aggressive})
		p.dial()
		start := p.now
		p.until(time.Minute, func() bool { return p.c.ended > 0 })
		err, ok := p.c.down.(interface {
			Stage() string
			Advice() string
		})
		if !ok || err.Stage() != "ike-phase1" || !strings.Contains(err.Advice(), "pre-shared key is most likely wrong") {
			t.Error(p.c.down)
		}
		if waited := p.now.Sub(start); waited < suspiciousWait || waited > suspiciousWait+time.Second {
			t.Error("waited", waited)
		}
		if len(p.s) > 0 || len(p.c.up) > 0 {
			t.Error("up with a wrong key")
		}
		if strings.Contains(fmt.Sprint(p.c.down), "wrong") {
			t.Error("the key is in the error")
		}
	}
}

// Many servers just fall silent.
func TestSilenceAfterMessage5IsExplained(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if f.to == server4500 {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.dial()
	p.run(time.Minute)
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != NoAnswerNATPort || !strings.Contains(local.Advice(), "4500") || !strings.Contains(local.Advice(), "pre-shared key") {
		t.Error(p.c.down)
	}
}

// Message 1 goes out at 0, 1, 3, 7 and 15 s, and is given up at 30 s.
func TestSilenceAtMessage1IsExplained(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(flight) []time.Duration { return nil }
	p.dial()
	p.run(29 * time.Second)
	if p.c.ended != 0 {
		t.Error("given up early")
	}
	p.run(2 * time.Second)
	var at []float64
	for _, f := range p.seen {
		at = append(at, f.at.Sub(epoch).Seconds())
		if !bytes.Equal(f.message, p.seen[0].message) {
			t.Error("a repetition differs")
		}
	}
	if diff := cmp.Diff([]float64{0, 1, 3, 7, 15}, at); diff != "" {
		t.Error(diff)
	}
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != NoAnswer || len(p.client.sas) != 0 || len(p.client.peers) != 0 {
		t.Error(p.c.down)
	}
}

func TestSilenceInPhase2IsExplained(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.message); h.exchange == quickModeType {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.dial()
	p.run(time.Minute)
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != NoAnswerPhase2 || local.Stage() != "ike-phase2" {
		t.Error(p.c.down)
	}
}

func TestRemoteIDIsChecked(t *testing.T) {
	id := func(s string) Identity { return must(ParseIdentity(s)) }
	connected(t, Config{RemoteID: id("vpn.example"), LocalID: id("keyid:group")}, Config{LocalID: id("vpn.example"), RemoteID: id("keyid:group")})
	connected(t, Config{RemoteID: id("198.51.100.1")}, Config{LocalAddr: serverIP})

	p := newPair(t, Config{RemoteID: id("vpn.example")}, Config{LocalID: id("192.168.0.1")})
	p.dial()
	p.run(time.Second)
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != WrongIdentity || !strings.Contains(local.Error(), "192.168.0.1") {
		t.Error(p.c.down)
	}
	p = newPair(t, Config{LocalID: id("mallory")}, Config{RemoteID: id("alice")})
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || notifyType(peer.Notify) != notifyInvalidID || !peer.Authenticated || !strings.Contains(peer.Advice(), "local_id") {
		t.Error(p.c.down)
	}
}

// In Main Mode the key is found by address, in Aggressive Mode by identity (RFC 2409 section 5.4).
func TestServerFindsThePSK(t *testing.T) {
	var asked []string
	find := func(from netip.AddrPort, id Identity) []byte {
		asked = append(asked, from.Addr().String()+" "+id.String())
		return []byte("of the group")
	}
	client := Config{PSK: []byte("of the group"), LocalID: Identity{IDKey, "group"}}
	connected(t, client, Config{FindPSK: find})
	client.Aggressive = true
	connected(t, client, Config{FindPSK: find, Aggressive: true})
	if diff := cmp.Diff([]string{"192.0.2.1 none", "192.0.2.1 keyid:group"}, asked); diff != "" {
		t.Error(diff)
	}
	p := newPair(t, client, Config{Aggressive: true, FindPSK: func(netip.AddrPort, Identity) []byte { return nil }})
	p.dial()
	p.run(time.Minute)
	if p.c.down == nil || len(p.s) > 0 {
		t.Error("a peer without a key was let in")
	}
}

func TestAcceptCanRefuse(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.accept = errors.New("full")
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || notifyType(peer.Notify) != notifyAuthenticationFailed || len(p.server.peers) != 0 || len(p.server.sas) != 0 {
		t.Error(p.c.down, len(p.server.peers), len(p.server.sas))
	}
}

func TestClientAcceptsNobodyElse(t *testing.T) {
	p := connected(t, Config{}, Config{})
	stranger := p.add(withPSK(Config{}), netip.MustParseAddrPort("203.0.113.9:500"), netip.MustParseAddrPort("203.0.113.9:4500"))
	l := &peerLog{}
	stranger.config.Port, stranger.config.NATPort = 40000, 40000
	stranger.Dial(p.now, clientAddr.Addr(), l)
	p.run(time.Minute)
	if len(l.up) > 0 || p.client.Stats().Refused == 0 || len(p.client.sas) != 1 {
		t.Error(l.up, p.client.Stats())
	}
}

// The newest pair is renewed before it ends, by the client, and the old one stays for what is under way.
func TestPhase2IsRenewed(t *testing.T) {
	p := connected(t, Config{ESPLifetime: 10 * time.Minute}, Config{})
	if got := p.s[0].up[0].Lifetime; got != 10*time.Minute {
		t.Error("the server does not keep to the lifetime of the client:", got)
	}
	p.run(time.Hour)
	if n := len(p.c.up); n < 6 || n > 8 {
		t.Error(n, "pairs in an hour")
	}
	if p.c.ended+p.s[0].ended > 0 || len(p.c.up) != len(p.s[0].up) {
		t.Error(p.c.down, p.s[0].down, len(p.c.up), len(p.s[0].up))
	}
	p.run(retireAfter) // not within an overlap
	p.mustMatch()
	if len(p.c.live()) > 2 || len(p.s[0].live()) > 2 {
		t.Error("old pairs are left:", len(p.c.live()), len(p.s[0].live()))
	}
}

// At all times the newest outbound SA of each side is one that the other side receives on.
func TestRenewalsLoseNothing(t *testing.T) {
	for _, who := range []string{"client", "server", "both"} {
		client, server := Config{ESPLifetime: time.Minute, Lifetime: 3 * time.Minute}, Config{ESPLifetime: time.Minute, Lifetime: 3 * time.Minute}
		p := connected(t, client, server)
		r := rand.New(rand.NewPCG(1, 2))
		p.fate = func(flight) []time.Duration {
			if r.IntN(100) < 10 {
				return nil
			}
			return []time.Duration{time.Duration(1+r.IntN(30)) * time.Millisecond}
		}
		for range 40 * 60 {
			p.run(time.Second)
			if p.c.ended+p.s[0].ended > 0 {
				t.Fatal(who, p.c.down, p.s[0].down)
			}
			if p.now.Second() == 30 { // long before the timers do it
				if who != "server" {
					p.client.peers[0].Rekey(p.now)
				}
				if who != "client" {
					p.server.peers[0].Rekey(p.now)
				}
			}
			for _, side := range [][2]*peerLog{{p.c, p.s[0]}, {p.s[0], p.c}} {
				out := side[0].live()[len(side[0].live())-1]
				if !slices.ContainsFunc(side[1].inbound, func(sa ChildSA) bool { return sa.SPIIn == out.SPIOut }) || slices.Contains(side[1].downs, out.SPIOut) {
					t.Fatalf("%s, %v: what is sent on %08x is not received", who, p.now.Sub(epoch), out.SPIOut)
				}
			}
		}
		if n := len(p.c.live()); n > 6 {
			t.Error(who, n, "pairs at a time")
		}
		if len(p.c.peer.sas) > 3 || len(p.server.sas) > 6 || len(p.client.sas) > 6 {
			t.Error(who, "ISAKMP SAs are left:", len(p.c.peer.sas), len(p.server.sas), len(p.client.sas))
		}
	}
}

// Phase 1 is renewed too, by a new Main Mode on the NAT traversal port, and the pairs stay.
func TestPhase1IsRenewed(t *testing.T) {
	p := connected(t, Config{Lifetime: time.Hour, ESPLifetime: 24 * time.Hour}, Config{ESPLifetime: 24 * time.Hour})
	first := p.c.peer.newest()
	p.seen = nil
	p.run(time.Hour + time.Minute)
	if p.c.ended > 0 || len(p.c.downs) > 0 || len(p.s) != 1 || p.s[0].ended > 0 {
		t.Fatal(p.c.down, p.c.downs, len(p.s))
	}
	now := p.c.peer.newest()
	if now == nil || now == first || len(p.c.peer.sas) != 1 || len(p.server.sas) != 1 || p.s[0].peer.newest().key != now.key {
		t.Error("phase 1 was not renewed, or the old one is left")
	}
	for _, f := range p.seen {
		if h, _, _ := parseHeader(f.message); h.exchange == mainMode && !f.marker {
			t.Error("a message of the new phase 1 without marker")
		}
	}
	p.c.peer.Rekey(p.now)
	p.run(time.Minute)
	p.mustMatch()
	if len(p.c.up) != 2 {
		t.Error("the new phase 1 is of no use")
	}
}

func TestServerRenewsBothPhases(t *testing.T) {
	p := connected(t, Config{}, Config{})
	server := p.s[0].peer
	server.newest().rekeyAt = p.now.Add(time.Minute)
	server.newestChild().rekeyAt = p.now.Add(2 * time.Minute)
	p.server.scheduleAt(p.now.Add(time.Minute))
	old := p.s[0].peer.newest()
	p.run(3 * time.Minute)
	if server.newest() == old || !server.newest().initiator || p.c.peer.newest().initiator || len(p.c.up) != 2 || p.c.ended > 0 {
		t.Error("the server's renewals failed:", len(p.c.up), p.c.down)
	}
	p.mustMatch()
}

// A server that deletes phase 1 and keeps phase 2 is not gone: a new phase 1 comes when it is needed.
func TestPairsOutliveTheirISAKMPSA(t *testing.T) {
	p := connected(t, Config{}, Config{})
	server := p.s[0].peer
	server.newest().sendDelete(server.sas)
	server.newest().remove()
	p.run(time.Second)
	if p.c.ended > 0 || len(p.c.peer.sas) != 0 || len(p.c.live()) != 1 {
		t.Fatal(p.c.down)
	}
	p.run(time.Minute)
	if p.c.ended > 0 || len(p.c.peer.sas) != 1 || len(p.s) != 1 {
		t.Error("no new phase 1:", p.c.down, len(p.c.peer.sas), len(p.s))
	}
	p.c.peer.Rekey(p.now)
	p.run(time.Second)
	p.mustMatch()
}

func TestRenewalBeginsPhase1IfThereIsNone(t *testing.T) {
	p := connected(t, Config{DPDInterval: -1}, Config{DPDInterval: -1})
	server := p.s[0].peer
	server.newest().sendDelete(server.sas)
	server.newest().remove()
	p.run(time.Second)
	p.c.peer.Rekey(p.now)
	p.run(time.Second)
	if len(p.c.up) != 2 || p.c.ended > 0 {
		t.Error(len(p.c.up), p.c.down)
	}
	p.mustMatch()
}

func TestPeersEndsAllByDelete(t *testing.T) {
	for _, byServer := range []bool{false, true} {
		p := connected(t, Config{}, Config{})
		closer, other := p.c, p.s[0]
		if byServer {
			closer, other = p.s[0], p.c
		}
		closer.peer.Close(p.now)
		p.run(time.Second)
		if !errors.Is(closer.down, ErrClosed) || closer.ended != 1 || len(closer.downs) != 1 {
			t.Error(closer.down, closer.downs)
		}
		var peer *PeerError
		if !errors.As(other.down, &peer) || !peer.Authenticated || peer.Notify != 0 || other.ended != 1 || len(other.downs) != 1 {
			t.Error(other.down, other.downs)
		}
		p.run(2 * time.Minute)
		if len(p.client.sas)+len(p.server.sas)+len(p.client.peers)+len(p.server.peers) > 0 || !p.client.NextDeadline().IsZero() {
			t.Error("something is left")
		}
	}
	p := connected(t, Config{}, Config{})
	p.client.Close(p.now)
	if late := (&peerLog{}); p.client.Dial(p.now, serverIP, late) == nil || !errors.Is(late.down, ErrClosed) {
		t.Error("a closed Endpoint dials:", late.down)
	}
}

// RFC 3706 section 5: R-U-THERE is sent in silence only, and five without an answer are the end.
func TestDeadPeerIsDetected(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(10 * time.Minute)
	if p.c.ended > 0 {
		t.Fatal("a peer that answers was declared dead:", p.c.down)
	}
	p.seen = nil
	for range 120 {
		p.run(time.Second)
		p.c.peer.Heard(p.now)
		p.s[0].peer.Heard(p.now)
	}
	if n := len(p.seen); n > 2 {
		t.Error(n, "messages while ESP came in")
	}
	p.fate = func(flight) []time.Duration { return nil }
	start := p.now
	p.until(5*time.Minute, func() bool { return p.c.ended > 0 })
	var local *LocalError
	if !errors.As(p.c.down, &local) || local.Kind != DeadPeer || len(p.c.live()) > 0 {
		t.Error(p.c.down)
	}
	if waited := p.now.Sub(start); waited < 50*time.Second || waited > 56*time.Second {
		t.Error("noticed after", waited)
	}
	p.run(5 * time.Minute)
	if p.s[0].ended != 1 {
		t.Error("the server did not notice")
	}
}

func TestDPDCanBeOff(t *testing.T) {
	p := connected(t, Config{DPDInterval: -1}, Config{DPDInterval: -1})
	p.run(time.Second)
	p.seen = nil
	p.run(10 * time.Minute)
	if len(p.seen) > 0 {
		t.Error(p.kinds(clientAddr, server4500))
	}
}

// RFC 2407 section 4.6.3.3: a client that restarted says so, once, if its traffic cannot be told from what was before.
func TestInitialContactEndsWhatWasBefore(t *testing.T) {
	p := connected(t, Config{LocalAddr: clientAddr.Addr(), InnerPort: 1701}, Config{})
	again := p.add(withPSK(Config{LocalAddr: clientAddr.Addr(), InnerPort: 1701, Random: rand.NewChaCha8([32]byte{9})}), clientAddr, clientAddr)
	l := &peerLog{}
	l.peer = again.Dial(p.now, serverIP, l)
	p.run(time.Second)
	var local *LocalError
	if len(l.up) != 1 || len(p.s) != 2 || !errors.As(p.s[0].down, &local) || local.Kind != Replaced || len(p.server.peers) != 1 {
		t.Error(l.down, len(p.s), p.s[0].down)
	}
	// A second connection of the same Endpoint leaves the first alone.
	l2 := &peerLog{}
	again.addr = netip.MustParseAddrPort("192.0.2.1:40001")
	again.natAddr = again.addr
	p.nodes[again.addr] = again
	l2.peer = again.Dial(p.now, serverIP, l2)
	p.run(time.Second)
	if len(l2.up) != 1 || p.s[1].ended > 0 {
		t.Error("INITIAL-CONTACT was said twice")
	}
}

// Two clients behind one NAT with the same private address are two peers.
func TestClientsBehindOneNATAreApart(t *testing.T) {
	p := connected(t, Config{LocalAddr: netip.MustParseAddr("192.168.1.2")}, Config{})
	other := netip.MustParseAddrPort("192.0.2.1:40001")
	second := p.add(withPSK(Config{LocalAddr: netip.MustParseAddr("192.168.1.3")}), other, other)
	l := &peerLog{}
	second.Dial(p.now, serverIP, l)
	p.run(time.Second)
	if len(l.up) != 1 || len(p.s) != 2 || p.s[0].ended > 0 || len(p.server.peers) != 2 {
		t.Error(l.down, len(p.s), p.s[0].down)
	}
}

// RFC 3947 section 4: a NAT that restarts gives the client another port; what is authentic is followed.
func TestServerFollowsAClientThatMoves(t *testing.T) {
	p := connected(t, Config{}, Config{})
	moved := netip.MustParseAddrPort("192.0.2.1:50000")
	delete(p.nodes, clientAddr)
	p.client.addr, p.client.natAddr = moved, moved
	p.nodes[moved] = p.client
	p.c.peer.Rekey(p.now)
	p.run(time.Second)
	if len(p.c.up) != 2 || p.s[0].peer.Remote() != moved || p.s[0].up[1].Peer != moved {
		t.Error(len(p.c.up), p.s[0].peer.Remote())
	}
}

// What a handler does within a call must not upset the engine.
func TestHandlersMayActWithinTheirCalls(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	redials := 0
	p.c.onUp = func(now time.Time, sa ChildSA) { p.c.peer.Close(now) }
	p.c.onDown = func(now time.Time) {
		if redials++; redials < 3 {
			p.c.peer = p.client.Dial(now, serverIP, p.c)
		}
	}
	p.dial()
	p.run(time.Minute)
	if redials != 3 || len(p.client.sas) != 0 || len(p.client.peers) != 0 || len(p.server.peers) != 0 {
		t.Error(redials, len(p.client.sas), len(p.client.peers), len(p.server.peers))
	}
}

// Whatever the network does to messages, the pair comes up, once, and is the same at both ends.
func TestConversationSurvivesLossDuplicationAndReordering(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := Config{Aggressive: seed%3 == 0, ESPLifetime: 5 * time.Minute, Lifetime: 11 * time.Minute, DPDInterval: -1} // at such loss five R-U-THEREs do get lost
		if seed%3 != 0 {
			c.Proposals = []string{"aes256-sha256-ecp256"} // faster
		}
		p := newPair(t, c, c)
		p.fate = func(flight) (delays []time.Duration) {
			for r.IntN(100) < 93 && len(delays) < 3 { // 7 % loss, many duplicates
				delays = append(delays, time.Duration(r.IntN(200))*time.Millisecond)
				if r.IntN(100) < 70 {
					break
				}
			}
			return delays
		}
		p.dial()
		if !p.until(2*time.Minute, func() bool { return len(p.c.up) > 0 && len(p.s) > 0 && len(p.s[0].up) > 0 }) {
			t.Fatalf("seed %d: not up: %v", seed, p.c.down)
		}
		p.run(20 * time.Minute)
		if p.c.ended > 0 || len(p.s) != 1 || p.s[0].ended > 0 {
			t.Fatalf("seed %d: %v, %d peers, %v", seed, p.c.down, len(p.s), p.s[0].down)
		}
		p.fate = nil
		p.run(time.Minute)
		c1, s1 := p.c.live(), p.s[0].live()
		if !slices.ContainsFunc(s1, func(sa ChildSA) bool { return mirror(sa, c1[len(c1)-1]) }) || !slices.ContainsFunc(c1, func(sa ChildSA) bool { return mirror(sa, s1[len(s1)-1]) }) {
			t.Errorf("seed %d: the newest pairs do not meet", seed)
		}
	}
}

// RFC 2408 section 5.1: a repeated message gets the same answer, and is not worked on again.
func TestRepeatedMessagesGetTheSameAnswer(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	requests := slices.Clone(p.seen)
	for i, f := range requests {
		n := p.nodes[f.to]
		p.seen = nil
		n.Receive(p.now, f.from, f.marker, f.message)
		n.Receive(p.now, f.from, f.marker, f.message)
		for _, answer := range p.seen {
			h, _, _ := parseHeader(answer.message)
			known := slices.ContainsFunc(requests, func(f flight) bool { return bytes.Equal(f.message, answer.message) })
			if !known && !(h.exchange == mainMode && h.flags == 0) { // a late message 1 begins anew
				t.Errorf("message %d, repeated, got a new answer %v", i, h)
			}
		}
	}
	p.sky = nil
	p.run(2 * time.Minute)
	if len(p.s) != 1 || len(p.s[0].up) != 1 || len(p.c.up) != 1 || p.c.ended > 0 {
		t.Error("something came of repetitions")
	}
}

func TestMessagesFromElsewhereAreDropped(t *testing.T) {
	p := connected(t, Config{}, Config{})
	p.run(time.Second)
	for _, f := range slices.Clone(p.seen) {
		if f.to == clientAddr {
			p.client.Receive(p.now, netip.MustParseAddrPort("203.0.113.9:4500"), true, f.message)
		}
	}
	if p.client.Stats().WrongSource == 0 {
		t.Error("messages of another address were taken")
	}
}

// No bit of a message can be changed on its way without it being dropped; the genuine one then goes through.
func TestTamperedMessagesDoNoHarm(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		p := newPair(t, Config{Proposals: []string{"aes256-sha256-ecp256"}}, Config{Proposals: []string{"aes256-sha256-ecp256"}})
		p.fate = func(f flight) []time.Duration {
			h, _, _ := parseHeader(f.message)
			if h.flags&flagEncrypted != 0 {
				bad := f
				bad.message = bytes.Clone(f.message)
				size := len(bad.message) - headerSize
				if h.exchange == mainMode {
					size = 32 // what comes after ID and HASH is not protected in message 5 (RFC 2409 section 5.4)
				}
				bad.message[headerSize+r.IntN(size)] ^= 1 << r.IntN(8)
				bad.at = p.now
				p.sky = slices.Insert(p.sky, 0, bad)
			}
			return []time.Duration{time.Millisecond}
		}
		p.dial()
		if !p.until(time.Minute, func() bool { return len(p.c.up) > 0 && len(p.s) > 0 && len(p.s[0].up) > 0 }) {
			t.Fatalf("round %d: %v", round, p.c.down)
		}
		p.mustMatch()
	}
}

// RFC 2408 section 5.14: notifications that are not protected are hints. They shorten the wait, and a genuine answer wins.
func TestForgedNotificationsOnlyShortenTheWait(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if f.from == clientAddr { // answered by a forger at once, by the server later
			h, _, _ := parseHeader(f.message)
			c := compose(header{initiator: h.initiator, responder: h.responder, exchange: informational, id: 1})
			c.add(payloadNotify, appendNotification(nil, notification{protocol: 1, kind: notifyPayloadMalformed}))
			p.client.Receive(p.now, f.to, f.marker, c.finish())
			c = compose(header{initiator: h.initiator, responder: h.responder, exchange: informational, id: 2})
			c.add(payloadDelete, appendDeletion(nil, deletion{1, [][]byte{append(h.initiator[:], h.responder[:]...)}}))
			p.client.Receive(p.now, f.to, f.marker, c.finish())
			return []time.Duration{2 * time.Second}
		}
		return []time.Duration{time.Millisecond}
	}
	p.connect()
}

func TestIKEv2ServerIsRecognised(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if f.from == clientAddr {
			answer := bytes.Clone(f.message[:headerSize])
			answer[17], answer[18], answer[27] = 0x20, 37, headerSize
			p.launch(flight{from: f.to, to: f.from, message: answer})
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || !strings.Contains(peer.Advice(), "IKEv2") {
		t.Error(p.c.down)
	}
}

func TestUnreachableShortensTheWait(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(flight) []time.Duration { return nil }
	p.dial()
	p.client.Unreachable(p.now, server500, errors.New("connection refused"))
	p.run(suspiciousWait + time.Second)
	if p.c.down == nil || !strings.Contains(p.c.down.Error(), "connection refused") {
		t.Error(p.c.down)
	}
}

// A flood of beginnings pushes out itself, and a client gets through all the same.
func TestFloodDoesNotGrowMemory(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if f.to.Port() == 9 {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	r := rand.New(rand.NewPCG(1, 1))
	var first []byte
	flood := func() {
		for range 400 {
			m := bytes.Clone(first)
			for i := range 8 {
				m[i] = byte(r.Uint32()) | 1
			}
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 9)
			if r.IntN(2) == 0 {
				from = netip.MustParseAddrPort("203.0.113.5:9")
			}
			p.server.Receive(p.now, from, false, m)
			p.server.Receive(p.now, from, true, m[:r.IntN(len(m))])
			// Cookies that do not exist, exchanges that do not fit
			bogus := bytes.Clone(m)
			for i := 8; i < 24; i++ {
				bogus[i] = byte(r.Uint32())
			}
			bogus[17] = version1
			p.server.Receive(p.now, from, false, bogus)
		}
		p.seen = nil
	}
	p.dial()
	first = p.seen[0].message
	flood()
	if n := len(p.server.sas); n > maxHalfOpen || len(p.server.halfOpen) != n || len(p.server.firsts) != n {
		t.Error(n, "half-open SAs,", len(p.server.halfOpen), len(p.server.firsts))
	}
	if p.server.Stats().Evicted == 0 {
		t.Error("nothing was evicted")
	}
	for i := 0; i < 20 && len(p.c.up) == 0; i++ {
		flood()
		p.run(500 * time.Millisecond)
	}
	if len(p.c.up) == 0 {
		t.Error("a genuine client did not get through")
	}
	p.run(halfOpenLife + time.Second)
	if len(p.server.sas) != 1 || len(p.server.halfOpen) != 0 || len(p.server.firsts) != 0 {
		t.Error("left:", len(p.server.sas), len(p.server.halfOpen), len(p.server.firsts))
	}
}

// An authenticated peer is bounded as well.
func TestPairsOfOnePeerAreBounded(t *testing.T) {
	p := connected(t, Config{}, Config{})
	for range 100 {
		p.c.peer.Rekey(p.now)
		p.run(100 * time.Millisecond)
	}
	if n := len(p.s[0].live()); n > maxChildren {
		t.Error(n, "pairs")
	}
	if p.c.ended > 0 || p.s[0].ended > 0 {
		t.Error(p.c.down, p.s[0].down)
	}
	p.run(10 * time.Minute)
	p.mustMatch()
}

func TestSelectorsMustBeOfL2TP(t *testing.T) {
	p := connected(t, Config{InnerPort: 5555}, Config{})
	if p.s[0].up[0].PeerPort != 5555 || p.s[0].up[0].LocalPort != 1701 || p.c.up[0].LocalPort != 5555 {
		t.Error("inner ports:", p.s[0].up[0].PeerPort, p.c.up[0].LocalPort)
	}
	p = newPair(t, Config{PeerInnerPort: 53}, Config{})
	p.dial()
	p.run(time.Minute)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || notifyType(peer.Notify) != notifyInvalidID || peer.Phase != 2 {
		t.Error(p.c.down)
	}
}

// RFC 2407 section 4.6.3.1.
func TestResponderLifetimeIsHeeded(t *testing.T) {
	p := connected(t, Config{}, Config{ESPLifetime: 10 * time.Minute})
	if got := p.c.up[0].Lifetime; got != 10*time.Minute {
		t.Error("lifetime of phase 2:", got)
	}
	server := p.s[0].peer.newest()
	data := appendAttribute(appendAttribute(nil, attributeLifeType, lifeSeconds), attributeLife, 600)
	server.sendNotify(notification{protocolISAKMP, server.spi(), notifyResponderLifetime, data})
	p.run(time.Second)
	if got := p.c.peer.newest().expiresAt.Sub(p.now); got > 10*time.Minute || got < 9*time.Minute {
		t.Error("lifetime:", got)
	}
}

// A server for Cisco's clients asks for a user name after phase 1.
func TestXAuthIsExplained(t *testing.T) {
	p := newPair(t, Config{}, Config{})
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.message); h.exchange == quickModeType {
			h.exchange, h.id = transaction, 77
			p.client.Receive(p.now, server4500, true, append(compose(h).finish(), make([]byte, 16)...))
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
	p.dial()
	p.run(time.Minute)
	if p.c.down == nil || !strings.Contains(p.c.down.Error(), "XAuth") {
		t.Error(p.c.down)
	}
}

// FuzzEndpoint throws messages at an Endpoint in any state: it does not panic, stays bounded, and what is up stays up.
func FuzzEndpoint(f *testing.F) {
	p := connected(f, Config{}, Config{})
	for _, flight := range p.seen {
		f.Add(uint8(7), flight.message)
	}
	f.Add(uint8(0), sample())
	f.Fuzz(func(t *testing.T, steps uint8, b []byte) {
		c := Config{Proposals: []string{"aes128-sha1-ecp256"}, Aggressive: steps&0x80 != 0}
		p := newPair(t, c, c)
		p.dial()
		for range steps & 15 {
			if len(p.sky) > 0 {
				f := p.sky[0]
				p.sky = p.sky[1:]
				p.nodes[f.to].Receive(p.now, f.from, f.marker, f.message)
			}
		}
		for s := range p.server.sas { // make it reach the state: with cookies that exist, half of the time
			if steps&0x10 != 0 && len(b) >= 16 {
				b = bytes.Clone(b)
				copy(b, s.initiator[:])
				copy(b[8:], s.responder[:])
			}
		}
		up := len(p.c.up)
		p.server.Receive(p.now, clientAddr, steps&0x20 != 0, b)
		p.client.Receive(p.now, server4500, steps&0x20 != 0, b)
		if len(p.server.sas) > 4 || len(p.client.sas) > 4 {
			t.Error("SAs:", len(p.server.sas), len(p.client.sas))
		}
		p.run(time.Minute)
		if up > 0 && p.c.ended > 0 {
			t.Error("forged messages ended the peer:", p.c.down)
		}
	})
}

// BenchmarkConnect is phase 1 and phase 2, both sides.
func BenchmarkConnect(b *testing.B) {
	for _, proposal := range []string{"aes256-sha256-ecp256", "aes256-sha256-modp2048", "3des-sha1-modp1024"} {
		b.Run("proposal="+proposal, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				connected(b, Config{Proposals: []string{proposal}}, Config{})
			}
		})
	}
}

// BenchmarkBogusMessage is what a flood of messages with unknown cookies costs.
func BenchmarkBogusMessage(b *testing.B) {
	p := connected(b, Config{}, Config{})
	bogus := sample()
	b.ReportAllocs()
	b.SetBytes(int64(len(bogus)))
	for b.Loop() {
		p.server.Receive(p.now, clientAddr, false, bogus)
	}
}
