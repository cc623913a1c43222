package vpnserver

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"gateway/internal/farend"
	"gateway/stack"
)

// What the private network has.
const (
	IndexPage   = "gateway private network\n" // at /
	BigSize     = 64 << 20                    // bytes of /big
	EchoPort    = 7                           // TCP and UDP
	WebPort     = 80
	DNSPort     = 53   // UDP and TCP
	FarEndPort  = 7001 // TCP and UDP, see internal/farend
	PrivateName = "intranet.example"
)

// An intranet is the private network behind the server: one stack with all of
// its addresses, and the services on it.
type intranet struct {
	network *stack.Stack
	web     http.Server
	group   sync.WaitGroup
	closers []io.Closer
}

// newIntranet starts the services on the private addresses of network.
func newIntranet(network *stack.Stack, c Config) (*intranet, error) {
	n := &intranet{network: network}
	addrs := c.Private
	n.web = http.Server{
		Handler:           webSite(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	names := zone{private4: firstOf(addrs, netip.Addr.Is4), private6: firstOf(addrs, netip.Addr.Is6)}
	for _, addr := range addrs {
		err := errors.Join(
			n.listen(addr, WebPort, func(l net.Listener) { n.web.Serve(l) }),
			n.listen(addr, EchoPort, serveEcho),
			n.listen(addr, DNSPort, names.serveTCP),
			n.listen(addr, FarEndPort, func(l net.Listener) { c.FarEnd.Serve(l) }),
			n.listenPacket(addr, EchoPort, func(c net.PacketConn) { farend.ServeUDP(c) }),
			n.listenPacket(addr, DNSPort, names.serveUDP),
			n.listenPacket(addr, FarEndPort, func(c net.PacketConn) { farend.ServeUDP(c) }),
		)
		if err != nil {
			n.close()
			return nil, fmt.Errorf("vpnserver: private network: %w", err)
		}
	}
	return n, nil
}

func firstOf(addrs []netip.Addr, is func(netip.Addr) bool) netip.Addr {
	for _, addr := range addrs {
		if is(addr) {
			return addr
		}
	}
	return netip.Addr{}
}

func (n *intranet) listen(addr netip.Addr, port uint16, serve func(net.Listener)) error {
	l, err := n.network.ListenTCP(netip.AddrPortFrom(addr, port))
	if err != nil {
		return err
	}
	n.closers = append(n.closers, l)
	n.group.Go(func() { serve(l) })
	return nil
}

func (n *intranet) listenPacket(addr netip.Addr, port uint16, serve func(net.PacketConn)) error {
	c, err := n.network.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return err
	}
	n.closers = append(n.closers, c)
	n.group.Go(func() { serve(c) })
	return nil
}

// close ends the services and the stack.
func (n *intranet) close() {
	for _, c := range n.closers {
		c.Close()
	}
	n.web.Close()
	n.network.Close(net.ErrClosed)
	n.group.Wait()
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// webSite is the private network's web site:
//
//	/        a page that is known
//	/ip      the client's address
//	/host    the Host header
//	/big     64 MiB that look random and are the same everywhere
//	/upload  takes a body and answers with its length and SHA-256
func webSite() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, IndexPage) })
	mux.HandleFunc("/ip", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, host)
	})
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Host) })
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(BigSize))
		io.CopyN(w, BigFile(), BigSize)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %s\n", n, hex.EncodeToString(sum.Sum(nil)))
	})
	return mux
}

// BigFile returns what /big consists of, without its end: the AES-128-CTR key
// stream of a zero key and a zero counter.
func BigFile() io.Reader {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err) // the key's length is right
	}
	return cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
