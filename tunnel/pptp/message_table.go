package pptp

import "time"

// A messageRule says in which states a control message may come and who takes it. A message in another state is counted and ignored,
// so that nothing a peer says out of turn can do harm.
type messageRule struct {
	states       connectionStates
	onConnection func(*Connection, time.Time, message)

	// Instead, for messages of one call:
	find       func(*Connection, message) *Call
	callStates callStates
	onCall     func(*Call, time.Time, message)
}

// messageRules has one line for each message of RFC 2637 section 2.
var messageRules = [...]messageRule{
	msgSCCRQ:       {states: inConnection(connectionWaitRequest, connectionEstablished), onConnection: (*Connection).receiveSCCRQ},
	msgSCCRP:       {states: inConnection(connectionWaitReply), onConnection: (*Connection).receiveSCCRP},
	msgStopCCRQ:    {states: anyConnection, onConnection: (*Connection).receiveStopCCRQ},
	msgStopCCRP:    {states: inConnection(connectionWaitStop), onConnection: (*Connection).receiveStopCCRP},
	msgEchoRequest: {states: anyConnection, onConnection: (*Connection).receiveEchoRequest},
	msgEchoReply:   {states: anyConnection, onConnection: (*Connection).ignore}, // that something came is what counts

	msgOCRQ: {states: inConnection(connectionEstablished), onConnection: (*Connection).receiveOCRQ},
	msgOCRP: {find: (*Connection).callAwaitingReply, callStates: inCall(callWaitReply), onCall: (*Call).receiveOCRP},

	// A VPN has no incoming calls: they are refused, so that the other two messages never come.
	msgICRQ: {states: inConnection(connectionEstablished), onConnection: (*Connection).receiveICRQ},
	msgICRP: {},
	msgICCN: {},

	msgCallClear:      {find: (*Connection).callToClear, callStates: inCall(callEstablished), onCall: (*Call).receiveCallClear},
	msgCallDisconnect: {find: (*Connection).callToDisconnect, callStates: inCall(callWaitReply, callEstablished, callClearing), onCall: (*Call).receiveCallDisconnect},
	msgWANError:       {find: (*Connection).callOfOurID, callStates: inCall(callEstablished), onCall: (*Call).ignore},
	msgSetLinkInfo:    {find: (*Connection).callOfOurID, callStates: inCall(callEstablished), onCall: (*Call).ignore}, // GRE carries no async framing
}

// connectionStates and callStates are sets of states.
type (
	connectionStates uint8
	callStates       uint8
)

func inConnection(states ...connectionState) (set connectionStates) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

func inCall(states ...callState) (set callStates) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

var anyConnection = inConnection(connectionWaitRequest, connectionWaitReply, connectionEstablished, connectionWaitStop)

func (set connectionStates) has(s connectionState) bool { return set&(1<<s) != 0 }
func (set callStates) has(s callState) bool             { return set&(1<<s) != 0 }
