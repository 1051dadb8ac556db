package aks

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/install"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

const (
	homeTenant  = "11111111-aaaa-4bbb-8ccc-000000000001"
	otherTenant = "22222222-aaaa-4bbb-8ccc-000000000002"
	homeSub     = "5a9c0b7e-1111-4222-8333-444455556666"
	otherSub    = "7c9c0b7e-1111-4222-8333-444455556666"

	version = "2024-02-01"
	secret  = "hunter2-is-the-token"
)

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is the management API with registered clusters over real tables, behind
// the real edge. Its one seam is authentication: the bearer token is the name
// of a principal.
type rig struct {
	t      testing.TB
	s      *store.Store
	c      *Clusters
	edge   http.Handler
	now    time.Time
	dir    *directory.Directory
	rbac   *rbac.RBAC
	log    logBuffer // both the audit log and the server's
	people map[string]audit.Principal
	keys   map[string]*rsa.PrivateKey
	dns    map[string][]netip.Addr // of API servers
}

// newRig has two tenants with a subscription and a group each, and people
// named by what they may do: operator (Owner of the home tenant), owner,
// contributor and reader of the home subscription, stranger (Owner of the
// other subscription), root (Owner of the other tenant) and nobody.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), people: map[string]audit.Principal{}, keys: map[string]*rsa.PrivateKey{}}
	clock := func() time.Time { return r.now }
	log := audit.New(&r.log, audit.Options{Now: clock})
	var h *arm.Handler
	r.s = storetest.New(t, "", func(s *store.Store) {
		r.dir = directory.New(s, directory.Options{Now: clock})
		r.rbac = rbac.New(s, r.dir, log, rbac.Options{Now: clock})
		h = arm.New(s, arm.Options{
			Directory: r.dir, RBAC: r.rbac, Vaults: keyvault.New(s, keyvault.Options{Now: clock}), Audit: log, Now: clock,
			Authenticate: func(_ context.Context, bearer string) (audit.Principal, error) {
				p, ok := r.people[bearer]
				if !ok {
					return p, &web.AuthError{Reason: web.AuthSignature}
				}
				return p, nil
			},
		})
		r.c = New(s, Options{
			RBAC: r.rbac, Now: clock,
			Home:     func(context.Context) (string, error) { return homeTenant, nil },
			Reserved: func(host string) bool { return host == "issuer.podkey.test" || host == "sts.windows.net" },
			Log:      slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Manifests: func(_ context.Context, tenant string) ([]chart.Object, error) {
				return chart.Render(chart.Release{Values: install.Authority{TenantID: tenant, Login: "https://login.podkey.test"}.Values()})
			},
			Namespace: "podkey-system", Alone: true,
			WorkTime: 20 * time.Second, Patience: time.Millisecond, Poll: time.Millisecond,
			Dial: func(trusted bool) func(context.Context, string, string) (net.Conn, error) {
				rules := &token.Foreign{AllowPrivate: trusted, AllowLoopback: trusted}
				rules.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) { return r.dns[host], nil }
				return rules.Dial
			},
		})
		r.c.Register(h)
	})
	plane, names := h.Plane(), web.OwnNames("podkey.test")
	r.edge = &web.Edge{
		Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: clock,
		Route: func(string) (*web.Plane, *web.Names, string) { return plane, names, "" },
	}
	ctx := t.Context()
	for _, x := range []struct{ tenant, sub, name string }{{homeTenant, homeSub, "home"}, {otherTenant, otherSub, "other"}} {
		if _, err := r.dir.CreateTenant(ctx, directory.Tenant{ID: x.tenant, DisplayName: x.name, Domains: []string{x.name + ".example"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.EnsureSubscription(ctx, x.sub, x.tenant, x.name); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct{ name, tenant, role, scope string }{
		{"operator", homeTenant, rbac.Owner, "/"}, {"owner", homeTenant, rbac.Owner, "/subscriptions/" + homeSub},
		{"contributor", homeTenant, rbac.Contributor, "/subscriptions/" + homeSub}, {"reader", homeTenant, rbac.Reader, "/subscriptions/" + homeSub},
		{"stranger", otherTenant, rbac.Owner, "/subscriptions/" + otherSub}, {"root", otherTenant, rbac.Owner, "/"}, {"nobody", homeTenant, "", ""},
	} {
		r.person(x.name, x.tenant)
		if x.role != "" {
			r.grant(x.name, x.role, x.scope)
		}
	}
	r.must(201, "operator", "PUT", "/subscriptions/"+homeSub+"/resourceGroups/rg", `{"location":"westeurope"}`)
	r.must(201, "stranger", "PUT", "/subscriptions/"+otherSub+"/resourceGroups/rg", `{"location":"westeurope"}`)
	return r
}

func (r *rig) person(name, tenant string) {
	r.t.Helper()
	app, err := r.dir.CreateApplication(r.t.Context(), directory.Application{TenantID: tenant, DisplayName: name})
	if err != nil {
		r.t.Fatal(err)
	}
	sp, err := r.dir.CreateServicePrincipal(r.t.Context(), directory.ServicePrincipal{TenantID: tenant, AppID: app.AppID})
	if err != nil {
		r.t.Fatal(err)
	}
	r.people[name] = audit.Principal{ObjectID: sp.ObjectID, AppID: app.AppID, TenantID: tenant, Kind: audit.KindServicePrincipal, Name: name}
}

func (r *rig) grant(name, role, scope string) {
	r.t.Helper()
	p := r.people[name]
	if _, _, err := r.rbac.PutAssignment(r.t.Context(), rbac.Assignment{
		Name: uuid.NewString(), TenantID: p.TenantID, Scope: scope, RoleDefinitionID: role, PrincipalID: p.ObjectID, CreatedBy: p.ObjectID,
	}); err != nil {
		r.t.Fatal(err)
	}
}

// answer is an HTTP answer.
type answer struct {
	*httptest.ResponseRecorder
}

// at reads a member of the answer by its path, such as "properties.podkey".
func (a answer) at(path string) any {
	var v any
	_ = json.Unmarshal(a.Body.Bytes(), &v)
	for p := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

func (a answer) code() string { s, _ := a.at("error.code").(string); return s }

// do sends a request as a principal; a body is a string as it is, or encoded.
func (r *rig) do(as, method, path string, body any, header ...string) answer {
	r.t.Helper()
	if !strings.Contains(path, "api-version=") {
		v := version
		if !strings.Contains(strings.ToLower(path), "microsoft.containerservice") {
			v = "2021-04-01"
		}
		if strings.Contains(strings.ToLower(path), "microsoft.authorization") {
			v = "2022-04-01"
		}
		path += "?api-version=" + v
	}
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		rd = bytes.NewReader(enc)
	}
	req := httptest.NewRequestWithContext(r.t.Context(), method, "https://management.podkey.test"+path, rd)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.edge.ServeHTTP(w, req)
	return answer{w}
}

func (r *rig) must(status int, as, method, path string, body any, header ...string) answer {
	r.t.Helper()
	a := r.do(as, method, path, body, header...)
	if a.Code != status {
		r.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, as, a.Code, status, a.Body)
	}
	return a
}

func (r *rig) refused(status int, code, as, method, path string, body any, header ...string) answer {
	r.t.Helper()
	a := r.do(as, method, path, body, header...)
	if a.Code != status || a.code() != code {
		r.t.Errorf("%s %s as %s: %d %s, want %d %s: %s", method, path, as, a.Code, a.code(), status, code, a.Body)
	}
	return a
}

func clusterPath(name string) string {
	return "/subscriptions/" + homeSub + "/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/" + name
}

// privateKey is one RSA key per name: making them takes long.
func (r *rig) privateKey(name string) *rsa.PrivateKey {
	r.t.Helper()
	if r.keys[name] == nil {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			r.t.Fatal(err)
		}
		r.keys[name] = k
	}
	return r.keys[name]
}

// jwks is the public set of some keys.
func (r *rig) jwks(names ...string) map[string]any {
	r.t.Helper()
	keys := []any{}
	for _, n := range names {
		keys = append(keys, publicJWK(n, &r.privateKey(n).PublicKey))
	}
	return map[string]any{"keys": keys}
}

func publicJWK(kid string, k *rsa.PublicKey) map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
}

// config is a kubeconfig with a secret in it.
const config = `apiVersion: v1
kind: Config
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'https://api.shop.example:6443'}}]
users: [{name: u, user: {token: ` + secret + `}}]
`

// registering is the PUT that registers.
func registering(issuer string, jwks any) map[string]any {
	podkey := map[string]any{"issuer": issuer, "keySource": "Pinned", "jwks": jwks, "kubeconfig": config}
	return map[string]any{"location": "westeurope", "properties": map[string]any{"podkey": podkey, "kubernetesVersion": "1.33.1"}}
}

func fetching(issuer string) map[string]any {
	return map[string]any{"location": "westeurope", "properties": map[string]any{"podkey": map[string]any{"issuer": issuer, "keySource": "Fetched"}}}
}

const issuerURL = "https://oidc.shop.example/cluster/"

// registered registers the cluster "shop" with the key "one".
func (r *rig) registered() {
	r.t.Helper()
	r.must(201, "operator", "PUT", clusterPath("shop"), registering(issuerURL, r.jwks("one")))
}

// dump is everything that is stored of clusters.
func (r *rig) dump() string {
	r.t.Helper()
	var b strings.Builder
	clusters, err := r.c.clusters.Scan(r.t.Context(), "", "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range clusters {
		text, err := json.Marshal(e.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		b.WriteString(e.Key + " " + string(text) + "\n")
	}
	configs, err := r.c.kubeconfigs.Scan(r.t.Context(), "", "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range configs {
		b.WriteString("kubeconfig of " + e.Key + " at " + e.Value.Server + "\n")
	}
	return b.String()
}
