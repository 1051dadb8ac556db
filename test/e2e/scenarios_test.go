//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Of the service accounts that the scenarios have.
const (
	scenarioClient = "11111111-2222-4333-8444-555555555555"
	scenarioTenant = "99999999-8888-4777-8666-555555555555"

	tokenDir     = "/var/run/secrets/azure/tokens"
	ordinary     = "azure-identity-token: azure-identity-token for api://AzureADTokenExchange, 3600 s"
	tokenMount   = "azure-identity-token at " + tokenDir + ", read-only: true"
	ownAudience  = `{name: azure-identity-token, projected: {sources: [{serviceAccountToken: {path: azure-identity-token, expirationSeconds: 7200, audience: "https://elsewhere.example"}}]}}`
	denied       = `admission webhook "mutation.azure-workload-identity.io" denied the request: `
	scenarioHead = `{apiVersion: v1, kind: Pod, metadata: {namespace: scenarios, labels: {azure.workload.identity/use: "true"}`
)

// admitted is a pod as the API server would store it.
type admitted struct {
	Metadata struct{ Name string }
	Spec     struct {
		InitContainers, Containers []struct {
			Name, RestartPolicy string
			Args                []string
			Env                 []struct {
				Name, Value string
				ValueFrom   struct{ FieldRef struct{ FieldPath string } }
			}
			VolumeMounts []struct {
				Name, MountPath string
				ReadOnly        bool
			}
			SecurityContext struct{ RunAsUser int }
		}
		Volumes []struct {
			Name      string
			Projected struct {
				Sources []struct {
					ServiceAccountToken *struct {
						Path, Audience    string
						ExpirationSeconds int
					}
				}
			}
		}
	}
}

// initial are the names of the init containers.
func (p *admitted) initial() []string {
	var out []string
	for _, c := range p.Spec.InitContainers {
		out = append(out, c.Name)
	}
	return out
}

// env is the environment of a container but for trust, whose variables all
// scenarios have alike; of a reference, it has the field.
func (p *admitted) env(container string) []string {
	var out []string
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		if c.Name != container {
			continue
		}
		for _, v := range c.Env {
			if !slices.Contains(trustNames, v.Name) {
				out = append(out, v.Name+"="+v.Value+v.ValueFrom.FieldRef.FieldPath)
			}
		}
	}
	return out
}

// mounts are those of a container that are no default of the API server's.
func (p *admitted) mounts(container string) []string {
	var out []string
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		if c.Name != container {
			continue
		}
		for _, m := range c.VolumeMounts {
			if m.Name != "podkey-trust" && !strings.HasPrefix(m.Name, "kube-api-access-") {
				out = append(out, fmt.Sprintf("%s at %s, read-only: %t", m.Name, m.MountPath, m.ReadOnly))
			}
		}
	}
	return out
}

// tokens are the tokens for others than the API server.
func (p *admitted) tokens() []string {
	var out []string
	for _, v := range p.Spec.Volumes {
		for _, s := range v.Projected.Sources {
			if t := s.ServiceAccountToken; t != nil && t.Audience != "" {
				out = append(out, fmt.Sprintf("%s: %s for %s, %d s", v.Name, t.Path, t.Audience, t.ExpirationSeconds))
			}
		}
	}
	return out
}

// admit has the API server go through the creation of a pod.
func (x *world) admit(ctx context.Context, manifest string) (p admitted, err error) {
	out, err := x.Kubectl(ctx, manifest, "create", "--dry-run=server", "-o", "json", "-f", "-")
	if err == nil {
		err = json.Unmarshal([]byte(out), &p)
	}
	return p, err
}

// identity is the environment that a container gets, from its own on.
func identity(client, tenant string, own ...string) []string {
	if client != "" {
		own = append(own, "AZURE_CLIENT_ID="+client)
	}
	if tenant != "" {
		own = append(own, "AZURE_TENANT_ID="+tenant)
	}
	return append(own, "AZURE_FEDERATED_TOKEN_FILE="+tokenDir+"/azure-identity-token", "AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/")
}

// scenarios makes a namespace with service accounts of every kind.
func (x *world) scenarios(t *testing.T, ns string) {
	t.Helper()
	x.namespace(t, ns)
	var accounts strings.Builder
	for name, more := range map[string]string{
		"app": "", "long": `, azure.workload.identity/service-account-token-expiration: "4800"`,
		"short": `, azure.workload.identity/service-account-token-expiration: "100"`,
		"odd":   `, azure.workload.identity/service-account-token-expiration: invalid`,
		"guest": ", azure.workload.identity/tenant-id: " + scenarioTenant, "homeless": `, azure.workload.identity/tenant-id: ""`,
	} {
		fmt.Fprintf(&accounts, "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s, annotations: {azure.workload.identity/client-id: %s%s}}\n", name, ns, scenarioClient, more)
	}
	x.apply(t, accounts.String())
	eventually(t, "the default service account", func() (bool, string) {
		_, err := x.Kubectl(t.Context(), "", "-n", ns, "get", "serviceaccount", "default")
		return err == nil, fmt.Sprint(err)
	})
}

// TestScenarios has a real API server judge what the webhook makes of pods:
// their order with its own admission, its defaults and its validation.
func TestScenarios(t *testing.T) {
	t.Parallel()
	w.scenarios(t, "scenarios")
	home := w.server.Operator.TenantID
	usual := identity(scenarioClient, home)
	// One container.
	const one = "containers: [{name: a, image: x}]"
	for _, c := range []struct {
		name        string
		meta        string // more of the metadata
		annotations string // without their prefix
		account     string // default app
		spec        string // default one
		denied      string // what the refusal says
		token       string // default ordinary
		env         map[string][]string
		check       func(t *testing.T, p *admitted)
	}{
		{name: "one container", env: map[string][]string{"a": usual}},
		{name: "name made by the API server", meta: "generateName: made-", env: map[string][]string{"a": usual}},
		{name: "longest name", meta: "name: " + strings.Repeat("n", 253), env: map[string][]string{"a": usual}},
		{name: "default service account", account: "default", env: map[string][]string{"a": identity("", home)}},
		{name: "own tenant", account: "guest", env: map[string][]string{"a": identity(scenarioClient, scenarioTenant)}},
		{name: "no tenant", account: "homeless", env: map[string][]string{"a": identity(scenarioClient, "")}},

		{name: "expiration of the pod", annotations: `service-account-token-expiration: "4000"`, account: "long",
			token: strings.Replace(ordinary, "3600", "4000", 1), env: map[string][]string{"a": usual}},
		{name: "expiration of the service account", account: "long", token: strings.Replace(ordinary, "3600", "4800", 1), env: map[string][]string{"a": usual}},
		{name: "expiration with a unit", annotations: "service-account-token-expiration: 3600s",
			denied: `strconv.ParseInt: parsing "3600s": invalid syntax`},
		{name: "expiration too short", annotations: `service-account-token-expiration: "3599"`,
			denied: "token expiration 3599 not valid. Expected value to be between 3600 and 86400"},
		{name: "expiration too long", annotations: `service-account-token-expiration: "86401"`,
			denied: "token expiration 86401 not valid. Expected value to be between 3600 and 86400"},
		{name: "expiration of the service account too short", account: "short",
			denied: "token expiration 100 not valid. Expected value to be between 3600 and 86400"},
		{name: "expiration of the service account no number", account: "odd",
			denied: `strconv.ParseInt: parsing "invalid": invalid syntax`},

		{name: "containers of every kind", spec: "initContainers: [{name: i, image: x}, {name: side, image: x, restartPolicy: Always}], containers: [{name: a, image: x}, {name: b, image: x}]",
			env: map[string][]string{"i": usual, "side": usual, "a": usual, "b": usual},
			check: func(t *testing.T, p *admitted) {
				if diff := cmp.Diff([]string{"podkey-trust", "i", "side"}, p.initial()); diff != "" {
					t.Error(diff)
				}
				if c := p.Spec.InitContainers[2]; c.RestartPolicy != "Always" {
					t.Errorf("the sidecar has the restart policy %q", c.RestartPolicy)
				}
			}},
		{name: "skipped containers", annotations: `skip-containers: "a; i;nobody"`, spec: "initContainers: [{name: i, image: x}, {name: j, image: x}], containers: [{name: a, image: x}, {name: b, image: x}]",
			env: map[string][]string{"i": nil, "j": usual, "a": nil, "b": usual}},

		{name: "own variables", spec: `containers: [{name: a, image: x, env: [{name: FIRST, value: "1"}, {name: AZURE_TENANT_ID, value: mine}, {name: AZURE_CLIENT_ID, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]`,
			env: map[string][]string{"a": {"FIRST=1", "AZURE_TENANT_ID=mine", "AZURE_CLIENT_ID=metadata.name", usual[2], usual[3]}}},
		{name: "own volume of that name", spec: "volumes: [" + ownAudience + "], " + one, env: map[string][]string{"a": usual}},
		{name: "own mount of that name", spec: "volumes: [" + ownAudience + "], containers: [{name: a, image: x, volumeMounts: [{name: azure-identity-token, mountPath: " + tokenDir + "}]}]",
			env: map[string][]string{"a": usual}},
		{name: "another volume where the token belongs", spec: "volumes: [{name: mine, emptyDir: {}}], containers: [{name: a, image: x, volumeMounts: [{name: mine, mountPath: " + tokenDir + "}]}]",
			denied: `container "a" mounts volume "mine" at ` + tokenDir + ", where the token belongs"},

		{name: "proxy", annotations: `inject-proxy-sidecar: "true", proxy-sidecar-port: "8080"`, spec: "securityContext: {runAsUser: 7}, initContainers: [{name: i, image: x}], " + one,
			env: map[string][]string{"a": usual, "i": usual},
			check: func(t *testing.T, p *admitted) {
				if diff := cmp.Diff([]string{"podkey-trust", "azwi-proxy", "azwi-proxy-init", "i"}, p.initial()); diff != "" {
					t.Fatal(diff)
				}
				proxy, redirect := p.Spec.InitContainers[1], p.Spec.InitContainers[2]
				if proxy.RestartPolicy != "Always" || proxy.SecurityContext.RunAsUser != 1501 || !slices.Contains(proxy.Args, "--proxy-port=8080") {
					t.Errorf("the proxy: %+v", proxy)
				}
				if got := p.env("azwi-proxy-init"); !slices.Equal(got, []string{"PROXY_PORT=8080"}) {
					t.Errorf("variables of %s: %q", redirect.Name, got)
				}
			}},
		{name: "proxy not wanted", annotations: `inject-proxy-sidecar: "false"`, env: map[string][]string{"a": usual}, check: only("podkey-trust")},
		{name: "proxy by App Service's protocol", annotations: `inject-proxy-sidecar: "", proxy-protocol: appservice`, check: only("podkey-trust", "azwi-proxy"),
			env: map[string][]string{"a": append(slices.Clone(usual), "IDENTITY_ENDPOINT=http://127.0.0.1:8000/msi/token", "IDENTITY_HEADER=metadata.uid")}},
		{name: "proxy on the node's network", annotations: `inject-proxy-sidecar: "true"`, spec: "hostNetwork: true, " + one,
			denied: "hostNetwork is set to true, cannot inject proxy sidecar"},
		{name: "proxy's port no number", annotations: `inject-proxy-sidecar: "true", proxy-sidecar-port: invalid`,
			denied: `failed to parse proxy sidecar port: strconv.ParseInt: parsing "invalid": invalid syntax`},
		{name: "proxy's port out of range", annotations: `inject-proxy-sidecar: "true", proxy-sidecar-port: "65536"`,
			denied: "65536 is not between 1 and 65535"},
		{name: "no proxy on Windows", annotations: `inject-proxy-sidecar: "true"`, spec: "os: {name: windows}, " + one, env: map[string][]string{"a": usual}, check: only()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.account == "" {
				c.account = "app"
			}
			if c.spec == "" {
				c.spec = one
			}
			if c.meta == "" {
				c.meta = "name: p"
			}
			manifest := scenarioHead + ", " + c.meta
			if c.annotations != "" {
				manifest += ", annotations: {azure.workload.identity/" + strings.ReplaceAll(c.annotations, ", ", ", azure.workload.identity/") + "}"
			}
			p, err := w.admit(t.Context(), manifest+"}, spec: {serviceAccountName: "+c.account+", "+c.spec+"}}")
			if c.denied != "" {
				if err == nil || !strings.Contains(err.Error(), denied) || !strings.Contains(err.Error(), c.denied) {
					t.Errorf("the API server says %v, want %q", err, c.denied)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.token == "" {
				c.token = ordinary
			}
			if diff := cmp.Diff([]string{c.token}, p.tokens()); diff != "" {
				t.Errorf("tokens: want (-), are (+)\n%s", diff)
			}
			for container, want := range c.env {
				if diff := cmp.Diff(want, p.env(container)); diff != "" {
					t.Errorf("variables of %s: want (-), are (+)\n%s", container, diff)
				}
				var mounts []string
				if want != nil {
					mounts = []string{tokenMount}
				}
				if diff := cmp.Diff(mounts, p.mounts(container)); diff != "" {
					t.Errorf("mounts of %s: want (-), are (+)\n%s", container, diff)
				}
			}
			if c.check != nil {
				c.check(t, &p)
			}
		})
	}
}

// only checks which init containers there are.
func only(names ...string) func(t *testing.T, p *admitted) {
	return func(t *testing.T, p *admitted) {
		if diff := cmp.Diff(names, p.initial()); diff != "" {
			t.Errorf("init containers: want (-), are (+)\n%s", diff)
		}
	}
}

// TestLeftAlone are pods that must come out as they went in.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	w.scenarios(t, "left-alone")
	const labelled = `labels: {azure.workload.identity/use: "true"}`
	for name, c := range map[string]struct{ ns, meta, spec string }{
		"no label":            {ns: "left-alone", meta: "labels: {app: a}"},
		"another value":       {ns: "left-alone", meta: `labels: {azure.workload.identity/use: "yes"}`},
		"label as annotation": {ns: "left-alone", meta: `annotations: {azure.workload.identity/use: "true"}`},
		// The API server lets no mirror of a static pod have a token.
		"mirror":             {ns: "left-alone", meta: labelled + `, annotations: {kubernetes.io/config.mirror: "x"}`, spec: "nodeName: node0, "},
		"system's namespace": {ns: "kube-system", meta: labelled},
		"leases' namespace":  {ns: "kube-node-lease", meta: labelled},
		"our own namespace":  {ns: system, meta: labelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account := "serviceAccountName: app, "
			if c.ns != "left-alone" || c.spec != "" {
				account = ""
			}
			p, err := w.admit(t.Context(), "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: "+c.ns+", "+c.meta+"}, spec: {"+account+c.spec+"containers: [{name: a, image: x}]}}")
			if err != nil {
				t.Fatal(err)
			}
			if p.initial() != nil || p.env("a") != nil || p.mounts("a") != nil || p.tokens() != nil {
				t.Errorf("the pod was changed: %+v", p.Spec)
			}
		})
	}
}

// TestNotAsked counts the admissions of a namespace: pods without the label
// cost nothing, and nothing that happens to a pod after its creation does.
func TestNotAsked(t *testing.T) {
	t.Parallel()
	w.scenarios(t, "not-asked")
	const head = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: not-asked, labels: "
	const tail = "}, spec: {serviceAccountName: app, nodeName: nowhere, containers: [{name: a, image: x}]}}"
	create := func(labels string, flags ...string) {
		t.Helper()
		if _, err := w.Kubectl(t.Context(), head+labels+tail, append([]string{"create", "-f", "-"}, flags...)...); err != nil {
			t.Fatal(err)
		}
	}
	create("{app: x}", "--dry-run=server")
	create(`{azure.workload.identity/use: "True"}`, "--dry-run=server")
	if n := w.admissions(t, "not-asked"); n != 0 {
		t.Errorf("asked %d times for pods without the label", n)
	}
	create(`{azure.workload.identity/use: "true"}`)
	// More than once, because the API server asks again after its own plug-ins
	// changed a container of ours.
	created := w.admissions(t, "not-asked")
	if created == 0 {
		t.Error("not asked for a pod with the label, or not counted")
	}
	for _, args := range [][]string{
		{"annotate", "pod", "p", "a=b"}, {"label", "pod", "p", "c=d"}, {"delete", "pod", "p", "--grace-period=0", "--force"},
	} {
		if _, err := w.Kubectl(t.Context(), "", append([]string{"-n", "not-asked"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.admissions(t, "not-asked"); n != created {
		t.Errorf("asked %d times more in the life of a pod", n-created)
	}
}

// admissions is how often the webhook's replicas were asked for pods of a
// namespace.
func (x *world) admissions(t *testing.T, ns string) int {
	t.Helper()
	pods, err := x.Kubectl(t.Context(), "", "-n", system, "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil || len(strings.Fields(pods)) < 2 {
		t.Fatalf("the webhook's pods: %q, %v", pods, err)
	}
	count := regexp.MustCompile(`(?m)^azwi_mutation_request_count\{namespace="` + regexp.QuoteMeta(ns) + `",.*\} (\d+)$`)
	sum := 0
	for _, pod := range strings.Fields(pods) {
		metrics, err := x.Get(t.Context(), "/api/v1/namespaces/"+system+"/pods/"+pod+":8095/proxy/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if m := count.FindSubmatch(metrics); m != nil {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// TestAskedAgain has another webhook of the cluster add a container behind
// ours, as a service mesh does. The API server then asks ours again: it gives
// the new container what it lacks, and the others nothing twice.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	w.scenarios(t, "asked-again")
	mesh := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID    string
				Object admitted
			}
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		answer := map[string]any{"uid": review.Request.UID, "allowed": true}
		if len(review.Request.Object.Spec.Containers) == 1 {
			answer["patchType"] = "JSONPatch"
			answer["patch"] = []byte(`[{"op": "add", "path": "/spec/containers/-", "value": {"name": "mesh", "image": "x"}}]`)
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})
	}))
	t.Cleanup(mesh.Close)
	ca, err := json.Marshal(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mesh.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	// Its name puts it behind ours.
	w.apply(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: service-mesh}
webhooks:
- name: mesh.example.org
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "`+mesh.URL+`", caBundle: `+string(ca)+`}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: asked-again}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
`)
	t.Cleanup(func() {
		if _, err := w.Kubectl(context.Background(), "", "delete", "mutatingwebhookconfiguration", "service-mesh"); err != nil {
			t.Error(err)
		}
	})
	manifest := strings.Replace(scenarioHead, "scenarios", "asked-again", 1) + ", name: p}, spec: {serviceAccountName: app, containers: [{name: a, image: x}]}}"
	var p admitted
	// The API server learns of the configuration by a watch.
	eventually(t, "the mesh adds its container", func() (bool, string) {
		var err error
		p, err = w.admit(t.Context(), manifest)
		return err == nil && len(p.Spec.Containers) == 2, fmt.Sprint(err)
	})
	if diff := cmp.Diff([]string{ordinary}, p.tokens()); diff != "" {
		t.Errorf("tokens: want (-), are (+)\n%s", diff)
	}
	only("podkey-trust")(t, &p)
	for _, container := range []string{"a", "mesh"} {
		if diff := cmp.Diff(identity(scenarioClient, w.server.Operator.TenantID), p.env(container)); diff != "" {
			t.Errorf("variables of %s: want (-), are (+)\n%s", container, diff)
		}
		if diff := cmp.Diff([]string{tokenMount}, p.mounts(container)); diff != "" {
			t.Errorf("mounts of %s: want (-), are (+)\n%s", container, diff)
		}
	}
}
