package rbac_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/rbac"
)

func TestAccessPolicies(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	const team, other = "77777777-0000-4000-8000-000000000001", "77777777-0000-4000-8000-000000000002"
	p.Groups = []string{team}
	secrets := func(names ...string) rbac.Permissions { return rbac.Permissions{Secrets: names} }
	for _, tt := range []struct {
		name     string
		policies []rbac.AccessPolicy
		allowed  bool
	}{
		{"none", nil, false},
		{"get", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: secrets("list", "get")}}, true},
		{"case", []rbac.AccessPolicy{{TenantID: strings.ToUpper(tenantA), ObjectID: strings.ToUpper(p.ObjectID), Permissions: secrets("Get")}}, true},
		{"all", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: secrets("ALL")}}, true},
		{"another permission", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: secrets("list", "set")}}, false},
		{"another kind", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: rbac.Permissions{Keys: []string{"get", "all"}}}}, false},
		{"another caller", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: other, Permissions: secrets("all")}}, false},
		{"another tenant", []rbac.AccessPolicy{{TenantID: tenantB, ObjectID: p.ObjectID, Permissions: secrets("all")}}, false},
		{"group", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: team, Permissions: secrets("get")}}, true},
		{"client matches", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, ApplicationID: strings.ToUpper(p.AppID), Permissions: secrets("get")}}, true},
		{"another client", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, ApplicationID: other, Permissions: secrets("get")}}, false},
		{"client alone", []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: other, ApplicationID: p.AppID, Permissions: secrets("get")}}, false},
		{"entries add up", []rbac.AccessPolicy{
			{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: secrets("list")},
			{TenantID: tenantA, ObjectID: team, Permissions: secrets("get")},
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := data(p, getSecret, vault)
			req.UsePolicies, req.Policies, req.PolicyKind, req.PolicyPermission = true, tt.policies, "secrets", "get"
			f.want(req, tt.allowed)
			_, err := f.Authorize(t.Context(), req)
			line := f.out.last(t)
			if tt.allowed {
				if err != nil || line["decision"] != audit.Allow || line["via"] == "" {
					t.Errorf("%v %v", err, line)
				}
				return
			}
			d, _ := errors.AsType[*rbac.Denied](err)
			if d == nil || !d.ByPolicies || d.PolicyKind != "secrets" || d.PolicyPermission != "get" || line["decision"] != audit.Deny {
				t.Errorf("%+v %v", d, line)
			}
		})
	}
}

// In the access-policy model roles do not count, and the other way round.
func TestModelsDoNotMix(t *testing.T) {
	f := newFixture(t)
	p, q := f.identity(tenantA), f.identity(tenantA)
	f.assign(p, rbac.KeyVaultAdministrator, vault)
	policies := []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: q.ObjectID, Permissions: rbac.Permissions{Secrets: []string{"all"}}}}
	for _, usePolicies := range []bool{false, true} {
		for _, who := range []audit.Principal{p, q} {
			req := data(who, getSecret, vault)
			req.UsePolicies, req.Policies, req.PolicyKind, req.PolicyPermission = usePolicies, policies, "secrets", "get"
			f.want(req, (who.ObjectID == q.ObjectID) == usePolicies)
		}
	}
}

func TestCheckPolicies(t *testing.T) {
	good := rbac.AccessPolicy{TenantID: tenantA, ObjectID: guid(1), Permissions: rbac.Permissions{
		Keys: []string{"Get", "wrapKey", "SetRotationPolicy"}, Secrets: []string{"all"}, Certificates: []string{"ManageContacts"}, Storage: []string{"getsas"},
	}}
	withApp := good
	withApp.ApplicationID = guid(2)
	if err := rbac.CheckPolicies([]rbac.AccessPolicy{good, withApp}); err != nil {
		t.Error(err)
	}
	bad := map[string]func(*rbac.AccessPolicy){
		"tenant":      func(p *rbac.AccessPolicy) { p.TenantID = "" },
		"object":      func(p *rbac.AccessPolicy) { p.ObjectID = "*" },
		"application": func(p *rbac.AccessPolicy) { p.ApplicationID = "x" },
		"permission":  func(p *rbac.AccessPolicy) { p.Permissions.Secrets = []string{"get,list"} },
		"other kind":  func(p *rbac.AccessPolicy) { p.Permissions.Secrets = []string{"sign"} },
		"empty name":  func(p *rbac.AccessPolicy) { p.Permissions.Keys = []string{""} },
	}
	for name, change := range bad {
		p := good
		change(&p)
		if err := rbac.CheckPolicies([]rbac.AccessPolicy{p}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := rbac.CheckPolicies([]rbac.AccessPolicy{good, good}); err == nil {
		t.Error("two entries for one caller: accepted")
	}
	if err := rbac.CheckPolicies(make([]rbac.AccessPolicy, rbac.MaxAccessPolicies+1)); err == nil {
		t.Error("too many: accepted")
	}
}

// Clients read back what they wrote: an empty list stays one, an absent one
// stays absent.
func TestAccessPolicyJSON(t *testing.T) {
	const text = `{"tenantId":"t","objectId":"o","permissions":{"keys":[],"secrets":["Get"]}}`
	var p rbac.AccessPolicy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(p); err != nil || string(got) != text {
		t.Errorf("%s %v", got, err)
	}
}
