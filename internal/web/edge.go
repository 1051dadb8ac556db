// Package web is the HTTP edge under every plane.
//
// It owns what all requests share: request ids, path clean-up, limits, the
// choice of plane by host, turning a handler's returned error into the
// plane's body, recovery from a panic, and the one log line per request. It
// guarantees that a handler's error reaches the client only through the
// plane's Fail, that no redirect is ever sent for the sake of a path, and
// that log lines carry neither bodies nor query values nor tokens.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
)

// MaxBody is the largest request body that is read, in bytes, unless a plane
// says otherwise.
const MaxBody = 1 << 20

// Edge is the outermost handler. All fields must be set.
type Edge struct {
	Log *slog.Logger
	Now func() time.Time

	// Route picks plane, names and (for a vault's host) vault by the lower-case
	// host, port included if the client sent one. It always returns a plane:
	// for hosts that are not ours, one that says so.
	Route func(host string) (plane *Plane, names *Names, vault string)
}

// ServeHTTP implements http.Handler.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &Call{Host: strings.ToLower(r.Host), start: e.Now()}
	c.ID = uuid.NewString()
	c.CorrelationID = correlationID(r.Header, c.ID)
	c.RemoteAddr = peer(r.RemoteAddr)
	c.plane, c.Names, c.Vault = e.Route(c.Host)

	rw := &response{ResponseWriter: w}
	defer e.finish(rw, r, c)

	ctx := context.WithValue(r.Context(), callKey{}, c)
	ctx = audit.WithRequest(ctx, &c.Request)
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(rw, r.Body, max(c.plane.MaxBody, MaxBody))
	c.err = e.serve(rw, r, c)
	if c.err != nil && !rw.wrote {
		c.plane.Fail(rw, r, c.err)
	}
}

// serve refuses what no plane should see and hands the rest to the plane. A
// panic below becomes an error here, so that the plane's Fail answers it.
func (e *Edge) serve(w http.ResponseWriter, r *http.Request, c *Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	for _, h := range singletons {
		if len(r.Header[h]) > 1 {
			return fault.BadRequest("BadRequest", "The header %s must not be repeated.", h)
		}
	}
	escaped := CleanPath(r.URL.EscapedPath())
	if hasDotSegment(escaped) {
		return fault.BadRequest("BadRequest", "The path must not contain dot segments.")
	}
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return fault.BadRequest("BadRequest", "The path is not validly percent-encoded.")
	}
	r.URL.Path, r.URL.RawPath = path, escaped
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return fault.BadRequest("BadRequest", "The query string is malformed.")
	}
	return c.plane.Serve(w, r)
}

// singletons are headers whose repetition one reader could resolve
// differently from another; a request that repeats one is refused whole.
var singletons = [...]string{"Authorization", "Content-Type", "If-Match", "If-None-Match", "X-Http-Method"}

func hasDotSegment(escaped string) bool {
	if !strings.Contains(escaped, "/.") && !strings.Contains(escaped, "%2") {
		return false
	}
	for seg := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(seg)
		if err == nil && (s == "." || s == "..") {
			return true
		}
	}
	return false
}

// finish writes the request's one log line. Answers that are nobody's mistake
// (2xx, 3xx and the 401 that every Azure SDK provokes first) are logged at
// debug level, refusals at info, our own failures at error.
func (e *Edge) finish(w *response, r *http.Request, c *Call) {
	level := slog.LevelDebug
	switch {
	case w.status >= 500:
		level = slog.LevelError
	case w.status >= 400 && w.status != http.StatusUnauthorized && !c.logged:
		level = slog.LevelInfo
	}
	ctx := r.Context()
	if errors.Is(c.err, context.Canceled) && ctx.Err() != nil {
		level = slog.LevelDebug // the client went away
	}
	if !e.Log.Enabled(ctx, level) {
		return
	}
	attrs := append(c.attrs,
		slog.String("plane", c.plane.Name),
		slog.String("method", r.Method),
		slog.String("pattern", c.pattern),
		slog.String("host", c.Host),
		slog.Int("status", w.status),
		slog.Int64("bytes", w.bytes),
		slog.Duration("took", e.Now().Sub(c.start)),
		slog.String("request", c.ID),
		slog.String("remote", c.RemoteAddr),
	)
	if c.CorrelationID != c.ID {
		attrs = append(attrs, slog.String("correlation", c.CorrelationID))
	}
	if c.err != nil {
		attrs = append(attrs, slog.String("error", c.err.Error()))
	}
	e.Log.LogAttrs(ctx, level, "request", attrs...)
}

// correlationID takes the id that a client chose, if it is one: SDKs send
// x-ms-client-request-id, the authentication libraries client-request-id.
// Other text is not copied into logs and answers.
func correlationID(h http.Header, fallback string) string {
	for _, k := range [...]string{"X-Ms-Client-Request-Id", "Client-Request-Id"} {
		if v := h[k]; len(v) > 0 && len(v[0]) == 36 {
			if id, err := uuid.Parse(v[0]); err == nil {
				return id.String()
			}
		}
	}
	return fallback
}

func peer(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// response remembers what was answered, for the log line.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
	wrote  bool
}

func (w *response) WriteHeader(status int) {
	if !w.wrote && status >= 200 {
		w.wrote, w.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
