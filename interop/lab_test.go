//go:build interop

package interop

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests run inside the lab's network namespace, where they and the program
// under test share the loopback interface. So the test binary, which starts
// outside, brings up the lab, builds the program, and runs itself again inside.
const insideEnv = "INTEROP_INSIDE" // the directory with the built program

// namespace is where the lab's clients are.
var namespace = "/run/netns/" + cmp.Or(os.Getenv("VPNLAB_NETNS"), "vpnlab-client")

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

func outside() (code int, err error) {
	if os.Getuid() != 0 {
		return 0, fmt.Errorf("the lab needs root (the program under test does not)")
	}
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for the unprivileged program
		return 0, err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "gateway"), "gateway/cmd/gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building the program: %w\n%s", err, out)
	}

	// A lab that is up already is used and left up.
	if exec.Command("lab/on-server", "true").Run() != nil {
		if out, err := exec.Command("lab/up", "--timeout", "120").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("starting the lab: %w\n%s", err, out)
		}
		defer exec.Command("lab/down").Run()
	}

	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	again := exec.Command("nsenter", append([]string{"--net=" + namespace, self}, os.Args[1:]...)...)
	again.Env = append(os.Environ(), insideEnv+"="+dir)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	if err := again.Run(); err != nil && again.ProcessState == nil {
		return 0, err
	}
	return again.ProcessState.ExitCode(), nil
}

// onServer runs a script as root on the lab's server.
func onServer(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute) // cleanups call it, too
	defer cancel()
	cmd := exec.CommandContext(ctx, "lab/on-server", script)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("on the server: %s: %v\n%s", script, err, out)
	}
	return string(out)
}

// startOnServer starts a daemon on the lab's server.
func startOnServer(t *testing.T, daemon, log string) {
	t.Helper()
	onServer(t, fmt.Sprintf("setsid %s </dev/null >>%s 2>&1 & sleep 0.2; exit 0", daemon, log))
}

// A login of the lab.
type login struct{ name, password string }

var alice = login{"alice", "alice-secret"}

// logins returns all users of the lab.
func logins(t *testing.T) []login {
	t.Helper()
	table, err := os.ReadFile("lab/users.tab")
	if err != nil {
		t.Fatal(err)
	}
	var all []login
	for line := range bytes.Lines(table) {
		name, password, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), "\t")
		if ok && !strings.HasPrefix(name, "#") {
			all = append(all, login{name, password})
		}
	}
	if len(all) < 4 {
		t.Fatalf("only %d users in users.tab", len(all))
	}
	return all
}

// server returns the address of the lab's server with a number.
func server(n int) string { return fmt.Sprintf("10.77.0.%d", n) }
