package arm

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/web"
)

const typeDeletedVault = "Microsoft.KeyVault/locations/deletedVaults"

// registerDeletedVaults adds what the vault provider has at a subscription:
// deleted vaults, the check of names, and hardware modules, of which there
// are none.
func (h *Handler) registerDeletedVaults() {
	list := func(name, action string, levels Level, handle func(http.ResponseWriter, *http.Request, *Request) error) ResourceType {
		return ResourceType{Name: "Microsoft.KeyVault/" + name, Routes: []Route{
			{Method: "GET", Collection: true, Levels: levels, Action: "Microsoft.KeyVault/" + action, Handle: handle},
		}}
	}
	h.Register(list("deletedVaults", "deletedVaults/read", AtSubscription, h.listDeletedVaults))
	h.Register(list("managedHSMs", "managedHSMs/read", AtSubscription|AtGroup, listNothing))
	h.Register(list("deletedManagedHSMs", "deletedManagedHSMs/read", AtSubscription, listNothing))
	h.Register(ResourceType{
		Name: "Microsoft.KeyVault/locations", Hidden: true, Leaf: true,
		Find: func(_ context.Context, _ string, id ID) (string, bool, error) {
			name, ok := location(id.Name())
			return id.Scope().String() + "/providers/Microsoft.KeyVault/locations/" + name, ok && id.Level() == AtSubscription, nil
		},
	})
	h.Register(ResourceType{
		Name: typeDeletedVault, Leaf: true,
		Find: func(ctx context.Context, _ string, id ID) (string, bool, error) {
			v, ok, err := h.o.Vaults.DeletedByName(ctx, id.Subscription(), id.NameOf("locations"), id.Name())
			if err != nil || !ok {
				return "", false, err
			}
			return deletedVaultID(&v), true, nil
		},
		Routes: []Route{{Method: "GET", Levels: AtSubscription, Action: typeDeletedVault + "/read", Handle: h.getDeletedVault}},
	})
	h.Register(ResourceType{
		Name: typeDeletedVault + "/purge", Hidden: true,
		Routes: []Route{{Method: "POST", Collection: true, Levels: AtSubscription, Action: typeDeletedVault + "/purge/action", Handle: h.purgeVault}},
	})
	h.Register(ResourceType{
		Name: "Microsoft.KeyVault/checkNameAvailability", Hidden: true,
		Routes: []Route{{Method: "POST", Collection: true, Levels: AtSubscription, Action: "Microsoft.KeyVault/checkNameAvailability/read", Visible: true, Handle: h.checkVaultName}},
	})
}

func listNothing(w http.ResponseWriter, _ *http.Request, _ *Request) error {
	return web.WriteJSON(w, http.StatusOK, wireList[struct{}]{Value: []struct{}{}})
}

type wireDeletedVault struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		VaultID               string            `json:"vaultId"`
		Location              string            `json:"location"`
		DeletionDate          time.Time         `json:"deletionDate"`
		ScheduledPurgeDate    time.Time         `json:"scheduledPurgeDate"`
		Tags                  map[string]string `json:"tags,omitempty"`
		PurgeProtectionEnable bool              `json:"purgeProtectionEnabled,omitempty"`
	} `json:"properties"`
}

func deletedVaultID(v *keyvault.Vault) string {
	return "/subscriptions/" + v.SubscriptionID + "/providers/Microsoft.KeyVault/locations/" + v.Location + "/deletedVaults/" + v.Name
}

func deletedVaultWire(v *keyvault.Vault) wireDeletedVault {
	out := wireDeletedVault{ID: deletedVaultID(v), Name: v.Name, Type: "Microsoft.KeyVault/deletedVaults"}
	p := &out.Properties
	p.VaultID, p.Location, p.Tags, p.PurgeProtectionEnable = v.ID, v.Location, v.Tags, v.PurgeProtection
	p.DeletionDate, p.ScheduledPurgeDate = v.Deleted.DeletedAt, v.Deleted.PurgeAt
	return out
}

func (h *Handler) listDeletedVaults(w http.ResponseWriter, r *http.Request, q *Request) error {
	all, err := h.o.Vaults.ListDeleted(r.Context(), q.ID.Subscription())
	if err != nil {
		return err
	}
	return writePage(w, q, all, func(v *keyvault.Vault) string { return strings.ToLower(v.Name) }, deletedVaultWire)
}

func (h *Handler) getDeletedVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	v, ok, err := h.o.Vaults.DeletedByName(r.Context(), q.ID.Subscription(), q.ID.NameOf("locations"), q.ID.Name())
	if err != nil {
		return err
	}
	if !ok {
		return fault.NotFound("DeletedVaultNotFound", "The deleted vault '%s' was not found.", clip(q.ID.Name()))
	}
	return web.WriteJSON(w, http.StatusOK, deletedVaultWire(&v))
}

// purgeVault removes a deleted vault for good, and answers when it is done.
func (h *Handler) purgeVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	err := h.o.Vaults.Purge(r.Context(), q.ID.Subscription(), q.ID.NameOf("locations"), q.ID.NameOf("deletedVaults"))
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

type wireNameCheck struct {
	Available bool   `json:"nameAvailable"`
	Reason    string `json:"reason,omitempty"`
	Message   string `json:"message,omitempty"`
}

// checkVaultName says whether a name is free. Names are unique in the whole
// server, so the answer tells of vaults of others, as Azure's does: nothing
// but that the name is taken.
func (h *Handler) checkVaultName(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if body.Type != "" && !strings.EqualFold(body.Type, typeVault) {
		return fault.BadRequest("BadRequest", "The type must be '%s'.", typeVault)
	}
	c, err := h.o.Vaults.CheckName(r.Context(), body.Name)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, wireNameCheck(c))
}
