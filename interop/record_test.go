//go:build interop

package interop

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/interop/transcript"
)

// Records the conversations that package transcript replays. Only with
// INTEROP_RECORD=1, or the beginning of the names to record, as a recording is a
// part of the project that changes with the engines only.
func TestRecordConversations(t *testing.T) {
	wanted := os.Getenv("INTEROP_RECORD")
	if wanted == "" {
		t.Skip("set INTEROP_RECORD=1 to record")
	}
	for _, c := range transcript.Cases() {
		if wanted != "1" && !strings.HasPrefix(c.Name, wanted) {
			continue
		}
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
	events := make(chan event)
	client := openClient(t, c, events)
	client.Open(time.Now())

	giveUp := time.Now().Add(60 * time.Second)
	var closeAt time.Time
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
		select {
		case e := <-events:
			if e.control {
				client.Hear(time.Now(), e.data)
			} else {
				client.Receive(time.Now(), e.data)
			}
		case <-time.After(time.Until(deadline)):
			if now := time.Now(); !closeAt.IsZero() && !client.Closing && !now.Before(closeAt) {
				client.Close(now)
			} else {
				client.Tick(now)
			}
		}
	}
	if !client.Idle() {
		t.Error("the conversation did not end")
	}
	return client.Transcript()
}

// An event is something that came from the server.
type event struct {
	control bool // over PPTP's control connection
	data    []byte
}

// openClient returns a client whose sockets are open; what they receive are events.
func openClient(t *testing.T, c transcript.Case, events chan<- event) *transcript.Client {
	t.Helper()
	host := netip.MustParseAddr(server(c.Server))
	if c.PPTP == nil {
		client := transcript.NewClient(c, netip.AddrPortFrom(host, 1701), time.Now())
		client.Send = listenTo(t, "udp4", net.JoinHostPort(host.String(), "1701"), func(b []byte) event { return event{data: b} }, events)
		return client
	}
	client := transcript.NewClient(c, netip.AddrPortFrom(host, 1723), time.Now())
	client.Send = listenTo(t, "ip4:47", host.String(), func(b []byte) event { return event{data: b} }, events)
	client.Say = listenTo(t, "tcp4", net.JoinHostPort(host.String(), "1723"), func(b []byte) event { return event{true, b} }, events)
	return client
}

// listenTo opens a connection whose reads become events until the test ends, and returns how to write to it.
func listenTo(t *testing.T, network, address string, made func([]byte) event, events chan<- event) (write func([]byte)) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	read := conn.Read
	if raw, ok := conn.(*net.IPConn); ok { // whose Read leaves the IP header on
		read = func(b []byte) (int, error) { n, _, err := raw.ReadFrom(b); return n, err }
	}
	go func() {
		buf := make([]byte, 65536)
		for {
			n, err := read(buf)
			if n > 0 {
				select {
				case events <- made(bytes.Clone(buf[:n])):
				case <-t.Context().Done():
					return
				}
			}
			if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOPROTOOPT) {
				return
			}
		}
	}()
	return func(b []byte) { conn.Write(b) }
}
