package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-jose/go-jose/v4"
)

// Sign returns the claims as a JWT in compact form, signed with the purpose's
// present key for alg (ES256 or RS256). claims are an [Access], an *Access,
// or anything that encodes as a JSON object. No token may outlive
// [MaxLifetime]: for an access token that is checked here, for others it is
// up to the caller. Version 1.0 access tokens signed RS256 name the
// certificate in x5t, as Entra's do.
func (k *Keys) Sign(ctx context.Context, purpose Purpose, alg jose.SignatureAlgorithm, claims any) (string, error) {
	m, err := k.current(ctx)
	if err != nil {
		return "", err
	}
	now := k.o.Now()
	if k.o.ForceRS256 && alg == jose.ES256 {
		alg = jose.RS256
	}
	var key *signingKey
	if p := m.purposes[purpose]; p != nil {
		key = signer(p.rows[alg], now)
	}
	if key == nil {
		return "", fmt.Errorf("no %s signing key of %s", alg, purpose)
	}
	header := key.header
	if a := accessOf(claims); a != nil {
		if a.Expiry > now.Add(MaxLifetime+Leeway).Unix() {
			return "", errors.New("access token would outlive its signing key")
		}
		if a.Version == Version1 {
			header = key.headerX5t
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	if payload[0] != '{' {
		return "", errors.New("claims are not a JSON object")
	}
	enc := base64.RawURLEncoding
	text := make([]byte, 0, len(header)+enc.EncodedLen(len(payload))+1+enc.EncodedLen(key.signatureLen()))
	text = append(text, header...)
	text = enc.AppendEncode(text, payload)
	sum := sha256.Sum256(text)
	signature, err := key.sign(sum[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	text = append(text, '.')
	return string(enc.AppendEncode(text, signature)), nil
}

func accessOf(claims any) *Access {
	switch a := claims.(type) {
	case *Access:
		return a
	case Access:
		return &a
	default:
		return nil
	}
}

func (k *signingKey) sign(sum []byte) ([]byte, error) {
	switch p := k.private.(type) {
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, p, crypto.SHA256, sum)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, p, sum)
		if err != nil {
			return nil, err
		}
		// s and n-s are both right. We use the lesser and accept no other, so
		// that a token has one form.
		if s.Cmp(halfOrder) > 0 {
			s.Sub(elliptic.P256().Params().N, s)
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return signature, nil
	default:
		return nil, errKeyRecord
	}
}

// signatureLen is the length of the key's signatures in bytes.
func (k *signingKey) signatureLen() int {
	if p, ok := k.private.(*rsa.PrivateKey); ok {
		return p.Size()
	}
	return 64
}

// verify checks a signature by our own key; the algorithm is the key's.
func (k *signingKey) verify(sum, signature []byte) bool {
	switch p := k.private.(type) {
	case *rsa.PrivateKey:
		return rsa.VerifyPKCS1v15(&p.PublicKey, crypto.SHA256, sum, signature) == nil
	case *ecdsa.PrivateKey:
		if len(signature) != 64 {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return s.Cmp(halfOrder) <= 0 && ecdsa.Verify(&p.PublicKey, sum, r, s)
	default:
		return false
	}
}

// halfOrder is half the order of P-256's group, rounded down.
var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)
