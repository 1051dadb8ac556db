package webhook

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// Keys of the Secret.
const (
	caCertKey  = "ca.crt"
	caKeyKey   = "ca.key"
	tlsCertKey = "tls.crt"
	tlsKeyKey  = "tls.key"
)

// material is what the Secret holds. Parts that are missing or unusable are
// nil. It is never changed; a new state is a new value.
type material struct {
	roots []*x509.Certificate // to be trusted; the one that signs comes first
	ca    *pki.CA             // one of roots with its key
	leaf  *tls.Certificate    // with its key
}

// readMaterial reads the data of a Secret. What cannot be used is left out:
// whoever replaced it by hand gets it repaired, not an outage.
func readMaterial(data map[string][]byte) material {
	m := material{roots: pki.Certificates(data[caCertKey])}
	if key, _ := pem.Decode(data[caKeyKey]); key != nil {
		for _, r := range m.roots {
			if ca, err := pki.LoadCA(r.Raw, key.Bytes); err == nil {
				m.ca = ca
				break
			}
		}
	}
	if leaf, err := tls.X509KeyPair(data[tlsCertKey], data[tlsKeyKey]); err == nil {
		m.leaf = &leaf
	}
	return m
}

// data is the content of the Secret.
func (m material) data() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, r := range m.roots {
		out[caCertKey] = append(out[caCertKey], pki.EncodeCertificates(r.Raw)...)
	}
	if m.ca != nil {
		der, err := m.ca.MarshalKey()
		if err != nil {
			return nil, err
		}
		out[caKeyKey] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	if m.leaf != nil {
		out[tlsCertKey] = pki.EncodeCertificates(m.leaf.Certificate...)
		der, err := x509.MarshalPKCS8PrivateKey(m.leaf.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("marshal the serving key: %w", err)
		}
		out[tlsKeyKey] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return out, nil
}

// root is the one of the roots by which a client that calls for name accepts
// the leaf now, nil if it would not.
func (m material) root(name string, now time.Time) *x509.Certificate {
	if m.leaf == nil {
		return nil
	}
	return rootOf(m.leaf, m.roots, name, now)
}

func rootOf(leaf *tls.Certificate, roots []*x509.Certificate, name string, now time.Time) *x509.Certificate {
	o := x509.VerifyOptions{DNSName: name, CurrentTime: now, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	for _, r := range roots {
		o.Roots.AddCert(r)
	}
	for _, der := range leaf.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(c)
		}
	}
	chains, err := leaf.Leaf.Verify(o)
	if err != nil {
		return nil
	}
	return chains[0][len(chains[0])-1]
}

const (
	maxChain         = 8 // more than any authority needs
	handshakeTimeout = 5 * time.Second
)

// shakesHands reports whether a client that trusts the root and calls for name
// comes to a connection. A certificate can be valid and still be of no use for
// TLS: its key may be of a kind that has no signature there, or larger than
// clients take, and so may the chain.
func shakesHands(leaf *tls.Certificate, root *x509.Certificate, name string, now time.Time) bool {
	if len(leaf.Certificate) > maxChain {
		return false
	}
	clock := func() time.Time { return now }
	ours, theirs := net.Pipe()
	defer ours.Close()
	deadline := time.Now().Add(handshakeTimeout)
	_, _ = ours.SetDeadline(deadline), theirs.SetDeadline(deadline)
	served := make(chan error, 1)
	go func() {
		defer theirs.Close()
		served <- tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{*leaf}, Time: clock, SessionTicketsDisabled: true}).Handshake()
	}()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	err := tls.Client(ours, &tls.Config{RootCAs: roots, ServerName: name, Time: clock}).Handshake()
	ours.Close()
	return errors.Join(err, <-served) == nil
}

func contains(certs []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(certs, c.Equal)
}

// policy says when certificates are replaced.
type policy struct {
	names     []string      // of the serving certificate; the first is what the API server calls
	leafLife  time.Duration // of a serving certificate
	leafRenew time.Duration // before its end
	caRenew   time.Duration // before the CA's end; more than leafRenew, as its last leaf ends with it
	settle    time.Duration // from a CA's making until a leaf of it is served: API servers follow the configurations
	overlap   time.Duration // from a leaf's making until older CAs are dropped: replicas follow the Secret
}

func defaultPolicy(service, namespace string) policy {
	const day = 24 * time.Hour
	return policy{
		names:     []string{service + "." + namespace + ".svc", service + "." + namespace + ".svc.cluster.local"},
		leafLife:  365 * day,
		leafRenew: 90 * day,
		caRenew:   120 * day,
		settle:    10 * time.Minute,
		overlap:   day,
	}
}

// step is what next decided.
type step struct {
	m     material
	write bool     // m differs from what is stored
	why   []string // for the log
	wake  time.Time
	newCA bool
	leaf  bool // newly signed
}

// next decides how the stored material has to change, if at all. It is a
// function of what is stored, what this replica serves (nil at first), the
// time, and which CAs the configurations have, so every replica comes to the
// same decision, and only one of them can write it.
//
// A CA is replaced in three writes, each made only when the one before it has
// reached everybody: the new CA is added to the roots, and thereby to the
// configurations; a leaf of it replaces the old one; the old CA is dropped.
// The old CA's key is gone with the first of them. The process may die
// between any two: the next look continues.
func (p policy) next(stored material, served *material, now time.Time, registered func(*x509.Certificate) bool) (step, error) {
	s := step{m: stored, wake: now.Add(365 * 24 * time.Hour)}
	s.m.roots = slices.DeleteFunc(slices.Clone(stored.roots), func(r *x509.Certificate) bool { return !now.Before(r.NotAfter) })
	change := func(why string) { s.write, s.why = true, append(s.why, why) }
	later := func(t time.Time) {
		if t.Before(s.wake) {
			s.wake = t
		}
	}
	root := s.m.root(p.names[0], now)
	if root != nil && !(served != nil && slices.EqualFunc(served.leaf.Certificate, s.m.leaf.Certificate, bytes.Equal)) &&
		!shakesHands(s.m.leaf, root, p.names[0], now) {
		root = nil // what is served already did
	}
	if root == nil && served != nil {
		// The Secret was deleted or spoilt. What is served is still good and
		// registered: it stays until its successor is registered too.
		if r := served.root(p.names[0], now); r != nil {
			s.m.leaf, root = served.leaf, r
			if !contains(s.m.roots, r) {
				s.m.roots = append(s.m.roots, r)
			}
			change("the Secret has no usable serving certificate, the one being served is put back")
		}
	}
	leafDue := func() bool { return !now.Before(s.m.leaf.Leaf.NotAfter.Add(-p.leafRenew)) }

	ca := s.m.ca
	replaceCA := func() (err error) {
		if ca, err = pki.NewCA("Podkey webhook CA", now); err != nil {
			return err
		}
		s.m.ca, s.m.roots, s.newCA = ca, slices.Insert(s.m.roots, 0, ca.Cert), true
		change("a new CA")
		return nil
	}
	switch {
	case ca == nil && root != nil && !s.write && !leafDue():
		// Put there by hand, without the CA's key: theirs until it runs out.
		later(s.m.leaf.Leaf.NotAfter.Add(-p.leafRenew))
		return s, nil
	case ca == nil || !now.Before(ca.Cert.NotAfter.Add(-p.caRenew)) || now.Before(ca.Cert.NotBefore):
		if err := replaceCA(); err != nil {
			return s, err
		}
	default:
		if i := slices.IndexFunc(s.m.roots, ca.Cert.Equal); i > 0 {
			s.m.roots = slices.Insert(slices.Delete(s.m.roots, i, i+1), 0, ca.Cert)
		}
	}
	later(ca.Cert.NotAfter.Add(-p.caRenew))

	sign := func(why string) error {
		leaf, err := ca.Issue(pki.Leaf{DNSNames: p.names, Lifetime: p.leafLife}, now)
		if err != nil {
			return err
		}
		s.m.leaf, root, s.leaf = leaf, ca.Cert, true
		change(why)
		return nil
	}
	// A CA that was put there by hand may be constrained to other names. It
	// would be asked for one leaf after the other.
	signOrReplace := func(why string) error {
		if err := sign(why); err != nil || s.m.root(p.names[0], now) != nil {
			return err
		}
		if err := replaceCA(); err != nil {
			return err
		}
		return sign("the CA's certificates are not valid for our name")
	}
	settled := ca.Cert.NotBefore.Add(pki.Backdate + p.settle)
	var err error
	switch {
	case root == nil:
		err = signOrReplace("there is no usable serving certificate")
	case root.Equal(ca.Cert) && leafDue():
		err = signOrReplace("the serving certificate nears its end")
	case !root.Equal(ca.Cert) && now.Before(settled):
		later(settled)
	case !root.Equal(ca.Cert) && registered(ca.Cert):
		err = signOrReplace("the new CA is registered")
	}
	if err != nil {
		return s, err
	}
	later(s.m.leaf.Leaf.NotAfter.Add(-p.leafRenew))

	if root.Equal(ca.Cert) && len(s.m.roots) > 1 {
		drop := s.m.leaf.Leaf.NotBefore.Add(pki.Backdate + p.overlap)
		if now.Before(drop) {
			later(drop)
		} else {
			s.m.roots = []*x509.Certificate{ca.Cert}
			change("older CAs are no longer needed")
		}
	}
	if !s.write && len(s.m.roots) != len(stored.roots) {
		change("CAs have expired")
	}
	return s, nil
}
