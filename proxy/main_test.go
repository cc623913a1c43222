package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen before it fails.
const patience = 20 * time.Second

type serveFunc func(*Server, context.Context, net.Listener) error

var (
	socks5Proxy serveFunc = (*Server).ServeSOCKS5
	httpProxy   serveFunc = (*Server).ServeHTTP
	mixedProxy  serveFunc = (*Server).ServeMixed
)

// serve runs a Server on loopback until the test ends, and returns its address.
func serve(t *testing.T, c Config, how serveFunc) (*Server, string) {
	t.Helper()
	return serveOn(t, c, how, listen(t, "127.0.0.1:0"))
}

func serveOn(t *testing.T, c Config, how serveFunc, l net.Listener) (*Server, string) {
	t.Helper()
	if c.Dialer == nil {
		c.Dialer = &net.Dialer{}
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- how(s, ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if open := s.Stats().Open; open != 0 {
			t.Errorf("%d connections are open after Serve has returned", open)
		}
		s.Shutdown(context.Background())
	})
	return s, l.Addr().String()
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		if strings.HasPrefix(address, "[") {
			t.Skipf("no IPv6 here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// target serves each connection of a new listener with handle and returns its
// address. The connection is closed afterwards.
func target(t *testing.T, address string, handle func(*net.TCPConn)) string {
	t.Helper()
	l := listen(t, address)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				handle(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return l.Addr().String()
}

func echo(conn *net.TCPConn) { io.Copy(conn, conn) }

// connect opens a connection that fails rather than hangs.
func connect(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

func write(t *testing.T, w io.Writer, data string) {
	t.Helper()
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// expect reads exactly want.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got)
	if err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func expectEOF(t *testing.T, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Fatalf("read %q, %v; want the end", rest, err)
	}
}

// eventually waits on a channel.
func eventually[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: has not happened", what)
		panic("unreachable")
	}
}

// dialFunc is a Dialer.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// dialTo dials one address whatever it is asked for, and notes what it was.
func dialTo(address string, asked chan<- string) dialFunc {
	return func(ctx context.Context, network, target string) (net.Conn, error) {
		asked <- target
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

func failWith(err error) dialFunc {
	return func(context.Context, string, string) (net.Conn, error) { return nil, err }
}

// A fakeListener accepts what it is given; it works on fake time.
type fakeListener struct {
	results   chan any // net.Conn or error
	closed    chan struct{}
	closeOnce sync.Once
}

func newFakeListener() *fakeListener {
	return &fakeListener{results: make(chan any), closed: make(chan struct{})}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case r := <-l.results:
		if conn, ok := r.(net.Conn); ok {
			return conn, nil
		}
		return nil, r.(error)
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1080} }

// dial gives the server one end of a pipe.
func (l *fakeListener) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.results <- theirs
	return ours
}

var errBroken = errors.New("broken for good")
