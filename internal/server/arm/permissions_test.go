package arm

import (
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/rbac"
)

// open are the routes that any authenticated principal may call: they tell of
// nobody, or of the caller alone. A route that is not here needs an action.
var open = map[string]bool{
	"GET /subscriptions":    true, // those in which the caller holds a role
	"GET /tenants":          true, // the caller's
	"GET /providers":        true,
	"GET /providers/{name}": true,
}

func (p Permission) String() string {
	s := p.Method + " " + p.Type
	if !p.Collection {
		s += "/{name}"
	}
	return s
}

// TestEveryRouteHasItsPermission fails when a route is registered that
// anybody may call, or whose action is of another kind than its method: a
// write that is allowed to those who may read.
func TestEveryRouteHasItsPermission(t *testing.T) {
	t.Parallel()
	for _, p := range newRig(t).h.Permissions() {
		if err := p.Check(); err != nil && !open[p.String()] {
			t.Error(err)
		}
	}
}

func TestPermissionCheck(t *testing.T) {
	for _, c := range []struct {
		p    Permission
		want bool
	}{
		{Permission{Method: "GET", Action: "A.B/c/read"}, true},
		{Permission{Method: "GET", Action: "A.B/c/write"}, true}, // more than needed
		{Permission{Method: "GET"}, false},
		{Permission{Method: "PUT", Action: "A.B/c/write"}, true},
		{Permission{Method: "PUT", Action: "A.B/c/read"}, false},
		{Permission{Method: "PATCH", Action: "A.B/c/delete"}, false},
		{Permission{Method: "DELETE", Action: "A.B/c/delete"}, true},
		{Permission{Method: "DELETE", Action: "A.B/c/write"}, false},
		{Permission{Method: "POST", Action: "A.B/c/action"}, true},
		{Permission{Method: "POST", Action: "A.B/c/write"}, true},
		{Permission{Method: "POST", Action: "A.B/c/read"}, false},
		{Permission{Method: "POST", Action: "A.B/checkNameAvailability/read"}, true},
		{Permission{Method: "POST", Action: "A.B/c/*"}, false},
		{Permission{Method: "POST", Action: "read"}, false},
	} {
		if got := c.p.Check() == nil; got != c.want {
			t.Errorf("%+v: %v", c.p, got)
		}
	}
}

// TestWhatEachRoleMayChange tries every registered write, deletion and action
// with each role: who may pass the pipeline is what Azure's roles say.
func TestWhatEachRoleMayChange(t *testing.T) {
	t.Parallel()
	none := func(string) bool { return false }
	under := func(prefixes ...string) func(string) bool {
		return func(action string) bool {
			for _, p := range prefixes {
				if strings.HasPrefix(strings.ToLower(action), strings.ToLower(p)) {
					return true
				}
			}
			return false
		}
	}
	access := under("Microsoft.Authorization/")
	for name, c := range map[string]struct {
		role string
		may  func(action string) bool
	}{
		"Reader":                     {rbac.Reader, none},
		"Contributor":                {rbac.Contributor, func(a string) bool { return !access(a) || strings.HasSuffix(a, "/register/action") }},
		"User Access Administrator":  {rbac.UserAccessAdministrator, access},
		"RBAC Administrator":         {rbac.RBACAdministrator, under(typeAssignment + "/")},
		"Managed Identity Operator":  {rbac.ManagedIdentityOperator, none},
		"Managed Identity Contrib.":  {rbac.ManagedIdentityContributor, under(typeIdentity + "/")},
		"Key Vault Administrator":    {rbac.KeyVaultAdministrator, none},
		"Key Vault Reader":           {rbac.KeyVaultReader, none},
		"Key Vault Secrets Officer":  {rbac.KeyVaultSecretsOfficer, none},
		"Key Vault Secrets User":     {rbac.KeyVaultSecretsUser, none},
		"Key Vault Crypto Officer":   {rbac.KeyVaultCryptoOfficer, none},
		"Key Vault Certificates":     {rbac.KeyVaultCertificatesOfficer, none},
		"Key Vault Purge Operator":   {rbac.KeyVaultPurgeOperator, under("Microsoft.KeyVault/locations/deletedVaults/purge/")},
		"Key Vault Contributor":      {rbac.KeyVaultContributor, func(a string) bool { return under("Microsoft.KeyVault/")(a) && !strings.Contains(a, "/purge/") }},
		"Key Vault Data Access Adm.": {rbac.KeyVaultDataAccessAdministrator, none}, // the role that bodyFor gives is not one of its own
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := populated(t)
			r.person("who", homeTenant)
			r.grant("who", c.role, "/subscriptions/"+homeSub)
			tried := 0
			for _, rc := range routeCases(r) {
				if rc.method == "GET" || strings.HasSuffix(rc.route.Action, "/read") {
					continue
				}
				tried++
				a := r.do("who", rc.method, rc.path, bodyFor(r, rc.path))
				if refused := a.StatusCode == 403; refused == c.may(rc.route.Action) {
					t.Errorf("%s %s: %d %s", rc.method, rc.path, a.StatusCode, a.body)
				}
			}
			if tried < 20 {
				t.Errorf("only %d were tried", tried)
			}
		})
	}
}
