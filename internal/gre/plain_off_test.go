//go:build !plain

package gre

// plainBuild says that sockets of this build move one packet a call (see udpbatch/plain_on.go).
const plainBuild = false
