// Package grebroker lets programs without privilege have a raw GRE socket: a small server that holds CAP_NET_RAW and does nothing but open
// such sockets, connect each to the address that the client names, and pass it over a Unix socket (SCM_RIGHTS).
//
// Whom it serves is decided by the client's user ID, as the kernel tells it (SO_PEERCRED). It serves only those it trusts: a raw socket that
// is handed over is the client's, and with IP_HDRINCL the client can write any IPv4 packet to it.
//
// The protocol is one message each way on a SOCK_SEQPACKET socket:
//
//	client   version (1 byte, 1)  server's IPv4 address (4 bytes)
//	broker   0 (1 byte), with the socket as SCM_RIGHTS;  or 1 (1 byte) and why not, in words
package grebroker
