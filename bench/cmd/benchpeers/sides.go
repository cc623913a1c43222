package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	server, err := s.start(b.dir, "gateway", []string{"demo", "server", "--port", "0", "--send", send})
	if err != nil {
		return err
	}
	said := map[string]string{}
	for _, what := range []string{"l2tp", "username", "password", "far-end"} {
		if said[what], err = server.line(ctx, what+" "); err != nil {
			return err
		}
	}
	port, err := freePort("tcp")
	if err != nil {
		return err
	}
	config, proxy, err := writeConfig(b.dir, port, said)
	if err != nil {
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
	s.sides[ours] = load.Side{Name: ours, Proxy: "socks5://" + proxy, Target: said["far-end"], PID: client.pid()}
	return nil
}

// writeConfig writes what a user would write, for a server that has said how to log in.
func writeConfig(dir string, port int, said map[string]string) (file, proxy string, err error) {
	proxy = fmt.Sprintf("127.0.0.1:%d", port)
	host, service, err := net.SplitHostPort(said["l2tp"])
	if err != nil {
		return "", "", err
	}
	file = filepath.Join(dir, fmt.Sprintf("gateway-%d.toml", port))
	text := fmt.Sprintf(`[[tunnel]]
name = "bench"
protocol = "l2tp"
server = %q
username = %q
password = %q
[tunnel.l2tp]
port = %s
[proxy]
socks5 = %q
http = "off"
`, host, said["username"], said["password"], service, proxy)
	return file, proxy, os.WriteFile(file, []byte(text), 0o600)
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
	far, err := s.start(dir, "wgfar", []string{"-port", fmt.Sprint(port), "-socks", proxy, "-conf", config, "-send", send})
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
	far, err := s.start(dir, "loadgen", []string{"serve", "-listen", "127.0.0.1:0"})
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
