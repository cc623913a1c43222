package carrier

import (
	"net/netip"
	"time"

	"gateway/ppp"
	"gateway/tunnel/pptp"
)

// PPTP is a PPTP endpoint with its TCP connections and the PPP links of its
// calls: an [Engine] for a loop that reads GRE packets. It belongs to the
// loop's goroutine.
type PPTP struct {
	endpoint *pptp.Endpoint
	controls controls
	links    links
	loop     *Loop // the one that drives the engine, from the first Dial or Accept on; nil: something else does
}

// NewPPTP returns an engine that sends GRE packets through w.
func NewPPTP(c pptp.Config, w pptp.GREWriter) *PPTP {
	p := &PPTP{controls: newControls()}
	c.Do = func(f func(now time.Time)) {
		if p.loop != nil {
			p.loop.Do(f)
		}
	}
	p.endpoint = pptp.NewEndpoint(c, w)
	return p
}

// Endpoint returns the PPTP endpoint.
func (c *PPTP) Endpoint() *pptp.Endpoint { return c.endpoint }

// Dial begins a control connection over a TCP connection to the PAC at peer.
// tcp is the engine's from now on. loop is the one that drives the engine.
func (c *PPTP) Dial(now time.Time, loop *Loop, peer netip.Addr, tcp TCPConn, h pptp.ConnectionHandler) {
	c.loop = loop
	c.controls.start(loop, tcp, h, func(k *control) *pptp.Connection { return c.endpoint.Dial(now, peer, k, k) })
}

// Accept takes a TCP connection that the PNS at peer made; the rest is as with Dial.
func (c *PPTP) Accept(now time.Time, loop *Loop, peer netip.Addr, tcp TCPConn, h pptp.ConnectionHandler) {
	c.loop = loop
	c.controls.start(loop, tcp, h, func(k *control) *pptp.Connection { return c.endpoint.Accept(now, peer, k, k) })
}

// OpenLink asks the PAC at the other end of k for a call with a PPP link on it.
func (c *PPTP) OpenLink(now time.Time, k *pptp.Connection, config ppp.Config, up ppp.PacketHandler) (*Link, error) {
	link := NewLink(config, up)
	call, err := k.OpenCall(now, link)
	if err != nil {
		return nil, err
	}
	c.links.add(link, call)
	return link, nil
}

// AcceptLink makes the PPP link of a call that the peer asked for, for use in
// pptp.ConnectionHandler's AcceptCall.
func (c *PPTP) AcceptLink(call *pptp.Call, config ppp.Config, up ppp.PacketHandler) *Link {
	link := NewLink(config, up)
	c.links.add(link, call)
	return link
}

// Receive implements [Engine].
func (c *PPTP) Receive(now time.Time, from netip.AddrPort, packets [][]byte) (next time.Time) {
	return c.links.earliest(c.endpoint.Receive(now, from.Addr(), packets))
}

// Advance implements [Engine].
func (c *PPTP) Advance(now time.Time) (next time.Time) {
	c.links.advance(now)
	return c.links.earliest(c.endpoint.Advance(now))
}

// Release closes the TCP connections that are left, and waits for their
// readers. It is to be called when the loop has ended.
func (c *PPTP) Release() { c.controls.release() }
