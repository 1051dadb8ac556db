package graph

import (
	"errors"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
	words "github.com/podkey/podkey/internal/text" // text is a function here
	"github.com/podkey/podkey/internal/web"
)

// Codes of refusals, as Graph spells them.
const (
	codeBad         = "BadRequest"
	codeInvalid     = "Request_BadRequest"
	codeUnsupported = "Request_UnsupportedQuery"
	codeMissing     = "Request_ResourceNotFound"
	codeDenied      = "Authorization_RequestDenied"
	codeClash       = "Request_MultipleObjectsWithSameKeyValue"
	codeToken       = "InvalidAuthenticationToken"
)

// wireError is the body of every refusal.
type wireError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Inner   struct {
			Date      string `json:"date"`
			Request   string `json:"request-id"`
			ClientReq string `json:"client-request-id"`
		} `json:"innerError"`
	} `json:"error"`
}

// fail writes err in Graph's body. What is not a fault is a 500 without text.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	setHeaders(w, r)
	c := web.CallOf(r.Context())
	status, body := http.StatusInternalServerError, wireError{}
	body.Error.Code, body.Error.Message = "InternalServerError", "An internal server error occurred."
	if f, ok := fault.As(err); ok && f.Kind != fault.Internal {
		status, body.Error.Code, body.Error.Message = f.Kind.Status(), codeOf(f), f.Message
	}
	body.Error.Inner.Date = h.Now().UTC().Format("2006-01-02T15:04:05")
	body.Error.Inner.Request, body.Error.Inner.ClientReq = c.ID, c.CorrelationID
	switch status {
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="", authorization_uri="` + c.Names.Login + `/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`}
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return
	}
	_ = web.WriteJSON(w, status, body)
}

// codeOf is the code of a fault: its own if it is one of this API, else the
// one for its kind. The directory speaks the management API's codes.
func codeOf(f *fault.Error) string {
	switch {
	case strings.HasPrefix(f.Code, "Request_"), f.Code == codeBad, f.Code == codeDenied, f.Code == codeToken, f.Code == "KeyCredentialsInvalid":
		return f.Code
	}
	switch f.Kind {
	case fault.Invalid, fault.BadMediaType, fault.TooLarge:
		return codeInvalid
	case fault.Missing:
		return codeMissing
	case fault.Forbidden:
		return codeDenied
	case fault.Clash:
		return codeClash
	}
	return f.Code
}

// setHeaders names the request in the headers of every answer.
func setHeaders(w http.ResponseWriter, r *http.Request) {
	c := web.CallOf(r.Context())
	w.Header()["Request-Id"] = []string{c.ID}
	w.Header()["Client-Request-Id"] = []string{c.CorrelationID}
	w.Header()["Cache-Control"] = []string{"no-cache"}
}

// unauthenticated turns the refusal of a token into Graph's 401. Other errors
// pass.
func unauthenticated(err error) error {
	a, ok := errors.AsType[*web.AuthError](err)
	if !ok {
		return err
	}
	message := "Access token validation failure."
	switch a.Reason {
	case web.AuthMissing:
		message = "Access token is empty."
	case web.AuthMalformed:
		message = "IDX14100: JWT is not well formed."
	case web.AuthSignature, web.AuthKey:
		message = "Access token validation failure. Invalid signature."
	case web.AuthIssuer:
		message = "Access token validation failure. Invalid issuer."
	case web.AuthAudience:
		message = "Access token validation failure. Invalid audience."
	case web.AuthExpired, web.AuthNotYet:
		message = "Lifetime validation failed, the token is expired or not yet valid."
	}
	return fault.Wrap(err, fault.Unauthenticated, codeToken, "%s", message)
}

// badQuery is the refusal of a query option.
func badQuery(err error) error {
	e, ok := errors.AsType[*odata.Error](err)
	switch {
	case !ok:
		return err
	case e.Unsupported:
		return fault.BadRequest(codeUnsupported, "Unsupported or invalid query: %s.", e.Message)
	}
	return fault.BadRequest(codeBad, "Invalid query: %s.", e.Message)
}

// notFound says that an object does not exist, or is none of the caller's
// tenant.
func notFound(id string) error {
	return fault.NotFound(codeMissing, "Resource '%s' does not exist or one of its queried reference-property objects are not present.", clip(id))
}

// clip makes text from a request fit for a message.
func clip(s string) string { return words.Clip(s, 120) }

func isMissing(err error) bool { return fault.Is(err, fault.Missing) }
