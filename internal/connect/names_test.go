package connect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

func TestNamesOfAzwi(t *testing.T) {
	t.Parallel()
	const blob = "https://test.blob.core.windows.net/oidc-test/"
	for issuer, sum := range map[string]string{
		"":                           "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
		blob:                         "foWt5lYFJx_-XwBetmnSltvWY5J_nenUV-2c3Lqes3o=",
		"service-account-issuer-url": "t4BxHnnPeJsOfTLIBFbdKeRHdVMaIRdxwkxwF13SvKw=",
	} {
		want(t, "hash of "+issuer, IssuerHash(issuer), sum)
		want(t, "application", ApplicationName("ns", "sa", issuer), "ns-sa-"+sum)
	}
	want(t, "credential", FederatedName("oidc", "pod-identity-sa", blob), "5Frx_q5PpeP09cXWfkbDVwCOg5IVRmmKE3BUKT4hP4I=")
	want(t, "empty credential", FederatedName("", "", ""), "2BVrrgxCQ9N0L8Tpd02KzqvgQQJJ1yDIVfmK_Ij_hGw=")
}

// A credential's name obeys Azure's rules, whatever the names are, and differs
// when issuer or subject does.
func TestCredentialNames(t *testing.T) {
	t.Parallel()
	rule := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$`)
	rapid.Check(t, func(t *rapid.T) {
		issuer, subject := rapid.String().Draw(t, "issuer"), rapid.String().Draw(t, "subject")
		name := CredentialName(issuer, "system:serviceaccount:"+subject)
		if !rule.MatchString(name) {
			t.Fatalf("%q", name)
		}
		if other := CredentialName(issuer+"/", "system:serviceaccount:"+subject); other == name {
			t.Fatalf("%q for both", name)
		}
	})
	if name := CredentialName("i", Subject(strings.Repeat("n", 63), strings.Repeat("a", 253))); !rule.MatchString(name) {
		t.Errorf("%d letters: %s", len(name), name)
	}
	want(t, "name", CredentialName("https://oidc.example/", "system:serviceaccount:shop:web.front"), "podkey-shop-web-front-ea7e7381d7ef150b")
}

// A quoted word is what the shell reads, whatever is in it.
func TestQuote(t *testing.T) {
	t.Parallel()
	check := func(t rapid.TB, s string) {
		out, err := exec.Command("sh", "-c", "printf %s "+words("--", s)).Output()
		if err != nil || strings.TrimPrefix(string(out), "--") != s {
			t.Fatalf("%q becomes %q (%v)", s, out, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(t, strings.ReplaceAll(rapid.String().Draw(t, "s"), "\x00", "")) })
	for _, s := range []string{"", "a b", "it's", "$HOME", "`id`", `a\b`, "-n", "~", "a\nb", "!x", "a=b", "*"} {
		check(t, s)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	names := func(p Permissions) (out, more string) {
		roles, m := RolesFor(p)
		for _, r := range roles {
			out += "+" + strings.TrimPrefix(r.Name, "Key Vault ")
		}
		return out, m.String()
	}
	for _, tt := range []struct {
		want        Permissions
		roles, more string
	}{
		{Permissions{Secrets: []string{"get"}}, "+Secrets User", "secrets:list"},
		{Permissions{Secrets: []string{"get", "list"}}, "+Secrets User", ""},
		{Permissions{Secrets: []string{"list"}}, "+Reader", "keys:get,list;certificates:get,list"},
		{Permissions{Secrets: []string{"get", "set"}}, "+Secrets Officer", "secrets:list,delete,backup,restore,recover,purge"},
		{Permissions{Keys: []string{"wrapKey", "unwrapKey"}}, "+Crypto Service Encryption User", "keys:get,list"},
		{Permissions{Keys: []string{"sign"}}, "+Crypto User", "keys:get,list,update,backup,encrypt,decrypt,wrapKey,unwrapKey,verify"},
		{Permissions{Secrets: []string{"get"}, Keys: []string{"get"}, Certificates: []string{"get"}}, "+Secrets User+Reader", "secrets:list;keys:list;certificates:list"},
		{Permissions{Certificates: []string{"import"}}, "+Certificates Officer", "certificates:get,list,create,update,delete,backup,restore,recover,purge,managecontacts,manageissuers,getissuers,listissuers,setissuers,deleteissuers"},
	} {
		roles, more := names(tt.want)
		if roles != tt.roles || more != tt.more {
			t.Errorf("%s: %s and more %s", tt.want, roles, more)
		}
	}
	// A role above the vault holds there; one of a single secret does not.
	const vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
	given, _ := grantedBy([]Assignment{{Role: secretsUser.ID, Scope: "/subscriptions/S"}, {Role: cryptoUser.ID, Scope: vault + "/keys/k"}, {Role: certOwner.ID, Scope: vault + "2"}}, vault)
	want(t, "given", given.String(), "secrets:get,list")
}

func TestPermissionsAsText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p Permissions
		for i, list := range p.kinds() {
			*list = ordered(rapid.SliceOf(rapid.SampledFrom(kindKnown[i])).Draw(t, kindNames[i]), kindKnown[i])
		}
		if back := parsePermissions(p.String()); back.String() != p.String() {
			t.Fatalf("%s becomes %s", p, back)
		}
	})
	if _, err := (&Permissions{Secrets: []string{"read"}}).Normal(); err == nil || !strings.Contains(err.Error(), `"read" is not a permission on secrets: use get, list`) {
		t.Errorf("%v", err)
	}
}

// vectorKey is the public key of the vector whose key id is known.
const vectorKey = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1QJE2YmLbvMLP6FtzcfP
zGbSDbHEEtA0mH6kwgrOrlKs83zj2vr6Y5k/ZcGdIbsdm5vDj2IxtSkE+pSDtgFM
2iq0sJ7xuE6RYmlrtBm+H2WHvXrP9RrG1EfO7iWs6Czj4A/Ddxg3kNUiQCtQEJww
H2pfrUkh8STQhST/T86pq5AIFCuQiQSrkfC80eD9bUFypV3CLB2M9Fa1hbvOWbzS
F93/I0toUK2+oPgVW6m2EwMyy8Fh/3KRixrAJO8g+D4d537C1fa1vJJRlMRFtLMA
/bo6k1fAtNsVQuQoML5CmRrvNT7ZpXRLaQy64OSFrVLD3Pb7wct7b4g2xQECixQo
dwIDAQAB
-----END PUBLIC KEY-----
`

func TestJWKS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		ok(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	inPEM := func(kind string, der []byte, err error) string {
		ok(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	got, err := JWKS([]string{write("vector.pem", vectorKey)})
	ok(t, err)
	if !strings.HasPrefix(string(got), "{\n  \"keys\": [\n    {\n      \"use\": \"sig\",\n      \"kty\": \"RSA\",\n      \"kid\": \"2A3FPpix2keOV1SGPQiM0_wVemz4XOIgQyJJnpu5sPE\",\n      \"alg\": \"RS256\",\n      \"n\": \"1QJE2YmLbv") || strings.HasSuffix(string(got), "\n") {
		t.Errorf("%s", got)
	}

	// Private keys give their public part, and it is the right one.
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(t, err)
	files := []string{write("rsa.pem", inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil))}
	algs := []string{"RS256"}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		ok(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(k)
		files = append(files, write(alg, inPEM("PRIVATE KEY", der, err)))
		der, err = x509.MarshalECPrivateKey(k)
		files = append(files, write(alg+"-sec1", inPEM("EC PRIVATE KEY", der, err)))
		algs = append(algs, alg, alg)
	}
	got, err = JWKS(files)
	ok(t, err)
	var set jose.JSONWebKeySet
	ok(t, json.Unmarshal(got, &set))
	for i, k := range set.Keys {
		if !k.Valid() || !k.IsPublic() || k.Algorithm != algs[i] || k.Use != "sig" {
			t.Errorf("%s: %+v", files[i], k)
		}
		kid, err := KeyID(k.Key)
		ok(t, err)
		want(t, "kid", k.KeyID, kid)
	}
	if pub := set.Keys[0].Key.(*rsa.PublicKey); !pub.Equal(&rsaKey.PublicKey) {
		t.Error("another RSA key")
	}

	for text, files := range map[string][]string{
		"no public keys provided":        nil,
		"failed to read public key file": {filepath.Join(dir, "absent")},
		"no key in PEM form":             {write("empty", "secret text")},
		"a key in it is damaged":         {write("damaged", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")},
	} {
		if _, err := JWKS(files); err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "secret text") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSkips(t *testing.T) {
	t.Parallel()
	_, err := Skips([]string{"vault", "nope"}, []string{"vault", "issuer"})
	want(t, "error", err.Error(), "failed to compute skip phases: phase 'nope' not found. Valid phases are: [vault issuer]")
}
