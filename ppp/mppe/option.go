package mppe

import (
	"encoding/binary"
	"errors"
	"strings"
)

// OptionType and OptionLen are those of CCP's option for MPPE and MPPC (RFC 3078 section 2, RFC 2118 section 2).
const (
	OptionType = 18
	OptionLen  = 6
)

// Bits are the Supported Bits of the option. In a Configure-Request they say what its sender can receive.
type Bits uint32

const (
	Stateless Bits = 0x01000000 // H: the key changes and the history is emptied before every packet
	Key56     Bits = 0x00000080 // M
	Key128    Bits = 0x00000040 // S
	Key40     Bits = 0x00000020 // L
	Obsolete  Bits = 0x00000010 // D: never used
	MPPC      Bits = 0x00000001 // C: compression

	keyBits = Key40 | Key56 | Key128
)

// Has reports whether all of the given bits are set.
func (b Bits) Has(bits Bits) bool { return b&bits == bits }

// Encrypts reports whether any key length is set.
func (b Bits) Encrypts() bool { return b&keyBits != 0 }

// strongest keeps the longest key length only.
func (b Bits) strongest() Bits {
	for _, k := range [...]Bits{Key128, Key56, Key40} {
		if b.Has(k) {
			return k
		}
	}
	return 0
}

// String is for logs: "mppe-128 stateless mppc", "none".
func (b Bits) String() string {
	var words []string
	for _, w := range [...]struct {
		bit  Bits
		word string
	}{
		{Key128, "mppe-128"}, {Key56, "mppe-56"}, {Key40, "mppe-40"}, {Stateless, "stateless"}, {MPPC, "mppc"}, {Obsolete, "obsolete"},
	} {
		if b.Has(w.bit) {
			words = append(words, w.word)
		}
	}
	if b&^(keyBits|Stateless|MPPC|Obsolete) != 0 {
		words = append(words, "unknown")
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, " ")
}

// Encryption is for users: "MPPE-128 stateless", "MPPE-40 stateful"; empty without a key length.
func (b Bits) Encryption() string {
	key := b.strongest()
	if key == 0 {
		return ""
	}
	mode := " stateful"
	if b.Has(Stateless) {
		mode = " stateless"
	}
	return strings.ToUpper(key.String()) + mode
}

// ErrOption says that an option is not one of type 18 with 4 bytes of value.
var ErrOption = errors.New("mppe: malformed CCP option")

// AppendOption appends the whole option, type and length included.
func AppendOption(dst []byte, b Bits) []byte {
	return binary.BigEndian.AppendUint32(append(dst, OptionType, OptionLen), uint32(b))
}

// ParseOption reads a whole option, type and length included.
func ParseOption(option []byte) (Bits, error) {
	if len(option) != OptionLen || option[0] != OptionType || option[1] != OptionLen {
		return 0, ErrOption
	}
	return Bits(binary.BigEndian.Uint32(option[2:])), nil
}
