package keyvault

import (
	"context"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// SecretChange is what a set or an update says about a version; nil members
// are not said.
type SecretChange struct {
	Value       *string
	ContentType *string
	Enabled     *bool
	NotBefore   *int64 // Unix seconds
	Expires     *int64 // Unix seconds
	Tags        map[string]string
}

// apply puts what the change says into the version.
func (c *SecretChange) apply(ver *version) {
	if c.Value != nil {
		ver.Value = *c.Value
	}
	if c.ContentType != nil {
		ver.ContentType = *c.ContentType
	}
	if c.Enabled != nil {
		ver.Disabled = !*c.Enabled
	}
	if c.NotBefore != nil {
		ver.NotBefore = c.NotBefore
	}
	if c.Expires != nil {
		ver.Expires = c.Expires
	}
	if c.Tags != nil {
		ver.Tags = c.Tags
	}
}

// stillThere makes the transaction depend on the vault: a write must not be
// acknowledged into one that has been deleted meanwhile.
func (v *Vaults) stillThere(tx *store.Tx, vault *Vault) error {
	now, ok, err := v.vaults.Get(tx, strings.ToLower(vault.Name))
	if err != nil {
		return err
	}
	if !ok || now.UID != vault.UID {
		return vaultNotFound(vault.Name)
	}
	return nil
}

// secretIn reads a live secret in a transaction that is to change it, or one
// of its versions: id may name one, else it is empty. The transaction depends
// on the vault too.
func (v *Vaults) secretIn(tx *store.Tx, vault *Vault, name, id string) (secret, error) {
	if err := v.stillThere(tx, vault); err != nil {
		return secret{}, err
	}
	got, ok, err := v.secrets.Get(tx, secretKey(vault.UID, name))
	if err == nil && (!ok || id != "" && !validVersion(id)) {
		err = secretNotFound(name, id)
	}
	return got, err
}

// nameFree refuses a name that a deleted secret holds. One that is past its
// retention is wiped instead.
func (v *Vaults) nameFree(tx *store.Tx, vault *Vault, name string) error {
	key := secretKey(vault.UID, name)
	d, ok, err := v.deleted.Get(tx, key)
	if err != nil || !ok {
		return err
	}
	if d.PurgeAt > v.now().Unix() {
		return &fault.Error{
			Kind: fault.Clash, Code: codeConflict, Inner: "ObjectIsDeletedButRecoverable",
			Message: "Secret " + d.Name + " is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.",
		}
	}
	v.wipe(tx, vault.UID, &d)
	return nil
}

// wipe removes a deleted secret with its versions. Its entry in the table of
// due purges may stay: it will find nothing.
func (v *Vaults) wipe(tx *store.Tx, vaultUID string, d *deletedSecret) {
	v.deleted.Delete(tx, secretKey(vaultUID, d.Name))
	v.versions.DeletePrefix(tx, versionsPrefix(vaultUID, d.Serial))
}

// wipeExpired wipes a deleted secret if there is one that is past its
// retention.
func (v *Vaults) wipeExpired(tx *store.Tx, vaultUID, name string) error {
	d, ok, err := v.deleted.Get(tx, secretKey(vaultUID, name))
	if err != nil || !ok || d.PurgeAt > v.now().Unix() {
		return err
	}
	v.wipe(tx, vaultUID, &d)
	return nil
}

// setSecret makes a new version of a secret, the first one if there is none.
func (v *Vaults) setSecret(ctx context.Context, vault *Vault, name string, c SecretChange) (put secret, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		if err := v.stillThere(tx, vault); err != nil {
			return err
		}
		key := secretKey(vault.UID, name)
		old, had, err := v.secrets.Get(tx, key)
		if err != nil {
			return err
		}
		now := v.now().Unix()
		put = secret{Name: name, Serial: randomID(), version: version{ID: randomID(), Created: now, Updated: now}}
		if had {
			put.Name, put.Serial, put.Previous = old.Name, old.Serial, old.ID
			if err := v.versions.Put(tx, versionKey(vault.UID, old.Serial, old.ID), old.version); err != nil {
				return err
			}
		} else if err := v.nameFree(tx, vault, name); err != nil {
			return err
		}
		c.apply(&put.version)
		return v.secrets.Put(tx, key, put)
	})
	return put, err
}

// getSecret reads a version of a live secret; the current one if id is empty.
func (v *Vaults) getSecret(ctx context.Context, vault *Vault, name, id string) (secret, error) {
	got, ok, err := v.secrets.Load(ctx, secretKey(vault.UID, name))
	if err != nil {
		return secret{}, err
	}
	if !ok || id != "" && !validVersion(id) {
		return secret{}, secretNotFound(name, id)
	}
	if id == "" || id == got.ID {
		return got, nil
	}
	older, ok, err := v.versions.Load(ctx, versionKey(vault.UID, got.Serial, id))
	if err != nil {
		return secret{}, err
	}
	if !ok {
		return secret{}, secretNotFound(name, id)
	}
	got.version = older
	return got, nil
}

// updateSecret changes the attributes of a version; of the current one if id
// is empty.
func (v *Vaults) updateSecret(ctx context.Context, vault *Vault, name, id string, c SecretChange) (put secret, err error) {
	c.Value = nil
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		got, err := v.secretIn(tx, vault, name, id)
		if err != nil {
			return err
		}
		put = got
		if id == "" || id == got.ID {
			c.apply(&put.version)
			put.Updated = v.now().Unix()
			return v.secrets.Put(tx, secretKey(vault.UID, name), put)
		}
		olderKey := versionKey(vault.UID, got.Serial, id)
		var ok bool
		put.version, ok, err = v.versions.Get(tx, olderKey)
		if err != nil {
			return err
		}
		if !ok {
			return secretNotFound(name, id)
		}
		c.apply(&put.version)
		put.Updated = v.now().Unix()
		return v.versions.Put(tx, olderKey, put.version)
	})
	return put, err
}

// deleteSecret soft-deletes a secret with all its versions.
func (v *Vaults) deleteSecret(ctx context.Context, vault *Vault, name string) (d deletedSecret, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		got, err := v.secretIn(tx, vault, name, "")
		if err != nil {
			return err
		}
		key, now := secretKey(vault.UID, name), v.now().Unix()
		d = deletedSecret{secret: got, DeletedAt: now, PurgeAt: now + int64(vault.RetentionDays)*int64(day.Seconds())}
		v.secrets.Delete(tx, key)
		if err := v.deleted.Put(tx, key, d); err != nil {
			return err
		}
		lower := strings.ToLower(name)
		return v.due.Put(tx, dueKey(d.PurgeAt, vault.UID, lower), duePurge{VaultUID: vault.UID, VaultID: vault.ID, Name: lower})
	})
	return d, err
}

// deletedSecretByName reads a deleted secret.
func (v *Vaults) deletedSecretByName(ctx context.Context, vault *Vault, name string) (deletedSecret, error) {
	d, ok, err := v.deleted.Load(ctx, secretKey(vault.UID, name))
	if err != nil {
		return deletedSecret{}, err
	}
	if !ok || d.PurgeAt <= v.now().Unix() {
		return deletedSecret{}, deletedSecretNotFound(name)
	}
	return d, nil
}

// deletedIn is deletedSecretByName in a transaction that is to change it.
func (v *Vaults) deletedIn(tx *store.Tx, vault *Vault, name string) (deletedSecret, error) {
	if err := v.stillThere(tx, vault); err != nil {
		return deletedSecret{}, err
	}
	d, ok, err := v.deleted.Get(tx, secretKey(vault.UID, name))
	if err != nil {
		return deletedSecret{}, err
	}
	if !ok || d.PurgeAt <= v.now().Unix() {
		return deletedSecret{}, deletedSecretNotFound(name)
	}
	return d, nil
}

// recoverSecret brings a deleted secret back as it was.
func (v *Vaults) recoverSecret(ctx context.Context, vault *Vault, name string) (got secret, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		d, err := v.deletedIn(tx, vault, name)
		if err != nil {
			return err
		}
		got = d.secret
		key := secretKey(vault.UID, name)
		v.deleted.Delete(tx, key)
		v.due.Delete(tx, dueKey(d.PurgeAt, vault.UID, strings.ToLower(name)))
		return v.secrets.Put(tx, key, got)
	})
	return got, err
}

// purgeSecret removes a deleted secret for good. A vault with purge
// protection refuses.
func (v *Vaults) purgeSecret(ctx context.Context, vault *Vault, name string) error {
	return v.store.Update(ctx, func(tx *store.Tx) error {
		// The vault is read again: protection may have been switched on since.
		now, ok, err := v.vaults.Get(tx, strings.ToLower(vault.Name))
		if err != nil {
			return err
		}
		if ok && now.UID == vault.UID && now.PurgeProtection {
			return fault.New(fault.Forbidden, codeForbidden,
				"Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault service will automatically purge it after the retention period has passed.\r\nVault: %s", vault.label())
		}
		d, err := v.deletedIn(tx, vault, name)
		if err != nil {
			return err
		}
		v.wipe(tx, vault.UID, &d)
		v.due.Delete(tx, dueKey(d.PurgeAt, vault.UID, strings.ToLower(name)))
		return nil
	})
}
