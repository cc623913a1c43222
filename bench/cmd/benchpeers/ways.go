package main

import (
	"fmt"
	"strings"
)

// A way is how the gateway reaches its far end: a carrier, and what is inside.
type way struct {
	name         string   // for -carrier
	title        string   // of its table
	protocol     string   // of the configuration
	settings     []string // lines of the configuration, below the tunnel
	proof        string   // what the gateway's log has if the two ends have agreed on it
	text         bool     // what is moved compresses well, not noise
	measurements []measurement
}

// plainWay is the one that is measured by default, and the one whose memory is.
const plainWay = "l2tp"

// ways are all of them.
var ways = []way{
	{name: plainWay, title: "L2TP", protocol: "l2tp", measurements: measurements},
	{name: "l2tp-ipsec", title: "L2TP/IPsec, AES-128-CBC with HMAC-SHA1", protocol: "l2tp-ipsec",
		settings: []string{`ipsec.esp_proposals = ["aes128-sha1"]`}, proof: "transform=aes128-sha1", measurements: carrierMeasurements(.43)},
	{name: "l2tp-ipsec-gcm", title: "L2TP/IPsec, AES-128-GCM", protocol: "l2tp-ipsec",
		settings: []string{`ipsec.esp_proposals = ["aes128gcm16"]`}, proof: "transform=aes128gcm16", measurements: carrierMeasurements(.23)},
	{name: "pptp", title: "PPTP, MPPE 128 bit stateless", protocol: "pptp",
		settings: []string{`ppp.mppe = "require"`}, proof: `encryption="MPPE-128 stateless"`, measurements: carrierMeasurements(.60)},
	{name: "l2tp-mppe", title: "L2TP, MPPE 128 bit stateless", protocol: "l2tp",
		settings: []string{`ppp.mppe = "require"`}, proof: `encryption="MPPE-128 stateless"`, measurements: carrierMeasurements(.60)},
	{name: "l2tp-mppc", title: "L2TP, MPPC, noise", protocol: "l2tp",
		settings: []string{`ppp.mppc = "prefer"`}, proof: "compression=MPPC", measurements: carrierMeasurements(0)},
	{name: "l2tp-mppc-text", title: "L2TP, MPPC, text", protocol: "l2tp",
		settings: []string{`ppp.mppc = "prefer"`}, proof: "compression=MPPC", text: true, measurements: carrierMeasurements(0)},
}

// carrierMeasurements is the table for a carrier that costs more than plain
// L2TP: the goal is the CPU of a download against the peer's; the rest is told.
func carrierMeasurements(downloadCPU float64) []measurement {
	return []measurement{
		{"gso", "down:1", []goal{
			{name: "download, 1 stream, speed", figure: "gbit_s", against: peer},
			{name: "download, CPU s/GB", figure: "cpu_s_per_gb", against: peer, atMost: downloadCPU}}},
		{"gso", "up:1", []goal{
			{name: "upload, 1 stream, speed", figure: "gbit_s", against: peer},
			{name: "upload, CPU s/GB", figure: "cpu_s_per_gb", against: peer}}},
		{"gso", "down:8", []goal{{name: "download, 8 streams, speed", figure: "gbit_s", against: peer}}},
		{"gso", "up:8", []goal{{name: "upload, 8 streams, speed", figure: "gbit_s", against: peer}}},
		{"gso", "down:64", []goal{
			{name: "download, 64 streams, speed", figure: "gbit_s", against: peer},
			{name: "download, 64 streams, fairness (Jain)", figure: "jain"}}},
		{"gso", "up:64", []goal{
			{name: "upload, 64 streams, speed", figure: "gbit_s", against: peer},
			{name: "upload, 64 streams, fairness (Jain)", figure: "jain"}}},
		{"gso", "down:1@100", []goal{{name: "100 Mbit/s down, CPU s/GB", figure: "cpu_s_per_gb", against: peer}}},
		{"gso", "up:1@100", []goal{{name: "100 Mbit/s up, CPU s/GB", figure: "cpu_s_per_gb", against: peer}}},
		{"gso", "rate:8", []goal{
			{name: "short connections/s", figure: "conn_s", against: peer},
			{name: "short connections, CPU us each", figure: "cpu_us_per_op", against: peer}}},
		{"gso", "rtt:1", []goal{
			{name: "round trip, 1 connection, p50 ms", figure: "p50_ms", against: peer},
			{name: "round trip, 1 connection, p99 ms", figure: "p99_ms", against: peer}}},
		{"gso", "rtt:16", []goal{
			{name: "round trip, 16 connections, p50 ms", figure: "p50_ms", against: peer},
			{name: "round trip, 16 connections, p99 ms", figure: "p99_ms", against: peer}}},
	}
}

// stockBuffer is net.core.rmem_max and wmem_max of a Linux that nobody has tuned, in bytes.
const stockBuffer = 212992

// withStockBuffers is the same way as on such a machine, and what is asked of it.
func (w way) withStockBuffers() way {
	w.title += ", socket buffers of 208 KiB"
	w.settings = append([]string{
		fmt.Sprintf("carrier.read_buffer = %d", stockBuffer), fmt.Sprintf("carrier.write_buffer = %d", stockBuffer)}, w.settings...)
	w.measurements = stockMeasurements
	return w
}

// chosenWays finds the ways of -carrier: names with commas between them, or "all".
func chosenWays(names string) (chosen []way, err error) {
	if names == "all" {
		return ways, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		w, err := findWay(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, w)
	}
	return chosen, nil
}

func findWay(name string) (way, error) {
	for _, w := range ways {
		if w.name == name {
			return w, nil
		}
	}
	return way{}, fmt.Errorf("-carrier: %q is none of all, %s", name, strings.Join(wayNames(), ", "))
}

func wayNames() (names []string) {
	for _, w := range ways {
		names = append(names, w.name)
	}
	return names
}

func (w way) needsGRE() bool { return w.protocol == "pptp" }

// host is where the way's server listens. PPTP's two ends share one machine,
// but must not share an address: each raw socket would see the other's packets.
func (w way) host() string {
	if w.needsGRE() {
		return "127.0.0.2"
	}
	return "127.0.0.1"
}
