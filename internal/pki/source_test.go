package pki_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// clock is a time that tests move.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock(t time.Time) *clock {
	c := new(clock)
	c.set(t)
	return c
}
func (c *clock) set(t time.Time) { c.at.Store(&t) }
func (c *clock) now() time.Time  { return *c.at.Load() }

func serial(t testing.TB, get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) string {
	t.Helper()
	c, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.String()
}

func TestSourceRenews(t *testing.T) {
	c := newClock(day0)
	s := pki.NewSource(newCA(t), pki.Leaf{DNSNames: []string{"a.example"}, Lifetime: 30 * time.Hour}, c.now)
	first := serial(t, s.GetCertificate)

	c.set(day0.Add(20*time.Hour - 2*time.Second))
	if serial(t, s.GetCertificate) != first {
		t.Error("replaced before two thirds of its life")
	}
	c.set(day0.Add(20 * time.Hour))
	second := serial(t, s.GetCertificate)
	if second == first {
		t.Error("not replaced at two thirds of its life")
	}
	if serial(t, s.GetCertificate) != second {
		t.Error("replaced again at once")
	}
	c.set(day0.Add(1000 * time.Hour))
	if serial(t, s.GetCertificate) == second {
		t.Error("an expired leaf was served")
	}
	c.set(day0)
	cert, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Leaf.NotBefore.After(day0) {
		t.Error("after the clock was set back, a leaf that is not yet valid was served")
	}
}

// A renewal that cannot be done is no outage while the old leaf is valid.
func TestSourceOutlivesItsCA(t *testing.T) {
	ca := newCA(t)
	c := newClock(ca.Cert.NotAfter.Add(-3 * time.Hour))
	s := pki.NewSource(ca, pki.Leaf{DNSNames: []string{"a.example"}}, c.now)
	first := serial(t, s.GetCertificate)
	c.set(ca.Cert.NotAfter.Add(-time.Second))
	if serial(t, s.GetCertificate) == first {
		t.Error("not renewed")
	}
	c.set(ca.Cert.NotAfter)
	if _, err := s.GetCertificate(nil); err == nil {
		t.Error("an expired leaf of an expired CA was served")
	}
}

// heldSigner is a CA's key that signs when hold returns.
type heldSigner struct {
	crypto.Signer
	hold func()
}

func (h heldSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	h.hold()
	return h.Signer.Sign(r, digest, o)
}

func TestSourceConcurrency(t *testing.T) {
	const callers = 16
	var (
		ca     = newCA(t)
		asked  atomic.Int64 // calls of now
		signed atomic.Int64
		gate   = make(chan struct{})
		at     = newClock(day0)
	)
	now := func() time.Time {
		asked.Add(1)
		return at.now()
	}
	hold := func() {
		signed.Add(1)
		<-gate
	}
	slow := &pki.CA{Cert: ca.Cert, Key: heldSigner{ca.Key, hold}}
	s := pki.NewSource(slow, pki.Leaf{DNSNames: []string{"a.example"}, Lifetime: 30 * time.Hour}, now)

	// At first there is nothing to serve: all wait, for one signature.
	get := func() string {
		c, err := s.GetCertificate(nil)
		if err != nil {
			return err.Error()
		}
		return c.Leaf.SerialNumber.String()
	}
	got := make(chan string, callers)
	for range callers {
		go func() { got <- get() }()
	}
	for asked.Load() < callers {
		runtime.Gosched()
	}
	for range 1000 {
		runtime.Gosched() // to where they wait
	}
	gate <- struct{}{}
	first := <-got
	for range callers - 1 {
		select {
		case again := <-got:
			if again != first {
				t.Error("two first leaves")
			}
		case gate <- struct{}{}:
			t.Fatal("a second leaf was signed")
		}
	}

	// At renewal one signs, and nobody else waits for it.
	at.set(day0.Add(21 * time.Hour))
	renewed := make(chan string)
	go func() { renewed <- get() }()
	for signed.Load() < 2 {
		runtime.Gosched()
	}
	for range callers {
		if get() != first {
			t.Error("not the old leaf during a renewal")
		}
	}
	close(gate)
	second := <-renewed
	if second == first || get() != second {
		t.Error("the new leaf is not served")
	}
	if n := signed.Load(); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

// handshake makes one connection and returns the leaf that the server sent.
func handshake(t testing.TB, addr string, roots *x509.CertPool, name string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func listen(t testing.TB, get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: get, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestSourceOverTLS(t *testing.T) {
	ca, err := pki.NewCA("Podkey test CA", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	s := pki.NewSource(ca, pki.Leaf{DNSNames: []string{"*.vault.podkey.localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, nil)
	addr := listen(t, s.GetCertificate)
	if a, b := handshake(t, addr, roots, "kv1.vault.podkey.localhost"), handshake(t, addr, roots, "127.0.0.1"); !a.Equal(b) {
		t.Error("two handshakes, two leaves")
	}
}

func writePair(t testing.TB, dir string, c *tls.Certificate) (certPEM, keyPEM []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tls.crt"), certPEM)
	write(t, filepath.Join(dir, "tls.key"), keyPEM)
	return certPEM, keyPEM
}

// write replaces a file by renaming, so that it is never the same file, even
// within one tick of the file system's clock.
func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFileSource(t *testing.T) {
	ca := newCA(t)
	one := issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}})
	two := issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}})
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	twoCert, twoKey := writePair(t, filepath.Join(dir, "two"), two)
	oneCert, _ := writePair(t, dir, one)

	var log bytes.Buffer
	s, err := pki.NewFileSource(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	is := func(when string, want *tls.Certificate) {
		t.Helper()
		if got := serial(t, s.GetCertificate); got != want.Leaf.SerialNumber.String() {
			t.Errorf("%s: the wrong certificate", when)
		}
	}
	is("at first", one)
	write(t, cert, twoCert)
	is("while only the certificate is new", one)
	is("and still", one)
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings for one bad pair:\n%s", n, log.String())
	}
	write(t, key, twoKey)
	is("when both are new", two)
	write(t, cert, []byte("-----BEGIN CERTIFICATE-----\ncut"))
	is("while the file is damaged", two)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	is("while the file is gone", two)
	write(t, cert, twoCert)
	is("when it is back", two)
	if bytes.Contains(log.Bytes(), []byte("PRIVATE")) {
		t.Errorf("the log tells of the key:\n%s", log.String())
	}
	write(t, cert, oneCert)
	is("with the certificate of another key", two)
}

// A mounted Kubernetes secret changes by swapping the link that its files are
// links through.
func TestFileSourceFollowsMountedSecret(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	one := issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}})
	two := issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}})
	writePair(t, filepath.Join(dir, "..one"), one)
	writePair(t, filepath.Join(dir, "..two"), two)
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..one", "..data")
	link("..data/tls.crt", "tls.crt")
	link("..data/tls.key", "tls.key")

	s, err := pki.NewFileSource(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if serial(t, s.GetCertificate) != one.Leaf.SerialNumber.String() {
		t.Error("the wrong certificate at first")
	}
	link("..two", "..data")
	if serial(t, s.GetCertificate) != two.Leaf.SerialNumber.String() {
		t.Error("the swap was not seen")
	}
}

func TestFileSourceRefuses(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	writePair(t, filepath.Join(dir, "a"), issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}}))
	writePair(t, filepath.Join(dir, "b"), issue(t, ca, pki.Leaf{DNSNames: []string{"a.example"}}))
	for name, f := range map[string][2]string{
		"missing":            {"none.crt", "none.key"},
		"a key of another":   {"a/tls.crt", "b/tls.key"},
		"certificate as key": {"a/tls.crt", "a/tls.crt"},
	} {
		_, err := pki.NewFileSource(filepath.Join(dir, f[0]), filepath.Join(dir, f[1]), nil)
		if err == nil || !strings.Contains(err.Error(), f[0]) {
			t.Errorf("%s: error %v does not name the file", name, err)
		}
	}
}
