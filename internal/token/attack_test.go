package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

// TestAttacksOnAccessTokens presents forged and bent access tokens. All
// variants are made from one good token, which is accepted first and last, so
// that no refusal is by accident.
func TestAttacksOnAccessTokens(t *testing.T) {
	r := newRig(t)
	set, err := r.keys.JWKS(t.Context(), token.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	public, err := r.keys.Public(t.Context(), token.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	rsaKid, ecKid := set.Keys[0].Kid, set.Keys[1].Kid
	goodEC, goodRSA := r.sign(jose.ES256, r.access(nil)), r.sign(jose.RS256, r.access(nil))
	claims := encode(t, r.access(nil))
	reaches := func(raw string) { // the variants' base is good
		t.Helper()
		if got := r.reason(raw); got != 0 {
			t.Fatalf("a good token is refused: %d", got)
		}
	}
	reaches(goodEC)
	reaches(goodRSA)

	type variants map[string]string
	refused := func(name string, want token.Reason, vs variants) {
		t.Run(name, func(t *testing.T) {
			for variant, raw := range vs {
				if raw == goodEC || raw == goodRSA {
					t.Fatalf("%s is the good token", variant)
				}
				if got := r.reason(raw); got != want {
					t.Errorf("%s: reason %d, want %d", variant, got, want)
				}
			}
		})
	}
	hp := func(header, payload string) string { return b64(header) + "." + b64(payload) }
	_, ecPayload, ecSig := split(t, goodEC)
	ecHead, _, _ := split(t, goodEC)
	rsaHead, rsaPayload, rsaSig := split(t, goodRSA)

	none := variants{}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "noNe"} {
		head := `{"typ":"JWT","alg":"` + alg + `","kid":"` + ecKid + `"}`
		none[alg+", no signature"] = hp(head, claims) + "."
		none[alg+", two parts"] = hp(head, claims)
	}
	refused("alg none without signature", token.Malformed, none)
	none = variants{}
	for _, alg := range []string{"none", "None", "NONE", "nOnE"} {
		none[alg] = hp(`{"typ":"JWT","alg":"`+alg+`","kid":"`+ecKid+`"}`, claims) + "." + ecSig
		none[alg+", one byte"] = hp(`{"typ":"JWT","alg":"`+alg+`","kid":"`+rsaKid+`"}`, claims) + ".AA"
	}
	refused("alg none with a signature", token.UnknownKey, none)
	refused("no alg", token.Malformed, variants{
		"absent": hp(`{"typ":"JWT","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"empty":  hp(`{"alg":"","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"null":   hp(`{"alg":null,"kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"list":   hp(`{"alg":["ES256"],"kid":"`+ecKid+`"}`, claims) + "." + ecSig,
	})

	hs := variants{}
	for i, k := range public.Keys {
		der, err := x509.MarshalPKIXPublicKey(k.Key)
		if err != nil {
			t.Fatal(err)
		}
		secrets := map[string][]byte{
			"DER":          der,
			"PEM":          pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			"certificate":  []byte(set.Keys[i].X5c[0]),
			"JWK":          []byte(encode(t, set.Keys[i])),
			"kid":          []byte(k.KeyID),
			"modulus":      unb64(t, set.Keys[i].N+set.Keys[i].X),
			"modulus text": []byte(set.Keys[i].N + set.Keys[i].X),
			"nothing":      {},
		}
		for name, secret := range secrets {
			for _, alg := range []string{"HS256", "hs256"} {
				text := hp(`{"typ":"JWT","alg":"`+alg+`","kid":"`+k.KeyID+`"}`, claims)
				mac := hmac.New(sha256.New, secret)
				mac.Write([]byte(text))
				hs[alg+" "+set.Keys[i].Kty+" "+name] = text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
			}
		}
	}
	refused("HS256 with the public key as secret", token.UnknownKey, hs)

	refused("algorithm of another key", token.UnknownKey, variants{
		"ES256 with the RSA kid": hp(`{"typ":"JWT","alg":"ES256","kid":"`+rsaKid+`"}`, claims) + "." + ecSig,
		"RS256 with the EC kid":  hp(`{"typ":"JWT","alg":"RS256","kid":"`+ecKid+`"}`, claims) + "." + rsaSig,
		"PS256 with the RSA kid": hp(`{"typ":"JWT","alg":"PS256","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
		"RS384":                  hp(`{"typ":"JWT","alg":"RS384","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
		"RS1":                    hp(`{"typ":"JWT","alg":"RS1","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
		"rs256":                  hp(`{"typ":"JWT","alg":"rs256","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
		"RS256 with a blank":     hp(`{"typ":"JWT","alg":"RS256 ","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
		"ES256K":                 hp(`{"typ":"JWT","alg":"ES256K","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"EdDSA":                  hp(`{"typ":"JWT","alg":"EdDSA","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"RSA-OAEP":               hp(`{"typ":"JWT","alg":"RSA-OAEP","kid":"`+rsaKid+`"}`, claims) + "." + rsaSig,
	})

	kids := variants{}
	for name, kid := range map[string]string{
		"absolute path": "/etc/passwd", "relative path": "../../../../dev/null", "encoded path": "..%2f..%2fdev%2fnull",
		"null byte": ecKid + "\x00", "null byte first": "\x00" + ecKid, "SQL": "' OR '1'='1", "SQL union": "x' UNION SELECT 'key';--",
		"very long": strings.Repeat("k", 9000), "empty": "", "blank after": ecKid + " ", "line end": ecKid + "\n", "table key": "tenant/ES256/" + ecKid,
		"other case": strings.ToLower(ecKid) + strings.ToUpper(ecKid), "URL": "https://evil.test/keys/1", "command": "$(id)", "prefix": ecKid[:len(ecKid)-1],
		"Unicode look-alike": "\u0430" + ecKid[1:],
	} {
		kids[name] = hp(`{"typ":"JWT","alg":"ES256","kid":`+encode(t, kid)+`}`, claims) + "." + ecSig
	}
	kids["absent"] = hp(`{"typ":"JWT","alg":"ES256"}`, claims) + "." + ecSig
	refused("kid tricks", token.UnknownKey, kids)
	refused("kid of another type", token.Malformed, variants{
		"number": hp(`{"alg":"ES256","kid":1}`, claims) + "." + ecSig,
		"list":   hp(`{"alg":"ES256","kid":["`+ecKid+`"]}`, claims) + "." + ecSig,
		"null":   hp(`{"alg":"ES256","kid":null}`, claims) + "." + ecSig,
		"object": hp(`{"alg":"ES256","kid":{}}`, claims) + "." + ecSig,
	})

	// The attacker's own key, offered in every way that a header has. Nothing
	// may be fetched and nothing but our own key may count.
	var fetched atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer evil.Close()
	attacker := sharedRSA()
	jwk := encode(t, jose.JSONWebKey{Key: &attacker.PublicKey, KeyID: rsaKid, Algorithm: "RS256", Use: "sig"})
	der := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&attacker.PublicKey))
	offer := func(member string) string {
		return sealRS256(t, attacker, `{"typ":"JWT","alg":"RS256","kid":"`+rsaKid+`",`+member+`}`, claims)
	}
	refused("keys offered in the header are not used", token.BadSignature, variants{
		"jku": offer(`"jku":"` + evil.URL + `/jwks.json"`), "x5u": offer(`"x5u":"` + evil.URL + `/cert.pem"`),
		"jwk": offer(`"jwk":` + jwk), "x5c": offer(`"x5c":["` + der + `"]`), "x5t": offer(`"x5t":"` + rsaKid + `"`),
		"all":     offer(`"jku":"` + evil.URL + `","x5u":"` + evil.URL + `","jwk":` + jwk + `,"x5c":["` + der + `"]`),
		"nothing": sealRS256(t, attacker, `{"typ":"JWT","alg":"RS256","kid":"`+rsaKid+`"}`, claims),
	})
	if n := fetched.Load(); n != 0 {
		t.Errorf("%d requests went to an address in a header", n)
	}
	refused("extensions that must be understood", token.Malformed, variants{
		"crit":       hp(`{"alg":"ES256","kid":"`+ecKid+`","crit":["exp"],"exp":1}`, claims) + "." + ecSig,
		"empty crit": hp(`{"alg":"ES256","kid":"`+ecKid+`","crit":[]}`, claims) + "." + ecSig,
		"b64":        hp(`{"alg":"ES256","kid":"`+ecKid+`","b64":false,"crit":["b64"]}`, claims) + "." + ecSig,
		"lone b64":   hp(`{"alg":"ES256","kid":"`+ecKid+`","b64":false}`, claims) + "." + ecSig,
	})

	changed := encode(t, r.access(func(a *token.Access) { a.ObjectID = "admin" }))
	flip := func(part string, i int) string {
		b := unb64(t, part)
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	refused("changed after signing", token.BadSignature, variants{
		"claims":             ecHead + "." + b64(changed) + "." + ecSig,
		"one bit of claims":  rsaHead + "." + strings.Replace(rsaPayload, rsaPayload[80:84], flip(rsaPayload[80:84], 0), 1) + "." + rsaSig,
		"header blank":       b64(string(unb64(t, ecHead))+" ") + "." + ecPayload + "." + ecSig,
		"first bit":          ecHead + "." + ecPayload + "." + flip(ecSig, 0),
		"last bit":           ecHead + "." + ecPayload + "." + flip(ecSig, 63),
		"RSA signature":      rsaHead + "." + rsaPayload + "." + flip(rsaSig, 200),
		"other's signature":  ecHead + "." + ecPayload + "." + secondPart(t, r.sign(jose.ES256, r.access(func(a *token.Access) { a.UTI = "x" })), 2),
		"RSA on EC":          ecHead + "." + ecPayload + "." + rsaSig,
		"EC on RSA":          rsaHead + "." + rsaPayload + "." + ecSig,
		"signature of zeros": ecHead + "." + ecPayload + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
	})

	sig := unb64(t, ecSig)
	rr, ss := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	other := make([]byte, 64)
	copy(other, sig[:32])
	new(big.Int).Sub(elliptic.P256().Params().N, ss).FillBytes(other[32:])
	if e, ok := public.Keys[1].Key.(*ecdsa.PublicKey); !ok {
		t.Fatal("not an EC key")
	} else if sum := sha256.Sum256([]byte(ecHead + "." + ecPayload)); !ecdsa.Verify(e, sum[:], rr, new(big.Int).SetBytes(other[32:])) {
		t.Fatal("the twin of the signature is not a right one: the attack is not one")
	}
	asDER, err := asn1.Marshal(struct{ R, S *big.Int }{rr, ss})
	if err != nil {
		t.Fatal(err)
	}
	bytes64 := func(b []byte) string { return ecHead + "." + ecPayload + "." + base64.RawURLEncoding.EncodeToString(b) }
	refused("signature malleability", token.BadSignature, variants{
		"the twin, n-s":      bytes64(other),
		"DER":                bytes64(asDER),
		"zero byte before":   bytes64(append([]byte{0}, sig...)),
		"zero byte after":    bytes64(append(sig[:64:64], 0)),
		"padded halves":      bytes64(append(append(make([]byte, 1), sig[:32]...), append([]byte{0}, sig[32:]...)...)),
		"twice":              bytes64(append(sig[:64:64], sig...)),
		"s plus n":           bytes64(append(sig[:32:32], new(big.Int).Add(ss, elliptic.P256().Params().N).Bytes()...)),
		"RSA with zero byte": rsaHead + "." + rsaPayload + "." + base64.RawURLEncoding.EncodeToString(append([]byte{0}, unb64(t, rsaSig)...)),
	})

	// 64 bytes are 86 characters, of which the last has four bits to spare;
	// 256 bytes are 342, likewise.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	spare := func(s string) string {
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])+1])
	}
	refused("another spelling of the same bytes", token.Malformed, variants{
		"spare bits of the signature":     ecHead + "." + ecPayload + "." + spare(ecSig),
		"spare bits of the RSA signature": rsaHead + "." + rsaPayload + "." + spare(rsaSig),
		"padding":                         goodEC + "==",
		"padding inside":                  ecHead + "=." + ecPayload + "." + ecSig,
		"standard alphabet":               ecHead + "." + ecPayload + "." + strings.NewReplacer("-", "+", "_", "/").Replace(withBoth(ecSig)),
		"line end after":                  goodEC + "\n",
		"line end inside":                 ecHead + "." + ecPayload + "." + ecSig[:40] + "\r\n" + ecSig[40:],
		"line end in the claims":          ecHead + "." + ecPayload[:40] + "\n" + ecPayload[40:] + "." + ecSig,
		"blank before":                    " " + goodEC,
		"tab inside":                      ecHead + "." + ecPayload + ".\t" + ecSig,
		"null byte after":                 goodEC + "\x00",
		"percent-encoded":                 strings.ReplaceAll(goodEC, ".", "%2E"),
	})
	refused("trailing and missing parts", token.Malformed, variants{
		"a part more":    goodEC + ".AAAA",
		"a dot more":     goodEC + ".",
		"a dot before":   "." + goodEC,
		"two dots":       ecHead + ".." + ecPayload + "." + ecSig,
		"no signature":   ecHead + "." + ecPayload,
		"empty":          "",
		"a dot":          ".",
		"dots":           "..",
		"no header":      "." + ecPayload + "." + ecSig,
		"no claims":      ecHead + ".." + ecSig,
		"five parts":     ecHead + "." + ecPayload + "." + ecSig + "." + ecSig + "." + ecSig,
		"JSON form":      `{"protected":"` + ecHead + `","payload":"` + ecPayload + `","signature":"` + ecSig + `"}`,
		"with scheme":    "Bearer " + goodEC,
		"too long":       ecHead + "." + strings.Repeat("A", 20000) + "." + ecSig,
		"a million dots": strings.Repeat(".", 1<<20),
	})
	refused("header that is not a plain object", token.Malformed, variants{
		"list":            hp(`["ES256"]`, claims) + "." + ecSig,
		"text":            hp(`"ES256"`, claims) + "." + ecSig,
		"not JSON":        hp(`alg=ES256`, claims) + "." + ecSig,
		"text after":      hp(`{"alg":"ES256","kid":"`+ecKid+`"}{}`, claims) + "." + ecSig,
		"repeated alg":    hp(`{"alg":"none","alg":"ES256","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"repeated kid":    hp(`{"alg":"ES256","kid":"`+ecKid+`","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"escaped repeat":  hp(`{"alg":"ES256","\u0061lg":"none","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
		"invalid UTF-8":   hp("{\"alg\":\"ES256\",\"kid\":\"\xff\"}", claims) + "." + ecSig,
		"nested too deep": hp(`{"alg":"ES256","a":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`, claims) + "." + ecSig,
		"byte order mark": hp("\ufeff"+`{"alg":"ES256","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
	})
	refused("header names are case-sensitive", token.Malformed, variants{
		"ALG": hp(`{"ALG":"ES256","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
	})
	refused("nested token", token.UnknownKey, variants{
		"token as claims": sealRS256(t, attacker, `{"typ":"JWT","cty":"JWT","alg":"RS256","kid":"nested"}`, goodRSA),
		"encrypted form":  hp(`{"alg":"dir","enc":"A256GCM","kid":"`+ecKid+`"}`, claims) + "." + ecSig,
	})

	// Claims that we signed ourselves, but that a reader could read twice.
	refused("ambiguous claims", token.Malformed, variants{
		"repeated aud":     r.sign(jose.ES256, rawClaims(strings.Replace(claims, `{`, `{"aud":"https://vault.azure.net",`, 1))),
		"escaped repeat":   r.sign(jose.ES256, rawClaims(strings.Replace(claims, `{`, `{"\u0061ud":"x",`, 1))),
		"nested repeat":    r.sign(jose.ES256, rawClaims(strings.Replace(claims, `{`, `{"x":{"a":1,"a":2},`, 1))),
		"only other case":  r.sign(jose.ES256, rawClaims(strings.Replace(claims, `"exp"`, `"EXP"`, 1))),
		"token as claims":  r.sign(jose.RS256, map[string]string{"token": goodRSA}),
		"id token's shape": r.sign(jose.RS256, map[string]any{"iss": issuerV1, "aud": vault, "exp": r.now().Add(time.Hour).Unix(), "sub": "s", "tid": tenant, "oid": objectID, "ver": "2.0"}),
	})
	refused("wrong audience", token.BadAudience, variants{
		"management":    r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = "https://management.azure.com" })),
		"closing slash": r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = vault + "/" })),
		"other case":    r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = "https://VAULT.azure.net" })),
		"suffix":        r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = vault + ".evil.test" })),
		"exchange":      r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = "api://AzureADTokenExchange" })),
	})
	refused("wrong issuer or tenant", token.BadIssuer, variants{
		"other tenant": r.sign(jose.ES256, r.access(func(a *token.Access) {
			a.TenantID, a.Issuer = "99999999-2222-3333-4444-555555555555", "https://sts.windows.net/99999999-2222-3333-4444-555555555555/"
		})),
		"tid of another":    r.sign(jose.ES256, r.access(func(a *token.Access) { a.TenantID = "99999999-2222-3333-4444-555555555555" })),
		"iss of another":    r.sign(jose.ES256, r.access(func(a *token.Access) { a.Issuer = "https://evil.test/" })),
		"iss without slash": r.sign(jose.ES256, r.access(func(a *token.Access) { a.Issuer = strings.TrimSuffix(issuerV1, "/") })),
	})
	refused("expired", token.Expired, variants{
		"long ago":    r.sign(jose.ES256, r.access(func(a *token.Access) { a.IssuedAt, a.NotBefore, a.Expiry = 1, 1, 2 })),
		"by a second": r.sign(jose.ES256, r.access(func(a *token.Access) { a.Expiry = r.now().Add(-5 * time.Minute).Unix() })),
	})
	refused("not yet valid", token.NotYet, variants{
		"nbf": r.sign(jose.ES256, r.access(func(a *token.Access) { a.NotBefore = r.now().Add(6 * time.Minute).Unix() })),
		"iat": r.sign(jose.ES256, r.access(func(a *token.Access) { a.IssuedAt = r.now().Add(6 * time.Minute).Unix() })),
	})

	// A service account's token sent straight to a resource: signed by a key of
	// ours, but of another purpose.
	if err := r.keys.Ensure(t.Context(), token.Cluster("local")); err != nil {
		t.Fatal(err)
	}
	cluster, err := r.keys.Sign(t.Context(), token.Cluster("local"), jose.RS256, r.access(nil))
	if err != nil {
		t.Fatal(err)
	}
	refused("service-account token sent to a resource", token.UnknownKey, variants{"cluster key": cluster})

	reaches(goodEC)
	reaches(goodRSA)
}

// rawClaims are claims that encode as they are.
type rawClaims string

func (c rawClaims) MarshalJSON() ([]byte, error) { return []byte(c), nil }

func secondPart(t *testing.T, raw string, i int) string {
	t.Helper()
	return strings.Split(raw, ".")[i]
}

// withBoth makes sure that text has a character in which the two base64
// alphabets differ.
func withBoth(s string) string { return "-_" + s[2:] }

// TestAForgedTokenDoesNotEnterTheMemo presents a forgery that shares the
// signature, then the signed part, of a remembered token.
func TestAForgedTokenDoesNotEnterTheMemo(t *testing.T) {
	r := newRig(t)
	good := r.sign(jose.ES256, r.access(nil))
	head, _, sig := split(t, good)
	forged := head + "." + b64(encode(t, r.access(func(a *token.Access) { a.ObjectID = "admin" }))) + "." + sig
	for range 3 {
		if got := r.reason(forged); got != token.BadSignature {
			t.Fatalf("forged: reason %d", got)
		}
		if got := r.reason(good); got != 0 {
			t.Fatalf("good: reason %d", got)
		}
	}
}
