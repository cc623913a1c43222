// Package udpbatch is a UDP socket that moves datagrams in batches, made for one carrier loop: one goroutine reads, any goroutine writes.
//
//	in    recvmmsg, each message up to 64 KiB joined by UDP_GRO  ->  cut  ->  []Message
//	out   datagrams -> runs of equal size -> one sendmmsg, each message up to 64 segments split by UDP_SEGMENT
//
// On Linux every step has an off switch (Config.Disable...) and gives way by itself to the next slower one when the kernel refuses it.
// Elsewhere, and as the twin that the tests compare with, portable.go moves one datagram a call.
package udpbatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultBuffer   = 4 << 20                // bytes asked of the kernel for each of the two socket buffers
	defaultOuterMTU = 1500                   // bytes of an outer IP packet: Ethernet
	sendPatience    = 250 * time.Millisecond // the longest a WriteDatagrams waits, in all, for a full send buffer
	routeMTUAge     = 30 * time.Second       // how long MTU trusts what it learnt of a route
)

// ErrSendBufferFull says that the kernel took no datagram for a quarter of a second; those that it did not take are dropped.
var ErrSendBufferFull = errors.New("udpbatch: send buffer full")

// A PeerError is an ICMP error in answer to a datagram sent to Addr, such as ECONNREFUSED for "port unreachable". It ends
// nothing: anyone who knows the addresses can forge it, so it is a hint for the user and a reason to try again, no more.
type PeerError struct {
	Addr netip.AddrPort // where the datagram was sent
	Err  syscall.Errno
}

func (e *PeerError) Error() string { return fmt.Sprintf("udpbatch: %v: %v", e.Addr, e.Err) }

// Unwrap returns the errno, so that errors.Is(err, syscall.ECONNREFUSED) works.
func (e *PeerError) Unwrap() error { return e.Err }

// Config says how to open a Conn. The zero value is a socket of both families on an ephemeral port, with everything on.
type Config struct {
	Local   netip.AddrPort // address and port to bind; an invalid address means any, port 0 an ephemeral one
	Network string         // "udp4", "udp6" or "udp" (both families on one socket); "" is "udp"

	DisableBatch bool // one message a system call instead of recvmmsg and sendmmsg
	DisableGSO   bool // never let the kernel split a run of datagrams (UDP_SEGMENT)
	DisableGRO   bool // never let the kernel join received datagrams (UDP_GRO)

	ReadBuffer  int // bytes asked for SO_RCVBUF, 0 is 4 MiB; the system's limit applies and is accepted
	WriteBuffer int // bytes asked for SO_SNDBUF, 0 is 4 MiB

	OuterMTU int // bytes of the largest outer IP packet; 0 asks the route and takes at most 1500

	Log *slog.Logger // nil is silence
}

// A Message is what one source sent.
type Message struct {
	From      netip.AddrPort // never an IPv4-mapped IPv6 address
	Datagrams [][]byte       // in order of arrival; valid, and the reader's to overwrite, until the next Read
}

// Stats are totals since Listen.
type Stats struct {
	Batch, GSO, GRO bool // what is in use now

	ReceiveCalls, ReceivedDatagrams, ReceivedBytes uint64
	ReceiveDrops                                   uint64 // datagrams the kernel had no receive buffer for, as of the last one received (Linux only)
	ReceiveTruncated                               uint64 // messages that did not fit and were thrown away
	PeerErrors                                     uint64 // ICMP errors taken from the kernel

	SendCalls, SentDatagrams, SentBytes uint64
	SendWaits                           uint64 // calls of WriteDatagrams that found the send buffer full (Linux only)
	SendDrops                           uint64 // datagrams that WriteDatagrams gave up
}

// counters are the living form of Stats. A call adds once to each, however many datagrams it moved.
type counters struct {
	receiveCalls, receivedDatagrams, receivedBytes            atomic.Uint64
	receiveDrops, receiveTruncated, peerErrors                atomic.Uint64
	sendCalls, sentDatagrams, sentBytes, sendWaits, sendDrops atomic.Uint64
}

// An engine is one way to move datagrams through a socket.
type engine interface {
	read() ([]Message, error)
	write(datagrams [][]byte, offset int, to netip.AddrPort) error
	using() (batch, gso, gro bool)
}

// socket is what a Conn needs of a *net.UDPConn or *net.IPConn beside its engine.
type socket interface {
	syscall.Conn
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	SetReadDeadline(t time.Time) error
	Close() error
}

const udpHeader = 8 // bytes (RFC 768)

// A Conn is one UDP socket, not connected: it exchanges datagrams with any number of peers.
// Read belongs to one goroutine; everything else may be called by any.
type Conn struct {
	socket   socket
	engine   engine
	counters counters
	local    netip.AddrPort
	header   int // bytes that the kernel puts between IP header and payload: UDP's, or none on a raw socket
	outerMTU int

	asked, readBuffer, writeBuffer int

	route atomic.Pointer[route] // the last answer of MTU
}

// route is what MTU learnt about the way to a peer.
type route struct {
	to      netip.Addr
	mtu     int // bytes of an IP packet
	learned time.Time
}

// Listen opens a socket. The context bounds the opening only.
func Listen(ctx context.Context, c Config) (*Conn, error) { return listen(ctx, c, newEngine) }

func listen(ctx context.Context, c Config, engineFor func(*net.UDPConn, Config, *counters) (engine, error)) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("udpbatch: %w", err)
	}
	c = c.withDefaults()
	socket, err := (&net.ListenConfig{}).ListenPacket(ctx, c.Network, listenAddress(c.Local))
	if err != nil {
		return nil, fmt.Errorf("udpbatch: %w", err)
	}
	udp, ok := socket.(*net.UDPConn)
	if !ok {
		socket.Close()
		return nil, fmt.Errorf("udpbatch: network %q is not UDP", c.Network)
	}
	conn := &Conn{
		socket:   udp,
		local:    unmap(udp.LocalAddr().(*net.UDPAddr).AddrPort()),
		header:   udpHeader,
		outerMTU: c.OuterMTU,
		asked:    max(c.ReadBuffer, c.WriteBuffer),
	}
	conn.readBuffer, conn.writeBuffer = setBuffers(udp, c.ReadBuffer, c.WriteBuffer)
	if conn.engine, err = engineFor(udp, c, &conn.counters); err != nil {
		udp.Close()
		return nil, err
	}
	batch, gso, gro := conn.engine.using()
	c.Log.Debug("udp socket open", "local", conn.local, "read_buffer", conn.readBuffer, "write_buffer", conn.writeBuffer,
		"batch", batch, "gso", gso, "gro", gro)
	return conn, nil
}

func (c Config) withDefaults() Config {
	if plain {
		c.DisableBatch, c.DisableGSO, c.DisableGRO = true, true, true
	}
	if c.Network == "" {
		c.Network = "udp"
	}
	if c.ReadBuffer <= 0 {
		c.ReadBuffer = defaultBuffer
	}
	if c.WriteBuffer <= 0 {
		c.WriteBuffer = defaultBuffer
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func listenAddress(local netip.AddrPort) string {
	if local.Addr().IsValid() {
		return local.String()
	}
	return fmt.Sprintf(":%d", local.Port())
}

// Read waits for datagrams and returns all that are there, up to one batch: consecutive ones of one source share a Message.
// It fails with os.ErrDeadlineExceeded, with net.ErrClosed, with a *PeerError (Linux only; read on), or with an error of the socket.
// A deadline in the past fails even when datagrams wait.
func (c *Conn) Read() ([]Message, error) {
	messages, err := c.engine.read()
	if err != nil {
		return nil, readError(err)
	}
	return messages, nil
}

// readError strips the wrapping of the two expected endings, so that a caller can tell them by comparing.
func readError(err error) error {
	if peer, ok := err.(*PeerError); ok {
		return peer
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	}
	return fmt.Errorf("udpbatch: read: %w", err)
}

// WriteDatagrams sends datagrams[i][offset:] to one peer, in order. The buffers are borrowed until it returns and are not changed.
// When the send buffer is full it waits up to a quarter of a second in all, then fails with ErrSendBufferFull. After an error
// some of the datagrams may have been sent; the others are dropped. No error but net.ErrClosed is final.
func (c *Conn) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	if len(datagrams) == 0 {
		return nil
	}
	if !to.IsValid() || to.Port() == 0 && c.header == udpHeader {
		c.counters.sendDrops.Add(uint64(len(datagrams)))
		return fmt.Errorf("udpbatch: send to %v: %w", to, syscall.EINVAL)
	}
	err := c.engine.write(datagrams, offset, to)
	if err == nil || err == ErrSendBufferFull {
		return err
	}
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return fmt.Errorf("udpbatch: send to %v: %w", to, err)
}

// Headroom is how many bytes WriteDatagrams needs in front of each payload: none.
func (c *Conn) Headroom() int { return 0 }

// Tailroom is how many bytes WriteDatagrams needs behind each payload: none.
func (c *Conn) Tailroom() int { return 0 }

// MTU is the largest payload, in bytes, that reaches the peer in one unfragmented packet as far as this host knows: the MTU of
// the route (at most 1500) or Config.OuterMTU, less the IP and UDP headers. Larger datagrams are sent too, in fragments.
func (c *Conn) MTU(to netip.AddrPort) int {
	addr := to.Addr().Unmap()
	headers := 20 + c.header
	if addr.Is6() {
		headers = 40 + c.header
	}
	if c.outerMTU > 0 {
		return max(c.outerMTU-headers, 0)
	}
	return c.routeMTU(addr) - headers
}

func (c *Conn) routeMTU(to netip.Addr) int {
	now := time.Now()
	if r := c.route.Load(); r != nil && r.to == to && now.Sub(r.learned) < routeMTUAge {
		return r.mtu
	}
	mtu := defaultOuterMTU
	// RFC 791 makes 68 the least MTU of IPv4; a route that claims less knows nothing.
	if known := askRouteMTU(to); known >= 68 {
		mtu = min(mtu, known)
	}
	c.route.Store(&route{to, mtu, now})
	return mtu
}

// SetReadDeadline makes Read fail with os.ErrDeadlineExceeded from t on; the zero time means never. It also ends a Read under way.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if err := c.socket.SetReadDeadline(t); err != nil {
		return readError(err)
	}
	return nil
}

// Close ends a Read under way and makes everything else fail with net.ErrClosed. It waits for writers that wait for the send buffer.
func (c *Conn) Close() error {
	if err := c.socket.Close(); err != nil {
		return readError(err)
	}
	return nil
}

// LocalAddr is the address and port the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// BufferSizes tells how many bytes were asked for the socket's buffers (the larger of the two wishes) and how many were granted.
func (c *Conn) BufferSizes() (asked, read, write int) { return c.asked, c.readBuffer, c.writeBuffer }

// Stats returns the totals so far.
func (c *Conn) Stats() Stats {
	batch, gso, gro := c.engine.using()
	n := &c.counters
	return Stats{
		Batch: batch, GSO: gso, GRO: gro,
		ReceiveCalls: n.receiveCalls.Load(), ReceivedDatagrams: n.receivedDatagrams.Load(), ReceivedBytes: n.receivedBytes.Load(),
		ReceiveDrops: n.receiveDrops.Load(), ReceiveTruncated: n.receiveTruncated.Load(),
		PeerErrors: n.peerErrors.Load(),
		SendCalls:  n.sendCalls.Load(), SentDatagrams: n.sentDatagrams.Load(), SentBytes: n.sentBytes.Load(),
		SendWaits: n.sendWaits.Load(), SendDrops: n.sendDrops.Load(),
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
