package arm

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/server/rbac"
)

func TestSDKRoleDefinitions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, scope, guid := t.Context(), "/subscriptions/"+homeSub, uuid.NewString()
	roles, err := armauthorization.NewRoleDefinitionsClient(token("owner"), r.sdk())
	ok(t, err)
	def := armauthorization.RoleDefinition{Properties: &armauthorization.RoleDefinitionProperties{
		RoleName: to.Ptr("Secret Lister"), RoleType: to.Ptr("CustomRole"), AssignableScopes: []*string{to.Ptr(scope)},
		Permissions: []*armauthorization.Permission{{DataActions: []*string{to.Ptr("Microsoft.KeyVault/vaults/secrets/readMetadata/action")}}},
	}}
	made, err := roles.CreateOrUpdate(ctx, scope, guid, def, nil)
	ok(t, err)
	if *made.ID != scope+"/providers/Microsoft.Authorization/roleDefinitions/"+guid {
		t.Errorf("%+v", made.Properties)
	}
	got, err := roles.GetByID(ctx, *made.ID, nil)
	ok(t, err)
	if *got.Properties.RoleName != "Secret Lister" || *got.Properties.RoleType != "CustomRole" || len(got.Properties.Permissions[0].DataActions) != 1 {
		t.Errorf("%+v", got.Properties)
	}
	list, _ := all(t, roles.NewListPager(scope, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("type eq 'CustomRole'")}),
		func(p armauthorization.RoleDefinitionsClientListResponse) []*armauthorization.RoleDefinition {
			return p.Value
		})
	if len(list) != 1 || *list[0].Name != guid {
		t.Errorf("%+v", list)
	}
	_, err = roles.CreateOrUpdate(ctx, scope, uuid.NewString(), def, nil)
	wantCode(t, err, 409, "RoleDefinitionWithSameNameExists")
	_, err = roles.Delete(ctx, scope, rbac.Reader, nil)
	wantCode(t, err, 400, "RoleDefinitionUpdateNotPermitted")
	_, err = roles.Delete(ctx, scope, guid, nil)
	ok(t, err)
	_, err = roles.Delete(ctx, scope, guid, nil) // 204
	ok(t, err)
	_, err = roles.Get(ctx, scope, guid, nil)
	wantCode(t, err, 404, "RoleDefinitionDoesNotExist")
}
