package graph

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/server/directory"
)

var servicePrincipals = kind[directory.ServicePrincipal]{
	name: "servicePrincipals",
	id:   func(p *directory.ServicePrincipal) string { return p.ObjectID },
	rules: odata.Rules{
		Properties: map[string]odata.Property{
			"id":                     {Kind: odata.Text, Ops: "eq in"},
			"appid":                  {Kind: odata.Text, Ops: "eq ne in"},
			"displayname":            {Kind: odata.Text, Ops: "eq ne in null"},
			"appdisplayname":         {Kind: odata.Text, Ops: "eq ne in null"},
			"serviceprincipalnames":  {Kind: odata.Texts, Ops: "eq startswith"},
			"alternativenames":       {Kind: odata.Texts, Ops: "eq startswith"},
			"tags":                   {Kind: odata.Texts, Ops: "eq startswith"},
			"serviceprincipaltype":   {Kind: odata.Text, Ops: "eq ne in"},
			"appownerorganizationid": {Kind: odata.Text, Ops: "eq in"},
			"accountenabled":         {Kind: odata.Bool, Ops: "eq ne"},
		},
		Functions: map[string][]string{"startswith": {"displayname,text", "appdisplayname,text", "appid,text"}, "endswith": {"displayname,text"}},
		Not:       true,
	},
	property: principalProperty,
	show:     showPrincipal,
	walk: func(c *call, after string, visit func(*directory.ServicePrincipal) bool) error {
		return c.Directory.WalkServicePrincipals(c.ctx, c.tenant, after, visit)
	},
	lookup: map[string]func(*call, string) ([]directory.ServicePrincipal, error){
		"id": func(c *call, id string) ([]directory.ServicePrincipal, error) {
			p, ok, err := c.Directory.ServicePrincipal(c.ctx, id)
			return oneIf(p, ok && p.TenantID == c.tenant), err
		},
		"appid": func(c *call, id string) ([]directory.ServicePrincipal, error) {
			return c.Directory.ServicePrincipalsFor(c.ctx, c.tenant, id)
		},
		"serviceprincipalnames": func(c *call, name string) ([]directory.ServicePrincipal, error) {
			return c.Directory.ServicePrincipalsFor(c.ctx, c.tenant, name)
		},
		"displayname": func(c *call, name string) ([]directory.ServicePrincipal, error) {
			return c.Directory.ServicePrincipalsNamed(c.ctx, c.tenant, name)
		},
	},
}

func principalProperty(c *call, p *directory.ServicePrincipal, name string) odata.Value {
	switch name {
	case "id":
		return odata.OfText(p.ObjectID)
	case "appid":
		return odata.OfText(p.AppID)
	case "serviceprincipalnames":
		names, err := c.principalNames(p)
		if err != nil {
			return odata.Value{} // then the look-up has failed as well
		}
		return odata.OfTexts(names)
	case "alternativenames":
		return odata.OfTexts(alternativeNames(p))
	case "tags":
		return odata.OfTexts(p.Note.Tags)
	case "serviceprincipaltype":
		return odata.OfText(p.Kind)
	case "appownerorganizationid":
		return odata.OfText(p.TenantID)
	case "accountenabled":
		return odata.OfBool(p.Enabled)
	}
	return ofText(p.DisplayName)
}

// principalNames are the names that a service principal is known by, its
// client id first: clients show that one.
func (c *call) principalNames(p *directory.ServicePrincipal) ([]string, error) {
	names := []string{p.AppID}
	if uri := p.IdentityURI(); uri != "" {
		return append(names, uri), nil
	}
	apps, err := c.Directory.ApplicationsFor(c.ctx, p.TenantID, p.AppID)
	if err != nil || len(apps) == 0 {
		return names, err
	}
	return append(names, apps[0].IdentifierURIs...), nil
}

// alternativeNames say which resource a managed identity is.
func alternativeNames(p *directory.ServicePrincipal) []string {
	if p.Kind != directory.KindManagedIdentity {
		return []string{}
	}
	return []string{"isExplicit=True", p.ResourceID}
}

func showPrincipal(c *call, p *directory.ServicePrincipal) (entity, error) {
	names, err := c.principalNames(p)
	if err != nil {
		return nil, err
	}
	return entity{
		"id": p.ObjectID, "appId": p.AppID, "deletedDateTime": nil, "createdDateTime": instant(p.Created),
		"accountEnabled": p.Enabled, "displayName": p.DisplayName, "appDisplayName": p.DisplayName, "appOwnerOrganizationId": p.TenantID,
		"servicePrincipalNames": names, "servicePrincipalType": p.Kind, "alternativeNames": alternativeNames(p),
		"description": orNull(p.Note.Description), "notes": orNull(p.Note.Notes), "homepage": orNull(p.Note.HomePage), "tags": list(p.Note.Tags),
		"passwordCredentials": passwords(p.Secrets), "keyCredentials": keyCredentials(c, p.Certificates),
		"signInAudience": audienceMyOrg, "appRoleAssignmentRequired": false,
		"addIns": []any{}, "appRoles": []any{}, "oauth2PermissionScopes": []any{}, "replyUrls": []any{}, "notificationEmailAddresses": []any{},
		"resourceSpecificApplicationPermissions": []any{}, "appDescription": nil, "applicationTemplateId": nil, "disabledByMicrosoftStatus": nil,
		"loginUrl": nil, "logoutUrl": nil, "preferredSingleSignOnMode": nil, "preferredTokenSigningKeyThumbprint": nil,
		"samlSingleSignOnSettings": nil, "tokenEncryptionKeyId": nil,
		"info":              entity{"logoUrl": nil, "marketingUrl": nil, "privacyStatementUrl": nil, "supportUrl": nil, "termsOfServiceUrl": nil},
		"verifiedPublisher": entity{"addedDateTime": nil, "displayName": nil, "verifiedPublisherId": nil},
	}, nil
}

// principalFields are the properties of a service principal that a caller
// sets, but for its application.
func principalFields(p *directory.ServicePrincipal) fields {
	f := fields{
		"accountEnabled":            flag(&p.Enabled),
		"description":               text(&p.Note.Description),
		"notes":                     text(&p.Note.Notes),
		"homepage":                  text(&p.Note.HomePage),
		"tags":                      texts(&p.Note.Tags),
		"appRoleAssignmentRequired": only(false, "nothing is assigned to applications"),
		"passwordCredentials":       passwordsElsewhere,
		"keyCredentials":            ignored, // read by certificates
	}
	for _, name := range []string{
		"addIns", "appRoles", "oauth2PermissionScopes", "loginUrl", "logoutUrl", "replyUrls", "notificationEmailAddresses",
		"preferredSingleSignOnMode", "preferredTokenSigningKeyThumbprint", "samlSingleSignOnSettings", "tokenEncryptionKeyId", "info",
	} {
		f[name] = empty
	}
	for _, name := range []string{
		"id", "appId", "displayName", "appDisplayName", "appOwnerOrganizationId", "servicePrincipalNames", "servicePrincipalType",
		"alternativeNames", "signInAudience", "createdDateTime", "deletedDateTime", "owners",
	} {
		f[name] = readOnly
	}
	return f
}

// newPrincipal finds the application that the body names: who may give it a
// principal is decided by whose the application is.
func newPrincipal(c *call) (object, error) {
	b, err := c.body()
	if err != nil {
		return object{}, err
	}
	c.parsed = b
	var id string
	if err := required(&id)("appId", b["appId"]); err != nil {
		return object{}, err
	}
	found, err := c.Directory.ApplicationsFor(c.ctx, c.tenant, id)
	if err != nil {
		return object{}, err
	}
	for i := range found {
		if strings.EqualFold(found[i].AppID, id) {
			return object{app: &found[i]}, nil
		}
	}
	return object{}, badRequest("The application of a service principal must be in this directory: it has none with the appId '%s'.", clip(id))
}

func createPrincipal(c *call) error {
	b := c.parsed
	p := directory.ServicePrincipal{TenantID: c.tenant, AppID: c.object.app.AppID, Owners: []string{strings.ToLower(c.caller.ObjectID)}, Enabled: true}
	f := principalFields(&p)
	f["appId"] = ignored // read by newPrincipal
	f["displayName"] = only(c.object.app.DisplayName, "it has the name of its application")
	if err := b.set(f); err != nil {
		return err
	}
	certs, _, err := b.certificates()
	if err != nil {
		return err
	}
	if len(certs) > 0 || !p.Enabled {
		return badRequest("A service principal is created enabled and without credentials: set accountEnabled and keyCredentials afterwards.")
	}
	if p, err = c.Directory.CreateServicePrincipal(c.ctx, p); err != nil {
		return err
	}
	c.w.Header().Set("Location", c.names.Graph+"/"+c.version+"/servicePrincipals/"+p.ObjectID)
	return servicePrincipals.one(c, http.StatusCreated, &p)
}

func getPrincipal(c *call) error {
	return servicePrincipals.one(c, http.StatusOK, c.object.sp)
}

func patchPrincipal(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	certs, given, err := b.certificates()
	if err != nil {
		return err
	}
	if _, err := c.Directory.UpdateServicePrincipal(c.ctx, c.object.sp.ObjectID, func(p *directory.ServicePrincipal) error {
		return b.set(principalFields(p))
	}); err != nil {
		return err
	}
	if given { // a write of its own, as of applications
		if err := c.Directory.SetCertificates(c.ctx, c.object.sp.ObjectID, certs); err != nil {
			return err
		}
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func deletePrincipal(c *call) error {
	existed, err := c.Directory.DeleteServicePrincipal(c.ctx, c.object.sp.ObjectID)
	if err == nil && !existed {
		err = notFound(c.object.sp.ObjectID)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// ownersOf lists the owners that still exist.
func ownersOf(c *call) error {
	var os []object
	for _, id := range c.object.owners() {
		o, ok, err := c.find(id)
		if err != nil {
			return err
		}
		if ok {
			os = append(os, o)
		}
	}
	return c.objects(os)
}

// addOwner takes a reference to the new owner: {"@odata.id": URL}, of which
// the last segment counts.
func addOwner(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	var ref string
	if err := required(&ref)("@odata.id", b["@odata.id"]); err != nil {
		return err
	}
	id, ok := directory.CanonicalID(ref[strings.LastIndexByte(ref, '/')+1:])
	if !ok {
		return badRequest("Invalid value specified for property '@odata.id': it must end in the id of an object.")
	}
	if err := c.Directory.AddOwner(c.ctx, c.object.id(), id); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func removeOwner(c *call) error {
	existed, err := c.Directory.RemoveOwner(c.ctx, c.object.id(), c.keys[1].text)
	if err == nil && !existed {
		err = notFound(c.keys[1].text)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// ownedObjects lists what the path's user owns.
func ownedObjects(c *call) error {
	id := c.object.id()
	apps, err := c.Directory.ApplicationsOwnedBy(c.ctx, id)
	if err != nil {
		return err
	}
	sps, err := c.Directory.ServicePrincipalsOwnedBy(c.ctx, id)
	if err != nil {
		return err
	}
	var os []object
	for i := range apps {
		if apps[i].TenantID == c.tenant {
			os = append(os, object{app: &apps[i]})
		}
	}
	for i := range sps {
		if sps[i].TenantID == c.tenant {
			os = append(os, object{sp: &sps[i]})
		}
	}
	return c.objects(os)
}

// noGroups answers for memberships: there are no groups, so nobody is in one.
func noGroups(c *call) error { return c.nothing("directoryObjects") }

// noGroupIDs is [noGroups] for the operations that answer ids.
func noGroupIDs(c *call) error { return c.nothing("Collection(Edm.String)") }

// missing answers for a single object of a kind of which there are none.
func missing(c *call) error { return notFound(c.keys[0].text) }

// notSupported refuses the creation of what would have no effect.
func notSupported(what string) func(*call) error {
	return func(*call) error {
		return fault.BadRequest(codeInvalid, "%s are not supported by this directory.", what)
	}
}
