//go:build unix

package processors

import (
	"syscall"
	"time"
)

// cpuTime returns the time that the program has used, that of the kernel on its behalf included.
func cpuTime() (spent time.Duration, known bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
