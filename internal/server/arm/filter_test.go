package arm

import (
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
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
		"name eq '" + strings.Repeat("x", odata.MaxText) + "'":            "longer",
		"name eq '\xff'": "UTF-8",
	} {
		f, err := parseFilter(in, &resourceFilter)
		fe, _ := fault.As(err)
		if fe == nil || fe.Kind != fault.Invalid || fe.Code != "InvalidFilterInQueryString" || !strings.Contains(fe.Message, word) {
			t.Errorf("%.60q: %v, %v", in, f, err)
		}
	}
}
