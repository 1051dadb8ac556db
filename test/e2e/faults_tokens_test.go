//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/test/lab"
	"github.com/podkey/podkey/test/serve"
)

// authority calls the token service under Azure's name, as pods do.
func (x *world) authority(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(x.server.Data, "azure-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	tr := client.Transport(net.JoinHostPort(lab.Host, "443"), pool(pki.Certificates(ca)))
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// exchange exchanges a service-account token for one that a vault takes.
func (x *world) exchange(ctx context.Context, authority *http.Client, l workload, assertion string) error {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {l.clientID}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://login.microsoftonline.com/"+x.server.Operator.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := authority.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Token       string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || answer.Token == "" {
		return fmt.Errorf("HTTP %d: %s", resp.StatusCode, answer.Description)
	}
	return nil
}

// TestAuthorityDownAtStart starts a pod while the token service is dead. The
// webhook does not need it, so the pod starts; and the application, which
// tries again as it should, gets its secret when the service is back.
func TestAuthorityDownAtStart(t *testing.T) {
	l := w.workload(t, "authority-down", setup{})
	w.server.Stop(syscall.SIGKILL)
	start := sync.OnceFunc(func() {
		log, err := os.OpenFile(filepath.Join(w.Dir(), "podkey.log"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.server, err = serve.Start(w.server.Podkey, w.server.Data, net.JoinHostPort(lab.Host, "443"), log, "--config", filepath.Join(w.Dir(), "server.yaml"))
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(start) // for the other tests, however this one ends
	w.apply(t, l.reader("app", sampleRef, loggerRef, "env: [", `env: [{name: INTERVAL, value: 500ms}, `))
	w.logged(t, l.ns, "app", "failed to get secret")
	start()
	back := time.Now()
	w.logged(t, l.ns, "app", fmt.Sprintf("successfully got secret %q", l.secret))
	t.Logf("the application has recovered %v after the server was ready", time.Since(back).Round(time.Millisecond))
	for _, p := range w.pods(t, l.ns, "") {
		if p.Status.Phase != "Running" || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s is %s and was restarted %d times", p.Metadata.Name, p.Status.Phase, p.Status.ContainerStatuses[0].RestartCount)
		}
	}
}

// TestClockSkew presents tokens of a cluster whose clock is minutes away from
// the token service's. Machines have one real-time clock, which no namespace
// changes: so the tokens are signed with the cluster's own key for the times
// that its API server would have written with such a clock. Five minutes are
// allowed, as everywhere in Azure's services.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	l := w.workload(t, "clock-skew", setup{})
	authority := w.authority(t)
	const hour = 60
	for _, c := range []struct {
		what        string
		from, until int // minutes from now
		refused     bool
	}{
		{"cluster 4 minutes ahead", 4, hour + 4, false},
		{"cluster 10 minutes ahead", 10, hour + 10, true},
		{"cluster 4 minutes behind, token at its end", -hour - 4, -4, false},
		{"cluster 10 minutes behind, token at its end", -hour - 10, -10, true},
	} {
		now := time.Now()
		at := func(minutes int) int64 { return now.Add(time.Duration(minutes) * time.Minute).Unix() }
		token, err := w.Sign(map[string]any{
			"sub": "system:serviceaccount:" + l.ns + ":app", "aud": []string{"api://AzureADTokenExchange"},
			"iat": at(c.from), "nbf": at(c.from), "exp": at(c.until),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = w.exchange(t.Context(), authority, l, token)
		switch {
		case !c.refused && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.refused && (err == nil || !strings.Contains(err.Error(), "AADSTS700024")):
			t.Errorf("%s: %v, want AADSTS700024", c.what, err)
		}
	}
}

// keyOf is the id of the key that signed a token.
func keyOf(token string) string {
	head, _, _ := strings.Cut(token, ".")
	b, _ := base64.RawURLEncoding.DecodeString(head)
	var header struct{ Kid string }
	_ = json.Unmarshal(b, &header)
	return header.Kid
}

// renewed waits until the tokens of all pods are by a key.
func (x *world) renewed(t *testing.T, key string) {
	t.Helper()
	eventually(t, "all pods have tokens by the key "+key, func() (bool, string) {
		all, err := x.PodTokens(0)
		if err != nil {
			return false, err.Error()
		}
		for name, token := range all {
			if keyOf(token) != key {
				return false, name
			}
		}
		return len(all) > 0, "no tokens"
	})
}

// TestKeysAndTokenFilesRotate takes a cluster through the rotation of the key
// that signs its service accounts' tokens, from "both published" to "the old
// one gone", with an application that exchanges what is in its token file all
// the time. No exchange fails. Afterwards the old key counts no more: not for
// the token that the application had at first, so it lives on only because
// its file was replaced and read again.
//
// Waiting for a token's end would prove no more and take too long: the
// shortest that the API server issues lives 10 minutes, the webhook's an hour,
// and SDKs read the file again after 10 minutes by their own clock. A key's
// end makes old tokens as worthless as their own, and a kubelet that was
// restarted replaces the files at once. The proxy, which reads the file for
// each exchange, stands for the application that ran all the while.
func TestKeysAndTokenFilesRotate(t *testing.T) {
	l := w.workload(t, "rotation", setup{})
	w.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: rotation, labels: {azure.workload.identity/use: "true"}, annotations: {azure.workload.identity/inject-proxy-sidecar: "true"}}
spec:
  serviceAccountName: app
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: `+busyboxRef+`, imagePullPolicy: Never, command: [sh, -c, "while true; do sleep 30; done"]}]
`)
	w.must(t, "kubectl --kubeconfig "+w.Kubeconfig()+" wait --for=condition=Ready pod/app -n rotation --timeout=60s")
	uid := w.pods(t, l.ns, "")[0].Metadata.UID
	file := func() string {
		all, err := w.PodTokens(0)
		if err != nil {
			t.Error(err)
		}
		for name, token := range all {
			if strings.Contains(name, uid) && strings.HasSuffix(name, "/azure-identity-token") {
				return token
			}
		}
		t.Error("the pod has no token file")
		return ""
	}
	// A token of the proxy for a resource that it has none for yet.
	viaProxy := func(resource string) {
		eventually(t, "the proxy gives a token for "+resource, func() (bool, string) {
			out, err := w.Kubectl(t.Context(), "", "-n", l.ns, "exec", "app", "-c", "app", "--",
				"wget", "-q", "-O", "-", "--header", "Metadata: true", "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+resource)
			return strings.Contains(out, `"access_token"`), fmt.Sprint(err) // 503 is for trying again
		})
	}
	authority := w.authority(t)
	first := file()
	viaProxy("https://vault.azure.net")

	ctx, cancel := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	exchanged, refused := map[string]int{}, map[string]error{} // by key
	loop.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			token := file()
			if err := w.exchange(ctx, authority, l, token); err == nil {
				exchanged[keyOf(token)]++
			} else if ctx.Err() == nil {
				refused[keyOf(token)] = err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	defer loop.Wait()
	defer cancel()

	start := time.Now()
	step := func(what string, do func(context.Context) error) {
		t.Helper()
		if err := do(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%5.1f s: %s", time.Since(start).Seconds(), what)
	}
	push := func(context.Context) error {
		w.must(t, "podkey cluster push-keys -g "+group+" -n "+cluster+" --kubeconfig "+w.Kubeconfig())
		return nil
	}
	step("the API server publishes a second key", w.PublishKey)
	step("both are pushed", push)
	step("the API server signs with the second", w.SignWithNewest)
	key, err := w.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if keyOf(first) == key {
		t.Fatal("the first token was signed with the second key")
	}
	fresh := strings.TrimSpace(w.must(t, "kubectl --kubeconfig "+w.Kubeconfig()+" create token app -n rotation --audience api://AzureADTokenExchange"))
	if keyOf(fresh) != key {
		t.Errorf("the API server signs with %s, want %s", keyOf(fresh), key)
	}
	for what, token := range map[string]string{"new": fresh, "old": first} {
		if err := w.exchange(t.Context(), authority, l, token); err != nil {
			t.Errorf("while both keys count, the exchange of a token by the %s one: %v", what, err)
		}
	}
	step("the kubelet is restarted", func(context.Context) error { return w.RestartKubelet(0) })
	w.renewed(t, key)
	step("all pods have tokens by the second key", func(context.Context) error { return nil })
	step("the API server has forgotten the first key", w.RetireKeys)
	step("the second is pushed alone", push)

	if err := w.exchange(t.Context(), authority, l, first); err == nil || !strings.Contains(err.Error(), "AADSTS") {
		t.Errorf("the exchange of a token by the first key ends with %v, want a refusal", err)
	} else {
		t.Logf("the first token now: %v", err)
	}
	viaProxy("https://management.azure.com/")
	cancel()
	loop.Wait()
	t.Logf("exchanges by key: %v", exchanged)
	for key, err := range refused {
		t.Errorf("exchange of a token by key %s: %v", key, err)
	}
	if exchanged[keyOf(first)] == 0 || exchanged[key] == 0 {
		t.Errorf("exchanges by key: %v, want some by each of %s and %s", exchanged, keyOf(first), key)
	}
	// The webhook has followed: it can ask for an account that it does not know.
	late := w.workload(t, "rotated", setup{})
	for range 4 { // of two replicas
		if a := w.attempt(t.Context(), late); a.err != nil || a.bare {
			t.Errorf("a new account's pod after the rotation: %v, without its identity: %t", a.err, a.bare)
		}
	}
}
