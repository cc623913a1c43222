package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gateway/internal/config"
	"gateway/internal/demo"
	"gateway/internal/farend"
	"gateway/internal/gre"
	"gateway/internal/udpbatch"
	"gateway/internal/vpnserver"
	"gateway/ppp/mppe"
)

func newDemo() *cobra.Command {
	var once, verbose bool
	var protocol string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole way in one process: VPN server, client and proxies",
		Long: `Start the in-process VPN server and a gateway that dials it, fetch the private page through both proxies,
say each step, and stay up for you to try. It needs no privilege and no configuration.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(demo.Protocols(), config.Protocol(protocol)) {
				return &usageError{fmt.Errorf("--protocol: %q is not one of l2tp-ipsec, l2tp, pptp", protocol)}
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return demo.Run(ctx, demo.Options{Protocol: config.Protocol(protocol), Once: once, Out: cmd.OutOrStdout(), Log: demoLog(cmd, verbose)})
		},
	}
	cmd.Flags().StringVar(&protocol, "protocol", string(config.L2TPIPsecProtocol), "protocol between the two: l2tp-ipsec, l2tp or pptp")
	cmd.Flags().BoolVar(&once, "once", false, "end after the fetches: exit code 0 if all was right")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the logs of both sides")
	cmd.AddCommand(newDemoServer())
	return cmd
}

func demoLog(cmd *cobra.Command, verbose bool) *slog.Logger {
	level := config.LogLevel("warn")
	if verbose {
		level = "debug"
	}
	return newLog(cmd.ErrOrStderr(), config.Log{Level: level, Format: "text"})
}

func newDemoServer() *cobra.Command {
	var (
		listen, user, password, secret, psk, send string
		port, pptpPort, ikePort, espPort          uint16
		out                                       []string
		socketBuffer                              int
		text, verbose                             bool
	)
	cmd := &cobra.Command{
		Use:   "server",
		Short: "The in-process VPN server alone, for trials and benchmarks",
		Long: `Start the in-process VPN server alone, print where it listens and how to log in, and serve until stopped.
Its private network exists in this process only; --out lets clients reach other addresses too. It serves PPTP, too, if it may
open a raw GRE socket (CAP_NET_RAW).`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := netip.ParseAddr(listen)
			if err != nil {
				return &usageError{fmt.Errorf("--listen: %w", err)}
			}
			var prefixes []netip.Prefix
			for _, o := range out {
				p, err := netip.ParsePrefix(o)
				if err != nil {
					return &usageError{fmt.Errorf("--out: %w", err)}
				}
				prefixes = append(prefixes, p)
			}
			socket, err := sendingSocket(send)
			if err != nil {
				return err
			}
			socket.ReadBuffer, socket.WriteBuffer = socketBuffer, socketBuffer
			for _, random := range []*string{&password, &psk} {
				if *random == "" {
					*random = rand.Text()
				}
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			c := vpnserver.Config{Listen: netip.AddrPortFrom(host, port), Users: map[string]string{user: password}, Out: prefixes,
				Socket: socket, FarEnd: farend.Server{Text: text}, Log: demoLog(cmd, verbose)}
			c.L2TP.Secret = []byte(secret)
			c.L2TP.Log, c.PPTP.Log, c.PPP.Log = c.Log, c.Log, c.Log
			c.IPsec.IKE.PSK = []byte(psk)
			c.IPsec.IKE.Log, c.IPsec.ESP.Log, c.IPsec.Log = c.Log, c.Log, c.Log
			c.ListenIKE, c.ListenESP = netip.AddrPortFrom(host, ikePort), netip.AddrPortFrom(host, espPort)
			c.PPP.CCP = mppe.Policy{Encryption: mppe.Allow, Compression: mppe.Allow}
			c.ListenPPTP = netip.AddrPortFrom(host, pptpPort)
			if c.GRE, err = serversGRE(ctx, host, socket); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "no PPTP: %v\n", err)
			}
			server, err := vpnserver.Start(ctx, c)
			if err != nil {
				return err
			}
			if pptp := server.PPTPAddr(); pptp.IsValid() {
				fmt.Fprintf(cmd.OutOrStdout(), "pptp %v\n", pptp)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ike %v\nesp %v\npsk %s\n", server.IKEAddr(), server.ESPAddr(), psk)
			fmt.Fprintf(cmd.OutOrStdout(), "l2tp %v\nusername %s\npassword %s\nprivate http://%s/ %v\nfar-end %v\n", server.Addr(), user, password,
				vpnserver.PrivateName, server.Private(), netip.AddrPortFrom(server.Private()[0], vpnserver.FarEndPort))
			<-ctx.Done()
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			server.Close(leave) // a client that does not answer is left
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1", "address to listen on")
	flags.Uint16Var(&port, "port", 1701, "UDP port to listen on; 0: any that is free")
	flags.Uint16Var(&ikePort, "ike-port", 0, "UDP port where IKE of L2TP/IPsec begins; 0: any that is free (clients that cannot be told want 500)")
	flags.Uint16Var(&espPort, "nat-port", 4500, "UDP port where IKE goes on and ESP goes; 0: any that is free")
	flags.Uint16Var(&pptpPort, "pptp-port", 1723, "TCP port to listen on for PPTP; 0: any that is free")
	flags.StringVar(&user, "username", "demo", "login of the client")
	flags.StringVar(&password, "demo-password", "", "password of the client (default: a random one)")
	flags.StringVar(&psk, "demo-psk", "", "pre-shared key of L2TP/IPsec (default: a random one)")
	flags.StringVar(&secret, "demo-secret", "", "tunnel secret (default: none)")
	flags.StringSliceVar(&out, "out", nil, "prefixes that clients may reach outside the private network")
	flags.StringVar(&send, "send", "gso", "how datagrams leave: gso (batches, UDP segmentation offload), mmsg (single datagrams, one call for many), one (a call for each)")
	flags.IntVar(&socketBuffer, "socket-buffer", 0, "bytes asked of the kernel for each socket buffer; 0: 4 MiB")
	flags.BoolVar(&text, "text", false, "the far end's downloads are text that compresses well, not noise")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show the server's log")
	return cmd
}

// serversGRE opens the socket for PPTP clients.
func serversGRE(ctx context.Context, local netip.Addr, like udpbatch.Config) (vpnserver.GRESocket, error) {
	c := gre.Config{DisableBatch: like.DisableBatch, ReadBuffer: like.ReadBuffer, WriteBuffer: like.WriteBuffer}
	if !local.IsUnspecified() {
		c.Local = local
	}
	socket, err := gre.Open(ctx, c)
	if err != nil {
		return nil, err // and no interface that holds a nil *gre.Conn
	}
	return socket, nil
}

// sendingSocket returns the socket's settings for a value of --send: a
// client's cost depends on how its server's datagrams come.
func sendingSocket(send string) (udpbatch.Config, error) {
	switch send {
	case "gso":
		return udpbatch.Config{}, nil
	case "mmsg":
		return udpbatch.Config{DisableGSO: true}, nil
	case "one":
		return udpbatch.Config{DisableGSO: true, DisableBatch: true}, nil
	}
	return udpbatch.Config{}, &usageError{fmt.Errorf("--send %q: want gso, mmsg or one", send)}
}
