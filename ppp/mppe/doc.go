// Package mppe implements what travels under PPP protocol 00FD when CCP agreed on its option 18: Microsoft Point-To-Point
// Encryption (RFC 3078, keys of RFC 3079), Microsoft Point-To-Point Compression (RFC 2118, package mppc) or both, which
// means compress first, then encrypt.
//
//	00FD | A B C D coherency count | RC4( MPPC( protocol field, information ) )
//
// An Encoder makes the part after 00FD, a Decoder takes it apart, each for one direction of one link. Both work in place
// and allocate nothing per packet. They own the coherency count, the walk of the session key from packet to packet, and
// the recovery after loss; CCP's part of that is to carry Reset-Requests: Decoder.NeedsReset says when to send one,
// Encoder.Reset is called when one arrives.
//
// Policy holds the rules of the negotiation as pure functions. Neither goroutines nor timers are here.
//
// RC4, 40-bit keys and the MS-CHAP passwords that the keys come from are broken cryptography; nothing in this package
// makes them safe. There is no integrity check either: whoever is on the path can flip bits.
package mppe
