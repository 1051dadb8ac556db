package webhook

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

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
		Rules: func(string, string) Rules { return nil }, MaxReview: testMaxReview, Annotations: testAnnotations, MaxAnnotation: testMaxAnnotation,
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

// An event that is not written is reported once; for want of a right, once more
// with the rule that is missing.
func TestRefusedEventIsReported(t *testing.T) {
	api, c := installed(t)
	logs := &syncBuffer{}
	r, err := New(Config{
		Kube: api.config(), Log: slog.New(slog.NewJSONHandler(logs, nil)), Namespace: testNamespace, Service: testName, Secret: "s", Configuration: testName,
		Listen: "127.0.0.1:0", HealthListen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0", Now: c.now,
		Rules: func(string, string) Rules { return nil }, MaxReview: testMaxReview, Annotations: testAnnotations, MaxAnnotation: testMaxAnnotation,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	write := func(message string) {
		r.recorder.handle(t.Context(), event{Object{APIVersion: "v1", Kind: "ServiceAccount", Namespace: "shop", Name: "web"}, "Reason", message})
	}
	for status, want := range map[int]string{http.StatusInternalServerError: "", http.StatusForbidden: `resources: [events], verbs: [create, patch]`} {
		r.recorder.failing, r.recorder.refusing = false, false
		before := len(logs.String())
		api.refuse("create events", status)
		for i := range 3 {
			write(fmt.Sprint(status, i))
		}
		said := logs.String()[before:]
		if strings.Count(said, `"level":"WARN"`) != 1 || strings.Count(said, "event not written") != 1 || !strings.Contains(said, want) || !strings.Contains(said, `"namespace":"shop"`) {
			t.Errorf("status %d: %s", status, said)
		}
	}
	// Another failure before does not hide the refusal.
	r.recorder.failing, r.recorder.refusing = true, false
	before := len(logs.String())
	api.refuse("create events", http.StatusForbidden)
	write("last")
	if said := logs.String()[before:]; !strings.Contains(said, "missingRule") {
		t.Errorf("a refusal behind another failure: %s", said)
	}
}
