//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/client"
)

// workload is a namespace with a service account, its identity with a
// federated credential, and a vault with one secret that the identity may
// read. All carry the namespace's name.
type workload struct {
	ns, clientID, vault, secret string
}

// setup says what of a workload is different: what a test breaks.
type setup struct {
	issuer, subject, audience string // of the federated credential
	noRole                    bool
	policies                  bool // the vault has access policies
	noPolicy                  bool
	annotations               string // further ones of the service account, as a YAML flow map's inside
}

// workload declares a workload and applies its service account. The secret's
// value is "secret of NAMESPACE".
func (x *world) workload(t *testing.T, ns string, s setup) workload {
	t.Helper()
	x.namespace(t, ns)
	or := func(v, def string) string {
		if v == "" {
			return def
		}
		return v
	}
	access := "[{identity: " + ns + ", role: Key Vault Secrets User}]"
	if s.policies {
		access = "[{identity: " + ns + ", secrets: [get]}]"
	}
	if s.noRole || s.noPolicy {
		access = "[]"
	}
	file := filepath.Join(t.TempDir(), "declared.yaml")
	err := os.WriteFile(file, fmt.Appendf(nil, `location: westeurope
identities:
- name: %[1]s
  resourceGroup: shop
  federatedCredentials:
  - {name: pod, issuer: %[2]q, subject: %[3]q, audiences: [%[4]q]}
vaults:
- name: kv-%[1]s
  resourceGroup: shop
  accessPolicies: %[5]t
  access: %[6]s
  secrets:
  - {name: password, value: secret of %[1]s}
`, ns, or(s.issuer, x.Issuer()), or(s.subject, "system:serviceaccount:"+ns+":app"), or(s.audience, "api://AzureADTokenExchange"), s.policies || s.noPolicy, access), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	x.must(t, "podkey bootstrap -f "+file)
	w := workload{ns: ns, vault: "https://kv-" + ns + ".vault.azure.net/", secret: "secret of " + ns}
	c, err := client.Open(x.server.Data)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range found {
		if id.Name == ns {
			w.clientID = id.Properties.ClientID
		}
	}
	annotations := "azure.workload.identity/client-id: " + w.clientID
	if s.annotations != "" {
		annotations += ", " + s.annotations
	}
	x.apply(t, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: app, namespace: %s, annotations: {%s}}\n", ns, annotations))
	return w
}

// reader is a pod of the workload that prints the secret. change is applied
// to its manifest, as pairs of old and new text.
func (l workload) reader(name string, change ...string) string {
	return strings.NewReplacer(change...).Replace(reader(l.ns, name, "app", l.vault, "password"))
}
