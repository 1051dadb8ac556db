package rbac_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
)

// Each test is an attempt to get more than was given.

func TestAttackNobodyWithRoleForNobody(t *testing.T) {
	f := newFixture(t)
	for _, p := range []audit.Principal{{}, {TenantID: tenantA}, {ObjectID: "x", TenantID: tenantA}, {Groups: []string{""}, TenantID: tenantA}} {
		f.want(data(p, getSecret, vault), false)
		req := data(p, getSecret, vault)
		req.UsePolicies, req.PolicyKind, req.PolicyPermission = true, "secrets", "get"
		req.Policies = []rbac.AccessPolicy{{TenantID: tenantA, Permissions: rbac.Permissions{Secrets: []string{"all"}}}}
		f.want(req, false)
	}
}

func TestAttackEmptyActionMatchesWildcard(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.Owner, "/")
	f.want(control(p, "", vault), false)
	f.want(control(p, "Microsoft.KeyVault/vaults/read", ""), false)
	f.want(control(p, "Microsoft.KeyVault/vaults/read", "subscriptions/x"), false)
}

func TestAttackPrincipalOfAnotherTenant(t *testing.T) {
	f := newFixture(t)
	b := f.identity(tenantB)
	f.assign(b, rbac.Owner, "/")
	f.assign(b, rbac.KeyVaultAdministrator, "/")
	f.want(data(b, getSecret, vault), false)
	f.want(control(b, "Microsoft.KeyVault/vaults/read", vault), false)

	// A token that claims tenant A for a principal of tenant B.
	b.TenantID = tenantA
	f.want(data(b, getSecret, vault), false)

	// An object whose tenant is not known is nobody's.
	a := f.identity(tenantA)
	f.assign(a, rbac.Owner, "/")
	req := control(a, "Microsoft.KeyVault/vaults/read", vault)
	req.TenantID = ""
	f.want(req, false)
}

// Tenant A's administrator assigns a role at "/" to a principal of tenant B,
// who would then hold it at B's own "/".
func TestAttackRootAssignmentForAnotherTenant(t *testing.T) {
	f := newFixture(t)
	b := f.identity(tenantB)
	_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{Name: guid(1), TenantID: tenantA, Scope: "/", RoleDefinitionID: rbac.Owner, PrincipalID: b.ObjectID})
	wantFault(t, err, fault.Invalid, "PrincipalNotFound")

	// The same through a group, which the directory cannot check.
	const team = "77777777-0000-4000-8000-000000000001"
	if _, _, err := f.PutAssignment(t.Context(), rbac.Assignment{
		Name: guid(2), TenantID: tenantA, Scope: "/", RoleDefinitionID: rbac.Owner, PrincipalID: team, PrincipalType: rbac.TypeGroup,
	}); err != nil {
		t.Fatal(err)
	}
	b.Groups = []string{team}
	req := control(b, "Microsoft.KeyVault/vaults/read", "/")
	req.TenantID = tenantB
	f.want(req, false)

	// Nor does B's look at "/" show what A assigned there.
	got, err := f.Assignments(t.Context(), tenantB, "/", rbac.Filter{})
	if err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	if _, existed, err := f.DeleteAssignment(t.Context(), tenantB, "/", guid(2)); err != nil || existed {
		t.Errorf("B deleted A's assignment: %v %v", existed, err)
	}
}

// An object id of a user or service principal passed off as a group would
// escape the check of its tenant and type.
func TestAttackPrincipalPassedOffAsGroup(t *testing.T) {
	f := newFixture(t)
	for _, p := range []audit.Principal{f.identity(tenantA), f.identity(tenantB)} {
		_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{
			Name: guid(1), TenantID: tenantA, Scope: vault, RoleDefinitionID: rbac.Owner, PrincipalID: p.ObjectID, PrincipalType: rbac.TypeGroup,
		})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%v", err)
		}
	}
}

func TestAttackTokenOfDeletedIdentity(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	f.want(data(p, getSecret, vault), true)
	sp, _, err := f.directory.ServicePrincipal(t.Context(), p.ObjectID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.directory.DeleteIdentity(t.Context(), sp.ResourceID); err != nil {
		t.Fatal(err)
	}
	f.want(data(p, getSecret, vault), false)
	req := data(p, getSecret, vault)
	req.UsePolicies, req.PolicyKind, req.PolicyPermission = true, "secrets", "get"
	req.Policies = []rbac.AccessPolicy{{TenantID: tenantA, ObjectID: p.ObjectID, Permissions: rbac.Permissions{Secrets: []string{"get"}}}}
	f.want(req, false)
}

func TestAttackTokenOfDisabledPrincipal(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	if err := f.directory.EnableServicePrincipal(t.Context(), p.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	f.want(data(p, getSecret, vault), false)
}

func TestUserIsKnownByObjectID(t *testing.T) {
	f := newFixture(t)
	if _, err := f.directory.CreateTenant(t.Context(), directory.Tenant{ID: "cccccccc-0000-4000-8000-000000000001", DisplayName: "C", Domains: []string{"c.example"}}); err != nil {
		t.Fatal(err)
	}
	u, err := f.directory.CreateUser(t.Context(), directory.User{TenantID: "cccccccc-0000-4000-8000-000000000001", UserPrincipalName: "ann@c.example", DisplayName: "Ann"}, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	p := audit.Principal{ObjectID: u.ObjectID, TenantID: u.TenantID, Kind: audit.KindUser}
	f.assign(p, rbac.Reader, sub)
	req := control(p, "Microsoft.KeyVault/vaults/read", vault)
	req.TenantID = u.TenantID
	f.want(req, true)
	req.Principal.ObjectID = u.UserPrincipalName // a name is no object id
	f.want(req, false)
}

// Who may hand out vault roles must not hand themselves Owner.
func TestAttackDataAccessAdministratorAssignsOwner(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultDataAccessAdministrator, sub)
	for _, action := range []string{writeRole, "microsoft.authorization/ROLEASSIGNMENTS/delete"} {
		req := control(p, action, vault)
		f.want(req, false) // without a role, the limit cannot be checked
		for role, allowed := range map[string]bool{
			rbac.Owner: false, rbac.UserAccessAdministrator: false, rbac.KeyVaultDataAccessAdministrator: false, rbac.KeyVaultContributor: false,
			rbac.KeyVaultSecretsUser: true, strings.ToUpper(rbac.KeyVaultAdministrator): true,
		} {
			req.RoleDefinitionID = role
			f.want(req, allowed)
		}
	}
	f.want(control(p, "Microsoft.Authorization/roleAssignments/read", vault), true)
}

func TestAttackConditionIsNotIgnored(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{
		Name: guid(1), TenantID: tenantA, Scope: vault, RoleDefinitionID: rbac.KeyVaultSecretsUser, PrincipalID: p.ObjectID,
		Condition: "@Resource[Microsoft.KeyVault/vaults/secrets:name] StringEquals 'one'",
	})
	wantFault(t, err, fault.Invalid, "RoleAssignmentConditionNotSupported")
	f.want(data(p, getSecret, vault), false)
}

// U+212A, the Kelvin sign, is k in lower case; U+017F is s in upper case.
func TestAttackScopeThatFoldsIntoAnother(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	for _, scope := range []string{
		strings.Replace(vault, "kv1", "\u212Av1", 1),
		strings.Replace(vault, "/subscriptions", "/\u017Fubscriptions", 1),
		"", "vaults", "//", vault + "//secrets", vault + "/secrets/\x00", vault + "\n", strings.Repeat("/a", 2000),
	} {
		_, _, err := f.PutAssignment(t.Context(), rbac.Assignment{Name: guid(1), TenantID: tenantA, Scope: scope, RoleDefinitionID: rbac.Owner, PrincipalID: p.ObjectID})
		wantFault(t, err, fault.Invalid, "InvalidScope")
	}
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	f.want(data(p, getSecret, strings.Replace(vault, "kv1", "\u212Av1", 1)), false)
}

func TestAttackResourceMadeAgainInheritsNothing(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	f.assign(p, rbac.KeyVaultSecretsOfficer, strings.ToUpper(vault+"/secrets/s"))
	kept := f.assign(p, rbac.KeyVaultSecretsUser, vault+"2")
	above := f.assign(p, rbac.Reader, group)
	if err := f.DeleteScope(t.Context(), tenantB, vault); err != nil {
		t.Fatal(err)
	}
	f.want(data(p, getSecret, vault), true) // another tenant's deletion does nothing
	if err := f.DeleteScope(t.Context(), tenantA, strings.ToLower(vault)); err != nil {
		t.Fatal(err)
	}
	f.want(data(p, getSecret, vault), false)
	f.want(data(p, setSecret, vault+"/secrets/s"), false)
	got, err := f.Assignments(t.Context(), tenantA, sub, rbac.Filter{})
	if err != nil || len(got) != 2 || got[0].Name != above.Name || got[1].Name != kept.Name {
		t.Errorf("%+v %v", got, err)
	}
}

func TestAttackDecisionThatCannotBeWrittenDown(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultSecretsUser, vault)
	f.out.err = errors.New("disk full")
	if _, err := f.Authorize(t.Context(), data(p, getSecret, vault)); err == nil || fault.Is(err, fault.Forbidden) {
		t.Errorf("err = %v", err)
	}
}

func wantFault(t *testing.T, err error, kind fault.Kind, code string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Kind != kind || f.Code != code {
		t.Errorf("err = %v, want %s", err, code)
	}
}
