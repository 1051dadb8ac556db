package rbac_test

import (
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
)

func TestPutAssignment(t *testing.T) {
	f := newFixture(t)
	p, q := f.identity(tenantA), f.identity(tenantA)
	base := rbac.Assignment{
		Name: strings.ToUpper(guid(1)), TenantID: strings.ToUpper(tenantA), Scope: vault + "/",
		RoleDefinitionID: sub + "/providers/microsoft.authorization/roleDefinitions/" + strings.ToUpper(rbac.Reader),
		PrincipalID:      strings.ToUpper(p.ObjectID), CreatedBy: q.ObjectID,
	}
	a, created, err := f.PutAssignment(t.Context(), base)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if a.Name != guid(1) || a.Scope != vault || a.RoleDefinitionID != rbac.Reader || a.PrincipalID != p.ObjectID || a.PrincipalType != "ServicePrincipal" || a.CreatedOn.IsZero() {
		t.Errorf("%+v", a)
	}
	if want := vault + "/providers/Microsoft.Authorization/roleAssignments/" + guid(1); a.ID() != want {
		t.Errorf("id %s, want %s", a.ID(), want)
	}

	again := base
	again.Description, again.CreatedBy, again.Scope = "why", p.ObjectID, strings.ToLower(vault)
	b, created, err := f.PutAssignment(t.Context(), again)
	if err != nil || created || b.Description != "why" || b.CreatedBy != q.ObjectID || b.UpdatedBy != p.ObjectID || b.Scope != vault {
		t.Errorf("%+v %v %v", b, created, err)
	}

	for name, tt := range map[string]struct {
		change func(*rbac.Assignment)
		kind   fault.Kind
		code   string
	}{
		"same under another name":    {func(a *rbac.Assignment) { a.Name = guid(2) }, fault.Clash, "RoleAssignmentExists"},
		"same name, other role":      {func(a *rbac.Assignment) { a.RoleDefinitionID = rbac.Owner }, fault.Invalid, "RoleAssignmentUpdateNotPermitted"},
		"same name, other principal": {func(a *rbac.Assignment) { a.PrincipalID = q.ObjectID }, fault.Invalid, "RoleAssignmentUpdateNotPermitted"},
		"same name, other scope":     {func(a *rbac.Assignment) { a.Scope = group }, fault.Invalid, "RoleAssignmentUpdateNotPermitted"},
		"name":                       {func(a *rbac.Assignment) { a.Name = "one" }, fault.Invalid, "InvalidRoleAssignmentId"},
		"braced name":                {func(a *rbac.Assignment) { a.Name = "{" + guid(1) + "}" }, fault.Invalid, "InvalidRoleAssignmentId"},
		"tenant":                     {func(a *rbac.Assignment) { a.TenantID = "" }, fault.Invalid, "InvalidTenantId"},
		"role":                       {func(a *rbac.Assignment) { a.RoleDefinitionID = guid(7) }, fault.Invalid, "RoleDefinitionDoesNotExist"},
		"role by name":               {func(a *rbac.Assignment) { a.RoleDefinitionID = "Reader" }, fault.Invalid, "InvalidRoleDefinitionId"},
		"id of another type":         {func(a *rbac.Assignment) { a.RoleDefinitionID = vault + "/" + rbac.Reader }, fault.Invalid, "InvalidRoleDefinitionId"},
		"principal":                  {func(a *rbac.Assignment) { a.PrincipalID = "me" }, fault.Invalid, "InvalidPrincipalId"},
		"unknown principal":          {func(a *rbac.Assignment) { a.PrincipalID = guid(8) }, fault.Invalid, "PrincipalNotFound"},
		"principal's type":           {func(a *rbac.Assignment) { a.PrincipalType = "User" }, fault.Invalid, "UnmatchedPrincipalType"},
		"unknown type":               {func(a *rbac.Assignment) { a.PrincipalType = "Robot" }, fault.Invalid, "InvalidPrincipalType"},
		"description":                {func(a *rbac.Assignment) { a.Description = strings.Repeat("x", 1025) }, fault.Invalid, "RoleAssignmentDescriptionTooLong"},
	} {
		t.Run(name, func(t *testing.T) {
			a := base
			tt.change(&a)
			_, _, err := f.PutAssignment(t.Context(), a)
			wantFault(t, err, tt.kind, tt.code)
		})
	}
	if all, err := f.Assignments(t.Context(), tenantA, "/", rbac.Filter{}); err != nil || len(all) != 1 {
		t.Errorf("%d assignments, %v", len(all), err)
	}
}

func TestAssignments(t *testing.T) {
	f := newFixture(t)
	p, q := f.identity(tenantA), f.identity(tenantA)
	f.assign(p, rbac.Reader, "/")
	f.assign(p, rbac.Reader, sub)
	f.assign(q, rbac.Reader, group)
	f.assign(p, rbac.Reader, vault)
	f.assign(p, rbac.Reader, sub+"/resourceGroups/other")
	root := "/providers/Microsoft.Management/managementGroups/" + tenantA
	f.assign(p, rbac.Owner, root)

	for _, tt := range []struct {
		name, scope string
		filter      rbac.Filter
		want        []string
	}{
		{"all around a group", group, rbac.Filter{}, []string{"/", root, sub, group, vault}},
		{"without below", group, rbac.Filter{AtScope: true}, []string{"/", root, sub, group}},
		{"of one principal", strings.ToLower(group), rbac.Filter{PrincipalID: strings.ToUpper(p.ObjectID)}, []string{"/", root, sub, vault}},
		{"of another principal", group, rbac.Filter{PrincipalID: q.ObjectID}, []string{group}},
		{"of one principal, without below", group, rbac.Filter{PrincipalID: p.ObjectID, AtScope: true}, []string{"/", root, sub}},
		{"of nobody", group, rbac.Filter{PrincipalID: guid(77)}, nil},
		{"everything", "/", rbac.Filter{}, []string{"/", root, sub, group, vault, sub + "/resourceGroups/other"}},
		{"below a vault of a similar name", vault + "2", rbac.Filter{AtScope: true}, []string{"/", root, sub, group}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := f.Assignments(t.Context(), tenantA, tt.scope, tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			var scopes []string
			for _, a := range got {
				scopes = append(scopes, a.Scope)
			}
			if strings.Join(scopes, " ") != strings.Join(tt.want, " ") {
				t.Errorf("got  %v\nwant %v", scopes, tt.want)
			}
		})
	}
	if a, ok, err := f.Assignment(t.Context(), strings.ToUpper(tenantA), strings.ToUpper(sub), strings.ToUpper(got1(t, f).Name)); err != nil || !ok || a.Scope != sub {
		t.Errorf("%+v %v %v", a, ok, err)
	}
	if _, ok, err := f.Assignment(t.Context(), tenantA, group, got1(t, f).Name); err != nil || ok {
		t.Errorf("found at another scope: %v %v", ok, err)
	}
}

// got1 is the assignment at the subscription.
func got1(t *testing.T, f *fixture) rbac.Assignment {
	t.Helper()
	all, err := f.Assignments(t.Context(), tenantA, sub, rbac.Filter{AtScope: true})
	if err != nil {
		t.Fatal(err)
	}
	return all[len(all)-1]
}

func TestRoleIDAt(t *testing.T) {
	for scope, want := range map[string]string{
		"/":   "/providers/Microsoft.Authorization/roleDefinitions/" + rbac.Reader,
		sub:   sub + "/providers/Microsoft.Authorization/roleDefinitions/" + rbac.Reader,
		vault: sub + "/providers/Microsoft.Authorization/roleDefinitions/" + rbac.Reader,
		"/providers/Microsoft.Management/managementGroups/g": "/providers/Microsoft.Authorization/roleDefinitions/" + rbac.Reader,
	} {
		got := rbac.RoleIDAt(scope, rbac.Reader)
		if got != want {
			t.Errorf("at %s: %s, want %s", scope, got, want)
		}
		if rbac.RoleID(got) != rbac.Reader {
			t.Errorf("RoleID(%s) = %s", got, rbac.RoleID(got))
		}
	}
}
