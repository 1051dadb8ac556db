package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ask sends a request to the server's handler and returns the JSON answer.
func ask(t *testing.T, s *Server, method, target, bearer string, form url.Values) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	body := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s %s: %d %v", method, target, w.Code, err)
	}
	return w.Code, body
}

// A person who has signed in may what the roles say, until the account is
// switched off: at once, whatever the tokens' lifetime.
func TestPersonSignsIn(t *testing.T) {
	s, api := startServer(t, Config{})
	op := api.Operator
	form := url.Values{
		"client_id": {"04b07795-8ddb-461a-bbee-02f9e1bf7b46"}, "grant_type": {"password"}, "username": {op.UserName}, "password": {op.UserPassword},
		"scope": {"https://management.core.windows.net//.default offline_access openid profile"},
	}
	const login = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token"
	status, signed := ask(t, s, "POST", login, "", form)
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, signed)
	}
	access, _ := signed["access_token"].(string)
	id, _ := signed["id_token"].(string)
	refresh, _ := signed["refresh_token"].(string)
	const list = "https://management.azure.com/subscriptions?api-version=2022-12-01"
	if status, got := ask(t, s, "GET", list, access, nil); status != http.StatusOK || len(got["value"].([]any)) != 1 {
		t.Errorf("the operator lists subscriptions: %d %v", status, got)
	}
	for what, wrong := range map[string]string{"id token": id, "refresh token": refresh} {
		if status, got := ask(t, s, "GET", list, wrong, nil); status != http.StatusUnauthorized {
			t.Errorf("%s as an access token: %d %v", what, status, got)
		}
	}
	again := url.Values{
		"client_id": form["client_id"], "grant_type": {"refresh_token"}, "refresh_token": {refresh}, "scope": {"https://vault.azure.net/.default"},
	}
	if status, got := ask(t, s, "POST", login, "", again); status != http.StatusOK {
		t.Errorf("refresh: %d %v", status, got)
	} else if status, got := ask(t, s, "GET", list, got["access_token"].(string), nil); status != http.StatusUnauthorized {
		t.Errorf("a vault's token at the management API: %d %v", status, got)
	}

	set, _, err := s.settings.Load(t.Context(), settingsKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.directory.EnableUser(t.Context(), set.OperatorUser, false); err != nil {
		t.Fatal(err)
	}
	if status, got := ask(t, s, "GET", list, access, nil); status != http.StatusUnauthorized {
		t.Errorf("a disabled user: %d %v", status, got)
	}
	if status, got := ask(t, s, "POST", login, "", form); status != http.StatusBadRequest {
		t.Errorf("a disabled user signs in: %d %v", status, got)
	}
}

func TestSignInConfig(t *testing.T) {
	for what, c := range map[string]struct {
		yaml string
		want string // in the error; none if empty
	}{
		"nothing":         {"data: /x", ""},
		"provider":        {"data: /x\nsignIn: {oidc: {issuer: 'https://idp.example', clientId: podkey, allowedDomains: [contoso.example]}}", ""},
		"provider alone":  {"data: /x\nsignIn: {disablePasswords: true, oidc: {issuer: 'https://idp.example/', clientId: podkey}}", ""},
		"nobody can":      {"data: /x\nsignIn: {disablePasswords: true}", "signIn.disablePasswords"},
		"http":            {"data: /x\nsignIn: {oidc: {issuer: 'http://idp.example', clientId: podkey}}", "signIn.oidc.issuer"},
		"user in issuer":  {"data: /x\nsignIn: {oidc: {issuer: 'https://a@idp.example', clientId: podkey}}", "signIn.oidc.issuer"},
		"no client":       {"data: /x\nsignIn: {oidc: {issuer: 'https://idp.example'}}", "signIn.oidc.clientId"},
		"not a domain":    {"data: /x\nsignIn: {oidc: {issuer: 'https://idp.example', clientId: podkey, allowedDomains: ['*']}}", "signIn.oidc.allowedDomains"},
		"unknown member":  {"data: /x\nsignIn: {oidc: {clientSecret: secret}}", "clientSecret"},
		"secret inline":   {"data: /x\nsignIn: {secret: x}", "secret"},
		"misspelt parent": {"data: /x\nsignin: {disablePassword: true}", "disablePassword"},
	} {
		file := filepath.Join(t.TempDir(), "podkey.yaml")
		if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadConfig(file)
		if err == nil {
			err = got.Validate()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A secret that cannot be read stops the start, and is not in the error.
	empty := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(t.TempDir(), "none")} {
		c := SignInConfig{OIDC: &OIDCConfig{Issuer: "https://idp.example", ClientID: "podkey", ClientSecretFile: file}}
		if _, err := c.signIn(); err == nil || !strings.Contains(err.Error(), "signIn.oidc.clientSecretFile") {
			t.Errorf("%v", err)
		}
	}
}
