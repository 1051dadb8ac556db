package rbac_test

import (
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/rbac"
)

func TestDefinitions(t *testing.T) {
	f := newFixture(t)
	defs, err := f.Definitions(t.Context(), tenantA, vault, false)
	if err != nil {
		t.Fatal(err)
	}
	names, ids := map[string]bool{}, map[string]bool{}
	for i, d := range defs {
		if names[d.Name] || ids[d.ID] {
			t.Errorf("%s is there twice", d.Name)
		}
		names[d.Name], ids[d.ID] = true, true
		if i > 0 && defs[i-1].Name > d.Name {
			t.Errorf("%s comes after %s", d.Name, defs[i-1].Name)
		}
		if d.Type != rbac.BuiltInRole || d.Description == "" || len(d.AssignableScopes) != 1 {
			t.Errorf("%+v", d)
		}
		if d.Actions == nil || d.NotActions == nil || d.DataActions == nil || d.NotDataActions == nil {
			t.Errorf("%s has a list that would be null", d.Name)
		}
		got, ok, err := f.Definition(t.Context(), tenantA, strings.ToUpper(d.ID))
		if err != nil || !ok || got.Name != d.Name {
			t.Errorf("%s is not found by its id", d.Name)
		}
	}
	for _, name := range []string{"Owner", "Contributor", "Reader", "User Access Administrator", "Managed Identity Operator", "Key Vault Secrets User"} {
		if !names[name] {
			t.Errorf("no %s", name)
		}
	}
	if len(defs) != 22 {
		t.Errorf("%d definitions", len(defs))
	}
	if _, ok, err := f.Definition(t.Context(), tenantA, "Owner"); ok || err != nil {
		t.Errorf("found by name: %v %v", ok, err)
	}
}

func TestCondition(t *testing.T) {
	f := newFixture(t)
	d, _, _ := f.Definition(t.Context(), tenantA, rbac.KeyVaultDataAccessAdministrator)
	c := d.Condition()
	for _, part := range []string{
		"((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals{" + rbac.KeyVaultAdministrator + ", ",
		" AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[",
		rbac.KeyVaultSecretsUser + "}))",
	} {
		if !strings.Contains(c, part) {
			t.Errorf("%s\nlacks %s", c, part)
		}
	}
	if d, _, _ := f.Definition(t.Context(), tenantA, rbac.Owner); d.Condition() != "" {
		t.Error(d.Condition())
	}
}
