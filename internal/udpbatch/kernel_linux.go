package udpbatch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	header unix.Msghdr
	length uint32 // bytes received or sent
}

// kernel is every system call of the data path, so that a test can stand in for a kernel that refuses some of them.
// None of them blocks but poll. All pointers passed must be to the heap.
type kernel struct {
	recvmsg    func(fd uintptr, m *unix.Msghdr, flags int) (bytes int, errno syscall.Errno)
	recvmmsg   func(fd uintptr, m []mmsghdr, flags int) (messages int, errno syscall.Errno)
	sendmsg    func(fd uintptr, m *unix.Msghdr) syscall.Errno
	sendmmsg   func(fd uintptr, m []mmsghdr) (messages int, errno syscall.Errno)
	poll       func(fds []unix.PollFd, milliseconds int) (ready int, err error)
	setsockopt func(fd, level, option, value int) error
	getsockopt func(fd, level, option int) (int, error)
}

var linux = kernel{
	recvmsg: func(fd uintptr, m *unix.Msghdr, flags int) (int, syscall.Errno) {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(m)), uintptr(flags))
		return int(n), errno
	},
	recvmmsg: func(fd uintptr, m []mmsghdr, flags int) (int, syscall.Errno) {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), uintptr(flags), 0, 0)
		return int(n), errno
	},
	sendmsg: func(fd uintptr, m *unix.Msghdr) syscall.Errno {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return errno
	},
	sendmmsg: func(fd uintptr, m []mmsghdr) (int, syscall.Errno) {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		return int(n), errno
	},
	poll:       unix.Poll,
	setsockopt: unix.SetsockoptInt,
	getsockopt: unix.GetsockoptInt,
}
