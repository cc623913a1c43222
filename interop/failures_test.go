//go:build interop

package interop

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// The exit codes of docs/exit-codes.md.
const (
	exitPrivilege      = 3
	exitUnreachable    = 4
	exitNegotiation    = 5
	exitAuthentication = 6
	exitLinkLost       = 8
)

// Each failure has its stage, its cause and an advice in the log, and its exit code.
func TestL2TPFailures(t *testing.T) {
	once := func(s settings) settings {
		s["reconnect.attempts"] = 1
		return s
	}
	for _, test := range []struct {
		name   string
		server string
		who    login
		tunnel settings
		code   int
		line   map[string]string
	}{
		{"wrong password, MS-CHAPv2", server(14), login{"alice", "wrong"}, settings{}, exitAuthentication,
			map[string]string{"stage": "auth", "cause": "691", "advice": "password"}},
		{"unknown user, CHAP-MD5", server(12), login{"nobody", "x"}, settings{"ppp.auth": []string{"chap-md5"}}, exitAuthentication,
			map[string]string{"stage": "auth", "advice": "password"}},
		{"wrong password, PAP", server(11), login{"alice", "wrong"}, settings{"ppp.auth": []string{"pap"}}, exitAuthentication,
			map[string]string{"stage": "auth", "advice": "password"}},
		{"server that refuses every login", server(53), alice, settings{}, exitAuthentication,
			map[string]string{"stage": "auth", "cause": "refused", "advice": "password"}},
		{"method that is not allowed", server(11), alice, settings{}, exitAuthentication,
			map[string]string{"stage": "auth", "advice": `"pap"`}},
		{"server that asks for no login", server(17), alice, settings{}, exitAuthentication,
			map[string]string{"stage": "auth", "advice": `"none"`}},
		{"unknown host", "no-such-host.example", alice, once(settings{}), exitUnreachable,
			map[string]string{"stage": "resolve", "advice": "name"}},
		{"closed port", server(58), alice, once(settings{}), exitUnreachable,
			map[string]string{"stage": "l2tp-tunnel", "cause": "refused", "advice": "L2TP service"}},
		{"server that never answers", server(56), alice, once(settings{"l2tp.max_retries": 2}), exitUnreachable,
			map[string]string{"stage": "l2tp-tunnel", "cause": "answer", "advice": "1701"}},
		{"wrong tunnel secret", server(21), alice, settings{"l2tp.secret": "wrong"}, exitAuthentication,
			map[string]string{"stage": "l2tp-tunnel", "advice": "secret"}},
		{"no tunnel secret", server(21), alice, settings{}, exitAuthentication,
			map[string]string{"stage": "l2tp-tunnel", "advice": "secret"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := run(t, test.server, test.who, test.tunnel)
			code := p.waitExit(60 * time.Second)
			if code != test.code {
				t.Errorf("exit code %d, want %d\n%s", code, test.code, p.log())
			}
			p.waitLog(0, test.line)
		})
	}
}

// The server dies in mid-download and comes back: the download fails at once
// when the death is seen, a request in between waits or gets a proper error,
// and everything works again by itself.
func TestL2TPReconnect(t *testing.T) {
	const daemon = "xl2tpd -D -c /mnt/server/l2tp-chap-md5/conf -p /run/xl2tpd/l2tp-chap-md5.pid -C /run/xl2tpd/l2tp-chap-md5.control"
	p := run(t, server(12), alice, settings{"ppp.auth": []string{"chap-md5"}, "ppp.echo_interval": "2s", "ppp.echo_failures": 2,
		"reconnect.max": "2s"}).waitReady()

	response, err := p.client("http").Get("http://" + private + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.CopyN(io.Discard, response.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	// The daemon and its pppd, without a word to us; the children of the pid in the file.
	onServer(t, `pid=$(cat /run/xl2tpd/l2tp-chap-md5.pid); kill -KILL $(cat /proc/$pid/task/*/children) $pid; sleep 0.2`)
	start := time.Now()
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		t.Error("the download ended as if it were complete")
	}
	t.Logf("the download failed %v after the server's death", time.Since(start).Round(time.Millisecond))
	p.waitLog(30*time.Second, map[string]string{"msg": "tunnel is down", "stage": "", "advice": ""})

	short := p.client("http")
	short.Timeout = 40 * time.Second
	if response, err := short.Get("http://" + private + "/"); err != nil {
		t.Errorf("while down: %v", err)
	} else {
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("while down: %s", response.Status)
		}
	}

	p.forget()
	startOnServer(t, daemon, "/mnt/log/server/xl2tpd-l2tp-chap-md5.log")
	p.waitLog(60*time.Second, map[string]string{"msg": "network is up"})
	checkBrowsing(t, p, 12)
}
