package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"
)

func rootPEM(t testing.TB, name string) []byte {
	t.Helper()
	ca, err := NewCA(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca.CertPEM()
}

func names(certs []*x509.Certificate) []string {
	out := []string{}
	for _, c := range certs {
		out = append(out, c.Subject.CommonName)
	}
	return out
}

func TestBundle(t *testing.T) {
	a, b := rootPEM(t, "a"), rootPEM(t, "b")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	bad := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not one")})
	got := Bundle(a, bytes.Join([][]byte{[]byte("# a comment\n"), key, bad, b, a}, nil), nil)
	if d := cmp.Diff(string(a)+string(b), string(got)); d != "" {
		t.Errorf("bundle (-want +got):\n%s", d)
	}
	if Bundle(key, bad) != nil {
		t.Error("a bundle of nothing is not nil")
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(rootPEM(f, "a"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		once := Bundle(in)
		if !bytes.Equal(once, Bundle(once)) {
			t.Error("a bundle of a bundle differs from it")
		}
		if !bytes.Equal(once, Bundle(in, in)) {
			t.Error("a text given twice counts twice")
		}
	})
}

func TestTrustStoreP12(t *testing.T) {
	// The same subject twice, as a renewed root has it: both must be kept.
	in := [][]byte{rootPEM(t, "a"), rootPEM(t, "a"), rootPEM(t, "b")}
	store, err := TrustStoreP12("changeit", in...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pkcs12.DecodeTrustStore(store, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "a", "b"}, names(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	aliases := map[string]bool{}
	for _, e := range trustEntries(got) {
		aliases[e.FriendlyName] = true
	}
	if len(aliases) != 3 {
		t.Errorf("aliases %v: Java would drop an entry", aliases)
	}
	if _, err := pkcs12.DecodeTrustStore(store, "wrong"); err == nil {
		t.Error("opened with a wrong password")
	}
	if _, err := TrustStoreP12("changeit", nil); err == nil {
		t.Error("a store of nothing: Java would trust nobody, silently")
	}
}

func TestSystemRoots(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, rootPEM(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two, own := file("one"), file("two"), file("own")
	file("dir1/x")
	file("dir1/y")
	file("dir1/below/no")
	file("dir2/z")
	if err := os.Symlink("nowhere", filepath.Join(dir, "dir1/dangling")); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	dirs := filepath.Join(dir, "dir1") + ":" + filepath.Join(dir, "dir2") + ":"

	for _, tt := range []struct {
		name, certFile, certDir string
		files                   []string
		want                    []string
	}{
		{"first that exists", "", "", []string{none, one, two}, []string{"one"}},
		{"SSL_CERT_FILE instead", own, "", []string{one}, []string{"own"}},
		{"SSL_CERT_DIR as well", "", dirs, []string{one}, []string{"one", "dir1/x", "dir1/y", "dir2/z"}},
		{"both", own, dirs, []string{one}, []string{"own", "dir1/x", "dir1/y", "dir2/z"}},
		{"none", "", "", []string{none}, []string{}},
	} {
		b, err := systemRoots(tt.certFile, tt.certDir, tt.files)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, names(Certificates(b))); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
	if _, err := systemRoots(none, "", nil); err == nil {
		t.Error("SSL_CERT_FILE that is missing: no error")
	}
	if _, err := systemRoots("", none, nil); err == nil {
		t.Error("SSL_CERT_DIR that is missing: no error")
	}
	if _, err := SystemRoots(); err != nil {
		t.Errorf("this machine's roots: %v", err)
	}
}
