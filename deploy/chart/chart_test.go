package chart_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/deploy/chart"
)

var update = flag.Bool("update", false, "rewrite testdata")

const tenant = "8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01"

// TestRender compares what is rendered with what was reviewed. A change of
// the files is a change of what runs in people's clusters.
func TestRender(t *testing.T) {
	for name, values := range map[string]string{
		"default":      "tenantID: " + tenant,
		"own-names":    "tenantID: " + tenant + "\nauthorityHost: https://login.podkey.example/\ntrust: {ca: \"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n\"}\nownNames: true",
		"cert-manager": "tenantID: " + tenant + "\nwebhook: {replicas: 3, certificates: {existingSecret: podkey-serving, injectCAFrom: podkey-system/podkey-serving}, annotations: {admissions.enforcer/disabled: \"true\"}, advice: false}\nimage: {repository: registry.example/podkey, digest: \"sha256:00\"}",
	} {
		v, err := chart.ParseValues([]byte(values))
		if err != nil {
			t.Fatal(err)
		}
		objects, err := chart.Render(chart.Release{Values: v})
		if err != nil {
			t.Fatal(err)
		}
		got, err := chart.YAML(objects)
		if err != nil {
			t.Fatal(err)
		}
		golden := "testdata/" + name + ".yaml"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: if this is meant, run: go test ./deploy/chart -update\n%s", name, diff)
		}
	}
}

func TestNamespaceIsFirstAndWebhooksAreLast(t *testing.T) {
	objects, err := chart.Render(chart.Release{Namespace: "keys", Values: map[string]any{"tenantID": tenant}})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, o := range objects {
		kinds = append(kinds, o["kind"].(string))
		meta := o["metadata"].(map[string]any)
		if ns, ok := meta["namespace"]; ok && ns != "keys" {
			t.Errorf("%s %s is in namespace %s", o["kind"], meta["name"], ns)
		}
	}
	if kinds[0] != "Namespace" || kinds[len(kinds)-1] != "ValidatingWebhookConfiguration" || kinds[len(kinds)-2] != "MutatingWebhookConfiguration" {
		t.Errorf("order: %v", kinds)
	}
}

// TestAttackValues: a value is one value, whatever is in it.
func TestAttackValues(t *testing.T) {
	const nasty = "a\n            - --trust-ca=/proc/self/environ # \" ' {{ .Values }}"
	objects, err := chart.Render(chart.Release{Values: map[string]any{
		"tenantID": nasty, "audience": nasty, "authorityHost": nasty, "image": map[string]any{"repository": nasty},
		"webhook": map[string]any{"exemptNamespaces": []any{"123", "true", nasty}, "logLevel": nasty, "priorityClassName": nasty},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		switch o["kind"] {
		case "Deployment":
			pod := o["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			c := pod["containers"].([]any)[0].(map[string]any)
			for _, a := range c["args"].([]any) {
				if strings.HasPrefix(a.(string), "--trust-ca") {
					t.Errorf("arguments %q", c["args"])
				}
			}
			if pod["priorityClassName"] != nasty || !strings.HasPrefix(c["image"].(string), nasty) {
				t.Errorf("%q %q", pod["priorityClassName"], c["image"])
			}
		case "MutatingWebhookConfiguration":
			hook := o["webhooks"].([]any)[0].(map[string]any)
			values := hook["namespaceSelector"].(map[string]any)["matchExpressions"].([]any)[0].(map[string]any)["values"].([]any)
			if diff := cmp.Diff([]any{"123", "true", nasty, "podkey-system"}, values); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestBadValues(t *testing.T) {
	for values, want := range map[string]string{
		"{}":                                                        "tenantID is required",
		"tenantID: ''":                                              "tenantID is required",
		"tenantId: x":                                               "tenantId is not a value of this chart; here there are: audience",
		"tenantID: x\nwebhook: {replica: 2}":                        "webhook.replica is not a value",
		"tenantID: x\nwebhook: {replicas: two}":                     "webhook.replicas must be of type integer",
		"tenantID: x\nwebhook: {replicas: 1.5}":                     "webhook.replicas must be of type integer",
		"tenantID: x\nwebhook: {replicas: -1}":                      "webhook.replicas must be at least 0",
		"tenantID: x\nwebhook: {advice: 'yes'}":                     "webhook.advice must be of type boolean",
		"tenantID: x\ntokenPath: new":                               "tokenPath must be one of: classic, reserved, hashed, both",
		"tenantID: x\nwebhook: []":                                  "webhook must be of type object",
		"tenantID: x\nwebhook: {exemptNamespaces: {}}":              "webhook.exemptNamespaces must be of type array",
		"tenantID: x\nauthorityHost: {}":                            "authorityHost must be of type string",
		"tenantID: x\nwebhook: {certificates: {injectCAFrom: a/b}}": "injectCAFrom needs webhook.certificates.existingSecret",
		"tenantID: 7":                                               "tenantID must be of type string",
	} {
		v, err := chart.ParseValues([]byte(values))
		if err != nil {
			t.Errorf("%s: %v", values, err)
			continue
		}
		_, err = chart.Render(chart.Release{Values: v})
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", values, err, want)
		}
	}
	if _, err := chart.ParseValues([]byte("a: 1\na: 2")); err == nil {
		t.Error("a name given twice is accepted")
	}
}
