package sts_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/directory"
)

// shop is an application with a redirect URI of each kind, and its secret. It
// has no service principal, like one that az ad app create has just made.
func (g *rig) shop(name string, r directory.Redirects) (app directory.Application, secret string) {
	g.t.Helper()
	app, err := g.dir.CreateApplication(g.t.Context(), directory.Application{TenantID: tenantID, DisplayName: name, Redirects: r})
	if err != nil {
		g.t.Fatal(err)
	}
	_, secret, err = g.dir.AddSecret(g.t.Context(), app.ObjectID, directory.NewSecret{})
	if err != nil {
		g.t.Fatal(err)
	}
	return app, secret
}

// shopRedirects are the redirect URIs of the tests.
var shopRedirects = directory.Redirects{
	Web:    []string{"https://shop.example/cb", "https://shop.example:8443/q?x=1", "http://localhost:3000/web"},
	SPA:    []string{"https://spa.example", "http://localhost:3000/", "https://[2001:db8::1]:8443/spa"},
	Public: []string{"http://localhost", "http://127.0.0.1:5000/cb?y=1", "http://[::1]/", "msal1://auth", "https://app.example/done"},
}

// authorizeFor is the request of an application.
func authorizeFor(app *directory.Application, uri string, changes ...string) string {
	q := authorizeQuery(append([]string{"client_id", app.AppID, "redirect_uri", uri, "scope", vaultScope + " offline_access"}, changes...)...)
	return strings.Replace(q, "organizations", tenantID, 1)
}

// away signs in and returns where the browser is sent.
func (g *rig) away(query string) string {
	g.t.Helper()
	p := g.browser(ownHost).get(query).has(200, "Sign in").submit("username", userName, "password", password, "action", "signin")
	if p.Code != http.StatusSeeOther {
		g.t.Fatalf("%d %s", p.Code, p.Body)
	}
	return p.Header().Get("Location")
}

func TestRegisteredRedirectURIs(t *testing.T) {
	t.Parallel()
	g := start(t)
	app, secret := g.shop("Shop", shopRedirects)
	for _, c := range []struct {
		uri, mode, to string
		source        string // in the page's policy
		confidential  bool
	}{
		{"https://shop.example/cb", "", "https://shop.example/cb?code=", "https://shop.example", true},
		{"https://shop.example/cb", "fragment", "https://shop.example/cb#code=", "https://shop.example", true},
		{"https://shop.example:8443/q?x=1", "query", "https://shop.example:8443/q?x=1&code=", "https://shop.example:8443", true},
		{"http://localhost:3000/web", "", "http://localhost:3000/web?code=", "http://localhost:3000", true},
		{"https://spa.example", "fragment", "https://spa.example/#code=", "https://spa.example", false},
		{"http://localhost:3000/", "", "http://localhost:3000/?code=", "http://localhost:3000", false},
		{"http://localhost", "", "http://localhost/?code=", "http://localhost", false},
		{"http://localhost:41234", "", "http://localhost:41234/?code=", "http://localhost:41234", false},
		{"http://127.0.0.1:5000/cb?y=1", "", "http://127.0.0.1:5000/cb?y=1&code=", "http://127.0.0.1:5000", false},
		{"http://127.0.0.1:65535/cb?y=1", "", "http://127.0.0.1:65535/cb?y=1&code=", "http://127.0.0.1:65535", false},
		// A policy cannot name an IPv6 address: browsers would not follow.
		{"http://[::1]:41234/", "", "http://[::1]:41234/?code=", "http:", false},
		{"https://[2001:db8::1]:8443/spa", "", "https://[2001:db8::1]:8443/spa?code=", "https:", false},
		{"msal1://auth", "", "msal1://auth?code=", "msal1:", false},
		{"https://app.example/done", "", "https://app.example/done?code=", "https://app.example", false},
	} {
		query := authorizeFor(&app, c.uri, "response_mode", c.mode)
		csp := g.browser(ownHost).get(query).has(200, "Shop").Header().Get("Content-Security-Policy")
		if !strings.HasSuffix(csp, "form-action 'self' "+c.source) {
			t.Errorf("%s: policy %q", c.uri, csp)
		}
		code := func() string {
			to := g.away(query)
			rest, ok := strings.CutPrefix(to, c.to)
			if !ok || !strings.HasSuffix(rest, "&state=s%26t%3D1") {
				t.Fatalf("%s: sent to %s", c.uri, to)
			}
			code, _, _ := strings.Cut(rest, "&")
			return code
		}
		ask := func(f url.Values, secret string) *answer {
			f.Set("client_id", app.AppID)
			f.Del("scope")
			if f.Get("code") != "" {
				f.Set("redirect_uri", c.uri)
			}
			if secret != "" {
				f.Set("client_secret", secret)
			}
			return g.tokenAt(ownHost, tenantID, f)
		}
		good, bad, number, class := "", secret, 700025, "0"
		if c.confidential {
			good, bad, number, class = secret, "", 7000218, "1"
		}
		one := code()
		g.refuse(ask(byCode(one), bad), 401, "invalid_client", number)
		if line := g.lastAudit(); line["decision"] != "deny" || line["oid"] != g.user.ObjectID || line["appid"] != app.AppID {
			t.Errorf("%s: audit %v", c.uri, line)
		}
		g.refuse(ask(byCode(one), "wrong"), 401, "invalid_client", 7000215)
		a := ask(byCode(one), good) // refusals do not use the code up
		if access := g.accept(a); access.AppIDACR != class || access.AppID != app.AppID || access.ObjectID != g.user.ObjectID {
			t.Errorf("%s: %+v", c.uri, access)
		}
		proved := func(grant string) { // the line says how the client proved itself, if it did
			t.Helper()
			sid, credential, ok := strings.Cut(strings.TrimPrefix(g.lastAudit()["via"], grant+"/"), ", ")
			if sid == "" || ok != c.confidential || strings.HasPrefix(credential, "secret/") != c.confidential {
				t.Errorf("%s: audit %v", c.uri, g.lastAudit())
			}
		}
		proved("authorizationCode")
		refresh := a.text("refresh_token")
		g.refuse(ask(byRefresh(refresh, ""), bad), 401, "invalid_client", number)
		g.accept(ask(byRefresh(refresh, ""), good))
		proved("refreshToken")
	}
	g.noSecrets(secret)

	// A page posts to an address of the web alone.
	g.browser(ownHost).get(authorizeFor(&app, "msal1://auth", "response_mode", "form_post")).has(400, "AADSTS70007")
	posted := g.browser(ownHost).get(authorizeFor(&app, "https://shop.example/cb", "response_mode", "form_post")).submit("username", userName, "password", password, "action", "signin")
	if posted.has(200, "One moment"); posted.action != "https://shop.example/cb" || posted.hidden.Get("code") == "" {
		t.Errorf("%q %v", posted.action, posted.hidden)
	}
	// What needs no redirect needs the mark of a public client, and what acts for
	// itself a service principal.
	f := byPassword(userName, password)
	f.Set("client_id", app.AppID)
	for _, s := range []string{"", secret} { // a secret that was sent is not what is missing
		f.Set("client_secret", s)
		a := g.tokenAt(ownHost, tenantID, f)
		g.refuse(a, 401, "invalid_client", 7000218)
		if text := a.text("error_description"); !strings.Contains(text, "mark application '"+app.AppID+"' as one") || strings.Contains(text, "client_secret") {
			t.Errorf("%s", text)
		}
	}
	g.refuse(g.do(post(ownHost, "/"+tenantID+"/oauth2/v2.0/devicecode", url.Values{"client_id": {app.AppID}, "scope": {vaultScope}}.Encode())), 401, "invalid_client", 7000218)
	g.refuse(g.token(url.Values{"grant_type": {"client_credentials"}, "client_id": {app.AppID}, "client_secret": {secret}, "scope": {vaultScope}}), 400, "unauthorized_client", 7000229)
}

// Nothing but what is registered for this very application is redirected to.
func TestAttackUnregisteredRedirectURI(t *testing.T) {
	t.Parallel()
	g := start(t)
	app, _ := g.shop("Shop", shopRedirects)
	other, _ := g.shop("Other", directory.Redirects{Web: []string{"https://other.example/cb"}, Public: []string{"https://native.example/cb"}})
	for what, uri := range map[string]string{
		"another host":               "https://evil.example/cb",
		"a host below":               "https://evil.shop.example/cb",
		"a host above":               "https://example/cb",
		"the host as a prefix":       "https://shop.example.evil.example/cb",
		"the host without its dot":   "https://shop.exampleevil.example/cb",
		"the address as a prefix":    "https://shop.example/cb/evil",
		"a prefix of the address":    "https://shop.example/c",
		"no path":                    "https://shop.example/",
		"a longer name":              "https://shop.example/cb2",
		"a query":                    "https://shop.example/cb?next=https://evil.example",
		"another query":              "https://shop.example:8443/q?x=2",
		"a longer query":             "https://shop.example:8443/q?x=1&next=evil",
		"no query":                   "https://shop.example:8443/q",
		"a fragment":                 "https://shop.example/cb#evil",
		"an empty fragment":          "https://shop.example/cb#",
		"a user":                     "https://evil@shop.example/cb",
		"the host as a user":         "https://shop.example@evil.example/cb",
		"the host as a password":     "https://x:shop.example@evil.example/cb",
		"a backslash":                "https://evil.example\\@shop.example/cb",
		"steps up":                   "https://shop.example/x/../cb",
		"an escaped letter":          "https://shop.example/%63b",
		"a closing slash":            "https://shop.example/cb/",
		"capitals":                   "https://SHOP.example/cb",
		"capitals in the path":       "https://shop.example/CB",
		"the default port":           "https://shop.example:443/cb",
		"another port":               "https://shop.example:444/cb",
		"another scheme":             "http://shop.example/cb",
		"a program's own scheme":     "msal1://evil",
		"a longer scheme":            "msal1://auth/evil",
		"a blank in front":           " https://shop.example/cb",
		"a line's end":               "https://shop.example/cb\n",
		"a NUL":                      "https://shop.example/cb\x00.evil.example",
		"two addresses":              "https://shop.example/cb https://evil.example",
		"another application's":      "https://other.example/cb",
		"another's, of a program":    "https://native.example/cb",
		"any port of a web address":  "http://localhost:3001/web",
		"any path on this machine":   "http://localhost:41234/evil",
		"another query there":        "http://127.0.0.1:5001/cb?y=2",
		"the other name there":       "http://127.0.0.1:41234",
		"another name for there":     "http://127.1:41234/cb?y=1",
		"no port there":              "http://localhost:/",
		"port 0":                     "http://localhost:0/",
		"port 65536":                 "http://localhost:65536/",
		"a user there":               "http://localhost:1@evil.example/",
		"this machine as a prefix":   "http://localhost.evil.example/",
		"https there":                "https://localhost:41234",
		"IPv6 with a zone":           "http://[::1%25lo]:41234/",
		"a script":                   "javascript:alert(1)",
		"nothing but a path":         "/cb",
		"no scheme":                  "//shop.example/cb",
		"a wildcard":                 "https://*.example/cb",
		"the real one's own page":    "https://login.microsoftonline.com/common/oauth2/nativeclient",
		"the name as it is repeated": "https://shop.example/cb,https://evil.example",
	} {
		p := g.browser(ownHost).get(authorizeFor(&app, uri))
		if p.Code != 400 || p.Header().Get("Location") != "" || !strings.Contains(p.Body.String(), "AADSTS50011") {
			t.Errorf("%s, %q: %d %q", what, uri, p.Code, p.Header().Get("Location"))
		}
		// Nor by the form, nor with a code that was given for a right one.
		if p := g.browser(ownHost).do(post(ownHost, authorizeFor(&app, uri), "action=continue")); p.Code != 400 || p.Header().Get("Location") != "" {
			t.Errorf("%s, by the form: %d %q", what, p.Code, p.Header().Get("Location"))
		}
	}
	// az's own client has none of them.
	for _, uri := range append(append(shopRedirects.Web, shopRedirects.SPA[0]), shopRedirects.Public[1:]...) {
		g.browser(ownHost).get(authorizeQuery("redirect_uri", uri)).has(400, "AADSTS50011")
	}
	// An application that is marked as public and has nothing registered neither.
	bare, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID, PublicClient: true})
	if err != nil {
		t.Fatal(err)
	}
	g.browser(ownHost).get(authorizeFor(&bare, "http://localhost:41234")).has(400, "AADSTS50011")
	// What was taken back is not good any more, not even for a page that is open.
	open := g.browser(ownHost).get(authorizeFor(&app, "https://shop.example/cb")).has(200, "Shop")
	if _, err := g.dir.UpdateApplication(t.Context(), app.ObjectID, func(a *directory.Application) error { a.Redirects.Web = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	open.submit("username", userName, "password", password, "action", "signin").has(400, "AADSTS50011")
	g.browser(ownHost).get(authorizeFor(&app, "http://localhost:41234")).has(200, "Shop")
	// A code of one application is not another's, whatever is registered.
	to, _ := url.Parse(g.away(authorizeFor(&other, "https://native.example/cb")))
	f := byCode(to.Query().Get("code"))
	f.Set("client_id", app.AppID)
	f.Set("redirect_uri", "https://native.example/cb")
	f.Del("scope")
	g.refuse(g.tokenAt(ownHost, tenantID, f), 400, "invalid_grant", 70000)
}
