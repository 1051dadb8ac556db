package arm

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeDefinition = "Microsoft.Authorization/roleDefinitions"
	typeAssignment = "Microsoft.Authorization/roleAssignments"
)

func (h *Handler) registerAuthorization() {
	h.Register(ResourceType{
		Name: typeDefinition, Versions: versionsAuthorization, Leaf: true,
		Find: func(ctx context.Context, _ string, id ID) (string, bool, error) {
			d, ok, err := h.o.RBAC.Definition(ctx, id.Name())
			return rbac.RoleIDAt(id.Scope().String(), d.ID), ok, err
		},
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtAny, Action: typeDefinition + "/read", Handle: h.listDefinitions},
			{Method: "GET", Levels: AtAny, Action: typeDefinition + "/read", Handle: h.getDefinition},
		},
	})
	h.Register(ResourceType{
		Name: "Microsoft.Authorization/permissions", Versions: versionsAuthorization, Leaf: true,
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtAny, Action: "Microsoft.Authorization/permissions/read", Visible: true, Handle: h.listPermissions},
		},
	})
	h.Register(ResourceType{
		Name: typeAssignment, Versions: versionsAuthorization, Leaf: true,
		Find: func(ctx context.Context, tenant string, id ID) (string, bool, error) {
			a, ok, err := h.o.RBAC.Assignment(ctx, tenant, id.Scope().String(), id.Name())
			return a.ID(), ok, err
		},
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtAny, Action: typeAssignment + "/read", Visible: true, Handle: h.listAssignments},
			{Method: "GET", Levels: AtAny, Action: typeAssignment + "/read", Handle: h.getAssignment},
			{Method: "PUT", Levels: AtAny, Action: typeAssignment + "/write", Role: roleInBody, Handle: h.putAssignment},
			{Method: "DELETE", Levels: AtAny, Action: typeAssignment + "/delete", Role: h.roleOfAssignment, Handle: h.deleteAssignment},
		},
	})
}

type wireDefinition struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		RoleName         string           `json:"roleName"`
		Type             string           `json:"type"`
		Description      string           `json:"description"`
		AssignableScopes []string         `json:"assignableScopes"`
		Permissions      []wirePermission `json:"permissions"`
	} `json:"properties"`
}

type wirePermission struct {
	Actions          []string `json:"actions"`
	NotActions       []string `json:"notActions"`
	DataActions      []string `json:"dataActions"`
	NotDataActions   []string `json:"notDataActions"`
	Condition        string   `json:"condition,omitempty"`
	ConditionVersion string   `json:"conditionVersion,omitempty"`
}

func permissionWire(d *rbac.RoleDefinition) wirePermission {
	p := wirePermission{Actions: d.Actions, NotActions: d.NotActions, DataActions: d.DataActions, NotDataActions: d.NotDataActions}
	if p.Condition = d.Condition(); p.Condition != "" {
		p.ConditionVersion = rbac.ConditionVersion
	}
	return p
}

func definitionWire(scope ID, d *rbac.RoleDefinition) wireDefinition {
	out := wireDefinition{ID: rbac.RoleIDAt(scopeOfRoles(scope), d.ID), Name: d.ID, Type: typeDefinition}
	out.Properties.RoleName, out.Properties.Type, out.Properties.Description = d.Name, d.Type, d.Description
	out.Properties.AssignableScopes, out.Properties.Permissions = d.AssignableScopes, []wirePermission{permissionWire(d)}
	return out
}

// scopeOfRoles is the scope that the ids of role definitions begin with: the
// subscription as it is stored, whatever its letters in the path, so that a
// client can compare the ids of two answers.
func scopeOfRoles(scope ID) string {
	if s := scope.Subscription(); s != "" {
		return "/subscriptions/" + s
	}
	return "/"
}

// definitionFilter: a role either can be assigned at a scope, then also
// below, or it cannot; so the two functions select nothing.
var definitionFilter = filterRules{
	properties: map[string]string{"rolename": "eq", "type": "eq"},
	functions:  map[string][]string{"atscope": {""}, "atscopeandbelow": {""}},
}

func (h *Handler) listDefinitions(w http.ResponseWriter, r *http.Request, q *Request) error {
	f, err := q.filter(&definitionFilter)
	if err != nil {
		return err
	}
	scope := q.ID.Scope()
	all, err := h.o.RBAC.Definitions(r.Context(), scope.Key())
	if err != nil {
		return err
	}
	out := wireList[wireDefinition]{Value: []wireDefinition{}}
	for i := range all {
		d := &all[i]
		env := filterEnv{
			call: func(string, []string) bool { return true },
			property: func(name string) string {
				if name == "type" {
					return d.Type
				}
				return d.Name
			},
		}
		if match(f, &env) {
			out.Value = append(out.Value, definitionWire(scope, d))
		}
	}
	return web.WriteJSON(w, http.StatusOK, out) // all at once, as Azure does
}

func (h *Handler) getDefinition(w http.ResponseWriter, r *http.Request, q *Request) error {
	d, ok, err := h.o.RBAC.Definition(r.Context(), q.ID.Name())
	if err != nil {
		return err
	}
	if !ok {
		return roleMissing(q.ID.Name())
	}
	return web.WriteJSON(w, http.StatusOK, definitionWire(q.ID.Scope(), &d))
}

// listPermissions tells the caller what its own roles allow at a scope.
func (h *Handler) listPermissions(w http.ResponseWriter, r *http.Request, q *Request) error {
	out := wireList[wirePermission]{Value: []wirePermission{}}
	for _, id := range append([]string{q.Principal.ObjectID}, q.Principal.Groups...) {
		held, err := h.o.RBAC.Assignments(r.Context(), q.TenantID, q.ID.Scope().String(), rbac.Filter{AtScope: true, PrincipalID: id})
		if err != nil {
			return err
		}
		for i := range held {
			d, ok, err := h.o.RBAC.Definition(r.Context(), held[i].RoleDefinitionID)
			if err != nil {
				return err
			}
			if ok {
				out.Value = append(out.Value, permissionWire(&d))
			}
		}
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

// assignmentsOf returns the role assignments of any of some principals at an
// id, above it and below it.
func (h *Handler) assignmentsOf(ctx context.Context, tenant string, id ID, principals []string) ([]rbac.Assignment, error) {
	var all []rbac.Assignment
	for _, p := range principals {
		some, err := h.o.RBAC.Assignments(ctx, tenant, id.String(), rbac.Filter{PrincipalID: strings.ToLower(p)})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
