package load

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 20 * time.Second
	answerTimeout    = 10 * time.Second // for one small echo
)

// A dialer reaches a target directly or through a proxy. It is written out
// here, and not a library, so that it costs the same for every proxy and no
// more than it must.
type dialer struct {
	kind string // "direct", "socks5" or "http"
	addr string
	user *url.Userinfo
}

// parseDialer takes "direct", socks5://[user:password@]host:port or
// http://[user:password@]host:port.
func parseDialer(s string) (dialer, error) {
	if s == "" || s == "direct" {
		return dialer{kind: "direct"}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return dialer{}, fmt.Errorf("load: proxy: %w", err)
	}
	switch u.Scheme {
	case "socks5", "socks5h":
		return dialer{"socks5", u.Host, u.User}, nil
	case "http":
		return dialer{"http", u.Host, u.User}, nil
	}
	return dialer{}, fmt.Errorf("load: proxy %q: want direct, socks5://host:port or http://host:port", s)
}

// dial opens a connection to target.
func (d dialer) dial(ctx context.Context, target string) (net.Conn, error) {
	if d.kind == "direct" {
		return dialTCP(ctx, target)
	}
	c, err := dialTCP(ctx, d.addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	if d.kind == "socks5" {
		_, err = d.socks5(c, socksConnect, target)
	} else {
		err = d.httpConnect(c, target)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// dialAll opens n connections.
func (d dialer) dialAll(ctx context.Context, target string, n int) (conns []net.Conn, err error) {
	for i := range n {
		c, err := d.dial(ctx, target)
		if err != nil {
			closeAll(conns)
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, "tcp", address)
}

// httpConnect asks an HTTP proxy for a tunnel.
func (d dialer) httpConnect(c net.Conn, target string) error {
	auth := ""
	if d.user != nil {
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(d.user.String())) + "\r\n"
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, target, auth); err != nil {
		return err
	}
	// A reader of one byte: what follows the header is payload.
	reply, err := http.ReadResponse(bufio.NewReaderSize(oneByte{c}, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if reply.StatusCode/100 != 2 {
		return fmt.Errorf("CONNECT: %s", reply.Status)
	}
	return nil
}

// oneByte reads one byte a call.
type oneByte struct{ r io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), 1)]) }

// RFC 1928 sections 3 to 6, RFC 1929.
const (
	socksVersion   = 5
	socksNoAuth    = 0
	socksPassword  = 2
	socksConnect   = 1
	socksAssociate = 3
	socksIPv4      = 1
	socksName      = 3
	socksIPv6      = 4
)

// socks5 does the handshake and one request, and returns the bound address.
func (d dialer) socks5(c net.Conn, command byte, target string) (bound string, err error) {
	if err := d.socks5Login(c); err != nil {
		return "", err
	}
	request, err := appendSOCKSAddress([]byte{socksVersion, command, 0}, target)
	if err != nil {
		return "", err
	}
	if _, err := c.Write(request); err != nil {
		return "", err
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", err
	}
	if head[1] != 0 {
		return "", fmt.Errorf("socks5: reply %d", head[1])
	}
	return readSOCKSAddress(c, head[3])
}

func (d dialer) socks5Login(c net.Conn) error {
	method := byte(socksNoAuth)
	if d.user != nil {
		method = socksPassword
	}
	if _, err := c.Write([]byte{socksVersion, 1, method}); err != nil {
		return err
	}
	var reply [2]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return err
	}
	if reply[0] != socksVersion || reply[1] != method {
		return fmt.Errorf("socks5: method %d refused with %d", method, reply[1])
	}
	if method == socksNoAuth {
		return nil
	}
	name := d.user.Username()
	password, _ := d.user.Password()
	login := append([]byte{1, byte(len(name))}, name...)
	login = append(append(login, byte(len(password))), password...)
	if _, err := c.Write(login); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return err
	}
	if reply[1] != 0 {
		return errors.New("socks5: login refused")
	}
	return nil
}

// appendSOCKSAddress appends host:port as RFC 1928 section 5 has it.
func appendSOCKSAddress(b []byte, target string) ([]byte, error) {
	host, service, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip == nil {
		if len(host) > 255 {
			return nil, fmt.Errorf("socks5: name of %d bytes", len(host))
		}
		b = append(append(b, socksName, byte(len(host))), host...)
	} else if ip4 := ip.To4(); ip4 != nil {
		b = append(append(b, socksIPv4), ip4...)
	} else {
		b = append(append(b, socksIPv6), ip...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(port)), nil
}

// readSOCKSAddress reads the rest of an address, whose type is known.
func readSOCKSAddress(r io.Reader, kind byte) (string, error) {
	var b [255 + 2]byte
	n := 0
	switch kind {
	case socksIPv4:
		n = net.IPv4len
	case socksIPv6:
		n = net.IPv6len
	case socksName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return "", err
		}
		n = int(b[0])
	default:
		return "", fmt.Errorf("socks5: address of type %d", kind)
	}
	if _, err := io.ReadFull(r, b[:n+2]); err != nil {
		return "", err
	}
	host := string(b[:n])
	if kind != socksName {
		host = net.IP(b[:n]).String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[n:])))), nil
}
