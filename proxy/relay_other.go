//go:build !unix

package proxy

import "net"

func newSource(conn net.Conn, b *buffers) source {
	return &connSource{conn: conn, buffers: b}
}
