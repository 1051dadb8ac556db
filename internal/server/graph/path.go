package graph

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
)

// segment is a part of a path: a name, or a key.
type segment struct {
	text string
	alt  string // for a key by another property than the id, that property: appId, name
	key  bool   // it was in parentheses, so it is no name
}

// parsePath reads an escaped path: a version, then names and keys. A key is a
// segment of its own, or in parentheses after the name as OData writes it:
// users/ID, users('ID'), applications(appId='ID').
func parsePath(escaped string) (version string, path []segment, err error) {
	for part := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		text, err := url.PathUnescape(part)
		if err != nil || !utf8.ValidString(text) {
			return "", nil, noSegment(part)
		}
		if version == "" {
			version = strings.ToLower(text)
			continue
		}
		name, inner, ok := strings.Cut(text, "(")
		path = append(path, segment{text: name})
		if !ok {
			continue
		}
		key, ok := parseKey(inner)
		if !ok || name == "" {
			return "", nil, noSegment(text)
		}
		path = append(path, key)
	}
	if version != "v1.0" && version != "beta" {
		return "", nil, fault.BadRequest(codeBad, "Invalid version: %s", clip(version))
	}
	return version, path, nil
}

// parseKey reads what is in parentheses, the closing one included: a text in
// single quotes, a quote inside it doubled, maybe after a property's name.
func parseKey(s string) (segment, bool) {
	k := segment{key: true}
	s, ok := strings.CutSuffix(s, "')")
	if !ok {
		return k, false
	}
	if k.alt, s, ok = strings.Cut(s, "'"); !ok {
		return k, false
	}
	if k.alt != "" {
		if k.alt, ok = strings.CutSuffix(k.alt, "="); !ok || k.alt == "" {
			return k, false
		}
	}
	k.text = strings.ReplaceAll(s, "''", "'")
	return k, k.text != "" && strings.Count(k.text, "'")*2 == strings.Count(s, "'")
}

// match finds the route of a path, and the keys in it. Names are known in any
// case.
func match(routes []route, method string, path []segment) (*route, []segment, error) {
	var allow []string
	for i := range routes {
		keys, ok := matchPattern(routes[i].pattern, path)
		switch {
		case !ok:
		case routes[i].method == method:
			return &routes[i], keys, nil
		default:
			allow = append(allow, routes[i].method)
		}
	}
	if len(allow) > 0 {
		slices.Sort(allow)
		return nil, nil, fault.New(fault.BadMethod, codeBad, "The method is not allowed for this resource; allowed are: %s.", strings.Join(slices.Compact(allow), ", "))
	}
	last := ""
	if len(path) > 0 {
		last = path[len(path)-1].text
	}
	return nil, nil, noSegment(last)
}

func matchPattern(pattern string, path []segment) (keys []segment, ok bool) {
	for want := range strings.SplitSeq(pattern, "/") {
		if len(path) == 0 {
			return nil, false
		}
		got := path[0]
		path = path[1:]
		switch {
		case want == "{}" && got.text != "" && (got.key || !strings.HasPrefix(got.text, "$")):
			keys = append(keys, got)
		case want == "{}", got.key, !strings.EqualFold(want, got.text):
			return nil, false
		}
	}
	return keys, len(path) == 0
}

func noSegment(s string) error {
	return fault.BadRequest(codeBad, "Resource not found for the segment '%s'.", clip(s))
}
