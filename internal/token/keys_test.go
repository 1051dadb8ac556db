package token_test

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
	"github.com/podkey/podkey/internal/token"
)

// kids returns the ids of the published keys of an algorithm.
func (r *rig) kids(p token.Purpose, alg string) []string {
	r.t.Helper()
	set, err := r.keys.JWKS(r.t.Context(), p)
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		if k.Alg == alg {
			ids = append(ids, k.Kid)
		}
	}
	return ids
}

func headerOf(t testing.TB, raw string) map[string]string {
	t.Helper()
	head, _, _ := split(t, raw)
	var h map[string]string
	if err := json.Unmarshal(unb64(t, head), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestEnsureMakesEachKeyOnce(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	if err := r.keys.Ensure(ctx, token.Tenant, token.Cluster("local")); err != nil {
		t.Fatal(err)
	}
	before := [][]string{r.kids(token.Tenant, "RS256"), r.kids(token.Tenant, "ES256"), r.kids(token.Cluster("local"), "RS256"), r.kids(token.Cluster("local"), "ES256")}
	for i, want := range []int{1, 1, 1, 0} {
		if len(before[i]) != want {
			t.Errorf("row %d has %d keys, want %d", i, len(before[i]), want)
		}
	}
	if err := r.keys.Ensure(ctx, token.Tenant, token.Cluster("local")); err != nil {
		t.Fatal(err)
	}
	after := [][]string{r.kids(token.Tenant, "RS256"), r.kids(token.Tenant, "ES256"), r.kids(token.Cluster("local"), "RS256"), r.kids(token.Cluster("local"), "ES256")}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("the second Ensure changed something: %s", d)
	}
}

func TestServersThatStartTogetherAgreeOnTheKeys(t *testing.T) {
	var keys *token.Keys
	storetest.New(t, "", func(s *store.Store) { keys = token.NewKeys(s, token.Options{}) })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := keys.Ensure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r := &rig{t: t, keys: keys}
	if rs, es := r.kids(token.Tenant, "RS256"), r.kids(token.Tenant, "ES256"); len(rs) != 1 || len(es) != 1 {
		t.Errorf("%d RS256 and %d ES256 keys, want one of each", len(rs), len(es))
	}
}

func TestKeysSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	var raw string
	var kids []string
	t.Run("first", func(t *testing.T) {
		r := newRigWith(t, dir, token.Options{})
		raw, kids = r.sign(jose.ES256, r.access(nil)), r.kids(token.Tenant, "ES256")
	})
	t.Run("second", func(t *testing.T) {
		r := newRigWith(t, dir, token.Options{})
		if got := r.kids(token.Tenant, "ES256"); !slices.Equal(got, kids) {
			t.Errorf("keys %v, before %v", got, kids)
		}
		if got := r.reason(raw); got != 0 {
			t.Errorf("a token from before is refused: %d", got)
		}
	})
}

func TestKeySetHasEntrasShape(t *testing.T) {
	r := newRig(t)
	set, err := r.keys.JWKS(t.Context(), token.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || set.Keys[0].Kty != "RSA" || set.Keys[1].Kty != "EC" {
		t.Fatalf("keys: %+v", set.Keys)
	}
	for _, k := range set.Keys {
		if k.Use != "sig" || k.Kid == "" || len(k.X5c) != 1 {
			t.Errorf("key %+v", k)
		}
		der, err := base64.StdEncoding.DecodeString(k.X5c[0])
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
			t.Errorf("the certificate is not self-signed: %v", err)
		}
		if sum := sha1.Sum(der); k.X5t != base64.RawURLEncoding.EncodeToString(sum[:]) {
			t.Errorf("x5t %s is not the certificate's", k.X5t)
		}
		// The set is also one that a JOSE library reads, and each key is its certificate's.
		var parsed jose.JSONWebKey
		if err := parsed.UnmarshalJSON([]byte(encode(t, k))); err != nil {
			t.Fatalf("go-jose does not read the key: %v", err)
		}
		if pub, ok := parsed.Key.(interface{ Equal(any) bool }); ok && !pub.Equal(cert.PublicKey) {
			t.Error("key and certificate differ")
		}
		if !parsed.IsPublic() {
			t.Error("the set shows a private key")
		}
	}
	if set.Keys[0].Kid != set.Keys[0].X5t {
		t.Error("kid of the RSA key is not its x5t, as Entra's is")
	}
	text := encode(t, set)
	for _, private := range []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"private"`} {
		if strings.Contains(text, private) {
			t.Errorf("the set has a member %s", private)
		}
	}
	// What the caller does to it stays the caller's.
	set.Keys[0].Issuer = "changed"
	if again, _ := r.keys.JWKS(t.Context(), token.Tenant); again.Keys[0].Issuer != "" {
		t.Error("the set is shared")
	}
}

func TestClusterKeySetHasKubernetesShape(t *testing.T) {
	r := newRig(t)
	if err := r.keys.Ensure(t.Context(), token.Cluster("local")); err != nil {
		t.Fatal(err)
	}
	set, err := r.keys.JWKS(t.Context(), token.Cluster("local"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(encode(t, set)), &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range got.Keys[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"alg", "e", "kid", "kty", "n", "use"}, names); d != "" {
		t.Error(d)
	}
}

func TestUnknownPurposeHasNoKeys(t *testing.T) {
	r := newRig(t)
	set, err := r.keys.JWKS(t.Context(), token.Cluster("none"))
	if got := encode(t, set); err != nil || got != `{"keys":[]}` {
		t.Errorf("%s %v", got, err)
	}
	if _, err := r.keys.Sign(t.Context(), token.Cluster("none"), jose.RS256, map[string]any{}); err == nil {
		t.Error("signed without a key")
	}
	if _, err := r.keys.Sign(t.Context(), token.Tenant, jose.HS256, map[string]any{}); err == nil {
		t.Error("signed HS256")
	}
}

func TestHeadersAreThoseOfEntra(t *testing.T) {
	r := newRig(t)
	v2 := r.access(func(a *token.Access) { a.Version, a.Azp, a.AppID = token.Version2, clientID, "" })
	for _, c := range []struct {
		name   string
		alg    jose.SignatureAlgorithm
		claims any
		x5t    bool
	}{
		{"v1 RS256", jose.RS256, r.access(nil), true},
		{"v1 RS256, by value", jose.RS256, *r.access(nil), true},
		{"v2 RS256", jose.RS256, v2, false},
		{"v1 ES256", jose.ES256, r.access(nil), false},
		{"other claims", jose.RS256, map[string]any{"a": 1}, false},
	} {
		h := headerOf(t, r.sign(c.alg, c.claims))
		want := map[string]string{"typ": "JWT", "alg": string(c.alg), "kid": r.kids(token.Tenant, string(c.alg))[0]}
		if c.x5t {
			want["x5t"] = want["kid"]
		}
		if d := cmp.Diff(want, h); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestForcedRS256(t *testing.T) {
	r := newRigWith(t, "", token.Options{ForceRS256: true})
	if len(r.kids(token.Tenant, "ES256")) != 0 {
		t.Error("an ES256 key was made")
	}
	raw := r.sign(jose.ES256, r.access(nil))
	if h := headerOf(t, raw); h["alg"] != "RS256" {
		t.Errorf("signed %s", h["alg"])
	}
	if got := r.reason(raw); got != 0 {
		t.Errorf("refused: %d", got)
	}
}

func TestOtherLibrariesVerifyOurTokens(t *testing.T) {
	r := newRig(t)
	set, err := r.keys.Public(t.Context(), token.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
		want := r.access(func(a *token.Access) { a.Groups, a.CC = []string{"g"}, []string{"cp1"} })
		jws, err := jose.ParseSignedCompact(r.sign(alg, want), []jose.SignatureAlgorithm{alg})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify(set)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		var got token.Access
		if err := json.Unmarshal(payload, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(*want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestSignRefusesTokensThatOutliveTheirKey(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		life time.Duration
		ok   bool
	}{{time.Hour, true}, {token.MaxLifetime, true}, {token.MaxLifetime + token.Leeway + time.Second, false}, {1 << 62, false}} {
		_, err := r.keys.Sign(t.Context(), token.Tenant, jose.ES256, r.access(func(a *token.Access) { a.Expiry = r.now().Add(c.life).Unix() }))
		if (err == nil) != c.ok {
			t.Errorf("lifetime %v: %v", c.life, err)
		}
	}
	if _, err := r.keys.Sign(t.Context(), token.Tenant, jose.ES256, []string{"no object"}); err == nil {
		t.Error("signed a list")
	}
	if _, err := r.keys.Sign(t.Context(), token.Tenant, jose.ES256, func() {}); err == nil {
		t.Error("signed a function")
	}
}

// TestRotation follows one row of keys through two rotations: every key is
// published for the overlap before it signs, and for the life of its tokens
// after.
func TestRotation(t *testing.T) {
	r := newRigWith(t, "", token.Options{Lifetime: 30 * 24 * time.Hour, Overlap: 48 * time.Hour})
	published := map[string]time.Time{} // kid -> since
	signs := map[string]time.Time{}     // kid -> first signature
	live := map[string]time.Time{}      // token -> expiry
	const step = 6 * time.Hour
	for day := range 75 * 4 {
		if err := r.keys.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := r.now()
		for _, kid := range r.kids(token.Tenant, "ES256") {
			if published[kid].IsZero() {
				published[kid] = now
			}
		}
		raw := r.sign(jose.ES256, r.access(func(a *token.Access) { a.Expiry = now.Add(token.MaxLifetime).Unix() }))
		kid := headerOf(t, raw)["kid"]
		if signs[kid].IsZero() {
			signs[kid] = now
			if len(signs) > 1 && now.Sub(published[kid]) < 48*time.Hour {
				t.Errorf("step %d: key %s signs %v after it was published", day, kid, now.Sub(published[kid]))
			}
		}
		live[raw] = now.Add(token.MaxLifetime)
		for raw, expiry := range live {
			got := r.reason(raw)
			switch {
			case now.Before(expiry) && got != 0:
				t.Fatalf("step %d: a live token is refused: %d", day, got)
			case !now.Before(expiry.Add(token.Leeway)) && got == 0:
				t.Fatalf("step %d: a dead token is accepted", day)
			}
			if now.After(expiry.Add(step)) {
				delete(live, raw)
			}
		}
		if n := len(r.kids(token.Tenant, "ES256")); n > 2 {
			t.Fatalf("step %d: %d keys are published", day, n)
		}
		r.clock.add(step)
	}
	if len(signs) != 3 || len(r.kids(token.Tenant, "ES256")) != 1 {
		t.Errorf("%d keys have signed, %d are published; want 3 and 1", len(signs), len(r.kids(token.Tenant, "ES256")))
	}
}

func TestRotationByManyServersIsDoneOnce(t *testing.T) {
	r := newRig(t)
	r.clock.add(89*24*time.Hour + time.Minute)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := r.keys.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if rs, es := r.kids(token.Tenant, "RS256"), r.kids(token.Tenant, "ES256"); len(rs) != 2 || len(es) != 2 {
		t.Errorf("%d RS256 and %d ES256 keys, want two of each", len(rs), len(es))
	}
}

func TestAServerThatWasOffStillPublishesFirst(t *testing.T) {
	r := newRig(t)
	first := r.kids(token.Tenant, "ES256")[0]
	r.clock.add(400 * 24 * time.Hour)
	if err := r.keys.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kid := headerOf(t, r.sign(jose.ES256, r.access(nil)))["kid"]; kid != first {
		t.Error("a key signs that nobody has seen yet")
	}
	r.clock.add(24 * time.Hour)
	if kid := headerOf(t, r.sign(jose.ES256, r.access(nil)))["kid"]; kid == first {
		t.Error("the old key still signs")
	}
}

func TestAClockThatIsSetBackDoesNotStopSigning(t *testing.T) {
	r := newRig(t)
	r.clock.add(-10 * 24 * time.Hour)
	if err := r.keys.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.reason(r.sign(jose.ES256, r.access(nil))); got != 0 {
		t.Errorf("refused: %d", got)
	}
}

func TestARetiredKeysTokensAreRefusedEvenIfRemembered(t *testing.T) {
	r := newRig(t)
	// A token that would live for ever is what the memo must not save.
	r.verifier.Leeway = 100 * 365 * 24 * time.Hour
	raw := r.sign(jose.ES256, r.access(nil))
	if got := r.reason(raw); got != 0 {
		t.Fatalf("refused: %d", got)
	}
	for range 3 {
		r.clock.add(89*24*time.Hour + time.Minute)
		if err := r.keys.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.reason(raw); got != token.UnknownKey {
		t.Errorf("reason %d, want UnknownKey", got)
	}
}

// messages hands a test the messages that are logged.
type messages struct {
	slog.Handler
	to chan string
}

func (m messages) Handle(_ context.Context, r slog.Record) error {
	m.to <- r.Message
	return nil
}

func TestReplaceEndsAllTokensAtOnce(t *testing.T) {
	r := newRig(t)
	before := r.sign(jose.ES256, r.access(nil))
	if got := r.reason(before); got != 0 {
		t.Fatalf("refused: %d", got)
	}
	old := append(r.kids(token.Tenant, "ES256"), r.kids(token.Tenant, "RS256")...)
	if err := r.keys.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"ES256", "RS256"} {
		if now := r.kids(token.Tenant, alg); len(now) != 1 || slices.Contains(old, now[0]) {
			t.Errorf("%s keys %v after %v", alg, now, old)
		}
	}
	if got := r.reason(before); got != token.UnknownKey {
		t.Errorf("a token of the old key: reason %d, want UnknownKey", got)
	}
	if got := r.reason(r.sign(jose.ES256, r.access(nil))); got != 0 {
		t.Errorf("a token of the new key: reason %d", got)
	}
}

func TestRunRotates(t *testing.T) {
	log := messages{slog.DiscardHandler, make(chan string, 10)}
	logger := slog.New(enabled{log})
	r := newRigWith(t, "", token.Options{Every: time.Millisecond, Log: logger})
	for range 2 {
		<-log.to // the first keys
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.keys.Run(ctx) }()
	r.clock.add(89*24*time.Hour + time.Minute)
	for range 2 {
		if got := <-log.to; got != "signing key made" {
			t.Errorf("log says %q", got)
		}
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if n := len(r.kids(token.Tenant, "ES256")); n != 2 {
		t.Errorf("%d keys", n)
	}
}

// enabled turns on a handler that DiscardHandler would turn off.
type enabled struct{ messages }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }
