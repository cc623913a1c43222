package udpbatch

import (
	"bytes"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gateway/internal/sandbox"
)

// The fakes of batched_linux_test.go stand in for kernels that refuse; here the kernel itself does, at the order of a container's filter.
func TestRealRefusalsAreForGoodAndDataFlows(t *testing.T) {
	all := func(errno syscall.Errno) []sandbox.Refusal {
		return append(append(sandbox.NoBatches(errno), sandbox.NoSegmentation(errno)...), sandbox.NoReceiveOffload(errno)...)
	}
	for _, test := range []struct {
		name            string
		refusals        []sandbox.Refusal
		batch, gso, gro bool
		lines           int // of the log, for each socket
	}{
		{"recvmmsg and sendmmsg, EPERM", sandbox.NoBatches(unix.EPERM), false, true, true, 1},
		{"recvmmsg and sendmmsg, ENOSYS", sandbox.NoBatches(unix.ENOSYS), false, true, true, 1},
		{"recvmmsg and sendmmsg, EINVAL", sandbox.NoBatches(unix.EINVAL), false, true, true, 1},
		{"recvmmsg and sendmmsg, EACCES", sandbox.NoBatches(unix.EACCES), false, true, true, 1},
		{"recvmmsg alone", []sandbox.Refusal{{Call: unix.SYS_RECVMMSG, Errno: unix.EPERM}}, false, true, true, 1},
		{"sendmmsg alone", []sandbox.Refusal{{Call: unix.SYS_SENDMMSG, Errno: unix.EPERM}}, false, true, true, 1},
		{"UDP_SEGMENT, EPERM", sandbox.NoSegmentation(unix.EPERM), true, false, true, 1},
		{"UDP_SEGMENT, ENOPROTOOPT", sandbox.NoSegmentation(unix.ENOPROTOOPT), true, false, true, 1},
		{"UDP_GRO, EINVAL", sandbox.NoReceiveOffload(unix.EINVAL), true, true, false, 1},
		{"everything, EPERM", all(unix.EPERM), false, false, false, 3},
		{"everything, ENOSYS", all(unix.ENOSYS), false, false, false, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			needBatches(t)
			if !sandbox.Enclose(t, test.refusals) {
				return
			}
			var log bytes.Buffer
			in, out := open(t, Config{}), open(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
			for range 3 {
				datagrams := sized(0, append(repeat(20, 1400), 52, 700, 52)...)
				if err := out.WriteDatagrams(datagrams, 0, in.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				for i, got := range collect(t, in, len(datagrams), out.LocalAddr()) {
					if !bytes.Equal(got, datagrams[i]) {
						t.Fatalf("datagram %d: %d bytes, others than those sent", i, len(got))
					}
				}
			}
			for _, s := range []Stats{in.Stats(), out.Stats()} {
				if s.Batch != test.batch || s.GSO != test.gso || s.GRO != test.gro {
					t.Errorf("in use: batch %v, gso %v, gro %v", s.Batch, s.GSO, s.GRO)
				}
			}
			if n := strings.Count(log.String(), "kernel"); n != test.lines {
				t.Errorf("%d log lines, want %d:\n%s", n, test.lines, log.String())
			}
		})
	}
}
