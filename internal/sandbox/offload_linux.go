package sandbox

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// NoBatches refuses recvmmsg and sendmmsg with errno, as filters do that were
// written before there were these calls.
func NoBatches(errno syscall.Errno) []Refusal {
	return []Refusal{{Call: unix.SYS_RECVMMSG, Errno: errno}, {Call: unix.SYS_SENDMMSG, Errno: errno}}
}

// NoSegmentation refuses UDP_SEGMENT with errno.
func NoSegmentation(errno syscall.Errno) []Refusal { return noOption(unix.UDP_SEGMENT, errno) }

// NoReceiveOffload refuses UDP_GRO with errno.
func NoReceiveOffload(errno syscall.Errno) []Refusal { return noOption(unix.UDP_GRO, errno) }

func noOption(option int, errno syscall.Errno) []Refusal {
	return []Refusal{
		{Call: unix.SYS_SETSOCKOPT, Errno: errno, Level: unix.SOL_UDP, Option: option},
		{Call: unix.SYS_GETSOCKOPT, Errno: errno, Level: unix.SOL_UDP, Option: option},
	}
}
