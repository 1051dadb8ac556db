//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine mounts programs of the machine into a container at the places that
// they have here, because no registry can give images of them: the inside of
// the lists of a pod's volumes and of a container's mounts.
func machine(paths ...string) (volumes, mounts string) {
	var v, m []string
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			continue // /lib64 is not everywhere
		}
		name := fmt.Sprintf("machine%d", len(v))
		v = append(v, fmt.Sprintf("{name: %s, hostPath: {path: %q}}", name, path))
		m = append(m, fmt.Sprintf("{name: %s, mountPath: %q, readOnly: true}", name, path))
	}
	return strings.Join(v, ", "), strings.Join(m, ", ")
}

// TestAzLoginIdentity types what people type on a virtual machine with an
// identity, in a pod with the sidecar: the real az, which knows the metadata
// service and nothing of Kubernetes.
func TestAzLoginIdentity(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "az-login", setup{})
	bin, err := filepath.EvalSymlinks(filepath.Join(w.prepared, "az"))
	if err != nil {
		t.Fatal(err)
	}
	python, err := filepath.EvalSymlinks(filepath.Join(bin, "python"))
	if err != nil {
		t.Fatal(err)
	}
	volumes, mounts := machine("/usr", "/lib", "/lib64", filepath.Dir(bin), filepath.Dir(filepath.Dir(python)))
	const nobody = "01234567-89ab-4def-8123-456789abcdef" // no client of the tenant
	const secret = "az keyvault secret show --vault-name kv-az-login --name password -o tsv --query "
	scripts := []struct{ name, script, want string }{
		{"default", `az login --identity -o none
      az account get-access-token --resource https://vault.azure.net -o tsv --query '[tokenType, tenant]'
      ` + secret + "value", strings.Join([]string{"Bearer", w.server.Operator.TenantID, l.secret, ""}, "\n")},
		{"by-client-id", "az login --identity --username " + l.clientID + ` -o none
      ` + secret + "id", l.vault + "secrets/password/"},
		{"nobody", "if az login --identity --username " + nobody + " -o none; then echo signed in; fi", "check your managed service identity id"},
	}
	// One after the other, and so as init containers: az is slow to start, and
	// they would keep the machine from all else.
	var steps strings.Builder
	for _, s := range scripts {
		fmt.Fprintf(&steps, `
  - name: %[1]s
    image: %[2]s
    env: [{name: HOME, value: /tmp}, {name: AZURE_CONFIG_DIR, value: /tmp/%[1]s}, {name: LANG, value: C.UTF-8}, {name: AZURE_CORE_COLLECT_TELEMETRY, value: "false"}]
    volumeMounts: [{name: home, mountPath: /tmp}, %[3]s]
    command:
    - sh
    - -euc
    - |
      PATH=$PATH:%[4]s
      %[5]s
`, s.name, busyboxRef, mounts, bin, s.script)
	}
	w.apply(t, `
apiVersion: v1
kind: Pod
metadata:
  name: az
  namespace: az-login
  labels: {app: az, azure.workload.identity/use: "true"}
  annotations: {azure.workload.identity/inject-proxy-sidecar: "true"}
spec:
  serviceAccountName: app
  restartPolicy: Never
  volumes: [{name: home, emptyDir: {}}, `+volumes+`]
  containers: [{name: app, image: `+busyboxRef+`, command: ["true"]}]
  initContainers:`+steps.String())
	for _, s := range scripts {
		w.said(t, l.ns, "az", s.name, s.want)
	}
	out, err := w.Kubectl(t.Context(), "", "-n", l.ns, "logs", "az", "-c", "nobody")
	if err != nil || strings.Contains(out, "signed in") {
		t.Errorf("%v; as a client that is not there, az says:\n%s", err, out)
	}
}
