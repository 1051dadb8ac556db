package sts

import (
	"context"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
)

// firstParty is the name of a client that every tenant has without anybody's
// doing: Microsoft's own command lines and editors, with whose client ids
// people sign in. They are public clients. Azure Developer CLI uses Azure
// CLI's.
func firstParty(clientID string) (name string) {
	switch clientID {
	case "04b07795-8ddb-461a-bbee-02f9e1bf7b46":
		return "Azure CLI"
	case "1950a258-227b-4e31-a9cf-717495945fc2":
		return "Azure PowerShell"
	case "aebc6443-996d-45c2-90f0-388ff96faa56":
		return "Visual Studio Code"
	}
	return ""
}

// findClient finds a client of a realm. One that is not known in every tenant
// must be asked for in its own.
func (s *service) findClient(ctx context.Context, r *realm, clientID string) (directory.Client, error) {
	id := strings.ToLower(clientID)
	if name := firstParty(id); name != "" {
		return directory.Client{
			TenantID: r.ID, AppID: id, DisplayName: name, Kind: directory.KindApplication, Enabled: true, PublicClient: true,
		}, nil
	}
	if r.any() {
		return directory.Client{}, errNotMultiTenant(clientID)
	}
	c, ok, err := s.Directory.Client(ctx, r.ID, clientID)
	switch {
	case err != nil:
		return c, err
	case !ok:
		return c, errClientUnknown(clientID, &r.Tenant)
	case c.ServicePrincipalID == "" && !c.PublicClient && !c.Redirects.Any(): // it can act neither for itself nor for people
		return c, errNoServicePrincipal(&c)
	case !c.Enabled:
		return c, errClientDisabled(&c)
	}
	return c, nil
}
