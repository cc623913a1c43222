// Package ipsec carries datagrams through ESP in transport mode (RFC 4303), in UDP (RFC 3948), as L2TP over IPsec needs it (RFC 3193).
// It needs no privilege: the kernel sees one UDP socket.
//
// A Transport is one ESP speaker behind one datagram socket, for one peer (client) or many (server). The layer above writes to it as
// to a UDP socket and knows nothing of ESP; below it is the socket that talks to the peers' NAT traversal port, usually 4500. Keys come
// from outside (IKE, package ike) as Pairs: an SA in each direction.
//
//	out   WriteDatagrams ─ peer's newest SA ─ inner UDP header │ trailer │ IV, encrypt, ICV ─> lower DatagramWriter
//	in    Receive ─ keepalive? IKE? ─ SPI ─ replay? ICV? decrypt ─ trailer, inner UDP header off ─> Handler.HandleDatagrams
//
// The way of a datagram is transport.go; a packet of one SA is in sa.go; the inner UDP header in udp.go; the transforms, by name and
// size, in transform.go and their ciphers in protection.go; which numbers were seen in replay.go; SAs come and go in database.go.
//
//	UDP 4500 │ SPI Seq │ IV │ inner UDP header, datagram, padding 1 2 3 …, pad length, next header │ ICV
//
// # Failing closed
//
// What has no SA is not sent: there is no way through a Transport in the clear. It stays so when an SA is removed or has carried all that
// it may. What does not verify is dropped and counted (Stats). Who negotiates the pairs also ends them: a Transport knows of their limits in
// packets and bytes, and nothing of their age.
//
// # Ownership
//
// A Transport belongs to the goroutine that calls Receive and Advance, its loop. Only WriteDatagrams, WriteIKE, Headroom, Tailroom, MTU
// and Stats may be called by other goroutines. It owns no goroutine, timer or socket. The Handler is called on the loop and may call
// back, except Receive and Advance.
package ipsec
