package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/armon/go-socks5"
)

// A reply is a reply field of RFC 1928 section 6.
type reply byte

const (
	replySucceeded           reply = 0x00
	replyGeneralFailure      reply = 0x01
	replyNotAllowed          reply = 0x02
	replyNetworkUnreachable  reply = 0x03
	replyHostUnreachable     reply = 0x04
	replyConnectionRefused   reply = 0x05
	replyTTLExpired          reply = 0x06
	replyCommandNotSupported reply = 0x07
	replyAddressNotSupported reply = 0x08
)

// serveSOCKS5 serves one SOCKS5 client from greeting to end.
func (a *acceptLoop) serveSOCKS5(c *client) {
	defer c.Close()
	c.SetDeadline(c.handshakeBy)
	if c.in == nil {
		c.in = bufio.NewReader(c.Conn)
	}
	request, err := a.server.handshake(c)
	switch {
	case errors.Is(err, errLoginRefused):
		a.server.log.Info("proxy: login refused", "protocol", "socks5", "client", c.RemoteAddr().String())
	case err != nil:
		a.server.log.Debug("proxy: socks5 handshake failed", "client", c.RemoteAddr().String(), "cause", err)
	}
	if err != nil {
		lingeringClose(c.Conn)
		return
	}
	c.SetDeadline(time.Time{})
	switch request.Command {
	case socks5.ConnectCommand:
		a.connect(c, request.DestAddr)
	case socks5.AssociateCommand:
		a.associate(c, request.DestAddr)
	default: // BIND
		refuse(c, replyCommandNotSupported)
	}
}

// connect carries out CONNECT (RFC 1928 section 4).
func (a *acceptLoop) connect(c *client, dest *socks5.AddrSpec) {
	if dest.FQDN == "" && len(dest.IP) == 0 || dest.FQDN != "" && !validName(dest.FQDN) || dest.Port == 0 {
		// An empty host would be this machine to many a Dialer.
		refuse(c, replyGeneralFailure)
		return
	}
	address := dest.Address()
	target, err := a.dialFor(c, address)
	if err != nil {
		v := judge(err)
		a.server.log.Debug("proxy: socks5 target not reached", "client", c.RemoteAddr().String(), "target", address, "reason", v.reason, "cause", err)
		refuse(c, v.reply)
		return
	}
	defer target.Close()
	if _, err := c.Conn.Write(appendReply(nil, replySucceeded, addrPort(target.LocalAddr()))); err != nil {
		return
	}
	a.server.relay(c.Conn, c.takeAhead(), target)
}

// dialFor dials for a client, and stops dialling when the client leaves.
func (a *acceptLoop) dialFor(c *client, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	defer watchLeaving(c.Conn, c.in, cancel)()
	return a.server.dial(ctx, address)
}

// watchLeaving calls left when the client closes its connection, until the
// returned function is called. What the client sends stays in in. The end of
// the stream after some bytes is not leaving: the client has said all it wants
// to say and waits for the answer.
func watchLeaving(conn net.Conn, in *bufio.Reader, left func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			ahead := in.Buffered()
			_, err := in.Peek(ahead + 1)
			switch {
			case err == nil:
				continue
			case isTimeout(err), errors.Is(err, bufio.ErrBufferFull), err == io.EOF && ahead > 0:
				return
			}
			left()
			return
		}
	}()
	return func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-stopped
		conn.SetReadDeadline(time.Time{})
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// refuse sends a failure reply and closes.
func refuse(c *client, r reply) {
	c.SetDeadline(time.Now().Add(time.Second))
	c.Conn.Write(appendReply(nil, r, netip.AddrPort{}))
	lingeringClose(c.Conn)
}

// handshake lets go-socks5 negotiate, authenticate and parse the request, and
// stops it there. The library would resolve by itself, dial without a context,
// guess the reply from the error's text and copy without limits; it has no
// UDP. So its rule set takes the request out and says no, its answer to that
// is swallowed, and what follows is ours. Refusals during the handshake (no
// acceptable method, wrong password, unknown command or address type) are the
// library's and go out.
func (s *Server) handshake(c *client) (*socks5.Request, error) {
	h := &handshakeConn{client: c}
	config := &socks5.Config{
		Resolver: h,
		Rules:    h,
		Logger:   log.New(io.Discard, "", 0),
	}
	if len(s.users) > 0 {
		config.Credentials = h
	}
	library, err := socks5.New(config)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	err = library.ServeConn(h)
	switch {
	case h.request != nil:
		return h.request, nil
	case h.refused:
		return nil, errLoginRefused
	}
	// Never nil: the library is content only after a connection it has made.
	return nil, fmt.Errorf("proxy: %w", err)
}

var errLoginRefused = errors.New("proxy: wrong user name or password")

// A handshakeConn is a client as go-socks5 sees it during the handshake.
type handshakeConn struct {
	*client
	request *socks5.Request // set when the handshake is over
	refused bool            // user name or password were wrong
}

// Read gives single bytes, so that the library's own buffer never holds
// anything past the request: what a client sends ahead belongs to the target.
func (h *handshakeConn) Read(p []byte) (int, error) { return h.in.Read(p[:min(len(p), 1)]) }

func (h *handshakeConn) Write(p []byte) (int, error) {
	if h.request != nil {
		return len(p), nil
	}
	return h.client.Conn.Write(p)
}

// Close does nothing: the connection outlives the handshake.
func (h *handshakeConn) Close() error { return nil }

// Valid checks a user name and password (socks5.CredentialStore).
func (h *handshakeConn) Valid(name, password string) bool {
	h.refused = !h.loop.server.users.Valid(name, password)
	if h.refused {
		h.loop.server.count.loginsRefused.Add(1)
	}
	return !h.refused
}

// Resolve leaves names to the Dialer (socks5.NameResolver).
func (h *handshakeConn) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// Allow takes the request out of the library (socks5.RuleSet).
func (h *handshakeConn) Allow(ctx context.Context, request *socks5.Request) (context.Context, bool) {
	h.request = request
	return ctx, false
}

// appendReply appends a reply (RFC 1928 section 6). An invalid addr is sent as
// 0.0.0.0:0.
func appendReply(dst []byte, r reply, addr netip.AddrPort) []byte {
	dst = append(dst, socksVersion5, byte(r), 0)
	return appendAddress(dst, addr)
}

// appendAddress appends ATYP, address and port (RFC 1928 section 5).
func appendAddress(dst []byte, addr netip.AddrPort) []byte {
	switch ip := addr.Addr().Unmap(); {
	case ip.Is6():
		dst = append(dst, addressIPv6)
		dst = append(dst, ip.AsSlice()...)
	case ip.Is4():
		dst = append(dst, addressIPv4)
		dst = append(dst, ip.AsSlice()...)
	default:
		dst = append(dst, addressIPv4, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(dst, addr.Port())
}

// addrPort returns the address of a, or none if a is not an IP address and port.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// validName reports whether a name can be one of a host: 1 to 255 bytes with
// no space and no control character.
func validName(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] == 0x7f {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 255
}
