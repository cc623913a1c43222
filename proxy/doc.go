// Package proxy offers a private network to local programs: SOCKS5 and HTTP
// proxies over whatever Dialer, Resolver and PacketListener it is given.
//
//	client ── accept.go ──┬─ socks5.go ── handshake by go-socks5 ─┬─ CONNECT ───────── relay.go ── target
//	                      │                                       └─ UDP ASSOCIATE ── associate.go
//	                      └─ http.go ─────┬─ CONNECT ──────────────────────────────── relay.go ── target
//	                                      └─ any other method ── net/http forwarding ─────────── target
//
// The package never dials, resolves or listens towards a target by itself:
// everything that leaves goes through the three interfaces of Config. It holds
// no protocol below TCP and UDP.
//
// Who does what:
//
//   - server.go: what a Server is, Serve and Shutdown.
//   - accept.go: the accept loop, the connection cap, telling SOCKS5 from HTTP on one port.
//   - auth.go: user names and passwords.
//   - socks5.go: RFC 1928 greeting and replies; requests and RFC 1929 through the library.
//   - associate.go, outlet.go, udpheader.go: UDP ASSOCIATE, its sockets towards the targets, its datagram header.
//   - http.go: CONNECT and forwarding after RFC 9110 and RFC 9112.
//   - verdict.go: why a target could not be reached, as a SOCKS reply and as an HTTP status.
//   - relay.go: the one loop that copies bytes both ways.
//   - workers.go: goroutines that are kept for the next connection.
package proxy
