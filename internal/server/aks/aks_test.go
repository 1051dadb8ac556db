package aks

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/kubeconfig"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/rbac"
)

func TestARegisteredClusterAnswersAsAManagedCluster(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	a := r.must(200, "reader", "GET", clusterPath("SHOP"), nil)
	for path, want := range map[string]any{
		"id": clusterPath("shop"), "name": "shop", "type": typeCluster, "location": "westeurope",
		"properties.provisioningState": "Succeeded", "properties.kubernetesVersion": "1.33.1", "properties.fqdn": "api.shop.example",
		"properties.oidcIssuerProfile.issuerURL": issuerURL, "properties.oidcIssuerProfile.enabled": true,
		"properties.servicePrincipalProfile.clientId": "msi", "properties.securityProfile.workloadIdentity.enabled": false,
		"properties.podkey.keySource": "Pinned", "properties.podkey.hasKubeconfig": true,
	} {
		if got := a.at(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if a.Header().Get("ETag") != `"`+a.at("eTag").(string)+`"` {
		t.Error("no ETag")
	}
	r.must(204, "reader", "HEAD", clusterPath("shop"), nil)
	r.must(404, "reader", "HEAD", clusterPath("gone"), nil)
	for _, path := range []string{"/subscriptions/" + homeSub, "/subscriptions/" + homeSub + "/resourceGroups/rg"} {
		l := r.must(200, "reader", "GET", path+"/providers/Microsoft.ContainerService/managedClusters", nil)
		if all, _ := l.at("value").([]any); len(all) != 1 {
			t.Errorf("%s: %s", path, l.Body)
		}
	}
	l := r.must(200, "reader", "GET", "/subscriptions/"+homeSub+"/resources", nil)
	if !strings.Contains(l.Body.String(), `"type":"`+typeCluster+`"`) {
		t.Errorf("not in the listing of resources: %s", l.Body)
	}
	for _, v := range versions() {
		r.must(200, "reader", "GET", clusterPath("shop")+"?api-version="+v, nil)
	}
}

// asAzDoes reads a cluster and sends it back with a change, as az aks update.
func (r *rig) asAzDoes(as string, change func(c map[string]any)) answer {
	r.t.Helper()
	var c map[string]any
	if err := json.Unmarshal(r.must(200, as, "GET", clusterPath("shop"), nil).Body.Bytes(), &c); err != nil {
		r.t.Fatal(err)
	}
	change(c)
	return r.do(as, "PUT", clusterPath("shop"), c)
}

func props(c map[string]any) map[string]any { return c["properties"].(map[string]any) }

func TestUpdateRecordsTheWishForWorkloadIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := registering(issuerURL, r.jwks("one"))
	delete(props(b)["podkey"].(map[string]any), "kubeconfig")
	r.must(201, "operator", "PUT", clusterPath("shop"), b)
	a := r.asAzDoes("contributor", func(c map[string]any) {
		// As az sends it: profiles made anew, what is empty filled in, and what
		// its models do not know left out.
		props(c)["oidcIssuerProfile"] = map[string]any{"enabled": true}
		props(c)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": true}}
		props(c)["agentPoolProfiles"].([]any)[0].(map[string]any)["upgradeSettings"] = map[string]any{}
		props(c)["storageProfile"] = map[string]any{}
		delete(props(c), "podkey")
	})
	if a.Code != 200 || a.at("properties.securityProfile.workloadIdentity.enabled") != true || a.at("properties.oidcIssuerProfile.issuerURL") != issuerURL {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if a.at("properties.provisioningState") != "Succeeded" || a.Header().Get("Azure-AsyncOperation") != "" {
		t.Errorf("there is no kubeconfig to do anything by: %s", a.Body)
	}
	if got, _ := json.Marshal(a.at("properties.podkey.toInstall")); string(got) != `["workload-identity-webhook"]` {
		t.Errorf("to be installed: %s", got)
	}
	// A newer client sends back all that it read, ours too.
	a = r.asAzDoes("contributor", func(c map[string]any) { c["tags"] = map[string]any{"a": "b"} })
	if a.Code != 200 || a.at("tags.a") != "b" || a.at("properties.securityProfile.workloadIdentity.enabled") != true {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	a = r.asAzDoes("contributor", func(c map[string]any) {
		props(c)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": false}}
	})
	if a.Code != 200 || a.at("properties.securityProfile.workloadIdentity.enabled") != false {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	a = r.must(200, "contributor", "PATCH", clusterPath("shop"), `{"tags":{"c":"d"}}`)
	if a.at("tags.c") != "d" || a.at("tags.a") != nil {
		t.Errorf("tags: %s", a.Body)
	}
}

func TestWhatARegisteredClusterCannotBeIsRefusedByName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	before := r.dump()
	for where, change := range map[string]func(c map[string]any){
		"properties.aadProfile.managed":      func(c map[string]any) { props(c)["aadProfile"] = map[string]any{"managed": true} },
		"identity.type":                      func(c map[string]any) { c["identity"] = map[string]any{"type": "SystemAssigned"} },
		"sku.tier":                           func(c map[string]any) { c["sku"] = map[string]any{"name": "Base", "tier": "Premium"} },
		"properties.kubernetesVersion":       func(c map[string]any) { props(c)["kubernetesVersion"] = "1.34.0" },
		"properties.agentPoolProfiles":       func(c map[string]any) { props(c)["agentPoolProfiles"] = []any{} },
		"properties.agentPoolProfiles.count": func(c map[string]any) { props(c)["agentPoolProfiles"].([]any)[0].(map[string]any)["count"] = 3 },
		"properties.networkProfile":          func(c map[string]any) { props(c)["networkProfile"] = "kubenet" },
		"properties.oidcIssuerProfile.issuerURL": func(c map[string]any) {
			props(c)["oidcIssuerProfile"].(map[string]any)["issuerURL"] = "https://evil.example/"
		},
		"properties.servicePrincipalProfile.clientId": func(c map[string]any) {
			props(c)["servicePrincipalProfile"].(map[string]any)["clientId"] = homeTenant
		},
		"Properties.podkey.issuer": func(c map[string]any) {
			c["Properties"] = map[string]any{"podkey": map[string]any{"issuer": issuerURL}}
			delete(c, "properties")
		},
	} {
		a := r.asAzDoes("owner", change)
		msg, _ := a.at("error.message").(string)
		if a.Code != 400 || a.code() != "PropertyChangeNotAllowed" || !strings.Contains(msg, "'"+where+"'") {
			t.Errorf("%s: %d %s", where, a.Code, a.Body)
		}
	}
	a := r.asAzDoes("owner", func(c map[string]any) { props(c)["oidcIssuerProfile"] = map[string]any{"enabled": false} })
	if a.code() != "OIDCIssuerFeatureCannotBeDisabled" {
		t.Errorf("%s", a.Body)
	}
	r.refused(409, "InvalidResourceLocation", "owner", "PUT", clusterPath("shop"), `{"location":"eastus"}`)
	r.refused(400, "ClusterCreationNotSupported", "owner", "PUT", clusterPath("new"), `{"location":"westeurope","properties":{"dnsPrefix":"x"}}`)
	r.refused(400, codeContent, "owner", "PATCH", clusterPath("shop"), `{"properties":{}}`)
	if d := cmp.Diff(before, r.dump()); d != "" {
		t.Errorf("a refused change was made: %s", d)
	}
}

func TestETags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	first := r.must(200, "owner", "GET", clusterPath("shop"), nil).Header().Get("ETag")
	r.refused(412, "PreconditionFailed", "owner", "PUT", clusterPath("shop"), `{"location":"westeurope"}`, "If-None-Match", "*")
	r.refused(412, "PreconditionFailed", "owner", "PATCH", clusterPath("shop"), `{"tags":{}}`, "If-Match", `"other"`)
	second := r.must(200, "owner", "PATCH", clusterPath("shop"), `{"tags":{"a":"b"}}`, "If-Match", first).Header().Get("ETag")
	if second == first {
		t.Error("the ETag is the same after a change")
	}
	r.refused(412, "PreconditionFailed", "owner", "PUT", clusterPath("shop"), `{"location":"westeurope"}`, "If-Match", first)
	r.refused(412, "PreconditionFailed", "owner", "DELETE", clusterPath("shop"), nil, "If-Match", first)
	r.must(200, "owner", "PUT", clusterPath("shop"), `{"location":"westeurope"}`, "If-Match", second)
	r.refused(412, "PreconditionFailed", "operator", "PUT", clusterPath("new"), fetching("https://new.example/"), "If-Match", "*")
	r.must(201, "operator", "PUT", clusterPath("new"), fetching("https://new.example/"), "If-None-Match", "*")
}

// TestWhatARegistrationMaySay: as a template says it, all at once.
func TestWhatARegistrationMaySay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := registering(issuerURL, r.jwks("one", "two"))
	delete(props(b)["podkey"].(map[string]any), "kubeconfig") // with one, work would begin
	b["tags"] = map[string]any{"a": "b"}
	props(b)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": true}}
	props(b)["oidcIssuerProfile"] = map[string]any{"enabled": true}
	props(b)["servicePrincipalProfile"] = map[string]any{"clientId": strings.ToUpper(homeTenant)}
	a := r.must(201, "operator", "PUT", clusterPath("shop"), b)
	if a.at("properties.servicePrincipalProfile.clientId") != homeTenant || a.at("properties.securityProfile.workloadIdentity.enabled") != true || a.at("tags.a") != "b" {
		t.Errorf("%s", a.Body)
	}
	// Again, the same: nothing but the time changes, as a template may be deployed twice.
	again := r.must(200, "operator", "PUT", clusterPath("shop"), b)
	if d := cmp.Diff(a.at("properties"), again.at("properties")); d != "" {
		t.Error(d)
	}
	if !strings.Contains(r.log.String(), issuerURL) {
		t.Error("the log does not say for which issuer keys were pinned")
	}
	props(b)["servicePrincipalProfile"] = map[string]any{"clientId": "somebody"}
	r.refused(400, codeRegistration, "operator", "PUT", clusterPath("shop"), b)
	props(b)["servicePrincipalProfile"] = map[string]any{"clientId": "msi"}
	props(b)["identity"] = "x"
	r.refused(400, "PropertyChangeNotAllowed", "operator", "PUT", clusterPath("new"), b)
	delete(props(b), "identity")
	b["tags"] = map[string]any{"<": "b"}
	r.refused(400, "InvalidTagNameCharacters", "operator", "PUT", clusterPath("new"), b)
	// Without a registration nothing of it is taken.
	r.refused(400, "PropertyChangeNotAllowed", "operator", "PUT", clusterPath("shop"), `{"properties":{"servicePrincipalProfile":{"clientId":"`+otherTenant+`"}}}`)
}

// TestAChangeThatWasOvertakenIsRefused: rights were asked for a change of the
// cluster as it was.
func TestAChangeThatWasOvertakenIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	id, err := arm.ParseID(clusterPath("shop"))
	if err != nil {
		t.Fatal(err)
	}
	have, _, err := r.c.load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	next := have
	next.WorkloadIdentity = true
	r.must(200, "owner", "PATCH", clusterPath("shop"), `{"tags":{"a":"b"}}`)
	before := r.dump()
	req := httptest.NewRequestWithContext(t.Context(), "PUT", "/", nil)
	for _, existed := range []bool{true, false} {
		err = r.c.save(httptest.NewRecorder(), req, &arm.Request{ID: id}, &have, &next, nil, existed)
		if !fault.Is(err, fault.Clash) {
			t.Errorf("existed %t: %v", existed, err)
		}
	}
	if d := cmp.Diff(before, r.dump()); d != "" {
		t.Error(d)
	}
}

func TestCredentialsAreForWhoMayHaveThem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	for action, kind := range map[string]string{"listClusterUserCredential": "clusterUser", "listClusterAdminCredential": "clusterAdmin"} {
		a := r.must(200, "contributor", "POST", clusterPath("shop")+"/"+action, nil)
		list, _ := a.at("kubeconfigs").([]any)
		if len(list) != 1 || a.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %s", action, a.Body)
		}
		entry := list[0].(map[string]any)
		text, err := base64.StdEncoding.DecodeString(entry["value"].(string))
		if err != nil || entry["name"] != kind {
			t.Errorf("%v: %v", entry["name"], err)
		}
		access, err := kubeconfig.Parse(text, kubeconfig.Options{Context: "shop"})
		if err != nil || access.Token != secret || !strings.Contains(string(text), kind+"_rg_shop") {
			t.Errorf("%s: %v", action, err)
		}
		for _, who := range []string{"reader", "nobody"} {
			r.refused(403, "AuthorizationFailed", who, "POST", clusterPath("shop")+"/"+action, nil)
		}
		r.refused(401, "InvalidAuthenticationTokenTenant", "stranger", "POST", clusterPath("shop")+"/"+action, nil)
		r.refused(404, "ParentResourceNotFound", "contributor", "POST", clusterPath("gone")+"/"+action, nil)
	}
	r.must(201, "operator", "PUT", clusterPath("bare"), fetching("https://bare.example/"))
	r.refused(409, "KubeconfigNotRegistered", "operator", "POST", clusterPath("bare")+"/listClusterUserCredential", nil)
	// Nowhere else.
	for _, path := range []string{clusterPath("shop"), "/subscriptions/" + homeSub + "/resources", "/subscriptions/" + homeSub + "/providers/Microsoft.ContainerService/managedClusters"} {
		if a := r.must(200, "operator", "GET", path, nil); strings.Contains(a.Body.String(), secret) {
			t.Errorf("%s shows the token", path)
		}
	}
	if strings.Contains(r.log.String(), secret) || strings.Contains(r.log.String(), base64.StdEncoding.EncodeToString([]byte(secret))[:20]) {
		t.Error("the token is in a log")
	}
}

func TestKeysArePinnedReplacedAndForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	pinnedIDs := func() string {
		set, ok, err := r.c.Keys(t.Context(), issuerURL)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return "none"
		}
		var ids []string
		for _, k := range set.Keys {
			ids = append(ids, k.KeyID)
			if !k.Valid() || !k.IsPublic() {
				t.Errorf("key %s is not a valid public key", k.KeyID)
			}
		}
		return strings.Join(ids, " ")
	}
	if got := pinnedIDs(); got != "one" {
		t.Fatalf("keys: %s", got)
	}
	r.must(200, "owner", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": r.jwks("one", "two")})
	if got := pinnedIDs(); got != "one two" {
		t.Errorf("keys: %s", got)
	}
	a := r.must(200, "owner", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": r.jwks("two")})
	if got := pinnedIDs(); got != "two" || !strings.Contains(a.Body.String(), `"keyIds":["two"]`) {
		t.Errorf("keys: %s, %s", got, a.Body)
	}
	for _, other := range []string{strings.TrimSuffix(issuerURL, "/"), strings.ToUpper(issuerURL), "", "https://other.example/"} {
		if _, ok, err := r.c.Keys(t.Context(), other); ok || err != nil {
			t.Errorf("%q has keys: %v", other, err)
		}
	}
	// From pinned to fetched and back: pinning again is a matter for operators.
	r.must(200, "owner", "PUT", clusterPath("shop"), fetching(issuerURL))
	if got := pinnedIDs(); got != "none" {
		t.Errorf("keys: %s", got)
	}
	r.refused(409, "KeysAreFetched", "operator", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": r.jwks("one")})
	r.refused(403, "AuthorizationFailed", "owner", "PUT", clusterPath("shop"), registering(issuerURL, r.jwks("one")))
	r.must(200, "operator", "PUT", clusterPath("shop"), registering(issuerURL, r.jwks("one")))
	r.must(204, "owner", "DELETE", clusterPath("shop"), nil)
	r.must(204, "owner", "DELETE", clusterPath("shop"), nil)
	if got := pinnedIDs(); got != "none" || r.dump() != "" {
		t.Errorf("left over: %s\n%s", got, r.dump())
	}
}

func TestNothingOfAClusterIsInheritedByTheNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	r.grant("nobody", rbac.Reader, clusterPath("shop"))
	r.must(200, "nobody", "GET", clusterPath("shop"), nil)
	r.must(204, "owner", "DELETE", clusterPath("shop"), nil)
	r.registered()
	r.refused(403, "AuthorizationFailed", "nobody", "GET", clusterPath("shop"), nil)
	r.grant("nobody", rbac.Reader, clusterPath("shop"))
	r.must(200, "owner", "DELETE", "/subscriptions/"+homeSub+"/resourceGroups/rg", nil)
	if r.dump() != "" {
		t.Errorf("left over: %s", r.dump())
	}
	r.must(201, "owner", "PUT", "/subscriptions/"+homeSub+"/resourceGroups/rg", `{"location":"westeurope"}`)
	r.registered()
	r.refused(403, "AuthorizationFailed", "nobody", "GET", clusterPath("shop"), nil)
}

// TestEveryRouteAsksForARight goes through all that Register registers.
func TestEveryRouteAsksForARight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	before := r.dump()
	body := registering("https://evil.example/", r.jwks("evil"))
	for _, c := range []struct {
		method, path string
		reader       int // what the Reader gets
	}{
		{"GET", clusterPath("shop"), 200}, {"HEAD", clusterPath("shop"), 204},
		{"PUT", clusterPath("shop"), 403}, {"PUT", clusterPath("new"), 403}, {"PATCH", clusterPath("shop"), 403}, {"DELETE", clusterPath("shop"), 403},
		{"POST", clusterPath("shop") + "/pushKeys", 403}, {"POST", clusterPath("shop") + "/listClusterUserCredential", 403}, {"POST", clusterPath("shop") + "/listClusterAdminCredential", 403},
	} {
		for who, want := range map[string]int{"": 401, "forged": 401, "nobody": 403, "reader": c.reader, "stranger": 401, "root": 401} {
			a := r.do(who, c.method, c.path, body)
			if a.Code != want {
				t.Errorf("%s %s as %q: %d, want %d: %s", c.method, c.path, who, a.Code, want, a.Body)
			}
		}
	}
	l := r.must(403, "nobody", "GET", "/subscriptions/"+homeSub+"/providers/Microsoft.ContainerService/managedClusters", nil)
	if strings.Contains(l.Body.String(), "shop") {
		t.Errorf("nobody sees %s", l.Body)
	}
	if d := cmp.Diff(before, r.dump()); d != "" {
		t.Errorf("something changed: %s", d)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"a": true, "a-b_c": true, "A1": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "_a": false, "a.b": false, "a b": false, "é": false, strings.Repeat("a", 64): false,
	} {
		if validName(name) != ok {
			t.Errorf("%q: %t", name, !ok)
		}
	}
	r := newRig(t)
	for _, name := range []string{"a.b", "a%20b", "-a", "a%2Fb", "%2e%2e", "a%00b", strings.Repeat("a", 64)} {
		if a := r.do("operator", "PUT", clusterPath(name), fetching("https://n.example/")); a.Code != 400 || a.code() == "" {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
	if r.dump() != "" {
		t.Error("a bad name was registered")
	}
	if _, err := arm.ParseID(clusterPath("shop")); err != nil {
		t.Error(err)
	}
}
