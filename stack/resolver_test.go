package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

// A nameServer answers over both transports on a stack, by a table of names.
type nameServer struct {
	answers map[string][]netip.Addr // absent: NXDOMAIN; empty: no data
	rcode   map[string]dnsmessage.RCode

	udpSilent, truncate, tcpClosed bool
	forge                          bool // an answer with a wrong ID comes first

	mu   sync.Mutex
	seen []string // "udp A intranet.example."
}

func (n *nameServer) serve(t testing.TB, s *Stack, addr netip.Addr) {
	t.Helper()
	u, err := s.ListenUDP(netip.AddrPortFrom(addr, dnsPort))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 512)
		for {
			k, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answer := n.answer("udp", b[:k]); !n.udpSilent && answer != nil {
				if n.forge {
					forged := slices.Clone(answer)
					forged[0]++
					_, _ = u.WriteToUDPAddrPort(forged, from)
				}
				_, _ = u.WriteToUDPAddrPort(answer, from)
			}
		}
	})
	t.Cleanup(func() { u.Close(); serving.Wait() })
	if n.tcpClosed {
		return
	}
	l, err := s.ListenTCP(netip.AddrPortFrom(addr, dnsPort))
	if err != nil {
		t.Fatal(err)
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err == nil {
				question := make([]byte, binary.BigEndian.Uint16(length[:]))
				_, _ = io.ReadFull(c, question)
				answer := n.answer("tcp", question)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close() })
}

func (n *nameServer) answer(transport string, question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	n.mu.Lock()
	n.seen = append(n.seen, fmt.Sprintf("%s %s %s", transport, strings.TrimPrefix(q.Type.String(), "Type"), q.Name))
	n.mu.Unlock()
	m.Response, m.RecursionAvailable = true, true
	m.RCode = n.rcode[q.Name.String()]
	addresses, ok := n.answers[q.Name.String()]
	if !ok && m.RCode == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
	for _, a := range addresses {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	if len(m.Answers) == 0 {
		m.Authorities = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.SOAResource{NS: q.Name, MBox: q.Name, MinTTL: 20}}}
	}
	if n.truncate && transport == "udp" {
		m.Truncated, m.Answers = true, nil
	}
	b, _ := m.Pack()
	return b
}

func (n *nameServer) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := slices.Clone(n.seen)
	n.seen = nil
	return seen
}

var (
	intranet4 = netip.MustParseAddr("10.88.0.1")
	intranet6 = netip.MustParseAddr("fd88::1")
)

func testServer() *nameServer {
	return &nameServer{
		answers: map[string][]netip.Addr{
			"intranet.example.": {intranet4, intranet6},
			"only4.example.":    {intranet4},
			"empty.example.":    {},
		},
		rcode: map[string]dnsmessage.RCode{"broken.example.": dnsmessage.RCodeServerFailure, "refused.example.": dnsmessage.RCodeRefused},
	}
}

// resolving is a pair whose first stack asks a name server on the second. Timeouts are those of the wire.
func resolving(t *testing.T, n *nameServer, change func(c *Config)) *Stack {
	t.Helper()
	c := dualA()
	c.DNS = []netip.Addr{addrB}
	c.Search = []string{"Example."}
	if change != nil {
		change(&c)
	}
	a, b := pair(t, c, dualB(), nil)
	a.resolver.udpTimeout, a.resolver.tcpTimeout = 100*time.Millisecond, time.Second
	a.link.openers.heard() // so that the questions are the resolver's alone (openers.go)
	n.serve(t, b, addrB)
	return a
}

func TestLookup(t *testing.T) {
	both := []netip.Addr{intranet6, intranet4}
	tests := []struct {
		name, network, host string
		want                []netip.Addr
		questions           []string // in any order; nil means not checked
	}{
		{"both families, IPv6 first", "ip", "intranet.example", both, []string{"udp A intranet.example.", "udp AAAA intranet.example."}},
		{"one family", "ip4", "intranet.example", both[1:], []string{"udp A intranet.example."}},
		{"the other", "ip6", "Intranet.EXAMPLE.", both[:1], []string{"udp AAAA intranet.example."}},
		{"only A exists", "ip", "only4.example", both[1:], nil},
		{"search domain first for a name without a dot", "ip4", "intranet", both[1:], []string{"udp A intranet.example."}},
		{"literal", "ip", "192.0.2.1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []string{}},
		{"static host", "ip", "Printer", []netip.Addr{netip.MustParseAddr("10.1.1.1")}, []string{}},
		{"no such name", "ip4", "nowhere.example", nil, []string{"udp A nowhere.example.", "udp A nowhere.example.example."}},
		{"fully qualified names are not searched", "ip4", "nowhere.example.", nil, []string{"udp A nowhere.example."}},
		{"name without addresses", "ip4", "empty.example.", nil, []string{"udp A empty.example."}},
		{"no address of the family", "ip6", "only4.example.", nil, nil},
		{"static host of the other family", "ip6", "printer", nil, []string{}},
		{"literal of the other family", "ip6", "192.0.2.1", nil, []string{}},
		{"localhost is never asked for", "ip", "localhost", nil, []string{}},
		{"nor anything below it", "ip", "x.localhost.", nil, []string{}},
		{"empty name", "ip", "", nil, []string{}},
		{"label too long", "ip", strings.Repeat("a", 64) + ".example", nil, []string{}},
		{"name too long", "ip", strings.Repeat("a.", 127) + "example", nil, []string{}},
		{"spaces", "ip", "a b.example", nil, []string{}},
		{"empty label", "ip", "a..example", nil, []string{}},
	}
	n := testServer()
	a := resolving(t, n, func(c *Config) { c.Hosts = map[string][]netip.Addr{"printer": {netip.MustParseAddr("10.1.1.1")}} })
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clear(a.resolver.cache)
			n.questions()
			got, err := a.LookupNetIP(testContext(t), tt.network, tt.host)
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			var dnsError *net.DNSError
			if tt.want == nil && (!errors.As(err, &dnsError) || !dnsError.IsNotFound || dnsError.Name != tt.host) {
				t.Errorf("got %#v, want a *net.DNSError that says not found", err)
			}
			questions := n.questions()
			slices.Sort(questions)
			if tt.questions != nil && !slices.Equal(questions, tt.questions) {
				t.Errorf("asked %q, want %q", questions, tt.questions)
			}
		})
	}
}

func TestLookupFallsBackToTCP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(n *nameServer)
		want   []string
	}{
		{"a truncated answer (RFC 1035 section 4.2.1)", func(n *nameServer) { n.truncate = true },
			[]string{"udp A intranet.example.", "tcp A intranet.example."}},
		{"no answer by UDP", func(n *nameServer) { n.udpSilent = true },
			[]string{"udp A intranet.example.", "udp A intranet.example.", "tcp A intranet.example."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := testServer()
			tt.change(n)
			a := resolving(t, n, nil)
			got, err := a.LookupNetIP(testContext(t), "ip4", "intranet.example")
			if err != nil || len(got) != 1 {
				t.Errorf("%v, %v", got, err)
			}
			if q := n.questions(); !slices.Equal(q, tt.want) {
				t.Errorf("asked %q, want %q", q, tt.want)
			}
		})
	}
}

func TestLookupWaitsForTheTrueAnswer(t *testing.T) {
	n := testServer()
	n.forge = true
	a := resolving(t, n, nil)
	if got, err := a.LookupNetIP(testContext(t), "ip4", "intranet.example"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLookupTriesAllServers(t *testing.T) {
	n := testServer()
	dead := netip.MustParseAddr("10.88.0.66")
	a := resolving(t, n, func(c *Config) { c.DNS = []netip.Addr{dead, addrB} })
	for range 2 {
		if got, err := a.LookupNetIP(testContext(t), "ip4", "intranet.example"); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	}
	if a.resolver.lastGood != addrB {
		t.Error("the server that answered is not remembered")
	}
}

func TestLookupFailuresAreTyped(t *testing.T) {
	tests := []struct {
		name, host string
		change     func(n *nameServer, c *Config)
		timeout    bool
	}{
		{"SERVFAIL", "broken.example", nil, false},
		{"REFUSED", "refused.example", nil, false},
		{"silent server", "intranet.example", func(n *nameServer, _ *Config) { n.udpSilent, n.tcpClosed = true, true }, true},
		{"no server", "intranet.example", func(_ *nameServer, c *Config) { c.DNS = nil }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := testServer()
			a := resolving(t, n, func(c *Config) {
				if tt.change != nil {
					tt.change(n, c)
				}
			})
			_, err := a.LookupNetIP(testContext(t), "ip", tt.host)
			var dnsError *net.DNSError
			if !errors.As(err, &dnsError) || dnsError.IsNotFound || dnsError.IsTimeout != tt.timeout || dnsError.Name != tt.host {
				t.Errorf("got %#v", err)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		n := testServer()
		n.udpSilent, n.tcpClosed = true, true
		a := resolving(t, n, nil)
		a.resolver.udpTimeout = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := a.LookupNetIP(ctx, "ip", "intranet.example")
		var dnsError *net.DNSError
		if !errors.As(err, &dnsError) || !dnsError.IsTimeout {
			t.Errorf("got %#v", err)
		}
	})
}

func TestAnswersAreCachedForTheirTTL(t *testing.T) {
	n := testServer()
	a := resolving(t, n, nil)
	now := time.Now()
	a.resolver.now = func() time.Time { return now }
	ask := func(host string) int {
		_, _ = a.LookupNetIP(testContext(t), "ip4", host)
		return len(n.questions())
	}
	for _, step := range []struct {
		after time.Duration
		host  string
		want  int
	}{
		{0, "intranet.example.", 1},
		{59 * time.Second, "intranet.example.", 0},
		{time.Second, "intranet.example.", 1},
		{0, "nowhere.example.", 1}, // negative: RFC 2308 section 5
		{19 * time.Second, "nowhere.example.", 0},
		{time.Second, "nowhere.example.", 1},
	} {
		now = now.Add(step.after)
		if got := ask(step.host); got != step.want {
			t.Errorf("%v later, %s: %d questions, want %d", step.after, step.host, got, step.want)
		}
	}
	a.SetDNS([]netip.Addr{globalB}) // another server may know otherwise
	if len(a.resolver.cache) != 0 {
		t.Error("cache survived a change of servers")
	}
}

func TestCacheIsBounded(t *testing.T) {
	r := newResolver(nil, Config{})
	for i := range 3 * maxCached {
		r.keep(dnsQuestion{fmt.Sprint(i), dnsmessage.TypeA}, dnsAnswer{addresses: []netip.Addr{addrA}, ttl: time.Hour})
		if len(r.cache) > maxCached {
			t.Fatal("too many")
		}
	}
}

func TestDialResolvesInsideTheTunnel(t *testing.T) {
	n := testServer()
	c := dualA()
	c.DNS = []netip.Addr{addrB}
	a, b := pair(t, c, dualB(), nil)
	n.serve(t, b, addrB)
	l, err := b.ListenTCP(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for network, want := range map[string]netip.Addr{"tcp": intranet6, "tcp4": intranet4, "tcp6": intranet6} {
		conn, err := a.DialContext(testContext(t), network, fmt.Sprintf("intranet.example:%d", port))
		if err != nil {
			t.Fatal(network, err)
		}
		if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != want {
			t.Errorf("%s: connected to %v, want %v", network, got, want)
		}
		conn.Close()
	}
	_, err = a.DialContext(testContext(t), "tcp", "nowhere.example.:80")
	var dnsError *net.DNSError
	if !errors.As(err, &dnsError) || !dnsError.IsNotFound {
		t.Errorf("got %v", err)
	}
	u, err := a.DialContext(testContext(t), "udp4", "intranet.example:53")
	if err != nil {
		t.Fatal(err)
	}
	u.Close()
}

// RFC 8305: a dead address costs one attempt delay, a refusing one nothing.
func TestDialTriesTheNextAddress(t *testing.T) {
	dead := netip.MustParseAddr("10.88.0.66")
	tests := map[string][]netip.Addr{
		"dead first":           {dead, addrB},
		"refused first":        {globalB, addrB}, // nothing listens there
		"unreachable and dead": {netip.MustParseAddr("fd99::1"), dead, addrB},
	}
	for name, addresses := range tests {
		t.Run(name, func(t *testing.T) {
			c := dualA()
			c.Hosts = map[string][]netip.Addr{"many.example": addresses}
			a, b := pair(t, c, dualB(), nil)
			l, err := b.ListenTCP(netip.AddrPortFrom(addrB, 80))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			conn, err := a.DialContext(testContext(t), "tcp", "many.example:80")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != "10.88.0.1:80" {
				t.Errorf("connected to %s", got)
			}
		})
	}
	t.Run("all refused", func(t *testing.T) {
		c := dualA()
		c.Hosts = map[string][]netip.Addr{"many.example": {globalB, addrB}}
		a, _ := pair(t, c, dualB(), nil)
		_, err := a.DialContext(testContext(t), "tcp", "many.example:80")
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAddressesAlternateByFamily(t *testing.T) {
	p := netip.MustParseAddr
	got := interleave([]netip.Addr{p("::1"), p("::2"), p("::3"), p("10.0.0.1"), p("10.0.0.2")})
	want := []netip.Addr{p("::1"), p("10.0.0.1"), p("::2"), p("10.0.0.2"), p("::3")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseAnswer(f *testing.F) {
	q := dnsQuestion{"intranet.example.", dnsmessage.TypeA}
	_, question, _ := newQuestion(q)
	n := testServer()
	answer := n.answer("udp", question)
	f.Add(answer)
	for i := range answer {
		f.Add(answer[:i])
	}
	id := binary.BigEndian.Uint16(question)
	f.Fuzz(func(t *testing.T, message []byte) {
		a, err := parseAnswer(message, id, q)
		if err != nil && len(a.addresses) > 0 || len(a.addresses) > maxAnswers || a.ttl < 0 || a.ttl > maxTTL && len(a.addresses) > 0 {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func TestEveryPrefixOfAnAnswerFails(t *testing.T) {
	q := dnsQuestion{"intranet.example.", dnsmessage.TypeA}
	id, question, err := newQuestion(q)
	if err != nil {
		t.Fatal(err)
	}
	answer := testServer().answer("udp", question)
	if a, err := parseAnswer(answer, id, q); err != nil || len(a.addresses) != 1 || a.ttl != time.Minute {
		t.Fatalf("%+v, %v", a, err)
	}
	for i := range answer {
		if _, err := parseAnswer(answer[:i], id, q); err == nil {
			t.Errorf("prefix of %d bytes accepted", i)
		}
	}
	for _, other := range []dnsQuestion{{"intranet.example.", dnsmessage.TypeAAAA}, {"other.example.", dnsmessage.TypeA}} {
		if _, err := parseAnswer(answer, id, other); err != errBadAnswer {
			t.Errorf("answer to another question: %v", err)
		}
	}
}
