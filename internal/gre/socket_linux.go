package gre

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"gateway/internal/udpbatch"
)

const network = "ip4:47" // as package net calls a raw socket for GRE

// Open opens a raw socket. Without CAP_NET_RAW that fails with a *PrivilegeError.
func Open(ctx context.Context, c Config) (*Conn, error) {
	if !isIPv4(c.Server) || !isIPv4(c.Local) {
		return nil, ErrNotIPv4
	}
	// Not even between socket and bind is a packet of others to come in.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return (&filter{raw}).attach(dropFilter()) }}
	address := ""
	if c.Local.IsValid() {
		address = c.Local.Unmap().String()
	}
	socket, err := config.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, openError(err)
	}
	return newConn(socket.(*net.IPConn), c)
}

func openError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		var errno syscall.Errno
		errors.As(err, &errno)
		return &PrivilegeError{errno}
	}
	return fmt.Errorf("gre: %w", err)
}

// isIPv4 takes an invalid address, which is none, for one.
func isIPv4(a netip.Addr) bool { return !a.IsValid() || a.Unmap().Is4() }

// Adopt makes a Conn of an open raw GRE socket: one that was inherited, or came from a broker. file stays the caller's, and may be adopted again
// after the Conn was closed. All Conns of one socket share its peer and its filter, so there should be one at a time. It fails with
// a *DescriptorError if file is no such socket.
func Adopt(file *os.File, c Config) (*Conn, error) {
	if !isIPv4(c.Server) || !isIPv4(c.Local) {
		return nil, ErrNotIPv4
	}
	if err := checkDescriptor(file); err != nil {
		return nil, err
	}
	socket, err := net.FilePacketConn(file)
	if err != nil {
		return nil, &DescriptorError{Reason: "it cannot be taken over", Err: err}
	}
	raw, ok := socket.(*net.IPConn)
	if !ok {
		socket.Close()
		return nil, &DescriptorError{Reason: "it is not raw"}
	}
	return newConn(raw, c)
}

// checkDescriptor makes sure that file is a socket(AF_INET, SOCK_RAW, IPPROTO_GRE).
func checkDescriptor(file *os.File) error {
	control, err := file.SyscallConn()
	if err != nil {
		return &DescriptorError{Reason: "it is not open", Err: err}
	}
	var failed error
	err = control.Control(func(fd uintptr) {
		for _, want := range []struct {
			option, value int
			name          string
		}{
			{unix.SO_DOMAIN, unix.AF_INET, "address family"},
			{unix.SO_TYPE, unix.SOCK_RAW, "type"},
			{unix.SO_PROTOCOL, unix.IPPROTO_GRE, "protocol"},
		} {
			value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, want.option)
			if err != nil {
				failed = &DescriptorError{Reason: "it is no socket", Err: err}
				return
			}
			if value != want.value {
				failed = &DescriptorError{Reason: fmt.Sprintf("its %s is %d instead of %d", want.name, value, want.value)}
				return
			}
		}
	})
	if err != nil {
		return &DescriptorError{Reason: "it is not open", Err: err}
	}
	return failed
}

// newConn readies a socket, which it closes if it fails.
func newConn(socket *net.IPConn, c Config) (*Conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("gre: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = setUp(int(fd), c.Server) })
	if err = errors.Join(err, failed); err != nil {
		socket.Close()
		return nil, err
	}
	packets, err := udpbatch.OverIP(socket, udpbatch.Config{DisableBatch: c.DisableBatch,
		ReadBuffer: c.ReadBuffer, WriteBuffer: c.WriteBuffer, OuterMTU: c.OuterMTU, Log: c.Log})
	if err != nil {
		return nil, err
	}
	return &Conn{packets: packets, filter: &filter{raw}}, nil
}

// setUp connects the socket to its one peer, if it has one, and throws away what has come before.
func setUp(fd int, server netip.Addr) error {
	if err := attach(fd, dropFilter()); err != nil {
		return err
	}
	if server.IsValid() {
		// Afterwards the kernel delivers nothing from other addresses.
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.Unmap().As4()}); err != nil {
			return fmt.Errorf("gre: %v: %w", server, err)
		}
	}
	return drain(fd)
}

// drain empties the receive queue, to which the filter lets nothing come any more.
func drain(fd int) error {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) &&
			!errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.ENETUNREACH):
			return fmt.Errorf("gre: %w", err)
		}
	}
}
