package sts_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web/wiretest"
)

// TestWireSlow plays conversations in which an hour passes after each
// exchange.
func TestWireSlow(t *testing.T) {
	wiretest.Run(t, "testdata/wire/slow/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		g := start(t)
		slow := func(w http.ResponseWriter, r *http.Request) {
			g.edge.ServeHTTP(w, r)
			g.advance(time.Hour)
		}
		// For the third exchange: right in all but the key that signed it.
		later := g.clock().Add(2 * time.Hour)
		x5t, _ := directory.Thumbprints(clientCertificate())
		forged := sign(issuerKey(), map[string]any{"alg": "PS256", "typ": "JWT", "x5t": x5t}, map[string]any{
			"iss": g.app.AppID, "sub": g.app.AppID, "aud": "https://" + ownHost + "/" + tenantID + "/oauth2/v2.0/token",
			"jti": "2", "nbf": later.Unix(), "exp": later.Add(10 * time.Minute).Unix(),
		})
		return http.HandlerFunc(slow), map[string]string{
			"tenant": tenantID, "app": g.app.AppID, "secret": g.secret, "password": url.QueryEscape(password),
			"certificate": g.byCertificate("PS256", nil, nil).Get("client_assertion"), "forged": forged,
			"basic": base64.StdEncoding.EncodeToString([]byte(g.app.AppID + ":" + url.QueryEscape(g.secret))),
		}
	})
}
