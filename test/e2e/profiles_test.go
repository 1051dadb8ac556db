//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Where the profiles other than classic have the token.
const (
	reservedDir  = "/var/run/secrets/azure/wi"
	reservedFile = "token/azure-identity-token"
)

// reservedVolume is the volume of a pod whose name is not given by us: source
// is its name, or what Kubernetes makes its name from.
func reservedVolume(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "azure-workload-identity-reserved-" + hex.EncodeToString(sum[:])[:30]
}

// TestProfiles installs the webhook for each place of the token that is not the
// usual one, and runs programs at it: the sample with the SDK, which asks the
// variable, and one that has the place written into it, as there are for every
// release of Azure Workload Identity. All pods are made by that webhook, so
// nothing else runs meanwhile.
func TestProfiles(t *testing.T) {
	l := w.workload(t, "profiles", setup{})
	w.restore(t)
	for _, c := range []struct {
		profile string
		// The volume, the places of its mounts and of the tokens in them, in
		// the order of the pod; the variable names the first.
		volume func(source string) string
		dirs   func(volume string) []string
		files  []string
	}{
		{"reserved", reservedVolume, func(string) []string { return []string{reservedDir} }, []string{reservedFile}},
		{"hashed", reservedVolume, func(volume string) []string {
			return []string{reservedDir + "/" + strings.TrimPrefix(volume, "azure-workload-identity-reserved-")}
		}, []string{reservedFile}},
		{"both", func(string) string { return "azure-identity-token" }, func(string) []string { return []string{tokenDir, reservedDir} },
			[]string{"azure-identity-token", reservedFile}},
	} {
		t.Run(c.profile, func(t *testing.T) {
			if err := w.replace(t.Context(), map[string]any{"tokenPath": c.profile}); err != nil {
				t.Fatal(err)
			}
			places := func(source string) (out []string) {
				for i, dir := range c.dirs(c.volume(source)) {
					out = append(out, dir+"/"+c.files[i])
				}
				return out
			}
			fixed := places("fixed")
			w.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: fixed, namespace: profiles, labels: {app: fixed, azure.workload.identity/use: "true"}}
spec:
  serviceAccountName: app
  restartPolicy: Never
  initContainers:
  - {name: early, image: %[1]s, command: [sh, -c, 'cat "$AZURE_FEDERATED_TOKEN_FILE" >/dev/null']}
  containers:
  - {name: variable, image: %[1]s, command: [sh, -c, 'cat "$AZURE_FEDERATED_TOKEN_FILE"']}
  - {name: places, image: %[1]s, command: [sh, -c, 'for f in %[2]s; do cat "$f" && echo; done']}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: made, namespace: profiles}
spec:
  selector: {matchLabels: {app: made}}
  template:
    metadata: {labels: {app: made, azure.workload.identity/use: "true"}}
    spec:
      serviceAccountName: app
      containers: [{name: app, image: %[3]s, env: [{name: KEYVAULT_URL, value: %[4]q}, {name: SECRET_NAME, value: password}, {name: INTERVAL, value: 1s}]}]
`, busyboxRef, strings.Join(fixed, " "), loggerRef, l.vault))
			// Their volumes have gone before the next ones come.
			t.Cleanup(func() {
				for _, args := range [][]string{{"pod", "fixed"}, {"deployment", "made", "--cascade=foreground"}} {
					if _, err := w.Kubectl(context.Background(), "", append([]string{"-n", l.ns, "delete", "--timeout=60s"}, args...)...); err != nil {
						t.Error(err)
					}
				}
			})
			// Name and prefix are what the hash is made from.
			for _, p := range []struct{ app, container string }{{"fixed", "variable"}, {"made", "app"}} {
				source, got := w.made(t, l.ns, p.app)
				volume := c.volume(source)
				var tokens, mounts []string
				for i, dir := range c.dirs(volume) {
					tokens = append(tokens, fmt.Sprintf("%s: %s for api://AzureADTokenExchange, 3600 s", volume, c.files[i]))
					mounts = append(mounts, fmt.Sprintf("%s at %s, read-only: true", volume, dir))
				}
				if diff := cmp.Diff(tokens, got.tokens()); diff != "" {
					t.Errorf("%s: tokens: want (-), are (+)\n%s", p.app, diff)
				}
				if diff := cmp.Diff(mounts, got.mounts(p.container)); diff != "" {
					t.Errorf("%s: mounts: want (-), are (+)\n%s", p.app, diff)
				}
				if want := "AZURE_FEDERATED_TOKEN_FILE=" + places(source)[0]; !slices.Contains(got.env(p.container), want) {
					t.Errorf("%s: variables %q, want %s among them", p.app, got.env(p.container), want)
				}
			}
			// The node has put the tokens there.
			for container, many := range map[string]int{"variable": 1, "places": len(fixed)} {
				w.said(t, l.ns, "fixed", container, ".")
				out, err := w.Kubectl(t.Context(), "", "-n", l.ns, "logs", "fixed", "-c", container)
				if err != nil {
					t.Fatal(err)
				}
				got := strings.Fields(out)
				if len(got) != many {
					t.Errorf("%s prints %d tokens, want %d:\n%s", container, len(got), many, out)
				}
				for _, token := range got {
					if sub, aud := subjectOf(token); sub != "system:serviceaccount:profiles:app" || !slices.Equal(aud, []string{"api://AzureADTokenExchange"}) {
						t.Errorf("%s prints a token of %q for %q", container, sub, aud)
					}
				}
			}
			w.logged(t, l.ns, "deployment/made", fmt.Sprintf("successfully got secret %q", l.secret))
		})
	}
}

// made waits for the one pod of an app, as the API server has stored it, and
// returns with it what the webhook could know of its name.
func (x *world) made(t *testing.T, ns, app string) (source string, p admitted) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, GenerateName string }
			admitted
		}
	}
	eventually(t, "a pod of "+app, func() (bool, string) {
		b, err := x.Get(t.Context(), "/api/v1/namespaces/"+ns+"/pods?labelSelector=app%3D"+app)
		if err == nil {
			err = json.Unmarshal(b, &list)
		}
		return err == nil && len(list.Items) == 1, fmt.Sprint(len(list.Items), err)
	})
	found := list.Items[0]
	if found.Metadata.GenerateName != "" {
		return found.Metadata.GenerateName + " (prefix)", found.admitted
	}
	return found.Metadata.Name, found.admitted
}

// subjectOf is who a service-account token is for, and whom it is made for.
func subjectOf(token string) (subject string, audience []string) {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	b, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Sub string
		Aud []string
	}
	_ = json.Unmarshal(b, &claims)
	return claims.Sub, claims.Aud
}
