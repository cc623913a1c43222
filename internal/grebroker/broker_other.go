//go:build !linux

package grebroker

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
)

// Config says whom a broker serves.
type Config struct {
	AllowedUIDs []uint32
	Group       *uint32
	Log         *slog.Logger
}

// Serve fails with ErrNotSupported.
func Serve(context.Context, string, Config) error { return ErrNotSupported }

// Open fails with ErrNotSupported.
func Open(context.Context, string, netip.Addr) (*os.File, error) { return nil, ErrNotSupported }
