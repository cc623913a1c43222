package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/gre"
	"gateway/internal/grebroker"
	"gateway/ppp"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

const minimal = "[[tunnel]]\nserver = 'vpn.example.com'\nusername = 'alice'\npassword = 'hunter2'\n"

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := file("good.toml", minimal), file("bad.toml", minimal+"pasword = 'hunter2'\nl2tp.port = 0\n")
	pap := file("pap.toml", minimal+"ppp.auth = ['pap']\n")
	tunnel := []string{"GATEWAY_TUNNEL_SERVER=a", "GATEWAY_TUNNEL_USERNAME=b", "GATEWAY_TUNNEL_PASSWORD=c", "GATEWAY_CONFIG=" + file("empty.toml", "")}

	for _, test := range []struct {
		name           string
		args           string
		env            []string
		code           exitCode
		stdout, stderr string // parts
	}{
		{"no arguments show the help", "", nil, exitOK, "Available Commands", ""},
		{"version", "version", nil, exitOK, "gateway ", ""},
		{"good file", "check -c " + good, nil, exitOK, good + ": ok\n", ""},
		{"bad file: all of it", "check -c " + bad, nil, exitConfig, "", bad + ":5:1: tunnel.pasword: unknown key (did you mean \"password\"?)\n" +
			bad + ":6:1: tunnel.l2tp.port: 0 is out of range; allowed: 1 to 65535\n"},
		{"warning", "check -c " + pap, nil, exitOK, pap + ": ok\n", pap + ":5:1: tunnel.ppp.auth: "},
		{"missing file", "check -c " + dir + "/none", nil, exitConfig, "", dir + "/none: no such file or directory\n"},
		{"file named by the environment", "check", []string{"GATEWAY_CONFIG=" + good}, exitOK, good + ": ok\n", ""},
		{"flag wins over the environment", "check -c " + good, []string{"GATEWAY_CONFIG=" + bad}, exitOK, good + ": ok\n", ""},
		{"tunnel by environment", "check", tunnel, exitOK, ": ok\n", ""},
		{"flag of its own", "check --socks5 nonsense -c " + good, nil, exitConfig, "", `proxy.socks5: "nonsense" is not an IP address`},
		{"any key by flag", "check --set tunnel.ppp.mru=9 -c " + good, nil, exitConfig, "", "tunnel.ppp.mru: 9 is out of range"},
		{"secret by flag", "check --set tunnel.password=hunter2 -c " + good, nil, exitConfig, "", "tunnel.password: a secret does not belong on the command line"},
		{"flag without value", "check --set tunnel.ppp.mru -c " + good, nil, exitConfig, "", "want KEY=VALUE"},
		{"flag of PPTP", "check --protocol pptp --gre-fd 1 -c " + good, nil, exitConfig, "", "tunnel.pptp.gre_fd: 1 is out of range"},
		{"both ways to a GRE socket", "check --protocol pptp --gre-fd 3 --gre-broker /run/gre -c " + good, nil, exitConfig, "", "use one"},
		{"broker without a socket", "gre-broker", nil, exitConfig, "", "--socket is missing"},
		{"broker for nobody", "gre-broker --socket x --group no-such-group", nil, exitConfig, "", "--group"},
		{"demo of an unknown protocol", "demo --protocol ipx", nil, exitConfig, "", "l2tp"},
		{"unknown flag", "check --bogus", nil, exitConfig, "", "unknown flag: --bogus"},
		{"unknown command", "chekc", nil, exitConfig, "", `unknown command "chekc"`},
		{"too many arguments", "check " + good, nil, exitConfig, "", "see gateway --help"},
		{"list of variables", "help environment", nil, exitOK, "GATEWAY_TUNNEL_L2TP_HELLO_INTERVAL", ""},
		{"list of exit codes", "help exit-codes", nil, exitOK, "6  the server refuses the login", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := execute(strings.Fields(test.args), test.env, &stdout, &stderr)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("stdout %q\nstderr %q", stdout.String(), stderr.String())
			}
			if strings.Contains(stdout.String()+stderr.String(), "hunter2") {
				t.Error("the output shows a secret")
			}
		})
	}
}

type stagedError string

func (e stagedError) Error() string  { return "test: failed" }
func (e stagedError) Stage() string  { return string(e) }
func (e stagedError) Advice() string { return "try again" }

func TestExitCodes(t *testing.T) {
	_, misconfigured := config.Load(config.Sources{})
	for name, test := range map[string]struct {
		err  error
		want exitCode
	}{
		"none":             {nil, exitOK},
		"anything":         {errors.New("x"), exitOther},
		"configuration":    {misconfigured, exitConfig},
		"command line":     {&usageError{errors.New("x")}, exitConfig},
		"not permitted":    {&fs.PathError{Err: fs.ErrPermission}, exitPrivilege},
		"given by command": {fmt.Errorf("run: %w", &exitError{exitLinkLost, stagedError("lcp")}), exitLinkLost},
		"no answer":        {fmt.Errorf("run: %w", &l2tp.LocalError{Kind: l2tp.NoAnswer}), exitUnreachable},
		"fell silent":      {&l2tp.LocalError{Kind: l2tp.NoAnswer, WasUp: true}, exitLinkLost},
		"echo unanswered":  {&ppp.EchoTimeoutError{}, exitLinkLost},
		"wrong secret":     {&l2tp.LocalError{Kind: l2tp.WrongSecret}, exitAuthentication},
		"login refused":    {fmt.Errorf("run: %w", &ppp.AuthError{Code: 691}), exitAuthentication},
		"refused tunnel":   {&l2tp.PeerError{ResultCode: 2}, exitNegotiation},
		"closed tunnel":    {&l2tp.PeerError{ResultCode: 6, WasUp: true}, exitPeerClosed},
		"no common ground": {&ppp.NegotiationError{Protocol: "lcp"}, exitNegotiation},
		"no GRE socket":    {fmt.Errorf("run: %w", &gre.PrivilegeError{Err: syscall.EPERM}), exitPrivilege},
		"refusing broker":  {&grebroker.RefusedError{}, exitPrivilege},
		"no broker":        {&grebroker.UnavailableError{Err: fs.ErrNotExist}, exitPrivilege},
		"no GRE socket fd": {&gre.DescriptorError{}, exitPrivilege},
		"GRE blocked":      {&pptp.LocalError{Kind: pptp.GREBlocked}, exitUnreachable},
		"call refused":     {&pptp.PeerError{ResultCode: 7}, exitNegotiation},
		"call ended":       {&pptp.PeerError{ResultCode: 3, WasUp: true}, exitPeerClosed},
		"TCP closed":       {&pptp.LocalError{Kind: pptp.ConnectionLost, WasUp: true}, exitPeerClosed},
		"TCP lost":         {&pptp.LocalError{Kind: pptp.ConnectionLost, WasUp: true, Err: syscall.ECONNRESET}, exitLinkLost},
		"TCP not answered": {&pptp.LocalError{Kind: pptp.TimedOut}, exitUnreachable},
		"echo of PPTP":     {&pptp.LocalError{Kind: pptp.NoAnswer}, exitLinkLost},
		"not PPTP":         {&pptp.LocalError{Kind: pptp.Protocol}, exitNegotiation},
		"listener":         {fmt.Errorf("%w: x", gateway.ErrListen), exitListener},
	} {
		if got := codeOf(test.err); got != test.want {
			t.Errorf("%s: exit code %d, want %d", name, got, test.want)
		}
	}
}

func TestReportGivesTheAdvice(t *testing.T) {
	var b strings.Builder
	report(&b, fmt.Errorf("run: %w", stagedError("lcp")))
	if want := "gateway: run: test: failed\n  try again\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestEveryExitCodeIsExplained(t *testing.T) {
	if len(exitCodeTexts) != exitListener+1 {
		t.Errorf("%d texts for %d codes", len(exitCodeTexts), exitListener+1)
	}
	for code, text := range exitCodeTexts {
		if text == "" {
			t.Errorf("exit code %d is not explained", code)
		}
	}
}
