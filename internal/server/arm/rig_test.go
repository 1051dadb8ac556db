package arm

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/web"
)

const (
	homeTenant  = "11111111-aaaa-4bbb-8ccc-000000000001"
	otherTenant = "22222222-aaaa-4bbb-8ccc-000000000002"
	homeSub     = "5a9c0b7e-1111-4222-8333-444455556666"
	secondSub   = "6b9c0b7e-1111-4222-8333-444455556666" // of the home tenant
	otherSub    = "7c9c0b7e-1111-4222-8333-444455556666" // of the other tenant
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lockedBuffer is an audit log that a test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	b   bytes.Buffer
	err error // answer of every write, if set
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

// rig is the plane over real tables, behind the real edge and TLS. Its one
// seam is authentication: the bearer token is the name of a principal.
type rig struct {
	t         testing.TB
	clock     *clock
	audit     *lockedBuffer
	log       *lockedBuffer // the edge's, at its most talkative
	s         *store.Store
	h         *Handler
	edge      http.Handler
	srv       *httptest.Server
	names     *web.Names
	people    map[string]audit.Principal // by bearer token
	mu        sync.Mutex
	authError error // what authentication answers, if set
}

// newRig has two tenants, three subscriptions, and "owner", who is Owner of
// homeSub.
func newRig(t testing.TB) *rig { return newRigIn(t, "") }

func newRigIn(t testing.TB, dir string) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}, audit: &lockedBuffer{}, log: &lockedBuffer{}, people: map[string]audit.Principal{}}
	log := audit.New(r.audit, audit.Options{Now: r.clock.Now})
	r.s = storetest.New(t, dir, func(s *store.Store) {
		d := directory.New(s, directory.Options{Now: r.clock.Now})
		rb := rbac.New(s, d, log, rbac.Options{Now: r.clock.Now})
		v := keyvault.New(s, keyvault.Options{Now: r.clock.Now})
		r.h = New(s, Options{Directory: d, RBAC: rb, Vaults: v, Audit: log, Authenticate: r.authenticate, Now: r.clock.Now})
	})
	plane := r.h.Plane()
	r.edge = &web.Edge{
		Log: slog.New(slog.NewMultiHandler(
			slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}),
			slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}),
		)),
		Now: r.clock.Now,
		Route: func(string) (*web.Plane, *web.Names, string) {
			return plane, r.names, ""
		},
	}
	r.srv = httptest.NewTLSServer(r.edge)
	t.Cleanup(r.srv.Close)
	own := web.OwnNames("podkey.test")
	r.names = own.At(r.srv.URL)
	r.names.Login = own.Login
	if _, ok, _ := r.h.o.Directory.Tenant(t.Context(), homeTenant); ok {
		return r
	}
	ctx := t.Context()
	for id, name := range map[string]string{homeTenant: "home", otherTenant: "other"} {
		if _, err := r.h.o.Directory.CreateTenant(ctx, directory.Tenant{ID: id, DisplayName: name, Domains: []string{name + ".example"}}); err != nil {
			t.Fatal(err)
		}
	}
	for id, tenant := range map[string]string{homeSub: homeTenant, secondSub: homeTenant, otherSub: otherTenant} {
		if _, err := r.h.EnsureSubscription(ctx, id, tenant, "Subscription "+id[:1]); err != nil {
			t.Fatal(err)
		}
	}
	r.person("owner", homeTenant)
	r.grant("owner", rbac.Owner, "/subscriptions/"+homeSub)
	r.audit.take()
	return r
}

func (r *rig) authenticate(_ context.Context, bearer string) (audit.Principal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.authError != nil {
		return audit.Principal{}, r.authError
	}
	p, ok := r.people[bearer]
	if !ok {
		return p, &web.AuthError{Reason: web.AuthSignature}
	}
	return p, nil
}

// person makes an application's principal that the bearer token name stands for.
func (r *rig) person(name, tenant string) audit.Principal {
	r.t.Helper()
	ctx, d := r.t.Context(), r.h.o.Directory
	app, err := d.CreateApplication(ctx, directory.Application{TenantID: tenant, DisplayName: name})
	if err != nil {
		r.t.Fatal(err)
	}
	sp, err := d.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: tenant, AppID: app.AppID})
	if err != nil {
		r.t.Fatal(err)
	}
	p := audit.Principal{ObjectID: sp.ObjectID, AppID: app.AppID, TenantID: tenant, Kind: audit.KindServicePrincipal, Name: name}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.people[name] = p
	return p
}

// grant assigns a role behind the plane's back.
func (r *rig) grant(name, role, scope string) {
	r.t.Helper()
	p := r.people[name]
	_, _, err := r.h.o.RBAC.PutAssignment(r.t.Context(), rbac.Assignment{
		Name: uuid.NewString(), TenantID: p.TenantID, Scope: scope, RoleDefinitionID: role, PrincipalID: p.ObjectID, CreatedBy: p.ObjectID,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// answer is an HTTP answer with its body read.
type answer struct {
	*http.Response
	body []byte
}

// code is the error code of the answer, or "".
func (a *answer) code() string {
	var e wireError
	_ = json.Unmarshal(a.body, &e)
	return e.Error.Code
}

func (a *answer) message() string {
	var e wireError
	_ = json.Unmarshal(a.body, &e)
	return e.Error.Message
}

// at reads a member of the answer by its path: "properties.roleName", "value.0.id".
func (a *answer) at(path string) any {
	var v any
	_ = json.Unmarshal(a.body, &v)
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			n := int(p[0] - '0')
			if n >= len(x) {
				return nil
			}
			v = x[n]
		default:
			return nil
		}
	}
	return v
}

// names lists a member of each item of a listing.
func (a *answer) list(member string) []string {
	var l struct{ Value []map[string]any }
	_ = json.Unmarshal(a.body, &l)
	out := []string{}
	for _, v := range l.Value {
		s, _ := v[member].(string)
		out = append(out, s)
	}
	return out
}

// decode reads an answer into v.
func (r *rig) decode(a *answer, v any) {
	r.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		r.t.Fatal(err)
	}
}

// do sends a request over TLS as a principal ("" sends no token). The path
// gets an api-version if it has none. A body is a string as it is, or encoded.
func (r *rig) do(as, method, path string, body any) *answer {
	r.t.Helper()
	return r.send(as, method, path, body, nil)
}

func (r *rig) send(as, method, path string, body any, header http.Header) *answer {
	r.t.Helper()
	if !strings.Contains(path, "api-version=") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=" + versionFor(path)
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
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.srv.URL+path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := r.srv.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return &answer{resp, got}
}

// versionFor is a version that the type in a path has.
func versionFor(path string) string {
	path = strings.ToLower(path)
	switch {
	case strings.Contains(path, "microsoft.resources/"):
		return "2021-04-01"
	case strings.Contains(path, "microsoft.authorization"):
		return "2022-04-01"
	case strings.Contains(path, "microsoft.keyvault"):
		return "2024-11-01"
	case strings.Contains(path, "microsoft.managedidentity"):
		return "2024-11-30"
	}
	return "2021-04-01"
}

// must is do with a demand on the status.
func (r *rig) must(status int, as, method, path string, body any) *answer {
	r.t.Helper()
	a := r.do(as, method, path, body)
	if a.StatusCode != status {
		r.t.Fatalf("%s %s as %q: %d, want %d: %s", method, path, as, a.StatusCode, status, a.body)
	}
	return a
}

// refused is do with a demand on status and code.
func (r *rig) refused(status int, code, as, method, path string, body any) *answer {
	r.t.Helper()
	a := r.do(as, method, path, body)
	if a.StatusCode != status || a.code() != code {
		r.t.Errorf("%s %s as %q: %d %s, want %d %s: %s", method, path, as, a.StatusCode, a.code(), status, code, a.body)
	}
	return a
}

func groupPath(name string) string { return "/subscriptions/" + homeSub + "/resourceGroups/" + name }

func identityPath(group, name string) string {
	return groupPath(group) + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
}

func vaultPath(group, name string) string {
	return groupPath(group) + "/providers/Microsoft.KeyVault/vaults/" + name
}

func assignmentPath(scope, name string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleAssignments/" + name
}

func vaultRequest(more map[string]any) map[string]any {
	props := map[string]any{"tenantId": homeTenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}
	for k, v := range more {
		props[k] = v
	}
	return map[string]any{"location": "westeurope", "properties": props}
}

func (r *rig) makeGroup(name string) string {
	r.t.Helper()
	r.must(201, "owner", "PUT", groupPath(name), map[string]any{"location": "westeurope"})
	return groupPath(name)
}

// makeIdentity returns the identity's principal id.
func (r *rig) makeIdentity(group, name string) string {
	r.t.Helper()
	a := r.must(201, "owner", "PUT", identityPath(group, name), map[string]any{"location": "westeurope"})
	return a.at("properties.principalId").(string)
}

func (r *rig) makeVault(group, name string) string {
	r.t.Helper()
	r.must(201, "owner", "PUT", vaultPath(group, name), vaultRequest(nil))
	return vaultPath(group, name)
}

// dump is everything that is stored, for comparing before and after.
func (r *rig) dump() map[string]string {
	r.t.Helper()
	ctx, out := r.t.Context(), map[string]string{}
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			r.t.Fatal(err)
		}
		out[key] = string(b)
	}
	check := func(err error) {
		if err != nil {
			r.t.Fatal(err)
		}
	}
	groups, err := r.h.groups.Scan(ctx, "", "", 0)
	check(err)
	for _, e := range groups {
		put("group "+e.Key, e.Value)
	}
	subs, err := r.h.subscriptions.Scan(ctx, "", "", 0)
	check(err)
	for _, e := range subs {
		put("subscription "+e.Key, e.Value)
	}
	ids, err := r.h.o.Directory.Identities(ctx, "")
	check(err)
	for _, m := range ids {
		put("identity "+m.ResourceID, m)
		creds, err := r.h.o.Directory.FederatedAll(ctx, m.PrincipalID)
		check(err)
		put("federated "+m.ResourceID, creds)
	}
	for _, tenant := range []string{homeTenant, otherTenant} {
		as, err := r.h.o.RBAC.Assignments(ctx, tenant, "/", rbac.Filter{})
		check(err)
		for _, a := range as {
			put("assignment "+a.ID(), a)
		}
		ds, err := r.h.o.RBAC.Definitions(ctx, tenant, "/", true)
		check(err)
		for _, d := range ds {
			if d.Type == rbac.CustomRole {
				put("role "+d.ID, d)
			}
		}
		sps, err := r.h.o.Directory.ServicePrincipals(ctx, tenant)
		check(err)
		put("principals "+tenant, sps)
	}
	for _, sub := range []string{homeSub, secondSub, otherSub} {
		vs, err := r.h.o.Vaults.List(ctx, sub, "")
		check(err)
		for _, v := range vs {
			put("vault "+v.ID, v)
			infos, _, _, err := r.h.o.Vaults.Secrets(ctx, v.ID, "", 1000)
			check(err)
			put("secrets "+v.ID, infos)
		}
		ds, err := r.h.o.Vaults.ListDeleted(ctx, sub)
		check(err)
		for _, v := range ds {
			put("deleted "+v.ID, v)
		}
	}
	return out
}

// token is a credential for the Azure SDKs that never asks anybody.
type token string

func (t token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// sdk is the options that point the real Azure SDKs at the rig.
func (r *rig) sdk() *azarm.ClientOptions {
	return &azarm.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: r.srv.Client(),
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: r.names.Login,
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: r.srv.URL, Audience: r.srv.URL}},
		},
		Retry: policy.RetryOptions{MaxRetries: -1},
	}}
}
