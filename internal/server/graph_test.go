package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server/directory"
)

// shop is an application made as az ad sp create-for-rbac makes one.
type shop struct{ object, appID, principal, secret string }

func newShop(t *testing.T, api *client.Client) shop {
	t.Helper()
	var app, sp struct{ ID, AppID string }
	var password struct{ SecretText string }
	post := func(path string, in, out any) {
		t.Helper()
		if err := api.Graph(t.Context(), "POST", path, in, out); err != nil {
			t.Fatal(path, err)
		}
	}
	post("/applications", map[string]any{"displayName": "shop"}, &app)
	post("/applications/"+app.ID+"/addPassword", struct{}{}, &password)
	post("/servicePrincipals", map[string]any{"appId": app.AppID}, &sp)
	return shop{app.ID, app.AppID, sp.ID, password.SecretText}
}

// as is a client that signs in as the application.
func (s shop) as(api *client.Client, secret string) *client.Client {
	op := api.Operator
	op.ClientID, op.ClientSecret = s.appID, secret
	return api.As(op)
}

func TestDirectoryEndToEnd(t *testing.T) {
	srv, api := startServer(t, Config{})
	ctx := t.Context()
	s := newShop(t, api)
	me := s.as(api, s.secret)
	var seen struct{ DisplayName string }
	if err := me.Graph(ctx, "GET", "/servicePrincipals/"+s.principal, nil, &seen); err != nil || seen.DisplayName != "shop" {
		t.Fatalf("%+v %v", seen, err)
	}
	if err := me.Graph(ctx, "POST", "/applications", map[string]any{"displayName": "mine"}, nil); !client.IsCode(err, "Authorization_RequestDenied") {
		t.Errorf("a stranger to all roles made an application: %v", err)
	}

	t.Run("the principal's own secret", func(t *testing.T) {
		var own struct{ SecretText string }
		if err := api.Graph(ctx, "POST", "/servicePrincipals/"+s.principal+"/addPassword", struct{}{}, &own); err != nil {
			t.Fatal(err)
		}
		if err := s.as(api, own.SecretText).Graph(ctx, "GET", "/organization", nil, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("a principal that is switched off", func(t *testing.T) {
		switchTo := func(on bool) {
			t.Helper()
			if err := api.Graph(ctx, "PATCH", "/servicePrincipals/"+s.principal, map[string]any{"accountEnabled": on}, nil); err != nil {
				t.Fatal(err)
			}
		}
		switchTo(false)
		if err := me.Graph(ctx, "GET", "/organization", nil, nil); !client.IsCode(err, "InvalidAuthenticationToken") {
			t.Errorf("its token still works: %v", err)
		}
		switchTo(true)
		if err := me.Graph(ctx, "GET", "/organization", nil, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("tokens for other resources", func(t *testing.T) {
		for resource, status := range map[string]int{
			api.Operator.Endpoints.Graph: 200, "https://graph.microsoft.com": 200, "https://graph.microsoft.com/": 200, "00000003-0000-0000-c000-000000000000": 200,
			api.Operator.Endpoints.Management: 401, "https://vault.azure.net": 401, "https://graph.windows.net": 401,
		} {
			token, err := api.Token(ctx, resource)
			if err != nil {
				t.Fatal(err)
			}
			if got := statusOf(t, api, api.Operator.Endpoints.Graph+"/v1.0/organization", token); got != status {
				t.Errorf("%s: %d, want %d", resource, got, status)
			}
			if got := statusOf(t, api, "https://"+api.Operator.Listen+"/v1.0/organization", token); got != status {
				t.Errorf("%s at the bare address: %d, want %d", resource, got, status)
			}
		}
	})
	t.Run("the bare address as resource", func(t *testing.T) {
		origin := "https://" + api.Operator.Listen
		token := tokenAt(t, api, origin, origin+"//.default")
		if got := statusOf(t, api, origin+"/v1.0/organization", token); got != 200 {
			t.Errorf("%d", got)
		}
		// An application that is called like an address gets tokens for itself, not for the directory.
		if _, err := srv.directory.UpdateApplication(ctx, s.object, func(a *directory.Application) error {
			a.IdentifierURIs = []string{"https://127.0.0.1:9"}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		token = tokenAt(t, api, api.Operator.Endpoints.Login, "https://127.0.0.1:9/.default")
		for _, host := range []string{origin, "https://127.0.0.1:9", api.Operator.Endpoints.Graph} {
			if got := statusOf(t, api, host+"/v1.0/organization", token); got != 401 {
				t.Errorf("%s: %d", host, got)
			}
		}
	})
	t.Run("federation by expression", func(t *testing.T) {
		fic := map[string]any{
			"name": "shops", "issuer": api.Issuer("local"), "audiences": []string{"api://AzureADTokenExchange"},
			"claimsMatchingExpression": map[string]any{"languageVersion": 1, "value": "claims['sub'] matches 'system:serviceaccount:shop-?:web'"},
		}
		if err := api.Graph(ctx, "POST", "/applications/"+s.object+"/federatedIdentityCredentials", fic, nil); err != nil {
			t.Fatal(err)
		}
		for namespace, want := range map[string]bool{"shop-1": true, "shop-2": true, "shop-10": false, "bank": false} {
			if status, body := exchange(t, ctx, api, s.appID, namespace, "web"); (status == 200) != want || !want && !strings.Contains(body, "AADSTS700213") {
				t.Errorf("%s: %d", namespace, status)
			}
		}
	})
}

// statusOf asks an address with a token.
func statusOf(t *testing.T, api *client.Client, target, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := api.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// postToken sends a form to the token endpoint at an origin.
func postToken(t *testing.T, api *client.Client, origin string, form url.Values) (int, []byte) {
	t.Helper()
	resp, err := api.HTTP.PostForm(origin+"/"+api.Operator.TenantID+"/oauth2/v2.0/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// tokenAt is the operator's token for a scope, asked for at an origin.
func tokenAt(t *testing.T, api *client.Client, origin, scope string) string {
	t.Helper()
	status, body := postToken(t, api, origin, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {api.Operator.ClientID}, "client_secret": {api.Operator.ClientSecret}, "scope": {scope},
	})
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		t.Fatalf("%s: %d %v", scope, status, err)
	}
	return answer.AccessToken
}

// exchange presents a service account's token as the application.
func exchange(t *testing.T, ctx context.Context, api *client.Client, appID, namespace, account string) (int, string) {
	t.Helper()
	assertion, _, err := api.ServiceAccountToken(ctx, "local", namespace, account, "api://AzureADTokenExchange", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	status, body := postToken(t, api, api.Operator.Endpoints.Login, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {appID}, "client_assertion": {assertion}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	})
	return status, string(body)
}
