package vpnserver_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"gateway/internal/vpnclient"
	"gateway/internal/vpnserver"
	"gateway/stack"
	"gateway/tunnel/ipsec/ike"
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

func TestPageThroughEachTransform(t *testing.T) {
	for _, test := range []struct{ phase1, esp string }{
		{"", ""}, // what both prefer
		{"aes256-sha256-modp2048", "aes256-sha256"},
		{"aes128-sha1-modp1536", "aes128-sha1"},
		{"aes192-sha384-modp3072", "aes192-sha384"},
		{"aes256-sha512-ecp521", "aes256-sha512"},
		{"3des-md5-modp1024", "3des-md5"},
		{"3des-sha1-modp1024", "3des-sha1-modp1024"},
		{"aes128-sha256-ecp256", "aes128gcm16-ecp256"},
		{"aes256-sha384-ecp384", "aes256gcm12"},
		{"aes256-sha256-modp4096", "aes256gcm8"},
		{"aes256-sha256-modp2048", "null-sha1"},
	} {
		t.Run(test.phase1+"/"+test.esp, func(t *testing.T) {
			choose := func(c *ike.Config) {
				if test.phase1 != "" {
					c.Proposals, c.ESPProposals = []string{test.phase1}, []string{test.esp}
				}
			}
			s := ipsecServer(t, func(c *vpnserver.Config) {
				choose(&c.IPsec.IKE)
				c.IPsec.ESP.AllowNull = true
			})
			conn := dial(t, ipsecClient(t, s, func(c *vpnclient.Config) {
				choose(&c.IPsec.IKE)
				c.IPsec.ESP.AllowNull = true
			}))
			if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
				t.Errorf("page: %q", got)
			}
		})
	}
}

func TestKindsOfIPsecConnection(t *testing.T) {
	for _, test := range []struct {
		name   string
		server func(*vpnserver.Config)
		client func(*vpnclient.Config)
	}{
		{"aggressive mode", func(c *vpnserver.Config) { c.IPsec.IKE.Aggressive = true }, func(c *vpnclient.Config) { c.IPsec.IKE.Aggressive = true }},
		{"PFS", func(c *vpnserver.Config) { c.IPsec.IKE.PFS = ike.PFSOn }, func(*vpnclient.Config) {}},
		{"everything on one port", func(*vpnserver.Config) {}, func(c *vpnclient.Config) { c.Port = c.IPsec.IKE.NATPort }},
		{"configured inner port", func(c *vpnserver.Config) { c.IPsec.IKE.PeerInnerPort = 40000 }, func(c *vpnclient.Config) { c.IPsec.IKE.InnerPort = 40000 }},
		{"server that demands inner port 1701", func(c *vpnserver.Config) { c.IPsec.IKE.PeerInnerPort = 1701 }, func(*vpnclient.Config) {}},
		{"HMAC-SHA-256 cut to 96 bits", func(c *vpnserver.Config) {
			c.IPsec.TruncatedSHA256, c.IPsec.IKE.ESPProposals = true, []string{"aes256-sha256"}
		},
			func(c *vpnclient.Config) {
				c.IPsec.TruncatedSHA256, c.IPsec.IKE.ESPProposals = true, []string{"aes256-sha256"}
			}},
		{"call from the server", func(c *vpnserver.Config) { c.CallOut = true }, func(c *vpnclient.Config) { c.WaitForCall = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, ipsecClient(t, ipsecServer(t, test.server), test.client))
			if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
				t.Errorf("page: %q", got)
			}
		})
	}
}

func TestOuterIPv6WithIPsec(t *testing.T) {
	any6 := netip.MustParseAddrPort("[::1]:0")
	s := ipsecServer(t, func(c *vpnserver.Config) { c.ListenIKE, c.ListenESP = any6, any6 })
	conn := dial(t, ipsecClient(t, s, func(c *vpnclient.Config) { c.Server = "::1" }))
	if got := get(t, conn.Stack(), "http://intranet.example/"); got != vpnserver.IndexPage {
		t.Errorf("page: %q", got)
	}
}

// What goes wrong has its stage and its verdict.
func TestIPsecFailures(t *testing.T) {
	for _, test := range []struct {
		name    string
		server  func(*vpnserver.Config)
		client  func(*vpnclient.Config)
		stage   string
		verdict vpnclient.Verdict
	}{
		// Our responder says PAYLOAD-MALFORMED without any proof of who it is; strongSwan's answer cannot be decrypted, which is final.
		{"wrong key", nil, func(c *vpnclient.Config) { c.IPsec.IKE.PSK = []byte("wrong") }, "ike-phase1", vpnclient.Disagreed},
		{"wrong key, aggressive mode", func(c *vpnserver.Config) { c.IPsec.IKE.Aggressive = true },
			func(c *vpnclient.Config) { c.IPsec.IKE.PSK, c.IPsec.IKE.Aggressive = []byte("wrong"), true }, "ike-phase1", vpnclient.Refused},
		{"server is another", nil, func(c *vpnclient.Config) { c.IPsec.IKE.RemoteID = ike.Identity{Type: ike.IDFQDN, Data: "vpn.example"} }, "ike-phase1", vpnclient.Refused},
		{"client is another", func(c *vpnserver.Config) { c.IPsec.IKE.RemoteID = ike.Identity{Type: ike.IDFQDN, Data: "alice"} }, nil, "ike-phase1", vpnclient.Refused},
		{"no common algorithm", nil, func(c *vpnclient.Config) {
			c.IPsec.IKE.Policy, c.IPsec.IKE.Proposals = ike.Strict, []string{"aes256-sha256-modp4096"}
		},
			"ike-phase1", vpnclient.Disagreed},
		{"no common ESP algorithm", func(c *vpnserver.Config) { c.IPsec.IKE.ESPProposals = []string{"aes128-sha1"} },
			func(c *vpnclient.Config) { c.IPsec.IKE.ESPProposals = []string{"aes256-sha256"} }, "ike-phase2", vpnclient.Disagreed},
		{"configured inner port that the server does not take", func(c *vpnserver.Config) { c.IPsec.IKE.PeerInnerPort = 1701 },
			func(c *vpnclient.Config) { c.IPsec.IKE.InnerPort = 40000 }, "ike-phase2", vpnclient.Disagreed},
		{"nobody there", nil, func(c *vpnclient.Config) { c.Port = unused }, "ike-phase1", vpnclient.Unreachable},
		{"wrong password inside", nil, func(c *vpnclient.Config) { c.PPP.Password = "wrong" }, "auth", vpnclient.Refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := ipsecServer(t, func(c *vpnserver.Config) {
				c.IPsec.IKE.Proposals = []string{"aes256-sha256-modp2048"}
				if test.server != nil {
					test.server(c)
				}
			})
			c := ipsecClient(t, s, func(c *vpnclient.Config) { c.IPsec.IKE.Proposals = []string{"aes256-sha256-modp2048"} })
			if test.client != nil {
				test.client(&c)
			}
			conn, err := vpnclient.Dial(t.Context(), c)
			if err == nil {
				conn.Close(t.Context())
				t.Fatal("it is up")
			}
			var staged interface {
				Stage() string
				Advice() string
			}
			if !errors.As(err, &staged) || staged.Stage() != test.stage || staged.Advice() == "" || vpnclient.Judge(err) != test.verdict {
				t.Errorf("verdict %v of %v", vpnclient.Judge(err), err)
			}
		})
	}
}

// unused is a UDP port of 127.0.0.1 where nothing listens: below the ephemeral ones.
const unused = 9

// A spySocket reports what is neither IKE nor ESP.
type spySocket struct {
	vpnclient.Socket
	t   *testing.T
	ike netip.AddrPort // where messages have no marker

	mu    sync.Mutex
	kinds map[string]int
}

func (s *spySocket) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range datagrams {
		s.kinds[s.kind(d[offset:], to)]++
	}
	return s.Socket.WriteDatagrams(datagrams, offset, to)
}

func (s *spySocket) kind(d []byte, to netip.AddrPort) string {
	isIKE := func(m []byte) bool {
		return len(m) >= 28 && m[17] == 0x10 && int(binary.BigEndian.Uint32(m[24:])) == len(m)
	}
	isL2TP := len(d) >= 6 && d[0]&0x34 == 0 && d[1] == 2 // RFC 2661 section 3.1: reserved bits, version
	switch {
	case to == s.ike && isIKE(d):
		return "IKE"
	case to == s.ike:
		s.t.Errorf("not IKE: %x", d)
	case len(d) == 1 && d[0] == 0xff:
		return "keepalive"
	case len(d) >= 4 && binary.BigEndian.Uint32(d) == 0 && isIKE(d[4:]):
		return "IKE"
	case len(d) < 8 || binary.BigEndian.Uint32(d) < 256:
		s.t.Errorf("not ESP: %x", d)
	case isL2TP && binary.BigEndian.Uint16(d[2:]) == uint16(len(d)):
		s.t.Errorf("L2TP in clear: %x", d)
	}
	return "ESP"
}

// No L2TP leaves but in ESP: while dialing, in use, when the server has gone and
// is dialed again, and in the end.
func TestNoCleartextWithIPsec(t *testing.T) {
	s := ipsecServer(t)
	var spies []*spySocket
	spied := ipsecClient(t, s, func(c *vpnclient.Config) {
		c.WrapSocket = func(inner vpnclient.Socket) vpnclient.Socket {
			spy := &spySocket{Socket: inner, t: t, ike: s.IKEAddr(), kinds: make(map[string]int)}
			spies = append(spies, spy)
			return spy
		}
	})
	conn := dial(t, spied)
	get(t, conn.Stack(), "http://intranet.example/")
	goodbye, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := s.Close(goodbye); err != nil { // and the client's answers have no SA in the end
		t.Errorf("closing the server: %v", err)
	}
	if err := conn.Err(); vpnclient.Judge(err) != vpnclient.PeerClosed {
		t.Errorf("ended with %v", err)
	}
	again := startServer(t, func() vpnserver.Config {
		c := vpnserver.Config{ListenIKE: s.IKEAddr(), ListenESP: s.ESPAddr()}
		c.IPsec.IKE.PSK = psk
		return c
	}())
	conn = dial(t, spied)
	get(t, conn.Stack(), "http://intranet.example/")
	again.Kill()
	leave, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // nobody answers
	defer cancel()
	conn.Close(leave)
	if len(spies) != 2 {
		t.Fatalf("%d sockets", len(spies))
	}
	for _, spy := range spies {
		if spy.kinds["IKE"] < 4 || spy.kinds["ESP"] < 10 {
			t.Errorf("sent: %v", spy.kinds)
		}
	}
}

// The port inside ESP is another one with each dial, and with a server that
// demands 1701 that one. ESP hides it, so the log tells. All clients have one
// address and one identity, and stay.
func TestInnerPortOfEachDial(t *testing.T) {
	for _, demanded := range []bool{false, true} {
		t.Run(fmt.Sprint("1701 demanded: ", demanded), func(t *testing.T) {
			watched := &portLog{Handler: log(t).Handler()}
			s := ipsecServer(t, func(c *vpnserver.Config) {
				if demanded {
					c.IPsec.IKE.PeerInnerPort = 1701
				}
			})
			for range 3 {
				conn := dial(t, ipsecClient(t, s, func(c *vpnclient.Config) { c.IPsec.IKE.Log = slog.New(watched) }))
				get(t, conn.Stack(), "http://intranet.example/")
			}
			ports := map[int64]bool{}
			for _, port := range watched.ports {
				ports[port] = true
			}
			if demanded && (len(watched.ports) != 3 || len(ports) != 1 || !ports[1701]) || !demanded && (len(ports) != 3 || ports[1701]) {
				t.Errorf("ports: %v", watched.ports)
			}
		})
	}
}

// A portLog notes our ports inside ESP.
type portLog struct {
	slog.Handler
	mu    sync.Mutex
	ports []int64
}

func (l *portLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "ike: phase 2 is up" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "port" {
				l.mu.Lock()
				defer l.mu.Unlock()
				n, _ := strconv.ParseInt(a.Value.String(), 10, 64)
				l.ports = append(l.ports, n)
			}
			return true
		})
	}
	return l.Handler.Handle(ctx, r)
}

// The server notices that a client has gone, and the client's address is free.
func TestClientsGoodbyeEndsItsSAs(t *testing.T) {
	s := ipsecServer(t)
	for range 3 {
		conn := dial(t, ipsecClient(t, s))
		if got := conn.Params().Local.String(); got != "10.99.0.10" {
			t.Errorf("address %s: the one before is not free", got)
		}
		leave, cancel := context.WithTimeout(t.Context(), wait)
		if err := conn.Close(leave); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// 4 MiB arrive intact through ESP over a carrier that loses, duplicates and reorders.
func TestIPsecTransferOverBadCarrier(t *testing.T) {
	t.Parallel() // it mostly waits
	const size = 4 << 20
	impatient := stack.Config{MinRTO: 5 * time.Millisecond, DisableGSO: true, RACK: true}
	s := ipsecServer(t, func(c *vpnserver.Config) { c.WrapSocket, c.Stack = bad(1), impatient })
	conn := dial(t, ipsecClient(t, s, func(c *vpnclient.Config) {
		c.Stack = impatient
		c.WrapSocket = func(s vpnclient.Socket) vpnclient.Socket { return bad(2)(s) }
	}))
	transport := &http.Transport{DialContext: conn.Stack().DialContext}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://10.88.0.1/big")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, want := sha256.New(), sha256.New()
	io.CopyN(want, vpnserver.BigFile(), size)
	if _, err := io.CopyN(got, response.Body, size); err != nil {
		t.Fatal(err)
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Error("the download differs")
	}
}
