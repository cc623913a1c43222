package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Validate checks the rules that look at more than one key, for a configuration made in code. Load has done it.
func (c *Config) Validate() error {
	v := checker{}
	v.config(c)
	return join(v.problems)
}

// A checker collects what is wrong with a decoded Config.
type checker struct {
	at       map[string]origin // where keys were set; nil for a Config made in code
	failed   map[string]bool
	problems []*Problem
	warnings []*Problem
}

func (v *checker) fail(path, message, hint string) {
	if !v.failed[path] {
		v.problems = append(v.problems, v.origin(path).problem(path, message, hint))
	}
}

func (v *checker) warn(path, message, hint string) {
	v.warnings = append(v.warnings, v.origin(path).problem(path, message, hint))
}

// origin of the key, or of the section that lacks it.
func (v *checker) origin(path string) origin {
	for {
		if from, ok := v.at[path]; ok || path == "" {
			return from
		}
		path, _ = splitPath(path)
	}
}

// lacks reports whether a loaded configuration does not set the key at all.
func (v *checker) lacks(path string) bool {
	_, set := v.at[path]
	return v.at != nil && !set && !v.failed[path] && !v.failed[path+"_file"]
}

func (v *checker) config(c *Config) {
	v.proxy(&c.Proxy)
	if len(c.Tunnels) == 0 {
		v.fail("tunnel", "there is no tunnel", "add a [[tunnel]] section, or set "+EnvPrefix+"TUNNEL_SERVER")
	}
	names, ports, descriptors := map[string]bool{}, map[uint16]bool{}, map[int]bool{}
	for i := range c.Tunnels {
		path := "tunnel"
		if i > 0 {
			path = below(path, strconv.Itoa(i))
		}
		if v.failed[path] {
			continue
		}
		t := &c.Tunnels[i]
		v.tunnel(path, t, len(c.Tunnels) > 1)
		if t.Name != "" && names[t.Name] {
			v.fail(below(path, "name"), fmt.Sprintf("two tunnels are called %q", t.Name), "")
		}
		if p := t.L2TP.LocalPort; p != 0 && ports[p] && t.Protocol == L2TPProtocol {
			v.fail(below(path, "l2tp.local_port"), fmt.Sprintf("another tunnel uses port %d", p), "leave it out: the system chooses a free port")
		}
		if fd := t.PPTP.GREFD; fd != 0 && descriptors[fd] {
			v.fail(below(path, "pptp.gre_fd"), fmt.Sprintf("another tunnel uses descriptor %d", fd), "each tunnel needs a socket of its own")
		}
		names[t.Name], descriptors[t.PPTP.GREFD] = true, true
		ports[t.L2TP.LocalPort] = ports[t.L2TP.LocalPort] || t.Protocol == L2TPProtocol
	}
}

func (v *checker) proxy(p *Proxy) {
	v.listen("proxy.socks5", &p.SOCKS5, p)
	v.listen("proxy.http", &p.HTTP, p)
	if p.SOCKS5 == "" && p.HTTP == "" {
		v.fail("proxy", "socks5 and http are both off: nothing would be offered", "")
	}
	names := map[string]bool{}
	for i, u := range p.Users {
		path := "proxy.user"
		if i > 0 {
			path = below(path, strconv.Itoa(i))
		}
		if v.failed[path] {
			continue
		}
		switch {
		case u.Name == "":
			v.fail(below(path, "name"), "name is missing", "")
		case strings.Contains(u.Name, ":"): // RFC 7617 section 2
			v.fail(below(path, "name"), "a name with a colon cannot log in to an HTTP proxy", "")
		case names[u.Name]:
			v.fail(below(path, "name"), fmt.Sprintf("two users are called %q", u.Name), "")
		}
		names[u.Name] = true
		if u.Password == "" {
			v.fail(below(path, "password"), "password or password_file is missing", "")
		}
	}
}

// listen checks and normalises the address of a listener: "off" becomes "", and localhost its address, so that no
// resolver is asked. An open proxy must be wanted by name.
func (v *checker) listen(path string, address *string, p *Proxy) {
	if *address == "off" || *address == "" {
		*address = ""
		return
	}
	host, port, err := net.SplitHostPort(*address)
	number, bad := strconv.ParseUint(port, 10, 16)
	ip := netip.IPv6Unspecified() // ":1080" is every address
	switch host {
	case "":
	case "localhost":
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		var notIP error
		if ip, notIP = netip.ParseAddr(host); err == nil {
			err = notIP
		}
	}
	if err != nil || bad != nil {
		v.fail(path, fmt.Sprintf("%q is not an IP address and a port", shortened(*address)), `write "127.0.0.1:1080", "[::1]:1080", ":1080" for every address, or "off"`)
		return
	}
	if host == "localhost" {
		*address = netip.AddrPortFrom(ip, uint16(number)).String()
	}
	if !ip.Unmap().IsLoopback() && len(p.Users) == 0 && !p.AllowOpen {
		v.fail(path, fmt.Sprintf("%s would let everybody who reaches it into the VPN", *address),
			"add a [[proxy.user]], listen on 127.0.0.1, or set allow_open = true if that is wanted")
	}
}

func (v *checker) tunnel(path string, t *Tunnel, several bool) {
	v.name(below(path, "name"), t, several)
	v.server(below(path, "server"), t)
	v.ipsec(path, t)
	v.auth(path, t)
	v.encryption(path, t)
	if t.PPTP.GREFD != 0 && t.PPTP.GREBroker != "" {
		v.fail(below(path, "pptp.gre_broker"), "gre_fd and gre_broker are both set; use one", "")
	}
	unread := v.failed[below(path, "l2tp.secret")] || v.failed[below(path, "l2tp.secret_file")]
	if t.L2TP.HideAVPs && t.L2TP.Secret == "" && !unread { // RFC 2661 section 4.3
		v.fail(below(path, "l2tp.hide_avps"), "needs a secret to hide them with", "set secret or secret_file in [tunnel.l2tp]")
	}
	if a := t.PPP.Address; a.IsValid() && !a.Is4() {
		v.fail(below(path, "ppp.address"), "must be an IPv4 address", "IPv6 addresses come from the server's Router Advertisement")
	}
	for _, domain := range t.DNS.Search {
		if !isDomainName(domain) {
			v.fail(below(path, "dns.search"), fmt.Sprintf("%q is not a domain name", shortened(domain)), "")
		}
	}
	if t.Reconnect.Initial > t.Reconnect.Max {
		v.fail(below(path, "reconnect.initial"), fmt.Sprintf("%v is more than max, %v", t.Reconnect.Initial, t.Reconnect.Max), "")
	}
}

// name gives a single tunnel without a name the name "vpn".
func (v *checker) name(path string, t *Tunnel, several bool) {
	ok := func(r rune) bool {
		return r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	switch {
	case t.Name == "" && several:
		v.fail(path, "name is missing", "with more than one tunnel each needs its own")
	case t.Name == "":
		t.Name = "vpn"
	case len(t.Name) > 64 || strings.ContainsFunc(t.Name, func(r rune) bool { return !ok(r) }):
		v.fail(path, fmt.Sprintf("%q is not 1 to 64 letters, digits, dots, dashes or underscores", shortened(t.Name)), "")
	}
}

// server checks the host name or address and takes the brackets off an IPv6 address.
func (v *checker) server(path string, t *Tunnel) {
	server := t.Server
	if bare, ok := strings.CutPrefix(server, "["); ok {
		server = strings.TrimSuffix(bare, "]")
	}
	if ip, err := netip.ParseAddr(server); err == nil && !ip.IsUnspecified() && !ip.IsMulticast() {
		t.Server = server
		if t.Protocol == PPTPProtocol && !ip.Unmap().Is4() {
			v.fail(path, "PPTP needs a server with an IPv4 address", "")
		}
		return
	}
	host, port, err := net.SplitHostPort(t.Server)
	switch {
	case server == "":
		v.fail(path, "server is missing", "the host name or IP address of the VPN server")
	case err == nil && (isDomainName(host) || net.ParseIP(host) != nil) && !strings.Contains(port, "/"):
		v.fail(path, "must be a host without a port", fmt.Sprintf("write server = %q, and port = %s in [tunnel.%s]", shortened(host), shortened(port), section(t.Protocol)))
	case !isDomainName(server):
		v.fail(path, fmt.Sprintf("%q is not a host name or an IP address", shortened(t.Server)), "")
	}
}

// section is the one that has a protocol's port.
func section(p Protocol) string {
	if p == PPTPProtocol {
		return "pptp"
	}
	return "l2tp"
}

// encryption checks that what is required can be had, and warns of PPTP in clear.
func (v *checker) encryption(path string, t *Tunnel) {
	givesKeys := func(m AuthMethod) bool { return m == "eap-mschapv2" || m == "mschapv2" || m == "mschap" } // RFC 3079
	at, auth := below(path, "ppp.mppe"), below(path, "ppp.auth")
	required := t.Encryption() == MPPERequire
	if t.PPP.MPPEMaxKey < t.PPP.MPPEMinKey && !v.failed[below(path, "ppp.mppe_max_key")] && !v.failed[below(path, "ppp.mppe_min_key")] {
		v.fail(below(path, "ppp.mppe_max_key"), fmt.Sprintf("no key has at least %d bits and at most %d", t.PPP.MPPEMinKey, t.PPP.MPPEMaxKey),
			fmt.Sprintf("lower mppe_min_key to %d, if a key that is guessed in no time will do", t.PPP.MPPEMaxKey))
	}
	switch {
	case required && len(t.PPP.Auth) > 0 && !v.failed[auth] && !slices.ContainsFunc(t.PPP.Auth, givesKeys):
		v.fail(at, "encryption is required, but no method in auth gives keys for it",
			`add "mschapv2" to auth, or set mppe = "deny" if everything may be readable on the way`)
	case !required && t.Protocol == PPTPProtocol:
		v.warn(at, fmt.Sprintf("%q may let everything pass readable through the Internet", t.PPP.MPPE), `"require" is what PPTP has by default`)
	}
}

// auth checks the methods, and that there is what they need.
func (v *checker) auth(path string, t *Tunnel) {
	at := below(path, "ppp.auth")
	if t.Protocol == L2TPIPsecProtocol && v.lacks(at) {
		t.PPP.Auth = slices.Clone(authInsideIPsec)
	}
	methods := t.PPP.Auth
	if len(methods) == 0 {
		v.fail(at, "at least one method is needed", "leave it out to have the default")
	}
	for i, m := range methods {
		if slices.Contains(methods[:i], m) {
			v.fail(at, fmt.Sprintf("%q is listed twice", m), "")
		}
	}
	if slices.Contains(methods, "pap") && t.Protocol != L2TPIPsecProtocol {
		v.warn(at, `"pap" sends the password readable through the Internet to a server that may be a false one`, `remove "pap" if the server knows another method`)
	}
	if len(methods) == 1 && methods[0] == AuthNone {
		return
	}
	if t.Username == "" && !slices.Contains(methods, AuthNone) {
		v.fail(below(path, "username"), "username is missing", `auth = ["none"] is for a server that asks for no login`)
	}
	if t.Username != "" && v.lacks(below(path, "password")) {
		v.fail(below(path, "password"), "password or password_file is missing", "")
	}
}

// isDomainName reports whether s can be looked up in the DNS: labels of letters, digits, dashes and underscores. A last
// label of digits alone is a mistyped IP address.
func isDomainName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, label := range labels {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != "" && len(s) <= 254
}
