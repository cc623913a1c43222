package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	c.readAhead()
	request, err := a.server.handshake(c)
	switch {
	case errors.Is(err, socks5.UserAuthFailed):
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
	ctx, cancel := context.WithTimeout(a.ctx, a.server.config.DialTimeout)
	defer cancel()
	r := a.startRelay(c.Conn, c.takeAhead(), cancel)
	defer r.abandon()
	target, err := a.server.dialWithin(ctx, address)
	if err != nil {
		v := judge(err)
		a.server.log.Debug("proxy: socks5 target not reached", "client", c.RemoteAddr().String(), "target", address, "reason", v.reason, "cause", err)
		r.abandon()
		refuse(c, v.reply)
		return
	}
	if _, err := c.Conn.Write(appendReply(nil, replySucceeded, addrPort(target.LocalAddr()))); err != nil {
		target.Close()
		return
	}
	cancel() // and its timer: the connection may last for days
	r.run(a.ctx, target)
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

// handshake negotiates a method, logs the client in and reads its request. It
// has go-socks5 handle each message, but the library does not serve: it would
// resolve by itself, dial without a context, guess the reply from the error's
// text and copy without limits; it has no UDP. Nothing is read past the
// request but into c.in: what a client sends ahead belongs to the target.
func (s *Server) handshake(c *client) (*socks5.Request, error) {
	if err := s.chooseMethod(c); err != nil {
		return nil, err
	}
	if _, err := s.login.Authenticate(c.in, c.Conn); err != nil {
		return nil, fmt.Errorf("proxy: login: %w", err)
	}
	// RFC 1928 section 4: VER, CMD, RSV, ATYP. The library does not say by its
	// error which of them it cannot do.
	if start, err := c.in.Peek(4); err == nil && start[0] == socksVersion5 && !knownAddressType(start[3]) {
		c.Conn.Write(appendReply(nil, replyAddressNotSupported, netip.AddrPort{}))
		return nil, fmt.Errorf("proxy: unknown address type %d", start[3])
	}
	request, err := socks5.NewRequest(c.in)
	if err != nil {
		return nil, fmt.Errorf("proxy: request: %w", err)
	}
	return request, nil
}

// noAcceptableMethod is the answer to a client that offers none (RFC 1928 section 3).
const noAcceptableMethod = 0xff

// chooseMethod reads the client's greeting (RFC 1928 section 3): VER, NMETHODS,
// METHODS. The one method that will do is announced by what carries it out.
func (s *Server) chooseMethod(c *client) error {
	greeting, err := c.in.Peek(2)
	if err == nil && greeting[0] != socksVersion5 {
		return fmt.Errorf("proxy: greeting of SOCKS version %d", greeting[0])
	}
	if err == nil {
		greeting, err = c.in.Peek(2 + int(greeting[1]))
	}
	if err != nil {
		return fmt.Errorf("proxy: greeting: %w", err)
	}
	offered := bytes.IndexByte(greeting[2:], s.login.GetCode()) >= 0
	c.in.Discard(len(greeting))
	if !offered {
		c.Conn.Write([]byte{socksVersion5, noAcceptableMethod})
		return fmt.Errorf("proxy: no acceptable method: want %d", s.login.GetCode())
	}
	return nil
}

// newLogin returns the method that clients must use.
func (s *Server) newLogin() socks5.Authenticator {
	if len(s.users) == 0 {
		return socks5.NoAuthAuthenticator{}
	}
	return socks5.UserPassAuthenticator{Credentials: countedLogins{s}} // RFC 1929
}

// countedLogins are a Server's users as the library asks for them.
type countedLogins struct{ *Server }

// Valid checks a user name and password (socks5.CredentialStore).
func (s countedLogins) Valid(name, password string) bool {
	valid := s.users.Valid(name, password)
	if !valid {
		s.count.loginsRefused.Add(1)
	}
	return valid
}

func knownAddressType(kind byte) bool {
	return kind == addressIPv4 || kind == addressName || kind == addressIPv6
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
