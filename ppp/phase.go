package ppp

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"gateway/ppp/mppe"
)

// A phase of the link (RFC 1661 section 3.2).
type phase uint8

const (
	phaseDead phase = iota // not yet started
	phaseEstablish
	phaseAuthenticate
	phaseNetwork
	phaseTerminate
	phaseEnded // Down was called
)

// begin enters phase Establish for the first time.
func (s *Session) begin(now time.Time) {
	s.phase, s.heard = phaseEstablish, now
	s.deadline = now.Add(s.config.Timers.Establish)
	s.lcp.reset()
	s.lcp.beginRequest()
	s.lcp.open(now)
	s.lcp.lowerUp(now)
}

// linkEstablished is LCP's This-Layer-Up: the login follows, if there is one.
func (s *Session) linkEstablished(now time.Time) {
	s.log.Info("LCP is open", "mtu", s.mtu(), "auth", s.demandedAuth())
	if err := s.keylessLogin(); err != nil {
		s.terminate(now, err)
		return
	}
	if s.config.Role == Authenticator {
		s.establishedAsAuthenticator(now)
		return
	}
	proto := s.lcp.peerAuth
	if proto != authProtoNone {
		s.authenticate(now, proto.number(), newAuthPeer(proto, &s.config, s))
		return
	}
	if err := authNotAskedError(s.config.Auth); err != nil {
		if s.lcp.refusedAuth != nil { // it asked, we refused, it gave in: the cause is what it asked for
			err = authDemandError(s.lcp.refusedAuth)
		}
		s.terminate(now, err)
		return
	}
	s.login = authResult{method: AuthNone, username: s.config.Username}
	s.startNetwork(now)
}

func (s *Session) establishedAsAuthenticator(now time.Time) {
	if m := s.lcp.auth; m != AuthNone {
		s.authenticate(now, m.protocol().number(), newAuthenticator(m, &s.config, s))
		return
	}
	s.login = authResult{method: AuthNone}
	s.startNetwork(now)
}

// keylessLogin is the error of a link that must be encrypted, if the login that was agreed upon gives no keys. It is found
// before any password is sent.
func (s *Session) keylessLogin() error {
	protocol := s.lcp.peerAuth
	if s.config.Role == Authenticator {
		protocol = s.lcp.auth.protocol()
	}
	required := s.config.CCP.Encryption == mppe.Require || s.ccp.encrypted
	if !required || protocol > authProtoCHAPMD5 {
		return nil
	}
	if s.lcp.refusedAuth != nil { // we refused what the server wants, and it gave in
		return s.explainLogin(authDemandError(s.lcp.refusedAuth))
	}
	return encryptionError("login by "+protocol.String(), &mppe.Error{Reason: mppe.NoKeys})
}

// explainLogin tells of a login that was refused only because it gives no keys.
func (s *Session) explainLogin(err error) error {
	var refused *AuthLocalError
	if errors.As(err, &refused) && (refused.Reason == AuthNotAllowed || refused.Reason == AuthNotAsked) && slices.Contains(s.keyless, refused.Method) {
		return encryptionError("the server insists on a login by "+refused.Method.String(), &mppe.Error{Reason: mppe.NoKeys})
	}
	return err
}

// demandedAuth names who demands what, for the log.
func (s *Session) demandedAuth() string {
	if s.config.Role == Authenticator {
		return s.lcp.auth.String()
	}
	return s.lcp.peerAuth.String()
}

// authenticate enters phase Authenticate.
func (s *Session) authenticate(now time.Time, protocol uint16, conversation authConversation) {
	s.phase = phaseAuthenticate
	s.deadline = now.Add(s.config.Timers.Authenticate)
	s.auth, s.authProtocol = conversation, protocol
	s.authDeadline = conversation.start(now)
}

// sendAuth implements authEvents.
func (s *Session) sendAuth(protocol uint16, packet []byte) { s.tx.writeControl(protocol, packet) }

// authSucceeded implements authEvents. A later re-challenge changes nothing.
func (s *Session) authSucceeded(now time.Time, r authResult) {
	if s.phase != phaseAuthenticate {
		s.log.Debug("login repeated", "method", r.method)
		if r.mppe != nil {
			s.login.mppe = r.mppe
			s.ccp.setKeys(r.mppe)
		}
		return
	}
	s.log.Info("login succeeded", "method", r.method, "user", r.username, "message", r.message)
	s.login = r
	s.startNetwork(now)
}

// authFailed implements authEvents.
func (s *Session) authFailed(now time.Time, err error) { s.terminate(now, err) }

// startNetwork enters phase Network: the network control protocols begin, each on its own.
func (s *Session) startNetwork(now time.Time) {
	if err := s.ccp.reset(now, s.login); err != nil {
		s.terminate(now, err)
		return
	}
	if s.config.Role == Authenticator && s.config.Assign != nil {
		assignment, err := s.config.Assign(s.login.username)
		if err != nil {
			s.terminate(now, &NegotiationError{Protocol: "ipcp", Cause: fmt.Sprintf("no address for %q", s.login.username), Err: err})
			return
		}
		s.ipcp.assignment = assignment
	}
	s.phase = phaseNetwork
	s.deadline = now.Add(s.config.Timers.Network)
	s.networkFailure = nil
	s.startLayer(now, &s.ccp.automaton)
	if s.config.Role == Peer || s.config.Assign != nil {
		s.ipcp.reset()
		s.startLayer(now, &s.ipcp.automaton)
	}
	if !s.config.NoIPv6 && s.mtu() >= minIPv6MTU {
		s.ipv6cp.reset()
		s.startLayer(now, &s.ipv6cp.automaton)
	}
}

// startLayer opens a network control protocol. It never rests in Closed, where it would answer a peer's request with a
// Terminate-Ack, over which some peers hang up.
func (s *Session) startLayer(now time.Time, a *automaton) {
	a.open(now)
	a.lowerUp(now)
}

// linkReopened is LCP's This-Layer-Down: the peer renegotiates, or the link is about to end. All that LCP carried
// starts again when it is up (RFC 1661 section 3.4).
func (s *Session) linkReopened(now time.Time) {
	s.auth = nil
	s.ccp.holdUntil, s.ccp.limit = time.Time{}, time.Time{}
	if s.phase != phaseTerminate {
		s.phase = phaseEstablish
		s.deadline = now.Add(s.config.Timers.Establish)
		s.log.Info("LCP is no longer open")
	}
	for _, a := range []*automaton{&s.ccp.automaton, &s.ipcp.automaton, &s.ipv6cp.automaton} {
		if a.state > stateStarting {
			a.lowerDown(now)
		}
	}
}

// networkChanged follows IPCP and IPV6CP up and down, and CCP with every step: packets pass when a network protocol is open
// and it is settled whether they are encrypted. The link may do without one network protocol as long as another is open.
// tell is true if what the handler knows has changed in any case.
func (s *Session) networkChanged(now time.Time, tell bool) {
	before := s.tx.outlet // only this goroutine changes it
	s.setGates()
	switch {
	case s.phase != phaseNetwork, before == s.tx.outlet && !tell:
	case s.rx.open():
		s.deadline = time.Time{}
		p := s.params()
		s.log.Debug("network parameters", "local", p.Local, "remote", p.Remote, "dns", p.DNS, "ipv6", p.IPv6, "mtu", p.MTU, "encryption", p.Encryption)
		s.handler.Up(p)
	case before.open():
		s.log.Info("network is down")
		s.deadline = now.Add(s.config.Timers.Network)
	}
}

// networkFinished is a network protocol's This-Layer-Finished. When none is left, the link is of no use.
func (s *Session) networkFinished(now time.Time) {
	if s.phase != phaseNetwork {
		return
	}
	for _, failure := range [...]error{s.ipcp.failure, s.ipv6cp.failure} {
		if s.networkFailure == nil && failure != nil {
			s.networkFailure = failure
			s.log.Info("network protocol is not used", "cause", failure)
		}
	}
	if !s.ipcp.running() && !s.ipv6cp.running() {
		s.terminate(now, s.networkFailure)
	}
}

// unopened says why an automaton that has finished never opened, or did not stay open.
func (s *Session) unopened(protocol string, a *automaton) *NegotiationError {
	e := &NegotiationError{Protocol: protocol, Cause: "the peer does not agree to our options"}
	switch {
	case a.rejectedByPeer:
		e.Cause = "the peer does not speak it"
	case a.terminatedByPeer:
		e.Cause = "the peer closed it"
	case a.naksIn == 0 && a.answers.spent == 0:
		e.Cause, e.Timeout = "no answer from the peer", true
	}
	return e
}

// setGates opens and closes the data path to what is negotiated.
func (s *Session) setGates() {
	passable, mtu := s.phase == phaseNetwork && s.ccp.settled(), s.mtu()
	open := gates{
		ipv4: passable && s.ipcp.state == stateOpened,
		ipv6: passable && s.ipv6cp.state == stateOpened && mtu >= minIPv6MTU,
	}
	s.tx.open(outlet{gates: open, encoder: s.ccp.encoder, bare: s.lcp.peerACFC, mtu: mtu})
	s.rx.gates, s.rx.sealed, s.rx.decoder = open, s.ccp.receive.Encrypts(), s.ccp.decoder
}

// wantedMRU is the MRU that we ask for.
func (s *Session) wantedMRU() int {
	if s.config.MRU != 0 {
		return s.config.MRU
	}
	return max(minMRU, min(defaultMRU, s.link.MTU()-frameHeader))
}

// mtu is the largest packet in bytes that the peer takes, the carrier holds and the configuration allows. There is room
// for MPPE or MPPC as soon as they are possible: CCP may open late, and the network above is not to shrink then.
func (s *Session) mtu() int {
	mtu := min(s.lcp.peerMRU, s.link.MTU()-frameHeader, s.wantedMRU())
	if s.ccp.possible() {
		mtu -= compressedHeader + compressedProtocol
	}
	return mtu
}

// params is what was agreed upon so far.
func (s *Session) params() Params {
	p := Params{
		MTU: s.mtu(), Encryption: s.ccp.encryption(), Compression: s.ccp.compression(), Auth: s.login.method, Username: s.login.username, PeerIdentification: s.lcp.peerName,
	}
	if s.rx.ipv4 {
		p.Local, p.Remote = s.ipcp.local(), s.ipcp.remote()
		p.DNS = s.ipcp.told(ipcpPrimaryDNS, ipcpSecondaryDNS)
		p.NBNS = s.ipcp.told(ipcpPrimaryNBNS, ipcpSecondaryNBNS)
	}
	if s.rx.ipv6 {
		p.IPv6, p.LocalIID, p.RemoteIID = true, s.ipv6cp.own, s.ipv6cp.peer
	}
	return p
}

// receiveControl takes a frame that holds no IP packet. What does not fit the phase is dropped (RFC 1661 sections 3.4
// to 3.6).
func (s *Session) receiveControl(now time.Time, protocol uint16, information []byte) {
	if s.phase == phaseEnded {
		return
	}
	if protocol == protocolLCP {
		if !s.lcp.receiveLCP(now, information) {
			s.counters.malformed.Add(1)
		}
		return
	}
	if s.lcp.state != stateOpened {
		s.counters.outOfPhase.Add(1)
		return
	}
	switch protocol {
	case protocolPAP, protocolCHAP, protocolEAP:
		s.receiveAuth(now, protocol, information)
	case protocolCCP:
		s.receiveNCP(now, &s.ccp.automaton, information)
		s.ccp.supervise(now)
	case protocolIPCP:
		s.receiveNCP(now, &s.ipcp.automaton, information)
	case protocolIPV6CP:
		s.receiveNCP(now, &s.ipv6cp.automaton, information)
	default:
		s.rejectProtocol(now, protocol, information)
	}
}

// receiveAuth takes a packet of the authentication protocol. It may come at any time after LCP is open: a server may
// challenge again (RFC 1994 section 4.1).
func (s *Session) receiveAuth(now time.Time, protocol uint16, packet []byte) {
	if s.auth == nil || protocol != s.authProtocol {
		s.counters.outOfPhase.Add(1)
		return
	}
	s.authDeadline = s.auth.receive(now, packet)
}

// receiveNCP takes a packet of a network control protocol. There is none before the login (RFC 1661 section 3.5); one
// that we have not started is not spoken here.
func (s *Session) receiveNCP(now time.Time, a *automaton, packet []byte) {
	if s.phase == phaseAuthenticate {
		s.authDeadline = s.auth.networkBegun(now)
	}
	switch {
	case s.phase != phaseNetwork:
		s.counters.outOfPhase.Add(1)
	case a.state <= stateStarting:
		s.rejectProtocol(now, a.protocol, packet)
	case !a.receive(now, packet):
		s.counters.malformed.Add(1)
	}
}

// Bounds of the Protocol-Rejects that we send: a burst, then one each interval.
const (
	protocolRejectBurst    = 8
	protocolRejectInterval = 10 * time.Second
)

// rejectProtocol tells the peer that we do not speak a protocol (RFC 1661 section 5.7).
func (s *Session) rejectProtocol(now time.Time, protocol uint16, information []byte) {
	s.counters.unsupported.Add(1)
	if s.phase != phaseNetwork || !s.protocolRejects.allow(now, protocolRejectBurst, protocolRejectInterval) {
		return
	}
	s.log.Debug("rejecting a protocol", "protocol", fmt.Sprintf("%04x", protocol))
	s.rejectID++
	data := append([]byte{byte(protocol >> 8), byte(protocol)}, information...)
	data = data[:min(len(data), max(s.mtu(), minMRU)-packetHeader)] // RFC 1661 section 5.7: truncated to the peer's MRU
	s.lcp.sendPacket(controlPacket{codeProtocolReject, s.rejectID, data})
}

// protocolRejected: the peer does not speak a protocol of ours (RFC 1661 section 5.7).
func (s *Session) protocolRejected(now time.Time, protocol uint16, p controlPacket) {
	s.log.Debug("peer rejects a protocol", "protocol", fmt.Sprintf("%04x", protocol))
	switch protocol {
	case protocolLCP:
		s.phase, s.cause = phaseTerminate, &NegotiationError{Protocol: "lcp", Cause: "the peer rejects LCP itself"}
		s.lcp.event(now, eventMajorReject, p)
	case protocolCCP:
		s.ccp.protocolRejected(now, p)
		s.ccp.supervise(now)
	case protocolIPCP:
		s.ipcp.protocolRejected(now, p)
	case protocolIPV6CP:
		s.ipv6cp.protocolRejected(now, p)
	case s.authProtocol:
		if s.phase == phaseAuthenticate {
			s.terminate(now, &NegotiationError{Protocol: "auth", Cause: "the peer rejects the authentication protocol that was agreed upon"})
		}
	}
}

// expire ends a phase that took too long.
func (s *Session) expire(now time.Time) {
	s.deadline = time.Time{}
	switch s.phase {
	case phaseEstablish:
		s.terminate(now, s.lcp.failure())
	case phaseAuthenticate:
		s.terminate(now, &NegotiationError{Protocol: "auth", Cause: "the login was not decided in time", Timeout: true})
	case phaseNetwork:
		err := s.networkFailure
		if err == nil {
			err = s.unopened("ipcp", &s.ipcp.automaton)
		}
		if s.ccp.disputed() {
			err = &NegotiationError{Protocol: "ccp", Cause: "the network did not come up while encryption was in dispute", Hint: s.ccp.advice(), Err: err}
		}
		s.terminate(now, err)
	}
}

// stage names where the link stands, for errors.
func (s *Session) stage() string {
	switch {
	case s.phase == phaseAuthenticate:
		return "auth"
	case s.phase == phaseNetwork && s.ccp.disputed():
		return "ccp"
	case s.phase == phaseNetwork && !s.rx.open():
		return "ipcp"
	}
	return "lcp"
}

// hint is advice for a user whose peer ends the link now; may be empty.
func (s *Session) hint() string {
	if s.stage() == "ccp" {
		return s.ccp.advice()
	}
	return ""
}

// terminate closes the link in good order: Terminate-Request, then Down(err) when it is answered or given up.
func (s *Session) terminate(now time.Time, err error) {
	switch s.phase {
	case phaseEnded, phaseTerminate:
		return
	case phaseDead:
		s.finish(now, err)
		return
	}
	s.log.Info("closing the link", "err", err)
	s.phase, s.cause, s.deadline = phaseTerminate, err, time.Time{}
	s.auth = nil
	s.lcp.close(now)
}

// finish is the end. The first cause is the one that is told.
func (s *Session) finish(now time.Time, err error) {
	if s.phase == phaseEnded {
		return
	}
	if s.cause != nil {
		err = s.cause
	}
	err = s.explainLogin(err)
	s.phase, s.deadline, s.auth, s.early = phaseEnded, time.Time{}, nil, nil
	s.tx.end()
	s.ccp.end(now)
	if s.login.mppe != nil {
		*s.login.mppe = mppeKeys{}
	}
	s.log.Info("link is down", "err", err)
	s.handler.Down(err)
}
