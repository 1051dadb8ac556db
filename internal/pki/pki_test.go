package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/pki"
)

var day0 = time.Date(2026, 11, 20, 12, 0, 0, 500, time.UTC)

func newCA(t testing.TB, permitted ...string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("Podkey test CA", day0, permitted...)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *pki.CA, l pki.Leaf) *tls.Certificate {
	t.Helper()
	c, err := ca.Issue(l, day0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(ca *pki.CA, leaf *x509.Certificate, host string, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at})
	return err
}

// extensions lists a certificate's extensions as "oid" or "oid critical".
func extensions(c *x509.Certificate) []string {
	var out []string
	for _, e := range c.Extensions {
		s := e.Id.String()
		if e.Critical {
			s += " critical"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

const (
	oidSubjectKeyID     = "2.5.29.14"
	oidKeyUsage         = "2.5.29.15"
	oidAlternativeName  = "2.5.29.17"
	oidBasicConstraints = "2.5.29.19"
	oidNameConstraints  = "2.5.29.30"
	oidAuthorityKeyID   = "2.5.29.35"
	oidExtKeyUsage      = "2.5.29.37"
)

// What OpenSSL's X509_STRICT, and so Python 3.13, insists on.
func TestStrictExtensions(t *testing.T) {
	ca := newCA(t)
	leaf := issue(t, ca, pki.Leaf{DNSNames: []string{"login.podkey.localhost"}}).Leaf

	for _, tt := range []struct {
		name string
		cert *x509.Certificate
		want []string
	}{
		{"root", ca.Cert, []string{oidSubjectKeyID, oidKeyUsage + " critical", oidBasicConstraints + " critical", oidAuthorityKeyID}},
		{"constrained root", newCA(t, "vault.azure.net").Cert, []string{oidSubjectKeyID, oidKeyUsage + " critical", oidBasicConstraints + " critical", oidNameConstraints + " critical", oidAuthorityKeyID}},
		{"leaf", leaf, []string{oidSubjectKeyID, oidKeyUsage + " critical", oidAlternativeName, oidBasicConstraints + " critical", oidAuthorityKeyID, oidExtKeyUsage}},
	} {
		slices.Sort(tt.want)
		if d := cmp.Diff(tt.want, extensions(tt.cert)); d != "" {
			t.Errorf("%s: extensions (-want +got):\n%s", tt.name, d)
		}
		if len(tt.cert.SubjectKeyId) != 20 {
			t.Errorf("%s: subject key id has %d bytes", tt.name, len(tt.cert.SubjectKeyId))
		}
		if !bytes.Equal(tt.cert.AuthorityKeyId, tt.cert.SubjectKeyId) && tt.cert.IsCA {
			t.Errorf("%s: authority key id is not its own", tt.name)
		}
		if tt.cert.SerialNumber.Sign() <= 0 || tt.cert.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: serial number %v is not a random positive one", tt.name, tt.cert.SerialNumber)
		}
	}
	if !bytes.Equal(leaf.AuthorityKeyId, ca.Cert.SubjectKeyId) {
		t.Error("the leaf's authority key id is not the root's key id")
	}
	if bytes.Equal(leaf.SubjectKeyId, ca.Cert.SubjectKeyId) {
		t.Error("leaf and root have the same key id")
	}
}

func TestRoot(t *testing.T) {
	c := newCA(t).Cert
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero {
		t.Errorf("CA %v, path length %d", c.IsCA, c.MaxPathLen)
	}
	if c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("key usage %b", c.KeyUsage)
	}
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("key is %T, want ECDSA P-256", c.PublicKey)
	}
	if want := day0.AddDate(10, 0, 0).Truncate(time.Second); !c.NotAfter.Equal(want) {
		t.Errorf("valid until %v, want %v", c.NotAfter, want)
	}
	if !c.NotBefore.Before(day0) {
		t.Errorf("valid from %v: a client whose clock is behind would refuse it", c.NotBefore)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		t.Error(err)
	}
}

// A path length of zero means that a leaf's key is of no use to a thief who
// wants to sign more.
func TestSubordinateIsRefused(t *testing.T) {
	ca := newCA(t)
	leaf := issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{NotBefore: day0, NotAfter: day0.Add(time.Hour), DNSNames: []string{"b.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, leaf.Leaf, key.Public(), leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Cert)
	inter.AddCert(leaf.Leaf)
	if _, err := forged.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: "b.example", CurrentTime: day0}); err == nil {
		t.Error("a certificate signed by a leaf was accepted")
	}
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	c := issue(t, ca, pki.Leaf{
		DNSNames: []string{"login.podkey.localhost", "*.login.podkey.localhost", "*.vault.podkey.localhost", "podkey.localhost"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	})
	for _, host := range []string{
		"login.podkey.localhost", "westeurope.login.podkey.localhost", "kv1.vault.podkey.localhost",
		"podkey.localhost", "127.0.0.1", "::1",
	} {
		if err := verify(ca, c.Leaf, host, day0); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"a.b.vault.podkey.localhost", "vault.podkey.localhost", "login.microsoftonline.com", "127.0.0.2"} {
		if err := verify(ca, c.Leaf, host, day0); err == nil {
			t.Errorf("%s is accepted", host)
		}
	}
	if got := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore); got > 398*24*time.Hour {
		t.Errorf("valid for %v", got)
	}
	if d := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, c.Leaf.ExtKeyUsage); d != "" {
		t.Error(d)
	}
	if c.Leaf.KeyUsage != x509.KeyUsageDigitalSignature || c.Leaf.IsCA {
		t.Errorf("key usage %b, CA %v", c.Leaf.KeyUsage, c.Leaf.IsCA)
	}
	if other := issue(t, newCA(t), pki.Leaf{DNSNames: []string{"podkey.localhost"}}); verify(ca, other.Leaf, "podkey.localhost", day0) == nil {
		t.Error("a leaf of another CA with the same name was accepted")
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t)
	ok := []string{"a.example"}
	for name, l := range map[string]pki.Leaf{
		"nothing":            {},
		"too long a life":    {DNSNames: ok, Lifetime: pki.MaxLifetime + time.Second},
		"negative life":      {DNSNames: ok, Lifetime: -time.Hour},
		"empty name":         {DNSNames: []string{""}},
		"bare wildcard":      {DNSNames: []string{"*."}},
		"wildcard not first": {DNSNames: []string{"a.*.example"}},
		"two wildcards":      {DNSNames: []string{"*.*.example"}},
		"partial wildcard":   {DNSNames: []string{"a*.example"}},
		"name with port":     {DNSNames: []string{"a.example:8443"}},
		"upper case":         {DNSNames: []string{"A.example"}},
		"space":              {DNSNames: []string{"a .example"}},
		"closing dot":        {DNSNames: []string{"a.example."}},
		"empty label":        {DNSNames: []string{"a..example"}},
		"leading hyphen":     {DNSNames: []string{"-a.example"}},
		"long label":         {DNSNames: []string{strings.Repeat("a", 64) + ".example"}},
		"long name":          {DNSNames: []string{strings.Repeat("a.", 125) + "example"}},
		"not an address":     {IPs: []net.IP{{1, 2, 3}}},
	} {
		if _, err := ca.Issue(l, day0); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	for name, at := range map[string]time.Time{
		"before the CA": ca.Cert.NotBefore.Add(-time.Second),
		"after the CA":  ca.Cert.NotAfter,
	} {
		if _, err := ca.Issue(pki.Leaf{DNSNames: ok}, at); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestLeafStaysWithinCA(t *testing.T) {
	ca := newCA(t)
	c, err := ca.Issue(pki.Leaf{DNSNames: []string{"a.example"}}, ca.Cert.NotAfter.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Leaf.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("leaf until %v, CA until %v", c.Leaf.NotAfter, ca.Cert.NotAfter)
	}
	if c, err = ca.Issue(pki.Leaf{DNSNames: []string{"a.example"}}, ca.Cert.NotBefore); err != nil {
		t.Fatal(err)
	}
	if c.Leaf.NotBefore.Before(ca.Cert.NotBefore) {
		t.Errorf("leaf from %v, CA from %v", c.Leaf.NotBefore, ca.Cert.NotBefore)
	}
}

// A stolen key of a constrained root must not open the rest of the internet.
func TestConstrainedRoot(t *testing.T) {
	ca := newCA(t, "login.microsoftonline.com", "vault.azure.net")
	for _, host := range []string{"login.microsoftonline.com", "kv1.vault.azure.net"} {
		if err := verify(ca, issue(t, ca, pki.Leaf{DNSNames: []string{host}}).Leaf, host, day0); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	wild := issue(t, ca, pki.Leaf{DNSNames: []string{"*.vault.azure.net"}}).Leaf
	if err := verify(ca, wild, "kv1.vault.azure.net", day0); err != nil {
		t.Error(err)
	}
	for name, l := range map[string]pki.Leaf{
		"www.example.com":     {DNSNames: []string{"www.example.com"}},
		"azure.net":           {DNSNames: []string{"azure.net"}},
		"evilvault.azure.net": {DNSNames: []string{"evilvault.azure.net"}},
		"127.0.0.1":           {IPs: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"::1":                 {IPs: []net.IP{net.IPv6loopback}},
	} {
		if verify(ca, issue(t, ca, l).Leaf, name, day0) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := pki.NewCA("x", day0, "*.azure.net"); err == nil {
		t.Error("a wildcard was taken as a permitted domain")
	}
}

func TestLoadCA(t *testing.T) {
	ca := newCA(t)
	key, err := ca.MarshalKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.LoadCA(ca.Cert.Raw, key)
	if err != nil {
		t.Fatal(err)
	}
	issued := issue(t, again, pki.Leaf{DNSNames: []string{"a.example"}})
	leaf := issued.Leaf
	if err := verify(ca, leaf, "a.example", day0); err != nil {
		t.Errorf("a leaf of the loaded CA: %v", err)
	}
	if !bytes.Equal(again.CertPEM(), ca.CertPEM()) {
		t.Error("certificate changed")
	}

	other, err := newCA(t).MarshalKey()
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]struct{ cert, key []byte }{
		"another key":          {ca.Cert.Raw, other},
		"a leaf":               {leaf.Raw, leafKey},
		"PEM for DER":          {ca.CertPEM(), key},
		"trailing bytes":       {append(slices.Clone(ca.Cert.Raw), 0), key},
		"empty":                {nil, nil},
		"key that is not one":  {ca.Cert.Raw, []byte("not a key")},
		"cut key":              {ca.Cert.Raw, key[:len(key)-1]},
		"ASN.1, but not a key": {ca.Cert.Raw, asn1.NullBytes},
	} {
		if _, err := pki.LoadCA(in.cert, in.key); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	if _, err := pki.NewCA("", day0); err == nil {
		t.Error("a CA without a name")
	}
}
