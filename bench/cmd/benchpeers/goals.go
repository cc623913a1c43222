package main

import "slices"

// A goal is one row of the table: a figure of a measurement and what it should be.
type goal struct {
	name    string
	figure  string
	against string  // the side that ours is divided by; "": the figure itself
	atLeast float64 // of the median; 0: no such bound
	atMost  float64 // of the median; 0: no such bound
	never   float64 // no run below it
	ceiling float64 // no run above it; 0: no such bound
	even    float64 // no run below this share of the median
}

// told reports whether the goal is none: its figure is told, not judged.
func (g goal) told() bool { return g.target() == "" }

// A measurement is one case that all sides go through in turn.
type measurement struct {
	send  string // how the far ends' datagrams leave
	what  string // see load.ParseCase
	goals []goal
}

// needs reports whether a goal is about that side, too.
func (m measurement) needs(side string) bool {
	return slices.ContainsFunc(m.goals, func(g goal) bool { return g.against == side })
}

// measurements are the goals of docs/performance.md that are figures of load.
var measurements = []measurement{
	{"gso", "down:1", []goal{
		{name: "download, 1 stream, speed", figure: "gbit_s", against: peer, atLeast: 4},
		{name: "download, 1 stream, share of the limit", figure: "gbit_s", against: limit, atLeast: .3},
		{name: "download, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .15}}},
	{"gso", "up:1", []goal{
		{name: "upload, 1 stream, speed", figure: "gbit_s", against: peer, atLeast: 10, never: 1},
		{name: "upload, 1 stream, share of the limit", figure: "gbit_s", against: limit, atLeast: .3},
		{name: "upload, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .07}}},
	{"gso", "down:8", []goal{{name: "download, 8 streams, speed", figure: "gbit_s", against: peer, atLeast: 3.5}}},
	{"gso", "up:8", []goal{{name: "upload, 8 streams, speed", figure: "gbit_s", against: peer, atLeast: 8, never: 1}}},
	{"gso", "down:64", []goal{
		{name: "download, 64 streams, speed", figure: "gbit_s", against: peer, atLeast: 3},
		{name: "download, 64 streams, fairness (Jain)", figure: "jain", never: .8}}},
	{"gso", "up:64", []goal{
		{name: "upload, 64 streams, speed", figure: "gbit_s", against: peer, atLeast: 6, never: 1},
		{name: "upload, 64 streams, fairness (Jain)", figure: "jain", never: .8}}},
	{"gso", "down:1@100", []goal{{name: "100 Mbit/s down, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .5}}},
	{"gso", "up:1@100", []goal{{name: "100 Mbit/s up, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .33}}},
	{"gso", "rate:8", []goal{
		{name: "short connections/s", figure: "conn_s", against: peer, atLeast: 1.5},
		{name: "short connections, CPU us each", figure: "cpu_us_per_op", against: peer, atMost: .65}}},
	{"gso", "rtt:1", []goal{
		{name: "round trip, 1 connection, p50 ms", figure: "p50_ms", against: peer, atMost: .70},
		{name: "round trip, 1 connection, p99 ms", figure: "p99_ms", against: peer, atMost: .80}}},
	{"gso", "rtt:16", []goal{
		{name: "round trip, 16 connections, p50 ms", figure: "p50_ms", against: peer, atMost: .70},
		{name: "round trip, 16 connections, p99 ms", figure: "p99_ms", against: peer, atMost: .80}}},
	{"gso", "rtt-down:1@100", []goal{
		{name: "round trip beside a download of 100 Mbit/s, p50 ms", figure: "p50_ms", against: peer, atMost: .8},
		{name: "round trip beside a download of 100 Mbit/s, p99 ms", figure: "p99_ms", against: peer, atMost: 1}}},
	{"gso", "rtt-up:1@100", []goal{
		{name: "round trip beside an upload of 100 Mbit/s, p50 ms", figure: "p50_ms", against: peer, atMost: .8},
		{name: "round trip beside an upload of 100 Mbit/s, p99 ms", figure: "p99_ms", against: peer, atMost: 1}}},
	{"gso", "rtt-down:1", []goal{{name: "round trip beside a download, p99 ms", figure: "p99_ms", atMost: 20}}},
	{"gso", "rtt-up:1", []goal{{name: "round trip beside an upload, p99 ms", figure: "p99_ms", atMost: 20}}},
	{"mmsg", "down:1", []goal{
		{name: "single datagrams (sendmmsg), download, speed", figure: "gbit_s", against: peer, atLeast: 1.2},
		{name: "single datagrams (sendmmsg), CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .45}}},
	{"one", "down:1", []goal{
		{name: "a call for each datagram, download, speed", figure: "gbit_s", against: peer, atLeast: 1},
		{name: "a call for each datagram, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: .55}}},
}

// The goals of the gateway's memory, measured by memory. Figures in MiB and KiB.
var (
	idleGoal    = goal{name: "memory, idle, MiB", atMost: 16}
	perConnGoal = goal{name: "memory, per idle connection, KiB", atMost: 43}
	peakGoal    = goal{name: "memory, peak with 64 streams, MiB", atMost: 200}
	afterwards  = goal{name: "memory after churn / idle", atMost: 1.25}
)

// A standstill is longer than one retransmission timeout (200 ms, and what a busy machine adds) and shorter than two in a row (600 ms).
const standstill = 400 // milliseconds

// stockMeasurements are what is asked with socket buffers as they come, of each single run.
var stockMeasurements = []measurement{
	{"gso", "down:1", []goal{
		{name: "download, 1 stream, longest standstill ms", figure: "standstill_ms", ceiling: standstill},
		{name: "download, 1 stream, Gbit/s", figure: "gbit_s", even: .25}}},
	{"gso", "up:1", []goal{
		{name: "upload, 1 stream, longest standstill ms", figure: "standstill_ms", ceiling: standstill},
		{name: "upload, 1 stream, Gbit/s", figure: "gbit_s", even: .25}}},
	{"gso", "down:64", []goal{
		{name: "download, 64 streams, longest standstill ms", figure: "standstill_ms", ceiling: standstill},
		{name: "download, 64 streams, Gbit/s", figure: "gbit_s", even: .25},
		{name: "download, 64 streams, fairness (Jain)", figure: "jain", never: .8}}},
	{"gso", "up:64", []goal{
		{name: "upload, 64 streams, longest standstill ms", figure: "standstill_ms", ceiling: standstill},
		{name: "upload, 64 streams, Gbit/s", figure: "gbit_s", even: .25},
		{name: "upload, 64 streams, fairness (Jain)", figure: "jain", never: .8}}},
}
