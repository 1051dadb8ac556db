package web

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
)

// Mux routes by the standard library's patterns, to handlers that return
// errors. It never redirects and never writes an error body: no match is a
// fault of kind Missing, a known path with another verb one of kind
// BadMethod. Paths must have been cleaned by [CleanPath], which [Edge] does.
type Mux struct {
	mux http.ServeMux
}

// Handle registers h for a pattern such as "GET /secrets/{name}". It panics
// on a pattern that conflicts with another: a mistake in our own routes.
func (m *Mux) Handle(pattern string, h HandlerFunc) {
	m.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		CallOf(r.Context()).err = h(w, r)
	})
}

// Serve routes the request; it is a HandlerFunc. HEAD matches GET routes.
func (m *Mux) Serve(w http.ResponseWriter, r *http.Request) error {
	_, pattern := m.mux.Handler(r)
	if pattern == "" {
		return m.noMatch(r)
	}
	c := CallOf(r.Context())
	c.pattern, c.err = pattern, nil
	m.mux.ServeHTTP(w, r)
	return c.err
}

// noMatch tells an unknown path from a known one with another verb, which
// ServeMux only tells by writing a response.
func (m *Mux) noMatch(r *http.Request) error {
	probe := *r
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		probe.Method = method
		if _, p := m.mux.Handler(&probe); p != "" {
			return fault.New(fault.BadMethod, "MethodNotAllowed", "The requested resource does not support http method '%s'.", r.Method)
		}
	}
	return fault.NotFound("NotFound", "No resource matches the requested path.")
}

// CleanPath collapses repeated slashes and drops a closing one, in the
// escaped form, so that percent-encoded slashes stay what they are. SDKs
// send both: GET /secrets/n/ and POST /keys/n//sign. Dot segments are left
// for the routes to refuse.
func CleanPath(p string) string {
	if p == "" || p == "/" {
		return "/"
	}
	if !strings.Contains(p, "//") {
		if p[0] != '/' {
			p = "/" + p
		}
		return strings.TrimSuffix(p, "/")
	}
	var b strings.Builder
	for seg := range strings.SplitSeq(p, "/") {
		if seg != "" {
			b.WriteByte('/')
			b.WriteString(seg)
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
