package ipsec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	client = netip.MustParseAddrPort("192.0.2.10:50000")
	server = netip.MustParseAddrPort("198.51.100.1:4500")
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// An outgoing is what a Transport gave to the socket.
type outgoing struct {
	to       netip.AddrPort
	datagram []byte
}

// A socket records what is written to it.
type socket struct {
	headroom, tailroom int
	mtu                int
	written            []outgoing
	fails              error
}

func (s *socket) WriteDatagrams(datagrams [][]byte, offset int, to netip.AddrPort) error {
	if offset < s.headroom {
		return errors.New("too little headroom for the socket")
	}
	for _, d := range datagrams {
		if cap(d)-len(d) < s.tailroom {
			return errors.New("too little tailroom for the socket")
		}
		s.written = append(s.written, outgoing{to, bytes.Clone(d[offset:])})
	}
	return s.fails
}

func (s *socket) Headroom() int          { return s.headroom }
func (s *socket) Tailroom() int          { return s.tailroom }
func (s *socket) MTU(netip.AddrPort) int { return s.mtu }

// take returns what was written since the last time.
func (s *socket) take() (datagrams [][]byte) {
	for _, o := range s.written {
		datagrams = append(datagrams, o.datagram)
	}
	s.written = nil
	return datagrams
}

// An upper records what a Transport hands up. events are in order, one for each call.
type upper struct {
	events    []string
	datagrams [][]byte
	onBatch   func()
}

func (u *upper) HandleDatagrams(_ time.Time, peer netip.AddrPort, datagrams [][]byte) {
	u.events = append(u.events, fmt.Sprintf("%d from %v", len(datagrams), peer))
	for _, d := range datagrams {
		u.datagrams = append(u.datagrams, bytes.Clone(d))
		clear(d) // which we may
	}
	if u.onBatch != nil {
		u.onBatch()
	}
}

func (u *upper) HandleIKE(_ time.Time, from netip.AddrPort, message []byte) {
	u.events = append(u.events, fmt.Sprintf("IKE %x from %v", message, from))
}

func (u *upper) RekeyWanted(_ time.Time, spiIn uint32) {
	u.events = append(u.events, fmt.Sprintf("rekey %#x", spiIn))
}

func (u *upper) takeEvents() []string {
	events := u.events
	u.events = nil
	return events
}

func (u *upper) takeTexts() (texts []string) {
	for _, d := range u.datagrams {
		texts = append(texts, string(d))
	}
	u.datagrams = nil
	return texts
}

// A side is a Transport with what is around it.
type side struct {
	*Transport
	socket *socket
	upper  *upper
}

func newSide(c Config) *side {
	s := &side{socket: &socket{mtu: 1472}, upper: &upper{}}
	if c.Random == nil {
		c.Random = fixed(1)
	}
	s.Transport = NewTransport(c, s.socket, s.upper)
	return s
}

// fixed is randomness that is the same in each run.
func fixed(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// write sends texts to a peer, as the layer above does.
func (s *side) write(to netip.AddrPort, texts ...string) error {
	return s.WriteDatagrams(s.around(texts...), s.Headroom(), to)
}

// around makes buffers with texts and exactly the room that is asked for.
func (s *side) around(texts ...string) (datagrams [][]byte) {
	for _, text := range texts {
		b := make([]byte, s.Headroom(), s.Headroom()+len(text)+s.Tailroom())
		datagrams = append(datagrams, append(b, text...))
	}
	return datagrams
}

// octets are n bytes that are easy to make again, as in testdata/linux-xfrm.py.
func octets(first, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + 7*i)
	}
	return b
}

// pairs makes the Pairs that two peers have in common. The client chooses spi, the server spi+1.
func pairs(transform string, spi uint32) (ofClient, ofServer Pair) {
	t, err := ParseTransform(transform)
	if err != nil {
		panic(err)
	}
	key, auth := t.KeySizes()
	ofClient = Pair{
		Peer: server, Transform: t, SPIIn: spi, SPIOut: spi + 1,
		KeyIn: octets(int(spi), key), KeyOut: octets(int(spi)+50, key), AuthIn: octets(int(spi)+100, auth), AuthOut: octets(int(spi)+150, auth),
	}
	ofServer = ofClient
	ofServer.Peer = client
	ofServer.SPIIn, ofServer.SPIOut = ofClient.SPIOut, ofClient.SPIIn
	ofServer.KeyIn, ofServer.KeyOut = ofClient.KeyOut, ofClient.KeyIn
	ofServer.AuthIn, ofServer.AuthOut = ofClient.AuthOut, ofClient.AuthIn
	return ofClient, ofServer
}

// install puts a pair to use.
func (s *side) install(t testing.TB, now time.Time, p Pair) netip.AddrPort {
	t.Helper()
	address, err := s.Install(now, p)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// connected returns two sides that have one pair.
func connected(t testing.TB, transform string) (c, s *side) {
	t.Helper()
	c, s = newSide(Config{AllowNull: true}), newSide(Config{AllowNull: true, Random: fixed(2)})
	ofClient, ofServer := pairs(transform, 0x1000)
	c.install(t, epoch, ofClient)
	s.install(t, epoch, ofServer)
	return c, s
}

// receive gives a side copies of datagrams, so that they can be given again.
func (s *side) receive(now time.Time, from netip.AddrPort, datagrams ...[]byte) (next time.Time) {
	batch := make([][]byte, len(datagrams))
	for i, d := range datagrams {
		batch[i] = bytes.Clone(d)
	}
	return s.Receive(now, from, batch)
}

// seal is what c sends for texts.
func (s *side) seal(t testing.TB, to netip.AddrPort, texts ...string) [][]byte {
	t.Helper()
	if err := s.write(to, texts...); err != nil {
		t.Fatal(err)
	}
	return s.socket.take()
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// allTransforms lists the names of all transforms.
func allTransforms() (names []string) {
	for e := range encryptions {
		for i := range integrities {
			if t := (Transform{Encryption(e), Integrity(i)}); t.check() == nil {
				names = append(names, t.String())
			}
		}
	}
	slices.Sort(names)
	return names
}
