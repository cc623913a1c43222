package ppp

import (
	"crypto/rand"
	"io"
	"log/slog"
	"time"
)

// Config holds only what the authentication needs; session.go's Config replaces this file.
type Config struct {
	Username string
	Password string
	Auth     []AuthMethod
	// HashFullName hashes DOMAIN\user as typed instead of user alone (MS-CHAPv2, RFC 2759 section 8.2),
	// for servers that do the same.
	HashFullName bool
	Name         string
	Secrets      func(user string) (password string, ok bool)
	Timers       Timers
	Random       io.Reader
	Log          *slog.Logger
}

// Timers are the timers of the authentication phase.
type Timers struct {
	AuthRestart time.Duration // between two sendings of one authentication packet; 0 = 3 s
	AuthTries   int           // how often it is sent in all; 0 = 10
}

func (c Config) withDefaults() Config {
	if c.Auth == nil {
		c.Auth = DefaultAuth()
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timers.AuthRestart <= 0 {
		c.Timers.AuthRestart = 3 * time.Second
	}
	if c.Timers.AuthTries <= 0 {
		c.Timers.AuthTries = 10
	}
	return c
}
