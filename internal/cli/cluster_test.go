package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/bootstrap"
	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server"
)

// apiServer is what `podkey cluster` asks of a Kubernetes API server: two
// documents and a version. It stands in for a real one, which needs root and
// minutes to start; the end-to-end suite has the real one.
type apiServer struct {
	*httptest.Server
	mu     sync.Mutex
	issuer string
	keys   jose.JSONWebKeySet
	asked  int
}

// clusterToken is the credential in the kubeconfig; nothing may print it.
const clusterToken = "hunter2-opens-the-cluster"

func newAPIServer(t *testing.T, issuer string) *apiServer {
	t.Helper()
	a := &apiServer{issuer: issuer}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked++
		var out any
		switch {
		case r.Header.Get("Authorization") != "Bearer "+clusterToken:
			w.WriteHeader(http.StatusUnauthorized)
			return
		case r.URL.Path == "/.well-known/openid-configuration":
			out = map[string]any{"issuer": a.issuer, "jwks_uri": "https://10.9.9.9/openid/v1/jwks"}
		case r.URL.Path == "/openid/v1/jwks":
			out = a.keys
		case r.URL.Path == "/version":
			out = map[string]string{"gitVersion": "v1.33.1"}
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(a.Close)
	return a
}

// publish makes the cluster publish some keys, by name.
func (a *apiServer) publish(keys map[string]*rsa.PrivateKey, names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys.Keys = nil
	for _, n := range names {
		a.keys.Keys = append(a.keys.Keys, jose.JSONWebKey{Key: keys[n].Public(), KeyID: n, Algorithm: "RS256", Use: "sig"})
	}
}

// count is how often the cluster was asked for anything.
func (a *apiServer) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// kubeconfig writes a kubeconfig for the cluster, its CA in a file beside it.
func (a *apiServer) kubeconfig(t *testing.T, user string) string {
	t.Helper()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	text := "apiVersion: v1\nkind: Config\ncurrent-context: main\ncontexts:\n- {name: main, context: {cluster: c, user: u}}\n- {name: broken, context: {cluster: none, user: u}}\n" +
		"clusters:\n- {name: c, cluster: {server: '" + a.URL + "', certificate-authority: ca.pem}}\nusers:\n- {name: u, user: {" + user + "}}\n"
	for name, b := range map[string][]byte{"ca.pem": ca, "config": []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config")
}

// clusterRig is a server with the command line beside it.
type clusterRig struct {
	t    *testing.T
	data string
	api  *client.Client
	keys map[string]*rsa.PrivateKey
	out  bytes.Buffer // everything that was printed
}

func newClusterRig(t *testing.T) *clusterRig {
	t.Helper()
	r := &clusterRig{t: t, data: t.TempDir(), keys: map[string]*rsa.PrivateKey{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := server.New(ctx, server.Config{Data: r.data, Listen: "127.0.0.1:0"}, server.Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	if r.api, err = client.Open(r.data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.HTTP.CloseIdleConnections)
	for _, name := range []string{"one", "two"} {
		if r.keys[name], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// podkey runs a command and returns its exit status and output.
func (r *clusterRig) podkey(args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	var out, errs bytes.Buffer
	code = Run(r.t.Context(), append(args, "--data", r.data), IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	r.out.Write(out.Bytes())
	r.out.Write(errs.Bytes())
	return code, out.String(), errs.String()
}

func (r *clusterRig) must(args ...string) string {
	r.t.Helper()
	code, out, errs := r.podkey(args...)
	if code != 0 {
		r.t.Fatalf("podkey %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// fails runs a command that must fail and say something.
func (r *clusterRig) fails(says string, args ...string) {
	r.t.Helper()
	code, out, errs := r.podkey(args...)
	if code == 0 || !strings.Contains(errs, says) {
		r.t.Errorf("podkey %s: %d, want a failure that says %q\n%s%s", strings.Join(args, " "), code, says, out, errs)
	}
}

// exchange presents a token of the cluster's service account, signed by a
// key, at the token endpoint, and returns the status and the error code.
func (r *clusterRig) exchange(clientID, issuer, key string) (status, code int) {
	r.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: r.keys[key], KeyID: key}}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": issuer, "sub": "system:serviceaccount:shop:web", "aud": []string{"api://AzureADTokenExchange"},
		"iat": now, "nbf": now, "exp": now + 600,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		r.t.Fatal(err)
	}
	assertion, err := signed.CompactSerialize()
	if err != nil {
		r.t.Fatal(err)
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}
	resp, err := r.api.HTTP.PostForm(r.api.Operator.Endpoints.Login+"/"+r.api.Operator.TenantID+"/oauth2/v2.0/token", form)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Codes []int `json:"error_codes"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		r.t.Fatal(err)
	}
	if len(answer.Codes) > 0 {
		code = answer.Codes[0]
	}
	return resp.StatusCode, code
}

// testIssuer is at an address that nothing is ever fetched from, so that the
// tests ask no network once the keys are not pinned any more.
const testIssuer = "https://10.11.12.13/clusters/shop/"

// declared makes an identity that trusts the cluster's service account, and
// returns its client id.
func (r *clusterRig) declared() string {
	r.t.Helper()
	f, err := bootstrap.Parse([]byte(`
identities:
  - name: web
    resourceGroup: shop
    federatedCredentials:
      - {name: web, issuer: '` + testIssuer + `', subject: 'system:serviceaccount:shop:web'}
`))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := bootstrap.Apply(r.t.Context(), r.api, f, func(bootstrap.Step) {}); err != nil {
		r.t.Fatal(err)
	}
	ids, err := r.api.Identities(r.t.Context())
	if err != nil || len(ids) != 1 {
		r.t.Fatal(err)
	}
	return ids[0].Properties.ClientID
}

func TestTokensOfARegisteredClusterCount(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	app := r.declared()
	cluster := newAPIServer(t, testIssuer)
	cluster.publish(r.keys, "one")
	config := cluster.kubeconfig(t, "token: "+clusterToken)
	named := []string{"-g", "shop", "-n", "shop-cluster"}
	cmd := func(verb string, more ...string) []string {
		return append(append([]string{"cluster", verb}, named...), more...)
	}
	expect := func(when, issuer, key string, status, code int) {
		t.Helper()
		if s, c := r.exchange(app, issuer, key); s != status || c != code {
			t.Errorf("%s, a token of %s by key %s: %d %d, want %d %d", when, issuer, key, s, c, status, code)
		}
	}
	expect("before", testIssuer, "one", 400, 90061)

	out := r.must(cmd("register", "--kubeconfig", config)...)
	for _, part := range []string{testIssuer, "pinned: one", "1.33.1", "az aks get-credentials -g shop -n shop-cluster", "--enable-workload-identity"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in:\n%s", part, out)
		}
	}
	expect("registered", testIssuer, "one", 200, 0)
	expect("registered", strings.TrimSuffix(testIssuer, "/"), "one", 401, 700211)
	expect("registered", testIssuer, "two", 401, 7000272)

	// Rotation: both keys, then the new one.
	cluster.publish(r.keys, "one", "two")
	expect("published, not pushed", testIssuer, "two", 401, 7000272)
	if out := r.must(cmd("push-keys", "--kubeconfig", config)...); !strings.Contains(out, "pinned: one, two") {
		t.Errorf("push-keys: %s", out)
	}
	expect("both pushed", testIssuer, "one", 200, 0)
	expect("both pushed", testIssuer, "two", 200, 0)
	cluster.publish(r.keys, "two")
	r.must(cmd("push-keys", "--kubeconfig", config)...)
	expect("the old one gone", testIssuer, "one", 401, 7000272)
	expect("the old one gone", testIssuer, "two", 200, 0)

	var listed []client.Cluster
	if err := json.Unmarshal([]byte(r.must("cluster", "list", "-o", "json")), &listed); err != nil || len(listed) != 1 || listed[0].Issuer() != testIssuer || listed[0].Group() != "shop" {
		t.Errorf("list: %v %+v", err, listed)
	}
	if out := r.must("cluster", "list"); !strings.Contains(out, testIssuer) || !strings.Contains(out, "Pinned") {
		t.Errorf("list: %s", out)
	}
	if out := r.must(cmd("show")...); !strings.Contains(out, "pinned: two") {
		t.Errorf("show: %s", out)
	}
	if err := r.api.Manage(t.Context(), "PUT", listed[0].ID+"?api-version="+client.VersionClusters, map[string]any{
		"location": "westeurope", "properties": map[string]any{"securityProfile": map[string]any{"workloadIdentity": map[string]any{"enabled": true}}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	if out := r.must(cmd("show")...); !strings.Contains(out, "to be installed    workload-identity-webhook") {
		t.Errorf("show: %s", out)
	}
	r.fails("only its own API server issues", "run", "--cluster", "shop-cluster", "-n", "shop", "--service-account", "web", "--data", r.data, "--", "true")

	r.must(cmd("unregister")...)
	expect("unregistered", testIssuer, "two", 400, 90061)
	r.fails("was not found", cmd("show")...)
	r.fails("was not found", cmd("unregister")...)
	if strings.Contains(r.out.String(), clusterToken) {
		t.Error("the cluster's token was printed")
	}
}

func TestWaysToRegister(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	app := r.declared()
	cluster := newAPIServer(t, testIssuer)
	cluster.publish(r.keys, "one")
	config := cluster.kubeconfig(t, "token: "+clusterToken)
	register := func(name string, more ...string) []string {
		return append([]string{"cluster", "register", "-g", "shop", "-n", name, "--kubeconfig", config}, more...)
	}

	r.fails("to the last slash", register("a", "--issuer", strings.TrimSuffix(testIssuer, "/"))...)
	r.fails("--jwks needs --issuer", register("a", "--jwks", config)...)
	r.fails("none of the others can be", register("a", "--fetch", "--pin")...)
	r.fails("cannot be a name", "cluster", "register", "-g", "..", "-n", "a", "--kubeconfig", config)
	r.fails("cannot be a name", "cluster", "show", "-g", "shop", "-n", "a/../b")
	r.fails("az group create", "cluster", "register", "-g", "none", "-n", "a", "--kubeconfig", config)
	r.fails(`there is no context "nowhere"`, register("a", "--context", "nowhere")...)
	r.fails("there is no cluster", register("a", "--context", "broken")...)
	r.fails("is not available", register("a", "--location", "nowhere")...)
	r.fails("unknown output format", register("a", "-o", "yaml")...)

	// Fetched: the server verifies by what the issuer publishes; this one is at an address that it does not ask.
	if out := r.must(register("fetched", "--fetch")...); !strings.Contains(out, "fetched by the server") {
		t.Errorf("%s", out)
	}
	if s, c := r.exchange(app, testIssuer, "one"); s != 400 || c != 90061 {
		t.Errorf("fetched: %d %d", s, c)
	}
	r.fails("KeysAreFetched", "cluster", "push-keys", "-g", "shop", "-n", "fetched", "--kubeconfig", config)
	r.fails("IssuerInUse", register("another")...)
	r.must("cluster", "unregister", "-g", "shop", "-n", "fetched")

	// Out of reach: issuer and keys by hand.
	keys := filepath.Join(t.TempDir(), "jwks.json")
	cluster.mu.Lock()
	raw, err := json.Marshal(cluster.keys)
	cluster.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := cluster.count()
	r.must(register("byhand", "--issuer", testIssuer, "--jwks", keys, "-o", "json")...)
	if s, c := r.exchange(app, testIssuer, "one"); s != 200 {
		t.Errorf("by hand: %d %d", s, c)
	}
	r.must("cluster", "push-keys", "-g", "shop", "-n", "byhand", "--jwks", keys)
	if cluster.count() != asked {
		t.Error("the cluster was asked")
	}
	cluster.mu.Lock()
	cluster.issuer = "https://10.11.12.13/other/"
	cluster.mu.Unlock()
	r.fails("the registered one", "cluster", "push-keys", "-g", "shop", "-n", "byhand", "--kubeconfig", config)

	if strings.Contains(r.out.String(), clusterToken) {
		t.Error("the cluster's token was printed")
	}
}

func TestKubeconfigsThatRunAProgram(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t)
	r.declared()
	cluster := newAPIServer(t, testIssuer)
	cluster.publish(r.keys, "one")
	plugin := filepath.Join(t.TempDir(), "plugin")
	ran := plugin + ".ran"
	script := "touch " + ran + "\ncase \"$KUBERNETES_EXEC_INFO\" in *ExecCredential*) ;; *) exit 1;; esac\n" +
		`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"` + clusterToken + `"}}'` + "\n"
	if err := os.WriteFile(plugin, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	config := cluster.kubeconfig(t, "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['"+plugin+"'], interactiveMode: Never}")
	args := []string{"cluster", "register", "-g", "shop", "-n", "c", "--kubeconfig", config}
	r.fails("--allow-exec", args...)
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program was run")
	}
	r.must(append(args, "--allow-exec")...)
	if _, err := os.Stat(ran); err != nil {
		t.Error("the program was not run")
	}
	if strings.Contains(r.out.String(), clusterToken) {
		t.Error("the cluster's token was printed")
	}
}
