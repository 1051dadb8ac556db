package sts_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/sts"
)

// BenchmarkToken is a token request through edge and plane without TLS. The
// federated one presents another assertion each time out of a thousand, as a
// cluster's pods do; "same" the same one, as one pod does.
func BenchmarkToken(b *testing.B) {
	g := start(b, func(h *sts.Handler) {
		h.Audit, h.Log = audit.New(io.Discard, audit.Options{Now: h.Now}), slog.New(slog.DiscardHandler)
	})
	g.edge.Log = slog.New(slog.DiscardHandler)
	var many []string
	for i := range 1000 {
		many = append(many, g.withAssertion(g.issuer.sign(merge(g.assertion(), map[string]any{"jti": fmt.Sprint(i)}), nil)).Encode())
	}
	graph := g.bySecret()
	graph.Set("scope", "https://graph.windows.net/.default")
	for _, c := range []struct {
		name  string
		forms []string
	}{
		{"federated", many},
		{"federated-same", many[:1]},
		{"secret", []string{g.bySecret().Encode()}},
		{"secret-RS256", []string{graph.Encode()}},
		{"certificate", []string{g.byCertificate("PS256", nil, nil).Encode()}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w := httptest.NewRecorder()
				r := post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", c.forms[i%len(c.forms)])
				if g.edge.ServeHTTP(w, r); w.Code != 200 {
					b.Fatal(w.Body)
				}
				i++
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		form := strings.Replace(g.bySecret().Encode(), "client_secret=", "client_secret=x", 1)
		for b.Loop() {
			w := httptest.NewRecorder()
			if g.edge.ServeHTTP(w, post(ownHost, "/"+tenantID+"/oauth2/v2.0/token", form)); w.Code != 401 {
				b.Fatal(w.Body)
			}
		}
	})
}
