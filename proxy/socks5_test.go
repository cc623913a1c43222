package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// connectRequest is a CONNECT to an IP address (RFC 1928 section 4).
func connectRequest(address string) string {
	return "\x05\x01\x00" + string(appendAddress(nil, netip.MustParseAddrPort(address)))
}

func connectNameRequest(name string, port byte) string {
	return "\x05\x01\x00\x03" + string([]byte{byte(len(name))}) + name + "\x00" + string([]byte{port})
}

// openTunnel brings conn to the target and back, over either protocol.
func openTunnel(t *testing.T, conn *net.TCPConn, where string, overSOCKS bool) {
	t.Helper()
	if overSOCKS {
		write(t, conn, "\x05\x01\x00"+connectRequest(where))
		expect(t, conn, "\x05\x00\x05\x00\x00")
		rest := make([]byte, 7)
		if _, err := io.ReadFull(conn, rest); err != nil {
			t.Fatal(err)
		}
		return
	}
	write(t, conn, "CONNECT "+where+" HTTP/1.1\r\nHost: "+where+"\r\n\r\n")
	if response := readResponse(t, conn, nil); response.StatusCode != 200 {
		t.Fatal(response.Status)
	}
}

func dialThrough(t *testing.T, proxyAddress string, auth *proxy.Auth, where string) (net.Conn, error) {
	t.Helper()
	dialer, err := proxy.SOCKS5("tcp", proxyAddress, auth, &net.Dialer{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", where)
	if err == nil {
		conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestSOCKS5ConnectsToIPv4AndIPv6(t *testing.T) {
	for _, local := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(local, func(t *testing.T) {
			where := target(t, local, echo)
			_, address := serve(t, Config{}, socks5Proxy)
			conn, err := dialThrough(t, address, nil, where)
			if err != nil {
				t.Fatal(err)
			}
			write(t, conn, "ping")
			expect(t, conn, "ping")
		})
	}
}

func TestSOCKS5PassesNamesToTheDialerUnresolved(t *testing.T) {
	where := target(t, "127.0.0.1:0", echo)
	asked := make(chan string, 1)
	_, address := serve(t, Config{Dialer: dialTo(where, asked)}, socks5Proxy)
	for given, want := range map[string]string{
		"intranet.example:80": "intranet.example:80",
		"server:8080":         "server:8080",
		"10.88.0.1:80":        "10.88.0.1:80",
		"[fd88::1]:443":       "[fd88::1]:443",
	} {
		if _, err := dialThrough(t, address, nil, given); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != want {
			t.Errorf("asked for %s, dialled %s", given, got)
		}
	}
}

func TestSOCKS5Login(t *testing.T) { // RFC 1929
	where := target(t, "127.0.0.1:0", echo)
	var log bytes.Buffer
	s, address := serve(t, Config{
		Users: []User{{"alice", "alice-secret"}, {"bob", "bob-secret"}},
		Log:   slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, socks5Proxy)
	for _, auth := range []*proxy.Auth{{User: "alice", Password: "alice-secret"}, {User: "bob", Password: "bob-secret"}} {
		conn, err := dialThrough(t, address, auth, where)
		if err != nil {
			t.Fatalf("%s: %v", auth.User, err)
		}
		write(t, conn, "ping")
		expect(t, conn, "ping")
	}
	for _, auth := range []*proxy.Auth{nil, {User: "alice", Password: "bob-secret"}, {User: "carol", Password: "alice-secret"}} {
		if _, err := dialThrough(t, address, auth, where); err == nil {
			t.Errorf("%+v may come", auth)
		}
	}
	if got := s.Stats().LoginsRefused; got != 2 {
		t.Errorf("%d logins refused", got)
	}

	conn := connect(t, address)
	write(t, conn, "\x05\x01\x02\x01\x05alice\x05wrong")
	expect(t, conn, "\x05\x02\x01\x01") // RFC 1929 section 2: and the server must close
	expectEOF(t, conn)
	conn = connect(t, address)
	write(t, conn, "\x05\x01\x00")
	expect(t, conn, "\x05\xff") // RFC 1928 section 3
	expectEOF(t, conn)
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	s.Shutdown(cut)
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "wrong\"") {
		t.Errorf("the log shows a password: %s", &log)
	}
}

func TestSOCKS5RefusesWhatItCannotDo(t *testing.T) {
	for _, test := range []struct {
		about, request string
		want           reply
	}{
		{"BIND", "\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", replyCommandNotSupported},
		{"UDP ASSOCIATE without a PacketListener", "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", replyCommandNotSupported},
		{"command 9", "\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50", replyCommandNotSupported},
		{"address type 2", "\x05\x01\x00\x02\x7f\x00\x00\x01\x00\x50", replyAddressNotSupported},
		{"empty name, which would be this machine", connectNameRequest("", 80), replyGeneralFailure},
		{"name with a line break", connectNameRequest("a\r\nb", 80), replyGeneralFailure},
		{"port 0", connectNameRequest("x.example", 0), replyGeneralFailure},
	} {
		t.Run(test.about, func(t *testing.T) {
			_, address := serve(t, Config{}, socks5Proxy)
			conn := connect(t, address)
			write(t, conn, "\x05\x01\x00"+test.request+"and bytes that nobody will read")
			expect(t, conn, "\x05\x00"+"\x05"+string([]byte{byte(test.want)})+"\x00\x01\x00\x00\x00\x00\x00\x00")
			expectEOF(t, conn)
		})
	}
}

func TestSOCKS5BytesSentAheadReachTheTarget(t *testing.T) {
	for _, size := range []int{1, 100, 4096, 100_000} {
		where := target(t, "127.0.0.1:0", echo)
		_, address := serve(t, Config{Users: []User{{"u", "p"}}}, socks5Proxy)
		conn := connect(t, address)
		ahead := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		write(t, conn, "\x05\x01\x02"+"\x01\x01u\x01p"+connectRequest(where)+ahead)
		conn.CloseWrite() // the answer is still wanted
		expect(t, conn, "\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01")
		io.ReadFull(conn, make([]byte, 2))
		expect(t, conn, ahead)
		expectEOF(t, conn)
	}
}

func TestSOCKS5ReplyCarriesTheBoundAddress(t *testing.T) {
	for _, test := range []struct {
		local net.Addr
		want  string
	}{
		{&net.TCPAddr{IP: net.IPv4(10, 99, 1, 10), Port: 0x1234}, "\x01\x0a\x63\x01\x0a\x12\x34"},
		{&net.TCPAddr{IP: net.ParseIP("fd88::2"), Port: 80}, "\x04\xfd\x88" + strings.Repeat("\x00", 13) + "\x02\x00\x50"},
		{&net.UnixAddr{Name: "/x"}, "\x01\x00\x00\x00\x00\x00\x00"}, // go-socks5 itself would panic
		{nil, "\x01\x00\x00\x00\x00\x00\x00"},
	} {
		dialer := dialFunc(func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			theirs.Close()
			return localAddrConn{ours, test.local}, nil
		})
		_, address := serve(t, Config{Dialer: dialer}, socks5Proxy)
		conn := connect(t, address)
		write(t, conn, "\x05\x01\x00"+connectNameRequest("x.example", 80))
		expect(t, conn, "\x05\x00\x05\x00\x00"+test.want)
	}
}

type localAddrConn struct {
	net.Conn
	local net.Addr
}

func (c localAddrConn) LocalAddr() net.Addr { return c.local }

func TestDialIsCancelledWhenTheClientLeaves(t *testing.T) {
	for name, how := range map[string]serveFunc{"socks5": socks5Proxy, "http": httpProxy} {
		t.Run(name, func(t *testing.T) {
			dialling, cancelled := make(chan struct{}), make(chan error, 1)
			dialer := dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
				close(dialling)
				<-ctx.Done()
				cancelled <- context.Cause(ctx)
				return nil, ctx.Err()
			})
			s, address := serve(t, Config{Dialer: dialer, DialTimeout: 10 * patience}, how)
			conn := connect(t, address)
			if name == "http" {
				write(t, conn, "CONNECT x.example:80 HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				write(t, conn, "\x05\x01\x00"+connectNameRequest("x.example", 80))
			}
			eventually(t, "dial", dialling)
			conn.Close()
			if err := eventually(t, "cancellation", cancelled); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled for %v", err)
			}
			s.Shutdown(t.Context())
			if got := s.Stats().TargetsFailed; got != 0 {
				t.Errorf("counted as %d failed targets", got)
			}
		})
	}
}

func TestDialEndsAtItsTimeout(t *testing.T) {
	dialer := dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, address := serve(t, Config{Dialer: dialer, DialTimeout: time.Millisecond}, mixedProxy)
	conn := connect(t, address)
	write(t, conn, "\x05\x01\x00"+connectNameRequest("x.example", 80))
	expect(t, conn, "\x05\x00\x05\x06\x00")
	conn = connect(t, address)
	write(t, conn, "GET http://x.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := readResponse(t, conn, nil).StatusCode; got != 504 {
		t.Errorf("status %d", got)
	}
}

func TestPanickingDialerCostsOneConnection(t *testing.T) {
	where := target(t, "127.0.0.1:0", echo)
	dialer := dialFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "panic") {
			panic("at the dialer")
		}
		return new(net.Dialer).DialContext(ctx, network, where)
	})
	s, address := serve(t, Config{Dialer: dialer}, mixedProxy)
	conn := connect(t, address)
	write(t, conn, "\x05\x01\x00"+connectNameRequest("panic.example", 80))
	expect(t, conn, "\x05\x00\x05\x01")
	for _, request := range []string{"CONNECT panic.example:80", "GET http://panic.example/"} {
		if response, _ := raw(t, address, request+" HTTP/1.1\r\nHost: x\r\n\r\n"); response.StatusCode != 502 {
			t.Errorf("%s: status %d", request, response.StatusCode)
		}
	}
	if got := s.Stats().PanicsCaught; got != 3 {
		t.Errorf("%d panics caught", got)
	}
	conn = connect(t, address)
	write(t, conn, "\x05\x01\x00"+connectNameRequest("x.example", 80))
	expect(t, conn, "\x05\x00\x05\x00")
}

func TestGarbageHandshakesEndCleanly(t *testing.T) {
	whole := "\x05\x01\x02" + "\x01\x01u\x01p" + connectNameRequest("x.example", 80)
	_, address := serve(t, Config{Users: []User{{"u", "p"}}, Dialer: failWith(errBroken)}, socks5Proxy)
	for n := range whole {
		conn := connect(t, address)
		write(t, conn, whole[:n])
		conn.CloseWrite()
		io.ReadAll(conn)
	}
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x04\x01\x00\x50", "\x05\x00", "\x05\x01\x02\x02", "\x05\x01\x02\x01\x01u\x01p\x04"} {
		conn := connect(t, address)
		write(t, conn, garbage)
		conn.CloseWrite()
		if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", garbage, err)
		}
	}
}

func TestCurlThroughBothProxies(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	where := webTarget(t, page)
	asked := make(chan string, 4)
	_, address := serve(t, Config{Dialer: dialTo(where, asked), Users: []User{{"alice", "alice-secret"}}}, mixedProxy)
	for _, arguments := range [][]string{
		{"--proxy", "socks5h://alice:alice-secret@" + address, "http://intranet.example/"},
		{"--proxy", "http://alice:alice-secret@" + address, "http://intranet.example/"},
		{"--proxy", "http://alice:alice-secret@" + address, "--proxytunnel", "http://intranet.example/"},
		{"--proxy", "socks5://alice:alice-secret@" + address, "http://[fd88::1]/"},
	} {
		// --noproxy "" so that the machine's own settings do not matter
		out, err := exec.Command(curl, append([]string{"--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", ""}, arguments...)...).CombinedOutput()
		if err != nil || string(out) != pageText {
			t.Errorf("curl %v: %v: %s", arguments, err, out)
		}
		if got := <-asked; got != "intranet.example:80" && got != "[fd88::1]:80" {
			t.Errorf("curl %v: dialled %s", arguments, got)
		}
	}
}
