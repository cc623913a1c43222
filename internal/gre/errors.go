package gre

import (
	"errors"
	"fmt"
)

// ErrNotSupported says that this system has no GRE sockets that this package can use.
var ErrNotSupported = errors.New("gre: PPTP needs a raw GRE socket, which is supported on Linux only")

// ErrNotIPv4 says that the server has no IPv4 address. PPTP over IPv6 is not in use.
var ErrNotIPv4 = errors.New("gre: PPTP needs an IPv4 address")

// A PrivilegeError says that this process may not open raw sockets.
type PrivilegeError struct {
	Err error // EPERM or EACCES
}

func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("gre: not allowed to open a raw socket for GRE (IP protocol 47): %v", e.Err)
}

func (e *PrivilegeError) Unwrap() error { return e.Err }

// Stage is "gre".
func (e *PrivilegeError) Stage() string { return "gre" }

// Advice names the three ways to a socket.
func (e *PrivilegeError) Advice() string {
	return "give the program CAP_NET_RAW (setcap cap_net_raw+ep, or --cap-add NET_RAW for a container), or hand it an open GRE socket with --gre-fd, " +
		"or run gateway gre-broker with that capability and name its socket"
}

// A DescriptorError says that a descriptor handed in is no GRE socket.
type DescriptorError struct {
	Reason string
	Err    error // the cause below, or nil
}

func (e *DescriptorError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("gre: the descriptor handed in is no GRE socket: %s: %v", e.Reason, e.Err)
	}
	return "gre: the descriptor handed in is no GRE socket: " + e.Reason
}

func (e *DescriptorError) Unwrap() error { return e.Err }

// Stage is "gre".
func (e *DescriptorError) Stage() string { return "gre" }

// Advice is one line for the user.
func (e *DescriptorError) Advice() string {
	return "the descriptor must be a socket(AF_INET, SOCK_RAW, 47)"
}
