package template

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

const (
	subID   = "5a9c0b7e-1111-4222-8333-444455556666"
	groupID = "/subscriptions/" + subID + "/resourceGroups/rg"
)

func testEnv() Env {
	fixed := func(v map[string]any) func() (map[string]any, error) {
		return func() (map[string]any, error) { return v, nil }
	}
	return Env{
		SubscriptionID: subID, Group: "rg", TenantID: "t", Name: "main",
		Subscription:  fixed(map[string]any{"id": "/subscriptions/" + subID, "subscriptionId": subID, "tenantId": "t", "displayName": "Home"}),
		ResourceGroup: fixed(map[string]any{"id": groupID, "name": "rg", "location": "westeurope", "tags": map[string]any{"env": "test"}}),
		Tenant:        fixed(map[string]any{"tenantId": "t"}),
		Deployment:    map[string]any{"name": "main"},
		Deployer:      map[string]any{"objectId": "o"},
		Environment:   map[string]any{"suffixes": map[string]any{"keyvaultDns": ".vault.azure.net"}},
		Now:           time.Date(2026, 11, 22, 14, 5, 6, 0, time.UTC),
		NewGUID:       func() string { return "c0ffee00-0000-4000-8000-000000000000" },
	}
}

// world is a Runtime: resources by lower-case id.
type world map[string]map[string]any

var errMissing = errors.New("missing")

func (w world) Read(r Reference) (map[string]any, error) {
	v, ok := w[strings.ToLower(r.ID)]
	if !ok {
		return nil, errMissing
	}
	return v, nil
}

// doc is a template with the given sections.
func doc(sections string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", ` + sections + `}`
}

// bind loads and binds a template. Parameters are values.
func bind(text string, parameters map[string]any) (*Deployment, error) {
	root, err := DecodeObject([]byte(text))
	if err != nil {
		return nil, err
	}
	t, err := Load(root)
	if err != nil {
		return nil, err
	}
	given := map[string]any{}
	for k, v := range parameters {
		given[k] = map[string]any{"value": v}
	}
	return t.Bind(given, testEnv(), nil)
}

func mustBind(t testing.TB, text string, parameters map[string]any) *Deployment {
	t.Helper()
	d, err := bind(text, parameters)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return d
}

// quote is a string of JSON.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// evaluate evaluates an expression as a variable.
func evaluate(expression string) (any, error) {
	d, err := bind(doc(`"parameters": {"now": {"type": "string", "defaultValue": "[utcNow('yyyy-MM-dd HH:mm:ss')]"}, "obj": {"type": "object", "defaultValue": {"a": 1, "B": {"c": [1, 2, 3]}}}, "list": {"type": "array", "defaultValue": ["x", "y", "z"]}},
		"functions": [{"namespace": "my", "members": {"hail": {"parameters": [{"name": "who", "type": "string"}], "output": {"type": "string", "value": "[concat('hail ', parameters('who'))]"}}}}],
		"variables": {"v": `+quote(expression)+`}, "resources": []`), nil)
	if err != nil {
		return nil, err
	}
	return d.variable("v")
}

func jsonOf(v any) string {
	s, err := display([]any{v})
	if err != nil {
		return err.Error()
	}
	return s[1 : len(s)-1]
}
