// Package interop has the tests against real servers: xl2tpd, pptpd, strongSwan
// and pppd in the lab (see lab/README.md). They run the program as a user would,
// as a process without any privilege (for PPTP, with CAP_NET_RAW alone, or with
// a broker that has it), in a network that has no way to the private network but
// the VPN.
//
//	make interop
//
// starts the lab, runs them and ends the lab; it needs root, for the lab alone.
package interop
