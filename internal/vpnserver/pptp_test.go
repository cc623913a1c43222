package vpnserver_test

import (
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/gateway"
	"gateway/internal/gre"
	"gateway/internal/vpnclient"
	"gateway/internal/vpnserver"
	"gateway/ppp"
	"gateway/ppp/mppe"
	"gateway/stack"
	"gateway/tunnel/pptp"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// startPPTP starts a server that serves PPTP over a network in this process.
func startPPTP(t *testing.T, n *gre.Network, c vpnserver.Config) *vpnserver.Server {
	t.Helper()
	if c.GRE == nil {
		c.GRE = n.Open(loopback)
	}
	c.PPTP.Log = log(t).With("side", "server")
	return startServer(t, c)
}

func pptpConfig(t *testing.T, n *gre.Network, s *vpnserver.Server, user string) vpnclient.Config {
	c := clientConfig(t, s, user)
	c.Protocol, c.Port = vpnclient.PPTP, s.PPTPAddr().Port()
	c.PPTP.Log = c.Log
	c.OpenGRE = openLink(n)
	return c
}

func openLink(n *gre.Network) func(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
	return func(context.Context, netip.Addr) (vpnclient.GRESocket, error) { return n.Open(loopback), nil }
}

func TestPPTPEveryLoginMethod(t *testing.T) {
	for _, method := range []ppp.AuthMethod{ppp.AuthNone, ppp.AuthPAP, ppp.AuthCHAPMD5, ppp.AuthMSCHAP, ppp.AuthMSCHAPv2,
		ppp.AuthEAPMD5, ppp.AuthEAPMSCHAPv2} {
		t.Run(method.String(), func(t *testing.T) {
			n := gre.NewNetwork()
			s := startPPTP(t, n, vpnserver.Config{PPP: ppp.Config{Auth: []ppp.AuthMethod{method}}})
			c := pptpConfig(t, n, s, "alice")
			c.PPP.Auth = []ppp.AuthMethod{method}
			conn := dial(t, c)
			if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
				t.Errorf("page: %q", got)
			}
			if got := get(t, conn.Stack(), "http://[fd88::1]/"); got != vpnserver.IndexPage {
				t.Errorf("page by IPv6: %q", got)
			}
		})
	}
}

// RFC 2637 section 1.4: several calls over one control connection.
func TestPPTPTwoCallsOverOneConnection(t *testing.T) {
	n := gre.NewNetwork()
	c := pptpConfig(t, n, startPPTP(t, n, vpnserver.Config{}), "alice")
	conn := dial(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	second, err := conn.Open(ctx, c.PPP, stack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []*vpnclient.Network{conn.Network, second} {
		if got := strings.TrimSpace(get(t, network.Stack(), "http://10.88.0.1/ip")); got != network.Params().Local.String() {
			t.Errorf("the server sees %q, not %v", got, network.Params().Local)
		}
	}
	if err := second.Close(ctx); err != nil {
		t.Error(err)
	}
	get(t, conn.Stack(), "http://10.88.0.1/")
}

// Several clients at one address, as behind a NAT, and with both protocols.
func TestClientsOfBothProtocols(t *testing.T) {
	n := gre.NewNetwork()
	s := startPPTP(t, n, vpnserver.Config{})
	networks := map[netip.Addr]bool{}
	for _, c := range []vpnclient.Config{clientConfig(t, s, "alice"), pptpConfig(t, n, s, "alice"), pptpConfig(t, n, s, `CORP\bob`)} {
		conn := dial(t, c)
		networks[conn.Params().Local] = true
		get(t, conn.Stack(), "http://10.88.0.1/")
	}
	if len(networks) != 3 {
		t.Errorf("addresses: %v", networks)
	}
}

// Every key length and mode of MPPE (RFC 3078), with MPPC below it (RFC 2118),
// with the keys of each login that gives some (RFC 3079), over both protocols.
func TestEncryption(t *testing.T) {
	client := func(bits int, stateful bool, mppc mppe.Will) mppe.Policy {
		return mppe.Policy{Encryption: mppe.Require, MinKeyBits: bits, Stateful: stateful, Compression: mppc}
	}
	server := func(bits int, stateful bool) mppe.Policy {
		return mppe.Policy{Encryption: mppe.Allow, MinKeyBits: bits, Stateful: stateful, Compression: mppe.Allow}
	}
	held := func(bits int, stateful bool) mppe.Policy { // to one key length
		return mppe.Policy{Encryption: mppe.Require, MinKeyBits: bits, MaxKeyBits: bits, Stateful: stateful}
	}
	all := []ppp.AuthMethod{ppp.AuthMSCHAP, ppp.AuthMSCHAPv2, ppp.AuthEAPMSCHAPv2}
	for _, test := range []struct {
		name           string
		client, server mppe.Policy
		logins         []ppp.AuthMethod
		encryption     string
		compression    string
	}{
		{"128 stateless", client(128, false, mppe.Deny), server(128, false), all, "MPPE-128 stateless", ""},
		{"128 stateful", client(128, true, mppe.Deny), server(128, true), all, "MPPE-128 stateful", ""},
		{"56 stateless", client(56, false, mppe.Deny), held(56, false), all, "MPPE-56 stateless", ""},
		{"56 stateful", client(56, true, mppe.Deny), held(56, true), all, "MPPE-56 stateful", ""},
		{"40 stateless", client(40, false, mppe.Deny), held(40, false), all, "MPPE-40 stateless", ""},
		{"40 stateful", client(40, true, mppe.Deny), held(40, true), all, "MPPE-40 stateful", ""},
		{"client held to 56", held(56, false), server(40, false), all[1:2], "MPPE-56 stateless", ""},
		{"56 with MPPC", client(56, false, mppe.Prefer), mppe.Policy{Encryption: mppe.Allow, MinKeyBits: 56, MaxKeyBits: 56, Compression: mppe.Allow},
			all[1:2], "MPPE-56 stateless", "MPPC"},
		{"longest of several keys", client(40, false, mppe.Deny), server(40, false), all[1:2], "MPPE-128 stateless", ""},
		{"with MPPC", client(128, false, mppe.Prefer), server(128, false), all[1:2], "MPPE-128 stateless", "MPPC"},
		{"stateful, with MPPC", client(128, true, mppe.Prefer), server(128, true), all[1:2], "MPPE-128 stateful", "MPPC"},
		{"MPPC alone", mppe.Policy{Compression: mppe.Prefer}, server(128, false), all[1:2], "", "MPPC"},
		{"MPPC alone, after a login without keys", mppe.Policy{Compression: mppe.Prefer}, server(128, false), []ppp.AuthMethod{ppp.AuthPAP}, "", "MPPC"},
		{"nothing", mppe.Policy{}, server(128, false), all[1:2], "", ""},
	} {
		for _, method := range test.logins {
			t.Run(test.name+"/"+method.String(), func(t *testing.T) {
				n := gre.NewNetwork()
				s := startPPTP(t, n, vpnserver.Config{PPP: ppp.Config{Auth: []ppp.AuthMethod{method}, CCP: test.server}})
				for _, c := range []vpnclient.Config{pptpConfig(t, n, s, "alice"), clientConfig(t, s, "alice")} {
					c.PPP.Auth, c.PPP.CCP = []ppp.AuthMethod{method}, test.client
					conn := dial(t, c)
					checkTransfer(t, conn.Stack(), 1<<20)
					if p := conn.Params(); p.Encryption != test.encryption || p.Compression != test.compression {
						t.Errorf("%q and %q, want %q and %q", p.Encryption, p.Compression, test.encryption, test.compression)
					}
				}
			})
		}
	}
}

// Ends whose key lengths have none in common say which ones, and the link ends
// with nothing sent in clear.
func TestKeyLengthsThatDoNotMeet(t *testing.T) {
	policy := func(encryption mppe.Will, shortest, longest int) mppe.Policy {
		return mppe.Policy{Encryption: encryption, MinKeyBits: shortest, MaxKeyBits: longest}
	}
	for _, test := range []struct {
		name           string
		client, server mppe.Policy
		causes         []string
	}{
		{"server that requires 56", policy(mppe.Require, 128, 0), policy(mppe.Require, 56, 56), []string{"mppe-56", "mppe-128"}},
		{"server that allows 56", policy(mppe.Require, 128, 0), policy(mppe.Allow, 56, 56), []string{"mppe-56", "mppe-128"}},
		{"server that requires 40", policy(mppe.Require, 56, 0), policy(mppe.Require, 40, 40), []string{"mppe-40", "mppe-128", "mppe-56"}},
		{"client held to 56", policy(mppe.Require, 56, 56), policy(mppe.Require, 128, 0), []string{"mppe-56", "mppe-128"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := gre.NewNetwork()
			s := startPPTP(t, n, vpnserver.Config{PPP: ppp.Config{CCP: test.server}})
			c := pptpConfig(t, n, s, "alice")
			c.PPP.CCP = test.client
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			conn, err := vpnclient.Dial(ctx, c)
			if err == nil {
				conn.Close(ctx)
				t.Fatal("it came up")
			}
			var staged interface {
				Stage() string
				Advice() string
			}
			if vpnclient.Judge(err) != vpnclient.Disagreed || !errors.As(err, &staged) || staged.Stage() != "ccp" || !strings.Contains(staged.Advice(), "shorter key") {
				t.Errorf("verdict %d of %v", vpnclient.Judge(err), err)
			}
			for _, cause := range test.causes {
				if !strings.Contains(err.Error(), cause) {
					t.Errorf("%q is not in: %v", cause, err)
				}
			}
		})
	}
}

// A badLink sends over a bad path.
type badLink struct {
	*gre.Link
	path *badPath
}

func (l badLink) WritePackets(packets [][]byte, offset int, to netip.Addr) error {
	return l.path.pass(packets, offset, func(packets [][]byte, offset int, to netip.AddrPort) error {
		return l.Link.WritePackets(packets, offset, to.Addr())
	}, netip.AddrPortFrom(to, 0))
}

func almostGoodPath(seed int64) *badPath {
	return &badPath{lost: 1, twice: 1, rand: rand.New(rand.NewSource(seed))}
}

// Everything arrives intact over a path that loses, duplicates and reorders GRE
// packets, in all modes of encryption.
func TestPPTPTransferOverBadPath(t *testing.T) {
	t.Parallel() // it mostly waits
	const size = 16 << 20
	impatient := stack.Config{MinRTO: 5 * time.Millisecond, DisableGSO: true, RACK: true} // as in TestTransferOverBadCarrier
	impatiently := pptp.Config{ReorderDelay: 200 * time.Microsecond}                      // for the same reason
	for _, test := range []struct {
		name string
		ccp  mppe.Policy
		path func(seed int64) *badPath
		size int64
	}{
		{"MPPE-128 stateless", mppe.Policy{Encryption: mppe.Require}, newBadPath, size},
		// One lost packet makes all in flight unreadable here, until a Reset-Request is answered.
		{"MPPE-128 stateful", mppe.Policy{Encryption: mppe.Require, Stateful: true}, almostGoodPath, size / 32},
		{"MPPE-128 stateful and MPPC", mppe.Policy{Encryption: mppe.Require, Stateful: true, Compression: mppe.Prefer}, almostGoodPath, size / 32},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := gre.NewNetwork()
			s := startPPTP(t, n, vpnserver.Config{GRE: badLink{n.Open(loopback), test.path(1)}, Stack: impatient,
				PPTP: impatiently, PPP: ppp.Config{CCP: test.ccp}})
			c := pptpConfig(t, n, s, "alice")
			c.Stack, c.PPP.NoIPv6, c.PPP.CCP = impatient, true, test.ccp
			c.PPTP = impatiently
			c.OpenGRE = func(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
				return badLink{n.Open(loopback), test.path(2)}, nil
			}
			conn := dial(t, c)
			checkTransfer(t, conn.Stack(), test.size)
			if conn.Params().Encryption == "" {
				t.Error("without encryption")
			}
		})
	}
}

// The server is cut off in mid-download and comes back.
func TestPPTPReconnect(t *testing.T) {
	n := gre.NewNetwork()
	encrypted := ppp.Config{CCP: mppe.Policy{Encryption: mppe.Allow}}
	first := startPPTP(t, n, vpnserver.Config{PPP: encrypted})
	g := runGateway(t, first.PPTPAddr(), gateway.Options{OpenGRE: openLink(n)}, []string{"GATEWAY_TUNNEL_PROTOCOL=pptp",
		"GATEWAY_TUNNEL_PPTP_PORT=" + strconv.Itoa(int(first.PPTPAddr().Port())),
		"GATEWAY_TUNNEL_RECONNECT_INITIAL=100ms", "GATEWAY_TUNNEL_RECONNECT_MAX=200ms"})
	checkReconnect(t, g, first, func() { startPPTP(t, n, vpnserver.Config{ListenPPTP: first.PPTPAddr(), PPP: encrypted}) })
}

// The server says goodbye to its clients, who say that it did.
func TestPPTPServerCloses(t *testing.T) {
	n := gre.NewNetwork()
	s := startPPTP(t, n, vpnserver.Config{})
	conn := dial(t, pptpConfig(t, n, s, "alice"))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := conn.Err(); vpnclient.Judge(err) != vpnclient.PeerClosed {
		t.Errorf("got %v", err)
	}
}

// Each failure has its kind and its stage.
func TestPPTPFailures(t *testing.T) {
	n := gre.NewNetwork()
	s := startPPTP(t, n, vpnserver.Config{PPP: ppp.Config{Auth: []ppp.AuthMethod{ppp.AuthMSCHAPv2, ppp.AuthPAP}}})
	for _, test := range []struct {
		name    string
		change  func(t *testing.T, c *vpnclient.Config)
		verdict vpnclient.Verdict
		stage   string
		cause   string
	}{
		{"wrong password", func(_ *testing.T, c *vpnclient.Config) { c.PPP.Password = "wrong" }, vpnclient.Refused, "auth", "E=691"},
		{"GRE is blocked", func(_ *testing.T, c *vpnclient.Config) {
			c.PPTP.GRETimeout = 50 * time.Millisecond
			elsewhere := gre.NewNetwork()
			c.OpenGRE = openLink(elsewhere)
		}, vpnclient.Unreachable, "gre", "GRE (IP protocol 47) is blocked between here and the server"},
		{"no privilege, found out before anything is sent", func(_ *testing.T, c *vpnclient.Config) {
			c.Port = 9 // nobody listens
			c.OpenGRE = func(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
				return nil, &gre.PrivilegeError{Err: syscall.EPERM}
			}
		}, vpnclient.NotPermitted, "gre", "not allowed to open a raw socket"},
		{"nobody listens", func(t *testing.T, c *vpnclient.Config) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c.Port = l.Addr().(*net.TCPAddr).AddrPort().Port()
			l.Close()
		}, vpnclient.Unreachable, "pptp-control", "refused"},
		{"something else than PPTP listens", func(t *testing.T, c *vpnclient.Config) {
			c.Port = listen(t, func(tcp net.Conn) { io.WriteString(tcp, "SSH-2.0-OpenSSH_9.2 and so on\r\n"); io.Copy(io.Discard, tcp) })
		}, vpnclient.Disagreed, "pptp-control", "does not speak PPTP"},
		{"server cuts the connection", func(t *testing.T, c *vpnclient.Config) {
			c.Port = listen(t, func(tcp net.Conn) { io.ReadFull(tcp, make([]byte, 156)) })
		}, vpnclient.Unreachable, "pptp-control", "closed the control connection"},
		{"server does not answer", func(t *testing.T, c *vpnclient.Config) {
			c.PPTP.SetupTimeout = 50 * time.Millisecond
			c.Port = listen(t, func(tcp net.Conn) { io.Copy(io.Discard, tcp) })
		}, vpnclient.Unreachable, "pptp-control", "did not finish the start"},
		{"server without encryption", func(_ *testing.T, c *vpnclient.Config) { c.PPP.CCP.Encryption = mppe.Require },
			vpnclient.Disagreed, "ccp", "encrypt"},
		{"login that gives no keys", func(_ *testing.T, c *vpnclient.Config) {
			c.PPP.CCP.Encryption, c.PPP.Auth = mppe.Require, []ppp.AuthMethod{ppp.AuthPAP}
		}, vpnclient.Disagreed, "ccp", "keys"},
		{"IPv6", func(_ *testing.T, c *vpnclient.Config) { c.Server, c.OpenGRE = "::1", nil }, vpnclient.Unreachable, "gre", "IPv4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := pptpConfig(t, n, s, "alice")
			test.change(t, &c)
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			conn, err := vpnclient.Dial(ctx, c)
			if err == nil {
				conn.Close(ctx)
				t.Fatal("it came up")
			}
			if got := vpnclient.Judge(err); got != test.verdict {
				t.Errorf("verdict %d, want %d", got, test.verdict)
			}
			var staged interface{ Stage() string }
			if !errors.As(err, &staged) || staged.Stage() != test.stage || !strings.Contains(err.Error(), test.cause) {
				t.Errorf("want stage %q and %q, got %v", test.stage, test.cause, err)
			}
		})
	}
}

// listen serves each TCP connection by serve, and returns the port.
func listen(t *testing.T, serve func(net.Conn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			tcp, err := l.Accept()
			if err != nil {
				return
			}
			serve(tcp)
			tcp.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// A client that is told to stop while it dials leaves nothing behind.
func TestPPTPDialIsCancelled(t *testing.T) {
	n := gre.NewNetwork()
	s := startPPTP(t, n, vpnserver.Config{})
	c := pptpConfig(t, n, s, "alice")
	reached := make(chan struct{})
	c.Port = listen(t, func(tcp net.Conn) { close(reached); io.Copy(io.Discard, tcp) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	if _, err := vpnclient.Dial(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
