package deploy

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
	"github.com/podkey/podkey/internal/web"
)

// put deploys. A failed deployment is answered like a running one, with the
// address of an operation that has ended: there clients look for the reason.
func (h *Handler) put(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	req, err := readRequest(r)
	if err != nil {
		return err
	}
	ctx, stop := withNesting(r.Context())
	defer stop()
	p, err := h.ready(ctx, q, q.ID, req)
	if err != nil {
		return err
	}
	rec, text := h.newRecord(r, p)
	if rec.ID, err = displayed(ctx, q); err != nil {
		return err
	}
	created, err := h.begin(ctx, q.ID, rec, text)
	if err != nil {
		return err
	}
	if created && rec.Group != "" {
		err := q.StillThere(ctx, func(ctx context.Context) error { return h.removeHeld(ctx, q.ID, "") })
		if err != nil {
			return err
		}
	}
	if err := h.deploy(ctx, q, p, &rec); err != nil {
		return err
	}
	out := rec.wire()
	if rec.State == failed && nestingOf(ctx).depth == 0 {
		// Clients take a first answer that says Failed for a broken one, and
		// look for no reason: so it says what was true when it came.
		out.Properties.ProvisioningState, out.Properties.Error = accepted, nil
		w.Header().Set("Azure-AsyncOperation", q.Names.Management+rec.ID+"/operationStatuses/"+rec.Run+"?api-version="+q.Version)
		w.Header().Set("Retry-After", "1")
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return web.WriteJSON(w, status, out)
}

// newRecord is the record of a plan that is about to run, and its template as
// it may be kept. Whoever may read deployments sees the hash, and could try
// guesses against it: it is of what may be kept, too.
func (h *Handler) newRecord(r *http.Request, p *plan) (record, []byte) {
	now, secrets := h.o.Now().UTC(), p.d.Secrets()
	text := encode(maskedTemplate(template.Storable(p.req.template, secrets)))
	rec := record{
		ID: p.id.String(), Name: p.id.NameOf("deployments"), SubscriptionID: p.id.Subscription(), Group: p.id.Group(),
		Location: template.Redact(p.req.location, secrets), Tags: redactTags(p.req.tags, secrets), Mode: "Incremental", State: running,
		Run: uuid.NewString(), Lease: now.Add(lease), Started: now, Ended: now,
		CorrelationID: web.CallOf(r.Context()).CorrelationID,
		TemplateHash:  template.Hash(text), Parameters: p.d.Parameters(),
	}
	for _, res := range p.d.Resources() {
		if res.Existing || res.Skipped {
			continue
		}
		item := planned{ID: res.ID, Type: res.Type, Name: res.Name}
		for _, b := range res.DependsOn() {
			if !b.Existing && !b.Skipped && !slices.Contains(item.DependsOn, b.ID) {
				item.DependsOn = append(item.DependsOn, b.ID)
			}
		}
		rec.Resources = append(rec.Resources, item)
	}
	return rec, text
}

// redactTags are tags without secure texts, which a template around may have
// put into them.
func redactTags(tags map[string]string, secrets []string) map[string]string {
	out := make(map[string]string, len(tags))
	for k, v := range tags {
		out[template.Redact(k, secrets)] = template.Redact(v, secrets)
	}
	return out
}

// displayed is the id of the deployment that a request makes, as answers spell
// it: paths may say resourcegroups, and the group's name in other letters.
func displayed(ctx context.Context, q *arm.Request) (string, error) {
	scope := "/subscriptions/" + q.ID.Subscription()
	if q.ID.Group() != "" {
		g, err := q.Group(ctx)
		if err != nil {
			return "", err
		}
		scope = g.String()
	}
	return scope + "/providers/" + typeDeployment + "/" + q.ID.NameOf("deployments"), nil
}

// validate is put without doing anything.
func (h *Handler) validate(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	req, err := readRequest(r)
	if err != nil {
		return err
	}
	id := q.ID.Parent()
	ctx, stop := withNesting(r.Context())
	defer stop()
	p, err := h.ready(ctx, q, id, req)
	if err != nil {
		return err
	}
	rec, _ := h.newRecord(r, p)
	if rec.ID, err = displayed(ctx, q); err != nil {
		return err
	}
	rec.end(rec.Started, nil)
	out := rec.wire()
	for _, res := range rec.Resources {
		out.Properties.ValidatedResources = append(out.Properties.ValidatedResources, wireID{res.ID})
	}
	out.Properties.OutputResources = nil
	return web.WriteJSON(w, http.StatusOK, out)
}

func notFound(id arm.ID) error {
	return fault.NotFound("DeploymentNotFound", "Deployment '%s' could not be found.", id.NameOf("deployments"))
}

// must reads the deployment that an id names or lies in.
func (h *Handler) must(r *http.Request, id arm.ID) (record, error) {
	rec, ok, err := h.load(r.Context(), id)
	if err == nil && !ok {
		err = notFound(id)
	}
	return rec, err
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, err := h.must(r, q.ID)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, rec.wire())
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	state, err := stateFilter(q)
	if err != nil {
		return err
	}
	all, err := h.scan(r.Context(), q.ID.Scope())
	if err != nil {
		return err
	}
	shown := all[:0]
	for _, rec := range all {
		if state != "" && !strings.EqualFold(state, rec.State) {
			continue
		}
		ok, err := q.Allowed(r.Context(), action+"read", rec.ID)
		if err != nil {
			return err
		}
		if ok {
			shown = append(shown, rec)
		}
	}
	return arm.WritePage(w, q, shown, func(rec *record) string { return strings.ToLower(rec.Name) }, (*record).wire)
}

// stateFilter reads $filter, of which provisioningState eq 'S' is known.
func stateFilter(q *arm.Request) (string, error) {
	f := strings.TrimSpace(q.Query.Get("$filter"))
	if f == "" {
		return "", nil
	}
	words := strings.Fields(f)
	if len(words) == 3 && strings.EqualFold(words[0], "provisioningState") && words[1] == "eq" && len(words[2]) > 2 &&
		words[2][0] == '\'' && words[2][len(words[2])-1] == '\'' && !strings.Contains(words[2][1:len(words[2])-1], "'") {
		return words[2][1 : len(words[2])-1], nil
	}
	return "", fault.BadRequest("InvalidFilterInQueryString", "The $filter is not supported: supported is provisioningState eq 'STATE'.")
}

func (h *Handler) delete(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, ok, err := h.load(r.Context(), q.ID)
	if err != nil {
		return err
	}
	if ok && rec.State == running {
		return fault.Conflict("DeploymentActive", "The deployment '%s' is running and cannot be deleted.", rec.Name)
	}
	if err := h.removeHeld(r.Context(), q.ID, ""); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cancel refuses: a deployment has ended when its client is answered.
func (h *Handler) cancel(_ http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, err := h.must(r, q.ID.Parent())
	if err != nil {
		return err
	}
	return fault.Conflict("DeploymentCannotBeCancelled", "The deployment '%s' cannot be cancelled: its provisioning state is '%s', and deployments here run to their end at once.", rec.Name, rec.State)
}

func (h *Handler) exportTemplate(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	id := q.ID.Parent()
	if _, err := h.must(r, id); err != nil {
		return err
	}
	text, ok, err := h.text(r.Context(), id)
	if err != nil {
		return err
	}
	if !ok {
		return fault.NotFound("DeploymentTemplateNotKept", "The template of the deployment '%s' was too large to be kept.", id.NameOf("deployments"))
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"template": text})
}

func (h *Handler) listOperations(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, err := h.must(r, q.ID)
	if err != nil {
		return err
	}
	out := make([]wireOperation, 0, len(rec.Operations))
	for i := range rec.Operations {
		out = append(out, rec.Operations[i].wire(&rec))
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"value": out})
}

func (h *Handler) getOperation(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, err := h.must(r, q.ID)
	if err != nil {
		return err
	}
	for i := range rec.Operations {
		if strings.EqualFold(rec.Operations[i].ID, q.ID.Name()) {
			return web.WriteJSON(w, http.StatusOK, rec.Operations[i].wire(&rec))
		}
	}
	return fault.NotFound("DeploymentOperationNotFound", "The deployment operation could not be found.")
}

// operationStatus is where clients poll how a PUT ended.
func (h *Handler) operationStatus(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	rec, err := h.must(r, q.ID)
	if err != nil {
		return err
	}
	if rec.Run != strings.ToLower(q.ID.Name()) {
		return fault.NotFound("DeploymentOperationNotFound", "The deployment operation could not be found.")
	}
	if rec.State == running {
		w.Header().Set("Retry-After", "1")
	}
	out := map[string]any{"status": rec.State}
	if rec.Error != nil {
		out["error"] = rec.Error
	}
	return web.WriteJSON(w, http.StatusOK, out)
}
