package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// readiness answers the health port. Anybody in the cluster may ask, as often
// as they like: the checks run once in ttl, for all who ask meanwhile.
type readiness struct {
	server *Server
	ttl    time.Duration

	mu   sync.Mutex
	at   time.Time
	last []check
}

// check is one line of the answer.
type check struct {
	name string
	note string // beside a check that passes
	err  error
}

func (r *readiness) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status := http.StatusOK
		var b strings.Builder
		for _, c := range r.checks() {
			switch {
			case c.err != nil:
				status = http.StatusServiceUnavailable
				fmt.Fprintf(&b, "[-] %s: %v\n", c.name, c.err)
			case c.note != "":
				fmt.Fprintf(&b, "[+] %s: %s\n", c.name, c.note)
			default:
				fmt.Fprintf(&b, "[+] %s\n", c.name)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, b.String())
	})
	return mux
}

// checks runs the checks, or repeats what they said a moment ago. That this
// replica is draining is never held back.
func (r *readiness) checks() []check {
	draining := check{name: "serving"}
	if r.server.draining.Load() {
		draining.err = errors.New("shutting down")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.at.IsZero() || now.Sub(r.at) >= r.ttl {
		// Not the caller's context: the answer is for everybody.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.last, r.at = r.run(ctx), now
	}
	return append([]check{draining}, r.last...)
}

func (r *readiness) run(ctx context.Context) []check {
	s := r.server
	cache := check{name: "service accounts"}
	if !s.accounts.synced() {
		cache.err = errors.New("not read from the API server yet")
	}
	rules := check{name: "rules"}
	if s.rules.Load() == nil {
		rules.err = errors.New("the API server has not told its version yet")
	}
	cert := check{name: "certificate"}
	reg := check{name: "registration"}
	if _, err := s.keeper.getCertificate(nil); err != nil {
		cert.err = err
	}
	seen, last := s.keeper.state()
	switch {
	case !s.keeper.synced():
		reg.err = errors.New("secret and webhook configurations were not read from the API server yet")
	case cert.err != nil:
		reg.err = errors.New("there is no certificate to register")
	default:
		reg.note, reg.err = r.registered(ctx, seen)
	}
	if reg.err != nil && last != nil {
		reg.err = fmt.Errorf("%w (%w)", reg.err, last)
	}
	return []check{cache, rules, cert, reg}
}

// registered shakes hands with our own listener as the API server does, by
// each CA bundle that a configuration has for us.
func (r *readiness) registered(ctx context.Context, seen bool) (note string, err error) {
	k := r.server.keeper
	tried := map[string]bool{}
	for _, reg := range k.registrations() {
		obj := reg.single.get()
		entries := k.entries(obj)
		if reg.single == k.mutating {
			switch {
			case obj == nil && seen:
				// No API server calls us. When the configuration comes back,
				// it is better to be there already.
				note = fmt.Sprintf("%s %s was deleted, nobody calls this webhook", reg.kind, k.config.Configuration)
			case obj == nil:
				return "", fmt.Errorf("%s %s does not exist", reg.kind, k.config.Configuration)
			case len(entries) == 0:
				return "", fmt.Errorf("%s %s has no webhook that calls service %s in namespace %s",
					reg.kind, k.config.Configuration, k.config.Service, k.config.Namespace)
			}
		}
		for _, e := range entries {
			if tried[string(e.bundle)] {
				continue
			}
			tried[string(e.bundle)] = true
			if err := r.handshake(ctx, e.bundle); err != nil {
				return "", fmt.Errorf("%s %s, webhook %s: %w", reg.kind, k.config.Configuration, e.name, err)
			}
		}
	}
	return note, nil
}

func (r *readiness) handshake(ctx context.Context, bundle []byte) error {
	s := r.server
	roots := pki.Certificates(bundle)
	if len(roots) == 0 {
		return errors.New("its caBundle is empty")
	}
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", loopback(s.listener.Addr()))
	if err != nil {
		return fmt.Errorf("connect to our own port: %w", err)
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{
		RootCAs: pool, ServerName: s.keeper.policy.names[0], Time: s.config.Now, MinVersion: tls.VersionTLS12,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("its caBundle does not accept the certificate that is served: %w", err)
	}
	return nil
}

// loopback is the address at which a listener on all addresses is reached.
func loopback(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: t.Port}).String()
}
