package connect

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// makeIdentity makes a managed identity.
type makeIdentity struct{ id *Identity }

func (a *makeIdentity) do(ctx context.Context, c *Connection) error {
	in := map[string]any{"location": a.id.Location, "tags": map[string]string{markTag: markMade}}
	var out wireIdentity
	if err := c.Cloud.manage(ctx, http.MethodPut, a.id.ID, versionIdentity, in, &out); err != nil {
		return err
	}
	*a.id = *out.identity()
	return nil
}

func (a *makeIdentity) commands(*Connection) []string {
	show := func(v variable, what string) string {
		return string(v) + `="$(` + words("az", "identity", "show", "--resource-group", a.id.Group, "--name", a.id.Name, "--query", what, "--output", "tsv") + `)"`
	}
	return []string{
		words("az", "identity", "create", "--resource-group", a.id.Group, "--name", a.id.Name, "--location", a.id.Location, "--tags", markTag+"="+markMade),
		show(varClientID, "clientId"), show(varPrincipalID, "principalId"),
	}
}

// makeApplication makes an application with its service principal, or the
// latter alone.
type makeApplication struct {
	id            *Identity
	principalOnly bool
	tags          []string // beside the mark's; azwi's flow has its own
}

func (a *makeApplication) do(ctx context.Context, c *Connection) error {
	if !a.principalOnly && a.id.ClientID == "" {
		tags := a.tags
		if tags == nil {
			tags = []string{markTag}
		}
		in := map[string]any{"displayName": a.id.Name, "signInAudience": "AzureADMyOrg", "tags": tags}
		var out struct {
			ID    string `json:"id"`
			AppID string `json:"appId"`
		}
		if err := c.Cloud.directory(ctx, http.MethodPost, "/applications", in, &out); err != nil {
			return err
		}
		a.id.ID, a.id.ClientID, a.id.made = out.ID, out.AppID, true
	}
	var sp struct {
		ID string `json:"id"`
	}
	if err := c.Cloud.directory(ctx, http.MethodPost, "/servicePrincipals", map[string]any{"appId": a.id.ClientID, "tags": a.tags}, &sp); err != nil {
		return err
	}
	a.id.PrincipalID = sp.ID
	return nil
}

func (a *makeApplication) commands(c *Connection) []string {
	if a.principalOnly {
		return []string{string(varPrincipalID) + `="$(` + words("az", "ad", "sp", "create", "--id", a.id.ClientID, "--query", "id", "--output", "tsv") + `)"`}
	}
	return []string{
		string(varClientID) + `="$(` + words("az", "ad", "app", "create", "--display-name", a.id.Name, "--sign-in-audience", "AzureADMyOrg", "--query", "appId", "--output", "tsv") + `)"`,
		string(varObjectID) + `="$(az ad app show --id "$` + string(varClientID) + `" --query id --output tsv)"`,
		`az rest --method PATCH --url "` + c.graphForAz() + `/v1.0/applications/$` + string(varObjectID) + `" --body ` + quote(`{"tags":["`+markTag+`"]}`),
		string(varPrincipalID) + `="$(az ad sp create --id "$` + string(varClientID) + `" --query id --output tsv)"`,
	}
}

// graphForAz is the directory API as az names it: a Podkey server is reached
// by Azure's names there.
func (c *Connection) graphForAz() string {
	if c.Cloud.Podkey {
		return "https://graph.microsoft.com"
	}
	return c.Cloud.Graph
}

// makeVault makes a vault.
type makeVault struct{ vault *Vault }

func (a *makeVault) do(ctx context.Context, c *Connection) error {
	in := map[string]any{"location": a.vault.Location, "tags": map[string]string{markTag: markMade}, "properties": map[string]any{
		"tenantId": c.Cloud.TenantID, "sku": map[string]string{"family": "A", "name": "standard"},
		"enableRbacAuthorization": a.vault.RBAC, "accessPolicies": []any{},
	}}
	var out wireVault
	if err := c.Cloud.manage(ctx, http.MethodPut, a.vault.ID, versionVault, in, &out); err != nil {
		return err
	}
	*a.vault = *out.vault()
	return nil
}

func (a *makeVault) commands(*Connection) []string {
	args := []string{"az", "keyvault", "create", "--resource-group", a.vault.Group, "--name", a.vault.Name, "--location", a.vault.Location}
	if a.vault.RBAC {
		args = append(args, "--enable-rbac-authorization", "true")
	} else {
		args = append(args, "--enable-rbac-authorization", "false", "--no-self-perms", "true")
	}
	return []string{words(append(args, "--tags", markTag+"="+markMade)...)}
}

// assignRole gives a role.
type assignRole struct {
	scope string
	role  Role // ID may be the whole id of a definition
	id    *Identity
}

func (a *assignRole) do(ctx context.Context, c *Connection) error {
	definition := a.role.ID
	if !strings.HasPrefix(definition, "/") {
		definition = c.Cloud.subscription() + "/providers/Microsoft.Authorization/roleDefinitions/" + definition
	}
	// Named after what it gives to whom, so that a second one is the same one.
	name := uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.ToLower(a.scope+"|"+definition+"|"+a.id.PrincipalID))).String()
	in := map[string]any{"properties": map[string]any{
		"roleDefinitionId": definition, "principalId": a.id.PrincipalID, "principalType": "ServicePrincipal", "description": markText,
	}}
	err := c.Cloud.manage(ctx, http.MethodPut, a.scope+"/providers/Microsoft.Authorization/roleAssignments/"+name, versionRoles, in, nil)
	if isRefusal(err, "RoleAssignmentExists") {
		return nil
	}
	return err
}

func (a *assignRole) commands(*Connection) []string {
	return []string{words("az", "role", "assignment", "create", "--assignee-object-id", written(varPrincipalID.or(a.id.PrincipalID)),
		"--assignee-principal-type", "ServicePrincipal", "--role", a.role.Name, "--scope", a.scope, "--description", markText)}
}

// addPolicy adds permissions to what a vault's access policy has. The vault's
// tag is written after it: should we die between the two, too little is undone
// later, never too much.
type addPolicy struct {
	vault       *Vault
	id          *Identity
	add         Permissions // what is missing
	all, record Permissions // what the policy, and the tag, have then
}

func (a *addPolicy) do(ctx context.Context, c *Connection) error {
	if err := c.changePolicy(ctx, "add", a.vault, a.id.PrincipalID, a.add); err != nil {
		return err
	}
	return c.Cloud.setTags(ctx, a.vault.ID, "Merge", map[string]string{policyTag(a.id.PrincipalID): a.record.String()})
}

// changePolicy adds permissions to, or takes them from, a caller's entry.
func (c *Connection) changePolicy(ctx context.Context, operation string, v *Vault, principal string, p Permissions) error {
	in := map[string]any{"properties": map[string]any{"accessPolicies": []Policy{{TenantID: v.TenantID, ObjectID: principal, Permissions: p}}}}
	return c.Cloud.manage(ctx, http.MethodPut, v.ID+"/accessPolicies/"+operation, versionVault, in, nil)
}

// setPolicy is the command that sets the lists of the kinds that change; az
// leaves the others.
func setPolicy(v *Vault, principal string, change, all *Permissions) string {
	args := []string{"az", "keyvault", "set-policy", "--name", v.Name, "--object-id", written(varPrincipalID.or(principal))}
	for i, list := range change.kinds() {
		if len(*list) > 0 {
			args = append(append(args, kindFlags[i]), *all.kinds()[i]...)
		}
	}
	return words(append(args, "--output", "none")...)
}

func (a *addPolicy) commands(*Connection) []string {
	return []string{
		setPolicy(a.vault, a.id.PrincipalID, &a.add, &a.all),
		words("az", "tag", "update", "--resource-id", a.vault.ID, "--operation", "Merge", "--tags",
			written(`"`+markTag+"-"+varPrincipalID.inside(strings.ToLower(a.id.PrincipalID))+"="+a.record.String()+`"`), "--output", "none"),
	}
}

// removePolicy takes permissions away again.
type removePolicy struct {
	vault     *Vault
	id        *Identity
	take, all Permissions // what goes, and what stays
	whole     bool        // nothing stays of the entry
}

func (a *removePolicy) do(ctx context.Context, c *Connection) error {
	if !a.take.Empty() {
		if err := c.changePolicy(ctx, "remove", a.vault, a.id.PrincipalID, a.take); err != nil {
			return err
		}
	}
	return c.Cloud.setTags(ctx, a.vault.ID, "Delete", map[string]string{policyTag(a.id.PrincipalID): a.vault.Tags[policyTag(a.id.PrincipalID)]})
}

func (a *removePolicy) commands(*Connection) []string {
	var out []string
	switch {
	case a.take.Empty():
	case a.whole:
		out = append(out, words("az", "keyvault", "delete-policy", "--name", a.vault.Name, "--object-id", a.id.PrincipalID, "--output", "none"))
	default:
		out = append(out, setPolicy(a.vault, a.id.PrincipalID, &a.take, &a.all))
	}
	tag := policyTag(a.id.PrincipalID)
	return append(out, words("az", "tag", "update", "--resource-id", a.vault.ID, "--operation", "Delete", "--tags", tag+"="+a.vault.Tags[tag], "--output", "none"))
}

// makeCredential makes a federated credential.
type makeCredential struct {
	id   *Identity
	cred Credential
}

func (a *makeCredential) do(ctx context.Context, c *Connection) error {
	return c.Cloud.putCredential(ctx, a.id, &a.cred)
}

func (a *makeCredential) commands(*Connection) []string {
	if a.id.Application {
		b, _ := json.Marshal(a.cred) // strings only
		return []string{words("az", "ad", "app", "federated-credential", "create", "--id", written(varObjectID.or(a.id.ID)), "--parameters", string(b))}
	}
	return []string{words("az", "identity", "federated-credential", "create", "--resource-group", a.id.Group, "--identity-name", a.id.Name, "--name", a.cred.Name,
		"--issuer", a.cred.Issuer, "--subject", a.cred.Subject, "--audiences", a.cred.Audiences[0])}
}

// removeCredential removes a federated credential.
type removeCredential struct {
	id   *Identity
	name string
}

func (a *removeCredential) do(ctx context.Context, c *Connection) error {
	return c.Cloud.deleteCredential(ctx, a.id, a.name)
}

func (a *removeCredential) line() string {
	if a.id.Application {
		return words("az", "ad", "app", "federated-credential", "delete", "--id", a.id.ID, "--federated-credential-id", a.name)
	}
	return words("az", "identity", "federated-credential", "delete", "--resource-group", a.id.Group, "--identity-name", a.id.Name, "--name", a.name, "--yes")
}

func (a *removeCredential) commands(*Connection) []string { return []string{a.line()} }

// removeAssignment takes a role away.
type removeAssignment struct{ id string }

func (a *removeAssignment) do(ctx context.Context, c *Connection) error {
	return gone(c.Cloud.manage(ctx, http.MethodDelete, a.id, versionRoles, nil, nil))
}

func (a *removeAssignment) commands(*Connection) []string {
	return []string{words("az", "role", "assignment", "delete", "--ids", a.id)}
}

// removeIdentity removes an identity.
type removeIdentity struct{ id *Identity }

func (a *removeIdentity) do(ctx context.Context, c *Connection) error {
	if a.id.Application {
		return gone(c.Cloud.directory(ctx, http.MethodDelete, "/applications/"+url.PathEscape(a.id.ID), nil, nil))
	}
	return gone(c.Cloud.manage(ctx, http.MethodDelete, a.id.ID, versionIdentity, nil, nil))
}

func (a *removeIdentity) commands(*Connection) []string {
	if a.id.Application {
		return []string{words("az", "ad", "app", "delete", "--id", a.id.ID)}
	}
	return []string{words("az", "identity", "delete", "--ids", a.id.ID)}
}

// removeVault deletes a vault, softly.
type removeVault struct{ vault *Vault }

func (a *removeVault) do(ctx context.Context, c *Connection) error {
	return gone(c.Cloud.manage(ctx, http.MethodDelete, a.vault.ID, versionVault, nil, nil))
}

func (a *removeVault) commands(*Connection) []string {
	return []string{words("az", "keyvault", "delete", "--resource-group", a.vault.Group, "--name", a.vault.Name)}
}

// makeNamespace makes a namespace.
type makeNamespace struct{ name string }

func (a *makeNamespace) do(ctx context.Context, c *Connection) error {
	return c.Cluster.createNamespace(ctx, a.name)
}

func (a *makeNamespace) commands(c *Connection) []string {
	return []string{c.Cluster.kubectl("create", "namespace", a.name, "--field-manager", fieldManager)}
}

// makeAccount makes an annotated service account.
type makeAccount struct {
	ns, name string
	id       *Identity
	tenant   bool // its tenant is not the usual one
}

// annotations are those that it is made with. clientID may be a shell's
// variable.
func (a *makeAccount) annotations(clientID string) map[string]string {
	mark := accountMark{Made: true, Set: map[string]string{AnnotationClientID: clientID}}
	out := map[string]string{AnnotationClientID: clientID}
	if a.tenant {
		out[AnnotationTenantID] = a.id.TenantID
		mark.Set[AnnotationTenantID] = a.id.TenantID
	}
	out[markAnnotation] = mark.String()
	return out
}

func (a *makeAccount) do(ctx context.Context, c *Connection) error {
	return c.Cluster.createAccount(ctx, a.ns, a.name, a.annotations(a.id.ClientID))
}

// commands makes it by a manifest, so that there is no moment at which it has
// no annotation. JSON is YAML.
func (a *makeAccount) commands(c *Connection) []string {
	b, _ := json.MarshalIndent(accountObject(a.ns, a.name, a.annotations(varClientID.held(a.id.ClientID))), "", "  ") // strings only
	create := c.Cluster.kubectl("create", "--field-manager", fieldManager, "-f", "-")
	if a.id.ClientID == "" {
		return []string{create + " <<EOF", varClientID.expand(string(b), true), "EOF"}
	}
	return []string{create + " <<'EOF'", string(b), "EOF"}
}

// annotateAccount sets annotations of a service account that is there.
type annotateAccount struct {
	ns, name, version string
	id                *Identity
	keys              []string
	mark              accountMark // what was there before
	replace           bool
}

func (a *annotateAccount) values(clientID string) map[string]string {
	out := map[string]string{}
	mark := accountMark{Made: a.mark.Made, Had: maps.Clone(a.mark.Had), Set: maps.Clone(a.mark.Set)}
	for _, key := range a.keys {
		out[key] = clientID
		if key == AnnotationTenantID {
			out[key] = a.id.TenantID
		}
		mark.Set[key] = out[key]
	}
	out[markAnnotation] = mark.String()
	return out
}

func (a *annotateAccount) do(ctx context.Context, c *Connection) error {
	set := map[string]*string{}
	for k, v := range a.values(a.id.ClientID) {
		set[k] = &v
	}
	return c.Cluster.annotate(ctx, a.ns, a.name, a.version, set)
}

func (a *annotateAccount) commands(c *Connection) []string {
	values := a.values(varClientID.held(a.id.ClientID))
	args := []string{"annotate", "serviceaccount", "--namespace", a.ns, a.name, "--field-manager", fieldManager, "--overwrite"}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		word := k + "=" + values[k]
		if a.id.ClientID == "" {
			word = written(`"` + varClientID.expand(word, false) + `"`)
		}
		args = append(args, word)
	}
	return []string{c.Cluster.kubectl(args...)}
}

// restoreAccount puts annotations back to what they were.
type restoreAccount struct {
	ns, name string
	account  *Account
	set      map[string]*string // nil: removed
}

func (a *restoreAccount) do(ctx context.Context, c *Connection) error {
	return c.Cluster.annotate(ctx, a.ns, a.name, a.account.ResourceVersion, a.set)
}

func (a *restoreAccount) commands(c *Connection) []string {
	args := []string{"annotate", "serviceaccount", "--namespace", a.ns, a.name, "--field-manager", fieldManager, "--overwrite"}
	for _, k := range slices.Sorted(maps.Keys(a.set)) {
		if v := a.set[k]; v != nil {
			args = append(args, k+"="+*v)
		} else {
			args = append(args, k+"-")
		}
	}
	return []string{c.Cluster.kubectl(args...)}
}

// removeAccount deletes a service account.
type removeAccount struct {
	ns, name string
	account  *Account
}

func (a *removeAccount) do(ctx context.Context, c *Connection) error {
	return c.Cluster.deleteAccount(ctx, a.ns, a.name, a.account)
}

func (a *removeAccount) commands(c *Connection) []string {
	return []string{c.Cluster.kubectl("delete", "serviceaccount", "--namespace", a.ns, a.name)}
}
