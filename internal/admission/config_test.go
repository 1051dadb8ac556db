package admission_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/admission"
)

func endpoint() *admission.CustomEndpoint {
	return &admission.CustomEndpoint{
		Suffix: "identity-binding", Audience: "api://AKSIdentityBinding", TokenProxy: "https://kubernetes.default.svc",
		SNIName: "abc.ests.aks", CAConfigMap: "kube-root-ca.crt",
	}
}

func TestCustomEndpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		change     func(*admission.CustomEndpoint)
		annotation string
		env        []string
		source     string
	}{
		"config map": {nil, "true", []string{"AZURE_KUBERNETES_CA_FILE=/var/run/secrets/azure/tokens/ca-cert/ca.crt"},
			`{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca-cert/ca.crt"}],"optional":false}}`},
		"any case": {nil, "TRUE", []string{"AZURE_KUBERNETES_CA_FILE=/var/run/secrets/azure/tokens/ca-cert/ca.crt"},
			`{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca-cert/ca.crt"}],"optional":false}}`},
		"data": {func(e *admission.CustomEndpoint) { e.CAConfigMap, e.CAData = "", ca }, "true", []string{"AZURE_KUBERNETES_CA_DATA=" + ca}, ``},
		"bundle": {func(e *admission.CustomEndpoint) { e.CAConfigMap, e.CASigner = "", "a.b/c" }, "true",
			[]string{"AZURE_KUBERNETES_CA_FILE=/var/run/secrets/azure/tokens/ca-cert/ca.crt"},
			`{"clusterTrustBundle":{"signerName":"a.b/c","path":"ca-cert/ca.crt","optional":false}}`},
		"bundle, selector": {func(e *admission.CustomEndpoint) {
			e.CAConfigMap, e.CASigner = "", "a.b/c"
			e.CALabelSelector = ` {"matchExpressions":[{"operator":"In","key":"k"}],"matchLabels":{"a":"b"}} `
		}, "true", []string{"AZURE_KUBERNETES_CA_FILE=/var/run/secrets/azure/tokens/ca-cert/ca.crt"},
			`{"clusterTrustBundle":{"signerName":"a.b/c","path":"ca-cert/ca.crt","optional":false,"labelSelector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In"}]}}}`},
		"system roots": {func(e *admission.CustomEndpoint) { e.CAConfigMap = "" }, "true", nil, ``},
		"not chosen":   {nil, "yes", nil, ``},
	} {
		t.Run(name, func(t *testing.T) {
			e := endpoint()
			if tc.change != nil {
				tc.change(e)
			}
			p := mutate(t, rules(t, admission.Config{CustomEndpoint: e}), pod(t, map[string]string{keys + "use-identity-binding": tc.annotation}, oneApp))
			want, audience := slices.Clone(fourVariables), "api://AzureADTokenExchange"
			if tc.annotation != "yes" {
				want = append(want, "AZURE_KUBERNETES_TOKEN_PROXY=https://kubernetes.default.svc", "AZURE_KUBERNETES_SNI_NAME=abc.ests.aks")
				audience = "api://AKSIdentityBinding"
			}
			equal(t, "environment", environ(app(t, p)), append(want, tc.env...))
			equal(t, "audience", source(t, p, "azure-identity-token")["audience"], audience)
			sources := items(items(p["spec"], "volumes")[0].(object)["projected"], "sources")
			if tc.source == "" && len(sources) != 1 || tc.source != "" && len(sources) != 2 {
				t.Fatalf("sources: %v", sources)
			}
			if tc.source != "" {
				equal(t, "source", sources[1], parse(t, tc.source))
			}
		})
	}
}

// The SDKs refuse file and data together.
func TestCustomEndpointLeavesTheUsersCA(t *testing.T) {
	p := mutate(t, rules(t, admission.Config{CustomEndpoint: endpoint()}), pod(t, map[string]string{keys + "use-identity-binding": "true"},
		`"containers":[{"name":"app","env":[{"name":"AZURE_KUBERNETES_CA_DATA","value":"x"}]}]`))
	for _, v := range environ(app(t, p)) {
		if strings.HasPrefix(v, "AZURE_KUBERNETES_CA_FILE") {
			t.Errorf("both: %v", environ(app(t, p)))
		}
	}
}

func TestConfig(t *testing.T) {
	const oneOf = "only one of AZURE_KUBERNETES_CA_DATA, AZURE_KUBERNETES_CA_CONFIGMAP_NAME or AZURE_KUBERNETES_CA_CTB_SIGNER_NAME can be set"
	custom := func(f func(*admission.CustomEndpoint)) func(*admission.Config) {
		return func(c *admission.Config) { c.CustomEndpoint = endpoint(); f(c.CustomEndpoint) }
	}
	signer := func(selector string) func(*admission.Config) {
		return custom(func(e *admission.CustomEndpoint) {
			e.CAConfigMap, e.CASigner, e.CALabelSelector = "", "a.b/c", selector
		})
	}
	trust := func(ca string) func(*admission.Config) {
		return func(c *admission.Config) { c.Images.Trust, c.Trust = "x", &admission.Trust{CA: ca} }
	}
	for name, tc := range map[string]struct {
		change func(*admission.Config)
		want   []string // none: accepted
	}{
		"defaults":          {func(*admission.Config) {}, nil},
		"zero endpoint":     {func(c *admission.Config) { c.CustomEndpoint = &admission.CustomEndpoint{} }, nil},
		"no tenant":         {func(c *admission.Config) { c.TenantID = "" }, []string{"AZURE_TENANT_ID is required"}},
		"tenant two words":  {func(c *admission.Config) { c.TenantID = "a b" }, []string{`tenant "a b"`}},
		"authority http":    {func(c *admission.Config) { c.AuthorityHost = "http://x/" }, []string{`authority host "http://x/": must be https`}},
		"authority query":   {func(c *admission.Config) { c.AuthorityHost = "https://x/?a" }, []string{"query"}},
		"authority no host": {func(c *admission.Config) { c.AuthorityHost = "https:///" }, []string{"no host"}},
		"profile":           {func(c *admission.Config) { c.Profile = "modern" }, []string{`"modern" is none of classic, reserved, hashed and both`}},
		"pull policy":       {func(c *admission.Config) { c.Images.PullPolicy = "Sometimes" }, []string{"pull policy"}},
		"extra":             {func(c *admission.Config) { c.Extra = []admission.EnvVar{{Name: "A=B", Value: "x"}} }, []string{`extra variable "A=B"`}},
		"trust":             {func(c *admission.Config) { c.Trust = &admission.Trust{} }, []string{"injected trust needs an image", "CA of injected trust: there is no PEM certificate"}},
		"trust with a key": {func(c *admission.Config) {
			c.Images.Trust, c.Trust = "x", &admission.Trust{CA: strings.ReplaceAll(ca, "CERTIFICATE", "PRIVATE KEY")}
		}, []string{"CA of injected trust: there is a private key"}},
		"trust, truncated":            {trust(ca[:len(ca)/2]), []string{"CA of injected trust: a PEM block is damaged"}},
		"trust, last one truncated":   {trust(ca + ca[:len(ca)/2]), []string{"CA of injected trust: a PEM block is damaged"}},
		"trust, no certificate in it": {trust("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []string{"CA of injected trust: certificate 1"}},
		"trust, longest":              {trust(ca + strings.Repeat("#", 128<<10-len("PODKEY_CA=\x00")-len(ca))), nil},
		"trust, too long":             {trust(ca + strings.Repeat("#", 128<<10-len("PODKEY_CA=\x00")-len(ca)+1)), []string{"are too many for a variable"}},
		"several":                     {func(c *admission.Config) { c.TenantID, c.AuthorityHost, c.Profile = "", "x", "y" }, []string{"AZURE_TENANT_ID", "authority host", "profile"}},

		"endpoint":         {custom(func(*admission.CustomEndpoint) {}), nil},
		"suffix alone":     {custom(func(e *admission.CustomEndpoint) { e.Audience = "" }), []string{"audience cannot be empty when --custom-token-endpoint-annotation-suffix is set"}},
		"audience alone":   {custom(func(e *admission.CustomEndpoint) { e.Suffix = "" }), []string{"suffix cannot be empty when --custom-token-endpoint-audience is set"}},
		"neither":          {custom(func(e *admission.CustomEndpoint) { e.Suffix, e.Audience = "", "" }), []string{"no effect without"}},
		"default audience": {custom(func(e *admission.CustomEndpoint) { e.Audience = "API://azureadtokenexchange" }), []string{"must not be the default audience"}},
		"suffix no name":   {custom(func(e *admission.CustomEndpoint) { e.Suffix = "a/b" }), []string{"azure.workload.identity/use-a/b is not a valid annotation name"}},
		"no proxy":         {custom(func(e *admission.CustomEndpoint) { e.TokenProxy = "" }), []string{"AZURE_KUBERNETES_TOKEN_PROXY cannot be empty"}},
		"proxy http":       {custom(func(e *admission.CustomEndpoint) { e.TokenProxy = "http://x" }), []string{"must be https"}},
		"proxy with user":  {custom(func(e *admission.CustomEndpoint) { e.TokenProxy = "https://a@x" }), []string{"no user"}},
		"map and data":     {custom(func(e *admission.CustomEndpoint) { e.CAData = ca }), []string{oneOf}},
		"map and signer":   {custom(func(e *admission.CustomEndpoint) { e.CASigner = "a/b" }), []string{oneOf}},
		"data and signer":  {custom(func(e *admission.CustomEndpoint) { e.CAConfigMap, e.CAData, e.CASigner = "", ca, "a/b" }), []string{oneOf}},
		"all three":        {custom(func(e *admission.CustomEndpoint) { e.CAData, e.CASigner = ca, "a/b" }), []string{oneOf}},
		"data not PEM":     {custom(func(e *admission.CustomEndpoint) { e.CAConfigMap, e.CAData = "", "x" }), []string{"AZURE_KUBERNETES_CA_DATA: there is no PEM certificate"}},
		"data truncated":   {custom(func(e *admission.CustomEndpoint) { e.CAConfigMap, e.CAData = "", ca+ca[:len(ca)/2] }), []string{"AZURE_KUBERNETES_CA_DATA: a PEM block is damaged"}},
		"map no name":      {custom(func(e *admission.CustomEndpoint) { e.CAConfigMap = "a b" }), []string{"not the name of a ConfigMap"}},
		"selector alone": {custom(func(e *admission.CustomEndpoint) { e.CALabelSelector = "{}" }),
			[]string{"AZURE_KUBERNETES_CA_CTB_SIGNER_NAME needs to be set when AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR is set"}},
		"labels":            {signer(`{"matchLabels":{"a":"b"}}`), nil},
		"expressions":       {signer(`{"matchExpressions":[{"key":"a","operator":"Exists"}]}`), nil},
		"both selectors":    {signer(`{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"NotIn","values":["c"]}]}`), nil},
		"In without values": {signer(`{"matchExpressions":[{"key":"a","operator":"In"}]}`), nil},
		"selector not JSON": {signer(`{`), []string{"AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR: not a label selector"}},
		"selector null":     {signer(`null`), []string{"one JSON object"}},
		"selector twice":    {signer(`{}{}`), []string{"one JSON object"}},
		"selector unknown":  {signer(`{"labels":{}}`), []string{"unknown field"}},
		"selector operator": {signer(`{"matchExpressions":[{"key":"a","operator":"Like"}]}`), []string{`operator "Like"`}},
	} {
		t.Run(name, func(t *testing.T) {
			c := admission.Config{TenantID: tenantID}
			tc.change(&c)
			err := c.Validate()
			if _, made := admission.New(c); (made == nil) != (err == nil) {
				t.Errorf("New: %v", made)
			}
			if tc.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Errorf("%d problems: %v", len(lines), err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		})
	}
}
