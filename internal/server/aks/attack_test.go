package aks

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/server/rbac"
)

// TestTakingOverAnIssuer: who pins the keys of an issuer becomes whoever
// trusts it.
func TestTakingOverAnIssuer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.registered()
	before := r.dump()
	evil := r.jwks("evil")
	const public = "https://token.actions.githubusercontent.com"

	// Of an issuer that nobody registered: not even the owner of a subscription.
	r.refused(403, "AuthorizationFailed", "owner", "PUT", clusterPath("evil"), registering(public, evil))
	// Who may write clusters and not assign roles may not register at all.
	r.refused(403, "AuthorizationFailed", "contributor", "PUT", clusterPath("evil"), registering(public, evil))
	r.refused(403, "AuthorizationFailed", "contributor", "PUT", clusterPath("evil"), fetching(public))
	// Of an issuer that is registered.
	r.refused(403, "AuthorizationFailed", "contributor", "PUT", clusterPath("shop"), registering(issuerURL, evil))
	r.refused(403, "AuthorizationFailed", "contributor", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": evil})
	r.refused(403, "AuthorizationFailed", "owner", "PUT", clusterPath("shop"), registering(public, evil))
	r.refused(409, "IssuerInUse", "operator", "PUT", clusterPath("evil"), registering(issuerURL, evil))
	r.refused(409, "IssuerInUse", "owner", "PUT", clusterPath("evil"), fetching(issuerURL))
	// By a grant that names the action and not the right to assign roles.
	r.person("pusher", homeTenant)
	r.grant("pusher", rbac.Contributor, clusterPath("shop"))
	r.refused(403, "AuthorizationFailed", "pusher", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": evil})
	// From another tenant, by whoever owns all of it.
	theirs := strings.Replace(clusterPath("evil"), homeSub, otherSub, 1)
	for _, who := range []string{"stranger", "root"} {
		r.refused(403, "AuthorizationFailed", who, "PUT", theirs, registering(public, evil))
		r.refused(409, "IssuerInUse", who, "PUT", theirs, fetching(issuerURL))
	}
	// Of issuers that are ours or Entra's.
	for _, issuer := range []string{
		"https://issuer.podkey.test/clusters/local/", "https://ISSUER.podkey.test/clusters/x/", "https://issuer.podkey.test.:443/x",
		"https://sts.windows.net/" + homeTenant + "/",
	} {
		r.refused(400, codeRegistration, "operator", "PUT", clusterPath("evil"), registering(issuer, evil))
		r.refused(400, codeRegistration, "operator", "PUT", clusterPath("evil"), fetching(issuer))
	}
	if d := cmp.Diff(before, r.dump()); d != "" {
		t.Errorf("something changed: %s", d)
	}
	// The refusal of an issuer in use does not name the cluster that has it.
	if a := r.do("stranger", "PUT", theirs, fetching(issuerURL)); strings.Contains(a.Body.String(), homeSub) || strings.Contains(a.Body.String(), "'shop'") {
		t.Errorf("tells of another tenant's cluster: %s", a.Body)
	}
	if !strings.Contains(r.log.String(), "managedClusters/pinKeys") {
		t.Error("the refusal to pin is not in the audit log")
	}
}

// TestOneIssuerAtATime: two registrations at once, of which one must lose.
func TestOneIssuerAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var wg sync.WaitGroup
	codes := make([]int, 8)
	body := registering(issuerURL, r.jwks("one"))
	for i := range codes {
		wg.Go(func() { codes[i] = r.do("operator", "PUT", clusterPath("c"+string(rune('a'+i))), body).Code })
	}
	wg.Wait()
	slices.Sort(codes)
	if codes[0] != 201 || slices.ContainsFunc(codes[1:], func(c int) bool { return c != 409 }) {
		t.Errorf("statuses: %v", codes)
	}
	if n := strings.Count(r.dump(), issuerURL); n != 1 {
		t.Errorf("%d clusters have the issuer", n)
	}
}

func TestBadRegistrations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := func() map[string]any { return registering(issuerURL, r.jwks("one")) }
	set := func(name string, v any) map[string]any {
		b := good()
		props(b)["podkey"].(map[string]any)[name] = v
		return b
	}
	jwk := func(name string, v any) map[string]any {
		k := publicJWK("one", &r.privateKey("one").PublicKey)
		k[name] = v
		return map[string]any{"keys": []any{k}}
	}
	many := []any{}
	for range 1000 {
		many = append(many, publicJWK("one", &r.privateKey("one").PublicKey))
	}
	for name, body := range map[string]any{
		"no issuer":              set("issuer", ""),
		"issuer http":            set("issuer", "http://oidc.shop.example/"),
		"issuer no URL":          set("issuer", "shop"),
		"issuer query":           set("issuer", issuerURL+"?a"),
		"issuer user":            set("issuer", "https://a:b@oidc.shop.example/"),
		"issuer blank":           set("issuer", issuerURL+" "),
		"issuer newline":         set("issuer", issuerURL+"\n"),
		"issuer long":            set("issuer", issuerURL+strings.Repeat("a", 600)),
		"source":                 set("keySource", "Trusted"),
		"fetched with keys":      set("keySource", "Fetched"),
		"pinned without keys":    set("jwks", nil),
		"unknown member":         set("trusted", true),
		"issuer type":            set("issuer", 1),
		"not a set":              set("jwks", "hunter2"),
		"empty set":              set("jwks", map[string]any{"keys": []any{}}),
		"unknown in set":         set("jwks", map[string]any{"keys": []any{}, "more": 1}),
		"1000 keys":              set("jwks", map[string]any{"keys": many}),
		"two of a name":          set("jwks", map[string]any{"keys": many[:2]}),
		"private":                set("jwks", jwk("d", secret)),
		"private by prime":       set("jwks", jwk("p", secret)),
		"symmetric":              set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "oct", "kid": "a", "k": secret}}}),
		"EC":                     set("jwks", map[string]any{"keys": []any{map[string]any{"kty": "EC", "kid": "a", "n": "AQAB"}}}),
		"for encryption":         set("jwks", jwk("use", "enc")),
		"for HS256":              set("jwks", jwk("alg", "HS256")),
		"no name":                set("jwks", jwk("kid", "")),
		"name with control":      set("jwks", jwk("kid", "a\x1b")),
		"short":                  set("jwks", jwk("n", "AQAB")),
		"even":                   set("jwks", jwk("n", strings.Repeat("gICA", 86))),
		"exponent one":           set("jwks", jwk("e", "AQ")),
		"exponent even":          set("jwks", jwk("e", "BA")),
		"exponent huge":          set("jwks", jwk("e", strings.Repeat("A", 100)+"AQABAQABAQAB")),
		"not base64":             set("jwks", jwk("n", "!")),
		"key's unknown member":   set("jwks", jwk("x5u", "https://evil.example/")),
		"number as name":         set("jwks", jwk("kid", 7)),
		"kubeconfig runs":        set("kubeconfig", strings.Replace(config, "token: "+secret, "exec: {command: "+secret+"}", 1)),
		"kubeconfig files":       set("kubeconfig", strings.Replace(config, "token: "+secret, "tokenFile: /etc/"+secret, 1)),
		"kubeconfig no YAML":     set("kubeconfig", "{"+secret),
		"kubeconfig not checked": set("kubeconfig", strings.Replace(config, "cluster: {", "cluster: {insecure-skip-tls-verify: true, ", 1)),
		"kubeconfig huge":        set("kubeconfig", config+strings.Repeat("#", 300<<10)),
		"kubeconfig no text":     set("kubeconfig", map[string]any{"token": secret}),
	} {
		a := r.do("operator", "PUT", clusterPath("shop"), body)
		if a.Code != 400 || a.code() != codeRegistration {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
		if strings.Contains(a.Body.String(), secret) {
			t.Errorf("%s: the answer has the secret", name)
		}
	}
	for name, body := range map[string]string{
		"repeated in set": `{"location":"westeurope","properties":{"podkey":{"issuer":"https://a.example","keySource":"Pinned","jwks":{"keys":[],"keys":[]}}}}`,
		"repeated in key": `{"location":"westeurope","properties":{"podkey":{"issuer":"https://a.example","keySource":"Pinned","jwks":{"keys":[{"kty":"oct","kty":"RSA"}]}}}}`,
		"no JSON":         `{`, "empty": ``, "list": `[]`, "properties": `{"properties":[]}`, "deep": strings.Repeat(`{"properties":`, 20000),
		"huge": `{"location":"` + strings.Repeat("a", 2<<20) + `"}`,
	} {
		if a := r.do("operator", "PUT", clusterPath("shop"), body); a.Code != 400 && a.Code != 413 || a.code() == "" {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
	for _, body := range []string{`{}`, `{"jwks":null}`, `{"jwks":[]}`, `[]`, `{"jwks":{"keys":[]}}`} {
		r.registeredOnce()
		if a := r.do("operator", "POST", clusterPath("ok")+"/pushKeys", body); a.Code != 400 || a.code() == "" {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
	if n := strings.Count(r.dump(), "\n"); n != 2 { // the cluster "ok" and its kubeconfig
		t.Errorf("a bad registration was stored: %s", r.dump())
	}
	if strings.Contains(r.log.String(), secret) {
		t.Error("the secret is in a log")
	}
	for _, k := range []string{"1", "1.33.1;rm", "v1", "x", strings.Repeat("1", 65)} {
		b := good()
		props(b)["kubernetesVersion"] = k
		if a := r.do("operator", "PUT", clusterPath("shop"), b); (a.Code != 400) == (k != "1") {
			t.Errorf("version %s: %d %s", k, a.Code, a.Body)
		}
	}
}

func (r *rig) registeredOnce() {
	r.t.Helper()
	if r.do("operator", "GET", clusterPath("ok"), nil).Code == 404 {
		r.must(201, "operator", "PUT", clusterPath("ok"), registering("https://ok.example/", r.jwks("one")))
	}
}

func TestAProgramIsTakenWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := registering(issuerURL, r.jwks("one"))
	p := props(b)["podkey"].(map[string]any)
	p["kubeconfig"] = strings.Replace(config, "token: "+secret, "exec: {apiVersion: client.authentication.k8s.io/v1, command: kubelogin}", 1)
	p["allowExec"] = true
	// An owner of the subscription cannot plant a program on the machines of
	// those who are given the credential, with fetched keys either.
	r.refused(403, "AuthorizationFailed", "owner", "PUT", clusterPath("shop"), b)
	f := fetching(issuerURL)
	fp := props(f)["podkey"].(map[string]any)
	fp["kubeconfig"], fp["allowExec"] = p["kubeconfig"], true
	r.refused(403, "AuthorizationFailed", "owner", "PUT", clusterPath("shop"), f)
	delete(fp, "kubeconfig")
	r.must(201, "owner", "PUT", clusterPath("other"), fetching("https://other.example/"))
	r.must(201, "operator", "PUT", clusterPath("shop"), b)
}

func TestHowManyKeysCanBePinned(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	set := func(n int) []byte {
		keys := []any{}
		for i := range n {
			keys = append(keys, publicJWK(strconv.Itoa(i), &r.privateKey("one").PublicKey))
		}
		b, err := json.Marshal(map[string]any{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if keys, err := parseKeySet(set(maxKeys)); err != nil || len(keys) != maxKeys {
		t.Errorf("%d keys: %v", maxKeys, err)
	}
	if _, err := parseKeySet(set(maxKeys + 1)); err == nil || !strings.Contains(err.Error(), "at most 16") {
		t.Errorf("%d keys: %v", maxKeys+1, err)
	}
}

func TestWhoDisclosesAPrivateKeyIsTold(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		_, err := parseKeySet([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","` + name + `":"hunter2"}]}`))
		if err == nil || !strings.Contains(err.Error(), "private part") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzKeySet: what is accepted is a set of distinct strong keys, and the same
// after it was stored.
func FuzzKeySet(f *testing.F) {
	k, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(map[string]any{"keys": []any{publicJWK("one", &k.PublicKey), publicJWK("two", &k.PublicKey)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeySet(data)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("%d keys", len(keys))
		}
		set, err := publicSet(keys)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for i, k := range keys {
			pub, err := k.public()
			if err != nil || pub.N.BitLen() < minRSABits || pub.N.Bit(0) == 0 || pub.E < 3 || new(big.Int).SetInt64(int64(pub.E)).Bit(0) == 0 || seen[k.ID] {
				t.Errorf("key %d: %v", i, errors.Join(err))
			}
			seen[k.ID] = true
			if len(set.Key(k.ID)) != 1 {
				t.Errorf("key %d is not in the set once", i)
			}
		}
	})
}
