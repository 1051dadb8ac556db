package sts

import (
	"strings"

	"github.com/podkey/podkey/internal/web"
)

// resource is what a token is for.
type resource struct {
	audience string // aud
	version  int    // 1 or 2: shape of its tokens
	own      bool   // Podkey's own plane, so the only validator is Podkey
}

// Application ids of Azure's own resources.
const (
	vaultAppID    = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"
	armAppID      = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
	graphAppID    = "00000003-0000-0000-c000-000000000000"
	aadGraphAppID = "00000002-0000-0000-c000-000000000000"
	exchangeAppID = "fb60f99c-7a34-4190-8149-302f77469936"
)

// registerResources names the resources that every tenant has. Azure's own
// ask for tokens of version 1.0 with the audience as it was requested; the
// token exchange asks for version 2.0, whose audience is an application id.
func (s *service) registerResources() {
	own := resource{version: 1, own: true}
	for _, name := range []string{
		"https://vault.azure.net", s.Own.VaultResource(), vaultAppID,
		"https://management.azure.com", "https://management.core.windows.net", s.Own.Management, armAppID,
		"https://graph.microsoft.com", s.Own.Graph, graphAppID,
	} {
		s.resources[strings.ToLower(name)] = own
	}
	s.resources["https://graph.windows.net"] = resource{version: 1}
	s.resources[aadGraphAppID] = resource{version: 1}
	exchange := resource{version: 2, audience: exchangeAppID}
	s.resources["api://azureadtokenexchange"] = exchange
	s.resources[exchangeAppID] = exchange
}

// resource finds what a client asks a token for: a resource that every tenant
// has, in any case and with or without a closing slash, the origin of this
// request's management or graph plane, or an application of the tenant.
func (x *exchange) resource(name string) (resource, error) {
	lower := strings.ToLower(name)
	bare := strings.TrimSuffix(lower, "/")
	res, ok := x.resources[bare]
	if !ok && x.isOrigin(bare, x.call.Names) {
		// At a bare address the directory API is the one plane whose clients take
		// the origin for the resource; the management API has names of its own.
		// The audience is not the origin: an application could be called so.
		res, ok = resource{version: 1, own: true, audience: strings.ToLower(x.Own.Graph)}, true
	}
	if ok {
		if res.audience == "" {
			res.audience = lower // planes compare exactly: let them see one spelling
		}
		return res, nil
	}
	app, ok, err := x.Directory.Resource(x.ctx, x.realm.ID, name)
	if err != nil {
		return resource{}, err
	}
	if !ok {
		return resource{}, errResourceUnknown(name, &x.realm.Tenant)
	}
	if !app.Enabled {
		return resource{}, errResourceDisabled(name)
	}
	if app.TokenVersion == 2 {
		return resource{audience: app.AppID, version: 2}, nil
	}
	return resource{audience: name, version: 1}, nil
}

// sameResource reports whether two names are of one resource. Only those that
// every tenant has may be spelled in several ways.
func (x *exchange) sameResource(a, b string) bool {
	if a == b {
		return true
	}
	bare := func(name string) string { return strings.TrimSuffix(strings.ToLower(name), "/") }
	_, known := x.resources[bare(a)]
	return bare(a) == bare(b) && (known || x.isOrigin(bare(a), x.call.Names))
}

func (x *exchange) isOrigin(name string, n *web.Names) bool {
	return name == strings.ToLower(n.Management) || name == strings.ToLower(n.Graph)
}
