// Package transcript records conversations of our client with real servers, and
// replays them without any server: the protocol engines are deterministic, so
// that the same time, the same randomness and the same answers must give the
// same bytes.
//
// A transcript is a text file of one step a line, with the time since the
// start in nanoseconds:
//
//	open  0                 the client dials
//	in    1203345 c802...   a datagram came, or with PPTP a GRE packet
//	hear  1203345 009c...   bytes came over PPTP's control connection
//	tick  500000000         a deadline of the client passed
//	close 700000000         the client was told to close
//	out   c802...           a datagram or GRE packet that the step above made the client send
//	say   009c...           what it made the client write to the control connection
//	up    10.99.14.10 ...   the network came up in the step above
//	down  ppp: link closed  the link ended in the step above
package transcript

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/carrier"
	"gateway/ppp"
	"gateway/ppp/mppe"
	"gateway/tunnel/l2tp"
	"gateway/tunnel/pptp"
)

// A Case is a conversation: a server of the lab, and how our client talks to it.
type Case struct {
	Name   string
	Server int // the last number of its address in the lab
	L2TP   l2tp.Config
	PPTP   *pptp.Config // nil: it is L2TP
	PPP    ppp.Config
}

func alice(methods ...ppp.AuthMethod) ppp.Config {
	return ppp.Config{Username: "alice", Password: "alice-secret", Auth: methods}
}

// Cases returns all conversations that are recorded.
func Cases() []Case {
	secret := []byte("tunnel-secret")
	return []Case{
		{Name: "l2tp-pap", Server: 11, PPP: alice(ppp.AuthPAP)},
		{Name: "l2tp-chap-md5", Server: 12, PPP: alice(ppp.AuthCHAPMD5)},
		{Name: "l2tp-mschap1", Server: 13, PPP: alice(ppp.AuthMSCHAP)},
		{Name: "l2tp-mschap2", Server: 14, PPP: alice()},
		{Name: "l2tp-eap-md5", Server: 15, PPP: alice(ppp.AuthEAPMD5)},
		{Name: "l2tp-any-ipv6", Server: 16, PPP: alice()},
		{Name: "l2tp-noauth", Server: 17, PPP: alice(ppp.AuthNone)},
		{Name: "l2tp-userspace", Server: 19, PPP: alice()},
		{Name: "l2tp-tunnel-auth", Server: 21, L2TP: l2tp.Config{Secret: secret}, PPP: alice()},
		{Name: "l2tp-tunnel-hidden", Server: 22, L2TP: l2tp.Config{Secret: secret, HideAVPs: true}, PPP: alice()},
		{Name: "l2tp-mtu1000", Server: 23, PPP: alice()},
		{Name: "l2tp-sequencing", Server: 14, L2TP: l2tp.Config{Sequencing: true, LengthBit: true}, PPP: alice()},
		{Name: "l2tp-wrong-password", Server: 14, PPP: ppp.Config{Username: "alice", Password: "wrong"}},
		{Name: "l2tp-not-allowed", Server: 11, PPP: alice()},
		{Name: "l2tp-wrong-secret", Server: 21, L2TP: l2tp.Config{Secret: []byte("wrong")}, PPP: alice()},
		{Name: "bad-l2tp-lossy", Server: 51, PPP: alice()},

		{Name: "pptp-mppe128", Server: 41, PPTP: new(pptp.Config), PPP: encrypted(mppe.Policy{})},
		{Name: "pptp-pap", Server: 42, PPTP: new(pptp.Config), PPP: alice(ppp.AuthPAP)},
		{Name: "pptp-mppe40", Server: 44, PPTP: new(pptp.Config), PPP: encrypted(mppe.Policy{MinKeyBits: 40})},
		{Name: "pptp-mppe128-stateful", Server: 45, PPTP: new(pptp.Config), PPP: encrypted(mppe.Policy{Stateful: true})},
		{Name: "pptp-mschap1-mppe128", Server: 46, PPTP: new(pptp.Config), PPP: encrypted(mppe.Policy{}, ppp.AuthMSCHAP)},
		{Name: "pptp-eap-md5", Server: 49, PPTP: new(pptp.Config), PPP: alice(ppp.AuthEAPMD5)},
		{Name: "pptp-wrong-password", Server: 41, PPTP: new(pptp.Config), PPP: ppp.Config{Username: "alice", Password: "wrong"}},
		{Name: "bad-pptp-lossy", Server: 52, PPTP: new(pptp.Config), PPP: encrypted(mppe.Policy{})},
		{Name: "l2tp-mppe128", Server: 18, PPP: encrypted(mppe.Policy{})},
	}
}

// encrypted demands MPPE.
func encrypted(p mppe.Policy, methods ...ppp.AuthMethod) ppp.Config {
	c := alice(methods...)
	p.Encryption = mppe.Require
	c.CCP = p
	return c
}

// A Client is our side of a conversation: a tunnel with one session and PPP, and
// no network above it. Each step appends its outcome to the transcript.
type Client struct {
	server   netip.AddrPort
	config   ppp.Config
	engine   carrier.Engine // *carrier.L2TP or *carrier.PPTP
	endpoint endpoint
	control  *pptp.Connection // nil with L2TP
	link     *carrier.Link
	start    time.Time
	Next     time.Time // when Tick is due; zero: never

	// Send and Say, if set, are called with each datagram or GRE packet that the
	// client sends, and with what it writes to the control connection.
	Send, Say func([]byte)

	transcript         bytes.Buffer
	now                time.Time // of the step
	Up, Closing, Ended bool
}

type endpoint interface {
	Close(now time.Time) (next time.Time)
	Idle() bool
}

// NewClient returns a client that has not dialed yet. Its randomness is that of
// every client with this case's name.
func NewClient(c Case, server netip.AddrPort, start time.Time) *Client {
	var seed [32]byte
	copy(seed[:], c.Name)
	random := rand.NewChaCha8(seed)
	c.PPP.Random = random
	client := &Client{server: server, config: c.PPP, start: start}
	if c.PPTP != nil {
		config := *c.PPTP
		config.Random = random
		engine := carrier.NewPPTP(config, packets{client})
		client.engine, client.endpoint = engine, engine.Endpoint()
		return client
	}
	c.L2TP.Random = random
	engine := carrier.NewL2TP(c.L2TP, client)
	client.engine, client.endpoint = engine, engine.Endpoint()
	return client
}

// Transcript returns what has happened so far.
func (c *Client) Transcript() []byte { return c.transcript.Bytes() }

func (c *Client) note(what string, fields ...string) {
	fmt.Fprintf(&c.transcript, "%-5s %s\n", what, strings.Join(fields, " "))
}

func (c *Client) step(what string, now time.Time, data []byte) {
	c.now = now
	c.note(what, strings.TrimSpace(strconv.FormatInt(now.Sub(c.start).Nanoseconds(), 10)+" "+hex.EncodeToString(data)))
}

// Open dials.
func (c *Client) Open(now time.Time) {
	c.step("open", now, nil)
	switch e := c.endpoint.(type) {
	case *l2tp.Endpoint:
		e.Dial(now, c.server, (*tunnelHandler)(c))
	case *pptp.Endpoint:
		c.control = e.Dial(now, c.server.Addr(), control{c}, (*connectionHandler)(c))
	}
	c.Next = c.engine.Advance(now)
}

// Hear takes bytes of the server's side of the control connection.
func (c *Client) Hear(now time.Time, b []byte) {
	c.step("hear", now, b)
	c.control.ReceiveControl(now, bytes.Clone(b))
	c.Next = c.engine.Advance(now)
}

// Receive takes a datagram or GRE packet of the server.
func (c *Client) Receive(now time.Time, datagram []byte) {
	c.step("in", now, datagram)
	c.engine.Receive(now, c.server, [][]byte{bytes.Clone(datagram)})
	c.Next = c.engine.Advance(now)
}

// Tick lets a deadline pass.
func (c *Client) Tick(now time.Time) {
	c.step("tick", now, nil)
	c.Next = c.engine.Advance(now)
}

// Close ends PPP, the session and the tunnel.
func (c *Client) Close(now time.Time) {
	c.step("close", now, nil)
	c.Closing = true
	c.link.Close(now)
	c.Next = c.engine.Advance(now)
}

// Idle reports whether everything is over and acknowledged.
func (c *Client) Idle() bool { return c.Ended && c.endpoint.Idle() }

// control is where the client writes control messages.
type control struct{ *Client }

func (c control) Write(b []byte) (int, error) {
	c.note("say", hex.EncodeToString(b))
	if c.Say != nil {
		c.Say(b)
	}
	return len(b), nil
}

// packets is where the client sends GRE packets (pptp.GREWriter).
type packets struct{ *Client }

func (p packets) WritePackets(packets [][]byte, offset int, _ netip.Addr) error {
	return p.WriteDatagrams(packets, offset, netip.AddrPort{})
}

func (p packets) MTU(netip.Addr) int { return 1480 }

// WriteDatagrams notes what the client sends (l2tp.DatagramWriter).
func (c *Client) WriteDatagrams(datagrams [][]byte, offset int, _ netip.AddrPort) error {
	for _, d := range datagrams {
		c.note("out", hex.EncodeToString(d[offset:]))
		if c.Send != nil {
			c.Send(d[offset:])
		}
	}
	return nil
}

// Headroom, Tailroom and MTU are those of UDP over Ethernet (l2tp.DatagramWriter).
func (c *Client) Headroom() int          { return 0 }
func (c *Client) Tailroom() int          { return 0 }
func (c *Client) MTU(netip.AddrPort) int { return 1472 }

type tunnelHandler Client

func (h *tunnelHandler) TunnelUp(now time.Time, t *l2tp.Tunnel) {
	link, err := h.engine.(*carrier.L2TP).OpenLink(now, t, h.config, network{(*Client)(h)})
	if err != nil {
		(*Client)(h).end(err)
	}
	h.link = link
}

func (h *tunnelHandler) TunnelDown(_ time.Time, err error) { (*Client)(h).end(err) }

func (h *tunnelHandler) AcceptSession(time.Time, *l2tp.Session) (l2tp.SessionHandler, error) {
	return nil, fmt.Errorf("no call is expected")
}

type connectionHandler Client

func (h *connectionHandler) ConnectionUp(now time.Time, k *pptp.Connection) {
	link, err := h.engine.(*carrier.PPTP).OpenLink(now, k, h.config, network{(*Client)(h)})
	if err != nil {
		(*Client)(h).end(err)
	}
	h.link = link
}

func (h *connectionHandler) ConnectionDown(_ time.Time, err error) { (*Client)(h).end(err) }

func (h *connectionHandler) AcceptCall(time.Time, *pptp.Call) (pptp.CallHandler, error) {
	return nil, fmt.Errorf("no call is expected")
}

func (c *Client) end(err error) {
	if !c.Ended {
		c.Ended = true
		c.note("down", fmt.Sprint(err))
	}
}

// network is the Client as its PPP link sees it.
type network struct{ client *Client }

func (n network) Up(p ppp.Params) {
	n.client.Up = true
	n.client.note("up", fmt.Sprint(p.Local, " ", p.Remote, " ", p.DNS, " ipv6=", p.IPv6, " mtu=", p.MTU, " auth=", p.Auth, encryption(p)))
}

// encryption is empty without any, so that older recordings hold.
func encryption(p ppp.Params) string {
	if p.Encryption == "" {
		return ""
	}
	return " encryption=" + p.Encryption
}

func (n network) HandlePackets([][]byte) {}

func (n network) Down(err error) {
	n.client.end(err)
	n.client.endpoint.Close(n.client.now)
}

// Replay gives a client the steps of a transcript and returns the transcript
// that this makes.
func Replay(c Case, server netip.AddrPort, transcript []byte) ([]byte, error) {
	start := time.Unix(1_000_000_000, 0)
	client := NewClient(c, server, start)
	scanner := bufio.NewScanner(bytes.NewReader(transcript))
	for line := 1; scanner.Scan(); line++ {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 2 {
			return nil, fmt.Errorf("transcript: line %d: %q", line, scanner.Text())
		}
		if slices.Contains([]string{"out", "say", "up", "down"}, fields[0]) {
			continue // an outcome
		}
		at, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("transcript: line %d: %w", line, err)
		}
		now := start.Add(time.Duration(at))
		switch fields[0] {
		case "open":
			client.Open(now)
		case "tick":
			client.Tick(now)
		case "close":
			client.Close(now)
		case "in", "hear":
			data, err := hex.DecodeString(fields[len(fields)-1])
			if err != nil {
				return nil, fmt.Errorf("transcript: line %d: %w", line, err)
			}
			if fields[0] == "hear" {
				client.Hear(now, data)
			} else {
				client.Receive(now, data)
			}
		default:
			return nil, fmt.Errorf("transcript: line %d: unknown step %q", line, fields[0])
		}
	}
	return client.Transcript(), scanner.Err()
}
