package rbac

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/podkey/podkey/internal/store"
)

// holding is one role assignment, ready to be matched.
type holding struct {
	scope  string // see scopeKey; "/" for the tenant root management group too
	tenant string
	role   *role
	name   string // GUID of the assignment
	id     string // its full id
	reason string // for the audit line when it grants
}

// grants reports whether the assignment allows the request; object is
// req.Object without a closing slash.
func (h *holding) grants(req *Request, object string) bool {
	return covers(h.scope, object) &&
		strings.EqualFold(h.tenant, req.TenantID) &&
		h.role.allows(req.Action, req.Data) &&
		h.role.mayAssign(req.Action, req.RoleDefinitionID)
}

// heldCache remembers the holdings of principals that asked lately, for as
// long as no assignment and no custom role changes.
type heldCache struct {
	mu         sync.RWMutex
	generation int64
	held       map[string][]holding // by principal, lower case
}

// maxHeld bounds the cache; principals beyond it start it afresh.
const maxHeld = 20_000

// holdings returns the assignments of a principal, compiled. The generation
// is read before the table, so what is stored under it is never older than
// it says: an assignment that was removed does not grant once more.
func (r *RBAC) holdings(ctx context.Context, principal string) ([]holding, error) {
	gen, err := r.store.Generation(ctx, r.assignments, r.custom)
	if err != nil {
		return nil, err
	}
	principal = strings.ToLower(principal)
	c := &r.held
	c.mu.RLock()
	held, ok := c.held[principal]
	ok = ok && c.generation == gen
	c.mu.RUnlock()
	if ok {
		return held, nil
	}
	found, err := r.assignments.Find(ctx, "principal", principal)
	if err != nil {
		return nil, err
	}
	if held, err = r.compile(ctx, found); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation < gen || len(c.held) >= maxHeld || c.held == nil {
		c.generation, c.held = max(gen, c.generation), make(map[string][]holding)
	}
	if c.generation == gen {
		c.held[principal] = held
	}
	return held, nil
}

// compile leaves out assignments of roles that are not known: of built-in
// ones that this version of the program does not have.
func (r *RBAC) compile(ctx context.Context, found []Assignment) ([]holding, error) {
	held := make([]holding, 0, len(found))
	for i := range found {
		a := &found[i]
		ro, err := r.roleOf(ctx, a)
		if err != nil {
			return nil, err
		}
		if ro == nil {
			continue
		}
		h := holding{scope: scopeKey(a.Scope), tenant: a.TenantID, role: ro, name: a.Name, id: a.ID()}
		h.reason = ro.def.Name + " at " + h.scope
		if h.scope == rootGroup+strings.ToLower(a.TenantID) {
			h.scope = "/"
		}
		held = append(held, h)
	}
	return held, nil
}

// roleOf returns the role that an assignment gives, or nil. Where a custom
// role can be assigned is looked at again: it bounds what the role can give,
// however the assignment came about.
func (r *RBAC) roleOf(ctx context.Context, a *Assignment) (*role, error) {
	if ro := r.roles[a.RoleDefinitionID]; ro != nil {
		return ro, nil
	}
	d, ok, err := r.custom.Load(ctx, definitionKey(a.TenantID, a.RoleDefinitionID))
	if _, damaged := errors.AsType[*store.DamagedError](err); damaged {
		return nil, nil // it gives nothing; the other roles of the caller still count
	}
	if err != nil || !ok || !d.AssignableAt(a.Scope) {
		return nil, err
	}
	return compileRole(d), nil
}

// rootGroup, followed by a tenant's id, is the scope of the management group
// at the root of the tenant: everything in the tenant lies below it.
const rootGroup = "/providers/microsoft.management/managementgroups/"
