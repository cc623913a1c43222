//go:build !plain

package stack

// plain is false; see plain_on.go.
const plain = false
