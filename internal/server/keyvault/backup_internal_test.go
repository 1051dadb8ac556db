package keyvault

import (
	"fmt"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// largeSecret makes a vault with a secret of n versions whose values and tags
// have the given sizes.
func largeSecret(t *testing.T, etcd *storetest.Etcd, n, value, tag int) (*Vaults, *Vault) {
	t.Helper()
	var v *Vaults
	s, err := etcd.Open(t, t.TempDir(), "large/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(storetest.Start(t, s, func(s *store.Store) { v = New(s, Options{}) }))
	vault := &Vault{Name: "large", UID: "uid", TenantID: "11111111-2222-3333-4444-555555555555", RetentionDays: 7}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return v.vaults.Put(tx, vault.Name, *vault) }); err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for i := range 15 {
		tags[fmt.Sprint("t", i)] = strings.Repeat("x", tag)
	}
	for i := range n {
		text := strings.Repeat(string(rune('a'+i%26)), value)
		if _, err := v.setSecret(t.Context(), vault, "s", SecretChange{Value: &text, Tags: tags}); err != nil {
			t.Fatal(err)
		}
	}
	return v, vault
}

// TestLargeBackupCanBeRestored: whatever can be backed up can be restored, with
// the limits of an etcd that nobody has configured.
func TestLargeBackupCanBeRestored(t *testing.T) {
	v, vault := largeSecret(t, storetest.NewEtcd(t), 150, 25_000, 10)
	blob, err := v.backupSecret(t.Context(), vault, "s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.deleteSecret(t.Context(), vault, "s"); err != nil {
		t.Fatal(err)
	}
	if err := v.purgeSecret(t.Context(), vault, "s"); err != nil {
		t.Fatal(err)
	}
	got, err := v.restoreSecret(t.Context(), vault, blob)
	if err != nil {
		t.Fatal(err)
	}
	older, err := v.versions.Scan(t.Context(), versionsPrefix(vault.UID, got.Serial), "", 0)
	if err != nil || len(older) != 149 {
		t.Errorf("%d older versions, %v", len(older), err)
	}
}

// TestBackupThatIsTooLargeIsRefusedWhenItIsMade, not when it is needed.
func TestBackupThatIsTooLargeIsRefusedWhenItIsMade(t *testing.T) {
	v, vault := largeSecret(t, storetest.NewEtcd(t), 2, 100, 10)
	key := secretKey(vault.UID, "s")
	got, _, err := v.secrets.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	// As many of the largest versions as a backup may have, put there at once.
	var big []version
	for i := range 400 {
		big = append(big, version{ID: fmt.Sprintf("%032x", i), Value: strings.Repeat("v", 25_000), Tags: map[string]string{"t": strings.Repeat("y", 20_000)}})
	}
	if err := v.restoreOlder(t.Context(), vault, got.Serial, big); err != nil {
		t.Fatal(err)
	}
	if _, err := v.backupSecret(t.Context(), vault, "s"); !fault.Is(err, fault.Invalid) {
		t.Errorf("err = %v, want a refusal", err)
	}
}
