package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// FileSource serves a certificate from files that somebody else renews, such
// as cert-manager. It looks at the files at every handshake and reads them
// again when one has changed. While they do not make a pair, because only one
// of them has been replaced or an editor is half way, it goes on serving the
// last good pair.
type FileSource struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex
	cert *tls.Certificate
	seen [2]stamp // of the files that were last read, good or not
}

// stamp tells whether a file is still the one that was read. Kubernetes
// replaces a mounted secret by swapping a symbolic link, which changes what
// Stat sees at the same path.
type stamp struct {
	modified time.Time
	size     int64
	file     os.FileInfo
}

func stampOf(path string) (stamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{modified: fi.ModTime(), size: fi.Size(), file: fi}, nil
}

func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.modified.Equal(t.modified) && os.SameFile(s.file, t.file)
}

// NewFileSource reads a PEM chain, leaf first, and its PEM key. The error
// names the file that could not be used. The logger may be nil.
func NewFileSource(certFile, keyFile string, log *slog.Logger) (*FileSource, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &FileSource{certFile: certFile, keyFile: keyFile, log: log}
	if _, err := s.reload(); err != nil {
		return nil, fmt.Errorf("load server certificate: %w", err)
	}
	return s, nil
}

// GetCertificate is for [tls.Config]. It never fails: NewFileSource saw a good
// pair, and that is served until there is a better one.
func (s *FileSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed, err := s.reload()
	switch {
	case err != nil && changed:
		s.log.Warn("server certificate not reloaded, the old one stays",
			"certFile", s.certFile, "keyFile", s.keyFile, "error", err)
	case changed:
		s.log.Info("server certificate reloaded", "certFile", s.certFile, "notAfter", s.cert.Leaf.NotAfter)
	}
	return s.cert, nil
}

// reload reads the files if they differ from those seen last, and reports
// whether they did. The stamps are taken before reading: a file that changes
// in between is read again next time, never missed.
func (s *FileSource) reload() (changed bool, err error) {
	c, cerr := stampOf(s.certFile)
	k, kerr := stampOf(s.keyFile)
	if err := errors.Join(cerr, kerr); err != nil {
		gone := s.seen != [2]stamp{}
		s.seen = [2]stamp{}
		return gone, err
	}
	if s.seen[0].file != nil && s.seen[0].same(c) && s.seen[1].same(k) {
		return false, nil
	}
	s.seen = [2]stamp{c, k}
	cert, err := tls.LoadX509KeyPair(s.certFile, s.keyFile)
	if err != nil {
		return true, fmt.Errorf("%s and %s: %w", s.certFile, s.keyFile, err)
	}
	s.cert = &cert
	return true, nil
}
