package gateway

import (
	"errors"
	"log/slog"
	"net"
	"reflect"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/supervisor"
	"gateway/ppp"
	"gateway/tunnel/ipsec/ike"
)

func load(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Sources{Environ: append([]string{"GATEWAY_TUNNEL_SERVER=vpn.example",
		"GATEWAY_TUNNEL_USERNAME=alice", "GATEWAY_TUNNEL_PASSWORD=secret"}, environ...)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// config and ppp each have the list of login methods; they must be the same.
func TestEveryLoginMethodOfTheConfigurationIsKnownToPPP(t *testing.T) {
	c := load(t, "GATEWAY_TUNNEL_PPP_AUTH=eap-mschapv2,mschapv2,mschap,chap-md5,eap-md5,pap,none")
	got := pppConfig(&c.Tunnels[0], slog.New(slog.DiscardHandler)).Auth
	want := []ppp.AuthMethod{ppp.AuthEAPMSCHAPv2, ppp.AuthMSCHAPv2, ppp.AuthMSCHAP, ppp.AuthCHAPMD5, ppp.AuthEAPMD5, ppp.AuthPAP, ppp.AuthNone}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := pppConfig(&load(t).Tunnels[0], slog.New(slog.DiscardHandler)).Auth; !reflect.DeepEqual(got, ppp.DefaultAuth()) {
		t.Errorf("by default %v, want %v", got, ppp.DefaultAuth())
	}
}

// Zero means "never" in the configuration, and the rooms' default in the rooms.
func TestZeroDurationsMeanNever(t *testing.T) {
	c := load(t, "GATEWAY_TUNNEL_PPP_ECHO_INTERVAL=0", "GATEWAY_TUNNEL_L2TP_HELLO_INTERVAL=0", "GATEWAY_PROXY_WAIT_FOR_TUNNEL=0")
	s := tunnelConfig(c, &c.Tunnels[0], slog.New(slog.DiscardHandler))
	for name, d := range map[string]time.Duration{"echo": s.Dial.PPP.EchoInterval, "hello": s.Dial.L2TP.HelloInterval, "wait": s.Wait} {
		if d >= 0 {
			t.Errorf("%s interval is %v", name, d)
		}
	}
}

func TestReconnectDisabledIsOneAttempt(t *testing.T) {
	c := load(t, "GATEWAY_TUNNEL_RECONNECT_ENABLED=false")
	if got := tunnelConfig(c, &c.Tunnels[0], slog.New(slog.DiscardHandler)).Attempts; got != 1 {
		t.Errorf("%d attempts", got)
	}
}

func TestListeners(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	shared := free()
	for _, test := range []struct {
		name, socks5, http string
		doors              int
		fails              bool
	}{
		{"two ports", "127.0.0.1:0", "127.0.0.1:0", 2, false},
		{"one port for both", shared, shared, 1, false},
		{"one off", "127.0.0.1:0", "off", 1, false},
		{"taken", "127.0.0.1:0", taken.Addr().String(), 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, err := New(load(t, "GATEWAY_PROXY_SOCKS5="+test.socks5, "GATEWAY_PROXY_HTTP="+test.http), Options{})
			if test.fails {
				if !errors.Is(err, ErrListen) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer g.close()
			if len(g.doors) != test.doors {
				t.Errorf("%d listeners, want %d", len(g.doors), test.doors)
			}
		})
	}
}

// The log line of a failure has its stage, cause and advice.
func TestDescribe(t *testing.T) {
	fields := supervisor.Describe(&ppp.AuthError{Code: 691})
	if len(fields) != 6 || fields[0] != "stage" || fields[1] != "auth" || fields[2] != "cause" || fields[4] != "advice" {
		t.Errorf("got %v", fields)
	}
	if fields := supervisor.Describe(errors.New("x")); len(fields) != 2 {
		t.Errorf("got %v", fields)
	}
}

// What config takes for a proposal, IKE does, too, and it refuses what IKE does.
func TestProposalsOfTheConfigurationAreKnownToIKE(t *testing.T) {
	parts := [][]string{{"aes", "aes128", "aes192", "aes256", "3des", "des", "null", "aes128gcm16", "aes256gcm8", "aes192gcm12"},
		{"", "md5", "sha", "sha1", "sha256", "sha384", "sha512", "sha3"},
		{"", "modp768", "modp1024", "modp1536", "modp2048", "modp3072", "modp4096", "ecp256", "ecp384", "ecp521", "curve25519"}}
	for _, cipher := range parts[0] {
		for _, hash := range parts[1] {
			for _, group := range parts[2] {
				proposal := cipher
				for _, part := range []string{hash, group} {
					if part != "" {
						proposal += "-" + part
					}
				}
				for key, known := range map[string]func(string) error{
					"PROPOSALS":     func(s string) error { _, err := ike.ParseProposal(s); return err },
					"ESP_PROPOSALS": func(s string) error { _, err := ike.ParseESPProposal(s); return err },
				} {
					for crypto, policy := range map[string]ike.Policy{"compatible": ike.Compatible, "strict": ike.Strict} {
						want := known(proposal) == nil
						if want {
							c := ike.Config{PSK: []byte("x"), Policy: policy}
							if key == "PROPOSALS" {
								c.Proposals = []string{proposal}
							} else {
								c.ESPProposals = []string{proposal}
							}
							_, err := ike.NewEndpoint(c, nil)
							want = err == nil
						}
						_, err := config.Load(config.Sources{Environ: []string{"GATEWAY_TUNNEL_SERVER=vpn", "GATEWAY_TUNNEL_USERNAME=x", "GATEWAY_TUNNEL_PASSWORD=x",
							"GATEWAY_TUNNEL_PROTOCOL=l2tp-ipsec", "GATEWAY_TUNNEL_IPSEC_PSK=x", "GATEWAY_TUNNEL_IPSEC_CRYPTO=" + crypto,
							"GATEWAY_TUNNEL_IPSEC_" + key + "=" + proposal}})
						if (err == nil) != want {
							t.Errorf("%s %s, %s: the configuration says %v", key, proposal, crypto, err)
						}
					}
				}
			}
		}
	}
}
