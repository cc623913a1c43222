package stack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echoUDP answers each datagram with itself until the socket closes.
func echoUDP(t testing.TB, s *Stack, on netip.AddrPort) netip.AddrPort {
	t.Helper()
	c, err := s.ListenUDP(on)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if _, err := c.WriteToUDPAddrPort(b[:n], from); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestUDPOfAllSizesIsEchoed(t *testing.T) {
	a, b := pair(t, dualA(), dualB(), nil)
	for _, addr := range []netip.Addr{addrB, globalB} {
		on := echoUDP(t, b, netip.AddrPortFrom(addr, 7))
		c, err := a.DialContext(t.Context(), "udp", on.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, 65535)
		for _, n := range []int{0, 1, 1372, 1373, 5000, 60000} { // beyond 1372 in fragments (RFC 791 section 3.2, RFC 8200 section 4.5)
			want := randomBytes(n)
			if _, err := c.Write(want); err != nil {
				t.Fatal(n, err)
			}
			m, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:m], want) {
				t.Fatalf("%d bytes: got %d, %v", n, m, err)
			}
		}
		if _, err := c.Write(make([]byte, 65536)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too long: %v", err)
		}
		if u := c.RemoteAddr().(*net.UDPAddr); u.String() != on.String() {
			t.Errorf("remote address %v", u)
		}
	}
}

func TestOneUDPSocketReachesBothFamilies(t *testing.T) {
	a, b := pair(t, dualA(), dualB(), nil)
	on4, on6 := echoUDP(t, b, netip.AddrPortFrom(addrB, 7)), echoUDP(t, b, netip.AddrPortFrom(globalB, 7))
	c, err := a.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, 100)
	for _, to := range []netip.AddrPort{on4, on6} {
		if _, err := c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.ReadFrom(got)
		if err != nil || string(got[:n]) != "hello" || from.(*net.UDPAddr).AddrPort() != to {
			t.Errorf("%q from %v, want %v, %v", got[:n], from, to, err)
		}
	}
	if _, err := c.WriteTo([]byte("x"), &net.TCPAddr{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("wrote to a TCP address: %v", err)
	}
}

func TestListenPacketAddresses(t *testing.T) {
	a, _ := pair(t, dualA(), dualB(), nil)
	tests := []struct {
		network, address, want string // "" is an error
	}{
		{"udp", "10.88.0.2:5000", "10.88.0.2:5000"},
		{"udp4", ":5001", "0.0.0.0:5001"},
		{"udp6", "[fd88::a]:5002", "[fd88::a]:5002"},
		{"udp4", "[fd88::a]:5003", ""},
		{"udp6", "10.88.0.2:5003", ""},
		{"udp", "192.0.2.1:5003", ""}, // not ours
		{"udp", "host.example:5003", ""},
		{"udp", "10.88.0.2:domain", ""},
		{"udp", "10.88.0.2", ""},
		{"tcp", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			c, err := a.ListenPacket(t.Context(), tt.network, tt.address)
			if err != nil {
				if tt.want != "" {
					t.Error(err)
				}
				return
			}
			defer c.Close()
			if got := c.LocalAddr().(*net.UDPAddr); tt.want == "" || got.Port != int(netip.MustParseAddrPort(tt.want).Port()) {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
	first, err := a.ListenUDP(netip.AddrPortFrom(addrA, 6000))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := a.ListenUDP(netip.AddrPortFrom(addrA, 6000)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second socket on a port: %v", err)
	}
}

// A checksum failure must be seen wherever it happens: by us in segments that could be joined, by gVisor elsewhere, in fragments after
// reassembly.
func TestCorruptPacketsAreNotDelivered(t *testing.T) {
	for _, size := range []int{100, 5000} {
		for _, to := range []netip.Addr{addrB, globalB} {
			var corrupt atomic.Bool
			a, b := pair(t, dualA(), dualB(), func(ab, _ *wire) {
				ab.tap = func(p []byte) {
					if corrupt.Load() {
						p[len(p)-1] ^= 0x10
					}
				}
			})
			on := echoUDP(t, b, netip.AddrPortFrom(to, 7))
			c, err := a.DialContext(t.Context(), "udp", on.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			corrupt.Store(true)
			if _, err := c.Write(randomBytes(size)); err != nil {
				t.Fatal(err)
			}
			corrupt.Store(false)
			if _, err := c.Write([]byte("intact")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			got := make([]byte, 65535)
			n, err := c.Read(got)
			if err != nil || string(got[:n]) != "intact" {
				t.Errorf("%d bytes to %v: got %d bytes, %v", size, to, n, err)
			}
			if b.Stats().BadChecksums != 1 {
				t.Errorf("%d bytes to %v: %d bad checksums counted, want 1", size, to, b.Stats().BadChecksums)
			}
		}
	}
}

func TestCorruptSegmentsAreSentAgain(t *testing.T) {
	n := 0
	a, b := pair(t, configA(), configB(), func(ab, _ *wire) {
		ab.tap = func(p []byte) {
			if n++; n%50 == 0 {
				p[len(p)-1] ^= 0x10
			}
		}
	})
	c, d := connect(t, a, b, addrB)
	transfer(t, c, d, randomBytes(1<<20))
	if b.Stats().BadChecksums == 0 {
		t.Error("no bad checksum counted")
	}
}

func TestUDPDeadlines(t *testing.T) {
	a, _ := pair(t, configA(), configB(), nil)
	c, err := a.ListenUDP(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, _, err := c.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	got := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); got <- err }()
	_ = c.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// icmpEcho is an Echo Request (RFC 792, RFC 4443 section 4.1) from src to dst.
func icmpEcho(src, dst netip.Addr) []byte {
	if src.Is4() {
		p := []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, protocolICMP, 0, 0}
		p = append(append(p, src.AsSlice()...), dst.AsSlice()...)
		p = append(p, 8, 0, 0, 0, 0, 9, 0, 1)
		binary.BigEndian.PutUint16(p[10:], ^sum16(p[:20]))
		binary.BigEndian.PutUint16(p[22:], ^sum16(p[20:]))
		return p
	}
	p := []byte{0x60, 0, 0, 0, 0, 8, protocolICMPv6, 64}
	p = append(append(p, src.AsSlice()...), dst.AsSlice()...)
	p = append(p, 128, 0, 0, 0, 0, 9, 0, 1)
	binary.BigEndian.PutUint16(p[42:], ^icmpv6Sum(p))
	return p
}

func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// lone makes a stack whose packets go to out.
func lone(t testing.TB, c Config, out chan []byte) *Stack {
	t.Helper()
	s, err := New(c, sink(out))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(nil) })
	return s
}

// A sink hands packets to a channel, or drops them when nobody waits.
type sink chan []byte

func (s sink) Headroom() int { return 0 }
func (s sink) Tailroom() int { return 0 }
func (s sink) WritePackets(packets [][]byte, offset int) error {
	for _, p := range packets {
		select {
		case s <- bytes.Clone(p[offset:]):
		default:
			return errors.New("full")
		}
	}
	return nil
}

func TestEchoRequestsAreAnswered(t *testing.T) {
	out := make(chan []byte, 10)
	a := lone(t, dualA(), out)
	for _, tt := range []struct {
		src, dst netip.Addr
		reply    byte
		at       int
	}{{addrB, addrA, 0, 20}, {globalB, globalA, 129, 40}} {
		a.HandlePackets([][]byte{icmpEcho(tt.src, tt.dst)})
		select {
		case p := <-out:
			if p[tt.at] != tt.reply {
				t.Errorf("got %x", p)
			}
		default:
			t.Errorf("%v: no answer", tt.dst)
		}
	}
}

func TestNoiseIsDropped(t *testing.T) {
	out := make(chan []byte, 100)
	a := lone(t, dualA(), out)
	echo4, echo6 := icmpEcho(addrB, addrA), icmpEcho(globalB, globalA)
	for _, p := range [][]byte{echo4, echo6} {
		for n := range len(p) - 8 { // headers and less
			a.HandlePackets([][]byte{bytes.Clone(p[:n])})
		}
	}
	foreign := icmpEcho(addrB, netip.MustParseAddr("192.0.2.9"))
	for _, p := range [][]byte{{}, {0}, {0xff}, {0x50, 1, 2}, foreign} {
		a.HandlePackets([][]byte{p})
	}
	if len(out) > 0 {
		t.Errorf("answered %x", <-out)
	}
	if a.Stats().DroppedIn == 0 {
		t.Error("nothing counted")
	}
}

// RFC 1191 section 3: Fragmentation Needed lowers what is sent to its destination.
func TestFragmentationNeededLowersThePathMTU(t *testing.T) {
	const smaller = 700
	var b *Stack
	var toA *wire
	a, b := pair(t, configA(), configB(), func(ab, ba *wire) {
		toA = ba
		ab.fate = func(p []byte) (int, bool) {
			if len(p) <= smaller {
				return 1, false
			}
			_ = toA.WritePackets([][]byte{append(make([]byte, ba.headroom, 200+ba.headroom+ba.tailroom), fragmentationNeeded(p, smaller)...)}, ba.headroom)
			return 0, false
		}
	})
	c, d := connect(t, a, b, addrB)
	transfer(t, c, d, randomBytes(200_000))
}

func fragmentationNeeded(about []byte, mtu uint16) []byte {
	p := []byte{0x45, 0, 0, 56, 0, 1, 0, 0, 64, protocolICMP, 0, 0, 10, 88, 0, 9, 10, 88, 0, 2, 3, 4, 0, 0, 0, 0}
	p = binary.BigEndian.AppendUint16(p, mtu)
	p = append(p, about[:28]...)
	binary.BigEndian.PutUint16(p[10:], ^sum16(p[:20]))
	binary.BigEndian.PutUint16(p[22:], ^sum16(p[20:]))
	return p
}

func TestRefusedPacketsAreCounted(t *testing.T) {
	a := lone(t, configA(), nil)
	c, err := a.DialContext(t.Context(), "udp", "10.88.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("the link's refusal reached the caller: %v", err)
	}
	if got := a.Stats().DroppedOut; got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}
