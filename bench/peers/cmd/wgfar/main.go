// Command wgfar is a WireGuard server in one unprivileged process whose inner
// network is an in-process stack running the far end (see package farend). It
// makes fresh keys and writes the client's configuration file.
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

func main() {
	port := flag.Int("port", 51820, "UDP port")
	socks := flag.String("socks", "127.0.0.1:1081", "SOCKS5 address put into the client's file")
	http := flag.String("http", "", "HTTP proxy address put into the client's file")
	out := flag.String("conf", "wg-client.conf", "client file to write (INI: [Interface] [Peer] [Socks5] [http])")
	mtu := flag.Int("mtu", 1420, "inner MTU of both sides")
	inner := flag.Int("inner", 7001, "the far end's TCP and UDP port at 10.99.0.1")
	send := flag.String("send", "gso", "how datagrams leave: gso (batches, UDP segmentation offload), mmsg (single datagrams, one call for many) or one (a call for each)")
	flag.Parse()

	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "wgfar:", err)
			os.Exit(1)
		}
	}
	sk, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(err)
	ck, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(err)
	b64 := base64.StdEncoding.EncodeToString

	t, err := fartun.New(netip.MustParseAddr("10.99.0.1"), *mtu, true)
	must(err)
	bind, err := newBind(*send)
	must(err)
	dev := device.NewDevice(t, bind, device.NewLogger(device.LogLevelError, "wgfar "))
	must(dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nallowed_ip=10.99.0.2/32\n",
		hex.EncodeToString(sk.Bytes()), *port, hex.EncodeToString(ck.PublicKey().Bytes()))))
	must(dev.Up())

	conf := fmt.Sprintf("[Interface]\nAddress = 10.99.0.2/32\nMTU = %d\nPrivateKey = %s\n\n[Peer]\nPublicKey = %s\nEndpoint = 127.0.0.1:%d\nAllowedIPs = 0.0.0.0/0\n\n[Socks5]\nBindAddress = %s\n",
		*mtu, b64(ck.Bytes()), b64(sk.PublicKey().Bytes()), *port, *socks)
	if *http != "" {
		conf += fmt.Sprintf("\n[http]\nBindAddress = %s\n", *http)
	}
	must(os.WriteFile(*out, []byte(conf), 0o600))

	a := tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4([4]byte{10, 99, 0, 1}), Port: uint16(*inner)}
	pc, err := gonet.DialUDP(t.Stack, &a, nil, ipv4.ProtocolNumber)
	must(err)
	go farend.ServeUDP(pc)
	l, err := gonet.ListenTCP(t.Stack, a, ipv4.ProtocolNumber)
	must(err)
	fmt.Println("wireguard udp", *port, "inner 10.99.0.1", *inner)
	must(farend.Serve(l))
}
