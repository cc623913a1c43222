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
	"gateway/tunnel/pptp"
)

// Config says which server to dial, and how.
type Config struct {
	Protocol Protocol
	Server   string // host name or address
	Port     uint16 // UDP for L2TP, TCP for PPTP, UDP of IKE for L2TP/IPsec; 0: 1701, 1723 and 500

	// Timeout bounds one attempt on one address of the server, from the first
	// packet until the network is up. 0: 60 s.
	Timeout time.Duration

	// MTU bounds the packets that we send, in bytes. 0: what PPP and the carrier allow.
	MTU int

	// Of L2TP. WaitForCall leaves it to the server to open the session (OCRQ).
	L2TP        l2tp.Config
	WaitForCall bool
	Socket      udpbatch.Config // its Network is set by the server's address

	// Of L2TP/IPsec, beside those of L2TP. Its IKE.Port and IKE.LocalAddr are set.
	IPsec carrier.IPsecConfig

	// Of PPTP. OpenGRE opens the socket for the GRE packets of one server; nil:
	// a raw socket, for which the process needs CAP_NET_RAW.
	PPTP    pptp.Config // its Expect is set
	OpenGRE func(ctx context.Context, server netip.Addr) (GRESocket, error)

	PPP   ppp.Config
	Stack stack.Config // its addresses and MTU are set by PPP; DNS too, unless given

	// Resolver looks up the server's name. nil: the host's resolver.
	Resolver interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}
	// WrapSocket, if set, stands between the datagram socket and the protocols, to test
	// with loss and reordering. For PPTP, OpenGRE does.
	WrapSocket func(Socket) Socket

	Log *slog.Logger // nil: discard
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
		c.Port = defaultPorts[c.Protocol]
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
		if verdict := Judge(err); ctx.Err() != nil || verdict == Refused || verdict == NotPermitted {
			break // to log in again at another address could lock the account
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
	network := "ip"
	if c.Protocol == PPTP {
		network = "ip4" // PPTP over IPv6 is not in use
	}
	addrs, err := resolver.LookupNetIP(ctx, network, c.Server)
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
	timeout := time.NewTimer(c.Timeout)
	defer timeout.Stop()
	conn, err := newConn(ctx, c, server)
	if ctx.Err() != nil && err != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	go conn.run()
	conn.loop.Do(conn.begin)

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
