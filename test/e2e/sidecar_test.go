//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
)

// tokenURL asks the metadata service for a token of the vault.
const tokenURL = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"

// said waits until a container that runs to its end has ended, and compares
// what it printed.
func (x *world) said(t *testing.T, ns, pod, container, want string) {
	t.Helper()
	eventually(t, pod+", "+container+" ends", func() (bool, string) {
		// A container of either kind.
		ended, err := x.Kubectl(t.Context(), "", "-n", ns, "get", "pod", "-l", "app="+pod, "-o",
			`jsonpath={.items[0].status.containerStatuses[?(@.name=="`+container+`")].state.terminated.reason}{.items[0].status.initContainerStatuses[?(@.name=="`+container+`")].state.terminated.reason}`)
		if err == nil && ended != "" {
			return true, ""
		}
		described, _ := x.Kubectl(t.Context(), "", "-n", ns, "describe", "pods", "-l", "app="+pod)
		return false, described
	})
	out, err := x.Kubectl(t.Context(), "", "-n", ns, "logs", "-l", "app="+pod, "-c", container, "--tail=-1")
	if err != nil || !strings.Contains(out, want) {
		proxy, _ := x.Kubectl(t.Context(), "", "-n", ns, "logs", "-l", "app="+pod, "-c", "azwi-proxy", "--tail=20")
		t.Errorf("container %s of %s: %v, says %q, want %q\nthe proxy says:\n%s", container, pod, err, out, want, proxy)
	}
}

// TestSidecar is a Job whose containers know only the metadata service of a
// virtual machine.
func TestSidecar(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "sidecar", setup{})
	// The answer holds a token; the log gets the rest of it. SDKs ask again too
	// while cluster DNS is busy.
	const ask = `until wget -q -O - --header "Metadata: true" "` + tokenURL + `" | grep -o "\"client_id\":\"[^\"]*\""; do sleep 1; done`
	w.apply(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: sidecar}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {app: once, azure.workload.identity/use: "true"}
      annotations: {azure.workload.identity/inject-proxy-sidecar: "true", azure.workload.identity/proxy-sidecar-port: "8123"}
    spec:
      serviceAccountName: app
      restartPolicy: Never
      initContainers:
      - {name: early, image: `+busyboxRef+`, command: [sh, -c, '`+ask+`']}
      containers:
      - name: app
        image: `+sampleRef+`
        env: [{name: KEYVAULT_URL, value: "`+l.vault+`"}, {name: SECRET_NAME, value: password}, {name: AZURE_TOKEN_CREDENTIALS, value: ManagedIdentityCredential}]
      - {name: headless, image: `+busyboxRef+`, command: [sh, -c, 'wget -O /dev/null "`+tokenURL+`" 2>&1; true']}
      - {name: instance, image: `+busyboxRef+`, command: [sh, -c, 'wget -q -O - --header "Metadata: true" "http://169.254.169.254/metadata/instance?api-version=2021-02-01"']}
`)
	w.said(t, "sidecar", "once", "early", `"client_id":"`+l.clientID+`"`)
	w.said(t, "sidecar", "once", "app", l.secret)
	w.said(t, "sidecar", "once", "headless", "400 Bad Request")
	w.said(t, "sidecar", "once", "instance", "kubernetes.namespace:sidecar")
	// The proxy ends with the pod, and does not keep the Job from ending.
	if _, err := w.Kubectl(t.Context(), "", "-n", "sidecar", "wait", "--for=condition=Complete", "job/once", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	// What it may do is to change its network, and nothing else.
	caps, err := w.Kubectl(t.Context(), "", "-n", "sidecar", "get", "pod", "-l", "app=once", "-o",
		`jsonpath={range .items[0].spec.initContainers[*]}{.name} {.securityContext.privileged} {.securityContext.capabilities}{"\n"}{end}`)
	if want := "azwi-proxy-init false " + `{"add":["NET_ADMIN"],"drop":["ALL"]}`; err != nil || !strings.Contains(caps, want) {
		t.Errorf("%v, init containers:\n%s\nwant %s", err, caps, want)
	}
}

// TestSidecarIsOfItsPod asks the proxy of a pod from another one.
func TestSidecarIsOfItsPod(t *testing.T) {
	t.Parallel()
	w.workload(t, "sidecar-own", setup{})
	w.apply(t, `
apiVersion: v1
kind: Pod
metadata:
  name: resident
  namespace: sidecar-own
  labels: {azure.workload.identity/use: "true"}
  annotations: {azure.workload.identity/inject-proxy-sidecar: "true"}
spec:
  serviceAccountName: app
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: `+busyboxRef+`, command: [busybox, httpd, -f, -p, "8080", -h, /bin]}]
`)
	if _, err := w.Kubectl(t.Context(), "", "-n", "sidecar-own", "wait", "--for=condition=Ready", "pod/resident", "--timeout=60s"); err != nil {
		described, _ := w.Kubectl(context.Background(), "", "-n", "sidecar-own", "describe", "pod", "resident")
		t.Fatalf("%v\n%s", err, described)
	}
	ip, err := w.Kubectl(t.Context(), "", "-n", "sidecar-own", "get", "pod", "resident", "-o", "jsonpath={.status.podIP}")
	if err != nil {
		t.Fatal(err)
	}
	inside, err := w.Kubectl(t.Context(), "", "-n", "sidecar-own", "exec", "resident", "-c", "app", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8000/readyz")
	if err != nil || inside != "ok" {
		t.Errorf("inside of the pod: %v, %q", err, inside)
	}
	w.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: sidecar-own, labels: {app: visitor}}
spec:
  restartPolicy: Never
  containers:
  - {name: door, image: `+busyboxRef+`, command: [sh, -c, 'wget -O - http://`+ip+`:8080/nothing 2>&1; true']}
  - {name: proxy, image: `+busyboxRef+`, command: [sh, -c, 'wget -O - http://`+ip+`:8000/readyz 2>&1; true']}
`)
	w.said(t, "sidecar-own", "visitor", "door", "404 Not Found")
	w.said(t, "sidecar-own", "visitor", "proxy", "Connection refused")
}

// TestSidecarRestricted is App Service's protocol in a namespace that allows
// no capability at all.
func TestSidecarRestricted(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "sidecar-restricted", setup{})
	if _, err := w.Kubectl(t.Context(), "", "label", "namespace", "sidecar-restricted", "pod-security.kubernetes.io/enforce=restricted"); err != nil {
		t.Fatal(err)
	}
	pod := func(name, protocol string) string {
		return `
apiVersion: v1
kind: Pod
metadata:
  name: ` + name + `
  namespace: sidecar-restricted
  labels: {app: ` + name + `, azure.workload.identity/use: "true"}
  annotations: {azure.workload.identity/inject-proxy-sidecar: "true", azure.workload.identity/proxy-protocol: ` + protocol + `}
spec:
  serviceAccountName: app
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 4711, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: ` + sampleRef + `
    securityContext: &least {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    env: [{name: KEYVAULT_URL, value: "` + l.vault + `"}, {name: SECRET_NAME, value: password}, {name: AZURE_TOKEN_CREDENTIALS, value: ManagedIdentityCredential}]
  - name: stranger
    image: ` + busyboxRef + `
    securityContext: *least
    command: [sh, -c, 'wget -O /dev/null "$IDENTITY_ENDPOINT?api-version=2019-08-01&resource=https://vault.azure.net" 2>&1; true']
`
	}
	w.apply(t, pod("app", "appservice"))
	w.said(t, "sidecar-restricted", "app", "app", l.secret)
	w.said(t, "sidecar-restricted", "app", "stranger", "401 Unauthorized")
	names, err := w.Kubectl(t.Context(), "", "-n", "sidecar-restricted", "get", "pod", "app", "-o", "jsonpath={.spec.initContainers[*].name}")
	if err != nil || names != "podkey-trust azwi-proxy" {
		t.Errorf("init containers %q, %v", names, err)
	}
	// The namespace does enforce it: interception needs a capability.
	if _, err := w.Kubectl(t.Context(), pod("imds", "imds"), "create", "--dry-run=server", "-f", "-"); err == nil || !strings.Contains(err.Error(), `"azwi-proxy-init" must not include "NET_ADMIN"`) {
		t.Errorf("a pod with interception: %v", err)
	}
}
