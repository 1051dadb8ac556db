package template

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const identity = `"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31"`

// ids are the ids of a deployment's resources in order, from the group on.
func ids(d *Deployment) string {
	var out []string
	for _, r := range d.Resources() {
		s := strings.TrimPrefix(strings.TrimPrefix(r.ID, groupID), "/providers/")
		if r.Skipped {
			s = "-" + s
		}
		if r.Existing {
			s = "=" + s
		}
		out = append(out, strings.ReplaceAll(s, "Microsoft.ManagedIdentity/userAssignedIdentities", "mi"))
	}
	return strings.Join(out, " ")
}

func symbolic(sections string) string {
	return strings.Replace(doc(sections), `"contentVersion"`, `"languageVersion": "2.0", "contentVersion"`, 1)
}

// TestResources: names, scopes, copies, conditions and order.
func TestResources(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"order by name":        {doc(`"resources": [{` + identity + `, "name": "b", "dependsOn": ["a"]}, {` + identity + `, "name": "a"}]`), "mi/a mi/b"},
		"order by id":          {doc(`"resources": [{` + identity + `, "name": "b", "dependsOn": ["[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', 'a')]"]}, {` + identity + `, "name": "a"}]`), "mi/a mi/b"},
		"order by type":        {doc(`"resources": [{` + identity + `, "name": "b", "dependsOn": ["Microsoft.ManagedIdentity/userAssignedIdentities/a"]}, {` + identity + `, "name": "a"}]`), "mi/a mi/b"},
		"order by reference":   {doc(`"resources": [{` + identity + `, "name": "b", "tags": {"x": "[concat(reference('z').x, reference('a').clientId)]"}}, {` + identity + `, "name": "a"}, {` + identity + `, "name": "z"}]`), "mi/z mi/a mi/b"},
		"reference in if":      {doc(`"resources": [{` + identity + `, "name": "b", "tags": {"x": "[if(empty(reference('z').x), reference('a').clientId, '')]"}}, {` + identity + `, "name": "a"}, {` + identity + `, "name": "z"}]`), "mi/z mi/a mi/b"},
		"copies":               {doc(`"resources": [{` + identity + `, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "c", "count": 3}}]`), "mi/n0 mi/n1 mi/n2"},
		"copies with offset":   {doc(`"resources": [{` + identity + `, "name": "[format('n{0}{1}', copyIndex('c', 5), copyIndex(1))]", "copy": {"name": "c", "count": 2}}]`), "mi/n51 mi/n62"},
		"after copies":         {doc(`"resources": [{` + identity + `, "name": "last", "dependsOn": ["c"]}, {` + identity + `, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "c", "count": 2}}]`), "mi/n0 mi/n1 mi/last"},
		"after an empty loop":  {doc(`"resources": [{` + identity + `, "name": "last", "dependsOn": ["c"]}, {` + identity + `, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "c", "count": 0}}]`), "mi/last"},
		"condition":            {doc(`"resources": [{` + identity + `, "name": "b", "dependsOn": ["a"]}, {` + identity + `, "name": "a", "condition": false}]`), "-mi/a mi/b"},
		"name of no condition": {doc(`"resources": [{` + identity + `, "name": "[first(createArray()).x]", "condition": "[equals(1, 2)]"}]`), "-"},
		"child inside":         {doc(`"resources": [{"type": "Microsoft.KeyVault/vaults", "apiVersion": "1", "name": "v", "resources": [{"type": "secrets", "apiVersion": "1", "name": "s"}]}]`), "Microsoft.KeyVault/vaults/v Microsoft.KeyVault/vaults/v/secrets/s"},
		"child beside":         {doc(`"resources": [{"type": "Microsoft.KeyVault/vaults/secrets", "apiVersion": "1", "name": "v/s"}]`), "Microsoft.KeyVault/vaults/v/secrets/s"},
		"extension inside":     {doc(`"resources": [{"type": "Microsoft.KeyVault/vaults", "apiVersion": "1", "name": "v", "resources": [{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "1", "name": "x"}]}]`), "Microsoft.KeyVault/vaults/v Microsoft.KeyVault/vaults/v/providers/Microsoft.Authorization/roleAssignments/x"},
		"extension by scope":   {doc(`"resources": [{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "1", "name": "x", "scope": "[format('Microsoft.KeyVault/vaults/{0}', 'v')]"}]`), "Microsoft.KeyVault/vaults/v/providers/Microsoft.Authorization/roleAssignments/x"},
		"extension by id":      {doc(`"resources": [{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "1", "name": "x", "scope": "[resourceId('Microsoft.KeyVault/vaults', 'v')]"}]`), "Microsoft.KeyVault/vaults/v/providers/Microsoft.Authorization/roleAssignments/x"},
		"extension by type":    {doc(`"resources": [{"type": "Microsoft.KeyVault/vaults/providers/roleAssignments", "apiVersion": "1", "name": "v/Microsoft.Authorization/x"}]`), "Microsoft.KeyVault/vaults/v/providers/Microsoft.Authorization/roleAssignments/x"},
		"at the subscription":  {doc(`"resources": [{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "1", "name": "x", "scope": "[subscription().id]"}]`), "/subscriptions/" + subID + "/providers/Microsoft.Authorization/roleAssignments/x"},
		"symbolic":             {symbolic(`"resources": {"b": {` + identity + `, "name": "x", "dependsOn": ["a"]}, "a": {` + identity + `, "name": "y"}}`), "mi/y mi/x"},
		"symbolic loop item":   {symbolic(`"resources": {"b": {` + identity + `, "name": "x", "tags": {"x": "[reference('c[1]').clientId]"}}, "c": {` + identity + `, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "loop", "count": 2}}}`), "mi/n1 mi/x mi/n0"},
		"symbolic whole loop":  {symbolic(`"resources": {"b": {` + identity + `, "name": "x", "tags": {"x": "[references('c')[0].clientId]"}}, "c": {` + identity + `, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "loop", "count": 2}}}`), "mi/n0 mi/n1 mi/x"},
		"existing":             {symbolic(`"resources": {"b": {` + identity + `, "name": "x", "dependsOn": ["e"]}, "e": {"existing": true, ` + identity + `, "name": "y"}}`), "=mi/y mi/x"},
		"existing elsewhere":   {symbolic(`"resources": {"e": {"existing": true, ` + identity + `, "name": "y", "resourceGroup": "other"}}`), "=/subscriptions/" + subID + "/resourceGroups/other/providers/mi/y"},
	} {
		d, err := bind(c.text, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := ids(d); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestSerialCopies: a batch waits for the one before.
func TestSerialCopies(t *testing.T) {
	d := mustBind(t, doc(`"resources": [{`+identity+`, "name": "[format('n{0}', copyIndex())]", "copy": {"name": "c", "count": 5, "mode": "serial", "batchSize": 2}}]`), nil)
	for i, want := range []int{0, 0, 2, 2, 2} {
		if got := len(d.Resources()[i].DependsOn()); got != want {
			t.Errorf("item %d waits for %d, want %d", i, got, want)
		}
	}
}

// TestBodies: what is sent, and what is not the resource's.
func TestBodies(t *testing.T) {
	d := mustBind(t, doc(`"parameters": {"names": {"type": "array", "defaultValue": ["x", "y"]}}, "resources": [{"type": "Microsoft.KeyVault/vaults", "apiVersion": "1", "name": "v", "comments": "c", "metadata": {"x": "[not parsed"}, "location": "w",
		"identity": {"userAssignedIdentities": {"[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', 'i')]": {}}},
		"properties": {"uri": "[reference(resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', 'i'), '2023-01-31').clientId]", "n": 1.5, "big": 12345678901234567890, "none": null,
			"copy": [{"name": "policies", "count": "[length(parameters('names'))]", "input": {"id": "[parameters('names')[copyIndex('policies')]]"}}], "literal": "[[x]"}}]`), nil)
	r := d.Resources()[0]
	_, known, err := d.Preview(r)
	if err != nil || known {
		t.Errorf("%v %v", known, err)
	}
	body, err := d.Body(r, world{strings.ToLower(groupID + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"): {"properties": map[string]any{"clientId": "c-1"}}})
	want := `{"identity":{"userAssignedIdentities":{"` + groupID + `/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i":{}}},"location":"w","properties":{"big":12345678901234567890,"literal":"[x]","n":1.5,"none":null,"policies":[{"id":"x"},{"id":"y"}],"uri":"c-1"}}`
	if err != nil || jsonOf(body) != want {
		t.Errorf("%v\n%s\n%s", err, jsonOf(body), want)
	}
	if _, err := d.Body(r, world{}); !errors.Is(err, errMissing) {
		t.Errorf("the error of the runtime comes through: %v", err)
	}
}

func TestOutputs(t *testing.T) {
	d := mustBind(t, doc(`"parameters": {"s": {"type": "securestring"}}, "resources": [], "outputs": {
		"list": {"type": "array", "copy": {"count": 2, "input": "[copyIndex(1)]"}}, "left": {"condition": false, "type": "int", "value": 1}, "int": {"type": "int", "value": "[add(1, 1)]"},
		"shown": {"type": "securestring", "value": "x"}, "tainted": {"type": "object", "value": {"a": ["[base64(parameters('s'))]"]}}}`), map[string]any{"s": "hunter22"})
	out, err := d.Outputs(nil)
	if err != nil || len(out) != 4 || jsonOf(out["list"].Value) != "[1,2]" || out["int"].Value != int64(2) {
		t.Errorf("%+v %v", out, err)
	}
	for _, name := range []string{"shown", "tainted"} {
		if !out[name].Hidden || out[name].Value != nil || !strings.HasPrefix(out[name].Type, "Secure") {
			t.Errorf("%s: %+v", name, out[name])
		}
	}
	d = mustBind(t, doc(`"resources": [], "outputs": {"x": {"type": "int", "value": "text"}}`), nil)
	if _, err := d.Outputs(nil); err == nil || !strings.Contains(err.Error(), "'int' is expected") {
		t.Errorf("%v", err)
	}
}

// TestParameters: what is accepted, and the words of refusals, which never
// have the value in them.
func TestParameters(t *testing.T) {
	const types = `"definitions": {"pair": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "int", "nullable": true}}, "additionalProperties": false},
			"shape": {"type": "object", "discriminator": {"propertyName": "kind", "mapping": {"round": {"type": "object", "properties": {"kind": {"type": "string"}, "r": {"type": "int"}}}}}}},
		"parameters": {"p": `
	for _, c := range []struct {
		decl  string
		value any
		want  string // of the error; empty if it is fine
	}{
		{`{"type": "string"}`, "x", ""}, {`{"type": "String"}`, "x", ""}, {`{"type": "int"}`, int64(5), ""}, {`{"type": "bool"}`, true, ""},
		{`{"type": "string"}`, int64(5), "'string' is expected"}, {`{"type": "array"}`, map[string]any{}, "'array' is expected"}, {`{"type": "int"}`, nil, "'int' is expected"},
		{`{"type": "string", "allowedValues": ["secret-a", "b"]}`, "b", ""}, {`{"type": "string", "allowedValues": ["a", "b"]}`, "secret-c", "allowed values"},
		{`{"type": "array", "allowedValues": ["a", "b"]}`, []any{"b", "a"}, ""}, {`{"type": "array", "allowedValues": ["a"]}`, []any{"secret"}, "allowed values"},
		{`{"type": "string", "minLength": 3, "maxLength": 4}`, "secret", "above the 'maxLength'"}, {`{"type": "string", "minLength": 3}`, "ab", "below the 'minLength'"},
		{`{"type": "int", "minValue": 1, "maxValue": 3}`, int64(4), "above the 'maxValue'"}, {`{"type": "array", "minLength": 1}`, []any{}, "below the 'minLength'"},
		{`{"type": "string", "nullable": true}`, nil, ""},
		{`{"$ref": "#/definitions/pair"}`, map[string]any{"name": "x"}, ""}, {`{"$ref": "#/definitions/pair"}`, map[string]any{"name": "x", "size": nil}, ""},
		{`{"$ref": "#/definitions/pair"}`, map[string]any{"size": int64(1)}, "'name' is missing"}, {`{"$ref": "#/definitions/pair"}`, map[string]any{"name": "x", "more": "secret"}, "'more' is not known"},
		{`{"type": "array", "items": {"$ref": "#/definitions/pair"}}`, []any{map[string]any{"name": int64(1)}}, "p[0].name"},
		{`{"type": "array", "prefixItems": [{"type": "int"}], "items": false}`, []any{int64(1), "secret"}, "more items"},
		{`{"type": "object", "properties": {}, "additionalProperties": {"type": "int"}}`, map[string]any{"a": "secret"}, "'int' is expected"},
		{`{"$ref": "#/definitions/shape"}`, map[string]any{"kind": "round", "r": int64(1)}, ""}, {`{"$ref": "#/definitions/shape"}`, map[string]any{"kind": "square"}, "known variant"},
		{`{"$ref": "#/definitions/none"}`, "x", "does not exist"}, {`{"$ref": "https://x.example/"}`, "x", "not to a definition"}, {`{"type": "surprise"}`, "x", "not known"}, {`{}`, "x", "'type' is missing"},
		{`{"type": "string", "surprise": 1}`, "x", "not known here"}, {`{"type": "string", "defaultValue": "[parameters('p')]"}`, nil, "depends on itself"},
		{`{"type": "string", "defaultValue": "[variables('v')]"}`, nil, "not known here"}, {`{"type": "string", "defaultValue": "[reference('x', '1')]"}`, nil, "not expected"},
		{`{"type": "int", "defaultValue": "text"}`, nil, "'int' is expected"}, {`{"type": "string", "defaultValue": "[newGuid()]"}`, nil, ""},
	} {
		_, err := bind(doc(types+c.decl+`}, "resources": []`), map[string]any{"p": c.value})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s %v: %v", c.decl, c.value, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s %v: %v, want %q", c.decl, c.value, err, c.want)
		}
	}
}

// TestRefusedTemplates: each mistake is named with its place.
func TestRefusedTemplates(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{doc(`"resources": {}`), "must be a list"}, {symbolic(`"resources": []`), "must be an object"}, {doc(`"parameters": {}`), "no 'resources'"},
		{doc(`"resources": [{"apiVersion": "1", "name": "x"}]`), "no 'type'"}, {doc(`"resources": [{"type": "a/b", "name": "x"}]`), "no 'apiVersion'"}, {doc(`"resources": [{"type": "a/b", "apiVersion": "1"}]`), "no 'name'"},
		{doc(`"resources": [{"type": "a", "apiVersion": "1", "name": "x"}]`), "malformed"}, {doc(`"resources": [{"type": "a/b/c", "apiVersion": "1", "name": "x"}]`), "2 levels"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "[reference('x', '1').y]"}]`), "not defined"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "[resourceGroup().none]"}]`), "'none' does not exist"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "condition": "[reference('/x/y', '1')]"}]`), "not expected at this location"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "resourceGroup": "g"}]`), "Only nested deployments"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "existing": true}]`), "language version 2.0"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "Name": "y"}]`), "given twice"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "dependsOn": ["x"]}]`), "Circular"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "copy": {"name": "c", "count": -1}}]`), "between 0 and 800"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "copy": {"name": "c", "count": 2}}]`), "multiple times"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "[copyIndex('d')]", "copy": {"name": "c", "count": 2}}]`), "no copy loop 'd'"},
		{doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "x", "copy": {"name": "c", "count": 2, "mode": "maybe"}}]`), "'serial' or 'parallel'"},
		{doc(`"variables": {"a": "[variables('b')]", "b": "[variables('a')]"}, "resources": []`), "depends on itself"},
		{doc(`"variables": {"a": "[reference('/x/y', '1')]"}, "resources": []`), "not expected at this location"},
		{doc(`"variables": {"a": 1, "A": 2}, "resources": []`), "given twice"},
		{doc(`"functions": [{"namespace": "f", "members": {"g": {"parameters": [], "output": {"type": "string", "value": "[variables('a')]"}}}}], "variables": {"a": "x", "b": "[f.g()]"}, "resources": []`), "not known here"},
		{doc(`"outputs": {"x": {"type": "string"}}, "resources": []`), "either 'value' or 'copy'"},
		{doc(`"asserts": {}, "resources": []`), "assertions"}, {doc(`"extensions": {}, "resources": []`), "extensions"}, {doc(`"apiProfile": "x", "resources": []`), "API profiles"},
		{strings.Replace(symbolic(`"resources": {}`), `"2.0"`, `"3.0"`, 1), "language version"},
		{doc(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "1", "name": "x", "properties": {"templateLink": {"uri": "https://x.example"}}}]`), "'templateLink' is not supported"},
		{doc(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "1", "name": "x", "properties": {"template": {}, "expressionEvaluationOptions": {"scope": "maybe"}}}]`), "'inner' or 'outer'"},
		{doc(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "1", "name": "x", "properties": {"expressionEvaluationOptions": {"scope": "inner"}, "template": ` + doc(`"resources": [{}]`) + `}}]`), "resources[0].properties.template.resources[0]"},
	} {
		if d, err := bind(c.text, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n%v %v, want %q", c.text, d, err, c.want)
		}
	}
	var many strings.Builder
	for i := range 801 {
		many.WriteString(`{"type": "a/b", "apiVersion": "1", "name": "n` + itoa(i) + `"},`)
	}
	if _, err := bind(doc(`"resources": [`+many.String()+`]`), nil); err == nil || !strings.Contains(err.Error(), "at most 800") {
		t.Error(err)
	}
	two := `{"type": "a/b", "apiVersion": "1", "name": "[format('N{0}', copyIndex())]", "copy": {"name": "N", "count": 500}}`
	if _, err := bind(doc(`"resources": [`+two+`,`+strings.ReplaceAll(two, "N", "M")+`]`), nil); err == nil || !strings.Contains(err.Error(), "at most 800") {
		t.Error(err)
	}
}

func TestDecode(t *testing.T) {
	for in, want := range map[string]string{
		`{a: 1, "b": [true, null, -2, 1.5e3,], /* c */ 'd': 'e', // f
		}`: `{"a":1,"b":[true,null,-2,1.5e3],"d":"e"}`,
		"\ufeff {}  // end": `{}`,
		`"two
lines"`: `"two\nlines"`,
		`"\u00e9\ud83d\ude00\n\/"`: `"é😀\n/"`,
		`9223372036854775808`:      `9223372036854775808`,
	} {
		got, err := Decode([]byte(in))
		if err != nil || jsonOf(got) != want {
			t.Errorf("%s: %s %v, want %s", in, jsonOf(got), err, want)
		}
	}
	for _, in := range []string{``, `{`, `{"a"`, `{"a":}`, `{"a":1 "b":2}`, `{"a":1,"a":2}`, `[1 2]`, `[,]`, `{,}`, `"`, `"\x"`, `"\ud800"`, `01`, `-`, `1.`, `tru`, `{} {}`, `/*`, "\"\xff\"", `{:1}`, strings.Repeat("[", 100)} {
		v, err := Decode([]byte(in))
		if e, ok := errors.AsType[*Error](err); !ok || e.Line == 0 || v != nil {
			t.Errorf("%q: %v %v", in, v, err)
		}
	}
	_, err := Decode([]byte("{\n  \"a\": secret\n}"))
	if err == nil || !strings.Contains(err.Error(), "line 2, position 8") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"a longsecret b", "a ******* b"}, {"abc", "*******"}, {"abcd", "abcd"}, {"", ""}} {
		if got := Redact(c.in, []string{"longsecret", "long", "abc", ""}); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	long := "-----BEGIN A KEY-----\n" + strings.Repeat("abcdefgh\n", 30)
	for _, shown := range []string{long, long[:100] + "...", clip(long), "x" + printable(long) + "y"} {
		if got := Redact(shown, []string{long}); strings.Contains(got, "abcdefgh") {
			t.Errorf("%q", got)
		}
	}
	for _, e := range []string{`[createObject('a', 1)[toUpper(parameters('s'))]]`, `[fail(concat('x', parameters('s')))]`, `[variables(toLower(parameters('s')))]`, `[if(equals(parameters('s'), 'x'), 1, createObject()[base64(parameters('s'))])]`} {
		_, err := bind(doc(`"parameters": {"s": {"type": "secureString"}}, "variables": {"v": `+quote(e)+`}, "resources": []`), map[string]any{"s": "Hunter22"})
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "hunter") || !strings.Contains(err.Error(), "not shown") {
			t.Errorf("%s: %v", e, err)
		}
	}
	d := mustBind(t, doc(`"parameters": {"s": {"type": "secureObject"}}, "variables": {"v": "[toUpper(parameters('s').a)]", "w": "[if(empty(parameters('s').a), 'none', 'some')]"}, "resources": []`),
		map[string]any{"s": map[string]any{"a": "hunter22", "b": []any{"deep-one"}}})
	if got := d.Secrets(); !slices.Equal(got, []string{"HUNTER22", "deep-one", "hunter22"}) {
		t.Errorf("%q", got)
	}
}
