package directory

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// Application is an application registration: a client, a resource that
// tokens are issued for, or both. It has its own object id; the principal
// that holds permissions is its [ServicePrincipal].
type Application struct {
	ObjectID       string              `json:"objectId"` // GUID
	AppID          string              `json:"appId"`    // GUID: the client id
	TenantID       string              `json:"tenantId"`
	DisplayName    string              `json:"displayName"`
	Enabled        bool                `json:"enabled"`                // a new application is always enabled
	PublicClient   bool                `json:"publicClient,omitempty"` // cannot keep a secret, so may not present one
	IdentifierURIs []string            `json:"identifierUris"`         // names of the resource, unique in the tenant whatever their case
	TokenVersion   int                 `json:"tokenVersion"`           // 1 or 2: shape of tokens issued for it as a resource; 0 means 1
	Secrets        []ClientSecret      `json:"secrets,omitempty"`      // without their hashes
	Certificates   []ClientCertificate `json:"certificates,omitempty"`
	Created        time.Time           `json:"created"`
	Updated        time.Time           `json:"updated"`
}

// Kinds of service principal.
const (
	KindApplication     = "Application"
	KindManagedIdentity = "ManagedIdentity"
)

// ServicePrincipal is what an application or a managed identity is when it
// acts in its tenant: the holder of role assignments.
type ServicePrincipal struct {
	ObjectID    string    `json:"objectId"` // GUID: the oid of its tokens
	AppID       string    `json:"appId"`
	TenantID    string    `json:"tenantId"`
	DisplayName string    `json:"displayName"`
	Enabled     bool      `json:"enabled"`              // a new one is always enabled
	Kind        string    `json:"kind"`                 // KindApplication or KindManagedIdentity
	ResourceID  string    `json:"resourceId,omitempty"` // ARM id of the managed identity, in display case
	Created     time.Time `json:"created"`
}

// maxIdentifierURI is the longest identifier URI, in bytes.
const maxIdentifierURI = 255

// CreateApplication registers an application. Empty ids are chosen; Enabled,
// Secrets and Certificates of the argument are ignored, see [Directory.AddSecret].
// It has no service principal yet, see [Directory.CreateServicePrincipal].
// A taken id or identifier URI is a fault of kind Clash.
func (d *Directory) CreateApplication(ctx context.Context, a Application) (Application, error) {
	var err error
	chosen := a.AppID != "" || a.ObjectID != ""
	if a.ObjectID, err = d.giveID("object id", a.ObjectID); err != nil {
		return Application{}, err
	}
	if a.AppID, err = d.giveID("application id", a.AppID); err != nil {
		return Application{}, err
	}
	a.Enabled, a.Secrets, a.Certificates = true, nil, nil
	a.Created = d.now().UTC()
	a.Updated = a.Created
	if err := a.normalise(); err != nil {
		return Application{}, err
	}
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if err := d.mustHaveTenant(tx, &a.TenantID); err != nil {
			return err
		}
		if chosen {
			if err := d.mustBeFree(tx, a.ObjectID); err != nil {
				return err
			}
			if err := d.mustBeFreeClient(tx, a.TenantID, a.AppID); err != nil {
				return err
			}
		}
		if err := d.mustBeFreeURIs(tx, &a); err != nil {
			return err
		}
		return d.applications.Put(tx, a.ObjectID, a)
	})
	if err != nil {
		return Application{}, err
	}
	return a, nil
}

// Application finds an application by object id.
func (d *Directory) Application(ctx context.Context, objectID string) (Application, bool, error) {
	id, ok := CanonicalID(objectID)
	if !ok {
		return Application{}, false, nil
	}
	return d.applications.Load(ctx, id)
}

// Applications lists a tenant's applications, in order of object id.
func (d *Directory) Applications(ctx context.Context, tenantID string) ([]Application, error) {
	all, err := values(d.applications.Scan(ctx, "", "", 0))
	return slices.DeleteFunc(all, func(a Application) bool { return a.TenantID != strings.ToLower(tenantID) }), err
}

// UpdateApplication lets change edit an application: its name, flags,
// identifier URIs and token version. Ids, tenant and credentials stay what
// they are. change may run several times.
func (d *Directory) UpdateApplication(ctx context.Context, objectID string, change func(*Application) error) (Application, error) {
	return d.editApplication(ctx, objectID, func(_ *store.Tx, a *Application) error {
		was := *a
		was.Certificates, was.Secrets = slices.Clone(a.Certificates), slices.Clone(a.Secrets)
		if err := change(a); err != nil {
			return err
		}
		a.ObjectID, a.AppID, a.TenantID, a.Created = was.ObjectID, was.AppID, was.TenantID, was.Created
		a.Secrets, a.Certificates = was.Secrets, was.Certificates
		return a.normalise()
	})
}

// editApplication changes one application in a transaction.
func (d *Directory) editApplication(ctx context.Context, objectID string, edit func(*store.Tx, *Application) error) (Application, error) {
	id, _ := CanonicalID(objectID)
	var out Application
	err := d.s.Update(ctx, func(tx *store.Tx) error {
		a, ok, err := d.applications.Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fault.NotFound("Request_ResourceNotFound", "The application '%s' does not exist.", clip(objectID))
		}
		before := slices.Clone(a.IdentifierURIs)
		if err := edit(tx, &a); err != nil {
			return err
		}
		if !slices.Equal(before, a.IdentifierURIs) {
			if err := d.mustBeFreeURIs(tx, &a); err != nil {
				return err
			}
		}
		a.Updated = d.now().UTC()
		out = a
		return d.applications.Put(tx, id, a)
	})
	if err != nil {
		return Application{}, err
	}
	return out, nil
}

// DeleteApplication removes an application, its service principal and all its
// credentials in one transaction.
func (d *Directory) DeleteApplication(ctx context.Context, objectID string) (existed bool, err error) {
	id, _ := CanonicalID(objectID)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		a, ok, err := d.applications.Get(tx, id)
		if existed = ok; err != nil || !ok {
			return err
		}
		sps, err := d.principals.By(tx, "client", a.TenantID+"/"+a.AppID)
		if err != nil {
			return err
		}
		for _, sp := range sps {
			d.principals.Delete(tx, sp.Key)
		}
		d.applications.Delete(tx, id)
		d.federated.DeletePrefix(tx, id+"/")
		d.hashes.DeletePrefix(tx, id+"/")
		return nil
	})
	return existed, err
}

// CreateServicePrincipal makes the principal of an application of the same
// tenant; an empty object id is chosen, the name is the application's if
// empty. A second one is a fault of kind Clash, an unknown application one of
// kind Missing.
func (d *Directory) CreateServicePrincipal(ctx context.Context, p ServicePrincipal) (ServicePrincipal, error) {
	id, err := d.giveID("object id", p.ObjectID)
	if err != nil {
		return ServicePrincipal{}, err
	}
	chosen := p.ObjectID != ""
	p.ObjectID, p.Kind, p.ResourceID, p.Enabled, p.Created = id, KindApplication, "", true, d.now().UTC()
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		key := strings.ToLower(p.TenantID + "/" + p.AppID)
		apps, err := d.applications.By(tx, "client", key)
		if err != nil {
			return err
		}
		if len(apps) == 0 {
			return fault.NotFound("Request_ResourceNotFound", "The application '%s' does not exist.", clip(p.AppID))
		}
		a, ok, err := d.applications.Get(tx, apps[0].Key) // so that the application cannot go meanwhile
		if err != nil || !ok {
			return err
		}
		p.AppID, p.TenantID = a.AppID, a.TenantID
		if p.DisplayName == "" {
			p.DisplayName = a.DisplayName
		}
		sps, err := d.principals.By(tx, "client", key)
		if err != nil {
			return err
		}
		if len(sps) > 0 {
			return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The application '%s' has a service principal already.", p.AppID)
		}
		if chosen {
			if err := d.mustBeFree(tx, p.ObjectID); err != nil {
				return err
			}
		}
		return d.principals.Put(tx, p.ObjectID, p)
	})
	if err != nil {
		return ServicePrincipal{}, err
	}
	return p, nil
}

// ServicePrincipal finds a service principal by object id.
func (d *Directory) ServicePrincipal(ctx context.Context, objectID string) (ServicePrincipal, bool, error) {
	id, ok := CanonicalID(objectID)
	if !ok {
		return ServicePrincipal{}, false, nil
	}
	return d.principals.Load(ctx, id)
}

// ServicePrincipals lists a tenant's service principals, in order of object id.
func (d *Directory) ServicePrincipals(ctx context.Context, tenantID string) ([]ServicePrincipal, error) {
	return d.principals.Find(ctx, "tenant", strings.ToLower(tenantID))
}

// EnableServicePrincipal switches a service principal on or off; one that is
// off gets no tokens.
func (d *Directory) EnableServicePrincipal(ctx context.Context, objectID string, on bool) error {
	id, _ := CanonicalID(objectID)
	return d.s.Update(ctx, func(tx *store.Tx) error {
		p, ok, err := d.principals.Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fault.NotFound("Request_ResourceNotFound", "The service principal '%s' does not exist.", clip(objectID))
		}
		p.Enabled = on
		return d.principals.Put(tx, id, p)
	})
}

// normalise checks what a caller may choose and brings it into stored form.
func (a *Application) normalise() error {
	switch a.TokenVersion {
	case 0:
		a.TokenVersion = 1
	case 1, 2:
	default:
		return fault.BadRequest("BadRequest", "The token version %d is neither 1 nor 2.", a.TokenVersion)
	}
	seen := map[string]bool{}
	for _, uri := range a.IdentifierURIs {
		scheme, rest, ok := strings.Cut(uri, ":")
		if !ok || scheme == "" || rest == "" || len(uri) > maxIdentifierURI || !printableASCII(uri) {
			return fault.BadRequest("BadRequest", "The identifier URI '%s' is not an absolute URI of at most %d characters.", clip(uri), maxIdentifierURI)
		}
		if seen[strings.ToLower(uri)] {
			return fault.BadRequest("BadRequest", "The identifier URI '%s' is listed twice.", clip(uri))
		}
		seen[strings.ToLower(uri)] = true
	}
	return nil
}

// resourceKeys are the names under which a token for the application may be
// asked for.
func resourceKeys(a *Application) []string {
	keys := []string{a.TenantID + "/" + a.AppID}
	for _, uri := range a.IdentifierURIs {
		keys = append(keys, a.TenantID+"/"+strings.ToLower(uri))
	}
	return keys
}

// mustHaveTenant makes sure that the tenant exists when the transaction
// commits, and canonicalises its id.
func (d *Directory) mustHaveTenant(tx *store.Tx, id *string) error {
	c, _ := CanonicalID(*id)
	_, ok, err := d.tenants.Get(tx, c)
	if err != nil {
		return err
	}
	if !ok {
		return fault.BadRequest("TenantNotFound", "The tenant '%s' does not exist.", clip(*id))
	}
	*id = c
	return nil
}

// mustBeFree refuses an object id that a caller chose and that is in use.
func (d *Directory) mustBeFree(tx *store.Tx, objectID string) error {
	_, a, err := d.applications.Get(tx, objectID)
	if err != nil {
		return err
	}
	_, p, err := d.principals.Get(tx, objectID)
	if err != nil {
		return err
	}
	_, u, err := d.users.Get(tx, objectID)
	if err != nil {
		return err
	}
	if a || p || u {
		return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The object id '%s' is in use.", objectID)
	}
	return nil
}

// mustBeFreeClient refuses a client id that a caller chose and that is in use
// in the tenant, be it by an application or by a managed identity.
func (d *Directory) mustBeFreeClient(tx *store.Tx, tenantID, appID string) error {
	apps, err := d.applications.By(tx, "client", tenantID+"/"+appID)
	if err != nil {
		return err
	}
	ids, err := d.identities.By(tx, "client", tenantID+"/"+appID)
	if err != nil {
		return err
	}
	if len(apps)+len(ids) > 0 {
		return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The application id '%s' is in use.", appID)
	}
	return nil
}

// mustBeFreeURIs refuses identifier URIs of another application of the tenant.
func (d *Directory) mustBeFreeURIs(tx *store.Tx, a *Application) error {
	for _, uri := range a.IdentifierURIs {
		taken, err := d.applications.By(tx, "resource", a.TenantID+"/"+strings.ToLower(uri))
		if err != nil {
			return err
		}
		for _, e := range taken {
			if e.Key != a.ObjectID {
				return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The identifier URI '%s' is in use by another application.", clip(uri))
			}
		}
	}
	return nil
}

// printableASCII reports whether s has only characters that a URI may have.
func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
