package stack

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// A PacketWriter sends IP packets to the link: a PPP session, or a router of several.
type PacketWriter interface {
	// WritePackets sends a batch of IPv4 or IPv6 packets; packets[i][offset:] is a packet, offset is at least Headroom(), and
	// Tailroom() bytes lie behind each packet within its capacity. The buffers are borrowed until the call returns and may be
	// overwritten. Any goroutine may call it. An error means that packets were dropped; they are counted, not sent again.
	WritePackets(packets [][]byte, offset int) error
	Headroom() int // bytes wanted in front of a packet
	Tailroom() int // bytes wanted behind a packet
}

// Defaults of Config.
const (
	DefaultMTU           = 1400
	DefaultReceiveBuffer = 1 << 20 // bytes, grows to MaxReceiveBuffer with the path
	MaxReceiveBuffer     = 8 << 20
	DefaultSendBuffer    = 256 << 10 // bytes, grows to MaxSendBuffer with the path
	MaxSendBuffer        = 8 << 20   // less while many connections send: see sendBudget
	DefaultKeepalive     = 30 * time.Second
	DefaultTimeWait      = 500 * time.Millisecond

	minMTU     = 576  // RFC 791 section 3.2: what every IPv4 module must take
	minMTUIPv6 = 1280 // RFC 8200 section 5
)

// Config describes one inner network. Its zero value is a stack without addresses and with the documented defaults.
type Config struct {
	// IPv4 is our inner address from IPCP; the zero Addr leaves IPv4 out. Peer4 is the far end's and only informs.
	IPv4, Peer4 netip.Addr
	// IPv6 turns IPv6 on with the interface identifiers that IPV6CP agreed upon (RFC 5072 section 4.1): a link-local address at once,
	// global ones by Router Advertisement. It is ignored when MTU is below 1280.
	IPv6         bool
	IID, PeerIID [8]byte
	// Addresses are further addresses of our own, for a stack that is a whole network rather than a host.
	Addresses []netip.Addr

	// MTU is the largest IP packet of the link in bytes, 576 to 65535. Zero means DefaultMTU.
	MTU int

	// DNS lists the name servers in order of preference. Servers from Router Advertisements come after them.
	DNS []netip.Addr
	// Search lists the domains tried for names without a dot, and for others that do not exist.
	Search []string
	// Hosts are static answers by lower-case name, asked before any server.
	Hosts map[string][]netip.Addr

	// Forward, when set, takes connections that the link sends to addresses other than ours; see Forward. It runs on a goroutine of
	// its own for each, which Close does not wait for: its connection fails then, and it may have others to close. Nil: packets for
	// other addresses are dropped.
	Forward func(*Forward)

	// DisableGSO makes gVisor cut TCP data into packets by itself, DisableGRO hands each inbound packet over alone.
	DisableGSO, DisableGRO bool

	// ReceiveBuffer, ReceiveBufferMax, SendBuffer and SendBufferMax are bytes of each TCP connection. Zero means the default.
	ReceiveBuffer, ReceiveBufferMax int
	SendBuffer, SendBufferMax       int
	// Keepalive is how long a TCP connection may be idle before it is probed. Zero means DefaultKeepalive, negative never.
	Keepalive time.Duration
	// TimeWait is how long a closed TCP connection keeps its port pair. Zero means DefaultTimeWait: time for a far end that missed our
	// last acknowledgment to send its FIN again (after a round trip and 200 ms in most systems) over paths of up to 300 ms; later ones
	// get a reset, which harms nothing that was sent. The 2 MSL of RFC 9293 section 3.4.2 (four minutes) would pin about 6 KB for each
	// of thousands of short connections; old duplicates are told apart by timestamps (RFC 7323 section 5) and random initial sequence
	// numbers.
	TimeWait time.Duration
	// Congestion is "reno" (default) or "cubic".
	Congestion string
	// RACK recovers lost segments by time (RFC 8985) as well as by duplicate acknowledgments (RFC 6675). It is off because gVisor's
	// stands still after a timeout: docs/adr/0003-loss-recovery.md.
	RACK bool

	// MinRTO is the shortest retransmission timeout of TCP. Zero means 200 ms; less than the far end's delayed acknowledgment makes
	// TCP send again what was not lost.
	MinRTO time.Duration

	// Log gets one line per change of state. Nil discards.
	Log *slog.Logger
}

// ErrClosed is the error of everything after Close(nil).
var ErrClosed = fmt.Errorf("stack: %w", net.ErrClosed)

const nicID = 1

// A Stack is one inner network. All methods may be called by any goroutine.
type Stack struct {
	config Config
	log    *slog.Logger
	net    *netstack.Stack
	link   *link
	// ipv4 and ipv6 take inbound packets directly, not by the NIC: only so may each packet say for itself whether its checksums were
	// verified (deliver.go).
	ipv4, ipv6            netstack.NetworkEndpoint
	joiners               sync.Pool // of *joiner
	sendShare             *sendShare
	resolver              *resolver
	slaac                 slaac
	forwards, udpForwards atomic.Int64 // forwarded connections in existence, and those of UDP

	addressMu sync.Mutex
	addresses map[netip.Addr]struct{} // all that are assigned to the NIC
	address4  netip.Addr              // IPCP's
	linkLocal netip.Addr
	hasIPv4   atomic.Bool // some IPv4 address: worth asking for A records
	hasIPv6   atomic.Bool // some global IPv6 address: worth asking for AAAA records

	closeOnce sync.Once
	done      chan struct{} // closed by Close, after err is set
	err       error
	wait      sync.WaitGroup // goroutines of our own
	waitMu    sync.Mutex     // orders wait.Add before wait.Wait
	stats     counters
}

// counters are written on the data path.
type counters struct {
	packetsIn, bytesIn, segmentsJoined  atomic.Uint64
	packetsOut, bytesOut, droppedOut    atomic.Uint64
	droppedIn, superSegments, writesOut atomic.Uint64
}

// Stats are counts since New.
type Stats struct {
	PacketsIn, BytesIn   uint64 // from the link
	SegmentsJoined       uint64 // inbound TCP segments that reached TCP inside a bigger one
	DroppedIn            uint64 // neither IPv4 nor IPv6, or not for us
	PacketsOut, BytesOut uint64 // to the link
	WritesOut            uint64 // calls of WritePackets
	SuperSegments        uint64 // TCP super-segments cut into packets
	DroppedOut           uint64 // packets that the link refused
	BadChecksums         uint64 // inbound packets of any kind that a checksum failed
	Retransmits          uint64 // TCP segments sent again
	Connections          uint64 // TCP connections now established
	Forwards             int64  // forwarded connections now in existence
}

// New makes a running stack. It returns an error for a Config that contradicts itself.
func New(c Config, w PacketWriter) (*Stack, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	s := &Stack{config: c, log: c.Log, done: make(chan struct{}), addresses: make(map[netip.Addr]struct{})}
	s.joiners.New = func() any { return new(joiner) }
	s.link = newLink(w, c.MTU, c.DisableGSO, &s.stats)
	s.resolver = newResolver(s, c)
	s.sendShare = newSendShare(c.SendBufferMax, c.SendBuffer, s.limitSendBuffers)
	s.net = netstack.New(netstack.Options{
		NetworkProtocols: []netstack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{
			// The identifiers were agreed upon by IPV6CP, so there is nothing to detect (RFC 5072 section 5).
			DADConfigs: netstack.DADConfigurations{DupAddrDetectTransmits: 0, RetransmitTimer: time.Second},
			// Router Advertisements are ours to handle (slaac.go).
			NDPConfigs: ipv6.NDPConfigurations{HandleRAs: ipv6.HandlingRAsDisabled},
		})},
		TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := s.configure(); err != nil {
		s.Close(err)
		return nil, err
	}
	return s, nil
}

func (c *Config) setDefaults() error {
	if plain {
		c.DisableGSO, c.DisableGRO = true, true
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < minMTU || c.MTU > 65535 {
		return fmt.Errorf("stack: MTU %d is not within %d and 65535", c.MTU, minMTU)
	}
	if c.MTU < minMTUIPv6 {
		c.IPv6 = false
	}
	orDefault := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orDefault(&c.ReceiveBuffer, DefaultReceiveBuffer)
	orDefault(&c.ReceiveBufferMax, max(MaxReceiveBuffer, c.ReceiveBuffer))
	orDefault(&c.SendBuffer, DefaultSendBuffer)
	orDefault(&c.SendBufferMax, max(MaxSendBuffer, c.SendBuffer))
	if c.Keepalive == 0 {
		c.Keepalive = DefaultKeepalive
	}
	if c.TimeWait == 0 {
		c.TimeWait = DefaultTimeWait
	}
	if c.Congestion == "" {
		c.Congestion = "reno"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.IPv4.IsValid() && !c.IPv4.Is4() {
		return fmt.Errorf("stack: %v is no IPv4 address", c.IPv4)
	}
	return nil
}

func (s *Stack) configure() error {
	if err := s.setTransportOptions(); err != nil {
		return err
	}
	if err := s.net.CreateNICWithOptions(nicID, s.link, netstack.NICOptions{Name: "ppp", QDisc: s.link}); err != nil {
		return fmt.Errorf("stack: network interface: %w", errnoOf(err))
	}
	s.ipv4, _ = s.net.GetNetworkEndpoint(nicID, header.IPv4ProtocolNumber)
	s.ipv6, _ = s.net.GetNetworkEndpoint(nicID, header.IPv6ProtocolNumber)
	if s.config.Forward != nil {
		s.startForwarding()
	}
	if s.config.IPv4.IsValid() {
		if err := s.SetIPv4(s.config.IPv4, s.config.Peer4); err != nil {
			return err
		}
	}
	for _, a := range s.config.Addresses {
		if err := s.addAddress(a.Unmap()); err != nil {
			return err
		}
	}
	if s.config.IPv6 {
		return s.SetIPv6(s.config.IID, s.config.PeerIID)
	}
	return nil
}

func (s *Stack) setTransportOptions() error {
	sack := tcpip.TCPSACKEnabled(true)
	nagle := tcpip.TCPDelayEnabled(false)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: s.config.ReceiveBuffer, Max: s.config.ReceiveBufferMax}
	send := s.sendBufferRange(s.config.SendBufferMax)
	timeWait := tcpip.TCPTimeWaitTimeoutOption(s.config.TimeWait)
	reuse := tcpip.TCPTimeWaitReuseGlobal
	congestion := tcpip.CongestionControlOption(s.config.Congestion)
	recovery := tcpip.TCPRACKLossDetection
	if !s.config.RACK {
		recovery = 0
	}
	options := []tcpip.SettableTransportProtocolOption{&sack, &nagle, &moderate, &receive, &send, &timeWait, &reuse, &congestion, &recovery}
	if s.config.MinRTO > 0 {
		minRTO := tcpip.TCPMinRTOOption(s.config.MinRTO)
		options = append(options, &minRTO)
	}
	for _, o := range options {
		if err := s.net.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("stack: TCP option %T: %w", o, errnoOf(err))
		}
	}
	if err := s.net.SetOption(tcpip.ReceiveBufferSizeOption{Min: 4096, Default: udpReceiveBuffer, Max: udpReceiveBuffer}); err != nil {
		return fmt.Errorf("stack: UDP buffer: %w", errnoOf(err))
	}
	return nil
}

func (s *Stack) sendBufferRange(most int) tcpip.TCPSendBufferSizeRangeOption {
	return tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: s.config.SendBuffer, Max: most}
}

// limitSendBuffers changes the most that send buffers may grow to.
func (s *Stack) limitSendBuffers(most int) {
	send := s.sendBufferRange(most)
	_ = s.net.SetTransportProtocolOption(tcp.ProtocolNumber, &send) // the range is in order
}

// SetIPv4 gives the stack the address of IPCP in place of an earlier one, whose connections die. peer only informs.
func (s *Stack) SetIPv4(local, peer netip.Addr) error {
	if !local.Is4() {
		return fmt.Errorf("stack: %v is no IPv4 address", local)
	}
	s.addressMu.Lock()
	old := s.address4
	s.address4 = local
	s.addressMu.Unlock()
	if old == local {
		return nil
	}
	if old.IsValid() {
		s.removeAddress(old)
	}
	s.log.Info("inner address", "address", local, "peer", peer)
	return s.addAddress(local)
}

// SetIPv6 gives the stack the link-local address of an interface identifier from IPV6CP in place of an earlier one, and asks for a
// Router Advertisement: three Router Solicitations, four seconds apart (RFC 4861 section 6.3.7). It does not wait for the answer.
// With an MTU below 1280 it does nothing.
func (s *Stack) SetIPv6(iid, peerIID [8]byte) error {
	if s.config.MTU < minMTUIPv6 {
		return nil
	}
	local := joinAddress(linkLocalPrefix, iid)
	s.addressMu.Lock()
	old := s.linkLocal
	s.linkLocal = local
	s.addressMu.Unlock()
	if old == local {
		return nil
	}
	if old.IsValid() {
		s.removeAddress(old)
		s.slaac.clear(s)
	}
	s.log.Info("inner address", "address", local, "peer", joinAddress(linkLocalPrefix, peerIID))
	if err := s.addAddress(local); err != nil {
		return err
	}
	if s.config.Forward == nil { // a network's own stack is no host that asks for a router
		s.slaac.solicit(s, iid)
	}
	return nil
}

// addAddress assigns a host address to the NIC. The caller does not hold addressMu.
func (s *Stack) addAddress(a netip.Addr) error {
	s.addressMu.Lock()
	defer s.addressMu.Unlock()
	if _, ok := s.addresses[a]; ok {
		return nil
	}
	err := s.net.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          protocolOf(a),
		AddressWithPrefix: addressOf(a).WithPrefix(),
	}, netstack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("stack: address %v: %w", a, errnoOf(err))
	}
	s.addresses[a] = struct{}{}
	s.setRoutesLocked()
	return nil
}

func (s *Stack) removeAddress(a netip.Addr) {
	s.addressMu.Lock()
	defer s.addressMu.Unlock()
	if _, ok := s.addresses[a]; !ok {
		return
	}
	_ = s.net.RemoveAddress(nicID, addressOf(a)) // it was there
	delete(s.addresses, a)
	s.setRoutesLocked()
}

// setRoutesLocked makes the link the default route of each family that has an address to send from. A family without one has no
// route, so that dialing into it fails at once instead of being tried for minutes.
func (s *Stack) setRoutesLocked() {
	var has4, hasGlobal6 bool
	for a := range s.addresses {
		has4 = has4 || a.Is4()
		hasGlobal6 = hasGlobal6 || a.Is6() && !a.IsLinkLocalUnicast()
	}
	s.hasIPv4.Store(has4)
	s.hasIPv6.Store(hasGlobal6)
	var routes []tcpip.Route
	if has4 {
		routes = append(routes, tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	}
	if hasGlobal6 {
		routes = append(routes, tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	} else {
		routes = append(routes, tcpip.Route{Destination: header.IPv6LinkLocalPrefix.Subnet(), NIC: nicID})
	}
	s.net.SetRouteTable(routes)
}

// Addresses returns our addresses in no order.
func (s *Stack) Addresses() []netip.Addr {
	s.addressMu.Lock()
	defer s.addressMu.Unlock()
	all := make([]netip.Addr, 0, len(s.addresses))
	for a := range s.addresses {
		all = append(all, a)
	}
	return all
}

func (s *Stack) isOurs(a netip.Addr) bool {
	s.addressMu.Lock()
	defer s.addressMu.Unlock()
	_, ok := s.addresses[a]
	return ok
}

// Close ends every connection, listener and lookup at once; their calls return an error that wraps err (ErrClosed if nil). Nothing
// more is sent. It returns when no goroutine of the stack is left, which needs WritePackets not to block. Later calls do nothing.
func (s *Stack) Close(err error) {
	s.closeOnce.Do(func() {
		if err == nil {
			err = ErrClosed
		}
		s.err = err
		s.link.closed.Store(true) // before the resets of aborted connections
		s.waitMu.Lock()
		close(s.done)
		s.waitMu.Unlock()
		s.slaac.clear(s)
		s.link.openers.close()
		s.net.Close()
		s.wait.Wait()
		s.net.Close() // what was being opened during the first
		s.net.TransportProtocolInstance(tcp.ProtocolNumber).Wait()
		_ = s.net.RemoveNIC(nicID)
		if !errors.Is(err, net.ErrClosed) {
			s.log.Info("inner network closed", "cause", err)
		}
	})
	<-s.done
}

// spawn runs f on a goroutine that Close waits for. It reports false, without running f, after Close.
func (s *Stack) spawn(f func()) bool {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	if s.isClosed() {
		return false
	}
	s.wait.Go(f)
	return true
}

func (s *Stack) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	all := s.net.Stats()
	return Stats{
		PacketsIn: s.stats.packetsIn.Load(), BytesIn: s.stats.bytesIn.Load(),
		SegmentsJoined: s.stats.segmentsJoined.Load(), DroppedIn: s.stats.droppedIn.Load(),
		PacketsOut: s.stats.packetsOut.Load(), BytesOut: s.stats.bytesOut.Load(),
		WritesOut: s.stats.writesOut.Load(), SuperSegments: s.stats.superSegments.Load(), DroppedOut: s.stats.droppedOut.Load(),
		BadChecksums: all.IP.MalformedPacketsReceived.Value() + all.TCP.ChecksumErrors.Value() + all.UDP.ChecksumErrors.Value(),
		Retransmits:  all.TCP.Retransmits.Value(),
		Connections:  all.TCP.CurrentEstablished.Value(),
		Forwards:     s.forwards.Load(),
	}
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func addressOf(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

func fullAddressOf(a netip.AddrPort) tcpip.FullAddress {
	if !a.Addr().IsValid() {
		return tcpip.FullAddress{NIC: nicID, Port: a.Port()}
	}
	return tcpip.FullAddress{NIC: nicID, Addr: addressOf(a.Addr()), Port: a.Port()}
}

func addrPortOf(a tcpip.FullAddress) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.Addr.AsSlice())
	return netip.AddrPortFrom(addr.Unmap(), a.Port)
}
