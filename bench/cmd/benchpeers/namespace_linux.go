package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// inNamespace tells the program that it has been started by enterNamespace.
const inNamespace = "BENCHPEERS_NAMESPACE=1"

// errNoRawSocket says why PPTP cannot be measured.
var errNoRawSocket = errors.New("PPTP needs a raw GRE socket: CAP_NET_RAW, or user and network namespaces for everybody")

// canOpenGRE reports whether this process may open raw GRE sockets.
func canOpenGRE() bool {
	c, err := net.ListenPacket("ip4:gre", "127.0.0.1")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// enterNamespace makes a place where raw GRE sockets are permitted: it runs this
// program again as the root of a user and a network namespace of its own, which
// takes no privilege on most systems. It returns false if no such place is
// needed, or if this is it already.
func enterNamespace(ctx context.Context) (entered bool, err error) {
	if os.Getenv("BENCHPEERS_NAMESPACE") != "" {
		return false, raiseLoopback()
	}
	if canOpenGRE() {
		return false, nil
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inNamespace)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience * 4
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("%w: %w", errNoRawSocket, err)
	}
	return true, cmd.Wait()
}

// raiseLoopback brings up the one interface of a new network namespace.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("loopback of the namespace: %w", err)
	}
	return nil
}
