package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/token"
)

const (
	tenant   = "11111111-2222-3333-4444-555555555555"
	objectID = "aaaaaaaa-0000-0000-0000-000000000001"
	clientID = "bbbbbbbb-0000-0000-0000-000000000002"
	vault    = "https://vault.azure.net"
	issuerV1 = "https://sts.windows.net/" + tenant + "/"
)

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a store with signing keys and a verifier, all on one clock.
type rig struct {
	t        testing.TB
	clock    *clock
	now      func() time.Time
	keys     *token.Keys
	verifier *token.Verifier
	want     token.Expect
}

func newRig(t testing.TB) *rig { return newRigWith(t, "", token.Options{}) }

func newRigWith(t testing.TB, dir string, o token.Options) *rig {
	t.Helper()
	r := &rig{t: t, clock: newClock()}
	r.now = r.clock.now
	o.Now = r.now
	storetest.New(t, dir, func(s *store.Store) { r.keys = token.NewKeys(s, o) })
	if err := r.keys.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.verifier = &token.Verifier{Keys: r.keys, Now: r.now}
	r.want = token.Expect{
		Issuer:       func(iss, tid string) bool { return iss == "https://sts.windows.net/"+tid+"/" && tid == tenant },
		Audience:     func(aud string) bool { return aud == vault },
		IssuerName:   issuerV1,
		AudienceName: vault,
	}
	return r
}

// access returns the claims of a good token, after edit.
func (r *rig) access(edit func(*token.Access)) *token.Access {
	now := r.now().Unix()
	a := &token.Access{
		Audience: vault, Issuer: issuerV1, IssuedAt: now, NotBefore: now, Expiry: now + 3600,
		AppID: clientID, AppIDACR: "2", IDP: issuerV1, IDType: "app", ObjectID: objectID, Subject: objectID,
		RH: "1.AAAA", TenantID: tenant, UTI: "abcdefghijklmnop", Version: token.Version1,
		MIRID: "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id",
	}
	if edit != nil {
		edit(a)
	}
	return a
}

func (r *rig) sign(alg jose.SignatureAlgorithm, claims any) string {
	r.t.Helper()
	raw, err := r.keys.Sign(r.t.Context(), token.Tenant, alg, claims)
	if err != nil {
		r.t.Fatal(err)
	}
	return raw
}

// reason returns why the verifier refuses a token, or 0 if it does not.
func (r *rig) reason(raw string) token.Reason {
	r.t.Helper()
	a, err := r.verifier.Verify(r.t.Context(), raw, r.want)
	if err == nil {
		if a == nil {
			r.t.Fatal("neither claims nor an error")
		}
		return 0
	}
	if a != nil {
		r.t.Fatal("claims of a refused token are returned")
	}
	refusal, ok := errors.AsType[*token.VerifyError](err)
	if !ok {
		r.t.Fatalf("the refusal is not a VerifyError: %v", err)
	}
	if strings.Contains(err.Error(), raw) && len(raw) > 10 {
		r.t.Fatal("the refusal quotes the token")
	}
	return refusal.Reason
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func unb64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// split returns the three parts of a token.
func split(t testing.TB, raw string) (header, payload, signature string) {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	return parts[0], parts[1], parts[2]
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sealRS256 signs any two parts, so that tests can make tokens which no
// library makes.
func sealRS256(t testing.TB, key *rsa.PrivateKey, header, payload string) string {
	t.Helper()
	text := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func signRS256(t testing.TB, key *rsa.PrivateKey, kid string, claims map[string]any) string {
	t.Helper()
	return sealRS256(t, key, `{"alg":"RS256","kid":`+encode(t, kid)+`}`, encode(t, claims))
}

// clusterClaims are those of a service account's projected token, with edits
// over them.
func clusterClaims(issuer string, edits ...map[string]any) map[string]any {
	c := map[string]any{
		"iss": issuer, "sub": "system:serviceaccount:shop:cart", "aud": []string{"api://AzureADTokenExchange"},
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nbf": time.Now().Unix(), "jti": "0b4d2c4e-6f5b-4f0e-9d0e-0d6c1f1f0001",
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"serviceaccount": map[string]any{"name": "cart", "uid": "5b4d2c4e-6f5b-4f0e-9d0e-0d6c1f1f0002"},
			"pod":            map[string]any{"name": "cart-6d4cf56db6-abcde", "uid": "7b4d2c4e-6f5b-4f0e-9d0e-0d6c1f1f0003"},
		},
	}
	for _, e := range edits {
		maps.Copy(c, e)
	}
	return c
}

var sharedRSA = sync.OnceValue(func() *rsa.PrivateKey { return mustRSA(2048) })

func mustRSA(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}
