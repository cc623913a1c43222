package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// udpEcho answers each datagram with "from PORT: " before it, where PORT is of
// the echo itself, and returns its address.
func udpEcho(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		if strings.HasPrefix(address, "[") {
			t.Skipf("no IPv6 here: %v", err)
		}
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// A udpClient is the test's own client of UDP ASSOCIATE.
type udpClient struct {
	t       *testing.T
	control *net.TCPConn
	socket  *net.UDPConn
	relay   netip.AddrPort
}

// associate opens an association and declares declared ("" for none).
func associate(t *testing.T, proxyAddress, declared string) *udpClient {
	t.Helper()
	c := &udpClient{t: t, control: connect(t, proxyAddress)}
	host, _, _ := net.SplitHostPort(proxyAddress)
	var err error
	if c.socket, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.socket.Close() })
	c.socket.SetDeadline(time.Now().Add(patience))
	expects := netip.AddrPort{}
	switch declared {
	case "own":
		expects = addrPort(c.socket.LocalAddr())
	case "":
	default:
		expects = netip.MustParseAddrPort(declared)
	}
	write(t, c.control, "\x05\x01\x00"+"\x05\x03\x00"+string(appendAddress(nil, expects)))
	expect(t, c.control, "\x05\x00\x05\x00\x00")
	c.relay = readAddress(t, c.control)
	return c
}

func readAddress(t *testing.T, r io.Reader) netip.AddrPort {
	t.Helper()
	kind := make([]byte, 1)
	io.ReadFull(r, kind)
	address := make([]byte, map[byte]int{addressIPv4: 4, addressIPv6: 16}[kind[0]]+2)
	if _, err := io.ReadFull(r, address); err != nil {
		t.Fatal(err)
	}
	n := len(address) - 2
	ip, _ := netip.AddrFromSlice(address[:n])
	return netip.AddrPortFrom(ip, uint16(address[n])<<8|uint16(address[n+1]))
}

func (c *udpClient) sendRaw(datagram string) {
	c.t.Helper()
	if _, err := c.socket.WriteToUDPAddrPort([]byte(datagram), c.relay); err != nil {
		c.t.Fatal(err)
	}
}

func (c *udpClient) send(to netip.AddrPort, payload string) {
	c.t.Helper()
	c.sendRaw(string(appendUDPHeader(nil, udpTarget{addr: to.Addr(), port: to.Port()})) + payload)
}

func (c *udpClient) sendToName(name string, port uint16, payload string) {
	c.t.Helper()
	c.sendRaw(string(appendUDPHeader(nil, udpTarget{name: []byte(name), port: port})) + payload)
}

// expect receives one datagram.
func (c *udpClient) expect(from netip.AddrPort, payload string) {
	c.t.Helper()
	buf := make([]byte, 1<<16)
	n, relay, err := c.socket.ReadFromUDPAddrPort(buf)
	if err != nil {
		c.t.Fatal(err)
	}
	source, got, err := parseUDPHeader(buf[:n])
	if err != nil || netip.AddrPortFrom(source.addr, source.port) != from || string(got) != payload {
		c.t.Fatalf("received %q from %v:%d, %v; want %q from %v", got, source.addr, source.port, err, payload, from)
	}
	if netip.AddrPortFrom(relay.Addr().Unmap(), relay.Port()) != c.relay {
		c.t.Fatalf("received from %v, not from the relay %v", relay, c.relay)
	}
}

// resolveTo is a Resolver.
type resolveTo func(host string) ([]netip.Addr, error)

func (f resolveTo) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return f(host)
}

func TestUDPAssociateToIPv4AndIPv6(t *testing.T) { // RFC 1928 section 7
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} { // of the proxy
		t.Run("proxy on "+listen, func(t *testing.T) {
			s, address := serveUDP(t, Config{}, listen)
			for _, declared := range []string{"", "own", "192.0.2.1:5000"} {
				client := associate(t, address, declared)
				if host, _, _ := net.SplitHostPort(address); client.relay.Addr().String() != host {
					t.Errorf("the relay is at %v", client.relay)
				}
				for _, local := range []string{"127.0.0.1:0", "127.0.0.1:0", "[::1]:0"} {
					where := udpEcho(t, local)
					for _, payload := range []string{"ping", "", strings.Repeat("x", 60_000)} {
						client.send(where, payload)
						client.expect(where, payload)
					}
				}
			}
			if got := s.Stats().Associations; got != 3 {
				t.Errorf("%d associations", got)
			}
			cut, cancel := context.WithCancel(t.Context())
			cancel()
			s.Shutdown(cut)
			if got := s.Stats(); got.DatagramsUp != 27 || got.DatagramsDown != 27 || got.DatagramsDropped != 0 || got.Associations != 0 {
				t.Errorf("stats %+v", got)
			}
		})
	}
}

func serveUDP(t *testing.T, c Config, address string) (*Server, string) {
	t.Helper()
	if c.PacketListener == nil {
		c.PacketListener = &net.ListenConfig{}
	}
	return serveOn(t, c, mixedProxy, listen(t, address))
}

func TestUDPToNamesIsResolvedByTheResolver(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	release := make(chan struct{})
	var mu sync.Mutex
	asked := map[string]int{}
	_, address := serveUDP(t, Config{Resolver: resolveTo(func(host string) ([]netip.Addr, error) {
		mu.Lock()
		asked[host]++
		mu.Unlock()
		switch host {
		case "slow.example":
			<-release
		case "none.example":
			return nil, errors.New("no such host")
		}
		return []netip.Addr{where.Addr()}, nil
	})}, "127.0.0.1:0")
	client := associate(t, address, "")
	client.sendToName("none.example", 7, "lost")
	client.sendToName("slow.example", where.Port(), "first")
	client.sendToName("slow.example", where.Port(), "second")
	client.sendToName("echo.example", where.Port(), "meanwhile")
	client.expect(where, "meanwhile") // a slow lookup holds nothing else up
	close(release)
	client.expect(where, "first")
	client.expect(where, "second")
	for range 3 {
		client.sendToName("slow.example", where.Port(), "again")
		client.expect(where, "again")
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["slow.example"] != 1 || asked["echo.example"] != 1 {
		t.Errorf("lookups: %v", asked)
	}
}

func TestUDPDropsWhatItMust(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	s, address := serveUDP(t, Config{}, "127.0.0.1:0")
	client := associate(t, address, "")
	whole := string(appendUDPHeader(nil, udpTarget{addr: where.Addr(), port: where.Port()}))
	client.sendRaw(whole[:2] + "\x01" + whole[3:] + "fragment")
	client.sendRaw("\x00")
	client.sendToName("x.example", 53, "no Resolver")
	client.send(where, "good")
	client.expect(where, "good")

	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.WriteToUDPAddrPort([]byte(whole+"from another port"), client.relay)
	client.send(where, "good")
	client.expect(where, "good")
	if got := s.Stats().DatagramsDropped; got != 4 {
		t.Errorf("%d datagrams dropped", got)
	}
}

func TestUDPIsBoundToTheClientsAddressAndDeclaredPort(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	_, address := serveUDP(t, Config{}, "127.0.0.1:0")
	client := associate(t, address, "own")
	datagram := append(appendUDPHeader(nil, udpTarget{addr: where.Addr(), port: where.Port()}), "stolen"...)
	for _, from := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)} { // before the client
		stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: from})
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		stranger.WriteToUDPAddrPort(datagram, client.relay)
	}
	client.send(where, "mine")
	client.expect(where, "mine")
}

// Address-dependent filtering: RFC 4787 section 5.
func TestUDPOnlyHostsThatWereSentToMayAnswer(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	outlets := make(chan netip.AddrPort, 4)
	s, address := serveUDP(t, Config{PacketListener: listenFunc(func(ctx context.Context, network, _ string) (net.PacketConn, error) {
		conn, err := new(net.ListenConfig).ListenPacket(ctx, network, "")
		if err == nil {
			outlets <- addrPort(conn.LocalAddr())
		}
		return conn, err
	})}, "127.0.0.1:0")
	client := associate(t, address, "")
	client.send(where, "ping")
	client.expect(where, "ping")
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 3)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.WriteToUDPAddrPort([]byte("unasked"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), (<-outlets).Port()))
	client.send(where, "ping")
	client.expect(where, "ping")
	if got := s.Stats().DatagramsDropped; got != 1 {
		t.Errorf("%d datagrams dropped", got)
	}
}

type listenFunc func(ctx context.Context, network, address string) (net.PacketConn, error)

func (f listenFunc) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return f(ctx, network, address)
}

func TestUDPAssociationEndsWithItsTCPConnection(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	closed := make(chan struct{})
	s, address := serveUDP(t, Config{PacketListener: listenFunc(func(ctx context.Context, network, _ string) (net.PacketConn, error) {
		conn, err := new(net.ListenConfig).ListenPacket(ctx, network, "")
		return closeNoting{conn, closed}, err
	})}, "127.0.0.1:0")
	client := associate(t, address, "")
	client.send(where, "ping")
	client.expect(where, "ping") // also through a PacketConn of another kind
	client.control.Close()
	eventually(t, "release of the outlet", closed)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil || s.Stats().Associations != 0 {
		t.Errorf("Shutdown: %v with %d associations", err, s.Stats().Associations)
	}
}

type closeNoting struct {
	net.PacketConn
	closed chan struct{}
}

func (c closeNoting) Close() error {
	close(c.closed)
	return c.PacketConn.Close()
}

func TestIdleUDPOutletIsReleasedAndOpenedAgain(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	closed := make(chan struct{}, 8)
	opened := make(chan struct{}, 8)
	_, address := serveUDP(t, Config{
		UDPIdleTimeout: 20 * time.Millisecond,
		PacketListener: listenFunc(func(ctx context.Context, network, _ string) (net.PacketConn, error) {
			conn, err := new(net.ListenConfig).ListenPacket(ctx, network, "")
			opened <- struct{}{}
			return sendClosed{conn, closed}, err
		}),
	}, "127.0.0.1:0")
	client := associate(t, address, "")
	for range 3 {
		eventually(t, "open", opened)
		eventually(t, "release", closed)
		client.send(where, "ping")
		client.expect(where, "ping") // the association itself goes on
	}
}

type sendClosed struct {
	net.PacketConn
	closed chan struct{}
}

func (c sendClosed) Close() error {
	c.closed <- struct{}{}
	return c.PacketConn.Close()
}

func TestOutletForDNSOnlyIsReleasedSooner(t *testing.T) {
	s := newTestServer(t, Config{})
	o := &outlet{association: &association{server: s}, onlyDNS: true}
	if got := o.idleTimeout(); got != dnsIdleTimeout {
		t.Errorf("only DNS: %v", got)
	}
	o.onlyDNS = false
	if got := o.idleTimeout(); got != time.Minute {
		t.Errorf("default: %v", got)
	}
}

// When the tunnel goes down, its sockets fail for good; the next datagram
// takes one of the new tunnel.
func TestBrokenUDPOutletIsReplaced(t *testing.T) {
	where := udpEcho(t, "127.0.0.1:0")
	conns, released := make(chan net.PacketConn, 8), make(chan struct{}, 8)
	_, address := serveUDP(t, Config{PacketListener: listenFunc(func(ctx context.Context, network, _ string) (net.PacketConn, error) {
		conn, err := new(net.ListenConfig).ListenPacket(ctx, network, "")
		conns <- conn
		return sendClosed{conn, released}, err
	})}, "127.0.0.1:0")
	client := associate(t, address, "")
	for range 3 {
		client.send(where, "ping")
		client.expect(where, "ping")
		(<-conns).Close()
		eventually(t, "release", released)
	}
}

func TestUDPAssociationsAreLimitedAndFailProperly(t *testing.T) {
	request := "\x05\x01\x00" + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"
	_, address := serveUDP(t, Config{MaxUDPAssociations: 1}, "127.0.0.1:0")
	associate(t, address, "")
	conn := connect(t, address)
	write(t, conn, request)
	expect(t, conn, "\x05\x00\x05\x01")

	s, address := serveUDP(t, Config{PacketListener: listenFunc(func(context.Context, string, string) (net.PacketConn, error) {
		return nil, tunnelDown{}
	})}, "127.0.0.1:0")
	conn = connect(t, address)
	write(t, conn, request)
	expect(t, conn, "\x05\x00\x05\x03")
	conn.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.Stats(); got.TargetsFailed != 1 || got.Associations != 0 {
		t.Errorf("stats %+v", got)
	}
}

func TestShutdownDoesNotWaitForABlockedPacketListener(t *testing.T) {
	blocked := make(chan struct{}, 2)
	s, address := serveUDP(t, Config{PacketListener: listenFunc(func(ctx context.Context, network, _ string) (net.PacketConn, error) {
		if network == "udp4" {
			return new(net.ListenConfig).ListenPacket(ctx, network, "")
		}
		blocked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})}, "127.0.0.1:0")
	client := associate(t, address, "")
	client.send(netip.MustParseAddrPort("[fd88::1]:7"), "x")
	eventually(t, "ListenPacket", blocked)
	client.control.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestUDPTablesAreBounded(t *testing.T) {
	s := newTestServer(t, Config{PacketListener: &net.ListenConfig{}, Resolver: resolveTo(func(string) ([]netip.Addr, error) { return nil, errBroken })})
	relay, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	u := newAssociation(t.Context(), s, relay, netip.MustParseAddr("127.0.0.1"), 0)
	defer u.end()

	to := netip.MustParseAddr("127.1.0.0")
	for range maxPeers + 10 {
		to = to.Next()
		u.send(netip.AddrPortFrom(to, 9), nil)
	}
	o := &u.outlets[0]
	o.mu.Lock()
	if _, latest := o.peers[to]; len(o.peers) != maxPeers || !latest {
		t.Errorf("%d peers, the latest among them: %v", len(o.peers), latest)
	}
	o.mu.Unlock()

	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range maxNames {
		u.names[string(rune('a'+i))] = &name{} // all being looked up
	}
	if u.makeRoomForName() {
		t.Error("room for one more lookup")
	}
	u.names["a"].addr = to
	if !u.makeRoomForName() || len(u.names) != maxNames-1 {
		t.Errorf("no room, %d names", len(u.names))
	}
}

// PySocks (Debian's python3-socks) is a client library that people use; no
// Go library with a UDP client is at hand.
func TestUDPAssociateWithPySocks(t *testing.T) {
	python, err := exec.LookPath("/usr/bin/python3")
	if err == nil {
		err = exec.Command(python, "-c", "import socks").Run()
	}
	if err != nil {
		t.Skip("python3-socks is not installed")
	}
	where := udpEcho(t, "127.0.0.1:0")
	_, address := serveUDP(t, Config{
		Users:    []User{{"alice", "alice-secret"}},
		Resolver: resolveTo(func(string) ([]netip.Addr, error) { return []netip.Addr{where.Addr()}, nil }),
	}, "127.0.0.1:0")
	proxyHost, proxyPort, _ := net.SplitHostPort(address)
	script := `
import socks, sys
host, port, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socks.socksocket(type=socks.socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, host, port, rdns=True, username="alice", password="alice-secret")
s.settimeout(20)
for name in "127.0.0.1", "echo.example":
    for size in 1, 1400, 9000:
        s.sendto(b"x" * size, (name, target))
        data, source = s.recvfrom(65536)
        assert data == b"x" * size, (len(data), size)
        assert source == ("127.0.0.1", target), source
print("ok")
`
	_, port, _ := net.SplitHostPort(where.String())
	out, err := exec.Command(python, "-c", script, proxyHost, proxyPort, port).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ok")) {
		t.Errorf("%v: %s", err, out)
	}
}

func BenchmarkUDPAssociate(b *testing.B) {
	echo, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer echo.Close()
	relay, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	client, err := net.DialUDP("udp", nil, relay.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	s := newTestServer(b, Config{PacketListener: &net.ListenConfig{}})
	u := newAssociation(b.Context(), s, relay, netip.MustParseAddr("127.0.0.1"), 0)
	defer u.end()
	u.start(u.fromClient)
	where := addrPort(echo.LocalAddr())
	datagram := append(appendUDPHeader(nil, udpTarget{addr: where.Addr(), port: where.Port()}), make([]byte, 1400)...)
	buf := make([]byte, 1<<16)
	b.ReportAllocs()
	b.SetBytes(2 * 1400)
	for b.Loop() { // there and back
		client.Write(datagram)
		n, from, err := echo.ReadFromUDPAddrPort(buf)
		if err != nil {
			b.Fatal(err)
		}
		echo.WriteToUDPAddrPort(buf[:n], from)
		if _, err := client.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
