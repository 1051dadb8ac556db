package token

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxRSABits = 8192 // verifying takes time in proportion to the square
	maxKeys    = 256  // of a foreign issuer's key set
)

// strongRSA reports whether an RSA key is one that we believe: long enough to
// be safe, short enough to be quick, with an exponent as anybody uses.
func strongRSA(key *rsa.PublicKey) bool {
	bits := key.N.BitLen()
	return bits >= minRSABits && bits <= maxRSABits && key.E >= 3 && key.E&1 == 1
}

// usable reports whether a key may verify RS256 by what its set says of it.
func usable(use, alg string) bool {
	return (use == "" || use == "sig") && (alg == "" || alg == "RS256")
}

// pick returns the usable key named kid of a registered set, or nil. A name
// that two different keys bear names neither.
func pick(set *jose.JSONWebKeySet, kid string) *rsa.PublicKey {
	if set == nil || kid == "" {
		return nil
	}
	var found *rsa.PublicKey
	for i := range set.Keys {
		k := &set.Keys[i]
		if k.KeyID != kid || !usable(k.Use, k.Algorithm) {
			continue
		}
		// Not a private key: whoever registered one gave away what signs.
		pub, ok := k.Key.(*rsa.PublicKey)
		if !ok || !strongRSA(pub) {
			continue
		}
		if found != nil && !found.Equal(pub) {
			return nil
		}
		found = pub
	}
	return found
}

// parseKeySet reads a foreign issuer's key set and returns the usable keys by
// kid. Keys that are not RSA, not for signing, too short, without a name, or
// that came with their private or symmetric part are left out; so are
// different keys of one name. A set of nothing but such keys is an empty one.
func parseKeySet(data []byte) (map[string]*rsa.PublicKey, error) {
	var list []byte
	err := members(data, func(name, value []byte) error {
		if string(name) == "keys" {
			list = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || list[0] != '[' {
		return nil, errors.New("not a key set: no list of keys")
	}
	keys := map[string]*rsa.PublicKey{}
	ambiguous := map[string]bool{}
	n := 0
	s := scanner{data: list}
	err = s.array(func(value []byte) error {
		if n++; n > maxKeys {
			return fmt.Errorf("more than %d keys", maxKeys)
		}
		kid, key, err := parsePublicKey(value)
		if err != nil || key == nil {
			return err
		}
		if other := keys[kid]; other != nil && !other.Equal(key) {
			ambiguous[kid] = true
		}
		keys[kid] = key
		return nil
	})
	for kid := range ambiguous {
		delete(keys, kid)
	}
	return keys, err
}

// parsePublicKey reads one key of a set. key is nil if we have no use for it.
func parsePublicKey(data []byte) (kid string, key *rsa.PublicKey, err error) {
	var kty, use, alg, n, e string
	private := false
	err = members(data, func(name, value []byte) (err error) {
		switch string(name) {
		case "kty":
			kty, err = stringValue(value)
		case "use":
			use, err = stringValue(value)
		case "alg":
			alg, err = stringValue(value)
		case "kid":
			kid, err = stringValue(value)
		case "n":
			n, err = stringValue(value)
		case "e":
			e, err = stringValue(value)
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
			private = true
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	if kty != "RSA" || kid == "" || private || !usable(use, alg) {
		return "", nil, nil
	}
	modulus, ok := unsigned(n)
	exponent, ok2 := unsigned(e)
	if !ok || !ok2 || exponent.BitLen() > 31 {
		return "", nil, nil
	}
	key = &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}
	if !strongRSA(key) || modulus.Bit(0) == 0 {
		return "", nil, nil
	}
	return kid, key, nil
}

// unsigned decodes a Base64urlUInt. Padding and leading zeros, which some
// issuers write, change nothing and are accepted.
func unsigned(s string) (*big.Int, bool) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || len(b) > maxRSABits/8+1 {
		return nil, false
	}
	return new(big.Int).SetBytes(b), true
}
