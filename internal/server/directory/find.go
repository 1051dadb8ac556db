package directory

import (
	"context"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// walkStep is how many records of all tenants a walk reads at a time.
const walkStep = 512

// walk visits the records of a table in order of key, from the first one
// after a key on, until visit returns false. It sees each step as it is then.
func walk[T any](ctx context.Context, t *store.Table[T], after string, visit func(*T) bool) error {
	for {
		es, err := t.Scan(ctx, "", after, walkStep)
		if err != nil {
			return err
		}
		for i := range es {
			if after = es[i].Key; es[i].Err == nil && !visit(&es[i].Value) {
				return nil
			}
		}
		if len(es) < walkStep {
			return nil
		}
	}
}

// WalkApplications visits a tenant's applications in order of object id, from
// the first one after an id on, until visit returns false.
func (d *Directory) WalkApplications(ctx context.Context, tenantID, after string, visit func(*Application) bool) error {
	tenantID = strings.ToLower(tenantID)
	return walk(ctx, d.applications, after, func(a *Application) bool { return a.TenantID != tenantID || visit(a) })
}

// WalkServicePrincipals is [Directory.WalkApplications] for service
// principals.
func (d *Directory) WalkServicePrincipals(ctx context.Context, tenantID, after string, visit func(*ServicePrincipal) bool) error {
	tenantID = strings.ToLower(tenantID)
	return walk(ctx, d.principals, after, func(p *ServicePrincipal) bool { return p.TenantID != tenantID || visit(p) })
}

// WalkUsers is [Directory.WalkApplications] for users.
func (d *Directory) WalkUsers(ctx context.Context, tenantID, after string, visit func(*User) bool) error {
	tenantID = strings.ToLower(tenantID)
	return walk(ctx, d.users, after, func(u *User) bool { return u.TenantID != tenantID || visit(u) })
}

// displayKey is the index value of a display name: names are compared without
// regard to case.
func displayKey(tenant, name string) string { return tenant + "/" + strings.ToLower(name) }

// ApplicationsNamed returns a tenant's applications with a display name, in
// any case.
func (d *Directory) ApplicationsNamed(ctx context.Context, tenantID, name string) ([]Application, error) {
	return d.applications.Find(ctx, "display", displayKey(strings.ToLower(tenantID), name))
}

// ApplicationsFor returns a tenant's applications, at most one, with an
// application id or an identifier URI, in any case.
func (d *Directory) ApplicationsFor(ctx context.Context, tenantID, idOrURI string) ([]Application, error) {
	return d.applications.Find(ctx, "resource", strings.ToLower(tenantID)+"/"+strings.ToLower(idOrURI))
}

// ApplicationsOwnedBy returns the applications that a principal owns.
func (d *Directory) ApplicationsOwnedBy(ctx context.Context, objectID string) ([]Application, error) {
	return d.applications.Find(ctx, "owner", strings.ToLower(objectID))
}

// ServicePrincipalsNamed is [Directory.ApplicationsNamed] for service
// principals.
func (d *Directory) ServicePrincipalsNamed(ctx context.Context, tenantID, name string) ([]ServicePrincipal, error) {
	return d.principals.Find(ctx, "display", displayKey(strings.ToLower(tenantID), name))
}

// ServicePrincipalsFor returns a tenant's service principals, at most one,
// with a name, in any case: an application id, an identifier URI of its
// application, or the URI of a managed identity.
func (d *Directory) ServicePrincipalsFor(ctx context.Context, tenantID, name string) ([]ServicePrincipal, error) {
	key := strings.ToLower(tenantID) + "/" + strings.ToLower(name)
	found, err := d.principals.Find(ctx, "client", key)
	if err != nil || len(found) > 0 {
		return found, err
	}
	apps, err := d.applications.Find(ctx, "resource", key)
	if err != nil || len(apps) == 0 {
		return nil, err
	}
	return d.principals.Find(ctx, "client", apps[0].TenantID+"/"+apps[0].AppID)
}

// ServicePrincipalsOwnedBy is [Directory.ApplicationsOwnedBy] for service
// principals.
func (d *Directory) ServicePrincipalsOwnedBy(ctx context.Context, objectID string) ([]ServicePrincipal, error) {
	return d.principals.Find(ctx, "owner", strings.ToLower(objectID))
}

// UsersNamed is [Directory.ApplicationsNamed] for users.
func (d *Directory) UsersNamed(ctx context.Context, tenantID, name string) ([]User, error) {
	return d.users.Find(ctx, "display", displayKey(strings.ToLower(tenantID), name))
}

// AddOwner makes a user or service principal of the same tenant an owner of
// an application or of the service principal of one. A second time is a fault
// of kind Invalid, as Graph words it.
func (d *Directory) AddOwner(ctx context.Context, objectID, owner string) error {
	id, ok := CanonicalID(owner)
	if !ok {
		return fault.BadRequest("BadRequest", "The owner '%s' is not a GUID.", clip(owner))
	}
	return d.editOwners(ctx, objectID, func(tx *store.Tx, tenant string, owners *[]string) error {
		u, isUser, err := d.users.Get(tx, id)
		if err != nil {
			return err
		}
		p, isPrincipal, err := d.principals.Get(tx, id)
		switch {
		case err != nil:
			return err
		case !(isUser && u.TenantID == tenant) && !(isPrincipal && p.TenantID == tenant):
			return fault.NotFound("Request_ResourceNotFound", "The principal '%s' does not exist.", id)
		case slices.Contains(*owners, id):
			return fault.BadRequest("BadRequest", "One or more added object references already exist for the following modified properties: 'owners'.")
		case len(*owners) >= maxEntries:
			return fault.BadRequest("BadRequest", "There are %d owners already.", maxEntries)
		}
		*owners = append(*owners, id)
		return nil
	})
}

// RemoveOwner takes an owner away.
func (d *Directory) RemoveOwner(ctx context.Context, objectID, owner string) (existed bool, err error) {
	err = d.editOwners(ctx, objectID, func(_ *store.Tx, _ string, owners *[]string) error {
		n := len(*owners)
		*owners = slices.DeleteFunc(*owners, func(o string) bool { return strings.EqualFold(o, owner) })
		existed = len(*owners) < n
		return nil
	})
	return existed, err
}

func (d *Directory) editOwners(ctx context.Context, objectID string, edit func(tx *store.Tx, tenant string, owners *[]string) error) error {
	_, err := d.editApplication(ctx, objectID, func(tx *store.Tx, a *Application) error {
		return edit(tx, a.TenantID, &a.Owners)
	})
	if !fault.Is(err, fault.Missing) {
		return err
	}
	if _, found, ferr := d.Application(ctx, objectID); ferr != nil || found {
		return err // it is the owner that is missing
	}
	_, err = d.editPrincipal(ctx, objectID, func(tx *store.Tx, p *ServicePrincipal) error {
		if p.Kind == KindManagedIdentity {
			return ofIdentity(p)
		}
		return edit(tx, p.TenantID, &p.Owners)
	})
	return err
}
