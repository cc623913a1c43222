package vpnclient

import "errors"

// ErrClosed is the end of a connection that we closed ourselves.
var ErrClosed = errors.New("vpnclient: closed")

// An Error is a failure of the client's own stages (resolve, and reaching the
// server); the stages of the protocols have their own types with the same methods.
type Error struct {
	stage  string
	advice string
	cause  error
}

// Error gives the cause.
func (e *Error) Error() string { return "vpnclient: " + e.stage + ": " + e.cause.Error() }

// Unwrap gives the cause for errors.Is.
func (e *Error) Unwrap() error { return e.cause }

// Stage names what failed.
func (e *Error) Stage() string { return e.stage }

// Advice is one line for the user; it may be empty.
func (e *Error) Advice() string { return e.advice }
