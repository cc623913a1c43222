package vpnserver

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gateway/stack"
)

const (
	outDialTimeout = 10 * time.Second
	outUDPIdle     = time.Minute
	outUDPBuffer   = 64 << 10
)

// letOut carries a client's connection to an address outside the private
// network, if the operator has listed it. The stack calls it on a goroutine of
// its own for each connection.
func (s *Server) letOut(f *stack.Forward) {
	listed := func(p netip.Prefix) bool { return p.Contains(f.Dst.Addr()) }
	if !slices.ContainsFunc(s.config.Out, listed) {
		f.Reject()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), outDialTimeout)
	defer cancel()
	outer, err := (&net.Dialer{}).DialContext(ctx, f.Network, f.Dst.String())
	if err != nil {
		s.config.Log.Debug("cannot let a client out", "client", f.Src, "to", f.Dst, "cause", err)
		f.Reject()
		return
	}
	defer outer.Close()
	inner, err := f.Accept()
	if err != nil {
		return
	}
	defer inner.Close()
	if f.Network == "udp" {
		carryDatagrams(inner, outer)
	} else {
		carryStreams(inner, outer)
	}
}

// carryStreams copies both ways until both ends have said that they are done.
func carryStreams(a, b net.Conn) {
	var group sync.WaitGroup
	one := func(to, from net.Conn) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}
	group.Go(func() { one(a, b) })
	group.Go(func() { one(b, a) })
	group.Wait()
}

// carryDatagrams copies both ways until neither side has sent for a while.
func carryDatagrams(a, b net.Conn) {
	var group sync.WaitGroup
	one := func(to, from net.Conn) {
		buf := make([]byte, outUDPBuffer)
		for {
			from.SetReadDeadline(time.Now().Add(outUDPIdle))
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			to.SetReadDeadline(time.Now().Add(outUDPIdle)) // it lives, too
			to.Write(buf[:n])
		}
	}
	group.Go(func() { one(a, b) })
	group.Go(func() { one(b, a) })
	group.Wait()
}
