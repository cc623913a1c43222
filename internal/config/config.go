// Package config turns a TOML file, the environment and command-line flags into one typed, validated [Config].
//
// The struct tags of [Config] are the only list of keys: names in the file, names of environment variables, defaults
// and allowed ranges all come from them (see [Keys]). Three steps, one file each:
//
//	load.go      file + environment + flags -> one tree of values, each with its origin
//	decode.go    tree -> Config; unknown keys and bad values are collected with their origin
//	validate.go  the rules that look at more than one key
//
// Everything that is wrong is reported at once, each as a [*Problem] that says where.
//
// It is the only package that imports a TOML library.
package config

import (
	"net/netip"
	"time"
)

// Tags of the structs below:
//
//	toml     the key; an environment variable is GATEWAY_ and the keys in upper case joined by _
//	default  the value of a key that is not set, written as in the environment; absent: the zero value
//	range    allowed values: single ones and low..high, comma-separated (numbers, durations; lengths of strings)
//
// A Secret with key "x" may have a string beside it with key "x_file": the file that holds the secret.

// Config is a whole configuration. [Load] and [Default] give one with every default filled in.
type Config struct {
	Log     Log      `toml:"log"`
	Proxy   Proxy    `toml:"proxy"`
	Tunnels []Tunnel `toml:"tunnel"`

	// Warnings are things that work and should not be so, such as a secret that everybody may read.
	Warnings []*Problem
}

// Log says what is logged and how. Logs go to standard error.
type Log struct {
	Level  LogLevel  `toml:"level" default:"info"`
	Format LogFormat `toml:"format" default:"text"`
}

// Proxy is what the clients on this side see.
type Proxy struct {
	// SOCKS5 and HTTP are addresses to listen on, as net.Listen takes them; "" is off. Equal addresses share one port.
	SOCKS5 string `toml:"socks5" default:"127.0.0.1:1080"`
	HTTP   string `toml:"http" default:"127.0.0.1:8080"`
	// Users who may use the proxies; none: everybody who reaches the address.
	Users []User `toml:"user"`
	// AllowOpen lets a proxy without users listen on more than loopback.
	AllowOpen bool `toml:"allow_open"`
	// MaxConnections bounds the connections of clients at one time, over all listeners.
	MaxConnections int `toml:"max_connections" default:"4096" range:"1..65536"`
	// HandshakeTimeout bounds the time from accept to a complete request.
	HandshakeTimeout time.Duration `toml:"handshake_timeout" default:"10s" range:"100ms..10m"`
	// DialTimeout bounds name look-up and connection set-up inside the VPN.
	DialTimeout time.Duration `toml:"dial_timeout" default:"30s" range:"100ms..10m"`
	// IdleTimeout ends a connection without a byte either way for so long; 0: never.
	IdleTimeout time.Duration `toml:"idle_timeout" default:"0s" range:"0,1s..168h"`
	// UDPIdleTimeout ends an idle UDP association.
	UDPIdleTimeout time.Duration `toml:"udp_idle_timeout" default:"60s" range:"1s..24h"`
	// WaitForTunnel is how long a new connection waits while the tunnel is being dialled; 0: it fails at once.
	WaitForTunnel time.Duration `toml:"wait_for_tunnel" default:"15s" range:"0..10m"`
}

// User is one login of the proxies (RFC 1929: 1 to 255 bytes each).
type User struct {
	Name         string `toml:"name" range:"1..255"`
	Password     Secret `toml:"password" range:"1..255"`
	PasswordFile string `toml:"password_file"`
}

// Tunnel is one VPN server and the login there.
type Tunnel struct {
	// Name is how logs call the tunnel; a single one may go without ("vpn").
	Name     string   `toml:"name"`
	Protocol Protocol `toml:"protocol" default:"l2tp"`
	// Server is a host name or an IP address without a port. A name is looked up anew at each dial.
	Server string `toml:"server"`
	// Username is sent as written, DOMAIN\user included.
	Username     string `toml:"username" range:"0..255"`
	Password     Secret `toml:"password" range:"0..255"`
	PasswordFile string `toml:"password_file"`

	IPsec     IPsec     `toml:"ipsec"`
	L2TP      L2TP      `toml:"l2tp"`
	PPTP      PPTP      `toml:"pptp"`
	PPP       PPP       `toml:"ppp"`
	DNS       DNS       `toml:"dns"`
	Reconnect Reconnect `toml:"reconnect"`
	Carrier   Carrier   `toml:"carrier"`
	Stack     Stack     `toml:"stack"`
}

// L2TP is the control connection (RFC 2661).
type L2TP struct {
	// Port and LocalPort are of the socket or, with IPsec, inside ESP.
	Port      uint16 `toml:"port" default:"1701" range:"1..65535"`
	LocalPort uint16 `toml:"local_port"` // 0: one that the system chooses; inside ESP one drawn for each dial, or else 1701
	// Secret is the shared secret of tunnel authentication (RFC 2661 section 5.1.1), and of hidden AVPs.
	Secret     Secret `toml:"secret" range:"0..255"`
	SecretFile string `toml:"secret_file"`
	Hostname   string `toml:"hostname" default:"gateway" range:"1..255"` // Host Name AVP
	HideAVPs   bool   `toml:"hide_avps"`                                 // RFC 2661 section 4.3
	// HelloInterval is the silence of the peer after which HELLO is sent (RFC 2661 section 6.5); 0: never.
	HelloInterval time.Duration `toml:"hello_interval" default:"60s" range:"0,1s..24h"`
	// MaxRetries is how often a control message is sent again before the tunnel counts as dead (RFC 2661 section 5.8).
	MaxRetries int  `toml:"max_retries" default:"5" range:"1..60"`
	Sequencing bool `toml:"sequencing"` // ask for sequence numbers on data; without, they come when the server asks
	LengthBit  bool `toml:"length_bit"` // put the Length field into data messages
	Permissive bool `toml:"permissive"` // ignore unknown AVPs even when marked mandatory
}

// PPTP is the control connection and its calls (RFC 2637), and where the raw socket for their GRE packets comes from:
// opened here, which takes CAP_NET_RAW, unless one of GREFD and GREBroker says otherwise.
type PPTP struct {
	Port        uint16 `toml:"port" default:"1723" range:"1..65535"`
	GREFD       int    `toml:"gre_fd" range:"0,3..65535"`                // an inherited descriptor; 0: none
	GREBroker   string `toml:"gre_broker" range:"0..107"`                // path of the socket of gateway gre-broker; "": none
	Hostname    string `toml:"hostname" default:"gateway" range:"1..63"` // in the Start-Control-Connection-Request
	PhoneNumber string `toml:"phone_number" range:"0..63"`               // in the Outgoing-Call-Request
	// EchoInterval is the silence of the control connection after which an Echo-Request is sent (RFC 2637 section 3.1.4); 0: never.
	EchoInterval time.Duration `toml:"echo_interval" default:"60s" range:"0,1s..24h"`
	// Window is how many packets the server may send ahead of our acknowledgments (RFC 2637 section 4.2).
	Window int `toml:"window" default:"64" range:"1..65535"`
	// ReorderDelay is how long a packet waits for those before it; 0: not at all.
	ReorderDelay time.Duration `toml:"reorder_delay" default:"50ms" range:"0..1s"`
}

// PPP is the link inside the tunnel.
type PPP struct {
	// Auth are the methods that may be used, in order of preference. Inside IPsec the default is all but "none": the server
	// has proven itself before, and nobody else reads.
	Auth []AuthMethod `toml:"auth" default:"eap-mschapv2,mschapv2"`
	// HashFullName puts DOMAIN\user into the MS-CHAPv2 hash instead of user alone.
	HashFullName bool `toml:"hash_full_name"`
	// MPPE says how much encryption is wanted (RFC 3078). Ask Tunnel.Encryption what "auto" is.
	MPPE         MPPEPolicy `toml:"mppe" default:"auto"`
	MPPEMinKey   int        `toml:"mppe_min_key" default:"128" range:"128,56,40"` // the shortest key that will do
	MPPEMaxKey   int        `toml:"mppe_max_key" default:"128" range:"128,56,40"` // the longest
	MPPEStateful bool       `toml:"mppe_stateful"`                                // take stateful mode, too, and ask for it
	MPPC         MPPCPolicy `toml:"mppc" default:"allow"`                         // compression (RFC 2118)
	// MRU is the largest packet that we ask the server to send, MTU the largest that we send; bytes, 0: computed.
	MRU int `toml:"mru" range:"0,128..1500"`
	MTU int `toml:"mtu" range:"0,128..1500"`
	// EchoInterval is the silence of the peer after which an LCP Echo-Request is sent (RFC 1661 section 5.8); 0: never.
	EchoInterval time.Duration `toml:"echo_interval" default:"30s" range:"0,1s..24h"`
	// EchoFailures is the number of unanswered Echo-Requests after which the link counts as dead.
	EchoFailures int        `toml:"echo_failures" default:"4" range:"1..100"`
	IPv6         bool       `toml:"ipv6" default:"true"` // try IPV6CP
	Address      netip.Addr `toml:"address"`             // the IPv4 address to ask for; invalid: the server assigns one
}

// DNS is the look-up of names inside the VPN.
type DNS struct {
	Servers []netip.Addr            `toml:"servers"` // instead of those that the VPN server assigns
	Search  []string                `toml:"search"`  // domains tried after a name with no dot
	Hosts   map[string][]netip.Addr `toml:"hosts"`   // names in lower case, asked before any server
}

// Reconnect says how a tunnel that died is dialled again.
type Reconnect struct {
	Enabled  bool          `toml:"enabled" default:"true"`
	Attempts int           `toml:"attempts" range:"0..1000000"` // in a row without success; 0: for ever
	Initial  time.Duration `toml:"initial" default:"1s" range:"100ms..1h"`
	Max      time.Duration `toml:"max" default:"60s" range:"100ms..24h"`
}

// Carrier holds expert switches of the socket that carries the tunnel.
type Carrier struct {
	Batch       bool `toml:"batch" default:"true"`                    // recvmmsg and sendmmsg
	GSO         bool `toml:"gso" default:"true"`                      // UDP_SEGMENT; not for PPTP
	GRO         bool `toml:"gro" default:"true"`                      // UDP_GRO; not for PPTP
	ReadBuffer  int  `toml:"read_buffer" range:"0,4096..1073741824"`  // bytes asked of the kernel; 0: 4 MiB
	WriteBuffer int  `toml:"write_buffer" range:"0,4096..1073741824"` // bytes asked of the kernel; 0: 4 MiB
	MTU         int  `toml:"mtu" range:"0,576..65535"`                // of the path to the server, bytes; 0: found out
}

// Stack holds expert switches of the in-process TCP/IP stack.
type Stack struct {
	GSO        bool          `toml:"gso" default:"true"`                      // hand TCP out in pieces of up to 64 KiB
	GRO        bool          `toml:"gro" default:"true"`                      // join received TCP segments
	Congestion Congestion    `toml:"congestion" default:"reno"`               // TCP congestion control
	RACK       bool          `toml:"rack"`                                    // RFC 8985 loss recovery
	MinRTO     time.Duration `toml:"min_rto" default:"200ms" range:"5ms..2s"` // shortest TCP retransmission timeout
}

// Names as they stand in the file.
type (
	LogLevel   string
	LogFormat  string
	Protocol   string
	AuthMethod string
	MPPEPolicy string
	MPPCPolicy string
	Congestion string
)

const (
	L2TPProtocol      Protocol = "l2tp"
	L2TPIPsecProtocol Protocol = "l2tp-ipsec"
	PPTPProtocol      Protocol = "pptp"

	// AuthNone accepts a server that asks for no login.
	AuthNone AuthMethod = "none"

	MPPEAuto    MPPEPolicy = "auto"
	MPPERequire MPPEPolicy = "require"
	MPPEAllow   MPPEPolicy = "allow"
	MPPEDeny    MPPEPolicy = "deny"
)

// Encryption is the MPPE policy with "auto" resolved: PPTP has no other encryption, plain L2TP takes what the server
// asks for, and under IPsec there is nothing to gain.
func (t *Tunnel) Encryption() MPPEPolicy {
	switch {
	case t.PPP.MPPE != MPPEAuto:
		return t.PPP.MPPE
	case t.Protocol == PPTPProtocol:
		return MPPERequire
	case t.Protocol == L2TPIPsecProtocol:
		return MPPEDeny
	}
	return MPPEAllow
}

// enumeration is a string type with a closed list of values.
type enumeration interface{ values() []string }

func (LogLevel) values() []string  { return []string{"debug", "info", "warn", "error"} }
func (LogFormat) values() []string { return []string{"text", "json"} }
func (Protocol) values() []string {
	return []string{string(L2TPProtocol), string(L2TPIPsecProtocol), string(PPTPProtocol)}
}
func (AuthMethod) values() []string {
	return []string{"eap-mschapv2", "mschapv2", "mschap", "chap-md5", "eap-md5", "pap", string(AuthNone)}
}
func (MPPEPolicy) values() []string {
	return []string{string(MPPEAuto), string(MPPERequire), "prefer", string(MPPEAllow), string(MPPEDeny)}
}
func (MPPCPolicy) values() []string { return []string{"allow", "deny", "prefer"} }
func (Congestion) values() []string { return []string{"reno", "cubic"} }
