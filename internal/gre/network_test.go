package gre

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/udpbatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

// packet is an enhanced GRE packet to a call with a payload of one byte (RFC 2637 section 4.1).
func packet(callID uint16, payload byte) []byte {
	return []byte{0x30, 0x01, 0x88, 0x0b, 0, 1, byte(callID >> 8), byte(callID), 0, 0, 0, 0, payload}
}

// socket is what Conn and Link have in common.
type socket interface {
	Read() ([]udpbatch.Message, error)
	SetReadDeadline(t time.Time) error
	Close() error
	WritePackets(packets [][]byte, offset int, to netip.Addr) error
	Headroom() int
	Tailroom() int
	MTU(to netip.Addr) int
	Expect(callIDs []uint16) error
	ExpectAll() error
}

var (
	_ socket = (*Conn)(nil)
	_ socket = (*Link)(nil)
)

// collect reads n packets that all come from one address, and returns their payloads.
func collect(t testing.TB, s socket, n int, from netip.Addr) (payloads []byte) {
	t.Helper()
	for len(payloads) < n {
		messages, err := s.Read()
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", len(payloads), n, err)
		}
		for _, m := range messages {
			if m.From != netip.AddrPortFrom(from, 0) {
				t.Fatalf("packet from %v, want %v", m.From, from)
			}
			for _, p := range m.Datagrams {
				if len(p) != 13 || p[0] != 0x30 {
					t.Fatalf("packet %x", p)
				}
				payloads = append(payloads, p[12])
			}
		}
	}
	return payloads
}

func links(t testing.TB) (a, b *Link) {
	n := NewNetwork()
	a, b = n.Open(here), n.Open(there)
	a.ExpectAll()
	b.ExpectAll()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestLinkCarriesPacketsInOrder(t *testing.T) {
	a, b := links(t)
	for i := range byte(100) {
		p := append([]byte("room"), packet(7, i)...)
		if err := a.WritePackets([][]byte{p}, 4, there); err != nil {
			t.Fatal(err)
		}
		clear(p) // borrowed only until WritePackets has returned
	}
	for i, p := range collect(t, b, 100, here) {
		if int(p) != i {
			t.Fatalf("packet %d at place %d", p, i)
		}
	}
}

func TestMessagesOfALinkAreBoundedAndOfOneSource(t *testing.T) {
	n := NewNetwork()
	a, b, c := n.Open(here), n.Open(here), n.Open(there)
	for _, l := range []*Link{a, b, c} {
		defer l.Close()
	}
	c.ExpectAll()
	a.WritePackets(make100(1), 0, there)
	b.WritePackets(make100(2), 0, there)
	messages, err := c.Read()
	if err != nil || len(messages) != 4 {
		t.Fatalf("%d messages, error %v", len(messages), err)
	}
	for i, want := range []int{64, 64, 64, 8} {
		if len(messages[i].Datagrams) != want {
			t.Errorf("message %d has %d packets, want %d", i, len(messages[i].Datagrams), want)
		}
	}
}

func make100(payload byte) (packets [][]byte) {
	for range 100 {
		packets = append(packets, packet(7, payload))
	}
	return packets
}

func TestLinksOfOneAddressAllGetItsPacketsButNotTheirOwn(t *testing.T) {
	n := NewNetwork()
	a, b := n.Open(here), n.Open(here)
	defer a.Close()
	defer b.Close()
	a.ExpectAll()
	b.Expect([]uint16{7})
	a.WritePackets([][]byte{packet(8, 1), packet(7, 2), {1, 2, 3}}, 0, here)
	if got := collect(t, b, 1, here); !bytes.Equal(got, []byte{2}) {
		t.Errorf("got %v", got)
	}
	b.WritePackets([][]byte{packet(9, 3)}, 0, here)
	if got := collect(t, a, 1, here); !bytes.Equal(got, []byte{3}) {
		t.Errorf("got %v", got)
	}
}

func TestNothingPassesALinkBeforeExpect(t *testing.T) {
	n := NewNetwork()
	a, b := n.Open(here), n.Open(there)
	defer a.Close()
	defer b.Close()
	a.WritePackets([][]byte{packet(7, 1)}, 0, there)
	b.Expect([]uint16{7})
	a.WritePackets([][]byte{packet(7, 2)}, 0, there)
	if got := collect(t, b, 1, here); got[0] != 2 {
		t.Errorf("got %v", got)
	}
}

func TestLinkDropsWhatItHasNoRoomFor(t *testing.T) {
	a, b := links(t)
	big := [][]byte{append(packet(7, 1), make([]byte, 1<<20)...)}
	for range 6 {
		a.WritePackets(big, 0, there)
	}
	if n := b.Stats().ReceiveDrops; n != 3 {
		t.Errorf("%d dropped", n)
	}
}

func TestReadOfALinkObeysDeadlineAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := links(t)
		start := time.Now()
		b.SetReadDeadline(start.Add(time.Second))
		if _, err := b.Read(); err != os.ErrDeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		a.WritePackets([][]byte{packet(7, 1)}, 0, there)
		if _, err := b.Read(); err != os.ErrDeadlineExceeded {
			t.Errorf("a packet waits: error %v", err)
		}
		b.SetReadDeadline(time.Time{})
		collect(t, b, 1, here)

		results := make(chan error)
		read := func() { _, err := b.Read(); results <- err }
		go read()
		synctest.Wait()
		b.SetReadDeadline(time.Unix(1, 0)) // ends a Read under way
		if err := <-results; err != os.ErrDeadlineExceeded {
			t.Errorf("error %v", err)
		}
		b.SetReadDeadline(time.Time{})
		go read()
		synctest.Wait()
		b.Close()
		if err := <-results; err != net.ErrClosed {
			t.Errorf("error %v", err)
		}
		if err := errors.Join(b.WritePackets(nil, 0, here), b.SetReadDeadline(time.Time{}), b.Close()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
		if err := a.WritePackets([][]byte{packet(7, 1)}, 0, there); err != nil {
			t.Errorf("to nobody: %v", err)
		}
	})
}

func TestLinkAllocatesNothing(t *testing.T) {
	a, b := links(t)
	packets := make100(1)
	run := func() {
		a.WritePackets(packets, 0, there)
		if _, err := b.Read(); err != nil {
			t.Fatal(err)
		}
	}
	run()
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// RFC 791 section 3.1.
func TestIPv4HeaderIsTakenOff(t *testing.T) {
	header := func(ihl byte, size int) []byte { return append([]byte{0x40 | ihl}, make([]byte, size-1)...) }
	for name, test := range map[string]struct {
		packet []byte
		want   []byte
	}{
		"plain":               {append(header(5, 20), 1, 2), []byte{1, 2}},
		"with options":        {append(header(15, 60), 1, 2), []byte{1, 2}},
		"empty":               {nil, nil},
		"header only":         {header(5, 20), nil},
		"short":               {header(5, 19), nil},
		"options cut":         {append(header(6, 20), 1, 2), nil},
		"length below header": {append(header(4, 20), 1, 2), nil},
		"version 6":           {append([]byte{0x65}, make([]byte, 50)...), nil},
	} {
		if got := ipv4Payload(test.packet); !bytes.Equal(got, test.want) {
			t.Errorf("%s: %x, want %x", name, got, test.want)
		}
	}
	kept := payloads([]udpbatch.Message{
		{Datagrams: [][]byte{header(5, 20)}},
		{Datagrams: [][]byte{header(5, 20), append(header(5, 20), 9)}},
	})
	if len(kept) != 1 || len(kept[0].Datagrams) != 1 || !bytes.Equal(kept[0].Datagrams[0], []byte{9}) {
		t.Errorf("%v", kept)
	}
}

func BenchmarkLink(b *testing.B) {
	from, to := links(b)
	packets := make([][]byte, 32)
	for i := range packets {
		packets[i] = append(packet(7, 0), make([]byte, 1400)...)
	}
	b.SetBytes(32 * 1400)
	b.ReportAllocs()
	for b.Loop() {
		from.WritePackets(packets, 0, there)
		if _, err := to.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
