package sidecar_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/imds"
	"github.com/podkey/podkey/internal/sidecar"
)

func certificate(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// TestPassOn has a stand-in for the node's metadata service: there is none
// here, and its answers do not matter, only what reaches it.
func TestPassOn(t *testing.T) {
	type request struct{ Method, Target, Body, Metadata string }
	var reached []request
	var headers []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		reached = append(reached, request{r.Method, r.RequestURI, string(b), r.Header.Get("Metadata")})
		headers = slices.Collect(maps.Keys(r.Header))
		w.Header().Set("X-Node", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "from the node")
	}))
	defer node.Close()
	to, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	origin := serve(t, &sidecar.Server{Handler: &imds.Handler{
		Metadata: true, Other: sidecar.PassOn(to, nil),
		Token: func(context.Context, imds.Ask) (imds.Token, error) { return imds.Token{}, imds.ErrIdentityNotFound() },
	}})

	status, h, body := do(t, "GET", origin+"/Metadata/instance/compute?api-version=2021-02-01&format=text", asked)
	if status != http.StatusTeapot || h.Get("X-Node") != "yes" || body != "from the node" {
		t.Errorf("HTTP %d %v %q", status, h, body)
	}
	for _, name := range headers {
		if strings.HasPrefix(name, "X-Forwarded") || name == "Forwarded" || name == "Via" {
			t.Errorf("the node's metadata service would refuse the header %s", name)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", origin+"/metadata/scheduledevents?api-version=2020-07-01", strings.NewReader(`{"StartRequests":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := []request{
		{"GET", "/Metadata/instance/compute?api-version=2021-02-01&format=text", "", "true"},
		{"POST", "/metadata/scheduledevents?api-version=2020-07-01", `{"StartRequests":[]}`, "true"},
	}
	if diff := cmp.Diff(want, reached); diff != "" {
		t.Errorf("what reached the node (-want +got):\n%s", diff)
	}

	// The node's own identity is out of reach, and so is what is not metadata.
	reached = nil
	for path, status := range map[string]int{
		"/metadata/Identity/oauth2/token?api-version=2018-02-01&resource=r": 404,
		"/metadata/identity/info?api-version=2018-02-01":                    404,
		"/metadata/identity": 404,
		"/metadata/instance/../identity/oauth2/token?api-version=2018-02-01&resource=r": 404,
		"/metadata/./identity/oauth2/token?api-version=2018-02-01&resource=r":           404,
		"/metadata//identity/oauth2/token?api-version=2018-02-01&resource=r":            404,
		"/metadata/%69dentity/oauth2/token?api-version=2018-02-01&resource=r":           400, // our own token path, in other letters
		"/metadata/%2569dentity/oauth2/token?api-version=2018-02-01&resource=r":         404,
		"/metadata/instance%2f..%2fidentity/oauth2/token?api-version=2018-02-01":        404,
		"/metadata/instance%5C..%5Cidentity/oauth2/token?api-version=2018-02-01":        404,
		"/metadata/identity;x/oauth2/token?api-version=2018-02-01&resource=r":           404,
		"/metadata/%69nstance?api-version=2021-02-01":                                   404,
		"/metadata/%c4%b1dentity/oauth2/token":                                          404,
		"/machine/plugins?comp=nmagent":                                                 404,
		"/metadataextra":                                                                404,
	} {
		if got, _, _ := do(t, "GET", origin+path, asked); got != status {
			t.Errorf("%s: HTTP %d, want %d", path, got, status)
		}
	}
	instance := "/metadata/instance?api-version=2021-02-01"
	for name, header := range map[string]map[string]string{
		"no header": nil, "forwarded": {"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}, "rebound": {"Metadata": "true", "Host": "attacker.example"},
	} {
		if got, _, _ := do(t, "GET", origin+instance, header); got != 400 && got != 403 {
			t.Errorf("%s: HTTP %d", name, got)
		}
	}
	if len(reached) > 0 {
		t.Errorf("these reached the node: %+v", reached)
	}

	node.Close()
	status, h, body = do(t, "GET", origin+instance, asked)
	if status != 503 || h.Get("Retry-After") == "" || !strings.Contains(body, "temporarily_unavailable") || strings.Contains(body, "refused") {
		t.Errorf("without a metadata service: HTTP %d %v %s", status, h, body)
	}
}

// TestPassOnToItself is a redirection that does not spare the proxy.
func TestPassOnToItself(t *testing.T) {
	h := &imds.Handler{Metadata: true}
	origin := serve(t, &sidecar.Server{Handler: h})
	to, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	h.Other = sidecar.PassOn(to, nil)
	if status, _, body := do(t, "GET", origin+"/metadata/instance?api-version=1", asked); status != http.StatusLoopDetected {
		t.Errorf("HTTP %d %s", status, body)
	}
}

func TestInstance(t *testing.T) {
	if got := sidecar.Instance(func(string) string { return "" }); got != nil {
		t.Errorf("an instance of which nothing is known: %v", got)
	}
	env := map[string]string{"POD_NAME": "web-0", "POD_NAMESPACE": "shop", "NODE_NAME": "node-1"}
	origin := serve(t, &sidecar.Server{Handler: &imds.Handler{Metadata: true, Instance: sidecar.Instance(func(n string) string { return env[n] })}})
	status, _, body := do(t, "GET", origin+"/metadata/instance/compute?api-version=2021-02-01", asked)
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
		t.Fatalf("HTTP %d %s: %v", status, body, err)
	}
	tag := func(name, value string) any { return map[string]any{"name": name, "value": value} }
	want := map[string]any{
		"name": "node-1", "osType": "Linux", "osProfile": map[string]any{"computerName": "node-1"},
		"tags":     "kubernetes.pod:web-0;kubernetes.namespace:shop;kubernetes.node:node-1",
		"tagsList": []any{tag("kubernetes.pod", "web-0"), tag("kubernetes.namespace", "shop"), tag("kubernetes.node", "node-1")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if status, _, body := do(t, "GET", origin+"/metadata/instance/compute/osProfile/computerName?api-version=2021-02-01", asked); status != 200 || strings.TrimSpace(body) != `"node-1"` {
		t.Errorf("a member: HTTP %d %s", status, body)
	}
}
