package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armon/go-socks5"
)

const (
	// datagramBuffer holds the longest UDP datagram behind our longest header.
	datagramBuffer = maxUDPHeader + 1<<16

	maxNames          = 128              // names remembered, for each association
	nameLifetime      = 30 * time.Second // the Resolver minds the real one
	maxWaiting        = 8                // datagrams that wait for one name
	maxFailuresInARow = 32               // of a socket that is not closed, before it is given up
)

// An association is one UDP ASSOCIATE (RFC 1928 section 7): a relay socket
// towards the client and an outlet for each IP version towards the targets. It
// ends with its TCP connection.
type association struct {
	server  *Server
	relay   *net.UDPConn
	outlets [2]outlet // IPv4, IPv6
	ctx     context.Context
	cancel  func()
	work    sync.WaitGroup

	clientIP   netip.Addr                     // of the TCP connection
	clientPort uint16                         // declared in the request; 0: the first datagram's
	client     atomic.Pointer[netip.AddrPort] // set once

	mu    sync.Mutex
	names map[string]*name
}

// A name is a target's name that was looked up or is being looked up.
type name struct {
	addr    netip.Addr // invalid while being looked up
	until   time.Time
	waiting []waitingDatagram
}

type waitingDatagram struct {
	payload []byte
	port    uint16
}

// associate carries out UDP ASSOCIATE.
func (a *acceptLoop) associate(c *client, declared *socks5.AddrSpec) {
	s := a.server
	local, remote := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	if s.config.PacketListener == nil || !local.IsValid() || !remote.IsValid() {
		refuse(c, replyCommandNotSupported)
		return
	}
	defer s.associations.Add(-1)
	if s.associations.Add(1) > int64(s.config.MaxUDPAssociations) {
		s.log.Debug("proxy: too many UDP associations", "client", remote, "limit", s.config.MaxUDPAssociations)
		refuse(c, replyGeneralFailure)
		return
	}
	// On the address that the client reached us at, so that it reaches this too.
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		s.log.Info("proxy: no socket for a UDP association", "client", remote, "cause", err)
		refuse(c, replyGeneralFailure)
		return
	}
	u := newAssociation(a.ctx, s, socket, remote.Addr(), declaredPort(declared, remote.Addr()))
	defer u.end()
	if err := u.openFor(c); err != nil {
		v := judge(err)
		s.count.targetsFailed.Add(1)
		s.log.Debug("proxy: socks5 UDP association failed", "client", remote, "reason", v.reason, "cause", err)
		refuse(c, v.reply)
		return
	}
	u.start(u.fromClient)
	if _, err := c.Conn.Write(appendReply(nil, replySucceeded, addrPort(socket.LocalAddr()))); err != nil {
		return
	}
	c.takeAhead()
	io.Copy(io.Discard, c.Conn) // nothing more is said here; its end is the association's
}

func newAssociation(ctx context.Context, s *Server, relay *net.UDPConn, client netip.Addr, port uint16) *association {
	u := &association{server: s, relay: relay, clientIP: client, clientPort: port, names: make(map[string]*name)}
	u.ctx, u.cancel = context.WithCancel(ctx)
	u.outlets[0] = outlet{association: u, network: "udp4"}
	u.outlets[1] = outlet{association: u, network: "udp6"}
	return u
}

// end closes everything and waits for the goroutines.
func (u *association) end() {
	u.cancel()
	u.relay.Close()
	u.outlets[0].close()
	u.outlets[1].close()
	u.work.Wait()
}

// openFor opens an outlet before the client is told that all is well. It is
// the IPv4 one unless there is no IPv4.
func (u *association) openFor(c *client) error {
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	defer watchLeaving(c.Conn, c.in, cancel)()
	err := u.outlets[0].open(ctx)
	if err != nil && u.outlets[1].open(ctx) == nil {
		return nil
	}
	return err
}

// declaredPort returns the port that the client says it sends from, 0 if it
// does not or says so for another host: NAT may be between.
func declaredPort(declared *socks5.AddrSpec, client netip.Addr) uint16 {
	ip, ok := netip.AddrFromSlice(declared.IP)
	if ok && (ip.IsUnspecified() || ip.Unmap() == client.WithZone("")) {
		return uint16(declared.Port)
	}
	return 0
}

// start runs f as one of the association's goroutines.
func (u *association) start(f func()) {
	u.work.Go(func() {
		defer u.server.rescue()
		f()
	})
}

func (u *association) drop() { u.server.count.datagramsDropped.Add(1) }

// fromClient takes datagrams from the client until the relay socket is closed.
func (u *association) fromClient() {
	buf := u.server.datagramBuffer()
	defer u.server.datagrams.Put(buf)
	failures := 0
	for failures < maxFailuresInARow {
		n, from, err := u.relay.ReadFromUDPAddrPort(buf[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // some systems report a port unreachable here
			failures++
			continue
		}
		failures = 0
		if !u.isClient(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())) {
			u.drop()
			continue
		}
		target, payload, err := parseUDPHeader(buf[:n])
		if err != nil {
			u.drop()
			continue
		}
		if len(target.name) > 0 {
			u.sendToName(target, payload)
		} else {
			u.send(netip.AddrPortFrom(target.addr, target.port), payload)
		}
	}
}

// isClient reports whether a datagram from this address is the client's: the
// address is that of the TCP connection, and the port is the declared one or
// else that of the first such datagram.
func (u *association) isClient(from netip.AddrPort) bool {
	if client := u.client.Load(); client != nil {
		return *client == from
	}
	if from.Addr() != u.clientIP || u.clientPort != 0 && from.Port() != u.clientPort {
		return false
	}
	first := from // so that from itself is not allocated for each datagram
	u.client.Store(&first)
	return true
}

// send sends payload to an address.
func (u *association) send(to netip.AddrPort, payload []byte) {
	if err := u.outlet(to.Addr()).send(to, payload); err != nil {
		u.drop()
		return
	}
	u.server.count.datagramsUp.Add(1)
}

func (u *association) outlet(to netip.Addr) *outlet {
	if to.Is6() {
		return &u.outlets[1]
	}
	return &u.outlets[0]
}

// sendToName sends payload to a name, at once if its address is known. Else
// the datagram waits with a few others for the Resolver, while datagrams to
// other targets go on.
func (u *association) sendToName(target udpTarget, payload []byte) {
	if u.server.config.Resolver == nil {
		u.drop()
		return
	}
	u.mu.Lock()
	n, known := u.names[string(target.name)]
	if known && n.addr.IsValid() && time.Now().Before(n.until) {
		addr := n.addr
		u.mu.Unlock()
		u.send(netip.AddrPortFrom(addr, target.port), payload)
		return
	}
	defer u.mu.Unlock()
	if !known || n.addr.IsValid() { // unknown or outdated: look it up
		if !u.makeRoomForName() {
			u.drop()
			return
		}
		host := string(target.name)
		n = &name{}
		u.names[host] = n
		u.start(func() { u.lookup(host, n) })
	}
	if len(n.waiting) == maxWaiting {
		u.drop()
		return
	}
	n.waiting = append(n.waiting, waitingDatagram{payload: bytes.Clone(payload), port: target.port})
}

// makeRoomForName forgets a name that is not being looked up if there are too
// many. It is called with mu held.
func (u *association) makeRoomForName() bool {
	if len(u.names) < maxNames {
		return true
	}
	for host, n := range u.names {
		if n.addr.IsValid() {
			delete(u.names, host)
			return true
		}
	}
	return false
}

// lookup finds a name's address and sends what waits for it: to the first
// address that can be sent to.
func (u *association) lookup(host string, n *name) {
	ctx, cancel := context.WithTimeout(u.ctx, u.server.config.DialTimeout)
	defer cancel()
	addrs, err := u.server.config.Resolver.LookupNetIP(ctx, "ip", host)
	var usable netip.Addr
	for _, addr := range addrs {
		if u.outlet(addr.Unmap()).open(ctx) == nil {
			usable = addr.Unmap()
			break
		}
	}
	u.mu.Lock()
	waiting := n.waiting
	n.waiting = nil
	if usable.IsValid() {
		n.addr, n.until = usable, time.Now().Add(nameLifetime)
	} else {
		delete(u.names, host)
	}
	u.mu.Unlock()
	if !usable.IsValid() {
		u.server.count.datagramsDropped.Add(int64(len(waiting)))
		u.server.log.Debug("proxy: UDP target not resolved", "target", host, "cause", err)
		return
	}
	for _, w := range waiting {
		u.send(netip.AddrPortFrom(usable, w.port), w.payload)
	}
}
