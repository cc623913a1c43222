package vpnserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gateway/internal/carrier"
	"gateway/internal/farend"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/stack"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

// Config says what the server is. The zero value listens on a free port of
// 127.0.0.1 and knows no user.
type Config struct {
	Listen netip.AddrPort    // UDP, for L2TP
	Users  map[string]string // passwords by login

	L2TP l2tp.Config // its AcceptTunnel is set here
	PPP  ppp.Config  // its Role, Secrets and Assign are set here

	// IPsec, if there is a key or a certificate in it, makes the server serve L2TP
	// inside IPsec, too. Its Accept, Plain and IKE.LocalAddr are set here.
	IPsec carrier.IPsecConfig
	// ListenIKE and ListenESP are UDP, instead of ports 500 and 4500; zero: free
	// ports of 127.0.0.1.
	ListenIKE, ListenESP netip.AddrPort

	// GRE, if set, makes the server serve PPTP, too. It is the server's from Start on.
	GRE        GRESocket
	ListenPPTP netip.AddrPort // TCP, IPv4; zero: a free port of 127.0.0.1
	PPTP       pptp.Config

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

	// FarEnd is what serves the benchmarks' traffic.
	FarEnd farend.Server

	// Stack has the settings of the private network's stack; its addresses are set here.
	Stack stack.Config
	// Socket has the settings of L2TP's sockets; its Local is set here.
	Socket udpbatch.Config
	// WrapSocket, if set, stands between such a socket and L2TP or ESP, to test
	// with loss and reordering.
	WrapSocket func(Socket) Socket

	Log *slog.Logger // nil: discard
}

func (c Config) withDefaults() Config {
	if !c.Listen.IsValid() {
		c.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	for _, listen := range []*netip.AddrPort{&c.ListenIKE, &c.ListenESP} {
		if !listen.IsValid() {
			*listen = netip.MustParseAddrPort("127.0.0.1:0")
		}
	}
	if !c.ListenPPTP.IsValid() {
		c.ListenPPTP = netip.MustParseAddrPort("127.0.0.1:0")
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
	lns      *lns
	secure   *secureLNS // nil without a key for IPsec
	pac      *pac       // nil without a GRE socket
	pool     pool
	router   *router
	network  *stack.Stack
	intranet *intranet
	spoofed  atomic.Uint64 // packets whose source is not their client's

	// feed keeps the private network's inbound side to one goroutine at a time,
	// as its stack demands; the carriers' loops take turns.
	feed sync.Mutex
}

// Start starts a server.
func Start(ctx context.Context, c Config) (*Server, error) {
	c = c.withDefaults()
	s := &Server{config: c, router: newRouter(), pool: pool{prefix4: c.Clients4, prefix6: c.Clients6}}
	if err := s.open(ctx); err != nil {
		if s.lns != nil {
			s.lns.shut()
		}
		if s.secure != nil {
			s.secure.shut()
		}
		if s.pac != nil {
			s.pac.shut()
		} else if c.GRE != nil {
			c.GRE.Close()
		}
		return nil, err
	}
	go s.lns.run(c.Log)
	if s.secure != nil {
		s.secure.reads.Go(s.secure.readPlain)
		go s.secure.run(c.Log)
	}
	if s.pac != nil {
		s.pac.accepts.Go(s.pac.accept)
		go s.pac.run(c.Log)
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) (err error) {
	if s.lns, err = openLNS(ctx, s); err != nil {
		return err
	}
	if ike := s.config.IPsec.IKE; len(ike.PSK) > 0 || ike.FindPSK != nil || len(ike.Certificates) > 0 {
		if s.secure, err = openSecureLNS(ctx, s); err != nil {
			return err
		}
	}
	if s.config.GRE != nil {
		if s.pac, err = openPAC(ctx, s); err != nil {
			return err
		}
	}
	return s.startNetwork()
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
	s.intranet, err = newIntranet(network, s.config)
	return err
}

// privateMTU is the MTU of the private network: what an L2TP tunnel over an
// outer MTU of 1500 carries. A client's TCP says itself if it takes less.
const privateMTU = 1400

// Addr returns the address and UDP port for L2TP.
func (s *Server) Addr() netip.AddrPort { return s.lns.local }

// IKEAddr returns the address and UDP port where IKE begins; it is not valid if IPsec is not served.
func (s *Server) IKEAddr() netip.AddrPort {
	if s.secure == nil {
		return netip.AddrPort{}
	}
	return s.secure.plain.LocalAddr()
}

// ESPAddr returns the address and UDP port where IKE goes on and ESP goes; it is not valid if IPsec is not served.
func (s *Server) ESPAddr() netip.AddrPort {
	if s.secure == nil {
		return netip.AddrPort{}
	}
	return s.secure.local
}

// PPTPAddr returns the address and TCP port for PPTP; it is not valid if PPTP is not served.
func (s *Server) PPTPAddr() netip.AddrPort {
	if s.pac == nil {
		return netip.AddrPort{}
	}
	return s.pac.listener.Addr().(*net.TCPAddr).AddrPort()
}

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

// Close says goodbye to all clients (StopCCN, Stop-Control-Connection-Request),
// waits until ctx ends for their answers, and ends the server.
func (s *Server) Close(ctx context.Context) error {
	var group sync.WaitGroup
	entrances := s.entrances()
	errs := make([]error, len(entrances))
	for i, e := range entrances {
		group.Go(func() { errs[i] = e.close(ctx) })
	}
	group.Wait()
	s.Kill()
	return errors.Join(errs...)
}

// Kill ends the server without a word to its clients, as a power cut would.
func (s *Server) Kill() {
	for _, e := range s.entrances() {
		e.kill()
	}
	s.intranet.close()
}

func (s *Server) entrances() []*entrance {
	all := []*entrance{&s.lns.entrance}
	if s.secure != nil {
		all = append(all, &s.secure.entrance)
	}
	if s.pac != nil {
		all = append(all, &s.pac.entrance)
	}
	return all
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
