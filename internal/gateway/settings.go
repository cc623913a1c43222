package gateway

import (
	"log/slog"
	"net/netip"
	"time"

	"gateway/internal/config"
	"gateway/internal/supervisor"
	"gateway/internal/udpbatch"
	"gateway/internal/vpnclient"
	"gateway/ppp"
	"gateway/ppp/mppe"
	"gateway/proxy"
	"gateway/stack"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

// The rooms take a negative duration for "never" and zero for their default;
// in the configuration the default is written out, and zero is "never".
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func proxyConfig(c *config.Config, network *supervisor.Tunnel, log *slog.Logger) proxy.Config {
	p := &c.Proxy
	users := make([]proxy.User, len(p.Users))
	for i, u := range p.Users {
		users[i] = proxy.User{Name: u.Name, Password: u.Password.Reveal()}
	}
	return proxy.Config{
		Dialer: network, Resolver: network, PacketListener: network,
		Users:            users,
		HandshakeTimeout: p.HandshakeTimeout,
		DialTimeout:      p.DialTimeout,
		IdleTimeout:      p.IdleTimeout,
		MaxConnections:   p.MaxConnections,
		UDPIdleTimeout:   p.UDPIdleTimeout,
		Log:              log,
	}
}

func tunnelConfig(c *config.Config, t *config.Tunnel, log *slog.Logger) supervisor.Config {
	attempts := t.Reconnect.Attempts
	if !t.Reconnect.Enabled {
		attempts = 1
	}
	return supervisor.Config{
		Name:     t.Name,
		Dial:     dialConfig(t, log.With("tunnel", t.Name)),
		Attempts: attempts,
		Initial:  t.Reconnect.Initial,
		Max:      t.Reconnect.Max,
		Wait:     orNever(c.Proxy.WaitForTunnel),
		Log:      log,
	}
}

// protocols are the protocols that config allows.
var protocols = map[config.Protocol]vpnclient.Protocol{
	config.L2TPProtocol: vpnclient.L2TP,
	config.PPTPProtocol: vpnclient.PPTP,
}

func dialConfig(t *config.Tunnel, log *slog.Logger) vpnclient.Config {
	port := t.L2TP.Port
	if t.Protocol == config.PPTPProtocol {
		port = t.PPTP.Port
	}
	return vpnclient.Config{
		Protocol: protocols[t.Protocol],
		Server:   t.Server,
		Port:     port,
		MTU:      t.PPP.MTU,
		Socket:   socketConfig(t, log),
		L2TP:     l2tpConfig(&t.L2TP, log),
		PPTP:     pptpConfig(&t.PPTP, log),
		OpenGRE:  openGRE(t, log),
		PPP:      pppConfig(t, log),
		Stack:    stackConfig(t, log),
		Log:      log,
	}
}

func socketConfig(t *config.Tunnel, log *slog.Logger) udpbatch.Config {
	return udpbatch.Config{
		Local:        netip.AddrPortFrom(netip.Addr{}, t.L2TP.LocalPort),
		DisableBatch: !t.Carrier.Batch,
		DisableGSO:   !t.Carrier.GSO,
		DisableGRO:   !t.Carrier.GRO,
		ReadBuffer:   t.Carrier.ReadBuffer,
		WriteBuffer:  t.Carrier.WriteBuffer,
		OuterMTU:     t.Carrier.MTU,
		Log:          log,
	}
}

func l2tpConfig(c *config.L2TP, log *slog.Logger) l2tp.Config {
	return l2tp.Config{
		HostName:      c.Hostname,
		Secret:        []byte(c.Secret.Reveal()),
		HideAVPs:      c.HideAVPs,
		HelloInterval: orNever(c.HelloInterval),
		MaxRetries:    c.MaxRetries,
		Sequencing:    c.Sequencing,
		LengthBit:     c.LengthBit,
		Permissive:    c.Permissive,
		Log:           log,
	}
}

func pptpConfig(c *config.PPTP, log *slog.Logger) pptp.Config {
	return pptp.Config{
		HostName:      c.Hostname,
		PhoneNumber:   c.PhoneNumber,
		ReceiveWindow: c.Window,
		EchoInterval:  orNever(c.EchoInterval),
		ReorderDelay:  orNever(c.ReorderDelay),
		Log:           log,
	}
}

func pppConfig(t *config.Tunnel, log *slog.Logger) ppp.Config {
	auth := make([]ppp.AuthMethod, len(t.PPP.Auth))
	for i, name := range t.PPP.Auth {
		auth[i], _ = ppp.ParseAuthMethod(string(name)) // config allows its names only; a test holds both lists together
	}
	encryption, _ := mppe.ParseWill(string(t.Encryption())) // as above
	compression, _ := mppe.ParseWill(string(t.PPP.MPPC))
	return ppp.Config{
		CCP: mppe.Policy{Encryption: encryption, MinKeyBits: t.PPP.MPPEMinBits, Stateful: t.PPP.MPPEStateful, Compression: compression},

		Username:     t.Username,
		Password:     t.Password.Reveal(),
		Auth:         auth,
		HashFullName: t.PPP.HashFullName,
		MRU:          t.PPP.MRU,
		EchoInterval: orNever(t.PPP.EchoInterval),
		EchoFailures: t.PPP.EchoFailures,
		NoIPv6:       !t.PPP.IPv6,
		Address:      t.PPP.Address,
		Log:          log,
	}
}

func stackConfig(t *config.Tunnel, log *slog.Logger) stack.Config {
	return stack.Config{
		DNS:         t.DNS.Servers,
		Search:      t.DNS.Search,
		Hosts:       t.DNS.Hosts,
		DisableGSO:  !t.Stack.GSO,
		DisableGRO:  !t.Stack.GRO,
		Congestion:  string(t.Stack.Congestion),
		DisableRACK: !t.Stack.RACK,
		Log:         log,
	}
}
