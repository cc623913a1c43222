package ppp

import (
	"encoding/binary"
	"strings"
	"time"
)

// LCP configuration options (RFC 1661 section 6; ACCM: RFC 1662 section 7.1). All others are rejected: multilink,
// link quality, callback and the like make no sense in a tunnel.
const (
	lcpMRU   uint8 = 1
	lcpACCM  uint8 = 2
	lcpAuth  uint8 = 3
	lcpMagic uint8 = 5
	lcpPFC   uint8 = 7
	lcpACFC  uint8 = 8
)

// Bounds of the MRU in bytes.
const (
	defaultMRU = 1500 // RFC 1661 section 6.1
	minMRU     = 128
	maxMRU     = 16384
)

// maxLoops is how many Configure-Requests in a row may carry our own Magic-Number before the link is taken for looped
// back. Two ends that draw the same 32-bit number three times are not to be expected.
const maxLoops = 3

// maxAuthRefusals is how often the peer may demand a login that we have already refused with a Nak or Reject.
const maxAuthRefusals = 15

// An lcp is the Link Control Protocol (RFC 1661). Loop goroutine only.
type lcp struct {
	automaton
	session *Session

	// What we ask for.
	mru   int        // zero: not asked
	magic uint32     // zero: not asked
	auth  AuthMethod // authenticator; AuthNone: not asked

	// What the peer's last Configure-Request asked for.
	peerMRU   int
	peerMagic uint32
	peerAuth  authProtocol
	peerACFC  bool

	refusedAuth  []byte // the peer's last demand for a login that our allow list does not have
	authRefusals int
	loops        int // requests in a row with our own Magic-Number

	echoDeadline time.Time
	echoMisses   int    // Echo-Requests sent since the peer was last heard
	echoID       uint8  // of the last Echo-Request
	peerClosed   error  // the peer sent a Terminate-Request before LCP was open
	peerName     string // texts of Identification
}

// reset returns to our wishes for a new link: what the peer rejected before may be asked again.
func (l *lcp) reset() {
	l.mru = l.session.wantedMRU()
	if l.mru == defaultMRU {
		l.mru = 0
	}
	l.magic = l.session.randomMagic()
	l.auth = AuthNone
	if l.session.config.Role == Authenticator {
		l.auth = l.session.config.Auth[0]
	}
}

func (l *lcp) appendRequest(dst []byte) []byte {
	if l.mru != 0 {
		dst = appendOption(dst, option{lcpMRU, binary.BigEndian.AppendUint16(nil, uint16(l.mru))})
	}
	if l.auth != AuthNone {
		dst = appendOption(dst, option{lcpAuth, appendAuthOption(nil, l.auth)})
	}
	if l.magic != 0 {
		dst = appendOption(dst, option{lcpMagic, binary.BigEndian.AppendUint32(nil, l.magic)})
	}
	return dst
}

func (l *lcp) beginRequest() {
	l.peerMRU, l.peerMagic, l.peerAuth, l.peerACFC = defaultMRU, 0, authProtoNone, false
}

func (l *lcp) judge(o option) (verdict, []byte) {
	switch o.kind {
	case lcpMRU:
		return l.judgeMRU(o.data)
	case lcpACCM: // nothing is escaped in a tunnel: any map will do (RFC 1662 section 7.1)
		if len(o.data) != 4 {
			return refuse, make([]byte, 4)
		}
		return accept, nil
	case lcpAuth:
		return l.judgeAuth(o.data)
	case lcpMagic:
		return l.judgeMagic(o.data)
	case lcpPFC: // the peer can take compressed protocol fields; we need not send any (RFC 1661 section 6.5)
		return acceptIfEmpty(o.data)
	case lcpACFC:
		l.peerACFC = true
		return acceptIfEmpty(o.data)
	}
	return reject, nil
}

func acceptIfEmpty(data []byte) (verdict, []byte) {
	if len(data) != 0 {
		return refuse, nil
	}
	return accept, nil
}

func (l *lcp) judgeMRU(data []byte) (verdict, []byte) {
	if len(data) != 2 {
		return refuse, binary.BigEndian.AppendUint16(nil, defaultMRU)
	}
	l.peerMRU = int(binary.BigEndian.Uint16(data))
	if l.peerMRU < minMRU {
		return refuse, binary.BigEndian.AppendUint16(nil, minMRU)
	}
	return accept, nil
}

// judgeAuth looks at what login the peer demands of us. An authenticator does not log in.
func (l *lcp) judgeAuth(value []byte) (verdict, []byte) {
	if l.session.config.Role == Authenticator {
		return reject, nil
	}
	proto, nak, ok := acceptAuthOption(value, l.session.config.Auth, l.authRefusals)
	if ok {
		l.peerAuth, l.refusedAuth = proto, nil
		return accept, nil
	}
	l.authRefusals++
	l.refusedAuth = append([]byte(nil), value...)
	if nak == nil {
		return reject, nil
	}
	return refuse, nak
}

// judgeMagic looks for a looped-back link: a request with our own Magic-Number (RFC 1661 section 6.4).
func (l *lcp) judgeMagic(data []byte) (verdict, []byte) {
	other := func() []byte { return binary.BigEndian.AppendUint32(nil, l.session.randomMagic()) }
	if len(data) != 4 {
		return refuse, other()
	}
	l.peerMagic = binary.BigEndian.Uint32(data)
	switch {
	case l.peerMagic == 0:
		return refuse, other()
	case l.peerMagic == l.magic:
		l.loops++
		return refuse, other()
	}
	l.loops = 0
	return accept, nil
}

// appendMissing: LCP insists on none of the peer's options.
func (l *lcp) appendMissing(dst []byte) []byte { return dst }

func (l *lcp) naked(_ time.Time, o option) {
	switch {
	case o.kind == lcpMRU && len(o.data) == 2 && l.mru != 0:
		if mru := int(binary.BigEndian.Uint16(o.data)); mru >= minMRU && mru <= max(defaultMRU, l.mru) {
			l.mru = mru
		}
	case o.kind == lcpMagic && l.magic != 0:
		l.magic = l.session.randomMagic()
	case o.kind == lcpAuth && l.auth != AuthNone:
		if m, ok := authMethodFor(o.data, l.session.config.Auth); ok {
			l.auth = m
		}
	}
}

func (l *lcp) rejected(now time.Time, o option) {
	switch o.kind {
	case lcpMRU:
		l.mru = 0
	case lcpMagic:
		l.magic = 0
	case lcpAuth:
		l.auth = AuthNone
		if authNotAskedError(l.session.config.Auth) != nil {
			l.session.terminate(now, &NegotiationError{Protocol: "auth", Cause: "the peer refuses to log in by any allowed method"})
		}
	}
}

// receiveLCP takes an LCP packet and ends the link for what the automaton alone cannot know.
func (l *lcp) receiveLCP(now time.Time, packet []byte) bool {
	wasOpen, stage, hint := l.state == stateOpened, l.session.stage(), l.session.hint()
	ok := l.receive(now, packet)
	switch {
	case ok && packet[0] == codeTerminateRequest:
		p, _ := parseControlPacket(packet)
		closed := newPeerClosedError(stage, p.data)
		closed.Hint = hint
		if wasOpen {
			l.session.finish(now, closed)
		} else {
			l.peerClosed = closed
		}
	case l.loops >= maxLoops:
		l.session.finish(now, &LoopbackError{})
	case l.authRefusals > maxAuthRefusals && l.state != stateOpened:
		l.session.terminate(now, authDemandError(l.refusedAuth))
	}
	return ok
}

func (l *lcp) receiveCode(now time.Time, p controlPacket) bool {
	l.reply = l.reply[:0]
	switch p.code {
	case codeProtocolReject:
		if l.state == stateOpened && len(p.data) >= 2 {
			l.session.protocolRejected(now, binary.BigEndian.Uint16(p.data), p)
		}
	case codeEchoRequest:
		l.receiveEchoRequest(now, p)
	case codeEchoReply, codeDiscardRequest: // that something was heard is all there is to know
		l.event(now, eventEchoOrSimilar, p)
	case codeIdentification:
		l.receiveIdentification(p.data)
	case codeTimeRemaining: // RFC 1570 section 1.2
		if len(p.data) >= 8 {
			l.log.Info("peer tells the time remaining", "seconds", binary.BigEndian.Uint32(p.data[4:]), "text", peerText(p.data[8:]))
		}
	default:
		return false
	}
	return true
}

// receiveEchoRequest answers with our own Magic-Number and the rest of the data (RFC 1661 section 5.8).
func (l *lcp) receiveEchoRequest(now time.Time, p controlPacket) {
	var magic uint32
	var rest []byte
	if len(p.data) >= 4 {
		magic, rest = binary.BigEndian.Uint32(p.data), p.data[4:]
	}
	if l.state == stateOpened && magic != 0 && magic == l.magic {
		l.session.finish(now, &LoopbackError{})
		return
	}
	data := append(binary.BigEndian.AppendUint32(nil, l.magic), rest...)
	l.reply = appendControlPacket(l.reply, controlPacket{codeEchoReply, p.id, data})
	l.event(now, eventEchoOrSimilar, p)
}

// receiveIdentification notes the peer's name for itself; it may come at any time (RFC 1570 section 1.1).
func (l *lcp) receiveIdentification(data []byte) {
	if len(data) < 4 {
		return
	}
	text := peerText(data[4:])
	if text == "" || strings.Contains(l.peerName, text) || len(l.peerName)+len(text) >= maxPeerText {
		return
	}
	l.peerName = strings.TrimSpace(l.peerName + " " + text)
	l.log.Info("peer identifies itself", "text", text)
}

func (l *lcp) up(now time.Time) {
	l.loops, l.authRefusals, l.peerClosed = 0, 0, nil
	l.echoMisses = 0
	if l.session.config.EchoInterval > 0 {
		l.echoDeadline = now.Add(l.session.config.EchoInterval)
	}
	l.session.linkEstablished(now)
	l.refusedAuth = nil
}

func (l *lcp) down(now time.Time) {
	l.echoDeadline = time.Time{}
	l.session.linkReopened(now)
	l.reset()
}

// finished: the link was closed, or the peer did not answer or agree.
func (l *lcp) finished(now time.Time) { l.session.finish(now, l.failure()) }

// failure says why LCP did not open.
func (l *lcp) failure() error {
	switch {
	case l.refusedAuth != nil:
		return authDemandError(l.refusedAuth)
	case l.peerClosed != nil:
		return l.peerClosed
	case l.naksIn > 0 || l.answers.spent > 0:
		return &NegotiationError{Protocol: "lcp", Cause: "the peer's PPP does not agree to our options"}
	}
	return &NegotiationError{Protocol: "lcp", Cause: "no answer from the peer's PPP", Timeout: true}
}

// advanceEcho asks a silent peer for life (RFC 1661 section 5.8). Any frame counts as an answer, so nothing is sent
// while there is traffic.
func (l *lcp) advanceEcho(now time.Time) {
	if l.echoDeadline.IsZero() || now.Before(l.echoDeadline) {
		return
	}
	interval := l.session.config.EchoInterval
	if quiet := now.Sub(l.session.heard); quiet < interval {
		l.echoMisses = 0
		l.echoDeadline = l.session.heard.Add(interval)
		return
	}
	if l.echoMisses >= l.session.config.EchoFailures {
		l.session.finish(now, &EchoTimeoutError{Failures: l.echoMisses, Silence: now.Sub(l.session.heard)})
		return
	}
	l.echoMisses++
	l.echoID++
	l.echoDeadline = now.Add(interval)
	l.sendPacket(controlPacket{codeEchoRequest, l.echoID, binary.BigEndian.AppendUint32(nil, l.magic)})
}
