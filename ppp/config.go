package ppp

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"gateway/ppp/mppe"
)

// A Role is the side of the link that we take. PPP itself is symmetrical; the roles differ in who proves its identity
// and who hands out addresses.
type Role uint8

const (
	Peer          Role = iota // we log in and are given an address (a VPN client)
	Authenticator             // we demand a login and hand out addresses (a VPN server)
)

// String returns "peer" or "authenticator".
func (r Role) String() string {
	if r == Authenticator {
		return "authenticator"
	}
	return "peer"
}

// A Config says what a [Session] may agree to. Its zero value is a peer with no name and the default of every setting.
// A Session never changes it; the slices and functions are shared with the caller and must not change either.
type Config struct {
	Role Role

	// Username and Password are our login as a peer. The password never reaches logs or errors.
	Username string
	Password string

	// Auth lists the allowed authentication methods in order of preference; nil means [DefaultAuth].
	Auth []AuthMethod

	// HashFullName makes MS-CHAPv2 hash the name as typed, "DOMAIN\" included, which some servers want against
	// RFC 2759 section 8.2.
	HashFullName bool

	// Name is what we call ourselves in challenges as an authenticator; empty means "gateway".
	Name string

	// Secrets returns the password of a user that wants to log in to us (authenticator).
	Secrets func(user string) (password string, ok bool)

	// Assign returns the addresses for a user that has logged in (authenticator); an error ends the link.
	// Nil: no IPv4 is offered.
	Assign func(username string) (Assignment, error)

	// CCP says which encryption (MPPE) and compression (MPPC) may be agreed upon; the zero value refuses both. With
	// mppe.Require no IP packet leaves or is taken in clear, ever, and only logins that give keys are used. With less it is
	// so from the moment on in which encryption was agreed upon: a link never goes back to clear, it ends.
	CCP mppe.Policy

	// MRU is the largest packet in bytes that we ask for and that we send, 128 to 16384. Zero: what the carrier holds
	// without fragmentation, at most 1500. Longer packets from the peer are taken all the same (RFC 1661 section 6.1).
	MRU int

	// EchoInterval is the silence after which the peer is asked for life with an LCP Echo-Request. Zero: 30 s;
	// negative: never.
	EchoInterval time.Duration

	// EchoFailures is the number of Echo-Requests without an answer after which the link is dead. Zero: 4.
	EchoFailures int

	// NoIPv6 keeps IPV6CP from being tried.
	NoIPv6 bool

	// Address is an IPv4 address that we wish for as a peer; the server has the last word. Zero: whatever it assigns.
	Address netip.Addr

	// WantNBNS makes a peer ask for NetBIOS name servers (RFC 1877) too.
	WantNBNS bool

	// Timers bound every phase; the zero value is the RFC's.
	Timers Timers

	// Random gives magic numbers, interface identifiers and challenges; nil means crypto/rand.
	Random io.Reader

	// Log gets one line for each change of state; nil discards them.
	Log *slog.Logger
}

// Timers bound how long and how often a Session tries. Zero means the default of each.
type Timers struct {
	Restart      time.Duration // between transmissions of a request, the first being closer; 3 s (RFC 1661 section 4.6)
	MaxConfigure int           // Configure-Requests without an answer; 10
	MaxTerminate int           // Terminate-Requests without an answer; 2
	MaxFailure   int           // Configure-Naks before they become Configure-Rejects; 5

	Establish    time.Duration // LCP must be open within; 40 s
	Authenticate time.Duration // the login must be decided within; 60 s
	Network      time.Duration // a network protocol must be open within; 60 s

	Encryption time.Duration // packets wait so long for CCP to decide, if encryption is wanted but not required; 7 s

	AuthRestart time.Duration // between transmissions of an authentication packet; 3 s
	AuthTries   int           // how often it is sent in all; 10
}

// An Assignment is what an authenticator gives to a peer.
type Assignment struct {
	Local netip.Addr   // our own IPv4 address on the link; zero: none is told
	Peer  netip.Addr   // the peer's IPv4 address
	DNS   []netip.Addr // at most two are told
	NBNS  []netip.Addr // at most two are told
}

// Params is what the two ends agreed upon.
type Params struct {
	Local, Remote netip.Addr   // IPv4; zero if IPCP is not open or the peer did not tell its own
	DNS           []netip.Addr // as given by the peer
	NBNS          []netip.Addr

	IPv6                bool    // IPV6CP is open
	LocalIID, RemoteIID [8]byte // interface identifiers (RFC 5072 section 4.1)

	MTU int // largest packet in bytes that may be written

	Encryption  string // as agreed upon by CCP, e.g. "MPPE-128 stateless"; empty: none
	Compression string // "MPPC"; empty: none

	Auth               AuthMethod // how the peer role proved itself
	Username           string     // who logged in
	PeerIdentification string     // text of LCP Identification, printable; for logs only
}

// withDefaults returns c with every zero setting replaced by its documented default.
func (c Config) withDefaults() Config {
	if c.Auth == nil {
		c.Auth = DefaultAuth()
	}
	if c.Name == "" {
		c.Name = "gateway"
	}
	if c.MRU != 0 {
		c.MRU = min(max(c.MRU, minMRU), maxMRU)
	}
	if c.EchoInterval == 0 {
		c.EchoInterval = 30 * time.Second
	}
	if c.EchoFailures <= 0 {
		c.EchoFailures = 4
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Timers = c.Timers.withDefaults()
	return c
}

// logins returns the methods that may be used: where encryption is required, those that give keys. If there are none,
// all are returned, and the link will end with an error that says so.
func (c Config) logins() (allowed, keyless []AuthMethod) {
	if c.CCP.Encryption != mppe.Require {
		return c.Auth, nil
	}
	for _, m := range c.Auth {
		if m.givesKeys() {
			allowed = append(allowed, m)
		} else {
			keyless = append(keyless, m)
		}
	}
	if len(allowed) == 0 {
		return c.Auth, nil
	}
	return allowed, keyless
}

func (t Timers) withDefaults() Timers {
	duration := func(d *time.Duration, preset time.Duration) {
		if *d <= 0 {
			*d = preset
		}
	}
	count := func(n *int, preset int) {
		if *n <= 0 {
			*n = preset
		}
	}
	duration(&t.Restart, 3*time.Second)
	count(&t.MaxConfigure, 10)
	count(&t.MaxTerminate, 2)
	count(&t.MaxFailure, 5)
	duration(&t.Establish, 40*time.Second)
	duration(&t.Authenticate, 60*time.Second)
	duration(&t.Network, 60*time.Second)
	duration(&t.Encryption, 7*time.Second)
	duration(&t.AuthRestart, 3*time.Second)
	count(&t.AuthTries, 10)
	return t
}
