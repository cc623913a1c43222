// Package gateway is the program as its configuration describes it: the
// tunnels, each kept up by a supervisor, and the proxies in front of them.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gateway/internal/config"
	"gateway/internal/supervisor"
	"gateway/internal/vpnclient"
	"gateway/proxy"
)

// ErrListen is wrapped by errors about the proxies' own addresses.
var ErrListen = errors.New("gateway: cannot listen")

// A Gateway is the running program. Its listeners are open from New on.
type Gateway struct {
	tunnels []*supervisor.Tunnel
	proxy   *proxy.Server
	doors   []door
	ready   chan struct{}
	log     *slog.Logger
}

// A door is a listener of the proxies.
type door struct {
	what     string // "socks5", "http", "socks5+http"
	listener net.Listener
	serve    func(context.Context, net.Listener) error
}

// Options are what a configuration does not say.
type Options struct {
	Log *slog.Logger // nil: discard
	// OpenGRE opens the sockets for PPTP; nil: in the way that the configuration says.
	OpenGRE func(ctx context.Context, server netip.Addr) (vpnclient.GRESocket, error)
}

// goodbye bounds how long open connections may go on when the program ends.
const goodbye = 2 * time.Second

// New opens the listeners; nothing is dialed before Run. It must be given a
// Config that config.Load has validated.
func New(c *config.Config, o Options) (*Gateway, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{ready: make(chan struct{}), log: log}
	for i := range c.Tunnels {
		t := tunnelConfig(c, &c.Tunnels[i], log)
		if o.OpenGRE != nil {
			t.Dial.OpenGRE = o.OpenGRE
		}
		g.tunnels = append(g.tunnels, supervisor.New(t))
	}
	// Rules that choose a tunnel by destination are to come; until then the
	// first one serves.
	first := g.tunnels[0]
	server, err := proxy.New(proxyConfig(c, first, log))
	if err != nil {
		return nil, err
	}
	g.proxy = server
	if err := g.open(&c.Proxy); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) open(c *config.Proxy) error {
	if c.SOCKS5 != "" && c.SOCKS5 == c.HTTP && !anyPort(c.SOCKS5) {
		return g.openOne("socks5+http", c.SOCKS5, c, g.proxy.ServeMixed)
	}
	return errors.Join(
		g.openOne("socks5", c.SOCKS5, c, g.proxy.ServeSOCKS5),
		g.openOne("http", c.HTTP, c, g.proxy.ServeHTTP))
}

// anyPort reports whether an address leaves the port to the system.
func anyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == "0"
}

func (g *Gateway) openOne(what, address string, c *config.Proxy, serve func(context.Context, net.Listener) error) error {
	if address == "" {
		return nil
	}
	if err := proxy.CheckListen(address, len(c.Users), c.AllowOpen); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrListen, what, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrListen, what, err)
	}
	g.doors = append(g.doors, door{what, l, serve})
	return nil
}

func (g *Gateway) close() {
	for _, d := range g.doors {
		d.listener.Close()
	}
}

// Addr returns the address of a proxy ("socks5" or "http"), or nil if it is off.
func (g *Gateway) Addr(what string) net.Addr {
	for _, d := range g.doors {
		if d.what == what || d.what == "socks5+http" {
			return d.listener.Addr()
		}
	}
	return nil
}

// Tunnels returns the tunnels, in the configuration's order.
func (g *Gateway) Tunnels() []*supervisor.Tunnel { return g.tunnels }

// Ready is closed when every tunnel has been up.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Run serves until ctx ends, closes everything properly and returns nil. It
// returns the failure of a tunnel that has given up when no other is left, or
// of a listener.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup

	// The tunnels outlive the proxies' goodbye: what is in flight may end well.
	tunnels, stopTunnels := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTunnels()
	failures := make(chan error, len(g.tunnels))
	for _, t := range g.tunnels {
		group.Go(func() { failures <- t.Run(tunnels) })
	}
	for _, d := range g.doors {
		g.log.Info("listening", "proxy", d.what, "address", d.listener.Addr().String())
		group.Go(func() {
			if err := d.serve(ctx, d.listener); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%w: %s: %w", ErrListen, d.what, err))
			}
		})
	}
	waiting, stopWaiting := context.WithCancel(ctx)
	group.Go(func() { g.waitReady(waiting) })
	group.Go(func() { g.trim(waiting) })

	err := g.watch(ctx, failures)
	stopWaiting()
	leave, done := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer done()
	g.proxy.Shutdown(leave)
	cancel(nil)
	stopTunnels()
	group.Wait()
	return err
}

// watch waits for the end: ctx's, or that of the last tunnel.
func (g *Gateway) watch(ctx context.Context, failures <-chan error) error {
	for left := len(g.tunnels); ; {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); errors.Is(cause, ErrListen) {
				return cause
			}
			return nil
		case err := <-failures:
			g.log.Error("tunnel given up", supervisor.Describe(err)...)
			if left--; left == 0 {
				return err
			}
		}
	}
}

func (g *Gateway) waitReady(ctx context.Context) {
	for _, t := range g.tunnels {
		select {
		case <-t.Ready():
		case <-ctx.Done():
			return
		}
	}
	close(g.ready)
}
