package connect

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestClaimsAreCompared(t *testing.T) {
	t.Parallel()
	token := func(claims string) string { return "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s" }
	const issuer, subject, audience = "https://oidc.example/a/", "system:serviceaccount:shop:web", "api://AzureADTokenExchange"
	rest := `,"sub":"` + subject + `","aud":["other","` + audience + `"]}`
	for name, tc := range map[string]struct{ token, want string }{
		"the same":            {token(`{"iss":"` + issuer + `"` + rest), ""},
		"the audience alone":  {token(`{"iss":"` + issuer + `","sub":"` + subject + `","aud":"` + audience + `"}`), ""},
		"issuer without /":    {token(`{"iss":"https://oidc.example/a"` + rest), "iss is https://oidc.example/a, the credential has " + issuer},
		"another subject":     {token(`{"iss":"` + issuer + `","sub":"system:serviceaccount:shop:Web","aud":"` + audience + `"}`), "sub is system:serviceaccount:shop:Web, the credential has " + subject},
		"another audience":    {token(`{"iss":"` + issuer + `","sub":"` + subject + `","aud":["https://kubernetes"]}`), "aud is https://kubernetes, the credential has " + audience},
		"audience of numbers": {token(`{"iss":"` + issuer + `","sub":"` + subject + `","aud":[1]}`), "aud is , the credential has " + audience},
		"nothing":             {token(`{}`), "iss is , the credential has " + issuer + "; sub is , the"},
		"two parts":           {"h.e30", "not a JWT"},
		"no base64":           {"h.?.s", "not a JWT"},
		"no JSON":             {token(`{`), "not JSON"},
	} {
		_, err := compareClaims(tc.token, issuer, subject, audience)
		if err == nil && tc.want != "" || err != nil && (tc.want == "" || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Which issuer the credential has may not be known.
	if got, err := compareClaims(token(`{"iss":"`+issuer+`"`+rest), "", subject, audience); err != nil || got != issuer {
		t.Errorf("%s, %v", got, err)
	}
}

// A proof sends a token only over TLS, and only to what says that it is a vault.
func TestProofSendsNoTokenElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	p, _ := r.connect(shopRequest())
	var got []string
	elsewhere := func(header string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			got = append(got, q.Header.Get("Authorization"))
			w.Header().Set("WWW-Authenticate", header)
			w.WriteHeader(401)
		})
	}
	plain := httptest.NewServer(elsewhere(`Bearer resource="https://vault.azure.net"`))
	defer plain.Close()
	p.Vault.URI = plain.URL + "/"
	if _, err := r.connection(shopRequest()).Prove(t.Context(), p, false); err == nil || !strings.Contains(err.Error(), "the address of the vault is "+plain.URL) {
		t.Error(err)
	}
	c := r.connection(shopRequest())
	for _, header := range []string{"", "Bearer", `Bearer resource="https://vault.azure.net`, `Bearer resource="http://127.0.0.1"`} {
		mute := httptest.NewTLSServer(elsewhere(header))
		defer mute.Close()
		c.Cloud = NewCloud(CloudOptions{Transport: mute.Client()})
		if _, err := c.vaultResource(t.Context(), mute.URL+"/"); err == nil || !strings.Contains(err.Error(), "answers 401 without saying what tokens it wants") {
			t.Errorf("%q: %v", header, err)
		}
	}
	for _, h := range got {
		if h != "" {
			t.Errorf("sent %s", h)
		}
	}

	p.Vault = nil
	if found, err := r.connection(shopRequest()).Prove(t.Context(), p, false); err != nil || len(found) != 2 {
		t.Errorf("without a vault: %v, %v", found, err)
	}
	p.Identity = nil
	if _, err := r.connection(shopRequest()).Prove(t.Context(), p, false); err == nil || !strings.Contains(err.Error(), "nothing to prove it by") {
		t.Error(err)
	}
}

// After a change, Azure's refusals that pass are waited out; others, and
// Podkey's, are not.
func TestProofWaitsForAzure(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		podkey, made bool
		err          error
		asked        int
	}{
		"forbidden":               {false, true, &Refusal{Status: 403}, 3},
		"no such credential yet":  {false, true, &Refusal{Status: 401, Message: "AADSTS700213: ..."}, 3},
		"a wrong request":         {false, true, &Refusal{Status: 400, Message: "AADSTS90061: ..."}, 1},
		"no refusal":              {false, true, errors.New("no route"), 1},
		"nothing was made":        {false, false, &Refusal{Status: 403}, 1},
		"Podkey, which is prompt": {true, true, &Refusal{Status: 403}, 1},
	} {
		asked := 0
		c := &Connection{Cloud: &Cloud{Podkey: tc.podkey}, Wait: func(context.Context, time.Duration) error { return nil }}
		err := c.eventually(t.Context(), tc.made, func() error {
			if asked++; asked == 3 {
				return nil
			}
			return tc.err
		})
		if asked != tc.asked || (err == nil) != (asked == 3) {
			t.Errorf("%s: asked %d times, %v", name, asked, err)
		}
	}
	hint := func(podkey bool, message string) string {
		return (&Connection{Cloud: &Cloud{Podkey: podkey}}).exchangeHint(&Refusal{Status: 401, Message: message})
	}
	if !strings.Contains(hint(true, "AADSTS90061: ..."), "podkey cluster register") || hint(false, "AADSTS90061: ...") != "" || hint(true, "AADSTS700213: ...") != "" {
		t.Error("the hint about the cluster's keys is for Podkey and for keys that it does not know")
	}
}
