//go:build !race

package gre

const raceEnabled = false
