package ppp

import (
	"net/netip"
	"time"
)

// IPCP configuration options (RFC 1332 section 3, RFC 1877 section 1). All others are rejected, Van Jacobson
// compression among them: loss and reordering in the tunnel break it (RFC 2661 section 8.1).
const (
	ipcpAddress       uint8 = 3
	ipcpPrimaryDNS    uint8 = 129
	ipcpPrimaryNBNS   uint8 = 130
	ipcpSecondaryDNS  uint8 = 131
	ipcpSecondaryNBNS uint8 = 132
)

// serverOptions are the name servers of RFC 1877 in the order of the packet.
var serverOptions = [...]uint8{ipcpPrimaryDNS, ipcpPrimaryNBNS, ipcpSecondaryDNS, ipcpSecondaryNBNS}

// placeholderAddress is what a peer gets that wants an address from us, when we have none to give.
var placeholderAddress = netip.AddrFrom4([4]byte{10, 64, 64, 64})

// An ipcp is the IP Control Protocol (RFC 1332). Loop goroutine only.
type ipcp struct {
	automaton
	session *Session

	assignment Assignment // authenticator: what the peer is to have

	// What we ask for; the zero Addr: not asked.
	address netip.Addr
	servers [len(serverOptions)]netip.Addr // peer: name servers, unspecified until told

	peerAddress netip.Addr // of the peer's last Configure-Request; zero: none
	peerAsked   bool       // it held an IP-Address option at all
	failure     error      // why IPCP cannot open
}

// reset returns to the wishes of a new negotiation.
func (i *ipcp) reset() {
	i.peerAddress, i.failure = netip.Addr{}, nil
	i.servers = [len(serverOptions)]netip.Addr{}
	if i.session.config.Role == Authenticator {
		i.address = i.assignment.Local
		return
	}
	i.address = netip.IPv4Unspecified()
	if i.session.config.Address.Is4() {
		i.address = i.session.config.Address
	}
	for n, kind := range serverOptions {
		if kind == ipcpPrimaryDNS || kind == ipcpSecondaryDNS || i.session.config.WantNBNS {
			i.servers[n] = netip.IPv4Unspecified()
		}
	}
}

func (i *ipcp) appendRequest(dst []byte) []byte {
	dst = appendAddressOption(dst, ipcpAddress, i.address)
	for n, kind := range serverOptions {
		dst = appendAddressOption(dst, kind, i.servers[n])
	}
	return dst
}

// appendAddressOption appends an option whose value is an IPv4 address; nothing for any other address.
func appendAddressOption(dst []byte, kind uint8, a netip.Addr) []byte {
	if !a.Is4() {
		return dst
	}
	return appendOption(dst, option{kind, a.AsSlice()})
}

func (i *ipcp) beginRequest() { i.peerAddress, i.peerAsked = netip.Addr{}, false }

func (i *ipcp) judge(o option) (verdict, []byte) {
	if o.kind == ipcpAddress {
		return i.judgeAddress(o.data)
	}
	return i.judgeServer(o)
}

// judgeAddress looks at the address that the peer wants to have. A server tells its own; a client is told.
func (i *ipcp) judgeAddress(data []byte) (verdict, []byte) {
	i.peerAsked = true
	a, ok := netip.AddrFromSlice(data)
	if i.session.config.Role == Authenticator {
		if !i.assignment.Peer.Is4() {
			return reject, nil
		}
		if a != i.assignment.Peer {
			return refuse, i.assignment.Peer.AsSlice()
		}
	} else if !ok || !a.Is4() || a.IsUnspecified() {
		return refuse, placeholderAddress.AsSlice()
	}
	i.peerAddress = a
	return accept, nil
}

// judgeServer looks at a name server that the peer wants to know (RFC 1877).
func (i *ipcp) judgeServer(o option) (verdict, []byte) {
	server := i.assignment.server(o.kind)
	if !server.Is4() {
		return reject, nil
	}
	if a, ok := netip.AddrFromSlice(o.data); !ok || a != server {
		return refuse, server.AsSlice()
	}
	return accept, nil
}

// server returns the name server that an option of RFC 1877 asks for; zero if there is none.
func (a *Assignment) server(kind uint8) netip.Addr {
	list, n := a.DNS, 0
	switch kind {
	case ipcpPrimaryDNS:
	case ipcpSecondaryDNS:
		n = 1
	case ipcpPrimaryNBNS:
		list = a.NBNS
	case ipcpSecondaryNBNS:
		list, n = a.NBNS, 1
	default:
		return netip.Addr{}
	}
	if n >= len(list) {
		return netip.Addr{}
	}
	return list[n].Unmap()
}

// appendMissing asks a client that requests no address to take the one assigned (RFC 1332 section 3.3).
func (i *ipcp) appendMissing(dst []byte) []byte {
	if i.session.config.Role == Authenticator && !i.peerAsked {
		return appendAddressOption(dst, ipcpAddress, i.assignment.Peer)
	}
	return dst
}

func (i *ipcp) naked(now time.Time, o option) {
	a, ok := netip.AddrFromSlice(o.data)
	if !ok || !a.Is4() || i.session.config.Role == Authenticator {
		return
	}
	if o.kind == ipcpAddress {
		i.takeAddress(now, a)
		return
	}
	for n, kind := range serverOptions {
		if kind == o.kind && i.servers[n].IsValid() {
			i.servers[n] = a
		}
	}
}

// takeAddress takes the address that the server assigns.
func (i *ipcp) takeAddress(now time.Time, a netip.Addr) {
	if a.IsUnspecified() {
		i.giveUp(now, "the server has no address to assign", "its address pool may be used up, or another session of the same user may hold it: wait or ask its administrator")
		return
	}
	if a.IsMulticast() || a.IsLoopback() {
		return
	}
	if wish := i.session.config.Address; wish.Is4() && wish != a {
		i.log.Warn("server assigns another address than the configured one", "configured", wish, "assigned", a)
	}
	i.address = a
}

func (i *ipcp) rejected(now time.Time, o option) {
	for n, kind := range serverOptions {
		if kind == o.kind {
			i.servers[n] = netip.Addr{}
		}
	}
	if o.kind != ipcpAddress {
		return
	}
	if i.session.config.Role == Peer && !i.session.config.Address.Is4() {
		i.giveUp(now, "the server assigns no address", "ask its administrator for a fixed address and set it in the configuration")
	}
	i.address = netip.Addr{}
}

// giveUp closes IPCP for a reason that no further request can cure.
func (i *ipcp) giveUp(now time.Time, cause, advice string) {
	i.failure = &NegotiationError{Protocol: "ipcp", Cause: cause, Hint: advice}
	i.close(now)
}

func (i *ipcp) receiveCode(time.Time, controlPacket) bool { return false }

// local returns our own address once IPCP is open. If the peer would not negotiate it, the configured one holds.
func (i *ipcp) local() netip.Addr {
	if !i.address.IsValid() && i.session.config.Role == Peer {
		return i.session.config.Address
	}
	return i.address
}

func (i *ipcp) remote() netip.Addr {
	if !i.peerAddress.IsValid() {
		return i.assignment.Peer // zero for a peer
	}
	return i.peerAddress
}

// told returns the name servers of the given options that the server told us. It may acknowledge 0.0.0.0, which means none.
func (i *ipcp) told(kinds ...uint8) []netip.Addr {
	var list []netip.Addr
	for _, wanted := range kinds {
		for n, kind := range serverOptions {
			if kind == wanted && i.servers[n].IsValid() && !i.servers[n].IsUnspecified() {
				list = append(list, i.servers[n])
			}
		}
	}
	return list
}

func (i *ipcp) up(now time.Time) {
	if i.session.config.Role == Peer && i.local().IsUnspecified() { // acknowledged 0.0.0.0
		i.giveUp(now, "the server acknowledged 0.0.0.0 and assigns no address", "ask its administrator for a fixed address and set it in the configuration")
		return
	}
	i.session.networkChanged(now, true)
}

func (i *ipcp) down(now time.Time) { i.session.networkChanged(now, true) }

func (i *ipcp) finished(now time.Time) {
	if i.failure == nil {
		i.failure = i.session.unopened("ipcp", &i.automaton)
	}
	i.session.networkFinished(now)
}
