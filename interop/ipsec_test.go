//go:build interop

package interop

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	socks "golang.org/x/net/proxy"
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
		{"configured inner port", 31, settings{"l2tp.local_port": 40000}, "aes256-sha256-modp2048", "aes256-sha256"},
		{"server that demands inner port 1701", 38, nil, "aes256-sha256-modp2048", "aes256-sha256"},
		{"server that renews", 34, nil, "aes256-sha256-modp2048", ""},
		{"aggressive mode", 35, settings{"ipsec.aggressive": true}, "", ""},
		{"ECP, AES-GCM and PFS", 36, nil, "aes256-sha256-ecp384", "aes256gcm16"},
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

// The port inside ESP is another one with each dial; 1701 where the server demands
// it, which is tried second, and where it is configured.
func TestIPsecInnerPort(t *testing.T) {
	const told = "ike: server may insist on UDP port 1701 inside ESP: trying once more with it"
	for _, test := range []struct {
		name   string
		server int
		tunnel settings
		port   func(float64) bool
		told   bool
	}{
		{"drawn", 31, nil, func(port float64) bool { return port >= 49152 }, false},
		{"demanded", 38, nil, func(port float64) bool { return port == 1701 }, true},
		{"configured", 31, settings{"l2tp.local_port": 1701}, func(port float64) bool { return port == 1701 }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := run(t, server(test.server), alice, secure(test.tunnel)).waitReady()
			if port := innerPort(p); !test.port(port) {
				t.Errorf("port %v\n%s", port, p.log())
			}
			if strings.Contains(p.log(), told) != test.told {
				t.Error(p.log())
			}
			checkBrowsing(t, p, test.server)
		})
	}
	t.Run("demanded, another configured", func(t *testing.T) {
		p := run(t, server(38), alice, secure(settings{"l2tp.local_port": 40000, "reconnect.attempts": 1}))
		if code := p.waitExit(time.Minute); code != exitNegotiation {
			t.Errorf("exit code %d\n%s", code, p.log())
		}
		p.waitLog(0, map[string]string{"stage": "ike-phase2", "cause": "INVALID-ID-INFORMATION", "advice": "local_port"})
	})
}

// innerPort is the program's port inside ESP.
func innerPort(p *program) float64 {
	line := p.waitLog(time.Second, map[string]string{"msg": "ike: phase 2 is up"})
	port, _ := line["port"].(float64)
	return port
}

// Two clients at one address are both connected to one server, and stay so.
func TestIPsecTwoClientsOfOneAddress(t *testing.T) {
	one := run(t, server(31), alice, secure(nil)).waitReady()
	checkBrowsing(t, one, 31)
	two := run(t, server(31), logins(t)[1], secure(nil)).waitReady()
	checkBrowsing(t, two, 31)
	checkBrowsing(t, one, 31)
	if a, b := one.get("http", "http://"+private+"/ip"), two.get("http", "http://"+private+"/ip"); a == b {
		t.Errorf("both are %q", a)
	}
	if a, b := innerPort(one), innerPort(two); a == b {
		t.Errorf("both have port %v inside ESP", a)
	}
	keepEchoing(t, one, time.Second)
	keepEchoing(t, two, time.Second)
}

// A client that is killed leaves the server a session that it does not know to be
// dead. The next dial is not taken for it.
func TestIPsecRedialAfterKill(t *testing.T) {
	for range 3 {
		p := run(t, server(31), alice, secure(nil))
		begin := time.Now()
		p.waitReady()
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("it took %v\n%s", took, p.log())
		}
		checkBrowsing(t, p, 31)
		p.cmd.Process.Kill()
		<-p.exited
	}
}

func TestIPsecIPv6Inside(t *testing.T) {
	p := run(t, server(33), alice, secure(nil)).waitReady()
	if got := p.get("socks5", "http://[fd88::1]/ip"); !strings.HasPrefix(got, "fd99:") {
		t.Errorf("the server sees %q, not an address of fd99:0:0::/48", got)
	}
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

// Our certificate as PEM and as PKCS#12; the server's must be of the CA and of
// its name.
func TestIPsecCertificates(t *testing.T) {
	pki := func(name string) string { return readable(t, filepath.Join(labDir(), "pki", name)) }
	pem := settings{"protocol": "l2tp-ipsec", "ipsec.certificate": pki("client.pem"), "ipsec.key": pki("client.key"), "ipsec.ca": pki("ca.pem")}
	p12 := settings{"protocol": "l2tp-ipsec", "ipsec.certificate": pki("client.p12"), "ipsec.certificate_password": "vpnlab-p12"}
	for name, s := range map[string]settings{"PEM": pem, "PKCS#12": p12} {
		t.Run(name, func(t *testing.T) {
			s["ipsec.remote_id"] = "vpn.example"
			p := run(t, server(37), alice, s).waitReady()
			checkBrowsing(t, p, 37)
		})
	}
	t.Run("another server's name", func(t *testing.T) {
		pem["ipsec.remote_id"] = "other.example"
		p := run(t, server(37), alice, pem)
		if code := p.waitExit(time.Minute); code != exitAuthentication {
			t.Errorf("exit code %d\n%s", code, p.log())
		}
		p.waitLog(0, map[string]string{"stage": "ike-phase1", "cause": "other.example", "advice": "remote_id"})
	})
}

func labDir() string {
	return cmp.Or(os.Getenv("VPNLAB_DIR"), filepath.Join(cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/tmp"), "vpnlab"))
}

// readable returns the path of a copy that the program may read.
func readable(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gateway-pki")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	copied := filepath.Join(dir, filepath.Base(file))
	if err := errors.Join(os.WriteFile(copied, data, 0o600), os.Chown(copied, 65534, 65534), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestIPsecFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		server string
		who    login
		tunnel settings
		code   int
		line   map[string]string
	}{
		{"wrong key", server(31), alice, settings{"ipsec.psk": "wrong"}, exitAuthentication,
			map[string]string{"stage": "ike-phase1", "advice": "pre-shared key"}},
		{"wrong key, aggressive mode", server(35), alice, settings{"ipsec.psk": "wrong", "ipsec.aggressive": true}, exitAuthentication,
			map[string]string{"stage": "ike-phase1", "advice": "pre-shared key"}},
		{"another server", server(31), alice, settings{"ipsec.remote_id": "other.example"}, exitAuthentication,
			map[string]string{"stage": "ike-phase1", "cause": "other.example", "advice": "remote_id"}},
		{"no common algorithm", server(31), alice, settings{"ipsec.proposals": []string{"aes128-sha1-modp1024"}}, exitNegotiation,
			map[string]string{"stage": "ike-phase1", "cause": "offered aes128-sha1-modp1024", "advice": "proposals"}},
		{"strict policy, legacy server", server(32), alice, settings{"ipsec.crypto": "strict"}, exitNegotiation,
			map[string]string{"stage": "ike-phase1", "cause": "NO-PROPOSAL-CHOSEN", "advice": "proposals"}},
		{"no common ESP algorithm", server(31), alice, settings{"ipsec.esp_proposals": []string{"aes128-sha1"}}, exitNegotiation,
			map[string]string{"stage": "ike-phase2", "cause": "NO-PROPOSAL-CHOSEN", "advice": "esp_proposals"}},
		{"server that never answers", server(56), alice, nil, exitUnreachable,
			map[string]string{"stage": "ike-phase1", "cause": "no answer", "advice": "500"}},
		{"wrong password", server(31), login{"alice", "wrong"}, nil, exitAuthentication,
			map[string]string{"stage": "auth", "cause": "691", "advice": "password"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := secure(test.tunnel)
			s["reconnect.attempts"] = 1
			p := run(t, test.server, test.who, s)
			if code := p.waitExit(90 * time.Second); code != test.code {
				t.Errorf("exit code %d, want %d\n%s", code, test.code, p.log())
			}
			p.waitLog(0, test.line)
		})
	}
}

// One TCP connection goes on while both phases are renewed again and again, by
// us and by the server.
func TestIPsecRekey(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, test := range []struct {
		name           string
		server         int
		tunnel         settings
		length         time.Duration
		phase1, phase2 int // renewals at least
	}{
		{"by us", 31, settings{"ipsec.ike_lifetime": "60s", "ipsec.esp_lifetime": "30s"}, 150 * time.Second, 2, 4},
		{"by the server", 34, nil, 160 * time.Second, 1, 3},
		{"by us, lossy link", 55, settings{"ipsec.ike_lifetime": "60s", "ipsec.esp_lifetime": "30s"}, 100 * time.Second, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.server == 55 && os.Getenv("INTEROP_LONG") == "" {
				t.Skip("one connection sometimes stalls for a minute over the lossy link; set INTEROP_LONG=1 to run it")
			}
			p := run(t, server(test.server), alice, secure(test.tunnel)).waitReady()
			keepEchoing(t, p, test.length)
			renewed := func(phase string) (n int) {
				p.mu.Lock()
				defer p.mu.Unlock()
				for _, line := range p.lines {
					if line["msg"] == "ike: phase "+phase+" is up" && line["renewed"] == true {
						n++
					}
				}
				return n
			}
			one, two := renewed("1"), renewed("2")
			t.Logf("renewed: phase 1 %d times, phase 2 %d times", one, two)
			if one < test.phase1 || two < test.phase2 {
				t.Errorf("renewed: phase 1 %d times, phase 2 %d times; want %d and %d\n%s", one, two, test.phase1, test.phase2, p.log())
			}
		})
	}
}

// keepEchoing sends random bytes over one connection for a while and wants them
// back.
func keepEchoing(t *testing.T, p *program, length time.Duration) {
	t.Helper()
	dialer, err := socks.SOCKS5("tcp", p.proxy("socks5"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(private, "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	source := rand.New(rand.NewSource(5))
	sent, got := make([]byte, 64<<10), make([]byte, 64<<10)
	total, longest := 0, time.Duration(0)
	for end := time.Now().Add(length); time.Now().Before(end); {
		source.Read(sent)
		start := time.Now()
		conn.SetDeadline(start.Add(time.Minute))
		if _, err := conn.Write(sent); err != nil {
			t.Fatalf("after %d bytes: %v\n%s", total, err, p.log())
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatalf("after %d bytes: %v\n%s", total, err, p.log())
		}
		if !bytes.Equal(got, sent) {
			t.Fatalf("after %d bytes: the echo differs", total)
		}
		total += len(sent)
		longest = max(longest, time.Since(start))
	}
	t.Logf("%d KiB both ways; 64 KiB took at most %v", total>>10, longest.Round(time.Millisecond))
}

// The server is cut off: dead peer detection notices it (RFC 3706).
func TestIPsecDeadPeer(t *testing.T) {
	p := run(t, server(33), alice, secure(settings{"ipsec.dpd_interval": "3s", "ppp.echo_interval": "0", "l2tp.hello_interval": "0",
		"reconnect.attempts": 1})).waitReady()
	const frozen = "iptables-legacy -t raw -%[1]s PREROUTING -d 10.77.0.33 -j DROP; iptables-legacy -t raw -%[1]s OUTPUT -s 10.77.0.33 -j DROP"
	onServer(t, fmt.Sprintf(frozen, "I"))
	t.Cleanup(func() { onServer(t, fmt.Sprintf(frozen, "D")) })
	start := time.Now()
	if code := p.waitExit(time.Minute); code != exitLinkLost {
		t.Errorf("exit code %d\n%s", code, p.log())
	}
	t.Logf("noticed after %v", time.Since(start).Round(time.Second))
	p.waitLog(0, map[string]string{"stage": "ike-phase1", "advice": "gone"})
}

// The server is killed with all that it knew, and comes back. Nothing but IKE
// and ESP in UDP is ever on the wire.
func TestIPsecServerRestart(t *testing.T) {
	stop := capture(t, server(31))
	p := run(t, server(31), alice, secure(settings{"ipsec.dpd_interval": "3s", "ppp.echo_interval": "2s", "ppp.echo_failures": 2, "reconnect.max": "2s"})).waitReady()
	checkBrowsing(t, p, 31)
	p.forget()
	onServer(t, `kill -KILL $(cat /var/run/charon.pid); pid=$(cat /run/xl2tpd/ipsec-modern.pid)
kill -KILL $(cat /proc/$pid/task/*/children) $pid; ip xfrm state flush; ip xfrm policy flush`)
	p.waitLog(30*time.Second, map[string]string{"msg": "tunnel is down", "stage": "", "advice": ""})
	startOnServer(t, "xl2tpd -D -c /mnt/server/ipsec-modern/conf -p /run/xl2tpd/ipsec-modern.pid -C /run/xl2tpd/ipsec-modern.control",
		"/mnt/log/server/xl2tpd-ipsec-modern.log") // charon's starter starts charon again
	p.waitLog(2*time.Minute, map[string]string{"msg": "network is up"})
	checkBrowsing(t, p, 31)
	p.stop()
	packets := stop()
	if n := packets("udp port 500 or udp port 4500"); n < 50 {
		t.Errorf("only %d packets were captured", n)
	}
	if n := packets("udp port 1701"); n != 0 {
		t.Errorf("%d packets of L2TP in clear", n)
	}
	if n := packets("ip and not icmp and not udp port 500 and not udp port 4500"); n != 0 {
		t.Errorf("%d packets that are neither IKE nor ESP in UDP", n)
	}
}

// capture records what passes to and from a server until stop is called, which
// returns a way to count packets by tcpdump's expressions.
func capture(t *testing.T, server string) (stop func() (packets func(filter string) int)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "capture")
	dump := exec.Command("tcpdump", "-i", "vpnlab-br", "-U", "-Z", "root", "-w", file, "host "+server)
	listens, err := dump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dump.Start(); err != nil {
		t.Skipf("needs tcpdump: %v", err)
	}
	t.Cleanup(func() { dump.Process.Kill() })
	listens.Read(make([]byte, 1)) // "tcpdump: listening on"
	go io.Copy(io.Discard, listens)
	return func() func(string) int {
		dump.Process.Signal(syscall.SIGINT)
		dump.Wait()
		return func(filter string) int {
			out, err := exec.Command("tcpdump", "-n", "-r", file, filter).Output()
			if err != nil {
				t.Fatal(err)
			}
			return strings.Count(string(out), "\n")
		}
	}
}
