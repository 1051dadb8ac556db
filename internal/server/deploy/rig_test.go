package deploy

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

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/web"
)

const (
	tenant = "11111111-aaaa-4bbb-8ccc-000000000001"
	sub    = "5a9c0b7e-1111-4222-8333-444455556666"
	group  = "/subscriptions/" + sub + "/resourceGroups/rg"
	at     = group + "/providers/Microsoft.Resources/deployments/"
)

// locked is a buffer that several goroutines write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is the management plane with deployments over real tables, behind the
// real edge. Its one seam is authentication: the bearer token is the name of
// a principal. There is an Owner of the subscription, "owner", and a group rg.
type rig struct {
	t      testing.TB
	mu     sync.Mutex
	now    time.Time
	s      *store.Store
	dir    *directory.Directory
	rbac   *rbac.RBAC
	arm    *arm.Handler
	h      *Handler
	edge   http.Handler
	people map[string]audit.Principal
	audit  locked
	log    locked
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), people: map[string]audit.Principal{}}
	log := audit.New(&r.audit, audit.Options{Now: r.clock})
	lines := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.s = storetest.New(t, "", func(s *store.Store) {
		r.dir = directory.New(s, directory.Options{Now: r.clock})
		r.rbac = rbac.New(s, r.dir, log, rbac.Options{Now: r.clock})
		v := keyvault.New(s, keyvault.Options{Now: r.clock})
		r.arm = arm.New(s, arm.Options{Directory: r.dir, RBAC: r.rbac, Vaults: v, Audit: log, Authenticate: r.authenticate, Now: r.clock})
		r.h = New(s, r.arm, Options{Now: r.clock, Log: lines})
	})
	plane, names := r.arm.Plane(), web.OwnNames("podkey.test")
	r.edge = &web.Edge{Log: lines, Now: r.clock, Route: func(string) (*web.Plane, *web.Names, string) { return plane, names, "" }}
	ctx := t.Context()
	if _, err := r.dir.CreateTenant(ctx, directory.Tenant{ID: tenant, DisplayName: "home", Domains: []string{"home.example"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.arm.EnsureSubscription(ctx, sub, tenant, "Home"); err != nil {
		t.Fatal(err)
	}
	r.person("owner", rbac.Owner, "/subscriptions/"+sub)
	r.must(201, "owner", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{"env": "test"}})
	return r
}

func (r *rig) authenticate(_ context.Context, bearer string) (audit.Principal, error) {
	p, ok := r.people[bearer]
	if !ok {
		return p, &web.AuthError{Reason: web.AuthSignature}
	}
	return p, nil
}

// person makes an application's principal with a role at a scope ("" for none).
func (r *rig) person(name, role, scope string) audit.Principal {
	r.t.Helper()
	ctx := r.t.Context()
	app, err := r.dir.CreateApplication(ctx, directory.Application{TenantID: tenant, DisplayName: name})
	if err != nil {
		r.t.Fatal(err)
	}
	sp, err := r.dir.CreateServicePrincipal(ctx, directory.ServicePrincipal{TenantID: tenant, AppID: app.AppID})
	if err != nil {
		r.t.Fatal(err)
	}
	r.people[name] = audit.Principal{ObjectID: sp.ObjectID, AppID: app.AppID, TenantID: tenant, Kind: audit.KindServicePrincipal, Name: name}
	if role != "" {
		r.grant(name, role, scope)
	}
	return r.people[name]
}

func (r *rig) grant(name, role, scope string) {
	r.t.Helper()
	p := r.people[name]
	_, _, err := r.rbac.PutAssignment(r.t.Context(), rbac.Assignment{
		Name: uuid.NewString(), TenantID: tenant, Scope: scope, RoleDefinitionID: role, PrincipalID: p.ObjectID, CreatedBy: p.ObjectID,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// at reads a member of the answer by its path: properties.outputs.id.value.
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

func (r *rig) do(as, method, path string, body any) *answer {
	r.t.Helper()
	if !strings.Contains(path, "?") {
		path += "?api-version=" + versionFor(path)
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
	req.Header.Set("Authorization", "Bearer "+as)
	w := httptest.NewRecorder()
	r.edge.ServeHTTP(w, req)
	return &answer{w.Code, w.Header(), w.Body.Bytes()}
}

func versionFor(path string) string {
	path = strings.ToLower(path)
	switch {
	case strings.Contains(path, "microsoft.resources/deployments"):
		return "2021-04-01"
	case strings.Contains(path, "microsoft.authorization"):
		return "2022-04-01"
	case strings.Contains(path, "microsoft.keyvault"):
		return "2022-07-01"
	case strings.Contains(path, "microsoft.managedidentity"):
		return "2023-01-31"
	}
	return "2021-04-01"
}

func (r *rig) must(status int, as, method, path string, body any) *answer {
	r.t.Helper()
	a := r.do(as, method, path, body)
	if a.status != status {
		r.t.Fatalf("%s %s as %q: %d, want %d: %s", method, path, as, a.status, status, a.body)
	}
	return a
}

// refused is do with a demand on status and code.
func (r *rig) refused(status int, code, as, method, path string, body any) *answer {
	r.t.Helper()
	a := r.do(as, method, path, body)
	if a.status != status || a.at("error.code") != code {
		r.t.Errorf("%s %s as %q: %d, want %d %s: %s", method, path, as, a.status, status, code, a.body)
	}
	return a
}

// body is what az sends: the template as it is written, behind a key without
// quotes.
func body(template string, parameters map[string]any) string {
	values := map[string]any{}
	for k, v := range parameters {
		values[k] = map[string]any{"value": v}
	}
	enc, _ := json.Marshal(values)
	return `{"properties": {"parameters": ` + string(enc) + `, "mode": "Incremental", template:` + template + `}}`
}

// simple is a template with the given sections.
func simple(sections string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", ` + sections + `}`
}

// deploy demands success.
func (r *rig) deploy(as, path, template string, parameters map[string]any) *answer {
	r.t.Helper()
	a := r.do(as, "PUT", path, body(template, parameters))
	if a.status != 201 && a.status != 200 || a.at("properties.provisioningState") != "Succeeded" {
		r.t.Fatalf("deploy %s as %q: %d %s", path, as, a.status, a.body)
	}
	return a
}

// fails demands that a deployment is accepted and fails, and returns how it
// then is, with the headers of the first answer.
func (r *rig) fails(as, path, body string) *answer {
	r.t.Helper()
	a := r.do(as, "PUT", path, body)
	if a.status != 201 && a.status != 200 || a.at("properties.provisioningState") != "Accepted" {
		r.t.Fatalf("deploy %s as %q: %d %s", path, as, a.status, a.body)
	}
	b := r.must(200, as, "GET", path, nil)
	if b.at("properties.provisioningState") != "Failed" {
		r.t.Fatalf("deploy %s as %q: %s", path, as, b.body)
	}
	b.header = a.header
	return b
}
