// Package l2tp speaks L2TP version 2 (RFC 2661) as LAC (the side that dials) and as LNS (the side that answers), with one engine for
// both.
//
// An Endpoint is one speaker behind one datagram socket. It holds any number of Tunnels (control connections), a Tunnel any number
// of Sessions, and a Session carries the frames of one PPP link.
//
//	SCCRQ  ->           Endpoint.Dial          ICRQ  ->            Tunnel.OpenSession
//	       <-  SCCRP                                  <-  ICRP
//	SCCCN  ->           TunnelHandler.TunnelUp ICCN  ->            SessionHandler.SessionUp
//	       <-  ZLB                                    <-  ZLB
//
// The way of a message in: Endpoint.Receive (endpoint.go) cuts off the header (header.go). Data goes to Session.receive (session.go),
// past the reorder window if it is sequenced (reorder.go), and up in batches. Control goes to its Tunnel, where delivery (reliable.go)
// puts it in order; parseMessage (message.go) checks its AVPs against avp_table.go, and message_table.go says in which state which
// function takes it. The way out: a handler in handshake.go, tunnel.go or session.go composes a message and hands it to delivery.
//
// # Ownership
//
// An Endpoint and everything in it belongs to the goroutine that calls Receive and Advance. Only Session.WriteFrames, Headroom,
// Tailroom, MTU and the Stats methods may be called by other goroutines. The engine owns no goroutine, timer or socket. Handlers are
// called on the owner's goroutine and may call back into the Endpoint, except Receive and Advance.
//
// Calls that can set a deadline without returning it (Dial, OpenSession, CallOut, Tunnel.Close, Session.Close) are followed by a look
// at Endpoint.NextDeadline when they are made outside Receive and Advance.
package l2tp
