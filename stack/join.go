package stack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

const (
	maxJoined = 64000 // bytes of a joined packet, below the 65535 of an IP packet
	maxOpen   = 8     // flows that are joined at a time
)

// A run is what is delivered as one packet: a single packet, or consecutive TCP segments of one flow.
type run struct {
	first, last int  // indices of packets; joiner.next leads from one to the other
	segments    int  // how many
	verified    bool // all checksums were found right; otherwise they are gVisor's to check

	// TCP only:
	ip, headers int    // bytes of the IP header, and of both headers
	payload     int    // bytes of all segments
	segmentSize int    // payload of the first
	sequence    uint32 // what must come next
	push        bool   // the last segment carried PSH
	superseded  int    // acknowledgments left out before the first
}

// A joiner finds out which packets of a batch can be delivered together. It only plans: it neither copies nor changes anything.
type joiner struct {
	runs []run // in the order of their first packets; a flow's runs are in the order of its segments
	next []int // next[i] is the packet that follows packet i in its run
	open []int // indices of runs that may still grow, the oldest first
}

// plan sorts packets into runs. Two segments are joined if they are intact, of one flow (addresses and ports), continue each other,
// differ in nothing else but IPv4 identification, length, checksum and PSH, and carry data under plain ACK. A run ends with PSH, with
// a segment smaller than its first, and at maxJoined bytes.
//
// An acknowledgment without data that a later one supersedes is left out: each would make TCP send the two packets that it makes room
// for, where the last makes it send all of them at once. A machine that falls behind has less to do for each packet then, not more.
func (j *joiner) plan(packets [][]byte) {
	j.runs, j.open = j.runs[:0], j.open[:0]
	if cap(j.next) < len(packets) {
		j.next = make([]int, len(packets))
	}
	j.next = j.next[:len(packets)]
	for i, packet := range packets {
		r := parseSegment(packet)
		r.first, r.last, r.segments = i, i, 1
		if r.headers == 0 {
			j.runs = append(j.runs, r)
			continue
		}
		o := j.findOpen(packets, packet, r.ip)
		if o >= 0 && (j.extend(packets, &j.runs[j.open[o]], r, packet) || supersede(packets, &j.runs[j.open[o]], r, packet)) {
			if !j.mayGrow(&j.runs[j.open[o]]) {
				j.close(o)
			}
			continue
		}
		if o >= 0 {
			j.close(o) // what comes now comes after it
		}
		j.runs = append(j.runs, r)
		if (r.joinable(packet) || r.acknowledgment(packet)) && j.mayGrow(&j.runs[len(j.runs)-1]) {
			if len(j.open) == maxOpen {
				j.close(0)
			}
			j.open = append(j.open, len(j.runs)-1)
		}
	}
}

func (j *joiner) close(o int) { j.open = append(j.open[:o], j.open[o+1:]...) }

// findOpen returns the index in j.open of the run of the packet's flow, or -1.
func (j *joiner) findOpen(packets [][]byte, packet []byte, ip int) int {
	for o := len(j.open) - 1; o >= 0; o-- {
		r := &j.runs[j.open[o]]
		if r.ip == ip && sameFlow(packets[r.first], packet, ip) {
			return o
		}
	}
	return -1
}

// extend adds a segment to the run if it fits.
func (j *joiner) extend(packets [][]byte, r *run, s run, packet []byte) bool {
	if !s.joinable(packet) || s.sequence-uint32(s.payload) != r.sequence || s.headers != r.headers || s.payload > r.segmentSize ||
		r.headers+r.payload+s.payload > maxJoined || !sameHeaders(packets[r.first], packet, r.ip, r.headers) {
		return false
	}
	j.next[r.last] = s.first
	r.last = s.first
	r.segments++
	r.payload += s.payload
	r.sequence = s.sequence
	r.push = s.push
	if s.payload < r.segmentSize {
		r.segmentSize = 0 // nothing may follow a short one
	}
	return true
}

// supersede puts an acknowledgment in the place of one of less. Duplicate ones and those with SACK blocks, which tell of losses, stay.
func supersede(packets [][]byte, r *run, s run, packet []byte) bool {
	before := packets[r.first]
	if !r.acknowledgment(before) || !s.acknowledgment(packet) || s.headers != r.headers || s.sequence != r.sequence ||
		before[0] != packet[0] || before[1] != packet[1] { // IP version, and what DSCP and ECN say
		return false
	}
	acknowledged := binary.BigEndian.Uint32(packet[r.ip+tcpAcknowledgment:]) - binary.BigEndian.Uint32(before[r.ip+tcpAcknowledgment:])
	if int32(acknowledged) <= 0 {
		return false
	}
	r.first, r.last = s.first, s.first
	r.superseded++
	return true
}

func (j *joiner) mayGrow(r *run) bool { return r.payload == 0 || !r.push && r.segmentSize > 0 }

// joinable says whether the segment is plain data: anything that TCP must see by itself is not.
func (r *run) joinable(packet []byte) bool {
	return r.payload > 0 && packet[r.ip+tcpFlags]&^flagPSH == flagACK
}

// acknowledgment says whether the segment acknowledges and does nothing else. Of options it may have a timestamp.
func (r *run) acknowledgment(packet []byte) bool {
	if r.payload > 0 || packet[r.ip+tcpFlags] != flagACK {
		return false
	}
	options := packet[r.ip+tcpHeaderLen : r.headers]
	return len(options) == 0 || len(options) == 12 && bytes.Equal(options[:4], []byte{optionNoOperation, optionNoOperation, optionTimestamp, timestampLen})
}

// parseSegment describes an intact TCP segment that is a whole packet without IP options or extension headers. For anything else,
// a bad checksum included, headers is 0 and gVisor is left to judge.
func parseSegment(packet []byte) (r run) {
	var pseudo uint16
	switch {
	case len(packet) >= ipv4HeaderLen+tcpHeaderLen && packet[0] == 0x45 && packet[ipv4Protocol] == protocolTCP:
		if int(binary.BigEndian.Uint16(packet[ipv4Length:])) != len(packet) ||
			binary.BigEndian.Uint16(packet[ipv4Fragment:])&0x3fff != 0 || // offset or More Fragments
			checksum.Checksum(packet[:ipv4HeaderLen], 0) != 0xffff {
			return run{}
		}
		r.ip = ipv4HeaderLen
		pseudo = pseudoHeader(packet[ipv4Source:ipv4Source+8], len(packet)-r.ip)
	case len(packet) >= ipv6HeaderLen+tcpHeaderLen && packet[0]>>4 == 6 && packet[ipv6NextHeader] == protocolTCP:
		if int(binary.BigEndian.Uint16(packet[ipv6Length:])) != len(packet)-ipv6HeaderLen {
			return run{}
		}
		r.ip = ipv6HeaderLen
		pseudo = pseudoHeader(packet[ipv6Source:ipv6Source+32], len(packet)-r.ip)
	default:
		return run{}
	}
	segment := packet[r.ip:]
	headers := r.ip + int(segment[tcpOffset]>>4)*4
	if headers < r.ip+tcpHeaderLen || headers > len(packet) || checksum.Checksum(segment, pseudo) != 0xffff {
		return run{}
	}
	r.verified = true
	r.headers = headers
	r.payload = len(packet) - headers
	r.segmentSize = r.payload
	r.sequence = binary.BigEndian.Uint32(segment[tcpSequence:]) + uint32(r.payload)
	r.push = segment[tcpFlags]&flagPSH != 0
	return r
}

// sameFlow compares addresses and ports of two packets with IP headers of the same length.
func sameFlow(a, b []byte, ip int) bool {
	source := ipv4Source
	if ip == ipv6HeaderLen {
		source = ipv6Source
	}
	return bytes.Equal(a[source:ip+tcpSequence], b[source:ip+tcpSequence])
}

// sameHeaders compares what must not differ between segments of a run, addresses and ports aside.
func sameHeaders(a, b []byte, ip, headers int) bool {
	if ip == ipv4HeaderLen {
		// Version, header length and DSCP; flags, fragment offset and TTL.
		if !bytes.Equal(a[:ipv4Length], b[:ipv4Length]) || !bytes.Equal(a[ipv4Fragment:ipv4Protocol], b[ipv4Fragment:ipv4Protocol]) {
			return false
		}
	} else if !bytes.Equal(a[:ipv6Length], b[:ipv6Length]) || a[ipv6HopLimit] != b[ipv6HopLimit] {
		return false
	}
	a, b = a[ip:headers], b[ip:headers]
	return bytes.Equal(a[tcpSequence+4:tcpFlags], b[tcpSequence+4:tcpFlags]) && // acknowledgment, data offset
		bytes.Equal(a[tcpWindow:tcpChecksum], b[tcpWindow:tcpChecksum]) &&
		bytes.Equal(a[tcpChecksum+2:], b[tcpChecksum+2:]) // urgent pointer, options
}
