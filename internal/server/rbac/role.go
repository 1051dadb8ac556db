package rbac

import (
	"context"
	"slices"
	"strings"
)

// BuiltInRole is the type of role definitions that nobody made, as the
// management API spells it. There are no others.
const BuiltInRole = "BuiltInRole"

// RoleDefinition is a named set of actions. The shape is that of the
// management API's properties, with one set of permissions.
type RoleDefinition struct {
	ID               string // GUID, lower case
	Name             string // display name
	Type             string // BuiltInRole
	Description      string
	AssignableScopes []string
	Actions          []string
	NotActions       []string
	DataActions      []string
	NotDataActions   []string
	// MayAssign limits which roles a holder may assign and unassign, by GUID;
	// nil means no limit. Azure writes it as a condition, see [RoleDefinition.Condition].
	MayAssign []string
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

// Definitions returns the roles that can be assigned at a scope, in order of
// name. The built-in ones can be assigned everywhere.
func (r *RBAC) Definitions(_ context.Context, scope string) ([]RoleDefinition, error) {
	var defs []RoleDefinition
	for _, ro := range r.roles {
		if slices.ContainsFunc(ro.def.AssignableScopes, func(s string) bool { return covers(scopeKey(s), scope) }) {
			defs = append(defs, ro.def)
		}
	}
	slices.SortFunc(defs, func(a, b RoleDefinition) int { return strings.Compare(a.Name, b.Name) })
	return defs, nil
}

// Definition finds a role by its GUID, in any case.
func (r *RBAC) Definition(_ context.Context, guid string) (RoleDefinition, bool, error) {
	ro := r.roles[strings.ToLower(guid)]
	if ro == nil {
		return RoleDefinition{}, false, nil
	}
	return ro.def, true, nil
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
		roles[d.ID] = &role{
			def:            d,
			actions:        lowerAll(d.Actions),
			notActions:     lowerAll(d.NotActions),
			dataActions:    lowerAll(d.DataActions),
			notDataActions: lowerAll(d.NotDataActions),
		}
	}
	return roles
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
