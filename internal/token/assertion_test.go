package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

// TestAttacksOnAssertions: the strict reader of foreign tokens. Signatures
// are VerifySignature's and Foreign's business.
func TestAttacksOnAssertions(t *testing.T) {
	key := sharedRSA()
	good := signRS256(t, key, "k", clusterClaims("https://issuer.test/"))
	if _, err := token.ParseAssertion(good); err != nil {
		t.Fatal(err)
	}
	head, payload, sig := split(t, good)
	claims := string(unb64(t, payload))
	with := func(edit map[string]any) string {
		return signRS256(t, key, "k", clusterClaims("https://issuer.test/", edit))
	}
	for name, raw := range map[string]string{
		"two parts":       head + "." + payload,
		"four parts":      good + "." + sig,
		"empty signature": head + "." + payload + ".",
		"padding":         good + "=",
		"line end":        good + "\n",
		"crit":            sealRS256(t, key, `{"alg":"RS256","kid":"k","crit":["x"]}`, claims),
		"b64":             sealRS256(t, key, `{"alg":"RS256","kid":"k","b64":false}`, claims),
		"repeated sub":    sealRS256(t, key, `{"alg":"RS256","kid":"k"}`, strings.Replace(claims, "{", `{"sub":"system:serviceaccount:kube-system:admin",`, 1)),
		"escaped repeat":  sealRS256(t, key, `{"alg":"RS256","kid":"k"}`, strings.Replace(claims, "{", `{"\u0073ub":"system:serviceaccount:kube-system:admin",`, 1)),
		"nested":          sealRS256(t, key, `{"alg":"RS256","kid":"k"}`, good),
		"text after":      sealRS256(t, key, `{"alg":"RS256","kid":"k"}`, claims+"x"),
		"too long":        with(map[string]any{"x": strings.Repeat("x", 20000)}),
		"no iss":          with(map[string]any{"iss": ""}),
		"iss number":      with(map[string]any{"iss": 1}),
		"no sub":          with(map[string]any{"sub": ""}),
		"sub list":        with(map[string]any{"sub": []string{"a"}}),
		"aud empty":       with(map[string]any{"aud": []string{}}),
		"aud number":      with(map[string]any{"aud": 1}),
		"aud mixed":       with(map[string]any{"aud": []any{"a", 1}}),
		"exp text":        with(map[string]any{"exp": "4102444800"}),
		"exp null":        with(map[string]any{"exp": nil}),
		"exp negative":    with(map[string]any{"exp": -1}),
		"exp huge":        with(map[string]any{"exp": 1e300}),
		"nbf text":        with(map[string]any{"nbf": "0"}),
		"iat list":        with(map[string]any{"iat": []int{1}}),
		"jti number":      with(map[string]any{"jti": 1}),
		"lone surrogate":  sealRS256(t, key, `{"alg":"RS256","kid":"k"}`, strings.Replace(claims, "cart", `\ud800`, 1)),
	} {
		a, err := token.ParseAssertion(raw)
		if err == nil || a != nil {
			t.Errorf("%s is accepted", name)
		} else if strings.Contains(err.Error(), "system:") || strings.Contains(err.Error(), sig[:20]) {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
	missing := clusterClaims("https://issuer.test/")
	delete(missing, "exp")
	if _, err := token.ParseAssertion(signRS256(t, key, "k", missing)); err == nil {
		t.Error("a token without exp is accepted")
	}
}

// TestAttacksOnClientCertificates: the algorithm must be one for the key.
func TestAttacksOnClientCertificates(t *testing.T) {
	rsaKey := sharedRSA()
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(alg jose.SignatureAlgorithm, key any) *token.Assertion {
		t.Helper()
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign([]byte(encode(t, clusterClaims("client"))))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		a, err := token.ParseAssertion(raw)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	// A right ES256 signature under the name of another algorithm.
	renamed := func(alg string) *token.Assertion {
		t.Helper()
		text := b64(`{"alg":"`+alg+`"}`) + "." + b64(encode(t, clusterClaims("client")))
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, ecKey, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		a, err := token.ParseAssertion(text + "." + base64.RawURLEncoding.EncodeToString(sig))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	weak := mustRSA(1024)
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		a    *token.Assertion
		key  any
		ok   bool
	}{
		{"RS256", sign(jose.RS256, rsaKey), &rsaKey.PublicKey, true},
		{"PS256", sign(jose.PS256, rsaKey), &rsaKey.PublicKey, true},
		{"ES256", sign(jose.ES256, ecKey), &ecKey.PublicKey, true},
		{"RS512", sign(jose.RS512, rsaKey), &rsaKey.PublicKey, false},
		{"PS384", sign(jose.PS384, rsaKey), &rsaKey.PublicKey, false},
		{"ES384", sign(jose.ES384, p384), &p384.PublicKey, false},
		{"ES256 by hand", renamed("ES256"), &ecKey.PublicKey, true},
		{"ES256 called ES384", renamed("ES384"), &ecKey.PublicKey, false},
		{"ES256 called RS256", renamed("RS256"), &ecKey.PublicKey, false},
		{"ES256 called none", renamed("none"), &ecKey.PublicKey, false},
		{"weak key", sign(jose.RS256, weak), &weak.PublicKey, false},
		{"HS256 with the public key", sign(jose.HS256, der), &rsaKey.PublicKey, false},
		{"HS256 with its secret", sign(jose.HS256, der), der, false},
		{"another's key", sign(jose.RS256, rsaKey), &mustRSA(2048).PublicKey, false},
		{"EC token, RSA key", sign(jose.ES256, ecKey), &rsaKey.PublicKey, false},
		{"RSA token, EC key", sign(jose.RS256, rsaKey), &ecKey.PublicKey, false},
		{"private key as key", sign(jose.RS256, rsaKey), rsaKey, false},
		{"no key", sign(jose.RS256, rsaKey), nil, false},
	} {
		if err := c.a.VerifySignature(c.key); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzJWT holds both readers of tokens against go-jose's: nothing that they
// accept is read differently there, nothing passes without our key, and
// nothing panics.
func FuzzJWT(f *testing.F) {
	key := sharedRSA()
	good := signRS256(f, key, "k", clusterClaims("https://issuer.test/"))
	f.Add(good)
	f.Add(sealRS256(f, key, `{"alg":"none"}`, `{"iss":"a","sub":"b","aud":"c","exp":1}`))
	f.Add(sealRS256(f, key, `{"alg":"RS256","kid":"k","x5t":"a","x5t#S256":"b","crit":[]}`, `{"exp":1.5e9}`))
	f.Add("..")
	f.Add("e30.e30.AA")
	f.Add(good + "\n")
	all := []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.PS256, jose.HS256, jose.RS512, jose.EdDSA}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := token.ParseAssertion(raw)
		if err != nil {
			return
		}
		if strings.Count(raw, ".") != 2 || strings.ContainsAny(raw, "=\r\n\t +/") {
			t.Errorf("%q is accepted", raw)
		}
		if a.Issuer == "" || a.Subject == "" || len(a.Audience) == 0 || a.Expiry.IsZero() || a.Algorithm == "" {
			t.Error("an assertion lacks what it must have")
		}
		if a.VerifySignature(&key.PublicKey) == nil && raw != good {
			// The only other way to a right signature is another seed.
			head, payload, sig := split(t, raw)
			if b64(string(unb64(t, head))) != head || b64(string(unb64(t, payload))) != payload || b64(string(unb64(t, sig))) != sig {
				t.Error("a second spelling of a signed token is accepted")
			}
		}
		jws, err := jose.ParseSignedCompact(raw, all)
		if err != nil {
			return // another algorithm, or a bad key in the header, which we ignore
		}
		if h := jws.Signatures[0].Protected; h.Algorithm != a.Algorithm || h.KeyID != a.KeyID {
			t.Errorf("header read as %q %q, by go-jose %q %q", a.Algorithm, a.KeyID, h.Algorithm, h.KeyID)
		}
		if string(jws.UnsafePayloadWithoutVerification()) != string(a.Payload) {
			t.Error("payload read differently")
		}
	})
}
