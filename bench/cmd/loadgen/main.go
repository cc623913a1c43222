// Command loadgen measures a TCP or UDP proxy from outside.
//
//	loadgen serve    -listen H:P [-udp H:P] [-text]
//	loadgen MODE     -proxy URL -target H:P [-n N] [-mbit LIMIT] [-dur 3s] [-warm 1s] [-size 64] [-pid PID]
//	loadgen compare  -a URL -ta H:P [-pa PID] -b URL -tb H:P [-pb PID] [-pairs 5] [-cases down:1,up:8,...]
//
// MODE is down, up, rate, rtt, udp, idle, rtt-down or rtt-up; see package load. URL is direct,
// socks5://[user:password@]host:port or http://host:port. A mode prints one
// JSON object, compare a table.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"gateway/bench/load"
	"gateway/internal/farend"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want serve, compare or one of %v", load.Modes)
	}
	verb, args := args[0], args[1:]
	flags := flag.NewFlagSet(verb, flag.ExitOnError)
	switch mode := load.Mode(verb); {
	case verb == "serve":
		return serve(flags, args)
	case verb == "compare":
		return compare(ctx, flags, args)
	case slices.Contains(load.Modes, mode):
		return measure(ctx, mode, flags, args)
	}
	return fmt.Errorf("%q: want serve, compare or one of %v", verb, load.Modes)
}

// serve runs a far end on this machine's own network.
func serve(flags *flag.FlagSet, args []string) error {
	listen := flags.String("listen", "127.0.0.1:7001", "TCP address")
	udp := flags.String("udp", "", "UDP address (none when empty)")
	text := flags.Bool("text", false, "downloads are text that compresses well, not noise")
	flags.Parse(args)
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	if *udp != "" {
		c, err := net.ListenPacket("udp", *udp)
		if err != nil {
			return err
		}
		go func() { failed <- farend.ServeUDP(c) }()
	}
	fmt.Println("tcp", l.Addr())
	server := farend.Server{Text: *text}
	go func() { failed <- server.Serve(l) }()
	return <-failed
}

// measure does one measurement.
func measure(ctx context.Context, mode load.Mode, flags *flag.FlagSet, args []string) error {
	var o load.Options
	times(flags, &o, 3*time.Second)
	flags.StringVar(&o.Proxy, "proxy", "direct", "direct, socks5://… or http://…")
	flags.StringVar(&o.Target, "target", "127.0.0.1:7001", "the far end's address as the proxy reaches it")
	flags.IntVar(&o.N, "n", mode.DefaultN(), "streams, clients, connections or datagrams in flight")
	flags.Float64Var(&o.Mbit, "mbit", 0, "down, up: limit of all streams together in Mbit/s (0: none)")
	flags.BoolVar(&o.Text, "text", false, "up: what is sent compresses well")
	flags.IntVar(&o.PID, "pid", 0, "the proxy's process: adds its CPU and memory")
	flags.Parse(args)
	f, err := load.Run(ctx, mode, o)
	if f != nil {
		err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(f))
	}
	return err
}

func times(flags *flag.FlagSet, o *load.Options, dur time.Duration) {
	flags.DurationVar(&o.Dur, "dur", dur, "time measured in each run")
	flags.DurationVar(&o.Warm, "warm", time.Second, "time before it")
	flags.IntVar(&o.Size, "size", 64, "bytes of a request")
}

// compare runs cases through two proxies and prints the ratio of each pair of runs.
func compare(ctx context.Context, flags *flag.FlagSet, args []string) error {
	var a, b load.Side
	var o load.Options
	times(flags, &o, 2*time.Second)
	side(flags, &a, "a")
	side(flags, &b, "b")
	pairs := flags.Int("pairs", 5, "pairs of runs for each case")
	list := flags.String("cases", "down:1,up:1,down:8,up:8,down:64,up:64,rate:8,rtt:1", "mode[:n][@Mbit/s], ...")
	flags.Parse(args)
	var cases []load.Case
	for _, text := range strings.Split(*list, ",") {
		c, err := load.ParseCase(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		cases = append(cases, c)
	}
	fmt.Printf("# %s/%s in pairs: median [least..greatest]; > higher is better, < lower is better\n", a.Name, b.Name)
	fmt.Printf("%-11s %-14s %26s %26s %24s\n", "case", "figure", a.Name, b.Name, a.Name+"/"+b.Name)
	for _, c := range cases {
		figures := load.Compare(ctx, c, o, []load.Side{a, b}, *pairs, warn)
		show(c, figures[0], figures[1])
	}
	return context.Cause(ctx)
}

func side(flags *flag.FlagSet, s *load.Side, letter string) {
	flags.StringVar(&s.Name, "n"+letter, strings.ToUpper(letter), "name of "+letter)
	flags.StringVar(&s.Proxy, letter, "direct", "proxy of "+letter)
	flags.StringVar(&s.Target, "t"+letter, "127.0.0.1:7001", "the far end as "+letter+" reaches it")
	flags.IntVar(&s.PID, "p"+letter, 0, "process of "+letter)
}

func warn(_ int, s load.Side, _ load.Figures, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "loadgen: %s: %v\n", s.Name, err)
	}
}

func show(c load.Case, a, b []load.Figures) {
	headline, higher := c.Mode.Headline()
	for _, figure := range append([]string{headline}, c.Mode.Extras()...) {
		mark := "<"
		if figure == headline && higher {
			mark = ">"
		}
		fmt.Printf("%-11s %-13s%s %26v %26v %24v\n", c, figure, mark, load.SpreadOf(load.Values(a, figure)),
			load.SpreadOf(load.Values(b, figure)), load.SpreadOf(load.Ratios(a, b, figure)))
	}
}
