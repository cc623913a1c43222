// Package carrier runs protocol engines: it joins a datagram socket, a tunnel
// engine and the PPP links above it, and owns the one goroutine and the one
// timer that they need. (PPTP has a TCP connection, too: a goroutine for each
// reads it and hands the loop what comes.)
//
// The way of a packet, inbound, is one call stack on the goroutine of
// [Loop.Run], from top to bottom:
//
//	Socket.Read → L2TP.Receive → l2tp.Endpoint → Link.HandleFrames → ppp.Session → the network above
//
// Outbound it is one call stack on the goroutine that has a packet to send:
//
//	the network above → ppp.Session.WritePackets → l2tp.Session.WriteFrames → Socket.WriteDatagrams
//
// L2TP over IPsec has one storey more at the bottom: inbound Socket.Read →
// IPsec.Receive → ipsec.Transport, which opens ESP in place, → L2TP.Receive;
// outbound l2tp.Session.WriteFrames → ipsec.Transport.WriteDatagrams, which
// seals in place, → Socket.WriteDatagrams. IKE has the same socket and loop.
//
// With PPTP it is the same with PPTP, pptp.Endpoint, pptp.Call and
// Socket.WritePackets, the socket being one for GRE.
//
// Both roles use the same package: the client (internal/vpnclient) and the
// in-process server (internal/vpnserver).
package carrier
