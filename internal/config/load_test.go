package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// equalConfigs compares all but what was only warned of.
var equalConfigs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.IgnoreFields(Config{}, "Warnings"),
	cmpopts.EquateEmpty(),
}

const minimal = `
[[tunnel]]
server = "vpn.example.com"
username = "alice"
password = "hunter2"
`

// secure lacks the key of IPsec, which is to stand behind it.
const secure = minimal + `protocol = "l2tp-ipsec"
[tunnel.ipsec]
`

// write makes a file that only the owner may read and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, s Sources) *Config {
	t.Helper()
	c, err := Load(s)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func TestMinimalFileGetsTheDefaults(t *testing.T) {
	got := load(t, Sources{File: write(t, "c.toml", minimal)})
	want := &Config{
		Log: Log{Level: "info", Format: "text"},
		Proxy: Proxy{
			SOCKS5: "127.0.0.1:1080", HTTP: "127.0.0.1:8080", MaxConnections: 4096, HandshakeTimeout: 10 * time.Second,
			DialTimeout: 30 * time.Second, UDPIdleTimeout: time.Minute, WaitForTunnel: 15 * time.Second,
		},
		Tunnels: []Tunnel{{
			Name: "vpn", Protocol: "l2tp", Server: "vpn.example.com", Username: "alice", Password: "hunter2",
			IPsec: IPsec{Crypto: "compatible", PFS: "auto", Port: 500, NATPort: 4500, DPDInterval: 30 * time.Second, KeepaliveInterval: 20 * time.Second,
				IKELifetime: 8 * time.Hour, ESPLifetime: time.Hour},
			L2TP: L2TP{Port: 1701, Hostname: "gateway", HelloInterval: time.Minute, MaxRetries: 5},
			PPTP: PPTP{Port: 1723, Hostname: "gateway", EchoInterval: time.Minute, Window: 64, ReorderDelay: 50 * time.Millisecond},
			PPP: PPP{Auth: []AuthMethod{"eap-mschapv2", "mschapv2"}, MPPE: "auto", MPPEMinKey: 128, MPPEMaxKey: 128, MPPC: "allow",
				EchoInterval: 30 * time.Second, EchoFailures: 4, IPv6: true},
			Reconnect: Reconnect{Enabled: true, Initial: time.Second, Max: time.Minute},
			Carrier:   Carrier{Batch: true, GSO: true, GRO: true},
			Stack:     Stack{GSO: true, GRO: true, Congestion: "reno", MinRTO: 200 * time.Millisecond},
		}},
	}
	if diff := cmp.Diff(want, got, equalConfigs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings: %v", got.Warnings)
	}
}

func TestDefaultLacksOnlyTheServerAndTheLogin(t *testing.T) {
	c := Default()
	c.Tunnels[0].Server, c.Tunnels[0].Username, c.Tunnels[0].Password = "vpn.example.com", "alice", "hunter2"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(load(t, Sources{File: write(t, "c.toml", minimal)}), c, equalConfigs); diff != "" {
		t.Errorf("-file +code:\n%s", diff)
	}
}

func TestTunnelMayComeFromTheEnvironmentAlone(t *testing.T) {
	c := load(t, Sources{Environ: []string{
		"PATH=/bin", "GATEWAY_CONFIG=elsewhere.toml", "GATEWAY_PROXY_HTTP=off",
		"GATEWAY_TUNNEL_SERVER=2001:db8::1", "GATEWAY_TUNNEL_USERNAME=alice", "GATEWAY_TUNNEL_PASSWORD=a=b",
		"GATEWAY_TUNNEL_PPP_AUTH=chap-md5, none", "GATEWAY_TUNNEL_DNS_HOSTS=Wiki=10.0.0.5,wiki=fd00::5,git.example=10.0.0.6",
		"GATEWAY_TUNNEL_L2TP_SECRET=", "GATEWAY_TUNNEL_L2TP_HELLO_INTERVAL=0",
	}})
	tunnel := c.Tunnels[0]
	if c.Proxy.HTTP != "" || tunnel.Server != "2001:db8::1" || tunnel.Password != "a=b" || tunnel.L2TP.HelloInterval != 0 {
		t.Errorf("got %+v", c)
	}
	if diff := cmp.Diff([]AuthMethod{"chap-md5", "none"}, tunnel.PPP.Auth); diff != "" {
		t.Error(diff)
	}
	hosts := map[string][]netip.Addr{
		"wiki":        {netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")},
		"git.example": {netip.MustParseAddr("10.0.0.6")},
	}
	if diff := cmp.Diff(hosts, tunnel.DNS.Hosts, equalConfigs); diff != "" {
		t.Error(diff)
	}
}

func TestFlagWinsOverEnvironmentWinsOverFile(t *testing.T) {
	file := write(t, "c.toml", minimal+"name = 'file'\nprotocol = 'l2tp'\n[tunnel.l2tp]\nhostname = 'file'\nport = 1\nmax_retries = 7\n")
	c := load(t, Sources{
		File:      file,
		Environ:   []string{"GATEWAY_TUNNEL_0_L2TP_HOSTNAME=environment", "GATEWAY_TUNNEL_L2TP_PORT=2"},
		Overrides: map[string]string{"tunnel.l2tp.port": "3", "tunnel.0.server": "10.0.0.1"},
	})
	got := c.Tunnels[0]
	if got.Name != "file" || got.L2TP.MaxRetries != 7 || got.L2TP.Hostname != "environment" || got.L2TP.Port != 3 || got.Server != "10.0.0.1" {
		t.Errorf("got %+v", got)
	}
}

func TestSecondTunnelIsNumberOne(t *testing.T) {
	file := write(t, "c.toml", minimal+"name = 'a'\n"+minimal+"name = 'b'\n")
	c := load(t, Sources{File: file, Environ: []string{
		"GATEWAY_TUNNEL_1_L2TP_PORT=2", "GATEWAY_TUNNEL_2_NAME=c", "GATEWAY_TUNNEL_2_SERVER=c.example", "GATEWAY_TUNNEL_2_PPP_AUTH=none",
		"GATEWAY_PROXY_USER_NAME=u", "GATEWAY_PROXY_USER_PASSWORD=p", "GATEWAY_PROXY_USER_1_NAME=v", "GATEWAY_PROXY_USER_1_PASSWORD=q",
	}})
	var ports []uint16
	for _, tunnel := range c.Tunnels {
		ports = append(ports, tunnel.L2TP.Port)
	}
	if diff := cmp.Diff([]uint16{1701, 2, 1701}, ports); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]User{{Name: "u", Password: "p"}, {Name: "v", Password: "q"}}, c.Proxy.Users); diff != "" {
		t.Error(diff)
	}
}

func TestSecretFile(t *testing.T) {
	secret := write(t, "vpn", "hunter2\r\n")
	dir := filepath.Dir(secret)
	for _, test := range []struct {
		name string
		file string
		env  []string
		want Secret
	}{
		{"absolute path", `password_file = '` + secret + `'`, nil, "hunter2"},
		{"path relative to the configuration", `password_file = "vpn"`, nil, "hunter2"},
		{"inline from the environment wins", `password_file = "no such file"`, []string{"GATEWAY_TUNNEL_PASSWORD=other"}, "other"},
		{"file from the environment wins", `password = "other"`, []string{"GATEWAY_TUNNEL_PASSWORD_FILE=" + secret}, "hunter2"},
		{"empty name counts as not set", "password = 'other'\npassword_file = ''", nil, "other"},
		{"empty password is a password", `password = ""`, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(dir, "c.toml")
			if err := os.WriteFile(file, []byte("[[tunnel]]\nserver = 'vpn.example.com'\nusername = 'alice'\n"+test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := load(t, Sources{File: file, Environ: test.env}).Tunnels[0].Password; got != test.want {
				t.Errorf("password = %q, want %q", got.Reveal(), test.want.Reveal())
			}
		})
	}
}

func TestReadableSecretsAreWarnedOf(t *testing.T) {
	for _, test := range []struct {
		name         string
		config, mode os.FileMode
		content      string
		want         int
	}{
		{"both private", 0o600, 0o600, "password_file = 'vpn'", 0},
		{"for the group", 0o640, 0o640, "password_file = 'vpn'", 0},
		{"secret file readable to all", 0o600, 0o644, "password_file = 'vpn'", 1},
		{"configuration readable to all, no secret in it", 0o644, 0o600, "password_file = 'vpn'", 0},
		{"configuration with a secret readable to all", 0o644, 0o600, "password = 'hunter2'", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			secret := write(t, "vpn", "hunter2")
			file := filepath.Join(filepath.Dir(secret), "c.toml")
			content := "[[tunnel]]\nserver = 'vpn.example.com'\nusername = 'alice'\n" + test.content
			if err := os.WriteFile(file, []byte(content), test.config); err != nil {
				t.Fatal(err)
			}
			for path, mode := range map[string]os.FileMode{file: test.config, secret: test.mode} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			if got := load(t, Sources{File: file}).Warnings; len(got) != test.want {
				t.Errorf("warnings %v, want %d", got, test.want)
			}
		})
	}
}

func TestPAPOutsideIPsecIsWarnedOf(t *testing.T) {
	c := load(t, Sources{File: write(t, "c.toml", minimal+"ppp.auth = ['mschapv2', 'pap']\n")})
	if len(c.Warnings) != 1 || c.Warnings[0].Line != 6 || !strings.Contains(c.Warnings[0].Error(), "pap") {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestClearPPTPIsWarnedOf(t *testing.T) {
	for mppe, warnings := range map[string]int{"auto": 0, "require": 0, "prefer": 1, "allow": 1, "deny": 1} {
		c := load(t, Sources{File: write(t, "c.toml", minimal+"protocol = 'pptp'\nppp.mppe = '"+mppe+"'\n")})
		if len(c.Warnings) != warnings {
			t.Errorf("%s: warnings %v", mppe, c.Warnings)
		}
	}
}

// MPPE is all that protects PPTP, of no use under IPsec, and the server's to ask for in between.
func TestEncryptionDependsOnTheProtocol(t *testing.T) {
	for protocol, want := range map[Protocol]MPPEPolicy{PPTPProtocol: MPPERequire, L2TPProtocol: MPPEAllow, L2TPIPsecProtocol: MPPEDeny} {
		tunnel := Default().Tunnels[0]
		tunnel.Protocol = protocol
		if got := tunnel.Encryption(); got != want {
			t.Errorf("%s: %s, want %s", protocol, got, want)
		}
		tunnel.PPP.MPPE = "prefer"
		if got := tunnel.Encryption(); got != "prefer" {
			t.Errorf("%s, though set: %s", protocol, got)
		}
	}
}

func TestListenAddressesAreNormalised(t *testing.T) {
	for in, want := range map[string]string{
		"off": "", "": "", "localhost:1080": "127.0.0.1:1080", "[::1]:1080": "[::1]:1080", "127.0.0.2:0": "127.0.0.2:0",
	} {
		if got := load(t, Sources{File: write(t, "c.toml", "[proxy]\nsocks5 = '"+in+"'\n"+minimal)}).Proxy.SOCKS5; got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestOpenProxyMustBeWanted(t *testing.T) {
	for name, test := range map[string]struct {
		proxy string
		ok    bool
	}{
		"every address":               {`socks5 = ":1080"`, false},
		"address of the network":      {`http = "192.0.2.1:8080"`, false},
		"with a user":                 {"socks5 = ':1080'\n[[proxy.user]]\nname = 'bob'\npassword = 'x'", true},
		"allowed by name":             {"socks5 = ':1080'\nallow_open = true", true},
		"every address of IPv6":       {`socks5 = "[::]:1080"`, false},
		"IPv4 loopback as IPv6":       {`socks5 = "[::ffff:127.0.0.1]:1080"`, true},
		"something else in 127.0.0.0": {`socks5 = "127.9.9.9:1080"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Sources{File: write(t, "c.toml", minimal+"[proxy]\n"+test.proxy)})
			if (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestServiceVariablesOfKubernetesAreNotOurs(t *testing.T) {
	load(t, Sources{File: write(t, "c.toml", minimal), Environ: []string{
		"GATEWAY_SERVICE_HOST=10.0.0.1", "GATEWAY_SERVICE_PORT=1080", "GATEWAY_SERVICE_PORT_SOCKS=1080", "GATEWAY_PORT=tcp://10.0.0.1:1080",
		"GATEWAY_PORT_1080_TCP=tcp://10.0.0.1:1080", "GATEWAY_PORT_1080_TCP_PROTO=tcp", "GATEWAY_PORT_1080_TCP_ADDR=10.0.0.1",
		"GATEWAY_PORT_53_UDP_PORT=53", "GATEWAY_EU_SERVICE_HOST=10.0.0.2", "GATEWAY_EU_PORT=udp://10.0.0.2:53",
	}})
}

func TestNoPathLeadsFromAVariableToTwoKeys(t *testing.T) {
	seen := map[string]string{}
	for _, k := range Keys() {
		if other, ok := seen[k.Env]; ok {
			t.Errorf("%s is both %s and %s", k.Env, other, k.Path)
		}
		seen[k.Env] = k.Path
		found, _, ok := findKey(strings.ToLower(strings.TrimPrefix(k.Env, EnvPrefix)), "_")
		if !ok || found.Path != k.Path {
			t.Errorf("%s leads to %q, want %q", k.Env, found.Path, k.Path)
		}
		if found, _, ok := findKey(k.Path, "."); !ok || found.Path != k.Path {
			t.Errorf("%s leads to %q", k.Path, found.Path)
		}
	}
}
