package vpnserver

import (
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
	by4 map[[4]byte]*route
	by6 map[[8]byte]*route
}

// A route is the way to one client.
type route struct {
	link *ppp.Session
	mtu  int
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
// for nobody, and packets larger than their client's MTU, are dropped.
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
		} else if err := to.link.WritePackets(packets[:n], offset); err != nil {
			r.unroutable.Add(uint64(n)) // its link is ending
		}
		packets = packets[n:]
	}
	return nil
}

// find returns the route of an IP packet, or nil.
func (t *routes) find(packet []byte) *route {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return t.by4[[4]byte(packet[16:20])]
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return t.by6[[8]byte(packet[24:32])]
	}
	return nil
}

// set replaces the routes of one client: to a nil route, it is removed.
func (r *router) set(addr4 netip.Addr, subnet6 netip.Prefix, to *route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.table.Load()
	next := &routes{by4: make(map[[4]byte]*route, len(old.by4)+1), by6: make(map[[8]byte]*route, len(old.by6)+1)}
	for k, v := range old.by4 {
		next.by4[k] = v
	}
	for k, v := range old.by6 {
		next.by6[k] = v
	}
	if addr4.IsValid() {
		set(next.by4, addr4.As4(), to)
	}
	if subnet6.IsValid() {
		a := subnet6.Addr().As16()
		set(next.by6, [8]byte(a[:8]), to)
	}
	r.table.Store(next)
}

func set[K comparable](m map[K]*route, k K, to *route) {
	if to == nil {
		delete(m, k)
	} else {
		m[k] = to
	}
}
