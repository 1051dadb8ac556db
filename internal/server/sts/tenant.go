package sts

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
)

// realm is what a path's tenant segment stands for: one tenant, or (with an
// empty Tenant.ID) any of them.
type realm struct {
	directory.Tenant
	segment string // how URLs in answers name it: the tenant's GUID, or the word for any
	adfs    bool   // asked for below /adfs
	unsaid  bool   // the path names no tenant: there is only this one
}

// any reports whether the realm is no tenant in particular.
func (r *realm) any() bool { return r.ID == "" }

// id is the tenant in issuers: its GUID, or Entra's placeholder for any.
func (r *realm) id() string {
	if r.any() {
		return "{tenantid}"
	}
	return r.ID
}

// realm resolves the tenant of a request's path.
func (s *service) realm(r *http.Request) (*realm, error) {
	text := r.PathValue("tenant")
	adfs := strings.HasPrefix(r.URL.Path, "/adfs/")
	if text == "" {
		t, err := s.onlyTenant(r.Context())
		if err != nil {
			return nil, err
		}
		return &realm{Tenant: t, segment: t.ID, adfs: adfs, unsaid: true}, nil
	}
	switch text {
	case "common", "organizations", "consumers":
		return &realm{segment: text, adfs: adfs}, nil
	}
	_, guid := directory.CanonicalID(text)
	if !guid && !directory.ValidDomain(text) {
		return nil, errTenantMalformed(text)
	}
	t, ok, err := s.Directory.Tenant(r.Context(), text)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errTenantUnknown(text)
	}
	return &realm{Tenant: t, segment: t.ID, adfs: adfs}, nil
}

// onlyTenant is the tenant of a path that cannot name one: AD FS has no
// tenants, so clients leave it out below /adfs. It is clear only if there is
// just one.
func (s *service) onlyTenant(ctx context.Context) (directory.Tenant, error) {
	ts, err := s.Directory.Tenants(ctx)
	if err != nil {
		return directory.Tenant{}, err
	}
	if len(ts) != 1 {
		return directory.Tenant{}, errNoTenant()
	}
	return ts[0], nil
}
