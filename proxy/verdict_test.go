package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

type tunnelDown struct{ retry time.Duration }

func (tunnelDown) Error() string               { return "tunnel office: auth: server refused the login" }
func (tunnelDown) TunnelDown() bool            { return true }
func (d tunnelDown) RetryAfter() time.Duration { return d.retry }
func opError(errno syscall.Errno) *net.OpError {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
}
func dnsError(notFound, timeout bool) *net.DNSError {
	return &net.DNSError{Err: "lookup failed", Name: "x.example", IsNotFound: notFound, IsTimeout: timeout}
}

var verdicts = []struct {
	about  string
	err    error
	reply  reply
	status int
	retry  string
}{
	{"refused", opError(syscall.ECONNREFUSED), 5, 502, ""},
	{"network unreachable", opError(syscall.ENETUNREACH), 3, 502, ""},
	{"network down", opError(syscall.ENETDOWN), 3, 502, ""},
	{"host unreachable", opError(syscall.EHOSTUNREACH), 4, 502, ""},
	{"host down", opError(syscall.EHOSTDOWN), 4, 502, ""},
	{"connect timed out", opError(syscall.ETIMEDOUT), 6, 504, ""},
	{"deadline", context.DeadlineExceeded, 6, 504, ""},
	{"i/o timeout", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, 6, 504, ""},
	{"no such host", dnsError(true, false), 4, 502, ""},
	{"name servers silent", dnsError(false, true), 4, 504, ""},
	{"name servers failed", dnsError(false, false), 4, 502, ""},
	{"address family", opError(syscall.EAFNOSUPPORT), 8, 502, ""},
	{"rules", fmt.Errorf("to 10.0.0.1: %w", ErrForbidden), 2, 403, ""},
	{"tunnel down", fmt.Errorf("dial: %w", tunnelDown{1500 * time.Millisecond}), 3, 503, "2"},
	{"tunnel down, retry unknown", tunnelDown{}, 3, 503, "1"},
	{"tunnel down wins over its cause", errors.Join(opError(syscall.ECONNREFUSED), tunnelDown{}), 3, 503, "1"},
	{"anything else, whatever its text", errors.New("connection refused, network is unreachable"), 1, 502, ""},
}

func TestTypedErrorsBecomeSOCKSReplies(t *testing.T) { // RFC 1928 section 6
	for _, test := range verdicts {
		t.Run(test.about, func(t *testing.T) {
			s, address := serve(t, Config{Dialer: failWith(test.err)}, socks5Proxy)
			conn := connect(t, address)
			write(t, conn, "\x05\x01\x00"+"\x05\x01\x00\x01\x0a\x58\x00\x01\x00\x50")
			expect(t, conn, "\x05\x00"+"\x05"+string(rune(test.reply))+"\x00\x01\x00\x00\x00\x00\x00\x00")
			expectEOF(t, conn)
			if got := s.Stats().TargetsFailed; got != 1 {
				t.Errorf("%d targets failed", got)
			}
		})
	}
}

func TestTypedErrorsBecomeHTTPStatuses(t *testing.T) { // RFC 9110 section 15
	for _, test := range verdicts {
		for _, method := range []string{"GET http://10.88.0.1/ HTTP/1.1\r\nHost: 10.88.0.1", "CONNECT 10.88.0.1:443 HTTP/1.1\r\nHost: 10.88.0.1:443"} {
			t.Run(test.about+"/"+method[:3], func(t *testing.T) {
				_, address := serve(t, Config{Dialer: failWith(test.err)}, httpProxy)
				conn := connect(t, address)
				write(t, conn, method+"\r\n\r\n")
				response := readResponse(t, conn, nil)
				body, _ := io.ReadAll(response.Body)
				if response.StatusCode != test.status || response.Header.Get("Retry-After") != test.retry {
					t.Errorf("%d, Retry-After %q", response.StatusCode, response.Header.Get("Retry-After"))
				}
				if text := string(body); !strings.Contains(text, "10.88.0.1") || !strings.Contains(text, test.err.Error()) || !strings.Contains(text, http.StatusText(test.status)) {
					t.Errorf("the body names no cause: %q", body)
				}
				if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
					t.Errorf("Content-Type %q", got)
				}
			})
		}
	}
}
