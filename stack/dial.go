package stack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// attemptDelay is how long a connection attempt may go unanswered before the next address is tried beside it (RFC 8305 section 8).
const attemptDelay = 250 * time.Millisecond

// DialContext connects like net.Dialer does. network is tcp or udp, with 4 or 6 appended for one family. The host of address may be a
// name, which the tunnel's name servers resolve; TCP tries its addresses by RFC 8305 and the first to answer wins. Errors are
// *net.OpError around what package net would give (syscall.ECONNREFUSED, context errors, *net.DNSError).
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var family string
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		family = "ip" + network[3:]
	default:
		return fail(net.UnknownNetworkError(network))
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return fail(&net.AddrError{Err: "invalid port", Addr: address})
	}
	if s.isClosed() {
		return fail(s.err)
	}
	addresses, err := s.lookupForDial(ctx, family, host)
	if err != nil {
		return fail(err)
	}
	if a := addresses[0]; a.IsLoopback() || a.IsUnspecified() {
		// RFC 1122 section 3.2.1.3: such addresses must not appear outside a host.
		return nil, s.opError("connect", network[:3], nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, uint16(port))), syscall.ENETUNREACH)
	}
	if network[:3] == "udp" {
		c, err := s.dialUDP(netip.AddrPortFrom(addresses[0], uint16(port)))
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := s.dialFirst(ctx, addresses, uint16(port))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// lookupForDial is LookupNetIP without the family that we have no address in. While an IPv6 address may still come, what has no other
// address waits for it.
func (s *Stack) lookupForDial(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(host); err == nil {
		if literal.Is6() && !literal.IsLinkLocalUnicast() && !s.hasIPv6.Load() {
			s.slaac.await(ctx)
		}
		return s.LookupNetIP(ctx, family, host)
	}
	switch {
	case family == "ip" && !s.hasIPv4.Load():
		family = "ip6"
	case family == "ip" && !s.hasIPv6.Load():
		addresses, err := s.LookupNetIP(ctx, "ip4", host)
		var missing *net.DNSError
		if !errors.As(err, &missing) || !missing.IsNotFound || !s.slaac.await(ctx) || !s.hasIPv6.Load() {
			return addresses, err
		}
		family = "ip6"
	}
	return s.LookupNetIP(ctx, family, host)
}

// interleave orders addresses so that the families alternate, the first address's first (RFC 8305 section 4).
func interleave(addresses []netip.Addr) []netip.Addr {
	var same, other []netip.Addr
	for _, a := range addresses {
		if a.Is6() == addresses[0].Is6() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	ordered := make([]netip.Addr, 0, len(addresses))
	for len(same) > 0 || len(other) > 0 {
		if len(same) > 0 {
			ordered, same = append(ordered, same[0]), same[1:]
		}
		if len(other) > 0 {
			ordered, other = append(ordered, other[0]), other[1:]
		}
	}
	return ordered
}

// dialFirst tries the addresses one after the other, the families in turn, the next as soon as the last has failed or attemptDelay has passed, and returns
// the first connection. If none comes, the error of the first address.
func (s *Stack) dialFirst(ctx context.Context, addresses []netip.Addr, port uint16) (*Conn, error) {
	if len(addresses) == 1 {
		return s.dialTCP(ctx, netip.AddrPortFrom(addresses[0], port))
	}
	addresses = interleave(addresses)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type attempt struct {
		conn  *Conn
		err   error
		index int
	}
	results := make(chan attempt) // unbuffered: whoever finds nobody listening closes its connection
	start := func(i int) bool {
		return s.spawn(func() {
			c, err := s.dialTCP(ctx, netip.AddrPortFrom(addresses[i], port))
			select {
			case results <- attempt{c, err, i}:
			case <-ctx.Done():
				if c != nil {
					_ = c.Close()
				}
			}
		})
	}
	failures := make([]error, len(addresses))
	started, failed := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failed < len(addresses) {
		select {
		case <-timer.C:
			if !start(started) {
				return nil, s.opError("connect", "tcp", nil, nil, s.err)
			}
			if started++; started < len(addresses) {
				timer.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failures[r.index] = r.err
			failed++
			if started < len(addresses) {
				timer.Reset(0)
			}
		case <-ctx.Done():
			return nil, s.opError("connect", "tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(addresses[0], port)), ctx.Err())
		case <-s.done:
			return nil, s.opError("connect", "tcp", nil, nil, s.err)
		}
	}
	return nil, mostTelling(failures)
}

// mostTelling picks the first error that says more than that a family is not routed here.
func mostTelling(failures []error) error {
	for _, err := range failures {
		if !errors.Is(err, syscall.ENETUNREACH) {
			return err
		}
	}
	return failures[0]
}

// dialTCP connects to one address.
func (s *Stack) dialTCP(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, s.opError("connect", "tcp", nil, net.TCPAddrFromAddrPort(to), err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	queue := new(waiter.Queue)
	ep, terr := s.net.NewEndpoint(tcp.ProtocolNumber, protocolOf(to.Addr()), queue)
	if terr != nil {
		return fail(errnoOf(terr))
	}
	s.setKeepalive(ep)
	c := s.newUnconnected(ep, queue)
	terr = ep.Connect(fullAddressOf(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-c.writable: // or failed
			terr = ep.LastError()
		case <-ctx.Done():
			_ = c.close()
			return fail(ctx.Err())
		case <-s.done:
			_ = c.close()
			return fail(s.err)
		}
	}
	if terr != nil {
		_ = c.close()
		return fail(errnoOf(terr))
	}
	if s.isClosed() {
		ep.Abort()
		return fail(s.err)
	}
	c.learnAddresses()
	return c, nil
}
