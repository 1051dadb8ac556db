package rbac_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

const (
	tenantA = "aaaaaaaa-0000-4000-8000-000000000001"
	tenantB = "bbbbbbbb-0000-4000-8000-000000000001"
	sub     = "/subscriptions/11111111-0000-4000-8000-000000000001"
	group   = sub + "/resourceGroups/Apps"
	vault   = group + "/providers/Microsoft.KeyVault/vaults/kv1"

	getSecret = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	setSecret = "Microsoft.KeyVault/vaults/secrets/setSecret/action"
	writeRole = "Microsoft.Authorization/roleAssignments/write"
)

// fixture is a directory with two tenants and an RBAC over a real store.
type fixture struct {
	*rbac.RBAC
	t         testing.TB
	directory *directory.Directory
	out       *lines
	names     int
}

// lines collects what the audit log writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
	err error
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	return l.buf.Write(p)
}

// last is the last audit line; without one the test fails.
func (l *lines) last(t testing.TB) map[string]string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	var m map[string]string
	if err := json.Unmarshal([]byte(all[len(all)-1]), &m); err != nil {
		t.Fatalf("%v in %q", err, all)
	}
	return m
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, out: &lines{}}
	storetest.New(t, "", func(s *store.Store) {
		f.directory = directory.New(s, directory.Options{})
		f.RBAC = rbac.New(s, f.directory, audit.New(f.out, audit.Options{}), rbac.Options{})
	})
	for _, id := range []string{tenantA, tenantB} {
		if _, err := f.directory.CreateTenant(t.Context(), directory.Tenant{ID: id, DisplayName: id[:4]}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// identity makes a managed identity in a tenant and returns it as a caller.
func (f *fixture) identity(tenant string) audit.Principal {
	f.t.Helper()
	f.names++
	m, _, err := f.directory.PutIdentity(f.t.Context(), directory.ManagedIdentity{
		ResourceID: fmt.Sprintf("%s/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id%d", group, f.names),
		Name:       fmt.Sprint("id", f.names), Location: "westeurope", TenantID: tenant,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return audit.Principal{
		ObjectID: m.PrincipalID, AppID: m.ClientID, TenantID: tenant,
		Issuer: "https://sts.windows.net/" + tenant + "/", Kind: audit.KindServicePrincipal, Name: m.Name,
	}
}

// assign gives a role and returns the assignment.
func (f *fixture) assign(p audit.Principal, role, scope string) rbac.Assignment {
	f.t.Helper()
	f.names++
	a, created, err := f.PutAssignment(f.t.Context(), rbac.Assignment{
		Name: guid(f.names), TenantID: p.TenantID, Scope: scope, RoleDefinitionID: role, PrincipalID: p.ObjectID, CreatedBy: p.ObjectID,
	})
	if err != nil || !created {
		f.t.Fatalf("assign: created %v, %v", created, err)
	}
	return a
}

func guid(n int) string { return fmt.Sprintf("99999999-0000-4000-8000-%012d", n) }

// data is a request for a data action on an object of tenant A.
func data(p audit.Principal, action, object string) rbac.Request {
	return rbac.Request{Principal: p, Plane: "vault", Operation: "SecretGet", Action: action, Data: true, Object: object, TenantID: tenantA}
}

// control is a request for a management action on an object of tenant A.
func control(p audit.Principal, action, object string) rbac.Request {
	return rbac.Request{Principal: p, Plane: "management", Action: action, Object: object, TenantID: tenantA}
}

func (f *fixture) want(req rbac.Request, allowed bool) {
	f.t.Helper()
	got, err := f.Allowed(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	if got != allowed {
		f.t.Errorf("%s on %s: allowed = %v, want %v", req.Action, req.Object, got, allowed)
	}
}
