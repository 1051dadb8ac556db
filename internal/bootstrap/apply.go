package bootstrap

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
)

// Step is one declared thing and what was done about it.
type Step struct {
	Kind    string `json:"kind"`    // tenant, resource group, identity, ...
	Name    string `json:"name"`    // for people
	Outcome string `json:"outcome"` // created, updated or unchanged
}

// Outcomes of a step.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
)

// Versions of the APIs that this package sends.
const (
	vGroup      = "2024-03-01"
	vIdentity   = "2024-11-30"
	vVault      = "2024-11-01"
	vAssignment = "2022-04-01"
	vSecret     = "2025-07-01"
)

// Apply makes the server hold what f declares, and reports each step as it is
// done. It stops at the first error; what was done until then stays, and a
// second run goes on from there.
func Apply(ctx context.Context, c *client.Client, f *File, report func(Step)) error {
	home := applier{c: c, report: report, principals: map[string]string{}}
	if err := home.contents(ctx, &f.Contents); err != nil {
		return err
	}
	for i := range f.Tenants {
		t := &f.Tenants[i]
		tc, err := home.tenant(ctx, t)
		if err != nil {
			return fmt.Errorf("tenant %s: %w", t.ID, err)
		}
		a := applier{c: tc, admin: c, report: report, principals: map[string]string{}}
		if err := a.contents(ctx, &t.Contents); err != nil {
			return fmt.Errorf("tenant %s: %w", t.ID, err)
		}
	}
	return nil
}

// applier applies the contents of one tenant.
type applier struct {
	c          *client.Client // signed in to the tenant
	admin      *client.Client // the server's operator; c if nil
	report     func(Step)
	principals map[string]string // "identity/NAME" and "application/NAME" -> object id
}

func (a *applier) operator() *client.Client {
	if a.admin != nil {
		return a.admin
	}
	return a.c
}

// tenant creates a tenant with its subscription, and signs in to it by a
// short-lived secret that the server hands out to its operator.
func (a *applier) tenant(ctx context.Context, t *Tenant) (*client.Client, error) {
	var out struct {
		Created      bool   `json:"created"`
		ClientID     string `json:"clientId"`
		ClientSecret string `json:"clientSecret"`
		PrincipalID  string `json:"principalId"`
	}
	in := map[string]any{"displayName": t.DisplayName, "domains": t.Domains, "subscriptionId": t.SubscriptionID}
	if err := a.c.Admin(ctx, "PUT", "tenants/"+strings.ToLower(t.ID), in, &out); err != nil {
		return nil, err
	}
	a.done("tenant", t.ID, out.Created, false)
	op := a.c.Operator
	op.TenantID, op.SubscriptionID = strings.ToLower(t.ID), strings.ToLower(t.SubscriptionID)
	op.ClientID, op.ClientSecret, op.ObjectID = out.ClientID, out.ClientSecret, out.PrincipalID
	return a.c.As(op), nil
}

func (a *applier) done(kind, name string, created, updated bool) {
	outcome := Unchanged
	switch {
	case created:
		outcome = Created
	case updated:
		outcome = Updated
	}
	a.report(Step{kind, name, outcome})
}

func (a *applier) contents(ctx context.Context, c *Contents) error {
	if err := a.groups(ctx, c); err != nil {
		return err
	}
	for i := range c.Applications {
		if err := a.application(ctx, &c.Applications[i]); err != nil {
			return fmt.Errorf("application %s: %w", c.Applications[i].Name, err)
		}
	}
	for i := range c.Identities {
		if err := a.identity(ctx, c, &c.Identities[i]); err != nil {
			return fmt.Errorf("identity %s: %w", c.Identities[i].Name, err)
		}
	}
	for i := range c.Vaults {
		if err := a.vault(ctx, c, &c.Vaults[i]); err != nil {
			return fmt.Errorf("vault %s: %w", c.Vaults[i].Name, err)
		}
	}
	for i := range c.RoleAssignments {
		ra := &c.RoleAssignments[i]
		scope := ra.Scope
		if scope == "" {
			scope = a.subscription()
		}
		if err := a.assign(ctx, scope, ra.Role, a.principal(ra.Identity, ra.Application, ra.PrincipalID)); err != nil {
			return fmt.Errorf("roleAssignments[%d]: %w", i, err)
		}
	}
	return nil
}

func (a *applier) subscription() string { return "/subscriptions/" + a.c.Operator.SubscriptionID }

func (a *applier) principal(identity, application, id string) string {
	switch {
	case identity != "":
		return a.principals["identity/"+identity]
	case application != "":
		return a.principals["application/"+application]
	default:
		return id
	}
}

// groups creates the declared resource groups and those that resources name.
func (a *applier) groups(ctx context.Context, c *Contents) error {
	all := slices.Clone(c.ResourceGroups)
	known := map[string]bool{}
	for _, g := range all {
		known[strings.ToLower(g.Name)] = true
	}
	implied := func(name, location string) {
		if key := strings.ToLower(name); !known[key] {
			known[key] = true
			all = append(all, ResourceGroup{Name: name, Location: location})
		}
	}
	for _, id := range c.Identities {
		implied(id.ResourceGroup, id.Location)
	}
	for _, v := range c.Vaults {
		implied(v.ResourceGroup, v.Location)
	}
	for _, g := range all {
		body := map[string]any{"location": c.location(g.Location), "tags": g.Tags}
		created, updated, err := a.put(ctx, a.subscription()+"/resourcegroups/"+g.Name, vGroup, body, func(have map[string]any) bool {
			return sameTags(have, g.Tags)
		})
		if err != nil {
			return fmt.Errorf("resource group %s: %w", g.Name, err)
		}
		a.done("resource group", g.Name, created, updated)
	}
	return nil
}

// put creates a resource, or updates it if it differs from what is wanted.
func (a *applier) put(ctx context.Context, id, version string, body any, same func(have map[string]any) bool) (created, updated bool, err error) {
	path := id + "?api-version=" + version
	var have map[string]any
	err = a.c.Manage(ctx, "GET", path, nil, &have)
	switch {
	case client.IsNotFound(err):
		return true, false, a.c.Manage(ctx, "PUT", path, body, nil)
	case err != nil:
		return false, false, err
	case same(have):
		return false, false, nil
	}
	return false, true, a.c.Manage(ctx, "PUT", path, body, nil)
}

func sameTags(have map[string]any, want map[string]string) bool {
	tags, _ := have["tags"].(map[string]any)
	if len(tags) != len(want) {
		return false
	}
	for k, v := range want {
		if tags[k] != v {
			return false
		}
	}
	return true
}

func (a *applier) application(ctx context.Context, app *Application) error {
	in := map[string]any{
		"tenantId": a.c.Operator.TenantID, "displayName": app.Name, "appId": app.AppID,
		"identifierUris": app.IdentifierURIs, "tokenVersion": app.TokenVersion,
	}
	if app.Secret != nil {
		s, err := app.Secret.resolve()
		if err != nil {
			return err
		}
		in["clientSecret"] = s
	}
	var certs []string
	for _, file := range app.Certificates {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		certs = append(certs, string(pem))
	}
	in["certificates"] = certs
	creds := []map[string]any{}
	for _, f := range app.Federated {
		creds = append(creds, a.federated(&f))
	}
	in["federatedCredentials"] = creds
	var out struct {
		Created     bool   `json:"created"`
		Updated     bool   `json:"updated"`
		PrincipalID string `json:"principalId"`
	}
	if err := a.operator().Admin(ctx, "POST", "applications", in, &out); err != nil {
		return err
	}
	a.principals["application/"+app.Name] = out.PrincipalID
	a.done("application", app.Name, out.Created, out.Updated)
	return nil
}

// federated is the API's form of a declared credential.
func (a *applier) federated(f *Federated) map[string]any {
	issuer, subject := f.Issuer, f.Subject
	if f.ServiceAccount != "" {
		cluster := f.Cluster
		if cluster == "" {
			cluster = "local"
		}
		issuer = a.c.Issuer(cluster)
		subject = "system:serviceaccount:" + f.Namespace + ":" + f.ServiceAccount
	}
	audiences := f.Audiences
	if len(audiences) == 0 {
		audiences = []string{"api://AzureADTokenExchange"}
	}
	return map[string]any{"name": f.Name, "issuer": issuer, "subject": subject, "audiences": audiences}
}

func (a *applier) identity(ctx context.Context, c *Contents, id *Identity) error {
	arm := a.subscription() + "/resourceGroups/" + id.ResourceGroup + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + id.Name
	body := map[string]any{"location": c.location(id.Location), "tags": id.Tags}
	created, updated, err := a.put(ctx, arm, vIdentity, body, func(have map[string]any) bool { return sameTags(have, id.Tags) })
	if err != nil {
		return err
	}
	var got client.Identity
	if err := a.c.Manage(ctx, "GET", arm+"?api-version="+vIdentity, nil, &got); err != nil {
		return err
	}
	a.principals["identity/"+id.Name] = got.Properties.PrincipalID
	a.done("identity", id.Name, created, updated)

	for i := range id.Federated {
		f := &id.Federated[i]
		want := a.federated(f)
		created, updated, err := a.put(ctx, arm+"/federatedIdentityCredentials/"+f.Name, vIdentity,
			map[string]any{"properties": want}, func(have map[string]any) bool {
				p, _ := have["properties"].(map[string]any)
				aud, _ := p["audiences"].([]any)
				return p["issuer"] == want["issuer"] && p["subject"] == want["subject"] &&
					len(aud) == 1 && aud[0] == want["audiences"].([]string)[0]
			})
		if err != nil {
			return fmt.Errorf("federated credential %s: %w", f.Name, err)
		}
		a.done("federated credential", id.Name+"/"+f.Name, created, updated)
	}
	return nil
}

// assign gives a role at a scope. The assignment's name is derived from the
// three, so that a second run finds the first one's.
func (a *applier) assign(ctx context.Context, scope, role, principal string) error {
	definition, err := a.role(ctx, scope, role)
	if err != nil {
		return err
	}
	name := uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.ToLower(scope+"|"+definition+"|"+principal))).String()
	body := map[string]any{"properties": map[string]any{"roleDefinitionId": definition, "principalId": principal}}
	path := scope + "/providers/Microsoft.Authorization/roleAssignments/" + name + "?api-version=" + vAssignment
	err = a.c.Manage(ctx, "GET", path, nil, nil)
	created := client.IsNotFound(err)
	if created {
		err = a.c.Manage(ctx, "PUT", path, body, nil)
		if client.IsCode(err, "RoleAssignmentExists") { // made by somebody else under another name
			created, err = false, nil
		}
	}
	if err != nil {
		return fmt.Errorf("role %s at %s: %w", role, scope, err)
	}
	a.done("role assignment", role+" for "+principal+" at "+scope, created, false)
	return nil
}

// role finds a role definition by name or GUID and returns its id.
func (a *applier) role(ctx context.Context, scope, role string) (string, error) {
	if guid.MatchString(role) {
		return a.subscription() + "/providers/Microsoft.Authorization/roleDefinitions/" + strings.ToLower(role), nil
	}
	var list struct {
		Value []struct{ ID string }
	}
	filter := strings.NewReplacer(" ", "%20", "'", "%27").Replace("roleName eq '" + strings.ReplaceAll(role, "'", "''") + "'")
	err := a.c.Manage(ctx, "GET", scope+"/providers/Microsoft.Authorization/roleDefinitions?api-version="+vAssignment+"&$filter="+filter, nil, &list)
	if err != nil {
		return "", err
	}
	if len(list.Value) != 1 {
		return "", fmt.Errorf("there is no role named %q", role)
	}
	return list.Value[0].ID, nil
}

func (a *applier) vault(ctx context.Context, c *Contents, v *Vault) error {
	arm := a.subscription() + "/resourceGroups/" + v.ResourceGroup + "/providers/Microsoft.KeyVault/vaults/" + v.Name
	self := a.c.Operator.ObjectID
	policies := []any{}
	for _, acc := range v.Access {
		if v.AccessPolicies {
			policies = append(policies, policy(a.c.Operator.TenantID, a.principal(acc.Identity, acc.Application, acc.PrincipalID), acc.Secrets))
		}
	}
	if v.AccessPolicies && len(v.Secrets) > 0 { // to write them
		policies = append(policies, policy(a.c.Operator.TenantID, self, []string{"get", "set"}))
	}
	props := map[string]any{
		"tenantId": a.c.Operator.TenantID, "sku": map[string]string{"family": "A", "name": "standard"},
		"enableRbacAuthorization": !v.AccessPolicies, "accessPolicies": policies,
	}
	if v.RetentionDays != 0 {
		props["softDeleteRetentionInDays"] = v.RetentionDays
	}
	if v.PurgeProtection {
		props["enablePurgeProtection"] = true
	}
	body := map[string]any{"location": c.location(v.Location), "tags": v.Tags, "properties": props}
	created, updated, err := a.put(ctx, arm, vVault, body, func(have map[string]any) bool {
		p, _ := have["properties"].(map[string]any)
		havePolicies, _ := p["accessPolicies"].([]any)
		return sameTags(have, v.Tags) && p["enableRbacAuthorization"] == !v.AccessPolicies &&
			(!v.PurgeProtection || p["enablePurgeProtection"] == true) && samePolicies(havePolicies, policies)
	})
	if err != nil {
		return err
	}
	a.done("vault", v.Name, created, updated)

	if !v.AccessPolicies {
		for _, acc := range v.Access {
			if err := a.assign(ctx, arm, acc.Role, a.principal(acc.Identity, acc.Application, acc.PrincipalID)); err != nil {
				return err
			}
		}
		if len(v.Secrets) > 0 {
			if err := a.assign(ctx, arm, "Key Vault Secrets Officer", self); err != nil {
				return err
			}
		}
	}
	for i := range v.Secrets {
		if err := a.secret(ctx, v.Name, &v.Secrets[i]); err != nil {
			return fmt.Errorf("secret %s: %w", v.Secrets[i].Name, err)
		}
	}
	return nil
}

func policy(tenant, object string, secrets []string) map[string]any {
	perms := slices.Clone(secrets)
	for i := range perms {
		perms[i] = strings.ToLower(perms[i])
	}
	return map[string]any{"tenantId": tenant, "objectId": object, "permissions": map[string]any{"secrets": perms}}
}

// samePolicies compares who may do what with secrets, in any order.
func samePolicies(have, want []any) bool {
	key := func(p any) string {
		m, _ := p.(map[string]any)
		perms, _ := m["permissions"].(map[string]any)
		var names []string
		switch s := perms["secrets"].(type) {
		case []any:
			for _, n := range s {
				names = append(names, strings.ToLower(fmt.Sprint(n)))
			}
		case []string:
			names = append(names, s...)
		}
		slices.Sort(names)
		return fmt.Sprint(m["objectId"], names)
	}
	h, w := map[string]bool{}, map[string]bool{}
	for _, p := range have {
		h[key(p)] = true
	}
	for _, p := range want {
		w[key(p)] = true
	}
	return maps.Equal(h, w)
}

func (a *applier) secret(ctx context.Context, vault string, s *Secret) error {
	value, err := s.resolve()
	if err != nil {
		return err
	}
	path := "/secrets/" + s.Name + "?api-version=" + vSecret
	var have struct {
		Value       string            `json:"value"`
		ContentType string            `json:"contentType"`
		Tags        map[string]string `json:"tags"`
	}
	err = a.c.Vault(ctx, vault, http.MethodGet, path, nil, &have)
	created := client.IsNotFound(err)
	if err != nil && !created {
		return err
	}
	same := !created && have.Value == value && have.ContentType == s.ContentType && maps.Equal(have.Tags, s.Tags)
	if !same {
		in := map[string]any{"value": value, "contentType": s.ContentType, "tags": s.Tags}
		if s.ContentType == "" {
			delete(in, "contentType")
		}
		if err := a.c.Vault(ctx, vault, http.MethodPut, path, in, nil); err != nil {
			return err
		}
	}
	a.done("secret", vault+"/"+s.Name, created, !created && !same)
	return nil
}
