package arm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
)

// TestResumeRemovesOrphans: what a server made in a group that was removed
// meanwhile, before it died, goes when one starts again. All else stays.
func TestResumeRemovesOrphans(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var before map[string]string
	t.Run("crash", func(t *testing.T) {
		r := newRigIn(t, dir)
		filled(t, r, "g1")
		before = r.dump()
		ctx := t.Context()
		_, _, err := r.h.o.Directory.PutIdentity(ctx, directory.ManagedIdentity{
			ResourceID: identityPath("gone", "late"), Name: "late", SubscriptionID: homeSub, ResourceGroup: "gone", Location: "westeurope", TenantID: homeTenant,
		})
		ok(t, err)
		_, _, err = r.h.o.Vaults.Put(ctx, keyvault.Spec{
			SubscriptionID: homeSub, ResourceGroup: "gone", Name: "kv-late", Location: "westeurope", TenantID: homeTenant,
			Properties: keyvault.Properties{SKU: &keyvault.SKU{Family: "A", Name: "standard"}},
		})
		ok(t, err)
		for _, scope := range []string{identityPath("gone", "late"), groupPath("gone"), vaultPath("Gone", "other") + "/secrets/s"} {
			r.grant("owner", rbac.Reader, scope)
		}
	})
	t.Run("restart", func(t *testing.T) {
		r := newRigIn(t, dir)
		ok(t, r.h.Resume(t.Context()))
		if diff := cmp.Diff(live(before), live(r.dump())); diff != "" {
			t.Error(diff)
		}
		gone, err := r.h.o.Vaults.ListDeleted(t.Context(), homeSub)
		ok(t, err)
		if len(gone) != 1 || gone[0].Name != "kv-late" {
			t.Errorf("%+v", gone)
		}
		ok(t, r.h.Resume(t.Context())) // it does no harm when repeated
		if diff := cmp.Diff(live(before), live(r.dump())); diff != "" {
			t.Error(diff)
		}
	})
}

// TestOrphansAreToldByTheirGroup: ids of every kind.
func TestOrphansAreToldByTheirGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	for id, want := range map[string]bool{
		"/": false, "/subscriptions/" + homeSub: false, "/subscriptions/" + uuid.NewString(): false, groupPath("G"): false, groupPath("h"): true,
		vaultPath("g", "v"): false, vaultPath("h", "v"): true, "not an id": false, "/providers/Microsoft.Management/managementGroups/x": false,
	} {
		if got, err := r.h.isOrphan(t.Context(), id); got != want || err != nil {
			t.Errorf("%s: %v %v", id, got, err)
		}
	}
}
