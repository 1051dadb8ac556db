// Package directory keeps who exists: tenants, applications, service
// principals, managed identities, users, and the credentials by which they
// prove themselves.
//
// It holds the only copy of the rules for federated credentials, both for
// writing one and for matching a presented assertion against them ([Match],
// [Nearest]); the planes that write credentials and the token service that
// reads them all ask here. It guarantees that
//
//   - object ids, application ids and tenant ids are GUIDs in lower case, and
//     lookups by them ignore case;
//   - a managed identity, its service principal and its federated credentials
//     appear and disappear in one transaction;
//   - hashes of secrets and passwords are in a Sealed table of their own and
//     are compared in constant time; no exported value carries them, and the
//     text of a client secret is returned once, by [Directory.AddSecret].
//
// Errors are faults whose codes are those of the management API; lookups
// report a missing object with ok == false, not with an error.
package directory

import (
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/text"
)

// Options adjust a Directory. The zero value suits a server.
type Options struct {
	Now            func() time.Time // clock; time.Now if nil
	NewID          func() string    // makes GUIDs for new objects; random if nil
	FederatedLimit int              // federated credentials per identity or application; 0 means 1000, Azure has 20
	AllowLoopback  bool             // issuers may be http URLs of a loopback address
}

// defaultFederatedLimit is the limit when Options says none.
const defaultFederatedLimit = 1000

// Directory is the set of tables. Create with [New]; safe for concurrent use.
type Directory struct {
	s     *store.Store
	now   func() time.Time
	newID func() string
	limit int
	loop  bool

	tenants      *store.Table[Tenant]
	applications *store.Table[Application]
	principals   *store.Table[ServicePrincipal]
	identities   *store.Table[ManagedIdentity]
	federated    *store.Table[federatedRecord]
	users        *store.Table[User]
	hashes       *store.Table[secretHash]

	slow *slowQueue
}

// New declares the directory's tables. Call it before Store.Load.
func New(s *store.Store, o Options) *Directory {
	d := &Directory{s: s, now: o.Now, newID: o.NewID, limit: o.FederatedLimit, loop: o.AllowLoopback}
	if d.now == nil {
		d.now = time.Now
	}
	if d.newID == nil {
		d.newID = uuid.NewString
	}
	if d.limit <= 0 {
		d.limit = defaultFederatedLimit
	}
	d.slow = newSlowQueue()
	d.tenants = store.NewTable(s, "tenant", store.TableOptions[Tenant]{
		Mode:    store.Plain,
		Indexes: map[string]func(*Tenant) []string{"domain": func(t *Tenant) []string { return t.Domains }},
	})
	d.applications = store.NewTable(s, "application", store.TableOptions[Application]{
		Mode: store.Plain,
		Indexes: map[string]func(*Application) []string{
			"client":   func(a *Application) []string { return []string{a.TenantID + "/" + a.AppID} },
			"resource": resourceKeys,
			"display":  func(a *Application) []string { return []string{displayKey(a.TenantID, a.DisplayName)} },
			"owner":    func(a *Application) []string { return a.Owners },
		},
	})
	d.principals = store.NewTable(s, "serviceprincipal", store.TableOptions[ServicePrincipal]{
		Mode: store.Plain,
		Indexes: map[string]func(*ServicePrincipal) []string{
			"client":  principalKeys,
			"display": func(p *ServicePrincipal) []string { return []string{displayKey(p.TenantID, p.DisplayName)} },
			"owner":   func(p *ServicePrincipal) []string { return p.Owners },
		},
	})
	d.identities = store.NewTable(s, "identity", store.TableOptions[ManagedIdentity]{
		Mode: store.Plain,
		Indexes: map[string]func(*ManagedIdentity) []string{
			"client": func(m *ManagedIdentity) []string { return []string{m.TenantID + "/" + m.ClientID} },
		},
	})
	d.federated = store.NewTable(s, "federatedcredential", store.TableOptions[federatedRecord]{
		Mode: store.Plain,
		Indexes: map[string]func(*federatedRecord) []string{
			"assertion": func(r *federatedRecord) []string { return []string{assertionKey(r.Owner, r.Issuer, r.Subject)} },
		},
	})
	d.users = store.NewTable(s, "user", store.TableOptions[User]{
		Mode: store.Plain,
		Indexes: map[string]func(*User) []string{
			"name":    func(u *User) []string { return []string{u.TenantID + "/" + foldName(u.UserPrincipalName)} },
			"display": func(u *User) []string { return []string{displayKey(u.TenantID, u.DisplayName)} },
		},
	})
	d.hashes = store.NewTable(s, "secrethash", store.TableOptions[secretHash]{Mode: store.Sealed})
	return d
}

// CanonicalID returns a GUID in the only form in which the directory stores
// and compares them: 36 characters, lower case. ok is false for other text.
func CanonicalID(id string) (canonical string, ok bool) {
	if len(id) != 36 {
		return "", false
	}
	u, err := uuid.Parse(id)
	if err != nil {
		return "", false
	}
	return u.String(), true
}

// giveID canonicalises an id that a caller chose, or makes one if it is empty.
func (d *Directory) giveID(what, id string) (string, error) {
	if id == "" {
		return d.newID(), nil
	}
	c, ok := CanonicalID(id)
	if !ok {
		return "", fault.BadRequest("BadRequest", "The %s '%s' is not a GUID.", what, clip(id))
	}
	return c, nil
}

// clip makes text from a request fit for a message.
func clip(s string) string { return text.Clip(s, 120) }
