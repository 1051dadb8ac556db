package deploy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
)

// subAt is where deployments to the subscription are.
const subAt = "/subscriptions/" + sub + "/providers/Microsoft.Resources/deployments/"

// subBody is the body of a deployment to the subscription.
func subBody(template string, parameters map[string]any) string {
	return `{"location": "westeurope", ` + body(template, parameters)[1:]
}

var workloads = map[string]any{"groupName": "apps", "workloads": []any{
	map[string]any{"name": "web", "tier": "gold"}, map[string]any{"name": "jobs"},
}}

// TestModulesAtSubscription makes a group and deploys nested templates into
// it: symbolic names, loops of modules, outputs of one as parameters of the
// next.
func TestModulesAtSubscription(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.must(200, "owner", "POST", subAt+"main/whatIf", subBody(file(t, "modules.json"), workloads))
	if got := kinds(w); got != "Create:apps Create:jobs Create:web Unsupported:access" {
		t.Errorf("what-if: %s\n%s", got, w.body)
	}
	r.must(404, "owner", "GET", "/subscriptions/"+sub+"/resourceGroups/apps", nil)
	a := r.must(201, "owner", "PUT", subAt+"main", subBody(file(t, "modules.json"), workloads))
	if a.at("properties.provisioningState") != "Succeeded" {
		t.Fatalf("%s", a.body)
	}
	apps := "/subscriptions/" + sub + "/resourceGroups/apps"
	web := r.must(200, "owner", "GET", apps+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/web", nil)
	if web.at("tags.tier") != "gold" || web.at("properties.principalId") != a.at("properties.outputs.principals.value.0") {
		t.Errorf("%s\n%s", web.body, a.body)
	}
	jobs := r.must(200, "owner", "GET", apps+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/jobs", nil)
	if jobs.at("tags.tier") != "none" {
		t.Errorf("%s", jobs.body)
	}
	nested := r.must(200, "owner", "GET", apps+"/providers/Microsoft.Resources/deployments/access", nil)
	if nested.at("properties.outputs.uri.value") != a.at("properties.outputs.uri.value") {
		t.Errorf("%s", nested.body)
	}
	// All is there: what-if sees through the modules.
	w = r.must(200, "owner", "POST", subAt+"main/whatIf", subBody(file(t, "modules.json"), workloads))
	if got := kinds(w); strings.Count(got, "NoChange") != 6 || strings.Count(got, ":") != 6 {
		t.Errorf("what-if of the same: %s\n%s", got, w.body)
	}
	r.must(200, "owner", "PUT", subAt+"main", subBody(file(t, "modules.json"), workloads))
	bad := map[string]any{"groupName": "apps", "workloads": []any{map[string]any{"name": "web", "tier": "bronze"}}}
	if a := r.refused(400, "InvalidTemplate", "owner", "PUT", subAt+"main", subBody(file(t, "modules.json"), bad)); !strings.Contains(string(a.body), "workloads[0].tier") {
		t.Errorf("%s", a.body)
	}
	r.refused(400, "LocationRequired", "owner", "PUT", subAt+"main", body(file(t, "modules.json"), workloads))
	r.refused(409, "InvalidDeploymentLocation", "owner", "PUT", subAt+"main", strings.Replace(subBody(file(t, "modules.json"), workloads), "westeurope", "eastus", 1))
}

// kinds lists the changes of a what-if answer as KIND:name, sorted.
func kinds(a *answer) string {
	var v struct {
		Properties struct{ Changes []change }
	}
	_ = json.Unmarshal(a.body, &v)
	var out []string
	for _, c := range v.Properties.Changes {
		out = append(out, c.ChangeType+":"+c.ResourceID[strings.LastIndexByte(c.ResourceID, '/')+1:])
	}
	sortStrings(out)
	return strings.Join(out, " ")
}

func sortStrings(s []string) {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}

func TestWhatIf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	identity := func(tag string) string {
		return simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "West Europe", "tags": {"app": "` + tag + `"}}]`)
	}
	before := r.dump()
	if got := kinds(r.must(200, "owner", "POST", at+"d/whatIf", body(identity("a"), nil))); got != "Create:one" {
		t.Error(got)
	}
	if after := r.dump(); after != before {
		t.Errorf("what-if wrote:\n%s\n%s", before, after)
	}
	r.deploy("owner", at+"d", identity("a"), nil)
	r.must(201, "owner", "PUT", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/two", map[string]any{"location": "westeurope"})
	if got := kinds(r.must(200, "owner", "POST", at+"d/whatIf", body(identity("a"), nil))); got != "Ignore:two NoChange:one" {
		t.Error(got)
	}
	a := r.must(200, "owner", "POST", at+"d/whatIf", body(strings.Replace(identity("b"), `"app"`, `"new": "x", "app"`, 1), nil))
	if got := kinds(a); got != "Ignore:two Modify:one" || len(a.at("properties.changes.0.delta").([]any)) != 2 {
		t.Errorf("%s %s", got, a.body)
	}
	if a.at("properties.changes.0.delta.0.path") != "tags.app" || a.at("properties.changes.0.delta.0.before") != "a" || a.at("properties.changes.0.delta.0.after") != "b" {
		t.Errorf("%s", a.body)
	}
	a = r.must(200, "owner", "POST", at+"d/whatIf", body(strings.Replace(identity("a"), `, "tags": {"app": "a"}`, "", 1), nil))
	if a.at("properties.changes.0.delta.0.propertyChangeType") != "Delete" {
		t.Errorf("a PUT without tags takes them away: %s", a.body)
	}
}

// dump is what the group holds.
func (r *rig) dump() string {
	r.t.Helper()
	return string(r.must(200, "owner", "GET", group+"/resources", nil).body) +
		string(r.must(200, "owner", "GET", group+"/providers/Microsoft.Authorization/roleAssignments", nil).body) +
		string(r.must(200, "owner", "GET", group+"/providers/Microsoft.Resources/deployments", nil).body)
}

// TestFailureAndRerun: what fails is named with its reason, what depends on
// it is not tried, the rest is done; run again, it comes to the same end.
func TestFailureAndRerun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := simple(`"parameters": {"issuer": {"type": "string"}}, "resources": [
		{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "westeurope"},
		{"type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials", "apiVersion": "2023-01-31", "name": "one/bad",
			"dependsOn": ["one"], "properties": {"issuer": "[parameters('issuer')]", "subject": "s", "audiences": ["a"]}},
		{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "after", "location": "westeurope", "dependsOn": ["one/bad"]},
		{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "beside", "location": "westeurope"}],
		"outputs": {"id": {"type": "string", "value": "[reference('one').clientId]"}}`)
	a := r.fails("owner", at+"d", body(text, map[string]any{"issuer": "not a url"}))
	if a.at("properties.error.code") != "DeploymentFailed" || a.at("properties.outputs") != nil {
		t.Fatalf("%s", a.body)
	}
	target, _ := a.at("properties.error.details.0.target").(string)
	if !strings.HasSuffix(target, "/federatedIdentityCredentials/bad") {
		t.Errorf("%s", a.body)
	}
	poll := strings.TrimPrefix(a.header.Get("Azure-AsyncOperation"), "https://management.podkey.test")
	if s := r.must(200, "owner", "GET", poll, nil); s.at("status") != "Failed" || s.at("error.code") != "DeploymentFailed" || s.at("error.details.0.message") == nil {
		t.Errorf("%s", s.body)
	}
	ops := r.must(200, "owner", "GET", at+"d/operations", nil)
	states := map[string]any{}
	for _, v := range ops.at("value").([]any) {
		p := v.(map[string]any)["properties"].(map[string]any)
		states[p["targetResource"].(map[string]any)["resourceName"].(string)] = p["provisioningState"]
	}
	if len(states) != 3 || states["one"] != "Succeeded" || states["one/bad"] != "Failed" || states["beside"] != "Succeeded" {
		t.Errorf("%v", states)
	}
	id := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	r.must(200, "owner", "GET", id+"beside", nil)
	r.must(404, "owner", "GET", id+"after", nil)
	if l := r.must(200, "owner", "GET", group+"/providers/Microsoft.Resources/deployments?api-version=2021-04-01&$filter=provisioningState%20eq%20'Failed'", nil); l.at("value.0.name") != "d" {
		t.Errorf("%s", l.body)
	}
	client := r.must(200, "owner", "GET", id+"one", nil).at("properties.clientId")
	b := r.deploy("owner", at+"d", text, map[string]any{"issuer": "https://issuer.example/"})
	if b.at("properties.outputs.id.value") != client || b.at("properties.error") != nil {
		t.Errorf("%s", b.body)
	}
	r.must(200, "owner", "GET", id+"after", nil)
}

// TestNestedFailure: the reason of a failure inside a module reaches the
// outermost error.
func TestNestedFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inner := simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "x y", "location": "westeurope"}]`)
	text := simple(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "inner",
		"properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, "template": ` + inner + `}}]`)
	a := r.fails("owner", at+"d", body(text, nil))
	if a.at("properties.error.details.0.details.0.details.0.code") != "InvalidResourceName" {
		t.Errorf("%s", a.body)
	}
}

// TestInterrupted: a run that died with its process is seen as failed, and can
// be run again.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	text := simple(`"resources": []`)
	r.deploy("owner", at+"d", text, nil)
	die := func() {
		id, err := arm.ParseID(at + "d")
		if err != nil {
			t.Fatal(err)
		}
		err = r.s.Update(ctx, func(tx *store.Tx) error {
			rec, _, err := r.h.deployments.Get(tx, keyOf(id))
			if err != nil {
				return err
			}
			rec.State, rec.Lease = running, r.clock().Add(lease)
			return r.h.deployments.Put(tx, keyOf(id), rec)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	die()
	r.refused(409, "DeploymentActive", "owner", "PUT", at+"d", body(text, nil))
	r.refused(409, "DeploymentActive", "owner", "DELETE", at+"d", nil)
	r.refused(409, "DeploymentCannotBeCancelled", "owner", "POST", at+"d/cancel", nil)
	r.advance(lease + time.Second)
	if a := r.must(200, "owner", "GET", at+"d", nil); a.at("properties.provisioningState") != "Failed" || a.at("properties.error.code") != "DeploymentInterrupted" {
		t.Errorf("%s", a.body)
	}
	r.deploy("owner", at+"d", text, nil)
	die()
	if err := r.h.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if a := r.must(200, "owner", "GET", at+"d", nil); a.at("properties.error.code") != "DeploymentInterrupted" {
		t.Errorf("%s", a.body)
	}
	r.deploy("owner", at+"d", text, nil)
}

// TestOuterScope: the expressions of a nested template without a scope of its
// own mean what they mean outside, and what they yield is not evaluated again.
func TestOuterScope(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inner := simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "[variables('name')]", "location": "[resourceGroup().location]",
		"tags": {"given": "[parameters('given')]", "literal": "[[literal]"}}]`)
	text := simple(`"parameters": {"given": {"type": "string"}}, "variables": {"name": "outer"}, "resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "inner",
		"properties": {"mode": "Incremental", "template": ` + inner + `}}]`)
	r.deploy("owner", at+"d", text, map[string]any{"given": "[resourceGroup().id]"})
	a := r.must(200, "owner", "GET", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/outer", nil)
	if a.at("tags.given") != "[resourceGroup().id]" || a.at("tags.literal") != "[literal]" {
		t.Errorf("%s", a.body)
	}
}

// TestGroupRemovalTakesDeployments: a group made anew under the same name
// tells nothing of the old one.
func TestGroupRemovalTakesDeployments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("owner", at+"d", file(t, "vault.json"), vaultParameters)
	if l := r.must(200, "owner", "GET", group+"/resources", nil); strings.Contains(string(l.body), "deployments") {
		t.Errorf("deployments are not resources of the group: %s", l.body)
	}
	r.must(200, "owner", "DELETE", group, nil)
	r.must(201, "owner", "PUT", group, map[string]any{"location": "westeurope"})
	r.refused(404, "DeploymentNotFound", "owner", "GET", at+"d", nil)
	r.refused(404, "DeploymentNotFound", "owner", "POST", at+"d/exportTemplate", nil)
}

// TestConditionsAndExisting: what a condition leaves out is not made, and
// what exists is read, not written.
func TestConditionsAndExisting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(201, "owner", "PUT", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/there", map[string]any{"location": "westeurope", "tags": map[string]string{"keep": "me"}})
	text := strings.Replace(simple(`"parameters": {"make": {"type": "bool", "defaultValue": false}}, "resources": {
		"there": {"existing": true, "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "there"},
		"maybe": {"condition": "[parameters('make')]", "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "maybe", "location": "westeurope"},
		"cred": {"type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials", "apiVersion": "2023-01-31", "name": "[format('{0}/{1}', 'there', 'cred')]",
			"properties": {"issuer": "https://issuer.example/", "subject": "[reference('there').clientId]", "audiences": ["a"]}, "dependsOn": ["there", "maybe"]}},
		"outputs": {"none": {"condition": "[parameters('make')]", "type": "string", "value": "[reference('maybe').clientId]"},
			"location": {"type": "string", "value": "[reference('there', '2023-01-31', 'full').location]"}}`), `"contentVersion"`, `"languageVersion": "2.0", "contentVersion"`, 1)
	a := r.deploy("owner", at+"d", text, nil)
	if a.at("properties.outputs.none") != nil || a.at("properties.outputs.location.value") != "westeurope" {
		t.Errorf("%s", a.body)
	}
	id := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	r.must(404, "owner", "GET", id+"maybe", nil)
	there := r.must(200, "owner", "GET", id+"there", nil)
	cred := r.must(200, "owner", "GET", id+"there/federatedIdentityCredentials/cred", nil)
	if there.at("tags.keep") != "me" || cred.at("properties.subject") != there.at("properties.clientId") {
		t.Errorf("%s %s", there.body, cred.body)
	}
	r.deploy("owner", at+"d", text, map[string]any{"make": true})
	r.must(200, "owner", "GET", id+"maybe", nil)
}

// TestRoles: what needs which permission.
func TestRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.person("reader", rbac.Reader, group)
	r.person("contributor", rbac.Contributor, group)
	r.person("stranger", "", "")
	text := body(file(t, "vault.json"), vaultParameters)
	before := r.dump()
	for _, who := range []string{"reader", "stranger"} {
		r.refused(403, "AuthorizationFailed", who, "PUT", at+"d", text)
		r.refused(403, "AuthorizationFailed", who, "POST", at+"d/validate", text)
		r.refused(403, "AuthorizationFailed", who, "POST", at+"d/whatIf", text)
		r.refused(403, "AuthorizationFailed", who, "DELETE", at+"d", nil)
		r.refused(403, "AuthorizationFailed", who, "POST", at+"d/exportTemplate", nil)
	}
	// A Contributor may deploy, but not assign roles: nothing at all is done.
	for _, path := range []string{at + "d", at + "d/validate", at + "d/whatIf"} {
		method := "POST"
		if path == at+"d" {
			method = "PUT"
		}
		a := r.refused(403, "InvalidTemplateDeployment", "contributor", method, path, text)
		if a.at("error.details.0.code") != "AuthorizationFailed" || !strings.Contains(string(a.body), "Microsoft.Authorization/roleAssignments/write") {
			t.Errorf("%s", a.body)
		}
	}
	if after := r.dump(); after != before {
		t.Errorf("something was done:\n%s\n%s", before, after)
	}
	r.deploy("owner", at+"d", file(t, "vault.json"), vaultParameters)
	r.must(200, "reader", "GET", at+"d", nil)
	r.must(200, "reader", "GET", at+"d/operations", nil)
	r.refused(403, "AuthorizationFailed", "stranger", "GET", at+"d", nil)
	r.refused(403, "AuthorizationFailed", "stranger", "GET", at+"d/operations", nil)
}
