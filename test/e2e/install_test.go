//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInstallations takes the webhook away and installs it in each of the ways
// that there are, in a cluster that is empty again each time. Nothing runs
// beside it.
func TestInstallations(t *testing.T) {
	w.namespace(t, "installed")
	w.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: app, namespace: installed, annotations: {azure.workload.identity/client-id: 01234567-89ab-cdef-0123-456789abcdef}}\n")
	t.Cleanup(func() {
		if out, err := w.sh(context.Background(), enable); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	// works reports whether a pod that asks for an identity gets one.
	works := func(t *testing.T, want bool) {
		t.Helper()
		out, err := w.Kubectl(t.Context(), reader("installed", "asks", "app", "https://kv.vault.azure.net/", "x"), "create", "--dry-run=server", "-o", "yaml", "-f", "-")
		if got := strings.Contains(out, "name: AZURE_FEDERATED_TOKEN_FILE"); err != nil || got != want {
			t.Errorf("%v; the pod gets an identity: %t, want %t", err, got, want)
		}
	}
	// empty waits until nothing of podkey is left in the cluster. A namespace
	// takes seconds to go; one that podkey did not make stays.
	empty := func(t *testing.T, kinds string) {
		t.Helper()
		eventually(t, "nothing left", func() (bool, string) {
			out, err := w.Kubectl(t.Context(), "", "get", kinds, "-l", "app.kubernetes.io/name=podkey", "-o", "name")
			return err == nil && strings.TrimSpace(out) == "", fmt.Sprint(out, err)
		})
		works(t, false)
	}
	const kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings"
	works(t, true)
	t.Run("az aks update off", func(t *testing.T) {
		w.must(t, disable)
		empty(t, kinds+",namespaces")
		w.shows(t, "az aks show -g "+group+" -n "+cluster+" --query securityProfile.workloadIdentity.enabled -o tsv", "false")
	})
	t.Run("README", func(t *testing.T) {
		w.follow(t, "In your cluster")
		works(t, true)
		w.must(t, "podkey uninstall --kubeconfig "+w.Kubeconfig())
		empty(t, kinds+",namespaces")
	})
	t.Run("Helm", func(t *testing.T) {
		if err := w.install(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		works(t, true)
		w.must(t, "podkey uninstall --kubeconfig "+w.Kubeconfig())
		empty(t, kinds)
	})
	t.Run("az aks update on", func(t *testing.T) {
		w.must(t, enable)
		works(t, true)
	})
}

// follow does what a section of the README says, as a new user would: the
// declaration of the file that it names, and the commands of its second block
// to the letter. Those of the first started the server that is there.
func (x *world) follow(t *testing.T, section string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(repository(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(readme), "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	blocks := regexp.MustCompile("(?s)```\n(.*?)```").FindAllStringSubmatch(text, -1)
	declared := regexp.MustCompile("(?s)```yaml\n(# shop.yaml\n.*?)```").FindSubmatch(readme)
	if !ok || len(blocks) != 2 || declared == nil {
		t.Fatalf("the section %q has %d blocks", section, len(blocks))
	}
	if !strings.Contains(blocks[0][1], "--listen 10.89.0.1:443") || !strings.Contains(blocks[0][1], "podkey corefile") {
		t.Errorf("the server is started otherwise than here:\n%s", blocks[0][1])
	}
	x.must(t, "cp "+x.Kubeconfig()+" ~/.kube/config; ln -s "+repository(t)+"/samples samples; cat >shop.yaml <<'EOF'\n"+string(declared[1])+"EOF\n")
	t.Cleanup(func() {
		if _, err := x.Kubectl(context.Background(), "", "delete", "namespace", "shop", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			seen, _ := x.Kubectl(context.Background(), "", "-n", "shop", "describe", "pods")
			t.Log(seen)
		}
	})
	if out := x.must(t, blocks[1][1]); !strings.HasSuffix(out, "hunter2\n") {
		t.Errorf("the commands end with %q", out)
	}
}

// repository is the root of podkey's repository.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
