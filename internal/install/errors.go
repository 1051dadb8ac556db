package install

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podkey/podkey/internal/text"
)

// Reason is the kind of an [Error].
type Reason int

// The reasons why an installation fails.
const (
	Refused     Reason = iota // the API server does not take it
	Unreachable               // the API server does not answer, or not as one
	Denied                    // the credential may not do it
	Taken                     // the object is somebody else's
	NotReady                  // it is installed and does not work
)

// Error is a failure with its kind.
type Error struct {
	Reason  Reason
	Message string
	Err     error // the cause, whose text is not for showing; may be nil
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// maxMessage is how much of a message of the API server is shown.
const maxMessage = 1000

func printable(s string) string { return text.Clip(s, maxMessage) }

func notFound(err error) bool { return apierrors.IsNotFound(err) }

// explain turns an error of the client into one that can be shown. The
// client's own quote URLs, and whatever came instead of an answer.
func explain(err error) error {
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		ok = errors.As(err, &status)
	}
	if ok {
		return explainStatus(status.Status(), err)
	}
	ue, ok := errors.AsType[*url.Error](err)
	switch {
	case !ok && errors.Is(err, context.Canceled):
		return context.Canceled
	case !ok && errors.Is(err, context.DeadlineExceeded):
		return &Error{Reason: Unreachable, Message: "the API server did not answer in time", Err: err}
	case !ok: // an answer that cannot be read, which the client quotes whole
		return &Error{Reason: Unreachable, Message: "the API server does not answer as Kubernetes does", Err: err}
	case errors.Is(ue.Err, context.Canceled):
		return context.Canceled
	}
	return &Error{Reason: Unreachable, Message: "the API server cannot be asked: " + printable(ue.Err.Error()), Err: ue.Err}
}

func explainStatus(s metav1.Status, err error) error {
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Type == metav1.CauseTypeUnexpectedServerResponse {
				return &Error{Reason: Unreachable, Message: fmt.Sprintf("the API server answers with status %d, and not as Kubernetes does", s.Code)}
			}
		}
	}
	reason := Refused
	switch s.Reason {
	case metav1.StatusReasonUnauthorized, metav1.StatusReasonForbidden:
		reason = Denied
	case metav1.StatusReasonServiceUnavailable, metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout, metav1.StatusReasonTooManyRequests:
		reason = Unreachable
	}
	return &Error{Reason: reason, Message: printable(s.Message), Err: err}
}
