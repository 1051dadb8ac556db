// Package server is the cloud side, assembled: the one place where stores,
// domains and planes are wired to each other.
//
// [New] opens the store and fills in the handlers; [Server.Run] runs a list of
// tasks (store watch, listener, key rotation, purge, work in clusters, audit
// sync) of which the first to fail stops all others, and waits for them.
// Nothing is started by a constructor. [hosts] is the map from host name to
// plane.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server/aks"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/deploy"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/graph"
	"github.com/podkey/podkey/internal/server/issuer"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/server/sts"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// Deps are what a server does not make itself.
type Deps struct {
	Log *slog.Logger     // required
	Now func() time.Time // clock of tokens, records and retention; time.Now if nil
}

// Server is an assembled server. Create with [New]; run once.
type Server struct {
	config Config
	log    *slog.Logger
	now    func() time.Time

	store     *store.Store
	audit     *audit.Log
	listener  net.Listener
	authority *authority
	settings  *store.Table[settings]
	directory *directory.Directory
	rbac      *rbac.RBAC
	sessions  *session.Sessions
	vaults    *keyvault.Vaults
	arm       *arm.Handler
	deploys   *deploy.Handler
	clusters  *aks.Clusters
	keys      *token.Keys
	verifier  *token.Verifier
	hosts     *hosts
	handler   http.Handler

	operator client.Operator // valid once ready is closed
	ready    chan struct{}
	serving  atomic.Bool
}

// New opens the store and assembles the server. The listener is bound, so
// that the port is known, but nothing is answered before Run.
func New(ctx context.Context, c Config, d Deps) (_ *Server, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Server{config: c.withDefaults(), log: d.Log, now: d.Now, ready: make(chan struct{})}
	if s.now == nil {
		s.now = time.Now
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.MkdirAll(s.config.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if s.store, err = openStore(ctx, s.config, s.log); err != nil {
		return nil, err
	}
	if s.audit, err = audit.Open(s.config.Audit.File, audit.Options{SyncEach: s.config.Audit.SyncEach, Now: s.now}); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", s.config.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s.config.Listen, err)
	}
	if s.config.Domain == "" {
		_, port, _ := net.SplitHostPort(s.listener.Addr().String())
		s.config.Domain = "podkey.localhost:" + port
	}
	if err := s.assemble(); err != nil {
		return nil, err
	}
	if err := s.store.Load(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// assemble declares all tables and fills in the planes: the map of the
// program.
func (s *Server) assemble() error {
	roots, err := issuerRoots(s.config.Issuer.CA)
	if err != nil {
		return err
	}
	own := web.OwnNames(s.config.Domain)
	azure := web.AzureNames(own)

	// Certificates are judged by the peers' clocks, which Deps.Now does not move.
	s.authority = newAuthority(s.store, time.Now)
	s.settings = store.NewTable[settings](s.store, "settings", store.TableOptions[settings]{Mode: store.Plain})
	s.keys = token.NewKeys(s.store, token.Options{Now: s.now, ForceRS256: s.config.Tokens.Algorithm == "RS256", Log: s.log})
	s.verifier = &token.Verifier{Keys: s.keys, Now: s.now}
	s.directory = directory.New(s.store, directory.Options{
		Now: s.now, FederatedLimit: s.config.Tokens.FederatedLimit, AllowLoopback: s.config.Issuer.AllowLoopback,
	})
	s.sessions = session.New(s.store, session.Options{Now: s.now, Log: s.log})
	s.rbac = rbac.New(s.store, s.directory, s.audit, rbac.Options{Now: s.now})
	s.vaults = keyvault.New(s.store, keyvault.Options{Now: s.now, Log: s.log, Audit: s.audit})

	if s.clusters, err = s.newClusters(); err != nil {
		return err
	}
	clusters := &issuer.Handler{
		Own: own, Keys: s.keys, Now: s.now, Pinned: s.clusters.Keys,
		Authenticate: s.authenticator(managementAudience(own, azure)),
		Authorize:    s.authorizeIssuer,
	}
	foreign := &token.Foreign{
		Registered: clusters.Registered, Now: s.now, RootCAs: roots, Log: s.log,
		AllowLoopback: s.config.Issuer.AllowLoopback, AllowPrivate: s.config.Issuer.AllowPrivate,
	}
	signIn, err := s.config.SignIn.signIn()
	if err != nil {
		return err
	}
	login := &sts.Handler{
		Directory: s.directory, Sessions: s.sessions, SignIn: signIn, Keys: s.keys, Foreign: foreign, Audit: s.audit, Now: s.now, Log: s.log,
		Own: own, Azure: azure, ServesLogin: s.servesLogin,
	}
	vault := &keyvault.Handler{
		Vaults: s.vaults, RBAC: s.rbac, Audit: s.audit,
		Authenticate: s.authenticator(vaultAudience(own, azure)),
	}
	s.arm = arm.New(s.store, arm.Options{
		Directory: s.directory, RBAC: s.rbac, Vaults: s.vaults, Audit: s.audit, Now: s.now, Log: s.log,
		Authenticate: s.authenticator(managementAudience(own, azure)),
	})
	s.clusters.Register(s.arm)
	s.deploys = deploy.New(s.store, s.arm, deploy.Options{Now: s.now, Log: s.log})

	directoryAPI := &graph.Handler{
		Directory: s.directory, RBAC: s.rbac, Audit: s.audit, Now: s.now,
		Authenticate: s.authenticator(graphAudience(own, azure)),
	}

	s.hosts = &hosts{
		domain: hostOf(s.config.Domain), own: own, azure: azure,
		login: login.Plane(), management: s.arm.Plane(), vault: vault.Plane(), issuer: clusters.Plane(),
		graph:   directoryAPI.Plane(),
		unknown: refuseAll("none", "UnknownHost", "This server does not answer for the requested host name."),
	}
	s.hosts.origin = s.hosts.originPlane()
	s.handler = s.health(&web.Edge{Log: s.log, Now: s.now, Route: s.hosts.route})
	return nil
}

// Handler answers every host; it is what the listener serves.
func (s *Server) Handler() http.Handler { return s.handler }

// Ready is closed when the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Operator is who the operator is and where the server answers: what
// operator.json says. Valid once Ready is closed.
func (s *Server) Operator() client.Operator { return s.operator }

// ReopenAudit opens the audit log's file anew, after a rotation moved it.
func (s *Server) ReopenAudit() error { return s.audit.Reopen() }

// Run serves until ctx ends or a task fails, then stops everything, waits for
// it and closes the store. It returns nil when ctx ended.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	// The store follows its watch until everything that writes has stopped.
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	storeDone := make(chan error, 1)
	go func() { storeDone <- s.store.Run(storeCtx) }()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.audit.Run(ctx) })
	g.Go(func() error {
		if err := s.prepare(ctx); err != nil {
			return err
		}
		g.Go(func() error { return s.keys.Run(ctx) })
		g.Go(func() error { return s.vaults.Run(ctx) })
		g.Go(func() error { return s.sessions.Run(ctx) })
		g.Go(func() error { return s.clusters.Run(ctx) })
		g.Go(func() error { return s.serve(ctx) })
		return nil
	})
	err := g.Wait()
	stopStore()
	return errors.Join(err, <-storeDone)
}

// serve answers requests until ctx ends, then lets those under way finish.
func (s *Server) serve(ctx context.Context) error {
	tlsConfig, err := s.tlsConfig(ctx)
	if err != nil {
		return err
	}
	h := &http.Server{
		Handler:           s.handler,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		s.serving.Store(false)
		s.deploys.Stop()
		err := h.Shutdown(grace)
		if err != nil {
			err = h.Close()
		}
		stopped <- err
	}()
	s.serving.Store(true)
	close(s.ready)
	if err := h.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}

// close releases what New opened.
func (s *Server) close() {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.store != nil {
		s.store.Close()
	}
	if s.audit != nil {
		if err := s.audit.Close(); err != nil {
			s.log.Error("closing the audit log failed", "error", err)
		}
	}
}

// health answers /healthz and /readyz on every host, before any plane.
// healthz says that the process lives, readyz that it can serve.
func (s *Server) health(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			_ = web.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
		case "/readyz":
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			if err := errors.Join(s.store.Ping(ctx), s.audit.Err()); err != nil || !s.serving.Load() {
				_ = web.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready"})
				return
			}
			_ = web.WriteJSON(w, http.StatusOK, map[string]string{"status": "ready"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// openStore opens the embedded or the external etcd.
func openStore(ctx context.Context, c Config, log *slog.Logger) (*store.Store, error) {
	o := store.Options{Log: log, Prefix: c.Etcd.Prefix, KEK: store.KEKInFile(c.KEK), Endpoints: c.Etcd.Endpoints}
	if len(c.Etcd.Endpoints) == 0 {
		o.Dir = etcdDir(c.Data)
		return store.Open(ctx, o)
	}
	pem, err := os.ReadFile(c.Etcd.CA)
	if err != nil {
		return nil, fmt.Errorf("read CA of etcd: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA of etcd: no certificate in %s", c.Etcd.CA)
	}
	cert, err := tls.LoadX509KeyPair(c.Etcd.Cert, c.Etcd.Key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate for etcd: %w", err)
	}
	o.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return store.Open(ctx, o)
}

// issuerRoots is the system's roots and those of an extra file.
func issuerRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read issuers' CA: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read issuers' CA: no certificate in %s", file)
	}
	return pool, nil
}
