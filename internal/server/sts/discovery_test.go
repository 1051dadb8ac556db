package sts_test

import (
	"encoding/base64"
	"math/big"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/sts"
)

func TestDiscoveryDocuments(t *testing.T) {
	t.Parallel()
	g := start(t)
	own, azure, bare := "https://"+ownHost, "https://"+azureHost, "https://"+bareHost
	for _, c := range []struct {
		host, path           string
		login, tenant        string // where its endpoints are
		version              int
		issuer, graph, cloud string
	}{
		{ownHost, "/" + tenantID + "/v2.0", own, tenantID, 2, own + "/" + tenantID + "/v2.0", "graph.podkey.test:8443", "podkey.test:8443"},
		{ownHost, "/" + tenantID, own, tenantID, 1, own + "/" + tenantID + "/", "graph.podkey.test:8443", "podkey.test:8443"},
		{ownHost, "/" + strings.ToUpper(tenantID) + "/V2.0", own, tenantID, 2, own + "/" + tenantID + "/v2.0", "graph.podkey.test:8443", "podkey.test:8443"},
		{ownHost, "/contoso.example/v2.0", own, tenantID, 2, own + "/" + tenantID + "/v2.0", "graph.podkey.test:8443", "podkey.test:8443"},
		{ownHost, "/common/v2.0", own, "common", 2, own + "/{tenantid}/v2.0", "graph.podkey.test:8443", "podkey.test:8443"},
		{ownHost, "/organizations", own, "organizations", 1, own + "/{tenantid}/", "graph.podkey.test:8443", "podkey.test:8443"},
		{regionHost, "/" + tenantID + "/v2.0", own, tenantID, 2, own + "/" + tenantID + "/v2.0", "graph.podkey.test:8443", "podkey.test:8443"},
		{azureHost, "/" + tenantID + "/v2.0", azure, tenantID, 2, azure + "/" + tenantID + "/v2.0", "graph.microsoft.com", "microsoftonline.com"},
		{azureHost, "/" + tenantID, azure, tenantID, 1, "https://sts.windows.net/" + tenantID + "/", "graph.microsoft.com", "microsoftonline.com"},
		{azureHost, "/common/v2.0", azure, "common", 2, azure + "/{tenantid}/v2.0", "graph.microsoft.com", "microsoftonline.com"},
		{bareHost, "/" + tenantID + "/v2.0", bare, tenantID, 2, bare + "/" + tenantID + "/v2.0", bareHost, bareHost},
		{bareHost, "/adfs", bare, tenantID, 2, bare + "/" + tenantID + "/v2.0", bareHost, bareHost},
		{bareHost, "/adfs/aad/" + tenantID, bare, tenantID, 2, bare + "/" + tenantID + "/v2.0", bareHost, bareHost},
		{bareHost, "/adfs/aad/contoso.example/v2.0", bare, tenantID, 2, bare + "/" + tenantID + "/v2.0", bareHost, bareHost},
		{bareHost, "/adfs/aad/organizations", bare, "organizations", 2, bare + "/{tenantid}/v2.0", bareHost, bareHost},
	} {
		a := g.get(c.host, c.path+"/.well-known/openid-configuration")
		if a.Code != 200 {
			t.Errorf("%s%s: %s", c.host, c.path, a.Body)
			continue
		}
		base := c.login + "/" + c.tenant
		oauth, keys := base+"/oauth2/v2.0", base+"/discovery/v2.0/keys"
		if c.version == 1 {
			oauth, keys = base+"/oauth2", base+"/discovery/keys"
		}
		want := map[string]any{
			"issuer": c.issuer, "token_endpoint": oauth + "/token", "authorization_endpoint": oauth + "/authorize",
			"device_authorization_endpoint": oauth + "/devicecode", "end_session_endpoint": oauth + "/logout", "jwks_uri": keys,
			"msgraph_host": c.graph, "cloud_instance_name": c.cloud, "request_uri_parameter_supported": false,
			"id_token_signing_alg_values_supported": []any{"RS256"}, "subject_types_supported": []any{"pairwise"},
		}
		for k, v := range want {
			if !cmp.Equal(v, a.body[k]) {
				t.Errorf("%s%s: %s is %v, want %v", c.host, c.path, k, a.body[k], v)
			}
		}
		// MSAL for Go derives one endpoint from another by its text, and every
		// URL must lead back to where the client came from.
		for k, v := range a.body {
			if u, ok := v.(string); ok && strings.HasPrefix(u, "https://") && k != "issuer" && k != "rbac_url" && !strings.HasPrefix(u, c.login+"/") {
				t.Errorf("%s%s: %s is %s", c.host, c.path, k, u)
			}
		}
		if strings.Count(a.body["token_endpoint"].(string), "token") != 1 {
			t.Errorf("%v has token twice", a.body["token_endpoint"])
		}
		if az := strings.Split(c.issuer, "/"); len(az) < 4 || az[3] != tenantID && az[3] != "{tenantid}" {
			t.Errorf("az cannot read the tenant from %s", c.issuer)
		}
		// What is advertised is served.
		if a := g.get(c.host, strings.TrimPrefix(keys, c.login)); a.Code != 200 {
			t.Errorf("%s: %s", keys, a.Body)
		}
	}
	head := g.do(httptest.NewRequest("HEAD", own+"/"+tenantID+"/v2.0/.well-known/openid-configuration", nil))
	if head.Code != 200 {
		t.Errorf("HEAD: %d", head.Code)
	}
	g.refuse(g.get(ownHost, "/"+otherID+"/v2.0/.well-known/openid-configuration"), 400, "invalid_tenant", 90002)
	g.refuse(g.get(ownHost, "/x/.well-known/openid-configuration"), 400, "invalid_tenant", 900023)
	g.refuse(g.get(ownHost, "/"+otherID+"/discovery/keys"), 400, "invalid_tenant", 90002)
	g.refuse(g.do(httptest.NewRequest("POST", own+"/"+tenantID+"/.well-known/openid-configuration", nil)), 405, "invalid_request", 900561)
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID}); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.get(ownHost, "/adfs/.well-known/openid-configuration"), 400, "invalid_request", 50059)
}

func TestKeysVerifyTokens(t *testing.T) {
	t.Parallel()
	g := start(t)
	if _, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: tenantID, IdentifierURIs: []string{"api://orders"}}); err != nil {
		t.Fatal(err)
	}
	f := g.bySecret()
	f.Set("scope", "api://orders/.default")
	raw := g.token(f).text("access_token")
	header, _ := claimsOf(t, raw)
	for path, iss := range map[string]any{
		"/" + tenantID + "/discovery/v2.0/keys":          "https://" + ownHost + "/" + tenantID + "/v2.0",
		"/common/discovery/v2.0/keys":                    "https://" + ownHost + "/{tenantid}/v2.0",
		"/" + tenantID + "/discovery/keys":               nil,
		"/common/discovery/keys":                         nil,
		"/adfs/discovery/keys":                           nil,
		"/adfs/aad/" + tenantID + "/discovery/v2.0/keys": "https://" + ownHost + "/" + tenantID + "/v2.0",
	} {
		a := g.get(ownHost, path)
		var key map[string]any
		keys, _ := a.body["keys"].([]any)
		for _, k := range keys {
			if k := k.(map[string]any); k["kid"] == header["kid"] {
				key = k
			}
		}
		if key == nil || key["issuer"] != iss || key["kty"] != "RSA" || key["use"] != "sig" || key["x5t"] != header["x5t"] {
			t.Errorf("%s: key %v", path, key)
			continue
		}
		n, _ := base64.RawURLEncoding.DecodeString(key["n"].(string))
		e, _ := base64.RawURLEncoding.DecodeString(key["e"].(string))
		public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		parts := strings.Split(raw, ".")
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		sig, _ := base64.RawURLEncoding.DecodeString(parts[2])
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		der, _ := base64.StdEncoding.DecodeString(key["x5c"].([]any)[0].(string))
		cert, err := x509.ParseCertificate(der)
		if err != nil || !public.Equal(cert.PublicKey) {
			t.Errorf("%s: x5c is not the key's: %v", path, err)
		}
	}
}

func TestInstanceDiscovery(t *testing.T) {
	t.Parallel()
	g := start(t, func(h *sts.Handler) {
		h.ServesLogin = func(host string) bool { return host == "10.1.2.3:8443" }
	})
	ask := func(host, endpoint, more string) *answer {
		return g.get(host, "/common/discovery/instance?"+more+"authorization_endpoint="+url.QueryEscape(endpoint))
	}
	own := map[string]any{"preferred_network": ownHost, "preferred_cache": ownHost, "aliases": []any{ownHost}}
	azure := map[string]any{"preferred_network": azureHost, "preferred_cache": azureHost, "aliases": []any{azureHost, "login.windows.net", "login.microsoft.com", "sts.windows.net"}}
	alone := func(host string) map[string]any {
		return map[string]any{"preferred_network": host, "preferred_cache": host, "aliases": []any{host}}
	}
	for _, c := range []struct {
		host, endpoint, version string
		document                string
		metadata                []any
	}{
		{azureHost, "https://login.microsoftonline.com/common/oauth2/authorize", "1.1", "https://login.microsoftonline.com/common/.well-known/openid-configuration", []any{azure, own}},
		{azureHost, "https://login.microsoftonline.com/" + tenantID + "/oauth2/v2.0/authorize", "1.1", "https://login.microsoftonline.com/" + tenantID + "/v2.0/.well-known/openid-configuration", []any{azure, own}},
		{azureHost, "https://LOGIN.windows.net:443/organizations/oauth2/v2.0/authorize", "1.0", "https://login.windows.net/organizations/v2.0/.well-known/openid-configuration", []any{azure, own}},
		{azureHost, "https://" + ownHost + "/contoso.example/oauth2/v2.0/authorize", "1.1", "https://" + ownHost + "/contoso.example/v2.0/.well-known/openid-configuration", []any{azure, own}},
		{ownHost, "https://" + ownHost + "/" + tenantID + "/oauth2/v2.0/authorize", "1.1", "https://" + ownHost + "/" + tenantID + "/v2.0/.well-known/openid-configuration", []any{own, azure}},
		{ownHost, "https://" + ownHost + "/adfs/oauth2/authorize", "1.1", "https://" + ownHost + "/adfs/.well-known/openid-configuration", []any{own, azure}},
		{ownHost, "https://northeurope." + ownHost + "/" + tenantID + "/oauth2/v2.0/authorize", "1.1", "https://northeurope." + ownHost + "/" + tenantID + "/v2.0/.well-known/openid-configuration", []any{own, azure, alone("northeurope." + ownHost)}},
		{bareHost, "https://" + bareHost + "/" + tenantID + "/oauth2/v2.0/authorize", "1.1", "https://" + bareHost + "/" + tenantID + "/v2.0/.well-known/openid-configuration", []any{alone(bareHost), own, azure}},
		{azureHost, "https://10.1.2.3:8443/" + tenantID + "/oauth2/v2.0/authorize", "1.1", "https://10.1.2.3:8443/" + tenantID + "/v2.0/.well-known/openid-configuration", []any{azure, own, alone("10.1.2.3:8443")}},
	} {
		a := ask(c.host, c.endpoint, "api-version="+c.version+"&")
		want := map[string]any{"tenant_discovery_endpoint": c.document, "api-version": c.version, "metadata": c.metadata}
		if diff := cmp.Diff(want, a.body); diff != "" || a.Code != 200 {
			t.Errorf("%s: %d %s", c.endpoint, a.Code, diff)
		}
	}
	for _, evil := range []string{
		"https://evil.test/common/oauth2/authorize", "https://login.microsoftonline.com.evil.test/common/oauth2/authorize", "http://login.microsoftonline.com/common/x",
		"https://evil.test@" + ownHost + "/common/x", "https://login.microsoftonline.com:8443/common/x", "https://a.b." + ownHost + "/common/x", "//" + ownHost + "/common/x", "https://%zz/", "x",
	} {
		g.refuse(ask(azureHost, evil, ""), 400, "invalid_instance", 50049)
	}
	g.refuse(ask(azureHost, "https://"+ownHost+"/nonsense/oauth2/authorize", ""), 400, "invalid_request", 900023)
	g.refuse(g.get(azureHost, "/common/discovery/instance?api-version=1.1"), 400, "invalid_request", 900144)
}
