package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort = 53

	maxAnswers       = 64   // addresses taken from one answer
	maxCached        = 1024 // answers kept
	maxTTL           = 5 * time.Minute
	maxNegativeTTL   = 30 * time.Second
	resolutionDelay  = 50 * time.Millisecond // how long A waits for AAAA (RFC 8305 section 3)
	udpTimeout       = 2 * time.Second       // for an answer by UDP
	udpTries         = 2                     // questions sent within it
	tcpTimeout       = 4 * time.Second       // for an answer by TCP, connecting included
	maxNameLength    = 253                   // RFC 1035 section 2.3.4
	maxSearchDomains = 8
)

// A resolver asks the tunnel's name servers (RFC 1035), by UDP first and by TCP when the answer was cut short or did not come.
type resolver struct {
	stack                  *Stack
	search                 []string
	hosts                  map[string][]netip.Addr
	udpTimeout, tcpTimeout time.Duration
	now                    func() time.Time

	mu          sync.Mutex
	servers     []netip.Addr
	autoServers []netip.Addr // by Router Advertisement
	lastGood    netip.Addr   // the server that answered last
	cache       map[dnsQuestion]dnsAnswer
}

type dnsQuestion struct {
	name string // fully qualified, lower case, ends with a dot
	kind dnsmessage.Type
}

type dnsAnswer struct {
	addresses []netip.Addr // none: there are none of the kind
	noName    bool         // there is no such name at all (NXDOMAIN)
	ttl       time.Duration
	expires   time.Time
}

func newResolver(s *Stack, c Config) *resolver {
	r := &resolver{
		stack: s, hosts: c.Hosts, servers: slices.Clone(c.DNS), now: time.Now,
		udpTimeout: udpTimeout, tcpTimeout: tcpTimeout, cache: make(map[dnsQuestion]dnsAnswer),
	}
	for _, domain := range c.Search[:min(len(c.Search), maxSearchDomains)] {
		if domain = strings.ToLower(strings.Trim(domain, ".")); domain != "" {
			r.search = append(r.search, domain+".")
		}
	}
	return r
}

// SetDNS replaces the name servers of Config.DNS.
func (s *Stack) SetDNS(servers []netip.Addr) {
	s.resolver.mu.Lock()
	defer s.resolver.mu.Unlock()
	if !slices.Equal(s.resolver.servers, servers) {
		s.resolver.servers = slices.Clone(servers)
		clear(s.resolver.cache)
	}
}

func (r *resolver) setAutoServers(servers []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.autoServers = slices.Clone(servers)
}

// DNS returns the name servers in use, those of Router Advertisements last.
func (s *Stack) DNS() []netip.Addr { return s.resolver.allServers() }

func (r *resolver) allServers() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.servers)
	for _, server := range r.autoServers {
		if !slices.Contains(all, server) {
			all = append(all, server)
		}
	}
	return all
}

// LookupNetIP resolves a name like net.Resolver does, by static hosts and the tunnel's name servers alone. network is ip, ip4 or ip6.
// IPv6 addresses come first. Errors are *net.DNSError; IsNotFound says that a server answered and there is no such name or address.
func (s *Stack) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if network != "ip" && network != "ip4" && network != "ip6" {
		return nil, &net.DNSError{Err: net.UnknownNetworkError(network).Error(), Name: host}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return s.resolver.static(network, host, []netip.Addr{addr})
	}
	name := strings.ToLower(host)
	if addresses, ok := s.resolver.hosts[strings.TrimSuffix(name, ".")]; ok {
		return s.resolver.static(network, host, addresses)
	}
	if !isDomainName(name) || isLocalhost(name) {
		return nil, notFound(host)
	}
	addresses, err := s.resolver.lookup(ctx, network, name)
	if err == nil {
		return addresses, nil
	}
	if s.isClosed() {
		err = &net.DNSError{UnwrapErr: s.err, Err: s.err.Error()}
	}
	var dnsError *net.DNSError
	if !errors.As(err, &dnsError) {
		dnsError = &net.DNSError{UnwrapErr: err, Err: err.Error(), IsTimeout: errors.Is(err, context.DeadlineExceeded)}
	}
	dnsError.Name = host
	return nil, dnsError
}

func notFound(host string) error {
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// static filters addresses that need no server by family.
func (r *resolver) static(network, host string, all []netip.Addr) ([]netip.Addr, error) {
	var fit []netip.Addr
	for _, a := range all {
		a = a.Unmap()
		if network == "ip" || a.Is4() == (network == "ip4") {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return nil, notFound(host)
	}
	return fit, nil
}

// isDomainName checks the lengths of RFC 1035 section 2.3.4, so that no question is sent that cannot have an answer.
func isDomainName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxNameLength {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return false
		}
	}
	return true
}

// isLocalhost: RFC 6761 section 6.3 keeps these names from name servers, and what they mean is not in the private network.
func isLocalhost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// lookup tries the name and what the search list makes of it, in order, until one has addresses.
func (r *resolver) lookup(ctx context.Context, network, name string) ([]netip.Addr, error) {
	for _, candidate := range r.candidates(name) {
		addresses, err := r.lookupFamilies(ctx, network, candidate)
		if err != nil || len(addresses) > 0 {
			return addresses, err // after an error the servers will not answer for the next either
		}
	}
	return nil, notFound(name)
}

// candidates are the fully qualified names to try: a name with a dot as it is first, one without last.
func (r *resolver) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var all []string
	absolute := name + "."
	if strings.Contains(name, ".") {
		all = append(all, absolute)
	}
	for _, domain := range r.search {
		if len(absolute)+len(domain) <= maxNameLength+1 {
			all = append(all, absolute+domain)
		}
	}
	if !strings.Contains(name, ".") {
		all = append(all, absolute)
	}
	return all
}

// lookupFamilies asks for A and AAAA side by side as network wants. No addresses and no error mean that there are none.
func (r *resolver) lookupFamilies(ctx context.Context, network, name string) ([]netip.Addr, error) {
	switch network {
	case "ip4":
		answer, err := r.ask(ctx, dnsQuestion{name, dnsmessage.TypeA})
		return answer.addresses, err
	case "ip6":
		answer, err := r.ask(ctx, dnsQuestion{name, dnsmessage.TypeAAAA})
		return answer.addresses, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer dnsAnswer
		err    error
	}
	kinds := [2]dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeA}
	var results [2]chan result
	for i, kind := range kinds {
		results[i] = make(chan result, 1)
		if !r.stack.spawn(func() {
			answer, err := r.ask(ctx, dnsQuestion{name, kind})
			results[i] <- result{answer, err}
		}) {
			return nil, r.stack.err
		}
	}
	var got [2]result
	var late <-chan time.Time // set once one family has addresses: the other gets only a moment more
	for missing := 2; missing > 0; missing-- {
		i := 0
		select {
		case got[0] = <-results[0]:
		case got[1] = <-results[1]:
			i = 1
		case <-late:
			missing = 0
		}
		if got[i].answer.noName {
			return nil, nil // of either kind
		}
		if len(got[i].answer.addresses) > 0 && late == nil {
			timer := time.NewTimer(resolutionDelay)
			defer timer.Stop()
			late = timer.C
		}
	}
	addresses := slices.Concat(got[0].answer.addresses, got[1].answer.addresses)
	if len(addresses) > 0 {
		return addresses, nil
	}
	return nil, cmp.Or(got[1].err, got[0].err)
}

// ask answers a question from the cache or by a server.
func (r *resolver) ask(ctx context.Context, q dnsQuestion) (dnsAnswer, error) {
	if answer, ok := r.cached(q); ok {
		return answer, nil
	}
	answer, err := r.askServers(ctx, q)
	if err == nil {
		r.keep(q, answer)
	}
	return answer, err
}

func (r *resolver) cached(q dnsQuestion) (dnsAnswer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, ok := r.cache[q]
	if ok && !r.now().Before(answer.expires) {
		delete(r.cache, q)
		return dnsAnswer{}, false
	}
	return answer, ok
}

// keep caches an answer for as long as it says, within limits (RFC 1035 section 7.4, RFC 2308 section 5).
func (r *resolver) keep(q dnsQuestion, answer dnsAnswer) {
	longest := maxTTL
	if len(answer.addresses) == 0 {
		longest = maxNegativeTTL
	}
	ttl := min(answer.ttl, longest)
	if ttl <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.cache) >= maxCached {
		maps.DeleteFunc(r.cache, func(_ dnsQuestion, a dnsAnswer) bool { return !now.Before(a.expires) })
	}
	if len(r.cache) >= maxCached {
		clear(r.cache) // full of live answers: begin anew
	}
	answer.expires = now.Add(ttl)
	r.cache[q] = answer
}

// errTruncated and errBadAnswer are what a server can do wrong without having failed to answer.
var (
	errTruncated = errors.New("answer cut short")
	errBadAnswer = errors.New("malformed answer")
)

// askServers asks one server after the other, the one that answered last first. A server that is silent by UDP is asked by TCP when
// no other has helped.
func (r *resolver) askServers(ctx context.Context, q dnsQuestion) (dnsAnswer, error) {
	servers := r.allServers()
	if len(servers) == 0 {
		return dnsAnswer{}, &net.DNSError{Err: "the tunnel has no DNS server"}
	}
	r.mu.Lock()
	if i := slices.Index(servers, r.lastGood); i > 0 {
		servers[0], servers[i] = servers[i], servers[0]
	}
	r.mu.Unlock()
	var failure error
	var silent []netip.Addr
	for _, server := range servers {
		answer, err := r.askUDP(ctx, server, q)
		if err == errTruncated {
			answer, err = r.askTCP(ctx, server, q)
		} else if isSilence(err) {
			silent = append(silent, server)
		}
		if err == nil {
			r.remember(server)
			return answer, nil
		}
		failure = serverError(server, err)
		if ctx.Err() != nil {
			return dnsAnswer{}, failure
		}
	}
	for _, server := range silent {
		answer, err := r.askTCP(ctx, server, q)
		if err == nil {
			r.remember(server)
			return answer, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return dnsAnswer{}, failure
}

func (r *resolver) remember(server netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastGood = server
}

// isSilence tells a server that did not answer, or whose port is closed, from one that answered badly.
func isSilence(err error) bool {
	var opError *net.OpError
	return errors.As(err, &opError)
}

func serverError(server netip.Addr, err error) error {
	e := &net.DNSError{UnwrapErr: err, Err: err.Error(), Server: netip.AddrPortFrom(server, dnsPort).String(), IsTemporary: true}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		e.Err, e.IsTimeout = "no answer", true
	}
	return e
}

// askUDP sends a question, and again after half of the timeout, since datagrams get lost.
func (r *resolver) askUDP(ctx context.Context, server netip.Addr, q dnsQuestion) (dnsAnswer, error) {
	c, err := r.stack.dialUDP(netip.AddrPortFrom(server, dnsPort))
	if err != nil {
		return dnsAnswer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	id, question, err := newQuestion(q)
	if err != nil {
		return dnsAnswer{}, err
	}
	buffer := make([]byte, 4096)
	start := time.Now()
	for try := 1; ; try++ {
		if _, err := c.Write(question); err != nil {
			return dnsAnswer{}, cmp.Or(ctx.Err(), err)
		}
		_ = c.SetReadDeadline(start.Add(r.udpTimeout / udpTries * time.Duration(try)))
		for {
			n, err := c.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) && try < udpTries {
				break // send again
			}
			if err != nil {
				return dnsAnswer{}, cmp.Or(ctx.Err(), err)
			}
			answer, err := parseAnswer(buffer[:n], id, q)
			if err != errBadAnswer { // which may be forged: the true one is still awaited
				return answer, err
			}
		}
	}
}

// askTCP asks over a connection of its own; each message has its length in front (RFC 1035 section 4.2.2).
func (r *resolver) askTCP(ctx context.Context, server netip.Addr, q dnsQuestion) (dnsAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.tcpTimeout)
	defer cancel()
	c, err := r.stack.dialTCP(ctx, netip.AddrPortFrom(server, dnsPort))
	if err != nil {
		return dnsAnswer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	id, question, err := newQuestion(q)
	if err != nil {
		return dnsAnswer{}, err
	}
	message := binary.BigEndian.AppendUint16(nil, uint16(len(question)))
	if _, err := c.Write(append(message, question...)); err != nil {
		return dnsAnswer{}, cmp.Or(ctx.Err(), err)
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return dnsAnswer{}, cmp.Or(ctx.Err(), err)
	}
	message = make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, message); err != nil {
		return dnsAnswer{}, cmp.Or(ctx.Err(), err)
	}
	return parseAnswer(message, id, q)
}

// newQuestion makes a query with a random ID (RFC 5452 section 4.3).
func newQuestion(q dnsQuestion) (id uint16, message []byte, err error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %q", err, q.name)
	}
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails
	id = binary.BigEndian.Uint16(random[:])
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	err = errors.Join(b.StartQuestions(), b.Question(dnsmessage.Question{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}))
	if err != nil {
		return 0, nil, err
	}
	message, err = b.Finish()
	return id, message, err
}

// parseAnswer reads a server's answer. It returns errBadAnswer for what is no answer to the question, errTruncated when the rest must
// be fetched by TCP, and another error when the server says that it cannot answer.
func parseAnswer(message []byte, id uint16, q dnsQuestion) (dnsAnswer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.ID != id || !h.Response {
		return dnsAnswer{}, errBadAnswer
	}
	question, err := p.Question()
	if err != nil || question.Type != q.kind || question.Class != dnsmessage.ClassINET || !strings.EqualFold(question.Name.String(), q.name) {
		return dnsAnswer{}, errBadAnswer
	}
	if err := p.SkipAllQuestions(); err != nil {
		return dnsAnswer{}, errBadAnswer
	}
	if h.Truncated {
		return dnsAnswer{}, errTruncated
	}
	if h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return dnsAnswer{}, fmt.Errorf("server answered %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	answer := dnsAnswer{noName: h.RCode == dnsmessage.RCodeNameError, ttl: maxTTL}
	if err := answer.readAddresses(&p, q.kind); err != nil {
		return dnsAnswer{}, errBadAnswer
	}
	if len(answer.addresses) > 0 {
		answer.noName = false
		return answer, nil
	}
	soa := answer.readNegativeTTL(&p)
	if !soa && !answer.noName && !h.Authoritative && !h.RecursionAvailable {
		return dnsAnswer{}, errors.New("server does not serve us") // a referral: it will not look the name up
	}
	return answer, nil
}

// readAddresses takes the addresses of the answer section. A server that resolves for others puts them behind their CNAMEs.
func (a *dnsAnswer) readAddresses(p *dnsmessage.Parser, kind dnsmessage.Type) error {
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return nil
		}
		if err != nil {
			return err
		}
		wanted := h.Class == dnsmessage.ClassINET && h.Type == kind && len(a.addresses) < maxAnswers
		switch {
		case wanted && kind == dnsmessage.TypeA:
			resource, err := p.AResource()
			if err != nil {
				return err
			}
			a.addresses = append(a.addresses, netip.AddrFrom4(resource.A))
		case wanted && kind == dnsmessage.TypeAAAA:
			resource, err := p.AAAAResource()
			if err != nil {
				return err
			}
			a.addresses = append(a.addresses, netip.AddrFrom16(resource.AAAA).Unmap())
		default:
			if err := p.SkipAnswer(); err != nil {
				return err
			}
		}
		a.ttl = min(a.ttl, time.Duration(h.TTL)*time.Second)
	}
}

// readNegativeTTL looks for the SOA that says how long there will be no answer (RFC 2308 section 5). Without one nothing is cached.
func (a *dnsAnswer) readNegativeTTL(p *dnsmessage.Parser) bool {
	a.ttl = 0
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return false
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return false
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			return false
		}
		a.ttl = time.Duration(min(h.TTL, soa.MinTTL)) * time.Second
		return true
	}
}
