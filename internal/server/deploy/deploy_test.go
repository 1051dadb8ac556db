package deploy

import (
	"os"
	"strings"
	"testing"
)

func file(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var vaultParameters = map[string]any{"prefix": "shop", "issuer": "https://issuer.example/"}

// TestVaultWithIdentity deploys what the walkthroughs set up by hand: vault,
// identity, trust in two service accounts, a role; in the form in which Bicep
// compiles it.
func TestVaultWithIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(200, "owner", "POST", at+"main/validate", body(file(t, "vault.json"), vaultParameters))
	r.must(404, "owner", "GET", at+"main", nil)
	a := r.deploy("owner", at+"main", file(t, "vault.json"), vaultParameters)
	if a.status != 201 {
		t.Errorf("status %d", a.status)
	}
	vault := a.at("properties.outputs.vaultId.value").(string)
	v := r.must(200, "owner", "GET", vault, nil)
	if v.at("properties.vaultUri") != a.at("properties.outputs.vaultUri.value") || v.at("tags.app") != "shop" || v.at("location") != "westeurope" {
		t.Errorf("vault %s\nanswer %s", v.body, a.body)
	}
	id := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shop-id"
	i := r.must(200, "owner", "GET", id, nil)
	if i.at("properties.clientId") != a.at("properties.outputs.clientId.value") {
		t.Errorf("identity %s\nanswer %s", i.body, a.body)
	}
	c := r.must(200, "owner", "GET", id+"/federatedIdentityCredentials/billing", nil)
	if c.at("properties.subject") != "system:serviceaccount:billing:web" {
		t.Errorf("credential %s", c.body)
	}
	as := r.must(200, "owner", "GET", vault+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=atScope()", nil)
	if !strings.Contains(string(as.body), i.at("properties.principalId").(string)) {
		t.Errorf("assignments %s", as.body)
	}
	// Again: the same end, 200.
	if b := r.deploy("owner", at+"main", file(t, "vault.json"), vaultParameters); b.status != 200 || b.at("properties.outputs.clientId.value") != i.at("properties.clientId") {
		t.Errorf("again: %d %s", b.status, b.body)
	}
	ops := r.must(200, "owner", "GET", at+"main/operations", nil)
	if n := len(ops.at("value").([]any)); n != 6 {
		t.Errorf("%d operations: %s", n, ops.body)
	}
	old := r.must(200, "owner", "GET", group+"/deployments/main/operations", nil)
	if string(old.body) != string(ops.body) {
		t.Errorf("by the old path: %s", old.body)
	}
	one := ops.at("value.0.operationId").(string)
	r.must(200, "owner", "GET", group+"/deployments/main/operations/"+one, nil)
	r.refused(404, "DeploymentOperationNotFound", "owner", "GET", at+"main/operations/0", nil)
	r.refused(404, "DeploymentNotFound", "owner", "GET", group+"/deployments/none/operations", nil)
	got := r.must(200, "owner", "GET", at+"main", nil)
	if got.at("properties.parameters.prefix.value") != "shop" || got.at("properties.provisioningState") != "Succeeded" || got.at("properties.error") != nil {
		t.Errorf("record %s", got.body)
	}
	exported := r.must(200, "owner", "POST", at+"main/exportTemplate", nil)
	if exported.at("template.contentVersion") != "1.0.0.0" {
		t.Errorf("template %s", exported.body)
	}
	r.must(204, "owner", "HEAD", at+"main", nil)
	list := r.must(200, "owner", "GET", group+"/providers/Microsoft.Resources/deployments/", nil)
	if list.at("value.0.name") != "main" {
		t.Errorf("list %s", list.body)
	}
	r.must(204, "owner", "DELETE", at+"main", nil)
	r.must(404, "owner", "GET", at+"main", nil)
	r.must(200, "owner", "GET", vault, nil)
}

// TestVaultWithSecret deploys a vault with a secret, the value being a secure
// parameter, as in the walkthrough with akv.bicep.
func TestVaultWithSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const value = "hello-wwss-value"
	given := map[string]any{"objectId": r.people["owner"].ObjectID, "secretValue": value}
	w := r.must(200, "owner", "POST", at+"akv/whatIf", body(file(t, "akv.json"), given))
	if got := kinds(w); got != "Create:my-secret Create:wliakvpoc" {
		t.Errorf("%s %s", got, w.body)
	}
	a := r.deploy("owner", at+"akv", file(t, "akv.json"), given)
	if a.at("properties.outputs.uri.value") != "https://wliakvpoc.vault.podkey.test/secrets/my-secret" {
		t.Errorf("%s", a.body)
	}
	vault := group + "/providers/Microsoft.KeyVault/vaults/wliakvpoc"
	s := r.must(200, "owner", "GET", vault+"/secrets/my-secret", nil)
	// The value is never read back: what-if cannot know that it is the same.
	again := r.must(200, "owner", "POST", at+"akv/whatIf", body(file(t, "akv.json"), given))
	if got := kinds(again); got != "Modify:my-secret NoChange:wliakvpoc" {
		t.Errorf("%s %s", got, again.body)
	}
	r.deploy("owner", at+"akv", file(t, "akv.json"), given)
	got := r.must(200, "owner", "GET", at+"akv", nil)
	for _, shown := range []string{string(w.body), string(a.body), string(s.body), string(again.body), string(got.body), r.audit.String(), r.log.String()} {
		if strings.Contains(shown, value) {
			t.Errorf("the value came to light: %s", shown)
		}
	}
	// Nor does it if it is written in the template itself, but to who wrote it.
	literal := strings.Replace(file(t, "akv.json"), "[parameters('secretValue')]", value, 1)
	for _, a := range []*answer{
		r.must(200, "owner", "POST", at+"lit/whatIf", body(literal, given)), r.deploy("owner", at+"lit", literal, given),
		r.must(200, "owner", "POST", at+"lit/exportTemplate", nil), r.must(200, "owner", "GET", at+"lit", nil),
	} {
		if strings.Contains(string(a.body), value) {
			t.Errorf("the value came to light: %s", a.body)
		}
	}
	if got.at("properties.parameters.secretValue.type") != "SecureString" {
		t.Errorf("%s", got.body)
	}
}
