package arm

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Permission is one registered route and the action that it demands.
type Permission struct {
	Type       string // as in ResourceType.Name
	Method     string
	Collection bool
	Levels     Level
	Action     string
	Version    string // the newest api-version that is accepted
}

// Permissions lists every registered route, in order of type and method: the
// table of who may do what on this plane.
func (h *Handler) Permissions() []Permission {
	var all []Permission
	for _, rt := range h.reg.types {
		for _, r := range rt.routes {
			all = append(all, Permission{
				Type: rt.Name, Method: r.Method, Collection: r.Collection, Levels: r.Levels, Action: r.Action, Version: rt.Versions[len(rt.Versions)-1],
			})
		}
	}
	slices.SortFunc(all, func(a, b Permission) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Method, b.Method))
	})
	return all
}

// Check says what is wrong with the action of a route: that there is none, or
// that it is weaker than what the method does. A wildcard role such as Reader
// gives whole classes of actions, told by their last segment.
func (p Permission) Check() error {
	i := strings.LastIndexByte(p.Action, '/')
	if i < 0 {
		return fmt.Errorf("%s %s demands no action", p.Method, p.Type)
	}
	var fits bool
	switch class := p.Action[i+1:]; p.Method {
	case http.MethodGet:
		fits = class == "read" || class == "write" || class == "action"
	case http.MethodPut, http.MethodPatch:
		fits = class == "write" || class == "action"
	case http.MethodDelete:
		fits = class == "delete"
	case http.MethodPost:
		// A question whose text does not fit into a URL.
		fits = class == "write" || class == "action" || class == "read" && strings.HasSuffix(p.Action[:i], "/checkNameAvailability")
	}
	if !fits {
		return fmt.Errorf("%s %s demands the action %s", p.Method, p.Type, p.Action)
	}
	return nil
}
