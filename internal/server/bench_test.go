package server

import (
	"context"
	"encoding/json"

	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/bootstrap"
	"github.com/podkey/podkey/internal/client"
)

// startServer runs a server until the test ends.
func startServer(t testing.TB, c Config) (*Server, *client.Client) {
	t.Helper()
	if c.Data == "" {
		c.Data = t.TempDir()
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := New(ctx, c, Deps{Log: discard})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	api, err := client.Open(c.Data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.HTTP.CloseIdleConnections)
	return s, api
}

// BenchmarkHandler is the whole server without the network: what the CPU does
// for one request, and what it allocates.
func BenchmarkHandler(b *testing.B) {
	s, api := startServer(b, Config{})
	f, err := bootstrap.Parse([]byte(`
identities:
  - name: bench
    resourceGroup: bench
    federatedCredentials:
      - {name: bench, namespace: bench, serviceAccount: bench}
vaults:
  - name: bench
    resourceGroup: bench
    access: [{identity: bench, role: Key Vault Secrets Officer}]
    secrets: [{name: warm, value: ` + strings.Repeat("v", 1024) + `}]
`))
	if err != nil {
		b.Fatal(err)
	}
	if err := bootstrap.Apply(b.Context(), api, f, func(bootstrap.Step) {}); err != nil {
		b.Fatal(err)
	}
	ids, err := api.Identities(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	assertion, _, err := api.ServiceAccountToken(b.Context(), "local", "bench", "bench", "api://AzureADTokenExchange", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {ids[0].Properties.ClientID}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}.Encode()
	exchange := func() *http.Request {
		r := httptest.NewRequest("POST", "https://login.microsoftonline.com/"+api.Operator.TenantID+"/oauth2/v2.0/token", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, exchange())
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &token); err != nil || rec.Code != 200 {
		b.Fatalf("%d %s", rec.Code, rec.Body)
	}
	authorized := func(r *http.Request) *http.Request {
		r.Header.Set("Authorization", "Bearer "+token.AccessToken)
		return r
	}
	body := `{"value":"` + strings.Repeat("v", 1024) + `"}`
	n := 0
	for _, c := range []struct {
		name string
		next func() *http.Request
	}{
		{"SecretGet", func() *http.Request {
			return authorized(httptest.NewRequest("GET", "https://bench.vault.azure.net/secrets/warm/?api-version=7.5", nil))
		}},
		{"SecretSet", func() *http.Request {
			n++
			return authorized(httptest.NewRequest("PUT", "https://bench.vault.azure.net/secrets/s"+strconv.Itoa(n)+"?api-version=7.5", strings.NewReader(body)))
		}},
		{"TokenExchange", exchange},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			w := &unread{header: http.Header{}}
			for range b.N {
				b.StopTimer()
				r := c.next()
				clear(w.header)
				b.StartTimer()
				s.Handler().ServeHTTP(w, r)
				if w.status != 200 {
					b.Fatalf("HTTP %d", w.status)
				}
			}
		})
	}
}

// unread is an answer that nobody reads.
type unread struct {
	header http.Header
	status int
}

func (u *unread) Header() http.Header         { return u.header }
func (u *unread) Write(p []byte) (int, error) { return len(p), nil }
func (u *unread) WriteHeader(status int)      { u.status = status }

var discard = slog.New(slog.DiscardHandler)
