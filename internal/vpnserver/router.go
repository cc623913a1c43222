package vpnserver

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"gateway/ppp"
)

// A router sends the private network's packets to the clients they are for
// (stack.PacketWriter). Any goroutine may send; the table is replaced as a
// whole when a client comes or goes.
type router struct {
	mu    sync.Mutex // of those who replace the table
	table atomic.Pointer[routes]

	unroutable atomic.Uint64 // packets for no client

	// room for what any client's carrier may put around a packet
	headroom, tailroom int
}

// routes has the clients by IPv4 address and by IPv6 /64.
type routes struct {
	by4 map[[4]byte]*ppp.Session
	by6 map[[8]byte]*ppp.Session
}

// Room that is enough for L2TP, ESP and PPP around a packet.
const (
	routerHeadroom = 128
	routerTailroom = 64
)

func newRouter() *router {
	r := &router{headroom: routerHeadroom, tailroom: routerTailroom}
	r.table.Store(&routes{})
	return r
}

// Headroom implements stack.PacketWriter.
func (r *router) Headroom() int { return r.headroom }

// Tailroom implements stack.PacketWriter.
func (r *router) Tailroom() int { return r.tailroom }

// WritePackets sends each run of packets for one client as a batch. Packets
// for nobody are dropped.
func (r *router) WritePackets(packets [][]byte, offset int) error {
	table := r.table.Load()
	for len(packets) > 0 {
		to := table.find(packets[0][offset:])
		n := 1
		for n < len(packets) && table.find(packets[n][offset:]) == to {
			n++
		}
		if to == nil {
			r.unroutable.Add(uint64(n))
		} else if err := to.WritePackets(packets[:n], offset); err != nil {
			r.unroutable.Add(uint64(n)) // its link is ending
		}
		packets = packets[n:]
	}
	return nil
}

// find returns the client that an IP packet is for, or nil.
func (t *routes) find(packet []byte) *ppp.Session {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return t.by4[[4]byte(packet[16:20])]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return t.by6[[8]byte(packet[24:32])]
	}
	return nil
}

// set replaces the routes of one client; a nil client removes them.
func (r *router) set(addr4 netip.Addr, subnet6 netip.Prefix, to *ppp.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.table.Load()
	next := &routes{by4: make(map[[4]byte]*ppp.Session, len(old.by4)+1), by6: make(map[[8]byte]*ppp.Session, len(old.by6)+1)}
	maps.Copy(next.by4, old.by4)
	maps.Copy(next.by6, old.by6)
	if addr4.IsValid() {
		set(next.by4, addr4.As4(), to)
	}
	if subnet6.IsValid() {
		a := subnet6.Addr().As16()
		set(next.by6, [8]byte(a[:8]), to)
	}
	r.table.Store(next)
}

func set[K comparable](m map[K]*ppp.Session, k K, to *ppp.Session) {
	if to == nil {
		delete(m, k)
	} else {
		m[k] = to
	}
}
