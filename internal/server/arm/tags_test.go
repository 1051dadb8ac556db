package arm

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/server/rbac"
)

func TestTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.makeGroup("g")
	v := r.makeVault("g", "kv-1")
	r.makeIdentity("g", "idn")
	const tail = "/providers/Microsoft.Resources/tags/default"
	request := func(operation string, pairs ...string) map[string]any {
		tags := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			tags[pairs[i]] = pairs[i+1]
		}
		b := map[string]any{"properties": map[string]any{"tags": tags}}
		if operation != "" {
			b["operation"] = operation
		}
		return b
	}
	for _, scope := range []string{g, v, identityPath("g", "idn")} {
		steps := []struct {
			method string
			body   any
			want   map[string]any
		}{
			{"GET", nil, map[string]any{}},
			{"PUT", request("", "Team", "a", "env", "test"), map[string]any{"Team": "a", "env": "test"}},
			{"PATCH", request("Merge", "team", "b", "new", "x"), map[string]any{"Team": "b", "env": "test", "new": "x"}},
			{"PATCH", request("delete", "ENV", "test", "new", "other", "none", ""), map[string]any{"Team": "b", "new": "x"}},
			{"PATCH", request("Replace", "only", "one"), map[string]any{"only": "one"}},
			{"GET", nil, map[string]any{"only": "one"}},
		}
		for _, s := range steps {
			a := r.must(200, "owner", s.method, scope+tail, s.body)
			if diff := cmp.Diff(s.want, a.at("properties.tags")); diff != "" || a.at("id") != scope+tail || a.at("type") != "Microsoft.Resources/tags" {
				t.Errorf("%s %s: %s %s", s.method, scope, diff, a.body)
			}
		}
		if a := r.must(200, "owner", "GET", scope+"?api-version="+versionFor(scope), nil); a.at("tags.only") != "one" || a.at("location") != "westeurope" {
			t.Errorf("%s", a.body)
		}
		r.must(200, "owner", "DELETE", scope+tail, nil)
		if a := r.must(200, "owner", "GET", scope+tail, nil); len(a.at("properties.tags").(map[string]any)) != 0 {
			t.Errorf("%s", a.body)
		}
	}
	r.person("tagger", homeTenant)
	r.permit("tagger", g, typeTags+"/*") // but nothing else
	r.person("reader", homeTenant)
	r.grant("reader", rbac.Reader, g)
	before := r.dump()
	sub := "/subscriptions/" + homeSub
	for name, c := range map[string]struct {
		as, method, path string
		body             any
		status           int
		code             string
	}{
		"operation":          {"owner", "PATCH", v + tail, request("Append", "a", "b"), 400, "InvalidRequestContent"},
		"no tags":            {"owner", "PUT", v + tail, `{"properties":{}}`, 400, "InvalidRequestContent"},
		"bad name":           {"owner", "PUT", v + tail, request("", "a<b", "x"), 400, "InvalidTagNameCharacters"},
		"other name":         {"owner", "PUT", v + "/providers/Microsoft.Resources/tags/mine", request("", "a", "b"), 404, "ResourceNotFound"},
		"no resource":        {"owner", "PUT", vaultPath("g", "none") + tail, request("", "a", "b"), 404, "ResourceNotFound"},
		"subscription":       {"owner", "PUT", sub + tail, request("", "a", "b"), 405, "MethodNotAllowed"},
		"role assignment":    {"owner", "PUT", assignmentPath(g, "0f0f0f0f-1111-4222-8333-444455556666") + tail, request("", "a", "b"), 404, "InvalidResourceType"},
		"reader":             {"reader", "PUT", v + tail, request("", "a", "b"), 403, "AuthorizationFailed"},
		"without a right":    {"tagger", "PUT", v + tail, request("", "a", "b"), 403, "AuthorizationFailed"},
		"without seeing it":  {"tagger", "GET", v + tail, nil, 403, "AuthorizationFailed"},
		"deletion by reader": {"reader", "DELETE", v + tail, nil, 403, "AuthorizationFailed"},
	} {
		if a := r.do(c.as, c.method, c.path, c.body); a.StatusCode != c.status || a.code() != c.code {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}
