package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway/internal/config"
)

func TestParseCounts(t *testing.T) {
	for text, want := range map[string][]int{"": nil, "1": {1}, "1,10,100": {1, 10, 100}} {
		if got, err := parseCounts(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0", "-1", "1,x", "1.5"} {
		if got, err := parseCounts(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestConfigurationOfManyTunnels(t *testing.T) {
	f, err := startFarEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	file := filepath.Join(t.TempDir(), "gateway.toml")
	if err := os.WriteFile(file, []byte(f.config(3, "127.0.0.1:9")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Sources{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tunnels) != 3 || c.Tunnels[2].L2TP.Port != f.server.Addr().Port() || c.Proxy.SOCKS5 != "127.0.0.1:9" {
		t.Errorf("%+v", c)
	}
}

func TestEachQuestionIsAnsweredOnce(t *testing.T) {
	var answers bytes.Buffer
	if err := answer(strings.NewReader(string([]byte{askState, askCollect, askState})), &answers); err != nil {
		t.Fatal(err)
	}
	decoder, n := json.NewDecoder(&answers), 0
	for ; decoder.More(); n++ {
		var s state
		if err := decoder.Decode(&s); err != nil || s.Goroutines < 1 || s.CPU <= 0 {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if n != 3 {
		t.Errorf("%d answers", n)
	}
}
