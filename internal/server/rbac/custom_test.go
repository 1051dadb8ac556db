package rbac_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
)

const readVault = "Microsoft.KeyVault/vaults/read"

// custom is a role of tenant A that may read vaults, at a scope.
func custom(n int, scopes ...string) rbac.RoleDefinition {
	return rbac.RoleDefinition{
		ID: guid(1000 + n), TenantID: tenantA, Name: fmt.Sprint("Role ", n), UpdatedBy: "me",
		AssignableScopes: scopes, Actions: []string{"Microsoft.KeyVault/*/read"}, DataActions: []string{getSecret},
	}
}

func (f *fixture) define(d rbac.RoleDefinition, judged ...string) rbac.RoleDefinition {
	f.t.Helper()
	got, _, err := f.PutDefinition(f.t.Context(), d, append(judged, d.AssignableScopes...))
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

// custom counts the custom roles.
func (f *fixture) custom(all []rbac.RoleDefinition) (n int) {
	for _, d := range all {
		if d.Type == rbac.CustomRole {
			n++
		}
	}
	return n
}

func TestCustomRoleGrantsWhatItSays(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	d := custom(1, group)
	d.Actions, d.NotActions = []string{"Microsoft.KeyVault/*"}, []string{"Microsoft.KeyVault/*/Delete"}
	d = f.define(d)
	if d.Type != rbac.CustomRole || d.CreatedBy != "me" || d.CreatedOn.IsZero() || d.NotDataActions == nil {
		t.Errorf("%+v", d)
	}
	f.want(control(p, readVault, vault), false)
	f.assign(p, d.ID, group)
	f.want(control(p, strings.ToUpper(readVault), vault), true)
	f.want(control(p, "Microsoft.KeyVault/vaults/delete", vault), false)
	f.want(control(p, "Microsoft.ManagedIdentity/userAssignedIdentities/read", vault), false)
	f.want(data(p, getSecret, vault+"/secrets/s"), true)
	f.want(data(p, setSecret, vault+"/secrets/s"), false)
	f.want(control(p, readVault, sub), false)

	// A change counts at once, and so does its undoing.
	more := d
	more.DataActions = []string{getSecret, setSecret}
	f.define(more)
	f.want(data(p, setSecret, vault+"/secrets/s"), true)
	f.define(d)
	f.want(data(p, setSecret, vault+"/secrets/s"), false)
	if _, err := f.Authorize(t.Context(), data(p, getSecret, vault)); err != nil || !strings.Contains(f.out.last(t)["reason"], "Role 1 at ") {
		t.Errorf("%v %v", err, f.out.last(t))
	}
}

func TestCustomRoleIsItsTenants(t *testing.T) {
	f := newFixture(t)
	p, q := f.identity(tenantA), f.identity(tenantB)
	d := f.define(custom(1, sub))
	for tenant, want := range map[string]bool{tenantA: true, strings.ToUpper(tenantA): true, tenantB: false, "": false} {
		if _, ok, err := f.Definition(t.Context(), tenant, strings.ToUpper(d.ID)); ok != want || err != nil {
			t.Errorf("%q: %v %v", tenant, ok, err)
		}
		all, err := f.Definitions(t.Context(), tenant, sub, true)
		if err != nil || (f.custom(all) == 1) != want {
			t.Errorf("%q: %d roles, %v", tenant, len(all), err)
		}
	}
	_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{Name: guid(1), TenantID: tenantB, Scope: sub, RoleDefinitionID: d.ID, PrincipalID: q.ObjectID})
	wantFault(t, err, fault.Invalid, "RoleDefinitionDoesNotExist")
	// The other tenant may use both GUID and name for its own.
	other := custom(1, sub)
	other.TenantID, other.Actions = tenantB, []string{"*"}
	f.define(other)
	f.assign(p, d.ID, sub)
	f.want(control(p, "Microsoft.KeyVault/vaults/write", vault), false)
	if _, existed, err := f.DeleteDefinition(t.Context(), tenantB, d.ID, []string{sub}); !existed || err != nil {
		t.Error(existed, err)
	}
	f.want(control(p, readVault, vault), true)
}

func TestCustomRoleCanBeAssignedWhereItSays(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	d := f.define(custom(1, group, sub+"/resourceGroups/Other"))
	for scope, ok := range map[string]bool{
		group: true, strings.ToUpper(group): true, vault: true, sub + "/resourcegroups/OTHER/providers/X.Y/z/a": true,
		sub: false, group + "s": false, "/": false, "/providers/Microsoft.Management/managementGroups/" + tenantA: false,
		strings.Replace(group, "1111", "2222", 1): false,
	} {
		a := rbac.Assignment{Name: guid(len(scope)), TenantID: tenantA, Scope: scope, RoleDefinitionID: d.ID, PrincipalID: p.ObjectID}
		_, _, err := f.PutAssignment(t.Context(), a)
		if ok != (err == nil) {
			t.Errorf("%s: %v", scope, err)
		}
		if err != nil {
			wantFault(t, err, fault.Invalid, "RoleAssignmentScopeNotAssignableToRoleDefinition")
		} else if _, _, err := f.DeleteAssignment(t.Context(), tenantA, scope, a.Name); err != nil {
			t.Fatal(err)
		}
	}
	for scope, want := range map[string][2]bool{ // seen at the scope, and with what can be assigned below
		group: {true, true}, vault: {true, true}, sub: {false, true}, "/": {false, true}, strings.ToUpper(sub): {false, true}, sub + "1": {false, false},
	} {
		for i, below := range []bool{false, true} {
			all, err := f.Definitions(t.Context(), tenantA, scope, below)
			if err != nil || (f.custom(all) == 1) != want[i] {
				t.Errorf("%s, below %v: %d roles, %v", scope, below, len(all), err)
			}
		}
		if d.SeenFrom(scope) != want[1] {
			t.Errorf("%s: %v", scope, !want[1])
		}
	}
}

func TestAssignedRoleStays(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	d := f.define(custom(1, group, sub))
	a := f.assign(p, d.ID, sub)
	less := d
	less.AssignableScopes = []string{group}
	_, _, err := f.PutDefinition(t.Context(), less, d.AssignableScopes)
	wantFault(t, err, fault.Invalid, "RoleDefinitionHasAssignments")
	_, _, err = f.DeleteDefinition(t.Context(), tenantA, d.ID, d.AssignableScopes)
	wantFault(t, err, fault.Invalid, "RoleDefinitionHasAssignments")
	if _, _, err := f.DeleteAssignment(t.Context(), tenantA, sub, a.Name); err != nil {
		t.Fatal(err)
	}
	f.define(less, d.AssignableScopes...)
	got, existed, err := f.DeleteDefinition(t.Context(), strings.ToUpper(tenantA), strings.ToUpper(d.ID), []string{strings.ToUpper(group)})
	if err != nil || !existed || got.ID != d.ID {
		t.Error(got, existed, err)
	}
	if _, existed, err := f.DeleteDefinition(t.Context(), tenantA, d.ID, nil); err != nil || existed {
		t.Error(existed, err)
	}
	_, _, err = f.DeleteDefinition(t.Context(), tenantA, rbac.Reader, []string{"/"})
	wantFault(t, err, fault.Invalid, "RoleDefinitionUpdateNotPermitted")
}

func TestBadDefinitions(t *testing.T) {
	f := newFixture(t)
	f.define(custom(1, sub))
	many := make([]string, 4001)
	for i := range many {
		many[i] = fmt.Sprintf("A.B/c%d/read", i)
	}
	for name, c := range map[string]struct {
		change func(*rbac.RoleDefinition)
		code   string
	}{
		"id":                     {func(d *rbac.RoleDefinition) { d.ID = "Reader" }, "InvalidRoleDefinitionId"},
		"id of a built-in role":  {func(d *rbac.RoleDefinition) { d.ID = strings.ToUpper(rbac.Owner) }, "RoleDefinitionUpdateNotPermitted"},
		"tenant":                 {func(d *rbac.RoleDefinition) { d.TenantID = "" }, "InvalidTenantId"},
		"no name":                {func(d *rbac.RoleDefinition) { d.Name = "" }, "InvalidRoleDefinitionName"},
		"long name":              {func(d *rbac.RoleDefinition) { d.Name = strings.Repeat("ü", 513) }, "InvalidRoleDefinitionName"},
		"line in name":           {func(d *rbac.RoleDefinition) { d.Name = "a\nb" }, "InvalidRoleDefinitionName"},
		"blank name":             {func(d *rbac.RoleDefinition) { d.Name = "Reader " }, "InvalidRoleDefinitionName"},
		"name of another":        {func(d *rbac.RoleDefinition) { d.Name = "ROLE 1" }, "RoleDefinitionWithSameNameExists"},
		"name of a built-in one": {func(d *rbac.RoleDefinition) { d.Name = "key vault secrets user" }, "RoleDefinitionWithSameNameExists"},
		"description":            {func(d *rbac.RoleDefinition) { d.Description = strings.Repeat("x", 2049) }, "InvalidRoleDefinitionDescription"},
		"no scope":               {func(d *rbac.RoleDefinition) { d.AssignableScopes = nil }, "InvalidAssignableScopes"},
		"root":                   {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{sub, "/"} }, "InvalidAssignableScopes"},
		"empty scope":            {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{""} }, "InvalidAssignableScopes"},
		"management group": {func(d *rbac.RoleDefinition) {
			d.AssignableScopes = []string{"/providers/Microsoft.Management/managementGroups/" + tenantA}
		}, "InvalidAssignableScopes"},
		"resource":                 {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{vault} }, "InvalidAssignableScopes"},
		"no subscription":          {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{"/subscriptions/x"} }, "InvalidAssignableScopes"},
		"half a scope":             {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{sub + "/resourceGroups"} }, "InvalidAssignableScopes"},
		"double slash":             {func(d *rbac.RoleDefinition) { d.AssignableScopes = []string{sub + "//resourceGroups/g"} }, "InvalidAssignableScopes"},
		"action":                   {func(d *rbac.RoleDefinition) { d.Actions = []string{"read"} }, "InvalidActionOrNotAction"},
		"empty action":             {func(d *rbac.RoleDefinition) { d.NotActions = []string{""} }, "InvalidActionOrNotAction"},
		"blank action":             {func(d *rbac.RoleDefinition) { d.DataActions = []string{"A.B/c d/read"} }, "InvalidActionOrNotAction"},
		"empty segment":            {func(d *rbac.RoleDefinition) { d.NotDataActions = []string{"A.B//read"} }, "InvalidActionOrNotAction"},
		"letter":                   {func(d *rbac.RoleDefinition) { d.Actions = []string{"A.B/ſ/read"} }, "InvalidActionOrNotAction"},
		"many actions":             {func(d *rbac.RoleDefinition) { d.Actions = many }, "RoleDefinitionTooLarge"},
		"the server's own":         {func(d *rbac.RoleDefinition) { d.Actions = []string{"podkey.ADMIN/rotateKeys/action"} }, "InvalidActionOrNotAction"},
		"the server's own as data": {func(d *rbac.RoleDefinition) { d.DataActions = []string{"Podkey.Admin/*"} }, "InvalidActionOrNotAction"},
	} {
		t.Run(name, func(t *testing.T) {
			d := custom(2, sub)
			c.change(&d)
			_, _, err := f.PutDefinition(t.Context(), d, d.AssignableScopes)
			kind := fault.Invalid
			if c.code == "RoleDefinitionWithSameNameExists" {
				kind = fault.Clash
			}
			wantFault(t, err, kind, c.code)
		})
	}
	if all, err := f.Definitions(t.Context(), tenantA, "/", true); err != nil || f.custom(all) != 1 {
		t.Errorf("%d roles, %v", len(all), err)
	}
	// A role may be given the name that it has, in other letters, and a name
	// that became free.
	again := custom(1, sub)
	again.Name = "role 1"
	f.define(again)
	again.Name = "Free"
	f.define(again)
	free := custom(2, sub)
	free.Name = "Role 1"
	f.define(free)
}

// TestAttackCustomRoleNeverReachesTheRoot: whatever its actions are, a custom
// role gives nothing at the tenant's root, where the server's own operations
// and the directory are. A record from elsewhere that says otherwise, such as
// one of a later version of the program, gives nothing at all.
func TestAttackCustomRoleNeverReachesTheRoot(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	d := custom(1, sub)
	d.Actions, d.DataActions = []string{"*"}, []string{"*"}
	d = f.define(d)
	f.assign(p, d.ID, sub)
	f.want(control(p, "Microsoft.KeyVault/vaults/write", vault), true)
	for _, object := range []string{"/", "/providers/Podkey.Admin/rotateKeys", "/providers/Microsoft.Management/managementGroups/" + tenantA, "/subscriptions"} {
		f.want(control(p, "Podkey.Admin/rotateKeys/action", object), false)
		f.want(control(p, "Microsoft.Authorization/roleAssignments/write", object), false)
	}
}

// TestAttackRoleChangedBehindTheJudge: the caller was judged at the scopes
// that the role had; somebody else has made it assignable elsewhere since.
func TestAttackRoleChangedBehindTheJudge(t *testing.T) {
	f := newFixture(t)
	d := f.define(custom(1, group))
	wider := d
	wider.AssignableScopes = []string{group, sub}
	f.define(wider)
	mine := d
	mine.Actions = []string{"*"}
	_, _, err := f.PutDefinition(t.Context(), mine, []string{group})
	wantFault(t, err, fault.Clash, "RoleDefinitionUpdateConflict")
	_, _, err = f.DeleteDefinition(t.Context(), tenantA, d.ID, []string{group})
	wantFault(t, err, fault.Clash, "RoleDefinitionUpdateConflict")
	got, _, err := f.Definition(t.Context(), tenantA, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wider, got, cmpopts.IgnoreFields(rbac.RoleDefinition{}, "UpdatedOn", "CreatedOn")); diff != "" {
		t.Error(diff)
	}
}

// TestConcurrentRoleAndAssignment: whoever wins, no assignment is left of a
// role that is gone.
func TestConcurrentRoleAndAssignment(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	for n := range 10 {
		d := f.define(custom(n, sub))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := f.DeleteDefinition(t.Context(), tenantA, d.ID, []string{sub})
			if err != nil && !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{Name: guid(n), TenantID: tenantA, Scope: sub, RoleDefinitionID: d.ID, PrincipalID: p.ObjectID})
			if err != nil && !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
		})
		wg.Wait()
		_, there, err := f.Definition(t.Context(), tenantA, d.ID)
		_, assigned, err2 := f.Assignment(t.Context(), tenantA, sub, guid(n))
		if err != nil || err2 != nil || there != assigned {
			t.Errorf("role there: %v, assigned: %v, %v %v", there, assigned, err, err2)
		}
	}
}

// TestCustomRoleNames: of many that want one name, one gets it.
func TestConcurrentRolesOfOneName(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			d := custom(n, sub)
			d.Name = "Same"
			if _, _, err := f.PutDefinition(t.Context(), d, d.AssignableScopes); err != nil {
				wantFault(t, err, fault.Clash, "RoleDefinitionWithSameNameExists")
			}
		})
	}
	wg.Wait()
	if all, err := f.Definitions(t.Context(), tenantA, sub, false); err != nil || f.custom(all) != 1 {
		t.Errorf("%d roles, %v", len(all), err)
	}
}

// FuzzDefinition: what is accepted stays in bounds, whatever was asked for.
func FuzzDefinition(f *testing.F) {
	fx := newFixture(f)
	f.Add("Role", "Microsoft.KeyVault/*/read", sub)
	f.Add("R", "*", group+"/")
	f.Add("R", "*/read", "/")
	f.Fuzz(func(t *testing.T, name, action, scope string) {
		d := rbac.RoleDefinition{ID: guid(1), TenantID: tenantA, Name: name, AssignableScopes: []string{scope}, Actions: []string{action}, DataActions: []string{action}}
		if fx.CheckDefinition(&d) != nil {
			return
		}
		for _, s := range d.AssignableScopes {
			if !strings.HasPrefix(strings.ToLower(s), "/subscriptions/") || strings.HasSuffix(s, "/") || strings.Contains(s, "//") {
				t.Errorf("scope %q", s)
			}
		}
		if strings.HasPrefix(strings.ToLower(d.Actions[0]), "podkey.admin/") || strings.TrimSpace(name) != name {
			t.Errorf("%q %q", name, d.Actions)
		}
		again := d
		if err := fx.CheckDefinition(&again); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	})
}
