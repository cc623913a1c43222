package vpnserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/tunnel/ipsec/ike"
)

// A secureLNS is the server of L2TP clients that come through IPsec (RFC 3193).
// It has a UDP socket for ESP and for IKE beside it, whose loop does all the
// work, and one where clients' IKE begins.
type secureLNS struct {
	*lns
	ipsec *carrier.IPsec
	plain *udpbatch.Conn
	reads sync.WaitGroup // the goroutine of plain
}

// openSecureLNS opens the sockets.
func openSecureLNS(ctx context.Context, s *Server) (*secureLNS, error) {
	c := s.config
	plain, err := listenAt(ctx, c.Socket, c.ListenIKE)
	if err != nil {
		return nil, err
	}
	udp, err := listenAt(ctx, c.Socket, c.ListenESP)
	if err != nil {
		plain.Close()
		return nil, err
	}
	socket := Socket(udp)
	if c.WrapSocket != nil {
		socket = c.WrapSocket(socket)
	}
	n := &secureLNS{lns: newLNS(s, udp.LocalAddr()), plain: plain}
	config := c.IPsec
	config.Accept, config.Plain = n.acceptPeer, plain
	if addr := n.local.Addr(); !addr.IsUnspecified() {
		config.IKE.LocalAddr = addr
	}
	c.L2TP.AcceptTunnel = n.acceptTunnel
	if n.ipsec, err = carrier.NewIPsec(config, c.L2TP, socket); err != nil {
		plain.Close()
		socket.Close()
		return nil, fmt.Errorf("vpnserver: %w", err)
	}
	n.engine = n.ipsec.L2TP()
	n.entrance = entrance{loop: carrier.NewLoop(socket, n.ipsec), endpoint: n.engine.Endpoint(), leave: n.ipsec.Close,
		shut: func() { plain.Close(); socket.Close() }, release: n.reads.Wait, done: make(chan struct{})}
	return n, nil
}

// readPlain hands the loop what comes to the socket where IKE begins, and waits
// until it is done with it, until the socket is closed.
func (n *secureLNS) readPlain() {
	for {
		messages, err := n.plain.Read()
		switch peer := (*udpbatch.PeerError)(nil); {
		case errors.As(err, &peer):
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			n.server.config.Log.Error("no more clients can begin IKE", "cause", err)
			return
		}
		taken := make(chan struct{})
		ok := n.loop.Do(func(now time.Time) {
			for _, m := range messages {
				n.ipsec.ReceivePlain(now, m.From, m.Datagrams)
			}
			close(taken)
		})
		if !ok {
			return
		}
		select {
		case <-taken:
		case <-n.loop.Done():
			return
		}
	}
}

// acceptPeer takes every client that has proven to know the pre-shared key, or
// to have a certificate.
func (n *secureLNS) acceptPeer(from netip.AddrPort, id ike.Identity) (carrier.SecurityHandler, error) {
	n.server.config.Log.Info("IPsec accepted", "client", from.String(), "id", id.String())
	return &securityHandler{lns: n, from: from}, nil
}

// A securityHandler is the IPsec of one client.
type securityHandler struct {
	lns  *secureLNS
	from netip.AddrPort
}

// SecurityUp notes by which address L2TP knows the client.
func (h *securityHandler) SecurityUp(_ time.Time, client netip.AddrPort) { h.from = client }

// SecurityDown ends the client's tunnels, which cannot be reached any more.
func (h *securityHandler) SecurityDown(now time.Time, err error) {
	h.lns.server.config.Log.Info("IPsec is down", "client", h.from.String(), "cause", err)
	for tunnel, from := range h.lns.tunnels {
		if from == h.from {
			tunnel.Close(now)
		}
	}
}
