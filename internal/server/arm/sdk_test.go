package arm

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/rbac"
)

// ok stops the test at an error of an SDK.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode demands the service's refusal with status and code.
func wantCode(t testing.TB, err error, status int, code string) {
	t.Helper()
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != status || re.ErrorCode != code {
		t.Errorf("error %v, want %d %s", err, status, code)
	}
}

// all reads a pager to its end.
func all[P, V any](t testing.TB, p *runtime.Pager[P], values func(P) []V) (vs []V, pages int) {
	t.Helper()
	for p.More() {
		page, err := p.NextPage(t.Context())
		ok(t, err)
		vs = append(vs, values(page)...)
		pages++
	}
	return vs, pages
}

// demo is what the tests below begin with: a group, an identity with a
// credential, and a vault.
func demo(t *testing.T, r *rig) (groups *armresources.ResourceGroupsClient, identity armmsi.Identity, vault armkeyvault.Vault) {
	t.Helper()
	ctx := t.Context()
	groups, err := armresources.NewResourceGroupsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	g, err := groups.CreateOrUpdate(ctx, "Demo-rg", armresources.ResourceGroup{Location: to.Ptr("West Europe"), Tags: map[string]*string{"env": to.Ptr("demo")}}, nil)
	ok(t, err)
	if *g.ID != "/subscriptions/"+homeSub+"/resourceGroups/Demo-rg" || *g.Location != "westeurope" || *g.Properties.ProvisioningState != "Succeeded" || *g.Type != "Microsoft.Resources/resourceGroups" {
		t.Fatalf("%+v", g)
	}
	ids, err := armmsi.NewUserAssignedIdentitiesClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	id, err := ids.CreateOrUpdate(ctx, "demo-RG", "app-id", armmsi.Identity{Location: to.Ptr("westeurope"), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	ok(t, err)
	if *id.ID != "/subscriptions/"+homeSub+"/resourceGroups/Demo-rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app-id" || *id.Properties.TenantID != homeTenant {
		t.Fatalf("%s %s", *id.ID, *id.Properties.TenantID)
	}
	creds, err := armmsi.NewFederatedIdentityCredentialsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	fc := armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
		Issuer: to.Ptr("https://issuer.example/clusters/c/"), Subject: to.Ptr("system:serviceaccount:ns:sa"), Audiences: []*string{to.Ptr("api://AzureADTokenExchange")},
	}}
	got, err := creds.CreateOrUpdate(ctx, "Demo-rg", "app-id", "cred", fc, nil)
	ok(t, err)
	if diff := cmp.Diff(fc.Properties, got.Properties); diff != "" || *got.Name != "cred" {
		t.Fatalf("%s\n%s", *got.Name, diff)
	}
	vaults, err := armkeyvault.NewVaultsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	p, err := vaults.BeginCreateOrUpdate(ctx, "Demo-rg", "Demo-kv", armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr("westeurope"),
		Properties: &armkeyvault.VaultProperties{
			TenantID: to.Ptr(homeTenant), SKU: &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNameStandard)},
			EnableRbacAuthorization: to.Ptr(true), SoftDeleteRetentionInDays: to.Ptr(int32(7)),
		},
	}, nil)
	ok(t, err)
	v, err := p.PollUntilDone(ctx, nil)
	ok(t, err)
	if *v.Properties.VaultURI != "https://demo-kv.vault.podkey.test/" || *v.Properties.ProvisioningState != armkeyvault.VaultProvisioningStateSucceeded || *v.SystemData.CreatedByType != armkeyvault.IdentityTypeApplication {
		t.Fatalf("%+v", v.Properties)
	}
	return groups, id.Identity, v.Vault
}

func TestSDKResourceGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	groups, _, _ := demo(t, r)
	ctx := t.Context()
	for name, want := range map[string]bool{"Demo-rg": true, "demo-rg": true, "nope": false} {
		ex, err := groups.CheckExistence(ctx, name, nil)
		ok(t, err)
		if ex.Success != want {
			t.Errorf("%s exists: %v", name, ex.Success)
		}
	}
	up, err := groups.Update(ctx, "demo-rg", armresources.ResourceGroupPatchable{Tags: map[string]*string{"x": to.Ptr("y")}}, nil)
	ok(t, err)
	if len(up.Tags) != 1 || *up.Tags["x"] != "y" {
		t.Errorf("tags %v", up.Tags)
	}
	_, err = groups.CreateOrUpdate(ctx, "demo-rg", armresources.ResourceGroup{Location: to.Ptr("northeurope")}, nil)
	wantCode(t, err, 409, "InvalidResourceGroupLocation")
	_, err = groups.Get(ctx, "nope", nil)
	wantCode(t, err, 404, "ResourceGroupNotFound")
	for _, n := range []string{"b", "a", "c", "d"} {
		_, err = groups.CreateOrUpdate(ctx, n, armresources.ResourceGroup{Location: to.Ptr("northeurope")}, nil)
		ok(t, err)
	}
	list, pages := all(t, groups.NewListPager(&armresources.ResourceGroupsClientListOptions{Top: to.Ptr(int32(2))}),
		func(p armresources.ResourceGroupsClientListResponse) []*armresources.ResourceGroup { return p.Value })
	var got []string
	for _, g := range list {
		got = append(got, *g.Name)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "Demo-rg"}, got); diff != "" || pages != 3 {
		t.Errorf("%d pages: %s", pages, diff)
	}
	list, _ = all(t, groups.NewListPager(&armresources.ResourceGroupsClientListOptions{Filter: to.Ptr("tagName eq 'X' and tagValue eq 'y'")}),
		func(p armresources.ResourceGroupsClientListResponse) []*armresources.ResourceGroup { return p.Value })
	if len(list) != 1 || *list[0].Name != "Demo-rg" {
		t.Errorf("by tag: %v", list)
	}
	del, err := groups.BeginDelete(ctx, "demo-rg", nil)
	ok(t, err)
	_, err = del.PollUntilDone(ctx, nil)
	ok(t, err)
	_, err = groups.Get(ctx, "Demo-rg", nil)
	wantCode(t, err, 404, "ResourceGroupNotFound")
	_, err = groups.BeginDelete(ctx, "demo-rg", nil)
	wantCode(t, err, 404, "ResourceGroupNotFound")
}

func TestSDKGenericResources(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, identity, vault := demo(t, r)
	ctx := t.Context()
	c, err := armresources.NewClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	ids := func(filter string, top int32) []string {
		o := &armresources.ClientListOptions{Expand: to.Ptr("createdTime,provisioningState")}
		if filter != "" {
			o.Filter = &filter
		}
		if top > 0 {
			o.Top = &top
		}
		list, _ := all(t, c.NewListPager(o), func(p armresources.ClientListResponse) []*armresources.GenericResourceExpanded { return p.Value })
		out := []string{}
		for _, g := range list {
			if g.CreatedTime == nil || *g.ProvisioningState != "Succeeded" {
				t.Errorf("not expanded: %+v", g)
			}
			out = append(out, *g.ID)
		}
		return out
	}
	for filter, want := range map[string][]string{
		"": {*vault.ID, *identity.ID},
		"resourceType eq 'Microsoft.KeyVault/vaults'":                                       {*vault.ID},
		"tagName eq 'a' and tagValue eq 'b'":                                                {*identity.ID},
		"substringof('demo', name)":                                                         {*vault.ID},
		"resourceGroup eq 'demo-rg'":                                                        {*vault.ID, *identity.ID},
		"name eq 'x' or resourceType eq 'Microsoft.ManagedIdentity/userAssignedIdentities'": {*identity.ID},
	} {
		if diff := cmp.Diff(want, ids(filter, 0)); diff != "" {
			t.Errorf("%s: %s", filter, diff)
		}
	}
	if diff := cmp.Diff([]string{*vault.ID, *identity.ID}, ids("", 1)); diff != "" {
		t.Error(diff)
	}
	inGroup, _ := all(t, c.NewListByResourceGroupPager("Demo-rg", nil), func(p armresources.ClientListByResourceGroupResponse) []*armresources.GenericResourceExpanded {
		return p.Value
	})
	if len(inGroup) != 2 {
		t.Errorf("in group: %d", len(inGroup))
	}
	_, err = c.NewListPager(&armresources.ClientListOptions{Filter: to.Ptr("plan eq 'x'")}).NextPage(ctx)
	wantCode(t, err, 400, "InvalidFilterInQueryString")

	// The vault, by its id alone and by its parts.
	got, err := c.GetByID(ctx, strings.ToUpper(*vault.ID), "2023-07-01", nil)
	ok(t, err)
	if *got.ID != *vault.ID {
		t.Errorf("by id: %s", *got.ID)
	}
	ex, err := c.CheckExistenceByID(ctx, *vault.ID, "2023-07-01", nil)
	ok(t, err)
	no, err := c.CheckExistenceByID(ctx, *vault.ID+"x", "2023-07-01", nil)
	ok(t, err)
	if !ex.Success || no.Success {
		t.Errorf("existence: %v %v", ex.Success, no.Success)
	}
	p, err := c.BeginUpdateByID(ctx, *identity.ID, "2023-01-31", armresources.GenericResource{Tags: map[string]*string{"t": to.Ptr("u")}}, nil)
	ok(t, err)
	patched, err := p.PollUntilDone(ctx, nil)
	ok(t, err)
	if len(patched.Tags) != 1 {
		t.Errorf("tags %v", patched.Tags)
	}
	del, err := c.BeginDeleteByID(ctx, *identity.ID, "2023-01-31", nil)
	ok(t, err)
	_, err = del.PollUntilDone(ctx, nil)
	ok(t, err)
	_, err = c.GetByID(ctx, *identity.ID, "2023-01-31", nil)
	wantCode(t, err, 404, "ResourceNotFound")

	providers, err := armresources.NewProvidersClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	kv, err := providers.Get(ctx, "microsoft.keyvault", nil)
	ok(t, err)
	hasVaults := slices.ContainsFunc(kv.ResourceTypes, func(rt *armresources.ProviderResourceType) bool {
		return *rt.ResourceType == "vaults" && *rt.APIVersions[0] == "2026-02-01" && len(rt.Locations) > 50
	})
	if *kv.RegistrationState != "Registered" || *kv.Namespace != "Microsoft.KeyVault" || !hasVaults {
		t.Errorf("%+v", kv.Provider)
	}
	var types []string
	for _, rt := range kv.ResourceTypes {
		types = append(types, *rt.ResourceType)
	}
	if diff := cmp.Diff([]string{"vaults", "vaults/accessPolicies", "vaults/secrets", "vaults/privateEndpointConnections", "deletedVaults", "managedHSMs", "deletedManagedHSMs", "locations/deletedVaults"}, types); diff != "" {
		t.Error(diff)
	}
	reg, err := providers.Register(ctx, "Microsoft.ManagedIdentity", nil)
	ok(t, err)
	if *reg.RegistrationState != "Registered" {
		t.Errorf("%+v", reg.Provider)
	}
	list, _ := all(t, providers.NewListPager(nil), func(p armresources.ProvidersClientListResponse) []*armresources.Provider { return p.Value })
	var spaces []string
	for _, p := range list {
		spaces = append(spaces, *p.Namespace)
	}
	if diff := cmp.Diff([]string{"Microsoft.Authorization", "Microsoft.KeyVault", "Microsoft.ManagedIdentity", "Microsoft.Resources"}, spaces); diff != "" {
		t.Error(diff)
	}
	_, err = providers.Get(ctx, "Microsoft.Nothing", nil)
	wantCode(t, err, 404, "InvalidResourceNamespace")
}

func TestSDKIdentities(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, identity, _ := demo(t, r)
	ctx := t.Context()
	c, err := armmsi.NewUserAssignedIdentitiesClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	again, err := c.CreateOrUpdate(ctx, "demo-rg", "APP-ID", armmsi.Identity{Location: to.Ptr("West Europe")}, nil)
	ok(t, err)
	if *again.ID != *identity.ID || *again.Properties.PrincipalID != *identity.Properties.PrincipalID || len(again.Tags) != 0 {
		t.Errorf("%+v", again.Identity)
	}
	up, err := c.Update(ctx, "demo-rg", "app-id", armmsi.IdentityUpdate{Tags: map[string]*string{"k": to.Ptr("v")}}, nil)
	ok(t, err)
	if *up.Tags["k"] != "v" || *up.Properties.ClientID != *identity.Properties.ClientID {
		t.Errorf("%+v", up.Identity)
	}
	byGroup, _ := all(t, c.NewListByResourceGroupPager("demo-rg", nil), func(p armmsi.UserAssignedIdentitiesClientListByResourceGroupResponse) []*armmsi.Identity {
		return p.Value
	})
	bySub, _ := all(t, c.NewListBySubscriptionPager(nil), func(p armmsi.UserAssignedIdentitiesClientListBySubscriptionResponse) []*armmsi.Identity {
		return p.Value
	})
	if len(byGroup) != 1 || len(bySub) != 1 {
		t.Errorf("%d by group, %d by subscription", len(byGroup), len(bySub))
	}
	_, err = c.CreateOrUpdate(ctx, "nope", "app-id", armmsi.Identity{Location: to.Ptr("westeurope")}, nil)
	wantCode(t, err, 404, "ResourceGroupNotFound")
	_, err = c.CreateOrUpdate(ctx, "Demo-rg", "app-id", armmsi.Identity{Location: to.Ptr("eastus")}, nil)
	wantCode(t, err, 409, "InvalidResourceLocation")

	fc, err := armmsi.NewFederatedIdentityCredentialsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	same := armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
		Issuer: to.Ptr("https://issuer.example/clusters/c/"), Subject: to.Ptr("system:serviceaccount:ns:sa"), Audiences: []*string{to.Ptr("api://AzureADTokenExchange")},
	}}
	_, err = fc.CreateOrUpdate(ctx, "Demo-rg", "app-id", "cred2", same, nil)
	wantCode(t, err, 400, "BadRequest")
	same.Properties.Subject = to.Ptr("system:serviceaccount:ns:sb")
	_, err = fc.CreateOrUpdate(ctx, "Demo-rg", "app-id", "cred2", same, nil)
	ok(t, err)
	got, err := fc.Get(ctx, "Demo-rg", "app-id", "CRED2", nil)
	ok(t, err)
	if *got.ID != *identity.ID+"/federatedIdentityCredentials/cred2" {
		t.Errorf("%s", *got.ID)
	}
	list, pages := all(t, fc.NewListPager("Demo-rg", "app-id", &armmsi.FederatedIdentityCredentialsClientListOptions{Top: to.Ptr(int32(1))}),
		func(p armmsi.FederatedIdentityCredentialsClientListResponse) []*armmsi.FederatedIdentityCredential {
			return p.Value
		})
	if len(list) != 2 || pages != 2 {
		t.Errorf("%d credentials on %d pages", len(list), pages)
	}
	_, err = fc.CreateOrUpdate(ctx, "Demo-rg", "nobody", "cred2", same, nil)
	wantCode(t, err, 404, "ParentResourceNotFound")
	for range 2 { // the second finds nothing, and is no error
		_, err = fc.Delete(ctx, "Demo-rg", "app-id", "cred2", nil)
		ok(t, err)
	}
	_, err = fc.Get(ctx, "Demo-rg", "app-id", "cred2", nil)
	wantCode(t, err, 404, "ResourceNotFound")
	for range 2 {
		_, err = c.Delete(ctx, "Demo-rg", "app-id", nil)
		ok(t, err)
	}
	if _, found, _ := r.h.o.Directory.Principal(ctx, *identity.Properties.PrincipalID); found {
		t.Error("the service principal outlives its identity")
	}
}

func TestSDKVaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, vault := demo(t, r)
	ctx := t.Context()
	c, err := armkeyvault.NewVaultsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)

	// Read, change, write back whole, as az does.
	v, err := c.Get(ctx, "demo-rg", "demo-kv", nil)
	ok(t, err)
	v.Properties.AccessPolicies = []*armkeyvault.AccessPolicyEntry{{
		TenantID: to.Ptr(homeTenant), ObjectID: to.Ptr(uuid.NewString()), Permissions: &armkeyvault.Permissions{Secrets: []*armkeyvault.SecretPermissions{to.Ptr(armkeyvault.SecretPermissionsAll)}},
	}}
	p, err := c.BeginCreateOrUpdate(ctx, "demo-rg", "demo-kv", armkeyvault.VaultCreateOrUpdateParameters{Location: v.Location, Properties: v.Properties, Tags: map[string]*string{"x": to.Ptr("1")}}, nil)
	ok(t, err)
	put, err := p.PollUntilDone(ctx, nil)
	ok(t, err)
	if diff := cmp.Diff(v.Properties, put.Properties); diff != "" {
		t.Error(diff)
	}
	up, err := c.Update(ctx, "demo-rg", "demo-kv", armkeyvault.VaultPatchParameters{Properties: &armkeyvault.VaultPatchProperties{EnabledForTemplateDeployment: to.Ptr(true)}}, nil)
	ok(t, err)
	if !*up.Properties.EnabledForTemplateDeployment || *up.Tags["x"] != "1" || len(up.Properties.AccessPolicies) != 1 {
		t.Errorf("%+v", up.Properties)
	}
	someone := uuid.NewString()
	change := func(kind armkeyvault.AccessPolicyUpdateKind, secrets ...armkeyvault.SecretPermissions) []*armkeyvault.AccessPolicyEntry {
		e := &armkeyvault.AccessPolicyEntry{TenantID: to.Ptr(homeTenant), ObjectID: &someone, Permissions: &armkeyvault.Permissions{}}
		for _, s := range secrets {
			e.Permissions.Secrets = append(e.Permissions.Secrets, to.Ptr(s))
		}
		res, err := c.UpdateAccessPolicy(ctx, "demo-rg", "demo-kv", kind, armkeyvault.VaultAccessPolicyParameters{
			Properties: &armkeyvault.VaultAccessPolicyProperties{AccessPolicies: []*armkeyvault.AccessPolicyEntry{e}},
		}, nil)
		ok(t, err)
		return res.Properties.AccessPolicies
	}
	if got := change(armkeyvault.AccessPolicyUpdateKindAdd, "get", "list"); len(got) != 2 || len(got[1].Permissions.Secrets) != 2 {
		t.Errorf("add: %+v", got)
	}
	if got := change(armkeyvault.AccessPolicyUpdateKindReplace, "set"); len(got[1].Permissions.Secrets) != 1 {
		t.Errorf("replace: %+v", got)
	}
	if got := change(armkeyvault.AccessPolicyUpdateKindRemove, "set"); len(got) != 1 {
		t.Errorf("remove: %+v", got)
	}

	byGroup, _ := all(t, c.NewListByResourceGroupPager("demo-rg", nil), func(p armkeyvault.VaultsClientListByResourceGroupResponse) []*armkeyvault.Vault { return p.Value })
	bySub, _ := all(t, c.NewListBySubscriptionPager(nil), func(p armkeyvault.VaultsClientListBySubscriptionResponse) []*armkeyvault.Vault { return p.Value })
	generic, _ := all(t, c.NewListPager(nil), func(p armkeyvault.VaultsClientListResponse) []*armkeyvault.Resource { return p.Value })
	if len(byGroup) != 1 || len(bySub) != 1 || len(generic) != 1 || *generic[0].ID != *vault.ID {
		t.Errorf("%d %d %d", len(byGroup), len(bySub), len(generic))
	}
	check := func(name string) *armkeyvault.CheckNameAvailabilityResult {
		res, err := c.CheckNameAvailability(ctx, armkeyvault.VaultCheckNameAvailabilityParameters{Name: &name, Type: to.Ptr("Microsoft.KeyVault/vaults")}, nil)
		ok(t, err)
		return &res.CheckNameAvailabilityResult
	}
	if n := check("free-name"); !*n.NameAvailable || n.Reason != nil {
		t.Errorf("%+v", n)
	}
	if n := check("DEMO-kv"); *n.NameAvailable || *n.Reason != armkeyvault.ReasonAlreadyExists {
		t.Errorf("%+v", n)
	}
	if n := check("1"); *n.NameAvailable || *n.Reason != armkeyvault.ReasonAccountNameInvalid {
		t.Errorf("%+v", n)
	}
	hsms, err := armkeyvault.NewManagedHsmsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	none, _ := all(t, hsms.NewListBySubscriptionPager(nil), func(p armkeyvault.ManagedHsmsClientListBySubscriptionResponse) []*armkeyvault.ManagedHsm {
		return p.Value
	})
	if len(none) != 0 {
		t.Error(none)
	}

	// Delete, find it deleted, recover it, delete it again and purge it.
	for range 2 {
		_, err = c.Delete(ctx, "demo-rg", "demo-kv", nil)
		ok(t, err)
	}
	_, err = c.Get(ctx, "demo-rg", "demo-kv", nil)
	wantCode(t, err, 404, "ResourceNotFound")
	gone, err := c.GetDeleted(ctx, "demo-kv", "West Europe", nil)
	ok(t, err)
	if *gone.Properties.VaultID != *vault.ID || gone.Properties.ScheduledPurgeDate.Sub(*gone.Properties.DeletionDate) != 7*24*time.Hour || *gone.Type != "Microsoft.KeyVault/deletedVaults" {
		t.Errorf("%+v", gone.Properties)
	}
	deleted, _ := all(t, c.NewListDeletedPager(nil), func(p armkeyvault.VaultsClientListDeletedResponse) []*armkeyvault.DeletedVault { return p.Value })
	if len(deleted) != 1 || *deleted[0].ID != *gone.ID {
		t.Errorf("%+v", deleted)
	}
	params := armkeyvault.VaultCreateOrUpdateParameters{Location: v.Location, Properties: &armkeyvault.VaultProperties{TenantID: v.Properties.TenantID, SKU: v.Properties.SKU}}
	_, err = c.BeginCreateOrUpdate(ctx, "demo-rg", "demo-kv", params, nil)
	wantCode(t, err, 409, "ConflictError")
	params.Properties.CreateMode = to.Ptr(armkeyvault.CreateModeRecover)
	p, err = c.BeginCreateOrUpdate(ctx, "demo-rg", "demo-kv", params, nil)
	ok(t, err)
	back, err := p.PollUntilDone(ctx, nil)
	ok(t, err)
	if *back.ID != *vault.ID || len(back.Properties.AccessPolicies) != 1 {
		t.Errorf("%+v", back.Vault)
	}
	_, err = c.Delete(ctx, "demo-rg", "demo-kv", nil)
	ok(t, err)
	_, err = c.BeginPurgeDeleted(ctx, "demo-kv", "northeurope", nil)
	wantCode(t, err, 404, "ParentResourceNotFound")
	purge, err := c.BeginPurgeDeleted(ctx, "demo-kv", "westeurope", nil)
	ok(t, err)
	_, err = purge.PollUntilDone(ctx, nil)
	ok(t, err)
	_, err = c.GetDeleted(ctx, "demo-kv", "westeurope", nil)
	wantCode(t, err, 404, "DeletedVaultNotFound")
	if n := check("demo-kv"); !*n.NameAvailable {
		t.Errorf("%+v", n)
	}
}

func TestSDKRoleAssignments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, identity, vault := demo(t, r)
	ctx := t.Context()
	defs, err := armauthorization.NewRoleDefinitionsClient(token("owner"), r.sdk())
	ok(t, err)
	found, _ := all(t, defs.NewListPager(*vault.ID, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq 'Key Vault Secrets User'")}),
		func(p armauthorization.RoleDefinitionsClientListResponse) []*armauthorization.RoleDefinition {
			return p.Value
		})
	if len(found) != 1 || *found[0].ID != "/subscriptions/"+homeSub+"/providers/Microsoft.Authorization/roleDefinitions/"+rbac.KeyVaultSecretsUser || *found[0].Properties.RoleType != "BuiltInRole" {
		t.Fatalf("%+v", found)
	}
	def, err := defs.GetByID(ctx, *found[0].ID, nil)
	ok(t, err)
	if diff := cmp.Diff(found[0], &def.RoleDefinition); diff != "" {
		t.Error(diff)
	}
	everything, _ := all(t, defs.NewListPager("subscriptions/"+homeSub, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("atScopeAndBelow() and type eq 'BuiltInRole'")}),
		func(p armauthorization.RoleDefinitionsClientListResponse) []*armauthorization.RoleDefinition {
			return p.Value
		})
	if len(everything) < 20 {
		t.Errorf("%d roles", len(everything))
	}

	c, err := armauthorization.NewRoleAssignmentsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	name := uuid.NewString()
	params := armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
		RoleDefinitionID: found[0].ID, PrincipalID: identity.Properties.PrincipalID, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
	}}
	scope := strings.Replace(*vault.ID, "resourceGroups/Demo-rg", "resourcegroups/demo-RG", 1)
	created, err := c.Create(ctx, scope, name, params, nil)
	ok(t, err)
	pr := created.Properties
	if *created.ID != *vault.ID+"/providers/Microsoft.Authorization/roleAssignments/"+name || *pr.Scope != *vault.ID || *pr.RoleDefinitionID != *found[0].ID ||
		*pr.CreatedBy != r.people["owner"].ObjectID || !pr.CreatedOn.Equal(r.clock.Now()) {
		t.Errorf("%+v", created.RoleAssignment)
	}
	_, err = c.Create(ctx, scope, name, params, nil) // once more is no error
	ok(t, err)
	_, err = c.Create(ctx, scope, uuid.NewString(), params, nil)
	wantCode(t, err, 409, "RoleAssignmentExists")
	if err == nil || !strings.Contains(err.Error(), "The role assignment already exists.") {
		t.Errorf("az looks for the words: %v", err)
	}
	// At a secret that need not exist, at the group and at the subscription.
	for _, s := range []string{*vault.ID + "/secrets/one", "/subscriptions/" + homeSub + "/resourcegroups/demo-rg", "subscriptions/" + homeSub, *identity.ID} {
		_, err = c.Create(ctx, s, uuid.NewString(), params, nil)
		ok(t, err)
	}
	byID, err := c.GetByID(ctx, *created.ID, nil)
	ok(t, err)
	if *byID.Name != name {
		t.Errorf("%+v", byID)
	}
	count := func(scope, filter string) int {
		list, _ := all(t, c.NewListForScopePager(scope, &armauthorization.RoleAssignmentsClientListForScopeOptions{Filter: to.Ptr(strings.ReplaceAll(filter, " ", "%20"))}),
			func(p armauthorization.RoleAssignmentsClientListForScopeResponse) []*armauthorization.RoleAssignment {
				return p.Value
			})
		return len(list)
	}
	oid := *identity.Properties.PrincipalID
	for _, c := range []struct {
		scope, filter string
		want          int
	}{
		{*vault.ID, "atScope()", 4},                                      // subscription (owner, identity), group, vault
		{*vault.ID, "principalId eq '" + oid + "'", 4},                   // and the secret, but not the owner
		{*vault.ID, "atScope() and assignedTo('" + oid + "')", 3},        //
		{"/subscriptions/" + homeSub, "principalId eq '" + oid + "'", 5}, // everywhere
		{*identity.ID, "atScope()", 4},
	} {
		if got := count(c.scope, c.filter); got != c.want {
			t.Errorf("%s of %s: %d, want %d", c.filter, c.scope, got, c.want)
		}
	}
	forResource, _ := all(t, c.NewListForResourcePager("Demo-rg", "Microsoft.KeyVault", "vaults", "Demo-kv", nil),
		func(p armauthorization.RoleAssignmentsClientListForResourceResponse) []*armauthorization.RoleAssignment {
			return p.Value
		})
	forSub, _ := all(t, c.NewListForSubscriptionPager(nil),
		func(p armauthorization.RoleAssignmentsClientListForSubscriptionResponse) []*armauthorization.RoleAssignment {
			return p.Value
		})
	if len(forResource) != 5 || len(forSub) != 6 {
		t.Errorf("%d for resource, %d for subscription", len(forResource), len(forSub))
	}
	perms, err := armauthorization.NewPermissionsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	mine, _ := all(t, perms.NewListForResourceGroupPager("Demo-rg", nil), func(p armauthorization.PermissionsClientListForResourceGroupResponse) []*armauthorization.Permission {
		return p.Value
	})
	if len(mine) != 1 || *mine[0].Actions[0] != "*" {
		t.Errorf("%+v", mine)
	}
	del, err := c.Delete(ctx, *vault.ID, name, nil)
	ok(t, err)
	if *del.Name != name {
		t.Errorf("%+v", del)
	}
	_, err = c.DeleteByID(ctx, *created.ID, nil) // 204
	ok(t, err)
	_, err = c.GetByID(ctx, *created.ID, nil)
	wantCode(t, err, 404, "RoleAssignmentNotFound")
}

func TestSDKSubscriptions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.must(http.StatusOK, "owner", "GET", "/subscriptions?api-version=2019-11-01", nil)
	if diff := cmp.Diff([]string{homeSub}, a.list("subscriptionId")); diff != "" {
		t.Error(diff)
	}
	if a.at("value.0.state") != "Enabled" || a.at("value.0.tenantId") != homeTenant || a.at("value.0.managedByTenants") == nil {
		t.Errorf("%s", a.body)
	}
	a = r.must(http.StatusOK, "owner", "GET", "/tenants?api-version=2019-11-01", nil)
	if diff := cmp.Diff([]string{homeTenant}, a.list("tenantId")); diff != "" {
		t.Error(diff)
	}
	a = r.must(http.StatusOK, "owner", "GET", "/subscriptions/"+homeSub+"/locations?api-version=2019-11-01", nil)
	if !slices.Contains(a.list("displayName"), "West Europe") || !slices.Contains(a.list("name"), "westeurope") {
		t.Errorf("%s", a.body)
	}
}
