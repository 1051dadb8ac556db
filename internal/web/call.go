package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/podkey/podkey/internal/audit"
)

// Call is what the edge knows of one request. Handlers find it with [CallOf]
// and add to its log line as they learn things; the edge writes that line
// once, when the answer is out.
type Call struct {
	audit.Request        // id, correlation id, peer address
	Names         *Names // the names that the request came in by
	Host          string // lower-case Host header, with port if there was one
	Vault         string // the vault's name if the host was a vault's, lower case

	plane   *Plane
	pattern string // the mux pattern that matched
	err     error  // what the handler returned
	start   time.Time
	logged  bool // the handler wrote a line of its own
	attrs   []slog.Attr
}

type callKey struct{}

// CallOf returns the request's call. It is never nil behind [Edge].
func CallOf(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// Note adds an attribute to the request's one log line. Values must not be
// secrets.
func (c *Call) Note(key string, value any) {
	c.attrs = append(c.attrs, slog.Any(key, value))
}

// NotePattern sets the route on the log line, for a plane that does not route
// by [Mux].
func (c *Call) NotePattern(pattern string) { c.pattern = pattern }

// Logged says that the handler has written a line of its own about a refusal:
// the edge's is then for debugging only, so that there is one line for people.
func (c *Call) Logged() { c.logged = true }

// NotePrincipal adds who called to the log line.
func (c *Call) NotePrincipal(p audit.Principal) {
	c.attrs = append(c.attrs, slog.String("oid", p.ObjectID), slog.String("appid", p.AppID))
}

// HandlerFunc answers a request or returns an error; it does not write error
// bodies. After it has written, it returns nil.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Plane is one API face: its routes and its way to say no.
type Plane struct {
	Name  string      // login, management, graph, vault, issuer: the plane label of logs
	Serve HandlerFunc // routes and answers

	// MaxBody is the largest request body, if it is more than the constant of
	// that name. Handlers that expect no such bodies have their own limit.
	MaxBody int64

	// Fail writes err in the plane's own body. It must cope with errors that
	// are not faults (an internal error, without its text).
	Fail func(w http.ResponseWriter, r *http.Request, err error)
}
