package udpbatch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// variant is one way to move datagrams: every off switch, every kernel that refuses, and the portable twin.
type variant struct {
	name   string
	config Config
	engine func(*net.UDPConn, Config, *counters) (engine, error)
}

func portableVariants() []variant {
	return []variant{
		{"default", Config{}, newEngine},
		{"no GSO", Config{DisableGSO: true}, newEngine},
		{"no GRO", Config{DisableGRO: true}, newEngine},
		{"no batch", Config{DisableBatch: true}, newEngine},
		{"all off", Config{DisableBatch: true, DisableGSO: true, DisableGRO: true}, newEngine},
		{"portable", Config{}, newPortable},
	}
}

var (
	loopback4 = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	loopback6 = netip.AddrPortFrom(netip.IPv6Loopback(), 0)
)

func (v variant) listen(t testing.TB, local netip.AddrPort) *Conn {
	t.Helper()
	c := v.config
	if !c.Local.IsValid() {
		c.Local = local
	}
	conn, err := listen(t.Context(), c, v.engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// Not a measure of time: only so that a loss ends the test instead of hanging it.
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func open(t testing.TB, c Config) *Conn {
	t.Helper()
	return variant{"", c, newEngine}.listen(t, loopback4)
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	l.Close()
}

// collect reads n datagrams, and checks that all are from one source.
func collect(t testing.TB, c *Conn, n int, from netip.AddrPort) [][]byte {
	t.Helper()
	var all [][]byte
	for len(all) < n {
		messages, err := c.Read()
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(all), n, err)
		}
		if len(messages) == 0 {
			t.Fatal("Read returned nothing and no error")
		}
		for _, m := range messages {
			if m.From != from {
				t.Fatalf("from %v, want %v", m.From, from)
			}
			for _, d := range m.Datagrams {
				all = append(all, bytes.Clone(d))
				clear(d) // the reader may overwrite: this must hurt no other
			}
		}
	}
	return all
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// alternate makes sizes of which no two neighbours make a run for long.
func alternate(n, a, b int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = a + i%2*(b-a)
	}
	return all
}

// traffic is what every pair of variants has to bring over. No case exceeds a receive buffer of 208 KiB.
var traffic = map[string][]int{
	"one":                    {1},
	"one empty":              {0},
	"empty among others":     {10, 0, 10, 0, 0, 3},
	"one packet":             {1400},
	"two equal":              {1400, 1400},
	"odd tail":               {1400, 1400, 1400, 7},
	"growing":                {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
	"falling":                {10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
	"acknowledgements":       {52, 52, 64, 52, 1400, 52, 52},
	"more than 64 segments":  repeat(100, 600),
	"more than 65507 bytes":  repeat(60, 1400),
	"more than one sendmmsg": alternate(150, 1, 2),
	"more than 256 vectors":  repeat(300, 9),
	"beyond Ethernet":        {1473, 1473, 9000, 9000, 1},
	"largest":                {65507},
	"two largest":            {65507, 65507},
	"halves":                 {32753, 32753, 32754},
}

func TestEverySendPathReachesEveryReceivePath(t *testing.T) {
	for _, out := range variants() {
		for _, in := range variants() {
			t.Run(out.name+" to "+in.name, func(t *testing.T) { bringOver(t, out, in, loopback4) })
		}
	}
}

func TestIPv6(t *testing.T) {
	needIPv6(t)
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { bringOver(t, v, v, loopback6) })
	}
}

func bringOver(t *testing.T, out, in variant, local netip.AddrPort) {
	receiver, sender := in.listen(t, local), out.listen(t, local)
	r := rand.New(rand.NewPCG(1, 2))
	const offset = 5
	for name, sizes := range traffic {
		var sent, want [][]byte
		for _, n := range sizes {
			d := random(r, offset+n)
			sent, want = append(sent, d), append(want, bytes.Clone(d[offset:]))
		}
		if err := sender.WriteDatagrams(sent, offset, receiver.LocalAddr()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := collect(t, receiver, len(want), sender.LocalAddr())
		for i := range want {
			if i >= len(got) || !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s: datagram %d of %d differs", name, i, len(want))
			}
			if !bytes.Equal(sent[i][offset:], want[i]) {
				t.Fatalf("%s: WriteDatagrams changed datagram %d", name, i)
			}
		}
	}
	s, r2 := sender.Stats(), receiver.Stats()
	if s.SentDatagrams != r2.ReceivedDatagrams || s.SentBytes != r2.ReceivedBytes || s.SendDrops != 0 || r2.ReceiveTruncated != 0 {
		t.Errorf("sent %+v, received %+v", s, r2)
	}
}

func TestEverySizeArrives(t *testing.T) {
	in, out := open(t, Config{}), open(t, Config{})
	r := rand.New(rand.NewPCG(3, 4))
	payload := random(r, maxPayload)
	sizes := []int{maxPayload, maxPayload - 1}
	for n := 1; n <= maxPayload; n += 1 + n/16 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		batch := [][]byte{payload[:n], payload[maxPayload-n:]}
		if err := out.WriteDatagrams(batch, 0, in.LocalAddr()); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		for i, got := range collect(t, in, 2, out.LocalAddr()) {
			if !bytes.Equal(got, batch[i]) {
				t.Fatalf("%d bytes: datagram %d differs", n, i)
			}
		}
	}
}

func TestDatagramThatIsTooLongIsDroppedAlone(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			in, out := v.listen(t, loopback4), v.listen(t, loopback4)
			err := out.WriteDatagrams([][]byte{{1}, make([]byte, maxPayload+1), {2}}, 0, in.LocalAddr())
			if !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("error %v, want EMSGSIZE", err)
			}
			got := collect(t, in, 2, out.LocalAddr())
			if !bytes.Equal(bytes.Join(got, nil), []byte{1, 2}) {
				t.Errorf("got %x", got)
			}
			if n := out.Stats().SendDrops; n != 1 {
				t.Errorf("%d dropped, want 1", n)
			}
		})
	}
}

func TestEmptyBatchSendsNothing(t *testing.T) {
	for _, v := range variants() {
		c := v.listen(t, loopback4)
		if err := c.WriteDatagrams(nil, 0, c.LocalAddr()); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		if n := c.Stats().SendCalls; n != 0 {
			t.Errorf("%s: %d system calls", v.name, n)
		}
	}
}

func TestNoDestinationIsAnError(t *testing.T) {
	c := open(t, Config{})
	for _, to := range []netip.AddrPort{{}, loopback4, netip.AddrPortFrom(netip.Addr{}, 1701)} {
		if err := c.WriteDatagrams([][]byte{{1}}, 0, to); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("to %v: %v", to, err)
		}
	}
}

func TestOtherFamilyIsAnError(t *testing.T) {
	for _, v := range variants() {
		c := v.listen(t, loopback4)
		if err := c.WriteDatagrams([][]byte{{1}, {2}}, 0, netip.AddrPortFrom(netip.IPv6Loopback(), 1701)); err == nil {
			t.Errorf("%s: an IPv4 socket sent to ::1", v.name)
		}
		if n := c.Stats().SendDrops; n != 2 {
			t.Errorf("%s: %d dropped, want 2", v.name, n)
		}
	}
}

func TestOneSocketServesBothFamilies(t *testing.T) {
	needIPv6(t)
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			v.config.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
			both := v.listen(t, netip.AddrPort{})
			for _, local := range []netip.AddrPort{loopback4, loopback6} {
				peer := variant{"", Config{}, newEngine}.listen(t, local)
				to := netip.AddrPortFrom(local.Addr(), both.LocalAddr().Port())
				if err := peer.WriteDatagrams([][]byte{[]byte("ask")}, 0, to); err != nil {
					t.Fatal(err)
				}
				collect(t, both, 1, peer.LocalAddr()) // not ::ffff:127.0.0.1
				mapped := netip.AddrPortFrom(netip.AddrFrom16(local.Addr().As16()), peer.LocalAddr().Port())
				for _, to := range []netip.AddrPort{peer.LocalAddr(), mapped} {
					if err := both.WriteDatagrams([][]byte{[]byte("answer")}, 0, to); err != nil {
						t.Fatal(err)
					}
					collect(t, peer, 1, netip.AddrPortFrom(local.Addr(), both.LocalAddr().Port()))
				}
			}
		})
	}
}

func TestZeroConfigBindsAnyAddressAndPort(t *testing.T) {
	for network, is4 := range map[string]bool{"": false, "udp": false, "udp4": true} {
		c, err := Listen(t.Context(), Config{Network: network})
		if err != nil {
			t.Fatal(err)
		}
		local := c.LocalAddr()
		if !local.Addr().IsUnspecified() || local.Port() == 0 || is4 && !local.Addr().Is4() {
			t.Errorf("network %q: bound to %v", network, local)
		}
		c.Close()
	}
}

func TestListenFails(t *testing.T) {
	taken := open(t, Config{})
	for name, c := range map[string]Config{
		"port in use":     {Local: taken.LocalAddr()},
		"foreign address": {Local: netip.MustParseAddrPort("192.0.2.1:0")},
		"not UDP":         {Network: "unixgram"},
		"wrong family":    {Network: "udp6", Local: loopback4},
	} {
		if conn, err := Listen(t.Context(), c); err == nil {
			conn.Close()
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := Listen(ctx, Config{}); err == nil {
		conn.Close()
		t.Error("no error though cancelled")
	}
}

func TestMessagesAreSplitBySource(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			in := v.listen(t, loopback4)
			a, b := v.listen(t, loopback4), v.listen(t, loopback4)
			want := []string{"a1", "a2", "b1", "a3", "b2", "b3"}
			for _, w := range want {
				from := map[byte]*Conn{'a': a, 'b': b}[w[0]]
				if err := from.WriteDatagrams([][]byte{[]byte(w)}, 0, in.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			names := map[netip.AddrPort]byte{a.LocalAddr(): 'a', b.LocalAddr(): 'b'}
			for len(want) > 0 {
				messages, err := in.Read()
				if err != nil {
					t.Fatal(err)
				}
				for i, m := range messages {
					if i > 0 && messages[i-1].From == m.From {
						t.Error("one source in two messages, one after the other")
					}
					for _, d := range m.Datagrams {
						if string(d) != want[0] || names[m.From] != d[0] {
							t.Fatalf("got %q from %c, want %q", d, names[m.From], want[0])
						}
						want = want[1:]
					}
				}
			}
		})
	}
}

func TestReadEndsAtDeadline(t *testing.T) {
	for _, v := range variants() {
		c := v.listen(t, loopback4)
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(); err != os.ErrDeadlineExceeded {
			t.Errorf("%s: %v", v.name, err)
		}
		// And goes on after it.
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteDatagrams([][]byte{{1}}, 0, c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		collect(t, c, 1, c.LocalAddr())
	}
}

func TestReadUnderWayIsEnded(t *testing.T) {
	for _, v := range variants() {
		for want, end := range map[error]func(*Conn) error{
			os.ErrDeadlineExceeded: func(c *Conn) error { return c.SetReadDeadline(time.Unix(1, 0)) },
			net.ErrClosed:          (*Conn).Close,
		} {
			c := v.listen(t, loopback4)
			failed := make(chan error)
			go func() {
				_, err := c.Read()
				failed <- err
			}()
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			if err := <-failed; err != want {
				t.Errorf("%s: %v, want %v", v.name, err, want)
			}
		}
	}
}

func TestClosedSocketFailsClearly(t *testing.T) {
	for _, v := range variants() {
		c := v.listen(t, loopback4)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(); err != net.ErrClosed {
			t.Errorf("%s: Read: %v", v.name, err)
		}
		if err := c.WriteDatagrams([][]byte{{1}}, 0, loopbackPort(9)); err != net.ErrClosed {
			t.Errorf("%s: WriteDatagrams: %v", v.name, err)
		}
		if err := c.SetReadDeadline(time.Time{}); err != net.ErrClosed {
			t.Errorf("%s: SetReadDeadline: %v", v.name, err)
		}
		if err := c.Close(); err != net.ErrClosed {
			t.Errorf("%s: Close: %v", v.name, err)
		}
		c.Stats()
		c.BufferSizes()
	}
}

func loopbackPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4.Addr(), port) }

func TestConcurrentWritersKeepTheirOwnOrder(t *testing.T) {
	const writers, batches, batch = 8, 60, 10
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			in, out := v.listen(t, loopback4), v.listen(t, loopback4)
			room := make(chan struct{}, 10) // batches under way: what a receive buffer surely holds
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for b := range batches {
						var datagrams [][]byte
						for i := range batch {
							d := make([]byte, 8+100*(w+i/8))
							binary.BigEndian.PutUint32(d, uint32(w))
							binary.BigEndian.PutUint32(d[4:], uint32(b*batch+i))
							datagrams = append(datagrams, d)
						}
						room <- struct{}{}
						if err := out.WriteDatagrams(datagrams, 0, in.LocalAddr()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			var next [writers]uint32
			for n := 0; n < writers*batches*batch; {
				messages, err := in.Read()
				if err != nil {
					t.Error(err)
					break
				}
				for _, m := range messages {
					for _, d := range m.Datagrams {
						w, i := binary.BigEndian.Uint32(d), binary.BigEndian.Uint32(d[4:])
						if next[w] != i {
							t.Fatalf("writer %d: datagram %d, want %d", w, i, next[w])
						}
						next[w]++
						if n++; n%batch == 0 {
							<-room
						}
					}
				}
			}
			all.Wait()
		})
	}
}

func TestDataPathAllocatesNothing(t *testing.T) {
	for _, v := range variants() {
		if raceEnabled {
			t.Skip("the race detector makes pools forget on purpose")
		}
		in, out := v.listen(t, loopback4), v.listen(t, loopback4)
		datagrams := sized(16, append(repeat(46, 1400), 52, 1400, 52)...)
		to := in.LocalAddr()
		move := func() {
			if err := out.WriteDatagrams(datagrams, 16, to); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < len(datagrams); {
				messages, err := in.Read()
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range messages {
					n += len(m.Datagrams)
				}
			}
		}
		move()
		if n := testing.AllocsPerRun(100, move); n != 0 {
			t.Errorf("%s: %v allocations for a batch", v.name, n)
		}
	}
}

func TestMTULeavesRoomForTheHeaders(t *testing.T) {
	c := open(t, Config{})
	small := open(t, Config{OuterMTU: 1300})
	tiny := open(t, Config{OuterMTU: 20})
	for _, test := range []struct {
		conn *Conn
		to   string
		want int
	}{
		{c, "127.0.0.1:1701", 1500 - 20 - 8}, // RFC 791, RFC 768
		{c, "127.0.0.1:500", 1500 - 20 - 8},
		{c, "[::ffff:127.0.0.1]:1701", 1500 - 20 - 8},
		{c, "[::1]:1701", 1500 - 40 - 8}, // RFC 8200
		{small, "127.0.0.1:1701", 1272},
		{small, "[::1]:1701", 1252},
		{tiny, "[::1]:1701", 0},
	} {
		if got := test.conn.MTU(netip.MustParseAddrPort(test.to)); got != test.want {
			t.Errorf("to %s: %d, want %d", test.to, got, test.want)
		}
	}
	if c.Headroom() != 0 || c.Tailroom() != 0 {
		t.Error("a UDP socket asks for room around the payload")
	}
}

func TestBufferSizesTellWhatWasGranted(t *testing.T) {
	asked, read, write := open(t, Config{ReadBuffer: 100_000, WriteBuffer: 90_000}).BufferSizes()
	if asked != 100_000 || read < 100_000 || write < 90_000 {
		t.Errorf("asked %d, granted %d and %d", asked, read, write)
	}
	asked, read, write = open(t, Config{}).BufferSizes()
	if asked != 4<<20 || read < 1<<16 || write < 1<<16 {
		t.Errorf("asked %d, granted %d and %d", asked, read, write)
	}
}

func TestErrorsSayWhoAndWhy(t *testing.T) {
	e := &PeerError{loopbackPort(1701), syscall.ECONNREFUSED}
	if got := e.Error(); got != "udpbatch: 127.0.0.1:1701: connection refused" {
		t.Error(got)
	}
	if !errors.Is(fmt.Errorf("dial: %w", e), syscall.ECONNREFUSED) {
		t.Error("the errno is hidden")
	}
}
