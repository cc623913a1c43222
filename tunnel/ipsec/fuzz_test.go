package ipsec

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Nobody without the keys gets anything through, whatever a transform makes of it.
func FuzzReceive(f *testing.F) {
	c, _ := connected(f, "aes128-sha1")
	for _, text := range []string{"", "text", strings.Repeat("x", 100)} {
		f.Add(c.seal(f, server, text)[0])
	}
	f.Add([]byte{0xff})
	f.Add([]byte("\x00\x00\x00\x00IKE"))
	f.Add([]byte("\x00\x00\x10\x01\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		for _, name := range []string{"aes256-sha256", "3des-sha1", "aes256gcm16", "aes128gcm8", "null-md5"} {
			_, s := connected(t, name)
			s.receive(epoch, client, datagram, datagram)
			if s.Stats().Opened != 0 || len(s.upper.datagrams) != 0 {
				t.Fatalf("%s: %x was accepted", name, datagram)
			}
		}
	})
}

// Whatever a peer with the right keys puts into a packet, at most a part of it goes up, once.
func FuzzContents(f *testing.F) {
	f.Add([]byte("\x06\xa5\x06\xa5\x00\x0a\x00\x00ok\x00\x11"))
	f.Add([]byte("\x06\xa5\x06\xa5\x00\x08\x00\x00\x01\x02\x02\x11"))
	f.Add([]byte("\x06\xa5\x06\xa5\x00\x0a\x00\x00ok\x00\x3b"))
	f.Add([]byte("\x01\x02\x02\x11"))
	f.Fuzz(func(t *testing.T, text []byte) {
		text = text[:len(text)/word*word]
		c, s := connected(t, "null-sha1")
		esp := sealText(c, server, 1, text)
		s.receive(epoch, client, esp, esp)
		up := s.upper.datagrams
		if len(up) > 1 || len(up) == 1 && !bytes.Contains(text, up[0]) {
			t.Fatalf("%x became %x", text, up)
		}
	})
}

// Opening is the inverse of sealing, with room to the byte.
func FuzzSealOpen(f *testing.F) {
	names := allTransforms()
	f.Add(0, []byte("text"), 1)
	f.Add(7, []byte{}, 3)
	f.Add(len(names)-1, bytes.Repeat([]byte{0xff}, 1500), 2)
	f.Fuzz(func(t *testing.T, transform int, text []byte, count int) {
		c, s := connected(t, names[uint(transform)%uint(len(names))])
		texts := make([]string, 1+uint(count)%4)
		for i := range texts {
			texts[i] = string(text[:len(text)/(i+1)])
		}
		if len(text) > maxUDP-udpHeader {
			return
		}
		s.receive(epoch, client, c.seal(t, server, texts...)...)
		if diff := cmp.Diff(texts, s.upper.takeTexts()); diff != "" {
			t.Fatal(diff, s.Stats())
		}
	})
}

// Parse and String are inverse.
func FuzzParseTransform(f *testing.F) {
	f.Add("aes128-sha1")
	f.Add("aes256gcm16")
	f.Fuzz(func(t *testing.T, name string) {
		if parsed, err := ParseTransform(name); err == nil && parsed.String() != strings.ToLower(name) {
			t.Fatal(name, parsed)
		}
	})
}
