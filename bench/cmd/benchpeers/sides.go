package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gateway/bench/load"
)

// The names of the sides.
const (
	ours  = "gateway"
	peer  = "peer"
	limit = "limit"
)

// build builds everything into dir.
func build(ctx context.Context, dir string) error {
	for _, b := range []struct {
		in       string
		packages []string
	}{
		{".", []string{"./cmd/gateway", "./bench/cmd/loadgen", "./bench/cmd/limitproxy", "./bench/cmd/profilegateway"}},
		{"bench/peers", []string{"./cmd/wgfar", "./cmd/wgsocks"}},
	} {
		args := append([]string{"build", "-trimpath", "-o", dir + string(filepath.Separator)}, b.packages...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stderr = b.in, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build in %s (run it from the project's root): %w", b.in, err)
		}
	}
	return nil
}

// A setup is the sides, running, with far ends that send one kind of datagrams.
type setup struct {
	group
	sides map[string]load.Side
}

// startOurs starts the gateway and its far end. send is --send of `gateway demo server`.
func (s *setup) startOurs(ctx context.Context, b *bench, send string) error {
	said, err := s.startServer(ctx, b, send)
	if err != nil {
		return err
	}
	port, err := freePort("tcp")
	if err != nil {
		return err
	}
	proxy := fmt.Sprintf("127.0.0.1:%d", port)
	config := filepath.Join(b.dir, fmt.Sprintf("gateway-%d.toml", port))
	if err := b.way.writeConfig(config, proxy, said); err != nil {
		return err
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	program, args := "gateway", []string{"run", "-c", config, "--ready-fd", "3"}
	if b.profiles != "" {
		program, args = "profilegateway", []string{"-dir", b.profiles, "-c", config, "-ready-fd", "3"}
	}
	client, err := s.start(b.dir, program, args, tell)
	tell.Close()
	if err != nil {
		return err
	}
	ready.SetReadDeadline(time.Now().Add(startPatience))
	if _, err := io.ReadFull(ready, make([]byte, len("ready"))); err != nil {
		return client.failed("it did not become ready")
	}
	if log, err := os.ReadFile(client.log); err != nil || !bytes.Contains(log, []byte(b.way.proof)) {
		return client.failed("its log lacks " + b.way.proof)
	}
	s.sides[ours] = load.Side{Name: ours, Proxy: "socks5://" + proxy, Target: said["far-end"], PID: client.pid(), Text: b.way.text}
	return nil
}

// startServer starts the gateway's far end and returns what it says of itself.
func (s *setup) startServer(ctx context.Context, b *bench, send string) (said map[string]string, err error) {
	args := []string{"demo", "server", "--listen", b.way.host(), "--send", send}
	for _, port := range []string{"--port", "--ike-port", "--nat-port", "--pptp-port"} {
		args = append(args, port, "0")
	}
	if b.way.text {
		args = append(args, "--text")
	}
	if b.stock {
		args = append(args, "--socket-buffer", strconv.Itoa(stockBuffer))
	}
	server, err := s.startFarEnd(b.dir, "gateway", args)
	if err != nil {
		return nil, err
	}
	return server.said(ctx, "far-end")
}

// writeConfig writes what a user would write, for a server that has said how to log in.
func (w way) writeConfig(file, proxy string, said map[string]string) error {
	port := func(what string) string {
		_, port, _ := net.SplitHostPort(said[what])
		return port
	}
	settings := map[string][]string{
		"l2tp":       {"l2tp.port = " + port("l2tp")},
		"pptp":       {"pptp.port = " + port("pptp")},
		"l2tp-ipsec": {"ipsec.port = " + port("ike"), "ipsec.nat_port = " + port("esp"), fmt.Sprintf("ipsec.psk = %q", said["psk"])},
	}[w.protocol]
	text := fmt.Sprintf("[[tunnel]]\nname = \"bench\"\nprotocol = %q\nserver = %q\nusername = %q\npassword = %q\n%s\n[proxy]\nsocks5 = %q\nhttp = \"off\"\n",
		w.protocol, w.host(), said["username"], said["password"], strings.Join(append(settings, w.settings...), "\n"), proxy)
	return os.WriteFile(file, []byte(text), 0o600)
}

// startPeer starts the WireGuard pair.
func (s *setup) startPeer(ctx context.Context, dir, send string) error {
	port, err := freePort("udp")
	if err != nil {
		return err
	}
	proxyPort, err := freePort("tcp")
	if err != nil {
		return err
	}
	proxy := fmt.Sprintf("127.0.0.1:%d", proxyPort)
	config := filepath.Join(dir, fmt.Sprintf("peer-%d.conf", port))
	far, err := s.startFarEnd(dir, "wgfar", []string{"-port", fmt.Sprint(port), "-socks", proxy, "-conf", config, "-send", send})
	if err != nil {
		return err
	}
	if _, err := far.line(ctx, "wireguard "); err != nil {
		return err
	}
	client, err := s.start(dir, "wgsocks", []string{"-c", config})
	if err != nil {
		return err
	}
	if err := waitListening(ctx, proxy); err != nil {
		return client.failed(err.Error())
	}
	s.sides[peer] = load.Side{Name: peer, Proxy: "socks5://" + proxy, Target: "10.99.0.1:7001", PID: client.pid()}
	return nil
}

// startLimit starts the proxy with no VPN.
func (s *setup) startLimit(ctx context.Context, dir string) error {
	far, err := s.startFarEnd(dir, "loadgen", []string{"serve", "-listen", "127.0.0.1:0"})
	if err != nil {
		return err
	}
	target, err := far.line(ctx, "tcp ")
	if err != nil {
		return err
	}
	proxy, err := s.start(dir, "limitproxy", []string{"-listen", "127.0.0.1:0"})
	if err != nil {
		return err
	}
	address, err := proxy.line(ctx, "socks5 ")
	if err != nil {
		return err
	}
	s.sides[limit] = load.Side{Name: limit, Proxy: "socks5://" + address, Target: target, PID: proxy.pid()}
	return nil
}
