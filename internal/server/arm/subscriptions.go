package arm

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/web"
)

// Types of the first chain, see [ID.Type].
const (
	typeSubscription = "/subscriptions"
	typeGroup        = "/subscriptions/resourceGroups"
)

// Subscription is what resource groups belong to.
type Subscription struct {
	ID          string    `json:"id"`       // GUID, lower case
	TenantID    string    `json:"tenantId"` // whose principals may have roles in it
	DisplayName string    `json:"displayName"`
	Created     time.Time `json:"created"`
}

// EnsureSubscription creates a subscription of an existing tenant, or gives
// the existing one the name. A subscription never changes its tenant: that is
// a fault of kind Clash.
func (h *Handler) EnsureSubscription(ctx context.Context, id, tenant, name string) (created bool, err error) {
	sid, ok := directory.CanonicalID(id)
	if !ok {
		return false, fault.BadRequest("InvalidSubscriptionId", "The subscription id '%s' is not a GUID.", clip(id))
	}
	t, ok, err := h.o.Directory.Tenant(ctx, tenant)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, fault.NotFound("TenantNotFound", "The tenant '%s' does not exist.", clip(tenant))
	}
	if name == "" || len(name) > 256 {
		return false, fault.BadRequest("InvalidSubscriptionName", "The name of a subscription must have 1 to 256 characters.")
	}
	err = h.s.Update(ctx, func(tx *store.Tx) error {
		sub, ok, err := h.subscriptions.Get(tx, sid)
		if err != nil {
			return err
		}
		switch created = !ok; {
		case created:
			sub = Subscription{ID: sid, TenantID: t.ID, DisplayName: name, Created: h.o.Now().UTC()}
		case sub.TenantID != t.ID:
			return fault.Conflict("SubscriptionExists", "The subscription '%s' belongs to another tenant.", sid)
		case sub.DisplayName == name:
			return nil
		default:
			sub.DisplayName = name
		}
		return h.subscriptions.Put(tx, sid, sub)
	})
	return created, err
}

// Subscriptions lists the subscriptions of a tenant, in order of id.
func (h *Handler) Subscriptions(ctx context.Context, tenantID string) ([]Subscription, error) {
	return h.subscriptions.Find(ctx, "tenant", strings.ToLower(tenantID))
}

// subscriptionOf returns the subscription that an id lies in, if there is one.
func (h *Handler) subscriptionOf(ctx context.Context, id ID) (Subscription, bool, error) {
	sid := id.Subscription()
	if sid == "" {
		return Subscription{}, false, nil
	}
	return h.subscriptions.Load(ctx, sid)
}

type wireSubscription struct {
	ID                   string         `json:"id"`
	AuthorizationSource  string         `json:"authorizationSource"`
	ManagedByTenants     []struct{}     `json:"managedByTenants"`
	SubscriptionID       string         `json:"subscriptionId"`
	TenantID             string         `json:"tenantId"`
	DisplayName          string         `json:"displayName"`
	State                string         `json:"state"`
	SubscriptionPolicies map[string]any `json:"subscriptionPolicies"`
}

func (s *Subscription) wire() wireSubscription {
	return wireSubscription{
		ID: "/subscriptions/" + s.ID, AuthorizationSource: "RoleBased", ManagedByTenants: []struct{}{},
		SubscriptionID: s.ID, TenantID: s.TenantID, DisplayName: s.DisplayName, State: "Enabled",
		SubscriptionPolicies: map[string]any{"locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
	}
}

func (h *Handler) registerSubscriptions() {
	h.Register(ResourceType{
		Name: typeSubscription, Versions: versionsResources,
		Find: func(ctx context.Context, _ string, id ID) (string, bool, error) {
			sub, ok, err := h.subscriptionOf(ctx, id)
			return "/subscriptions/" + sub.ID, ok, err
		},
		Routes: []Route{
			{Method: "GET", Collection: true, Handle: h.listSubscriptions},
			{Method: "GET", Action: "Microsoft.Resources/subscriptions/read", Visible: true, Handle: h.getSubscription},
		},
	})
	h.Register(ResourceType{Name: "/tenants", Versions: versionsResources, Routes: []Route{
		{Method: "GET", Collection: true, Handle: h.listTenants},
	}})
	h.Register(ResourceType{Name: "/subscriptions/locations", Versions: versionsResources, Routes: []Route{
		{Method: "GET", Collection: true, Action: "Microsoft.Resources/subscriptions/locations/read", Visible: true, Handle: h.listLocations},
	}})
}

// listSubscriptions shows the subscriptions of the caller's tenant in which
// the caller holds a role, at any scope.
func (h *Handler) listSubscriptions(w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	subs, err := h.Subscriptions(ctx, q.Principal.TenantID)
	if err != nil {
		return err
	}
	visible := subs[:0:0]
	for _, s := range subs {
		ok, err := q.holdsRoleBelow(ctx, mustParse("/subscriptions/"+s.ID))
		if err != nil {
			return err
		}
		if ok {
			visible = append(visible, s)
		}
	}
	return writePage(w, q, visible, func(s *Subscription) string { return s.ID }, func(s *Subscription) wireSubscription { return s.wire() })
}

func (h *Handler) getSubscription(w http.ResponseWriter, r *http.Request, q *Request) error {
	sub, ok, err := h.subscriptionOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return web.WriteJSON(w, http.StatusOK, sub.wire())
}

type wireTenant struct {
	ID             string   `json:"id"`
	TenantID       string   `json:"tenantId"`
	DisplayName    string   `json:"displayName"`
	DefaultDomain  string   `json:"defaultDomain,omitempty"`
	Domains        []string `json:"domains"`
	TenantCategory string   `json:"tenantCategory"`
	TenantType     string   `json:"tenantType"`
	CountryCode    string   `json:"countryCode,omitempty"`
}

// listTenants shows the caller's own tenant: a token is of one tenant, and a
// principal exists in one.
func (h *Handler) listTenants(w http.ResponseWriter, r *http.Request, q *Request) error {
	list := []wireTenant{}
	t, ok, err := h.o.Directory.Tenant(r.Context(), q.Principal.TenantID)
	if err != nil {
		return err
	}
	if ok {
		wt := wireTenant{ID: "/tenants/" + t.ID, TenantID: t.ID, DisplayName: t.DisplayName, Domains: t.Domains, TenantCategory: "Home", TenantType: "AAD"}
		if len(t.Domains) > 0 {
			wt.DefaultDomain = t.Domains[0]
		}
		list = append(list, wt)
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
}

// mustParse parses an id that we built ourselves.
func mustParse(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic("arm: " + err.Error())
	}
	return id
}

// holdsRoleBelow tells whether the caller holds any role at an id, below it
// or above it. Whom the directory has no more, or has disabled, holds none:
// a token and role assignments outlive their principal.
func (q *Request) holdsRoleBelow(ctx context.Context, id ID) (bool, error) {
	p, d := &q.Principal, q.h.o.Directory
	sp, known, err := d.ServicePrincipal(ctx, p.ObjectID)
	if err != nil {
		return false, err
	}
	known = known && sp.Enabled && sp.TenantID == q.TenantID
	if !known {
		u, ok, err := d.User(ctx, q.TenantID, p.ObjectID)
		if err != nil || !ok || !u.Enabled || !strings.EqualFold(u.ObjectID, p.ObjectID) {
			return false, err
		}
	}
	found, err := q.h.assignmentsOf(ctx, q.TenantID, id, append([]string{p.ObjectID}, p.Groups...))
	return len(found) > 0, err
}

func sortByKey[T any](items []T, key func(*T) string) {
	slices.SortFunc(items, func(a, b T) int { return cmp.Compare(key(&a), key(&b)) })
}
