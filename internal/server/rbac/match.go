package rbac

import "strings"

// matchAction reports whether an action matches a pattern, which is in lower
// case and in which * stands for any run of characters, slashes included.
// The action may be in any case. Only ASCII letters have a case here: both
// sides are made of them. It does not allocate.
func matchAction(pattern, action string) bool {
	p, a := 0, 0
	star, mark := -1, 0 // the last * seen, and where its run ends so far
	for a < len(action) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, a
			p++
		case p < len(pattern) && pattern[p] == lower(action[a]):
			p++
			a++
		case star >= 0:
			mark++
			p, a = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// covers reports whether a scope, normalised by [scopeKey], is the object or
// an ancestor of it. The object may be in any case and has no closing slash.
func covers(scope, object string) bool {
	if scope == "/" {
		return true
	}
	if len(object) < len(scope) {
		return false
	}
	for i := range len(scope) {
		if scope[i] != lower(object[i]) {
			return false
		}
	}
	return len(object) == len(scope) || object[len(scope)] == '/'
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// scopeKey is the form in which scopes are compared: lower case, without a
// closing slash, "/" for the tenant.
func scopeKey(scope string) string {
	scope = strings.TrimRight(scope, "/")
	if scope == "" {
		return "/"
	}
	return strings.ToLower(scope)
}

// validScope reports whether a scope can be compared at all: it begins with a
// slash, has no empty segment and is printable ASCII, so that lower-casing
// cannot make two different scopes equal.
func validScope(scope string) bool {
	if scope == "/" {
		return true
	}
	if !strings.HasPrefix(scope, "/") || len(scope) > 2048 || strings.Contains(scope, "//") || strings.HasSuffix(scope, "/") {
		return false
	}
	for i := range len(scope) {
		if scope[i] < ' ' || scope[i] > '~' {
			return false
		}
	}
	return true
}
