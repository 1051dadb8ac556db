package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	testMaxReview = 1 << 20

	testMaxAnnotation = 257
)

var testAnnotations = []string{"azure.workload.identity/client-id", "azure.workload.identity/tenant-id"}

// clock is the certificates' time, which a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func (c *clock) forward(d time.Duration) { c.offset.Add(int64(d)) }

// testRules answer with what they found, and do as the review says.
type testRules struct {
	hold chan struct{} // reviews wait for it if it is not nil
	held chan struct{} // and say here that they do
}

type testReview struct {
	UID, Namespace, Account, Do string
}

func (r *testRules) Mutate(ctx context.Context, review []byte, lookup LookupFunc, _ []byte) ([]byte, Outcome) {
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

func (r *testRules) Advise(context.Context, []byte, LookupFunc, []byte) ([]byte, Outcome) {
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
		MaxReview: testMaxReview, Annotations: testAnnotations, MaxAnnotation: testMaxAnnotation,
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
