package ike

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const firstEphemeral = 49152 // RFC 6335 section 6

// RFC 3193 section 4: the initiator may use any port. Each Dial draws one, and the responder keeps to it.
func TestInnerPortIsDrawnForEachDial(t *testing.T) {
	p := connected(t, Config{}, Config{})
	first := p.c.up[0].LocalPort
	p.c.peer.Close(p.now)
	p.run(time.Second)
	again := &peerLog{}
	again.peer = p.client.Dial(p.now, serverIP, again)
	p.run(time.Second)
	if len(again.up) != 1 || len(p.s) != 2 {
		t.Fatal(again.down)
	}
	for i, sa := range []ChildSA{p.c.up[0], again.up[0]} {
		if sa.LocalPort < firstEphemeral || sa.PeerPort != 1701 {
			t.Error("ports of the client:", sa.LocalPort, sa.PeerPort)
		}
		if server := p.s[i].up[0]; server.LocalPort != 1701 || server.PeerPort != sa.LocalPort {
			t.Error("ports of the server:", server.LocalPort, server.PeerPort, "want", sa.LocalPort)
		}
	}
	if second := again.up[0].LocalPort; second == first {
		t.Error("the same port twice:", first)
	}
}

// Two clients of one address and one identity, as on one host or in two containers, have ports of their own. None says that what the server
// has with the other can be forgotten (RFC 2407 section 4.6.3.3).
func TestClientsOfOneAddressHaveTheirOwnInnerPorts(t *testing.T) {
	c := Config{LocalAddr: netip.MustParseAddr("172.17.0.2")}
	p := connected(t, c, Config{})
	from := netip.AddrPortFrom(clientAddr.Addr(), 40001)
	c.Random = rand.NewChaCha8([32]byte{9})
	second, other := p.add(withPSK(c), from, from), &peerLog{}
	other.peer = second.Dial(p.now, serverIP, other)
	p.run(time.Minute)
	if len(other.up) != 1 || other.up[0].LocalPort == p.c.up[0].LocalPort {
		t.Fatal(other.down, other.up)
	}
	if len(p.s) != 2 || p.s[0].ended+p.s[1].ended > 0 || p.s[0].peer.ID() != p.s[1].peer.ID() {
		t.Error("one has ended the other")
	}
}

// Renewals of either side, of both phases, keep the port.
func TestRenewalsKeepTheInnerPort(t *testing.T) {
	for name, server := range map[string]Config{"drawn": {}, "1701 demanded": {PeerInnerPort: 1701}} {
		t.Run(name, func(t *testing.T) {
			p := connected(t, Config{}, server)
			want := p.c.up[0].LocalPort
			for _, side := range []*peerLog{p.c, p.s[0], p.c} {
				side.peer.Rekey(p.now)
				p.run(time.Minute)
			}
			p.s[0].peer.newest().rekeyAt = p.now // and phase 1
			p.server.scheduleAt(p.now)
			p.run(time.Minute)
			p.s[0].peer.Rekey(p.now)
			p.run(time.Minute)
			if len(p.c.up) != 5 || len(p.s[0].up) != 5 {
				t.Fatal(len(p.c.up), len(p.s[0].up), p.c.down)
			}
			for i := range p.c.up {
				if p.c.up[i].LocalPort != want || p.s[0].up[i].PeerPort != want || p.c.up[i].PeerPort != 1701 {
					t.Error("pair", i, "has ports", p.c.up[i].LocalPort, p.s[0].up[i].PeerPort, "want", want)
				}
			}
		})
	}
}

// A responder may renew with selectors that let any port through. What we send still comes from the one that L2TP has there.
func TestPortOfARenewalWithWiderSelectors(t *testing.T) {
	p := connected(t, Config{}, Config{})
	port := p.c.up[0].LocalPort
	s := p.s[0].peer
	s.theirs = appendID(nil, idPayload{addressIdentity(clientAddr.Addr()), protocolUDP, 0})
	s.Rekey(p.now)
	p.run(time.Minute)
	if len(p.c.up) != 2 || p.c.up[1].LocalPort != port {
		t.Fatal(p.c.up, p.c.down)
	}
	s.theirs = appendID(nil, idPayload{addressIdentity(clientAddr.Addr()), protocolUDP, port ^ 1})
	s.Rekey(p.now)
	p.run(time.Minute)
	if len(p.c.up) != 2 || p.client.Stats().Refused == 0 {
		t.Error("a pair for another port was taken")
	}
}

// refusePort makes the server answer a Quick Mode from another port than 1701 in its own way.
func refusePort(p *pair, how func(s *isakmpSA)) {
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.message); h.exchange == quickModeType && f.from == clientAddr && p.c.peer.drewPort {
			how(p.s[len(p.s)-1].peer.newest())
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
}

func refuseBy(kind notifyType) func(*isakmpSA) {
	return func(s *isakmpSA) { s.sendNotify(notification{protocol: protocolESP, kind: kind}) }
}

// However a responder says that it wants 1701, it gets that: in the same phase 1 if it still has it. It is told once.
func TestFallBackTo1701(t *testing.T) {
	for _, test := range []struct {
		name   string
		server Config
		how    func(p *pair)
		within time.Duration
		phases int // 1
		quicks int // most attempts
	}{
		{"INVALID-ID-INFORMATION", Config{PeerInnerPort: 1701}, func(*pair) {}, time.Second, 1, 2},
		{"INVALID-ID-INFORMATION, with PFS demanded", Config{PeerInnerPort: 1701, PFS: PFSOn}, func(*pair) {}, time.Second, 1, 3},
		{"NO-PROPOSAL-CHOSEN", Config{}, func(p *pair) { refusePort(p, refuseBy(notifyNoProposalChosen)) }, time.Second, 1, 4},
		{"PAYLOAD-MALFORMED", Config{}, func(p *pair) { refusePort(p, refuseBy(notifyPayloadMalformed)) }, time.Second, 1, 2},
		{"silence", Config{}, func(p *pair) { refusePort(p, func(*isakmpSA) {}) }, 11 * time.Second, 2, 2},
		{"Delete", Config{}, func(p *pair) {
			refusePort(p, func(s *isakmpSA) { s.sendDelete([]*isakmpSA{s}); s.remove() })
		}, time.Second, 2, 2},
		{"another port in the answer", Config{}, func(p *pair) {
			p.fate = func(f flight) []time.Duration {
				if h, _, _ := parseHeader(f.message); h.exchange == quickModeType && f.from == server4500 && p.c.peer.drewPort {
					p.c.peer.ours = bytes.Clone(p.c.peer.ours)
					p.c.peer.ours[2] ^= 1 // as if we had asked for another one
				}
				return []time.Duration{time.Millisecond}
			}
		}, time.Second, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			p := newPair(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, test.server)
			test.how(p)
			p.dial()
			if !p.until(test.within, func() bool { return len(p.c.up) > 0 && len(p.s[len(p.s)-1].up) > 0 }) {
				t.Fatalf("not up: %v", p.c.down)
			}
			p.run(time.Second)
			p.mustMatch()
			if c, s := p.c.up[0], p.s[len(p.s)-1].up[0]; c.LocalPort != 1701 || s.PeerPort != 1701 {
				t.Error("ports:", c.LocalPort, s.PeerPort)
			}
			if len(p.s) != test.phases {
				t.Error(len(p.s), "times phase 1")
			}
			ids := map[uint32]bool{}
			for _, f := range p.seen {
				if h, _, _ := parseHeader(f.message); h.exchange == quickModeType && f.from == clientAddr {
					ids[h.id] = true
				}
			}
			if len(ids) > test.quicks {
				t.Error(len(ids), "Quick Modes")
			}
			if n := strings.Count(log.String(), "insist on UDP port 1701"); n != 1 {
				t.Errorf("told %d times:\n%s", n, log.String())
			}
			p.s[len(p.s)-1].peer.Rekey(p.now)
			p.run(time.Minute)
			if len(p.c.up) != 2 || p.c.up[1].LocalPort != 1701 {
				t.Error("the server's renewal:", p.c.up, p.c.down)
			}
		})
	}
}

// A server that refuses every port is given up, with the verdict on 1701, and as soon as without the other one.
func TestFallBackIsTheLastTry(t *testing.T) {
	for _, test := range []struct {
		name   string
		client Config
		server Config
		quicks int
	}{
		{"no common algorithm", Config{PFS: PFSOff, ESPProposals: []string{"aes256-sha256"}}, Config{ESPProposals: []string{"aes128-sha1"}}, 2},
		{"not for L2TP", Config{PeerInnerPort: 53}, Config{}, 2},
		{"configured port", Config{InnerPort: 40000}, Config{PeerInnerPort: 1701}, 1},
		{"configured 1701", Config{InnerPort: 1701, PeerInnerPort: 53}, Config{}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, test.client, test.server)
			p.dial()
			p.run(time.Second)
			var peer *PeerError
			if !errors.As(p.c.down, &peer) || peer.Phase != 2 || p.c.ended != 1 {
				t.Fatal(p.c.down)
			}
			if n := p.server.Stats().Refused; n != uint64(test.quicks) {
				t.Error(n, "Quick Modes")
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		p := newPair(t, Config{}, Config{})
		p.fate = func(f flight) []time.Duration {
			if h, _, _ := parseHeader(f.message); h.exchange == quickModeType {
				return nil
			}
			return []time.Duration{time.Millisecond}
		}
		p.dial()
		p.run(45 * time.Second) // within the time that a client has for all
		var local *LocalError
		if !errors.As(p.c.down, &local) || local.Kind != NoAnswerPhase2 {
			t.Error(p.c.down)
		}
	})
}
