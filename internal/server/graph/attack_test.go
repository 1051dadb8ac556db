package graph

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// TestWhoMay asks every route as every kind of caller. A new route must be
// given its row.
func TestWhoMay(t *testing.T) {
	r := newRig(t)
	victim := r.applicationOf("owner")
	sp := r.people["owner"].ObjectID
	user := r.people["operator"].ObjectID
	_, err := r.d.PutFederated(t.Context(), victim.ObjectID, directory.FederatedCredential{
		Name: "kube", Issuer: "https://i.example", Subject: "s", Audiences: []string{"a"},
	})
	r.must(err)
	fill := func(pattern string) string {
		first := map[string]string{"applications": victim.ObjectID, "servicePrincipals": sp, "users": user, "directoryObjects": sp, "groups": sp, "organization": homeTenant}
		kind, _, _ := strings.Cut(pattern, "/")
		p := strings.Replace(pattern, "{}", first[kind], 1)
		if strings.Contains(pattern, "federated") {
			return strings.Replace(p, "{}", "kube", 1)
		}
		return strings.Replace(p, "{}", user, 1)
	}
	bodies := map[string]string{
		"POST servicePrincipals":                                fmt.Sprintf(`{"appId":%q}`, victim.AppID),
		"POST directoryObjects/getByIds":                        fmt.Sprintf(`{"ids":[%q]}`, sp),
		"POST applications/{}/owners/$ref":                      fmt.Sprintf(`{"@odata.id":"https://graph.podkey.test/v1.0/directoryObjects/%s"}`, user),
		"POST servicePrincipals/{}/owners/$ref":                 fmt.Sprintf(`{"@odata.id":"https://graph.podkey.test/v1.0/directoryObjects/%s"}`, user),
		"POST applications/{}/federatedIdentityCredentials":     `{"name":"evil","issuer":"https://e.example","subject":"s","audiences":["a"]}`,
		"PATCH applications/{}/federatedIdentityCredentials/{}": `{"subject":"evil"}`,
	}
	for _, rt := range (&Handler{}).routes() {
		body := bodies[rt.method+" "+rt.pattern]
		if body == "" && rt.method != "GET" {
			body = "{}"
		}
		for who, may := range map[string]bool{
			"member":      rt.need == byMember,
			"person":      rt.need == byMember,
			"reader":      rt.need == byMember,
			"contributor": rt.need != byOwner, // it cannot give roles
			"stranger":    rt.need == byMember && !strings.Contains(rt.pattern, "{}"),
			"":            false,
			"nobody":      false,
		} {
			if strings.HasPrefix(rt.pattern, "me") && who != "person" {
				continue // refused because they are no persons, whatever they may
			}
			if who == "stranger" && rt.need == byRight {
				continue // may at home, where it changes nothing of ours: see TestOtherTenant
			}
			before := r.state()
			r.audit.take()
			a := r.do(who, rt.method, fill(rt.pattern), body)
			denied := a.StatusCode == 401 || a.StatusCode == 403 || who == "stranger" && (a.StatusCode == 404 || a.StatusCode == 400)
			if denied == may {
				t.Errorf("%s %s as %q: %d %s", rt.method, rt.pattern, who, a.StatusCode, a.body)
			}
			if !may && r.state() != before {
				t.Errorf("%s %s as %q was refused, and yet changed something", rt.method, rt.pattern, who)
			}
			if log := r.audit.take(); a.StatusCode == 403 && !strings.Contains(log, "deny") {
				t.Errorf("%s %s as %q: no line of the refusal: %s", rt.method, rt.pattern, who, log)
			}
		}
	}
}

// state is the whole directory of the home tenant as text.
func (r *rig) state() string {
	r.t.Helper()
	var b strings.Builder
	ctx := r.t.Context()
	r.must(r.d.WalkApplications(ctx, homeTenant, "", func(a *directory.Application) bool {
		fs, err := r.d.FederatedAll(ctx, a.ObjectID)
		r.must(err)
		fmt.Fprintln(&b, *a, fs)
		return true
	}))
	r.must(r.d.WalkServicePrincipals(ctx, homeTenant, "", func(p *directory.ServicePrincipal) bool { fmt.Fprintln(&b, *p); return true }))
	r.must(r.d.WalkUsers(ctx, homeTenant, "", func(u *directory.User) bool { fmt.Fprintln(&b, *u); return true }))
	return b.String()
}

func TestOwnersMayAndNoLonger(t *testing.T) {
	r := newRig(t)
	// A contributor makes an application, which is its own then.
	app := r.want(201, "contributor", "POST", "applications", `{"displayName":"mine"}`)
	id, appID := app.text("id"), app.text("appId")
	r.want(200, "contributor", "POST", "applications/"+id+"/addPassword", `{}`)
	r.want(201, "contributor", "POST", "servicePrincipals", fmt.Sprintf(`{"appId":%q}`, appID))
	r.want(204, "contributor", "PATCH", "applications/"+id, `{"displayName":"still mine"}`)
	if got := r.want(200, "member", "GET", "servicePrincipals(appId='"+appID+"')", "").text("displayName"); got != "still mine" {
		t.Errorf("the principal is called %q", got)
	}
	ref := fmt.Sprintf(`{"@odata.id":"https://graph.podkey.test/v1.0/directoryObjects/%s"}`, r.people["person"].ObjectID)
	r.want(403, "person", "PATCH", "applications/"+id, `{"displayName":"x"}`)
	r.want(204, "contributor", "POST", "applications/"+id+"/owners/$ref", ref)
	r.want(400, "contributor", "POST", "applications/"+id+"/owners/$ref", ref)
	r.want(204, "person", "PATCH", "applications/"+id, `{"displayName":"ours"}`)
	if got := r.want(200, "person", "GET", "me/ownedObjects", "").list("@odata.type"); !slices.Equal(got, []string{"#microsoft.graph.application"}) {
		t.Errorf("owned: %v", got)
	}
	r.want(204, "person", "DELETE", "applications/"+id+"/owners/"+r.people["person"].ObjectID+"/$ref", "")
	r.want(403, "person", "PATCH", "applications/"+id, `{"displayName":"x"}`)
	// An owner who is disabled is nobody.
	r.must(r.d.EnableServicePrincipal(t.Context(), r.people["contributor"].ObjectID, false))
	r.want(403, "contributor", "PATCH", "applications/"+id, `{"displayName":"x"}`)
}

// TestADisabledPrincipalIsOutOfItsOwnersHands: what was switched off stays
// off, whatever its owner does.
func TestADisabledPrincipalIsOutOfItsOwnersHands(t *testing.T) {
	r := newRig(t)
	app := r.want(201, "contributor", "POST", "applications", `{"displayName":"suspect"}`)
	sp := r.want(201, "contributor", "POST", "servicePrincipals", fmt.Sprintf(`{"appId":%q}`, app.text("appId"))).text("id")
	r.want(204, "owner", "PATCH", "servicePrincipals/"+sp, `{"accountEnabled":false}`)
	before := r.state()
	r.want(403, "contributor", "PATCH", "servicePrincipals/"+sp, `{"accountEnabled":true}`)
	r.want(403, "contributor", "DELETE", "servicePrincipals/"+sp, "")
	r.want(403, "contributor", "POST", "servicePrincipals/"+sp+"/addPassword", `{}`)
	if r.state() != before {
		t.Error("something changed")
	}
	r.want(204, "owner", "PATCH", "servicePrincipals/"+sp, `{"accountEnabled":true}`)
	r.want(204, "contributor", "DELETE", "servicePrincipals/"+sp, "")
}

// TestStealingAnApplication: the ways to get a credential of, or a hold on,
// the application of somebody who may more.
func TestStealingAnApplication(t *testing.T) {
	r := newRig(t)
	victim := r.applicationOf("owner")
	sp := r.people["owner"].ObjectID
	before := r.state()
	self := fmt.Sprintf(`{"@odata.id":"x/%s"}`, r.people["contributor"].ObjectID)
	cert := base64.StdEncoding.EncodeToString(certificateDER(t))
	for _, try := range [][3]string{
		{"POST", "applications/" + victim.ObjectID + "/addPassword", `{"passwordCredential":{"displayName":"evil"}}`},
		{"POST", "applications(appId='" + victim.AppID + "')/addPassword", `{}`},
		{"POST", "Applications(AppId='" + victim.AppID + "')/ADDPASSWORD", `{}`},
		{"PATCH", "applications/" + victim.ObjectID, `{"keyCredentials":[{"type":"AsymmetricX509Cert","usage":"Verify","key":"` + cert + `"}]}`},
		{"PATCH", "applications/" + victim.ObjectID, `{"web":{"redirectUris":["https://evil.example"]}}`},
		{"POST", "applications/" + victim.ObjectID + "/owners/$ref", self},
		{"POST", "servicePrincipals/" + sp + "/addPassword", `{}`},
		{"POST", "servicePrincipals/" + sp + "/owners/$ref", self},
		{"PATCH", "servicePrincipals/" + sp, `{"keyCredentials":[]}`},
		{"POST", "applications/" + victim.ObjectID + "/federatedIdentityCredentials", `{"name":"evil","issuer":"https://e.example","subject":"s","audiences":["a"]}`},
		{"PATCH", "applications/" + victim.ObjectID + "/federatedIdentityCredentials(name='evil')", `{"issuer":"https://e.example","subject":"s","audiences":["a"]}`},
		{"POST", "servicePrincipals", `{"appId":"` + victim.AppID + `"}`},
		{"DELETE", "applications/" + victim.ObjectID, ""},
		{"PATCH", "users/operator@home.example", `{"passwordProfile":{"password":"mine now, really"}}`},
	} {
		if a := r.do("contributor", try[0], try[1], try[2], "Prefer: create-if-missing"); a.StatusCode != 403 || a.code() != codeDenied {
			t.Errorf("%s %s: %d %s", try[0], try[1], a.StatusCode, a.body)
		}
	}
	if r.state() != before {
		t.Error("something changed")
	}
	// Once its principal is gone, giving the application another one is not for everybody either.
	r.want(204, "operator", "DELETE", "servicePrincipals/"+sp, "")
	r.want(403, "contributor", "POST", "servicePrincipals", `{"appId":"`+victim.AppID+`"}`)
}

func TestManagedIdentitiesAreNotForGraph(t *testing.T) {
	r := newRig(t)
	id := r.mi.PrincipalID
	before := r.state()
	r.want(403, "operator", "POST", "servicePrincipals/"+id+"/addPassword", `{}`)
	r.want(403, "operator", "PATCH", "servicePrincipals/"+id, `{"accountEnabled":false}`)
	r.want(403, "operator", "PATCH", "servicePrincipals/"+id, `{"keyCredentials":[]}`)
	r.want(403, "operator", "DELETE", "servicePrincipals/"+id, "")
	r.want(403, "operator", "POST", "servicePrincipals/"+id+"/owners/$ref", fmt.Sprintf(`{"@odata.id":"x/%s"}`, r.people["person"].ObjectID))
	r.want(404, "operator", "GET", "applications(appId='"+r.mi.ClientID+"')", "")
	r.want(404, "operator", "POST", "applications/"+id+"/federatedIdentityCredentials", `{"name":"evil","issuer":"https://e.example","subject":"s","audiences":["a"]}`)
	r.want(400, "operator", "POST", "servicePrincipals", `{"appId":"`+r.mi.ClientID+`"}`)
	if r.state() != before {
		t.Error("something changed")
	}
}

func TestOtherTenant(t *testing.T) {
	r := newRig(t)
	ours := r.applicationOf("owner")
	before := r.state()
	for _, path := range []string{
		"applications/" + ours.ObjectID, "applications(appId='" + ours.AppID + "')", "servicePrincipals/" + r.people["owner"].ObjectID,
		"servicePrincipals(appId='" + r.mi.ClientID + "')", "users/" + r.people["person"].ObjectID, "users/person@home.example",
		"directoryObjects/" + r.mi.PrincipalID, "organization/" + homeTenant, "applications/" + ours.ObjectID + "/owners",
		"applications/" + ours.ObjectID + "/federatedIdentityCredentials",
	} {
		r.want(404, "stranger", "GET", path, "")
		if !strings.HasPrefix(path, "directoryObjects") && !strings.HasPrefix(path, "organization") && strings.Count(path, "/") < 2 {
			r.want(404, "stranger", "PATCH", path, `{"displayName":"x"}`)
			r.want(404, "stranger", "DELETE", path, "")
		}
	}
	for _, q := range []string{
		"applications?$filter=" + url.QueryEscape("appId eq '"+ours.AppID+"'"),
		"applications?$filter=" + url.QueryEscape("id in ('"+ours.ObjectID+"')"),
		"applications?$filter=" + url.QueryEscape("displayName eq 'owner'"),
		"servicePrincipals?$filter=" + url.QueryEscape("servicePrincipalNames/any(c:c eq '"+r.mi.ClientID+"')"),
		"servicePrincipals?$filter=" + url.QueryEscape("startswith(displayName,'owner')"),
		"users",
	} {
		if got := r.want(200, "stranger", "GET", q, "").list("id"); len(got) != 0 {
			t.Errorf("%s: %v", q, got)
		}
	}
	if got := r.want(200, "stranger", "GET", "applications", "").list("displayName"); !slices.Equal(got, []string{"stranger"}) {
		t.Errorf("applications: %v", got)
	}
	got := r.want(200, "stranger", "POST", "directoryObjects/getByIds", fmt.Sprintf(`{"ids":[%q,%q,%q]}`, ours.ObjectID, r.mi.PrincipalID, r.people["person"].ObjectID))
	if len(got.list("id")) != 0 {
		t.Errorf("getByIds: %s", got.body)
	}
	// A principal for an application of another tenant, and an owner from another one.
	r.want(400, "stranger", "POST", "servicePrincipals", `{"appId":"`+ours.AppID+`"}`)
	theirs := r.applicationOf("stranger")
	r.want(404, "stranger", "POST", "applications/"+theirs.ObjectID+"/owners/$ref", fmt.Sprintf(`{"@odata.id":"x/%s"}`, r.people["person"].ObjectID))
	r.want(400, "stranger", "POST", "users", `{"accountEnabled":true,"displayName":"x","userPrincipalName":"evil@home.example","passwordProfile":{"password":"long enough"}}`)
	if r.state() != before {
		t.Error("something of ours changed")
	}
}

// TestMassAssignment: what is not a caller's to set is refused by name, and
// so is what this directory does not know.
func TestMassAssignment(t *testing.T) {
	r := newRig(t)
	app := r.applicationOf("owner")
	before := r.state()
	for _, c := range []struct{ method, path, body, word string }{
		{"PATCH", "applications/" + app.ObjectID, `{"id":"00000000-0000-4000-8000-000000000000"}`, "'id' is read-only"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":"x","appId":"00000000-0000-4000-8000-000000000000"}`, "'appId' is read-only"},
		{"PATCH", "applications/" + app.ObjectID, `{"tenantId":"` + otherTenant + `"}`, "'tenantId'"},
		{"PATCH", "applications/" + app.ObjectID, `{"owners":[]}`, "'owners' is read-only"},
		{"PATCH", "applications/" + app.ObjectID, `{"Enabled":false}`, "'Enabled'"},
		{"PATCH", "applications/" + app.ObjectID, `{"passwordCredentials":[{"secretText":"chosen by me"}]}`, "addPassword"},
		{"PATCH", "applications/" + app.ObjectID, `{"signInAudience":"AzureADMultipleOrgs"}`, "AzureADMyOrg"},
		{"PATCH", "applications/" + app.ObjectID, `{"appRoles":[{"id":"x"}]}`, "'appRoles' is not supported"},
		{"PATCH", "applications/" + app.ObjectID, `{"web":{"redirectUris":["javascript:alert(1)"]}}`, "redirect URI"},
		{"PATCH", "applications/" + app.ObjectID, `{"web":{"redirectUris":["http://evil.example/"]}}`, "redirect URI"},
		{"PATCH", "applications/" + app.ObjectID, `{"web":{"extra":1}}`, "'extra'"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":""}`, "'displayName'"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":null}`, "'displayName'"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":7}`, "'displayName'"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":"a\u0000b"}`, "not allowed"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":"a\nb"}`, "not allowed"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":"` + strings.Repeat("x", 257) + `"}`, "256"},
		{"PATCH", "applications/" + app.ObjectID, `{"tags":["` + strings.Repeat("x", 257) + `"]}`, "256"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["no-uri"]}`, "identifier URI"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["https://api.bank.example"]}`, "verified domain"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["https://home.example.evil.example"]}`, "verified domain"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["https://home.example@evil.example"]}`, "verified domain"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["https://127.0.0.1:8443"]}`, "verified domain"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["api://` + r.mi.ClientID + `"]}`, "another application"},
		{"PATCH", "applications/" + app.ObjectID, `{"identifierUris":["API://` + strings.ToUpper(r.mi.ClientID) + `/x"]}`, "another application"},
		{"POST", "applications", `{"displayName":"x","identifierUris":["api://` + app.AppID + `"]}`, "another application"},
		{"POST", "applications", `{"displayName":"x","identifierUris":["HTTPS://vault.azure.net"]}`, "verified domain"},
		{"PATCH", "applications/" + app.ObjectID, `{"keyCredentials":[{"keyId":"00000000-0000-4000-8000-000000000000"}]}`, "none is there to be kept"},
		{"PATCH", "applications/" + app.ObjectID, `{"keyCredentials":[{"key":"AAAA"}]}`, "certificate"},
		{"PATCH", "applications/" + app.ObjectID, `{"keyCredentials":[{"key":"AAAA","type":"Symmetric"}]}`, "'type'"},
		{"PATCH", "applications/" + app.ObjectID, `[]`, "JSON"},
		{"PATCH", "applications/" + app.ObjectID, `null`, "JSON"},
		{"PATCH", "applications/" + app.ObjectID, `{"displayName":"x"`, "JSON"},
		{"POST", "applications", `{}`, "'displayName' is required"},
		{"POST", "applications", `{"displayName":"x","appId":"00000000-0000-4000-8000-000000000000"}`, "'appId' is read-only"},
		{"POST", "servicePrincipals", `{"appId":"` + app.AppID + `","servicePrincipalType":"ManagedIdentity"}`, "'servicePrincipalType' is read-only"},
		{"POST", "servicePrincipals", `{"appId":"` + app.AppID + `","id":"` + r.mi.PrincipalID + `"}`, "'id' is read-only"},
		{"POST", "servicePrincipals", `{}`, "'appId'"},
		{"PATCH", "servicePrincipals/" + r.people["owner"].ObjectID, `{"appId":"x"}`, "'appId' is read-only"},
		{"PATCH", "users/person@home.example", `{"userPrincipalName":"operator2@home.example"}`, "read-only"},
		{"PATCH", "users/person@home.example", `{"passwordProfile":{"password":""}}`, "empty"},
		{"PATCH", "users/person@home.example", `{"passwordProfile":{"password":"long enough","forceChangePasswordNextSignIn":true}}`, "forceChange"},
		{"POST", "users", `{"accountEnabled":true,"displayName":"x","userPrincipalName":"x@elsewhere.example","passwordProfile":{"password":"long enough"}}`, "domain"},
		{"POST", "users", `{"accountEnabled":true,"displayName":"x","userPrincipalName":"x@home.example"}`, "passwordProfile"},
		{"POST", "users", `{"accountEnabled":true,"displayName":"x","userPrincipalName":"x@home.example","passwordProfile":{"password":"short"}}`, "password"},
		{"POST", "applications/" + app.ObjectID + "/addPassword", `{"passwordCredential":{"secretText":"chosen by me"}}`, "'secretText'"},
		{"POST", "applications/" + app.ObjectID + "/addPassword", `{"passwordCredential":{"endDateTime":"tomorrow"}}`, "'endDateTime'"},
		{"POST", "applications/" + app.ObjectID + "/addPassword", `{"passwordCredential":{"endDateTime":"2020-01-01T00:00:00Z"}}`, "validity"},
		{"POST", "applications/" + app.ObjectID + "/federatedIdentityCredentials", `{"name":"x-1","issuer":"https://e.example","subject":"s","audiences":["a"],"claimsMatchingExpression":{"value":"claims['sub'] eq 's'","languageVersion":1}}`, "either"},
		{"POST", "applications/" + app.ObjectID + "/federatedIdentityCredentials", `{"name":"x-1","issuer":"https://e.example","audiences":["a"],"claimsMatchingExpression":{"value":"claims['sub'] eq 's'","languageVersion":2}}`, "languageVersion"},
		{"POST", "applications/" + app.ObjectID + "/federatedIdentityCredentials", `{"name":"x-1","issuer":"https://e.example","audiences":["a"],"claimsMatchingExpression":{"value":"claims['sub'] matches '*'","languageVersion":1}}`, "wildcards"},
		{"POST", "applications/" + app.ObjectID + "/federatedIdentityCredentials", `{"name":"x-1","issuer":"https://e.example","audiences":["a"]}`, "subject"},
		{"POST", "directoryObjects/getByIds", `{"ids":[]}`, "'ids'"},
		{"POST", "directoryObjects/getByIds", `{"ids":["x"]}`, "GUID"},
		{"POST", "groups", `{"displayName":"g"}`, "Groups"},
	} {
		a := r.do("operator", c.method, c.path, c.body)
		if a.StatusCode != 400 || !strings.Contains(a.text("error.message"), c.word) || a.text("error.innerError.request-id") == "" {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.StatusCode, a.body)
		}
	}
	if r.state() != before {
		t.Error("something changed")
	}
	r.want(415, "operator", "POST", "applications", `{"displayName":"x"}`, "Content-Type: text/plain")
}

func TestFilterAttacks(t *testing.T) {
	r := newRig(t)
	for filter, code := range map[string]string{
		"displayName eq 'x' or passwordHash eq 'y'":                   codeUnsupported,
		"passwordCredentials/any(p:p/hint eq 'a')":                    codeUnsupported,
		"displayName gt 'a'":                                          codeUnsupported,
		"displayName eq 'x":                                           codeBad,
		"displayName eq 'x' --":                                       codeBad,
		strings.Repeat("(", 1000) + "id eq 'x'":                       codeBad,
		strings.Repeat("not ", 500) + "accountEnabled eq true":        codeBad,
		"id in (" + strings.Repeat("'x',", 500) + "'x')":              codeBad,
		strings.Repeat("id eq 'x' or ", 200) + "id eq 'x'":            codeBad,
		"startswith(displayName,'" + strings.Repeat("a", 5000) + "')": codeBad,
	} {
		a := r.do("member", "GET", "servicePrincipals?$filter="+url.QueryEscape(filter), "")
		if a.StatusCode != 400 || a.code() != code {
			t.Errorf("%.50s: %d %s", filter, a.StatusCode, a.body)
		}
	}
	for query, code := range map[string]string{
		"$search=x": codeUnsupported, "$orderby=displayName": codeUnsupported, "$expand=owners": codeUnsupported, "$top=1000": codeInvalid,
		"$top=0": codeBad, "$select=password": codeInvalid, "$skiptoken=!": codeInvalid, "$count=true": codeInvalid,
		"$filter=" + url.QueryEscape("displayName ne 'x'"): codeUnsupported,
	} {
		if a := r.do("member", "GET", "applications?"+query, ""); a.StatusCode != 400 || a.code() != code {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.body)
		}
	}
	id := r.applicationOf("owner").ObjectID
	for _, path := range []string{
		"applications/" + id, "users/" + r.people["person"].ObjectID, "directoryObjects/" + r.mi.PrincipalID, "organization", "domains",
		"applications/" + id + "/owners", "organization/" + homeTenant,
	} {
		if a := r.do("member", "GET", path+"?$filter="+url.QueryEscape("id eq 'x'"), ""); a.StatusCode != 400 || a.code() != codeUnsupported {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	r.want(400, "operator", "DELETE", "applications/"+id+"?$filter=x", "")
	r.want(400, "member", "GET", "groups?$filter=x", "")
	r.want(200, "member", "GET", "groups?$top=5&$filter="+url.QueryEscape("startswith(displayName,'x')"), "")
	if a := r.want(200, "member", "GET", "domains?$top=999&$select=ID", ""); a.text("value.0.id") != "home.example" || a.at("value.0.isDefault") != nil {
		t.Errorf("selected: %s", a.body)
	}
	// A text that looks like the end of the filter is a text.
	evil := "x' or startswith(displayName,'"
	if got := r.want(200, "member", "GET", "applications?$filter="+url.QueryEscape("displayName eq '"+strings.ReplaceAll(evil, "'", "''")+"'"), "").list("id"); len(got) != 0 {
		t.Errorf("found %v", got)
	}
}

func TestPaths(t *testing.T) {
	r := newRig(t)
	id := r.applicationOf("owner").ObjectID
	for path, status := range map[string]int{
		"/v1.0/APPLICATIONS/" + id:                        200,
		"/V1.0/applications('" + id + "')/":               200,
		"/beta/applications/" + strings.ToUpper(id):       200,
		"/v2.0/applications":                              400,
		"/":                                               400,
		"/v1.0":                                           400,
		"/v1.0/applications/" + id + "/secrets":           400,
		"/v1.0/applications(" + id + ")":                  400,
		"/v1.0/applications('')":                          400,
		"/v1.0/applications('a'b')":                       400,
		"/v1.0/applications(displayName='owner')":         400,
		"/v1.0/applications(appId='owner')":               404,
		"/v1.0/applications/appId='" + id + "'":           404,
		"/v1.0/users(appId='x')":                          400,
		"/v1.0/users/person%40home.example":               200,
		"/v1.0/users/$count":                              400,
		"/v1.0/applications/..%2f..%2fusers":              404,
		"/v1.0/applications/%ff":                          400,
		"/v1.0/applications/not-a-guid":                   404,
		"/v1.0/applications/" + strings.Repeat("a", 4000): 404,
	} {
		a := r.do("member", "GET", path, "")
		if a.StatusCode != status || a.StatusCode >= 400 && (a.code() == "" || len(a.body) > 1000) {
			t.Errorf("%.60s: %d, want %d: %s", path, a.StatusCode, status, a.body)
		}
	}
	if a := r.do("member", "PUT", "applications", "{}"); a.StatusCode != 405 || a.code() == "" {
		t.Errorf("PUT: %d %s", a.StatusCode, a.body)
	}
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	for reason, word := range map[web.AuthReason]string{
		web.AuthMalformed: "JWT", web.AuthSignature: "signature", web.AuthIssuer: "issuer", web.AuthAudience: "audience",
		web.AuthExpired: "expired", web.AuthGone: "validation",
	} {
		r.fail = &web.AuthError{Reason: reason, Found: "https://vault.azure.net"}
		r.audit.take()
		a := r.want(401, "owner", "GET", "applications", "")
		if a.code() != codeToken || !strings.Contains(a.text("error.message"), word) || a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d: %s", reason, a.body)
		}
		if !strings.Contains(r.audit.take(), "deny") {
			t.Errorf("%d: not written down", reason)
		}
	}
	r.fail = nil
	r.audit.mu.Lock()
	r.audit.err = errors.New("disk full")
	r.audit.mu.Unlock()
	if a := r.do("owner", "POST", "applications", `{"displayName":"unlogged"}`); a.StatusCode != 500 || strings.Contains(a.body, "disk") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if strings.Contains(r.state(), "unlogged") {
		t.Error("it was done although it could not be written down")
	}
}

// FuzzPath: whatever the path and filter, the answer is Graph's JSON and no
// failure of ours.
func FuzzPath(f *testing.F) {
	r := newRig(f)
	for _, s := range []string{"/v1.0/applications(appId='x')", "/v1.0/users/a'b(", "/beta/directoryObjects//x", "/v1.0/users?$filter=id eq 'x'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(s, "/") {
			return
		}
		mine := *r
		mine.t = t
		a := mine.do("member", "GET", u.EscapedPath()+"?"+url.Values{"$filter": {u.Query().Get("$filter")}}.Encode(), "")
		if a.StatusCode >= 500 || a.StatusCode >= 400 && a.code() == "" {
			t.Fatalf("%q: %d %s", s, a.StatusCode, a.body)
		}
	})
}
