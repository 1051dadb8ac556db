//go:build e2e

package e2e

import (
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/podkey/podkey/deploy/chart"
)

// helm renders the chart as Helm does, and returns the manifests in the order
// of their files.
func helm(values map[string]any) (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/podkey/podkey").Output()
	if err != nil {
		return "", err
	}
	c, err := loader.Load(filepath.Join(strings.TrimSpace(string(root)), "deploy", "chart", "podkey"))
	if err != nil {
		return "", err
	}
	v, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "podkey", Namespace: system, Revision: 1, IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	out, err := engine.Render(c, v)
	if err != nil {
		return "", err
	}
	var docs []string
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if strings.HasSuffix(name, ".yaml") {
			docs = append(docs, out[name])
		}
	}
	return strings.Join(docs, "\n---\n"), nil
}

// TestHelmRendersTheSame compares Helm's rendering of the chart with that of
// `podkey install` and the server.
func TestHelmRendersTheSame(t *testing.T) {
	for name, values := range map[string]string{
		"default":    "tenantID: t",
		"trust":      "{tenantID: t, ownNames: true, authorityHost: 'https://login.podkey.example/', trust: {ca: \"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n\"}}",
		"much":       "{tenantID: t, audience: a, tokenPath: both, image: {digest: 'sha256:1', pullPolicy: Always}, imagePullSecrets: [{name: s}], webhook: {replicas: 5, annotations: {b: c}, podLabels: {d: e}, podAnnotations: {f: g}, tolerations: [{operator: Exists}], affinity: {podAntiAffinity: {}}, topologySpreadConstraints: [{maxSkew: 2}], hostNetwork: true, extraArgs: [--x], exemptNamespaces: [n, n, podkey-system], drainSeconds: 0, resources: null, customTokenEndpoint: {annotationSuffix: identity-binding, audience: z, caConfigMap: kube-root-ca.crt}}}",
		"supplied":   "{tenantID: t, webhook: {advice: false, certificates: {existingSecret: s, injectCAFrom: n/c}}}",
		"no webhook": "{webhook: {enabled: false}}",
	} {
		v, err := chart.ParseValues([]byte(values))
		if err != nil {
			t.Fatal(err)
		}
		want, err := helm(v)
		if err != nil {
			t.Errorf("%s: helm: %v", name, err)
			continue
		}
		got, err := chart.Render(chart.Release{Namespace: system, Values: v})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// Helm leaves the namespace to whoever installs.
		if diff := cmp.Diff(objects(t, want), byName(got[1:])); diff != "" {
			t.Errorf("%s: Helm's (-) and ours (+):\n%s", name, diff)
		}
	}
}

func objects(t *testing.T, manifests string) map[string]chart.Object {
	t.Helper()
	var list []chart.Object
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		var o chart.Object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if o != nil {
			list = append(list, o)
		}
	}
	return byName(list)
}

func byName(list []chart.Object) map[string]chart.Object {
	out := map[string]chart.Object{}
	for _, o := range list {
		meta, _ := o["metadata"].(map[string]any)
		name, _ := meta["name"].(string)
		kind, _ := o["kind"].(string)
		out[kind+"/"+name] = o
	}
	return out
}
