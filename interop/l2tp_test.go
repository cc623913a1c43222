//go:build interop

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	socks "golang.org/x/net/proxy"
)

const (
	privatePage = "vpnlab private network\n"
	private     = "10.88.0.1"
	bigSize     = 64 << 20
	bigSHA256   = "f30fb789a9f52beedf72cacba5240bcd34e513150a201daab9f24dde4051556d"
)

// checkBrowsing fetches pages through both proxies, by address and by name.
func checkBrowsing(t *testing.T, p *program, server int) {
	t.Helper()
	for _, kind := range []string{"socks5", "http"} {
		for _, host := range []string{private, "intranet.example", "www.intranet.example"} {
			if got := p.get(kind, "http://"+host+"/"); got != privatePage {
				t.Errorf("http://%s/ through %s: %q", host, kind, got)
			}
		}
		got := p.get(kind, "http://"+private+"/ip")
		if want := fmt.Sprintf("10.99.%d.", server); !strings.HasPrefix(got, want) {
			t.Errorf("the server sees %q, not an address of %s", got, want)
		}
	}
}

func TestL2TPServers(t *testing.T) {
	for _, test := range []struct {
		name   string
		server int
		tunnel settings
		auth   string
	}{
		{"PAP", 11, settings{"ppp.auth": []string{"pap"}}, "pap"},
		{"CHAP-MD5", 12, settings{"ppp.auth": []string{"chap-md5"}}, "chap-md5"},
		{"MS-CHAPv1", 13, settings{"ppp.auth": []string{"mschap"}}, "mschap"},
		{"MS-CHAPv2 by default", 14, nil, "mschapv2"},
		{"EAP-MD5", 15, settings{"ppp.auth": []string{"eap-md5"}}, "eap-md5"},
		{"Nak from CHAP-MD5 to MS-CHAPv2", 16, nil, "mschapv2"},
		{"no authentication", 17, settings{"ppp.auth": []string{"none"}}, "none"},
		{"user-space xl2tpd", 19, nil, "mschapv2"},
		{"tunnel authentication", 21, settings{"l2tp.secret": "tunnel-secret"}, "mschapv2"},
		{"hidden AVPs", 22, settings{"l2tp.secret": "tunnel-secret", "l2tp.hide_avps": true}, "mschapv2"},
		{"MTU 1000", 23, nil, "mschapv2"},
		{"sequencing", 14, settings{"l2tp.sequencing": true, "l2tp.length_bit": true}, "mschapv2"},
		{"lossy link", 51, nil, "mschapv2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := run(t, server(test.server), alice, test.tunnel).waitReady()
			p.waitLog(time.Second, map[string]string{"msg": "network is up", "auth": test.auth})
			checkBrowsing(t, p, test.server)
		})
	}
}

// Every user of the lab, with each kind of login.
func TestL2TPUsers(t *testing.T) {
	for _, server_ := range []struct {
		number int
		auth   string
	}{{11, "pap"}, {12, "chap-md5"}, {14, "mschapv2"}} {
		for _, who := range logins(t) {
			t.Run(server_.auth+"/"+who.name, func(t *testing.T) {
				p := run(t, server(server_.number), who, settings{"ppp.auth": []string{server_.auth}}).waitReady()
				if got := p.get("socks5", "http://"+private+"/"); got != privatePage {
					t.Errorf("page: %q", got)
				}
			})
		}
	}
}

func TestL2TPIPv6(t *testing.T) {
	p := run(t, server(16), alice, nil).waitReady()
	for _, kind := range []string{"socks5", "http"} {
		got := p.get(kind, "http://[fd88::1]/ip")
		if !strings.HasPrefix(got, "fd99:") {
			t.Errorf("through %s the server sees %q, not an address of fd99:0:0::/48", kind, got)
		}
		if got := p.get(kind, "http://v6.intranet.example/"); got != privatePage {
			t.Errorf("by a name that has IPv6 only: %q", got)
		}
	}
}

// 64 MiB down and up with equal checksums.
func TestL2TPBigTransfers(t *testing.T) {
	for _, number := range []int{14, 16} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			p := run(t, server(number), alice, nil).waitReady()
			checkDownload(t, p, "socks5")
			checkDownload(t, p, "http")
			checkUpload(t, p, bigSize)
		})
	}
}

func checkDownload(t *testing.T, p *program, kind string) {
	t.Helper()
	start := time.Now()
	response, err := p.client(kind).Get("http://" + private + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, response.Body)
	if err != nil || n != bigSize {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != bigSHA256 {
		t.Errorf("SHA-256 of the download: %s", got)
	}
	t.Logf("download through %s: %.0f Mbit/s", kind, bigSize*8/time.Since(start).Seconds()/1e6)
}

// checkUpload sends n bytes to the service that answers with their SHA-256
// after a half-close.
func checkUpload(t *testing.T, p *program, n int64) {
	t.Helper()
	start := time.Now()
	dialer, err := socks.SOCKS5("tcp", p.proxy("socks5"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(private, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(transferLimit(n)))
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(conn, sum), rand.New(rand.NewSource(7)), n); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if want := hex.EncodeToString(sum.Sum(nil)); !strings.HasPrefix(string(answer), want) {
		t.Errorf("the server got bytes with SHA-256 %q, want %s", answer, want)
	}
	t.Logf("upload: %.0f Mbit/s", float64(n)*8/time.Since(start).Seconds()/1e6)
}

// 5 % loss each way, 20 ms, reordering and duplicates.
func TestL2TPLossyTransfer(t *testing.T) {
	t.Parallel() // it mostly waits
	p := run(t, server(51), alice, nil).waitReady()
	checkUpload(t, p, 2<<20)
	checkEcho(t, p, 1<<20) // and back
}

// The programs that users put in front of the proxies.
func TestL2TPUsersPrograms(t *testing.T) {
	p := run(t, server(14), alice, nil).waitReady()
	for _, test := range []struct {
		name    string
		command []string
		stdin   string
		want    string
	}{
		{"curl --socks5-hostname", []string{"curl", "-sS", "--socks5-hostname", p.proxy("socks5"), "http://intranet.example/"}, "", privatePage},
		{"curl -x http://", []string{"curl", "-sS", "-x", "http://" + p.proxy("http"), "http://intranet.example/"}, "", privatePage},
		{"curl --proxytunnel", []string{"curl", "-sS", "-p", "-x", "http://" + p.proxy("http"), "http://intranet.example/"}, "", privatePage},
		{"nc -X 5", []string{"nc", "-N", "-X", "5", "-x", p.proxy("socks5"), "intranet.example", "7"}, "hello through nc\n", "hello through nc\n"},
		{"nc -X connect", []string{"nc", "-N", "-X", "connect", "-x", p.proxy("http"), "intranet.example", "7"}, "hello through nc\n", "hello through nc\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(test.command[0], test.command[1:]...)
			cmd.Stdin = strings.NewReader(test.stdin)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != test.want {
				t.Errorf("%v: %q, %v", cmd, out, err)
			}
		})
	}
}
