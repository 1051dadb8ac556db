package arm

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeDefinition   = "Microsoft.Authorization/roleDefinitions"
	actionDefinition = typeDefinition + "/"
)

func (h *Handler) registerDefinitions() {
	h.Register(ResourceType{
		Name: typeDefinition, Versions: versionsAuthorization, Leaf: true,
		Find: func(ctx context.Context, tenant string, id ID) (string, bool, error) {
			d, ok, err := h.definition(ctx, tenant, id)
			return rbac.RoleIDAt(id.Scope().String(), d.ID), ok, err
		},
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtAny, Action: actionDefinition + "read", Handle: h.listDefinitions},
			{Method: "GET", Levels: AtAny, Action: actionDefinition + "read", Handle: h.getDefinition},
			{Method: "PUT", Levels: AtAny, Action: actionDefinition + "write", Handle: h.putDefinition},
			{Method: "DELETE", Levels: AtAny, Action: actionDefinition + "delete", Handle: h.deleteDefinition},
		},
	})
}

// definition finds the role that an id names, if a look at the id's scope
// shows it. A custom role is seen from where it can be assigned, and from
// above.
func (h *Handler) definition(ctx context.Context, tenant string, id ID) (rbac.RoleDefinition, bool, error) {
	d, ok, err := h.o.RBAC.Definition(ctx, tenant, id.Name())
	return d, ok && d.SeenFrom(id.Scope().String()), err
}

type wireDefinition struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Type       string               `json:"type"`
	Properties definitionProperties `json:"properties"`
}

type definitionProperties struct {
	RoleName         string           `json:"roleName"`
	Type             string           `json:"type"`
	Description      string           `json:"description"`
	AssignableScopes []string         `json:"assignableScopes"`
	Permissions      []wirePermission `json:"permissions"`
	CreatedOn        time.Time        `json:"createdOn,omitzero"`
	UpdatedOn        time.Time        `json:"updatedOn,omitzero"`
	CreatedBy        string           `json:"createdBy,omitempty"`
	UpdatedBy        string           `json:"updatedBy,omitempty"`
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
	return wireDefinition{
		ID: rbac.RoleIDAt(scopeOfRoles(scope), d.ID), Name: d.ID, Type: typeDefinition,
		Properties: definitionProperties{
			RoleName: d.Name, Type: d.Type, Description: d.Description,
			AssignableScopes: d.AssignableScopes, Permissions: []wirePermission{permissionWire(d)},
			CreatedOn: d.CreatedOn, UpdatedOn: d.UpdatedOn, CreatedBy: d.CreatedBy, UpdatedBy: d.UpdatedBy,
		},
	}
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

// belowToo is the function by which a listing asks also for the roles that
// can be assigned only below the scope. Without it, or with atScope(), which
// says the same, the listing has those that can be assigned at the scope.
const belowToo = "atscopeandbelow"

var definitionFilter = filterRules{
	properties: map[string]string{"rolename": "eq", "type": "eq"},
	functions:  map[string][]string{"atscope": {""}, belowToo: {""}},
}

func (h *Handler) listDefinitions(w http.ResponseWriter, r *http.Request, q *Request) error {
	f, err := q.filter(&definitionFilter)
	if err != nil {
		return err
	}
	scope := q.ID.Scope()
	all, err := h.o.RBAC.Definitions(r.Context(), q.TenantID, scope.Key(), f.Uses(belowToo))
	if err != nil {
		return err
	}
	out := wireList[wireDefinition]{Value: []wireDefinition{}}
	for i := range all {
		d := &all[i]
		env := filterEnv{
			call: func(name string, _ []string) bool { return name == belowToo || d.AssignableAt(scope.Key()) },
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
	d, ok, err := h.definition(r.Context(), q.TenantID, q.ID)
	if err != nil {
		return err
	}
	if !ok {
		return roleMissing(q.ID.Name())
	}
	return web.WriteJSON(w, http.StatusOK, definitionWire(q.ID.Scope(), &d))
}

// definitionBody is a role definition in requests. What the service chooses
// is accepted and ignored.
type definitionBody struct {
	Properties *definitionProperties `json:"properties"`
}

// definition is the role that the body asks for.
func (b *definitionBody) definition() (rbac.RoleDefinition, error) {
	p := b.Properties
	if p == nil {
		return rbac.RoleDefinition{}, fault.BadRequest(codeContent, "The request body has no 'properties'.")
	}
	d := rbac.RoleDefinition{Name: p.RoleName, Description: p.Description, AssignableScopes: p.AssignableScopes}
	switch {
	case p.Type != "" && !strings.EqualFold(p.Type, rbac.CustomRole):
		return d, fault.BadRequest("InvalidRoleDefinitionType", "The type of a role definition must be '%s'.", rbac.CustomRole)
	case len(p.Permissions) != 1:
		return d, fault.BadRequest("InvalidRoleDefinitionPermissions", "A role definition must have exactly one entry in 'permissions'.")
	}
	set := p.Permissions[0]
	if set.Condition != "" || set.ConditionVersion != "" {
		return d, fault.BadRequest("RoleDefinitionConditionNotSupported", "Conditions ('condition', 'conditionVersion') on the permissions of a role are not supported.")
	}
	d.Actions, d.NotActions, d.DataActions, d.NotDataActions = set.Actions, set.NotActions, set.DataActions, set.NotDataActions
	return d, nil
}

// putDefinition makes or changes a custom role. Who may: who may write roles
// at every scope at which the role can be assigned, or could be before. This
// is Azure's rule, and it keeps a role from growing in the hands of those who
// merely hold it: only roles that may do all with access (Owner, User Access
// Administrator) have that action.
//
// It answers 201 to a change too: az takes anything else for an error.
func (h *Handler) putDefinition(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body definitionBody
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	d, err := body.definition()
	if err != nil {
		return err
	}
	ctx := r.Context()
	d.ID, d.TenantID, d.UpdatedBy = q.ID.Name(), q.TenantID, q.Principal.ObjectID
	if err := h.o.RBAC.CheckDefinition(&d); err != nil {
		return err
	}
	old, _, err := h.o.RBAC.Definition(ctx, q.TenantID, d.ID)
	if err != nil {
		return err
	}
	for _, s := range d.AssignableScopes {
		if err := q.authorizeLinked(ctx, actionDefinition+"write", s, s); err != nil {
			return err
		}
		if slices.Contains(old.AssignableScopes, s) {
			continue // it may have gone since
		}
		if _, err := q.mustExist(ctx, mustParse(s)); err != nil {
			return err
		}
	}
	if err := q.authorizeAtAll(ctx, actionDefinition+"write", &old); err != nil {
		return err
	}
	d, _, err = h.o.RBAC.PutDefinition(ctx, d, slices.Concat(d.AssignableScopes, old.AssignableScopes))
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusCreated, definitionWire(q.ID.Scope(), &d))
}

// authorizeAtAll demands the action at every scope of a role. The refusal
// does not name the scope: the caller may know of the role from another one.
func (q *Request) authorizeAtAll(ctx context.Context, action string, d *rbac.RoleDefinition) error {
	for _, s := range d.AssignableScopes {
		if err := q.authorizeLinked(ctx, action, s, "(an assignable scope of the role)"); err != nil {
			return err
		}
	}
	return nil
}

// authorizeLinked demands an action on a role definition at a scope that is
// not the path's. A subscription that is not there, or of another tenant, is
// refused in the same words.
func (q *Request) authorizeLinked(ctx context.Context, action, scope, shown string) error {
	id, err := ParseID(scope)
	if err != nil {
		return err
	}
	sub, ok, err := q.h.subscriptionOf(ctx, id)
	if err != nil {
		return err
	}
	if ok && sub.TenantID == q.TenantID {
		err = q.Authorize(ctx, action, id)
		if !fault.Is(err, fault.Forbidden) {
			return err
		}
	} else if err := q.h.deny(ctx, action, id, q.Principal, "the subscription is not one of the caller's tenant"); err != nil {
		return err
	}
	return fault.Wrap(err, fault.Forbidden, "LinkedAuthorizationFailed",
		"The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope(s) '%s' or the linked scope(s) are invalid.",
		clip(q.Principal.AppID), clip(q.Principal.ObjectID), action, q.ID.String(), action, clip(shown))
}

// deleteDefinition removes a custom role that is assigned nowhere.
func (h *Handler) deleteDefinition(w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	d, ok, err := h.definition(ctx, q.TenantID, q.ID)
	if err != nil {
		return err
	}
	if !ok {
		return writeDeleted(w, false)
	}
	if d.Type == rbac.CustomRole {
		if err := q.authorizeAtAll(ctx, actionDefinition+"delete", &d); err != nil {
			return err
		}
	}
	d, existed, err := h.o.RBAC.DeleteDefinition(ctx, q.TenantID, d.ID, d.AssignableScopes)
	if err != nil {
		return err
	}
	if !existed {
		return writeDeleted(w, false)
	}
	return web.WriteJSON(w, http.StatusOK, definitionWire(q.ID.Scope(), &d))
}

func roleMissing(id string) error {
	return fault.NotFound("RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", clip(id))
}
