package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	// MaxLifetime is the longest a leaf may live. Apple's clients refuse
	// server certificates that are valid for more than 398 days; a day is
	// left for the backdating and for how the days are counted.
	MaxLifetime = 397 * 24 * time.Hour

	// DefaultLifetime is the life of a leaf that asks for none.
	DefaultLifetime = 90 * 24 * time.Hour
)

// Leaf is what a server certificate is for.
type Leaf struct {
	DNSNames []string      // host names; "*.d" covers one label below d
	IPs      []net.IP      // addresses; names or addresses, at least one in all
	Lifetime time.Duration // 0 means DefaultLifetime; at most MaxLifetime
}

func (l Leaf) lifetime() time.Duration {
	if l.Lifetime == 0 {
		return DefaultLifetime
	}
	return l.Lifetime
}

func (l Leaf) check() error {
	if len(l.DNSNames)+len(l.IPs) == 0 {
		return errors.New("no name and no address")
	}
	if d := l.lifetime(); d < time.Second || d > MaxLifetime {
		return fmt.Errorf("lifetime %v is not between 1s and %v", d, MaxLifetime)
	}
	for _, n := range l.DNSNames {
		if err := checkDNSName(strings.TrimPrefix(n, "*.")); err != nil {
			return err
		}
	}
	for _, ip := range l.IPs {
		if ip.To16() == nil {
			return fmt.Errorf("%v is not an IP address", ip)
		}
	}
	return nil
}

// checkDNSName accepts what all clients accept as the DNS name of a
// certificate: lower-case letters, digits and inner hyphens in labels of at
// most 63 characters, 253 in all.
func checkDNSName(name string) error {
	bad := name == "" || len(name) > 253
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			bad = true
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				bad = true
			}
		}
	}
	if bad {
		return fmt.Errorf("%q is not a lower-case DNS name", name)
	}
	return nil
}

// Issue signs a server certificate with a new ECDSA P-256 key. It is valid
// from an hour before now for the leaf's lifetime, but never beyond the CA.
// The chain holds the leaf alone: whoever trusts the CA has its certificate.
func (ca *CA) Issue(l Leaf, now time.Time) (*tls.Certificate, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if now.Before(ca.Cert.NotBefore) || !now.Before(ca.Cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: CA %q is valid from %s to %s, and it is %s",
			ca.Cert.Subject.CommonName, ca.Cert.NotBefore.Format(time.RFC3339),
			ca.Cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	ski, err := keyID(key.Public())
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	notBefore := now.Add(-Backdate).UTC().Truncate(time.Second)
	if notBefore.Before(ca.Cert.NotBefore) {
		notBefore = ca.Cert.NotBefore
	}
	notAfter := now.Add(l.lifetime()).UTC().Truncate(time.Second)
	if notAfter.After(ca.Cert.NotAfter) {
		notAfter = ca.Cert.NotAfter
	}
	t := &x509.Certificate{
		// The subject is for people; clients match the alternative names. It
		// must not be empty, or these would have to be critical.
		Subject:               pkix.Name{CommonName: "Podkey server", Organization: []string{"Podkey"}},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          ski,
		DNSNames:              l.DNSNames,
		IPAddresses:           l.IPs,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}
