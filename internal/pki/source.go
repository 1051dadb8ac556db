package pki

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"
)

// Source serves a leaf of a CA and replaces it when two thirds of its life are
// over. It renews on use, so it needs no goroutine; while one caller renews,
// the others are served the old leaf for as long as that is valid.
type Source struct {
	ca   *CA
	leaf Leaf
	now  func() time.Time

	renewing sync.Mutex
	current  atomic.Pointer[served]
}

// served is a certificate and the time from which it should be replaced.
type served struct {
	cert  *tls.Certificate
	renew time.Time
}

// valid reports whether clients whose clock agrees with ours accept it. A
// clock that was set back makes a leaf not yet valid, and so not valid.
func (s *served) valid(now time.Time) bool {
	return s != nil && !now.Before(s.cert.Leaf.NotBefore) && now.Before(s.cert.Leaf.NotAfter)
}

func (s *served) fresh(now time.Time) bool { return s.valid(now) && now.Before(s.renew) }

// NewSource returns a source that signs its first leaf when it is first asked.
// A nil now means [time.Now].
func NewSource(ca *CA, l Leaf, now func() time.Time) *Source {
	if now == nil {
		now = time.Now
	}
	return &Source{ca: ca, leaf: l, now: now}
}

// GetCertificate is for [tls.Config]. It fails only when there is no valid
// leaf and none can be signed; a renewal that fails before that is tried
// again at the next handshake.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := s.now()
	c := s.current.Load()
	if c.fresh(now) {
		return c.cert, nil
	}
	if c.valid(now) {
		if !s.renewing.TryLock() {
			return c.cert, nil
		}
	} else {
		s.renewing.Lock()
	}
	defer s.renewing.Unlock()

	if c = s.current.Load(); c.fresh(now) {
		return c.cert, nil
	}
	cert, err := s.ca.Issue(s.leaf, now)
	if err != nil {
		if c.valid(now) {
			return c.cert, nil
		}
		return nil, err
	}
	s.current.Store(&served{cert: cert, renew: now.Add(cert.Leaf.NotAfter.Sub(now) * 2 / 3)})
	return cert, nil
}
