package keyvault

import (
	"context"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// This file is what the management API may do with secrets: set them, change
// what is said about them, and see what is said about them. No method returns
// a value.

// SecretInfo is what there is to know of a secret's current version, but for
// its value.
type SecretInfo struct {
	Name        string // in the case it was first set in
	Version     string
	ContentType string
	Enabled     bool
	NotBefore   *int64
	Expires     *int64
	Created     int64
	Updated     int64
	Tags        map[string]string
}

func infoOf(s *secret) SecretInfo {
	return SecretInfo{
		Name: s.Name, Version: s.ID, ContentType: s.ContentType, Enabled: !s.Disabled, NotBefore: s.NotBefore, Expires: s.Expires,
		Created: s.Created, Updated: s.Updated, Tags: s.Tags,
	}
}

// SetSecret makes a new version of a secret in the vault with an ARM id, as a
// set on the data plane does. Faults: a missing value, a name or a limit that
// is not kept (Invalid, BadParameter); a vault that is not there (Missing); a
// name that a deleted secret holds (Clash, Conflict).
func (v *Vaults) SetSecret(ctx context.Context, vaultID, name string, c SecretChange) (_ SecretInfo, created bool, err error) {
	if c.Value == nil {
		return SecretInfo{}, false, badParameter("The property 'value' is required.")
	}
	vault, err := v.managed(ctx, vaultID, name, &c)
	if err != nil {
		return SecretInfo{}, false, err
	}
	s, err := v.setSecret(ctx, vault, name, c)
	return infoOf(&s), s.Previous == "", err
}

// UpdateSecret changes what is said about the current version of a secret.
// The value stays: a new one is a new version, see [Vaults.SetSecret].
func (v *Vaults) UpdateSecret(ctx context.Context, vaultID, name string, c SecretChange) (SecretInfo, error) {
	if c.Value != nil {
		return SecretInfo{}, badParameter("The property 'value' cannot be changed by an update. Set the secret instead: this makes a new version.")
	}
	vault, err := v.managed(ctx, vaultID, name, &c)
	if err != nil {
		return SecretInfo{}, err
	}
	s, err := v.updateSecret(ctx, vault, name, "", c)
	return infoOf(&s), err
}

// managed finds the vault and checks what is to be done in it.
func (v *Vaults) managed(ctx context.Context, vaultID, name string, c *SecretChange) (*Vault, error) {
	if !validName(name) {
		return nil, badName()
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	vault, ok, err := v.ByID(ctx, vaultID)
	if err == nil && !ok {
		err = fault.NotFound("ResourceNotFound", "The vault '%.80s' was not found.", nameOf(vaultID))
	}
	return &vault, err
}

// Secret tells what there is to know of a secret in the vault with an ARM id.
func (v *Vaults) Secret(ctx context.Context, vaultID, name string) (SecretInfo, bool, error) {
	vault, ok, err := v.ByID(ctx, vaultID)
	if err != nil || !ok {
		return SecretInfo{}, false, err
	}
	s, ok, err := v.secrets.Load(ctx, secretKey(vault.UID, name))
	return infoOf(&s), ok, err
}

// Secrets lists up to limit secrets of the vault with an ARM id, in order of
// their names, after the one with a lower-case name. last is where the list
// goes on, if more is set.
func (v *Vaults) Secrets(ctx context.Context, vaultID, after string, limit int) (infos []SecretInfo, last string, more bool, err error) {
	vault, ok, err := v.ByID(ctx, vaultID)
	if err != nil || !ok {
		return nil, "", false, err
	}
	p, err := v.listSecrets(ctx, &vault, after, limit)
	if err != nil {
		return nil, "", false, err
	}
	for i := range p.items {
		infos = append(infos, infoOf(&p.items[i]))
	}
	return infos, p.last, p.more, nil
}

// recovered takes a deleted vault back into use as part of a transaction that
// goes on to change it.
func (v *Vaults) recovered(tx *store.Tx, id string) (Vault, error) {
	key := strings.ToLower(nameOf(id))
	vault, ok, err := v.deletedVaults.Get(tx, key)
	if err != nil {
		return Vault{}, err
	}
	if !ok || !strings.EqualFold(vault.ID, id) || v.expired(&vault) {
		return Vault{}, deletedVaultNotFound(nameOf(id))
	}
	if _, taken, err := v.vaults.Get(tx, key); err != nil || taken {
		return Vault{}, orErr(err, nameTaken(vault.Name))
	}
	vault.Deleted = nil
	v.deletedVaults.Delete(tx, key)
	return vault, nil
}
