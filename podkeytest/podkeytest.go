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

	t   testing.TB
	api *client.Client
}

// Start runs a server until the test ends. It fails the test if the server
// does not start or the declaration is not right.
func Start(t testing.TB, o Options) *Podkey {
	t.Helper()
	dir := o.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	clock := NewClock(o.Now)
	var logTo io.Writer = io.Discard
	if o.Verbose {
		logTo = t.Output()
	}
	s, err := server.New(t.Context(), server.Config{
		Data: dir, Listen: "127.0.0.1:0",
		Tokens: server.TokenConfig{Algorithm: o.TokenAlgorithm, FederatedLimit: o.FederatedLimit},
		Issuer: server.IssuerConfig{AllowLoopback: o.LoopbackIssuers},
	}, server.Deps{Log: slog.New(slog.NewTextHandler(logTo, nil)), Now: clock.Now})
	if err != nil {
		t.Fatalf("podkeytest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("podkeytest: the server failed: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("podkeytest: %v", err)
	}
	op := s.Operator()
	p := &Podkey{
		TenantID: op.TenantID, SubscriptionID: op.SubscriptionID, ClientID: op.ClientID, ClientSecret: op.ClientSecret,
		ObjectID: op.ObjectID, Issuer: op.Endpoints.Issuer, Authority: "https://login.microsoftonline.com/", DataDir: dir,
		Clock: clock, t: t,
	}
	roots := x509.NewCertPool()
	for _, file := range []string{op.CAFile, op.AzureCAFile} {
		pem, err := os.ReadFile(file)
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			t.Fatalf("podkeytest: read CA %s: %v", file, err)
		}
	}
	p.api = client.New(op, roots)
	p.api.Now = clock.Now
	p.Client = p.api.HTTP
	t.Cleanup(p.Client.CloseIdleConnections)
	if o.Declare != "" {
		p.Declare(o.Declare)
	}
	return p
}

// Declare makes the server hold more.
func (p *Podkey) Declare(yaml string) {
	p.t.Helper()
	f, err := bootstrap.Parse([]byte(yaml))
	if err != nil {
		p.t.Fatalf("podkeytest: the declaration is wrong: %v", err)
	}
	if err := bootstrap.Apply(p.t.Context(), p.api, f, func(bootstrap.Step) {}); err != nil {
		p.t.Fatalf("podkeytest: %v", err)
	}
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
	p.t.Helper()
	all, err := p.api.Identities(p.t.Context())
	if err != nil {
		p.t.Fatalf("podkeytest: %v", err)
	}
	for _, id := range all {
		if id.Name == name {
			return Identity{id.ID, id.Properties.ClientID, id.Properties.PrincipalID}
		}
	}
	p.t.Fatalf("podkeytest: there is no identity %q", name)
	return Identity{}
}

// ServiceAccountToken returns a token of a service account of the built-in
// cluster, such as the kubelet projects into a pod, for the given audiences;
// api://AzureADTokenExchange without any.
func (p *Podkey) ServiceAccountToken(namespace, account string, audience ...string) string {
	p.t.Helper()
	token, err := p.serviceAccountToken(p.t.Context(), namespace, account, audience...)
	if err != nil {
		p.t.Fatalf("podkeytest: %v", err)
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
