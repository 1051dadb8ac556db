// Package imds answers the local protocols by which Azure's SDKs ask for the
// token of a managed identity: that of the instance metadata service (IMDS),
// and App Service's, which needs no link-local address and no interception.
//
// It owns the wire: paths, parameters, required headers, answers and errors
// of both, as the SDKs' own clients send and read them. Where tokens come
// from is the caller's ([Handler.Token]), so one handler serves a program on
// a laptop, a sidecar and a node.
//
// It guarantees that nothing is answered to a request that a web page or a
// proxy could have been made to send: IMDS requests need the header Metadata
// and must not have been forwarded, App Service requests need the secret of
// IDENTITY_HEADER, and neither may name a host that only DNS knows.
package imds

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Ask is what a client asks for.
type Ask struct {
	Resource string // as sent, such as https://vault.azure.net

	// At most one of these names the identity; all empty means the default.
	ClientID   string
	ObjectID   string
	ResourceID string // ARM id
}

// Token is the answer to an [Ask].
type Token struct {
	Value    string
	ClientID string // of the identity; may be empty
	Expires  time.Time
}

// Error is a refusal that the client is told. Others become a 500 without
// details.
type Error struct {
	Status      int    // HTTP; SDKs retry 404, 410, 429 and 5xx
	Code        string // such as invalid_request
	Description string
	RetryAfter  time.Duration // for 429 and 503; zero for none
}

func (e *Error) Error() string { return e.Code + ": " + e.Description }

// ErrIdentityNotFound is the refusal of an identity that the caller does not
// have, as IMDS words it.
func ErrIdentityNotFound() *Error {
	return &Error{Status: http.StatusBadRequest, Code: "invalid_request", Description: "Identity not found"}
}

// Handler serves the protocols. Set the fields before use.
type Handler struct {
	// Token gets a token. Errors that are not *Error are logged and told as a
	// failure to be tried again. Required.
	Token func(ctx context.Context, ask Ask) (Token, error)

	// Secret is the value of IDENTITY_HEADER. If empty, App Service's protocol
	// is not served.
	Secret string

	// Metadata serves IMDS. Whoever can connect may then have tokens: it is
	// for an address that only one pod reaches.
	Metadata bool

	// HeaderOptional serves IMDS to requests without the header Metadata too,
	// for programs that were written against an endpoint that did not ask for
	// it. A service in the pod that fetches URLs for strangers can then be
	// made to fetch tokens.
	HeaderOptional bool

	// Instance is what /metadata/instance answers, by member; nil serves none.
	Instance map[string]any

	// Other answers what else is asked below /metadata, after the same checks.
	// It is never given a path that its server could take for one below
	// /metadata/identity, where another identity's token might be. Nil answers
	// nothing.
	Other http.Handler

	Now func() time.Time // clock; time.Now if nil
	Log *slog.Logger     // told of failures; slog.DiscardHandler if nil
}

// AppServicePath is where App Service's protocol is served: the path of
// IDENTITY_ENDPOINT and MSI_ENDPOINT.
const AppServicePath = "/msi/token"

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := h.serve(w, r); err != nil {
		h.fail(w, r, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	if !plainHost(r.Host) {
		// A page in somebody's browser whose name was made to resolve to us.
		return refuse(http.StatusForbidden, "The host must be an address.")
	}
	at := strings.TrimSuffix(r.URL.Path, "/")
	query, err := singles(r.URL.RawQuery)
	if err != nil {
		return err
	}
	switch {
	case at == AppServicePath && h.Secret != "":
		return h.appService(w, r, query)
	case h.Metadata && metadataPath(at) == "/identity/oauth2/token":
		return h.metadataToken(w, r, query)
	case h.Metadata && h.Instance != nil && strings.HasPrefix(metadataPath(at)+"/", "/instance/"):
		return h.instance(w, r, strings.TrimPrefix(metadataPath(at), "/instance"), query)
	case h.Metadata && h.Other != nil && besideIdentity(r.URL):
		if err := h.metadataRequest(r); err != nil {
			return err
		}
		h.Other.ServeHTTP(w, r)
		return nil
	}
	return &Error{Status: http.StatusNotFound, Code: "not_found", Description: "There is nothing at this path."}
}

// metadataPath is the path below /metadata, of which IMDS ignores the case,
// or empty.
func metadataPath(path string) string {
	const prefix = "/metadata"
	if len(path) < len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		return ""
	}
	return path[len(prefix):]
}

// besideIdentity reports whether a path is below /metadata and, however its
// server reads it, not below /metadata/identity: no dot segments, empty
// segments, escapes or parameters, on which servers differ.
func besideIdentity(u *url.URL) bool {
	p := strings.TrimSuffix(u.Path, "/")
	for _, c := range []byte(p) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`\%;`, c) >= 0 {
			return false
		}
	}
	below, ok := strings.CutPrefix(metadataPath(p), "/")
	first, _, _ := strings.Cut(below, "/")
	return ok && u.RawPath == "" && path.Clean(p) == p && !strings.EqualFold(first, "identity")
}

// plainHost reports whether a Host header is what a client sends that was
// given an address: an IP or localhost.
func plainHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// singles parses a query in which nothing may be said twice.
func singles(raw string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "The query is malformed.")
	}
	m := make(map[string]string, len(values))
	for name, vs := range values {
		if len(vs) > 1 {
			return nil, refuse(http.StatusBadRequest, "A parameter is repeated.")
		}
		m[strings.ToLower(name)] = vs[0]
	}
	return m, nil
}

// ask reads the parameters that both protocols share; SDKs differ in how they
// spell the identity.
func ask(query map[string]string) (Ask, error) {
	a := Ask{Resource: query["resource"]}
	if a.Resource == "" {
		return a, refuse(http.StatusBadRequest, "The resource parameter is required.")
	}
	named := 0
	for _, p := range []struct {
		name string
		to   *string
	}{
		{"client_id", &a.ClientID}, {"clientid", &a.ClientID},
		{"object_id", &a.ObjectID}, {"principal_id", &a.ObjectID},
		{"mi_res_id", &a.ResourceID}, {"msi_res_id", &a.ResourceID},
	} {
		if v := query[p.name]; v != "" {
			*p.to = v
			named++
		}
	}
	if named > 1 {
		return a, refuse(http.StatusBadRequest, "The identity is named more than once.")
	}
	return a, nil
}

// appService answers GET {IDENTITY_ENDPOINT}?api-version=2019-08-01 and, for
// clients of MSI_ENDPOINT, 2017-09-01.
func (h *Handler) appService(w http.ResponseWriter, r *http.Request, query map[string]string) error {
	if err := getOnly(r); err != nil {
		return err
	}
	presented := r.Header.Get("X-Identity-Header")
	switch query["api-version"] {
	case "2019-08-01", "2025-03-30":
	case "2017-09-01":
		presented = r.Header.Get("Secret")
	default:
		return refuse(http.StatusBadRequest, "The api-version is not supported: 2019-08-01 is.")
	}
	if subtle.ConstantTimeCompare([]byte(presented), []byte(h.Secret)) != 1 {
		return &Error{Status: http.StatusUnauthorized, Code: "unauthorized", Description: "The header of IDENTITY_HEADER is missing or wrong."}
	}
	a, err := ask(query)
	if err != nil {
		return err
	}
	t, err := h.Token(r.Context(), a)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]string{
		"access_token": t.Value, "client_id": t.ClientID, "resource": a.Resource, "token_type": "Bearer",
		"expires_on": unix(t.Expires),
	})
}

// metadataToken answers GET /metadata/identity/oauth2/token.
func (h *Handler) metadataToken(w http.ResponseWriter, r *http.Request, query map[string]string) error {
	if err := h.metadataRequest(r); err != nil {
		return err
	}
	if err := getOnly(r); err != nil {
		return err
	}
	if query["api-version"] == "" {
		return refuse(http.StatusBadRequest, "The parameter api-version is missing.")
	}
	a, err := ask(query)
	if err != nil {
		return err
	}
	t, err := h.Token(r.Context(), a)
	if err != nil {
		return err
	}
	now := h.now()
	left := strconv.FormatInt(max(int64(t.Expires.Sub(now)/time.Second), 0), 10)
	return write(w, http.StatusOK, map[string]string{
		"access_token": t.Value, "client_id": t.ClientID, "resource": a.Resource, "token_type": "Bearer",
		"expires_in": left, "ext_expires_in": left, "expires_on": unix(t.Expires), "not_before": unix(now),
	})
}

// instance answers GET /metadata/instance, whole or a member of it.
func (h *Handler) instance(w http.ResponseWriter, r *http.Request, path string, query map[string]string) error {
	if err := h.metadataRequest(r); err != nil {
		return err
	}
	if err := getOnly(r); err != nil {
		return err
	}
	if query["api-version"] == "" {
		return refuse(http.StatusBadRequest, "The parameter api-version is missing.")
	}
	if f := query["format"]; f != "" && f != "json" {
		return refuse(http.StatusBadRequest, "The format is not supported: json is.")
	}
	var at any = h.Instance
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		members, _ := at.(map[string]any)
		var ok bool
		if at, ok = members[name]; !ok {
			return &Error{Status: http.StatusNotFound, Code: "not_found", Description: "There is nothing at this path."}
		}
	}
	return write(w, http.StatusOK, at)
}

// metadataRequest refuses what IMDS refuses: a request that an ordinary
// client of a web server could have been talked into.
func (h *Handler) metadataRequest(r *http.Request) error {
	if !h.HeaderOptional && !strings.EqualFold(r.Header.Get("Metadata"), "true") {
		return refuse(http.StatusBadRequest, "Required metadata header not specified")
	}
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		if len(r.Header.Values(name)) > 0 {
			return refuse(http.StatusBadRequest, "The request was forwarded.")
		}
	}
	return nil
}

func getOnly(r *http.Request) error {
	if r.Method != http.MethodGet {
		return refuse(http.StatusMethodNotAllowed, "The method must be GET.")
	}
	return nil
}

func refuse(status int, description string) *Error {
	return &Error{Status: status, Code: "invalid_request", Description: description}
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		if h.Log != nil {
			h.Log.ErrorContext(r.Context(), "no token for a managed identity", "error", err)
		}
		e = &Error{Status: http.StatusInternalServerError, Code: "server_error", Description: "The token could not be fetched. Try again."}
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if e.Status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodGet)
	}
	_ = write(w, e.Status, map[string]string{"error": e.Code, "error_description": e.Description})
}

func write(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
	return nil
}

func (h *Handler) now() time.Time {
	if h.Now == nil {
		return time.Now()
	}
	return h.Now()
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
