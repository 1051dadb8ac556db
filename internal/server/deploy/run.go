package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
)

// run is a deployment under way.
type run struct {
	h      *Handler
	q      *arm.Request
	p      *plan
	rec    *record
	reader *reader
	saved  time.Time
	failed map[*template.Resource]bool // and those that were not tried because of one
	errors []arm.ErrorDetail
}

// reader reads resources for expressions, each once as long as the
// deployment does not write it.
type reader struct {
	h    *Handler
	q    *arm.Request
	ctx  context.Context // of the run: package template knows none
	read map[string]map[string]any
}

// Read implements template.Runtime: a GET as the caller.
func (r *reader) Read(ref template.Reference) (map[string]any, error) {
	key := strings.ToLower(ref.ID + "?" + ref.APIVersion)
	if v, ok := r.read[key]; ok {
		return v, nil
	}
	v, err := r.h.read(r.ctx, r.q, ref.ID, ref.APIVersion)
	if err == nil {
		r.read[key] = v
	}
	return v, err
}

func (r *reader) forget(id string) {
	prefix := strings.ToLower(id) + "?"
	for key := range r.read {
		if strings.HasPrefix(key, prefix) {
			delete(r.read, key)
		}
	}
}

// deploy runs a plan to its end, and returns its record as it then is. An
// error means that the run lost its record; failures of resources are in the
// record.
func (h *Handler) deploy(ctx context.Context, q *arm.Request, p *plan, rec *record) error {
	outer := nestingOf(ctx)
	if outer.depth == 0 {
		// Nobody gains by half a deployment because the client did not wait.
		// The time that planning took counts.
		var stop context.CancelFunc
		deadline, _ := ctx.Deadline()
		ctx, stop = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer stop()
		defer context.AfterFunc(h.life, stop)()
	}
	r := &run{h: h, q: q, p: p, rec: rec, saved: h.o.Now(), failed: map[*template.Resource]bool{}}
	r.reader = &reader{h: h, q: q, ctx: ctx, read: map[string]map[string]any{}}
	for _, res := range p.d.Resources() {
		if res.Existing || res.Skipped {
			r.failed[res] = slices.ContainsFunc(res.DependsOn(), func(b *template.Resource) bool { return r.failed[b] })
			continue
		}
		if err := r.step(ctx, res, outer); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break // out of time: its own error says so
		}
	}
	if ctx.Err() != nil && len(r.errors) == 0 {
		if h.life.Err() != nil {
			r.errors = append(r.errors, *interrupted())
		} else {
			r.errors = append(r.errors, timedOut())
		}
	}
	if len(r.errors) == 0 {
		r.outputs()
	}
	return r.finish(ctx)
}

// step deploys one resource, unless one that it depends on has failed.
func (r *run) step(ctx context.Context, res *template.Resource, outer nesting) error {
	if slices.ContainsFunc(res.DependsOn(), func(b *template.Resource) bool { return r.failed[b] }) {
		r.failed[res] = true
		return nil
	}
	op := operation{ID: operationID(), Resource: res.ID, Type: res.Type, Name: res.Name, Kind: "Create", Started: r.h.o.Now().UTC(), State: succeeded}
	var err error
	op.Status, err = r.put(ctx, res, outer)
	op.Took = r.h.o.Now().Sub(op.Started)
	if err != nil {
		r.failed[res] = true
		r.fail(&op, err, res.ID, ctx.Err() != nil)
	}
	r.rec.Operations = append(r.rec.Operations, op)
	if now := r.h.o.Now(); now.Sub(r.saved) >= progress {
		r.saved, r.rec.Lease = now, now.Add(lease).UTC()
		return r.h.save(ctx, r.p.id, r.rec)
	}
	return nil
}

func (r *run) put(ctx context.Context, res *template.Resource, outer nesting) (status int, err error) {
	body, err := r.p.d.Body(res, r.reader)
	if err != nil {
		return http.StatusBadRequest, err
	}
	ctx = context.WithValue(ctx, nestingKey{}, nesting{depth: outer.depth + 1, secrets: r.p.d.Secrets(), budget: outer.budget})
	r.reader.forget(res.ID)
	a, err := r.q.Do(ctx, arm.Operation{Method: "PUT", ID: res.ID, APIVersion: res.APIVersion, Body: encode(body)})
	if err != nil {
		if f, ok := fault.As(err); ok {
			return f.Kind.Status(), err
		}
		return http.StatusInternalServerError, err
	}
	return a.Status, failureIn(a.Body)
}

// failureIn finds in the answer to a PUT that the resource came to be in
// the state Failed, as a nested deployment may.
func failureIn(body []byte) error {
	v, err := template.DecodeObject(body)
	if err != nil {
		return nil // an answer without a body
	}
	props := member(v, "properties")
	if state, _ := member(props, "provisioningState").(string); state != failed {
		return nil
	}
	e := &nestedError{detail: arm.ErrorDetail{Code: "ResourceDeploymentFailure", Message: "The resource operation completed with terminal provisioning state 'Failed'."}}
	if inner, ok := detailFrom(member(props, "error"), 0); ok {
		e.detail.Details = []arm.ErrorDetail{inner}
	}
	return e
}

// nestedError is the failure of a nested deployment.
type nestedError struct{ detail arm.ErrorDetail }

func (e *nestedError) Error() string { return e.detail.Code + ": " + e.detail.Message }

func detailFrom(v any, depth int) (arm.ErrorDetail, bool) {
	code, _ := member(v, "code").(string)
	message, _ := member(v, "message").(string)
	target, _ := member(v, "target").(string)
	out := arm.ErrorDetail{Code: code, Message: message, Target: target}
	list, _ := member(v, "details").([]any)
	for _, x := range list {
		if d, ok := detailFrom(x, depth+1); ok && depth < 2*maxNesting {
			out.Details = append(out.Details, d)
		}
	}
	return out, code != ""
}

// fail notes what went wrong with an operation. late is set when the time of
// the run was over.
func (r *run) fail(op *operation, err error, target string, late bool) {
	var d arm.ErrorDetail
	te, isTemplate := errors.AsType[*template.Error](err)
	ne, isNested := errors.AsType[*nestedError](err)
	switch {
	case isTemplate:
		d = arm.ErrorDetail{Code: "InvalidTemplate", Message: "Unable to process template language expressions: '" + te.Error() + "'."}
	case isNested:
		d = ne.detail
	case errors.Is(err, context.DeadlineExceeded) || late:
		d = timedOut()
	default:
		d = arm.DetailOf(err)
		if !isFault(err) {
			r.h.o.Log.Error("deploying a resource failed", "deployment", r.rec.ID, "resource", target, "error", template.Redact(err.Error(), r.p.d.Secrets()))
		}
	}
	d = redact(d, r.p.d.Secrets())
	d.Target = target
	op.State, op.Error = failed, &d
	if op.Status < 400 {
		op.Status = http.StatusConflict // as Azure, for a resource that ended Failed
	}
	r.errors = append(r.errors, d)
}

func timedOut() arm.ErrorDetail {
	return arm.ErrorDetail{Code: "DeploymentTimedOut", Message: fmt.Sprintf("The deployment took longer than %s. Run it again: it continues to the same end.", runTime)}
}

func redact(d arm.ErrorDetail, secrets []string) arm.ErrorDetail {
	d.Message, d.Code, d.Target = template.Redact(d.Message, secrets), template.Redact(d.Code, secrets), template.Redact(d.Target, secrets)
	d.AdditionalInfo = nil
	d.Details = slices.Clone(d.Details)
	for i := range d.Details {
		d.Details[i] = redact(d.Details[i], secrets)
	}
	return d
}

// outputs evaluates the outputs.
func (r *run) outputs() {
	op := operation{ID: operationID(), Kind: "EvaluateDeploymentOutput", Started: r.h.o.Now().UTC(), State: succeeded, Status: http.StatusOK}
	out, err := r.p.d.Outputs(r.reader)
	op.Took = r.h.o.Now().Sub(op.Started)
	if err != nil {
		op.Status = http.StatusBadRequest
		r.fail(&op, err, "", false)
		r.errors[len(r.errors)-1].Code = "DeploymentOutputEvaluationFailed"
		op.Error.Code = "DeploymentOutputEvaluationFailed"
	} else {
		r.rec.Outputs = out
	}
	r.rec.Operations = append(r.rec.Operations, op)
}

// finish closes the record.
func (r *run) finish(ctx context.Context) error {
	for i := range r.rec.Resources {
		id := r.rec.Resources[i].ID
		r.rec.Resources[i].Deployed = slices.ContainsFunc(r.rec.Operations, func(op operation) bool {
			return op.State == succeeded && strings.EqualFold(op.Resource, id)
		})
	}
	var e *arm.ErrorDetail
	if len(r.errors) > 0 {
		e = &arm.ErrorDetail{
			Code: "DeploymentFailed", Target: r.rec.ID, Details: r.errors,
			Message: "At least one resource deployment operation failed. Please list deployment operations for details. Please see https://aka.ms/arm-deployment-operations for usage details.",
		}
	}
	r.rec.end(r.h.o.Now().UTC(), e)
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), lease)
	defer stop()
	err := r.h.save(ctx, r.p.id, r.rec)
	if fault.Is(err, fault.TooLarge) {
		// What the resources are is done; what is said of them must fit.
		r.rec.Outputs, r.rec.Operations = nil, nil
		r.rec.end(r.rec.Ended, &arm.ErrorDetail{Code: "DeploymentRecordTooLarge", Message: "The outputs and operations of the deployment are too large to be kept."})
		err = r.h.save(ctx, r.p.id, r.rec)
	}
	return err
}

// operationID is an id in the form of Azure's: 16 hexadecimal digits.
func operationID() string {
	id := uuid.New()
	return strings.ToUpper(strconv.FormatUint(uint64(id[0])<<56|uint64(id[1])<<48|uint64(id[2])<<40|uint64(id[3])<<32|uint64(id[4])<<24|uint64(id[5])<<16|uint64(id[9])<<8|uint64(id[10])|1<<63, 16))
}
