package udpbatch

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// on makes the engine over a kernel that differs from the real one.
func on(change func(*kernel)) func(*net.UDPConn, Config, *counters) (engine, error) {
	k := linux
	change(&k)
	return func(s *net.UDPConn, c Config, n *counters) (engine, error) { return newBatched(s, c, n, k) }
}

func variants() []variant {
	return append(portableVariants(),
		variant{"EIO for UDP_SEGMENT", Config{}, on(refuseSegment(unix.EIO, 0))},
		variant{"EINVAL above 1000", Config{}, on(refuseSegment(unix.EINVAL, 1000))},
		variant{"EMSGSIZE above 1000", Config{}, on(refuseSegment(unix.EMSGSIZE, 1000))},
		variant{"old kernel", Config{}, on(old)},
		variant{"sandbox", Config{}, on(filtered)},
		variant{"stock buffers", Config{ReadBuffer: 212992, WriteBuffer: 212992}, newEngine},
	)
}

// refuseSegment is a kernel that will not split a message into datagrams of more than most bytes.
func refuseSegment(errno syscall.Errno, most int) func(*kernel) {
	refuses := func(m *unix.Msghdr) bool {
		return m.Control != nil && int((*segmentControl)(unsafe.Pointer(m.Control)).size) > most
	}
	return func(k *kernel) {
		real := *k
		k.sendmsg = func(fd uintptr, m *unix.Msghdr) syscall.Errno {
			if refuses(m) {
				return errno
			}
			return real.sendmsg(fd, m)
		}
		k.sendmmsg = func(fd uintptr, m []mmsghdr) (int, syscall.Errno) {
			for i := range m {
				if !refuses(&m[i].header) {
					continue
				}
				if i == 0 {
					return 0, errno
				}
				return real.sendmmsg(fd, m[:i])
			}
			return real.sendmmsg(fd, m)
		}
	}
}

// old is a kernel from before UDP_SEGMENT and UDP_GRO.
func old(k *kernel) {
	real := *k
	k.getsockopt = func(fd, level, option int) (int, error) {
		if level == unix.SOL_UDP {
			return 0, unix.ENOPROTOOPT
		}
		return real.getsockopt(fd, level, option)
	}
	k.setsockopt = func(fd, level, option, value int) error {
		if level == unix.SOL_UDP {
			return unix.ENOPROTOOPT
		}
		return real.setsockopt(fd, level, option, value)
	}
}

// filtered is a kernel under a filter of system calls.
func filtered(k *kernel) {
	k.recvmmsg = func(uintptr, []mmsghdr, int) (int, syscall.Errno) { return 0, unix.EPERM }
	k.sendmmsg = func(uintptr, []mmsghdr) (int, syscall.Errno) { return 0, unix.ENOSYS }
}

func openOn(t *testing.T, c Config, change func(*kernel)) *Conn {
	t.Helper()
	return variant{"", c, on(change)}.listen(t, loopback4)
}

// needBatches skips what is about batches, in a build that has none.
func needBatches(t *testing.T) {
	t.Helper()
	if plain {
		t.Skip("this build moves one datagram a call")
	}
}

func TestProbeTellsWhatIsInUse(t *testing.T) {
	needBatches(t)
	for name, test := range map[string]struct {
		change          func(*kernel)
		config          Config
		batch, gso, gro bool
	}{
		"all":         {func(*kernel) {}, Config{}, true, true, true},
		"old kernel":  {old, Config{}, true, false, false},
		"sandbox":     {filtered, Config{}, false, true, true},
		"all off":     {func(*kernel) {}, Config{DisableBatch: true, DisableGSO: true, DisableGRO: true}, false, false, false},
		"batch alone": {func(*kernel) {}, Config{DisableGSO: true, DisableGRO: true}, true, false, false},
	} {
		s := openOn(t, test.config, test.change).Stats()
		if s.Batch != test.batch || s.GSO != test.gso || s.GRO != test.gro {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestBatchIsOneSystemCallEachWay(t *testing.T) {
	needBatches(t)
	in, out := open(t, Config{}), open(t, Config{})
	// 46 full datagrams and a short one make one message, the others two.
	datagrams := sized(0, append(repeat(46, 1400), 52, 1400, 52, 1400)...)
	if err := out.WriteDatagrams(datagrams, 0, in.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	collect(t, in, len(datagrams), out.LocalAddr())
	if s, r := out.Stats().SendCalls, in.Stats().ReceiveCalls; s != 1 || r != 1 {
		t.Errorf("%d calls to send, %d to receive", s, r)
	}
}

func TestRefusalOfSegmentsIsForGoodAndLoggedOnce(t *testing.T) {
	needBatches(t)
	for name, test := range map[string]struct {
		errno syscall.Errno
		most  int
		limit int32
	}{
		"no checksum offload, EIO":     {unix.EIO, 0, 0},
		"short path, EINVAL":           {unix.EINVAL, 999, 1399},
		"short path, EMSGSIZE":         {unix.EMSGSIZE, 999, 1399},
		"EIO stops even smaller sizes": {unix.EIO, 999, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var refusals atomic.Int32
			var log bytes.Buffer
			c := Config{Log: slog.New(slog.NewTextHandler(&log, nil))}
			in := open(t, Config{})
			out := openOn(t, c, func(k *kernel) {
				refuseSegment(test.errno, test.most)(k)
				refusing := *k
				k.sendmsg = func(fd uintptr, m *unix.Msghdr) syscall.Errno {
					e := refusing.sendmsg(fd, m)
					if e == test.errno {
						refusals.Add(1)
					}
					return e
				}
			})
			for range 3 {
				if err := out.WriteDatagrams(sized(0, repeat(10, 1400)...), 0, in.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				collect(t, in, 10, out.LocalAddr())
			}
			if got := out.engine.(*batched).gsoLimit.Load(); got != test.limit {
				t.Errorf("limit %d, want %d", got, test.limit)
			}
			tries := int32(1)
			if test.errno == unix.EMSGSIZE {
				tries += sendRetries // it might have been an ICMP error
			}
			if got := refusals.Load(); got != tries {
				t.Errorf("tried %d times, want %d", got, tries)
			}
			if n := strings.Count(log.String(), "UDP_SEGMENT"); n != 1 {
				t.Errorf("%d log lines, want 1:\n%s", n, log.String())
			}
		})
	}
}

// refusedPort is a port that nobody listens on.
func refusedPort(t *testing.T, local netip.AddrPort) netip.AddrPort {
	t.Helper()
	c := variant{"", Config{}, newEngine}.listen(t, local)
	defer c.Close()
	return c.LocalAddr()
}

func TestRefusedPortIsAPeerError(t *testing.T) {
	for name, test := range map[string]struct{ local, peer netip.AddrPort }{
		"IPv4":           {loopback4, loopback4},
		"IPv6":           {loopback6, loopback6},
		"both, to IPv4":  {netip.AddrPortFrom(netip.IPv6Unspecified(), 0), loopback4},
		"both, to IPv6":  {netip.AddrPortFrom(netip.IPv6Unspecified(), 0), loopback6},
		"IPv4, any port": {netip.AddrPortFrom(netip.IPv4Unspecified(), 0), loopback4},
	} {
		t.Run(name, func(t *testing.T) {
			if test.peer == loopback6 || !test.local.Addr().Is4() {
				needIPv6(t)
			}
			for _, v := range variants() {
				if v.name == "portable" {
					continue
				}
				c := v.listen(t, test.local)
				closed := refusedPort(t, test.peer)
				if err := c.WriteDatagrams([][]byte{{1}}, 0, closed); err != nil {
					t.Fatal(err)
				}
				wantPeerError(t, c, closed)
				// The socket lives on.
				live := variant{"", Config{}, newEngine}.listen(t, test.peer)
				if err := c.WriteDatagrams([][]byte{{2}}, 0, live.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				if _, err := live.Read(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func wantPeerError(t *testing.T, c *Conn, from netip.AddrPort) {
	t.Helper()
	_, err := c.Read()
	var peer *PeerError
	if !errors.As(err, &peer) || *peer != (PeerError{from, unix.ECONNREFUSED}) {
		t.Fatalf("error %v, want the refusal of %v", err, from)
	}
}

func TestErrorOfOnePeerDoesNotHurtAnother(t *testing.T) {
	c, live := open(t, Config{}), open(t, Config{})
	a, b := refusedPort(t, loopback4), refusedPort(t, loopback4)
	for _, to := range []netip.AddrPort{a, b, a, live.LocalAddr()} {
		// The kernel hands the pending error to the next sender: it must try again and leave the particulars to the reader.
		if err := c.WriteDatagrams([][]byte{{1}, {2}}, 0, to); err != nil {
			t.Fatalf("to %v: %v", to, err)
		}
	}
	collect(t, live, 2, c.LocalAddr())
	got := map[netip.AddrPort]bool{}
	for range 2 {
		_, err := c.Read()
		var peer *PeerError
		if !errors.As(err, &peer) {
			t.Fatal(err)
		}
		got[peer.Addr] = true
	}
	if !got[a] || !got[b] {
		t.Errorf("told of %v, want %v and %v", got, a, b)
	}
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(); errors.As(err, new(*PeerError)) {
		t.Errorf("told twice: %v", err)
	}
}

func TestErrorsThatWaitAreBounded(t *testing.T) {
	c := open(t, Config{})
	r := &c.engine.(*batched).receiver
	for i := range 1000 {
		r.keep(PeerError{loopbackPort(uint16(i)), unix.ECONNREFUSED})
	}
	if len(r.peerErrors) != peerErrorsKept {
		t.Errorf("%d kept", len(r.peerErrors))
	}
}

func TestLastingErrorIsReturned(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENETUNREACH, unix.EPERM, unix.EACCES} {
		c := openOn(t, Config{DisableBatch: true}, func(k *kernel) {
			k.sendmsg = func(uintptr, *unix.Msghdr) syscall.Errno { return errno }
		})
		if err := c.WriteDatagrams([][]byte{{1}, {2}, {3}}, 0, loopbackPort(9)); !errors.Is(err, errno) {
			t.Errorf("error %v, want %v", err, errno)
		}
		if n := c.Stats().SendDrops; n != 3 {
			t.Errorf("%v: %d dropped, want 3", errno, n)
		}
	}
}

func TestFullSendBufferIsWaitedFor(t *testing.T) {
	for name, errno := range map[string]syscall.Errno{"buffer": unix.EAGAIN, "interface queue": unix.ENOBUFS, "signal": unix.EINTR} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := 3
				polled := 0
				in := open(t, Config{})
				out := openOn(t, Config{DisableBatch: true}, func(k *kernel) {
					real := *k
					k.sendmsg = func(fd uintptr, m *unix.Msghdr) syscall.Errno {
						if full--; full >= 0 {
							return errno
						}
						return real.sendmsg(fd, m)
					}
					k.poll = func(fds []unix.PollFd, _ int) (int, error) {
						polled++
						fds[0].Revents = unix.POLLOUT
						return 1, nil
					}
				})
				if err := out.WriteDatagrams([][]byte{{1}, {2}}, 0, in.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				collect(t, in, 2, out.LocalAddr())
				if want := map[syscall.Errno]int{unix.EAGAIN: 3}[errno]; polled != want {
					t.Errorf("polled %d times, want %d", polled, want)
				}
			})
		})
	}
}

func TestFullSendBufferIsNotWaitedForTooLong(t *testing.T) {
	needBatches(t)
	for name, ready := range map[string]int16{"silence": 0, "ICMP error pending": unix.POLLERR} {
		for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOBUFS} {
			t.Run(name+" "+errno.Error(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := 0
					c := openOn(t, Config{}, func(k *kernel) {
						k.sendmmsg = func(_ uintptr, m []mmsghdr) (int, syscall.Errno) {
							if len(m) == 0 {
								return 0, 0 // the probe
							}
							calls++
							return 0, errno
						}
						k.poll = func(fds []unix.PollFd, milliseconds int) (int, error) {
							if milliseconds > 250 {
								t.Errorf("poll may take %d ms", milliseconds)
							}
							fds[0].Revents = ready
							return 0, nil
						}
					})
					start := time.Now()
					err := c.WriteDatagrams(sized(0, alternate(70, 10, 20)...), 0, loopbackPort(9))
					if err != ErrSendBufferFull {
						t.Errorf("error %v", err)
					}
					if d := time.Since(start); d < 200*time.Millisecond || d > 300*time.Millisecond {
						t.Errorf("gave up after %v", d)
					}
					if calls > 300 {
						t.Errorf("%d calls: does not rest", calls)
					}
					if s := c.Stats(); s.SendDrops != 70 || s.SendWaits != 1 || s.SentDatagrams != 0 {
						t.Errorf("%+v", s)
					}
				})
			})
		}
	}
}

func TestInterruptedReceiveGoesOn(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EINTR, unix.ECONNREFUSED} { // the latter with nothing in the error queue
		interrupted := 0
		in := openOn(t, Config{}, func(k *kernel) {
			real := *k
			k.recvmmsg = func(fd uintptr, m []mmsghdr, flags int) (int, syscall.Errno) {
				if len(m) > 0 && interrupted < 3 {
					interrupted++
					return 0, errno
				}
				return real.recvmmsg(fd, m, flags)
			}
		})
		if err := in.WriteDatagrams([][]byte{{1}}, 0, in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		collect(t, in, 1, in.LocalAddr())
	}
}

func TestErrorOfTheSocketIsReturned(t *testing.T) {
	needBatches(t)
	in := openOn(t, Config{}, func(k *kernel) {
		k.recvmmsg = func(_ uintptr, m []mmsghdr, _ int) (int, syscall.Errno) {
			if len(m) == 0 {
				return 0, 0
			}
			return 0, unix.ENOMEM
		}
	})
	if _, err := in.Read(); !errors.Is(err, unix.ENOMEM) {
		t.Error(err)
	}
}

func TestTruncatedMessageIsDropped(t *testing.T) {
	needBatches(t)
	for _, flag := range []int32{unix.MSG_TRUNC, unix.MSG_CTRUNC} {
		first := true
		in := openOn(t, Config{}, func(k *kernel) {
			real := *k
			k.recvmmsg = func(fd uintptr, m []mmsghdr, flags int) (int, syscall.Errno) {
				n, errno := real.recvmmsg(fd, m, flags)
				if n > 0 && first {
					m[0].header.Flags |= flag
					first = false
				}
				return n, errno
			}
		})
		for _, b := range []byte{1, 2} {
			if err := in.WriteDatagrams([][]byte{{b}}, 0, in.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		if got := collect(t, in, 1, in.LocalAddr()); !bytes.Equal(got[0], []byte{2}) {
			t.Errorf("got %x", got)
		}
		if n := in.Stats().ReceiveTruncated; n != 1 {
			t.Errorf("%d truncated, want 1", n)
		}
	}
}

func TestDropsOfAFullReceiveBufferAreCounted(t *testing.T) {
	in, out := open(t, Config{ReadBuffer: 4096}), open(t, Config{DisableGSO: true})
	const sent = 100
	if err := out.WriteDatagrams(sized(0, repeat(sent, 1000)...), 0, in.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	// The count comes with datagrams queued after the loss.
	var got uint64
	for in.Stats().ReceiveDrops == 0 {
		if _, err := in.Read(); err != nil {
			t.Fatal(err)
		}
		if got = in.Stats().ReceivedDatagrams; got > sent {
			t.Fatal("nothing was counted as lost")
		}
		if err := out.WriteDatagrams([][]byte{{1}}, 0, in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if lost := in.Stats().ReceiveDrops; lost == 0 || lost > sent {
		t.Errorf("%d lost", lost)
	}
}

func TestDatagramsMayBeFragmentedUnderWay(t *testing.T) {
	needIPv6(t)
	both := variant{"", Config{}, newEngine}.listen(t, netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if got := option(t, both, unix.SOL_IP, unix.IP_MTU_DISCOVER); got != unix.IP_PMTUDISC_DONT {
		t.Errorf("IPv4: %d", got)
	}
	if got := option(t, both, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER); got != unix.IPV6_PMTUDISC_DONT {
		t.Errorf("IPv6: %d", got)
	}
}

func option(t *testing.T, c *Conn, level, name int) (value int) {
	t.Helper()
	raw, err := c.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestRouteMTUIsThatOfTheInterface(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			continue
		}
		want := min(i.MTU, 65535) // RFC 791 section 3.1: no packet is longer
		if got := askRouteMTU(loopback4.Addr()); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	if got := askRouteMTU(netip.Addr{}); got != 0 {
		t.Errorf("%d for no address", got)
	}
}

// message appends a control message as the kernel lays it out.
func message(dst []byte, level, kind int32, data []byte) []byte {
	h := unix.Cmsghdr{Level: level, Type: kind}
	h.SetLen(unix.CmsgLen(len(data)))
	space := make([]byte, unix.CmsgSpace(len(data)))
	copy(space, unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofCmsghdr))
	copy(space[unix.CmsgLen(0):], data)
	return append(dst, space...)
}

func native(v uint32) []byte { return bytes.Clone((*[4]byte)(unsafe.Pointer(&v))[:]) }

func TestControlMessagesAreRead(t *testing.T) {
	gro := message(nil, unix.SOL_UDP, unix.UDP_GRO, native(1400))
	lost := message(nil, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, native(4_000_000_000))
	foreign := message(nil, unix.SOL_IP, unix.IP_TTL, native(64))
	for name, test := range map[string]struct {
		control []byte
		size    int
		drops   int64
	}{
		"none":            {nil, 0, -1},
		"GRO":             {gro, 1400, -1},
		"lost":            {lost, 0, 4_000_000_000},
		"all":             {bytes.Join([][]byte{foreign, lost, gro}, nil), 1400, 4_000_000_000},
		"foreign":         {foreign, 0, -1},
		"GRO, two bytes":  {message(nil, unix.SOL_UDP, unix.UDP_GRO, []byte{1, 2}), 0, -1},
		"length of zero":  {make([]byte, 32), 0, -1},
		"length too long": {append(bytes.Repeat([]byte{255}, 8), gro[8:]...), 0, -1},
	} {
		if size, drops := readControl(test.control); size != test.size || drops != test.drops {
			t.Errorf("%s: %d, %d", name, size, drops)
		}
	}
	for n := range unix.CmsgLen(4) {
		if size, drops := readControl(gro[:n:n]); size != 0 || drops != -1 {
			t.Errorf("%d bytes of GRO: %d, %d", n, size, drops)
		}
	}
}

func TestICMPErrorsAreRead(t *testing.T) {
	extended := func(origin byte) []byte {
		return append(native(uint32(unix.ECONNREFUSED)), origin, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	icmp := message(nil, unix.SOL_IP, unix.IP_RECVERR, extended(unix.SO_EE_ORIGIN_ICMP))
	for name, test := range map[string]struct {
		control []byte
		ok      bool
	}{
		"ICMP":       {icmp, true},
		"ICMPv6":     {message(nil, unix.SOL_IPV6, unix.IPV6_RECVERR, extended(unix.SO_EE_ORIGIN_ICMP6)), true},
		"after TTL":  {append(message(nil, unix.SOL_IP, unix.IP_TTL, native(64)), icmp...), true},
		"local":      {message(nil, unix.SOL_IP, unix.IP_RECVERR, extended(unix.SO_EE_ORIGIN_LOCAL)), false},
		"timestamp":  {message(nil, unix.SOL_IP, unix.IP_RECVERR, extended(unix.SO_EE_ORIGIN_TIMESTAMPING)), false},
		"nothing":    {nil, false},
		"other kind": {message(nil, unix.SOL_IP, unix.IP_TTL, extended(unix.SO_EE_ORIGIN_ICMP)), false},
	} {
		if e, ok := readICMPError(test.control); ok != test.ok || ok && e != unix.ECONNREFUSED {
			t.Errorf("%s: %v, %v", name, e, ok)
		}
	}
	for n := range unix.CmsgLen(16) {
		if _, ok := readICMPError(icmp[:n:n]); ok {
			t.Errorf("found in %d bytes", n)
		}
	}
}

func FuzzReadControl(f *testing.F) {
	f.Add(message(nil, unix.SOL_UDP, unix.UDP_GRO, native(1400)))
	f.Add(message(nil, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, native(1)))
	f.Add(message(nil, unix.SOL_IP, unix.IP_RECVERR, make([]byte, 16)))
	f.Fuzz(func(t *testing.T, control []byte) {
		before := bytes.Clone(control)
		_, drops := readControl(control)
		if drops < -1 || drops > 1<<32-1 {
			t.Errorf("%d drops", drops)
		}
		readICMPError(control)
		if !bytes.Equal(before, control) {
			t.Error("changed its input")
		}
	})
}

func FuzzSockaddr(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, uint16(1701))
	f.Add(netip.IPv6Loopback().AsSlice(), uint16(0x1234))
	f.Add(netip.MustParseAddr("::ffff:192.0.2.1").AsSlice(), uint16(500))
	f.Fuzz(func(t *testing.T, address []byte, port uint16) {
		addr, ok := netip.AddrFromSlice(address)
		if !ok {
			return
		}
		want := netip.AddrPortFrom(addr.Unmap(), port)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			var s sockaddr
			length, err := encode(&s, want, family)
			if family == unix.AF_INET && want.Addr().Is6() {
				if err != syscall.EAFNOSUPPORT {
					t.Errorf("%v on an IPv4 socket: %v", want, err)
				}
				continue
			}
			if err != nil || length != map[int]uint32{unix.AF_INET: 16, unix.AF_INET6: 28}[family] {
				t.Errorf("%d bytes, %v", length, err)
			}
			if got := decode(&s); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
	})
}

func TestSockaddrIsWhatTheKernelReads(t *testing.T) {
	var s sockaddr
	if _, err := encode(&s, netip.MustParseAddrPort("192.0.2.1:1701"), unix.AF_INET); err != nil {
		t.Fatal(err)
	}
	got := (*[8]byte)(unsafe.Pointer(&s))
	if !bytes.Equal(got[2:], []byte{1701 >> 8, 1701 & 255, 192, 0, 2, 1}) { // struct sockaddr_in, ip(7): port and address in network order
		t.Errorf("%x", got)
	}
	if got := decode(&sockaddr{Family: unix.AF_UNIX}); got.IsValid() {
		t.Errorf("%v from another family", got)
	}
}

func TestZoneIsKept(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		t.Skip("no interface: ", err)
	}
	for _, test := range []struct{ in, out string }{
		{all[0].Name, all[0].Name},
		{"4000000000", "4000000000"}, // no such interface
		{"no-such-name", ""},
	} {
		to := netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(test.in), 1701)
		want := netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(test.out), 1701)
		var s sockaddr
		if _, err := encode(&s, to, unix.AF_INET6); err != nil {
			t.Fatal(err)
		}
		if got := decode(&s); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
