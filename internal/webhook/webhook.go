// Package webhook is the process behind the admission webhooks: everything
// between the API server's call and the rules that decide what a pod gets.
//
// It owns the HTTPS listener and its drain, the serving certificate (made and
// rotated here and shared through a Secret, or supplied in files), the CA
// bundle in the webhook configurations, the cache of service accounts, health,
// metrics and events. The rules themselves are somebody else's ([Rules]); it
// reads of a review only what they report of it.
//
// It guarantees that no replica serves a certificate that the registered CA
// bundle does not cover while it has one that is covered, that a Secret or a
// configuration is only ever changed at the version that was read, that
// nothing in the path of an admission waits for an event, a metric or a
// write, and that a failing part shows in /readyz by name.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/podkey/podkey/internal/pki"
)

// Rules decide what happens to a reviewed object. Both methods take a raw
// AdmissionReview and return the raw answer to it, written over into if there is
// room; they are called concurrently, and keep neither. A nil answer means that
// the request was no review at all.
type Rules interface {
	// Mutate answers the mutating webhook.
	Mutate(ctx context.Context, review []byte, lookup LookupFunc, into []byte) ([]byte, Outcome)
	// Advise answers the validating webhook, which only warns.
	Advise(ctx context.Context, review []byte, lookup LookupFunc, into []byte) ([]byte, Outcome)
}

// Account is what the rules may know of a service account.
type Account struct {
	Namespace, Name, UID string
	Annotations          map[string]string // those that [Config] names
}

// LookupFunc finds a service account. When there is none, the error is
// [ErrNoAccount] and its text the API server's own.
type LookupFunc func(ctx context.Context, namespace, name string) (*Account, error)

// ErrNoAccount is the error of a [LookupFunc] for a service account that does
// not exist.
var ErrNoAccount = errors.New("service account not found")

// Outcome is what a review came to, for log, metrics and events.
type Outcome struct {
	Result string // from a closed set; it is a metric's label

	// For the log line. Empty where the review was not understood.
	UID, Kind, Namespace, Name, Account string
	Warnings                            int
	DryRun                              bool // then nothing is recorded in the cluster

	// Reason and Message are of the event that tells the user what is wrong,
	// such as "ClientIDMissing". An empty Reason means no event.
	Reason, Message string
	// Owner is the controller of the reviewed pod, if it has one.
	Owner *Object
}

// Object names an object of the cluster in an event.
type Object struct{ APIVersion, Kind, Namespace, Name, UID string }

// Config is what a [Server] needs to know. Kube, Rules, Log, MaxReview,
// Annotations, MaxAnnotation, Namespace, Service and Configuration must be
// set, and Secret unless CertDir is.
type Config struct {
	Kube *rest.Config
	Log  *slog.Logger

	// Rules makes the rules. It is called once, with the API server's version
	// as that names it ("1", "36+"), on which the shape of sidecars depends.
	Rules func(major, minor string) Rules

	// What the rules need: the size of the largest review that they read, which
	// annotations of service accounts, and so many bytes of each. A longer one
	// is cut, so they must refuse that length.
	MaxReview     int64
	Annotations   []string
	MaxAnnotation int

	Namespace     string // of the Service and the Secret
	Service       string // that the webhook configurations name
	Secret        string // with CA and serving certificate, shared by all replicas
	Configuration string // of the mutating and of the validating webhook configuration

	// CertDir, if set, has tls.crt and tls.key that somebody else renews, who
	// also keeps the CA bundle in the configurations: neither Secret nor
	// configurations are then written.
	CertDir string

	MinTLS uint16 // of crypto/tls; 0 means TLS 1.3

	// Addresses, such as ":9443".
	Listen, HealthListen, MetricsListen string

	// DrainDelay is how long the server goes on serving after it has said
	// that it is not ready: until then, the API server may still be sending
	// here.
	DrainDelay time.Duration

	// Jitter spreads writes by replicas that saw the same change. Each waits
	// for a random part of it, and then looks again.
	Jitter time.Duration

	Instance string           // this replica's name, in events
	Now      func() time.Time // clock of certificates and events; time.Now if nil
}

const (
	// How many reviews are answered at once. The API server has at most a few
	// hundred mutating requests in flight itself
	// (--max-mutating-requests-inflight is 200).
	maxMutating, maxAdvising = 512, 128

	maxLogged = 253 // of one of the caller's texts in a log line

	shutdownGrace = 10 * time.Second
)

// Server is the webhook's process. Create with [New]; run once.
type Server struct {
	config  Config
	log     *slog.Logger
	intake  *intake
	answers answers

	listener, health, metricsListener net.Listener

	registry *prometheus.Registry
	metrics  *metrics
	accounts *accounts
	keeper   *keeper
	recorder *recorder
	ready    *readiness

	rules    atomic.Pointer[Rules]
	prepared chan struct{} // closed when there are rules
	draining atomic.Bool
}

// New binds the addresses and assembles the server. Nothing is answered, and
// the API server is not asked, before Run.
func New(c Config) (_ *Server, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{intake: newIntake(maxConns), config: c, log: c.Log, registry: prometheus.NewRegistry(), prepared: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	kube := rest.CopyConfig(c.Kube)
	// The client's own limit of 5 requests a second is for clients that poll.
	// Here, each request is for something that happened, and the one burst,
	// pods of service accounts that the cache has not seen yet, must not
	// queue behind it: the API server's own fairness limits us.
	kube.QPS = -1
	if file := kube.BearerTokenFile; file != "" {
		// Left to itself, the client sends a token for a minute after its file
		// was replaced, even if it is refused. This one reads the file again
		// when it is.
		kube.BearerToken, kube.BearerTokenFile = "", ""
		kube.Wrap(transport.ResettableTokenSourceWrapTransport(transport.NewCachedFileTokenSource(file)))
	}
	client, err := rest.HTTPClientFor(kube)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(kube, client)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	meta, err := metadata.NewForConfigAndClient(kube, client)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	s.metrics = newMetrics(s.registry)
	s.accounts = newAccounts(meta, c, s.metrics)
	s.recorder = newRecorder(dyn, c, s.metrics)
	var files *pki.FileSource
	if c.CertDir != "" {
		files, err = pki.NewFileSource(filepath.Join(c.CertDir, "tls.crt"), filepath.Join(c.CertDir, "tls.key"), c.Log)
		if err != nil {
			return nil, err
		}
	}
	s.keeper = newKeeper(dyn, c, files, s.metrics)
	s.metrics.expiry(s.keeper)
	for _, l := range []struct {
		to   *net.Listener
		addr string
	}{{&s.listener, c.Listen}, {&s.health, c.HealthListen}, {&s.metricsListener, c.MetricsListen}} {
		if *l.to, err = net.Listen("tcp", l.addr); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", l.addr, err)
		}
	}
	s.ready = &readiness{server: s, ttl: time.Second}
	return s, nil
}

func (c Config) check() error {
	for name, v := range map[string]string{"namespace": c.Namespace, "service": c.Service, "configuration": c.Configuration} {
		if v == "" {
			return fmt.Errorf("the name of the %s is empty", name)
		}
	}
	if c.MaxReview <= 0 || len(c.Annotations) == 0 || c.MaxAnnotation <= 0 {
		return errors.New("what the rules need of reviews and annotations is not set")
	}
	if c.CertDir == "" && c.Secret == "" {
		return errors.New("the name of the secret is empty")
	}
	return nil
}

// Addr is where admission reviews are answered.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// HealthAddr is where /healthz and /readyz are answered.
func (s *Server) HealthAddr() net.Addr { return s.health.Addr() }

// MetricsAddr is where /metrics is answered.
func (s *Server) MetricsAddr() net.Addr { return s.metricsListener.Addr() }

// Run serves until ctx ends or a task fails. When ctx ends, it says that it is
// not ready, serves on for the drain delay, lets the reviews under way finish
// and returns nil.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	// Reviews during the drain need everything that others needed, so the
	// tasks do not end with ctx but after the drain.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)

	admission := s.admissionServer()
	health := newIntake(maxPlainConns).watch(plainServer(s.ready.handler(), s.log))
	observe := newIntake(maxPlainConns).watch(plainServer(s.metricsHandler(), s.log))
	g.Go(func() error { return serveUntilClosed(func() error { return admission.ServeTLS(s.listener, "", "") }) })
	g.Go(func() error { return serveUntilClosed(func() error { return health.Serve(s.health) }) })
	g.Go(func() error { return serveUntilClosed(func() error { return observe.Serve(s.metricsListener) }) })
	g.Go(func() error { s.accounts.run(work); return nil })
	g.Go(func() error { s.releaseFirstList(work); return nil })
	g.Go(func() error { s.keeper.run(work); return nil })
	g.Go(func() error { s.recorder.run(work); return nil })
	g.Go(func() error { s.prepareRules(work); return nil })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			s.drain(work, admission)
		case <-work.Done(): // a task failed
		}
		stop()
		return errors.Join(admission.Close(), health.Close(), observe.Close())
	})
	return g.Wait()
}

// drain takes this replica out of the Service before it stops answering.
func (s *Server) drain(ctx context.Context, admission *http.Server) {
	s.draining.Store(true)
	s.log.Info("draining", "delay", s.config.DrainDelay)
	select {
	case <-time.After(s.config.DrainDelay):
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	if err := admission.Shutdown(grace); err != nil {
		s.log.Warn("reviews were cut off at the end of the grace time", "error", err)
	}
}

// prepareRules asks the API server for its version and makes the rules. While
// it does not answer there is nothing to review either.
func (s *Server) prepareRules(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		v, err := serverVersion(ctx, s.config.Kube)
		if err == nil {
			s.log.Info("connected to the API server", "version", v.GitVersion)
			r := s.config.Rules(v.Major, v.Minor)
			s.rules.Store(&r)
			close(s.prepared)
			return
		}
		s.log.Warn("the API server did not tell its version, trying again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// releaseFirstList gives back what the first list of service accounts took: of
// each, little is kept, and nothing that comes later needs as much.
func (s *Server) releaseFirstList(ctx context.Context) {
	select {
	case <-s.accounts.controller.HasSyncedChecker().Done():
		debug.FreeOSMemory()
	case <-ctx.Done():
	}
}

func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		// Each scrape holds its whole answer in memory.
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	return mux
}

// plainServer is for the two listeners that everybody in the cluster may call.
func plainServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func serveUntilClosed(serve func() error) error {
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// close releases what New opened.
func (s *Server) close() {
	for _, l := range []net.Listener{s.listener, s.health, s.metricsListener} {
		if l != nil {
			l.Close()
		}
	}
}
