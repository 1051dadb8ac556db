package rbac

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
)

// Assignment gives a principal a role at a scope and below it.
type Assignment struct {
	Name             string    `json:"name"`             // GUID, unique in the tenant
	TenantID         string    `json:"tenantId"`         // of scope and principal
	Scope            string    `json:"scope"`            // in display case, no closing slash; "/" is the tenant
	RoleDefinitionID string    `json:"roleDefinitionId"` // GUID alone; see [RoleID] and [RoleIDAt]
	PrincipalID      string    `json:"principalId"`
	PrincipalType    string    `json:"principalType"` // ServicePrincipal, User, Group or ForeignGroup
	Description      string    `json:"description,omitempty"`
	CreatedOn        time.Time `json:"createdOn"`
	UpdatedOn        time.Time `json:"updatedOn"`
	CreatedBy        string    `json:"createdBy"` // object id of a caller
	UpdatedBy        string    `json:"updatedBy"`

	// Condition would narrow the assignment. It is refused when it is set: an
	// assignment whose condition is not evaluated gives more than was meant.
	Condition string `json:"-"`
}

// Principal types that the directory does not know, so that an assignment to
// one is taken at its word.
const (
	TypeGroup        = "Group"
	TypeForeignGroup = "ForeignGroup"
)

const assignmentType = "/providers/Microsoft.Authorization/roleAssignments/"

// ID is the assignment's full id.
func (a *Assignment) ID() string {
	return strings.TrimSuffix(a.Scope, "/") + assignmentType + a.Name
}

const definitionType = "/providers/Microsoft.Authorization/roleDefinitions/"

// RoleID takes the GUID out of a role definition's id, which may be at any
// scope, or be the GUID alone. It is lower case, and empty if there is none.
func RoleID(id string) string {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		if len(id) < len(definitionType) || !strings.HasSuffix(strings.ToLower(id[:i+1]), strings.ToLower(definitionType)) {
			return ""
		}
		id = id[i+1:]
	}
	return canonical(id)
}

// RoleIDAt is the full id of a role definition as it is seen from a scope:
// below a subscription it names the subscription, as Azure shows it, and
// clients that look up both definition and assignment compare the two.
func RoleIDAt(scope, guid string) string {
	segments := strings.SplitN(scope, "/", 4)
	if len(segments) >= 3 && strings.EqualFold(segments[1], "subscriptions") {
		return "/subscriptions/" + segments[2] + definitionType + guid
	}
	return definitionType + guid
}

// canonical is a GUID of 36 characters in lower case, or "".
func canonical(id string) string {
	c, _ := directory.CanonicalID(id)
	return c
}

func assignmentKey(tenant, scope, name string) string {
	return store.Key(tenant, scopeKey(scope), name)
}

// PutAssignment creates the assignment, or changes its description. The
// caller fills in Name, TenantID, Scope, RoleDefinitionID (in any form that
// [RoleID] takes), PrincipalID, CreatedBy, and as it likes PrincipalType and
// Description. It does not ask whether the caller may: the plane has done
// that. Faults: the same principal and role at the scope under another name
// (Clash, RoleAssignmentExists); a name in use for something else (Invalid,
// RoleAssignmentUpdateNotPermitted); unknown role or principal; a custom role
// that cannot be assigned at the scope; a condition.
func (r *RBAC) PutAssignment(ctx context.Context, a Assignment) (_ Assignment, created bool, err error) {
	if err := r.check(ctx, &a); err != nil {
		return Assignment{}, false, err
	}
	now := r.now().UTC()
	a.CreatedOn, a.UpdatedOn, a.UpdatedBy = now, now, a.CreatedBy
	var put Assignment
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		if err := r.checkAssignable(tx, &a); err != nil {
			return err
		}
		old, had, err := r.conflict(tx, &a)
		if err != nil {
			return err
		}
		put, created = a, !had
		if had {
			put.CreatedOn, put.CreatedBy = old.CreatedOn, old.CreatedBy
			put.Scope = old.Scope
		}
		return r.assignments.Put(tx, assignmentKey(a.TenantID, a.Scope, a.Name), put)
	})
	return put, created, err
}

// conflict looks for what stands in the way of the assignment, and returns
// the one that it updates, if there is one.
func (r *RBAC) conflict(tx *store.Tx, a *Assignment) (old Assignment, had bool, err error) {
	named, err := r.assignments.By(tx, "name", a.TenantID+"/"+a.Name)
	if err != nil {
		return old, false, err
	}
	for _, e := range named {
		if e.Err != nil {
			return old, false, e.Err
		}
		if scopeKey(e.Value.Scope) != scopeKey(a.Scope) || e.Value.PrincipalID != a.PrincipalID || e.Value.RoleDefinitionID != a.RoleDefinitionID {
			return old, false, fault.BadRequest("RoleAssignmentUpdateNotPermitted",
				"Tenant ID, application ID, principal ID, and scope are not allowed to be updated.")
		}
		old, had = e.Value, true
	}
	held, err := r.assignments.By(tx, "principal", a.PrincipalID)
	if err != nil {
		return old, false, err
	}
	for _, e := range held {
		if e.Err != nil {
			return old, false, e.Err
		}
		v := &e.Value
		if v.Name != a.Name && v.TenantID == a.TenantID && v.RoleDefinitionID == a.RoleDefinitionID && scopeKey(v.Scope) == scopeKey(a.Scope) {
			return old, false, fault.Conflict("RoleAssignmentExists",
				"The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(v.Name, "-", ""))
		}
	}
	return old, had, nil
}

// check validates and canonicalises what a caller gave.
func (r *RBAC) check(ctx context.Context, a *Assignment) error {
	name := canonical(a.Name)
	if name == "" {
		return fault.BadRequest("InvalidRoleAssignmentId", "The role assignment ID '%.60s' is not valid. The role assignment ID must be a GUID.", a.Name)
	}
	a.Name = name
	if a.TenantID = canonical(a.TenantID); a.TenantID == "" {
		return fault.BadRequest("InvalidTenantId", "The role assignment has no tenant.")
	}
	if s, ok := strings.CutSuffix(a.Scope, "/"); ok && s != "" && s != "/" { // "//" is not the tenant
		a.Scope = s
	}
	if !validScope(a.Scope) {
		return fault.BadRequest("InvalidScope", "The scope of the role assignment is not valid.")
	}
	if a.Condition != "" {
		return fault.BadRequest("RoleAssignmentConditionNotSupported",
			"Conditions on role assignments are not supported. Remove the condition, or assign the role at a narrower scope.")
	}
	if len(a.Description) > 1024 {
		return fault.BadRequest("RoleAssignmentDescriptionTooLong", "The description of a role assignment can have at most 1024 bytes.")
	}
	role := RoleID(a.RoleDefinitionID)
	if role == "" {
		return fault.BadRequest("InvalidRoleDefinitionId", "The role definition ID '%.120s' is not valid.", a.RoleDefinitionID)
	}
	a.RoleDefinitionID = role
	return r.checkPrincipal(ctx, a)
}

// checkPrincipal demands that the principal is in the directory of the
// assignment's tenant. Groups are not in the directory: they are believed,
// since a token's groups come from the token service alone.
func (r *RBAC) checkPrincipal(ctx context.Context, a *Assignment) error {
	id := canonical(a.PrincipalID)
	if id == "" {
		return fault.BadRequest("InvalidPrincipalId", "A valid principal ID must be provided for role assignment.")
	}
	a.PrincipalID = id
	types := []string{directory.PrincipalService, directory.PrincipalUser, TypeGroup, TypeForeignGroup}
	if a.PrincipalType != "" {
		i := slices.IndexFunc(types, func(t string) bool { return strings.EqualFold(t, a.PrincipalType) })
		if i < 0 {
			return fault.BadRequest("InvalidPrincipalType", "The principal type '%.40s' is not valid.", a.PrincipalType)
		}
		a.PrincipalType = types[i]
	}
	p, ok, err := r.directory.Principal(ctx, id)
	if err != nil {
		return err
	}
	switch group := a.PrincipalType == TypeGroup || a.PrincipalType == TypeForeignGroup; {
	case ok && p.TenantID == a.TenantID && (a.PrincipalType == "" || a.PrincipalType == p.Kind):
		a.PrincipalType = p.Kind
		return nil
	case ok && p.TenantID == a.TenantID:
		return fault.BadRequest("UnmatchedPrincipalType",
			"The PrincipalId '%s' has type '%s' , which is different from specified PrinciaplType '%s'.", id, p.Kind, a.PrincipalType)
	case !ok && group:
		return nil
	}
	return fault.BadRequest("PrincipalNotFound",
		"Principal %s does not exist in the directory %s. Check that you have the correct principal ID.", strings.ReplaceAll(id, "-", ""), a.TenantID)
}

// Assignment finds the assignment with a name at exactly the scope.
func (r *RBAC) Assignment(ctx context.Context, tenantID, scope, name string) (Assignment, bool, error) {
	return r.assignments.Load(ctx, assignmentKey(strings.ToLower(tenantID), scope, strings.ToLower(name)))
}

// Filter narrows a listing of assignments.
type Filter struct {
	AtScope     bool   // leave out assignments below the scope
	PrincipalID string // of this principal only
}

// Assignments lists the assignments that a look at the scope shows: those at
// it, those above it, which it inherits, and, unless the filter says
// otherwise, those below it. They are ordered by scope and name.
func (r *RBAC) Assignments(ctx context.Context, tenantID, scope string, f Filter) ([]Assignment, error) {
	tenantID = strings.ToLower(tenantID)
	all, err := r.candidates(ctx, tenantID, f)
	if err != nil {
		return nil, err
	}
	key := scopeKey(scope)
	var found []Assignment
	for i := range all {
		a := &all[i]
		at := scopeKey(a.Scope)
		if covers(at, key) || at == rootGroup+tenantID || !f.AtScope && covers(key, at) {
			found = append(found, *a)
		}
	}
	slices.SortFunc(found, func(a, b Assignment) int {
		if c := strings.Compare(scopeKey(a.Scope), scopeKey(b.Scope)); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return found, nil
}

// candidates are the assignments of a tenant that the filter's principal has:
// by the index, since a tenant may have many; without a principal, all.
func (r *RBAC) candidates(ctx context.Context, tenant string, f Filter) ([]Assignment, error) {
	if f.PrincipalID != "" {
		held, err := r.assignments.Find(ctx, "principal", strings.ToLower(f.PrincipalID))
		return slices.DeleteFunc(held, func(a Assignment) bool { return a.TenantID != tenant }), err
	}
	entries, err := r.assignments.Scan(ctx, store.Key(tenant)+"/", "", 0)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, 0, len(entries))
	for _, e := range entries {
		if e.Err == nil {
			all = append(all, e.Value)
		}
	}
	return all, nil
}

// DeleteAssignment removes the assignment with a name at exactly the scope
// and returns what it was.
func (r *RBAC) DeleteAssignment(ctx context.Context, tenantID, scope, name string) (a Assignment, existed bool, err error) {
	key := assignmentKey(strings.ToLower(tenantID), scope, strings.ToLower(name))
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		if a, existed, err = r.assignments.Get(tx, key); err != nil || !existed {
			return err
		}
		r.assignments.Delete(tx, key)
		return nil
	})
	return a, existed, err
}

// DeleteScope removes all assignments at the scope and below it. The plane
// calls it when the resource goes, so that one made later under the same id
// does not inherit them.
func (r *RBAC) DeleteScope(ctx context.Context, tenantID, scope string) error {
	return r.store.Update(ctx, func(tx *store.Tx) error {
		r.DeleteScopeIn(tx, tenantID, scope)
		return nil
	})
}

// DeleteScopeIn is [RBAC.DeleteScope] as part of a transaction, so that the
// resource and its assignments go together.
func (r *RBAC) DeleteScopeIn(tx *store.Tx, tenantID, scope string) {
	tenantID = strings.ToLower(tenantID)
	key := scopeKey(scope)
	if key == "/" {
		r.assignments.DeletePrefix(tx, store.Key(tenantID)+"/")
		return
	}
	r.assignments.DeletePrefix(tx, store.Key(tenantID, key)+"/") // at it
	r.assignments.DeletePrefix(tx, store.Key(tenantID, key+"/")) // below it: a slash in a part is escaped
}
