package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gateway/bench/load"
	"gateway/internal/vpnserver"
)

// farEnd is the server of all tunnels, and where the gateways' files are.
type farEnd struct {
	server *vpnserver.Server
	target string // the traffic server behind it
	dir    string
}

const (
	user     = "scale"
	password = "on loopback, for minutes"
)

func startFarEnd(ctx context.Context) (*farEnd, error) {
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		return nil, err
	}
	server, err := vpnserver.Start(ctx, vpnserver.Config{Users: map[string]string{user: password}})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &farEnd{server, netip.AddrPortFrom(server.Private()[0], vpnserver.FarEndPort).String(), dir}, nil
}

func (f *farEnd) stop() {
	f.server.Kill()
	os.RemoveAll(f.dir)
}

// A gatewayProcess is a gateway whose tunnels are up.
type gatewayProcess struct {
	cmd       *exec.Cmd
	questions io.WriteCloser
	answers   *bufio.Reader
	proxy     string
}

// startGateway starts a gateway with n tunnels and waits until they are up.
func (f *farEnd) startGateway(ctx context.Context, n int) (*gatewayProcess, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(f.dir, "gateway.toml")
	if err := os.WriteFile(file, []byte(f.config(n, address)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-gateway", file)
	cmd.Stderr = os.Stderr
	questions, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := &gatewayProcess{cmd, questions, bufio.NewReader(answers), "socks5://" + address}
	if line, err := g.answers.ReadString('\n'); line != "ready\n" {
		g.stop()
		return nil, fmt.Errorf("the gateway did not become ready: %q, %w", line, err)
	}
	return g, nil
}

// config is that of a gateway with n tunnels to this server.
func (f *farEnd) config(n int, socks5 string) string {
	var b strings.Builder
	server := f.server.Addr()
	for i := range n {
		fmt.Fprintf(&b, "[[tunnel]]\nname = \"t%d\"\nprotocol = \"l2tp\"\nserver = %q\nusername = %q\npassword = %q\nl2tp.port = %d\n",
			i, server.Addr(), user, password, server.Port())
	}
	fmt.Fprintf(&b, "[proxy]\nsocks5 = %q\nhttp = \"off\"\nmax_connections = 65536\n", socks5)
	return b.String()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (g *gatewayProcess) pid() int { return g.cmd.Process.Pid }

// ask asks one question.
func (g *gatewayProcess) ask(question byte) (s state, err error) {
	if _, err := g.questions.Write([]byte{question}); err != nil {
		return s, err
	}
	line, err := g.answers.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("the gateway did not answer: %w", err)
	}
	err = json.Unmarshal(line, &s)
	s.rss = load.ReadProcess(g.pid()).RSS
	return s, err
}

// quiet waits until the process has done what it does at first.
func (g *gatewayProcess) quiet(ctx context.Context) (state, error) {
	if err := pause(ctx, settle); err != nil {
		return state{}, err
	}
	return g.ask(askState)
}

// stopPatience is how long a gateway may take to say goodbye to its servers.
const stopPatience = 10 * time.Second

// stop ends the process: it stops when nobody can ask it any more.
func (g *gatewayProcess) stop() {
	g.questions.Close()
	kill := time.AfterFunc(stopPatience, func() { g.cmd.Process.Kill() })
	defer kill.Stop()
	g.cmd.Wait()
}
