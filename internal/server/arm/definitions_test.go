package arm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/rbac"
)

func definitionPath(scope, guid string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleDefinitions/" + guid
}

// roleRequest is a role that may do some actions, assignable at some scopes.
func roleRequest(name string, actions []string, scopes ...string) map[string]any {
	return map[string]any{"properties": map[string]any{
		"roleName": name, "description": "for a test", "type": "CustomRole", "assignableScopes": scopes,
		"permissions": []any{map[string]any{"actions": actions, "dataActions": []string{}}},
	}}
}

// permit gives a principal a custom role with some actions at a scope, behind
// the plane's back.
func (r *rig) permit(name, scope string, actions ...string) {
	r.t.Helper()
	d, _, err := r.h.o.RBAC.PutDefinition(r.t.Context(), rbac.RoleDefinition{
		ID: uuid.NewString(), TenantID: homeTenant, Name: uuid.NewString(), AssignableScopes: []string{"/subscriptions/" + homeSub}, Actions: actions,
	}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.grant(name, d.ID, scope)
}

func TestCustomRoleLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.makeGroup("g")
	v := r.makeVault("g", "kv-1")
	sub := "/subscriptions/" + homeSub
	r.person("user", homeTenant)
	guid := uuid.NewString()
	path := definitionPath(g, guid)
	a := r.must(201, "owner", "PUT", path, roleRequest("Vault Viewer", []string{"Microsoft.KeyVault/vaults/read"}, g))
	for member, want := range map[string]any{
		"id": definitionPath(sub, guid), "name": guid, "type": "Microsoft.Authorization/roleDefinitions",
		"properties.roleName": "Vault Viewer", "properties.type": "CustomRole", "properties.description": "for a test",
		"properties.assignableScopes.0": g, "properties.permissions.0.actions.0": "Microsoft.KeyVault/vaults/read",
		"properties.createdBy": r.people["owner"].ObjectID, "properties.createdOn": "2026-11-21T12:00:00Z",
	} {
		if a.at(member) != want {
			t.Errorf("%s is %v, want %v", member, a.at(member), want)
		}
	}
	if !strings.Contains(string(a.body), `"notActions":[],"dataActions":[],"notDataActions":[]`) {
		t.Errorf("a list is null: %s", a.body)
	}
	// Found by name where it can be assigned, and by id there and above.
	named := "/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'vault%20viewer'"
	for scope, want := range map[string]int{g: 1, v: 1, sub: 0} {
		if got := r.must(200, "owner", "GET", scope+named, nil).list("id"); len(got) != want {
			t.Errorf("%s: %v", scope, got)
		}
	}
	builtIn := len(r.must(200, "owner", "GET", sub+"/providers/Microsoft.Authorization/roleDefinitions", nil).list("id"))
	for filter, want := range map[string]int{
		"atScopeAndBelow()%20and%20type%20eq%20'CustomRole'": 1, "atScopeAndBelow()": builtIn + 1, "atScope()": builtIn, "type%20eq%20'CustomRole'": 0,
		"type%20eq%20'BuiltInRole'": builtIn, "atScopeAndBelow()%20and%20roleName%20eq%20'Vault%20Viewer'": 1, "atScope()%20or%20atScopeAndBelow()": builtIn + 1,
	} {
		if got := r.must(200, "owner", "GET", sub+"/providers/Microsoft.Authorization/roleDefinitions?$filter="+filter, nil).list("id"); len(got) != want {
			t.Errorf("%s: %d, want %d", filter, len(got), want)
		}
	}
	for _, scope := range []string{g, v, sub} {
		if got := r.must(200, "owner", "GET", definitionPath(scope, strings.ToUpper(guid)), nil); got.at("id") != definitionPath(sub, guid) {
			t.Errorf("%s", got.body)
		}
		r.must(204, "owner", "HEAD", definitionPath(scope, guid), nil)
	}
	r.makeGroup("h")
	r.refused(404, "RoleDefinitionDoesNotExist", "owner", "GET", definitionPath(groupPath("h"), guid), nil)

	// It gives what it says, where it is assigned.
	give := map[string]any{"properties": map[string]any{"roleDefinitionId": definitionPath(sub, guid), "principalId": r.people["user"].ObjectID}}
	r.refused(400, "RoleAssignmentScopeNotAssignableToRoleDefinition", "owner", "PUT", assignmentPath(sub, uuid.NewString()), give)
	assignment := assignmentPath(v, uuid.NewString())
	r.must(201, "owner", "PUT", assignment, give)
	r.must(200, "user", "GET", v, nil)
	r.refused(403, "AuthorizationFailed", "user", "DELETE", v, nil)
	if got := r.must(200, "user", "GET", v+"/providers/Microsoft.Authorization/permissions", nil); got.at("value.0.actions.0") != "Microsoft.KeyVault/vaults/read" {
		t.Errorf("%s", got.body)
	}
	r.refused(400, "RoleDefinitionHasAssignments", "owner", "DELETE", path, nil)
	r.refused(400, "RoleDefinitionHasAssignments", "owner", "PUT", path, roleRequest("Vault Viewer", nil, groupPath("h")))
	r.must(201, "owner", "PUT", definitionPath(sub, guid), roleRequest("Vault Keeper", []string{"Microsoft.KeyVault/*"}, sub))
	r.must(200, "user", "DELETE", v, nil) // takes the assignment with it
	a = r.must(200, "owner", "DELETE", definitionPath(sub, guid), nil)
	if a.at("properties.roleName") != "Vault Keeper" {
		t.Errorf("%s", a.body)
	}
	r.must(204, "owner", "DELETE", definitionPath(sub, guid), nil)
	r.refused(404, "RoleDefinitionDoesNotExist", "owner", "GET", definitionPath(sub, guid), nil)
}

func TestBadRoleDefinitions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, sub := r.makeGroup("g"), "/subscriptions/"+homeSub
	r.must(201, "owner", "PUT", definitionPath(sub, uuid.NewString()), roleRequest("Taken", nil, sub))
	with := func(change func(p map[string]any)) map[string]any {
		b := roleRequest("New", []string{"*/read"}, g)
		change(b["properties"].(map[string]any))
		return b
	}
	fresh := func() string { return definitionPath(g, uuid.NewString()) }
	before := r.dump()
	for name, c := range map[string]struct {
		path   string
		body   any
		status int
		code   string
	}{
		"no properties":    {fresh(), `{}`, 400, "InvalidRequestContent"},
		"text for actions": {fresh(), `{"properties":{"roleName":"x","permissions":[{"actions":"*"}]}}`, 400, "InvalidRequestContent"},
		"id":               {definitionPath(g, "reader"), roleRequest("New", nil, g), 400, "InvalidRoleDefinitionId"},
		"built-in":         {definitionPath(g, rbac.Reader), roleRequest("New", nil, g), 400, "RoleDefinitionUpdateNotPermitted"},
		"no name":          {fresh(), roleRequest("", nil, g), 400, "InvalidRoleDefinitionName"},
		"taken name":       {fresh(), roleRequest("taken", nil, g), 409, "RoleDefinitionWithSameNameExists"},
		"built-in type":    {fresh(), with(func(p map[string]any) { p["type"] = "BuiltInRole" }), 400, "InvalidRoleDefinitionType"},
		"no permissions":   {fresh(), with(func(p map[string]any) { delete(p, "permissions") }), 400, "InvalidRoleDefinitionPermissions"},
		"two permissions":  {fresh(), with(func(p map[string]any) { p["permissions"] = []any{map[string]any{}, map[string]any{}} }), 400, "InvalidRoleDefinitionPermissions"},
		"condition": {fresh(), with(func(p map[string]any) {
			p["permissions"] = []any{map[string]any{"actions": []string{"*"}, "condition": "x", "conditionVersion": "2.0"}}
		}), 400, "RoleDefinitionConditionNotSupported"},
		"no scopes":            {fresh(), roleRequest("New", nil), 400, "InvalidAssignableScopes"},
		"root":                 {fresh(), roleRequest("New", nil, "/"), 400, "InvalidAssignableScopes"},
		"group that is not":    {fresh(), roleRequest("New", nil, g, groupPath("nope")), 404, "ResourceGroupNotFound"},
		"foreign subscription": {fresh(), roleRequest("New", nil, "/subscriptions/"+otherSub), 403, "LinkedAuthorizationFailed"},
		"no subscription":      {fresh(), roleRequest("New", nil, "/subscriptions/"+uuid.NewString()), 403, "LinkedAuthorizationFailed"},
		"not the caller's":     {fresh(), roleRequest("New", nil, "/subscriptions/"+secondSub), 403, "LinkedAuthorizationFailed"},
		"action":               {fresh(), roleRequest("New", []string{"all"}, g), 400, "InvalidActionOrNotAction"},
		"the server's own":     {fresh(), roleRequest("New", []string{"Podkey.Admin/tenants/write"}, g), 400, "InvalidActionOrNotAction"},
		"patch":                {fresh() + "?x=PATCH", nil, 405, "MethodNotAllowed"},
	} {
		method := "PUT"
		if strings.HasSuffix(c.path, "PATCH") {
			method = "PATCH"
		}
		if a := r.do("owner", method, c.path, c.body); a.StatusCode != c.status || a.code() != c.code || a.message() == "" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	r.refused(400, "RoleDefinitionUpdateNotPermitted", "owner", "DELETE", definitionPath(g, rbac.Reader), nil)
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}

// TestWhoMayWriteRoles: those who may write roles at all assignable scopes of
// the role, as it was and as it is to be; and of the built-in roles only
// those that may do all with access.
func TestWhoMayWriteRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ga, gb, sub := r.makeGroup("ga"), r.makeGroup("gb"), "/subscriptions/"+homeSub
	for name, role := range map[string]string{
		"contributor": rbac.Contributor, "uaa": rbac.UserAccessAdministrator, "rbacadmin": rbac.RBACAdministrator,
		"limited": rbac.KeyVaultDataAccessAdministrator, "reader": rbac.Reader,
	} {
		r.person(name, homeTenant)
		r.grant(name, role, ga)
	}
	r.person("author", homeTenant)
	r.permit("author", ga, actionDefinition+"*")
	before := r.dump()
	for _, as := range []string{"contributor", "rbacadmin", "limited", "reader"} {
		r.refused(403, "AuthorizationFailed", as, "PUT", definitionPath(ga, uuid.NewString()), roleRequest("Mine", []string{"*"}, ga))
	}
	for _, scopes := range [][]string{{gb}, {ga, gb}, {sub}, {groupPath("nope")}} {
		a := r.refused(403, "LinkedAuthorizationFailed", "uaa", "PUT", definitionPath(ga, uuid.NewString()), roleRequest("Mine", []string{"*"}, scopes...))
		if want := "the linked scope(s) '" + scopes[len(scopes)-1] + "'"; !strings.Contains(a.message(), want) {
			t.Errorf("%s lacks %s", a.message(), want)
		}
	}
	r.refused(403, "AuthorizationFailed", "uaa", "PUT", definitionPath(sub, uuid.NewString()), roleRequest("Mine", []string{"*"}, ga))
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	mine := definitionPath(ga, uuid.NewString())
	r.must(201, "uaa", "PUT", mine, roleRequest("Mine", []string{"Microsoft.KeyVault/*"}, ga))
	r.refused(403, "AuthorizationFailed", "reader", "DELETE", mine, nil)

	// A role that can also be assigned elsewhere is not the author's to widen,
	// narrow or delete; the refusal does not tell where else.
	shared := uuid.NewString()
	r.must(201, "owner", "PUT", definitionPath(sub, shared), roleRequest("Shared", []string{"*/read"}, ga, gb))
	before = r.dump()
	for _, body := range []any{roleRequest("Shared", []string{"*"}, ga), roleRequest("Shared", []string{"*/read"}, ga)} {
		for _, as := range []string{"uaa", "author"} {
			if a := r.refused(403, "LinkedAuthorizationFailed", as, "PUT", definitionPath(ga, shared), body); strings.Contains(a.message(), "gb") {
				t.Error(a.message())
			}
		}
	}
	if a := r.refused(403, "LinkedAuthorizationFailed", "uaa", "DELETE", definitionPath(ga, shared), nil); strings.Contains(a.message(), "gb") {
		t.Error(a.message())
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	// Nobody sees a role from where it is of no use.
	r.person("readerb", homeTenant)
	r.grant("readerb", rbac.Reader, gb)
	seen := func(as, scope string) []string {
		names := []string{}
		var all struct {
			Value []struct {
				Properties struct{ RoleName, Type string }
			}
		}
		r.decode(r.must(200, as, "GET", scope+"/providers/Microsoft.Authorization/roleDefinitions", nil), &all)
		for _, d := range all.Value {
			if d.Properties.Type == "CustomRole" {
				names = append(names, d.Properties.RoleName)
			}
		}
		return names
	}
	if got := seen("reader", ga); !slices.Contains(got, "Mine") || !slices.Contains(got, "Shared") {
		t.Error(got)
	}
	if got := seen("readerb", gb); slices.Contains(got, "Mine") || !slices.Contains(got, "Shared") {
		t.Error(got)
	}
	r.refused(403, "AuthorizationFailed", "readerb", "GET", mine, nil)
	r.must(204, "owner", "DELETE", strings.Replace(mine, "/ga/", "/gb/", 1), nil) // not there, seen from gb
	r.must(200, "owner", "GET", mine, nil)
}

// TestAttackRoleAuthorLetsItselfIn: to write roles is not to give them.
func TestAttackRoleAuthorLetsItselfIn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.makeGroup("g")
	r.person("author", homeTenant)
	r.permit("author", g, actionDefinition+"write", actionDefinition+"read")
	path := definitionPath(g, uuid.NewString())
	r.must(201, "author", "PUT", path, roleRequest("All", []string{"*"}, g))
	before := r.dump()
	r.refused(403, "AuthorizationFailed", "author", "PUT", assignmentPath(g, uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": path, "principalId": r.people["author"].ObjectID},
	})
	r.refused(403, "AuthorizationFailed", "author", "DELETE", path, nil)
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	// A limited administrator hands out built-in roles for vaults, and no
	// custom role, whatever that is called or gives.
	r.person("limited", homeTenant)
	r.grant("limited", rbac.KeyVaultDataAccessAdministrator, g)
	r.refused(403, "AuthorizationFailed", "limited", "PUT", assignmentPath(g, uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": path, "principalId": r.people["limited"].ObjectID},
	})
}

// TestRolesOfAnotherTenant are not seen, not assigned and not changed.
func TestRolesOfAnotherTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sub, theirs := "/subscriptions/"+homeSub, "/subscriptions/"+otherSub
	r.person("stranger", otherTenant)
	r.grant("stranger", rbac.Owner, "/")
	guid := uuid.NewString()
	r.must(201, "owner", "PUT", definitionPath(sub, guid), roleRequest("Ours", []string{"*"}, sub))
	r.refused(404, "RoleDefinitionDoesNotExist", "stranger", "GET", definitionPath(theirs, guid), nil)
	r.refused(404, "RoleDefinitionDoesNotExist", "stranger", "GET", definitionPath("/", guid), nil)
	r.must(204, "stranger", "DELETE", definitionPath("/", guid), nil)
	for _, scope := range []string{"/", theirs} {
		if a := r.must(200, "stranger", "GET", strings.TrimSuffix(definitionPath(scope, ""), "/")+"?$filter=atScopeAndBelow()", nil); strings.Contains(string(a.body), "Ours") {
			t.Errorf("%s", a.body)
		}
	}
	r.refused(403, "LinkedAuthorizationFailed", "stranger", "PUT", definitionPath("/", uuid.NewString()), roleRequest("Theirs", []string{"*"}, sub))
	r.refused(400, "RoleDefinitionDoesNotExist", "stranger", "PUT", assignmentPath(theirs, uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": guid, "principalId": r.people["stranger"].ObjectID},
	})
	r.must(201, "stranger", "PUT", definitionPath(theirs, guid), roleRequest("Ours", []string{"*/read"}, theirs))
	if a := r.must(200, "owner", "GET", definitionPath(sub, guid), nil); a.at("properties.permissions.0.actions.0") != "*" {
		t.Errorf("%s", a.body)
	}
}

// TestScopeThatWent: a role whose group has gone can still be read, changed
// and deleted.
func TestScopeThatWent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, sub := r.makeGroup("g"), "/subscriptions/"+homeSub
	path := definitionPath(sub, uuid.NewString())
	r.must(201, "owner", "PUT", path, roleRequest("Old", nil, g, sub))
	r.must(200, "owner", "DELETE", g, nil)
	r.must(201, "owner", "PUT", path, roleRequest("Older", nil, g, sub))
	r.must(201, "owner", "PUT", path, roleRequest("Older", nil, sub))
	r.refused(404, "ResourceGroupNotFound", "owner", "PUT", path, roleRequest("Older", nil, g, sub))
	r.must(200, "owner", "DELETE", path, nil)
}

// TestAssignmentsOfOnePrincipal are found without looking at all others, and
// are those that the caller may see.
func TestAssignmentsOfOnePrincipal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g, h, sub := r.makeGroup("g"), r.makeGroup("h"), "/subscriptions/"+homeSub
	r.person("user", homeTenant)
	r.person("reader", homeTenant)
	r.grant("reader", rbac.Reader, g)
	for _, scope := range []string{sub, g, h} {
		r.grant("user", rbac.KeyVaultReader, scope)
	}
	list := func(as, scope, filter string) int {
		return len(r.must(200, as, "GET", strings.TrimSuffix(assignmentPath(scope, ""), "/")+"?$filter="+filter, nil).list("id"))
	}
	me := strings.ToUpper(r.people["user"].ObjectID)
	owner := r.people["owner"].ObjectID
	for _, c := range []struct {
		as, scope, filter string
		want              int
	}{
		{"owner", sub, "principalId%20eq%20'" + me + "'", 3},
		{"owner", sub, "principalId%20eq%20'" + me + "'%20and%20atScope()", 1},
		{"owner", g, "atScope()%20and%20principalId%20eq%20'" + me + "'", 2},
		{"owner", g, "assignedTo('" + me + "')", 2},
		{"owner", sub, "principalId%20eq%20'" + me + "'%20or%20principalId%20eq%20'" + owner + "'%20or%20principalId%20eq%20'" + strings.ToLower(me) + "'", 4},
		{"owner", sub, "principalId%20eq%20'" + uuid.NewString() + "'", 0},
		{"owner", sub, "principalId%20eq%20'x'%20or%20atScope()", 2},
		{"reader", g, "principalId%20eq%20'" + me + "'", 2},
		{"reader", sub, "principalId%20eq%20'" + me + "'", 1},
	} {
		if got := list(c.as, c.scope, c.filter); got != c.want {
			t.Errorf("%s at %s: %s: %d, want %d", c.as, c.scope, c.filter, got, c.want)
		}
	}
	// A principal's id in another tenant is nobody.
	r.person("stranger", otherTenant)
	r.grant("stranger", rbac.Owner, "/")
	if got := list("stranger", "/", fmt.Sprintf("principalId%%20eq%%20'%s'", me)); got != 0 {
		t.Error(got)
	}
}

// TestInheritedAssignmentNamesItsRoleAsListed: az looks up the name of each
// assignment's role among the definitions at the scope, by id.
func TestInheritedAssignmentNamesItsRoleAsListed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.grant("owner", rbac.Owner, "/")
	for scope, want := range map[string]string{
		"/subscriptions/" + homeSub:   definitionPath("/subscriptions/"+homeSub, rbac.Owner),
		r.makeGroup("g"):              definitionPath("/subscriptions/"+homeSub, rbac.Owner),
		"/subscriptions/" + secondSub: definitionPath("/subscriptions/"+secondSub, rbac.Owner),
	} {
		a := r.must(200, "owner", "GET", strings.TrimSuffix(assignmentPath(scope, ""), "/")+"?$filter=atScope()", nil)
		if a.at("value.0.properties.scope") != "/" || a.at("value.0.properties.roleDefinitionId") != want {
			t.Errorf("%s: %s", scope, a.body)
		}
	}
	if a := r.must(200, "owner", "GET", strings.TrimSuffix(assignmentPath("/", ""), "/"), nil); a.at("value.0.properties.roleDefinitionId") != definitionPath("/", rbac.Owner) {
		t.Errorf("%s", a.body)
	}
}
