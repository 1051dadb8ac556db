package connect

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var allExist = []string{
	"resource-group exists", "identity exists", "vault exists", "permission exists", "issuer known",
	"federated-credential exists", "service-account exists", "check known",
}

func TestConnectMakesEverythingOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	p, outcomes := r.connect(shopRequest())
	want(t, "first run", outcomes, []string{
		"resource-group exists", "identity made", "vault made", "permission made", "issuer known",
		"federated-credential made", "service-account made", "check known",
	})

	// What was made, as Azure's own SDK sees it.
	cred, o := r.sdk()
	ids, err := armmsi.NewUserAssignedIdentitiesClient(r.SubscriptionID, cred, o)
	ok(t, err)
	id, err := ids.Get(t.Context(), "shop", "web", nil)
	ok(t, err)
	want(t, "identity", fmt.Sprint(*id.Location, " ", *id.Tags["podkey-connect"]), "westeurope made")
	creds, err := armmsi.NewFederatedIdentityCredentialsClient(r.SubscriptionID, cred, o)
	ok(t, err)
	name := CredentialName(r.Issuer, "system:serviceaccount:shop:web")
	fc, err := creds.Get(t.Context(), "shop", "web", name, nil)
	ok(t, err)
	want(t, "credential", fmt.Sprint(*fc.Properties.Issuer, " ", *fc.Properties.Subject, " ", *fc.Properties.Audiences[0]),
		r.Issuer+" system:serviceaccount:shop:web api://AzureADTokenExchange")
	roles, err := armauthorization.NewRoleAssignmentsClient(r.SubscriptionID, cred, o)
	ok(t, err)
	page, err := roles.NewListForScopePager(p.Vault.ID, &armauthorization.RoleAssignmentsClientListForScopeOptions{
		Filter: new("principalId eq '" + *id.Properties.PrincipalID + "'")}).NextPage(t.Context())
	ok(t, err)
	if len(page.Value) != 1 || !strings.HasSuffix(*page.Value[0].Properties.RoleDefinitionID, secretsUser.ID) {
		t.Errorf("%d assignments", len(page.Value))
	}
	want(t, "annotation", r.kube.annotations("serviceaccounts/shop/web")[AnnotationClientID], *id.Properties.ClientID)

	// It works: what a pod does, done.
	c := r.connection(shopRequest())
	found, err := c.Prove(t.Context(), p, true)
	ok(t, err)
	var proved []string
	for _, f := range found {
		proved = append(proved, fmt.Sprint(f.What, " ", f.Works))
	}
	want(t, "proof", proved, []string{"token true", "claims true", "vault true", "exchange true", "secrets get true", "secrets list true"})

	// A second run changes nothing, neither there nor here.
	sent, wrote, audited := len(r.sent.written()), len(r.kube.written()), r.audited()
	if audited == 0 {
		t.Error("the audit log shows no change of the first run")
	}
	p, outcomes = r.connect(shopRequest())
	want(t, "second run", outcomes, allExist)
	want(t, "changes", fmt.Sprint(len(r.sent.written()), len(r.kube.written()), r.audited()), fmt.Sprint(sent, wrote, audited))
	if p.Changes() {
		t.Error("the plan says that there is something to do")
	}

	// And without saying where, or that anything may be made.
	req := shopRequest()
	req.Group, req.Create = "", false
	_, outcomes = r.connect(req)
	want(t, "by name alone", outcomes[1:], allExist[1:])
	req.Identity, req.Vault = *id.Properties.ClientID, p.Vault.ID
	_, outcomes = r.connect(req)
	want(t, "by ids", outcomes[1:], allExist[1:])
	req.Identity = *id.ID
	_, outcomes = r.connect(req)
	want(t, "by resource id", outcomes[1:], allExist[1:])
}

func TestDisconnectUndoesWhatWasMade(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	_, _ = r.connect(shopRequest())
	req := Request{Namespace: "shop", Account: "web"} // the account tells the identity
	want(t, "disconnect", r.disconnect(req, true), []string{
		"service-account removed", "federated-credential removed", "permission removed", "identity removed", "vault removed",
	})
	if r.kube.annotations("serviceaccounts/shop/web") != nil {
		t.Error("the service account is still there")
	}
	left, err := r.cloud.identities(t.Context())
	ok(t, err)
	vaults, err := r.cloud.vaults(t.Context())
	ok(t, err)
	if len(left)+len(vaults) != 0 {
		t.Errorf("left: %v %v", left, vaults)
	}
	req.Identity = "web"
	sent := len(r.sent.written())
	want(t, "again", r.disconnect(req, true), []string{
		"service-account known", "federated-credential known", "permission known", "identity known", "vault kept",
	})
	want(t, "requests", len(r.sent.written()), sent)
}

const own = `
identities:
  - name: web
    resourceGroup: shop
    federatedCredentials: [{name: mine, namespace: other, serviceAccount: other}]
vaults:
  - {name: connect-kv, resourceGroup: shop, access: [{identity: web, role: Key Vault Reader}]}
`

func TestDisconnectKeepsWhatWasThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	r.kube.put("namespaces/shop", map[string]any{})
	r.kube.put("serviceaccounts/shop/web", map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{"team": "shop", AnnotationClientID: ""}, "labels": map[string]any{"app": "shop"}}})
	before := r.kube.annotations("serviceaccounts/shop/web")
	_, outcomes := r.connect(shopRequest())
	want(t, "connect", outcomes, []string{
		"resource-group exists", "identity exists", "vault exists", "permission made", "issuer known",
		"federated-credential made", "service-account changed", "check known",
	})
	want(t, "merged", r.kube.annotations("serviceaccounts/shop/web")["team"], "shop")
	_, outcomes = r.connect(shopRequest())
	want(t, "connect again", outcomes, allExist)

	// Another service account uses the same permission.
	two := shopRequest()
	two.Account = "two"
	_, outcomes = r.connect(two)
	want(t, "second account", outcomes[3:], []string{"permission exists", "issuer known", "federated-credential made", "service-account made", "check known"})
	want(t, "disconnect one of two", r.disconnect(Request{Namespace: "shop", Account: "two"}, true), []string{
		"service-account removed", "federated-credential removed", "permission kept", "identity kept", "vault kept",
	})

	// The credential that somebody else made still stands, so the permission does.
	want(t, "disconnect", r.disconnect(Request{Namespace: "shop", Account: "web"}, true), []string{
		"service-account changed", "federated-credential removed", "permission kept", "identity kept", "vault kept",
	})
	want(t, "annotations", r.kube.annotations("serviceaccounts/shop/web"), before)
	c := r.connection(shopRequest())
	s := c.Survey(t.Context())
	if len(s.Credentials) != 1 || s.Credentials[0].Name != "mine" {
		t.Errorf("credentials %v", s.Credentials)
	}
}

// An identity, a vault and a credential for the very same service account that
// somebody made by hand.
func TestDisconnectKeepsWhatIsEqualButNotItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
identities:
  - {name: bare, resourceGroup: shop}
  - name: web
    resourceGroup: shop
    federatedCredentials: [{name: by-hand, namespace: shop, serviceAccount: web}]
vaults: [{name: connect-kv, resourceGroup: shop}]
`)
	_, outcomes := r.connect(shopRequest())
	want(t, "connect", outcomes[3:7], []string{"permission made", "issuer known", "federated-credential exists", "service-account made"})
	want(t, "disconnect", r.disconnect(Request{Namespace: "shop", Account: "web"}, true), []string{
		"service-account removed", "federated-credential known", "permission kept", "identity kept", "vault kept",
	})
	creds, err := r.cloud.credentials(t.Context(), r.connection(shopRequest()).Survey(t.Context()).Identity)
	ok(t, err)
	want(t, "credentials", len(creds), 1)

	req := shopRequest()
	req.Identity = "bare"
	_, _ = r.connect(req)
	want(t, "disconnect", r.disconnect(Request{Namespace: "shop", Account: "web"}, true), []string{
		"service-account removed", "federated-credential removed", "permission removed", "identity kept", "vault kept",
	})
}

func TestAccessPoliciesAreAddedAndTakenAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
identities: [{name: web, resourceGroup: shop}]
vaults: [{name: connect-kv, resourceGroup: shop, accessPolicies: true, access: [{identity: web, secrets: [get, delete]}]}]
`)
	cred, o := r.sdk()
	vaults, err := armkeyvault.NewVaultsClient(r.SubscriptionID, cred, o)
	ok(t, err)
	policy := func() string {
		v, err := vaults.Get(t.Context(), "shop", "connect-kv", nil)
		ok(t, err)
		var out []string
		for _, p := range v.Properties.AccessPolicies {
			for _, s := range p.Permissions.Secrets {
				out = append(out, "s:"+strings.ToLower(string(*s)))
			}
			for _, s := range p.Permissions.Keys {
				out = append(out, "k:"+strings.ToLower(string(*s)))
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	req := shopRequest()
	req.Want = Permissions{Secrets: []string{"Get", "set"}, Keys: []string{"get"}}
	_, outcomes := r.connect(req)
	want(t, "connect", outcomes[3], "permission changed")
	want(t, "policy", policy(), "k:get s:delete s:get s:set")
	_, outcomes = r.connect(req)
	want(t, "again", outcomes, allExist)
	req.Want.Secrets = []string{"list"}
	_, outcomes = r.connect(req)
	want(t, "more", outcomes[3], "permission changed")
	want(t, "policy", policy(), "k:get s:delete s:get s:list s:set")

	// The commands set whole lists, so they must have what is there already.
	req.Want = Permissions{Secrets: []string{"recover"}}
	script := r.plan(req).Commands()
	if !strings.Contains(script, "--secret-permissions get list set delete recover --output none") || strings.Contains(script, "--key-permissions") {
		t.Error(script)
	}
	want(t, "disconnect", r.disconnect(Request{Namespace: "shop", Account: "web"}, false)[2], "permission removed")
	want(t, "policy", policy(), "s:delete s:get")
	want(t, "tags", len(r.connection(req).Survey(t.Context()).Vault.Tags), 0)
}

func TestApplication(t *testing.T) {
	t.Parallel()
	r := newRig(t, "vaults: [{name: connect-kv, resourceGroup: shop}]")
	req := shopRequest()
	req.Identity, req.Application = "", "web-app"
	p, outcomes := r.connect(req)
	want(t, "connect", outcomes[1], "identity made")
	found, err := r.connection(req).Prove(t.Context(), p, false)
	ok(t, err)
	if last := found[len(found)-1]; !last.Works {
		t.Errorf("%+v", last)
	}
	_, outcomes = r.connect(req)
	want(t, "again", outcomes, allExist)
	want(t, "disconnect", r.disconnect(Request{Namespace: "shop", Account: "web"}, false), []string{
		"service-account removed", "federated-credential removed", "permission removed", "identity removed", "vault kept",
	})
	for range 2 {
		ok(t, r.cloud.directory(t.Context(), "POST", "/applications", map[string]any{"displayName": "twins"}, nil))
	}
	req.Application = "twins"
	r.refused(req, "2 applications have the display name twins", "by its client id")
}

func TestIssuerCountsToTheLastSlash(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	req := shopRequest()
	req.Issuer = strings.TrimSuffix(r.Issuer, "/")
	r.refused(req, "differ by the slash at the end", "--issuer "+r.Issuer)
	req.Issuer = "https://elsewhere.example/"
	r.refused(req, "is not the API server's")
	req.Issuer = ""
	r.kube.moved = "https://elsewhere.example/doc"
	r.refused(req, "status 302")
	r.kube.moved = ""
	r.kube.deny["GET /.well-known/openid-configuration"] = 403
	r.refused(req, "status 403", "--issuer URL")
	req.Issuer = r.Issuer
	notes := ""
	for _, s := range r.plan(req).Steps {
		notes += strings.Join(s.Notes, "\n")
	}
	if !strings.Contains(notes, "not compared with the cluster's own word") {
		t.Error(notes)
	}
}

func TestNothingIsDoneWhenAnyCheckFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	req := shopRequest()
	req.Create = false
	r.refused(req, "identity: there is no managed identity web in the resource group shop", "vault: there is no vault connect-kv", "--create")
	req = shopRequest()
	req.Group = "nowhere"
	r.refused(req, "there is no resource group nowhere", "az group create")
	req = shopRequest()
	req.Want = Permissions{}
	r.refused(req, "no permission is asked for")
	req = shopRequest()
	req.Skip = map[string]bool{PhaseVault: true}
	req.Vault = ""
	r.refused(req, "permission: there is no vault")
	want(t, "written", len(r.sent.written())+len(r.kube.written()), 0)
}

func TestServiceAccountOfAnotherIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	r.kube.put("namespaces/shop", map[string]any{})
	r.kube.put("serviceaccounts/shop/web", map[string]any{"metadata": map[string]any{"annotations": map[string]any{AnnotationClientID: "somebody"}}})
	r.refused(shopRequest(), "azure.workload.identity/client-id: somebody already", "--replace")
	req := shopRequest()
	req.Replace = true
	_, _ = r.connect(req)
	_ = r.disconnect(Request{Namespace: "shop", Account: "web"}, false)
	want(t, "restored", fmt.Sprint(r.kube.annotations("serviceaccounts/shop/web")), fmt.Sprint(map[string]string{AnnotationClientID: "somebody"}))

	// What changed since is not undone.
	_, _ = r.connect(req)
	id := r.Identity("web").ClientID
	r.kube.mu.Lock()
	r.kube.objects["serviceaccounts/shop/web"]["metadata"].(map[string]any)["annotations"].(map[string]any)[AnnotationClientID] = "later"
	r.kube.mu.Unlock()
	later := Request{Namespace: "shop", Account: "web", Identity: id}
	_ = r.disconnect(later, false)
	want(t, "changed since", fmt.Sprint(r.kube.annotations("serviceaccounts/shop/web")), fmt.Sprint(map[string]string{AnnotationClientID: "later"}))
}

func TestCredentialsThatStandInTheWay(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("vaults: [{name: connect-kv, resourceGroup: shop}]\nidentities:\n  - name: full\n    resourceGroup: shop\n    federatedCredentials:\n")
	for i := range MaxCredentials {
		fmt.Fprintf(&b, "      - {name: cred%d, namespace: n%d, serviceAccount: a}\n", i, i)
	}
	b.WriteString("  - name: near\n    resourceGroup: shop\n    federatedCredentials:\n      - {name: other-audience, namespace: shop, serviceAccount: web, audiences: [other]}\n")
	b.WriteString("  - name: slash\n    resourceGroup: shop\n    federatedCredentials:\n      - {name: no-slash, issuer: 'https://oidc.example/c', subject: 'system:serviceaccount:shop:web'}\n")
	r := newRig(t, b.String())
	req := shopRequest()
	req.Identity = "full"
	r.refused(req, "has 20 federated credentials, and there can be no more", "another identity")
	req.Identity = "near"
	r.refused(req, "for the audience other, not api://AzureADTokenExchange", "az identity federated-credential delete --resource-group shop --identity-name near --name other-audience")
	r.kube.issuer = "https://oidc.example/c/"
	req.Identity = "slash"
	p := r.plan(req)
	i := slices.IndexFunc(p.Steps, func(s *Step) bool { return s.Phase == PhaseCredential })
	if notes := fmt.Sprint(p.Steps[i].Notes); !strings.Contains(notes, "no-slash never matches: its issuer differs from the cluster's by the slash at the end") {
		t.Error(notes)
	}
}

func TestProofNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	p, _ := r.connect(shopRequest())
	right := r.kube.token
	prove := func(req Request) Finding {
		found, err := r.connection(req).Prove(t.Context(), p, false)
		ok(t, err)
		return found[len(found)-1]
	}
	r.kube.token = func(ns, _, aud string) string { return right(ns, "somebody", aud) }
	want(t, "subject", prove(shopRequest()).Text, "sub is system:serviceaccount:shop:somebody, the credential has system:serviceaccount:shop:web")
	r.kube.token = right
	req := shopRequest()
	req.Want = Permissions{Secrets: []string{"get"}}
	req.CheckSecret = "absent"
	if f := prove(req); f.Works || !strings.Contains(f.Text, "SecretNotFound") {
		t.Errorf("%+v", f)
	}
	for _, a := range r.connection(req).Survey(t.Context()).Assignments {
		ok(t, (&removeAssignment{a.ID}).do(t.Context(), r.connection(req)))
	}
	req.CheckSecret = ""
	if f := prove(req); f.Works || f.What != "secrets get" || !strings.Contains(f.Text, "HTTP 403") {
		t.Errorf("%+v", f)
	}
	ok(t, r.cloud.deleteCredential(t.Context(), p.Identity, CredentialName(r.Issuer, "system:serviceaccount:shop:web")))
	if f := prove(shopRequest()); f.Works || f.What != "exchange" || !strings.Contains(f.Text, "AADSTS700213") {
		t.Errorf("%+v", f)
	}
}

func TestVaultMustNotChooseTokensForOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	c := r.connection(shopRequest())
	if _, err := c.vaultResource(t.Context(), c.Survey(t.Context()).Vault.URI); err != nil {
		t.Error(err)
	}
	sly := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.example", resource="https://management.azure.com"`)
		w.WriteHeader(401)
	}))
	defer sly.Close()
	c.Cloud = NewCloud(CloudOptions{Transport: sly.Client()})
	if _, err := c.vaultResource(t.Context(), sly.URL+"/"); err == nil || !strings.Contains(err.Error(), "wants tokens for https://management.azure.com, to which it does not belong") {
		t.Error(err)
	}
}

func TestOvertaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	p := r.plan(shopRequest())
	r.kube.put("namespaces/shop", map[string]any{})
	r.kube.put("serviceaccounts/shop/web", map[string]any{})
	err := p.Do(t.Context(), func(*Step, time.Duration) {})
	if err == nil || !strings.Contains(err.Error(), "changed by somebody else meanwhile") {
		t.Errorf("%v", err)
	}
}

// Whoever may annotate a service account can write our mark, but cannot have
// disconnect touch other annotations by it.
func TestForgedMark(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	id := r.Identity("web").ClientID
	r.kube.put("namespaces/shop", map[string]any{})
	r.kube.put("serviceaccounts/shop/web", map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		AnnotationClientID: id, "team": "shop", markAnnotation: `{"made":true,"set":{"team":"shop","` + AnnotationClientID + `":"` + id + `"},"had":{"team":"other"}}`}}})
	_ = r.disconnect(Request{Namespace: "shop", Account: "web"}, false)
	want(t, "annotations", fmt.Sprint(r.kube.annotations("serviceaccounts/shop/web")), fmt.Sprint(map[string]string{"team": "shop"}))
	r.kube.put("serviceaccounts/shop/web", map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		AnnotationClientID: id, markAnnotation: "no JSON"}}})
	_ = r.disconnect(Request{Namespace: "shop", Account: "web"}, false)
	want(t, "annotations", fmt.Sprint(r.kube.annotations("serviceaccounts/shop/web")), fmt.Sprint(map[string]string{AnnotationClientID: id}))
}

func TestIdentitiesOfTheSameName(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
identities: [{name: web, resourceGroup: shop}, {name: other, resourceGroup: depot}]
vaults: [{name: connect-kv, resourceGroup: shop}]
`)
	req := shopRequest()
	twin := &Identity{ID: r.cloud.groupPath("depot") + typeIdentity + "/web", Location: "westeurope"}
	ok(t, (&makeIdentity{twin}).do(t.Context(), r.connection(req)))
	req.Group = ""
	r.refused(req, "2 managed identities are named web, in the resource groups depot, shop", "-g GROUP")
	req.Group = "SHOP"
	want(t, "identity", r.plan(req).Identity.Group, "shop")
}

// An identity that connect made and that has been given other roles since is
// somebody else's too; and of two clusters' credentials only one is meant.
func TestDisconnectKeepsAnIdentityWithOtherRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	p, _ := r.connect(shopRequest())
	given := &assignRole{scope: r.cloud.groupPath("shop"), role: Role{ID: "acdd72a7-3385-48ef-bd42-f606fba81ae7"}, id: p.Identity}
	definition := r.cloud.subscription() + "/providers/Microsoft.Authorization/roleDefinitions/" + given.role.ID
	ok(t, r.cloud.manage(t.Context(), "PUT", given.scope+"/providers/Microsoft.Authorization/roleAssignments/11111111-2222-4333-8444-555555555555", versionRoles,
		map[string]any{"properties": map[string]any{"roleDefinitionId": definition, "principalId": p.Identity.PrincipalID, "principalType": "ServicePrincipal"}}, nil))

	// Another cluster, with the same names.
	r.kube.issuer = "https://oidc.example/second/"
	_, outcomes := r.connect(shopRequest())
	want(t, "second cluster", outcomes[5], "federated-credential made")
	r.kube.deny["GET /.well-known/openid-configuration"] = 403
	c := r.connection(Request{Namespace: "shop", Account: "web"})
	d, err := c.SurveyDisconnect(t.Context())
	ok(t, err)
	if _, err := c.PlanDisconnect(d); err == nil || !strings.Contains(err.Error(), "2 clusters are connected") {
		t.Error(err)
	}
	delete(r.kube.deny, "GET /.well-known/openid-configuration")
	want(t, "disconnect the second", r.disconnect(Request{Namespace: "shop", Account: "web"}, false)[1:4],
		[]string{"federated-credential removed", "permission kept", "identity kept"})
	r.kube.issuer = r.Issuer
	want(t, "disconnect the first", r.disconnect(Request{Namespace: "shop", Account: "web", Identity: "web"}, false)[1:4],
		[]string{"federated-credential removed", "permission removed", "identity kept"})
}

func TestGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.kube.deny["POST /api/v1/namespaces/shop/serviceaccounts"] = 403
	p := r.plan(shopRequest())
	var done []string
	err := p.Do(t.Context(), func(s *Step, _ time.Duration) { done = append(done, s.Phase) })
	problem, is := errors.AsType[*Problem](err)
	if !is || problem.Phase != PhaseAccount || !strings.Contains(problem.Hint(), "goes on from here") {
		t.Fatalf("%v", err)
	}
	want(t, "done before", len(done), 6)
	delete(r.kube.deny, "POST /api/v1/namespaces/shop/serviceaccounts")
	_, outcomes := r.connect(shopRequest())
	want(t, "again", outcomes, []string{
		"resource-group exists", "identity exists", "vault exists", "permission exists", "issuer known",
		"federated-credential exists", "service-account made", "check known",
	})
}
