package ppp

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPacketsOnlyInOpenNetworkProtocols: nothing passes before IPCP is open, each family by its own protocol
// (RFC 1332 section 2, RFC 5072 section 3).
func TestPacketsOnlyInOpenNetworkProtocols(t *testing.T) {
	s := newScripted(t, noLogin())
	give := func() {
		s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(20)))
		s.giveFrame(appendFrame(nil, protocolIPv6, ipv6Packet(40)))
		s.giveFrame(appendFrame(nil, protocolIPv4, nil))
	}
	write := func() {
		s.take()
		for _, packet := range [][]byte{ipv4Packet(20), ipv6Packet(40), ipPacket(0x50, 20), {}, ipPacket(0x45, 1401)} {
			s.write(t, packet)
		}
	}
	s.openLCP()
	give()
	write()
	if len(s.packets)+len(s.sent) > 0 {
		t.Fatal("packets passed before IPCP")
	}
	s.session.ipcp.deadline = epoch // send the request once more
	s.next = s.session.Advance(s.now)
	s.negotiateIPCP()
	give()
	write()
	if diff := cmp.Diff([][]byte{ipv4Packet(20)}, s.packets); diff != "" {
		t.Error("in:", diff)
	}
	if diff := cmp.Diff([][]byte{appendFrame(nil, protocolIPv4, ipv4Packet(20))}, s.sent); diff != "" {
		t.Error("out:", diff)
	}
	got := s.session.Stats()
	if got.NotOpen != 5 || got.NotOpenOut != 5+3 || got.TooLong != 1 {
		t.Errorf("%+v", got)
	}
}

// TestFramesBeforeTheirPhaseAreDropped (RFC 1661 sections 3.4 and 3.5).
func TestFramesBeforeTheirPhaseAreDropped(t *testing.T) {
	c := clientConfig()
	c.Auth = []AuthMethod{AuthMSCHAPv2}
	s := newScripted(t, c)
	s.start()
	s.take()
	s.give(protocolCHAP, 1, 1, 16)
	s.give(protocolIPCP, codeConfigureRequest, 1)
	s.wantNothing()
	if n := s.session.Stats().OutOfPhase; n != 2 {
		t.Errorf("before LCP is open: OutOfPhase is %d", n)
	}

	s = newScripted(t, c)
	s.openLCP(3, 5, 0xc2, 0x23, 0x81)
	s.give(protocolIPCP, codeConfigureRequest, 1)
	s.give(protocolCCP, codeConfigureRequest, 1)
	s.give(protocolPAP, 2, 1, 0)
	s.wantNothing()
	if n := s.session.Stats().OutOfPhase; n != 3 {
		t.Errorf("before the login: OutOfPhase is %d", n)
	}
}

// TestFramesBeforeStart: a peer whose carrier was up first is not kept waiting for its retransmission.
func TestFramesBeforeStart(t *testing.T) {
	s := newScripted(t, noLogin())
	s.give(protocolLCP, codeConfigureRequest, 1)
	for range 100 {
		s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(1400)))
	}
	s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(4000)))
	s.wantNothing()
	s.start()
	s.want(protocolLCP, codeConfigureRequest)
	s.want(protocolLCP, codeConfigureAck)
	if n := len(s.session.early); n != 0 {
		t.Errorf("%d early frames are still kept", n)
	}
	if n := s.session.Stats().OutOfPhase; n != 94 {
		t.Errorf("OutOfPhase is %d", n)
	}
	s.next = s.session.Start(s.now)
	s.wantNothing()
}

// TestBatchOrder: packets of one Receive go up as one batch; a control packet among them splits it, so that no packet
// overtakes it.
func TestBatchOrder(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	frame := func(size int) []byte { return appendFrame(nil, protocolIPv4, ipv4Packet(size)) }
	s.next = s.session.Receive(s.now, [][]byte{frame(20), frame(21), frame(22)})
	if s.batches != 1 || len(s.packets) != 3 {
		t.Errorf("%d packets in %d batches", len(s.packets), s.batches)
	}
	end := appendFrame(nil, protocolLCP, []byte{codeTerminateRequest, 1, 0, 4})
	s.next = s.session.Receive(s.now, [][]byte{frame(23), end, frame(24)})
	if len(s.packets) != 4 || len(s.downs) != 1 { // HandlePackets after Down would panic
		t.Errorf("%d packets, down %v", len(s.packets), s.downs)
	}
}

// TestAnswerOnTheSameCallStack: a stack may write while it handles packets.
func TestAnswerOnTheSameCallStack(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	s.onPackets = func(packets [][]byte) {
		for _, packet := range packets {
			s.write(t, packet)
		}
	}
	s.next = s.session.Receive(s.now, [][]byte{appendFrame(nil, protocolIPv4, ipv4Packet(20))})
	if diff := cmp.Diff([][]byte{appendFrame(nil, protocolIPv4, ipv4Packet(20))}, s.take()); diff != "" {
		t.Error(diff)
	}
}

// TestConcurrentWriters: WritePackets from many goroutines beside the loop (for the race detector).
func TestConcurrentWriters(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.take()
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 200 {
				batch := [][]byte{roomy(s.session, ipv4Packet(20)), roomy(s.session, ipv4Packet(40))}
				if err := s.session.WritePackets(batch, s.session.Headroom()); err != nil {
					t.Error(err)
				}
				s.session.Stats()
			}
		})
	}
	for range 200 {
		s.give(protocolLCP, codeEchoRequest, 1, 1, 2, 3, 4)
	}
	writers.Wait()
	if n := s.session.Stats().FramesOut; n < 1800 {
		t.Errorf("%d frames out", n)
	}
}

// TestStatsBytes counts whole frames.
func TestStatsBytes(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	before := s.session.Stats()
	s.write(t, ipv4Packet(100))
	s.giveFrame(appendFrame(nil, protocolIPv4, ipv4Packet(50)))
	after := s.session.Stats()
	if after.BytesOut-before.BytesOut != 104 || after.BytesIn-before.BytesIn != 54 || after.FramesIn-before.FramesIn != 1 || after.FramesOut-before.FramesOut != 1 {
		t.Errorf("%+v, before %+v", after, before)
	}
}

// A failingLink is a carrier that takes nothing.
type failingLink struct{ *linkEnd }

var errNoCarrier = errors.New("no carrier")

func (f failingLink) WriteFrames([][]byte, int) error { return errNoCarrier }

func TestErrorsOfTheCarrier(t *testing.T) {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.session.tx.link = failingLink{s.linkEnd}
	if err := s.session.WritePackets([][]byte{roomy(s.session, ipv4Packet(20))}, s.session.Headroom()); err != errNoCarrier {
		t.Error(err)
	}
	s.give(protocolLCP, codeEchoRequest, 1, 1, 2, 3, 4)
	if n := s.session.Stats().LinkErrors; n != 1 || len(s.downs) > 0 {
		t.Error(n, s.downs)
	}
}

func TestNoRandomnessStillTerminates(t *testing.T) {
	c := noLogin()
	c.Random, c.NoIPv6 = bytes.NewReader(nil), false
	s := newScripted(t, c)
	s.openIPCP()
}

// openForData returns a Session that sends into nothing, for measurements.
func openForData(t testing.TB) *scripted {
	s := newScripted(t, noLogin())
	s.openIPCP()
	s.session.tx.link = sink{s.linkEnd}
	s.session.handler = sink{s.linkEnd}
	return s
}

// A sink swallows frames and packets.
type sink struct{ *linkEnd }

func (sink) WriteFrames([][]byte, int) error { return nil }
func (sink) HandlePackets([][]byte)          {}

func inboundBatch(n int) (frames [][]byte, bytes int64) {
	for range n {
		frames = append(frames, appendFrame(nil, protocolIPv4, ipv4Packet(1400)))
	}
	return frames, int64(n) * 1400
}

func outboundBatch(s *Session, n int) (packets [][]byte, bytes int64) {
	for range n {
		packets = append(packets, roomy(s, ipv4Packet(1400)))
	}
	return packets, int64(n) * 1400
}

// TestDataPathAllocatesNothing in steady state.
func TestDataPathAllocatesNothing(t *testing.T) {
	for _, n := range []int{1, 32} {
		s := openForData(t)
		frames, _ := inboundBatch(n)
		if allocs := testing.AllocsPerRun(100, func() { s.session.Receive(s.now, frames) }); allocs != 0 {
			t.Errorf("inbound batch of %d: %v allocations", n, allocs)
		}
		packets, _ := outboundBatch(s.session, n)
		if allocs := testing.AllocsPerRun(100, func() { s.session.WritePackets(packets, s.session.Headroom()) }); allocs != 0 {
			t.Errorf("outbound batch of %d: %v allocations", n, allocs)
		}
	}
}

func BenchmarkInbound(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := openForData(b)
			frames, bytes := inboundBatch(n)
			b.SetBytes(bytes)
			b.ReportAllocs()
			for b.Loop() {
				s.session.Receive(s.now, frames)
			}
		})
	}
}

func BenchmarkOutbound(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := openForData(b)
			packets, bytes := outboundBatch(s.session, n)
			b.SetBytes(bytes)
			b.ReportAllocs()
			for b.Loop() {
				s.session.WritePackets(packets, s.session.Headroom())
			}
		})
	}
}

// FuzzSession gives a Session any frames at any time, in each phase. It must not panic, speak without end, or forget
// its deadlines. The script is a list of [length, octets]; length 0 lets time pass.
func FuzzSession(f *testing.F) {
	seed := func(phase uint8, frames ...[]byte) {
		var b []byte
		for _, frame := range frames {
			b = append(append(b, byte(len(frame))), frame...)
		}
		f.Add(phase, b)
	}
	control := func(protocol uint16, code, id uint8, data ...byte) []byte {
		return appendFrame(nil, protocol, appendControlPacket(nil, controlPacket{code, id, data}))
	}
	for phase := range uint8(6) {
		seed(phase, control(protocolLCP, codeConfigureRequest, 1, 1, 4, 5, 220), nil, control(protocolLCP, codeTerminateRequest, 1))
		seed(phase, control(protocolIPCP, codeConfigureRequest, 1, 3, 6, 0, 0, 0, 0), control(protocolIPCP, codeConfigureNak, 2, 3, 6, 1, 2, 3, 4))
		seed(phase, control(protocolCCP, codeConfigureRequest, 1, 18, 6, 0, 0, 0, 0), control(protocolCCP, codeResetRequest, 1))
		seed(phase, control(protocolIPV6CP, codeConfigureReject, 1, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0), nil, nil, nil)
		seed(phase, control(protocolLCP, codeProtocolReject, 1, 0x80, 0x21), control(protocolLCP, codeCodeReject, 1, 1, 1, 0, 4))
		seed(phase, control(protocolCHAP, 1, 1, 16, 1, 2, 3, 4), appendFrame(nil, protocolIPv4, ipv4Packet(20)), []byte{0xfd, 0x90, 0})
	}
	f.Fuzz(func(t *testing.T, phase uint8, script []byte) {
		s := sessionInPhase(t, phase%6)
		for len(script) > 0 && len(s.downs) == 0 {
			n := min(int(script[0]), len(script)-1)
			frame := script[1 : 1+n]
			script = script[1+n:]
			s.take()
			if n == 0 && !s.next.IsZero() {
				s.now = s.next
				s.next = s.session.Advance(s.now)
			} else {
				s.giveFrame(bytes.Clone(frame))
			}
			if len(s.sent) > 12 {
				t.Fatalf("%d frames in answer to one", len(s.sent))
			}
			if len(s.downs) == 0 && s.session.phase != phaseDead && s.next.IsZero() {
				t.Fatal("alive without a deadline")
			}
		}
		s.next = s.session.Close(s.now)
		s.pass(s.session.config.Timers.Restart * 4)
		s.err(t)
	})
}

// sessionInPhase returns a Session that has come so far.
func sessionInPhase(t testing.TB, phase uint8) *scripted {
	switch phase {
	case 0:
		return newScripted(t, clientConfig())
	case 1:
		s := newScripted(t, clientConfig())
		s.start()
		return s
	case 2:
		s := newScripted(t, clientConfig())
		s.openLCP(3, 5, 0xc2, 0x23, 0x81)
		return s
	case 3:
		c := noLogin()
		c.NoIPv6 = false
		s := newScripted(t, c)
		s.openLCP()
		return s
	case 4:
		s := newScripted(t, serverConfig())
		s.openLCP()
		return s
	}
	c := noLogin()
	c.NoIPv6 = false
	s := newScripted(t, c)
	s.openIPCP()
	return s
}
