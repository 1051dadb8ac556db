// Package fault is the error vocabulary of the whole program.
//
// An error has three readers: the kind is for our code, code and message are
// for the client, and the wrapped cause is for the log. Domain code returns a
// fault; the plane that answers renders it in its own body. Whatever is not a
// fault is, to the client, an internal error without text: its cause stays in
// the log. The package imports nothing of ours and knows nothing of any plane.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind classifies a refusal. The zero value is Internal, so that a fault
// built without a kind can never look like the caller's mistake.
type Kind uint8

// The kinds. Each maps to exactly one HTTP status, see [Kind.Status].
const (
	Internal        Kind = iota // our own failure: 500
	Invalid                     // malformed or impossible request: 400
	Unauthenticated             // no or unacceptable credential: 401
	Forbidden                   // known caller, not allowed: 403
	Missing                     // no such object: 404
	BadMethod                   // path known, verb not: 405
	Clash                       // state of the object forbids it: 409
	Precondition                // If-Match or If-None-Match failed: 412
	TooLarge                    // body or value above its limit: 413
	BadMediaType                // content type not understood: 415
	TooMany                     // throttled: 429
	Unavailable                 // store or upstream not reachable now: 503
)

// Status is the HTTP status of the kind.
func (k Kind) Status() int {
	switch k {
	case Invalid:
		return http.StatusBadRequest
	case Unauthenticated:
		return http.StatusUnauthorized
	case Forbidden:
		return http.StatusForbidden
	case Missing:
		return http.StatusNotFound
	case BadMethod:
		return http.StatusMethodNotAllowed
	case Clash:
		return http.StatusConflict
	case Precondition:
		return http.StatusPreconditionFailed
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case BadMediaType:
		return http.StatusUnsupportedMediaType
	case TooMany:
		return http.StatusTooManyRequests
	case Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Error is a refusal with its three readers apart.
type Error struct {
	Kind    Kind
	Code    string // the plane's code, such as SecretNotFound; shown to the client
	Inner   string // the plane's nested code, such as ForbiddenByRbac; may be empty
	Message string // shown to the client; must never contain a secret
	Err     error  // the cause, for the log only; may be nil
}

// Error joins code, message and cause, for the log. Planes never send it.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes a fault with a formatted message for the client.
func New(kind Kind, code, format string, args ...any) error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes a fault that keeps cause for the log and shows only the message.
func Wrap(cause error, kind Kind, code, format string, args ...any) error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}

// NotFound is the common case of a missing object.
func NotFound(code, format string, args ...any) error {
	return New(Missing, code, format, args...)
}

// Conflict is the common case of an object whose state forbids the request.
func Conflict(code, format string, args ...any) error {
	return New(Clash, code, format, args...)
}

// BadRequest is the common case of a request that makes no sense.
func BadRequest(code, format string, args ...any) error {
	return New(Invalid, code, format, args...)
}

// As returns the fault in err's chain, if there is one.
func As(err error) (*Error, bool) {
	return errors.AsType[*Error](err)
}

// Is reports whether err's chain holds a fault of the kind.
func Is(err error, kind Kind) bool {
	e, ok := As(err)
	return ok && e.Kind == kind
}
