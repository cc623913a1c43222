// Package stack is the private network as seen from inside the tunnel: a TCP/IP stack of its own, in this process, behind one PPP
// link. It is the only package that imports gVisor. It dials, listens and resolves names; nothing in it touches the host's network.
//
//	in    HandlePackets -> joiner.plan: consecutive TCP segments of a flow become one run (join.go)
//	                    -> deliver: one copy into a gVisor buffer (deliver.go) -> gVisor TCP, UDP, ICMP -> Conn.Read
//	out   Conn.Write -> gVisor TCP, super-segments of up to 64 KB -> link.WritePacket (link.go)
//	                 -> cutter: packets of one MSS each with headroom (cut.go) -> PacketWriter.WritePackets
//
// Both ways are straight calls: there is no queue and no goroutine between gVisor and the link. gVisor calls the link while it holds a
// connection's lock; the link therefore takes no lock that HandlePackets needs.
//
// Inbound, nothing is accepted that nobody asked for: a SYN for a port without a listener is answered with RST and a datagram with
// ICMP Port Unreachable, as RFC 9293 section 3.5.2 and RFC 1122 section 3.2.2.1 ask of a host. Silence would hide nothing from a
// network that routes to us anyway, and would leave the far ends of connections that died with an earlier session of the same inner
// address waiting for minutes.
package stack
