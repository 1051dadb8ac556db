package arm

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeIdentity   = "Microsoft.ManagedIdentity/userAssignedIdentities"
	actionIdentity = typeIdentity + "/"
)

func (h *Handler) registerIdentities() {
	h.Register(ResourceType{
		Name: typeIdentity, Versions: versionsIdentity,
		Find:   h.findIdentity,
		List:   h.listIdentityResources,
		Delete: h.removeIdentity,
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtSubscription | AtGroup, Action: actionIdentity + "read", Visible: true, Handle: h.listIdentities},
			{Method: "GET", Levels: AtGroup, Action: actionIdentity + "read", Handle: h.getIdentity},
			{Method: "PUT", Levels: AtGroup, Action: actionIdentity + "write", Handle: h.putIdentity},
			{Method: "PATCH", Levels: AtGroup, Action: actionIdentity + "write", Handle: h.patchIdentity},
			{Method: "DELETE", Levels: AtGroup, Action: actionIdentity + "delete", Handle: h.deleteIdentity},
		},
	})
	h.registerFederated()
}

func (h *Handler) findIdentity(ctx context.Context, _ string, id ID) (string, bool, error) {
	m, ok, err := h.o.Directory.Identity(ctx, id.Key())
	return m.ResourceID, ok, err
}

func (h *Handler) listIdentityResources(ctx context.Context, scope ID) ([]Resource, error) {
	ms, err := h.o.Directory.Identities(ctx, scope.Key())
	if err != nil {
		return nil, err
	}
	out := make([]Resource, len(ms))
	for i, m := range ms {
		out[i] = Resource{
			ID: m.ResourceID, Name: m.Name, Type: typeIdentity, Location: m.Location, Tags: m.Tags,
			Created: m.Created, Updated: m.Updated, Read: actionIdentity + "read",
		}
	}
	return out, nil
}

type wireIdentity struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Properties struct {
		TenantID    string `json:"tenantId"`
		PrincipalID string `json:"principalId"`
		ClientID    string `json:"clientId"`
	} `json:"properties"`
}

func identityWire(m *directory.ManagedIdentity) wireIdentity {
	out := wireIdentity{ID: m.ResourceID, Name: m.Name, Type: typeIdentity, Location: m.Location, Tags: tagsWire(m.Tags)}
	out.Properties.TenantID, out.Properties.PrincipalID, out.Properties.ClientID = m.TenantID, m.PrincipalID, m.ClientID
	return out
}

// identityBody is an identity in requests. What the service chooses is
// accepted and ignored, since clients send back what they read.
type identityBody struct {
	Location   string             `json:"location"`
	Tags       *map[string]string `json:"tags"`
	Properties struct {
		// IsolationScope would confine an identity to a region.
		IsolationScope string `json:"isolationScope"`
	} `json:"properties"`
}

func (b *identityBody) check() error {
	if s := b.Properties.IsolationScope; s != "" && !strings.EqualFold(s, "None") {
		return fault.BadRequest("BadRequest", "The isolation scope '%s' is not supported: identities are usable everywhere.", clip(s))
	}
	if b.Tags == nil {
		return nil
	}
	return checkTags(*b.Tags)
}

func (h *Handler) putIdentity(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body identityBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	ctx, id := r.Context(), q.ID
	m, err := h.newIdentity(ctx, q, &body)
	if err != nil {
		return err
	}
	m, created, err := h.o.Directory.PutIdentity(ctx, m)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		err := q.stillThere(ctx, id.Scope(), func(ctx context.Context) error { return h.removeIdentity(ctx, id, "") })
		if err != nil {
			return err
		}
	}
	return web.WriteJSON(w, status, identityWire(&m))
}

// newIdentity is the record that a PUT asks for. Of an existing identity, the
// directory takes only the tags from it.
func (h *Handler) newIdentity(ctx context.Context, q *Request, body *identityBody) (directory.ManagedIdentity, error) {
	m := directory.ManagedIdentity{TenantID: q.TenantID, SubscriptionID: q.ID.Subscription()}
	if body.Tags != nil {
		m.Tags = *body.Tags
	}
	old, ok, err := h.o.Directory.Identity(ctx, q.ID.Key())
	if err != nil {
		return m, err
	}
	if ok {
		m.ResourceID, m.Name, m.Location = old.ResourceID, old.Name, old.Location
		return m, sameLocation(q.ID, old.Location, body.Location)
	}
	if m.Name = q.ID.Name(); !validIdentityName(m.Name) {
		return m, badName(typeIdentity, m.Name, "3 to 128 letters, digits, '-' or '_', the first a letter or digit")
	}
	if m.Location, err = checkLocation(body.Location, typeIdentity); err != nil {
		return m, err
	}
	scope, err := q.mustExist(ctx, q.ID.Scope())
	if err != nil {
		return m, err
	}
	m.ResourceGroup = mustParse(scope).Group()
	m.ResourceID = scope + "/providers/" + typeIdentity + "/" + m.Name
	return m, nil
}

func (h *Handler) patchIdentity(w http.ResponseWriter, r *http.Request, q *Request) error {
	m, ok, err := h.o.Directory.Identity(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	var body identityBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	if err := body.check(); err != nil {
		return err
	}
	if err := sameLocation(q.ID, m.Location, body.Location); err != nil {
		return err
	}
	if body.Tags != nil {
		m.Tags, m.ClientID, m.PrincipalID = *body.Tags, "", ""
		var created bool
		if m, created, err = h.o.Directory.PutIdentity(r.Context(), m); err != nil {
			return err
		}
		if created { // it was deleted meanwhile, and a PATCH creates nothing
			return errors.Join(notFound(q.ID), h.removeIdentity(context.WithoutCancel(r.Context()), q.ID, ""))
		}
	}
	return web.WriteJSON(w, http.StatusOK, identityWire(&m))
}

func (h *Handler) getIdentity(w http.ResponseWriter, r *http.Request, q *Request) error {
	m, ok, err := h.o.Directory.Identity(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return web.WriteJSON(w, http.StatusOK, identityWire(&m))
}

func (h *Handler) listIdentities(w http.ResponseWriter, r *http.Request, q *Request) error {
	all, err := h.o.Directory.Identities(r.Context(), q.ID.Scope().Key())
	if err != nil {
		return err
	}
	shown, err := readable(r.Context(), q, all, actionIdentity+"read", func(m *directory.ManagedIdentity) string { return m.ResourceID })
	if err != nil {
		return err
	}
	return writePage(w, q, shown, func(m *directory.ManagedIdentity) string { return strings.ToLower(m.ResourceID) }, identityWire)
}

func (h *Handler) deleteIdentity(w http.ResponseWriter, r *http.Request, q *Request) error {
	_, existed, err := h.o.Directory.Identity(r.Context(), q.ID.Key())
	if err != nil {
		return err
	}
	if err := h.removeIdentity(r.Context(), q.ID, q.Principal.ObjectID); err != nil {
		return err
	}
	return writeDeleted(w, existed)
}

// removeIdentity takes away an identity: first the role assignments on it,
// so that a crash after them leaves less allowed, not more; then the identity
// with its service principal and its federated credentials, in one
// transaction; then role assignments that were made on it meanwhile. What it
// was assigned elsewhere stays, as in Azure: object ids are never used again.
func (h *Handler) removeIdentity(ctx context.Context, id ID, _ string) error {
	return h.removeWithAssignments(ctx, id, func(ctx context.Context) error {
		_, err := h.o.Directory.DeleteIdentity(ctx, id.Key())
		return err
	})
}

// removeWithAssignments removes a resource and the role assignments at it and
// below it.
func (h *Handler) removeWithAssignments(ctx context.Context, id ID, remove func(context.Context) error) error {
	sub, _, err := h.subscriptionOf(ctx, id)
	if err != nil {
		return err
	}
	if err := h.o.RBAC.DeleteScope(ctx, sub.TenantID, id.Key()); err != nil {
		return err
	}
	if err := remove(ctx); err != nil {
		return err
	}
	return h.o.RBAC.DeleteScope(ctx, sub.TenantID, id.Key())
}

// writeDeleted answers a DELETE: 204 tells that there was nothing.
func writeDeleted(w http.ResponseWriter, existed bool) error {
	status := http.StatusOK
	if !existed {
		status = http.StatusNoContent
	}
	w.WriteHeader(status)
	return nil
}
