package config

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is a string that does not print: every verb of fmt, slog and the encoders write "[redacted]".
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String, and the four methods after it, hide the secret.
func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

// Format covers the verbs that would pass String by, such as %d.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }
