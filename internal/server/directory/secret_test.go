package directory_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

func TestClientSecrets(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	a, _ := application(t, d, directory.Application{})
	other, _ := application(t, d, directory.Application{})
	generated, text, err := d.AddSecret(ctx, a.ObjectID, directory.NewSecret{DisplayName: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9]{3}[0-9]Q~[A-Za-z0-9._~-]{34}$`).MatchString(text) {
		t.Errorf("generated secret has another shape than Entra's")
	}
	if generated.Hint != text[:3] || !generated.Start.Equal(start) || !generated.End.After(start) {
		t.Errorf("%+v", generated)
	}
	chosen, _, err := d.AddSecret(ctx, a.ObjectID, directory.NewSecret{Text: "correct horse", End: start.Add(time.Hour)})
	if err != nil || chosen.Hint != "" {
		t.Fatalf("%+v, %v", chosen, err)
	}
	if _, _, err := d.AddSecret(ctx, other.ObjectID, directory.NewSecret{Text: "another's horse"}); err != nil {
		t.Fatal(err)
	}
	verify := func(text string) string {
		c, _, err := d.Client(ctx, tenantID, a.AppID)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := d.VerifySecret(ctx, &c, text)
		if err != nil {
			t.Fatal(err)
		}
		return s.KeyID
	}
	for _, c := range []struct{ name, text, want string }{
		{"generated", text, generated.KeyID},
		{"chosen", "correct horse", chosen.KeyID},
		{"empty", "", ""},
		{"wrong", "wrong horse", ""},
		{"shortened", text[:39], ""},
		{"lengthened", text + "x", ""},
		{"other case", strings.ToUpper(text), ""},
		{"key id", generated.KeyID, ""},
		{"another application's", "another's horse", ""},
		{"huge", strings.Repeat("x", 1<<20), ""},
	} {
		if got := verify(c.text); got != c.want {
			t.Errorf("%s: verified as %q, want %q", c.name, got, c.want)
		}
	}
	for _, bad := range []directory.NewSecret{
		{Text: "short"}, {Text: strings.Repeat("x", 257)}, {Text: "12345678\xff"}, {Start: start, End: start}, {Start: start, End: start.Add(-time.Hour)},
	} {
		_, _, err := d.AddSecret(ctx, a.ObjectID, bad)
		wantKind(t, err, fault.Invalid)
	}
	_, _, err = d.AddSecret(ctx, tenantID, directory.NewSecret{})
	wantKind(t, err, fault.Missing)

	if existed, err := d.RemoveSecret(ctx, a.ObjectID, strings.ToUpper(generated.KeyID)); !existed || err != nil {
		t.Errorf("RemoveSecret: %v, %v", existed, err)
	}
	if verify(text) != "" || verify("correct horse") != chosen.KeyID {
		t.Error("after RemoveSecret, the wrong secret is gone")
	}

	t.Run("nothing exported holds them", func(t *testing.T) {
		stored, _, err := d.Application(ctx, a.ObjectID)
		if err != nil {
			t.Fatal(err)
		}
		c, _, _ := d.Client(ctx, tenantID, a.AppID)
		js, err := json.Marshal([]any{stored, c})
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"horse", "argon2", "sha256\"", text} {
			if strings.Contains(string(js), word) {
				t.Errorf("%q in %s", word, js)
			}
		}
	})
	t.Run("waiting for a slow hash ends with the request", func(t *testing.T) {
		c, _, _ := d.Client(ctx, tenantID, a.AppID)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		for range 20 { // more often than there are places for slow hashes
			if _, ok, err := d.VerifySecret(ended, &c, "wrong horse"); ok || !fault.Is(err, fault.Unavailable) {
				t.Fatalf("%v, %v", ok, err)
			}
		}
		if _, ok, err := d.VerifySecret(ctx, &c, "correct horse"); !ok || err != nil {
			t.Errorf("afterwards: %v, %v", ok, err)
		}
	})
}

func TestConcurrentSecretsAllCount(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	a, _ := application(t, d, directory.Application{})
	texts := make([]string, 32)
	var wg sync.WaitGroup
	for i := range texts {
		wg.Go(func() {
			var err error
			if _, texts[i], err = d.AddSecret(ctx, a.ObjectID, directory.NewSecret{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, _, err := d.Client(ctx, tenantID, a.AppID)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, text := range texts {
		s, ok, err := d.VerifySecret(ctx, &c, text)
		if !ok || err != nil || found[s.KeyID] {
			t.Errorf("%v, %v, found before: %v", ok, err, found[s.KeyID])
		}
		found[s.KeyID] = true
	}
}

func TestSecretsSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	var appID, text string
	t.Run("write", func(t *testing.T) {
		var d *directory.Directory
		storetest.New(t, dir, func(s *store.Store) { d = directory.New(s, directory.Options{}) })
		if _, err := d.CreateTenant(t.Context(), directory.Tenant{ID: tenantID}); err != nil {
			t.Fatal(err)
		}
		a, _ := application(t, d, directory.Application{})
		var err error
		if _, text, err = d.AddSecret(t.Context(), a.ObjectID, directory.NewSecret{}); err != nil {
			t.Fatal(err)
		}
		appID = a.AppID
	})
	t.Run("read", func(t *testing.T) {
		var d *directory.Directory
		storetest.New(t, dir, func(s *store.Store) { d = directory.New(s, directory.Options{}) })
		c, ok, err := d.Client(t.Context(), tenantID, appID)
		if err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		if _, ok, err := d.VerifySecret(t.Context(), &c, text); !ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
	})
}

func certificate(t *testing.T, key any, public any) []byte {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: start, NotAfter: start.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestClientCertificates(t *testing.T) {
	d, ctx := open(t, directory.Options{})
	a, _ := application(t, d, directory.Application{})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := certificate(t, key, &key.PublicKey)
	c, err := d.AddCertificate(ctx, a.ObjectID, "ci", der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der)
	if c.X5T != base64.RawURLEncoding.EncodeToString(sum[:]) || !c.Start.Equal(start) || !c.End.Equal(start.Add(24*time.Hour)) || c.Subject != "CN=client" {
		t.Errorf("%+v", c)
	}
	client, _, _ := d.Client(ctx, tenantID, a.AppID)
	if len(client.Certificates) != 1 || client.Certificates[0].X5TS256 != c.X5TS256 {
		t.Errorf("%+v", client.Certificates)
	}
	_, err = d.AddCertificate(ctx, a.ObjectID, "again", der)
	wantKind(t, err, fault.Clash)
	_, err = d.AddCertificate(ctx, a.ObjectID, "junk", []byte("junk"))
	wantKind(t, err, fault.Invalid)
	_, err = d.AddCertificate(ctx, a.ObjectID, "trailing", append(der, 0))
	wantKind(t, err, fault.Invalid)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.AddCertificate(ctx, a.ObjectID, "EC", certificate(t, ec, &ec.PublicKey))
	wantKind(t, err, fault.Invalid)
	if err := d.SetCertificates(ctx, a.ObjectID, nil); err != nil {
		t.Errorf("SetCertificates: %v", err)
	}
	if client, _, _ := d.Client(ctx, tenantID, a.AppID); len(client.Certificates) != 0 {
		t.Error("the certificate is still there")
	}
}
