package vpnclient

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/carrier"
	"gateway/ppp"
	"gateway/stack"
)

// A Network is one session of a tunnel: a PPP link and the stack above it.
type Network struct {
	conn   *Conn
	config stack.Config

	// Of the loop's goroutine.
	link   *carrier.Link
	params ppp.Params // the latest; those of the stack that is up are shown

	stack atomic.Pointer[stack.Stack]
	shown atomic.Pointer[ppp.Params]

	up      chan struct{} // closed when the network is up
	upOnce  sync.Once
	done    chan struct{} // closed when it has ended
	endOnce sync.Once
	ending  atomic.Bool
	err     error // why it ended; read after done
}

func newNetwork(conn *Conn, config stack.Config) *Network {
	return &Network{conn: conn, config: config, up: make(chan struct{}), done: make(chan struct{})}
}

// Stack returns the private network. It changes when the server renegotiates
// our address; the old one is closed then.
func (n *Network) Stack() *stack.Stack { return n.stack.Load() }

// Params returns what PPP has negotiated.
func (n *Network) Params() ppp.Params { return *n.shown.Load() }

// Done is closed when the network has ended.
func (n *Network) Done() <-chan struct{} { return n.done }

// Ended reports whether the network has begun to end: its stack is of no more use.
func (n *Network) Ended() bool { return n.ending.Load() }

// Err waits for the end of the network and returns why it ended.
func (n *Network) Err() error {
	<-n.done
	return n.err
}

// Close ends the session and leaves the tunnel as it is: LCP
// Terminate-Request, then CDN or Call-Clear-Request. It waits for the server's answer until ctx ends.
func (n *Network) Close(ctx context.Context) error {
	n.conn.loop.Do(func(now time.Time) { n.link.Close(now) })
	select {
	case <-n.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience is how long IPv4 may come later than IPv6, and the other way round if
// there was IPv6 before.
const patience = 3 * time.Second

// Up makes the stack, or tells it what has changed (ppp.PacketHandler).
func (n *Network) Up(p ppp.Params) {
	n.params = p
	n.conn.reached.Store(stagePPP)
	running := n.stack.Load()
	switch {
	case !p.Local.IsValid(), running != nil && n.shown.Load().IPv6 && !p.IPv6:
		// One is up before the other, also when LCP was negotiated anew. Nearly
		// always the other follows at once, with the address that it had.
		time.AfterFunc(patience, func() { n.conn.loop.Do(n.settle) })
	case running == nil, n.renumbered():
		n.rebuild()
	default:
		shown := n.shown.Swap(&p)
		if p.IPv6 && !shown.IPv6 {
			if err := running.SetIPv6(p.LocalIID, p.RemoteIID); err != nil {
				n.conn.config.Log.Warn("no IPv6", "cause", err)
			}
		}
	}
}

// renumbered reports whether the stack that is up has other addresses than PPP.
func (n *Network) renumbered() bool {
	p, shown := n.params, n.shown.Load()
	return shown.Local != p.Local || shown.IPv6 && (!p.IPv6 || shown.LocalIID != p.LocalIID)
}

// settle makes the stack without what has not come meanwhile.
func (n *Network) settle(time.Time) {
	if !n.Ended() && (n.stack.Load() == nil || n.renumbered()) {
		n.rebuild()
	}
}

// errRenumbered ends the connections of a stack whose address the server took away.
var errRenumbered = errors.New("vpnclient: the server changed our address")

// rebuild puts a stack with the current parameters in the place of the old one.
func (n *Network) rebuild() {
	p, config := n.params, n.config
	config.IPv4, config.Peer4 = p.Local, p.Remote
	config.IPv6, config.IID, config.PeerIID = p.IPv6, p.LocalIID, p.RemoteIID
	config.MTU = p.MTU
	if limit := n.conn.config.MTU; limit != 0 {
		config.MTU = min(config.MTU, limit)
	}
	if len(config.DNS) == 0 {
		config.DNS = p.DNS
	}
	network, err := stack.New(config, n.link.PPP())
	if err != nil {
		n.end(&Error{"ipcp", "the server's addresses cannot be used", err})
		n.link.Close(time.Now())
		return
	}
	n.shown.Store(&p)
	if old := n.stack.Swap(network); old != nil {
		go old.Close(errRenumbered) // it waits for the stack's goroutines, which may wait for this one
	}
	n.conn.config.Log.Info("network is up", "address", p.Local, "peer", p.Remote, "dns", config.DNS,
		"ipv6", p.IPv6, "mtu", config.MTU, "auth", p.Auth.String(), "encryption", p.Encryption, "compression", p.Compression)
	n.upOnce.Do(func() { close(n.up) })
}

// HandlePackets gives the stack what the server sent (ppp.PacketHandler).
func (n *Network) HandlePackets(packets [][]byte) {
	if s := n.stack.Load(); s != nil {
		s.HandlePackets(packets)
	}
}

// Down ends the network: PPP has ended (ppp.PacketHandler).
func (n *Network) Down(err error) {
	err = closedByUs(err)
	n.end(err)
	n.conn.networkDown(n, err)
}

// end notes why the network ends, and closes its stack. The first reason counts.
func (n *Network) end(err error) {
	n.endOnce.Do(func() {
		if err == nil {
			err = ErrClosed
		}
		n.err = err
		n.ending.Store(true)
		s := n.stack.Load()
		if s == nil {
			close(n.done)
			return
		}
		go func() { // as in rebuild
			s.Close(err)
			close(n.done)
		}()
	})
}
