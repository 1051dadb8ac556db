package keyvault

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// Content types of secrets that hold a certificate with its key.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// pfxToPEM converts a certificate with its key from base64 of PKCS #12, with
// an empty password, to PEM: the key, then the certificate, then its chain.
func pfxToPEM(value string) (string, error) {
	refused := badParameter("The content of the secret is not a PKCS #12 file with an empty password and one private key, and cannot be converted.")
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return "", refused
	}
	if der, err = tamePFX(der, maxIterations); err != nil {
		return "", refused
	}
	key, leaf, chain, err := pkcs12.DecodeChain(der, "")
	if err != nil {
		return "", refused
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", refused
	}
	var b strings.Builder
	_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}) // a Builder takes everything
	for _, c := range append([]*x509.Certificate{leaf}, chain...) {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String(), nil
}

// maxIterations bounds the work of deriving one key. Files in use have 1 to
// 10,000 iterations.
const maxIterations = 100_000

// The parts of a PKCS #12 file that are looked at (RFC 7292).
type (
	pfxFile struct {
		Version  int
		AuthSafe contentInfo
		MAC      asn1.RawValue `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	encryptedData struct {
		Version int
		Content struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Data      asn1.RawValue `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		Type       asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"optional"`
	}
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	// pbeParams are the parameters of a key derivation, of PKCS #12's own and
	// of PBKDF2: both begin with salt and iteration count.
	pbeParams struct {
		Salt       asn1.RawValue
		Iterations int
		Length     int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	pbes2Params struct {
		Derivation, Encryption pkix.AlgorithmIdentifier
	}
)

var (
	oidData        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncrypted   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidKeyBag      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKey = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBES2       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}

	errNotTame = errors.New("not a PKCS #12 file of the usual form")
)

// tamePFX returns a file with the same content that is safe to decode. The
// iteration counts in a file are its maker's choice, the decoder honours any,
// and a secret's value is any user's: so each count that can be seen must be
// at most the given one. One that cannot be seen, of a key inside an encrypted part, is
// never used: the part with the visible key comes first here, and the decoder
// stops at a second key. The integrity check is left out, since with an empty
// password it proves nothing.
func tamePFX(der []byte, most int) ([]byte, error) {
	var file pfxFile
	if err := unmarshalAll(der, &file); err != nil || file.Version != 3 || !file.AuthSafe.Type.Equal(oidData) {
		return nil, errNotTame
	}
	var inner []byte
	if err := unmarshalAll(file.AuthSafe.Content.Bytes, &inner); err != nil {
		return nil, errNotTame
	}
	var parts []contentInfo
	if err := unmarshalAll(inner, &parts); err != nil || len(parts) > 2 {
		return nil, errNotTame
	}
	var withKey, others []contentInfo
	for _, p := range parts {
		key, err := tamePart(p, most)
		switch {
		case err != nil:
			return nil, err
		case key && withKey == nil:
			withKey = []contentInfo{p}
		default:
			others = append(others, p)
		}
	}
	if withKey == nil {
		return nil, errNotTame
	}
	return marshalPFX(append(withKey, others...))
}

func marshalPFX(parts []contentInfo) ([]byte, error) {
	inner, err := asn1.Marshal(parts)
	if err != nil {
		return nil, err
	}
	octets, err := asn1.Marshal(inner)
	if err != nil {
		return nil, err
	}
	content := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets}
	return asn1.Marshal(struct {
		Version  int
		AuthSafe struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue
		}
	}{3, struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{oidData, content}})
}

// tamePart checks one part of the file and reports whether it has a visible
// key.
func tamePart(p contentInfo, most int) (hasKey bool, err error) {
	if p.Type.Equal(oidEncrypted) {
		var e encryptedData
		if err := unmarshalAll(p.Content.Bytes, &e); err != nil {
			return false, errNotTame
		}
		return false, tameAlgorithm(e.Content.Algorithm, most)
	}
	var octets []byte
	var bags []safeBag
	if !p.Type.Equal(oidData) || unmarshalAll(p.Content.Bytes, &octets) != nil || unmarshalAll(octets, &bags) != nil {
		return false, errNotTame
	}
	for _, b := range bags {
		switch {
		case b.Type.Equal(oidKeyBag):
			hasKey = true
		case b.Type.Equal(oidShroudedKey):
			var k encryptedKey
			if err := unmarshalAll(b.Value.Bytes, &k); err != nil {
				return false, errNotTame
			}
			if err := tameAlgorithm(k.Algorithm, most); err != nil {
				return false, err
			}
			hasKey = true
		}
	}
	return hasKey, nil
}

// tameAlgorithm refuses a password-based encryption of more than most
// iterations.
func tameAlgorithm(a pkix.AlgorithmIdentifier, most int) error {
	params := a.Parameters.FullBytes
	if a.Algorithm.Equal(oidPBES2) {
		var p pbes2Params
		if err := unmarshalAll(params, &p); err != nil {
			return errNotTame
		}
		params = p.Derivation.Parameters.FullBytes
	}
	var p pbeParams
	if err := unmarshalAll(params, &p); err != nil || p.Iterations < 1 || p.Iterations > most {
		return errNotTame
	}
	return nil
}

// unmarshalAll decodes DER that has nothing after it.
func unmarshalAll(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = errNotTame
	}
	return err
}
