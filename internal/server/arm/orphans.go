package arm

import (
	"context"
	"errors"
	"strings"

	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
)

// removeOrphans removes resources and role assignments in resource groups
// that do not exist. A creation that loses against the removal of its group
// undoes itself (see [Request.stillThere]); a server that dies before that
// leaves an orphan, which nobody sees under its group, but which holds its
// name and would come back with a group of that name.
//
// Another server may be undoing the same creation: both may, and what is gone
// is left alone.
func (h *Handler) removeOrphans(ctx context.Context) error {
	subs, err := h.subscriptions.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	tenants := map[string]bool{}
	for _, e := range subs {
		if e.Err != nil {
			continue
		}
		tenants[e.Value.TenantID] = true
		held, err := h.resources(ctx, mustParse("/subscriptions/"+e.Value.ID))
		if err != nil {
			return err
		}
		for i := range held {
			orphan, err := h.isOrphan(ctx, held[i].ID)
			if err != nil {
				return err
			}
			if !orphan {
				continue
			}
			if err := h.removeResource(ctx, &held[i], ""); err != nil {
				return err
			}
			h.o.Log.InfoContext(ctx, "removed a resource whose resource group does not exist", "resource", held[i].ID)
		}
	}
	for tenant := range tenants {
		if err := h.removeOrphanAssignments(ctx, tenant); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) removeOrphanAssignments(ctx context.Context, tenant string) error {
	all, err := h.o.RBAC.Assignments(ctx, tenant, "/", rbac.Filter{})
	if err != nil {
		return err
	}
	for i := range all {
		a := &all[i]
		orphan, err := h.isOrphan(ctx, a.Scope)
		if err != nil {
			return err
		}
		if !orphan {
			continue
		}
		if _, _, err := h.o.RBAC.DeleteAssignment(ctx, tenant, a.Scope, a.Name); err != nil {
			return err
		}
		h.o.Log.InfoContext(ctx, "removed a role assignment whose resource group does not exist", "assignment", strings.ToLower(a.ID()))
	}
	return nil
}

// isOrphan reports whether an id lies in a resource group that does not
// exist, or is the id of one. What is not in a group is no orphan.
func (h *Handler) isOrphan(ctx context.Context, id string) (bool, error) {
	parsed, err := ParseID(id)
	if err != nil || parsed.Group() == "" {
		return false, nil // not an id of ours: nothing is known about it
	}
	_, ok, err := h.group(ctx, parsed)
	if _, damaged := errors.AsType[*store.DamagedError](err); damaged {
		return false, nil // it is there, though nobody can read it
	}
	return !ok, err
}
