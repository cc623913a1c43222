package stack

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	maxAutoAddresses = 8 // addresses by Router Advertisement
	maxAutoServers   = 4 // name servers by Router Advertisement

	maxSolicitations     = 3               // MAX_RTR_SOLICITATIONS of RFC 4861 section 10
	solicitationInterval = 4 * time.Second // RTR_SOLICITATION_INTERVAL

	routerSolicitation, routerAdvertisement = 133, 134 // ICMPv6 types
)

var linkLocalPrefix = netip.MustParsePrefix("fe80::/64")

// slaac is stateless address autoconfiguration (RFC 4862) for a PPP link: the interface identifier comes from IPV6CP, the prefixes
// from Router Advertisements. gVisor has its own, but would only use interface identifiers of its own making.
type slaac struct {
	mu      sync.Mutex
	iid     [8]byte                    // zero until IPV6CP has opened
	expiry  map[netip.Addr]*time.Timer // addresses of ours, until they become invalid
	servers []netip.Addr               // RFC 8106

	solicitation  *time.Timer   // for the next Router Solicitation, nil when there is to be none
	solicitations int           // sent
	settled       chan struct{} // closed when no more is sent; nil before the first
}

// solicit sends Router Solicitations until an advertisement comes, maxSolicitations at most (RFC 4861 section 6.3.7).
func (a *slaac) solicit(s *Stack, iid [8]byte) {
	a.mu.Lock()
	a.iid = iid
	a.solicitations = 0
	if a.solicitation != nil {
		a.solicitation.Stop()
	}
	if a.settled == nil || a.solicitation == nil {
		a.settled = make(chan struct{})
	}
	a.solicitation = time.AfterFunc(solicitationInterval, func() { a.solicitAgain(s) })
	a.mu.Unlock()
	a.solicitAgain(s)
}

func (a *slaac) solicitAgain(s *Stack) {
	a.mu.Lock()
	due := a.solicitation != nil && a.solicitations < maxSolicitations
	if due {
		a.solicitations++
		a.solicitation.Reset(solicitationInterval)
	} else {
		a.stopSolicitingLocked()
	}
	packet := appendSolicitation(nil, joinAddress(linkLocalPrefix, a.iid))
	a.mu.Unlock()
	if due {
		s.link.writeWhole(packet) // not under the lock: the answer may come on this call stack
	}
}

// appendSolicitation appends a Router Solicitation (RFC 4861 section 4.1) as an IPv6 packet to all routers. A PPP link has no
// link-layer address to put in.
func appendSolicitation(b []byte, source netip.Addr) []byte {
	start := len(b)
	const length = 8
	b = append(b, 0x60, 0, 0, 0, 0, length, protocolICMPv6, header.NDPHopLimit)
	b = append(b, source.AsSlice()...)
	b = append(b, header.IPv6AllRoutersLinkLocalMulticastAddress.AsSlice()...)
	b = append(b, routerSolicitation, 0, 0, 0, 0, 0, 0, 0)
	sum := ^icmpv6Sum(b[start:])
	b[start+ipv6HeaderLen+2], b[start+ipv6HeaderLen+3] = byte(sum>>8), byte(sum)
	return b
}

// clear forgets all addresses and servers.
func (a *slaac) clear(s *Stack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr, timer := range a.expiry {
		timer.Stop()
		s.removeAddress(addr)
	}
	a.expiry = nil
	a.servers = nil
	a.stopSolicitingLocked()
	s.resolver.setAutoServers(nil)
}

func (a *slaac) stopSolicitingLocked() {
	if a.solicitation != nil {
		a.solicitation.Stop()
		a.solicitation = nil
		close(a.settled)
	}
}

// await waits until an address may have come: as long as a router is given to answer one solicitation. It reports whether it waited.
func (a *slaac) await(ctx context.Context) bool {
	a.mu.Lock()
	waiting, settled := a.solicitation != nil, a.settled
	a.mu.Unlock()
	if !waiting {
		return false
	}
	timeout := time.NewTimer(solicitationInterval)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-timeout.C:
	case <-ctx.Done():
	}
	return true
}

// joinAddress makes an address of a /64 prefix and an interface identifier.
func joinAddress(prefix netip.Prefix, iid [8]byte) netip.Addr {
	b := prefix.Addr().As16()
	copy(b[8:], iid[:])
	return netip.AddrFrom16(b)
}

// An advertisement is what we use of a Router Advertisement.
type advertisement struct {
	prefixes  []advertisedPrefix
	servers   []netip.Addr
	noServers []netip.Addr // withdrawn by a lifetime of zero
}

type advertisedPrefix struct {
	prefix netip.Prefix
	valid  time.Duration // 0 withdraws it
}

// parseAdvertisement reads an IPv6 packet. ok is false for anything that is not a valid Router Advertisement by RFC 4861 section
// 6.1.2: hop limit 255, a link-local source, a right checksum, sound options.
func parseAdvertisement(packet []byte) (a advertisement, ok bool) {
	if len(packet) < ipv6HeaderLen+header.ICMPv6HeaderSize+header.NDPRAMinimumSize || packet[ipv6NextHeader] != protocolICMPv6 ||
		packet[ipv6HopLimit] != header.NDPHopLimit || packet[ipv6HeaderLen] != routerAdvertisement || packet[ipv6HeaderLen+1] != 0 {
		return a, false
	}
	source, _ := netip.AddrFromSlice(packet[ipv6Source : ipv6Source+16])
	message := packet[ipv6HeaderLen:]
	if !source.IsLinkLocalUnicast() || len(message) != int(packet[ipv6Length])<<8|int(packet[ipv6Length+1]) || icmpv6Sum(packet) != 0xffff {
		return a, false
	}
	options, err := header.NDPRouterAdvert(message[header.ICMPv6HeaderSize:]).Options().Iter(true)
	if err != nil {
		return a, false
	}
	for {
		option, done, err := options.Next()
		if done || err != nil {
			return a, err == nil
		}
		switch o := option.(type) {
		case header.NDPPrefixInformation:
			a.addPrefix(o)
		case header.NDPRecursiveDNSServer:
			a.addServers(o)
		}
	}
}

// icmpv6Sum is the sum of RFC 4443 section 2.3 over a packet without extension headers: 0xffff when its checksum is right.
func icmpv6Sum(packet []byte) uint16 {
	sum := checksum.Checksum(packet[ipv6Source:ipv6Source+32], 0)
	sum = checksum.Combine(sum, checksum.Combine(protocolICMPv6, uint16(len(packet)-ipv6HeaderLen)))
	return checksum.Checksum(packet[ipv6HeaderLen:], sum)
}

// addPrefix follows RFC 4862 section 5.5.3: autonomous, not link-local, preferred no longer than valid, and 64 bits long, since our
// identifier has the other 64.
func (a *advertisement) addPrefix(o header.NDPPrefixInformation) {
	addr := addressFrom(o.Prefix())
	if !o.AutonomousAddressConfigurationFlag() || o.PrefixLength() != 64 || addr.IsLinkLocalUnicast() || addr.IsMulticast() ||
		o.PreferredLifetime() > o.ValidLifetime() {
		return
	}
	a.prefixes = append(a.prefixes, advertisedPrefix{netip.PrefixFrom(addr, 64).Masked(), o.ValidLifetime()})
}

func (a *advertisement) addServers(o header.NDPRecursiveDNSServer) {
	servers, err := o.Addresses()
	if err != nil {
		return
	}
	for _, server := range servers {
		if o.Lifetime() == 0 {
			a.noServers = append(a.noServers, addressFrom(server))
		} else {
			a.servers = append(a.servers, addressFrom(server))
		}
	}
}

// handlePacket looks at each inbound IPv6 packet that is not plain TCP and applies Router Advertisements.
func (a *slaac) handlePacket(s *Stack, packet []byte) {
	if len(packet) <= ipv6HeaderLen || packet[ipv6NextHeader] != protocolICMPv6 || packet[ipv6HeaderLen] != routerAdvertisement {
		return
	}
	ad, ok := parseAdvertisement(packet)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.iid == [8]byte{} || s.isClosed() {
		return
	}
	for _, p := range ad.prefixes {
		a.applyLocked(s, p)
	}
	a.stopSolicitingLocked() // after the addresses are there: dials wait for this
	before := len(a.servers)
	a.servers = slices.DeleteFunc(a.servers, func(server netip.Addr) bool { return slices.Contains(ad.noServers, server) })
	changed := len(a.servers) != before
	for _, server := range ad.servers {
		if len(a.servers) < maxAutoServers && !slices.Contains(a.servers, server) {
			a.servers = append(a.servers, server)
			changed = true
		}
	}
	if changed {
		s.log.Info("name servers advertised", "servers", a.servers)
		s.resolver.setAutoServers(a.servers)
	}
}

func (a *slaac) applyLocked(s *Stack, p advertisedPrefix) {
	addr := joinAddress(p.prefix, a.iid)
	timer, known := a.expiry[addr]
	if p.valid == 0 {
		if known {
			timer.Stop()
			a.expireLocked(s, addr)
		}
		return
	}
	if known {
		timer.Reset(p.valid)
		return
	}
	if len(a.expiry) >= maxAutoAddresses {
		return
	}
	if err := s.addAddress(addr); err != nil {
		s.log.Warn("inner address not usable", "address", addr, "error", err)
		return
	}
	s.log.Info("inner address", "address", addr, "valid", p.valid)
	if a.expiry == nil {
		a.expiry = make(map[netip.Addr]*time.Timer)
	}
	a.expiry[addr] = time.AfterFunc(p.valid, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.expireLocked(s, addr)
	})
}

func (a *slaac) expireLocked(s *Stack, addr netip.Addr) {
	if _, ok := a.expiry[addr]; !ok {
		return
	}
	delete(a.expiry, addr)
	s.removeAddress(addr)
	s.log.Info("inner address gone", "address", addr)
}
