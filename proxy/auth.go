package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
)

// credentials are the digests of all users' names and passwords. Digests have
// one length, so that comparing them tells nothing about the length either.
type credentials []struct{ name, password [sha256.Size]byte }

func newCredentials(users []User) credentials {
	c := make(credentials, len(users))
	for i, u := range users {
		c[i].name = sha256.Sum256([]byte(u.Name))
		c[i].password = sha256.Sum256([]byte(u.Password))
	}
	return c
}

// Valid reports whether some user has this name and password. It takes the
// same time whether name, password or neither is right.
func (c credentials) Valid(name, password string) bool {
	n, p := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))
	found := 0
	for i := range c {
		found |= subtle.ConstantTimeCompare(n[:], c[i].name[:]) & subtle.ConstantTimeCompare(p[:], c[i].password[:])
	}
	return found == 1
}

// allows reports whether r may use the proxy: there are no users, or its
// Proxy-Authorization is right (RFC 9110 section 11.7.2, RFC 7617).
func (c credentials) allows(r *http.Request) bool {
	if len(c) == 0 {
		return true
	}
	// BasicAuth parses Authorization only: lend it the proxy's header.
	probe := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	name, password, ok := probe.BasicAuth()
	return ok && c.Valid(name, password)
}

func checkUser(u User) error {
	switch {
	case len(u.Name) == 0 || len(u.Name) > 255: // RFC 1929 section 2
		return fmt.Errorf("proxy: user name of %d bytes: 1 to 255 are allowed", len(u.Name))
	case len(u.Password) == 0 || len(u.Password) > 255:
		return fmt.Errorf("proxy: password of user %q has %d bytes: 1 to 255 are allowed", u.Name, len(u.Password))
	case strings.Contains(u.Name, ":"): // RFC 7617 section 2
		return fmt.Errorf("proxy: user name %q holds a colon, which HTTP cannot carry", u.Name)
	}
	return nil
}
