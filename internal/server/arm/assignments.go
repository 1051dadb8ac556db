package arm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

type wireAssignment struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		RoleDefinitionID string    `json:"roleDefinitionId"`
		PrincipalID      string    `json:"principalId"`
		PrincipalType    string    `json:"principalType"`
		Scope            string    `json:"scope"`
		Description      string    `json:"description,omitempty"`
		CreatedOn        time.Time `json:"createdOn"`
		UpdatedOn        time.Time `json:"updatedOn"`
		CreatedBy        string    `json:"createdBy"`
		UpdatedBy        string    `json:"updatedBy"`
	} `json:"properties"`
}

// assignmentWire is an assignment as it is seen from a scope. One that is
// inherited from above the subscription names its role as the definitions
// that are listed at the scope do: az compares the two.
func assignmentWire(seenFrom ID, a *rbac.Assignment) wireAssignment {
	out := wireAssignment{ID: a.ID(), Name: a.Name, Type: typeAssignment}
	p := &out.Properties
	p.RoleDefinitionID = rbac.RoleIDAt(a.Scope, a.RoleDefinitionID)
	if id, err := ParseID(a.Scope); err == nil && id.Subscription() == "" {
		p.RoleDefinitionID = rbac.RoleIDAt(scopeOfRoles(seenFrom), a.RoleDefinitionID)
	}
	p.PrincipalID, p.PrincipalType, p.Scope, p.Description = a.PrincipalID, a.PrincipalType, a.Scope, a.Description
	p.CreatedOn, p.UpdatedOn, p.CreatedBy, p.UpdatedBy = a.CreatedOn, a.UpdatedOn, a.CreatedBy, a.UpdatedBy
	return out
}

// assignmentBody is a role assignment in requests. What the service chooses
// is accepted and ignored.
type assignmentBody struct {
	Properties *struct {
		RoleDefinitionID string `json:"roleDefinitionId"`
		PrincipalID      string `json:"principalId"`
		PrincipalType    string `json:"principalType"`
		Description      string `json:"description"`
		Condition        string `json:"condition"`
		ConditionVersion string `json:"conditionVersion"`
		Delegated        string `json:"delegatedManagedIdentityResourceId"`
	} `json:"properties"`
}

// roleInBody reads which role a PUT gives, and puts the body back. A body
// that it cannot read gives none: a caller whose right depends on the role is
// refused then, and any other learns from the handler what is wrong with it.
func roleInBody(r *http.Request, _ *Request) (string, error) {
	body, err := web.ReadBody(r, web.MaxBody, codeContent)
	if err != nil {
		return "", err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var b assignmentBody
	if json.Unmarshal(body, &b) != nil || b.Properties == nil {
		return "", nil
	}
	return rbac.RoleID(b.Properties.RoleDefinitionID), nil
}

// roleOfAssignment finds which role a DELETE takes away.
func (h *Handler) roleOfAssignment(r *http.Request, q *Request) (string, error) {
	a, _, err := h.o.RBAC.Assignment(r.Context(), q.TenantID, q.ID.Scope().String(), q.ID.Name())
	return a.RoleDefinitionID, err
}

// putAssignment gives a role. Scope, role and principal must all exist:
// unlike Azure, which believes a principalType, since a grant to an object id
// that is not there yet would be anybody's who gets that id.
//
// It answers 201 to a repetition too: az takes anything else for an error.
func (h *Handler) putAssignment(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body assignmentBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	p := body.Properties
	if p == nil {
		return fault.BadRequest(codeContent, "The request body has no 'properties'.")
	}
	if p.Delegated != "" {
		return fault.BadRequest("BadRequest", "The property 'delegatedManagedIdentityResourceId' is not supported.")
	}
	ctx := r.Context()
	scope, err := q.mustExist(ctx, q.ID.Scope())
	if err != nil {
		return err
	}
	a, created, err := h.o.RBAC.PutAssignment(ctx, rbac.Assignment{
		Name: q.ID.Name(), TenantID: q.TenantID, Scope: scope, RoleDefinitionID: p.RoleDefinitionID,
		PrincipalID: p.PrincipalID, PrincipalType: p.PrincipalType, Description: p.Description,
		Condition: cmp.Or(p.Condition, p.ConditionVersion), CreatedBy: q.Principal.ObjectID,
	})
	if err != nil {
		return err
	}
	if created {
		err := q.stillThere(ctx, q.ID.Scope(), func(ctx context.Context) error {
			_, _, err := h.o.RBAC.DeleteAssignment(ctx, q.TenantID, scope, a.Name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return web.WriteJSON(w, http.StatusCreated, assignmentWire(q.ID.Scope(), &a))
}

func (h *Handler) getAssignment(w http.ResponseWriter, r *http.Request, q *Request) error {
	a, ok, err := h.o.RBAC.Assignment(r.Context(), q.TenantID, q.ID.Scope().String(), q.ID.Name())
	if err != nil {
		return err
	}
	if !ok {
		return fault.NotFound("RoleAssignmentNotFound", "The role assignment '%s' is not found.", clip(q.ID.Name()))
	}
	return web.WriteJSON(w, http.StatusOK, assignmentWire(q.ID.Scope(), &a))
}

func (h *Handler) deleteAssignment(w http.ResponseWriter, r *http.Request, q *Request) error {
	a, existed, err := h.o.RBAC.DeleteAssignment(r.Context(), q.TenantID, q.ID.Scope().String(), q.ID.Name())
	if err != nil {
		return err
	}
	if !existed {
		return writeDeleted(w, false)
	}
	return web.WriteJSON(w, http.StatusOK, assignmentWire(q.ID.Scope(), &a))
}

var assignmentFilter = filterRules{
	properties: map[string]string{"principalid": "eq"},
	functions:  map[string][]string{"atscope": {""}, "assignedto": {"text"}},
}

// listAssignments lists what is assigned at a scope, above it and below it,
// to those who may read assignments at the scope: those above hold there too,
// and a role that may read them there may read them below. Others see what
// they may read where it is.
func (h *Handler) listAssignments(w http.ResponseWriter, r *http.Request, q *Request) error {
	f, err := q.filter(&assignmentFilter)
	if err != nil {
		return err
	}
	ctx, scope := r.Context(), q.ID.Scope()
	all, err := h.assignmentsFor(ctx, q, f)
	if err != nil {
		return err
	}
	here, err := q.Allowed(ctx, typeAssignment+"/read", q.ID.Key())
	if err != nil {
		return err
	}
	shown := all[:0]
	for _, a := range all {
		below := scope.Key() != strings.ToLower(a.Scope) && strings.HasPrefix(strings.ToLower(a.Scope), scope.under())
		env := filterEnv{
			property: func(string) string { return a.PrincipalID },
			call: func(name string, args []string) bool {
				if name == "atscope" {
					return !below
				}
				return strings.EqualFold(args[0], a.PrincipalID)
			},
		}
		if !match(f, &env) {
			continue
		}
		ok := here
		if !ok {
			if ok, err = q.Allowed(ctx, typeAssignment+"/read", a.ID()); err != nil {
				return err
			}
		}
		if ok {
			shown = append(shown, a)
		}
	}
	return writePage(w, q, shown, func(a *rbac.Assignment) string { return strings.ToLower(a.ID()) },
		func(a *rbac.Assignment) wireAssignment { return assignmentWire(scope, a) })
}

// assignmentsFor returns the assignments that a look at the request's scope
// shows, of which the filter may leave out more. If the filter names the
// principals, only theirs are looked at: a tenant may have very many.
func (h *Handler) assignmentsFor(ctx context.Context, q *Request, f filter) ([]rbac.Assignment, error) {
	principals, named := f.OneOf("principalid")
	if !named {
		return h.o.RBAC.Assignments(ctx, q.TenantID, q.ID.Scope().String(), rbac.Filter{})
	}
	for i := range principals {
		principals[i] = strings.ToLower(principals[i])
	}
	slices.Sort(principals)
	return h.assignmentsOf(ctx, q.TenantID, q.ID.Scope(), slices.Compact(principals))
}
