package vpnclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/udpbatch"
	"gateway/ppp"
	"gateway/stack"
	"gateway/tunnel/l2tp"
)

// DefaultPort is the UDP port of L2TP (RFC 2661 section 8.1).
const DefaultPort = 1701

// Config says which server to dial, and how.
type Config struct {
	Server string // host name or address
	Port   uint16 // 0: DefaultPort

	// Timeout bounds one attempt on one address of the server, from the first
	// datagram until the network is up. 0: 60 s.
	Timeout time.Duration

	// MTU bounds the packets that we send, in bytes. 0: what PPP and the carrier allow.
	MTU int

	// WaitForCall leaves it to the server to open the session (OCRQ).
	WaitForCall bool

	Socket udpbatch.Config // its Network is set by the server's address
	L2TP   l2tp.Config
	PPP    ppp.Config
	Stack  stack.Config // its addresses and MTU are set by PPP; DNS too, unless given

	// Resolver looks up the server's name. nil: the host's resolver.
	Resolver interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}
	// WrapSocket, if set, stands between the socket and the protocols, to
	// test with loss and reordering.
	WrapSocket func(Socket) Socket

	Log *slog.Logger // nil: discard
}

// A Socket is a carrier's datagram socket.
type Socket interface {
	carrier.Socket
	l2tp.DatagramWriter
	Close() error
}

const defaultTimeout = 60 * time.Second

// Dial resolves the server's name anew, tries its addresses in the resolver's
// order and returns the first connection that is up. If none is, the error is
// that of the last address that was tried; a server that refuses the login is
// not tried at its other addresses.
func Dial(ctx context.Context, c Config) (*Conn, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	addrs, err := resolve(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		var conn *Conn
		conn, err = dialAddr(ctx, c, netip.AddrPortFrom(addr, c.Port))
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil || Judge(err) == Refused {
			break // to ask again at another address could lock the account
		}
	}
	return nil, err
}

func resolve(ctx context.Context, c Config) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(c.Server); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	resolver := c.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", c.Server)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		return nil, &Error{"resolve", "check the server's name, and that this machine can resolve names", err}
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

func dialAddr(ctx context.Context, c Config, server netip.AddrPort) (*Conn, error) {
	c.Log.Info("dialing", "server", server.String())
	c.L2TP.OutgoingCalls = c.WaitForCall
	c.Socket.Network = "udp4"
	if server.Addr().Is6() {
		c.Socket.Network = "udp6"
	}
	var socket Socket
	socket, err := udpbatch.Listen(ctx, c.Socket)
	if err != nil {
		return nil, &Error{"l2tp-tunnel", "check local_port and the machine's network", err}
	}
	if c.WrapSocket != nil {
		socket = c.WrapSocket(socket)
	}
	conn := newConn(c, server, socket)
	go conn.run()
	conn.loop.Do(conn.begin)

	timeout := time.NewTimer(c.Timeout)
	defer timeout.Stop()
	select {
	case <-conn.up:
		return conn, nil
	case <-conn.ended:
		return nil, conn.Err()
	case <-timeout.C:
		err = &Error{conn.stage(), "the server answers, but too slowly or not completely; try again, or look at its log",
			fmt.Errorf("no network after %v", c.Timeout)}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	conn.Close(closedContext)
	return nil, err
}

// closedContext makes Close tell the peer and not wait for its answer.
var closedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
