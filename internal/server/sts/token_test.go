package sts_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/sts"
)

// claimsOf returns header and claims of a token, unverified.
func claimsOf(t *testing.T, raw string) (header, claims map[string]any) {
	t.Helper()
	for i, part := range strings.Split(raw, ".")[:2] {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, []*map[string]any{&header, &claims}[i]); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestFederatedExchange(t *testing.T) {
	t.Parallel()
	g := start(t)
	a := g.token(g.federated())
	g.accept(a)
	want := map[string]any{"token_type": "Bearer", "expires_in": 86400.0, "ext_expires_in": 86400.0, "refresh_in": 43200.0, "access_token": a.body["access_token"]}
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}
	if a.Header().Get("Cache-Control") != "no-store, no-cache" || a.Header().Get("Pragma") != "no-cache" {
		t.Errorf("headers %v", a.Header())
	}
	header, claims := claimsOf(t, a.text("access_token"))
	if header["alg"] != "ES256" || header["typ"] != "JWT" || header["kid"] == "" {
		t.Errorf("header %v", header)
	}
	now := float64(g.clock().Unix())
	wantClaims := map[string]any{
		"aud": "https://vault.azure.net", "iss": "https://" + ownHost + "/" + tenantID + "/", "idp": "https://" + ownHost + "/" + tenantID + "/",
		"iat": now, "nbf": now, "exp": now + 86400, "appid": g.mi.ClientID, "appidacr": "2", "idtyp": "app", "ver": "1.0",
		"oid": g.mi.PrincipalID, "sub": g.mi.PrincipalID, "tid": tenantID, "uti": claims["uti"], "xms_mirid": g.mi.ResourceID,
	}
	if diff := cmp.Diff(wantClaims, claims); diff != "" {
		t.Error(diff)
	}
	wantAudit := map[string]string{
		"plane": "login", "operationName": "TokenIssue", "decision": "allow", "resourceId": "https://vault.azure.net",
		"via": "federatedIdentityCredentials/kube", "oid": g.mi.PrincipalID, "appid": g.mi.ClientID, "tid": tenantID, "name": "Web",
	}
	if diff := cmp.Diff(wantAudit, g.lastAudit(), cmpopts.IgnoreMapEntries(func(k, _ string) bool { return k == "time" || k == "requestId" || k == "callerIpAddress" })); diff != "" {
		t.Error(diff)
	}
	t.Run("the keys are fetched once", func(t *testing.T) {
		before := g.issuer.hits
		for range 3 {
			g.accept(g.token(g.federated()))
		}
		if g.issuer.hits != before {
			t.Errorf("%d more requests to the issuer", g.issuer.hits-before)
		}
	})
	t.Run("again with the same assertion", func(t *testing.T) {
		f := g.federated()
		g.accept(g.token(f))
		g.accept(g.token(f))
	})
	t.Run("token of a key that appeared later", func(t *testing.T) {
		g.issuer.replace("/a/keys", jwks("k2", &strangerKey().PublicKey))
		g.advance(time.Minute)
		jwt := sign(strangerKey(), map[string]any{"alg": "RS256", "kid": "k2"}, g.assertion())
		g.accept(g.token(g.withAssertion(jwt)))
	})
}

func TestResources(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, a := range []directory.Application{
		{DisplayName: "orders", IdentifierURIs: []string{"api://orders", "https://orders.contoso.example/"}, TokenVersion: 1},
		{DisplayName: "billing", AppID: "5ca1ab1e-0000-4000-8000-000000000001", IdentifierURIs: []string{"api://billing"}, TokenVersion: 2},
	} {
		a.TenantID = tenantID
		if _, err := g.dir.CreateApplication(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		host, scope, aud, alg, ver string
	}{
		{ownHost, "https://vault.azure.net/.default", "https://vault.azure.net", "ES256", "1.0"},
		{ownHost, "https://vault.azure.net//.default", "https://vault.azure.net/", "ES256", "1.0"},
		{ownHost, "https://vault.azure.net/.default openid offline_access profile", "https://vault.azure.net", "ES256", "1.0"},
		{ownHost, "  openid  https://vault.azure.net/.default ", "https://vault.azure.net", "ES256", "1.0"},
		{ownHost, "HTTPS://Vault.Azure.Net/.default", "https://vault.azure.net", "ES256", "1.0"},
		{ownHost, "cfa8b339-82a2-471a-a3c9-0fc0be7a4093/.default", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "ES256", "1.0"},
		{ownHost, "https://vault.podkey.test:8443/.default", "https://vault.podkey.test:8443", "ES256", "1.0"},
		{azureHost, "https://vault.podkey.test:8443/.default", "https://vault.podkey.test:8443", "ES256", "1.0"},
		{azureHost, "https://vault.azure.net/.default", "https://vault.azure.net", "ES256", "1.0"},
		{ownHost, "https://management.azure.com/.default", "https://management.azure.com", "ES256", "1.0"},
		{ownHost, "https://management.core.windows.net//.default", "https://management.core.windows.net/", "ES256", "1.0"},
		{ownHost, "https://management.podkey.test:8443/.default", "https://management.podkey.test:8443", "ES256", "1.0"},
		{bareHost, "https://127.0.0.1:8443//.default", "https://graph.podkey.test:8443", "ES256", "1.0"},
		{ownHost, "https://graph.microsoft.com/.default", "https://graph.microsoft.com", "ES256", "1.0"},
		{ownHost, "00000003-0000-0000-c000-000000000000/.default", "00000003-0000-0000-c000-000000000000", "ES256", "1.0"},
		{ownHost, "https://graph.podkey.test:8443/.default", "https://graph.podkey.test:8443", "ES256", "1.0"},
		{ownHost, "https://graph.windows.net//.default", "https://graph.windows.net/", "RS256", "1.0"},
		{ownHost, "api://AzureADTokenExchange/.default", "fb60f99c-7a34-4190-8149-302f77469936", "RS256", "2.0"},
		{ownHost, "api://orders/.default", "api://orders", "RS256", "1.0"},
		{ownHost, "https://orders.contoso.example//.default", "https://orders.contoso.example/", "RS256", "1.0"},
		{ownHost, "api://billing/.default", "5ca1ab1e-0000-4000-8000-000000000001", "RS256", "2.0"},
		{ownHost, "5ca1ab1e-0000-4000-8000-000000000001/.default", "5ca1ab1e-0000-4000-8000-000000000001", "RS256", "2.0"},
	} {
		f := g.bySecret()
		f.Set("scope", c.scope)
		a := g.do(post(c.host, "/"+tenantID+"/oauth2/v2.0/token", f.Encode()))
		g.accept(a)
		header, claims := claimsOf(t, a.text("access_token"))
		if claims["aud"] != c.aud || header["alg"] != c.alg || claims["ver"] != c.ver {
			t.Errorf("%s: aud %v, alg %v, ver %v", c.scope, claims["aud"], header["alg"], claims["ver"])
		}
		if c.ver == "2.0" && (claims["azp"] != g.app.AppID || claims["azpacr"] != "1" || claims["appid"] != nil || claims["idp"] != nil || claims["iss"] != "https://"+c.host+"/"+tenantID+"/v2.0") {
			t.Errorf("%s: claims %v", c.scope, claims)
		}
		if c.ver == "1.0" && (claims["appid"] != g.app.AppID || claims["appidacr"] != "1" || claims["azp"] != nil) {
			t.Errorf("%s: claims %v", c.scope, claims)
		}
		if c.alg == "RS256" && c.ver == "1.0" && header["x5t"] == nil {
			t.Errorf("%s: header %v", c.scope, header)
		}
	}
	for _, c := range []struct {
		scope, oauth string
		code         int
	}{
		{"https://vault.azure.net.evil.test/.default", "invalid_resource", 500011},
		{"https://vault.azure.net///.default", "invalid_resource", 500011},
		{"http://vault.azure.net/.default", "invalid_resource", 500011},
		{"https://storage.azure.com/.default", "invalid_resource", 500011},
		{"api://orders//.default", "invalid_resource", 500011},
		{"api://unknown/.default", "invalid_resource", 500011},
		{"https://vault.azure.net", "invalid_scope", 1002012},
		{"https://vault.azure.net/user_impersonation", "invalid_scope", 1002012},
		{".default", "invalid_scope", 1002012},
		{"https://vault.azure.net/.Default", "invalid_scope", 1002012},
		{"/.default", "invalid_scope", 70011},
		{"openid profile", "invalid_scope", 70011},
		{" ", "invalid_scope", 70011},
		{"https://vault.azure.net/.default https://graph.microsoft.com/.default", "invalid_scope", 70011},
		{"https://vault.azure.net\t/.default", "invalid_scope", 70011},
		{"https://vault.azure.net\"/.default", "invalid_scope", 70011},
	} {
		f := g.bySecret()
		f.Set("scope", c.scope)
		g.refuse(g.token(f), 400, c.oauth, c.code)
	}
	t.Run("disabled application", func(t *testing.T) {
		r, _, err := g.dir.Resource(t.Context(), tenantID, "api://orders")
		if err != nil {
			t.Fatal(err)
		}
		apps, err := g.dir.Applications(t.Context(), tenantID)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range apps {
			if a.AppID == r.AppID {
				_, err = g.dir.UpdateApplication(t.Context(), a.ObjectID, func(a *directory.Application) error { a.Enabled = false; return nil })
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		f := g.bySecret()
		f.Set("scope", "api://orders/.default")
		g.refuse(g.token(f), 400, "invalid_resource", 500014)
	})
}

func TestV1Endpoint(t *testing.T) {
	t.Parallel()
	g := start(t)
	f := g.bySecret()
	f.Del("scope")
	f.Set("resource", "https://vault.azure.net/")
	a := g.do(post(ownHost, "/"+tenantID+"/oauth2/token", f.Encode()))
	c := g.accept(a)
	want := map[string]any{
		"token_type": "Bearer", "expires_in": "4500", "ext_expires_in": "4500", "not_before": "1772600767", "expires_on": "1772605267",
		"resource": "https://vault.azure.net/", "access_token": a.body["access_token"],
	}
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}
	if c.Audience != "https://vault.azure.net/" {
		t.Errorf("aud %q", c.Audience)
	}
	f.Del("resource")
	f.Set("scope", "openid")
	g.refuse(g.do(post(ownHost, "/"+tenantID+"/oauth2/token", f.Encode())), 400, "invalid_request", 900144)
}

func TestIssuersFollowTheNames(t *testing.T) {
	t.Parallel()
	g := start(t)
	for host, iss := range map[string]string{
		ownHost:    "https://" + ownHost + "/" + tenantID + "/",
		regionHost: "https://" + ownHost + "/" + tenantID + "/",
		bareHost:   "https://" + ownHost + "/" + tenantID + "/",
		azureHost:  "https://sts.windows.net/" + tenantID + "/",
	} {
		for _, path := range []string{"/" + tenantID, "/CONTOSO.example", "/" + strings.ToUpper(tenantID), "/adfs", "/adfs/aad/" + tenantID} {
			a := g.do(post(host, path+"/oauth2/v2.0/token", g.bySecret().Encode()))
			if c := g.accept(a); c.Issuer != iss || c.TenantID != tenantID {
				t.Errorf("%s%s: issuer %q, tid %q", host, path, c.Issuer, c.TenantID)
			}
		}
	}
	// The fixed parts of paths are matched in any case, too.
	g.accept(g.do(post(ownHost, "/"+tenantID+"/OAuth2/V2.0/Token", g.bySecret().Encode())))
}

func TestClientsKnownByTheirCapabilities(t *testing.T) {
	t.Parallel()
	g := start(t)
	f := g.bySecret()
	f.Set("claims", `{"access_token":{"xms_cc":{"values":["CP1"]}}}`)
	a := g.token(f)
	if c := g.accept(a); !cmp.Equal(c.CC, []string{"cp1"}) || a.body["expires_in"] != 86400.0 {
		t.Errorf("xms_cc %v, expires_in %v", c.CC, a.body["expires_in"])
	}
	// Whoever owns another resource does not tell its clients anything.
	f.Set("scope", "https://graph.windows.net/.default")
	a = g.token(f)
	if c := g.accept(a); c.CC != nil || a.body["expires_in"] != 4500.0 {
		t.Errorf("xms_cc %v, expires_in %v", c.CC, a.body["expires_in"])
	}
	f.Set("scope", vaultScope)
	for _, harmless := range []string{`{}`, `null`, `{"access_token":null}`, `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`, `{"access_token":{"xms_cc":{"values":["x"]}}}`} {
		f.Set("claims", harmless)
		a := g.token(f)
		if c := g.accept(a); c.CC != nil || a.body["expires_in"] != 4500.0 || a.body["refresh_in"] != nil {
			t.Errorf("%s: xms_cc %v, answer %v", harmless, c.CC, a.body)
		}
	}
	for _, bad := range []string{`{`, `[]`, `"x"`, `{"access_token":{"xms_cc":{"values":"cp1"}}}`} {
		f.Set("claims", bad)
		g.refuse(g.token(f), 400, "invalid_request", 9002313)
	}
}

func TestLifetimes(t *testing.T) {
	t.Run("as in Entra", func(t *testing.T) {
		t.Parallel()
		g := start(t, func(h *sts.Handler) { h.Lifetime = nil })
		seen := map[any]bool{}
		for range 12 {
			n := g.token(g.bySecret()).body["expires_in"]
			seen[n] = true
			if n.(float64) < 3600 || n.(float64) > 5400 {
				t.Errorf("expires_in %v", n)
			}
		}
		if len(seen) < 2 {
			t.Error("lifetimes are not spread")
		}
		if n := g.token(g.federated()).body["expires_in"]; n != 86400.0 {
			t.Errorf("a managed identity's expires_in is %v", n)
		}
	})
	t.Run("never longer than the keys are kept", func(t *testing.T) {
		var life time.Duration
		t.Parallel()
		g := start(t, func(h *sts.Handler) { h.Lifetime = func(bool) time.Duration { return life } })
		for d, want := range map[time.Duration]float64{48 * time.Hour: 86400, 0: 1, -time.Hour: 1, 1500 * time.Millisecond: 1} {
			life = d
			if n := g.token(g.bySecret()).body["expires_in"]; n != want {
				t.Errorf("lifetime %v: expires_in %v", d, n)
			}
		}
	})
}

func TestClientSecret(t *testing.T) {
	t.Parallel()
	g := start(t)
	c := g.accept(g.token(g.bySecret()))
	if c.ObjectID != g.sp.ObjectID || c.AppIDACR != "1" {
		t.Errorf("%+v", c)
	}
	if via := g.lastAudit()["via"]; via != "secret/"+g.secID {
		t.Errorf("via %q", via)
	}
	const chosen = "correct horse battery" // by a person, so it is hashed slowly
	if _, _, err := g.dir.AddSecret(t.Context(), g.app.ObjectID, directory.NewSecret{Text: chosen, End: g.clock().Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	with := func(changes map[string]string) url.Values {
		f := g.bySecret()
		for k, v := range changes {
			f.Set(k, v)
		}
		return f
	}
	g.accept(g.token(with(map[string]string{"client_secret": chosen})))
	g.accept(g.token(with(map[string]string{"client_id": strings.ToUpper(g.app.AppID)})))
	for _, wrong := range []string{"x", g.secret + " ", g.secret[1:], strings.ToLower(g.secret), g.secID} {
		g.refuse(g.token(with(map[string]string{"client_secret": wrong})), 401, "invalid_client", 7000215)
	}
	line := g.lastAudit()
	if line["decision"] != "deny" || line["appid"] != g.app.AppID || line["oid"] != "" || !strings.HasPrefix(line["reason"], "AADSTS7000215") {
		t.Errorf("audit line %v", line)
	}
	// Managed identities have no secrets.
	g.refuse(g.token(with(map[string]string{"client_id": g.mi.ClientID})), 401, "invalid_client", 7000215)

	t.Run("HTTP Basic", func(t *testing.T) {
		ask := func(id, secret string, f url.Values) *answer {
			r := post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", f.Encode())
			r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
			return g.do(r)
		}
		f := g.bySecret()
		f.Del("client_secret")
		g.accept(ask(g.app.AppID, g.secret, f))
		f.Del("client_id")
		g.accept(ask(g.app.AppID, chosen, f)) // has blanks
		a := ask(g.app.AppID, "wrong", f)
		g.refuse(a, 401, "invalid_client", 7000215)
		if a.Header().Get("WWW-Authenticate") != "Basic" {
			t.Errorf("headers %v", a.Header())
		}
		f.Set("client_id", g.mi.ClientID)
		g.refuse(ask(g.app.AppID, g.secret, f), 400, "invalid_request", 9002313)
		g.refuse(ask(g.app.AppID, g.secret, g.bySecret()), 400, "invalid_request", 9002313)
		g.refuse(ask("", g.secret, url.Values{}), 400, "invalid_request", 900144)
		for _, header := range []string{"Basic", "Basic !", "Basic " + base64.StdEncoding.EncodeToString([]byte("nocolon")), "Basic " + base64.StdEncoding.EncodeToString([]byte("a%zz:b"))} {
			r := post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", g.bySecret().Encode())
			r.Header.Set("Authorization", header)
			g.refuse(g.do(r), 400, "invalid_request", 9002313)
		}
	})
	t.Run("expired and not yet valid", func(t *testing.T) {
		g.advance(24 * time.Hour)
		g.refuse(g.token(with(map[string]string{"client_secret": chosen})), 401, "invalid_client", 7000222)
		_, text, err := g.dir.AddSecret(t.Context(), g.app.ObjectID, directory.NewSecret{Start: g.clock().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		g.refuse(g.token(with(map[string]string{"client_secret": text})), 401, "invalid_client", 7000215)
		g.advance(time.Hour)
		g.accept(g.token(with(map[string]string{"client_secret": text})))
	})
	t.Run("secrets are nowhere in writing", func(t *testing.T) {
		for _, text := range []string{g.audit.String(), g.log.String()} {
			for _, secret := range []string{g.secret, chosen, url.QueryEscape(chosen)} {
				if strings.Contains(text, secret) {
					t.Errorf("found a secret in %s", text)
				}
			}
		}
	})
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	g := start(t)
	x5t, x5tS256 := directory.Thumbprints(clientCertificate())
	std := func(s string) string {
		b, _ := base64.RawURLEncoding.DecodeString(s)
		return base64.StdEncoding.EncodeToString(b)
	}
	for name, header := range map[string]map[string]any{
		"x5t":                    {},
		"x5t in standard base64": {"x5t": std(x5t)},
		"x5t#S256":               {"x5t": nil, "x5t#S256": x5tS256},
		"x5t#S256 in std base64": {"x5t": nil, "x5t#S256": std(x5tS256)},
		"both":                   {"x5t#S256": x5tS256},
		"with chain":             {"x5c": []string{base64.StdEncoding.EncodeToString(clientCertificate())}},
	} {
		for _, alg := range []string{"RS256", "PS256"} {
			if c := g.accept(g.token(g.byCertificate(alg, header, nil))); c.AppIDACR != "2" || c.ObjectID != g.sp.ObjectID {
				t.Errorf("%s %s: %+v", name, alg, c)
			}
		}
	}
	if via := g.lastAudit()["via"]; !strings.HasPrefix(via, "certificate/") {
		t.Errorf("via %q", via)
	}
	for _, aud := range []any{
		"https://" + ownHost + "/" + tenantID + "/oauth2/v2.0/token", "https://" + ownHost + "/" + tenantID + "/oauth2/token",
		"https://" + azureHost + "/" + tenantID + "/oauth2/v2.0/token", "https://" + azureHost + "/" + strings.ToUpper(tenantID) + "/v2.0",
		"https://sts.windows.net/" + tenantID + "/", "https://" + ownHost + "/contoso.example/oauth2/v2.0/token",
		"https://" + ownHost + "/adfs/aad/" + tenantID + "/oauth2/v2.0/token", "https://" + ownHost + "/" + tenantID + "/",
		[]string{"x", "https://" + ownHost + "/" + tenantID + "/v2.0"},
	} {
		if a := g.token(g.byCertificate("RS256", nil, map[string]any{"aud": aud})); a.Code != 200 {
			t.Errorf("aud %v: %s", aud, a.Body)
		}
	}
	regional := g.byCertificate("PS256", nil, map[string]any{"aud": "https://" + regionHost + "/" + tenantID + "/oauth2/v2.0/token"})
	g.accept(g.do(post(regionHost, "/"+tenantID+"/oauth2/v2.0/token", regional.Encode())))
	implicit := g.byCertificate("PS256", nil, map[string]any{"aud": "https://" + ownHost + "/adfs/oauth2/token"})
	g.accept(g.do(post(ownHost, "/adfs/oauth2/v2.0/token", implicit.Encode())))
	g.refuse(g.token(implicit), 401, "invalid_client", 700023)

	now := g.clock().Unix()
	stranger := base64.StdEncoding.EncodeToString(certificate(strangerKey()))
	strangerX5t, _ := directory.Thumbprints(certificate(strangerKey()))
	for _, c := range []struct {
		name           string
		header, claims map[string]any
		oauth          string
		status, code   int
	}{
		{"another client's iss", nil, map[string]any{"iss": g.mi.ClientID}, "invalid_client", 401, 700021},
		{"another client's sub", nil, map[string]any{"sub": g.mi.ClientID}, "invalid_client", 401, 700021},
		{"another host's aud", nil, map[string]any{"aud": "https://evil.test/" + tenantID + "/oauth2/v2.0/token"}, "invalid_client", 401, 700023},
		{"another tenant's aud", nil, map[string]any{"aud": "https://" + ownHost + "/" + otherID + "/oauth2/v2.0/token"}, "invalid_client", 401, 700023},
		{"host that only begins like ours", nil, map[string]any{"aud": "https://" + ownHost + ".evil.test/" + tenantID + "/oauth2/v2.0/token"}, "invalid_client", 401, 700023},
		{"common's aud", nil, map[string]any{"aud": "https://" + ownHost + "/common/oauth2/v2.0/token"}, "invalid_client", 401, 700023},
		{"aud with another endpoint", nil, map[string]any{"aud": "https://" + ownHost + "/" + tenantID + "/oauth2/v2.0/authorize"}, "invalid_client", 401, 700023},
		{"aud of the token exchange", nil, map[string]any{"aud": audience}, "invalid_client", 401, 700023},
		{"expired", nil, map[string]any{"exp": now - 301}, "invalid_client", 401, 700024},
		{"not yet valid", nil, map[string]any{"nbf": now + 301}, "invalid_client", 401, 700024},
		{"valid for years", nil, map[string]any{"exp": now + 90*86400}, "invalid_client", 401, 700024},
		{"no thumbprint", map[string]any{"x5t": nil}, nil, "invalid_client", 401, 700027},
		{"unknown thumbprint", map[string]any{"x5t": "AAAAAAAAAAAAAAAAAAAAAAAAAAA"}, nil, "invalid_client", 401, 700027},
		{"thumbprints of two certificates", map[string]any{"x5t#S256": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"}, nil, "invalid_client", 401, 700027},
		{"thumbprint that is not base64", map[string]any{"x5t": "??"}, nil, "invalid_client", 401, 700027},
		{"chain of a stranger", map[string]any{"x5t": strangerX5t, "x5c": []string{stranger}}, nil, "invalid_client", 401, 700027},
		{"only a chain", map[string]any{"x5t": nil, "x5c": []string{base64.StdEncoding.EncodeToString(clientCertificate())}}, nil, "invalid_client", 401, 700027},
		{"no exp", nil, map[string]any{"exp": nil}, "invalid_request", 400, 50027},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.refuse(g.token(g.byCertificate("RS256", c.header, c.claims)), c.status, c.oauth, c.code)
		})
	}
	t.Run("certificate expired", func(t *testing.T) {
		g.advance(302 * 24 * time.Hour) // into 2026-12-31
		g.accept(g.token(g.byCertificate("RS256", nil, nil)))
		g.advance(24 * time.Hour)
		g.refuse(g.token(g.byCertificate("RS256", nil, nil)), 401, "invalid_client", 700027)
	})
}

func TestNoTokenWithoutAuditLine(t *testing.T) {
	t.Parallel()
	g := start(t)
	g.audit.mu.Lock()
	g.audit.fail = errors.New("disk full")
	g.audit.mu.Unlock()
	g.refuse(g.token(g.bySecret()), 500, "server_error", 50000)
	f := g.bySecret()
	f.Set("client_secret", "wrong")
	g.refuse(g.token(f), 500, "server_error", 50000)
}

func TestDisabledAndIncompleteClients(t *testing.T) {
	t.Parallel()
	g := start(t)
	if err := g.dir.EnableServicePrincipal(t.Context(), g.sp.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(g.bySecret()), 400, "unauthorized_client", 7000112)
	if err := g.dir.EnableServicePrincipal(t.Context(), g.sp.ObjectID, true); err != nil {
		t.Fatal(err)
	}
	g.accept(g.token(g.bySecret()))
	_, err := g.dir.UpdateApplication(t.Context(), g.app.ObjectID, func(a *directory.Application) error { a.PublicClient = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(g.bySecret()), 401, "invalid_client", 700025)
	_, err = g.dir.UpdateApplication(t.Context(), g.app.ObjectID, func(a *directory.Application) error { a.Enabled = false; return nil })
	if err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(g.bySecret()), 400, "unauthorized_client", 7000112)

	bare, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID})
	if err != nil {
		t.Fatal(err)
	}
	f := g.bySecret()
	f.Set("client_id", bare.AppID)
	g.refuse(g.token(f), 400, "unauthorized_client", 7000229)
}

func TestRealmOfOneClientIsNotAnothers(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, DisplayName: "Fabrikam", Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{otherID, "fabrikam.example"} {
		g.refuse(g.do(post(ownHost, "/"+tenant+"/oauth2/v2.0/token", g.bySecret().Encode())), 400, "unauthorized_client", 700016)
		g.refuse(g.do(post(ownHost, "/"+tenant+"/oauth2/v2.0/token", g.federated().Encode())), 400, "unauthorized_client", 700016)
	}
	// With two tenants a path without one says nothing.
	g.refuse(g.do(post(ownHost, "/adfs/oauth2/token", g.bySecret().Encode())), 400, "invalid_request", 50059)
}
