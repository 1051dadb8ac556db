package keyvault_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/keyvault"
)

const days = 24 * time.Hour

func TestSecretIsPurgedAfterItsRetention(t *testing.T) {
	s := newSystem(t)
	s.vault("week", func(sp *keyvault.Spec) { sp.Properties.RetentionDays = ptr(7) })
	first := s.set("week", "s", "one").version()
	s.set("week", "s", "two")
	s.set("week", "kept", "v")
	s.ok("officer", "DELETE", "week", "/secrets/s", nil)
	s.ok("officer", "DELETE", "week", "/secrets/kept", nil)
	s.pass(7*days - time.Second)
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	s.ok("officer", "GET", "week", "/deletedsecrets/s", nil)
	s.ok("officer", "POST", "week", "/deletedsecrets/kept/recover", nil)

	// The very second: gone for every reader, though nobody has purged yet.
	s.pass(time.Second)
	s.refused(404, "SecretNotFound", "officer", "GET", "week", "/deletedsecrets/s", nil)
	s.refused(404, "SecretNotFound", "officer", "POST", "week", "/deletedsecrets/s/recover", nil)
	s.refused(404, "SecretNotFound", "officer", "DELETE", "week", "/deletedsecrets/s", nil)
	if ids, _ := s.pages("officer", "week", "/deletedsecrets?"+api); len(ids) != 0 {
		t.Errorf("%v", ids)
	}
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	line := s.audit.last(t)
	if line["operationName"] != "SecretPurge" || line["plane"] != "system" || line["decision"] != "allow" ||
		line["resourceId"] != "/subscriptions/"+subA+"/resourcegroups/apps/providers/microsoft.keyvault/vaults/week/secrets/s" {
		t.Errorf("%v", line)
	}
	if got := s.ok("officer", "GET", "week", "/secrets/kept", nil).str("value"); got != "v" {
		t.Errorf("a recovered secret was purged: %q", got)
	}
	s.set("week", "s", "new")
	s.refused(404, "SecretNotFound", "officer", "GET", "week", "/secrets/s/"+first, nil)
}

// The name is free when the retention has passed, also before the background
// purge comes by, and older versions do not come back with it.
func TestExpiredNameIsFree(t *testing.T) {
	s := newSystem(t)
	first := s.set("kv1", "s", "one").version()
	s.set("kv1", "s", "two")
	blob := s.ok("officer", "POST", "kv1", "/secrets/s/backup", nil).str("value")
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(90 * days)
	s.set("kv1", "s", "new")
	s.refused(404, "SecretNotFound", "officer", "GET", "kv1", "/secrets/s/"+first, nil)
	s.must(nil, s.vaults.PurgeDue(t.Context())) // finds the entry of the first one, and nothing to purge
	if ids, _ := s.pages("officer", "kv1", "/secrets/s/versions?"+api); len(ids) != 1 {
		t.Errorf("%v", ids)
	}

	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(90 * days)
	s.ok("officer", "POST", "kv1", "/secrets/restore", map[string]any{"value": blob})
	if got := s.ok("officer", "GET", "kv1", "/secrets/s/"+first, nil).str("value"); got != "one" {
		t.Errorf("%q", got)
	}
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	if ids, _ := s.pages("officer", "kv1", "/secrets/s/versions?"+api); len(ids) != 2 {
		t.Errorf("%v", ids)
	}
}

// Deleted, recovered and deleted again: the first deletion's time is nothing.
func TestLaterDeletionCounts(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(50 * days)
	s.ok("officer", "POST", "kv1", "/deletedsecrets/s/recover", nil)
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(50 * days)
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	s.ok("officer", "GET", "kv1", "/deletedsecrets/s", nil)
	s.pass(40 * days)
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	s.set("kv1", "s", "v")
}

func TestVaultIsPurgedAfterItsRetention(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.must(s.vaults.Delete(t.Context(), vaultID("kv1"), "me"))
	s.pass(90 * days)
	s.must(nil, s.vaults.PurgeDue(t.Context()))
	if vs, err := s.vaults.ListDeleted(t.Context(), subA); err != nil || len(vs) != 0 {
		t.Errorf("%v %v", vs, err)
	}
	err := s.vaults.Purge(t.Context(), subA, "", "kv1")
	if err == nil {
		t.Error("it was still there")
	}
}

func TestPurgeThatCannotBeWrittenDownDoesNotHappen(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(90 * days)
	s.audit.err = errors.New("disk full")
	if err := s.vaults.PurgeDue(t.Context()); err == nil {
		t.Error("no error")
	}
	s.clock.Add(-1)
	d, err := s.vaults.DeletedSecretForTest(t.Context(), "kv1", "s")
	if err != nil || d != "v" {
		t.Errorf("%q %v", d, err)
	}
}

func TestRunPurgesAtOnceAndEndsWithItsContext(t *testing.T) {
	s := newSystem(t)
	s.set("kv1", "s", "v")
	s.ok("officer", "DELETE", "kv1", "/secrets/s", nil)
	s.pass(90 * days)
	s.audit.wrote = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.vaults.Run(ctx) }()
	<-s.audit.wrote
	if line := s.audit.last(t); line["operationName"] != "SecretPurge" {
		t.Errorf("%v", line)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
