// Command wgfar is a WireGuard server in one unprivileged process whose inner
// network is an in-process stack that runs the far end at 10.99.0.1. It makes
// fresh keys and writes the configuration file of its one client.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"gateway/bench/peers/fartun"
	"gateway/internal/farend"
)

const (
	serverAddr = "10.99.0.1"
	clientAddr = "10.99.0.2"
)

// settings are the flags.
type settings struct {
	port, mtu, farEnd     int
	socks5, config, sends string
}

func main() {
	var s settings
	flag.IntVar(&s.port, "port", 51820, "UDP port")
	flag.StringVar(&s.socks5, "socks", "127.0.0.1:1081", "SOCKS5 address for the client's file")
	flag.StringVar(&s.config, "conf", "wg-client.conf", "client's file to write: [Interface], [Peer], [Socks5]")
	flag.IntVar(&s.mtu, "mtu", 1420, "inner MTU of both sides")
	flag.IntVar(&s.farEnd, "inner", 7001, "the far end's TCP and UDP port at "+serverAddr)
	flag.StringVar(&s.sends, "send", "gso", "how datagrams leave: gso (batches, UDP segmentation offload), mmsg (single datagrams, one call for many), one (a call for each)")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "wgfar:", s.serve())
	os.Exit(1)
}

// serve serves until it fails.
func (s *settings) serve() error {
	tunnel, err := fartun.New(netip.MustParseAddr(serverAddr), s.mtu)
	if err != nil {
		return err
	}
	if err := s.startTunnel(tunnel); err != nil {
		return err
	}
	at := tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(netip.MustParseAddr(serverAddr).As4()), Port: uint16(s.farEnd)}
	packets, err := gonet.DialUDP(tunnel.Stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	go farend.ServeUDP(packets)
	listener, err := gonet.ListenTCP(tunnel.Stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	fmt.Println("wireguard udp", s.port, "inner", serverAddr, s.farEnd)
	return farend.Serve(listener)
}

// startTunnel makes keys for both sides and writes the client's file.
func (s *settings) startTunnel(tunnel *fartun.Device) error {
	server, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	client, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	bind, err := newBind(s.sends)
	if err != nil {
		return err
	}
	d := device.NewDevice(tunnel, bind, device.NewLogger(device.LogLevelError, "wgfar "))
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nallowed_ip=%s/32\n",
		hex.EncodeToString(server.Bytes()), s.port, hex.EncodeToString(client.PublicKey().Bytes()), clientAddr))
	if err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	text := base64.StdEncoding.EncodeToString
	return os.WriteFile(s.config, fmt.Appendf(nil, `[Interface]
Address = %s/32
MTU = %d
PrivateKey = %s

[Peer]
PublicKey = %s
Endpoint = 127.0.0.1:%d
AllowedIPs = 0.0.0.0/0

[Socks5]
BindAddress = %s
`, clientAddr, s.mtu, text(client.Bytes()), text(server.PublicKey().Bytes()), s.port, s.socks5), 0o600)
}
