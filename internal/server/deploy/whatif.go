package deploy

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
	"github.com/podkey/podkey/internal/web"
)

// change is what a deployment would do to one resource, in the words of
// Azure's clients: Create, Modify, NoChange, Deploy (it is written, and what
// with is known only then), Ignore (it is not in the template), Unsupported
// (it cannot be said).
type change struct {
	ResourceID        string           `json:"resourceId"`
	ChangeType        string           `json:"changeType"`
	UnsupportedReason string           `json:"unsupportedReason,omitempty"`
	Before            map[string]any   `json:"before,omitempty"`
	After             map[string]any   `json:"after,omitempty"`
	Delta             []propertyChange `json:"delta,omitempty"`
}

// whatIf tells what put would do. It needs what put needs, reads as the
// caller, and writes nothing.
func (h *Handler) whatIf(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	req, err := readRequest(r)
	if err != nil {
		return err
	}
	ctx, stop := withNesting(r.Context())
	defer stop()
	id := q.ID.Parent()
	p, err := h.ready(ctx, q, id, req)
	if err != nil {
		return err
	}
	f := &forecast{h: h, q: q, reader: &reader{h: h, q: q, ctx: ctx, read: map[string]map[string]any{}}, named: map[string]bool{}}
	if err := f.plan(ctx, p, 0); err != nil {
		return err
	}
	if err := f.others(ctx, id); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{
		"status":     succeeded,
		"properties": map[string]any{"correlationId": web.CallOf(ctx).CorrelationID, "changes": f.changes},
	})
}

// forecast gathers changes.
type forecast struct {
	h       *Handler
	q       *arm.Request
	reader  *reader
	changes []change
	named   map[string]bool // lower-case ids that templates name
}

// plan adds the changes of a deployment, those of nested ones included.
func (f *forecast) plan(ctx context.Context, p *plan, depth int) error {
	for _, r := range p.d.Resources() {
		f.named[strings.ToLower(r.ID)] = true
		if r.Existing || r.Skipped {
			continue
		}
		if err := inTime(ctx); err != nil {
			return err
		}
		body, known, err := f.body(p, r)
		if err != nil {
			return err
		}
		if !r.Deployment() {
			c, err := f.resource(ctx, p, r, body, known)
			if err != nil {
				return err
			}
			f.changes = append(f.changes, c)
			continue
		}
		if err := f.nested(ctx, p, r, body, known, depth); err != nil {
			return err
		}
	}
	return nil
}

// body is what would be sent. What it reads of other resources is read as
// they are now; if they are not there yet, it is known only in part.
func (f *forecast) body(p *plan, r *template.Resource) (map[string]any, bool, error) {
	if body, err := p.d.Body(r, f.reader); err == nil {
		return body, true, nil
	}
	body, known, err := p.d.Preview(r)
	if err != nil {
		return nil, false, invalid(err, p.d.Secrets())
	}
	return body, known, nil
}

func (f *forecast) nested(ctx context.Context, p *plan, r *template.Resource, body map[string]any, known bool, depth int) error {
	err := error(template.NotYet("reference"))
	if known {
		var inner *plan
		if inner, err = f.h.nested(ctx, f.q, p, r, body, depth); err == nil {
			return f.plan(ctx, inner, depth+1)
		}
	}
	if !errors.As(err, new(*template.Later)) {
		return err
	}
	f.changes = append(f.changes, change{
		ResourceID: r.ID, ChangeType: "Unsupported",
		UnsupportedReason: "The nested deployment depends on resources that are not there yet: what it does is known only while the deployment runs.",
	})
	return nil
}

// resource compares what would be sent with what is there.
func (f *forecast) resource(ctx context.Context, p *plan, r *template.Resource, body map[string]any, known bool) (change, error) {
	c := change{ResourceID: r.ID}
	secrets := p.d.Secrets()
	after := f.present(r, masked(r.Type, body), secrets)
	before, err := f.h.read(ctx, f.q, r.ID, r.APIVersion)
	switch {
	case fault.Is(err, fault.Missing):
		c.ChangeType, c.After = "Create", after
		return c, nil
	case isFault(err):
		c.ChangeType, c.UnsupportedReason = "Unsupported", template.Redact(arm.DetailOf(err).Message, secrets)
		return c, nil
	case err != nil:
		return c, err
	}
	c.Before, c.After = f.present(r, before, secrets), after
	if !known {
		c.ChangeType = "Deploy"
		return c, nil
	}
	c.ChangeType = "NoChange"
	if c.Delta = redactDelta(compareResource(before, masked(r.Type, body)), secrets); len(c.Delta) > 0 {
		c.ChangeType = "Modify"
	}
	return c, nil
}

// present is a resource as before and after show it.
func (f *forecast) present(r *template.Resource, body map[string]any, secrets []string) map[string]any {
	out := template.RedactAll(body, secrets).(map[string]any)
	name := r.Name[strings.LastIndexByte(r.Name, '/')+1:]
	for k, v := range map[string]any{"id": r.ID, "type": r.Type, "apiVersion": r.APIVersion, "name": name} {
		out[k] = v
	}
	return out
}

// others adds what the group has beside the template, which stays as it is.
func (f *forecast) others(ctx context.Context, id arm.ID) error {
	if id.Group() == "" {
		return nil
	}
	page, err := f.h.read(ctx, f.q, id.Scope().String()+"/resources", versionRead)
	if fault.Is(err, fault.Forbidden) {
		return nil // the caller sees none
	}
	if err != nil {
		return err
	}
	list, _ := page["value"].([]any)
	for _, v := range list {
		res, _ := v.(map[string]any)
		if rid, _ := res["id"].(string); rid != "" && !f.named[strings.ToLower(rid)] {
			f.changes = append(f.changes, change{ResourceID: rid, ChangeType: "Ignore", Before: res, After: res})
		}
	}
	return nil
}
