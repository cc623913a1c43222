package ike

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// A script is the writer of a replayed conversation: it checks that what is sent is what was sent when it was recorded.
type script struct {
	t     *testing.T
	lines []line
}

type line struct {
	at      time.Duration
	sent    bool
	port    uint16
	marker  bool
	message []byte
}

func (s *script) WriteMessage(message []byte, marker bool, to netip.AddrPort) error {
	if len(s.lines) == 0 {
		s.t.Fatalf("one message too many: %x", message)
	}
	want := s.lines[0]
	s.lines = s.lines[1:]
	if !want.sent || !bytes.Equal(want.message, message) || want.marker != marker || want.port != to.Port() {
		s.t.Fatalf("to port %d, marker %v:\n got %x\nwant %x", to.Port(), marker, message, want.message)
	}
	return nil
}

func readScript(t *testing.T, path string) (lines []line) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for s := range strings.Lines(string(text)) {
		if strings.HasPrefix(s, "#") {
			continue
		}
		var ms int
		var direction, message string
		var l line
		if _, err := fmt.Sscanf(s, "%d %s %d %t %s", &ms, &direction, &l.port, &l.marker, &message); err != nil {
			t.Fatal(err)
		}
		l.at, l.sent = time.Duration(ms)*time.Millisecond, direction == ">"
		if l.message, err = hex.DecodeString(message); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// With the random numbers of the recording, each message to strongSwan is the same again, from the first to the Deletes: its answers were
// decrypted and verified, and all keys derived as it did.
func TestRecordedConversationsWithStrongSwan(t *testing.T) {
	for _, test := range []struct {
		file, server, transform string
		config                  Config
	}{
		{"main-mode-modern.txt", "10.77.0.31", "aes256-sha256", Config{Proposals: []string{"aes256-sha256-modp2048"}}},
		{"main-mode-legacy.txt", "10.77.0.32", "3des-sha1", Config{Proposals: []string{"3des-sha1-modp1024"}}},
		{"aggressive-mode.txt", "10.77.0.35", "aes256-sha256", Config{Aggressive: true}},
	} {
		t.Run(test.file, func(t *testing.T) {
			s := &script{t: t, lines: readScript(t, "testdata/"+test.file)}
			var seed [32]byte
			copy(seed[:], "recorded conversation")
			test.config.Random = rand.NewChaCha8(seed)
			test.config.InnerPort = 1701
			test.config.PSK = []byte("vpnlab-psk")
			test.config.LocalAddr = netip.MustParseAddr("10.77.0.2")
			e, err := NewEndpoint(test.config, s)
			if err != nil {
				t.Fatal(err)
			}
			l := &peerLog{}
			server := netip.MustParseAddr(test.server)
			l.peer = e.Dial(epoch, server, l)
			for len(s.lines) > 0 {
				next := s.lines[0]
				now := epoch.Add(next.at)
				if !next.sent {
					s.lines = s.lines[1:]
					e.Receive(now, netip.AddrPortFrom(server, next.port), next.marker, next.message)
					continue
				}
				if len(l.up) > 0 { // what remains are the Deletes
					l.peer.Close(now)
					break
				}
				if e.Advance(now); len(s.lines) > 0 && bytes.Equal(s.lines[0].message, next.message) {
					t.Fatalf("at %v nothing was sent", next.at)
				}
			}
			if len(s.lines) > 0 || len(l.up) != 1 || l.up[0].Transform != test.transform || !errors.Is(l.down, ErrClosed) || e.Stats() != (Stats{}) {
				t.Error(len(s.lines), l.up, l.down, e.Stats())
			}
		})
	}
}

// With a bit of strongSwan's encrypted answers changed, nothing comes up.
func TestRecordedAnswersCannotBeChanged(t *testing.T) {
	lines := readScript(t, "testdata/main-mode-modern.txt")
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var seed [32]byte
		copy(seed[:], "recorded conversation")
		e, err := NewEndpoint(Config{Proposals: []string{"aes256-sha256-modp2048"}, Random: rand.NewChaCha8(seed), PSK: []byte("vpnlab-psk"), LocalAddr: netip.MustParseAddr("10.77.0.2"), InnerPort: 1701}, silent{})
		if err != nil {
			t.Fatal(err)
		}
		l := &peerLog{}
		server := netip.MustParseAddr("10.77.0.31")
		e.Dial(epoch, server, l)
		victim := 2 + r.IntN(2) // message 6, or message 2 of Quick Mode
		n := 0
		for _, next := range lines {
			if next.sent {
				continue
			}
			m := bytes.Clone(next.message)
			if n == victim {
				m[headerSize+r.IntN(len(m)-headerSize)] ^= 1 << r.IntN(8)
			}
			n++
			e.Receive(epoch.Add(next.at), netip.AddrPortFrom(server, next.port), next.marker, m)
		}
		if n != 4 || len(l.up) > 0 {
			t.Fatalf("up with a changed message %d", victim)
		}
	}
}

type silent struct{}

func (silent) WriteMessage([]byte, bool, netip.AddrPort) error { return nil }
