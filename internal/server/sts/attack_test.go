package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/sts"
	"github.com/podkey/podkey/internal/token"
)

// Attacks with a forged federated assertion. Each is named by the mistake
// that would let it through.
func TestAttackForgedAssertion(t *testing.T) {
	t.Parallel()
	g := start(t)
	claims := encode(g.assertion())
	hs256 := func(secret []byte) string {
		text := encode(map[string]any{"alg": "HS256", "kid": "k1"}) + "." + claims
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	public, err := x509.MarshalPKIXPublicKey(&issuerKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	stranger := func(header map[string]any) string {
		return sign(strangerKey(), merge(map[string]any{"alg": "RS256", "kid": "k1"}, header), g.assertion())
	}
	hits := 0
	evil := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		fmt.Fprint(w, jwks("k1", &strangerKey().PublicKey))
	}))
	defer evil.Close()
	n := base64.RawURLEncoding.EncodeToString(strangerKey().N.Bytes())
	right := g.issuer.sign(g.assertion(), nil)
	parts := strings.Split(right, ".")
	es256 := func() string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text := encode(map[string]any{"alg": "ES256", "kid": "k1"}) + "." + claims
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return text + "." + base64.RawURLEncoding.EncodeToString(sig)
	}()

	for _, c := range []struct {
		name, jwt string
		codes     []int
	}{
		{"alg none without signature", encode(map[string]any{"alg": "none"}) + "." + claims + ".", []int{50027}},
		{"alg none with the signature of another", encode(map[string]any{"alg": "none", "kid": "k1"}) + "." + claims + "." + parts[2], []int{700027}},
		{"alg NONE in capitals", encode(map[string]any{"alg": "NONE", "kid": "k1"}) + "." + claims + "." + parts[2], []int{700027}},
		{"no alg", encode(map[string]any{"kid": "k1"}) + "." + claims + "." + parts[2], []int{50027}},
		{"HS256 keyed with the public key in PEM", hs256(publicPEM), []int{700027}},
		{"HS256 keyed with the public key in DER", hs256(public), []int{700027}},
		{"HS256 keyed with nothing", hs256(nil), []int{700027}},
		{"ES256 with a key of one's own", es256, []int{700027}},
		{"PS256, which issuers do not use", sign(issuerKey(), map[string]any{"alg": "PS256", "kid": "k1"}, g.assertion()), []int{700027}},
		{"another key under the right kid", stranger(nil), []int{700027}},
		{"kid with a path", stranger(map[string]any{"kid": "../../evil/keys"}), []int{7000272}},
		{"kid that is a URL", stranger(map[string]any{"kid": evil.URL}), []int{7000272}},
		{"kid with SQL", stranger(map[string]any{"kid": "' OR 1=1 --"}), []int{7000272}},
		{"kid with NUL", stranger(map[string]any{"kid": "k1\x00"}), []int{7000272, 50027}},
		{"kid that is a number", stranger(map[string]any{"kid": 1}), []int{50027}},
		{"kid in another case", stranger(map[string]any{"kid": "K1"}), []int{7000272}},
		{"empty kid", stranger(map[string]any{"kid": ""}), []int{7000272}},
		{"jku to a host of one's own", stranger(map[string]any{"jku": evil.URL}), []int{700027}},
		{"x5u to a host of one's own", stranger(map[string]any{"x5u": evil.URL}), []int{700027}},
		{"embedded jwk", stranger(map[string]any{"jwk": map[string]any{"kty": "RSA", "n": n, "e": "AQAB"}}), []int{700027}},
		{"embedded certificate", stranger(map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(certificate(strangerKey()))}}), []int{700027}},
		{"unknown critical extension", g.issuer.sign(g.assertion(), map[string]any{"crit": []string{"x"}, "x": 1}), []int{50027}},
		{"changed payload", parts[0] + "." + encode(merge(g.assertion(), map[string]any{"jti": "x"})) + "." + parts[2], []int{700027}},
		{"signature cut short", parts[0] + "." + parts[1] + "." + parts[2][:len(parts[2])-4], []int{700027, 50027}},
		{"signature with padding", right + "==", []int{50027}},
		{"whitespace around", " " + right + "\n", []int{50027}},
		{"fourth part", right + ".x", []int{50027}},
		{"JSON serialisation", fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2]), []int{50027}},
		{"encrypted token", "a.b.c.d.e", []int{50027}},
		{"iss twice", rawClaims(g, `{"iss":"https://evil.test/","iss":%q,"sub":%q,"aud":%q,"exp":%d}`), []int{50027}},
		{"aud that is a number", g.issuer.sign(merge(g.assertion(), map[string]any{"aud": 1}), nil), []int{50027}},
		{"aud that is missing", g.issuer.sign(merge(g.assertion(), map[string]any{"aud": nil}), nil), []int{50027}},
		{"exp that is text", g.issuer.sign(merge(g.assertion(), map[string]any{"exp": "9999999999"}), nil), []int{50027}},
		{"exp that is missing", g.issuer.sign(merge(g.assertion(), map[string]any{"exp": nil}), nil), []int{50027}},
		{"exp beyond all integers", rawClaims(g, `{"iss":%q,"sub":%q,"aud":%q,"nbf":%d,"exp":1e300}`), []int{50027}},
		{"sub that is a list", g.issuer.sign(merge(g.assertion(), map[string]any{"sub": []string{subject}}), nil), []int{50027}},
		{"huge", strings.Repeat("a", 100<<10), []int{50027}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := g.token(g.withAssertion(c.jwt))
			ok := false
			for _, code := range c.codes {
				ok = ok || a.code() == code
			}
			if !ok || a.Code < 400 || a.Code >= 500 || a.body["access_token"] != nil {
				t.Errorf("got %d AADSTS%d, want %v: %s", a.Code, a.code(), c.codes, a.Body)
			}
		})
	}
	if hits != 0 {
		t.Errorf("%d requests to the attacker's host", hits)
	}
	g.accept(g.token(g.withAssertion(right))) // none of them spoilt anything
}

// rawClaims signs claims whose JSON is written by hand.
func rawClaims(g *rig, format string) string {
	raw := fmt.Sprintf(format, g.issuer.url("a"), subject, audience, g.clock().Unix())
	return signText(issuerKey(), map[string]any{"alg": "RS256", "kid": "k1"}, base64.RawURLEncoding.EncodeToString([]byte(raw)))
}

// A forged assertion of a client's own.
func TestAttackForgedCertificateAssertion(t *testing.T) {
	t.Parallel()
	g := start(t)
	right := g.byCertificate("RS256", nil, nil).Get("client_assertion")
	parts := strings.Split(right, ".")
	with := func(jwt string) url.Values {
		f := g.withAssertion(jwt)
		f.Set("client_id", g.app.AppID)
		return f
	}
	x5t, _ := directory.Thumbprints(clientCertificate())
	claims := map[string]any{"iss": g.app.AppID, "sub": g.app.AppID, "aud": "https://" + ownHost + "/" + tenantID + "/v2.0", "exp": g.clock().Unix() + 60}
	mac := func(secret []byte) string {
		text := encode(map[string]any{"alg": "HS256", "x5t": x5t}) + "." + encode(claims)
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	for name, jwt := range map[string]string{
		"alg none":                         encode(map[string]any{"alg": "none", "x5t": x5t}) + "." + parts[1] + "." + parts[2],
		"HS256 keyed with the thumbprint":  mac([]byte(x5t)),
		"HS256 keyed with the certificate": mac(clientCertificate()),
		"another key":                      sign(strangerKey(), map[string]any{"alg": "RS256", "x5t": x5t}, claims),
		"another key, with its jwk":        sign(strangerKey(), map[string]any{"alg": "PS256", "x5t": x5t, "jwk": map[string]any{"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(strangerKey().N.Bytes()), "e": "AQAB"}}, claims),
		"RS384":                            sign(clientKey(), map[string]any{"alg": "RS384", "x5t": x5t}, claims),
		"RS256 signature called PS256":     encode(map[string]any{"alg": "PS256", "x5t": x5t}) + "." + parts[1] + "." + parts[2],
		"issuer's key for the client's":    sign(issuerKey(), map[string]any{"alg": "RS256", "x5t": x5t}, claims),
	} {
		t.Run(name, func(t *testing.T) {
			g.t = t
			g.refuse(g.token(with(jwt)), 401, "invalid_client", 700027)
		})
	}
	g.t = t
	// The managed identity has no certificates; an assertion of its own proves nothing.
	self := sign(clientKey(), map[string]any{"alg": "RS256", "x5t": x5t}, merge(claims, map[string]any{"iss": g.mi.ClientID, "sub": g.mi.ClientID}))
	g.refuse(g.token(g.withAssertion(self)), 401, "invalid_client", 700027)
	// A right assertion of one client does not authenticate another.
	g.refuse(g.token(g.withAssertion(right)), 401, "invalid_client", 700021)
	// Nor in another tenant.
	if _, err := g.dir.CreateTenant(t.Context(), directory.Tenant{ID: otherID}); err != nil {
		t.Fatal(err)
	}
	twin, err := g.dir.CreateApplication(t.Context(), directory.Application{TenantID: otherID, AppID: g.app.AppID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.dir.CreateServicePrincipal(t.Context(), directory.ServicePrincipal{TenantID: otherID, AppID: g.app.AppID}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dir.AddCertificate(t.Context(), twin.ObjectID, "same", clientCertificate()); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.do(post(ownHost, "/"+otherID+"/oauth2/v2.0/token", with(right).Encode())), 401, "invalid_client", 700023)
}

// One of our own access tokens is signed by us and has an issuer that anybody
// can look up; it must not pass for a workload's token, even where a
// credential was written for it.
func TestAttackAccessTokenAsAssertion(t *testing.T) {
	t.Parallel()
	g := start(t)
	exchange := g.bySecret()
	exchange.Set("scope", audience+"/.default")
	for _, f := range []url.Values{g.bySecret(), exchange} {
		for _, host := range []string{ownHost, azureHost, bareHost} {
			own := g.do(post(host, "/"+tenantID+"/oauth2/v2.0/token", f.Encode()))
			c := g.accept(own)
			_, err := g.dir.PutFederated(t.Context(), g.mi.PrincipalID, directory.FederatedCredential{
				Name: "self-" + strings.ReplaceAll(strings.ReplaceAll(host, ".", "-"), ":", "-") + c.Version[:1], Issuer: c.Issuer, Subject: c.Subject, Audiences: []string{c.Audience},
			})
			if err != nil && !strings.Contains(err.Error(), "already exists") {
				t.Fatal(err)
			}
			jwt := own.text("access_token")
			g.refuse(g.token(g.withAssertion(jwt)), 401, "invalid_client", 700222)
			g.refuse(g.do(post(azureHost, "/"+tenantID+"/oauth2/v2.0/token", g.withAssertion(jwt).Encode())), 401, "invalid_client", 700222)
		}
	}
}

// What belonged to a deleted identity gives nothing any more.
func TestAttackReplayAfterDeletion(t *testing.T) {
	t.Parallel()
	g := start(t)
	f := g.federated()
	g.accept(g.token(f))
	if _, err := g.dir.DeleteFederated(t.Context(), g.mi.PrincipalID, "kube"); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(f), 401, "invalid_client", 70025)
	if _, err := g.dir.PutFederated(t.Context(), g.mi.PrincipalID, directory.FederatedCredential{Name: "kube", Issuer: g.issuer.url("a"), Subject: subject, Audiences: []string{audience}}); err != nil {
		t.Fatal(err)
	}
	g.accept(g.token(f))
	if _, err := g.dir.DeleteIdentity(t.Context(), g.mi.ResourceID); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(f), 400, "unauthorized_client", 700016)
	// An identity of the same name is another one.
	again, _, err := g.dir.PutIdentity(t.Context(), directory.ManagedIdentity{ResourceID: g.mi.ResourceID, Name: "Web", Location: "westeurope", TenantID: tenantID})
	if err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(f), 400, "unauthorized_client", 700016)
	f.Set("client_id", again.ClientID)
	g.refuse(g.token(f), 401, "invalid_client", 70025)

	s := g.bySecret()
	if _, err := g.dir.RemoveSecret(t.Context(), g.app.ObjectID, g.secID); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(s), 401, "invalid_client", 7000215)
	if _, err := g.dir.DeleteApplication(t.Context(), g.app.ObjectID); err != nil {
		t.Fatal(err)
	}
	g.refuse(g.token(s), 400, "unauthorized_client", 700016)
}

// A credential's issuer is a URL that its writer chose. It must not make us
// fetch from our own network, and the answer must not tell what is there.
func TestAttackSSRFThroughIssuer(t *testing.T) {
	reached := 0
	inside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reached++ }))
	defer inside.Close()
	t.Parallel()
	g := start(t, func(h *sts.Handler) {
		h.Foreign = &token.Foreign{Now: h.Now, RootCAs: h.Foreign.RootCAs} // loopback not allowed
	})
	for i, iss := range []string{
		inside.URL, strings.Replace(inside.URL, "127.0.0.1", "localhost", 1), strings.Replace(inside.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		strings.Replace(inside.URL, "127.0.0.1", "127.1", 1), strings.Replace(inside.URL, "127.0.0.1", "0.0.0.0", 1),
		"https://169.254.169.254/latest", "https://10.0.0.1/", "https://192.168.1.1/", "https://[fe80::1]/", "https://[fd00::1]/", "http://127.0.0.1:1/",
	} {
		_, err := g.dir.PutFederated(t.Context(), g.mi.PrincipalID, directory.FederatedCredential{Name: fmt.Sprint("ssrf", i), Issuer: iss, Subject: subject, Audiences: []string{audience}})
		if err != nil {
			t.Fatalf("%s: %v", iss, err)
		}
		a := g.token(g.withAssertion(g.issuer.sign(merge(g.assertion(), map[string]any{"iss": iss}), nil)))
		g.refuse(a, 400, "invalid_request", 90061)
		if d, _, _ := strings.Cut(a.text("error_description"), " Trace ID"); d != "AADSTS90061: Request to External OIDC endpoint failed." {
			t.Errorf("%s: the answer tells more: %s", iss, d)
		}
	}
	// Without a credential nothing is fetched at all, whatever the token says.
	a := g.token(g.withAssertion(g.issuer.sign(merge(g.assertion(), map[string]any{"iss": "https://127.0.0.1:1/x"}), nil)))
	g.refuse(a, 401, "invalid_client", 700211)
	if reached != 0 || g.issuer.hits != 0 {
		t.Errorf("reached %d + %d times", reached, g.issuer.hits)
	}
}
