package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAcceptSurvivesRunningOutOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		serveOn(t, Config{}, socks5Proxy, l)
		start := time.Now()
		for range 12 {
			l.results <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		conn := l.dial()
		defer conn.Close()
		// 5, 10, 20 ... 640 ms, then 1 s: it neither spins nor sleeps for long.
		if waited := time.Since(start); waited < 4*time.Second || waited > 6*time.Second {
			t.Errorf("12 failures took %v", waited)
		}
		write(t, conn, "\x05\x01\x00")
		expect(t, conn, "\x05\x00")
	})
}

func TestServeReturnsAnErrorThatDoesNotPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Dialer: failWith(errBroken)})
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range []serveFunc{socks5Proxy, httpProxy, mixedProxy} {
			l := newFakeListener()
			served := make(chan error)
			go func() { served <- how(s, t.Context(), l) }()
			l.results <- errBroken
			if err := <-served; !errors.Is(err, errBroken) {
				t.Errorf("Serve: %v", err)
			}
		}
	})
}

func TestSlowHandshakeIsCutAtTheDeadlineHoweverBytesDrip(t *testing.T) {
	for name, how := range map[string]serveFunc{"socks5": socks5Proxy, "mixed": mixedProxy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFakeListener()
				serveOn(t, Config{HandshakeTimeout: 3 * time.Second}, how, l)
				conn := l.dial()
				defer conn.Close()
				start := time.Now()
				greeting := "\x05\xff" // and 255 methods, one a second
				for err := error(nil); err == nil; greeting += "\x00" {
					_, err = io.WriteString(conn, greeting[:1])
					greeting = greeting[1:]
					time.Sleep(time.Second) // fake
				}
				if cut := time.Since(start); cut > 5*time.Second {
					t.Errorf("cut after %v", cut)
				}
			})
		})
	}
}

func TestSlowHTTPHeaderIsCut(t *testing.T) {
	_, address := serve(t, Config{HandshakeTimeout: 50 * time.Millisecond}, httpProxy)
	conn := connect(t, address)
	write(t, conn, "GET http://10.88.0.1/ HT")
	io.ReadAll(conn) // ends long before patience does
	if _, err := conn.Write([]byte("x")); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was not closed")
	}
}

func TestConnectionsBeyondTheCapAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		s, _ := serveOn(t, Config{MaxConnections: 2}, socks5Proxy, l)
		first, second, third := l.dial(), l.dial(), l.dial()
		defer second.Close()
		expectEOF(t, third)
		first.Close()
		synctest.Wait()
		fourth := l.dial()
		defer fourth.Close()
		write(t, fourth, "\x05\x01\x00")
		expect(t, fourth, "\x05\x00")
		if got := s.Stats(); got.Open != 2 || got.OverLimit != 1 || got.Accepted != 4 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestOnePortServesBothProtocols(t *testing.T) {
	where := target(t, "127.0.0.1:0", echo)
	_, address := serve(t, Config{}, mixedProxy)

	socks := connect(t, address)
	write(t, socks, "\x05\x01\x00"+connectRequest(where))
	expect(t, socks, "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01")
	io.ReadFull(socks, make([]byte, 2))
	write(t, socks, "ping")
	expect(t, socks, "ping")

	web := connect(t, address)
	write(t, web, "CONNECT "+where+" HTTP/1.1\r\nHost: "+where+"\r\n\r\nping")
	if response := readResponse(t, web, nil); response.StatusCode != 200 {
		t.Fatal(response.Status)
	}
	expect(t, web, "ping")
}

func TestShutdownLetsConnectionsEndAndThenReturns(t *testing.T) {
	where := target(t, "127.0.0.1:0", echo)
	for name, how := range map[string]serveFunc{"socks5": socks5Proxy, "http": httpProxy, "mixed": mixedProxy} {
		t.Run(name, func(t *testing.T) {
			s, address := serve(t, Config{}, how)
			conn := connect(t, address)
			openTunnel(t, conn, where, name != "http")

			ended := make(chan error, 1)
			go func() { ended <- s.Shutdown(t.Context()) }()
			for refused := false; !refused; { // until the listener is closed
				late, err := net.Dial("tcp", address)
				if refused = err != nil; !refused {
					late.Close()
				}
			}
			write(t, conn, "still here")
			expect(t, conn, "still here")
			select {
			case err := <-ended:
				t.Fatalf("Shutdown returned %v with a connection open", err)
			default:
			}
			conn.Close()
			if err := eventually(t, "end of Shutdown", ended); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if err := how(s, t.Context(), listen(t, "127.0.0.1:0")); !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve after Shutdown: %v", err)
			}
		})
	}
}

func TestShutdownCutsWhatIsLeftAtItsDeadline(t *testing.T) {
	for name, how := range map[string]serveFunc{"socks5": socks5Proxy, "http": httpProxy} {
		for _, halfClosed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, half closed %v", name, halfClosed), func(t *testing.T) {
				where := target(t, "127.0.0.1:0", func(conn *net.TCPConn) {
					io.Copy(io.Discard, conn)
					<-t.Context().Done() // nothing to say
				})
				s, address := serve(t, Config{}, how)
				conn := connect(t, address)
				openTunnel(t, conn, where, name != "http")
				if halfClosed {
					closeWrite(conn)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("Shutdown: %v", err)
				}
				if rest, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the connection was not cut: %q", rest)
				}
				if n := s.Stats().Open; n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		}
	}
}

func TestShutdownClosesIdleHTTPConnections(t *testing.T) {
	where := webTarget(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") })
	s, address := serve(t, Config{}, httpProxy)
	conn := connect(t, address)
	write(t, conn, "GET http://"+where+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	response := readResponse(t, conn, nil)
	io.Copy(io.Discard, response.Body)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	expectEOF(t, conn)
}
