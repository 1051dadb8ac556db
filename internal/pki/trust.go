package pki

import (
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
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
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
