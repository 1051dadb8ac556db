package arm

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

// Request is a request that the pipeline has let through.
type Request struct {
	ID        ID         // what the path names
	Version   string     // api-version, lower case
	Query     url.Values // the whole query
	Principal audit.Principal
	TenantID  string // that owns what the path names: the subscription's, or at the tenant level the caller's own
	Names     *web.Names
	h         *Handler
	role      string   // what Route.Role found
	within    *Request // the request that performs this one, see [Request.Do]
}

// serve judges a request in the order that the package comment gives. The
// api-version comes before the token as in Azure, whose clients probe so.
// What is unknown as a type is told to authenticated callers only; what is
// unknown as an object only to those who may read it.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	setHeaders(w, r)
	ctx, c := r.Context(), web.CallOf(r.Context())
	if strings.EqualFold(r.URL.Path, "/metadata/endpoints") {
		return h.metadata(w, r)
	}
	id, err := parsePath(r.URL.RawPath)
	if err != nil {
		return err
	}
	q := &Request{ID: id, Query: r.URL.Query(), Names: c.Names, h: h}
	if q.Version, err = apiVersion(q.Query); err != nil {
		return err
	}
	sub, _, err := h.subscriptionOf(ctx, id)
	if err != nil {
		return err
	}
	if q.Principal, err = web.Authenticate(r, h.o.Authenticate); err != nil {
		return errors.Join(unauthenticated(err, sub.TenantID), h.refusedToken(ctx, id, err))
	}
	return q.perform(w, r)
}

// perform does what a known caller asks for.
func (q *Request) perform(w http.ResponseWriter, r *http.Request) error {
	rt, route, err := q.judge(r)
	if err != nil {
		if o, ok := errors.AsType[*otherMethods](err); ok {
			w.Header().Set("Allow", o.allow)
		}
		return err
	}
	ctx := r.Context()
	if err := q.mustHaveParents(ctx, r.Method); err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		return q.head(ctx, w, rt)
	}
	return route.Handle(w, r, q)
}

// judge finds the route and decides whether the caller may.
func (q *Request) judge(r *http.Request) (*registered, *Route, error) {
	ctx, h := r.Context(), q.h
	sub, known, err := h.subscriptionOf(ctx, q.ID)
	if err != nil {
		return nil, nil, err
	}
	rt, route, allow, err := h.reg.lookup(r.Method, q.ID, q.Version)
	if err != nil {
		if allow != "" {
			err = &otherMethods{err, allow}
		}
		return nil, nil, err
	}
	if q.within == nil { // the log line is of the request from outside
		c := web.CallOf(ctx)
		c.Note("operation", route.Action)
		c.NotePattern(rt.pattern(route))
	}
	switch {
	case q.ID.Subscription() == "":
		q.TenantID = q.Principal.TenantID
	case !known:
		return nil, nil, fault.NotFound("SubscriptionNotFound", "The subscription '%s' could not be found.", clip(q.ID.Subscription()))
	case !strings.EqualFold(sub.TenantID, q.Principal.TenantID):
		err := h.deny(ctx, route.Action, q.ID, q.Principal, "the caller belongs to another tenant than the subscription")
		return nil, nil, errors.Join(wrongTenant(q.Names, q.Principal, sub.TenantID), err)
	default:
		q.TenantID = sub.TenantID
	}
	if route.Role != nil {
		if q.role, err = route.Role(r, q); err != nil {
			return nil, nil, err
		}
	}
	return rt, route, q.admit(ctx, route)
}

// otherMethods is the refusal of a verb on a path that has others.
type otherMethods struct {
	error
	allow string // the Allow header
}

func (e *otherMethods) Unwrap() error { return e.error }

// refusedToken writes down a token that was not accepted. That there was none
// is no decision: every Azure client begins so.
func (h *Handler) refusedToken(ctx context.Context, id ID, err error) error {
	a, ok := errors.AsType[*web.AuthError](err)
	if !ok || a.Reason == web.AuthMissing {
		return nil
	}
	return h.deny(ctx, "Authenticate", id, audit.Principal{}, a.Error())
}

// deny writes down a refusal that comes before rbac is asked.
func (h *Handler) deny(ctx context.Context, operation string, id ID, p audit.Principal, reason string) error {
	return h.o.Audit.Write(ctx, audit.Record{
		Plane: "management", Operation: operation, Object: clip(id.Key()), Principal: p, Decision: audit.Deny, Reason: clip(reason),
	})
}

// head answers whether an item exists: 204 or 404, as Azure does.
func (q *Request) head(ctx context.Context, w http.ResponseWriter, rt *registered) error {
	_, found, err := rt.Find(ctx, q.TenantID, q.ID)
	if err != nil {
		return err
	}
	if !found {
		return notFound(q.ID)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// admit lets a caller pass who may perform the route's action, and for a
// Visible route one who holds a role below.
func (q *Request) admit(ctx context.Context, route *Route) error {
	switch {
	case route.Action == "":
		return nil
	case route.TenantID != "":
		return q.authorize(ctx, route.Action, q.ID, route.TenantID)
	case !route.Visible:
		return q.Authorize(ctx, route.Action, q.ID)
	}
	ok, err := q.Allowed(ctx, route.Action, q.ID.Key())
	if err != nil {
		return err
	}
	if !ok {
		top := q.ID
		if !top.Item() {
			top = top.Parent()
		}
		member, err := q.holdsRoleBelow(ctx, top)
		if err != nil {
			return err
		}
		if member {
			return q.h.o.Audit.Write(ctx, audit.Record{
				Plane: "management", Operation: route.Action, Object: q.ID.Key(), Principal: q.Principal,
				Decision: audit.Allow, Reason: "holds a role below; the answer has only what that role may read",
			})
		}
	}
	return q.Authorize(ctx, route.Action, q.ID)
}

// Authorize demands that the caller may perform an action on an object, and
// writes the audit line. Handlers call it for actions beyond the route's.
func (q *Request) Authorize(ctx context.Context, action string, object ID) error {
	return q.authorize(ctx, action, object, q.TenantID)
}

func (q *Request) authorize(ctx context.Context, action string, object ID, tenant string) error {
	d := q.decision(action, object.Key(), tenant)
	d.RoleDefinitionID = q.role
	_, err := q.h.o.RBAC.Authorize(ctx, d)
	if fault.Is(err, fault.Forbidden) {
		return notAllowed(err, q.Principal, action, object.String())
	}
	return err
}

// Allowed tells whether the caller may perform an action on an object, given
// by its id in any case. It writes no audit line: it is for the items of a
// listing that was authorised.
func (q *Request) Allowed(ctx context.Context, action, object string) (bool, error) {
	return q.h.o.RBAC.Allowed(ctx, q.decision(action, object, q.TenantID))
}

func (q *Request) decision(action, object, tenant string) rbac.Request {
	return rbac.Request{
		Principal: q.Principal, Plane: "management", Operation: action, Action: action,
		Object: strings.ToLower(object), TenantID: tenant,
	}
}

// mustHaveParents makes sure that everything exists that the path goes
// through: the resource group, parents and what an extension extends.
func (q *Request) mustHaveParents(ctx context.Context, method string) error {
	id := q.ID
	if id.Group() != "" {
		g, ok, err := q.h.group(ctx, id)
		if err != nil {
			return err
		}
		if strings.EqualFold(id.Type(), typeGroup) {
			return nil // its own handler says what it needs
		}
		if !ok {
			return fault.NotFound("ResourceGroupNotFound", "Resource group '%s' could not be found.", clip(id.Group()))
		}
		if g.Deleting && method != http.MethodGet && method != http.MethodHead && method != http.MethodDelete {
			return beingDeleted(g.Name)
		}
	}
	if rt := q.h.reg.find(id.Scope()); len(id.chains) > 1 && rt != nil && rt.Leaf {
		return fault.NotFound("InvalidResourceType", "A resource of type '%s' is not a scope.", rt.Name)
	}
	parent := id.Parent()
	_, err := q.mustExist(ctx, parent)
	if fault.Is(err, fault.Missing) && id.namespace() != "" && len(parent.chains) == len(id.chains) {
		return fault.NotFound("ParentResourceNotFound", "Failed to perform the operation on resource(s) of type '%s', because the parent resource '%s' could not be found.",
			clip(strings.Join(id.last().types, "/")), clip(parent.String()))
	}
	return err
}

// mustExist makes sure that what an id names exists, and returns its id in
// display case. Errors are faults of kind Missing.
func (q *Request) mustExist(ctx context.Context, id ID) (display string, err error) {
	if id.Root() {
		return "/", nil
	}
	if !id.Item() {
		return q.mustExist(ctx, id.Parent())
	}
	rt := q.h.reg.find(id)
	switch {
	case rt != nil && rt.Loose:
		parent, err := q.mustExist(ctx, id.Parent())
		return parent + rt.Name[strings.LastIndexByte(rt.Name, '/'):] + "/" + id.Name(), err
	case rt == nil || rt.Find == nil:
		return "", notFound(id)
	}
	display, ok, err := rt.Find(ctx, q.TenantID, id)
	if err == nil && !ok {
		err = notFound(id)
	}
	return display, err
}

// stillThere undoes a creation whose parent went away while it was made. The
// removal of a parent first stops creations by its own state, then removes
// what it finds: so whichever of the two looks last sees the other.
func (q *Request) stillThere(ctx context.Context, parent ID, undo func(context.Context) error) error {
	_, err := q.mustExist(ctx, parent)
	if err == nil && parent.Group() != "" {
		var g group
		var ok bool
		if g, ok, err = q.h.group(ctx, parent); err == nil && (!ok || g.Deleting) {
			err = beingDeleted(parent.Group())
		}
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, undo(context.WithoutCancel(ctx)))
}

func beingDeleted(name string) error {
	return fault.Conflict("ResourceGroupBeingDeleted", "The resource group '%s' is in deprovisioning state and cannot perform this operation.", clip(name))
}
