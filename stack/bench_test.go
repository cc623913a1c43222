package stack

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// discard is a link that costs nothing.
type discard struct{}

func (discard) Headroom() int                    { return 32 }
func (discard) Tailroom() int                    { return 16 }
func (discard) WritePackets([][]byte, int) error { return nil }

func segmentsOf(n, size int) [][]byte {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return marshalAll(flow(baseSegment(false), sizes...))
}

// The pure parts of the data path allocate nothing.
func TestDataPathAllocatesNothing(t *testing.T) {
	packets := segmentsOf(40, 1320)
	var j joiner
	j.plan(packets)
	if n := testing.AllocsPerRun(100, func() { j.plan(packets) }); n != 0 {
		t.Errorf("join: %v allocations for a batch", n)
	}
	super := flow(baseSegment(false), 50000)[0].marshal()
	c := cutter{headroom: 32, tailroom: 16}
	cut := func() {
		c.parts = append(c.parts, super)
		c.beginCut(20, 32, 1320)
		for c.cut() {
		}
		c.release()
	}
	cut()
	if n := testing.AllocsPerRun(100, cut); n != 0 {
		t.Errorf("cut: %v allocations for a super-segment", n)
	}
}

// HandlePackets allocates nothing either, as long as the garbage collector leaves the pools alone. BenchmarkInbound shows the same for
// packets that are read from a connection.
func TestHandlePacketsAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	s, err := New(configB(), discard{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	elsewhere := marshalAll(flow(func() segment {
		b := baseSegment(false)
		b.dst = netip.MustParseAddrPort("10.99.0.1:80")
		return b
	}(), 1320, 1320, 1320, 1320))
	s.HandlePackets(elsewhere)
	if n := testing.AllocsPerRun(1000, func() { s.HandlePackets(elsewhere) }); n >= 1 {
		t.Errorf("%v allocations for a batch", n)
	}
}

func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{1, 8, 40} {
		b.Run(fmt.Sprintf("packets=%d", n), func(b *testing.B) {
			packets := segmentsOf(n, 1320)
			var j joiner
			b.ReportAllocs()
			b.SetBytes(int64(n * 1320))
			for b.Loop() {
				j.plan(packets)
			}
		})
	}
}

func BenchmarkCut(b *testing.B) {
	for _, size := range []int{1320, 50000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			super := flow(baseSegment(false), size)[0].marshal()
			c := cutter{headroom: 32, tailroom: 16}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				c.parts = append(c.parts, super)
				c.beginCut(20, 32, 1320)
				for c.cut() {
				}
				c.release()
			}
		})
	}
}

// A peer is the far end of one established connection, made by hand so that only one stack is measured.
type peer struct {
	mu   sync.Mutex
	last []byte // TCP packet of the stack
	got  chan struct{}
}

func (p *peer) Headroom() int { return 32 }
func (p *peer) Tailroom() int { return 16 }
func (p *peer) WritePackets(packets [][]byte, offset int) error {
	p.mu.Lock()
	p.last = append(p.last[:0], packets[len(packets)-1][offset:]...)
	p.mu.Unlock()
	select {
	case p.got <- struct{}{}:
	default:
	}
	return nil
}

// BenchmarkInbound delivers batches of one connection's segments to a stack whose connection is read.
func BenchmarkInbound(b *testing.B) {
	for _, batch := range []int{1, 8, 40} {
		for _, gro := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/gro=%v", batch, gro), func(b *testing.B) {
				c := configB()
				c.DisableGRO = !gro
				p := &peer{got: make(chan struct{}, 1)}
				s, err := New(c, p)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close(nil)
				l, err := s.ListenTCP(netip.AddrPortFrom(addrB, 80))
				if err != nil {
					b.Fatal(err)
				}
				base := baseSegment(false)
				base.options = []byte{2, 4, 5, 80, 3, 3, 7, 1} // MSS, window scale
				base.flags = header.TCPFlagSyn
				s.HandlePackets([][]byte{base.marshal()})
				<-p.got
				p.mu.Lock()
				base.ack = binary.BigEndian.Uint32(p.last[24:]) + 1
				p.mu.Unlock()
				base.seq++
				base.flags, base.options = header.TCPFlagAck, nil
				s.HandlePackets([][]byte{base.marshal()})
				conn, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				const size = 1360
				data := make([]byte, size)
				packets := make([][]byte, batch)
				for i := range packets {
					base.payload = data
					packets[i] = base.marshal()
				}
				received := make([]byte, batch*size)
				b.ReportAllocs()
				b.SetBytes(int64(batch * size))
				for b.Loop() {
					for _, packet := range packets {
						setSequence(packet, base.seq)
						base.seq += size
					}
					s.HandlePackets(packets)
					if _, err := io.ReadFull(conn, received); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// setSequence rewrites the sequence number and mends the checksum (RFC 1624).
func setSequence(packet []byte, seq uint32) {
	field, sum := packet[24:28], packet[36:38]
	mend := func(old, new uint16) {
		v := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^old) + uint32(new)
		v = v>>16 + v&0xffff
		v = v>>16 + v&0xffff
		binary.BigEndian.PutUint16(sum, ^uint16(v))
	}
	mend(binary.BigEndian.Uint16(field), uint16(seq>>16))
	mend(binary.BigEndian.Uint16(field[2:]), uint16(seq))
	binary.BigEndian.PutUint32(field, seq)
}

// BenchmarkTransfer moves data from one stack to another: outbound and inbound together, with a copy on the wire.
func BenchmarkTransfer(b *testing.B) {
	for _, gso := range []bool{true, false} {
		for _, gro := range []bool{true, false} {
			for _, streams := range []int{1, 8} {
				b.Run(fmt.Sprintf("gso=%v/gro=%v/streams=%d", gso, gro, streams), func(b *testing.B) {
					ca, cb := configA(), configB()
					ca.DisableGSO, cb.DisableGSO = !gso, !gso
					ca.DisableGRO, cb.DisableGRO = !gro, !gro
					s, d := pair(b, ca, cb, nil)
					const piece = 256 << 10
					var ends [][2]*Conn
					for range streams {
						x, y := connect(b, s, d, addrB)
						ends = append(ends, [2]*Conn{x, y})
					}
					b.ReportAllocs()
					b.SetBytes(int64(piece * streams))
					b.ResetTimer()
					var moving sync.WaitGroup
					for _, e := range ends {
						moving.Go(func() {
							buffer := make([]byte, piece)
							for range b.N {
								if _, err := e[0].Write(buffer); err != nil {
									b.Error(err)
								}
							}
						})
						moving.Go(func() {
							if _, err := io.CopyN(io.Discard, e[1], int64(b.N)*piece); err != nil {
								b.Error(err)
							}
						})
					}
					moving.Wait()
				})
			}
		}
	}
}

// BenchmarkOutbound sends datagrams, those beyond the MTU in fragments, to a link that costs nothing.
func BenchmarkOutbound(b *testing.B) {
	for _, size := range []int{100, 1320, 60000} {
		b.Run(fmt.Sprintf("datagram=%d", size), func(b *testing.B) {
			s, err := New(configA(), discard{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close(nil)
			c, err := s.DialContext(b.Context(), "udp", "10.88.0.1:9")
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := c.Write(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
