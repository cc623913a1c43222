//go:build interop

package interop

import (
	"fmt"
	"testing"
	"time"
)

// secure are the settings for the lab's IPsec servers, with changes.
func secure(changes settings) settings {
	s := settings{"protocol": "l2tp-ipsec", "ipsec.psk": "vpnlab-psk"}
	for key, value := range changes {
		s[key] = value
	}
	return s
}

func TestIPsecServers(t *testing.T) {
	for _, test := range []struct {
		name      string
		server    int
		tunnel    settings
		phase1    string
		transform string
	}{
		{"modern", 31, nil, "aes256-sha256-modp2048", "aes256-sha256"},
		{"modern, strict", 31, settings{"ipsec.crypto": "strict"}, "aes256-sha256-modp2048", "aes256-sha256"},
		{"legacy", 32, nil, "3des-sha1-modp1024", "3des-sha1"},
		{"any", 33, nil, "aes256-sha256-modp2048", "aes256-sha"},
		{"proposals", 33, settings{"ipsec.proposals": []string{"aes128-sha1-modp1024"}, "ipsec.esp_proposals": []string{"aes128-sha256"}},
			"aes128-sha1-modp1024", "aes128-sha256"},
		{"everything on port 4500", 31, settings{"ipsec.port": 4500}, "aes256-sha256-modp2048", "aes256-sha256"},
		{"another inner port", 31, settings{"l2tp.local_port": 40000}, "aes256-sha256-modp2048", "aes256-sha256"},
		{"server that renews", 34, nil, "aes256-sha256-modp2048", ""},
		{"aggressive mode", 35, settings{"ipsec.aggressive": true}, "", ""},
		{"lossy link", 55, nil, "aes256-sha256-modp2048", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := run(t, server(test.server), alice, secure(test.tunnel)).waitReady()
			p.waitLog(time.Second, map[string]string{"msg": "ike: phase 1 is up", "proposal": test.phase1})
			p.waitLog(time.Second, map[string]string{"msg": "ike: phase 2 is up", "transform": test.transform})
			checkBrowsing(t, p, test.server)
		})
	}
}

func TestIPsecIPv6Inside(t *testing.T) {
	p := run(t, server(33), alice, secure(nil)).waitReady()
	if got := p.get("socks5", "http://v6.intranet.example/"); got != privatePage {
		t.Errorf("page: %q", got)
	}
}

// 64 MiB down and up with equal checksums.
func TestIPsecBigTransfers(t *testing.T) {
	for _, number := range []int{31, 32} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			p := run(t, server(number), alice, secure(nil)).waitReady()
			checkDownload(t, p, "socks5")
			checkUpload(t, p, bigSize)
		})
	}
}
