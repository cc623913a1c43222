//go:build !linux

// Package sandbox has nothing on this system: seccomp(2) is Linux's.
package sandbox
