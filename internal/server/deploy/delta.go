package deploy

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/template"
)

// propertyChange is the difference in one property.
type propertyChange struct {
	Path               string           `json:"path"`
	PropertyChangeType string           `json:"propertyChangeType"` // Create, Delete, Modify or Array
	Before             any              `json:"before,omitempty"`
	After              any              `json:"after,omitempty"`
	Children           []propertyChange `json:"children,omitempty"`
}

// compareResource finds what a PUT of after would change. Properties that
// after does not name stay as they are, but for tags: a PUT replaces them.
func compareResource(before, after map[string]any) []propertyChange {
	var out []propertyChange
	for _, k := range keys(after) {
		if strings.EqualFold(k, "tags") {
			continue
		}
		out = append(out, compare(member(before, k), after[k], k)...)
	}
	tags, _ := member(after, "tags").(map[string]any)
	old, _ := member(before, "tags").(map[string]any)
	for _, k := range keys(old) {
		if member(tags, k) == nil {
			out = append(out, propertyChange{Path: "tags." + k, PropertyChangeType: "Delete", Before: old[k]})
		}
	}
	for _, k := range keys(tags) {
		out = append(out, compare(member(old, k), tags[k], "tags."+k)...)
	}
	return out
}

func compare(before, after any, path string) []propertyChange {
	switch a := after.(type) {
	case nil:
		return nil // as if it were not named
	case map[string]any:
		b, ok := before.(map[string]any)
		if !ok && before != nil {
			break
		}
		var out []propertyChange
		for _, k := range keys(a) {
			out = append(out, compare(member(b, k), a[k], path+"."+k)...)
		}
		return out
	case []any:
		if b, ok := before.([]any); ok {
			return compareArrays(b, a, path)
		}
		if before == nil && len(a) == 0 {
			return nil
		}
	}
	switch {
	case before == nil:
		return []propertyChange{{Path: path, PropertyChangeType: "Create", After: after}}
	case same(before, after, path):
		return nil
	}
	return []propertyChange{{Path: path, PropertyChangeType: "Modify", Before: before, After: after}}
}

// compareArrays compares item by item, and lists of plain texts as sets where
// the order has no meaning: permissions and the like.
func compareArrays(before, after []any, path string) []propertyChange {
	if a, ok := textSet(after); ok {
		if b, ok := textSet(before); ok && slices.Equal(a, b) && strings.Contains(strings.ToLower(path), "permissions.") {
			return nil
		}
	}
	var children []propertyChange
	for i := range max(len(before), len(after)) {
		at := strconv.Itoa(i)
		switch {
		case i >= len(before):
			children = append(children, propertyChange{Path: at, PropertyChangeType: "Create", After: after[i]})
		case i >= len(after):
			children = append(children, propertyChange{Path: at, PropertyChangeType: "Delete", Before: before[i]})
		default:
			for _, c := range compare(before[i], after[i], path) {
				c.Path = at + strings.TrimPrefix(c.Path, path)
				children = append(children, c)
			}
		}
	}
	if len(children) == 0 {
		return nil
	}
	return []propertyChange{{Path: path, PropertyChangeType: "Array", Children: children}}
}

func textSet(list []any) ([]string, bool) {
	out := make([]string, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		out[i] = strings.ToLower(s)
	}
	slices.Sort(out)
	return slices.Compact(out), true
}

// same tells whether two values mean the same. Names that the service knows
// have no case; regions have two spellings; a role may be named at any scope.
func same(before, after any, path string) bool {
	b, isText := before.(string)
	a, too := after.(string)
	if !isText || !too {
		return before == after
	}
	leaf := strings.ToLower(path[strings.LastIndexByte(path, '.')+1:])
	switch leaf {
	case "location":
		return strings.EqualFold(strings.ReplaceAll(a, " ", ""), strings.ReplaceAll(b, " ", ""))
	case "roledefinitionid":
		return strings.EqualFold(a[strings.LastIndexByte(a, '/')+1:], b[strings.LastIndexByte(b, '/')+1:])
	case "family", "name", "bypass", "defaultaction", "principaltype", "principalid", "tenantid", "objectid", "publicnetworkaccess":
		return strings.EqualFold(a, b)
	}
	return a == b || strings.HasPrefix(a, "/subscriptions/") && strings.EqualFold(a, b)
}

func redactDelta(list []propertyChange, secrets []string) []propertyChange {
	for i := range list {
		c := &list[i]
		c.Path = template.Redact(c.Path, secrets)
		c.Before, c.After = template.RedactAll(c.Before, secrets), template.RedactAll(c.After, secrets)
		c.Children = redactDelta(c.Children, secrets)
	}
	return list
}

func keys(m map[string]any) []string { return slices.SortedFunc(maps.Keys(m), cmp.Compare[string]) }
