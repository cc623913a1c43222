package ppp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareAddrs = cmp.Options{cmpopts.EquateComparable(netip.Addr{})}

func TestEveryMethodConnectsAndMovesPackets(t *testing.T) {
	for _, m := range []AuthMethod{AuthNone, AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := clientConfig(), serverConfig()
			peer.Auth, server.Auth = []AuthMethod{m}, []AuthMethod{m}
			l := newLinkPair(t, peer, server)
			l.connect()

			got, want := l.peer.params(t), Params{
				Local: netip.MustParseAddr("10.9.0.2"), Remote: netip.MustParseAddr("10.9.0.1"),
				DNS:  testAssignment().DNS,
				IPv6: true, LocalIID: l.server.params(t).RemoteIID, RemoteIID: l.server.params(t).LocalIID,
				MTU: testMTU - frameHeader, Auth: m, Username: "alice",
			}
			if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
				t.Errorf("peer's Params (-want +got):\n%s", diff)
			}
			wantUser := "alice"
			if m == AuthNone {
				wantUser = ""
			}
			if p := l.server.params(t); p.Username != wantUser || p.Auth != m || p.Local != want.Remote || p.Remote != want.Local {
				t.Errorf("server's Params: %+v", p)
			}
			exchangePackets(t, l)
		})
	}
}

// exchangePackets moves IPv4 and IPv6 both ways.
func exchangePackets(t *testing.T, l *linkPair) {
	t.Helper()
	l.fault = nil
	l.peer.packets, l.server.packets = nil, nil
	packets := [][]byte{ipv4Packet(20), ipv6Packet(1280), ipv4Packet(1400)}
	for _, packet := range packets {
		l.peer.write(t, packet)
		l.server.write(t, packet)
	}
	l.run(time.Second, func() bool { return len(l.peer.packets) == 3 && len(l.server.packets) == 3 })
	for _, e := range []*linkEnd{l.peer, l.server} {
		if diff := cmp.Diff(packets, e.packets); diff != "" {
			t.Errorf("packets (-want +got):\n%s", diff)
		}
	}
}

func TestWrongPasswordEndsBothEnds(t *testing.T) {
	for _, m := range []AuthMethod{AuthPAP, AuthCHAPMD5, AuthMSCHAP, AuthMSCHAPv2, AuthEAPMD5, AuthEAPMSCHAPv2} {
		t.Run(m.String(), func(t *testing.T) {
			peer, server := clientConfig(), serverConfig()
			peer.Auth, server.Auth = []AuthMethod{m}, []AuthMethod{m}
			peer.Password = "looking glass"
			var log bytes.Buffer
			peer.Log, server.Log = logTo(&log), logTo(&log)
			l := newLinkPair(t, peer, server)
			l.start()
			l.run(time.Minute, l.bothDown)
			var refused *AuthError
			if err := l.peer.err(t); !errors.As(err, &refused) {
				t.Errorf("peer: %v, want an AuthError", err)
			}
			if err := l.server.err(t); stageOf(err) != "auth" {
				t.Errorf("server: %v, want stage auth", err)
			}
			if len(l.peer.ups)+len(l.server.ups) > 0 {
				t.Error("the network came up")
			}
			for _, secret := range []string{"looking glass", "wonder land"} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("the log shows a password:\n%s", log.String())
				}
			}
		})
	}
}

// TestConnectsThroughEveryFault: whichever frame is lost, doubled or late, the link comes up; a copy never takes it down.
func TestConnectsThroughEveryFault(t *testing.T) {
	faults := map[string]func(n, at int) (int, time.Duration){
		"lost":                           func(n, at int) (int, time.Duration) { return b2i(n != at), 0 },
		"doubled":                        func(n, at int) (int, time.Duration) { return 1 + b2i(n == at), 0 },
		"late":                           func(n, at int) (int, time.Duration) { return 1, time.Duration(b2i(n == at)) * 300 * time.Millisecond },
		"all lost from here for a while": func(n, at int) (int, time.Duration) { return b2i(n < at || n >= at+4), 0 },
	}
	for _, m := range []AuthMethod{AuthPAP, AuthMSCHAPv2, AuthEAPMSCHAPv2} {
		for name, f := range faults {
			for at := range 30 {
				t.Run(fmt.Sprintf("%s/%s/%d", m, name, at), func(t *testing.T) {
					peer, server := clientConfig(), serverConfig()
					peer.Auth, server.Auth = []AuthMethod{m}, []AuthMethod{m}
					l := newLinkPair(t, peer, server)
					l.fault = func(n int) (int, time.Duration) { return f(n, at) }
					l.connect()
					exchangePackets(t, l)
				})
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestDoubledFramesDoNotFlap: with every frame doubled the network comes up just as on a clean line.
func TestDoubledFramesDoNotFlap(t *testing.T) {
	l := newLinkPair(t, clientConfig(), serverConfig())
	l.fault = func(int) (int, time.Duration) { return 2, 0 }
	l.connect()
	l.run(20*time.Second, func() bool { return false })
	for _, e := range []*linkEnd{l.peer, l.server} {
		if len(e.ups) != 2 { // IPv4 and IPv6
			t.Errorf("Up was called %d times, want 2: %+v", len(e.ups), e.ups)
		}
	}
}

// TestBadLine: 20 % loss, 20 % doubled, 30 % late, many times over.
func TestBadLine(t *testing.T) {
	for seed := range byte(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dice := newSeeded(seed)
			l := newLinkPair(t, clientConfig(), serverConfig())
			l.fault = func(int) (int, time.Duration) {
				roll := dice.Uint64()
				copies, delay := 1, time.Duration(0)
				switch roll % 10 {
				case 0, 1:
					copies = 0
				case 2, 3:
					copies = 2
				case 4, 5, 6:
					delay = time.Duration(roll>>32%2000) * time.Millisecond
				}
				return copies, delay
			}
			l.start()
			l.run(10*time.Minute, func() bool { return l.bothUp() && len(l.inFlight) == 0 })
			if !l.bothUp() {
				t.Fatalf("not connected: %v, %v", l.peer.downs, l.server.downs)
			}
		})
	}
}

// TestRenegotiationInEachPhase: a Configure-Request for LCP at any time takes everything down and up again
// (RFC 1661 section 3.4 and the row RCR+ of section 4.1).
func TestRenegotiationInEachPhase(t *testing.T) {
	phases := map[string]func(l *linkPair) bool{
		"establish":    func(l *linkPair) bool { return l.server.session.lcp.state == stateAckSent },
		"authenticate": func(l *linkPair) bool { return l.server.session.phase == phaseAuthenticate },
		"network":      func(l *linkPair) bool { return l.server.session.phase == phaseNetwork },
		"up":           func(l *linkPair) bool { return l.bothUp() },
	}
	for name, reached := range phases {
		t.Run(name, func(t *testing.T) {
			l := newLinkPair(t, clientConfig(), serverConfig())
			l.start()
			l.run(time.Minute, func() bool { return reached(l) })
			if !reached(l) {
				t.Fatal("phase not reached")
			}
			// The server's LCP starts over, as pppd does on SIGHUP of its lower layer.
			lcp := &l.server.session.lcp
			lcp.lowerDown(l.now)
			if lcp.state != stateStarting {
				t.Fatalf("LCP is %s", lcp.state)
			}
			lcp.lowerUp(l.now)
			l.server.next = l.now
			l.server.ups, l.peer.ups = nil, nil
			l.run(time.Minute, func() bool { return l.bothUp() && len(l.inFlight) == 0 })
			if len(l.peer.ups) == 0 || len(l.server.ups) == 0 {
				t.Fatalf("not up again: %v %v", l.peer.downs, l.server.downs)
			}
			exchangePackets(t, l)
		})
	}
}

func TestCloseEndsBothEnds(t *testing.T) {
	ends := map[string]func(l *linkPair) (*linkEnd, *linkEnd){
		"by the peer":   func(l *linkPair) (*linkEnd, *linkEnd) { return l.peer, l.server },
		"by the server": func(l *linkPair) (*linkEnd, *linkEnd) { return l.server, l.peer },
	}
	for name, pick := range ends {
		t.Run(name, func(t *testing.T) {
			l := newLinkPair(t, clientConfig(), serverConfig())
			l.connect()
			closer, other := pick(l)
			began := l.now
			closer.next = closer.session.Close(l.now)
			l.run(time.Minute, l.bothDown)
			if err := closer.err(t); err != ErrClosed {
				t.Errorf("closer: %v, want ErrClosed", err)
			}
			var closed *PeerClosedError
			if err := other.err(t); !errors.As(err, &closed) || closed.Stage() != "lcp" {
				t.Errorf("other: %v, want PeerClosedError of stage lcp", err)
			}
			if took := l.now.Sub(began); took > time.Second {
				t.Errorf("took %v although the peer answers", took)
			}
			if err := closer.session.WritePackets([][]byte{roomy(closer.session, ipv4Packet(20))}, closer.session.Headroom()); err != ErrClosed {
				t.Errorf("WritePackets after Down: %v", err)
			}
		})
	}
}

func TestServerWithoutIPv6KeepsIPv4(t *testing.T) {
	peer, server := clientConfig(), serverConfig()
	server.NoIPv6 = true
	l := newLinkPair(t, peer, server)
	l.start()
	l.run(5*time.Minute, func() bool { return false })
	if p := l.peer.params(t); p.IPv6 || !p.Local.IsValid() {
		t.Errorf("Params: %+v, want IPv4 alone", p)
	}
	if l.peer.session.ipv6cp.state != stateStopped {
		t.Errorf("IPV6CP is %s after its Protocol-Reject, want Stopped", l.peer.session.ipv6cp.state)
	}
	if len(l.peer.downs) > 0 {
		t.Errorf("down: %v", l.peer.downs)
	}
}

func TestServerWithoutIPv4KeepsIPv6(t *testing.T) {
	server := serverConfig()
	server.Assign = nil
	l := newLinkPair(t, clientConfig(), server)
	l.start()
	l.run(5*time.Minute, func() bool { return false })
	if p := l.peer.params(t); !p.IPv6 || p.Local.IsValid() {
		t.Errorf("Params: %+v, want IPv6 alone", p)
	}
	if len(l.peer.downs) > 0 {
		t.Errorf("down: %v", l.peer.downs)
	}
}

func TestNoNetworkProtocolEndsTheLink(t *testing.T) {
	peer, server := clientConfig(), serverConfig()
	peer.NoIPv6, server.Assign = true, nil
	l := newLinkPair(t, peer, server)
	l.start()
	l.run(time.Minute, l.bothDown)
	if err := l.peer.err(t); stageOf(err) != "ipcp" || !strings.Contains(err.Error(), "does not speak it") {
		t.Errorf("peer: %v", err)
	}
}

// TestSmallMRU: a peer's MRU bounds what is sent, and one below 1280 makes IPv6 impossible (RFC 8200 section 5).
func TestSmallMRU(t *testing.T) {
	for _, mru := range []int{576, 1279, 1280} {
		t.Run(fmt.Sprint(mru), func(t *testing.T) {
			server := serverConfig()
			server.MRU = mru
			l := newLinkPair(t, clientConfig(), server)
			l.connect()
			p := l.peer.params(t)
			if p.MTU != mru || p.IPv6 != (mru >= 1280) {
				t.Errorf("MTU %d, IPv6 %v", p.MTU, p.IPv6)
			}
			l.peer.write(t, ipv4Packet(mru+1))
			if n := l.peer.session.Stats().TooLong; n != 1 {
				t.Errorf("a packet above the MTU: TooLong is %d", n)
			}
			l.server.write(t, ipv4Packet(mru))
			l.run(time.Second, func() bool { return len(l.peer.packets) == 1 })
			if len(l.peer.packets) != 1 {
				t.Error("a packet of the MTU did not arrive")
			}
		})
	}
}

func TestMTUIsTheLeastOfAll(t *testing.T) {
	tests := []struct{ link, own, peer, want int }{
		{1404, 0, 0, 1400},
		{1404, 1300, 0, 1300},
		{1404, 1300, 1200, 1200},
		{1404, 1500, 0, 1400},
		{9000, 0, 0, 1500},
		{9000, 4000, 4000, 4000},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			peer, server := clientConfig(), serverConfig()
			peer.MRU, server.MRU = test.own, test.peer
			l := newLinkPair(t, peer, server)
			l.peer.mtu, l.server.mtu = test.link, 9000
			l.connect()
			if got := l.peer.params(t).MTU; got != test.want {
				t.Errorf("MTU %d, want %d", got, test.want)
			}
		})
	}
}

func TestNBNSOnlyWhenWanted(t *testing.T) {
	for _, want := range []bool{false, true} {
		peer := clientConfig()
		peer.WantNBNS = want
		l := newLinkPair(t, peer, serverConfig())
		l.connect()
		if got := l.peer.params(t).NBNS; want != slices.Equal(got, testAssignment().NBNS) {
			t.Errorf("WantNBNS %v: %v", want, got)
		}
	}
}

// TestStaticAddress: the server has the last word on a wish.
func TestStaticAddress(t *testing.T) {
	for _, wish := range []string{"10.9.0.2", "192.0.2.7"} {
		peer := clientConfig()
		peer.Address = netip.MustParseAddr(wish)
		l := newLinkPair(t, peer, serverConfig())
		l.connect()
		if got := l.peer.params(t).Local; got != testAssignment().Peer {
			t.Errorf("wish %s: got %s", wish, got)
		}
	}
}

func TestAssignErrorEndsTheLink(t *testing.T) {
	full := errors.New("pool is used up")
	server := serverConfig()
	server.Assign = func(user string) (Assignment, error) { return Assignment{}, full }
	l := newLinkPair(t, clientConfig(), server)
	l.start()
	l.run(time.Minute, l.bothDown)
	if err := l.server.err(t); !errors.Is(err, full) || stageOf(err) != "ipcp" {
		t.Errorf("server: %v", err)
	}
	l.peer.err(t)
}

// TestEchoTimeout: after the silence of EchoInterval and EchoFailures unanswered requests the link is dead.
func TestEchoTimeout(t *testing.T) {
	l := newLinkPair(t, clientConfig(), serverConfig())
	l.connect()
	l.run(5*time.Minute, func() bool { return false })
	if len(l.peer.downs)+len(l.server.downs) > 0 {
		t.Fatalf("a quiet link died: %v %v", l.peer.downs, l.server.downs)
	}
	l.fault = func(int) (int, time.Duration) { return 0, 0 }
	cut := l.now
	l.run(10*time.Minute, l.bothDown)
	var dead *EchoTimeoutError
	if err := l.peer.err(t); !errors.As(err, &dead) || dead.Failures != 4 {
		t.Errorf("peer: %v", err)
	}
	if took := l.now.Sub(cut); took < 120*time.Second || took > 181*time.Second {
		t.Errorf("dead after %v", took)
	}
}

// TestTrafficNeedsNoEcho: any inbound frame counts as life.
func TestTrafficNeedsNoEcho(t *testing.T) {
	l := newLinkPair(t, clientConfig(), serverConfig())
	l.connect()
	echoes := 0
	l.observe = func(_ *linkEnd, frame []byte) {
		if bytes.HasPrefix(frame, []byte{0xff, 3, 0xc0, 0x21, codeEchoRequest}) {
			echoes++
		}
	}
	for range 60 {
		l.peer.write(t, ipv4Packet(40))
		l.server.write(t, ipv4Packet(40))
		l.run(10*time.Second, func() bool { return false })
	}
	if echoes != 0 {
		t.Errorf("%d Echo-Requests on a busy link", echoes)
	}
}

func TestEchoOff(t *testing.T) {
	peer, server := clientConfig(), serverConfig()
	peer.EchoInterval, server.EchoInterval = -1, -1
	l := newLinkPair(t, peer, server)
	l.connect()
	l.run(time.Hour, func() bool { return false })
	if next := l.nextEvent(); !next.IsZero() {
		t.Errorf("an idle link without echo has a deadline: %v", next)
	}
}

// TestFirstPreferenceWins: LCP settles on what both allow, in the peer's order.
func TestMethodsThatDifferSettleOnACommonOne(t *testing.T) {
	tests := []struct {
		peer, server []AuthMethod
		want         AuthMethod
	}{
		{[]AuthMethod{AuthEAPMSCHAPv2, AuthMSCHAPv2}, []AuthMethod{AuthPAP, AuthCHAPMD5, AuthMSCHAPv2}, AuthMSCHAPv2},
		{[]AuthMethod{AuthPAP}, []AuthMethod{AuthEAPMSCHAPv2, AuthMSCHAPv2, AuthPAP}, AuthPAP},
		{[]AuthMethod{AuthCHAPMD5, AuthNone}, []AuthMethod{AuthEAPMD5, AuthNone}, AuthNone},
		{[]AuthMethod{AuthEAPMD5}, []AuthMethod{AuthEAPMSCHAPv2, AuthEAPMD5}, AuthEAPMD5},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.peer, test.server), func(t *testing.T) {
			peer, server := clientConfig(), serverConfig()
			peer.Auth, server.Auth = test.peer, test.server
			l := newLinkPair(t, peer, server)
			l.connect()
			if got := l.peer.params(t).Auth; got != test.want {
				t.Errorf("settled on %s, want %s", got, test.want)
			}
		})
	}
}

// TestServerInsistsOnAForbiddenMethod: the error names what to add to the allow list.
func TestServerInsistsOnAForbiddenMethod(t *testing.T) {
	peer, server := clientConfig(), serverConfig()
	server.Auth = []AuthMethod{AuthPAP}
	l := newLinkPair(t, peer, server)
	l.start()
	l.run(2*time.Minute, l.bothDown)
	err := l.peer.err(t)
	if stageOf(err) != "auth" || !strings.Contains(adviceOf(err), `"pap"`) {
		t.Errorf("peer: %v; advice %q", err, adviceOf(err))
	}
	if err := l.server.err(t); err == nil {
		t.Error("server: no error")
	}
	if took := l.now.Sub(epoch); took > 45*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestServerThatAsksForNoLogin(t *testing.T) {
	peer, server := clientConfig(), serverConfig()
	server.Auth = []AuthMethod{AuthNone}
	l := newLinkPair(t, peer, server)
	l.start()
	l.run(time.Minute, l.bothDown)
	if err := l.peer.err(t); stageOf(err) != "auth" || !strings.Contains(adviceOf(err), `"none"`) {
		t.Errorf("peer: %v; advice %q", err, adviceOf(err))
	}
}
