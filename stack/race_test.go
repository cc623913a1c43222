//go:build race

package stack

// The race detector makes sync.Pool forget at random, so that pooled buffers are allocated anew.
const raceEnabled = true
