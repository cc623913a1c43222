package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblemsSayWhereAndWhat(t *testing.T) {
	for _, test := range []struct {
		name string
		file string // begins on line 2; minimal comes behind it unless it has a tunnel
		env  []string
		want []string // beginnings of the problems; FILE is the file
	}{
		{"unknown key", "[proxy]\nsocks = ':1'\n", nil, []string{`FILE:3:1: proxy.socks: unknown key (did you mean "socks5"?)`}},
		{"unknown key with nothing near", "[proxy]\nxyzzy = 1\n", nil, []string{`FILE:3:1: proxy.xyzzy: unknown key`}},
		{"key of another section", minimal + "secret = 'hunter2'\n", nil, []string{`FILE:7:1: tunnel.secret: unknown key ("secret" belongs in [tunnel.l2tp])`}},
		{"unknown section", minimal + "  [tunnel.l2pt]\n", nil, []string{`FILE:7:3: tunnel.l2pt: unknown section or list (did you mean "l2tp"?)`}},
		{"key without IPsec", minimal + "[tunnel.ipsec]\npsk = 'hunter2'\n", nil, []string{`FILE:3:1: tunnel.protocol: "l2tp" does not use [tunnel.ipsec] (write protocol = "l2tp-ipsec")`}},
		{"one tunnel as a table", "[tunnel]\nserver = 'a'\n", nil, []string{`FILE:2:1: tunnel: must be a list of sections, not a section (write [[tunnel]])`}},
		{"section as a value", "log = 'debug'\n", nil, []string{`FILE:2:1: log: must be a section, not a string (write [log])`}},
		{"wrong type: string", minimal + "name = 5\n", nil, []string{`FILE:7:1: tunnel.name: must be a string, not a number (write the value in quotes)`}},
		{"wrong type: number", minimal + "ppp.mru = '1400'\n", nil, []string{`FILE:7:1: tunnel.ppp.mru: must be a whole number, not a string`}},
		{"wrong type: boolean", minimal + "ppp.ipv6 = 'no'\n", nil, []string{`FILE:7:1: tunnel.ppp.ipv6: must be true or false, not a string`}},
		{"wrong type: duration", minimal + "l2tp.hello_interval = 60\n", nil, []string{`FILE:7:1: tunnel.l2tp.hello_interval: must be a duration in quotes, not a number (write "60s"`}},
		{"wrong type: list", minimal + "ppp.auth = 'pap'\n", nil, []string{`FILE:7:1: tunnel.ppp.auth: must be a list, not a string`}},
		{"wrong type: hosts", minimal + "dns.hosts = ['a']\n", nil, []string{`FILE:7:1: tunnel.dns.hosts: must be a table of names, not a list`}},
		{"wrong type: fraction", minimal + "l2tp.port = 1.5\n", nil, []string{`FILE:7:1: tunnel.l2tp.port: must be a whole number, not a fraction`}},
		{"wrong type: date", minimal + "name = 2024-01-01\n", nil, []string{`FILE:7:1: tunnel.name: must be a string, not a date or time`}},
		{"bad duration", "[proxy]\ndial_timeout = '5 minutes'\n", nil, []string{`FILE:3:1: proxy.dial_timeout: "5 minutes" is not a duration (write`}},
		{"duration out of range", "[proxy]\nudp_idle_timeout = '0'\n", nil, []string{`FILE:3:1: proxy.udp_idle_timeout: 0 is out of range; allowed: 1s to 24h`}},
		{"number out of range", minimal + "l2tp.port = 65536\n", nil, []string{`FILE:7:1: tunnel.l2tp.port: 65536 is out of range; allowed: 1 to 65535`}},
		{"negative number", minimal + "l2tp.local_port = -1\n", nil, []string{`FILE:7:1: tunnel.l2tp.local_port: -1 is out of range; allowed: 0 to 65535`}},
		{"number between ranges", minimal + "ppp.mru = 100\n", nil, []string{`FILE:7:1: tunnel.ppp.mru: 100 is out of range; allowed: 0 or 128 to 1500`}},
		{"bad name of a list", minimal + "ppp.auth = ['mschapv2',\n 'mschap2']\n", nil, []string{`FILE:8:2: tunnel.ppp.auth: "mschap2" is not one of eap-mschapv2, mschapv2, mschap, chap-md5, eap-md5, pap, none (did you mean "mschapv2"?)`}},
		{"method listed twice", minimal + "ppp.auth = ['mschapv2', 'mschapv2']\n", nil, []string{`FILE:7:1: tunnel.ppp.auth: "mschapv2" is listed twice`}},
		{"no method", minimal + "ppp.auth = []\n", nil, []string{`FILE:7:1: tunnel.ppp.auth: at least one method is needed`}},
		{"bad address", minimal + "dns.servers = ['10.0.0.1', '10.0.0.300']\n", nil, []string{`FILE:7:28: tunnel.dns.servers: "10.0.0.300" is not the IP address of a host`}},
		{"IPv6 address to ask for", minimal + "ppp.address = 'fd00::1'\n", nil, []string{`FILE:7:1: tunnel.ppp.address: must be an IPv4 address`}},
		{"bad host name", minimal + "dns.hosts = { 'a b' = '10.0.0.1' }\n", nil, []string{`FILE:7:15: tunnel.dns.hosts.a b: "a b" is not a host name`}},
		{"bad search domain", minimal + "dns.search = ['-x']\n", nil, []string{`FILE:7:1: tunnel.dns.search: "-x" is not a domain name`}},
		{"hidden AVPs without a secret", minimal + "l2tp.hide_avps = true\n", nil, []string{`FILE:7:1: tunnel.l2tp.hide_avps: needs a secret`}},
		{"hidden AVPs with an empty secret", minimal + "[tunnel.l2tp]\nhide_avps = true\nsecret = ''\n", nil, []string{`FILE:8:1: tunnel.l2tp.hide_avps: needs a secret`}},
		{"pauses the wrong way round", minimal + "reconnect.initial = '5m'\n", nil, []string{`FILE:7:1: tunnel.reconnect.initial: 5m0s is more than max, 1m0s`}},
		{"IPsec without a key", minimal + "protocol = 'l2tp-ipsec'\n", nil, []string{`FILE:3:1: tunnel.ipsec.psk: the pre-shared key is missing (psk or psk_file`}},
		{"IPsec with an empty key", secure + "psk = ''\n", nil, []string{`FILE:9:1: tunnel.ipsec.psk: the pre-shared key is missing`}},
		{"key and certificate", secure + "psk = 'hunter2'\ncertificate = 'x'\n", nil, []string{`FILE:10:1: tunnel.ipsec.certificate: psk and certificate are both set; use one`}},
		{"no such certificate", secure + "certificate = 'none.pem'\n", nil, []string{`FILE:9:1: tunnel.ipsec.certificate: DIR/none.pem: no such file`}},
		{"unknown algorithm", secure + "psk = 'hunter2'\nproposals = ['aes256-sha3-modp2048']\n", nil, []string{`FILE:10:1: tunnel.ipsec.proposals: "aes256-sha3-modp2048" is not a proposal that is known (write them like "aes256-sha256-modp2048")`}},
		{"phase 1 proposal without a group", secure + "psk = 'hunter2'\nproposals = ['aes256-sha1']\n", nil, []string{`FILE:10:1: tunnel.ipsec.proposals: `}},
		{"ESP without integrity", secure + "psk = 'hunter2'\nesp_proposals = ['aes256']\n", nil, []string{`FILE:10:1: tunnel.ipsec.esp_proposals: `}},
		{"two groups in phase 2", secure + "psk = 'hunter2'\nesp_proposals = ['aes256-sha1', 'aes128-sha1-modp2048']\n", nil, []string{`FILE:10:1: tunnel.ipsec.esp_proposals: all of them must have the same`}},
		{"two groups in aggressive mode", secure + "psk = 'hunter2'\naggressive = true\nproposals = ['aes256-sha1-modp1024', 'aes256-sha1-modp2048']\n", nil, []string{`FILE:11:1: tunnel.ipsec.proposals: all of them must have the same`}},
		{"weak proposal under the strict policy", secure + "psk = 'hunter2'\ncrypto = 'strict'\nproposals = ['3DES-sha1-modp2048']\n", nil, []string{`FILE:11:1: tunnel.ipsec.proposals: "3DES-sha1-modp2048" is weak, and crypto is "strict"`}},
		{"identities", secure + "psk = 'hunter2'\nlocal_id = 'keyid:'\nremote_id = 'keyid:0xa'\n", nil, []string{`FILE:10:1: tunnel.ipsec.local_id: there is nothing behind keyid:`, `FILE:11:1: tunnel.ipsec.remote_id: the digits`}},
		{"mistyped protocol", minimal + "protocol = 'l2pt'\n", nil, []string{`FILE:7:1: tunnel.protocol: "l2pt" is not one of l2tp, l2tp-ipsec, pptp (did you mean "l2tp"?)`}},
		{"PPTP without a login that gives keys", minimal + "protocol = 'pptp'\nppp.auth = ['pap', 'chap-md5']\n", nil,
			[]string{`FILE:8:1: tunnel.ppp.mppe: encryption is required, but no method in auth gives keys for it (add "mschapv2" to auth, or set mppe = "deny"`}},
		{"PPTP over IPv6", minimal[:strings.Index(minimal, "server")] + "server = '2001:db8::1'\nprotocol = 'pptp'\nppp.auth = ['mschapv2', 'none']\n", nil, []string{`FILE:4:1: tunnel.server: PPTP needs a server with an IPv4 address`}},
		{"PPTP server with port", "[[tunnel]]\nserver = 'vpn.example.com:1723'\nprotocol = 'pptp'\nppp.auth = ['none']\nppp.mppe = 'deny'\n", nil, []string{`FILE:3:1: tunnel.server: must be a host without a port (write server = "vpn.example.com", and port = 1723 in [tunnel.pptp])`}},
		{"two ways to a GRE socket", minimal + "pptp.gre_fd = 3\npptp.gre_broker = 'x'\n", nil, []string{`FILE:8:1: tunnel.pptp.gre_broker: gre_fd and gre_broker are both set`}},
		{"one GRE socket for two", minimal + "name='a'\npptp.gre_fd=3\n" + minimal + "name='b'\npptp.gre_fd=3", nil, []string{`FILE:15:1: tunnel.1.pptp.gre_fd: another tunnel uses descriptor 3`}},
		{"descriptor of standard output", minimal + "pptp.gre_fd = 1\n", nil, []string{`FILE:7:1: tunnel.pptp.gre_fd: 1 is out of range; allowed: 0 or 3 to 65535`}},
		{"key length of MPPE", minimal + "ppp.mppe_min_key  = 64\n", nil, []string{`FILE:7:1: tunnel.ppp.mppe_min_key: 64 is out of range; allowed: 128 or 56 or 40`}},
		{"no key length of MPPE", minimal + "ppp.mppe_max_key = 56\n", nil, []string{`FILE:7:1: tunnel.ppp.mppe_max_key: no key has at least 128 bits and at most 56 (lower mppe_min_key to 56`}},
		{"control character in a name", minimal + "name = \"a\\u0007b\"\n", nil, []string{`FILE:7:1: tunnel.name: must be UTF-8 text without control characters`}},
		{"newline in a secret", minimal + "l2tp.secret = \"hunter2\\n\"\n", nil, []string{`FILE:7:1: tunnel.l2tp.secret: must be UTF-8 text without control characters`}},
		{"name of a tunnel", minimal + "name = 'a b'\n", nil, []string{`FILE:7:1: tunnel.name: "a b" is not 1 to 64 letters`}},
		{"two tunnels of one name", minimal + "name = 'a'\n" + minimal + "name = 'a'\n", nil, []string{`FILE:13:1: tunnel.1.name: two tunnels are called "a"`}},
		{"two tunnels without a name", minimal + minimal, nil, []string{`FILE:3:1: tunnel.name: name is missing`, `FILE:8:1: tunnel.1.name: name is missing`}},
		{"one local port for two", minimal + "name='a'\nl2tp.local_port=1701\n" + minimal + "name='b'\nl2tp.local_port=1701", nil, []string{`FILE:15:1: tunnel.1.l2tp.local_port: another tunnel uses port 1701`}},
		{"server with port", "[[tunnel]]\nserver = 'vpn.example.com:1702'\nppp.auth = ['none']\n", nil, []string{`FILE:3:1: tunnel.server: must be a host without a port (write server = "vpn.example.com", and port = 1702 in [tunnel.l2tp])`}},
		{"URL for a server", "[[tunnel]]\nserver = 'l2tp://vpn.example.com/'\nppp.auth = ['none']\n", nil, []string{`FILE:3:1: tunnel.server: "l2tp://vpn.example.com/" is not a host name or an IP address`}},
		{"mistyped address for a server", "[[tunnel]]\nserver = '10.0.0.256'\nppp.auth = ['none']\n", nil, []string{`FILE:3:1: tunnel.server: "10.0.0.256" is not a host name or an IP address`}},
		{"nothing in a tunnel", "[[tunnel]]\n", nil, []string{"FILE:2:1: tunnel.server: server is missing", "FILE:2:1: tunnel.username: username is missing"}},
		{"no password", "[[tunnel]]\nserver = 'a'\nusername = 'alice'\n", nil, []string{`FILE:2:1: tunnel.password: password or password_file is missing`}},
		{"secret twice", minimal + "password_file = 'x'\n", nil, []string{`FILE:7:1: tunnel.password_file: password and password_file are both set; use one`}},
		{"no such secret", "[[tunnel]]\nserver = 'a'\nusername = 'alice'\npassword_file = 'none'\n", nil, []string{`FILE:5:1: tunnel.password_file: DIR/none: no such file or directory`}},
		{"directory for a secret", "[[tunnel]]\nserver = 'a'\nusername = 'alice'\npassword_file = '.'\n", nil, []string{`FILE:5:1: tunnel.password_file: DIR: not a regular file`}},
		{"address without port", "[proxy]\nsocks5 = '127.0.0.1'\n", nil, []string{`FILE:3:1: proxy.socks5: "127.0.0.1" is not an IP address and a port`}},
		{"name to listen on", "[proxy]\nhttp = 'proxy.example.com:8080'\n", nil, []string{`FILE:3:1: proxy.http: "proxy.example.com:8080" is not an IP address and a port`}},
		{"port to listen on", "[proxy]\nhttp = 'localhost:99999'\n", nil, []string{`FILE:3:1: proxy.http: "localhost:`}},
		{"open proxy", "[proxy]\nsocks5 = ':1080'\n", nil, []string{`FILE:3:1: proxy.socks5: :1080 would let everybody who reaches it into the VPN (add a [[proxy.user]]`}},
		{"no proxy at all", "[proxy]\nsocks5 = 'off'\nhttp = 'off'\n", nil, []string{`FILE:2:1: proxy: socks5 and http are both off`}},
		{"users", "[[proxy.user]]\nname = 'a:b'\npassword = 'x'\n[[proxy.user]]\nname = 'c'\n[[proxy.user]]\nname='c'\npassword='y'\n[[proxy.user]]\npassword='z'\n", nil, []string{
			`FILE:3:1: proxy.user.name: a name with a colon cannot log in to an HTTP proxy`, `FILE:5:1: proxy.user.1.password: password or password_file is missing`,
			`FILE:8:1: proxy.user.2.name: two users are called "c"`, `FILE:10:1: proxy.user.3.name: name is missing`,
		}},
		{"TOML syntax", "[proxy]\nsocks5 = = 1\n", nil, []string{`FILE:3:10: not valid TOML: `}},
		{"key given twice", "[proxy]\nhttp = 'off'\nhttp = 'off'\n", nil, []string{`FILE:4:`}},
		{"unknown variable", "", []string{"GATEWAY_PROXY_SOKS5=off"}, []string{`GATEWAY_PROXY_SOKS5: unknown environment variable (did you mean "GATEWAY_PROXY_SOCKS5"?)`}},
		{"unknown variable like a port", "", []string{"GATEWAY_TUNEL_L2TP_PORT=1"}, []string{`GATEWAY_TUNEL_L2TP_PORT: unknown environment variable (did you mean "GATEWAY_TUNNEL_L2TP_PORT"?)`}},
		{"bad value of a variable", "", []string{"GATEWAY_TUNNEL_L2TP_PORT=none", "GATEWAY_TUNNEL_PPP_IPV6=perhaps"}, []string{
			`GATEWAY_TUNNEL_L2TP_PORT: tunnel.l2tp.port: must be a whole number`, `GATEWAY_TUNNEL_PPP_IPV6: tunnel.ppp.ipv6: must be true or false`,
		}},
		{"variable set twice", "", []string{"GATEWAY_TUNNEL_SERVER=a", "GATEWAY_TUNNEL_0_SERVER=b"}, []string{`GATEWAY_TUNNEL_SERVER: sets the same as GATEWAY_TUNNEL_0_SERVER`}},
		{"gap in the indexes", "", []string{"GATEWAY_PROXY_USER_1_NAME=a", "GATEWAY_PROXY_USER_1_PASSWORD=b"}, []string{`GATEWAY_PROXY_USER_1_NAME: proxy.user: number 0 is missing`}},
		{"huge index", "", []string{"GATEWAY_PROXY_USER_4000000_NAME=a"}, []string{`GATEWAY_PROXY_USER_4000000_NAME: the index must be less than 1000`}},
		{"not UTF-8", "", []string{"GATEWAY_TUNNEL_USERNAME=\xff"}, []string{`GATEWAY_TUNNEL_USERNAME: tunnel.username: must be UTF-8 text`}},
		{"everything at once, in the order of the file", "[proxy]\nxyzzy = 1\nsocks5 = 'x'\n[log]\nlevel = 'loud'\n", []string{"GATEWAY_LOG_FORMAT=xml"}, []string{
			"FILE:3:1: ", "FILE:4:1: ", "FILE:6:1: ", "GATEWAY_LOG_FORMAT: ",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := "\n" + test.file
			if !strings.Contains(test.file, "[tunnel]") {
				content += minimal
			}
			file := write(t, "c.toml", content)
			_, err := Load(Sources{File: file, Environ: test.env})
			var got []string
			for _, p := range Problems(err) {
				got = append(got, strings.NewReplacer(file, "FILE", filepath.Dir(file), "DIR").Replace(p.Error()))
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(got), len(test.want), strings.Join(got, "\n"))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], test.want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], test.want[i])
				}
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestNoConfigurationAtAll(t *testing.T) {
	_, err := Load(Sources{})
	if got := Problems(err); len(got) != 1 || got[0].Key != "tunnel" || !strings.Contains(got[0].Error(), "GATEWAY_TUNNEL_SERVER") {
		t.Errorf("got %v", err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	large := write(t, "large", strings.Repeat("#", maxFileSize+1))
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "not a regular file",
		large:                      "larger than",
	} {
		_, err := Load(Sources{File: path})
		if got := Problems(err); len(got) != 1 || got[0].File != path || !strings.Contains(got[0].Message, want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	secret := write(t, "secret", strings.Repeat("x", maxSecretSize+1))
	_, err := Load(Sources{Environ: []string{"GATEWAY_TUNNEL_SERVER=a", "GATEWAY_TUNNEL_USERNAME=b", "GATEWAY_TUNNEL_PASSWORD_FILE=" + secret}})
	if err == nil || !strings.Contains(err.Error(), "larger than 4096 bytes") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(secret, []byte("two\nlines\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(Sources{Environ: []string{"GATEWAY_TUNNEL_SERVER=a", "GATEWAY_TUNNEL_USERNAME=b", "GATEWAY_TUNNEL_PASSWORD_FILE=" + secret}})
	if err == nil || !strings.Contains(err.Error(), "control characters") {
		t.Errorf("got %v", err)
	}
}

func TestSyntaxErrorsDoNotQuoteSecrets(t *testing.T) {
	for _, line := range []string{
		`password = hunter2`, `password = 0xhunter2`, `password = "hunter2`, `password = 'hunter2`, `password = "hunter2" "hunter2"`,
		`password = "\hunter2"`, `password = 09hunter2`, `"password" = hunter2`, `l2tp = { secret = hunter2 }`, `password = hunter2.5.6`,
	} {
		_, err := Load(Sources{File: write(t, "c.toml", "[[tunnel]]\n"+line+"\n")})
		if len(Problems(err)) != 1 {
			t.Errorf("%s: got %v", line, err)
		}
		if strings.Contains(err.Error(), "unter") || strings.Contains(err.Error(), "09h") {
			t.Errorf("%s: the error shows it: %v", line, err)
		}
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	c := load(t, Sources{File: write(t, "c.toml", minimal)})
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10.3s", "%!"} {
		fmt.Fprintf(&out, verb+"\n", c.Tunnels[0].Password)
		fmt.Fprintf(&out, verb+"\n", c.Tunnels[0])
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", []any{&c.Tunnels[0].Password})
	}
	fmt.Fprintln(&out, c.Tunnels[0].Password, errors.New(c.Tunnels[0].Password.String()))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("loaded", "config", c, "tunnel", c.Tunnels[0], "password", c.Tunnels[0].Password)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), "hun"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in the output:\n%s", leak, out.String())
		}
	}
	if c.Tunnels[0].Password.Reveal() != "hunter2" {
		t.Error("Reveal does not reveal")
	}
}

func TestDistanceCountsEditsAndSwaps(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"", "abc", 3}, {"abc", "", 3}, {"l2pt", "l2tp", 1}, {"soks5", "socks5", 1},
		{"pasword", "password", 1}, {"kitten", "sitting", 3}, {strings.Repeat("x", 101), "x", 100},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestPlacesOfKeys(t *testing.T) {
	doc := "\ufeff# comment [x]\r\n" +
		"a . b = \"\"\"x\n[no]\nc = 1\\\"\"\"\"\"\n" + // lines 2 to 4, closing with a quote of the text
		"'q' = 'it' # d = 1\n" +
		"list = [ # [e]\n  1, 'x,]', [2],\n  { k = [3], \"l m\".n = '}' },\n]\n" +
		"[[t]]\nö = 1\n  x = 1979-05-27T07:32:00Z\n[t.sub]\ny = '''\n]'''\n[[t]]\nsub.y = 2\n[[t.u]]\n[[t.u]]\nz=1"
	want := map[string]place{
		"a": {2, 1}, "a.b": {2, 1}, "q": {5, 1}, "list": {6, 1}, "list.0": {7, 3}, "list.1": {7, 6}, "list.2": {7, 13}, "list.2.0": {7, 14},
		"list.3": {8, 3}, "list.3.k": {8, 5}, "list.3.k.0": {8, 10}, "list.3.l m": {8, 14}, "list.3.l m.n": {8, 14},
		"t": {10, 1}, "t.0": {10, 1}, "t.0.ö": {11, 1}, "t.0.x": {12, 3}, "t.0.sub": {13, 1}, "t.0.sub.y": {14, 1},
		"t.1": {16, 1}, "t.1.sub": {17, 1}, "t.1.sub.y": {17, 1}, "t.1.u": {18, 1}, "t.1.u.0": {18, 1}, "t.1.u.1": {19, 1}, "t.1.u.1.z": {20, 1},
	}
	got := locate(doc)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(place{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
