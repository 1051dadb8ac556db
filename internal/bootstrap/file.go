// Package bootstrap makes a server hold what a file declares: tenants,
// resource groups, applications, identities with their federated credentials,
// vaults with their secrets, and role assignments.
//
// It is idempotent: what is there already and as declared is left alone, so
// that a second run changes nothing, and nothing undeclared is removed. It
// works through the public APIs with the operator's credentials; there is no
// other way in. A file is checked whole before anything is changed.
package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// File is a declaration. Its top level is about the server's own tenant.
type File struct {
	Contents
	Tenants []Tenant `json:"tenants,omitempty"` // further tenants, each with a subscription of its own
}

// Tenant is a further tenant and what is in it.
type Tenant struct {
	ID             string   `json:"id"`             // GUID
	SubscriptionID string   `json:"subscriptionId"` // GUID
	DisplayName    string   `json:"displayName,omitempty"`
	Domains        []string `json:"domains,omitempty"` // verified domain names, usable instead of the id
	Contents
}

// Contents is what a tenant's subscription holds.
type Contents struct {
	Location        string           `json:"location,omitempty"` // default of everything below; westeurope if empty
	ResourceGroups  []ResourceGroup  `json:"resourceGroups,omitempty"`
	Applications    []Application    `json:"applications,omitempty"`
	Identities      []Identity       `json:"identities,omitempty"`
	Vaults          []Vault          `json:"vaults,omitempty"`
	RoleAssignments []RoleAssignment `json:"roleAssignments,omitempty"`
}

// ResourceGroup is a resource group. Groups that identities and vaults name
// need no entry of their own.
type ResourceGroup struct {
	Name     string            `json:"name"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// Application is an application with its service principal, found again by
// its display name.
type Application struct {
	Name           string      `json:"name"`
	AppID          string      `json:"appId,omitempty"` // GUID; made up on creation if empty
	IdentifierURIs []string    `json:"identifierUris,omitempty"`
	TokenVersion   int         `json:"tokenVersion,omitempty"` // 1 or 2, of tokens for this application; 1 if zero
	Secret         *Value      `json:"secret,omitempty"`       // a client secret
	Certificates   []string    `json:"certificates,omitempty"` // PEM files, relative to this file
	Federated      []Federated `json:"federatedCredentials,omitempty"`
}

// Identity is a user-assigned managed identity.
type Identity struct {
	Name          string            `json:"name"`
	ResourceGroup string            `json:"resourceGroup"`
	Location      string            `json:"location,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`
	Federated     []Federated       `json:"federatedCredentials,omitempty"`
}

// Federated is a federated identity credential: either issuer and subject, or
// a service account of one of the server's own clusters.
type Federated struct {
	Name           string   `json:"name"`
	Issuer         string   `json:"issuer,omitempty"`
	Subject        string   `json:"subject,omitempty"`
	Audiences      []string `json:"audiences,omitempty"` // api://AzureADTokenExchange if empty
	Cluster        string   `json:"cluster,omitempty"`   // local if empty
	Namespace      string   `json:"namespace,omitempty"`
	ServiceAccount string   `json:"serviceAccount,omitempty"`
}

// Vault is a key vault.
type Vault struct {
	Name            string            `json:"name"`
	ResourceGroup   string            `json:"resourceGroup"`
	Location        string            `json:"location,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
	AccessPolicies  bool              `json:"accessPolicies,omitempty"` // classic permission model instead of roles
	RetentionDays   int               `json:"retentionDays,omitempty"`  // 7 to 90; 90 if zero
	PurgeProtection bool              `json:"purgeProtection,omitempty"`
	Access          []Access          `json:"access,omitempty"`
	Secrets         []Secret          `json:"secrets,omitempty"`
}

// Access lets a declared identity or application use a vault: by a role, or
// in the classic model by permissions.
type Access struct {
	Identity    string   `json:"identity,omitempty"`
	Application string   `json:"application,omitempty"`
	PrincipalID string   `json:"principalId,omitempty"` // object id of somebody else
	Role        string   `json:"role,omitempty"`        // name or GUID of a role definition
	Secrets     []string `json:"secrets,omitempty"`     // permissions, such as get and list
}

// Secret is a secret of a vault. A new version is made only when the value or
// an attribute differs from the newest one.
type Secret struct {
	Name        string            `json:"name"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Value
}

// Value is a secret text: in the declaration itself, in a file beside it, or
// in an environment variable. Exactly one is given.
type Value struct {
	Literal *string `json:"value,omitempty"`
	File    string  `json:"file,omitempty"` // relative to the declaration; taken byte for byte
	Env     string  `json:"env,omitempty"`
}

// RoleAssignment gives a role at a scope.
type RoleAssignment struct {
	Identity    string `json:"identity,omitempty"`
	Application string `json:"application,omitempty"`
	PrincipalID string `json:"principalId,omitempty"`
	Role        string `json:"role"`
	Scope       string `json:"scope,omitempty"` // ARM id; the subscription if empty
}

// Format keeps a literal value out of logs and error texts.
func (v Value) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[redacted]") }

// Read reads and checks a declaration. Unknown members are refused; all
// problems are reported at once.
func Read(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	dir := filepath.Dir(path)
	for _, c := range f.all() {
		for i := range c.Vaults {
			for j := range c.Vaults[i].Secrets {
				c.Vaults[i].Secrets[j].anchor(dir)
			}
		}
		for i := range c.Applications {
			if s := c.Applications[i].Secret; s != nil {
				s.anchor(dir)
			}
			for j, p := range c.Applications[i].Certificates {
				if !filepath.IsAbs(p) {
					c.Applications[i].Certificates[j] = filepath.Join(dir, p)
				}
			}
		}
	}
	return f, nil
}

func (v *Value) anchor(dir string) {
	if v.File != "" && !filepath.IsAbs(v.File) {
		v.File = filepath.Join(dir, v.File)
	}
}

// Parse is Read without a file.
func Parse(b []byte) (*File, error) {
	var f File
	if err := yaml.UnmarshalStrict(b, &f); err != nil {
		return nil, err
	}
	return &f, f.Validate()
}

func (f *File) all() []*Contents {
	cs := []*Contents{&f.Contents}
	for i := range f.Tenants {
		cs = append(cs, &f.Tenants[i].Contents)
	}
	return cs
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)

// Validate reports every problem that can be seen without the server.
func (f *File) Validate() error {
	var errs []error
	for i, t := range f.Tenants {
		if !guid.MatchString(t.ID) {
			errs = append(errs, fmt.Errorf("tenants[%d]: id must be a GUID", i))
		}
		if !guid.MatchString(t.SubscriptionID) {
			errs = append(errs, fmt.Errorf("tenants[%d]: subscriptionId must be a GUID", i))
		}
		errs = append(errs, t.Contents.validate(fmt.Sprintf("tenants[%d].", i))...)
	}
	return errors.Join(append(errs, f.Contents.validate("")...)...)
}

func (c *Contents) validate(at string) (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(at+format, args...)) }
	identities, applications := map[string]bool{}, map[string]bool{}
	for i, g := range c.ResourceGroups {
		if g.Name == "" {
			bad("resourceGroups[%d]: name is missing", i)
		}
	}
	for i, a := range c.Applications {
		if a.Name == "" || applications[a.Name] {
			bad("applications[%d]: name is missing or used twice", i)
		}
		applications[a.Name] = true
		if a.TokenVersion < 0 || a.TokenVersion > 2 {
			bad("applications[%d]: tokenVersion must be 1 or 2", i)
		}
		if a.Secret != nil {
			if err := a.Secret.validate(); err != nil {
				bad("applications[%d].secret: %w", i, err)
			}
		}
		for j, fc := range a.Federated {
			if err := fc.validate(); err != nil {
				bad("applications[%d].federatedCredentials[%d]: %w", i, j, err)
			}
		}
	}
	for i, id := range c.Identities {
		if id.Name == "" || identities[id.Name] {
			bad("identities[%d]: name is missing or used twice", i)
		}
		identities[id.Name] = true
		if id.ResourceGroup == "" {
			bad("identities[%d]: resourceGroup is missing", i)
		}
		for j, fc := range id.Federated {
			if err := fc.validate(); err != nil {
				bad("identities[%d].federatedCredentials[%d]: %w", i, j, err)
			}
		}
	}
	who := func(identity, application, principal string) error {
		n := 0
		for _, s := range []string{identity, application, principal} {
			if s != "" {
				n++
			}
		}
		switch {
		case n != 1:
			return errors.New("give one of identity, application and principalId")
		case identity != "" && !identities[identity]:
			return fmt.Errorf("identity %q is not declared", identity)
		case application != "" && !applications[application]:
			return fmt.Errorf("application %q is not declared", application)
		}
		return nil
	}
	for i, v := range c.Vaults {
		if v.Name == "" || v.ResourceGroup == "" {
			bad("vaults[%d]: name or resourceGroup is missing", i)
		}
		for j, a := range v.Access {
			if err := who(a.Identity, a.Application, a.PrincipalID); err != nil {
				bad("vaults[%d].access[%d]: %w", i, j, err)
			}
			if v.AccessPolicies == (a.Role != "") || v.AccessPolicies != (len(a.Secrets) > 0) {
				bad("vaults[%d].access[%d]: give role, or with accessPolicies: true give secrets", i, j)
			}
		}
		for j, s := range v.Secrets {
			if s.Name == "" {
				bad("vaults[%d].secrets[%d]: name is missing", i, j)
			}
			if err := s.Value.validate(); err != nil {
				bad("vaults[%d].secrets[%d]: %w", i, j, err)
			}
		}
	}
	for i, a := range c.RoleAssignments {
		if err := who(a.Identity, a.Application, a.PrincipalID); err != nil {
			bad("roleAssignments[%d]: %w", i, err)
		}
		if a.Role == "" {
			bad("roleAssignments[%d]: role is missing", i)
		}
	}
	return errs
}

func (v *Value) validate() error {
	n := 0
	if v.Literal != nil {
		n++
	}
	if v.File != "" {
		n++
	}
	if v.Env != "" {
		n++
	}
	if n != 1 {
		return errors.New("give exactly one of value, file and env")
	}
	return nil
}

func (f *Federated) validate() error {
	explicit, account := f.Issuer != "" && f.Subject != "", f.Namespace != "" && f.ServiceAccount != ""
	switch {
	case f.Name == "":
		return errors.New("name is missing")
	case explicit == account:
		return errors.New("give issuer and subject, or namespace and serviceAccount")
	case len(f.Audiences) > 1:
		return errors.New("exactly one audience is allowed")
	}
	return nil
}

// resolve fetches the text of a value.
func (v *Value) resolve() (string, error) {
	switch {
	case v.Literal != nil:
		return *v.Literal, nil
	case v.File != "":
		b, err := os.ReadFile(v.File)
		if err != nil {
			return "", fmt.Errorf("read secret value: %w", err)
		}
		return string(b), nil
	default:
		s, ok := os.LookupEnv(v.Env)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", v.Env)
		}
		return s, nil
	}
}

func (c *Contents) location(own string) string {
	for _, l := range []string{own, c.Location} {
		if l != "" {
			return strings.ToLower(strings.ReplaceAll(l, " ", ""))
		}
	}
	return "westeurope"
}
