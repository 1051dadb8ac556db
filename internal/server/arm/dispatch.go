package arm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/podkey/podkey/internal/fault"
)

// maxBody is the largest request body of the plane, in bytes: that of a
// deployment, as in Azure.
const maxBody = 4 << 20

// Operation is a management operation that a resource type performs as its
// caller, such as a deployment that makes a vault.
type Operation struct {
	Method     string
	ID         string // full id
	APIVersion string
	Body       []byte // JSON; nil for none
}

// Answer is what an operation answered.
type Answer struct {
	Status int
	Body   []byte
}

// Do performs an operation as the caller of q, in process, on the same way
// as a request from outside: path, version, tenant, permission with its audit
// line, parents, handler. What the pipeline or the handler refuses is the
// error, a fault.
func (q *Request) Do(ctx context.Context, op Operation) (Answer, error) {
	r, inner, err := q.derive(ctx, op)
	if err != nil {
		return Answer{}, err
	}
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	if err := inner.perform(w, r); err != nil {
		return Answer{}, err
	}
	return Answer{Status: w.status, Body: w.body.Bytes()}, nil
}

// Check is the part of [Request.Do] before anything is looked at: the type
// exists in that version, and the caller may. The decision is audited.
func (q *Request) Check(ctx context.Context, op Operation) error {
	r, inner, err := q.derive(ctx, op)
	if err != nil {
		return err
	}
	_, _, err = inner.judge(r)
	return err
}

// derive makes the request that an operation stands for.
func (q *Request) derive(ctx context.Context, op Operation) (*http.Request, *Request, error) {
	id, err := ParseID(op.ID)
	if err != nil {
		return nil, nil, err
	}
	query := url.Values{"api-version": {op.APIVersion}}
	r, err := http.NewRequestWithContext(ctx, op.Method, (&url.URL{Path: id.String(), RawQuery: query.Encode()}).String(), io.NopCloser(bytes.NewReader(op.Body)))
	if err != nil {
		return nil, nil, err
	}
	r.ContentLength = int64(len(op.Body))
	if op.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	inner := &Request{ID: id, Query: query, Principal: q.Principal, Names: q.Names, h: q.h, within: q}
	inner.Version, err = apiVersion(query)
	return r, inner, err
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

// ResourcesVersions are the api-versions of the namespace
// Microsoft.Resources, for its types that other packages register.
func ResourcesVersions() []string { return slices.Clone(versionsResources) }

// WritePage answers with the page of a listing that q asks for. Items are
// sorted by their keys, which are unique.
func WritePage[T, W any](w http.ResponseWriter, q *Request, items []T, key func(*T) string, wire func(*T) W) error {
	return writePage(w, q, items, key, wire)
}

// ErrorDetail is one of the errors behind an error, see [WithDetails].
type ErrorDetail struct {
	Code           string         `json:"code"`
	Message        string         `json:"message"`
	Target         string         `json:"target,omitempty"`
	Details        []ErrorDetail  `json:"details,omitempty"`
	AdditionalInfo []ErrorContext `json:"additionalInfo,omitempty"`
}

// ErrorContext says more about an error than its message.
type ErrorContext struct {
	Type string `json:"type"`
	Info any    `json:"info"`
}

// detailed is an error with what is behind it.
type detailed struct {
	error
	details []ErrorDetail
	info    []ErrorContext
}

func (e *detailed) Unwrap() error { return e.error }

// WithDetails adds to a fault what its answer shows beside code and message.
func WithDetails(err error, details []ErrorDetail, info ...ErrorContext) error {
	return &detailed{err, details, info}
}

// DetailOf is an error as answers show it: code and message of a fault with
// its details, and of anything else no more than that it is ours.
func DetailOf(err error) ErrorDetail {
	f, ok := fault.As(err)
	if !ok || f.Kind == fault.Internal {
		return ErrorDetail{Code: "InternalServerError", Message: "The server encountered an internal error. Please retry the request."}
	}
	out := ErrorDetail{Code: f.Code, Message: f.Message}
	if d, ok := errors.AsType[*detailed](err); ok {
		out.Details, out.AdditionalInfo = d.details, d.info
	}
	return out
}
