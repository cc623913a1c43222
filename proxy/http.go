package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxRequestHeader  = 256 << 10 // Kerberos tickets are long
	maxResponseHeader = 1 << 20
	forwardBuffer     = 64 << 10
	continueTimeout   = 2 * time.Second // how long a target may think about Expect: 100-continue
)

type clientKey struct{} // context key of the *client of a request

func (s *Server) newHTTPServer() *http.Server {
	quiet := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	forward := &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     roundTripper(forwardRequest),
		FlushInterval: -1, // what the target sends now, the client gets now
		BufferPool:    &forwardBuffers{},
		ErrorLog:      quiet,
		ErrorHandler:  s.fail,
	}
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.handle(w, r, forward)
		}),
		DisableGeneralOptionsHandler: true, // OPTIONS * is for the target
		ReadHeaderTimeout:            s.config.HandshakeTimeout,
		IdleTimeout:                  s.config.KeepAliveTimeout,
		MaxHeaderBytes:               maxRequestHeader,
		ErrorLog:                     quiet,
		BaseContext:                  func(l net.Listener) context.Context { return l.(*handoff).ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, clientKey{}, c.(*client))
		},
	}
}

// handle answers one request.
func (s *Server) handle(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	switch {
	case !s.users.allows(r):
		s.demandLogin(w, r)
	case r.Method == http.MethodConnect:
		s.connectHTTP(w, r)
	case !r.URL.IsAbs():
		// Not proxied: a page of our own would be served here.
		explain(w, r, http.StatusBadRequest, "this is a proxy: set it as the proxy of your program rather than opening it")
	case r.URL.Scheme != "http":
		explain(w, r, http.StatusBadRequest, fmt.Sprintf("cannot forward %q URLs: use CONNECT", r.URL.Scheme))
	case !validAuthority(r.URL.Host, "80"):
		explain(w, r, http.StatusBadRequest, "the URL names no host")
	default:
		s.forwardHTTP(w, r, forward)
	}
}

// demandLogin answers 407 (RFC 9110 section 15.5.8).
func (s *Server) demandLogin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "" { // else the client only asks whether it must
		s.count.loginsRefused.Add(1)
		s.log.Info("proxy: login refused", "protocol", "http", "client", r.RemoteAddr)
	}
	w.Header().Set("Proxy-Authenticate", `Basic realm="gateway", charset="UTF-8"`)
	explain(w, r, http.StatusProxyAuthRequired, "this proxy asks for a user name and password")
}

// connectHTTP carries out CONNECT (RFC 9110 section 9.3.6).
func (s *Server) connectHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.User != nil || !validAuthority(r.URL.Host, "") {
		explain(w, r, http.StatusBadRequest, "CONNECT takes host:port")
		return
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		// Some would take these bytes for a body, others for the tunnel's.
		explain(w, r, http.StatusBadRequest, "CONNECT has no body")
		return
	}
	target, err := s.dial(r.Context(), r.URL.Host)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		target.Close()
		s.fail(w, r, err)
		return
	}
	c := conn.(*client)
	ahead, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	ahead = append(ahead, c.takeAhead()...)
	c.loop.workers.run(func() { // and net/http lets go of its buffers
		defer s.rescue()
		defer c.Close()
		defer target.Close()
		if _, err := io.WriteString(c.Conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
			c.loop.startRelay(c.Conn, ahead, func() {}).run(c.loop.ctx, target)
		}
	})
}

// forwardHTTP forwards any other method.
func (s *Server) forwardHTTP(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	// RFC 9110 section 7.6.2
	if r.Method == http.MethodTrace || r.Method == http.MethodOptions {
		if hops, err := strconv.ParseUint(r.Header.Get("Max-Forwards"), 10, 32); err == nil {
			if hops == 0 {
				w.Header().Set("Content-Length", "0")
				w.WriteHeader(http.StatusOK)
				return
			}
			r.Header.Set("Max-Forwards", strconv.FormatUint(hops-1, 10))
		}
	}
	forward.ServeHTTP(w, r)
}

// rewrite makes the request to the target. ReverseProxy has taken out the
// hop-by-hop fields (RFC 9110 section 7.6.1) and kept an Upgrade; what it
// changes besides is for servers' front doors, and is put back.
//
// Via is not added, although RFC 9110 section 7.6.3 asks for it: common
// servers answer requests that have it uncompressed, and it tells the network
// what the client uses.
func rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Trailer = p.In.Trailer // the map that is filled when the body ends
	for _, field := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[field]; ok && !namedByConnection(p.In.Header, field) {
			p.Out.Header[field] = values // the client's own; we add none
		}
	}
	if user := p.Out.URL.User; user != nil {
		p.Out.URL.User = nil
		if p.Out.Header.Get("Authorization") == "" {
			password, _ := user.Password()
			p.Out.SetBasicAuth(user.Username(), password)
		}
	}
	// RFC 9112 section 3.2.4
	if p.Out.Method == http.MethodOptions && p.Out.URL.Path == "" && p.Out.URL.RawQuery == "" {
		p.Out.URL.Opaque = "*"
	}
}

func namedByConnection(h http.Header, field string) bool {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(name), field) {
				return true
			}
		}
	}
	return false
}

// fail answers for a target that was not reached or broke.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody is there to hear it
	}
	v := judge(err)
	s.log.Debug("proxy: http target failed", "client", r.RemoteAddr, "method", r.Method, "target", r.URL.Host, "reason", v.reason, "cause", err)
	if v.status == http.StatusServiceUnavailable {
		seconds := max(1, math.Ceil(v.retryAfter.Seconds()))
		w.Header().Set("Retry-After", strconv.FormatFloat(seconds, 'f', 0, 64))
	}
	explain(w, r, v.status, fmt.Sprintf("cannot reach %s: %s (%v)", r.URL.Host, v.reason, err))
}

// explain answers with a line of text.
func explain(w http.ResponseWriter, r *http.Request, status int, text string) {
	if r.ContentLength != 0 { // else net/http would wait for the body before it answers
		w.Header().Set("Connection", "close")
	}
	http.Error(w, fmt.Sprintf("%d %s: %s", status, http.StatusText(status), text), status)
}

// validAuthority reports whether authority is a host with a port, or without
// one if there is a default.
func validAuthority(authority, defaultPort string) bool {
	host, port, err := net.SplitHostPort(authority)
	if err != nil && defaultPort != "" {
		host, port, err = net.SplitHostPort(authority + ":" + defaultPort)
	}
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n != 0 && validName(host)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// forwardRequest sends a request over the connections of its own client.
func forwardRequest(r *http.Request) (*http.Response, error) {
	c := r.Context().Value(clientKey{}).(*client)
	return c.transport().RoundTrip(r)
}

// transport returns the client's connections to targets. Each client has its
// own: NTLM and Negotiate, which intranet servers use, log a connection in
// rather than a request, so that it must carry no one else's.
func (c *client) transport() *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upstream == nil {
		s := c.loop.server
		c.upstream = &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				conn, err := s.dial(ctx, address)
				if err != nil {
					return nil, err
				}
				return &forwardConn{Conn: conn, server: s}, nil
			},
			DisableCompression:     true,
			MaxIdleConns:           8,
			MaxIdleConnsPerHost:    1, // requests of one client connection come one by one
			IdleConnTimeout:        s.config.KeepAliveTimeout,
			ExpectContinueTimeout:  continueTimeout,
			MaxResponseHeaderBytes: maxResponseHeader,
		}
	}
	return c.upstream
}

func (c *client) closeTransport() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upstream != nil {
		c.upstream.CloseIdleConnections()
	}
}

// A forwardConn is a target's connection in net/http's hands. It counts, and
// fails when nothing moves for Config.IdleTimeout.
type forwardConn struct {
	net.Conn
	server *Server
}

func (c *forwardConn) Read(p []byte) (int, error) {
	c.live()
	n, err := c.Conn.Read(p)
	c.server.count.bytesDown.Add(int64(n))
	return n, err
}

func (c *forwardConn) Write(p []byte) (int, error) {
	c.live()
	n, err := c.Conn.Write(p)
	c.server.count.bytesUp.Add(int64(n))
	return n, err
}

func (c *forwardConn) live() {
	if idle := c.server.config.IdleTimeout; idle > 0 {
		c.SetDeadline(time.Now().Add(idle))
	}
}

// CloseWrite ends the direction to the target of an upgraded connection.
func (c *forwardConn) CloseWrite() error { return closeWrite(c.Conn) }

// forwardBuffers are the copy buffers of ReverseProxy.
type forwardBuffers struct{ pool sync.Pool } // of *[forwardBuffer]byte

func (f *forwardBuffers) Get() []byte {
	if buf, ok := f.pool.Get().(*[forwardBuffer]byte); ok {
		return buf[:]
	}
	return make([]byte, forwardBuffer)
}

func (f *forwardBuffers) Put(buf []byte) { f.pool.Put((*[forwardBuffer]byte)(buf)) }
