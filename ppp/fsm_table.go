package ppp

// A state of the automaton (RFC 1661 section 4.2).
type state uint8

const (
	stateInitial state = iota
	stateStarting
	stateClosed
	stateStopped
	stateClosing
	stateStopping
	stateReqSent
	stateAckRcvd
	stateAckSent
	stateOpened
	numStates
)

var stateNames = [numStates]string{
	"Initial", "Starting", "Closed", "Stopped", "Closing", "Stopping", "Req-Sent", "Ack-Rcvd", "Ack-Sent", "Opened",
}

func (s state) String() string { return stateNames[s] }

// timed tells whether the Restart timer runs in this state (RFC 1661 section 4.1).
func (s state) timed() bool { return s >= stateClosing && s <= stateAckSent }

// An event of the automaton (RFC 1661 section 4.3).
type event uint8

const (
	eventUp   event = iota // lower layer is up
	eventDown              // lower layer is down
	eventOpen              // administrative open
	eventClose
	eventTimeout     // TO+: the Restart counter is not yet zero
	eventLastTimeout // TO-
	eventGoodRequest // RCR+
	eventBadRequest  // RCR-
	eventAck         // RCA
	eventNak         // RCN: Configure-Nak or Configure-Reject
	eventTerminateRequest
	eventTerminateAck
	eventUnknownCode   // RUC
	eventMinorReject   // RXJ+: a Code-Reject or Protocol-Reject that can be lived with
	eventMajorReject   // RXJ-
	eventEchoOrSimilar // RXR
	numEvents
)

var eventNames = [numEvents]string{
	"Up", "Down", "Open", "Close", "TO+", "TO-", "RCR+", "RCR-", "RCA", "RCN", "RTR", "RTA", "RUC", "RXJ+", "RXJ-", "RXR",
}

func (e event) String() string { return eventNames[e] }

// actions is a set of the actions of RFC 1661 section 4.4. Those of one cell are always done in the order in which
// they stand here, which is the order of the RFC's table.
type actions uint16

const (
	tld actions = 1 << iota // This-Layer-Down
	irc                     // Initialize-Restart-Count
	zrc                     // Zero-Restart-Count
	scr                     // Send-Configure-Request
	sca                     // Send-Configure-Ack
	scn                     // Send-Configure-Nak or -Reject
	str                     // Send-Terminate-Request
	sta                     // Send-Terminate-Ack
	scj                     // Send-Code-Reject
	ser                     // Send-Echo-Reply, or what else the code asks for
	tls                     // This-Layer-Started
	tlf                     // This-Layer-Finished
	tlu                     // This-Layer-Up
)

// A transition is one cell of the table: what to do and where to go.
type transition struct {
	actions  actions
	next     state
	possible bool // false: the RFC says that the event cannot happen in this state
}

// to returns a cell.
func to(next state, a actions) transition { return transition{a, next, true} }

// never is a cell of an event that cannot happen in that state.
var never = transition{}

// transitions is the table of RFC 1661 section 4.1: a row for each event, a column for each state, with neither the
// passive nor the restart option.
var transitions = [numEvents][numStates]transition{
	eventUp: {
		to(stateClosed, 0), to(stateReqSent, irc|scr),
		never, never, never, never, never, never, never, never,
	},
	eventDown: {
		never, never, to(stateInitial, 0), to(stateStarting, tls),
		to(stateInitial, 0), to(stateStarting, 0), to(stateStarting, 0), to(stateStarting, 0), to(stateStarting, 0), to(stateStarting, tld),
	},
	eventOpen: {
		to(stateStarting, tls), to(stateStarting, 0), to(stateReqSent, irc|scr), to(stateStopped, 0),
		to(stateStopping, 0), to(stateStopping, 0), to(stateReqSent, 0), to(stateAckRcvd, 0), to(stateAckSent, 0), to(stateOpened, 0),
	},
	eventClose: {
		to(stateInitial, 0), to(stateInitial, tlf), to(stateClosed, 0), to(stateClosed, 0),
		to(stateClosing, 0), to(stateClosing, 0), to(stateClosing, irc|str), to(stateClosing, irc|str), to(stateClosing, irc|str), to(stateClosing, tld|irc|str),
	},
	eventTimeout: {
		never, never, never, never,
		to(stateClosing, str), to(stateStopping, str), to(stateReqSent, scr), to(stateReqSent, scr), to(stateAckSent, scr), never,
	},
	eventLastTimeout: {
		never, never, never, never,
		to(stateClosed, tlf), to(stateStopped, tlf), to(stateStopped, tlf), to(stateStopped, tlf), to(stateStopped, tlf), never,
	},
	eventGoodRequest: {
		never, never, to(stateClosed, sta), to(stateAckSent, irc|scr|sca),
		to(stateClosing, 0), to(stateStopping, 0), to(stateAckSent, sca), to(stateOpened, sca|tlu), to(stateAckSent, sca), to(stateAckSent, tld|scr|sca),
	},
	eventBadRequest: {
		never, never, to(stateClosed, sta), to(stateReqSent, irc|scr|scn),
		to(stateClosing, 0), to(stateStopping, 0), to(stateReqSent, scn), to(stateAckRcvd, scn), to(stateReqSent, scn), to(stateReqSent, tld|scr|scn),
	},
	eventAck: {
		never, never, to(stateClosed, sta), to(stateStopped, sta),
		to(stateClosing, 0), to(stateStopping, 0), to(stateAckRcvd, irc), to(stateReqSent, scr), to(stateOpened, irc|tlu), to(stateReqSent, tld|scr),
	},
	eventNak: {
		never, never, to(stateClosed, sta), to(stateStopped, sta),
		to(stateClosing, 0), to(stateStopping, 0), to(stateReqSent, irc|scr), to(stateReqSent, scr), to(stateAckSent, irc|scr), to(stateReqSent, tld|scr),
	},
	eventTerminateRequest: {
		never, never, to(stateClosed, sta), to(stateStopped, sta),
		to(stateClosing, sta), to(stateStopping, sta), to(stateReqSent, sta), to(stateReqSent, sta), to(stateReqSent, sta), to(stateStopping, tld|zrc|sta),
	},
	eventTerminateAck: {
		never, never, to(stateClosed, 0), to(stateStopped, 0),
		to(stateClosed, tlf), to(stateStopped, tlf), to(stateReqSent, 0), to(stateReqSent, 0), to(stateAckSent, 0), to(stateReqSent, tld|scr),
	},
	eventUnknownCode: {
		never, never, to(stateClosed, scj), to(stateStopped, scj),
		to(stateClosing, scj), to(stateStopping, scj), to(stateReqSent, scj), to(stateAckRcvd, scj), to(stateAckSent, scj), to(stateOpened, scj),
	},
	eventMinorReject: {
		never, never, to(stateClosed, 0), to(stateStopped, 0),
		to(stateClosing, 0), to(stateStopping, 0), to(stateReqSent, 0), to(stateReqSent, 0), to(stateAckSent, 0), to(stateOpened, 0),
	},
	eventMajorReject: {
		never, never, to(stateClosed, tlf), to(stateStopped, tlf),
		to(stateClosed, tlf), to(stateStopped, tlf), to(stateStopped, tlf), to(stateStopped, tlf), to(stateStopped, tlf), to(stateStopping, tld|irc|str),
	},
	eventEchoOrSimilar: {
		never, never, to(stateClosed, 0), to(stateStopped, 0),
		to(stateClosing, 0), to(stateStopping, 0), to(stateReqSent, 0), to(stateAckRcvd, 0), to(stateAckSent, 0), to(stateOpened, ser),
	},
}
