package sts

import "strings"

// parseScope returns the resource of an app-only request's scope: exactly one
// "<resource>/.default", everything before that suffix verbatim, so that
// "https://x//.default" is the resource "https://x/". Scopes about the user
// say nothing here and are ignored: MSAL for Go adds them to every request.
func parseScope(scope string) (resource string, err error) {
	for s := range strings.FieldsFuncSeq(scope, func(r rune) bool { return r == ' ' }) {
		switch strings.ToLower(s) {
		case "openid", "offline_access", "profile", "email":
			continue
		}
		if resource != "" || !scopeToken(s) {
			return "", errScopeMalformed(scope)
		}
		resource = s
	}
	if resource == "" {
		return "", errScopeMalformed(scope)
	}
	resource, ok := strings.CutSuffix(resource, "/.default")
	if !ok {
		return "", errScopeNotDefault(scope)
	}
	if resource == "" {
		return "", errScopeMalformed(scope)
	}
	return resource, nil
}

// scopeToken reports whether s has only the characters of RFC 6749 3.3.
func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}
