package arm

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podkey/podkey/internal/fault"
)

func TestResourceFilter(t *testing.T) {
	res := Resource{ID: testVault, Name: "Kv1", Type: "Microsoft.KeyVault/vaults", Location: "westeurope", Tags: map[string]string{"Env": "Prod", "team": "o'brien"}}
	for in, want := range map[string]bool{
		"": true, "  ": true,
		"resourceType eq 'Microsoft.KeyVault/vaults'":             true,
		"resourceType eq 'microsoft.keyvault/VAULTS'":             true,
		"RESOURCETYPE EQ 'Microsoft.KeyVault/vaults'":             true,
		"resourceType ne 'Microsoft.KeyVault/vaults'":             false,
		"resourceType eq 'x' or name eq 'kv1'":                    true,
		"resourceType eq 'x' and name eq 'kv1'":                   false,
		"name eq 'kv1' or name eq 'x' and name eq 'y'":            true, // and binds tighter
		"(name eq 'kv1' or name eq 'x') and name eq 'y'":          false,
		"resourceGroup eq 'rg-1'":                                 true,
		"location eq 'westeurope'":                                true,
		"tagName eq 'env'":                                        true,
		"tagName eq 'Env' and tagValue eq 'Prod'":                 true,
		"tagName eq 'Env' and tagValue eq 'prod'":                 false, // values have case
		"tagName eq 'Env' and tagValue eq 'o''brien'":             false, // another tag's value
		"tagName eq 'team' and tagValue eq 'o''brien'":            true,
		"tagValue eq 'Prod'":                                      true,
		"tagName eq ''":                                           false,
		"startswith(tagName, 'EN')":                               true,
		"startswith(tagName,'x')":                                 false,
		"substringof('v1', name)":                                 true,
		"substringof('g-', resourceGroup)":                        true,
		"substringof('zz',name)or substringof('K',name)":          true,
		"((((name eq 'Kv1'))))":                                   true,
		"name eq 'a' or name eq 'b' or name eq 'c'":               false,
		"tagName eq 'Env' and resourceType eq 'Microsoft.X/y'":    false,
		"tagName eq 'Env' and (tagValue eq 'x' or name eq 'kv1')": true,
	} {
		f, err := parseFilter(in, &resourceFilter)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		env := filterEnv{tags: res.Tags, property: res.property}
		if got := match(f, &env); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestFilterRefusesByName(t *testing.T) {
	for in, word := range map[string]string{
		"plan eq 'x'":                 "plan",
		"identity/principalId eq 'x'": "identity/principalid",
		"name gt 'x'":                 "gt",
		"tagName ne 'x'":              "ne",
		"endswith(name,'x')":          "endswith",
		"substringof(name,'x')":       "substringof",
		"substringof('x',location)":   "substringof",
		"substringof('x')":            "substringof",
		"startswith(name,'x')":        "startswith",
		"not (name eq 'x')":           "not",
		"not name eq 'x'":             "not",
		"name eq x":                   "x",
		"name eq 'x":                  "quote",
		"name eq 'x' and":             "end of filter",
		"name eq 'x' name":            "name",
		"name eq 'x')":                ")",
		"(name eq 'x'":                ")",
		"name":                        "name",
		"name eq":                     "end of filter",
		"eq eq 'x'":                   "eq",
		"and":                         "and",
		"name eq 'x' & name eq 'y'":   "&",
		"substringof('x' name)":       ",",
		"substringof((,name)":         "argument",
		"atScope()":                   "atscope",
		"\x00":                        "expected",
		strings.Repeat("(", 60) + "name eq 'x'" + strings.Repeat(")", 60): "nested",
		"name eq '" + strings.Repeat("x", maxFilter) + "'":                "longer",
		"name eq '\xff'": "UTF-8",
	} {
		f, err := parseFilter(in, &resourceFilter)
		fe, _ := fault.As(err)
		if fe == nil || fe.Kind != fault.Invalid || fe.Code != "InvalidFilterInQueryString" || !strings.Contains(fe.Message, word) {
			t.Errorf("%.60q: %v, %v", in, f, err)
		}
	}
}

func anyFilter(depth int) *rapid.Generator[filter] {
	word := rapid.StringMatching(`[a-z][a-z0-9/._-]{0,8}`).Filter(func(s string) bool {
		return s != "and" && s != "or" && s != "eq" && s != "ne" && s != "not"
	})
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab' ,()ü")), 0, 8, -1)
	leaf := rapid.Custom(func(t *rapid.T) filter {
		if rapid.Bool().Draw(t, "call") {
			f := call{function: word.Draw(t, "function")}
			for range rapid.IntRange(0, 3).Draw(t, "args") {
				if rapid.Bool().Draw(t, "property") {
					f.args = append(f.args, callArg{word.Draw(t, "arg"), true})
				} else {
					f.args = append(f.args, callArg{text.Draw(t, "arg"), false})
				}
			}
			return f
		}
		return compare{word.Draw(t, "property"), rapid.SampledFrom([]string{"eq", "ne"}).Draw(t, "op"), text.Draw(t, "text")}
	})
	if depth == 0 {
		return leaf
	}
	return rapid.Custom(func(t *rapid.T) filter {
		sub := anyFilter(depth - 1)
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return both(rapid.SliceOfN(sub, 2, 3).Draw(t, "both"))
		case 1:
			return either(rapid.SliceOfN(sub, 2, 3).Draw(t, "either"))
		}
		return leaf.Draw(t, "leaf")
	})
}

// anything lets all names through: for the parser alone.
func parseAnyFilter(s string) (filter, error) {
	p := filterParser{rest: s}
	if err := p.next(); err != nil {
		return nil, err
	}
	f, err := p.or(0)
	if err == nil && p.kind != tokEnd {
		err = badFilter("'%s' is not expected", p.tok)
	}
	return f, err
}

// TestFilterRoundTrip: a filter's text parses to a filter with the same text
// and the same truth.
func TestFilterRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFilter(3).Draw(t, "filter")
		g, err := parseAnyFilter(f.String())
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if g.String() != f.String() {
			t.Fatalf("%s became %s", f, g)
		}
		truths := rapid.SliceOfN(rapid.Bool(), 16, 16).Draw(t, "truths")
		env := func() *filterEnv {
			n := -1
			next := func() bool { n++; return truths[n%len(truths)] }
			return &filterEnv{
				property: func(string) string {
					if next() {
						return "a"
					}
					return ""
				},
				call: func(string, []string) bool { return next() },
			}
		}
		if f.holds(env()) != g.holds(env()) {
			t.Fatalf("%s and %s differ in truth", f, g)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"name eq 'x'", "substringof('a',name) and tagName eq 'b'", "((a eq 'b') or c())", "atScope()", "x eq '''", "not(a eq 'b')"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseFilter(s, &resourceFilter); err != nil {
			if fe, ok := fault.As(err); !ok || fe.Kind != fault.Invalid {
				t.Fatalf("%q: %v", s, err)
			}
		}
		g, err := parseAnyFilter(s)
		if err != nil {
			return
		}
		again, err := parseAnyFilter(g.String())
		if err != nil || again.String() != g.String() {
			t.Fatalf("%q: %s became %v: %v", s, g, again, err)
		}
	})
}
