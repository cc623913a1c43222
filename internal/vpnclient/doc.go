// Package vpnclient dials one VPN server and gives the private network behind
// it as a stack: it resolves the server's name, opens the carrier's socket,
// brings up the tunnel, the session and PPP, and joins the packets to a
// [stack.Stack]. It dials once; internal/supervisor keeps a tunnel up.
package vpnclient
