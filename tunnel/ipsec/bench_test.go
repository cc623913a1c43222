package ipsec

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// forgetful is an upper layer that forgets what it is given.
type forgetful struct{}

func (forgetful) HandleDatagrams(time.Time, netip.AddrPort, [][]byte) {}
func (forgetful) HandleIKE(time.Time, netip.AddrPort, []byte)         {}
func (forgetful) RekeyWanted(time.Time, uint32)                       {}

// A batchOf is a batch that can be sealed, or received, again and again.
type batchOf struct {
	t       *Transport
	buffers [][]byte // to be sealed
	sealed  [][]byte
	copies  [][]byte // of sealed, to be opened
	keep    [][]byte // copies, before they are cut
}

const benchBatch = 32

func newBatch(tb testing.TB, transform string, size int) *batchOf {
	c, _ := connected(tb, transform)
	_, ofServer := pairs(transform, 0x1000)
	s := &batchOf{t: NewTransport(Config{AllowNull: true}, nowhere{}, forgetful{})}
	if _, err := s.t.Install(epoch, ofServer); err != nil {
		tb.Fatal(err)
	}
	for range benchBatch {
		b := make([]byte, s.t.Headroom()+size, s.t.Headroom()+size+s.t.Tailroom())
		s.buffers = append(s.buffers, b)
		s.sealed = append(s.sealed, c.seal(tb, server, string(octets(1, size)))[0])
	}
	for _, b := range s.sealed {
		s.keep = append(s.keep, make([]byte, len(b)))
	}
	s.copies = make([][]byte, benchBatch)
	return s
}

func (b *batchOf) seal() error { return b.t.WriteDatagrams(b.buffers, b.t.Headroom(), client) }

// open also copies the packets, some 30 ns each, since they are opened in place.
func (b *batchOf) open() {
	for i, s := range b.sealed {
		copy(b.keep[i], s)
		b.copies[i] = b.keep[i]
	}
	b.t.inbound[0x1001].in.replay = replay{}
	b.t.Receive(epoch, client, b.copies)
}

var benchTransforms = []string{"aes128-sha1", "aes256-sha1", "aes256-sha256", "aes256-sha512", "aes128-md5", "3des-sha1", "3des-md5",
	"aes128gcm16", "aes256gcm16", "aes128gcm8", "null-sha1"}

// One operation is one packet.
func BenchmarkSeal(b *testing.B) {
	eachTransform(b, func(b *testing.B, batch *batchOf) {
		for i := 0; i < b.N; i += benchBatch {
			if err := batch.seal(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	eachTransform(b, func(b *testing.B, batch *batchOf) {
		for i := 0; i < b.N; i += benchBatch {
			batch.open()
		}
		if got := batch.t.Stats(); got.Opened != uint64((b.N+benchBatch-1)/benchBatch*benchBatch) {
			b.Fatal(got)
		}
	})
}

func eachTransform(b *testing.B, run func(*testing.B, *batchOf)) {
	for _, name := range benchTransforms {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("transform=%s/size=%d", name, size), func(b *testing.B) {
				batch := newBatch(b, name, size)
				b.ReportAllocs()
				b.SetBytes(int64(size))
				b.ResetTimer()
				run(b, batch)
			})
		}
	}
}

func TestDataPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops things under the race detector")
	}
	for _, name := range allTransforms() {
		batch := newBatch(t, name, 1400)
		if n := testing.AllocsPerRun(50, func() { batch.seal() }); n != 0 {
			t.Errorf("%s: sealing %d packets allocates %v times", name, benchBatch, n)
		}
		if n := testing.AllocsPerRun(50, batch.open); n != 0 {
			t.Errorf("%s: opening %d packets allocates %v times", name, benchBatch, n)
		}
		if got := batch.t.Stats(); got.Opened != 51*benchBatch || got.Sealed != 51*benchBatch {
			t.Error(name, got)
		}
	}
}
