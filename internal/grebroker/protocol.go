package grebroker

import (
	"errors"
	"fmt"
	"net/netip"
)

const (
	protocolVersion = 1
	requestSize     = 5
	maxReply        = 1 + 200 // bytes

	replyGranted = 0
	replyRefused = 1
)

// ErrNotSupported says that this system has no GRE sockets to pass on.
var ErrNotSupported = errors.New("grebroker: raw GRE sockets are supported on Linux only")

var (
	errRequest = errors.New("grebroker: malformed request")
	errReply   = errors.New("malformed reply")
	errAddress = errors.New("grebroker: not the IPv4 address of a host")
)

// A RefusedError is the broker's verdict.
type RefusedError struct {
	Reason string // in its words, bounded and printable
}

func (e *RefusedError) Error() string { return fmt.Sprintf("grebroker: broker refused: %s", e.Reason) }

// Stage is "gre".
func (e *RefusedError) Stage() string { return "gre" }

// Advice is one line for the user.
func (e *RefusedError) Advice() string {
	return "the broker's log tells more; it serves the users that it was started with, and needs CAP_NET_RAW itself"
}

// An UnavailableError says that there is no broker to talk to, or that it does not talk sense.
type UnavailableError struct {
	Path string
	Err  error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("grebroker: %s: %v", e.Path, e.Err) }

func (e *UnavailableError) Unwrap() error { return e.Err }

// Stage is "gre".
func (e *UnavailableError) Stage() string { return "gre" }

// Advice is one line for the user.
func (e *UnavailableError) Advice() string {
	return "check that gateway gre-broker runs and that this user may connect to its socket"
}

// appendRequest appends a request for a socket to a server, which must have an IPv4 address.
func appendRequest(dst []byte, server netip.Addr) []byte {
	address := server.Unmap().As4()
	return append(append(dst, protocolVersion), address[:]...)
}

// parseRequest reads a request.
func parseRequest(b []byte) (netip.Addr, error) {
	if len(b) != requestSize || b[0] != protocolVersion {
		return netip.Addr{}, errRequest
	}
	server := netip.AddrFrom4([4]byte(b[1:]))
	return server, checkServer(server)
}

// checkServer takes addresses that a host can have.
func checkServer(server netip.Addr) error {
	server = server.Unmap()
	if !server.Is4() || server.IsUnspecified() || server.IsMulticast() || server == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return errAddress
	}
	return nil
}

// appendRefusal appends a refusal in words.
func appendRefusal(dst []byte, reason string) []byte {
	dst = append(dst, replyRefused)
	return append(dst, reason[:min(len(reason), maxReply-1)]...)
}

// parseReply reads a reply: nil if it comes with a socket.
func parseReply(b []byte) error {
	switch {
	case len(b) == 1 && b[0] == replyGranted:
		return nil
	case len(b) >= 1 && len(b) <= maxReply && b[0] == replyRefused:
		return &RefusedError{printable(b[1:])}
	}
	return errReply
}

// printable drops all but printable ASCII, which is what the broker writes.
func printable(b []byte) string {
	text := make([]byte, 0, len(b))
	for _, c := range b {
		if c >= ' ' && c <= '~' {
			text = append(text, c)
		}
	}
	return string(text)
}
