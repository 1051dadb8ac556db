package arm

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

func manyTags(n int) map[string]string {
	tags := map[string]string{}
	for i := range n {
		tags[fmt.Sprint("t", i)] = "v"
	}
	return tags
}

// TestBadBodies: each is refused with ARM's body, and changes nothing.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.makeIdentity("g", "idn")
	r.makeVault("g", "kv-1")
	r.must(201, "owner", "PUT", vaultPath("g", "kv-pp"), vaultRequest(map[string]any{"enablePurgeProtection": true, "softDeleteRetentionInDays": 30}))
	owner := r.people["owner"].ObjectID
	group, idn, vault, fic := groupPath("new"), identityPath("g", "new"), vaultPath("g", "kv-new"), identityPath("g", "idn")+"/federatedIdentityCredentials/"
	ra := func() string { return assignmentPath(groupPath("g"), uuid.NewString()) }
	raBody := func(role, principal any, more ...any) map[string]any {
		p := map[string]any{"roleDefinitionId": role, "principalId": principal}
		for i := 0; i+1 < len(more); i += 2 {
			p[more[i].(string)] = more[i+1]
		}
		return map[string]any{"properties": p}
	}
	in := func(more map[string]any) map[string]any { return vaultRequest(more) }
	before := r.dump()
	for _, c := range []struct {
		name, method, path string
		body               any
		status             int
		code               string
	}{
		{"no body", "PUT", group, "", 400, "InvalidRequestContent"},
		{"half JSON", "PUT", group, `{"location":`, 400, "InvalidRequestContent"},
		{"two values", "PUT", group, `{"location":"westeurope"}{}`, 400, "InvalidRequestContent"},
		{"not an object", "PUT", group, `[]`, 400, "InvalidRequestContent"},
		{"null", "PUT", group, `null`, 400, "LocationRequired"},
		{"number for text", "PUT", group, `{"location":5}`, 400, "InvalidRequestContent"},
		{"list for tags", "PUT", group, `{"location":"westeurope","tags":[]}`, 400, "InvalidRequestContent"},
		{"number in tags", "PUT", group, `{"location":"westeurope","tags":{"a":1}}`, 400, "InvalidRequestContent"},
		{"text for properties", "PUT", group, `{"location":"westeurope","properties":"x"}`, 400, "InvalidRequestContent"},
		{"bad UTF-8 location", "PUT", group, "{\"location\":\"\xff\"}", 400, "LocationNotAvailableForResourceGroup"},
		{"no location", "PUT", group, `{}`, 400, "LocationRequired"},
		{"unknown location", "PUT", group, `{"location":"atlantis"}`, 400, "LocationNotAvailableForResourceGroup"},
		{"too deep", "PUT", group, strings.Repeat(`{"properties":`, 20000) + "1" + strings.Repeat("}", 20000), 400, "InvalidRequestContent"},
		{"too many tags", "PUT", group, map[string]any{"location": "westeurope", "tags": manyTags(51)}, 400, "TooManyTags"},
		{"long tag name", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{strings.Repeat("n", 513): ""}}, 400, "InvalidTagNameLength"},
		{"empty tag name", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{"": "x"}}, 400, "InvalidTagNameLength"},
		{"long tag value", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{"n": strings.Repeat("v", 257)}}, 400, "InvalidTagValueLength"},
		{"tag characters", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{"a/b": ""}}, 400, "InvalidTagNameCharacters"},
		{"tag control", "PUT", group, map[string]any{"location": "westeurope", "tags": map[string]string{"a\nb": ""}}, 400, "InvalidTagNameCharacters"},
		{"tag twice", "PUT", group, `{"location":"westeurope","tags":{"Env":"a","env":"b"}}`, 400, "InvalidTagNames"},
		{"long managedBy", "PUT", group, map[string]any{"location": "westeurope", "managedBy": strings.Repeat("x", 3000)}, 400, "InvalidRequestContent"},
		{"oversize", "PUT", group, `{"location":"westeurope","x":"` + strings.Repeat("x", web.MaxBody) + `"}`, 413, "InvalidRequestContent"},
		{"trailing dot", "PUT", groupPath("x."), map[string]any{"location": "westeurope"}, 400, "InvalidResourceGroup"},
		{"long name", "PUT", groupPath(strings.Repeat("x", 91)), map[string]any{"location": "westeurope"}, 400, "InvalidResourceGroup"},
		{"name with blank", "PUT", groupPath("a%20b"), map[string]any{"location": "westeurope"}, 400, "InvalidResourceGroup"},
		{"name beyond ASCII", "PUT", groupPath("%c3%bc"), map[string]any{"location": "westeurope"}, 400, "InvalidRequestUri"},
		{"Kelvin sign", "PUT", groupPath("%e2%84%aa"), map[string]any{"location": "westeurope"}, 400, "InvalidRequestUri"},
		{"patch of nothing", "PATCH", group, `{"tags":{}}`, 404, "ResourceGroupNotFound"},
		{"patch with bad tags", "PATCH", groupPath("g"), map[string]any{"tags": manyTags(51)}, 400, "TooManyTags"},

		{"identity: no location", "PUT", idn, `{}`, 400, "LocationRequired"},
		{"identity: unknown location", "PUT", idn, `{"location":"x"}`, 400, "LocationNotAvailableForResourceType"},
		{"identity: short name", "PUT", identityPath("g", "ab"), `{"location":"westeurope"}`, 400, "InvalidResourceName"},
		{"identity: long name", "PUT", identityPath("g", strings.Repeat("a", 129)), `{"location":"westeurope"}`, 400, "InvalidResourceName"},
		{"identity: first character", "PUT", identityPath("g", "-abc"), `{"location":"westeurope"}`, 400, "InvalidResourceName"},
		{"identity: dot", "PUT", identityPath("g", "a.bc"), `{"location":"westeurope"}`, 400, "InvalidResourceName"},
		{"identity: isolation", "PUT", idn, `{"location":"westeurope","properties":{"isolationScope":"Regional"}}`, 400, "BadRequest"},
		{"identity: other location", "PUT", identityPath("g", "idn"), `{"location":"eastus"}`, 409, "InvalidResourceLocation"},
		{"identity: patch other location", "PATCH", identityPath("g", "idn"), `{"location":"eastus"}`, 409, "InvalidResourceLocation"},
		{"identity: patch tags", "PATCH", identityPath("g", "idn"), map[string]any{"tags": manyTags(51)}, 400, "TooManyTags"},
		{"identity: patch nothing", "PATCH", idn, `{"tags":{}}`, 404, "ResourceNotFound"},

		{"credential: no properties", "PUT", fic + "cred", `{}`, 400, "InvalidRequestContent"},
		{"credential: two audiences", "PUT", fic + "cred", `{"properties":{"issuer":"https://i/","subject":"s","audiences":["a","b"]}}`, 400, "BadRequest"},
		{"credential: text for audiences", "PUT", fic + "cred", `{"properties":{"issuer":"https://i/","subject":"s","audiences":"a"}}`, 400, "InvalidRequestContent"},
		{"credential: no issuer", "PUT", fic + "cred", `{"properties":{"subject":"s","audiences":["a"]}}`, 400, "BadRequest"},
		{"credential: issuer of metadata", "PUT", fic + "cred", `{"properties":{"issuer":"http://169.254.169.254/","subject":"s","audiences":["a"]}}`, 400, "BadRequest"},
		{"credential: name", "PUT", fic + "_x", credential("s"), 400, "BadRequest"},
		{"credential: expression", "PUT", fic + "cred", `{"properties":{"issuer":"https://i.example/","subject":"s","audiences":["a"],"claimsMatchingExpression":{"value":"x","languageVersion":1}}}`, 400, "BadRequest"},

		{"credential: expression and subject", "PUT", fic + "cred", expression("claims['sub'] matches 'a:*'", 1, "s"), 400, "BadRequest"},
		{"credential: version of the expression", "PUT", fic + "cred", expression("claims['sub'] matches 'a:*'", 2, ""), 400, "BadRequest"},
		{"credential: no expression", "PUT", fic + "cred", expression("", 1, ""), 400, "BadRequest"},
		{"credential: malformed expression", "PUT", fic + "cred", expression("claims['sub'] like 'a'", 1, ""), 400, "BadRequest"},
		{"credential: expression is text", "PUT", fic + "cred", `{"properties":{"issuer":"https://i.example/","audiences":["a"],"claimsMatchingExpression":"x"}}`, 400, "InvalidRequestContent"},

		{"vault: no properties", "PUT", vault, `{"location":"westeurope"}`, 400, "InvalidRequestContent"},
		{"vault: no location", "PUT", vault, map[string]any{"properties": in(nil)["properties"]}, 400, "LocationRequired"},
		{"vault: no sku", "PUT", vault, map[string]any{"location": "westeurope", "properties": map[string]any{"tenantId": homeTenant}}, 400, "BadRequest"},
		{"vault: sku", "PUT", vault, in(map[string]any{"sku": map[string]any{"family": "A", "name": "gold"}}), 400, "BadRequest"},
		{"vault: another tenant", "PUT", vault, in(map[string]any{"tenantId": otherTenant}), 400, "BadRequest"},
		{"vault: name", "PUT", vaultPath("g", "1kv"), in(nil), 400, "VaultNameNotValid"},
		{"vault: two hyphens", "PUT", vaultPath("g", "kv--1"), in(nil), 400, "VaultNameNotValid"},
		{"vault: long name", "PUT", vaultPath("g", strings.Repeat("k", 25)), in(nil), 400, "VaultNameNotValid"},
		{"vault: retention", "PUT", vault, in(map[string]any{"softDeleteRetentionInDays": 6}), 400, "BadRequest"},
		{"vault: retention is text", "PUT", vault, in(map[string]any{"softDeleteRetentionInDays": "7"}), 400, "InvalidRequestContent"},
		{"vault: retention is a fraction", "PUT", vault, in(map[string]any{"softDeleteRetentionInDays": 7.5}), 400, "InvalidRequestContent"},
		{"vault: no soft delete", "PUT", vault, in(map[string]any{"enableSoftDelete": false}), 400, "BadRequest"},
		{"vault: createMode", "PUT", vault, in(map[string]any{"createMode": "steal"}), 400, "BadRequest"},
		{"vault: recover nothing", "PUT", vault, in(map[string]any{"createMode": "recover"}), 404, "DeletedVaultNotFound"},
		{"vault: address", "PUT", vault, in(map[string]any{"networkAcls": map[string]any{"ipRules": []any{map[string]any{"value": "x"}}}}), 400, "BadRequest"},
		{"vault: tags", "PUT", vault, map[string]any{"location": "westeurope", "tags": manyTags(51), "properties": in(nil)["properties"]}, 400, "TooManyTags"},
		{"vault: policy of another tenant", "PUT", vault, in(map[string]any{"accessPolicies": []any{map[string]any{"tenantId": otherTenant, "objectId": owner, "permissions": map[string]any{}}}}), 400, "BadRequest"},
		{"vault: unknown permission", "PUT", vault, in(map[string]any{"accessPolicies": []any{map[string]any{"tenantId": homeTenant, "objectId": owner, "permissions": map[string]any{"secrets": []string{"peek"}}}}}), 400, "BadRequest"},
		{"vault: object id", "PUT", vault, in(map[string]any{"accessPolicies": []any{map[string]any{"tenantId": homeTenant, "objectId": "me", "permissions": map[string]any{}}}}), 400, "BadRequest"},
		{"vault: purge protection off", "PATCH", vaultPath("g", "kv-pp"), `{"properties":{"enablePurgeProtection":false}}`, 400, "BadRequest"},
		{"vault: other retention", "PATCH", vaultPath("g", "kv-pp"), `{"properties":{"softDeleteRetentionInDays":7}}`, 400, "BadRequest"},
		{"vault: moved", "PATCH", vaultPath("g", "kv-pp"), `{"location":"eastus"}`, 409, "InvalidResourceLocation"},
		{"vault: moved by PUT", "PUT", vaultPath("g", "kv-pp"), map[string]any{"location": "eastus", "properties": in(nil)["properties"]}, 409, "InvalidResourceLocation"},
		{"vault: patch of nothing", "PATCH", vault, `{}`, 404, "ResourceNotFound"},
		{"policies: operation", "PUT", vaultPath("g", "kv-1") + "/accessPolicies/steal", `{"properties":{"accessPolicies":[]}}`, 400, "BadRequest"},
		{"policies: none", "PUT", vaultPath("g", "kv-1") + "/accessPolicies/add", `{"properties":{}}`, 400, "InvalidRequestContent"},
		{"check: type", "POST", "/subscriptions/" + homeSub + "/providers/Microsoft.KeyVault/checkNameAvailability", `{"name":"abc","type":"Microsoft.X/y"}`, 400, "BadRequest"},
		{"purge nothing", "POST", "/subscriptions/" + homeSub + "/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/x/purge", nil, 404, "ParentResourceNotFound"},
		{"purge nowhere", "POST", "/subscriptions/" + homeSub + "/providers/Microsoft.KeyVault/locations/atlantis/deletedVaults/x/purge", nil, 404, "ParentResourceNotFound"},

		{"assignment: no properties", "PUT", ra(), `{}`, 400, "InvalidRequestContent"},
		{"assignment: name", "PUT", assignmentPath(groupPath("g"), "no-guid"), raBody(rbac.Reader, owner), 400, "InvalidRoleAssignmentId"},
		{"assignment: role", "PUT", ra(), raBody("nothing", owner), 400, "InvalidRoleDefinitionId"},
		{"assignment: role of another type", "PUT", ra(), raBody("/providers/Microsoft.X/y/"+rbac.Reader, owner), 400, "InvalidRoleDefinitionId"},
		{"assignment: unknown role", "PUT", ra(), raBody(uuid.NewString(), owner), 400, "RoleDefinitionDoesNotExist"},
		{"assignment: principal", "PUT", ra(), raBody(rbac.Reader, "me"), 400, "InvalidPrincipalId"},
		{"assignment: unknown principal", "PUT", ra(), raBody(rbac.Reader, uuid.NewString()), 400, "PrincipalNotFound"},
		{"assignment: unknown principal of a type", "PUT", ra(), raBody(rbac.Reader, uuid.NewString(), "principalType", "ServicePrincipal"), 400, "PrincipalNotFound"},
		{"assignment: client id for object id", "PUT", ra(), raBody(rbac.Reader, r.people["owner"].AppID), 400, "PrincipalNotFound"},
		{"assignment: wrong type", "PUT", ra(), raBody(rbac.Reader, owner, "principalType", "User"), 400, "UnmatchedPrincipalType"},
		{"assignment: unknown type", "PUT", ra(), raBody(rbac.Reader, owner, "principalType", "Robot"), 400, "InvalidPrincipalType"},
		{"assignment: condition", "PUT", ra(), raBody(rbac.Reader, owner, "condition", "@Resource[x] StringEquals 'y'", "conditionVersion", "2.0"), 400, "RoleAssignmentConditionNotSupported"},
		{"assignment: version of a condition", "PUT", ra(), raBody(rbac.Reader, owner, "conditionVersion", "2.0"), 400, "RoleAssignmentConditionNotSupported"},
		{"assignment: delegated", "PUT", ra(), raBody(rbac.Reader, owner, "delegatedManagedIdentityResourceId", "/x"), 400, "BadRequest"},
		{"assignment: number for role", "PUT", ra(), raBody(5, owner), 400, "InvalidRequestContent"},
	} {
		a := r.do("owner", c.method, c.path, c.body)
		if a.StatusCode != c.status || a.code() != c.code || a.message() == "" {
			t.Errorf("%s: %d %s, want %d %s: %.300s", c.name, a.StatusCode, a.code(), c.status, c.code, a.body)
		}
	}
	for name, header := range map[string]http.Header{
		"form":    {"Content-Type": {"application/x-www-form-urlencoded"}},
		"utf-16":  {"Content-Type": {"application/json; charset=utf-16"}},
		"garbage": {"Content-Type": {";"}},
	} {
		if a := r.send("owner", "PUT", group, `{"location":"westeurope"}`, header); a.StatusCode != 415 || a.code() != "InvalidRequestContent" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	list := "/subscriptions/" + homeSub + "/resources"
	for query, code := range map[string]string{
		"$top=0": "InvalidTopInQueryString", "$top=-1": "InvalidTopInQueryString", "$top=x": "InvalidTopInQueryString", "$top=1.5": "InvalidTopInQueryString",
		"$top=99999999999999999999": "InvalidTopInQueryString", "$top=1&$top=2": "InvalidRequestContent", "$TOP=1&$top=1": "InvalidRequestContent",
		"$skiptoken=%21": "InvalidSkipToken", "$skipToken=A": "InvalidSkipToken",
		"$filter=plan%20eq%20'x'": "InvalidFilterInQueryString", "$filter=name%20eq%20'a'&$filter=name%20eq%20'b'": "InvalidRequestContent",
		"$expand=everything": "InvalidExpandInQueryString", "$expand=": "",
		"a=%zz": "BadRequest", "a=1;b=2": "BadRequest",
	} {
		if a := r.do("owner", "GET", list+"?"+query, nil); a.code() != code || (code != "") != (a.StatusCode == 400) {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.body)
		}
	}
	for path, code := range map[string]string{
		"/subscriptions/" + homeSub + "/resourcegroups?$filter=resourceType%20eq%20'x'":                        "InvalidFilterInQueryString",
		strings.TrimSuffix(assignmentPath(groupPath("g"), ""), "/") + "?$filter=roleDefinitionId%20eq%20'x'":   "InvalidFilterInQueryString",
		groupPath("g") + "/providers/Microsoft.Authorization/roleDefinitions?$filter=startswith(roleName,'x')": "InvalidFilterInQueryString",
	} {
		r.refused(400, code, "owner", "GET", path, nil)
	}
	// A token that nobody gave out only moves the window.
	token := base64.RawURLEncoding.EncodeToString([]byte("\xff\xff"))
	if got := r.must(200, "owner", "GET", list+"?$skiptoken="+token, nil).list("id"); len(got) != 0 {
		t.Error(got)
	}
}

func TestPagesCoverAListingOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	want := []string{}
	for i := range 7 {
		r.makeIdentity("g", fmt.Sprintf("id-%d", i))
		want = append(want, fmt.Sprintf("id-%d", i))
	}
	for top := 1; top <= 8; top++ {
		got, path := []string{}, groupPath("g")+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities?$top="+fmt.Sprint(top)+"&x=a%26b"
		for path != "" {
			a := r.must(200, "owner", "GET", path, nil)
			page := a.list("name")
			if len(page) == 0 || len(page) > top {
				t.Fatalf("a page of %d has %d", top, len(page))
			}
			got = append(got, page...)
			next, _ := a.at("nextLink").(string)
			if next != "" {
				u, err := url.Parse(next)
				if err != nil || u.Query().Get("api-version") != "2024-11-30" || u.Query().Get("x") != "a&b" || !strings.HasPrefix(next, r.srv.URL+"/") {
					t.Fatalf("%s: %v", next, err)
				}
			}
			path = strings.TrimPrefix(next, r.srv.URL)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d: %s", top, diff)
		}
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[string]bool{
		"2021-04-01": true, "2022-01-31-preview": true, "2014-11-01-privatepreview": true,
		"": false, "2021-04": false, "2021-4-1": false, "2021-04-01-": false, "2021-04-01preview": false, "2021-04-01-pre view": false, "2021_04_01": false,
		"2021-04-01\n": false, "latest": false, "2021-04-01-" + strings.Repeat("x", 40): false,
	} {
		if validVersion(v) != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
	for _, list := range [][]string{versionsResources, versionsKeyVault, versionsIdentity, versionsAuthorization, metadataFlat, metadataList, metadataOne} {
		for i, v := range list {
			if !validVersion(v) || i > 0 && v[:10] < list[i-1][:10] {
				t.Errorf("%s is malformed or out of order", v)
			}
		}
	}
	// Names of parameters and the version's letters have no case.
	if v, err := apiVersion(url.Values{"Api-Version": {"2022-01-31-Preview"}}); v != "2022-01-31-preview" || err != nil {
		t.Error(v, err)
	}
}

// TestVaultModelDefault: which model a new vault has depends on the version.
func TestVaultModelDefault(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	for version, want := range map[string]bool{"2022-07-01": false, "2024-12-01-preview": false, "2026-02-01": true} {
		body := vaultRequest(nil)
		delete(body["properties"].(map[string]any), "enableRbacAuthorization")
		a := r.must(201, "owner", "PUT", vaultPath("g", "kv-"+strings.ReplaceAll(version[:10], "-", ""))+"?api-version="+version, body)
		if a.at("properties.enableRbacAuthorization") != want {
			t.Errorf("%s: %s", version, a.body)
		}
	}
}

func TestEnsureSubscription(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	id := uuid.NewString()
	for _, c := range []struct {
		id, tenant, name string
		created          bool
		kind             fault.Kind
	}{
		{id, "home.example", "One", true, 0},
		{strings.ToUpper(id), strings.ToUpper(homeTenant), "Two", false, 0},
		{id, homeTenant, "Two", false, 0},
		{id, otherTenant, "Two", false, fault.Clash},
		{"x", homeTenant, "Two", false, fault.Invalid},
		{uuid.NewString(), uuid.NewString(), "Two", false, fault.Missing},
		{uuid.NewString(), homeTenant, "", false, fault.Invalid},
	} {
		created, err := r.h.EnsureSubscription(ctx, c.id, c.tenant, c.name)
		if created != c.created || (c.kind == 0) != (err == nil) || c.kind != 0 && !fault.Is(err, c.kind) {
			t.Errorf("%+v: %v %v", c, created, err)
		}
	}
	subs, err := r.h.Subscriptions(ctx, homeTenant)
	ok(t, err)
	if len(subs) != 3 {
		t.Errorf("%+v", subs)
	}
}
