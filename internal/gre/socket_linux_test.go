package gre

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"gateway/internal/udpbatch"
)

var (
	loopback1 = netip.MustParseAddr("127.0.0.1")
	loopback2 = netip.MustParseAddr("127.0.0.2")
)

// open opens a raw socket between two addresses of this host, or skips the test.
func open(t testing.TB, local, server netip.Addr, c Config) *Conn {
	t.Helper()
	c.Local, c.Server = local, server
	conn, err := Open(t.Context(), c)
	if privilege := (*PrivilegeError)(nil); errors.As(err, &privilege) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ready(t, conn)
}

func ready(t testing.TB, conn *Conn) *Conn {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	// Not a measure of time: only so that a loss ends the test instead of hanging it.
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func write(t testing.TB, s socket, to netip.Addr, packets ...[]byte) {
	t.Helper()
	if err := s.WritePackets(packets, 0, to); err != nil {
		t.Fatal(err)
	}
}

func TestRawSocketCarriesPackets(t *testing.T) {
	for name, c := range map[string]Config{"batches": {}, "one by one": {DisableBatch: true}} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t, loopback1, loopback2, c), open(t, loopback2, netip.Addr{}, c)
			if err := errors.Join(a.Expect([]uint16{1}), b.ExpectAll()); err != nil {
				t.Fatal(err)
			}
			var packets [][]byte
			for i := range byte(100) {
				packets = append(packets, packet(2, i))
			}
			write(t, a, loopback2, packets...)
			for i, p := range collect(t, b, 100, loopback1) {
				if int(p) != i {
					t.Fatalf("packet %d at place %d", p, i)
				}
			}
			write(t, b, loopback1, packet(1, 77))
			if got := collect(t, a, 1, loopback2); got[0] != 77 {
				t.Errorf("got %v", got)
			}
			if s := a.Stats(); s.Batch != (!c.DisableBatch && !plainBuild) || s.GSO || s.GRO {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The filter is the kernel's own; what passes it is what collect finds.
func TestFilterPassesItsCallsOnly(t *testing.T) {
	a, b := open(t, loopback1, loopback2, Config{}), open(t, loopback2, loopback1, Config{})
	plain := packet(5, 1)
	plain[1] = 0 // version 0: not enhanced
	other := packet(5, 1)
	other[2], other[3] = 0x08, 0x00      // another protocol
	write(t, a, loopback2, packet(5, 1)) // before Expect nothing passes
	for _, step := range []struct {
		name   string
		expect func() error
		want   []byte
	}{
		{"one call", func() error { return b.Expect([]uint16{5}) }, []byte{2}},
		{"two calls", func() error { return b.Expect([]uint16{5, 6}) }, []byte{2, 3}},
		{"no call", func() error { return b.Expect(nil) }, nil},
		{"all calls", func() error { return b.ExpectAll() }, []byte{2, 3, 4}},
		{"more calls than the filter has room for", func() error { return b.Expect(make([]uint16, 1000)) }, []byte{2, 3, 4}},
		{"as many as it has", func() error { return b.Expect(append(make([]uint16, maxFiltered-1), 7)) }, []byte{4}},
	} {
		if err := step.expect(); err != nil {
			t.Fatal(err)
		}
		write(t, a, loopback2, plain, other, packet(5, 2), packet(6, 3), packet(7, 4))
		// The last packet marks the end: whatever the filter, it passes this one.
		if err := b.Expect([]uint16{9}); err != nil {
			t.Fatal(err)
		}
		write(t, a, loopback2, packet(9, 99))
		want := append(step.want, 99)
		if got := collect(t, b, len(want), loopback1); !bytes.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", step.name, got, want)
		}
	}
}

// The same filter in a virtual machine, on packets that no kernel would deliver.
func TestFilterProgram(t *testing.T) {
	withHeader := func(ihl int, gre []byte) []byte {
		return append(append([]byte{byte(0x40 | ihl)}, make([]byte, ihl*4-1)...), gre...)
	}
	vm, err := bpf.NewVM(callFilter([]uint16{0x1234, 0xfffe}))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		packet []byte
		pass   bool
	}{
		"first call":   {withHeader(5, packet(0x1234, 1)), true},
		"second call":  {withHeader(5, packet(0xfffe, 1)), true},
		"IP options":   {withHeader(15, packet(0x1234, 1)), true},
		"another call": {withHeader(5, packet(0x1235, 1)), false},
		"cut":          {withHeader(5, packet(0x1234, 1)[:7]), false},
		"no header":    {withHeader(5, nil), false},
	} {
		if n, err := vm.Run(test.packet); err != nil || n > 0 != test.pass {
			t.Errorf("%s: %d bytes pass, error %v", name, n, err)
		}
	}
}

func TestConnectedSocketHearsItsServerOnly(t *testing.T) {
	client := open(t, loopback1, loopback2, Config{})
	stranger, server := open(t, netip.MustParseAddr("127.0.0.3"), netip.Addr{}, Config{}), open(t, loopback2, netip.Addr{}, Config{})
	if err := client.ExpectAll(); err != nil {
		t.Fatal(err)
	}
	write(t, stranger, loopback1, packet(1, 1))
	write(t, server, loopback1, packet(1, 2))
	if got := collect(t, client, 1, loopback2); got[0] != 2 {
		t.Errorf("got %v", got)
	}
}

func TestMTUIsTheRoutesWithoutTheIPHeader(t *testing.T) {
	if got := open(t, loopback1, netip.Addr{}, Config{}).MTU(loopback2); got != 1480 {
		t.Errorf("over loopback, of which no more than 1500 count: %d", got)
	}
	if got := open(t, loopback1, netip.Addr{}, Config{OuterMTU: 1400}).MTU(loopback2); got != 1380 {
		t.Errorf("as configured: %d", got)
	}
}

func TestPacketLargerThanTheMTUIsSentInFragmentsAndPutTogether(t *testing.T) {
	a, b := open(t, loopback1, loopback2, Config{}), open(t, loopback2, loopback1, Config{})
	if err := b.ExpectAll(); err != nil {
		t.Fatal(err)
	}
	large := append(packet(1, 1), make([]byte, 65000)...)
	if err := a.WritePackets([][]byte{large}, 0, loopback2); err != nil {
		t.Skip("no packets of 65 kB here: ", err)
	}
	messages, err := b.Read()
	if err != nil || !bytes.Equal(messages[0].Datagrams[0], large) {
		t.Errorf("error %v", err)
	}
}

func TestReadObeysDeadlineAndClose(t *testing.T) {
	conn := open(t, loopback1, loopback2, Config{})
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := conn.Read(); err != os.ErrDeadlineExceeded {
		t.Errorf("error %v", err)
	}
	conn.Close()
	if _, err := conn.Read(); err != net.ErrClosed {
		t.Errorf("error %v", err)
	}
	if err := conn.WritePackets([][]byte{packet(1, 1)}, 0, loopback2); err != net.ErrClosed {
		t.Errorf("error %v", err)
	}
}

func TestPacketsToAnInvalidAddressAreRefused(t *testing.T) {
	conn := open(t, loopback1, netip.Addr{}, Config{})
	for _, to := range []netip.Addr{{}, netip.MustParseAddr("2001:db8::1")} {
		if err := conn.WritePackets([][]byte{packet(1, 1)}, 0, to); err == nil {
			t.Errorf("%v was accepted", to)
		}
	}
}

func TestServerMustHaveAnIPv4Address(t *testing.T) {
	if _, err := Open(t.Context(), Config{Server: netip.MustParseAddr("2001:db8::1")}); err != ErrNotIPv4 {
		t.Errorf("Open: %v", err)
	}
	if _, err := Adopt(os.Stdin, Config{Server: netip.MustParseAddr("2001:db8::1")}); err != ErrNotIPv4 {
		t.Errorf("Adopt: %v", err)
	}
}

// rawFile is a GRE socket as somebody hands it in.
func rawFile(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_GRE)
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "gre")
	t.Cleanup(func() { file.Close() })
	return file
}

func TestAdoptedSocketIsEmptiedFirstAndCanBeAdoptedAgain(t *testing.T) {
	file := rawFile(t)
	peer := open(t, loopback2, netip.Addr{}, Config{})
	for round := range byte(2) {
		write(t, peer, loopback1, packet(5, 100)) // for nobody: it must not be taken for a packet of the call to come
		conn, err := Adopt(file, Config{Server: loopback2})
		if err != nil {
			t.Fatal(err)
		}
		ready(t, conn)
		if err := conn.Expect([]uint16{5}); err != nil {
			t.Fatal(err)
		}
		write(t, peer, loopback1, packet(5, round))
		if got := collect(t, conn, 1, loopback2); got[0] != round {
			t.Errorf("round %d: got %v", round, got)
		}
		conn.Close()
	}
}

func TestOnlyGRESocketsAreAdopted(t *testing.T) {
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udpFile, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer udpFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	closed := os.NewFile(1000, "closed")
	files := map[string]*os.File{"its type is 2 instead of 3": udpFile, "it is no socket": null}
	if closed != nil {
		files["it is no socket: bad file descriptor"] = closed
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err == nil {
		icmp := os.NewFile(uintptr(fd), "icmp")
		defer icmp.Close()
		files["its protocol is 1 instead of 47"] = icmp
	}
	for want, file := range files {
		var descriptor *DescriptorError
		if _, err := Adopt(file, Config{}); !errors.As(err, &descriptor) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		} else if descriptor.Stage() != "gre" || descriptor.Advice() == "" {
			t.Errorf("stage %q, advice %q", descriptor.Stage(), descriptor.Advice())
		}
	}
}

// Run as another user, for there a raw socket must be refused: the test runs itself.
func TestPrivilegeErrorNamesTheThreeWays(t *testing.T) {
	if os.Getenv("GRE_TEST_UNPRIVILEGED") != "" {
		_, err := Open(t.Context(), Config{})
		var privilege *PrivilegeError
		if !errors.As(err, &privilege) || !errors.Is(err, unix.EPERM) || privilege.Stage() != "gre" {
			t.Fatalf("error %v", err)
		}
		for _, way := range []string{"CAP_NET_RAW", "--gre-fd", "gre-broker"} {
			if !strings.Contains(privilege.Advice(), way) {
				t.Errorf("%q lacks %q", privilege.Advice(), way)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// The test's own file may be where others may not look.
	dir, err := os.MkdirTemp("", "gre")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := dir + "/gre.test"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, "-test.run=^"+t.Name()+"$", "-test.v")
	command.Dir = dir
	command.Env = append(os.Environ(), "GRE_TEST_UNPRIVILEGED=1")
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := command.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// Errors aside, nothing on the way of a packet is made anew.
func TestRawSocketDoesNotAllocate(t *testing.T) {
	a, b := open(t, loopback1, loopback2, Config{}), open(t, loopback2, loopback1, Config{})
	if err := b.ExpectAll(); err != nil {
		t.Fatal(err)
	}
	b.SetReadDeadline(time.Time{})
	packets := make100(1)[:32]
	run := func() {
		write(t, a, loopback2, packets...)
		for n := 0; n < len(packets); {
			messages, err := b.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				n += len(m.Datagrams)
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for 32 packets", n)
	}
}

func BenchmarkRawSocket(b *testing.B) {
	from, to := open(b, loopback1, loopback2, Config{}), open(b, loopback2, loopback1, Config{})
	if err := to.ExpectAll(); err != nil {
		b.Fatal(err)
	}
	to.SetReadDeadline(time.Time{})
	packets := make([][]byte, 32)
	for i := range packets {
		packets[i] = append(packet(7, 0), make([]byte, 1400)...)
	}
	b.SetBytes(32 * 1400)
	b.ReportAllocs()
	for b.Loop() {
		write(b, from, loopback2, packets...)
		for n := 0; n < len(packets); {
			messages, err := to.Read()
			if err != nil {
				b.Fatal(err)
			}
			for _, m := range messages {
				n += len(m.Datagrams)
			}
		}
	}
}

// RFC 792: a host without GRE answers "protocol unreachable". It is news about the peer, and the socket stays usable.
func TestICMPErrorIsNewsAboutThePeer(t *testing.T) {
	nobody := netip.MustParseAddr("127.0.0.9")
	conn := open(t, loopback1, nobody, Config{})
	conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	write(t, conn, nobody, packet(1, 1))
	_, err := conn.Read()
	if err == os.ErrDeadlineExceeded {
		t.Skip("somebody on this machine takes all GRE")
	}
	var peer *udpbatch.PeerError
	if !errors.As(err, &peer) || peer.Addr.Addr() != nobody || !errors.Is(err, unix.ENOPROTOOPT) {
		t.Fatalf("error %v", err)
	}
	someone := open(t, nobody, loopback1, Config{})
	if err := someone.ExpectAll(); err != nil {
		t.Fatal(err)
	}
	write(t, conn, nobody, packet(1, 2))
	if got := collect(t, someone, 1, loopback1); got[0] != 2 {
		t.Errorf("got %v", got)
	}
}
