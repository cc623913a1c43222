package load

import (
	"context"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gateway/internal/farend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// farEnd runs a far end on loopback, TCP and UDP.
func farEnd(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Skip("the UDP port of the same number is taken")
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go farend.Serve(l)
	go farend.ServeUDP(u)
	return l.Addr().String()
}

func TestEveryModeMeasuresSomething(t *testing.T) {
	target := farEnd(t)
	for mode, figures := range map[Mode][]string{
		Down: {"gbit_s", "bytes", "jain", "standstill_ms", "cpu_s_per_gb", "rss_kib"},
		Up:   {"gbit_s", "bytes", "jain", "standstill_ms", "cpu_s_per_gb", "rss_kib"},
		Rate: {"conn_s", "p50_ms", "p99_ms", "samples"},
		RTT:  {"req_s", "p50_ms", "p99_ms", "cpu_us_per_op"},
		UDP:  {"echo_s", "p50_ms", "sent", "received"},
		Idle: {"conns", "rss_kib"},

		RTTDown: {"p50_ms", "p99_ms", "gbit_s", "streams"},
		RTTUp:   {"p50_ms", "p99_ms", "gbit_s", "streams"},
	} {
		t.Run(string(mode), func(t *testing.T) {
			f, err := Run(t.Context(), mode, Options{Proxy: "direct", Target: target, N: 3, Dur: 100 * time.Millisecond,
				Warm: 50 * time.Millisecond, Size: 64, PID: os.Getpid()})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range figures {
				if v := f.Get(name); math.IsNaN(v) || v < 0 {
					t.Errorf("%s is %v", name, v)
				}
			}
			if e := f["error"]; e != nil {
				t.Errorf("error %v", e)
			}
		})
	}
}

// The watch sees when nothing moves, from the beginning to its end.
func TestStandstillIsTheLongestOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams := make([]stream, 2)
		w := watch(streams)
		for _, still := range []time.Duration{10, 60, 20} {
			time.Sleep(still * time.Millisecond)
			streams[1].moved.Add(1)
		}
		if got := w.stop(); got < 60*time.Millisecond-watchEvery || got > 60*time.Millisecond+watchEvery {
			t.Errorf("%v, want about 60ms", got)
		}
		if again := w.stop(); again != w.longest {
			t.Errorf("another one when asked again: %v", again)
		}
	})
}

func TestWhenOpenIsCalledOnce(t *testing.T) {
	for _, mode := range []Mode{Down, Up, Idle} {
		calls := 0
		o := Options{Target: farEnd(t), N: 2, Dur: 20 * time.Millisecond, Warm: 10 * time.Millisecond, WhenOpen: func() { calls++ }}
		if _, err := Run(t.Context(), mode, o); err != nil || calls != 1 {
			t.Errorf("%s: %d calls, %v", mode, calls, err)
		}
	}
}

func TestALimitIsKept(t *testing.T) {
	target := farEnd(t)
	for _, mode := range []Mode{Down, Up} {
		f, err := Run(t.Context(), mode, Options{Target: target, N: 2, Dur: 400 * time.Millisecond, Warm: 100 * time.Millisecond, Mbit: 20})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Get("gbit_s"); got > .04 {
			t.Errorf("%s: %v Gbit/s at a limit of .02", mode, got)
		}
	}
}

func TestAMeasurementEndsWithItsContext(t *testing.T) {
	target := farEnd(t)
	stop := errors.New("stop")
	for _, mode := range Modes {
		if mode == UDP {
			continue // looks at its context between two datagrams
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
		_, err := Run(ctx, mode, Options{Target: target, N: 2, Dur: time.Hour, Warm: time.Hour, Size: 64})
		if !errors.Is(err, stop) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, mode := range Modes {
		if mode == UDP {
			continue
		}
		if f, err := Run(t.Context(), mode, Options{Target: l.Addr().String(), N: 1, Dur: time.Millisecond}); err == nil {
			t.Errorf("%s: %v", mode, f)
		}
	}
}

// proxy answers one connection with a script of requests and replies.
func proxy(t *testing.T, script ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for i := 0; i < len(script); i += 2 {
			want := make([]byte, len(script[i]))
			if _, err := io.ReadFull(c, want); err != nil || string(want) != script[i] {
				log.Printf("got %q, %v; want %q", want, err, script[i])
				return
			}
			io.WriteString(c, script[i+1])
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

// RFC 1928 and RFC 1929; the payload that follows a reply at once is not lost.
func TestProxyHandshakes(t *testing.T) {
	for name, test := range map[string]struct {
		url    string // %s is the address
		target string
		script []string
		want   string // payload, or the error's text
		fails  bool
	}{
		"SOCKS5 with an address": {url: "socks5://%s", target: "10.0.0.1:80",
			script: []string{"\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50", "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01hello"}, want: "hello"},
		"SOCKS5 with a name and a login": {url: "socks5://me:pw@%s", target: "example.com:80",
			script: []string{"\x05\x01\x02", "\x05\x02", "\x01\x02me\x02pw", "\x01\x00", "\x05\x01\x00\x03\x0bexample.com\x00\x50", "\x05\x00\x00\x03\x01a\x00\x01hello"}, want: "hello"},
		"SOCKS5 that refuses": {url: "socks5://%s", target: "[fd00::1]:80",
			script: []string{"\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x04\xfd" + strings.Repeat("\x00", 14) + "\x01\x00\x50", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"}, want: "reply 5", fails: true},
		"SOCKS5 that wants a login": {url: "socks5://%s", target: "10.0.0.1:80",
			script: []string{"\x05\x01\x00", "\x05\xff"}, want: "refused", fails: true},
		"HTTP": {url: "http://%s", target: "h:1",
			script: []string{"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"}, want: "hello"},
		"HTTP with a login": {url: "http://me:pw@%s", target: "h:1",
			script: []string{"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello"}, want: "hello"},
		"HTTP that refuses": {url: "http://%s", target: "h:1",
			script: []string{"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n\r\n"}, want: "403", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseDialer(strings.Replace(test.url, "%s", proxy(t, test.script...), 1))
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.dial(t.Context(), test.target)
			if test.fails {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, _ := io.ReadAll(c); string(got) != test.want {
				t.Errorf("payload %q", got)
			}
		})
	}
}

func TestParseCase(t *testing.T) {
	for text, want := range map[string]Case{
		"down:8": {Down, 8, 0}, "up:1@100": {Up, 1, 100}, "rate": {Rate, 8, 0}, "rtt": {RTT, 1, 0}, "idle:50": {Idle, 50, 0}, "down:2@.5": {Down, 2, .5},
		"rtt-down:8": {RTTDown, 8, 0}, "rtt-up@10": {RTTUp, 1, 10},
	} {
		got, err := ParseCase(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if again, err := ParseCase(got.String()); err != nil || again != got {
			t.Errorf("%q: as text %q, which is %v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "sideways", "down:0", "down:x", "down:", "up:1@", "up:1@-3"} {
		if c, err := ParseCase(text); err == nil {
			t.Errorf("%q is taken as %v", text, c)
		}
	}
}

func TestSpreadLeavesOutFailures(t *testing.T) {
	a := []Figures{{"x": 2.0}, nil, {"x": 9.0}, {"x": 4.0}}
	b := []Figures{{"x": 1.0}, {"x": 1.0}, {"x": 3.0}, {"x": 0.0}}
	if diff := cmp.Diff(Spread{4, 2, 9}, SpreadOf(Values(a, "x"))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Spread{2.5, 2, 3}, SpreadOf(Ratios(a, b, "x"))); diff != "" {
		t.Error(diff)
	}
	if got := SpreadOf(nil).String(); got != "-" {
		t.Errorf("nothing is %q", got)
	}
	if got := (Spread{1234.5, .12345, 5e4}).String(); got != "1234 [0.123..50000]" && got != "1235 [0.123..50000]" {
		t.Errorf("got %q", got)
	}
}

func TestJain(t *testing.T) {
	if got := jain([]int64{5, 5, 5, 5}); got != 1 {
		t.Errorf("equal shares: %v", got)
	}
	if got := jain([]int64{7, 0, 0, 0}); got != .25 {
		t.Errorf("one has all: %v", got)
	}
	if got := jain([]int64{0, 0}); got != 0 {
		t.Errorf("nothing moved: %v", got)
	}
}

func TestSidesTakeTurnsToBeFirst(t *testing.T) {
	var order []string
	target := farEnd(t)
	sides := []Side{{Name: "a", Target: target}, {Name: "b", Target: target}, {Name: "c", Target: "127.0.0.1:0"}}
	got := Compare(t.Context(), Case{RTT, 1, 0}, Options{Dur: 100 * time.Millisecond, Size: 1}, sides, 2,
		func(_ int, s Side, _ Figures, _ error) { order = append(order, s.Name) })
	if diff := cmp.Diff([]string{"a", "b", "c", "b", "c", "a"}, order); diff != "" {
		t.Error(diff)
	}
	if got[0][1] == nil || got[1][0] == nil || got[2][0] != nil {
		t.Errorf("figures %v", got)
	}
}

func TestProcessCounters(t *testing.T) {
	if got := cpuOfStat("12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"); got != 2 {
		t.Errorf("CPU %v", got)
	}
	if got := cpuOfStat(""); got != 0 {
		t.Errorf("CPU of nothing %v", got)
	}
	if p := ReadProcess(os.Getpid()); p.RSS == 0 || p.PeakRSS < p.RSS {
		t.Skipf("no /proc here: %+v", p)
	}
}
