package grebroker

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var server = netip.MustParseAddr("127.0.0.2")

// start serves in the background until the test ends.
func start(t *testing.T, c Config, open func(netip.Addr) (int, error)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gre.sock")
	startAt(t, path, c, open)
	return path
}

func startAt(t *testing.T, path string, c Config, open func(netip.Addr) (int, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	if c.Log == nil {
		c.Log = slog.New(announcer{slog.DiscardHandler, ready})
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, path, c, open) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// announcer tells by the first line of the log that the broker serves.
type announcer struct {
	slog.Handler
	ready chan struct{}
}

func (a announcer) Enabled(context.Context, slog.Level) bool { return true }
func (a announcer) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "gre broker serves") {
		close(a.ready)
	}
	return nil
}

// udpSocket stands in for a raw socket, which takes privilege.
func udpSocket(server netip.Addr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: server.As4()})
}

func TestBrokerPassesAConnectedSocket(t *testing.T) {
	path := start(t, Config{}, udpSocket)
	for range 40 { // more than at a time
		file, err := Open(t.Context(), path, netip.AddrFrom16(server.As16()))
		if err != nil {
			t.Fatal(err)
		}
		peer, err := unix.Getpeername(int(file.Fd()))
		if err != nil || peer.(*unix.SockaddrInet4).Addr != server.As4() {
			t.Errorf("peer %v, error %v", peer, err)
		}
		if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("not closed on exec: %#x, error %v", flags, err)
		}
		file.Close()
	}
}

func TestBrokerOpensRawGRESockets(t *testing.T) {
	if fd, err := openGRE(server); errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err == nil {
		unix.Close(fd)
	}
	file, err := Open(t.Context(), start(t, Config{}, openGRE), server)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for option, want := range map[int]int{unix.SO_TYPE: unix.SOCK_RAW, unix.SO_PROTOCOL: unix.IPPROTO_GRE, unix.SO_DOMAIN: unix.AF_INET} {
		if got, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, option); err != nil || got != want {
			t.Errorf("option %d is %d, want %d, error %v", option, got, want, err)
		}
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	own := uint32(os.Geteuid())
	opened := false
	path := filepath.Join(t.TempDir(), "gre.sock")
	b := &broker{allowed: []uint32{own + 1}, log: slog.New(slog.DiscardHandler), patience: clientPatience, open: func(netip.Addr) (int, error) { opened = true; return -1, errors.New("opened") }}
	listener, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.serve(ctx, listener) }()
	_, err = Open(t.Context(), path, server)
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "is not served here") || refused.Stage() != "gre" || refused.Advice() == "" {
		t.Errorf("error %v", err)
	}
	if opened {
		t.Error("a socket was opened")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A user without privilege gets through the whole of it, and one who is not allowed does not: the test runs itself as each.
func TestUsersAreToldApartByTheKernel(t *testing.T) {
	if path := os.Getenv("GREBROKER_TEST_SOCKET"); path != "" {
		file, err := Open(t.Context(), path, server)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	dir, err := os.MkdirTemp("", "grebroker") // where others may look, too
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", program, 0o755)); err != nil {
		t.Fatal(err)
	}
	as := func(uid, gid uint32, socket string) ([]byte, error) {
		command := exec.Command(dir+"/test", "-test.run=^"+t.Name()+"$")
		command.Dir = dir
		command.Env = append(os.Environ(), "GREBROKER_TEST_SOCKET="+socket)
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		return command.CombinedOutput()
	}
	group := uint32(4242)
	startAt(t, dir+"/one", Config{AllowedUIDs: []uint32{65534}}, udpSocket)
	startAt(t, dir+"/group", Config{AllowedUIDs: []uint32{65534, 65533}, Group: &group}, udpSocket)
	for _, test := range []struct {
		name     string
		uid, gid uint32
		socket   string
		want     string // in the output; "" is success
	}{
		{"the one user", 65534, 65534, "one", ""},
		{"another user", 65533, 65533, "one", "permission denied"},
		{"root, who is not allowed", 0, 0, "one", "user 0 is not served here"},
		{"in the group", 65533, group, "group", ""},
		{"allowed, but not in the group", 65533, 65533, "group", "permission denied"},
		{"in the group, but not allowed", 65532, group, "group", "user 65532 is not served here"},
	} {
		out, err := as(test.uid, test.gid, dir+"/"+test.socket)
		if test.want == "" && err != nil || test.want != "" && !bytes.Contains(out, []byte(test.want)) {
			t.Errorf("%s: %v\n%s", test.name, err, out)
		}
	}
}

func TestSocketModeFollowsTheUsers(t *testing.T) {
	own := uint32(os.Geteuid())
	group := uint32(os.Getegid())
	for name, test := range map[string]struct {
		config Config
		mode   fs.FileMode
	}{
		"the broker's own user": {Config{}, 0o600},
		"the same, by number":   {Config{AllowedUIDs: []uint32{own}}, 0o600},
		"a group":               {Config{AllowedUIDs: []uint32{own, own + 1}, Group: &group}, 0o660},
	} {
		info, err := os.Stat(start(t, test.config, udpSocket))
		if err != nil || info.Mode().Perm() != test.mode {
			t.Errorf("%s: mode %v, error %v", name, info.Mode(), err)
		}
	}
	path := filepath.Join(t.TempDir(), "gre.sock")
	if err := serve(t.Context(), path, Config{AllowedUIDs: []uint32{own, own + 1}}, udpSocket); err == nil || !strings.Contains(err.Error(), "needs a group") {
		t.Errorf("several users without a group: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket was left behind")
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	path := start(t, Config{}, udpSocket)
	for name, request := range map[string][]byte{
		"short":     {1, 127, 0, 0},
		"long":      {1, 127, 0, 0, 1, 0},
		"version":   {2, 127, 0, 0, 1},
		"multicast": {1, 224, 0, 0, 1},
		"broadcast": {1, 255, 255, 255, 255},
		"any":       {1, 0, 0, 0, 0},
		"much":      make([]byte, 10_000),
	} {
		conn, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(request)
		reply, control := make([]byte, 500), make([]byte, 100)
		n, controlSize, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(reply, control)
		var refused *RefusedError
		if !errors.As(parseReply(reply[:n]), &refused) || controlSize != 0 {
			t.Errorf("%s: %q, %d bytes of control, error %v", name, reply[:n], controlSize, err)
		}
		conn.Close()
	}
}

func TestFailureToOpenIsToldToTheClient(t *testing.T) {
	path := start(t, Config{}, func(netip.Addr) (int, error) { return -1, errors.New("grebroker: operation not permitted\x1b[2J") })
	_, err := Open(t.Context(), path, server)
	if want := "grebroker: broker refused: grebroker: operation not permitted[2J"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestClientChecksTheAddressAndTheBroker(t *testing.T) {
	for _, address := range []string{"2001:db8::1", "224.0.0.1", "0.0.0.0"} {
		if _, err := Open(t.Context(), "/nowhere", netip.MustParseAddr(address)); err != errAddress {
			t.Errorf("%s: %v", address, err)
		}
	}
	var unavailable *UnavailableError
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "none"), server); !errors.As(err, &unavailable) || unavailable.Stage() != "gre" || unavailable.Advice() == "" {
		t.Errorf("no broker: %v", err)
	}
	if _, err := Open(t.Context(), "", netip.Addr{}); err != errAddress {
		t.Errorf("no address: %v", err)
	}
}

// A broker that is none must not hurt its client.
func TestClientSurvivesAnyAnswer(t *testing.T) {
	for name, answer := range map[string]func(*net.UnixConn){
		"nothing":                 func(*net.UnixConn) {},
		"an empty message":        func(c *net.UnixConn) { c.Write(nil) },
		"garbage":                 func(c *net.UnixConn) { c.Write([]byte("garbage")) },
		"too much":                func(c *net.UnixConn) { c.Write(append([]byte{replyRefused}, make([]byte, 1000)...)) },
		"granted, with no socket": func(c *net.UnixConn) { c.Write([]byte{replyGranted}) },
		"granted, with two": func(c *net.UnixConn) {
			c.WriteMsgUnix([]byte{replyGranted}, unix.UnixRights(0, 0), nil)
		},
		"refused, with one": func(c *net.UnixConn) {
			c.WriteMsgUnix([]byte{replyRefused, 'n', 'o'}, unix.UnixRights(0), nil)
		},
	} {
		path := filepath.Join(t.TempDir(), "gre.sock")
		listener, err := listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		before := descriptors(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			defer conn.Close()
			conn.Read(make([]byte, 10))
			answer(conn)
		}()
		file, err := Open(t.Context(), path, server)
		if err == nil {
			file.Close()
			t.Errorf("%s: accepted", name)
		}
		if staged, ok := err.(interface{ Stage() string }); !ok || staged.Stage() != "gre" {
			t.Errorf("%s: error %v has no stage", name, err)
		}
		<-done
		if after := descriptors(t); after > before {
			t.Errorf("%s: %d descriptors, %d before", name, after, before)
		}
		listener.Close()
	}
}

// descriptors counts the open ones.
func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestClientObeysItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gre.sock")
	listener, err := listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // takes the connection and says nothing
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.AcceptUnix()
		cancel()
		if err == nil {
			conn.Close()
		}
	}()
	if _, err := Open(ctx, path, server); err == nil {
		t.Error("accepted")
	}
}

func TestSilentClientLosesItsPlace(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := &broker{allowed: []uint32{uint32(os.Geteuid())}, log: slog.New(slog.DiscardHandler), patience: time.Millisecond}
	if err := b.handle(conn.(*net.UnixConn)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestStaleSocketIsReplacedAndALivingOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gre.sock")
	stale, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	startAt(t, path, Config{}, udpSocket)
	if err := serve(t.Context(), path, Config{}, udpSocket); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second broker: %v", err)
	}
	if file, err := Open(t.Context(), path, server); err != nil {
		t.Errorf("the first one: %v", err)
	} else {
		file.Close()
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), plain, Config{}, udpSocket); err == nil {
		t.Error("a file was replaced")
	}
	if b, err := os.ReadFile(plain); err != nil || string(b) != "precious" {
		t.Errorf("%q, error %v", b, err)
	}
}
