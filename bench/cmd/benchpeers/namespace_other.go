//go:build !linux

package main

import (
	"context"
	"errors"
)

var errNoRawSocket = errors.New("PPTP is measured on Linux only")

func canOpenGRE() bool { return false }

func enterNamespace(context.Context) (bool, error) { return false, errNoRawSocket }
