package arm

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

func TestWithoutTokenEveryRouteAnswersWithTheChallenge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	for _, c := range routeCases(r) {
		a := r.do("", c.method, c.path, nil)
		want := homeTenant
		if !strings.Contains(c.path, "/subscriptions/") {
			want = "common"
		}
		challenge := `Bearer authorization_uri="https://login.podkey.test/` + want + `", error="invalid_token", error_description="`
		if a.StatusCode != 401 || a.code() != "AuthenticationFailed" || !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), challenge) {
			t.Errorf("%s %s: %d %s %q", c.method, c.path, a.StatusCode, a.body, a.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for reason, code := range map[web.AuthReason]string{
		web.AuthMissing: "AuthenticationFailed", web.AuthMalformed: "InvalidAuthenticationToken", web.AuthKey: "InvalidAuthenticationToken",
		web.AuthSignature: "InvalidAuthenticationToken", web.AuthIssuer: "InvalidAuthenticationTokenTenant", web.AuthAudience: "InvalidAuthenticationTokenAudience",
		web.AuthExpired: "ExpiredAuthenticationToken", web.AuthNotYet: "InvalidAuthenticationToken",
	} {
		r.authError = &web.AuthError{Reason: reason, Expected: "want", Found: "have\"\r\nX: y"}
		a := r.refused(401, code, "owner", "GET", "/subscriptions/"+homeSub, nil)
		if h := a.Header.Get("WWW-Authenticate"); strings.Count(h, `"`) != 6 || a.Header.Get("X") != "" {
			t.Errorf("%v: %q", reason, h)
		}
	}
	r.authError = errors.New("the store is on fire")
	if a := r.refused(500, "InternalServerError", "owner", "GET", "/subscriptions/"+homeSub, nil); strings.Contains(string(a.body), "fire") {
		t.Errorf("the cause shows: %s", a.body)
	}
	r.authError = fault.New(fault.Unavailable, "ServiceUnavailable", "later")
	if a := r.refused(503, "ServiceUnavailable", "owner", "GET", "/subscriptions/"+homeSub, nil); a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestPrincipalOfAnotherTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.person("stranger", otherTenant)
	r.grant("stranger", rbac.Owner, "/") // of its own tenant
	a := r.refused(401, "InvalidAuthenticationTokenTenant", "stranger", "GET", groupPath("g"), nil)
	if !strings.Contains(a.Header.Get("WWW-Authenticate"), "/"+homeTenant+`"`) {
		t.Error(a.Header.Get("WWW-Authenticate"))
	}
	for _, c := range routeCases(r) {
		if a := r.do("stranger", c.method, c.path, nil); strings.Contains(c.path, homeSub) && a.StatusCode != 401 {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.StatusCode, a.body)
		}
	}
	if diff := cmp.Diff([]string{otherSub}, r.must(200, "stranger", "GET", "/subscriptions", nil).list("subscriptionId")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{otherTenant}, r.must(200, "stranger", "GET", "/tenants", nil).list("tenantId")); diff != "" {
		t.Error(diff)
	}
	// At the tenant root each sees only its own tenant's assignments.
	r.grant("owner", rbac.Owner, "/")
	a = r.must(200, "stranger", "GET", assignmentPath("/", "")[:len(assignmentPath("/", ""))-1], nil)
	if strings.Contains(string(a.body), r.people["owner"].ObjectID) || len(a.list("id")) != 1 {
		t.Errorf("%s", a.body)
	}
	// A role for somebody of another tenant is a role for nobody.
	r.refused(400, "PrincipalNotFound", "owner", "PUT", assignmentPath(groupPath("g"), uuid.NewString()), map[string]any{
		"properties": map[string]any{"roleDefinitionId": rbac.Reader, "principalId": r.people["stranger"].ObjectID, "principalType": "ServicePrincipal"},
	})
}

func TestUnknownThingsByOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.person("nobody", homeTenant)
	unknownSub := "/subscriptions/" + uuid.NewString()
	for _, c := range []struct {
		as, method, path string
		status           int
		code             string
	}{
		// The path and the version come before the token.
		{"", "GET", "/subscriptions?api-version=", 400, "MissingApiVersionParameter"},
		{"", "GET", "/subscriptions?api-version=2021", 400, "InvalidApiVersionParameter"},
		{"", "GET", "/subscriptions?api-version=2021-04-01&Api-Version=2021-04-01", 400, "InvalidRequestContent"},
		{"", "GET", "/subscriptions/a%2Fb?api-version=2021-04-01", 400, "InvalidRequestUri"},
		{"", "GET", "/subscriptions/%2e%2e/x", 400, "BadRequest"},
		// The token comes before everything else.
		{"", "GET", "/nothing", 401, "AuthenticationFailed"},
		{"", "GET", unknownSub, 401, "AuthenticationFailed"},
		{"nobody", "GET", "/nothing", 404, "NotFound"},
		{"nobody", "GET", "/nothing/x/y/z", 404, "NotFound"},
		{"nobody", "GET", "/tenants/" + homeTenant, 404, "NotFound"},
		{"nobody", "GET", groupPath("g") + "/providers/Microsoft.Nothing/x/y?api-version=2021-04-01", 404, "InvalidResourceNamespace"},
		{"nobody", "GET", groupPath("g") + "/providers/Microsoft.KeyVault/nothing/y", 404, "InvalidResourceType"},
		{"nobody", "GET", vaultPath("g", "v") + "/keys/k", 404, "InvalidResourceType"},
		{"nobody", "GET", vaultPath("g", "v") + "/secrets/s", 403, "AuthorizationFailed"},
		{"owner", "GET", vaultPath("g", "v") + "/secrets/s", 404, "ParentResourceNotFound"},
		{"nobody", "GET", vaultPath("g", "v") + "?api-version=2099-01-01", 400, "NoRegisteredProviderFound"},
		{"nobody", "GET", groupPath("g") + "?api-version=2099-01-01", 400, "InvalidApiVersionParameter"},
		{"nobody", "GET", "/subscriptions/" + homeSub + "/providers/Microsoft.KeyVault/vaults/v", 404, "InvalidResourceType"},
		{"nobody", "GET", "/providers/Microsoft.KeyVault/vaults/v", 404, "InvalidResourceType"},
		{"nobody", "PATCH", assignmentPath(groupPath("g"), uuid.NewString()), 405, "MethodNotAllowed"},
		{"nobody", "TRACE", groupPath("g"), 405, "MethodNotAllowed"},
		{"nobody", "HEAD", "/subscriptions", 405, ""},
		{"nobody", "GET", unknownSub, 404, "SubscriptionNotFound"},
		{"owner", "GET", unknownSub + "/resourceGroups/g", 404, "SubscriptionNotFound"},
		// Being allowed comes before existing.
		{"nobody", "GET", groupPath("g"), 403, "AuthorizationFailed"},
		{"nobody", "GET", groupPath("nope"), 403, "AuthorizationFailed"},
		{"nobody", "HEAD", groupPath("nope"), 403, ""},
		{"owner", "GET", groupPath("nope"), 404, "ResourceGroupNotFound"},
		{"owner", "GET", vaultPath("nope", "v"), 404, "ResourceGroupNotFound"},
		{"owner", "GET", vaultPath("g", "v"), 404, "ResourceNotFound"},
		{"owner", "GET", identityPath("g", "i") + "/federatedIdentityCredentials/f", 404, "ParentResourceNotFound"},
		{"owner", "PUT", vaultPath("g", "v") + "/accessPolicies/add", 404, "ParentResourceNotFound"},
		{"owner", "GET", assignmentPath(vaultPath("g", "v"), uuid.NewString()), 404, "ResourceNotFound"},
		{"owner", "PUT", assignmentPath(groupPath("nope"), uuid.NewString()), 404, "ResourceGroupNotFound"},
		{"owner", "PUT", assignmentPath(groupPath("g")+"/providers/Microsoft.Nothing/a/b", uuid.NewString()), 404, "ResourceNotFound"},
		{"owner", "PUT", assignmentPath(vaultPath("g", "v")+"/secrets/s", uuid.NewString()), 404, "ResourceNotFound"},
		// A role assignment is no scope, nor is a role.
		{"owner", "PUT", assignmentPath(assignmentPath(groupPath("g"), uuid.NewString()), uuid.NewString()), 404, "InvalidResourceType"},
		{"owner", "GET", "/subscriptions/" + homeSub + "/providers/Microsoft.Authorization/roleDefinitions/" + uuid.NewString(), 404, "RoleDefinitionDoesNotExist"},
	} {
		a := r.do(c.as, c.method, c.path, nil)
		if a.StatusCode != c.status || a.code() != c.code {
			t.Errorf("%s %s as %q: %d %s, want %d %s", c.method, c.path, c.as, a.StatusCode, a.code(), c.status, c.code)
		}
		if c.status == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	// A refused version names those that there are.
	if a := r.do("owner", "GET", vaultPath("g", "v")+"?api-version=2099-01-01", nil); !strings.Contains(a.message(), "2022-07-01") {
		t.Error(a.message())
	}
}

// TestAnswersDoNotTellWhatExists compares, for somebody with a role on one
// vault, each answer about things that exist with that about things that do
// not: in a group of which the caller knows nothing, and beside its own vault.
func TestAnswersDoNotTellWhatExists(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, g := range []string{"real-g", "mine-g"} {
		r.makeGroup(g)
		r.makeIdentity(g, "real-i")
		r.must(201, "owner", "PUT", identityPath(g, "real-i")+"/federatedIdentityCredentials/real-c", credential("s"))
		r.makeVault(g, "real-v-"+g[:4])
	}
	mine := r.makeVault("mine-g", "mine-v")
	r.person("user", homeTenant)
	r.grant("user", rbac.Reader, mine)
	compared := 0
	for _, c := range routeCases(r) {
		for group, vault := range map[string]string{"real-g": "real-v-real", "mine-g": "real-v-mine"} {
			here := strings.NewReplacer("/resourceGroups/g", "/resourceGroups/"+group, "/vaults/vau", "/vaults/"+vault, "/userAssignedIdentities/idn", "/userAssignedIdentities/real-i",
				"Credentials/cred", "Credentials/real-c").Replace(c.path)
			gone := strings.ReplaceAll(here, "real", "fake")
			if here == gone {
				continue
			}
			compared++
			a, b := r.do("user", c.method, here, nil), r.do("user", c.method, gone, nil)
			if a.StatusCode != b.StatusCode || strings.ReplaceAll(string(a.body), "real", "fake") != string(b.body) {
				t.Errorf("%s %s and %s differ:\n%d %s\n%d %s", c.method, here, gone, a.StatusCode, a.body, b.StatusCode, b.body)
			}
		}
	}
	if compared < 40 {
		t.Errorf("only %d were compared", compared)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := uuid.NewString()
	for _, path := range []string{"/subscriptions", "/nothing", "/subscriptions/" + homeSub + "/resourceGroups/nope", "/a%2Fb"} {
		a := r.send("owner", "GET", path, nil, http.Header{"X-Ms-Client-Request-Id": {id}, "X-Ms-Return-Client-Request-Id": {"true"}})
		for k, want := range map[string]string{
			"X-Ms-Correlation-Request-Id": id, "X-Ms-Client-Request-Id": id, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
			"Strict-Transport-Security": "max-age=31536000; includeSubDomains", "Content-Type": "application/json; charset=utf-8",
		} {
			if a.Header.Get(k) != want {
				t.Errorf("%s: %s is %q", path, k, a.Header.Get(k))
			}
		}
		if uuid.Validate(a.Header.Get("X-Ms-Request-Id")) != nil {
			t.Errorf("%s: no request id", path)
		}
		if a.StatusCode >= 400 && (a.Header.Get("X-Ms-Error-Code") != a.code() || a.code() == "" || a.message() == "") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	// Without being asked, or with text that is no id, nothing goes back.
	for _, h := range []http.Header{
		{"X-Ms-Client-Request-Id": {id}},
		{"X-Ms-Client-Request-Id": {"<script>"}, "X-Ms-Return-Client-Request-Id": {"true"}},
		{"X-Ms-Return-Client-Request-Id": {"true"}},
	} {
		if a := r.send("owner", "GET", "/subscriptions", nil, h); a.Header.Get("X-Ms-Client-Request-Id") != "" {
			t.Errorf("%v: %v", h, a.Header)
		}
	}
}

func TestAuditLines(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	mine := r.makeVault("g", "mine-v")
	r.person("user", homeTenant)
	r.grant("user", rbac.Reader, mine)
	r.audit.take()
	for _, c := range []struct {
		as, method, path string
		want             []string
	}{
		{"owner", "GET", groupPath("G"), []string{`"plane":"management","operationName":"Microsoft.Resources/subscriptions/resourceGroups/read","resourceId":"/subscriptions/` + homeSub + `/resourcegroups/g","decision":"allow"`}},
		{"user", "GET", groupPath("g"), []string{`"decision":"deny"`}},
		{"user", "GET", "/subscriptions/" + homeSub + "/resources", []string{`"operationName":"Microsoft.Resources/subscriptions/resources/read"`, `"decision":"allow"`, "holds a role below"}},
		{"user", "PUT", vaultPath("g", "other-v"), []string{`"operationName":"Microsoft.KeyVault/vaults/write"`, `"decision":"deny"`}},
	} {
		r.do(c.as, c.method, c.path, nil)
		line := r.audit.take()
		for _, w := range c.want {
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, w) {
				t.Errorf("%s %s: %s\nlacks %s", c.method, c.path, line, w)
			}
		}
	}
	// What cannot be written down does not happen.
	before := r.dump()
	r.audit.mu.Lock()
	r.audit.err = errors.New("disk full")
	r.audit.mu.Unlock()
	r.refused(500, "InternalServerError", "owner", "PUT", groupPath("new"), map[string]any{"location": "westeurope"})
	r.refused(500, "InternalServerError", "user", "GET", "/subscriptions/"+homeSub+"/resources", nil)
	if diff := cmp.Diff(before, r.dump()); diff != "" {
		t.Error(diff)
	}
}

// TestLogLine names the route, and not what the request was about.
func TestLogLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("secretive")
	r.log.take()
	for path, want := range map[string]string{
		groupPath("secretive"):      `pattern="GET /subscriptions/resourceGroups/{name}"`,
		"/subscriptions":            `pattern="GET /subscriptions"`,
		vaultPath("secretive", "v"): `pattern="GET Microsoft.KeyVault/vaults/{name}"`,
	} {
		r.do("owner", "GET", path, nil)
		if line := r.log.take(); !strings.Contains(line, want) || strings.Count(line, "\n") != 1 {
			t.Errorf("%s: %s", path, line)
		}
	}
}

func TestMetadataEndpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	flat := r.must(200, "", "GET", "/metadata/endpoints?api-version=2015-01-01", nil)
	if flat.at("authentication.loginEndpoint") != "https://login.podkey.test/adfs/aad" || flat.at("authentication.audiences.0") != "https://management.core.windows.net/" ||
		flat.at("galleryEndpoint") == nil || flat.at("graphEndpoint") != r.srv.URL+"/" {
		t.Errorf("%s", flat.body)
	}
	list := r.must(200, "", "GET", "/metadata/endpoints?api-version=2019-05-01", nil)
	if list.at("0.resourceManager") != r.srv.URL+"/" || list.at("0.suffixes.keyVaultDns") != "vault.podkey.test" || list.at("0.name") != "Podkey" {
		t.Errorf("%s", list.body)
	}
	one := r.must(200, "", "GET", "/metadata/endpoints?api-version=2022-09-01", nil)
	if one.at("microsoftGraphResourceId") != r.srv.URL+"/" || one.at("name") != "Podkey" {
		t.Errorf("%s", one.body)
	}
	r.names = web.AzureNames(web.OwnNames("podkey.test"))
	azure := r.must(200, "", "GET", "/metadata/endpoints?api-version=2022-09-01", nil)
	if azure.at("authentication.loginEndpoint") != "https://login.microsoftonline.com/" || azure.at("name") != "AzureCloud" || azure.at("suffixes.keyVaultDns") != "vault.azure.net" {
		t.Errorf("%s", azure.body)
	}
	r.refused(400, "InvalidApiVersionParameter", "", "GET", "/metadata/endpoints?api-version=2099-01-01", nil)
	r.refused(405, "MethodNotAllowed", "", "POST", "/metadata/endpoints?api-version=2022-09-01", nil)
}

func TestRegister(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ran := 0
	r.h.Register(ResourceType{
		Name: "Podkey.Admin/rotateKeys", Versions: []string{"2026-11-21"}, Hidden: true,
		Routes: []Route{{
			Method: "POST", Collection: true, Levels: AtTenant, TenantID: homeTenant, Action: "Podkey.Admin/rotateKeys/action",
			Handle: func(w http.ResponseWriter, _ *http.Request, q *Request) error {
				ran++
				return web.WriteJSON(w, 200, map[string]string{"by": q.Principal.Name})
			},
		}},
	})
	r.h.Register(ResourceType{Name: "Podkey.Admin/byDefault", Versions: []string{"2026-11-21"}, Routes: []Route{
		{Method: "POST", Collection: true, Action: "Podkey.Admin/byDefault/action", Handle: listNothing},
	}})
	const path = "/providers/Podkey.Admin/rotateKeys?api-version=2026-11-21"
	r.person("root", homeTenant)
	r.grant("root", rbac.Owner, "/")
	r.person("stranger", otherTenant)
	r.grant("stranger", rbac.Owner, "/")
	r.refused(403, "AuthorizationFailed", "owner", "POST", path, nil)
	r.refused(403, "AuthorizationFailed", "stranger", "POST", path, nil) // Owner of another root
	r.refused(405, "MethodNotAllowed", "root", "GET", path, nil)
	// The whole server is not below a subscription, whatever role one has there.
	r.refused(404, "InvalidResourceType", "owner", "POST", "/subscriptions/"+homeSub+path, nil)
	r.refused(404, "InvalidResourceType", "owner", "POST", "/subscriptions/"+homeSub+strings.Replace(path, "rotateKeys", "byDefault", 1), nil)
	r.must(200, "root", "POST", strings.Replace(path, "rotateKeys", "byDefault", 1), nil)
	if ran != 0 {
		t.Fatal("ran for somebody who may not")
	}
	if a := r.must(200, "root", "POST", path, nil); a.at("by") != "root" || ran != 1 {
		t.Errorf("%d %s", ran, a.body)
	}
	for name, bad := range map[string]ResourceType{
		"taken":         {Name: "podkey.admin/ROTATEKEYS", Versions: []string{"2026-11-21"}},
		"no handler":    {Name: "Podkey.Admin/a", Versions: []string{"2026-11-21"}, Routes: []Route{{Method: "GET"}}},
		"twice":         {Name: "Podkey.Admin/b", Versions: []string{"2026-11-21"}, Routes: []Route{{Method: "GET", Handle: listNothing}, {Method: "GET", Handle: listNothing}}},
		"no version":    {Name: "Other.Admin/c"},
		"list, no drop": {Name: "Podkey.Admin/d", Versions: []string{"2026-11-21"}, List: r.h.listVaultResources},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: registered", name)
				}
			}()
			r.h.Register(bad)
		}()
	}
}
