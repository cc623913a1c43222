package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Dialer opens connections to targets. It is satisfied by *net.Dialer. network
// is "tcp"; address is host:port, where host may be a name that the Dialer
// resolves. DialContext must return when ctx is done.
//
// An error may say more about itself by the standard library's means
// (syscall.Errno, *net.DNSError, Timeout) or by the interface TunnelDownError.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Resolver looks up names for UDP targets. It is satisfied by *net.Resolver.
// network is "ip". LookupNetIP must return when ctx is done.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// PacketListener opens the sockets that carry the datagrams of UDP ASSOCIATE.
// It is satisfied by *net.ListenConfig. network is "udp4" or "udp6"; address is
// "", meaning any port of the network's own address.
type PacketListener interface {
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// A User may use the proxies. RFC 1929 limits Name and Password to 255 bytes
// each; RFC 7617 forbids a colon in Name.
type User struct {
	Name     string
	Password string
}

// Config says what a Server offers and to whom. Dialer is required; every
// other field's zero value is the default given with it.
type Config struct {
	Dialer         Dialer
	Resolver       Resolver       // nil: UDP to a name is dropped
	PacketListener PacketListener // nil: UDP ASSOCIATE is answered with "command not supported"

	// Users who may connect; empty means anybody (see CheckListen).
	Users []User

	// HandshakeTimeout bounds the time from accepting a connection to its
	// complete SOCKS request or HTTP header, however slowly the bytes drip
	// in. 0 is 10 s.
	HandshakeTimeout time.Duration
	// DialTimeout bounds one dial or lookup, including what the Dialer waits
	// for a tunnel that is being redialled. 0 is 30 s.
	DialTimeout time.Duration
	// IdleTimeout ends a connection on which no byte has moved either way for
	// so long (to within a quarter more). 0 is no limit: an idle ssh session
	// stays, and dead peers are left to TCP keepalive.
	IdleTimeout time.Duration
	// KeepAliveTimeout ends an HTTP connection that awaits its next request
	// for so long. 0 is 2 min.
	KeepAliveTimeout time.Duration
	// MaxConnections bounds client connections over all listeners; one more
	// is closed as soon as it is accepted. 0 is 4096.
	MaxConnections int

	// UDPIdleTimeout releases an association's socket in the private network
	// when it has carried nothing for so long; the next datagram opens a new
	// one. When only port 53 was used it is 10 s at most. The association
	// itself lasts as long as its TCP connection (RFC 1928 section 7).
	// 0 is 60 s.
	UDPIdleTimeout time.Duration
	// MaxUDPAssociations bounds UDP associations. 0 is 256.
	MaxUDPAssociations int

	// Log receives refused logins and trouble with accepting at info and
	// above, and one line for each failed request at debug. nil discards.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dialer == nil {
		return c, errors.New("proxy: Config.Dialer is required")
	}
	for _, u := range c.Users {
		if err := checkUser(u); err != nil {
			return c, err
		}
	}
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.DialTimeout, 30*time.Second)
	setDefault(&c.KeepAliveTimeout, 2*time.Minute)
	setDefault(&c.MaxConnections, 4096)
	setDefault(&c.UDPIdleTimeout, time.Minute)
	setDefault(&c.MaxUDPAssociations, 256)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// An OpenListenError says that an address would offer the private network to
// other machines without asking who they are.
type OpenListenError struct {
	Address string
}

func (e *OpenListenError) Error() string {
	return fmt.Sprintf("proxy: refusing to listen on %s, which other machines may reach, without any user", e.Address)
}

// Stage names the part of the program that failed.
func (e *OpenListenError) Stage() string { return "proxy" }

// Advice is one line for the user.
func (e *OpenListenError) Advice() string {
	return "listen on 127.0.0.1, add a [[proxy.user]], or allow it by name with proxy.allow_open"
}

// CheckListen fails for an address (host:port) that is not loopback, unless
// there is at least one user or allowOpen says that anybody may come. It never
// resolves: a host name other than localhost counts as not loopback. The
// refusal is an *OpenListenError.
func CheckListen(address string, users int, allowOpen bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("proxy: listen address %q: %w", address, err)
	}
	if users > 0 || allowOpen || host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return &OpenListenError{Address: address}
}
