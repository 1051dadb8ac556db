// Package pki makes and serves the certificates of Podkey's own listeners and
// the trust files that clients need to accept them.
//
// It owns three things: a [CA] that signs short-lived leaves, the sources that
// hand a listener its present certificate ([Source] from a CA, [FileSource]
// from files that somebody else renews), and trust material in the two forms
// that clients read, PEM bundles and PKCS#12 trust stores. It guarantees that
// every certificate passes strict RFC 5280 checks (OpenSSL's X509_STRICT,
// which Python 3.13 turns on by default), that no leaf outlives its CA or the
// 398 days that Apple's clients allow, and that a private key leaves the
// package only through [CA.MarshalKey]. It knows nothing of where keys are
// kept.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	caYears = 10

	// Backdate is how far in the past a certificate's validity begins, so
	// that a client whose clock is a little behind accepts a new one.
	Backdate = time.Hour
)

// CA is a root that signs leaves. Both fields are set; a CA is safe for
// concurrent use and is never changed.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewCA makes a self-signed root with an ECDSA P-256 key that is valid for ten
// years from an hour before now and can sign leaves only (path length 0).
//
// With permitted domains, the root carries a critical name constraint: clients
// accept its leaves for those domains and the names below them alone, and for
// no IP address. A client that is told to trust such a root is not at the
// mercy of its key for the rest of the internet.
func NewCA(commonName string, now time.Time, permitted ...string) (*CA, error) {
	if commonName == "" {
		return nil, errors.New("create CA: common name is empty")
	}
	for _, d := range permitted {
		if err := checkDNSName(d); err != nil {
			return nil, fmt.Errorf("create CA: permitted domain: %w", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	ski, err := keyID(key.Public())
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName, Organization: []string{"Podkey"}},
		NotBefore:             now.Add(-Backdate).UTC().Truncate(time.Second),
		NotAfter:              now.AddDate(caYears, 0, 0).UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          ski,
		AuthorityKeyId:        ski,
	}
	if len(permitted) > 0 {
		t.PermittedDNSDomainsCritical = true
		t.PermittedDNSDomains = permitted
		t.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	return &CA{Cert: cert, Key: key}, nil
}

// LoadCA rebuilds a CA from its certificate and PKCS#8 key, both DER. It
// refuses a certificate that may not sign, and a key that is not the
// certificate's.
func LoadCA(certDER, keyPKCS8 []byte) (*CA, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("load CA certificate: %w", err)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("load CA certificate: %q may not sign certificates", cert.Subject.CommonName)
	}
	k, err := x509.ParsePKCS8PrivateKey(keyPKCS8)
	if err != nil {
		// The parser's text may quote the key's structure; nothing of a
		// private key belongs in an error.
		return nil, errors.New("load CA key: not a PKCS#8 private key")
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("load CA key: not a signing key")
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("load CA key: not the key of certificate %q", cert.Subject.CommonName)
	}
	return &CA{Cert: cert, Key: key}, nil
}

// CertPEM is the root's certificate as one PEM block.
func (ca *CA) CertPEM() []byte { return EncodeCertificates(ca.Cert.Raw) }

// MarshalKey is the private key in PKCS#8, DER. It is a secret: seal it.
func (ca *CA) MarshalKey() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.Key)
	if err != nil {
		return nil, fmt.Errorf("marshal CA key: %w", err)
	}
	return der, nil
}

// keyID is a subject key identifier: the leftmost 160 bits of the SHA-256 of
// the public key (RFC 7093 section 2, method 1).
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}
