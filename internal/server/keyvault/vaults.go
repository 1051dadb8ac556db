package keyvault

import (
	"context"
	"maps"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
)

// Spec describes a vault to make or to replace.
type Spec struct {
	SubscriptionID string
	ResourceGroup  string // in the case to show
	Name           string
	Location       string // such as westeurope; may be empty for a vault that exists
	TenantID       string // of the subscription: the vault's tenant
	Tags           map[string]string
	Properties     Properties
	By             string // object id of the caller
	// RBAC is the permission model of a new vault whose request does not choose
	// one. It depends on the version of the API that was asked.
	RBAC bool
}

// Put makes a vault, or updates the one with the same id: what the request
// does not name keeps its value, but tags are replaced. With CreateMode
// "recover" it recovers a deleted vault of the same id and then updates it;
// tags that are not named are then kept, since az keyvault recover names none.
// Faults: a name that is not valid (Invalid, VaultNameNotValid), in use
// elsewhere (Clash, VaultAlreadyExists) or held by a deleted vault (Clash,
// ConflictError); values that are not valid or may not change (Invalid).
func (v *Vaults) Put(ctx context.Context, s Spec) (_ Vault, created bool, err error) {
	if !ValidVaultName(s.Name) {
		return Vault{}, false, fault.BadRequest("VaultNameNotValid", "%s", badNameMessage(s.Name))
	}
	if uuid.Validate(s.TenantID) != nil {
		return Vault{}, false, fault.BadRequest("BadRequest", "The vault's tenant is not a GUID.")
	}
	if m := s.Properties.CreateMode; m != "" && !strings.EqualFold(m, "default") && !s.recovers() {
		return Vault{}, false, fault.BadRequest("BadRequest", "The createMode must be 'default' or 'recover'.")
	}
	if err := v.freeExpired(ctx, s.Name); err != nil {
		return Vault{}, false, err
	}
	var put Vault
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if put, created, err = v.target(tx, &s); err != nil {
			return err
		}
		if err := put.move(&s); err != nil {
			return err
		}
		if err := put.apply(&s.Properties, created); err != nil {
			return err
		}
		if s.Tags != nil || !s.recovers() {
			put.Tags = maps.Clone(s.Tags)
		}
		put.Updated, put.UpdatedBy = v.now().UTC(), s.By
		return v.vaults.Put(tx, strings.ToLower(s.Name), put)
	})
	if err != nil {
		return Vault{}, false, err
	}
	return put, created, nil
}

// recovers reports whether a deleted vault is to come back.
func (s *Spec) recovers() bool { return strings.EqualFold(s.Properties.CreateMode, "recover") }

// target is the vault that a Put works on, as it is before: the one that is
// there, the deleted one, or a fresh one.
func (v *Vaults) target(tx *store.Tx, s *Spec) (_ Vault, created bool, err error) {
	id := vaultID(s.SubscriptionID, s.ResourceGroup, s.Name)
	if s.recovers() {
		vault, err := v.recovered(tx, id)
		return vault, false, err
	}
	key := strings.ToLower(s.Name)
	old, had, err := v.vaults.Get(tx, key)
	switch {
	case err != nil:
		return Vault{}, false, err
	case had && !strings.EqualFold(old.ID, id):
		return Vault{}, false, nameTaken(s.Name)
	case had:
		return old, false, nil
	}
	if _, held, err := v.deletedVaults.Get(tx, key); err != nil || held {
		return Vault{}, false, orErr(err, nameHeld())
	}
	return v.fresh(s, id), true, nil
}

// fresh is a new vault with the defaults.
func (v *Vaults) fresh(s *Spec, id string) Vault {
	now := v.now().UTC()
	return Vault{
		UID:                 strings.ReplaceAll(uuid.NewString(), "-", ""),
		ID:                  id,
		Name:                s.Name,
		SubscriptionID:      strings.ToLower(s.SubscriptionID),
		ResourceGroup:       s.ResourceGroup,
		Location:            s.Location,
		TenantID:            strings.ToLower(s.TenantID),
		EnableRBAC:          s.RBAC,
		RetentionDays:       maxRetention,
		PublicNetworkAccess: accessEnabled,
		Created:             now,
		CreatedBy:           s.By,
	}
}

// move refuses a request that would change what a vault keeps for life.
func (v *Vault) move(s *Spec) error {
	if v.Location == "" {
		return fault.BadRequest("LocationRequired", "The location property is required for this definition.")
	}
	if s.Location != "" && foldLocation(s.Location) != foldLocation(v.Location) {
		return fault.Conflict("InvalidResourceLocation",
			"The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%.40s'. Please select a new resource name.",
			v.Name, v.Location, v.ResourceGroup, s.Location)
	}
	if !strings.EqualFold(s.TenantID, v.TenantID) {
		return fault.BadRequest("BadRequest", "The vault belongs to another tenant than its subscription.")
	}
	return nil
}

// foldLocation makes "West Europe" and westeurope the same.
func foldLocation(l string) string { return strings.ToLower(strings.ReplaceAll(l, " ", "")) }

// Patch is a change of a vault; nil members stay as they are.
type Patch struct {
	Tags       *map[string]string
	Properties Properties
	By         string // object id of the caller
}

// Patch changes the vault with an ARM id. Faults as for [Vaults.Put], and
// Missing (ResourceNotFound).
func (v *Vaults) Patch(ctx context.Context, id string, p Patch) (Vault, error) {
	return v.change(ctx, id, p.By, func(vault *Vault) error {
		if p.Tags != nil {
			vault.Tags = maps.Clone(*p.Tags)
		}
		return vault.apply(&p.Properties, false)
	})
}

// PolicyChange says what a change of access policies does with its entries.
type PolicyChange string

// The changes, as the management API's paths spell them.
const (
	AddPolicies     PolicyChange = "add"     // permissions join those of the same caller's entry
	ReplacePolicies PolicyChange = "replace" // permissions take the place of those in the same caller's entry
	RemovePolicies  PolicyChange = "remove"  // permissions are taken away; an entry left with none goes
)

// ChangePolicies changes the access policies of the vault with an ARM id.
// Entries for callers that the change does not name stay as they are.
func (v *Vaults) ChangePolicies(ctx context.Context, id string, c PolicyChange, policies []rbac.AccessPolicy, by string) (Vault, error) {
	return v.change(ctx, id, by, func(vault *Vault) error {
		if err := vault.checkPolicies(policies); err != nil {
			return err
		}
		merged, err := mergePolicies(vault.AccessPolicies, c, policies)
		if err != nil {
			return err
		}
		vault.AccessPolicies = merged
		return vault.checkPolicies(merged)
	})
}

// change updates a live vault in a transaction.
func (v *Vaults) change(ctx context.Context, id, by string, fn func(*Vault) error) (changed Vault, err error) {
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		vault, err := v.vaultIn(tx, id)
		if err != nil {
			return err
		}
		if err := fn(&vault); err != nil {
			return err
		}
		vault.Updated, vault.UpdatedBy = v.now().UTC(), by
		changed = vault
		return v.vaults.Put(tx, strings.ToLower(vault.Name), vault)
	})
	return changed, err
}

// vaultIn reads the live vault with an ARM id.
func (v *Vaults) vaultIn(tx *store.Tx, id string) (Vault, error) {
	vault, ok, err := v.vaults.Get(tx, strings.ToLower(nameOf(id)))
	if err != nil {
		return Vault{}, err
	}
	if !ok || !strings.EqualFold(vault.ID, id) {
		return Vault{}, fault.NotFound("ResourceNotFound", "The vault '%.80s' was not found.", nameOf(id))
	}
	return vault, nil
}

// NameCheck is the answer to whether a vault could have a name. Reason is
// empty, AccountNameInvalid or AlreadyExists.
type NameCheck struct {
	Available bool
	Reason    string
	Message   string
}

// CheckName says whether a vault could be made under the name. Names are
// unique in the whole server, and deleted vaults keep theirs until they are
// purged.
func (v *Vaults) CheckName(ctx context.Context, name string) (NameCheck, error) {
	if !ValidVaultName(name) {
		return NameCheck{Reason: "AccountNameInvalid", Message: badNameMessage(name)}, nil
	}
	key := strings.ToLower(name)
	if _, ok, err := v.vaults.Load(ctx, key); err != nil || ok {
		return NameCheck{Reason: "AlreadyExists", Message: takenMessage(name)}, err
	}
	d, ok, err := v.deletedVaults.Load(ctx, key)
	if err != nil {
		return NameCheck{}, err
	}
	if ok && d.Deleted.PurgeAt.After(v.now()) {
		return NameCheck{Reason: "AlreadyExists", Message: heldMessage}, nil
	}
	return NameCheck{Available: true}, nil
}

func badNameMessage(name string) string {
	if len(name) > 60 {
		name = name[:60] + "..."
	}
	return "The vault name '" + strings.ToValidUTF8(name, "?") + "' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name must begin with a letter, end with a letter or digit, and not contain consecutive hyphens."
}

func takenMessage(name string) string {
	return "The vault name '" + name + "' is already in use. Vault names are globally unique so it is possible that the name is already taken."
}

const heldMessage = "A vault with the same name already exists in deleted state. You need to either recover or purge existing key vault."

func nameTaken(name string) error {
	return fault.Conflict("VaultAlreadyExists", "%s", takenMessage(name))
}

func nameHeld() error { return fault.Conflict("ConflictError", "%s", heldMessage) }

// orErr is err, or, if that is nil, the other.
func orErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
