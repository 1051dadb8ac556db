package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/install/installtest"
)

// kubeconfigOf writes the kubeconfig of an API server to a file.
func kubeconfigOf(t *testing.T, k *installtest.Cluster) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(k.Kubeconfig("", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestInstallAndUninstall(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	k := installtest.New(t)
	config := kubeconfigOf(t, k)
	const deployment = "/apis/apps/v1/namespaces/keys/deployments/podkey-webhook"
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte("webhook: {replicas: 3}\nimage: {tag: from-file, repository: registry.example/podkey}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--namespace", "keys", "-f", values, "--set", "image.tag=1.0"}

	// Printed: what an installation applies, and the server's own authority.
	printed := r.must(append([]string{"install", "--print"}, flags...)...)
	for _, part := range []string{"image: registry.example/podkey:1.0", "replicas: 3", r.api.Operator.TenantID, "--authority-host=" + r.api.Operator.Endpoints.Login + "/", "--own-names", "BEGIN CERTIFICATE"} {
		if !strings.Contains(printed, part) {
			t.Errorf("no %q in the manifests", part)
		}
	}
	if len(k.Calls()) > 0 {
		t.Error("printing asked the cluster")
	}
	code, out, errs := r.podkey(append([]string{"install", "--kubeconfig", config}, flags...)...)
	if code != 0 || out != "" || !strings.Contains(errs, "Deployment keys/podkey-webhook: created\n") || !strings.Contains(errs, "for a pod, login.podkey.localhost is the pod itself") {
		t.Fatalf("%d\n%s%s", code, out, errs)
	}
	d, err := json.Marshal(k.Get(deployment))
	if err != nil || !strings.Contains(string(d), "registry.example/podkey:1.0") {
		t.Errorf("%v %s", err, d)
	}
	if n := len(strings.Split(printed, "\n---\n")); n != len(k.Paths()) {
		t.Errorf("%d objects were printed, there are %v", n, k.Paths())
	}

	uninstall := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := Run(t.Context(), append([]string{"uninstall", "--kubeconfig", config}, args...), IO{In: strings.NewReader(""), Out: &out, Err: &errs})
		return code, out.String(), errs.String()
	}
	if code, _, errs := uninstall(); code != 1 || !strings.Contains(errs, `served from the namespace "keys"`) {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := uninstall("--namespace", "keys"); code != 0 || len(k.Paths()) > 0 || !strings.Contains(errs, "Namespace keys: removed") {
		t.Errorf("%d %s; left: %v", code, errs, k.Paths())
	}
	if strings.Contains(r.out.String(), installtest.Token) {
		t.Error("the cluster's token was printed")
	}
}

func TestInstallSaysWhatToType(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	k := installtest.New(t)
	config := kubeconfigOf(t, k)
	r.fails("--azure needs --tenant", "install", "--azure", "--print")
	r.fails("webhook.replica", "install", "--print", "--set", "webhook.replica=1")
	r.fails("must be NAME=VALUE", "install", "--print", "--set", "webhook")
	r.fails("no such file", "install", "--print", "-f", config+".none")
	r.fails("no such file", "install", "--kubeconfig", config+".none")
	r.fails("--print", "install", "--kubeconfig", config+".none")
	k.Before = func(w http.ResponseWriter, _ *http.Request) bool {
		installtest.Refuse(w, 403, "Forbidden", "namespaces is forbidden")
		return true
	}
	r.fails("such as an administrator's", "install", "--kubeconfig", config)
	none := t.TempDir()
	var errs bytes.Buffer
	if code := Run(t.Context(), []string{"install", "--print", "--data", none}, IO{In: strings.NewReader(""), Out: io.Discard, Err: &errs}); code != 1 || !strings.Contains(errs.String(), "podkey install --azure --tenant ID") {
		t.Errorf("%d %s", code, errs.String())
	}
	var out bytes.Buffer
	if code := Run(t.Context(), []string{"install", "--print", "--data", none, "--azure", "--tenant", "8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01"}, IO{In: strings.NewReader(""), Out: &out, Err: &errs}); code != 0 {
		t.Fatalf("%d %s", code, errs.String())
	}
	if !strings.Contains(out.String(), "--authority-host=https://login.microsoftonline.com/\n") || strings.Contains(out.String(), "own-names") {
		t.Errorf("%s", out.String())
	}
	if docs := strings.Split(out.String(), "---\n"); len(docs) < 10 {
		t.Errorf("%d documents", len(docs))
	} else if v, err := chart.ParseValues([]byte(docs[0])); err != nil || v["kind"] != "Namespace" {
		t.Errorf("%v %v", err, v)
	}
}

// TestPushKeysFollowsARotation: with --watch no token is refused, whichever
// key signed it, once a cluster publishes both.
func TestPushKeysFollowsARotation(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	app := r.declared()
	cluster := newAPIServer(t, testIssuer)
	cluster.publish(r.keys, "one")
	config := cluster.kubeconfig(t, "token: "+clusterToken)
	r.must("cluster", "register", "-g", "shop", "-n", "c", "--kubeconfig", config)

	ctx, stop := context.WithCancel(t.Context())
	talk := &lines{ch: make(chan string, 100)}
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, []string{"cluster", "push-keys", "-g", "shop", "-n", "c", "--kubeconfig", config, "--watch", "--interval", "5ms", "--keep", "10ms", "--data", r.data},
			IO{In: strings.NewReader(""), Out: io.Discard, Err: talk})
	}()
	talk.wait(t, "pushed the keys of c: one (before: not known)")
	if s, _ := r.exchange(app, testIssuer, "one"); s != 200 {
		t.Errorf("before: %d", s)
	}
	cluster.publish(r.keys, "one", "two")
	talk.wait(t, "pushed the keys of c: one, two (before: one)")
	for _, key := range []string{"one", "two"} {
		if s, c := r.exchange(app, testIssuer, key); s != 200 {
			t.Errorf("both published, a token by %s: %d %d", key, s, c)
		}
	}
	// The API server is away meanwhile: it says so and goes on.
	cluster.mu.Lock()
	cluster.issuer = ""
	cluster.mu.Unlock()
	talk.wait(t, "next time maybe")
	cluster.mu.Lock()
	cluster.issuer = testIssuer
	cluster.mu.Unlock()
	cluster.publish(r.keys, "two")
	talk.wait(t, "pushed the keys of c: two (before: one, two)")
	if s, _ := r.exchange(app, testIssuer, "one"); s != 401 {
		t.Errorf("the old one: %d", s)
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("stopped: %d", code)
	}
	if strings.Contains(talk.all(), clusterToken) {
		t.Error("the token was printed")
	}
}

// lines is standard error, line by line.
type lines struct {
	ch  chan string
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.buf.Write(p)
	l.ch <- string(p)
	return len(p), nil
}

// all is for when nobody writes any more.
func (l *lines) all() string { return l.buf.String() }

func (l *lines) wait(t *testing.T, says string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case s := <-l.ch:
			if strings.Contains(s, says) {
				return
			}
		case <-timeout:
			t.Fatalf("it does not say %q", says)
		}
	}
}

// TestKeysOfServersThatChangeOneByOne: of several API servers behind one
// address some publish the new key already and others not yet.
func TestKeysOfServersThatChangeOneByOne(t *testing.T) {
	t.Parallel()
	seen := keysSeen{}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	const keep = 5 * time.Minute
	for i, step := range []struct {
		publish, want string
		after         time.Duration
	}{
		{`{"kid":"a"}`, "a", 0},
		{`{"kid":"a"},{"kid":"b"}`, "a, b", time.Minute},
		{`{"kid":"a"}`, "a, b", time.Minute},
		{`{"kid":"a"},{"kid":"b"}`, "a, b", 4 * time.Minute},
		{`{"kid":"b"}`, "a, b", 4 * time.Minute},
		{`{"kid":"b"}`, "b", time.Minute},
		{`{"kid":"b"}`, "b", 24 * time.Hour}, // asleep meanwhile
	} {
		now = now.Add(step.after)
		if err := seen.see(json.RawMessage(`{"keys":[`+step.publish+`]}`), now, keep); err != nil || seen.names() != step.want {
			t.Errorf("step %d: %v, %s, want %s", i, err, seen.names(), step.want)
		}
	}
	for _, bad := range []string{`[]`, `{"keys":[{}]}`, `{"keys":[1]}`, `{`} {
		if err := seen.see(json.RawMessage(bad), now, keep); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if got := string(seen.set()); got != `{"keys":[{"kid":"b"}]}` {
		t.Errorf("set: %s", got)
	}
}

// TestPushKeysAsAWorkload: from inside a cluster, with its service account's
// token for both sides.
func TestPushKeysAsAWorkload(t *testing.T) {
	r := newClusterRig(t)
	r.declared()
	op := r.api.Operator
	cluster := newAPIServer(t, testIssuer)
	cluster.publish(r.keys, "one")
	config := cluster.kubeconfig(t, "token: "+clusterToken)
	r.must("cluster", "register", "-g", "shop", "-n", "c", "--kubeconfig", config)

	env := map[string]string{"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": op.TenantID, "AZURE_FEDERATED_TOKEN_FILE": "/none", "AZURE_AUTHORITY_HOST": op.Endpoints.Login + "/"}
	c, err := workloadClient(op.SubscriptionID, func(n string) string { return env[n] })
	if err != nil {
		t.Fatal(err)
	}
	if c.Operator.Endpoints.Management != op.Endpoints.Management || c.Operator.Endpoints.Login != op.Endpoints.Login {
		t.Errorf("endpoints: %+v", c.Operator.Endpoints)
	}
	env["AZURE_AUTHORITY_HOST"] = "https://login.microsoftonline.com/"
	if c, err := workloadClient("s", func(n string) string { return env[n] }); err != nil || c.Operator.Endpoints.Management != "https://management.azure.com" {
		t.Errorf("Azure's names: %v", err)
	}
	for name, value := range map[string]string{"AZURE_CLIENT_ID": "", "AZURE_AUTHORITY_HOST": "https://sts.example/", "AZURE_FEDERATED_TOKEN_FILE": ""} {
		if _, err := workloadClient("s", func(n string) string {
			if n == name {
				return value
			}
			return env[n]
		}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%q: %v", name, value, err)
		}
	}

	// A token of the built-in cluster stands for the pod's.
	var identity client.Identity
	group := "/subscriptions/" + op.SubscriptionID + "/resourceGroups/shop"
	path := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pusher"
	if err := r.api.Manage(t.Context(), "PUT", path+"?api-version=2023-01-31", map[string]any{"location": "westeurope"}, &identity); err != nil {
		t.Fatal(err)
	}
	if err := r.api.Manage(t.Context(), "PUT", path+"/federatedIdentityCredentials/pod?api-version=2023-01-31", map[string]any{"properties": map[string]any{
		"issuer": r.api.Issuer("local"), "subject": "system:serviceaccount:podkey-system:pusher", "audiences": []string{exchangeAudience},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := r.api.ServiceAccountToken(t.Context(), "local", "podkey-system", "pusher", exchangeAudience, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w := r.api.As(client.Operator{TenantID: op.TenantID, SubscriptionID: op.SubscriptionID, ClientID: identity.Properties.ClientID, Endpoints: op.Endpoints, Listen: op.Listen})
	w.Assertion = func() (string, error) { return token, nil }

	// The pod reaches its API server by its own token.
	dir := t.TempDir()
	host := strings.TrimPrefix(cluster.URL, "https://")
	ca, err := os.ReadFile(filepath.Join(filepath.Dir(config), "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"token": []byte(clusterToken + "\n"), "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pod := map[string]string{"KUBERNETES_SERVICE_HOST": host[:strings.LastIndexByte(host, ':')], "KUBERNETES_SERVICE_PORT": host[strings.LastIndexByte(host, ':')+1:]}
	access, err := podAccess(func(n string) string { return pod[n] }, dir)
	if err != nil {
		t.Fatal(err)
	}
	cluster.publish(r.keys, "one", "two")
	found, err := access.AskIssuer(t.Context())
	if err != nil || found.URL != testIssuer {
		t.Fatal(err, found.URL)
	}
	p := pushing{clusterFlags: clusterFlags{group: "shop", name: "c"}}
	if _, err := p.push(t.Context(), w, found.JWKS); !client.IsCode(err, "AuthorizationFailed") {
		t.Fatalf("without a role: %v", err)
	}
	owner, err := r.api.RoleNamed(t.Context(), group, "Owner")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.api.AssignRole(t.Context(), group, owner, identity.Properties.PrincipalID, "ServicePrincipal"); err != nil {
		t.Fatal(err)
	}
	out, err := p.push(t.Context(), w, found.JWKS)
	if err != nil || strings.Join(out.Properties.Podkey.KeyIDs, " ") != "one two" {
		t.Errorf("%v %v", err, out.Properties.Podkey.KeyIDs)
	}
	if _, err := podAccess(func(string) string { return "" }, dir); err == nil || !strings.Contains(err.Error(), "not a pod") {
		t.Errorf("err = %v", err)
	}
}
