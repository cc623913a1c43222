package stack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A segment describes a TCP packet of the tests.
type segment struct {
	src, dst   netip.AddrPort
	seq, ack   uint32
	flags      header.TCPFlags
	window     uint16
	tos, ttl   uint8
	options    []byte // multiple of 4
	payload    []byte
	fragment   uint16 // bytes of offset
	more       bool
	badSum     bool
	badIPSum   bool
	ipOptions  bool
	extraBytes int // behind the packet
}

// marshal encodes a segment with gVisor's header package, as an independent opinion on layouts and checksums.
func (s segment) marshal() []byte {
	tcpLen := header.TCPMinimumSize + len(s.options)
	total := tcpLen + len(s.payload)
	tcpBytes := make([]byte, total)
	h := header.TCP(tcpBytes)
	h.Encode(&header.TCPFields{
		SrcPort: s.src.Port(), DstPort: s.dst.Port(), SeqNum: s.seq, AckNum: s.ack, DataOffset: uint8(tcpLen), Flags: s.flags, WindowSize: s.window,
	})
	copy(tcpBytes[header.TCPMinimumSize:], s.options)
	copy(tcpBytes[tcpLen:], s.payload)
	src, dst := addressOf(s.src.Addr()), addressOf(s.dst.Addr())
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(total))
	h.SetChecksum(^h.CalculateChecksum(checksum.Combine(pseudo, checksum.Checksum(s.payload, 0))))
	if s.badSum {
		h.SetChecksum(h.Checksum() + 1)
	}
	var packet []byte
	if src.Len() == 4 {
		ipLen := header.IPv4MinimumSize
		if s.ipOptions {
			ipLen += 4
		}
		ip := header.IPv4(make([]byte, ipLen))
		fields := header.IPv4Fields{TotalLength: uint16(ipLen + total), ID: uint16(s.seq), TTL: s.ttl, TOS: s.tos,
			Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst, FragmentOffset: s.fragment}
		if s.more {
			fields.Flags = header.IPv4FlagMoreFragments
		}
		ip.Encode(&fields)
		ip.SetHeaderLength(uint8(ipLen))
		if s.ipOptions {
			copy(ip[20:], []byte{1, 1, 1, 0})
		}
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		if s.badIPSum {
			ip.SetChecksum(ip.Checksum() + 1)
		}
		packet = append([]byte(ip), tcpBytes...)
	} else {
		ip := header.IPv6(make([]byte, header.IPv6MinimumSize))
		ip.Encode(&header.IPv6Fields{TrafficClass: s.tos, PayloadLength: uint16(total), TransportProtocol: header.TCPProtocolNumber,
			HopLimit: s.ttl, SrcAddr: src, DstAddr: dst})
		packet = append([]byte(ip), tcpBytes...)
	}
	return append(packet, make([]byte, s.extraBytes)...)
}

func baseSegment(v6 bool) segment {
	s := segment{src: netip.MustParseAddrPort("10.88.0.2:1000"), dst: netip.MustParseAddrPort("10.88.0.1:80"), seq: 0xfffffc00, ack: 7,
		flags: header.TCPFlagAck, window: 500, ttl: 64, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}
	if v6 {
		s.src, s.dst = netip.MustParseAddrPort("[fd88::a]:1000"), netip.MustParseAddrPort("[fd88::1]:80")
	}
	return s
}

// flow makes consecutive segments of the given payload sizes; the sequence number wraps on the way.
func flow(first segment, sizes ...int) []segment {
	data := randomBytes(70000)
	var all []segment
	for _, n := range sizes {
		s := first
		s.payload, data = data[:n], data[n:]
		all = append(all, s)
		first.seq += uint32(n)
	}
	return all
}

func marshalAll(segments []segment) (packets [][]byte) {
	for _, s := range segments {
		packets = append(packets, s.marshal())
	}
	return packets
}

// grouping is a plan as lists of packet indices.
func grouping(j *joiner) (groups [][]int) {
	for _, r := range j.runs {
		group := []int{r.first}
		for i := r.first; i != r.last; {
			i = j.next[i]
			group = append(group, i)
		}
		groups = append(groups, group)
	}
	return groups
}

func TestJoinRules(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		base := baseSegment(v6)
		with := func(sizes []int, change func(s []segment)) []segment {
			s := flow(base, sizes...)
			if change != nil {
				change(s)
			}
			return s
		}
		other := base
		other.src = netip.AddrPortFrom(base.src.Addr(), 1001)
		three := []int{1000, 1000, 1000}
		alone := [][]int{{0}, {1}, {2}}
		tests := []struct {
			name     string
			segments []segment
			want     [][]int
		}{
			{"consecutive segments are joined", with(three, nil), [][]int{{0, 1, 2}}},
			{"a short segment ends the run", with([]int{1000, 500, 500}, nil), [][]int{{0, 1}, {2}}},
			{"a longer segment does not fit", with([]int{500, 1000, 1000}, nil), [][]int{{0}, {1, 2}}},
			{"PSH ends the run", with(three, func(s []segment) { s[1].flags |= header.TCPFlagPsh }), [][]int{{0, 1}, {2}}},
			{"PSH on the first", with(three, func(s []segment) { s[0].flags |= header.TCPFlagPsh }), [][]int{{0}, {1, 2}}},
			{"FIN stands alone", with(three, func(s []segment) { s[2].flags |= header.TCPFlagFin }), [][]int{{0, 1}, {2}}},
			{"SYN stands alone", with(three, func(s []segment) { s[1].flags |= header.TCPFlagSyn }), alone},
			{"RST stands alone", with(three, func(s []segment) { s[1].flags |= header.TCPFlagRst }), alone},
			{"URG stands alone", with(three, func(s []segment) { s[1].flags |= header.TCPFlagUrg }), alone},
			{"CWR stands alone", with(three, func(s []segment) { s[1].flags |= header.TCPFlagCwr }), alone},
			{"another acknowledgment", with(three, func(s []segment) { s[1].ack++; s[2].ack++ }), [][]int{{0}, {1, 2}}},
			{"another window", with(three, func(s []segment) { s[2].window++ }), [][]int{{0, 1}, {2}}},
			{"another timestamp", with(three, func(s []segment) {
				s[2].options = append([]byte(nil), base.options...)
				s[2].options[7]++
			}), [][]int{{0, 1}, {2}}},
			{"more options", with(three, func(s []segment) { s[2].options = append(bytes.Clone(base.options), 1, 1, 1, 1) }), [][]int{{0, 1}, {2}}},
			{"another DSCP or ECN", with(three, func(s []segment) { s[2].tos = 3 }), [][]int{{0, 1}, {2}}},
			{"another hop limit", with(three, func(s []segment) { s[2].ttl-- }), [][]int{{0, 1}, {2}}},
			{"a gap", with(three, func(s []segment) { s[2].seq++ }), [][]int{{0, 1}, {2}}},
			{"an overlap", with(three, func(s []segment) { s[2].seq-- }), [][]int{{0, 1}, {2}}},
			{"out of order", with(three, func(s []segment) { s[1], s[2] = s[2], s[1] }), alone},
			{"pure acknowledgments", with([]int{0, 0, 0}, nil), alone},
			{"a pure acknowledgment between ends the run", with([]int{1000, 0, 1000}, nil), alone},
			{"a bad checksum", with(three, func(s []segment) { s[1].badSum = true }), alone},
			{"bytes behind the packet", with(three, func(s []segment) { s[1].extraBytes = 1 }), alone},
			{"two flows interleaved", append(append(flow(base, 1000), flow(other, 1000)...), func() []segment {
				a, b := flow(base, 1000, 1000)[1], flow(other, 1000, 1000)[1]
				return []segment{a, b}
			}()...), [][]int{{0, 2}, {1, 3}}},
		}
		if !v6 {
			tests = append(tests, []struct {
				name     string
				segments []segment
				want     [][]int
			}{
				{"a fragment", with(three, func(s []segment) { s[1].fragment = 8 }), alone},
				{"a first fragment", with(three, func(s []segment) { s[1].more = true }), alone},
				{"IP options", with(three, func(s []segment) { s[1].ipOptions = true }), alone},
				{"a bad header checksum", with(three, func(s []segment) { s[1].badIPSum = true }), alone},
			}...)
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("v6=%v/%s", v6, tt.name), func(t *testing.T) {
				var j joiner
				j.plan(marshalAll(tt.segments))
				if diff := cmp.Diff(tt.want, grouping(&j)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestJoinedPacketStaysBelow64000Bytes(t *testing.T) {
	sizes := make([]int, 60)
	for i := range sizes {
		sizes[i] = 1100
	}
	var j joiner
	j.plan(marshalAll(flow(baseSegment(false), sizes...)))
	for _, r := range j.runs {
		if n := r.headers + r.payload; n > maxJoined {
			t.Errorf("%d bytes", n)
		}
	}
	if len(j.runs) != 2 {
		t.Errorf("%d runs, want 2", len(j.runs))
	}
}

func TestMoreFlowsThanAreJoinedKeepTheirOrder(t *testing.T) {
	var segments []segment
	for round := range 3 {
		for port := range uint16(maxOpen + 3) {
			s := baseSegment(false)
			s.src = netip.AddrPortFrom(s.src.Addr(), 2000+port)
			segments = append(segments, flow(s, 100, 100, 100)[round])
		}
	}
	checkOrder(t, marshalAll(segments))
}

// TestSupersededAcknowledgmentsAreLeftOut: only those that tell TCP nothing that the later one does not.
func TestSupersededAcknowledgmentsAreLeftOut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		base := baseSegment(v6)
		base.ack = 0xffffff00 // wraps on the way
		acks := func(change func(s []segment)) []segment {
			s := []segment{base, base, base}
			for i := range s {
				s[i].ack += uint32(i) * 1000
				s[i].options = bytes.Clone(base.options)
				s[i].options[7] += byte(i) // a later timestamp
			}
			if change != nil {
				change(s)
			}
			return s
		}
		other := base
		other.src = netip.AddrPortFrom(base.src.Addr(), 1001)
		alone := [][]int{{0}, {1}, {2}}
		for _, tt := range []struct {
			name     string
			segments []segment
			want     [][]int
		}{
			{"the last one says it all", acks(nil), [][]int{{2}}},
			{"without timestamps", acks(func(s []segment) { s[0].options, s[1].options, s[2].options = nil, nil, nil }), [][]int{{2}}},
			{"the window may change", acks(func(s []segment) { s[1].window, s[2].window = 7, 0 }), [][]int{{2}}},
			{"duplicates stay", acks(func(s []segment) { s[1].ack, s[2].ack = s[0].ack, s[0].ack }), alone},
			{"a duplicate of the last stays", acks(func(s []segment) { s[2].ack = s[1].ack }), [][]int{{1}, {2}}},
			{"a late one stays", acks(func(s []segment) { s[0], s[1] = s[1], s[0] }), [][]int{{0}, {2}}},
			{"SACK blocks stay", acks(func(s []segment) {
				s[1].options = append(s[1].options, 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2)
			}), alone},
			{"SACK blocks instead of a timestamp stay", acks(func(s []segment) {
				s[0].options = []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}
			}), [][]int{{0}, {2}}},
			{"ECN-Echo stays", acks(func(s []segment) { s[0].flags |= header.TCPFlagEce }), [][]int{{0}, {2}}},
			{"congestion experienced stays", acks(func(s []segment) { s[0].tos = 3 }), [][]int{{0}, {2}}},
			{"PSH stays", acks(func(s []segment) { s[1].flags |= header.TCPFlagPsh }), alone},
			{"FIN stays", acks(func(s []segment) { s[1].flags |= header.TCPFlagFin }), alone},
			{"RST stays", acks(func(s []segment) { s[1].flags |= header.TCPFlagRst }), alone},
			{"data stay", acks(func(s []segment) { s[1].payload = []byte("x") }), alone},
			{"a keep-alive stays", acks(func(s []segment) { s[1].seq-- }), alone},
			{"a bad checksum is no acknowledgment", acks(func(s []segment) { s[2].badSum = true }), [][]int{{1}, {2}}},
			{"another flow's", acks(func(s []segment) { s[1].src = other.src }), [][]int{{2}, {1}}},
		} {
			t.Run(fmt.Sprintf("v6=%v/%s", v6, tt.name), func(t *testing.T) {
				var j joiner
				j.plan(marshalAll(tt.segments))
				if diff := cmp.Diff(tt.want, grouping(&j)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// checkOrder fails unless the plan delivers each packet once, but for acknowledgments that are superseded, and each flow's packets in
// their order.
func checkOrder(t *testing.T, packets [][]byte) {
	t.Helper()
	var j joiner
	j.plan(packets)
	seen := make([]bool, len(packets))
	last := map[string]int{}
	for g, group := range grouping(&j) {
		if j.runs[g].segments != len(group) {
			t.Fatalf("run of %d says %d", len(group), j.runs[g].segments)
		}
		for _, i := range group {
			if seen[i] {
				t.Fatalf("packet %d twice", i)
			}
			seen[i] = true
			if r := parseSegment(packets[i]); r.headers > 0 {
				source := map[int]int{ipv4HeaderLen: ipv4Source, ipv6HeaderLen: ipv6Source}[r.ip]
				key := string(packets[i][source : r.ip+4])
				if before, ok := last[key]; ok && before > i {
					t.Fatalf("packet %d after packet %d of its flow", i, before)
				}
				last[key] = i
			}
		}
	}
	superseded := 0
	for _, r := range j.runs {
		superseded += r.superseded
	}
	for i, ok := range seen {
		if !ok {
			checkSuperseded(t, packets, i)
			superseded--
		}
	}
	if superseded != 0 {
		t.Fatalf("the runs tell of %d acknowledgments more than were left out", superseded)
	}
}

// checkSuperseded fails unless packet i is an acknowledgment and the next packet of its flow acknowledges more.
func checkSuperseded(t *testing.T, packets [][]byte, i int) {
	t.Helper()
	r := parseSegment(packets[i])
	if r.headers == 0 || !r.acknowledgment(packets[i]) {
		t.Fatalf("packet %d lost", i)
	}
	for _, packet := range packets[i+1:] {
		s := parseSegment(packet)
		if s.headers == 0 || s.ip != r.ip || !sameFlow(packets[i], packet, r.ip) {
			continue
		}
		more := header.TCP(packet[s.ip:]).AckNumber() - header.TCP(packets[i][r.ip:]).AckNumber()
		if !s.acknowledgment(packet) || int32(more) <= 0 {
			t.Fatalf("packet %d lost: the next of its flow does not supersede it", i)
		}
		return
	}
	t.Fatalf("packet %d lost: nothing follows it", i)
}

func TestJoinerSurvivesEveryPrefix(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		whole := marshalAll(flow(baseSegment(v6), 10))[0]
		for n := range whole {
			if r := parseSegment(whole[:n]); r.headers != 0 {
				t.Errorf("prefix of %d bytes taken for a segment", n)
			}
		}
	}
}

// slowCut is what cutter does, written plainly: each segment encoded anew.
func slowCut(s segment, mss int) (packets [][]byte) {
	for offset := 0; ; offset += mss {
		end := min(offset+mss, len(s.payload))
		p := s
		p.payload = s.payload[offset:end]
		p.seq = s.seq + uint32(offset)
		if end < len(s.payload) {
			p.flags &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		if offset > 0 {
			p.flags &^= header.TCPFlagCwr
		}
		packet := p.marshal()
		if packet[0]>>4 == 4 {
			ip := header.IPv4(packet)
			ip.SetID(uint16(s.seq) + uint16(offset/mss))
			ip.SetChecksum(0)
			ip.SetChecksum(^ip.CalculateChecksum())
		}
		packets = append(packets, packet)
		if end == len(s.payload) {
			return packets
		}
	}
}

// cutAll runs the cutter over a super-segment that comes in parts of at most partLen bytes.
func cutAll(c *cutter, super []byte, ip, tcp, mss, partLen int) (packets [][]byte) {
	for len(super) > 0 {
		n := min(partLen, len(super))
		c.parts = append(c.parts, super[:n])
		super = super[n:]
	}
	if !c.beginCut(ip, tcp, mss) {
		c.release()
		return nil
	}
	for c.cut() {
		for _, p := range c.packets {
			packets = append(packets, bytes.Clone(p[c.headroom:]))
		}
	}
	c.release()
	return packets
}

func headerLengths(packet []byte) (ip, tcp int) {
	ip = ipv6HeaderLen
	if packet[0]>>4 == 4 {
		ip = int(packet[0]&15) * 4
	}
	return ip, int(packet[ip+tcpOffset]>>4) * 4
}

func TestCutEqualsSlowCut(t *testing.T) {
	c := cutter{headroom: 29, tailroom: 7}
	for _, v6 := range []bool{false, true} {
		for _, size := range []int{0, 1, 999, 1000, 1001, 5000, 40000} {
			for _, mss := range []int{100, 1000, 1348} {
				for _, flags := range []header.TCPFlags{header.TCPFlagAck, 0xff &^ header.TCPFlagSyn &^ header.TCPFlagRst &^ header.TCPFlagUrg} {
					s := flow(baseSegment(v6), size)[0]
					s.flags = flags
					super := s.marshal()
					ip, tcp := headerLengths(super)
					got := cutAll(&c, super, ip, tcp, mss, 777)
					if want := slowCut(s, mss); !slices.EqualFunc(want, got, bytes.Equal) {
						t.Fatalf("v6=%v size=%d mss=%d flags=%v: %s", v6, size, mss, flags, cmp.Diff(want, got))
					}
				}
			}
		}
	}
}

func TestCutBuffersHaveRoomOfTheirOwn(t *testing.T) {
	c := cutter{headroom: 29, tailroom: 7}
	super := flow(baseSegment(false), 5000)[0].marshal()
	c.parts = append(c.parts, super)
	c.beginCut(20, 32, 1000)
	c.cut()
	first := c.packets[0]
	if cap(first)-len(first) != 7 {
		t.Fatalf("tailroom %d", cap(first)-len(first))
	}
	want := bytes.Clone(first[29:])
	for _, other := range c.packets[1:] {
		other = other[:cap(other)]
		for n := range other {
			other[n] = 0xee
		}
	}
	if len(c.packets) != 5 || !bytes.Equal(want, first[29:]) {
		t.Errorf("%d packets, or they overlap", len(c.packets))
	}
}

func TestCutRefusesImpossibleLengths(t *testing.T) {
	super := flow(baseSegment(false), 100)[0].marshal()
	for _, l := range [][3]int{{19, 20, 10}, {20, 19, 10}, {20, 32, 0}, {20, 32, -1}, {60, 64, 10}, {20, 60, 10000}, {100, 20, 10}} {
		var c cutter
		if got := cutAll(&c, super[:min(len(super), 70)], l[0], l[1], l[2], 1000); got != nil && (l[0] < 20 || l[1] < 20 || l[2] <= 0 || l[0]+l[1] > 70) {
			t.Errorf("%v gave %d packets", l, len(got))
		}
	}
}

// What is cut is joined again to the same, by joiner and setJoined.
func TestJoinUndoesCut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := flow(baseSegment(v6), 50000)[0]
		s.flags |= header.TCPFlagPsh
		super := s.marshal()
		ip, tcp := headerLengths(super)
		var c cutter
		packets := cutAll(&c, super, ip, tcp, 1348, 4096)
		var j joiner
		j.plan(packets)
		if len(j.runs) != 1 {
			t.Fatalf("%d runs", len(j.runs))
		}
		if got := joinedBytes(packets, &j, 0); !bytes.Equal(clearChecksums(got), clearChecksums(super)) {
			t.Error("not the same")
		}
	}
}

// joinedBytes is what deliverRun gives to gVisor.
func joinedBytes(packets [][]byte, j *joiner, g int) []byte {
	r := &j.runs[g]
	b := bytes.Clone(packets[r.first][:r.headers])
	setJoined(b, r)
	for i := r.first; ; i = j.next[i] {
		b = append(b, packets[i][r.headers:]...)
		if i == r.last {
			return b
		}
	}
}

func clearChecksums(packet []byte) []byte {
	b := bytes.Clone(packet)
	ip, _ := headerLengths(b)
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[ipv4Checksum:], 0)
	}
	binary.BigEndian.PutUint16(b[ip+tcpChecksum:], 0)
	return b
}

// FuzzJoin feeds arbitrary packets, after random mutations of a flow, to the joiner: it must lose nothing, keep each flow's order, and
// verify only what is intact.
func FuzzJoin(f *testing.F) {
	f.Add(uint64(1), []byte{0x45}, false)
	f.Add(uint64(2), marshalAll(flow(baseSegment(true), 30))[0], true)
	f.Fuzz(func(t *testing.T, seed uint64, extra []byte, v6 bool) {
		r := rand.New(rand.NewPCG(seed, 2))
		segments := flow(baseSegment(v6), 100, 100, 100, 50, 100, 0, 100, 0, 0, 0)
		for i := range segments[7:] {
			segments[7+i].ack += uint32(r.IntN(4)) * 1000
		}
		packets := marshalAll(segments)
		for range r.IntN(4) {
			p := packets[r.IntN(len(packets))]
			p[r.IntN(len(p))] ^= 1 << r.IntN(8)
		}
		packets = append(packets, extra)
		r.Shuffle(r.IntN(len(packets)), func(i, k int) { packets[i], packets[k] = packets[k], packets[i] })
		checkOrder(t, packets)
		var j joiner
		j.plan(packets)
		for g := range j.runs {
			if !j.runs[g].verified {
				continue
			}
			if j.runs[g].headers == 0 || j.runs[g].payload < 0 {
				t.Fatal("verified, yet not a segment")
			}
			joined := joinedBytes(packets, &j, g)
			if want := j.runs[g].headers + j.runs[g].payload; len(joined) != want {
				t.Fatalf("%d bytes, want %d", len(joined), want)
			}
		}
	})
}

// FuzzCut cuts arbitrary super-segments: no panic, and what comes out is what the slow twin makes.
func FuzzCut(f *testing.F) {
	f.Add([]byte("payload"), uint16(3), uint16(5), uint8(0x18), false)
	f.Fuzz(func(t *testing.T, payload []byte, mss, partLen uint16, flags uint8, v6 bool) {
		if mss == 0 || partLen == 0 || len(payload) > 60000 || len(payload)/int(mss) > 2000 {
			t.Skip()
		}
		s := baseSegment(v6)
		s.payload, s.flags = payload, header.TCPFlags(flags)
		super := s.marshal()
		ip, tcp := headerLengths(super)
		var c cutter
		if !slices.EqualFunc(slowCut(s, int(mss)), cutAll(&c, super, ip, tcp, int(mss), int(partLen)), bytes.Equal) {
			t.Error("not what the slow twin makes")
		}
	})
}
