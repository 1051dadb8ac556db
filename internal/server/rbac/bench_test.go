package rbac_test

import (
	"io"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

func BenchmarkAuthorize(b *testing.B) {
	f := &fixture{t: b}
	storetest.New(b, "", func(s *store.Store) {
		f.directory = directory.New(s, directory.Options{})
		f.RBAC = rbac.New(s, f.directory, audit.New(io.Discard, audit.Options{}), rbac.Options{})
	})
	if _, err := f.directory.CreateTenant(b.Context(), directory.Tenant{ID: tenantA, DisplayName: "A"}); err != nil {
		b.Fatal(err)
	}
	p := f.identity(tenantA)
	f.assign(p, rbac.Reader, sub)
	f.assign(p, rbac.KeyVaultReader, group)
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	req := data(p, getSecret, "/subscriptions/11111111-0000-4000-8000-000000000001/resourcegroups/apps/providers/microsoft.keyvault/vaults/kv1/secrets/database")
	b.Run("decision", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := f.Allowed(b.Context(), req); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("decision and audit line", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.Authorize(b.Context(), req); err != nil {
				b.Fatal(err)
			}
		}
	})
}
