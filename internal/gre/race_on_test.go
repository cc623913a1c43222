//go:build race

package gre

const raceEnabled = true
