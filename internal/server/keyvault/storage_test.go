package keyvault

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/web"
)

const (
	home    = "aaaaaaaa-0000-4000-8000-000000000001"
	foreign = "bbbbbbbb-0000-4000-8000-000000000001"
)

// storage is Vaults alone, with two vaults, and a clock.
type storage struct {
	*Vaults
	ctx        context.Context
	t          *testing.T
	time       time.Time
	one, other Vault // of home and of foreign
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{ctx: t.Context(), t: t, time: time.Unix(1_800_000_000, 0)}
	storetest.New(t, "", func(st *store.Store) {
		s.Vaults = New(st, Options{Now: func() time.Time { return s.time }})
	})
	for _, v := range []*Vault{&s.one, &s.other} {
		tenant, name := home, "one"
		if v == &s.other {
			tenant, name = foreign, "other"
		}
		put, _, err := s.Put(s.ctx, Spec{
			SubscriptionID: "s", ResourceGroup: "g", Name: name, Location: "l", TenantID: tenant,
			Properties: Properties{SKU: &SKU{Family: "A", Name: "standard"}},
		})
		s.must(err)
		*v = put
	}
	return s
}

func (s *storage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *storage) set(v *Vault, name, value string) {
	s.t.Helper()
	_, err := s.setSecret(s.ctx, v, name, SecretChange{Value: &value})
	s.must(err)
}

// records counts what the store has for a vault.
func (s *storage) records(v *Vault) (n int) {
	s.t.Helper()
	prefix := v.UID + "/"
	live, err := s.secrets.Scan(s.ctx, prefix, "", 0)
	s.must(err)
	older, err := s.versions.Scan(s.ctx, prefix, "", 0)
	s.must(err)
	gone, err := s.deleted.Scan(s.ctx, prefix, "", 0)
	s.must(err)
	due, err := s.due.Scan(s.ctx, "", "", 0)
	s.must(err)
	for _, d := range due {
		if d.Value.VaultUID == v.UID {
			n++
		}
	}
	return n + len(live) + len(older) + len(gone)
}

// What is purged is not in the store any more, not only out of sight.
func TestPurgeLeavesNoRecord(t *testing.T) {
	s := newStorage(t)
	fill := func(name string) {
		for i := range 5 {
			s.set(&s.one, name, fmt.Sprint(i))
		}
	}
	gone := func(name string) {
		fill(name)
		_, err := s.deleteSecret(s.ctx, &s.one, name)
		s.must(err)
	}
	gone("purged")
	s.must(s.purgeSecret(s.ctx, &s.one, "purged"))
	if n := s.records(&s.one); n != 0 {
		t.Errorf("%d records after a purge", n)
	}
	gone("expired")
	s.time = s.time.Add(90 * day)
	s.must(s.PurgeDue(s.ctx))
	if n := s.records(&s.one); n != 0 {
		t.Errorf("%d records after the background purge", n)
	}
	gone("expired")
	s.time = s.time.Add(90 * day)
	s.set(&s.one, "expired", "new")
	if n := s.records(&s.one); n != 2 { // the secret, and when the first one was due
		t.Errorf("%d records after an expired name was used again", n)
	}
	s.must(s.PurgeDue(s.ctx))
	if n := s.records(&s.one); n != 1 {
		t.Errorf("%d records after the background purge", n)
	}
	gone("recovered")
	_, err := s.recoverSecret(s.ctx, &s.one, "recovered")
	s.must(err)
	if n := s.records(&s.one); n != 1+5 {
		t.Errorf("%d records after a recovery", n)
	}
	gone("deleted")
	s.set(&s.other, "kept", "v")
	_, err = s.Delete(s.ctx, s.one.ID, "me")
	s.must(err)
	s.must(s.Purge(s.ctx, "s", "", "one"))
	if n := s.records(&s.one); n != 1 { // when the deleted secret was due
		t.Errorf("%d records after the vault's purge", n)
	}
	s.time = s.time.Add(90 * day)
	s.must(s.PurgeDue(s.ctx))
	if n := s.records(&s.one); n != 0 {
		t.Errorf("%d records in the end", n)
	}
	if n := s.records(&s.other); n != 1 {
		t.Errorf("another vault has %d records", n)
	}
}

// Many versions, more than one transaction writes, come back all.
func TestBackupOfManyVersions(t *testing.T) {
	s := newStorage(t)
	s.set(&s.one, "s", "current")
	current, err := s.getSecret(s.ctx, &s.one, "s", "")
	s.must(err)
	add := func(n int) {
		for range n / 100 {
			s.must(s.store.Update(s.ctx, func(tx *store.Tx) error {
				for range 100 {
					v := version{ID: randomID(), Value: "older", Created: 1}
					if err := s.versions.Put(tx, versionKey(s.one.UID, current.Serial, v.ID), v); err != nil {
						return err
					}
				}
				return nil
			}))
		}
	}
	count := func() (n int) {
		for after := ""; ; {
			p, err := s.listVersions(s.ctx, &s.one, "s", after, 25)
			s.must(err)
			n += len(p.items)
			if !p.more {
				return n
			}
			after = p.last
		}
	}
	add(300)
	blob, err := s.backupSecret(s.ctx, &s.one, "s")
	s.must(err)
	_, err = s.deleteSecret(s.ctx, &s.one, "s")
	s.must(err)
	s.must(s.purgeSecret(s.ctx, &s.one, "s"))
	restored, err := s.restoreSecret(s.ctx, &s.one, blob)
	s.must(err)
	if n := count(); n != 301 || restored.ID != current.ID || restored.Value != "current" {
		t.Errorf("%d versions, current %+v", n, restored.version)
	}
	current = restored
	add(200)
	if n := count(); n != 501 {
		t.Fatalf("%d versions", n)
	}
	if _, err := s.backupSecret(s.ctx, &s.one, "s"); !fault.Is(err, fault.Invalid) {
		t.Errorf("501 versions: %v", err)
	}
}

// A backup that could not be sent back within the largest body is refused.
func TestBackupFitsIntoABody(t *testing.T) {
	s := newStorage(t)
	noise := make([]byte, maxValue*3/4) // does not compress
	grow := func(n int) {
		for range n {
			rand.Read(noise)
			s.set(&s.one, "s", base64.StdEncoding.EncodeToString(noise))
		}
	}
	grow(35)
	blob, err := s.backupSecret(s.ctx, &s.one, "s")
	s.must(err)
	if len(blob)+len(`{"value":""}`) > web.MaxBody || len(blob) < web.MaxBody/2 {
		t.Errorf("a blob of %d bytes", len(blob))
	}
	grow(10)
	if _, err := s.backupSecret(s.ctx, &s.one, "s"); !fault.Is(err, fault.Invalid) {
		t.Errorf("err = %v", err)
	}
}

// Two things keep backups in their tenant, each by itself: the key, and what
// the seal is bound to.
func TestBackupIsBoundToItsTenant(t *testing.T) {
	s := newStorage(t)
	s.set(&s.one, "s", "v")
	blob, err := s.backupSecret(s.ctx, &s.one, "s")
	s.must(err)
	if _, err := s.openBackup(s.ctx, strings.ToUpper(home), blob); err != nil {
		t.Errorf("in its own tenant: %v", err)
	}
	mine, _, err := s.backupKeys.Load(s.ctx, home)
	s.must(err)
	if len(mine.Key) != 32 {
		t.Fatalf("a key of %d bytes", len(mine.Key))
	}
	if _, err := s.openBackup(s.ctx, foreign, blob); !fault.Is(err, fault.Invalid) {
		t.Errorf("with another key: %v", err)
	}
	theirs, _, err := s.backupKeys.Load(s.ctx, foreign)
	s.must(err)
	if string(theirs.Key) == string(mine.Key) {
		t.Error("two tenants have the same key")
	}
	s.must(s.store.Update(s.ctx, func(tx *store.Tx) error { return s.backupKeys.Put(tx, foreign, mine) }))
	if _, err := s.openBackup(s.ctx, foreign, blob); !fault.Is(err, fault.Invalid) {
		t.Errorf("with the same key: %v", err)
	}
}

// The name is taken while the older versions are being written: the restore
// is refused and leaves nothing.
func TestRestoreThatLosesItsNameLeavesNothing(t *testing.T) {
	s := newStorage(t)
	for i := range 3 {
		s.set(&s.one, "s", fmt.Sprint(i))
	}
	blob, err := s.backupSecret(s.ctx, &s.one, "s")
	s.must(err)
	_, err = s.deleteSecret(s.ctx, &s.one, "s")
	s.must(err)
	s.must(s.purgeSecret(s.ctx, &s.one, "s"))
	// Many restores and sets at once: one wins, and what it wrote is all there is.
	results := make(chan error)
	const tries = 6
	for i := range tries {
		go func() {
			if i%2 == 0 {
				_, err := s.restoreSecret(s.ctx, &s.one, blob)
				results <- err
				return
			}
			value := "set"
			_, err := s.setSecret(s.ctx, &s.one, "s", SecretChange{Value: &value})
			results <- err
		}()
	}
	for range tries {
		if err := <-results; err != nil && !fault.Is(err, fault.Clash) {
			t.Error(err)
		}
	}
	p, err := s.listVersions(s.ctx, &s.one, "s", "", 25)
	s.must(err)
	if n := s.records(&s.one); n != len(p.items) {
		t.Errorf("%d records for %d versions", n, len(p.items))
	}
}

// A write is decided on a vault as the pipeline found it. If that vault is
// deleted meanwhile, or another has come under its name, nothing is written.
func TestWriteToVaultThatHasGone(t *testing.T) {
	s := newStorage(t)
	s.set(&s.one, "s", "v")
	s.set(&s.one, "gone", "v")
	_, err := s.deleteSecret(s.ctx, &s.one, "gone")
	s.must(err)
	blob, err := s.backupSecret(s.ctx, &s.one, "s")
	s.must(err)
	writes := map[string]func() error{
		"set": func() error {
			_, err := s.setSecret(s.ctx, &s.one, "new", SecretChange{Value: new(string)})
			return err
		},
		"again":   func() error { _, err := s.setSecret(s.ctx, &s.one, "s", SecretChange{Value: new(string)}); return err },
		"update":  func() error { _, err := s.updateSecret(s.ctx, &s.one, "s", "", SecretChange{}); return err },
		"delete":  func() error { _, err := s.deleteSecret(s.ctx, &s.one, "s"); return err },
		"recover": func() error { _, err := s.recoverSecret(s.ctx, &s.one, "gone"); return err },
		"purge":   func() error { return s.purgeSecret(s.ctx, &s.one, "gone") },
		"restore": func() error { _, err := s.restoreSecret(s.ctx, &s.one, blob); return err },
	}
	before := s.records(&s.one)
	_, err = s.Delete(s.ctx, s.one.ID, "me")
	s.must(err)
	for _, state := range []string{"deleted", "made again"} {
		for name, write := range writes {
			f, ok := fault.As(write())
			if !ok || f.Code != "VaultNotFound" {
				t.Errorf("%s, vault %s: %v", name, state, f)
			}
		}
		if n := s.records(&s.one); n != before {
			t.Errorf("vault %s: %d records, want %d", state, n, before)
		}
		if state == "deleted" {
			s.must(s.Purge(s.ctx, "s", "", "one"))
			_, _, err := s.Put(s.ctx, Spec{
				SubscriptionID: "s", ResourceGroup: "g", Name: "one", Location: "l", TenantID: home,
				Properties: Properties{SKU: &SKU{Family: "A", Name: "standard"}},
			})
			s.must(err)
			before = 1 // when the deleted secret was due
		}
	}
}
