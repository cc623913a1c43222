package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"os"

	"gateway/internal/config"
	"gateway/internal/gre"
	"gateway/internal/grebroker"
	"gateway/internal/vpnclient"
)

// openGRE returns what opens the sockets for a PPTP tunnel: an inherited
// descriptor, a broker's, or one that this process opens itself, for which it
// needs CAP_NET_RAW.
func openGRE(t *config.Tunnel, log *slog.Logger) func(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
	c := gre.Config{
		DisableBatch: !t.Carrier.Batch,
		ReadBuffer:   t.Carrier.ReadBuffer,
		WriteBuffer:  t.Carrier.WriteBuffer,
		OuterMTU:     t.Carrier.MTU,
		Log:          log,
	}
	var open func(context.Context, gre.Config) (*gre.Conn, error)
	switch {
	case t.PPTP.GREFD != 0:
		open = inheritedGRE(t.PPTP.GREFD)
	case t.PPTP.GREBroker != "":
		open = brokersGRE(t.PPTP.GREBroker)
	default:
		open = gre.Open
	}
	return func(ctx context.Context, server netip.Addr) (vpnclient.GRESocket, error) {
		c := c
		c.Server = server
		socket, err := open(ctx, c)
		if err != nil {
			return nil, err // and no interface that holds a nil *gre.Conn
		}
		return socket, nil
	}
}

// inheritedGRE takes an open descriptor, which stays open to be taken again
// when the tunnel is dialed again.
func inheritedGRE(fd int) func(context.Context, gre.Config) (*gre.Conn, error) {
	var file *os.File // kept: it would close the descriptor when it is collected
	return func(_ context.Context, c gre.Config) (*gre.Conn, error) {
		if file == nil {
			file = os.NewFile(uintptr(fd), "gre-fd")
		}
		return gre.Adopt(file, c)
	}
}

// brokersGRE asks a broker for a new socket each time.
func brokersGRE(path string) func(context.Context, gre.Config) (*gre.Conn, error) {
	return func(ctx context.Context, c gre.Config) (*gre.Conn, error) {
		file, err := grebroker.Open(ctx, path, c.Server)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return gre.Adopt(file, c)
	}
}
