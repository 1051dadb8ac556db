// Package keyvault keeps vaults and the secrets in them, and serves the data
// plane.
//
// [Vaults] holds the rules: what a vault may look like, soft delete and its
// retention, versions, backup. The management API works on vaults through it;
// [Handler] is the data plane, which works on secrets. The package guarantees
// that
//
//   - an answered change is on disk, and is one transaction: of concurrent
//     sets of one name each becomes a version, and a deletion moves all
//     versions or none;
//   - every data-plane request passes one pipeline: vault, token, network
//     rules, authorisation with its audit line, parameters, and only then the
//     object;
//   - records of a vault are keyed by its random UID, so that a vault made
//     later under the same name sees nothing of an earlier one;
//   - a secret's value is in sealed tables only, and in no error and no log.
package keyvault

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/store"
)

// Options adjust Vaults. The zero value suits a test; a server sets Log and
// Audit.
type Options struct {
	Now func() time.Time // time.Now if nil
	Log *slog.Logger     // damaged records and failed purges; discarded if nil
	// Audit gets a line for each object that the background purge removes. A
	// failed line keeps the object. Without it, such purges leave no line.
	Audit *audit.Log
}

// Vaults is the set of vaults with their secrets. Create with [New]; safe for
// concurrent use.
type Vaults struct {
	store *store.Store
	now   func() time.Time
	log   *slog.Logger
	audit *audit.Log

	vaults        *store.Table[Vault]         // by lower-case name
	deletedVaults *store.Table[Vault]         // by lower-case name
	secrets       *store.Table[secret]        // by vault UID and lower-case name: the current version
	versions      *store.Table[version]       // by vault UID, lower-case name, version id: the older ones
	deleted       *store.Table[deletedSecret] // by vault UID and lower-case name
	due           *store.Table[duePurge]      // by time, vault UID and lower-case name
	backupKeys    *store.Table[backupKey]     // by tenant
}

// New declares the tables. Call it before Store.Load.
func New(s *store.Store, o Options) *Vaults {
	v := &Vaults{store: s, now: o.Now, log: o.Log, audit: o.Audit}
	if v.now == nil {
		v.now = time.Now
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	groups := map[string]func(*Vault) []string{"group": func(v *Vault) []string { return []string{v.subscriptionKey(), v.groupKey()} }}
	v.vaults = store.NewTable(s, "vault", store.TableOptions[Vault]{Mode: store.Plain, Indexes: groups})
	v.deletedVaults = store.NewTable(s, "deletedvault", store.TableOptions[Vault]{Mode: store.Plain, Indexes: groups})
	v.secrets = store.NewTable(s, "secret", store.TableOptions[secret]{Mode: store.Sealed, Marshal: marshalSecret, Unmarshal: unmarshalSecret})
	v.versions = store.NewTable(s, "secretversion", store.TableOptions[version]{Mode: store.Disk})
	v.deleted = store.NewTable(s, "deletedsecret", store.TableOptions[deletedSecret]{Mode: store.Sealed})
	v.due = store.NewTable(s, "secretpurge", store.TableOptions[duePurge]{Mode: store.Plain})
	v.backupKeys = store.NewTable(s, "backupkey", store.TableOptions[backupKey]{Mode: store.Sealed})
	return v
}

// Get finds a vault by name, in any case. Deleted vaults are not found. The
// value is shared: the caller must not change what it refers to.
func (v *Vaults) Get(ctx context.Context, name string) (Vault, bool, error) {
	return v.vaults.Load(ctx, strings.ToLower(name))
}

// ByID finds a vault by its ARM id, in any case. The id must match as a
// whole: a name alone says nothing about whose vault it is.
func (v *Vaults) ByID(ctx context.Context, id string) (Vault, bool, error) {
	got, ok, err := v.Get(ctx, nameOf(id))
	if err != nil || !ok || !strings.EqualFold(got.ID, id) {
		return Vault{}, false, err
	}
	return got, true, nil
}

// List returns the vaults of a subscription, or of a resource group if group
// is not empty, in order of name.
func (v *Vaults) List(ctx context.Context, subscription, group string) ([]Vault, error) {
	return v.vaults.Find(ctx, "group", groupKey(subscription, group))
}

// nameOf is the last segment of an ARM id.
func nameOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func groupKey(subscription, group string) string {
	return strings.ToLower(subscription + "/" + group)
}

// vaultID is the ARM id of a vault.
func vaultID(subscription, group, name string) string {
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.KeyVault/vaults/%s", subscription, group, name)
}
