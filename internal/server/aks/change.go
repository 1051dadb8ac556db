package aks

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// handled are the members of a PUT that are dealt with elsewhere, or that the
// service chooses and clients send back as they read them, maybe long ago.
var handled = [...]string{"id", "name", "type", "location", "tags", "etag", "systemdata"}

// onlySupported refuses a PUT that asks for anything that a registered
// cluster cannot be. It compares the body with the cluster as it would be
// shown afterwards: so whatever a client sends back unchanged passes, and
// nothing is silently dropped.
func onlySupported(tree map[string]any, next *cluster) error {
	encoded, err := json.Marshal(wireOf(next))
	if err != nil {
		return err
	}
	var shown map[string]any
	if err := json.Unmarshal(encoded, &shown); err != nil {
		return err
	}
	want := maps.Clone(tree)
	maps.DeleteFunc(want, func(name string, _ any) bool { return slices.Contains(handled[:], strings.ToLower(name)) })
	if p, ok := want["properties"].(map[string]any); ok {
		p = maps.Clone(p)
		delete(p, "podkey")
		maps.DeleteFunc(p, func(name string, _ any) bool { return strings.EqualFold(name, "provisioningState") }) // the service's word, and maybe an old one
		want["properties"] = p
	}
	if where := difference(shown, want, ""); where != "" {
		return fault.BadRequest("PropertyChangeNotAllowed",
			"Changing property '%s' is not allowed: the cluster is registered with Podkey, which does not run it.", printable(where))
	}
	return nil
}

// difference returns the path of the first member of want that asks for
// something and is not as in have; "" if there is none. Members that are
// empty or false, and absent in have, ask for nothing: clients fill them in.
func difference(have, want any, path string) string {
	if have == nil && (web.Unset(want) || filledIn[path] == want) || want == nil {
		return ""
	}
	switch w := want.(type) {
	case map[string]any:
		h, _ := have.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(w)) {
			if where := difference(h[name], w[name], strings.TrimPrefix(path+"."+name, ".")); where != "" {
				return where
			}
		}
		if have == nil || h != nil {
			return ""
		}
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(w) {
			return path
		}
		for i := range w {
			if where := difference(h[i], w[i], path); where != "" {
				return where
			}
		}
		return ""
	case string:
		// Clients write the words of enumerations in their own case.
		if h, ok := have.(string); ok && strings.EqualFold(h, w) {
			return ""
		}
	default:
		if reflect.DeepEqual(have, want) {
			return ""
		}
	}
	return path
}

// filledIn are values that az writes where a cluster shows none.
var filledIn = map[string]any{"properties.networkProfile.outboundType": "loadBalancer"}
