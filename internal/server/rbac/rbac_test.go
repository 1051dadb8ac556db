package rbac_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
)

func TestScopesInherit(t *testing.T) {
	f := newFixture(t)
	root := "/providers/Microsoft.Management/managementGroups/"
	tests := []struct {
		name, scope, object string
		allowed             bool
	}{
		{"same", vault, vault, true},
		{"object below", vault, vault + "/secrets/s1", true},
		{"group", group, vault + "/secrets/s1", true},
		{"subscription", sub, vault, true},
		{"tenant", "/", vault, true},
		{"tenant root group", root + tenantA, vault, true},
		{"other management group", root + "apps", vault, false},
		{"object itself", vault + "/secrets/s1", vault + "/secrets/s1", true},
		{"sibling object", vault + "/secrets/s1", vault + "/secrets/s2", false},
		{"object whose name goes on", vault + "/secrets/s1", vault + "/secrets/s10", false},
		{"vault whose name goes on", vault, vault + "2", false},
		{"above", vault, group, false},
		{"other group", group, sub + "/resourceGroups/Apps2/providers/Microsoft.KeyVault/vaults/kv1", false},
		{"case of the object", vault, strings.ToUpper(vault), true},
		{"case of the scope", strings.ToUpper(vault), vault, true},
		{"closing slash", vault, vault + "/", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := f.identity(tenantA)
			f.assign(p, rbac.KeyVaultSecretsUser, tt.scope)
			f.want(data(p, getSecret, tt.object), tt.allowed)
		})
	}
}

func TestRoles(t *testing.T) {
	f := newFixture(t)
	tests := []struct {
		role, action string
		data         bool
		allowed      bool
	}{
		{rbac.Owner, "Microsoft.KeyVault/vaults/write", false, true},
		{rbac.Owner, writeRole, false, true},
		{rbac.Owner, getSecret, true, false}, // management roles give no data
		{rbac.Contributor, "Microsoft.KeyVault/vaults/write", false, true},
		{rbac.Contributor, "microsoft.AUTHORIZATION/roleAssignments/WRITE", false, false},
		{rbac.Contributor, "Microsoft.Authorization/roleAssignments/delete", false, false},
		{rbac.Contributor, "Microsoft.Authorization/roleAssignments/read", false, true},
		{rbac.Contributor, "Microsoft.KeyVault/locations/deletedVaults/purge/action", false, true},
		{rbac.Reader, "Microsoft.KeyVault/vaults/read", false, true},
		{rbac.Reader, "Microsoft.KeyVault/vaults/write", false, false},
		{rbac.Reader, "Microsoft.KeyVault/vaults/readwrite", false, false},
		{rbac.UserAccessAdministrator, writeRole, false, true},
		{rbac.UserAccessAdministrator, "Microsoft.KeyVault/vaults/write", false, false},
		{rbac.RBACAdministrator, writeRole, false, true},
		{rbac.RBACAdministrator, "Microsoft.Authorization/roleDefinitions/write", false, false},
		{rbac.ManagedIdentityContributor, "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write", false, true},
		{rbac.ManagedIdentityOperator, "Microsoft.ManagedIdentity/userAssignedIdentities/name/assign/action", false, true},
		{rbac.ManagedIdentityOperator, "Microsoft.ManagedIdentity/userAssignedIdentities/write", false, false},
		{rbac.KeyVaultAdministrator, "Microsoft.KeyVault/vaults/keys/sign/action", true, true},
		{rbac.KeyVaultAdministrator, "Microsoft.KeyVault/vaults/write", false, false},
		{rbac.KeyVaultReader, "Microsoft.KeyVault/vaults/secrets/readMetadata/action", true, true},
		{rbac.KeyVaultReader, "Microsoft.KeyVault/vaults/keys/read", true, true},
		{rbac.KeyVaultReader, getSecret, true, false},
		{rbac.KeyVaultSecretsOfficer, setSecret, true, true},
		{rbac.KeyVaultSecretsOfficer, "Microsoft.KeyVault/vaults/secrets/delete", true, true},
		{rbac.KeyVaultSecretsOfficer, "Microsoft.KeyVault/vaults/keys/read", true, false},
		{rbac.KeyVaultSecretsUser, getSecret, true, true},
		{rbac.KeyVaultSecretsUser, setSecret, true, false},
		{rbac.KeyVaultSecretsUser, getSecret, false, false}, // a data action is no action
		{rbac.KeyVaultCryptoOfficer, "Microsoft.KeyVault/vaults/keyrotationpolicies/write", true, true},
		{rbac.KeyVaultCryptoUser, "Microsoft.KeyVault/vaults/keys/create/action", true, false},
		{rbac.KeyVaultServiceEncryptionUser, "Microsoft.KeyVault/vaults/keys/unwrap/action", true, true},
		{rbac.KeyVaultServiceReleaseUser, "Microsoft.KeyVault/vaults/keys/release/action", true, true},
		{rbac.KeyVaultCertificatesOfficer, "Microsoft.KeyVault/vaults/certificatecas/write", true, true},
		{rbac.KeyVaultCertificateUser, getSecret, true, true},
		{rbac.KeyVaultContributor, "Microsoft.KeyVault/vaults/write", false, true},
		{rbac.KeyVaultContributor, "Microsoft.KeyVault/locations/deletedVaults/purge/action", false, false},
		{rbac.KeyVaultContributor, getSecret, true, false},
		{rbac.KeyVaultPurgeOperator, "Microsoft.KeyVault/locations/deletedVaults/purge/action", false, true},
	}
	for _, tt := range tests {
		p := f.identity(tenantA)
		f.assign(p, tt.role, sub)
		req := control(p, tt.action, vault)
		req.Data = tt.data
		f.want(req, tt.allowed)
	}
}

func TestRolesAddUpButNotActionsDoNot(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.Contributor, sub)
	f.want(control(p, writeRole, vault), false)
	f.assign(p, rbac.UserAccessAdministrator, group)
	f.want(control(p, writeRole, vault), true)
	f.want(control(p, writeRole, sub), false)
}

func TestGroups(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	const team = "77777777-0000-4000-8000-000000000001"
	if _, _, err := f.PutAssignment(t.Context(), rbac.Assignment{
		Name: guid(1), TenantID: tenantA, Scope: vault, RoleDefinitionID: rbac.KeyVaultSecretsUser, PrincipalID: strings.ToUpper(team), PrincipalType: "group",
	}); err != nil {
		t.Fatal(err)
	}
	f.want(data(p, getSecret, vault), false)
	p.Groups = []string{"", "77777777-0000-4000-8000-000000000002", team}
	f.want(data(p, getSecret, vault), true)
}

func TestDecisionIsWrittenDown(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	a := f.assign(p, rbac.KeyVaultSecretsUser, group)

	g, err := f.Authorize(t.Context(), data(p, getSecret, vault+"/secrets/S1"))
	if err != nil {
		t.Fatal(err)
	}
	if g.AssignmentID != a.Name {
		t.Errorf("grant %q, want %q", g.AssignmentID, a.Name)
	}
	line := f.out.last(t)
	delete(line, "time")
	want := map[string]string{
		"plane": "vault", "operationName": "SecretGet", "resourceId": strings.ToLower(vault) + "/secrets/s1", "decision": "allow",
		"reason": "Key Vault Secrets User at " + strings.ToLower(group), "via": a.ID(),
		"oid": p.ObjectID, "appid": p.AppID, "tid": tenantA, "name": p.Name,
	}
	if d := cmp.Diff(want, line); d != "" {
		t.Error(d)
	}

	_, err = f.Authorize(t.Context(), control(p, setSecret, vault))
	d, ok := errors.AsType[*rbac.Denied](err)
	if !ok || d.Action != setSecret || d.Object != vault || d.Principal.ObjectID != p.ObjectID || d.ByPolicies {
		t.Fatalf("%+v", err)
	}
	if !fault.Is(err, fault.Forbidden) {
		t.Errorf("%v is not a fault of kind Forbidden", err)
	}
	line = f.out.last(t)
	if line["decision"] != "deny" || line["operationName"] != setSecret || !strings.Contains(line["reason"], "the caller has there: Key Vault Secrets User") {
		t.Error(line)
	}
	if fa, _ := fault.As(err); strings.Contains(fa.Message, "Secrets User") || fa.Code != "AuthorizationFailed" {
		t.Errorf("the client is told %q", fa.Message)
	}
}

func TestRefusalNamesWhereTheRoleIs(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	f.assign(p, rbac.KeyVaultSecretsUser, vault+"2")
	_, err := f.Authorize(t.Context(), data(p, getSecret, vault))
	d, _ := errors.AsType[*rbac.Denied](err)
	if d == nil || !strings.Contains(d.Reason, "elsewhere: Key Vault Secrets User at "+strings.ToLower(vault)+"2") {
		t.Errorf("%+v", d)
	}
}

func TestChangeCountsAtOnce(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	for range 20 {
		a := f.assign(p, rbac.KeyVaultSecretsUser, vault)
		f.want(data(p, getSecret, vault), true)
		if _, existed, err := f.DeleteAssignment(t.Context(), tenantA, vault, a.Name); err != nil || !existed {
			t.Fatal(existed, err)
		}
		f.want(data(p, getSecret, vault), false)
	}
}

func TestConcurrentDecisionsNeverOutliveAnAssignment(t *testing.T) {
	f := newFixture(t)
	p := f.identity(tenantA)
	others := f.identity(tenantA)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // keep the remembered holdings busy
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = f.Allowed(t.Context(), data(p, getSecret, vault))
				_, _ = f.Allowed(t.Context(), data(others, getSecret, vault))
			}
		}
	})
	for range 15 {
		a := f.assign(p, rbac.KeyVaultSecretsUser, vault)
		f.want(data(p, getSecret, vault), true)
		if _, _, err := f.DeleteAssignment(t.Context(), tenantA, vault, a.Name); err != nil {
			t.Fatal(err)
		}
		f.want(data(p, getSecret, vault), false)
	}
	close(stop)
	wg.Wait()
}
