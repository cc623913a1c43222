//go:build !plain

package udpbatch

// plain is false; see plain_on.go.
const plain = false
