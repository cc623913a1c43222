// Package tunnel is the floor of the carriers: the protocols that bring PPP frames from one end of the Internet to the other.
// The package itself is empty; each carrier lives in a package of its own and knows none of the others.
//
//	PPP frames                     ppp (one Session per link)
//	─────────────────────────────────────────────────────────────
//	l2tp.Session     l2tp.Session          pptp.Call               a link over a carrier: WriteFrames down, HandleFrames up
//	l2tp.Tunnel      l2tp.Tunnel           pptp control connection  negotiates and keeps the links
//	l2tp.Endpoint    l2tp.Endpoint
//	     │           ipsec (ESP, IKEv1)         │
//	    UDP               UDP              TCP + enhanced GRE
//
// All carriers are engines in the same sense: bytes, the time and randomness come in, bytes and the next deadline go out. None
// owns a goroutine, a timer or a socket; the loop that owns the socket drives them, and everything but writing frames and reading
// counters belongs to that loop's goroutine.
//
// Words: a frame is PPP's, a packet is IP's, a datagram is UDP's. Buffers are borrowed until the call that hands them over returns.
//
// What the carriers implement:
//
//	l2tp       RFC 2661 (L2TPv2), RFC 3145 (disconnect cause); as LAC and as LNS
//	pptp       RFC 2637; as PNS and as PAC
//	ipsec      RFC 4303 (ESP), RFC 3948 (UDP encapsulation), RFC 3193 (L2TP over IPsec)
//	ipsec/ike  RFC 2407, 2408, 2409 (IKEv1), RFC 3947 (NAT traversal), RFC 3706 (dead peer detection)
package tunnel
