package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/podkey/podkey/internal/imds"
	"github.com/podkey/podkey/internal/sidecar"
	"github.com/podkey/podkey/podkeytest"
)

const declaration = `
identities:
  - name: shop
    resourceGroup: shop
    federatedCredentials:
      - {name: web, namespace: shop, serviceAccount: web}
vaults:
  - name: shop-vault
    resourceGroup: shop
    access:  [{identity: shop, role: Key Vault Secrets User}]
    secrets: [{name: db-password, value: hunter2}]
`

const (
	vault     = "https://vault.azure.net"
	tokenPath = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + vault
	appSecret = "a-secret-of-this-pod"
)

// rig is a pod: a Podkey server, a token file and a proxy, which listens on a
// port of its own.
type rig struct {
	t       *testing.T
	podkey  *podkeytest.Podkey
	source  *sidecar.Source
	handler *imds.Handler
	origin  string
	log     *lockedBuffer

	down      atomic.Bool  // the token service cannot be reached
	exchanges atomic.Int64 // requests that reached its token endpoint
	said      strings.Builder
}

// lockedBuffer is written to by the server's goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, podkey: podkeytest.Start(t, podkeytest.Options{Declare: declaration}), log: new(lockedBuffer)}
	env := map[string]string{
		"AZURE_TENANT_ID": r.podkey.TenantID, "AZURE_CLIENT_ID": r.podkey.Identity("shop").ClientID,
		"AZURE_FEDERATED_TOKEN_FILE": filepath.Join(t.TempDir(), "azure-identity-token"), "AZURE_AUTHORITY_HOST": r.podkey.Authority,
	}
	var err error
	if r.source, err = sidecar.SourceFromEnv(func(name string) string { return env[name] }); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.source.Log, r.source.HTTP = log, &http.Client{Transport: r}
	r.handler = &imds.Handler{Token: r.source.Token, Metadata: true, Secret: appSecret, Log: log}
	r.write(r.podkey.ServiceAccountToken("shop", "web"))
	r.origin = serve(t, &sidecar.Server{Handler: r.handler, Log: log})
	t.Cleanup(func() {
		// Whatever happened, no assertion was told to anybody.
		b, err := os.ReadFile(r.source.TokenFile)
		assertion := strings.TrimSpace(string(b))
		if all := r.log.String() + r.said.String(); err == nil && assertion != "" && strings.Contains(all, assertion) {
			t.Error("the service account's token is in a log line or an answer")
		}
		if strings.Contains(r.log.String(), "eyJ") {
			t.Errorf("there is a token in the log: %s", r.log)
		}
	})
	return r
}

// serve runs a server until the test ends.
func serve(t *testing.T, s *sidecar.Server) (origin string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String()
}

// RoundTrip is the way to the token service, which can be cut.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.down.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if strings.HasSuffix(req.URL.Path, "/token") {
		r.exchanges.Add(1)
	}
	return r.podkey.Client.Transport.RoundTrip(req)
}

// write replaces the token file, as the kubelet does.
func (r *rig) write(token string) {
	r.t.Helper()
	next := r.source.TokenFile + ".next"
	if err := errors.Join(os.WriteFile(next, []byte(token), 0o600), os.Rename(next, r.source.TokenFile)); err != nil {
		r.t.Fatal(err)
	}
}

var asked = map[string]string{"Metadata": "true"}

// get asks the proxy and returns the answer, which must be a JSON object.
func (r *rig) get(path string, header map[string]string) (int, http.Header, map[string]string) {
	r.t.Helper()
	status, h, body := do(r.t, http.MethodGet, r.origin+path, header)
	r.said.WriteString(body)
	var m map[string]string
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		r.t.Fatalf("%s: HTTP %d %q: %v", path, status, body, err)
	}
	return status, h, m
}

func do(t *testing.T, method, url string, header map[string]string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// readSecret reads the vault's secret with a credential: the token is one
// that the vault takes.
func (r *rig) readSecret(cred azcore.TokenCredential) {
	r.t.Helper()
	c, err := azsecrets.NewClient(r.podkey.VaultURL("shop-vault"), cred, &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: r.podkey.Client, Retry: policy.RetryOptions{MaxRetries: -1},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := c.GetSecret(r.t.Context(), "db-password", "", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if *s.Value != "hunter2" {
		r.t.Errorf("the secret is %q", *s.Value)
	}
}

// toProxy is what proxy-init does, seen from the SDK: the metadata address is
// the proxy.
func (r *rig) toProxy() *http.Client {
	at := strings.TrimPrefix(r.origin, "http://")
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
		if to != "169.254.169.254:80" {
			return nil, fmt.Errorf("the SDK went to %s", to)
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at)
	}}}
}

func TestSDKOverMetadataAddress(t *testing.T) {
	r := newRig(t)
	for _, id := range []azidentity.ManagedIDKind{nil, azidentity.ClientID(r.podkey.Identity("shop").ClientID)} {
		cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
			ID: id, ClientOptions: azcore.ClientOptions{Transport: r.toProxy(), Retry: policy.RetryOptions{MaxRetries: -1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.readSecret(cred)
	}
	if n := r.exchanges.Load(); n != 1 {
		t.Errorf("%d exchanges for one identity and resource, want 1", n)
	}
}

func TestSDKOverAppService(t *testing.T) {
	r := newRig(t)
	t.Setenv("IDENTITY_ENDPOINT", r.origin+imds.AppServicePath)
	t.Setenv("IDENTITY_HEADER", appSecret)
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ID: azidentity.ClientID(r.podkey.Identity("shop").ClientID),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.readSecret(cred)
}

// TestOwnNames: an authority that no SDK knows is used as it is given, without
// a question to Azure about it, with the variable that podkey run --own-names
// sets and without it.
func TestOwnNames(t *testing.T) {
	r := newRig(t)
	b, err := os.ReadFile(filepath.Join(r.podkey.DataDir, "operator.json"))
	if err != nil {
		t.Fatal(err)
	}
	var operator struct {
		Endpoints struct {
			Login string `json:"login"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal(b, &operator); err != nil || operator.Endpoints.Login == "" {
		t.Fatal(err)
	}
	login := strings.TrimPrefix(operator.Endpoints.Login, "https://")
	for _, region := range []string{"", "podkey"} {
		t.Setenv("AZURE_REGIONAL_AUTHORITY_NAME", region)
		s := &sidecar.Source{
			TenantID: r.source.TenantID, ClientID: r.source.ClientID, TokenFile: r.source.TokenFile, Authority: operator.Endpoints.Login + "/",
			HTTP: &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
				if strings.TrimPrefix(req.URL.Host, "podkey.") != login {
					t.Errorf("region %q: a request went to %s", region, req.URL.Host)
				}
				return r.RoundTrip(req)
			})},
		}
		if got, err := s.Token(t.Context(), imds.Ask{Resource: vault}); err != nil || got.Value == "" {
			t.Errorf("region %q: %v", region, err)
		}
	}
}

func TestSDKByResourceID(t *testing.T) {
	r := newRig(t)
	id := r.podkey.Identity("shop")
	options := func(kind azidentity.ManagedIDKind) *azidentity.ManagedIdentityCredentialOptions {
		return &azidentity.ManagedIdentityCredentialOptions{ID: kind, ClientOptions: azcore.ClientOptions{Transport: r.toProxy(), Retry: policy.RetryOptions{MaxRetries: -1}}}
	}
	for _, kind := range []azidentity.ManagedIDKind{azidentity.ResourceID(id.ResourceID), azidentity.ObjectID(id.PrincipalID)} {
		r.source.Identities = nil
		unmapped, err := azidentity.NewManagedIdentityCredential(options(kind))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unmapped.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault + "/.default"}}); err == nil || !strings.Contains(err.Error(), "--identity") {
			t.Errorf("%T without a mapping: %v", kind, err)
		}
		r.source.Identities = map[string]string{strings.ToLower(id.ResourceID): id.ClientID, strings.ToLower(id.PrincipalID): id.ClientID}
		mapped, err := azidentity.NewManagedIdentityCredential(options(kind))
		if err != nil {
			t.Fatal(err)
		}
		r.readSecret(mapped)
	}
}

func TestRefusalsOfTheTokenService(t *testing.T) {
	r := newRig(t)
	right := r.podkey.ServiceAccountToken("shop", "web")
	for name, c := range map[string]struct{ token, resource, client, code, says string }{
		"another service account": {r.podkey.ServiceAccountToken("shop", "intruder"), vault, "", "invalid_client", "AADSTS700213"},
		"another audience":        {r.podkey.ServiceAccountToken("shop", "web", "api://other"), vault, "", "invalid_client", "AADSTS700212"},
		"unknown client":          {right, vault, "7f4a6a4e-7b61-4b50-a5a9-6d1f6f3a5a11", "unauthorized_client", "AADSTS700016"},
		"unknown resource":        {right, "api://nobody", "", "invalid_resource", "AADSTS500011"},
	} {
		r.write(c.token)
		status, _, m := r.get("/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+c.resource+"&client_id="+c.client, asked)
		if status != 400 || m["error"] != c.code || !strings.Contains(m["error_description"], c.says) || strings.ContainsAny(m["error_description"], "\r\n") {
			t.Errorf("%s: HTTP %d %v, want 400 %s with %s", name, status, m, c.code, c.says)
		}
		if strings.Contains(r.said.String(), c.token) || strings.Contains(r.log.String(), c.token) {
			t.Errorf("%s: the assertion was told", name)
		}
		if !strings.Contains(r.log.String(), c.says) {
			t.Errorf("%s: the log does not say why: %s", name, r.log)
		}
	}
	// What was refused is not remembered: the file is read anew.
	r.write(right + "\n")
	if status, _, m := r.get(tokenPath, asked); status != 200 {
		t.Errorf("after the right token is there: HTTP %d %v", status, m)
	}
}

// TestReplacedToken: an assertion that was good once is not kept, when the
// next exchange needs one.
func TestReplacedToken(t *testing.T) {
	r := newRig(t)
	if status, _, m := r.get(tokenPath, asked); status != 200 {
		t.Fatalf("HTTP %d %v", status, m)
	}
	r.write(r.podkey.ServiceAccountToken("shop", "intruder"))
	if status, _, m := r.get("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com", asked); status != 400 {
		t.Errorf("HTTP %d %v: the old assertion was used", status, m)
	}
	if status, _, m := r.get(tokenPath, asked); status != 200 {
		t.Errorf("HTTP %d %v: the access token is not remembered", status, m)
	}
}

func TestTokenServiceDownThenUp(t *testing.T) {
	r := newRig(t)
	r.down.Store(true)
	if status, _, body := do(t, "GET", r.origin+"/readyz", nil); status != 200 || body != "ok" {
		t.Errorf("ready without the token service: HTTP %d %q", status, body)
	}
	for range 2 {
		status, h, m := r.get(tokenPath, asked)
		if status != 503 || h.Get("Retry-After") != "2" || m["error"] != "temporarily_unavailable" || m["error_description"] != "The token service could not be reached." {
			t.Errorf("down: HTTP %d %v %v", status, h, m)
		}
	}
	if !strings.Contains(r.log.String(), "connection refused") {
		t.Errorf("the log does not say why: %s", r.log)
	}
	r.down.Store(false)
	status, _, m := r.get(tokenPath, asked)
	if status != 200 || m["access_token"] == "" {
		t.Fatalf("up: HTTP %d %v", status, m)
	}
	r.down.Store(true)
	if status, _, again := r.get(tokenPath, asked); status != 200 || again["access_token"] != m["access_token"] {
		t.Errorf("down again: HTTP %d, the same token %v", status, again["access_token"] == m["access_token"])
	}
}

func TestNoTokenFile(t *testing.T) {
	r := newRig(t)
	right := r.podkey.ServiceAccountToken("shop", "web")
	for name, spoil := range map[string]func() error{
		"missing": func() error { return os.Remove(r.source.TokenFile) },
		"empty":   func() error { return os.WriteFile(r.source.TokenFile, []byte("\n"), 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		status, h, m := r.get(tokenPath, asked)
		if status != 503 || h.Get("Retry-After") == "" || strings.Contains(m["error_description"], r.source.TokenFile) {
			t.Errorf("%s: HTTP %d %v", name, status, m)
		}
	}
	r.write(right)
	if status, _, m := r.get(tokenPath, asked); status != 200 {
		t.Errorf("HTTP %d %v", status, m)
	}
}

// TestUntrustedTokenService: the way is open, but not to who it should be.
func TestUntrustedTokenService(t *testing.T) {
	r := newRig(t)
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	stranger.StartTLS()
	defer stranger.Close()
	r.source.HTTP = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", stranger.Listener.Addr().String())
	}}}
	if status, _, m := r.get(tokenPath, asked); status != 503 || !strings.Contains(m["error_description"], "certificate") {
		t.Errorf("HTTP %d %v", status, m)
	}
}

// TestAnswersThatPodkeyNeverGives are those of a throttled or broken token
// service, or of a gateway before it: no real one can be made to give them.
func TestAnswersThatPodkeyNeverGives(t *testing.T) {
	r := newRig(t)
	assertion := r.podkey.ServiceAccountToken("shop", "web")
	var answer atomic.Pointer[func(http.ResponseWriter)]
	r.source.HTTP = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/token") {
			return r.RoundTrip(req)
		}
		w := httptest.NewRecorder()
		(*answer.Load())(w)
		resp := w.Result()
		resp.Request = req
		return resp, nil
	})}
	oauth := func(status int, retryAfter, code, description string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
		}
	}
	for name, c := range map[string]struct {
		answer                  func(http.ResponseWriter)
		status                  int
		retry, code, says, hush string
	}{
		"throttled":             {oauth(429, "7", "temporarily_unavailable", "AADSTS50196: loop"), 429, "7", "temporarily_unavailable", "AADSTS50196", ""},
		"throttled for long":    {oauth(429, "86400", "x", "y"), 429, "300", "temporarily_unavailable", "y", ""},
		"throttled, no time":    {oauth(429, "soon", "x", "y"), 429, "2", "temporarily_unavailable", "y", ""},
		"broken":                {oauth(503, "", "server_error", "AADSTS90033: transient"), 503, "2", "temporarily_unavailable", "AADSTS90033", ""},
		"broken, 400":           {oauth(400, "", "temporarily_unavailable", "AADSTS90024: later"), 503, "2", "temporarily_unavailable", "AADSTS90024", ""},
		"says the assertion":    {oauth(401, "", "invalid_client", "AADSTS7000219: bad '"+assertion+"'"), 400, "", "invalid_client", "'[token]'", assertion[:20]},
		"a code that is a text": {oauth(401, "", "<b>No</b>", "AADSTS1: no"), 400, "", "invalid_request", "AADSTS1", "<b>"},
		"a gateway's page": {func(w http.ResponseWriter) {
			w.WriteHeader(403)
			fmt.Fprint(w, "<html>the-internal-name ", assertion)
		}, 400, "", "invalid_request", "HTTP 403", "internal-name"},
		"a gateway's failure": {func(w http.ResponseWriter) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>the-internal-name")
		}, 503, "2", "temporarily_unavailable", "HTTP 502", "internal-name"},
	} {
		answer.Store(&c.answer)
		status, h, m := r.get(tokenPath, asked)
		told := m["error"] + " " + m["error_description"]
		if status != c.status || h.Get("Retry-After") != c.retry || m["error"] != c.code || !strings.Contains(told, c.says) || c.hush != "" && strings.Contains(told+r.log.String(), c.hush) {
			t.Errorf("%s: HTTP %d, Retry-After %q, %v; want %d, %q, %s with %q", name, status, h.Get("Retry-After"), m, c.status, c.retry, c.code, c.says)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestManyAtOnce: one exchange serves all who ask for the same while it runs,
// also when it fails, and goes on when the one that began it goes away.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte("assertion"), 0o600); err != nil {
			t.Fatal(err)
		}
		calls, release := 0, make(chan bool)
		s := &sidecar.Source{
			TenantID: "tenant", ClientID: "client", TokenFile: file, Authority: "https://login.microsoftonline.com/",
			HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				calls++
				select {
				case <-release:
					return nil, errors.New("no way there")
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			})},
		}
		ctx, cancel := context.WithCancel(t.Context())
		statuses := make(chan int, 64)
		ask := func(ctx context.Context) {
			_, err := s.Token(ctx, imds.Ask{Resource: vault})
			if refused, ok := errors.AsType[*imds.Error](err); ok {
				statuses <- refused.Status
			}
		}
		go ask(ctx)
		synctest.Wait()
		for range 31 {
			go ask(t.Context())
		}
		cancel()
		synctest.Wait()
		if n := len(statuses); n != 1 || calls != 1 {
			t.Errorf("%d answers and %d exchanges after the first went away, want 1 and 1", n, calls)
		}
		close(release)
		synctest.Wait()
		if n := len(statuses); n != 32 || calls != 1 {
			t.Errorf("%d answers of %d exchanges, want 32 of 1", n, calls)
		}
		for range len(statuses) {
			if status := <-statuses; status != 503 {
				t.Errorf("HTTP %d, want 503", status)
			}
		}
	})
}

// TestSlowTokenService: a client is told before it loses patience.
func TestSlowTokenService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte("assertion"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &sidecar.Source{
			TenantID: "tenant", ClientID: "client", TokenFile: file, Authority: "https://login.microsoftonline.com/",
			HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})},
		}
		start := time.Now()
		_, err := s.Token(t.Context(), imds.Ask{Resource: vault})
		if refused, ok := errors.AsType[*imds.Error](err); !ok || refused.Status != 503 || refused.RetryAfter == 0 {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("it took %v, want 15s", took)
		}
	})
}

// TestAudienceKeepsItsSlash: the resource decides what the token is for.
func TestAudienceKeepsItsSlash(t *testing.T) {
	r := newRig(t)
	for resource, scope := range map[string]string{
		vault: vault + "/.default", vault + "/.default": vault + "/.default", vault + "/": vault + "//.default",
	} {
		var got string
		r.source.HTTP = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/token") {
				b, err := io.ReadAll(req.Body)
				if err != nil {
					return nil, err
				}
				form, err := url.ParseQuery(string(b))
				if err != nil {
					return nil, err
				}
				got = form.Get("scope")
				return nil, errors.New("enough was seen")
			}
			return r.RoundTrip(req)
		})}
		r.get("/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+resource, asked)
		if scopes := strings.Fields(got); len(scopes) == 0 || scopes[0] != scope {
			t.Errorf("%s: scope %q, want %q first", resource, got, scope)
		}
	}
}

// TestAttacks are requests that something in the pod could be talked into, or
// that try to get past the checks: none has a token.
func TestAttacks(t *testing.T) {
	r := newRig(t)
	with := func(k, v string) map[string]string { return map[string]string{"Metadata": "true", k: v} }
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		status       int
	}{
		"no Metadata header":       {"GET", tokenPath, nil, 400},
		"forwarded":                {"GET", tokenPath, with("X-Forwarded-For", "10.0.0.1"), 400},
		"forwarded, empty":         {"GET", tokenPath, with("X-Forwarded-For", ""), 400},
		"DNS rebinding":            {"GET", tokenPath, with("Host", "attacker.example:8000"), 403},
		"DNS rebinding, localhost": {"GET", tokenPath, with("Host", "localhost.attacker.example"), 403},
		"POST":                     {"POST", tokenPath, asked, 405},
		"oversized query":          {"GET", tokenPath + "&x=" + strings.Repeat("x", 64<<10), asked, 431},
		"oversized resource":       {"GET", tokenPath + strings.Repeat("x", 2000), asked, 400},
		"oversized client":         {"GET", tokenPath + "&client_id=" + strings.Repeat("x", 200), asked, 400},
		"two scopes in one":        {"GET", tokenPath + "/.default%20https://management.azure.com", asked, 400},
		"lines in the client":      {"GET", tokenPath + "&client_id=a%0d%0ab", asked, 400},
		"bytes that are no text":   {"GET", tokenPath + "%ff", asked, 400},
		"other metadata":           {"GET", "/metadata/instance?api-version=2021-02-01", asked, 404},
		"app service, no secret":   {"GET", imds.AppServicePath + "?api-version=2019-08-01&resource=" + vault, asked, 401},
	} {
		status, _, body := do(t, c.method, r.origin+c.path, c.header)
		if status != c.status || strings.Contains(body, "access_token") {
			t.Errorf("%s: HTTP %d %s, want %d", name, status, body, c.status)
		}
	}
	if n := r.exchanges.Load(); n != 0 {
		t.Errorf("%d exchanges for nobody", n)
	}
	// Where the header is not asked for, the rest still is.
	r.handler.HeaderOptional = true
	if status, _, body := do(t, "GET", r.origin+tokenPath, map[string]string{"X-Forwarded-For": "10.0.0.1"}); status != 400 {
		t.Errorf("forwarded, header optional: HTTP %d %s", status, body)
	}
	if status, _, _ := do(t, "GET", r.origin+tokenPath, nil); status != 200 {
		t.Errorf("header optional: HTTP %d", status)
	}
}

func TestNoClient(t *testing.T) {
	r := newRig(t)
	r.source.ClientID = ""
	if status, _, m := r.get(tokenPath, asked); status != 400 || m["error_description"] != "The client_id parameter or AZURE_CLIENT_ID environment variable must be set" {
		t.Errorf("no client: HTTP %d %v", status, m)
	}
	if status, _, m := r.get("/metadata/identity/oauth2/token?api-version=2018-02-01", asked); status != 400 || m["error_description"] != "The resource parameter is required." {
		t.Errorf("no resource: HTTP %d %v", status, m)
	}
}

// TestIdentityBinding sends the exchange to the endpoint of an identity
// binding, which here passes it on to the server.
func TestIdentityBinding(t *testing.T) {
	r := newRig(t)
	var paths lockedBuffer
	endpoint := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintln(&paths, req.URL.Path)
		req.URL.Path = strings.TrimPrefix(req.URL.Path, "/binding")
		to, err := http.NewRequestWithContext(req.Context(), req.Method, "https://login.microsoftonline.com"+req.URL.RequestURI(), req.Body)
		if err != nil {
			t.Error(err)
			return
		}
		to.Header = req.Header
		resp, err := r.podkey.Client.Do(to)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer endpoint.Close()
	t.Setenv("AZURE_TENANT_ID", r.source.TenantID)
	t.Setenv("AZURE_CLIENT_ID", r.source.ClientID)
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", r.source.TokenFile)
	t.Setenv("AZURE_AUTHORITY_HOST", r.source.Authority)
	t.Setenv("AZURE_KUBERNETES_TOKEN_PROXY", endpoint.URL+"/binding")
	t.Setenv("AZURE_KUBERNETES_CA_DATA", certificate(endpoint))
	s, err := sidecar.SourceFromEnv(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Token(t.Context(), imds.Ask{Resource: vault})
	if err != nil || got.Value == "" {
		t.Fatal(err)
	}
	if !strings.Contains(paths.String(), "/binding/"+r.source.TenantID+"/oauth2/v2.0/token") {
		t.Errorf("the endpoint was asked for %q", paths.String())
	}
	endpoint.Close()
	_, err = s.Token(t.Context(), imds.Ask{Resource: "https://management.azure.com"})
	if refused, ok := errors.AsType[*imds.Error](err); !ok || refused.Status != 503 {
		t.Errorf("without the endpoint: %v", err)
	}
}

func TestSourceFromEnv(t *testing.T) {
	good := map[string]string{"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/f", "AZURE_AUTHORITY_HOST": "https://login.example/"}
	for name, c := range map[string]struct{ variable, value, says string }{
		"no tenant":               {"AZURE_TENANT_ID", "", "AZURE_TENANT_ID not set"},
		"tenant is a path":        {"AZURE_TENANT_ID", "a/b", "tenant"},
		"no token file":           {"AZURE_FEDERATED_TOKEN_FILE", "", "AZURE_FEDERATED_TOKEN_FILE not set"},
		"authority without TLS":   {"AZURE_AUTHORITY_HOST", "http://login.example/", "AZURE_AUTHORITY_HOST"},
		"authority with password": {"AZURE_AUTHORITY_HOST", "https://user:secret@login.example/", "AZURE_AUTHORITY_HOST"},
	} {
		_, err := sidecar.SourceFromEnv(func(n string) string {
			if n == c.variable {
				return c.value
			}
			return good[n]
		})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q in it", name, err, c.says)
		}
	}
	s, err := sidecar.SourceFromEnv(func(n string) string {
		return map[string]string{"AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "/f"}[n]
	})
	if err != nil || s.Authority != "https://login.microsoftonline.com/" || s.ClientID != "" {
		t.Errorf("the least that is needed: %+v, %v", s, err)
	}
}

func TestProbe(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	if err := sidecar.Probe(t.Context(), s.URL, 3, time.Millisecond); err != nil {
		t.Errorf("ready at the third try: %v", err)
	}
	asked.Store(0)
	if err := sidecar.Probe(t.Context(), s.URL, 2, time.Millisecond); err == nil || !strings.Contains(err.Error(), "HTTP 503") {
		t.Errorf("not ready in two tries: %v", err)
	}
	gone := s.URL
	s.Close()
	if err := sidecar.Probe(t.Context(), gone, 3, time.Millisecond); err == nil || !strings.Contains(err.Error(), "after 3 tries") {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sidecar.Probe(ctx, gone, 3, time.Hour); err == nil {
		t.Error("a cancelled probe says that all is well")
	}
}

// TestStop: a request that is under way when the pod stops is answered.
func TestStop(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	s := &sidecar.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		fmt.Fprint(w, "done")
	})}
	ln, err := sidecar.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-entered
	cancel()
	// The listener is closed before requests are waited for.
	for {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	close(leave)
	if got := <-answer; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := new(sidecar.Server).Serve(t.Context(), ln); err == nil {
		t.Error("the proxy serves every address")
	}
}
