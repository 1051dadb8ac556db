package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/podkey/podkey/podkeytest"
)

// victim is a server with one workload that may read one secret, and what an
// attacker on the network can know or have.
type victim struct {
	*podkeytest.Podkey
	access string         // a good access token for the vault
	header map[string]any // its header
	claims map[string]any // its claims
	target string         // URL of the secret
}

func newVictim(t *testing.T, extra string) *victim {
	t.Helper()
	p := podkeytest.Start(t, podkeytest.Options{Declare: shop + extra})
	v := &victim{Podkey: p, target: p.VaultURL("shop-vault") + "/secrets/db-password?api-version=7.5"}
	tok, err := workload(t, p, "shop", "shop", "web").GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	v.access = tok.Token
	v.header, v.claims = decode(t, v.access)
	if status, body := v.get(t, v.access); status != 200 || !strings.Contains(string(body), "hunter2") {
		t.Fatalf("the good token reads nothing: %d %s", status, body)
	}
	return v
}

func (v *victim) get(t *testing.T, token string) (int, []byte) {
	t.Helper()
	return request(t, v.Podkey, "GET", v.target, token, nil)
}

// refused asserts that a token opens nothing: 401 in the vault's own words.
func (v *victim) refused(t *testing.T, name, token string) {
	t.Helper()
	status, body := v.get(t, token)
	var e struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &e); err != nil || status != 401 || e.Error.Code != "Unauthorized" {
		t.Errorf("%s: %d %s, want 401 Unauthorized", name, status, body)
	}
	if strings.Contains(string(body), "hunter2") {
		t.Errorf("%s: the secret is in the answer", name)
	}
}

func decode(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	for i, out := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func with(m map[string]any, kv ...any) map[string]any {
	c := maps.Clone(m)
	for i := 0; i < len(kv); i += 2 {
		c[kv[i].(string)] = kv[i+1]
	}
	return c
}

// signES signs with a P-256 key, signRS with an RSA key, signHS with a MAC.
func signES(t *testing.T, key *ecdsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	in := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(in))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return in + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func signRS(t *testing.T, key *rsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	in := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(in))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return in + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func signHS(key []byte, header, claims map[string]any) string {
	in := part(header) + "." + part(claims)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(in))
	return in + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// publicKeys is what the server publishes, in every form that a confused
// verifier might take for a shared secret.
func (v *victim) publicKeys(t *testing.T) (forms [][]byte) {
	t.Helper()
	status, body := request(t, v.Podkey, "GET", "https://login.microsoftonline.com/"+v.TenantID+"/discovery/v2.0/keys", "", nil)
	var set struct {
		Keys []struct{ Kty, N, E, X, Y string }
	}
	if err := json.Unmarshal(body, &set); err != nil || status != 200 || len(set.Keys) < 2 {
		t.Fatalf("keys: %d %s", status, body)
	}
	num := func(s string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	for _, k := range set.Keys {
		var pub any
		if k.Kty == "RSA" {
			pub = &rsa.PublicKey{N: num(k.N), E: int(num(k.E).Int64())}
			forms = append(forms, []byte(k.N), num(k.N).Bytes())
		} else {
			point := append([]byte{4}, append(num(k.X).FillBytes(make([]byte, 32)), num(k.Y).FillBytes(make([]byte, 32))...)...)
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
			if err != nil {
				t.Fatal(err)
			}
			pub = key
			forms = append(forms, []byte(k.X))
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		forms = append(forms, der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	return forms
}

func TestAttackForgedTokens(t *testing.T) {
	v := newVictim(t, "")
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		in := part(with(v.header, "alg", alg)) + "." + part(v.claims) + "."
		v.refused(t, "alg "+alg+" without signature", in)
		v.refused(t, "alg "+alg+" with the old signature", in+v.access[strings.LastIndexByte(v.access, '.')+1:])
	}
	for i, key := range v.publicKeys(t) {
		v.refused(t, fmt.Sprintf("HS256 with the public key, form %d", i), signHS(key, with(v.header, "alg", "HS256"), v.claims))
	}
	v.refused(t, "HS256 with an empty key", signHS(nil, with(v.header, "alg", "HS256"), v.claims))

	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := own.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "kid": v.header["kid"],
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}
	var fetched atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{jwk}})
	}))
	defer trap.Close()
	v.refused(t, "another key under our kid", signES(t, own, v.header, v.claims))
	v.refused(t, "embedded jwk", signES(t, own, with(v.header, "jwk", jwk), v.claims))
	v.refused(t, "jku", signES(t, own, with(v.header, "jku", trap.URL, "kid", "mine"), v.claims))
	v.refused(t, "x5u", signES(t, own, with(v.header, "x5u", trap.URL, "kid", "mine"), v.claims))
	for _, kid := range []any{"../../../../dev/null", "/dev/null", "' OR 1=1 --", "\x00", strings.Repeat("k", 10000), "", nil, 7, []any{v.header["kid"]}} {
		v.refused(t, fmt.Sprintf("kid %.20v", kid), signES(t, own, with(v.header, "kid", kid), v.claims))
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("the server fetched %d keys that a token named", n)
	}

	h, p, s := v.access[:strings.IndexByte(v.access, '.')], strings.Split(v.access, ".")[1], v.access[strings.LastIndexByte(v.access, '.')+1:]
	for name, token := range map[string]string{
		"claims changed":      h + "." + part(with(v.claims, "oid", v.ObjectID, "sub", v.ObjectID)) + "." + s,
		"signature cut":       h + "." + p + "." + s[:len(s)-4],
		"signature empty":     h + "." + p + ".",
		"no signature":        h + "." + p,
		"fourth part":         v.access + ".x",
		"padding":             v.access + "=",
		"leading blank":       "\t" + v.access,
		"not a token":         "x",
		"a megabyte of token": strings.Repeat("a.", 20000),
	} {
		if name == "leading blank" || name == "a megabyte of token" {
			continue // the client library refuses or trims these; see the verifier's own tests
		}
		v.refused(t, name, token)
	}
}

func TestAttackTokenMeantForSomebodyElse(t *testing.T) {
	v := newVictim(t, `
roleAssignments:
  - {identity: shop, role: Reader}
applications:
  - {name: other-api, identifierUris: [api://other]}
`)
	for _, scope := range []string{"https://management.azure.com/.default", "https://graph.microsoft.com/.default", "api://other/.default"} {
		tok, err := workload(t, v.Podkey, "shop", "shop", "web").GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
		if err != nil {
			t.Fatalf("%s: %v", scope, err)
		}
		v.refused(t, "a token for "+scope, tok.Token)
	}
	// The other way round.
	status, body := request(t, v.Podkey, "GET", "https://management.azure.com/subscriptions?api-version=2022-12-01", v.access, nil)
	if status != 401 {
		t.Errorf("a vault token at the management API: %d %s", status, body)
	}
	v.refused(t, "a service-account token straight at the vault", v.ServiceAccountToken("shop", "web"))
	v.refused(t, "a service-account token for the vault's audience", v.ServiceAccountToken("shop", "web", "https://vault.azure.net"))
}

func TestAttackAccessTokenAsAssertion(t *testing.T) {
	v := newVictim(t, "")
	id := v.Identity("shop")
	status, body := tokenRequest(t, v.Podkey, v.TenantID, url.Values{"client_id": {id.ClientID}, "client_assertion": {v.access}})
	if status != 401 || !strings.Contains(string(body), "AADSTS700222") {
		t.Errorf("an access token as client assertion: %d %s", status, body)
	}
}

// tokenRequest posts a client-credentials request; form adds to the usual.
func tokenRequest(t *testing.T, p *podkeytest.Podkey, tenant string, form url.Values) (int, []byte) {
	t.Helper()
	all := url.Values{
		"grant_type": {"client_credentials"}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	maps.Copy(all, form)
	resp, err := p.Client.PostForm("https://login.microsoftonline.com/"+tenant+"/oauth2/v2.0/token", all)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(body) {
		t.Errorf("not JSON: %s", body)
	}
	return resp.StatusCode, body
}

func TestAttackTimeShift(t *testing.T) {
	v := newVictim(t, "")
	v.Clock.Advance(25 * time.Hour)
	v.refused(t, "expired", v.access)
	v.Clock.Advance(-50 * time.Hour)
	v.refused(t, "not yet valid", v.access)
	v.Clock.Advance(25 * time.Hour)
	if status, _ := v.get(t, v.access); status != 200 {
		t.Errorf("in its time again: %d", status)
	}
}

func TestAttackReplayAfterDeletion(t *testing.T) {
	v := newVictim(t, "")
	id := v.Identity("shop")
	assertion := v.ServiceAccountToken("shop", "web")
	manage(t, v.Podkey, "DELETE", id.ResourceID+"?api-version=2023-01-31", nil)
	v.refused(t, "the deleted identity's access token", v.access)
	status, body := tokenRequest(t, v.Podkey, v.TenantID, url.Values{"client_id": {id.ClientID}, "client_assertion": {assertion}})
	if status != 400 || !strings.Contains(string(body), "AADSTS700016") {
		t.Errorf("exchange for a deleted identity: %d %s", status, body)
	}
	// An identity of the same name is another one: it inherits no access.
	v.Declare(`
identities:
  - name: shop
    resourceGroup: shop
    federatedCredentials:
      - {name: web, namespace: shop, serviceAccount: web}
`)
	v.refused(t, "the old token after the name is used again", v.access)
	tok, err := workload(t, v.Podkey, "shop", "shop", "web").GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	if status, body := v.get(t, tok.Token); status != 403 {
		t.Errorf("the new identity: %d %s, want 403", status, body)
	}
}

func TestAttackOtherVaultsAndTenants(t *testing.T) {
	v := newVictim(t, `
  - name: other-vault
    resourceGroup: other
    secrets: [{name: db-password, value: canary}]
tenants:
  - id: 11111111-2222-3333-4444-555555555555
    subscriptionId: 66666666-7777-8888-9999-000000000000
    identities:
      - name: shop
        resourceGroup: shop
        federatedCredentials:
          - {name: web, namespace: shop, serviceAccount: web}
    vaults:
      - name: foreign-vault
        resourceGroup: shop
        access:  [{identity: shop, role: Key Vault Administrator}]
        secrets: [{name: db-password, value: canary}]
`)
	for vault, want := range map[string]int{"other-vault": 403, "foreign-vault": 401, "no-such-vault": 404} {
		status, body := request(t, v.Podkey, "GET", v.VaultURL(vault)+"/secrets/db-password?api-version=7.5", v.access, nil)
		if status != want || strings.Contains(string(body), "canary") {
			t.Errorf("%s: %d %s, want %d", vault, status, body, want)
		}
	}
	// The identity's client id in another tenant, and the other way round.
	status, body := tokenRequest(t, v.Podkey, "11111111-2222-3333-4444-555555555555",
		url.Values{"client_id": {v.Identity("shop").ClientID}, "client_assertion": {v.ServiceAccountToken("shop", "web")}})
	if status != 400 || !strings.Contains(string(body), "AADSTS700016") {
		t.Errorf("the client id in another tenant: %d %s", status, body)
	}
	// A token whose claims name the other tenant cannot be had without its
	// signature; see the forged tokens.
}

func TestAttackSSRFThroughIssuer(t *testing.T) {
	v := newVictim(t, "")
	var hits atomic.Int32
	trap := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hits.Add(1) }))
	defer trap.Close()
	port := trap.Listener.Addr().(*net.TCPAddr).Port
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	id := v.Identity("shop")
	for _, issuer := range []string{
		fmt.Sprintf("https://127.0.0.1:%d/", port), fmt.Sprintf("https://localhost:%d/", port), fmt.Sprintf("https://[::1]:%d/", port),
		fmt.Sprintf("https://[::ffff:127.0.0.1]:%d/", port), fmt.Sprintf("https://2130706433:%d/", port), fmt.Sprintf("https://0x7f.1:%d/", port),
		fmt.Sprintf("https://0.0.0.0:%d/", port), "https://169.254.169.254/metadata/", "https://10.0.0.1/", "https://[fe80::1]/", "https://[fd00::1]/",
	} {
		path := "https://management.azure.com" + id.ResourceID + "/federatedIdentityCredentials/trap?api-version=2023-01-31"
		tok, err := operator(t, v.Podkey).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}})
		if err != nil {
			t.Fatal(err)
		}
		status, body := request(t, v.Podkey, "PUT", path, tok.Token, federated(issuer, "attacker", "api://AzureADTokenExchange"))
		if status == 400 {
			continue // refused where it is written: as good
		}
		if status/100 != 2 {
			t.Errorf("%s: %d %s", issuer, status, body)
			continue
		}
		now := v.Clock.Now().Unix()
		assertion := signRS(t, key, map[string]any{"alg": "RS256", "kid": "k", "typ": "JWT"},
			map[string]any{"iss": issuer, "sub": "attacker", "aud": "api://AzureADTokenExchange", "iat": now, "nbf": now, "exp": now + 600})
		start := time.Now()
		status, body = tokenRequest(t, v.Podkey, v.TenantID, url.Values{"client_id": {id.ClientID}, "client_assertion": {assertion}})
		if status != 400 || !strings.Contains(string(body), "AADSTS90061") {
			t.Errorf("%s: %d %s, want 400 AADSTS90061", issuer, status, body)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("%s: took %s", issuer, took)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests reached the trap", n)
	}
}

// TestForeignIssuer is the good case beside the attack: an issuer that is not
// ours, its keys fetched, and picked up again after they changed.
func TestForeignIssuer(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	kid := "one"
	var issuer string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "keys"})
		case "/keys":
			json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
				"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": "AQAB"}}})
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	issuer = s.URL + "/"
	p := podkeytest.Start(t, podkeytest.Options{LoopbackIssuers: true, Declare: fmt.Sprintf(`
identities:
  - name: foreign
    resourceGroup: shop
    federatedCredentials:
      - {name: runner, issuer: %q, subject: "repo:shop"}
`, issuer)})
	exchange := func() (int, []byte) {
		now := p.Clock.Now().Unix()
		assertion := signRS(t, key, map[string]any{"alg": "RS256", "kid": kid, "typ": "JWT"},
			map[string]any{"iss": issuer, "sub": "repo:shop", "aud": "api://AzureADTokenExchange", "iat": now, "nbf": now, "exp": now + 600})
		return tokenRequest(t, p, p.TenantID, url.Values{"client_id": {p.Identity("foreign").ClientID}, "client_assertion": {assertion}})
	}
	if status, body := exchange(); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	kid = "two"
	p.Clock.Advance(time.Minute) // past the pause between fetches for unknown kids
	if status, body := exchange(); status != 200 {
		t.Errorf("after the issuer's rotation: %d %s", status, body)
	}
	kid = "one" // the new key under the old id
	if status, body := exchange(); status != 401 || !strings.Contains(string(body), "AADSTS700027") {
		t.Errorf("a key under another's id: %d %s", status, body)
	}
}

// TestAttackContributorBecomesOwner: the role that may do everything but give
// roles must not come by rights through Podkey's own operations.
func TestAttackContributorBecomesOwner(t *testing.T) {
	p := podkeytest.Start(t, podkeytest.Options{Declare: `
applications:
  - name: contributor
    appId: 99999999-8888-7777-6666-555555555555
    secret: {value: "chosen-by-a-person"}
roleAssignments:
  - {application: contributor, role: Contributor, scope: /}
tenants:
  - {id: 11111111-2222-3333-4444-555555555555, subscriptionId: 66666666-7777-8888-9999-000000000000}
`})
	const management = "https://management.azure.com"
	status, body := tokenRequest(t, p, p.TenantID, url.Values{
		"client_id": {"99999999-8888-7777-6666-555555555555"}, "client_secret": {"chosen-by-a-person"}, "scope": {management + "/.default"},
	})
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &tok); err != nil || status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := request(t, p, "GET", management+"/subscriptions?api-version=2022-12-01", tok.AccessToken, nil); status != 200 {
		t.Fatalf("the token does not work at all: %d %s", status, body)
	}
	const v = "?api-version=2026-11-21"
	for _, c := range []struct {
		method, url string
		in          any
	}{
		{"PUT", management + "/providers/Podkey.Admin/tenants/11111111-2222-3333-4444-555555555555" + v, map[string]any{"subscriptionId": "66666666-7777-8888-9999-000000000000"}},
		{"POST", management + "/providers/Podkey.Admin/applications" + v, map[string]any{"tenantId": p.TenantID, "displayName": "contributor", "clientSecret": "another-secret"}},
		{"POST", management + "/providers/Podkey.Admin/rotateKek" + v, map[string]any{}},
		{"POST", management + "/providers/Podkey.Admin/rotateDataKey" + v, map[string]any{}},
		{"GET", management + "/providers/Podkey.Admin/keys" + v, nil},
		{"POST", p.Issuer + "api/v1/namespaces/kube-system/serviceaccounts/admin/token", map[string]any{"spec": map[string]any{"audiences": []string{"api://AzureADTokenExchange"}}}},
		{"PUT", management + "/providers/Microsoft.Authorization/roleAssignments/" + "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee?api-version=2022-04-01", map[string]any{"properties": map[string]any{
			"principalId": p.ObjectID, "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635"}}},
	} {
		if status, body := request(t, p, c.method, c.url, tok.AccessToken, c.in); status != 403 {
			t.Errorf("%s %s: %d %s, want 403", c.method, c.url, status, body)
		}
	}
}
