package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Enclose runs the test that calls it once more, in a process that refuses, since
// a refusal is for good. It returns true there; otherwise the test has been run and judged.
func Enclose(t *testing.T, refusals []Refusal) (inside bool) {
	t.Helper()
	const sign = "SANDBOX_TEST"
	if os.Getenv(sign) == t.Name() {
		err := Enter(refusals...)
		if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+exactly(t.Name()), "-test.v")
	command.Env = append(os.Environ(), sign+"="+t.Name())
	out, err := command.CombinedOutput()
	switch text := string(out); {
	case err != nil:
		t.Errorf("%v\n%s", err, text)
	case strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skip(text)
	case !strings.Contains(text, "--- PASS: "+t.Name()+" "):
		t.Errorf("the test did not run:\n%s", text)
	}
	return false
}

// exactly is the pattern of -test.run for one test or subtest.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}
