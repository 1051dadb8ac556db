package arm

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
)

// routeCase is one registered route with a path that leads to it.
type routeCase struct {
	method, path string
	route        *Route
}

// routeCases walks the whole registry. Paths go through the group g, the
// vault vau, the identity idn and the deleted vault gone.
func routeCases(r *rig) []routeCase {
	var cases []routeCase
	for _, rt := range r.h.reg.types {
		for _, route := range rt.routes {
			path := pathFor(rt.Name, route) + "?api-version=" + rt.Versions[len(rt.Versions)-1]
			cases = append(cases, routeCase{route.Method, path, route})
		}
	}
	slices.SortFunc(cases, func(a, b routeCase) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return cases
}

// pathFor builds a path to a type: the narrowest level that the route has.
func pathFor(typeName string, route *Route) string {
	names := map[string]string{
		"subscriptions": homeSub, "resourceGroups": "g", "providers": "Microsoft.KeyVault", "locations": "westeurope", "vaults": "vau",
		"userAssignedIdentities": "idn", "federatedIdentityCredentials": "cred", "accessPolicies": "add", "deletedVaults": "gone",
		"roleAssignments": "0f0f0f0f-1111-4222-8333-444455556666", "roleDefinitions": rbac.Reader, "secrets": "sec", "tags": "default",
	}
	ns, types, _ := strings.Cut(typeName, "/")
	path := ""
	if ns != "" {
		path = "/providers/" + ns
		switch {
		case route.Levels&AtGroup != 0:
			path = groupPath("g") + path
		case route.Levels&AtSubscription != 0:
			path = "/subscriptions/" + homeSub + path
		}
	}
	segs := strings.Split(types, "/")
	for i, s := range segs {
		path += "/" + s
		if i < len(segs)-1 || !route.Collection {
			path += "/" + names[s]
		}
	}
	return path
}

// bodyFor is a body that each write would accept, so that only the
// permission stands in the way.
func bodyFor(r *rig, path string) any {
	switch {
	case strings.Contains(path, "/roleAssignments/"):
		return map[string]any{"properties": map[string]any{"roleDefinitionId": rbac.Owner, "principalId": r.people["owner"].ObjectID}}
	case strings.Contains(path, "/tags/default"):
		return map[string]any{"operation": "Merge", "properties": map[string]any{"tags": map[string]string{"changed": "yes"}}}
	case strings.Contains(path, "/roleDefinitions/"):
		return roleRequest("Another", []string{"*"}, groupPath("g"))
	case strings.Contains(path, "/secrets/"):
		return map[string]any{"properties": map[string]any{"value": "changed"}}
	case strings.Contains(path, "/accessPolicies/"):
		return map[string]any{"properties": map[string]any{"accessPolicies": []any{}}}
	case strings.Contains(path, "/vaults/vau?"):
		return vaultRequest(nil)
	case strings.Contains(path, "/federatedIdentityCredentials/"):
		return credential("system:serviceaccount:a:b")
	case strings.Contains(path, "checkNameAvailability"):
		return map[string]any{"name": "abc", "type": "Microsoft.KeyVault/vaults"}
	}
	return map[string]any{"location": "westeurope", "tags": map[string]string{"changed": "yes"}}
}

func credential(subject string) map[string]any {
	return map[string]any{"properties": map[string]any{"issuer": "https://issuer.example/", "subject": subject, "audiences": []string{"api://AzureADTokenExchange"}}}
}

// populated has one of everything that routeCases leads to.
func populated(t *testing.T) *rig {
	r := newRig(t)
	r.makeGroup("g")
	r.makeIdentity("g", "idn")
	r.must(201, "owner", "PUT", identityPath("g", "idn")+"/federatedIdentityCredentials/cred", credential("system:serviceaccount:x:y"))
	r.makeVault("g", "vau")
	r.must(201, "owner", "PUT", vaultPath("g", "vau")+"/secrets/sec", secretRequest(map[string]any{"value": "x"}))
	r.makeVault("g", "gone")
	r.must(200, "owner", "DELETE", vaultPath("g", "gone"), nil)
	return r
}

func TestReaderChangesNothing(t *testing.T) {
	t.Parallel()
	r := populated(t)
	r.person("reader", homeTenant)
	r.grant("reader", rbac.Reader, "/subscriptions/"+homeSub)
	before, writes := r.dump(), 0
	for _, c := range routeCases(r) {
		a := r.do("reader", c.method, c.path, bodyFor(r, c.path))
		if c.method == http.MethodGet || strings.HasSuffix(c.route.Action, "/read") {
			missing := strings.Contains(c.path, "/roleAssignments/0f0f") && a.StatusCode == 404
			if a.StatusCode != 200 && !missing {
				t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
			}
			continue
		}
		writes++
		if a.StatusCode != 403 || a.code() != "AuthorizationFailed" || !strings.Contains(a.message(), "'"+c.route.Action+"'") {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Errorf("the reader changed something: %s", diff)
	}
	if writes < 15 {
		t.Errorf("only %d writes were tried", writes)
	}
}

func TestNobodySeesNothing(t *testing.T) {
	t.Parallel()
	r := populated(t)
	r.person("nobody", homeTenant)
	before := r.dump()
	for _, c := range routeCases(r) {
		a := r.do("nobody", c.method, c.path, bodyFor(r, c.path))
		if c.route.Action != "" && (a.StatusCode != 403 || a.code() != "AuthorizationFailed") {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
		if c.route.Action == "" && strings.Contains(string(a.body), homeSub) {
			t.Errorf("%s %s tells of the subscription: %s", c.method, c.path, a.body)
		}
	}
	if got := r.must(200, "nobody", "GET", "/subscriptions", nil).list("id"); len(got) != 0 {
		t.Error(got)
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}

// TestDeletedOrDisabledCaller: a token outlives its principal; rights do not.
func TestDeletedOrDisabledCaller(t *testing.T) {
	t.Parallel()
	r := populated(t)
	if err := r.h.o.Directory.EnableServicePrincipal(t.Context(), r.people["owner"].ObjectID, false); err != nil {
		t.Fatal(err)
	}
	before := r.dump()
	for _, c := range routeCases(r) {
		a := r.do("owner", c.method, c.path, bodyFor(r, c.path))
		if c.route.Action != "" && a.StatusCode != 403 || c.route.Action == "" && strings.Contains(string(a.body), homeSub) {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}

func TestListingsShowOnlyWhatMayBeRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, g := range []string{"ga", "gb"} {
		r.makeGroup(g)
		r.makeIdentity(g, "id-"+g)
		r.makeVault(g, "va-"+g)
		r.makeVault(g, "vb-"+g)
	}
	r.person("vaultuser", homeTenant)
	r.grant("vaultuser", rbac.KeyVaultSecretsUser, vaultPath("gb", "vb-gb")) // data actions alone
	r.person("vaultreader", homeTenant)
	r.grant("vaultreader", rbac.Reader, vaultPath("gb", "vb-gb"))
	r.person("groupreader", homeTenant)
	r.grant("groupreader", rbac.Reader, groupPath("gb"))
	sub := "/subscriptions/" + homeSub
	kv, mi := "/providers/Microsoft.KeyVault/vaults", "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
	for _, c := range []struct {
		as, path string
		want     []string
	}{
		{"vaultuser", "/subscriptions", []string{homeSub}},
		{"vaultuser", sub + "/resources", []string{}},
		{"vaultuser", sub + "/resourcegroups", []string{}},
		{"vaultuser", sub + kv, []string{}},
		{"vaultreader", sub + "/resources", []string{"vb-gb"}},
		{"vaultreader", sub + "/resources?$filter=substringof('v',name)", []string{"vb-gb"}},
		{"vaultreader", sub + "/resources?$filter=name%20ne%20'vb-gb'", []string{}},
		{"vaultreader", groupPath("gb") + "/resources", []string{"vb-gb"}},
		{"vaultreader", sub + "/resourcegroups", []string{}},
		{"vaultreader", sub + kv, []string{"vb-gb"}},
		{"vaultreader", groupPath("gb") + kv, []string{"vb-gb"}},
		{"vaultreader", sub + mi, []string{}},
		{"groupreader", sub + "/resources", []string{"va-gb", "vb-gb", "id-gb"}},
		{"groupreader", sub + "/resourcegroups", []string{"gb"}},
		{"groupreader", sub + kv, []string{"va-gb", "vb-gb"}},
		{"groupreader", groupPath("gb") + mi, []string{"id-gb"}},
		{"owner", sub + kv, []string{"va-ga", "vb-ga", "va-gb", "vb-gb"}},
		{"owner", sub + kv + "?$top=1", []string{"va-ga"}},
	} {
		member := "name"
		if c.path == "/subscriptions" {
			member = "subscriptionId"
		}
		if diff := cmp.Diff(c.want, r.must(200, c.as, "GET", c.path, nil).list(member)); diff != "" {
			t.Errorf("%s as %s: %s", c.path, c.as, diff)
		}
	}
	for as, paths := range map[string][]string{
		"vaultreader": {groupPath("ga") + "/resources", groupPath("ga") + kv, groupPath("nope") + kv, "/subscriptions/" + secondSub, "/subscriptions/" + secondSub + "/resources"},
		"groupreader": {groupPath("ga"), groupPath("ga") + mi, sub + "/providers/Microsoft.KeyVault/deletedVaults"},
	} {
		for _, p := range paths {
			r.refused(403, "AuthorizationFailed", as, "GET", p, nil)
		}
	}
	// Paging stops at what may be seen: no page is empty, no link leads past.
	for _, as := range []string{"vaultreader", "groupreader"} {
		a := r.must(200, as, "GET", sub+"/resources?$top=1", nil)
		for n := 0; ; n++ {
			if len(a.list("name")) != 1 {
				t.Fatalf("%s: %s", as, a.body)
			}
			next, _ := a.at("nextLink").(string)
			if next == "" {
				break
			}
			if strings.Contains(next, "va-ga") {
				t.Errorf("the link tells of what is hidden: %s", next)
			}
			a = r.must(200, as, "GET", strings.TrimPrefix(next, r.srv.URL), nil)
		}
	}
	// A role on one credential shows that one.
	for _, n := range []string{"cred-a", "cred-b"} {
		r.must(201, "owner", "PUT", identityPath("ga", "id-ga")+"/federatedIdentityCredentials/"+n, credential("s-"+n))
	}
	r.person("credreader", homeTenant)
	r.grant("credreader", rbac.Reader, identityPath("ga", "id-ga")+"/federatedIdentityCredentials/cred-b")
	if diff := cmp.Diff([]string{"cred-b"}, r.must(200, "credreader", "GET", identityPath("ga", "id-ga")+"/federatedIdentityCredentials", nil).list("name")); diff != "" {
		t.Error(diff)
	}
	// Who may read the group's assignments sees those that it inherits; who
	// holds a role on one vault sees what is on that vault.
	below := func(as, scope string) int {
		return len(r.must(200, as, "GET", strings.TrimSuffix(assignmentPath(scope, ""), "/"), nil).list("id"))
	}
	for _, c := range []struct {
		as, scope string
		want      int
	}{
		{"groupreader", groupPath("gb"), 4}, // subscription's owner, group, and two on the vault
		{"groupreader", sub, 3},             // not the subscription's own
		{"vaultreader", groupPath("gb"), 2}, // the two on the vault
		{"vaultreader", vaultPath("gb", "vb-gb"), 4},
		{"vaultuser", groupPath("gb"), 0},
	} {
		if got := below(c.as, c.scope); got != c.want {
			t.Errorf("%s sees %d assignments from %s, want %d", c.as, got, c.scope, c.want)
		}
	}
}

func TestContributorCannotGiveAccessAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.person("contributor", homeTenant)
	me := r.people["contributor"].ObjectID
	r.grant("contributor", rbac.Contributor, "/subscriptions/"+homeSub)
	v := vaultPath("g", "contrib-kv")
	r.must(201, "contributor", "PUT", v, vaultRequest(nil))
	for _, scope := range []string{"/subscriptions/" + homeSub, groupPath("g"), v, v + "/secrets/s"} {
		r.refused(403, "AuthorizationFailed", "contributor", "PUT", assignmentPath(scope, uuid.NewString()), map[string]any{
			"properties": map[string]any{"roleDefinitionId": rbac.KeyVaultSecretsUser, "principalId": me},
		})
	}
	name := uuid.NewString()
	r.must(201, "owner", "PUT", assignmentPath(v, name), map[string]any{"properties": map[string]any{"roleDefinitionId": rbac.Reader, "principalId": me}})
	r.refused(403, "AuthorizationFailed", "contributor", "DELETE", assignmentPath(v, name), nil)

	// Out of role assignments and into access policies is a way round; so is
	// the way through deletion and recovery.
	byPolicy := vaultRequest(map[string]any{"enableRbacAuthorization": false, "accessPolicies": []any{
		map[string]any{"tenantId": homeTenant, "objectId": me, "permissions": map[string]any{"secrets": []string{"get"}}},
	}})
	before := r.dump()
	r.refused(403, "AuthorizationFailed", "contributor", "PUT", v, byPolicy)
	r.refused(403, "AuthorizationFailed", "contributor", "PATCH", v, map[string]any{"properties": map[string]any{"enableRbacAuthorization": false}})
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	r.must(200, "contributor", "DELETE", v, nil)
	byPolicy["properties"].(map[string]any)["createMode"] = "recover"
	before = r.dump()
	r.refused(403, "AuthorizationFailed", "contributor", "PUT", v, byPolicy)
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	r.must(200, "contributor", "PUT", v, vaultRequest(map[string]any{"createMode": "recover"}))
	delete(byPolicy["properties"].(map[string]any), "createMode")
	if a := r.must(200, "owner", "PUT", v, byPolicy); a.at("properties.enableRbacAuthorization") != false {
		t.Errorf("%s", a.body)
	}
	// In a vault under access policies it may let itself in, as in Azure.
	add := map[string]any{"properties": map[string]any{"accessPolicies": byPolicy["properties"].(map[string]any)["accessPolicies"]}}
	r.must(200, "contributor", "PUT", v+"/accessPolicies/add", add)
}

// TestModelIsItsMakers: of two who make a vault at the same time, the one who
// may not change its model does not.
func TestModelIsItsMakers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.person("contributor", homeTenant)
	r.grant("contributor", rbac.Contributor, "/subscriptions/"+homeSub)
	for n := range 10 {
		v := vaultPath("g", fmt.Sprint("kv-", n))
		var wg sync.WaitGroup
		for as, model := range map[string]bool{"owner": true, "contributor": false} {
			wg.Go(func() {
				if a := r.do(as, "PUT", v, vaultRequest(map[string]any{"enableRbacAuthorization": model})); !slices.Contains([]int{200, 201, 403}, a.StatusCode) {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
			})
		}
		wg.Wait()
		got, _, err := r.h.o.Vaults.ByID(t.Context(), v)
		if err != nil || got.CreatedBy == r.people["owner"].ObjectID && !got.EnableRBAC {
			t.Errorf("%s: the contributor changed the model: %v", v, err)
		}
	}
}

// TestUser: people are principals as applications are, while they are there.
func TestUser(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	u, err := r.h.o.Directory.CreateUser(t.Context(), directory.User{TenantID: homeTenant, UserPrincipalName: "ann@home.example", DisplayName: "Ann"}, "a long password")
	ok(t, err)
	r.people["ann"] = audit.Principal{ObjectID: u.ObjectID, AppID: uuid.NewString(), TenantID: homeTenant, Kind: audit.KindUser, Name: "ann@home.example"}
	if a := r.refused(403, "AuthorizationFailed", "ann", "GET", groupPath("g"), nil); !strings.Contains(a.message(), "The client 'ann@home.example' with object id '"+u.ObjectID+"'") {
		t.Error(a.message())
	}
	a := r.must(201, "owner", "PUT", assignmentPath(groupPath("g"), uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": rbac.Contributor, "principalId": u.ObjectID, "principalType": "User"},
	})
	if a.at("properties.principalType") != "User" {
		t.Errorf("%s", a.body)
	}
	if a := r.must(201, "ann", "PUT", vaultPath("g", "kv-ann"), vaultRequest(nil)); a.at("systemData.createdByType") != "User" {
		t.Errorf("%s", a.body)
	}
	if got := r.must(200, "ann", "GET", "/subscriptions", nil).list("subscriptionId"); len(got) != 1 {
		t.Error(got)
	}
	_, err = r.h.o.Directory.DeleteUser(t.Context(), u.ObjectID)
	ok(t, err)
	if got := r.must(200, "ann", "GET", "/subscriptions", nil).list("subscriptionId"); len(got) != 0 {
		t.Error(got)
	}
	r.refused(403, "AuthorizationFailed", "ann", "GET", groupPath("g")+"/resources", nil)
	if a := r.must(200, "owner", "GET", vaultPath("g", "kv-ann"), nil); a.at("systemData.createdByType") != nil {
		t.Errorf("%s", a.body)
	}
}

// TestVaultNamesAreTakenEverywhere: in another group, and of another tenant.
func TestVaultNamesAreTakenEverywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.makeGroup("h")
	r.makeVault("g", "kv-1")
	r.person("stranger", otherTenant)
	r.grant("stranger", rbac.Owner, "/subscriptions/"+otherSub)
	theirs := "/subscriptions/" + otherSub + "/resourceGroups/g"
	r.must(201, "stranger", "PUT", theirs, map[string]any{"location": "westeurope"})
	body := vaultRequest(nil)
	r.refused(409, "VaultAlreadyExists", "owner", "PUT", vaultPath("h", "KV-1"), body)
	body["properties"].(map[string]any)["tenantId"] = otherTenant
	r.refused(409, "VaultAlreadyExists", "stranger", "PUT", theirs+"/providers/Microsoft.KeyVault/vaults/kv-1", body)
	r.must(200, "owner", "DELETE", vaultPath("g", "kv-1"), nil)
	r.refused(409, "ConflictError", "stranger", "PUT", theirs+"/providers/Microsoft.KeyVault/vaults/kv-1", body)
	// Nobody recovers, sees or purges the deleted vault of another.
	body["properties"].(map[string]any)["createMode"] = "recover"
	r.refused(404, "DeletedVaultNotFound", "stranger", "PUT", theirs+"/providers/Microsoft.KeyVault/vaults/kv-1", body)
	gone := "/subscriptions/" + otherSub + "/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-1"
	r.refused(404, "DeletedVaultNotFound", "stranger", "GET", gone, nil)
	r.refused(404, "ParentResourceNotFound", "stranger", "POST", gone+"/purge", nil)
	if got := r.must(200, "stranger", "GET", "/subscriptions/"+otherSub+"/providers/Microsoft.KeyVault/deletedVaults", nil).list("id"); len(got) != 0 {
		t.Error(got)
	}
}

// TestLimitedAdministrator: some roles may hand out only certain others.
func TestLimitedAdministrator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	v := r.makeVault("g", "kv-1")
	r.person("limited", homeTenant)
	me := r.people["limited"].ObjectID
	r.grant("limited", rbac.KeyVaultDataAccessAdministrator, groupPath("g"))
	put := func(role any) (string, any) {
		return assignmentPath(v, uuid.NewString()), map[string]any{"properties": map[string]any{"roleDefinitionId": role, "principalId": me}}
	}
	for _, role := range []any{
		rbac.Owner, rbac.UserAccessAdministrator, "/subscriptions/" + homeSub + "/providers/Microsoft.Authorization/roleDefinitions/" + strings.ToUpper(rbac.Owner),
		"", nil, 5, rbac.KeyVaultSecretsUser + "/" + rbac.Owner,
	} {
		path, body := put(role)
		r.refused(403, "AuthorizationFailed", "limited", "PUT", path, body)
	}
	// The role that is decided on is the role that is given, also when the
	// body names two.
	path, _ := put(nil)
	twice := `{"properties":{"roleDefinitionId":"` + rbac.KeyVaultSecretsUser + `","principalId":"` + me + `","RoleDefinitionId":"` + rbac.Owner + `"}}`
	r.refused(403, "AuthorizationFailed", "limited", "PUT", path, twice)
	twice = `{"properties":{"roleDefinitionId":"` + rbac.Owner + `","principalId":"` + me + `"},"Properties":{"roleDefinitionId":"` + rbac.KeyVaultSecretsUser + `"}}`
	if a := r.do("limited", "PUT", path, twice); a.StatusCode == 201 && !strings.Contains(string(a.body), rbac.KeyVaultSecretsUser) {
		t.Errorf("%s", a.body)
	}
	path, body := put("/providers/Microsoft.Authorization/roleDefinitions/" + rbac.KeyVaultSecretsOfficer)
	r.must(201, "limited", "PUT", path, body)
	r.must(200, "limited", "DELETE", path, nil)
	r.must(204, "owner", "DELETE", path, nil)
	path, body = put(rbac.Reader)
	r.must(201, "owner", "PUT", path, body)
	r.refused(403, "AuthorizationFailed", "limited", "DELETE", path, nil)
}
