package rbac

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/store"
)

// The types of role definitions, as the management API spells them: those
// that every tenant has, and those that a tenant made.
const (
	BuiltInRole = "BuiltInRole"
	CustomRole  = "CustomRole"
)

// RoleDefinition is a named set of actions. The shape is that of the
// management API's properties, with one set of permissions.
type RoleDefinition struct {
	ID               string   `json:"id"`                 // GUID, lower case
	TenantID         string   `json:"tenantId,omitempty"` // whose custom role it is; empty for a built-in one
	Name             string   `json:"name"`               // display name
	Type             string   `json:"type"`               // BuiltInRole or CustomRole
	Description      string   `json:"description,omitempty"`
	AssignableScopes []string `json:"assignableScopes"`
	Actions          []string `json:"actions"`
	NotActions       []string `json:"notActions"`
	DataActions      []string `json:"dataActions"`
	NotDataActions   []string `json:"notDataActions"`
	// MayAssign limits which roles a holder may assign and unassign, by GUID;
	// nil means no limit. Azure writes it as a condition, see
	// [RoleDefinition.Condition]. No custom role has one.
	MayAssign []string `json:"-"`

	// Of custom roles alone: when and by whom (object ids of callers).
	CreatedOn time.Time `json:"createdOn,omitzero"`
	UpdatedOn time.Time `json:"updatedOn,omitzero"`
	CreatedBy string    `json:"createdBy,omitempty"`
	UpdatedBy string    `json:"updatedBy,omitempty"`
}

// ConditionVersion is the version of the language of conditions.
const ConditionVersion = "2.0"

// Condition is MayAssign as Azure writes it, in version [ConditionVersion];
// empty if there is no limit.
func (d *RoleDefinition) Condition() string {
	if d.MayAssign == nil {
		return ""
	}
	clause := func(verb, from string) string {
		return "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/" + verb + "'})) OR (@" + from +
			"[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals{" + strings.Join(d.MayAssign, ", ") + "}))"
	}
	return clause("write", "Request") + " AND " + clause("delete", "Resource")
}

// Definitions returns the roles that can be assigned at a scope in a tenant,
// and, if below is set, those that can be assigned somewhere below it, in
// order of name. The built-in ones can be assigned everywhere.
func (r *RBAC) Definitions(ctx context.Context, tenant, scope string, below bool) ([]RoleDefinition, error) {
	var defs []RoleDefinition
	for _, ro := range r.roles {
		defs = append(defs, ro.def)
	}
	custom, err := r.custom.Scan(ctx, store.Key(strings.ToLower(tenant))+"/", "", 0)
	if err != nil {
		return nil, err
	}
	for _, e := range custom {
		if e.Err == nil && (e.Value.AssignableAt(scope) || below && e.Value.assignableBelow(scope)) {
			defs = append(defs, e.Value)
		}
	}
	slices.SortFunc(defs, func(a, b RoleDefinition) int { return strings.Compare(a.Name, b.Name) })
	return defs, nil
}

// Definition finds a role of a tenant, or a built-in one, by its GUID, in any
// case.
func (r *RBAC) Definition(ctx context.Context, tenant, guid string) (RoleDefinition, bool, error) {
	guid = strings.ToLower(guid)
	if ro := r.roles[guid]; ro != nil {
		return ro.def, true, nil
	}
	return r.custom.Load(ctx, definitionKey(strings.ToLower(tenant), guid))
}

// SeenFrom reports whether a look at a scope, given in any case, shows the
// role: it can be assigned there or somewhere below.
func (d *RoleDefinition) SeenFrom(scope string) bool {
	return d.AssignableAt(scope) || d.assignableBelow(scope)
}

// AssignableAt reports whether the role can be assigned at a scope, given in
// any case.
func (d *RoleDefinition) AssignableAt(scope string) bool {
	key := scopeKey(scope)
	return slices.ContainsFunc(d.AssignableScopes, func(s string) bool { return covers(scopeKey(s), key) })
}

// assignableBelow reports whether one of the role's assignable scopes lies at
// or below a scope.
func (d *RoleDefinition) assignableBelow(scope string) bool {
	key := scopeKey(scope)
	return slices.ContainsFunc(d.AssignableScopes, func(s string) bool { return covers(key, scopeKey(s)) })
}

// role is a definition with its patterns ready to match.
type role struct {
	def                         RoleDefinition
	actions, notActions         []string // lower case
	dataActions, notDataActions []string
}

func compileRoles(defs []RoleDefinition) map[string]*role {
	roles := make(map[string]*role, len(defs))
	for _, d := range defs {
		roles[d.ID] = compileRole(d)
	}
	return roles
}

func compileRole(d RoleDefinition) *role {
	return &role{
		def:            d,
		actions:        lowerAll(d.Actions),
		notActions:     lowerAll(d.NotActions),
		dataActions:    lowerAll(d.DataActions),
		notDataActions: lowerAll(d.NotDataActions),
	}
}

func lowerAll(ss []string) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = strings.ToLower(s)
	}
	return out
}

// allows reports whether the role holds the action. What notActions take away
// counts within the role only: another role may still grant it.
func (ro *role) allows(action string, data bool) bool {
	if data {
		return anyMatch(ro.dataActions, action) && !anyMatch(ro.notDataActions, action)
	}
	return anyMatch(ro.actions, action) && !anyMatch(ro.notActions, action)
}

// mayAssign reports whether the role's limit on what a holder may assign
// permits the action. It only speaks of writing and deleting assignments.
func (ro *role) mayAssign(action, roleID string) bool {
	if ro.def.MayAssign == nil || !matchAction(assignmentWrite, action) && !matchAction(assignmentDelete, action) {
		return true
	}
	return slices.Contains(ro.def.MayAssign, strings.ToLower(roleID))
}

// The actions on which roles with a limit are limited, in lower case.
const (
	assignmentWrite  = "microsoft.authorization/roleassignments/write"
	assignmentDelete = "microsoft.authorization/roleassignments/delete"
)

func anyMatch(patterns []string, action string) bool {
	for _, p := range patterns {
		if matchAction(p, action) {
			return true
		}
	}
	return false
}
