package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// ErrForbidden is for Dialers and PacketListeners whose rules do not allow a
// target: SOCKS reply 2, HTTP status 403.
var ErrForbidden = errors.New("proxy: target not allowed by the rules")

// A TunnelDownError is an error of a Dialer, Resolver or PacketListener whose
// network is away for the time being: SOCKS reply 3, HTTP status 503. It is
// found anywhere in the error's tree.
type TunnelDownError interface {
	error
	TunnelDown() bool          // false: the error says nothing of the sort
	RetryAfter() time.Duration // when a new try makes sense; 0 if unknown
}

// A verdict says why a target was not reached, in the words of both protocols.
type verdict struct {
	reply      reply         // RFC 1928 section 6
	status     int           // RFC 9110 section 15
	reason     string        // a few words for the user
	retryAfter time.Duration // for status 503
}

// judge finds the verdict on an error of the Dialer. It goes by types only,
// never by an error's text.
func judge(err error) verdict {
	var down TunnelDownError
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &down) && down.TunnelDown():
		return verdict{replyNetworkUnreachable, http.StatusServiceUnavailable, "the tunnel is down", down.RetryAfter()}
	case errors.Is(err, ErrForbidden):
		return verdict{reply: replyNotAllowed, status: http.StatusForbidden, reason: "not allowed by the rules"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict{reply: replyConnectionRefused, status: http.StatusBadGateway, reason: "connection refused"}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return verdict{reply: replyNetworkUnreachable, status: http.StatusBadGateway, reason: "network unreachable"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return verdict{reply: replyHostUnreachable, status: http.StatusBadGateway, reason: "host unreachable"}
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return verdict{reply: replyAddressNotSupported, status: http.StatusBadGateway, reason: "address family not supported"}
	case errors.As(err, &dns) && dns.IsNotFound:
		return verdict{reply: replyHostUnreachable, status: http.StatusBadGateway, reason: "no such host"}
	case errors.As(err, &dns) && dns.IsTimeout:
		return verdict{reply: replyHostUnreachable, status: http.StatusGatewayTimeout, reason: "the name servers did not answer in time"}
	case errors.As(err, &dns):
		return verdict{reply: replyHostUnreachable, status: http.StatusBadGateway, reason: "the name could not be resolved"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &timeout) && timeout.Timeout():
		// RFC 1928 has no "timed out"; "TTL expired" is what other servers
		// send for it, and it lets the client tell it from "unreachable".
		return verdict{reply: replyTTLExpired, status: http.StatusGatewayTimeout, reason: "no answer in time"}
	}
	return verdict{reply: replyGeneralFailure, status: http.StatusBadGateway, reason: "could not connect"}
}
