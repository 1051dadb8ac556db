package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/issuer"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
	"github.com/podkey/podkey/internal/web/wiretest"
)

// rig is the plane behind the edge. Bearer tokens are names of callers:
// operator may everything, nobody nothing; with broken the decision fails.
type rig struct {
	t    *testing.T
	http http.Handler
	h    *issuer.Handler
	keys *token.Keys
	log  bytes.Buffer
	now  time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return r.now }
	storetest.New(t, "", func(s *store.Store) { r.keys = token.NewKeys(s, token.Options{Now: clock}) })
	if err := r.keys.Ensure(t.Context(), token.Cluster(issuer.Local)); err != nil {
		t.Fatal(err)
	}
	own := web.OwnNames("podkey.test")
	r.h = &issuer.Handler{
		Own: own, Keys: r.keys, Now: clock,
		Authenticate: func(_ context.Context, bearer string) (audit.Principal, error) {
			if bearer == "forged" {
				return audit.Principal{}, &web.AuthError{Reason: web.AuthSignature}
			}
			return audit.Principal{ObjectID: bearer}, nil
		},
		Authorize: func(_ context.Context, p audit.Principal, action, object string) error {
			switch p.ObjectID {
			case "operator":
				return nil
			case "broken":
				return errors.New("the audit log is full of hunter2")
			default:
				return fault.New(fault.Forbidden, "AuthorizationFailed", "%s may not do %s on %s", p.ObjectID, action, object)
			}
		},
	}
	plane := r.h.Plane()
	r.http = &web.Edge{
		Log: slog.New(slog.NewJSONHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: clock,
		Route: func(string) (*web.Plane, *web.Names, string) { return plane, own, "" },
	}
	return r
}

func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		return newRig(t).http, nil
	})
}

// issue asks for a token and returns the status and, if it worked, the token.
func (r *rig) issue(cluster, namespace, name, body string) (int, string) {
	r.t.Helper()
	req := httptest.NewRequest("POST", "https://issuer.podkey.test/clusters/"+cluster+"/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer operator")
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, req)
	var got struct{ Status any }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		r.t.Fatalf("%s: %v", w.Body, err)
	}
	if status, ok := got.Status.(map[string]any); ok {
		return w.Code, status["token"].(string)
	}
	return w.Code, ""
}

func claimsOf(t *testing.T, raw string) map[string]any {
	t.Helper()
	a, err := token.ParseAssertion(raw)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(a.Payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTokensHaveTheClaimsOfProjectedTokens(t *testing.T) {
	r := newRig(t)
	code, raw := r.issue("local", "shop", "cart", `{"spec":{"audiences":["api://AzureADTokenExchange"],"expirationSeconds":7200,"boundObjectRef":{"kind":"Pod","name":"cart-0"}}}`)
	if code != http.StatusCreated {
		t.Fatal(code)
	}
	got := claimsOf(t, raw)
	start := float64(r.now.Unix())
	k8s, _ := got["kubernetes.io"].(map[string]any)
	sa, _ := k8s["serviceaccount"].(map[string]any)
	pod, _ := k8s["pod"].(map[string]any)
	for what, id := range map[string]any{"jti": got["jti"], "uid of service account": sa["uid"], "uid of pod": pod["uid"]} {
		if s, ok := id.(string); !ok || uuid.Validate(s) != nil {
			t.Errorf("%s is %v", what, id)
		}
	}
	want := map[string]any{
		"iss": "https://issuer.podkey.test/clusters/local/", "sub": "system:serviceaccount:shop:cart", "aud": []any{"api://AzureADTokenExchange"},
		"iat": start, "nbf": start, "exp": start + 7200, "jti": got["jti"],
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"serviceaccount": map[string]any{"name": "cart", "uid": sa["uid"]},
			"pod":            map[string]any{"name": "cart-0", "uid": pod["uid"]},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestUIDsAreStableAndDistinct(t *testing.T) {
	r := newRig(t)
	r.h.Known = func(context.Context, string) (bool, error) { return true, nil }
	if err := r.keys.Ensure(t.Context(), token.Cluster("other")); err != nil {
		t.Fatal(err)
	}
	uid := func(cluster, namespace, name string) string {
		_, raw := r.issue(cluster, namespace, name, "{}")
		return claimsOf(t, raw)["kubernetes.io"].(map[string]any)["serviceaccount"].(map[string]any)["uid"].(string)
	}
	first := uid("local", "shop", "cart")
	if again := uid("local", "shop", "cart"); again != first {
		t.Errorf("uid %s, then %s", first, again)
	}
	seen := map[string]bool{first: true}
	for _, other := range []string{uid("other", "shop", "cart"), uid("local", "shop2", "cart"), uid("local", "shop", "cart2"), uid("local", "shop-cart", "x")} {
		if seen[other] {
			t.Error("two service accounts share a uid")
		}
		seen[other] = true
	}
}

func TestTokensVerifyByTheRegisteredKeysAndByThePublishedOnes(t *testing.T) {
	r := newRig(t)
	_, raw := r.issue("local", "shop", "cart", "{}")
	a, err := token.ParseAssertion(raw)
	if err != nil {
		t.Fatal(err)
	}
	f := &token.Foreign{Registered: r.h.Registered}
	if err := f.VerifyAssertion(t.Context(), a); err != nil {
		t.Error(err)
	}
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, httptest.NewRequest("GET", "/clusters/local/openid/v1/jwks", nil))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jws.Verify(&set); err != nil {
		t.Error(err)
	}
}

// TestOneClustersKeysDoNotSignForAnother: a token of one cluster that says it
// is of the other.
func TestOneClustersKeysDoNotSignForAnother(t *testing.T) {
	r := newRig(t)
	r.h.Known = func(_ context.Context, name string) (bool, error) { return name == "local" || name == "other", nil }
	if err := r.keys.Ensure(t.Context(), token.Cluster("other")); err != nil {
		t.Fatal(err)
	}
	_, raw := r.issue("other", "shop", "cart", "{}")
	claims := claimsOf(t, raw)
	claims["iss"] = issuer.URL(r.h.Own, "local")
	forged, err := r.keys.Sign(t.Context(), token.Cluster("other"), jose.RS256, claims)
	if err != nil {
		t.Fatal(err)
	}
	a, err := token.ParseAssertion(forged)
	if err != nil {
		t.Fatal(err)
	}
	f := &token.Foreign{Registered: r.h.Registered}
	if e, ok := errors.AsType[*token.ForeignError](f.VerifyAssertion(t.Context(), a)); !ok || e.Kind != token.NoKey {
		t.Errorf("got %v, want NoKey", e)
	}
}

func TestRegisteredAnswersForEverythingUnderOurBase(t *testing.T) {
	r := newRig(t)
	broken := errors.New("store is down")
	for _, c := range []struct {
		issuer string
		ours   bool
		keys   int
	}{
		{"https://issuer.podkey.test/clusters/local/", true, 1},
		{"https://issuer.podkey.test/clusters/local", true, 0},
		{"https://issuer.podkey.test/clusters/local//", true, 0},
		{"https://issuer.podkey.test/clusters/other/", true, 0},
		{"https://issuer.podkey.test/clusters/LOCAL/", true, 0},
		{"https://issuer.podkey.test/clusters/../clusters/local/", true, 0},
		{"https://issuer.podkey.test/clusters/", true, 0},
		{"https://issuer.podkey.test/local/", true, 0},
		{"https://issuer.podkey.test/", true, 0},
		{"https://issuer.podkey.test.evil.test/clusters/local/", false, 0},
		{"https://issuer.podkey.test:8443/clusters/local/", false, 0},
		{"http://issuer.podkey.test/clusters/local/", false, 0},
		{"https://example.com/", false, 0},
	} {
		set, ok, err := r.h.Registered(t.Context(), c.issuer)
		if err != nil || ok != c.ours || set == nil && c.keys > 0 || set != nil && len(set.Keys) != c.keys {
			t.Errorf("%s: %v %t %v", c.issuer, set, ok, err)
		}
	}
	// Known is only asked for names that can be a cluster's.
	r.h.Known = func(_ context.Context, name string) (bool, error) {
		t.Errorf("asked for %q", name)
		return true, nil
	}
	for _, name := range []string{"", "..", "a/b", "LOCAL", "a b", "-a", "é", strings.Repeat("a", 64)} {
		if set, ok, err := r.h.Registered(t.Context(), issuer.URL(r.h.Own, name)); set != nil || !ok || err != nil {
			t.Errorf("%q: %v %t %v", name, set, ok, err)
		}
	}
	r.h.Known = func(context.Context, string) (bool, error) { return false, broken }
	if _, _, err := r.h.Registered(t.Context(), "https://issuer.podkey.test/clusters/local/"); !errors.Is(err, broken) {
		t.Errorf("failure of Known: %v", err)
	}
}

func TestNamesAreThoseOfKubernetes(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		namespace, name string
		code            int
	}{
		{"shop", "cart", 201}, {"s", "c", 201}, {"0", "1.2-3", 201}, {long[:63], strings.Repeat("a", 253), 201},
		{long, "cart", 400}, {"shop", strings.Repeat("a", 254), 400},
		{"Shop", "cart", 400}, {"shop", "Cart", 400}, {"shop.x", "cart", 400}, {"-shop", "cart", 400}, {"shop-", "cart", 400}, {"shop", "cart-", 400},
		{"shop", "a..b", 400}, {"shop", "a.-b", 400}, {"shop", ".a", 400}, {"shop", "a.", 400}, {"shop", "a:b", 400}, {"sh:op", "cart", 400},
		{"shop", "a%2Fb", 400}, {"shop", "a%00b", 400}, {"shop", "%C3%A9", 400}, {"shop", "a%20b", 400}, {"shop", "a_b", 400}, {"shop", "%2e%2e", 400},
	} {
		if code, raw := r.issue("local", c.namespace, c.name, "{}"); code != c.code || (raw != "") != (code == 201) {
			t.Errorf("%s/%s: %d, want %d", c.namespace, c.name, code, c.code)
		}
	}
}

func TestSpecsThatBreakARule(t *testing.T) {
	r := newRig(t)
	many := `"a"` + strings.Repeat(`,"a"`, 16)
	for _, spec := range []string{
		`{"expirationSeconds":599}`, `{"expirationSeconds":0}`, `{"expirationSeconds":-1}`, `{"expirationSeconds":86401}`, `{"expirationSeconds":9223372036854775807}`,
		`{"audiences":[""]}`, `{"audiences":["` + strings.Repeat("a", 601) + `"]}`, `{"audiences":[` + many + `]}`,
		`{"boundObjectRef":{"kind":"Secret","name":"s"}}`, `{"boundObjectRef":{"kind":"Node","name":"n"}}`, `{"boundObjectRef":{}}`,
		`{"boundObjectRef":{"kind":"Pod","apiVersion":"v2","name":"p"}}`, `{"boundObjectRef":{"kind":"Pod"}}`, `{"boundObjectRef":{"kind":"Pod","name":"a/b"}}`, `{"boundObjectRef":{"kind":"Pod","name":"p","uid":"x"}}`,
	} {
		if code, raw := r.issue("local", "shop", "cart", `{"spec":`+spec+`}`); code != 422 || raw != "" {
			t.Errorf("%.80s: %d, want 422", spec, code)
		}
	}
}

func TestTheLogHasTheSubjectAndNotTheToken(t *testing.T) {
	r := newRig(t)
	_, raw := r.issue("local", "shop", "cart", "{}")
	log := r.log.String()
	if !strings.Contains(log, "system:serviceaccount:shop:cart") || strings.Contains(log, raw[:20]) || strings.Contains(log, raw[len(raw)-20:]) {
		t.Errorf("log: %s", log)
	}
}
