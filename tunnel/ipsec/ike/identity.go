package ike

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// An IDType says what an Identity is (RFC 2407 section 4.6.2.1).
type IDType uint8

// The types of identities that have a name of their own here. Others are compared as bytes.
const (
	IDIPv4     IDType = 1
	IDFQDN     IDType = 2
	IDUserFQDN IDType = 3
	IDIPv6     IDType = 5
	IDDN       IDType = 9  // DER
	IDKey      IDType = 11 // KEY_ID: opaque, e.g. a group name
)

// An Identity is whom a side claims to be in phase 1. Identities can be compared with ==; the zero value is none.
type Identity struct {
	Type IDType
	Data string // as in the ID payload: 4 or 16 address bytes, a name, DER, or any bytes
}

// ParseIdentity reads an identity as people write it: an IP address, user@host, a host name or @host name, keyid:text or keyid:0xhex.
// "" is the zero Identity.
func ParseIdentity(s string) (Identity, error) {
	if s == "" {
		return Identity{}, nil
	}
	if len(s) > maxIdentity {
		return Identity{}, fmt.Errorf("ike: identity is longer than %d bytes", maxIdentity)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return addressIdentity(a), nil
	}
	if key, ok := strings.CutPrefix(s, "keyid:"); ok {
		if digits, ok := strings.CutPrefix(key, "0x"); ok {
			b, err := hex.DecodeString(digits)
			if err != nil {
				return Identity{}, fmt.Errorf("ike: identity %q: %w", s, err)
			}
			key = string(b)
		}
		if key == "" {
			return Identity{}, fmt.Errorf("ike: identity %q is empty", s)
		}
		return Identity{IDKey, key}, nil
	}
	if name, ok := strings.CutPrefix(s, "@"); ok && name != "" {
		return Identity{IDFQDN, name}, nil
	}
	if strings.Contains(s, "@") {
		return Identity{IDUserFQDN, s}, nil
	}
	return Identity{IDFQDN, s}, nil
}

const maxIdentity = 1024

func addressIdentity(a netip.Addr) Identity {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return Identity{IDIPv4, string(a.AsSlice())}
	}
	return Identity{IDIPv6, string(a.AsSlice())}
}

func (i Identity) String() string {
	switch i.Type {
	case 0:
		return "none"
	case IDIPv4, IDIPv6:
		if a, ok := netip.AddrFromSlice([]byte(i.Data)); ok {
			return a.String()
		}
	case IDFQDN, IDUserFQDN:
		return printable(i.Data)
	case IDKey:
		return "keyid:" + printable(i.Data)
	case IDDN:
		if name, err := parseName([]byte(i.Data)); err == nil {
			return printable(name.String())
		}
	}
	return fmt.Sprintf("type %d: %x", i.Type, i.Data[:min(len(i.Data), 64)])
}

// printable makes text from the network fit for people: bounded, ASCII, without control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 128)])
}

// An idPayload is the body of an ID payload: of phase 1 a name, of phase 2 a traffic selector (RFC 2407 section 4.6.2).
type idPayload struct {
	Identity
	protocol uint8
	port     uint16
}

func appendID(dst []byte, id idPayload) []byte {
	dst = append(dst, byte(id.Type), id.protocol)
	dst = binary.BigEndian.AppendUint16(dst, id.port)
	return append(dst, id.Data...)
}

func parseID(b []byte) (id idPayload, err error) {
	if len(b) < 4 || len(b) > 4+maxIdentity {
		return id, errPayload
	}
	id = idPayload{Identity{IDType(b[0]), string(b[4:])}, b[1], binary.BigEndian.Uint16(b[2:])}
	switch id.Type {
	case 0:
		return id, errPayload
	case IDIPv4:
		if len(id.Data) != 4 {
			return id, errPayload
		}
	case IDIPv6:
		if len(id.Data) != 16 {
			return id, errPayload
		}
	}
	return id, nil
}

// isOf tells whether a certificate is that of i.
func (i Identity) isOf(c *x509.Certificate) bool {
	switch i.Type {
	case IDIPv4, IDIPv6:
		for _, ip := range c.IPAddresses {
			if a, ok := netip.AddrFromSlice(ip); ok && addressIdentity(a) == i {
				return true
			}
		}
	case IDFQDN:
		return len(c.DNSNames) > 0 && c.VerifyHostname(i.Data) == nil || len(c.DNSNames) == 0 && strings.EqualFold(c.Subject.CommonName, i.Data)
	case IDUserFQDN:
		for _, address := range c.EmailAddresses {
			if strings.EqualFold(address, i.Data) {
				return true
			}
		}
	case IDDN:
		return string(c.RawSubject) == i.Data
	}
	return false
}
