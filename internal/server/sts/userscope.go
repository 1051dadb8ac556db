package sts

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/web"
)

// userScope is what a person's client asks for.
type userScope struct {
	resource string // empty if it names none
	openid   bool   // an id token
	offline  bool   // a refresh token
}

// parseUserScope reads a scope: at most one resource, with the permissions
// that there are, and scopes about the person. As in app-only requests
// everything before the last slash is the resource, verbatim. Several
// permissions of one resource are one.
func parseUserScope(scope string) (userScope, error) {
	var u userScope
	for s := range strings.FieldsFuncSeq(scope, func(r rune) bool { return r == ' ' }) {
		switch strings.ToLower(s) {
		case "openid":
			u.openid = true
			continue
		case "offline_access":
			u.offline = true
			continue
		case "profile", "email":
			continue
		}
		i := strings.LastIndexByte(s, '/')
		if i <= 0 || !scopeToken(s) {
			return userScope{}, errScopeMalformed(scope)
		}
		switch s[i+1:] {
		case ".default", delegated:
		default:
			return userScope{}, errPermissionUnknown(s)
		}
		if u.resource != "" && u.resource != s[:i] {
			return userScope{}, errTwoResources(scope)
		}
		u.resource = s[:i]
	}
	if u.resource == "" && !u.openid {
		return userScope{}, errScopeMalformed(scope)
	}
	return u, nil
}

// agreedResource is the resource of a scope that has been checked, for the
// person to see.
func agreedResource(r *http.Request, scope string) string {
	u, _ := parseUserScope(scope)
	if u.resource == "" {
		return web.CallOf(r.Context()).Names.Graph
	}
	return u.resource
}

// delegated is the one permission that a client can have from a person: to
// act as the person. What the person may do, roles and policies decide.
const delegated = "user_impersonation"

func errPermissionUnknown(scope string) *Error {
	return badRequest(65005, invalidScope, "The scope %s is not known. Ask for the whole resource, with /.default or /%s.", echo(scope), delegated)
}

func errTwoResources(scope string) *Error {
	return badRequest(28000, invalidScope, "Provided value for the input parameter scope is not valid because it contains more than one resource. Scope %s is not valid.", echo(scope))
}
