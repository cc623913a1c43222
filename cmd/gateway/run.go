package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/processors"
)

func newRun(environ []string) *cobra.Command {
	var s settings
	var readyFD int
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Connect and serve the proxies until stopped",
		Long: `Connect to the VPN server and serve the proxies until SIGINT or SIGTERM, which end everything properly;
a second signal ends it at once. A tunnel that dies is dialed again, and the proxies stay up meanwhile.

When the network is up for the first time, a line "ready" is written to the descriptor of --ready-fd, and
systemd is told if it started the program with Type=notify.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, from, err := s.load(environ)
			if err != nil {
				return err
			}
			log := newLog(cmd.ErrOrStderr(), c.Log)
			for _, w := range c.Warnings {
				log.Warn("configuration", "problem", w)
			}
			g, err := gateway.New(c, gateway.Options{Log: log})
			if err != nil {
				return err
			}
			log.Info("gateway starts", "version", currentVersion(), "config", from)
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			go announce(ctx, g, readyFD, log)
			go governProcessors(ctx, environ, log)
			err = g.Run(ctx)
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			if err == nil {
				log.Info("gateway stopped")
			}
			return err
		},
	}
	s.register(cmd)
	cmd.Flags().IntVar(&readyFD, "ready-fd", -1, "descriptor to write \"ready\" to, and close, when the network is up")
	return cmd
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends. The
// second one has the system's effect: the program dies at once.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// governProcessors lets the program use as few processors as do its work. A user who has said how many keeps those.
func governProcessors(ctx context.Context, environ []string, log *slog.Logger) {
	for _, e := range environ {
		if number, ok := strings.CutPrefix(e, "GOMAXPROCS="); ok && number != "" {
			return
		}
	}
	processors.Run(ctx, log)
}

// announce tells those who wait that the network is up.
func announce(ctx context.Context, g *gateway.Gateway, fd int, log *slog.Logger) {
	select {
	case <-g.Ready():
	case <-ctx.Done():
		return
	}
	if fd >= 0 {
		file := os.NewFile(uintptr(fd), "ready-fd")
		if file == nil {
			log.Warn("cannot announce readiness", "ready_fd", fd)
		} else {
			_, err := io.WriteString(file, "ready\n")
			file.Close()
			if err != nil {
				log.Warn("cannot announce readiness", "ready_fd", fd, "cause", err)
			}
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("cannot notify systemd", "cause", err)
	}
}

// newLog returns the log that the configuration asks for.
func newLog(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(fmt.Sprintf("config allows the log level %q", c.Level))
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
