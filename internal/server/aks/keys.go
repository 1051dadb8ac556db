package aks

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/text"
)

// Limits of a key set that is pinned.
const (
	maxKeys    = 16
	maxKeySet  = 128 << 10 // bytes
	maxKeyID   = 256       // bytes
	minRSABits = 2048
	maxRSABits = 8192 // verifying takes time in proportion to the square
)

// key is one pinned key: RSA, for RS256.
type key struct {
	ID string `json:"kid"`
	N  string `json:"n"` // base64url, without padding
	E  string `json:"e"`
}

// parseKeySet reads a JSON Web Key Set that is to be pinned. It is not
// lenient as with sets that are fetched, where one key of no use must not shut
// out the others: here a person is there to put it right. Errors never have
// text of the set but names of keys: it may hold what should be private.
func parseKeySet(data []byte) ([]key, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("the key set is longer than %d bytes", maxKeySet)
	}
	top, err := members(data)
	if err != nil {
		return nil, fmt.Errorf("the key set is not as it must be: %w", err)
	}
	for name := range top {
		if name != "keys" {
			return nil, fmt.Errorf("the key set has a member %q, which is not known", printable(name))
		}
	}
	var list []json.RawMessage
	if err := json.Unmarshal(top["keys"], &list); err != nil || len(list) == 0 {
		return nil, errors.New("the key set has no list of keys, or an empty one")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys; at most %d can be pinned", len(list), maxKeys)
	}
	keys := make([]key, len(list))
	seen := map[string]bool{}
	for i, raw := range list {
		if keys[i], err = parseKey(raw); err != nil {
			return nil, fmt.Errorf("key %d of the set: %w", i+1, err)
		}
		if seen[keys[i].ID] {
			return nil, fmt.Errorf("key %d of the set: its kid is that of another one", i+1)
		}
		seen[keys[i].ID] = true
	}
	return keys, nil
}

// parseKey reads one key of a set.
func parseKey(data []byte) (key, error) {
	all, err := members(data)
	if err != nil {
		return key{}, err
	}
	text := map[string]string{}
	for name, value := range all {
		switch name {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
			return key{}, errors.New("it has its private part, which signs tokens: give it to nobody, replace the key, and register the public one")
		case "kty", "use", "alg", "kid", "n", "e":
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				return key{}, fmt.Errorf("its %s is not a string", name)
			}
			text[name] = s
		case "key_ops", "x5t", "x5t#S256", "x5c": // say nothing that we do not see for ourselves
		default:
			return key{}, fmt.Errorf("it has a member %q, which is not known", printable(name))
		}
	}
	kid := text["kid"]
	switch {
	case text["kty"] != "RSA":
		return key{}, errors.New("it is not an RSA key: tokens for federation are signed RS256, and by nothing else")
	case text["use"] != "" && text["use"] != "sig" || text["alg"] != "" && text["alg"] != "RS256":
		return key{}, errors.New("its use or alg says that it is not for RS256 signatures")
	case kid == "" || len(kid) > maxKeyID || printable(kid) != kid:
		return key{}, fmt.Errorf("its kid must have 1 to %d printable characters", maxKeyID)
	}
	k := key{ID: kid, N: strings.TrimRight(text["n"], "="), E: strings.TrimRight(text["e"], "=")}
	if _, err := k.public(); err != nil {
		return key{}, err
	}
	return k, nil
}

// public returns the key ready to verify with.
func (k *key) public() (*rsa.PublicKey, error) {
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	if err != nil {
		return nil, errors.New("its n is not base64url")
	}
	e, err := base64.RawURLEncoding.DecodeString(k.E)
	if err != nil || len(e) == 0 {
		return nil, errors.New("its e is not base64url")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch bits := modulus.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return nil, fmt.Errorf("it has %d bits; a key must have %d to %d", bits, minRSABits, maxRSABits)
	case modulus.Bit(0) == 0:
		return nil, errors.New("its n is even, as no product of two odd primes is")
	case exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0:
		return nil, errors.New("its e must be an odd number from 3 to 2^31-1")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// publicSet is the set that token.Foreign verifies by.
func publicSet(keys []key) (*jose.JSONWebKeySet, error) {
	set := &jose.JSONWebKeySet{}
	for i := range keys {
		pub, err := keys[i].public()
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: pub, KeyID: keys[i].ID, Algorithm: string(jose.RS256), Use: "sig"})
	}
	return set, nil
}

// members decodes a JSON object into its members. A name that is repeated is
// refused: two readers could take different ones.
func members(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	all := map[string]json.RawMessage{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errors.New("it is not valid JSON")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("it is not valid JSON")
		}
		if _, again := all[name.(string)]; again {
			return nil, errors.New("a member is repeated")
		}
		all[name.(string)] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("it is not valid JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after it")
	}
	return all, nil
}

// printable makes text from a request fit for a message.
func printable(s string) string { return text.Clip(s, 256) }
