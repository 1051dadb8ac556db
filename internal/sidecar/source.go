package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"golang.org/x/sync/singleflight"

	"github.com/podkey/podkey/internal/imds"
)

const (
	// maxCredentials is how many identities are remembered with their tokens.
	maxCredentials = 128

	// maxExchange is how long an exchange may take, however many wait for it.
	// Clients wait longer, so they are told.
	maxExchange = 15 * time.Second

	// What a client may ask with; real values are a tenth of it.
	maxClientID = 128
	maxResource = 1024

	// maxAssertion is far above what a service account's token takes.
	maxAssertion = 64 << 10

	publicCloud = "https://login.microsoftonline.com/"
)

// Source exchanges the pod's service-account token for access tokens. Set the
// fields before use; see [SourceFromEnv].
type Source struct {
	TenantID  string // of every identity
	ClientID  string // of the identity that is meant when none is named; may be empty
	TokenFile string // the pod's service-account token, read anew for each exchange
	Authority string // token service, https

	// TokenProxy sends exchanges to the endpoint of an identity binding, which
	// the SDK finds by AZURE_KUBERNETES_TOKEN_PROXY and what belongs to it.
	TokenProxy bool

	// Identities finds client ids by object id or ARM id, in lower case. What
	// is not here can only be asked for by client id.
	Identities map[string]string

	HTTP *http.Client // to the token service; one of our own if nil
	Log  *slog.Logger // told why there was no token, never of a token; nil is silent

	Now func() time.Time // clock; time.Now if nil

	flight singleflight.Group // exchanges, by client id and resource

	mu          sync.Mutex
	credentials map[string]*credential // by client id in lower case
}

// credential is an SDK's credential, which keeps the tokens that it got.
type credential struct {
	azcore.TokenCredential
	used time.Time
}

// SourceFromEnv reads what the webhook gives a container: AZURE_TENANT_ID,
// AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE, AZURE_AUTHORITY_HOST, and the
// variables of an identity binding. Nothing is asked of the network.
func SourceFromEnv(getenv func(string) string) (*Source, error) {
	s := &Source{
		TenantID: getenv("AZURE_TENANT_ID"), ClientID: getenv("AZURE_CLIENT_ID"),
		TokenFile: getenv("AZURE_FEDERATED_TOKEN_FILE"), Authority: getenv("AZURE_AUTHORITY_HOST"),
		TokenProxy: getenv("AZURE_KUBERNETES_TOKEN_PROXY") != "",
	}
	switch {
	case s.TenantID == "":
		return nil, errors.New("AZURE_TENANT_ID not set")
	case s.TokenFile == "":
		return nil, errors.New("AZURE_FEDERATED_TOKEN_FILE not set")
	}
	if s.Authority == "" {
		s.Authority = publicCloud
	}
	if u, err := url.Parse(s.Authority); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("AZURE_AUTHORITY_HOST must be an https URL")
	}
	// The SDK checks the rest when it makes a credential: better now than at
	// the first request.
	if _, err := s.newCredential("checked-at-start"); err != nil {
		return nil, err
	}
	return s, nil
}

// Token implements the Token of [imds.Handler].
func (s *Source) Token(ctx context.Context, a imds.Ask) (imds.Token, error) {
	id, err := s.identity(a)
	if err != nil {
		return imds.Token{}, err
	}
	if len(a.Resource) > maxResource || strings.ContainsFunc(a.Resource, unfit) {
		return imds.Token{}, invalid("invalid_resource", "The resource is malformed.")
	}
	// Whoever asks for the same thing meanwhile gets the same answer. The
	// exchange goes on when the first of them goes away.
	done := s.flight.DoChan(strings.ToLower(id)+" "+a.Resource, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxExchange)
		defer cancel()
		return s.exchange(ctx, id, a.Resource)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return imds.Token{}, r.Err
		}
		t := r.Val.(azcore.AccessToken)
		return imds.Token{Value: t.Token, ClientID: id, Expires: t.ExpiresOn}, nil
	case <-ctx.Done():
		return imds.Token{}, unavailable("The client went away.", 0)
	}
}

// identity finds the client id of the identity that is asked for.
func (s *Source) identity(a imds.Ask) (string, error) {
	id := a.ClientID
	for _, other := range []struct{ parameter, value string }{{"object_id", a.ObjectID}, {"mi_res_id", a.ResourceID}} {
		if other.value == "" {
			continue
		}
		if id = s.Identities[strings.ToLower(other.value)]; id == "" {
			return "", invalid("invalid_request", "Identity not found: the proxy was not told of this "+other.parameter+". Name the identity by client_id, or start the proxy with --identity.")
		}
	}
	if id == "" {
		id = s.ClientID
	}
	if id == "" {
		return "", invalid("invalid_request", "The client_id parameter or AZURE_CLIENT_ID environment variable must be set")
	}
	if len(id) > maxClientID || strings.ContainsFunc(id, unfit) {
		return "", invalid("invalid_request", "The client_id is malformed.")
	}
	return id, nil
}

// unfit is what neither a client id nor a resource may hold. A blank would
// make several scopes of one.
func unfit(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
}

// exchange gets a token from the credential, which asks the token service
// unless it has one that is good for minutes yet.
func (s *Source) exchange(ctx context.Context, clientID, resource string) (azcore.AccessToken, error) {
	cred, known, err := s.credential(clientID)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	w := new(witness)
	t, err := cred.GetToken(context.WithValue(ctx, witnessKey{}, w), policy.TokenRequestOptions{Scopes: []string{scope(resource)}})
	if err == nil {
		if !known {
			s.keep(clientID, cred)
		}
		return t, nil
	}
	refusal, cause := s.explain(err, w)
	s.log().WarnContext(ctx, "no token for a managed identity", "client", clientID, "resource", resource,
		"authority", s.Authority, "status", refusal.Status, "error", refusal.Code, "cause", redact(cause))
	return azcore.AccessToken{}, refusal
}

// scope is the scope of a resource. A closing slash is part of the resource
// and so of the token's audience: it stays, and makes two.
func scope(resource string) string {
	const all = "/.default"
	if strings.HasSuffix(resource, all) {
		return resource
	}
	return resource + all
}

// credential finds or makes an identity's credential.
func (s *Source) credential(clientID string) (c azcore.TokenCredential, known bool, err error) {
	key := strings.ToLower(clientID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.credentials[key]; c != nil {
		c.used = s.now()
		return c, true, nil
	}
	c, err = s.newCredential(clientID)
	return c, false, err
}

// keep remembers a credential that has got a token, in place of the one that
// was not used for the longest time. What was never given a token is not
// kept, so asking for many clients that do not exist displaces none that does.
func (s *Source) keep(clientID string, c azcore.TokenCredential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.ToLower(clientID)
	if s.credentials[key] != nil {
		return // two resources were asked for at once
	}
	if len(s.credentials) >= maxCredentials {
		oldest := ""
		for k, c := range s.credentials {
			if oldest == "" || c.used.Before(s.credentials[oldest].used) {
				oldest = k
			}
		}
		delete(s.credentials, oldest)
	}
	if s.credentials == nil {
		s.credentials = map[string]*credential{}
	}
	s.credentials[key] = &credential{c, s.now()}
}

func (s *Source) newCredential(clientID string) (azcore.TokenCredential, error) {
	client := s.HTTP
	if client == nil {
		client = tokenServiceClient
	}
	options := azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: s.Authority},
		Transport: transport{client},
		// The pod's client tries again, and is told when.
		Retry: policy.RetryOptions{MaxRetries: -1},
	}
	// Instance discovery asks Azure about authorities that the SDK does not
	// know. Ours was given to us by who runs the cluster.
	if s.TokenProxy {
		// The one credential that speaks to such an endpoint. It reads the
		// token file every ten minutes; the kubelet replaces it earlier than
		// that before it expires.
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: clientID, TenantID: s.TenantID, TokenFilePath: s.TokenFile,
			DisableInstanceDiscovery: true, EnableAzureProxy: true,
		})
	}
	return azidentity.NewClientAssertionCredential(s.TenantID, clientID, s.assertion, &azidentity.ClientAssertionCredentialOptions{
		ClientOptions: options, DisableInstanceDiscovery: true,
	})
}

// assertion reads the token file: also between the kubelet's renewals it can
// be replaced, and a stale one costs the pod its identity for minutes.
func (s *Source) assertion(ctx context.Context) (string, error) {
	f, err := os.Open(s.TokenFile)
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, maxAssertion)); err == nil {
			if text := strings.TrimSpace(string(b)); text != "" {
				return text, nil
			}
			err = fmt.Errorf("%s is empty", s.TokenFile)
		}
	}
	if w, ok := ctx.Value(witnessKey{}).(*witness); ok {
		w.tokenFile = err
	}
	return "", err
}

func (s *Source) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Source) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// tokenServiceClient obeys HTTPS_PROXY and SSL_CERT_FILE like every program
// in the pod. It follows no redirect: the assertion is for one service.
var tokenServiceClient = &http.Client{
	Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		IdleConnTimeout:       90 * time.Second,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// transport carries the requests of one exchange and leaves what became of
// them with its witness: the SDK makes text of errors.
type transport struct{ client *http.Client }

// Do implements policy.Transporter.
func (t transport) Do(r *http.Request) (*http.Response, error) {
	resp, err := t.client.Do(r)
	if w, ok := r.Context().Value(witnessKey{}).(*witness); ok && err != nil {
		w.network = err
	}
	return resp, err
}

type witnessKey struct{}

// witness is what happened during one exchange that its error does not tell.
type witness struct {
	network   error // no answer
	tokenFile error // no assertion
}
