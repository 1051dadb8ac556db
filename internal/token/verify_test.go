package token_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

func TestReasonsAreThoseOfTheEdge(t *testing.T) {
	for ours, edge := range map[token.Reason]web.AuthReason{
		token.Malformed: web.AuthMalformed, token.UnknownKey: web.AuthKey, token.BadSignature: web.AuthSignature,
		token.BadIssuer: web.AuthIssuer, token.BadAudience: web.AuthAudience, token.Expired: web.AuthExpired, token.NotYet: web.AuthNotYet,
	} {
		if uint8(ours) != uint8(edge) {
			t.Errorf("reason %d is the edge's %d", ours, edge)
		}
	}
}

func TestVerifyReturnsTheClaims(t *testing.T) {
	r := newRig(t)
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		want := r.access(func(a *token.Access) {
			a.Groups, a.Roles, a.CC = []string{"g1", "g2"}, []string{"Reader"}, []string{"cp1"}
			a.AIO, a.AzRID, a.Name, a.UPN, a.Unique, a.Preferred, a.Scope, a.SessionID = "aio", "rid", "Ü <b>", "u@t", "u@t", "u@t", "user_impersonation", "sid"
			a.Azp, a.AzpACR = "azp", "2"
		})
		raw := r.sign(alg, want)
		for range 2 { // the second time from memory
			got, err := r.verifier.Verify(t.Context(), raw, r.want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	}
	v2 := r.access(func(a *token.Access) { a.Version, a.Azp, a.AppID = token.Version2, clientID, "" })
	got, err := r.verifier.Verify(t.Context(), r.sign(jose.ES256, v2), r.want)
	if err != nil || got.Client() != clientID {
		t.Errorf("client of a v2 token: %v", err)
	}
}

func TestTimesAreCheckedToTheSecond(t *testing.T) {
	r := newRig(t)
	start := r.now()
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	raw := r.sign(jose.ES256, r.access(func(a *token.Access) { a.IssuedAt, a.NotBefore, a.Expiry = at(0), at(time.Minute), at(time.Hour) }))
	late := r.sign(jose.ES256, r.access(func(a *token.Access) { a.IssuedAt, a.NotBefore, a.Expiry = at(2*time.Minute), 0, at(time.Hour) }))
	for _, c := range []struct {
		raw  string
		when time.Duration
		want token.Reason
	}{
		{raw, time.Minute - 5*time.Minute - time.Second, token.NotYet},
		{raw, time.Minute - 5*time.Minute, 0},
		{raw, 0, 0},
		{raw, time.Hour + 5*time.Minute - time.Second, 0},
		{raw, time.Hour + 5*time.Minute, token.Expired},
		{raw, 1000 * time.Hour, token.Expired},
		{late, 2*time.Minute - 5*time.Minute - time.Second, token.NotYet},
		{late, 2*time.Minute - 5*time.Minute, 0},
	} {
		r.clock.t = start.Add(c.when)
		for _, how := range []string{"new", "remembered"} {
			if got := r.reason(c.raw); got != c.want {
				t.Errorf("%v after, %s: reason %d, want %d", c.when, how, got, c.want)
			}
		}
	}
}

func TestARememberedTokenIsStillHeldAgainstWhatIsWanted(t *testing.T) {
	r := newRig(t)
	raw := r.sign(jose.ES256, r.access(nil))
	if got := r.reason(raw); got != 0 {
		t.Fatalf("refused: %d", got)
	}
	good := r.want
	r.want.Audience = func(aud string) bool { return aud == "https://management.azure.com" }
	if got := r.reason(raw); got != token.BadAudience {
		t.Errorf("another resource: reason %d", got)
	}
	r.want = good
	r.want.Issuer = func(_, tid string) bool { return tid == "other" }
	if got := r.reason(raw); got != token.BadIssuer {
		t.Errorf("another tenant: reason %d", got)
	}
}

func TestARefusalSaysWhatDiffers(t *testing.T) {
	r := newRig(t)
	_, err := r.verifier.Verify(t.Context(), r.sign(jose.ES256, r.access(func(a *token.Access) { a.Audience = "https://graph.microsoft.com" })), r.want)
	e, ok := errors.AsType[*token.VerifyError](err)
	if !ok || e.Expected != vault || e.Found != "https://graph.microsoft.com" {
		t.Errorf("%#v", err)
	}
	for reason := token.Malformed; reason <= token.NotYet; reason++ {
		if s := (&token.VerifyError{Reason: reason, Expected: "E", Found: "F"}).Error(); s == "" || s == "token is not accepted" {
			t.Errorf("reason %d has no text", reason)
		}
	}
}

func TestAccessTokensMustBeComplete(t *testing.T) {
	r := newRig(t)
	for name, edit := range map[string]func(*token.Access){
		"no exp":              func(a *token.Access) { a.Expiry = 0 },
		"no iss":              func(a *token.Access) { a.Issuer = "" },
		"no aud":              func(a *token.Access) { a.Audience = "" },
		"no sub":              func(a *token.Access) { a.Subject = "" },
		"no oid":              func(a *token.Access) { a.ObjectID = "" },
		"no tid":              func(a *token.Access) { a.TenantID = "" },
		"no appid (id token)": func(a *token.Access) { a.AppID = "" },
		"no ver":              func(a *token.Access) { a.Version = "" },
		"ver 3.0":             func(a *token.Access) { a.Version = "3.0" },
	} {
		if got := r.reason(r.sign(jose.ES256, r.access(edit))); got != token.Malformed {
			t.Errorf("%s: reason %d, want Malformed", name, got)
		}
	}
	// Claims of the wrong type, signed by ourselves: nothing is converted.
	for name, value := range map[string]any{
		"exp": "4102444800", "nbf": "0", "iat": true, "aud": []string{vault}, "iss": 1, "oid": nil, "roles": "Reader", "groups": []any{"g", 1}, "tid": map[string]any{},
	} {
		claims := map[string]any{
			"aud": vault, "iss": issuerV1, "exp": r.now().Add(time.Hour).Unix(), "iat": r.now().Unix(), "nbf": r.now().Unix(),
			"appid": clientID, "oid": objectID, "sub": objectID, "tid": tenant, "ver": "1.0",
		}
		if got := r.reason(r.sign(jose.ES256, claims)); got != 0 {
			t.Fatalf("complete claims are refused: %d", got)
		}
		claims[name] = value
		if got := r.reason(r.sign(jose.ES256, claims)); got != token.Malformed {
			t.Errorf("%s of another type: reason %d, want Malformed", name, got)
		}
	}
}

func TestVerifyUnderConcurrencyAndRotation(t *testing.T) {
	r := newRig(t)
	r.verifier.Limit = 8
	var raws []string
	for range 20 {
		raws = append(raws, r.sign(jose.ES256, r.access(nil)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := g; ctx.Err() == nil; i++ {
				if _, err := r.verifier.Verify(ctx, raws[i%len(raws)], r.want); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	if err := r.keys.Ensure(t.Context(), token.Cluster("c")); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
}
