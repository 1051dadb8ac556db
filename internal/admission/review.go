package admission

import (
	"errors"
	"fmt"
	"slices"

	"github.com/podkey/podkey/internal/text"
)

// MaxReview is the size of the largest review that is read: the API server
// takes objects of up to 3 MiB, and a review may hold two.
const MaxReview = 7 << 20

// Outcome is what a review came to; the values are a closed set.
type Outcome string

// The outcomes.
const (
	Mutated       Outcome = "mutated"
	Unchanged     Outcome = "unchanged" // has everything already
	Denied        Outcome = "denied"
	SkippedMirror Outcome = "skipped_mirror"
	Skipped       Outcome = "skipped" // nothing that these rules are about
	Advised       Outcome = "advised" // with warnings
	Silent        Outcome = "silent"  // without
)

// Response is the answer to a review, and what there is to record of it.
type Response struct {
	// Body is an AdmissionReview, in the memory that was given for it if that
	// was enough. It is nil if the request was none: there is
	// nobody to answer, and Message says what is wrong.
	Body []byte

	Outcome    Outcome
	Reason     Reason   // of a denial
	Message    string   // of a denial
	NoClientID bool     // mutated, but its service account names no identity
	Warnings   []string // for the object's author

	// What was reviewed; empty where the review was not understood. Name is
	// the prefix of the name to come if there is no name yet, and ends in "*".
	UID, Kind, Namespace, Name, ServiceAccount string
	Owner                                      Owner
	DryRun                                     bool
}

// request is a review as far as it was understood.
type request struct {
	version                                string // of the review
	uid, namespace, operation, subResource string
	dryRun                                 bool
	object                                 object
	hasObject, templates                   bool

	into []byte // what the answer may be written over
}

var errNoReview = errors.New("not an AdmissionReview of admission.k8s.io/v1 or v1beta1")

// decodeReview reads a review. What was read before an error is returned with
// it, so that it can be answered.
func (rules *Rules) decodeReview(b []byte, templates bool, into []byte) (*request, error) {
	q := &request{templates: templates, into: into}
	if len(b) > MaxReview {
		return q, fmt.Errorf("the review has %d bytes: at most %d are read", len(b), MaxReview)
	}
	r := &reader{s: b, variables: &rules.variables}
	var kind string
	for key := range r.members {
		switch string(key) {
		case "apiVersion":
			q.version = r.text()
		case "kind":
			kind = r.text()
		case "request":
			r.request(q)
		}
	}
	r.end()
	switch {
	case r.err != nil:
		return q, r.err
	case kind != "AdmissionReview" || q.version != "admission.k8s.io/v1" && q.version != "admission.k8s.io/v1beta1":
		return q, errNoReview
	case q.uid == "":
		return q, errors.New("the review's request has no uid")
	}
	return q, nil
}

func (r *reader) request(q *request) {
	for key := range r.members {
		switch string(key) {
		case "uid":
			q.uid = r.text()
		case "namespace":
			q.namespace = r.text()
		case "operation":
			q.operation = r.text()
		case "subResource":
			q.subResource = r.text()
		case "dryRun":
			q.dryRun = r.boolean()
		case "object":
			if r.null() {
				continue
			}
			q.hasObject = true
			q.object = r.object(q.templates)
		}
	}
}

// checkPod refuses an object that is no pod. The first words are upstream's.
func (q *request) checkPod() *denial {
	switch o := &q.object; {
	case !q.hasObject:
		return &denial{BadReview, "couldn't get version/kind; the review's request has no object"}
	case o.kind == "" || o.apiVersion == "":
		return &denial{BadReview, "couldn't get version/kind; request.object has no kind or no apiVersion"}
	case o.kind != "Pod" || o.apiVersion != "v1":
		return &denial{BadReview, "request.object is a " + clip(o.kind) + " of " + clip(o.apiVersion) + ", not a Pod of v1"}
	case !o.hasSpec:
		return &denial{BadReview, "request.object has no spec"}
	}
	return nil
}

// name is the object's, or its prefix.
func (m *meta) displayName() string {
	if m.name == "" && m.generateName != "" {
		return m.generateName + "*"
	}
	return m.name
}

// response is what all answers have in common.
func (q *request) response() Response {
	o := &q.object
	r := Response{
		UID: q.uid, Kind: o.kind, Namespace: q.namespace, Name: o.displayName(), DryRun: q.dryRun, Owner: o.owner,
	}
	switch {
	case o.template != nil:
		r.ServiceAccount = o.template.serviceAccount
	case o.kind == "Pod":
		r.ServiceAccount = o.serviceAccount
	}
	return r
}

// begin writes an answer up to its verdict.
func (q *request) begin(size int) []byte {
	b := append(slices.Grow(q.into[:0], size), `{"apiVersion":`...)
	version := q.version
	if version != "admission.k8s.io/v1beta1" {
		version = "admission.k8s.io/v1"
	}
	b = text.AppendJSON(b, version)
	b = text.AppendJSON(append(b, `,"kind":"AdmissionReview","response":{"uid":`...), q.uid)
	return append(b, `,"allowed":`...)
}

// allow answers without a patch.
func (q *request) allow(o Outcome) Response {
	r := q.response()
	r.Body, r.Outcome = append(q.begin(160), "true}}"...), o
	return r
}

// beginPatch writes an answer up to its patch.
func (q *request) beginPatch() []byte {
	return append(q.begin(4096), `true,"patchType":"JSONPatch","patch":"`...)
}

// mutate answers with what beginPatch began.
func (q *request) mutate(b []byte) Response {
	r := q.response()
	r.Body, r.Outcome = append(b, `"}}`...), Mutated
	return r
}

// advise answers with warnings, or none.
func (q *request) advise(warnings []string) Response {
	b := append(q.begin(256), "true"...)
	outcome := Silent
	for i, w := range warnings {
		if outcome = Advised; i == 0 {
			b = append(b, `,"warnings":[`...)
		} else {
			b = append(b, ',')
		}
		b = text.AppendJSON(b, w)
	}
	if len(warnings) > 0 {
		b = append(b, ']')
	}
	r := q.response()
	r.Body, r.Outcome, r.Warnings = append(b, "}}"...), outcome, warnings
	return r
}

// deny answers with a refusal that names the pod.
func (q *request) deny(d *denial) Response {
	r := q.response()
	r.Outcome, r.Reason, r.Message = Denied, d.reason, d.message
	if r.Name != "" && q.object.kind == "Pod" {
		r.Message = "pod " + clip(r.Namespace) + "/" + clip(r.Name) + ": " + r.Message
	}
	if q.uid == "" {
		return r
	}
	b := append(q.begin(256), `false,"status":{"status":"Failure","reason":"BadRequest","code":400,"message":`...)
	r.Body = append(text.AppendJSON(b, r.Message), "}}}"...)
	return r
}
