package directory

import (
	"context"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// ManagedIdentity is a user-assigned managed identity.
type ManagedIdentity struct {
	ResourceID     string            `json:"resourceId"` // ARM id in display case; found in any case
	Name           string            `json:"name"`
	SubscriptionID string            `json:"subscriptionId"`
	ResourceGroup  string            `json:"resourceGroup"`
	Location       string            `json:"location"` // as stored at creation; does not change
	Tags           map[string]string `json:"tags,omitempty"`
	TenantID       string            `json:"tenantId"`
	ClientID       string            `json:"clientId"`    // GUID
	PrincipalID    string            `json:"principalId"` // GUID: object id of its service principal, owner of its credentials
	Created        time.Time         `json:"created"`
	Updated        time.Time         `json:"updated"`
}

// PutIdentity creates an identity and its service principal, or updates the
// tags of an existing one: everything else stays as it was created. Empty
// ClientID and PrincipalID are chosen. Another location for an existing
// identity is a fault of kind Clash, as is a taken id.
func (d *Directory) PutIdentity(ctx context.Context, m ManagedIdentity) (_ ManagedIdentity, created bool, err error) {
	if !strings.HasPrefix(m.ResourceID, "/") || m.Name == "" {
		return ManagedIdentity{}, false, fault.BadRequest("BadRequest", "The identity has no resource id or no name.")
	}
	chosen := m.ClientID != "" || m.PrincipalID != ""
	fresh := m
	if fresh.ClientID, err = d.giveID("client id", m.ClientID); err != nil {
		return ManagedIdentity{}, false, err
	}
	if fresh.PrincipalID, err = d.giveID("principal id", m.PrincipalID); err != nil {
		return ManagedIdentity{}, false, err
	}
	fresh.Created = d.now().UTC()
	fresh.Updated = fresh.Created
	key := strings.ToLower(m.ResourceID)
	var out ManagedIdentity
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		old, ok, err := d.identities.Get(tx, key)
		if err != nil {
			return err
		}
		if created = !ok; ok {
			if !strings.EqualFold(old.Location, m.Location) {
				return fault.Conflict("InvalidResourceLocation", "The resource '%s' already exists in location '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.", old.Name, old.Location, clip(m.Location))
			}
			out = old
			out.Tags, out.Updated = m.Tags, fresh.Updated
			return d.identities.Put(tx, key, out)
		}
		out = fresh
		if err := d.mustHaveTenant(tx, &out.TenantID); err != nil {
			return err
		}
		if chosen {
			if err := d.mustBeFree(tx, out.PrincipalID); err != nil {
				return err
			}
			if err := d.mustBeFreeClient(tx, out.TenantID, out.ClientID); err != nil {
				return err
			}
		}
		err = d.principals.Put(tx, out.PrincipalID, ServicePrincipal{
			ObjectID: out.PrincipalID, AppID: out.ClientID, TenantID: out.TenantID, DisplayName: out.Name,
			Enabled: true, Kind: KindManagedIdentity, ResourceID: out.ResourceID, Created: out.Created,
		})
		if err != nil {
			return err
		}
		return d.identities.Put(tx, key, out)
	})
	if err != nil {
		return ManagedIdentity{}, false, err
	}
	return out, created, nil
}

// Identity finds a managed identity by its ARM id, in any case.
func (d *Directory) Identity(ctx context.Context, resourceID string) (ManagedIdentity, bool, error) {
	return d.identities.Load(ctx, strings.ToLower(resourceID))
}

// Identities lists the managed identities below a subscription or resource
// group, given by its ARM id in any case, in order of their ids. "" lists all.
func (d *Directory) Identities(ctx context.Context, prefix string) ([]ManagedIdentity, error) {
	prefix = strings.TrimSuffix(strings.ToLower(prefix), "/")
	if prefix != "" {
		prefix += "/"
	}
	return values(d.identities.Scan(ctx, prefix, "", 0))
}

// DeleteIdentity removes an identity, its service principal and its federated
// credentials in one transaction: no moment has one without the others.
func (d *Directory) DeleteIdentity(ctx context.Context, resourceID string) (existed bool, err error) {
	key := strings.ToLower(resourceID)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		m, ok, err := d.identities.Get(tx, key)
		if existed = ok; err != nil || !ok {
			return err
		}
		d.identities.Delete(tx, key)
		d.principals.Delete(tx, m.PrincipalID)
		d.federated.DeletePrefix(tx, m.PrincipalID+"/")
		return nil
	})
	return existed, err
}
