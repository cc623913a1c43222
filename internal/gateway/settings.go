package gateway

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gateway/internal/carrier"
	"gateway/internal/config"
	"gateway/internal/supervisor"
	"gateway/internal/udpbatch"
	"gateway/internal/vpnclient"
	"gateway/ppp"
	"gateway/ppp/mppe"
	"gateway/proxy"
	"gateway/stack"
	"gateway/tunnel/ipsec"
	"gateway/tunnel/ipsec/ike"
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

	config.L2TPIPsecProtocol: vpnclient.L2TPIPsec,
}

func dialConfig(t *config.Tunnel, log *slog.Logger) vpnclient.Config {
	ports := map[config.Protocol]uint16{
		config.L2TPProtocol: t.L2TP.Port, config.PPTPProtocol: t.PPTP.Port, config.L2TPIPsecProtocol: t.IPsec.Port}
	return vpnclient.Config{
		Protocol: protocols[t.Protocol],
		Server:   t.Server,
		Port:     ports[t.Protocol],
		MTU:      t.PPP.MTU,
		Socket:   socketConfig(t, log),
		L2TP:     l2tpConfig(&t.L2TP, log),
		IPsec:    ipsecConfig(t, log),
		PPTP:     pptpConfig(&t.PPTP, log),
		OpenGRE:  openGRE(t, log),
		PPP:      pppConfig(t, log),
		Stack:    stackConfig(t, log),
		Log:      log,
	}
}

func socketConfig(t *config.Tunnel, log *slog.Logger) udpbatch.Config {
	local := t.L2TP.LocalPort
	if t.Protocol == config.L2TPIPsecProtocol {
		local = 0 // that port is inside ESP
	}
	return udpbatch.Config{
		Local:        netip.AddrPortFrom(netip.Addr{}, local),
		DisableBatch: !t.Carrier.Batch,
		DisableGSO:   !t.Carrier.GSO,
		DisableGRO:   !t.Carrier.GRO,
		ReadBuffer:   t.Carrier.ReadBuffer,
		WriteBuffer:  t.Carrier.WriteBuffer,
		OuterMTU:     t.Carrier.MTU,
		Log:          log,
	}
}

func ipsecConfig(t *config.Tunnel, log *slog.Logger) carrier.IPsecConfig {
	c := &t.IPsec
	return carrier.IPsecConfig{
		IKE: ike.Config{
			PSK:           []byte(c.PSK.Reveal()),
			Certificates:  c.Credentials.Certificates,
			Key:           c.Credentials.Key,
			Roots:         c.Credentials.Roots,
			LocalID:       identity(c.LocalID),
			RemoteID:      identity(c.RemoteID),
			Policy:        policies[c.Crypto],
			Proposals:     c.Proposals,
			ESPProposals:  c.ESPProposals,
			Aggressive:    c.Aggressive,
			PFS:           pfs[c.PFS],
			Lifetime:      c.IKELifetime,
			ESPLifetime:   c.ESPLifetime,
			DPDInterval:   orNever(c.DPDInterval),
			NATPort:       c.NATPort,
			InnerPort:     t.L2TP.LocalPort,
			PeerInnerPort: t.L2TP.Port,
			Log:           log,
		},
		ESP: ipsec.Config{
			KeepaliveInterval: orNever(c.KeepaliveInterval),
			AllowNull:         slices.ContainsFunc(c.ESPProposals, func(p string) bool { return strings.HasPrefix(strings.ToLower(p), "null-") }),
			Log:               log,
		},
		TruncatedSHA256: c.SHA256x96,
		Log:             log,
	}
}

var (
	policies = map[config.CryptoPolicy]ike.Policy{config.CryptoCompatible: ike.Compatible, config.CryptoStrict: ike.Strict}
	pfs      = map[config.PFS]ike.PFS{config.PFSAuto: ike.PFSAuto, config.PFSOff: ike.PFSOff, config.PFSOn: ike.PFSOn}
)

// identity reads what config has checked.
func identity(s string) ike.Identity {
	id, _ := ike.ParseIdentity(s)
	return id
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
		CCP: mppe.Policy{Encryption: encryption, MinKeyBits: t.PPP.MPPEMinKey, MaxKeyBits: t.PPP.MPPEMaxKey,
			Stateful: t.PPP.MPPEStateful, Compression: compression},

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
		DNS:        t.DNS.Servers,
		Search:     t.DNS.Search,
		Hosts:      t.DNS.Hosts,
		DisableGSO: !t.Stack.GSO,
		DisableGRO: !t.Stack.GRO,
		Congestion: string(t.Stack.Congestion),
		RACK:       t.Stack.RACK,
		MinRTO:     t.Stack.MinRTO,
		Log:        log,
	}
}
