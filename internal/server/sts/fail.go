package sts

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// errorBody is the body of every refusal.
type errorBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

// fail writes err as Entra would. What is not a refusal of ours is an
// internal error without its text.
func (s *service) fail(w http.ResponseWriter, r *http.Request, err error) {
	call := web.CallOf(r.Context())
	s.stamp(w, r) // the edge refuses some requests before they reach Serve
	e := asError(err, r.Method)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.RetryAfter/time.Second)))
	}
	if e.Status == http.StatusMethodNotAllowed {
		allow := "GET"
		switch path := strings.ToLower(r.URL.Path); {
		case strings.HasSuffix(path, "/token"), strings.HasSuffix(path, "/devicecode"):
			allow = "POST"
		case isPage(path):
			allow = "GET, POST"
		}
		w.Header().Set("Allow", allow)
	}
	if _, _, ok := r.BasicAuth(); ok && e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Basic") // RFC 6749 5.2 demands the scheme that was used
	}
	if isPage(r.URL.Path) && s.failPage(w, r, e) == nil {
		return
	}
	stamp := s.now().UTC().Format("2006-01-02 15:04:05Z")
	_ = web.WriteJSON(w, e.Status, errorBody{
		Error:         e.OAuth,
		Description:   fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", e.Code, e.Text, call.ID, call.CorrelationID, stamp),
		Codes:         []int{e.Code},
		Timestamp:     stamp,
		TraceID:       call.ID,
		CorrelationID: call.CorrelationID,
		URI:           fmt.Sprintf("%s/error?code=%d", call.Names.Login, e.Code),
	})
}

// asError turns any error into one that a client may see.
func asError(err error, method string) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	f, ok := fault.As(err)
	if !ok {
		f = &fault.Error{}
	}
	switch f.Kind {
	case fault.Unavailable:
		return refuse(http.StatusServiceUnavailable, 90033, temporarily, "A transient error has occurred. Please try again.")
	case fault.Internal:
		return refuse(http.StatusInternalServerError, 50000, serverError, "There was an error issuing a token.")
	case fault.BadMethod:
		return refuse(http.StatusMethodNotAllowed, 900561, invalidRequest, "The endpoint does not accept %s requests.", echo(method))
	case fault.Missing:
		return refuse(http.StatusNotFound, 9002313, invalidRequest, "Invalid request. The token service has no endpoint at this path.")
	}
	e := errMalformed("%s", f.Message)
	e.Status = f.Kind.Status()
	return e
}

// unsupportedEndpoint answers for endpoints that clients know of Entra and that
// are not served.
func unsupportedEndpoint(http.ResponseWriter, *http.Request) error {
	return refuse(http.StatusNotImplemented, 9002313, invalidRequest, "Invalid request. This endpoint is not supported here.")
}

// Headers that every answer has and that never change.
var (
	noStore   = []string{"no-store, no-cache"}
	noCache   = []string{"no-cache"}
	expired   = []string{"-1"}
	noSniff   = []string{"nosniff"}
	estServer = []string{"2.1.0 - podkey"}
)

// stamp sets the headers of every answer.
func (s *service) stamp(w http.ResponseWriter, r *http.Request) {
	call := web.CallOf(r.Context())
	h := w.Header()
	h["Cache-Control"], h["Pragma"], h["Expires"] = noStore, noCache, expired
	h["X-Content-Type-Options"] = noSniff
	h["X-Ms-Ests-Server"] = estServer
	h["X-Ms-Request-Id"] = []string{call.ID}
	if strings.EqualFold(r.Header.Get("Return-Client-Request-Id"), "true") {
		if id, err := uuid.Parse(r.Header.Get("Client-Request-Id")); err == nil {
			h["Client-Request-Id"] = []string{id.String()}
		}
	}
}
