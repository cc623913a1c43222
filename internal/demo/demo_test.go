package demo

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemoShowsTheWholeWay(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Once: true, Out: &out, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, step := range []string{"server listens", "proxies listen", "tunnel is up", "through socks5", "through http"} {
		if !strings.Contains(out.String(), step) {
			t.Errorf("no step %q in\n%s", step, out.String())
		}
	}
}

func TestDemoFailsWhenItIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := Run(ctx, Options{Once: true, Out: &out, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("it says that all was right")
	}
}
