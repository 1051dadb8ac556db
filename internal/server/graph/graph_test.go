package graph

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// certificateDER is a new self-signed certificate, good for the year 2027.
func certificateDER(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// client is what the token service would see of an application.
func (r *rig) client(appID string) directory.Client {
	r.t.Helper()
	c, ok, err := r.d.Client(r.t.Context(), homeTenant, appID)
	if err != nil || !ok {
		r.t.Fatal(ok, err)
	}
	return c
}

// works reports whether a text is a secret of the client.
func (r *rig) works(appID, text string) bool {
	r.t.Helper()
	c := r.client(appID)
	_, ok, err := r.d.VerifySecret(r.t.Context(), &c, text)
	r.must(err)
	return ok
}

func TestPasswords(t *testing.T) {
	r := newRig(t)
	app := r.applicationOf("member")
	sp := r.people["member"].ObjectID
	for _, path := range []string{"applications/" + app.ObjectID, "servicePrincipals/" + sp} {
		made := r.want(200, "operator", "POST", path+"/addPassword", `{"passwordCredential":{"displayName":"a","endDateTime":"2027-01-01T00:00:00+01:00"}}`)
		secret, id := made.text("secretText"), made.text("keyId")
		if len(secret) != 40 || made.text("endDateTime") != "2026-12-31T23:00:00Z" || !r.works(app.AppID, secret) {
			t.Fatalf("%s: made no secret that works: %s", path, strings.ReplaceAll(made.body, secret, "***"))
		}
		shown := r.want(200, "member", "GET", path, "")
		if shown.text("passwordCredentials.0.keyId") != id || strings.Contains(shown.body, secret) || strings.Contains(shown.body, secret[3:]) {
			t.Errorf("%s shows the wrong things", path)
		}
		r.want(204, "operator", "POST", path+"/removePassword", fmt.Sprintf(`{"keyId":%q}`, id))
		if r.works(app.AppID, secret) {
			t.Errorf("%s: a removed secret works", path)
		}
		if log := r.audit.take(); strings.Contains(log, secret) {
			t.Error("the audit log has the secret")
		}
	}
	// A principal that goes takes its own secrets along; the application's stay.
	of := r.want(200, "operator", "POST", "applications/"+app.ObjectID+"/addPassword", ``).text("secretText")
	own := r.want(200, "operator", "POST", "servicePrincipals/"+sp+"/addPassword", `{}`).text("secretText")
	r.want(204, "operator", "DELETE", "servicePrincipals/"+sp, "")
	if r.works(app.AppID, own) || !r.works(app.AppID, of) {
		t.Error("the wrong secrets are left")
	}
	r.want(201, "operator", "POST", "servicePrincipals", `{"appId":"`+app.AppID+`"}`)
	if r.works(app.AppID, own) {
		t.Error("a new principal has the old one's secret")
	}
	for range 99 {
		r.want(200, "operator", "POST", "applications/"+app.ObjectID+"/addPassword", `{}`)
	}
	r.want(400, "operator", "POST", "applications/"+app.ObjectID+"/addPassword", `{}`)
}

func TestKeyCredentials(t *testing.T) {
	r := newRig(t)
	one, two := certificateDER(t), certificateDER(t)
	// As az has it: base64 in lines.
	text := base64.StdEncoding.EncodeToString(one)
	lines := text[:64] + `\n` + text[64:128] + `\n` + text[128:] + `\n`
	const id = "0a0a0a0a-0000-4000-8000-000000000001"
	made := r.want(201, "operator", "POST", "applications", fmt.Sprintf(`{"displayName":"c","keyCredentials":[{"@odata.type":"#microsoft.graph.keyCredential",
		"displayName":"first","keyId":%q,"key":"%s","type":"AsymmetricX509Cert","usage":"Verify","startDateTime":"2027-01-02T00:00:00Z","endDateTime":"2027-12-01T00:00:00Z"}]}`, id, lines))
	app, appID := "applications/"+made.text("id"), made.text("appId")
	if made.text("keyCredentials.0.keyId") != id || made.text("keyCredentials.0.endDateTime") != "2027-12-01T00:00:00Z" || len(made.text("keyCredentials.0.customKeyIdentifier")) != 40 ||
		made.at("keyCredentials.0.key") != nil {
		t.Errorf("made: %s", made.body)
	}
	if got := r.want(200, "member", "GET", app+"?$select=keyCredentials", "").text("keyCredentials.0.key"); got != text {
		t.Error("the selected key is not the certificate")
	}
	// az adds one: it sends back what it was shown, and a PEM in base64 is taken too.
	shown := r.want(200, "operator", "GET", app, "")
	p := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: two}))
	kept := fmt.Sprintf(`{"customKeyIdentifier":%q,"displayName":"first","keyId":%q,"key":null,"type":"AsymmetricX509Cert","usage":"Verify"}`, shown.text("keyCredentials.0.customKeyIdentifier"), id)
	r.want(204, "operator", "PATCH", app, `{"keyCredentials":[`+kept+`,{"key":"`+p+`"}]}`)
	if c := r.client(appID); len(c.Certificates) != 2 || !slices.Equal(c.Certificates[0].DER, one) || !slices.Equal(c.Certificates[1].DER, two) {
		t.Errorf("%d certificates", len(c.Certificates))
	}
	// Another certificate under a known id, one twice, and one whose time is beyond its certificate's.
	for _, bad := range []string{
		fmt.Sprintf(`[{"keyId":%q,"key":%q}]`, id, base64.StdEncoding.EncodeToString(two)),
		fmt.Sprintf(`[{"key":%q},{"key":%q}]`, text, text),
		fmt.Sprintf(`[%s,%s]`, kept, kept),
		fmt.Sprintf(`[{"key":%q,"endDateTime":"2029-01-01T00:00:00Z"}]`, text),
		fmt.Sprintf(`[{"key":%q,"startDateTime":"2026-01-01T00:00:00Z"}]`, text),
		fmt.Sprintf(`[{"key":%q,"keyId":"x"}]`, text),
	} {
		a := r.do("operator", "PATCH", app, `{"keyCredentials":`+bad+`}`)
		if a.StatusCode != 400 && a.StatusCode != 409 || len(r.client(appID).Certificates) != 2 {
			t.Errorf("%.60s: %d %s", bad, a.StatusCode, a.body)
		}
	}
	// The principal has its own.
	sp := r.want(201, "operator", "POST", "servicePrincipals", `{"appId":"`+appID+`"}`).text("id")
	r.want(204, "operator", "PATCH", app, `{"keyCredentials":[`+kept+`]}`)
	r.want(204, "operator", "PATCH", "servicePrincipals/"+sp, fmt.Sprintf(`{"keyCredentials":[{"key":%q}]}`, base64.StdEncoding.EncodeToString(two)))
	if c := r.client(appID); len(c.Certificates) != 2 {
		t.Errorf("%d certificates", len(c.Certificates))
	}
	r.want(204, "operator", "PATCH", app, `{"keyCredentials":[]}`)
	if c := r.client(appID); len(c.Certificates) != 1 {
		t.Errorf("%d certificates", len(c.Certificates))
	}
}

func TestApplicationProperties(t *testing.T) {
	r := newRig(t)
	made := r.want(201, "operator", "POST", "applications", `{"displayName":"p","identifierUris":["api://p","https://api.home.example/p"],"isFallbackPublicClient":true,"tags":["a"],
		"description":"d","notes":"n","serviceManagementReference":"s","web":{"homePageUrl":"https://p.example","redirectUris":["https://p.example/cb"],
		"implicitGrantSettings":{"enableIdTokenIssuance":false}},"spa":{"redirectUris":["http://localhost:3000"]},"publicClient":{"redirectUris":["msal1://auth"]},
		"api":{"requestedAccessTokenVersion":2},"signInAudience":"AzureADMyOrg","appRoles":[],"optionalClaims":{"idToken":[]},"info":null}`)
	app := "applications/" + made.text("id")
	for path, want := range map[string]any{
		"isFallbackPublicClient": true, "identifierUris.0": "api://p", "tags.0": "a", "description": "d", "notes": "n", "serviceManagementReference": "s",
		"web.homePageUrl": "https://p.example", "web.redirectUris.0": "https://p.example/cb", "spa.redirectUris.0": "http://localhost:3000",
		"publicClient.redirectUris.0": "msal1://auth", "api.requestedAccessTokenVersion": 2.0,
	} {
		if got := made.at(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	r.want(204, "operator", "PATCH", app, `{"description":null,"web":{"redirectUris":[]},"api":{"requestedAccessTokenVersion":null}}`)
	got := r.want(200, "operator", "GET", app, "")
	if got.at("description") != nil || got.at("web.redirectUris.0") != nil || got.text("web.homePageUrl") != "https://p.example" || got.at("api.requestedAccessTokenVersion") != nil || got.text("notes") != "n" {
		t.Errorf("patched: %s", got.body)
	}
	r.want(204, "operator", "PATCH", app, `{"identifierUris":["api://p","api://`+made.text("appId")+`/x","api://`+homeTenant+`/p"]}`)
	r.want(409, "operator", "POST", "applications", `{"displayName":"q","identifierUris":["API://P"]}`)
	// The principal answers to the application's names.
	r.want(201, "operator", "POST", "servicePrincipals", `{"appId":"`+made.text("appId")+`","tags":["x"]}`)
	if got := r.want(200, "member", "GET", "servicePrincipals?$filter="+url.QueryEscape("servicePrincipalNames/any(n:n eq 'api://P')"), "").list("displayName"); !slices.Equal(got, []string{"p"}) {
		t.Errorf("by identifier URI: %v", got)
	}
	r.want(409, "operator", "POST", "servicePrincipals", `{"appId":"`+made.text("appId")+`"}`)
}

func TestPagesAndCounts(t *testing.T) {
	r := newRig(t)
	want := r.want(200, "member", "GET", "applications?$top=999", "").list("id")
	for i := range 25 {
		a, err := r.d.CreateApplication(t.Context(), directory.Application{TenantID: homeTenant, DisplayName: fmt.Sprint("page", i%2)})
		r.must(err)
		want = append(want, a.ObjectID)
		_, err = r.d.CreateApplication(t.Context(), directory.Application{TenantID: otherTenant, DisplayName: "page0"})
		r.must(err)
	}
	slices.Sort(want)
	var got []string
	pages := 0
	for path := "applications?$top=7&$select=id"; path != ""; pages++ {
		a := r.want(200, "member", "GET", path, "")
		if len(a.list("id")) > 7 || a.at("value.0.displayName") != nil {
			t.Fatal(a.body)
		}
		got = append(got, a.list("id")...)
		next := a.text("@odata.nextLink")
		if next != "" && !strings.HasPrefix(next, "https://graph.podkey.test/v1.0/applications?") {
			t.Fatal(next)
		}
		path = strings.TrimPrefix(next, "https://graph.podkey.test")
	}
	if !slices.Equal(got, want) || pages != 5 {
		t.Errorf("%d of %d in %d pages", len(got), len(want), pages)
	}
	for filter, n := range map[string]int{
		"displayName eq 'PAGE0'":                              13,
		"startswith(displayName,'page')":                      25,
		"displayName in ('page0','page1')":                    25,
		"displayName eq 'page0' and not (appId eq 'x')":       13,
		"displayName eq 'page0' or displayName eq 'owner'":    14,
		"not startswith(displayName,'page')":                  len(want) - 25,
		"displayName eq 'page0' and id eq '" + want[0] + "x'": 0,
	} {
		a := r.want(200, "member", "GET", "applications?$count=true&$top=3&$filter="+url.QueryEscape(filter), "", "ConsistencyLevel: eventual")
		if a.at("@odata.count") != float64(n) || len(a.list("id")) != min(n, 3) || (a.text("@odata.nextLink") != "") != (n > 3) {
			t.Errorf("%s: %.300s", filter, a.body)
		}
	}
	for _, query := range []string{"displayName eq 'page0'", "startswith(displayName,'page0')"} { // by an index, and by a walk
		for _, also := range []string{"", "&$count=true"} {
			var got []string
			for path := "applications?$top=3" + also + "&$filter=" + url.QueryEscape(query); path != ""; {
				a := r.want(200, "member", "GET", path, "", "ConsistencyLevel: eventual")
				got = append(got, a.list("id")...)
				path = strings.TrimPrefix(a.text("@odata.nextLink"), "https://graph.podkey.test")
			}
			if len(got) != 13 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 13 {
				t.Errorf("%s%s: %d, want 13 different ones", query, also, len(got))
			}
		}
	}
}

// TestLookupsUseIndexes: what az asks all the time does not walk through the
// tenant.
func TestLookupsUseIndexes(t *testing.T) {
	r := newRig(t)
	walked := false
	apps, sps, people := applications, servicePrincipals, users
	apps.walk = func(*call, string, func(*directory.Application) bool) error { walked = true; return nil }
	sps.walk = func(*call, string, func(*directory.ServicePrincipal) bool) error { walked = true; return nil }
	people.walk = func(*call, string, func(*directory.User) bool) error { walked = true; return nil }
	list := map[string]func(*call) error{"applications": apps.list, "servicePrincipals": sps.list, "users": people.list}
	h := &Handler{Directory: r.d, RBAC: r.rbac, Authenticate: r.authenticate}
	routes := h.routes()
	for i := range routes {
		if f := list[routes[i].pattern]; f != nil && routes[i].method == "GET" {
			routes[i].handle = f
		}
	}
	r.serve(&web.Plane{Serve: func(w http.ResponseWriter, req *http.Request) error { return h.serve(w, req, routes) }, Fail: h.fail})
	member := r.applicationOf("member")
	for path, n := range map[string]int{
		"applications?$filter=appId eq '" + member.AppID + "'":                                              1,
		"applications?$filter=appId eq '" + member.ObjectID + "'":                                           0,
		"applications?$filter=id eq '" + member.ObjectID + "'":                                              1,
		"applications?$filter=displayName eq 'MEMBER'":                                                      1,
		"applications?$filter=identifierUris/any(s:s eq 'api://x')":                                         0,
		"servicePrincipals?$filter=servicePrincipalNames/any(c:c eq '" + member.AppID + "')":                1,
		"servicePrincipals?$filter=servicePrincipalNames/any(c:c eq '" + r.mi.ClientID + "')":               1,
		"servicePrincipals?$filter=appId eq '" + r.mi.ClientID + "' and displayName eq 'shop'":              1,
		"servicePrincipals?$filter=displayName eq 'Shop'":                                                   1,
		"users?$filter=userPrincipalName eq 'person@home.example' or userPrincipalName eq 'x@home.example'": 1,
		"users?$filter=displayName eq 'the person'":                                                         1,
	} {
		p, q, _ := strings.Cut(path, "?$filter=")
		if got := r.want(200, "member", "GET", p+"?$filter="+url.QueryEscape(q), "").list("id"); len(got) != n {
			t.Errorf("%s: %v", path, got)
		}
		if walked {
			t.Errorf("%s walks through the tenant", path)
		}
		walked = false
	}
	r.want(200, "member", "GET", "users?$filter="+url.QueryEscape("startswith(displayName,'x')"), "")
	if !walked {
		t.Error("the test would not see a walk")
	}
}

func TestUsers(t *testing.T) {
	r := newRig(t)
	works := func(password string) bool {
		t.Helper()
		_, ok, err := r.d.VerifyPassword(t.Context(), homeTenant, "kim@x.home.example", password)
		r.must(err)
		return ok
	}
	made := r.want(201, "operator", "POST", "users", `{"accountEnabled":true,"displayName":"Kim","userPrincipalName":"kim@x.home.example","mailNickname":"k","givenName":null,
		"passwordProfile":{"password":"correct horse 1","forceChangePasswordNextSignIn":false}}`)
	if strings.Contains(made.body, "correct") || !works("correct horse 1") {
		t.Error("the password is shown, or does not work")
	}
	user := "users/" + made.text("id")
	r.want(409, "operator", "POST", "users", `{"accountEnabled":true,"displayName":"Kim","userPrincipalName":"KIM@x.home.example","passwordProfile":{"password":"correct horse 1"}}`)
	r.want(204, "operator", "PATCH", user, `{"displayName":"Kim B","passwordProfile":{"password":"correct horse 2"}}`)
	got := r.want(200, "person", "GET", "users/kim@x.home.example?$select=displayName,mailNickname,accountEnabled,lastPasswordChangeDateTime", "")
	if got.text("displayName") != "Kim B" || got.text("mailNickname") != "k" || got.text("lastPasswordChangeDateTime") == "" || works("correct horse 1") || !works("correct horse 2") {
		t.Errorf("%s", got.body)
	}
	r.want(204, "operator", "PATCH", user, `{"accountEnabled":false}`)
	if works("correct horse 2") {
		t.Error("a disabled user signs in")
	}
	if strings.Contains(r.audit.take(), "horse") {
		t.Error("the audit log has a password")
	}
	r.want(204, "operator", "DELETE", user, "")
	r.want(404, "operator", "DELETE", user, "")
	r.want(200, "person", "GET", "me/memberOf", "")
	r.want(200, "person", "POST", "users/person@home.example/getMemberGroups", `{"securityEnabledOnly":false}`)
}

// TestAtTheSameTime: of many who do the same, none is lost and no second one
// succeeds where there can be one.
func TestAtTheSameTime(t *testing.T) {
	r := newRig(t)
	app := r.want(201, "operator", "POST", "applications", `{"displayName":"busy"}`)
	id, appID := app.text("id"), app.text("appId")
	const n = 12
	answers := make(chan [3]*answer, n)
	for i := range n {
		go func() {
			answers <- [3]*answer{
				r.do("operator", "POST", "servicePrincipals", fmt.Sprintf(`{"appId":%q}`, appID)),
				r.do("operator", "POST", "applications/"+id+"/addPassword", `{}`),
				r.do("operator", "POST", "applications/"+id+"/federatedIdentityCredentials",
					fmt.Sprintf(`{"name":"c-%d","issuer":"https://i.example","subject":"s","audiences":["a"]}`, i)),
			}
		}()
	}
	principals, credentials := 0, 0
	for range n {
		a := <-answers
		switch a[0].StatusCode {
		case 201:
			principals++
		case 409:
		default:
			t.Errorf("service principal: %d %s", a[0].StatusCode, a[0].body)
		}
		if a[1].StatusCode != 200 || !r.works(appID, a[1].text("secretText")) {
			t.Errorf("a secret was lost: %d", a[1].StatusCode)
		}
		switch a[2].StatusCode {
		case 201:
			credentials++
		case 400:
		default:
			t.Errorf("credential: %d %s", a[2].StatusCode, a[2].body)
		}
	}
	if principals != 1 || credentials != 1 {
		t.Errorf("%d principals and %d credentials for one issuer and subject, want one each", principals, credentials)
	}
	if got := r.want(200, "operator", "GET", "applications/"+id, ""); got.at("passwordCredentials.9.keyId") == nil {
		t.Error("not all secrets are listed")
	}
}
