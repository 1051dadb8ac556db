package rbac_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/rbac"
)

// naive decides by the words of the rules, slowly and from the exported
// definitions alone.
func naive(defs []rbac.RoleDefinition, assignments []rbac.Assignment, req rbac.Request) bool {
	for _, a := range assignments {
		if a.TenantID != req.TenantID || req.Principal.TenantID != req.TenantID {
			continue
		}
		if a.PrincipalID != req.Principal.ObjectID && !slices.Contains(req.Principal.Groups, a.PrincipalID) {
			continue
		}
		scope := strings.Split(strings.ToLower(strings.TrimSuffix(a.Scope, "/")), "/")
		object := strings.Split(strings.ToLower(req.Object), "/")
		if len(object) < len(scope) || !slices.Equal(object[:len(scope)], scope) {
			continue
		}
		i := slices.IndexFunc(defs, func(d rbac.RoleDefinition) bool { return d.ID == a.RoleDefinitionID })
		d := defs[i]
		yes, no := d.Actions, d.NotActions
		if req.Data {
			yes, no = d.DataActions, d.NotDataActions
		}
		limited := d.MayAssign != nil && strings.HasPrefix(strings.ToLower(req.Action), "microsoft.authorization/roleassignments/") &&
			!strings.HasSuffix(strings.ToLower(req.Action), "/read") && !slices.Contains(d.MayAssign, req.RoleDefinitionID)
		if anyGlob(yes, req.Action) && !anyGlob(no, req.Action) && !limited {
			return true
		}
	}
	return false
}

func anyGlob(patterns []string, action string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		re := strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*")
		return regexp.MustCompile(`(?i)\A` + re + `\z`).MatchString(action)
	})
}

func TestDecisionsAgreeWithNaiveEvaluator(t *testing.T) {
	f := newFixture(t)
	defs, err := f.Definitions(t.Context(), tenantA, "/", false)
	if err != nil {
		t.Fatal(err)
	}
	people := []audit.Principal{f.identity(tenantA), f.identity(tenantA), f.identity(tenantB)}
	teams := []string{"77777777-0000-4000-8000-000000000001", "77777777-0000-4000-8000-000000000002"}
	scopes := []string{"/", sub, group, strings.ToUpper(group), vault, vault + "2", vault + "/secrets/a", vault + "/secrets/ab", sub + "/resourceGroups/Apps2"}
	var actions []string
	for _, d := range defs {
		for _, p := range slices.Concat(d.Actions, d.NotActions, d.DataActions) {
			actions = append(actions, strings.ReplaceAll(p, "*", "x"), strings.ToUpper(strings.ReplaceAll(p, "*", "x/y")), strings.ReplaceAll(p, "*", "read"))
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		for _, tenant := range []string{tenantA, tenantB} {
			if err := f.DeleteScope(t.Context(), tenant, "/"); err != nil {
				rt.Fatal(err)
			}
		}
		var assignments []rbac.Assignment
		for i := range rapid.IntRange(0, 4).Draw(rt, "assignments") {
			a := rbac.Assignment{
				Name:             guid(i),
				Scope:            rapid.SampledFrom(scopes).Draw(rt, "scope"),
				RoleDefinitionID: rapid.SampledFrom(defs).Draw(rt, "role").ID,
			}
			if rapid.Bool().Draw(rt, "group") {
				a.PrincipalID, a.PrincipalType, a.TenantID = rapid.SampledFrom(teams).Draw(rt, "team"), rbac.TypeGroup, tenantA
			} else {
				p := rapid.SampledFrom(people).Draw(rt, "principal")
				a.PrincipalID, a.TenantID = p.ObjectID, p.TenantID
			}
			put, created, err := f.PutAssignment(t.Context(), a)
			if err != nil {
				continue // the same again
			}
			if created {
				assignments = append(assignments, put)
			}
		}
		for range 40 {
			p := rapid.SampledFrom(people).Draw(rt, "caller")
			p.Groups = rapid.SliceOfN(rapid.SampledFrom(teams), 0, 2).Draw(rt, "groups")
			req := rbac.Request{
				Principal:        p,
				Action:           rapid.SampledFrom(actions).Draw(rt, "action"),
				Data:             rapid.Bool().Draw(rt, "data"),
				Object:           rapid.SampledFrom(scopes).Draw(rt, "object"),
				TenantID:         rapid.SampledFrom([]string{tenantA, tenantB}).Draw(rt, "tenant"),
				RoleDefinitionID: rapid.SampledFrom(defs).Draw(rt, "assigned").ID,
			}
			got, err := f.Allowed(t.Context(), req)
			if err != nil {
				rt.Fatal(err)
			}
			if want := naive(defs, assignments, req); got != want {
				rt.Fatalf("allowed = %v, want %v for %+v\nunder %+v", got, want, req, assignments)
			}
		}
	})
}
