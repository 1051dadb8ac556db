package keyvault_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
)

func ptr[T any](v T) *T { return &v }

func wantFault(t *testing.T, what string, err error, kind fault.Kind, code string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Kind != kind || f.Code != code {
		t.Errorf("%s: err = %v, want %s", what, err, code)
	}
}

func policy(oid string, secrets ...string) rbac.AccessPolicy {
	return rbac.AccessPolicy{TenantID: tenantA, ObjectID: oid, Permissions: rbac.Permissions{Secrets: secrets}}
}

const oid1, oid2 = "66666666-0000-4000-8000-000000000001", "66666666-0000-4000-8000-000000000002"

func TestPutVault(t *testing.T) {
	s := newSystem(t)
	spec := newSpec("New-Vault1")
	spec.Tags = map[string]string{"t": "1"}
	spec.RBAC = false
	spec.Properties.AccessPolicies = &[]rbac.AccessPolicy{policy(oid1, "get")}
	v, created, err := s.vaults.Put(t.Context(), spec)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if v.ID != vaultID("New-Vault1") || v.RetentionDays != 90 || v.PurgeProtection || v.EnableRBAC || v.CreatedBy != "me" || len(v.UID) != 32 {
		t.Errorf("%+v", v)
	}
	props, err := json.Marshal(v.Properties())
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	_ = json.Unmarshal(props, &got)
	_ = json.Unmarshal([]byte(`{
		"tenantId": "`+tenantA+`", "sku": {"family": "A", "name": "standard"},
		"accessPolicies": [{"tenantId": "`+tenantA+`", "objectId": "`+oid1+`", "permissions": {"secrets": ["get"]}}],
		"enableRbacAuthorization": false, "enableSoftDelete": true, "softDeleteRetentionInDays": 90,
		"enabledForDeployment": false, "enabledForDiskEncryption": false, "enabledForTemplateDeployment": false,
		"publicNetworkAccess": "Enabled"}`), &want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	// An update keeps what it does not name, except tags, which it replaces.
	spec = newSpec("NEW-vault1")
	spec.SubscriptionID = strings.ToUpper(subA)
	spec.Location = "West Europe"
	spec.By = "you"
	spec.Properties = keyvault.Properties{EnableRBAC: ptr(true), PurgeProtection: ptr(true), RetentionDays: ptr(90), EnableSoftDelete: ptr(true), TenantID: strings.ToUpper(tenantA)}
	u, created, err := s.vaults.Put(t.Context(), spec)
	if err != nil || created {
		t.Fatal(created, err)
	}
	if u.UID != v.UID || u.Name != "New-Vault1" || len(u.AccessPolicies) != 1 || !u.EnableRBAC || !u.PurgeProtection || u.Tags != nil || u.CreatedBy != "me" || u.UpdatedBy != "you" {
		t.Errorf("%+v", u)
	}
	if got, ok, err := s.vaults.ByID(t.Context(), strings.ToUpper(v.ID)); err != nil || !ok || got.UID != v.UID {
		t.Errorf("%v %v", ok, err)
	}
}

func TestBadVaults(t *testing.T) {
	s := newSystem(t)
	s.vault("protected", func(sp *keyvault.Spec) { sp.Properties.PurgeProtection = ptr(true) })
	deny := func(n keyvault.NetworkACLs) func(*keyvault.Spec) {
		return func(sp *keyvault.Spec) { sp.Properties.NetworkACLs = &n }
	}
	for name, tt := range map[string]struct {
		vault  string
		change func(*keyvault.Spec)
		kind   fault.Kind
		code   string
	}{
		"no sku":              {"fresh", func(sp *keyvault.Spec) { sp.Properties.SKU = nil }, fault.Invalid, "BadRequest"},
		"sku name":            {"fresh", func(sp *keyvault.Spec) { sp.Properties.SKU.Name = "gold" }, fault.Invalid, "BadRequest"},
		"sku family":          {"fresh", func(sp *keyvault.Spec) { sp.Properties.SKU.Family = "B" }, fault.Invalid, "BadRequest"},
		"no location":         {"fresh", func(sp *keyvault.Spec) { sp.Location = "" }, fault.Invalid, "LocationRequired"},
		"no tenant":           {"fresh", func(sp *keyvault.Spec) { sp.TenantID = "" }, fault.Invalid, "BadRequest"},
		"tenant of another":   {"fresh", func(sp *keyvault.Spec) { sp.Properties.TenantID = tenantB }, fault.Invalid, "BadRequest"},
		"retention too short": {"fresh", func(sp *keyvault.Spec) { sp.Properties.RetentionDays = ptr(6) }, fault.Invalid, "BadRequest"},
		"retention too long":  {"fresh", func(sp *keyvault.Spec) { sp.Properties.RetentionDays = ptr(91) }, fault.Invalid, "BadRequest"},
		"no soft delete":      {"fresh", func(sp *keyvault.Spec) { sp.Properties.EnableSoftDelete = ptr(false) }, fault.Invalid, "BadRequest"},
		"create mode":         {"fresh", func(sp *keyvault.Spec) { sp.Properties.CreateMode = "steal" }, fault.Invalid, "BadRequest"},
		"recover nothing":     {"fresh", func(sp *keyvault.Spec) { sp.Properties.CreateMode = "recover" }, fault.Missing, "DeletedVaultNotFound"},
		"bad policy":          {"fresh", func(sp *keyvault.Spec) { sp.Properties.AccessPolicies = &[]rbac.AccessPolicy{policy("x")} }, fault.Invalid, "BadRequest"},
		"unknown permission":  {"fresh", func(sp *keyvault.Spec) { sp.Properties.AccessPolicies = &[]rbac.AccessPolicy{policy(oid1, "read")} }, fault.Invalid, "BadRequest"},
		"policy of a stranger": {"fresh", func(sp *keyvault.Spec) {
			sp.Properties.AccessPolicies = &[]rbac.AccessPolicy{{TenantID: tenantB, ObjectID: oid1}}
		}, fault.Invalid, "BadRequest"},
		"default action":    {"fresh", deny(keyvault.NetworkACLs{DefaultAction: "Maybe"}), fault.Invalid, "BadRequest"},
		"bypass":            {"fresh", deny(keyvault.NetworkACLs{Bypass: "Everybody"}), fault.Invalid, "BadRequest"},
		"address":           {"fresh", deny(keyvault.NetworkACLs{IPRules: []keyvault.IPRule{{Value: "everywhere"}}}), fault.Invalid, "BadRequest"},
		"range":             {"fresh", deny(keyvault.NetworkACLs{IPRules: []keyvault.IPRule{{Value: "10.0.0.0/33"}}}), fault.Invalid, "BadRequest"},
		"too many rules":    {"fresh", deny(keyvault.NetworkACLs{IPRules: make([]keyvault.IPRule, 1001)}), fault.Invalid, "BadRequest"},
		"public access":     {"fresh", func(sp *keyvault.Spec) { sp.Properties.PublicNetworkAccess = ptr("Perhaps") }, fault.Invalid, "BadRequest"},
		"in another group":  {"kv1", func(sp *keyvault.Spec) { sp.ResourceGroup = "other" }, fault.Clash, "VaultAlreadyExists"},
		"in another sub":    {"KV1", func(sp *keyvault.Spec) { sp.SubscriptionID = subB }, fault.Clash, "VaultAlreadyExists"},
		"moved":             {"kv1", func(sp *keyvault.Spec) { sp.Location = "eastus" }, fault.Clash, "InvalidResourceLocation"},
		"to another tenant": {"kv1", func(sp *keyvault.Spec) { sp.TenantID = tenantB }, fault.Invalid, "BadRequest"},
		"retention changed": {"kv1", func(sp *keyvault.Spec) { sp.Properties.RetentionDays = ptr(7) }, fault.Invalid, "BadRequest"},
		"protection off":    {"protected", func(sp *keyvault.Spec) { sp.Properties.PurgeProtection = ptr(false) }, fault.Invalid, "BadRequest"},
	} {
		spec := newSpec(tt.vault)
		tt.change(&spec)
		before, had, _ := s.vaults.Get(t.Context(), tt.vault)
		_, _, err := s.vaults.Put(t.Context(), spec)
		wantFault(t, name, err, tt.kind, tt.code)
		after, has, _ := s.vaults.Get(t.Context(), tt.vault)
		if had != has || !cmp.Equal(before, after) {
			t.Errorf("%s: the refused request changed the vault", name)
		}
	}
	_, err := s.vaults.Patch(t.Context(), vaultID("protected"), keyvault.Patch{Properties: keyvault.Properties{PurgeProtection: ptr(false)}})
	wantFault(t, "patch protection off", err, fault.Invalid, "BadRequest")
	_, err = s.vaults.Patch(t.Context(), vaultID("kv1"), keyvault.Patch{Properties: keyvault.Properties{RetentionDays: ptr(7)}})
	wantFault(t, "patch retention", err, fault.Invalid, "BadRequest")
}

func TestVaultNames(t *testing.T) {
	s := newSystem(t)
	if _, err := s.vaults.Delete(t.Context(), vaultID("kv2"), "me"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"abc": "", "A-b-c-1": "", "a23456789012345678901234": "", "free-name": "",
		"": "AccountNameInvalid", "ab": "AccountNameInvalid", "a234567890123456789012345": "AccountNameInvalid", "1abc": "AccountNameInvalid",
		"-abc": "AccountNameInvalid", "abc-": "AccountNameInvalid", "a--b": "AccountNameInvalid", "a_b": "AccountNameInvalid", "a.b": "AccountNameInvalid",
		"a b": "AccountNameInvalid", "a/b": "AccountNameInvalid", "kéy": "AccountNameInvalid", "\u212Av1": "AccountNameInvalid", "a\xffb": "AccountNameInvalid",
		"kv1": "AlreadyExists", "KV1": "AlreadyExists", "kv2": "AlreadyExists",
	} {
		c, err := s.vaults.CheckName(t.Context(), name)
		if err != nil || c.Reason != want || c.Available != (want == "") || (c.Message == "") != (want == "") {
			t.Errorf("%q: %+v %v, want %q", name, c, err, want)
		}
		if want == "AccountNameInvalid" {
			_, _, err := s.vaults.Put(t.Context(), newSpec(name))
			wantFault(t, name, err, fault.Invalid, "VaultNameNotValid")
		}
	}
}

func TestConcurrentPutsOfOneNameMakeOneVault(t *testing.T) {
	s := newSystem(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		wg.Go(func() {
			spec := newSpec("contested")
			spec.ResourceGroup = fmt.Sprint("g", i)
			_, created, err := s.vaults.Put(t.Context(), spec)
			mu.Lock()
			defer mu.Unlock()
			if created {
				made++
			} else {
				wantFault(t, "loser", err, fault.Clash, "VaultAlreadyExists")
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d vaults were made", made)
	}
}

func TestPatch(t *testing.T) {
	s := newSystem(t)
	v, err := s.vaults.Patch(t.Context(), strings.ToUpper(vaultID("kv1")), keyvault.Patch{
		Tags: &map[string]string{"a": "b"}, By: "you",
		Properties: keyvault.Properties{
			EnabledForDeployment: ptr(true), SKU: &keyvault.SKU{Family: "a", Name: "Premium"},
			NetworkACLs: &keyvault.NetworkACLs{DefaultAction: "deny", IPRules: []keyvault.IPRule{{Value: "10.0.0.1"}, {Value: "2001:db8::/32"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.SKU.Name != "premium" || !v.EnabledForDeployment || v.Tags["a"] != "b" || v.NetworkACLs.DefaultAction != "Deny" || v.NetworkACLs.Bypass != "AzureServices" || !v.EnableRBAC {
		t.Errorf("%+v", v)
	}
	_, err = s.vaults.Patch(t.Context(), vaultID("unknown"), keyvault.Patch{})
	wantFault(t, "unknown", err, fault.Missing, "ResourceNotFound")
	// The name of a vault under another id is not the vault.
	_, err = s.vaults.Patch(t.Context(), strings.Replace(vaultID("kv1"), "Apps", "other", 1), keyvault.Patch{})
	wantFault(t, "another group", err, fault.Missing, "ResourceNotFound")
}

func TestChangePolicies(t *testing.T) {
	s := newSystem(t)
	id := vaultID("pol1")
	change := func(c keyvault.PolicyChange, ps ...rbac.AccessPolicy) []rbac.AccessPolicy {
		t.Helper()
		v, err := s.vaults.ChangePolicies(t.Context(), id, c, ps, "me")
		if err != nil {
			t.Fatal(err)
		}
		return v.AccessPolicies
	}
	want := func(got []rbac.AccessPolicy, want ...rbac.AccessPolicy) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	want(change(keyvault.AddPolicies, policy(oid1, "get"), policy(oid2, "list")), policy(oid1, "get"), policy(oid2, "list"))
	want(change(keyvault.AddPolicies, policy(strings.ToUpper(oid1), "Get", "set")), policy(oid1, "get", "set"), policy(oid2, "list"))
	want(change(keyvault.ReplacePolicies, policy(oid2, "purge")), policy(oid1, "get", "set"), policy(oid2, "purge"))
	want(change(keyvault.RemovePolicies, policy(oid1, "SET"), policy(oid2, "get")), policy(oid1, "get"), policy(oid2, "purge"))
	want(change(keyvault.RemovePolicies, policy(oid1, "get")), policy(oid2, "purge"))
	// An entry for one client is another entry.
	app := policy(oid2, "get")
	app.ApplicationID = oid1
	want(change(keyvault.AddPolicies, app), policy(oid2, "purge"), app)
	want(change(keyvault.RemovePolicies, policy(oid2, "purge", "get")), app)

	for name, p := range map[string]rbac.AccessPolicy{"permission": policy(oid1, "fly"), "tenant": {TenantID: tenantB, ObjectID: oid1}} {
		_, err := s.vaults.ChangePolicies(t.Context(), id, keyvault.AddPolicies, []rbac.AccessPolicy{p}, "me")
		wantFault(t, name, err, fault.Invalid, "BadRequest")
	}
	_, err := s.vaults.ChangePolicies(t.Context(), id, "merge", nil, "me")
	wantFault(t, "operation", err, fault.Invalid, "BadRequest")
	many := make([]rbac.AccessPolicy, rbac.MaxAccessPolicies)
	for i := range many {
		many[i] = policy(fmt.Sprintf("55555555-0000-4000-8000-%012d", i), "get")
	}
	_, err = s.vaults.ChangePolicies(t.Context(), id, keyvault.AddPolicies, many, "me")
	wantFault(t, "too many together", err, fault.Invalid, "BadRequest")
}

func TestListVaults(t *testing.T) {
	s := newSystem(t)
	s.vault("in-other-group", func(sp *keyvault.Spec) { sp.ResourceGroup = "Apps2" })
	names := func(sub, group string) string {
		vs, err := s.vaults.List(t.Context(), sub, group)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, v := range vs {
			out = append(out, v.Name)
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct{ sub, group, want string }{
		{subA, "", "in-other-group kv1 kv2 pol1"},
		{strings.ToUpper(subA), "APPS", "kv1 kv2 pol1"},
		{subA, "apps2", "in-other-group"},
		{subB, "", "kvb"},
		{subB, "none", ""},
	} {
		if got := names(tt.sub, tt.group); got != tt.want {
			t.Errorf("%s/%s: %s, want %s", tt.sub, tt.group, got, tt.want)
		}
	}
}

func TestDeleteRecoverAndPurgeVault(t *testing.T) {
	s := newSystem(t)
	id := vaultID("kv1")
	first := s.set("kv1", "s", "v").version()
	s.set("kv1", "gone", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/gone", nil)
	before, _, _ := s.vaults.Get(t.Context(), "kv1")

	if existed, err := s.vaults.Delete(t.Context(), strings.Replace(id, "Apps", "other", 1), "me"); existed || err != nil {
		t.Fatalf("deleted under another id: %v %v", existed, err)
	}
	if existed, err := s.vaults.Delete(t.Context(), strings.ToLower(id), "me"); !existed || err != nil {
		t.Fatal(existed, err)
	}
	if existed, err := s.vaults.Delete(t.Context(), id, "me"); existed || err != nil {
		t.Errorf("deleted twice: %v %v", existed, err)
	}
	s.refused(404, "VaultNotFound", "officer", "GET", "kv1", "/secrets/s", nil)
	_, _, err := s.vaults.Put(t.Context(), newSpec("kv1"))
	wantFault(t, "name of a deleted vault", err, fault.Clash, "ConflictError")

	d, ok, err := s.vaults.DeletedByName(t.Context(), strings.ToUpper(subA), "West Europe", "KV1")
	if err != nil || !ok || !d.Deleted.PurgeAt.Equal(s.now().Add(90*24*time.Hour)) || d.Deleted.DeletedBy != "me" {
		t.Fatalf("%+v %v %v", d, ok, err)
	}
	for _, at := range [][2]string{{subB, ""}, {subA, "eastus"}} {
		if _, ok, _ := s.vaults.DeletedByName(t.Context(), at[0], at[1], "kv1"); ok {
			t.Errorf("found at %v", at)
		}
		err := s.vaults.Purge(t.Context(), at[0], at[1], "kv1")
		wantFault(t, "purge elsewhere", err, fault.Missing, "DeletedVaultNotFound")
	}
	if all, err := s.vaults.ListDeleted(t.Context(), subA); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
	_, err = s.vaults.Recover(t.Context(), strings.Replace(id, "Apps", "other", 1), "me")
	wantFault(t, "recover elsewhere", err, fault.Missing, "DeletedVaultNotFound")
	spec := newSpec("kv1")
	spec.Properties = keyvault.Properties{CreateMode: "recover"}
	v, created, err := s.vaults.Put(t.Context(), spec)
	if err != nil || created || v.UID != before.UID || v.Deleted != nil {
		t.Fatalf("%+v %v %v", v, created, err)
	}
	s.ok("reader", "GET", "kv1", "/secrets/s/"+first, nil)

	// Purged, and made again: nothing of the first one is there.
	s.set("kv1", "s", "v2")
	if _, err := s.vaults.Delete(t.Context(), id, "me"); err != nil {
		t.Fatal(err)
	}
	if err := s.vaults.Purge(t.Context(), subA, "westeurope", "Kv1"); err != nil {
		t.Fatal(err)
	}
	err = s.vaults.Purge(t.Context(), subA, "", "kv1")
	wantFault(t, "purge twice", err, fault.Missing, "DeletedVaultNotFound")
	again := s.vault("kv1", nil)
	if again.UID == before.UID {
		t.Error("the UID is used again")
	}
	for _, target := range []string{"/secrets/s", "/secrets/s/" + first, "/deletedsecrets/gone"} {
		s.refused(404, "SecretNotFound", "reader", "GET", "kv1", target, nil)
	}
	for _, target := range []string{"/secrets", "/deletedsecrets"} {
		if ids, _ := s.pages("reader", "kv1", target+"?"+api); len(ids) != 0 {
			t.Errorf("%s: %v", target, ids)
		}
	}
}

func TestPurgeProtectionOfVault(t *testing.T) {
	s := newSystem(t)
	s.vault("protected", func(sp *keyvault.Spec) {
		sp.Properties.PurgeProtection, sp.Properties.RetentionDays = ptr(true), ptr(7)
	})
	if _, err := s.vaults.Delete(t.Context(), vaultID("protected"), "me"); err != nil {
		t.Fatal(err)
	}
	err := s.vaults.Purge(t.Context(), subA, "westeurope", "protected")
	wantFault(t, "purge", err, fault.BadMethod, "MethodNotAllowed")
	s.pass(7*24*time.Hour + time.Second)
	if _, ok, _ := s.vaults.DeletedByName(t.Context(), subA, "", "protected"); ok {
		t.Error("still there after its retention")
	}
	_, err = s.vaults.Recover(t.Context(), vaultID("protected"), "me")
	wantFault(t, "recover", err, fault.Missing, "DeletedVaultNotFound")
	// Nobody has purged it yet; the name is free all the same.
	if c, err := s.vaults.CheckName(t.Context(), "protected"); err != nil || !c.Available {
		t.Errorf("%+v %v", c, err)
	}
	s.vault("protected", nil)
	if line := s.audit.last(t); line["operationName"] != "VaultPurge" || line["plane"] != "system" {
		t.Errorf("%v", line)
	}
}

func TestVaultIsNotFoundForSecretsOnceDeleted(t *testing.T) {
	s := newSystem(t)
	// A deletion that comes between the pipeline and the write: sets and
	// deletions at once leave no acknowledged secret behind.
	for i := range 5 {
		name := fmt.Sprint("race", i)
		s.vault(name, nil)
		s.assign("reader", rbac.KeyVaultSecretsUser, vaultID(name))
		var wg sync.WaitGroup
		var statuses [3]int
		for j := range statuses {
			wg.Go(func() {
				statuses[j] = s.call("officer", "PUT", name, fmt.Sprint("/secrets/s", j), map[string]any{"value": "v"}).status
			})
		}
		wg.Go(func() { s.must(s.vaults.Delete(t.Context(), vaultID(name), "me")) })
		wg.Wait()
		s.must(s.vaults.Recover(t.Context(), vaultID(name), "me"))
		ids, _ := s.pages("reader", name, "/secrets?"+api)
		acknowledged := 0
		for _, st := range statuses {
			if st == 200 {
				acknowledged++
			} else if st != 404 {
				t.Errorf("status %d", st)
			}
		}
		if len(ids) != acknowledged {
			t.Errorf("%d secrets, %d were acknowledged", len(ids), acknowledged)
		}
	}
}
