package cli

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/podkey/podkey/internal/pki"
)

// podkey runs a command line and returns its exit status and what it said.
func podkey(t *testing.T, args ...string) (status int, out, talk string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(t.Context(), args, IO{In: strings.NewReader(""), Out: &o, Err: &e})
	return status, o.String(), e.String()
}

func testRoot(t *testing.T, name string) []byte {
	t.Helper()
	ca, err := pki.NewCA(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca.CertPEM()
}

func TestTrust(t *testing.T) {
	own, root := testRoot(t, "Podkey's"), testRoot(t, "the machine's")
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, root, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PODKEY_CA", string(own))
	t.Setenv("SSL_CERT_DIR", "")
	for name, c := range map[string]struct {
		roots string
		want  []string
		says  string
	}{
		"with system roots":    {roots, []string{"Podkey's", "the machine's"}, "system roots: 1"},
		"without system roots": {empty, []string{"Podkey's"}, "no system roots"},
	} {
		t.Setenv("SSL_CERT_FILE", c.roots)
		dir := filepath.Join(t.TempDir(), "trust")
		if status, _, talk := podkey(t, "trust", "--to", dir); status != 0 || !strings.Contains(talk, c.says) {
			t.Errorf("%s: status %d, %q", name, status, talk)
			continue
		}
		bundle, err := os.ReadFile(filepath.Join(dir, "ca-bundle.pem"))
		if err != nil {
			t.Fatal(err)
		}
		p12, err := os.ReadFile(filepath.Join(dir, "truststore.p12"))
		if err != nil {
			t.Fatal(err)
		}
		store, err := pkcs12.DecodeTrustStore(p12, "changeit")
		if err != nil {
			t.Fatal(err)
		}
		var inBundle, inStore []string
		for _, crt := range pki.Certificates(bundle) {
			inBundle = append(inBundle, crt.Subject.CommonName)
		}
		for _, crt := range store {
			inStore = append(inStore, crt.Subject.CommonName)
		}
		if d := cmp.Diff(c.want, inBundle); d != "" {
			t.Errorf("%s: bundle (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(c.want, inStore); d != "" {
			t.Errorf("%s: trust store (-want +got):\n%s", name, d)
		}
		for _, file := range []string{"ca-bundle.pem", "truststore.p12"} {
			if fi, err := os.Stat(filepath.Join(dir, file)); err != nil || fi.Mode() != 0o644 {
				t.Errorf("%s: %s has mode %v, %v", name, file, fi.Mode(), err)
			}
		}
	}
}

func TestTrustRefuses(t *testing.T) {
	const leaked = "c2VjcmV0LWtleS1ieXRlcw=="
	dir := filepath.Join(t.TempDir(), "trust")
	for name, c := range map[string]struct{ ca, says string }{
		"nothing":   {"", "no PEM certificate"},
		"a path":    {"/etc/podkey/ca.pem", "no PEM certificate"},
		"a key too": {string(testRoot(t, "ca")) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret-key-bytes")})), "private key"},
	} {
		t.Setenv("PODKEY_CA", c.ca)
		status, out, talk := podkey(t, "trust", "--to", dir)
		if status != 1 || !strings.Contains(talk, c.says) || !strings.Contains(talk, "PODKEY_CA") || strings.Contains(out+talk, leaked) {
			t.Errorf("%s: status %d, %q", name, status, talk)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was written", name)
		}
	}
	if status, _, _ := podkey(t, "trust"); status != 2 {
		t.Errorf("without a directory: status %d", status)
	}
}
