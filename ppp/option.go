package ppp

import (
	"errors"
	"slices"
)

var errBadOption = errors.New("ppp: configuration option length out of range")

// optionHeader is the length in bytes of an option's type and length octets; both count in the length.
const optionHeader = 2

// An option is a configuration option (RFC 1661 section 6).
type option struct {
	kind uint8
	data []byte // without type and length, at most 253 bytes
}

// parseOptions reads the options of a Configure packet. One bad length makes the whole list unusable, for no later
// boundary can be trusted. The data are slices of b.
func parseOptions(b []byte) ([]option, error) {
	var options []option
	for len(b) > 0 {
		if len(b) < optionHeader {
			return nil, errBadOption
		}
		length := int(b[1])
		if length < optionHeader || length > len(b) {
			return nil, errBadOption
		}
		options = append(options, option{kind: b[0], data: b[optionHeader:length]})
		b = b[length:]
	}
	return options, nil
}

// appendOption appends one option; its data must be at most 253 bytes.
func appendOption(dst []byte, o option) []byte {
	dst = append(dst, o.kind, uint8(optionHeader+len(o.data)))
	return append(dst, o.data...)
}

// holdsOption tells whether options hold o with exactly its data.
func holdsOption(options []option, o option) bool {
	return slices.ContainsFunc(options, func(other option) bool {
		return other.kind == o.kind && string(other.data) == string(o.data)
	})
}
