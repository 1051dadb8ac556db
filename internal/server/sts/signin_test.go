package sts_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/server/sts"
)

// byPassword is the form of az login -u -p.
func byPassword(name, pass string) url.Values {
	return url.Values{
		"client_id": {azCLI}, "grant_type": {"password"}, "client_info": {"1"}, "username": {name}, "password": {pass},
		"claims": {`{"access_token": {"xms_cc": {"values": ["CP1"]}}}`}, "scope": {azScope},
	}
}

func byRefresh(token, scope string) url.Values {
	return url.Values{"client_id": {azCLI}, "grant_type": {"refresh_token"}, "client_info": {"1"}, "refresh_token": {token}, "scope": {scope}}
}

// tokenAt posts a form to a tenant's v2.0 endpoint.
func (g *rig) tokenAt(host, tenant string, f url.Values) *answer {
	g.t.Helper()
	return g.do(post(host, "/"+tenant+"/oauth2/v2.0/token", f.Encode()))
}

// signIn is az login -u -p.
func (g *rig) signIn() *answer {
	g.t.Helper()
	a := g.tokenAt(ownHost, "organizations", byPassword(userName, password))
	if a.Code != 200 {
		g.t.Fatalf("sign-in: %s", a.Body)
	}
	return a
}

func TestPasswordGrant(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, c := range []struct{ host, tenant, issuer string }{
		{ownHost, "organizations", "https://" + ownHost},
		{ownHost, "common", "https://" + ownHost},
		{ownHost, tenantID, "https://" + ownHost},
		{ownHost, "contoso.example", "https://" + ownHost},
		{azureHost, "organizations", "https://" + azureHost},
		{bareHost, "adfs/aad/organizations", "https://" + bareHost},
	} {
		a := g.tokenAt(c.host, c.tenant, byPassword(strings.ToUpper(userName), password))
		access := g.accept(a)
		if access.ObjectID != g.user.ObjectID || access.UPN != userName || access.Unique != userName || access.Name != "Ada" ||
			access.Scope != "user_impersonation" || access.IDType != "user" || access.AppID != azCLI || access.AppIDACR != "0" || access.TenantID != tenantID ||
			access.Version != "1.0" || access.Audience != "https://management.core.windows.net/" || !cmp.Equal(access.AMR, []string{"pwd"}) ||
			access.Subject == access.ObjectID || access.SessionID == "" || !cmp.Equal(access.CC, []string{"cp1"}) {
			t.Errorf("%s: %+v", c.tenant, access)
		}
		if a.text("scope") != azScope || a.body["expires_in"] != 4500.0 || a.text("token_type") != "Bearer" || a.text("refresh_token") == "" {
			t.Errorf("%s: %s", c.tenant, a.Body)
		}
		info := map[string]string{}
		b, err := base64.RawURLEncoding.DecodeString(a.text("client_info"))
		if err != nil || json.Unmarshal(b, &info) != nil || info["uid"] != g.user.ObjectID || info["utid"] != tenantID {
			t.Errorf("client_info %s", b)
		}
		header, id := claimsOf(t, a.text("id_token"))
		want := map[string]any{
			"aud": azCLI, "iss": c.issuer + "/" + tenantID + "/v2.0", "oid": g.user.ObjectID, "tid": tenantID, "ver": "2.0", "name": "Ada",
			"preferred_username": userName, "sub": access.Subject, "sid": access.SessionID, "amr": []any{"pwd"}, "uti": id["uti"],
			"iat": float64(access.IssuedAt), "nbf": float64(access.IssuedAt), "exp": float64(access.Expiry), "auth_time": float64(access.IssuedAt),
		}
		if diff := cmp.Diff(want, id); diff != "" || header["alg"] != "RS256" {
			t.Errorf("id token: %v %s", header, diff)
		}
		if line := g.lastAudit(); line["oid"] != g.user.ObjectID || line["appid"] != azCLI || line["decision"] != "allow" || line["name"] != userName || line["via"] != "password/"+access.SessionID {
			t.Errorf("audit %v", line)
		}
	}
	// Nothing about the person that was not asked for.
	f := byPassword(userName, password)
	f.Set("scope", vaultScope)
	f.Del("client_info")
	a := g.tokenAt(ownHost, tenantID, f)
	if c := g.accept(a); c.Audience != "https://vault.azure.net" || a.body["refresh_token"] != nil || a.body["id_token"] != nil || a.body["client_info"] != nil {
		t.Errorf("%s", a.Body)
	}
	g.noSecrets(password, a.text("access_token"))
}

// noSecrets checks that log and audit have none of the texts.
func (g *rig) noSecrets(texts ...string) {
	g.t.Helper()
	for _, s := range texts {
		if s == "" {
			g.t.Error("an empty secret")
		} else if strings.Contains(g.log.String(), s) || strings.Contains(g.audit.String(), s) {
			g.t.Errorf("a secret that begins with %.5s is in log or audit", s)
		}
	}
}

func TestPasswordGrantV1(t *testing.T) {
	t.Parallel()
	g := start(t)
	a := g.do(post(ownHost, "/common/oauth2/token", url.Values{
		"client_id": {azCLI}, "grant_type": {"password"}, "username": {userName}, "password": {password}, "resource": {"https://vault.azure.net"},
	}.Encode()))
	if c := g.accept(a); c.Audience != "https://vault.azure.net" || a.text("scope") != "user_impersonation" || a.text("expires_in") != "4500" || a.text("resource") != "https://vault.azure.net" {
		t.Errorf("%s", a.Body)
	}
	if _, id := claimsOf(t, a.text("id_token")); id["ver"] != "1.0" || id["upn"] != userName || id["iss"] != "https://"+ownHost+"/"+tenantID+"/" {
		t.Errorf("id token %v", id)
	}
	// A refresh token is for all resources, with the first one as default.
	again := url.Values{"client_id": {azCLI}, "grant_type": {"refresh_token"}, "refresh_token": {a.text("refresh_token")}}
	if c := g.accept(g.do(post(ownHost, "/common/oauth2/token", again.Encode()))); c.Audience != "https://vault.azure.net" {
		t.Errorf("aud %q", c.Audience)
	}
	again.Set("resource", "https://graph.windows.net/")
	if c := g.accept(g.do(post(ownHost, "/common/oauth2/token", again.Encode()))); c.Audience != "https://graph.windows.net/" {
		t.Errorf("aud %q", c.Audience)
	}
}

func TestPasswordRefusals(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	off, err := g.dir.CreateUser(t.Context(), directory.User{TenantID: tenantID, UserPrincipalName: "off@contoso.example"}, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.dir.EnableUser(t.Context(), off.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	// Whatever is wrong, the answer is the same to the letter.
	var first string
	for _, c := range []struct{ tenant, name, pass string }{
		{"organizations", userName, wrong},
		{"organizations", "nobody@contoso.example", password},
		{"organizations", "ada@nowhere.example", password},
		{"organizations", "ada", password},
		{"organizations", g.user.ObjectID, password},
		{"organizations", g.user.ObjectID + "@contoso.example", password},
		{otherID, userName, password}, // the password is right, the tenant is not
		{tenantID, "off@contoso.example", password},
		{tenantID, userName, strings.Repeat("x", 300)},
	} {
		g.advance(time.Minute)
		a := g.tokenAt(ownHost, c.tenant, byPassword(c.name, c.pass))
		g.refuse(a, 400, "invalid_grant", 50126)
		text, _, _ := strings.Cut(a.text("error_description"), "Trace ID")
		if first == "" {
			first = text
		}
		if text != first {
			t.Errorf("%s at %s: %q, others %q", c.name, c.tenant, text, first)
		}
		if line := g.lastAudit(); line["decision"] != "deny" || line["appid"] != azCLI {
			t.Errorf("audit %v", line)
		}
	}
	g.noSecrets(wrong, password)

	without := func(name string) url.Values { f := byPassword(userName, password); f.Del(name); return f }
	with := func(name, value string) url.Values { f := byPassword(userName, password); f.Set(name, value); return f }
	app, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID, DisplayName: "Phone", PublicClient: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, tenant string
		f            url.Values
		status       int
		oauth        string
		code         int
	}{
		{"no user name", tenantID, without("username"), 400, "invalid_request", 900144},
		{"no password", tenantID, without("password"), 400, "invalid_request", 900144},
		{"no scope", tenantID, without("scope"), 400, "invalid_request", 900144},
		{"resource at v2", tenantID, with("resource", "https://vault.azure.net"), 400, "invalid_request", 901002},
		{"a secret of a public client", tenantID, with("client_secret", "x"), 401, "invalid_client", 700025},
		{"a confidential client", tenantID, with("client_id", g.app.AppID), 401, "invalid_client", 7000218},
		{"an application without its tenant", "organizations", with("client_id", app.AppID), 400, "invalid_request", 50194},
		{"unknown client", tenantID, with("client_id", otherID), 400, "unauthorized_client", 700016},
		{"unknown resource", tenantID, with("scope", "api://nothing/.default"), 400, "invalid_resource", 500011},
		{"two resources", tenantID, with("scope", "https://vault.azure.net/.default https://graph.microsoft.com/.default"), 400, "invalid_scope", 28000},
		{"unknown permission", tenantID, with("scope", "https://graph.microsoft.com/User.Read"), 400, "invalid_scope", 65005},
		{"nonsense", tenantID, with("scope", "nonsense"), 400, "invalid_scope", 70011},
		{"client credentials of a public client", tenantID, with("grant_type", "client_credentials"), 401, "invalid_client", 7000218},
	} {
		t.Run(c.what, func(t *testing.T) { g.refuse(g.tokenAt(ownHost, c.tenant, c.f), c.status, c.oauth, c.code) })
	}
	g.accept(g.tokenAt(ownHost, tenantID, with("client_id", app.AppID)))
	g.accept(g.tokenAt(ownHost, tenantID, with("scope", "openid profile"))) // Graph's
}

func TestPasswordsSwitchedOff(t *testing.T) {
	t.Parallel()
	g := start(t, func(h *sts.Handler) { h.SignIn.DisablePasswords = true })
	g.refuse(g.tokenAt(ownHost, tenantID, byPassword(userName, password)), 400, "unsupported_grant_type", 70003)
	a := g.get(ownHost, "/common/v2.0/.well-known/openid-configuration")
	if strings.Contains(a.Body.String(), `"password"`) {
		t.Error("passwords are advertised")
	}
}

func TestRefreshGrant(t *testing.T) {
	t.Parallel()
	g := start(t)
	first := g.signIn()
	token := first.text("refresh_token")
	was := g.accept(first)
	// As az does after a login: the tenant's own endpoint, other resources.
	for _, c := range []struct{ host, tenant, scope, audience string }{
		{ownHost, tenantID, armScope + " offline_access openid profile", "https://management.core.windows.net/"},
		{ownHost, "organizations", "https://vault.azure.net/.default", "https://vault.azure.net"},
		{azureHost, tenantID, "https://graph.microsoft.com//.default openid", "https://graph.microsoft.com/"},
		{ownHost, tenantID, "", "https://management.core.windows.net/"},
	} {
		g.advance(time.Hour)
		a := g.tokenAt(c.host, c.tenant, byRefresh(token, c.scope))
		access := g.accept(a)
		if access.Audience != c.audience || access.ObjectID != g.user.ObjectID || access.SessionID != was.SessionID || access.Subject != was.Subject {
			t.Errorf("%s: %+v", c.scope, access)
		}
		if next := a.text("refresh_token"); next == "" || next == token {
			t.Errorf("%s: not rotated", c.scope)
		} else {
			token = next
		}
		if c.scope != "" && a.text("scope") != c.scope {
			t.Errorf("scope %q, want %q", a.text("scope"), c.scope)
		}
		if (a.body["id_token"] != nil) != strings.Contains(c.scope+azScope[:0], "openid") && c.scope != "" {
			t.Errorf("%s: id token %v", c.scope, a.body["id_token"])
		}
		if line := g.lastAudit(); line["via"] != "refreshToken/"+was.SessionID || line["oid"] != g.user.ObjectID {
			t.Errorf("audit %v", line)
		}
	}
	g.noSecrets(token, first.text("refresh_token"))
	// A refusal for another reason does not use the token up.
	g.advance(time.Hour)
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(token, "api://nothing/.default")), 400, "invalid_resource", 500011)
	g.advance(time.Hour)
	g.accept(g.tokenAt(ownHost, tenantID, byRefresh(token, armScope)))
}

func TestAttackRefreshTokenReuse(t *testing.T) {
	t.Parallel()
	g := start(t)
	stolen := g.signIn().text("refresh_token")
	mine := g.tokenAt(ownHost, tenantID, byRefresh(stolen, armScope)).text("refresh_token")
	g.advance(time.Hour)
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(stolen, armScope)), 400, "invalid_grant", 50173)
	if line := g.lastAudit(); line["decision"] != "deny" || line["oid"] != g.user.ObjectID || !strings.Contains(line["reason"], "presented again") {
		t.Errorf("audit %v", line)
	}
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(mine, armScope)), 400, "invalid_grant", 70000)
	// Other sign-ins of the same person live.
	g.accept(g.tokenAt(ownHost, tenantID, byRefresh(g.signIn().text("refresh_token"), armScope)))
}

func TestAttackRefreshTokenOfAnother(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	signed := g.signIn()
	token := signed.text("refresh_token")
	f := byRefresh(token, armScope)
	g.refuse(g.tokenAt(ownHost, otherID, f), 400, "invalid_grant", 50020)
	f.Set("client_id", "1950a258-227b-4e31-a9cf-717495945fc2")
	g.refuse(g.tokenAt(ownHost, tenantID, f), 400, "invalid_grant", 70000)
	f.Set("client_id", g.app.AppID)
	f.Set("client_secret", g.secret)
	g.refuse(g.tokenAt(ownHost, tenantID, f), 401, "invalid_client", 7000218)
	// One kind of token is not another.
	for _, wrong := range []string{signed.text("access_token"), signed.text("id_token"), "pkc1_" + token[5:], token + "=", "x"} {
		g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(wrong, armScope)), 400, "invalid_grant", 70000)
	}
	g.refuse(g.tokenAt(ownHost, tenantID, url.Values{"client_id": {azCLI}, "grant_type": {"refresh_token"}, "scope": {armScope}}), 400, "invalid_request", 900144)
	g.accept(g.tokenAt(ownHost, tenantID, byRefresh(token, armScope))) // none of it did any harm
}

// The ids of first-party clients are known to all: who has nothing else must
// not fill the disk.
func TestAttackAuditOfNobody(t *testing.T) {
	t.Parallel()
	g := start(t)
	token := g.signIn().text("refresh_token")
	before := g.audit.String()
	with := func(f url.Values, name, value string) url.Values { f.Set(name, value); return f }
	for _, f := range []url.Values{
		byRefresh("x", armScope), byCode("x"), byDevice("x"), with(byRefresh("x", armScope), "grant_type", "nonsense"),
		with(byPassword(userName, ""), "scope", "nonsense"), with(byPassword(userName, password), "client_secret", "x"),
		{"client_id": {azCLI}, "grant_type": {"client_credentials"}, "scope": {armScope}, "client_secret": {"x"}},
	} {
		if a := g.tokenAt(ownHost, tenantID, f); a.Code < 400 || a.Code > 499 {
			t.Errorf("%v: %s", f, a.Body)
		}
	}
	if after := g.audit.String(); after != before {
		t.Errorf("written down: %s", strings.TrimPrefix(after, before))
	}
	// What a person's own token was refused for is.
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(token, "api://nothing/.default")), 400, "invalid_resource", 500011)
	if line := g.lastAudit(); line["decision"] != "deny" || line["oid"] != g.user.ObjectID {
		t.Errorf("audit %v", line)
	}
}

// What a person agreed to for one resource is good for no other, unless the
// client is first-party.
func TestAttackConsentSwap(t *testing.T) {
	t.Parallel()
	g := start(t)
	app, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID, DisplayName: "Phone", PublicClient: true, Redirects: directory.Redirects{Public: []string{"http://localhost"}}})
	if err != nil {
		t.Fatal(err)
	}
	const graph = "https://graph.microsoft.com/.default"
	ask := func(f url.Values, scope string) *answer {
		f.Set("client_id", app.AppID)
		f.Set("scope", scope)
		return g.tokenAt(ownHost, tenantID, f)
	}
	authorize := func(scope string) string {
		return strings.Replace(authorizeQuery("client_id", app.AppID, "scope", scope), "organizations", tenantID, 1)
	}
	b := g.browser(ownHost)
	agree := func(scope string) string {
		t.Helper()
		p := b.get(authorize(scope)).has(200, "Phone")
		return p.submit("action", "continue").redirected("http://localhost:41234/").Get("code")
	}
	b.get(authorize(graph)).has(200, "<strong>https://graph.microsoft.com</strong>").submit("username", userName, "password", password, "action", "signin")
	b.get(authorize(graph)).has(200, "Continue?").has(200, "<strong>https://graph.microsoft.com</strong>")

	code := agree(graph)
	for _, more := range []string{vaultScope, armScope, graph + " offline_access"} {
		g.refuse(ask(byCode(code), more), 400, "invalid_grant", 65001)
	}
	if a := ask(byCode(code), "https://graph.microsoft.com//.default openid"); g.accept(a).Audience != "https://graph.microsoft.com/" || a.text("refresh_token") != "" {
		t.Errorf("%s", a.Body)
	}
	a := ask(byCode(agree(graph+" offline_access")), "")
	g.accept(a)
	g.refuse(ask(byRefresh("", ""), graph), 400, "invalid_request", 900144)
	g.refuse(ask(byRefresh(a.text("refresh_token"), ""), vaultScope), 400, "invalid_grant", 65001)
	if line := g.lastAudit(); line["decision"] != "deny" || line["oid"] != g.user.ObjectID {
		t.Errorf("audit %v", line)
	}
	g.accept(ask(byRefresh(a.text("refresh_token"), ""), graph))
	g.refuse(ask(byCode(agree("openid")), vaultScope), 400, "invalid_grant", 65001) // that is Graph's

	// A device.
	d := g.do(post(ownHost, "/"+tenantID+"/oauth2/v2.0/devicecode", url.Values{"client_id": {app.AppID}, "scope": {graph}}.Encode()))
	p := b.get("/devicelogin").submit("action", "code", "user_code", d.text("user_code")).has(200, "<strong>https://graph.microsoft.com</strong>")
	p.submit("action", "continue").has(200, "You have signed in")
	g.refuse(ask(byDevice(d.text("device_code")), vaultScope), 400, "invalid_grant", 65001)
	g.refuse(ask(byDevice(d.text("device_code")), graph+" offline_access"), 400, "invalid_grant", 65001)
	g.accept(ask(byDevice(d.text("device_code")), graph))
}

// An id token is signed with the same keys, and opens nothing all the same.
func TestAttackIDTokenAsAccessToken(t *testing.T) {
	t.Parallel()
	g := start(t)
	a := g.signIn()
	g.accept(a)
	a.body["access_token"] = a.body["id_token"]
	if err := g.verifyErr(a.text("access_token")); err == nil {
		t.Error("an id token was accepted as an access token")
	}
	if err := g.verifyErr(a.text("refresh_token")); err == nil {
		t.Error("a refresh token was accepted as an access token")
	}
}

// An application that is not public any more proves itself, or has been sent
// back to an address of its own: what it got without either ends.
func TestAttackRefreshWithoutTheMark(t *testing.T) {
	t.Parallel()
	g := start(t)
	app, _ := g.shop("Phone", directory.Redirects{Public: []string{"http://localhost"}})
	mark := func(public bool) {
		t.Helper()
		if _, err := g.dir.UpdateApplication(t.Context(), app.ObjectID, func(a *directory.Application) error { a.PublicClient = public; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(f url.Values) *answer {
		f.Set("client_id", app.AppID)
		f.Set("scope", vaultScope+" offline_access")
		return g.tokenAt(ownHost, tenantID, f)
	}
	mark(true)
	byName := ask(byPassword(userName, password)).text("refresh_token")
	b := g.browser(ownHost)
	d := g.do(post(ownHost, "/"+tenantID+"/oauth2/v2.0/devicecode", url.Values{"client_id": {app.AppID}, "scope": {vaultScope + " offline_access"}}.Encode()))
	p := b.get("/devicelogin").submit("action", "code", "user_code", d.text("user_code")).submit("action", "signin", "username", userName, "password", password)
	p.submit("action", "continue").has(200, "You have signed in")
	byDevice := ask(byDevice(d.text("device_code"))).text("refresh_token")
	to, _ := url.Parse(g.away(authorizeFor(&app, "http://localhost:41234")))
	byURI := ask(byCode(to.Query().Get("code"))).text("refresh_token")
	for _, token := range []string{byName, byDevice, byURI} {
		g.accept(ask(byRefresh(token, "")))
	}
	mark(false)
	for _, token := range []string{byName, byDevice} {
		g.refuse(ask(byRefresh(token, "")), 401, "invalid_client", 7000218)
		if line := g.lastAudit(); line["decision"] != "deny" || line["oid"] != g.user.ObjectID {
			t.Errorf("audit %v", line)
		}
	}
	g.accept(ask(byRefresh(byURI, "")))
}

func TestRefreshEndsWithTheUser(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	g := start(t)
	for _, c := range []struct {
		what string
		do   func() error
		code int
	}{
		{"disabled", func() error { return g.dir.EnableUser(ctx, g.user.ObjectID, false) }, 50057},
		{"password changed", func() error { return g.dir.SetPassword(ctx, g.user.ObjectID, password) }, 50173},
		{"idle", func() error { g.advance(24 * 24 * time.Hour); return nil }, 700082},
		{"old", func() error { g.advance(91 * 24 * time.Hour); return nil }, 70008},
		{"deleted", func() error { _, err := g.dir.DeleteUser(ctx, g.user.ObjectID); return err }, 500341},
	} {
		token := g.signIn().text("refresh_token")
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		a := g.tokenAt(ownHost, tenantID, byRefresh(token, armScope))
		if a.code() != c.code || a.Code != 400 {
			t.Errorf("%s: %s", c.what, a.Body)
		}
		if c.what == "disabled" {
			if err := g.dir.EnableUser(ctx, g.user.ObjectID, true); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Guessing is slowed down for names that exist and others alike, and does not
// shut the right person out at once.
func TestAttackPasswordSpraying(t *testing.T) {
	t.Parallel()
	g := start(t)
	from := func(addr, name, pass string) *answer {
		r := post(ownHost, "/organizations/oauth2/v2.0/token", byPassword(name, pass).Encode())
		r.RemoteAddr = addr + ":4711"
		return g.do(r)
	}
	tries := func(addr string, name func(i int) string) int {
		for i := range 200 {
			a := from(addr, name(i), wrong)
			if a.code() == 50053 {
				if a.Header().Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				return i
			}
			if a.code() != 50126 {
				t.Fatalf("%s", a.Body)
			}
		}
		return 200
	}
	same := func(name string) func(int) string { return func(int) string { return name } }
	before := strings.Count(g.audit.String(), "\n")
	known := tries("192.0.2.1", same(userName))
	unknown := tries("192.0.2.2", same("nobody@contoso.example"))
	if known != unknown || known > 10 {
		t.Errorf("%d tries at a user, %d at nobody", known, unknown)
	}
	if lines := strings.Count(g.audit.String(), "\n") - before; lines != known+unknown {
		t.Errorf("%d audit lines for %d guesses that were looked at", lines, known+unknown)
	}
	// From there not even the right password is looked at; from elsewhere it is.
	g.refuse(from("192.0.2.1", userName, password), 400, "invalid_grant", 50053)
	g.accept(from("192.0.2.3", userName, password))
	// IPv6 customers have many addresses.
	if n := tries("[2001:db8::1]", same(userName)); n > 10 {
		t.Errorf("%d tries", n)
	}
	g.refuse(from("[2001:db8::2]", userName, password), 400, "invalid_grant", 50053)
	g.advance(time.Hour)
	g.accept(from("192.0.2.1", userName, password))
}

// A password that a busy server did not look at was not wrong.
func TestUnseenPasswordsAreNotCounted(t *testing.T) {
	t.Parallel()
	g := start(t)
	gone, leave := context.WithCancel(t.Context())
	leave() // nobody waits for the answer: the queue for the slow hash turns it away
	for range 20 {
		a := g.do(post(ownHost, "/organizations/oauth2/v2.0/token", byPassword(userName, password).Encode()).WithContext(gone))
		g.refuse(a, 503, "temporarily_unavailable", 90033)
	}
	g.signIn()
}

func TestUserRealm(t *testing.T) {
	t.Parallel()
	g := start(t)
	for user, want := range map[string]map[string]any{
		"ada%40contoso.example":   {"ver": "1.0", "account_type": "Managed", "domain_name": "contoso.example", "cloud_instance_name": "podkey.test:8443", "cloud_audience_urn": "urn:federation:MicrosoftOnline"},
		"Nobody@CONTOSO.example":  {"ver": "1.0", "account_type": "Managed", "domain_name": "contoso.example", "cloud_instance_name": "podkey.test:8443", "cloud_audience_urn": "urn:federation:MicrosoftOnline"},
		"someone@nowhere.example": {"ver": "1.0", "account_type": "Unknown", "cloud_instance_name": "podkey.test:8443", "cloud_audience_urn": "urn:federation:MicrosoftOnline"},
	} {
		for _, at := range []string{"/common/UserRealm/", "/common/userrealm/", "/" + tenantID + "/UserRealm/"} {
			a := g.get(ownHost, at+user+"?api-version=1.0")
			if diff := cmp.Diff(want, a.body); diff != "" || a.Code != 200 {
				t.Errorf("%s: %d %s", user, a.Code, diff)
			}
		}
	}
	g.refuse(g.get(ownHost, "/common/UserRealm/ada?api-version=1.0"), 400, "invalid_request", 9002313)
}

// browser is a person's browser: it keeps cookies and follows nothing by
// itself.
type browser struct {
	g       *rig
	host    string
	cookies map[string]string
	header  http.Header
}

func (g *rig) browser(host string) *browser {
	return &browser{g: g, host: host, cookies: map[string]string{}, header: http.Header{}}
}

// pageShown is an answer to a browser.
type pageShown struct {
	*httptest.ResponseRecorder
	b      *browser
	action string
	hidden url.Values
}

var (
	formAction  = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

func (b *browser) do(r *http.Request) *pageShown {
	b.g.t.Helper()
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for name, values := range b.header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	b.g.edge.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			b.g.t.Errorf("cookie %+v", c)
		}
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	p := &pageShown{ResponseRecorder: w, b: b, hidden: url.Values{}}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && w.Code != http.StatusSeeOther {
		csp := w.Header().Get("Content-Security-Policy")
		for _, must := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, must) {
				b.g.t.Errorf("policy %q", csp)
			}
		}
		if strings.Contains(csp, "unsafe") || w.Header().Get("X-Frame-Options") != "DENY" || !strings.Contains(w.Header().Get("Cache-Control"), "no-store") || w.Header().Get("Referrer-Policy") == "" {
			b.g.t.Errorf("headers %v", w.Header())
		}
		body := w.Body.String()
		if strings.Contains(body, "<script>") || strings.Contains(body, " on") && regexp.MustCompile(` on[a-z]+=`).MatchString(body) || strings.Contains(body, "style=") {
			b.g.t.Error("inline script or style")
		}
		if m := formAction.FindStringSubmatch(body); m != nil {
			p.action = html.UnescapeString(m[1])
		}
		for _, m := range hiddenField.FindAllStringSubmatch(body, -1) {
			p.hidden.Set(m[1], html.UnescapeString(m[2]))
		}
	}
	return p
}

func (b *browser) get(target string) *pageShown {
	b.g.t.Helper()
	return b.do(httptest.NewRequest("GET", "https://"+b.host+target, nil))
}

// submit sends the page's form with what a person fills in.
func (p *pageShown) submit(fields ...string) *pageShown {
	p.b.g.t.Helper()
	f := url.Values{}
	for k, v := range p.hidden {
		f[k] = v
	}
	for i := 0; i < len(fields); i += 2 {
		f.Set(fields[i], fields[i+1])
	}
	return p.b.do(post(p.b.host, p.action, f.Encode()))
}

func (p *pageShown) has(status int, text string) *pageShown {
	p.b.g.t.Helper()
	if p.Code != status || !strings.Contains(p.Body.String(), text) {
		p.b.g.t.Fatalf("got %d, want %d and %q:\n%s", p.Code, status, text, p.Body)
	}
	return p
}

const (
	wrong    = "not the battery"
	verifier = "a-verifier-that-is-long-enough-for-the-rfc-7636"
)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// authorizeQuery is the request of az login in a browser.
func authorizeQuery(changes ...string) string {
	q := url.Values{
		"client_id": {azCLI}, "response_type": {"code"}, "redirect_uri": {"http://localhost:41234"}, "scope": {azScope}, "state": {"s&t=1"},
		"code_challenge": {challenge()}, "code_challenge_method": {"S256"}, "nonce": {"n1"}, "prompt": {"select_account"}, "client_info": {"1"},
		"claims": {`{"access_token": {"xms_cc": {"values": ["CP1"]}}}`},
	}
	for i := 0; i < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			q.Del(changes[i])
		}
	}
	return "/organizations/oauth2/v2.0/authorize?" + q.Encode()
}

// redirected returns the parameters that a redirect to the client has.
func (p *pageShown) redirected(to string) url.Values {
	p.b.g.t.Helper()
	u, err := url.Parse(p.Header().Get("Location"))
	if p.Code != http.StatusSeeOther || err != nil || u.Scheme+"://"+u.Host+u.Path != to {
		p.b.g.t.Fatalf("got %d to %q, want a redirect to %s\n%s", p.Code, p.Header().Get("Location"), to, p.Body)
	}
	if u.Fragment != "" {
		v, _ := url.ParseQuery(u.Fragment)
		return v
	}
	return u.Query()
}

func byCode(code string) url.Values {
	return url.Values{
		"client_id": {azCLI}, "grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {"http://localhost:41234"},
		"code_verifier": {verifier}, "client_info": {"1"}, "scope": {azScope},
	}
}

// code signs in with a new browser and returns the code.
func (g *rig) code(changes ...string) string {
	g.t.Helper()
	p := g.browser(ownHost).get(authorizeQuery(changes...)).has(200, "Sign in")
	return p.submit("username", userName, "password", password, "action", "signin").redirected("http://localhost:41234/").Get("code")
}

func TestBrowserSignIn(t *testing.T) {
	t.Parallel()
	g := start(t)
	b := g.browser(ownHost)
	p := b.get(authorizeQuery("login_hint", `"><script>alert(1)</script>`)).has(200, "to continue to <strong>Azure CLI</strong>")
	p.has(200, "You are at <strong>"+ownHost)
	p.submit("username", userName, "password", wrong, "action", "signin").has(401, `role="alert"`).has(401, "name or the password is wrong")
	answer := p.submit("username", " "+userName, "password", password, "action", "signin").redirected("http://localhost:41234/")
	if answer.Get("state") != "s&t=1" || answer.Get("code") == "" {
		t.Fatalf("%v", answer)
	}
	a := g.tokenAt(ownHost, "organizations", byCode(answer.Get("code")))
	if c := g.accept(a); c.ObjectID != g.user.ObjectID || c.Audience != "https://management.core.windows.net/" || a.text("refresh_token") == "" || a.text("scope") != azScope {
		t.Errorf("%s", a.Body)
	}
	if _, id := claimsOf(t, a.text("id_token")); id["nonce"] != "n1" {
		t.Errorf("nonce %v", id["nonce"])
	}
	if line := g.lastAudit(); !strings.HasPrefix(line["via"], "authorizationCode/") || line["oid"] != g.user.ObjectID {
		t.Errorf("audit %v", line)
	}
	if !strings.Contains(g.audit.String(), `"operationName":"SignIn"`) {
		t.Error("the sign-in was not written down")
	}
	g.noSecrets(password, wrong, answer.Get("code"), a.text("refresh_token"), b.cookies["__Host-podkey-session"], b.cookies["__Host-podkey-form"])

	// The browser is signed in now, and is asked all the same.
	p = b.get(authorizeQuery()).has(200, "Continue?").has(200, userName)
	answer = p.submit("action", "continue").redirected("http://localhost:41234/")
	g.accept(g.tokenAt(ownHost, tenantID, byCode(answer.Get("code"))))
	b.get(authorizeQuery("prompt", "")).has(200, "Continue?")
	b.get(authorizeQuery("prompt", "login")).has(200, "Sign in")
	p.submit("action", "other").has(200, "Sign in")
	if e := p.submit("action", "cancel").redirected("http://localhost:41234/"); e.Get("error") != "access_denied" || e.Get("state") != "s&t=1" || e.Get("code") != "" {
		t.Errorf("%v", e)
	}
	g.advance(time.Hour)
	b.get(authorizeQuery("max_age", "60")).has(200, "Sign in")
	if e := b.get(authorizeQuery("prompt", "none")).redirected("http://localhost:41234/"); e.Get("error") != "interaction_required" {
		t.Errorf("%v", e)
	}

	// Signing out.
	p = b.get("/organizations/oauth2/v2.0/logout?post_logout_redirect_uri=https://evil.test/").has(200, "Sign out?")
	p.submit("action", "signout").has(200, "Signed out")
	b.get(authorizeQuery()).has(200, "Sign in")
	if e := b.get(authorizeQuery("prompt", "none")).redirected("http://localhost:41234/"); e.Get("error") != "login_required" {
		t.Errorf("%v", e)
	}
	b.get("/common/oauth2/v2.0/logout").has(200, "Nobody is signed in")
}

// podkey exec shows the page under our own name to a person whose program
// knows Azure's names alone.
func TestCodeIsGoodUnderOtherNames(t *testing.T) {
	t.Parallel()
	g := start(t)
	a := g.tokenAt(azureHost, "organizations", byCode(g.code()))
	if c := g.accept(a); c.Issuer != "https://sts.windows.net/"+tenantID+"/" || c.ObjectID != g.user.ObjectID {
		t.Errorf("%+v", c)
	}
	if _, id := claimsOf(t, a.text("id_token")); id["iss"] != "https://"+azureHost+"/"+tenantID+"/v2.0" || id["nonce"] != "n1" {
		t.Errorf("id token %v", id)
	}
	g.accept(g.tokenAt(azureHost, tenantID, byRefresh(a.text("refresh_token"), armScope)))
	// A scope that names Azure's own resources means the same on either page.
	code := g.code("scope", "https://graph.microsoft.com/.default openid")
	f := byCode(code)
	f.Set("scope", "https://graph.microsoft.com/.default openid")
	if c := g.accept(g.tokenAt(azureHost, tenantID, f)); c.Audience != "https://graph.microsoft.com" {
		t.Errorf("aud %q", c.Audience)
	}
}

func TestResponseModes(t *testing.T) {
	t.Parallel()
	g := start(t)
	in := []string{"username", userName, "password", password, "action", "signin"}
	fragment := g.browser(ownHost).get(authorizeQuery("response_mode", "fragment")).submit(in...)
	if l := fragment.Header().Get("Location"); !strings.HasPrefix(l, "http://localhost:41234/#") {
		t.Errorf("%q", l)
	}
	posted := g.browser(ownHost).get(authorizeQuery("response_mode", "form_post", "state", `"><b>`)).submit(in...)
	posted.has(200, `<script src="/signin/submit.js">`)
	if posted.action != "http://localhost:41234" || posted.hidden.Get("state") != `"><b>` || posted.hidden.Get("code") == "" {
		t.Errorf("%q %v", posted.action, posted.hidden)
	}
	csp := posted.Header().Get("Content-Security-Policy")
	if !strings.Contains(csp, "form-action 'self' http://localhost:41234") || !strings.Contains(csp, "script-src 'self'") {
		t.Errorf("%q", csp)
	}
	g.accept(g.tokenAt(ownHost, tenantID, byCode(posted.hidden.Get("code"))))
	for _, file := range []string{"/signin/submit.js", "/signin/page.css"} {
		if w := g.browser(ownHost).get(file); w.Code != 200 || w.Body.Len() == 0 || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d", file, w.Code)
		}
	}
}

// Requests that must not be answered by a redirect, wherever to.
func TestAttackRedirectURI(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, uri := range []string{
		"https://evil.test/", "http://evil.test", "https://localhost:41234", "http://localhost.evil.test", "http://localhost:41234.evil.test/",
		"http://localhost@evil.test/", "http://evil.test@localhost/", "http://user:pw@localhost:1/", "http://localhost:0", "http://localhost:65536", "http://localhost:041",
		"http://localhost:41234/cb", "http://localhost:41234/../x", "http://localhost:41234/?x=1", "http://localhost:41234/#x", "http://localhost:41234//evil.test",
		"http://localhost:41234\n", "\nhttp://localhost", "http://localhost:41234\\@evil.test", "http://127.0.0.2:1", "http://127.1:1", "http://2130706433/", "http://[::1]:1/", "http://0.0.0.0:1",
		"HTTP://localhost:1", "http:/localhost", "//localhost", "/x", "javascript:alert(1)", "data:text/html,x", "urn:ietf:wg:oauth:2.0:oob", "http://localhost:1:2", "http://local\u017fhost", "http://localhost%2eevil.test",
	} {
		p := g.browser(ownHost).get(authorizeQuery("redirect_uri", uri))
		if p.Code != 400 || p.Header().Get("Location") != "" || !strings.Contains(p.Body.String(), "AADSTS50011") {
			t.Errorf("%q: %d %q", uri, p.Code, p.Header().Get("Location"))
		}
	}
	for _, uri := range []string{"http://localhost", "http://localhost/", "http://localhost:1", "http://127.0.0.1:65535/"} {
		g.browser(ownHost).get(authorizeQuery("redirect_uri", uri)).has(200, "Sign in")
	}
	for what, c := range map[string]struct {
		query string
		code  string
	}{
		"no client":             {authorizeQuery("client_id", ""), "AADSTS900144"},
		"unknown client":        {authorizeQuery("client_id", otherID), "AADSTS50194"},
		"confidential client":   {strings.Replace(authorizeQuery("client_id", g.app.AppID), "organizations", tenantID, 1), "AADSTS50011"},
		"no redirect URI":       {authorizeQuery("redirect_uri", ""), "AADSTS900144"},
		"two redirect URIs":     {authorizeQuery() + "&redirect_uri=http://localhost", "AADSTS9000411"},
		"unknown response mode": {authorizeQuery("response_mode", "web_message"), "AADSTS70007"},
		"unknown tenant":        {strings.Replace(authorizeQuery(), "organizations", otherID, 1), "AADSTS90002"},
		"endless state":         {authorizeQuery("state", strings.Repeat("x", 5000)), "AADSTS9002313"},
	} {
		p := g.browser(ownHost).get(c.query)
		if p.Code != 400 || p.Header().Get("Location") != "" || !strings.Contains(p.Body.String(), c.code) {
			t.Errorf("%s: %d %s", what, p.Code, p.Body)
		}
	}
	// Signing out leads nowhere either.
	p := g.browser(ownHost).get("/common/oauth2/v2.0/logout?post_logout_redirect_uri=https%3A%2F%2Fevil.test").has(200, "Signed out")
	if strings.Contains(p.Body.String(), "evil") || p.Header().Get("Location") != "" {
		t.Error("an open redirect")
	}
}

// Mistakes that the client is told of, at an address that was checked before.
func TestAuthorizeErrors(t *testing.T) {
	t.Parallel()
	g := start(t)
	for what, c := range map[string]struct {
		changes []string
		oauth   string
		code    string
	}{
		"no response type":   {[]string{"response_type", ""}, "invalid_request", "900144"},
		"implicit":           {[]string{"response_type", "token"}, "unsupported_response_type", "700054"},
		"hybrid":             {[]string{"response_type", "code id_token"}, "unsupported_response_type", "700054"},
		"PKCE missing":       {[]string{"code_challenge", ""}, "invalid_request", "9002325"},
		"PKCE plain":         {[]string{"code_challenge_method", "plain"}, "invalid_request", "501491"},
		"PKCE method absent": {[]string{"code_challenge_method", ""}, "invalid_request", "501491"},
		"PKCE short":         {[]string{"code_challenge", "abc"}, "invalid_request", "501491"},
		"no scope":           {[]string{"scope", ""}, "invalid_request", "900144"},
		"bad scope":          {[]string{"scope", "x"}, "invalid_scope", "70011"},
		"bad prompt":         {[]string{"prompt", "x"}, "invalid_request", "90023"},
		"bad max_age":        {[]string{"max_age", "-1"}, "invalid_request", "9002313"},
		"bad claims":         {[]string{"claims", "{"}, "invalid_request", "9002313"},
		"request object":     {[]string{"request", "x"}, "invalid_request", "9002313"},
		"endless nonce":      {[]string{"nonce", strings.Repeat("x", 2000)}, "invalid_request", "9002313"},
	} {
		e := g.browser(ownHost).get(authorizeQuery(c.changes...)).redirected("http://localhost:41234/")
		if e.Get("error") != c.oauth || !strings.HasPrefix(e.Get("error_description"), "AADSTS"+c.code+":") || e.Get("state") != "s&t=1" {
			t.Errorf("%s: %v", what, e)
		}
	}
	v1 := strings.Replace(authorizeQuery("resource", "https://vault.azure.net", "scope", ""), "/v2.0/", "/", 1)
	g.browser(ownHost).get(v1).has(200, "Sign in")
}

func TestAttackCodeReplay(t *testing.T) {
	t.Parallel()
	g := start(t)
	code := g.code()
	refresh := g.tokenAt(ownHost, tenantID, byCode(code)).text("refresh_token")
	g.refuse(g.tokenAt(ownHost, tenantID, byCode(code)), 400, "invalid_grant", 54005)
	if line := g.lastAudit(); line["oid"] != g.user.ObjectID || !strings.Contains(line["reason"], "presented again") {
		t.Errorf("audit %v", line)
	}
	// What it gave is revoked.
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(refresh, armScope)), 400, "invalid_grant", 70000)
}

func TestAttackCodeOfAnother(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	code := g.code()
	with := func(name, value string) url.Values {
		f := byCode(code)
		if f.Set(name, value); value == "" {
			f.Del(name)
		}
		return f
	}
	g.refuse(g.tokenAt(ownHost, tenantID, with("client_id", "1950a258-227b-4e31-a9cf-717495945fc2")), 400, "invalid_grant", 70000)
	g.refuse(g.tokenAt(ownHost, tenantID, with("redirect_uri", "http://localhost:41235")), 400, "invalid_grant", 500112)
	g.refuse(g.tokenAt(ownHost, tenantID, with("redirect_uri", "http://localhost:41234/")), 400, "invalid_grant", 500112)
	g.refuse(g.tokenAt(ownHost, tenantID, with("redirect_uri", "")), 400, "invalid_request", 900144)
	g.refuse(g.tokenAt(ownHost, tenantID, with("code_verifier", "")), 400, "invalid_request", 900144)
	g.refuse(g.tokenAt(ownHost, tenantID, with("code_verifier", "wrong")), 400, "invalid_grant", 501481)
	g.refuse(g.tokenAt(ownHost, tenantID, with("code_verifier", challenge())), 400, "invalid_grant", 501481) // as if it were plain
	g.refuse(g.tokenAt(ownHost, tenantID, with("code", "pkc1_wrong")), 400, "invalid_grant", 70000)
	g.refuse(g.tokenAt(ownHost, otherID, byCode(code)), 400, "invalid_grant", 50020)
	g.accept(g.tokenAt(ownHost, tenantID, byCode(code)))
	late := g.code()
	g.advance(3 * time.Minute)
	g.refuse(g.tokenAt(ownHost, tenantID, byCode(late)), 400, "invalid_grant", 70008)
	disabled := g.code()
	if err := g.dir.EnableUser(t.Context(), g.user.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.tokenAt(ownHost, tenantID, byCode(disabled)), 400, "invalid_grant", 50057)
}

func TestAttackFormForgery(t *testing.T) {
	t.Parallel()
	g := start(t)
	b := g.browser(ownHost)
	p := b.get(authorizeQuery())
	p.submit("username", userName, "password", password, "action", "signin").redirected("http://localhost:41234/")
	p = b.get(authorizeQuery()).has(200, "Continue?")
	refused := func(what string, q *pageShown) {
		t.Helper()
		if q.Code != 403 || q.Header().Get("Location") != "" {
			t.Errorf("%s: %d %s", what, q.Code, q.Body)
		}
	}
	refused("no token", p.submit("action", "continue", "csrf", ""))
	refused("another browser's token", p.submit("action", "continue", "csrf", g.browser(ownHost).get(authorizeQuery()).hidden.Get("csrf")))
	for _, h := range []map[string]string{{"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}} {
		for k, v := range h {
			b.header.Set(k, v)
		}
		refused("from another site", p.submit("action", "continue"))
		b.header = http.Header{}
	}
	saved := b.cookies["__Host-podkey-form"]
	delete(b.cookies, "__Host-podkey-form")
	refused("no cookie", p.submit("action", "continue"))
	b.cookies["__Host-podkey-form"] = ""
	refused("empty cookie", p.submit("action", "continue"))
	b.cookies["__Host-podkey-form"] = saved
	p.submit("action", "continue").redirected("http://localhost:41234/")
	p.submit("action", "nonsense").has(400, "AADSTS9002313")
	// The sign-in form itself, against signing somebody in as another.
	refused("sign-in", g.browser(ownHost).get(authorizeQuery()).submit("username", userName, "password", password, "action", "signin", "csrf", "x"))
	// Signing out.
	refused("sign-out", b.get("/common/oauth2/logout").has(200, "Sign out?").submit("csrf", "x"))
	b.get(authorizeQuery()).has(200, "Continue?")
}

func TestAttackSessionFixation(t *testing.T) {
	t.Parallel()
	g := start(t)
	thief := g.browser(ownHost)
	thief.get(authorizeQuery()).submit("username", userName, "password", password, "action", "signin")
	planted := thief.cookies["__Host-podkey-session"]
	victim := g.browser(ownHost)
	p := victim.get(authorizeQuery())
	victim.cookies["__Host-podkey-session"] = planted
	p.submit("username", userName, "password", password, "action", "signin").redirected("http://localhost:41234/")
	if now := victim.cookies["__Host-podkey-session"]; now == planted || now == "" {
		t.Fatal("the cookie stayed the same")
	}
	thief.get(authorizeQuery()).has(200, "Sign in") // what was planted opens nothing
	victim.get(authorizeQuery()).has(200, "Continue?")
	// A changed password ends all browsers' sign-ins.
	if err := g.dir.SetPassword(t.Context(), g.user.ObjectID, "another password"); err != nil {
		t.Fatal(err)
	}
	victim.get(authorizeQuery()).has(200, "Sign in")
}

func (g *rig) deviceCode() (device, user string) {
	g.t.Helper()
	a := g.do(post(ownHost, "/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azCLI}, "scope": {azScope}}.Encode()))
	if a.Code != 200 {
		g.t.Fatal(a.Body)
	}
	return a.text("device_code"), a.text("user_code")
}

func byDevice(code string) url.Values {
	return url.Values{
		"client_id": {azCLI}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}, "code": {code}, "client_info": {"1"},
		"claims": {`{"access_token": {"xms_cc": {"values": ["CP1"]}}}`},
	}
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	g := start(t)
	for host, uri := range map[string][2]string{
		ownHost:   {"https://" + ownHost + "/devicelogin", "https://" + ownHost + "/devicelogin"},
		bareHost:  {"https://" + bareHost + "/devicelogin", "https://" + bareHost + "/devicelogin"},
		azureHost: {"https://login.microsoftonline.com/common/oauth2/deviceauth", "https://" + ownHost + "/devicelogin"},
	} {
		a := g.do(post(host, "/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azCLI}, "scope": {azScope}}.Encode()))
		if a.text("verification_uri") != uri[0] || a.body["expires_in"] != 900.0 || a.body["interval"] != 5.0 ||
			!strings.Contains(a.text("message"), uri[1]+" and enter the code "+a.text("user_code")+" to authenticate") {
			t.Errorf("%s: %s", host, a.Body)
		}
	}
	device, user := g.deviceCode()
	before := strings.Count(g.audit.String(), "\n")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(device)), 400, "authorization_pending", 70016)
	if strings.Count(g.audit.String(), "\n") != before {
		t.Error("polling is written down")
	}
	b := g.browser(ownHost)
	p := b.get("/devicelogin").has(200, "Enter code")
	p.submit("action", "code", "user_code", "BCDFGHJKL").has(400, "not known")
	p = p.submit("action", "code", "user_code", strings.ToLower(user[:3]+"-"+user[3:])).has(200, "Sign in").has(200, "Azure CLI")
	p.submit("action", "signin", "username", userName, "password", wrong).has(401, "password is wrong")
	p = p.submit("action", "signin", "username", userName, "password", password)
	p.has(200, "Asked for from").has(200, "192.0.2.1").has(200, user).has(200, "Azure CLI").has(200, "somebody sent it to you")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(device)), 400, "authorization_pending", 70016) // signing in is not agreeing
	p.submit("action", "continue").has(200, "You have signed in to Azure CLI")
	if line := g.lastAudit(); line["operationName"] != "DeviceCodeApprove" || line["oid"] != g.user.ObjectID {
		t.Errorf("audit %v", line)
	}
	a := g.tokenAt(ownHost, "organizations", byDevice(device))
	if c := g.accept(a); c.ObjectID != g.user.ObjectID || a.text("scope") != azScope || a.text("refresh_token") == "" || a.text("id_token") == "" || a.text("client_info") == "" {
		t.Errorf("%s", a.Body)
	}
	if line := g.lastAudit(); !strings.HasPrefix(line["via"], "deviceCode/") {
		t.Errorf("audit %v", line)
	}
	g.noSecrets(device, user, password)

	// The code is used up, on both sides.
	p.submit("action", "continue").has(400, "not known")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(device)), 400, "invalid_grant", 54005)
	g.refuse(g.tokenAt(ownHost, tenantID, byRefresh(a.text("refresh_token"), armScope)), 400, "invalid_grant", 70000)

	// The browser is signed in: the next device is confirmed at once, or not.
	device, user = g.deviceCode()
	p = b.get("/common/oauth2/deviceauth").submit("action", "code", "user_code", user).has(200, "Sign in to another device?")
	p.submit("action", "cancel").has(200, "declined")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(device)), 400, "authorization_declined", 70018)
	device, user = g.deviceCode()
	g.advance(15 * time.Minute)
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(device)), 400, "expired_token", 70020)
	b.get("/devicelogin").submit("action", "code", "user_code", user).has(400, "not known")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice("x")), 400, "bad_verification_code", 70019)
	g.refuse(g.tokenAt(ownHost, "organizations", url.Values{"client_id": {azCLI}, "grant_type": {"device_code"}}), 400, "invalid_request", 900144)
}

// A device code that gives nothing leaves one audit line, however often its
// client asks.
func TestDeviceRefusalsAreWrittenDown(t *testing.T) {
	t.Parallel()
	g := start(t)
	app, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID, DisplayName: "Phone", PublicClient: true})
	if err != nil {
		t.Fatal(err)
	}
	b := g.browser(ownHost)
	for _, client := range []string{azCLI, app.AppID} {
		ask := func() (device, user string) {
			a := g.do(post(ownHost, "/"+tenantID+"/oauth2/v2.0/devicecode", url.Values{"client_id": {client}, "scope": {azScope}}.Encode()))
			return a.text("device_code"), a.text("user_code")
		}
		poll := func(device, oauth string, code int) {
			t.Helper()
			f := byDevice(device)
			f.Set("client_id", client)
			g.refuse(g.tokenAt(ownHost, tenantID, f), 400, oauth, code)
		}
		one := func(what string, do func(), want map[string]string) {
			t.Helper()
			before := g.lines()
			do()
			line := g.lastAudit()
			if n := g.lines() - before; n != 1 {
				t.Errorf("%s, %s: %d lines", client, what, n)
			}
			for k, v := range want {
				if !strings.Contains(line[k], v) {
					t.Errorf("%s, %s: %v", client, what, line)
				}
			}
		}
		// Somebody who has not signed in says no.
		device, user := ask()
		p := b.get("/devicelogin").submit("action", "code", "user_code", user).has(200, "Sign in")
		one("declined by nobody", func() {
			p.submit("action", "cancel").has(200, "declined")
			p.submit("action", "cancel").has(400, "not known")
			poll(device, "authorization_declined", 70018)
			poll(device, "authorization_declined", 70018)
		}, map[string]string{"operationName": "DeviceCodeApprove", "decision": "deny", "appid": client, "reason": "declined on the page; asked for from 192.0.2.1"})
		// Somebody who has.
		device, user = ask()
		p = b.get("/devicelogin").submit("action", "code", "user_code", user).submit("action", "signin", "username", userName, "password", password)
		one("declined", func() {
			p.has(200, "Sign in to another device?").submit("action", "cancel").has(200, "declined")
			poll(device, "authorization_declined", 70018)
		}, map[string]string{"operationName": "DeviceCodeApprove", "decision": "deny", "oid": g.user.ObjectID, "appid": client})
		// Nobody says anything.
		device, _ = ask()
		g.advance(15 * time.Minute)
		one("expired", func() {
			poll(device, "expired_token", 70020)
			poll(device, "expired_token", 70020)
		}, map[string]string{"operationName": "TokenIssue", "decision": "deny", "appid": client, "reason": "AADSTS70020: asked for from 192.0.2.1"})
		// Somebody has agreed, and it is never redeemed.
		approve := func() (device string) {
			t.Helper()
			device, user := ask()
			p := b.get("/devicelogin").submit("action", "code", "user_code", user).has(200, "Sign in to another device?")
			p.submit("action", "continue").has(200, "You have signed in")
			return device
		}
		device = approve()
		g.advance(15 * time.Minute)
		one("expired after approval", func() {
			poll(device, "expired_token", 70020)
			poll(device, "expired_token", 70020)
		}, map[string]string{"decision": "deny", "appid": client, "oid": g.user.ObjectID, "reason": "AADSTS70020: asked for from 192.0.2.1"})
		// Another client has it.
		stolen := func(device, oauth string, code int) {
			t.Helper()
			f := byDevice(device)
			f.Set("client_id", "1950a258-227b-4e31-a9cf-717495945fc2")
			g.refuse(g.tokenAt(ownHost, tenantID, f), 400, oauth, code)
		}
		device = approve()
		one("presented by another", func() { stolen(device, "invalid_grant", 70000) },
			map[string]string{"decision": "deny", "oid": g.user.ObjectID, "appid": "1950a258", "reason": "AADSTS70000: issued to client " + client})
		redeem := byDevice(device)
		redeem.Set("client_id", client)
		refresh := g.tokenAt(ownHost, tenantID, redeem).text("refresh_token")
		one("replayed by another", func() { stolen(device, "invalid_grant", 54005) },
			map[string]string{"decision": "deny", "oid": g.user.ObjectID, "appid": "1950a258", "reason": "presented again"})
		again := byRefresh(refresh, "")
		again.Set("client_id", client)
		g.refuse(g.tokenAt(ownHost, tenantID, again), 400, "invalid_grant", 70000)
		// One that was redeemed, again.
		device, user = ask()
		p = b.get("/devicelogin").submit("action", "code", "user_code", user).has(200, "Sign in to another device?")
		p.submit("action", "continue").has(200, "You have signed in")
		f := byDevice(device)
		f.Set("client_id", client)
		g.accept(g.tokenAt(ownHost, tenantID, f))
		one("replayed", func() { poll(device, "invalid_grant", 54005) }, map[string]string{"decision": "deny", "oid": g.user.ObjectID, "reason": "presented again"})
		g.advance(time.Hour)
		_ = g.store.Sweep(t.Context())
		b = g.browser(ownHost)
	}
	// What stands for nothing leaves nothing.
	before := g.lines()
	g.refuse(g.tokenAt(ownHost, tenantID, byDevice("pkd1_x")), 400, "bad_verification_code", 70019)
	b.get("/devicelogin").submit("action", "cancel", "user_code", "BCDFGHJKL").has(400, "not known")
	if n := g.lines() - before; n != 0 {
		t.Errorf("%d lines about nobody", n)
	}
	// What could not be written down has not happened: nothing is declined, and
	// that a code expired is still to be written, by the next server.
	device, user := g.deviceCode()
	p := b.get("/devicelogin").submit("action", "code", "user_code", user).has(200, "Sign in")
	g.audit.breakDown()
	p.submit("action", "cancel").has(500, "AADSTS50000")
	g.refuse(g.tokenAt(ownHost, tenantID, byDevice(device)), 400, "authorization_pending", 70016)
	g.advance(15 * time.Minute)
	for range 2 {
		g.refuse(g.tokenAt(ownHost, tenantID, byDevice(device)), 500, "server_error", 50000)
	}
	if d, _, err := g.store.DeviceCode(t.Context(), device); !errors.Is(err, session.ErrExpired) || d.Lapsed {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDeviceCodeRefusals(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	ask := func(tenant string, f url.Values) *answer {
		return g.do(post(ownHost, "/"+tenant+"/oauth2/v2.0/devicecode", f.Encode()))
	}
	g.refuse(ask("common", url.Values{"scope": {azScope}}), 400, "invalid_request", 900144)
	g.refuse(ask("common", url.Values{"client_id": {azCLI}}), 400, "invalid_request", 900144)
	g.refuse(ask("common", url.Values{"client_id": {azCLI}, "scope": {"x"}}), 400, "invalid_scope", 70011)
	g.refuse(ask("common", url.Values{"client_id": {otherID}, "scope": {azScope}}), 400, "invalid_request", 50194)
	g.refuse(ask(tenantID, url.Values{"client_id": {g.app.AppID}, "scope": {azScope}}), 401, "invalid_client", 7000218)
	g.refuse(ask("nowhere.example", url.Values{"client_id": {azCLI}, "scope": {azScope}}), 400, "invalid_request", 90002)
	g.refuse(g.get(ownHost, "/common/oauth2/v2.0/devicecode"), 405, "invalid_request", 900561)
	if a := g.do(post(ownHost, "/common/oauth2/devicecode", url.Values{"client_id": {azCLI}, "resource": {"https://vault.azure.net"}}.Encode())); a.text("verification_url") == "" || a.text("expires_in") != "900" {
		t.Errorf("v1: %s", a.Body)
	}
	// A code that was asked for in one tenant is not for people of another.
	a := ask(otherID, url.Values{"client_id": {azCLI}, "scope": {azScope}})
	p := g.browser(ownHost).get("/devicelogin").submit("action", "code", "user_code", a.text("user_code")).has(200, "Sign in")
	p.submit("action", "signin", "username", userName, "password", password).has(401, "password is wrong")
	// One client's code is not another's.
	device, _ := g.deviceCode()
	f := byDevice(device)
	f.Set("client_id", "1950a258-227b-4e31-a9cf-717495945fc2")
	g.refuse(g.tokenAt(ownHost, "organizations", f), 400, "invalid_grant", 70000)
}

func TestAttackDeviceCodeGuessing(t *testing.T) {
	t.Parallel()
	g := start(t)
	_, user := g.deviceCode()
	b := g.browser(ownHost)
	p := b.get("/devicelogin")
	n := 0
	for ; n < 100; n++ {
		if q := p.submit("action", "code", "user_code", "BCDFGHJKL"); q.Code == 429 {
			break
		}
	}
	if n > 20 {
		t.Errorf("%d guesses", n)
	}
	p.submit("action", "code", "user_code", user).has(429, "too many") // nor is the right one looked at
	g.advance(time.Minute)
	p.submit("action", "code", "user_code", user).has(200, "Sign in")
	// A link alone does nothing but fill in the field.
	if q := b.get("/devicelogin?user_code="+user).has(200, "Enter code"); strings.Contains(q.Body.String(), "Azure CLI") {
		t.Error("a link alone tells what a code is for")
	}
	// Asking for codes is limited as well: each is a write.
	n = 0
	for ; n < 1000; n++ {
		a := g.do(post(ownHost, "/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azCLI}, "scope": {azScope}}.Encode()))
		if a.Code == 429 {
			g.refuse(a, 429, "temporarily_unavailable", 90055)
			break
		}
	}
	if n > 100 {
		t.Errorf("%d codes", n)
	}
}

func TestAuthorizationAcrossTenants(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID, Domains: []string{"fabrikam.example"}}); err != nil {
		t.Fatal(err)
	}
	b := g.browser(ownHost)
	b.get(authorizeQuery()).submit("username", userName, "password", password, "action", "signin").redirected("http://localhost:41234/")
	other := strings.Replace(authorizeQuery(), "organizations", otherID, 1)
	p := b.get(other).has(200, "Sign in") // signed in, but not there
	p.submit("username", userName, "password", password, "action", "signin").has(401, "password is wrong")
	p.submit("action", "continue").has(200, "Sign in")

	// The same with a device code of the other tenant.
	d := g.do(post(ownHost, "/"+otherID+"/oauth2/v2.0/devicecode", url.Values{"client_id": {azCLI}, "scope": {azScope}}.Encode()))
	p = b.get("/devicelogin").submit("action", "code", "user_code", d.text("user_code")).has(200, "Sign in")
	p.submit("action", "continue").has(200, "Sign in")
	g.refuse(g.tokenAt(ownHost, "organizations", byDevice(d.text("device_code"))), 400, "authorization_pending", 70016)
}
