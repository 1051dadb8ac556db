package arm

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
)

func TestSDKVaultSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	demo(t, r)
	ctx := t.Context()
	secrets, err := armkeyvault.NewSecretsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, name := range []string{"db", "cache"} {
		s, err := secrets.CreateOrUpdate(ctx, "Demo-rg", "Demo-kv", name, armkeyvault.SecretCreateOrUpdateParameters{
			Tags: map[string]*string{"team": to.Ptr("a")},
			Properties: &armkeyvault.SecretProperties{
				Value: to.Ptr(canary), ContentType: to.Ptr("text/plain"), Attributes: &armkeyvault.SecretAttributes{Enabled: to.Ptr(true), Expires: &expires},
			},
		}, nil)
		ok(t, err)
		if s.Properties.Value != nil || !s.Properties.Attributes.Expires.Equal(expires) || !s.Properties.Attributes.Created.Equal(r.clock.Now()) || *s.Tags["team"] != "a" {
			t.Errorf("%+v", s.Properties)
		}
	}
	s, err := secrets.Update(ctx, "demo-rg", "demo-kv", "DB", armkeyvault.SecretPatchParameters{
		Properties: &armkeyvault.SecretPatchProperties{Attributes: &armkeyvault.SecretAttributes{Enabled: to.Ptr(false)}},
	}, nil)
	ok(t, err)
	got, err := secrets.Get(ctx, "Demo-rg", "Demo-kv", "db", nil)
	ok(t, err)
	if *got.Properties.Attributes.Enabled || *got.Properties.SecretURIWithVersion != *s.Properties.SecretURIWithVersion || *got.Name != "db" {
		t.Errorf("%+v", got.Properties)
	}
	list, pages := all(t, secrets.NewListPager("Demo-rg", "Demo-kv", &armkeyvault.SecretsClientListOptions{Top: to.Ptr(int32(1))}),
		func(p armkeyvault.SecretsClientListResponse) []*armkeyvault.Secret { return p.Value })
	if len(list) != 2 || pages != 2 || *list[0].Name != "cache" {
		t.Errorf("%d on %d pages", len(list), pages)
	}
	_, err = secrets.Get(ctx, "Demo-rg", "Demo-kv", "none", nil)
	wantCode(t, err, 404, "ResourceNotFound")
}
