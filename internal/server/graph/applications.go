package graph

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/server/directory"
)

// instant is a time as Graph writes it.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// orNull is a text, or null if it is empty.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// list is a list that is never null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// ofText is a text as a filter sees it; an empty one is null.
func ofText(s string) odata.Value {
	if s == "" {
		return odata.Value{}
	}
	return odata.OfText(s)
}

var applications = kind[directory.Application]{
	name: "applications",
	id:   func(a *directory.Application) string { return a.ObjectID },
	rules: odata.Rules{
		Properties: map[string]odata.Property{
			"id":             {Kind: odata.Text, Ops: "eq in"},
			"appid":          {Kind: odata.Text, Ops: "eq ne in"},
			"displayname":    {Kind: odata.Text, Ops: "eq ne in null"},
			"identifieruris": {Kind: odata.Texts, Ops: "eq startswith"},
			"signinaudience": {Kind: odata.Text, Ops: "eq ne"},
			"tags":           {Kind: odata.Texts, Ops: "eq startswith"},
		},
		Functions: map[string][]string{"startswith": {"displayname,text", "appid,text"}, "endswith": {"displayname,text"}},
		Not:       true,
	},
	property: func(_ *call, a *directory.Application, name string) odata.Value {
		switch name {
		case "id":
			return odata.OfText(a.ObjectID)
		case "appid":
			return odata.OfText(a.AppID)
		case "identifieruris":
			return odata.OfTexts(a.IdentifierURIs)
		case "signinaudience":
			return odata.OfText(audienceMyOrg)
		case "tags":
			return odata.OfTexts(a.Note.Tags)
		}
		return ofText(a.DisplayName)
	},
	show: showApplication,
	walk: func(c *call, after string, visit func(*directory.Application) bool) error {
		return c.Directory.WalkApplications(c.ctx, c.tenant, after, visit)
	},
	lookup: map[string]func(*call, string) ([]directory.Application, error){
		"id": func(c *call, id string) ([]directory.Application, error) {
			a, ok, err := c.Directory.Application(c.ctx, id)
			return oneIf(a, ok && a.TenantID == c.tenant), err
		},
		"appid": func(c *call, id string) ([]directory.Application, error) {
			return c.Directory.ApplicationsFor(c.ctx, c.tenant, id)
		},
		"identifieruris": func(c *call, uri string) ([]directory.Application, error) {
			return c.Directory.ApplicationsFor(c.ctx, c.tenant, uri)
		},
		"displayname": func(c *call, name string) ([]directory.Application, error) {
			return c.Directory.ApplicationsNamed(c.ctx, c.tenant, name)
		},
	},
}

// oneIf is a list of v, or an empty one.
func oneIf[T any](v T, ok bool) []T {
	if !ok {
		return nil
	}
	return []T{v}
}

// audienceMyOrg is the only signInAudience: applications of one tenant.
const audienceMyOrg = "AzureADMyOrg"

func showApplication(c *call, a *directory.Application) (entity, error) {
	domain, err := c.domain()
	if err != nil {
		return nil, err
	}
	version := any(nil)
	if a.TokenVersion == 2 {
		version = 2
	}
	return entity{
		"id": a.ObjectID, "appId": a.AppID, "deletedDateTime": nil, "createdDateTime": instant(a.Created),
		"displayName": a.DisplayName, "description": orNull(a.Note.Description), "notes": orNull(a.Note.Notes),
		"serviceManagementReference": orNull(a.Note.Reference), "tags": list(a.Note.Tags),
		"identifierUris": list(a.IdentifierURIs), "publisherDomain": domain, "signInAudience": audienceMyOrg,
		"isFallbackPublicClient": a.PublicClient,
		"passwordCredentials":    passwords(a.Secrets),
		"keyCredentials":         keyCredentials(c, a.Certificates),
		"web": entity{
			"homePageUrl": orNull(a.Note.HomePage), "logoutUrl": nil, "redirectUris": list(a.Redirects.Web), "redirectUriSettings": []any{},
			"implicitGrantSettings": entity{"enableAccessTokenIssuance": false, "enableIdTokenIssuance": false},
		},
		"spa":          entity{"redirectUris": list(a.Redirects.SPA)},
		"publicClient": entity{"redirectUris": list(a.Redirects.Public)},
		"api": entity{
			"acceptMappedClaims": nil, "knownClientApplications": []any{}, "requestedAccessTokenVersion": version,
			"oauth2PermissionScopes": []any{}, "preAuthorizedApplications": []any{},
		},
		"addIns": []any{}, "appRoles": []any{}, "requiredResourceAccess": []any{}, "optionalClaims": nil, "groupMembershipClaims": nil,
		"applicationTemplateId": nil, "certification": nil, "defaultRedirectUri": nil, "disabledByMicrosoftStatus": nil,
		"isDeviceOnlyAuthSupported": nil, "samlMetadataUrl": nil, "tokenEncryptionKeyId": nil, "requestSignatureVerification": nil,
		"info":                    entity{"logoUrl": nil, "marketingUrl": nil, "privacyStatementUrl": nil, "supportUrl": nil, "termsOfServiceUrl": nil},
		"parentalControlSettings": entity{"countriesBlockedForMinors": []any{}, "legalAgeGroupRule": "Allow"},
		"verifiedPublisher":       entity{"addedDateTime": nil, "displayName": nil, "verifiedPublisherId": nil},
	}, nil
}

// domain is the default domain of the caller's tenant, or null.
func (c *call) domain() (any, error) {
	t, _, err := c.Directory.Tenant(c.ctx, c.tenant)
	if err != nil || len(t.Domains) == 0 {
		return nil, err
	}
	return t.Domains[0], nil
}

// mayBeCalled holds Entra's rule for identifier URIs that are somebody's: a
// token for one goes to whoever it belongs to. An address must be the
// tenant's; api:// and a GUID must be the tenant's or the application's own.
func (c *call) mayBeCalled(uris []string, appID string) error {
	t, err := c.home()
	if err != nil {
		return err
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			return badRequest("The identifier URI '%s' is malformed.", clip(s))
		}
		host := strings.ToLower(u.Hostname())
		switch _, isID := directory.CanonicalID(host); {
		case u.Scheme == "api" && isID && host != appID && host != t.ID:
			return badRequest("The identifier URI '%s' has the id of another application or tenant.", clip(s))
		case u.Scheme != "http" && u.Scheme != "https":
		case !slices.ContainsFunc(t.Domains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) }):
			return badRequest("Values of identifierUris property must use a verified domain of the organization or its subdomain: '%s'", clip(s))
		}
	}
	return nil
}

// applicationFields are the properties of an application that a caller sets.
// Its certificates are apart, see keyFields.
func applicationFields(a *directory.Application) fields {
	f := fields{
		"displayName":                required(&a.DisplayName),
		"description":                text(&a.Note.Description),
		"notes":                      text(&a.Note.Notes),
		"serviceManagementReference": text(&a.Note.Reference),
		"tags":                       texts(&a.Note.Tags),
		"identifierUris":             texts(&a.IdentifierURIs),
		"isFallbackPublicClient":     flag(&a.PublicClient),
		"signInAudience":             only(audienceMyOrg, "applications belong to one tenant"),
		"web": nested(fields{
			"homePageUrl":  text(&a.Note.HomePage),
			"redirectUris": texts(&a.Redirects.Web),
			"implicitGrantSettings": nested(fields{
				"enableAccessTokenIssuance": only(false, "tokens are issued for codes alone"),
				"enableIdTokenIssuance":     only(false, "tokens are issued for codes alone"),
			}),
			"logoutUrl": empty, "redirectUriSettings": ignored,
		}),
		"spa":          nested(fields{"redirectUris": texts(&a.Redirects.SPA)}),
		"publicClient": nested(fields{"redirectUris": texts(&a.Redirects.Public)}),
		"api": nested(fields{
			"requestedAccessTokenVersion": tokenVersion(&a.TokenVersion),
			"acceptMappedClaims":          empty, "knownClientApplications": empty, "oauth2PermissionScopes": empty, "preAuthorizedApplications": empty,
		}),
		"passwordCredentials": passwordsElsewhere,
		"keyCredentials":      ignored, // read by keyFields
	}
	for _, name := range []string{
		"addIns", "appRoles", "requiredResourceAccess", "optionalClaims", "groupMembershipClaims", "applicationTemplateId", "certification",
		"defaultRedirectUri", "isDeviceOnlyAuthSupported", "samlMetadataUrl", "tokenEncryptionKeyId", "requestSignatureVerification", "info",
	} {
		f[name] = empty
	}
	for _, name := range []string{"id", "appId", "createdDateTime", "deletedDateTime", "publisherDomain", "owners"} {
		f[name] = readOnly
	}
	return f
}

func createApplication(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	a := directory.Application{TenantID: c.tenant, Owners: []string{strings.ToLower(c.caller.ObjectID)}}
	if err := body.set(applicationFields(&a)); err != nil {
		return err
	}
	if a.DisplayName == "" {
		return badRequest("Property 'displayName' is required.")
	}
	if err := c.mayBeCalled(a.IdentifierURIs, ""); err != nil {
		return err
	}
	certs, _, err := body.certificates()
	if err != nil {
		return err
	}
	if a, err = c.Directory.CreateApplication(c.ctx, a, certs...); err != nil {
		return err
	}
	c.w.Header().Set("Location", c.names.Graph+"/"+c.version+"/applications/"+a.ObjectID)
	return applications.one(c, http.StatusCreated, &a)
}

func getApplication(c *call) error {
	return applications.one(c, http.StatusOK, c.object.app)
}

func patchApplication(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	certs, given, err := body.certificates()
	if err != nil {
		return err
	}
	id := c.object.app.ObjectID
	// Both parts are checked before either is written, but they are two writes:
	// if the server dies between them the certificates are as they were.
	var asked directory.Application
	if err := body.set(applicationFields(&asked)); err != nil {
		return err
	}
	if err := c.mayBeCalled(asked.IdentifierURIs, c.object.app.AppID); err != nil {
		return err
	}
	if _, err := c.Directory.UpdateApplication(c.ctx, id, func(a *directory.Application) error { return body.set(applicationFields(a)) }); err != nil {
		return err
	}
	if given {
		if err := c.Directory.SetCertificates(c.ctx, id, certs); err != nil {
			return err
		}
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func deleteApplication(c *call) error {
	existed, err := c.Directory.DeleteApplication(c.ctx, c.object.app.ObjectID)
	if err == nil && !existed {
		err = notFound(c.object.app.ObjectID)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
