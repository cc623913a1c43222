package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func newTestServer(t testing.TB, c Config) *Server {
	t.Helper()
	c.Dialer = failWith(errBroken)
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tcpPair returns both ends of a loopback connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{dialled, accepted} {
		conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
	}
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// plainConn hides that a connection is a socket, but not that it half-closes.
type plainConn struct {
	net.Conn
	tcp *net.TCPConn
}

func plain(c *net.TCPConn) net.Conn             { return plainConn{struct{ net.Conn }{c}, c} }
func (c plainConn) CloseWrite() error           { return c.tcp.CloseWrite() }
func (c plainConn) SetLinger(seconds int) error { return c.tcp.SetLinger(seconds) }

// copyingConn copies by itself, as a stack's connections may.
type copyingConn struct {
	plainConn
	copies *atomic.Int64
}

func (c copyingConn) WriteTo(w io.Writer) (int64, error) {
	c.copies.Add(1)
	return io.Copy(w, struct{ io.Reader }{c.tcp})
}

// startLoose starts a relay of a client that came from no listener.
func startLoose(s *Server, client net.Conn, ahead []byte, left func()) *relay {
	return (&acceptLoop{server: s, workers: new(workers)}).startRelay(client, ahead, left)
}

var kinds = map[string]func(*net.TCPConn) net.Conn{
	"socket": func(c *net.TCPConn) net.Conn { return c },
	"plain":  plain,
	"own copy loops": func(c *net.TCPConn) net.Conn {
		return copyingConn{plain(c).(plainConn), new(atomic.Int64)}
	},
}

// startRelay relays between a client and a target, of which it returns the far
// ends; done is closed at the end.
func startRelay(t testing.TB, s *Server, ahead string, kind func(*net.TCPConn) net.Conn) (client, target *net.TCPConn, done chan struct{}) {
	client, near := tcpPair(t)
	far, target := tcpPair(t)
	done = make(chan struct{})
	go func() {
		defer close(done)
		startLoose(s, near, []byte(ahead), func() {}).run(t.Context(), kind(far))
	}()
	return client, target, done
}

func TestRelayKeepsHalfCloseBothWays(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{})
			client, target, done := startRelay(t, s, "ahead ", kind)
			write(t, client, "question")
			client.CloseWrite()
			if got, err := io.ReadAll(target); err != nil || string(got) != "ahead question" {
				t.Fatalf("target got %q, %v", got, err)
			}
			write(t, target, "answer")
			expect(t, client, "answer")
			write(t, target, " and more")
			target.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != " and more" {
				t.Fatalf("client got %q, %v", got, err)
			}
			eventually(t, "end", done)

			client, target, done = startRelay(t, s, "", kind)
			write(t, target, "greeting")
			target.CloseWrite()
			if got, err := io.ReadAll(client); err != nil || string(got) != "greeting" {
				t.Fatalf("client got %q, %v", got, err)
			}
			write(t, client, "late upload")
			client.CloseWrite()
			if got, err := io.ReadAll(target); err != nil || string(got) != "late upload" {
				t.Fatalf("target got %q, %v", got, err)
			}
			eventually(t, "end", done)
			if got := s.Stats(); got.BytesUp != 14+11 || got.BytesDown != 15+8 {
				t.Errorf("counted %d up, %d down", got.BytesUp, got.BytesDown)
			}
		})
	}
}

func TestRelayMovesBulkIntactBothWaysAtOnce(t *testing.T) {
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			client, target, done := startRelay(t, newTestServer(t, Config{}), "", kind)
			for _, conn := range []*net.TCPConn{client, target} {
				go func() {
					conn.Write(data)
					conn.CloseWrite()
				}()
			}
			results := make(chan bool, 2)
			for _, conn := range []*net.TCPConn{client, target} {
				go func() {
					got, err := io.ReadAll(conn)
					results <- err == nil && bytes.Equal(got, data)
				}()
			}
			for range 2 {
				if !eventually(t, "transfer", results) {
					t.Error("the data differ")
				}
			}
			eventually(t, "end", done)
		})
	}
}

// A download that was cut off must not look complete.
func TestRelayPassesAResetOn(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			client, target, done := startRelay(t, newTestServer(t, Config{}), "", kind)
			write(t, target, "half")
			expect(t, client, "half")
			target.SetLinger(0)
			target.Close()
			if rest, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("client read %q, %v; want a reset", rest, err)
			}
			eventually(t, "end", done)

			client, target, done = startRelay(t, newTestServer(t, Config{}), "", kind)
			client.SetLinger(0)
			client.Close()
			if rest, err := io.ReadAll(target); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("target read %q, %v; want a reset", rest, err)
			}
			eventually(t, "end", done)
		})
	}
}

// A server that answers "too large" and closes while the upload goes on.
func TestRelayDeliversTheAnswerThatEndsAnUpload(t *testing.T) {
	client, target, done := startRelay(t, newTestServer(t, Config{}), "", kinds["socket"])
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		for {
			if _, err := client.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	target.Read(make([]byte, 1024))
	write(t, target, "413 too large")
	target.CloseWrite()
	expect(t, client, "413 too large")
	target.Close()
	eventually(t, "end", done)
	client.Close()
	eventually(t, "end of the upload", uploaded)
}

func TestRelayUsesTheCopyLoopOfATarget(t *testing.T) {
	client, near := tcpPair(t)
	far, target := tcpPair(t)
	conn := copyingConn{plain(far).(plainConn), new(atomic.Int64)}
	s := newTestServer(t, Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		startLoose(s, near, nil, func() {}).run(t.Context(), conn)
	}()
	client.CloseWrite()
	target.CloseWrite()
	eventually(t, "end", done)
	if got := conn.copies.Load(); got != 1 {
		t.Errorf("%d copies were the connection's own", got)
	}
}

func TestIdleRelayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{IdleTimeout: time.Minute})
		client, near := net.Pipe()
		far, target := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			startLoose(s, near, nil, func() {}).run(t.Context(), far)
		}()
		// Bytes one way only keep it, for as long as they like.
		for range 10 {
			time.Sleep(50 * time.Second) // fake
			go io.WriteString(target, "x")
			expect(t, client, "x")
		}
		last := time.Now()
		<-done
		if idle := time.Since(last); idle < time.Minute || idle > 75*time.Second {
			t.Errorf("ended after %v", idle)
		}
		expectEOF(t, client)
	})
}

func TestRelayWithoutIdleLimitStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		client, near := net.Pipe()
		far, target := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			startLoose(s, near, nil, func() {}).run(t.Context(), far)
		}()
		time.Sleep(1000 * time.Hour) // fake
		go io.WriteString(client, "x")
		expect(t, target, "x")
		client.Close()
		<-done
	})
}

func TestPanicInARelayEndsIt(t *testing.T) {
	s := newTestServer(t, Config{})
	client, near := tcpPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.rescue()
		far, _ := net.Pipe()
		startLoose(s, near, []byte("x"), func() {}).run(t.Context(), panickingConn{far})
	}()
	io.ReadAll(client)
	eventually(t, "end", done)
	if got := s.Stats().PanicsCaught; got != 2 {
		t.Errorf("%d panics caught", got)
	}
}

type panickingConn struct{ net.Conn }

func (panickingConn) Read([]byte) (int, error)  { panic("at read") }
func (panickingConn) Write([]byte) (int, error) { panic("at write") }

func TestRelayCopyAllocatesNothing(t *testing.T) {
	for _, name := range []string{"socket", "plain"} {
		a, b := tcpPair(t)
		s := newTestServer(t, Config{})
		from := newSource(kinds[name](b), &s.buffers)
		message := []byte(strings.Repeat("x", 1400))
		allocs := testing.AllocsPerRun(1000, func() {
			a.Write(message)
			if data, err := from.next(); err != nil || len(data) == 0 {
				t.Fatal(len(data), err)
			}
			from.release()
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for each read", name, allocs)
		}
	}
}

func TestRelayAllocatesNothingBothWays(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget on purpose")
	}
	for name, kind := range kinds {
		client, target, done := startRelay(t, newTestServer(t, Config{}), "", kind)
		out, in := make([]byte, 1400), make([]byte, 1400)
		across := func(from, to net.Conn) {
			if _, err := from.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(to, in); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(1000, func() {
			across(client, target)
			across(target, client)
		}); n != 0 {
			t.Errorf("%s: %v allocations for a piece each way", name, n)
		}
		client.Close()
		target.Close()
		<-done
	}
}

func BenchmarkRelay(b *testing.B) {
	for _, name := range []string{"socket", "plain", "own copy loops"} {
		b.Run("target="+strings.ReplaceAll(name, " ", "_"), func(b *testing.B) {
			client, target, done := startRelay(b, newTestServer(b, Config{}), "", kinds[name])
			client.SetDeadline(time.Time{})
			target.SetDeadline(time.Time{})
			chunk := make([]byte, 256<<10)
			go func() {
				for range b.N {
					target.Write(chunk)
				}
				target.Close()
			}()
			b.ReportAllocs()
			b.SetBytes(int64(len(chunk)))
			b.ResetTimer()
			for got := 0; got < b.N*len(chunk); {
				n, err := client.Read(chunk)
				if err != nil {
					b.Fatal(err)
				}
				got += n
			}
			b.StopTimer()
			client.Close()
			<-done
		})
	}
}
