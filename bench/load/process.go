package load

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// A Process is one reading of a process's counters in /proc (Linux; zero
// elsewhere). Its children are not counted.
type Process struct {
	CPU     float64 // seconds, user and system, in steps of 10 ms
	RSS     int64   // KiB
	PeakRSS int64   // KiB
	AnonRSS int64   // KiB of RSS that is the process's own; the rest is mostly the program's file, pages that were used once
}

const ticksPerSecond = 100 // USER_HZ on every Linux port that Go has

// ReadProcess reads the counters of a process; they are zero if it is not there.
func ReadProcess(pid int) (p Process) {
	if pid <= 0 {
		return p
	}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, _ := os.ReadFile(dir + "/stat")
	p.CPU = cpuOfStat(string(stat))
	status, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			p.RSS, _ = strconv.ParseInt(fields[1], 10, 64)
		case "VmHWM:":
			p.PeakRSS, _ = strconv.ParseInt(fields[1], 10, 64)
		case "RssAnon:":
			p.AnonRSS, _ = strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return p
}

// cpuOfStat takes utime and stime, the fields 14 and 15 of /proc/PID/stat,
// from behind the command's name, which may hold spaces.
func cpuOfStat(stat string) float64 {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}

// machineTicks returns the idle and all ticks of the machine, from /proc/stat.
func machineTicks() (idle, all float64) {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i > 8 { // the name; guests, who are in user already
			continue
		}
		v, _ := strconv.ParseFloat(field, 64)
		all += v
		if i == 4 || i == 5 {
			idle += v
		}
	}
	return idle, all
}

// A window is a stretch of time over which counters are read.
type window struct {
	pid       int
	start     time.Time
	proxy     Process
	own       float64
	idle, all float64
}

func openWindow(pid int) *window {
	w := &window{pid: pid, start: time.Now(), proxy: ReadProcess(pid), own: ReadProcess(os.Getpid()).CPU}
	w.idle, w.all = machineTicks()
	return w
}

// close adds the counters' growth to f: per GB if bytes were moved, per
// operation if some were done.
func (w *window) close(f Figures, bytes, operations int64) {
	seconds := time.Since(w.start).Seconds()
	f["seconds"] = seconds
	if idle, all := machineTicks(); all > w.all {
		f["machine_busy"] = 1 - (idle-w.idle)/(all-w.all)
	}
	f["loadgen_cpu_s"] = ReadProcess(os.Getpid()).CPU - w.own
	if w.pid <= 0 {
		return
	}
	p := ReadProcess(w.pid)
	cpu := p.CPU - w.proxy.CPU
	f["cpu_s"], f["cpu_cores"] = cpu, cpu/seconds
	f["rss_kib"], f["rss_peak_kib"] = float64(p.RSS), float64(p.PeakRSS)
	if bytes > 0 {
		f["cpu_s_per_gb"] = cpu / (float64(bytes) / 1e9)
	}
	if operations > 0 {
		f["cpu_us_per_op"] = cpu * 1e6 / float64(operations)
	}
}
