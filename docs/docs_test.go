// Package docs holds the documentation, and the tests that keep it true.
package docs

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

// protocol-coverage.md names files and tests; they must exist.
func TestProtocolCoverageIsTrue(t *testing.T) {
	text, err := os.ReadFile("protocol-coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	files := regexp.MustCompile("`([a-z0-9_/]+\\.go)`")
	names := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)`")
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		for _, match := range files.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.Join(root, match[1])); err != nil {
				t.Errorf("protocol-coverage.md:%d: there is no %s", i+1, match[1])
			}
		}
		for _, match := range names.FindAllStringSubmatch(line, -1) {
			rows++
			if !tests[match[1]] {
				t.Errorf("protocol-coverage.md:%d: there is no %s", i+1, match[1])
			}
		}
	}
	if rows == 0 {
		t.Error("protocol-coverage.md names no test")
	}
}

// testNames returns the names of all tests of the project, those of every build tag.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declaration := regexp.MustCompile(`^func ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)\(`)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		scanner := bufio.NewScanner(file)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			if match := declaration.FindStringSubmatch(scanner.Text()); match != nil {
				names[match[1]] = true
			}
		}
		return scanner.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The arrows of architecture.md: a library room knows no other room, the
// rooms of internal/ do not know the command, and a library that should stand
// behind one room does so.
func TestArrowsBetweenRooms(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}:{{join .Imports " "}}`, root+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	// What each room may import of the project; longest prefix first.
	allowed := []struct {
		room  string
		rooms []string
	}{
		{"gateway/ppp/mppe", []string{"gateway/ppp/mppc"}},
		{"gateway/ppp/", nil},
		{"gateway/ppp", []string{"gateway/ppp/"}},
		{"gateway/tunnel/", []string{"gateway/tunnel"}},
		{"gateway/tunnel", nil},
		{"gateway/stack", nil},
		{"gateway/proxy", nil},
		{"gateway/internal/config", nil},
		{"gateway/internal/udpbatch", nil},
		{"gateway/internal/farend", nil},
		{"gateway/internal/", []string{"gateway/internal/", "gateway/ppp", "gateway/tunnel", "gateway/stack", "gateway/proxy"}},
		{"gateway/", []string{"gateway/"}},
	}
	// Libraries that only one room may know, and what stands beside it in a benchmark.
	const bench = "gateway/bench/"
	owner := map[string]string{
		"software.sslmate.com/src/go-pkcs12": "gateway/internal/config",
		"gvisor.dev/gvisor":                  "gateway/stack",
		"github.com/BurntSushi/toml":         "gateway/internal/config",
		"github.com/armon/go-socks5":         "gateway/proxy",
		"github.com/spf13/cobra":             "gateway/cmd/gateway",
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		for _, imported := range strings.Fields(imports) {
			for library, room := range owner {
				if strings.HasPrefix(imported, library) && pkg != room && !strings.HasPrefix(pkg, bench) {
					t.Errorf("%s imports %s, which only %s may", pkg, imported, room)
				}
			}
			if !strings.HasPrefix(imported, "gateway/") {
				continue
			}
			for _, rule := range allowed {
				if !strings.HasPrefix(pkg, rule.room) {
					continue
				}
				if !hasPrefixOf(imported, rule.rooms) {
					t.Errorf("%s imports %s: architecture.md has no such arrow", pkg, imported)
				}
				break
			}
		}
	}
}

func hasPrefixOf(s string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}
