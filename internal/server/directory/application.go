package directory

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	Owners         []string            `json:"owners,omitempty"` // object ids of users and service principals that may change it; see AddOwner
	Redirects      Redirects           `json:"redirects"`
	Note           Note                `json:"note"`
	Created        time.Time           `json:"created"`
	Updated        time.Time           `json:"updated"`
}

// Redirects are the addresses that an application may have people sent back
// to after sign-in, by the kind of program that listens there.
type Redirects struct {
	Web    []string `json:"web,omitempty"`
	SPA    []string `json:"spa,omitempty"` // programs in a browser
	Public []string `json:"public,omitempty"`
}

// Any reports whether there is one, of whatever kind.
func (r *Redirects) Any() bool { return len(r.Web)+len(r.SPA)+len(r.Public) > 0 }

// Note is what people write about an application or service principal;
// nothing here reads it.
type Note struct {
	Description string   `json:"description,omitempty"`
	Notes       string   `json:"notes,omitempty"`
	Reference   string   `json:"reference,omitempty"` // into another system: Graph's serviceManagementReference
	HomePage    string   `json:"homePage,omitempty"`
	Tags        []string `json:"tags,omitempty"`
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

	// Credentials of its own, besides its application's; a managed identity
	// has none.
	Secrets      []ClientSecret      `json:"secrets,omitempty"` // without their hashes
	Certificates []ClientCertificate `json:"certificates,omitempty"`

	Owners []string `json:"owners,omitempty"` // as Application.Owners
	Note   Note     `json:"note"`
}

// Limits of applications and service principals: bytes of an identifier URI,
// characters of a name and of a note, entries of a list.
const (
	maxIdentifierURI = 255
	maxName          = 256
	maxNote          = 1024
	maxEntries       = 100
)

// CreateApplication registers an application with its certificates. Empty ids
// are chosen; Enabled, Secrets and Certificates of the argument are ignored,
// see [Directory.AddSecret]. It has no service principal yet, see
// [Directory.CreateServicePrincipal]. A taken id or identifier URI is a fault
// of kind Clash.
func (d *Directory) CreateApplication(ctx context.Context, a Application, certs ...NewCertificate) (Application, error) {
	var err error
	chosen := a.AppID != "" || a.ObjectID != ""
	if a.ObjectID, err = d.giveID("object id", a.ObjectID); err != nil {
		return Application{}, err
	}
	if a.AppID, err = d.giveID("application id", a.AppID); err != nil {
		return Application{}, err
	}
	a.Enabled, a.Secrets = true, nil
	if a.Certificates, err = d.certificates(nil, certs); err != nil {
		return Application{}, err
	}
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
func (d *Directory) Applications(ctx context.Context, tenantID string) (all []Application, err error) {
	err = d.WalkApplications(ctx, tenantID, "", func(a *Application) bool { all = append(all, *a); return true })
	return all, err
}

// UpdateApplication lets change edit an application: its name, which its
// service principal takes over, flags, addresses, notes and token version.
// Ids, tenant, owners and credentials stay what they are. change may run
// several times.
func (d *Directory) UpdateApplication(ctx context.Context, objectID string, change func(*Application) error) (Application, error) {
	return d.editApplication(ctx, objectID, func(tx *store.Tx, a *Application) error {
		was := *a
		was.Certificates, was.Secrets, was.Owners = slices.Clone(a.Certificates), slices.Clone(a.Secrets), slices.Clone(a.Owners)
		if err := change(a); err != nil {
			return err
		}
		a.ObjectID, a.AppID, a.TenantID, a.Created = was.ObjectID, was.AppID, was.TenantID, was.Created
		a.Secrets, a.Certificates, a.Owners = was.Secrets, was.Certificates, was.Owners
		if err := a.normalise(); err != nil || a.DisplayName == was.DisplayName {
			return err
		}
		sps, err := d.principals.By(tx, "client", a.TenantID+"/"+a.AppID)
		if err != nil {
			return err
		}
		for _, sp := range sps {
			if sp.Err != nil {
				return sp.Err
			}
			sp.Value.DisplayName = a.DisplayName
			if err := d.principals.Put(tx, sp.Key, sp.Value); err != nil {
				return err
			}
		}
		return nil
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
			d.hashes.DeletePrefix(tx, sp.Key+"/")
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
	p.Secrets, p.Certificates = nil, nil
	if err := p.normalise(); err != nil {
		return ServicePrincipal{}, err
	}
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
func (d *Directory) ServicePrincipals(ctx context.Context, tenantID string) (all []ServicePrincipal, err error) {
	err = d.WalkServicePrincipals(ctx, tenantID, "", func(p *ServicePrincipal) bool { all = append(all, *p); return true })
	return all, err
}

// EnableServicePrincipal switches a service principal on or off; one that is
// off gets no tokens.
func (d *Directory) EnableServicePrincipal(ctx context.Context, objectID string, on bool) error {
	_, err := d.editPrincipal(ctx, objectID, func(_ *store.Tx, p *ServicePrincipal) error {
		p.Enabled = on
		return nil
	})
	return err
}

// UpdateServicePrincipal lets change edit the principal of an application:
// whether it is enabled, and its note. All else stays what it is. That of a
// managed identity is changed by the identity alone: a fault of kind
// Forbidden. change may run several times.
func (d *Directory) UpdateServicePrincipal(ctx context.Context, objectID string, change func(*ServicePrincipal) error) (ServicePrincipal, error) {
	return d.editPrincipal(ctx, objectID, func(_ *store.Tx, p *ServicePrincipal) error {
		if p.Kind == KindManagedIdentity {
			return ofIdentity(p)
		}
		edited := *p
		if err := change(&edited); err != nil {
			return err
		}
		p.Enabled, p.Note = edited.Enabled, edited.Note
		return p.normalise()
	})
}

// DeleteServicePrincipal removes the principal of an application and its own
// credentials; the application stays, and can get another one. That of a
// managed identity goes with the identity alone: a fault of kind Forbidden.
func (d *Directory) DeleteServicePrincipal(ctx context.Context, objectID string) (existed bool, err error) {
	id, _ := CanonicalID(objectID)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		p, ok, err := d.principals.Get(tx, id)
		if existed = ok; err != nil || !ok {
			return err
		}
		if p.Kind == KindManagedIdentity {
			return ofIdentity(&p)
		}
		d.principals.Delete(tx, id)
		d.hashes.DeletePrefix(tx, id+"/")
		return nil
	})
	return existed, err
}

func ofIdentity(p *ServicePrincipal) error {
	return fault.New(fault.Forbidden, "Authorization_RequestDenied", "The service principal '%s' belongs to a managed identity: only the identity can be changed or deleted.", p.ObjectID)
}

// editPrincipal changes one service principal in a transaction.
func (d *Directory) editPrincipal(ctx context.Context, objectID string, edit func(*store.Tx, *ServicePrincipal) error) (ServicePrincipal, error) {
	id, _ := CanonicalID(objectID)
	var out ServicePrincipal
	err := d.s.Update(ctx, func(tx *store.Tx) error {
		p, ok, err := d.principals.Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fault.NotFound("Request_ResourceNotFound", "The service principal '%s' does not exist.", clip(objectID))
		}
		if err := edit(tx, &p); err != nil {
			return err
		}
		out = p
		return d.principals.Put(tx, id, p)
	})
	if err != nil {
		return ServicePrincipal{}, err
	}
	return out, nil
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
	if len(a.IdentifierURIs) > maxEntries {
		return fault.BadRequest("BadRequest", "An application has at most %d identifier URIs.", maxEntries)
	}
	kindOf := map[string]int{}
	for kind, list := range [][]string{a.Redirects.Web, a.Redirects.SPA, a.Redirects.Public} {
		if err := checkRedirects(list); err != nil {
			return err
		}
		for _, uri := range list {
			if was, ok := kindOf[uri]; ok && was != kind { // whether a secret is due there would be anybody's guess
				return fault.BadRequest("BadRequest", "The redirect URI '%s' is listed as two kinds.", clip(uri))
			}
			kindOf[uri] = kind
		}
	}
	return errors.Join(checkText("name", a.DisplayName, maxName), a.Note.check())
}

// normalise checks what a caller may choose.
func (p *ServicePrincipal) normalise() error {
	return errors.Join(checkText("name", p.DisplayName, maxName), p.Note.check())
}

func (n *Note) check() error {
	if len(n.Tags) > maxEntries {
		return fault.BadRequest("BadRequest", "There are more than %d tags.", maxEntries)
	}
	err := errors.Join(checkText("description", n.Description, maxNote), checkText("notes", n.Notes, maxNote),
		checkText("reference", n.Reference, maxName), checkText("home page", n.HomePage, maxIdentifierURI))
	for _, tag := range n.Tags {
		err = errors.Join(err, checkText("tag", tag, maxName))
	}
	return err
}

// checkText refuses text that is too long for its place or that could not be
// shown: the control characters of a name would forge lines of a listing.
func checkText(what, s string, most int) error {
	switch {
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fault.BadRequest("BadRequest", "The %s has characters that are not allowed.", what)
	case utf8.RuneCountInString(s) > most:
		return fault.BadRequest("BadRequest", "The %s has more than %d characters.", what, most)
	}
	return nil
}

// checkRedirects refuses what is not a list of absolute URIs without
// fragment: https ones, http ones on this machine, or of a scheme that a
// program has for itself.
func checkRedirects(list []string) error {
	if len(list) > maxEntries {
		return fault.BadRequest("BadRequest", "There are more than %d redirect URIs of a kind.", maxEntries)
	}
	for _, s := range list {
		u, err := url.Parse(s)
		ok := err == nil && u.Scheme != "" && len(s) <= maxIdentifierURI && printableASCII(s) && !strings.Contains(s, "#") && u.User == nil
		switch {
		case !ok:
		case u.Scheme == "https":
			ok = u.Hostname() != "" && strings.Trim(u.Host, hostCharacters) == "" && !strings.HasSuffix(u.Host, ":")
		case u.Scheme == "http":
			ok = isLoopback(u.Hostname()) && !strings.HasSuffix(u.Host, ":")
		default:
			ok = !slices.Contains([]string{"javascript", "data", "file", "vbscript", "blob", "about"}, u.Scheme)
		}
		if !ok {
			return fault.BadRequest("BadRequest", "The redirect URI '%s' is not one that people can be sent to.", clip(s))
		}
	}
	return nil
}

// hostCharacters are those of a host and port. URLs may have others there,
// such as a semicolon, which no name has and other formats take for their own.
// A Content-Security-Policy, which must name the host, has no underscore and
// no empty port either.
const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"

// IdentityURI is the second name of a managed identity's service principal,
// of the form that Entra gives; empty for others.
func (p *ServicePrincipal) IdentityURI() string {
	if p.Kind != KindManagedIdentity {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.ToLower(p.ResourceID)))
	return "https://identity.azure.net/" + base64.StdEncoding.EncodeToString(sum[:])
}

// principalKeys are the names by which a service principal alone is found.
func principalKeys(p *ServicePrincipal) []string {
	keys := []string{p.TenantID + "/" + p.AppID}
	if uri := p.IdentityURI(); uri != "" {
		keys = append(keys, p.TenantID+"/"+strings.ToLower(uri))
	}
	return keys
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
