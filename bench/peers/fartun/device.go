// Package fartun is an in-process IPv4 stack behind a tun.Device that moves
// packets in batches: the stack hands out segments of up to 60 KiB, which are
// cut to the MTU here, and consecutive TCP segments that arrive are joined
// before the stack sees them. So the peer's far end is as good as ours, and not
// what a comparison measures.
package fartun

import (
	"errors"
	"net/netip"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nicID      = 1
	gsoMaxSize = 60 << 10 // bytes of a segment that the stack hands out
	batchSize  = 128      // packets that the tunnel takes or gives at a time
	queueSize  = 1024     // segments that wait for the tunnel; then the stack waits
)

// A Device is a stack's link endpoint (see endpoint) and, to a tunnel, its tun.Device.
type Device struct {
	Stack *stack.Stack

	mtu        uint32
	dispatcher stack.NetworkDispatcher
	out        chan *stack.PacketBuffer
	events     chan tun.Event
	done       chan struct{}
	once       sync.Once

	cut  cutter // of Read's caller
	join joiner // of Write's caller
}

// New makes a stack with one address.
func New(addr netip.Addr, mtu int) (*Device, error) {
	d := &Device{mtu: uint32(mtu), out: make(chan *stack.PacketBuffer, queueSize),
		events: make(chan tun.Event, 1), done: make(chan struct{})}
	d.join.deliver = func(p *stack.PacketBuffer) {
		d.dispatcher.DeliverNetworkPacket(header.IPv4ProtocolNumber, p)
		p.DecRef()
	}
	d.Stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := d.configure(addr); err != nil {
		return nil, errors.New("fartun: " + err.String())
	}
	d.events <- tun.EventUp
	return d, nil
}

func (d *Device) configure(addr netip.Addr) tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 8 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 8 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &receive, &send, &moderate} {
		if err := d.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return err
		}
	}
	if err := d.Stack.CreateNIC(nicID, endpoint{d}); err != nil {
		return err
	}
	d.Stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	return d.Stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom4(addr.As4()).WithPrefix()}, stack.AddressProperties{})
}

// File implements tun.Device: there is none.
func (d *Device) File() *os.File { return nil }

// MTU implements tun.Device.
func (d *Device) MTU() (int, error) { return int(d.mtu), nil }

// Name implements tun.Device.
func (d *Device) Name() (string, error) { return "fartun", nil }

// Events implements tun.Device.
func (d *Device) Events() <-chan tun.Event { return d.events }

// BatchSize implements tun.Device.
func (d *Device) BatchSize() int { return batchSize }

// Close implements tun.Device.
func (d *Device) Close() error {
	d.once.Do(func() { close(d.done); close(d.events) })
	return nil
}

// Read takes packets that the stack has written, one at least.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	for ; n < len(bufs); n++ {
		if d.cut.empty() {
			p := d.take(n == 0)
			if p == nil && n == 0 {
				return 0, os.ErrClosed
			}
			if p == nil {
				return n, nil
			}
			d.cut.start(p)
		}
		sizes[n] = d.cut.next(bufs[n][offset:])
	}
	return n, nil
}

// take returns the next segment of the stack, or nil if there is none; if it
// waits, only when the device is closed.
func (d *Device) take(wait bool) *stack.PacketBuffer {
	select {
	case p := <-d.out:
		return p
	default:
	}
	if !wait {
		return nil
	}
	select {
	case p := <-d.out:
		return p
	case <-d.done:
		return nil
	}
}

// Write gives packets to the stack.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		d.join.add(b[offset:])
	}
	d.join.flush()
	return len(bufs), nil
}

// An endpoint is the Device as the stack sees it (stack.LinkEndpoint and
// stack.GSOEndpoint), for two of tun.Device's methods have other types there.
type endpoint struct{ *Device }

func (e endpoint) WritePackets(list stack.PacketBufferList) (n int, _ tcpip.Error) {
	for _, p := range list.AsSlice() {
		select {
		case e.out <- p.IncRef():
			n++
		case <-e.done:
			p.DecRef()
			return n, &tcpip.ErrClosedForSend{}
		}
	}
	return n, nil
}

// Capabilities: what reaches the stack was checked by the joiner.
func (e endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (e endpoint) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (e endpoint) GSOMaxSize() uint32                      { return gsoMaxSize }
func (e endpoint) Attach(d stack.NetworkDispatcher)        { e.dispatcher = d }
func (e endpoint) IsAttached() bool                        { return e.dispatcher != nil }
func (e endpoint) MTU() uint32                             { return e.mtu }
func (e endpoint) SetMTU(mtu uint32)                       { e.mtu = mtu }
func (e endpoint) MaxHeaderLength() uint16                 { return 0 }
func (e endpoint) LinkAddress() tcpip.LinkAddress          { return "" }
func (e endpoint) SetLinkAddress(tcpip.LinkAddress)        {}
func (e endpoint) Wait()                                   {}
func (e endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (e endpoint) AddHeader(*stack.PacketBuffer)           {}
func (e endpoint) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (e endpoint) SetOnCloseAction(func())                 {}
func (e endpoint) Close()                                  {}
