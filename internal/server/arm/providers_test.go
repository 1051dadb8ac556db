package arm

import (
	"slices"
	"testing"
)

// TestResourcesProviderHasBothKinds: what lies in the first chain of an id
// and what extends others are of one provider.
func TestResourcesProviderHasBothKinds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/subscriptions/" + homeSub + "/providers/microsoft.resources", "/providers/Microsoft.Resources"} {
		var got struct {
			Namespace     string
			ResourceTypes []struct{ ResourceType string }
		}
		r.decode(r.must(200, "owner", "GET", path, nil), &got)
		var types []string
		for _, rt := range got.ResourceTypes {
			types = append(types, rt.ResourceType)
		}
		if got.Namespace != "Microsoft.Resources" || !slices.Contains(types, "tags") || !slices.Contains(types, "subscriptions/resourceGroups") || slices.Contains(types, "register") {
			t.Errorf("%s: %s has %v", path, got.Namespace, types)
		}
	}
	// A provider that another package brings can be registered too.
	r.h.Register(ResourceType{Name: "Zzz.Test/things", Versions: []string{"2026-01-01"}, Routes: []Route{
		{Method: "GET", Collection: true, Levels: AtGroup, Action: "Zzz.Test/things/read", Handle: listNothing},
	}})
	r.must(200, "owner", "POST", "/subscriptions/"+homeSub+"/providers/Zzz.Test/register", nil)
}
