package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gateway/internal/config"
)

// settings are the flags by which a command finds its configuration.
type settings struct {
	file   string
	set    []string // KEY=VALUE
	common map[string]*string
	cmd    *cobra.Command
}

// commonFlags are the keys that have a flag of their own; --set does for the others.
var commonFlags = []struct{ flag, key, help string }{
	{"server", "tunnel.server", "host name or IP address of the VPN server"},
	{"protocol", "tunnel.protocol", "protocol of the VPN server"},
	{"username", "tunnel.username", "user name at the VPN server"},
	{"password-file", "tunnel.password_file", "file that holds the password"},
	{"socks5", "proxy.socks5", `address of the SOCKS5 proxy, or "off"`},
	{"http", "proxy.http", `address of the HTTP proxy, or "off"`},
	{"gre-fd", "tunnel.pptp.gre_fd", "open descriptor that is a raw GRE socket, for PPTP without CAP_NET_RAW"},
	{"gre-broker", "tunnel.pptp.gre_broker", "socket of gateway gre-broker, for PPTP without CAP_NET_RAW"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "text or json"},
}

func (s *settings) register(cmd *cobra.Command) {
	s.cmd, s.common = cmd, map[string]*string{}
	flags := cmd.Flags()
	flags.StringVarP(&s.file, "config", "c", "", "configuration file (default: $"+config.EnvFile+", then "+strings.Join(defaultFiles(), ", then ")+")")
	for _, f := range commonFlags {
		s.common[f.flag] = flags.String(f.flag, "", f.help)
	}
	flags.StringArrayVar(&s.set, "set", nil, "set any key but a secret, such as --set tunnel.ppp.mru=1400; may be repeated")
}

// load reads the configuration and says in words where it came from.
func (s *settings) load(environ []string) (c *config.Config, from string, err error) {
	overrides := map[string]string{}
	for _, f := range commonFlags {
		if s.cmd.Flags().Changed(f.flag) {
			overrides[f.key] = *s.common[f.flag]
		}
	}
	for _, assignment := range s.set {
		key, value, ok := strings.Cut(assignment, "=")
		if !ok {
			return nil, "", &usageError{fmt.Errorf("--set %s: want KEY=VALUE", key)}
		}
		overrides[key] = value
	}
	file := s.find(environ)
	if from = file; from == "" {
		from = "environment"
	}
	c, err = config.Load(config.Sources{File: file, Environ: environ, Overrides: overrides})
	return c, from, err
}

// find returns the file to read: by flag, by environment, or the first default one that is there; "" is none.
func (s *settings) find(environ []string) string {
	if s.file != "" {
		return s.file
	}
	for _, variable := range environ {
		if file, ok := strings.CutPrefix(variable, config.EnvFile+"="); ok && file != "" {
			return file
		}
	}
	for _, file := range defaultFiles() {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

func defaultFiles() (files []string) {
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "gateway", "config.toml"))
	}
	return append(files, filepath.FromSlash("/etc/gateway/config.toml"))
}

// newEnvironmentTopic is `gateway help environment`.
func newEnvironmentTopic() *cobra.Command {
	var b strings.Builder
	fmt.Fprintf(&b, `Every key of the configuration can be set by an environment variable. A flag wins over the environment, the
environment over the file. An empty variable counts as not set. A variable that begins with %s and is not in this list is
an error, so that a typing mistake does not go unnoticed.

Lists are comma-separated, hosts are written name=address,name=address. The keys of the second tunnel begin with
%sTUNNEL_1_, those of the second user with %sPROXY_USER_1_; they count from 0. %s names the file.

GOMAXPROCS sets how many processors the program runs on; without it, run uses as few as do its work.

`, config.EnvPrefix, config.EnvPrefix, config.EnvPrefix, config.EnvFile)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VARIABLE\tTYPE\tDEFAULT\tALLOWED")
	for _, k := range config.Keys() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Env, k.Type, k.Default, k.Allowed)
	}
	w.Flush()
	return &cobra.Command{Use: "environment", Short: "Environment variables", Long: b.String()}
}
