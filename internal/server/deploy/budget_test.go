package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
)

// nestedIn is a nested deployment, with more members of it and of its properties.
func nestedIn(template, members, properties string) string {
	return `{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "[format('n{0}', copyIndex())]", ` + members + `
		"properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, ` + properties + ` "template": ` + template + `}}`
}

// TestOneBudget: what one deployment may compute, many nested ones may only
// together, and only as long as the request has time.
func TestOneBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inner := simple(`"variables": {"a": "[range(0, 10000)]", "b": "[map(range(0, 40), lambda('x', variables('a')))]"}, "resources": []`)
	text := func(count int) string {
		return simple(`"resources": [` + nestedIn(inner, fmt.Sprintf(`"copy": {"name": "c", "count": %d},`, count), "") + `]`)
	}
	r.deploy("owner", at+"few", text(1), nil)
	for path, method := range map[string]string{"d": "PUT", "d/validate": "POST", "d/whatIf": "POST"} {
		a := r.refused(400, "InvalidTemplate", "owner", method, at+path, body(text(12), nil))
		if !strings.Contains(string(a.body), "too many or too large") {
			t.Errorf("%s", a.body)
		}
	}
	ctx, stop := withNesting(t.Context())
	defer stop()
	ctx, stop = context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer stop()
	id, err := arm.ParseID(at + "d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.h.plan(ctx, &arm.Request{}, id, &request{}, nil, nil); err == nil {
		t.Error("planned after the deadline")
	} else if f, ok := fault.As(err); !ok || f.Code != "DeploymentTimedOut" {
		t.Error(err)
	}
}

// TestNestedTagsAreRedacted: an outer template may put a secret into them.
func TestNestedTagsAreRedacted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const secret = "correct-horse-battery"
	nested := strings.Replace(nestedIn(simple(`"resources": []`), `"tags": {"t": "[parameters('p')]", "plain": "kept"},`, ""), "[format('n{0}', copyIndex())]", "inner", 1)
	r.deploy("owner", at+"d", simple(`"parameters": {"p": {"type": "securestring"}}, "resources": [`+nested+`]`), map[string]any{"p": secret})
	a := r.must(200, "owner", "GET", at+"inner", nil)
	if strings.Contains(string(a.body), secret) || a.at("tags.plain") != "kept" {
		t.Errorf("%s", a.body)
	}
}

// TestHashSaysNothingOfSecrets: guesses at a secure default cannot be tried
// against the hash of the template.
func TestHashSaysNothingOfSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hash := func(standby, metadata string) any {
		text := simple(`"metadata": {"x": "` + metadata + `"}, "parameters": {"p": {"type": "securestring", "defaultValue": "` + standby + `"}}, "resources": []`)
		return r.deploy("owner", at+"d", text, nil).at("properties.templateHash")
	}
	if hash("horse-1", "a") != hash("horse-2", "a") {
		t.Error("the hash depends on a secure default value")
	}
	if hash("horse-1", "a") == hash("horse-1", "b") {
		t.Error("the hash does not tell templates apart")
	}
}

// TestExportMasksLiterals that a template has for secure parameters of a
// nested one, and for a type that is an expression.
func TestExportMasksLiterals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const secret = "correct-horse-battery"
	inner := simple(`"parameters": {"p": {"type": "securestring"}, "open": {"type": "string"}}, "resources": []`)
	nested := strings.Replace(nestedIn(inner, "", `"parameters": {"P": {"value": "`+secret+`"}, "open": {"value": "plainly"}},`), "[format('n{0}', copyIndex())]", "inner", 1)
	r.deploy("owner", at+"d", simple(`"resources": [`+nested+`]`), nil)
	a := r.must(200, "owner", "POST", at+"d/exportTemplate", nil)
	if strings.Contains(string(a.body), secret) || !strings.Contains(string(a.body), "plainly") {
		t.Errorf("%s", a.body)
	}
	for _, properties := range []map[string]any{
		{"value": secret},
		{"podkey": map[string]any{"kubeconfig": secret}},
		{"parameters": map[string]any{"p": map[string]any{"value": secret}}},
		{"parameters": "[createObject('p', '" + secret + "')]"},
	} {
		v := maskedTemplate(map[string]any{"resources": []any{map[string]any{"type": "[variables('t')]", "properties": properties}}})
		if strings.Contains(string(encode(v)), secret) {
			t.Errorf("%s", encode(v))
		}
	}
}
