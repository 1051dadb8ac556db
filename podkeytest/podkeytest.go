// Package podkeytest runs the whole of Podkey inside a Go test.
//
// [Start] gives a test its own token service, management API and key vaults:
// the real server over TLS on a loopback port, with its real store in a
// temporary directory, gone when the test ends. Every check is real. A test
// declares the vaults and identities it needs, and hands [Podkey.Client] to
// any Azure SDK as its transport: the client reaches the server under Azure's
// own names, so that the code under test needs no change.
//
//	p := podkeytest.Start(t, podkeytest.Options{Declare: `
//	    identities:
//	      - name: app
//	        resourceGroup: test
//	        federatedCredentials:
//	          - {name: web, namespace: shop, serviceAccount: web}
//	    vaults:
//	      - name: shop-vault
//	        resourceGroup: test
//	        access:  [{identity: app, role: Key Vault Secrets User}]
//	        secrets: [{name: db-password, value: hunter2}]
//	`})
//	cred, _ := azidentity.NewClientAssertionCredential(p.TenantID, p.Identity("app").ClientID,
//	    p.Assertion("shop", "web"), &azidentity.ClientAssertionCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: p.Client}})
//	client, _ := azsecrets.NewClient(p.VaultURL("shop-vault"), cred, &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: p.Client}})
//
// The form of a declaration is that of `podkey bootstrap`.
package podkeytest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/bootstrap"
	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server"
)

// Options of a test's server. The zero value is fine.
type Options struct {
	Declare string    // what the server holds from the start, YAML
	Now     time.Time // where the clock begins; the real time if zero
	Dir     string    // data directory; a temporary one if empty. Use it to start again on the same data

	// TokenAlgorithm RS256 signs every token so, for code that insists on it.
	TokenAlgorithm string
	// FederatedLimit is the largest number of federated credentials of one
	// identity; Azure's is 20.
	FederatedLimit int
	// LoopbackIssuers lets federated credentials name issuers on this machine,
	// also by http, such as an httptest server's.
	LoopbackIssuers bool
	// Verbose writes the server's log to the test's.
	Verbose bool

	log io.Writer
}

// Podkey is a running server.
type Podkey struct {
	TenantID       string // the tenant of everything declared
	SubscriptionID string
	ClientID       string // the operator's application, Owner of everything
	ClientSecret   string
	ObjectID       string // the operator's service principal
	Issuer         string // issuer URL of the built-in cluster, with its closing slash
	Authority      string // https://login.microsoftonline.com/
	DataDir        string // for `podkey exec --data` and `podkey run --data`

	// Client reaches the server under Azure's names and Podkey's own, and
	// nothing else. It trusts the server's CAs alone. As it has a Do method it
	// is a transport for every Azure SDK.
	Client *http.Client

	// Clock is the server's clock. Tokens, deadlines and retention follow it.
	Clock *Clock

	api       *client.Client
	ctx       context.Context // the server's life
	cancel    func()
	done      chan error
	temporary bool            // DataDir is ours to remove
	fatal     func(err error) // does not return
}

// Start runs a server until the test ends. It fails the test if the server
// does not start or the declaration is not right.
func Start(t testing.TB, o Options) *Podkey {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Verbose {
		o.log = t.Output()
	}
	p, err := New(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatalf("podkeytest: %v", err)
	}
	p.fatal = func(err error) {
		t.Helper()
		t.Fatalf("podkeytest: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("podkeytest: the server failed: %v", err)
		}
	})
	return p
}

// New is [Start] for TestMain and examples: the caller must call
// [Podkey.Close]. Methods that would fail the test panic instead.
func New(ctx context.Context, o Options) (_ *Podkey, err error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Podkey{
		Authority: "https://login.microsoftonline.com/", DataDir: o.Dir, Clock: NewClock(o.Now), ctx: ctx, cancel: cancel,
		fatal: func(err error) { panic("podkeytest: " + err.Error()) },
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.DataDir == "" {
		if p.DataDir, err = os.MkdirTemp("", "podkeytest-"); err != nil {
			return nil, err
		}
		p.temporary = true
	}
	if o.log == nil {
		o.log = io.Discard
	}
	s, err := server.New(ctx, server.Config{
		Data: p.DataDir, Listen: "127.0.0.1:0",
		Tokens: server.TokenConfig{Algorithm: o.TokenAlgorithm, FederatedLimit: o.FederatedLimit},
		Issuer: server.IssuerConfig{AllowLoopback: o.LoopbackIssuers},
	}, server.Deps{Log: slog.New(slog.NewTextHandler(o.log, nil)), Now: p.Clock.Now})
	if err != nil {
		return nil, err
	}
	p.done = make(chan error, 1)
	go func() { p.done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-p.done:
		p.done = nil
		return nil, err
	}
	if err := p.connect(s.Operator()); err != nil {
		return nil, err
	}
	if o.Declare != "" {
		if err := p.declare(o.Declare); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// connect fills in what the operator's file says.
func (p *Podkey) connect(op client.Operator) error {
	p.TenantID, p.SubscriptionID = op.TenantID, op.SubscriptionID
	p.ClientID, p.ClientSecret, p.ObjectID = op.ClientID, op.ClientSecret, op.ObjectID
	p.Issuer = op.Endpoints.Issuer
	roots := x509.NewCertPool()
	for _, file := range []string{op.CAFile, op.AzureCAFile} {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + file)
		}
	}
	p.api = client.New(op, roots)
	p.api.Now = p.Clock.Now
	p.Client = p.api.HTTP
	return nil
}

// Close ends the server. It is for those who called [New].
func (p *Podkey) Close() error {
	p.cancel()
	var err error
	if p.Client != nil {
		p.Client.CloseIdleConnections()
	}
	if p.done != nil {
		err = <-p.done
		p.done = nil
	}
	if p.temporary {
		err = errors.Join(err, os.RemoveAll(p.DataDir))
	}
	return err
}

// Declare makes the server hold more.
func (p *Podkey) Declare(yaml string) {
	if err := p.declare(yaml); err != nil {
		p.fatal(err)
	}
}

func (p *Podkey) declare(yaml string) error {
	f, err := bootstrap.Parse([]byte(yaml))
	if err != nil {
		return fmt.Errorf("the declaration is wrong: %w", err)
	}
	return bootstrap.Apply(p.ctx, p.api, f, func(bootstrap.Step) {})
}

// VaultURL is a vault's URL under Azure's names.
func (p *Podkey) VaultURL(name string) string { return "https://" + name + ".vault.azure.net" }

// Identity is a user-assigned managed identity.
type Identity struct {
	ResourceID  string
	ClientID    string
	PrincipalID string
}

// Identity finds a declared identity by name; the test fails if there is none.
func (p *Podkey) Identity(name string) Identity {
	all, err := p.api.Identities(p.ctx)
	if err != nil {
		p.fatal(err)
	}
	for _, id := range all {
		if id.Name == name {
			return Identity{id.ID, id.Properties.ClientID, id.Properties.PrincipalID}
		}
	}
	p.fatal(fmt.Errorf("there is no identity %q", name))
	return Identity{}
}

// ServiceAccountToken returns a token of a service account of the built-in
// cluster, such as the kubelet projects into a pod, for the given audiences;
// api://AzureADTokenExchange without any.
func (p *Podkey) ServiceAccountToken(namespace, account string, audience ...string) string {
	token, err := p.serviceAccountToken(p.ctx, namespace, account, audience...)
	if err != nil {
		p.fatal(err)
	}
	return token
}

func (p *Podkey) serviceAccountToken(ctx context.Context, namespace, account string, audience ...string) (string, error) {
	aud := "api://AzureADTokenExchange"
	if len(audience) > 0 {
		aud = audience[0]
	}
	token, _, err := p.api.ServiceAccountToken(ctx, "local", namespace, account, aud, time.Hour)
	return token, err
}

// Assertion returns a callback for azidentity's ClientAssertionCredential that
// gives tokens of a service account.
func (p *Podkey) Assertion(namespace, account string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return p.serviceAccountToken(ctx, namespace, account) }
}

// Clock is a clock that runs only when told to. Safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock begins at start, or at the real time if start is zero.
func NewClock(start time.Time) *Clock {
	if start.IsZero() {
		start = time.Now()
	}
	return &Clock{now: start.Round(0)}
}

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
