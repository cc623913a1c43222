package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const pageText = "vpnlab private network\n"

func page(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, pageText) }

// webTarget returns the address of a web server.
func webTarget(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// readResponse reads a response and not a byte more.
func readResponse(t *testing.T, conn net.Conn, request *http.Request) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(iotest.OneByteReader(conn)), request)
	if err != nil {
		t.Fatalf("response: %v", err)
	}
	return response
}

// webClient is net/http's own client behind the proxy.
func webClient(t *testing.T, proxyURL string) *http.Client {
	t.Helper()
	through, err := url.Parse(proxyURL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(through), DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// raw sends a request as it is, and returns the response with its body read.
func raw(t *testing.T, proxyAddress, request string) (*http.Response, string) {
	t.Helper()
	conn := connect(t, proxyAddress)
	write(t, conn, request)
	response := readResponse(t, conn, nil)
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestHTTPForwardsEveryMethodWithKeepAlive(t *testing.T) {
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.RequestURI+" "+string(body))
	})
	s, address := serve(t, Config{}, httpProxy)
	client := webClient(t, "http://"+address)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"} {
		body := ""
		if method != "TRACE" && method != "HEAD" && method != "GET" {
			body = "body of " + method
		}
		request, err := http.NewRequest(method, "http://"+where+"/a%2Fb?q=1;2&p=%zz", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got, want := response.Header.Get("X-Seen"), strings.TrimSpace(method+" /a%2Fb?q=1;2&p=%zz "+body); got != want {
			t.Errorf("target saw %q, want %q", got, want)
		}
	}
	if got := s.Stats().Accepted; got != 1 {
		t.Errorf("%d client connections for all requests", got)
	}
}

func TestHTTPKeepAliveRequestsGoToTheirOwnHosts(t *testing.T) {
	var hosts []string
	for _, name := range []string{"first", "second"} {
		hosts = append(hosts, webTarget(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
	}
	_, address := serve(t, Config{}, httpProxy)
	conn := connect(t, address)
	for _, i := range []int{0, 1, 0, 1} {
		write(t, conn, "GET http://"+hosts[i]+"/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
		body, err := io.ReadAll(readResponse(t, conn, nil).Body)
		if want := []string{"first", "second"}[i]; err != nil || string(body) != want {
			t.Fatalf("got %q, %v; want %q", body, err, want)
		}
	}
}

func TestHTTPHopByHopFieldsStay(t *testing.T) { // RFC 9110 section 7.6.1
	seen := make(chan *http.Request, 1)
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Clone(context.Background())
		w.Header().Set("Connection", "X-Reply-Hop")
		w.Header().Set("X-Reply-Hop", "1")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-End", "1")
	})
	_, address := serve(t, Config{Users: []User{{"alice", "alice-secret"}}}, httpProxy)
	response, _ := raw(t, address, "GET http://"+where+"/ HTTP/1.1\r\nHost: wrong.example\r\n"+
		"Connection: keep-alive, X-Hop, X-Forwarded-Proto\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n"+
		"Proxy-Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("alice:alice-secret"))+"\r\n"+
		"TE: trailers, deflate\r\nX-End: 1\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nAccept-Encoding: br\r\n\r\n")
	r := <-seen
	for _, field := range []string{"X-Hop", "Proxy-Connection", "Keep-Alive", "Proxy-Authorization", "Connection", "Via", "User-Agent", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
		if values, ok := r.Header[field]; ok {
			t.Errorf("target got %s: %q", field, values)
		}
	}
	for field, want := range map[string]string{"X-End": "1", "X-Forwarded-For": "192.0.2.7", "Accept-Encoding": "br", "Te": "trailers"} {
		if got := r.Header.Get(field); got != want {
			t.Errorf("target got %s: %q, want %q", field, got, want)
		}
	}
	if r.Host != where { // RFC 9112 section 3.2.2
		t.Errorf("target got Host: %s", r.Host)
	}
	for _, field := range []string{"X-Reply-Hop", "Proxy-Authenticate", "Keep-Alive"} {
		if values, ok := response.Header[field]; ok {
			t.Errorf("client got %s: %q", field, values)
		}
	}
	if response.Header.Get("X-End") != "1" {
		t.Error("an end-to-end field of the response is missing")
	}
}

func TestHTTPAddsNoForwardedForAndNoCompression(t *testing.T) {
	seen := make(chan http.Header, 1)
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	_, address := serve(t, Config{}, httpProxy)
	raw(t, address, "GET http://"+where+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := <-seen; len(got) != 0 {
		t.Errorf("target got fields that the client did not send: %v", got)
	}
}

func TestHTTPLogin(t *testing.T) { // RFC 9110 section 11.7
	where := webTarget(t, page)
	s, address := serve(t, Config{Users: []User{{"alice", "alice-secret"}, {"bob", "b:ob"}}}, mixedProxy)
	basic := func(userinfo string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(userinfo)) + "\r\n"
	}
	for _, test := range []struct {
		fields string
		status int
	}{
		{basic("alice:alice-secret"), 200},
		{basic("bob:b:ob"), 200},
		{strings.Replace(basic("bob:b:ob"), "Basic", "basic", 1), 200},
		{"", 407},
		{basic("alice:bob"), 407},
		{basic("alice"), 407},
		{"Proxy-Authorization: Basic !!!\r\n", 407},
		{"Proxy-Authorization: Bearer alice\r\n", 407},
		{strings.TrimPrefix(basic("alice:alice-secret"), "Proxy-"), 407},
	} {
		for _, request := range []string{"GET http://" + where + "/ HTTP/1.1\r\nHost: x\r\n", "CONNECT " + where + " HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"} {
			conn := connect(t, address)
			write(t, conn, request+test.fields+"\r\n")
			response := readResponse(t, conn, nil)
			want := test.status
			if want == 200 && strings.HasPrefix(request, "GET /") {
				want = 400
			}
			if response.StatusCode != want {
				t.Errorf("%q with %q: %s", request, test.fields, response.Status)
			}
			if challenge := response.Header.Get("Proxy-Authenticate"); (want == 407) != strings.HasPrefix(challenge, "Basic realm=") {
				t.Errorf("%q with %q: Proxy-Authenticate %q", request, test.fields, challenge)
			}
		}
	}
	if got := s.Stats().LoginsRefused; got != 12 {
		t.Errorf("%d logins refused", got)
	}
	response, err := webClient(t, "http://alice:alice-secret@"+address).Get("http://" + where)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("net/http: %v, %v", response, err)
	}
	response.Body.Close()
}

func TestHTTPRefusesWhatIsNotAProxyRequest(t *testing.T) {
	_, address := serve(t, Config{Dialer: failWith(errors.New("must not be dialled"))}, httpProxy)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: x.example\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x.example\r\n",
		"GET https://x.example/ HTTP/1.1\r\nHost: x.example\r\n",
		"GET ftp://x.example/ HTTP/1.1\r\nHost: x.example\r\n",
		"GET http:///path HTTP/1.1\r\nHost: x.example\r\n",
		"GET http://:80/ HTTP/1.1\r\nHost: x.example\r\n",
		"GET http://x.example:99999/ HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT x.example HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT :443 HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT x.example:0 HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT x.example:https HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT u:p@x.example:443 HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT /x.example:443 HTTP/1.1\r\nHost: x.example\r\n",
		"CONNECT x.example:443 HTTP/1.1\r\nHost: x.example\r\nContent-Length: 5\r\n",
		"CONNECT x.example:443 HTTP/1.1\r\nHost: x.example\r\nTransfer-Encoding: chunked\r\n",
		"GET http://x.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
		"GET http://x.example/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n",
		"GET http://x.example/ HTTP/1.1\r\nHost: x\r\nBad Field: 1\r\n",
	} {
		conn := connect(t, address)
		write(t, conn, request+"\r\n")
		if got := readResponse(t, conn, nil).StatusCode; got != 400 && got != 501 {
			t.Errorf("%q: status %d", request, got)
		}
	}
}

func TestHTTPForwardsToIPv6LiteralsAndWithUserinfo(t *testing.T) {
	seen := make(chan string, 1)
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		seen <- fmt.Sprint(r.Host, r.RequestURI, " ", name, ":", password)
	})
	asked := make(chan string, 1)
	_, address := serve(t, Config{Dialer: dialTo(where, asked)}, httpProxy)
	for _, test := range []struct{ request, dialled, saw string }{
		{"GET http://[fd88::1]/x", "[fd88::1]:80", "[fd88::1]/x :"},
		{"GET http://[fd88::1]:8080/x", "[fd88::1]:8080", "[fd88::1]:8080/x :"},
		{"GET http://u:p%40w@x.example/x", "x.example:80", "x.example/x u:p@w"},
		{"OPTIONS http://x.example", "x.example:80", "x.example* :"}, // RFC 9112 section 3.2.4
		{"OPTIONS http://x.example/", "x.example:80", "x.example/ :"},
	} {
		raw(t, address, test.request+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if got := <-asked; got != test.dialled {
			t.Errorf("%s: dialled %s", test.request, got)
		}
		if strings.HasPrefix(test.saw, "x.example*") {
			continue // net/http's server answers it by itself
		}
		if got := <-seen; got != test.saw {
			t.Errorf("%s: target saw %q, want %q", test.request, got, test.saw)
		}
	}
}

func TestOptionsForTheWholeServerAsksForAnAsterisk(t *testing.T) { // RFC 9112 section 3.2.4
	line := make(chan string, 1)
	where := target(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		first, _ := bufio.NewReader(conn).ReadString('\n')
		line <- first
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	_, address := serve(t, Config{}, httpProxy)
	raw(t, address, "OPTIONS http://"+where+" HTTP/1.1\r\nHost: h\r\n\r\n")
	if got := <-line; got != "OPTIONS * HTTP/1.1\r\n" {
		t.Errorf("target got %q", got)
	}
}

func TestMaxForwardsIsCountedDown(t *testing.T) { // RFC 9110 section 7.6.2
	seen := make(chan string, 1)
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Max-Forwards") })
	_, address := serve(t, Config{}, httpProxy)
	raw(t, address, "TRACE http://"+where+"/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n")
	if got := <-seen; got != "2" {
		t.Errorf("Max-Forwards: %s", got)
	}
	if response, _ := raw(t, address, "TRACE http://"+where+"/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n"); response.StatusCode != 200 {
		t.Errorf("status %d", response.StatusCode)
	}
	select {
	case got := <-seen:
		t.Errorf("forwarded with Max-Forwards: %s", got)
	default:
	}
}

func TestHTTPConnectLosesNoByte(t *testing.T) {
	for _, size := range []int{0, 1, 5000, 100_000} {
		for name, how := range map[string]serveFunc{"http": httpProxy, "mixed": mixedProxy} {
			where := target(t, "127.0.0.1:0", echo)
			_, address := serve(t, Config{}, how)
			conn := connect(t, address)
			ahead := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			write(t, conn, "CONNECT "+where+" HTTP/1.1\r\nHost: x\r\n\r\n"+ahead)
			response := readResponse(t, conn, nil)
			if response.StatusCode != 200 || len(response.Header) != 0 { // RFC 9110 section 9.3.6: no Content-Length
				t.Fatalf("%s: %s %v", name, response.Status, response.Header)
			}
			expect(t, conn, ahead)
			write(t, conn, "more")
			conn.CloseWrite() // and half-close
			expect(t, conn, "more")
			expectEOF(t, conn)
		}
	}
}

func TestHTTPStreamsWithoutDelay(t *testing.T) {
	next := make(chan struct{})
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "1")
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, "2")
	})
	_, address := serve(t, Config{}, httpProxy)
	response, err := webClient(t, "http://"+address).Get("http://" + where)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, response.Body, "1")
	close(next)
	expect(t, response.Body, "2")
	expectEOF(t, response.Body)
}

func TestHTTPTrailersBothWays(t *testing.T) {
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "down "+r.Trailer.Get("X-Sum"))
	})
	_, address := serve(t, Config{}, httpProxy)
	conn := connect(t, address)
	write(t, conn, "POST http://"+where+"/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: up\r\n\r\n")
	response := readResponse(t, conn, nil)
	io.Copy(io.Discard, response.Body)
	if got := response.Trailer.Get("X-Sum"); got != "down up" {
		t.Errorf("trailer %q", got)
	}
}

func TestExpectContinueIsTheTargetsDecision(t *testing.T) { // RFC 9110 section 10.1.1
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	_, address := serve(t, Config{}, httpProxy)
	conn := connect(t, address)
	write(t, conn, "POST http://"+where+"/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	expect(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
	write(t, conn, "body")
	response := readResponse(t, conn, nil)
	if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || string(body) != "body" {
		t.Errorf("%s %q", response.Status, body)
	}
	conn = connect(t, address)
	write(t, conn, "POST http://"+where+"/refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if got := readResponse(t, conn, nil).StatusCode; got != 417 {
		t.Errorf("status %d", got)
	}
}

func TestUpgradeIsForwarded(t *testing.T) { // RFC 9110 section 7.8
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			t.Errorf("target got %v", r.Header)
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		io.Copy(conn, buffered)
	})
	_, address := serve(t, Config{}, httpProxy)
	conn := connect(t, address)
	write(t, conn, "GET http://"+where+"/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if got := readResponse(t, conn, nil).StatusCode; got != 101 {
		t.Fatalf("status %d", got)
	}
	expect(t, conn, "hello")
	write(t, conn, "ping")
	expect(t, conn, "ping")
}

// NTLM logs in connections: they must be a client's own, and stay with it.
func TestTargetConnectionBelongsToOneClientConnection(t *testing.T) {
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })
	_, address := serve(t, Config{}, httpProxy)
	first, second := connect(t, address), connect(t, address)
	ask := func(conn net.Conn) string {
		write(t, conn, "GET http://"+where+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
		body, err := io.ReadAll(readResponse(t, conn, nil).Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	one, two := ask(first), ask(second)
	if one == two {
		t.Error("two clients share a connection to the target")
	}
	if again := ask(first); again != one {
		t.Error("a client's next request goes over another connection")
	}
}

func TestTruncatedResponseIsNotMadeComplete(t *testing.T) {
	where := target(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(conn))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
	})
	_, address := serve(t, Config{}, httpProxy)
	response, err := webClient(t, "http://"+address).Get("http://" + where)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("%q looks complete", body)
	}
}

func TestIdleTargetBecomesGatewayTimeout(t *testing.T) {
	where := target(t, "127.0.0.1:0", func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
	_, address := serve(t, Config{IdleTimeout: 50 * time.Millisecond}, httpProxy)
	response, _ := raw(t, address, "GET http://"+where+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if response.StatusCode != 504 {
		t.Errorf("status %d", response.StatusCode)
	}
}

func TestHTTPBulkBothWays(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	_, address := serve(t, Config{}, httpProxy)
	response, err := webClient(t, "http://"+address).Post("http://"+where, "", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
	}
}
