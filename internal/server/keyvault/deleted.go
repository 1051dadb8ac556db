package keyvault

import (
	"context"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

const day = 24 * time.Hour

// Delete soft-deletes the vault with an ARM id, with all that is in it. Its
// name stays taken until it is purged, by [Vaults.Purge] or when the
// retention has passed.
func (v *Vaults) Delete(ctx context.Context, id, by string) (existed bool, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		existed = false
		vault, err := v.vaultIn(tx, id)
		if fault.Is(err, fault.Missing) {
			return nil
		}
		if err != nil {
			return err
		}
		existed = true
		now := v.now().UTC()
		vault.Deleted = &DeletedVault{DeletedAt: now, PurgeAt: now.Add(time.Duration(vault.RetentionDays) * day), DeletedBy: by}
		key := strings.ToLower(vault.Name)
		v.vaults.Delete(tx, key)
		return v.deletedVaults.Put(tx, key, vault)
	})
	return existed, err
}

// DeletedByName finds a deleted vault of a subscription. location may be
// empty; else it must be the vault's. Vaults whose retention has passed are
// not found, though they may not be purged yet.
func (v *Vaults) DeletedByName(ctx context.Context, subscription, location, name string) (Vault, bool, error) {
	vault, ok, err := v.deletedVaults.Load(ctx, strings.ToLower(name))
	if err != nil || !ok || !vault.deletedIn(subscription, location) || v.expired(&vault) {
		return Vault{}, false, err
	}
	return vault, true, nil
}

func (v *Vault) deletedIn(subscription, location string) bool {
	return strings.EqualFold(v.SubscriptionID, subscription) &&
		(location == "" || foldLocation(location) == foldLocation(v.Location))
}

// expired reports whether a deleted vault's retention has passed.
func (v *Vaults) expired(vault *Vault) bool { return !vault.Deleted.PurgeAt.After(v.now()) }

// ListDeleted returns the deleted vaults of a subscription, in order of name.
func (v *Vaults) ListDeleted(ctx context.Context, subscription string) ([]Vault, error) {
	found, err := v.deletedVaults.Find(ctx, "group", groupKey(subscription, ""))
	if err != nil {
		return nil, err
	}
	kept := found[:0]
	for _, vault := range found {
		if !v.expired(&vault) {
			kept = append(kept, vault)
		}
	}
	return kept, nil
}

// Recover brings the deleted vault with an ARM id back as it was.
func (v *Vaults) Recover(ctx context.Context, id, by string) (recovered Vault, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		if recovered, err = v.recovered(tx, id); err != nil {
			return err
		}
		recovered.Updated, recovered.UpdatedBy = v.now().UTC(), by
		return v.vaults.Put(tx, strings.ToLower(recovered.Name), recovered)
	})
	return recovered, err
}

// Purge removes a deleted vault and everything in it for good. A vault with
// purge protection is refused (BadMethod, MethodNotAllowed): it goes when its
// retention has passed.
func (v *Vaults) Purge(ctx context.Context, subscription, location, name string) error {
	return v.purgeVault(ctx, name, func(vault *Vault) error {
		if !vault.deletedIn(subscription, location) {
			return deletedVaultNotFound(name)
		}
		if vault.PurgeProtection && !v.expired(vault) {
			return fault.New(fault.BadMethod, "MethodNotAllowed", "Operation 'DeletedVaultPurge' is not allowed.")
		}
		return nil
	})
}

// purgeVault wipes a deleted vault if allow does not object. The entries in
// the table of due purges stay: they find nothing when their time comes.
func (v *Vaults) purgeVault(ctx context.Context, name string, allow func(*Vault) error) error {
	return v.store.Update(ctx, func(tx *store.Tx) error {
		key := strings.ToLower(name)
		vault, ok, err := v.deletedVaults.Get(tx, key)
		if err != nil {
			return err
		}
		if !ok {
			return deletedVaultNotFound(name)
		}
		if err := allow(&vault); err != nil {
			return err
		}
		v.deletedVaults.Delete(tx, key)
		prefix := store.Key(vault.UID) + "/"
		v.secrets.DeletePrefix(tx, prefix)
		v.versions.DeletePrefix(tx, prefix)
		v.deleted.DeletePrefix(tx, prefix)
		return nil
	})
}

// freeExpired purges a deleted vault that holds a name past its retention,
// when the name is wanted before the background purge has come by.
func (v *Vaults) freeExpired(ctx context.Context, name string) error {
	vault, ok, err := v.deletedVaults.Load(ctx, strings.ToLower(name))
	if err != nil || !ok || !v.expired(&vault) {
		return err
	}
	return v.purgeExpired(ctx, &vault)
}

// purgeExpired purges a vault because its time has come. Somebody else may
// have done so already.
func (v *Vaults) purgeExpired(ctx context.Context, vault *Vault) error {
	if err := v.recordPurge(ctx, "VaultPurge", vault.ID); err != nil {
		return err
	}
	err := v.purgeVault(ctx, vault.Name, func(now *Vault) error {
		if now.UID != vault.UID || !v.expired(now) {
			return deletedVaultNotFound(vault.Name)
		}
		return nil
	})
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}

func deletedVaultNotFound(name string) error {
	return fault.NotFound("DeletedVaultNotFound", "The deleted vault '%.80s' was not found.", name)
}
