package connect

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/text"
)

// Phases of `serviceaccount create`, as azwi names them, and their short names.
const (
	WorkloadApplication = "aad-application"
	WorkloadAccount     = "service-account"
	WorkloadCredential  = "federated-identity"
	WorkloadRole        = "role-assignment"
)

// Limits of a service-account token's life.
const (
	MinExpiration     = time.Hour
	MaxExpiration     = 24 * time.Hour
	DefaultExpiration = time.Hour
)

// Workload is what `serviceaccount create` and `delete` work on: azwi's
// options, with managed identities beside applications.
type Workload struct {
	Connection

	Expiration          time.Duration
	ApplicationClientID string
	ApplicationObjectID string
	PrincipalName       string
	PrincipalObjectID   string
	Scope, Role         string
	AssignmentID        string
	Version             string // noted on what is made

	id    *Identity
	asked bool // for id
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.URLEncoding.EncodeToString(sum[:])
}

// IssuerHash is what azwi makes of an issuer in the names of applications.
func IssuerHash(issuer string) string { return hash(issuer) }

// ApplicationName is azwi's name for the application of a service account.
func ApplicationName(namespace, account, issuer string) string {
	return namespace + "-" + account + "-" + hash(issuer)
}

// FederatedName is azwi's name for the federated credential of a service
// account.
func FederatedName(namespace, account, issuer string) string {
	return hash(namespace + "-" + account + "-" + issuer)
}

// storedName is azwi's name as far as the rules for names allow: with a letter
// before it, without its padding.
func storedName(namespace, account, issuer string) string {
	return "azwi-" + strings.TrimRight(FederatedName(namespace, account, issuer), "=")
}

// WorkloadPhase is one phase of create or delete.
type WorkloadPhase struct {
	Name, Short string
	check       func() error
	run         func(context.Context) (outcome, detail string, err error)
}

// WorkloadPhases finds phases by their names or short ones, all if none is
// named, and leaves out those to skip.
func WorkloadPhases(phases []WorkloadPhase, only string, skip []string) ([]WorkloadPhase, error) {
	var names []string
	for _, p := range phases {
		names = append(names, p.Name)
	}
	long := func(n string) string {
		for _, p := range phases {
			if n == p.Short {
				return p.Name
			}
		}
		return n
	}
	for i := range skip {
		skip[i] = long(skip[i])
	}
	skipped, err := Skips(skip, names)
	if err != nil {
		return nil, err
	}
	if only != "" && !slices.Contains(names, long(only)) {
		return nil, fmt.Errorf("phase '%s' not found. Valid phases are: %v", text.Printable(only), names)
	}
	return slices.DeleteFunc(slices.Clone(phases), func(p WorkloadPhase) bool {
		return skipped[p.Name] || only != "" && p.Name != long(only)
	}), nil
}

// RunWorkload runs the checks of all phases, and then the phases.
func (w *Workload) RunWorkload(ctx context.Context, phases []WorkloadPhase, report func(phase, outcome, detail string, took time.Duration)) error {
	for _, p := range phases {
		if err := p.check(); err != nil {
			return fmt.Errorf("failed to run pre-run for phase %s: %w", p.Name, err)
		}
	}
	for _, p := range phases {
		start := w.now()
		outcome, detail, err := p.run(ctx)
		if err != nil {
			return fmt.Errorf("failed to run phase %s: %w", p.Name, err)
		}
		report(p.Name, outcome, detail, w.now().Sub(start))
	}
	return nil
}

// Resolve finds out the issuer where it was not given, and compares it with
// the cluster's own word where it was.
func (w *Workload) Resolve(ctx context.Context) error {
	var s State
	err := w.readIssuer(ctx, &s)
	if err != nil && (w.Request.Issuer != "" || s.Issuer != "") {
		return err
	}
	if err == nil {
		w.Request.Issuer = s.Issuer
	}
	return nil
}

func (w *Workload) managed() bool { return w.Request.Identity != "" }

func required(value, flag string) error {
	if value == "" {
		return errors.New("--" + flag + " is required")
	}
	return nil
}

// name is the application's: as given, or azwi's for the service account.
func (w *Workload) name() (string, error) {
	r := &w.Request
	if r.Application != "" {
		return r.Application, nil
	}
	if err := errors.Join(required(r.Account, "service-account-name"), required(r.Namespace, "service-account-namespace"), required(r.Issuer, "service-account-issuer-url")); err != nil {
		return "", fmt.Errorf("--aad-application-name is required, or what makes it up: %s", strings.ReplaceAll(err.Error(), "\n", ", "))
	}
	return ApplicationName(r.Namespace, r.Account, r.Issuer), nil
}

// identity finds the application or managed identity; nil if there is none.
func (w *Workload) identity(ctx context.Context) (*Identity, error) {
	if w.asked {
		return w.id, nil
	}
	find := w.Connection
	if !w.managed() {
		name := w.ApplicationClientID
		if name == "" && w.ApplicationObjectID != "" {
			var app struct{ AppID string }
			err := w.Cloud.directory(ctx, http.MethodGet, "/applications/"+url.PathEscape(w.ApplicationObjectID), nil, &app)
			if err != nil {
				return nil, gone(err)
			}
			name = app.AppID
		}
		if name == "" {
			var err error
			if name, err = w.name(); err != nil {
				return nil, err
			}
		}
		find.Request.Application = name
	} else {
		find.Request.Application = ""
	}
	var s State
	if err := find.readIdentity(ctx, &s); err != nil {
		return nil, err
	}
	w.id, w.asked = s.Identity, true
	return w.id, nil
}

// mustIdentity is identity for the phases that need it.
func (w *Workload) mustIdentity(ctx context.Context) (*Identity, error) {
	id, err := w.identity(ctx)
	if err == nil && id == nil {
		err = errors.New("there is no application or managed identity for this service account: run the phase " + WorkloadApplication)
	}
	return id, err
}

// Create returns the phases of `serviceaccount create`.
func (w *Workload) Create() []WorkloadPhase {
	return []WorkloadPhase{
		{WorkloadApplication, "app", w.checkIdentity, w.createIdentity},
		{WorkloadAccount, "sa", w.checkAccount, w.createAccount},
		{WorkloadCredential, "fi", w.checkCredential, w.createCredential},
		{WorkloadRole, "ra", w.checkRole, w.createRole},
	}
}

// Delete returns the phases of `serviceaccount delete`.
func (w *Workload) Delete() []WorkloadPhase {
	r := &w.Request
	account := func() error {
		return cmp.Or(required(r.Account, "service-account-name"), required(r.Namespace, "service-account-namespace"), w.needCluster())
	}
	return []WorkloadPhase{
		{WorkloadRole, "ra", w.checkRemoveRole, w.removeRole},
		{WorkloadCredential, "fi", w.checkCredential, w.removeCredential},
		{WorkloadAccount, "sa", account, w.removeAccount},
		{WorkloadApplication, "app", w.checkIdentity, w.removeIdentity},
	}
}

// WithoutImplied leaves out the phase that another one makes needless: a
// federated credential goes with its application.
func WithoutImplied(phases []WorkloadPhase) []WorkloadPhase {
	if !slices.ContainsFunc(phases, func(p WorkloadPhase) bool { return p.Name == WorkloadApplication }) {
		return phases
	}
	return slices.DeleteFunc(phases, func(p WorkloadPhase) bool { return p.Name == WorkloadCredential })
}

func (w *Workload) checkIdentity() error {
	if w.managed() {
		if !strings.HasPrefix(w.Request.Identity, "/") {
			return required(w.Request.Group, "managed-identity-resource-group")
		}
		return nil
	}
	if w.ApplicationClientID != "" || w.ApplicationObjectID != "" {
		return nil
	}
	_, err := w.name()
	return err
}

func (w *Workload) createIdentity(ctx context.Context) (string, string, error) {
	id, err := w.identity(ctx)
	if err != nil {
		return "", "", err
	}
	if id != nil && !id.missing() {
		return Exists, id.label(), nil
	}
	var a action
	switch {
	case id != nil:
		a = &makeApplication{id: id, principalOnly: true, tags: w.tags()}
	case w.managed():
		if strings.HasPrefix(w.Request.Identity, "/") || isGUID(w.Request.Identity) {
			return "", "", fmt.Errorf("there is no managed identity %s", text.Printable(w.Request.Identity))
		}
		id = &Identity{ID: w.Cloud.groupPath(w.Request.Group) + typeIdentity + "/" + w.Request.Identity, Name: w.Request.Identity, Group: w.Request.Group, Location: w.Request.Location}
		if id.Location == "" {
			var g resource
			if err := w.Cloud.manage(ctx, http.MethodGet, w.Cloud.groupPath(id.Group), versionGroup, nil, &g); err != nil {
				return "", "", err
			}
			id.Location = g.Location
		}
		a = &makeIdentity{id}
	case w.ApplicationClientID != "" || w.ApplicationObjectID != "":
		return "", "", errors.New("there is no application with this id")
	default:
		name, err := w.name()
		if err != nil {
			return "", "", err
		}
		id = &Identity{Application: true, Name: name, TenantID: w.Cloud.TenantID}
		a = &makeApplication{id: id, tags: w.tags()}
	}
	if err := w.persist(ctx, func() error { return a.do(ctx, &w.Connection) }); err != nil {
		return "", "", err
	}
	w.id, w.asked = id, true
	return Made, id.label(), nil
}

func (w *Workload) tags() []string { return []string{"podkey version: " + w.Version} }

func (w *Workload) needCluster() error {
	if w.Cluster == nil || w.Cluster.kube == nil {
		return errors.New("no Kubernetes cluster: give --kubeconfig FILE")
	}
	return nil
}

func (w *Workload) checkAccount() error {
	r := &w.Request
	if err := cmp.Or(required(r.Account, "service-account-name"), required(r.Namespace, "service-account-namespace")); err != nil {
		return err
	}
	switch {
	case w.Expiration < MinExpiration:
		return fmt.Errorf("--service-account-token-expiration must be greater than or equal to %s", MinExpiration)
	case w.Expiration > MaxExpiration:
		return fmt.Errorf("--service-account-token-expiration must be less than or equal to %s", MaxExpiration)
	}
	return w.needCluster()
}

func (w *Workload) createAccount(ctx context.Context) (string, string, error) {
	id, err := w.mustIdentity(ctx)
	if err != nil {
		return "", "", err
	}
	r := &w.Request
	want := map[string]string{AnnotationClientID: id.ClientID, AnnotationTenantID: id.TenantID}
	if w.Expiration != DefaultExpiration {
		want[AnnotationExpiration] = strconv.Itoa(int(w.Expiration.Seconds()))
	}
	label := r.Namespace + "/" + r.Account
	have, _, err := w.Cluster.account(ctx, r.Namespace, r.Account)
	if err != nil {
		return "", "", err
	}
	if have == nil {
		return Made, label, w.Cluster.createAccount(ctx, r.Namespace, r.Account, want)
	}
	// It is merged, not replaced: what others have added stays.
	change := map[string]*string{}
	for k, v := range want {
		if have.Annotations[k] != v {
			change[k] = &v
		}
	}
	if len(change) == 0 {
		return Exists, label, nil
	}
	return Changed, label, w.Cluster.annotate(ctx, r.Namespace, r.Account, have.ResourceVersion, change)
}

func (w *Workload) checkCredential() error {
	r := &w.Request
	return cmp.Or(required(r.Account, "service-account-name"), required(r.Namespace, "service-account-namespace"), required(r.Issuer, "service-account-issuer-url"))
}

func (w *Workload) createCredential(ctx context.Context) (string, string, error) {
	id, err := w.mustIdentity(ctx)
	if err != nil {
		return "", "", err
	}
	r := &w.Request
	every, err := w.Cloud.credentials(ctx, id)
	if err != nil {
		return "", "", err
	}
	want := Credential{Name: storedName(r.Namespace, r.Account, r.Issuer), Issuer: r.Issuer, Subject: r.subject(), Audiences: []string{r.audience()}}
	if id.Application {
		want.Description = fmt.Sprintf("Federated Service Account for %s/%s", r.Namespace, r.Account)
	}
	for _, f := range every {
		if f.Issuer == want.Issuer && f.Subject == want.Subject {
			if !slices.Equal(f.Audiences, want.Audiences) {
				return "", "", fmt.Errorf("the credential %s is for the audience %s", text.Printable(f.Name), printableList(f.Audiences))
			}
			return Exists, text.Printable(f.Name), nil
		}
	}
	if len(every) >= MaxCredentials {
		return "", "", fmt.Errorf("%s has %d federated credentials, and there can be no more", id.label(), len(every))
	}
	return Made, want.Name, w.persist(ctx, func() error { return w.Cloud.putCredential(ctx, id, &want) })
}

func (w *Workload) checkRole() error {
	if err := cmp.Or(required(w.Scope, "azure-scope"), required(w.Role, "azure-role")); err != nil {
		return err
	}
	if w.managed() || w.PrincipalObjectID != "" || w.PrincipalName != "" || w.ApplicationClientID != "" || w.ApplicationObjectID != "" {
		return nil
	}
	if _, err := w.name(); err != nil {
		return errors.New("--service-principal-name or --service-principal-object-id is required")
	}
	return nil
}

// principalID is who gets the role, or had it; empty if nobody.
func (w *Workload) principalID(ctx context.Context) (string, error) {
	if w.PrincipalObjectID != "" {
		return w.PrincipalObjectID, nil
	}
	if w.PrincipalName != "" {
		type object struct{ ID string }
		found, err := list[object](ctx, w.Cloud.graph, w.Cloud.Graph+"/v1.0/servicePrincipals?$filter="+
			url.QueryEscape("displayName eq '"+strings.ReplaceAll(w.PrincipalName, "'", "''")+"'"))
		if err != nil || len(found) == 0 {
			return "", err
		}
		if len(found) > 1 {
			return "", fmt.Errorf("%d service principals have the display name %s: give --service-principal-object-id", len(found), text.Printable(w.PrincipalName))
		}
		return found[0].ID, nil
	}
	id, err := w.identity(ctx)
	if err != nil || id == nil {
		return "", err
	}
	return id.PrincipalID, nil
}

// definition finds a role by name or GUID.
func (w *Workload) definition(ctx context.Context) (string, error) {
	if isGUID(w.Role) {
		return w.Cloud.subscription() + "/providers/Microsoft.Authorization/roleDefinitions/" + strings.ToLower(w.Role), nil
	}
	type definition struct{ ID string }
	found, err := list[definition](ctx, w.Cloud.arm, w.Cloud.Management+escapePath(w.scope())+"/providers/Microsoft.Authorization/roleDefinitions?api-version="+versionRoles+
		"&$filter="+url.QueryEscape("roleName eq '"+strings.ReplaceAll(w.Role, "'", "''")+"'"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("there is no role named %q", text.Printable(w.Role))
	}
	if err != nil {
		return "", err
	}
	return found[0].ID, nil
}

func (w *Workload) scope() string { return "/" + strings.Trim(w.Scope, "/") }

func (w *Workload) createRole(ctx context.Context) (string, string, error) {
	principal, err := w.principalID(ctx)
	if err == nil && principal == "" {
		err = errors.New("there is no service principal to give the role to: run the phase " + WorkloadApplication)
	}
	if err != nil {
		return "", "", err
	}
	have, definition, err := w.assignment(ctx, principal)
	if err != nil {
		return "", "", err
	}
	detail := text.Printable(w.Role) + " at " + text.Printable(w.scope())
	if have != "" {
		return Exists, detail, nil
	}
	a := &assignRole{scope: w.scope(), role: Role{Name: w.Role, ID: definition}, id: &Identity{PrincipalID: principal}}
	return Made, detail, w.persist(ctx, func() error { return a.do(ctx, &w.Connection) })
}

// assignment finds the assignment of the role at exactly the scope.
func (w *Workload) assignment(ctx context.Context, principal string) (id, definition string, err error) {
	if definition, err = w.definition(ctx); err != nil {
		return "", "", err
	}
	every, err := w.Cloud.assignments(ctx, w.scope(), principal)
	for _, a := range every {
		if a.Role == strings.ToLower(lastOf(definition)) && strings.EqualFold(strings.Trim(a.Scope, "/"), strings.Trim(w.Scope, "/")) {
			return a.ID, definition, nil
		}
	}
	return "", definition, err
}

func (w *Workload) checkRemoveRole() error {
	if w.AssignmentID != "" {
		return nil
	}
	if w.Scope == "" && w.Role == "" {
		return required("", "role-assignment-id")
	}
	return w.checkRole()
}

const notThere = "there is none"

func (w *Workload) removeRole(ctx context.Context) (string, string, error) {
	id := w.AssignmentID
	if id == "" {
		principal, err := w.principalID(ctx)
		if err != nil {
			return "", "", err
		}
		if principal != "" {
			if id, _, err = w.assignment(ctx, principal); err != nil {
				return "", "", err
			}
		}
	}
	if id == "" {
		return Known, notThere, nil
	}
	return w.removed(id, w.Cloud.manage(ctx, http.MethodDelete, "/"+strings.TrimLeft(id, "/"), versionRoles, nil, nil))
}

// removed tells a removal from finding nothing.
func (w *Workload) removed(what string, err error) (string, string, error) {
	if isMissing(err) {
		return Known, notThere, nil
	}
	return Removed, text.Printable(what), err
}

func (w *Workload) removeCredential(ctx context.Context) (string, string, error) {
	id, err := w.identity(ctx)
	if err != nil || id == nil {
		return Known, notThere, err
	}
	every, err := w.Cloud.credentials(ctx, id)
	if err != nil {
		return "", "", err
	}
	for _, f := range every {
		if f.Issuer == w.Request.Issuer && f.Subject == w.Request.subject() {
			return w.removed(f.Name, w.Cloud.deleteCredential(ctx, id, f.Name))
		}
	}
	return Known, notThere, nil
}

func (w *Workload) removeAccount(ctx context.Context) (string, string, error) {
	r := &w.Request
	have, _, err := w.Cluster.account(ctx, r.Namespace, r.Account)
	if err != nil || have == nil {
		return Known, notThere, err
	}
	return w.removed(r.Namespace+"/"+r.Account, w.Cluster.deleteAccount(ctx, r.Namespace, r.Account, have))
}

func (w *Workload) removeIdentity(ctx context.Context) (string, string, error) {
	id, err := w.identity(ctx)
	if err != nil || id == nil {
		return Known, notThere, err
	}
	return w.removed(id.label(), (&removeIdentity{id}).do(ctx, &w.Connection))
}
