package issuer

import (
	"errors"
	"net/http"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// status is Kubernetes' Status object, the body of every refusal.
type status struct {
	Kind       string   `json:"kind"`
	APIVersion string   `json:"apiVersion"`
	Metadata   struct{} `json:"metadata"`
	Status     string   `json:"status"`
	Message    string   `json:"message"`
	Reason     string   `json:"reason"`
	Details    *details `json:"details,omitempty"`
	Code       int      `json:"code"`
}

type details struct {
	Name   string  `json:"name,omitempty"`
	Group  string  `json:"group,omitempty"`
	Kind   string  `json:"kind,omitempty"`
	Causes []cause `json:"causes,omitempty"`
}

type cause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

// statusError is a refusal that no fault expresses: Kubernetes answers a
// request that breaks a rule with 422 and the fields that do.
type statusError struct {
	code            int
	reason, message string
	details         *details
}

func (e *statusError) Error() string { return e.reason + ": " + e.message }

func badRequest(message string) error { return fault.BadRequest("BadRequest", "%s", message) }

// reasons are Kubernetes' words for HTTP statuses.
var reasons = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusUnauthorized:          "Unauthorized",
	http.StatusForbidden:             "Forbidden",
	http.StatusNotFound:              "NotFound",
	http.StatusMethodNotAllowed:      "MethodNotAllowed",
	http.StatusConflict:              "Conflict",
	http.StatusRequestEntityTooLarge: "RequestEntityTooLarge",
	http.StatusUnsupportedMediaType:  "UnsupportedMediaType",
	http.StatusTooManyRequests:       "TooManyRequests",
	http.StatusServiceUnavailable:    "ServiceUnavailable",
}

// fail writes err as a Status. The text of an error that is nobody's refusal
// is not shown.
func fail(w http.ResponseWriter, _ *http.Request, err error) {
	s := status{Kind: "Status", APIVersion: "v1", Status: "Failure",
		Code: http.StatusInternalServerError, Reason: "InternalError", Message: "Internal error occurred"}
	if own, ok := errors.AsType[*statusError](err); ok {
		s.Code, s.Reason, s.Message, s.Details = own.code, own.reason, own.message, own.details
	} else if auth, ok := errors.AsType[*web.AuthError](err); ok {
		s.Code, s.Reason, s.Message = http.StatusUnauthorized, "Unauthorized", auth.Error()
	} else if f, ok := fault.As(err); ok && reasons[f.Kind.Status()] != "" {
		s.Code, s.Reason, s.Message = f.Kind.Status(), reasons[f.Kind.Status()], f.Message
	}
	if s.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	_ = web.WriteJSON(w, s.Code, s) // cannot fail: nothing in it does not encode
}
