package ppp

import "time"

// ipv6cpInterfaceID is the only option that is negotiated (RFC 5072 section 4.1); IPv6-Compression is rejected.
const ipv6cpInterfaceID uint8 = 1

// minIPv6MTU is the smallest MTU in bytes that IPv6 may be used with (RFC 8200 section 5).
const minIPv6MTU = 1280

// An interfaceID is the interface identifier of one end of the link (RFC 5072 section 4.1).
type interfaceID [8]byte

// An ipv6cp is the IPv6 Control Protocol (RFC 5072). Loop goroutine only.
type ipv6cp struct {
	automaton
	session *Session

	own     interfaceID
	peer    interfaceID // of the peer's last Configure-Request; zero: none
	failure error
}

// reset draws a new identifier for a new negotiation. Once on a link it is kept, so that addresses made of it stay.
func (i *ipv6cp) reset() {
	i.peer, i.failure = interfaceID{}, nil
	if i.own == (interfaceID{}) {
		i.own = i.session.randomInterfaceID()
	}
}

func (i *ipv6cp) appendRequest(dst []byte) []byte {
	return appendOption(dst, option{ipv6cpInterfaceID, i.own[:]})
}

func (i *ipv6cp) beginRequest() { i.peer = interfaceID{} }

// judge accepts any identifier but zero and our own, for which it proposes another (RFC 5072 section 4.1).
func (i *ipv6cp) judge(o option) (verdict, []byte) {
	if o.kind != ipv6cpInterfaceID {
		return reject, nil
	}
	if len(o.data) == len(i.peer) {
		i.peer = interfaceID(o.data)
		if i.peer != (interfaceID{}) && i.peer != i.own {
			return accept, nil
		}
	}
	proposal := i.session.randomInterfaceID()
	return refuse, proposal[:]
}

// appendMissing asks a peer that sends no identifier for one: without it there is no address to speak to.
func (i *ipv6cp) appendMissing(dst []byte) []byte {
	if i.peer != (interfaceID{}) || len(dst) > 0 {
		return dst
	}
	proposal := i.session.randomInterfaceID()
	return appendOption(dst, option{ipv6cpInterfaceID, proposal[:]})
}

// naked takes the identifier that the peer proposes, or draws another if that is of no use.
func (i *ipv6cp) naked(_ time.Time, o option) {
	if o.kind != ipv6cpInterfaceID {
		return
	}
	if len(o.data) == len(i.own) {
		if id := interfaceID(o.data); id != (interfaceID{}) && id != i.own && id != i.peer {
			i.own = id
			return
		}
	}
	i.own = i.session.randomInterfaceID()
}

func (i *ipv6cp) rejected(now time.Time, _ option) {
	i.failure = &NegotiationError{Protocol: "ipv6cp", Cause: "the peer rejects interface identifiers"}
	i.close(now)
}

func (i *ipv6cp) receiveCode(time.Time, controlPacket) bool { return false }

func (i *ipv6cp) up(now time.Time) { i.session.networkChanged(now, true) }

func (i *ipv6cp) down(now time.Time) { i.session.networkChanged(now, true) }

func (i *ipv6cp) finished(now time.Time) {
	if i.failure == nil {
		i.failure = i.session.unopened("ipv6cp", &i.automaton)
	}
	i.session.networkFinished(now)
}
