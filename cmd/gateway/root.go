package main

import (
	"github.com/spf13/cobra"
)

// newRoot builds the tree of commands. Each command has a file of its name.
func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "gateway",
		Short: "Reach the network behind a legacy VPN server through SOCKS5 and HTTP proxies, without root",
		Long: `gateway connects to a legacy VPN server without root, kernel modules or a TUN device, and offers
the network behind it as SOCKS5 and HTTP proxies.`,
		SilenceErrors: true, // main reports them
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newRun(environ),
		newCheck(environ),
		newDemo(),
		newGREBroker(),
		newVersion(),
		newEnvironmentTopic(),
		newExitCodesTopic(),
	)
	return root
}

// usageError is a command line that does not make sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Advice says where to look.
func (e *usageError) Advice() string { return "see gateway --help" }

// usage makes usage errors of those of a check of arguments.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}
