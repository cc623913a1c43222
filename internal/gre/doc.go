// Package gre moves GRE packets (IP protocol 47), which is what PPTP carries PPP in, in batches, made for one carrier loop: one
// goroutine reads, any goroutine writes.
//
//	Conn      a raw IPv4 socket: opened here, which takes CAP_NET_RAW, or adopted from someone who may open it (Linux only)
//	Network   links within one process, which take no privilege: for the demo and for tests
//
// A raw socket gets the GRE packets of everybody. So it is connected to the one server where there is only one, and a filter in the
// kernel lets only enhanced GRE with the Call IDs in use pass (Expect); until Expect is called nothing passes.
package gre
