package vpnserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/tunnel/l2tp"
)

// A Socket is a datagram socket that carries L2TP.
type Socket interface {
	carrier.Socket
	l2tp.DatagramWriter
	Close() error
}

// An lns is the server of L2TP clients (RFC 2661).
type lns struct {
	entrance
	server *Server
	engine *carrier.L2TP
	local  netip.AddrPort

	// Of the loop's goroutine: where the clients are whose tunnels are up.
	tunnels map[*l2tp.Tunnel]netip.AddrPort
}

func newLNS(s *Server, local netip.AddrPort) *lns {
	return &lns{server: s, local: local, tunnels: make(map[*l2tp.Tunnel]netip.AddrPort)}
}

// openLNS opens the UDP socket.
func openLNS(ctx context.Context, s *Server) (*lns, error) {
	c := s.config
	udp, err := listenAt(ctx, c.Socket, c.Listen)
	if err != nil {
		return nil, err
	}
	socket := Socket(udp)
	if c.WrapSocket != nil {
		socket = c.WrapSocket(socket)
	}
	n := newLNS(s, udp.LocalAddr())
	c.L2TP.AcceptTunnel = n.acceptTunnel
	n.engine = carrier.NewL2TP(c.L2TP, socket)
	n.entrance = entrance{loop: carrier.NewLoop(socket, n.engine), endpoint: n.engine.Endpoint(),
		shut: func() { socket.Close() }, done: make(chan struct{})}
	return n, nil
}

func listenAt(ctx context.Context, c udpbatch.Config, local netip.AddrPort) (*udpbatch.Conn, error) {
	c.Local = local
	conn, err := udpbatch.Listen(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("vpnserver: %w", err)
	}
	return conn, nil
}

// acceptTunnel takes every client's tunnel; l2tp.Config's Secret may have proven it.
func (n *lns) acceptTunnel(from netip.AddrPort, hostName string) (l2tp.TunnelHandler, error) {
	n.server.config.Log.Info("tunnel accepted", "client", from.String(), "name", hostName)
	return &tunnelHandler{lns: n, from: from}, nil
}

// A tunnelHandler is one client's tunnel.
type tunnelHandler struct {
	lns    *lns
	from   netip.AddrPort
	tunnel *l2tp.Tunnel // once it is up
}

// TunnelUp calls the client, if that is how sessions begin here.
func (h *tunnelHandler) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	s := h.lns.server
	h.tunnel = t
	h.lns.tunnels[t] = h.from
	if !s.config.CallOut {
		return
	}
	client := &client{server: s, from: h.from}
	link, err := h.lns.engine.CallOut(now, t, client.config(), client)
	if err != nil {
		s.config.Log.Warn("cannot call the client", "client", h.from.String(), "cause", err)
		return
	}
	client.link = link
}

// TunnelDown notes the end of the tunnel; its sessions have ended before.
func (h *tunnelHandler) TunnelDown(_ time.Time, err error) {
	delete(h.lns.tunnels, h.tunnel)
	h.lns.server.config.Log.Info("tunnel is down", "client", h.from.String(), "cause", err)
}

// AcceptSession takes the client's session.
func (h *tunnelHandler) AcceptSession(_ time.Time, session *l2tp.Session) (l2tp.SessionHandler, error) {
	s := h.lns.server
	if s.config.CallOut {
		return nil, errors.New("this server calls its clients itself")
	}
	client := &client{server: s, from: h.from}
	client.link = h.lns.engine.AcceptLink(session, client.config(), client)
	return client.link, nil
}
