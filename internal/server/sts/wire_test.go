package sts_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/podkey/podkey/internal/web/wiretest"
)

func TestWire(t *testing.T) {
	wiretest.Run(t, "testdata/wire/*.txtar", func(t *testing.T) (http.Handler, map[string]string) {
		g := start(t)
		return g.edge, map[string]string{
			"tenant": tenantID, "client": g.mi.ClientID, "app": g.app.AppID, "secret": g.secret,
			"assertion": g.issuer.sign(g.assertion(), nil),
			"password":  url.QueryEscape(password), "stranger": g.issuer.sign(merge(g.assertion(), map[string]any{"sub": "system:serviceaccount:shop:stranger"}), nil),
		}
	})
}
