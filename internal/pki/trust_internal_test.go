package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestParseTrusted(t *testing.T) {
	a, b := rootPEM(t, "a"), rootPEM(t, "b")
	key := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("secret")})
	broken := []byte("-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n")
	got, err := ParseTrusted(bytes.Join([][]byte{a, []byte("# the next one\n"), b, []byte("\n")}, nil))
	if d := cmp.Diff([]string{"a", "b"}, names(got)); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for name, c := range map[string]struct{ text, err string }{
		"nothing":                       {"", "no PEM certificate"},
		"blanks":                        {" \n\n", "no PEM certificate"},
		"no PEM":                        {"MIIB", "no PEM certificate"},
		"a key":                         {string(key), "private key"},
		"a key behind a certificate":    {string(a) + string(key), "private key"},
		"a broken key":                  {string(broken), "damaged"},
		"a broken key and certificate":  {string(broken) + string(a), "damaged"},
		"a certificate and broken key":  {string(a) + string(broken), "damaged"},
		"an unfinished certificate":     {string(a) + string(b[:len(b)/2]), "damaged"},
		"another block":                 {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("k")})), "PUBLIC KEY"},
		"a block that says it and lies": {string(a) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("c")})), "certificate 2"},
	} {
		got, err := ParseTrusted([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, error %v; want one with %q", name, names(got), err, c.err)
		}
	}
}

func FuzzParseTrusted(f *testing.F) {
	a := rootPEM(f, "a")
	f.Add(a)
	f.Add(append([]byte("-----BEGIN PRIVATE KEY-----\n"), a...))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := ParseTrusted(in)
		if err != nil {
			return
		}
		if len(got) != bytes.Count(in, []byte("-----BEGIN")) {
			t.Errorf("%d certificates in %q", len(got), in)
		}
		if len(Certificates(in)) == 0 {
			t.Errorf("the lenient parser finds nothing in %q", in)
		}
	})
}

func TestWriteTrust(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, name := range []string{"a", "b"} { // twice: files are replaced
		ca := rootPEM(t, name)
		bundle, store, err := WriteTrust(dir, 0o644, ca)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(bundle)
		if err != nil || !bytes.Equal(got, ca) || bundle != filepath.Join(dir, "ca-bundle.pem") {
			t.Errorf("%s: %v, %q", bundle, err, got)
		}
		p12, err := os.ReadFile(store)
		if err != nil || store != filepath.Join(dir, "truststore.p12") {
			t.Fatal(store, err)
		}
		certs, err := pkcs12.DecodeTrustStore(p12, TrustStorePassword)
		if d := cmp.Diff([]string{name}, names(certs)); err != nil || d != "" {
			t.Errorf("trust store: %v (-want +got):\n%s", err, d)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: want two files and no leftovers", entries, err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode() != 0o644 {
			t.Errorf("%s: mode %v, %v", e.Name(), fi.Mode(), err)
		}
	}
	if _, _, err := WriteTrust(filepath.Join(dir, "none"), 0o644, rootPEM(t, "a")); err == nil {
		t.Error("a directory that is not there was written to")
	}
	if _, _, err := WriteTrust(dir, 0o644, []byte("nothing")); err == nil {
		t.Error("files without a certificate were written")
	}
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
