package pptp

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

type connectionState uint8

// The states of a control connection (RFC 2637 sections 3.1.1 and 3.1.2).
const (
	connectionWaitRequest connectionState = iota // accepted, nothing received
	connectionWaitReply                          // dialed, Start-Control-Connection-Request sent
	connectionEstablished
	connectionWaitStop // Stop-Control-Connection-Request sent
	connectionClosed
)

var errNotUp = errors.New("pptp: control connection is not up")

// A Connection is one control connection: a TCP connection over which calls are made. It belongs to its Endpoint's goroutine.
type Connection struct {
	endpoint *Endpoint
	peer     netip.Addr
	control  io.Writer
	handler  ConnectionHandler
	state    connectionState
	calls    []*Call // replaced, not changed, when one ends
	made     uint    // calls that there have been

	inbox  []byte // of the control stream: the beginning of a message
	outbox []byte // a message on its way out

	until time.Time // when the handshake or the farewell under way must be over
	heard time.Time // the last control message
	echo  time.Time // when an Echo-Request was sent that nothing came after; zero: none
	echos uint32    // Echo-Requests sent
}

func (e *Endpoint) newConnection(now time.Time, peer netip.Addr, control io.Writer, h ConnectionHandler, state connectionState) *Connection {
	return &Connection{endpoint: e, peer: peer.Unmap(), control: control, handler: h, state: state, heard: now, until: now.Add(e.config.SetupTimeout)}
}

// admit takes the connection into the Endpoint, if there is room for it.
func (c *Connection) admit(now time.Time) bool {
	e := c.endpoint
	switch {
	case e.closing:
		c.end(now, ErrClosed)
	case len(e.connections) >= e.config.MaxConnections:
		c.end(now, &LocalError{Kind: NoResources, Detail: "too many control connections"})
	default:
		e.connections = append(e.connections, c)
		return true
	}
	return false
}

// Peer is the address of the other end.
func (c *Connection) Peer() netip.Addr { return c.peer }

// ReceiveControl takes what came over the TCP connection, however it is cut into pieces. next is as in Endpoint.Receive.
func (c *Connection) ReceiveControl(now time.Time, b []byte) (next time.Time) {
	for len(b) > 0 && c.state != connectionClosed {
		// The inbox never holds more than one message at its longest.
		n := min(len(b), maxMessage-len(c.inbox))
		c.inbox = append(c.inbox, b[:n]...)
		b = b[n:]
		c.receiveMessages(now)
	}
	c.schedule()
	return c.endpoint.next
}

// receiveMessages takes the whole messages from the inbox.
func (c *Connection) receiveMessages(now time.Time) {
	rest := c.inbox
	for c.state != connectionClosed {
		m, size, err := parseMessage(rest)
		if err != nil {
			c.end(now, &LocalError{Kind: Protocol, Detail: "peer does not speak PPTP", Err: err})
			return
		}
		if size == 0 {
			break
		}
		c.receiveMessage(now, m)
		rest = rest[size:]
	}
	c.inbox = c.inbox[:copy(c.inbox, rest)]
}

// receiveMessage gives a message to the function that messageRules names.
func (c *Connection) receiveMessage(now time.Time, m message) {
	c.heard, c.echo = now, time.Time{}
	rule := messageRules[m.kind]
	if rule.onConnection != nil && rule.states.has(c.state) {
		rule.onConnection(c, now, m)
		return
	}
	if rule.find != nil {
		if call := rule.find(c, m); call != nil && rule.callStates.has(call.state) {
			rule.onCall(call, now, m)
			return
		}
	}
	c.unexpected(m)
}

func (c *Connection) unexpected(m message) {
	c.endpoint.counters.unexpected.Add(1)
	c.endpoint.config.Log.Debug("pptp control message ignored", "peer", c.peer, "message", m.kind.String())
}

func (c *Connection) ignore(time.Time, message) {}

// send puts a message on the control stream and reports whether the connection still lives.
func (c *Connection) send(now time.Time, m message) bool {
	c.outbox = appendMessage(c.outbox[:0], m)
	if _, err := c.control.Write(c.outbox); err != nil {
		c.lose(now, "control connection lost", err)
	}
	return c.state != connectionClosed
}

// ControlClosed tells that the TCP connection has ended: with err, or in good order if that is nil or io.EOF. next is as in
// Endpoint.Receive.
func (c *Connection) ControlClosed(now time.Time, err error) (next time.Time) {
	switch {
	case c.state == connectionWaitStop:
		c.end(now, ErrClosed)
	case err != nil && !errors.Is(err, io.EOF):
		c.lose(now, "control connection lost", err)
	case c.state == connectionWaitReply:
		c.lose(now, "peer closed the control connection without an answer", nil)
	default:
		c.lose(now, "peer closed the control connection", nil)
	}
	return c.endpoint.next
}

// lose ends the connection because its TCP connection has ended.
func (c *Connection) lose(now time.Time, detail string, err error) {
	c.end(now, &LocalError{Kind: ConnectionLost, WasUp: c.state >= connectionEstablished, Detail: detail, Err: err})
}

// introduction fills in what both messages of the handshake say of their sender.
func (c *Connection) introduction(m message) {
	config := &c.endpoint.config
	m.set(fieldVersion, protocolVersionOne)
	m.set(fieldFramingCapabilities, framingAny)
	m.set(fieldBearerCapabilities, bearerAny)
	m.setText(fieldHostName, config.HostName)
	m.setText(fieldVendor, config.VendorName)
}

func (c *Connection) sendSCCRQ(now time.Time) {
	m := newMessage(msgSCCRQ)
	c.introduction(m)
	c.send(now, m)
}

// receiveSCCRQ answers a PNS. To one that asks again, the connection exists already.
func (c *Connection) receiveSCCRQ(now time.Time, m message) {
	result := uint32(startOK)
	switch {
	case c.state == connectionEstablished:
		result = startExists
	case m.number(fieldVersion)>>8 != protocolVersionOne>>8:
		result = startVersion
	}
	reply := newMessage(msgSCCRP)
	c.introduction(reply)
	reply.set(fieldResult, result)
	reply.set(fieldMaximumChannels, uint32(c.endpoint.config.MaxCalls))
	if !c.send(now, reply) {
		return
	}
	switch result {
	case startOK:
		c.up(now, m)
	case startVersion:
		c.end(now, &LocalError{Kind: Protocol, Detail: fmt.Sprintf("peer speaks PPTP version %#04x", m.number(fieldVersion))})
	}
}

// receiveSCCRP: the PAC has answered.
func (c *Connection) receiveSCCRP(now time.Time, m message) {
	if m.number(fieldResult) != startOK {
		c.end(now, c.peerError(m))
		return
	}
	c.up(now, m)
}

func (c *Connection) up(now time.Time, m message) {
	c.state = connectionEstablished
	c.until = time.Time{}
	c.endpoint.config.Log.Info("pptp control connection up", "peer", c.peer, "host", m.text(fieldHostName), "vendor", m.text(fieldVendor),
		"firmware", m.number(fieldFirmware))
	c.handler.ConnectionUp(now, c)
}

// receiveStopCCRQ: the peer ends the connection.
func (c *Connection) receiveStopCCRQ(now time.Time, m message) {
	err := c.peerError(m)
	reply := newMessage(msgStopCCRP)
	reply.set(fieldResult, stopOK)
	if !c.send(now, reply) {
		return
	}
	if c.state == connectionWaitStop {
		c.end(now, ErrClosed)
		return
	}
	c.end(now, err)
}

// receiveStopCCRP: the peer agrees to the end.
func (c *Connection) receiveStopCCRP(now time.Time, _ message) { c.end(now, ErrClosed) }

func (c *Connection) receiveEchoRequest(now time.Time, m message) {
	reply := newMessage(msgEchoReply)
	copy(reply.at(fieldIdentifier), m.at(fieldIdentifier))
	reply.set(fieldResult, echoOK)
	c.send(now, reply)
}

// receiveICRQ refuses a call from a telephone line.
func (c *Connection) receiveICRQ(now time.Time, m message) {
	reply := newMessage(msgICRP)
	reply.set(fieldCallID, uint32(c.endpoint.newCallID()))
	reply.set(fieldPeerCallID, m.number(fieldCallID))
	reply.set(fieldResult, incomingRefused)
	c.send(now, reply)
}

func (c *Connection) peerError(m message) *PeerError {
	return &PeerError{Message: m.kind, WasUp: c.state == connectionEstablished,
		ResultCode: uint8(m.number(fieldResult)), ErrorCode: uint8(m.number(fieldError))}
}

// Close ends all calls and then the connection. The handlers of the calls have heard of it when it returns; the connection's handler
// hears of it when the peer has agreed, or has not for three seconds.
func (c *Connection) Close(now time.Time) {
	for _, call := range c.calls {
		call.Close(now)
	}
	switch c.state {
	case connectionEstablished:
		m := newMessage(msgStopCCRQ)
		m.set(fieldResult, stopShutdown)
		if c.send(now, m) {
			c.state = connectionWaitStop
			c.until = now.Add(defaultStopTimeout)
			c.schedule()
		}
	case connectionWaitRequest, connectionWaitReply:
		c.end(now, ErrClosed)
	}
}

// end tells the handlers, once, and the peer nothing.
func (c *Connection) end(now time.Time, err error) {
	if c.state == connectionClosed {
		return
	}
	c.state = connectionClosed
	c.inbox = nil
	for _, call := range c.calls {
		call.end(now, err)
	}
	for _, call := range c.calls { // those that waited for the peer to hear of their end
		call.forget()
	}
	c.endpoint.connections = without(c.endpoint.connections, c)
	c.endpoint.config.Log.Info("pptp control connection down", "peer", c.peer, "cause", err)
	c.handler.ConnectionDown(now, err)
}

// advance does what is due by now.
func (c *Connection) advance(now time.Time) {
	config := &c.endpoint.config
	switch {
	case c.state == connectionClosed:
	case c.state == connectionWaitStop && due(c.until, now):
		c.end(now, ErrClosed)
	case due(c.until, now):
		c.end(now, &LocalError{Kind: TimedOut, Detail: "peer accepted the connection but did not finish the start of PPTP in time"})
	case c.state != connectionEstablished:
	case !c.echo.IsZero() && due(c.echo.Add(config.EchoTimeout), now):
		c.end(now, &LocalError{Kind: NoAnswer, Detail: fmt.Sprintf("peer did not answer for %v", now.Sub(c.heard).Round(time.Second))})
	case c.echo.IsZero() && config.EchoInterval > 0 && due(c.heard.Add(config.EchoInterval), now):
		c.sendEcho(now)
	}
	for _, call := range c.calls {
		call.advance(now)
	}
}

// sendEcho asks whether the peer is there (RFC 2637 section 3.1.4).
func (c *Connection) sendEcho(now time.Time) {
	c.echo = now
	c.echos++
	m := newMessage(msgEchoRequest)
	m.set(fieldIdentifier, c.echos)
	c.send(now, m)
}

// schedule tells the Endpoint the connection's deadlines.
func (c *Connection) schedule() {
	if c.state == connectionClosed {
		return
	}
	e := c.endpoint
	e.schedule(c.until)
	if c.state == connectionEstablished {
		switch {
		case !c.echo.IsZero():
			e.schedule(c.echo.Add(e.config.EchoTimeout))
		case e.config.EchoInterval > 0:
			e.schedule(c.heard.Add(e.config.EchoInterval))
		}
	}
	for _, call := range c.calls {
		e.schedule(call.deadline())
	}
}

// How a message finds its call. A NAT that knows PPTP rewrites Call IDs, and not all do it well; so as long as a connection has had one call,
// a message that can only mean it is taken for it.

// callAwaitingReply finds the call that an Outgoing-Call-Reply answers.
func (c *Connection) callAwaitingReply(m message) *Call {
	if call := c.callOfOurID(m); call != nil {
		return call
	}
	return c.only(func(call *Call) bool { return call.state == callWaitReply })
}

// callToClear finds the call of a Call-Clear-Request, which has the PNS's Call ID: the peer's (RFC 2637 section 2.12).
func (c *Connection) callToClear(m message) *Call {
	id := m.callID(fieldCallID)
	for _, call := range c.calls {
		if !call.dialed && call.peerID == id {
			return call
		}
	}
	return c.only(func(call *Call) bool { return !call.dialed })
}

// callToDisconnect finds the call of a Call-Disconnect-Notify. It should have the PAC's Call ID, the peer's (RFC 2637 section 2.13), but
// accel-ppp sends ours.
func (c *Connection) callToDisconnect(m message) *Call {
	id := m.callID(fieldCallID)
	for _, call := range c.calls {
		if call.dialed && call.state != callWaitReply && call.peerID == id {
			return call
		}
	}
	for _, call := range c.calls {
		if call.id == id {
			return call
		}
	}
	return c.only(func(*Call) bool { return true })
}

// callOfOurID finds the call of a message that has our Call ID as its Peer's Call ID.
func (c *Connection) callOfOurID(m message) *Call {
	id := m.callID(fieldPeerCallID)
	for _, call := range c.calls {
		if call.id == id {
			return call
		}
	}
	return nil
}

// only returns the one call that there has been, if it is there and fits. With a second, a message about a call that has ended, as when both
// ends clear it at once, would be taken for the other.
func (c *Connection) only(fits func(*Call) bool) *Call {
	if c.made != 1 || len(c.calls) != 1 || !fits(c.calls[0]) {
		return nil
	}
	return c.calls[0]
}
