package graph

import (
	"net/http"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// home is the caller's tenant.
func (c *call) home() (directory.Tenant, error) {
	t, ok, err := c.Directory.Tenant(c.ctx, c.tenant)
	if err == nil && !ok {
		err = notFound(c.tenant)
	}
	return t, err
}

func organizationEntity(t *directory.Tenant) entity {
	domains := make([]entity, len(t.Domains))
	for i, name := range t.Domains {
		domains[i] = entity{"name": name, "isDefault": i == 0, "isInitial": i == 0, "type": "Managed", "capabilities": ""}
	}
	return entity{
		"id": t.ID, "displayName": t.DisplayName, "tenantType": "AAD", "createdDateTime": instant(t.Created), "deletedDateTime": nil,
		"verifiedDomains": domains,
	}
}

func listOrganization(c *call) error {
	t, err := c.home()
	if err != nil {
		return err
	}
	return c.whole("organization", []entity{organizationEntity(&t)})
}

func getOrganization(c *call) error {
	t, err := c.home()
	if err != nil {
		return err
	}
	if !sameID(c.keys[0].text, t.ID) {
		return notFound(c.keys[0].text)
	}
	e := organizationEntity(&t)
	e["@odata.context"] = c.context("organization", nil, true)
	return web.WriteJSON(c.w, http.StatusOK, e)
}

func listDomains(c *call) error {
	t, err := c.home()
	if err != nil {
		return err
	}
	value := make([]entity, len(t.Domains))
	for i, name := range t.Domains {
		value[i] = entity{
			"id": name, "isDefault": i == 0, "isInitial": i == 0, "isRoot": true, "isVerified": true, "isAdminManaged": true,
			"authenticationType": "Managed", "supportedServices": []any{}, "availabilityStatus": nil, "state": nil,
		}
	}
	return c.whole("domains", value)
}

// maxIDs is how many ids getByIds takes, as in Graph.
const maxIDs = 1000

// getByIDs answers those of the ids that are objects of the tenant, of the
// kinds that are asked for.
func getByIDs(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	var ids, types []string
	if err := b.set(fields{"ids": texts(&ids), "types": texts(&types)}); err != nil {
		return err
	}
	if len(ids) == 0 || len(ids) > maxIDs {
		return badRequest("Property 'ids' must have between 1 and %d ids.", maxIDs)
	}
	wanted := map[string]bool{}
	for _, t := range types {
		wanted["#microsoft.graph."+t] = true
		if t == "directoryObject" {
			types = nil
			break
		}
	}
	var os []object
	seen := map[string]bool{}
	for _, id := range ids {
		if _, ok := directory.CanonicalID(id); !ok {
			return badRequest("Invalid GUID: %s", clip(id))
		}
		o, ok, err := c.find(id)
		if err != nil {
			return err
		}
		if ok && !seen[o.id()] && (len(types) == 0 || wanted[o.odataType()]) {
			seen[o.id()] = true
			os = append(os, o)
		}
	}
	return c.objects(os)
}

func getObject(c *call) error {
	e, err := c.object.entity(c)
	if err != nil {
		return err
	}
	e["@odata.context"] = c.context("directoryObjects", nil, true)
	return web.WriteJSON(c.w, http.StatusOK, e)
}
