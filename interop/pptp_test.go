//go:build interop

package interop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	socks "golang.org/x/net/proxy"

	"gateway/internal/vpnserver"
)

// runPPTP starts the program with a PPTP tunnel; it may open raw sockets and nothing else.
func runPPTP(t *testing.T, number int, who login, tunnel settings) *program {
	t.Helper()
	return runAs(t, withNetRaw, server(number), who, pptpSettings(tunnel))
}

func pptpSettings(tunnel settings) settings {
	all := settings{"protocol": "pptp"}
	for key, value := range tunnel {
		all[key] = value
	}
	return all
}

func TestPPTPServers(t *testing.T) {
	clear := func(auth string) settings { return settings{"ppp.auth": []string{auth}, "ppp.mppe": "deny"} }
	for _, test := range []struct {
		name       string
		server     int
		tunnel     settings
		auth       string
		encryption string // "": none
	}{
		{"MPPE-128 by default", 41, nil, "mschapv2", "MPPE-128 stateless"},
		{"PAP in clear", 42, clear("pap"), "pap", ""},
		{"CHAP-MD5 in clear", 43, clear("chap-md5"), "chap-md5", ""},
		{"MPPE-40", 44, settings{"ppp.mppe_min_key": 40}, "mschapv2", "MPPE-40 stateless"},
		{"MPPE-128 stateful", 45, settings{"ppp.mppe_stateful": true}, "mschapv2", "MPPE-128 stateful"},
		{"MPPE-128 stateless, though stateful is allowed there", 45, nil, "mschapv2", "MPPE-128 stateless"},
		{"keys of MS-CHAPv1", 46, settings{"ppp.auth": []string{"mschap"}}, "mschap", "MPPE-128 stateless"},
		{"IPv6", 47, nil, "mschapv2", "MPPE-128 stateless"},
		{"longest of two keys", 48, settings{"ppp.mppe_min_key": 40}, "mschapv2", "MPPE-128 stateless"},
		{"encryption only if asked for", 41, settings{"ppp.mppe": "allow"}, "mschapv2", "MPPE-128 stateless"},
		{"encryption preferred", 41, settings{"ppp.mppe": "prefer"}, "mschapv2", "MPPE-128 stateless"},
		{"encryption preferred, and compression", 41, settings{"ppp.mppe": "prefer", "ppp.mppc": "prefer"}, "mschapv2", "MPPE-128 stateless"},
		{"EAP-MD5 among other compressions", 49, clear("eap-md5"), "eap-md5", ""},
		{"EAP-MD5, encryption preferred", 49, settings{"ppp.auth": []string{"eap-md5"}, "ppp.mppe": "prefer"}, "eap-md5", ""},
		{"lossy link", 52, nil, "mschapv2", "MPPE-128 stateless"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := runPPTP(t, test.server, alice, test.tunnel).waitReady()
			line := p.waitLog(time.Second, map[string]string{"msg": "network is up", "auth": test.auth})
			if line["encryption"] != test.encryption {
				t.Errorf("encryption %q, want %q", line["encryption"], test.encryption)
			}
			checkBrowsing(t, p, test.server)
			if test.server == 47 {
				if got := p.get("socks5", "http://[fd88::1]/"); got != privatePage {
					t.Errorf("page by IPv6: %q", got)
				}
			}
		})
	}
}

// MPPE over L2TP: the server demands it.
func TestL2TPWithMPPE(t *testing.T) {
	for _, mppe := range []string{"auto", "require"} {
		t.Run(mppe, func(t *testing.T) {
			p := run(t, server(18), alice, settings{"ppp.mppe": mppe}).waitReady()
			p.waitLog(time.Second, map[string]string{"msg": "network is up", "encryption": "MPPE-128 stateless"})
			checkBrowsing(t, p, 18)
		})
	}
}

func TestPPTPUsers(t *testing.T) {
	for _, who := range logins(t) {
		t.Run(who.name, func(t *testing.T) {
			p := runPPTP(t, 41, who, nil).waitReady()
			if got := p.get("socks5", "http://"+private+"/"); got != privatePage {
				t.Errorf("page: %q", got)
			}
		})
	}
}

// 64 MiB down and up with equal checksums, encrypted.
func TestPPTPBigTransfers(t *testing.T) {
	p := runPPTP(t, 41, alice, nil).waitReady()
	checkDownload(t, p, "socks5")
	checkUpload(t, p, bigSize)
}

func TestPPTPStatefulTransfer(t *testing.T) {
	t.Parallel() // it mostly waits
	p := runPPTP(t, 45, alice, settings{"ppp.mppe_stateful": true}).waitReady()
	checkUpload(t, p, bigSize/8)
	checkEcho(t, p, bigSize/32)
}

// 5 % loss each way, 20 ms, reordering and duplicates, stateless encryption. pptpd keeps all that comes behind a lost packet for 300
// ms, so one connection gets nowhere, and several share the transfer.
func TestPPTPLossyTransfer(t *testing.T) {
	t.Parallel() // it mostly waits
	parts, size := 16, int64(128<<10)
	if os.Getenv("INTEROP_LONG") != "" {
		parts, size = 64, bigSize/64
	}
	rate := func(start time.Time) float64 {
		return float64(parts) * float64(size) * 8 / time.Since(start).Seconds() / 1e6
	}
	p := runPPTP(t, 52, alice, nil).waitReady()
	p.waitLog(time.Second, map[string]string{"msg": "network is up", "encryption": "MPPE-128 stateless"})
	start := time.Now()
	inParallel(parts, func(int) { checkUpload(t, p, size) })
	t.Logf("%d KiB up: %.2f Mbit/s", int64(parts)*size>>10, rate(start))

	start = time.Now()
	got := make([][]byte, parts)
	inParallel(parts, func(i int) { got[i] = fetchPart(t, p, int64(i)*size, size) })
	t.Logf("%d KiB down: %.2f Mbit/s", int64(parts)*size>>10, rate(start))
	// What /big consists of: see lab/up.
	want := make([]byte, int64(parts)*size)
	if _, err := io.ReadFull(vpnserver.BigFile(), want); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(bytes.Join(got, nil)) != sha256.Sum256(want) {
		t.Error("the download differs")
	}
}

// inParallel does n things, eight at a time.
func inParallel(n int, do func(i int)) {
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
}

// fetchPart gets a range of /big. It goes on where it stopped when the server loses patience: nginx closes a connection on which its own
// TCP has not got anything through for a minute.
func fetchPart(t *testing.T, p *program, from, length int64) (part []byte) {
	for range 5 {
		piece, err := fetchRange(p, from+int64(len(part)), length-int64(len(part)))
		part = append(part, piece...)
		if err == nil {
			return part
		}
		t.Logf("part at %d KiB, after %d KiB: %v", from>>10, len(part)>>10, err)
	}
	t.Errorf("part at %d KiB: only %d KiB", from>>10, len(part)>>10)
	return part
}

// fetchRange returns what came of it with the error.
func fetchRange(p *program, from, length int64) ([]byte, error) {
	client := p.client("http")
	client.Timeout = transferLimit(16 * length) // it shares the path with others
	request, err := http.NewRequest(http.MethodGet, "http://"+private+"/big", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+length-1))
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusPartialContent {
		return nil, errors.New(response.Status)
	}
	return io.ReadAll(response.Body)
}

// checkEcho sends n bytes to the echo service and compares what comes back.
func checkEcho(t *testing.T, p *program, n int64) {
	t.Helper()
	dialer, err := socks.SOCKS5("tcp", p.proxy("socks5"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort("intranet.example", "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(transferLimit(n)))
	go io.CopyN(conn, rand.New(rand.NewSource(8)), n)
	want, got := sha256.New(), sha256.New()
	io.CopyN(want, rand.New(rand.NewSource(8)), n)
	if _, err := io.CopyN(got, conn, n); err != nil {
		t.Fatal(err)
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Error("the echo differs")
	}
}

// transferLimit bounds a transfer: five minutes, or more if it is long.
func transferLimit(n int64) time.Duration {
	const slowest = 32 << 10 // bytes a second
	return max(5*time.Minute, time.Duration(n/slowest)*time.Second)
}

// Each failure has its stage, its cause and an advice in the log, and its exit code.
func TestPPTPFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		server int
		who    login
		tunnel settings
		code   int
		line   map[string]string
	}{
		{"wrong password", 41, login{"alice", "wrong"}, nil, exitAuthentication, map[string]string{"stage": "auth", "cause": "691", "advice": "password"}},
		{"server that refuses every login", 54, alice, nil, exitAuthentication, map[string]string{"stage": "auth", "advice": "password"}},
		{"GRE is blocked", 57, alice, settings{"reconnect.attempts": 1}, exitUnreachable,
			map[string]string{"stage": "gre", "cause": "GRE (IP protocol 47) is blocked between here and the server", "advice": "47"}},
		{"nothing listens", 58, alice, settings{"reconnect.attempts": 1}, exitUnreachable,
			map[string]string{"stage": "pptp-control", "cause": "refused", "advice": "1723"}},
		{"server that never answers", 56, alice, settings{"reconnect.attempts": 1}, exitUnreachable,
			map[string]string{"stage": "pptp-control", "advice": "1723"}},
		{"encryption required here alone", 43, alice, settings{"ppp.auth": []string{"chap-md5", "mschapv2"}, "reconnect.attempts": 1}, exitNegotiation,
			map[string]string{"stage": "ccp", "advice": "mschapv2"}},
		{"encryption required there alone", 41, alice, settings{"ppp.mppe": "deny", "reconnect.attempts": 1}, exitNegotiation,
			map[string]string{"stage": "ccp", "advice": "mppe"}},
		{"key longer than the server's", 44, alice, settings{"reconnect.attempts": 1}, exitNegotiation,
			map[string]string{"stage": "ccp", "advice": "mppe"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := runPPTP(t, test.server, test.who, test.tunnel)
			if code := p.waitExit(60 * time.Second); code != test.code {
				t.Errorf("exit code %d, want %d\n%s", code, test.code, p.log())
			}
			p.waitLog(0, test.line)
		})
	}
}

// Without any way to a GRE socket the program says which ways there are.
func TestPPTPWithoutPrivilege(t *testing.T) {
	p := runAs(t, unprivileged, server(41), alice, pptpSettings(nil))
	if code := p.waitExit(10 * time.Second); code != exitPrivilege {
		t.Errorf("exit code %d, want %d\n%s", code, exitPrivilege, p.log())
	}
	line := p.waitLog(0, map[string]string{"stage": "gre"})
	for _, way := range []string{"CAP_NET_RAW", "--gre-fd", "gre-broker"} {
		if !strings.Contains(fmt.Sprint(line["advice"]), way) {
			t.Errorf("the advice does not name %s: %v", way, line["advice"])
		}
	}
}

// The program has no privilege, and inherits a socket.
func TestPPTPWithInheritedSocket(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_GRE)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "gre")
	defer socket.Close()
	const first = 4 // of runAs's files
	p := runAs(t, unprivileged, server(41), alice, pptpSettings(settings{"pptp.gre_fd": first}), socket).waitReady()
	checkBrowsing(t, p, 41)
}

// The program has no privilege; the broker, another user's, has CAP_NET_RAW.
func TestPPTPWithBroker(t *testing.T) {
	dir, err := os.MkdirTemp("", "gre-broker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 65533, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "gre")
	broker := exec.Command("setpriv", "--reuid=65533", "--regid=65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw", "--",
		filepath.Join(os.Getenv(insideEnv), "gateway"), "gre-broker", "--socket", path, "--allow-uid", "65534", "--group", "65534")
	log := new(strings.Builder)
	broker.Stderr = log
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		broker.Process.Signal(syscall.SIGTERM)
		if err := broker.Wait(); err != nil {
			t.Errorf("the broker: %v", err)
		}
		if t.Failed() {
			t.Logf("broker's log:\n%s", log)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm() == 0o660 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the broker has made no socket")
		}
	}
	p := runAs(t, unprivileged, server(41), alice, pptpSettings(settings{"pptp.gre_broker": path})).waitReady()
	p.waitLog(time.Second, map[string]string{"msg": "network is up", "encryption": "MPPE-128 stateless"})
	checkBrowsing(t, p, 41)
}

// The server's end of the connection is killed, without a word to us; the next dial works.
func TestPPTPReconnect(t *testing.T) {
	p := runPPTP(t, 46, alice, settings{"ppp.auth": []string{"mschap"}, "reconnect.max": "2s"}).waitReady()
	p.forget()
	onServer(t, `kill -KILL $(ps -o pid= --ppid $(cat /run/pptpd/pptp-mschap1-mppe128.pid))`)
	p.waitLog(30*time.Second, map[string]string{"msg": "tunnel is down", "stage": "pptp-control"})
	p.waitLog(60*time.Second, map[string]string{"msg": "network is up"})
	checkBrowsing(t, p, 46)
}
