// Package ike speaks IKE version 1 (RFC 2407, 2408, 2409) as initiator and as responder, with one engine for both: what an L2TP client or
// server needs of it, with ESP in UDP always (RFC 3947).
//
// An Endpoint is one speaker behind one datagram socket. It holds a Peer for each other side; a Peer has ISAKMP SAs (phase 1, phase1.go), and
// under their protection negotiates pairs of ESP SAs (phase 2, quick.go), which it hands to its Handler. Both are renewed before they end
// (peer.go).
//
//	Endpoint.Dial   Main Mode, 6 messages, or Aggressive Mode, 3    isakmpSA: who the peer is, and keys
//	                Quick Mode, 3 messages                          Handler.SAInbound, Handler.SAUp: ESP can flow
//	                Informational: DPD, Delete, errors              Handler.SADown, Handler.Down
//
// The way of a message in: Endpoint.Receive (endpoint.go) reads the header (message.go), finds the SA by its cookies, puts fragments together
// (fragment.go), and hands it to Main or Aggressive Mode (phase1.go), Quick Mode (quick.go) or Informational (informational.go). The way out:
// a composer (message.go) puts payloads together, keys (keys.go) seal them, a transmission (transmission.go) sends and repeats them.
// proposal.go is the language of SA payloads, algorithm.go has the tables of what there is.
//
// UDP encapsulation is forced: an initiator sends a NAT-D that cannot match, so that the responder finds it behind a NAT, and goes on over
// the NAT traversal port. There is no raw ESP.
//
// The ESP that is agreed on carries one UDP port of ours and one of the peer's. Ours as initiator is drawn for each Dial, and 1701 if the
// responder does not take that (peer.go, fallBack).
//
// # Ownership
//
// An Endpoint and everything in it belongs to the goroutine that calls Receive and Advance. Only Stats may be called by others. The engine
// owns no goroutine, timer or socket. Handlers are called on the owner's goroutine and may call back into the Endpoint, except Receive and
// Advance.
//
// Calls that can set a deadline without returning it (Dial, Peer.Close) are followed by a look at Endpoint.NextDeadline when they are made
// outside Receive and Advance.
package ike
