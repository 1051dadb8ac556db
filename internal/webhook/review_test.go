package webhook

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
		{"too large", "POST", MutatePath, "application/json", strings.Repeat(" ", testMaxReview+1), 413},
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

// Our own token is replaced, and the one before it counts no more: the first
// look-up afterwards does not fail.
func TestLookupWithReplacedToken(t *testing.T) {
	api, c := installed(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("replica")
	r := start(t, api, c, func(c *Config) { c.Kube.BearerToken, c.Kube.BearerTokenFile = "", file })
	r.awaitReady()
	client := caller(t, api, c)
	// The watches go on and hear nothing: the look-up is the first to find out
	// about the token, and the account.
	api.mu.Lock()
	api.token = "replica's second"
	api.objects["serviceaccounts/shop/new"] = object{"metadata": object{
		"name": "new", "namespace": "shop", "annotations": object{"azure.workload.identity/client-id": "id-of-new"},
	}}
	api.mu.Unlock()
	write("replica's second")
	if got := r.mustPost(client, `{"namespace":"shop","account":"new"}`); !strings.Contains(got, "id-of-new") {
		t.Errorf("the first look-up after the replacement: %s", got)
	}
	api.mu.Lock()
	api.token = "replica's third"
	api.mu.Unlock()
	if got := r.mustPost(client, `{"namespace":"shop","account":"other"}`); !strings.Contains(got, "error") {
		t.Errorf("a look-up without a good token: %s", got)
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
		// API servers speak HTTP/1.1 with webhooks.
		fresh := caller(t, api, c)
		fresh.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		resp, err := fresh.Post("https://"+r.Addr().String()+MutatePath, "application/json", strings.NewReader(`{"namespace":"shop","account":"web"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("status %d, connection to be closed: %t; the caller would come back on it", resp.StatusCode, resp.Close)
		}
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
