package keyvault_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/keyvault"
)

func TestManagedSecret(t *testing.T) {
	s := newSystem(t)
	ctx, id := t.Context(), vaultID("kv1")
	got, created, err := s.vaults.SetSecret(ctx, strings.ToUpper(id), "Db", keyvault.SecretChange{
		Value: ptr("one"), ContentType: ptr("text/plain"), Expires: ptr(int64(1_900_000_000)), Tags: map[string]string{"a": "b"},
	})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	want := keyvault.SecretInfo{
		Name: "Db", Version: got.Version, ContentType: "text/plain", Enabled: true, Expires: ptr(int64(1_900_000_000)),
		Created: 1_800_000_000, Updated: 1_800_000_000, Tags: map[string]string{"a": "b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	a := s.ok("reader", "GET", "kv1", "/secrets/db", nil)
	if a.str("value") != "one" || a.version() != got.Version || a.str("contentType") != "text/plain" {
		t.Errorf("%s", a.raw)
	}
	again, created, err := s.vaults.SetSecret(ctx, id, "DB", keyvault.SecretChange{Value: ptr("")})
	if err != nil || created || again.Name != "Db" || again.Version == got.Version || again.Tags != nil {
		t.Errorf("%+v %v %v", again, created, err)
	}
	// An update says what it says, and makes no version.
	s.pass(60_000_000_000)
	got, err = s.vaults.UpdateSecret(ctx, id, "db", keyvault.SecretChange{Enabled: ptr(false)})
	if err != nil || got.Enabled || got.Version != again.Version || got.Updated != 1_800_000_060 {
		t.Errorf("%+v %v", got, err)
	}
	s.refused(403, "Forbidden", "reader", "GET", "kv1", "/secrets/db", nil)
	info, ok, err := s.vaults.Secret(ctx, id, "db")
	if diff := cmp.Diff(got, info); diff != "" || !ok || err != nil {
		t.Error(diff, ok, err)
	}
	if _, ok, err := s.vaults.Secret(ctx, id, "nothing"); ok || err != nil {
		t.Error(ok, err)
	}
	for name, c := range map[string]struct {
		vault, name string
		change      keyvault.SecretChange
		update      bool
		kind        fault.Kind
		code        string
	}{
		"no value":        {id, "x", keyvault.SecretChange{}, false, fault.Invalid, "BadParameter"},
		"long value":      {id, "x", keyvault.SecretChange{Value: ptr(strings.Repeat("x", 25_601))}, false, fault.Invalid, "BadParameter"},
		"name":            {id, "a_b", keyvault.SecretChange{Value: ptr("x")}, false, fault.Invalid, "BadParameter"},
		"time":            {id, "x", keyvault.SecretChange{Value: ptr("x"), NotBefore: ptr(int64(-1))}, false, fault.Invalid, "BadParameter"},
		"vault":           {vaultID("none"), "x", keyvault.SecretChange{Value: ptr("x")}, false, fault.Missing, "ResourceNotFound"},
		"vault elsewhere": {strings.Replace(id, "Apps", "other", 1), "x", keyvault.SecretChange{Value: ptr("x")}, false, fault.Missing, "ResourceNotFound"},
		"value in update": {id, "db", keyvault.SecretChange{Value: ptr("x")}, true, fault.Invalid, "BadParameter"},
		"update nothing":  {id, "none", keyvault.SecretChange{}, true, fault.Missing, "SecretNotFound"},
		"update name":     {id, "", keyvault.SecretChange{}, true, fault.Invalid, "BadParameter"},
	} {
		var err error
		if c.update {
			_, err = s.vaults.UpdateSecret(ctx, c.vault, c.name, c.change)
		} else {
			_, _, err = s.vaults.SetSecret(ctx, c.vault, c.name, c.change)
		}
		wantFault(t, name, err, c.kind, c.code)
	}
	s.ok("officer", "DELETE", "kv1", "/secrets/db", nil)
	_, _, err = s.vaults.SetSecret(ctx, id, "db", keyvault.SecretChange{Value: ptr("x")})
	wantFault(t, "deleted", err, fault.Clash, "Conflict")
}

func TestManagedSecretsInPages(t *testing.T) {
	s := newSystem(t)
	want := []string{"a", "b", "c", "d", "e"}
	for _, n := range want {
		s.set("kv1", n, "v")
	}
	s.set("kv2", "other", "v")
	for limit := 1; limit <= 6; limit++ {
		got, after := []string{}, ""
		for {
			infos, last, more, err := s.vaults.Secrets(t.Context(), vaultID("KV1"), after, limit)
			if err != nil || len(infos) > limit {
				t.Fatal(len(infos), err)
			}
			for _, i := range infos {
				got = append(got, i.Name)
			}
			if after = last; !more {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d: %s", limit, diff)
		}
	}
	if infos, _, more, err := s.vaults.Secrets(t.Context(), vaultID("none"), "", 5); len(infos) != 0 || more || err != nil {
		t.Error(infos, more, err)
	}
}

// TestBadRecoveryRecoversNothing: a vault comes back with what the request
// says about it, or not at all.
func TestBadRecoveryRecoversNothing(t *testing.T) {
	s := newSystem(t)
	if _, err := s.vaults.Delete(t.Context(), vaultID("kv1"), "me"); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*keyvault.Spec){
		"retention": func(sp *keyvault.Spec) { sp.Properties.RetentionDays = ptr(7) },
		"sku":       func(sp *keyvault.Spec) { sp.Properties.SKU = &keyvault.SKU{Family: "A", Name: "gold"} },
		"location":  func(sp *keyvault.Spec) { sp.Location = "eastus" },
		"tenant":    func(sp *keyvault.Spec) { sp.TenantID = tenantB },
		"address":   func(sp *keyvault.Spec) { sp.Properties.NetworkACLs = &keyvault.NetworkACLs{DefaultAction: "Maybe"} },
		"group":     func(sp *keyvault.Spec) { sp.ResourceGroup = "other" },
	} {
		spec := newSpec("kv1")
		spec.Properties.CreateMode = "recover"
		change(&spec)
		if _, _, err := s.vaults.Put(t.Context(), spec); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, ok, err := s.vaults.Get(t.Context(), "kv1"); ok || err != nil {
			t.Fatalf("%s: the vault came back: %v", name, err)
		}
		if _, ok, err := s.vaults.DeletedByName(t.Context(), subA, "", "kv1"); !ok || err != nil {
			t.Fatalf("%s: the deleted vault is gone: %v", name, err)
		}
	}
	spec := newSpec("kv1")
	spec.Properties.CreateMode, spec.Properties.PurgeProtection, spec.Tags = "Recover", ptr(true), map[string]string{"a": "b"}
	v, created, err := s.vaults.Put(t.Context(), spec)
	if err != nil || created || v.Deleted != nil || !v.PurgeProtection || v.Tags["a"] != "b" {
		t.Errorf("%+v %v %v", v, created, err)
	}
	if all, err := s.vaults.ListDeleted(t.Context(), subA); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	// What is live cannot be recovered.
	_, _, err = s.vaults.Put(t.Context(), spec)
	wantFault(t, "live", err, fault.Missing, "DeletedVaultNotFound")
}
