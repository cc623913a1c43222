// Package ppp is the PPP engine: one [Session] is one PPP link (RFC 1661) in either role, peer or authenticator.
//
// A Session is deterministic. Frames, packets, the time and randomness come in; frames, packets and the next deadline
// go out. It owns no goroutine, no timer and no socket: the carrier (L2TP, PPTP) calls it and keeps the clock.
//
//	carrier --Receive--> parseFrame -> [decode: MPPE, MPPC] -> IP packets, one batch --HandlePackets--> stack
//	                               \-> control packets -> LCP, authentication, CCP, IPCP, IPV6CP
//	stack --WritePackets--> [Seal: MPPC, MPPE] -> frame header in the headroom --WriteFrames--> carrier
//
// The files, in the order of a link's life:
//
//	frame.go       RFC 1661 section 2: the frame; section 5: the control packet
//	option.go      RFC 1661 section 6: configuration options
//	fsm_table.go   RFC 1661 section 4.1: the automaton as a table
//	fsm.go         the automaton that LCP and all network control protocols share
//	config.go      what a link may agree to, and what it did agree to
//	session.go     the Session and the way of a packet inward
//	transmit.go    the way of a packet outward
//	phase.go       the phases of a link (RFC 1661 section 3)
//	lcp.go         RFC 1661 section 6, RFC 1570: Link Control Protocol
//	auth.go …      RFC 1334, 1994, 2433, 2759, 3748: authentication
//	ccp.go         RFC 1962: Compression Control Protocol: agrees on what package mppe does, and says which packets may pass
//	ipcp.go        RFC 1332, RFC 1877: IPv4
//	ipv6cp.go      RFC 5072: IPv6
//	errors.go      how a link ends, with stage, cause and advice
//	stats.go       counters
//
// Words: a frame is PPP, a packet is IP, a datagram is UDP. A control packet is what RFC 1661 section 5 calls an LCP
// packet: code, identifier, length, data.
package ppp
