package directory

import (
	"context"
	"slices"
	"strings"
)

// Client is what the token service needs to know of an application or managed
// identity that asks for a token. It holds no secret: see
// [Directory.VerifySecret] and [Directory.MatchFederated].
type Client struct {
	Owner              string // what its credentials belong to: the application's object id, or the identity's principal id
	TenantID           string
	AppID              string
	DisplayName        string
	Kind               string // KindApplication or KindManagedIdentity
	Enabled            bool   // the application and its service principal are
	PublicClient       bool
	ServicePrincipalID string // oid of its tokens; empty if the tenant has no service principal for it
	ResourceID         string // ARM id of a managed identity, in display case
	Secrets            []ClientSecret
	Certificates       []ClientCertificate
	Redirects          Redirects // of an application; the lists are shared and must not be changed
}

// Client finds a client of a tenant by its client id, both in any case.
func (d *Directory) Client(ctx context.Context, tenantID, clientID string) (Client, bool, error) {
	key := strings.ToLower(tenantID) + "/" + strings.ToLower(clientID)
	ids, err := d.identities.Find(ctx, "client", key)
	if err != nil {
		return Client{}, false, err
	}
	if len(ids) > 0 {
		m := &ids[0]
		c := Client{
			Owner: m.PrincipalID, TenantID: m.TenantID, AppID: m.ClientID, DisplayName: m.Name,
			Kind: KindManagedIdentity, ResourceID: m.ResourceID,
		}
		sp, ok, err := d.principals.Load(ctx, m.PrincipalID)
		if ok {
			c.ServicePrincipalID, c.Enabled = sp.ObjectID, sp.Enabled
		}
		return c, err == nil, err
	}
	apps, err := d.applications.Find(ctx, "client", key)
	if err != nil || len(apps) == 0 {
		return Client{}, false, err
	}
	a := &apps[0]
	c := Client{
		Owner: a.ObjectID, TenantID: a.TenantID, AppID: a.AppID, DisplayName: a.DisplayName,
		Kind: KindApplication, Enabled: a.Enabled, PublicClient: a.PublicClient,
		Secrets: a.Secrets, Certificates: a.Certificates, Redirects: a.Redirects,
	}
	sps, err := d.principals.Find(ctx, "client", key)
	if err != nil {
		return Client{}, false, err
	}
	if len(sps) > 0 {
		sp := &sps[0]
		c.ServicePrincipalID, c.Enabled = sp.ObjectID, c.Enabled && sp.Enabled
		if len(sp.Secrets)+len(sp.Certificates) > 0 { // the records are shared: never append to their lists
			c.Secrets, c.Certificates = slices.Concat(c.Secrets, sp.Secrets), slices.Concat(c.Certificates, sp.Certificates)
		}
	}
	return c, true, nil
}

// Resource is an application of a tenant as the target of tokens.
type Resource struct {
	AppID        string
	DisplayName  string
	TokenVersion int // 1 or 2
	Enabled      bool
}

// Resource finds an application of a tenant by its application id or one of
// its identifier URIs, in any case.
func (d *Directory) Resource(ctx context.Context, tenantID, idOrURI string) (Resource, bool, error) {
	apps, err := d.applications.Find(ctx, "resource", strings.ToLower(tenantID)+"/"+strings.ToLower(idOrURI))
	if err != nil || len(apps) == 0 {
		return Resource{}, false, err
	}
	a := &apps[0]
	return Resource{AppID: a.AppID, DisplayName: a.DisplayName, TokenVersion: a.TokenVersion, Enabled: a.Enabled}, true, nil
}

// Principal is a service principal or a user as the holder of permissions.
type Principal struct {
	ObjectID    string
	Kind        string // ServicePrincipal or User, as role assignments spell them
	TenantID    string
	DisplayName string
	AppID       string // empty for users
	Enabled     bool   // its own account is; whether an application is as well, see [Client]
}

// Kinds of [Principal].
const (
	PrincipalService = "ServicePrincipal"
	PrincipalUser    = "User"
)

// Principal finds a service principal or a user by object id.
func (d *Directory) Principal(ctx context.Context, objectID string) (Principal, bool, error) {
	id, ok := CanonicalID(objectID)
	if !ok {
		return Principal{}, false, nil
	}
	sp, ok, err := d.principals.Load(ctx, id)
	if err != nil {
		return Principal{}, false, err
	}
	if ok {
		return Principal{ObjectID: id, Kind: PrincipalService, TenantID: sp.TenantID, DisplayName: sp.DisplayName, AppID: sp.AppID, Enabled: sp.Enabled}, true, nil
	}
	u, ok, err := d.users.Load(ctx, id)
	if err != nil || !ok {
		return Principal{}, false, err
	}
	return Principal{ObjectID: id, Kind: PrincipalUser, TenantID: u.TenantID, DisplayName: u.DisplayName, Enabled: u.Enabled}, true, nil
}
