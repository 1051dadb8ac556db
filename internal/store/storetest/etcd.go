package storetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/podkey/podkey/internal/store"
)

// Etcd is an etcd server of one member on a loopback address. It demands TLS
// client certificates of its own CA.
type Etcd struct {
	Endpoints []string
	CA        *CA
	server    *embed.Etcd
}

// NewEtcd starts an etcd server, which stops when the test ends. Its limits
// are those of an etcd that nobody has configured.
func NewEtcd(t testing.TB) *Etcd {
	t.Helper()
	dir := t.TempDir()
	e := &Etcd{CA: NewCA(t)}
	e.CA.Write(t, dir, "server")
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "storetest", filepath.Join(dir, "etcd")
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo.CertFile = filepath.Join(dir, "server.pem")
	cfg.ClientTLSInfo.KeyFile = filepath.Join(dir, "server-key.pem")
	cfg.ClientTLSInfo.TrustedCAFile = filepath.Join(dir, "ca.pem")
	cfg.ClientTLSInfo.ClientCertAuth = true
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	e.server = server
	e.Endpoints = []string{"https://" + server.Clients[0].Addr().String()}
	return e
}

// Open opens a store in the server without loading it. Its key-encryption key
// is dir/kek.json. Stores with the same prefix share their records.
func (e *Etcd) Open(t testing.TB, dir, prefix string) (*store.Store, error) {
	return store.Open(t.Context(), store.Options{
		Endpoints: e.Endpoints,
		TLS:       e.CA.ClientTLS(t),
		Prefix:    prefix,
		KEK:       store.KEKInFile(filepath.Join(dir, "kek.json")),
		Log:       Log(t),
	})
}

// Client returns a client of the server, for looking behind the store's back.
func (e *Etcd) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: e.Endpoints, TLS: e.CA.ClientTLS(t), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// CA is a certificate authority of a test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a certificate authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "storetest CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return ca
}

// ClientTLS returns what a client needs: a certificate of the CA, and trust
// in it.
func (ca *CA) ClientTLS(t testing.TB) *tls.Config {
	t.Helper()
	der, key := ca.issue(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// issue makes a certificate for 127.0.0.1 that servers and clients can use.
func (ca *CA) issue(t testing.TB) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "storetest"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// Write puts ca.pem, <name>.pem and <name>-key.pem into dir: etcd takes files.
func (ca *CA) Write(t testing.TB, dir, name string) {
	t.Helper()
	der, key := ca.issue(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"ca.pem":          {Type: "CERTIFICATE", Bytes: ca.cert.Raw},
		name + ".pem":     {Type: "CERTIFICATE", Bytes: der},
		name + "-key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
