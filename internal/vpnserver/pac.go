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
	"gateway/tunnel/pptp"
)

// A GRESocket carries the GRE packets of PPTP clients: *gre.Conn and *gre.Link
// are such.
type GRESocket interface {
	carrier.Socket
	pptp.GREWriter
	Close() error
	// ExpectAll lets all packets in.
	ExpectAll() error
}

// A pac is the server of PPTP clients (RFC 2637).
type pac struct {
	entrance
	server   *Server
	engine   *carrier.PPTP
	listener *net.TCPListener
	accepts  sync.WaitGroup // the goroutine of the listener
}

// openPAC listens for control connections. The GRE socket is its own if there
// is no error.
func openPAC(ctx context.Context, s *Server) (*pac, error) {
	c := s.config
	if err := c.GRE.ExpectAll(); err != nil {
		return nil, fmt.Errorf("vpnserver: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", c.ListenPPTP.String())
	if err != nil {
		return nil, fmt.Errorf("vpnserver: %w", err)
	}
	p := &pac{server: s, listener: listener.(*net.TCPListener), engine: carrier.NewPPTP(c.PPTP, c.GRE)}
	p.entrance = entrance{loop: carrier.NewLoop(c.GRE, p.engine), endpoint: p.engine.Endpoint(),
		shut: func() { listener.Close(); c.GRE.Close() }, release: p.release, done: make(chan struct{})}
	return p, nil
}

func (p *pac) release() {
	p.engine.Release()
	p.accepts.Wait()
}

// accept takes control connections until the listener is closed.
func (p *pac) accept() {
	const pauseAfterError = 100 * time.Millisecond // such as no descriptor left
	for {
		tcp, err := p.listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.server.config.Log.Warn("cannot accept a control connection", "cause", err)
			time.Sleep(pauseAfterError)
		default:
			p.take(tcp)
		}
	}
}

// take gives a TCP connection to the engine, which bounds how many there are.
func (p *pac) take(tcp *net.TCPConn) {
	from := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	taken := make(chan struct{})
	ok := p.loop.Do(func(now time.Time) {
		p.engine.Accept(now, p.loop, from.Addr(), tcp, &connectionHandler{pac: p, from: from})
		close(taken)
	})
	if !ok {
		tcp.Close()
		return
	}
	select {
	case <-taken:
	case <-p.loop.Done():
		tcp.Close()
	}
}

// A connectionHandler is one client's control connection.
type connectionHandler struct {
	pac  *pac
	from netip.AddrPort
}

// ConnectionUp notes that the client can call.
func (h *connectionHandler) ConnectionUp(time.Time, *pptp.Connection) {
	h.pac.server.config.Log.Info("control connection accepted", "client", h.from.String())
}

// ConnectionDown notes the end of the control connection; its calls have ended before.
func (h *connectionHandler) ConnectionDown(_ time.Time, err error) {
	h.pac.server.config.Log.Info("control connection is down", "client", h.from.String(), "cause", err)
}

// AcceptCall takes the client's call.
func (h *connectionHandler) AcceptCall(_ time.Time, call *pptp.Call) (pptp.CallHandler, error) {
	client := &client{server: h.pac.server, from: h.from}
	client.link = h.pac.engine.AcceptLink(call, client.config(), client)
	return client.link, nil
}
