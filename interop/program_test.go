//go:build interop

package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A program is a running gateway.
type program struct {
	t       *testing.T
	cmd     *exec.Cmd
	ready   *os.File // --ready-fd's other end
	mu      sync.Mutex
	lines   []map[string]any // of its log
	news    chan struct{}    // a line has come; capacity 1
	exited  chan struct{}
	proxies map[string]string // addresses
}

// unprivileged runs a command as nobody, with no capability and no way to get one.
func unprivileged(command ...string) []string {
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=-all", "--bounding-set=-all", "--"}, command...)
}

// withNetRaw runs a command as nobody with CAP_NET_RAW alone, as PPTP needs it.
func withNetRaw(command ...string) []string {
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw", "--"}, command...)
}

// settings are keys and values of the tunnel, e.g. "ppp.auth".
type settings map[string]any

// run starts the program with one tunnel to a server of the lab.
func run(t *testing.T, server string, who login, tunnel settings) *program {
	t.Helper()
	return runAs(t, unprivileged, server, who, tunnel)
}

// runAs is run as another user. files are passed on as descriptors 4 and up.
func runAs(t *testing.T, as func(...string) []string, server string, who login, tunnel settings, files ...*os.File) *program {
	t.Helper()
	config := fmt.Sprintf("[log]\nformat = \"json\"\nlevel = \"debug\"\n[proxy]\nsocks5 = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n"+
		"[[tunnel]]\nname = \"lab\"\nserver = %q\nusername = %s\npassword = %s\n", server, quote(who.name), quote(who.password))
	if _, ok := tunnel["protocol"]; !ok {
		config += "protocol = \"l2tp\"\n"
	}
	for key, value := range tunnel {
		config += fmt.Sprintf("%s = %s\n", key, quote(value)) // dotted keys stay below the tunnel
	}
	return runConfig(t, as, config, files...)
}

// quote writes a TOML value. TOML's basic strings and arrays are JSON's.
func quote(value any) string {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">").Replace(string(b))
}

func runConfig(t *testing.T, as func(...string) []string, config string, files ...*os.File) *program {
	t.Helper()
	dir, err := os.MkdirTemp("", "gateway-config")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config.toml")
	if err := errors.Join(os.WriteFile(file, []byte(config), 0o600), os.Chown(file, 65534, 65534), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	command := as(filepath.Join(os.Getenv(insideEnv), "gateway"), "run", "-c", file, "--ready-fd", "3")
	p := &program{t: t, cmd: exec.Command(command[0], command[1:]...), ready: r,
		news: make(chan struct{}, 1), exited: make(chan struct{}), proxies: make(map[string]string)}
	p.cmd.ExtraFiles = append([]*os.File{w}, files...)
	log, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go p.follow(log)
	t.Cleanup(p.stop)
	return p
}

// follow reads the log until the program has ended.
func (p *program) follow(log io.Reader) {
	scanner := bufio.NewScanner(log)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := map[string]any{}
		if json.Unmarshal(scanner.Bytes(), &line) != nil {
			line["msg"] = scanner.Text()
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		if line["msg"] == "listening" {
			p.proxies[line["proxy"].(string)] = line["address"].(string)
		}
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
	p.cmd.Wait()
	close(p.exited)
}

// waitReady waits for the network.
func (p *program) waitReady() *program {
	p.t.Helper()
	p.ready.SetReadDeadline(time.Now().Add(90 * time.Second))
	line, err := bufio.NewReader(p.ready).ReadString('\n')
	if err != nil {
		p.t.Fatalf("the network did not come up: %v\n%s", err, p.log())
	}
	if line != "ready\n" {
		p.t.Fatalf("--ready-fd says %q", line)
	}
	return p
}

// waitExit waits for the end of the program and returns its exit code.
func (p *program) waitExit(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("still running after %v\n%s", limit, p.log())
		return -1
	}
}

// waitLog waits for a log line that holds all of the given fields; a string
// value must be contained in the line's.
func (p *program) waitLog(limit time.Duration, want map[string]string) map[string]any {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		p.mu.Lock()
		for _, line := range p.lines {
			if matches(line, want) {
				p.mu.Unlock()
				return line
			}
		}
		p.mu.Unlock()
		select {
		case <-p.news:
		case <-timeout:
			p.t.Fatalf("no log line with %v after %v\n%s", want, limit, p.log())
		}
	}
}

func matches(line map[string]any, want map[string]string) bool {
	for key, part := range want {
		if !strings.Contains(fmt.Sprint(line[key]), part) {
			return false
		}
	}
	return true
}

// forget drops the log lines so far.
func (p *program) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = nil
}

func (p *program) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, line := range p.lines {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// stop ends the program as a service manager does. It must end well.
func (p *program) stop() {
	select {
	case <-p.exited:
		return
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("exit code %d after SIGTERM\n%s", code, p.log())
		}
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		p.t.Errorf("still running 20 s after SIGTERM\n%s", p.log())
	}
	if p.t.Failed() {
		p.t.Logf("log:\n%s", p.log())
	}
}

func (p *program) proxy(kind string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proxies[kind]
}

// client returns an HTTP client that uses one of the program's proxies.
func (p *program) client(kind string) *http.Client {
	scheme := map[string]string{"socks5": "socks5h", "http": "http"}[kind]
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: scheme, Host: p.proxy(kind)})}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Minute}
}

// get fetches a page through a proxy.
func (p *program) get(kind, url string) string {
	p.t.Helper()
	response, err := p.client(kind).Get(url)
	if err != nil {
		p.t.Fatalf("%s through %s: %v\n%s", url, kind, err, p.log())
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || response.StatusCode != http.StatusOK {
		p.t.Fatalf("%s through %s: %s, %v\n%s", url, kind, response.Status, err, p.log())
	}
	return string(body)
}
