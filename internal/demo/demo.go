// Package demo shows the whole way without any server of one's own: it starts
// the in-process VPN server and a gateway that dials it, fetches the private
// page through both proxies, and says each step.
package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/gre"
	"gateway/internal/vpnclient"
	"gateway/internal/vpnserver"
	"gateway/ppp/mppe"
)

// Options say how the demo runs.
type Options struct {
	Protocol config.Protocol // one of Protocols; empty: L2TPIPsecProtocol
	Once     bool            // end after the fetches
	Out      io.Writer
	Log      *slog.Logger
}

const (
	user     = "demo"
	deadline = 30 * time.Second // for everything up to the last fetch
)

// Run runs the demo until ctx ends, or until it has fetched the page twice if
// Once is set. It fails if any step does.
func Run(ctx context.Context, o Options) error {
	if o.Protocol == "" {
		o.Protocol = config.L2TPIPsecProtocol
	}
	d := demo{Options: o, started: time.Now()}
	d.say("gateway demo: a VPN server, a client and two proxies in one process, with no privileges")
	d.say("")
	password, err := newPassword()
	if err != nil {
		return err
	}
	if d.psk, err = newPassword(); err != nil {
		return err
	}
	server, err := d.startServer(ctx, password)
	if err != nil {
		return err
	}
	defer server.Kill()
	d.step("server", "%s; its private network has http://%s/ (%v)", d.protocol().listens(server), vpnserver.PrivateName, server.Private()[0])

	c, err := d.config(server, password)
	if err != nil {
		return err
	}
	g, err := gateway.New(c, gateway.Options{Log: o.Log.With("side", "gateway"), OpenGRE: d.openGRE})
	if err != nil {
		return err
	}
	d.step("gateway", "proxies listen: socks5 %v, http %v", g.Addr("socks5"), g.Addr("http"))

	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	err = d.show(ctx, g, ended)
	if err == nil && !o.Once {
		d.invite(g)
		err = <-ended
		ended <- nil
	}
	cancel()
	return errors.Join(err, <-ended)
}

type demo struct {
	Options
	started time.Time
	psk     string       // of IPsec
	gre     *gre.Network // carries PPTP's frames
}

// A protocol is what the demo says of one.
type protocol struct {
	listens func(*vpnserver.Server) string
	address func(*vpnserver.Server) netip.AddrPort
	port    string // the environment variable of the server's port
	carrier string // what carries PPP
}

// Protocols returns those that can be shown.
func Protocols() []config.Protocol { return slices.Sorted(maps.Keys(protocols)) }

var protocols = map[config.Protocol]protocol{
	config.L2TPIPsecProtocol: {
		listens: func(s *vpnserver.Server) string {
			return fmt.Sprintf("L2TP/IPsec server listens on UDP %v (IKE) and %v (IKE, ESP)", s.IKEAddr(), s.ESPAddr())
		},
		address: (*vpnserver.Server).IKEAddr,
		port:    "GATEWAY_TUNNEL_IPSEC_PORT",
		carrier: "IKE Main Mode and Quick Mode, ESP, L2TP tunnel and session",
	},
	config.L2TPProtocol: {
		listens: func(s *vpnserver.Server) string { return fmt.Sprintf("L2TP server listens on UDP %v", s.Addr()) },
		address: (*vpnserver.Server).Addr,
		port:    "GATEWAY_TUNNEL_L2TP_PORT",
		carrier: "L2TP tunnel and session",
	},
	config.PPTPProtocol: {
		listens: func(s *vpnserver.Server) string {
			return fmt.Sprintf("PPTP server listens on TCP %v; GRE passes within the process", s.PPTPAddr())
		},
		address: (*vpnserver.Server).PPTPAddr,
		port:    "GATEWAY_TUNNEL_PPTP_PORT",
		carrier: "PPTP control connection and call",
	},
}

func (d *demo) protocol() protocol { return protocols[d.Protocol] }

// startServer starts the server. Its GRE socket, and the gateway's, are links
// of one network in this process, since raw sockets take a privilege.
func (d *demo) startServer(ctx context.Context, password string) (*vpnserver.Server, error) {
	c := vpnserver.Config{Users: map[string]string{user: password}, Log: d.Log.With("side", "server")}
	c.PPP.CCP.Encryption = mppe.Allow
	c.L2TP.Log, c.PPTP.Log, c.PPP.Log = c.Log, c.Log, c.Log
	c.IPsec.IKE.Log, c.IPsec.ESP.Log, c.IPsec.Log = c.Log, c.Log, c.Log
	c.IPsec.IKE.PSK = []byte(d.psk)
	if d.Protocol == config.PPTPProtocol {
		d.gre = gre.NewNetwork()
		c.GRE = d.gre.Open(loopback)
	}
	return vpnserver.Start(ctx, c)
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func (d *demo) openGRE(context.Context, netip.Addr) (vpnclient.GRESocket, error) {
	return d.gre.Open(loopback), nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// step prints one step with the time since the start.
func (d *demo) step(who, format string, args ...any) {
	d.say("%6.0f ms  %-8s %s", float64(time.Since(d.started).Microseconds())/1000, who, fmt.Sprintf(format, args...))
}

// newPassword makes a password for this run alone: the demo listens on a real socket.
func newPassword() (string, error) {
	b := make([]byte, 12)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// config is what a user would write, with ports that are free.
func (d *demo) config(s *vpnserver.Server, password string) (*config.Config, error) {
	server := d.protocol().address(s)
	environ := []string{
		"GATEWAY_PROXY_SOCKS5=" + d.listenOn(1080),
		"GATEWAY_PROXY_HTTP=" + d.listenOn(8080),
		"GATEWAY_TUNNEL_NAME=demo",
		"GATEWAY_TUNNEL_PROTOCOL=" + string(d.Protocol),
		"GATEWAY_TUNNEL_SERVER=" + server.Addr().String(),
		d.protocol().port + "=" + strconv.Itoa(int(server.Port())),
		"GATEWAY_TUNNEL_USERNAME=" + user,
		"GATEWAY_TUNNEL_PASSWORD=" + password,
	}
	if d.Protocol == config.L2TPIPsecProtocol {
		environ = append(environ, "GATEWAY_TUNNEL_IPSEC_PSK="+d.psk, "GATEWAY_TUNNEL_IPSEC_NAT_PORT="+strconv.Itoa(int(s.ESPAddr().Port())))
	}
	return config.Load(config.Sources{Environ: environ})
}

// listenOn returns the usual port of a proxy if it is free and the demo stays
// for the user, else any.
func (d *demo) listenOn(port int) string {
	usual := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if !d.Once {
		if l, err := net.Listen("tcp", usual); err == nil {
			l.Close()
			return usual
		}
	}
	return "127.0.0.1:0"
}

// show waits for the network and fetches the private page through both proxies.
func (d *demo) show(ctx context.Context, g *gateway.Gateway, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	select {
	case <-g.Ready():
	case err := <-ended:
		ended <- nil
		return fmt.Errorf("demo: the tunnel did not come up: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("demo: the tunnel did not come up: %w", context.Cause(ctx))
	}
	params, _ := g.Tunnels()[0].Params()
	up := []string{d.protocol().carrier, "login by " + params.Auth.String()}
	if params.Encryption != "" {
		up = append(up, params.Encryption)
	}
	d.step("gateway", "tunnel is up: %s; a TCP/IP stack in this process has the address %v", strings.Join(up, ", "), params.Local)
	for _, proxy := range []struct{ name, scheme string }{{"socks5", "socks5h"}, {"http", "http"}} {
		through := &url.URL{Scheme: proxy.scheme, Host: g.Addr(proxy.name).String()}
		if err := d.fetch(ctx, proxy.name, through); err != nil {
			return fmt.Errorf("demo: fetch through %s: %w", proxy.name, err)
		}
	}
	return nil
}

// fetch gets the private page through a proxy. The name is resolved behind the VPN.
func (d *demo) fetch(ctx context.Context, name string, through *url.URL) error {
	transport := &http.Transport{Proxy: http.ProxyURL(through)}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+vpnserver.PrivateName+"/", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(page, []byte(vpnserver.IndexPage)) {
		return fmt.Errorf("wrong answer: %s, %q", response.Status, page)
	}
	d.step("client", "GET http://%s/ through %-6s -> %s: %q", vpnserver.PrivateName, name, response.Status, strings.TrimSpace(string(page)))
	return nil
}

// invite tells the user what to try.
func (d *demo) invite(g *gateway.Gateway) {
	d.say("")
	d.say("It stays up until Ctrl-C. In another terminal:")
	d.say("  curl --socks5-hostname %v http://%s/", g.Addr("socks5"), vpnserver.PrivateName)
	d.say("  curl -x http://%v http://%s/ip", g.Addr("http"), vpnserver.PrivateName)
	d.say("  curl -x http://%v -o /dev/null http://%s/big", g.Addr("http"), vpnserver.PrivateName)
}
