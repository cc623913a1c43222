package vpnserver_test

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/gre"
	"gateway/internal/udpbatch"
	"gateway/internal/vpnclient"
	"gateway/internal/vpnserver"
	"gateway/ppp"
	"gateway/ppp/mppe"
	"gateway/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var users = map[string]string{"alice": "alice-secret", `CORP\bob`: "geheim"}

// log shows what both sides say when a test fails.
func log(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func startServer(t *testing.T, c vpnserver.Config) *vpnserver.Server {
	t.Helper()
	c.Users = users
	c.Log = log(t).With("side", "server")
	c.L2TP.Log, c.PPP.Log = c.Log, c.Log
	s, err := vpnserver.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func clientConfig(t *testing.T, s *vpnserver.Server, user string) vpnclient.Config {
	l := log(t).With("side", "client")
	c := vpnclient.Config{Server: s.Addr().Addr().String(), Port: s.Addr().Port(), Log: l}
	c.L2TP.Log = l
	c.PPP = ppp.Config{Username: user, Password: users[user], Log: l}
	return c
}

// wait bounds each test; nothing in them takes nearly so long.
const wait = 60 * time.Second

func dial(t *testing.T, c vpnclient.Config) *vpnclient.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	conn, err := vpnclient.Dial(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leave, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := conn.Close(leave); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return conn
}

// get fetches a page of the private network through a stack.
func get(t *testing.T, network *stack.Stack, url string) string {
	t.Helper()
	transport := &http.Transport{DialContext: network.DialContext}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: wait}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestEveryLoginMethod(t *testing.T) {
	for _, method := range []ppp.AuthMethod{ppp.AuthNone, ppp.AuthPAP, ppp.AuthCHAPMD5, ppp.AuthMSCHAP, ppp.AuthMSCHAPv2,
		ppp.AuthEAPMD5, ppp.AuthEAPMSCHAPv2} {
		for user := range users {
			t.Run(method.String()+"/"+user, func(t *testing.T) {
				s := startServer(t, vpnserver.Config{PPP: ppp.Config{Auth: []ppp.AuthMethod{method}}})
				c := clientConfig(t, s, user)
				c.PPP.Auth = []ppp.AuthMethod{method}
				conn := dial(t, c)
				if got := conn.Params().Auth; got != method {
					t.Errorf("logged in by %v", got)
				}
				if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
					t.Errorf("page: %q", got)
				}
			})
		}
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	s := startServer(t, vpnserver.Config{})
	c := clientConfig(t, s, "alice")
	c.PPP.Password = "wrong"
	_, err := vpnclient.Dial(t.Context(), c)
	if vpnclient.Judge(err) != vpnclient.Refused {
		t.Errorf("got %v", err)
	}
}

// RFC 2661 section 5.1.1: both ends prove that they know the secret; section
// 4.3: and hide what they tell each other.
func TestTunnelSecret(t *testing.T) {
	for _, test := range []struct {
		client, server string
		up             bool
	}{{"secret", "secret", true}, {"wrong", "secret", false}, {"", "secret", false}, {"secret", "", false}} {
		t.Run(test.client+"/"+test.server, func(t *testing.T) {
			sc := vpnserver.Config{}
			sc.L2TP.Secret, sc.L2TP.HideAVPs = []byte(test.server), test.server != ""
			c := clientConfig(t, startServer(t, sc), "alice")
			c.L2TP.Secret, c.L2TP.HideAVPs = []byte(test.client), test.client != ""
			if test.up {
				get(t, dial(t, c).Stack(), "http://10.88.0.1/")
				return
			}
			conn, err := vpnclient.Dial(t.Context(), c)
			if err == nil {
				conn.Close(t.Context())
			}
			if vpnclient.Judge(err) != vpnclient.Refused {
				t.Errorf("got %v", err)
			}
		})
	}
}

// RFC 2661 section 3: several sessions in one tunnel, each with its own PPP
// and its own network.
func TestTwoSessionsInOneTunnel(t *testing.T) {
	s := startServer(t, vpnserver.Config{})
	c := clientConfig(t, s, "alice")
	conn := dial(t, c)
	login := c.PPP
	login.Username, login.Password = `CORP\bob`, users[`CORP\bob`]
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	second, err := conn.Open(ctx, login, stack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if conn.Params().Local == second.Params().Local {
		t.Errorf("both sessions have the address %v", second.Params().Local)
	}
	for _, n := range []*vpnclient.Network{conn.Network, second} {
		if got, want := get(t, n.Stack(), "http://v4.intranet.example/ip"), n.Params().Local.String()+"\n"; got != want {
			t.Errorf("the private network sees %q, want %q", got, want)
		}
	}
	// The end of one leaves the other alone.
	if err := conn.Network.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := get(t, second.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
	select {
	case <-conn.Done():
		t.Error("the tunnel ended with its first session")
	default:
	}
}

// RFC 2661 section 5.2.2: the LNS asks for the session (OCRQ).
func TestSessionOpenedByTheServer(t *testing.T) {
	s := startServer(t, vpnserver.Config{CallOut: true})
	c := clientConfig(t, s, "alice")
	c.WaitForCall = true
	if got := get(t, dial(t, c).Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
}

// The outer network may be IPv6, and all may be switched off that makes it fast.
func TestOuterIPv6AndSlowPaths(t *testing.T) {
	listen := netip.MustParseAddrPort("[::1]:0")
	if c, err := net.ListenPacket("udp", listen.String()); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		c.Close()
	}
	slow := udpbatch.Config{DisableBatch: true, DisableGSO: true, DisableGRO: true}
	s := startServer(t, vpnserver.Config{Listen: listen, Socket: slow})
	c := clientConfig(t, s, "alice")
	c.Socket = slow
	c.Stack = stack.Config{DisableGSO: true, DisableGRO: true}
	if got := get(t, dial(t, c).Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
}

func TestIPv6ByRouterAdvertisement(t *testing.T) {
	conn := dial(t, clientConfig(t, startServer(t, vpnserver.Config{}), "alice"))
	if got := get(t, conn.Stack(), "http://[fd88::1]/ip"); !strings.HasPrefix(got, "fd99::a:") { // the first client's /64
		t.Errorf("the private network sees %q", got)
	}
	if got := get(t, conn.Stack(), "http://v6.intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
}

// The server lets clients out to what its operator has listed, and to nothing else.
func TestServerLetsOutToListedAddresses(t *testing.T) {
	addr := ownAddress(t)
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "outside") })}
	go web.Serve(l)
	t.Cleanup(func() { web.Close() })

	s := startServer(t, vpnserver.Config{Out: []netip.Prefix{netip.PrefixFrom(addr, 32)}})
	conn := dial(t, clientConfig(t, s, "alice"))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if c, err := conn.Stack().DialContext(ctx, "tcp", netip.AddrPortFrom(addr.Next(), 80).String()); err == nil {
		c.Close()
		t.Error("reached an address that is not listed")
	}
	if got := get(t, conn.Stack(), "http://"+l.Addr().String()+"/"); got != "outside" {
		t.Errorf("got %q", got)
	}
}

// ownAddress returns an IPv4 address of this machine that is not loopback: the
// stack rightly lets no packet for loopback out.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	t.Skip("this machine has loopback alone")
	panic("not reached")
}

// A badPath loses some percent of what is sent, sends some twice, and lets some
// be overtaken: by what follows in the same call and in the next one, if that
// comes within a millisecond. It must not hold them longer: what arrives ever
// later makes TCP ever more patient.
type badPath struct {
	lost, twice, late int // percent

	mu   sync.Mutex
	rand *rand.Rand
	held [][]byte
}

// newBadPath returns one as bad as TCP can live with: when a tenth is lost, or so
// late that it is as good as lost, TCP does little but wait for its
// retransmission timer.
func newBadPath(seed int64) *badPath {
	return &badPath{lost: 5, twice: 2, late: 3, rand: rand.New(rand.NewSource(seed))}
}

// pass sends copies of what gets through.
func (p *badPath) pass(packets [][]byte, offset int, send func(packets [][]byte, offset int, to netip.AddrPort) error, to netip.AddrPort) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out [][]byte
	overtaken := p.held
	p.held = nil
	for _, d := range packets {
		d = append([]byte(nil), d[offset:]...)
		switch n := p.rand.Intn(100); {
		case n < p.lost:
		case n < p.lost+p.twice:
			out = append(out, d, d)
		case n < p.lost+p.twice+p.late:
			p.held = append(p.held, d)
		default:
			out = append(out, d)
		}
	}
	if len(p.held) > 0 {
		time.AfterFunc(time.Millisecond, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.held) > 0 {
				send(p.held, 0, to)
				p.held = nil
			}
		})
	}
	if out = append(out, overtaken...); len(out) == 0 {
		return nil
	}
	return send(out, 0, to)
}

// A badSocket sends over a bad path.
type badSocket struct {
	vpnserver.Socket
	path *badPath
}

func bad(seed int64) func(vpnserver.Socket) vpnserver.Socket {
	return func(s vpnserver.Socket) vpnserver.Socket { return &badSocket{s, newBadPath(seed)} }
}

func (s *badSocket) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	return s.path.pass(datagrams, offset, s.Socket.WriteDatagrams, to)
}

// 16 MiB arrive intact over a carrier that loses, duplicates and reorders.
func TestTransferOverBadCarrier(t *testing.T) {
	t.Parallel() // it mostly waits
	const size = 16 << 20
	// With a round trip of nothing, waiting for lost retransmissions would
	// otherwise be all that this test does. On such a path, and on no other,
	// RACK without super-segments is the fastest (docs/adr/0003).
	impatient := stack.Config{MinRTO: 5 * time.Millisecond, DisableGSO: true, RACK: true}
	s := startServer(t, vpnserver.Config{WrapSocket: bad(1), Stack: impatient})
	c := clientConfig(t, s, "alice")
	c.Stack = impatient
	c.WrapSocket = func(s vpnclient.Socket) vpnclient.Socket { return bad(2)(s) }
	conn := dial(t, c)

	checkTransfer(t, conn.Stack(), size)
}

// checkTransfer fetches the beginning of /big, and uploads a quarter as much.
func checkTransfer(t *testing.T, network *stack.Stack, size int64) {
	t.Helper()
	transport := &http.Transport{DialContext: network.DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 3 * wait}
	response, err := client.Get("http://10.88.0.1/big")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, want := sha256.New(), sha256.New()
	io.CopyN(want, vpnserver.BigFile(), size)
	if _, err := io.CopyN(got, response.Body, size); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Error("the download differs")
	}

	response, err = client.Post("http://10.88.0.1/upload", "application/octet-stream", io.LimitReader(vpnserver.BigFile(), size/4))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if want := hexSum(size / 4); string(answer) != want {
		t.Errorf("the upload arrived as %q, want %q", answer, want)
	}
}

// Nothing on the way of a packet allocates, in either direction and on either side, from socket to socket: what a transfer
// allocates, of which buffers that the pools do not have yet are the most, does not grow with it.
func TestTransfersAllocateNothingPerPacket(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget on purpose")
	}
	encrypted := mppe.Policy{Encryption: mppe.Require}
	allowed := vpnserver.Config{PPP: ppp.Config{CCP: mppe.Policy{Encryption: mppe.Allow, Compression: mppe.Allow}}}
	for name, config := range map[string]func(t *testing.T) vpnclient.Config{
		"L2TP": func(t *testing.T) vpnclient.Config {
			return clientConfig(t, startServer(t, vpnserver.Config{}), "alice")
		},
		"L2TP/IPsec": func(t *testing.T) vpnclient.Config { return ipsecClient(t, ipsecServer(t)) },
		"PPTP with MPPE": func(t *testing.T) vpnclient.Config {
			n := gre.NewNetwork()
			c := pptpConfig(t, n, startPPTP(t, n, allowed), "alice")
			c.PPP.CCP = encrypted
			return c
		},
		"L2TP with MPPC": func(t *testing.T) vpnclient.Config {
			c := clientConfig(t, startServer(t, allowed), "alice")
			c.PPP.CCP = mppe.Policy{Compression: mppe.Prefer}
			return c
		},
	} {
		t.Run(name, func(t *testing.T) { checkAllocations(t, dial(t, config(t)).Stack()) })
	}
}

// checkAllocations moves data to the far end and back.
func checkAllocations(t *testing.T, network *stack.Stack) {
	t.Helper()
	const size, packet = 8 << 20, 1360
	far, err := network.DialContext(t.Context(), "tcp", "10.88.0.1:7001")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	far.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(far, "E\n"); err != nil { // an echo
		t.Fatal(err)
	}
	out, in := make([]byte, 64<<10), make([]byte, 64<<10)
	// The first run, which is not counted, fills the pools.
	n := testing.AllocsPerRun(1, func() {
		for range size / len(out) {
			if _, err := far.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(far, in); err != nil {
				t.Fatal(err)
			}
		}
	})
	if packets := float64(2 * size / packet); n > packets/100 {
		t.Errorf("%.0f allocations for %.0f packets", n, packets)
	} else {
		t.Logf("%.0f allocations for %.0f packets", n, packets)
	}
}

func hexSum(size int64) string {
	sum := sha256.New()
	io.CopyN(sum, vpnserver.BigFile(), size)
	return strconv.FormatInt(size, 10) + " " + hexString(sum.Sum(nil)) + "\n"
}

func hexString(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

// startGateway runs the whole program on a tunnel to s and returns it when the
// network is up.
func startGateway(t *testing.T, s netip.AddrPort, environ ...string) *gateway.Gateway {
	t.Helper()
	return runGateway(t, s, gateway.Options{}, append([]string{"GATEWAY_TUNNEL_L2TP_PORT=" + strconv.Itoa(int(s.Port()))}, environ...))
}

func runGateway(t *testing.T, s netip.AddrPort, o gateway.Options, environ []string) *gateway.Gateway {
	t.Helper()
	c, err := config.Load(config.Sources{Environ: append([]string{
		"GATEWAY_PROXY_SOCKS5=127.0.0.1:0", "GATEWAY_PROXY_HTTP=127.0.0.1:0", "GATEWAY_TUNNEL_SERVER=" + s.Addr().String(),
		"GATEWAY_TUNNEL_USERNAME=alice", "GATEWAY_TUNNEL_PASSWORD=" + users["alice"]}, environ...)})
	if err != nil {
		t.Fatal(err)
	}
	o.Log = log(t)
	g, err := gateway.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
	})
	select {
	case <-g.Ready():
	case <-time.After(wait):
		t.Fatal("the network did not come up")
	}
	return g
}

// A SOCKS5 client library moves DNS queries and a UDP echo through the VPN
// (RFC 1928 section 7).
func TestUDPAssociate(t *testing.T) {
	const script = `
import socket, struct, sys
import socks

def client(target):
    s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
    s.set_proxy(socks.SOCKS5, "127.0.0.1", int(sys.argv[1]))
    s.settimeout(20)
    s.connect(target)
    return s

def ask(s, data):
    for attempt in range(5):
        s.send(data)
        try:
            return s.recv(65536)
        except socket.timeout:
            pass
    sys.exit("no answer")

for size in 1, 100, 1300:
    data = bytes(i % 251 for i in range(size))
    if ask(client(("10.88.0.1", 7)), data) != data: # it would look a name up here
        sys.exit("the echo differs")
query = struct.pack(">6H", 77, 0x100, 1, 0, 0, 0) + b"\x08intranet\x07example\x00" + struct.pack(">2H", 1, 1)
answer = ask(client(("10.88.0.1", 53)), query)
if answer[:2] != query[:2] or answer[-4:] != bytes([10, 88, 0, 1]):
    sys.exit("DNS says %r" % answer)
print("ok")
`
	const python = "/usr/bin/python3" // Debian's, with Debian's python3-socks
	if err := exec.Command(python, "-c", "import socks").Run(); err != nil {
		t.Skip("needs PySocks (Debian package python3-socks)")
	}
	g := startGateway(t, startServer(t, vpnserver.Config{}).Addr())
	_, port, _ := net.SplitHostPort(g.Addr("socks5").String())
	out, err := exec.Command(python, "-c", script, port).CombinedOutput()
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%s, %v", out, err)
	}
}

// The server is cut off in mid-download and comes back: the download fails,
// the tunnel is dialed again, and the proxies have stayed where they are.
func TestReconnect(t *testing.T) {
	first := startServer(t, vpnserver.Config{})
	g := startGateway(t, first.Addr(), "GATEWAY_TUNNEL_PPP_ECHO_INTERVAL=1s", "GATEWAY_TUNNEL_PPP_ECHO_FAILURES=1",
		"GATEWAY_TUNNEL_RECONNECT_INITIAL=100ms", "GATEWAY_TUNNEL_RECONNECT_MAX=200ms")
	checkReconnect(t, g, first, func() { startServer(t, vpnserver.Config{Listen: first.Addr()}) })
}

func checkReconnect(t *testing.T, g *gateway.Gateway, first *vpnserver.Server, restart func()) {
	t.Helper()
	transport := &http.Transport{DialContext: g.Tunnels()[0].DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	response, err := client.Get("http://10.88.0.1/big")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.CopyN(io.Discard, response.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	first.Kill()
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		t.Error("the download ended as if it were complete")
	}
	restart()
	again, err := client.Get("http://10.88.0.1/") // it waits for the tunnel
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
}
