package fartun

import (
	"bytes"
	"math/rand"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const mss = 1380

// segment makes what the stack hands out: one large TCP segment with no checksums.
func segment(payload []byte, flags header.TCPFlags) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: headersMin, Payload: buffer.MakeWithData(payload)})
	header.TCP(p.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, SeqNum: 1 << 31,
		AckNum: 7, DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 9})
	header.IPv4(p.NetworkHeader().Push(ipHeader)).Encode(&header.IPv4Fields{TotalLength: uint16(headersMin + len(payload)), ID: 5, TTL: 64,
		Protocol: uint8(header.TCPProtocolNumber), SrcAddr: address("10.0.0.1"), DstAddr: address("10.0.0.2")})
	p.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: mss}
	return p
}

func address(s string) tcpip.Address { return tcpip.AddrFrom4(netip.MustParseAddr(s).As4()) }

// cutAll cuts a packet to its end.
func cutAll(p *stack.PacketBuffer) (packets [][]byte) {
	var c cutter
	for c.start(p); !c.empty(); {
		b := make([]byte, 2000)
		packets = append(packets, b[:c.next(b)])
	}
	return packets
}

// joined gives packets to a joiner as one batch.
func joined(packets [][]byte) (delivered [][]byte) {
	j := joiner{deliver: func(p *stack.PacketBuffer) {
		delivered = append(delivered, p.ToView().ToSlice())
		p.DecRef()
	}}
	for _, p := range packets {
		j.add(bytes.Clone(p))
	}
	j.flush()
	return delivered
}

func TestJoiningUndoesCutting(t *testing.T) {
	for _, size := range []int{1, mss - 1, mss, mss + 1, 10 * mss, 59000} {
		payload := make([]byte, size)
		rand.New(rand.NewSource(int64(size))).Read(payload)
		packets := cutAll(segment(payload, header.TCPFlagAck|header.TCPFlagPsh))
		if want := (size + mss - 1) / mss; len(packets) != want {
			t.Errorf("%d bytes: %d packets, not %d", size, len(packets), want)
		}
		for i, p := range packets {
			if checked(p) == nil || header.IPv4(p).ID() != uint16(5+i) {
				t.Errorf("%d bytes: packet %d is wrong: %x", size, i, p[:headersMin])
			}
			if push := header.TCPFlags(p[flagsAt])&header.TCPFlagPsh != 0; push != (i == len(packets)-1) {
				t.Errorf("%d bytes: packet %d has PSH: %v", size, i, push)
			}
		}
		got := joined(packets)
		if len(got) != 1 || !bytes.Equal(got[0][headersMin:], payload) || !header.IPv4(got[0]).IsChecksumValid() {
			t.Errorf("%d bytes: %d packets come back", size, len(got))
		}
	}
}

func TestOnlyConsecutiveSegmentsAreJoined(t *testing.T) {
	packets := cutAll(segment(make([]byte, 5*mss), header.TCPFlagAck))
	for name, test := range map[string]struct {
		packets [][]byte
		want    int
	}{
		"all in order":   {packets, 1},
		"one is missing": {append(packets[:2:2], packets[3:]...), 2},
		"swapped":        {[][]byte{packets[1], packets[0]}, 2},
		"another flow":   {append(cutAll(segment(make([]byte, mss), header.TCPFlagAck|header.TCPFlagFin)), packets[1]), 2},
	} {
		if got := joined(test.packets); len(got) != test.want {
			t.Errorf("%s: %d packets, not %d", name, len(got), test.want)
		}
	}
}

func TestWrongPacketsAreDropped(t *testing.T) {
	good := cutAll(segment([]byte("payload"), header.TCPFlagAck))[0]
	for n := range good {
		if checked(good[:n]) != nil {
			t.Errorf("its first %d bytes are taken", n)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if checked(bad) != nil {
			t.Errorf("taken with byte %d changed", i)
		}
	}
	if checked(append(good, 0)) == nil {
		t.Error("padding behind a packet makes it wrong")
	}
}
