package arm

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/web"
)

const typeAssignment = "Microsoft.Authorization/roleAssignments"

func (h *Handler) registerAuthorization() {
	h.registerDefinitions()
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
	// There are no deny assignments and no classic administrators: clients ask
	// for them beside the role assignments.
	for _, name := range []string{"denyAssignments", "classicAdministrators"} {
		h.Register(ResourceType{Name: "Microsoft.Authorization/" + name, Leaf: true, Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtAny, Action: "Microsoft.Authorization/" + name + "/read", Handle: listNothing},
		}})
	}
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
			d, ok, err := h.o.RBAC.Definition(r.Context(), q.TenantID, held[i].RoleDefinitionID)
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
