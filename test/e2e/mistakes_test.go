//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// TestSingleMistakes makes each mistake that users make, one at a time, and
// looks for the error that documents it in the pod's log. Where the cluster
// can see the mistake, kubectl warns of it.
func TestSingleMistakes(t *testing.T) {
	t.Parallel()
	// A pod that did not ask for an identity is not made to trust Podkey either.
	const untrusted = "certificate signed by unknown authority"
	const label = `azure.workload.identity/use: "true"`
	for name, m := range map[string]struct {
		setup   setup
		change  []string // of the pod's manifest
		warning string   // what kubectl prints
		logged  string   // what the application says
	}{
		"issuer-slash":    {setup: setup{issuer: strings.TrimSuffix(w.Issuer(), "/")}, logged: "AADSTS700211"},
		"wrong-namespace": {setup: setup{subject: "system:serviceaccount:default:app"}, logged: "AADSTS700213"},
		"wrong-account":   {setup: setup{subject: "system:serviceaccount:wrong-account:apps"}, logged: "AADSTS700213"},
		"account-case":    {setup: setup{subject: "system:serviceaccount:account-case:App"}, logged: "AADSTS7002138"},
		"wrong-audience":  {setup: setup{audience: "api://azureadtokenexchange"}, logged: "AADSTS700212"},
		"no-label": {change: []string{"labels: {" + label + "}", "labels: {app: x}"}, logged: untrusted,
			warning: "Pod no-label/app: add " + label + " to the labels of metadata"},
		"label-value": {change: []string{label, `azure.workload.identity/use: "True"`}, logged: untrusted,
			warning: `Pod label-value/app: write ` + label + ` in the labels of metadata: the value "True"`},
		"other-account": {change: []string{"serviceAccountName: app", "serviceAccountName: default"}, logged: "DefaultAzureCredential: failed to acquire a token",
			warning: "set serviceAccountName to a service account with the annotation azure.workload.identity/client-id"},
		"no-role":   {setup: setup{noRole: true}, logged: "ForbiddenByRbac"},
		"no-policy": {setup: setup{noPolicy: true}, logged: "AccessDenied"},
		// Without a mistake, so that the others fail for theirs alone.
		"none-role":   {logged: "secret of none-role"},
		"none-policy": {setup: setup{policies: true}, logged: "secret of none-policy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := w.workload(t, name, m.setup)
			out := w.must(t, "kubectl --kubeconfig "+w.Kubeconfig()+" apply -f - 2>&1 <<'EOF'\n"+l.reader("app", m.change...)+"EOF\n")
			if warned := strings.Contains(out, "Warning: "); warned != (m.warning != "") || !strings.Contains(out, m.warning) {
				t.Errorf("kubectl says %q, want %q", out, m.warning)
			}
			w.logged(t, name, "app", m.logged)
		})
	}
}

// TestWarnings are the mistakes that are in what makes pods.
func TestWarnings(t *testing.T) {
	t.Parallel()
	w.workload(t, "warned", setup{})
	w.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: bare, namespace: warned}\n")
	for name, c := range map[string]struct{ manifest, warning string }{
		"label on the deployment only": {`
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: warned, labels: {azure.workload.identity/use: "true"}}
spec:
  replicas: 0
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {serviceAccountName: default, containers: [{name: c, image: x}]}`,
			`Deployment warned/a: add azure.workload.identity/use: "true" to the labels of spec.template.metadata`},
		"no annotation": {`
apiVersion: batch/v1
kind: CronJob
metadata: {name: b, namespace: warned}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        metadata: {labels: {azure.workload.identity/use: "true"}}
        spec: {serviceAccountName: bare, restartPolicy: Never, containers: [{name: c, image: x}]}`,
			"CronJob warned/b: kubectl annotate serviceaccount bare -n warned azure.workload.identity/client-id=CLIENT-ID"},
		"no GUID": {`
apiVersion: v1
kind: ServiceAccount
metadata: {name: odd, namespace: warned, annotations: {azure.workload.identity/client-id: my-identity}}`,
			"ServiceAccount warned/odd: annotation azure.workload.identity/client-id must be the identity's client id"},
		"two identities": {`
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: warned, labels: {azure.workload.identity/use: "true", aadpodidbinding: old}}
spec: {serviceAccountName: app, containers: [{name: c, image: x}]}`,
			"remove the label aadpodidbinding"},
	} {
		out, err := w.sh(t.Context(), "kubectl --kubeconfig "+w.Kubeconfig()+" apply --dry-run=server -f - 2>&1 <<'EOF'\n"+c.manifest+"\nEOF\n")
		if err != nil || !strings.Contains(out, "Warning: ") || !strings.Contains(out, c.warning) {
			t.Errorf("%s: %v, kubectl says %q, want %q", name, err, out, c.warning)
		}
	}
}
