//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// trustNames are the variables of injected trust.
var trustNames = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "JAVA_TOOL_OPTIONS"}

// tourOutput is what the samples with the SDKs of other languages print.
const tourOutput = `current: two
first version: one
both versions are listed: true
enabled: false
a disabled secret: 403 Forbidden
listed: 30 of 30 in several pages: true
a secret that is not there: 404 SecretNotFound
a name that is none: 400 BadParameter
deleted: tour
restored: tour two
another vault: 403 Forbidden
`

// languages is a pod that runs programs in languages one after the other, each
// with a vault of its own below zone: together they would starve the cluster.
//
// The interpreters and SDKs are the machine's, mounted into the pod, because
// no registry can give their images here. Nothing in the pod speaks of trust
// or of an identity but its label.
func languages(t *testing.T, name, ns, labels, zone string, languages ...string) string {
	t.Helper()
	prepared := func(name string) string {
		path, err := filepath.EvalSymlinks(filepath.Join(w.prepared, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	venv, modules := prepared("python"), prepared("javascript")
	installed := func(program string) string {
		path, err := exec.LookPath(program)
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	node, java := installed("node"), installed("java")
	samples, err := filepath.Abs("../../samples")
	if err != nil {
		t.Fatal(err)
	}
	// A program's libraries are beside it: PREFIX/bin/program, PREFIX/lib.
	prefix := func(program string) string { return filepath.Dir(filepath.Dir(program)) }
	python, err := filepath.EvalSymlinks(filepath.Join(venv, "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	// The machine's own roots too: that they do not do is what is shown.
	at := map[string]string{
		"/usr": "/usr", "/lib": "/lib", "/lib64": "/lib64", "/etc/ssl": "/etc/ssl", venv: venv,
		prefix(python): prefix(python), prefix(node): prefix(node), prefix(java): prefix(java),
		"/tour/vault_tour.py":  filepath.Join(samples, "python", "vault_tour.py"),
		"/tour/vault-tour.mjs": filepath.Join(samples, "javascript", "vault-tour.mjs"),
		"/tour/node_modules":   filepath.Join(modules, "node_modules"),
		"/tour/VaultTour.java": filepath.Join(samples, "java", "VaultTour.java"),
		"/tour/lib":            prepared("java"),
		"/tour/azmcp":          prepared("azmcp"),
	}
	// Debian keeps Java's settings apart.
	settings, err := filepath.Glob("/etc/java-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range settings {
		at[dir] = dir
	}
	var volumes, mounts []string
	for to, from := range at {
		if _, err := os.Stat(from); err != nil {
			continue // /lib64 is not everywhere
		}
		volume := fmt.Sprintf("v%d", len(volumes))
		volumes = append(volumes, fmt.Sprintf("{name: %s, hostPath: {path: %q}}", volume, from))
		mounts = append(mounts, fmt.Sprintf("{name: %s, mountPath: %q, readOnly: true}", volume, to))
	}
	pod := `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `, namespace: ` + ns + `, labels: {app: ` + name + labels + `}}
spec:
  serviceAccountName: app
  restartPolicy: Never
  volumes: [` + strings.Join(volumes, ", ") + `]
  containers: [{name: app, image: ` + busyboxRef + `, command: ["true"]}]
  initContainers:
`
	commands := map[string]string{
		"python": venv + "/bin/python /tour/vault_tour.py",
		"node":   node + " /tour/vault-tour.mjs",
		// It runs for seconds: not worth the second compiler.
		"java": java + " -XX:TieredStopAtLevel=1 -cp '/tour/lib/*' /tour/VaultTour.java",
		// It signs in as a developer unless this is production, and stops
		// without ICU, which not every machine has, unless told to go on.
		"dotnet": "export AZURE_TOKEN_CREDENTIALS=prod DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 AZURE_MCP_COLLECT_TELEMETRY=false; " +
			"secret() { /tour/azmcp keyvault secret $@ --subscription " + w.server.Operator.SubscriptionID + "; }; own='--vault kv-" + ns + "-dotnet'; " +
			"secret create $own --secret tour --value one && " +
			"{ secret get $own --secret tour; secret get $own --secret absent; secret get --vault kv-" + ns + "-other --secret tour; }",
	}
	for _, language := range languages {
		pod += fmt.Sprintf("  - {name: %s, image: %s, command: [sh, -c, \"%s; true\"], volumeMounts: [%s], env: [{name: KEYVAULT_URL, value: \"https://kv-%s-%s.%s\"}, {name: OTHER_VAULT_URL, value: \"https://kv-%s-other.%s\"}]}\n",
			language, busyboxRef, commands[language], strings.Join(mounts, ", "), ns, language, zone, ns, zone)
	}
	return pod
}

// tourist is a workload with further vaults, in which its identity may do what
// the programs of languages do.
func (x *world) tourist(t *testing.T, ns string) workload {
	t.Helper()
	l := x.workload(t, ns, setup{})
	file := filepath.Join(t.TempDir(), "more.yaml")
	more := "location: westeurope\nidentities: [{name: " + ns + ", resourceGroup: shop}]\nvaults:\n- {name: kv-" + ns + "-other, resourceGroup: shop}\n"
	for _, name := range []string{"python", "node", "java", "dotnet"} {
		more += fmt.Sprintf("- {name: kv-%[1]s-%[2]s, resourceGroup: shop, access: [{identity: %[1]s, role: Key Vault Secrets Officer}]}\n", ns, name)
	}
	if err := os.WriteFile(file, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	x.must(t, "podkey bootstrap -f "+file)
	return l
}

// tours is what the programs print.
var tours = map[string]string{
	"node":   tourOutput,
	"python": strings.NewReplacer("true", "True", "false", "False").Replace(tourOutput),
	"java":   regexp.MustCompile(`(: 4\d\d) .*`).ReplaceAllString(tourOutput, "$1"), // the code is not public there
}

// dotnetOutput is in what azmcp prints: a secret, and what the SDK says of one
// that is not there and of another vault.
var dotnetOutput = []string{
	"\"secret\": {\n      \"name\": \"tour\",\n      \"value\": \"one\",",
	"ErrorCode: SecretNotFound",
	"ErrorCode: Forbidden",
}

// TestLanguages runs samples with the SDKs for Python, JavaScript and Java,
// written as for AKS, by Azure's names, and a program of Microsoft's with the
// one for .NET.
func TestLanguages(t *testing.T) {
	t.Parallel()
	w.tourist(t, "languages")
	// A pod that did not ask has the same programs, and trusts nobody new.
	untrusted := map[string]string{"python": "CERTIFICATE_VERIFY_FAILED", "node": "unable to verify the first certificate"}
	w.apply(t, languages(t, "asked", "languages", `, azure.workload.identity/use: "true"`, "vault.azure.net", "python", "node", "java", "dotnet")+
		"---"+languages(t, "plain", "languages", "", "vault.azure.net", "python", "node"))
	for language, want := range untrusted {
		w.said(t, "languages", "plain", language, want)
	}
	for _, language := range []string{"python", "node", "java"} {
		w.said(t, "languages", "asked", language, tours[language])
	}
	for _, want := range dotnetOutput {
		w.said(t, "languages", "asked", "dotnet", want)
	}
}

// TestOwnNames installs the webhook for Podkey's own names. All pods are made
// by that webhook, so nothing else runs meanwhile.
func TestOwnNames(t *testing.T) {
	l := w.tourist(t, "own-names")
	w.restore(t)
	if err := w.replace(t.Context(), map[string]any{"ownNames": true, "authorityHost": "https://login." + domain + "/"}); err != nil {
		t.Fatal(err)
	}
	// Whoever asks for Azure's own names, for which the cluster's DNS has an
	// answer too, finds nobody.
	const nowhere = "  hostAliases: [{ip: 127.0.0.1, hostnames: [login.microsoftonline.com, login.microsoft.com]}]\n"
	w.apply(t, strings.ReplaceAll(`
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: own-names, labels: {app: app, azure.workload.identity/use: "true"}}
spec:
  serviceAccountName: app
  restartPolicy: Never
  containers:
  - {name: app, image: `+sampleRef+`, env: [{name: KEYVAULT_URL, value: "https://kv-own-names.vault.`+domain+`/"}, {name: SECRET_NAME, value: password}]}
  - {name: env, image: `+busyboxRef+`, command: [env]}
---`+languages(t, "tour", "own-names", `, azure.workload.identity/use: "true"`, "vault."+domain, "python", "node"), "spec:\n", "spec:\n"+nowhere))
	w.said(t, "own-names", "app", "app", l.secret)
	w.said(t, "own-names", "app", "env", "AZURE_")
	out, err := w.Kubectl(t.Context(), "", "-n", "own-names", "logs", "app", "-c", "env")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for line := range strings.Lines(out) {
		// What Kubernetes gives every container, and the image.
		if name, _, _ := strings.Cut(line, "="); !strings.HasPrefix(name, "KUBERNETES_") && !slices.Contains([]string{"HOSTNAME", "HOME", "PATH"}, name) {
			env = append(env, strings.TrimSpace(line))
		}
	}
	slices.Sort(env)
	const bundle = "/var/run/secrets/podkey/trust/ca-bundle.pem"
	want := []string{
		"AZURE_AUTHORITY_HOST=https://login." + domain + "/",
		"AZURE_CLIENT_ID=" + l.clientID,
		"AZURE_FEDERATED_TOKEN_FILE=/var/run/secrets/azure/tokens/azure-identity-token",
		"AZURE_REGIONAL_AUTHORITY_NAME=podkey",
		"AZURE_TENANT_ID=" + w.server.Operator.TenantID,
		"CURL_CA_BUNDLE=" + bundle,
		"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/var/run/secrets/podkey/trust/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit",
		"NODE_EXTRA_CA_CERTS=" + bundle,
		"REQUESTS_CA_BUNDLE=" + bundle,
		"SSL_CERT_FILE=" + bundle,
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("environment: want (-), is (+)\n%s", diff)
	}
	for _, language := range []string{"python", "node"} {
		w.said(t, "own-names", "tour", language, tours[language])
	}
}

// restore has the usual webhook back at the end of a test that replaces it, and
// that is therefore not parallel to others.
func (x *world) restore(t *testing.T) {
	t.Cleanup(func() {
		if err := x.replace(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
}

// replace installs the webhook with other values, which must be others than it
// has, and waits until no old replica is left.
func (x *world) replace(ctx context.Context, values map[string]any) error {
	old, err := x.Kubectl(ctx, "", "-n", system, "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "name")
	if err != nil {
		return err
	}
	if err := x.install(ctx, values); err != nil {
		return err
	}
	// An old replica answers on the connections that it has until it ends.
	_, err = x.Kubectl(ctx, "", append([]string{"-n", system, "wait", "--for=delete", "--timeout=60s"}, strings.Fields(old)...)...)
	return err
}
