package vpnserver

import (
	"errors"
	"net/netip"
	"sync"
)

// A pool hands out clients' addresses: each client gets a number, which gives
// its IPv4 address and its IPv6 prefix.
type pool struct {
	prefix4 netip.Prefix // the server's end has host number 1, clients have 10 and up
	prefix6 netip.Prefix // a /48; client n has subnet n, a /64

	mu   sync.Mutex
	used map[uint16]bool
}

const (
	serverHost  = 1
	firstClient = 10
	lastClient  = 60000
)

var errPoolEmpty = errors.New("no address is left")

func (p *pool) server() netip.Addr { return host4(p.prefix4, serverHost) }

// take returns the lowest free number.
func (p *pool) take() (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == nil {
		p.used = make(map[uint16]bool)
	}
	for n := uint16(firstClient); n < lastClient && p.prefix4.Contains(host4(p.prefix4, n)); n++ {
		if !p.used[n] {
			p.used[n] = true
			return n, nil
		}
	}
	return 0, errPoolEmpty
}

func (p *pool) give(n uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, n)
}

func (p *pool) addr4(n uint16) netip.Addr { return host4(p.prefix4, n) }

// subnet6 returns client n's /64.
func (p *pool) subnet6(n uint16) netip.Prefix {
	a := p.prefix6.Masked().Addr().As16()
	a[6], a[7] = byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// host4 returns the address with host number n in a prefix of at most 16 bits
// for hosts.
func host4(p netip.Prefix, n uint16) netip.Addr {
	a := p.Masked().Addr().As4()
	low := uint16(a[2])<<8 | uint16(a[3])
	low += n
	a[2], a[3] = byte(low>>8), byte(low)
	return netip.AddrFrom4(a)
}
