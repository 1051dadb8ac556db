package imds_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/podkey/podkey/internal/imds"
)

const secret = "a-secret-of-this-run"

var expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// serve runs a handler of both protocols whose tokens say what was asked for.
func serve(t *testing.T) (origin string, asked *[]imds.Ask) {
	t.Helper()
	asked = new([]imds.Ask)
	s := httptest.NewServer(&imds.Handler{
		Secret: secret, Metadata: true,
		Instance: map[string]any{"compute": map[string]any{"location": "westeurope", "name": "pod"}},
		Now:      func() time.Time { return expires.Add(-time.Hour) },
		Token: func(_ context.Context, a imds.Ask) (imds.Token, error) {
			*asked = append(*asked, a)
			switch a.ClientID {
			case "unknown":
				return imds.Token{}, imds.ErrIdentityNotFound()
			case "busy":
				return imds.Token{}, &imds.Error{Status: 429, Code: "temporarily_unavailable", Description: "later", RetryAfter: 1500 * time.Millisecond}
			case "broken":
				return imds.Token{}, errors.New("dial 10.0.0.1: connection refused")
			}
			return imds.Token{Value: "token-for-" + a.Resource, ClientID: "cid", Expires: expires}, nil
		},
	})
	t.Cleanup(s.Close)
	return s.URL, asked
}

func do(t *testing.T, method, url string, header map[string]string) (int, http.Header, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("HTTP %d: not a JSON object: %q", resp.StatusCode, body)
	}
	return resp.StatusCode, resp.Header, m
}

// TestSDKOverAppService is the protocol as a real client speaks it.
func TestSDKOverAppService(t *testing.T) {
	origin, asked := serve(t)
	t.Setenv("IDENTITY_ENDPOINT", origin+imds.AppServicePath)
	t.Setenv("IDENTITY_HEADER", secret)
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID("c1")})
	if err != nil {
		t.Fatal(err)
	}
	got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Token != "token-for-https://vault.azure.net" || !got.ExpiresOn.Equal(expires) {
		t.Errorf("token %q until %v", got.Token, got.ExpiresOn)
	}
	if want := (imds.Ask{Resource: "https://vault.azure.net", ClientID: "c1"}); len(*asked) != 1 || (*asked)[0] != want {
		t.Errorf("asked %+v, want %+v", *asked, want)
	}

	t.Setenv("IDENTITY_HEADER", "wrong")
	cred, err = azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID("c2")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}); err == nil {
		t.Errorf("a token for the wrong secret: %v", got.ExpiresOn)
	}
}

func TestMetadataAnswer(t *testing.T) {
	origin, _ := serve(t)
	md := map[string]string{"Metadata": "true"}
	for _, path := range []string{"/metadata/identity/oauth2/token", "/Metadata/identity/oauth2/token/"} {
		status, h, m := do(t, "GET", origin+path+"?api-version=2018-02-01&resource=https://vault.azure.net", md)
		want := map[string]any{
			"access_token": "token-for-https://vault.azure.net", "client_id": "cid", "resource": "https://vault.azure.net", "token_type": "Bearer",
			"expires_in": "3600", "ext_expires_in": "3600", "expires_on": "1893553445", "not_before": "1893549845",
		}
		for k, v := range want {
			if m[k] != v {
				t.Errorf("%s: %s is %v, want %v", path, k, m[k], v)
			}
		}
		if status != 200 || len(m) != len(want) || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: HTTP %d, %d members, %v", path, status, len(m), h)
		}
	}
	for _, path := range []string{"/metadata/instance/compute", "/metadata/instance/compute/", "/metadata/instance//compute"} {
		if status, _, m := do(t, "GET", origin+path+"?api-version=2021-02-01&format=json", md); status != 200 || m["location"] != "westeurope" {
			t.Errorf("%s: HTTP %d %v", path, status, m)
		}
	}
	if status, h, _ := do(t, "PUT", origin+"/metadata/instance?api-version=2021-02-01", md); status != 405 || h.Get("Allow") != "GET" {
		t.Errorf("PUT: HTTP %d, allowed is %q", status, h.Get("Allow"))
	}
}

// TestRefusals are the requests that get no token, attacks among them.
func TestRefusals(t *testing.T) {
	origin, asked := serve(t)
	token := "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
	app := imds.AppServicePath + "?api-version=2019-08-01&resource=r"
	md, id := map[string]string{"Metadata": "true"}, map[string]string{"X-Identity-Header": secret}
	with := func(h map[string]string, k, v string) map[string]string {
		m := map[string]string{k: v}
		for k, v := range h {
			m[k] = v
		}
		return m
	}
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		status       int
	}{
		"no Metadata header":         {"GET", token, nil, 400},
		"Metadata false":             {"GET", token, map[string]string{"Metadata": "false"}, 400},
		"forwarded by a proxy":       {"GET", token, with(md, "X-Forwarded-For", "10.0.0.1"), 400},
		"forwarded, standard header": {"GET", token, with(md, "Forwarded", "for=10.0.0.1"), 400},
		"forwarded instance":         {"GET", "/metadata/instance?api-version=1", with(md, "X-Forwarded-For", "10.0.0.1"), 400},
		"POST":                       {"POST", token, md, 405},
		"DNS rebinding":              {"GET", token, with(md, "Host", "attacker.example"), 403},
		"DNS rebinding, app service": {"GET", app, with(id, "Host", "attacker.example:80"), 403},
		"no api-version":             {"GET", "/metadata/identity/oauth2/token?resource=r", md, 400},
		"no resource":                {"GET", "/metadata/identity/oauth2/token?api-version=2018-02-01", md, 400},
		"two resources":              {"GET", token + "&resource=s", md, 400},
		"two identities":             {"GET", token + "&client_id=a&object_id=b", md, 400},
		"bad query":                  {"GET", token + "&a=%zz", md, 400},
		"backslashes":                {"GET", `/metadata/identity%5Coauth2%5Ctoken?api-version=2018-02-01&resource=r`, md, 404},
		"other case of identity":     {"GET", "/metadata/Identity/oauth2/token?api-version=2018-02-01&resource=r", md, 404},
		"other path":                 {"GET", "/", md, 404},
		"instance beyond a leaf":     {"GET", "/metadata/instance/compute/location/x?api-version=1", md, 404},
		"instance, no api-version":   {"GET", "/metadata/instance", md, 400},
		"instance as text":           {"GET", "/metadata/instance/compute/location?api-version=1&format=text", md, 400},
		"no secret":                  {"GET", app, nil, 401},
		"wrong secret":               {"GET", app, map[string]string{"X-Identity-Header": secret + "x"}, 401},
		"secret in the old header":   {"GET", app, map[string]string{"Secret": secret}, 401},
		"old version, new header":    {"GET", imds.AppServicePath + "?api-version=2017-09-01&resource=r", id, 401},
		"unknown version":            {"GET", imds.AppServicePath + "?api-version=2000-01-01&resource=r", id, 400},
		"app service, POST":          {"POST", app, id, 405},
	} {
		status, _, m := do(t, c.method, origin+c.path, c.header)
		if status != c.status || m["error"] == "" || m["error_description"] == "" || m["access_token"] != nil {
			t.Errorf("%s: HTTP %d %v, want %d", name, status, m, c.status)
		}
	}
	if len(*asked) != 0 {
		t.Errorf("tokens were asked for: %+v", *asked)
	}
}

func TestFailuresOfTheSource(t *testing.T) {
	origin, _ := serve(t)
	at := origin + imds.AppServicePath + "?api-version=2017-09-01&resource=r&clientid="
	header := map[string]string{"Secret": secret}
	if status, _, m := do(t, "GET", at+"unknown", header); status != 400 || m["error_description"] != "Identity not found" {
		t.Errorf("unknown: HTTP %d %v", status, m)
	}
	if status, h, _ := do(t, "GET", at+"busy", header); status != 429 || h.Get("Retry-After") != "2" {
		t.Errorf("busy: HTTP %d %v", status, h)
	}
	status, _, m := do(t, "GET", at+"broken", header)
	if text, _ := m["error_description"].(string); status != 500 || strings.Contains(text, "10.0.0.1") {
		t.Errorf("broken: HTTP %d %v", status, m)
	}
}

// TestHeaderOptional: what was forwarded is refused all the same, and so is a
// name that only DNS knows.
func TestHeaderOptional(t *testing.T) {
	s := httptest.NewServer(&imds.Handler{
		Metadata: true, HeaderOptional: true,
		Token: func(context.Context, imds.Ask) (imds.Token, error) {
			return imds.Token{Value: "t", Expires: expires}, nil
		},
	})
	defer s.Close()
	at := s.URL + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
	for name, c := range map[string]struct {
		header map[string]string
		status int
	}{
		"nothing": {nil, 200}, "false": {map[string]string{"Metadata": "false"}, 200},
		"forwarded": {map[string]string{"X-Forwarded-For": "10.0.0.1"}, 400}, "rebound": {map[string]string{"Host": "attacker.example"}, 403},
	} {
		if status, _, m := do(t, "GET", at, c.header); status != c.status {
			t.Errorf("%s: HTTP %d %v, want %d", name, status, m, c.status)
		}
	}
}

// TestNothingUnasked: protocols that were not switched on are not there.
func TestNothingUnasked(t *testing.T) {
	s := httptest.NewServer(&imds.Handler{Token: func(context.Context, imds.Ask) (imds.Token, error) {
		t.Error("a token was asked for")
		return imds.Token{}, nil
	}})
	defer s.Close()
	for _, path := range []string{imds.AppServicePath + "?api-version=2019-08-01&resource=r", "/metadata/identity/oauth2/token?api-version=1&resource=r", "/metadata/instance?api-version=1"} {
		if status, _, _ := do(t, "GET", s.URL+path, map[string]string{"Metadata": "true", "X-Identity-Header": ""}); status != 404 {
			t.Errorf("%s: HTTP %d", path, status)
		}
	}
}
