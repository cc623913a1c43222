// Command profilegateway is `gateway run` with profiles, for `benchpeers
// -profile`: the program itself has no port and no flag for them. It takes a
// CPU profile from when the tunnel is up until it is stopped, and then one of
// all that was allocated.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/processors"
)

func main() {
	file := flag.String("c", "", "configuration file")
	readyFD := flag.Int("ready-fd", -1, "descriptor to write \"ready\" to when the network is up")
	dir := flag.String("dir", ".", "directory for gateway-PID.cpu.prof and gateway-PID.allocs.prof")
	flag.Parse()
	if err := run(*file, *readyFD, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "profilegateway:", err)
		os.Exit(1)
	}
}

func run(file string, readyFD int, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := config.Load(config.Sources{File: file})
	if err != nil {
		return err
	}
	g, err := gateway.New(c, gateway.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	go processors.Run(ctx, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	select {
	case <-g.Ready():
	case err := <-ended:
		return err
	}
	base := filepath.Join(dir, fmt.Sprintf("gateway-%d.", os.Getpid()))
	cpu, err := os.Create(base + "cpu.prof")
	if err != nil {
		return err
	}
	defer cpu.Close()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	if err := tell(readyFD); err != nil {
		return err
	}
	err = <-ended
	pprof.StopCPUProfile()
	return errors.Join(err, writeAllocs(base+"allocs.prof"))
}

// tell says that the network is up, as `gateway run` does.
func tell(fd int) error {
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return errors.New("-ready-fd: no such descriptor")
	}
	defer f.Close()
	_, err := fmt.Fprintln(f, "ready")
	return err
}

func writeAllocs(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return pprof.Lookup("allocs").WriteTo(f, 0)
}
