package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startPatience = 10 * time.Second
	stopPatience  = 5 * time.Second
)

// A process is a program that was started here, and is ended here.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines chan string // of its standard output
	ended chan struct{}
	log   string // file with its standard error
}

// start starts a program of dir, with some variables more; extra are its descriptors from 3 on.
func start(dir, program string, args, variables []string, extra ...*os.File) (*process, error) {
	log, err := os.CreateTemp(dir, program+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(dir, program), args...)
	cmd.Dir, cmd.Stderr, cmd.ExtraFiles = dir, log, extra
	cmd.Env = append(environment(), variables...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: program, cmd: cmd, lines: make(chan string, 64), ended: make(chan struct{}), log: log.Name()}
	go p.read(out)
	return p, nil
}

// environment is this process's without what would configure the gateway.
func environment() (vars []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GATEWAY_") {
			vars = append(vars, v)
		}
	}
	return vars
}

// read takes the output to its end and then the exit status.
func (p *process) read(out io.Reader) {
	defer close(p.ended)
	defer p.cmd.Wait()
	defer close(p.lines)
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		select {
		case p.lines <- scanner.Text():
		default: // nobody wants it
		}
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// line waits for a line of output that begins with prefix, and returns the rest.
func (p *process) line(ctx context.Context, prefix string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", p.failed("it ended")
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest), nil
			}
		case <-ctx.Done():
			return "", p.failed("it has not said " + prefix)
		}
	}
}

// said takes the lines of output up to the one that begins with the word last;
// what follows each one's first word, by that word.
func (p *process) said(ctx context.Context, last string) (map[string]string, error) {
	said := map[string]string{}
	for said[last] == "" {
		line, err := p.line(ctx, "")
		if err != nil {
			return nil, err
		}
		word, rest, _ := strings.Cut(line, " ")
		said[word] = rest
	}
	return said, nil
}

// failed is an error with the end of the program's log.
func (p *process) failed(what string) error {
	const tail = 2000
	log, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %s\n%s", p.name, what, log[max(0, len(log)-tail):])
}

// stop ends the process: SIGTERM, and after a while SIGKILL.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopPatience):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// A group is processes that are ended together, the last one first.
type group []*process

func (g *group) start(dir, program string, args []string, extra ...*os.File) (*process, error) {
	return g.add(start(dir, program, args, nil, extra...))
}

// startFarEnd starts what the load goes to. It gets one processor of the runtime, whichever side it is of: it needs no
// more, works at less cost, and so leaves more of the machine to what is measured.
func (g *group) startFarEnd(dir, program string, args []string) (*process, error) {
	return g.add(start(dir, program, args, []string{"GOMAXPROCS=1"}))
}

func (g *group) add(p *process, err error) (*process, error) {
	if err == nil {
		*g = append(*g, p)
	}
	return p, err
}

func (g *group) stop() {
	for i := len(*g) - 1; i >= 0; i-- {
		(*g)[i].stop()
	}
	*g = nil
}

// freePort finds a port of 127.0.0.1 that nobody uses now.
func freePort(network string) (port int, err error) {
	if network == "udp" {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// waitListening waits until a TCP address takes connections.
func waitListening(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
