// Package vpnserver is a VPN server in the process: an LNS for L2TP (lns.go)
// and, given a socket for GRE, a PAC for PPTP (pac.go). It authenticates its
// clients, gives them addresses and DNS servers, and lets them reach a built-in
// private network, which is a stack of its own with a web site, echo, DNS and a
// far end for benchmarks.
//
// It is made of the same rooms as the client, in their other roles, so that the
// demo, the tests and the benchmarks run the real protocols from end to end.
// Being our own peer proves nothing about other people's servers: interop/ does.
package vpnserver
