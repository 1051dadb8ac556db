package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// clock is the certificates' time, which a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) forward(d time.Duration) { c.offset.Add(int64(d)) }

// testRules answer with what they found, and do as the review says.
type testRules struct {
	hold chan struct{} // reviews wait for it if it is not nil
	held chan struct{} // and say here that they do
}

type testReview struct {
	UID, Namespace, Account, Do string
}

func (r *testRules) Mutate(ctx context.Context, review []byte, lookup LookupFunc) ([]byte, Outcome) {
	var in testReview
	if err := json.Unmarshal(review, &in); err != nil {
		return nil, Outcome{Result: "unreadable"}
	}
	o := Outcome{Result: "mutated", UID: in.UID, Kind: "Pod", Namespace: in.Namespace, Account: in.Account}
	out := map[string]string{"uid": in.UID}
	switch in.Do {
	case "panic":
		panic("boom")
	case "hold":
		r.held <- struct{}{}
		<-r.hold
		return []byte(`{"held":"yes"}`), o
	}
	sa, err := lookup(ctx, in.Namespace, in.Account)
	switch {
	case errors.Is(err, ErrNoAccount):
		out["error"], out["missing"] = err.Error(), "yes"
		o.Result, o.Reason, o.Message = "denied", "AdmissionDenied", err.Error()
		o.Owner = &Object{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: in.Namespace, Name: "rs", UID: "u"}
	case err != nil:
		out["error"] = err.Error()
	default:
		for k, v := range sa.Annotations {
			out[k] = v
		}
		if sa.Annotations["azure.workload.identity/client-id"] == "" {
			o.Reason, o.Message = "ClientIDMissing", "add the annotation"
		}
	}
	o.DryRun = in.Do == "dry"
	b, _ := json.Marshal(out)
	return b, o
}

func (r *testRules) Advise(context.Context, []byte, LookupFunc) ([]byte, Outcome) {
	return []byte(`{"advice":"none"}`), Outcome{Result: "silent"}
}

// replica is a running server.
type replica struct {
	*Server
	t     testing.TB
	rules *testRules
	logs  *syncBuffer
	end   context.CancelFunc
	ended chan error

	mu     sync.Mutex
	looked chan struct{}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t testing.TB, api *apiServer, c *clock, edit ...func(*Config)) *replica {
	t.Helper()
	r := &replica{
		t: t, rules: &testRules{hold: make(chan struct{}), held: make(chan struct{}, 100)}, logs: &syncBuffer{},
		ended: make(chan error, 1), looked: make(chan struct{}),
	}
	config := Config{
		Kube: api.config(), Log: slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Rules:     func(string, string) Rules { return r.rules },
		Namespace: testNamespace, Service: testName, Secret: "podkey-webhook-cert", Configuration: testName,
		Listen: "127.0.0.1:0", HealthListen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0", Now: c.now,
	}
	for _, e := range edit {
		e(&config)
	}
	var err error
	if r.Server, err = New(config); err != nil {
		t.Fatal(err)
	}
	r.ready.ttl = 0
	r.keeper.observe = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		close(r.looked)
		r.looked = make(chan struct{})
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		r.ended <- nil
	})
	return r
}

// stop ends the replica and waits for it.
func (r *replica) stop() error {
	r.end()
	err := <-r.ended
	r.ended <- nil
	return err
}

func (r *replica) nextLook() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.looked
}

// problem is what readiness complains of, empty if nothing.
func (r *replica) problem() string {
	var out []string
	for _, c := range r.ready.checks() {
		if c.err != nil {
			out = append(out, c.name+": "+c.err.Error())
		}
	}
	return strings.Join(out, "\n")
}

func (r *replica) await(what string, ok func() bool) {
	r.t.Helper()
	await(r.t, what, []func() <-chan struct{}{r.nextLook}, ok)
}

// awaitReady waits for everything that a replica needs.
func (r *replica) awaitReady() {
	r.t.Helper()
	<-r.prepared
	<-r.accounts.controller.HasSyncedChecker().Done()
	r.await("readiness", func() bool { return r.problem() == "" })
}

func (r *replica) serial() string {
	c, err := r.keeper.getCertificate(nil)
	if err != nil {
		return ""
	}
	return c.Leaf.SerialNumber.String()
}

// caller calls a replica as the API server does: by the registered CA bundle.
func caller(t testing.TB, api *apiServer, c *clock) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundleIn(api.get(mutatingKey), 0))
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: host, Time: c.now},
	}}
	// A server that ends gives open connections a second to notice.
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func (r *replica) post(client *http.Client, path, body string) (int, string, error) {
	resp, err := client.Post("https://"+r.Addr().String()+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (r *replica) mustPost(client *http.Client, body string) string {
	r.t.Helper()
	code, out, err := r.post(client, MutatePath, body)
	if err != nil || code != http.StatusOK {
		r.t.Fatalf("status %d, %s, %v", code, out, err)
	}
	return out
}

func get(t testing.TB, addr fmt.Stringer, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func installed(t testing.TB) (*apiServer, *clock) {
	api := newAPIServer(t)
	api.put(mutatingKey, configuration())
	api.put(validatingKey, configuration())
	api.put("serviceaccounts/shop/web", object{"metadata": object{
		"annotations": object{"azure.workload.identity/client-id": "id-of-web", "unrelated": "x"},
	}})
	return api, new(clock)
}

func TestReview(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	if got := r.mustPost(client, `{"uid":"1","namespace":"shop","account":"web"}`); !strings.Contains(got, `"azure.workload.identity/client-id":"id-of-web"`) || strings.Contains(got, "unrelated") {
		t.Errorf("the rules did not find the service account's annotation, and only ours: %s", got)
	}
	for _, tt := range []struct {
		name, method, path, contentType, body string
		want                                  int
	}{
		{"advise", "POST", AdvisePath, "application/json", `{}`, 200},
		{"with a charset", "POST", MutatePath, "application/json; charset=utf-8", `{"namespace":"shop","account":"web"}`, 200},
		{"no such path", "POST", "/", "application/json", `{}`, 404},
		{"GET", "GET", MutatePath, "application/json", ``, 405},
		{"not JSON", "POST", MutatePath, "text/plain", `{}`, 415},
		{"no type", "POST", MutatePath, "", `{}`, 415},
		{"no review", "POST", MutatePath, "application/json", `}`, 400},
		{"too large", "POST", MutatePath, "application/json", strings.Repeat(" ", maxReview+1), 413},
		{"panic", "POST", MutatePath, "application/json", `{"do":"panic"}`, 500},
	} {
		req, err := http.NewRequest(tt.method, "https://"+r.Addr().String()+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", tt.contentType)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d: %s", tt.name, resp.StatusCode, tt.want, b)
		}
		if strings.Contains(string(b), "boom") {
			t.Errorf("%s: a panic's text reached the client: %s", tt.name, b)
		}
	}
	if logs := r.logs.String(); !strings.Contains(logs, `"uid":"1"`) || !strings.Contains(logs, `"serviceAccount":"web"`) || !strings.Contains(logs, "boom") {
		t.Errorf("log: %s", logs)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	api, c := installed(t)
	for _, tt := range []struct {
		min, offered uint16
		want         bool
	}{{0, tls.VersionTLS12, false}, {0, tls.VersionTLS13, true}, {tls.VersionTLS12, tls.VersionTLS12, true}} {
		r := start(t, api, c, func(c *Config) { c.MinTLS = tt.min })
		r.awaitReady()
		client := caller(t, api, c)
		client.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tt.offered
		_, _, err := r.post(client, AdvisePath, `{}`)
		if (err == nil) != tt.want {
			t.Errorf("minimum %x, offered %x: %v", tt.min, tt.offered, err)
		}
		client.CloseIdleConnections()
	}
}

// An account that was created a moment ago is not in the cache.
func TestLookupAsksAfterAMiss(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	// The cache is kept from seeing it.
	api.refuse("watch serviceaccounts", http.StatusServiceUnavailable)
	api.refuse("list serviceaccounts", http.StatusServiceUnavailable)
	api.cut()
	api.mu.Lock()
	api.objects["serviceaccounts/shop/new"] = object{"metadata": object{
		"name": "new", "namespace": "shop", "annotations": object{"azure.workload.identity/client-id": "id-of-new"},
	}}
	api.mu.Unlock()
	if got := r.mustPost(client, `{"namespace":"shop","account":"new"}`); !strings.Contains(got, "id-of-new") {
		t.Errorf("a new service account: %s", got)
	}
	if got := r.mustPost(client, `{"namespace":"shop","account":"none"}`); !strings.Contains(got, `serviceaccounts \"none\" not found`) || !strings.Contains(got, "missing") {
		t.Errorf("a missing service account: %s", got)
	}
	if got := r.mustPost(client, `{"namespace":"../x","account":"a/b"}`); !strings.Contains(got, "error") {
		t.Errorf("names that are no names: %s", got)
	}
	if n := api.called("get serviceaccounts"); n != 2 {
		t.Errorf("the API server was asked %d times, want 2", n)
	}
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	if n := api.called("get serviceaccounts"); n != 2 {
		t.Error("the API server was asked for a service account that is in the cache")
	}
	api.refuse("get serviceaccounts", http.StatusInternalServerError)
	if got := r.mustPost(client, `{"namespace":"shop","account":"other"}`); !strings.Contains(got, "error") || strings.Contains(got, "missing") {
		t.Errorf("when the API server fails, an account is not missing: %s", got)
	}
}

func TestRegistration(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	for _, key := range []string{mutatingKey, validatingKey} {
		if len(bundleIn(api.get(key), 0)) == 0 || len(bundleIn(api.get(key), 1)) != 0 {
			t.Errorf("%s: ours %d bytes, theirs %d bytes", key, len(bundleIn(api.get(key), 0)), len(bundleIn(api.get(key), 1)))
		}
	}
	good := bundleIn(api.get(mutatingKey), 0)
	other, err := pki.NewCA("other", c.now())
	if err != nil {
		t.Fatal(err)
	}
	for name, reset := range map[string]func(){
		"emptied":  func() { api.put(mutatingKey, configuration()) },
		"replaced": func() { setBundle(api, mutatingKey, other.CertPEM()) },
		"deleted and created": func() {
			api.remove(mutatingKey)
			r.await("seeing it deleted", func() bool { return r.keeper.mutating.get() == nil })
			if p := r.problem(); p != "" {
				t.Errorf("without a configuration, nobody calls, and readiness says: %s", p)
			}
			api.put(mutatingKey, configuration())
		},
	} {
		reset()
		await(t, name+": repair", []func() <-chan struct{}{api.changes}, func() bool {
			return bytes.Contains(bundleIn(api.get(mutatingKey), 0), good)
		})
		r.await(name+": readiness", func() bool { return r.problem() == "" })
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
}

func setBundle(api *apiServer, key string, pem []byte) {
	api.change(key, func(o object) {
		o["webhooks"].([]any)[0].(object)["clientConfig"].(object)["caBundle"] = base64.StdEncoding.EncodeToString(pem)
	})
}

func TestReadinessTellsWhatIsWrong(t *testing.T) {
	api := newAPIServer(t)
	c := new(clock)
	// Nothing may be written, so nothing is repaired.
	api.refuse("update mutatingwebhookconfigurations", http.StatusForbidden)
	api.refuse("update validatingwebhookconfigurations", http.StatusForbidden)
	r := start(t, api, c)
	<-r.prepared
	<-r.accounts.controller.HasSyncedChecker().Done()
	r.await("a certificate", func() bool { return r.serial() != "" })

	expect := func(what string) {
		t.Helper()
		r.await("the complaint: "+what, func() bool { return strings.Contains(r.problem(), what) })
		code, body := get(t, r.HealthAddr(), "/readyz")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] registration: ") || !strings.Contains(body, what) {
			t.Errorf("status %d: %s", code, body)
		}
	}
	expect("MutatingWebhookConfiguration podkey-webhook does not exist")
	api.put(mutatingKey, object{"webhooks": []any{hook("theirs.example", "theirs")}})
	expect("has no webhook that calls service podkey-webhook in namespace podkey-system")
	api.put(mutatingKey, configuration())
	expect("webhook mutation.azure-workload-identity.io: its caBundle is empty")
	other, err := pki.NewCA("other", c.now())
	if err != nil {
		t.Fatal(err)
	}
	setBundle(api, mutatingKey, other.CertPEM())
	expect("its caBundle does not accept the certificate that is served")
	expect("refused by the test") // why it is not repaired

	setBundle(api, mutatingKey, certPEM(readMaterial(secretData(r.keeper.secret.get())).roots[0].Raw))
	r.await("readiness", func() bool { return r.problem() == "" })
	if code, body := get(t, r.HealthAddr(), "/readyz"); code != http.StatusOK || !strings.Contains(body, "[+] registration\n") {
		t.Errorf("status %d: %s", code, body)
	}
	api.put(validatingKey, configuration())
	expect("ValidatingWebhookConfiguration podkey-webhook, webhook mutation.azure")
	if code, body := get(t, r.HealthAddr(), "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("alive: %d %s", code, body)
	}
}

// Anybody may ask for readiness: asking is not multiplied into handshakes.
func TestReadinessIsRemembered(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	r.ready.mu.Lock()
	r.ready.ttl, r.ready.at = time.Hour, time.Time{}
	r.ready.mu.Unlock()
	if p := r.problem(); p != "" {
		t.Fatal(p)
	}
	at := r.ready.at
	for range 100 {
		if code, _ := get(t, r.HealthAddr(), "/readyz"); code != http.StatusOK {
			t.Fatal("not ready")
		}
	}
	if r.ready.at != at {
		t.Error("the checks ran again")
	}
}

func TestReplicasAgree(t *testing.T) {
	api, c := installed(t)
	var replicas []*replica
	for range 5 {
		replicas = append(replicas, start(t, api, c))
	}
	for _, r := range replicas {
		r.awaitReady()
	}
	for _, r := range replicas {
		r.await("the same certificate", func() bool { return r.serial() == replicas[0].serial() })
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
	if n := len(pki.Certificates(bundleIn(api.get(mutatingKey), 0))); n != 1 {
		t.Errorf("%d CAs are registered", n)
	}
	for _, r := range replicas {
		if logs := r.logs.String(); strings.Contains(logs, "could not be kept in order") {
			t.Errorf("a lost race is reported as a failure: %s", logs)
		}
	}
}

func TestSecretReplacedByHand(t *testing.T) {
	api, c := installed(t)
	one, two := start(t, api, c), start(t, api, c)
	one.awaitReady()
	two.awaitReady()
	m := mustNext(t, material{}, nil, c.now(), never).m
	want := m.leaf.Leaf.SerialNumber.String()
	replaceSecret(t, api, m)
	for _, r := range []*replica{one, two} {
		r.await("taking it up", func() bool { return r.serial() == want })
		r.awaitReady()
		r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	}
	if !contains(pki.Certificates(bundleIn(api.get(mutatingKey), 0)), m.ca.Cert) {
		t.Error("its CA is not registered")
	}
}

// While the CA of a replaced certificate cannot be registered, the old one is
// served.
func TestReplacedCertificateWaitsForRegistration(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	api.refuse("update mutatingwebhookconfigurations", http.StatusForbidden)
	replaceSecret(t, api, mustNext(t, material{}, nil, c.now(), never).m)
	r.await("the failure to register", func() bool { _, err := r.keeper.state(); return err != nil })
	if r.serial() != before {
		t.Error("a certificate is served whose CA nobody knows")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	api.refuse("update mutatingwebhookconfigurations", 0)
	r.keeper.changed()
	r.await("taking it up", func() bool { return r.serial() != before })
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
}

func TestSecretDeleted(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	api.remove(secretKey)
	await(t, "a new secret", []func() <-chan struct{}{api.changes}, func() bool { return api.get(secretKey) != nil })
	await(t, "both CAs registered", []func() <-chan struct{}{api.changes}, func() bool {
		return len(pki.Certificates(bundleIn(api.get(mutatingKey), 0))) == 2
	})
	if r.serial() != before {
		t.Error("the new CA's certificate is served before everybody can know that CA")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	// After the time to settle, the next look moves on; any change is a look.
	c.forward(11 * time.Minute)
	r.keeper.changed()
	r.await("the new CA's certificate", func() bool { return r.serial() != before })
	r.await("readiness", func() bool { return r.problem() == "" })
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
}

func TestRenewal(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	before := r.serial()
	c.forward(274 * 24 * time.Hour)
	r.keeper.changed()
	r.await("a look", func() bool { return true })
	if r.serial() != before {
		t.Error("renewed 91 days before the end")
	}
	c.forward(2 * 24 * time.Hour)
	r.keeper.changed()
	r.await("renewal", func() bool { return r.serial() != before })
	r.awaitReady()
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	_, body := get(t, r.MetricsAddr(), "/metrics")
	if !strings.Contains(body, `podkey_webhook_certificates_issued_total{kind="serving"} 2`) {
		t.Error("renewal is not counted")
	}
}

// An outage of the API server longer than its history: nothing fails but new
// look-ups, and everything is followed again afterwards.
func TestAPIServerRestarts(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	up := api.restart()
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	api.put("serviceaccounts/shop/web", object{"metadata": object{"annotations": object{"azure.workload.identity/client-id": "changed"}}})
	api.put(mutatingKey, configuration())
	up()
	await(t, "repair after the outage", []func() <-chan struct{}{api.changes}, func() bool {
		return len(bundleIn(api.get(mutatingKey), 0)) > 0
	})
	r.awaitReady()
}

// The API server is down when the webhook starts.
func TestStartWithoutAPIServer(t *testing.T) {
	api, c := installed(t)
	up := api.restart()
	r := start(t, api, c)
	if p := r.problem(); !strings.Contains(p, "service accounts: not read") || !strings.Contains(p, "rules: ") || !strings.Contains(p, "certificate: there is no") {
		t.Errorf("readiness says: %s", p)
	}
	code, _, err := r.post(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, MutatePath, "{}")
	if err == nil {
		t.Errorf("answered with %d without a certificate", code)
	}
	up()
	r.awaitReady()
}

func TestSuppliedCertificate(t *testing.T) {
	api, c := installed(t)
	dir := t.TempDir()
	ca, err := pki.NewCA("theirs", c.now())
	if err != nil {
		t.Fatal(err)
	}
	supply := func() string {
		m := material{roots: []*x509.Certificate{ca.Cert}, ca: ca}
		if m.leaf, err = ca.Issue(pki.Leaf{DNSNames: []string{host}}, c.now()); err != nil {
			t.Fatal(err)
		}
		data, err := m.data()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{tlsCertKey, tlsKeyKey} {
			if err := os.WriteFile(filepath.Join(dir, name), data[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return m.leaf.Leaf.SerialNumber.String()
	}
	if _, err := New(Config{
		Kube: api.config(), Log: discard(), CertDir: dir, Namespace: "n", Service: "s", Configuration: "c",
	}); err == nil || !strings.Contains(err.Error(), "tls.crt") {
		t.Errorf("no files: %v", err)
	}
	supply()
	r := start(t, api, c, func(c *Config) { c.CertDir, c.Secret = dir, "" })
	<-r.prepared
	r.await("the complaint", func() bool { return strings.Contains(r.problem(), "its caBundle is empty") })
	setBundle(api, mutatingKey, ca.CertPEM())
	setBundle(api, validatingKey, ca.CertPEM())
	r.awaitReady()
	want := supply()
	if got := r.serial(); got != want {
		t.Error("new files are not taken up")
	}
	r.mustPost(caller(t, api, c), `{"namespace":"shop","account":"web"}`)
	for _, what := range []string{"update mutatingwebhookconfigurations", "update validatingwebhookconfigurations", "list secrets", "watch secrets", "create secrets"} {
		if n := api.called(what); n != 0 {
			t.Errorf("%d times: %s", n, what)
		}
	}
}

// Reviews keep coming while a replica is told to end: all of them are
// answered, those under way and those that arrive during the delay.
func TestDrain(t *testing.T) {
	api, c := installed(t)
	delay := 300 * time.Millisecond
	r := start(t, api, c, func(c *Config) { c.DrainDelay = delay })
	r.awaitReady()
	client := caller(t, api, c)
	held := make(chan string, 20)
	for range cap(held) {
		go func() {
			_, body, err := r.post(client, MutatePath, `{"do":"hold"}`)
			held <- fmt.Sprint(body, err)
		}()
	}
	for range cap(held) {
		<-r.rules.held
	}
	r.end()
	// The drain has begun once readiness says so; the port still answers.
	began := time.Now()
	for r.problem() == "" {
		if time.Since(began) > 10*time.Second {
			t.Fatal("readiness does not turn")
		}
	}
	if p := r.problem(); !strings.Contains(p, "serving: shutting down") {
		t.Errorf("readiness says: %s", p)
	}
	for n := 0; time.Since(began) < delay/2; n++ {
		// A new connection each, as when an endpoint is not withdrawn yet.
		fresh := caller(t, api, c)
		r.mustPost(fresh, `{"namespace":"shop","account":"web"}`)
		fresh.CloseIdleConnections()
	}
	// Those under way go on when nothing new is taken any more.
	for {
		conn, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
		if time.Since(began) > 10*time.Second {
			t.Fatal("the port stays open")
		}
	}
	close(r.rules.hold)
	for range cap(held) {
		if got := <-held; got != `{"held":"yes"}<nil>` {
			t.Errorf("a review under way: %s", got)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < delay-50*time.Millisecond {
		t.Errorf("gone after %v, before endpoints are withdrawn", took)
	}
}

func TestEvents(t *testing.T) {
	api, c := installed(t)
	api.put("serviceaccounts/shop/plain", object{})
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	for range 10 {
		r.mustPost(client, `{"namespace":"shop","account":"plain"}`)
	}
	r.mustPost(client, `{"namespace":"shop","account":"none"}`)
	r.mustPost(client, `{"namespace":"shop","account":"none2","do":"dry"}`)
	events := func() []object {
		api.mu.Lock()
		defer api.mu.Unlock()
		var out []object
		for k, o := range api.objects {
			if strings.HasPrefix(k, "events/shop/") {
				out = append(out, o)
			}
		}
		return out
	}
	await(t, "two events", []func() <-chan struct{}{api.changes}, func() bool { return len(events()) == 2 })
	on := map[string]string{}
	for _, e := range events() {
		o := e["involvedObject"].(object)
		on[fmt.Sprint(o["kind"], "/", o["name"])] = fmt.Sprint(e["reason"], " ", e["type"], " ", e["count"])
	}
	if on["ServiceAccount/plain"] != "ClientIDMissing Warning 1" || on["ReplicaSet/rs"] != "AdmissionDenied Warning 1" {
		t.Errorf("events: %v", on)
	}
}

func TestEventsAreBounded(t *testing.T) {
	api, c := installed(t)
	r, err := New(Config{
		Kube: api.config(), Log: discard(), Namespace: testNamespace, Service: testName, Secret: "s", Configuration: testName,
		Listen: "127.0.0.1:0", HealthListen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0", Now: c.now,
		Rules: func(string, string) Rules { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	// Nobody reads the queue yet: recording must not wait for that.
	for i := range eventQueue + 10 {
		r.recorder.record(Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: "shop", Name: "web"}, "Reason", fmt.Sprint(i))
	}
	rec, ctx := r.recorder, t.Context()
	for range eventQueue {
		rec.handle(ctx, <-rec.queue)
	}
	if n := api.called("create events"); n < eventsBurst || n > eventsBurst+10 {
		t.Errorf("%d different events were written at once, with a limit of %d", n, eventsBurst)
	}
	scrape := httptest.NewRecorder()
	r.metricsHandler().ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	written := api.called("create events")
	for _, want := range []string{
		fmt.Sprintf(`podkey_webhook_events_total{result="written"} %d`, written),
		fmt.Sprintf(`podkey_webhook_events_total{result="dropped"} %d`, 10+eventQueue-written),
	} {
		if !strings.Contains(scrape.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	one := event{Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: "shop", Name: "web"}, "Reason", "0"}
	for range 41 {
		rec.handle(ctx, one)
	}
	rec.flush(ctx)
	rec.flush(ctx)
	if n := api.called("patch events"); n != 1 {
		t.Errorf("41 repetitions cost %d writes", n)
	}
	o := api.get("events/shop/" + rec.series[one].name)
	if fmt.Sprint(o["count"]) != "42" {
		t.Errorf("the count is %v", o["count"])
	}
	// It expired in the cluster: the next repetition makes it anew.
	api.remove("events/shop/" + rec.series[one].name)
	rec.handle(ctx, one)
	rec.flush(ctx)
	if api.get("events/shop/"+rec.series[one].name) == nil {
		t.Error("an expired event is not written again")
	}
	c.forward(eventIdle + time.Minute)
	rec.flush(ctx)
	if n := len(rec.series); n != 0 {
		t.Errorf("%d series are remembered for ever", n)
	}
	if got := truncate("aé", 2); got != "a" {
		t.Errorf("cut to %q", got)
	}
}

// Whoever reaches the port can make namespaces up; they are no labels.
func TestMetrics(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	for i := range 5 {
		r.mustPost(client, fmt.Sprintf(`{"namespace":"made-up-%d","account":"web"}`, i))
	}
	_, body := get(t, r.MetricsAddr(), "/metrics")
	for _, want := range []string{
		`azwi_mutation_request_bucket{namespace="shop",service_name="webhook",le="0.001"}`,
		`azwi_mutation_request_bucket{namespace="shop",service_name="webhook",le="3"}`,
		`azwi_mutation_request_count{namespace="shop",service_name="webhook"} 1`,
		`azwi_mutation_request_count{namespace="other",service_name="webhook"} 5`,
		`podkey_webhook_reviews_total{path="/mutate-v1-pod",result="mutated"} 1`,
		`podkey_webhook_reviews_total{path="/mutate-v1-pod",result="denied"} 5`,
		`podkey_webhook_reviews_in_flight 0`,
		`podkey_webhook_account_lookups_total{result="missing"} 5`,
		"podkey_webhook_certificate_not_after_timestamp_seconds",
		"go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, "made-up") || strings.Contains(body, "etcd_") {
		t.Error("series that should not be there")
	}
	api.remove("serviceaccounts/shop/web")
	// The metric of a namespace goes with its last service account.
	await(t, "the namespace to be forgotten", []func() <-chan struct{}{r.nextLook}, func() bool {
		r.keeper.changed()
		_, body := get(t, r.MetricsAddr(), "/metrics")
		return !strings.Contains(body, `namespace="shop"`)
	})
}
