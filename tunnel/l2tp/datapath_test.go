package l2tp

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// void is a DatagramWriter that sends nowhere.
type void struct{ datagrams int }

func (v *void) WriteDatagrams(datagrams [][]byte, _ int, _ netip.AddrPort) error {
	v.datagrams += len(datagrams)
	return nil
}
func (*void) Headroom() int          { return 0 }
func (*void) Tailroom() int          { return 0 }
func (*void) MTU(netip.AddrPort) int { return 1472 }

type countingHandler struct{ frames int }

func (*countingHandler) SessionUp(time.Time)                         {}
func (h *countingHandler) HandleFrames(_ time.Time, frames [][]byte) { h.frames += len(frames) }
func (*countingHandler) SessionDown(time.Time, error)                {}

const benchFrame = 1404 // bytes of PPP

// liveSession is a session in the void, the batch that it writes and the batch that it receives.
func liveSession(t testing.TB, c Config, size int) (e *Endpoint, s *Session, h *countingHandler, out, in [][]byte) {
	p := connected(t, c, Config{})
	e, s, h = p.lac.Endpoint, p.lacSession.s, &countingHandler{}
	e.w, s.w = &void{}, &void{}
	s.handler = h
	for range size {
		out = append(out, make([]byte, maxHeaderSize+benchFrame))
		hd := header{tunnelID: s.tunnel.id, sessionID: s.id, sequenced: c.Sequencing}
		in = append(in, append(appendHeader(nil, hd, benchFrame), make([]byte, benchFrame)...))
	}
	return e, s, h, out, in
}

func TestDataPathAllocatesNothing(t *testing.T) {
	for _, c := range []Config{{}, {LengthBit: true, Sequencing: true}} {
		for _, size := range []int{1, 32} {
			e, s, h, out, in := liveSession(t, c, size)
			now, ns := epoch.Add(time.Hour), uint16(0)
			if n := testing.AllocsPerRun(100, func() {
				if err := s.WriteFrames(out, maxHeaderSize); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%d frames out: %v allocations", size, n)
			}
			if n := testing.AllocsPerRun(100, func() {
				renumber(in, &ns, c.Sequencing)
				e.Receive(now, addrLNS, in)
			}); n != 0 {
				t.Errorf("%d frames in: %v allocations", size, n)
			}
			if h.frames != 101*size {
				t.Error("frames:", h.frames)
			}
		}
	}
}

// Once its slots have memory, the reorder window needs no more.
func TestReorderingAllocatesNothing(t *testing.T) {
	e, s, h, _, in := liveSession(t, Config{Sequencing: true}, reorderWindow)
	ns := uint16(0)
	swap := func() {
		renumber(in, &ns, true)
		for i := 0; i < len(in); i += 2 {
			in[i], in[i+1] = in[i+1], in[i]
		}
		e.Receive(epoch, addrLNS, in)
	}
	swap()
	if n := testing.AllocsPerRun(100, swap); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if h.frames != 102*reorderWindow || s.Stats().Lost+s.Stats().Late != 0 {
		t.Errorf("%d frames, %+v", h.frames, s.Stats())
	}
}

func renumber(in [][]byte, ns *uint16, sequenced bool) {
	if !sequenced {
		return
	}
	for _, d := range in {
		h, _, _ := parseHeader(d)
		h.ns = *ns
		*ns++
		appendHeader(d[:0], h, 0)
	}
}

func TestWritersRunBesideTheLoop(t *testing.T) {
	e, s, _, out, in := liveSession(t, Config{}, 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			s.WriteFrames(out, maxHeaderSize)
			s.MTU()
			s.Stats()
			e.Stats()
		}
	}()
	for i := range 1000 {
		in[0][0] = byte(i%2) * 8 // S comes and goes, if the rest of the header allows
		e.Receive(epoch, addrLNS, in)
	}
	s.Close(epoch)
	<-done
	if err := s.WriteFrames(out, maxHeaderSize); err != ErrClosed {
		t.Error(err)
	}
}

func BenchmarkWriteFrames(b *testing.B) {
	for _, size := range []int{1, 32} {
		b.Run(fmt.Sprint("batch ", size), func(b *testing.B) {
			_, s, _, out, _ := liveSession(b, Config{}, size)
			b.SetBytes(int64(size * benchFrame))
			b.ReportAllocs()
			for b.Loop() {
				s.WriteFrames(out, maxHeaderSize)
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{1, 32} {
		for _, sequenced := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch %d S=%v", size, sequenced), func(b *testing.B) {
				e, _, _, _, in := liveSession(b, Config{Sequencing: sequenced}, size)
				ns := uint16(0)
				b.SetBytes(int64(size * benchFrame))
				b.ReportAllocs()
				for b.Loop() {
					renumber(in, &ns, sequenced)
					e.Receive(epoch, addrLNS, in)
				}
			})
		}
	}
}

// FuzzReceive throws datagrams at an Endpoint with a live tunnel and session, and lets time pass. The input is a row of datagrams, each
// behind a byte of length and a byte that says how much of its header is made to fit the live state.
func FuzzReceive(f *testing.F) {
	for kind := range messageRules {
		b := legalBody(kind, 0)
		d := append(appendHeader(nil, header{control: true, length: true, sequenced: true}, len(b)), b...)
		f.Add(append([]byte{byte(len(d)), 3}, d...), kind%2 == 0)
		f.Add(append([]byte{byte(len(d)), 7}, d...), kind%2 == 1)
		f.Add(append([]byte{byte(len(d)), 0}, d...), true)
	}
	data := appendHeader(nil, header{sequenced: true, ns: 3}, 0)
	f.Add(append([]byte{byte(len(data) + 2), 6}, append(data, 0xff, 3)...), true)
	f.Fuzz(func(t *testing.T, input []byte, up bool) {
		p := newPair(t, Config{Secret: nil, OutgoingCalls: true}, Config{})
		p.lac.config.AcceptTunnel = func(netip.AddrPort, string) (TunnelHandler, error) { return &tunnelLog{}, nil }
		var s *Session
		if up {
			p.tunnel()
			p.lacSession, p.lnsSession = p.session()
			p.run(time.Second)
			s = p.lacSession.s
		} else {
			p.dial()
		}
		delete(p.ports, addrLNS)
		for range 200 {
			if len(input) < 2 {
				break
			}
			size, fit := min(int(input[0]), len(input)-2), input[1]
			d := bytes.Clone(input[2 : 2+size])
			input = input[2+size:]
			if h, payload, err := parseHeader(d); err == nil {
				if fit&1 != 0 {
					h.ns, h.nr = p.dialed.delivery.nr, p.dialed.delivery.ns
				}
				if fit&2 != 0 {
					h.tunnelID = p.dialed.id
				}
				if fit&4 != 0 && s != nil {
					h.sessionID = s.id
				}
				d = append(appendHeader(nil, h, len(payload)), payload...)
			}
			p.lac.Receive(p.now, addrLNS, [][]byte{d})
			p.run(time.Duration(fit>>3) * 10 * time.Millisecond)
		}
		d := &p.dialed.delivery
		if len(d.ahead) >= d.receiveWindow || len(d.queue) > maxQueue || p.lac.live() > maxHalfOpen+1 {
			t.Fatal("a table has no bound")
		}
		if p.lacTunnel.downs > 1 || up && p.lacSession.downs > 1 {
			t.Fatal("a handler heard of the end twice")
		}
		p.lac.Close(p.now)
		p.run(3 * time.Minute)
		if p.lacTunnel.downs != 1 || !p.lac.Idle() || len(p.lac.tunnels)+len(p.lac.Endpoint.sessions) > 0 {
			t.Fatal("something is left after the end")
		}
	})
}
