package vpnserver_test

import (
	"context"
	"errors"
	"io"
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

// A badLink sends over a bad path.
type badLink struct {
	*gre.Link
	path *badPath
}

func (l badLink) WritePackets(packets [][]byte, offset int, to netip.Addr) error {
	return l.Link.WritePackets(l.path.pass(packets, offset), 0, to)
}

// 16 MiB arrive intact over a path that loses, duplicates and reorders GRE packets.
func TestPPTPTransferOverBadPath(t *testing.T) {
	impatient := stack.Config{MinRTO: 5 * time.Millisecond, DisableGSO: true} // as in TestTransferOverBadCarrier
	n := gre.NewNetwork()
	s := startPPTP(t, n, vpnserver.Config{GRE: badLink{n.Open(loopback), newBadPath(1)}, Stack: impatient,
		PPTP: pptp.Config{ReorderDelay: 2 * time.Millisecond}})
	c := pptpConfig(t, n, s, "alice")
	c.Stack, c.PPP.NoIPv6 = impatient, true
	c.PPTP.ReorderDelay = 2 * time.Millisecond
	c.OpenGRE = func(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
		return badLink{n.Open(loopback), newBadPath(2)}, nil
	}
	checkTransfer(t, dial(t, c).Stack(), 16<<20)
}

// The server is cut off in mid-download and comes back.
func TestPPTPReconnect(t *testing.T) {
	n := gre.NewNetwork()
	first := startPPTP(t, n, vpnserver.Config{})
	g := runGateway(t, first.PPTPAddr(), gateway.Options{OpenGRE: openLink(n)}, []string{"GATEWAY_TUNNEL_PROTOCOL=pptp",
		"GATEWAY_TUNNEL_PPP_MPPE=deny", "GATEWAY_TUNNEL_PPTP_PORT=" + strconv.Itoa(int(first.PPTPAddr().Port())),
		"GATEWAY_TUNNEL_RECONNECT_INITIAL=100ms", "GATEWAY_TUNNEL_RECONNECT_MAX=200ms"})
	checkReconnect(t, g, first, func() { startPPTP(t, n, vpnserver.Config{ListenPPTP: first.PPTPAddr()}) })
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
	s := startPPTP(t, n, vpnserver.Config{})
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
