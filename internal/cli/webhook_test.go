package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/admission"
	"github.com/podkey/podkey/internal/webhook"
)

func TestWebhookRefusesMistakes(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"no tenant", map[string]string{"AZURE_TENANT_ID": ""}, nil, "AZURE_TENANT_ID is required"},
		{"unknown cloud", map[string]string{"AZURE_ENVIRONMENT": "invalid"}, nil, `"invalid"`},
		{"broken TLS", nil, []string{"--tls-min-version", "1.1"}, "TLS 1.1 is not offered"},
		{"unknown TLS", nil, []string{"--tls-min-version", "2"}, `unknown TLS version "2"`},
		{"metrics", nil, []string{"--metrics-backend", "statsd"}, `unknown metrics backend "statsd"`},
		{"log level", nil, []string{"--log-level", "loud"}, `unknown log level "loud"`},
		{"profile", nil, []string{"--profile", "odd"}, "odd"},
		{"own names of nobody", nil, []string{"--own-names"}, "--own-names needs --authority-host"},
		{"plain authority", nil, []string{"--authority-host", "http://x"}, "must be https"},
		{"no such CA", nil, []string{"--trust-ca", "/none"}, "/none"},
		{"no CA in it", nil, []string{"--trust-ca", junk, "--image", "podkey:1"}, "no PEM certificate"},
		{"negative delay", nil, []string{"--drain-delay", "-1s"}, "is negative"},
		{"half an endpoint", nil, []string{"--custom-token-endpoint-annotation-suffix", "x"}, "cannot be empty when"},
		{"argument", nil, []string{"x"}, "unexpected argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("AZURE_TENANT_ID", "tenant")
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var out bytes.Buffer
			code := Run(t.Context(), append([]string{"webhook"}, tt.args...), IO{In: strings.NewReader(""), Out: io.Discard, Err: &out})
			if code != 2 || !strings.Contains(out.String(), tt.want) {
				t.Errorf("status %d: %s", code, out.String())
			}
		})
	}
}

func TestWebhookDefaults(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", "tenant")
	t.Setenv("AZURE_ENVIRONMENT", "azureChinaCloud")
	t.Setenv("POD_NAMESPACE", "elsewhere")
	var f webhookFlags
	cmd := newWebhook()
	cmd.SetErr(io.Discard)
	f.tlsMin, f.metricsBackend, f.logLevel, f.profile, f.certDir = "1.3", "Prometheus", "info", "classic", "/certs"
	if err := f.resolve(cmd); err != nil {
		t.Fatal(err)
	}
	if f.c.Namespace != "elsewhere" || f.c.CertDir != "" || f.rules.AuthorityHost != "https://login.chinacloudapi.cn/" {
		t.Errorf("namespace %q, certificate directory %q, authority %q", f.c.Namespace, f.c.CertDir, f.rules.AuthorityHost)
	}
}

// TestWebhookReviews is the seam between the rules and the process around
// them.
func TestWebhookReviews(t *testing.T) {
	rules, err := admission.New(admission.Config{TenantID: "tenant"})
	if err != nil {
		t.Fatal(err)
	}
	review := func(account string) []byte {
		return []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","namespace":"shop","operation":"CREATE","object":` +
			`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"o","controller":true}]},` +
			`"spec":{"serviceAccountName":"` + account + `","containers":[{"name":"c"}]}}}}`)
	}
	lookup := func(_ context.Context, _, name string) (*webhook.Account, error) {
		switch name {
		case "web":
			return &webhook.Account{Annotations: map[string]string{"azure.workload.identity/client-id": "the-client"}}, nil
		case "plain":
			return &webhook.Account{}, nil
		case "none":
			return nil, webhook.ErrNoAccount
		}
		return nil, errors.New("the API server is away")
	}
	for _, tt := range []struct{ account, result, reason, message string }{
		{"web", "mutated", "", ""},
		{"plain", "mutated_no_client_id", "ClientIDMissing", "azure.workload.identity/client-id"},
		{"none", "denied_service_account", "AdmissionDenied", `serviceaccounts "none" not found`},
		{"away", "denied_service_account", "AdmissionDenied", "the API server is away"},
	} {
		body, o := reviews{rules}.Mutate(t.Context(), review(tt.account), lookup, nil)
		if o.Result != tt.result || o.Reason != tt.reason || !strings.Contains(o.Message, tt.message) {
			t.Errorf("%s: %+v", tt.account, o)
		}
		if o.Namespace != "shop" || o.Account != tt.account || o.Owner == nil || *o.Owner != (webhook.Object{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "shop", Name: "web", UID: "o"}) {
			t.Errorf("%s: owner %+v of %+v", tt.account, o.Owner, o)
		}
		var answer struct {
			Response struct {
				Allowed bool
				Patch   string
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		patch, err := base64.StdEncoding.DecodeString(answer.Response.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Response.Allowed == strings.HasPrefix(tt.result, "denied") || strings.Contains(string(patch), "the-client") != (tt.account == "web") {
			t.Errorf("%s: %s, patch %s", tt.account, body, patch)
		}
	}
	labelled := bytes.Replace(review("plain"), []byte(`"generateName":"web-"`), []byte(`"name":"web","labels":{"azure.workload.identity/use":"true"}`), 1)
	if body, o := (reviews{rules}).Advise(t.Context(), labelled, lookup, nil); o.Warnings != 1 || o.Result != "advised" || !strings.Contains(string(body), "warnings") {
		t.Errorf("%+v: %s", o, body)
	}
}
