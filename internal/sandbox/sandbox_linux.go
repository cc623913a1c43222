// Package sandbox lets a process forbid itself system calls by seccomp(2), as
// containers and service managers do, so that tests can see what is left to work
// with. It is used by tests only.
package sandbox

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Refusal is a system call that fails with Errno and does nothing.
type Refusal struct {
	Call  uintptr // unix.SYS_...
	Errno syscall.Errno
	// Level and Option limit it, if Option is not 0, to one option of sockets: for
	// unix.SYS_SETSOCKOPT and unix.SYS_GETSOCKOPT.
	Level, Option int
}

// Offsets in struct seccomp_data of <linux/seccomp.h>. Arguments have 8 bytes,
// of which the first 4 count on little-endian machines.
const (
	callOffset = 0
	argOffset  = 16
	argSize    = 8
)

const refuse = 0x00050000 // SECCOMP_RET_ERRNO; the errno is in the lower half

// Enter makes the refusals hold in all threads of this process, for good. It
// fails where the kernel has no seccomp or the machine is big-endian.
func Enter(refusals ...Refusal) error {
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) != 1 {
		return fmt.Errorf("sandbox: big-endian machine: %w", syscall.ENOTSUP)
	}
	program, err := filter(refusals)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	runtime.LockOSThread() // both calls must come from the same thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: no new privileges: %w", err)
	}
	head := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&head)))
	if errno != 0 {
		return fmt.Errorf("sandbox: seccomp: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("sandbox: seccomp: thread %d cannot be made to follow", thread)
	}
	return nil
}

// filter is the program that decides: each refusal in turn, and what none of them is about is allowed.
func filter(refusals []Refusal) ([]unix.SockFilter, error) {
	var program []bpf.Instruction
	for _, r := range refusals {
		verdict := bpf.RetConstant{Val: refuse | uint32(r.Errno)}
		if r.Option == 0 {
			program = append(program,
				bpf.LoadAbsolute{Off: callOffset, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.Call), SkipTrue: 1},
				verdict)
			continue
		}
		program = append(program,
			bpf.LoadAbsolute{Off: callOffset, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.Call), SkipTrue: 5},
			bpf.LoadAbsolute{Off: argOffset + 1*argSize, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.Level), SkipTrue: 3},
			bpf.LoadAbsolute{Off: argOffset + 2*argSize, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.Option), SkipTrue: 1},
			verdict)
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return nil, err
	}
	instructions := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		instructions[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return instructions, nil
}
