package sts_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/sts"
)

// provider is a small OpenID Connect provider on a loopback socket. It stands
// for the company's real one, which no test can have: what it signs and checks
// is real.
type provider struct {
	server *httptest.Server
	now    func() time.Time

	mu        sync.Mutex
	challenge string         // of the last authorization request
	claims    map[string]any // of the next id token; nil values are left out
	seen      url.Values     // the last token request
	answer    string         // instead of the right one
}

const (
	providerClient = "podkey at the company"
	providerSecret = "the provider's secret"
)

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["RS256"]}`,
			p.server.URL, p.server.URL+"/authorize", p.server.URL+"/token", p.server.URL+"/keys")
	case "/keys":
		io.WriteString(w, jwks("k1", &issuerKey().PublicKey))
	case "/token":
		_ = r.ParseForm()
		p.seen = r.PostForm
		id, secret, _ := r.BasicAuth()
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if id != url.QueryEscape(providerClient) || secret != url.QueryEscape(providerSecret) || r.PostForm.Get("code") != "the-code" ||
			base64.RawURLEncoding.EncodeToString(sum[:]) != p.challenge {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":"invalid_grant","error_description":"a secret detail"}`)
			return
		}
		if p.answer != "" {
			io.WriteString(w, p.answer)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": "x", "token_type": "Bearer", "expires_in": 60,
			"id_token": sign(issuerKey(), map[string]any{"alg": "RS256", "kid": "k1"}, p.claims),
		})
	default:
		http.NotFound(w, r)
	}
}

// startOutside builds a rig whose people can sign in at a provider.
func startOutside(t *testing.T, adjust ...func(*sts.Handler)) (*rig, *provider) {
	p := newProvider(t)
	g := start(t, append([]func(*sts.Handler){func(h *sts.Handler) {
		client := p.server.Client()
		client.Timeout = 10 * time.Second
		h.SignIn.OIDC = &sts.OIDCProvider{Issuer: p.server.URL, ClientID: providerClient, ClientSecret: providerSecret, Name: "the company", Client: client}
	}}, adjust...)...)
	p.now = g.clock
	return g, p
}

var outsideLink = strings.NewReplacer("&amp;", "&", "&#43;", "+")

// leave follows a page's link to the provider, and returns the request that
// the browser brings there.
func (p *pageShown) leave(to *provider) url.Values {
	p.b.g.t.Helper()
	at := p.Header().Get("Location")
	if p.Code != http.StatusSeeOther {
		_, rest, ok := strings.Cut(p.Body.String(), `<a class="button" href="`)
		if !ok {
			p.b.g.t.Fatalf("no link to the provider: %s", p.Body)
		}
		at, _, _ = strings.Cut(rest, `"`)
		at = outsideLink.Replace(at)
	}
	q := p.b.get(at)
	if l, ok := strings.CutPrefix(q.Header().Get("Location"), "https://"+ownHost); ok { // from another name to our own
		p.b.host = ownHost
		q = p.b.get(l)
	}
	u, err := url.Parse(q.Header().Get("Location"))
	if err != nil || q.Code != http.StatusSeeOther || u.Scheme+"://"+u.Host+u.Path != to.server.URL+"/authorize" {
		p.b.g.t.Fatalf("%d %s: %s", q.Code, q.Header().Get("Location"), q.Body)
	}
	v := u.Query()
	if v.Get("client_id") != providerClient || v.Get("redirect_uri") != "https://"+ownHost+"/signin/oidc/callback" || v.Get("code_challenge_method") != "S256" ||
		v.Get("response_type") != "code" || v.Get("nonce") == "" || v.Get("state") == "" || !strings.Contains(v.Get("scope"), "openid") {
		p.b.g.t.Errorf("request to the provider: %v", v)
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.challenge = v.Get("code_challenge")
	to.claims = map[string]any{
		"iss": to.server.URL, "aud": providerClient, "sub": "12345", "nonce": v.Get("nonce"), "email": "Ada@contoso.example", "email_verified": true,
		"iat": to.now().Unix(), "exp": to.now().Add(time.Minute).Unix(),
	}
	return v
}

func callback(state string) string {
	return "/signin/oidc/callback?" + url.Values{"state": {state}, "code": {"the-code"}}.Encode()
}

func TestOutsideSignIn(t *testing.T) {
	t.Parallel()
	g, p := startOutside(t)
	for _, host := range []string{ownHost, azureHost} {
		b := g.browser(host)
		v := b.get(authorizeQuery()).has(200, "Sign in with the company").has(200, "Password").leave(p)
		back := b.get(callback(v.Get("state")))
		next := back.Header().Get("Location")
		if back.Code != http.StatusSeeOther || !strings.HasPrefix(next, "/organizations/oauth2/v2.0/authorize?") {
			t.Fatalf("%d %s %s", back.Code, next, back.Body)
		}
		if line := g.lastAudit(); line["operationName"] != "SignIn" || line["oid"] != g.user.ObjectID || !strings.HasPrefix(line["via"], "fed/") {
			t.Errorf("audit %v", line)
		}
		answer := b.get(next).has(200, "Continue?").has(200, userName).submit("action", "continue").redirected("http://localhost:41234/")
		c := g.accept(g.tokenAt(ownHost, "organizations", byCode(answer.Get("code"))))
		if c.ObjectID != g.user.ObjectID || len(c.AMR) != 1 || c.AMR[0] != "fed" {
			t.Errorf("%+v", c)
		}
		b.get(callback(v.Get("state"))).has(403, "Invalid request") // once
	}
	g.noSecrets(providerSecret, "the-code", p.seen.Get("code_verifier"))

	// A device.
	device, user := g.deviceCode()
	b := g.browser(ownHost)
	v := b.get("/devicelogin").submit("action", "code", "user_code", user).leave(p)
	back := b.get(callback(v.Get("state")))
	page := b.get(back.Header().Get("Location")).has(200, `value="`+user+`"`)
	page.submit("action", "code", "user_code", user).has(200, "Asked for from").submit("action", "continue").has(200, "You have signed in")
	g.accept(g.tokenAt(ownHost, "organizations", byDevice(device)))
}

func TestOutsideOnly(t *testing.T) {
	t.Parallel()
	g, p := startOutside(t, func(h *sts.Handler) { h.SignIn.DisablePasswords = true })
	b := g.browser(ownHost)
	first := b.get(authorizeQuery())
	if first.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	v := first.leave(p)
	back := b.get(callback(v.Get("state")))
	page := b.get(back.Header().Get("Location")).has(200, "Continue?")
	page.submit("action", "signin", "username", userName, "password", password).has(400, "switched off")
	if other := page.submit("action", "other").has(200, "Sign in with the company"); strings.Contains(other.Body.String(), "Password") {
		t.Error("asks for a password")
	}
}

func TestAttackOutside(t *testing.T) {
	t.Parallel()
	g, p := startOutside(t, func(h *sts.Handler) { h.SignIn.OIDC.Domains = []string{"contoso.example"} })
	if _, err := g.dir.CreateUser(t.Context(), directory.User{TenantID: tenantID, UserPrincipalName: "off@contoso.example"}, password); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dir.CreateUser(t.Context(), directory.User{TenantID: tenantID, UserPrincipalName: "kim@contoso.example"}, password); err != nil {
		t.Fatal(err)
	}
	off, _, err := g.dir.User(t.Context(), tenantID, "off@contoso.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.dir.EnableUser(t.Context(), off.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		claims map[string]any
		status int
	}{
		"address not verified":    {map[string]any{"email_verified": false}, 403},
		"nothing about verified":  {map[string]any{"email_verified": nil}, 403},
		"verified is a text":      {map[string]any{"email_verified": "true"}, 502},
		"no address":              {map[string]any{"email": nil, "preferred_username": userName, "upn": userName}, 403},
		"nobody here":             {map[string]any{"email": "eve@contoso.example"}, 403},
		"object id as an address": {map[string]any{"email": g.user.ObjectID}, 403},
		"disabled":                {map[string]any{"email": "off@contoso.example"}, 403},
		"domain not allowed":      {map[string]any{"email": "ada@elsewhere.example"}, 403},
		"a Kelvin sign":           {map[string]any{"email": "\u212aim@contoso.example"}, 403},
		"two at signs":            {map[string]any{"email": "ada@contoso.example@contoso.example"}, 403},
		"another nonce":           {map[string]any{"nonce": "x"}, 502},
		"no nonce":                {map[string]any{"nonce": nil}, 502},
		"another audience":        {map[string]any{"aud": "x"}, 502},
		"another issuer":          {map[string]any{"iss": "https://evil.test"}, 502},
		"expired":                 {map[string]any{"exp": g.clock().Add(-time.Hour).Unix()}, 502},
	} {
		b := g.browser(ownHost)
		v := b.get(authorizeQuery()).leave(p)
		p.mu.Lock()
		p.claims = merge(p.claims, c.claims)
		p.mu.Unlock()
		q := b.get(callback(v.Get("state")))
		if q.Code != c.status || b.cookies["__Host-podkey-session"] != "" || q.Header().Get("Location") != "" {
			t.Errorf("%s: %d %s", what, q.Code, q.Body)
		}
		if strings.Contains(q.Body.String(), "secret detail") {
			t.Errorf("%s: the answer tells more", what)
		}
	}
	if line := g.lastAudit(); line["decision"] != "deny" {
		t.Errorf("audit %v", line)
	}

	// Somebody else's way back: signing a person in as another.
	v := g.browser(ownHost).get(authorizeQuery()).leave(p)
	victim := g.browser(ownHost)
	victim.get(callback(v.Get("state"))).has(403, "Invalid request")
	v = victim.get(authorizeQuery()).leave(p)
	delete(victim.cookies, "__Host-podkey-form")
	victim.get(callback(v.Get("state"))).has(403, "Invalid request")
	b := g.browser(ownHost)
	b.get(callback("pkf1_x")).has(403, "Invalid request")
	b.get("/signin/oidc/callback").has(403, "Invalid request")
	// The provider says no, or something else.
	v = b.get(authorizeQuery()).leave(p)
	b.get("/signin/oidc/callback?error=access_denied%3Cb%3E&state="+v.Get("state")).has(403, "access_denied&lt;b&gt;")
	v = b.get(authorizeQuery()).leave(p)
	b.get("/signin/oidc/callback?code=wrong&state="+v.Get("state")).has(502, "could not be asked")
	for _, bad := range []string{"{}", `{"access_token":"x","token_type":"Bearer","id_token":"x"}`, "nonsense", strings.Repeat(" ", 2<<20)} {
		v = b.get(authorizeQuery()).leave(p)
		p.mu.Lock()
		p.answer = bad
		p.mu.Unlock()
		b.get(callback(v.Get("state"))).has(502, "could not be asked")
		p.mu.Lock()
		p.answer = ""
		p.mu.Unlock()
	}
	// Where a person comes back to is a page of ours.
	for _, next := range []string{"", "https://evil.test/authorize", "//evil.test/authorize", `/\evil.test/authorize`, "/x", "javascript:alert(1)//authorize", "/\t/evil.test/authorize", "/signin/oidc?return=/authorize"} {
		b.get("/signin/oidc?return="+url.QueryEscape(next)).has(400, "AADSTS9002313")
	}
	p.server.Close()
	other, gone := startOutside(t)
	gone.server.Close()
	other.browser(ownHost).get("/signin/oidc?return=%2Fdevicelogin").has(502, "could not be asked")
	none := start(t).browser(ownHost)
	none.get("/signin/oidc?return=%2Fdevicelogin").has(404, "No identity provider")
	none.get(callback("x")).has(404, "No identity provider")
}

// Each answer of the provider that signs nobody in leaves one audit line; what
// belongs to no sign-in that was begun here leaves none.
func TestOutsideRefusalsAreWrittenDown(t *testing.T) {
	t.Parallel()
	g, p := startOutside(t)
	for what, c := range map[string]struct {
		claims map[string]any
		answer string                                    // of the token endpoint
		back   func(b *browser, state string) *pageShown // the way back; the right one if nil
		status int
		reason string
	}{
		"nobody here":   {claims: map[string]any{"email": "eve@contoso.example"}, status: 403, reason: "AADSTS50020: there is no user eve@contoso.example"},
		"another nonce": {claims: map[string]any{"nonce": "x"}, status: 502, reason: "AADSTS90061: the id token has another nonce"},
		"expired token": {claims: map[string]any{"exp": g.clock().Add(-time.Hour).Unix()}, status: 502, reason: "AADSTS90061: verify id token: "},
		"not an answer": {answer: "nonsense", status: 502, reason: "AADSTS90061: redeem code: "},
		"no id token":   {answer: `{"access_token":"x","token_type":"Bearer"}`, status: 502, reason: "AADSTS90061: the answer has no id token"},
		"refused": {back: func(b *browser, state string) *pageShown {
			return b.get("/signin/oidc/callback?error=access_denied%0A&state=" + state)
		}, status: 403, reason: "AADSTS65004: the identity provider answered access_denied?"},
		"wrong code": {back: func(b *browser, state string) *pageShown {
			return b.get("/signin/oidc/callback?code=wrong&state=" + state)
		}, status: 502, reason: `AADSTS90061: redeem code: status 400, error "invalid_grant"`},
		"another browser": {back: func(_ *browser, state string) *pageShown { return g.browser(ownHost).get(callback(state)) }, status: 403, reason: "AADSTS165000: the sign-in began in another browser"},
		"too late":        {back: func(b *browser, state string) *pageShown { g.advance(10 * time.Minute); return b.get(callback(state)) }, status: 403, reason: "AADSTS165000: state: expired"},
	} {
		b := g.browser(ownHost)
		state := b.get(authorizeQuery()).leave(p).Get("state")
		p.mu.Lock()
		p.claims, p.answer = merge(p.claims, c.claims), c.answer
		p.mu.Unlock()
		if c.back == nil {
			c.back = func(b *browser, state string) *pageShown { return b.get(callback(state)) }
		}
		before := g.lines()
		if q := c.back(b, state); q.Code != c.status {
			t.Errorf("%s: %d %s", what, q.Code, q.Body)
		}
		line := g.lastAudit()
		if n := g.lines() - before; n != 1 || line["operationName"] != "SignIn" || line["decision"] != "deny" || !strings.HasPrefix(line["reason"], c.reason) {
			t.Errorf("%s: %d lines, %v", what, n, line)
		}
		// The same again is nobody's.
		before = g.lines()
		for _, again := range []string{callback(state), callback("pkf1_x"), "/signin/oidc/callback?error=x&state=" + state, "/signin/oidc/callback"} {
			b.get(again).has(403, "Invalid request")
		}
		if n := g.lines() - before; n != 0 {
			t.Errorf("%s: %d lines about nobody", what, n)
		}
	}
	g.noSecrets(providerSecret, "the-code", "a secret detail")

	// Without an audit line there is no answer either, not even a refusal.
	b := g.browser(ownHost)
	state := b.get(authorizeQuery()).leave(p).Get("state")
	g.audit.breakDown()
	b.get("/signin/oidc/callback?error=x&state="+state).has(500, "AADSTS50000")
}
