package connect

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
)

// jwk is a public key of a set, its members in the order of azwi's.
type jwk struct {
	Use string `json:"use"`
	Kty string `json:"kty"`
	Kid string `json:"kid"`
	Crv string `json:"crv,omitempty"`
	Alg string `json:"alg"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

// JWKS makes a key set of the public keys in PEM files, which may also hold
// private keys: of these the public part is taken. The key ids are those that
// kube-apiserver puts into tokens. The text has no line end at its end.
func JWKS(files []string) ([]byte, error) {
	if len(files) == 0 {
		return nil, errors.New("no public keys provided")
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to read public key file: %w", err)
		}
		keys, err := publicKeys(b)
		if err != nil {
			return nil, fmt.Errorf("failed to read public key file %s: %w", file, err)
		}
		for _, k := range keys {
			out, err := publicJWK(k)
			if err != nil {
				return nil, fmt.Errorf("failed to read public key file %s: %w", file, err)
			}
			set.Keys = append(set.Keys, out)
		}
	}
	return json.MarshalIndent(set, "", "  ")
}

// publicKeys reads every key of a PEM file. No text of the file is in an error.
func publicKeys(b []byte) (keys []any, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		k, err := publicKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key in PEM form")
	}
	return keys, nil
}

func publicKey(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, errors.New("it has something that is neither a public nor a private key")
	}
	if err != nil {
		return nil, errors.New("a key in it is damaged")
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey, nil
	case *ecdsa.PrivateKey:
		return &k.PublicKey, nil
	}
	return key, nil
}

// KeyID is the id of a public key: the hash of its SubjectPublicKeyInfo.
func KeyID(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", errors.New("a key in it is of a kind that tokens are not signed with")
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func publicJWK(public any) (jwk, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	kid, err := KeyID(public)
	if err != nil {
		return jwk{}, err
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		return jwk{Use: "sig", Kty: "RSA", Kid: kid, Alg: "RS256", N: b64(k.N.Bytes()), E: b64(big.NewInt(int64(k.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		alg, ok := map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[k.Params().Name]
		point, err := k.Bytes()
		if !ok || err != nil {
			return jwk{}, errors.New("a key in it is on a curve that tokens are not signed with")
		}
		half := len(point) / 2 // 0x04, x, y
		return jwk{Use: "sig", Kty: "EC", Kid: kid, Crv: k.Params().Name, Alg: alg, X: b64(point[1 : 1+half]), Y: b64(point[1+half:])}, nil
	}
	return jwk{}, errors.New("a key in it is neither RSA nor EC")
}
