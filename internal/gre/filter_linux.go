package gre

import (
	"fmt"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// maxFiltered is how many Call IDs a filter tells apart, one by one; with more of them it lets all pass, and the reader must look.
const maxFiltered = 128

const (
	protocolPPP = 0x880b  // of enhanced GRE (RFC 2637 section 4.1)
	pass        = 1 << 18 // bytes of a packet that are kept: all, whatever its size
)

// filter is the kernel's filter on a raw socket. It needs no privilege.
type filter struct{ socket syscall.RawConn }

func (f *filter) set(callIDs []uint16) error {
	if len(callIDs) > maxFiltered {
		return f.setAll()
	}
	return f.attach(callFilter(callIDs))
}

func (f *filter) setAll() error { return f.attach(pptpFilter()) }

// close leaves an adopted socket, which lives on, with nothing to gather.
func (f *filter) close() { _ = f.attach(dropFilter()) }

func (f *filter) attach(program []bpf.Instruction) error {
	var failed error
	if err := f.socket.Control(func(fd uintptr) { failed = attach(int(fd), program) }); err != nil {
		return fmt.Errorf("gre: %w", err)
	}
	return failed
}

func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("gre: filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return fmt.Errorf("gre: filter: %w", err)
	}
	return nil
}

// On a raw IPv4 socket a filter sees the packet from its IP header on.

// dropFilter lets nothing pass.
func dropFilter() []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: 0}} }

// pptpFilter lets enhanced GRE pass: version 1, protocol 880B.
func pptpFilter() []bpf.Instruction {
	return append(enhancedGRE(), bpf.RetConstant{Val: pass})
}

// callFilter lets enhanced GRE to the given Call IDs pass, which stand in the key's lower half.
func callFilter(callIDs []uint16) []bpf.Instruction {
	program := append(enhancedGRE(), bpf.LoadIndirect{Off: 6, Size: 2})
	for _, id := range callIDs {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(id), SkipTrue: 1}, bpf.RetConstant{Val: pass})
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// enhancedGRE drops what is not enhanced GRE, and leaves the offset of the GRE header in X.
func enhancedGRE() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadMemShift{Off: 0}, // X: length of the IP header
		bpf.LoadIndirect{Off: 0, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0007ffff}, // version and protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1<<16 | protocolPPP, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
}
