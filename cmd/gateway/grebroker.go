package main

import (
	"errors"
	"fmt"
	"math"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"gateway/internal/config"
	"gateway/internal/gre"
	"gateway/internal/grebroker"
)

func newGREBroker() *cobra.Command {
	var (
		socket, group, level string
		uids                 []uint
	)
	cmd := &cobra.Command{
		Use:   "gre-broker --socket PATH",
		Short: "Open GRE sockets for gateways that may not (PPTP)",
		Long: `Serve GRE sockets on a Unix socket until SIGINT or SIGTERM. This process needs CAP_NET_RAW and does nothing but open such
sockets, connect each to the server that the client names, and pass it on; the gateway (gre_broker = PATH) then needs no privilege.

Only the users of --allow-uid are served, by default the one that the broker runs as. The socket belongs to the one user, or to
--group. Whoever is served can send any IPv4 packet from this machine: name trusted users only.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				return &usageError{errors.New("gre-broker: --socket is missing")}
			}
			c := grebroker.Config{Log: newLog(cmd.ErrOrStderr(), config.Log{Level: config.LogLevel(level), Format: "text"})}
			for _, uid := range uids {
				if uid > math.MaxUint32 {
					return &usageError{fmt.Errorf("--allow-uid: %d is no user ID", uid)}
				}
				c.AllowedUIDs = append(c.AllowedUIDs, uint32(uid))
			}
			if group != "" {
				gid, err := groupID(group)
				if err != nil {
					return &usageError{fmt.Errorf("--group: %w", err)}
				}
				c.Group = &gid
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			probe, err := gre.Open(ctx, gre.Config{}) // to say now what every client would be told
			if err != nil {
				return err
			}
			probe.Close()
			return grebroker.Serve(ctx, socket, c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&socket, "socket", "", "path of the Unix socket to serve")
	flags.UintSliceVar(&uids, "allow-uid", nil, "user ID to serve; may be repeated (default: the broker's own)")
	flags.StringVar(&group, "group", "", "group, by name or ID, that may connect to the socket; needed for several users")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// groupID finds a group by its ID or its name.
func groupID(group string) (uint32, error) {
	id := group
	if _, err := strconv.ParseUint(group, 10, 32); err != nil {
		found, err := user.LookupGroup(group)
		if err != nil {
			return 0, err
		}
		id = found.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 32)
	return uint32(gid), err
}
