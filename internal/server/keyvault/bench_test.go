package keyvault_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/web"
)

// discard is a ResponseWriter that keeps nothing, so that the benchmark
// counts what the handler does and not what a recorder does.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkGet reads a secret through edge and data plane, with roles and
// audit, without network and TLS.
func BenchmarkGet(b *testing.B) {
	for _, bm := range []struct {
		name  string
		size  int
		audit func(b *testing.B) io.Writer
	}{
		{"1KiB audit discarded", 1 << 10, func(*testing.B) io.Writer { return io.Discard }},
		{"1KiB audit to a file", 1 << 10, func(b *testing.B) io.Writer {
			f, err := os.Create(filepath.Join(b.TempDir(), "audit.jsonl"))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { f.Close() })
			return f
		}},
		{"25KiB audit discarded", 25 << 10, func(*testing.B) io.Writer { return io.Discard }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := newSystemIn(b, "", bm.audit(b))
			s.handler.(*web.Edge).Log = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelInfo}))
			s.set("kv1", "database-password", strings.Repeat("0123456789abcdef", bm.size/16))
			r := httptest.NewRequest("GET", "https://kv1."+suffix+"/secrets/database-password/?"+api, nil)
			r.Header.Set("Authorization", "Bearer reader")
			r.Header.Set("X-Ms-Client-Request-Id", "5a1b2c3d-0000-4000-8000-00000000000f")
			w := &discard{}
			b.ReportAllocs()
			for b.Loop() {
				w.header = make(http.Header, 16)
				s.handler.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatal(w.status)
				}
				r.URL.Path, r.URL.RawPath = "/secrets/database-password/", ""
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	s := newSystemIn(b, "", io.Discard)
	body := map[string]any{"value": strings.Repeat("x", 1<<10)}
	b.ReportAllocs()
	for b.Loop() {
		s.ok("officer", "PUT", "kv1", "/secrets/s", body)
	}
}
