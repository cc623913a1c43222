package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// connect returns both ends of a TCP connection from a to a listener of b on addr.
func connect(t testing.TB, a, b *Stack, addr netip.Addr) (*Conn, *Conn) {
	t.Helper()
	l, err := b.ListenTCP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := a.DialContext(testContext(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*Conn), d.(*Conn)
}

// transfer sends data from one end to the other and half-closes; it fails unless the same arrives.
func transfer(t testing.TB, from, to *Conn, data []byte) {
	t.Helper()
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := from.Write(data); err != nil {
			t.Error("write:", err)
		}
		if err := from.CloseWrite(); err != nil {
			t.Error("close write:", err)
		}
	})
	defer sending.Wait()
	_ = to.SetReadDeadline(time.Now().Add(30 * time.Second))
	h := sha256.New()
	n, err := to.WriteTo(h)
	if err != nil {
		t.Error("read:", err)
	}
	if want := sha256.Sum256(data); n != int64(len(data)) || !bytes.Equal(h.Sum(nil), want[:]) {
		t.Errorf("received %d bytes of %d, or others", n, len(data))
	}
}

func TestTransferIsIntactWithAndWithoutOffloads(t *testing.T) {
	data := randomBytes(4 << 20)
	for _, gso := range []bool{true, false} {
		for _, gro := range []bool{true, false} {
			for _, addr := range []netip.Addr{addrB, globalB} {
				t.Run(fmt.Sprintf("gso=%v/gro=%v/to=%v", gso, gro, addr), func(t *testing.T) {
					ca, cb := dualA(), dualB()
					ca.DisableGSO, cb.DisableGSO = !gso, !gso
					ca.DisableGRO, cb.DisableGRO = !gro, !gro
					a, b := pair(t, ca, cb, nil)
					c, d := connect(t, a, b, addr)
					transfer(t, c, d, data)
					transfer(t, d, c, data)
					if cut := a.Stats().SuperSegments > 0; cut != (gso && !plain) {
						t.Errorf("super-segments cut: %v", cut)
					}
					if joined := b.Stats().SegmentsJoined > 0; joined != (gro && !plain) {
						t.Errorf("segments joined: %v", joined)
					}
					if bad := a.Stats().BadChecksums + b.Stats().BadChecksums; bad != 0 {
						t.Errorf("%d bad checksums", bad)
					}
				})
			}
		}
	}
}

// One packet in twenty is lost, one doubled, one late. The retransmission timeout is that of the wire, not of the Internet: the test
// would otherwise wait for most of its time.
func TestTransferSurvivesLossDuplicationAndReordering(t *testing.T) {
	for _, gso := range []bool{true, false} {
		t.Run(fmt.Sprintf("gso=%v", gso), func(t *testing.T) {
			ca, cb := configA(), configB()
			ca.DisableGSO, ca.MinRTO, cb.MinRTO = !gso, 5*time.Millisecond, 5*time.Millisecond
			a, b := pair(t, ca, cb, func(ab, ba *wire) { ab.fate, ba.fate = lossy(1), lossy(2) })
			c, d := connect(t, a, b, addrB)
			transfer(t, c, d, randomBytes(16<<20))
			if a.Stats().Retransmits == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}

func TestMTUIsNeverExceeded(t *testing.T) {
	for _, mtu := range []int{576, 1000, 1280, 1400, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			ca, cb := configA(), configB()
			ca.MTU, cb.MTU = mtu, mtu
			var longest atomic.Int64
			a, b := pair(t, ca, cb, func(ab, _ *wire) {
				ab.tap = func(p []byte) { longest.Store(max(longest.Load(), int64(len(p)))) }
			})
			c, d := connect(t, a, b, addrB)
			transfer(t, c, d, randomBytes(300_000))
			if n := int(longest.Load()); n > mtu || n < mtu-tcpOptions {
				t.Errorf("longest packet %d at MTU %d", n, mtu)
			}
		})
	}
}

func TestDialErrorsAreTyped(t *testing.T) {
	a, _ := pair(t, configA(), configB(), nil)
	ctx := testContext(t)
	tests := []struct {
		name, network, address string
		want                   error
	}{
		{"closed port", "tcp", "10.88.0.1:81", syscall.ECONNREFUSED},
		{"no IPv6 on the link", "tcp", "[fd88::1]:80", syscall.ENETUNREACH},
		{"loopback is not in the private network", "tcp", "127.0.0.1:80", syscall.ENETUNREACH},
		{"nor the unspecified address", "udp", "[::]:80", syscall.ENETUNREACH},
		{"no IPv6 on the link, UDP", "udp", "[fd88::1]:80", syscall.ENETUNREACH},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.DialContext(ctx, tt.network, tt.address)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || op.Addr == nil {
				t.Errorf("%#v is no *net.OpError of a dial to an address", err)
			}
		})
	}
	t.Run("deadline", func(t *testing.T) {
		silent, _ := pair(t, configA(), configB(), func(ab, _ *wire) { ab.fate = func([]byte) (int, bool) { return 0, false } })
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := silent.DialContext(ctx, "tcp", "10.88.0.1:80")
		var timeout net.Error
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v", err)
		}
	})
	for _, bad := range []struct{ network, address string }{
		{"unix", "/x"}, {"tcp", "10.88.0.1"}, {"tcp", "10.88.0.1:http"}, {"tcp", "10.88.0.1:0"}, {"tcp", "10.88.0.1:65536"},
	} {
		if c, err := a.DialContext(ctx, bad.network, bad.address); err == nil {
			c.Close()
			t.Errorf("dialed %v", bad)
		}
	}
}

func TestErrorsReadAsThoseOfPackageNet(t *testing.T) {
	a, _ := pair(t, configA(), configB(), nil)
	err := a.opError("connect", "tcp", nil, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, syscall.ECONNREFUSED)
	if want := "dial tcp 10.0.0.1:80: connect: connection refused"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestNothingInboundIsAcceptedWithoutAListener(t *testing.T) {
	a, b := pair(t, configA(), configB(), nil)
	u, err := b.ListenUDP(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_, err = b.DialContext(testContext(t), "tcp", "10.88.0.2:22")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("TCP: got %v", err)
	}
	c, err := a.DialContext(testContext(t), "udp", "10.88.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	// ICMP Port Unreachable reaches a connected socket as a refusal (RFC 1122 section 4.1.3.3).
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("UDP: got %v", err)
	}
}

func TestConnBehavesLikeNetConn(t *testing.T) {
	a, b := pair(t, configA(), configB(), nil)
	t.Run("addresses", func(t *testing.T) {
		c, d := connect(t, a, b, addrB)
		local, remote := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
		if !local.IP.Equal(addrA.AsSlice()) || local.String() != d.RemoteAddr().String() || remote.String() != d.LocalAddr().String() {
			t.Errorf("%v-%v, %v-%v", local, remote, d.LocalAddr(), d.RemoteAddr())
		}
	})
	t.Run("half-close leaves the other way open", func(t *testing.T) {
		c, d := connect(t, a, b, addrB)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("got %v, want EOF", err)
		}
		if _, err := d.Write([]byte("still")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "still" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("read deadline in the past and to come", func(t *testing.T) {
		c, _ := connect(t, a, b, addrB)
		for _, d := range []time.Duration{-time.Second, time.Millisecond} {
			_ = c.SetReadDeadline(time.Now().Add(d))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v: got %v", d, err)
			}
		}
	})
	t.Run("a deadline wakes a blocked read, and a later one lets it go on", func(t *testing.T) {
		c, d := connect(t, a, b, addrB)
		got := make(chan error)
		go func() { _, err := c.Read(make([]byte, 1)); got <- err }()
		_ = c.SetDeadline(time.Unix(1, 0))
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_ = c.SetDeadline(time.Time{})
		if _, err := d.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
	t.Run("write deadline when the far end does not read", func(t *testing.T) {
		c, _ := connect(t, a, b, addrB)
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Write(make([]byte, 64<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	t.Run("close wakes a blocked read", func(t *testing.T) {
		c, _ := connect(t, a, b, addrB)
		got := make(chan error)
		go func() { _, err := c.Read(make([]byte, 1)); got <- err }()
		_ = c.Close()
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	})
	t.Run("linger 0 resets", func(t *testing.T) {
		c, d := connect(t, a, b, addrB)
		_ = c.SetLinger(0)
		_ = c.Close()
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("io.Copy of small and big pieces", func(t *testing.T) {
		c, d := connect(t, a, b, addrB)
		data := randomBytes(3 << 20)
		go func() {
			// Pieces below, at and above the idle buffer.
			r := io.MultiReader(bytes.NewReader(data[:100]), bytes.NewReader(data[100:100+relayIdle]), bytes.NewReader(data[100+relayIdle:]))
			_, _ = io.Copy(c, r)
			_ = c.CloseWrite()
		}()
		var got bytes.Buffer
		if n, err := io.Copy(&got, d); err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("copied %d of %d, %v", n, len(data), err)
		}
	})
}

func TestCloseEndsEverythingAtOnce(t *testing.T) {
	cause := errors.New("the session died")
	a, b := pair(t, configA(), configB(), func(ab, _ *wire) {
		// Connections establish, data does not arrive: everything below is blocked when Close comes.
		ab.fate = func(p []byte) (int, bool) {
			if len(p) > 200 {
				return 0, false
			}
			return 1, false
		}
	})
	c, _ := connect(t, a, b, addrB)
	reader, _ := connect(t, a, b, addrB)
	l, err := a.ListenTCP(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := a.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	a.SetDNS([]netip.Addr{netip.MustParseAddr("10.88.0.99")})
	calls := map[string]func() error{
		"write":  func() error { _, err := c.Write(make([]byte, 64<<20)); return err },
		"read":   func() error { _, err := reader.Read(make([]byte, 1)); return err },
		"copy":   func() error { _, err := c.WriteTo(io.Discard); return err },
		"accept": func() error { _, err := l.Accept(); return err },
		"udp":    func() error { _, _, err := u.ReadFrom(make([]byte, 1)); return err },
		"dial":   func() error { _, err := a.DialContext(t.Context(), "tcp", "10.88.0.99:80"); return err },
		"lookup": func() error { _, err := a.LookupNetIP(t.Context(), "ip", "intranet.example"); return err },
		"dial by name": func() error {
			_, err := a.DialContext(t.Context(), "tcp", "intranet.example:80")
			return err
		},
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	var started sync.WaitGroup
	for name, call := range calls {
		started.Add(1)
		go func() {
			started.Done()
			results <- result{name, call()}
		}()
	}
	started.Wait()
	a.Close(cause)
	for range calls {
		if r := <-results; !errors.Is(r.err, cause) {
			t.Errorf("%s: got %v, want %v", r.name, r.err, cause)
		}
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, cause) {
			t.Errorf("%s afterwards: got %v, want %v", name, err, cause)
		}
	}
	if _, err := a.ListenTCP(netip.AddrPort{}); !errors.Is(err, cause) {
		t.Errorf("listen afterwards: %v", err)
	}
	if _, err := a.ListenUDP(netip.AddrPort{}); !errors.Is(err, cause) {
		t.Errorf("listen UDP afterwards: %v", err)
	}
	a.HandlePackets([][]byte{make([]byte, 40)}) // ignored
	a.Close(nil)
	if !errors.Is(a.err, cause) {
		t.Error("the second Close changed the cause")
	}
}

func TestNewAddressReplacesTheOld(t *testing.T) {
	a, _ := pair(t, configA(), configB(), nil)
	next := netip.MustParseAddr("10.88.0.77")
	if err := a.SetIPv4(next, addrB); err != nil {
		t.Fatal(err)
	}
	if got := a.Addresses(); len(got) != 1 || got[0] != next {
		t.Errorf("addresses %v, want %v alone", got, next)
	}
	if err := a.SetIPv4(globalA, addrB); err == nil {
		t.Error("took an IPv6 address for IPv4")
	}
}

func TestConfigIsValidated(t *testing.T) {
	for name, c := range map[string]Config{
		"MTU too small":   {MTU: 575},
		"MTU too big":     {MTU: 65536},
		"IPv6 as IPv4":    {IPv4: globalA},
		"no such control": {Congestion: "bbr9"},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := New(c, newWire()); err == nil {
				s.Close(nil)
				t.Error("no error")
			}
		})
	}
}

// Closed connections must not pile up: TIME-WAIT (RFC 9293 section 3.6) is cut short by Config.TimeWait.
func TestManyShortConnectionsLeaveNothingBehind(t *testing.T) {
	ca, cb := configA(), configB()
	ca.TimeWait, cb.TimeWait = time.Millisecond, time.Millisecond
	a, b := pair(t, ca, cb, nil)
	l, err := b.ListenTCP(netip.AddrPortFrom(addrB, 80))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	})
	for range 300 {
		c, err := a.DialContext(testContext(t), "tcp", "10.88.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		_ = c.(*Conn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		c.Close()
	}
	l.Close()
	serving.Wait()
	for deadline := time.Now().Add(10 * time.Second); len(a.net.RegisteredEndpoints())+len(a.net.CleanupEndpoints()) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d endpoints left", len(a.net.RegisteredEndpoints()))
		}
		runtime.Gosched()
	}
}

// gVisor keeps its endpoint for all of TIME-WAIT, and must not keep our part of the connection with it.
func TestAClosedConnectionIsCollectedDuringTimeWait(t *testing.T) {
	ca, cb := configA(), configB()
	ca.TimeWait = time.Hour
	a, b := pair(t, ca, cb, nil)
	l, err := b.ListenTCP(netip.AddrPortFrom(addrB, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var collected atomic.Bool
	func() {
		x, err := a.DialContext(testContext(t), "tcp", "10.88.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(x.(*Conn), func(struct{}) { collected.Store(true) }, struct{}{})
		y, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		transfer(t, x.(*Conn), y.(*Conn), []byte("hello"))
		y.Close()
		_, _ = io.ReadAll(x)
		x.Close()
	}()
	for deadline := time.Now().Add(10 * time.Second); !collected.Load(); runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("it is still held")
		}
	}
	if n := len(a.net.RegisteredEndpoints()); n == 0 {
		t.Error("there is no TIME-WAIT")
	}
}
