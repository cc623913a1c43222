package stack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxSegments and maxBurst bound what one super-segment becomes: what one UDP_SEGMENT send can carry.
	maxSegments = 64
	maxBurst    = 65507
	// tcpOptions is what gVisor keeps free in each segment for timestamps and SACK blocks, present or not.
	tcpOptions = 40
)

// A link is the network interface as gVisor sees it: a link endpoint whose "hardware" does TCP segmentation. It is its own queueing
// discipline, so that no queue lies before it: WritePacket runs in the goroutine that makes gVisor send.
type link struct {
	w          PacketWriter
	mtu        uint32
	gso        netstack.SupportedGSO
	gsoMaxSize uint32
	closed     atomic.Bool
	attached   atomic.Bool
	cutters    sync.Pool // of *cutter
	stats      *counters
	openers    openers
	synClocks  synClocks
}

var (
	_ netstack.LinkEndpoint       = (*link)(nil)
	_ netstack.GSOEndpoint        = (*link)(nil)
	_ netstack.QueueingDiscipline = (*link)(nil)
)

func newLink(w PacketWriter, mtu int, disableGSO bool, stats *counters) *link {
	l := &link{w: w, mtu: uint32(mtu), gso: netstack.HostGSOSupported, stats: stats}
	l.cutters.New = func() any { return new(cutter) }
	l.openers.send = l.writeWhole
	if disableGSO {
		l.gso = netstack.GSONotSupported
	}
	// A whole number of segments: a short one at the end of each super-segment would cost a packet each time. gVisor takes
	// TCPTotalHeaderMaximumSize+1 off the size.
	stride := mtu + w.Headroom() + w.Tailroom()
	payload := mtu - header.IPv4MinimumSize - header.TCPMinimumSize - tcpOptions
	segments := max(1, min(maxSegments, maxBurst/stride, maxJoined/payload))
	l.gsoMaxSize = uint32(segments*payload + header.TCPTotalHeaderMaximumSize + 1)
	return l
}

// WritePacket sends what gVisor hands down: a packet, or a TCP super-segment that is cut here (cut.go).
func (l *link) WritePacket(pkt *netstack.PacketBuffer) tcpip.Error {
	if l.closed.Load() {
		return nil
	}
	c := l.cutters.Get().(*cutter)
	defer l.cutters.Put(c)
	views, skip := pkt.AsViewList()
	c.setPacket(views, skip)
	c.headroom, c.tailroom = l.w.Headroom(), l.w.Tailroom()
	if gso := pkt.GSOOptions; gso.Type != netstack.GSONone && gso.NeedsCsum {
		l.stats.superSegments.Add(1)
		if !c.beginCut(len(pkt.NetworkHeader().Slice()), len(pkt.TransportHeader().Slice()), int(gso.MSS)) {
			l.stats.droppedOut.Add(1)
			return nil
		}
		for c.cut() {
			l.write(c)
		}
	} else {
		c.copyWhole()
		l.openers.sent(c.packets[0][c.headroom:])
		l.writeStamped(c)
	}
	c.release()
	return nil
}

// writeWhole sends a packet of our own making.
func (l *link) writeWhole(packet []byte) {
	c := l.cutters.Get().(*cutter)
	defer l.cutters.Put(c)
	c.parts = append(c.parts, packet)
	c.headroom, c.tailroom = l.w.Headroom(), l.w.Tailroom()
	c.copyWhole()
	l.writeStamped(c)
	c.release()
}

// writeStamped sends one whole packet.
func (l *link) writeStamped(c *cutter) {
	l.synClocks.stamp(c.packets[0][c.headroom:])
	l.write(c)
}

func (l *link) write(c *cutter) {
	n := uint64(len(c.packets))
	l.stats.packetsOut.Add(n)
	l.stats.bytesOut.Add(uint64(c.bytes))
	l.stats.writesOut.Add(1)
	if err := l.w.WritePackets(c.packets, c.headroom); err != nil {
		l.stats.droppedOut.Add(n) // TCP sends it again, UDP may lose it
	}
}

// WritePackets implements netstack.LinkWriter.
func (l *link) WritePackets(pkts netstack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		_ = l.WritePacket(pkt) // never fails
	}
	return pkts.Len(), nil
}

func (l *link) MTU() uint32                                     { return l.mtu }
func (l *link) SetMTU(uint32)                                   {}
func (l *link) MaxHeaderLength() uint16                         { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress                  { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)                {}
func (l *link) Capabilities() netstack.LinkEndpointCapabilities { return netstack.CapabilityNone }
func (l *link) Attach(d netstack.NetworkDispatcher)             { l.attached.Store(d != nil) }
func (l *link) IsAttached() bool                                { return l.attached.Load() }
func (l *link) Wait()                                           {}
func (l *link) ARPHardwareType() header.ARPHardwareType         { return header.ARPHardwareNone }
func (l *link) AddHeader(*netstack.PacketBuffer)                {}
func (l *link) ParseHeader(*netstack.PacketBuffer) bool         { return true }
func (l *link) Close()                                          {}
func (l *link) SetOnCloseAction(func())                         {}
func (l *link) GSOMaxSize() uint32                              { return l.gsoMaxSize }
func (l *link) SupportedGSO() netstack.SupportedGSO             { return l.gso }

// setPacket makes the cutter's input the bytes of a gVisor packet behind the first skip.
func (c *cutter) setPacket(views buffer.ViewList, skip int) {
	for v := views.Front(); v != nil; v = v.Next() {
		part := v.AsSlice()
		if skip >= len(part) {
			skip -= len(part)
			continue
		}
		c.parts = append(c.parts, part[skip:])
		skip = 0
	}
}
