package keyvault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// certificate makes a key and a certificate, signed by parent or by itself.
func certificate(t testing.TB, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true}
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

const asPEM = "outContentType=application/x-pem-file"

func TestOutContentType(t *testing.T) {
	s := newSystem(t)
	rootKey, root := certificate(t, "root", nil, nil)
	key, leaf := certificate(t, "leaf", root, rootKey)
	for name, enc := range map[string]*pkcs12.Encoder{"modern": pkcs12.Modern2023, "legacy": pkcs12.LegacyDES, "old": pkcs12.LegacyRC2, "passwordless": pkcs12.Passwordless} {
		t.Run(name, func(t *testing.T) {
			pfx, err := enc.Encode(key, leaf, []*x509.Certificate{root}, "")
			if err != nil {
				t.Fatal(err)
			}
			value := base64.StdEncoding.EncodeToString(pfx)
			s.ok("officer", "PUT", "kv1", "/secrets/"+name, map[string]any{"value": value, "contentType": "application/x-pkcs12"})

			a := s.ok("reader", "GET", "kv1", "/secrets/"+name+"?"+asPEM+"&"+api, nil)
			if a.str("contentType") != "application/x-pem-file" {
				t.Errorf("content type %q", a.str("contentType"))
			}
			var types []string
			var ders [][]byte
			for rest := []byte(a.str("value")); ; {
				var b *pem.Block
				if b, rest = pem.Decode(rest); b == nil {
					break
				}
				types, ders = append(types, b.Type), append(ders, b.Bytes)
			}
			if len(types) != 3 || types[0] != "PRIVATE KEY" || !bytes.Equal(ders[1], leaf.Raw) || !bytes.Equal(ders[2], root.Raw) {
				t.Fatalf("blocks %v", types)
			}
			got, err := x509.ParsePKCS8PrivateKey(ders[0])
			if err != nil || !key.Equal(got) {
				t.Errorf("another key: %v", err)
			}
			// Asked for as what it is, or without saying, it is as it was set.
			for _, query := range []string{"?outContentType=application/x-pkcs12&" + api, "?" + api} {
				if a := s.ok("reader", "GET", "kv1", "/secrets/"+name+query, nil); a.str("value") != value {
					t.Errorf("%s: %.60s", query, a.raw)
				}
			}
		})
	}
	for name, body := range map[string]map[string]any{
		"text":       {"value": "abc", "contentType": "text/plain"},
		"no type":    {"value": "abc"},
		"no base64":  {"value": "%%%", "contentType": "application/x-pkcs12"},
		"no PKCS#12": {"value": "MAA=", "contentType": "application/x-pkcs12"},
	} {
		s.ok("officer", "PUT", "kv1", "/secrets/other", body)
		if a := s.call("reader", "GET", "kv1", "/secrets/other?"+asPEM+"&"+api, nil); a.status != 400 || a.code() != "BadParameter" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	pfx, err := pkcs12.Modern2023.Encode(key, leaf, nil, "password")
	if err != nil {
		t.Fatal(err)
	}
	s.ok("officer", "PUT", "kv1", "/secrets/other", map[string]any{"value": base64.StdEncoding.EncodeToString(pfx), "contentType": "application/x-pkcs12"})
	s.refused(400, "BadParameter", "reader", "GET", "kv1", "/secrets/other?"+asPEM+"&"+api, nil)
	// A PEM secret is a PEM file already, and cannot become PKCS #12.
	s.ok("officer", "PUT", "kv1", "/secrets/other", map[string]any{"value": "-----BEGIN", "contentType": "application/x-pem-file"})
	s.ok("reader", "GET", "kv1", "/secrets/other?"+asPEM+"&"+api, nil)
	s.refused(400, "BadParameter", "reader", "GET", "kv1", "/secrets/other?outContentType=application/x-pkcs12&"+api, nil)
}
