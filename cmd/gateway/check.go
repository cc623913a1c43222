package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCheck(environ []string) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check the configuration: exit code 0, or 2 and what is wrong where",
		Long: `Check the configuration as run would read it, without connecting anywhere. All that is wrong is printed,
one problem a line, with file, line and column. Exit code 0 if it is right, 2 if not.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, from, err := s.load(environ)
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v [warning]\n", w)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", from)
			return err
		},
	}
	s.register(cmd)
	return cmd
}
