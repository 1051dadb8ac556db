package token_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/token"
)

func BenchmarkSignES256(b *testing.B) { benchSign(b, jose.ES256) }
func BenchmarkSignRS256(b *testing.B) { benchSign(b, jose.RS256) }

func benchSign(b *testing.B, alg jose.SignatureAlgorithm) {
	r := newRig(b)
	claims := r.access(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.keys.Sign(b.Context(), token.Tenant, alg, claims); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	r := newRig(b)
	raw := r.sign(jose.ES256, r.access(nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.verifier.Verify(b.Context(), raw, r.want); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyRememberedParallel(b *testing.B) {
	r := newRig(b)
	raw := r.sign(jose.ES256, r.access(nil))
	ctx := b.Context()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.verifier.Verify(ctx, raw, r.want); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkVerifyNewES256(b *testing.B) { benchVerifyNew(b, jose.ES256) }
func BenchmarkVerifyNewRS256(b *testing.B) { benchVerifyNew(b, jose.RS256) }

func benchVerifyNew(b *testing.B, alg jose.SignatureAlgorithm) {
	r := newRig(b)
	raw := r.sign(alg, r.access(nil))
	b.ReportAllocs()
	for b.Loop() {
		v := token.Verifier{Keys: r.keys, Now: r.now}
		if _, err := v.Verify(b.Context(), raw, r.want); err != nil {
			b.Fatal(err)
		}
	}
}

func benchForeign(b *testing.B) (*token.Foreign, string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	set := &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Algorithm: "RS256", Use: "sig"}}}
	f := &token.Foreign{Registered: func(context.Context, string) (*jose.JSONWebKeySet, bool, error) { return set, true, nil }}
	return f, signRS256(b, key, "k", clusterClaims("https://issuer.test/"))
}

func BenchmarkParseAssertion(b *testing.B) {
	_, raw := benchForeign(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.ParseAssertion(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForeignRemembered(b *testing.B) {
	f, raw := benchForeign(b)
	b.ReportAllocs()
	for b.Loop() {
		a, err := token.ParseAssertion(raw)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.VerifyAssertion(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForeignNew(b *testing.B) {
	proto, raw := benchForeign(b)
	b.ReportAllocs()
	for b.Loop() {
		f := token.Foreign{Registered: proto.Registered}
		a, err := token.ParseAssertion(raw)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.VerifyAssertion(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}
