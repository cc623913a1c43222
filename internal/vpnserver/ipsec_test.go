package vpnserver_test

import (
	"testing"

	"gateway/internal/vpnclient"
	"gateway/internal/vpnserver"
)

var psk = []byte("a pre-shared key")

func ipsecServer(t *testing.T, change ...func(*vpnserver.Config)) *vpnserver.Server {
	t.Helper()
	c := vpnserver.Config{}
	c.IPsec.IKE.PSK = psk
	c.IPsec.IKE.Log = log(t).With("side", "server")
	c.IPsec.ESP.Log = c.IPsec.IKE.Log
	for _, f := range change {
		f(&c)
	}
	return startServer(t, c)
}

func ipsecClient(t *testing.T, s *vpnserver.Server, change ...func(*vpnclient.Config)) vpnclient.Config {
	c := clientConfig(t, s, "alice")
	c.Protocol = vpnclient.L2TPIPsec
	c.Port = s.IKEAddr().Port()
	c.IPsec.IKE.NATPort = s.ESPAddr().Port()
	c.IPsec.IKE.PSK = psk
	c.IPsec.IKE.Log = c.Log
	c.IPsec.ESP.Log = c.Log
	for _, f := range change {
		f(&c)
	}
	return c
}

func TestPageThroughIPsec(t *testing.T) {
	s := ipsecServer(t)
	conn := dial(t, ipsecClient(t, s))
	if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
}
