package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/processors"
)

// What the gateway can be asked, one byte each.
const (
	askState   = 's' // how it is
	askCollect = 'c' // to give back what memory it can, and how it is then
)

// A state is what the gateway says of itself, and what /proc adds.
type state struct {
	Goroutines int
	Threads    int
	CPU        time.Duration // user and system, since its start

	rss int64 // KiB
}

func (s state) mib() float64 { return float64(s.rss) / 1024 }

// beGateway runs the gateway, says "ready" and then its state for each byte of its input.
func beGateway(ctx context.Context, file string) error {
	c, err := config.Load(config.Sources{File: file})
	if err != nil {
		return err
	}
	g, err := gateway.New(c, gateway.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	go processors.Run(ctx, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	select {
	case <-g.Ready():
	case err := <-ended:
		cancel()
		return err
	}
	fmt.Println("ready")
	err = answer(os.Stdin, os.Stdout)
	cancel()
	<-ended
	return err
}

// answer answers until the end of the questions.
func answer(questions io.Reader, answers io.Writer) error {
	reader, encoder := bufio.NewReader(questions), json.NewEncoder(answers)
	for {
		question, err := reader.ReadByte()
		if err != nil {
			return nil // whoever asked is gone
		}
		if question == askCollect {
			debug.FreeOSMemory()
		}
		s, err := ownState()
		if err != nil {
			return err
		}
		if err := encoder.Encode(s); err != nil {
			return err
		}
	}
}

func ownState() (state, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return state{}, err
	}
	return state{
		Goroutines: runtime.NumGoroutine(),
		Threads:    pprof.Lookup("threadcreate").Count(),
		CPU:        time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}, nil
}
