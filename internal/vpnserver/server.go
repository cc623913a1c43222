package vpnserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/stack"
	"gateway/tunnel/l2tp"
)

// Config says what the server is. The zero value listens on a free port of
// 127.0.0.1 and knows no user.
type Config struct {
	Listen netip.AddrPort    // UDP, for L2TP
	Users  map[string]string // passwords by login

	L2TP l2tp.Config // its AcceptTunnel is set here
	PPP  ppp.Config  // its Role, Secrets and Assign are set here

	// CallOut makes the server open the session itself (OCRQ) when a client's
	// tunnel is up, and refuse the client's own (ICRQ).
	CallOut bool

	// Private holds the addresses of the private network; empty: 10.88.0.1 and fd88::1.
	Private []netip.Addr
	// Clients4 is where clients' addresses come from; zero: 10.99.0.0/16.
	Clients4 netip.Prefix
	// Clients6 is where clients' /64 come from, a /48; zero: fd99::/48.
	Clients6 netip.Prefix

	// Out lists what clients may reach outside the private network, through
	// this machine's own network: none, unless listed.
	Out []netip.Prefix

	// Stack has the settings of the private network's stack; its addresses are set here.
	Stack stack.Config
	// Socket has the settings of the carrier's socket; its Local is set here.
	Socket udpbatch.Config
	// WrapSocket, if set, stands between the socket and the protocols, to test
	// with loss and reordering.
	WrapSocket func(Socket) Socket

	Log *slog.Logger // nil: discard
}

// A Socket is the carrier's datagram socket.
type Socket interface {
	carrier.Socket
	l2tp.DatagramWriter
	Close() error
}

func (c Config) withDefaults() Config {
	if !c.Listen.IsValid() {
		c.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	if len(c.Private) == 0 {
		c.Private = []netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::1")}
	}
	if !c.Clients4.IsValid() {
		c.Clients4 = netip.MustParsePrefix("10.99.0.0/16")
	}
	if !c.Clients6.IsValid() {
		c.Clients6 = netip.MustParsePrefix("fd99::/48")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Server is a running server.
type Server struct {
	config   Config
	socket   Socket
	local    netip.AddrPort
	engine   *carrier.L2TP
	loop     *carrier.Loop
	pool     pool
	router   *router
	network  *stack.Stack
	intranet *intranet
	done     chan struct{} // closed when the loop has ended
	spoofed  atomic.Uint64 // packets whose source is not their client's

	// feed keeps the private network's inbound side to one goroutine at a time,
	// as its stack demands; the carriers' loops take turns.
	feed sync.Mutex
}

// Start starts a server.
func Start(ctx context.Context, c Config) (*Server, error) {
	c = c.withDefaults()
	s := &Server{config: c, router: newRouter(), done: make(chan struct{}),
		pool: pool{prefix4: c.Clients4, prefix6: c.Clients6}}

	c.Socket.Local = c.Listen
	conn, err := udpbatch.Listen(ctx, c.Socket)
	if err != nil {
		return nil, fmt.Errorf("vpnserver: %w", err)
	}
	s.socket, s.local = conn, conn.LocalAddr()
	if c.WrapSocket != nil {
		s.socket = c.WrapSocket(s.socket)
	}
	if err := s.startNetwork(); err != nil {
		s.socket.Close()
		return nil, err
	}
	c.L2TP.AcceptTunnel = s.acceptTunnel
	s.engine = carrier.NewL2TP(c.L2TP, s.socket)
	s.loop = carrier.NewLoop(s.socket, s.engine)
	go s.run()
	return s, nil
}

func (s *Server) startNetwork() error {
	config := s.config.Stack
	config.Addresses = s.config.Private
	if config.MTU == 0 {
		config.MTU = privateMTU
	}
	if len(s.config.Out) > 0 {
		config.Forward = s.letOut
	}
	network, err := stack.New(config, s.router)
	if err != nil {
		return fmt.Errorf("vpnserver: private network: %w", err)
	}
	s.network = network
	s.intranet, err = newIntranet(network, s.config.Private, s.config.Log)
	return err
}

// privateMTU is the MTU of the private network: what an L2TP tunnel over an
// outer MTU of 1500 carries. A client's TCP says itself if it takes less.
const privateMTU = 1400

func (s *Server) run() {
	defer close(s.done)
	if err := s.loop.Run(); err != nil {
		s.config.Log.Error("server ended", "cause", err)
	}
}

// Addr returns the address and UDP port of the server.
func (s *Server) Addr() netip.AddrPort { return s.local }

// Private returns the addresses of the private network.
func (s *Server) Private() []netip.Addr { return s.config.Private }

// Stats counts packets that were dropped.
type Stats struct {
	Spoofed    uint64 // from a client, with a source that is not its own
	Unroutable uint64 // from the private network, for no client
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{Spoofed: s.spoofed.Load(), Unroutable: s.router.unroutable.Load()}
}

// Close says goodbye to all clients (StopCCN), waits until ctx ends for their
// answers, and ends the server.
func (s *Server) Close(ctx context.Context) error {
	idle := make(chan struct{})
	s.loop.Do(func(now time.Time) {
		s.engine.Endpoint().Close(now)
		s.closeWhenIdle(idle)
	})
	var err error
	select {
	case <-idle:
	case <-s.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Kill()
	return err
}

// closeWhenIdle closes idle when every tunnel has acknowledged its end.
func (s *Server) closeWhenIdle(idle chan struct{}) {
	const pollEvery = 10 * time.Millisecond
	if s.engine.Endpoint().Idle() {
		close(idle)
		return
	}
	time.AfterFunc(pollEvery, func() { s.loop.Do(func(time.Time) { s.closeWhenIdle(idle) }) })
}

// Kill ends the server without a word to its clients, as a power cut would.
func (s *Server) Kill() {
	s.socket.Close()
	<-s.done
	s.intranet.close()
}

// acceptTunnel takes every client's tunnel; l2tp.Config's Secret may have proven it.
func (s *Server) acceptTunnel(from netip.AddrPort, hostName string) (l2tp.TunnelHandler, error) {
	s.config.Log.Info("tunnel accepted", "client", from.String(), "name", hostName)
	return &tunnelHandler{server: s, from: from}, nil
}

// A tunnelHandler is one client's tunnel.
type tunnelHandler struct {
	server *Server
	from   netip.AddrPort
}

// TunnelUp calls the client, if that is how sessions begin here.
func (h *tunnelHandler) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	s := h.server
	if !s.config.CallOut {
		return
	}
	client := &client{server: s, from: h.from}
	link, err := s.engine.CallOut(now, t, client.config(), client)
	if err != nil {
		s.config.Log.Warn("cannot call the client", "client", h.from.String(), "cause", err)
		return
	}
	client.link = link
}

// TunnelDown notes the end of the tunnel; its sessions have ended before.
func (h *tunnelHandler) TunnelDown(now time.Time, err error) {
	h.server.config.Log.Info("tunnel is down", "client", h.from.String(), "cause", err)
}

// AcceptSession takes the client's session.
func (h *tunnelHandler) AcceptSession(now time.Time, session *l2tp.Session) (l2tp.SessionHandler, error) {
	s := h.server
	if s.config.CallOut {
		return nil, errors.New("this server calls its clients itself")
	}
	client := &client{server: s, from: h.from}
	client.link = s.engine.AcceptLink(session, client.config(), client)
	return client.link, nil
}

// password looks a login up, in a time that does not depend on the logins.
func (s *Server) password(user string) (password string, ok bool) {
	for name, secret := range s.config.Users {
		if subtle.ConstantTimeCompare([]byte(name), []byte(user)) == 1 {
			password, ok = secret, true
		}
	}
	return password, ok
}
