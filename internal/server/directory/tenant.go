package directory

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// Tenant is one directory: the boundary inside which principals exist.
type Tenant struct {
	ID          string    `json:"id"`          // GUID
	DisplayName string    `json:"displayName"` // for people
	Domains     []string  `json:"domains"`     // DNS names in lower case, the first one is the default; none belongs to two tenants
	Created     time.Time `json:"created"`
}

// CreateTenant stores a tenant. An empty ID is chosen. A taken ID or domain
// is a fault of kind Clash, a malformed one of kind Invalid.
func (d *Directory) CreateTenant(ctx context.Context, t Tenant) (Tenant, error) {
	id, err := d.giveID("tenant id", t.ID)
	if err != nil {
		return Tenant{}, err
	}
	t.ID, t.Created = id, d.now().UTC()
	if t.Domains, err = canonicalDomains(t.Domains); err != nil {
		return Tenant{}, err
	}
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if _, ok, err := d.tenants.Get(tx, t.ID); err != nil {
			return err
		} else if ok {
			return fault.Conflict("TenantExists", "The tenant '%s' exists already.", t.ID)
		}
		for _, name := range t.Domains {
			taken, err := d.tenants.By(tx, "domain", name)
			if err != nil {
				return err
			}
			if len(taken) > 0 {
				return fault.Conflict("DomainExists", "The domain '%s' belongs to another tenant.", name)
			}
		}
		return d.tenants.Put(tx, t.ID, t)
	})
	return t, err
}

// Tenant finds a tenant by its ID or by one of its domains, both in any case.
func (d *Directory) Tenant(ctx context.Context, idOrDomain string) (Tenant, bool, error) {
	if id, ok := CanonicalID(idOrDomain); ok {
		return d.tenants.Load(ctx, id)
	}
	ts, err := d.tenants.Find(ctx, "domain", strings.ToLower(idOrDomain))
	if err != nil || len(ts) == 0 {
		return Tenant{}, false, err
	}
	return ts[0], true, nil
}

// Tenants lists all tenants, in order of ID.
func (d *Directory) Tenants(ctx context.Context) ([]Tenant, error) {
	return values(d.tenants.Scan(ctx, "", "", 0))
}

// values takes the records out of a listing. Damaged ones are left out: the
// store named them in the log when it read them, and the rest is served.
func values[T any](es []store.Entry[T], err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	vs := make([]T, 0, len(es))
	for _, e := range es {
		if e.Err == nil {
			vs = append(vs, e.Value)
		}
	}
	return vs, nil
}

func canonicalDomains(domains []string) ([]string, error) {
	out := make([]string, 0, len(domains))
	for _, name := range domains {
		name = strings.ToLower(name)
		if !ValidDomain(name) {
			return nil, fault.BadRequest("BadRequest", "The domain '%s' is not a DNS name.", clip(name))
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// ValidDomain reports whether s can be a tenant's domain: a DNS name in any
// case with at least two labels and at most 253 characters. So none of the
// words that stand for a tenant in paths (common, organizations) is one.
func ValidDomain(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
