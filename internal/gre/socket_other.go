//go:build !linux

package gre

import (
	"context"
	"os"
)

// Open fails with ErrNotSupported.
func Open(context.Context, Config) (*Conn, error) { return nil, ErrNotSupported }

// Adopt fails with ErrNotSupported.
func Adopt(*os.File, Config) (*Conn, error) { return nil, ErrNotSupported }

// filter is nothing here: there is no Conn.
type filter struct{}

func (*filter) set([]uint16) error { return ErrNotSupported }
func (*filter) setAll() error      { return ErrNotSupported }
func (*filter) close()             {}
