package arm

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeVault   = "Microsoft.KeyVault/vaults"
	actionVault = typeVault + "/"
)

func (h *Handler) registerVaults() {
	h.Register(ResourceType{
		Name: typeVault, Versions: versionsKeyVault,
		Find:   h.findVault,
		List:   h.listVaultResources,
		Delete: h.removeVault,
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtSubscription | AtGroup, Action: actionVault + "read", Visible: true, Handle: h.listVaults},
			{Method: "GET", Levels: AtGroup, Action: actionVault + "read", Handle: h.getVault},
			{Method: "PUT", Levels: AtGroup, Action: actionVault + "write", Handle: h.putVault},
			{Method: "PATCH", Levels: AtGroup, Action: actionVault + "write", Handle: h.patchVault},
			{Method: "DELETE", Levels: AtGroup, Action: actionVault + "delete", Handle: h.deleteVault},
		},
	})
	h.Register(ResourceType{
		Name: typeVault + "/accessPolicies",
		Routes: []Route{
			{Method: "PUT", Levels: AtGroup, Action: actionVault + "accessPolicies/write", Handle: h.putPolicies},
		},
	})
	h.registerVaultSecrets()
	// There are no private endpoints, which clients ask about.
	h.Register(ResourceType{Name: typeVault + "/privateEndpointConnections", Leaf: true, Routes: []Route{
		{Method: "GET", Collection: true, Levels: AtGroup, Action: actionVault + "privateEndpointConnections/read", Handle: listNothing},
	}})
	// What else a vault holds is the data plane's; here it is a scope of roles.
	for _, kind := range []string{"keys", "certificates"} {
		h.Register(ResourceType{Name: typeVault + "/" + kind, Loose: true, Hidden: true})
	}
}

func (h *Handler) findVault(ctx context.Context, _ string, id ID) (string, bool, error) {
	v, ok, err := h.o.Vaults.ByID(ctx, id.Key())
	return v.ID, ok, err
}

func (h *Handler) listVaultResources(ctx context.Context, scope ID) ([]Resource, error) {
	vs, err := h.o.Vaults.List(ctx, scope.Subscription(), scope.Group())
	if err != nil {
		return nil, err
	}
	out := make([]Resource, len(vs))
	for i := range vs {
		v := &vs[i]
		out[i] = Resource{
			ID: v.ID, Name: v.Name, Type: typeVault, Location: v.Location, Tags: v.Tags,
			Created: v.Created, Updated: v.Updated, Read: actionVault + "read",
		}
	}
	return out, nil
}

type wireVault struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	SystemData wireSystemData    `json:"systemData"`
	Properties vaultProperties   `json:"properties"`
}

type vaultProperties struct {
	keyvault.Properties
	VaultURI          string `json:"vaultUri"`
	ProvisioningState string `json:"provisioningState"`
}

type wireSystemData struct {
	CreatedBy          string    `json:"createdBy,omitempty"`
	CreatedByType      string    `json:"createdByType,omitempty"`
	CreatedAt          time.Time `json:"createdAt"`
	LastModifiedBy     string    `json:"lastModifiedBy,omitempty"`
	LastModifiedByType string    `json:"lastModifiedByType,omitempty"`
	LastModifiedAt     time.Time `json:"lastModifiedAt"`
}

// vaultWire is a vault in answers. Its URI is by the names that the request
// came in by.
func (h *Handler) vaultWire(ctx context.Context, n *web.Names, v *keyvault.Vault) (wireVault, error) {
	out := wireVault{
		ID: v.ID, Name: v.Name, Type: typeVault, Location: v.Location, Tags: tagsWire(v.Tags),
		Properties: vaultProperties{
			Properties: v.Properties(), VaultURI: n.VaultURL(strings.ToLower(v.Name)) + "/", ProvisioningState: "Succeeded",
		},
		SystemData: wireSystemData{CreatedBy: v.CreatedBy, CreatedAt: v.Created, LastModifiedBy: v.UpdatedBy, LastModifiedAt: v.Updated},
	}
	var err error
	if out.SystemData.CreatedByType, err = h.kindOf(ctx, v.CreatedBy); err != nil {
		return out, err
	}
	out.SystemData.LastModifiedByType, err = h.kindOf(ctx, v.UpdatedBy)
	return out, err
}

// kindOf says what a principal is, as systemData spells it; empty for one
// that has gone.
func (h *Handler) kindOf(ctx context.Context, objectID string) (string, error) {
	sp, ok, err := h.o.Directory.ServicePrincipal(ctx, objectID)
	switch {
	case err != nil:
		return "", err
	case ok:
		return sp.Kind, nil // Application or ManagedIdentity
	}
	_, ok, err = h.o.Directory.Principal(ctx, objectID)
	if err != nil || !ok {
		return "", err
	}
	return "User", nil
}

func (h *Handler) writeVault(w http.ResponseWriter, r *http.Request, q *Request, status int, v *keyvault.Vault) error {
	out, err := h.vaultWire(r.Context(), q.Names, v)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, status, out)
}

// vaultBody is a vault in requests. What the service chooses is accepted and
// ignored: clients read a vault, change it and send it back whole.
type vaultBody struct {
	Location   string               `json:"location"`
	Tags       map[string]string    `json:"tags"`
	Properties *keyvault.Properties `json:"properties"`
}

// putVault makes, updates or recovers a vault. What it may do to access
// policies is what Microsoft.KeyVault/vaults/write allows in Azure too: who
// may write a vault in that model may let itself in.
func (h *Handler) putVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body vaultBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if body.Properties == nil {
		return fault.BadRequest(codeContent, "The request body has no 'properties'.")
	}
	if err := checkTags(body.Tags); err != nil {
		return err
	}
	ctx, recovers := r.Context(), strings.EqualFold(body.Properties.CreateMode, "recover")
	spec := keyvault.Spec{
		SubscriptionID: q.ID.Subscription(), Name: q.ID.Name(), Location: body.Location,
		TenantID: q.TenantID, Tags: body.Tags, Properties: *body.Properties, By: q.Principal.ObjectID,
		RBAC: q.Version[:len(rbacDefault)] >= rbacDefault,
	}
	if err := h.judgeVault(ctx, q, &spec, recovers); err != nil {
		return err
	}
	v, created, err := h.o.Vaults.Put(ctx, spec)
	if err != nil {
		return err
	}
	if created || recovers {
		err := q.stillThere(ctx, q.ID.Scope(), func(ctx context.Context) error { return h.unmakeVault(ctx, q, created) })
		if err != nil {
			return err
		}
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return h.writeVault(w, r, q, status, &v)
}

// judgeVault completes what a PUT asks for by what is there: the vault, the
// deleted one that is to be recovered, or nothing.
func (h *Handler) judgeVault(ctx context.Context, q *Request, s *keyvault.Spec, recovers bool) error {
	g, _, err := h.group(ctx, q.ID)
	if err != nil {
		return err
	}
	s.ResourceGroup = g.Name
	before, existed, err := h.o.Vaults.ByID(ctx, q.ID.Key())
	if err == nil && !existed && recovers {
		before, existed, err = h.deletedVaultOf(ctx, q.ID)
	}
	switch p := &s.Properties; {
	case err != nil:
		return err
	case existed:
		return h.mayChangeModel(ctx, q, p, before.EnableRBAC)
	case p.EnableRBAC != nil:
		// Only for a vault that is new: should somebody else make it first, this
		// request does not change its model.
		s.RBAC, p.EnableRBAC = *p.EnableRBAC, nil
	}
	s.Location, err = checkLocation(s.Location, typeVault)
	return err
}

// deletedVaultOf finds the deleted vault that had an id.
func (h *Handler) deletedVaultOf(ctx context.Context, id ID) (keyvault.Vault, bool, error) {
	v, ok, err := h.o.Vaults.DeletedByName(ctx, id.Subscription(), "", id.Name())
	return v, ok && strings.EqualFold(v.ID, id.String()), err
}

// mayChangeModel demands of who changes a vault's permission model that it
// may also assign roles on it, as Azure does: the change lets in, and shuts
// out, others than before. A request that names the model as it is does not
// speak of it: so it does not undo a change that somebody makes meanwhile.
func (h *Handler) mayChangeModel(ctx context.Context, q *Request, p *keyvault.Properties, now bool) error {
	if p.EnableRBAC == nil {
		return nil
	}
	if *p.EnableRBAC == now {
		p.EnableRBAC = nil
		return nil
	}
	return q.Authorize(ctx, typeAssignment+"/write", q.ID)
}

// unmakeVault undoes a creation, or a recovery, in a group that went away.
func (h *Handler) unmakeVault(ctx context.Context, q *Request, created bool) error {
	if err := h.removeVault(ctx, q.ID, q.Principal.ObjectID); err != nil || !created {
		return err
	}
	err := h.o.Vaults.Purge(ctx, q.ID.Subscription(), "", q.ID.Name())
	if fault.Is(err, fault.BadMethod) || fault.Is(err, fault.Missing) {
		return nil // protected from purging, or purged already
	}
	return err
}

func (h *Handler) patchVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body struct {
		Location   string               `json:"location"`
		Tags       *map[string]string   `json:"tags"`
		Properties *keyvault.Properties `json:"properties"`
	}
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if body.Tags != nil {
		if err := checkTags(*body.Tags); err != nil {
			return err
		}
	}
	p := body.Properties
	if p == nil {
		p = &keyvault.Properties{}
	}
	before, ok, err := h.o.Vaults.ByID(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	if err := sameLocation(q.ID, before.Location, body.Location); err != nil {
		return err
	}
	if err := h.mayChangeModel(r.Context(), q, p, before.EnableRBAC); err != nil {
		return err
	}
	v, err := h.o.Vaults.Patch(r.Context(), q.ID.Key(), keyvault.Patch{Tags: body.Tags, Properties: *p, By: q.Principal.ObjectID})
	if err != nil {
		return err
	}
	return h.writeVault(w, r, q, http.StatusOK, &v)
}

func (h *Handler) getVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	v, ok, err := h.o.Vaults.ByID(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return h.writeVault(w, r, q, http.StatusOK, &v)
}

func (h *Handler) listVaults(w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	all, err := h.o.Vaults.List(ctx, q.ID.Subscription(), q.ID.Group())
	if err != nil {
		return err
	}
	if all, err = readable(ctx, q, all, actionVault+"read", func(v *keyvault.Vault) string { return v.ID }); err != nil {
		return err
	}
	shown := make([]wireVault, len(all))
	for i := range all {
		if shown[i], err = h.vaultWire(ctx, q.Names, &all[i]); err != nil {
			return err
		}
	}
	return writePage(w, q, shown, func(v *wireVault) string { return strings.ToLower(v.ID) }, func(v *wireVault) *wireVault { return v })
}

func (h *Handler) deleteVault(w http.ResponseWriter, r *http.Request, q *Request) error {
	_, existed, err := h.o.Vaults.ByID(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if err := h.removeVault(r.Context(), q.ID, q.Principal.ObjectID); err != nil {
		return err
	}
	return writeDeleted(w, existed)
}

// removeVault soft-deletes a vault, between two removals of the role
// assignments on it, as removeIdentity does. A vault that is recovered comes
// back without its assignments, as in Azure; its access policies it keeps.
func (h *Handler) removeVault(ctx context.Context, id ID, by string) error {
	return h.removeWithAssignments(ctx, id, func(ctx context.Context) error {
		_, err := h.o.Vaults.Delete(ctx, id.Key(), by)
		return err
	})
}

type policiesBody struct {
	Properties *struct {
		AccessPolicies []rbac.AccessPolicy `json:"accessPolicies"`
	} `json:"properties"`
}

// putPolicies serves .../accessPolicies/{add|replace|remove}. The answer has
// all of the vault's policies as they are now.
func (h *Handler) putPolicies(w http.ResponseWriter, r *http.Request, q *Request) error {
	change := keyvault.PolicyChange(strings.ToLower(q.ID.Name()))
	if !slices.Contains([]keyvault.PolicyChange{keyvault.AddPolicies, keyvault.ReplacePolicies, keyvault.RemovePolicies}, change) {
		return fault.BadRequest("BadRequest", "The operation '%s' on access policies is unknown: it must be 'add', 'replace' or 'remove'.", clip(q.ID.Name()))
	}
	var body policiesBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if body.Properties == nil || body.Properties.AccessPolicies == nil {
		return fault.BadRequest(codeContent, "The request body has no 'properties.accessPolicies'.")
	}
	v, err := h.o.Vaults.ChangePolicies(r.Context(), q.ID.Parent().Key(), change, body.Properties.AccessPolicies, q.Principal.ObjectID)
	if err != nil {
		return err
	}
	out := map[string]any{
		"id": v.ID + "/accessPolicies/", "name": "", "type": typeVault + "/accessPolicies", "location": v.Location,
		"properties": map[string]any{"accessPolicies": v.Properties().AccessPolicies},
	}
	return web.WriteJSON(w, http.StatusOK, out)
}
