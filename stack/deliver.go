package stack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// HandlePackets takes a batch of IP packets from the link. They are borrowed until it returns. It copies each once into gVisor and
// does not wait for anything; gVisor may answer through the PacketWriter on the same call stack.
func (s *Stack) HandlePackets(packets [][]byte) {
	if s.link.closed.Load() {
		return
	}
	s.link.openers.heard()
	s.stats.packetsIn.Add(uint64(len(packets)))
	if s.config.DisableGRO {
		for _, packet := range packets {
			s.stats.bytesIn.Add(uint64(len(packet)))
			s.deliverPacket(packet)
		}
		return
	}
	j := s.joiners.Get().(*joiner)
	j.plan(packets)
	for i := range j.runs {
		r := &j.runs[i]
		if r.headers == 0 {
			s.stats.bytesIn.Add(uint64(len(packets[r.first])))
			s.deliverPacket(packets[r.first])
			continue
		}
		s.stats.bytesIn.Add(uint64(r.headers*(r.segments+r.superseded) + r.payload))
		s.deliverRun(packets, j.next, r)
	}
	s.joiners.Put(j)
}

// deliverRun hands a run of verified TCP segments over as one packet. The headers get a view of their own: gVisor wants to write to
// them and would otherwise copy the whole view.
func (s *Stack) deliverRun(packets [][]byte, next []int, r *run) {
	headers := buffer.NewViewSize(r.headers)
	h := headers.AsSlice()
	copy(h, packets[r.first])
	if r.segments > 1 {
		s.stats.segmentsJoined.Add(uint64(r.segments))
		setJoined(h, r)
	}
	if h[r.ip+tcpFlags]&(flagSYN|flagACK) == flagSYN|flagACK {
		s.link.synClocks.answered(h[r.ip:])
	}
	payload := buffer.MakeWithView(headers)
	if r.payload > 0 {
		data := buffer.NewView(r.payload)
		for i := r.first; ; i = next[i] {
			_, _ = data.Write(packets[i][r.headers:]) // it has room
			if i == r.last {
				break
			}
		}
		rest := buffer.MakeWithView(data)
		payload.Merge(&rest) // not Append, which would fill up the headers' view
	}
	s.deliver(payload, h[0]>>4, true)
}

// setJoined makes the headers of a run's first segment those of all. The checksums are not set: nobody looks at them again.
func setJoined(h []byte, r *run) {
	length := r.headers + r.payload
	if r.ip == ipv4HeaderLen {
		binary.BigEndian.PutUint16(h[ipv4Length:], uint16(length))
	} else {
		binary.BigEndian.PutUint16(h[ipv6Length:], uint16(length-ipv6HeaderLen))
	}
	if r.push {
		h[r.ip+tcpFlags] |= flagPSH
	}
}

// deliverPacket hands over a packet whose checksums gVisor is to verify, those of fragments after reassembly.
func (s *Stack) deliverPacket(packet []byte) {
	if len(packet) == 0 {
		s.stats.droppedIn.Add(1)
		return
	}
	version := packet[0] >> 4
	if s.config.Forward != nil && !s.wantsPacket(packet, version) {
		s.stats.droppedIn.Add(1)
		return
	}
	if version == 6 {
		s.slaac.handlePacket(s, packet)
	}
	s.deliver(buffer.MakeWithData(packet), version, false)
}

func (s *Stack) deliver(payload buffer.Buffer, version byte, verified bool) {
	var to netstack.NetworkEndpoint
	switch version {
	case 4:
		to = s.ipv4
	case 6:
		to = s.ipv6
	default:
		payload.Release()
		s.stats.droppedIn.Add(1)
		return
	}
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: payload})
	pkt.RXChecksumValidated = verified
	to.HandlePacket(pkt)
	pkt.DecRef()
}

// wantsPacket keeps pings of foreign addresses away from a forwarding stack: gVisor would answer for every address in the world.
func (s *Stack) wantsPacket(packet []byte, version byte) bool {
	switch {
	case version == 4 && len(packet) >= ipv4HeaderLen && packet[ipv4Protocol] == protocolICMP:
		dst, _ := netip.AddrFromSlice(packet[16:20])
		return s.isOurs(dst)
	case version == 6 && len(packet) >= ipv6HeaderLen && packet[ipv6NextHeader] == protocolICMPv6:
		dst, _ := netip.AddrFromSlice(packet[24:40])
		return dst.IsMulticast() || s.isOurs(dst)
	}
	return true
}
