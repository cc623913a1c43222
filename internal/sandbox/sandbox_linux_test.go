package sandbox

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefusalsHoldForWhatTheyName(t *testing.T) {
	if !Enclose(t, append(NoSegmentation(unix.EPERM), Refusal{Call: unix.SYS_GETPPID, Errno: unix.ENOSYS})) {
		return
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); errno != unix.ENOSYS {
		t.Errorf("getppid: %v", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
		t.Errorf("getpid: %v", errno)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, test := range []struct {
		level, option int
		want          syscall.Errno
	}{{unix.SOL_UDP, unix.UDP_SEGMENT, unix.EPERM}, {unix.SOL_UDP, unix.UDP_GRO, 0}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 0}} {
		err := unix.SetsockoptInt(fd, test.level, test.option, 1)
		if errno, _ := err.(syscall.Errno); errno != test.want {
			t.Errorf("setsockopt %d, %d: %v", test.level, test.option, err)
		}
	}
}
