package deploy

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/rbac"
)

// TestSecureValuesStayHidden passes a secret through everything that could
// carry it to light: outputs, what is computed from it, a nested deployment
// that declares it as an ordinary text, the errors of a resource and of the
// language, default values, the kept template, what-if, logs and audit lines.
func TestSecureValuesStayHidden(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const secret, standby = "correct-horse-battery", "default-horse-battery"
	identity := `{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "westeurope"%s}`
	inner := simple(`"parameters": {"open": {"type": "string"}, "derived": {"type": "string"}, "both": {"type": "object"}, "pin": {"type": "int"}}, "resources": [],
		"outputs": {"open": {"type": "string", "value": "[parameters('open')]"}, "derived": {"type": "string", "value": "[parameters('derived')]"}, "part": {"type": "string", "value": "[substring(parameters('open'), 0, 3)]"}}`)
	nested := func(name, scope, template, parameters string) string {
		return `{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "` + name + `", "properties": {"mode": "Incremental",
			"expressionEvaluationOptions": {"scope": "` + scope + `"}, "parameters": {` + parameters + `}, "template": ` + template + `}}`
	}
	outer := simple(`"resources": [], "outputs": {"o": {"type": "string", "value": "[parameters('password')]"}}`)
	text := simple(`"parameters": {"password": {"type": "securestring"}, "other": {"type": "secureObject", "defaultValue": {"key": "` + standby + `"}}, "pin": {"type": "securestring"}},
		"variables": {"hidden": "[concat('x', parameters('password'))]"},
		"resources": [` + fmt.Sprintf(identity, "") + `,
			` + nested("inner", "inner", inner, `"open": {"value": "[parameters('password')]"}, "derived": {"value": "[base64(variables('hidden'))]"}, "both": {"value": {"a": "[parameters('other').key]"}}, "pin": {"value": "[int(parameters('pin'))]"}`) + `,
			` + nested("outer", "outer", outer, "") + `],
		"outputs": {"plain": {"type": "string", "value": "[parameters('password')]"}, "computed": {"type": "string", "value": "[toUpper(variables('hidden'))]"},
			"inside": {"type": "object", "value": {"deep": ["[parameters('other').key]"]}}, "looped": {"type": "array", "copy": {"count": 2, "input": "[parameters('password')]"}},
			"pin": {"type": "int", "value": "[add(int(parameters('pin')), 1)]"}, "chosen": {"type": "string", "value": "[if(empty(parameters('password')), 'none', 'some')]"}, "size": {"type": "int", "value": "[length(parameters('password'))]"}}`)
	var seen []string
	keep := func(a *answer) *answer { seen = append(seen, string(a.body)); return a }
	given := map[string]any{"password": secret}
	all := map[string]any{"password": secret, "pin": "4915267"}
	keep(r.must(200, "owner", "POST", at+"d/validate", body(text, all)))
	keep(r.must(200, "owner", "POST", at+"d/whatIf", body(text, all)))
	a := keep(r.deploy("owner", at+"d", text, all))
	if a.at("properties.outputs.chosen.value") != "some" || a.at("properties.outputs.size.value") != float64(len(secret)) {
		t.Errorf("what says nothing of the secret is shown: %s", a.body)
	}
	if a.at("properties.outputs.plain.type") != "SecureString" {
		t.Errorf("%s", a.body)
	}
	for _, name := range []string{"d", "inner", "outer"} {
		for _, part := range []string{"", "/operations"} {
			keep(r.must(200, "owner", "GET", at+name+part, nil))
		}
		keep(r.must(200, "owner", "POST", at+name+"/exportTemplate", nil))
	}
	keep(r.must(200, "owner", "GET", group+"/providers/Microsoft.Resources/deployments", nil))

	// Errors: of a resource that repeats what it was given, of the language, of parameters.
	failing := func(more, outputs string) string {
		return simple(`"parameters": {"password": {"type": "securestring", "maxLength": 100}}, "resources": [` + fmt.Sprintf(identity, more) + `], "outputs": {` + outputs + `}`)
	}
	try := func(body string) {
		keep(r.do("owner", "PUT", at+"e", body))
		keep(r.do("owner", "GET", at+"e", nil))
		keep(r.do("owner", "GET", at+"e/operations", nil))
	}
	try(body(failing(`, "tags": {"[parameters('password')]<": "x"}`, ""), given))
	try(body(failing(`, "tags": {"a": "[createObject('a', 1)[parameters('password')]]"}`, ""), given))
	try(body(failing("", `"x": {"type": "int", "value": "[int(parameters('password'))]"}`), given))
	try(body(failing("", `"x": {"type": "string", "value": "[fail(parameters('password'))]"}`), given))
	try(body(failing("", ""), map[string]any{"password": strings.Repeat(secret, 10)}))
	try(body(failing("", ""), map[string]any{"password": []string{secret}}))
	try(strings.Replace(body(failing("", ""), given), `"}}, "mode"`, `" x}}, "mode"`, 1))

	// A name is in every log: it cannot be made from a secret.
	named := simple(`"parameters": {"password": {"type": "securestring"}}, "resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "[parameters('password')]", "location": "westeurope"}]`)
	keep(r.refused(400, "InvalidTemplate", "owner", "PUT", at+"n", body(named, given)))
	through := simple(`"parameters": {"password": {"type": "securestring"}}, "resources": [` +
		nested("named", "inner", strings.Replace(named, `"securestring"`, `"string"`, 1), `"password": {"value": "[parameters('password')]"}`) + `]`)
	keep(r.refused(400, "InvalidTemplate", "owner", "PUT", at+"n", body(through, given)))

	seen = append(seen, r.audit.String(), r.log.String())
	for _, s := range seen {
		for _, bad := range []string{secret, strings.ToUpper(secret), standby, base64.StdEncoding.EncodeToString([]byte("x" + secret)), secret[:3] + `"`, "4915267", "4915268"} {
			if i := strings.Index(s, bad); i >= 0 {
				t.Errorf("%q came to light: ...%s", bad, s[max(0, i-300):min(len(s), i+100)])
			}
		}
	}
}

// TestReferenceReadsAsTheCaller: a template shows its caller nothing that the
// caller may not read.
func TestReferenceReadsAsTheCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(201, "owner", "PUT", "/subscriptions/"+sub+"/resourceGroups/other", map[string]any{"location": "westeurope"})
	hidden := "/subscriptions/" + sub + "/resourceGroups/other/providers/Microsoft.ManagedIdentity/userAssignedIdentities/hidden"
	client := r.must(201, "owner", "PUT", hidden, map[string]any{"location": "westeurope"}).at("properties.clientId").(string)
	r.person("mine", rbac.Contributor, group)
	for _, text := range []string{
		simple(`"resources": [], "outputs": {"x": {"type": "string", "value": "[reference('` + hidden + `', '2023-01-31').clientId]"}}`),
		simple(`"resources": [], "outputs": {"x": {"type": "object", "value": "[reference('` + hidden + `', '2023-01-31', 'Full')]"}}`),
		simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "westeurope", "tags": {"x": "[reference('` + hidden + `', '2023-01-31').clientId]"}}]`),
	} {
		a := r.fails("mine", at+"d", body(text, nil))
		if strings.Contains(string(a.body), client) || !strings.Contains(string(a.body), "AuthorizationFailed") && !strings.Contains(string(a.body), "DeploymentOutputEvaluationFailed") {
			t.Errorf("%s", a.body)
		}
		if a := r.do("mine", "POST", at+"d/whatIf", body(text, nil)); strings.Contains(string(a.body), client) {
			t.Errorf("%s", a.body)
		}
	}
	// Nor may it write there, by a nested deployment or by a scope.
	before := r.must(200, "owner", "GET", hidden, nil)
	inner := simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "hidden", "location": "westeurope", "tags": {"mine": "now"}}]`)
	nested := simple(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "n", "resourceGroup": "other", "properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, "template": ` + inner + `}}]`)
	r.refused(403, "InvalidTemplateDeployment", "mine", "PUT", at+"d", body(nested, nil))
	scoped := simple(`"resources": [{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "2022-04-01", "name": "[guid('x')]", "scope": "` + hidden + `", "properties": {"roleDefinitionId": "` + rbac.Owner + `", "principalId": "` + r.people["mine"].ObjectID + `"}}]`)
	r.refused(403, "InvalidTemplateDeployment", "mine", "PUT", at+"d", body(scoped, nil))
	if after := r.must(200, "owner", "GET", hidden, nil); string(after.body) != string(before.body) {
		t.Errorf("%s\n%s", before.body, after.body)
	}
	// A name that climbs out of its place is no name.
	for _, name := range []string{"../../x", "a/b", "a%2fb", "..", "a?x=1", "a#b"} {
		climb := simple(`"resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "` + name + `", "location": "westeurope"}]`)
		if a := r.do("owner", "PUT", at+"d", body(climb, nil)); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestBadRequests: every one gets ARM's error, and nothing is done.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.dump()
	ok := `{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "westeurope"}`
	laughs := `"variables": {"a": "[range(0, 10000)]", "b": "[map(variables('a'), lambda('x', variables('a')))]"}, "resources": []`
	loops := func(depth int) string {
		text := simple(`"resources": [{"copy": {"name": "c", "count": 800}, "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "[format('n{0}', copyIndex())]", "location": "westeurope"}]`)
		for range depth {
			text = simple(`"resources": [{"copy": {"name": "c", "count": 800}, "type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "[format('n{0}', copyIndex())]",
				"properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, "template": ` + text + `}}]`)
		}
		return text
	}
	for name, c := range map[string]struct {
		status int
		code   string
		body   string
		want   string
	}{
		"empty":              {400, "InvalidRequestContent", "", ""},
		"not an object":      {400, "InvalidRequestContent", "[]", ""},
		"no template":        {400, "InvalidRequestContent", `{"properties": {}}`, "template"},
		"trailing":           {400, "InvalidRequestContent", body(simple(`"resources": []`), nil) + "x", "after the end"},
		"twice":              {400, "InvalidRequestContent", `{"properties": {"template": {}, "template": {}}}`, "same name"},
		"unknown member":     {400, "InvalidRequestContent", `{"properties": {"template": {}, "surprise": 1}}`, "surprise"},
		"link":               {400, "InvalidRequestContent", `{"properties": {"templateLink": {"uri": "https://x.example/t.json"}}}`, "templateLink"},
		"parameters link":    {400, "InvalidRequestContent", `{"properties": {"template": {}, "parametersLink": {"uri": "https://x.example/t.json"}}}`, "parametersLink"},
		"complete":           {400, "DeploymentModeNotSupported", `{"properties": {"mode": "Complete", "template": {}}}`, "Complete"},
		"debug":              {400, "InvalidRequestContent", `{"properties": {"template": {}, "debugSetting": {"detailLevel": "requestContent"}}}`, "debugSetting"},
		"no schema":          {400, "InvalidTemplate", body(`{"contentVersion": "1.0.0.0", "resources": []}`, nil), "$schema"},
		"tenant schema":      {400, "InvalidTemplate", body(`{"$schema": "https://schema.management.azure.com/schemas/2019-08-01/tenantDeploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []}`, nil), "tenantDeploymentTemplate"},
		"unknown section":    {400, "InvalidTemplate", body(simple(`"resources": [], "surprise": {}`), nil), "surprise"},
		"unknown function":   {400, "InvalidTemplate", body(simple(`"resources": [], "variables": {"x": "[surprise()]"}`), nil), "surprise"},
		"list keys":          {400, "InvalidTemplate", body(simple(`"resources": [], "outputs": {"x": {"type": "string", "value": "[listKeys('a', 'b').key]"}}`), nil), "listKeys"},
		"missing parameter":  {400, "InvalidTemplate", body(simple(`"parameters": {"p": {"type": "string"}}, "resources": []`), nil), "'p' is not provided"},
		"surplus parameter":  {400, "InvalidTemplate", body(simple(`"resources": []`), map[string]any{"p": 1}), "'p'"},
		"parameter type":     {400, "InvalidTemplate", body(simple(`"parameters": {"p": {"type": "int"}}, "resources": []`), map[string]any{"p": "1"}), "'int' is expected"},
		"cycle":              {400, "InvalidTemplate", body(simple(`"resources": [`+strings.Replace(ok, `"location"`, `"dependsOn": ["two"], "location"`, 1)+`, `+strings.NewReplacer(`"one"`, `"two"`, `"location"`, `"dependsOn": ["one"], "location"`).Replace(ok)+`]`), nil), "Circular"},
		"twice the same":     {400, "InvalidTemplate", body(simple(`"resources": [`+ok+`, `+ok+`]`), nil), "multiple times"},
		"unknown dependency": {400, "InvalidTemplate", body(simple(`"resources": [`+strings.Replace(ok, `"location"`, `"dependsOn": ["none"], "location"`, 1)+`]`), nil), "'none' is not defined"},
		"copy count":         {400, "InvalidTemplate", body(simple(`"resources": [`+strings.Replace(ok, `"location"`, `"copy": {"name": "c", "count": 801}, "location"`, 1)+`]`), nil), "800"},
		"unknown type":       {400, "InvalidTemplateDeployment", body(simple(`"resources": [`+ok+`, `+strings.Replace(ok, "userAssignedIdentities", "surprises", 1)+`]`), nil), "InvalidResourceType"},
		"unknown version":    {400, "InvalidTemplateDeployment", body(simple(`"resources": [`+strings.Replace(ok, "2023-01-31", "1999-01-01", 1)+`]`), nil), "1999-01-01"},
		"laughs":             {400, "InvalidTemplate", body(simple(laughs), nil), "too many or too large"},
		"loops in loops":     {400, "DeploymentTooLarge", body(loops(3), nil), ""},
		"nested too deep":    {400, "InvalidTemplate", body(loops(6), nil), "5 deep"},
		"deep":               {400, "InvalidRequestContent", body(strings.Repeat("[", 100000), nil), "deeply"},
		"4 MiB":              {413, "RequestContentTooLarge", body(simple(`"metadata": {"x": "`+strings.Repeat("x", 4<<20)+`"}, "resources": []`), nil), ""},
		"vault reference":    {400, "InvalidTemplate", `{"properties": {"parameters": {"p": {"reference": {"keyVault": {"id": "/x"}, "secretName": "s"}}}, "template": ` + simple(`"parameters": {"p": {"type": "securestring"}}, "resources": []`) + `}}`, "key vault"},
	} {
		for _, path := range []string{"d", "d/validate", "d/whatIf"} {
			method := "POST"
			if path == "d" {
				method = "PUT"
			}
			a := r.refused(c.status, c.code, "owner", method, at+path, c.body)
			if !strings.Contains(string(a.body), c.want) {
				t.Errorf("%s: %.600s", name, a.body)
			}
		}
	}
	r.refused(400, "InvalidDeploymentName", "owner", "PUT", at+strings.Repeat("n", 65), body(simple(`"resources": []`), nil))
	r.refused(400, "InvalidDeployment", "owner", "PUT", at+"d", `{"location": "westeurope", `+body(simple(`"resources": []`), nil)[1:])
	r.refused(400, "InvalidFilterInQueryString", "owner", "GET", group+"/providers/Microsoft.Resources/deployments?api-version=2021-04-01&$filter=name%20eq%201", nil)
	if after := r.dump(); after != before {
		t.Errorf("something was done:\n%s\n%s", before, after)
	}
	// Just below the limit, and with all that a file may have around it.
	r.deploy("owner", at+"big", "\ufeff// a comment\n"+simple(`"metadata": {"x": "`+strings.Repeat("x", 4<<20-1000)+`",}, /* and
		another */ "resources": [],`)+"\n", nil)
}

// TestAnotherTenantsSubscription: who is of another tenant is told no more
// than by any other request.
func TestAnotherSubscription(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	elsewhere := "/subscriptions/6b9c0b7e-1111-4222-8333-444455556666"
	text := simple(`"resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "n", "subscriptionId": "6b9c0b7e-1111-4222-8333-444455556666", "resourceGroup": "x",
		"properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, "template": ` + simple(`"resources": []`) + `}}],
		"outputs": {"x": {"type": "object", "value": "[reference('` + elsewhere + `/resourceGroups/x', '2021-04-01', 'Full')]"}}`)
	a := r.refused(400, "InvalidTemplateDeployment", "owner", "PUT", at+"d", body(text, nil))
	if a.at("error.details.0.code") != "SubscriptionNotFound" {
		t.Errorf("%s", a.body)
	}
}
