package ike

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"time"
)

// An authMethod is the value of attribute 3 of phase 1 (RFC 2409 appendix A).
type authMethod uint16

const (
	authPSK          authMethod = 1
	authRSASignature authMethod = 3
)

const (
	certificateX509 = 4 // X.509 Certificate - Signature, RFC 2408 section 3.9
	maxCertificates = 8 // of one peer
)

// sign signs HASH_I or HASH_R: PKCS #1 v1.5 over the bare hash, without the name of the algorithm (RFC 2409 section 5.1).
func sign(random io.Reader, key crypto.Signer, hash []byte) ([]byte, error) {
	return key.Sign(random, hash, crypto.Hash(0))
}

// verify checks a signature over hash by the peer who claims to be id, with the certificates that it sent, its own first. Many servers claim
// to be the subject of their certificate, so that Config.RemoteID may also be one of its other names.
func (e *Endpoint) verify(now time.Time, id Identity, certificates [][]byte, hash, signature []byte) error {
	if len(certificates) == 0 {
		return errors.New("ike: peer sent no certificate")
	}
	chain := x509.NewCertPool()
	var leaf *x509.Certificate
	for i, body := range certificates[:min(len(certificates), maxCertificates)] {
		if len(body) < 1 || body[0] != certificateX509 {
			continue
		}
		parsed, err := x509.ParseCertificate(body[1:])
		switch {
		case err != nil && i == 0:
			return fmt.Errorf("ike: certificate: %w", err)
		case err != nil:
		case leaf == nil:
			leaf = parsed
		default:
			chain.AddCert(parsed)
		}
	}
	if leaf == nil {
		return errors.New("ike: peer sent no X.509 certificate")
	}
	// Never the system's roots: they vouch for web sites.
	_, err := leaf.Verify(x509.VerifyOptions{Roots: e.roots, Intermediates: chain, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("ike: certificate: %w", err)
	}
	expected := e.config.RemoteID
	switch {
	case expected.Type != 0 && expected != id && !expected.isOf(leaf):
		return fmt.Errorf("ike: the certificate is not one of %v", expected)
	case (expected.Type == 0 || expected == id) && !id.isOf(leaf):
		return fmt.Errorf("ike: the certificate is not one of %v", id)
	}
	public, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("ike: the certificate has no RSA key")
	}
	if err := rsa.VerifyPKCS1v15(public, crypto.Hash(0), hash, signature); err != nil {
		return fmt.Errorf("ike: signature: %w", err)
	}
	return nil
}

// subject is the identity that a certificate gives: its distinguished name.
func subject(der []byte) (Identity, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Identity{}, fmt.Errorf("ike: certificate: %w", err)
	}
	if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
		return Identity{}, errors.New("ike: certificate: key is not RSA, which IKEv1 needs")
	}
	return Identity{IDDN, string(c.RawSubject)}, nil
}

func parseName(der []byte) (n pkix.Name, err error) {
	var sequence pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &sequence)
	if err != nil || len(rest) > 0 {
		return n, errPayload
	}
	n.FillFromRDNSequence(&sequence)
	return n, nil
}
