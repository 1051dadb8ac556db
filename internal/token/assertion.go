package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Assertion is a JWT that somebody else signed, read strictly but not
// verified: nothing in it may be believed before [Foreign.VerifyAssertion] or
// [Assertion.VerifySignature] has returned nil.
type Assertion struct {
	Algorithm string // alg, as presented
	KeyID     string // kid; may be empty
	X5t       string // SHA-1 thumbprint of a certificate, as presented; may be empty
	X5tS256   string // x5t#S256, SHA-256 thumbprint, as presented; may be empty

	Issuer    string
	Subject   string
	Audience  []string // one or more
	ID        string   // jti; may be empty
	Expiry    time.Time
	NotBefore time.Time // zero if absent
	IssuedAt  time.Time // zero if absent

	Payload []byte // the claims as JSON

	raw       string
	signed    string
	signature []byte
}

// ParseAssertion reads a JWT in compact form: three parts of strict unpadded
// base64url, JSON objects without repeated members, iss, sub, aud and exp
// present and of the right types, no crit. Errors say what is wrong without
// quoting the token.
func ParseAssertion(raw string) (*Assertion, error) {
	c, err := parseCompact(raw)
	if err != nil {
		return nil, err
	}
	a := &Assertion{
		Algorithm: c.header.alg, KeyID: c.header.kid, X5t: c.header.x5t, X5tS256: c.header.x5tS256,
		Payload: c.payload, raw: raw, signed: c.signed, signature: c.signature,
	}
	err = members(c.payload, func(name, value []byte) (err error) {
		switch string(name) {
		case "iss":
			a.Issuer, err = stringValue(value)
		case "sub":
			a.Subject, err = stringValue(value)
		case "jti":
			a.ID, err = stringValue(value)
		case "aud":
			a.Audience, err = audience(value)
		case "exp":
			a.Expiry, err = instant(value)
		case "nbf":
			a.NotBefore, err = instant(value)
		case "iat":
			a.IssuedAt, err = instant(value)
		}
		if err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case a.Issuer == "":
		return nil, errors.New("no claim iss")
	case a.Subject == "":
		return nil, errors.New("no claim sub")
	case len(a.Audience) == 0:
		return nil, errors.New("no claim aud")
	case a.Expiry.IsZero():
		return nil, errors.New("no claim exp")
	}
	return a, nil
}

// audience decodes aud, which is one text or a list of them.
func audience(raw []byte) ([]string, error) {
	if raw[0] == '"' {
		one, err := stringValue(raw)
		return []string{one}, err
	}
	return stringList(raw)
}

func instant(raw []byte) (time.Time, error) {
	n, err := seconds(raw)
	return time.Unix(n, 0).UTC(), err
}

// InTime reports whether now lies between nbf (and iat) and exp, give or take
// leeway.
func (a *Assertion) InTime(now time.Time, leeway time.Duration) bool {
	return validity(now, unix(a.NotBefore), unix(a.IssuedAt), a.Expiry.Unix(), leeway) == 0
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

var (
	errWrongSignature = errors.New("the signature is wrong")
	errWrongKey       = errors.New("the algorithm is not one for this kind of key")
	errWeakKey        = fmt.Errorf("the key has less than %d or more than %d bits", minRSABits, maxRSABits)
)

// VerifySignature checks the signature with a public key of the caller's
// choice, for client certificates: RS256 and PS256 with an *rsa.PublicKey of
// 2048 bits or more, ES256 with a P-256 *ecdsa.PublicKey. Any other pair is
// refused.
func (a *Assertion) VerifySignature(key crypto.PublicKey) error {
	sum := sha256.Sum256([]byte(a.signed))
	right := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		if !strongRSA(key) {
			return errWeakKey
		}
		switch a.Algorithm {
		case "RS256":
			right = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], a.signature) == nil
		case "PS256":
			right = rsa.VerifyPSS(key, crypto.SHA256, sum[:], a.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		default:
			return errWrongKey
		}
	case *ecdsa.PublicKey:
		if a.Algorithm != "ES256" || key.Curve != elliptic.P256() {
			return errWrongKey
		}
		if len(a.signature) == 64 {
			r, s := new(big.Int).SetBytes(a.signature[:32]), new(big.Int).SetBytes(a.signature[32:])
			right = ecdsa.Verify(key, sum[:], r, s)
		}
	default:
		return errWrongKey
	}
	if !right {
		return errWrongSignature
	}
	return nil
}
