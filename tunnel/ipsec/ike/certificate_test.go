package ike

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// An authority is a CA of the tests.
type authority struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
}

var (
	testCA  = newAuthority("test CA")
	otherCA = newAuthority("other CA")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newAuthority(name string) *authority {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &authority{key, must(x509.ParseCertificate(der))}
}

func roots() []*x509.Certificate { return []*x509.Certificate{testCA.certificate} }

// issue makes a Config that authenticates with a certificate of the CA.
func (a *authority) issue(name string, until time.Time) Config {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: []string{"test"}}, DNSNames: []string{name},
		NotBefore: epoch.Add(-time.Hour), NotAfter: until}
	der := must(x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key))
	return Config{Certificates: [][]byte{der}, Key: key, Roots: roots()}
}

var farAway = epoch.Add(900 * time.Hour)

// RFC 2409 section 5.1.
func TestCertificatesAuthenticate(t *testing.T) {
	for _, aggressive := range []bool{false, true} {
		client, server := testCA.issue("client.example", farAway), testCA.issue("vpn.example", farAway)
		client.Aggressive, server.Aggressive = aggressive, aggressive
		client.RemoteID = Identity{IDFQDN, "vpn.example"} // the server says its subject, and is this too
		p := connected(t, client, server)
		if got := p.c.peer.ID().String(); got != "CN=vpn.example,O=test" {
			t.Error(got)
		}
		if got := p.s[0].peer.ID().String(); got != "CN=client.example,O=test" {
			t.Error(got)
		}
	}
}

// The messages with certificates are long: they go in fragments, and arrive with any of them lost at first.
func TestCertificatesGoInFragments(t *testing.T) {
	client, server := testCA.issue("client.example", farAway), testCA.issue("vpn.example", farAway)
	for range 2 {
		client.Certificates = append(client.Certificates, testCA.certificate.Raw)
	}
	p := newPair(t, client, server)
	fragmented := 0
	p.fate = func(f flight) []time.Duration {
		if h, _, _ := parseHeader(f.message); h.next == payloadFragment {
			if fragmented++; fragmented == 2 {
				return nil
			}
		}
		return []time.Duration{time.Millisecond}
	}
	p.connect()
	if fragmented < 4 {
		t.Error(fragmented, "fragments")
	}
	for _, f := range p.seen {
		if len(f.message) > maxUnfragmented {
			t.Error("a message of", len(f.message))
		}
	}
}

func TestWrongCertificatesAreRefused(t *testing.T) {
	good := func() Config { return testCA.issue("vpn.example", farAway) }
	remote := func(c Config, id string) Config { c.RemoteID = must(ParseIdentity(id)); return c }
	local := func(c Config, id string) Config { c.LocalID = must(ParseIdentity(id)); return c }
	client := func() Config { return testCA.issue("client.example", farAway) }
	stolen := good()
	stolen.Key = must(rsa.GenerateKey(rand.Reader, 2048))
	for name, test := range map[string]struct {
		client, server Config
		text           string
	}{
		"another CA":                   {client(), otherCA.issue("vpn.example", farAway), "unknown authority"},
		"expired":                      {client(), testCA.issue("vpn.example", epoch.Add(-time.Minute)), "expired"},
		"another name":                 {remote(client(), "other.example"), good(), "not one of other.example"},
		"false claim":                  {client(), local(good(), "bank.example"), "not one of bank.example"},
		"false claim that is expected": {remote(client(), "bank.example"), local(good(), "bank.example"), "not one of bank.example"},
		"key of another":               {client(), stolen, "signature"},
	} {
		p := newPair(t, test.client, test.server)
		p.dial()
		p.run(40 * time.Second)
		var local *LocalError
		if len(p.c.up) > 0 || !errors.As(p.c.down, &local) || local.Kind != WrongCertificate || !strings.Contains(local.Error(), test.text) {
			t.Errorf("%s: %v", name, p.c.down)
		}
	}
	// The server refuses the client.
	p := newPair(t, otherCA.issue("client.example", farAway), good())
	p.dial()
	p.run(40 * time.Second)
	if len(p.s) > 0 || p.c.down == nil {
		t.Error("a client of another CA:", p.c.down)
	}
}

func TestPSKAndCertificatesDoNotMeet(t *testing.T) {
	p := newPair(t, testCA.issue("client.example", farAway), Config{})
	p.dial()
	p.run(40 * time.Second)
	var peer *PeerError
	if !errors.As(p.c.down, &peer) || notifyType(peer.Notify) != notifyNoProposalChosen {
		t.Error(p.c.down)
	}
}
