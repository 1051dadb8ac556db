package webhook

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
)

// silent opens a connection, begins a review and says no more. It waits until
// the server has read so far, which it shows by asking for the rest.
func silent(t *testing.T, r *replica, client *http.Client) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", r.Addr().String(), client.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", MutatePath, host)
	answer := make([]byte, len("HTTP/1.1 100"))
	if _, err := conn.Read(answer); err != nil || !strings.HasSuffix(string(answer), "100") {
		t.Fatalf("%q, %v", answer, err)
	}
	return conn
}

// Whoever reaches the port can keep any number of reviews waiting for their
// end. Others are answered all the same.
func TestSilentCallersKeepNobodyWaiting(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	for i := range 600 {
		silent(t, r, client)
		if i%100 == 99 {
			r.mustPost(client, `{"namespace":"shop","account":"web"}`)
		}
	}
	if n := r.intake.bodies.Load(); n > 0 {
		t.Errorf("%d bytes are held for what was only announced", n)
	}
}

// At the limit of connections goes the one that has done nothing for the
// longest; those that are being answered stay.
func TestConnectionsAreBounded(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	answered := make(chan string, 1)
	go func() {
		_, body, err := r.post(client, MutatePath, `{"do":"hold"}`)
		answered <- fmt.Sprint(body, err)
	}()
	<-r.rules.held
	r.intake.mu.Lock()
	r.intake.most = 10
	r.intake.mu.Unlock()
	first := silent(t, r, client)
	for range 30 {
		silent(t, r, client)
	}
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	if rest, _ := io.ReadAll(first); strings.Contains(string(rest), "HTTP/") {
		t.Errorf("the oldest silent connection is answered: %s", rest)
	}
	r.intake.mu.Lock()
	n := len(r.intake.conns)
	r.intake.mu.Unlock()
	if n > 10 {
		t.Errorf("%d connections are open", n)
	}
	close(r.rules.hold)
	if got := <-answered; got != `{"held":"yes"}<nil>` {
		t.Errorf("a review under way was cut off: %s", got)
	}
}

// One that is slow is told so, long before the API server would give up.
func TestSlowBodyIsRefused(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	conn := silent(t, r, client)
	var got strings.Builder
	if err := conn.SetReadDeadline(time.Now().Add(2 * bodyTime)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	for !strings.Contains(got.String(), "did not arrive within") {
		n, err := conn.Read(b)
		got.Write(b[:n])
		if err != nil {
			t.Fatalf("%q, %v", got.String(), err)
		}
	}
	if !strings.Contains(got.String(), "408 ") {
		t.Errorf("%q", got.String())
	}
}

// Large reviews share a budget, which is charged for what arrives. Small ones
// need none of it.
func TestBodiesShareABudget(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	r.intake.bodies.Add(maxBodies)
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	large := `{"namespace":"shop","account":"web","do":"` + strings.Repeat("x", 4*firstPart) + `"}`
	if code, body, err := r.post(client, MutatePath, large); code != http.StatusServiceUnavailable || !strings.Contains(body, "too many large reviews") {
		t.Errorf("%d %s %v", code, body, err)
	}
	r.intake.bodies.Add(-maxBodies)
	r.mustPost(client, large)
	go func() {
		_, _, _ = r.post(client, MutatePath, `{"do":"hold","uid":"`+strings.Repeat("x", 4*firstPart)+`"}`)
	}()
	<-r.rules.held
	if n := r.intake.bodies.Load(); n < 3*firstPart || n > 8*firstPart {
		t.Errorf("%d bytes are charged for %d", n, 4*firstPart)
	}
	close(r.rules.hold)
	client.CloseIdleConnections()
	if err := r.stop(); err != nil { // all are answered then
		t.Error(err)
	}
	if n := r.intake.bodies.Load(); n != 0 {
		t.Errorf("%d bytes are charged for nothing", n)
	}
}

// slowAdvice are rules that take their time for advice.
type slowAdvice struct{ *testRules }

func (r slowAdvice) Advise(context.Context, []byte, LookupFunc, []byte) ([]byte, Outcome) {
	<-r.hold
	return []byte("{}"), Outcome{Result: "silent"}
}

// The webhook that only warns has room of its own.
func TestAdviceTakesNoRoom(t *testing.T) {
	api, c := installed(t)
	rules := &testRules{hold: make(chan struct{})}
	r := start(t, api, c, func(c *Config) { c.Rules = func(string, string) Rules { return slowAdvice{rules} } })
	r.awaitReady()
	client := caller(t, api, c)
	answers := make(chan int, maxAdvising+1)
	for range maxAdvising + 1 {
		go func() {
			code, _, _ := r.post(client, AdvisePath, `{}`)
			answers <- code
		}()
	}
	if code := <-answers; code != http.StatusServiceUnavailable {
		t.Errorf("one more than there is room for: %d", code)
	}
	r.mustPost(client, `{"namespace":"shop","account":"web"}`)
	close(rules.hold)
	for range maxAdvising {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	long := strings.Repeat("x", testMaxReview/4)
	code, _, err := r.post(caller(t, api, c), MutatePath, fmt.Sprintf(`{"uid":"mine%s","namespace":"%s","account":"%s"}`, long, long, long))
	if err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	found := false
	for line := range strings.Lines(r.logs.String()) {
		if strings.Contains(line, `"mine`) {
			if found = true; len(line) > 4<<10 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	}
	if !found {
		t.Error("the line is not there")
	}
}

// A stranger's names become part of a path to the API server.
func TestNoNameIsAPath(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	client := caller(t, api, c)
	long := strings.Repeat("a", 300)
	for _, names := range [][2]string{
		{"mine", "../../shop/serviceaccounts/web"}, {"mine/../shop", "none"}, {"mine", ".."}, {"mine", "."}, {"..", "web2"}, {"mine", "a/b"}, {"mine", "%2e%2e"},
		{"mine", "..%2f..%2fshop%2fserviceaccounts%2fweb"}, {"mine", ""}, {"", "web"}, {"", ""}, {"mine", long}, {long, "web"}, {"mine", "web?x=y"}, {"shop.x", "none"}, {"mine", "A"},
	} {
		body, err := json.Marshal(map[string]string{"namespace": names[0], "account": names[1]})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.mustPost(client, string(body)); !strings.Contains(got, `"missing":"yes"`) || strings.Contains(got, "id-of-web") || len(got) > 1000 {
			t.Errorf("%q: %.500s", names, got)
		}
	}
	if n := api.called("get serviceaccounts"); n != 0 {
		t.Errorf("the API server was asked %d times", n)
	}
	// Not even an answer about another account is believed.
	api.refuse("watch serviceaccounts", http.StatusServiceUnavailable)
	api.refuse("list serviceaccounts", http.StatusServiceUnavailable)
	api.cut()
	api.mu.Lock()
	api.objects["serviceaccounts/shop/new"] = object{"metadata": object{"name": "other", "namespace": "shop"}}
	api.mu.Unlock()
	if got := r.mustPost(client, `{"namespace":"shop","account":"new"}`); !strings.Contains(got, "answered with another") {
		t.Errorf("%s", got)
	}
}

// Look-ups of accounts that do not exist keep nobody waiting whose account is
// in the cache.
func TestLookupsAreBounded(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	r.accounts.waiting.Add(maxWaiting)
	client := caller(t, api, c)
	if got := r.mustPost(client, `{"namespace":"shop","account":"none"}`); !strings.Contains(got, "too many look-ups") {
		t.Errorf("%s", got)
	}
	if got := r.mustPost(client, `{"namespace":"shop","account":"web"}`); !strings.Contains(got, "id-of-web") {
		t.Errorf("%s", got)
	}
}

// Of a service account, a little is kept, whatever its author writes.
func TestAccountsAreBounded(t *testing.T) {
	a := &accounts{keys: testAnnotations, most: testMaxAnnotation}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var kept []any
	for i := range 1000 {
		all := map[string]string{testAnnotations[0]: strings.Repeat("x", 100_000)}
		for j := range 150 {
			all[fmt.Sprintf("azure.workload.identity/made-up-%d", j)] = strings.Repeat("y", 1000)
		}
		kept = append(kept, a.trim(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Annotations: all, Labels: all}}))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 4<<20 {
		t.Errorf("%d accounts take %d bytes", len(kept), used)
	}
	m := kept[0].(*metav1.PartialObjectMetadata)
	if len(m.Annotations) != 1 || len(m.Annotations[testAnnotations[0]]) != testMaxAnnotation {
		t.Errorf("kept: %d annotations, %d bytes", len(m.Annotations), len(m.Annotations[testAnnotations[0]]))
	}
}

// pages is an API server that lists accounts page by page.
type pages struct {
	metadata.Getter
	asked []metav1.ListOptions
}

func (p *pages) List(_ context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	p.asked = append(p.asked, o)
	out := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	if len(p.asked) < 3 {
		out.Continue = fmt.Sprint(len(p.asked))
	}
	for i := range o.Limit {
		out.Items = append(out.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprint(len(p.asked), i), Annotations: map[string]string{"large": strings.Repeat("x", 1000), testAnnotations[0]: "id"},
		}})
	}
	return out, nil
}

// Where the first list is not streamed, it comes in pages, each of which is
// trimmed before the next.
func TestFirstListComesInPages(t *testing.T) {
	a := &accounts{keys: testAnnotations, most: testMaxAnnotation}
	p := &pages{}
	obj, err := a.list(t.Context(), p, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	list := obj.(*metav1.PartialObjectMetadataList)
	if len(list.Items) != 3*pageSize || list.ResourceVersion != "7" || list.Continue != "" {
		t.Errorf("%d accounts at version %s, more at %q", len(list.Items), list.ResourceVersion, list.Continue)
	}
	for i := range list.Items {
		if a := list.Items[i].Annotations; len(a) != 1 || a[testAnnotations[0]] != "id" {
			t.Fatalf("kept: %d annotations", len(a))
		}
	}
	for i, o := range p.asked {
		// With a version, the limit would not count.
		if o.Limit != pageSize || o.ResourceVersion != "" || (o.Continue == "") != (i == 0) {
			t.Errorf("request %d: %+v", i, o)
		}
	}
}

// Anybody can send a review. No event comes of what is made up in it.
func TestNoEventsOnInventedObjects(t *testing.T) {
	api, c := installed(t)
	r := start(t, api, c)
	r.awaitReady()
	good := Object{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "shop", Name: "web-1", UID: "0-1"}
	outcome := func(edit func(*Object)) Outcome {
		o := Outcome{Namespace: "shop", Account: "none", Reason: "AdmissionDenied", Message: "call 0900-1234 for help", Owner: new(good)}
		edit(o.Owner)
		return o
	}
	for _, edit := range []func(*Object){
		func(o *Object) { o.UID = strings.Repeat("u", 1<<20) },
		func(o *Object) { o.UID = "" },
		func(o *Object) { o.UID = "a b" },
		func(o *Object) { o.Name = strings.Repeat("n", 254) },
		func(o *Object) { o.Name = "../x" },
		func(o *Object) { o.Kind = "Bank" },
		func(o *Object) { o.APIVersion = "evil/v1" },
		func(o *Object) { o.Namespace = "made-up" },
	} {
		r.recordOutcome(outcome(edit))
	}
	o := outcome(func(*Object) {})
	o.Account = "none, call 0900-1234"
	r.recordOutcome(o)
	r.recordOutcome(outcome(func(*Object) {}))
	// The queue keeps the order.
	await(t, "the one good event", []func() <-chan struct{}{api.changes}, func() bool { return api.called("create events") > 0 })
	api.mu.Lock()
	defer api.mu.Unlock()
	for key, e := range api.objects {
		if strings.HasPrefix(key, "events/") && (!strings.HasPrefix(key, "events/shop/web-1.") || strings.Contains(fmt.Sprint(e), "0900")) {
			t.Errorf("%s: %.300v", key, e)
		}
	}
	if n := api.calls["create events"]; n != 1 {
		t.Errorf("%d events", n)
	}
}

// idle is a recorder whose queue nobody reads but the test.
func idle(t *testing.T) (*recorder, *apiServer, *clock) {
	api, c := installed(t)
	client, err := dynamic.NewForConfig(api.config())
	if err != nil {
		t.Fatal(err)
	}
	return newRecorder(client, Config{Log: discard(), Now: c.now}, newMetrics(prometheus.NewRegistry())), api, c
}

func (r *recorder) drain(t *testing.T) {
	for len(r.queue) > 0 {
		r.handle(t.Context(), <-r.queue)
	}
}

func on(namespace string) Object {
	return Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: namespace, Name: "web"}
}

func TestNoNamespaceSilencesAnother(t *testing.T) {
	r, api, _ := idle(t)
	for i := range 5000 {
		r.record(on("loud"), "Reason", fmt.Sprint(i))
		if i%500 == 0 {
			r.drain(t)
		}
	}
	r.record(on("quiet"), "Reason", "what matters")
	r.drain(t)
	api.mu.Lock()
	defer api.mu.Unlock()
	quiet, loud := 0, 0
	for key := range api.objects {
		switch {
		case strings.HasPrefix(key, "events/quiet/"):
			quiet++
		case strings.HasPrefix(key, "events/loud/"):
			loud++
		}
	}
	if quiet != 1 || loud < eventsBurst || loud > 2*eventsBurst {
		t.Errorf("%d events of the quiet namespace, %d of the loud one", quiet, loud)
	}
	if len(r.waiting) != 0 {
		t.Errorf("%v are said to wait", r.waiting)
	}
}

// Events of a namespace that is gone can be neither counted up nor made anew.
// They are given up, and are in nobody's way meanwhile.
func TestEventsOfDeletedNamespacesAreForgotten(t *testing.T) {
	r, api, c := idle(t)
	for i := range eventSeries {
		r.series[event{on(fmt.Sprint("gone-", i)), "Reason", "x"}] = &series{name: "web.1", count: 2, written: 1, lastSeen: c.now()}
	}
	api.refuse("create events", http.StatusForbidden)
	for range 10 {
		r.flush(t.Context())
	}
	if n, m := api.called("create events"), api.called("patch events"); n > 2*eventsBurst || m > eventSeries {
		t.Errorf("%d attempts to make one, %d to count one up", n, m)
	}
	api.refuse("create events", 0)
	r.record(on("shop"), "Reason", "new")
	r.drain(t)
	if _, ok := r.series[event{on("shop"), "Reason", "new"}]; !ok || len(r.series) > eventSeries {
		t.Errorf("a new event is not written, %d are remembered", len(r.series))
	}
	c.forward(eventIdle + time.Minute)
	r.flush(t.Context())
	if len(r.series) != 0 || len(r.limits) != 0 {
		t.Errorf("%d events and %d namespaces are remembered for ever", len(r.series), len(r.limits))
	}
}

// A certificate can be valid for our name and still let no connection come
// about. Nobody would mend it if it counted as good.
func TestUselessCertificatesAreReplaced(t *testing.T) {
	now := day0.Add(time.Hour)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := func(name string, ca bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: day0, NotAfter: day0.AddDate(1, 0, 0),
			IsCA: ca, BasicConstraintsValid: true, DNSNames: []string{host},
		}
	}
	sign := func(c, parent *x509.Certificate, key any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key, caKey)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	root := sign(template("theirs", true), template("theirs", true), &caKey.PublicKey)
	leaf := func(curve elliptic.Curve, more int) material {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := sign(template(host, false), root, &key.PublicKey)
		pair := &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
		for range more {
			pair.Certificate = append(pair.Certificate, root.Raw)
		}
		return material{roots: []*x509.Certificate{root}, leaf: pair}
	}
	for name, tt := range map[string]struct {
		m    material
		good bool
	}{
		"good":                 {leaf(elliptic.P256(), 1), true},
		"a key of no use":      {leaf(elliptic.P224(), 0), false},
		"an endless chain":     {leaf(elliptic.P256(), 9), false},
		"a chain of megabytes": {leaf(elliptic.P256(), 1000), false},
	} {
		m := stored(t, tt.m)
		if m.root(host, now) == nil {
			t.Fatalf("%s: the certificate is not even valid", name)
		}
		for _, served := range []*material{nil, new(mustNext(t, material{}, nil, day0, never).m)} {
			s := mustNext(t, m, served, now, always)
			if kept := bytes.Equal(s.m.leaf.Certificate[0], m.leaf.Certificate[0]); kept != tt.good || s.write == tt.good {
				t.Errorf("%s: kept %t, written %t: %v", name, kept, s.write, s.why)
			}
			if r := s.m.root(host, now); r == nil || !shakesHands(s.m.leaf, r, host, now) {
				t.Errorf("%s: what replaces it is of no use either", name)
			}
		}
	}
}
