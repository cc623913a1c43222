package pptp

import (
	"bytes"
	"testing"
	"time"
)

// FuzzControlStream gives a peer's bytes, cut into pieces, to a PNS that waits for the reply, to one with a call up, and to a PAC.
func FuzzControlStream(f *testing.F) {
	var all []byte
	for _, g := range goldenMessages {
		wire := unhex(f, g.wire)
		f.Add(wire, 5)
		all = append(all, wire...)
	}
	f.Add(all, 100)
	f.Add(bytes.Repeat(unhex(f, goldenMessages[6].wire), 5), 168)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		waiting := converse(t, Config{}, Config{})
		waiting.pns.connection = waiting.pns.Dial(waiting.now, pacAddr, waiting.pns, waiting.pns)
		calling := up(t, Config{}, Config{MaxCalls: 3})
		for _, n := range []*node{waiting.pns, calling.pns, calling.pac} {
			n.stream = nil
			for rest := stream; len(rest) > 0; {
				size := min(max(piece, 1), len(rest))
				n.connection.ReceiveControl(testStart, bytes.Clone(rest[:size]))
				rest = rest[size:]
			}
			// An answer is never more than 13 times as long as what it answers: Outgoing-Call-Request for Start-Control-Connection-Reply.
			if len(n.stream) > 13*len(stream)+maxMessage {
				t.Fatalf("%d bytes in, %d out", len(stream), len(n.stream))
			}
			if len(n.connection.inbox) >= maxMessage || len(n.connection.calls) > n.config.MaxCalls || len(n.Endpoint.calls) != len(n.connection.calls) {
				t.Fatalf("%d bytes wait, %d calls, %d Call IDs", len(n.connection.inbox), len(n.connection.calls), len(n.Endpoint.calls))
			}
			n.Advance(testStart.Add(time.Hour))
		}
	})
}

// FuzzReceive gives a peer's GRE packets to a call: order and bounds hold whatever they say.
func FuzzReceive(f *testing.F) {
	f.Add(uint32(0), []byte{0, 1, 2, 3})
	f.Add(uint32(0xfffffffe), []byte{0, 2, 1, 1, 3, 200, 5})
	f.Fuzz(func(t *testing.T, first uint32, steps []byte) {
		c := up(t, Config{GRETimeout: -1, EchoInterval: -1}, Config{})
		call := c.pns.calls[0]
		for i, step := range steps {
			sequence := first + uint32(step)
			h := greHeader{callID: call.ID(), sequenced: true, acknowledges: step&1 != 0, sequence: sequence, ack: sequence}
			packet := append(appendGRE(nil, h, 2), step, byte(i))
			c.pns.Receive(c.now, pacAddr, [][]byte{packet[:len(packet)-int(step>>7)]})
			c.pass(time.Duration(step&7) * time.Millisecond)
			if call.order.held > reorderWindow || len(call.early) > maxEarly {
				t.Fatalf("%d held, %d early", call.order.held, len(call.early))
			}
		}
		c.pass(time.Second)
		if call.order.held != 0 || len(c.pns.frames) > len(steps) {
			t.Fatalf("%d still held, %d frames of %d packets", call.order.held, len(c.pns.frames), len(steps))
		}
	})
}
