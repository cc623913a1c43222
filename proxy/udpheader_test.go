package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// RFC 1928 section 7
func TestUDPHeaderIsParsedAndAppended(t *testing.T) {
	for _, test := range []struct {
		about    string
		datagram string
		target   udpTarget
		payload  string
	}{
		{"IPv4", "\x00\x00\x00\x01\x0a\x58\x00\x01\x00\x35query", udpTarget{addr: netip.MustParseAddr("10.88.0.1"), port: 53}, "query"},
		{"IPv6", "\x00\x00\x00\x04\xfd\x88\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03x", udpTarget{addr: netip.MustParseAddr("fd88::1"), port: 0x203}, "x"},
		{"name", "\x00\x00\x00\x03\x10intranet.example\x00\x07", udpTarget{name: []byte("intranet.example"), port: 7}, ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			target, payload, err := parseUDPHeader([]byte(test.datagram))
			if err != nil || !bytes.Equal(target.name, test.target.name) || target.addr != test.target.addr || target.port != test.target.port || string(payload) != test.payload {
				t.Fatalf("parsed %v %q, %v", target, payload, err)
			}
			if got := append(appendUDPHeader(nil, target), payload...); string(got) != test.datagram {
				t.Errorf("appended %x, want %x", got, test.datagram)
			}
			header := len(test.datagram) - len(test.payload)
			for n := range header {
				if _, _, err := parseUDPHeader([]byte(test.datagram[:n])); !errors.Is(err, errUDPShort) {
					t.Errorf("a prefix of %d bytes: %v", n, err)
				}
			}
		})
	}
}

func TestMalformedUDPHeaderIsRefused(t *testing.T) {
	for _, test := range []struct {
		about, datagram string
		want            error
	}{
		{"reserved not zero", "\x00\x01\x00\x01\x0a\x58\x00\x01\x00\x35", errUDPReserved},
		{"first fragment", "\x00\x00\x01\x01\x0a\x58\x00\x01\x00\x35", errUDPFragment},
		{"last fragment", "\x00\x00\x82\x01\x0a\x58\x00\x01\x00\x35", errUDPFragment},
		{"address type 2", "\x00\x00\x00\x02\x0a\x58\x00\x01\x00\x35", errUDPAddrType},
		{"port 0", "\x00\x00\x00\x01\x0a\x58\x00\x01\x00\x00", errUDPTargetPort},
		{"empty name", "\x00\x00\x00\x03\x00\x00\x35", errUDPTargetName},
		{"name with a line break", "\x00\x00\x00\x03\x03a\nb\x00\x35", errUDPTargetName},
		{"name longer than the datagram", "\x00\x00\x00\x03\xffab\x00\x35", errUDPShort},
	} {
		if _, _, err := parseUDPHeader([]byte(test.datagram)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.about, err, test.want)
		}
	}
}

func FuzzUDPHeader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x0a\x58\x00\x01\x00\x35query"))
	f.Add([]byte("\x00\x00\x00\x03\x10intranet.example\x00\x07"))
	f.Add([]byte("\x00\x00\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x0a\x58\x00\x01\x00\x35"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		target, payload, err := parseUDPHeader(datagram)
		if err != nil {
			return
		}
		again := append(appendUDPHeader(nil, target), payload...)
		mapped := datagram[3] == addressIPv6 && target.addr.Is4() // becomes IPv4
		if !mapped && !bytes.Equal(again, datagram) {
			t.Errorf("%x became %x", datagram, again)
		}
		if len(target.name) == 0 && len(again)-len(payload) != headerLength(target.addr) {
			t.Errorf("header of %v has %d bytes, not %d", target.addr, len(again)-len(payload), headerLength(target.addr))
		}
	})
}

func BenchmarkParseUDPHeader(b *testing.B) {
	datagram := append([]byte("\x00\x00\x00\x01\x0a\x58\x00\x01\x00\x35"), make([]byte, 1400)...)
	b.ReportAllocs()
	b.SetBytes(int64(len(datagram)))
	for b.Loop() {
		if _, _, err := parseUDPHeader(datagram); err != nil {
			b.Fatal(err)
		}
	}
}
