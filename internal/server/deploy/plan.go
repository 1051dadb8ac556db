package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
)

// plan is a deployment that was understood: which resources, in which order.
type plan struct {
	id  arm.ID
	req *request
	d   *template.Deployment

	// groups are resource groups, by lower-case id, that deployments around
	// this one make before it.
	groups map[string]map[string]any
}

// nesting is what a deployment passes to those that it makes.
type nesting struct {
	depth   int
	secrets []string // texts that are secure in a deployment around
	budget  *budget  // one for the whole request
}

// budget is what a request may still cost.
type budget struct {
	resources int            // to be looked at
	work      *template.Work // of expressions
}

// mostResources bounds the resources of a request, with those of nested
// deployments, each counted every time that it is looked at: loops in loops
// of nested deployments could ask for millions.
const mostResources = 20 * template.MaxResources

// withNesting makes sure that there is a budget and a deadline: the nested
// deployments of a request have those of the outermost.
func withNesting(ctx context.Context) (context.Context, context.CancelFunc) {
	n := nestingOf(ctx)
	if n.budget != nil {
		return ctx, func() {}
	}
	n.budget = &budget{resources: mostResources, work: template.NewWork()}
	return context.WithTimeout(context.WithValue(ctx, nestingKey{}, n), runTime)
}

// inTime tells whether there is time to go on: what lies between two checks
// is bounded, but there may be many of it.
func inTime(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.BadRequest("DeploymentTimedOut", "The deployment was not understood within %s: deploy its parts one by one.", runTime)
	}
	return ctx.Err()
}

// count takes the resources of a plan off the count.
func count(ctx context.Context, p *plan) error {
	b := nestingOf(ctx).budget
	if b.resources -= len(p.d.Resources()) + 1; b.resources < 0 {
		return fault.BadRequest("DeploymentTooLarge", "The deployment and those nested in it have too many resources.")
	}
	return nil
}

type nestingKey struct{}

func nestingOf(ctx context.Context) nesting {
	n, _ := ctx.Value(nestingKey{}).(nesting)
	return n
}

// maxNesting is how deep deployments may be nested, as in Azure.
const maxNesting = 5

// versionRead is the api-version by which this package reads subscriptions
// and groups.
const versionRead = "2021-04-01"

// plan understands a request for the deployment id. groups is not nil when it
// is asked what would be deployed: those and others may be missing that are
// yet to be made.
func (h *Handler) plan(ctx context.Context, q *arm.Request, id arm.ID, req *request, secrets []string, groups map[string]map[string]any) (*plan, error) {
	if err := inTime(ctx); err != nil {
		return nil, err
	}
	if err := checkName(id.NameOf("deployments")); err != nil {
		return nil, err
	}
	if id.Group() == "" && req.location == "" {
		return nil, fault.BadRequest("LocationRequired", "The location property is required for a deployment to a subscription.")
	}
	if id.Group() != "" && req.location != "" {
		return nil, fault.BadRequest("InvalidDeployment", "The 'location' property is not allowed for '%s' at resource group scope.", id.NameOf("deployments"))
	}
	t, err := template.Load(req.template)
	if err != nil {
		return nil, invalid(err, secrets)
	}
	d, err := t.Bind(req.parameters, h.env(ctx, q, id, req, groups), secrets)
	if err != nil {
		return nil, invalid(err, append(secrets, suspects(req, t)...))
	}
	p := &plan{id: id, req: req, d: d, groups: groups}
	return p, count(ctx, p)
}

// suspects are the texts that must not be in an error about parameters: those
// that were given for secure ones.
func suspects(req *request, t *template.Template) []string {
	var out []string
	for name, v := range req.parameters {
		if t.Secure(name) {
			out = append(out, texts(v)...)
		}
	}
	return out
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, texts(x)...)
		}
		return out
	case map[string]any:
		var out []string
		for _, x := range v {
			out = append(out, texts(x)...)
		}
		return out
	}
	return nil
}

// checkName applies Azure's rule for the names of deployments.
func checkName(name string) error {
	ok := name != "" && len(name) <= 64
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.()", c))
	}
	if !ok {
		return fault.BadRequest("InvalidDeploymentName", "The name of a deployment must have 1 to 64 letters, digits, '-', '.', '_', '(' or ')'.")
	}
	return nil
}

// invalid is the refusal of a template.
func invalid(err error, secrets []string) error {
	e, ok := errors.AsType[*template.Error](err)
	if !ok {
		return err
	}
	message := template.Redact(e.Error(), secrets)
	info := map[string]any{"lineNumber": e.Line, "linePosition": e.Column, "path": template.Redact(e.Path, secrets)}
	return arm.WithDetails(fault.BadRequest("InvalidTemplate", "Deployment template validation failed: '%s'.", message), nil,
		arm.ErrorContext{Type: "TemplateViolation", Info: info})
}

// env is the world as the expressions of a deployment see it. What it shows
// of subscription and group is read as the caller, when it is asked for.
func (h *Handler) env(ctx context.Context, q *arm.Request, id arm.ID, req *request, groups map[string]map[string]any) template.Env {
	sub := "/subscriptions/" + id.Subscription()
	group := sub + "/resourceGroups/" + id.Group()
	deployment := map[string]any{
		"name":       id.NameOf("deployments"),
		"properties": map[string]any{"mode": "Incremental", "provisioningState": "Accepted"},
	}
	if req.location != "" {
		deployment["location"] = req.location
	}
	return template.Env{
		SubscriptionID: id.Subscription(), Group: id.Group(), TenantID: q.TenantID, Name: id.NameOf("deployments"),
		Subscription: sync.OnceValues(func() (map[string]any, error) { return h.read(ctx, q, sub, versionRead) }),
		ResourceGroup: sync.OnceValues(func() (map[string]any, error) {
			v, err := h.read(ctx, q, group, versionRead)
			if fault.Is(err, fault.Missing) && groups != nil {
				if made := groups[strings.ToLower(group)]; made != nil {
					return made, nil
				}
				return nil, template.NotYet("resourceGroup")
			}
			if err == nil && v["tags"] == nil {
				v["tags"] = map[string]any{}
			}
			return v, err
		}),
		Tenant:      func() (map[string]any, error) { return map[string]any{"tenantId": q.TenantID}, nil },
		Deployment:  deployment,
		Deployer:    map[string]any{"objectId": q.Principal.ObjectID, "tenantId": q.Principal.TenantID, "userPrincipalName": q.Principal.Name},
		Environment: environment(q),
		Now:         h.o.Now().UTC(),
		NewGUID:     uuid.NewString,
		Work:        nestingOf(ctx).budget.work,
	}
}

// environment is environment(): Azure's members, as far as this server has
// what they name.
func environment(q *arm.Request) map[string]any {
	n := q.Names
	return map[string]any{
		"name": "AzureCloud", "resourceManager": n.Management + "/", "graph": n.Graph + "/", "microsoftGraphResourceId": n.Graph + "/", "portal": n.Portal,
		"authentication": map[string]any{
			"loginEndpoint": n.Login + "/", "audiences": []any{"https://management.core.windows.net/", "https://management.azure.com/"},
			"tenant": "common", "identityProvider": "AAD",
		},
		"suffixes": map[string]any{"keyvaultDns": "." + n.Vault, "keyVaultDns": "." + n.Vault},
	}
}

// read is a GET as the caller.
func (h *Handler) read(ctx context.Context, q *arm.Request, id, version string) (map[string]any, error) {
	a, err := q.Do(ctx, arm.Operation{Method: "GET", ID: id, APIVersion: version})
	if err != nil {
		return nil, err
	}
	v, err := template.DecodeObject(a.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	return v, nil
}

// preflight asks, before anything is done, whether every resource is of a
// type that there is, and whether the caller may write it. What a nested
// deployment has is asked too, as far as its parameters are known. The
// decisions are audited; nothing else happens.
func (h *Handler) preflight(ctx context.Context, q *arm.Request, p *plan, depth int) ([]arm.ErrorDetail, bool, error) {
	var problems []arm.ErrorDetail
	forbidden := true
	for _, r := range p.d.Resources() {
		if r.Existing || r.Skipped {
			continue
		}
		if err := inTime(ctx); err != nil {
			return nil, false, err
		}
		body, known, err := p.d.Preview(r)
		if err != nil {
			return nil, false, invalid(err, p.d.Secrets())
		}
		err = q.Check(ctx, arm.Operation{Method: "PUT", ID: r.ID, APIVersion: r.APIVersion, Body: encode(body)})
		switch {
		case err != nil && !isFault(err):
			return nil, false, err
		case err != nil:
			d := arm.DetailOf(err)
			d.Message = template.Redact(d.Message, p.d.Secrets())
			d.Target = r.ID
			problems = append(problems, d)
			forbidden = forbidden && fault.Is(err, fault.Forbidden)
			continue
		}
		if !r.Deployment() || !known {
			continue
		}
		more, denied, err := h.preflightNested(ctx, q, p, r, body, depth)
		if err != nil {
			return nil, false, err
		}
		problems = append(problems, more...)
		forbidden = forbidden && (denied || len(more) == 0)
	}
	return problems, forbidden && len(problems) > 0, nil
}

func isFault(err error) bool {
	f, ok := fault.As(err)
	return ok && f.Kind != fault.Internal
}

func (h *Handler) preflightNested(ctx context.Context, q *arm.Request, p *plan, r *template.Resource, body map[string]any, depth int) ([]arm.ErrorDetail, bool, error) {
	inner, err := h.nested(ctx, q, p, r, body, depth)
	if errors.As(err, new(*template.Later)) {
		return nil, false, nil // it is known when its turn comes
	}
	if err != nil {
		return nil, false, err
	}
	return h.preflight(ctx, q, inner, depth+1)
}

// nested understands a nested deployment whose body is known.
func (h *Handler) nested(ctx context.Context, q *arm.Request, p *plan, r *template.Resource, body map[string]any, depth int) (*plan, error) {
	if depth+1 >= maxNesting {
		return nil, tooDeep()
	}
	id, err := arm.ParseID(r.ID)
	if err != nil {
		return nil, err
	}
	req, err := requestOf(body)
	if err != nil {
		return nil, err
	}
	groups, err := p.madeGroups()
	if err != nil {
		return nil, err
	}
	return h.plan(ctx, q, id, req, p.d.Secrets(), groups)
}

// madeGroups are the groups of p with those that its own template makes.
func (p *plan) madeGroups() (map[string]map[string]any, error) {
	groups := map[string]map[string]any{}
	maps.Copy(groups, p.groups)
	for _, r := range p.d.Resources() {
		if !strings.EqualFold(r.Type, "Microsoft.Resources/resourceGroups") || r.Existing || r.Skipped {
			continue
		}
		body, known, err := p.d.Preview(r)
		if err != nil {
			return nil, invalid(err, p.d.Secrets())
		}
		if tags, ok := member(body, "tags").(map[string]any); known {
			if !ok {
				tags = map[string]any{}
			}
			groups[strings.ToLower(r.ID)] = map[string]any{
				"id": r.ID, "name": r.Name, "type": r.Type, "location": member(body, "location"), "tags": tags,
				"properties": map[string]any{"provisioningState": succeeded},
			}
		}
	}
	return groups, nil
}

func tooDeep() error {
	return fault.BadRequest("DeploymentNestedTooDeep", "Deployments are nested more than %d deep.", maxNesting)
}

// ready is plan and preflight: the template may be deployed, or why not.
func (h *Handler) ready(ctx context.Context, q *arm.Request, id arm.ID, req *request) (*plan, error) {
	n := nestingOf(ctx)
	if n.depth >= maxNesting {
		return nil, tooDeep()
	}
	p, err := h.plan(ctx, q, id, req, n.secrets, nil)
	if err != nil {
		return nil, err
	}
	problems, forbidden, err := h.preflight(ctx, q, p, n.depth)
	if err != nil || len(problems) == 0 {
		return p, err
	}
	kind := fault.Invalid
	if forbidden {
		kind = fault.Forbidden
	}
	var said []string
	for _, d := range problems[:min(len(problems), 5)] {
		said = append(said, fmt.Sprintf("%s: %s", d.Code, d.Message))
	}
	return nil, arm.WithDetails(fault.New(kind, "InvalidTemplateDeployment", "The template deployment '%s' is not valid: %s", id.NameOf("deployments"), strings.Join(said, " ")), problems)
}
