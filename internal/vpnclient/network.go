package vpnclient

import (
	"errors"
	"time"

	"gateway/ppp"
	"gateway/stack"
)

// network is the Conn as its PPP link sees it (ppp.PacketHandler): it makes the
// stack and feeds it.
type network Conn

// patience is how long IPv4 may come later than IPv6.
const patience = 3 * time.Second

// Up makes the stack, or tells it what has changed.
func (n *network) Up(p ppp.Params) {
	c := (*Conn)(n)
	old := c.params
	c.params = p
	c.reached.Store(stagePPP)
	if c.network.Load() == nil && !p.Local.IsValid() {
		// IPv6 is up first. Nearly always IPv4 follows at once.
		time.AfterFunc(patience, func() { c.loop.Do(func(time.Time) { c.build() }) })
		return
	}
	if c.network.Load() == nil || old.Local != p.Local || old.IPv6 && !p.IPv6 || old.LocalIID != p.LocalIID && old.IPv6 {
		c.rebuild()
		return
	}
	c.shown.Store(&p)
	if p.IPv6 && !old.IPv6 {
		if err := c.network.Load().SetIPv6(p.LocalIID, p.RemoteIID); err != nil {
			c.config.Log.Warn("no IPv6", "cause", err)
		}
	}
}

// build makes the stack if there is none.
func (c *Conn) build() {
	if c.network.Load() == nil && c.reason == nil {
		c.rebuild()
	}
}

// errRenumbered ends the connections of a stack whose address the server took away.
var errRenumbered = errors.New("vpnclient: the server changed our address")

// rebuild puts a stack with the current parameters in the place of the old one.
func (c *Conn) rebuild() {
	p := c.params
	config := c.config.Stack
	config.IPv4, config.Peer4 = p.Local, p.Remote
	config.IPv6, config.IID, config.PeerIID = p.IPv6, p.LocalIID, p.RemoteIID
	config.MTU = p.MTU
	if c.config.MTU != 0 {
		config.MTU = min(config.MTU, c.config.MTU)
	}
	if len(config.DNS) == 0 {
		config.DNS = p.DNS
	}
	network, err := stack.New(config, c.link.PPP())
	if err != nil {
		c.end(&Error{"ipcp", "the server's addresses cannot be used", err})
		return
	}
	c.shown.Store(&p)
	old := c.network.Swap(network)
	if old != nil {
		// Not on this goroutine: closing waits for the stack's own.
		go old.Close(errRenumbered)
	}
	c.config.Log.Info("network is up", "address", p.Local, "peer", p.Remote, "dns", config.DNS,
		"ipv6", p.IPv6, "mtu", p.MTU, "auth", p.Auth.String())
	c.upOnce.Do(func() { close(c.up) })
}

// HandlePackets gives the stack what the server sent.
func (n *network) HandlePackets(packets [][]byte) {
	if s := n.network.Load(); s != nil {
		s.HandlePackets(packets)
	}
}

// Down hangs up: PPP has ended.
func (n *network) Down(err error) {
	if errors.Is(err, ppp.ErrClosed) {
		err = ErrClosed
	}
	(*Conn)(n).hangUp(time.Now(), err)
}
