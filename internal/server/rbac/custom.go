package rbac

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// Custom roles are definitions that a tenant made. Each can be assigned at the
// subscriptions and resource groups that it names, and below them: never at
// the tenant's root. So whatever its actions say, it gives no right to what
// lies at the root, such as Podkey's own operations and the directory; who
// wants to do those needs a built-in role there.

// Limits of custom roles. Azure's are 5,000 roles and 2,000 scopes.
const (
	maxDefinitions      = 5000
	maxRoleName         = 512  // characters
	maxRoleDescription  = 2048 // characters
	maxAssignableScopes = 2000
	maxRoleActions      = 4000 // in all four lists together
	maxActionLength     = 512
)

// adminNamespace holds Podkey's own operations. A custom role cannot name
// them: it could not give them either, see above, and should not look as if.
const adminNamespace = "podkey.admin"

func definitionKey(tenant, guid string) string { return store.Key(tenant, guid) }

func nameKey(d *RoleDefinition) string { return d.TenantID + "/" + strings.ToLower(d.Name) }

// PutDefinition makes a custom role, or changes the one with the same GUID in
// the tenant. The caller fills in everything but Type, the dates and CreatedBy.
// judged are the scopes at which the plane found that the caller
// may write roles: should the role that is there be assignable elsewhere,
// somebody has changed it meanwhile, and the change is refused.
//
// Faults: values that are not valid (Invalid); the GUID of a built-in role
// (Invalid, RoleDefinitionUpdateNotPermitted); a name in use in the tenant
// (Clash, RoleDefinitionWithSameNameExists); a scope that goes although the
// role is assigned there (Invalid, RoleDefinitionHasAssignments).
func (r *RBAC) PutDefinition(ctx context.Context, d RoleDefinition, judged []string) (put RoleDefinition, created bool, err error) {
	if err := r.CheckDefinition(&d); err != nil {
		return put, false, err
	}
	now := r.now().UTC()
	d.Type, d.CreatedOn, d.UpdatedOn, d.CreatedBy = CustomRole, now, now, d.UpdatedBy
	key := definitionKey(d.TenantID, d.ID)
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		old, had, err := r.custom.Get(tx, key)
		if err != nil {
			return err
		}
		if err := r.nameIsFree(tx, &d, !had); err != nil {
			return err
		}
		put, created = d, !had
		if had {
			if !judgedAll(&old, judged) {
				return changedMeanwhile()
			}
			if err := r.staysAssignable(tx, &d); err != nil {
				return err
			}
			put.CreatedOn, put.CreatedBy = old.CreatedOn, old.CreatedBy
		}
		return r.custom.Put(tx, key, put)
	})
	return put, created, err
}

// DeleteDefinition removes a custom role of a tenant and returns what it was.
// judged is as for [RBAC.PutDefinition]. A role that is assigned stays
// (Invalid, RoleDefinitionHasAssignments), and so does a built-in one
// (Invalid, RoleDefinitionUpdateNotPermitted).
func (r *RBAC) DeleteDefinition(ctx context.Context, tenant, guid string, judged []string) (d RoleDefinition, existed bool, err error) {
	tenant, guid = strings.ToLower(tenant), strings.ToLower(guid)
	if r.roles[guid] != nil {
		return d, false, builtInStays()
	}
	key := definitionKey(tenant, guid)
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		if d, existed, err = r.custom.Get(tx, key); err != nil || !existed {
			return err
		}
		if !judgedAll(&d, judged) {
			return changedMeanwhile()
		}
		held, err := r.assignments.By(tx, "role", tenant+"/"+guid)
		if err != nil {
			return err
		}
		if len(held) > 0 {
			return hasAssignments()
		}
		r.custom.Delete(tx, key)
		return nil
	})
	return d, existed, err
}

// judgedAll reports whether the caller was judged at each of a role's scopes.
func judgedAll(d *RoleDefinition, judged []string) bool {
	return !slices.ContainsFunc(d.AssignableScopes, func(s string) bool {
		return !slices.ContainsFunc(judged, func(j string) bool { return scopeKey(j) == scopeKey(s) })
	})
}

// nameIsFree refuses a display name that another role of the tenant has: az
// and people know roles by it. For a new role it also counts.
func (r *RBAC) nameIsFree(tx *store.Tx, d *RoleDefinition, isNew bool) error {
	for _, b := range r.roles {
		if strings.EqualFold(b.def.Name, d.Name) {
			return sameName()
		}
	}
	named, err := r.custom.By(tx, "name", nameKey(d))
	if err != nil {
		return err
	}
	for _, e := range named {
		if e.Err != nil {
			return e.Err
		}
		if e.Value.ID != d.ID {
			return sameName()
		}
	}
	if !isNew {
		return nil
	}
	all, err := r.custom.List(tx, store.Key(d.TenantID)+"/", "", maxDefinitions)
	if err != nil {
		return err
	}
	if len(all) == maxDefinitions {
		return fault.BadRequest("RoleDefinitionLimitExceeded", "The tenant has %d custom roles, which is the limit.", maxDefinitions)
	}
	return nil
}

// staysAssignable demands that the role, as it is to be, can be assigned
// wherever it is assigned now: nobody loses access by the way.
func (r *RBAC) staysAssignable(tx *store.Tx, d *RoleDefinition) error {
	held, err := r.assignments.By(tx, "role", d.TenantID+"/"+d.ID)
	if err != nil {
		return err
	}
	for _, e := range held {
		if e.Err != nil {
			return e.Err
		}
		if !d.AssignableAt(e.Value.Scope) {
			return hasAssignments()
		}
	}
	return nil
}

// checkAssignable demands that the role of an assignment exists and can be
// assigned at its scope. Reading a custom role makes the transaction depend on
// it: it does not commit if the role goes, or shrinks, meanwhile.
func (r *RBAC) checkAssignable(tx *store.Tx, a *Assignment) error {
	if r.roles[a.RoleDefinitionID] != nil {
		return nil
	}
	d, ok, err := r.custom.Get(tx, definitionKey(a.TenantID, a.RoleDefinitionID))
	if err != nil {
		return err
	}
	if !ok {
		return fault.BadRequest("RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", strings.ReplaceAll(a.RoleDefinitionID, "-", ""))
	}
	if !d.AssignableAt(a.Scope) {
		return fault.BadRequest("RoleAssignmentScopeNotAssignableToRoleDefinition", "The role '%s' cannot be assigned at the scope '%s': its assignable scopes do not cover it.", d.Name, a.Scope)
	}
	return nil
}

// CheckDefinition validates what a caller gave of a custom role, and puts it
// into the form in which it is stored.
func (r *RBAC) CheckDefinition(d *RoleDefinition) error {
	guid := canonical(d.ID)
	if guid == "" {
		return fault.BadRequest("InvalidRoleDefinitionId", "The role definition ID %.60q is not valid. The role definition ID must be a GUID.", d.ID)
	}
	if d.ID = guid; r.roles[guid] != nil {
		return builtInStays()
	}
	if d.TenantID = canonical(d.TenantID); d.TenantID == "" {
		return fault.BadRequest("InvalidTenantId", "The role definition has no tenant.")
	}
	if n := utf8.RuneCountInString(d.Name); n == 0 || n > maxRoleName || !displayable(d.Name) {
		return fault.BadRequest("InvalidRoleDefinitionName", "The name of a role must have 1 to %d characters, none of them a control character, and no blank at an end.", maxRoleName)
	}
	if utf8.RuneCountInString(d.Description) > maxRoleDescription || !utf8.ValidString(d.Description) {
		return fault.BadRequest("InvalidRoleDefinitionDescription", "The description of a role can have at most %d characters.", maxRoleDescription)
	}
	if err := d.checkScopes(); err != nil {
		return err
	}
	return d.checkActions()
}

func displayable(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}

func (d *RoleDefinition) checkScopes() error {
	if len(d.AssignableScopes) == 0 || len(d.AssignableScopes) > maxAssignableScopes {
		return fault.BadRequest("InvalidAssignableScopes", "A role must have 1 to %d assignable scopes.", maxAssignableScopes)
	}
	var kept []string
	for _, s := range d.AssignableScopes {
		s = strings.TrimSuffix(s, "/")
		if !subscriptionOrGroup(s) {
			return fault.BadRequest("InvalidAssignableScopes", "The assignable scope %.120q is neither a subscription nor a resource group. Custom roles cannot be assigned at the root, and there are no management groups below it.", s)
		}
		if !slices.ContainsFunc(kept, func(k string) bool { return scopeKey(k) == scopeKey(s) }) {
			kept = append(kept, s)
		}
	}
	d.AssignableScopes = kept
	return nil
}

// subscriptionOrGroup reports whether a scope is /subscriptions/{GUID}, or
// that and /resourceGroups/{name}.
func subscriptionOrGroup(scope string) bool {
	if !validScope(scope) {
		return false
	}
	segs := strings.Split(scope, "/") // the first is empty
	switch {
	case len(segs) != 3 && len(segs) != 5, !strings.EqualFold(segs[1], "subscriptions"), canonical(segs[2]) == "":
		return false
	case len(segs) == 5:
		return strings.EqualFold(segs[3], "resourceGroups")
	}
	return true
}

func (d *RoleDefinition) checkActions() error {
	n := 0
	for _, list := range []*[]string{&d.Actions, &d.NotActions, &d.DataActions, &d.NotDataActions} {
		if *list == nil {
			*list = []string{} // never null in JSON
		}
		n += len(*list)
		for _, a := range *list {
			if !validAction(a) {
				return fault.BadRequest("InvalidActionOrNotAction", "%.120q does not have the form of an action: '*', or a provider and what follows it, such as 'Microsoft.KeyVault/vaults/read', with '*' for any part.", a)
			}
		}
	}
	if n > maxRoleActions {
		return fault.BadRequest("RoleDefinitionTooLarge", "A role can have at most %d actions.", maxRoleActions)
	}
	for _, a := range slices.Concat(d.Actions, d.DataActions) {
		if ns, _, _ := strings.Cut(a, "/"); strings.EqualFold(ns, adminNamespace) {
			return fault.BadRequest("InvalidActionOrNotAction", "'%.120s' is an operation on the whole server, which no custom role can give.", a)
		}
	}
	return nil
}

// validAction reports whether s is a pattern of actions: "*", or at least two
// segments of letters, digits, '.', '_', '-' and '*'. Which operations there
// are is not known: roles name those of providers that are not here, too.
func validAction(s string) bool {
	if s == "*" {
		return true
	}
	if len(s) > maxActionLength || strings.Count(s, "/") == 0 {
		return false
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || strings.ContainsFunc(seg, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' || r == '*')
		}) {
			return false
		}
	}
	return true
}

func sameName() error {
	return fault.Conflict("RoleDefinitionWithSameNameExists", "A role with the same name already exists in this directory. Use a different name.")
}

func hasAssignments() error {
	return fault.BadRequest("RoleDefinitionHasAssignments", "There are existing role assignments referencing role.")
}

func builtInStays() error {
	return fault.BadRequest("RoleDefinitionUpdateNotPermitted", "A built-in role cannot be changed or deleted.")
}

func changedMeanwhile() error {
	return fault.Conflict("RoleDefinitionUpdateConflict", "The role definition was changed at the same time. Please retry.")
}
