package keyvault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"
)

// A token that is accepted is the only one for its place, and leads back to
// it; what the listing's check lets through is a name.
func FuzzSkipToken(f *testing.F) {
	f.Add(skipToken("secrets", "a"), "secrets")
	f.Add(skipToken("versions:s", strings.Repeat("0", 32)), "versions:s")
	token := skipToken("secrets", "a")
	f.Add(token[:len(token)-1]+string(token[len(token)-1]+1), "secrets") // the same but for bits that count for nothing
	f.Add("MTpzZWNyZXRzOnM=", "secrets")
	f.Add("MTpz\nZWNyZXRzOnM", "secrets")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, token, collection string) {
		last, ok := openSkipToken(token, collection)
		if !ok {
			return
		}
		if got := skipToken(collection, last); got != token {
			t.Errorf("%q means %q, whose token is %q", token, last, got)
		}
		if lowerName(last) && strings.ContainsAny(last, "/%.\x00 ") {
			t.Errorf("%q passes for a name", last)
		}
	})
}

// find never panics, and gives a handler only paths of its pattern.
func FuzzFind(f *testing.F) {
	for _, p := range []string{"/", "", "/secrets", "/secrets/a/b", "/secrets/restore", "/secrets/%2F", "/a/b/c/d", "//", "/secrets//x", "/DeletedSecrets/A/Recover", "/secrets/%zz"} {
		for _, m := range []string{"GET", "POST", "DELETE"} {
			f.Add(m, p)
		}
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		got := find(method, path)
		if (got.route == nil) == (got.err == nil) {
			t.Fatalf("%+v", got)
		}
		if got.route == nil {
			return
		}
		segs := strings.Split(strings.TrimPrefix(path, "/"), "/")
		if got.route.method != method || len(segs) != len(got.route.segments) {
			t.Errorf("%s %q goes to %s %s", method, path, got.route.method, got.route.pattern)
		}
		if strings.Contains(got.route.pattern, "{name}") && got.name == "" {
			t.Errorf("%q has no name", path)
		}
	})
}

// The check for half characters agrees with the decoder, which puts U+FFFD in
// their place.
func FuzzLoneSurrogate(f *testing.F) {
	for _, s := range []string{`\ud83d\udd11`, `\ud83d`, `\udd11`, `\ud83d\\udd11`, `\\ud83d`, `\uD83D\uDD11`, `\ud83d\ud83d\udd11`, `\ufffd`, `\ud83d\u`, `\u00e9`, `a\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, inner string) {
		text := `"` + inner + `"`
		var got string
		if json.Unmarshal([]byte(text), &got) != nil || !utf8.ValidString(inner) {
			return
		}
		given := strings.Count(inner, "\ufffd") + strings.Count(strings.ToLower(strings.ReplaceAll(inner, `\\`, "")), `\ufffd`)
		if lone := strings.Count(got, "\ufffd") > given; lone != loneSurrogate([]byte(text)) {
			t.Errorf("loneSurrogate(%q) = %v, decoded %q", text, !lone, got)
		}
	})
}

func FuzzPFX(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	for _, enc := range []*pkcs12.Encoder{pkcs12.Modern2023, pkcs12.LegacyDES, pkcs12.Passwordless} {
		f.Add(usualPFX(f, enc))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		tame, err := tamePFX(der, maxIterations)
		if err == nil {
			if _, err := tamePFX(tame, maxIterations); err != nil {
				t.Errorf("the result is not tame: %v", err)
			}
		}
	})
}

// The part with the visible key comes first, so that the decoder, which stops
// at a second key, never gets to one inside an encrypted part. A file without
// a visible key is refused.
func TestTamePFXPutsVisibleKeyFirst(t *testing.T) {
	pfx := usualPFX(t, pkcs12.Modern2023)
	parts := partsOf(t, pfx)
	if len(parts) != 2 || !parts[0].Type.Equal(oidEncrypted) {
		t.Fatalf("the file is not of the usual form: %v", parts)
	}
	tame, err := tamePFX(pfx, maxIterations)
	if err != nil {
		t.Fatal(err)
	}
	if got := partsOf(t, tame); !got[0].Type.Equal(oidData) || !got[1].Type.Equal(oidEncrypted) {
		t.Errorf("order %v, %v", got[0].Type, got[1].Type)
	}
	noKey, err := marshalPFX(parts[:1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tamePFX(noKey, maxIterations); err == nil {
		t.Error("a file without a visible key is accepted")
	}
}

// A file's maker chooses how often a key is derived, and the decoder obeys.
// A demand for millions of rounds is refused before the first, wherever in
// the file it stands, but in the integrity check, which is not made.
func TestAttackEndlessKeyDerivation(t *testing.T) {
	for name, enc := range map[string]*pkcs12.Encoder{"modern": pkcs12.Modern2023, "legacy": pkcs12.LegacyDES, "old": pkcs12.LegacyRC2} {
		pfx := usualPFX(t, enc.WithIterations(5000))
		count, most := []byte{2, 2, 0x13, 0x88}, []byte{2, 2, 0x7f, 0xff}
		places := 0
		for at := 0; ; at += len(count) {
			i := bytes.Index(pfx[at:], count)
			if i < 0 {
				break
			}
			at += i
			places++
			evil := bytes.Clone(pfx)
			copy(evil[at:], most)
			_, err := tamePFX(evil, 5000)
			inCheck := !bytes.Contains(pfx[at+len(count):], count) // the last place
			if (err == nil) != inCheck {
				t.Errorf("%s, place %d: err = %v", name, places, err)
			}
		}
		if places != 3 {
			t.Errorf("%s: the count stands in %d places", name, places)
		}
		if _, err := tamePFX(pfx, 5000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// usualPFX is a file with a key and its certificate.
func usualPFX(t testing.TB, enc *pkcs12.Encoder) []byte {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pfx, err := enc.Encode(priv, cert, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return pfx
}

func partsOf(t *testing.T, der []byte) []contentInfo {
	t.Helper()
	var file pfxFile
	var inner []byte
	var parts []contentInfo
	if err := unmarshalAll(der, &file); err != nil {
		t.Fatal(err)
	}
	if err := unmarshalAll(file.AuthSafe.Content.Bytes, &inner); err != nil {
		t.Fatal(err)
	}
	if err := unmarshalAll(inner, &parts); err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestEveryRouteIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range routes {
		if rt.operation == "" || rt.permission == "" || rt.handle == nil || !strings.HasPrefix(rt.action, "Microsoft.KeyVault/vaults/secrets/") {
			t.Errorf("%s %s lacks something", rt.method, rt.pattern)
		}
		if len(rt.segments) > maxSegments || seen[rt.method+rt.pattern] {
			t.Errorf("%s %s is too long, or there twice", rt.method, rt.pattern)
		}
		seen[rt.method+rt.pattern] = true
	}
	if len(seen) != 14 {
		t.Errorf("%d routes", len(seen))
	}
}
