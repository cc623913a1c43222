// Package pptp speaks PPTP (RFC 2637) as PNS (the side that dials) and as PAC (the side that answers), with one engine for both.
//
// An Endpoint is one speaker behind one GRE socket. It holds any number of Connections (control connections, each over a TCP
// connection of its own), a Connection any number of Calls, and a Call carries the frames of one PPP link in enhanced GRE.
//
//	Start-Control-Connection-Request ->           Endpoint.Dial              Outgoing-Call-Request ->           Connection.OpenCall
//	       <- Start-Control-Connection-Reply      ConnectionHandler.ConnectionUp       <- Outgoing-Call-Reply   CallHandler.SessionUp
//
// The way of a control message in: Connection.ReceiveControl (connection.go) cuts the TCP stream by the messages' lengths; parseMessage
// (message.go) checks one against its layout; message_table.go says in which state which function takes it. The way of a GRE
// packet in: Endpoint.Receive (endpoint.go) reads the header (gre.go) and finds the Call by its Call ID; Call.receive (call.go) notes
// what to acknowledge (acknowledgment.go) and puts the frames in order (reorder.go); they go up in batches.
//
// # Ownership
//
// An Endpoint and everything in it belongs to one goroutine, the one that calls Receive and Advance. Only Call.WriteFrames, Headroom,
// Tailroom, MTU and the Stats methods may be called by other goroutines. The engine owns no goroutine, timer or socket. Handlers are
// called on the owner's goroutine and may call back into the Endpoint, except Receive, Advance, ReceiveControl and ControlClosed.
//
// Calls that can set a deadline without returning it (Dial, Accept, OpenCall, Connection.Close, Call.Close) are followed by a look at
// Endpoint.NextDeadline when they are made outside Receive, Advance and ReceiveControl.
package pptp
