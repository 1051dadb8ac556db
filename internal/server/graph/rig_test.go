package graph

import (
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
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/web"
)

const (
	homeTenant  = "11111111-aaaa-4bbb-8ccc-000000000001"
	otherTenant = "22222222-aaaa-4bbb-8ccc-000000000002"
	identityID  = "/subscriptions/5a9c0b7e-1111-4222-8333-444455556666/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Shop"
)

// rig is the plane over real tables, behind the real edge. Its one seam is
// authentication: the bearer token is the name of a principal.
type rig struct {
	t      testing.TB
	d      *directory.Directory
	rbac   *rbac.RBAC
	audit  *lockedBuffer
	edge   http.Handler
	people map[string]audit.Principal // by bearer token
	mi     directory.ManagedIdentity
	fail   error // what authentication answers, if set
}

// lockedBuffer is an audit log that a test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	b   strings.Builder
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
	defer l.b.Reset()
	return l.b.String()
}

// newRig has two tenants and a managed identity. "owner" is Owner of the root
// of the home tenant, "contributor" and "reader" have those roles there,
// "member" has none; "operator" is a person and Owner, "person" one without
// a role; "stranger" is Owner of the root of the other tenant.
func newRig(t testing.TB) *rig {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	r := &rig{t: t, audit: &lockedBuffer{}, people: map[string]audit.Principal{}}
	log := audit.New(r.audit, audit.Options{Now: now})
	storetest.New(t, "", func(s *store.Store) {
		r.d = directory.New(s, directory.Options{Now: now})
		r.rbac = rbac.New(s, r.d, log, rbac.Options{Now: now})
	})
	h := &Handler{Directory: r.d, RBAC: r.rbac, Audit: log, Now: now, Authenticate: r.authenticate}
	r.serve(h.Plane())
	ctx := t.Context()
	for id, name := range map[string]string{homeTenant: "home", otherTenant: "other"} {
		_, err := r.d.CreateTenant(ctx, directory.Tenant{ID: id, DisplayName: name, Domains: []string{name + ".example", "x." + name + ".example"}})
		r.must(err)
	}
	r.app("owner", homeTenant, rbac.Owner)
	r.app("contributor", homeTenant, rbac.Contributor)
	r.app("reader", homeTenant, rbac.Reader)
	r.app("member", homeTenant, "")
	r.app("stranger", otherTenant, rbac.Owner)
	r.user("operator", rbac.Owner)
	r.user("person", "")
	var err error
	r.mi, _, err = r.d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: identityID, Name: "Shop", Location: "westeurope", TenantID: homeTenant})
	r.must(err)
	return r
}

// serve puts a plane behind the edge.
func (r *rig) serve(plane *web.Plane) {
	names := web.OwnNames("podkey.test")
	r.edge = &web.Edge{
		Log:   slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
		Now:   time.Now,
		Route: func(string) (*web.Plane, *web.Names, string) { return plane, names, "" },
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) authenticate(_ context.Context, bearer string) (audit.Principal, error) {
	p, ok := r.people[bearer]
	switch {
	case r.fail != nil:
		return p, r.fail
	case !ok:
		return p, &web.AuthError{Reason: web.AuthSignature}
	}
	return p, nil
}

// app makes an application with a principal that the bearer token name
// stands for, with a role at the root.
func (r *rig) app(name, tenant, role string) audit.Principal {
	r.t.Helper()
	a, err := r.d.CreateApplication(r.t.Context(), directory.Application{TenantID: tenant, DisplayName: name})
	r.must(err)
	sp, err := r.d.CreateServicePrincipal(r.t.Context(), directory.ServicePrincipal{TenantID: tenant, AppID: a.AppID})
	r.must(err)
	return r.known(name, audit.Principal{ObjectID: sp.ObjectID, AppID: a.AppID, TenantID: tenant, Kind: audit.KindServicePrincipal, Name: name}, role)
}

func (r *rig) user(name, role string) audit.Principal {
	r.t.Helper()
	u, err := r.d.CreateUser(r.t.Context(), directory.User{TenantID: homeTenant, UserPrincipalName: name + "@home.example", DisplayName: "The " + name}, "correct horse")
	r.must(err)
	return r.known(name, audit.Principal{ObjectID: u.ObjectID, TenantID: homeTenant, Kind: audit.KindUser, Name: name}, role)
}

func (r *rig) known(name string, p audit.Principal, role string) audit.Principal {
	r.t.Helper()
	r.people[name] = p
	if role != "" {
		_, _, err := r.rbac.PutAssignment(r.t.Context(), rbac.Assignment{
			Name: uuid.NewString(), TenantID: p.TenantID, Scope: "/", RoleDefinitionID: role, PrincipalID: p.ObjectID, CreatedBy: p.ObjectID,
		})
		r.must(err)
	}
	return p
}

// applicationOf is the application behind a name.
func (r *rig) applicationOf(name string) directory.Application {
	r.t.Helper()
	found, err := r.d.ApplicationsFor(r.t.Context(), r.people[name].TenantID, r.people[name].AppID)
	r.must(err)
	return found[0]
}

// answer is an HTTP answer with its body read.
type answer struct {
	*http.Response
	body string
}

// at reads a member of the answer by its path: "error.code", "value.0.id".
func (a *answer) at(path string) any {
	var v any
	_ = json.Unmarshal([]byte(a.body), &v)
	if strings.HasPrefix(path, "@") { // annotations have dots in their names
		m, _ := v.(map[string]any)
		return m[path]
	}
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

func (a *answer) text(path string) string { s, _ := a.at(path).(string); return s }

func (a *answer) code() string { return a.text("error.code") }

// list is a member of each object of a list.
func (a *answer) list(member string) []string {
	var l struct{ Value []map[string]any }
	_ = json.Unmarshal([]byte(a.body), &l)
	out := []string{}
	for _, v := range l.Value {
		s, _ := v[member].(string)
		out = append(out, s)
	}
	return out
}

// do sends a request as a principal; "" sends no token. Headers are "name: value".
func (r *rig) do(as, method, path, body string, headers ...string) *answer {
	r.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/v1.0/" + path
	}
	req := httptest.NewRequest(method, "https://graph.podkey.test"+path, strings.NewReader(body))
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.edge.ServeHTTP(w, req)
	b, err := io.ReadAll(w.Result().Body)
	r.must(err)
	return &answer{w.Result(), string(b)}
}

// want is do for a status that must come.
func (r *rig) want(status int, as, method, path, body string, headers ...string) *answer {
	r.t.Helper()
	a := r.do(as, method, path, body, headers...)
	if a.StatusCode != status {
		r.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, as, a.StatusCode, status, a.body)
	}
	return a
}
