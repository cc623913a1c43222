package carrier

import (
	"net/netip"
	"time"

	"gateway/ppp"
	"gateway/tunnel/l2tp"
)

// L2TP is an L2TP endpoint with the PPP links of its sessions: an [Engine]. It
// belongs to the loop's goroutine.
type L2TP struct {
	endpoint *l2tp.Endpoint
	links    links
}

// NewL2TP returns an engine that sends through w.
func NewL2TP(c l2tp.Config, w l2tp.DatagramWriter) *L2TP {
	return &L2TP{endpoint: l2tp.NewEndpoint(c, w)}
}

// Endpoint returns the L2TP endpoint.
func (c *L2TP) Endpoint() *l2tp.Endpoint { return c.endpoint }

// OpenLink asks the LNS at the other end of t for a session (ICRQ) with a PPP
// link on it.
func (c *L2TP) OpenLink(now time.Time, t *l2tp.Tunnel, config ppp.Config, up ppp.PacketHandler) (*Link, error) {
	return c.open(now, t.OpenSession, config, up)
}

// CallOut asks the LAC at the other end of t for a session (OCRQ) with a PPP
// link on it.
func (c *L2TP) CallOut(now time.Time, t *l2tp.Tunnel, config ppp.Config, up ppp.PacketHandler) (*Link, error) {
	return c.open(now, t.CallOut, config, up)
}

func (c *L2TP) open(now time.Time, call func(time.Time, l2tp.SessionHandler) (*l2tp.Session, error), config ppp.Config, up ppp.PacketHandler) (*Link, error) {
	link := NewLink(config, up)
	session, err := call(now, link)
	if err != nil {
		return nil, err
	}
	c.links.add(link, session)
	return link, nil
}

// AcceptLink makes the PPP link of a session that the peer asked for, for use in
// l2tp.TunnelHandler's AcceptSession.
func (c *L2TP) AcceptLink(s *l2tp.Session, config ppp.Config, up ppp.PacketHandler) *Link {
	link := NewLink(config, up)
	c.links.add(link, s)
	return link
}

// Receive implements [Engine].
func (c *L2TP) Receive(now time.Time, from netip.AddrPort, datagrams [][]byte) (next time.Time) {
	return c.links.earliest(c.endpoint.Receive(now, from, datagrams))
}

// Advance implements [Engine].
func (c *L2TP) Advance(now time.Time) (next time.Time) {
	c.links.advance(now)
	return c.links.earliest(c.endpoint.Advance(now))
}
