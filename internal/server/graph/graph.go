// Package graph is the directory API: of Microsoft Graph v1.0 (and beta, which
// answers the same) what the az command line and the SDKs need to find and
// manage applications, service principals, users and their credentials.
//
// Every request runs through one pipeline: path, token, route, query options,
// the object that the path names, permission, handler. It guarantees that
//
//   - a caller sees and changes objects of its own tenant only;
//   - the decision is [rbac.RBAC.Authorize]'s for every route, which says
//     itself who may: each member of the tenant, who holds the right, or the
//     owner of the object. Whoever changes what somebody else owns must also
//     be able to give roles at the root: who can change an application's
//     credentials can become it;
//   - no secret or hash is in an answer, but for a new client secret, once;
//   - a property that is not understood is refused by name, and so is one that
//     is not the caller's to set.
//
// docs/graph.md is its reference.
package graph

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

// Handler is the plane. All fields must be set.
type Handler struct {
	Directory    *directory.Directory
	RBAC         *rbac.RBAC
	Audit        *audit.Log
	Authenticate web.Authenticator
	Now          func() time.Time // clock of the times in errors
}

// Plane returns the directory API.
func (h *Handler) Plane() *web.Plane {
	routes := h.routes()
	return &web.Plane{
		Name:  "graph",
		Serve: func(w http.ResponseWriter, r *http.Request) error { return h.serve(w, r, routes) },
		Fail:  h.fail,
	}
}

// call is a request that the pipeline has let through.
type call struct {
	*Handler
	ctx     context.Context
	w       http.ResponseWriter
	r       *http.Request
	version string // v1.0 or beta
	names   *web.Names
	caller  audit.Principal
	tenant  string // the caller's
	query   odata.Query
	keys    []segment // those of the path, in order
	object  object    // what the route's of found
	parsed  body      // the body, if the route's of has read it
}

// need says who may use a route.
type need uint8

const (
	byMember need = iota // every principal of the tenant
	byRight              // who holds the action at the root of the tenant
	byOwner              // an owner of the object, or who holds the action and may give roles
)

// route is one operation.
type route struct {
	method  string
	pattern string // segments; {} stands for a key
	action  string // what rbac is asked for
	need    need
	of      func(*call) (object, error) // finds what the path names; nil for collections
	handle  func(*call) error
}

// single reports whether the route answers with no list.
func (rt *route) single() bool {
	return rt.method != http.MethodGet || rt.pattern == "me" || strings.HasSuffix(rt.pattern, "{}")
}

// grantAction is what nobody may do without who could not take any right
// anyway.
const grantAction = "Microsoft.Authorization/roleAssignments/write"

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, routes []route) error {
	setHeaders(w, r)
	edge := web.CallOf(r.Context())
	version, path, err := parsePath(r.URL.RawPath)
	if err != nil {
		return err
	}
	c := &call{Handler: h, ctx: r.Context(), w: w, r: r, version: version, names: edge.Names}
	if c.caller, err = web.Authenticate(r, h.Authenticate); err != nil {
		return errors.Join(unauthenticated(err), h.refusedToken(c.ctx, err))
	}
	c.tenant = strings.ToLower(c.caller.TenantID)
	rt, keys, err := match(routes, r.Method, path)
	if err != nil {
		return err
	}
	edge.NotePattern(rt.method + " /" + rt.pattern)
	c.keys = keys
	if c.query, err = odata.ParseQuery(r.URL.Query()); err != nil {
		return badQuery(err)
	}
	if c.query.Expand != "" {
		return fault.BadRequest(codeUnsupported, "The query option '$expand' is not supported.")
	}
	if rt.single() {
		if err := c.noListOptions(); err != nil {
			return err
		}
	}
	if rt.of != nil {
		if c.object, err = rt.of(c); err != nil {
			return err
		}
	}
	if err := c.authorize(rt); err != nil {
		return err
	}
	return rt.handle(c)
}

// authorize demands that the caller may use the route on the object.
func (c *call) authorize(rt *route) error {
	req := rbac.Request{
		Principal: c.caller, Plane: "graph", Action: rt.action, Object: c.object.path(), TenantID: c.tenant,
		Members: rt.need == byMember,
	}
	// A principal that was switched off is out of its owners' hands: else they
	// could switch it on again, or make it anew.
	if disabled := c.object.sp != nil && !c.object.sp.Enabled; rt.need == byOwner && !disabled {
		req.Owners = c.object.owners()
	}
	grant, err := c.RBAC.Authorize(c.ctx, req)
	if err == nil && rt.need == byOwner && grant.AssignmentID != "" {
		req.Action, req.Owners = grantAction, nil
		_, err = c.RBAC.Authorize(c.ctx, req)
	}
	if fault.Is(err, fault.Forbidden) {
		return fault.Wrap(err, fault.Forbidden, codeDenied, "Insufficient privileges to complete the operation.")
	}
	return err
}

// refusedToken writes down a token that was not accepted. That there was none
// is no decision.
func (h *Handler) refusedToken(ctx context.Context, err error) error {
	a, ok := errors.AsType[*web.AuthError](err)
	if !ok || a.Reason == web.AuthMissing {
		return nil
	}
	return h.Audit.Write(ctx, audit.Record{
		Plane: "graph", Operation: "Authenticate", Object: "/", Decision: audit.Deny, Reason: clip(a.Error()),
	})
}
