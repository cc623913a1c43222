// Command gateway connects to a legacy VPN server without root and offers the network behind it as proxies.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"gateway/internal/config"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code.
func execute(args, environ []string, stdout, stderr io.Writer) exitCode {
	root := newRoot(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.Execute(); err != nil {
		report(stderr, err)
		return codeOf(err)
	}
	return exitOK
}

// report prints an error for a person: problems of the configuration a line each, with file and line in front as editors
// expect it; everything else with the advice that it carries.
func report(w io.Writer, err error) {
	if problems := config.Problems(err); len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
		return
	}
	fmt.Fprintf(w, "gateway: %v\n", err)
	var advising interface{ Advice() string }
	if errors.As(err, &advising) && advising.Advice() != "" {
		fmt.Fprintf(w, "  %s\n", advising.Advice())
	}
}
