package imds_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/imds"
)

// FuzzHandler sends any request target and headers: every answer is a JSON
// object, and there is a token only for who had to be given one.
func FuzzHandler(f *testing.F) {
	f.Add("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r", "true", "", "127.0.0.1")
	f.Add("/msi/token?api-version=2019-08-01&resource=r&client_id=c", "", secret, "localhost:80")
	f.Add("/msi/token/?api-version=2017-09-01&resource=r&clientid=c", "", secret, "[::1]:80")
	f.Add("/metadata/instance/compute?api-version=1&format=text", "TRUE", "x", "attacker.example")
	f.Add("/metadata/attested/../Identity/oauth2/token?api-version=1", "true", "", "169.254.169.254")
	f.Add("/Metadata/scheduledevents?api-version=1", "true", "", "169.254.169.254")
	f.Fuzz(func(t *testing.T, target, metadata, header, host string) {
		u, err := url.Parse(target)
		if err != nil {
			return
		}
		asked := 0
		h := &imds.Handler{
			Secret: secret, Metadata: true, Instance: map[string]any{"compute": map[string]any{}},
			Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				first, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(path.Clean(r.URL.Path)), "/metadata/"), "/")
				if first == "identity" || first == "" || !strings.EqualFold(metadata, "true") {
					t.Errorf("%q was passed on", target)
				}
				_, _ = w.Write([]byte("{}"))
			}),
			Token: func(_ context.Context, a imds.Ask) (imds.Token, error) {
				asked++
				if a.Resource == "" {
					t.Error("a token for nothing was asked for")
				}
				return imds.Token{Value: "t", Expires: expires}, nil
			},
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL, r.Host = u, host
		r.Header = http.Header{"Metadata": {metadata}, "X-Identity-Header": {header}, "Secret": {header}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var m map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			t.Fatalf("HTTP %d %q", w.Code, w.Body)
		}
		if asked > 0 && !strings.EqualFold(metadata, "true") && header != secret {
			t.Fatalf("a token for %q without header or secret", target)
		}
		if got := m["access_token"] != nil; got != (asked == 1 && w.Code == 200) {
			t.Fatalf("HTTP %d, asked %d times: %v", w.Code, asked, m)
		}
	})
}
