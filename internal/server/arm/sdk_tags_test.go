package arm

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
)

func TestSDKTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, identity, _ := demo(t, r)
	ctx := t.Context()
	tags, err := armresources.NewTagsClient(homeSub, token("owner"), r.sdk())
	ok(t, err)
	set, err := tags.UpdateAtScope(ctx, *identity.ID, armresources.TagsPatchResource{
		Operation: to.Ptr(armresources.TagsPatchOperationMerge), Properties: &armresources.Tags{Tags: map[string]*string{"more": to.Ptr("yes")}},
	}, nil)
	ok(t, err)
	if len(set.Properties.Tags) != 2 || *set.Properties.Tags["a"] != "b" {
		t.Errorf("%+v", set.Properties)
	}
	_, err = tags.DeleteAtScope(ctx, *identity.ID, nil)
	ok(t, err)
	got, err := tags.GetAtScope(ctx, *identity.ID, nil)
	ok(t, err)
	if len(got.Properties.Tags) != 0 {
		t.Errorf("%+v", got.Properties)
	}
}
