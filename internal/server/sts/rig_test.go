package sts_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/server/sts"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

const (
	tenantID   = "11111111-1111-4111-8111-111111111111"
	otherID    = "99999999-9999-4999-8999-999999999999"
	audience   = "api://AzureADTokenExchange"
	subject    = "system:serviceaccount:shop:web"
	ownHost    = "login.podkey.test:8443"
	azureHost  = "login.microsoftonline.com"
	bareHost   = "127.0.0.1:8443"
	regionHost = "westeurope.login.podkey.test:8443"
	vaultScope = "https://vault.azure.net/.default"
	userName   = "ada@contoso.example"
	password   = "correct horse battery"
	azCLI      = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	armScope   = "https://management.core.windows.net//.default"
	azScope    = armScope + " offline_access openid profile"
	assertType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// rig is a token service with a real edge, directory, keys and store, one
// managed identity and one application, and a foreign issuer on a real
// socket.
type rig struct {
	t      testing.TB
	edge   *web.Edge
	dir    *directory.Directory
	store  *session.Sessions
	keys   *token.Keys
	verify *token.Verifier
	issuer *issuer
	audit  *buffer
	log    *buffer

	mu  sync.Mutex
	now time.Time

	mi     directory.ManagedIdentity
	app    directory.Application
	sp     directory.ServicePrincipal
	secret string // of app
	secID  string // its key id
	user   directory.User
}

func (g *rig) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *rig) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

// start builds a rig; adjust may change the handler before it serves.
func start(t testing.TB, adjust ...func(*sts.Handler)) *rig {
	t.Helper()
	g := &rig{t: t, audit: &buffer{}, log: &buffer{}, now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	storetest.New(t, "", func(s *store.Store) {
		g.dir = directory.New(s, directory.Options{Now: g.clock, AllowLoopback: true})
		g.keys = token.NewKeys(s, token.Options{Now: g.clock})
		g.store = session.New(s, session.Options{Now: g.clock})
	})
	if err := g.keys.Ensure(t.Context(), token.Tenant); err != nil {
		t.Fatal(err)
	}
	g.issuer = newIssuer(t)
	own := web.OwnNames("podkey.test:8443")
	azure := web.AzureNames(own)
	h := &sts.Handler{
		Directory: g.dir, Sessions: g.store, Keys: g.keys, Own: own, Azure: azure, Now: g.clock,
		Foreign: &token.Foreign{Now: g.clock, AllowLoopback: true, RootCAs: g.issuer.roots()},
		Audit:   audit.New(g.audit, audit.Options{Now: g.clock}),
		Log:     slog.New(slog.NewJSONHandler(g.log, nil)),
		Lifetime: func(long bool) time.Duration {
			return map[bool]time.Duration{true: 24 * time.Hour, false: 75 * time.Minute}[long]
		},
	}
	for _, f := range adjust {
		f(h)
	}
	plane, nowhere := h.Plane(), &web.Plane{Name: "none", Serve: func(http.ResponseWriter, *http.Request) error { return fault.NotFound("x", "x") }, Fail: h.Plane().Fail}
	bare := own.At("https://" + bareHost)
	g.edge = &web.Edge{Log: slog.New(slog.NewJSONHandler(g.log, nil)), Now: g.clock, Route: func(host string) (*web.Plane, *web.Names, string) {
		switch host {
		case ownHost, regionHost:
			return plane, own, ""
		case azureHost:
			return plane, azure, ""
		case bareHost:
			return plane, bare, ""
		}
		return nowhere, own, ""
	}}
	g.verify = &token.Verifier{Keys: g.keys, Now: g.clock}
	g.populate()
	return g
}

func (g *rig) populate() {
	ctx, t := g.t.Context(), g.t
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := g.dir.CreateTenant(ctx, directory.Tenant{ID: tenantID, DisplayName: "Contoso", Domains: []string{"contoso.example"}})
	must(err)
	g.mi, _, err = g.dir.PutIdentity(ctx, directory.ManagedIdentity{
		ResourceID: "/subscriptions/s/resourceGroups/RG/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Web", Name: "Web", Location: "westeurope", TenantID: tenantID,
	})
	must(err)
	_, err = g.dir.PutFederated(ctx, g.mi.PrincipalID, directory.FederatedCredential{Name: "kube", Issuer: g.issuer.url("a"), Subject: subject, Audiences: []string{audience}})
	must(err)
	g.app, err = g.dir.CreateApplication(ctx, directory.Application{TenantID: tenantID, DisplayName: "Robot"})
	must(err)
	g.sp, err = g.dir.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: tenantID, AppID: g.app.AppID})
	must(err)
	s, text, err := g.dir.AddSecret(ctx, g.app.ObjectID, directory.NewSecret{})
	must(err)
	g.secret, g.secID = text, s.KeyID
	_, err = g.dir.AddCertificate(ctx, g.app.ObjectID, "ci", clientCertificate())
	must(err)
	g.user, err = g.dir.CreateUser(ctx, directory.User{TenantID: tenantID, UserPrincipalName: userName, DisplayName: "Ada"}, password)
	must(err)
}

// federated is the form of a correct request of the managed identity.
func (g *rig) federated() url.Values {
	return g.withAssertion(g.issuer.sign(g.assertion(), nil))
}

func (g *rig) withAssertion(jwt string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {g.mi.ClientID}, "scope": {vaultScope},
		"client_assertion_type": {assertType}, "client_assertion": {jwt},
	}
}

// assertion is the claims of a correct service-account token.
func (g *rig) assertion() map[string]any {
	return map[string]any{
		"iss": g.issuer.url("a"), "sub": subject, "aud": []string{audience},
		"iat": g.clock().Unix(), "nbf": g.clock().Unix(), "exp": g.clock().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop"},
	}
}

// bySecret is the form of a correct request of the application.
func (g *rig) bySecret() url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {g.app.AppID}, "client_secret": {g.secret}, "scope": {vaultScope}}
}

// byCertificate is the form of a correct request with a certificate.
func (g *rig) byCertificate(alg string, header, claims map[string]any) url.Values {
	x5t, _ := directory.Thumbprints(clientCertificate())
	h := map[string]any{"alg": alg, "typ": "JWT", "x5t": x5t}
	c := map[string]any{
		"iss": g.app.AppID, "sub": g.app.AppID, "aud": "https://" + ownHost + "/" + tenantID + "/oauth2/v2.0/token",
		"jti": "1", "nbf": g.clock().Unix(), "exp": g.clock().Add(10 * time.Minute).Unix(),
	}
	f := g.withAssertion(sign(clientKey(), merge(h, header), merge(c, claims)))
	f.Set("client_id", g.app.AppID)
	return f
}

// merge returns base with changes; a nil value removes the member.
func merge(base, changes map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range changes {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

type answer struct {
	*httptest.ResponseRecorder
	body map[string]any
}

func (a *answer) text(member string) string { s, _ := a.body[member].(string); return s }

func (a *answer) code() int {
	codes, _ := a.body["error_codes"].([]any)
	if len(codes) != 1 {
		return 0
	}
	n, _ := codes[0].(float64)
	return int(n)
}

// do sends a request and checks what every answer must have.
func (g *rig) do(r *http.Request) *answer {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.edge.ServeHTTP(w, r)
	a := &answer{ResponseRecorder: w}
	if ct := w.Header().Get("Content-Type"); ct != "application/json; charset=utf-8" {
		g.t.Errorf("%s %s: content type %q", r.Method, r.URL.Path, ct)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil && r.Method != "HEAD" {
		g.t.Errorf("%s %s: %v in %s", r.Method, r.URL.Path, err, w.Body)
	}
	if w.Header().Get("X-Ms-Request-Id") == "" || w.Header().Get("X-Ms-Ests-Server") == "" || w.Header().Get("Cache-Control") == "" {
		g.t.Errorf("%s %s: headers %v", r.Method, r.URL.Path, w.Header())
	}
	return a
}

func (g *rig) get(host, target string) *answer {
	g.t.Helper()
	return g.do(httptest.NewRequest("GET", "https://"+host+target, nil))
}

func post(host, path, body string) *http.Request {
	r := httptest.NewRequest("POST", "https://"+host+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	return r
}

// token posts a form to the v2.0 endpoint at our own name.
func (g *rig) token(f url.Values) *answer {
	g.t.Helper()
	return g.do(post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", f.Encode()))
}

// accept fails the test unless the answer has a token that verifies for any
// audience, and returns its claims.
func (g *rig) accept(a *answer) *token.Access {
	g.t.Helper()
	if a.Code != 200 {
		g.t.Fatalf("status %d: %s", a.Code, a.Body)
	}
	yes := func(string) bool { return true }
	c, err := g.verify.Verify(g.t.Context(), a.text("access_token"), token.Expect{Issuer: func(string, string) bool { return true }, Audience: yes})
	if err != nil {
		g.t.Fatalf("the token issued does not verify: %v", err)
	}
	return c
}

// verifyErr is what is wrong with a text as an access token.
func (g *rig) verifyErr(raw string) error {
	yes := func(string) bool { return true }
	_, err := g.verify.Verify(g.t.Context(), raw, token.Expect{Issuer: func(string, string) bool { return true }, Audience: yes})
	return err
}

// refuse checks a refusal completely.
func (g *rig) refuse(a *answer, status int, oauth string, code int) {
	g.t.Helper()
	if a.Code != status || a.text("error") != oauth || a.code() != code {
		g.t.Errorf("got %d %q AADSTS%d, want %d %q AADSTS%d: %s", a.Code, a.text("error"), a.code(), status, oauth, code, a.Body)
	}
	at := a.text("timestamp")
	if _, err := time.Parse("2006-01-02 15:04:05Z", at); err != nil {
		g.t.Errorf("timestamp %q", at)
	}
	trace, corr := a.text("trace_id"), a.text("correlation_id")
	if trace == "" || trace != a.Header().Get("X-Ms-Request-Id") || corr == "" {
		g.t.Errorf("trace id %q, correlation id %q, headers %v", trace, corr, a.Header())
	}
	d := a.text("error_description")
	if !strings.HasPrefix(d, fmt.Sprintf("AADSTS%d: ", code)) || !strings.HasSuffix(d, " Trace ID: "+trace+" Correlation ID: "+corr+" Timestamp: "+at) {
		g.t.Errorf("description %q", d)
	}
	if !strings.HasSuffix(a.text("error_uri"), fmt.Sprintf("/error?code=%d", code)) {
		g.t.Errorf("error_uri %q", a.text("error_uri"))
	}
	if a.body["access_token"] != nil {
		g.t.Error("a refusal with a token")
	}
}

// lastAudit returns the last audit line.
func (g *rig) lastAudit() map[string]string {
	g.t.Helper()
	lines := strings.Split(strings.TrimSpace(g.audit.String()), "\n")
	m := map[string]string{}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &m); err != nil {
		g.t.Fatal(err)
	}
	return m
}

// lines is how many audit lines there are.
func (g *rig) lines() int { return strings.Count(g.audit.String(), "\n") }

// buffer is a writer that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	fail error
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return 0, b.fail
	}
	return b.b.Write(p)
}

// breakDown makes every later write fail.
func (b *buffer) breakDown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = errors.New("the disk is full")
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// issuer is a foreign identity provider on a loopback socket. It is several
// issuers, one per first path segment; what it answers can be replaced.
type issuer struct {
	server *httptest.Server
	key    *rsa.PrivateKey
	mu     sync.Mutex
	pages  map[string]string // by path, instead of the right answer
	hits   int
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{key: issuerKey(), pages: map[string]string{}}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	i.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	return i
}

func (i *issuer) url(name string) string { return i.server.URL + "/" + name + "/" }

func (i *issuer) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(i.server.Certificate())
	return pool
}

func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.hits++
	page, replaced := i.pages[r.URL.Path]
	i.mu.Unlock()
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case replaced && page == "":
		http.Error(w, "gone", http.StatusNotFound)
	case replaced:
		io.WriteString(w, page)
	case rest == ".well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, i.url(name), i.url(name)+"keys")
	case rest == "keys":
		io.WriteString(w, jwks("k1", &i.key.PublicKey))
	default:
		http.NotFound(w, r)
	}
}

func (i *issuer) replace(path, page string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pages[path] = page
}

func jwks(kid string, key *rsa.PublicKey) string {
	e := base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())
	return fmt.Sprintf(`{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":%q,"n":%q,"e":%q}]}`, kid, base64.RawURLEncoding.EncodeToString(key.N.Bytes()), e)
}

func (i *issuer) sign(claims map[string]any, header map[string]any) string {
	return sign(i.key, merge(map[string]any{"alg": "RS256", "kid": "k1"}, header), claims)
}

// sign makes a JWT as the header says; RS256 for algorithms it does not know.
func sign(key *rsa.PrivateKey, header, claims map[string]any) string {
	return signText(key, header, encode(claims))
}

func signText(key *rsa.PrivateKey, header map[string]any, payload string) string {
	text := encode(header) + "." + payload
	sum := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	if header["alg"] == "PS256" {
		sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		sig, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	}
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Keys are made once: that is what takes time.
var (
	issuerKey         = sync.OnceValue(newKey)
	clientKey         = sync.OnceValue(newKey)
	strangerKey       = sync.OnceValue(newKey)
	clientCertificate = sync.OnceValue(func() []byte { return certificate(clientKey()) })
)

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

func certificate(key *rsa.PrivateKey) []byte {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return der
}
