package server

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"time"

	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/internal/store"
)

// Names of the two CAs in the store. They are apart so that a machine can
// trust Podkey's own names without trusting it for Azure's.
const (
	ownCA   = "own"
	azureCA = "azure"
)

// authority keeps the two CAs, sealed in the store.
type authority struct {
	table *store.Table[caRecord]
	store *store.Store
	now   func() time.Time
}

type caRecord struct {
	Cert []byte `json:"cert"` // DER
	Key  []byte `json:"key"`  // PKCS#8
}

func newAuthority(s *store.Store, now func() time.Time) *authority {
	return &authority{table: store.NewTable[caRecord](s, "authority", store.TableOptions[caRecord]{}), store: s, now: now}
}

// ensure returns a CA, made on the first start. Of several servers that start
// at once one makes it and all use it.
func (a *authority) ensure(ctx context.Context, name string) (*pki.CA, error) {
	var rec caRecord
	err := a.store.Update(ctx, func(tx *store.Tx) error {
		var ok bool
		var err error
		if rec, ok, err = a.table.Get(tx, name); err != nil || ok {
			return err
		}
		ca, err := newCA(name, a.now())
		if err != nil {
			return err
		}
		key, err := ca.MarshalKey()
		if err != nil {
			return err
		}
		rec = caRecord{Cert: ca.Cert.Raw, Key: key}
		return a.table.Put(tx, name, rec)
	})
	if err != nil {
		return nil, err
	}
	return pki.LoadCA(rec.Cert, rec.Key)
}

// newCA makes a CA. The one for Azure's names is good for these alone: even
// its key could not impersonate anybody else to a program that trusts it.
func newCA(name string, now time.Time) (*pki.CA, error) {
	if name == ownCA {
		return pki.NewCA("Podkey", now)
	}
	return pki.NewCA("Podkey, for Azure's names", now, azureDomains...)
}

// tlsConfig serves the certificate of the names that a client asks for.
func (s *Server) tlsConfig(ctx context.Context) (*tls.Config, error) {
	own, err := s.authority.ensure(ctx, ownCA)
	if err != nil {
		return nil, err
	}
	azure, err := s.authority.ensure(ctx, azureCA)
	if err != nil {
		return nil, err
	}
	ownCert, err := s.ownCertificate(own)
	if err != nil {
		return nil, err
	}
	azureCert := pki.NewSource(azure, pki.Leaf{DNSNames: azureDNSNames}, s.authority.now).GetCertificate
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if isAzureName(hello.ServerName) {
				return azureCert(hello)
			}
			return ownCert(hello)
		},
	}, nil
}

type getCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// ownCertificate is the operator's certificate from files, or one of our CA.
func (s *Server) ownCertificate(ca *pki.CA) (getCertificate, error) {
	if s.config.TLS.Cert != "" {
		f, err := pki.NewFileSource(s.config.TLS.Cert, s.config.TLS.Key, s.log)
		if err != nil {
			return nil, err
		}
		return f.GetCertificate, nil
	}
	d := s.hosts.domain
	leaf := pki.Leaf{
		DNSNames: []string{d, "*." + d, "*.vault." + d, "*.login." + d, "localhost"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, _, err := net.SplitHostPort(s.config.Listen); err == nil {
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() {
			leaf.IPs = append(leaf.IPs, ip)
		}
	}
	return pki.NewSource(ca, leaf, s.authority.now).GetCertificate, nil
}

// azureDomains are Azure's domains that the server answers for, with all
// names below them.
var azureDomains = []string{
	"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net",
	"management.azure.com", "management.core.windows.net", "graph.microsoft.com", "vault.azure.net",
}

// AzureDomains are Azure's domains that a server answers for, with all names
// below them.
func AzureDomains() []string { return slices.Clone(azureDomains) }

// azureDNSNames are Azure's names that the server answers for.
var azureDNSNames = []string{
	"login.microsoftonline.com", "*.login.microsoftonline.com", "login.microsoft.com", "*.login.microsoft.com",
	"login.windows.net", "sts.windows.net", "management.azure.com", "management.core.windows.net",
	"graph.microsoft.com", "*.vault.azure.net",
}
