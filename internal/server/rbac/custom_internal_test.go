package rbac

import (
	"io"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// TestRoleGivesNothingBeyondItsScopes: however a record came to be, a custom
// role gives nothing where it cannot be assigned.
func TestRoleGivesNothingBeyondItsScopes(t *testing.T) {
	const tenant, sub = "aaaaaaaa-0000-4000-8000-000000000001", "/subscriptions/11111111-0000-4000-8000-000000000001"
	var d *directory.Directory
	var r *RBAC
	s := storetest.New(t, "", func(s *store.Store) {
		d = directory.New(s, directory.Options{})
		r = New(s, d, audit.New(io.Discard, audit.Options{}), Options{})
	})
	ctx := t.Context()
	if _, err := d.CreateTenant(ctx, directory.Tenant{ID: tenant, DisplayName: "A"}); err != nil {
		t.Fatal(err)
	}
	m, _, err := d.PutIdentity(ctx, directory.ManagedIdentity{ResourceID: sub + "/x", Name: "x", Location: "westeurope", TenantID: tenant})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		assignable, assigned string
		want                 bool
	}{
		{sub, sub, true},
		{sub + "/resourceGroups/g", sub, false},
		{sub, "/", false},
	} {
		const guid = "99999999-0000-4000-8000-000000000001"
		err := s.Update(ctx, func(tx *store.Tx) error {
			def := RoleDefinition{ID: guid, TenantID: tenant, Name: "R", AssignableScopes: []string{c.assignable}, Actions: []string{"*"}}
			if err := r.custom.Put(tx, definitionKey(tenant, guid), def); err != nil {
				return err
			}
			a := Assignment{Name: guid, TenantID: tenant, Scope: c.assigned, RoleDefinitionID: guid, PrincipalID: m.PrincipalID}
			return r.assignments.Put(tx, assignmentKey(tenant, c.assigned, guid), a)
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Allowed(ctx, Request{
			Principal: audit.Principal{ObjectID: m.PrincipalID, TenantID: tenant}, Action: "A.B/c/write", Object: sub, TenantID: tenant,
		})
		if err != nil || got != c.want {
			t.Errorf("assignable at %s, assigned at %s: %v %v", c.assignable, c.assigned, got, err)
		}
		if _, _, err := r.DeleteAssignment(ctx, tenant, c.assigned, guid); err != nil {
			t.Fatal(err)
		}
	}
}
