package l2tp

import "time"

// A messageRule is what RFC 2661 sections 6 and 7 say of one control message: what it must hold, when it may come and who takes it.
// A message has a handler of the tunnel or of a session; ICRQ and OCRQ, which begin a session, belong to the tunnel.
type messageRule struct {
	required []attribute // besides the Message Type
	final    bool        // ends a tunnel or session: acted upon even if its AVPs are faulty

	tunnelStates tunnelStates
	onTunnel     func(*Tunnel, time.Time, *message)

	sessionStates sessionStates
	onSession     func(*Session, time.Time, *message)
}

// messageRules has one entry for each message of RFC 2661 section 3.2. An SCCRQ is taken by the Endpoint, before there is a tunnel; to an
// existing tunnel it is never legal. A message in a state that is not listed here ends its tunnel (section 7.2.1) or session (7.4, 7.5).
var messageRules = map[messageType]messageRule{
	msgSCCRQ: {
		required: []attribute{attrProtocolVersion, attrHostName, attrFramingCaps, attrAssignedTunnelID},
	},
	msgSCCRP: {
		required:     []attribute{attrProtocolVersion, attrHostName, attrFramingCaps, attrAssignedTunnelID},
		tunnelStates: inTunnel(tunnelWaitReply),
		onTunnel:     (*Tunnel).receiveSCCRP,
	},
	msgSCCCN: {
		tunnelStates: inTunnel(tunnelWaitConnect),
		onTunnel:     (*Tunnel).receiveSCCCN,
	},
	msgStopCCN: {
		final:        true,
		tunnelStates: inTunnel(tunnelWaitReply, tunnelWaitConnect, tunnelEstablished, tunnelClosing),
		onTunnel:     (*Tunnel).receiveStopCCN,
	},
	msgHELLO: {
		tunnelStates: inTunnel(tunnelWaitReply, tunnelWaitConnect, tunnelEstablished),
		onTunnel:     (*Tunnel).ignore,
	},

	msgICRQ: {
		required:     []attribute{attrAssignedSessionID, attrCallSerialNumber},
		tunnelStates: inTunnel(tunnelEstablished),
		onTunnel:     (*Tunnel).receiveICRQ,
	},
	msgICRP: {
		required:      []attribute{attrAssignedSessionID},
		sessionStates: inSession(sessionWaitReply),
		onSession:     (*Session).receiveICRP,
	},
	msgICCN: {
		required:      []attribute{attrTxConnectSpeed, attrFramingType},
		sessionStates: inSession(sessionWaitConnect),
		onSession:     (*Session).receiveConnected,
	},

	msgOCRQ: {
		required: []attribute{attrAssignedSessionID, attrCallSerialNumber, attrMinimumBPS, attrMaximumBPS, attrBearerType,
			attrFramingType, attrCalledNumber},
		tunnelStates: inTunnel(tunnelEstablished),
		onTunnel:     (*Tunnel).receiveOCRQ,
	},
	msgOCRP: {
		required:      []attribute{attrAssignedSessionID},
		sessionStates: inSession(sessionWaitCallReply),
		onSession:     (*Session).receiveOCRP,
	},
	msgOCCN: {
		required:      []attribute{attrTxConnectSpeed, attrFramingType},
		sessionStates: inSession(sessionWaitCallConnect),
		onSession:     (*Session).receiveConnected,
	},

	msgCDN: {final: true, sessionStates: anySession, onSession: (*Session).receiveCDN},
	msgWEN: {required: []attribute{attrCallErrors}, sessionStates: anySession, onSession: (*Session).ignore},
	msgSLI: {required: []attribute{attrACCM}, sessionStates: anySession, onSession: (*Session).ignore},
}

// tunnelStates and sessionStates are sets of states.
type (
	tunnelStates  uint8
	sessionStates uint8
)

func inTunnel(states ...tunnelState) (set tunnelStates) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

func inSession(states ...sessionState) (set sessionStates) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

var anySession = inSession(sessionWaitReply, sessionWaitConnect, sessionWaitCallReply, sessionWaitCallConnect, sessionEstablished)

func (set tunnelStates) has(s tunnelState) bool   { return set&(1<<s) != 0 }
func (set sessionStates) has(s sessionState) bool { return set&(1<<s) != 0 }
