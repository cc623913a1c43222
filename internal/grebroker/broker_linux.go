package grebroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	clientPatience = 5 * time.Second // for the whole of an exchange
	maxClients     = 16              // at a time
)

// Config says whom a broker serves.
type Config struct {
	// AllowedUIDs are the users it serves, and no others, root included. None means the user it runs as.
	AllowedUIDs []uint32
	// Group, if set, may connect to the socket: it has mode 0660 and this group then. Without it the mode is 0600 and the owner the one user of
	// AllowedUIDs, to whom it is given if it is not the broker's own; several users need a group.
	Group *uint32

	Log *slog.Logger // nil is silence
}

// A broker serves one Unix socket.
type broker struct {
	allowed []uint32
	log     *slog.Logger
	open    func(server netip.Addr) (fd int, err error)

	patience time.Duration // for one client, from its connection on
}

// Serve makes a Unix socket at path and serves it until ctx is done, which is no error. A socket that a broker left there is replaced.
func Serve(ctx context.Context, path string, c Config) error { return serve(ctx, path, c, openGRE) }

func serve(ctx context.Context, path string, c Config, open func(netip.Addr) (int, error)) error {
	b := &broker{allowed: c.AllowedUIDs, log: c.Log, open: open, patience: clientPatience}
	if len(b.allowed) == 0 {
		b.allowed = []uint32{uint32(os.Geteuid())}
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	listener, err := listen(ctx, path)
	if err != nil {
		return err
	}
	if err := permit(path, b.allowed, c.Group); err != nil {
		listener.Close()
		return err
	}
	b.log.Info("gre broker serves", "socket", path, "users", b.allowed)
	return b.serve(ctx, listener)
}

// listen makes the socket. Its mode is up to the umask until permit sets it; whom the broker serves does not depend on that.
func listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("grebroker: %w", err)
	}
	return listener.(*net.UnixListener), nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("grebroker: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("grebroker: %s is there and is no socket", path)
	}
	conn, err := net.DialTimeout("unixpacket", path, clientPatience)
	if err == nil {
		conn.Close()
		return fmt.Errorf("grebroker: %s is in use by another broker", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("grebroker: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("grebroker: %w", err)
	}
	return nil
}

// permit lets the allowed users connect.
func permit(path string, allowed []uint32, group *uint32) error {
	own := uint32(os.Geteuid())
	mode := fs.FileMode(0o600)
	var err error
	switch {
	case group != nil:
		mode = 0o660
		err = os.Chown(path, -1, int(*group))
	case len(allowed) == 1 && allowed[0] != own:
		err = os.Chown(path, int(allowed[0]), -1)
	case slices.ContainsFunc(allowed, func(uid uint32) bool { return uid != own }):
		return errors.New("grebroker: to serve several users, the socket needs a group that they are in")
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return fmt.Errorf("grebroker: %w", err)
	}
	return nil
}

// serve takes clients until ctx is done.
func (b *broker) serve(ctx context.Context, listener *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	places := make(chan struct{}, maxClients)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("grebroker: %w", err)
		}
		clients.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			if err := b.handle(conn); err != nil {
				b.log.Warn("gre broker: client not served", "cause", err)
			}
		})
	}
}

// handle serves one client.
func (b *broker) handle(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(b.patience)); err != nil {
		return err
	}
	// Read even from those who are refused: to close a socket with something unread in it takes the answer away.
	request := make([]byte, requestSize+1)
	n, err := conn.Read(request)
	if err != nil {
		return err
	}
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	if !slices.Contains(b.allowed, uid) {
		return b.refuse(conn, fmt.Errorf("grebroker: user %d is not served here", uid))
	}
	server, err := parseRequest(request[:n])
	if err != nil {
		return b.refuse(conn, err)
	}
	fd, err := b.open(server)
	if err != nil {
		return b.refuse(conn, err)
	}
	defer unix.Close(fd)
	if _, _, err := conn.WriteMsgUnix([]byte{replyGranted}, unix.UnixRights(fd), nil); err != nil {
		return err
	}
	b.log.Info("gre broker: socket passed", "user", uid, "server", server)
	return nil
}

// refuse tells the client why, and returns it.
func (b *broker) refuse(conn *net.UnixConn, reason error) error {
	_, err := conn.Write(appendRefusal(nil, reason.Error()))
	return errors.Join(reason, err)
}

// peerUID is the user that the kernel says connected.
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}

// openGRE opens a raw GRE socket that gets nothing but the packets of one address, until its owner connects it elsewhere.
func openGRE(server netip.Addr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_GRE)
	if err != nil {
		return -1, fmt.Errorf("grebroker: cannot open a raw GRE socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.As4()}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("grebroker: %v: %w", server, err)
	}
	return fd, nil
}

// Open asks the broker at path for a GRE socket connected to a server, which must have an IPv4 address. The file is the caller's. It fails with
// a *RefusedError, or with an *UnavailableError, also when ctx or five seconds are over.
func Open(ctx context.Context, path string, server netip.Addr) (*os.File, error) {
	if err := checkServer(server); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, &UnavailableError{path, err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	file, err := ask(conn.(*net.UnixConn), server)
	var refused *RefusedError
	switch {
	case err == nil || errors.As(err, &refused):
		return file, err
	case ctx.Err() != nil:
		err = ctx.Err() // and not the deadline by which it came about
	}
	return nil, &UnavailableError{path, err}
}

// ask sends the request and takes what comes.
func ask(conn *net.UnixConn, server netip.Addr) (*os.File, error) {
	if _, err := conn.Write(appendRequest(nil, server)); err != nil {
		return nil, err
	}
	reply := make([]byte, maxReply+1)
	control := make([]byte, unix.CmsgSpace(4))
	n, controlSize, _, _, err := conn.ReadMsgUnix(reply, control)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	files := received(control[:controlSize])
	err = parseReply(reply[:n])
	if err == nil && len(files) == 1 {
		return files[0], nil
	}
	for _, f := range files {
		f.Close()
	}
	if err == nil {
		err = errReply
	}
	return nil, err
}

// received makes files of the descriptors that came with a message, which are closed on exec already.
func received(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "gre"))
		}
	}
	return files
}
