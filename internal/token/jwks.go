package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// PublicSet is a JSON Web Key Set in Entra's shape.
type PublicSet struct {
	Keys []PublicKey `json:"keys"`
}

// PublicKey is one key of a set. Kid, N, E, X, Y and X5t are base64url, X5c is
// standard base64. Issuer and CloudInstanceName are for the caller to fill in.
type PublicKey struct {
	Kty string   `json:"kty"` // RSA or EC
	Use string   `json:"use"` // sig
	Kid string   `json:"kid"`
	Alg string   `json:"alg,omitempty"`
	X5t string   `json:"x5t,omitempty"` // SHA-1 of the certificate
	N   string   `json:"n,omitempty"`
	E   string   `json:"e,omitempty"`
	Crv string   `json:"crv,omitempty"`
	X   string   `json:"x,omitempty"`
	Y   string   `json:"y,omitempty"`
	X5c []string `json:"x5c,omitempty"` // self-signed certificate

	CloudInstanceName string `json:"cloud_instance_name,omitempty"`
	Issuer            string `json:"issuer,omitempty"`
}

// JWKS returns the published keys of a purpose, RSA keys first, the one that
// has signed longest first. It is the caller's own to change, but for X5c. It
// is empty for a purpose without keys.
func (k *Keys) JWKS(ctx context.Context, purpose Purpose) (PublicSet, error) {
	m, err := k.current(ctx)
	if err != nil {
		return PublicSet{}, err
	}
	if p := m.purposes[purpose]; p != nil {
		return PublicSet{Keys: slices.Clone(p.jwks)}, nil
	}
	return PublicSet{Keys: []PublicKey{}}, nil
}

// Public returns the published keys of a purpose for [Foreign]. It is shared
// and must not be changed. It is empty for a purpose without keys.
func (k *Keys) Public(ctx context.Context, purpose Purpose) (*jose.JSONWebKeySet, error) {
	m, err := k.current(ctx)
	if err != nil {
		return nil, err
	}
	if p := m.purposes[purpose]; p != nil {
		return p.jose, nil
	}
	return &jose.JSONWebKeySet{}, nil
}

// publish fills in the sets from the rows.
func (p *purposeKeys) publish() {
	p.jose = &jose.JSONWebKeySet{}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
		for _, key := range p.rows[alg] {
			out := PublicKey{Use: "sig", Kid: key.id, Alg: string(alg)}
			switch pub := key.private.Public().(type) {
			case *rsa.PublicKey:
				out.Kty = "RSA"
				out.N = base64.RawURLEncoding.EncodeToString(pub.N.Bytes())
				out.E = base64.RawURLEncoding.EncodeToString(big.NewInt(int64(pub.E)).Bytes())
			case *ecdsa.PublicKey:
				x, y := coordinates(pub)
				out.Kty, out.Crv = "EC", "P-256"
				out.X = base64.RawURLEncoding.EncodeToString(x)
				out.Y = base64.RawURLEncoding.EncodeToString(y)
			}
			if len(key.certificate) > 0 {
				out.X5t = thumbprint(key.certificate)
				out.X5c = []string{base64.StdEncoding.EncodeToString(key.certificate)}
			}
			p.jwks = append(p.jwks, out)
			p.jose.Keys = append(p.jose.Keys, jose.JSONWebKey{
				Key: key.private.Public(), KeyID: key.id, Algorithm: string(alg), Use: "sig",
			})
		}
	}
}

// coordinates are those of a P-256 point, of 32 bytes each.
func coordinates(pub *ecdsa.PublicKey) (x, y []byte) {
	point, err := pub.Bytes() // 4, x, y
	if err != nil {
		panic("token: a parsed key is not on its curve: " + err.Error())
	}
	return point[1:33], point[33:]
}
