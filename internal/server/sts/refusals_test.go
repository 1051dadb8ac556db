package sts_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
)

// Every refusal that this service can give, on the wire.
func TestRefusals(t *testing.T) {
	t.Parallel()
	g := start(t)
	lonely, _, err := g.dir.PutIdentity(t.Context(), directory.ManagedIdentity{ResourceID: "/x/lonely", Name: "lonely", TenantID: tenantID})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(changes map[string]any) url.Values {
		return g.withAssertion(g.issuer.sign(merge(g.assertion(), changes), nil))
	}
	header := func(changes map[string]any) url.Values {
		return g.withAssertion(g.issuer.sign(g.assertion(), changes))
	}
	form := func(f url.Values, changes map[string]string) url.Values {
		for k, v := range changes {
			if f.Set(k, v); v == "" {
				f.Del(k)
			}
		}
		return f
	}
	// A credential for each way in which an issuer's documents can be wrong.
	for _, name := range []string{"gone", "nojwks", "notjson", "liar", "badkeys"} {
		_, err := g.dir.PutFederated(t.Context(), g.mi.PrincipalID, directory.FederatedCredential{Name: name, Issuer: g.issuer.url(name), Subject: subject, Audiences: []string{audience}})
		if err != nil {
			t.Fatal(err)
		}
	}
	g.issuer.replace("/gone/.well-known/openid-configuration", "")
	g.issuer.replace("/nojwks/keys", "")
	g.issuer.replace("/notjson/.well-known/openid-configuration", "<html>")
	g.issuer.replace("/liar/.well-known/openid-configuration", fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, g.issuer.url("a"), g.issuer.url("a")+"keys"))
	g.issuer.replace("/badkeys/keys", `{"keys":[{"kty":"RSA","kid":"k1","n":"!","e":"AQAB"}]}`)

	now := g.clock().Unix()
	const token = "/oauth2/v2.0/token"
	for _, c := range []struct {
		name   string
		path   string
		form   url.Values
		status int
		oauth  string
		code   int
		says   string
	}{
		{"tenant is neither GUID nor domain", "/contoso" + token, g.federated(), 400, "invalid_request", 900023, "'contoso'"},
		{"tenant with a blank", "/a%20b.example" + token, g.federated(), 400, "invalid_request", 900023, "'a b.example'"},
		{"unknown tenant by id", "/" + otherID + token, g.federated(), 400, "invalid_request", 90002, "'" + otherID + "' not found"},
		{"unknown tenant by domain", "/fabrikam.example" + token, g.federated(), 400, "invalid_request", 90002, "'fabrikam.example'"},
		{"no tenant in particular", "/common" + token, g.federated(), 400, "invalid_request", 50059, ""},
		{"organizations", "/organizations" + token, g.federated(), 400, "invalid_request", 50059, ""},
		{"no client id", "", form(g.federated(), map[string]string{"client_id": ""}), 400, "invalid_request", 900144, "'client_id'"},
		{"unknown application", "", form(g.federated(), map[string]string{"client_id": otherID}), 400, "unauthorized_client", 700016, "'" + otherID + "' was not found in the directory 'Contoso'"},
		{"client id that is no GUID", "", form(g.federated(), map[string]string{"client_id": "web"}), 400, "unauthorized_client", 700016, "'web'"},
		{"no grant type", "", form(g.federated(), map[string]string{"grant_type": ""}), 400, "invalid_request", 900144, "'grant_type'"},
		{"unknown grant type", "", form(g.federated(), map[string]string{"grant_type": "magic"}), 400, "unsupported_grant_type", 70003, "'magic'"},
		{"password grant", "", form(g.federated(), map[string]string{"grant_type": "password"}), 400, "invalid_request", 900144, "'username'"},
		{"password at a client with a credential", "", form(g.federated(), map[string]string{"grant_type": "password", "username": userName, "password": password}), 401, "invalid_client", 7000218, g.mi.ClientID},
		{"no scope", "", form(g.federated(), map[string]string{"scope": ""}), 400, "invalid_request", 900144, "'scope'"},
		{"no resource at the v1 endpoint", "/" + tenantID + "/oauth2/token", g.federated(), 400, "invalid_request", 900144, "'resource'"},
		{"resource at the v2.0 endpoint", "", form(g.federated(), map[string]string{"resource": "https://vault.azure.net"}), 400, "invalid_request", 901002, ""},
		{"no assertion type", "", form(g.federated(), map[string]string{"client_assertion_type": ""}), 400, "invalid_request", 900144, "'client_assertion_type'"},
		{"another assertion type", "", form(g.federated(), map[string]string{"client_assertion_type": "saml"}), 400, "invalid_request", 9002313, ""},
		{"no credential", "", form(g.federated(), map[string]string{"client_assertion": ""}), 401, "invalid_client", 7000218, ""},
		{"two credentials", "", form(g.federated(), map[string]string{"client_secret": g.secret}), 400, "invalid_request", 9002313, ""},
		{"scope before the credential is right", "", form(g.bySecret(), map[string]string{"client_secret": "x", "scope": "bad"}), 401, "invalid_client", 7000215, ""},
		{"wrong secret", "", form(g.bySecret(), map[string]string{"client_secret": "x"}), 401, "invalid_client", 7000215, g.app.AppID},
		{"scope without .default", "", form(g.federated(), map[string]string{"scope": "https://vault.azure.net"}), 400, "invalid_scope", 1002012, "/.default"},
		{"two resources", "", form(g.federated(), map[string]string{"scope": "a/.default b/.default"}), 400, "invalid_scope", 70011, "a/.default b/.default"},
		{"unknown resource", "", form(g.federated(), map[string]string{"scope": "api://nothing/.default"}), 400, "invalid_resource", 500011, "named api://nothing was not found in the tenant named Contoso"},

		{"assertion is no JWT", "", g.withAssertion("x"), 400, "invalid_request", 50027, ""},
		{"client without credentials", "", form(g.federated(), map[string]string{"client_id": lonely.ClientID}), 401, "invalid_client", 70025, "'" + lonely.ClientID + "'(lonely)"},
		{"issuer", "", claims(map[string]any{"iss": "https://other.test/"}), 401, "invalid_client", 700211, "'https://other.test/'"},
		{"issuer without its slash", "", claims(map[string]any{"iss": strings.TrimSuffix(g.issuer.url("a"), "/")}), 401, "invalid_client", 700211, "must match exactly"},
		{"subject", "", claims(map[string]any{"sub": "system:serviceaccount:shop:wob"}), 401, "invalid_client", 700213, "'system:serviceaccount:shop:wob'"},
		{"subject in another case", "", claims(map[string]any{"sub": "system:serviceaccount:Shop:web"}), 401, "invalid_client", 7002138, "'system:serviceaccount:Shop:web'"},
		{"audience", "", claims(map[string]any{"aud": "api://other"}), 401, "invalid_client", 700212, "'api://other'"},
		{"audience in another case", "", claims(map[string]any{"aud": "api://azureadtokenexchange"}), 401, "invalid_client", 700212, ""},
		{"issuer is named before subject and audience", "", claims(map[string]any{"iss": "https://other.test/", "sub": "x", "aud": "y"}), 401, "invalid_client", 700211, ""},
		{"subject is named before audience", "", claims(map[string]any{"sub": "x", "aud": "y"}), 401, "invalid_client", 700213, ""},
		{"names are compared before times", "", claims(map[string]any{"aud": "y", "exp": now - 3600}), 401, "invalid_client", 700212, ""},
		{"expired", "", claims(map[string]any{"exp": now - 301, "nbf": now - 4000, "iat": now - 4000}), 401, "invalid_client", 700024, "2026-03-04T05:06:07.0000000Z"},
		{"not yet valid", "", claims(map[string]any{"nbf": now + 301}), 401, "invalid_client", 700024, ""},
		{"issued in the future", "", claims(map[string]any{"nbf": nil, "iat": now + 301}), 401, "invalid_client", 700024, ""},
		{"times are looked at before the signature", "", form(claims(map[string]any{"exp": now - 3600}), nil), 401, "invalid_client", 700024, ""},
		{"signature", "", g.withAssertion(sign(strangerKey(), map[string]any{"alg": "RS256", "kid": "k1"}, g.assertion())), 401, "invalid_client", 700027, "signature"},
		{"unknown key", "", header(map[string]any{"kid": "k9"}), 401, "invalid_client", 7000272, "'k9'"},
		{"no key id", "", header(map[string]any{"kid": nil}), 401, "invalid_client", 7000272, ""},
		{"discovery document is gone", "", claims(map[string]any{"iss": g.issuer.url("gone")}), 400, "invalid_request", 90061, "External OIDC endpoint"},
		{"keys are gone", "", claims(map[string]any{"iss": g.issuer.url("nojwks")}), 400, "invalid_request", 90061, ""},
		{"discovery document is not JSON", "", claims(map[string]any{"iss": g.issuer.url("notjson")}), 400, "invalid_request", 900612, ""},
		{"discovery document of another issuer", "", claims(map[string]any{"iss": g.issuer.url("liar")}), 400, "invalid_request", 900612, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t = t
			if c.path == "" {
				c.path = "/" + tenantID + token
			}
			a := g.do(post(ownHost, c.path, c.form.Encode()))
			g.refuse(a, c.status, c.oauth, c.code)
			if !strings.Contains(a.text("error_description"), c.says) {
				t.Errorf("%q does not say %q", a.text("error_description"), c.says)
			}
		})
	}
	g.t = t
	t.Run("keys that cannot be parsed", func(t *testing.T) {
		a := g.token(claims(map[string]any{"iss": g.issuer.url("badkeys")}))
		if a.code() != 900612 && a.code() != 7000272 {
			t.Errorf("AADSTS%d", a.code())
		}
	})
}

// A refused federated assertion tells the operator, and nobody else, which
// field differs, both values, and the nearest credential.
func TestOperatorLearnsWhatDiffers(t *testing.T) {
	t.Parallel()
	g := start(t)
	issuer := g.issuer.url("a")
	for _, c := range []struct {
		field, presented, expected, hint string
		change                           map[string]any
	}{
		{"issuer", strings.TrimSuffix(issuer, "/"), issuer, directory.HintSlash, map[string]any{"iss": strings.TrimSuffix(issuer, "/")}},
		{"subject", "system:serviceaccount:shop:wob", subject, "", map[string]any{"sub": "system:serviceaccount:shop:wob"}},
		{"subject", strings.ToUpper(subject), subject, directory.HintCase, map[string]any{"sub": strings.ToUpper(subject)}},
		{"audience", "api://a, api://b", audience, "", map[string]any{"aud": []string{"api://a", "api://b"}}},
	} {
		g.log.mu.Lock()
		g.log.b.Reset()
		g.log.mu.Unlock()
		jwt := g.issuer.sign(merge(g.assertion(), c.change), nil)
		a := g.token(g.withAssertion(jwt))
		if a.Code != 401 {
			t.Fatalf("%d: %s", a.Code, a.Body)
		}
		if c.expected != "" && strings.Contains(a.Body.String(), c.expected+"'") || strings.Contains(a.Body.String(), "kube") {
			t.Errorf("the client is told what is configured: %s", a.Body)
		}
		var rec map[string]any
		if err := json.Unmarshal([]byte(strings.SplitN(g.log.String(), "\n", 2)[0]), &rec); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(rec["level"], rec["field"], rec["presented"], rec["expected"], rec["nearest"], rec["client"], rec["request"])
		want := fmt.Sprint("INFO", c.field, c.presented, c.expected, "kube", g.mi.ClientID, a.text("trace_id"))
		if got != want {
			t.Errorf("log record\n%s, want\n%s", got, want)
		}
		if hint, _ := rec["hint"].(string); hint != c.hint {
			t.Errorf("hint %q, want %q", hint, c.hint)
		}
		line := g.lastAudit()
		for _, part := range []string{c.field, c.presented, c.expected, "kube", c.hint} {
			if !strings.Contains(line["reason"], part) {
				t.Errorf("audit reason %q lacks %q", line["reason"], part)
			}
		}
		if line["decision"] != "deny" || line["requestId"] != a.text("trace_id") {
			t.Errorf("audit line %v", line)
		}
		if strings.Contains(g.log.String()+g.audit.String(), strings.Split(jwt, ".")[2]) {
			t.Error("the assertion is in a log")
		}
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	t.Parallel()
	g := start(t)
	const id = "0a1b2c3d-0000-4000-8000-00000000abcd"
	ask := func(headers ...string) *answer {
		r := post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", "")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return g.do(r)
	}
	a := ask("client-request-id", strings.ToUpper(id), "return-client-request-id", "true")
	if a.text("correlation_id") != id || a.Header().Get("Client-Request-Id") != id {
		t.Errorf("correlation id %q, headers %v", a.text("correlation_id"), a.Header())
	}
	a = ask("client-request-id", id)
	if a.text("correlation_id") != id || a.Header().Get("Client-Request-Id") != "" {
		t.Errorf("correlation id %q, headers %v", a.text("correlation_id"), a.Header())
	}
	a = ask("client-request-id", "x\"y", "return-client-request-id", "true")
	if a.text("correlation_id") != a.text("trace_id") || a.Header().Get("Client-Request-Id") != "" {
		t.Errorf("correlation id %q, headers %v", a.text("correlation_id"), a.Header())
	}
}

// Whatever is presented comes back as one line of printable text of bounded
// length.
func TestEchoedValuesAreHarmless(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, evil := range []string{"a\r\nb", "a\x1b[31mb", "\u202egnihtemos", strings.Repeat("é", 5000), "<script>alert(1)</script>", "%s%d%!", "'\"\\"} {
		a := g.token(g.withAssertion(g.issuer.sign(merge(g.assertion(), map[string]any{"sub": evil}), nil)))
		g.refuse(a, 401, "invalid_client", 700213)
		d := a.text("error_description")
		if len(d) > 2000 || strings.ContainsAny(d, "\r\n\x1b\u202e") || strings.Contains(a.Body.String(), "<script>") {
			t.Errorf("%q is answered %s", evil, a.Body)
		}
	}
	a := g.get(ownHost, "/a%0d%0ab/v2.0/.well-known/openid-configuration")
	g.refuse(a, 400, "invalid_tenant", 900023)
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	g := start(t)
	const path = "/" + tenantID + "/oauth2/v2.0/token"
	for name, c := range map[string]struct {
		contentType, body string
		status, code      int
	}{
		"repeated parameter":         {"application/x-www-form-urlencoded", "client_id=a&client_id=a", 400, 9000411},
		"repeated under two codings": {"application/x-www-form-urlencoded", "client_id=a&client%5fid=b", 400, 9000411},
		"repeated and empty":         {"application/x-www-form-urlencoded", "scope=&scope=x", 400, 9000411},
		"bad percent encoding":       {"application/x-www-form-urlencoded", "client_id=%zz", 400, 9002313},
		"not UTF-8":                  {"application/x-www-form-urlencoded", "client_id=%ff", 400, 9002313},
		"JSON":                       {"application/json", `{"client_id":"x"}`, 400, 9002313},
		"no content type":            {"", "client_id=x", 400, 9002313},
		"bad content type":           {";;", "client_id=x", 400, 9002313},
		"another charset":            {"application/x-www-form-urlencoded; charset=utf-16", "client_id=x", 400, 9002313},
		"too many parameters":        {"application/x-www-form-urlencoded", manyParameters(101), 400, 9002313},
		"too large":                  {"application/x-www-form-urlencoded", "client_id=" + strings.Repeat("x", 128<<10), 413, 9002313},
		"far too large":              {"application/x-www-form-urlencoded", "client_id=" + strings.Repeat("x", 2<<20), 413, 9002313},
		"empty":                      {"application/x-www-form-urlencoded", "", 400, 900144},
		"only separators":            {"application/x-www-form-urlencoded", "&&&=&", 400, 900144},
	} {
		t.Run(name, func(t *testing.T) {
			g.t = t
			r := httptest.NewRequest("POST", "https://"+ownHost+path, strings.NewReader(c.body))
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			g.refuse(g.do(r), c.status, "invalid_request", c.code)
		})
	}
	g.t = t
	// Unknown parameters are nobody's business, and credentials in the query count for nothing.
	f := g.bySecret()
	f.Set("x-client-sku", "MSAL")
	f.Set("client_info", "1")
	g.accept(g.token(f))
	g.refuse(g.do(post(ownHost, path+"?"+g.bySecret().Encode(), "")), 400, "invalid_request", 900144)
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
		a := g.do(httptest.NewRequest(method, "https://"+ownHost+path, nil))
		g.refuse(a, 405, "invalid_request", 900561)
		if a.Header().Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", method, a.Header().Get("Allow"))
		}
	}
	r := post(ownHost, path, g.bySecret().Encode())
	r.Header["Authorization"] = []string{"Basic eDp5", "Basic eDp5"}
	g.refuse(g.do(r), 400, "invalid_request", 9002313)
	g.refuse(g.do(post(ownHost, "/"+tenantID+"/../"+tenantID+"/oauth2/token", "")), 400, "invalid_request", 9002313)
}

func manyParameters(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "p%d=v&", i)
	}
	return b.String()
}

func TestUnservedEndpoints(t *testing.T) {
	t.Parallel()
	g := start(t)
	for path, c := range map[string]struct {
		status int
		oauth  string
		code   int
	}{
		"/openid/userinfo":           {501, "invalid_request", 9002313},
		"/kerberos":                  {501, "invalid_request", 9002313},
		"/oauth2/v2.0/introspect":    {404, "invalid_request", 9002313},
		"/oauth2/v2.0/token/x":       {404, "invalid_request", 9002313},
		"":                           {404, "invalid_request", 9002313},
		"/v2.0/.well-known/anything": {404, "invalid_request", 9002313},
	} {
		for _, at := range []string{"/" + tenantID, "/common", "/adfs/aad/" + tenantID} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				g.refuse(g.do(httptest.NewRequest(method, "https://"+ownHost+at+path, nil)), c.status, c.oauth, c.code)
			}
		}
	}
	g.refuse(g.get(ownHost, "/"), 404, "invalid_request", 9002313)
	g.refuse(g.get("elsewhere.test", "/"), 404, "invalid_request", 9002313)
}

func TestIssuerThatFailsIsLeftAlone(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.issuer.replace("/a/.well-known/openid-configuration", "")
	g.refuse(g.token(g.federated()), 400, "invalid_request", 90061)
	before := g.issuer.hits
	for range 5 {
		g.refuse(g.token(g.federated()), 400, "invalid_request", 90061)
	}
	if g.issuer.hits != before {
		t.Errorf("asked %d more times", g.issuer.hits-before)
	}
	g.issuer.mu.Lock()
	delete(g.issuer.pages, "/a/.well-known/openid-configuration")
	g.issuer.mu.Unlock()
	g.advance(time.Minute)
	g.accept(g.token(g.federated()))
}
