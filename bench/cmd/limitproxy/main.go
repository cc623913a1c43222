// Command limitproxy is a plain SOCKS5 proxy with no VPN behind it: what a
// proxy of this kind costs by itself, and so the limit of a VPN's.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"github.com/armon/go-socks5"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:1080", "SOCKS5 address")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "limitproxy:", serve(*listen))
	os.Exit(1)
}

// serve serves until it fails.
func serve(listen string) error {
	server, err := socks5.New(&socks5.Config{Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("socks5", l.Addr())
	return server.Serve(l)
}
