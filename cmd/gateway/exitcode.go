package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/vpnclient"
)

// An exitCode tells a script why the program ended.
type exitCode = int

const (
	exitOK             exitCode = iota // stopped by a signal, or done
	exitOther                          // anything not below
	exitConfig                         // command line or configuration
	exitPrivilege                      // the system refuses what the protocol needs
	exitUnreachable                    // the server cannot be found or does not answer
	exitNegotiation                    // the server answers, but no common ground is found
	exitAuthentication                 // the server refuses the login, or cannot prove who it is
	exitPeerClosed                     // the server ended a tunnel that was up
	exitLinkLost                       // a tunnel that was up fell silent
	exitListener                       // an address to listen on cannot be had
)

// exitCodeTexts explains the codes to users, in their order.
var exitCodeTexts = []string{
	exitOK:             "stopped by a signal, or the command did what it was asked to",
	exitOther:          "another error",
	exitConfig:         "the command line or the configuration is wrong",
	exitPrivilege:      "the system does not permit what the protocol needs",
	exitUnreachable:    "the server's name is unknown, or the server does not answer",
	exitNegotiation:    "the server answers but refuses the tunnel, or has no method in common with us",
	exitAuthentication: "the server refuses the login, the key or the certificate, or cannot prove that it knows the password",
	exitPeerClosed:     "the server closed the tunnel after it was up",
	exitLinkLost:       "the server fell silent after the tunnel was up",
	exitListener:       "an address for a proxy to listen on cannot be had",
}

// codeOfVerdict is what the failure of a tunnel means to a script.
var codeOfVerdict = map[vpnclient.Verdict]exitCode{
	vpnclient.Unreachable:  exitUnreachable,
	vpnclient.Disagreed:    exitNegotiation,
	vpnclient.Refused:      exitAuthentication,
	vpnclient.PeerClosed:   exitPeerClosed,
	vpnclient.LinkLost:     exitLinkLost,
	vpnclient.NotPermitted: exitPrivilege,
}

// An exitError is an error of a command that knows its exit code.
type exitError struct {
	code exitCode
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// codeOf finds the exit code of an error: the code that a command gave it, else what its type says.
func codeOf(err error) exitCode {
	var (
		coded   *exitError
		misused *usageError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &misused), len(config.Problems(err)) > 0:
		return exitConfig
	case errors.Is(err, gateway.ErrListen):
		return exitListener
	case vpnclient.Judge(err) != vpnclient.Failed:
		return codeOfVerdict[vpnclient.Judge(err)]
	case errors.Is(err, fs.ErrPermission):
		return exitPrivilege
	}
	return exitOther
}

// newExitCodesTopic is `gateway help exit-codes`.
func newExitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("Exit codes of gateway:\n\n")
	for code, text := range exitCodeTexts {
		fmt.Fprintf(&b, "  %d  %s\n", code, text)
	}
	return &cobra.Command{Use: "exit-codes", Short: "Exit codes and their causes", Long: b.String()}
}
