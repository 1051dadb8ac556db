package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// Certificates parses every certificate in the PEM texts, in order and each
// once. Other blocks, text between blocks, and certificates that Go cannot
// parse are passed over: the roots that systems ship contain all three.
func Certificates(pems ...[]byte) []*x509.Certificate {
	var out []*x509.Certificate
	seen := map[[32]byte]bool{}
	for _, rest := range pems {
		for {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			sum := sha256.Sum256(b.Bytes)
			if b.Type != "CERTIFICATE" || seen[sum] {
				continue
			}
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				continue
			}
			seen[sum] = true
			out = append(out, c)
		}
	}
	return out
}

// Bundle is the certificates of the PEM texts as one PEM text, each once, with
// everything else left out. It is nil when there are none.
func Bundle(pems ...[]byte) []byte {
	var out []byte
	for _, c := range Certificates(pems...) {
		out = append(out, EncodeCertificates(c.Raw)...)
	}
	return out
}

// EncodeCertificates writes certificates, given in DER, as one PEM text.
func EncodeCertificates(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// ParseTrusted parses PEM text in which somebody says whom to trust: one or
// more certificates, and no other block. Unlike [Certificates] it passes
// nothing over but text between blocks: a certificate that is left out would
// be missed later, and a private key in such a place has leaked.
func ParseTrusted(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(text) > 0 {
		b, rest := pem.Decode(text)
		// pem.Decode goes on to the next block behind one that is damaged.
		begun := bytes.Count(text[:len(text)-len(rest)], []byte("-----BEGIN"))
		switch {
		case b == nil && begun == 0 && !bytes.Contains(rest, []byte("-----BEGIN")):
			text = nil
			continue
		case b == nil || begun != 1:
			return nil, errors.New("a PEM block is damaged")
		case strings.Contains(b.Type, "PRIVATE KEY"):
			return nil, errors.New("there is a private key where only certificates belong: replace it, others can have read it")
		case b.Type != "CERTIFICATE":
			return nil, fmt.Errorf("there is a PEM block %q, which is no certificate", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
		text = rest
	}
	if len(out) == 0 {
		return nil, errors.New("there is no PEM certificate")
	}
	return out, nil
}

// What [WriteTrust] calls its files. The password protects nothing, as the
// store holds public certificates; Java wants one, and this is the one that
// everybody uses.
const (
	TrustBundleFile    = "ca-bundle.pem"
	TrustStoreFile     = "truststore.p12"
	TrustStorePassword = "changeit"
)

// WriteTrust writes the certificates of the PEM texts into a directory, in
// the two forms that clients read: a PEM bundle and a PKCS#12 trust store.
// Each file is replaced in one step.
func WriteTrust(dir string, mode fs.FileMode, pems ...[]byte) (bundle, store string, err error) {
	p12, err := TrustStoreP12(TrustStorePassword, pems...)
	if err != nil {
		return "", "", err
	}
	bundle, store = filepath.Join(dir, TrustBundleFile), filepath.Join(dir, TrustStoreFile)
	if err := ReplaceFile(bundle, Bundle(pems...), mode); err != nil {
		return "", "", err
	}
	return bundle, store, ReplaceFile(store, p12, mode)
}

// ReplaceFile replaces a file in one step: a reader sees the old content or
// the new, and the mode is the one given whatever the umask. Nothing is
// synced: it is for files that nobody needs after their writer's machine or
// pod has died.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600 from the start
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// TrustStoreP12 is a PKCS#12 trust store, as Java reads it (8u301 and newer),
// of the certificates in the PEM texts. It holds nothing secret, so the
// password guards only against accidents.
func TrustStoreP12(password string, pems ...[]byte) ([]byte, error) {
	certs := Certificates(pems...)
	if len(certs) == 0 {
		return nil, errors.New("make trust store: no certificate")
	}
	b, err := pkcs12.Modern2023.EncodeTrustStoreEntries(trustEntries(certs), password)
	if err != nil {
		return nil, fmt.Errorf("make trust store: %w", err)
	}
	return b, nil
}

// trustEntries names each certificate by its fingerprint. Java keeps one entry
// per alias: roots that share a subject, as renewed ones do, must not share
// an alias.
func trustEntries(certs []*x509.Certificate) []pkcs12.TrustStoreEntry {
	entries := make([]pkcs12.TrustStoreEntry, len(certs))
	for i, c := range certs {
		entries[i] = pkcs12.TrustStoreEntry{Cert: c, FriendlyName: fmt.Sprintf("%x", sha256.Sum256(c.Raw))}
	}
	return entries
}

// systemFiles are where distributions keep their roots, the first that exists
// counts: Debian, Fedora and RHEL 6, openSUSE, OpenELEC, RHEL 7 and newer,
// Alpine and macOS.
var systemFiles = [...]string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// SystemRoots is a PEM bundle of the roots that this machine's programs
// trust: the file that SSL_CERT_FILE names, else the distribution's, and what
// is in the directories of SSL_CERT_DIR if that is set. It is nil when there
// are none; it is an error when a variable names something unreadable.
func SystemRoots() ([]byte, error) {
	return systemRoots(os.Getenv("SSL_CERT_FILE"), os.Getenv("SSL_CERT_DIR"), systemFiles[:])
}

func systemRoots(certFile, certDir string, files []string) ([]byte, error) {
	var pems [][]byte
	if certFile != "" {
		b, err := os.ReadFile(certFile)
		if err != nil {
			return nil, fmt.Errorf("read the roots of SSL_CERT_FILE: %w", err)
		}
		pems = append(pems, b)
	} else {
		for _, f := range files {
			b, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read the system's roots: %w", err)
			}
			pems = append(pems, b)
			break
		}
	}
	for dir := range strings.SplitSeq(certDir, string(filepath.ListSeparator)) {
		if dir == "" {
			continue
		}
		b, err := RootsIn(dir)
		if err != nil {
			return nil, fmt.Errorf("read the roots of SSL_CERT_DIR: %w", err)
		}
		pems = append(pems, b)
	}
	return Bundle(pems...), nil
}

// RootsIn is a PEM bundle of the certificates in a file, or in the files of a
// directory (not of those below it), which is what variables such as
// REQUESTS_CA_BUNDLE may name. A link in a directory that leads nowhere is
// passed over, as OpenSSL does.
func RootsIn(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		b, err := os.ReadFile(path)
		return Bundle(b), err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var pems [][]byte
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		fi, err := os.Stat(name)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		pems = append(pems, b)
	}
	return Bundle(pems...), nil
}
