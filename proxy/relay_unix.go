//go:build unix

package proxy

import (
	"io"
	"net"
	"syscall"
)

// newSource returns the best source for conn.
func newSource(conn net.Conn, b *buffers) source {
	if socket, ok := conn.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			s := &socketSource{raw: raw, buffers: b}
			s.try = s.read
			return s
		}
	}
	return &connSource{conn: conn, buffers: b}
}

// A socketSource reads from a kernel socket. It holds no buffer while it waits:
// thousands of idle connections then cost none.
type socketSource struct {
	raw     syscall.RawConn
	buffers *buffers
	buf     *[]byte
	last    int
	n       int
	err     error
	try     func(fd uintptr) bool // read, made a func value once
}

func (s *socketSource) next() ([]byte, error) {
	if err := s.raw.Read(s.try); err != nil { // closed, or past its deadline
		return nil, err
	}
	if s.err != nil {
		return nil, s.err
	}
	if s.n == 0 {
		return nil, io.EOF
	}
	s.last = s.n
	return (*s.buf)[:s.n], nil
}

// read returns false if there is nothing to read yet.
func (s *socketSource) read(fd uintptr) bool {
	s.buf = s.buffers.get(s.last)
	for {
		s.n, s.err = syscall.Read(int(fd), *s.buf)
		switch s.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			s.release()
			return false
		}
		return true
	}
}

func (s *socketSource) release() {
	if s.buf != nil {
		s.buffers.put(s.buf)
		s.buf = nil
	}
}
