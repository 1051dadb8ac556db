package keyvault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/web"
)

const (
	tenantA = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB = "bbbbbbbb-0000-4000-8000-000000000001"
	subA    = "11111111-0000-4000-8000-000000000001"
	subB    = "22222222-0000-4000-8000-000000000001"
	suffix  = "vault.podkey.localhost:8443"
	api     = "api-version=2026-04-01"
)

// system is the data plane behind the edge, over a real store, with vaults
// and callers to try it with. A caller's token is the caller's name.
type system struct {
	t         testing.TB
	store     *store.Store
	vaults    *keyvault.Vaults
	rbac      *rbac.RBAC
	directory *directory.Directory
	handler   http.Handler
	audit     *lines
	log       *lines

	clock  atomic.Int64 // Unix seconds
	tokens map[string]any
	count  int
}

// lines collects written lines.
type lines struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	err   error
	wrote chan struct{} // gets a token after a write, if there is room; may be nil
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// last is the last audit line.
func (l *lines) last(t testing.TB) map[string]string {
	t.Helper()
	all := strings.Split(strings.TrimSpace(l.String()), "\n")
	var m map[string]string
	if err := json.Unmarshal([]byte(all[len(all)-1]), &m); err != nil {
		t.Fatalf("%v in %q", err, all)
	}
	return m
}

func (s *system) now() time.Time { return time.Unix(s.clock.Load(), 0) }

func (s *system) pass(d time.Duration) { s.clock.Add(int64(d / time.Second)) }

// newSystem starts a system with the vaults kv1 and kv2 (roles) and pol1
// (access policies) of tenant A, and kvb of tenant B. Callers: officer, reader
// (may read values), and nobody, of tenant A; stranger, officer of tenant B.
func newSystem(t testing.TB) *system { return newSystemIn(t, "", &lines{}) }

func newSystemIn(t testing.TB, dir string, auditTo io.Writer) *system {
	t.Helper()
	s := openSystem(t, dir, auditTo)
	for _, id := range []string{tenantA, tenantB} {
		s.must(s.directory.CreateTenant(t.Context(), directory.Tenant{ID: id, DisplayName: id[:4]}))
	}
	s.caller("officer", tenantA)
	s.caller("reader", tenantA)
	s.caller("nobody", tenantA)
	s.caller("stranger", tenantB)
	s.vault("kv1", nil)
	s.vault("kv2", nil)
	s.vault("pol1", func(sp *keyvault.Spec) { sp.RBAC = false })
	s.vault("kvb", func(sp *keyvault.Spec) { sp.TenantID, sp.SubscriptionID = tenantB, subB })
	s.assign("officer", rbac.KeyVaultSecretsOfficer, "/subscriptions/"+subA)
	s.assign("reader", rbac.KeyVaultSecretsUser, vaultID("kv1"))
	s.assign("stranger", rbac.KeyVaultSecretsOfficer, "/subscriptions/"+subB)
	return s
}

// openSystem is newSystem without the vaults and callers, or with those that
// the directory dir has.
func openSystem(t testing.TB, dir string, auditTo io.Writer) *system {
	t.Helper()
	s := &system{t: t, log: &lines{}, tokens: map[string]any{}}
	s.audit, _ = auditTo.(*lines)
	s.clock.Store(1_800_000_000)
	log := audit.New(auditTo, audit.Options{})
	s.store = storetest.New(t, dir, func(st *store.Store) {
		s.directory = directory.New(st, directory.Options{})
		s.rbac = rbac.New(st, s.directory, log, rbac.Options{Now: s.now})
		s.vaults = keyvault.New(st, keyvault.Options{Now: s.now, Log: slog.New(slog.NewTextHandler(s.log, nil)), Audit: log})
	})
	h := &keyvault.Handler{Vaults: s.vaults, RBAC: s.rbac, Authenticate: s.authenticate, Audit: log, Version: "1.0.0"}
	plane := h.Plane()
	own := web.OwnNames("podkey.localhost:8443")
	azure := web.AzureNames(own)
	s.handler = &web.Edge{
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
		Now: time.Now,
		Route: func(host string) (*web.Plane, *web.Names, string) {
			if v, ok := strings.CutSuffix(host, ".vault.azure.net"); ok {
				return plane, azure, v
			}
			return plane, own, strings.TrimSuffix(host, "."+suffix)
		},
	}
	for name, reason := range map[string]web.AuthReason{
		"garbage": web.AuthMalformed, "unknownkey": web.AuthKey, "badsignature": web.AuthSignature, "expired": web.AuthExpired, "early": web.AuthNotYet,
	} {
		s.tokens[name] = &web.AuthError{Reason: reason}
	}
	s.tokens["foraudience"] = &web.AuthError{Reason: web.AuthAudience, Expected: "https://vault.azure.net", Found: "https://management.azure.com"}
	s.tokens["fromissuer"] = &web.AuthError{Reason: web.AuthIssuer, Expected: "https://sts.windows.net/x/", Found: "https://issuer.example/"}
	s.tokens["broken"] = io.ErrUnexpectedEOF
	for _, name := range []string{"officer", "reader", "nobody", "stranger"} {
		m, ok, err := s.directory.Identity(t.Context(), identityID(name))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			s.tokens[name] = principalOf(m)
		}
	}
	return s
}

func (s *system) must(_ any, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) authenticate(_ context.Context, token string) (audit.Principal, error) {
	switch v := s.tokens[token].(type) {
	case audit.Principal:
		return v, nil
	case error:
		return audit.Principal{}, v
	}
	return audit.Principal{}, &web.AuthError{Reason: web.AuthKey}
}

// caller makes a managed identity whose token is its name.
func (s *system) caller(name, tenant string) audit.Principal {
	s.t.Helper()
	m, _, err := s.directory.PutIdentity(s.t.Context(), directory.ManagedIdentity{
		ResourceID: identityID(name), Name: name, Location: "westeurope", TenantID: tenant,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p := principalOf(m)
	s.tokens[name] = p
	return p
}

func identityID(name string) string {
	return "/subscriptions/" + subA + "/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
}

func principalOf(m directory.ManagedIdentity) audit.Principal {
	return audit.Principal{
		ObjectID: m.PrincipalID, AppID: m.ClientID, TenantID: m.TenantID, Issuer: "https://sts.windows.net/" + m.TenantID + "/",
		Kind: audit.KindServicePrincipal, Name: m.Name,
	}
}

func vaultID(name string) string {
	return "/subscriptions/" + subA + "/resourceGroups/Apps/providers/Microsoft.KeyVault/vaults/" + name
}

// vault makes a vault with roles as its permission model.
func (s *system) vault(name string, change func(*keyvault.Spec)) keyvault.Vault {
	s.t.Helper()
	spec := newSpec(name)
	if change != nil {
		change(&spec)
	}
	v, _, err := s.vaults.Put(s.t.Context(), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func newSpec(name string) keyvault.Spec {
	return keyvault.Spec{
		SubscriptionID: subA, ResourceGroup: "Apps", Name: name, Location: "westeurope", TenantID: tenantA, RBAC: true, By: "me",
		Properties: keyvault.Properties{SKU: &keyvault.SKU{Family: "A", Name: "standard"}},
	}
}

func (s *system) assign(caller, role, scope string) {
	s.t.Helper()
	s.count++
	p := s.tokens[caller].(audit.Principal)
	_, _, err := s.rbac.PutAssignment(s.t.Context(), rbac.Assignment{
		Name: fmt.Sprintf("99999999-0000-4000-8000-%012d", s.count), TenantID: p.TenantID, Scope: scope, RoleDefinitionID: role, PrincipalID: p.ObjectID,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// answer is a response with its body decoded.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) code() string { return a.str("error", "code") }

// str is the string at a path of members, or "".
func (a answer) str(path ...string) string {
	var v any = a.body
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	str, _ := v.(string)
	return str
}

// version is the version in the answer's id.
func (a answer) version() string { return a.str("id")[strings.LastIndexByte(a.str("id"), '/')+1:] }

// call sends a request to a vault as a caller. target is path and query; the
// api-version is added if there is no query. body is JSON text or a value to
// encode; nil means none.
func (s *system) call(caller, method, vault, target string, body any) answer {
	s.t.Helper()
	if !strings.Contains(target, "?") {
		target += "?" + api
	}
	var text string
	switch b := body.(type) {
	case nil:
	case string:
		text = b
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(enc)
	}
	r := httptest.NewRequest(method, "https://"+vault+"."+suffix+target, strings.NewReader(text))
	if caller != "" {
		r.Header.Set("Authorization", "Bearer "+caller)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return s.do(r)
}

func (s *system) do(r *http.Request) answer {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			s.t.Fatalf("%s %s: body is not JSON: %v in %q", r.Method, r.URL, err, a.raw)
		}
	}
	return a
}

// ok is call for a request that must succeed.
func (s *system) ok(caller, method, vault, target string, body any) answer {
	s.t.Helper()
	a := s.call(caller, method, vault, target, body)
	if a.status/100 != 2 {
		s.t.Fatalf("%s %s: %d %s", method, target, a.status, a.raw)
	}
	return a
}

// set stores a secret.
func (s *system) set(vault, name, value string) answer {
	s.t.Helper()
	return s.ok("officer", "PUT", vault, "/secrets/"+name, map[string]any{"value": value})
}

// refused is call for a request that must be refused in the plane's own way.
func (s *system) refused(status int, code, caller, method, vault, target string, body any) answer {
	s.t.Helper()
	a := s.call(caller, method, vault, target, body)
	s.checkRefusal(a, status, code, method+" "+target)
	return a
}

func (s *system) checkRefusal(a answer, status int, code, what string) {
	s.t.Helper()
	if a.status != status || a.code() != code || a.str("error", "message") == "" {
		s.t.Errorf("%s: %d %s, want %d %s", what, a.status, a.raw, status, code)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json; charset=utf-8" {
		s.t.Errorf("%s: content type %q", what, ct)
	}
	if a.header.Get("X-Ms-Request-Id") == "" || a.header.Get("Cache-Control") != "no-cache" {
		s.t.Errorf("%s: headers %v", what, a.header)
	}
}
