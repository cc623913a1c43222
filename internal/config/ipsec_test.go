package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// A pki is a CA and a client's certificate of it.
type pki struct {
	key, other   *rsa.PrivateKey
	ca, client   *x509.Certificate
	ecKey        *ecdsa.PrivateKey
	ecClient     *x509.Certificate
	password     string
	caPEM        []byte
	clientPEM    []byte
	keyPEM       []byte
	otherKeyPEM  []byte
	ecClientPEM  []byte
	ecKeyPEM     []byte
	encryptedPEM []byte
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{password: "hunter2"}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	p.key, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	p.other = caKey
	p.ecKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	issue := func(name string, isCA bool, public any) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
		issuer := p.ca
		if issuer == nil {
			issuer = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, caKey)
		must(err)
		c, err := x509.ParseCertificate(der)
		must(err)
		return c
	}
	p.ca = issue("the CA", true, caKey.Public())
	p.client = issue("alice", false, p.key.Public())
	p.ecClient = issue("alice, on a curve", false, p.ecKey.Public())
	block := func(kind string, der []byte, err error) []byte {
		must(err)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	p.caPEM = block("CERTIFICATE", p.ca.Raw, nil)
	p.clientPEM = block("CERTIFICATE", p.client.Raw, nil)
	p.ecClientPEM = block("CERTIFICATE", p.ecClient.Raw, nil)
	p.keyPEM = block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(p.key), nil)
	der, err := x509.MarshalPKCS8PrivateKey(p.other)
	p.otherKeyPEM = block("PRIVATE KEY", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(p.ecKey)
	p.ecKeyPEM = block("PRIVATE KEY", der, err)
	p.encryptedPEM = block("ENCRYPTED PRIVATE KEY", []byte("whatever"), nil)
	return p
}

// Certificates come as PEM in one, two or three files, and as PKCS#12; and each
// thing that is wrong with them is named.
func TestCertificatesOfAllForms(t *testing.T) {
	p := newPKI(t)
	p12, err := pkcs12.Modern.Encode(p.key, p.client, []*x509.Certificate{p.ca}, p.password)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := pkcs12.LegacyDES.Encode(p.key, p.client, []*x509.Certificate{p.ca}, p.password)
	if err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	const three = "certificate='c'\nkey='k'\nca='a'\n"
	for _, test := range []struct {
		name      string
		settings  string
		c, k, a   []byte // the files
		problem   string // "": none
		certified int
	}{
		{"three files", three, p.clientPEM, p.keyPEM, p.caPEM, "", 1},
		{"two files", "certificate='c'\nca='a'\n", join(p.keyPEM, p.clientPEM), nil, p.caPEM, "", 1},
		{"with an intermediate certificate", three, join(p.clientPEM, p.caPEM), p.keyPEM, p.caPEM, "", 2},
		{"PKCS#12", "certificate='c'\ncertificate_password='hunter2'\n", p12, nil, nil, "", 1},
		{"PKCS#12 of an old Windows", "certificate='c'\ncertificate_password='hunter2'\n", legacy, nil, nil, "", 1},
		{"wrong password", "certificate='c'\ncertificate_password='wrong'\n", p12, nil, nil, "ipsec.certificate: the password of the PKCS#12 file is wrong", 0},
		{"no password", "certificate='c'\n", p12, nil, nil, "ipsec.certificate: the password of the PKCS#12 file is wrong", 0},
		{"neither", "certificate='c'\n", []byte("hunter2"), nil, nil, "ipsec.certificate: neither PEM nor a PKCS#12 file", 0},
		{"no certificate", three, p.keyPEM, p.keyPEM, p.caPEM, "ipsec.certificate: holds no certificate in PEM", 0},
		{"no key", "certificate='c'\nca='a'\n", p.clientPEM, nil, p.caPEM, "ipsec.key: the key of the certificate is missing", 0},
		{"no key in its file", three, p.clientPEM, p.caPEM, p.caPEM, "ipsec.key: holds no private key in PEM", 0},
		{"encrypted key", three, p.clientPEM, p.encryptedPEM, p.caPEM, "ipsec.key: holds a key that cannot be read", 0},
		{"another's key", three, p.clientPEM, p.otherKeyPEM, p.caPEM, "ipsec.key: is not the key of the certificate", 0},
		{"key on a curve", three, p.ecClientPEM, p.ecKeyPEM, p.caPEM, "ipsec.certificate: its key is not RSA", 0},
		{"no CA", "certificate='c'\nkey='k'\n", p.clientPEM, p.keyPEM, nil, "ipsec.ca: the certificate of the server's CA is missing", 0},
		{"empty CA", three, p.clientPEM, p.keyPEM, nil, "ipsec.ca: holds no certificate in PEM", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := write(t, "config.toml", secure+test.settings)
			for name, data := range map[string][]byte{"c": test.c, "k": test.k, "a": test.a} {
				if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c, err := Load(Sources{File: file})
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) || len(Problems(err)) != 1 || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := c.Tunnels[0].IPsec.Credentials
			if len(got.Certificates) != test.certified || string(got.Certificates[0]) != string(p.client.Raw) || !p.key.Equal(got.Key) ||
				len(got.Roots) != 1 || !got.Roots[0].Equal(p.ca) {
				t.Errorf("%d certificates, %d roots", len(got.Certificates), len(got.Roots))
			}
			if err := c.Validate(); err != nil {
				t.Errorf("valid once and not again: %v", err)
			}
		})
	}
}

// Inside IPsec more methods of login are allowed by default; what is set counts.
func TestLoginMethodsInsideIPsec(t *testing.T) {
	withKey := strings.Replace(secure, "[tunnel.ipsec]", "[tunnel.ipsec]\npsk = 'hunter2'", 1)
	for file, want := range map[string]string{
		minimal: "eap-mschapv2 mschapv2",
		withKey: "eap-mschapv2 mschapv2 mschap chap-md5 eap-md5 pap",
		withKey + "[tunnel.ppp]\nauth = ['pap']\n": "pap",
	} {
		var got []string
		for _, m := range load(t, Sources{File: write(t, "c.toml", file)}).Tunnels[0].PPP.Auth {
			got = append(got, string(m))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
