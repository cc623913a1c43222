package vpnserver

import (
	"net/netip"

	"gateway/internal/carrier"
	"gateway/ppp"
)

// A client is one client's link as its PPP session sees it (ppp.PacketHandler):
// between the client and the private network. It belongs to the loop's
// goroutine.
type client struct {
	server *Server
	from   netip.AddrPort
	link   *carrier.Link

	number  uint16 // in the pool; 0: none
	addr4   netip.Addr
	subnet6 netip.Prefix // valid while IPV6CP is open
	mtu     int
	taken   [][]byte // HandlePackets' result, reused
}

// config returns the PPP settings of the client's link.
func (c *client) config() ppp.Config {
	config := c.server.config.PPP
	config.Role = ppp.Authenticator
	config.Secrets = c.server.password
	config.Assign = c.assign
	return config
}

// assign gives the client its address. It keeps it until the link is down.
func (c *client) assign(user string) (ppp.Assignment, error) {
	pool := &c.server.pool
	if c.number == 0 {
		number, err := pool.take()
		if err != nil {
			return ppp.Assignment{}, err
		}
		c.number, c.addr4 = number, pool.addr4(number)
	}
	var dns []netip.Addr
	if private := firstOf(c.server.config.Private, netip.Addr.Is4); private.IsValid() {
		dns = append(dns, private)
	}
	return ppp.Assignment{Local: pool.server(), Peer: c.addr4, DNS: dns}, nil
}

// Up lets packets through, to the client too.
func (c *client) Up(p ppp.Params) {
	c.mtu = p.MTU
	if p.IPv6 && c.number != 0 {
		c.subnet6 = c.server.pool.subnet6(c.number)
	}
	c.server.router.set(c.addr4, c.subnet6, c.link.PPP())
	c.server.config.Log.Info("client is up", "client", c.from.String(), "user", p.Username, "auth", p.Auth.String(),
		"address", c.addr4, "prefix", c.subnet6, "mtu", p.MTU, "encryption", p.Encryption, "compression", p.Compression)
}

// HandlePackets gives the private network what the client may send.
func (c *client) HandlePackets(packets [][]byte) {
	c.taken = c.taken[:0]
	for _, packet := range packets {
		switch {
		case c.owns(packet):
			c.taken = append(c.taken, packet)
		case c.subnet6.IsValid() && isSolicitation(packet):
			c.advertise()
		default:
			c.server.spoofed.Add(1)
		}
	}
	if len(c.taken) > 0 {
		c.server.feed.Lock()
		defer c.server.feed.Unlock()
		c.server.network.HandlePackets(c.taken)
	}
}

// owns reports whether a packet's source is the client's own address.
func (c *client) owns(packet []byte) bool {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return c.addr4.IsValid() && c.addr4.As4() == [4]byte(packet[12:16])
	case len(packet) >= ipv6HeaderSize && packet[0]>>4 == 6:
		return c.subnet6.IsValid() && c.subnet6.Contains(netip.AddrFrom16([16]byte(packet[8:24])))
	}
	return false
}

// linkLocal is the server's end of every link.
var linkLocal = netip.MustParseAddr("fe80::1")

// advertise answers a Router Solicitation.
func (c *client) advertise() {
	link := c.link.PPP()
	packet := make([]byte, link.Headroom(), link.Headroom()+128+link.Tailroom())
	packet = appendAdvertisement(packet, linkLocal, c.subnet6, c.mtu)
	link.WritePackets([][]byte{packet}, link.Headroom())
}

// Down takes the client's addresses back.
func (c *client) Down(err error) {
	c.server.config.Log.Info("client is down", "client", c.from.String(), "address", c.addr4, "cause", err)
	c.server.router.set(c.addr4, c.subnet6, nil)
	if c.number != 0 {
		c.server.pool.give(c.number)
		c.number = 0
	}
}
