package config

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// IPsec is what protects L2TP with protocol "l2tp-ipsec": IKEv1 and ESP (RFC 3193). Either there is a pre-shared key or a
// certificate.
type IPsec struct {
	PSK     Secret `toml:"psk" range:"0..1024"`
	PSKFile string `toml:"psk_file"`
	// Certificate is a file: PEM, our own first and then intermediate ones, or PKCS#12. Key and CA are PEM files; "" if the
	// file of Certificate holds them, too. CertificatePassword opens PKCS#12.
	Certificate             string `toml:"certificate"`
	CertificatePassword     Secret `toml:"certificate_password" range:"0..1024"`
	CertificatePasswordFile string `toml:"certificate_password_file"`
	Key                     string `toml:"key"`
	CA                      string `toml:"ca"`

	LocalID  string `toml:"local_id" range:"0..1024"`  // whom we claim to be; "": our address, or the certificate's subject
	RemoteID string `toml:"remote_id" range:"0..1024"` // whom the server must be; "": whoever knows the key, or is of the CA

	Crypto       CryptoPolicy `toml:"crypto" default:"compatible"`
	Proposals    []string     `toml:"proposals"`     // of phase 1, instead of the default ones
	ESPProposals []string     `toml:"esp_proposals"` // of phase 2
	Aggressive   bool         `toml:"aggressive"`
	PFS          PFS          `toml:"pfs" default:"auto"`

	Port    uint16 `toml:"port" default:"500" range:"1..65535"`      // where IKE begins
	NATPort uint16 `toml:"nat_port" default:"4500" range:"1..65535"` // where it goes on, and ESP goes
	// DPDInterval is the silence after which the server is asked whether it lives (RFC 3706); 0: never.
	DPDInterval time.Duration `toml:"dpd_interval" default:"30s" range:"0,1s..24h"`
	// KeepaliveInterval is the silence after which a NAT on the way is reminded of us (RFC 3948 section 4); 0: never.
	KeepaliveInterval time.Duration `toml:"keepalive_interval" default:"20s" range:"0,1s..1h"`
	IKELifetime       time.Duration `toml:"ike_lifetime" default:"8h" range:"30s..720h"`
	ESPLifetime       time.Duration `toml:"esp_lifetime" default:"1h" range:"30s..720h"`
	// SHA256x96 cuts HMAC-SHA-256 to 96 bits in ESP, as Android 6 and 7 and Linux before 2.6.33 do.
	SHA256x96 bool `toml:"sha256_96"`

	// Credentials are what the files of Certificate, Key and CA hold.
	Credentials Credentials
}

// Credentials are our certificate and whom we trust. The zero value is none.
type Credentials struct {
	Certificates [][]byte // DER: ours, then intermediate ones
	Key          crypto.Signer
	Roots        []*x509.Certificate
}

// CryptoPolicy and PFS are names as they stand in the file.
type (
	CryptoPolicy string
	PFS          string
)

const (
	CryptoCompatible CryptoPolicy = "compatible"
	CryptoStrict     CryptoPolicy = "strict"

	PFSAuto PFS = "auto"
	PFSOff  PFS = "off"
	PFSOn   PFS = "on"
)

func (CryptoPolicy) values() []string {
	return []string{string(CryptoCompatible), string(CryptoStrict)}
}
func (PFS) values() []string { return []string{string(PFSAuto), string(PFSOff), string(PFSOn)} }

// authInsideIPsec are the login methods by default where IPsec has proven the server before.
var authInsideIPsec = []AuthMethod{"eap-mschapv2", "mschapv2", "mschap", "chap-md5", "eap-md5", "pap"}

// The proposals that there are; a test of internal/gateway holds them together with those of tunnel/ipsec/ike.
const (
	cipherPattern = `(?:aes|aes128|aes192|aes256|3des)`
	hashPattern   = `(?:md5|sha|sha1|sha256|sha384|sha512)`
	groupPattern  = `(modp1024|modp1536|modp2048|modp3072|modp4096|ecp256|ecp384|ecp521)`
)

var (
	ikeProposal  = regexp.MustCompile(`^` + cipherPattern + `-` + hashPattern + `-` + groupPattern + `$`)
	espProposal  = regexp.MustCompile(`^(?:(?:` + cipherPattern + `|null)-` + hashPattern + `|aes(?:128|192|256)gcm(?:8|12|16))(?:-` + groupPattern + `)?$`)
	weakProposal = regexp.MustCompile(`3des|null|md5|gcm8|modp1024|modp1536`)
)

// ipsec checks what IPsec needs and reads the files of its certificate.
func (v *checker) ipsec(path string, t *Tunnel) {
	c := &t.IPsec
	at := func(key string) string { return below(path, "ipsec."+key) }
	switch {
	case t.Protocol != L2TPIPsecProtocol && (c.PSK != "" || c.Certificate != ""):
		v.fail(below(path, "protocol"), fmt.Sprintf("%q does not use [tunnel.ipsec]", t.Protocol), `write protocol = "l2tp-ipsec"`)
		return
	case t.Protocol != L2TPIPsecProtocol:
		return
	case c.PSK != "" && c.Certificate != "":
		v.fail(at("certificate"), "psk and certificate are both set; use one", "")
	case c.Certificate != "":
		v.certificate(at, c)
	case c.PSK == "" && !v.failed[at("psk")] && !v.failed[at("psk_file")]:
		v.fail(at("psk"), "the pre-shared key is missing", "psk or psk_file in [tunnel.ipsec], or a certificate")
	}
	v.proposals(at("proposals"), c.Proposals, ikeProposal, c.Crypto, c.Aggressive, "aes256-sha256-modp2048")
	v.proposals(at("esp_proposals"), c.ESPProposals, espProposal, c.Crypto, true, "aes256-sha256")
	v.identity(at("local_id"), c.LocalID)
	v.identity(at("remote_id"), c.RemoteID)
	if c.Aggressive && c.PSK != "" {
		v.warn(at("aggressive"), "aggressive mode lets whoever sees it try out keys", "use it only if the server insists, and with a long random key")
	}
}

// proposals checks a list of algorithms. If they must share one Diffie-Hellman group, the groups are compared.
func (v *checker) proposals(at string, list []string, pattern *regexp.Regexp, policy CryptoPolicy, oneGroup bool, example string) {
	var groups []string
	for _, p := range list {
		parts := pattern.FindStringSubmatch(strings.ToLower(p))
		switch {
		case parts == nil:
			v.fail(at, fmt.Sprintf("%q is not a proposal that is known", shortened(p)), fmt.Sprintf("write them like %q", example))
			return
		case policy == CryptoStrict && weakProposal.MatchString(strings.ToLower(p)):
			v.fail(at, fmt.Sprintf("%q is weak, and crypto is \"strict\"", p), "")
			return
		}
		groups = append(groups, parts[len(parts)-1])
	}
	if oneGroup && len(slices.Compact(groups)) > 1 {
		v.fail(at, "all of them must have the same Diffie-Hellman group", "")
	}
}

func (v *checker) identity(at, id string) {
	key, ok := strings.CutPrefix(id, "keyid:")
	if !ok {
		return
	}
	if digits, ok := strings.CutPrefix(key, "0x"); ok {
		if _, err := hex.DecodeString(digits); err != nil {
			v.fail(at, "the digits behind keyid:0x are not hexadecimal pairs", "")
		}
	}
	if key == "" || key == "0x" {
		v.fail(at, "there is nothing behind keyid:", "")
	}
}

// certificate reads the files.
func (v *checker) certificate(at func(string) string, c *IPsec) {
	read := func(key string, name *string) []byte {
		if from := v.at[at(key)]; from.file != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(from.file), *name)
		}
		data, _, err := readBounded(*name, maxCertificateSize)
		if err != nil {
			v.fail(at(key), fmt.Sprintf("%s: %v", *name, err), "")
		}
		return data
	}
	data := read("certificate", &c.Certificate)
	if data == nil {
		return
	}
	credentials, err := openCertificate(data, c.CertificatePassword)
	if err != nil {
		v.fail(at("certificate"), err.Error(), "")
		return
	}
	if c.Key != "" {
		if data = read("key", &c.Key); data == nil {
			return
		}
		if credentials.Key, err = parseKey(data); err != nil {
			v.fail(at("key"), err.Error(), "")
			return
		}
	}
	if c.CA != "" {
		if data = read("ca", &c.CA); data == nil {
			return
		}
		if credentials.Roots, err = parseCertificates(data); err != nil {
			v.fail(at("ca"), err.Error(), "")
			return
		}
	}
	switch public, ok := credentials.Key.(*rsa.PrivateKey); {
	case credentials.Key == nil:
		v.fail(at("key"), "the key of the certificate is missing", "the PEM file that holds it")
	case len(credentials.Roots) == 0:
		v.fail(at("ca"), "the certificate of the server's CA is missing", "the PEM file that holds it; without it, any server could pose as yours")
	case !ok:
		v.fail(at("certificate"), "its key is not RSA, which IKEv1 needs", "")
	case !ownedBy(credentials.Certificates[0], public):
		v.fail(at("key"), "is not the key of the certificate", "")
	default:
		c.Credentials = credentials
	}
}

const maxCertificateSize = 256 << 10 // bytes of a file

// openCertificate reads PKCS#12, or PEM with certificates and perhaps a key.
func openCertificate(data []byte, password Secret) (c Credentials, err error) {
	if block, _ := pem.Decode(data); block == nil {
		key, own, chain, err := pkcs12.DecodeChain(data, password.Reveal())
		switch signer, ok := key.(crypto.Signer); {
		case errors.Is(err, pkcs12.ErrIncorrectPassword):
			return c, errors.New("the password of the PKCS#12 file is wrong: set certificate_password or certificate_password_file")
		case err != nil:
			return c, errors.New("neither PEM nor a PKCS#12 file with a key and its certificate")
		case !ok:
			return c, errors.New("its key cannot sign")
		default:
			c.Key = signer
		}
		c.Certificates = [][]byte{own.Raw}
		for _, issuer := range chain {
			if issuer.CheckSignatureFrom(issuer) == nil { // a root
				c.Roots = append(c.Roots, issuer)
			} else {
				c.Certificates = append(c.Certificates, issuer.Raw)
			}
		}
		return c, nil
	}
	certificates, err := parseCertificates(data)
	if err != nil {
		return c, err
	}
	for _, certificate := range certificates {
		c.Certificates = append(c.Certificates, certificate.Raw)
	}
	c.Key, _ = parseKey(data) // it may be in a file of its own
	return c, nil
}

// parseCertificates reads all certificates of a PEM file.
func parseCertificates(data []byte) (list []*x509.Certificate, err error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("holds a certificate that cannot be read: " + strings.TrimPrefix(err.Error(), "x509: "))
		}
		list = append(list, certificate)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return list, nil
}

// parseKey reads the first private key of a PEM file.
func parseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "RSA PRIVATE KEY":
			if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); block.Headers["DEK-Info"] != "" {
				err = errors.New("encrypted")
			}
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			err = errors.New("encrypted")
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("holds a key that cannot be read; it must be RSA and not encrypted (PKCS#12 may be)")
		}
		return signer, nil
	}
	return nil, errors.New("holds no private key in PEM")
}

func ownedBy(certificate []byte, key *rsa.PrivateKey) bool {
	parsed, err := x509.ParseCertificate(certificate)
	return err == nil && key.PublicKey.Equal(parsed.PublicKey)
}
