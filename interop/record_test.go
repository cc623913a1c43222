//go:build interop

package interop

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gateway/interop/transcript"
)

// Records the conversations that package transcript replays. Only with
// INTEROP_RECORD=1, as a recording is a part of the project that changes with
// the engines only.
func TestRecordConversations(t *testing.T) {
	if os.Getenv("INTEROP_RECORD") == "" {
		t.Skip("set INTEROP_RECORD=1 to record")
	}
	for _, c := range transcript.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			text := record(t, c)
			if err := os.WriteFile(filepath.Join("transcript", "testdata", c.Name+".txt"), text, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// record holds one conversation: until the network is up or has failed, half a
// second of what comes then, and the end.
func record(t *testing.T, c transcript.Case) []byte {
	addr := netip.AddrPortFrom(netip.MustParseAddr(server(c.Server)), 1701)
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	client := transcript.NewClient(c, addr, time.Now())
	client.Send = func(datagram []byte) { socket.Write(datagram) }
	client.Open(time.Now())

	giveUp := time.Now().Add(60 * time.Second)
	var closeAt time.Time
	buf := make([]byte, 65536)
	for !client.Idle() && time.Now().Before(giveUp) {
		if client.Up && closeAt.IsZero() {
			closeAt = time.Now().Add(500 * time.Millisecond)
		}
		deadline := giveUp
		for _, d := range []time.Time{client.Next, closeAt} {
			if !d.IsZero() && d.Before(deadline) && (d != closeAt || !client.Closing) {
				deadline = d
			}
		}
		socket.SetReadDeadline(deadline)
		n, err := socket.Read(buf)
		now := time.Now()
		switch {
		case err == nil:
			client.Receive(now, buf[:n])
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal(err)
		case !closeAt.IsZero() && !client.Closing && !now.Before(closeAt):
			client.Close(now)
		default:
			client.Tick(now)
		}
	}
	if !client.Idle() {
		t.Error("the conversation did not end")
	}
	return client.Transcript()
}
