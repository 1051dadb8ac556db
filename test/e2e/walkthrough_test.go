//go:build e2e

package e2e

import "testing"

func TestX(t *testing.T) {
	t.Log(w.sh(t.Context(), "az aks get-credentials -g shop -n shop-cluster --overwrite-existing; kubectl get nodes; az aks show -g shop -n shop-cluster --query oidcIssuerProfile.issuerUrl -o tsv; podkey version; env | grep -i secret | wc -l; kubectl get pods -A"))
}
