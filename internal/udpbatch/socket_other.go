//go:build !linux

package udpbatch

import (
	"net"
	"net/netip"
)

func newEngine(socket *net.UDPConn, c Config, n *counters) (engine, error) {
	return newPortable(socket, c, n)
}

// askRouteMTU knows nothing here: 0.
func askRouteMTU(netip.Addr) int { return 0 }

// setBuffers asks for socket buffers, half as much each time the system refuses, and returns what it took.
func setBuffers(socket socket, read, write int) (int, int) {
	return accepted(socket.SetReadBuffer, read), accepted(socket.SetWriteBuffer, write)
}

func accepted(set func(bytes int) error, bytes int) int {
	for ; bytes >= 1<<16; bytes /= 2 {
		if set(bytes) == nil {
			return bytes
		}
	}
	return 0
}
