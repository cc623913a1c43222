package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "GATEWAY_TUNNEL_SERVER", "a", "tunnel.1.server", "b")
	f.Add(minimal, "GATEWAY_PROXY_USER_0_NAME", "a", "proxy.user.1.name", "b")
	f.Add("tunnel = [1, {}]\nproxy = []\nlog.level.x = 1", "GATEWAY_LOG_LEVEL", "info", "log.level", "x")
	f.Add("[[tunnel]]\ndns.hosts = 1979-05-27\n", "GATEWAY_TUNNEL_DNS_HOSTS", "a=b,c", "tunnel.dns.hosts", "=,")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file, name, value, key, override string) {
		path := filepath.Join(dir, "c.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(file+name+key, "_file") || strings.Contains(name, "_FILE") {
			return // no reading around in the file system
		}
		c, err := Load(Sources{File: path, Environ: []string{name + "=" + value}, Overrides: map[string]string{key: override}})
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", c, err)
		}
		if err != nil && len(Problems(err)) == 0 {
			t.Fatalf("an error without a Problem: %v", err)
		}
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("loaded, but not valid: %v", err)
			}
		}
	})
}

// Every key that the TOML library finds has a place within the document.
func FuzzPlaces(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("a = [[1, {b = 2}], \"\"\"\"x\"\"\"\"\"]\n[c.\"d.e\"]\n'f' = 1 # x\n[[g]]\n[[g.h]]\ni.j = {}")
	f.Fuzz(func(t *testing.T, doc string) {
		lines := strings.Count(doc, "\n") + 1
		places := locate(doc)
		for path, p := range places {
			if p.line < 1 || p.line > lines || p.column < 1 || p.column > len(doc)+1 {
				t.Fatalf("%q is at %v of %d lines", path, p, lines)
			}
		}
		var tree map[string]any
		if _, err := toml.Decode(doc, &tree); err != nil || strings.ContainsAny(doc, "\\\x00") {
			return // an escaped key may be spelled in ways that only the library knows
		}
		located(t, places, (&grower{places: places}).grow("", tree), 0)
	})
}

func located(t *testing.T, places map[string]place, n *node, depth int) {
	if depth > 0 && n.from.place.line == 0 && depth < maxDepth/4 {
		t.Fatalf("no place for %v", n.value)
	}
	switch v := n.value.(type) {
	case map[string]*node:
		for _, entry := range v {
			located(t, places, entry, depth+1)
		}
	case []*node:
		for _, entry := range v {
			located(t, places, entry, depth+1)
		}
	}
}
