package arm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/server/rbac"
)

const canary = "hunter2-canary"

func secretRequest(properties map[string]any) map[string]any {
	return map[string]any{"properties": properties, "tags": map[string]string{"team": "a"}}
}

func TestSecretThroughManagement(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	v := r.makeVault("g", "Kv-1")
	var seen strings.Builder
	see := func(a *answer) *answer {
		seen.Write(a.body)
		return a
	}
	path := v + "/secrets/Db"
	a := see(r.must(201, "owner", "PUT", path, secretRequest(map[string]any{
		"value": canary, "contentType": "text/plain", "attributes": map[string]any{"enabled": true, "exp": 1900000000},
	})))
	uri, _ := a.at("properties.secretUriWithVersion").(string)
	for member, want := range map[string]any{
		"id": v + "/secrets/Db", "name": "Db", "type": "Microsoft.KeyVault/vaults/secrets", "location": "westeurope", "tags.team": "a",
		"properties.contentType": "text/plain", "properties.attributes.enabled": true, "properties.attributes.exp": 1.9e9,
		"properties.secretUri": "https://kv-1." + r.names.Vault + "/secrets/Db", "properties.value": nil,
	} {
		if a.at(member) != want {
			t.Errorf("%s is %v, want %v", member, a.at(member), want)
		}
	}
	if version := strings.TrimPrefix(uri, "https://kv-1."+r.names.Vault+"/secrets/Db/"); len(version) != 32 {
		t.Errorf("%q", uri)
	}
	a = see(r.must(200, "owner", "PUT", strings.ToLower(path), secretRequest(map[string]any{"value": canary + "2"})))
	if a.at("properties.secretUriWithVersion") == uri || a.at("name") != "Db" || a.at("properties.contentType") != nil {
		t.Errorf("%s", a.body)
	}
	a = see(r.must(200, "owner", "PATCH", path, map[string]any{"properties": map[string]any{"attributes": map[string]any{"enabled": false}}}))
	if a.at("properties.attributes.enabled") != false || a.at("tags.team") != "a" {
		t.Errorf("%s", a.body)
	}
	if got := see(r.must(200, "owner", "GET", path, nil)); string(got.body) != string(a.body) {
		t.Errorf("%s\n%s", got.body, a.body)
	}
	if got := see(r.must(200, "owner", "GET", v+"/secrets", nil)).list("name"); !slices.Equal(got, []string{"Db"}) {
		t.Error(got)
	}
	before := r.dump()
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		"no properties":  {"PUT", path, `{}`, 400, "InvalidRequestContent"},
		"no value":       {"PUT", path, secretRequest(map[string]any{"contentType": "x"}), 400, "BadParameter"},
		"number":         {"PUT", path, secretRequest(map[string]any{"value": 5}), 400, "InvalidRequestContent"},
		"cut off":        {"PUT", path, `{"properties":{"value":"` + canary, 400, "InvalidRequestContent"},
		"surrogate":      {"PUT", path, `{"properties":{"value":"` + canary + `\ud800"}}`, 400, "InvalidRequestContent"},
		"not UTF-8":      {"PUT", path, "{\"properties\":{\"value\":\"" + canary + "\xff\"}}", 400, "InvalidRequestContent"},
		"long":           {"PUT", path, secretRequest(map[string]any{"value": strings.Repeat(canary, 2000)}), 400, "BadParameter"},
		"name":           {"PUT", v + "/secrets/a_b", secretRequest(map[string]any{"value": canary}), 400, "BadParameter"},
		"tags":           {"PUT", path, map[string]any{"properties": map[string]any{"value": canary}, "tags": manyTags(16)}, 400, "BadParameter"},
		"value by PATCH": {"PATCH", path, secretRequest(map[string]any{"value": canary}), 400, "BadParameter"},
		"patch nothing":  {"PATCH", v + "/secrets/none", secretRequest(map[string]any{}), 404, "SecretNotFound"},
		"get nothing":    {"GET", v + "/secrets/none", nil, 404, "ResourceNotFound"},
		"no vault":       {"PUT", vaultPath("g", "none") + "/secrets/s", secretRequest(map[string]any{"value": canary}), 404, "ParentResourceNotFound"},
		"delete":         {"DELETE", path, nil, 405, "MethodNotAllowed"},
	} {
		if a := see(r.do("owner", c.method, c.path, c.body)); a.StatusCode != c.status || a.code() != c.code || a.message() == "" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
	if all := seen.String() + r.audit.take() + r.log.take(); strings.Contains(all, canary) {
		t.Errorf("the value shows in %s", all)
	}
}

// TestWhoMaySetSecrets: the management plane's actions decide, not the data
// plane's roles, nor the vault's access policies.
func TestWhoMaySetSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	v := r.makeVault("g", "kv-1")
	byPolicy := vaultPath("g", "kv-2")
	for name, role := range map[string]string{
		"officer": rbac.KeyVaultSecretsOfficer, "administrator": rbac.KeyVaultAdministrator, "secretsuser": rbac.KeyVaultSecretsUser,
		"reader": rbac.Reader, "contributor": rbac.Contributor, "vaultcontributor": rbac.KeyVaultContributor,
	} {
		r.person(name, homeTenant)
		r.grant(name, role, groupPath("g"))
	}
	r.person("bypolicy", homeTenant)
	r.must(201, "owner", "PUT", byPolicy, vaultRequest(map[string]any{"enableRbacAuthorization": false, "accessPolicies": []any{
		map[string]any{"tenantId": homeTenant, "objectId": r.people["bypolicy"].ObjectID, "permissions": map[string]any{"secrets": []string{"all"}}},
	}}))
	body := secretRequest(map[string]any{"value": "x"})
	for _, vault := range []string{v, byPolicy} {
		r.must(201, "owner", "PUT", vault+"/secrets/s", body)
		for as, may := range map[string][2]bool{ // read, write
			"officer": {true, false}, "administrator": {true, false}, "secretsuser": {false, false}, "bypolicy": {false, false},
			"reader": {true, false}, "contributor": {true, true}, "vaultcontributor": {true, true},
		} {
			for method, want := range map[string]bool{"GET": may[0], "PUT": may[1], "PATCH": may[1]} {
				b := body
				if method == "PATCH" {
					b = secretRequest(map[string]any{})
				}
				if a := r.do(as, method, vault+"/secrets/s", b); (a.StatusCode == 200) != want || !want && a.code() != "AuthorizationFailed" {
					t.Errorf("%s %s as %s: %d %s", method, vault, as, a.StatusCode, a.body)
				}
			}
			if a := r.do(as, "GET", vault+"/secrets", nil); (a.StatusCode == 200) != may[0] {
				t.Errorf("list as %s: %d %s", as, a.StatusCode, a.body)
			}
		}
	}
}

func TestPagesOfVaultSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	v := r.makeVault("g", "kv-1")
	want := []string{}
	for i := range 5 {
		name := fmt.Sprint("s", i)
		r.must(201, "owner", "PUT", v+"/secrets/"+name, secretRequest(map[string]any{"value": "x"}))
		want = append(want, name)
	}
	got, path := []string{}, v+"/secrets?$top=2"
	for path != "" {
		a := r.must(200, "owner", "GET", path, nil)
		got = append(got, a.list("name")...)
		next, _ := a.at("nextLink").(string)
		path = strings.TrimPrefix(next, r.srv.URL)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
