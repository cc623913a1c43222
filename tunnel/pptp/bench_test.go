package pptp

import (
	"fmt"
	"testing"
	"time"
)

const benchFrame = 1404 // bytes of a PPP frame with a full inner packet of 1400

// countingHandler takes frames and nothing else.
type countingHandler struct{ frames int }

func (h *countingHandler) SessionUp(time.Time)                       {}
func (h *countingHandler) HandleFrames(_ time.Time, frames [][]byte) { h.frames += len(frames) }
func (h *countingHandler) SessionDown(time.Time, error)              {}

// silentCall is an established call whose packets go nowhere.
func silentCall(t testing.TB) (*conversation, *Call, *countingHandler) {
	c := up(t, Config{EchoInterval: -1}, Config{})
	call, handler := c.pns.calls[0], new(countingHandler)
	c.pns.Endpoint.w, call.w, call.handler = quietWriter{}, quietWriter{}, handler
	return c, call, handler
}

// outbound has a batch of frames to write.
func outbound(batch int) [][]byte {
	frames := make([][]byte, batch)
	for i := range frames {
		frames[i] = make([]byte, greMaxSize+benchFrame)
	}
	return frames
}

// inbound has a batch of packets that come, and renumbers them.
type inbound struct {
	packets [][]byte
	buffers [][]byte
	next    uint32
}

func newInbound(call *Call, batch int) *inbound {
	in := new(inbound)
	for range batch {
		in.buffers = append(in.buffers, append(appendGRE(nil, greHeader{callID: call.ID(), sequenced: true}, benchFrame), make([]byte, benchFrame)...))
	}
	in.packets = make([][]byte, batch)
	return in
}

// number gives the packets the next numbers; exchanged, every second comes before its forerunner.
func (in *inbound) number(exchanged bool) [][]byte {
	for i, b := range in.buffers {
		h, _, _ := parseGRE(b)
		h.sequence = in.next
		in.next++
		appendGRE(b[:0], h, benchFrame)
		if exchanged && i^1 < len(in.buffers) {
			i ^= 1
		}
		in.packets[i] = b
	}
	return in.packets
}

func TestDataPathAllocatesNothing(t *testing.T) {
	c, call, handler := silentCall(t)
	frames, in := outbound(32), newInbound(call, 32)
	// Some packets first: the buffers that are used again are made then.
	for range 8 {
		c.pns.Receive(c.now, pacAddr, in.number(true))
	}
	for name, run := range map[string]func(){
		"write":             func() { call.WriteFrames(frames, greMaxSize) },
		"receive":           func() { c.pns.Receive(c.now, pacAddr, in.number(false)) },
		"receive exchanged": func() { c.pns.Receive(c.now, pacAddr, in.number(true)) },
		"acknowledge": func() {
			c.now = c.now.Add(time.Second)
			c.pns.Receive(c.now, pacAddr, in.number(false))
			c.pns.Advance(c.now)
		},
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations for 32 packets", name, n)
		}
	}
	if handler.frames < 3*32*100 {
		t.Errorf("only %d frames went up", handler.frames)
	}
}

func BenchmarkWriteFrames(b *testing.B) {
	for _, batch := range []int{1, 32} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			_, call, _ := silentCall(b)
			frames := outbound(batch)
			b.SetBytes(int64(batch * benchFrame))
			b.ReportAllocs()
			for b.Loop() {
				call.WriteFrames(frames, greMaxSize)
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, exchanged := range []bool{false, true} {
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("batch=%d/exchanged=%v", batch, exchanged), func(b *testing.B) {
				c, call, _ := silentCall(b)
				in := newInbound(call, batch)
				b.SetBytes(int64(batch * benchFrame))
				b.ReportAllocs()
				for b.Loop() {
					c.pns.Receive(c.now, pacAddr, in.number(exchanged))
				}
			})
		}
	}
}

func BenchmarkParseGRE(b *testing.B) {
	packet := append(appendGRE(nil, greHeader{callID: 1, sequenced: true, acknowledges: true, sequence: 2, ack: 3}, benchFrame), make([]byte, benchFrame)...)
	b.SetBytes(benchFrame)
	b.ReportAllocs()
	for b.Loop() {
		parseGRE(packet)
	}
}

func BenchmarkAppendGRE(b *testing.B) {
	packet := make([]byte, 0, greMaxSize)
	b.SetBytes(benchFrame)
	b.ReportAllocs()
	for b.Loop() {
		appendGRE(packet, greHeader{callID: 1, sequenced: true, acknowledges: true, sequence: 2, ack: 3}, benchFrame)
	}
}
